/* jinja_value - what expressions of a template yield (model/jinja_value.c)
 *
 * The types are Python's as far as templates can tell. All of them live in a jmem; except for
 * namespaces, iterators and the objects cycler and joiner, values never change once made.
 * JV-1  dictionaries keep the order in which their keys came.
 * JV-2  a failed call leaves its outputs alone and a text in err_text(); codes: ERR_FAILED where
 *       Python would raise, ERR_LIMIT for budgets. */
#ifndef HEARTH_JINJA_VALUE_H
#define HEARTH_JINJA_VALUE_H

#include "base/err.h"
#include "model/jinja_mem.h"
#include "model/jinja_str.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum jv_type {
    JV_MISSING,   /* nothing at all: an empty slot, an argument not given */
    JV_UNDEFINED, /* u.s: the name that was not found, or NULL; sub: enum jv_type of its owner */
    JV_NONE,
    JV_BOOL,      /* u.i */
    JV_INT,       /* u.i */
    JV_FLOAT,     /* u.f */
    JV_STR,       /* u.s */
    JV_LIST,      /* u.list */
    JV_TUPLE,     /* u.list; sub 1: of groupby, with the attributes grouper and list */
    JV_DICT,      /* u.dict */
    JV_VIEW,      /* u.dict, sub: enum jv_view */
    JV_RANGE,     /* u.range */
    JV_ITER,      /* u.gen: a thing that can be gone through once */
    JV_NAMESPACE, /* u.dict */
    JV_METHOD,    /* u.method */
    JV_FUNC,      /* sub: number of a built-in function (jinja_global.h) */
    JV_MACRO,     /* u.macro */
    JV_LOOP,      /* u.loop */
    JV_CYCLER,    /* u.cycler */
    JV_JOINER,    /* u.joiner */
    JV_TYPES,
};

enum jv_view { JV_KEYS, JV_VALUES, JV_ITEMS };

struct jlist;
struct jdict;
struct jgen;
struct jv_range;
struct jv_method;
struct jv_cycler;
struct jv_joiner;
struct jmacro;
struct jloop; /* jinja_loop.h */

struct jv {
    uint8_t type; /* enum jv_type */
    uint8_t sub;
    bool is_data; /* numbers, true, none: came from data, not from the template (CH-2) */
    union {
        int64_t i;
        double f;
        const struct jstr *s;
        const struct jlist *list;
        struct jdict *dict;
        struct jgen *gen;
        const struct jv_range *range;
        const struct jv_method *method;
        const struct jmacro *macro;
        struct jloop *loop;
        struct jv_cycler *cycler;
        struct jv_joiner *joiner;
    } u;
};

struct jlist {
    struct jv *item;
    size_t n;
    size_t cap;
    bool is_data; /* its brackets and commas came from data */
};

struct jv_pair {
    struct jv key;
    struct jv value;
    uint64_t hash;
};

struct jdict {
    struct jv_pair *pair; /* in the order of arrival */
    size_t n;
    size_t cap;
    uint32_t *index; /* hash -> position + 1, once there are more than a few */
    size_t n_index;
    bool is_data;
};

struct jv_range {
    int64_t start;
    int64_t stop;
    int64_t step; /* not 0 */
    size_t n;     /* elements, at most JV_RANGE_MAX */
};
#define JV_RANGE_MAX 100000 /* as in Jinja's sandbox */

struct jv_method {
    struct jv self;
    const struct jstr *name;
};

struct jv_cycler {
    const struct jlist *items;
    size_t at;
};

struct jnode;  /* jinja_expr.h */
struct jframe; /* jinja_eval.h */

struct jmacro {
    const struct jstr *name; /* NULL: the body of a call block */
    const struct jnode *node;
    struct jframe *up; /* the frame it was defined in */
};

struct jv_joiner {
    struct jv separator;
    bool is_used;
};

/* --- making ----------------------------------------------------------------------------------- */

