/* jinja_scope - what each name of a template means
 *
 * Jinja2 compiles a template to Python functions, and its rules of scope are what that compiler
 * does. Most follow from one picture: each frame decides once, before it runs, where each of its
 * names comes from.
 *
 *   - A name that is only read belongs to the nearest frame around that knows it; if none does,
 *     it is looked up among the variables given to the template when the frame is entered.
 *   - A name that is assigned belongs to the frame of the assignment. If a frame around knows
 *     the name the value is copied on entry, so the body of a loop sees the outer value at the
 *     start of every round, and what it assigns is gone afterwards.
 *   - If no frame around knows it, it starts undefined. When the assignment stands inside an
 *     `if`, or a read comes first in the text, it starts with the template's variable instead.
 *
 * "Knows" means the whole frame, also what comes later in the text: a loop body that reads a name
 * which the template assigns below the loop finds it undefined, even if a variable of that name was
 * given. Templates in the wild rely on less, but equal output needs all of it.
 *
 * Two passes per frame: `define` collects the names, `resolve` writes hops and slot into the nodes
 * and descends into the frames inside. The binding of a name is a stack per symbol, so the cost is
 * linear in the size of the template (and not names times depth).
 *
 * Rejected: a chain of dictionaries at run time. It is shorter, slower, and wrong in the cases
 * above.
 *
 * Next: jinja_value.c; the frames are made in jinja_eval.c. */
#include "model/jinja_scope.h"

#include <string.h>

struct binding {
    struct binding *outer; /* of the same symbol */
    struct binding *next;  /* of the same frame */
    struct frame *frame;
    uint32_t sym;
    uint32_t slot;
};

struct frame {
    struct frame *up;
    int level;
    struct binding *bindings;
    struct jscope *scope;
    uint32_t cap;
};

struct binder {
    struct jmem *m;
    const struct jparse_tree *tree;
    struct binding **of; /* [n_sym] innermost binding of each symbol */
    struct frame *frame;
    uint32_t sym_loop; /* symbols of the special parameters, or JSCOPE_NONE */
    uint32_t sym_caller;
    uint32_t sym_varargs;
    uint32_t sym_kwargs;
};

static enum err resolve_body(struct binder *b, struct jnode *first);

/* --- frames ----------------------------------------------------------------------------------- */

static enum err push(struct binder *b)
{
    struct jscope *scope = jmem_take(b->m, sizeof(*scope));
    struct frame *f = jmem_take(b->m, sizeof(*f));
    if (scope == NULL || f == NULL) {
        return b->m->err;
    }
    *scope = (struct jscope){
        .loop = JSCOPE_NONE, .caller = JSCOPE_NONE, .varargs = JSCOPE_NONE, .kwargs = JSCOPE_NONE
    };
    *f = (struct frame){ .up = b->frame,
                         .level = b->frame == NULL ? 0 : b->frame->level + 1,
                         .scope = scope };
    b->frame = f;
    return ERR_OK;
}

static struct jscope *pop(struct binder *b)
{
    for (struct binding *x = b->frame->bindings; x != NULL; x = x->next) {
        b->of[x->sym] = x->outer;
    }
    struct jscope *scope = b->frame->scope;
    b->frame = b->frame->up;
    return scope;
}

static enum err define(struct binder *b, uint32_t sym, enum jscope_load load)
{
    struct frame *f = b->frame;
    struct jscope *s = f->scope;
    if (s->n_slot == f->cap) {
        const uint32_t cap = f->cap == 0 ? 8 : f->cap * 2;
        struct jscope_slot *slot = jmem_take_array(b->m, cap, sizeof(*slot));
        if (slot == NULL) {
            return b->m->err;
        }
        if (s->n_slot > 0) {
            memcpy(slot, s->slot, s->n_slot * sizeof(*slot));
        }
        s->slot = slot;
        f->cap = cap;
    }
    struct binding *x = jmem_take(b->m, sizeof(*x));
    if (x == NULL) {
        return b->m->err;
    }
    const struct binding *outer = b->of[sym];
    s->slot[s->n_slot] = (struct jscope_slot){ .load = load, .name = b->tree->sym[sym] };
    if (load == JSCOPE_OUTER) {
        s->slot[s->n_slot].hops = (uint16_t)(f->level - outer->frame->level);
        s->slot[s->n_slot].from = outer->slot;
    }
    *x = (struct binding){
        .outer = b->of[sym], .next = f->bindings, .frame = f, .sym = sym, .slot = s->n_slot++
    };
    f->bindings = x;
    b->of[sym] = x;
    return ERR_OK;
}

static bool is_own(const struct binder *b, uint32_t sym)
{
    return b->of[sym] != NULL && b->of[sym]->frame == b->frame;
}

static enum err define_param(struct binder *b, uint32_t sym)
{
    return is_own(b, sym) ? ERR_OK : define(b, sym, JSCOPE_PARAM);
}

