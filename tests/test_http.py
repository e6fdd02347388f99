#!/usr/bin/env python3
"""test_http.py --hearth BIN --model FILE: `hearth serve` against clients that are slow, broken, greedy or hostile.

Bare sockets only. Every talk ends with a request that is known to be good: either its answer comes, in its place, or the
connection was closed before it. --slack X makes all waiting X times longer (sanitizer builds). --only NAME[,NAME] runs tests by
name. The last line reads 'N passed, N failed, N skipped'."""
import argparse
import ctypes
import functools
import json
import os
import random
import re
import resource
import signal
import socket
import subprocess
import sys
import threading
import time

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from checks import check, finish, run_tests, same, test
from served import Served, ask, metrics, wait_metric

HOST = b'Host: 127.0.0.1\r\n'
GOOD = b'GET /version HTTP/1.1\r\n' + HOST + b'\r\n'
JSON = b'{"content":"a"}'
CLOSED = 'closed'


def post(body, path=b'/tokenize', headers=b''):
    return b'POST ' + path + b' HTTP/1.1\r\n' + HOST + headers + b'Content-Length: %d\r\n\r\n' % len(body) + body


def get(path=b'/healthz', headers=b'', version=b'HTTP/1.1'):
    return b'GET ' + path + b' ' + version + b'\r\n' + HOST + headers + b'\r\n'


def chunked(chunks, path=b'/tokenize'):
    return b'POST ' + path + b' HTTP/1.1\r\n' + HOST + b'Transfer-Encoding: chunked\r\n\r\n' + chunks


class Wire:
    """One connection, and the answers that come on it."""

    def __init__(self, s, data=b'', half=False, limit_s=60):
        self.k = socket.create_connection(('127.0.0.1', s.port), limit_s * s.slack)
        self.k.settimeout(limit_s * s.slack)
        self.data = b''
        self.send(data)
        if half:
            self.k.shutdown(socket.SHUT_WR)

    def send(self, data):
        try:
            self.k.sendall(data)
        except OSError:
            pass  # refused and closed in the middle: the answer tells

    def more(self):
        try:
            got = self.k.recv(65536)
        except ConnectionError:
            got = b''
        self.data += got
        return got != b''

    def reply(self):
        """(status, body) of the next answer, CLOSED when none comes."""
        while b'\r\n\r\n' not in self.data:
            if not self.more():
                return CLOSED if not self.data else ('cut', self.data[:200])
        head, self.data = self.data.split(b'\r\n\r\n', 1)
        status = int(head[9:12])
        if status == 100:
            return self.reply()
        lines = dict(x.lower().split(b': ', 1) for x in head.split(b'\r\n')[1:])
        if b'content-length' not in lines:
            return status, 'stream'
        n = int(lines[b'content-length'])
        while len(self.data) < n:
            if not self.more():
                return 'cut', self.data[:200]
        body, self.data = self.data[:n], self.data[n:]
        return status, body

    def close(self):
        self.k.close()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()


def talk(s, data):
    """The statuses of all answers to `data` and the good request behind it: ends in 'good' or CLOSED.

    libmicrohttpd 0.9.75 writes the head of some of its own refusals twice before it closes: 'cut' counts as CLOSED behind one."""
    out = []
    with Wire(s, data + GOOD) as w:
        while not out or out[-1] not in ('good', CLOSED, 'cut'):
            r = w.reply()
            out.append(CLOSED if r == CLOSED or (r[0] == 'cut' and out and out[-1] >= 400) else 'good' if r[0] == 200 and b'"version"' in r[1] else r[0])
    return out


@functools.cache
def is_strict():
    """libmicrohttpd 1.0 and later refuses more by itself, some of it with a bare close."""
    path = re.search(r'(\S*/libmicrohttpd\S*) \(', subprocess.run(['ldd', ARGS.hearth], capture_output=True, text=True).stdout)[1]
    version = ctypes.CDLL(path).MHD_get_version
    version.restype = ctypes.c_char_p
    return version()[:1] != b'0'


def rows(s, table):
    """The last column, if there are two: what a strict library answers."""
    for name, data, *want in table:
        same(name, talk(s, data), want[-1 if is_strict() else 0])


# --- framing ------------------------------------------------------------------------------------


