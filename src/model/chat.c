/* chat - chat templates
 *
 * A model file carries a small program that turns a conversation into the text the model was
 * trained on. This file is the door to the interpreter: it opens the template, turns the request's
 * JSON into values, and runs the tree. What the language can do is in the jinja_*.c files, in the
 * order of src/LAYERS.
 *
 * CH-1 holds because everything the run makes lives in one budgeted arena (jinja_mem.c), every loop
 * and built-in pays steps, every recursion counts depth, and values lead to nothing but data
 * (jinja_get.c). CH-2 holds because texts carry the origin of each byte (jinja_str.c). What comes
 * in here as messages, tools or further variables is data; the template's own text, and the begin
 * and end tokens, are not.
 *
 * Variables are those transformers passes: messages, tools and documents (none unless given),
 * add_generation_prompt, bos_token and eos_token if the model has them, and whatever the request
 * adds.
 *
 * Rejected: rendering straight from the JSON tree (every operation would need two versions), and a
 * cache of rendered prefixes (the tokens are cached, further down).
 *
 * Next: chat_default in chat_family.c. */
#include "model/chat.h"

#include "base/mem.h"
#include "model/jinja_exec.h"
#include "model/jinja_global.h"
#include "model/jinja_mem.h"
#include "model/jinja_parse.h"
#include "model/jinja_scope.h"
#include "model/jinja_value.h"

struct chat_template {
    struct jmem m; /* owns the tree */
    struct jparse_tree tree;
};

enum err chat_open(struct chat_template **out, struct view source)
{
    REQUIRE(source.n <= CHAT_TEMPLATE_MAX_BYTES, ERR_LIMIT,
            "chat template: %zu bytes, at most %u are allowed", source.n, CHAT_TEMPLATE_MAX_BYTES);
    struct chat_template *t = mem_alloc(sizeof(*t));
    REQUIRE(t != NULL, ERR_MEMORY, "chat template: no memory for %zu bytes", sizeof(*t));
    jmem_init(&t->m, CHAT_MEMORY_MAX_BYTES, CHAT_STEPS_MAX);
    enum err e = jparse(&t->tree, &t->m, source);
    if (e == ERR_OK) {
        e = jscope_bind(&t->tree, &t->m);
    }
    if (e != ERR_OK) {
        chat_close(t);
        return err_at(e, "chat template");
    }
    *out = t;
    return ERR_OK;
}

void chat_close(struct chat_template *t)
{
    if (t != NULL) {
        jmem_release(&t->m);
        mem_free(t);
    }
}

/* --- JSON to values --------------------------------------------------------------------------- */

static enum err convert(struct jmem *m, const struct js *v, int nest, struct jv *out);

static enum err convert_array(struct jmem *m, const struct js *v, int nest, struct jv *out)
{
    const size_t n = js_count(v);
    struct jlist *l = jlist_new(m, n);
    if (l == NULL) {
        return m->err;
    }
    l->is_data = true;
    for (size_t i = 0; i < n; i++) {
        TRY(convert(m, js_at(v, i), nest - 1, &l->item[i]));
        l->n++;
    }
    *out = jv_of_list(l);
    return ERR_OK;
}

static enum err convert_object(struct jmem *m, const struct js *v, int nest, struct jv *out)
{
    struct js_iter it = { 0 };
    struct jdict *d = jdict_new(m);
    if (d == NULL) {
        return m->err;
    }
    d->is_data = true;
    while (js_next(v, &it)) {
        struct jv key;
        struct jv value;
        TRY(jv_put_str(m, jstr_over(m, it.key, false), &key));
        TRY(convert(m, it.value, nest - 1, &value));
        TRY(jdict_set(m, d, key, value));
    }
    *out = jv_of_dict(d);
    return ERR_OK;
}

static enum err convert(struct jmem *m, const struct js *v, int nest, struct jv *out)
{
    if (nest <= 0) {
        return JMEM_FAIL(m, ERR_LIMIT, "messages nested deeper than %d levels", JMEM_NEST_MAX);
    }
    switch (js_type(v)) {
    case JS_STRING:
        return jv_put_str(m, jstr_over(m, js_string(v), false), out);
    case JS_ARRAY:
        return convert_array(m, v, nest, out);
    case JS_OBJECT:
        return convert_object(m, v, nest, out);
    case JS_BOOL:
        *out = jv_bool(js_bool(v));
        break;
    case JS_INT:
        *out = jv_int(js_int(v));
        break;
    case JS_REAL:
        *out = jv_float(js_real(v));
        break;
    default:
        *out = jv_none();
        break;
    }
    out->is_data = true;
    return ERR_OK;
}

