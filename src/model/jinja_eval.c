/* jinja_eval - values of expressions, and the frames they live in
 *
 * A walker over the tree with one small function per kind of node. A name's value is found by its
 * number of frames outward and its slot there (jinja_scope.c has the rules); frames are arrays made
 * when a scope is entered.
 *
 * Every nested evaluation passes jmem_enter, so the depth of the C stack is bounded: the deepest
 * runs that tests/test_chat.py knows fit 256 KB of stack (gcc 12, x86-64, -O2; JEXPR_NEST_MAX
 * bounds the parser in the same way).
 *
 * What macros and loops do is statements, which stand in files above this one; they are reached
 * through the two functions in r->objects.
 *
 * Rejected: compiling to byte code. A chat template runs for about a millisecond per request, in
 * front of seconds of inference. Next: jinja_loop.c, jinja_exec.c. */
#include "model/jinja_eval.h"

#include "model/jinja_filter.h"
#include "model/jinja_get.h"
#include "model/jinja_global.h"
#include "model/jinja_method.h"
#include "model/jinja_op.h"
#include "model/jinja_repr.h"
#include "model/jinja_test.h"

static const struct jlist no_list = { 0 };
static const struct jdict no_dict = { 0 };

/* --- frames ----------------------------------------------------------------------------------- */

static struct jframe *outward(struct jframe *f, unsigned hops)
{
    for (; hops > 0; hops--) {
        f = f->up;
    }
    return f;
}

/* Gives the slots of a frame what they start with. */
enum err jeval_load_frame(struct jrun *r, const struct jscope *scope, struct jframe *f)
{
    TRY(jmem_step(r->m, scope->n_slot / 4 + 1));
    for (uint32_t i = 0; i < scope->n_slot; i++) {
        const struct jscope_slot *s = &scope->slot[i];
        if (s->load == JSCOPE_OUTER) {
            f->slot[i] = outward(f, s->hops)->slot[s->from];
        } else if (s->load == JSCOPE_CONTEXT) {
            const struct jv *hit = NULL;
            TRY(jdict_get(r->m, r->vars, jv_of_str(s->name), &hit));
            f->slot[i] = hit != NULL ? *hit : (struct jv){ 0 };
        } else if (s->load == JSCOPE_EMPTY) {
            f->slot[i] = (struct jv){ 0 };
        }
    }
    return ERR_OK;
}

enum err jeval_new_frame(struct jrun *r, const struct jscope *scope, struct jframe *up,
                         struct jframe **out)
{
    struct jframe *f = jmem_take(r->m, sizeof(*f) + scope->n_slot * sizeof(struct jv));
    if (f == NULL) {
        return r->m->err;
    }
    f->up = up;
    TRY(jeval_load_frame(r, scope, f));
    *out = f;
    return ERR_OK;
}

static struct jv *variable(struct jrun *r, const struct jnode *n)
{
    return &outward(r->frame, n->u.var.hops)->slot[n->u.var.slot];
}

enum err jeval_assign(struct jrun *r, const struct jnode *target, struct jv v)
{
    if (target->type == JNODE_NAME) {
        *variable(r, target) = v;
        return ERR_OK;
    }
    if (target->type == JNODE_NSREF) {
        const struct jv ns = *variable(r, target);
        if (ns.type != JV_NAMESPACE) {
            return JMEM_FAIL(r->m, ERR_FAILED,
                             "cannot assign to an attribute of what is no namespace");
        }
        return jdict_set(r->m, ns.u.dict, jv_of_str(target->a->text), v);
    }
    struct jlist *l = NULL;
    TRY(jv_collect(r->m, v, &l));
    if (l->n != target->n_kids) {
        return JMEM_FAIL(r->m, ERR_FAILED, "%zu values for %u names", l->n, target->n_kids);
    }
    size_t i = 0;
    for (const struct jnode *kid = target->kids; kid != NULL; kid = kid->next) {
        TRY(jeval_assign(r, kid, l->item[i++]));
    }
    return ERR_OK;
}

/* --- arguments and calls ---------------------------------------------------------------------- */