@test
def framing(s):
    te = b'Transfer-Encoding: chunked\r\n'
    body = b'5\r\nabcde\r\n0\r\n\r\n'
    rows(s, [
        ('a plain request', get(), [200, 'good']),
        ('a body', post(JSON), [200, 'good']),
        ('a body with GET', get(headers=b'Content-Length: 5\r\n') + b'abcde', [200, 'good']),
        ('a body nobody wants', post(b'abcde', b'/nowhere'), [404, 'good']),
        ('length and coding', b'POST /tokenize HTTP/1.1\r\n' + HOST + te + b'Content-Length: 15\r\n\r\n' + body, [400, CLOSED]),
        ('coding and length', b'POST /tokenize HTTP/1.1\r\n' + HOST + b'Content-Length: 15\r\n' + te + b'\r\n' + body, [400, CLOSED]),
        ('two lengths', post(JSON, headers=b'Content-Length: 15\r\n'), [400, CLOSED]),
        ('two lengths that differ', post(JSON, headers=b'Content-Length: 14\r\n'), [400, CLOSED]),
        ('two codings', chunked(body).replace(te, te + te), [400, CLOSED]),
        ('another coding', chunked(body).replace(b'chunked', b'gzip, chunked'), [501, CLOSED], [400, CLOSED]),
        ('coding in 1.0', chunked(body).replace(b'HTTP/1.1', b'HTTP/1.0'), [400, CLOSED]),
        ('a blank before the colon', post(JSON).replace(b'Length:', b'Length :'), [400, CLOSED]),
        ('a sign', post(JSON).replace(b': 15', b': +15'), [400, CLOSED]),
        ('a zero byte behind the length', post(JSON).replace(b': 15', b': 15\x000'), [400, CLOSED]),
        ('a continued length', post(JSON).replace(b': 15', b': 15\r\n 0'), [400, CLOSED]),
        ('a continued header', get(headers=b'X: a\r\n b\r\n'), [400, CLOSED]),
        ('a continued request line', b'GET /healthz HTTP/1.1\r\n X: a\r\n' + HOST + b'\r\n', [400, CLOSED]),
        ('a line of zero bytes', get(headers=b'\0\0\0\r\n'), [400, CLOSED]),
        ('a zero byte in a value', get(headers=b'X: a\0b\r\n'), [400, CLOSED]),
        ('a return in a value', get(headers=b'X: a\rTransfer-Encoding: chunked\r\n'), [400, CLOSED]),
        ('two hosts', get(headers=HOST), [400, CLOSED]),
        ('two origins', get(headers=b'Origin: http://127.0.0.1\r\nOrigin: http://a\r\n'), [400, CLOSED]),
        ('two keys', get(headers=b'Authorization: Bearer a\r\n' * 2), [400, CLOSED]),
        ('a packed body', post(JSON, headers=b'Content-Encoding: gzip\r\n'), [415, CLOSED]),
        ('a body as it is', post(JSON, headers=b'Content-Encoding: identity\r\n'), [200, 'good']),
        ('an expectation', post(JSON, headers=b'Expect: 100-continue\r\n'), [200, 'good']),
        ('an unknown expectation', post(JSON, headers=b'Expect: x\r\n'), [417, CLOSED]),
        ('a zero byte in the path', get(b'/healthz\0/x'), [400, CLOSED], [CLOSED]),
        ('a coded zero byte in the path', get(b'/healthz%00/x'), [400, CLOSED]),
        ('a coded letter in the path', get(b'/%68ealthz?%41=%20&b'), [200, 'good']),
        ('behind another request', get() + post(JSON, headers=te), [200, 400, CLOSED]),
        ('behind a body', post(JSON) + get(headers=b'X: a\0b\r\n'), [200, 400, CLOSED]),
        ('a length that wraps', post(b'').replace(b': 0', b': 18446744073709551616'), [413, CLOSED]),
        ('a length beyond the limit', post(b'').replace(b': 0', b': 18446744073709551615'), [413, CLOSED]),
        ('ends of lines without returns', get().replace(b'\r\n', b'\n'), [400, CLOSED]),
        ('a request line without a return', get().replace(b'1.1\r', b'1.1'), [400, CLOSED]),
        ('a header without a return', get(headers=b'X: a\n'), [400, CLOSED]),
        ('a length without a return', post(JSON).replace(b'15\r', b'15'), [400, CLOSED]),
        ('an empty line without a return', get()[:-2] + b'\n', [400, CLOSED]),
        ('no host', b'GET /healthz HTTP/1.1\r\n\r\n', [400, CLOSED]),
        ('no host, and a body', post(JSON).replace(HOST, b''), [400, CLOSED]),
        ('a blank in the path', get(b'/healthz?a b'), [400, CLOSED]),
        ('an empty line before', b'\r\n' + get(), [200, 'good']),
        ('empty lines before', b'\r\n\r\n' + get(), [200, 'good'], [CLOSED]),
    ])
    same('HTTP/1.0', talk(s, b'GET /healthz HTTP/1.0\r\n\r\n'), [200, CLOSED])
    same('HTTP/2', talk(s, b'PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n'), [505, CLOSED])


