#!/usr/bin/env python3
"""test_memory.py BUILD FIXTURES [--all] [--large MODEL.gguf] [--seed N] [--only NAME]: what the plan says is what the program takes.

Where this user may make memory cgroups (version 1 or 2), the real programs run in groups of their own whose limit is the plan, so that
the kernel ends whoever takes a page too many; swap is off there. Elsewhere the allocator's guard (--memory) has
the plan as its limit, and the kernel's figure of what was resident at most is compared: the first line says which.

limits  `hearth run`, `hearth serve` and tests/fill at the plan, 2 % more and 5 % less: works, works, says so before it loads
table   twelve combinations of model, context, cache type and clients: the peak lies within 3 % of the plan and never above
plans   random plans at exactly the planned limit: 12, with --all 200 (some ten minutes); a plan that fails is made again by --seed N
larger  packed models, one with experts, in half a dozen limits that hold a part of them: they plan for each, keep to it, and answer alike
allocs  each request for memory of `hearth run` and `hearth serve`, from main on and in all libraries but hwloc, is refused in turn
ulimits small limits of addresses and data: the same answer, or exit code 4 and a message that names the limit, never a death on the way
Prints 'N passed, N failed'."""
import argparse
import json
import os
import random
import re
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time

import checks
from served import ask

check = checks.check
MIB = 1 << 20
TOO_LARGE = re.compile(r'needs ([0-9.]+) MiB .*?, ([0-9.]+) MiB are available \((.*?)\)')
NOISE = 65536  # what differs between two starts (src/engine/plan.c)


# --- cgroups --------------------------------------------------------------------------------------


def group_line(controller):
    """Path of our group in the hierarchy of a controller ('' is version 2), or None."""
    try:
        lines = open('/proc/self/cgroup').read().splitlines()
    except OSError:
        return None
    for line in lines:
        _, names, path = line.split(':', 2)
        if controller in names.split(',') if controller else names == '':
            return path
    return None


def write(path, text):
    with open(path, 'w') as f:
        f.write(str(text))


class Groups:
    """Where groups can be made. version: 0 where none can."""

    def __init__(self, is_allowed=True):
        self.version, self.base = 0, ''
        for version, root, path in ((1, '/sys/fs/cgroup/memory', group_line('memory')), (2, '/sys/fs/cgroup', group_line(''))):
            for base in [root + path, root] if path is not None and is_allowed else []:
                if self.version == 0 and self.can_use(version, base):
                    self.version, self.base = version, base

    def give_on(self, base):
        """Memory is given on only where no process is in the group itself: where it is this one alone (systemd-run -p Delegate=yes), it
        goes into a group below."""
        if 'memory' in open(base + '/cgroup.subtree_control').read().split():
            return
        if open(base + '/cgroup.procs').read().split() == [str(os.getpid())]:
            os.makedirs(base + '/hearth-tests', exist_ok=True)
            write(base + '/hearth-tests/cgroup.procs', os.getpid())
        write(base + '/cgroup.subtree_control', '+memory')

    def can_use(self, version, base):
        trial = f'{base}/hearth-trial-{os.getpid()}'
        try:
            if version == 2:
                self.give_on(base)
            os.mkdir(trial)
        except OSError:
            return False
        try:
            write(trial + ('/memory.limit_in_bytes' if version == 1 else '/memory.max'), 64 * MIB)
            return True
        except OSError:
            return False
        finally:
            os.rmdir(trial)

    def name(self):
        return f'enforced by the kernel, memory cgroups version {self.version}' if self.version else 'not enforced by the kernel: no memory cgroup can be made here; the allocator\'s guard and VmHWM instead'


