#!/usr/bin/env python3
"""test_cli.py HEARTH FIXTURES: every command of the program as scripts use it: forms, options, errors, exit codes, JSON, pipes.

FIXTURES is the folder that tests/fixtures/prepare.py fills; its tiny models make this fast. `hearth run` in a terminal is
test_run.py's, the store test_pull.py's, the server test_api.py's. Prints 'N passed, N failed'."""
import base64
import contextlib
import ctypes
import fcntl
import json
import os
import pty
import re
import resource
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import time

from checks import check, finish

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), 'tools'))
import gguf_file  # noqa: E402

hearth, fixtures = map(os.path.abspath, sys.argv[1:3])
TINY, GEMMA, CHAT = fixtures + '/zoo/llama.gguf', fixtures + '/zoo/gemma3.gguf', fixtures + '/models/smollm2-135m-q4_1.gguf'
COMMANDS = ['run', 'serve', 'plan', 'bench', 'tune', 'doctor', 'pull', 'list', 'show', 'rm', 'verify', 'logits', 'tokenize', 'detokenize', 'render', 'dequant', 'man',
            'completion']


def drop_override():
    """Before a program: root may no longer write where the mode of a file forbids it."""
    ctypes.CDLL(None).prctl(24, 1, 0, 0, 0)  # PR_CAPBSET_DROP, CAP_DAC_OVERRIDE


def run(home, *args, data=b'', stdout=subprocess.PIPE, before=None, runtime=None):
    """(exit code, standard output, standard error)"""
    env = {k: v for k, v in os.environ.items() if not k.startswith('XDG_')} | ({'XDG_RUNTIME_DIR': runtime} if runtime else {})
    r = subprocess.run([hearth, *args], input=data, stdout=stdout, stderr=subprocess.PIPE, env={**env, 'HOME': home}, cwd=home, timeout=60,
                       preexec_fn=before)
    return r.returncode, (r.stdout or b'').decode('utf-8', 'replace'), r.stderr.decode('utf-8', 'replace')


def shell(home, script, *args):
    """The same for a shell's script, whose "$@" is the command."""
    r = subprocess.run(['sh', '-c', script, 'sh', hearth, *args], stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=60,
                       env={**os.environ, 'HOME': home})
    return r.returncode, r.stdout, r.stderr


def refused(home, args, code, *words):
    """One line on standard error but for nearest commands, nothing on standard output, that exit code."""
    got = run(home, *args)
    line = got[2].partition('hearth: nearest commands that fit:')[0]
    check(f'{args}', got[0] == code and got[1] == '' and line.startswith('hearth: ') and line.count('\n') == 1 and all(w in got[2] for w in words), got)


def test_help(home):
    code, text, _ = run(home, '--help')
    check('--help', code == 0 and all(re.search(rf'^  {c} ', text, re.M) for c in COMMANDS) and '75 busy' in text, text)
    check('no argument is --help', run(home) == (code, text, ''))
    check('--version', re.fullmatch(r'hearth \d+\.\d+\.\d+\n', run(home, '--version')[1]) is not None)
    for c in COMMANDS:
        code, text, _ = run(home, c, '--help')
        check(f'{c} --help', code == 0 and text.startswith(f'usage: hearth {c}') and max(map(len, text.split('\n'))) < 80, text)
        check(f'{c} -h', run(home, c, '-h')[1] == text)


def test_readme():
    """README.md names the architectures of src/model/arch.c and counts the models of tests/zoo.list."""
    root = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
    page, table, zoo = (open(f'{root}/{x}').read() for x in ('README.md', 'src/model/arch.c', 'tests/zoo.list'))
    rows = re.findall(r'\{ \.name = "([^"]+)"', table)
    m = re.search(r'of (\d+) architectures, by their names in the format: ([^;]+);.*?\. (\d+) small models', page, re.S)
    names = re.sub(r'\s*\([^)]*\)', '', m.group(2)).replace('\n', ' ') if m else ''
    check('README.md: the architectures', m and int(m.group(1)) == len(rows) and re.split(r',\s+', names) == rows, (names, rows))
    check('README.md: the models compared', m and int(m.group(3)) == len(zoo.strip().split(',')), m)


def test_readme_commands(home):
    """README.md's commands work as they stand there (an answer is cut short, the server is only asked for its help)."""
    root = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
    page, goals = open(root + '/README.md').read(), re.findall(r'^([a-z]+):', open(root + '/Makefile').read(), re.M)
    run(home, 'pull', CHAT)
    shown = re.findall(r'^    (make|build/hearth) *(.*?) *(?:#.*)?$', page, re.M)
    check('README.md: commands', {a.split()[0] for c, a in shown if c != 'make'} == {'pull', 'list', 'run', 'plan', 'doctor', 'serve'}, shown)
    for program, rest in shown:
        args = shlex.split(rest)
        if program == 'make':
            check(f'README.md: make {rest}', all(a in goals for a in args))
        else:
            got = run(home, *args, *{'run': ['-n', '4'], 'serve': ['--help']}.get(args[0], []))
            check(f'README.md: {rest}', got[0] in ((0, 1) if args == ['doctor'] else (0,)) and len(got[1]) > 5, got)  # 1: something is wrong here