@test
def absolute(s):
    """A target that names its host: that host counts, whatever Host says (RFC 9112, 3.2.2)."""
    here = b'http://127.0.0.1:%d' % s.port
    rows(s, [
        ('with a path', get(here + b'/healthz'), [200, 'good']),
        ('a body', post(JSON, here + b'/tokenize'), [200, 'good']),
        ('a query', get(b'HTTP://LOCALHOST/healthz?a=http://b/'), [200, 'good']),
        ('no path', get(here), [200, 'good']),
        ('no path, and a query', get(here + b'?a'), [200, 'good']),
        ('no such path', get(here + b'/nowhere'), [404, 'good']),
        ('another host', get(b'http://example.org/healthz'), [403, 'good']),
        ('another host in Host alone', get(here + b'/healthz').replace(HOST, b'Host: example.org\r\n'), [200, 'good']),
        ('its own origin', get(here + b'/healthz', b'Origin: ' + here + b'\r\n'), [200, 'good']),
        ('another origin', get(here + b'/healthz', b'Origin: http://127.0.0.1\r\n'), [403, 'good']),
        ('the next request is judged by its own', get(b'http://example.org/healthz') + get(), [403, 200, 'good']),
        ('no host', get(b'http:///healthz'), [404, CLOSED]),
        ('a name and a password', get(b'http://127.0.0.1:1@example.org/healthz'), [404, CLOSED]),
        ('a coded slash', get(b'http://127.0.0.1%2f.example.org/healthz'), [404, CLOSED]),
        ('a backslash', get(b'http://127.0.0.1\\.example.org/healthz'), [404, CLOSED]),
        ('a long host', get(b'http://127.0.0.1' + b'1' * 400 + b'/healthz'), [404, CLOSED]),
        ('another scheme', get(b'ftp://127.0.0.1/healthz'), [404, 'good']),
    ])


@test
def chunks(s):
    one = b'f\r\n' + JSON + b'\r\n'
    rows(s, [
        ('one chunk', chunked(one + b'0\r\n\r\n'), [200, CLOSED]),
        ('a chunk for each byte', chunked(b''.join(b'1\r\n%c\r\n' % c for c in JSON) + b'0\r\n\r\n'), [200, CLOSED]),
        ('a trailer', chunked(one + b'0\r\nContent-Length: 99\r\nHost: x\r\n\r\n'), [200, CLOSED]),
        ('an extension', chunked(b'f;a=b\r\n' + JSON + b'\r\n0\r\n\r\n'), [200, CLOSED], [400, CLOSED]),
        ('a request behind lines without returns', chunked(b'f;\n' + JSON + b'\r\n0\r\n\r\n' + GOOD), [200, CLOSED], [400, CLOSED]),
        ('a body nobody wants', chunked(one + b'0\r\n\r\n', b'/nowhere'), [404, CLOSED]),
        ('a negative size', chunked(b'-1\r\n' + JSON), [400, CLOSED]),
        ('a prefix', chunked(b'0xf\r\n' + JSON + b'\r\n0\r\n\r\n'), [400, CLOSED]),
        ('a blank', chunked(b' f\r\n' + JSON + b'\r\n0\r\n\r\n'), [400, CLOSED]),
        ('a size that is too small', chunked(b'e\r\n' + JSON + b'\r\n0\r\n\r\n'), [400, CLOSED]),
        ('a size that wraps', chunked(b'1' + b'0' * 16 + b'f\r\n' + JSON), [413, CLOSED]),
        ('more than a body may have', chunked(b'1100000\r\n' + b' ' * (17 << 20) + b'\r\n0\r\n\r\n'), [413, CLOSED]),
    ])
    with Wire(s, chunked(b'f;' + b'x' * 200000)) as w:  # the library would wait for the end of this line, and use a core for it
        r = w.reply()
        check('a chunk without an end of its line', r[0] == 400 and json.loads(r[1])['error']['code'] == 'invalid_request' or is_strict() and r == CLOSED, r)
        same('and no more', w.reply(), CLOSED)


