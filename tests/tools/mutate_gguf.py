#!/usr/bin/env python3
"""Makes damaged model files from good ones, knowing every field of the format.

  mutate_gguf.py --seed S --from I [--n N] --out FOLDER [--zoo FOLDER]    files m-I.gguf ...
  mutate_gguf.py --tiny FOLDER                                            small seeds for fuzz/fuzz_gguf.c

The same seed and number give the same file. Two thirds of the files get gentle changes, which keep the
container well-formed: weights (single bits, NaN, infinities, other element types, other encodings of
them), shapes, hyper-parameters slightly or wildly off, missing, added or retyped keys, vocabularies,
templates. One third gets brutal ones: counts, lengths, types, offsets, order, truncation, noise. A
gentle file can reach the forward pass; a brutal one should be refused while the header is read.
"""
import argparse
import glob
import lzma
import os
import random
import struct
import sys

import gguf_file as gf

ZOO = 'llama qwen2 qwen3 gemma gemma3 phi3-mini olmo2 granite starcoder2 stablelm mixtral qwen2moe'.split()
HERE = os.path.dirname(os.path.abspath(__file__))
ODD_INTS = [0, 1, 2, 3, 7, 255, 256, 257, 65535, 65536, 2**31 - 1, 2**31, 2**32 - 1]
ODD_LONGS = ODD_INTS + [2**32, 2**48, 2**62, 2**63 - 1, 2**63, 2**64 - 32, 2**64 - 1]
ODD_FLOATS = [0.0, -0.0, -1.0, 1e-45, 1e-30, 1e30, 3.4e38, float('inf'), float('-inf'), float('nan'), 1.0, 2.0]


def load(zoo):
    """name -> Model, from NAME.gguf or NAME.gguf.xz."""
    models = {}
    for name in ZOO:
        for path in (f'{zoo}/{name}.gguf', f'{zoo}/{name}.gguf.xz'):
            if os.path.exists(path):
                b = (lzma.open if path.endswith('.xz') else open)(path, 'rb').read()
                models[name] = gf.Model.parse(b)
                break
    if not models:
        sys.exit(f'{zoo}: none of the tiny models is there')
    return models


# --- gentle: the container stays well-formed (change(model, random) -> None)

def hyper(m, r, kinds):
    arch = m.get(b'general.architecture').value + b'.'
    return [k for k in m.keys if k.name.startswith(arch) and k.kind in kinds]


def weight_bits(m, r):
    t = r.choice(m.tensors)
    d = bytearray(t.data)
    for _ in range(r.choice([1, 1, 1, 4, 32])):
        d[r.randrange(len(d))] ^= 1 << r.randrange(8)
    t.data = bytes(d)


