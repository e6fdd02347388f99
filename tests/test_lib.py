#!/usr/bin/env python3
"""test_lib.py LIBHEARTH.so MODEL.gguf [TINY.gguf]: the public library, driven through ctypes.

Batches, choices, stop texts, limits, cancelling, determinism. Prints 'N passed, N failed'."""
import ctypes as c
import json
import os
import re
import select
import subprocess
import sys
import tempfile
import threading
import time

import checks

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), 'tools'))
import gguf_file  # noqa: E402

so, model_path = sys.argv[1:3]
L = c.CDLL(so)


class BoxParams(c.Structure):
    _fields_ = [('size', c.c_size_t), ('n_thread', c.c_int32), ('isa', c.c_char_p), ('memory_bytes', c.c_uint64)]


class ModelParams(c.Structure):
    _fields_ = [('size', c.c_size_t), ('n_ctx', c.c_int32), ('n_parallel', c.c_int32), ('n_queue', c.c_int32), ('n_batch', c.c_int32),
                ('kv', c.c_char_p), ('draft', c.c_char_p), ('progress', c.c_void_p), ('progress_arg', c.c_void_p), ('extra_bytes', c.c_uint64), ('checks_all', c.c_int32)]


class Bias(c.Structure):
    _fields_ = [('token', c.c_int32), ('bias', c.c_float)]


class RequestParams(c.Structure):
    _fields_ = [('size', c.c_size_t), ('tokens', c.POINTER(c.c_int32)), ('n_token', c.c_size_t), ('max_tokens', c.c_int32), ('n_choice', c.c_int32),
                ('temperature', c.c_float), ('top_k', c.c_int32), ('top_p', c.c_float), ('min_p', c.c_float), ('typical_p', c.c_float),
                ('repeat_penalty', c.c_float), ('presence_penalty', c.c_float), ('frequency_penalty', c.c_float), ('repeat_last_n', c.c_int32),
                ('seed', c.c_uint64), ('bias', c.POINTER(Bias)), ('n_bias', c.c_size_t), ('n_logprob', c.c_int32), ('stop', c.POINTER(c.c_char_p)),
                ('n_stop', c.c_size_t), ('ignore_eos', c.c_int32), ('show_special', c.c_int32), ('timeout_us', c.c_uint64), ('n_made_up', c.c_int32), ('no_guesses', c.c_int32)]


class Event(c.Structure):
    _fields_ = [('size', c.c_size_t), ('kind', c.c_int), ('choice', c.c_int32), ('text', c.POINTER(c.c_char)), ('n_text', c.c_size_t), ('token', c.c_int32),
                ('logprob', c.c_float), ('n_top', c.c_int32), ('top', c.POINTER(Bias)), ('finish', c.c_int), ('n_prompt', c.c_int32),
                ('n_generated', c.c_int32), ('queue_us', c.c_uint64), ('prefill_us', c.c_uint64), ('decode_us', c.c_uint64), ('error', c.c_char_p)]


class Stats(c.Structure):
    _fields_ = [('size', c.c_size_t), ('is_ready', c.c_int32), ('heartbeat_age_us', c.c_uint64), ('disk_read_bytes', c.c_uint64), ('disk_used_bytes', c.c_uint64),
                ('n_running', c.c_int32), ('n_queued', c.c_int32),
                ('n_request', c.c_uint64), ('n_done', c.c_uint64), ('n_cancelled', c.c_uint64), ('n_refused', c.c_uint64), ('n_failed', c.c_uint64),
                ('n_prompt_token', c.c_uint64), ('n_generated_token', c.c_uint64), ('n_guessed_token', c.c_uint64),
                ('n_accepted_token', c.c_uint64), ('n_step', c.c_uint64), ('n_step_abandoned', c.c_uint64), ('step_batch', c.c_uint64 * 9),
                ('kv_pages', c.c_uint64), ('kv_pages_used', c.c_uint64), ('memory_planned_bytes', c.c_uint64), ('rss_peak_bytes', c.c_uint64)]


L.hearth_error.restype = c.c_char_p
OK, USAGE, NOT_FOUND, MEMORY, LIMIT, BUSY = 0, 2, 3, 4, 11, 75


def check(what, good, detail=''):
    return checks.check(what, good, (detail, L.hearth_error().decode()))