@test
def pipelines(s):
    with Wire(s, (get() + post(JSON) + get(b'/nowhere') + post(b'{') + get(b'/v1/models')) * 100) as w:
        got = [w.reply()[0] for _ in range(500)]
    same('500 requests in one piece', got, [200, 200, 404, 400, 200] * 100)
    ask_for = [post(json.dumps({'content': 'a ' * (1 + 37 * i % 11)}).encode()) for i in range(40)]
    with Wire(s, b''.join(ask_for)) as w:
        counts = [json.loads(w.reply()[1])['count'] for _ in ask_for]
    alone = []
    for x in ask_for:
        with Wire(s, x) as w:
            alone.append(json.loads(w.reply()[1])['count'])
    same('answers come in order', counts, alone)
    stream = json.dumps({'prompt': 'a', 'max_tokens': 5, 'stream': True, 'ignore_eos': True}).encode()
    with Wire(s, post(stream, b'/v1/completions') + GOOD * 50) as w:
        same('a stream with others behind it', w.reply(), (200, 'stream'))
        while w.data.count(b'"version"') < 50 and w.more():
            pass
        check('all of them are answered, behind it', w.data.count(b'"version"') == 50 and b'[DONE]' in w.data[:w.data.index(b'"version"')], w.data[-300:])


@test
def too_much(s):
    rows(s, [
        ('a long header', get(headers=b'X: ' + b'a' * 100000 + b'\r\n'), [431, CLOSED]),
        ('many headers', get(headers=b'X: a\r\n' * 20000), [431, CLOSED]),
        ('a long path', get(b'/' + b'a' * 100000), [414, CLOSED]),
        ('long trailers', chunked(b'f\r\n' + JSON + b'\r\n0\r\n' + b'X: y\r\n' * 20000), [431, CLOSED]),
        ('a long method', b'A' * 100000 + get(), [414, CLOSED], [CLOSED]),
    ])
    for name, data in (('16 KB of a header', get(headers=b'X: ' + b'a' * 16000 + b'\r\n')), ('700 headers', get(headers=b'X: a\r\n' * 200))):
        same(f'{name} are fine', talk(s, data), [200, 'good'])


@test
def gone_streams(s):
    """Clients that leave their streams are forgotten, also while an older connection stays."""
    stream = json.dumps({'prompt': 'a', 'max_tokens': 3000, 'stream': True, 'ignore_eos': True}).encode()
    with Wire(s, get()) as old:
        same('an answer', old.reply()[0], 200)
        n = metrics(s)['hearth_http_connections']
        for _ in range(12):
            with Wire(s, post(stream, b'/v1/completions')) as w:
                same('a stream begins', w.reply(), (200, 'stream'))
        check('all are forgotten', wait_metric(s, 'hearth_http_connections', n, 20 * s.slack) is not None, (n, metrics(s)['hearth_http_connections']))
        old.k.sendall(get())
        same('the older one is served', old.reply()[0], 200)