def test_usage(home):
    refused(home, ['plna', TINY], 2, '"plna"', 'did you mean plan?')
    refused(home, ['frobnicate'], 2, 'frobnicate', '--help')
    refused(home, ['plan', TINY, '--jsn'], 2, '--jsn', 'did you mean --json?')
    for args in (['plan', TINY, '--frobnicate'], ['--frobnicate=1', 'plan', TINY], ['plan', '--frobnicate', TINY], ['--frobnicate', '5', '--', 'plan', TINY]):
        refused(home, args, 2, '--frobnicate', 'hearth plan --help lists')
    refused(home, ['--frobnicate'], 2, '--frobnicate', 'hearth --help lists')
    refused(home, ['plan', TINY, '-x'], 2, '-x', 'hearth plan --help')
    for command, word, near in (('run', '--tmp', 'temp'), ('run', '--max', 'max-tokens'), ('serve', '--max', 'max-clients'), ('run', '-ctx', 'ctx'), ('serve', '-model', 'model'),
                                ('bench', '--limit', 'limits'), ('bench', '--memry', 'memory'), ('pull', '--nam=x', 'name')):
        refused(home, [command, TINY, word], 2, word.split('=')[0], f'did you mean --{near}?')
    refused(home, ['plan', TINY, '--tmp', '1'], 2, '--tmp', 'hearth plan --help')  # --temp would be none of its options
    refused(home, ['plan', TINY, '--temp', '1'], 2, '--temp', 'hearth plan', 'run')
    refused(home, ['plan', TINY, '--json=yes'], 2, '--json takes no value')
    refused(home, ['plan', TINY, '--ctx'], 2, '--ctx needs a value')
    for c, option, kind in (('plan', 'kv', 'TYPE'), ('plan', 'isa', 'NAME'), ('pull', 'name', 'NAME'), ('serve', 'host', 'H'), ('serve', 'api-key-file', 'F'), ('serve', 'model', 'MODEL'),
                            ('render', 'template', 'FILE'), ('logits', 'out', 'FILE'), ('dequant', 'in', 'FILE'), ('dequant', 'type', 'T')):
        refused(home, [c, *([] if c in ('serve', 'render', 'logits', 'dequant') else [TINY]), f'--{option}='], 2, f'--{option} is empty: {kind}')
    check('--system may be empty', run(home, 'run', TINY, 'x', '--system=', '--max-tokens', '1')[0] == 0)
    refused(home, ['run', '--help=1'], 2, '--help takes no value')
    refused(home, ['--version=1'], 2, '--version takes no value')
    refused(home, ['run', TINY, 'x', '-n4'], 2, '-n4', 'did you mean -n 4?')
    refused(home, ['plan', TINY, '--kv', 'q4'], 2, 'q4', 'f16, bf16, q8_0, f32')
    for kv, is_advised in (('f16', True), ('q8_0', False)):
        p = json.loads(run(home, 'plan', TINY, '--kv', kv, '--ctx', '1024', '--parallel', '64', '--json')[1])
        some = str((p['least_bytes'] + p['total_bytes']) // 2 >> 20)
        code, text, _ = run(home, 'plan', TINY, '--kv', kv, '--ctx', '1024', '--parallel', '64', '--memory', some)
        check(f'plan that does not fit with {kv}', code == 4 and ('--kv q8_0' in re.search('^Choose .* MiB are missing', text, re.M)[0]) == is_advised, text)
    refused(home, ['plan', TINY, '--isa', 'mmx'], 2, 'mmx', 'avx2')
    refused(home, ['plan'], 2, 'hearth plan MODEL')
    refused(home, ['plan', ''], 2, 'empty')
    refused(home, ['list', 'x'], 2, '1 argument')
    refused(home, ['run', TINY, 'a', 'b'], 2, 'hearth run MODEL [PROMPT]')
    refused(home, ['run', TINY, 'x', '--raw', '--system', 'y'], 2, '--raw', '--system')
    refused(home, ['serve'], 2, '--model')
    refused(home, ['serve', '-m', 'one.gguf', 'two.gguf'], 2, 'one.gguf', 'two.gguf')
    refused(home, ['serve', '-m', TINY, '--api-key-file', 'nope'], 3, 'API key file: nope: ')
    for c, *given in (('dequant', '--threads', '1'), ('dequant', '-m', TINY), ('render', '--kv', 'f32'), ('tokenize', '--isa', 'scalar')):
        refused(home, [c, *given], 2, f'is no option of hearth {c}')
    check('render --help names both forms', 'usage: hearth render -m MODEL|--template FILE' in run(home, 'render', '--help')[1])
    refused(home, ['bench'], 2, '--kernels')
    for option, value in (('ctx', '64'), ('kv', 'f32'), ('prefill', '8'), ('decode', '8'), ('depth', '0'), ('batch', '1')):
        refused(home, ['bench', '--limits', f'--{option}', value], 2, f'--{option} needs a MODEL')
    refused(home, ['render'], 2, '--template')
    refused(home, ['tokenize'], 2, '-m MODEL')
    refused(home, ['dequant', '--type', 'Q4_K'], 2, '--in FILE')
    refused(home, ['completion', 'tcsh'], 2, 'tcsh', 'fish')


NUMBERS = [  # commands with an option, whole or not, from, to
    (['run', 'plan', 'bench', 'serve'], 'ctx', True, 2, 1 << 24), (['plan', 'serve'], 'parallel', True, 1, 256), (['serve'], 'port', True, 0, 65535),
    (['serve'], 'queue', True, 1, 4096), (['serve'], 'max-clients', True, 1, 4096), (['serve'], 'max-body', True, 1, 1024), (['serve'], 'grace', True, 0, 86400),
    (['run', 'logits'], 'threads', True, 1, 256), (['plan'], 'memory', True, 1, 1 << 30), (['run'], 'max-tokens', True, 1, 1 << 24),
    (['run'], 'temp', False, 0, 100), (['run'], 'top-k', True, 0, 1 << 24), (['run'], 'top-p', False, 1e-6, 1), (['run'], 'min-p', False, 0, 1),
    (['run'], 'seed', True, 0, 1 << 53), (['bench'], 'prefill', True, 1, 1 << 24), (['bench'], 'decode', True, 1, 1 << 24),
    (['bench'], 'depth', True, 0, 1 << 24), (['bench'], 'batch', True, 1, 256), (['logits'], 'beside', True, 0, 31)]


def test_numbers(home):
    """Nothing but digits (and where it fits a point and an exponent), within the range; a value that is taken leads to the model, which is missing."""
    for commands, option, is_whole, low, high in NUMBERS:
        wrong = ['', ' ', 'abc', 'x5', '5x', ' 5', '5 ', '\t5', '5\n', '+5', '-5', '-0', '- 5', '--5', '0x10', '0x1p3', '5,0', "5'000", '1_0', '\u0665', 'nan', 'NAN(1)', 'inf', '-inf',
                 'infinity', '1e400', '1e', '1.2.3', '.', '18446744073709551617', '99999999999999999999', '9' * 400]
        wrong += ['1e3', '5.0', '.5', '0b1', str(high + 1)] + ([str(low - 1)] if low > 0 else []) if is_whole else [f'{high * 1.01}'] + (['0', '1e-7'] if low > 0 else [])
        good = [str(low), str(high), '00' + str(high)] if is_whole else ['1', '0.5', '.5', '1.', '5e-1', '5E-1', '0.5e+0']
        for c in commands:
            form = [c, 'no.gguf'] if c in ('run', 'plan', 'bench') else [c, '-m', 'no.gguf']
            for value in wrong:
                shown = value[:40].replace('\t', '\\x09').replace('\n', '\\x0a')
                kind = f'a whole number from {low} to {high} is wanted' if is_whole else f'a number from {low:g} to {high:g} is wanted'
                refused(home, [*form, f'--{option}={value}'], 2, f'--{option} is "{shown}"', kind)
            for value in good:
                refused(home, [*form, f'--{option}={value}'], 3, 'no.gguf')


def test_models(home):
    """MODEL is a file or a name in the store."""
    with open(home + '/text', 'w') as f:
        f.write('root:x:0:0\n')
    os.mkdir(home + '/folder')
    commands = [('run', 'hi'), ('plan',), ('bench',), ('show',), ('verify',)]
    for c, *more in commands:
        refused(home, [c, 'no.gguf', *more], 3, 'no.gguf')
        refused(home, [c, 'text', *more], 5, 'not a GGUF file')
        refused(home, [c, 'smollm2:135m', *more], 3, 'hearth pull smollm2:135m')
        refused(home, [c, 'smolm2:135m', *more], 3, 'did you mean smollm2:135m?')
        refused(home, [c, 'smollm2', *more], 3, 'did you mean smollm2:135m?')
        refused(home, [c, 'nonsense', *more], 3, 'nonsense', 'hearth list')
    for c in ('logits', 'tokenize', 'detokenize', 'render'):
        refused(home, [c, '-m', 'no.gguf'], 3, 'no.gguf')
        refused(home, [c, '-m', 'smollm2:135m'], 3, 'hearth pull smollm2:135m')
    refused(home, ['plan', 'folder'], 3, 'folder')
    os.mkfifo(home + '/fifo')
    for c, *more in commands:
        for path in ('fifo', '/dev/zero'):
            if c != 'bench':
                refused(home, [c, path, *more], 9, path, 'not a regular file')
        refused(home, [c, '-', *more], 3, '-')
        refused(home, [c, 'a\nb', *more], 3, 'a\\x0ab')
        refused(home, [c, 'x' * 5000, *more], 3, 'xxx')
    refused(home, ['verify', 'folder'], 3, '"folder" is a folder and no model in the store')
    refused(home, ['rm', 'folder'], 3, '"folder" is a folder and no model in the store')
    refused(home, ['rm', 'text'], 3, '"text" is a file and no model in the store')
    os.symlink('loop', home + '/loop')
    for c in ('plan', 'run', 'pull'):
        refused(home, [c, './loop'], 9, './loop', 'symbolic links')
    refused(home, ['verify', 'nonsense', '--json'], 3, 'nonsense')
    refused(home, ['pull', 'smolm2:135m'], 3, 'did you mean smollm2:135m?')
    refused(home, ['pull', TINY, '--name', 'no/name'], 2, 'no/name')
    code, text, _ = run(home, 'pull', TINY, '--name', 'a:b', '--json')
    check('pull --name', code == 0 and json.loads(text)['name'] == 'a:b', text)
    want = json.loads(run(home, 'plan', TINY, '--json')[1])['parts'][0]
    for name in ('a:b', 'a'):
        check(f'MODEL is {name}', json.loads(run(home, 'plan', name, '--json')[1])['parts'][0] == want)
    case = b'{"id": 1, "text": "Hello"}\n'
    check('a probe takes a name', run(home, 'tokenize', '-m', 'a', data=case) == run(home, 'tokenize', '-m', TINY, data=case))
    check('verify', json.loads(run(home, 'verify', '--json')[1])['damaged'] == 0)
    for c in (['list'], ['show', 'a'], ['show', TINY], ['verify'], ['plan', 'a'], ['run', 'a', 'x', '--raw', '--max-tokens', '1'], ['bench', '--kernels'],
              ['doctor'], ['pull', TINY, '--name', 'b:c'], ['rm', 'b']):
        text = run(home, *c, '--json')[1]
        check(f'{c} --json: its version comes first', list(json.loads(text).items())[:1] == [('version', 1)], text)
    os.mkdir(home + '/a')
    check('show: a folder of that name does not matter', json.loads(run(home, 'show', 'a', '--json')[1])['name'] == 'a:b')
    check('verify: a folder of that name does not matter', json.loads(run(home, 'verify', 'a', '--json')[1])['files'][0]['model'] == 'a:b')
    check('rm', json.loads(run(home, 'rm', 'a', '--json')[1])['freed_bytes'] > 0 and run(home, 'list')[1].count('not here') == 2)


def test_damage(home):
    """Weights that are no numbers in a layer that the check at start passes over: a service does not become ready, an answer fails."""
    data = bytearray(open(TINY, 'rb').read())
    at = len(data) * 8 // 10 // 64 * 64  # in the second of two layers
    data[at:at + 64] = b'\xff' * 64
    with open(home + '/damaged.gguf', 'wb') as f:
        f.write(data)
    code, out, err = run(home, 'serve', '--model', 'damaged.gguf', '--port', '0')
    check('damage: serve', code == 5 and re.match('hearth: damaged.gguf: check at start: .* the weights are damaged, which hearth verify MODEL', err.split('\n')[-2]), (code, out, err))
    refused(home, ['run', 'damaged.gguf', '--raw', '-n', '1', 'hello'], 5, 'hearth: damaged.gguf: the scores are not numbers', 'hearth verify MODEL')


def tenths(text):
    return round(float(text) * 10)


def sums(text):
    """What plan says as text adds up as it is printed."""
    parts = [tenths(x) for x in re.findall(r'^  [A-Za-z#] [a-z].* ([0-9.]+) MiB$', text, re.M)]
    total, available = (tenths(re.search(rf'^    {x} +([0-9.]+) MiB', text, re.M)[1]) for x in ('total', 'available'))
    check('plan: the parts are the total', len(parts) >= 7 and sum(parts) == total, text)
    missing = re.search(r'^Choose .*: ([0-9.]+) MiB are missing\.$', text, re.M)
    check('plan: the total is what there is and what is missing', missing is None if total <= available else total - available == tenths(missing[1]), text)
    for name in ('run', r'serve --parallel \d+'):
        m = re.search(rf'^As a \w+ \(hearth {name} --ctx \d+\) it takes ([0-9.]+) MiB more, for [a-z ]+, ([0-9.]+) MiB in all: that (fits|does not fit, ([0-9.]+) MiB are missing)', text, re.M)
        check(f'plan: {name} is the total and more', m and total + tenths(m[1]) == tenths(m[2]), text)
        check(f'plan: {name}: what is missing', (m[3] == 'fits') == (tenths(m[2]) <= available) and (not m[4] or tenths(m[4]) == tenths(m[2]) - available), text)


def test_plan(home):
    code, text, err = run(home, 'plan', TINY, '--ctx', '64', '--parallel', '2', '--kv', 'q8_0', '--json')
    p = json.loads(text)
    check('plan --json', code == 0 and err == '' and p['fits'] is True and p['total_bytes'] <= p['available_bytes'] and p['ctx'] == 64 and p['parallel'] == 2, p)
    check('plan: its parts', {x['name'] for x in p['parts']} >= {'weights', 'cache', 'workspace', 'tokenizer', 'template'} and all(x['bytes'] >= 0 for x in p['parts']), p)
    tables = sum(x['bytes'] for x in p['parts'] if x['name'] == 'tables')
    n_tensor = len(json.loads(run(home, 'show', TINY, '--json')[1])['tensors'])
    check('plan: tables have those of the weights', tables >= 100 * n_tensor, (tables, n_tensor))
    code, text, _ = run(home, 'plan', TINY)
    check('plan: as text', code == 0 and 'It fits' in text and 'total' in text and 'available' in text, text)
    sums(text)
    bar = re.search(r'^  \[([A-Za-z]*\.*)\]$', text, re.M)
    letters = re.findall(r'^  ([A-Za-z]) [a-z]', text, re.M)
    check('plan: its bar', bar and len(bar[1]) == 60 and set(bar[1]) <= {*letters, '.'} and len(set(letters)) == len(letters) >= 6, text)
    check('plan: speeds as text', re.search(r'^Predicted: prompts [\d.e+]+ tok/s and answers [\d.e+]+ at an empty context, .* at a full one\.\nMade of: memory read at [\d.]+ GB/s', text, re.M), text)
    text = run(home, 'plan', TINY, '--ctx', '1024', '--parallel', '3', '--json')[1]
    speed = json.loads(text)['speed']
    check('plan: speeds', speed['read_gb_s'] > 0 and (speed['empty']['depth'], speed['full']['depth']) == (0, 512) and
          all(speed[x][k] > 0 for x in ('empty', 'full') for k in ('prefill_tok_s', 'decode_tok_s', 'decode_all_tok_s')), text)
    many = str(min(3 * len(os.sched_getaffinity(0)), 256))
    share = re.search(r'^Just then the threads got (\d+) % of their time on the cores: ', run(home, 'plan', TINY, '--threads', many)[1], re.M)
    shared = json.loads(run(home, 'plan', TINY, '--threads', many, '--json')[1])['speed']['core_percent']
    check('plan: threads that do not get their cores', share and int(share[1]) < 60 and 0 < shared < 60, (share, shared))
    code, text, err = run(home, 'plan', TINY, '--memory', '1')
    check('plan: does not fit', code == 4 and re.search(r'It does not fit.*\d MiB are missing', text, re.S), (code, text, err))
    code, text, _ = run(home, 'plan', TINY, '--parallel', '2', '--memory', '100', '--json')
    both = json.loads(text)
    refusal = run(home, 'serve', '--model', TINY, '--parallel', '2', '--ctx', str(both['ctx']), '--memory', '100', '--port', '0')
    needs = re.search(r'needs ([0-9.]+) MiB', refusal[2])
    check('plan tells what serve takes, as serve does', (code, both['fits'], both['serve_fits'], refusal[0]) == (0, True, False, 4)
          and needs and abs(both['serve_total_bytes'] / 2**20 - float(needs[1])) < 2, (code, text, refusal))
    words = run(home, 'plan', TINY, '--parallel', '2', '--memory', '100')[1]
    whole = re.search(r'--parallel 2 --ctx (\d+)\) .* ([0-9.]+) MiB in all: that does not fit', words)
    check('so does its text', whole and int(whole[1]) == both['ctx'] and abs(both['serve_total_bytes'] / 2**20 - float(whole[2])) < 2, words)
    code, text, err = run(home, 'plan', TINY, '--memory', '1', '--json')
    p = json.loads(text)
    check('plan --json: does not fit', code == 4 and p['fits'] is False and p['available_bytes'] == 1 << 20 < p['total_bytes'], p)
    check('plan: where nothing helps and nothing can be tried', p['nearest'] == [] and p['speed'] is None, p)
    text = run(home, 'plan', TINY, '--memory', '1')[1]
    check('plan: that as text', 'No plan for this model fits' in text and ' ^ available\n' in text, text)
    why = re.search(r'^Speed: not predicted: (.* \d+ MiB, 1 are available \(the limit that was given\): allow more)\.$', text, re.M)
    check('plan: why no speed is told', why and re.sub(r'\d+ MiB', '', p['speed_fault']) == re.sub(r'\d+ MiB', '', why[1]), (text, p))
    sums(text)
    sums(run(home, 'plan', CHAT, '--memory', '400')[1])
    chat = json.loads(run(home, 'plan', CHAT, '--memory', '400', '--json')[1])
    check('plan --json: a chat', chat['total_bytes'] + (24 << 20) < chat['run_total_bytes'] < chat['serve_total_bytes'] and chat['run_fits'] and not chat['serve_fits'], chat)
    code, _, err = run(home, 'serve', '--model', TINY, '--memory', '100', '--port', '0')
    check('serve: what clients take is said', code == 4 and 'MiB for clients (--max-body 16, --max-clients 256; lower values need less): the model needs ' in err, (code, err))
    few, all_, own = map(tenths, re.search(r'^hearth: with ([0-9.]+) MiB.* needs ([0-9.]+) MiB \(([0-9.]+) of them for itself\) ', err, re.M).groups())
    check('serve: and what the model takes itself', abs(all_ - few - own) <= 1, err)
    link = home + "/it's a link.gguf"
    os.symlink(CHAT, link)
    code, _, err = run(home, 'serve', '--model', link, '--memory', '430', '--port', '0', '--queue', '9')
    near = re.findall(r'^  hearth (serve .* --max-body (\d+) .*)\n      smaller requests: ', err, re.M)
    check('serve: a command that fits is told', code == 4 and len(near) == 1 and 0 < int(near[0][1]) < 16 and ' --port 0 --queue 9 ' in near[0][0], err)
    with subprocess.Popen([hearth, *shlex.split(near[0][0])], stdin=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, cwd=home) as p:
        said = [p.stderr.readline(), p.stderr.readline()]
        p.terminate()
    check('serve: and does', ' ready after ' in said[1] and p.returncode == 0, said)
    refused(home, ['run', TINY, 'x', '--memory', '1'], 4, '1.0 MiB are available')
    got = json.loads(run(home, 'run', TINY, 'x', '--ctx', '1024', '--threads', '1', '--max-tokens', '4', '--json')[1])
    check('plan: a run stays within it', got['rss_peak_bytes'] <= got['planned_bytes'], got)
    prompt = b'a' * 2000000
    args = [hearth, 'run', TINY, '--threads', '1', '--memory']
    got = run(home, *args[1:], '20', data=prompt)
    need = re.search(r'2000\d\d\d bytes.* needs ([0-9.]+) MiB.* 20\.0 MiB are available', got[2])
    check('plan: a run counts for its prompt', got[0] == 4 and need, got)
    p = subprocess.Popen([*args, '400'], stdin=subprocess.PIPE, stderr=subprocess.DEVNULL)
    p.stdin.write(prompt)
    p.stdin.close()
    _, status, used = os.wait4(p.pid, 0)
    p.returncode = os.waitstatus_to_exitcode(status)
    check('plan: a run stays within it, its prompt too', p.returncode == 11 and need and used.ru_maxrss / 1024 <= float(need.group(1)), (p.returncode, used.ru_maxrss, got))
    refused(home, ['plan', TINY, '--ctx', '100000'], 11, '100000', 'made for')


def made_up(home, folder, setting):
    """The profile that tune would store."""
    kernels = json.loads(run(home, 'bench', '--kernels', '--json')[1])['kernels']
    n = int(re.search(r'on (\d+) core', kernels['threads'])[1])
    with open(os.path.join(folder, f'tune-{n}.json'), 'w') as f:
        json.dump({'version': run(home, '--version')[1].split()[1], 'processor': kernels['processor'], **setting}, f)


def test_nearest(home):
    """Of a model that does not fit: plans that do, each a command that says so, each with what was given up."""
    folder = os.path.join(home, "it's near")
    os.mkdir(folder)
    child = os.fork()  # its memory is not that of the programs that tests start later
    if child == 0:
        m = gguf_file.Model.parse(open(CHAT, 'rb').read())
        m.get(b'llama.block_count').value = 6
        m.tensors = [t for t in m.tensors if not re.match(rb'blk\.(?![0-5]\.)', t.name)]
        for name, kind in (('f16', 1), ('q8_0', 8)):
            for t in m.tensors:
                t.kind = kind if len(t.dims) == 2 else t.kind
                t.data = bytes(gguf_file.tensor_bytes(t.dims, t.kind))
            m.get(b'general.name').value = b'Six layers ' + name.upper().encode()
            with open(os.path.join(folder, name + '.gguf'), 'wb') as f:
                f.write(m.pack())
        os._exit(0)
    check('nearest: models are made', os.waitpid(child, 0)[1] == 0)
    large = os.path.join(folder, 'f16.gguf')

    def plan(*more):
        return json.loads(run(home, 'plan', large, '--json', *more)[1])

    def near(*more):
        found = plan(*more)['nearest']
        for n in found:
            if n['command'].startswith('hearth pull --pack '):  # tests/test_larger.py
                continue
            code, text, err = run(home, *shlex.split(n['command'])[1:], '--json')
            p = json.loads(text or '{}')
            check(f"nearest, {n['change']}: its command fits, as a chat too", code == 0 and p['run_fits'] and (p['ctx'], p['parallel']) == (n['ctx'], n['parallel']), (n, text, err))
        return {n['change']: n for n in found}
    much = ('--ctx', '8192', '--parallel', '3')
    usual, small = plan(*much), plan(*much, '--kv', 'q8_0')
    check('nearest: not told of what fits', 'nearest' not in usual, usual)
    some = near(*much, '--memory', str((usual['total_bytes'] >> 20) - 4))
    check('nearest: each by itself', {'a smaller cache type', 'less context', 'fewer at once'} <= set(some), some)
    check('nearest: what it says', some['a smaller cache type']['kv'] == 'q8_0' and some['less context']['ctx'] < usual['ctx'] and some['fewer at once']['parallel'] in (1, 2) and
          all(n['model'] == large for c, n in some.items() if 'quantization' not in c), some)
    least = plan('--ctx', '64')
    other = near('--ctx', '64', '--memory', str((least['total_bytes'] >> 20) - 4))
    near('--ctx', '8192', '--memory', str((least['total_bytes'] >> 20) + 30))
    check('nearest: a smaller quantization', other['a smaller quantization']['model'] == os.path.join(folder, 'q8_0.gguf'), (other, least))
    text = run(home, 'plan', large, '--ctx', '64', '--memory', str((least['total_bytes'] >> 20) - 4))[1]
    check('nearest: as text', 'Nearest plans that fit, also as a chat:\n' in text and other['a smaller quantization']['command'] in text, text)


def test_pools(home):
    """Where the available bytes come from, on this box and on one with 96 of 128 GB carved out for its GPU."""
    total = int(re.search(r'MemTotal: +(\d+) kB', open('/proc/meminfo').read())[1]) * 1024
    p = json.loads(run(home, 'plan', TINY, '--json')[1])
    h = p['host']
    box = h['kernel_bytes'] - h['cma_free_bytes'] - h['reserve_bytes'] - h['other_bytes'] + h['held_bytes']
    check('plan: the pool of the host', h['total_bytes'] == total and h['reserve_bytes'] == min(max(total // 64, 64 << 20), 1 << 30), h)
    check('plan: its sum', min(box, h['cgroup_bytes'] or box) == p['available_bytes'], p)
    text = run(home, 'plan', TINY)[1]
    rows = re.findall(r'^    (?:free or soon free|free CMA|reserve|other hearth processes|held already) +([-+]?[0-9.]+) MiB', text, re.M)
    if h['cgroup_bytes'] is None:
        check('plan: its sum as text', sum(map(tenths, rows)) == tenths(re.search(r'^    available +([0-9.]+) MiB', text, re.M)[1]), text)
    check('plan: the pool as text', all(x in text for x in ('memory of this box (swap does not count)', 'MemAvailable', 'reserve', 'held already')), text)
    root = os.path.dirname(os.path.abspath(__file__))
    other = ['unshare', '-m', root + '/tools/as_box.sh', root + '/trees/halo-96g']
    if subprocess.run([*other, 'true'], capture_output=True).returncode:
        return
    p = json.loads(subprocess.run([*other, hearth, 'plan', TINY, '--json'], capture_output=True, timeout=60).stdout)
    card = [{'name': 'card1', 'kind': 'carve_out', 'total_bytes': 103079215104, 'free_bytes': 81515249664, 'map_bytes': min(16346222592, p['available_bytes'])}]
    check('plan: the pools of another box', p['host']['kernel_bytes'] == 28370534400 and p['gpus'] == card, p)
    text = subprocess.run([*other, hearth, 'plan', TINY], capture_output=True, text=True, timeout=60).stdout
    check('plan: a carve-out as text', re.search(r"card1 carve-out +98304\.0 MiB  \(not the host's", text), text)


def states(home, *args, **more):
    """(exit code, rows by name) of doctor --json; what is wrong has its cost and what to type."""
    code, text, err = run(home, 'doctor', '--json', *args, **more)
    d = json.loads(text)
    rows = {r['name']: r for r in d['checks']}
    counts = {k: sum(r['state'] == s for r in d['checks']) for k, s in (('wrong', 'wrong'), ('notes', 'note'), ('unknown', 'unknown'), ('ok', 'ok'))}
    check('doctor: its rows', err == '' and all(d[k] == n for k, n in counts.items()) and len(rows) == len(d['checks']) >= 20, text)
    check('doctor: its exit code', code == (1 if d['wrong'] else 0), (code, d['wrong']))
    check('doctor: what is wrong', all(r['costs'] and r['type'] for r in d['checks'] if r['state'] == 'wrong'), text)
    return code, rows, d


def test_doctor(home):
    """Of this box as it is, of one with limits of this process, and of another one."""
    total = int(re.search(r'MemTotal: +(\d+) kB', open('/proc/meminfo').read())[1]) * 1024
    _, rows, d = states(home)
    check('doctor: the pools', d['host']['total_bytes'] == total, d['host'])
    check('doctor: no model, no speed', rows['disk']['state'] == 'unknown' and 'no model' in rows['disk']['found'] and d['disk_gb_s'] is None, rows['disk'])
    check('doctor: a store that is not there', rows['model store']['found'].startswith(f'not there yet; hearth pull makes it: {home}/') and rows['model store']['state'] == 'ok', rows)
    check('doctor: it makes none', 'page cache' not in rows and os.listdir(home) == [], os.listdir(home))
    run(home, 'list')
    rows = states(home)[1]
    check('doctor: an empty store', rows['model store']['found'].startswith('0 models, 0 MiB; ') and 'page cache' not in rows, rows)
    isa = run(home, 'bench', '--kernels')[1]
    check('doctor: instructions', rows['instructions']['found'].split()[-1] in isa, (rows['instructions'], isa))
    run(home, 'pull', CHAT, '--name', 'chat')
    code, rows, d = states(home)
    check('doctor: the store', rows['model store']['found'].startswith('1 model, ') and home in rows['model store']['found'], rows['model store'])
    check('doctor: its disk', d['disk_gb_s'] > 0 and 'GB/s' in rows['disk']['found'], rows['disk'])
    check('doctor: the page cache', ' MiB of ' in rows['page cache']['found'], rows['page cache'])
    for model in (CHAT, 'chat'):
        check(f'doctor: {model}', states(home, model)[2]['disk_gb_s'] > 0)
    check('doctor: a small file', 'too small' in states(home, TINY)[1]['disk']['found'])
    limited = states(home, before=lambda: resource.setrlimit(resource.RLIMIT_AS, (1 << 30, 1 << 30)))
    check('doctor: a limit of addresses', limited[0] == 1 and limited[1]['address space']['state'] == 'wrong' and 'ulimit -v unlimited' in limited[1]['address space']['type'], limited[1])
    few = states(home, before=lambda: resource.setrlimit(resource.RLIMIT_NOFILE, (200, 200)))[1]['open files']
    check('doctor: few files', few['state'] == 'note' and 'at most 200' in few['found'], few)
    cores = sorted(os.sched_getaffinity(0))
    bound = states(home, before=lambda: os.sched_setaffinity(0, cores[:1]))[1]['cores']
    check('doctor: one core', bound['found'].startswith('1 of ') and (len(cores) == 1 or bound['state'] == 'note'), bound)
    code, text, _ = run(home, 'doctor')
    wanted = [r['name'] for r in rows.values() if r['state'] in ('wrong', 'note')]
    check('doctor: as text', all(re.search(rf'^  {n} +(ok|note|wrong|unknown) ', text, re.M) for n in rows), text)
    check('doctor: its sum', re.search(r'^\d+ wrong, \d+ to note, \d+ unknown, \d+ in order\n\Z', text, re.M) and all(f': {n}\n  found: ' in text for n in wanted if n not in ('memory pressure', 'processor load', 'disk')), text)
    run(home, 'pull', '--pack', CHAT, '--name', 'chat')
    digest = json.loads(run(home, 'list', '--json')[1])['models'][0]['image']
    image = f'{home}/.local/share/hearth/models/blobs/sha256-{digest}'
    both, size = (states(home)[1]['model store']['found'], os.path.getsize(image))
    for what in (lambda: os.truncate(image, size // 2), lambda: os.unlink(image)):
        what()
        code, rows, d = states(home)
        row = rows['model store']
        check('doctor: a packed image that is gone', code == 1 and row['state'] == 'wrong' and 'the packed image of chat is missing or has another size' in row['found'] and
              row['type'] == ['hearth pull --pack chat'] and 'GGUF' in row['costs'], row)
        mib = [int(re.search(r'(\d+) MiB', x)[1]) for x in (both, row['found'])]
        check('doctor: it is not counted', abs(mib[0] - mib[1] - (size >> 20)) <= 1, (mib, size))
        check('doctor: the disk is measured on another file', d['disk_gb_s'] > 0, rows['disk'])
    os.unlink(os.path.join(os.path.dirname(image), next(x for x in os.listdir(os.path.dirname(image)) if x.startswith('sha256-'))))
    code, rows, _ = states(home)
    check('doctor: a model that is gone', code == 1 and rows['model store']['found'] == '1 model, 0 MiB; chat lacks a file' and rows['model store']['type'] == ['hearth pull chat'], rows)
    check('doctor: and nothing to measure', 'are gone' in rows['disk']['found'], rows['disk'])
    code, rows, _ = states('/proc')
    check('doctor: where nothing can be made', code == 1 and rows['model store']['state'] == 'wrong' and ', 0 MiB free' in rows['model store']['found'], rows)
    with open(home + '/.local/share/hearth/hearth.db', 'wb') as f:
        f.write(b'no database' * 1000)
    code, rows, _ = states(home)
    check('doctor: a damaged index', code == 1 and rows['model store']['state'] == 'wrong' and 'index' in rows['model store']['costs'], rows['model store'])
    os.mkfifo(home + '/fifo')
    refused(home, ['doctor', 'no.gguf'], 3, 'no.gguf')
    refused(home, ['doctor', 'fifo'], 9, 'not a regular file')
    refused(home, ['doctor', TINY, 'x'], 2, 'hearth doctor [MODEL]')
    root = os.path.dirname(os.path.abspath(__file__))
    other = ['unshare', '-m', root + '/tools/as_box.sh', root + '/trees/halo-96g']
    if subprocess.run([*other, 'true'], capture_output=True).returncode == 0:
        r = subprocess.run([*other, hearth, 'doctor'], capture_output=True, text=True, timeout=60, env={**os.environ, 'HOME': home})
        check('doctor: another box', r.returncode == 1 and 'wrong: GPU card1\n' in r.stdout and 'type:  systemctl reboot --firmware-setup' in r.stdout, r)


def test_claims(home):
    """What other processes planned and do not hold yet. The last test: what this imports would count as memory of programs that are started later."""
    from served import Served
    runtime = home + '/runtime'
    os.makedirs(runtime + '/hearth', 0o700)
    name = runtime + '/hearth/plan-test'
    space = os.stat('/proc/self/ns/pid').st_ino
    with open(name, 'w') as f:
        fcntl.flock(f, fcntl.LOCK_EX)
        f.write(f'{os.getpid()} {space} {1 << 50}\n')
        f.flush()
        code, text, _ = run(home, 'plan', TINY, '--json', runtime=runtime)
        p = json.loads(text)
        check('plan: another process loads', code == 4 and (1 << 50) - (1 << 32) < p['host']['other_bytes'] < 1 << 50 and p['fits'] is False, text)
        code, _, err = run(home, 'run', TINY, 'x', '--max-tokens', '1', runtime=runtime)
        check('run: another process loads', code == 4 and ('what other hearth processes planned' in err or 'cgroup' in err), err)
        check('run: nothing is claimed then', os.listdir(runtime + '/hearth') == ['plan-test'])
    p = json.loads(run(home, 'plan', TINY, '--json', runtime=runtime)[1])
    check('plan: a process that ended', p['host']['other_bytes'] < 1 << 40 and p['fits'] and not os.path.exists(name), p)
    plain = f'/tmp/hearth-{os.geteuid()}'  # of a service of this user, which has no such variable
    os.makedirs(plain, 0o700, exist_ok=True)
    with open(f'{plain}/plan-test-{os.getpid()}', 'w') as f:
        fcntl.flock(f, fcntl.LOCK_EX)
        f.write(f'{os.getpid()} {space} {1 << 50}\n')
        f.flush()
        p = json.loads(run(home, 'plan', TINY, '--json', runtime=runtime)[1])
        check('plan: another process without XDG_RUNTIME_DIR', p['host']['other_bytes'] > 1 << 49 and p['fits'] is False, p)
        os.unlink(f.name)
    os.environ['XDG_RUNTIME_DIR'] = runtime
    with Served(hearth, TINY, '--parallel', '1', '--ctx', '64') as s:
        names = os.listdir(runtime + '/hearth')
        text = open(f'{runtime}/hearth/{names[0]}').read() if names else ''
        plan = json.loads(run(home, 'plan', TINY, '--parallel', '1', '--ctx', '64', '--json')[1])
        m = re.fullmatch(rf'{s.pid} {space} (\d+) 0 0 0\n', text)
        check('serve: its plan', len(names) == 1 and m and abs(int(m[1]) - plan['serve_total_bytes']) < 16 << 20, (names, text, plan))
        check('serve: ends', s.end() == 0, s.said())
    del os.environ['XDG_RUNTIME_DIR']
    check('serve: gives its plan back', os.listdir(runtime + '/hearth') == [])
    os.chmod(runtime + '/hearth', 0o755)
    code, text, err = run(home, 'run', TINY, 'x', '--max-tokens', '1', runtime=runtime)
    check('run: a folder that is open to others', code == 0 and os.listdir(runtime + '/hearth') == [] and 'do not learn' in err, (code, text, err))


def test_tune(home):
    """The stored profile is used, options have precedence, and one of another box or version is passed over with a note."""
    folder = os.path.join(home, '.local/state/hearth')
    code, text, err = run(home, 'tune', TINY, '--json')
    check('tune: what is best for a model in the caches is not stored', code == 0 and json.loads(text)['stored'] is None and os.listdir(folder) == [], (text, err))
    text = run(home, 'tune', TINY)[1]
    check('tune says why', 'not stored: so small a model' in text and 'stored in' not in text and os.listdir(folder) == [], text)
    code, shown = interrupted(home, 'tune', CHAT)
    check('tune: an interrupt', code == -signal.SIGINT and re.search(r'\r\x1b\[Khearth: interrupted, nothing was stored\r\n$', shown) and os.listdir(folder) == [], (code, shown))
    code, text, err = run(home, 'tune', CHAT, '--json')
    t = json.loads(text)
    if t['core_percent'] < 80:  # this machine is busy: nothing is stored, so the profile is made here
        check('tune on a busy box', code == 75 and t['stored'] is None and 'tune again when the box is idle' in err and os.listdir(folder) == [], (text, err))
        made_up(home, folder, t['after'])
        code, err, t['stored'] = 0, '', os.path.join(folder, os.listdir(folder)[0])
    path = t['stored']
    stored = json.load(open(path))
    check('tune --json', code == 0 and t['before']['batch'] == 512 and t['before']['prefill_tok_s'] > 0 and t['after']['decode_tok_s'] > 0 and
          t['tried'] >= 2 and 0 < t['core_percent'] <= 100 and re.fullmatch(re.escape(folder) + r'/tune-\d+\.json', path) and 'tuning' not in err, (t, err))
    check('tune stores what it found', (stored['threads'], stored['batch']) == (t['after']['threads'], t['after']['batch']), (t, stored))
    one = {min(os.sched_getaffinity(0))}
    code, text, err = run(home, 'tune', CHAT, before=lambda: os.sched_setaffinity(0, one))
    own = path.replace(os.path.basename(path), 'tune-1.json')
    check('tune: a process with one core has a profile of its own', (f'stored in {own}' in text and code == 0 or code == 75) and ' 1 thread, ' in text, (code, text, err))
    check('tune: which leaves that of the box', path == own or json.load(open(path)) == stored)

    def batch(*more):
        code, text, err = run(home, 'plan', TINY, '--ctx', '512', '--json', *more)
        return json.loads(text)['batch'], err
    json.dump({**stored, 'threads': 1, 'batch': 64}, open(path, 'w'))
    check('plan uses the profile', batch() == (64, ''), batch())
    check('the log says so', 'threads=1 batch=64' in batch('-v')[1], batch('-v'))
    b = json.loads(run(home, 'bench', '--limits', '--json')[1])
    check('bench uses it', (b['threads'], b['tuned']) == (1, True), b)
    b = json.loads(run(home, 'bench', TINY, '--prefill', '8', '--decode', '2', '--ctx', '512', '--json')[1])
    check('its pieces too', b['piece'] == 64, b)
    check('and says so', '\n1 thread, as hearth tune chose' in run(home, 'bench', '--limits')[1])
    check('plan too', 'pieces of 64 (threads and pieces as hearth tune chose)' in run(home, 'plan', TINY, '--ctx', '512')[1])
    b = json.loads(run(home, 'bench', '--limits', '--threads', '2', '--json')[1])
    check('an option has precedence', b['threads'] == 2, b)
    check('and no other is told', 'as hearth tune chose' not in run(home, 'bench', '--limits', '--threads', '2')[1])
    usual = run(home, 'run', TINY, 'a', '--raw', '--temp', '0', '-n', '8')[1]
    changes = [({'processor': 'another'}, 'of another processor'), ({'version': '0'}, 'of another version of hearth'),
               *(({k: v}, 'damaged') for k, v in (('batch', 0), ('threads', -1), ('threads', int(re.search(r'tune-(\d+)', path)[1]) + 1), ('batch', 'x'), ('batch', 1 << 40)))]
    for change, why in changes:
        json.dump({**stored, 'batch': 64, **change}, open(path, 'w'))
        n, err = batch()
        check(f'a profile with {change} is passed over with a note', n == 512 and f'the profile is {why} and not used; run hearth tune again' in err, (n, err))
    for text in ('', '{', '[]', 'x' * 10000):
        open(path, 'w').write(text)
        n, err = batch()
        check(f'a profile of {len(text)} bytes that make no sense likewise', n == 512 and 'hearth tune' in err, (n, err))
    os.remove(path)
    os.mkdir(path)
    n, err = batch()
    check('a folder in its place likewise', n == 512 and 'hearth tune' in err, (n, err))
    refused(home, ['tune', TINY], 9, 'no ordinary file')
    os.rmdir(path)

    def need(n, *more):
        json.dump({**stored, 'threads': t['before']['threads'], 'batch': n}, open(path, 'w'))
        return json.loads(run(home, 'plan', CHAT, '--json', *more)[1])['total_bytes'] >> 20
    usual_mib, large_mib = need(512), need(4096)
    p = json.loads(run(home, 'plan', CHAT, '--json', '--memory', str((usual_mib + large_mib) // 2))[1])
    check('a profile never keeps a model from starting', large_mib > usual_mib + 8 and p['fits'] and p['batch'] == 512, (usual_mib, large_mib, p))
    least = need(512, '--ctx', '1049')  # tune asks for no more context than it measures
    code, text, err = run(home, 'tune', CHAT, '--json', '--memory', str((least + need(1024, '--ctx', '1049')) // 2 + 2))
    sizes = json.loads(text or '{}')
    check('tune leaves out what does not fit', code in (0, 75) and sizes['after']['batch'] <= 512 and sizes['tried'] <= t['tried'], (code, text, err, t))
    refused(home, ['tune', CHAT, '--memory', str(least - 20)], 4, 'this needs ', '): choose a smaller model, or a larger --memory\n')
    os.remove(path)
    check('without a profile no note', batch() == (512, ''), batch())
    check('answers are the same with and without', run(home, 'run', TINY, 'a', '--raw', '--temp', '0', '-n', '8')[1] == usual)
    refused(home, ['tune', 'no.gguf'], 3, 'no.gguf')
    shutil.rmtree(os.path.dirname(path))
    open(os.path.dirname(path), 'w').close()
    advice = f'tune stores its profile in {os.path.dirname(path)}: mend that, or use another folder: export XDG_STATE_HOME=/A/FOLDER'
    refused(home, ['tune', TINY, '--memory', '1'], 9, f'{os.path.dirname(path)}: exists and is no folder; {advice}')  # before the model is opened
    os.remove(os.path.dirname(path))
    for mode in (0o500, 0o600):
        os.mkdir(os.path.dirname(path), mode)
        code, text, err = run(home, 'tune', TINY, '--memory', '1', before=drop_override)
        check(f'tune: a folder of mode {mode:o}', code == 9 and text == '' and err == f'hearth: {os.path.dirname(path)}: cannot write: Permission denied; {advice}\n', (code, text, err))
        os.rmdir(os.path.dirname(path))


def test_experts(home):
    """Of a model with experts, what one token uses: 2 of 4, three matrices of 128 x 128 each, in two layers."""
    mixtral = fixtures + '/zoo/mixtral.gguf'
    n, idle = 624256, 2 * 2 * 3 * 128 * 128
    j = json.loads(run(home, 'show', mixtral, '--json')[1])
    check('show: active parameters', (j['parameters'], j['active_parameters']) == (n, n - idle), j)
    check('show: active parameters, as text', 'parameters  0.6 million, 0.4 million active, in ' in run(home, 'show', mixtral)[1])
    j = json.loads(run(home, 'show', TINY, '--json')[1])
    check('show: a dense model uses all', j['parameters'] == j['active_parameters'], j)
    code, text, err = run(home, 'bench', mixtral, '--prefill', '32', '--decode', '8')
    check('bench: active parameters', code == 0 and 'llama F32, 0.6 million parameters, 0.4 million active' in text, (text, err))
    code, text, err = run(home, 'bench', TINY, '--prefill', '32', '--decode', '8')
    check('bench: parameters', code == 0 and re.search(r'million parameters$', text, re.M), (text, err))
    plan = json.loads(run(home, 'plan', mixtral, '--json')[1])
    table = 512 * 128  # of tokens, of which one row is read
    check('plan: a token reads the experts that it uses', abs(plan['step_read_bytes'] - 4 * (n - idle - table)) < 16384, plan)


def test_bench(home):
    code, text, _ = run(home, 'bench', TINY, '--prefill', '16', '--decode', '8', '--depth', '20', '--batch', '3', '--threads', '1', '--kv', 'q8_0', '--json')
    b = json.loads(text)
    numbers = ['prefill_tok_s', 'decode_tok_s', 'read_gb_s', 'int8_gop_s', 'decode_read_gb_s', 'decode_read_percent', 'prefill_gop_s', 'prefill_peak_percent', 'decode_gop_s', 'decode_peak_percent']
    check('bench --json', code == 0 and all(b[k] > 0 for k in numbers) and (b['prefill'], b['decode'], b['depth'], b['batch']) == (16, 8, 20, 3), b)
    check('bench: what was predicted', b['predicted_prefill_tok_s'] > 0 and b['predicted_decode_tok_s'] > 0 and 0 < b['least_read_gb_s'] <= b['read_gb_s'], b)
    near = abs(b['decode_read_gb_s'] / b['read_gb_s'] * 100 - b['decode_read_percent']) < 2 + 0.02 * b['decode_read_percent']
    check('bench: the share is that of the figure', near, b)
    layers = [t['shape'] for t in json.loads(run(home, 'show', TINY, '--json')[1])['tensors'] if t['name'].startswith('blk.') and len(t['shape']) == 2]
    per_token = b['prefill_gop_s'] * 1e9 / b['prefill_tok_s'] / sum(2 * x * y for x, y in layers)
    check('bench: operations of a prompt are those of the layers', len(layers) == 14 and 0.9 < per_token < 1.1, (per_token, layers))
    shown = json.loads(run(home, 'show', TINY, '--json')[1])
    rows, cols = next(t['shape'] for t in shown['tensors'] if t['name'] == 'token_embd.weight')
    ratio = (b['decode_gop_s'] / b['decode_tok_s'] - b['prefill_gop_s'] / b['prefill_tok_s']) * 1e9 / (2 * rows * cols)
    check('bench: operations of an answer count the output matrix', 0.5 < ratio < 1.5, ratio)
    info = shown['metadata']['llama.context_length']
    text = run(home, 'bench', TINY, '--prefill', '8', '--decode', '2')[1]
    check('bench: that as text', re.search(r'^  predicted by hearth plan with these limits: prompt [\d.]+ tok/s \([+-]\d+ %\), answer [\d.]+ \([+-]\d+ %\)$', text, re.M), text)
    p = json.loads(run(home, 'plan', GEMMA, '--json')[1])  # 6 of 7 layers see 16 positions
    check('plan --json: layers with a window', (p['window'], p['window_kv_bytes'] * 7) == (16, p['token_kv_bytes'] * 6), p)
    w = json.loads(run(home, 'bench', GEMMA, '--prefill', '16', '--decode', '8', '--depth', '900', '--json')[1])
    read = 1e9 * w['decode_read_gb_s'] / w['decode_tok_s'] / (p['step_read_bytes'] + p['token_kv_bytes'] / 7 * (900 + 6 * 16))
    check('bench: what a window leaves out is not read', 0.95 < read < 1.05, (read, w))
    refused(home, ['bench', TINY, '--depth', '16777216'], 2, 'context of 16777729 tokens', '16777216', 'lower --depth (16777216), --prefill (512), --decode (64) or --batch (1)')
    refused(home, ['bench', TINY, '--decode', str(info)], 11, f'made for {info}: lower --depth (0), --prefill (512), --decode ({info}) or --batch (1)')
    refused(home, ['bench', TINY, '--ctx', str(info + 1)], 11, f'context of {info + 1} tokens was asked for; this model was made for {info}\n')
    for args, least in ((['--prefill', '32'], 73), (['--prefill', '100', '--depth', '20'], 121), (['--prefill', '4', '--decode', '3', '--depth', '40', '--batch', '2'], 108)):
        refused(home, ['bench', TINY, *args, '--ctx', str(least - 1)], 2, f'--ctx {least - 1} is too little', f'give {least} or more')
        code, _, err = run(home, 'bench', TINY, *args, '--ctx', str(least))
        check(f'bench {args}: the least context works', code == 0, err)
    p = json.loads(run(home, 'plan', CHAT, '--ctx', '8192', '--json')[1])
    kept = sum(x['bytes'] for x in p['parts'] if x['name'] in ('weights', 'tokenizer', 'template', 'program and libraries'))
    check('plan --json: what no smaller context saves', kept <= p['least_bytes'] < p['total_bytes'] - (100 << 20), p)
    some, less = str((p['least_bytes'] + p['total_bytes']) // 2 >> 20), str((kept >> 20) - 10)
    for args, advice in ((['bench', CHAT, '--depth', '8000', '--decode', '8', '--prefill', '8'], 'lower --depth, --prefill, --decode or --batch, or choose a smaller model, or a larger --memory\n'),
                         (['bench', CHAT, '--ctx', '8192'], 'lower --ctx or --batch, or choose a smaller model, or a larger --memory\n'),
                         (['run', CHAT, 'a', '--ctx', '8192'], 'choose a smaller context or a smaller model, or allow more\n')):
        refused(home, [*args, '--memory', some], 4, f'{some}.0 MiB are available', advice)
        refused(home, [*args, '--memory', less], 4, ' MiB are available (the limit that was given): choose a smaller model, or a')
    for args in (['bench', CHAT, '--prefill', '64', '--decode', '4'], ['tune', CHAT]):
        _, _, err = run(home, *args, '--memory', '100')
        told = float(re.search(r'needs ([0-9.]+) MiB', err)[1])
        code, _, err = run(home, *args, '--memory', str(int(told) + 1))
        check(f'{args}: what is said to be needed suffices', code in (0, 75), (told, code, err))
    text = run(home, 'plan', CHAT, '--ctx', '8192', '--memory', less)[1]
    check('plan: no smaller context would do', re.search(r'^Choose a smaller model: [0-9.]+ MiB are missing\.$', text, re.M), text)
    check('bench: the peak is that of its arithmetic', (b['type'], b['peak']) == ('F32', 'f32') and abs(100 * b['prefill_gop_s'] / b['f32_gflop_s'] - b['prefill_peak_percent']) < 1, b)
    q = json.loads(run(home, 'bench', CHAT, '--prefill', '16', '--decode', '4', '--json')[1])
    check('bench: what stays in caches', b['in_caches'] and (not q['in_caches'] or q['decode_read_percent'] > 100), (b, q))
    check('bench: that of weights of few bits too', q['peak'] == 'int8' and abs(100 * q['prefill_gop_s'] / q['int8_gop_s'] - q['prefill_peak_percent']) < 1, q)
    refused(home, ['bench', TINY, '--depth', str(info), '--ctx', '9'], 11, f'made for {info}: lower --depth ({info})')
    refused(home, ['bench', TINY, '--kv', 'q4'], 2, 'f32)\n')
    code, _, err = run(home, 'bench', '--limits', '--memory', '12')
    need = re.search(r'needs (\d+) MiB, 12 are available \(the limit that was given\)', err)
    check('bench --limits with too little memory', code == 4 and need and err.count('\n') == 1, (code, err))
    most = int(need.group(1)) + 2
    with subprocess.Popen([hearth, 'bench', '--limits', '--memory', str(most)], stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL) as p:
        _, status, used = os.wait4(p.pid, 0)
        p.returncode = status
    check('bench --limits stays within --memory', status == 0 and used.ru_maxrss <= most * 1024, (status, used.ru_maxrss, most))
    b = json.loads(run(home, 'bench', '--limits', '--memory', str(most), '--json')[1])
    check('bench --limits says what was read', 16 << 20 <= b['read_bytes'] <= most << 20 and b['read_gb_s'] > 0, b)
    rates = ['read_gb_s', 'int8_gop_s', 'f32_gflop_s']
    check('bench --limits: one thread too', all(b[k] > 0 and b['one_thread'][k] > 0 for k in rates) and 'bf16_gflop_s' in b, b)
    b = json.loads(run(home, 'bench', '--limits', '--threads', '1', '--json')[1])
    check('bench --limits: of one thread', b['threads'] == 1 and all(b[k] == b['one_thread'][k] for k in rates), b)
    text = run(home, 'bench', '--limits')[1]
    check('bench --limits: caches', 'caches' not in text, text)
    many = str(min(3 * len(os.sched_getaffinity(0)), 256))
    text = run(home, 'bench', '--limits', '--threads', many)[1]
    b = json.loads(run(home, 'bench', '--limits', '--threads', many, '--json')[1])
    shares = [int(re.search(r'^the threads got (\d+) % of their time on the cores', text, re.M)[1]), b['core_percent']]
    check('bench --limits: threads that do not get their cores', all(x < 80 for x in shares), (text, b))
    for args in (['--limits'], [TINY, '--prefill', '4', '--decode', '4']):
        text = run(home, 'bench', *args, '--memory', '100')[1]
        read, wanted = map(int, re.search(r'^caches may .* (\d+) MiB that could be read: .* shows with (\d+) MiB$', text, re.M).groups())
        check(f'bench {args}: caches', read < 100 and wanted == b['wanted_bytes'] >> 20, text)
    text = run(home, 'bench', '--limits', '--memory', str(2 * wanted + 64))[1]
    check('bench --limits: so much suffices', 'caches' not in text, text)
    check('bench --limits as text', re.search(r'^int8 peak +[0-9.]+ +[0-9.]+  GOP/s$', text, re.M), text)
    code, text, _ = run(home, 'bench', '--kernels')
    check('bench --kernels', code == 0 and re.search(r'^products +\w+', text, re.M) and re.search(r'^available +scalar +yes', text, re.M), text)
    k = json.loads(run(home, 'bench', '--kernels', '--json')[1])['kernels']
    told = [f'{name:11}{value}' for name, value in k.items() if name != 'available'] + [f'available  {level:9}{value}' for level, value in k['available'].items()]
    check('bench --kernels --json', sorted(told) == sorted(x.rstrip() for x in text.splitlines()), (k, text))
    text = run(home, 'bench', '--kernels', '--isa', 'scalar')[1]
    check('bench --kernels --isa', re.search(r'^products +scalar', text, re.M), text)
    if re.search(r'^available +avxvnni +yes', text, re.M):
        text = run(home, 'bench', '--kernels', '--isa', 'avxvnni')[1]
        check('bench --kernels: whose vectors', re.search(r'^products +avx vnni.*\n(.*\n)?vectors +avx2', text, re.M), text)


def on_terminal(home, *args):
    """(exit code, standard output, what the terminal got from standard error)"""
    master, slave = pty.openpty()
    env = {k: v for k, v in os.environ.items() if not k.startswith('XDG_')}
    with subprocess.Popen([hearth, *args], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=slave, env={**env, 'HOME': home}) as p:
        os.close(slave)
        shown = b''
        with contextlib.suppress(OSError):  # the end of a terminal
            while piece := os.read(master, 65536):
                shown += piece
        out = p.stdout.read().decode()
    os.close(master)
    return p.returncode, out, shown.decode()


def interrupted(home, *args):
    """(exit code, what the terminal got) of a program that is interrupted when its bar is seen."""
    master, slave = pty.openpty()
    env = {k: v for k, v in os.environ.items() if not k.startswith('XDG_')}
    with subprocess.Popen([hearth, *args], stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=slave, env={**env, 'HOME': home},
                          preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL)) as p:
        os.close(slave)
        shown = b''
        with contextlib.suppress(OSError):  # the end of a terminal
            while piece := os.read(master, 65536):
                if b'[' in piece and shown == b'':
                    p.send_signal(signal.SIGINT)
                shown += piece
    os.close(master)
    return p.returncode, shown.decode()


def test_bars(home):
    """Long work shows how far it has come, on a terminal alone, and wipes that off; what it prints is the same."""
    many = ['bench', TINY, '--prefill', '4', '--decode', '900', '--batch', '128', '--json']
    for args, word in ((many, 'answers'), (['tune', CHAT, '--json'], 'tuning')):
        began = time.monotonic()
        code, out, shown = on_terminal(home, *args)
        is_long = time.monotonic() - began > 1
        bars = re.findall(rf'\r{word} \[([# ]{{24}})\] +(\d+) %  \d+ s\x1b\[K', shown)
        check(f'{args}: a bar', (code == 0 or code == 75 and word == 'tuning') and (len(bars) > 1 or not is_long) and bars == sorted(bars, key=lambda x: int(x[1])) and (re.search(r'\r\x1b\[K(hearth: not stored.*)?\s*$', shown) or not bars) and json.loads(out), shown)
    code, out, err = run(home, *many)
    check('no bar elsewhere', code == 0 and err == '' and json.loads(out)['batch'] == 128, err)


def lines(home, *args, cases):
    code, text, _ = run(home, *args, data=''.join((c if isinstance(c, str) else json.dumps(c)) + '\n' for c in cases).encode())
    return code, [json.loads(x) for x in text.splitlines()]


def test_probes(home):
    """As tests/fixtures/PROBE.md has them; what they say about models is checked by tests/fixtures."""
    code, a = lines(home, 'tokenize', '-m', CHAT, cases=[{'id': 'x', 'text': 'Hello <|im_end|>'}, {'id': 2, 'text': '<|im_end|>', 'parse_special': True}, 'broken',
                                                         {'id': 3}, {'id': 4, 'text': 5}, {'id': 5, 'b64': '!'}, {'id': 6, 'b64': base64.b64encode(b'Hi').decode()}])
    check('tokenize', code == 0 and [x['id'] for x in a] == ['x', 2, None, 3, 4, 5, 6] and len(a[0]['tokens']) > 2 and len(a[1]['tokens']) == 1, a)
    check('tokenize: cases that cannot be done', [i for i, x in enumerate(a) if set(x) == {'id', 'error'}] == [2, 3, 4, 5] and 'tokens' in a[6], a)
    code, b = lines(home, 'detokenize', '-m', CHAT, cases=[{'id': 1, 'tokens': a[0]['tokens']}, {'id': 2, 'tokens': a[1]['tokens']}, {'id': 3, 'tokens': a[1]['tokens'], 'special': True},
                                                           {'id': 4, 'tokens': [99999999]}, {'id': 5}, {'id': 6, 'tokens': ['1']}])
    check('detokenize', code == 0 and [base64.b64decode(x.get('b64', '')) for x in b] == [b'Hello <|im_end|>', b'', b'<|im_end|>', b'', b'', b''], b)
    check('detokenize: cases that cannot be done', [x['id'] for x in b if 'error' in x] == [4, 5, 6], b)
    options = [[], ['--kv', 'f32'], ['--isa', 'scalar', '--threads', '1', '--kv', 'q8_0']]
    for o in options:
        code, a = lines(home, *o, 'logits', '-m', TINY, '-o', 'rows', cases=[{'id': 1, 'tokens': [1, 2, 3], 'positions': [0, 2], 'ctx': 8, 'chunks': [2]},
                                                                            {'id': 2, 'tokens': [-1]}, {'id': 3, 'tokens': [4, 5], 'stats': True},
                                                                            {'id': 4, 'tokens': [1, 2, 3], 'chunks': [1, (1 << 63) - 1]}])
        check(f'{o} logits', code == 0 and a[0]['rows'] == 2 and 'error' in a[1] and len(a[2]['nll']) == 1 and len(a[2]['argmax']) == 2, a)
        check(f'{o} logits: a chunk beyond any text', 'chunks[1]: not a number from 1 to 16777216' in a[3].get('error', ''), a)
        check(f'{o} logits: rows', os.path.getsize(home + '/rows') == 4 * a[0]['n_vocab'] * (a[0]['rows'] + a[2]['rows']), a)
    with open(home + '/t.jinja', 'w') as f:
        f.write('{% if vars_x is defined %}{{ vars_x }}{% endif %}{{ bos_token }}{{ messages[0].content }}{{ strftime_now("%Y") }}'
                '{% if messages[0].role == "bad" %}{{ raise_exception("no") }}{% endif %}')
    case = {'messages': [{'role': 'user', 'content': 'hi'}], 'tools': None, 'add_generation_prompt': True, 'bos_token': '<s>', 'now': '2024-02-29T10:11:12'}
    code, a = lines(home, 'render', '--template', 't.jinja', cases=[{**case, 'id': 1, 'vars': {'vars_x': 'v'}}, {**case, 'id': 2, 'messages': [{'role': 'bad', 'content': ''}]},
                                                                    {**case, 'id': 3, 'template': 'own'}])
    check('render', code == 0 and a[0] == {'id': 1, 'text': 'v<s>hi2024'} and set(a[1]) == {'id', 'error'} and a[2]['text'] == 'own', a)
    code, a = lines(home, 'render', '-m', CHAT, cases=[{**case, 'id': 1}])
    check("render: a model's template", code == 0 and 'hi' in a[0]['text'] and '<|im_start|>' in a[0]['text'], a)
    with open(home + '/blocks', 'wb') as f:
        f.write(bytes(144))
    check('dequant', run(home, 'dequant', '--type', 'Q4_K', '--in', 'blocks', '--out', 'floats') == (0, '', '') and open(home + '/floats', 'rb').read() == bytes(1024))
    refused(home, ['dequant', '--type', 'Q9', '--in', 'blocks', '--out', 'x'], 2, 'Q9')
    refused(home, ['dequant', '--type', 'Q6_K', '--in', 'blocks', '--out', 'x'], 5, '144', 'Q6_K')
    refused(home, ['logits', '-m', TINY, '-o', 'no/rows'], 9, 'no/rows')


def test_streams(home):
    """Readers that leave, and disks that are full."""
    every = [('--help',), ('man',), ('list',), ('list', '--json'), ('plan', TINY), ('plan', TINY, '--json'), ('show', TINY), ('verify', TINY), ('bench', '--kernels'),
             ('completion', 'zsh'), ('run', TINY, 'x', '--raw', '--max-tokens', '4'), ('run', TINY, 'x', '--raw', '--max-tokens', '4', '--json')]
    for args in every:
        with open('/dev/full', 'wb') as full:
            code, _, err = run(home, *args, stdout=full)
        check(f'{args} to a full disk', code == 9 and 'standard output' in err and err.count('\n') == 1, (code, err))
    with open('/dev/full', 'wb') as full:
        code, _, err = run(home, 'run', TINY, 'x', '--raw', '--ignore-eos', stdout=full)
    check('an answer to a full disk ends early', code == 9 and 'standard output' in err and 'context' not in err, (code, err))
    closed = lambda fd, *args: subprocess.run([hearth, *args], preexec_fn=lambda: os.close(fd), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                                                stderr=subprocess.PIPE, env={**os.environ, 'HOME': home, 'XDG_DATA_HOME': home + '/d'})
    check('no standard input is an empty one', closed(0, 'tokenize', '-m', TINY).stdout == b'')
    check('no standard output is a failure', closed(1, 'list').returncode == 9)
    check('no standard output: nothing is written elsewhere', closed(1, 'pull', TINY).returncode == 9 and closed(2, 'verify').returncode == 0)
    r, w = os.pipe()
    os.close(r)
    p = subprocess.Popen([hearth, 'show', CHAT], stdout=w, stderr=subprocess.PIPE, env={**os.environ, 'HOME': home})
    os.close(w)
    check('a reader that left: no message', p.stderr.read() == b'' and p.wait() == -13, p.returncode)
    p.stderr.close()
    code, text, err = run(home, 'show', CHAT)
    check('no colours, nothing but text', code == 0 and '\x1b' not in text + err, err)


def test_stack(home):
    """Little stack is refused by name, and the least that is taken suffices."""
    for kib, want in ((64, 11), (511, 11), (512, 0)):
        for args in (['--version'], ['plan', TINY], ['run', TINY, 'x', '--raw', '--max-tokens', '4'], ['run', CHAT, 'x', '--max-tokens', '1'],
                     ['bench', TINY, '--prefill', '8', '--decode', '4']):
            code, out, err = shell(home, f'ulimit -s {kib}; exec "$@"', *args)
            check(f'{args} with a stack of {kib} KiB', code == want and (want == 0 or ('ulimit -s' in err and err.count('\n') == 1)), (code, out, err))


def test_few_files(home):
    """Where hardly any file can be opened, that is said, nothing that is untrue, and what to type."""
    for n in (4, 5, 6):
        code, _, err = shell(home, f'ulimit -n {n}; exec "$@"', 'run', CHAT, 'x', '--max-tokens', '1')
        wants = f'/proc/self/smaps: cannot open: one more open file is needed, and {n} are allowed here: raise the limit (ulimit -n 64)'
        check(f'run with {n} open files', code == 0 and (wants in err and all(wants in x or 'do not learn' in x for x in err.splitlines()) if n == 4 else 'kernel' not in err), err)
    code, out, err = shell(home, 'ulimit -n 4; exec "$@"', 'run', CHAT, '--draft', CHAT, 'x')
    check('a draft model needs one more', code == 11 and out == '' and err.startswith(f'hearth: {CHAT}: cannot open') and 'ulimit -n 64' in err, err)


def few_threads():
    """Before a program: it may have two threads, as one of another user, which root is not held to."""
    for capability in (21, 24):  # CAP_SYS_ADMIN, CAP_SYS_RESOURCE
        ctypes.CDLL(None).prctl(24, capability, 0, 0, 0)
    resource.setrlimit(resource.RLIMIT_NPROC, (2, 2))
    if os.geteuid() == 0:
        os.setresuid(54321, 0, 0)


def test_few_threads(home):
    if os.geteuid() == 0:  # another user may run much else
        code, _, err = run(home, 'run', TINY, 'x', '--threads', '4', before=few_threads)
        check('threads: which, how many of them, and what is allowed', code == 9 and re.match('hearth: cannot start worker thread 2 of 3: no more threads are allowed here: '
              'ulimit -u allows this user 2 in all; (pids.max of the cgroup leaves [0-9]+; )?raise that, or give fewer --threads\n\\Z', err), (code, err))


def test_made(home):
    """The manual page and the completions know every command and option."""
    options = {}
    for c in COMMANDS:
        options[c] = set(re.findall(r'^  (?:-\w, |    )--([a-z0-9-]+)', run(home, c, '--help')[1], re.M)) - {'help'}
    every = set().union(*options.values())
    check('options', len(every) > 30 and options['run'] >= {'ctx', 'max-tokens', 'temp', 'seed', 'threads', 'kv', 'system', 'json'} and
          options['serve'] >= {'model', 'host', 'port', 'ctx', 'parallel', 'kv', 'api-key-file'} and options['plan'] >= {'ctx', 'parallel', 'kv', 'json'} and
          options['bench'] >= {'prefill', 'decode', 'depth', 'batch', 'threads', 'kv', 'json'}, options)
    page = run(home, 'man')[1]
    check('man: complete', all(f'\\fBhearth {c}\\fR' in page for c in COMMANDS) and all('\\fB\\-\\-' + o.replace('-', '\\-') + '\\fR' in page for o in every), page)
    if shutil.which('man'):
        r = subprocess.run(['man', '--warnings', '-l', '-'], input=page.encode(), stdout=subprocess.PIPE, stderr=subprocess.PIPE, env={**os.environ, 'MANWIDTH': '80', 'LC_ALL': 'C.UTF-8'})
        shown = re.sub('.\b', '', r.stdout.decode())
        check('man: no warning', r.returncode == 0 and r.stderr == b'' and 'EXIT STATUS' in shown and '--max-tokens' in shown, r.stderr)
    for shell in ('bash', 'zsh', 'fish'):
        text = run(home, 'completion', shell)[1]
        check(f'completion {shell}: complete', all(c in text for c in COMMANDS) and all(o in text for o in every), text)
        if shutil.which(shell):
            r = subprocess.run([shell, '-n', '/dev/stdin'], input=text.encode(), stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
            check(f'completion {shell}: {shell} reads it', r.returncode == 0 and r.stdout == b'', r.stdout)
    test_names(home)


def test_names(home):
    """Completion offers what can stand there: commands, options, models of the store and files, known models for pull."""
    run(home, 'pull', TINY, '--name', 'a:one')
    run(home, 'pull', TINY, '--name', 'a:two')
    for name in ('a file.gguf', 'other'):
        with open(f'{home}/{name}', 'w'):
            pass
    os.mkdir(home + '/folder')
    env = {**{k: v for k, v in os.environ.items() if not k.startswith('XDG_')}, 'HOME': home, 'PATH': os.path.dirname(hearth) + ':' + os.environ['PATH']}
    script = run(home, 'completion', 'bash')[1] + 'COMP_LINE=$1 COMP_POINT=${#1}; _hearth; printf "%s\\n" "${COMPREPLY[@]}"'
    for line, want in (('pl', ['plan']), ('', COMMANDS), ('plan --par', ['--parallel']), ('run --max', ['--max-tokens']), ('plan --temp', ['']),
                       ('run a', ['a:one', 'a:two', 'a file.gguf']), ('run a:', ['one', 'two']), ('show a:t', ['two']), ('verify ', ['a:one', 'a:two', 'a file.gguf', 'other', 'folder']),
                       ('serve --model a:', ['one', 'two']), ('serve --model=a:o', ['one']), ('tokenize -m a:t', ['two']), ('rm no', ['']), ('plan fo', ['folder']),
                       ('pull smollm2', ['smollm2:135m']), ('pull smollm2:', ['135m']), ('pull o', ['other']), ('list a', ['']),
                       ('run --kv ', ['']), ('run --kv=', ['']), ('run -n ', ['']), ('--', ['--help', '--version']), ('--v', ['--version']), ('list --h', ['--help'])):
        for program in ('hearth ', hearth + ' '):
            r = subprocess.run(['bash', '-c', script, 'bash', program + line], stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=env, cwd=home)
            got = r.stdout.decode().split('\n')[:-1]
            check(f'completion of {line!r}', (sorted(got) == sorted(want) or set(got) - set(os.listdir(home)) == set(want) - set(os.listdir(home)) != set()) and r.stderr == b'',
                  (got, want, r.stderr))
    for shell, words in (('zsh', "'*:model:_hearth_models'"), ('fish', "from run' -a '(__hearth_models)'")):
        text = run(home, 'completion', shell)[1]
        listed = re.search(r'hearth (list .*not here.*d;.*?p\')', text)[1]
        r = subprocess.run(['sh', '-c', 'hearth ' + listed], stdout=subprocess.PIPE, env=env)
        check(f'completion {shell}: names', words in text and r.stdout == b'a:one\na:two\n', (r.stdout, text))
    if shutil.which('fish'):
        for line in ('hearth run a:', 'hearth tokenize --model a:', 'hearth rm a:'):
            r = subprocess.run(['fish', '-c', f"hearth completion fish | source; complete -C '{line}'"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=env, cwd=home)
            check(f'completion fish: {line}', {'a:one', 'a:two'} <= set(re.findall(r'^a:\w+', r.stdout.decode(), re.M)), r)


def main():
    test_readme()
    for test in [test_help, test_readme_commands, test_usage, test_numbers, test_models, test_damage, test_plan, test_pools, test_doctor, test_nearest, test_tune, test_experts, test_bench, test_bars, test_probes, test_streams, test_stack, test_few_files, test_few_threads, test_made, test_claims]:
        with tempfile.TemporaryDirectory() as home:
            test(home)
    finish()


main()
