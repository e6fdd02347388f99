#!/usr/bin/env python3
"""peer_chat.py --probe CMD [-n N] [--seed S] : N random templates through PROBE render and through Jinja2, texts compared.

The generator knows the grammar, the names of filters, tests and methods, and white space control. Only templates that Jinja2
renders are judged; those it refuses are counted, and named when the probe renders them all the same. Left out are results that
show addresses of Python's objects, complex numbers, and slices of constants that have none (Jinja2's optimizer swallows that error).
The last line reads 'N passed, N failed'."""
import argparse
import json
import random
import shlex
import subprocess
import sys

from chat_common import CASE, expected

NAMES = ['s', 'xs', 'd', 'f', 'n', 'e', 'messages', 'x', 'y', 'missing', 'ns', 'bos_token', 'm', 'i']
TEXTS = ["'abc'", "''", "'a,b'", "'üñ'", "' x '", "'Ab c'", "'1'", "'3.5'", "'%s'", "'a\\nb\\n'", "'<&>'", '"it\'s"', "'role'", "'content'", "'{}'", "'😀a'", "'ab ab'"]
FILTERS = '''upper lower title capitalize trim length first last list string int float abs round sort unique|list reverse join join(",") sum min max
default("z") d("z",true) replace("a","b") indent(2) indent(2,true) tojson tojson(indent=2) tojson(ensure_ascii=true) tojson(sort_keys=true) e safe
wordcount items|list dictsort map("upper")|list map("string")|list map(attribute="role")|list select|list reject|list select("string")|list
select("odd")|list selectattr("role")|list selectattr("role","equalto","user")|list rejectattr("role","defined")|list batch(2)|list slice(2)|list
truncate(5) truncate(5,true,"") center(9) urlencode striptags attr("x") groupby("role") count sort(reverse=true) sort(attribute="role")|list
round(1) int(3) float(1.5) format(1) format("a","b") list|length string|length safe|upper e|e map("length")|list map("first")|list filesizeformat
xmlattr forceescape reverse|list map("int")|sum sum(start=5) join("-",attribute="role") list|first string|list|last'''.split()
TESTS = ['defined', 'undefined', 'none', 'string', 'number', 'integer', 'float', 'boolean', 'mapping', 'sequence', 'iterable', 'true', 'false', 'odd', 'even', 'callable',
         'upper', 'lower', 'divisibleby 2', 'eq 1', 'ne 1', 'in [1,"a"]', 'sameas none', 'escaped', 'gt 1', 'in "abc"', 'lt 2.5']
METHODS = ['upper()', 'lower()', 'strip()', 'split()', 'split(",")', 'split(" ",1)', 'rsplit(" ",1)', 'replace("a","X")', 'startswith("a")', 'endswith("c")', 'find("b")',
           'count("a")', 'title()', 'capitalize()', 'swapcase()', 'lstrip("a ")', 'rstrip("c\\n")', 'splitlines()', 'join(["p","q"])', 'format(1,2)', 'get("b")',
           'get("zz","q")', 'keys()|list', 'items()|list', 'values()|list', 'isdigit()', 'zfill(5)', 'center(7,"*")', 'partition("b")', 'index("a")', 'content', 'role', 'b',
           'a', 'isalpha()', 'removeprefix("a")', 'copy()', 'ljust(5)', 'x.y', 'casefold()', 'istitle()', 'expandtabs()', 'rfind("b")', 'startswith(("a","b"))']
OPERATORS = ['+', '-', '*', '/', '//', '%', '**', '~', '==', '!=', '<', '>', '<=', '>=', 'in', 'not in', 'and', 'or']


