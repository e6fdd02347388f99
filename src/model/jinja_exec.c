/* jinja_exec - runs the tree of a template: statements, loops and macros
 *
 * Statements add to the text that is being built (the sink). What captures its output (a macro, a
 * call block, set and filter blocks, a recursive loop) simply puts another sink in place for the
 * time being.
 *
 * A macro keeps the frame it was defined in, so it sees later changes there, as a Python closure
 * does. All rounds of a loop share one frame whose slots are loaded anew each time.
 *
 * break and continue travel outward as r->flow; every body stops when it is set. A loop's `else`
 * runs if no round reached its end, so also after a break in the first one: that is what the code
 * Jinja2 makes does, whatever its documentation says.
 *
 * The arguments of a macro bind as in Python, with three special names: caller (the body of a call
 * block), kwargs and varargs (what is left over) exist only where the macro mentions them, and what
 * is left over otherwise is an error.
 *
 * Next: chat.c. */
#include "model/jinja_exec.h"

#include "model/jinja_eval.h"
#include "model/jinja_loop.h"
#include "model/jinja_repr.h"
#include "model/jinja_scope.h"

static enum err exec(struct jrun *r, const struct jnode *first);

/* --- output ----------------------------------------------------------------------------------- */

static enum err emit(struct jrun *r, const struct jstr *s)
{
    if (s == NULL) {
        return r->m->err;
    }
    if (s->n > r->output_max - r->sink->n) {
        return JMEM_FAIL(r->m, ERR_LIMIT, "more than %zu bytes of output", r->output_max);
    }
    jstr_add(r->sink, s);
    return r->sink->is_failed ? r->m->err : ERR_OK;
}

/* --- macros ----------------------------------------------------------------------------------- */

static struct view macro_name(const struct jmacro *macro)
{
    return macro->name != NULL ? jstr_view(macro->name) : VIEW("caller");
}

/* Takes a named argument out of the ones that are left. */
static struct jv take_named(struct jdict *left, const struct jstr *name)
{
    for (size_t i = 0; i < left->n; i++) {
        if (jstr_eq(left->pair[i].key.u.s, name)) {
            const struct jv v = left->pair[i].value;
            for (size_t k = i + 1; k < left->n; k++) {
                left->pair[k - 1] = left->pair[k];
            }
            left->n--;
            return v;
        }
    }
    return (struct jv){ 0 };
}

/* A copy of the named arguments that take_named may change: a plain array without an index. */
static enum err copy_named(struct jmem *m, const struct jdict *from, struct jdict *out)
{
    struct jv_pair *pair = jmem_take_array(m, from->n, sizeof(*pair));
    if (pair == NULL) {
        return m->err;
    }
    for (size_t i = 0; i < from->n; i++) {
        pair[i] = from->pair[i];
    }
    *out = (struct jdict){ .pair = pair, .n = from->n, .cap = from->n };
    return ERR_OK;
}

/* What is left over after the parameters were served: the special parameters, or an error. */
static enum err bind_special(struct jrun *r, const struct jmacro *macro, const struct jargs *args,
                             size_t n_param, struct jdict *left)
{
    const struct jscope *scope = macro->node->u.scope[0];
    struct jv *slot = r->frame->slot;
    const struct view name = macro_name(macro);
    const size_t n_pos = args->pos->n;
    if (scope->caller != JSCOPE_NONE) {
        const struct jstr *key = scope->slot[scope->caller].name;
        TRY(jmem_step(r->m, left->n / 4 + 1));
        const struct jv v = take_named(left, key);
        const bool has = v.type != JV_MISSING && v.type != JV_NONE;
        slot[scope->caller] = has ? v : jv_undefined(key, JV_MISSING);
    }
    if (scope->kwargs != JSCOPE_NONE) {
        struct jdict *d = jdict_new(r->m);
        if (d == NULL) {
            return r->m->err;
        }
        for (size_t i = 0; i < left->n; i++) {
            TRY(jdict_set(r->m, d, left->pair[i].key, left->pair[i].value));
        }
        slot[scope->kwargs] = jv_of_dict(d);
    } else if (left->n > 0) {
        const struct jstr *key = left->pair[0].key.u.s;
        return JMEM_FAIL(r->m, ERR_FAILED, "macro '%.*s' takes no argument named '%.*s'",
                         (int)(name.n < 60 ? name.n : 60), name.p, (int)(key->n < 60 ? key->n : 60),
                         key->p);
    }
    if (scope->varargs != JSCOPE_NONE) {
        struct jlist *l = jmem_take(r->m, sizeof(*l));
        if (l == NULL) {
            return r->m->err;
        }
        *l = (struct jlist){ .item = args->pos->item + (n_pos < n_param ? n_pos : n_param),
                             .n = n_pos < n_param ? 0 : n_pos - n_param };
        slot[scope->varargs] = jv_of_tuple(l);
    } else if (n_pos > n_param) {
        return JMEM_FAIL(r->m, ERR_FAILED, "macro '%.*s' takes not more than %zu arguments",
                         (int)(name.n < 60 ? name.n : 60), name.p, n_param);
    }
    return ERR_OK;
}

