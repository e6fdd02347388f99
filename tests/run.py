#!/usr/bin/env python3
"""run.py check|test: builds with warnings as errors, runs the suites and adds up. The last line reads 'N passed, N failed, N skipped'.

check   unit tests, gates, stored inputs of the fuzzers; downloads nothing
test    also the reference fixtures (tests/fixtures; packages by pinned version into the user's cache folder)
Options: --build DIR (default build-test), --only NAME[,NAME] (suites by name), --all (what takes minutes: 200 random plans), -v."""
import argparse
import os
import re
import subprocess
import sys
import time
import venv

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
CACHE = os.path.join(os.environ.get('XDG_CACHE_HOME') or os.path.expanduser('~/.cache'), 'hearth', 'test')
COUNTS = re.compile(r'^(?:\w+: )?(\d+) passed, (\d+) failed(?:, (\d+) skipped)?$', re.M)


def sh(args, **more):
    return subprocess.run(args, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors='replace', **more)


class Suite:
    """One row: a name and a command whose last counting line is taken; exit code 0 without one counts as one test."""

    def __init__(self, name, args, needs_network=False):
        self.name, self.args, self.needs_network = name, args, needs_network

    def run(self, verbose):
        begin = time.time()
        done = sh(self.args)
        found = COUNTS.findall(done.stdout)
        if found:
            passed, failed, skipped = (int(x or 0) for x in found[-1])
            failed += done.returncode != 0 and failed == 0
        else:
            passed, failed, skipped = int(done.returncode == 0), int(done.returncode != 0), 0
        state = 'ok  ' if failed == 0 else 'FAIL'
        print(f'{self.name:16s} {state} {passed:6d} passed {failed:4d} failed {skipped:4d} skipped  {time.time() - begin:6.1f} s', flush=True)
        if failed or verbose:
            print('    ' + '\n    '.join(done.stdout.splitlines()[-60:]), flush=True)
        return passed, failed, skipped


def build(folder):
    if not os.path.exists(folder + '/build.ninja'):
        r = sh(['meson', 'setup', folder, ROOT, '--buildtype=release', '--werror', '--wrap-mode=nodownload'])
        if r.returncode:
            sys.exit(r.stdout)
    r = sh(['ninja', '-C', folder])
    if r.returncode == 0:
        r = sh(['ninja', '-C', folder, 'tests', 'chat', 'fuzzers'])
    if r.returncode:
        print(r.stdout[-6000:])
        print('0 passed, 1 failed, 0 skipped')
        sys.exit(1)


def python():
    """The interpreter of a virtual environment with the pinned packages."""
    home = CACHE + '/venv'
    pins = open(ROOT + '/tests/requirements.txt').read()
    stamp = home + '/pins'
    if not os.path.exists(stamp) or open(stamp).read() != pins:
        venv.create(home, with_pip=True, clear=True)
        r = sh([home + '/bin/pip', 'install', '-q', '-r', ROOT + '/tests/requirements.txt'])
        if r.returncode:
            sys.exit('cannot install the pinned packages:\n' + r.stdout[-2000:])
        open(stamp, 'w').write(pins)
    return home + '/bin/python'


