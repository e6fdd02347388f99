#!/usr/bin/env python3
"""table.py OUT [--hearth build/hearth] [--python PYTHON] [--llama-bench [NAME=]PATH] [--only PATTERN] [--rounds N]

Builds the table of speeds: hearth and other programs in turns, every figure beside its share of what the machine can do.
PYTHON   an interpreter that has llama-cpp-python (bench/peer_llamacpp.py says how); default: the one that runs this
PATH     a program with llama-bench's command line; may be given several times
Where a known program is absent its figures come from bench/known.csv: what was measured once, as shares of the limits,
brought to this machine's; they are marked with a star.

The rows are cells: a model, a context depth, a cache type, a number of conversations, threads. The core ones take under two
hours; --all adds the others. Every run of a program appends a line to OUT/runs.jsonl, and what is there is not measured
again: stop and start it as you like, with --count N after N turns. A run that failed is tried again, once each time; a
setting that failed while another worked is left out from then on, which is told below the table; another build of a program, or
another number of threads, is measured anew. Each time OUT/table.csv, table.md and table.svg are written
from what there is: medians of the rounds, the range, and ratios of hearth to the others.

The limits of the machine (hearth bench --limits) are read before and after every run, since the memory of some machines,
virtual ones above all, is not always equally fast. A run during which they changed is made again, up to four times, and the
other programs of a round wait until memory is as fast as it was for hearth. So answers are compared within one state of the
machine; where it has several, the table has a line for each.

Models are made in --models (default ~/.cache/hearth/bench) by tests/tools/mkgguf.py where they are missing, which needs numpy
and gguf in PYTHON or the one that runs this; those named real are looked for there and in the cache of `make test`. Run it while
nothing else runs: times of a shared machine say nothing."""
import argparse
import fcntl
import fnmatch
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time

import programs
import report

HERE = os.path.dirname(os.path.abspath(__file__))
ROOT = os.path.dirname(HERE)
CACHE = os.path.join(os.environ.get('XDG_CACHE_HOME') or os.path.expanduser('~/.cache'), 'hearth')
SHAPES = {'1b': 'llama-1b', '8b': 'llama-8b', '70b': 'llama-70b', 'tiny': 'tiny'}
TRIES, WAIT_S = 5, 60
REAL = {'smollm2': 'smollm2-135m-q4_1.gguf', 'gemma3': 'gemma3-270m-q4_k_m.gguf'}


def cell(model, depth=0, kv='f16', batch=1, threads=0, start='', is_busy=False, is_core=False):
    long = model.startswith(('8b', '70b'))
    name = model + (f' depth {depth}' if depth else '') + (f' cache {kv}' if kv != 'f16' else '') + (f' batch {batch}' if batch > 1 else '')
    name += (f' threads {threads}' if threads else '') + (f' start from {start}' if start else '') + (' busy' if is_busy else '')
    is_huge = model.startswith('70b')  # llama.cpp takes over five minutes for 512 tokens
    name += ' prompt 64' if is_huge else ''
    prefill = 8 if batch > 1 else 64 if is_huge else 512
    return dict(name=name, model=model, depth=depth, kv=kv, batch=batch, threads=threads, start=start, is_busy=is_busy,
                is_core=is_core, prefill=prefill, decode=16 if long else 32 if batch > 1 or depth or is_busy else 64)


def cells():
    core = [('1b-q4_0',), ('1b-q4_k_m',), ('1b-q8_0',), ('1b-q4_0', 4096), ('1b-q4_0', 4096, 'q8_0')]
    core += [('1b-q4_0', 0, 'f16', b) for b in (4, 8, 16)] + [('smollm2',), ('gemma3',), ('8b-q4_0',), ('1b-iq2_xxs',)]
    rest = [('8b-q4_k_m',), ('8b-q8_0',), ('1b-q4_0', 16384), ('1b-q4_0', 16384, 'q8_0'), ('8b-q4_0', 4096), ('8b-q4_0', 4096, 'q8_0')]
    rest += [('1b-q4_0', 4096, 'bf16'), ('1b-q4_0', 16384, 'bf16'), ('8b-q4_0', 4096, 'bf16')]
    rest += [('8b-q4_0', 0, 'f16', b) for b in (4, 8, 16)] + [('8b-iq2_xxs',), ('70b-iq2_xxs',)]
    rest += [('1b-' + t,) for t in ('iq2_xs', 'iq2_s', 'iq3_xxs', 'iq3_s', 'iq4_xs', 'iq4_nl', 'mxfp4', 'tq1_0', 'tq2_0', 'q2_k', 'q3_k', 'q5_k', 'q6_k')]
    found = [cell(*c, is_core=True) for c in core]
    found += [cell('1b-q4_0', threads=1, is_core=True), cell('1b-q4_0', is_busy=True, is_core=True)]
    found += [cell('8b-q4_0', start=s, is_core=True) for s in ('image', 'file')]
    return found + [cell(*c) for c in rest] + [cell('tiny-q4_0'), cell('tiny-q4_0', 64, 'f16', 1), cell('tiny-q4_0', 0, 'f16', 2), cell('tiny-q4_0', start='image')]


