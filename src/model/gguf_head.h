/* gguf_head - the header of one GGUF file, read and checked (model/gguf_head.c)
 *
 * What model/gguf.c puts together to a model; others include model/gguf.h. All numbers of the
 * header have been compared with the file when gguf_head_open returns (GG-1, but for overlaps and
 * names that occur twice), and its memory is bounded (GG-2). */
#ifndef HEARTH_GGUF_HEAD_H
#define HEARTH_GGUF_HEAD_H

#include "base/buf.h"
#include "base/err.h"
#include "base/os.h"
#include "num/quant.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define GGUF_META_MAX_BYTES (64u * 1024u * 1024u) /* headers of all files of a model together */
#define GGUF_TENSOR_MAX     65536                 /* of a model */
#define GGUF_KEY_MAX        4096                  /* of a file */
#define GGUF_DIM_MAX        4
#define GGUF_SHOWN_MAX      128 /* bytes of a name or path that an error quotes */

/* A packed image (model/image.h) has this header too, with a magic and a version of its own. */
#define GGUF_IMAGE_MAGIC   "HPAK"
#define GGUF_IMAGE_VERSION 2
#define GGUF_IMAGE_ALIGN   65536 /* where its weights begin: the largest page of a machine */

enum gguf_type { /* values are the file's */
                 GGUF_U8,
                 GGUF_I8,
                 GGUF_U16,
                 GGUF_I16,
                 GGUF_U32,
                 GGUF_I32,
                 GGUF_F32,
                 GGUF_BOOL,
                 GGUF_STRING,
                 GGUF_ARRAY,
                 GGUF_U64,
                 GGUF_I64,
                 GGUF_F64,
};

struct gguf_tensor {
    struct view name;           /* first: gguf.c's index looks here */
    uint32_t type;              /* enum quant_type, known and decodable */
    uint32_t n_dim;             /* 1..GGUF_DIM_MAX */
    uint64_t dim[GGUF_DIM_MAX]; /* GGUF order: dim[0] contiguous; unused = 1; none is 0 */
    uint64_t offset;            /* bytes from the start of its file */
    size_t bytes;
    int i_file; /* which part of a split model */
};

struct gguf_kv {
    struct view key; /* first: gguf.c's index looks here */
    enum gguf_type type;
    const uint8_t *value; /* of a string: its length field; of an array: its type field */
    size_t n;             /* bytes of the value */
};

struct gguf_head {
    struct os_file file;
    char *path;                     /* owns */
    char shown[GGUF_SHOWN_MAX + 4]; /* the path in errors: a long one loses its beginning */
    uint8_t *bytes;                 /* owns; [n_bytes], the header; keys and names borrow from it */
    size_t n_bytes;
    uint32_t version;
    bool is_image;
    uint64_t data_at;     /* where the tensors' bytes begin */
    struct gguf_kv *keys; /* [n_key], owns; names may still occur twice */
    size_t n_key;
    struct gguf_tensor *tensors; /* [n_tensor], owns; ranges lie in the file, may still overlap */
    size_t n_tensor;
    int64_t split_no; /* this and the next two: keys split.*; -1 when absent */
    int64_t split_count;
    int64_t split_tensors;
};

/* Opens the file and reads its header of at most budget_bytes. *h needs no initialisation and must
 * be closed also after a failure. Errors name file, byte, key or tensor, and reason. */
enum err gguf_head_open(struct gguf_head *h, const char *path, size_t budget_bytes) MUST_USE;
void gguf_head_close(struct gguf_head *h); /* after gguf_head_open */

/* --- little-endian values at p; what is read was checked to be there -------------------------- */

static inline uint32_t gguf_head_u32(const uint8_t *p)
{
    return (uint32_t)p[0] | (uint32_t)p[1] << 8 | (uint32_t)p[2] << 16 | (uint32_t)p[3] << 24;
}

static inline uint64_t gguf_head_u64(const uint8_t *p)
{
    return (uint64_t)gguf_head_u32(p) | (uint64_t)gguf_head_u32(p + 4) << 32;
}

/* Integer of kind `type` as two's complement; false when the kind is no integer. */
bool gguf_head_int(enum gguf_type type, const uint8_t *p, int64_t *out);
/* Bytes of one value; 0 for strings, arrays and unknown kinds. */
size_t gguf_head_type_bytes(uint32_t type);
const char *gguf_head_type_name(enum gguf_type type); /* "u32" */

/* A path as errors quote it: the last GGUF_SHOWN_MAX bytes. */
void gguf_head_show_path(char shown[GGUF_SHOWN_MAX + 4], const char *path);
/* Precision for "%.*s" of a name. */
int gguf_head_shown(struct view name);

#endif
