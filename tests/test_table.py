#!/usr/bin/env python3
"""test_table.py: bench/table.py with programs that only speak: parsing, ratios, resuming, known figures, csv, Markdown, SVG.

The stand-ins for hearth, llama-bench and the programs beside it write down how they were called. Prints 'N passed, N failed'."""
import csv
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
import xml.dom.minidom

import checks

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
sys.path.insert(0, ROOT + '/bench')
import programs  # noqa: E402
import report  # noqa: E402

check = checks.check
HEARTH = """
READS = [50.0]
import json
if a[0] == 'run':
    print('a')
elif a[0] == 'list':
    n = sum(l.startswith('hearth pull') for l in open(log))
    print(json.dumps(dict(models=[dict(name='tiny-q4_0', image='abc', **({'image_fault': 'is old'} if n == 1 else {}))] * (n > 0))))
elif a[0] == 'pull':
    print('pulled')
elif '--limits' in a:
    calls = sum('--limits' in l for l in open(log))
    reads = READS
    print(json.dumps(dict(read_gb_s=reads[min(calls, len(reads)) - 1], int8_gop_s=900.0)))
else:
    n = sum('bench' in l for l in open(log))
    print(json.dumps(dict(prefill_tok_s=400.0 + n, decode_tok_s=60.0, read_gb_s=50.0, int8_gop_s=900.0, decode_read_percent=80.0, prefill_peak_percent=60.0, peak='int8')))
"""
BENCH = """
import json
if '--help' in a:
    print('-rtr, --run-time-repack <0|1>\\n-thp, --transparent-huge-pages <0|1>\\n-w, --warmup <0|1>')
else:
    rtr = '-rtr' in a and a[a.index('-rtr') + 1] == '1'
    print(json.dumps([dict(n_prompt=512, n_gen=0, avg_ts=100.0 if rtr else 200.0), dict(n_prompt=0, n_gen=64, avg_ts=30.0 if rtr else 20.0)]))
"""


def program(folder, name, body):
    path = os.path.join(folder, name)
    log = os.path.join(folder, 'calls')
    with open(path, 'w') as f:
        f.write(f'#!{sys.executable}\nimport sys\na, log = sys.argv[1:], {log!r}\nopen(log, "a").write({name!r} + " " + " ".join(a) + "\\n")\n{body}')
    os.chmod(path, 0o755)
    return path


def rows_program(rows):
    return f"for row in {rows!r}:\n    print('|' + '|'.join('%8s' % x for x in row) + '|', file=sys.stderr)\nprint('main: done')\n"


class Box:
    """A folder with stand-ins and a model that nobody reads."""

    def __init__(self, folder):
        self.folder = folder
        program(folder, 'hearth', HEARTH)
        program(folder, 'llama-bench', BENCH)
        program(folder, 'llama-batched-bench', rows_program([('PP', 'TG', 'B', 'N_KV', 'T_PP s', 'S_PP t/s', 'T_TG s', 'S_TG t/s', 'T s', 'S t/s'),
                                                              (8, 32, 2, 80, 0.1, 160.0, 0.8, 81.5, 0.9, 88.0)]))
        program(folder, 'llama-sweep-bench', rows_program([(512, 128, 0, 1.0, 512.0, 2.0, 64.0), (512, 128, 64, 1.3, 393.8, 3.2, 41.25)]))
        program(folder, 'python', 'sys.exit(1)')  # has no llama-cpp-python
        os.makedirs(folder + '/models')
        open(folder + '/models/tiny-q4_0.gguf', 'w').close()
        self.out = folder + '/out'

    def run(self, *more, name='peer'):
        args = [sys.executable, ROOT + '/bench/table.py', self.out, '--hearth', self.folder + '/hearth', '--python', self.folder + '/python',
                '--models', self.folder + '/models', '--threads', '2', *([] if '--only' in more else ['--only', 'tiny*'])]
        if name:
            args += ['--llama-bench', f'{name}={self.folder}/llama-bench']
        return subprocess.run(args + list(more), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)

    def calls(self):
        return [line for line in open(self.folder + '/calls').read().splitlines() if '--help' not in line and '--limits' not in line and not line.startswith('python')]

    def rows(self):
        with open(self.out + '/table.csv', newline='') as f:
            return {(r['cell'], r['figure'], r['program']): r for r in csv.DictReader(f)}