@test
def half_closed(s):
    stream = json.dumps({'prompt': 'a', 'max_tokens': 60, 'stream': True, 'ignore_eos': True}).encode()
    with Wire(s, post(stream, b'/v1/completions')) as w:
        same('a stream begins', w.reply(), (200, 'stream'))
        w.k.shutdown(socket.SHUT_WR)
        while b'[DONE]' not in w.data and w.more():
            pass
        check('a client that says no more gets its stream whole', b'[DONE]' in w.data, w.data[-300:])
    with Wire(s, post(stream, b'/v1/completions'), half=True) as w:
        same('a stream that has not begun yet too', w.reply(), (200, 'stream'))
        while b'[DONE]' not in w.data and w.more():
            pass
        check('and whole', b'[DONE]' in w.data, w.data[-300:])
    with Wire(s, get(), half=True) as w:
        same('a small answer too', w.reply()[0], 200)
    long = json.dumps({'prompt': 'a', 'max_tokens': 3000, 'ignore_eos': True}).encode()
    with Wire(s, post(long, b'/v1/completions')) as w:
        check('a long answer runs', wait_metric(s, 'hearth_requests_running', 1, 10 * s.slack) is not None)
        w.k.shutdown(socket.SHUT_WR)
        check('and ends when its client says no more', wait_metric(s, 'hearth_requests_running', 0, 10 * s.slack) is not None)
        same('without an answer', w.reply(), CLOSED)
    for data, want in ((b'', CLOSED), (b'GET', 400), (get()[:-2], 400), (post(JSON)[:-3], 400), (chunked(b'f\r\n{"con'), 400), (get(), 200)):
        with Wire(s, data, half=True) as w:
            got = w.reply()
            good = got == CLOSED and want != 200 or got != CLOSED and got[0] == want  # the library may see the end first, and just closes
            check(f'{data[-20:]!r} and no more', good, got)
            same(f'{data[-20:]!r} and no more: the end', w.reply(), CLOSED)
    same('still well', talk(s, get()), [200, 'good'])


# --- many ---------------------------------------------------------------------------------------


@test
def crowds(s):
    """More connections than are kept, in every state that a client can hold one in: new clients get through."""
    with Served(ARGS.hearth, ARGS.model, '--max-clients', '8', slack=ARGS.slack) as k:
        page = get(b'/')
        for name, data in (('idle', b''), ('after a request', get()), ('slow headers', get()[:-2]), ('slow bodies', post(JSON)[:-3]), ('slow chunks', chunked(b'f\r\n{"con')), ('mixed', None),
                           ('refused and slow', post(JSON, b'/nowhere')[:-3]), ('not reading', page * 200)):
            crowd = []
            for i in range(60):
                try:
                    crowd.append(Wire(k, data if data is not None else [b'', get(), get()[:-2], post(JSON)[:-3]][i % 4]))
                except OSError as e:
                    check(f'{name}: client {i} connects', False, e)
            r = ask(k, 'POST', '/tokenize', {'content': 'a'})
            n = metrics(k)['hearth_http_connections']
            check(f'60 clients, {name}: the next is served', r.status == 200 and n <= 9, (r.status, n))
            for w in crowd:
                w.close()
        check('all are forgotten', wait_metric(k, 'hearth_http_connections', 1, 20 * k.slack) is not None, metrics(k)['hearth_http_connections'])
        same('exit code', k.end(), 0)


@test
def descriptors(s):
    """The limit of open files is raised to what the clients need; a service that cannot have it says so at start."""
    def limited(soft, hard):
        return lambda: resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    with Served(ARGS.hearth, ARGS.model, slack=ARGS.slack, preexec_fn=limited(40, 1024)) as k:
        crowd = [Wire(k) for _ in range(60)]
        with Wire(k, get(), limit_s=10) as w:
            same('60 clients with 40 open files: raised', w.reply()[0], 200)
        for w in crowd:
            w.close()
        same('exit code', k.end(), 0)
    try:
        r = subprocess.run([ARGS.hearth, 'serve', '--model', ARGS.model, '--port', '0'], preexec_fn=limited(100, 100), capture_output=True, text=True, timeout=60 * ARGS.slack)
        check('a limit that cannot be raised: both numbers', r.returncode != 0 and '100' in r.stderr and '416' in r.stderr and '--max-clients' in r.stderr, (r.returncode, r.stderr))
    except subprocess.TimeoutExpired as e:
        check('a limit that cannot be raised: refused', False, e)


