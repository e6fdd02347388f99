/* store_image - packed images of models in the store
 *
 * An image (model/image.h) is a blob like all others: written to the partial folder, hashed on its
 * way, synced, renamed to its digest. The index has it behind the model's own files, with the
 * layout it was made for as its title. So verify reads it, and rm takes it along.
 *
 * Its own digest cannot tell what it was made of, so the model's files are compared with theirs
 * before; and a pull that replaces a damaged file drops the image.
 *
 * Whoever resolves the model's name gets the image when it begins as the one that was written and
 * its layout is this program's, and else the GGUF file with a line that says so. The GGUF file
 * stays: it is the model, the image can be made again. Who asks for it gets a new one, whatever is
 * there.
 *
 * Memory: the packed slots of 64 MiB, or of the largest matrix.
 *
 * Next: cmd/store_pull.c. */
#include "cmd/store_image.h"

#include "base/team.h"
#include "base/topo.h"
#include "model/image.h"

#include <stdio.h>

struct packing {
    struct store_writer w;
    struct progress bar;
};

static enum err take(void *arg, const uint8_t *bytes, size_t n)
{
    struct packing *p = arg;
    TRY(store_write(&p->w, bytes, n));
    progress_set(&p->bar, p->w.n);
    return ERR_OK;
}

static enum err write_blob(struct store *st, const struct gguf *g, struct weights *w,
                           struct store_file *f, struct packing *p)
{
    struct team *team = NULL;
    TRY(store_begin(&p->w, st, image_bytes(w, g)));
    p->w.is_image = true;
    TRY(team_open(&team, topo_threads()));
    progress_begin_short(&p->bar, "packing", image_bytes(w, g));
    enum err e = image_write(w, g, team, take, p);
    progress_end(&p->bar);
    team_close(team);
    return e == ERR_OK ? store_finish(&p->w, NULL, f) : e;
}

static enum err check_files(const struct store *st, const struct store_model *m)
{
    for (size_t i = 0; i < m->n_file; i++) {
        REQUIRE(store_is_sound(st, &m->files[i]), ERR_INTEGRITY,
                "its file sha256-%s is damaged, so no image is made of it; run: hearth pull %s",
                m->files[i].digest, m->name);
    }
    return ERR_OK;
}

static enum err pack(struct store *st, struct store_model *m, struct gguf **g, struct weights *w)
{
    struct arch arch;
    struct buf path;
    struct packing p = { .w = { .fd = -1 } };
    char generation[65];
    char layout[65];
    struct store_file *f = &m->files[m->n_file];
    buf_init(&path, OS_PATH_BYTES);
    enum err e = store_path(st, m, &path);
    e = e == ERR_OK ? gguf_open(g, buf_str(&path)) : e;
    buf_release(&path);
    TRY(e);
    TRY(arch_read(&arch, *g));
    TRY(weights_bind(w, &arch, *g));
    TRY(weights_generation(generation));
    TRY(weights_layout(w, layout));
    snprintf(f->title, sizeof f->title, "%s.%s", generation, layout);
    e = write_blob(st, *g, w, f, &p);
    store_drop(&p.w);
    TRY(e);
    m->n_blob = m->n_file + 1;
    return store_put(st, m);
}

enum err store_pack(struct store *st, struct store_model *m)
{
    struct gguf *g = NULL;
    struct weights w = { 0 };
    enum err e = check_files(st, m);
    e = e == ERR_OK ? pack(st, m, &g, &w) : e;
    weights_release(&w);
    gguf_close(g);
    return e == ERR_OK ? e : err_at(e, "packing %s", m->name);
}