def box(**k):
    p, b = BoxParams(), c.c_void_p()
    L.hearth_box_init(c.byref(p))
    for n, v in k.items():
        setattr(p, n, v)
    return L.hearth_box_open(c.byref(p), c.byref(b)), b


def open_model(b, path, **k):
    p, m = ModelParams(), c.c_void_p()
    L.hearth_model_init(c.byref(p))
    for n, v in k.items():
        setattr(p, n, v)
    return L.hearth_model_open(b, path.encode(), c.byref(p), c.byref(m)), m


def tokens_of(m, text):
    ids, n = (c.c_int32 * 8192)(), c.c_size_t(8192)
    j = json.dumps({'messages': [{'role': 'user', 'content': text}]}).encode()
    assert L.hearth_chat_tokens(m, j, len(j), ids, c.byref(n)) == OK, L.hearth_error()
    return list(ids[:n.value])


def submit(m, tokens, **k):
    p, r = RequestParams(), c.c_void_p()
    L.hearth_request_init(c.byref(p))
    arr = (c.c_int32 * max(1, len(tokens)))(*tokens)
    p.tokens, p.n_token = arr, len(tokens)
    stop = k.pop('stop', [])
    if stop:
        p.stop, p.n_stop = (c.c_char_p * len(stop))(*[s.encode() for s in stop]), len(stop)
    bias = k.pop('bias', {})
    if bias:
        p.bias, p.n_bias = (Bias * len(bias))(*[Bias(t, b) for t, b in bias.items()]), len(bias)
    for n, v in k.items():
        setattr(p, n, v)
    return L.hearth_submit(m, c.byref(p), c.byref(r)), r


def drain(r, limit_s=120):
    """(text by choice, tokens by choice, finish by choice, the END event, logprobs of choice 0)"""
    text, toks, fin, lps, e, end = {}, {}, {}, [], Event(), time.time() + limit_s
    while time.time() < end:
        s = L.hearth_next(r, c.c_uint64(100000), c.byref(e))
        if s == BUSY:
            continue
        assert s == OK, (s, L.hearth_error())
        if e.kind == 2:
            out = Event.from_buffer_copy(e)
            L.hearth_request_close(r)
            return {k: b''.join(v).decode() for k, v in text.items()}, toks, fin, out, lps
        text.setdefault(e.choice, []).append(c.string_at(e.text, e.n_text))
        if e.kind == 0:
            toks.setdefault(e.choice, []).append(e.token)
            if e.choice == 0:
                lps.append((e.logprob, [(e.top[i].token, e.top[i].bias) for i in range(e.n_top)]))
        else:
            fin[e.choice] = e.finish
    raise SystemExit('no end event')


def size_of(struct, init):
    room = c.create_string_buffer(4096)
    init(room)
    return struct.from_buffer(room).size


def is_silent(m):
    """Nothing polls readable while no request is there; what came before may still be under way at the first look."""
    for _ in range(3):
        L.hearth_fd_clear(m)
        if not select.select([L.hearth_fd(m)], [], [], 0.3)[0]:
            return True
    return False


def wait_for(m, cond):
    st, end = Stats(), time.time() + 60
    while time.time() < end:
        L.hearth_model_get_stats(m, c.byref(st))
        if cond(st):
            return st
        time.sleep(0.002)
    raise SystemExit('the engine does not get there')


def abandon(b, short, greedy, want):
    """The first long prompts of a model, of which no speed is known yet: their steps count only when they were computed to the end."""
    long = (short * 200)[:4000]
    s, m = open_model(b, model_path, n_ctx=4096, n_parallel=2, n_batch=4096)
    r = submit(m, long)[1]
    wait_for(m, lambda st: st.kv_pages_used > 0)
    L.hearth_cancel(r)
    check('a cancelled prompt ends so', drain(r)[3].finish == 3)
    check('its step was abandoned', [(st.n_prompt_token, st.n_step_abandoned) for st in [wait_for(m, lambda st: st.n_running == 0)]] == [(0, 1)])
    check('a late prompt ends so', drain(submit(m, long, timeout_us=100000)[1])[3].finish == 4)
    check('its step was abandoned too', wait_for(m, lambda st: st.n_running == 0).n_step_abandoned == 2)
    beside = submit(m, short, **greedy)[1]
    for _ in range(8):
        r = submit(m, long)[1]
        wait_for(m, lambda st: st.n_running == 2 or st.n_done > 0)
        L.hearth_request_close(r)
    check('who answers beside abandoned steps gets the same tokens', drain(beside)[1] == want)
    L.hearth_model_close(m)


