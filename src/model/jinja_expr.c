/* jinja_expr - the tree of a template, and the parser of its expressions
 *
 * A recursive descent parser with one token of look-ahead, one function per level of precedence:
 *
 *   a if b else c  <  or  <  and  <  not  <  == != < <= > >= in  <  + -  <  ~  <  * / // %  <  **
 *   <  unary - +  <  primary with .name [item] (call)  and then  | filter  is test
 *
 * Two rules of the language surprise people who know Python: "~" binds tighter than "+", and "**"
 * groups to the left. A filter applies to the whole signed number: -1|abs is 1. What may follow
 * "is" as an argument without brackets is any primary that begins with a name, number, string or
 * bracket, except the words else, or, and.
 *
 * The tree is plain: one node type with up to four children and two lists. Its depth is counted
 * while it is built (JX-1), so later passes may recurse without counting again; the nesting of the
 * parser itself is bounded by JEXPR_NEST_MAX.
 *
 * The grammar is that of Jinja2 3.1. Rejected: a precedence table (the levels have too many
 * exceptions to gain from one).
 *
 * Next: jinja_parse.c for the tags around expressions. */
#include "model/jinja_expr.h"

#include "base/hash.h"

#include <string.h>

#define BAD(p, ...) JMEM_FAIL((p)->m, ERR_INTEGRITY, __VA_ARGS__)

static enum err primary(struct jparser *p, bool with_ns, struct jnode **out);
static enum err or_level(struct jparser *p, struct jnode **out);
static enum err unary(struct jparser *p, bool with_filter, struct jnode **out);

/* --- tokens ----------------------------------------------------------------------------------- */

enum err jexpr_advance(struct jparser *p)
{
    if (p->has_ahead) {
        p->cur = p->ahead;
        p->has_ahead = false;
        return ERR_OK;
    }
    return jlex_next(&p->lx, &p->cur);
}

static enum err look(struct jparser *p)
{
    if (!p->has_ahead) {
        TRY(jlex_next(&p->lx, &p->ahead));
        p->has_ahead = true;
    }
    return ERR_OK;
}

static bool token_is(const struct jlex_token *t, const char *name)
{
    return t->type == JLEX_NAME && jstr_is(t->text, name);
}

bool jexpr_at_name(const struct jparser *p, const char *name)
{
    return token_is(&p->cur, name);
}

/* Text of the current token for messages. */
struct view jexpr_shown(const struct jparser *p)
{
    return p->cur.type == JLEX_NAME ? jstr_view(p->cur.text) : view_of(jlex_name(p->cur.type));
}

enum err jexpr_unexpected(struct jparser *p, const char *wanted)
{
    const struct view v = jexpr_shown(p);
    return BAD(p, "line %u: expected %s, found '%.*s'", p->cur.line, wanted,
               (int)(v.n < 60 ? v.n : 60), v.p);
}

enum err jexpr_expect(struct jparser *p, enum jlex_type type)
{
    if (p->cur.type != type) {
        return jexpr_unexpected(p, jlex_name(type));
    }
    return jexpr_advance(p);
}

enum err jexpr_enter(struct jparser *p)
{
    if (p->nest >= JEXPR_NEST_MAX) {
        return JMEM_FAIL(p->m, ERR_LIMIT, "line %u: nested deeper than %d brackets and tags",
                         p->cur.line, JEXPR_NEST_MAX);
    }
    p->nest++;
    return ERR_OK;
}

void jexpr_leave(struct jparser *p)
{
    p->nest--;
}

/* --- nodes ------------------------------------------------------------------------------------ */

struct jnode *jexpr_node(struct jparser *p, enum jnode_type type)
{
    struct jnode *n = jmem_take(p->m, sizeof(*n));
    if (n != NULL) {
        n->type = (uint8_t)type;
        n->line = p->cur.line;
        n->depth = 1;
    }
    return n;
}