class Group:
    """One group with a limit (None: only watched)."""

    def __init__(self, groups, limit):
        self.v1, self.path = groups.version == 1, f'{groups.base}/hearth-test-{os.getpid()}-{time.monotonic_ns()}'
        os.mkdir(self.path)
        if limit is not None and self.v1:
            self.set('memory.limit_in_bytes', limit)
            if os.path.exists(self.path + '/memory.memsw.limit_in_bytes'):
                self.set('memory.memsw.limit_in_bytes', limit)
        elif limit is not None:
            self.set('memory.max', limit)
            if os.path.exists(self.path + '/memory.swap.max'):
                self.set('memory.swap.max', 0)

    def set(self, name, value):
        write(f'{self.path}/{name}', value)

    def number(self, name, key=None):
        """A file's number, or that after a key; 0 if there is none."""
        try:
            words = open(f'{self.path}/{name}').read().split()
            return int(words[words.index(key) + 1] if key else words[0])
        except (OSError, ValueError, IndexError):
            return 0

    def join(self):
        write(self.path + '/cgroup.procs', os.getpid())

    def watch(self):
        """What the kernel has for the group, from now until it ends: version 2 keeps no maximum, and what a process has is gone with it."""
        def sample():
            while not self.is_over.wait(0.002):
                self.sampled = max(self.sampled, self.number('memory.kmem.usage_in_bytes') if self.v1 else self.number('memory.stat', 'kernel'))
        self.sampled, self.is_over = 0, threading.Event()
        self.watcher = threading.Thread(target=sample)
        self.watcher.start()

    def kernel(self):
        self.is_over.set()
        self.watcher.join()
        return self.number('memory.kmem.max_usage_in_bytes') if self.v1 else self.sampled

    def killed(self):
        return self.number('memory.oom_control', 'oom_kill') if self.v1 else self.number('memory.events', 'oom_kill')

    def close(self):
        for _ in range(200):  # the kernel needs a moment after the last process has gone
            try:
                os.rmdir(self.path)
                return
            except OSError:
                time.sleep(0.01)


# --- programs -------------------------------------------------------------------------------------


class Done:
    """What became of a program. peak: most bytes resident, by the program's own figure where it tells one, else by wait4."""

    def __init__(self):
        self.code, self.out, self.err, self.peak, self.kernel, self.killed, self.sampled = None, '', '', 0, 0, 0, 0

    def json(self):
        return json.loads(self.out.strip().splitlines()[-1]) if self.code == 0 and self.out.strip() else {}

    def __repr__(self):
        return f'exit {self.code}, killed {self.killed}, peak {self.peak}, kernel {self.kernel}, {self.out[-300:]!r}, {self.err[-300:]!r}'


def own_peak():
    return int(re.search(r'VmHWM:\s+(\d+)', open('/proc/self/status').read())[1]) * 1024


def launch(groups, args, limit, **more):
    group = Group(groups, limit) if groups.version else None
    try:
        p = subprocess.Popen(args, preexec_fn=group.join if group else None, **more)
        group and group.watch()
        return group, p
    except BaseException:
        group and group.close()
        raise


def reap(done, process, group, begin_peak):
    """Waits, and takes figures. A child begins as a copy of this program, whose peak counts as the child's."""
    _, status, used = os.wait4(process.pid, 0)
    process.returncode = done.code = os.waitstatus_to_exitcode(status)
    done.peak = used.ru_maxrss * 1024 if used.ru_maxrss * 1024 > begin_peak else 0
    if group:
        done.kernel, done.killed = group.kernel(), group.killed()
        done.sampled = group.sampled
        group.close()


def run(groups, args, limit=None, limit_s=300):
    done, begin = Done(), own_peak()
    with tempfile.TemporaryFile('w+') as out, tempfile.TemporaryFile('w+') as err:
        group, p = launch(groups, args, limit, stdin=subprocess.DEVNULL, stdout=out, stderr=err)
        watch = threading.Timer(limit_s, p.kill)
        watch.start()
        reap(done, p, group, begin)
        watch.cancel()
        for f in (out, err):
            f.seek(0)
        done.out, done.err = out.read(), err.read()
    done.peak = max(done.peak, done.json().get('rss_peak_bytes', 0) if done.out.startswith('{') else 0)
    return done


