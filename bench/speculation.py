#!/usr/bin/env python3
"""speculation.py LIBHEARTH MODEL...: what computing guessed tokens ahead brings, by kind of text.

For each model and prompt the same answer is made with guesses and without, in turn, and must be the same to the last bit of its
log probabilities. Prints the speed of both (medians, first to last token), their ratio, guesses computed and right per
step. Sources of the prompts are files of this repository. Needs a machine where nothing else runs."""
import argparse
import ctypes as c
import json
import os
import statistics

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
I, U, F, P = c.c_int32, c.c_uint64, c.c_float, c.c_void_p


class ModelParams(c.Structure):
    _fields_ = [('size', c.c_size_t), ('n_ctx', I), ('n_parallel', I), ('n_queue', I), ('n_batch', I), ('kv', c.c_char_p), ('draft', c.c_char_p), ('progress', P), ('arg', P), ('extra', U)]


class BoxParams(c.Structure):
    _fields_ = [('size', c.c_size_t), ('n_thread', I), ('isa', c.c_char_p), ('memory_bytes', U)]


class RequestParams(c.Structure):
    _fields_ = [('size', c.c_size_t), ('tokens', c.POINTER(I)), ('n_token', c.c_size_t), ('max_tokens', I), ('n_choice', I), ('temperature', F),
                ('top_k', I), ('top_p', F), ('min_p', F), ('typical_p', F), ('repeat_penalty', F), ('presence_penalty', F), ('frequency_penalty', F),
                ('repeat_last_n', I), ('seed', U), ('bias', P), ('n_bias', c.c_size_t), ('n_logprob', I), ('stop', P), ('n_stop', c.c_size_t),
                ('ignore_eos', I), ('show_special', I), ('timeout_us', U), ('n_made_up', I), ('no_guesses', I)]


class Event(c.Structure):
    _fields_ = [('size', c.c_size_t), ('kind', c.c_int), ('choice', I), ('text', P), ('n_text', c.c_size_t), ('token', I), ('logprob', F), ('n_top', I),
                ('top', P), ('finish', c.c_int), ('n_prompt', I), ('n_generated', I), ('queue_us', U), ('prefill_us', U), ('decode_us', U), ('error', P)]


class Stats(c.Structure):
    _fields_ = [('size', c.c_size_t), ('is_ready', I), ('heartbeat_age_us', U), ('disk_read_bytes', U), ('disk_used_bytes', U),
                ('n_running', I), ('n_queued', I), ('n_request', U), ('n_done', U),
                ('n_cancelled', U), ('n_refused', U), ('n_failed', U), ('n_prompt', U), ('n_generated', U), ('n_guessed', U), ('n_accepted', U), ('n_step', U),
                ('rest', U * 14)]


def part(path, n, skip=0):
    return open(os.path.join(ROOT, path)).read()[skip:skip + n]


PROMPTS = {
    'code edit': 'Rename the function drop_page to page_drop in this file. Write the whole file again and change nothing else.\n\n```c\n' + part('src/engine/kv.c', 2600, 4900) + '\n```',
    'correction': 'Write this text again, word for word, but with British spelling:\n\n' + part('docs/ARCHITECTURE.md', 1500, 1600),
    'summary': 'Sum up this text in five sentences, using its own words:\n\n' + part('README.md', 3500),
    'questions': 'Which sentences of the following text say what is limited or refused? Quote them.\n\n' + part('README.md', 3000),
    'free prose': 'Write a long story about an old lighthouse keeper and his cat.',
}

ap = argparse.ArgumentParser(description=__doc__)
ap.add_argument('lib')
ap.add_argument('models', nargs='+')
ap.add_argument('--draft', help='a small model of the same vocabulary that guesses')
ap.add_argument('--rounds', type=int, default=5)
ap.add_argument('--tokens', type=int, default=200)
ap.add_argument('--temp', type=float, default=0.0)
ap.add_argument('--only', default='', help='kinds of prompts, separated by commas')
args = ap.parse_args()
unknown = [k for k in args.only.split(',') if k and k not in PROMPTS]
if unknown or args.tokens < 2 or args.rounds < 1:
    ap.error(f'no prompt is called {unknown[0]}: {", ".join(PROMPTS)}' if unknown else 'at least 2 tokens and 1 round are wanted')
try:
    L = c.CDLL(os.path.abspath(args.lib))
except OSError as e:
    ap.error(f'{e}: the path of libhearth.so is wanted')
L.hearth_error.restype = c.c_char_p
L.hearth_next.argtypes = [P, U, c.POINTER(Event)]


def good(status):
    if status:
        raise SystemExit(L.hearth_error().decode())


def answer(model, ids, guesses):
    p, r, e = RequestParams(), P(), Event()
    L.hearth_request_init(c.byref(p))
    p.tokens, p.n_token, p.max_tokens, p.temperature, p.seed, p.n_logprob = ids, len(ids), args.tokens, args.temp, 7, 0
    p.no_guesses = not guesses
    good(L.hearth_submit(model, c.byref(p), c.byref(r)))
    got = []
    while True:
        good(L.hearth_next(r, 2**64 - 1, c.byref(e)))
        if e.kind == 2:
            break
        if e.kind == 0:
            got.append((e.token, c.c_uint32.from_buffer_copy(c.c_float(e.logprob)).value))
    L.hearth_request_close(r)
    return got, (e.n_generated - 1) * 1e6 / max(e.decode_us, 1)


def stats(model):
    s = Stats()
    L.hearth_model_get_stats(model, c.byref(s))
    return s.n_guessed, s.n_accepted, s.n_generated


for path in args.models:
    bp, mp, box, model = BoxParams(), ModelParams(), P(), P()
    L.hearth_box_init(c.byref(bp))
    good(L.hearth_box_open(c.byref(bp), c.byref(box)))
    L.hearth_model_init(c.byref(mp))
    mp.draft = args.draft.encode() if args.draft else None
    good(L.hearth_model_open(box, path.encode(), c.byref(mp), c.byref(model)))
    print(f'{os.path.basename(path)}, temperature {args.temp:g}, {args.tokens} tokens\n'
          f'{"":12}{"without":>10}{"with":>10}{"ratio":>8}{"guessed":>10}{"right":>8}   tok/s; per token of the answer')
    for kind, text in PROMPTS.items():
        if args.only and kind not in args.only.split(','):
            continue
        body = json.dumps({'messages': [{'role': 'user', 'content': text}]}).encode()
        ids, n = (I * 8192)(), c.c_size_t(8192)
        good(L.hearth_chat_tokens(model, body, c.c_size_t(len(body)), ids, c.byref(n)))
        ids = (I * n.value)(*ids[:n.value])
        speed, texts, counts = {0: [], 1: []}, [], [0, 0, 0]
        for _ in range(args.rounds):
            for on in (0, 1):
                before = stats(model)
                got, tok_s = answer(model, ids, on)
                texts.append(got)
                speed[on].append(tok_s)
                if on:
                    counts = [a + y - x for a, x, y in zip(counts, before, stats(model))]
        if any(t != texts[0] for t in texts):
            raise SystemExit(f'{kind}: answers differ')
        off, on = statistics.median(speed[0]), statistics.median(speed[1])
        print(f'{kind:12}{off:10.1f}{on:10.1f}{on / off:8.2f}{counts[0] / counts[2]:10.2f}{counts[1] / counts[2]:8.2f}   prompt {len(ids)}, answer {len(texts[0])}', flush=True)
    L.hearth_model_close(model)
    L.hearth_box_close(box)
