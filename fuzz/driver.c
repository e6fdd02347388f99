/* driver - runs stored inputs through a fuzzer without libFuzzer
 *
 * driver PATH... : each path is a file or a folder of files. Prints 'N passed, 0 failed'; a finding
 * ends the program, after the name of its input. */
#include "fuzz.h"

#include <dirent.h>
#include <string.h>

#define INPUT_MAX ((size_t)16 << 20)

static int n_done;

static void run_file(const char *path)
{
    FILE *f = fopen(path, "rb");
    uint8_t *bytes = malloc(INPUT_MAX);
    demand(f != NULL && bytes != NULL, path);
    const size_t n = fread(bytes, 1, INPUT_MAX, f);
    fclose(f);
    uint8_t *exact = malloc(n > 0 ? n : 1); /* so that a sanitizer sees reading beyond the end */
    demand(exact != NULL, path);
    memcpy(exact, bytes, n);
    free(bytes);
    fprintf(stderr, "%s\n", path);
    LLVMFuzzerTestOneInput(exact, n);
    free(exact);
    n_done++;
}

int main(int argc, char **argv)
{
    for (int i = 1; i < argc; i++) {
        DIR *d = opendir(argv[i]);
        if (d == NULL) {
            run_file(argv[i]);
            continue;
        }
        for (const struct dirent *e; (e = readdir(d)) != NULL;) {
            char path[4096];
            snprintf(path, sizeof path, "%s/%s", argv[i], e->d_name);
            if (e->d_name[0] != '.') {
                run_file(path);
            }
        }
        closedir(d);
    }
    printf("%d passed, 0 failed\n", n_done);
    return n_done == 0;
}