def main():
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument('what', choices=['check', 'test'])
    ap.add_argument('--build', default=ROOT + '/build-test')
    ap.add_argument('--only', default='')
    ap.add_argument('--all', action='store_true')
    ap.add_argument('-v', action='store_true')
    a = ap.parse_args()
    build(a.build)
    hearth = a.build + '/hearth'
    suites = [Suite('gates', [sys.executable, ROOT + '/tools/gates.py', '--build', a.build]),
              Suite('unit', [sys.executable, ROOT + '/tests/unit.py', a.build]),
              Suite('seeds', [sys.executable, ROOT + '/fuzz/replay.py', a.build]),
              Suite('chat', [sys.executable, ROOT + '/tests/test_chat.py', hearth]),
              Suite('table', [sys.executable, ROOT + '/tests/test_table.py'])]
    if a.what == 'test':
        py, fixtures = python(), ROOT + '/tests/fixtures'
        r = sh([py, fixtures + '/prepare.py', CACHE + '/fixtures'])
        if r.returncode:
            print(r.stdout[-3000:])
        suites += [Suite('unigram', [py, ROOT + '/tests/tools/mk_ugm_golden.py', '--live', hearth]),
                   Suite('mkgguf', [py, ROOT + '/tests/test_mkgguf.py'])]
        parts = ['quant', 'qzoo', 'logits', 'tokens', 'templates', 'snippets']
        suites += [Suite(p, [py, fixtures + '/run_all.py', '--build', CACHE + '/fixtures', '--probe', hearth, '--only', p]) for p in parts]
        zoo = [py, fixtures + '/check/check_logits.py', CACHE + '/fixtures/zoo', '--only', open(ROOT + '/tests/zoo.list').read().strip()]
        suites += [Suite('zoo', zoo + ['--probe', hearth]), Suite('zoo-strict', zoo + ['--strict', '--probe', hearth + ' --kv f32']),
                   Suite('plan', [a.build + '/tests/test_plan', CACHE + '/fixtures/zoo', open(ROOT + '/tests/zoo.list').read().strip()]),
                   Suite('library', [sys.executable, ROOT + '/tests/test_lib.py', a.build + '/libhearth.so', CACHE + '/fixtures/models/smollm2-135m-q4_1.gguf']),
                   Suite('pull', [py, ROOT + '/tests/test_pull.py', '--hearth', hearth, '--model', CACHE + '/fixtures/models/smollm2-135m-q4_1.gguf']),
                   Suite('larger', [py, ROOT + '/tests/test_larger.py', hearth, CACHE + '/fixtures/models/smollm2-135m-q4_1.gguf']),
                   Suite('cli', [sys.executable, ROOT + '/tests/test_cli.py', hearth, CACHE + '/fixtures']),
                   Suite('install', [sys.executable, ROOT + '/tests/test_install.py', a.build, CACHE + '/fixtures/zoo/llama.gguf']),
                   Suite('memory', [py, ROOT + '/tests/test_memory.py', a.build, CACHE + '/fixtures'] + ['--all'] * a.all),
                   Suite('run', [sys.executable, ROOT + '/tests/test_run.py', hearth, CACHE + '/fixtures/models/smollm2-135m-q4_1.gguf']),
                   Suite('demo', [sys.executable, ROOT + '/tests/test_demo.py', a.build, CACHE + '/fixtures/models/smollm2-135m-q4_1.gguf']),
                   Suite('page', [py, ROOT + '/tests/test_page.py', '--hearth', hearth, '--model', CACHE + '/fixtures/models/smollm2-135m-q4_1.gguf', '--out', a.build]),
                   Suite('api', [py, ROOT + '/tests/test_api.py', '--hearth', hearth, '--model', CACHE + '/fixtures/models/smollm2-135m-q4_1.gguf']),
                   Suite('http', [sys.executable, ROOT + '/tests/test_http.py', '--hearth', hearth, '--model', CACHE + '/fixtures/models/smollm2-135m-q4_1.gguf']),
                   Suite('api-node', [sys.executable, ROOT + '/tests/test_api_node.py', '--hearth', hearth, '--model', CACHE + '/fixtures/models/smollm2-135m-q4_1.gguf']),
                   Suite('load', [sys.executable, ROOT + '/tests/test_load.py', '--hearth', hearth, '--model', CACHE + '/fixtures/models/smollm2-135m-q4_1.gguf', '--clients', '12', '--seconds', '20']),
                   Suite('mutants-self', [py, ROOT + '/tests/tools/run_mutants.py', '--self-test']),
                   Suite('asan', [py, ROOT + '/tests/sanitize.py', 'address,undefined', CACHE + '/fixtures']),
                   Suite('mutants', [py, ROOT + '/tests/tools/run_mutants.py', '--hearth', ROOT + '/build-address/hearth', '--n', '1500', '--seed', '1', '--zoo', CACHE + '/fixtures/zoo']),
                   Suite('tsan', [py, ROOT + '/tests/sanitize.py', 'thread', CACHE + '/fixtures']),
                   Suite('qemu', [sys.executable, ROOT + '/tests/qemu.py', CACHE + '/fixtures', CACHE + '/sysroot-arm64', hearth]),
                   Suite('bits', [py, ROOT + '/tests/bits.py', hearth, CACHE + '/fixtures'])]
    total = [0, 0, 0]
    for s in suites:
        if a.only and s.name not in a.only.split(','):
            continue
        for i, n in enumerate(s.run(a.v)):
            total[i] += n
    print(f'{total[0]} passed, {total[1]} failed, {total[2]} skipped')
    sys.exit(1 if total[1] else 0)


main()
