/* chat - one question, one answer, with libhearth:
 *     cc chat.c $(pkg-config --cflags --libs hearth) -o chat && ./chat MODEL.gguf "Who are you?" */
#include <hearth.h>
#include <stdio.h>
#include <string.h>

int main(int argc, char **argv)
{
    struct hearth_box *box = NULL;
    struct hearth_model *model = NULL;
    struct hearth_request *request = NULL;
    struct hearth_request_params rp;
    struct hearth_event e = { .kind = HEARTH_EVENT_TOKEN };
    char json[8192];
    int32_t ids[4096];
    if (argc != 3 || strlen(argv[2]) > 8000 || strpbrk(argv[2], "\"\\\n") != NULL) {
        return fprintf(stderr, "usage: chat MODEL.gguf TEXT (one line, without \" and \\)\n"), 2;
    }
    snprintf(json, sizeof json, "{\"messages\": [{\"role\": \"user\", \"content\": \"%s\"}]}",
             argv[2]);
    hearth_request_init(&rp);
    rp.tokens = ids;
    rp.n_token = sizeof ids / sizeof ids[0]; /* the room; then what the question takes */
    if (hearth_box_open(NULL, &box) != HEARTH_OK ||
        hearth_model_open(box, argv[1], NULL, &model) != HEARTH_OK ||
        hearth_chat_tokens(model, json, strlen(json), ids, &rp.n_token) != HEARTH_OK ||
        hearth_submit(model, &rp, &request) != HEARTH_OK) {
        return fprintf(stderr, "chat: %s\n", hearth_error()), 1;
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
