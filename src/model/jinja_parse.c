/* jinja_parse - the tags of a template: if, for, set, macro ...
 *
 * A template is a list of texts, expressions to print and statements. A statement begins with a tag
 * whose first word says which it is; most have a body that ends with a tag of its own ("endfor"),
 * and `if` and `for` can have parts in between. One function per tag, found by name in a table.
 *
 * While a body is parsed, a set of flags collects whether it mentions loop, caller, varargs or
 * kwargs: only then do these parameters exist, which matters because an outer one of the same name
 * would otherwise be visible.
 *
 * Tags that load other templates (extends, block, include, import, from) and autoescape are refused
 * by name: a model file holds one template, and prompts are not HTML. Of the extensions there are
 * those that transformers switches on: break, continue and generation.
 *
 * The grammar is that of Jinja2 3.1.6. Rejected: a general table of tag shapes; the tags differ in
 * more ways than they are many.
 *
 * Next: jinja_scope.c, which finds out what each name means. */
#include "model/jinja_parse.h"

#define BAD(p, ...) JMEM_FAIL((p)->m, ERR_INTEGRITY, __VA_ARGS__)

static enum err body(struct jparser *p, const char *const ends[], struct jnode **out);

/* --- statements ------------------------------------------------------------------------------- */

static enum err check_target(struct jparser *p, const struct jnode *n)
{
    if (n->type == JNODE_TUPLE) {
        for (const struct jnode *kid = n->kids; kid != NULL; kid = kid->next) {
            TRY(check_target(p, kid));
        }
        return ERR_OK;
    }
    if (n->type != JNODE_NAME && n->type != JNODE_NSREF) {
        return BAD(p, "line %u: can only assign to names", n->line);
    }
    return ERR_OK;
}

static enum err target(struct jparser *p, enum jexpr_tuple kind, const char *end,
                       struct jnode **out)
{
    TRY(jexpr_tuple(p, kind, end, out));
    return check_target(p, *out);
}

/* End of the tag, then the body up to one of `ends`, whose name is the current token then. */
static enum err tag_body(struct jparser *p, const char *const ends[], struct jnode **out)
{
    if (p->cur.type == JLEX_COLON) {
        TRY(jexpr_advance(p));
    }
    TRY(jexpr_expect(p, JLEX_BLOCK_END));
    return body(p, ends, out);
}

/* A body that ends in one way only; past the end's name. */
static enum err only_body(struct jparser *p, const char *end, struct jnode **out)
{
    const char *const ends[] = { end, NULL };
    TRY(tag_body(p, ends, out));
    return jexpr_advance(p);
}

/* {% set a = x %}, or {% set a | filter %} body {% endset %}. */
static enum err set_tag(struct jparser *p, struct jnode *n, struct jnode **out)
{
    TRY(target(p, JEXPR_NS_TARGET, NULL, &n->a));
    if (p->cur.type == JLEX_ASSIGN) {
        TRY(jexpr_advance(p));
        n->type = JNODE_SET;
        TRY(jexpr_tuple(p, JEXPR_FULL, NULL, &n->b));
        return jexpr_done(p, n, out);
    }
    n->type = JNODE_SETBLOCK;
    TRY(jexpr_filters(p, NULL, false, &n->b));
    TRY(only_body(p, "endset", &n->kids));
    return jexpr_done(p, n, out);
}

static enum err if_tag(struct jparser *p, struct jnode *n, struct jnode **out)
{
    static const char *const ends[] = { "elif", "else", "endif", NULL };
    struct jnode_list branches = { 0 };
    n->type = JNODE_IF;
    for (;;) {
        struct jnode *b = jexpr_node(p, JNODE_BRANCH);
        if (b == NULL) {
            return p->m->err;
        }
        TRY(jexpr_tuple(p, JEXPR_NO_IF, NULL, &b->a));
        TRY(tag_body(p, ends, &b->kids));
        TRY(jexpr_done(p, b, &b));
        jexpr_add(&branches, b);
        const bool is_elif = jexpr_at_name(p, "elif");
        const bool is_else = jexpr_at_name(p, "else");
        TRY(jexpr_advance(p));
        if (is_elif) {
            continue;
        }
        if (is_else) {
            b = jexpr_node(p, JNODE_BRANCH);
            if (b == NULL) {
                return p->m->err;
            }
            TRY(only_body(p, "endif", &b->kids));
            TRY(jexpr_done(p, b, &b));
            jexpr_add(&branches, b);
        }
        n->kids = branches.first;
        return jexpr_done(p, n, out);
    }
}