static uint16_t deeper(uint16_t depth, const struct jnode *kid)
{
    return kid != NULL && kid->depth >= depth ? (uint16_t)(kid->depth + 1) : depth;
}

/* Sets the depth of a node whose children are complete (JX-1) and hands it out. */
enum err jexpr_done(struct jparser *p, struct jnode *n, struct jnode **out)
{
    uint16_t depth = deeper(deeper(deeper(deeper(1, n->a), n->b), n->c), n->d);
    for (const struct jnode *kid = n->kids; kid != NULL; kid = kid->next) {
        depth = deeper(depth, kid);
    }
    for (const struct jnode *kid = n->more; kid != NULL; kid = kid->next) {
        depth = deeper(depth, kid);
    }
    if (depth > JEXPR_DEPTH_MAX) {
        return JMEM_FAIL(p->m, ERR_LIMIT, "line %u: an expression or block of more than %d levels",
                         n->line, JEXPR_DEPTH_MAX);
    }
    n->depth = depth;
    *out = n;
    return ERR_OK;
}

void jexpr_add(struct jnode_list *l, struct jnode *n)
{
    if (l->end == NULL) {
        l->end = &l->first;
    }
    *l->end = n;
    l->end = &n->next;
    l->n++;
}

enum err jexpr_wrap(struct jparser *p, enum jnode_type type, struct jnode *a, struct jnode **out)
{
    struct jnode *n = jexpr_node(p, type);
    if (n == NULL) {
        return p->m->err;
    }
    n->a = a;
    return jexpr_done(p, n, out);
}

static enum err binary_node(struct jparser *p, enum jnode_type type, struct jnode *a,
                            struct jnode *b, struct jnode **out)
{
    struct jnode *n = jexpr_node(p, type);
    if (n == NULL) {
        return p->m->err;
    }
    n->line = a->line;
    n->a = a;
    n->b = b;
    return jexpr_done(p, n, out);
}

/* --- names as numbers ------------------------------------------------------------------------- */

static enum err grow_table(struct jparser *p)
{
    const size_t n = p->n_table == 0 ? 256 : p->n_table * 4;
    uint32_t *table = jmem_take_array(p->m, n, sizeof(*table));
    const struct jstr **sym = jmem_take_array(p->m, n / 2, sizeof(*sym));
    if (table == NULL || sym == NULL) {
        return p->m->err;
    }
    for (uint32_t i = 0; i < p->n_sym; i++) {
        sym[i] = p->sym[i];
        size_t at = (size_t)hash_mix(sym[i]->p, sym[i]->n, 0) & (n - 1);
        while (table[at] != 0) {
            at = (at + 1) & (n - 1);
        }
        table[at] = i + 1;
    }
    p->table = table;
    p->sym = sym;
    p->n_table = n;
    return ERR_OK;
}

static enum err symbol(struct jparser *p, const struct jstr *name, uint32_t *out)
{
    if (p->n_sym >= p->n_table / 2) {
        TRY(grow_table(p));
    }
    size_t at = (size_t)hash_mix(name->p, name->n, 0) & (p->n_table - 1);
    while (p->table[at] != 0) {
        if (jstr_eq(p->sym[p->table[at] - 1], name)) {
            *out = p->table[at] - 1;
            return ERR_OK;
        }
        TRY(jmem_step(p->m, 1));
        at = (at + 1) & (p->n_table - 1);
    }
    p->sym[p->n_sym] = name;
    p->table[at] = ++p->n_sym;
    *out = p->n_sym - 1;
    return ERR_OK;
}

enum err jexpr_name(struct jparser *p, const struct jstr *name, struct jnode **out)
{
    struct jnode *n = jexpr_node(p, JNODE_NAME);
    if (n == NULL) {
        return p->m->err;
    }
    n->text = name;
    TRY(symbol(p, name, &n->u.var.sym));
    *out = n;
    return ERR_OK;
}

/* --- primaries -------------------------------------------------------------------------------- */

static bool is_word(const struct jstr *s, const char *a, const char *b)
{
    return jstr_is(s, a) || jstr_is(s, b);
}

