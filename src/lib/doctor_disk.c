/* doctor_disk - findings about files: the model store, its disk, and how it is read
 *
 * A model is read from the disk once when it starts, and at each token when it is larger than
 * memory. What the page cache holds of the files makes the next start fast; it is free memory all
 * the same.
 *
 * The disk's speed is the one figure that is measured for this (lib/measure.c), so it is the one
 * cost that is told in seconds. io_uring is tried by reading, since containers refuse it without a
 * setting that tells; without it threads read, about as fast, with time that answers lack.
 *
 * Next: cmd/disk.c. */
#include "lib/doctor_impl.h"

#include <stdio.h>
#include <string.h>

#define GIB          ((uint64_t)1 << 30)
#define ROOM_LITTLE  GIB
#define SLOW_GB_S    0.4 /* an 8B model of 4 bits takes over ten seconds to start */
#define FILES_WANTED 512 /* hearth serve with 256 clients, and some */
#define ELSEWHERE    "export XDG_DATA_HOME=/A/FOLDER  # another store, for all commands"
#define FILES_SERVE  160 /* that it needs beside those of clients (serve/server.c) */

static void judge_files(const struct facts *f, struct doctor *d)
{
    if (!f->has_limits) {
        doctor_add(d, "open files", DOCTOR_UNKNOWN, "/proc/self/limits cannot be read");
        return;
    }
    if (f->files == FACTS_UNKNOWN) {
        doctor_add(d, "open files", DOCTOR_OK, "no limit");
        return;
    }
    const bool is_few = f->files < FILES_WANTED;
    struct finding *row = doctor_add(d, "open files", is_few ? DOCTOR_NOTE : DOCTOR_OK,
                                     "at most %llu", (unsigned long long)f->files);
    if (is_few) {
        doctor_costs(row,
                     "hearth serve needs one for each client, and %d, so it refuses to start "
                     "with its usual --max-clients 256.",
                     FILES_SERVE);
        if (f->files > FILES_SERVE) {
            doctor_type(row, "hearth serve --max-clients %llu ...",
                        (unsigned long long)(f->files - FILES_SERVE));
        }
        doctor_type(row, "sudo systemctl edit NAME.service  # for a service: LimitNOFILE=4096");
    }
}

static void judge_uring(const struct facts *f, struct doctor *d)
{
    const bool is_read = f->disk.gb_s > 0.0 && f->disk.is_direct; /* else it was not tried */
    const bool is_old = f->kernel_major < 5 || (f->kernel_major == 5 && f->kernel_minor < 6);
    const bool is_off = f->uring_off != FACTS_UNKNOWN && f->uring_off > 0;
    if (is_read ? f->disk.is_uring : !is_off && !is_old) {
        doctor_add(d, "io_uring", DOCTOR_OK, is_read ? "works" : "nothing forbids it");
        return;
    }
    if (f->kernel_major == 0 && !is_read && !is_off) {
        doctor_add(d, "io_uring", DOCTOR_UNKNOWN, "the kernel's version is not told");
        return;
    }
    struct finding *row = doctor_add(
        d, "io_uring", DOCTOR_NOTE, "%s",
        is_off   ? "switched off: kernel.io_uring_disabled is not 0"
        : is_old ? "Linux before 5.6 cannot read with it"
                 : "refused here (by a container's seccomp, or hearth was built without)");
    doctor_costs(row, "Threads read instead. That matters for models larger than memory, which are "
                      "read while they compute: the threads take processor time from them.");
    if (is_off) {
        doctor_type_sysctl(row, "kernel.io_uring_disabled", 0);
    } else if (!is_old && f->container[0] != '\0') {
        doctor_type(row, "docker run --security-opt seccomp=PROFILE.json ...  # a profile that "
                         "allows io_uring_setup, io_uring_enter and io_uring_register");
        row->is_of_box = true;
    }
}

/* Where there are models, that may be meant so. */
static void judge_refused(const struct facts_disk *k, struct doctor *d)
{
    struct finding *row =
        k->is_missing
            ? doctor_add(d, "model store", DOCTOR_WRONG, "not there yet, and cannot be made: %s",
                         k->store)
            : doctor_add(d, "model store", k->n_model > 0 ? DOCTOR_NOTE : DOCTOR_WRONG,
                         "%llu model%s at %s, which cannot be written",
                         (unsigned long long)k->n_model, k->n_model == 1 ? "" : "s", k->store);
    doctor_costs(row, "hearth pull cannot get a model: %s", k->refused);
    doctor_type(row, ELSEWHERE);
}

static void judge_broken(const struct facts_disk *k, struct doctor *d)
{
    const bool is_image = k->broken_why[0] != '\0';
    struct finding *row =
        doctor_add(d, "model store", DOCTOR_WRONG, "%llu model%s, %s; %s%s %s",
                   (unsigned long long)k->n_model, k->n_model == 1 ? "" : "s",
                   doctor_size(k->bytes).text, is_image ? "the packed image of " : "", k->broken,
                   is_image ? k->broken_why : "lacks a file");
    doctor_costs(row, is_image ? "Its GGUF file is read instead: that starts slower, and where "
                                 "memory is less than the model it is refused, since layers are "
                                 "read from the disk only of packed models."
                               : "It cannot be used.");
    doctor_type(row, "hearth pull %s%s", is_image ? "--pack " : "", k->broken);
    if (k->n_broken > 1) {
        doctor_type(row, "hearth verify  # there are more: %llu",
                    (unsigned long long)k->n_broken - 1);
    }
}