/* {% for targets in x if condition recursive %}. x is read without "a if b else c", whose `if`
 * would take the condition. */
static enum err for_tag(struct jparser *p, struct jnode *n, struct jnode **out)
{
    static const char *const ends[] = { "endfor", "else", NULL };
    n->type = JNODE_FOR;
    TRY(target(p, JEXPR_TARGET, "in", &n->a));
    if (!jexpr_at_name(p, "in")) {
        return jexpr_unexpected(p, "in");
    }
    TRY(jexpr_advance(p));
    TRY(jexpr_tuple(p, JEXPR_NO_IF, "recursive", &n->b));
    if (jexpr_at_name(p, "if")) {
        TRY(jexpr_advance(p));
        TRY(jexpr_parse(p, &n->c));
    }
    if (jexpr_at_name(p, "recursive")) {
        TRY(jexpr_advance(p));
        n->flags |= JNODE_RECURSIVE;
    }
    const uint8_t uses = p->uses;
    p->uses = 0;
    p->n_loop++;
    TRY(tag_body(p, ends, &n->kids));
    p->n_loop--;
    n->flags |= p->uses & JNODE_USES_LOOP;
    p->uses |= uses; /* a macro around also counts what is mentioned in here */
    const bool is_else = jexpr_at_name(p, "else");
    TRY(jexpr_advance(p));
    if (is_else) {
        TRY(only_body(p, "endfor", &n->more));
    }
    return jexpr_done(p, n, out);
}

/* "(" name, name=default ... ")" */
static enum err parameters(struct jparser *p, struct jnode **out)
{
    struct jnode_list params = { 0 };
    bool has_default = false;
    TRY(jexpr_expect(p, JLEX_LPAREN));
    while (p->cur.type != JLEX_RPAREN) {
        if (params.n > 0) {
            TRY(jexpr_expect(p, JLEX_COMMA));
        }
        if (p->cur.type != JLEX_NAME) {
            return jexpr_unexpected(p, "a name");
        }
        struct jnode *param = NULL;
        TRY(jexpr_name(p, p->cur.text, &param));
        param->type = JNODE_PARAM;
        TRY(jexpr_advance(p));
        if (p->cur.type == JLEX_ASSIGN) {
            TRY(jexpr_advance(p));
            TRY(jexpr_parse(p, &param->a));
            has_default = true;
        } else if (has_default) {
            return BAD(p, "line %u: a parameter without default behind one with", p->cur.line);
        }
        TRY(jexpr_done(p, param, &param));
        jexpr_add(&params, param);
    }
    *out = params.first;
    return jexpr_advance(p);
}

/* The body of a macro or call block, which starts a new function. */
static enum err macro_body(struct jparser *p, struct jnode *n, const char *end)
{
    const uint8_t uses = p->uses;
    const int n_loop = p->n_loop;
    p->uses = 0;
    p->n_loop = 0;
    TRY(only_body(p, end, &n->kids));
    n->flags |= p->uses & (JNODE_USES_CALLER | JNODE_USES_VARARGS | JNODE_USES_KWARGS);
    p->uses |= uses;
    p->n_loop = n_loop;
    return ERR_OK;
}