static enum err name_primary(struct jparser *p, bool with_ns, struct jnode **out)
{
    const struct jstr *name = p->cur.text;
    if (is_word(name, "true", "True") || is_word(name, "false", "False") ||
        is_word(name, "none", "None")) {
        const bool is_none = is_word(name, "none", "None");
        struct jnode *n = jexpr_node(p, is_none ? JNODE_NONE : JNODE_BOOL);
        if (n == NULL) {
            return p->m->err;
        }
        n->u.i = is_word(name, "true", "True");
        *out = n;
        return jexpr_advance(p);
    }
    struct jnode *n = NULL;
    TRY(jexpr_name(p, name, &n));
    TRY(jexpr_advance(p));
    if (with_ns && p->cur.type == JLEX_DOT) {
        TRY(jexpr_advance(p));
        struct jnode *attr = jexpr_node(p, JNODE_STRING);
        if (attr == NULL) {
            return p->m->err;
        }
        attr->text = p->cur.text;
        TRY(jexpr_expect(p, JLEX_NAME));
        n->type = JNODE_NSREF;
        n->a = attr;
        return jexpr_done(p, n, out);
    }
    p->uses |= jstr_is(name, "loop") ? JNODE_USES_LOOP : 0;
    p->uses |= jstr_is(name, "caller") ? JNODE_USES_CALLER : 0;
    p->uses |= jstr_is(name, "varargs") ? JNODE_USES_VARARGS : 0;
    p->uses |= jstr_is(name, "kwargs") ? JNODE_USES_KWARGS : 0;
    *out = n;
    return ERR_OK;
}

/* Strings that stand side by side are one. */
static enum err string_primary(struct jparser *p, struct jnode **out)
{
    struct jnode *n = jexpr_node(p, JNODE_STRING);
    if (n == NULL) {
        return p->m->err;
    }
    n->text = p->cur.text;
    TRY(jexpr_advance(p));
    if (p->cur.type == JLEX_STRING) {
        struct jstr_out o;
        jstr_begin(&o, p->m);
        jstr_add(&o, n->text);
        while (p->cur.type == JLEX_STRING) {
            jstr_add(&o, p->cur.text);
            TRY(jexpr_advance(p));
        }
        n->text = jstr_end(&o, false);
    }
    *out = n;
    return n->text == NULL ? p->m->err : ERR_OK;
}

static bool at_tuple_end(const struct jparser *p, const char *end)
{
    return p->cur.type == JLEX_VAR_END || p->cur.type == JLEX_BLOCK_END ||
           p->cur.type == JLEX_RPAREN || (end != NULL && jexpr_at_name(p, end));
}

static enum err tuple_item(struct jparser *p, enum jexpr_tuple kind, struct jnode **out)
{
    if (kind == JEXPR_TARGET || kind == JEXPR_NS_TARGET) {
        return primary(p, kind == JEXPR_NS_TARGET, out);
    }
    return kind == JEXPR_NO_IF ? or_level(p, out) : jexpr_parse(p, out);
}

/* One expression, or several with commas between (and perhaps one behind) as a tuple. */
enum err jexpr_tuple(struct jparser *p, enum jexpr_tuple kind, const char *end, struct jnode **out)
{
    struct jnode *n = jexpr_node(p, JNODE_TUPLE);
    if (n == NULL) {
        return p->m->err;
    }
    struct jnode_list items = { 0 };
    bool is_tuple = false;
    for (;;) {
        if (items.n > 0) {
            TRY(jexpr_expect(p, JLEX_COMMA));
        }
        if (at_tuple_end(p, end)) {
            break;
        }
        struct jnode *item = NULL;
        TRY(tuple_item(p, kind, &item));
        jexpr_add(&items, item);
        if (p->cur.type != JLEX_COMMA) {
            break;
        }
        is_tuple = true;
    }
    if (!is_tuple && items.n == 1) {
        *out = items.first;
        return ERR_OK;
    }
    if (!is_tuple && kind != JEXPR_BRACKETS) {
        return jexpr_unexpected(p, "an expression");
    }
    n->kids = items.first;
    n->n_kids = items.n;
    return jexpr_done(p, n, out);
}

