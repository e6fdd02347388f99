"""api_flood - hundreds of requests at once, of all sizes, some impossible, some cancelled: how each ends, and what is left; run by test_api.py."""
import http.client
import json
import random
import re
import socket
import threading
import time

from api_client import ARGS
from checks import check, same, test
from served import Served, ask, metrics, wait_metric

N, PARALLEL, QUEUE, CTX, BODY_MIB = 300, 4, 12, 512, 1
COMPLETE, CHAT, TOKENIZE = '/v1/completions', '/v1/chat/completions', '/tokenize'
WAIT_S, FLOOD_S = 60, 8


def text(rng, n_word):
    return ' '.join(rng.choice(('sea', 'iron', 'bread', 'winter', 'owl', 'glass', 'rain', 'clock')) for _ in range(n_word))


def kinds(rng):
    """(name, path, body, statuses that it may end with, whether its client leaves): one after another, so that each comes often."""
    busy = {200, 503}
    while True:
        few = {'max_tokens': rng.randrange(1, 25), 'ignore_eos': True}
        yield 'small', COMPLETE, {'prompt': text(rng, 4), **few}, busy, False
        yield 'several choices', COMPLETE, {'prompt': text(rng, 8), 'n': rng.randrange(2, PARALLEL + 1), **few}, busy, False
        yield 'chat as a stream', CHAT, {'messages': [{'role': 'user', 'content': text(rng, 20)}], 'stream': True, 'n': rng.randrange(1, 3), **few}, busy, False
        yield 'long prompt', COMPLETE, {'prompt': text(rng, 350), **few}, busy, False
        yield 'tokenize', TOKENIZE, {'content': text(rng, rng.randrange(1, 20000))}, busy, False
        yield 'more choices than run at once', COMPLETE, {'prompt': 'a', 'n': PARALLEL + 1, **few}, {400, 503}, False
        yield 'longer than the context', COMPLETE, {'prompt': text(rng, 3000), **few}, {400, 503}, False
        yield 'no JSON', COMPLETE, b'{"prompt": ', {400, 503}, False
        yield 'larger than a body may be', COMPLETE, b' ' * ((BODY_MIB << 20) + 1), {413, 503}, False
        yield 'leaves at once', COMPLETE, {'prompt': text(rng, 50), 'n': 2, 'max_tokens': 400, 'ignore_eos': True}, None, True
        yield 'leaves a stream', CHAT, {'messages': [{'role': 'user', 'content': 'hi'}], 'stream': True, 'max_tokens': 400, 'ignore_eos': True}, None, True


class Flooder(threading.Thread):
    """One request, sent when all are there, and again as long as it is refused. `end`: its status, or 'left'; `why`: what went wrong."""

    def __init__(self, s, gate, kind, rng):
        super().__init__(daemon=True)
        self.s, self.gate, self.leave_s, self.end, self.why, self.n_busy = s, gate, rng.choice((0.001, 0.05, 0.3, 1.0)), None, '', 0
        self.again_s = [rng.uniform(0.05, 0.4) for _ in range(100)]
        self.name_, self.path, self.body, self.may, self.leaves = kind

    def run(self):
        self.gate.wait()
        until = time.monotonic() + FLOOD_S
        try:
            self.one()
            while self.end == 503 and not self.why and time.monotonic() < until:
                time.sleep(self.again_s[self.n_busy % len(self.again_s)])
                self.n_busy += 1
                self.one()
        except (OSError, http.client.HTTPException, ValueError, KeyError) as e:
            self.why = f'{type(e).__name__}: {e}'

    def one(self):
        data = self.body if isinstance(self.body, bytes) else json.dumps(self.body).encode()
        c = http.client.HTTPConnection('127.0.0.1', self.s.port, timeout=WAIT_S * self.s.slack)
        try:
            c.request('POST', self.path, data, {'Content-Type': 'application/json'})
        except (BrokenPipeError, ConnectionResetError):
            pass  # refused before the body was read, whose answer may be there
        if self.leaves:
            c.sock.settimeout(self.leave_s)
            try:
                c.getresponse().read(100)
            except (TimeoutError, OSError):
                pass
            c.sock.shutdown(socket.SHUT_RDWR) if c.sock else None
            c.close()
            self.end = 'left'
            return
        r = c.getresponse()
        got = r.read()
        self.end = r.status
        c.close()
        self.judge(r, got)

    def judge(self, r, got):
        if r.status == 200 and self.path != TOKENIZE:
            self.judge_answer(got)
        elif r.status != 200:
            e = json.loads(got)['error']
            good = e['message'] and e['code'] and (r.status != 503 or (r.headers['Retry-After'] and re.search(r'\d', e['message'])))
            self.why = '' if good else f'{r.status}: {dict(r.headers)} {e}'

    def judge_answer(self, got):
        n = self.body.get('n', 1)
        if self.body.get('stream'):
            pieces = [json.loads(x[6:]) for x in got.decode().split('\n') if x.startswith('data: {')]
            ends = {c['index']: c['finish_reason'] for p in pieces for c in p['choices'] if c['finish_reason']}
            good = got.endswith(b'data: [DONE]\n\n') and ends == dict.fromkeys(range(n), 'length')
        else:
            j = json.loads(got)
            good = [c['finish_reason'] for c in j['choices']] == ['length'] * n and j['usage']['completion_tokens'] == n * self.body['max_tokens']
        self.why = '' if good else f'no whole answer: {got[-300:]}'


