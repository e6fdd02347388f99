#!/usr/bin/env python3
"""test_vm.py BUILD FIXTURES [--kernel NAME] [--only PART]: control groups of version 2, swap, huge pages and little memory, on a kernel of
Debian's in a virtual machine (tests/tools/vm.py). tests/test_memory.py has more to do than a machine that qemu computes can:
HACKING.md has the command.

units     the unit tests of what reads groups and memory
groups    plan, doctor and serve in groups with memory.max and memory.high of their own and of an ancestor; tiny models at exactly the plan
pressure  services beside a program that eats their group's memory or its parent's, with swap; one beside its own memory.high, without:
          warned, refusing, ready again; and one beside all that which nothing concerns
box       a second machine of 512 MiB, 64 huge pages and, where the kernel has it, CMA of 64 MiB
Prints 'N passed, N failed, N skipped'; all is skipped, with the reason, where no such machine can be had."""
import argparse
import os
import random
import re
import subprocess
import sys
import threading
import time
import traceback

import checks
import test_memory
from served import Served, ask, metrics

check = checks.check
MIB = 1 << 20
LIMIT = 320 * MIB  # of services with an eater; theirs takes 210
ROOT = '/sys/fs/cgroup'
TESTS = os.path.dirname(os.path.abspath(__file__))
SMALL = ['--ctx', '64', '--threads', '1', '--parallel', '1', '--max-body', '1', '--max-clients', '4']


# --- in the machine -------------------------------------------------------------------------------


def make(path, given_on=True, **limits):
    """A group below the root, with limits: what stands in its memory.NAME."""
    os.mkdir(ROOT + path)
    if given_on:
        put(path, 'cgroup.subtree_control', '+memory')
    for name, value in limits.items():
        put(path, 'memory.' + name, value)
    return path


def put(path, name, text):
    test_memory.write(f'{ROOT}{path}/{name}', text)


def number(path, name, key=None):
    words = open(f'{ROOT}{path}/{name}').read().split()
    return int(words[words.index(key) + 1] if key else words[0])


def joining(path):
    return lambda: put(path, 'cgroup.procs', os.getpid())


def said(path, *args):
    r = subprocess.run(args, preexec_fn=joining(path), stdin=subprocess.DEVNULL, capture_output=True, text=True, errors='replace')
    return r.stdout + r.stderr