static enum err list_primary(struct jparser *p, struct jnode **out)
{
    struct jnode *n = jexpr_node(p, JNODE_LIST);
    if (n == NULL) {
        return p->m->err;
    }
    struct jnode_list items = { 0 };
    TRY(jexpr_expect(p, JLEX_LBRACKET));
    while (p->cur.type != JLEX_RBRACKET) {
        struct jnode *item = NULL;
        if (items.n > 0) {
            TRY(jexpr_expect(p, JLEX_COMMA));
            if (p->cur.type == JLEX_RBRACKET) {
                break;
            }
        }
        TRY(jexpr_parse(p, &item));
        jexpr_add(&items, item);
    }
    TRY(jexpr_expect(p, JLEX_RBRACKET));
    n->kids = items.first;
    n->n_kids = items.n;
    return jexpr_done(p, n, out);
}

static enum err dict_primary(struct jparser *p, struct jnode **out)
{
    struct jnode *n = jexpr_node(p, JNODE_DICT);
    if (n == NULL) {
        return p->m->err;
    }
    struct jnode_list items = { 0 };
    TRY(jexpr_expect(p, JLEX_LBRACE));
    while (p->cur.type != JLEX_RBRACE) {
        struct jnode *item = NULL;
        if (items.n > 0) {
            TRY(jexpr_expect(p, JLEX_COMMA));
            if (p->cur.type == JLEX_RBRACE) {
                break;
            }
        }
        TRY(jexpr_parse(p, &item));
        jexpr_add(&items, item);
        TRY(jexpr_expect(p, JLEX_COLON));
        TRY(jexpr_parse(p, &item));
        jexpr_add(&items, item);
    }
    TRY(jexpr_expect(p, JLEX_RBRACE));
    n->kids = items.first;
    n->n_kids = items.n;
    return jexpr_done(p, n, out);
}

static enum err number_primary(struct jparser *p, struct jnode **out)
{
    struct jnode *n = jexpr_node(p, p->cur.type == JLEX_INT ? JNODE_INT : JNODE_FLOAT);
    if (n == NULL) {
        return p->m->err;
    }
    if (p->cur.type == JLEX_INT) {
        n->u.i = p->cur.i;
    } else {
        n->u.f = p->cur.f;
    }
    *out = n;
    return jexpr_advance(p);
}

static enum err primary(struct jparser *p, bool with_ns, struct jnode **out)
{
    switch (p->cur.type) {
    case JLEX_NAME:
        return name_primary(p, with_ns, out);
    case JLEX_STRING:
        return string_primary(p, out);
    case JLEX_INT:
    case JLEX_FLOAT:
        return number_primary(p, out);
    case JLEX_LPAREN:
        TRY(jexpr_advance(p));
        TRY(jexpr_enter(p));
        TRY(jexpr_tuple(p, JEXPR_BRACKETS, NULL, out));
        jexpr_leave(p);
        return jexpr_expect(p, JLEX_RPAREN);
    case JLEX_LBRACKET:
        return list_primary(p, out);
    case JLEX_LBRACE:
        return dict_primary(p, out);
    default:
        return jexpr_unexpected(p, "an expression");
    }
}

/* --- what follows a primary ------------------------------------------------------------------- */

/* One argument of a call; `seen` is the kind of the one before (positional 0, named 1, * 2, ** 3).
 */