/* Fills the frame of a macro, which is r->frame, from the arguments of a call. */
static enum err bind_macro(struct jrun *r, const struct jmacro *macro, const struct jargs *args)
{
    struct jdict left;
    size_t i = 0;
    TRY(copy_named(r->m, args->named, &left));
    for (const struct jnode *p = macro->node->more; p != NULL; p = p->next) {
        struct jv v = { 0 };
        if (i < args->pos->n) {
            v = args->pos->item[i];
        } else {
            TRY(jmem_step(r->m, left.n / 4 + 1));
            v = take_named(&left, p->text);
        }
        r->frame->slot[p->u.var.slot] = v;
        i++;
    }
    TRY(bind_special(r, macro, args, i, &left));
    for (const struct jnode *p = macro->node->more; p != NULL; p = p->next) {
        struct jv *v = &r->frame->slot[p->u.var.slot];
        if (v->type == JV_MISSING && p->a != NULL) {
            struct jv given;
            TRY(jeval(r, p->a, &given));
            *v = given;
        } else if (v->type == JV_MISSING) {
            *v = jv_undefined(p->text, JV_MISSING);
        }
    }
    return ERR_OK;
}

static enum err call_macro(struct jrun *r, const struct jmacro *macro, const struct jargs *args,
                           struct jv *out)
{
    struct jframe *const frame = r->frame;
    struct jstr_out *const sink = r->sink;
    struct jstr_out text;
    jstr_begin(&text, r->m);
    TRY(jeval_new_frame(r, macro->node->u.scope[0], macro->up, &r->frame));
    TRY(bind_macro(r, macro, args));
    r->sink = &text;
    TRY(exec(r, macro->node->kids));
    r->sink = sink;
    r->frame = frame;
    r->flow = JEVAL_FLOW_ON;
    return jv_put_str(r->m, jstr_end(&text, false), out);
}

static enum err macro_attr(struct jrun *r, const struct jmacro *macro, const struct jstr *name,
                           struct jv *out)
{
    if (jstr_is(name, "name") && macro->name != NULL) {
        *out = jv_of_str(macro->name);
    } else if (jstr_is(name, "arguments")) {
        struct jlist *l = jlist_new(r->m, 0);
        if (l == NULL) {
            return r->m->err;
        }
        for (const struct jnode *p = macro->node->more; p != NULL; p = p->next) {
            TRY(jlist_add(r->m, l, jv_of_str(p->text)));
        }
        *out = jv_of_tuple(l);
    } else if (jstr_is(name, "name")) {
        *out = jv_none();
    } else {
        *out = jv_undefined(name, JV_MACRO);
    }
    return ERR_OK;
}

/* --- loops ------------------------------------------------------------------------------------ */

static enum err exec_else(struct jrun *r, const struct jnode *n)
{
    struct jframe *const up = r->frame;
    TRY(jeval_new_frame(r, n->u.scope[2], up, &r->frame));
    TRY(exec(r, n->more));
    r->frame = up;
    return ERR_OK;
}

/* Runs a for loop in r->frame over the elements of source. */
static enum err run_loop(struct jrun *r, const struct jnode *n, struct jv source, int64_t depth0)
{
    const struct jscope *scope = n->u.scope[0];
    struct jframe *const up = r->frame;
    struct jframe *body = NULL;
    struct jloop *loop = NULL;
    bool is_complete = false; /* some round reached its end; break and continue do not count */
    TRY(jloop_new(r, n, source, &loop));
    loop->depth0 = depth0;
    TRY(jeval_new_frame(r, scope, up, &body));
    for (;;) {
        struct jv v;
        bool has = false;
        TRY(jloop_step(loop, &v, &has));
        if (!has) {
            break;
        }
        r->frame = body;
        TRY(jeval_load_frame(r, scope, body));
        TRY(jeval_assign(r, n->a, v));
        if (scope->loop != JSCOPE_NONE) {
            body->slot[scope->loop] = (struct jv){ .type = JV_LOOP, .u.loop = loop };
        }
        TRY(exec(r, n->kids));
        const enum jeval_flow flow = r->flow;
        r->flow = JEVAL_FLOW_ON;
        r->frame = up;
        is_complete = is_complete || flow == JEVAL_FLOW_ON;
        if (flow == JEVAL_FLOW_BREAK) {
            break;
        }
    }
    return n->more != NULL && !is_complete ? exec_else(r, n) : ERR_OK;
}

