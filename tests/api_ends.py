"""api_ends - tests of clients that leave or take their time, of the service's end and of its readiness; run by test_api.py."""
import concurrent.futures
import contextlib
import http.client
import json
import re
import signal
import socket
import time

import openai

from api_client import ARGS, HELLO, LONG, LONG_RAW, client, cut, events, open_stream
from checks import check, same, test
from served import Served, ask, metrics, wait_metric


def leave(s, what, limit_s, begin):
    """begin() gives what closes the client's side; measures until nothing runs."""
    times = []
    for _ in range(5):
        close = begin()
        assert wait_metric(s, 'hearth_requests_running', 1, 10 * s.slack) is not None
        time.sleep(0.05)
        close()
        took = wait_metric(s, 'hearth_requests_running', 0, 5 * s.slack)
        times.append(99 if took is None else took)
    print(f'    {what}: cancelled after {", ".join(f"{t * 1e3:.0f}" for t in times)} ms', flush=True)
    check(f'{what}: nothing runs after {limit_s * 1e3:.0f} ms', max(times) <= limit_s * s.slack, times)


@test
def clients_leave(s):
    before = metrics(s)

    def stream():
        c, r = open_stream(s, LONG_RAW, pieces=4)
        return lambda: cut(c, r)

    def waiting():
        k = socket.create_connection(('127.0.0.1', s.port))
        body = json.dumps(LONG_RAW).encode()
        k.sendall(b'POST /v1/chat/completions HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: %d\r\n\r\n' % len(body) + body)
        return k.close

    def through_client():
        stream = client(s).chat.completions.create(model=s.model_id, messages=HELLO, stream=True, **LONG)
        next(iter(stream))
        return stream.close
    leave(s, 'stream', 0.2, stream)
    leave(s, 'whole answer', 0.2, waiting)
    leave(s, "openai's stream.close()", 0.2, through_client)
    after = metrics(s)
    same('cancelled and counted', (after['hearth_requests_cancelled_total'] - before['hearth_requests_cancelled_total'], after['hearth_cancelled_total{reason="client"}'] - before['hearth_cancelled_total{reason="client"}']), (15, 15))
    same('answers too', after['hearth_answers_total{reason="cancelled"}'] - before['hearth_answers_total{reason="cancelled"}'], 15)
    same('pages are free', after['hearth_kv_cache_usage_ratio'], 0)
    c = http.client.HTTPConnection('127.0.0.1', s.port)
    for i in range(20):
        r = ask(s, 'POST', '/v1/completions', {'prompt': 'a', 'max_tokens': 1} if i % 2 else b'{', connection=c)
        assert r.status in (200, 400)
    check('one connection for many requests', c.sock is not None)


@test
def left_before_prepared(s):
    """Bodies whose clients left are not prepared: who comes behind them waits for none of them."""
    word = {'content': 'a' * 700000}  # one long word: slow to tokenize
    begin = time.monotonic()
    ask(s, 'POST', '/tokenize', word)
    one_s = time.monotonic() - begin
    for path, body in (('/tokenize', word), ('/v1/completions', {'prompt': word['content']})):
        with concurrent.futures.ThreadPoolExecutor(2) as pool:
            first = pool.submit(ask, s, 'POST', '/tokenize', word)
            for _ in range(20):
                c = http.client.HTTPConnection('127.0.0.1', s.port)
                c.request('POST', path, json.dumps(body))
                time.sleep(0.02)
                c.close()
            same('the first is answered', first.result().status, 200)
            begin = time.monotonic()
            same('who comes behind them', ask(s, 'POST', '/tokenize', {'content': 'a' * 710000}).status, 200)
            last_s = time.monotonic() - begin
            check(f'{path}: did not wait for all that left', last_s < 7 * one_s, (last_s, one_s))


BOOK = 'a' * 1000000  # one long word: slow to tokenize


@test
def small_before_large(s):
    """A question goes before the books that wait for their preparation, and its wait counts."""
    with Served(ARGS.hearth, ARGS.model, slack=ARGS.slack) as k, concurrent.futures.ThreadPoolExecutor(8) as pool:
        done = []

        def send(name, path, body):
            r = ask(k, 'POST', path, body)
            done.append(name)
            return r
        books = [pool.submit(send, 'book', '/tokenize', {'content': BOOK}) for _ in range(5)]
        check('books wait', wait_metric(k, 'hearth_requests_queued', 5, 30 * k.slack) is not None, done)
        begin = time.monotonic()
        r = send('question', '/v1/completions', {'prompt': 'The sea', 'max_tokens': 1})
        took_ms = (time.monotonic() - begin) * 1000
        check('the question is answered before most of them', r.status == 200 and done.index('question') <= 2, done)
        t = r.body['timings']
        known_ms = t['queue_ms'] + t['prompt_ms'] + t['predicted_ms']
        check('its times cover what it took', took_ms / 2 < known_ms <= took_ms, (took_ms, t))
        check('in the metric too', metrics(k)['hearth_queue_time_seconds_sum'] * 1000 > t['queue_ms'] - 1, t)
        check('each book is tokenized', all(b.result().status == 200 and b.result().body['count'] > 10000 for b in books), done)
        same('nobody waits', metrics(k)['hearth_requests_queued'], 0)