def model_path(a, name):
    if name in REAL:
        places = [os.path.join(d, REAL[name]) for d in (a.models, os.path.join(CACHE, 'test/fixtures/models'))]
        found = [p for p in places if os.path.exists(p)]
        return found[0] if found else None
    path = os.path.join(a.models, name + '.gguf')
    if not os.path.exists(path):
        shape, kind = name.split('-', 1)
        os.makedirs(a.models, exist_ok=True)
        print(f'making {path}', flush=True)
        r = subprocess.run([a.python, ROOT + '/tests/tools/mkgguf.py', SHAPES[shape], path + '.part', '--type', kind], stdout=subprocess.DEVNULL,
                           stderr=subprocess.PIPE, text=True, errors='replace', preexec_fn=programs.die_with_parent)
        if r.returncode != 0:
            sys.exit(f'table: {path} could not be made; {a.python} needs numpy and gguf: {"".join(r.stderr.splitlines()[-1:])}')
        os.rename(path + '.part', path)
    return path


def program_path(path, wanted):
    if not os.path.isfile(path) or not os.access(path, os.X_OK):
        sys.exit(f'table: {path}: no program is there; {wanted}')
    return os.path.abspath(path)


def peers(a):
    a.hearth = program_path(a.hearth, '--hearth wants the path of hearth')
    python = shutil.which(a.python)
    if python is None:
        sys.exit(f'table: {a.python}: no program is there; --python wants the path or name of an interpreter')
    a.python = os.path.abspath(python)  # programs are started in another folder
    found = [programs.Hearth(a.hearth)]
    if programs.has_llamacpp(a.python):
        found.append(programs.LlamaCpp(a.python))
    for p in a.llama_bench:
        name, path = p.split('=', 1) if '=' in p else (os.path.basename(p), p)
        if not re.fullmatch(r'[\w.+-]+', name) or name in [x.name for x in found]:
            sys.exit(f'table: --llama-bench {p}: a name of letters, digits and . _ + - is wanted that no other program has; give one as NAME=PATH')
        found.append(programs.LlamaBench(program_path(path, '--llama-bench wants the path of one'), name))
    return found


def wanted(a):
    chosen = [c for c in cells() if c['name'] == a.only] if a.only else cells()
    if not chosen:
        chosen = [c for c in cells() if fnmatch.fnmatch(c['name'], a.only) or a.only in c['name']]
    if not a.only and not a.all:
        chosen = [c for c in chosen if c['is_core']]
    if a.only and not chosen:
        sys.exit(f'table: no cell is called like "{a.only}"; the cells are\n  ' + '\n  '.join(c['name'] for c in cells()))
    return [c for c in chosen if a.only or c['is_core'] or not c['name'].startswith('tiny')]


def read_runs(path):
    """Lines of OUT/runs.jsonl; those that make no sense are passed over (the last may be cut, when the machine stopped)."""
    runs = []
    if os.path.exists(path):
        for line in open(path, errors='replace'):
            try:
                r = json.loads(line)
            except (ValueError, RecursionError):
                continue
            if is_run(r):
                runs.append(r)
    return runs


def is_run(r):
    if not isinstance(r, dict) or not all(isinstance(r.get(k), str) for k in ('cell', 'program', 'version', 'note')):
        return False
    f = r.get('figures')
    if not isinstance(r.get('round'), int) or not is_limits(r.get('before')) or not is_limits(r.get('after')):
        return False
    return isinstance(r.get('threads'), int) and isinstance(f, dict) and all(isinstance(v, str) if k == 'setting' else is_number(v) for k, v in f.items())


def is_number(v):
    return isinstance(v, (int, float)) and abs(v) < 1e30  # not NaN either


def is_limits(v):
    return isinstance(v, dict) and v.keys() == set(programs.LIMITS) and all(is_number(v[k]) and v[k] > 0 for k in programs.LIMITS)


def fresh(runs, programs_here, threads):
    """Without what other builds or other numbers of threads gave; of a program that is not here its last build counts."""
    version = {r['program']: r['version'] for r in runs} | {p.name: p.version for p in programs_here}
    return [r for r in runs if r['version'] == version[r['program']] and r['threads'] == threads]


def turn(a, c, p, best, level, work):
    """A program's runs in a round: until one is steady, at the wanted speed of memory. Yields each. Prompts are computed in the
    first only: they hardly depend on memory, and answers alone are shorter, so more often steady."""
    threads = c['threads'] or a.threads
    model = model_path(a, c['model'])
    begin = time.monotonic()
    for i in range(1 if c['start'] else TRIES):
        asked = dict(c, threads=threads, prefill=1 if i else c['prefill'])
        before = programs.limits(a.hearth, threads)
        while level and not report.is_near(before['read_gb_s'], level) and time.monotonic() < begin + WAIT_S:
            before = programs.limits(a.hearth, threads)
        figures, note = {}, ''
        try:
            with programs.Loop(c['is_busy']):
                if c['start']:  # a first one brings the file into memory: what is measured is not the disk
                    p.measure(asked, model, best)
                found = p.measure(asked, model, best)
                note = found.pop('note', '')
                figures = {k: v for k, v in found.items() if i == 0 or not k.startswith('prefill')}
        except programs.Failed as e:
            note = str(e)
        except (ValueError, KeyError, TypeError, AttributeError) as e:
            note = f'it printed what this does not understand ({type(e).__name__}: {e})'
        best = figures.get('setting', best)
        after = programs.limits(a.hearth, threads) if figures else before
        run = dict(figures=figures, note=note, before=before, after=after)
        yield run
        if not figures or is_fitting(run, level, work) or time.monotonic() > begin + 2 * WAIT_S:
            return


