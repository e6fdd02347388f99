/* store_look - whether there is a model store, and whether pull could write there
 *
 * store_open makes what is missing, since nobody wants to be asked to make a folder. Whoever only
 * looks at a box (hearth doctor) must not, and has to say beforehand what a pull of an hour would
 * say at its end.
 *
 * Permissions say little of who may write: root may nearly always, a mount or a quota allows nobody
 * to. So a file without a name is made in each of the folders, which is gone when it is closed
 * (os_can_make). Of a folder that is not there yet, it is made in the nearest above it.
 *
 * Next: cmd/store.c. */
#include "cmd/store_look.h"

#include "base/buf.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum err store_look_folder(const char *path)
{
    char text[ERR_TEXT_MAX];
    const enum err e = os_can_make(path);
    if (e == ERR_OK) {
        return ERR_OK;
    }
    snprintf(text, sizeof text, "%s", err_text());
    return err_set(e, "%s; pull writes there: mend that, or " STORE_ELSEWHERE, text);
}

enum err store_look_file(const char *path)
{
    REQUIRE(faccessat(AT_FDCWD, path, W_OK, AT_EACCESS) == 0 || errno == ENOENT, ERR_IO,
            "%s: cannot write: %s; pull has to: mend that, or " STORE_ELSEWHERE, path,
            strerror(errno));
    return ERR_OK;
}

/* Cuts a path to the nearest that is there. */
static enum err cut_to_nearest(char *path)
{
    struct stat s;
    while (stat(path, &s) != 0) {
        REQUIRE(errno == ENOENT || errno == ENOTDIR, ERR_IO, "%s: %s", path, strerror(errno));
        char *slash = strrchr(path, '/');
        REQUIRE(slash != NULL, ERR_IO, "%s: %s", path, strerror(errno));
        slash[slash == path] = '\0'; /* the root stays */
    }
    REQUIRE(S_ISDIR(s.st_mode), ERR_IO, "%s: exists and is no folder", path);
    return ERR_OK;
}

static void note(char to[ERR_TEXT_MAX])
{
    if (to[0] == '\0') { /* the first tells most */
        snprintf(to, ERR_TEXT_MAX, "%s", err_text());
    }
}

/* Blobs and an index: what list and run need. store_open makes the rest, or does without. */
static bool has_models(const char *data)
{
    char path[OS_PATH_BYTES];
    struct stat s;
    snprintf(path, sizeof path, "%s/models/blobs", data);
    if (stat(path, &s) != 0) {
        return false;
    }
    snprintf(path, sizeof path, "%s/hearth.db", data);
    return stat(path, &s) == 0 && s.st_size > 0;
}

static void look_at(struct store_look *l, const char *data)
{
    static const char *const parts[] = { "", "/models", "/models/blobs", "/models/partial" };
    char path[OS_PATH_BYTES];
    for (size_t i = 0; i < sizeof parts / sizeof parts[0] && l->fault[0] == '\0'; i++) {
        snprintf(path, sizeof path, "%s%s", data, parts[i]);
        if (cut_to_nearest(path) != ERR_OK) {
            (void)err_set(ERR_IO, "%s; " STORE_ELSEWHERE, err_text());
            note(l->fault);
        } else if (store_look_folder(path) != ERR_OK) {
            note(l->refused);
        }
        snprintf(l->above, sizeof l->above, "%s", path);
    }
    snprintf(path, sizeof path, "%s/models/lock", data);
    if (l->fault[0] == '\0' && store_look_file(path) != ERR_OK) {
        note(l->refused);
    }
    snprintf(path, sizeof path, "%s/hearth.db", data);
    if (l->fault[0] == '\0' && store_look_file(path) != ERR_OK) {
        note(l->refused);
    }
    l->is_there = l->fault[0] == '\0' && has_models(data);
}

void store_look(struct store_look *out)
{
    struct buf data;
    *out = (struct store_look){ 0 };
    buf_init(&data, OS_PATH_BYTES - 64);
    if (os_dir(OS_DIR_DATA, &data) == ERR_OK) {
        snprintf(out->folder, sizeof out->folder, "%.*s/models", OS_PATH_BYTES - 16,
                 buf_str(&data));
        look_at(out, buf_str(&data));
    } else {
        note(out->fault);
    }
    buf_release(&data);
}
