#!/usr/bin/env python3
"""test_api_node.py --hearth BIN --model FILE: hearth's API through OpenAI's Node client (tests/api_node).

The client is installed with `npm ci` (pinned, with its hash) into the user's cache folder; without node or npm all is
skipped, and the reason is printed. The last line reads 'N passed, N failed, N skipped'."""
import argparse
import os
import shutil
import subprocess
import sys
import tempfile

from served import Served

HERE = os.path.dirname(os.path.abspath(__file__))
CACHE = os.path.join(os.environ.get('XDG_CACHE_HOME') or os.path.expanduser('~/.cache'), 'hearth', 'test', 'node')
KEY = 'a-key-for-node-1'


def skip(why):
    print(f'skipped: {why}\n0 passed, 0 failed, 1 skipped')
    sys.exit(0)


def install():
    """Puts the pinned client beside a copy of the test; asks the registry only when the pin has changed."""
    lock, stamp = open(HERE + '/api_node/package-lock.json').read(), CACHE + '/installed'
    os.makedirs(CACHE, exist_ok=True)
    for name in ('package.json', 'package-lock.json', 'test.mjs'):
        shutil.copy(f'{HERE}/api_node/{name}', CACHE)
    if os.path.exists(stamp) and open(stamp).read() == lock:
        return
    r = subprocess.run(['npm', 'ci', '--no-audit', '--no-fund', '--ignore-scripts'], cwd=CACHE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    if r.returncode:
        print(r.stdout[-2000:] + '\nnpm ci failed\n0 passed, 1 failed, 0 skipped')
        sys.exit(1)
    with open(stamp, 'w') as f:
        f.write(lock)


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
    install()
    with tempfile.TemporaryDirectory() as folder:
        with open(folder + '/keys', 'w') as f:
            f.write(KEY + '\n')
        with Served(a.hearth, a.model, slack=a.slack) as s, Served(a.hearth, a.model, '--parallel', '1', '--api-key-file', folder + '/keys', slack=a.slack) as keyed:
            r = subprocess.run(['node', 'test.mjs', s.url, s.model_id, keyed.url, KEY], cwd=CACHE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=300 * a.slack)
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