def weight_mantissa(m, r):
    """Only low mantissa bits of float weights: numbers stay finite and close."""
    t = r.choice([t for t in m.tensors if t.kind == 0] or m.tensors)
    d = bytearray(t.data)
    for _ in range(64):
        d[r.randrange(len(d)) // 4 * 4] ^= 1 << r.randrange(8)
    t.data = bytes(d)


def weight_odd(m, r):
    t = r.choice([t for t in m.tensors if t.kind == 0] or m.tensors)
    d = bytearray(t.data)
    for _ in range(r.choice([1, 8])):
        at = r.randrange(len(d) // 4) * 4
        d[at:at + 4] = struct.pack('<f', r.choice(ODD_FLOATS))
    t.data = bytes(d)


def weight_encoding(m, r):
    """Another element type that the rows allow, with random blocks of small scale."""
    t = r.choice([t for t in m.tensors if len(t.dims) == 2] or m.tensors)
    kind = r.choice([k for k, (_, block, _) in gf.TYPES.items() if t.dims[0] % block == 0])
    _, block, size = gf.TYPES[kind]
    n = gf.tensor_bytes(t.dims, kind)
    if kind == 0 or r.random() < 0.2:
        d = bytearray(r.randbytes(n))  # scales may be NaN
    else:
        one = bytearray(r.randbytes(size))
        for at in (0, 2, size - 2, size - 4):  # where half-precision scales stand
            if 0 <= at and at + 2 <= size:
                one[at:at + 2] = struct.pack('<e', r.uniform(0.001, 0.02))
        d = one * (n // size)
    t.kind, t.data = kind, bytes(d)


def tensor_type(m, r):
    """Another type over the same bytes: the range may no longer fit."""
    r.choice(m.tensors).kind = r.choice(list(gf.TYPES))


def tensor_dims(m, r):
    t = r.choice(m.tensors)
    i = r.randrange(len(t.dims))
    how = r.randrange(6)
    if how == 0:
        t.dims.reverse()
    elif how == 1:
        t.dims[i] = max(1, t.dims[i] // 2)
    elif how == 2:
        t.dims[i] = max(1, t.dims[i] - r.choice([1, 32]))
    elif how == 3 and len(t.dims) < 4:
        t.dims.append(1)
    elif how == 4 and len(t.dims) > 1:
        t.dims = [t.dims[0] * t.dims[1]] + t.dims[2:]
    else:
        t.dims[i] *= 2
        t.data = t.data * 2


def tensor_shuffle(m, r):
    r.shuffle(m.tensors)


def tensor_gaps(m, r):
    at = 0
    for t in m.tensors:
        t.offset = at
        at = gf.up(at + len(t.data), m.align) + m.align * r.choice([0, 0, 1, 5])


def tensor_drop(m, r):
    m.tensors.remove(r.choice(m.tensors))


def tensor_rename(m, r):
    t = r.choice(m.tensors)
    t.name = r.choice([t.name + b'x', t.name[:-1], b'blk.99.' + t.name, t.name.replace(b'0', b'1'), r.choice(m.tensors).name])


def tensor_extra(m, r):
    t = r.choice(m.tensors).copy()
    t.name = r.choice([b'extra.weight', b'blk.2.attn_q.weight', b'rope_freqs.weight', b'output.bias', t.name.replace(b'.weight', b'.bias')])
    m.tensors.append(t)


def hyper_near(m, r):
    k = r.choice(hyper(m, r, (gf.U32, gf.F32)))
    if k.kind == gf.F32:
        k.value *= r.choice([0.5, 0.999, 1.001, 2.0, -1.0])
    else:
        k.value = r.choice([k.value + 1, max(0, k.value - 1), k.value * 2, k.value // 2, k.value + 32]) & 0xFFFFFFFF


def hyper_far(m, r):
    k = r.choice(hyper(m, r, (gf.U32, gf.F32)))
    k.value = r.choice(ODD_FLOATS) if k.kind == gf.F32 else r.choice(ODD_INTS)


def key_drop(m, r):
    m.keys.remove(r.choice(m.keys))


def key_kind(m, r):
    k = r.choice([k for k in m.keys if k.kind != gf.ARRAY])
    kind = r.choice([gf.U8, gf.I32, gf.U64, gf.I64, gf.F32, gf.F64, gf.BOOL, gf.STRING])
    number = k.value if isinstance(k.value, (int, float)) else len(k.value)
    number = 0 if number != number or abs(number) > 1e18 else number
    if kind == gf.STRING:
        k.value = str(number).encode()
    elif kind in (gf.F32, gf.F64):
        k.value = float(number)
    else:
        bits = 8 * gf.SIZE[kind]
        k.value = int(number) & ((1 << bits - 1) - 1 if kind != gf.BOOL else 1)
    k.kind = kind


def key_list(m, r):
    """A list with one number a layer in place of a number."""
    k = r.choice(hyper(m, r, (gf.U32,)) or m.keys)
    if k.kind == gf.U32:
        n = r.choice([0, 1, 2, 3, 7, 1000])
        k.kind, k.elem, k.value = gf.ARRAY, gf.U32, [k.value if r.random() < 0.9 else r.choice(ODD_INTS) for _ in range(n)]


def key_extra(m, r):
    arch = m.get(b'general.architecture')
    a = arch.value + b'.' if arch and isinstance(arch.value, bytes) else b'llama.'
    m.keys.append(r.choice([
        gf.Key(a + b'expert_count', gf.U32, r.choice([0, 1, 8, 2**31])),
        gf.Key(a + b'expert_used_count', gf.U32, r.choice([0, 1, 4, 5, 2**31])),
        gf.Key(a + b'expert_feed_forward_length', gf.U32, r.choice(ODD_INTS)),
        gf.Key(a + b'expert_shared_feed_forward_length', gf.U32, r.choice(ODD_INTS)),
        gf.Key(a + b'expert_weights_scale', gf.F32, r.choice(ODD_FLOATS)),
        gf.Key(a + b'expert_weights_norm', gf.BOOL, r.choice([0, 1])),
        gf.Key(a + b'rope.scaling.type', gf.STRING, r.choice([b'linear', b'yarn', b'longrope', b'none', b'', b'\xff', b'x' * 5000])),
        gf.Key(a + b'rope.scaling.factor', gf.F32, r.choice(ODD_FLOATS)),
        gf.Key(a + b'rope.scaling.original_context_length', gf.U32, r.choice(ODD_INTS)),
        gf.Key(a + b'attention.sliding_window', gf.U32, r.choice(ODD_INTS)),
        gf.Key(a + b'attention.sliding_window_pattern', gf.U32, r.choice(ODD_INTS)),
        gf.Key(a + b'attn_logit_softcapping', gf.F32, r.choice(ODD_FLOATS)),
        gf.Key(a + b'final_logit_softcapping', gf.F32, r.choice(ODD_FLOATS)),
        gf.Key(a + b'logit_scale', gf.F32, r.choice(ODD_FLOATS)),
        gf.Key(a + b'attention.scale', gf.F32, r.choice(ODD_FLOATS)),
        gf.Key(a + b'attention.clamp_kqv', gf.F32, r.choice(ODD_FLOATS)),
        gf.Key(b'general.alignment', gf.U32, r.choice([8, 16, 32, 64, 4096])),
        gf.Key(b'tokenizer.chat_template', gf.STRING, r.choice([b'{{', b'{% for i in range(10**9) %}x{% endfor %}', b'{{ ' + b'(' * 20000, b'\xff\x00'])),
        gf.Key(b'some.other.key', gf.ARRAY, [b'a', b'', b'\xff'], gf.STRING),
        gf.Key(b'some.empty.list', gf.ARRAY, [], gf.I32)]))
    k = m.keys[-1]
    if k.name == b'general.alignment':
        m.align = k.value


def family(m, r):
    """Another family's name over the same tensors; its own keys are renamed half the time."""
    k = m.get(b'general.architecture')
    old, new = k.value, r.choice([n.encode() for n in ('llama', 'qwen2', 'qwen3', 'gemma', 'gemma2', 'gemma3', 'phi3', 'olmo2', 'granite', 'starcoder2', 'stablelm', 'qwen2moe', 'qwen3moe', 'olmoe', 'granitemoe', 'bert', 'mamba', 'nothing', '')])
    k.value = new
    if r.random() < 0.7:
        for x in m.keys:
            if x.name.startswith(old + b'.'):
                x.name = new + x.name[len(old):]


def vocabulary(m, r):
    lists = [k for k in m.keys if k.kind == gf.ARRAY and k.name.startswith(b'tokenizer.') and k.value]
    ids = [k for k in m.keys if k.name.endswith(b'_token_id')]
    k = r.choice(lists + ids) if lists + ids else None
    if k is None:
        return
    if k in ids:
        k.value = r.choice(ODD_INTS) & ((1 << 8 * gf.SIZE[k.kind]) - 1) if k.kind in (gf.U32, gf.U64) else k.value
        return
    i = r.randrange(len(k.value))
    how = r.randrange(5)
    if how == 0:
        k.value = k.value[:i]
    elif how == 1:
        k.value = k.value + k.value[:i]
    elif k.elem == gf.STRING:
        k.value[i] = r.choice([b'', b'\xff\xfe', b' ', b'a' * 3000, k.value[0], r.randbytes(4), b'<0x-1>', b'a b c', b'nospace'])
    elif k.elem in (gf.F32, gf.F64):
        k.value[i] = r.choice(ODD_FLOATS)
    else:
        k.value[i] = r.choice([0, 1, 2, 3, 4, 5, 6, 7, 100, -1, 2**31 - 1]) if k.elem == gf.I32 else 1


def tokenizer_name(m, r):
    k = m.get(r.choice([b'tokenizer.ggml.model', b'tokenizer.ggml.pre']))
    if k:
        k.value = r.choice([b'', b'gpt2', b'llama', b'bert', b't5', b'none', b'qwen2', b'no-such', b'\xff', b'x' * 10000])


GENTLE = [(weight_mantissa, 5), (weight_bits, 3), (weight_odd, 1), (weight_encoding, 5), (tensor_type, 1), (tensor_dims, 2), (tensor_shuffle, 2),
          (tensor_gaps, 2), (tensor_drop, 1), (tensor_rename, 1), (tensor_extra, 1), (hyper_near, 4), (hyper_far, 3), (key_drop, 2), (key_kind, 2),
          (key_list, 2), (key_extra, 4), (family, 1), (vocabulary, 5), (tokenizer_name, 1)]


# --- brutal: fields, order and bytes (change(bytearray, fields, random) -> bytearray)

def field(b, fields, r):
    """A length, count, type or offset gets an extreme value."""
    what = r.choice(sorted({w for w, _, n in fields if n in (4, 8)}))
    _, at, n = r.choice([f for f in fields if f[0] == what and f[2] in (4, 8)])
    old = int.from_bytes(b[at:at + n], 'little')
    new = r.choice(ODD_LONGS + [old + 1, old - 1, old * 2, old ^ 1 << r.randrange(8 * n), len(b), len(b) - at, -old])
    b[at:at + n] = (new % (1 << 8 * n)).to_bytes(n, 'little')
    return b


def cut(b, fields, r):
    if r.random() < 0.7:
        _, at, n = r.choice(fields)
        return b[:at + r.randrange(n + 1)]
    return b[:r.randrange(len(b))]


def noise(b, fields, r):
    end = fields[-1][1] + 1
    at = r.randrange(end)
    n = r.choice([1, 2, 8, 64])
    b[at:at + n] = r.randbytes(len(b[at:at + n]))
    return b


def bit(b, fields, r):
    b[r.randrange(fields[-1][1] + 1)] ^= 1 << r.randrange(8)
    return b


def slide(b, fields, r):
    """Bytes inserted or removed: everything behind reads as something else."""
    at = r.randrange(4, fields[-1][1] + 1)
    if r.random() < 0.5:
        del b[at:at + r.choice([1, 4, 8, 100])]
    else:
        b[at:at] = r.randbytes(r.choice([1, 4, 8, 100]))
    return b


def swap(b, fields, r):
    (_, a, n), (_, c, k) = sorted(r.sample(fields, 2), key=lambda f: f[1])
    return b[:a] + b[c:c + k] + b[a + n:c] + b[a:a + n] + b[c + k:]


def blank(b, fields, r):
    at = r.randrange(len(b))
    n = min(len(b) - at, r.choice([16, 512, 4096, 65536]))
    b[at:at + n] = bytes([r.choice([0, 255])]) * n
    return b


def append(b, fields, r):
    return b + r.randbytes(r.choice([1, 1000]))


BRUTAL = [(field, 10), (cut, 3), (noise, 3), (bit, 3), (slide, 2), (swap, 1), (blank, 1), (append, 1)]


def pick(r, table):
    return r.choices([f for f, _ in table], [w for _, w in table])[0]


def mutant(models, seed, i):
    """File number i of a seed: (bytes, what was done)."""
    r = random.Random(f'{seed}:{i}')
    name = r.choice(sorted(models))
    m, done = models[name].copy(), [name]
    is_gentle = r.random() < 2 / 3
    for _ in range(r.choice([1, 1, 2, 3]) if is_gentle else r.choice([0, 0, 0, 1])):
        change = pick(r, GENTLE)
        try:
            change(m, r)
            done.append(change.__name__)
        except (IndexError, ValueError, AttributeError, TypeError):
            pass  # what it wanted to change is gone already
    try:
        b = m.pack()
    except struct.error:  # a retyped value that its type cannot hold: leave that file as it was
        m = models[name]
        b = m.pack()
    if not is_gentle:
        for _ in range(r.choice([1, 1, 2, 4])):
            change = pick(r, BRUTAL)
            if len(b) > m.fields[-1][1] + 1:
                b = change(b, m.fields, r)
                done.append(change.__name__)
    return b, ' '.join(done)


# --- small seeds for the fuzzer

def tiny(folder):
    os.makedirs(folder, exist_ok=True)
    for version, align, extra in ((3, 32, 'plain'), (2, 32, 'v2'), (3, 64, 'align64')):
        m = gf.Model()
        m.version, m.align = version, align
        m.keys = [gf.Key(b'general.architecture', gf.STRING, b'llama'), gf.Key(b'llama.block_count', gf.U32, 1),
                  gf.Key(b'a.f', gf.F32, 0.5), gf.Key(b'a.d', gf.F64, -2.0), gf.Key(b'a.b', gf.BOOL, 1), gf.Key(b'a.i', gf.I64, -5),
                  gf.Key(b'a.s', gf.ARRAY, [b'x', b'', b'token'], gf.STRING), gf.Key(b'a.n', gf.ARRAY, [1, -2, 3], gf.I32),
                  gf.Key(b'a.o', gf.ARRAY, [0, 1], gf.BOOL)]
        if align != 32:
            m.keys.append(gf.Key(b'general.alignment', gf.U32, align))
        m.tensors = [gf.Tensor(b'token_embd.weight', [32, 2], 2, bytes(36)), gf.Tensor(b'norm', [4], 0, bytes(16)), gf.Tensor(b'w', [2, 2, 2], 1, bytes(16))]
        open(f'{folder}/{extra}.gguf', 'wb').write(m.pack())
        if extra == 'plain':
            m.tensors = m.tensors[:1]  # at offset 0
            open(f'{folder}/image', 'wb').write(b'HPAK' + (2).to_bytes(4, 'little') + bytes(m.pack())[8:])
    m = gf.Model()
    open(f'{folder}/empty.gguf', 'wb').write(m.pack())
    m.keys = [gf.Key(b'split.no', gf.U16, 0), gf.Key(b'split.count', gf.U16, 1), gf.Key(b'split.tensors.count', gf.I32, len(gf.TYPES))]
    at = 0
    for kind, (name, block, size) in gf.TYPES.items():
        t = gf.Tensor(name.encode(), [block], kind, bytes(size))
        m.tensors.append(t)
    open(f'{folder}/types.gguf', 'wb').write(m.pack())


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument('--seed', default='1')
    p.add_argument('--from', dest='first', type=int, default=0)
    p.add_argument('--n', type=int, default=1)
    p.add_argument('--out')
    p.add_argument('--zoo', default=default_zoo())
    p.add_argument('--tiny')
    a = p.parse_args()
    if a.tiny:
        tiny(a.tiny)
    if a.out:
        os.makedirs(a.out, exist_ok=True)
        models = load(a.zoo)
        for i in range(a.first, a.first + a.n):
            b, done = mutant(models, a.seed, i)
            open(f'{a.out}/m-{i}.gguf', 'wb').write(b)
            print(f'm-{i}.gguf {len(b)} bytes: {done}; {gf.judge(b) or "header ok"}')


def default_zoo():
    return os.path.join(HERE, '..', 'fixtures', 'data', 'zoo')


if __name__ == '__main__':
    main()