static enum err add_argument(struct jrun *r, const struct jnode *n, struct jlist *pos,
                             struct jdict *named)
{
    struct jv v;
    TRY(jeval(
        r, n->type == JNODE_KEYWORD || n->type == JNODE_STAR || n->type == JNODE_STAR2 ? n->a : n,
        &v));
    if (n->type == JNODE_KEYWORD) {
        return jdict_set(r->m, named, jv_of_str(n->text), v);
    }
    if (n->type == JNODE_STAR) {
        struct jlist *l = NULL;
        TRY(jv_collect(r->m, v, &l));
        for (size_t i = 0; i < l->n; i++) {
            TRY(jlist_add(r->m, pos, l->item[i]));
        }
        return ERR_OK;
    }
    if (n->type == JNODE_STAR2) {
        if (v.type != JV_DICT) {
            return JMEM_FAIL(r->m, ERR_FAILED, "** wants a dictionary, not '%s'", jv_type_name(v));
        }
        for (size_t i = 0; i < v.u.dict->n; i++) {
            if (v.u.dict->pair[i].key.type != JV_STR) {
                return JMEM_FAIL(r->m, ERR_FAILED, "** wants strings as keys");
            }
            TRY(jdict_set(r->m, named, v.u.dict->pair[i].key, v.u.dict->pair[i].value));
        }
        return ERR_OK;
    }
    return jlist_add(r->m, pos, v);
}

enum err jeval_args(struct jrun *r, const struct jnode *kids, struct jargs *out)
{
    *out = (struct jargs){ &no_list, &no_dict };
    if (kids == NULL) {
        return ERR_OK;
    }
    size_t n_pos = 0;
    size_t n_named = 0;
    for (const struct jnode *kid = kids; kid != NULL; kid = kid->next) {
        const bool is_named = kid->type == JNODE_KEYWORD || kid->type == JNODE_STAR2;
        n_pos += !is_named;
        n_named += is_named;
    }
    struct jlist *pos = n_pos > 0 ? jlist_new(r->m, n_pos) : NULL;
    struct jdict *named = n_named > 0 ? jdict_new(r->m) : NULL;
    TRY(r->m->err);
    for (const struct jnode *kid = kids; kid != NULL; kid = kid->next) {
        TRY(add_argument(r, kid, pos, named));
    }
    *out = (struct jargs){ pos != NULL ? pos : &no_list, named != NULL ? named : &no_dict };
    return ERR_OK;
}

static enum err call_joiner(struct jrun *r, struct jv_joiner *j, struct jv *out)
{
    if (!j->is_used) {
        j->is_used = true;
        return jv_put_lit(r->m, "", out);
    }
    *out = j->separator;
    return ERR_OK;
}

enum err jeval_call(struct jrun *r, struct jv f, const struct jargs *args, struct jv *out)
{
    switch ((enum jv_type)f.type) {
    case JV_METHOD:
        if (f.u.method->self.type == JV_LOOP) {
            return r->objects->call(r, f, args, out);
        }
        return jmethod_call(r->m, f.u.method, args, out);
    case JV_FUNC:
        return jglobal_call(r->m, f, args, out);
    case JV_MACRO:
    case JV_LOOP:
        return r->objects->call(r, f, args, out);
    case JV_JOINER:
        return call_joiner(r, f.u.joiner, out);
    case JV_UNDEFINED:
        return jv_undefined_error(r->m, f);
    default:
        return JMEM_FAIL(r->m, ERR_FAILED, "'%s' object is not callable", jv_type_name(f));
    }
}

static enum err eval_call(struct jrun *r, const struct jnode *n, struct jv *out)
{
    struct jv f;
    struct jargs args;
    TRY(jeval(r, n->a, &f));
    TRY(jeval_args(r, n->kids, &args));
    r->m->line = n->line;
    return jeval_call(r, f, &args, out);
}

/* --- expressions ------------------------------------------------------------------------------ */

static enum err eval_literal(struct jrun *r, const struct jnode *n, struct jv *out)
{
    (void)r;
    switch ((enum jnode_type)n->type) {
    case JNODE_BOOL:
        *out = jv_bool(n->u.i != 0);
        break;
    case JNODE_INT:
        *out = jv_int(n->u.i);
        break;
    case JNODE_FLOAT:
        *out = jv_float(n->u.f);
        break;
    case JNODE_STRING:
        *out = jv_of_str(n->text);
        break;
    default:
        *out = jv_none();
        break;
    }
    return ERR_OK;
}

static enum err eval_name(struct jrun *r, const struct jnode *n, struct jv *out)
{
    const struct jv v = *variable(r, n);
    *out = v.type != JV_MISSING ? v : jv_undefined(n->text, JV_MISSING);
    return ERR_OK;
}