def test_whole(b):
    r = b.run('--rounds', '2')
    check('the table is made', r.returncode == 0, r.stdout)
    rows = b.rows()
    own, peer = rows['tiny-q4_0', 'prefill', 'hearth'], rows['tiny-q4_0', 'prefill', 'peer']
    check('a median of two rounds', own['rounds'] == '2' and float(own['least']) < float(own['median']) < float(own['most']), own)
    check('the better setting counts, for each figure', peer['median'] == '200' and rows['tiny-q4_0', 'decode', 'peer']['median'] == '30', rows)
    check('the ratio is hearth to the other', rows['tiny-q4_0', 'decode', 'peer']['hearth_ratio'] == '2', rows)
    check('a share of the limit for both', float(rows['tiny-q4_0', 'decode', 'hearth']['percent_of_limit']) == 80 and
          float(rows['tiny-q4_0', 'decode', 'peer']['percent_of_limit']) == 40, rows)
    check('depth by the program beside it', rows['tiny-q4_0 depth 64', 'decode', 'peer']['median'] == '41.25' and
          rows['tiny-q4_0 depth 64', 'prefill', 'peer']['median'] == '393.8', rows)
    check('batches by the program beside it', rows['tiny-q4_0 batch 2', 'decode', 'peer']['median'] == '81.5' and
          ('tiny-q4_0 batch 2', 'prefill', 'peer') not in rows, rows)
    check('hearth was asked for the depth', any('--depth 64' in c for c in b.calls()), b.calls())
    run = 'hearth run tiny-q4_0 a --raw -n 1 --ctx 1024 --temp 0'
    check('an image is packed where none is used, and started from by its name, twice a round, so that its file is in memory',
          [c for c in b.calls() if 'hearth pull' in c or 'hearth run' in c] ==
          [f'hearth pull {b.folder}/models/tiny-q4_0.gguf --pack --name tiny-q4_0', run] * 2 + [run] * 2, b.calls())
    check('its time is there', float(rows['tiny-q4_0 start from image', 'first', 'hearth']['median']) > 0, rows)
    order = [c.split()[0] for c in b.calls()]
    check('programs take turns', order[:6] == ['hearth', 'llama-bench', 'llama-bench', 'hearth', 'llama-bench', 'llama-bench'], order)
    text = open(b.out + '/table.md').read()
    check('Markdown has every row', all(c in text for c in ('| tiny-q4_0 |', '| tiny-q4_0 depth 64 |', '| tiny-q4_0 batch 2 |')), text)
    check('Markdown columns agree', len({line.count('|') for line in text.splitlines() if line.startswith('|')}) == 1, text)
    svg = xml.dom.minidom.parse(b.out + '/table.svg').documentElement
    bars = svg.getElementsByTagName('rect')
    check('the plot is SVG with a bar a ratio', svg.tagName == 'svg' and len(bars) == 2 + sum(r['hearth_ratio'] != '' for r in rows.values()), svg.toxml())
    n = len(b.calls())
    b.run('--rounds', '2')
    check('what was measured is not measured again', len(b.calls()) == n, b.calls()[n:])
    with open(b.out + '/runs.jsonl', 'a') as f:
        f.write('{"cell": "tiny-q4_0", "prog')
    r = b.run('--rounds', '3', '--count', '1')
    check('a cut line is passed over, and one run more is made', r.returncode == 0 and len(b.calls()) == n + 1 and b.rows(), r.stdout)
    lines = open(b.out + '/runs.jsonl').read().splitlines()
    check('the new line is whole', json.loads(lines[-1])['program'] == 'hearth' and json.loads(lines[-1])['round'] == 2, lines[-2:])
    check('the plot escapes names', '&lt;' in report.svg([{'cell': '<&>', 'figure': 'decode', 'state': '', 'program': 'a<b', 'hearth_ratio': 1.0, 'source': 'known'}]))