static enum err macro_tag(struct jparser *p, struct jnode *n, struct jnode **out)
{
    n->type = JNODE_MACRO;
    n->text = p->cur.text;
    if (p->cur.type != JLEX_NAME) {
        return jexpr_unexpected(p, "a name");
    }
    TRY(jexpr_name(p, p->cur.text, &n->a));
    TRY(jexpr_advance(p));
    TRY(parameters(p, &n->more));
    TRY(macro_body(p, n, "endmacro"));
    return jexpr_done(p, n, out);
}

static enum err call_tag(struct jparser *p, struct jnode *n, struct jnode **out)
{
    n->type = JNODE_CALLBLOCK;
    if (p->cur.type == JLEX_LPAREN) {
        TRY(parameters(p, &n->more));
    }
    TRY(jexpr_parse(p, &n->a));
    if (n->a->type != JNODE_CALL) {
        return BAD(p, "line %u: the call tag wants a call", n->line);
    }
    TRY(macro_body(p, n, "endcall"));
    return jexpr_done(p, n, out);
}

static enum err filter_tag(struct jparser *p, struct jnode *n, struct jnode **out)
{
    n->type = JNODE_FILTERBLOCK;
    TRY(jexpr_filters(p, NULL, true, &n->a));
    TRY(only_body(p, "endfilter", &n->kids));
    return jexpr_done(p, n, out);
}

/* {% with a = x, b = y %}: the values see the scope around, only the body sees the names. */
static enum err with_tag(struct jparser *p, struct jnode *n, struct jnode **out)
{
    struct jnode_list sets = { 0 };
    n->type = JNODE_WITH;
    while (p->cur.type != JLEX_BLOCK_END) {
        if (sets.n > 0) {
            TRY(jexpr_expect(p, JLEX_COMMA));
        }
        struct jnode *set = jexpr_node(p, JNODE_SET);
        if (set == NULL) {
            return p->m->err;
        }
        TRY(target(p, JEXPR_TARGET, NULL, &set->a));
        TRY(jexpr_expect(p, JLEX_ASSIGN));
        TRY(jexpr_parse(p, &set->b));
        TRY(jexpr_done(p, set, &set));
        jexpr_add(&sets, set);
    }
    n->more = sets.first;
    TRY(only_body(p, "endwith", &n->kids));
    return jexpr_done(p, n, out);
}

/* Marks what the model wrote, for training; here its body only runs. It is a function as a macro's
 * body is, so that no break leaves it, but has no parameters. */
static enum err generation_tag(struct jparser *p, struct jnode *n, struct jnode **out)
{
    n->type = JNODE_GENERATION;
    TRY(macro_body(p, n, "endgeneration"));
    n->flags = 0;
    return jexpr_done(p, n, out);
}

static enum err print_tag(struct jparser *p, struct jnode *n, struct jnode **out)
{
    struct jnode_list items = { 0 };
    n->type = JNODE_IF; /* a list of outputs without a condition */
    struct jnode *branch = jexpr_node(p, JNODE_BRANCH);
    while (branch != NULL && p->cur.type != JLEX_BLOCK_END) {
        if (items.n > 0) {
            TRY(jexpr_expect(p, JLEX_COMMA));
        }
        struct jnode *item = NULL;
        TRY(jexpr_parse(p, &item));
        TRY(jexpr_wrap(p, JNODE_OUTPUT, item, &item));
        jexpr_add(&items, item);
    }
    if (branch == NULL) {
        return p->m->err;
    }
    branch->kids = items.first;
    TRY(jexpr_done(p, branch, &n->kids));
    return jexpr_done(p, n, out);
}

static enum err loop_tag(struct jparser *p, struct jnode *n, struct jnode **out)
{
    if (p->n_loop == 0) {
        return BAD(p, "line %u: break or continue outside of a for loop", n->line);
    }
    return jexpr_done(p, n, out);
}

static enum err break_tag(struct jparser *p, struct jnode *n, struct jnode **out)
{
    n->type = JNODE_BREAK;
    return loop_tag(p, n, out);
}