/* loop(elements) of a recursive loop. */
static enum err call_loop(struct jrun *r, struct jloop *loop, const struct jargs *args,
                          struct jv *out)
{
    if ((loop->node->flags & JNODE_RECURSIVE) == 0 || args->pos->n != 1) {
        return JMEM_FAIL(r->m, ERR_FAILED,
                         "only a recursive loop can be called, with one argument");
    }
    struct jframe *const frame = r->frame;
    struct jstr_out *const sink = r->sink;
    struct jstr_out text;
    jstr_begin(&text, r->m);
    r->sink = &text;
    r->frame = loop->up;
    TRY(run_loop(r, loop->node, args->pos->item[0], loop->depth0 + 1));
    r->sink = sink;
    r->frame = frame;
    return jv_put_str(r->m, jstr_end(&text, false), out);
}

/* --- what expressions ask of macros and loops ------------------------------------------------- */

static enum err call_object(struct jrun *r, struct jv object, const struct jargs *args,
                            struct jv *out)
{
    if (object.type == JV_METHOD) {
        return jloop_call_method(r, object.u.method, args, out);
    }
    if (object.type == JV_LOOP) {
        return call_loop(r, object.u.loop, args, out);
    }
    return call_macro(r, object.u.macro, args, out);
}

static enum err attr_of_object(struct jrun *r, struct jv object, const struct jstr *name,
                               struct jv *out)
{
    if (object.type == JV_LOOP) {
        return jloop_attr(r, object, name, out);
    }
    return macro_attr(r, object.u.macro, name, out);
}

/* --- statements ------------------------------------------------------------------------------- */

static enum err exec_data(struct jrun *r, const struct jnode *n)
{
    return emit(r, n->text);
}

static enum err exec_output(struct jrun *r, const struct jnode *n)
{
    struct jv v;
    TRY(jeval(r, n->a, &v));
    return emit(r, jrepr_str(r->m, v));
}

static enum err exec_if(struct jrun *r, const struct jnode *n)
{
    for (const struct jnode *b = n->kids; b != NULL; b = b->next) {
        struct jv v = jv_bool(true);
        if (b->a != NULL) {
            TRY(jeval(r, b->a, &v));
        }
        if (jv_truth(v)) {
            return exec(r, b->kids);
        }
    }
    return ERR_OK;
}

static enum err exec_for(struct jrun *r, const struct jnode *n)
{
    struct jv source;
    TRY(jeval(r, n->b, &source));
    return run_loop(r, n, source, 0);
}

static enum err exec_set(struct jrun *r, const struct jnode *n)
{
    struct jv v;
    TRY(jeval(r, n->b, &v));
    return jeval_assign(r, n->a, v);
}

/* Runs the body of a block in a frame of its own, captures its text and applies the filters. */
static enum err capture(struct jrun *r, const struct jnode *n, const struct jnode *filters,
                        struct jv *out)
{
    struct jframe *const up = r->frame;
    struct jstr_out *const sink = r->sink;
    const struct jv input = r->filter_input;
    struct jstr_out text;
    jstr_begin(&text, r->m);
    TRY(jeval_new_frame(r, n->u.scope[0], up, &r->frame));
    r->sink = &text;
    TRY(exec(r, n->kids));
    r->sink = sink;
    TRY(jv_put_str(r->m, jstr_end(&text, false), out));
    if (filters != NULL && r->flow == JEVAL_FLOW_ON) {
        r->filter_input = *out;
        TRY(jeval(r, filters, out));
        r->filter_input = input;
    }
    r->frame = up;
    return ERR_OK;
}

static enum err exec_setblock(struct jrun *r, const struct jnode *n)
{
    struct jv v;
    TRY(capture(r, n, n->b, &v));
    return r->flow == JEVAL_FLOW_ON ? jeval_assign(r, n->a, v) : ERR_OK;
}

static enum err exec_filterblock(struct jrun *r, const struct jnode *n)
{
    struct jv v;
    TRY(capture(r, n, n->a, &v));
    return r->flow == JEVAL_FLOW_ON ? emit(r, jrepr_str(r->m, v)) : ERR_OK;
}

