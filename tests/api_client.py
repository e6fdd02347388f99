"""api_client - what the tests of the HTTP interface share: OpenAI's client, streams, and refusals looked at.

Used by test_api.py, api_ends.py and api_flood.py."""
import argparse
import http.client
import json
import re
import socket

import openai

from checks import check

ARGS = argparse.Namespace()  # test_api's options: hearth, model, load, slack
HELLO = [{'role': 'user', 'content': 'Tell me about the sea.'}]
LONG = {'max_tokens': 3500, 'extra_body': {'ignore_eos': True}}
LONG_RAW = {'max_tokens': 3500, 'ignore_eos': True, 'messages': HELLO}


def client(s, **more):
    return openai.OpenAI(base_url=s.url + '/v1', api_key=more.pop('key', 'none'), max_retries=more.pop('retries', 0), timeout=120 * s.slack, **more)


def fails(what, kind, call, *, param=None, code=None, text=''):
    """Whether a call of the client fails with this class, and says what it should."""
    try:
        call()
    except kind as e:
        bad = [f'{n} {got!r}, want {want!r}' for n, got, want in (('param', e.param, param), ('code', e.code, code)) if want is not None and got != want]
        check(what, type(e) is kind and not bad and re.search(text, e.message or ''), f'{type(e).__name__}: {e.message} {bad}')
        return e
    except Exception as e:
        check(what, False, f'{type(e).__name__}: {e}')
        return None
    check(what, False, 'there was no error')
    return None


def lists(logprobs):
    return {k: list(getattr(logprobs, k)) for k in ('tokens', 'token_logprobs', 'top_logprobs', 'text_offset')}


def whole(c, kind, **params):
    """An answer as [(text, finish, logprobs)] by choice, and its usage."""
    r = (c.chat.completions if kind == 'chat' else c.completions).create(**params)
    out = []
    for i, x in enumerate(r.choices):
        assert x.index == i
        if kind == 'chat':
            out.append((x.message.content, x.finish_reason, [e.model_dump() for e in x.logprobs.content] if x.logprobs else None))
        else:
            out.append((x.text, x.finish_reason, lists(x.logprobs) if x.logprobs else None))
    return out, (r.usage.prompt_tokens, r.usage.completion_tokens, r.usage.total_tokens)


def streamed(c, kind, **params):
    """The same from a stream's pieces."""
    parts, usage, ids = {}, None, set()
    for x in (c.chat.completions if kind == 'chat' else c.completions).create(stream=True, stream_options={'include_usage': True}, **params):
        ids.add(x.id)
        assert usage is None, 'a chunk after the one with the usage'
        if x.usage is not None:
            assert x.choices == []
            usage = (x.usage.prompt_tokens, x.usage.completion_tokens, x.usage.total_tokens)
        for ch in x.choices:
            p = parts.setdefault(ch.index, {'text': '', 'finish': None, 'logprobs': None, 'n': 0})
            assert p['finish'] is None, 'a chunk after the one with the finish reason'
            piece = ch.delta.content if kind == 'chat' else ch.text
            if kind == 'chat':
                assert (ch.delta.role == 'assistant') == (p['n'] == 0), 'the role stands in the first chunk'
            p['n'] += 1
            p['text'] += piece or ''
            p['finish'] = ch.finish_reason
            if ch.logprobs and kind == 'chat':
                p['logprobs'] = (p['logprobs'] or []) + [e.model_dump() for e in ch.logprobs.content]
            elif ch.logprobs:
                p['logprobs'] = p['logprobs'] or {}
                for k, v in lists(ch.logprobs).items():
                    p['logprobs'][k] = p['logprobs'].get(k, []) + v
    assert len(ids) == 1
    return [(p['text'], p['finish'], p['logprobs']) for _, p in sorted(parts.items())], usage


def open_stream(s, body, path='/v1/chat/completions', headers=None, pieces=1):
    """A stream over a bare connection, read until so many events came. Returns (connection, response)."""
    c = http.client.HTTPConnection('127.0.0.1', s.port, timeout=60 * s.slack)
    c.request('POST', path, json.dumps({'stream': True, **body}), {'Content-Type': 'application/json', **(headers or {})})
    r = c.getresponse()
    assert r.status == 200, r.read()
    while pieces > 0:
        line = r.readline()
        assert line, 'the stream ended early'
        pieces -= line.startswith(b'data: ')
    return c, r


def cut(c, r):
    """Closes the client's side of a stream at once."""
    try:
        c.sock and c.sock.shutdown(socket.SHUT_RDWR)
        r.fp.raw._sock.shutdown(socket.SHUT_RDWR)
    except (OSError, AttributeError):
        pass
    r.close()
    c.close()


def events(r):
    """What is left of a stream: its data lines."""
    return [x[6:] for x in r.read().decode().split('\n') if x.startswith('data: ')]