static enum err argument(struct jparser *p, int *seen, struct jnode **out)
{
    const struct jlex_token start = p->cur;
    struct jnode *n = NULL;
    int kind = 0;
    if (start.type == JLEX_MUL || start.type == JLEX_POW) {
        kind = start.type == JLEX_MUL ? 2 : 3;
        TRY(jexpr_advance(p));
        TRY(jexpr_parse(p, &n));
        TRY(jexpr_wrap(p, kind == 2 ? JNODE_STAR : JNODE_STAR2, n, &n));
    } else {
        if (start.type == JLEX_NAME) {
            TRY(look(p));
            kind = p->ahead.type == JLEX_ASSIGN ? 1 : 0;
        }
        if (kind == 1) {
            TRY(jexpr_advance(p));
            TRY(jexpr_advance(p));
            TRY(jexpr_parse(p, &n));
            TRY(jexpr_wrap(p, JNODE_KEYWORD, n, &n));
            n->text = start.text;
        } else {
            TRY(jexpr_parse(p, &n));
        }
    }
    const bool is_bad =
        (kind == 0 && *seen > 0) || (kind >= 2 && *seen >= kind) || (kind == 1 && *seen == 3);
    if (is_bad) {
        return BAD(p, "line %u: arguments of a call in the wrong order", start.line);
    }
    *seen = kind > *seen ? kind : *seen;
    *out = n;
    return ERR_OK;
}

/* "(" arguments ")" into the kids of n. */
static enum err arguments(struct jparser *p, struct jnode *n)
{
    struct jnode_list args = { 0 };
    int seen = 0;
    TRY(jexpr_expect(p, JLEX_LPAREN));
    while (p->cur.type != JLEX_RPAREN) {
        if (args.n > 0) {
            TRY(jexpr_expect(p, JLEX_COMMA));
            if (p->cur.type == JLEX_RPAREN) {
                break;
            }
        }
        struct jnode *arg = NULL;
        TRY(argument(p, &seen, &arg));
        jexpr_add(&args, arg);
    }
    n->kids = args.first;
    n->n_kids = args.n;
    return jexpr_expect(p, JLEX_RPAREN);
}

static enum err call(struct jparser *p, struct jnode *of, struct jnode **out)
{
    struct jnode *n = jexpr_node(p, JNODE_CALL);
    if (n == NULL) {
        return p->m->err;
    }
    n->a = of;
    TRY(arguments(p, n));
    return jexpr_done(p, n, out);
}

/* One part of a subscript: an expression, or a slice a:b:c in which each may be missing. */
static enum err subscript_part(struct jparser *p, struct jnode *of, struct jnode **out)
{
    struct jnode *n = jexpr_node(p, JNODE_SLICE);
    if (n == NULL) {
        return p->m->err;
    }
    n->a = of;
    struct jnode **const part[] = { &n->b, &n->c, &n->d };
    for (int i = 0; i < 3; i++) {
        const enum jlex_type t = p->cur.type;
        if (t != JLEX_COLON && t != JLEX_RBRACKET && t != JLEX_COMMA) {
            TRY(jexpr_parse(p, part[i]));
        }
        if (p->cur.type != JLEX_COLON) {
            if (i == 0) {
                *out = n->b;
                return n->b != NULL ? ERR_OK : jexpr_unexpected(p, "an expression");
            }
            break;
        }
        if (i < 2) {
            TRY(jexpr_advance(p));
        }
    }
    return jexpr_done(p, n, out);
}

static enum err subscript(struct jparser *p, struct jnode *of, struct jnode **out)
{
    struct jnode *n = jexpr_node(p, JNODE_ITEM);
    if (n == NULL) {
        return p->m->err;
    }
    n->a = of;
    if (p->cur.type == JLEX_DOT) {
        TRY(jexpr_advance(p));
        if (p->cur.type == JLEX_INT) {
            TRY(number_primary(p, &n->b));
            return jexpr_done(p, n, out);
        }
        n->type = JNODE_ATTR;
        n->text = p->cur.text;
        TRY(jexpr_expect(p, JLEX_NAME));
        return jexpr_done(p, n, out);
    }
    TRY(jexpr_expect(p, JLEX_LBRACKET));
    struct jnode_list parts = { 0 };
    do {
        if (parts.n > 0) {
            TRY(jexpr_expect(p, JLEX_COMMA));
        }
        struct jnode *part = NULL;
        TRY(subscript_part(p, of, &part));
        if (part->type == JNODE_SLICE && part->a == of) {
            *out = part;
            return parts.n == 0 ? jexpr_expect(p, JLEX_RBRACKET) : jexpr_unexpected(p, "an index");
        }
        jexpr_add(&parts, part);
    } while (p->cur.type != JLEX_RBRACKET);
    TRY(jexpr_advance(p));
    n->b = parts.first;
    if (parts.n > 1) {
        struct jnode *t = jexpr_node(p, JNODE_TUPLE);
        if (t == NULL) {
            return p->m->err;
        }
        t->kids = parts.first;
        t->n_kids = parts.n;
        TRY(jexpr_done(p, t, &n->b));
    }
    return jexpr_done(p, n, out);
}

