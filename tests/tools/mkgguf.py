#!/usr/bin/env python3
"""Makes GGUF models with random weights in the exact shapes of real ones, for speed and memory tests.

mkgguf.py PRESET OUT.gguf --type TYPE [--seed N] [--vocab FROM.gguf] [--split-bytes N] [shape options]

PRESET  smollm2-135m, llama-1b (Llama 3.2), llama-8b, llama-70b (Llama 3.1), gemma3-270m, tiny, or with
        experts qwen3-30b-a3b, mixtral-8x7b, tiny-moe
TYPE    any type of weights (Q4_0, IQ2_XXS, MXFP4, F16, ...) or a mix: q3_k_m, q4_k_m, q5_k_m
--vocab copies the tokenizer (and with it the number of tokens) from a file; without it a byte-level BPE
        is made up in the preset's size
Shape options change single numbers of the preset: --arch --layers --embd --ff --heads --kv-heads
--head-dim --ctx --vocab-size --experts --experts-used --ff-expert --untied

The same arguments give the same bytes. Blocks are random bits under scales that are set so that a matrix
keeps the size of its input: weights have a standard deviation of 1 / sqrt(columns), those that write to the
residual stream are smaller by sqrt(2 * layers), and logits come out with a deviation of about 3. A model like
this says nothing sensible, but nothing in it overflows or dies out. Memory does not grow with the model: 8 MB
of weights are made at a time (copying a vocabulary takes up to 0.8 GB for a moment). Where rows do not divide into the type's blocks the type is replaced as the usual
quantizers do (Q4_K by Q5_0, Q6_K by Q8_0, ...)."""
import argparse
import math
import os
import random
import shutil
import sys

import numpy as np
from gguf import (GGML_QUANT_SIZES, GGMLQuantizationType as T, GGUFReader, GGUFValueType, GGUFWriter,
                  LlamaFileType, quants)

PIECE_BYTES = 8 << 20

PRESETS = {
    'smollm2-135m': dict(arch='llama', layers=30, embd=576, ff=1536, heads=9, kv_heads=3, head_dim=64,
                         ctx=8192, vocab_size=49152, base=100000.0, eps=1e-5, tied=True),
    'llama-1b': dict(arch='llama', layers=16, embd=2048, ff=8192, heads=32, kv_heads=8, head_dim=64,
                     ctx=131072, vocab_size=128256, base=500000.0, eps=1e-5, tied=True, stretch=32.0),
    'llama-8b': dict(arch='llama', layers=32, embd=4096, ff=14336, heads=32, kv_heads=8, head_dim=128,
                     ctx=131072, vocab_size=128256, base=500000.0, eps=1e-5, tied=False, stretch=8.0),
    'llama-70b': dict(arch='llama', layers=80, embd=8192, ff=28672, heads=64, kv_heads=8, head_dim=128,
                      ctx=131072, vocab_size=128256, base=500000.0, eps=1e-5, tied=False, stretch=8.0),
    'gemma3-270m': dict(arch='gemma3', layers=18, embd=640, ff=2048, heads=4, kv_heads=1, head_dim=256,
                        ctx=32768, vocab_size=262144, base=1000000.0, eps=1e-6, tied=True, window=512),
    'qwen3-30b-a3b': dict(arch='qwen3moe', layers=48, embd=2048, ff=6144, heads=32, kv_heads=4, head_dim=128,
                          ctx=40960, vocab_size=151936, base=1000000.0, eps=1e-6, tied=False,
                          experts=128, experts_used=8, ff_expert=768),
    'mixtral-8x7b': dict(arch='llama', layers=32, embd=4096, ff=14336, heads=32, kv_heads=8, head_dim=128,
                         ctx=32768, vocab_size=32000, base=1000000.0, eps=1e-5, tied=False,
                         experts=8, experts_used=2, ff_expert=14336),
    'tiny-moe': dict(arch='qwen3moe', layers=2, embd=256, ff=512, heads=4, kv_heads=2, head_dim=64, ctx=1024,
                     vocab_size=512, base=10000.0, eps=1e-5, tied=True, experts=16, experts_used=4, ff_expert=256),
    'tiny': dict(arch='llama', layers=2, embd=256, ff=512, heads=4, kv_heads=2, head_dim=64, ctx=1024,
                 vocab_size=512, base=10000.0, eps=1e-5, tied=True),
}

