#!/usr/bin/env python3
"""gates.py: the rules of docs/STYLE.md that a machine can check.

layers      a file includes only headers of modules that stand earlier in src/LAYERS; every module is listed
public      `hearth run`, `hearth bench` and the server reach the engine through include/hearth.h alone
symbols     global symbols begin with their module's name (or the prefixes given in src/LAYERS)     needs a build: --build DIR
sizes       files 1000 lines (kernels 1500), functions 100 lines, complexity 25 (pmccabe), lines 100 columns
format      every C file is as clang-format-19 lays it out
banned      calls that are not allowed, or only in named files
essays      every .c begins with a comment that says what it is
header      the public header has at most 250 lines
invariants  each numbered invariant (XX-1) is stated in one header only
named       files that comments, docs and tests name exist
scripts     every Python file can be read by the Python that runs this
map         docs/ARCHITECTURE.md lists the modules of src/LAYERS with the first line of each (--map writes it)
Prints one line per finding and 'N passed, N failed' over the rules checked."""
import argparse
import glob
import os
import re
import shutil
import subprocess
import sys

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
os.chdir(ROOT)
BANNED = [  # pattern, files where it is allowed, what to use
    (r'\b(malloc|calloc|realloc|reallocarray|posix_memalign|aligned_alloc)\s*\(', r'base/mem\.c$', 'mem_alloc'),
    (r'\bfree\s*\(', r'base/mem\.c$|model/unicode\.c$', 'mem_free'),
    (r'\b(sprintf|vsprintf|strcpy|strcat|sscanf|atoi|atol|atof|gets|strtok|alloca)\s*\(', r'$^', 'a bounded function'),
    (r'\b(getenv|setenv|putenv)\s*\(', r'$^', 'no environment switches'),
    (r'\bsecure_getenv\s*\(', r'base/(os|log)\.c$', 'os_dir'),
    (r'\b(exit|_exit|abort)\s*\(', r'cmd/|base/(err|os)\.c$|fetch/', 'a status'),
    (r'(?<![.>])\b(rand|srand|random|drand48)\s*\(', r'$^', 'os_random or sample_uniform'),
    (r'#\s*include\s*<(stdatomic|pthread)\.h>', r'base/', 'base/team.h, base/cell.h, base/once.h'),
    (r'#\s*include\s*<jansson\.h>', r'base/js\.c$', 'base/js.h'),
    (r'#\s*include\s*<sqlite3\.h>', r'base/db\.c$', 'base/db.h'),
    (r'#\s*include\s*<gnutls/', r'base/hash\.c$', 'base/hash.h'),
    (r'#\s*include\s*<utf8proc\.h>', r'model/unicode\.c$', 'model/unicode.h'),
    (r'#\s*include\s*<microhttpd\.h>', r'serve/http\.c$', 'serve/http.h'),
    (r'#\s*include\s*<histedit\.h>', r'cmd/edit_line\.c$', 'cmd/edit.h'),
    (r'#\s*include\s*<hwloc', r'base/topo_hwloc\.c$', 'base/topo.h'),
    (r'#\s*include\s*<liburing', r'base/ring_uring\.c$', 'base/ring.h'),
    (r'#\s*include\s*<curl/', r'fetch/fetch\.c$', 'hearth-fetch'),
    (r'\b(TODO|FIXME|XXX)\b', r'$^', 'an issue'),
]
findings = {}


def found(rule, text):
    findings.setdefault(rule, []).append(text)


def modules():
    rows = []
    for line in open('src/LAYERS'):
        words = line.split('#')[0].split()
        if words:
            rows.append((words[0], words[1:] or [os.path.basename(words[0])]))
    return rows


def sources():
    return sorted(p for p in glob.glob('src/**/*.[ch]', recursive=True) if not p.startswith('src/fetch/'))


def check_layers(rows):
    order = {m: i for i, (m, _) in enumerate(rows)}      # "x.h" on a line of its own: the header stands there
    findings.setdefault('layers', [])
    for path in sources():
        module = path[4:-2]
        module = module + '.h' if path.endswith('.h') and module + '.h' in order else module
        if module not in order:
            found('layers', f'{path}: not listed in src/LAYERS')
            continue
        for inc in re.findall(r'^#include "([^"]+)\.h"', open(path).read(), re.M):
            if inc == 'hearth':
                if not module.startswith(('lib/', 'serve/', 'cmd/')):
                    found('layers', f'{path}: includes the public header')
            elif inc + '.h' in order and order[inc + '.h'] < order[module]:
                continue
            elif inc not in order:
                found('layers', f'{path}: includes {inc}.h, which is not in src/LAYERS')
            elif order[inc] > order[module]:
                found('layers', f'{path}: includes {inc}.h, which stands later in src/LAYERS')