def first_layers(path, n):
    """The model cut down to its first layers, which guesses in a fraction of the time, if badly."""
    model = gguf_file.Model.parse(open(model_path, 'rb').read())
    model.get(b'llama.block_count').value = n
    model.tensors = [t for t in model.tensors if not t.name.startswith(b'blk.') or int(t.name.split(b'.')[1]) < n]
    open(path, 'wb').write(model.pack())


def repeats(ids, n_prompt):
    """Whether a pair of neighbours in the answer has stood before: only then guesses come from the text itself."""
    pairs = list(zip(ids, ids[1:]))
    return any(p in pairs[:i] for i, p in enumerate(pairs) if i >= n_prompt - 1)


def draft(b):
    with tempfile.TemporaryDirectory() as folder:
        small = folder + '/small.gguf'
        first_layers(small, 3)
        answers, counts = [], []
        for k in ({}, {'draft': small.encode()}):
            s, m = open_model(b, model_path, n_ctx=512, **k)
            check('opens', s == OK)
            ids = tokens_of(m, 'Tell me about the sea.')
            for _ in range(4):  # what it measures in the first may keep it from guessing on a busy machine
                text, toks, _, _, lps = drain(submit(m, ids, max_tokens=40, temperature=1.0, seed=5, n_logprob=1)[1])
                answers.append((text, toks, lps))
            counts.append(wait_for(m, lambda st: st.n_running == 0).n_guessed_token)
            L.hearth_model_close(m)
        check('a draft model changes no bit', all(a == answers[0] for a in answers) and len(answers[0][2]) == 40)
        check('it guesses where nothing repeats', not repeats(ids + answers[0][1][0], len(ids)) and counts[0] == 0 and counts[1] > 0, counts)


