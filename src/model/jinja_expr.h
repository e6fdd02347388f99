/* jinja_expr - the tree of a template, and the parser of its expressions (model/jinja_expr.c)
 *
 * The tree lives in the jmem it was parsed into and is never changed after jscope_bind, so any
 * number of threads may run it.
 *
 * JX-1  no path from the root to a leaf is longer than JEXPR_DEPTH_MAX nodes: walkers may recurse.
 * JX-2  lists of nodes are linked through `next`, in the order of the text. */
#ifndef HEARTH_JINJA_EXPR_H
#define HEARTH_JINJA_EXPR_H

#include "base/buf.h"
#include "base/err.h"
#include "model/jinja_lex.h"
#include "model/jinja_mem.h"
#include "model/jinja_str.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define JEXPR_DEPTH_MAX 400
#define JEXPR_NEST_MAX  300 /* tags, brackets (up to three times each) and prefix operators */

enum jnode_type {
    /* expressions */
    JNODE_NONE,
    JNODE_BOOL,    /* u.i */
    JNODE_INT,     /* u.i */
    JNODE_FLOAT,   /* u.f */
    JNODE_STRING,  /* text */
    JNODE_NAME,    /* text, u.var */
    JNODE_NSREF,   /* a target text.attr: u.var, a = JNODE_STRING of the attribute */
    JNODE_TUPLE,   /* kids */
    JNODE_LIST,    /* kids */
    JNODE_DICT,    /* kids: key, value, key, value ... */
    JNODE_NEG,     /* a */
    JNODE_POS,     /* a */
    JNODE_NOT,     /* a */
    JNODE_AND,     /* a, b */
    JNODE_OR,      /* a, b */
    JNODE_BINARY,  /* op, a, b */
    JNODE_CONCAT,  /* kids */
    JNODE_COMPARE, /* a, then kids: JNODE_OPERAND */
    JNODE_OPERAND, /* op, a */
    JNODE_COND,    /* a if b else c (c may be NULL) */
    JNODE_ATTR,    /* a.text */
    JNODE_ITEM,    /* a[b] */
    JNODE_SLICE,   /* a[b:c:d], each of b, c, d may be NULL */
    JNODE_CALL,    /* a(kids) */
    JNODE_FILTER,  /* a | text(kids); a is NULL in filter and set blocks */
    JNODE_TEST,    /* a is text(kids) */
    JNODE_KEYWORD, /* in a list of arguments: text = a */
    JNODE_STAR,    /* *a */
    JNODE_STAR2,   /* **a */
    /* statements */
    JNODE_DATA,        /* text */
    JNODE_OUTPUT,      /* a */
    JNODE_IF,          /* kids: JNODE_BRANCH; the last one may lack a test */
    JNODE_BRANCH,      /* a = test or NULL, kids */
    JNODE_FOR,         /* a = target, b = what, c = test or NULL, kids, more = else; scopes */
    JNODE_SET,         /* a = target, b */
    JNODE_SETBLOCK,    /* a = target, b = filters or NULL, kids */
    JNODE_MACRO,       /* text, a = target, more = parameters (JNODE_PARAM), kids */
    JNODE_PARAM,       /* text, a = default or NULL, u.var */
    JNODE_CALLBLOCK,   /* a = call, more = parameters, kids */
    JNODE_FILTERBLOCK, /* a = filters, kids */
    JNODE_WITH,        /* more: JNODE_SET ..., kids */
    JNODE_GENERATION,  /* kids */
    JNODE_BREAK,
    JNODE_CONTINUE,
};

/* What a macro or loop body mentions; flags of JNODE_FOR, JNODE_MACRO, JNODE_CALLBLOCK. */
#define JNODE_USES_LOOP    1u
#define JNODE_USES_CALLER  2u
#define JNODE_USES_VARARGS 4u
#define JNODE_USES_KWARGS  8u
#define JNODE_RECURSIVE    16u

struct jscope; /* jinja_scope.h */

struct jnode {
    uint8_t type;   /* enum jnode_type */
    uint8_t op;     /* enum jlex_type of an operator; JLEX_NAME: in, JLEX_TILDE: not in */
    uint8_t flags;  /* JNODE_USES_... */
    uint16_t depth; /* longest path to a leaf */
    uint32_t line;
    struct jnode *next;
    const struct jstr *text;
    struct jnode *a;
    struct jnode *b;
    struct jnode *c;
    struct jnode *d;
    struct jnode *kids;
    struct jnode *more;
    uint32_t n_kids;
    union {
        int64_t i;
        double f;
        struct {
            uint32_t sym;  /* number of the name, from 0 */
            uint16_t hops; /* frames outward (jinja_scope.h) */
            uint32_t slot;
        } var;
        struct jscope *scope[3]; /* body, test, else (of for); body of the others */
    } u;
};

/* --- the parser; used by jinja_parse.c only --------------------------------------------------- */

struct jparser {
    struct jmem *m;
    struct jlex lx;
    struct jlex_token cur;
    struct jlex_token ahead;
    bool has_ahead;
    int nest;
    int n_loop;   /* for loops around, within the innermost macro */
    uint8_t uses; /* JNODE_USES_... seen since last cleared */
    const struct jstr **sym;
    uint32_t n_sym;
    uint32_t *table; /* hash -> symbol + 1 */
    size_t n_table;  /* power of two */
};

/* Tokens: the current one is p->cur. Errors name the line. */
enum err jexpr_advance(struct jparser *p) MUST_USE;
enum err jexpr_expect(struct jparser *p, enum jlex_type type) MUST_USE; /* and past it */
enum err jexpr_unexpected(struct jparser *p, const char *wanted) MUST_USE;
bool jexpr_at_name(const struct jparser *p, const char *name);
struct view jexpr_shown(const struct jparser *p); /* the current token, for messages */
/* Counts nesting (JEXPR_NEST_MAX). */
enum err jexpr_enter(struct jparser *p) MUST_USE;
void jexpr_leave(struct jparser *p);

/* Nodes. jexpr_done sets the depth once all children are there (JX-1). */
struct jnode *jexpr_node(struct jparser *p, enum jnode_type type); /* NULL: p->m->err */
enum err jexpr_done(struct jparser *p, struct jnode *n, struct jnode **out) MUST_USE;
enum err jexpr_wrap(struct jparser *p, enum jnode_type type, struct jnode *a,
                    struct jnode **out) MUST_USE; /* a node with one child */
enum err jexpr_name(struct jparser *p, const struct jstr *name, struct jnode **out) MUST_USE;
struct jnode_list {
    struct jnode *first;
    struct jnode **end;
    uint32_t n;
};
void jexpr_add(struct jnode_list *l, struct jnode *n); /* at the end; the list begins zeroed */

/* Expressions. */
enum err jexpr_parse(struct jparser *p, struct jnode **out) MUST_USE;
enum jexpr_tuple {
    JEXPR_FULL,
    JEXPR_NO_IF,     /* without "a if b" */
    JEXPR_TARGET,    /* of an assignment: names only */
    JEXPR_NS_TARGET, /* names and name.attribute */
    JEXPR_BRACKETS,  /* may be empty */
};
/* One expression, or several with commas between (and perhaps one behind) as a tuple. `end` (may be
 * NULL) is a word that ends it. */
enum err jexpr_tuple(struct jparser *p, enum jexpr_tuple kind, const char *end,
                     struct jnode **out) MUST_USE;
/* "| name(args)" as often as it comes; is_inline: the first one lacks the bar. */
enum err jexpr_filters(struct jparser *p, struct jnode *of, bool is_inline,
                       struct jnode **out) MUST_USE;

#endif