static enum err new_macro(struct jrun *r, const struct jnode *n, struct jv *out)
{
    struct jmacro *macro = jmem_take(r->m, sizeof(*macro));
    if (macro == NULL) {
        return r->m->err;
    }
    *macro = (struct jmacro){ .name = n->text, .node = n, .up = r->frame };
    *out = (struct jv){ .type = JV_MACRO, .u.macro = macro };
    return ERR_OK;
}

static enum err exec_macro(struct jrun *r, const struct jnode *n)
{
    struct jv v;
    TRY(new_macro(r, n, &v));
    return jeval_assign(r, n->a, v);
}

/* The call's arguments with the block as `caller` among them. */
static enum err exec_callblock(struct jrun *r, const struct jnode *n)
{
    struct jv caller;
    struct jv key;
    struct jv f;
    struct jv v;
    struct jargs args;
    struct jdict *named = NULL;
    TRY(new_macro(r, n, &caller));
    TRY(jeval(r, n->a->a, &f));
    TRY(jeval_args(r, n->a->kids, &args));
    TRY(jv_put_lit(r->m, "caller", &key));
    named = jdict_new(r->m);
    if (named == NULL) {
        return r->m->err;
    }
    for (size_t i = 0; i < args.named->n; i++) {
        TRY(jdict_set(r->m, named, args.named->pair[i].key, args.named->pair[i].value));
    }
    TRY(jdict_set(r->m, named, key, caller));
    args.named = named;
    TRY(jeval_call(r, f, &args, &v));
    return emit(r, jrepr_str(r->m, v));
}

static enum err exec_with(struct jrun *r, const struct jnode *n)
{
    struct jframe *const up = r->frame;
    struct jframe *inner = NULL;
    TRY(jeval_new_frame(r, n->u.scope[0], up, &inner));
    for (const struct jnode *set = n->more; set != NULL; set = set->next) {
        struct jv v;
        TRY(jeval(r, set->b, &v));
        r->frame = inner;
        TRY(jeval_assign(r, set->a, v));
        r->frame = up;
    }
    r->frame = inner;
    TRY(exec(r, n->kids));
    r->frame = up;
    return ERR_OK;
}

static enum err exec_generation(struct jrun *r, const struct jnode *n)
{
    struct jframe *const up = r->frame;
    TRY(jeval_new_frame(r, n->u.scope[0], up, &r->frame));
    TRY(exec(r, n->kids));
    r->frame = up;
    return ERR_OK;
}

static enum err exec_flow(struct jrun *r, const struct jnode *n)
{
    r->flow = n->type == JNODE_BREAK ? JEVAL_FLOW_BREAK : JEVAL_FLOW_CONTINUE;
    return ERR_OK;
}

typedef enum err (*exec_fn)(struct jrun *r, const struct jnode *n);

static enum err exec(struct jrun *r, const struct jnode *first)
{
    static const exec_fn fns[] = {
        [JNODE_DATA] = exec_data,
        [JNODE_OUTPUT] = exec_output,
        [JNODE_IF] = exec_if,
        [JNODE_FOR] = exec_for,
        [JNODE_SET] = exec_set,
        [JNODE_SETBLOCK] = exec_setblock,
        [JNODE_MACRO] = exec_macro,
        [JNODE_CALLBLOCK] = exec_callblock,
        [JNODE_FILTERBLOCK] = exec_filterblock,
        [JNODE_WITH] = exec_with,
        [JNODE_GENERATION] = exec_generation,
        [JNODE_BREAK] = exec_flow,
        [JNODE_CONTINUE] = exec_flow,
    };
    TRY(jmem_enter(r->m));
    for (const struct jnode *n = first; n != NULL && r->flow == JEVAL_FLOW_ON; n = n->next) {
        TRY(jmem_step(r->m, 1));
        r->m->line = n->line;
        if (NEVER(n->type > JNODE_CONTINUE || fns[n->type] == NULL)) {
            return JMEM_FAIL(r->m, ERR_FAILED, "this is no statement");
        }
        TRY(fns[n->type](r, n));
    }
    jmem_leave(r->m);
    return ERR_OK;
}

enum err jexec(const struct jparse_tree *tree, struct jmem *m, struct jdict *vars,
               size_t output_max, const struct jstr **out)
{
    static const struct jeval_objects objects = { call_object, attr_of_object };
    struct jstr_out text;
    struct jrun r = {
        .m = m, .vars = vars, .sink = &text, .output_max = output_max, .objects = &objects
    };
    jstr_begin(&text, m);
    TRY(jeval_new_frame(&r, tree->root, NULL, &r.frame));
    TRY(exec(&r, tree->body));
    *out = jstr_end(&text, false);
    return *out == NULL ? m->err : ERR_OK;
}
