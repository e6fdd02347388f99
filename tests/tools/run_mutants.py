#!/usr/bin/env python3
"""Feeds damaged model files to the program and sorts what happens.

  run_mutants.py --hearth BIN [--n 10000] [--seed 1] [--jobs 2] [--command logits] [--zoo FOLDER] [--keep FOLDER]
  run_mutants.py --self-test

Each file (tests/tools/mutate_gguf.py) goes through `BIN logits -m FILE -o /dev/null` with one case of
three tokens, or through tokenize, render or show. What may happen:
  forward   an answer with logits: the forward pass ran (with the other commands: answered)
  refused   a failing exit code and one line that names the file, or a case answered with one line
Everything else is a failure, and its file is kept:
  crash     a signal or a sanitizer's report
  hang      not finished after 20 s
  slow      more than 1 s, measured again alone if the first run was slow
  memory    more than 256 MB resident at the peak (wait4's ru_maxrss)
  message   refused without a line, with several, or without the file's name
  accepted  an answer, though the header breaks the format's rules (second opinion: gguf_file.judge)

The limits are the same for sanitizer builds: their shadow memory and red zones count, so passing is
harder there. What is taken away is only the quarantine of freed blocks (quarantine_size_mb=16), which
is memory that a program without the sanitizer would not hold. Time is what the clock on the wall says, or
the processor time of all threads where that is less, because others use the machine too.

"header" counts the files whose header obeys the format's rules by the second opinion. Megabytes below
60 or so are those of this script's own process, from which the child is started. --self-test runs stand-ins
for the program that crash, hang, eat memory and so on, and checks that each is found out.
Ends with "N passed, N failed"; exit code 1 when a file failed or the mix missed 20 % header, 5 % forward.
"""
import argparse
import collections
import json
import multiprocessing
import os
import re
import signal
import sys
import tempfile
import time

import gguf_file
import mutate_gguf

SLOW_S, HANG_S, MEMORY_MB = 1.0, 20.0, 256
MIN_HEADER, MIN_FORWARD = 0.20, 0.05
LOG_LINE = re.compile(r'^(<\d>)?level=(warn|info|debug) ')
REPORT = re.compile(r'AddressSanitizer|LeakSanitizer|UndefinedBehaviorSanitizer|ThreadSanitizer|runtime error:')
COMMANDS = {  # arguments behind the command, standard input, a key that a good answer has
    'logits': (['-m', None, '-o', '/dev/null'], b'{"id": "m", "tokens": [1, 2, 3], "positions": [0, 2], "ctx": 32}\n', 'rows'),
    'tokenize': (['-m', None], '{"id": "m", "text": "Hello, w\u00f6rld <s> 123", "parse_special": true}\n'.encode(), 'tokens'),
    'render': (['-m', None], b'{"id": "m", "messages": [{"role": "user", "content": "hi"}], "add_generation_prompt": true}\n', 'text'),
    'show': ([None, '--json'], b'', None),
}
OPTIONS = 'quarantine_size_mb=16:detect_leaks=1:allocator_may_return_null=0:abort_on_error=0:exitcode=99'


class TimeUp(Exception):
    pass


def on_alarm(_signal, _frame):
    raise TimeUp


def run(bin_, command, model, folder):
    """One run: (wait status or None when killed, stdout, stderr, seconds, megabytes)."""
    names = [f'{folder}/{n}' for n in ('in', 'out', 'err')]
    with open(names[0], 'wb') as f:
        f.write(COMMANDS[command][1])
    env = dict(os.environ, ASAN_OPTIONS=OPTIONS, UBSAN_OPTIONS='halt_on_error=1:exitcode=99')
    actions = [(os.POSIX_SPAWN_OPEN, 0, names[0], os.O_RDONLY, 0),
               (os.POSIX_SPAWN_OPEN, 1, names[1], os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600),
               (os.POSIX_SPAWN_OPEN, 2, names[2], os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)]
    begin = time.monotonic()
    args = [bin_, command] + [model if a is None else a for a in COMMANDS[command][0]]
    pid = os.posix_spawn(bin_, args, env, file_actions=actions)
    is_killed = False
    signal.setitimer(signal.ITIMER_REAL, HANG_S)
    try:
        _, status, usage = os.wait4(pid, 0)
        signal.setitimer(signal.ITIMER_REAL, 0)
    except TimeUp:
        is_killed = True
        os.kill(pid, signal.SIGKILL)
        _, status, usage = os.wait4(pid, 0)
    seconds = min(time.monotonic() - begin, usage.ru_utime + usage.ru_stime)
    out, err = (open(n, 'rb').read(1 << 20).decode('utf-8', 'replace') for n in names[1:])
    return None if is_killed else status, out, err, seconds, usage.ru_maxrss / 1024