def is_fitting(run, level, work):
    return report.is_steady(run, work) and (not level or report.is_near(report.read_of(run), level))


def measure(a, todo, runs, log):
    turns = 0
    for c in wanted(a):
        failed = set()
        for i in range(a.rounds):
            level = 0
            for p in todo:
                mine = [r for r in runs if r['cell'] == c['name'] and r['program'] == p.name and (r['figures'] or not r['note'])]
                now = [r for r in mine if r['round'] == i]
                if not now and all(r['figures'] for r in mine) and p.name not in failed:
                    if turns == a.count:
                        return
                    turns += 1
                    if model_path(a, c['model']) is None:
                        print(f'{c["name"]}: {REAL[c["model"]]} is neither in {a.models} nor in the cache of `make test`: left out')
                        break
                    for run in turn(a, c, p, mine[0]['figures'].get('setting', '') if mine else '', level, work_in(runs, c)):
                        now.append(dict(cell=c['name'], program=p.name, version=p.version, threads=a.threads, round=i, **run))
                        note(now[-1], a.rounds, log)
                    runs += now
                    failed |= {p.name} if now[-1]['note'] and not now[-1]['figures'] else set()
                if p is todo[0] and now and now[-1]['figures'] and report.is_steady(now[-1], work_in(runs, c)):
                    level = report.read_of(now[-1])


def work_in(runs, c):
    return report.work_of([r for r in runs if r['cell'] == c['name']], 'decode')


def note(run, rounds, log):
    log.write(json.dumps(run) + '\n')
    log.flush()
    shown = ', '.join(f'{k} {v:.4g}' for k, v in run['figures'].items() if not isinstance(v, str))
    what = '; '.join(x for x in (shown, run['note']) if x) or 'cannot measure this'
    memory = f'{run["before"]["read_gb_s"]:.1f}' + ('' if report.is_steady(run) else f' to {run["after"]["read_gb_s"]:.1f}') + ' GB/s'
    print(f'{run["cell"]:28s} {run["round"] + 1}/{rounds} {run["program"]:14s} {memory:20s} {what}', flush=True)


def number(least, most):
    def read(text):
        if not re.fullmatch('[0-9]{1,9}', text) or not least <= int(text) <= most:
            raise argparse.ArgumentTypeError(f'"{text}": a whole number from {least} to {most} is wanted')
        return int(text)
    return read


def main():
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument('out')
    ap.add_argument('--hearth', default=ROOT + '/build/hearth')
    ap.add_argument('--python', default=sys.executable)
    ap.add_argument('--llama-bench', action='append', default=[], metavar='[NAME=]PATH')
    ap.add_argument('--models', default=os.path.join(CACHE, 'bench'))
    ap.add_argument('--only', default='', metavar='PATTERN')
    ap.add_argument('--all', action='store_true')
    ap.add_argument('--rounds', type=number(1, 1000), default=3)
    ap.add_argument('--count', type=number(1, 10**6), default=-1, metavar='N')
    ap.add_argument('--threads', type=number(1, 1024), default=len(os.sched_getaffinity(0)))
    ap.add_argument('--list', action='store_true', help='the cells, and nothing else')
    a = ap.parse_args()
    if a.list:
        print('\n'.join(f'{"core" if c["is_core"] else "    "}  {c["name"]}' for c in wanted(a)))
        return
    todo = peers(a)
    try:
        fill(a, todo)
    except OSError as e:
        wanted_folder = '; a folder that can be written is wanted' if str(e.filename).startswith(a.out) else ''
        sys.exit(f'table: {e.filename or "writing"}: {e.strerror}{wanted_folder}')


def fill(a, todo):
    os.makedirs(a.out, exist_ok=True)
    a.models = os.path.abspath(a.models)
    path = os.path.join(a.out, 'runs.jsonl')
    runs = fresh(read_runs(path), todo, a.threads)
    is_cut = os.path.exists(path) and not open(path, errors='replace').read()[-1:] in ('', '\n')
    with open(path, 'a') as log:
        try:
            fcntl.flock(log, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            sys.exit(f'table: {path}: another table.py writes there')
        log.write('\n' if is_cut else '')
        measure(a, todo, runs, log)
    report.write(a.out, cells(), runs, os.path.join(HERE, 'known.csv'))


if __name__ == '__main__':
    try:
        main()
    except KeyboardInterrupt:
        sys.exit('table: stopped; what was measured is kept, the same command goes on from there')