static enum err postfix(struct jparser *p, struct jnode *n, struct jnode **out)
{
    for (;;) {
        if (p->cur.type == JLEX_DOT || p->cur.type == JLEX_LBRACKET) {
            TRY(subscript(p, n, &n));
        } else if (p->cur.type == JLEX_LPAREN) {
            TRY(call(p, n, &n));
        } else {
            *out = n;
            return ERR_OK;
        }
    }
}

/* The name of a filter or test; dots are part of it. */
static enum err dotted_name(struct jparser *p, const struct jstr **out)
{
    const struct jstr *name = p->cur.text;
    TRY(jexpr_expect(p, JLEX_NAME));
    while (p->cur.type == JLEX_DOT) {
        TRY(jexpr_advance(p));
        struct jstr_out o;
        jstr_begin(&o, p->m);
        jstr_add(&o, name);
        jstr_add_str(&o, ".", true);
        if (p->cur.text != NULL) {
            jstr_add(&o, p->cur.text);
        }
        TRY(jexpr_expect(p, JLEX_NAME));
        name = jstr_end(&o, false);
        if (name == NULL) {
            return p->m->err;
        }
    }
    *out = name;
    return ERR_OK;
}

/* "| name(args)" as often as it comes; is_inline: the first one lacks the bar. */
enum err jexpr_filters(struct jparser *p, struct jnode *of, bool is_inline, struct jnode **out)
{
    while (p->cur.type == JLEX_PIPE || is_inline) {
        if (!is_inline) {
            TRY(jexpr_advance(p));
        }
        is_inline = false;
        struct jnode *n = jexpr_node(p, JNODE_FILTER);
        if (n == NULL) {
            return p->m->err;
        }
        n->a = of;
        TRY(dotted_name(p, &n->text));
        if (p->cur.type == JLEX_LPAREN) {
            TRY(arguments(p, n));
        }
        TRY(jexpr_done(p, n, &of));
    }
    *out = of;
    return ERR_OK;
}

static bool starts_argument(const struct jparser *p)
{
    switch (p->cur.type) {
    case JLEX_STRING:
    case JLEX_INT:
    case JLEX_FLOAT:
    case JLEX_LBRACKET:
    case JLEX_LBRACE:
        return true;
    case JLEX_NAME:
        return !jexpr_at_name(p, "else") && !jexpr_at_name(p, "or") && !jexpr_at_name(p, "and");
    default:
        return false;
    }
}

static enum err test(struct jparser *p, struct jnode *of, struct jnode **out)
{
    TRY(jexpr_advance(p));
    const bool is_not = jexpr_at_name(p, "not");
    if (is_not) {
        TRY(jexpr_advance(p));
    }
    struct jnode *n = jexpr_node(p, JNODE_TEST);
    if (n == NULL) {
        return p->m->err;
    }
    n->a = of;
    TRY(dotted_name(p, &n->text));
    if (p->cur.type == JLEX_LPAREN) {
        TRY(arguments(p, n));
    } else if (starts_argument(p)) {
        if (jexpr_at_name(p, "is")) {
            return BAD(p, "line %u: two tests with 'is' in a row", p->cur.line);
        }
        TRY(primary(p, false, &n->kids));
        TRY(postfix(p, n->kids, &n->kids));
        n->n_kids = 1;
    }
    TRY(jexpr_done(p, n, &n));
    return is_not ? jexpr_wrap(p, JNODE_NOT, n, out) : (*out = n, ERR_OK);
}

