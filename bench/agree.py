#!/usr/bin/env python3
"""agree.py MODEL.gguf [--tokens 48] [--rows 32] [--hearth build/hearth] [--python PYTHON] [--threads 2] [--most-kl X]

The next-token logits of hearth and of llama.cpp, for the last --rows positions of a text of made up tokens: the same file, the same
tokens, one after the other, so that both have the memory to themselves. Prints how far apart the distributions are (Kullback-Leibler
divergence, nats), how far single logits, and how often both name the same best token; for a scale, how widely a row's logits spread.
With --most-kl it ends with 1 when the mean divergence is larger. PYTHON has llama-cpp-python (peer_llamacpp.py says how) and numpy."""
import argparse
import json
import os
import subprocess
import sys
import tempfile

HERE = os.path.dirname(os.path.abspath(__file__))


def tokens(n, n_vocab):
    """Made up, the same for both."""
    x, out = 12345, []
    for _ in range(n):
        x = (1103515245 * x + 12345) % (1 << 31)
        out.append(3 + (x >> 8) % (n_vocab - 3))
    return out


def llamacpp(model, n, rows, threads, out):
    """In the process of PYTHON: writes float32 rows to `out`."""
    import ctypes
    import llama_cpp as L
    import numpy as np
    quiet = L.llama_log_callback(lambda level, text, data: None)
    L.llama_log_set(quiet, ctypes.c_void_p(0))
    L.llama_backend_init()
    m = L.llama_model_load_from_file(model.encode(), L.llama_model_default_params())
    p = L.llama_context_default_params()
    p.n_ctx = p.n_batch = p.n_ubatch = max(n, 64)
    p.n_threads = p.n_threads_batch = threads
    c = L.llama_init_from_model(m, p)
    n_vocab = L.llama_vocab_n_tokens(L.llama_model_get_vocab(m))
    b = L.llama_batch_init(n, 0, 1)
    b.n_tokens = n
    for i, t in enumerate(tokens(n, n_vocab)):
        b.token[i], b.pos[i], b.n_seq_id[i], b.logits[i] = t, i, 1, i >= n - rows
        b.seq_id[i][0] = 0
    if L.llama_decode(c, b) != 0:
        raise SystemExit('llama_decode failed')
    with open(out, 'wb') as f:
        for i in range(n - rows, n):
            f.write(np.ctypeslib.as_array(L.llama_get_logits_ith(c, i), (n_vocab,)).astype('<f4').tobytes())
    print(n_vocab)


def hearth(a, n_vocab, out):
    case = {'id': 'agree', 'tokens': tokens(a.tokens, n_vocab), 'positions': list(range(a.tokens - a.rows, a.tokens)), 'ctx': a.tokens + 1}
    r = subprocess.run([a.hearth, '--threads', str(a.threads), 'logits', '-m', a.model, '-o', out], input=json.dumps(case) + '\n', text=True,
                       stdout=subprocess.PIPE)
    if r.returncode != 0 or 'error' in r.stdout:
        raise SystemExit(f'hearth ended with {r.returncode}: {r.stdout[-300:]}')


def compare(x, y):
    import numpy as np

    def log_p(z):
        z = z - z.max(-1, keepdims=True)
        return z - np.log(np.exp(z).sum(-1, keepdims=True))
    p, q = log_p(x), log_p(y)
    kl = (np.exp(p) * (p - q)).sum(-1)
    d = (y - y.mean(-1, keepdims=True)) - (x - x.mean(-1, keepdims=True))
    return {'rows': len(x), 'kl_mean': kl.mean(), 'kl_max': kl.max(), 'logit_rms_difference': np.sqrt((d ** 2).mean()), 'logit_largest_difference': abs(d).max(),
            'logit_spread': x.std(-1).mean(), 'same_best': (x.argmax(-1) == y.argmax(-1)).mean()}


def main():
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument('model')
    for name, value in (('tokens', 48), ('rows', 32), ('threads', 2)):
        ap.add_argument('--' + name, type=int, default=value)
    ap.add_argument('--hearth', default=HERE + '/../build/hearth')
    ap.add_argument('--python', default=sys.executable)
    ap.add_argument('--most-kl', type=float)
    ap.add_argument('--llamacpp-rows', help=argparse.SUPPRESS)
    a = ap.parse_args()
    if a.llamacpp_rows:
        return llamacpp(a.model, a.tokens, a.rows, a.threads, a.llamacpp_rows)
    if not 0 < a.rows <= a.tokens:
        ap.error('--rows: from 1 to --tokens')
    import numpy as np
    with tempfile.TemporaryDirectory() as d:
        theirs, ours = d + '/theirs', d + '/ours'
        sizes = ['--tokens', str(a.tokens), '--rows', str(a.rows), '--threads', str(a.threads)]
        r = subprocess.run([a.python, os.path.abspath(__file__), a.model, *sizes, '--llamacpp-rows', theirs], stdout=subprocess.PIPE, text=True, check=True)
        n_vocab = int(r.stdout.split()[-1])
        hearth(a, n_vocab, ours)
        x, y = (np.fromfile(f, '<f4').reshape(a.rows, n_vocab).astype('f8') for f in (theirs, ours))
    found = compare(x, y)
    for k, v in found.items():
        print(f'{k:26} {v:.6g}')
    return int(a.most_kl is not None and not found['kl_mean'] <= a.most_kl)


if __name__ == '__main__':
    sys.exit(main())