def groups(a):
    hearth, tiny = a.build + '/hearth', a.fixtures + '/zoo/llama.gguf'
    high, most = 'memory.high, above which programs wait', "the cgroup's memory limit"
    swap_of_box = 'swap +note'
    for i, (above, own, mib, name, doctor, swap) in enumerate((
            ({}, {'max': 300}, 300, most, 'limit 300 MiB', swap_of_box),
            ({}, {'max': 300, 'high': 200}, 200, high, r'memory\.high is 200 MiB', swap_of_box),
            ({'max': 250}, {}, 250, most, 'limit 250 MiB', swap_of_box),
            ({'high': 220}, {'max': 300}, 220, high, r'memory\.high is 220 MiB', swap_of_box),
            ({'max': 250, 'swap.max': 0}, {'max': 300}, 250, most, 'limit 250 MiB', '(?s)none for this cgroup'),
            ({}, {}, None, 'memory available on this box', 'no limit below', swap_of_box))):
        parent = make(f'/plan{i}', **{k: v * MIB for k, v in above.items()})
        group = make(parent + '/own', False, **{k: v * MIB for k, v in own.items()})
        what = f'{above} above, {own}'
        plan = said(group, hearth, 'plan', tiny, '--ctx', '64')
        m = re.search(r'available +([0-9.]+) MiB  \((.*?)\)', plan)
        check(f'{what}: plan', m and (mib is None or mib - 4 <= float(m[1]) <= mib) and name in m[2], plan)
        told = said(group, hearth, 'doctor')
        check(f'{what}: doctor', re.search(r'cgroup memory +\w+ +' + doctor, told) and re.search(swap, told), told)
    parent = make('/refuse', high=30 * MIB)
    group = make(parent + '/own', False)
    text = said(group, hearth, 'serve', '--model', tiny, '--port', '0', *SMALL)
    check('serve refuses what an ancestor does not leave', test_memory.TOO_LARGE.search(text) and high in text, text)
    own = test_memory.Groups()
    check('memory.max is there', own.version == 2, own.name())
    for clients, kv in ((1, 'f16'), (8, 'q8_0')):
        args = test_memory.fill_args(a, tiny, 256, kv, clients, 64, 2)
        planned = test_memory.figures(test_memory.run(own, args('plan')))
        r = test_memory.run(own, args(0), planned // 4096 * 4096)
        good = r.code == 0 and r.killed == 0 and 0 < r.peak <= planned and 0 < r.kernel
        check(f'{clients} at once at exactly the plan', good, (planned, r))
        print(f'# {clients} at once, {kv}: plan {planned / MIB:.2f} MiB, resident {r.peak / MIB:.2f}, the kernel {r.kernel / MIB:.2f}', flush=True)


def eat(mib):
    """Takes memory and uses all of it. Beyond a limit that means reading from swap, beyond memory.high waiting."""
    held = []
    for _ in range(int(mib)):
        held.append(bytearray(b'x') * MIB)
    while True:
        random.choice(held)[random.randrange(256) * 4096] = 1


class Watched(threading.Thread):
    """A service and what becomes of it while its eater eats."""

    def __init__(self, a, name, group, eaters):
        super().__init__()
        self.name, self.group, self.eaters, self.a = name, group, eaters, a
        self.seen, self.server, self.has_ended = set(), None, False

    def until(self, state, limit_s):
        end = time.monotonic() + limit_s
        while time.monotonic() < end:
            now = metrics(self.server).get('hearth_memory_pressure_state')
            self.seen.add(now)
            if now == state:
                return True
            time.sleep(1)
        return False

    def run(self):
        try:
            self.watch()
            self.has_ended = True
        except Exception:
            check(f'{self.name}: no exception', False, traceback.format_exc() + (self.server.said() if self.server else ''))

    def watch(self):
        body = {'prompt': 'hello', 'max_tokens': 2}
        with Served(self.a.build + '/hearth', self.a.fixtures + '/zoo/llama.gguf', *SMALL, ready=False, preexec_fn=joining(self.group), slack=4.0) as s:
            self.server = s
            s.wait_ready()
            self.first = ask(s, 'POST', '/v1/completions', body).status
            if not self.eaters:
                self.until(2, 75)
                self.last = ask(s, 'POST', '/v1/completions', body).status
                return
            eater = subprocess.Popen([sys.executable, __file__, 'eat', str(LIMIT // MIB)], preexec_fn=joining(self.eaters))
            begin = time.monotonic()
            self.sheds = self.until(2, 90)
            self.shed_s = time.monotonic() - begin
            self.refused, self.ready, self.health = ask(s, 'POST', '/v1/completions', body), ask(s, 'GET', '/readyz'), ask(s, 'GET', '/healthz')
            self.eater_code = eater.poll()
            eater.kill()
            eater.wait()
            begin = time.monotonic()
            self.eases = self.until(0, 60)
            self.ease_s = time.monotonic() - begin
            self.last, self.ready_again = ask(s, 'POST', '/v1/completions', body).status, ask(s, 'GET', '/readyz').status

    def judge(self):
        log = [x for x in self.server.said().splitlines() if 'memory' in x]
        print(f'# {self.name}: ' + (f'refuses {self.shed_s:.0f} s after, calm {self.ease_s:.0f} s after the end' if self.eaters else f'states {sorted(self.seen)}') + ''.join(f'\n#   {x}' for x in log[-6:]), flush=True)
        check(f'{self.name}: answers before and after', (self.first, self.last) == (200, 200), (self.first, self.last, log))
        if not self.eaters:
            check(f'{self.name}: calm', self.seen == {0.0}, (self.seen, log))
            return
        check(f'{self.name}: refuses', self.sheds and self.refused.status == 503 and self.refused.error.get('code') == 'memory_pressure', (self.refused.status, self.refused.data, log))
        check(f'{self.name}: says of what', 'to this cgroup' in str(self.refused.data) and self.refused.headers.get('Retry-After') == '10', (self.refused.data, log))
        check(f'{self.name}: not ready, but alive', (self.ready.status, self.health.status) == (503, 200), (self.ready.data, self.health.data))
        check(f'{self.name}: nobody was killed', self.eater_code is None and number(self.group, 'memory.events', 'oom_kill') == 0, self.eater_code)
        check(f'{self.name}: ready again', self.eases and self.ready_again == 200, (self.seen, log))


def pressure(a):
    make('/family', max=LIMIT)
    watched = [Watched(a, 'an eater in the same group', make('/same', False, max=LIMIT), '/same'),
               Watched(a, 'an eater in a sibling, limit above both', make('/family/service', False), make('/family/eater', False)),
               Watched(a, 'an eater in the same group, memory.high', make('/high', False, high=LIMIT, **{'swap.max': 0}), '/high'),
               Watched(a, 'none', make('/alone', False, max=LIMIT), None)]
    for w in watched:
        w.start()
    for w in watched:
        w.join()
    for w in watched:
        if w.has_ended:
            w.judge()


def units(a):
    for name in ('os', 'mem', 'cgroup', 'claim', 'pool', 'pressure', 'shed'):
        r = subprocess.run([f'{a.build}/tests/test_{name}'], cwd=os.path.dirname(TESTS), capture_output=True, text=True, errors='replace', env={**os.environ, 'CMOCKA_MESSAGE_OUTPUT': 'TAP'})
        print(f'# test_{name}: {len(re.findall("^ok", r.stdout, re.M))} ok', flush=True)
        check(f'test_{name}', r.returncode == 0 and 'not ok' not in re.sub('not ok.*# SKIP', '', r.stdout), r.stdout + r.stderr)


def box(a):
    """Plan and doctor are compared with the kernel's own words."""
    def kib(key):
        m = re.search(rf'^{key}: +(\d+)', open('/proc/meminfo').read(), re.M)
        return int(m[1]) if m else 0
    hearth, tiny = a.build + '/hearth', a.fixtures + '/zoo/llama.gguf'
    total, cma, n_huge, mib = kib('MemTotal') / 1024, kib('CmaFree') / 1024, kib('HugePages_Free'), kib('MemAvailable') / 1024
    plan, told = said('', hearth, 'plan', tiny, '--ctx', '64'), said('', hearth, 'doctor')
    m = re.search(r'available +([0-9.]+) MiB', plan)
    print(f'# box of {total:.0f} MiB, {mib:.0f} available, {n_huge} huge pages, CMA {cma:.0f}: plan {m and m[1]}\n' + told + plan, flush=True)
    check('huge pages were reserved', n_huge == 64, n_huge)
    check('plan: available, less CMA and the reserve', m and abs(float(m[1]) - (mib - cma - 64)) < 12, (plan, mib, cma))
    check('plan says huge pages', re.search(r'^ +free huge pages +128\.0 MiB', plan, re.M), plan)
    check('doctor says huge pages', re.search(r'huge page pools +\w+ +128', told), told)
    check('doctor: no memory is missing', re.search(r'held by drivers +ok', told), told)
    text = said('', hearth, 'run', a.fixtures + '/zoo/llama.gguf', 'hello', '-n', '2', '--ctx', '64', '--temp', '0', '--json')
    check('run answers', '"text"' in text, text)
    text = said('', hearth, 'run', a.fixtures + '/models/smollm2-135m-q4_1.gguf', 'hello', '--ctx', '8192', '--kv', 'f32')
    m = test_memory.TOO_LARGE.search(text)
    check('what does not fit is refused', m and abs(float(m[2]) - (mib - cma - 64)) < 12, text)


# --- outside --------------------------------------------------------------------------------------


def machine(a, part, *options):
    """A part in a machine of its own; adds up what it counts."""
    p = subprocess.Popen([sys.executable, TESTS + '/tools/vm.py', '--kernel', a.kernel, '--copy', a.build, '--copy', a.fixtures + '/zoo', '--limit', '900', *options, sys.executable, __file__, a.build,
                          a.fixtures, '--inside', part], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors='replace')
    text = ''
    for line in p.stdout:
        text += line
        print(line, end='', flush=True)
    if p.wait() == 3:
        checks.STATE['skipped'] += 1
        return
    m = re.findall(r'^(\d+) passed, (\d+) failed, (\d+) skipped$', text, re.M)
    for key, n in zip(('passed', 'failed', 'skipped'), m[-1] if m else (0, 1, 0)):
        checks.STATE[key] += int(n)


def main():
    if sys.argv[1] == 'eat':
        eat(*sys.argv[2:])
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument('build', type=os.path.abspath)
    ap.add_argument('fixtures', type=os.path.abspath)
    ap.add_argument('--kernel', default='')
    ap.add_argument('--only', default='')
    ap.add_argument('--inside', default='')
    a = ap.parse_args()
    if a.inside:
        put('', 'cgroup.subtree_control', '+memory')
        for part in a.inside.split(','):
            {'groups': groups, 'pressure': pressure, 'units': units, 'box': box}[part](a)
        checks.finish()
    if a.only != 'box':
        machine(a, a.only or 'units,groups,pressure', '--swap', '256')
    if a.only in ('', 'box'):
        machine(a, 'box', '--mib', '512', '--append', 'hugepages=64 cma=64M')
    checks.finish()


main()
