/* chat - chat templates: the Jinja subset that model files carry (model/chat.c, jinja_*.c)
 *
 * Output equals Python jinja2 as transformers sets it up (trim_blocks, lstrip_blocks, loop
 * controls, the generation block, tojson without HTML escapes, raise_exception, strftime_now). No
 * attributes of anything but data, no imports; a budget on steps, depth, memory and output.
 * CH-1  a template can neither reach memory outside its arena nor run longer than its budget.
 * CH-2  each output byte knows whether it came from the template or from the messages. */
#ifndef HEARTH_CHAT_H
#define HEARTH_CHAT_H

#include "base/buf.h"
#include "base/err.h"
#include "base/js.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct chat_template; /* immutable after opening; any number of threads may render with it */

/* Parses the text; errors name the line. */
enum err chat_open(struct chat_template **out, struct view source) MUST_USE;
void chat_close(struct chat_template *t); /* accepts NULL */

#define CHAT_TEMPLATE_MAX_BYTES (1u << 20)
#define CHAT_OUTPUT_MAX_BYTES   (16u << 20)
#define CHAT_STEPS_MAX          20000000ull
#define CHAT_MEMORY_MAX_BYTES   (96u << 20) /* of a run, and of a parsed template */

struct chat_input {
    const struct js *messages; /* array of objects */
    const struct js *tools;    /* array, or NULL for none */
    const struct js *vars;     /* object: further variables (may override), or NULL */
    bool add_generation_prompt;
    struct view bos_token; /* p == NULL: undefined in the template */
    struct view eos_token;
    int64_t now_s; /* for strftime_now: seconds since 1970, taken as local civil time */
};

/* Renders. `trusted` (may be NULL) receives one byte per output byte: 1 when the template wrote it,
 * 0 when it came from messages, tools or vars. raise_exception gives ERR_USAGE and quotes the
 * template's text; anything the subset lacks gives ERR_UNSUPPORTED and is named; budgets give
 * ERR_LIMIT. */
enum err chat_render(const struct chat_template *t, const struct chat_input *in, struct buf *out,
                     struct buf *trusted) MUST_USE;

/* The documented default of a family that ships no template (general.architecture), "chatml" style
 * when nothing better is known; never NULL. docs: man page, section "Chat templates". */
const char *chat_default(const char *arch);

#endif