static void judge_store(const struct facts_disk *k, struct doctor *d)
{
    if (k->fault[0] != '\0') {
        struct finding *row = doctor_add(d, "model store", DOCTOR_WRONG, "it cannot be opened");
        doctor_costs(row, "No model of the store can be used: %s", k->fault);
        doctor_type(row, "hearth list  # says it again when it is not put right");
        doctor_type(row, ELSEWHERE);
        return;
    }
    if (k->n_broken > 0) {
        judge_broken(k, d);
        return;
    }
    if (k->refused[0] != '\0') {
        judge_refused(k, d);
        return;
    }
    const bool is_full = k->room_bytes < ROOM_LITTLE;
    const enum doctor_state state = !is_full                                ? DOCTOR_OK
                                    : k->n_model == 0 && k->room_bytes == 0 ? DOCTOR_WRONG
                                                                            : DOCTOR_NOTE;
    struct finding *row =
        k->is_missing
            ? doctor_add(d, "model store", state, "not there yet%s: %s, %s free",
                         is_full ? "" : "; hearth pull makes it", k->store,
                         doctor_size(k->room_bytes).text)
            : doctor_add(d, "model store", state, "%llu model%s, %s; %s free at %s",
                         (unsigned long long)k->n_model, k->n_model == 1 ? "" : "s",
                         doctor_size(k->bytes).text, doctor_size(k->room_bytes).text, k->store);
    if (is_full) {
        doctor_costs(row, "There is no room for %s model.", k->n_model > 0 ? "another" : "a");
        if (k->n_model > 0) {
            doctor_type(row, "hearth list && hearth rm NAME");
        }
        doctor_type(row, ELSEWHERE);
    }
}

static void judge_cache(const struct facts_disk *k, struct doctor *d)
{
    if (k->bytes == 0) {
        return; /* no models: nothing to be cached */
    }
    if (k->looked_bytes == 0) {
        doctor_add(d, "page cache", DOCTOR_UNKNOWN,
                   "the models' files are another user's: the kernel does not tell");
        return;
    }
    doctor_add(d, "page cache", DOCTOR_OK, "holds %s of %s of the models' files",
               doctor_size(k->cached_bytes).text, doctor_size(k->looked_bytes).text);
}

static void judge_speed(const struct facts_disk *k, struct doctor *d)
{
    if (k->file[0] == '\0') {
        doctor_add(d, "disk", DOCTOR_UNKNOWN, "not measured: %s", k->why);
        return;
    }
    if (k->gb_s <= 0.0) {
        struct finding *row = doctor_add(d, "disk", DOCTOR_WRONG, "%s cannot be read", k->file);
        doctor_costs(row, "Reading it ended with: %s", k->why);
        doctor_type(row, "sudo dmesg | tail  # what the kernel says of the disk");
        doctor_type(row, "hearth verify  # which files are damaged");
        return;
    }
    if (!k->is_direct) {
        struct finding *row = doctor_add(d, "disk", DOCTOR_NOTE,
                                         "%.2f GB/s through the page cache, not past it", k->gb_s);
        doctor_costs(row,
                     "This file system has no direct reads (O_DIRECT), so the disk's own speed "
                     "is not known. A model larger than memory is read with a copy of each "
                     "byte, and throws out of the cache what others need.");
        doctor_type(row, "XDG_DATA_HOME=/a/local/disk hearth pull NAME  # ext4, xfs and btrfs have "
                         "them");
        return;
    }
    const bool is_slow = k->gb_s < SLOW_GB_S;
    char others[64] = "";
    if (k->other_bytes > k->read_bytes / 8) {
        snprintf(others, sizeof others, "; other programs moved %s there meanwhile",
                 doctor_size(k->other_bytes).text);
    }
    struct finding *row = doctor_add(d, "disk", is_slow ? DOCTOR_NOTE : DOCTOR_OK,
                                     "reads %.2f GB/s (%s of %s, just now%s)", k->gb_s,
                                     doctor_size(k->read_bytes).text, k->file, others);
    if (is_slow) {
        doctor_costs(row,
                     "Loading that model of %s takes %.0f s when the page cache has none of "
                     "it; one that is larger than memory is read at that speed for each token.",
                     doctor_size(k->file_bytes).text, (double)k->file_bytes / 1e9 / k->gb_s);
        doctor_type(row, "XDG_DATA_HOME=/a/faster/disk hearth pull NAME  # and for all other "
                         "commands: another store");
    }
}

void doctor_disk(const struct facts *f, struct doctor *d)
{
    judge_files(f, d);
    judge_uring(f, d);
    if (f->disk.is_asked) {
        judge_store(&f->disk, d);
        judge_cache(&f->disk, d);
        judge_speed(&f->disk, d);
    }
}