def test_states(b):
    # two reads of a run: slow, slow for hearth; then the peer waits (fast), runs into a change (slow to fast), waits again, and is steady
    program(b.folder, 'hearth', HEARTH.replace('[50.0]', '[30.0, 31.0, 60.0, 31.0, 60.0, 61.0, 30.0, 32.0, 61.0, 62.0]').replace('decode_read_percent=80', 'decode_read_percent=40'))
    r = b.run('--rounds', '2', '--only', 'tiny-q4_0', '--count', '2')
    runs = [json.loads(line) for line in open(b.out + '/runs.jsonl')]
    check('a run that saw memory change is made again, answers only, and waits for the first program\'s state', r.returncode == 0 and
          [(x['program'], x['before']['read_gb_s'], x['after']['read_gb_s']) for x in runs] == [('hearth', 30, 31), ('peer', 31, 60), ('peer', 30, 32)] and
          [('prefill_tok_s' in x['figures']) for x in runs] == [True, True, False] and
          [c.split('-p ')[1][:4] for c in b.calls() if c.startswith('llama-bench')] == ['512 ', '512 ', '1 -n', '1 -n'], (r.stdout, runs, b.calls()))
    check('and counts once', b.rows()['tiny-q4_0', 'decode', 'peer']['rounds'] == '1', b.rows())
    r = b.run('--rounds', '1', '--only', 'tiny-q4_0')
    check('a round that is done is not made again', r.stdout == '' and r.returncode == 0, r.stdout)
    r = b.run('--rounds', '2', '--only', 'tiny-q4_0')
    with open(b.out + '/table.csv', newline='') as f:
        states = {x['state']: x for x in csv.DictReader(f) if x['program'] == 'peer' and x['figure'] == 'decode'}
    check('a line for each state', sorted(states) == ['at 31 GB/s', 'at 62 GB/s'], (r.stdout, states))
    program(b.folder, 'hearth', 'print("no limits")\n')
    r = b.run('--rounds', '3', '--only', 'tiny-q4_0')
    check('a program without limits is told', r.returncode == 1 and 'does not tell the limits' in r.stdout and r.stdout.count('\n') == 1, r.stdout)


def test_failing(b):
    program(b.folder, 'llama-bench', BENCH + "    sys.exit(3)\n")
    r = b.run('--rounds', '2', name='bad')
    check('a program that fails is noted, once a cell and setting, and the rest goes on', r.returncode == 0 and r.stdout.count('exit code 3') == 3 and
          ('tiny-q4_0', 'decode', 'hearth') in b.rows() and ('tiny-q4_0', 'decode', 'bad') not in b.rows(), r.stdout)
    r = b.run('--llama-bench', '/nonexistent/llama-bench')
    check('a missing program is said', r.returncode == 1 and '/nonexistent/llama-bench' in r.stdout, r.stdout)
    r = b.run('--only', 'nothing')
    check('an unknown cell is said, with those there are', r.returncode == 1 and '1b-q4_0 depth 4096' in r.stdout, r.stdout)


def test_one_setting(b):
    program(b.folder, 'llama-bench', BENCH.replace("    print(json.dumps([", "    if rtr:\n        __import__('os').kill(__import__('os').getpid(), 8)\n    print(json.dumps(["))
    r = b.run('--rounds', '2', '--only', 'tiny-q4_0')
    rows, text = b.rows(), open(b.out + '/table.md').read()
    check('a setting that crashes leaves the figures of the other', r.returncode == 0 and rows['tiny-q4_0', 'decode', 'peer']['median'] == '20' and
          rows['tiny-q4_0', 'decode', 'peer']['rounds'] == '2', (r.stdout, rows))
    said = [line for line in r.stdout.splitlines() + text.splitlines() if 'SIGFPE' in line]
    check('and is told, in its round and below the table', len(said) == 2 and 'decode_tok_s 20; setting rtr: ' in said[0] and
          said[1].startswith('- tiny-q4_0, peer, measured without setting rtr: '), (r.stdout, text))
    check('and is not run again', [('-rtr 1' in c) for c in b.calls() if c.startswith('llama-bench')] == [True, False, False], b.calls())