/* A parameter that is there without being written down, where the body mentions it. */
static enum err define_special(struct binder *b, uint32_t sym, bool is_wanted, uint32_t *slot)
{
    if (is_wanted && sym != JSCOPE_NONE && !is_own(b, sym)) {
        TRY(define(b, sym, JSCOPE_PARAM));
        *slot = b->of[sym]->slot;
    }
    return ERR_OK;
}

/* --- first pass: which names a frame has ------------------------------------------------------ */

/* All reads in an expression (or in a list of them). */
static enum err define_reads(struct binder *b, const struct jnode *n)
{
    for (; n != NULL; n = n->next) {
        if (n->type == JNODE_NAME || n->type == JNODE_NSREF) {
            if (b->of[n->u.var.sym] == NULL) {
                TRY(define(b, n->u.var.sym, JSCOPE_CONTEXT));
            }
            continue;
        }
        TRY(define_reads(b, n->a));
        TRY(define_reads(b, n->b));
        TRY(define_reads(b, n->c));
        TRY(define_reads(b, n->d));
        TRY(define_reads(b, n->kids));
    }
    return ERR_OK;
}

/* The names of a target; as parameters, or as assigned (within an `if` or not). */
static enum err define_target(struct binder *b, const struct jnode *n, bool is_param, bool in_if)
{
    if (n->type == JNODE_TUPLE) {
        for (const struct jnode *kid = n->kids; kid != NULL; kid = kid->next) {
            TRY(define_target(b, kid, is_param, in_if));
        }
        return ERR_OK;
    }
    const uint32_t sym = n->u.var.sym;
    if (n->type == JNODE_NSREF) {
        return b->of[sym] != NULL ? ERR_OK : define(b, sym, JSCOPE_CONTEXT);
    }
    if (is_param) {
        return define_param(b, sym);
    }
    if (is_own(b, sym)) {
        return ERR_OK;
    }
    if (b->of[sym] != NULL) {
        return define(b, sym, JSCOPE_OUTER);
    }
    return define(b, sym, in_if ? JSCOPE_CONTEXT : JSCOPE_EMPTY);
}

static enum err define_body(struct binder *b, const struct jnode *n, bool in_if)
{
    for (; n != NULL; n = n->next) {
        switch ((enum jnode_type)n->type) {
        case JNODE_OUTPUT:
        case JNODE_CALLBLOCK:
        case JNODE_FILTERBLOCK:
            TRY(define_reads(b, n->a));
            break;
        case JNODE_IF:
            for (const struct jnode *br = n->kids; br != NULL; br = br->next) {
                TRY(define_reads(b, br->a));
                TRY(define_body(b, br->kids, true));
            }
            break;
        case JNODE_FOR:
            TRY(define_reads(b, n->b));
            break;
        case JNODE_SET:
            TRY(define_reads(b, n->b));
            TRY(define_target(b, n->a, false, in_if));
            break;
        case JNODE_SETBLOCK:
        case JNODE_MACRO:
            TRY(define_target(b, n->a, false, in_if));
            break;
        case JNODE_WITH:
            for (const struct jnode *set = n->more; set != NULL; set = set->next) {
                TRY(define_reads(b, set->b));
            }
            break;
        default:
            break;
        }
    }
    return ERR_OK;
}

/* --- second pass: where each name is ---------------------------------------------------------- */

static void resolve_name(struct binder *b, struct jnode *n)
{
    const struct binding *x = b->of[n->u.var.sym];
    n->u.var.hops = (uint16_t)(b->frame->level - x->frame->level);
    n->u.var.slot = x->slot;
}

static void resolve_expr(struct binder *b, struct jnode *n)
{
    for (; n != NULL; n = n->next) {
        if (n->type == JNODE_NAME || n->type == JNODE_NSREF) {
            resolve_name(b, n);
            continue;
        }
        resolve_expr(b, n->a);
        resolve_expr(b, n->b);
        resolve_expr(b, n->c);
        resolve_expr(b, n->d);
        resolve_expr(b, n->kids);
    }
}

static enum err resolve_for(struct binder *b, struct jnode *n)
{
    resolve_expr(b, n->b);
    TRY(push(b));
    TRY(define_target(b, n->a, true, false));
    TRY(define_special(b, b->sym_loop, (n->flags & (JNODE_USES_LOOP | JNODE_RECURSIVE)) != 0,
                       &b->frame->scope->loop));
    TRY(define_body(b, n->kids, false));
    resolve_expr(b, n->a);
    TRY(resolve_body(b, n->kids));
    n->u.scope[0] = pop(b);
    if (n->c != NULL) {
        TRY(push(b));
        TRY(define_target(b, n->a, true, false));
        TRY(define_reads(b, n->c));
        resolve_expr(b, n->c);
        n->u.scope[1] = pop(b);
    }
    if (n->more != NULL) {
        TRY(push(b));
        TRY(define_body(b, n->more, false));
        TRY(resolve_body(b, n->more));
        n->u.scope[2] = pop(b);
    }
    return ERR_OK;
}

