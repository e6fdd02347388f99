#!/usr/bin/env python3
"""larger.py MODEL.gguf [--limit MIB] [--hearth build/hearth] [--python PYTHON] [--llama-bench PATH] [--rounds N] [--threads N]
    [--image IMAGE] [--batch N,N]

A model larger than the memory it gets: hearth reads the layers of a packed image that do not fit, the others map the file. All run in
a memory cgroup of the limit (default: a third of the file), in turns, with --threads (default: the cores that are granted); page cache is
charged to it and nothing of it is swapped, so nobody has more. hearth is told the limit less a MiB by --memory as well. Prints a table in
Markdown: prompt and answer tok/s, what hearth read from the disk while it answered, how much of what reading the file in order gives that is, memory at most.
--batch: answers at once, for hearth. --image: a packed image; without it one is made in a store beside the model. Where a disk has no room for
both, run it for one after the other: --no-hearth, and --size MIB in place of the model's. PYTHON has llama-cpp-python (bench/peer_llamacpp.py
says how). Needs root, or a group in which one may make others."""
import argparse
import json
import os
import re
import statistics
import subprocess
import tempfile
import time

HERE = os.path.dirname(os.path.abspath(__file__))
MIB = 1 << 20


class Group:
    """A memory cgroup, version 1 or 2, below that of this process."""

    def __init__(self, limit):
        lines = [line.rstrip().split(':', 2) for line in open('/proc/self/cgroup')]
        v1 = [p for _, names, p in lines if 'memory' in names.split(',')]
        base = '/sys/fs/cgroup/memory' + v1[0] if v1 else '/sys/fs/cgroup' + [p for _, names, p in lines if names == ''][0]
        self.path = f'{base}/larger-{os.getpid()}-{time.monotonic_ns()}'
        os.mkdir(self.path)
        try:
            self.write('memory.limit_in_bytes' if v1 else 'memory.max', limit)
            swap = 'memory.swappiness' if v1 else 'memory.swap.max'
            if os.path.exists(f'{self.path}/{swap}'):  # not where the kernel knows no swap
                self.write(swap, 0)
        except OSError:
            self.close()
            raise

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def write(self, name, value):
        with open(f'{self.path}/{name}', 'w') as f:
            f.write(str(value))

    def run(self, args, env=None):
        """(standard output, MiB resident at most)"""
        with tempfile.TemporaryFile('w+') as err:
            with subprocess.Popen(args, stdout=subprocess.PIPE, stderr=err, text=True, env={**os.environ, **(env or {})},
                                  preexec_fn=lambda: self.write('cgroup.procs', os.getpid())) as p:
                out = p.stdout.read()
                _, status, used = os.wait4(p.pid, 0)
                p.returncode = os.waitstatus_to_exitcode(status)
            err.seek(0)
            if p.returncode != 0:
                raise SystemExit(f'{args[0]} ended with {p.returncode}: {err.read()[-800:]}')
        return out, used.ru_maxrss / 1024

    def close(self):
        time.sleep(0.2)
        os.rmdir(self.path)


def forget(path):
    """Nothing of the file is in the page cache, where it would be charged to whoever read it before."""
    with open(path, 'rb') as f:
        os.posix_fadvise(f.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def packed(a):
    """How hearth calls the packed model, and where it finds it."""
    if a.image:
        return a.image, {}
    store = {'XDG_DATA_HOME': os.path.join(os.path.dirname(os.path.abspath(a.model)), 'store')}
    name = os.path.basename(a.model).removesuffix('.gguf')
    listed = json.loads(subprocess.run([a.hearth, 'list', '--json'], env={**os.environ, **store}, capture_output=True, text=True).stdout)
    if not any(m['name'] == name and 'image' in m for m in listed['models']):
        subprocess.run([a.hearth, 'pull', a.model, '--pack', '--name', name], env={**os.environ, **store}, check=True, stdout=subprocess.DEVNULL)
    return name, store


def hearth(a, limit, batch=1):
    name, store = packed(a)
    with Group(limit) as g:
        out, mib = g.run([a.hearth, 'bench', name, '--json', '--memory', str((limit - MIB) // MIB), '--prefill', str(a.prefill), '--decode', str(a.decode),
                          '--batch', str(batch), '--threads', str(a.threads)], store)
    b = json.loads(out)
    disk = b['decode_disk_gb_s']
    return dict(prefill=b['prefill_tok_s'], decode=b['decode_tok_s'], disk=disk, share=100 * disk / b['disk_gb_s'] if disk else 0, mib=mib,
                said=b['predicted_prefill_tok_s'], said_decode=b['predicted_decode_tok_s'])


def llama_cpp(a, limit):
    with Group(limit) as g:
        out, mib = g.run([a.python, HERE + '/peer_llamacpp.py', a.model, '--prefill', str(a.prefill), '--decode', str(a.decode), '--fa', '1', '--repeat', '1',
                          '--no-repack', '--threads', str(a.threads)])
    b = json.loads(out)
    return dict(prefill=b['prefill_tok_s'], decode=b['decode_tok_s'], mib=mib)


def llama_bench(a, limit):
    with Group(limit) as g:
        out, mib = g.run([a.llama_bench, '-m', a.model, '-t', str(a.threads), '-p', str(a.prefill), '-n', str(a.decode), '-r', '1', '-fa', '1', '-o', 'json'])
    rows = json.loads(re.search(r'\[.*\]', out, re.S)[0])
    rate = {('prefill' if r['n_prompt'] else 'decode'): r['avg_ts'] for r in rows}
    return dict(**rate, mib=mib)


def main():
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument('model')
    ap.add_argument('--limit', type=int, help='MiB')
    ap.add_argument('--hearth', default='build/hearth')
    ap.add_argument('--python')
    ap.add_argument('--llama-bench')
    ap.add_argument('--image')
    ap.add_argument('--batch', default='1')
    ap.add_argument('--no-hearth', action='store_true')
    ap.add_argument('--size', type=int, help='MiB')
    for name, value in (('prefill', 512), ('decode', 8), ('rounds', 1), ('threads', len(os.sched_getaffinity(0)))):
        ap.add_argument('--' + name, type=int, default=value)
    a = ap.parse_args()
    size = a.size * MIB if a.size else os.path.getsize(a.model)
    limit = (a.limit or size // 3 // MIB) * MIB
    batches = [] if a.no_hearth else [int(n) for n in a.batch.split(',')]
    own = [('hearth' if n == 1 else f'hearth, {n} at once', lambda a, limit, n=n: hearth(a, limit, n)) for n in batches]
    programs = own + [('llama.cpp', llama_cpp)] * bool(a.python) + [('llama-bench', llama_bench)] * bool(a.llama_bench)
    got = {name: [] for name, _ in programs}
    for _ in range(a.rounds):
        for name, run in programs:
            for path in filter(os.path.exists, (a.model, a.image or '')):
                forget(path)
            got[name].append(run(a, limit))
    print(f'{os.path.basename(a.model)}, {size / MIB:.0f} MiB, in {limit // MIB} MiB\n')
    print('| program | prompt tok/s | predicted | answer tok/s | predicted | disk GB/s | % | memory MiB |\n|---|---|---|---|---|---|---|---|')
    for name, rows in got.items():
        columns = ('prefill', 'said', 'decode', 'said_decode', 'disk', 'share', 'mib')
        cells = [f'{statistics.median(r[k] for r in rows):.4g}' if k in rows[0] else '' for k in columns]
        print(f'| {name} | ' + ' | '.join(cells) + ' |')


main()