static enum err continue_tag(struct jparser *p, struct jnode *n, struct jnode **out)
{
    n->type = JNODE_CONTINUE;
    return loop_tag(p, n, out);
}

typedef enum err (*tag_fn)(struct jparser *p, struct jnode *n, struct jnode **out);

static enum err statement(struct jparser *p, struct jnode **out)
{
    static const struct {
        const char *name;
        tag_fn fn;
    } tags[] = {
        { "if", if_tag },       { "for", for_tag },           { "set", set_tag },
        { "macro", macro_tag }, { "call", call_tag },         { "filter", filter_tag },
        { "with", with_tag },   { "print", print_tag },       { "generation", generation_tag },
        { "break", break_tag }, { "continue", continue_tag }, { "extends", NULL },
        { "block", NULL },      { "include", NULL },          { "import", NULL },
        { "from", NULL },       { "autoescape", NULL },
    };
    if (p->cur.type != JLEX_NAME) {
        return jexpr_unexpected(p, "the name of a tag");
    }
    for (size_t i = 0; i < sizeof(tags) / sizeof(tags[0]); i++) {
        if (!jexpr_at_name(p, tags[i].name)) {
            continue;
        }
        if (tags[i].fn == NULL) {
            return JMEM_FAIL(p->m, ERR_UNSUPPORTED, "line %u: the tag '%s' is not supported",
                             p->cur.line, tags[i].name);
        }
        struct jnode *n = jexpr_node(p, JNODE_IF); /* the tag's function sets the type */
        if (n == NULL) {
            return p->m->err;
        }
        TRY(jexpr_advance(p));
        TRY(jexpr_enter(p));
        TRY(tags[i].fn(p, n, out));
        jexpr_leave(p);
        return ERR_OK;
    }
    const struct view v = jexpr_shown(p);
    return BAD(p, "line %u: unknown or misplaced tag '%.*s'", p->cur.line,
               (int)(v.n < 60 ? v.n : 60), v.p);
}

static bool is_end(const struct jparser *p, const char *const ends[])
{
    for (size_t i = 0; ends != NULL && ends[i] != NULL; i++) {
        if (jexpr_at_name(p, ends[i])) {
            return true;
        }
    }
    return false;
}

static enum err body(struct jparser *p, const char *const ends[], struct jnode **out)
{
    struct jnode_list items = { 0 };
    const uint32_t line = p->cur.line;
    while (p->cur.type != JLEX_EOF) {
        struct jnode *n = NULL;
        if (p->cur.type == JLEX_DATA) {
            n = jexpr_node(p, JNODE_DATA);
            if (n == NULL) {
                return p->m->err;
            }
            n->text = p->cur.text;
            TRY(jexpr_advance(p));
        } else if (p->cur.type == JLEX_VAR_BEGIN) {
            TRY(jexpr_advance(p));
            TRY(jexpr_tuple(p, JEXPR_FULL, NULL, &n));
            TRY(jexpr_wrap(p, JNODE_OUTPUT, n, &n));
            TRY(jexpr_expect(p, JLEX_VAR_END));
        } else {
            TRY(jexpr_expect(p, JLEX_BLOCK_BEGIN));
            if (is_end(p, ends)) {
                *out = items.first;
                return ERR_OK;
            }
            TRY(statement(p, &n));
            TRY(jexpr_expect(p, JLEX_BLOCK_END));
        }
        jexpr_add(&items, n);
    }
    if (ends != NULL) {
        return BAD(p, "line %u: the template ends, but '%s' is still to come", line, ends[0]);
    }
    *out = items.first;
    return ERR_OK;
}

enum err jparse(struct jparse_tree *out, struct jmem *m, struct view source)
{
    struct jparser p = { .m = m };
    TRY(jlex_init(&p.lx, m, source));
    TRY(jexpr_advance(&p));
    struct jnode *top = NULL;
    TRY(body(&p, NULL, &top));
    *out = (struct jparse_tree){ .body = top, .n_sym = p.n_sym, .sym = p.sym };
    return ERR_OK;
}