@test
def no_descriptors(s):
    """A limit of open files that sinks under the service and rises again: idle clients go for new ones, one line says so."""
    with Served(ARGS.hearth, ARGS.model, slack=ARGS.slack) as k:
        limit = resource.prlimit(k.pid, resource.RLIMIT_NOFILE)

        def sink():
            used = os.listdir(f'/proc/{k.pid}/fd')
            resource.prlimit(k.pid, resource.RLIMIT_NOFILE, (next(i for i in range(999) if str(i) not in used), limit[1]))
        wait_fds(k, 2, 'socket:')  # the numbers of what is open have no gaps then
        crowd = [Wire(k, get()) for _ in range(4)]
        same('four clients', [w.reply()[0] for w in crowd], [200] * 4)
        sink()
        for i in range(3):
            with Wire(k, get(), limit_s=20) as w:
                same(f'a client without a file left is served ({i})', w.reply()[0], 200)
        crowd[3].send(get())
        same('the newest idle one stays', crowd[3].reply()[0], 200)
        same('the oldest went', crowd[0].reply(), CLOSED)
        for w in crowd:
            w.close()
        resource.prlimit(k.pid, resource.RLIMIT_NOFILE, limit)
        unread = never_read(k)
        check('a stream runs', wait_metric(k, 'hearth_requests_running', 1, 20 * k.slack) is not None)
        wait_fds(k, 3, 'socket:')
        sink()
        with Wire(k, get(), limit_s=20) as w:
            same('nobody is idle: the new one is closed', w.reply(), CLOSED)
        resource.prlimit(k.pid, resource.RLIMIT_NOFILE, limit)
        same('and served later', talk(k, get()), [200, 'good'])
        same('while the stream stays', metrics(k)['hearth_requests_running'], 1)
        unread.close()
        same('one line says so', k.said().count('open files'), 1)
        same('exit code', k.end(), 0)


class Slow(threading.Thread):
    """A client that takes its time, beside the other tests."""

    def __init__(self, s, data, every_s, then=b''):
        super().__init__(daemon=True)
        self.w, self.every_s, self.then, self.got = Wire(s, data, limit_s=120), every_s, then, None
        self.start()

    def run(self):
        end = threading.Event()

        def trickle():
            while not end.wait(self.every_s):
                self.w.send(self.then)
        feeder = threading.Thread(target=trickle, daemon=True)
        feeder.start()
        self.got = self.w.reply()
        end.set()
        feeder.join()


def never_read(s):
    """A stream that its client does not read, longer than what may wait for it."""
    k = socket.socket()
    k.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    k.connect(('127.0.0.1', s.port))
    k.sendall(post(json.dumps({'prompt': 'a', 'max_tokens': 3500, 'ignore_eos': True, 'stream': True, 'logprobs': 20}).encode(), b'/v1/completions'))
    return k


@test
def slow_clients(s):
    """Deadlines hold for clients that show life all the time; what is not read is given up."""
    with Served(ARGS.hearth, ARGS.model, slack=ARGS.slack) as k:
        k.process.send_signal(signal.SIGSTOP)  # what they begin with is there before they are accepted
        headers = Slow(k, get()[:-2], 0.5, b'X: a\r\n')
        lines = Slow(k, b'', 0.5, b'\r\n')
        silent = Slow(k, get()[:-2], 999)
        k.process.send_signal(signal.SIGCONT)
        large = b'{"content":"' + b'a ' * 500000 + b'"}'
        stalled = Slow(k, post(large)[:-800000], 0.5, b' ')
        unread = [never_read(k) for _ in range(3)]
        check('three streams run', wait_metric(k, 'hearth_requests_running', 3, 20 * k.slack) is not None)
        for i in range(20):
            r = ask(k, 'POST', '/v1/completions', {'prompt': 'a', 'max_tokens': 2})
            if r.status != 200:
                check(f'request {i} meanwhile', False, r.data)
        for name, c in (('slow headers', headers), ('empty lines', lines), ('half a header', silent)):
            c.join(120 * k.slack)
            if name == 'empty lines' and is_strict():  # it takes one of them
                same(f'{name}: closed', c.got, CLOSED)
                continue
            check(f'{name}: 408', c.got is not None and c.got[0] == 408 and json.loads(c.got[1])['error']['code'] == 'timeout', c.got)
        stalled.join(120 * k.slack)
        check('a large body that comes to a stop: 408', stalled.got is not None and stalled.got[0] == 408 and '64 KiB in every 10 s' in json.loads(stalled.got[1])['error']['message'], stalled.got)
        check('streams that nobody reads are given up', wait_metric(k, 'hearth_requests_running', 0, 90 * k.slack) is not None, metrics(k))
        same('their pages are free', metrics(k)['hearth_kv_cache_usage_ratio'], 0)
        for u in unread:
            u.close()
        same('exit code', k.end(), 0)