def check_public():
    """What these files include, and what those headers include, is none of the engine's own."""
    findings.setdefault('public', [])
    for path in ['src/cmd/cmd_run.c', 'src/cmd/cmd_bench.c', *sorted(glob.glob('src/serve/*.c'))]:
        seen, todo = set(), [path]
        while todo:
            for inc in re.findall(r'^#include "([^"]+)"', open(todo.pop()).read(), re.M):
                if re.match(r'(num|kern|back|model|engine|lib)/', inc):
                    found('public', f'{path}: reaches {inc}; only include/hearth.h is allowed')
                elif inc not in seen and os.path.exists('src/' + inc):
                    seen.add(inc)
                    todo.append('src/' + inc)


def check_sizes():
    findings.setdefault('sizes', [])
    for path in sources():
        lines = open(path).read().split('\n')
        cap = 1500 if path.startswith('src/kern/') else 1000
        if len(lines) > cap:
            found('sizes', f'{path}: {len(lines)} lines, at most {cap}')
        for i, line in enumerate(lines):
            if len(line) > 100 and 'grid' not in path:
                found('sizes', f'{path}:{i + 1}: {len(line)} columns, at most 100')
    if not shutil.which('pmccabe'):
        return
    out = subprocess.run(['pmccabe'] + [p for p in sources() if p.endswith('.c')], stdout=subprocess.PIPE, text=True).stdout
    for row in out.splitlines():
        w = row.split('\t')
        if len(w) < 6:
            continue
        if int(w[0]) > 25 or int(w[4]) > 101:
            found('sizes', f'{w[5]}: complexity {w[0]} (at most 25), {w[4]} lines (at most 100)')


def check_banned():
    findings.setdefault('banned', [])
    for path in sources():
        text = re.sub(r'/\*.*?\*/', lambda m: re.sub(r'[^\n]', ' ', m.group()), open(path).read(), flags=re.S)
        plain = re.sub(r'"(?:[^"\\\n]|\\.)*"', lambda m: m.group() if '#include' in m.group() else '""', text)
        for pattern, allowed, instead in BANNED:
            for m in re.finditer(pattern, plain):
                if not re.search(allowed, path):
                    found('banned', f'{path}:{plain.count(chr(10), 0, m.start()) + 1}: {m.group().strip()} is not allowed here; use {instead}')


def check_format():
    if not shutil.which('clang-format-19'):
        print('format: skipped, clang-format-19 is not installed')
        return
    findings.setdefault('format', [])
    files = [p for p in glob.glob('**/*.[ch]', recursive=True) if p.startswith(('src/', 'include/', 'tests/', 'fuzz/', 'examples/')) and 'fixtures' not in p]
    out = subprocess.run(['clang-format-19', '--dry-run', '--Werror', *files], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True).stdout
    for path in sorted(set(re.findall(r'^(\S+?):\d+:\d+: error', out, re.M))):
        found('format', f'{path}: run clang-format-19 -i')


def check_header():
    n = open('include/hearth.h').read().count('\n')
    findings['header'] = [f'include/hearth.h: {n} lines, at most 250'] if n > 250 else []


def check_invariants():
    findings.setdefault('invariants', [])
    stated = {}
    for path in sorted(glob.glob('src/**/*.h', recursive=True)):
        for name in re.findall(r'^ \* ([A-Z]{2}-\d+)  ', open(path).read(), re.M):
            stated.setdefault(name, []).append(path)
    for name, paths in stated.items():
        if len(paths) > 1:
            found('invariants', f'{name} is stated in {" and ".join(paths)}')