# extra vectors of a layer: name, which width
EXTRA = {
    'llama': [],
    'qwen3': [('attn_q_norm', 'head_dim'), ('attn_k_norm', 'head_dim')],
    'qwen3moe': [('attn_q_norm', 'head_dim'), ('attn_k_norm', 'head_dim')],
    'gemma3': [('attn_q_norm', 'head_dim'), ('attn_k_norm', 'head_dim'),
               ('post_attention_norm', 'embd'), ('post_ffw_norm', 'embd')],
}

# Where the half-precision scales of a block lie: main scale, second scale, and how many of the main scale
# the second one is, so that the values' mean is near zero (Q4_K: mean code 7.5, minima as large as scales).
SCALES = {
    'Q4_0': (0,), 'Q5_0': (0,), 'Q8_0': (0,), 'Q4_1': (0, 2, -7.5), 'Q5_1': (0, 2, -15.5),
    'Q2_K': (80, 82, 1.5), 'Q3_K': (108,), 'Q4_K': (0, 2, 7.5), 'Q5_K': (0, 2, 15.5), 'Q6_K': (208,),
    'IQ1_S': (0,), 'IQ2_XXS': (0,), 'IQ2_XS': (0,), 'IQ2_S': (0,), 'IQ3_XXS': (0,), 'IQ3_S': (0,),
    'IQ4_NL': (0,), 'IQ4_XS': (0,), 'TQ1_0': (52,), 'TQ2_0': (64,), 'Q1_0': (0,),
}

# what stands in when a row is no multiple of 256
SMALL = {'Q2_K': 'IQ4_NL', 'Q3_K': 'IQ4_NL', 'Q4_K': 'Q5_0', 'Q5_K': 'Q5_1', 'Q6_K': 'Q8_0',
         'TQ1_0': 'Q4_0', 'TQ2_0': 'Q4_0', 'NVFP4': 'MXFP4', 'Q1_0': 'Q4_0'}

MIXES = {'q3_k_m': ('Q3_K', 'Q3_K_M'), 'q4_k_m': ('Q4_K', 'Q4_K_M'), 'q5_k_m': ('Q5_K', 'Q5_K_M')}


def wants_more_bits(i, n):
    """Layers whose values and ffn_down get a larger type: both ends, and every third between."""
    return i < n // 8 or i >= 7 * n // 8 or (i - n // 8) % 3 == 2


def type_of(name, kind, i_layer, shape, cols):
    """Element type of a matrix, `name` the wanted type or mix."""
    if name in MIXES:
        chosen = MIXES[name][0]
        more = wants_more_bits(i_layer, shape['layers'])
        if kind == 'output':
            chosen = 'Q6_K'
        elif kind in ('attn_v', 'ffn_down') and name == 'q3_k_m':
            chosen = 'Q5_K' if i_layer < 2 else 'Q4_K' if kind == 'attn_v' or more else 'Q3_K'
        elif kind == 'attn_output' and name == 'q3_k_m':
            chosen = 'Q4_K'
        elif kind in ('attn_v', 'ffn_down') and more:
            chosen = 'Q6_K'
    else:
        chosen = name
        if kind == 'output' and name not in ('F32', 'F16', 'BF16', 'Q8_0'):
            chosen = 'Q6_K'
    if cols % GGML_QUANT_SIZES[T[chosen]][0] != 0:
        chosen = SMALL.get(chosen, 'IQ4_NL')
    if cols % GGML_QUANT_SIZES[T[chosen]][0] != 0:
        raise SystemExit(f'mkgguf: rows of {cols} do not divide into blocks of {chosen}')
    return T[chosen]


def decode(b, t):
    """float32 values of blocks b[n, bytes]; Q1_0 is not in the gguf package."""
    if t.name == 'Q1_0':
        d = b[:, :2].copy().view(np.float16).astype(np.float32)
        return np.where(np.unpackbits(b[:, 2:], axis=1, bitorder='little') == 1, d, -d)
    return quants.dequantize(b, t)


def put_half(b, at, values):
    b[:, at:at + 2] = values.astype('<f2').reshape(-1, 1).view(np.uint8)