@test
def memory(s):
    """What clients make the service hold has a bound together, here 4 MiB, and the plan counts it."""
    with Served(ARGS.hearth, ARGS.model, '--max-body', '1', '--ctx', '256', slack=ARGS.slack) as k:
        mib = 1 << 20
        large, held = post(b'{"content":"' + b'a ' * (mib // 2 - 7) + b'"}'), []
        for i in range(3):
            held.append(Wire(k, large[:-1]))
        time.sleep(0.2 * k.slack)
        for name, data in (('a large body', large[:300]), ('a chunked one', chunked(b'%x\r\n' % (mib // 2) + b'a' * (mib // 2) + b'\r\n'))):
            with Wire(k, data) as w:
                r = w.reply()
                check(f'{name} beyond the bound: 503 before all of it is there', r[0] == 503 and json.loads(r[1])['error']['code'] == 'queue_full', r)
        same('a small one finds room', ask(k, 'POST', '/tokenize', {'content': 'a b'}).status, 200)
        same('and is answered', ask(k, 'POST', '/v1/completions', {'prompt': 'a', 'max_tokens': 2}).status, 200)
        for w in held[:2]:
            w.close()
        held[2].send(large[-1:])
        same('one that had its room is read', held[2].reply()[0], 200)
        held[2].close()
        check('the others are forgotten', wait_metric(k, 'hearth_http_connections', 1, 20 * k.slack) is not None)
        for i in range(5):
            same(f'their room is free again ({i})', ask(k, 'POST', '/tokenize', large.split(b'\r\n\r\n')[1]).status, 200)
        tree = ask(k, 'POST', '/tokenize', b'{"content":"a","x":[' + b'{},' * (mib // 4) + b'1]}')
        check('values that would take a hundred times their text', tree.status == 400 and tree.error['code'] == 'limit_reached', tree.data)
        m = metrics(k)
        check('the peak lies within the plan', k.slack > 1 or m['hearth_memory_peak_bytes'] <= m['hearth_memory_planned_bytes'], m)
        same('exit code', k.end(), 0)


# --- bodies -------------------------------------------------------------------------------------


@test
def bodies(s):
    def chat(content):
        return b'{"messages":[{"role":"user","content":' + content + b'}],"max_tokens":1}'
    deep = b'[' * 200 + b']' * 200
    table = [('bytes that are no UTF-8', chat(b'"\xc3\x28"')), ('an overlong slash', chat(b'"\xc0\xaf"')), ('a surrogate as UTF-8', chat(b'"\xed\xa0\x80"')), ('beyond Unicode', chat(b'"\xf4\x90\x80\x80"')),
             ('half a character', chat(b'"\xe2\x82"')), ('a surrogate', chat(b'"\\udc00"')), ('two high surrogates', chat(b'"\\ud800\\ud800"')), ('a bad escape', chat(b'"\\x41"')),
             ('a raw line end', chat(b'"a\nb"')), ('a byte order mark', b'\xef\xbb\xbf' + chat(b'"a"')), ('a comma too many', chat(b'"a"')[:-1] + b',}'), ('single quotes', b"{'messages': []}"),
             ('a comment', b'/**/' + chat(b'"a"')), ('65 levels', chat(b'"a"')[:-1] + b',"metadata":' + deep + b'}'), ('objects 10,000 deep', b'{"a":' * 10000 + b'1' + b'}' * 10000), ('brackets that never close', b'[' * 1000000),
             ('a key twice', chat(b'"a"')[:-1] + b',"n":1,"n":2}'), ('a key twice, written otherwise', chat(b'"a"')[:-1] + b',"n":1,"\\u006e":1}'),
             ('a key twice in a message', b'{"messages":[{"role":"user","role":"system","content":"a"}]}'), ('a number of 100,000 digits', chat(b'"a"')[:-1] + b',"seed":' + b'9' * 100000 + b'}'),
             ('only a string', b'"a"'), ('only a number', b'1'), ('null', b'null'), ('zero bytes', b'\0' * 1000), ('gzip', b'\x1f\x8b\x08' + b'\0' * 30)]
    for name, body in table:
        r = ask(s, 'POST', '/v1/chat/completions', body)
        check(f'{name}: 400', r.status == 400 and r.error.get('message') and r.error.get('code') in ('invalid_json', 'invalid_type'), (r.status, r.data[:300]))
    for name, content in (('a zero character', b'"a\\u0000b"'), ('a pair of surrogates', b'"\\ud83d\\ude00"'), ('an escaped slash', b'"\\/"'), ('the last code point', b'"\xf4\x8f\xbf\xbf"')):
        r = ask(s, 'POST', '/v1/chat/completions', chat(content))
        check(f'{name} is fine', r.status == 200, r.data[:300])
    rng, codes = random.Random(7), {}
    valid = json.dumps({'messages': [{'role': 'user', 'content': 'na\u00efve \U0001f600 "x" \\ y'}], 'max_tokens': 1, 'n': 1, 'stop': ['a', 'b'], 'temperature': 0.5, 'logit_bias': {'5': -1.5}, 'seed': 3,
                        'logprobs': True, 'top_logprobs': 2, 'stream_options': {'include_usage': True}, 'user': 'u'}).encode()
    with Wire(s) as w:
        for _ in range(600):
            b = bytearray(valid)
            for _ in range(rng.randrange(1, 4)):
                i = rng.randrange(len(b))
                b[i:i + rng.randrange(3)] = rng.choice([bytes([rng.randrange(256)]), b'', b'{', b']', b'"', b'\\', b',', b'1e999', b'null', b'-', b'[[', bytes(b[:i][-20:])])
            w.send(post(bytes(b), b'/v1/chat/completions'))
            status, body = w.reply()
            codes[status] = codes.get(status, 0) + 1
            if status not in (200, 400) and check('a changed body', False, (status, bytes(b), body)):
                break
            json.loads(body)
    check('changed bodies: refused or answered', set(codes) == {200, 400} and codes[400] > 100, codes)


@test
def noise(s):
    """Pieces of requests in any order: whatever comes back, the service goes on and keeps nothing."""
    rng = random.Random(11)
    pieces = [get(), post(JSON), b'GET ', b'POST ', b'/tokenize', b' HTTP/1.1', b'\r\n', b'\r\n\r\n', b'\n', b'\r', b'\0', b' ', b':', HOST, b'Content-Length: ', b'15', b'0', b'Transfer-Encoding: chunked\r\n',
              b'f\r\n', b'0\r\n\r\n', JSON, b'Expect: 100-continue\r\n', b'Connection: close\r\n', b'Connection: upgrade\r\n', b'\xff\xfe', b'?a=b', b'%', b'%zz', bytes(range(256))]
    count = len(os.listdir(f'/proc/{s.pid}/fd'))
    for _ in range(400):
        data = b''.join(rng.choice(pieces) for _ in range(rng.randrange(1, 14)))
        with Wire(s, data, half=rng.random() < 0.5, limit_s=1) as w:
            try:
                w.k.settimeout(0.005)
                w.more()
            except TimeoutError:
                pass
    same('still well', talk(s, get()), [200, 'good'])
    check('all are forgotten', wait_metric(s, 'hearth_http_connections', 1, 90 * s.slack) is not None, metrics(s)['hearth_http_connections'])
    check('no descriptor is left over', wait_fds(s, count), (len(os.listdir(f'/proc/{s.pid}/fd')), count))


def wait_fds(s, most, kind=''):
    def count():
        links = [os.path.join(f'/proc/{s.pid}/fd', x) for x in os.listdir(f'/proc/{s.pid}/fd')]
        return sum(os.path.lexists(x) and os.readlink(x).startswith(kind) for x in links)
    until = time.monotonic() + 30 * s.slack
    while count() > most:
        if time.monotonic() > until:
            return False
        time.sleep(0.05)
    return True


def main():
    global ARGS
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument('--hearth', required=True)
    ap.add_argument('--model', required=True)
    ap.add_argument('--slack', type=float, default=1.0)
    ap.add_argument('--only', default='')
    ARGS = ap.parse_args()
    with Served(ARGS.hearth, ARGS.model, slack=ARGS.slack) as s:
        run_tests(s, ARGS.only)
    finish()


main()