struct jv jv_none(void);
struct jv jv_bool(bool b);
struct jv jv_int(int64_t i);
struct jv jv_float(double f);
struct jv jv_of_str(const struct jstr *s); /* s not NULL */
struct jv jv_of_list(const struct jlist *l);
struct jv jv_of_tuple(const struct jlist *l);
struct jv jv_of_dict(struct jdict *d);
/* owner: JV_MISSING for a variable, JV_TYPES for a method that is not allowed. */
struct jv jv_undefined(const struct jstr *name, enum jv_type owner);
/* Puts a text that may have failed (NULL: m->err) into *out. */
enum err jv_put_str(struct jmem *m, const struct jstr *s, struct jv *out) MUST_USE;
enum err jv_put_lit(struct jmem *m, const char *zero_terminated, struct jv *out) MUST_USE;

struct jlist *jlist_new(struct jmem *m, size_t cap); /* NULL: m->err */
enum err jlist_add(struct jmem *m, struct jlist *l, struct jv v) MUST_USE;
struct jdict *jdict_new(struct jmem *m); /* NULL: m->err */
/* Sets or replaces; the place of an old key stays. ERR_FAILED when the key cannot be hashed. */
enum err jdict_set(struct jmem *m, struct jdict *d, struct jv key, struct jv value) MUST_USE;
/* *out = NULL when the key is not there. */
enum err jdict_get(struct jmem *m, const struct jdict *d, struct jv key,
                   const struct jv **out) MUST_USE;
/* By a name of the program's own; NULL when not there. */
const struct jv *jdict_find(const struct jdict *d, struct view name);

/* --- asking ----------------------------------------------------------------------------------- */

const char *jv_type_name(struct jv v); /* as Python's type(v).__name__ */
bool jv_truth(struct jv v);
bool jv_is_number(struct jv v); /* int, float, bool */
bool jv_is_int(struct jv v);    /* int, bool */
/* What the undefined value says when it is used. */
enum err jv_undefined_error(struct jmem *m, struct jv v) MUST_USE;
enum err jv_len(struct jmem *m, struct jv v, size_t *out) MUST_USE;
enum err jv_eq(struct jmem *m, struct jv a, struct jv b, bool *out) MUST_USE;
bool jv_same(struct jv a, struct jv b); /* Python's `is`, as near as it can be told */
enum jv_order { JV_LT, JV_LE, JV_GT, JV_GE };
enum err jv_compare(struct jmem *m, struct jv a, struct jv b, enum jv_order op, bool *out) MUST_USE;
enum err jv_contains(struct jmem *m, struct jv container, struct jv item, bool *out) MUST_USE;

/* Sorts n values by their keys, stably (also when reversed), in Python's order; both arrays move.
 */
enum err jv_sort(struct jmem *m, struct jv *key, struct jv *value, size_t n,
                 bool is_reverse) MUST_USE;

/* --- going through ---------------------------------------------------------------------------- */

/* An iterator that lives in the arena: subclasses put this first. */
typedef enum err (*jgen_fn)(struct jmem *m, struct jgen *g, struct jv *out, bool *has);
struct jgen {
    jgen_fn next;
    const char *type_name; /* "generator" ... */
};

struct jiter {
    struct jv of;
    size_t i;
    size_t at;
};

bool jiter_can(struct jv v);
enum err jiter_init(struct jmem *m, struct jiter *it, struct jv v) MUST_USE;
/* *has = false and *out untouched at the end. */
enum err jiter_next(struct jmem *m, struct jiter *it, struct jv *out, bool *has) MUST_USE;
/* Everything that is left, as a new list. */
enum err jv_collect(struct jmem *m, struct jv v, struct jlist **out) MUST_USE;
/* Element i of a range, dictionary view or list; i < its length. */
enum err jv_at(struct jmem *m, struct jv v, size_t i, struct jv *out) MUST_USE;

#endif