static enum err eval_list(struct jrun *r, const struct jnode *n, struct jv *out)
{
    struct jlist *l = jlist_new(r->m, n->n_kids);
    if (l == NULL) {
        return r->m->err;
    }
    for (const struct jnode *kid = n->kids; kid != NULL; kid = kid->next) {
        struct jv v;
        TRY(jeval(r, kid, &v));
        l->item[l->n++] = v;
    }
    *out = n->type == JNODE_LIST ? jv_of_list(l) : jv_of_tuple(l);
    return ERR_OK;
}

static enum err eval_dict(struct jrun *r, const struct jnode *n, struct jv *out)
{
    struct jdict *d = jdict_new(r->m);
    if (d == NULL) {
        return r->m->err;
    }
    for (const struct jnode *kid = n->kids; kid != NULL; kid = kid->next->next) {
        struct jv key;
        struct jv value;
        TRY(jeval(r, kid, &key));
        TRY(jeval(r, kid->next, &value));
        TRY(jdict_set(r->m, d, key, value));
    }
    *out = jv_of_dict(d);
    return ERR_OK;
}

static enum err eval_unary(struct jrun *r, const struct jnode *n, struct jv *out)
{
    struct jv v;
    TRY(jeval(r, n->a, &v));
    if (n->type == JNODE_NOT) {
        *out = jv_bool(!jv_truth(v));
        return ERR_OK;
    }
    return jop_sign(r->m, v, n->type == JNODE_NEG, out);
}

static enum err eval_logic(struct jrun *r, const struct jnode *n, struct jv *out)
{
    struct jv v;
    TRY(jeval(r, n->a, &v));
    if (jv_truth(v) == (n->type == JNODE_OR)) {
        *out = v;
        return ERR_OK;
    }
    return jeval(r, n->b, out);
}

static enum err eval_binary(struct jrun *r, const struct jnode *n, struct jv *out)
{
    struct jv a;
    struct jv b;
    TRY(jeval(r, n->a, &a));
    TRY(jeval(r, n->b, &b));
    r->m->line = n->line;
    return jop_binary(r->m, (enum jlex_type)n->op, a, b, out);
}

static enum err eval_concat(struct jrun *r, const struct jnode *n, struct jv *out)
{
    struct jstr_out o;
    jstr_begin(&o, r->m);
    for (const struct jnode *kid = n->kids; kid != NULL && !o.is_failed; kid = kid->next) {
        struct jv v;
        TRY(jeval(r, kid, &v));
        jstr_add(&o, jrepr_str(r->m, v));
    }
    return jv_put_str(r->m, jstr_end(&o, false), out);
}

static enum err compare_one(struct jrun *r, enum jlex_type op, struct jv a, struct jv b, bool *out)
{
    bool is_true = false;
    switch (op) {
    case JLEX_EQ:
    case JLEX_NE:
        TRY(jv_eq(r->m, a, b, &is_true));
        *out = is_true == (op == JLEX_EQ);
        return ERR_OK;
    case JLEX_NAME:
    case JLEX_TILDE:
        TRY(jv_contains(r->m, b, a, &is_true));
        *out = is_true == (op == JLEX_NAME);
        return ERR_OK;
    case JLEX_LT:
        return jv_compare(r->m, a, b, JV_LT, out);
    case JLEX_LE:
        return jv_compare(r->m, a, b, JV_LE, out);
    case JLEX_GT:
        return jv_compare(r->m, a, b, JV_GT, out);
    default:
        return jv_compare(r->m, a, b, JV_GE, out);
    }
}

static enum err eval_compare(struct jrun *r, const struct jnode *n, struct jv *out)
{
    struct jv a;
    bool is_true = true;
    TRY(jeval(r, n->a, &a));
    for (const struct jnode *kid = n->kids; kid != NULL && is_true; kid = kid->next) {
        struct jv b;
        TRY(jeval(r, kid->a, &b));
        r->m->line = n->line;
        TRY(compare_one(r, (enum jlex_type)kid->op, a, b, &is_true));
        a = b;
    }
    *out = jv_bool(is_true);
    return ERR_OK;
}

static enum err eval_cond(struct jrun *r, const struct jnode *n, struct jv *out)
{
    struct jv v;
    TRY(jeval(r, n->b, &v));
    if (jv_truth(v)) {
        return jeval(r, n->a, out);
    }
    if (n->c != NULL) {
        return jeval(r, n->c, out);
    }
    *out = jv_undefined(NULL, JV_MISSING);
    return ERR_OK;
}