@test
def queue_of_preparation(s):
    """--queue bounds those that wait to be prepared too, beside those who run at once."""
    with Served(ARGS.hearth, ARGS.model, '--parallel', '1', '--queue', '2', slack=ARGS.slack) as k, concurrent.futures.ThreadPoolExecutor(8) as pool:
        books = [pool.submit(ask, k, 'POST', '/tokenize', {'content': BOOK}) for _ in range(3)]
        check('one is prepared, two wait', wait_metric(k, 'hearth_requests_queued', 3, 30 * k.slack) is not None)
        r = ask(k, 'POST', '/tokenize', {'content': 'a'})
        check('the fourth gets 503', r.status == 503 and r.error['code'] == 'queue_full' and r.headers['Retry-After'], r.data[:200])
        same('those before it are answered', [b.result().status for b in books], [200] * 3)
        same('and then others', ask(k, 'POST', '/tokenize', {'content': 'a'}).status, 200)


@test
def slow_reader(s):
    """A client that does not read holds up nobody, and its answer is whole when it reads at last."""
    k = socket.socket()
    k.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 32768)
    k.connect(('127.0.0.1', s.port))
    body = json.dumps({'prompt': 'a', 'max_tokens': 400, 'temperature': 0, 'ignore_eos': True, 'stream': True, 'logprobs': 20}).encode()
    k.sendall(b'POST /v1/completions HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\nContent-Length: %d\r\n\r\n' % len(body) + body)
    time.sleep(1)
    r = ask(s, 'POST', '/v1/completions', {'prompt': 'a', 'max_tokens': 5})
    same('others are served', r.status, 200)
    data = b''
    while True:
        x = k.recv(65536)
        if not x:
            break
        data += x
    n = len(re.findall(rb'^data: \{.*"text":', data, re.M))
    check('the answer is whole', b'data: [DONE]' in data and data.count(b'"top_logprobs"') >= 300 and n >= 300, (len(data), n))


@test
def grace(s):
    with Served(ARGS.hearth, ARGS.model, slack=ARGS.slack) as k:
        body = {**LONG_RAW, 'max_tokens': 200, 'temperature': 0}
        want = ask(k, 'POST', '/v1/chat/completions', body).body['choices'][0]
        c, r = open_stream(k, body, pieces=3)
        idle = http.client.HTTPConnection('127.0.0.1', k.port)
        ask(k, 'GET', '/healthz', connection=idle)
        late = http.client.HTTPConnection('127.0.0.1', k.port)
        late.putrequest('POST', '/tokenize')
        late.putheader('Content-Length', '15')
        late.endheaders(b'{"content"')
        check('SIGTERM: a request is on its way', wait_metric(k, 'hearth_http_connections', 4, 10 * k.slack) is not None)
        k.process.send_signal(signal.SIGTERM)
        ready = [ask(k, 'GET', '/readyz')]
        while ready[-1].status == 200:
            ready.append(ask(k, 'GET', '/readyz'))
        check('SIGTERM: /readyz', ready[-1].status == 503 and 'ending' in ready[-1].body['reason'] and ready[-1].headers['Retry-After'], ready[-1].data)
        for name, connection in (('a new client', None), ('a kept connection', idle)):
            refused = ask(k, 'POST', '/v1/chat/completions', body, connection=connection)
            check(f'SIGTERM: {name} is told', refused.status == 503 and refused.error['code'] == 'service_ending' and refused.headers['Retry-After'], refused.data)
            same(f'SIGTERM: {name} finds the service alive', ask(k, 'GET', '/healthz', connection=connection).status, 200)
        late.send(b':"a"}')
        refused = late.getresponse()
        same('SIGTERM: so is one whose body comes late', (refused.status, json.loads(refused.read())['error']['code']), (503, 'service_ending'))
        same('SIGTERM: the stream runs meanwhile', metrics(k)['hearth_requests_running'], 1)
        got = events(r)
        text = ''.join(json.loads(x)['choices'][0]['delta'].get('content') or '' for x in got[:-1])
        check('SIGTERM: the stream goes on to its end', got[-1] == '[DONE]' and want['message']['content'].endswith(text) and json.loads(got[-2])['choices'][0]['finish_reason'] == want['finish_reason'], got[-3:])
        same('SIGTERM: exit code', k.wait(), 0)
        try:
            socket.create_connection(('127.0.0.1', k.port), 2).close()
            check('SIGTERM: the port is closed', False)
        except OSError:
            check('SIGTERM: the port is closed', True)
        c.close()