def answer(out, key):
    """What the case was answered: 'forward', an error's text, or None."""
    if key is None:
        return 'forward'
    for line in out.splitlines():
        try:
            a = json.loads(line)
        except ValueError:
            return None
        if a.get('id') == 'm':
            return 'forward' if key in a else str(a.get('error', '')) or None
    return None


def sort(command, status, out, err, model, header_fault):
    """(class, text)"""
    if status is None:
        return 'hang', f'killed after {HANG_S:.0f} s'
    if os.WIFSIGNALED(status) or REPORT.search(err) or os.WEXITSTATUS(status) in (99, 127) or os.WEXITSTATUS(status) >= 128:
        return 'crash', err.strip().splitlines()[-1] if err.strip() else f'status {status:#x}'
    lines = [line for line in err.splitlines() if line.strip() and not LOG_LINE.match(line)]
    a = answer(out, COMMANDS[command][2])
    if os.WEXITSTATUS(status) == 0:
        if a == 'forward':
            return ('accepted', header_fault) if header_fault else ('forward', '')
        return ('refused', a) if a and '\n' not in a else ('message', f'exit code 0 and answer {out[:100]!r}')
    if len(lines) != 1:
        return 'message', f'{len(lines)} lines: {" | ".join(lines)[:200]}'
    return ('refused', lines[0]) if os.path.basename(model) in lines[0] else ('message', 'no file name: ' + lines[0])


def try_file(bin_, command, model, folder, fault):
    """(class, text, seconds, megabytes)"""
    status, out, err, seconds, mb = run(bin_, command, model, folder)
    if status is not None and seconds > SLOW_S:
        status, out, err, again, mb = run(bin_, command, model, folder)
        seconds = min(seconds, again)
    kind, text = sort(command, status, out, err, model, fault)
    if kind in ('forward', 'refused'):
        kind = 'slow' if seconds > SLOW_S else 'memory' if mb > MEMORY_MB else kind
    return kind, text, seconds, mb


def work(job):
    """One worker's share."""
    a, models, first = job
    signal.signal(signal.SIGALRM, on_alarm)
    base = '/dev/shm' if os.path.isdir('/dev/shm') and os.access('/dev/shm', os.W_OK) else None
    found = []
    with tempfile.TemporaryDirectory(prefix='hearth-mutants-', dir=base) as folder:
        for i in range(first, a.n, a.jobs):
            b, done = mutate_gguf.mutant(models, a.seed, i)
            model = f'{folder}/m-{i}.gguf'
            with open(model, 'wb') as f:
                f.write(b)
            fault = gguf_file.judge(b)
            kind, text, seconds, mb = try_file(a.hearth, a.command, model, folder, fault)
            if kind not in ('forward', 'refused'):
                os.makedirs(a.keep, exist_ok=True)
                with open(f'{a.keep}/{kind}-{a.seed}-{i}.gguf', 'wb') as f:
                    f.write(b)
                print(f'{kind}: {a.keep}/{kind}-{a.seed}-{i}.gguf ({done}; {seconds:.2f} s, {mb:.0f} MB): {text}', flush=True)
            found.append((kind, fault is None, seconds, mb, done.split()[1:], text))
            os.unlink(model)
    return found