/* A macro, or the body of a call block. */
static enum err resolve_macro(struct binder *b, struct jnode *n)
{
    resolve_expr(b, n->a);
    TRY(push(b));
    for (struct jnode *p = n->more; p != NULL; p = p->next) {
        TRY(define_param(b, p->u.var.sym));
        resolve_name(b, p);
    }
    TRY(define_special(b, b->sym_caller, (n->flags & JNODE_USES_CALLER) != 0,
                       &b->frame->scope->caller));
    TRY(define_special(b, b->sym_kwargs, (n->flags & JNODE_USES_KWARGS) != 0,
                       &b->frame->scope->kwargs));
    TRY(define_special(b, b->sym_varargs, (n->flags & JNODE_USES_VARARGS) != 0,
                       &b->frame->scope->varargs));
    for (struct jnode *p = n->more; p != NULL; p = p->next) {
        TRY(define_reads(b, p->a));
    }
    TRY(define_body(b, n->kids, false));
    for (struct jnode *p = n->more; p != NULL; p = p->next) {
        resolve_expr(b, p->a);
    }
    TRY(resolve_body(b, n->kids));
    n->u.scope[0] = pop(b);
    return ERR_OK;
}

/* filter, set and generation blocks: a body in a frame of its own, with filters over it or without.
 */
static enum err resolve_block(struct binder *b, struct jnode *n, struct jnode *filters)
{
    TRY(push(b));
    TRY(define_body(b, n->kids, false));
    TRY(define_reads(b, filters));
    TRY(resolve_body(b, n->kids));
    resolve_expr(b, filters);
    n->u.scope[0] = pop(b);
    return ERR_OK;
}

static enum err resolve_with(struct binder *b, struct jnode *n)
{
    for (struct jnode *set = n->more; set != NULL; set = set->next) {
        resolve_expr(b, set->b);
    }
    TRY(push(b));
    for (struct jnode *set = n->more; set != NULL; set = set->next) {
        TRY(define_target(b, set->a, true, false));
        resolve_expr(b, set->a);
    }
    TRY(define_body(b, n->kids, false));
    TRY(resolve_body(b, n->kids));
    n->u.scope[0] = pop(b);
    return ERR_OK;
}

static enum err resolve_statement(struct binder *b, struct jnode *n)
{
    switch ((enum jnode_type)n->type) {
    case JNODE_OUTPUT:
        resolve_expr(b, n->a);
        return ERR_OK;
    case JNODE_IF:
        for (struct jnode *br = n->kids; br != NULL; br = br->next) {
            resolve_expr(b, br->a);
            TRY(resolve_body(b, br->kids));
        }
        return ERR_OK;
    case JNODE_FOR:
        return resolve_for(b, n);
    case JNODE_SET:
        resolve_expr(b, n->b);
        resolve_expr(b, n->a);
        return ERR_OK;
    case JNODE_SETBLOCK:
        resolve_expr(b, n->a);
        return resolve_block(b, n, n->b);
    case JNODE_FILTERBLOCK:
        return resolve_block(b, n, n->a);
    case JNODE_GENERATION:
        return resolve_block(b, n, NULL);
    case JNODE_MACRO:
    case JNODE_CALLBLOCK:
        return resolve_macro(b, n);
    case JNODE_WITH:
        return resolve_with(b, n);
    default:
        return ERR_OK;
    }
}

static enum err resolve_body(struct binder *b, struct jnode *first)
{
    for (struct jnode *n = first; n != NULL; n = n->next) {
        TRY(resolve_statement(b, n));
    }
    return ERR_OK;
}

static uint32_t find_symbol(const struct jparse_tree *tree, const char *name)
{
    for (uint32_t i = 0; i < tree->n_sym; i++) {
        if (jstr_is(tree->sym[i], name)) {
            return i;
        }
    }
    return JSCOPE_NONE;
}

enum err jscope_bind(struct jparse_tree *tree, struct jmem *m)
{
    struct binder b = { .m = m,
                        .tree = tree,
                        .sym_loop = find_symbol(tree, "loop"),
                        .sym_caller = find_symbol(tree, "caller"),
                        .sym_varargs = find_symbol(tree, "varargs"),
                        .sym_kwargs = find_symbol(tree, "kwargs") };
    b.of = jmem_take_array(m, tree->n_sym, sizeof(struct binding *));
    if (b.of == NULL) {
        return m->err;
    }
    TRY(push(&b));
    TRY(define_body(&b, tree->body, false));
    TRY(resolve_body(&b, tree->body));
    tree->root = pop(&b);
    return ERR_OK;
}
