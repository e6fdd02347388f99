#!/usr/bin/env python3
"""bits.py HEARTH FIXTURES: the same logits, bit for bit, on every instruction set, thread count, batch and chunking.

For some tiny models and cases: a first run (one thread, best instruction set, one piece) and then each variation must write
the same bytes. What this machine cannot run is counted as skipped and named."""
import json
import os
import platform
import subprocess
import sys
import tempfile

hearth, fixtures = sys.argv[1:3]
MODELS = ['zoo/llama', 'zoo/gemma3', 'zoo/phi3-mini', 'zoo/starcoder2', 'zoo/cohere2', 'zoo/qwen2moe', 'zoo/qwen3moe', 'zoo/gpt-oss'] + [
    'qzoo/q-' + t for t in ('q4_0', 'q4_1', 'q5_0', 'q8_0', 'q2_k', 'q3_k', 'q4_k', 'q5_k', 'q6_k', 'iq2_xxs', 'iq3_s', 'iq4_xs', 'mxfp4', 'nvfp4', 'tq1_0')]
ISAS = ('scalar', 'neon', 'neondot', 'neoni8mm') if platform.machine() == 'aarch64' else ('scalar', 'avx2', 'avxvnni', 'avx512')  # the others: tests/qemu.py
VARIANTS = ([('isa ' + i, ['--isa', i], None) for i in ISAS]
            + [(f'threads {n}', ['--threads', str(n)], None) for n in (2, 3)] + [('batch of 7', ['--beside', '6'], None)]
            + [('chunks ' + str(c[:3]), [], c) for c in ([1] * 600, [5, 1, 17, 2, 30] + [7] * 90, [64] * 10)])


def run(model, kv, args, cases, chunks):
    out = tempfile.mktemp()
    text = ''.join(json.dumps({**c, 'chunks': chunks} if chunks else c) + '\n' for c in cases)
    r = subprocess.run([hearth, '--kv', kv, *args, 'logits', '-m', model, '-o', out], input=text, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    data = open(out, 'rb').read() if os.path.exists(out) else b''
    if os.path.exists(out):
        os.unlink(out)
    return r, data


passed = failed = skipped = 0
for name in MODELS:
    model = f'{fixtures}/{name}.gguf'
    cases = [{k: v for k, v in c.items() if k != 'chunks'} for c in map(json.loads, open(f'{fixtures}/{name}.cases.jsonl')) if 'chunks' not in c]
    for kv in ('f16', 'bf16', 'q8_0', 'f32') if name.startswith('zoo') else ('f16',):
        r, want = run(model, kv, ['--threads', '1'], cases, None)
        if r.returncode or not want:
            print(name, kv, 'does not run:', r.stderr)
            failed += 1
            continue
        for label, args, chunks in VARIANTS:
            r, got = run(model, kv, args, cases, chunks)
            if r.returncode == 10 and 'cannot run' in r.stderr:
                print(f'skipped: {name} {kv} {label}: {r.stderr.strip()}')
                skipped += 1
            elif got == want:
                passed += 1
            else:
                failed += 1
                print(f'{name} {kv} {label}: differs {r.stderr[-200:]} {r.stdout[-200:] if "error" in r.stdout else ""}')
print(f'{passed} passed, {failed} failed, {skipped} skipped')
sys.exit(1 if failed else 0)