def self_test():
    """Stand-ins for the program, each with the class it must be put into."""
    signal.signal(signal.SIGALRM, on_alarm)
    good = """echo '{"id": "m", "rows": 2}'"""
    stand_ins = [('forward', None, good), ('refused', None, 'echo "hearth: x.gguf: no" >&2; exit 5'), ('accepted', 'bad', good),
                 ('refused', None, """echo '{"id": "m", "error": "token 3 is none"}'"""), ('crash', None, 'kill -SEGV $$'),
                 ('crash', None, 'echo "x.c:1: runtime error: shift" >&2; exit 1'), ('crash', None, 'echo "==1==ERROR: AddressSanitizer: x" >&2; exit 99'),
                 ('hang', None, 'sleep 60'), ('forward', None, 'sleep 1.2; ' + good),
                 ('slow', None, f"{sys.executable} -c 'import time\nwhile time.process_time() < 1.2: pass'; {good}"), ('message', None, 'exit 5'), ('message', None, 'exit 0'),
                 ('message', None, 'echo "x.gguf: a" >&2; echo "x.gguf: b" >&2; exit 5'), ('message', None, 'echo "no name" >&2; exit 5'),
                 ('refused', None, 'echo "level=warn module=x y" >&2; echo "hearth: x.gguf: no" >&2; exit 5'),
                 ('memory', None, f"{sys.executable} -c 'x = bytearray(300 << 20)'; {good}")]
    bad = 0
    with tempfile.TemporaryDirectory(prefix='hearth-mutants-') as folder:
        for i, (want, fault, text) in enumerate(stand_ins):
            path = f'{folder}/stand-in-{i}'
            with open(path, 'w') as f:
                f.write('#!/bin/sh\n' + text + '\n')
            os.chmod(path, 0o700)
            kind, text, _, _ = try_file(path, 'logits', folder + '/x.gguf', folder, fault)
            bad += kind != want
            if kind != want:
                print(f'{stand_ins[i][2]}: {kind} ({text}), wanted {want}')
    print(f'{len(stand_ins) - bad} passed, {bad} failed')
    return bad == 0


def table(found, n_s, needs_forward):
    kinds = collections.Counter(f[0] for f in found)
    n = len(found)
    n_header = sum(f[1] for f in found)
    n_forward = kinds['forward']
    print(f'\n{"outcome":<12}{"files":>8}{"share":>9}')
    for kind, count in kinds.most_common():
        print(f'{kind:<12}{count:>8}{100 * count / n:>8.1f}%')
    print(f'{"header ok":<12}{n_header:>8}{100 * n_header / n:>8.1f}%')
    print(f'\n{"change":<18}{"files":>8}{"header":>8}{"forward":>9}')
    by = collections.defaultdict(lambda: [0, 0, 0])
    for kind, ok, _, _, done, _ in found:
        for d in set(done):
            by[d][0] += 1
            by[d][1] += ok
            by[d][2] += kind == 'forward'
    for d, (c, h, w) in sorted(by.items()):
        print(f'{d:<18}{c:>8}{h:>8}{w:>9}')
    slowest, largest = max(f[2] for f in found), max(f[3] for f in found)
    print(f'\nslowest {slowest:.2f} s, largest {largest:.0f} MB, {n} files in {n_s:.0f} s')
    bad = n - kinds['forward'] - kinds['refused']
    mix = n_header >= MIN_HEADER * n and (not needs_forward or n_forward >= MIN_FORWARD * n)
    if not mix:
        print(f'the mix is wrong: at least {MIN_HEADER:.0%} must have a good header and {MIN_FORWARD:.0%} reach the forward pass')
    print(f'{n - bad} passed, {bad + (not mix)} failed')
    return bad == 0 and mix


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument('--hearth')
    p.add_argument('--self-test', action='store_true')
    p.add_argument('--command', default='logits', choices=sorted(COMMANDS))
    p.add_argument('--n', type=int, default=10000)
    p.add_argument('--seed', default='1')
    p.add_argument('--jobs', type=int, default=2)
    p.add_argument('--zoo', default=mutate_gguf.default_zoo())
    p.add_argument('--keep', default='mutants-failed')
    p.add_argument('--texts', action='store_true', help='print the refusals, most frequent first')
    a = p.parse_args()
    if a.self_test:
        sys.exit(0 if self_test() else 1)
    if not a.hearth or not os.access(a.hearth, os.X_OK):
        p.error('--hearth BIN is needed')
    a.hearth = os.path.abspath(a.hearth)
    models = mutate_gguf.load(a.zoo)
    begin = time.monotonic()
    with multiprocessing.Pool(a.jobs) as pool:
        found = [f for part in pool.map(work, [(a, models, i) for i in range(a.jobs)]) for f in part]
    if a.texts:
        texts = collections.Counter(re.sub(r'\S*\.gguf|\d+', '#', f[5]) for f in found if f[0] == 'refused')
        for text, count in texts.most_common(60):
            print(f'{count:>6} {text[:160]}')
    sys.exit(0 if table(found, time.monotonic() - begin, a.command == 'logits') else 1)


if __name__ == '__main__':
    main()