def by_kind(flood):
    out = {}
    for f in flood:
        ends = out.setdefault(f.name_, {})
        ends[f.end] = ends.get(f.end, 0) + 1
    return out


def bodies_at_once(k, n):
    """The statuses of n bodies of the largest size, none of which is JSON, and whose room is held by all of them at once."""
    text = b' ' * (BODY_MIB << 20)
    head = b'POST /tokenize HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\nContent-Length: %d\r\n\r\n' % len(text)
    all_ = [socket.create_connection(('127.0.0.1', k.port), WAIT_S * k.slack) for _ in range(n)]
    for c in all_:
        c.sendall(head + text[:-1])
    got = []
    for c in all_:
        c.sendall(text[-1:])
    for c in all_:
        got.append(int(c.recv(400)[9:12] or 0))
        while c.recv(65536):
            pass
        c.close()
    return got


@test
def flood(s):
    """Each ends with an answer, a refusal with numbers, or an error that is its own; memory keeps to the plan; then all is free."""
    rng = random.Random(7)
    with Served(ARGS.hearth, ARGS.model, '--parallel', str(PARALLEL), '--queue', str(QUEUE), '--ctx', str(CTX), '--max-body', str(BODY_MIB), '--max-clients', str(N + 20), slack=ARGS.slack) as k:
        gate = threading.Barrier(N)
        kind = kinds(rng)
        all_ = [Flooder(k, gate, next(kind), rng) for _ in range(N)]
        begin = time.monotonic()
        for f in all_:
            f.start()
        for f in all_:
            f.join(max(0.0, begin + WAIT_S * k.slack - time.monotonic()))
        print(f'    flood: {N} requests in {time.monotonic() - begin:.1f} s, {sum(f.n_busy for f in all_)} times sent again: {by_kind(all_)}', flush=True)
        bad = [(f.name_, f.end, f.why) for f in all_ if f.is_alive() or f.why or (f.end != 'left' if f.leaves else f.end not in f.may)]
        check('flood: each ends as it may', not bad, bad[:5])
        ends = by_kind(all_)
        check('flood: some are answered, some refused', sum(e.get(200, 0) for e in ends.values()) >= PARALLEL + QUEUE // 2 and any(f.n_busy for f in all_), ends)
        for name, value in (('requests_running', 0), ('requests_queued', 0), ('kv_cache_usage_ratio', 0), ('http_connections', 1)):
            check(f'flood: afterwards {name} is {value}', wait_metric(k, 'hearth_' + name, value, 30 * k.slack) is not None, metrics(k))
        m = metrics(k)
        if k.slack == 1.0:  # a sanitizer has memory of its own
            check('flood: memory stays within the plan', m['hearth_memory_peak_bytes'] <= m['hearth_memory_planned_bytes'], m)
        r = ask(k, 'POST', COMPLETE, {'prompt': 'a', 'n': PARALLEL, 'max_tokens': 3, 'ignore_eos': True})
        check('flood: all places are free again', r.status == 200 and r.body['usage']['completion_tokens'] == 3 * PARALLEL, r.data)
        got = bodies_at_once(k, 3)  # of the room for four the last quarter is for small ones
        same('flood: so is the room for bodies', got, [400] * 3)
        same('flood: ready', ask(k, 'GET', '/readyz').status, 200)
        same('flood: exit code', k.end(), 0)