@test
def grace_for_slow_readers(s):
    """An answer that was made before SIGTERM and is still on its way is given whole."""
    with Served(ARGS.hearth, ARGS.model, slack=ARGS.slack) as k, socket.socket() as slow:
        body = json.dumps({'prompt': 'a', 'max_tokens': 400, 'ignore_eos': True, 'logprobs': 20}).encode()
        slow.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        slow.connect(('127.0.0.1', k.port))
        slow.sendall(b'POST /v1/completions HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: %d\r\n\r\n' % len(body) + body)
        check('the answer is made', wait_metric(k, 'hearth_requests_done_total', 1, 30 * k.slack) is not None)
        k.process.send_signal(signal.SIGTERM)
        with contextlib.suppress(OSError):  # where the kernel took the whole answer, the port is closed at once
            while ask(k, 'GET', '/readyz').status == 200:
                pass
        data = b''.join(iter(lambda: slow.recv(65536), b''))
        head, text = data.split(b'\r\n\r\n', 1)
        check('the answer is whole', int(re.search(rb'Content-Length: (\d+)', head)[1]) == len(text) > 200000 and json.loads(text)['usage']['completion_tokens'] == 400, (head, len(text)))
        same('exit code', k.wait(), 0)


@test
def grace_runs_out(s):
    with Served(ARGS.hearth, ARGS.model, '--grace', '1', slack=ARGS.slack) as k, concurrent.futures.ThreadPoolExecutor(2) as pool:
        whole_answer = pool.submit(ask, k, 'POST', '/v1/chat/completions', LONG_RAW)
        c, r = open_stream(k, LONG_RAW, pieces=3)
        assert wait_metric(k, 'hearth_requests_running', 2, 10 * k.slack) is not None
        begin = time.monotonic()
        k.process.send_signal(signal.SIGTERM)
        got = events(r)
        error = json.loads(got[-2]).get('error', {})
        check('grace over: the stream ends with an error', got[-1] == '[DONE]' and error.get('code') == 'service_ending', got[-3:])
        w = whole_answer.result()
        check('grace over: the other gets 503', w.status == 503 and w.error['code'] == 'service_ending' and w.headers['Retry-After'], w.data)
        same('grace over: exit code', k.wait(), 0)
        took = time.monotonic() - begin
        check('grace over: in time', 0.9 < took < 3 * k.slack, took)
        c.close()


@test
def grace_through_client(s):
    with Served(ARGS.hearth, ARGS.model, '--grace', '0', slack=ARGS.slack) as k:
        stream = client(k).chat.completions.create(model=k.model_id, messages=HELLO, stream=True, **LONG)
        next(iter(stream))
        k.process.send_signal(signal.SIGTERM)
        try:
            for _ in stream:
                pass
            check("openai's client hears that the answer is cut", False, 'the stream ended without an error')
        except openai.APIError as e:
            check("openai's client hears that the answer is cut", 'ending' in e.message, e)
        same('--grace 0: exit code', k.wait(), 0)


@test
def two_signals(s):
    with Served(ARGS.hearth, ARGS.model, slack=ARGS.slack) as k:
        c, r = open_stream(k, LONG_RAW, pieces=3)
        begin = time.monotonic()
        k.process.send_signal(signal.SIGTERM)
        time.sleep(0.1)
        check('one SIGTERM: still at work', k.process.poll() is None)
        k.process.send_signal(signal.SIGTERM)
        got = events(r)
        code = k.wait()
        took = time.monotonic() - begin
        check('two SIGTERMs: ends at once', code == 0 and took < 2.5 * k.slack and got[-1] == '[DONE]' and 'error' in json.loads(got[-2]), (code, took, got[-2:]))
        c.close()


@test
def end_while_loading(s):
    for delay in (0, 0.02, 0.05, 0.1):
        with Served(ARGS.hearth, ARGS.load or ARGS.model, ready=False, slack=ARGS.slack) as k:
            time.sleep(delay)
            begin = time.monotonic()
            code = k.end()
            took = time.monotonic() - begin
            check(f'SIGTERM {delay} s after the port was bound', code == 0 and took < 3 * k.slack, (code, took, k.said()))


@test
def readiness(s):
    seen = []
    with Served(ARGS.hearth, ARGS.load or ARGS.model, ready=False, slack=ARGS.slack) as k:
        until = time.monotonic() + 120 * k.slack
        while time.monotonic() < until:
            r, job, models = ask(k, 'GET', '/readyz'), ask(k, 'POST', '/tokenize', {'content': 'a'}), ask(k, 'GET', '/v1/models')
            same('/healthz', ask(k, 'GET', '/healthz').status, 200) if len(seen) < 3 else None
            good = r.body == {'status': 'ready', 'reason': None} if r.status == 200 else r.status == 503 and r.body['status'] == 'not ready' and r.body['reason'] and r.headers['Retry-After']
            good = good and (job.status == 200 or (r.status == 503 and job.status == 503 and job.error['code'] == 'not_ready' and job.headers['Retry-After']))
            good = good and models.status == 200 and metrics(k)['hearth_ready'] in (0, 1)
            if not good:
                check('/readyz', False, (r.status, r.data, job.data))
            seen.append(r.status)
            if seen[-3:] == [200] * 3:
                break
        check('/readyz: not ready, then ready', seen[-3:] == [200] * 3 and seen == sorted(seen, reverse=True), seen)
        k.end()  # and with it who reads its lines
        check('says when', any('ready after' in x for x in k.lines), k.said())