def put_iq1m(b, values):
    """IQ1_M keeps the scale's four nibbles on top of four words."""
    bits = values.astype('<f2').view(np.uint16)
    words = b[:, 48:56].copy().view('<u2')
    for k in range(4):
        words[:, k] = words[:, k] & 0x0FFF | (bits >> 4 * k & 15) << 12
    b[:, 48:56] = words.view(np.uint8)


def ue4m3(x):
    """The code of unsigned E4M3 (bias 7) nearest to x."""
    codes = np.arange(127)
    values = np.where(codes < 8, codes / 512, (8 + codes % 8) / 8 * 2.0 ** (codes // 8 - 7))
    return int(np.abs(values - x).argmin())


class Blocks:
    """Random blocks of one type with a given standard deviation."""

    def __init__(self, t):
        self.type = t
        self.values, self.bytes = GGML_QUANT_SIZES[t]
        self.is_float = t.name in ('F32', 'F16', 'BF16')
        self.std1 = 1.0
        if not self.is_float:
            b = self.scaled(np.random.default_rng(1), 1024, 1.0)
            self.std1 = float(np.sqrt(np.mean(np.square(decode(b, t).astype(np.float64)))))

    def scaled(self, rng, n, d):
        """n blocks with main scale d, varied by a quarter up and down; half of them are negative, since
        codes are not symmetric and a common mean of all weights would drown everything else."""
        name = self.type.name
        b = rng.integers(0, 1 << 64, (n * self.bytes + 7) // 8, dtype=np.uint64).view(np.uint8)
        b = b[:n * self.bytes].reshape(n, self.bytes)
        vary = d * (0.75 + 0.5 * np.arange(256) / 255) * np.where(np.arange(256) % 2, -1, 1)
        if name == 'MXFP4':
            low = math.floor(math.log2(d))  # two powers of two in the share that gives the size of d
            share = (4.0 ** (math.log2(d) - low) - 1) / 3
            b[:, 0] = 128 + low + (b[:, 0] < 256 * share)
        elif name == 'NVFP4':
            b[:, :4] = np.array([ue4m3(2 * abs(v)) for v in vary], dtype=np.uint8)[b[:, :4]]
        elif name == 'IQ1_M':
            put_iq1m(b, vary[rng.integers(0, 256, n, dtype=np.uint8)])
        else:
            if name == 'TQ2_0':  # codes 0, 1, 2 as sums of two bits; 3 is not used
                b[:] = (b & 0x55) + (b >> 1 & 0x55)
            at = SCALES[name]
            which = rng.integers(0, 256, n, dtype=np.uint8)
            put_half(b, at[0], vary[which])
            if len(at) > 1:
                put_half(b, at[1], at[2] * vary[which])
        return b

    def make(self, rng, n, std):
        if not self.is_float:
            return self.scaled(rng, n, std / self.std1)
        x = rng.standard_normal(n, dtype=np.float32) * np.float32(std)
        if self.type.name == 'F16':
            return x.astype('<f2')
        return x if self.type.name == 'F32' else (x.view(np.uint32) >> 16).astype('<u2')


def byte_alphabet():
    """GPT-2's printable stand-ins for the 256 bytes."""
    plain = [*range(33, 127), *range(161, 173), *range(174, 256)]
    rest = [b for b in range(256) if b not in plain]
    return [chr(b) if b in plain else chr(256 + rest.index(b)) for b in range(256)]


class Words:
    """The 32-bit words that random.Random(seed) makes its numbers of."""

    def __init__(self, seed):
        *key, at = random.Random(seed).getstate()[1]
        self.source = np.random.MT19937()
        self.source.state = {'bit_generator': 'MT19937', 'state': {'key': np.array(key, dtype=np.uint32), 'pos': at}}
        self.ahead = np.zeros(0, dtype=np.uint32)

    def peek(self, n):
        if len(self.ahead) < n:
            self.ahead = np.append(self.ahead, self.source.random_raw(n + (1 << 20)).astype(np.uint32))
        return self.ahead[:n]

    def skip(self, n):
        self.ahead = self.ahead[n:]


def draws(words, top_left, top_right):
    """Positions (left, right) of the words that draws of a left and a right in turn take; a draw passes over words that
    are not below its top. A word that both take changes turns; after one that only one of them takes it is the other's
    turn, taken or not."""
    at = np.flatnonzero(words < max(top_left, top_right))
    both = words[at] < min(top_left, top_right)
    turn = np.cumsum(both) - both
    after = int(top_left > top_right)
    turn -= np.append(0, turn[~both] - after)[np.arange(len(at)) - turn]
    taken = at[both | (turn & 1 != after)]
    return taken[:len(taken) // 2 * 2].reshape(-1, 2)


class Pieces:
    """Made-up pieces of words to draw from; a number below len(texts) is made of the top bits of a word."""

    def __init__(self, texts, most):
        self.texts = texts
        self.sizes = np.ones(most, dtype=np.uint8)

    def add(self, text):
        self.sizes[len(self.texts)] = len(text)
        self.texts.append(text)

    def shift(self):
        return 32 - len(self.texts).bit_length()

    def is_in(self, words, shift):
        """Whether the words may draw the newest piece, or its number has more bits than those before."""
        return shift != self.shift() or (words >> shift == len(self.texts) - 1).any()


def made_words(n, seed):
    """[(left, right)] of n different made-up words: left and right are letters or earlier words, drawn as
    random.Random(seed).choice draws them, and drawn again where they have over 12 letters, or are there already. Hundreds
    are drawn for one that is kept, so many are drawn at once, as if no word came to the lists meanwhile; where that
    would make a difference it begins again after the word."""
    space = chr(256 + 32)
    letters = [chr(c) for c in range(ord('a'), ord('z') + 1)]
    starts, inner = Pieces(letters + [space], n + 27), Pieces(letters[:], n + 26)
    source, found, known = Words(seed), [], set(byte_alphabet())
    while len(found) < n:
        shifts = [p.shift() for p in (starts, inner)]
        words = source.peek(256 + len(starts.texts) // 16)
        pairs = draws(words, *(len(p.texts) << shift for p, shift in zip((starts, inner), shifts)))
        lefts, rights = words[pairs[:, 0]] >> shifts[0], words[pairs[:, 1]] >> shifts[1]
        end = pairs[-1, 1] + 1
        for i in np.flatnonzero(starts.sizes[lefts] + inner.sizes[rights] <= 12):
            left, right = starts.texts[lefts[i]], inner.texts[rights[i]]
            whole = left + right
            if whole in known:
                continue
            known.add(whole)
            found.append((left, right))
            rest = words[pairs[i, 1] + 1:]
            starts.add(whole)
            is_stale = starts.is_in(rest, shifts[0])
            if left[0] != space:
                inner.add(whole)
                is_stale = is_stale or inner.is_in(rest, shifts[1])
            if is_stale or len(found) == n:
                end = pairs[i, 1] + 1
                break
        source.skip(end)
    return found


def add_made_vocab(w, n, seed):
    """A byte-level BPE of n tokens: the bytes, made-up pieces of words, begin and end."""
    if n < 258:
        raise SystemExit(f'mkgguf: a vocabulary of {n} tokens; at least 258 are needed')
    made = made_words(n - 258, seed)
    tokens, merges = byte_alphabet() + [left + right for left, right in made], [f'{left} {right}' for left, right in made]
    w.add_tokenizer_model('gpt2')
    w.add_tokenizer_pre('gpt-2')
    w.add_token_list(tokens + ['<|begin|>', '<|end|>'])
    w.add_token_types([1] * (n - 2) + [3, 3])
    if merges:
        w.add_token_merges(merges)
    w.add_bos_token_id(n - 2)
    w.add_eos_token_id(n - 1)
    w.add_add_bos_token(False)


def copy_vocab(w, path):
    """Copies every tokenizer key; returns the number of tokens."""
    n = 0
    for name, field in GGUFReader(path).fields.items():
        if name.startswith('tokenizer.'):
            sub = field.types[-1] if field.types[0] == GGUFValueType.ARRAY else None
            value = field.contents()
            if sub is None or len(value) > 0:
                w.add_key_value(name, value, field.types[0], sub_type=sub)
            n = len(value) if name == 'tokenizer.ggml.tokens' else n
    if n == 0:
        raise SystemExit(f'mkgguf: {path} has no tokenizer.ggml.tokens')
    return n


def add_shape(w, s, wanted):
    file_type = 'MOSTLY_' + (MIXES[wanted][1] if wanted in MIXES else wanted)
    w.add_name(f'random weights, {s["preset"]} shape, {wanted}')
    w.add_block_count(s['layers'])
    w.add_context_length(s['ctx'])
    w.add_embedding_length(s['embd'])
    w.add_feed_forward_length(s['ff'])
    w.add_head_count(s['heads'])
    w.add_head_count_kv(s['kv_heads'])
    w.add_key_length(s['head_dim'])
    w.add_value_length(s['head_dim'])
    w.add_rope_dimension_count(s['head_dim'])
    w.add_rope_freq_base(s['base'])
    w.add_layer_norm_rms_eps(s['eps'])
    w.add_vocab_size(s['vocab_size'])
    if s.get('experts'):
        w.add_expert_count(s['experts'])
        w.add_expert_used_count(s['experts_used'])
        w.add_expert_feed_forward_length(s['ff_expert'])
    if 'window' in s:
        w.add_sliding_window(s['window'])
    w.add_quantization_version(2)
    if hasattr(LlamaFileType, file_type):
        w.add_file_type(LlamaFileType[file_type])


def tensors(s, wanted):
    """(name, type, rows or None for a vector, columns, standard deviation or None for a norm); rows of several
    matrices are a list, their number first"""
    embd, ff, n = s['embd'], s['ff'], s['layers']
    nq, nk = s['heads'] * s['head_dim'], s['kv_heads'] * s['head_dim']
    thin = 1 / math.sqrt(2 * n)
    head = 3 / math.sqrt(embd)
    yield ('token_embd.weight', type_of(wanted, 'output' if s['tied'] else 'token_embd', 0, s, embd),
           s['vocab_size'], embd, head if s['tied'] else 1.0)
    if 'stretch' in s:
        yield 'rope_freqs.weight', T.F32, None, s['head_dim'] // 2, 'rope'
    matrices = [('attn_q', nq, embd, 1.0), ('attn_k', nk, embd, 1.0), ('attn_v', nk, embd, 1.0),
                ('attn_output', embd, nq, thin)]
    if s.get('experts'):  # a router whose logits have a deviation of 1: its choices are spread over all experts
        part, ff = [s['experts']], s['ff_expert']
        matrices += [('ffn_gate_inp', s['experts'], embd, 1.0), ('ffn_gate_exps', part + [ff], embd, 1.0),
                     ('ffn_up_exps', part + [ff], embd, 1.0), ('ffn_down_exps', part + [embd], ff, thin)]
    else:
        matrices += [('ffn_gate', ff, embd, 1.0), ('ffn_up', ff, embd, 1.0), ('ffn_down', embd, ff, thin)]
    for i in range(n):
        for kind, width in [('attn_norm', 'embd'), ('ffn_norm', 'embd'), *EXTRA[s['arch']]]:
            yield f'blk.{i}.{kind}.weight', T.F32, None, s[width], None
        for kind, rows, cols, gain in matrices:
            t = T.F32 if kind == 'ffn_gate_inp' else type_of(wanted, kind.removesuffix('_exps'), i, s, cols)
            yield f'blk.{i}.{kind}.weight', t, rows, cols, gain / math.sqrt(cols)
    yield 'output_norm.weight', T.F32, None, embd, None
    if not s['tied']:
        yield 'output.weight', type_of(wanted, 'output', 0, s, embd), s['vocab_size'], embd, head


def n_rows(rows):
    return math.prod(rows) if isinstance(rows, list) else rows


def rope_factors(s):
    """Llama 3.1's frequency factors: long waves are stretched, short ones kept, a ramp between."""
    n, low, high, trained = s['head_dim'], 1.0, 4.0, 8192
    wave = 2 * math.pi * s['base'] ** (np.arange(0, n, 2) / n)
    ramp = np.clip((trained / wave - low) / (high - low), 0, 1)
    return (1 / ((1 - ramp) / s['stretch'] + ramp)).astype('<f4')


def write_tensor(f, makers, rng, t, rows, cols, std, s):
    """Streams one tensor in pieces; returns its bytes."""
    if rows is None:
        x = rope_factors(s) if isinstance(std, str) else 1 + 0.1 * rng.standard_normal(cols)
        f.write(np.ascontiguousarray(x, dtype='<f4'))
        return 4 * cols
    maker = makers.setdefault(t, None) or Blocks(t)
    makers[t] = maker
    left = n_rows(rows) * cols // maker.values
    done = left * maker.bytes
    while left > 0:
        n = min(left, max(1, PIECE_BYTES // maker.bytes))
        f.write(np.ascontiguousarray(maker.make(rng, n, std)))
        left -= n
    return done


def rows_bytes(t, rows, cols):
    values, size = GGML_QUANT_SIZES[t]
    return (n_rows(rows) or 1) * cols // values * size


def check_room(out, need):
    """Before a byte is written: a large model takes minutes."""
    free = shutil.disk_usage(os.path.dirname(os.path.abspath(out))).free
    if need + (64 << 20) > free:
        raise SystemExit(f'mkgguf: {out}: {need / 1e9:.1f} GB are needed, the disk has {free / 1e9:.1f} GB left')


def shape_of(a):
    s = dict(PRESETS[a.preset], preset=a.preset)
    for key in ('arch', 'layers', 'embd', 'ff', 'heads', 'kv_heads', 'head_dim', 'ctx', 'vocab_size',
                'experts', 'experts_used', 'ff_expert'):
        if getattr(a, key) is not None:
            s[key] = getattr(a, key)
    if a.untied:
        s['tied'] = False
    if s['heads'] % s['kv_heads'] != 0:
        raise SystemExit(f'mkgguf: {s["heads"]} heads cannot share {s["kv_heads"]} key heads evenly')
    return s


def arguments():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument('preset', choices=PRESETS)
    p.add_argument('out')
    p.add_argument('--type', required=True)
    p.add_argument('--seed', type=int, default=1)
    p.add_argument('--vocab')
    p.add_argument('--split-bytes', type=int, default=0)
    p.add_argument('--arch', choices=EXTRA)
    p.add_argument('--untied', action='store_true')
    for name in ('layers', 'embd', 'ff', 'heads', 'kv-heads', 'head-dim', 'ctx', 'vocab-size',
                 'experts', 'experts-used', 'ff-expert'):
        p.add_argument('--' + name, type=int)
    a = p.parse_args()
    a.type = a.type.lower() if a.type.lower() in MIXES else a.type.upper()
    if a.type not in MIXES and a.type not in SCALES and a.type not in (
            'F32', 'F16', 'BF16', 'IQ1_M', 'MXFP4', 'NVFP4'):
        p.error(f'--type {a.type}: no type of weights; known are {", ".join([*MIXES, *SCALES])}, '
                'IQ1_M, MXFP4, NVFP4, F32, F16, BF16')
    return a


def main():
    a = arguments()
    s = shape_of(a)
    w = GGUFWriter(a.out, s['arch'], split_max_size=a.split_bytes)
    if a.vocab:
        s['vocab_size'] = copy_vocab(w, a.vocab)
    else:
        add_made_vocab(w, s['vocab_size'], a.seed)
    add_shape(w, s, a.type)
    todo = list(tensors(s, a.type))
    for name, t, rows, cols, _ in todo:
        values, size = GGML_QUANT_SIZES[t]
        shape = (cols,) if rows is None else (*rows, cols) if isinstance(rows, list) else (rows, cols)
        w.add_tensor_info(name, shape, np.float32, math.prod(shape) // values * size, raw_dtype=t)
    check_room(a.out, sum(rows_bytes(t, rows, cols) for _, t, rows, cols, _ in todo))
    w.write_header_to_file()
    w.write_kv_data_to_file()
    w.write_ti_data_to_file()
    file_of = {name: i for i, names in enumerate(w.tensors) for name in names}
    makers, total = {}, 0
    for i, (name, t, rows, cols, std) in enumerate(todo):
        f = w.fout[file_of[name]]
        w.write_padding(f, f.tell())
        rng = np.random.Generator(np.random.SFC64([a.seed, i]))
        n = write_tensor(f, makers, rng, t, rows, cols, std, s)
        w.write_padding(f, n)
        total += n
    w.close()
    print(f'{a.out}: {len(todo)} tensors, {total} bytes of weights, {s["vocab_size"]} tokens')


if __name__ == '__main__':
    sys.exit(main())