def test_depth(b):
    there = programs.LlamaBench(b.folder + '/llama-bench', 'peer')
    cell = dict(depth=16384, batch=1, start='', kv='q8_0', threads=2, prefill=512, decode=32)
    check('a depth that takes too long is left out', there.measure(cell, 'm', '') == {} and not b.calls(), b.calls())
    program(b.folder, 'llama-sweep-bench', "if '--help' in a:\n    print('--sweep-stride N')\nelse:\n"
            "    print('|512|32|0|1|300|1|60|')\n    print('|512|32|16384|5|102.4|2|16|')\n")
    there = programs.LlamaBench(b.folder + '/llama-bench', 'peer')
    found = there.measure(cell, 'm', '')
    check('it is not where answers on the way can be left out', (found['prefill_tok_s'], found['decode_tok_s'], found['setting']) == (102.4, 16, 'plain'), found)
    check('and is asked for so', b.calls() == ['llama-sweep-bench -m m -t 2 -ctk q8_0 -ctv q8_0 -c 16896 -ub 512 -n 32 --sweep-stride 32'], b.calls())


def test_again(b):
    program(b.folder, 'llama-bench', BENCH.replace("else:", "elif __import__('os').path.exists(__file__ + '.broken'):\n    print('no JSON')\nelse:", 1))
    open(b.folder + '/llama-bench.broken', 'w').close()
    r = b.run('--rounds', '2')
    text = open(b.out + '/table.md').read()
    check('an answer that is no JSON is a failure, told in the table', r.returncode == 0 and 'not understand' in r.stdout and 'Failed:' in text and
          '- tiny-q4_0, peer: it printed' in text, (r.stdout, text))
    os.remove(b.folder + '/llama-bench.broken')
    n = len(b.calls())
    r = b.run('--rounds', '2')
    text = open(b.out + '/table.md').read()
    check('what failed is tried again, the rest not', b.rows()['tiny-q4_0', 'decode', 'peer']['rounds'] == '2' and 'Failed:' not in text and
          not any(c.startswith('hearth bench') for c in b.calls()[n:]), (r.stdout, text))
    with open(b.out + '/runs.jsonl', 'ab') as f:
        for line in (b'5', b'null', b'{}', b'[]', b'{"cell": "tiny-q4_0"}', b'\xff\xfe', json.dumps(run_of('tiny-q4_0', 'peer') | {'figures': None}).encode(),
                     json.dumps(run_of('tiny-q4_0', 'peer', decode_tok_s='x')).encode(), json.dumps(run_of('tiny-q4_0', 'hearth', decode_tok_s=float('nan'))).encode(),
                     json.dumps(run_of('tiny-q4_0', 'hearth', read_gb_s=1.0)).encode(),
                     json.dumps(run_of('tiny-q4_0', 'hearth', decode_tok_s=10**400)).encode(), b'[' * 10**5):
            f.write(line + b'\n')
    n = len(b.calls())
    r = b.run('--rounds', '2')
    check('lines that make no sense are passed over', r.returncode == 0 and len(b.calls()) == n and b.rows()['tiny-q4_0', 'decode', 'hearth']['rounds'] == '2', r.stdout)
    r = b.run('--rounds', '1', '--threads', '1')
    check('other threads are measured anew', b.rows()['tiny-q4_0', 'decode', 'hearth']['rounds'] == '1' and len(b.calls()) > n, r.stdout)
    n = len(b.calls())
    program(b.folder, 'hearth', HEARTH + '# another build\n')
    r = b.run('--rounds', '2')
    check('another build is measured anew, the peer is not', all(c.startswith('hearth') for c in b.calls()[n:]) and len(b.calls()) >= n + 6, b.calls()[n:])


