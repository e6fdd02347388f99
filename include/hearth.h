/* hearth - run language models on a box you own: the public interface of libhearth
 *
 * Three objects: a box (this machine), a model (weights, its engine thread and its cache) and a
 * request (one prompt being answered). No tensor is visible.
 *
 * Errors     Functions return a hearth_status; on failure outputs are untouched (LIMIT: *n, ids)
 *            and hearth_error() gives one line for a person, valid until the same thread's next
 *            call. NULL for what is needed is USAGE; functions without a status do nothing then.
 * Threads    Any thread may call anything, but one request is used by one thread at a time, and an
 *            object is closed last. Nothing calls back but `progress`, on the thread that opens.
 * Ownership  Strings and arrays passed in are borrowed for the call. What an event points to stays
 *            valid until the next hearth_next on the same request.
 * Structs    Parameters begin with `size`: fill with the _init function, then set fields; another
 *            size is USAGE. Outputs are written whole. Layouts change only with the soname.
 * Limits     All memory is planned and taken by hearth_model_open; generating takes none. */
#ifndef HEARTH_H
#define HEARTH_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif
#define HEARTH_API __attribute__((visibility("default")))

typedef enum hearth_status {
    HEARTH_OK = 0,
    HEARTH_FAILED = 1,
    HEARTH_USAGE = 2,     /* arguments make no sense */
    HEARTH_NOT_FOUND = 3, /* no such model or file */
    HEARTH_MEMORY = 4,    /* does not fit; the text has both numbers */
    HEARTH_INTEGRITY = 5, /* damaged or hostile data */
    HEARTH_AUTH = 6,
    HEARTH_NET = 7,
    HEARTH_POLICY = 8,
    HEARTH_IO = 9,
    HEARTH_UNSUPPORTED = 10, /* well-formed, but not supported; the text names what is missing */
    HEARTH_LIMIT = 11,       /* a stated limit was reached; the text has both numbers */
    HEARTH_CANCELLED = 12,
    HEARTH_BUSY = 75, /* nothing yet, or full: try again */
} hearth_status;

HEARTH_API const char *hearth_version(void);
HEARTH_API const char *hearth_status_name(hearth_status status);
HEARTH_API const char *hearth_error(void);
/* --- the box ---------------------------------------------------------------------------------- */
struct hearth_box;
struct hearth_box_params {
    size_t size;
    int32_t n_thread;      /* 0: one per core this process may use */
    const char *isa;       /* NULL: best; for tests one that `hearth bench --kernels` lists */
    uint64_t memory_bytes; /* most memory to use; 0: what the box and its cgroup have free */
};

struct hearth_limits { /* measured now, takes a second or more: by all threads, by one */
    struct hearth_rates {
        double read_gb_s, int8_gop_s, f32_gflop_s, bf16_gflop_s; /* 0: no such instruction */
        double core_share; /* of their time, that the threads were on a core: 1, unless shared */
    } all, one;            /* multiply and add are two */
    uint64_t n_thread, read_bytes, wanted_bytes; /* wanted, so that caches hold little of it */
};

HEARTH_API void hearth_box_init(struct hearth_box_params *p);
HEARTH_API hearth_status hearth_box_open(const struct hearth_box_params *p,
                                         struct hearth_box **box);
HEARTH_API void hearth_box_close(struct hearth_box *box);
HEARTH_API hearth_status hearth_box_measure(struct hearth_box *box, struct hearth_limits *out);
/* The kernels chosen for this box, one a line. Writes at most cap bytes incl. the final 0. */
HEARTH_API size_t hearth_box_kernels(const struct hearth_box *box, char *out, size_t cap);
/* --- a model ---------------------------------------------------------------------------------- */
struct hearth_model;
struct hearth_model_params {
    size_t size;
    int32_t n_ctx;          /* tokens of a conversation; 0: 4096, or what the model was made for */
    int32_t n_parallel;     /* conversations generated at once; 0: 1 */
    int32_t n_queue;        /* requests that may wait; beyond: HEARTH_BUSY. 0: 64 */
    int32_t n_batch;        /* tokens of a prompt in one piece; 0, or where more do not fit: 512 */
    const char *kv, *draft; /* "f16" (NULL), "bf16", "q8_0", "f32"; a small model that guesses */
    void (*progress)(void *arg, double done); /* 0..1 while loading; may be NULL */
    void *progress_arg;
    uint64_t extra_bytes; /* what the caller takes beside the model, HEARTH_TEXT_BYTES too */
    int32_t checks_all;   /* 1: at start a token goes through all layers, not one of each kind */
};

