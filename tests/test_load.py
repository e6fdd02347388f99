#!/usr/bin/env python3
"""test_load.py --hearth BIN --model FILE [--clients 64] [--seconds 300] [--seed N] | --throughput: many clients at once.

Each client asks one thing after another out of a fixed list, streaming or not, and sometimes hangs up in the middle. Every
answer that ends is compared with the same answer computed alone, before. A process of its own asks /healthz every 20 ms over
one connection: it is answered while others wait, whatever they ask for. In the end nothing may be left: memory, descriptors, pages, requests.
--throughput: tokens per second of one client and of eight at once. The last line reads 'N passed, N failed, N skipped'."""
import argparse
import concurrent.futures
import http.client
import json
import multiprocessing
import os
import random
import socket
import sys
import threading
import time

from served import Served, ask, metrics

TOPICS = ['the sea', 'iron', 'bread', 'a lighthouse', 'winter', 'the moon', 'an owl', 'Paris', 'glass', 'rain', 'a bridge', 'honey', 'trains', 'a desert', 'clocks', 'wolves', 'ink', 'salt', 'a harp',
          'maps']
STEP_S, LONG_S = 0.02, 0.5
PASSED, FAILED = [], []


def check(what, good, detail=''):
    (PASSED if good else FAILED).append(what)
    print(f'{"ok    " if good else "FAILED"} {what}{": " + str(detail) if detail != "" else ""}', flush=True)


