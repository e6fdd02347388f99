/* fuzz_js - arbitrary bytes as JSON: read, written, read again
 *
 * What reads must be written as text that reads to the same tree, member for member and bit for
 * bit, and that text must be written as itself: then numbers took their shortest form and strings
 * their one form. Each key finds its member, since keys that occur twice are refused. */
#include "base/js.h"
#include "fuzz.h"

#include <string.h>

#define DEPTH_MAX 64
#define TEXT_MAX  ((size_t)1 << 20)

static void demand_same(const struct js *a, const struct js *b);

static void demand_same_members(const struct js *a, const struct js *b)
{
    struct js_iter i = { 0 };
    struct js_iter k = { 0 };
    size_t n = 0;
    for (; js_next(a, &i); n++) {
        demand(js_next(b, &k) && view_eq(i.key, k.key), "a key comes back, in its place");
        demand(js_get(a, i.key.p) == i.value, "a key finds its member");
        demand_same(i.value, k.value);
    }
    demand(n == js_count(a) && !js_next(b, &k), "as many members");
}

/* Recursion is bounded by DEPTH_MAX. */
static void demand_same(const struct js *a, const struct js *b)
{
    const double x = js_real(a);
    const double y = js_real(b);
    demand(js_type(a) == js_type(b) && js_count(a) == js_count(b), "the type comes back");
    demand(js_int(a) == js_int(b) && memcmp(&x, &y, sizeof x) == 0, "a number comes back");
    demand(js_bool(a) == js_bool(b), "a truth value comes back");
    demand(utf8_valid(js_string(a)) && view_eq(js_string(a), js_string(b)), "a text comes back");
    for (size_t i = 0; js_type(a) == JS_ARRAY && i < js_count(a); i++) {
        demand_same(js_at(a, i), js_at(b, i));
    }
    if (js_type(a) == JS_OBJECT) {
        demand_same_members(a, b);
    }
}

/* A text written in ASCII alone reads to itself. */
static void check_ascii(const struct js *v)
{
    struct js *back = NULL;
    struct buf out;
    buf_init(&out, 6 * TEXT_MAX + 2);
    js_put_string(&out, js_string(v), true);
    for (size_t i = 0; i < out.n; i++) {
        demand((signed char)out.p[i] >= 0x20, "only ASCII");
    }
    demand(js_parse(buf_view(&out), 0, &back) == ERR_OK, "a text in ASCII reads");
    demand(view_eq(js_string(back), js_string(v)), "a text in ASCII comes back");
    js_close(back);
    buf_release(&out);
}

static void check_tree(const struct js *root)
{
    struct js *back = NULL;
    struct buf out;
    struct buf again;
    buf_init(&out, 8 * TEXT_MAX); /* the longest growth: "\u007f" for one byte, 1e300 for 1e0300 */
    buf_init(&again, 8 * TEXT_MAX);
    js_put_value(&out, root);
    demand(!out.is_full, "what is written stays in proportion");
    demand(js_parse(buf_view(&out), DEPTH_MAX, &back) == ERR_OK, "what was written reads");
    demand_same(root, back);
    js_put_value(&again, back);
    demand(view_eq(buf_view(&out), buf_view(&again)), "one form of writing");
    js_close(back);
    if (js_type(root) == JS_STRING) {
        check_ascii(root);
    }
    buf_release(&out);
    buf_release(&again);
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t n)
{
    const struct fuzz_run run = fuzz_begin();
    const struct view text = { (const char *)bytes, n };
    struct js *root = NULL;
    if (n > TEXT_MAX) {
        return 0;
    }
    const enum err e = js_parse(text, DEPTH_MAX, &root);
    if (e == ERR_OK) {
        check_tree(root);
    } else {
        demand_error(e);
        demand(root == NULL, "no tree after a failure");
    }
    js_close(root);
    fuzz_end(run);
    return 0;
}
