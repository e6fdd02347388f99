#!/usr/bin/env python3
"""Writes tests/quant_golden.h: for every weight type, a hash of what the PyPI package gguf decodes.

mk_quant_golden.py [OUT]

The blocks are random bytes that tests/test_quant.c makes again by the same rule (splitmix64, counter i, seed the type's
number). The top exponent bit of every half-precision scale is cleared, so that all values are finite. The hash is FNV-1a
with 64 bits over the little-endian float32 words, signs of zeros included. Q1_0 is not in the package; it is decoded here:
128 signs after one half-precision scale."""
import os
import sys
from importlib.metadata import version

import numpy as np
from gguf import GGML_QUANT_SIZES, GGMLQuantizationType as T, quants

OUT = os.path.join(os.path.dirname(os.path.abspath(__file__)), '..', 'quant_golden.h')
BLOCKS = 64
# byte offsets whose bit 6 is the top exponent bit of a float
TOP = {'F32': [3], 'F16': [1], 'BF16': [1], 'Q4_0': [1], 'Q4_1': [1, 3], 'Q5_0': [1], 'Q5_1': [1, 3], 'Q8_0': [1],
       'Q2_K': [81, 83], 'Q3_K': [109], 'Q4_K': [1, 3], 'Q5_K': [1, 3], 'Q6_K': [209], 'IQ1_S': [1], 'IQ1_M': [55],
       'IQ2_XXS': [1], 'IQ2_XS': [1], 'IQ2_S': [1], 'IQ3_XXS': [1], 'IQ3_S': [1], 'IQ4_NL': [1], 'IQ4_XS': [1],
       'TQ1_0': [53], 'TQ2_0': [65], 'MXFP4': [], 'NVFP4': [], 'Q1_0': [1]}


def random_bytes(seed, n):
    """Word i of the stream is splitmix64's output function of (seed << 32) + (i + 1) * golden ratio."""
    with np.errstate(over='ignore'):
        z = np.uint64(seed << 32) + np.arange(1, (n + 7) // 8 + 1, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15)
        z = (z ^ z >> np.uint64(30)) * np.uint64(0xBF58476D1CE4E5B9)
        z = (z ^ z >> np.uint64(27)) * np.uint64(0x94D049BB133111EB)
        z = z ^ z >> np.uint64(31)
    return z.view(np.uint8)[:n].copy()


def decode(b, t):
    if t.name == 'Q1_0':
        d = b[:, :2].copy().view(np.float16).astype(np.float32)
        bits = np.unpackbits(b[:, 2:], axis=1, bitorder='little')
        return np.where(bits == 1, d, -d)
    if t.name == 'F16':
        return b.view(np.float16).astype(np.float32)
    return quants.dequantize(b, t)


def fnv(words):
    h = 0xCBF29CE484222325
    for w in words.tolist():
        for i in range(4):
            h = ((h ^ (w >> 8 * i & 255)) * 0x100000001B3) & 0xFFFFFFFFFFFFFFFF
    return h


def main():
    lines = []
    for name, tops in TOP.items():
        t = T[name]
        nb = GGML_QUANT_SIZES[t][1]
        b = random_bytes(int(t), BLOCKS * nb).reshape(BLOCKS, nb)
        for at in tops:
            b[:, at] &= 0xBF
        x = np.ascontiguousarray(decode(b, t), dtype='<f4').reshape(-1)
        assert np.isfinite(x).all(), name
        at = ', '.join(str(a) for a in (tops + [-1, -1])[:2])
        lines.append(f'    {{ QUANT_{name}, {{ {at} }}, 0x{fnv(x.view("<u4")):016X} }},')
    path = sys.argv[1] if len(sys.argv) > 1 else OUT
    with open(path, 'w') as f:
        f.write(f'''/* Made by tests/tools/mk_quant_golden.py with the PyPI package gguf {version("gguf")}; do not edit.
 * Type, bytes whose bit 6 is cleared in each block (-1: none), hash of the decoded floats. */
#define GOLDEN_BLOCKS {BLOCKS}

static const struct golden golden[] = {{
''' + '\n'.join(lines) + '\n};\n')


sys.exit(main())