#define HEARTH_PLAN_PARTS 24
struct hearth_plan { /* step_: for a token; parallel_: for n_parallel; piece_: a prompt's */
    size_t size;
    uint64_t total_bytes, least_bytes, available_bytes; /* least: what no smaller context saves */
    const char *available_from;                         /* static text: what the limit is */
    int32_t fits, n_ctx, n_parallel, n_batch, n_part, n_expert, n_kept; /* kept: of experts */
    struct {
        const char *name;
        uint64_t bytes;
    } part[HEARTH_PLAN_PARTS];           /* static names */
    uint64_t step_read_bytes, token_ops; /* to decode one, cache empty; of products, in a prompt */
    uint64_t token_kv_bytes, step_disk_bytes;       /* cache of a token; read from disk */
    uint64_t window_kv_bytes, window, mapped_bytes; /* its part where so many are seen; an image */
    uint64_t piece_disk_bytes, packed_bytes, packed_disk_bytes, packed_piece_bytes;
    uint64_t parallel_read_bytes, parallel_disk_bytes, packed_parallel_bytes; /* if packed */
};

struct hearth_model_info {
    size_t size;
    char name[128], arch[32];
    char type[16]; /* the most frequent weight type */
    char tokenizer[48];
    uint64_t n_param, file_bytes;
    int32_t n_vocab, n_layer, n_embd, n_ctx, n_ctx_train; /* as opened; what it was made for */
    int32_t bos, eos, has_template;                       /* -1: none */
    uint64_t n_active; /* parameters that a token uses: of experts the chosen ones */
};

HEARTH_API void hearth_model_init(struct hearth_model_params *p);
/* What opening would take: the forward pass run dry. Reads only the file's header. */
HEARTH_API hearth_status hearth_plan_make(struct hearth_box *box, const char *path,
                                          const struct hearth_model_params *p,
                                          struct hearth_plan *out);
struct hearth_speed {
    int32_t n_prompt, n_depth, n_parallel; /* asked: a prompt, what lies before, answers; or 0 */
    double read_gb_s, disk_gb_s;           /* of memory, disk; 0 in the first: measured, and told */
    uint64_t step_disk_bytes, piece_disk_bytes; /* as the plan says; 0: the disk is not measured */
    double prefill_tok_s, decode_tok_s, core_share; /* predicted; of all answers; as of limits */
};
/* By the file's header and a second's trials of what it computes. MEMORY: no room for these. */
HEARTH_API hearth_status hearth_predict(struct hearth_box *box, const char *path,
                                        const struct hearth_model_params *p,
                                        struct hearth_speed *at, size_t n_at);
/* Loads, starts, checks (INTEGRITY, FAILED). MEMORY: no room. The box must outlive the model. */
HEARTH_API hearth_status hearth_model_open(struct hearth_box *box, const char *path,
                                           const struct hearth_model_params *p,
                                           struct hearth_model **model);
/* Its requests are closed before: nothing of them may be used after it. */
HEARTH_API void hearth_model_close(struct hearth_model *model);
HEARTH_API void hearth_model_get_info(const struct hearth_model *model,
                                      struct hearth_model_info *out);
/* --- text and tokens ------------------------------------------------------------------------- */
/* *n: in the room in `ids` or `out`; out the number written. With LIMIT the number needed, or as it
 * was if something else is too large (hearth_error()). Most memory they take beside the plan (chat:
 * and the JSON's tree; detokenize: its text, to 16 MiB); n_text: bytes, of no UTF-8 three times: */
#define HEARTH_TEXT_BYTES(n_text) (((n_text) > 300000 ? (n_text) : (size_t)300000) * 84)
enum { HEARTH_ADD_SPECIAL = 1, HEARTH_PARSE_SPECIAL = 2, HEARTH_SHOW_SPECIAL = 4 };

HEARTH_API hearth_status hearth_tokenize(const struct hearth_model *model, const char *text,
                                         size_t n_text, int flags, int32_t *ids, size_t *n);
HEARTH_API hearth_status hearth_detokenize(const struct hearth_model *model, const int32_t *ids,
                                           size_t n_ids, int flags, char *out, size_t *n);
/* Renders the model's chat template: its text or ids. `json` is an object of "messages" (objects)
 * and optionally "tools" (array), "add_generation_prompt" (default true), "template_vars" (object),
 * nothing else. Text from messages can never form control tokens. */
HEARTH_API hearth_status hearth_chat_text(const struct hearth_model *model, const char *json,
                                          size_t n_json, char *out, size_t *n);
HEARTH_API hearth_status hearth_chat_tokens(const struct hearth_model *model, const char *json,
                                            size_t n_json, int32_t *ids, size_t *n);

/* --- requests --------------------------------------------------------------------------------- */
struct hearth_request;
struct hearth_bias {
    int32_t token;
    float bias;
};

