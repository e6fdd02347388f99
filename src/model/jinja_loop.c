/* jinja_loop - the elements of a for loop and the object `loop`
 *
 * A loop takes its elements one by one, with one element of look-ahead only if the template asks
 * for loop.last or loop.nextitem, and all at once if it asks for loop.length: the `if` behind the
 * `in` may depend on what the body did before (a namespace, say), and then the moment of asking
 * shows. Only sources that know their length and have no condition give it without being read to
 * the end.
 *
 * The condition runs in a frame of its own, whose first slots are the loop's targets (JC-2).
 *
 * Source: behaviour of LoopContext in Jinja2 3.1.6, checked by tests/fixtures.
 * Next: jinja_exec.c. */
#include "model/jinja_loop.h"

/* The next element that passes the condition. */
static enum err loop_take(struct jloop *loop, struct jv *out, bool *has)
{
    struct jrun *r = loop->run;
    for (;;) {
        TRY(jiter_next(r->m, &loop->it, out, has));
        if (!*has || loop->test == NULL) {
            return ERR_OK;
        }
        struct jframe *const frame = r->frame;
        struct jv passed;
        r->frame = loop->test;
        TRY(jeval_load_frame(r, loop->node->u.scope[1], loop->test));
        TRY(jeval_assign(r, loop->node->a, *out));
        TRY(jeval(r, loop->node->c, &passed));
        r->frame = frame;
        if (jv_truth(passed)) {
            return ERR_OK;
        }
    }
}

static enum err loop_peek(struct jloop *loop)
{
    if (loop->after.type == JV_MISSING && !loop->is_over) {
        bool has = false;
        TRY(loop_take(loop, &loop->after, &has));
        loop->is_over = !has;
    }
    return ERR_OK;
}

static enum err loop_length(struct jloop *loop, int64_t *out)
{
    struct jmem *m = loop->run->m;
    if (loop->length < 0 && loop->is_direct) {
        size_t n = 0;
        TRY(jv_len(m, loop->source, &n));
        loop->length = (int64_t)n;
    }
    if (loop->length < 0) {
        struct jlist *rest = jlist_new(m, 0);
        bool has = true;
        TRY(rest == NULL ? m->err : ERR_OK);
        while (has && !loop->is_over) {
            struct jv v;
            TRY(loop_take(loop, &v, &has));
            TRY(has ? jlist_add(m, rest, v) : ERR_OK);
        }
        loop->length = (int64_t)rest->n + loop->index0 + 1 + (loop->after.type != JV_MISSING);
        loop->test = NULL; /* the rest has passed */
        TRY(jiter_init(m, &loop->it, jv_of_list(rest)));
    }
    *out = loop->length;
    return ERR_OK;
}

enum err jloop_step(struct jloop *loop, struct jv *out, bool *has)
{
    TRY(loop_peek(loop));
    *has = !loop->is_over;
    if (*has) {
        loop->index0++;
        loop->before = loop->current;
        loop->current = loop->after;
        loop->after = (struct jv){ 0 };
        *out = loop->current;
    }
    return ERR_OK;
}

/* The attributes of `loop` that are numbers; *has = false for other names. */
static enum err loop_number(struct jloop *loop, const struct jstr *name, bool *has, struct jv *out)
{
    int64_t n = 0;
    *has = true;
    if (jstr_is(name, "index")) {
        *out = jv_int(loop->index0 + 1);
    } else if (jstr_is(name, "index0")) {
        *out = jv_int(loop->index0);
    } else if (jstr_is(name, "depth")) {
        *out = jv_int(loop->depth0 + 1);
    } else if (jstr_is(name, "depth0")) {
        *out = jv_int(loop->depth0);
    } else if (jstr_is(name, "length")) {
        TRY(loop_length(loop, &n));
        *out = jv_int(n);
    } else if (jstr_is(name, "revindex") || jstr_is(name, "revindex0")) {
        TRY(loop_length(loop, &n));
        *out = jv_int(n - loop->index0 - (name->n == 9 ? 1 : 0));
    } else {
        *has = false;
    }
    return ERR_OK;
}

enum err jloop_attr(struct jrun *r, struct jv v, const struct jstr *name, struct jv *out)
{
    struct jloop *loop = v.u.loop;
    bool has = false;
    TRY(loop_number(loop, name, &has, out));
    if (has) {
        return ERR_OK;
    }
    if (jstr_is(name, "first")) {
        *out = jv_bool(loop->index0 == 0);
    } else if (jstr_is(name, "last")) {
        TRY(loop_peek(loop));
        *out = jv_bool(loop->is_over);
    } else if (jstr_is(name, "previtem")) {
        *out = loop->index0 == 0 ? jv_undefined(name, JV_LOOP) : loop->before;
    } else if (jstr_is(name, "nextitem")) {
        TRY(loop_peek(loop));
        *out = loop->is_over ? jv_undefined(name, JV_LOOP) : loop->after;
    } else if (jstr_is(name, "cycle") || jstr_is(name, "changed")) {
        struct jv_method *method = jmem_take(r->m, sizeof(*method));
        if (method == NULL) {
            return r->m->err;
        }
        *method = (struct jv_method){ .self = v, .name = name };
        *out = (struct jv){ .type = JV_METHOD, .u.method = method };
    } else {
        *out = jv_undefined(name, JV_LOOP);
    }
    return ERR_OK;
}

enum err jloop_new(struct jrun *r, const struct jnode *n, struct jv source, struct jloop **out)
{
    struct jloop *loop = jmem_take(r->m, sizeof(*loop));
    if (loop == NULL) {
        return r->m->err;
    }
    loop->node = n;
    loop->run = r;
    loop->up = r->frame;
    loop->source = source;
    loop->index0 = -1;
    loop->length = -1;
    loop->is_direct = n->c == NULL && source.type != JV_ITER;
    TRY(jiter_init(r->m, &loop->it, source));
    if (n->c != NULL) {
        TRY(jeval_new_frame(r, n->u.scope[1], r->frame, &loop->test));
    }
    *out = loop;
    return ERR_OK;
}

enum err jloop_call_method(struct jrun *r, const struct jv_method *method, const struct jargs *args,
                           struct jv *out)
{
    struct jloop *loop = method->self.u.loop;
    if (jstr_is(method->name, "cycle")) {
        if (args->pos->n == 0) {
            return JMEM_FAIL(r->m, ERR_FAILED, "loop.cycle wants at least one value");
        }
        *out = args->pos->item[(size_t)loop->index0 % args->pos->n];
        return ERR_OK;
    }
    bool same = false;
    if (loop->last_changed != NULL) {
        TRY(jv_eq(r->m, jv_of_tuple(loop->last_changed), jv_of_tuple(args->pos), &same));
    }
    loop->last_changed = args->pos;
    *out = jv_bool(!same);
    return ERR_OK;
}
