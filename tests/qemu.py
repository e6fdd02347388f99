#!/usr/bin/env python3
"""qemu.py FIXTURES SYSROOT HEARTH: a cross build for 64-bit ARM, run by qemu's user emulation on three processors: one with every
extension (products of matrices of bytes), one of ARMv8.2 with dot products alone and one of ARMv8.0 (as on the Raspberry Pi 4). An
instruction that one of them lacks ends the program.

On all: the unit tests with the kernel table's, which compares plain C with each neon that it can run and the stored
hashes, and five tiny models whose logits must be, byte for byte, those of HEARTH, the build for this machine, for all types of cache pages. The
stored inputs of the fuzzers on the first. On x86-64 HEARTH itself too, on processors without AVX-512 and without AVX2: the models,
with pages of f16. What is missing is named and counted as skipped. Prints 'N passed, N failed, N skipped'."""
import json
import os
import platform
import re
import shutil
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor

fixtures, sysroot, native = sys.argv[1:4]
root = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
build = root + '/build-arm64'
PROCESSORS = {'max': 'neon matrix products', 'neoverse-n1': 'neon dot products', 'cortex-a72': 'neon'}  # and the kernels that it must choose
LESSER = {'max': 'avx2', 'Nehalem': 'scalar'} if platform.machine() == 'x86_64' else {}
MODELS = ('zoo/llama', 'zoo/gemma3', 'qzoo/q-q4_0', 'qzoo/q-q5_k', 'qzoo/q-iq3_xxs')
TOOLS = {'aarch64-linux-gnu-gcc': 'gcc-aarch64-linux-gnu', 'qemu-aarch64': 'qemu-user', 'meson': 'meson', 'ninja': 'ninja-build'}
CROSS = """[constants]
root = '{sysroot}'
[binaries]
c = 'aarch64-linux-gnu-gcc'
ar = 'aarch64-linux-gnu-ar'
strip = 'aarch64-linux-gnu-strip'
pkgconfig = 'pkg-config'
exe_wrapper = ['qemu-aarch64', '-cpu', 'max', '-L', root]
[properties]
sys_root = root
pkg_config_libdir = root / 'usr/lib/aarch64-linux-gnu/pkgconfig'
[built-in options]
c_args = ['--sysroot=' + root]
c_link_args = ['--sysroot=' + root]
[host_machine]
system = 'linux'
cpu_family = 'aarch64'
cpu = 'armv8-a'
endian = 'little'
"""
passed = failed = skipped = 0


def sh(args, **more):
    return subprocess.run(args, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors='replace', **more)


def finish():
    print(f'{passed} passed, {failed} failed, {skipped} skipped')
    sys.exit(1 if failed else 0)


def check(what, cond, text=''):
    global passed, failed
    passed, failed = passed + bool(cond), failed + (not cond)
    if not cond:
        print(f'FAILED: {what}\n{text[-3000:]}')


def count(what, r):
    """Adds up a program that prints 'N passed, N failed[, N skipped]'."""
    global passed, failed, skipped
    m = re.findall(r'^(\d+) passed, (\d+) failed(?:, (\d+) skipped)?$', r.stdout, re.M)
    p, f, s = (int(x or 0) for x in m[-1]) if m else (0, 0, 0)
    f += r.returncode != 0 and f == 0
    passed, failed, skipped = passed + p, failed + f, skipped + s
    if f:
        print(f'FAILED: {what}, exit {r.returncode}\n{r.stdout[-4000:]}')


def on(processor):
    return ['qemu-aarch64', '-cpu', processor, '-L', sysroot]


def native_on(processor):
    return ['qemu-x86_64', '-cpu', processor, native]


def logits(program, name, kv):
    cases = [c for c in open(f'{fixtures}/{name}.cases.jsonl') if 'chunks' not in json.loads(c)]
    with tempfile.NamedTemporaryFile() as out:
        r = sh([*program, '--kv', kv, 'logits', '-m', f'{fixtures}/{name}.gguf', '-o', out.name], input=''.join(cases))
        return r, open(out.name, 'rb').read()


missing = [f'{tool} (package {package})' for tool, package in TOOLS.items() if not shutil.which(tool)]
if missing:
    print('skipped: qemu: ' + ', '.join(missing) + ' is not installed')
    skipped = 1
    finish()
r = sh([sys.executable, root + '/tests/tools/sysroot_arm64.py', sysroot])
if r.returncode == 3:
    print('skipped: qemu: ' + r.stdout.strip())
    skipped = 1
    finish()
check('arm64 libraries', r.returncode == 0, r.stdout)
if not os.path.exists(build + '/build.ninja') and r.returncode == 0:
    os.makedirs(build, exist_ok=True)
    open(build + '/cross.ini', 'w').write(CROSS.replace('{sysroot}', sysroot))
    r = sh(['meson', 'setup', build, root, '--cross-file', build + '/cross.ini', '--buildtype=release', '--werror', '--wrap-mode=nodownload'])
    check('meson setup', r.returncode == 0, r.stdout)
if failed == 0:
    r = sh(['ninja', '-C', build, 'hearth', 'tests', 'fuzzers'])
    check('build', r.returncode == 0, r.stdout)
if failed:
    finish()

with ThreadPoolExecutor(2) as pool:
    units = {p: pool.submit(sh, [sys.executable, root + '/tests/unit.py', build, *on(p)]) for p in PROCESSORS}
    seeds = pool.submit(sh, [sys.executable, root + '/fuzz/replay.py', build, *on('max')])
    cases = [(name, kv) for name in MODELS for kv in ('f16', 'bf16', 'q8_0', 'f32')]
    wanted = {c: pool.submit(logits, [native], *c) for c in cases}
    found = {(p, c): pool.submit(logits, [*on(p), build + '/hearth'], *c) for p in PROCESSORS for c in cases}
    found |= {('x86-64 ' + p, c): pool.submit(logits, native_on(p), *c) for p in LESSER for c in cases if c[1] == 'f16'}
    for p, isa, program in [(p, isa, [*on(p), build + '/hearth']) for p, isa in PROCESSORS.items()] + [(p, isa, native_on(p)) for p, isa in LESSER.items()]:
        r = sh([*program, 'bench', '--kernels'])
        check(f'{p} chooses {isa}', re.search(fr'^products +{isa}: best of this processor$', r.stdout, re.M), r.stdout)
        check(f'{p}: whose vectors', re.search(fr'^vectors +{isa.split()[0]}: best of this processor$', r.stdout, re.M), r.stdout)
    for p in PROCESSORS:
        count(f'unit tests on {p}', units[p].result())
    count('fuzz seeds', seeds.result())
    for (p, c), future in found.items():
        (r, want), (r2, got) = wanted[c].result(), future.result()
        check(f'{c} on {p}: the bytes of this machine', want and got == want and r2.returncode == 0, r.stdout[-500:] + r2.stdout[-500:])
finish()
