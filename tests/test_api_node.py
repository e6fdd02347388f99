#!/usr/bin/env python3
"""test_api_node.py --hearth BIN --model FILE: hearth's API through OpenAI's Node client (tests/api_node).

Without node or npm all is skipped, and the reason is printed. The last line reads 'N passed, N failed, N skipped'."""
import argparse
import shutil
import subprocess
import sys
import tempfile

import node_packages
from served import Served

KEY = 'a-key-for-node-1'


def skip(why):
    print(f'skipped: {why}\n0 passed, 0 failed, 1 skipped')
    sys.exit(0)


def main():
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument('--hearth', required=True)
    ap.add_argument('--model', required=True)
    ap.add_argument('--slack', type=float, default=1.0)
    a = ap.parse_args()
    for program in ('node', 'npm'):
        if not shutil.which(program):
            skip(f'{program} is not installed')
    version = subprocess.run(['node', '--version'], stdout=subprocess.PIPE, text=True).stdout.strip()
    if int(version.lstrip('v').split('.')[0]) < 18:
        skip(f'node {version} is older than 18')
    cache = node_packages.install()
    if cache is None:
        print('npm ci failed\n0 passed, 1 failed, 0 skipped')
        sys.exit(1)
    with tempfile.TemporaryDirectory() as folder:
        with open(folder + '/keys', 'w') as f:
            f.write(KEY + '\n')
        with Served(a.hearth, a.model, slack=a.slack) as s, Served(a.hearth, a.model, '--parallel', '1', '--api-key-file', folder + '/keys', slack=a.slack) as keyed:
            r = subprocess.run(['node', 'test.mjs', s.url, s.model_id, keyed.url, KEY], cwd=cache, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=300 * a.slack)
            codes = [s.end(), keyed.end()]
    print('node ' + version)
    lines = r.stdout.rstrip().split('\n')
    if codes != [0, 0]:
        print(f'FAILED: exit codes of the servers: {codes}')
    print(r.stdout if r.returncode or not lines else '\n'.join(lines[:-1]))
    numbers = [int(x) for x in lines[-1].split() if x.isdigit()] if lines else []
    passed, failed = numbers[:2] if len(numbers) == 3 else (0, 1)
    passed, failed = passed + (codes == [0, 0]), failed + (codes != [0, 0]) + (r.returncode != 0 and failed == 0)
    print(f'{passed} passed, {failed} failed, 0 skipped')
    sys.exit(1 if failed else 0)


main()
