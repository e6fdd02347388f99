#!/usr/bin/env python3
"""predict.py [--hearth build/hearth] [--rounds N] [--args 'BENCH ARGUMENTS'] MODEL...

Compares what hearth predicts of a model's speed with what it then measures: `hearth bench MODEL --json` has both, with the limits
of that run. Prints a line for each model, of medians over the rounds; the percents are of predictions, from measured speeds.

The memory of some machines, virtual ones above all, is not always equally fast. A run during which it changed by over 10 % is made
again, up to four times; what did not find a calm moment, or had to share its cores, is marked with ~. Run it while nothing else
runs. The last line tells the share of figures within 10 %."""
import argparse
import json
import os
import shlex
import statistics
import subprocess
import sys

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
TRIES = 5


def bench(hearth, model, more):
    r = subprocess.run([hearth, 'bench', model, '--json', *more], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    if r.returncode:
        sys.exit(f'{model}: {r.stderr.strip()}')
    b = json.loads(r.stdout)
    if b['predicted_decode_tok_s'] is None:
        sys.exit(f'{model}: nothing was predicted: is there no memory left to try the kernels?')
    b['is_calm'] = b['least_read_gb_s'] > 0.9 * b['read_gb_s'] and b['core_percent'] > 90
    return b


def calm(hearth, model, more):
    for _ in range(TRIES):
        b = bench(hearth, model, more)
        if b['is_calm']:
            break
    return b


def main():
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument('models', nargs='+', metavar='MODEL')
    ap.add_argument('--hearth', default=os.path.join(ROOT, 'build', 'hearth'))
    ap.add_argument('--rounds', type=int, default=1)
    ap.add_argument('--args', default='', help='for hearth bench: --prefill, --decode, --depth, --batch, --kv, --threads')
    a = ap.parse_args()
    print('| model | GB/s | prompt, tok/s | predicted | | answer, tok/s | predicted | |\n|---|---:|---:|---:|---:|---:|---:|---:|')
    near = []
    for model in a.models:
        runs = [calm(a.hearth, model, shlex.split(a.args)) for _ in range(a.rounds)]
        cells = [os.path.basename(model).replace('.gguf', '') + ('' if all(r['is_calm'] for r in runs) else ' ~'),
                 f"{statistics.median(r['read_gb_s'] for r in runs):.1f}"]
        for kind in ('prefill', 'decode'):
            off = statistics.median(r[f'predicted_{kind}_tok_s'] / r[f'{kind}_tok_s'] - 1 for r in runs)
            cells += [f"{statistics.median(r[k + kind + '_tok_s'] for r in runs):.4g}" for k in ('', 'predicted_')] + [f'{100 * off:+.1f} %']
            near.append(abs(off) <= 0.1)
        print('| ' + ' | '.join(cells) + ' |', flush=True)
    print(f'{sum(near)} of {len(near)} figures within 10 %')


main()