/* --- rendering -------------------------------------------------------------------------------- */

static enum err define(struct jmem *m, struct jdict *vars, const char *name, struct jv v)
{
    struct jv key;
    TRY(jv_put_lit(m, name, &key));
    return jdict_set(m, vars, key, v);
}

static enum err define_json(struct jmem *m, struct jdict *vars, const char *name,
                            const struct js *v)
{
    struct jv value = jv_none();
    if (v != NULL) {
        TRY(convert(m, v, JMEM_NEST_MAX, &value));
    }
    return define(m, vars, name, value);
}

static enum err define_token(struct jmem *m, struct jdict *vars, const char *name, struct view text)
{
    struct jv v;
    if (text.p == NULL) {
        return ERR_OK;
    }
    REQUIRE(utf8_valid(text), ERR_INTEGRITY, "%s is not valid UTF-8", name);
    TRY(jv_put_str(m, jstr_over(m, text, true), &v));
    return define(m, vars, name, v);
}

static enum err define_all(struct jmem *m, const struct chat_input *in, struct jdict *vars)
{
    TRY(jglobal_define(m, vars));
    TRY(define_json(m, vars, "messages", in->messages));
    TRY(define_json(m, vars, "tools", in->tools));
    TRY(define(m, vars, "documents", jv_none()));
    TRY(define(m, vars, "add_generation_prompt", jv_bool(in->add_generation_prompt)));
    TRY(define_token(m, vars, "bos_token", in->bos_token));
    TRY(define_token(m, vars, "eos_token", in->eos_token));
    struct jv more = { 0 };
    if (in->vars != NULL) {
        TRY(convert(m, in->vars, JMEM_NEST_MAX, &more));
    }
    for (size_t i = 0; more.type == JV_DICT && i < more.u.dict->n; i++) {
        TRY(jdict_set(m, vars, more.u.dict->pair[i].key, more.u.dict->pair[i].value));
    }
    return ERR_OK;
}

static enum err render(const struct chat_template *t, const struct chat_input *in, struct jmem *m,
                       const struct jstr **text)
{
    struct jdict *vars = jdict_new(m);
    if (vars == NULL) {
        return m->err;
    }
    TRY(define_all(m, in, vars));
    return jexec(&t->tree, m, vars, CHAT_OUTPUT_MAX_BYTES, text);
}

static enum err hand_out(const struct jstr *s, struct buf *out, struct buf *trusted)
{
    const size_t n_out = out->n;
    const size_t n_trusted = trusted != NULL ? trusted->n : 0;
    buf_add_view(out, jstr_view(s));
    for (size_t i = 0; trusted != NULL && i < s->n; i++) {
        buf_add_char(trusted, jstr_trust_at(s, i) ? 1 : 0);
    }
    enum err e = buf_check(out, "rendered conversation");
    if (e == ERR_OK && trusted != NULL) {
        e = buf_check(trusted, "marks of the rendered conversation");
    }
    if (e != ERR_OK) {
        buf_cut(out, n_out);
        if (trusted != NULL) {
            buf_cut(trusted, n_trusted);
        }
    }
    return e;
}

enum err chat_render(const struct chat_template *t, const struct chat_input *in, struct buf *out,
                     struct buf *trusted)
{
    struct jmem m;
    const struct jstr *text = NULL;
    jmem_init(&m, CHAT_MEMORY_MAX_BYTES, CHAT_STEPS_MAX);
    m.now_s = in->now_s;
    enum err e = render(t, in, &m, &text);
    if (e == ERR_OK) {
        e = hand_out(text, out, trusted);
    } else if (e == ERR_USAGE) {
        e = err_at(e, "the chat template refuses this conversation");
    } else if (m.is_full) {
        e = err_at(e, "the conversation is too long for its chat template (line %u)", m.line);
    } else if (m.line > 0) {
        e = err_at(e, "chat template line %u", m.line);
    }
    jmem_release(&m);
    return e;
}