class Writer:
    def __init__(self, seed):
        self.r = random.Random(seed)

    def one(self, *choices):
        c = self.r.choice(choices)
        return c() if callable(c) else c

    def leaf(self):
        return self.one(lambda: self.r.choice(TEXTS), lambda: str(self.r.randint(-3, 12)), lambda: self.one('1.5', '0.0', '2.0', '1e3', '-0.5', '2.675'),
                        lambda: self.one('true', 'false', 'none'), lambda: self.r.choice(NAMES), lambda: self.r.choice(NAMES))

    def expr(self, d):
        k = self.r.randint(0, 15) if d > 0 else 0
        a = lambda: self.expr(d - 1)  # noqa: E731
        if k < 3:
            return self.leaf()
        if k < 5:
            return f'({a()} {self.r.choice(OPERATORS)} {a()})'
        if k == 5:
            return f'{a()} {self.r.choice(OPERATORS)} {a()}'
        if k < 9:
            return f'({a()})|{self.r.choice(FILTERS)}'
        if k == 9:
            return f'({a()} is {self.one("", "not ")}{self.r.choice(TESTS)})'
        if k < 12:
            return f'({a()}).{self.r.choice(METHODS)}'
        if k == 12:
            return f'({a()})[{self.one(self.leaf, "1:", "-2:2", ":-1", "::2", "::-1", "::-2", "0", chr(39) + "role" + chr(39))}]'
        if k == 13:
            return self.one(lambda: f'[{a()}, {a()}]', lambda: f'({a()}, {a()})', lambda: '{' + f'{self.leaf()}: {a()}' + '}', lambda: "{'a': " + a() + ", 'b': " + a() + '}',
                            lambda: f'range({self.r.randint(0, 5)})', lambda: f'dict(a={a()})')
        if k == 14:
            return f'({a()} if {a()} else {a()})'
        return self.one('-', 'not ', '+') + self.leaf()

    def gap(self):
        return self.one('', '', '', ' ', '\n', '\n  ', '  ', '\n\n', 'x', '\t')

    def tag(self, text):
        return '{%' + self.one('', '', '', '-', '+') + f' {text} ' + self.one('', '', '', '-', '+') + '%}'

    def body(self, d):
        return ''.join(self.statement(d) for _ in range(self.r.randint(1, 2)))

    def loop(self, d):
        source = self.one('xs', 'messages', 'range(3)', 'd.items()', '[1,2,3]', lambda: f'({self.expr(1)})', "'ab'")
        inner = self.one('', '', '{{ loop.index }}{{ loop.last }}', '{{ loop.length }}{{ loop.previtem }}', '{% if x == 2 %}{% break %}{% endif %}', '{% if i %}{% continue %}{% endif %}')
        return (self.tag(f'for {self.one("x", "i", "m", "x, y")} in {source}{self.one("", "", "", lambda: " if " + self.expr(1), " recursive")}') + self.body(d - 1) + inner
                + self.body(d - 1) + (self.tag('else') + self.body(d - 1) if self.r.random() < .3 else '') + self.tag('endfor'))

    def statement(self, d):
        k = self.r.randint(0, 14) if d > 0 else 0
        if k < 5:
            return self.gap() + '{{' + self.one('', '', '-') + f' {self.expr(2)} ' + self.one('', '', '-') + '}}' + self.gap()
        if k < 7:
            return (self.gap() + self.tag('if ' + self.expr(2)) + self.body(d - 1) + (self.tag('elif ' + self.expr(1)) + self.body(d - 1) if self.r.random() < .3 else '')
                    + (self.tag('else') + self.body(d - 1) if self.r.random() < .5 else '') + self.tag('endif') + self.gap())
        if k < 9:
            return self.gap() + self.loop(d) + self.gap()
        if k < 11:
            return self.gap() + self.tag(f'set {self.one("x", "y", "i", "s", "xs", "ns.a")} = {self.expr(2)}') + self.gap()
        if k == 11:
            return self.tag(f'set {self.one("x", "y")}{self.one("", " | upper", " | trim")}') + self.body(d - 1) + self.tag('endset')
        if k == 12:
            return (self.tag(f'macro {self.one("m", "f")}({self.one("", "a", "a, b=1", "x=2")})') + self.body(d - 1) + self.one('', '{{ a }}', '{{ varargs }}', '{{ caller() if caller else 0 }}')
                    + self.tag('endmacro') + '{{ ' + f'{self.one("m", "f")}({self.one("", "1", "1,2", "b=3")})' + ' }}')
        if k == 13:
            return self.tag('filter ' + self.one('upper', 'trim', 'indent(2)', 'replace("a","b")')) + self.body(d - 1) + self.tag('endfilter')
        return self.one('{# c #}', '{#- c -#}', lambda: self.tag('with x = ' + self.expr(1)) + self.body(d - 1) + self.tag('endwith'),
                        lambda: self.tag('generation') + self.body(d - 1) + self.tag('endgeneration'), lambda: self.tag('call m()') + self.body(d - 1) + self.tag('endcall'),
                        '{% raw %} {{ x }} {% endraw %}', lambda: self.tag('set ns = namespace(a=1)'))

    def template(self):
        if self.r.random() < .5:
            return '{{ ' + self.expr(self.r.randint(1, 4)) + ' }}'
        return self.one('', '{% set ns = namespace(a=0) %}') + ''.join(self.statement(3) for _ in range(self.r.randint(1, 4))) + self.one('', '\n')


def main():
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument('--probe', required=True)
    ap.add_argument('-n', type=int, default=3000)
    ap.add_argument('--seed', type=int, default=1)
    a = ap.parse_args()
    w = Writer(a.seed)
    templates = [w.template() for _ in range(a.n)]
    cases = ''.join(json.dumps({**CASE, 'id': i, 'template': t}) + '\n' for i, t in enumerate(templates))
    out = subprocess.run(shlex.split(a.probe) + ['render', '--template', '/dev/null'], input=cases.encode(), stdout=subprocess.PIPE, timeout=600).stdout
    got = {o['id']: o for o in map(json.loads, out.splitlines())}
    passed = failed = refused = 0
    for i, t in enumerate(templates):
        want, g = expected(t), got.get(i, {'error': 'no answer'})
        error = g.get('error', '')
        if ' at 0x' in want.get('text', '').lower() or 'cannot be sliced' in error or 'complex number' in error or 'LoopContext' in error:
            continue
        if 'error' in want:
            refused += 1
            if 'text' in g:
                print(f'rendered although refused: {t!r}\n    Jinja2: {want["error"]}\n    got: {g["text"]!r}')
        elif g.get('text') == want.get('text') and ('raised' in want) == ('error' in g):
            passed += 1
        else:
            failed += 1
            print(f'differs: {t!r}\n    want {want.get("text", want)!r}\n    got  {g.get("text", error)!r}')
    print(f'{refused} refused by Jinja2')
    print(f'{passed} passed, {failed} failed')
    sys.exit(bool(failed))


main()