def test_refused(b):
    for more, name, word in ((['--hearth', '/nonexistent'], 'peer', '/nonexistent'), (['--hearth', b.folder], 'peer', b.folder), ([], 'hearth', 'no other'), ([], 'a|b', 'letters'),
                             (['--llama-bench', 'peer=' + b.folder + '/llama-bench'], 'peer', 'no other'), (['--python', '/nonexistent'], 'peer', '--python wants'),
                             (['--python', b.folder], 'peer', '--python wants')):
        r = b.run(*more, name=name)
        check(f'refused in a line: {more} {name}', r.returncode == 1 and word in r.stdout and r.stdout.count('\n') == 1, r.stdout)
    for more in (['--rounds', '0'], ['--count', '-1'], ['--threads', 'x'], ['--threads', '99999']):
        r = b.run(*more)
        check(f'refused: {more}', r.returncode == 2 and 'a whole number from' in r.stdout, r.stdout)
    open(b.out, 'w').close()
    r = b.run()
    check('a file in place of the folder is said', r.returncode == 1 and 'a folder that can' in r.stdout and r.stdout.count('\n') == 1, r.stdout)
    os.remove(b.out)
    os.makedirs(b.out + '/runs.jsonl')
    r = b.run()
    check('a folder in place of the file of runs likewise', r.returncode == 1 and 'runs.jsonl: Is a dir' in r.stdout and r.stdout.count('\n') == 1, r.stdout)


def test_python(b):
    program(b.folder, 'python', "import json\nprint('1.0' if '-c' in a else json.dumps(dict(prefill_tok_s=1.0, decode_tok_s=2.0)))\n")
    r = b.run('--only', 'tiny-q4_0', '--rounds', '1', '--python', os.path.relpath(b.folder + '/python'))
    check('the path of an interpreter may be relative', r.returncode == 0 and b.rows()['tiny-q4_0', 'decode', 'llama.cpp']['median'] == '2', r.stdout)


def test_stopped(b):
    program(b.folder, 'hearth', f'import os, time\nopen({b.folder!r} + "/pid", "w").write(str(os.getpid()))\ntime.sleep(60)\n')
    args = [sys.executable, ROOT + '/bench/table.py', b.out, '--hearth', b.folder + '/hearth', '--python', b.folder + '/python', '--models', b.folder + '/models', '--only', 'tiny*']
    with subprocess.Popen(args, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL)) as p:
        end = time.monotonic() + 20
        while time.monotonic() < end and not (os.path.exists(b.folder + '/pid') and open(b.folder + '/pid').read()):
            time.sleep(0.02)
        pid = int(open(b.folder + '/pid').read())
        r = b.run()
        check('a second table in the same folder is refused', r.returncode == 1 and 'another table.py' in r.stdout and r.stdout.count('\n') == 1, r.stdout)
        p.send_signal(signal.SIGINT)
        text = p.communicate()[1]
    check('Ctrl-C says how to go on', 'goes on from there' in text and 'Traceback' not in text, text)
    while time.monotonic() < end and checks.is_running(pid):
        time.sleep(0.02)
    check('a stopped table leaves no program running', not checks.is_running(pid), pid)


def run_of(cell, program, **figures):
    limits = dict(read_gb_s=40.0, int8_gop_s=1000.0)
    return dict(cell=cell, program=program, version='', threads=2, round=0, figures=figures, note='', before=limits, after=limits)


