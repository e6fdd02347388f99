#!/usr/bin/env python3
"""peer_llamacpp.py MODEL.gguf [--prefill 512] [--decode 64] [--depth 0] [--batch 1] [--kv f16] [--threads 2] [--fa 0,1]

One measurement of llama.cpp through its C API, as a line of JSON with the names of `hearth bench --json`; bench/table.py calls it.
Needs PyPI's llama-cpp-python built for this machine: CMAKE_ARGS=-DGGML_NATIVE=ON pip install --no-binary llama-cpp-python
llama-cpp-python==0.3.36. Weights are repacked at load, as llama.cpp does by default. Of flash attention on and off the better
figure counts, for each figure by itself. Context before --depth is not computed: the state of one computed piece is copied and
moved to its place, which takes no time and costs the same to read."""
import argparse
import ctypes
import json
import time

import llama_cpp as L
import numpy as np

PIECE = 512


class Context:
    """Sequences 0..batch-1, and one more to move pieces."""

    def __init__(self, model, a, fa, n_ctx):
        p = L.llama_context_default_params()
        p.n_ctx, p.n_batch, p.n_ubatch, p.n_seq_max = n_ctx * a.batch + PIECE, PIECE, PIECE, a.batch + 1
        p.n_threads = p.n_threads_batch = a.threads
        p.kv_unified, p.flash_attn_type = True, fa
        p.type_k = p.type_v = {'f16': L.GGML_TYPE_F16, 'q8_0': L.GGML_TYPE_Q8_0, 'f32': L.GGML_TYPE_F32}[a.kv]
        self.c = L.llama_init_from_model(model, p)
        if not self.c:
            raise RuntimeError('no context')
        self.memory = L.llama_get_memory(self.c)
        self.n_vocab = L.llama_vocab_n_tokens(L.llama_model_get_vocab(model))
        self.rng = np.random.RandomState(1)

    def run(self, rows, last_only=True):
        """rows: (sequence, position, token); the best token after each row that has scores."""
        b = L.llama_batch_init(len(rows), 0, 1)
        b.n_tokens = len(rows)
        for i, (seq, pos, t) in enumerate(rows):
            b.token[i], b.pos[i], b.n_seq_id[i] = t, pos, 1
            b.logits[i] = not last_only or i == len(rows) - 1
            b.seq_id[i][0] = seq
        if L.llama_decode(self.c, b) != 0:
            raise RuntimeError('llama_decode failed')
        best = [int(np.ctypeslib.as_array(L.llama_get_logits_ith(self.c, i), (self.n_vocab,)).argmax())
                for i in range(len(rows)) if b.logits[i]]
        L.llama_batch_free(b)
        return best

    def prompt(self, seq, pos, n):
        toks = [int(x) for x in self.rng.randint(3, self.n_vocab, n)]
        for i in range(0, n, PIECE):
            best = self.run([(seq, pos + i + k, t) for k, t in enumerate(toks[i:i + PIECE])])
        return best[0]

    def fill(self, depth, batch):
        """`depth` positions of context for every sequence."""
        n = min(depth, PIECE)
        if n == 0:
            return
        spare = batch
        self.prompt(spare, 0, n)
        size = L.llama_state_seq_get_size(self.c, spare)
        state = (ctypes.c_uint8 * size)()
        if L.llama_state_seq_get_data(self.c, state, size, spare) == 0:
            raise RuntimeError('no state')
        for seq in range(batch):
            for at in range(0, depth, n):
                L.llama_memory_seq_rm(self.memory, spare, -1, -1)
                if L.llama_state_seq_set_data(self.c, state, size, spare) == 0:
                    raise RuntimeError('the state does not fit')
                L.llama_memory_seq_add(self.memory, spare, 0, -1, at)
                L.llama_memory_seq_cp(self.memory, spare, seq, -1, -1)
            L.llama_memory_seq_rm(self.memory, seq, depth, -1)
        L.llama_memory_seq_rm(self.memory, spare, -1, -1)

    def cut(self, seq, pos):
        L.llama_memory_seq_rm(self.memory, seq, pos, -1)


def measure(c, a, best):
    c.fill(a.depth, a.batch)
    c.prompt(0, a.depth, 8)  # moves what was filled, and warms up
    c.cut(0, a.depth)
    for _ in range(a.repeat if a.prefill else 0):
        t0 = time.perf_counter()
        c.prompt(0, a.depth, a.prefill)
        best['prefill_tok_s'] = max(best['prefill_tok_s'], a.prefill / (time.perf_counter() - t0))
        c.cut(0, a.depth)
    rows = [(s, a.depth + 1, c.prompt(s, a.depth, 1)) for s in range(a.batch)]
    rows = [(s, p + 1, t) for (s, p, _), t in zip(rows, c.run(rows, False))]
    t0 = time.perf_counter()
    for _ in range(a.decode):
        rows = [(s, p + 1, t) for (s, p, _), t in zip(rows, c.run(rows, False))]
    best['decode_tok_s'] = max(best['decode_tok_s'], a.batch * a.decode / (time.perf_counter() - t0))


def main():
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument('model')
    for name, value in (('prefill', 512), ('decode', 64), ('depth', 0), ('batch', 1), ('threads', 2), ('repeat', 2)):
        ap.add_argument('--' + name, type=int, default=value)
    ap.add_argument('--kv', default='f16')
    ap.add_argument('--fa', default='0,1')
    ap.add_argument('--first', action='store_true', help='only load and compute one token')
    ap.add_argument('--no-repack', action='store_true', help='weights stay mapped: for models larger than the memory')
    a = ap.parse_args()
    begin = time.perf_counter()
    quiet = L.llama_log_callback(lambda level, text, data: None)
    L.llama_log_set(quiet, ctypes.c_void_p(0))
    L.llama_backend_init()
    p = L.llama_model_default_params()
    p.use_extra_bufts = not a.no_repack
    m = L.llama_model_load_from_file(a.model.encode(), p)
    best = {'prefill_tok_s': 0.0, 'decode_tok_s': 0.0}
    if a.first:
        Context(m, a, 1, 1024).prompt(0, 0, 1)
        print(json.dumps({'first_s': time.perf_counter() - begin}))
        return
    won = {}
    for fa in a.fa.split(','):
        before = dict(best)
        try:
            c = Context(m, a, int(fa), a.depth + max(a.prefill, a.decode + 16) + 64)
        except RuntimeError:
            continue  # a quantized cache needs flash attention
        measure(c, a, best)
        won.update({k: fa for k in best if best[k] > before[k]})
        L.llama_free(c.c)
    print(json.dumps({**best, 'setting': ','.join(sorted(set(won.values())))}))


if __name__ == '__main__':
    main()