static enum err filters_and_tests(struct jparser *p, struct jnode *n, struct jnode **out)
{
    for (;;) {
        if (p->cur.type == JLEX_PIPE) {
            TRY(jexpr_filters(p, n, false, &n));
        } else if (jexpr_at_name(p, "is")) {
            TRY(test(p, n, &n));
        } else if (p->cur.type == JLEX_LPAREN) {
            TRY(call(p, n, &n));
        } else {
            *out = n;
            return ERR_OK;
        }
    }
}

/* --- levels of precedence --------------------------------------------------------------------- */

static enum err unary(struct jparser *p, bool with_filter, struct jnode **out)
{
    struct jnode *n = NULL;
    TRY(jexpr_enter(p));
    if (p->cur.type == JLEX_SUB || p->cur.type == JLEX_ADD) {
        const enum jnode_type type = p->cur.type == JLEX_SUB ? JNODE_NEG : JNODE_POS;
        TRY(jexpr_advance(p));
        TRY(unary(p, false, &n));
        TRY(jexpr_wrap(p, type, n, &n));
    } else {
        TRY(primary(p, false, &n));
    }
    TRY(postfix(p, n, &n));
    if (with_filter) {
        TRY(filters_and_tests(p, n, &n));
    }
    jexpr_leave(p);
    *out = n;
    return ERR_OK;
}

static enum err operation(struct jparser *p, struct jnode *a, enum jlex_type op, struct jnode *b,
                          struct jnode **out)
{
    TRY(binary_node(p, JNODE_BINARY, a, b, out));
    (*out)->op = (uint8_t)op;
    return ERR_OK;
}

static enum err power(struct jparser *p, struct jnode **out)
{
    struct jnode *a = NULL;
    TRY(unary(p, true, &a));
    while (p->cur.type == JLEX_POW) {
        struct jnode *b = NULL;
        TRY(jexpr_advance(p));
        TRY(unary(p, true, &b));
        TRY(operation(p, a, JLEX_POW, b, &a));
    }
    *out = a;
    return ERR_OK;
}

static enum err product(struct jparser *p, struct jnode **out)
{
    struct jnode *a = NULL;
    TRY(power(p, &a));
    for (;;) {
        const enum jlex_type op = p->cur.type;
        if (op != JLEX_MUL && op != JLEX_DIV && op != JLEX_FLOORDIV && op != JLEX_MOD) {
            *out = a;
            return ERR_OK;
        }
        struct jnode *b = NULL;
        TRY(jexpr_advance(p));
        TRY(power(p, &b));
        TRY(operation(p, a, op, b, &a));
    }
}

static enum err concat(struct jparser *p, struct jnode **out)
{
    struct jnode *a = NULL;
    TRY(product(p, &a));
    if (p->cur.type != JLEX_TILDE) {
        *out = a;
        return ERR_OK;
    }
    struct jnode *n = jexpr_node(p, JNODE_CONCAT);
    if (n == NULL) {
        return p->m->err;
    }
    struct jnode_list items = { 0 };
    jexpr_add(&items, a);
    while (p->cur.type == JLEX_TILDE) {
        TRY(jexpr_advance(p));
        TRY(product(p, &a));
        jexpr_add(&items, a);
    }
    n->kids = items.first;
    n->n_kids = items.n;
    return jexpr_done(p, n, out);
}

static enum err sum(struct jparser *p, struct jnode **out)
{
    struct jnode *a = NULL;
    TRY(concat(p, &a));
    while (p->cur.type == JLEX_ADD || p->cur.type == JLEX_SUB) {
        const enum jlex_type op = p->cur.type;
        struct jnode *b = NULL;
        TRY(jexpr_advance(p));
        TRY(concat(p, &b));
        TRY(operation(p, a, op, b, &a));
    }
    *out = a;
    return ERR_OK;
}

