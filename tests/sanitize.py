#!/usr/bin/env python3
"""sanitize.py SANITIZERS FIXTURES: a checked build with sanitizers, by the second compiler (clang), runs the unit tests, the stored
inputs of the fuzzers (not with the thread sanitizer), nine tiny models, the tokenizers' and templates' fixtures in part, and a model with several requests at once. Prints 'N passed, N failed'."""
import json
import os
import re
import subprocess
import sys

kind, fixtures = sys.argv[1:3]
root = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
build = root + '/build-' + kind.split(',')[0]
passed = failed = 0
ENV = {**os.environ, 'ASAN_OPTIONS': 'detect_leaks=1:abort_on_error=0', 'UBSAN_OPTIONS': 'halt_on_error=1:print_stacktrace=1', 'TSAN_OPTIONS': 'halt_on_error=1'}


def sh(args, **more):
    return subprocess.run(args, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors='replace', env=ENV, **more)


def check(what, r, cond=True):
    global passed, failed
    good = r.returncode == 0 and cond and not re.search(r'Sanitizer|runtime error', r.stdout)
    passed, failed = passed + good, failed + (not good)
    if not good:
        print(f'FAILED: {what}, exit {r.returncode}')
        print(r.stdout[-3000:])


if not os.path.exists(build + '/build.ninja'):
    ENV['CC'] = 'clang-19'
    r = sh(['meson', 'setup', build, root, '--buildtype=debugoptimized', '--werror', '--wrap-mode=nodownload', '-Db_sanitize=' + kind, '-Dchecked=true', '-Db_lundef=false'])
    if r.returncode:
        sys.exit(r.stdout)
has_seeds = kind != 'thread'
r = sh(['ninja', '-C', build, 'hearth', 'tests'] + ['fuzzers'] * has_seeds)
check('build', r)
hearth = build + '/hearth'
for program in ['tests/unit.py'] + ['fuzz/replay.py'] * has_seeds:
    r = sh([sys.executable, root + '/' + program, build])
    m = re.findall(r'^(\d+) passed, (\d+) failed', r.stdout, re.M)
    passed += int(m[-1][0]) if m else 0
    failed += int(m[-1][1]) if m else 1
    if not m or int(m[-1][1]):
        print(r.stdout[-4000:])
for name in ('zoo/llama', 'zoo/gemma2', 'zoo/phi3-longrope', 'zoo/gpt2', 'zoo/falcon', 'zoo/qwen2moe', 'qzoo/q-q4_k', 'qzoo/q-iq3_xxs', 'qzoo/q-nvfp4'):
    cases = open(f'{fixtures}/{name}.cases.jsonl').read()
    for extra in ([], ['--isa', 'scalar', '--kv', 'q8_0'], ['--beside', '3', '--threads', '3']):
        check(f'{name} {extra}', sh([hearth, *extra, 'logits', '-m', f'{fixtures}/{name}.gguf', '-o', '/dev/null'], input=cases))
    check(f'{name} run', sh([hearth, 'run', '--raw', f'{fixtures}/{name}.gguf', 'hello world', '--max-tokens', '20'], stdin=subprocess.DEVNULL))
    check(f'{name} bench', sh([hearth, 'bench', f'{fixtures}/{name}.gguf', '--prefill', '64', '--decode', '16', '--batch', '3']))
tok = ''.join(json.dumps({'id': i, 'text': t, 'parse_special': bool(i % 2)}) + '\n' for i, t in enumerate(['Hello, world!', '\u00e9\u0301\u4e2d\u6587 \U0001f600', ' ' * 200, 'x' * 5000, '<|eot_id|>']))
for v in ('llama3', 'qwen3', 'gptoss', 'deepseek3', 'minilm'):
    check('tokenize ' + v, sh([hearth, 'tokenize', '-m', f'{fixtures}/vocab/vocab-{v}.gguf'], input=tok))
print(f'{passed} passed, {failed} failed')
sys.exit(1 if failed else 0)