def test_report():
    limits = dict(read_gb_s=40.0, int8_gop_s=1000.0)
    cells = [dict(name='a', batch=1), dict(name='b', batch=1), dict(name='c', batch=1)]
    known = [dict(program='llama.cpp', cell='a', figure='decode', percent='44'), dict(program='ik', cell='a', figure='decode', percent='49')]
    runs = [run_of('a', 'hearth', decode_tok_s=80.0, decode_read_percent=88.0, **limits), run_of('a', 'ik', decode_tok_s=50.0),
            run_of('b', 'hearth', first_s=1.0, rss_mb=500.0), run_of('b', 'ik', first_s=2.0, rss_mb=1000.0),
            run_of('c', 'hearth', decode_tok_s=80.0, decode_read_percent=88.0, **limits), run_of('c', 'ik', decode_tok_s=60.0)]
    other = dict(before=dict(read_gb_s=20.0, int8_gop_s=1000.0), after=dict(read_gb_s=21.0, int8_gop_s=1000.0))
    runs += [runs[-2] | other | dict(figures=runs[-2]['figures'] | dict(decode_tok_s=44.0, decode_read_percent=96.8, read_gb_s=20.0)),
             runs[-1] | other | dict(figures=dict(decode_tok_s=40.0)), runs[-1] | other | dict(figures=dict(decode_tok_s=60.0)), runs[-1] | dict(after=other['after'], figures=dict(decode_tok_s=7.0))]
    rows = {(r['cell'], r['figure'], r['program']): r for r in report.collect(cells, runs, known)}
    k = rows['a', 'decode', 'llama.cpp']
    check('what is absent comes from its share of the limit', k['source'] == 'known' and abs(k['median'] - 40) < 1e-9 and abs(k['hearth_ratio'] - 2) < 1e-9, k)
    check('what was measured stays', rows['a', 'decode', 'ik']['source'] == 'measured' and rows['a', 'decode', 'ik']['median'] == 50, rows)
    check('sooner and smaller are better', rows['b', 'first', 'ik']['hearth_ratio'] == 2 and rows['b', 'memory', 'ik']['hearth_ratio'] == 2, rows)
    states = {(r['state'], r['program']): r for r in report.collect(cells, runs, known) if r['cell'] == 'c'}
    fast, slow = states['at 40 GB/s', 'ik'], states['at 20 GB/s', 'ik']
    check('answers are compared within a state of memory; those of a run that saw two, or was faster than its memory, count in neither', len(states) == 4 and
          (fast['median'], slow['median']) == (60, 40) and abs(fast['hearth_ratio'] - 8 / 6) < 1e-9 and abs(slow['hearth_ratio'] - 1.1) < 1e-9, states)
    check('shares are those of the state', abs(fast['percent_of_limit'] - 66) < 1e-9 and abs(slow['percent_of_limit'] - 40 * 0.44 / 20.5 * 100) < 1e-9, states)
    text = report.markdown(list(rows.values()))
    check('marked with a star', '40\\*' in text and 'known.csv' in text, text)
    with open(ROOT + '/bench/known.csv', newline='') as f:
        names = subprocess.run([sys.executable, ROOT + '/bench/table.py', 'x', '--list', '--all'], stdout=subprocess.PIPE, text=True).stdout
        found = list(csv.DictReader(f))
        there = {line[6:] for line in names.splitlines()}
        check('known figures belong to cells', found and all(k['cell'] in there and 0 < float(k['percent']) < 100 for k in found), there)


def test_parse():
    check('rows among other lines', programs.parse_rows('x\n| a | b |\n|---|\n| 1 | 2 | 3 | 4 | 5 | 6 | 7 |\n') == [[1, 2, 3, 4, 5, 6, 7]])
    check('no row of that batch', programs.parse_batched('| 8 | 32 | 2 | 80 | 1 | 2 | 3 | 4 | 5 | 6 |', 4) == {})
    check('no row of that depth', programs.parse_sweep('| 512 | 128 | 0 | 1 | 2 | 3 | 4 |', 4096) == {})
    both = [dict(n_prompt=512, n_gen=64, avg_ts=1.0)]
    check('prompt and answer in one are neither', programs.parse_bench(json.dumps(both)) == {})


def main():
    with tempfile.TemporaryDirectory() as d:
        for i, test in enumerate((test_whole, test_states, test_failing, test_one_setting, test_depth, test_again, test_refused, test_python, test_stopped)):
            os.makedirs(f'{d}/{i}')
            test(Box(f'{d}/{i}'))
    test_report()
    test_parse()
    checks.finish()


main()
