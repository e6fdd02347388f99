/* chat - one question, one answer, with libhearth
 *
 *     cc chat.c $(pkg-config --cflags --libs hearth) -o chat && ./chat model.gguf "Why is the sky
 * blue?" */
#include <hearth.h>

#include <stdio.h>
#include <string.h>

#define CTX 2048

static int fail(void)
{
    fprintf(stderr, "chat: %s\n", hearth_error());
    return 1;
}

int main(int argc, char **argv)
{
    struct hearth_box *box = NULL;
    struct hearth_model *model = NULL;
    struct hearth_request *request = NULL;
    struct hearth_model_params mp;
    struct hearth_request_params rp;
    struct hearth_event e = { .kind = HEARTH_EVENT_TOKEN };
    char json[8192];
    int32_t ids[CTX];
    size_t n = CTX;
    hearth_model_init(&mp);
    mp.n_ctx = CTX;
    if (argc != 3 || strpbrk(argv[2], "\"\\") != NULL) {
        fprintf(stderr, "usage: chat MODEL.gguf TEXT (without quotes and backslashes)\n");
        return 2;
    }
    snprintf(json, sizeof json, "{\"messages\": [{\"role\": \"user\", \"content\": \"%.4000s\"}]}",
             argv[2]);
    if (hearth_box_open(NULL, &box) != HEARTH_OK ||
        hearth_model_open(box, argv[1], &mp, &model) != HEARTH_OK ||
        hearth_chat_tokens(model, json, strlen(json), ids, &n) != HEARTH_OK) {
        return fail();
    }
    hearth_request_init(&rp);
    rp.tokens = ids;
    rp.n_token = n;
    if (hearth_submit(model, &rp, &request) != HEARTH_OK) {
        return fail();
    }
    while (e.kind != HEARTH_EVENT_END) {
        if (hearth_next(request, 1000000, &e) == HEARTH_OK) {
            fwrite(e.text, 1, e.n_text, stdout);
            fflush(stdout);
        }
    }
    printf("\n");
    hearth_request_close(request);
    hearth_model_close(model);
    hearth_box_close(box);
    return 0;
}