static enum err eval_attr(struct jrun *r, const struct jnode *n, struct jv *out)
{
    struct jv v;
    TRY(jeval(r, n->a, &v));
    r->m->line = n->line;
    if (v.type == JV_LOOP || v.type == JV_MACRO) {
        return r->objects->attr(r, v, n->text, out);
    }
    return jget_attr(r->m, v, n->text, out);
}

static enum err eval_item(struct jrun *r, const struct jnode *n, struct jv *out)
{
    struct jv v;
    struct jv key;
    TRY(jeval(r, n->a, &v));
    TRY(jeval(r, n->b, &key));
    r->m->line = n->line;
    if ((v.type == JV_LOOP || v.type == JV_MACRO) && key.type == JV_STR) {
        return r->objects->attr(r, v, key.u.s, out);
    }
    return jget_item(r->m, v, key, out);
}

static enum err eval_slice(struct jrun *r, const struct jnode *n, struct jv *out)
{
    struct jv v;
    struct jv part[3] = { jv_none(), jv_none(), jv_none() };
    const struct jnode *const parts[3] = { n->b, n->c, n->d };
    TRY(jeval(r, n->a, &v));
    for (int i = 0; i < 3; i++) {
        if (parts[i] != NULL) {
            TRY(jeval(r, parts[i], &part[i]));
        }
    }
    r->m->line = n->line;
    return jget_slice(r->m, v, part, out);
}

static enum err eval_filter(struct jrun *r, const struct jnode *n, struct jv *out)
{
    struct jv v = r->filter_input;
    struct jargs args;
    if (n->a != NULL) {
        TRY(jeval(r, n->a, &v));
    }
    TRY(jeval_args(r, n->kids, &args));
    r->m->line = n->line;
    return jfilter_call(r->m, n->text, v, &args, out);
}

static enum err eval_test(struct jrun *r, const struct jnode *n, struct jv *out)
{
    struct jv v;
    struct jargs args;
    bool is_true = false;
    TRY(jeval(r, n->a, &v));
    TRY(jeval_args(r, n->kids, &args));
    r->m->line = n->line;
    if (jstr_is(n->text, "filter")) {
        is_true = v.type == JV_STR && jfilter_has(v.u.s);
    } else if (jstr_is(n->text, "test")) {
        is_true = v.type == JV_STR && jtest_has(v.u.s);
    } else {
        TRY(jtest_call(r->m, n->text, v, &args, &is_true));
    }
    *out = jv_bool(is_true);
    return ERR_OK;
}

typedef enum err (*eval_fn)(struct jrun *r, const struct jnode *n, struct jv *out);

enum err jeval(struct jrun *r, const struct jnode *n, struct jv *out)
{
    static const eval_fn fns[] = {
        [JNODE_NONE] = eval_literal,  [JNODE_BOOL] = eval_literal,    [JNODE_INT] = eval_literal,
        [JNODE_FLOAT] = eval_literal, [JNODE_STRING] = eval_literal,  [JNODE_NAME] = eval_name,
        [JNODE_TUPLE] = eval_list,    [JNODE_LIST] = eval_list,       [JNODE_DICT] = eval_dict,
        [JNODE_NEG] = eval_unary,     [JNODE_POS] = eval_unary,       [JNODE_NOT] = eval_unary,
        [JNODE_AND] = eval_logic,     [JNODE_OR] = eval_logic,        [JNODE_BINARY] = eval_binary,
        [JNODE_CONCAT] = eval_concat, [JNODE_COMPARE] = eval_compare, [JNODE_COND] = eval_cond,
        [JNODE_ATTR] = eval_attr,     [JNODE_ITEM] = eval_item,       [JNODE_SLICE] = eval_slice,
        [JNODE_CALL] = eval_call,     [JNODE_FILTER] = eval_filter,   [JNODE_TEST] = eval_test,
        [JNODE_STAR2] = NULL,
    };
    const eval_fn fn = n->type <= JNODE_STAR2 ? fns[n->type] : NULL;
    if (NEVER(fn == NULL)) {
        return JMEM_FAIL(r->m, ERR_FAILED, "this is no expression");
    }
    TRY(jmem_enter(r->m));
    r->m->line = n->line;
    const enum err e = fn(r, n, out);
    jmem_leave(r->m);
    return e;
}