def asks():
    """The list: 40 requests, chat and text, greedy and with a seed, of very different lengths."""
    out = []
    for i, topic in enumerate(TOPICS):
        sampling = {'temperature': 0} if i % 3 == 0 else {'temperature': 0.8, 'top_p': 0.95, 'seed': i}
        text = f'Write about {topic}. ' * (1 + i * i % 13)
        out.append(('/v1/chat/completions', {'messages': [{'role': 'user', 'content': text}], 'max_tokens': 8 + 88 * i // 19, **sampling}))
        out.append(('/v1/completions', {'prompt': f'What I know about {topic} is that', 'max_tokens': 96 - 88 * i // 19, **sampling}))
    return out


def text_of(path, choice):
    return choice['message']['content'] if 'chat' in path else choice['text']


class Client(threading.Thread):
    """One client: asks, compares, hangs up now and then, comes again after 503."""

    def __init__(self, server, rows, want, until, seed):
        super().__init__(daemon=True)
        self.server, self.rows, self.want, self.until = server, rows, want, until
        self.random = random.Random(seed)
        self.n = {'whole': 0, 'streamed': 0, 'cancelled': 0, 'busy': 0, 'tokens': 0}
        self.wrong, self.spans = [], []

    def run(self):
        while time.monotonic() < self.until:
            i = self.random.randrange(len(self.rows))
            begin, n = time.monotonic(), self.n['whole'] + self.n['streamed']
            try:
                self.one(i)
                if self.n['whole'] + self.n['streamed'] > n:
                    self.spans.append((begin, time.monotonic()))
            except (OSError, http.client.HTTPException, ValueError, KeyError) as e:
                self.wrong.append(f'request {i}: {type(e).__name__} {e}')
                time.sleep(0.1)

    def one(self, i):
        path, body = self.rows[i]
        stream = self.random.random() < 0.6
        leaves_s = self.random.expovariate(1 / 1.5) if self.random.random() < 0.25 else None
        c = http.client.HTTPConnection('127.0.0.1', self.server.port, timeout=300)
        c.request('POST', path, json.dumps({**body, 'stream': stream}), {'Content-Type': 'application/json'})
        if leaves_s is not None and not stream:
            c.sock.settimeout(leaves_s)
        try:
            r = c.getresponse()
        except TimeoutError:
            self.n['cancelled'] += 1
            c.close()
            return
        if r.status == 503:
            self.n['busy'] += 1
            r.read()
            c.close()
            time.sleep(self.random.uniform(0.05, 0.4))
            return
        if r.status != 200:
            self.wrong.append(f'request {i}: status {r.status}: {r.read()[:300]}')
        elif stream:
            self.read_stream(i, r, None if leaves_s is None else time.monotonic() + leaves_s)
        else:
            x = json.loads(r.read())['choices'][0]
            self.compare(i, text_of(path, x), x['finish_reason'])
            self.n['whole'] += 1
        r.close()
        c.close()

    def read_stream(self, i, r, leave_at):
        text, finish, done = [], None, False
        for line in r:
            if leave_at is not None and time.monotonic() > leave_at:
                self.n['cancelled'] += 1
                return
            if not line.startswith(b'data: '):
                continue
            if line == b'data: [DONE]\n':
                done = True
                continue
            x = json.loads(line[6:])['choices'][0]
            text.append((x['delta'].get('content') if 'delta' in x else x['text']) or '')
            finish = x['finish_reason'] or finish
        if not done:
            self.wrong.append(f'request {i}: the stream broke off')
            return
        self.compare(i, ''.join(text), finish)
        self.n['streamed'] += 1

    def compare(self, i, text, finish):
        if (text, finish) != self.want[i]:
            self.wrong.append(f'request {i}: {text!r} {finish}, alone {self.want[i]!r}')


def answer_always(listener):
    """In a process of its own: an endpoint that has nothing else to do, for how long an answer takes on this box now."""
    k, _ = listener.accept()
    k.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    while k.recv(4096):
        k.sendall(b'HTTP/1.1 200 OK\r\n\r\n{"status":"ok"}')


def ask_once(k, request):
    """The answer, b'' when there is none, and when it was asked for and came."""
    begin = time.monotonic()
    try:
        k.sendall(request)
        data = k.recv(4096)
        while b'"ok"}' not in data and data:
            more = k.recv(4096)
            if not more:
                break
            data += more
    except OSError:
        data = b''
    return data, (begin, time.monotonic())


def watch_health(port, idle_port, stop, result):
    """In a process of its own: /healthz over one bare connection, and the idle endpoint after each; sends when they were asked and came."""
    os.nice(-5) if os.geteuid() == 0 else None
    request = b'GET /healthz HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n'
    spans, idle, bad, connections = [], [], 0, 0
    k, due = None, time.monotonic()
    i = socket.create_connection(('127.0.0.1', idle_port), 10)
    i.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    while not stop.is_set():
        due += STEP_S
        time.sleep(max(0.0, due - time.monotonic()))
        due = max(due, time.monotonic() - STEP_S)
        if k is None:
            k = socket.create_connection(('127.0.0.1', port), 10)
            k.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            connections += 1
        data, span = ask_once(k, request)
        spans.append(span)
        idle.append(ask_once(i, request)[1])
        if not data.startswith(b'HTTP/1.1 200'):
            bad += 1
            k.close()
            k = None
    result.send((spans, idle, bad, connections))


def quantile(values, q):
    return sorted(values)[min(len(values) - 1, int(q * len(values)))]


def rss_mb(server):
    with open(f'/proc/{server.pid}/status') as f:
        return next(int(x.split()[1]) / 1024 for x in f if x.startswith('VmRSS'))


def descriptors(server):
    return len(os.listdir(f'/proc/{server.pid}/fd'))


def wait_quiet(server, limit_s=10):
    """The numbers of /metrics once nothing runs."""
    until = time.monotonic() + limit_s
    while True:
        m = metrics(server)
        if (m['hearth_requests_running'], m['hearth_requests_queued'], m['hearth_kv_cache_usage_ratio']) == (0, 0, 0) or time.monotonic() > until:
            return m


def wait_descriptors(server, want, limit_s=5):
    until = time.monotonic() + limit_s
    while descriptors(server) != want and time.monotonic() < until:
        time.sleep(0.05)
    return descriptors(server)


def judge_health(health, idle, bad, connections, answers):
    """It waits for no job: an answer of it begins and ends within each long one, and it comes about as fast as one of an endpoint that has nothing else
    to do, on a box that is as busy."""
    times, control = ([1e3 * (end - begin) for begin, end in x] for x in (health, idle))
    for name, x in (('/healthz', times), ('an idle endpoint', control)):
        print(f'{name}: {len(x)} times, median {quantile(x, .5):.2f} ms, p90 {quantile(x, .9):.2f} ms, p99 {quantile(x, .99):.2f} ms, max {max(x):.2f} ms', flush=True)
    check('/healthz is answered each time, on one connection', bad == 0 and connections == 1, f'{bad} bad, {connections} connections')
    for q, least in ((.5, .3), (.9, 1)):
        most = 10 * max(quantile(control, q), least)
        check(f'/healthz is about as fast as an idle endpoint, {q:.0%}', quantile(times, q) <= most, f'{quantile(times, q):.1f} of {most:.1f} ms')
    long = sorted(x for x in answers if x[1] - x[0] >= LONG_S)
    without = [x for x in long if not any(x[0] <= begin and end <= x[1] for begin, end in health)]
    check('/healthz is answered while others wait', long and not without, f'{len(without)} of {len(long)} answers that took {LONG_S} s or more saw none')


def load(a):
    rows = asks()
    with Served(a.hearth, a.model, '--max-clients', str(max(256, 2 * a.clients))) as s:
        begin = time.monotonic()
        want = {}
        for i, (path, body) in enumerate(rows):
            x = ask(s, 'POST', path, body).body['choices'][0]
            want[i] = text_of(path, x), x['finish_reason']
        print(f'{len(rows)} answers alone in {time.monotonic() - begin:.1f} s', flush=True)
        fd_start, before = wait_descriptors(s, -1, 0.3), metrics(s)
        stop = multiprocessing.Event()
        mine, theirs = multiprocessing.Pipe(duplex=False)
        listener = socket.create_server(('127.0.0.1', 0))
        multiprocessing.Process(target=answer_always, args=(listener,), daemon=True).start()
        health = multiprocessing.Process(target=watch_health, args=(s.port, listener.getsockname()[1], stop, theirs), daemon=True)
        begin = time.monotonic()
        clients = [Client(s, rows, want, begin + a.seconds, a.seed * 1000 + i) for i in range(a.clients)]
        health.start()
        for c in clients:
            c.start()
        time.sleep(a.seconds / 4)
        rss_quarter, peak_quarter = rss_mb(s), metrics(s)['hearth_memory_peak_bytes'] / 2 ** 20
        time.sleep(max(0.0, begin + a.seconds - time.monotonic()))
        rss_end = rss_mb(s)
        for c in clients:
            c.join(300)
        took_s = time.monotonic() - begin
        stop.set()
        seen = mine.recv()
        health.join()
        after = wait_quiet(s)
        report(a, s, clients, (before, after), took_s)
        wrong = [x for c in clients for x in c.wrong]
        n = sum(c.n['whole'] + c.n['streamed'] for c in clients)
        check('all clients came to their end', not any(c.is_alive() for c in clients))
        check('answers were given', n >= a.clients and all(sum(c.n[k] for c in clients) > 0 for k in ('whole', 'streamed', 'cancelled')), n)
        check('no wrong answer', not wrong, '\n'.join(wrong[:5]) if wrong else f'{n} equal to the same alone')
        judge_health(*seen, [x for c in clients for x in c.spans])
        check('memory is flat', rss_end - rss_quarter <= max(8, rss_quarter * 0.02), f'{rss_quarter:.1f} MiB (peak {peak_quarter:.1f}) at a quarter, {rss_end:.1f} MiB at the end')
        check('nothing runs, waits or holds pages', (after['hearth_requests_running'], after['hearth_requests_queued'], after['hearth_kv_cache_usage_ratio']) == (0, 0, 0))
        fd_end = wait_descriptors(s, fd_start)
        check('descriptors as at the start', fd_end == fd_start, f'{fd_start}, {fd_end}')
        code = s.end()
        check('exit code', code == 0, code)


GONE = 'cancelled_total{reason="client"}'


def report(a, s, clients, numbers, took_s):
    before, after = numbers
    total = {k: sum(c.n[k] for c in clients) for k in clients[0].n}
    moved = {k.removeprefix('hearth_'): int(after[k] - before.get(k, 0)) for k in after if k.endswith('_total') or 'decode_steps_total' in k or 'cancelled_total' in k}
    print(f'{a.clients} clients, {took_s:.1f} s: {total["whole"]} whole and {total["streamed"]} streamed answers, {total["cancelled"]} hung up, {total["busy"]} times 503')
    print(f'{moved["generation_tokens_total"]} tokens generated ({moved["generation_tokens_total"] / took_s:.0f}/s), {moved["prompt_tokens_total"]} of prompts; cancelled {moved["requests_cancelled_total"]}, '
          f'failed {moved["requests_failed_total"]}, clients gone {moved[GONE]}')
    print('decode steps by conversations in the batch: ' + ', '.join(f'{k[k.index("=") + 2:-2]}: {v}' for k, v in moved.items() if 'decode_steps' in k), flush=True)
    check('no request failed', moved['requests_failed_total'] == 0)


def throughput(a):
    body = {'temperature': 0, 'max_tokens': 128, 'ignore_eos': True}

    def one(server, i):
        r = ask(server, 'POST', '/v1/chat/completions', {**body, 'messages': [{'role': 'user', 'content': f'Write about {TOPICS[i]}.'}]}).body
        return r['usage']['completion_tokens']
    with Served(a.hearth, a.model) as s:
        one(s, 0)
        best = {1: 0.0, 8: 0.0}
        for _ in range(3):
            for n in best:
                begin = time.monotonic()
                with concurrent.futures.ThreadPoolExecutor(n) as pool:
                    tokens = sum(pool.map(lambda i: one(s, i), range(n)))
                best[n] = max(best[n], tokens / (time.monotonic() - begin))
        print(f'tokens per second, best of 3 in turns: 1 client {best[1]:.0f}, 8 clients {best[8]:.0f}, ratio {best[8] / best[1]:.2f}')
        check('eight clients get at least twice what one gets', best[8] >= 2 * best[1], f'{best[8] / best[1]:.2f}')
        check('exit code', s.end() == 0)


def main():
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument('--hearth', required=True)
    ap.add_argument('--model', required=True)
    ap.add_argument('--clients', type=int, default=64)
    ap.add_argument('--seconds', type=float, default=300)
    ap.add_argument('--seed', type=int, default=1)
    ap.add_argument('--throughput', action='store_true')
    a = ap.parse_args()
    throughput(a) if a.throughput else load(a)
    print(f'{len(PASSED)} passed, {len(FAILED)} failed, 0 skipped')
    sys.exit(1 if FAILED else 0)


if __name__ == '__main__':
    main()