def serve(groups, args, limit, bodies):
    """A service that answers all bodies at once, tells its peak and is ended."""
    done, begin, port = Done(), own_peak(), [None]
    group, p = launch(groups, args, limit, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    said, has_port = [], threading.Event()

    def read():
        for line in p.stderr:
            said.append(line)
            m = re.search(r'http://127\.0\.0\.1:(\d+)/', line)
            if m:
                port[0] = int(m[1])
                has_port.set()
        has_port.set()

    reader = threading.Thread(target=read)
    reader.start()
    has_port.wait(60)
    server = type('Server', (), {'port': port[0], 'slack': 1.0})
    replies = []
    try:
        while ask(server, 'GET', '/readyz')[0] != 200:
            time.sleep(0.02)
        threads = [threading.Thread(target=lambda b=b: replies.append(ask(server, 'POST', '/v1/completions', b))) for b in bodies]
        for t in threads:
            t.start()
        for t in threads:
            t.join()
        done.out = ask(server, 'GET', '/metrics').body
    except (OSError, ConnectionError) as e:
        said.append(f'[{e}]')
    if done.out:
        os.kill(p.pid, signal.SIGTERM)
    watch = threading.Timer(60, p.kill)
    watch.start()
    reap(done, p, group, begin)
    watch.cancel()
    reader.join()
    done.err = ''.join(said)
    found = re.search(r'^hearth_memory_peak_bytes (\S+)$', done.out, re.M)
    done.peak = max(done.peak, int(float(found[1])) if found else 0)
    done.answers = sorted(r.body['usage']['completion_tokens'] if r.status == 200 else r.body for r in replies)
    return done


def figures(r):
    return r.json().get('planned_bytes', 0)


# --- tests ----------------------------------------------------------------------------------------


def refused(what, done, limit):
    m = TOO_LARGE.search(done.err)
    check(f'{what}: refused before it loads', done.code == 4 and m is not None and len(re.findall('^hearth: ', done.err, re.M)) <= 3, done)
    check(f'{what}: nobody was killed', done.killed == 0, done)
    if m:
        check(f'{what}: its numbers', float(m[1]) > float(m[2]) and abs(float(m[2]) * MIB - limit) < 0.2 * MIB, (m.groups(), limit))
    check(f'{what}: it stayed small', done.peak < limit / 2, done)


def cold_copy(path, to):
    """A copy of a file that is not in the page cache: reading it is charged to whoever does."""
    shutil.copy(path, to)
    with open(to, 'rb') as f:
        os.fsync(f.fileno())
        os.posix_fadvise(f.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
    return to


def memory_arg(groups, limit):
    return [] if groups.version else ['--memory', str(limit // MIB)]


def limits(a, groups, folder):
    smol, gemma = a.fixtures + '/models/smollm2-135m-q4_1.gguf', a.fixtures + '/models/gemma3-270m-q4_k_m.gguf'
    text = 'word ' * 400
    hearth, fill = a.build + '/hearth', a.build + '/tests/fill'

    def with_run(limit, binary=hearth, model=smol):
        return run(groups, [binary, 'run', model, text, '--raw', '--json', '--ctx', '512', '--threads', '2', '--ignore-eos', *memory_arg(groups, limit or 1 << 40)], limit)

    def with_fill(limit):
        memory = '0' if groups.version or not limit else str(limit)
        return run(groups, [fill, gemma, '512', 'q8_0', '4', '256', '2', memory, '-'], limit)

    def with_serve(limit):
        body = {'prompt': text, 'max_tokens': 60, 'ignore_eos': True}
        return serve(groups, [hearth, 'serve', '--model', smol, '--port', '0', '--ctx', '512', '--parallel', '4', '--threads', '2', '--max-body', '1', '--max-clients', '16', *memory_arg(groups, limit or 1 << 40)], limit, [body] * 4)

    def serve_plan():
        r = with_serve(None)
        m = re.search(r'^hearth_memory_planned_bytes (\S+)$', r.out, re.M)
        return int(float(m[1])) if m else 0

    for name, once, plan in (('run', with_run, lambda: figures(with_run(None))), ('fill', with_fill, lambda: figures(with_fill(None))), ('serve', with_serve, serve_plan)):
        planned = plan()
        check(f'{name}: a plan', planned > 0, planned)
        for percent in (0, 2):
            limit = planned * (100 + percent) // 100 // 4096 * 4096 + (0 if percent else 4096)
            limit = limit if groups.version else (limit + MIB - 1) // MIB * MIB
            r = once(limit)
            answers = getattr(r, 'answers', None)
            check(f'{name}: works at the plan + {percent} %', r.code == 0 and r.killed == 0 and 0 < r.peak <= planned and answers in (None, [60] * 4), (planned, r, answers))
            print(f'# {name} at plan + {percent} % ({limit / MIB:.1f} MiB): exit {r.code}, resident {r.peak / MIB:.1f} MiB, kernel {r.kernel / MIB:.2f} MiB, {r.killed} killed', flush=True)
        limit = planned * 95 // 100 // MIB * MIB
        r = once(limit)
        refused(f'{name} at the plan - 5 %', r, limit)
        print(f'# {name} at plan - 5 % ({limit / MIB:.1f} MiB): exit {r.code}, {"".join(x for x in r.err.splitlines() if "needs" in x)}', flush=True)
    if not groups.version:
        return  # page cache is charged to groups only
    planned = figures(with_run(None))
    r = with_run(planned // 4096 * 4096 + 4096, cold_copy(hearth, folder + '/program'), cold_copy(smol, folder + '/model.gguf'))
    check('run at the plan, program and model read from the disk: page cache gives way', r.code == 0 and r.killed == 0 and r.peak <= planned, (planned, r))


def fill_args(a, path, ctx, kv, clients, batch, threads, draft='-'):
    return lambda memory: [a.build + '/tests/fill', path, str(ctx), kv, str(clients), str(batch), str(threads), str(memory), draft]


def made(folder):
    """A model of some 100 MB in the shape of a larger one."""
    path = folder + '/made.gguf'
    if os.path.exists(path):
        return path
    r = subprocess.run([sys.executable, os.path.dirname(os.path.abspath(__file__)) + '/tools/mkgguf.py', 'tiny', path, '--type', 'q4_k_m', '--layers', '8', '--embd', '1024', '--ff', '4096', '--heads', '16',
                        '--kv-heads', '4', '--ctx', '8192', '--vocab-size', '16384'], capture_output=True, text=True)
    check('a made model', r.returncode == 0, r.stderr[-500:])
    return path


def table(a, groups, folder):
    smol, gemma, one = a.fixtures + '/models/smollm2-135m-q4_1.gguf', a.fixtures + '/models/gemma3-270m-q4_k_m.gguf', made(folder)
    rows = [(smol, 512, 'f16', 1), (smol, 1024, 'q8_0', 4), (smol, 512, 'f32', 8), (smol, 2048, 'bf16', 1),
            (gemma, 512, 'f16', 1), (gemma, 1024, 'q8_0', 2), (gemma, 512, 'bf16', 8),
            (one, 1024, 'f16', 1), (one, 2048, 'q8_0', 2), (one, 512, 'f32', 16),
            (a.fixtures + '/zoo/qwen3.gguf', 1024, 'f32', 64), (a.fixtures + '/zoo/gemma3.gguf', 1024, 'f16', 64)]
    rows += [(a.large, 4096, 'f16', 1), (a.large, 1024, 'q8_0', 8)] if a.large else []
    print('# model                       ctx  kv   clients    plan MiB    peak MiB    peak/plan  kernel KiB: plan  used')
    for path, ctx, kv, clients in rows:
        args = fill_args(a, path, ctx, kv, clients, 512, 2)
        lines = run(groups, args('plan')).json()
        planned, kernel = lines.get('planned_bytes', 1), lines.get('kernel: tables, stacks', 0)
        with open(path, 'rb') as f:  # else the kernel's own has what it keeps to find cached pages, which it gives up as it does them
            while f.read(16 * MIB):
                pass
        r = run(groups, args(0))
        name = f'{os.path.basename(path)} {ctx} {kv} {clients}'
        print(f'# {os.path.basename(path):26s} {ctx:5d}  {kv:5s} {clients:4d} {planned / MIB:12.1f} {r.peak / MIB:11.1f} {100 * r.peak / planned - 100:+10.2f} % {kernel / 1024:14.0f} {r.kernel / 1024:8.0f}', flush=True)
        check(f'{name}: answers', r.code == 0, r)
        check(f'{name}: what the kernel has was seen while it ran', r.sampled > 0 or not groups.version, r)
        check(f'{name}: resident memory within 3 % of the plan and not above', 0.97 * planned <= r.peak <= planned, (planned, r))
        check(f'{name}: the kernel\'s own within its line', r.kernel <= kernel, (kernel, r))
        check(f'{name}: with what the kernel has, within the plan', r.peak + r.kernel <= planned, (planned, r))


def random_plan(a, seed, one):
    rnd = random.Random(seed)
    tiny = [a.fixtures + f'/zoo/{n}.gguf' for n in ('llama', 'gemma3', 'qwen3', 'phi3-mini', 'granite', 'cohere2')]
    path = rnd.choice([a.fixtures + '/models/smollm2-135m-q4_1.gguf'] * 2 + [a.fixtures + '/models/gemma3-270m-q4_k_m.gguf', one] + rnd.sample(tiny, 2))
    is_tiny = path in tiny
    clients = rnd.randint(1, 64 if is_tiny else 8)
    most = min(1024 if is_tiny else 4096, (65536 if is_tiny else 4096) // clients)
    ctx, threads = rnd.randint(24, most), rnd.randint(1, 4)
    draft = path if rnd.random() < 0.15 else '-'
    return fill_args(a, path, ctx, rnd.choice(['f16', 'bf16', 'q8_0', 'f32']), clients, rnd.randint(1, 1024) if is_tiny else rnd.randint(64, 1024), threads, draft)


def plans(a, groups, folder):
    seeds = [a.seed] if a.seed is not None else range(200 if a.all else 12)
    plans_of(a, groups, folder, seeds)
    if groups.version and a.seed is None:
        plans_of(a, Groups(False), folder, range(4))


def plans_of(a, groups, folder, seeds):
    one = made(folder)
    killed = over = 0
    share = []
    for seed in seeds:
        args = random_plan(a, seed, one)
        planned = figures(run(groups, args('plan')))
        limit = planned // 4096 * 4096
        r = run(groups, args(0 if groups.version else planned), limit)
        killed, over = killed + (r.killed > 0 or r.code < 0), over + (r.peak > planned or figures(r) > planned + NOISE)
        good = r.code == 0 and r.killed == 0 and r.peak <= planned and abs(figures(r) - planned) <= NOISE
        share.append(r.peak / planned if planned else 0)
        check(f'seed {seed}: {" ".join(args(planned)[1:])}', planned > 0 and good, r)
        if a.all or not good:
            print(f'# seed {seed}: {"ok" if good else "FAILED"}, plan {planned / MIB:.1f} MiB, resident {r.peak / MIB:.1f} MiB, {" ".join(args(planned)[1:])}', flush=True)
    print(f'# {len(share)} random plans, seeds {seeds[0]} to {seeds[-1]}, run at exactly the planned limit ({"cgroup" if groups.version else "guard"}): {killed} kills, {over} overruns; resident {100 * min(share):.1f} to {100 * max(share):.1f} % of the plan')


def larger(a, groups, folder):
    """The group is the only limit that a model gets to know, where there are groups."""
    experts = folder + '/experts.gguf'
    mk = os.path.dirname(os.path.abspath(__file__)) + '/tools/mkgguf.py'
    r = subprocess.run([sys.executable, mk, 'tiny-moe', experts, '--type', 'q4_k_m', '--layers', '8', '--embd', '512', '--ff-expert', '512', '--experts', '32', '--ctx', '2048'],
                       capture_output=True, text=True)
    check('a made model with experts', r.returncode == 0, r.stderr[-500:])
    program = ['env', f'XDG_DATA_HOME={folder}', a.build + '/hearth']
    for name, path in (('dense', made(folder)), ('experts', experts)):
        check(f'{name}: packed', subprocess.run([*program, 'pull', '--pack', path, '--name', name], capture_output=True).returncode == 0)

        def once(limit, *more):
            return run(groups, [*program, 'run', name, 'word ' * 200, '--raw', '--json', '--temp', '0', '-n', '8', '--ctx', '1024', '--threads', '2', *more,
                                *memory_arg(groups, limit or 1 << 40)], limit)
        usual = once(None)
        whole = figures(usual)
        check(f'{name}: with all there is', whole > 50 * MIB, usual)
        for less in (15, 25, 38):
            limit = (whole - less * MIB) // MIB * MIB
            r = once(limit)
            planned = figures(r)
            good = r.code == 0 and r.killed == 0 and 0 < r.peak <= planned <= limit and r.json().get('text') == usual.json()['text']
            check(f'{name}: {less} MiB less than all of it takes', good and 'read from the disk' in r.err, (whole, limit, r))
            print(f'# {name} in {limit / MIB:.0f} of {whole / MIB:.1f} MiB: plan {planned / MIB:.1f}, resident {r.peak / MIB:.1f} MiB, {r.killed} killed', flush=True)


def refusing(a, args, n, count):
    """Starts a program that is refused its n-th request for memory; what it said, its exit code, and how many requests there were. A
    service is asked to end when it is ready."""
    env = {**os.environ, 'LD_PRELOAD': a.build + '/tests/librefuse.so', 'REFUSE_AT': str(n), 'REFUSE_COUNT': count}
    with tempfile.TemporaryFile('w+') as out:
        p = subprocess.Popen(args, stdin=subprocess.DEVNULL, stdout=out, stderr=subprocess.PIPE, text=True, errors='replace', env=env)
        watch = threading.Timer(60, p.kill)
        watch.start()
        said = ''
        for line in p.stderr:
            said += line
            if 'ready' in line:
                p.send_signal(signal.SIGTERM)
        p.wait()
        watch.cancel()
        out.seek(0)
        return p.returncode, out.read(), said, int(open(count).read()) if os.path.exists(count) else 0


def allocs(a, groups, folder):
    if not os.path.exists(a.build + '/tests/librefuse.so'):
        checks.STATE['skipped'] += 1
        return
    tiny, common = a.fixtures + '/zoo/llama.gguf', ['--ctx', '64', '--threads', '2']
    for name, args in (('run', ['run', tiny, 'hello', '-n', '4', '--temp', '0', *common]), ('run --json', ['run', tiny, 'hello', '-n', '2', '--temp', '0', '--json', *common]),
                       ('serve', ['serve', '--model', tiny, '--port', '0', '--parallel', '1', '--max-clients', '4', *common])):
        args = [a.build + '/hearth', *args]
        code, text, said, n = refusing(a, args, 0, folder + '/count')
        check(f'{name}: nothing is refused', code == 0 and n > 50, (code, n, said))
        ends = {}
        for i in range(1, n + 1):
            code, out, said, _ = refusing(a, args, i, folder + '/count')
            ends[code] = ends.get(code, 0) + 1
            last = said.splitlines()[-1] if said else ''
            is_told = code == 4 and last.startswith('hearth: ') and 'memory' in last
            survived = code == 0 and (out == text or name == 'run --json' and json.loads(out)['text'] == json.loads(text)['text'])
            check(f'{name}: request {i} of {n} for memory is refused', is_told or survived, (code, out[-200:], said[-400:]))
        print(f'# {name}: {n} requests for memory refused in turn, exit codes: ' + ', '.join(f'{k} x{v}' for k, v in sorted(ends.items())), flush=True)


def ulimits(a, groups, folder):
    tiny, common = a.fixtures + '/zoo/llama.gguf', ['--ctx', '64', '--threads', '2']
    small = ['--parallel', '1', '--max-body', '1', '--max-clients', '4']
    for which, option in ((resource.RLIMIT_AS, 'ulimit -v'), (resource.RLIMIT_DATA, 'ulimit -d')):
        for name, args in (('run', ['run', tiny, 'hello', '-n', '4', '--temp', '0', *common]), ('serve', ['serve', '--model', tiny, '--port', '0', *small, *common])):
            codes = []
            for mib in (24, 60, 100, 140, 180, 220, 260, 300, 360, 420, 500, 700):
                p = subprocess.Popen([a.build + '/hearth', *args], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
                                     preexec_fn=lambda mib=mib: resource.setrlimit(which, (mib * MIB, mib * MIB)))
                watch = threading.Timer(60, p.kill)
                watch.start()
                said = ''
                for line in p.stderr:
                    said += line
                    if 'ready' in line:
                        p.send_signal(signal.SIGTERM)
                p.wait()
                watch.cancel()
                codes.append(p.returncode)
                check(f'{name}, {option} of {mib} MiB', p.returncode == 0 or p.returncode == 4 and option + ' unlimited' in said.splitlines()[-1], (p.returncode, said))
            check(f'{name}, {option}: refused while it is small, and no longer', codes == sorted(codes, reverse=True) and codes[0] == 4 and codes[-1] == 0, codes)
            print(f'# {name}, {option}: exit codes {codes}', flush=True)


def main():
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument('build')
    ap.add_argument('fixtures')
    ap.add_argument('--all', action='store_true')
    ap.add_argument('--large')
    ap.add_argument('--seed', type=int)
    ap.add_argument('--only', default='')
    ap.add_argument('--no-groups', action='store_true', help='as where no memory cgroup can be made')
    a = ap.parse_args()
    groups = Groups(not a.no_groups)
    print('# ' + groups.name(), flush=True)
    with tempfile.TemporaryDirectory(prefix='hearth-memory-') as folder:
        for test in (limits, table, plans, larger, allocs, ulimits):
            if not a.only or a.only == test.__name__:
                test(a, groups, folder)
    checks.finish()


if __name__ == '__main__':
    main()