/* The comparison at the current token (JLEX_NAME: in, JLEX_TILDE: not in), passed; JLEX_EOF: none.
 */
static enum err comparison(struct jparser *p, enum jlex_type *op)
{
    *op = JLEX_EOF;
    if (p->cur.type >= JLEX_EQ && p->cur.type <= JLEX_LE) {
        *op = p->cur.type;
        return jexpr_advance(p);
    }
    if (jexpr_at_name(p, "in")) {
        *op = JLEX_NAME;
        return jexpr_advance(p);
    }
    if (jexpr_at_name(p, "not")) {
        TRY(look(p));
        if (token_is(&p->ahead, "in")) {
            *op = JLEX_TILDE;
            TRY(jexpr_advance(p));
            return jexpr_advance(p);
        }
    }
    return ERR_OK;
}

static enum err compare(struct jparser *p, struct jnode **out)
{
    struct jnode *a = NULL;
    struct jnode_list items = { 0 };
    TRY(sum(p, &a));
    for (;;) {
        enum jlex_type op = JLEX_EOF;
        TRY(comparison(p, &op));
        if (op == JLEX_EOF) {
            break;
        }
        struct jnode *b = NULL;
        TRY(sum(p, &b));
        TRY(jexpr_wrap(p, JNODE_OPERAND, b, &b));
        b->op = (uint8_t)op;
        jexpr_add(&items, b);
    }
    if (items.n == 0) {
        *out = a;
        return ERR_OK;
    }
    struct jnode *n = jexpr_node(p, JNODE_COMPARE);
    if (n == NULL) {
        return p->m->err;
    }
    n->a = a;
    n->kids = items.first;
    n->n_kids = items.n;
    return jexpr_done(p, n, out);
}

static enum err not_level(struct jparser *p, struct jnode **out)
{
    if (!jexpr_at_name(p, "not")) {
        return compare(p, out);
    }
    TRY(jexpr_advance(p));
    TRY(jexpr_enter(p));
    struct jnode *a = NULL;
    TRY(not_level(p, &a));
    jexpr_leave(p);
    return jexpr_wrap(p, JNODE_NOT, a, out);
}

static enum err and_level(struct jparser *p, struct jnode **out)
{
    struct jnode *a = NULL;
    TRY(not_level(p, &a));
    while (jexpr_at_name(p, "and")) {
        struct jnode *b = NULL;
        TRY(jexpr_advance(p));
        TRY(not_level(p, &b));
        TRY(binary_node(p, JNODE_AND, a, b, &a));
    }
    *out = a;
    return ERR_OK;
}

static enum err or_level(struct jparser *p, struct jnode **out)
{
    struct jnode *a = NULL;
    TRY(and_level(p, &a));
    while (jexpr_at_name(p, "or")) {
        struct jnode *b = NULL;
        TRY(jexpr_advance(p));
        TRY(and_level(p, &b));
        TRY(binary_node(p, JNODE_OR, a, b, &a));
    }
    *out = a;
    return ERR_OK;
}

enum err jexpr_parse(struct jparser *p, struct jnode **out)
{
    struct jnode *a = NULL;
    TRY(jexpr_enter(p));
    TRY(or_level(p, &a));
    while (jexpr_at_name(p, "if")) {
        struct jnode *cond = NULL;
        TRY(jexpr_advance(p));
        TRY(or_level(p, &cond));
        struct jnode *n = NULL;
        TRY(binary_node(p, JNODE_COND, a, cond, &n));
        if (jexpr_at_name(p, "else")) {
            TRY(jexpr_advance(p));
            TRY(jexpr_parse(p, &n->c));
        }
        TRY(jexpr_done(p, n, &a));
    }
    jexpr_leave(p);
    *out = a;
    return ERR_OK;
}