def main():
    check('status of a bad instruction set', box(isa=b'mmx')[0] == USAGE)
    check('a struct of another size is refused', box(size=8)[0] == USAGE and b'hearth_box_init' in L.hearth_error())
    s, b = box(n_thread=2)
    check('the structs here are those of the library', all(size_of(*x) == c.sizeof(x[0]) for x in (
        (BoxParams, L.hearth_box_init), (ModelParams, L.hearth_model_init), (RequestParams, L.hearth_request_init))))
    check('box opens', s == OK)
    check('missing file', open_model(b, '/nonexistent.gguf')[0] == NOT_FOUND)
    check('too large a context is refused', open_model(b, model_path, n_ctx=1 << 20)[0] == LIMIT)
    check('too long a queue is refused before the model is read', open_model(b, model_path, n_queue=(1 << 31) - 1)[0] == USAGE)
    check('too many at once are refused before the model is read', open_model(b, model_path, n_parallel=(1 << 31) - 1)[0] == USAGE)
    check('what the caller takes beside the model counts', open_model(b, model_path, extra_bytes=1 << 50)[0] == MEMORY and b'needs 1075' in L.hearth_error())  # with page tables
    check('extra_bytes cannot overflow the sum', open_model(b, model_path, extra_bytes=(1 << 64) - 1)[0] == LIMIT)
    other = os.path.join(os.path.dirname(model_path), '..', 'zoo', 'llama.gguf')
    check('a draft model of another vocabulary is refused', open_model(b, model_path, n_ctx=256, draft=other.encode())[0] == USAGE and b'vocabulary' in L.hearth_error())
    check('a draft model must be there', open_model(b, model_path, draft=b'/nonexistent.gguf')[0] == NOT_FOUND)
    draft(b)
    s, m = open_model(b, model_path, n_ctx=512)
    need = wait_for(m, lambda st: st.is_ready).memory_planned_bytes
    L.hearth_model_close(m)
    s, tight = box(n_thread=2, memory_bytes=need + (30 << 20))
    s, m = open_model(tight, model_path, n_ctx=512)
    check('a model that fits', s == OK)
    L.hearth_model_close(m)
    check('with its draft model it does not', open_model(tight, model_path, n_ctx=512, draft=model_path.encode())[0] == MEMORY and
          b'with its draft model needs' in L.hearth_error() and b'no draft model' in L.hearth_error(), L.hearth_error())
    L.hearth_box_close(tight)
    sizes = []
    for _ in range(4):
        L.hearth_model_close(open_model(b, model_path, n_ctx=512, draft=model_path.encode())[1])
        sizes.append(int(re.search(r'VmSize:\s+(\d+)', open('/proc/self/status').read()).group(1)))
    check('no address space is lost with a draft model', sizes[3] - sizes[1] < 50 << 10, sizes)
    s, small = box(n_thread=1, memory_bytes=50 << 20)
    check('a model beyond the limit is refused with numbers', open_model(small, model_path)[0] == MEMORY and b'MiB' in L.hearth_error())
    s, m = open_model(b, model_path, n_ctx=1024, n_parallel=4, n_queue=8, n_batch=128)
    check('model opens', s == OK)

    prompts = [tokens_of(m, t) for t in ('What is the capital of France?', 'Write a haiku about the sea.', 'List three fruits.', 'Count to ten. ' * 30)]
    greedy = dict(temperature=0.0, max_tokens=40)
    solo = [drain(submit(m, p, **greedy)[1]) for p in prompts]
    check('greedy answers are not empty', all(len(x[1][0]) > 0 for x in solo))
    again = drain(submit(m, prompts[0], **greedy)[1])
    check('the same request gives the same tokens', again[1] == solo[0][1])
    reqs = [submit(m, p, **greedy)[1] for p in prompts]
    together = [drain(r) for r in reqs]
    check('alone = in a batch of four', [x[1] for x in together] == [x[1] for x in solo])
    st = Stats()
    L.hearth_model_get_stats(m, c.byref(st))
    check('several sequences ran in one step', st.step_batch[1] + st.step_batch[2] > 0)
    check('all pages came back', st.kv_pages_used == 0)
    check('ready and alive', st.is_ready == 1 and st.heartbeat_age_us < 1000000)

    check('an idle engine wakes nobody', is_silent(m))

    hot = dict(temperature=1.2, top_k=50, max_tokens=30, seed=7)
    a, bb = drain(submit(m, prompts[1], **hot)[1]), drain(submit(m, prompts[1], **hot)[1])
    check('seeded sampling repeats', a[1] == bb[1])
    check('another seed differs', drain(submit(m, prompts[1], **{**hot, 'seed': 8})[1])[1] != a[1])
    many = drain(submit(m, prompts[1], n_choice=3, **hot)[1])
    check('three choices, all ended', sorted(many[2]) == [0, 1, 2] and len({tuple(v) for v in many[1].values()}) > 1)
    check('choice 0 is the request with one choice', many[1][0] == a[1][0])
    check('usage counts all choices', many[3].n_generated == sum(len(v) for v in many[1].values()) and many[3].n_prompt == len(prompts[1]))

    full = drain(submit(m, prompts[2], **greedy)[1])[0][0]
    cut = full[8:14]
    stopped = drain(submit(m, prompts[2], stop=[cut], **greedy)[1])
    check('ends before a stop text', stopped[0][0] == full[:full.index(cut)] and stopped[2][0] == 1, repr((stopped[0][0], cut)))
    lp = drain(submit(m, prompts[0], n_logprob=5, **greedy)[1])
    check('log probabilities', lp[1] == solo[0][1] and all(len(t) == 5 and abs(t[0][1] - p) < 1e-6 and t[0][1] >= t[1][1] and p <= 0 for p, t in lp[4]))
    banned = drain(submit(m, prompts[0], bias={solo[0][1][0][0]: -100.0}, **greedy)[1])
    check('logit bias bans a token', banned[1][0][0] != solo[0][1][0][0])
    free = drain(submit(m, prompts[0], ignore_eos=1, temperature=0.0, max_tokens=200)[1])
    check('ignore-eos goes on to the limit', len(free[1][0]) == 200 and free[2][0] == 2)

    r, e = submit(m, prompts[3], **greedy)[1], Event()
    check('waits without a limit', L.hearth_next(r, c.c_uint64(2**64 - 1), c.byref(e)) == OK)
    drain(r)
    check('an empty prompt is refused', submit(m, [])[0] == USAGE)
    s, _ = submit(m, [1] * 2000)
    check('a prompt that does not fit is refused with both numbers', s == LIMIT and b'2000' in L.hearth_error() and b'1024' in L.hearth_error())
    check('a bad token is refused', submit(m, [1 << 30])[0] == USAGE)
    check('a request of another size is refused', submit(m, [1], size=8)[0] == USAGE)
    check('a bad temperature is refused', submit(m, [1], temperature=float('nan'))[0] == USAGE)
    check('too many choices are refused', submit(m, [1], n_choice=5)[0] == LIMIT)
    filled = drain(submit(m, prompts[3], ignore_eos=1, temperature=0.0)[1])
    check('an answer ends where the context does', filled[3].n_prompt + filled[3].n_generated == 1024 and filled[2][0] == 2)

    statuses, long = zip(*[submit(m, prompts[0], ignore_eos=1) for _ in range(12)])
    check('four run and eight wait', set(statuses) == {OK}, str(statuses))
    s, _ = submit(m, prompts[0])
    check('a full queue says busy, with numbers', s == BUSY and b'12 requests run or wait; room is for 4 at once and 8' in L.hearth_error())
    begin = time.time()
    for r in long:
        L.hearth_cancel(r)
    ended = [drain(r) for r in long]
    ends = [x[3].finish for x in ended]
    check('cancelled requests have no ends of choices', not any(x[2] for x in ended))
    check('cancelled requests end soon', set(ends) == {3} and time.time() - begin < 1.0, str(ends))
    r = submit(m, prompts[0], ignore_eos=1)[1]
    L.hearth_request_close(r)
    time.sleep(0.3)
    L.hearth_model_get_stats(m, c.byref(st))
    check('a closed request leaves nothing', st.kv_pages_used == 0 and st.n_running == 0)
    late = drain(submit(m, prompts[0], ignore_eos=1, timeout_us=50000)[1])
    check('a time limit is kept', late[3].finish == 4)

    slow = submit(m, prompts[1], ignore_eos=1, temperature=0.0, max_tokens=300)[1]
    time.sleep(0.5)
    quick = drain(submit(m, prompts[0], **greedy)[1])
    check('a reader that does not read delays only itself', quick[1] == solo[0][1])
    check('and gets everything later', len(drain(slow)[1][0]) == 300)

    results = {}

    def client(i):
        results[i] = drain(submit(m, prompts[i % 4], **greedy)[1])[1]
    ts = [threading.Thread(target=client, args=(i,)) for i in range(8)]
    [t.start() for t in ts]
    [t.join() for t in ts]
    check('eight threads of clients, each equal to its solo run', all(results[i] == solo[i % 4][1] for i in range(8)))
    L.hearth_model_close(m)
    abandon(b, prompts[0], greedy, solo[0][1])
    check('planned memory covers the peak', plan_covers(b))
    L.hearth_box_close(b)
    checks.finish()


def plan_covers(b):
    """A real run's peak lies within 5 % of its plan (measured in a fresh process: this one has Python in it)."""
    hearth = os.path.join(os.path.dirname(os.path.abspath(so)), 'hearth')
    worst = 0.0
    for args in (['--ctx', '2048'], ['--ctx', '4096', '--kv', 'q8_0'], ['--ctx', '8192', '--threads', '1']):
        plan = json.loads(subprocess.run([hearth, 'plan', model_path, '--json', *args], stdout=subprocess.PIPE).stdout)
        run = json.loads(subprocess.run([hearth, 'run', model_path, 'Hello', '--max-tokens', '8', '--json', *args], stdout=subprocess.PIPE, stdin=subprocess.DEVNULL).stdout)
        off = run['rss_peak_bytes'] / plan['total_bytes'] - 1
        worst = max(worst, abs(off))
        print(f'plan {plan["total_bytes"] / 1e6:.1f} MB, peak {run["rss_peak_bytes"] / 1e6:.1f} MB, {100 * off:+.2f} %  {args}')
    return worst < 0.05


for name in ('hearth_submit', 'hearth_model_open', 'hearth_next'):
    getattr(L, name).restype = c.c_int
main()
