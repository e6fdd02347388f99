/* jinja_lex - template text to tokens (model/jinja_lex.c)
 *
 * One token at a time; white space control (-, +, trim_blocks, lstrip_blocks), comments and raw
 * blocks are done here, so that the parser sees data, begin and end marks, and words.
 * JL-1  a token's text is part of the source or lives in the same jmem. */
#ifndef HEARTH_JINJA_LEX_H
#define HEARTH_JINJA_LEX_H

#include "base/buf.h"
#include "base/err.h"
#include "model/jinja_mem.h"
#include "model/jinja_str.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum jlex_type {
    JLEX_EOF,
    JLEX_DATA,        /* text */
    JLEX_BLOCK_BEGIN, /* {% */
    JLEX_BLOCK_END,
    JLEX_VAR_BEGIN, /* {{ */
    JLEX_VAR_END,
    JLEX_NAME,   /* text */
    JLEX_STRING, /* text, escapes resolved */
    JLEX_INT,    /* i */
    JLEX_FLOAT,  /* f */
    JLEX_ADD,
    JLEX_SUB,
    JLEX_DIV,
    JLEX_FLOORDIV,
    JLEX_MUL,
    JLEX_MOD,
    JLEX_POW,
    JLEX_TILDE,
    JLEX_LBRACKET,
    JLEX_RBRACKET,
    JLEX_LPAREN,
    JLEX_RPAREN,
    JLEX_LBRACE,
    JLEX_RBRACE,
    JLEX_EQ,
    JLEX_NE,
    JLEX_GT,
    JLEX_GE,
    JLEX_LT,
    JLEX_LE,
    JLEX_ASSIGN,
    JLEX_DOT,
    JLEX_COLON,
    JLEX_PIPE,
    JLEX_COMMA,
    JLEX_SEMICOLON,
};

struct jlex_token {
    enum jlex_type type;
    uint32_t line;           /* from 1 */
    const struct jstr *text; /* of data, names and strings, else NULL */
    int64_t i;
    double f;
};

#define JLEX_NEST_MAX 256 /* open brackets in one tag */

struct jlex {
    struct jmem *m;
    struct view src; /* line ends are \n */
    size_t at;
    uint32_t line;
    enum jlex_type tag; /* the tag we are in: JLEX_BLOCK_BEGIN, JLEX_VAR_BEGIN, or JLEX_EOF: none */
    enum jlex_type next; /* a begin mark to hand out before anything else, or JLEX_EOF */
    bool is_line_start;  /* the last thing taken ended in \n (lstrip_blocks asks) */
    int n_open;          /* brackets open in this tag */
    char open[JLEX_NEST_MAX];
};

/* Copies `source` into m with line ends made \n, the last one dropped, ill-formed bytes replaced.
 */
enum err jlex_init(struct jlex *lx, struct jmem *m, struct view source) MUST_USE;
/* JLEX_EOF again and again at the end. Errors: ERR_INTEGRITY, naming the line. */
enum err jlex_next(struct jlex *lx, struct jlex_token *out) MUST_USE;
/* What a token is called in messages. */
const char *jlex_name(enum jlex_type type);

#endif