def check_named():
    """In comments of the C files and in all documents but those of the fixtures."""
    findings.setdefault('named', [])
    elsewhere = {'quants.py', 'page_data.h', 'fuzz_NAME.c', 'test_NAME.c'}      # of other projects, made by the build, patterns
    places = [p for p in glob.glob('**/*', recursive=True) if not p.startswith('build')]
    have = {os.path.basename(p) for p in places}
    paths = [p for p in places if p.endswith(('.c', '.h', '.md')) and not p.startswith('tests/fixtures/')]
    for path in paths:
        text = re.sub(r'https?:\S+', '', open(path).read())
        if not path.endswith('.md'):
            code = re.split(r'(/\*.*?\*/)', text, flags=re.S)      # code, comment, code ...
            text = ''.join(s if i % 2 else '\n' * s.count('\n') for i, s in enumerate(code))
        for m in re.finditer(r'(?<![\w*.])[\w/.-]*\b[a-zA-Z]\w+\.(?:c|h|py)\b(?!\w)', text):
            name = os.path.basename(m.group())
            if name not in have and name not in elsewhere:
                found('named', f'{path}:{text.count(chr(10), 0, m.start()) + 1}: {m.group()} does not exist')


def module_list(rows):
    """The second half of docs/ARCHITECTURE.md."""
    text, folder = '', ''
    for m, _ in rows:
        path = next((f'src/{m}{x}' for x in ('.c', '.h') if os.path.exists(f'src/{m}{x}')), None)
        if path is None or m.endswith('.h'):
            continue
        if os.path.dirname(m) != folder:
            folder = os.path.dirname(m)
            text += f'\n## {folder}\n\n'
        first = open(path).read().split('\n')[0]
        what = re.sub(r'^/\* \S+ - | ?\*/$| \([^)]*\.c\b[^)]*\)?$', '', first)
        text += f'- `{m}`: {what}\n'
    return text


def check_map(rows, is_writing):
    path = 'docs/ARCHITECTURE.md'
    old = open(path).read()
    new = old[:old.index('\n## base\n')] + module_list(rows)
    findings['map'] = [] if new == old or is_writing else [f'{path}: differs from src/LAYERS; run tools/gates.py --map']
    if is_writing:
        open(path, 'w').write(new)


def check_essays():
    findings.setdefault('essays', [])
    for path in sources():
        if path.endswith('.c'):
            m = re.match(r'/\*.*?\*/', open(path).read(), re.S)
            n = m.group().count('\n') + 1 if m else 0
            if n < 4 or not m.group().startswith(f'/* {os.path.basename(path)[:-2]} - '):
                found('essays', f'{path}: begins with no essay "/* {os.path.basename(path)[:-2]} - ..."')


def check_symbols(rows, build):
    findings.setdefault('symbols', [])
    prefixes = {m: p for m, p in rows}
    for obj in glob.glob(build + '/**/*.o', recursive=True):
        m = re.search(r'src_((?:[a-z]+)_(?:[a-z0-9_]+))\.c\.o$', obj)
        if not m:
            continue
        folder, _, name = m.group(1).partition('_')
        allowed = prefixes.get(f'{folder}/{name}')
        if allowed is None:
            continue
        if folder == 'kern':
            allowed = [name.rsplit('_', 1)[0], 'kern', *allowed]
        out = subprocess.run(['nm', '-g', '--defined-only', obj], stdout=subprocess.PIPE, text=True).stdout
        for row in out.splitlines():
            symbol = row.split()[-1] if row.split() else ''
            if symbol and symbol != 'main' and not symbol.startswith('__') and not any(symbol == p or symbol.startswith(p + '_') for p in allowed):
                found('symbols', f'src/{folder}/{name}.c: global symbol {symbol} does not begin with {" or ".join(allowed)}')


def check_scripts():
    findings.setdefault('scripts', [])
    for path in (p for p in glob.glob('**/*.py', recursive=True) if not p.startswith('build')):
        try:
            compile(open(path).read(), path, 'exec')
        except SyntaxError as e:
            found('scripts', f'{path}:{e.lineno}: {e.msg}')


def main():
    ap = argparse.ArgumentParser()
    ap.add_argument('--build')
    ap.add_argument('--map', action='store_true')
    a = ap.parse_args()
    rows = modules()
    check_layers(rows)
    check_public()
    check_sizes()
    check_banned()
    check_essays()
    check_format()
    check_header()
    check_invariants()
    check_named()
    check_scripts()
    check_map(rows, a.map)
    if a.build:
        check_symbols(rows, a.build)
    failed = 0
    for rule, texts in findings.items():
        for t in texts:
            print(f'{rule}: {t}')
        failed += bool(texts)
    print(f'{len(findings) - failed} passed, {failed} failed')
    sys.exit(1 if failed else 0)


main()