struct hearth_request_params {
    size_t size;
    const int32_t *tokens; /* the prompt; must leave room for at least one token in n_ctx */
    size_t n_token;
    int32_t max_tokens;            /* per choice; 0: what the context leaves */
    int32_t n_choice;              /* 1..HEARTH_CHOICE_MAX; the prompt is computed once */
    float temperature;             /* 0: greedy; else 1e-6..100. default 1 */
    int32_t top_k;                 /* 0: off */
    float top_p, min_p, typical_p; /* 1, 0, 1: off (defaults) */
    float repeat_penalty;          /* 0.01..100. 1: off */
    float presence_penalty, frequency_penalty; /* 0: off */
    int32_t repeat_last_n; /* tokens repeat_penalty looks back at; default 64, -1: all */
    uint64_t seed;         /* default: random; see docs/NUMERICS.md */
    const struct hearth_bias *bias;
    size_t n_bias;           /* <= HEARTH_BIAS_MAX */
    int32_t n_logprob;       /* alternatives per token, 0..HEARTH_LOGPROB_MAX; -1: none at all */
    const char *const *stop; /* generation ends before the first of these texts */
    size_t n_stop;           /* <= HEARTH_STOP_MAX, each <= HEARTH_STOP_BYTES */
    int32_t ignore_eos, show_special; /* go on after an end; control tokens appear in the text */
    uint64_t timeout_us;              /* from submission; 0: none */
    int32_t n_made_up, no_guesses; /* measuring: first tokens with a made up cache; 1: no guesses */
};

#define HEARTH_CHOICE_MAX  8
#define HEARTH_BIAS_MAX    1024
#define HEARTH_LOGPROB_MAX 20
#define HEARTH_STOP_MAX    16
#define HEARTH_STOP_BYTES  256

enum hearth_finish { /* from good to bad: END has the worst of the choices */
                     HEARTH_FINISH_NONE,
                     HEARTH_FINISH_STOP,
                     HEARTH_FINISH_LENGTH,
                     HEARTH_FINISH_CANCELLED,
                     HEARTH_FINISH_TIMEOUT,
                     HEARTH_FINISH_ERROR
};
enum hearth_event_kind { HEARTH_EVENT_TOKEN, HEARTH_EVENT_CHOICE_END, HEARTH_EVENT_END };
struct hearth_event {
    size_t size;
    enum hearth_event_kind kind;
    int32_t choice;
    /* TOKEN: whole characters only; empty while a character or a possible stop text is held back,
     * and the last held text comes with CHOICE_END. */
    const char *text;
    size_t n_text;
    int32_t token; /* -1 with CHOICE_END */
    float logprob; /* of the token, after temperature 1 softmax of the raw logits */
    int32_t n_top;
    const struct hearth_bias *top; /* [n_top] token and logprob, best first */
    /* CHOICE_END and END; with CANCELLED and TIMEOUT only END comes */
    enum hearth_finish finish;
    int32_t n_prompt, n_generated;            /* END: all choices together */
    uint64_t queue_us, prefill_us, decode_us; /* END: waiting, prompt, first to last token */
    const char *error;                        /* finish ERROR: text, else NULL */
};

HEARTH_API void hearth_request_init(struct hearth_request_params *p);
/* LIMIT when the prompt does not fit n_ctx (text: both numbers), BUSY when the queue is full. */
HEARTH_API hearth_status hearth_submit(struct hearth_model *model,
                                       const struct hearth_request_params *p,
                                       struct hearth_request **request);
/* Next event. BUSY: none came within timeout_us (UINT64_MAX: no limit). NOT_FOUND: after END. */
HEARTH_API hearth_status hearth_next(struct hearth_request *request, uint64_t timeout_us,
                                     struct hearth_event *out);
/* Cancelling ends with finish CANCELLED, soon; closing cancels if needed and accepts NULL. */
HEARTH_API void hearth_cancel(struct hearth_request *request);
HEARTH_API void hearth_request_close(struct hearth_request *request);
/* Polls readable when a request got events; hearth_fd_clear, before looking at them, resets it. */
HEARTH_API int hearth_fd(struct hearth_model *model);
HEARTH_API void hearth_fd_clear(struct hearth_model *model);

#define HEARTH_BATCH_BUCKETS 9 /* 1, 2, 4, 8, 16, 32, 64, 128, more */
struct hearth_stats {
    size_t size;
    int32_t is_ready; /* checked, and no file in use changed; if it lives: the next */
    uint64_t heartbeat_age_us, disk_read_bytes, disk_used_bytes; /* since it showed life; wanted */
    int32_t n_running, n_queued;
    uint64_t n_request, n_done, n_cancelled, n_refused, n_failed;                  /* since start */
    uint64_t n_prompt_token, n_generated_token, n_guessed_token, n_accepted_token; /* of guesses */
    uint64_t n_step, n_step_abandoned, step_batch[HEARTH_BATCH_BUCKETS]; /* decode steps by size */
    uint64_t kv_pages, kv_pages_used, memory_planned_bytes, rss_peak_bytes;
};
HEARTH_API void hearth_model_get_stats(const struct hearth_model *model, struct hearth_stats *out);
#ifdef __cplusplus
}
#endif
#endif
