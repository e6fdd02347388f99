#!/usr/bin/env python3
"""peer_llamacpp.py HEARTH MODEL.gguf... [--prefill 512] [--decode 64] [--rounds 5] [--threads 2]: hearth and llama.cpp in turns.

Needs PyPI's llama-cpp-python built for this machine (CMAKE_ARGS=-DGGML_NATIVE=ON pip install --no-binary llama-cpp-python
llama-cpp-python==0.3.36) in the Python that runs this. Each round measures both, one after the other, llama.cpp with flash
attention on and off (its better figure counts); medians, ranges and ratios are printed, with the memory bandwidth that
hearth measured in the same round. Times on a busy machine mean nothing: look at the spread."""
import argparse
import ctypes
import json
import os
import statistics
import subprocess
import sys
import time


def peer(model, prefill, decode, threads):
    """One process: {'prefill_tok_s', 'decode_tok_s', 'first_ms'} of llama.cpp through its C API."""
    import numpy as np
    import llama_cpp as L
    begin = time.perf_counter()

    @L.llama_log_callback
    def quiet(level, text, data):
        pass
    L.llama_log_set(quiet, ctypes.c_void_p(0))
    L.llama_backend_init()
    m = L.llama_model_load_from_file(model.encode(), L.llama_model_default_params())
    n_vocab = L.llama_vocab_n_tokens(L.llama_model_get_vocab(m))
    best = {'prefill_tok_s': 0.0, 'decode_tok_s': 0.0, 'first_ms': None}
    for fa in (1, 0):
        p = L.llama_context_default_params()
        p.n_ctx, p.n_batch, p.n_ubatch = max(prefill, decode + 16) + 64, 512, 512
        p.n_threads = p.n_threads_batch = threads
        if hasattr(p, 'flash_attn_type'):
            p.flash_attn_type = fa
        c = L.llama_init_from_model(m, p)

        def run(tokens, pos):
            b = L.llama_batch_init(len(tokens), 0, 1)
            b.n_tokens = len(tokens)
            for i, t in enumerate(tokens):
                b.token[i], b.pos[i], b.n_seq_id[i], b.logits[i] = t, pos + i, 1, i == len(tokens) - 1
                b.seq_id[i][0] = 0
            L.llama_decode(c, b)
            a = np.ctypeslib.as_array(L.llama_get_logits_ith(c, len(tokens) - 1), (n_vocab,))
            t = int(a.argmax())
            L.llama_batch_free(b)
            return t
        rng = np.random.RandomState(1)
        run([1, 2], 0)
        if best['first_ms'] is None:
            best['first_ms'] = 1e3 * (time.perf_counter() - begin)
        for _ in range(2):
            L.llama_memory_clear(L.llama_get_memory(c), True)
            toks = [int(x) for x in rng.randint(3, n_vocab, prefill)]
            t0 = time.perf_counter()
            for i in range(0, prefill, 512):
                run(toks[i:i + 512], i)
            best['prefill_tok_s'] = max(best['prefill_tok_s'], prefill / (time.perf_counter() - t0))
        L.llama_memory_clear(L.llama_get_memory(c), True)
        t = run(toks[:8], 0)
        t0 = time.perf_counter()
        for i in range(decode):
            t = run([t], 8 + i)
        best['decode_tok_s'] = max(best['decode_tok_s'], decode / (time.perf_counter() - t0))
        L.llama_free(c)
    print(json.dumps(best))


def main():
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument('hearth')
    ap.add_argument('models', nargs='+')
    ap.add_argument('--prefill', type=int, default=512)
    ap.add_argument('--decode', type=int, default=64)
    ap.add_argument('--rounds', type=int, default=5)
    ap.add_argument('--threads', type=int, default=os.cpu_count())
    ap.add_argument('--peer-only', action='store_true', help=argparse.SUPPRESS)
    a = ap.parse_args()
    if a.peer_only:
        return peer(a.models[0], a.prefill, a.decode, a.threads)
    sizes = ['--prefill', str(a.prefill), '--decode', str(a.decode), '--threads', str(a.threads)]
    print(f'{"model":32s} {"":8s} {"hearth":>20s} {"llama.cpp":>20s} {"ratio":>18s}   GB/s')
    for model in a.models:
        own, other = [], []
        for _ in range(a.rounds):
            own.append(json.loads(subprocess.run([a.hearth, 'bench', model, '--json', *sizes], stdout=subprocess.PIPE, check=True).stdout))
            other.append(json.loads(subprocess.run([sys.executable, __file__, a.hearth, model, '--peer-only', *sizes], stdout=subprocess.PIPE, check=True).stdout))
        for what in ('prefill_tok_s', 'decode_tok_s'):
            x, y = [r[what] for r in own], [r[what] for r in other]
            q = [p / o for p, o in zip(x, y)]
            show = lambda v: f'{statistics.median(v):8.1f} ({min(v):.0f}-{max(v):.0f})'
            print(f'{os.path.basename(model):32s} {what[:7]:8s} {show(x):>20s} {show(y):>20s} {statistics.median(q):6.2f} ({min(q):.2f}-{max(q):.2f})   '
                  f'{statistics.median([r["read_gb_s"] for r in own]):.0f}', flush=True)


main()
