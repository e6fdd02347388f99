#!/usr/bin/env python3
"""test_api.py --hearth BIN --model FILE: hearth's HTTP interface through OpenAI's Python client, Prometheus' parser and bare HTTP.

Starts `hearth serve` itself, several times. --slack X makes all time limits X times longer (sanitizer builds). --only NAME[,NAME]
runs tests by name. What the model says is not judged, only that the interface does what docs/API.md says, and that answers
are the same in every form, order and company. The last line reads 'N passed, N failed, N skipped'."""
import argparse
import base64
import concurrent.futures
import hashlib
import http.client
import json
import os
import re
import socket
import subprocess
import sys
import tempfile
import threading
import time

import openai
from prometheus_client.parser import text_string_to_metric_families

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)) + '/tools')
import api_ends  # noqa: F401 (its tests run with these)
import api_flood  # noqa: F401
import gguf_file
from api_client import ARGS, HELLO, LONG_RAW, client, cut, events, fails, open_stream, streamed, whole
from checks import check, finish, run_tests, same, test
from served import BAD, Served, ask, metrics, wait_metric

# --- answers ------------------------------------------------------------------------------------


@test
def answers(s):
    c = client(s)
    r = c.chat.completions.create(model=s.model_id, messages=HELLO, temperature=0, max_tokens=24)
    m = r.choices[0]
    check('chat: shape', r.object == 'chat.completion' and r.id.startswith('chatcmpl-') and m.message.role == 'assistant' and r.model == s.model_id, r)
    check('chat: created', abs(r.created - time.time()) < 100, r.created)
    same('chat: finish at max_tokens', m.finish_reason, 'length')
    check('chat: usage', r.usage.completion_tokens == 24 and r.usage.prompt_tokens > 5 and r.usage.total_tokens == 24 + r.usage.prompt_tokens, r.usage)
    same('chat: max_completion_tokens', c.chat.completions.create(model=s.model_id, messages=HELLO, temperature=0, max_completion_tokens=3).usage.completion_tokens, 3)
    t = c.completions.create(model=s.model_id, prompt='The sea is', temperature=0, max_tokens=8)
    check('completion: shape', t.object == 'text_completion' and t.id.startswith('cmpl-') and t.usage.completion_tokens == 8 and t.choices[0].text, t)
    ids = ask(s, 'POST', '/tokenize', {'content': 'The sea is'}).body['tokens']
    same('completion: usage counts the prompt', t.usage.prompt_tokens, len(ids))
    for name, prompt in (('ids', ids), ('list of ids', [ids]), ('list of one text', ['The sea is'])):
        same(f'completion: prompt as {name}', c.completions.create(model=s.model_id, prompt=prompt, temperature=0, max_tokens=8).choices[0].text, t.choices[0].text)
    raw = ask(s, 'POST', '/v1/completions', {'prompt': 'The sea is', 'temperature': 0, 'max_tokens': 8})
    check('no model named', raw.status == 200 and raw.body['choices'][0]['text'] == t.choices[0].text, raw.data)
    check('request id', raw.headers['x-request-id'].startswith('req_') and raw.body['id'][5:] == raw.headers['x-request-id'][4:], raw.headers)
    check('timings', raw.body['timings']['predicted_n'] == 8 and raw.body['timings']['prompt_n'] == len(ids), raw.body)
    null = ask(s, 'POST', '/v1/completions', {'prompt': 'The sea is', 'temperature': 0, 'max_tokens': 8, 'stop': None, 'seed': None, 'stream': None, 'n': None, 'user': 'me'})
    check('null counts as absent', null.status == 200 and null.body['choices'] == raw.body['choices'], null.data)


@test
def messages(s):
    c = client(s)

    def say(messages):
        r = c.chat.completions.create(model=s.model_id, messages=messages, temperature=0, max_tokens=12)
        return r.choices[0].message.content, r.usage.prompt_tokens
    system = {'role': 'system', 'content': 'You speak like a pirate.'}
    same('developer is system', say([{**system, 'role': 'developer'}, *HELLO]), say([system, *HELLO]))
    parts = [{'type': 'text', 'text': 'Tell me '}, {'type': 'text', 'text': 'about the sea.'}]
    same('text parts are one text', say([{'role': 'user', 'content': parts}]), say(HELLO))
    check('history counts', say([*HELLO, {'role': 'assistant', 'content': 'Wet.'}, {'role': 'user', 'content': 'More.'}])[1] > say(HELLO)[1] + 8)
    image = [{'type': 'image_url', 'image_url': {'url': 'data:,'}}]
    fails('image', openai.BadRequestError, lambda: say([{'role': 'user', 'content': image}]), param='messages[0].content[0].type', code='unsupported', text='image_url')
    for name, message, param, code in (('images', {'images': ['x']}, 'messages[1].images', 'unknown_field'), ('an old call', {'function_call': {'name': 'f'}}, 'messages[1].function_call', 'unsupported'),
                                       ('a part', {'content': [parts[0], {**parts[1], 'cache_control': {}}]}, 'messages[1].content[1].cache_control', 'unknown_field')):
        fails(f'key of a message: {name}', openai.BadRequestError, lambda m=message: say([system, {**HELLO[0], **m}]), param=param, code=code, text=re.escape(param))
    answer = c.chat.completions.create(model=s.model_id, messages=HELLO, max_tokens=2).choices[0].message.model_dump()
    check('an answer may be sent back as it came', say([*HELLO, answer, *HELLO])[1] > 20, answer)
    check('keys that templates know', say([{**HELLO[0], 'name': 'me'}, {'role': 'assistant', 'content': 'a', 'reasoning_content': 'b', 'tool_calls': []}, {'role': 'tool', 'content': 'c', 'tool_call_id': 'd'}])[1] > 9)
    fails('role', openai.BadRequestError, lambda: say([{'role': 'pope', 'content': 'x'}]), param='messages[0].role', text='pope')
    fails('no content', openai.BadRequestError, lambda: say([{'role': 'user'}]), param='messages[0].content')
    fails('no messages', openai.BadRequestError, lambda: say([]), param='messages')
    control = say([{'role': 'user', 'content': '<|im_end|><|im_start|>system'}])[1]
    check('no text forms a control token', control > say([{'role': 'user', 'content': ''}])[1] + 6, control)


@test
def stream_is_whole(s):
    """AN-1, and usage, for many kinds of parameters."""
    c = client(s)
    face = ask(s, 'POST', '/tokenize', {'content': '\U0001f600', 'add_special': False}).body['tokens']
    rows = [('greedy', {'temperature': 0}), ('seed', {'seed': 7}), ('negative seed', {'seed': -3, 'temperature': 1.3}), ('n', {'n': 3, 'seed': 5}),
            ('stop', {'temperature': 0, 'stop': ['e', 'zz']}), ('long stop', {'temperature': 0, 'stop': [' the ocean', ', and']}),
            ('half characters', {'temperature': 0, 'logit_bias': {str(face[0]): 100}}), ('penalties', {'seed': 1, 'presence_penalty': 1, 'frequency_penalty': 0.5}),
            ('sampling', {'seed': 2, 'top_p': 0.8, 'extra_body': {'top_k': 20, 'min_p': 0.05, 'repeat_penalty': 1.1}}), ('one token', {'temperature': 0, 'max_tokens': 1})]
    for kind, prompt in (('chat', {'messages': HELLO}), ('text', {'prompt': 'Of the sea they say'})):
        logprobs = {'logprobs': True, 'top_logprobs': 3} if kind == 'chat' else {'logprobs': 3}
        for name, more in rows + [(n + ' with logprobs', {**m, **logprobs}) for n, m in rows]:
            p = {'model': s.model_id, 'max_tokens': 24, **prompt, **more}
            a, b = whole(c, kind, **p), streamed(c, kind, **p)
            same(f'{kind}, {name}: a stream is the whole', b, a)
    with c.chat.completions.create(model=s.model_id, messages=HELLO, max_tokens=3, stream=True) as plain:
        check('no usage unless asked for', all(x.usage is None and len(x.choices) == 1 for x in plain))
    conn, r = open_stream(s, {'messages': HELLO, 'max_tokens': 3}, pieces=0)
    got = events(r)
    check('raw stream', r.headers['Content-Type'].startswith('text/event-stream') and got[-1] == '[DONE]' and got.count('[DONE]') == 1 and all(json.loads(x) for x in got[:-1]), got)
    conn.close()


@test
def choices(s):
    c = client(s)
    p = {'model': s.model_id, 'messages': HELLO, 'max_tokens': 16, 'temperature': 1, 'seed': 11}
    three, usage = whole(c, 'chat', n=3, **p)
    check('n=3: three different answers', len({x[0] for x in three}) == 3, three)
    check('n=3: usage counts all', usage[1] == 48 or any(x[1] == 'stop' for x in three), usage)
    same('n=3: again', whole(c, 'chat', n=3, **p)[0], three)
    same('n=1 is the first of n=3', whole(c, 'chat', **p)[0][0], three[0])
    fails('n=99', openai.BadRequestError, lambda: c.chat.completions.create(n=99, **p), param='n')
    check('other seed, other answer', whole(c, 'chat', **{**p, 'seed': 12})[0] != three[:1])
    free = {k: v for k, v in p.items() if k != 'seed'}
    check('no seed: answers differ', len({whole(c, 'chat', **free)[0][0][0] for _ in range(4)}) > 1)


@test
def logprobs(s):
    c = client(s)
    r = c.chat.completions.create(model=s.model_id, messages=HELLO, temperature=0, max_tokens=20, logprobs=True, top_logprobs=5)
    e = r.choices[0].logprobs.content
    same('chat: one entry per token', len(e), r.usage.completion_tokens)
    check('chat: bytes are the text', bytes(b for x in e for b in x.bytes).decode() == r.choices[0].message.content, e)
    check('chat: five, best first', all(len(x.top_logprobs) == 5 and [t.logprob for t in x.top_logprobs] == sorted((t.logprob for t in x.top_logprobs), reverse=True) for x in e))
    check('chat: greedy takes the first', all(x.top_logprobs[0].token == x.token and x.top_logprobs[0].logprob == x.logprob <= 0 for x in e))
    plain = c.chat.completions.create(model=s.model_id, messages=HELLO, temperature=0, max_tokens=20, logprobs=True)
    check('chat: no alternatives unless asked for', [x.logprob for x in plain.choices[0].logprobs.content] == [x.logprob for x in e] and all(x.top_logprobs == [] for x in plain.choices[0].logprobs.content))
    check('chat: none', c.chat.completions.create(model=s.model_id, messages=HELLO, max_tokens=2).choices[0].logprobs is None)
    fails('top_logprobs alone', openai.BadRequestError, lambda: c.chat.completions.create(model=s.model_id, messages=HELLO, top_logprobs=2), param='top_logprobs')
    fails('top_logprobs=99', openai.BadRequestError, lambda: c.chat.completions.create(model=s.model_id, messages=HELLO, logprobs=True, top_logprobs=99), param='top_logprobs')
    t = c.completions.create(model=s.model_id, prompt='The sea is', temperature=0, max_tokens=12, logprobs=4).choices[0]
    lp = t.logprobs
    same('text: tokens are the text', ''.join(lp.tokens), t.text)
    same('text: offsets', lp.text_offset, [sum(map(len, lp.tokens[:i])) for i in range(12)])
    check('text: four, and the chosen one among them', all(len(d) == 4 and d[k] == v == max(d.values()) for d, k, v in zip(lp.top_logprobs, lp.tokens, lp.token_logprobs, strict=True)), lp)
    zero = c.completions.create(model=s.model_id, prompt='The sea is', temperature=0, max_tokens=12, logprobs=0).choices[0].logprobs
    emoji = ask(s, 'POST', '/v1/completions', {'prompt': 'emojis: \U0001f440\U0001f44f\U0001f331', 'temperature': 0, 'max_tokens': 3, 'logprobs': 10, 'ignore_eos': True})
    tops = emoji.body['choices'][0]['logprobs']['top_logprobs'] if emoji.status == 200 else []
    check('text: parts of characters are told apart', [len(d) for d in tops] == [10] * 3 and any(k.startswith('bytes:') for d in tops for k in d), emoji.data)
    check('text: logprobs=0', zero.token_logprobs == lp.token_logprobs and all(d == {} for d in zero.top_logprobs), zero)


@test
def stops(s):
    c = client(s)
    p = {'model': s.model_id, 'messages': HELLO, 'temperature': 0, 'max_tokens': 40}
    text = c.chat.completions.create(**p).choices[0].message.content
    for at, n in ((1, 1), (5, 7), (len(text) // 2, 11), (len(text) - 3, 3)):
        stop = text[at:at + n]
        want = text[:text.index(stop)]
        r = c.chat.completions.create(stop=stop, **p)
        check(f'stop text {stop!r}', r.choices[0].message.content == want and r.choices[0].finish_reason == 'stop', r.choices[0])
        early = ['never here', stop] if at else [stop]
        same(f'stop texts {early!r}, streamed', streamed(c, 'chat', stop=early, **p)[0][0][:2], (want, 'stop'))
    fails('17 stop texts', openai.BadRequestError, lambda: c.chat.completions.create(stop=['x'] * 17, **p), param='stop', code='limit_reached')
    fails('empty stop text', openai.BadRequestError, lambda: c.chat.completions.create(stop='', **p), param='stop')


@test
def bias(s):
    c = client(s)
    ids = ask(s, 'POST', '/tokenize', {'content': ' hello', 'add_special': False}).body['tokens']
    p = {'model': s.model_id, 'prompt': 'The sea is', 'temperature': 0, 'max_tokens': 4}
    same('one token favoured', c.completions.create(logit_bias={str(ids[0]): 100}, **p).choices[0].text, ' hello' * 4)
    first = c.completions.create(logprobs=2, **p).choices[0]
    top = ask(s, 'POST', '/tokenize', {'content': first.logprobs.tokens[0], 'add_special': False}).body['tokens']
    other = c.completions.create(logit_bias={str(top[0]): -100}, **p).choices[0].text
    check('one token forbidden', not other.startswith(first.logprobs.tokens[0]), other)
    fails('bias: no id', openai.BadRequestError, lambda: c.completions.create(logit_bias={'sea': 1}, **p), param='logit_bias')
    fails('bias: too large', openai.BadRequestError, lambda: c.completions.create(logit_bias={'1': 101}, **p), param='logit_bias')
    fails('bias: no such token', openai.BadRequestError, lambda: c.completions.create(logit_bias={'99999999': 1}, **p), param='logit_bias', code='invalid_value', text='99999999.* has [0-9]+ tokens')


@test
def same_in_company(s):
    """Eight different requests, alone and all at once, to the last bit of their log probabilities."""
    c = client(s)
    subjects = ['rain', 'a lighthouse', 'iron', 'the moon', 'bread', 'winter', 'Paris', 'an owl and a very long journey over seven mountains']
    asks = [{'model': s.model_id, 'messages': [{'role': 'user', 'content': f'Write about {x}.'}], 'max_tokens': 24 + 3 * i, 'seed': i, 'temperature': i % 3 * 0.6,
             'logprobs': True, 'top_logprobs': 2} for i, x in enumerate(subjects)]
    alone = [whole(c, 'chat', **a) for a in asks]
    before = metrics(s)
    for turn in range(2):
        with concurrent.futures.ThreadPoolExecutor(8) as pool:
            together = list(pool.map(lambda ia: (whole if (ia[0] + turn) % 2 else streamed)(c, 'chat', **ia[1]), enumerate(asks)))
        for i, (a, b) in enumerate(zip(alone, together, strict=True)):
            same(f'answer {i} in company, turn {turn}', b, a)
    after = metrics(s)
    large = sum(after[k] - before[k] for k in after if 'decode_steps_total' in k and re.search(r'"(5|9|17)-', k))
    check('they ran in one batch', large > 5, after)


# --- other routes -------------------------------------------------------------------------------


@test
def failing_engine(s):
    """A model whose scores are not numbers behind one token: its answers fail, in every form."""
    with tempfile.TemporaryDirectory() as d:
        tiny = os.path.dirname(os.path.dirname(ARGS.model)) + '/zoo/llama.gguf'
        m = gguf_file.Model.parse(open(tiny, 'rb').read())
        t = next(t for t in m.tensors if t.name == b'token_embd.weight')
        row, bad = len(t.data) // t.dims[1], 200
        t.data = bytes(t.data[:bad * row]) + b'\0\0\xc0\x7f' * (row // 4) + bytes(t.data[(bad + 1) * row:])
        with open(d + '/broken.gguf', 'wb') as f:
            f.write(m.pack())
        with Served(ARGS.hearth, d + '/broken.gguf', slack=ARGS.slack) as k:
            for n in (1, 3):
                ask_for = {'prompt': [5, bad, 6], 'max_tokens': 4, 'n': n, 'logprobs': 2}
                r = ask(k, 'POST', '/v1/completions', ask_for)
                check(f'{n} choices: 500', r.status == 500 and r.error['code'] == 'engine_error' and 'hearth verify MODEL' in r.error['message'] and d not in r.error['message'], r.data[:300])
                c, r = open_stream(k, ask_for, '/v1/completions', pieces=0)
                got = events(r)
                check(f'{n} choices: a stream is an error alone', len(got) == 2 and json.loads(got[0])['error']['code'] == 'engine_error' and got[1] == '[DONE]', got)
                c.close()
            same('others are answered', ask(k, 'POST', '/v1/completions', {'prompt': [5, 6], 'max_tokens': 4, 'temperature': 0}).status, 200)
            same('none runs', metrics(k)['hearth_requests_running'], 0)
            same('exit code', k.end(), 0)


GEMMA = """{% for m in messages %}{% if (m.role == 'user') != (loop.index0 % 2 == 0) %}{{ raise_exception('roles must alternate user/assistant') }}{% endif %}{{ m.role + ': ' + m.content | trim + '\n' }}{% endfor %}"""


@test
def calls_and_templates(s):
    """Tool calls that a template leaves out are refused, whatever stands beside them: nothing, an empty text or a text."""
    tiny = os.path.dirname(os.path.dirname(ARGS.model)) + '/zoo/llama.gguf'
    made = {'role': 'assistant', 'tool_calls': [{'id': 'c', 'type': 'function', 'function': {'name': 'f', 'arguments': '{}'}}]}
    contents = {'null': None, 'empty': '', 'no parts': [], 'empty parts': [{'type': 'text', 'text': ''}], 'text': 'a', 'part': [{'type': 'text', 'text': 'a'}]}
    plain = '{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}'
    shows = '{% for m in messages %}{{ m.role }}: {{ m.content }}{% if m.tool_calls %}{{ m.tool_calls | tojson }}{% endif %}\n{% endfor %}'
    either = '{% for m in messages %}{% if m.content %}{{ m.content }}{% else %}{{ m.tool_calls | tojson }}{% endif %}\n{% endfor %}'
    left_out = 'leaves them out'
    for name, template, reason in (('shows them', shows, {}), ('drops them', plain, dict.fromkeys(contents, left_out)), ('shows them or a text', either, dict.fromkeys(('text', 'part'), left_out)),
                                   ('fails without a text', plain.replace('{{ m.content', '{{ m.content + "x"'), {**dict.fromkeys(contents, left_out), 'null': 'NoneType'}),
                                   ('wants a system message', "{% if messages[0].role != 'system' %}{{ raise_exception('system first') }}{% endif %}" + plain, dict.fromkeys(contents, left_out)),
                                   ('knows no role of tools', GEMMA, dict.fromkeys(contents, left_out))):
        with tempfile.TemporaryDirectory() as d:
            m = gguf_file.Model.parse(open(tiny, 'rb').read())
            m.keys = [k for k in m.keys if k.name != b'tokenizer.chat_template'] + [gguf_file.Key(b'tokenizer.chat_template', gguf_file.STRING, template.encode())]
            with open(d + '/calls.gguf', 'wb') as f:
                f.write(m.pack())
            with Served(ARGS.hearth, d + '/calls.gguf', slack=ARGS.slack) as k:
                front = [{'role': 'system', 'content': 'a'}] if 'system' in name else []
                for what, content in contents.items():
                    r = ask(k, 'POST', '/v1/chat/completions', {'messages': [*front, USER, {**made, 'content': content}, USER, {**made, 'content': content}, USER], 'max_tokens': 1})
                    want = reason.get(what)
                    check(f'a template that {name}: {what}', r.status == 200 if want is None else r.status == 400 and (r.error['param'], r.error['code']) == (f'messages[{len(front) + 1}]', 'unsupported')
                          and re.search(rf'tool calls (without|beside).* content.*{want}', r.error['message']), r.data[:400])
                r = ask(k, 'POST', '/v1/chat/completions', {'messages': [*front, USER, {'role': 'assistant', 'content': 'a', 'tool_calls': []}, USER], 'max_tokens': 1})
                same(f'a template that {name}: no calls', r.status, 200)


@test
def models(s):
    c = client(s)
    listed = list(c.models.list())
    check('list', len(listed) == 1 and listed[0].id == s.model_id and listed[0].object == 'model' and listed[0].owned_by == 'hearth', listed)
    same('retrieve', c.models.retrieve(s.model_id), listed[0])
    meta = ask(s, 'GET', '/v1/models').body['data'][0]['meta']
    check('meta', meta['n_ctx'] > 0 and meta['n_vocab'] > 1000 and meta['n_params'] > 0 and meta['size'] > 0 and meta['type'], meta)
    fails('retrieve another', openai.NotFoundError, lambda: c.models.retrieve('gpt-4'), param='model', code='model_not_found', text='gpt-4')
    fails('chat with another', openai.NotFoundError, lambda: c.chat.completions.create(model='gpt-4', messages=HELLO), param='model', code='model_not_found', text='gpt-4')


@test
def tokens(s):
    for text in ('Hello, world!', '', ' ', 'na\u00efve \u4e2d\u6587 \U0001f600 \u0301', '<|im_start|>user', 'a\nb\tc\u0000d', 'x' * 5000):
        t = ask(s, 'POST', '/tokenize', {'content': text, 'add_special': False})
        back = ask(s, 'POST', '/detokenize', {'tokens': t.body.get('tokens', [])})
        check(f'{text[:20]!r} there and back', t.status == back.status == 200 and back.body['content'] == text and t.body['count'] == len(t.body['tokens']), (t.data[:200], back.data[:200]))
    marked, plain = (ask(s, 'POST', '/tokenize', {'content': '<|im_start|>', 'add_special': False, 'parse_special': p}).body['count'] for p in (True, False))
    check('parse_special', marked == 1 < plain, (marked, plain))
    for what, path, body in (('text', '/tokenize', {'content': 5}), ('nothing', '/tokenize', {}), ('ids', '/tokenize', {'prompt': [1, 2]}), ('texts', '/detokenize', {'tokens': ['a']}), ('a large id', '/detokenize', {'tokens': [2 ** 31 - 1]}),
                             ('a negative id', '/detokenize', {'tokens': [-1]}), ('an unknown field', '/tokenize', {'content': 'a', 'no_such': 1})):
        r = ask(s, 'POST', path, body)
        check(f'{path} refuses {what}', r.status == 400 and r.error.get('message'), r.data)


@test
def small_routes(s):
    for path in ('/healthz', '/livez'):
        r = ask(s, 'GET', path)
        check(path, r.status == 200 and r.body == {'status': 'ok'}, r.data)
    for path in ('/readyz', '/health'):
        r = ask(s, 'GET', path)
        check(path, r.status == 200 and r.body == {'status': 'ready', 'reason': None}, r.data)
    check('/version', re.match(r'\d+\.\d+', ask(s, 'GET', '/version').body['version']))
    for path in ('/healthz', '/v1/models', '/metrics', '/readyz'):
        r, g = ask(s, 'HEAD', path), ask(s, 'GET', path)
        check(f'HEAD {path}', r.status == 200 and r.data == b'' and int(r.headers['Content-Length']) > 0 and r.headers['Content-Type'] == g.headers['Content-Type'], r.headers)
    for method, path, allow in (('POST', '/healthz', 'GET, HEAD'), ('GET', '/v1/chat/completions', 'POST'), ('HEAD', '/v1/completions', 'POST'), ('DELETE', '/v1/models/x', 'GET, HEAD'),
                                ('PUT', '/tokenize', 'POST'), ('OPTIONS', '/v1/chat/completions', 'POST'), ('POST', '/', 'GET, HEAD')):
        r = ask(s, method, path)
        check(f'405 {method} {path}', r.status == 405 and r.headers['Allow'] == allow and (method == 'HEAD' or r.error['code'] == 'method_not_allowed'), (r.status, r.headers['Allow']))
    for path in ('/v1', '/v1/nothing', '/healthz/', '/..%2f..%2fetc/passwd', '/v1/chat/completions/x'):
        r = ask(s, 'GET', path)
        check(f'404 {path}', r.status == 404 and r.error['code'] == 'not_found' and r.error['type'] == 'invalid_request_error', r.data)
    check('query is no part of the path', ask(s, 'GET', '/healthz?x=1').status == 200)


# --- refusals -----------------------------------------------------------------------------------


@test
def refusals(s):
    c = client(s)

    def chat(**more):
        return c.chat.completions.create(**{'model': s.model_id, 'messages': HELLO, 'max_tokens': 2, **more})
    for field, value in (('max_tokens', 'many'), ('max_tokens', 0), ('max_tokens', 2.5), ('temperature', 'hot'), ('temperature', -1), ('temperature', 1e-20), ('temperature', 1e-300), ('temperature', 101), ('top_p', 2), ('seed', 1.5), ('stop', 5), ('stream', 'yes'),
                         ('n', 0), ('logit_bias', [1]), ('logprobs', 3), ('messages', 'hi'), ('presence_penalty', 3), ('stream_options', 1), ('model', 7),
                         ('top_p', 0)):
        fails(f'{field}={value!r}', openai.BadRequestError, lambda f=field, v=value: chat(**{f: v}), param=field)
    check('the smallest temperature', chat(temperature=1e-6).choices)
    fails('unknown field', openai.BadRequestError, lambda: chat(extra_body={'no_such_field': 1}), param='no_such_field', code='unknown_field')
    tool = [{'type': 'function', 'function': {'name': 'f', 'parameters': {}}}]
    schema = {'type': 'json_schema', 'json_schema': {'name': 'x', 'schema': {}}}
    for name, more in (('tools', {'tools': tool}), ('response_format', {'response_format': schema}), ('functions', {'functions': [{'name': 'f'}]}), ('modalities', {'modalities': ['audio']})):
        fails(name, openai.BadRequestError, lambda m=more: chat(**m), param=name, code='unsupported')
    check('what asks for nothing is taken', chat(tools=[], response_format={'type': 'text'}, user='u', metadata={'a': 'b'}, store=False, modalities=['text'], tool_choice='none').choices)
    for name, more in (('echo', {'echo': True}), ('suffix', {'suffix': 'x'}), ('best_of', {'best_of': 3}), ('prompt', {'prompt': ['a', 'b']})):
        fails(name, openai.BadRequestError, lambda m=more: c.completions.create(**{'model': s.model_id, 'prompt': 'x', **m}), param=name, code='unsupported')
    fails('empty prompt', openai.BadRequestError, lambda: c.completions.create(model=s.model_id, prompt=[]), param='prompt')
    fails('token id', openai.BadRequestError, lambda: c.completions.create(model=s.model_id, prompt=[1, 10 ** 7]), param='prompt', text='10000000')
    deep = b'{"messages": ' + b'[' * 100000 + b']' * 100000 + b'}'
    rows = [('nothing', b''), ('half an object', b'{"messages": ['), ('a list', b'[]'), ('deep nesting', deep), ('a key twice', b'{"prompt": [1], "prompt": [2]}'), ('bad UTF-8', b'{"prompt": "\xff"}'),
            ('text behind', b'{"prompt": "a"} x'), ('a lone surrogate', b'{"prompt": "\\ud800"}'), ('a huge number', b'{"prompt": "a", "seed": 1e999}'), ('NaN', b'{"prompt": "a", "temperature": NaN}')]
    for name, body in rows:
        r = ask(s, 'POST', '/v1/completions', body)
        check(f'no JSON: {name}', r.status == 400 and r.error.get('code') == 'invalid_json', r.data[:300])
    r = ask(s, 'POST', '/v1/chat/completions', {'messages': [{'role': 'user', 'content': 'x'}] * 5000})
    r = ask(s, 'POST', '/v1/chat/completions', {'messages': [{'role': 'user', 'content': 'x' * (2 << 20)}]})
    check('2 MiB of text', r.status == 400 and (r.error['code'], r.error['param']) == ('limit_reached', 'messages') and
          re.fullmatch('messages: the body of 2097[0-9]{3} bytes has more than 2097152 of this, which is the most, whatever --max-body says', r.error['message']), r.data[:300])
    check('5000 messages', r.status == 400 and r.error['code'] == 'limit_reached', r.data[:300])
    r = ask(s, 'POST', '/v1/chat/completions', {'messages': HELLO, 'x\n\u001b[2J' * 20: 1})
    check('a nasty field name', r.status == 400 and r.error['code'] == 'unknown_field' and '\x1b' not in r.error['message'], r.data)
    check('still well', chat().choices)


USER = {'role': 'user', 'content': 'x'}


@test
def fields(s):
    """Every field of a wrong type or out of its range is named, with what is wanted and what was found."""
    chat, text = '/v1/chat/completions', '/v1/completions'
    wrong, value, limit, gone, odd = 'invalid_type', 'invalid_value', 'limit_reached', 'missing_field', 'unsupported'
    both = [('max_tokens', '5', wrong, 'a whole number is wanted, found "5"'), ('max_tokens', 1.5, wrong, 'found 1.5'), ('max_tokens', 0, value, 'from 1 to 16777216 is wanted, found 0'),
            ('max_tokens', 2 ** 40, value, 'found 1099511627776'), ('max_tokens', True, wrong, 'found true'), ('n', 9, value, 'from 1 to 8 is wanted, found 9'), ('n', {}, wrong, 'found an object'), ('n', 0, value, 'found 0'),
            ('stream', 1, wrong, 'true or false is wanted, found 1'), ('stream_options', [], wrong, 'found a list'), ('stream_options', {'include_usage': 1}, wrong, 'stream_options.include_usage: .* found 1'),
            ('stream_options', {'x': 1}, 'unknown_field', 'stream_options.x'), ('temperature', '1', wrong, 'a number is wanted'), ('temperature', 100.5, value, 'found 100.5'), ('temperature', -1, value, 'found -1'),
            ('top_p', 0, value, 'from 1e-06 to 1 is wanted, found 0'), ('top_p', 1.5, value, 'found 1.5'), ('top_p', [], wrong, 'found a list'), ('top_k', -1, value, 'from 0 to 16777216'), ('top_k', 1.5, wrong, 'found 1.5'),
            ('min_p', 2, value, 'from 0 to 1'), ('typical_p', 0, value, 'found 0'), ('repeat_penalty', 0, value, 'from 0.01 to 10'), ('repetition_penalty', 11, value, 'found 11'), ('repeat_last_n', -2, value, 'from -1 to 16777216'),
            ('presence_penalty', 2.5, value, 'from -2 to 2 is wanted, found 2.5'), ('frequency_penalty', '0', wrong, 'found "0"'), ('seed', 1.5, wrong, 'a whole number'), ('seed', '1', wrong, 'found "1"'), ('seed', 2 ** 64 - 1, wrong, r'from -2\^63 to 2\^63 - 1, .* found 1.8446\d+e\+19'), ('seed', 1e300, wrong, 'found 1e\\+300'),
            ('stop', 5, wrong, 'a text or a list of texts is wanted, found 5'), ('stop', ['a', 5], wrong, r'stop\[1\]: a text is wanted, found 5'), ('stop', ['a', None], wrong, r'stop\[1\].* found null'), ('stop', '', value, 'not empty'),
            ('stop', 'a\0b', value, 'zero'), ('stop', ['x'] * 17, limit, '17 texts, at most 16'), ('stop', 'x' * 257, limit, '257 bytes, at most 256'), ('logit_bias', [], wrong, 'an object is wanted, found a list'),
            ('logit_bias', {'a': 1}, value, 'found "a"'), ('logit_bias', {'-1': 1}, value, 'found "-1"'), ('logit_bias', {'500': 1, '0500': 2}, value, 'found "0500"'), ('logit_bias', {'00': 1}, value, 'found "00"'), ('logit_bias', {'5': 'x'}, wrong, r'logit_bias\["5"\]: a number is wanted, found "x"'), ('logit_bias', {'5': 101}, value, 'from -100 to 100 is wanted, found 101'),
            ('logit_bias', {str(i): 0 for i in range(1025)}, limit, '1025 entries, at most 1024'), ('logit_bias', {'2147483647': 1}, value, '2147483647'), ('ignore_eos', 1, wrong, 'found 1'), ('user', 7, wrong, 'a text is wanted, found 7'),
            ('metadata', 5, wrong, 'found 5'), ('metadata', {'a': 1}, wrong, r'metadata\.a: a text is wanted, found 1'), ('store', 1, wrong, 'found 1'), ('store', True, odd, ''), ('service_tier', 1, wrong, 'found 1'),
            ('safety_identifier', {}, wrong, 'a text'), ('prompt_cache_key', 1, wrong, ''), ('prompt_cache_retention', [], wrong, ''),
            ('seed', 2.0 ** 53, wrong, 'without point or exponent is wanted'), ('seed', 1e18, wrong, r'found 1e\+18'), ('model', 7, wrong, 'found 7'), ('model', 'x' * 256, value, 'at most 255 bytes'), ('model', 'a\0', value, 'zero')]
    rows = [(p, *r) for p in (chat, text) for r in both]
    rows += [(chat, *r) for r in [
        ('max_completion_tokens', 0, value, 'found 0'), ('logprobs', 3, wrong, 'true or false'), ('top_logprobs', 21, value, 'from 0 to 20'), ('template_vars', 1, wrong, 'an object'), ('template_vars', {'messages': []}, value, 'messages is a field of its own'), ('chat_template_kwargs', {'a': 1, 'tools': []}, value, 'tools is a field of its own'), ('chat_template_kwargs', [], wrong, 'an object'),
        ('response_format', 'text', wrong, 'an object is wanted'), ('response_format', {}, gone, 'response_format.type'), ('response_format', {'type': 1}, wrong, 'found 1'), ('response_format', {'type': 'json_object'}, odd, 'schema'),
        ('tools', {}, wrong, 'a list'), ('tools', [1], wrong, r'tools\[0\]: an object is wanted, found 1'), ('tools', [{}], odd, ''), ('functions', 1, wrong, 'a list'), ('tool_choice', 1, wrong, 'found 1'), ('tool_choice', 'required', odd, ''),
        ('function_call', [], wrong, ''), ('modalities', 'text', wrong, 'a list'), ('modalities', ['text', 1], wrong, r'modalities\[1\]'), ('modalities', ['audio'], odd, ''), ('audio', 1, wrong, 'an object'), ('audio', {}, odd, ''),
        ('prediction', {'type': 'content'}, odd, ''), ('web_search_options', {}, odd, ''), ('reasoning_effort', 1, wrong, 'a text'), ('reasoning_effort', 'low', odd, ''), ('verbosity', 'low', odd, ''),
        ('parallel_tool_calls', {}, wrong, 'true or false is wanted, found an object')]]
    rows += [(text, *r) for r in [
        ('logprobs', True, wrong, 'a whole number'), ('logprobs', 21, value, 'from 0 to 20'), ('echo', 1, wrong, 'true or false'), ('echo', True, odd, ''), ('suffix', 1, wrong, 'a text'), ('suffix', 'x', odd, ''), ('best_of', 'x', wrong, 'a whole number'),
        ('best_of', 2, odd, ''), ('add_special', 1, wrong, 'true or false'), ('parse_special', 'x', wrong, ''), ('prompt', 5, wrong, 'a text or a list of token ids is wanted, found 5'), ('prompt', {}, wrong, 'found an object'),
        ('prompt', [1, 'a'], wrong, r'prompt\[1\]: a token id .* found "a"'), ('prompt', [-1], wrong, 'found -1'), ('prompt', ['a', 'b'], odd, 'several'), ('prompt', [], value, 'empty'), ('prompt', None, gone, 'prompt')]]
    for path, name, what, code, message in rows:
        r = ask(s, 'POST', path, {**({'messages': [USER]} if path == chat else {'prompt': 'x'}), name: what})
        e = r.error
        check(f'{path} {name}={str(what)[:40]}', r.status == 400 and (e.get('param'), e.get('code')) == (name, code) and re.search(message, e['message']) and name in e['message'] + ' prompt', (r.status, r.data[:300]))
    call = {'id': 'c', 'type': 'function', 'function': {'name': 'f', 'arguments': '{}'}}
    made = {'role': 'assistant', 'content': None, 'tool_calls': [call]}
    for m, param, code, message in [
            (5, '', wrong, 'an object is wanted, found 5'), ({'content': 'x'}, '.role', gone, 'system, developer'), ({**USER, 'role': None}, '.role', gone, ''), ({**USER, 'role': 5}, '.role', wrong, 'found 5'), ({**USER, 'role': 'pope'}, '.role', value, 'found "pope"'),
            ({'role': 'user'}, '.content', gone, 'a text'), ({**USER, 'content': None}, '.content', gone, ''), ({**USER, 'content': 5}, '.content', wrong, 'found 5'), ({**USER, 'content': {}}, '.content', wrong, 'found an object'),
            ({'role': 'assistant'}, '.content', gone, 'tool_calls'), ({**made, 'tool_calls': []}, '.content', gone, 'tool_calls'), ({**made, 'tool_calls': None}, '.content', gone, 'tool_calls'), ({**made, 'role': 'user'}, '.content', gone, ''),
            ({**made, **USER}, '.tool_calls', value, 'assistant.*found "user"'),
            ({**made, 'tool_calls': 5}, '.tool_calls', wrong, 'a list'), ({**made, 'tool_calls': [5]}, '.tool_calls[0]', wrong, 'an object'), ({**made, 'tool_calls': [call, {}]}, '.tool_calls[1].function', gone, ''),
            ({**made, 'tool_calls': [{'function': {'name': 1}}]}, '.tool_calls[0].function.name', wrong, 'found 1'), ({**USER, 'name': 5}, '.name', wrong, 'found 5'), ({**USER, 'tool_call_id': 5}, '.tool_call_id', wrong, ''),
            ({**USER, 'reasoning_content': []}, '.reasoning_content', wrong, ''), ({**USER, 'x': 1}, '.x', 'unknown_field', ''), ({**USER, 'content': [5]}, '.content[0]', wrong, 'found 5'), ({**USER, 'content': [{}]}, '.content[0].type', gone, ''),
            ({**USER, 'content': [{'type': 1}]}, '.content[0].type', wrong, ''), ({**USER, 'content': [{'type': 'image_url', 'image_url': {}}]}, '.content[0].type', odd, 'image_url'),
            ({**USER, 'content': [{'type': 'text', 'text': 'a'}, {'type': 'text'}]}, '.content[1].text', gone, 'a text is wanted'), ({**USER, 'content': [{'type': 'text', 'text': None}]}, '.content[0].text', gone, ''),
            ({**USER, 'content': [{'type': 'text', 'text': 5}]}, '.content[0].text', wrong, 'found 5'), ({**USER, 'content': [{'type': 'text', 'text': 'a', 'x': 1}]}, '.content[0].x', 'unknown_field', '')]:
        r = ask(s, 'POST', chat, {'messages': [USER, m], 'max_tokens': 1})
        check(f'message {m}', r.status == 400 and r.error.get('code') == code and r.error['param'].startswith('messages[1]' + param) and r.error['param'] in r.error['message'] and re.search(message, r.error['message']), (r.status, r.data[:300]))
    for what, message in (([], 'empty list'), ('x', 'found "x"'), ({}, 'found an object'), (None, 'messages is missing'), ([USER] * 4097, '4097 messages, at most 4096')):
        r = ask(s, 'POST', chat, {'messages': what})
        check(f'messages {str(what)[:30]}', r.status == 400 and r.error['param'] == 'messages' and re.search(message, r.error['message']), r.data)
    for path, name, more in ((chat, 'max_tokens', {'max_tokens': 2, 'max_completion_tokens': 3}), (text, 'repeat_penalty', {'repetition_penalty': 1.5, 'repeat_penalty': 1.1}), (chat, 'template_vars', {'template_vars': {}, 'chat_template_kwargs': {}})):
        r = ask(s, 'POST', path, {'messages': [USER], **more} if path == chat else {'prompt': 'x', **more})
        check(f'two names for one thing: {more}', r.status == 400 and r.error['code'] == value and all(x in r.error['message'] for x in more), r.data)
    every = dict.fromkeys([r[1] for r in rows if r[0] == chat])
    same('null counts as absent, for every field', ask(s, 'POST', chat, {**every, 'messages': [{**USER, 'name': None, 'tool_calls': None, 'tool_call_id': None, 'reasoning_content': None}], 'max_tokens': 1}).status, 200)
    nulls = {'no_such': None, 'echo': None, 'metadata': {'a': None}, 'logit_bias': {'3': None, 'x': None}, 'stream_options': {'no_such': None},
             'messages': [{'role': 'user', 'content': [{'type': 'text', 'text': 'x', 'cache_control': None}], 'no_such': None}]}
    for name, what in nulls.items():
        r = ask(s, 'POST', chat, {'messages': [USER], 'max_tokens': 1, name: what})
        same(f'null counts as absent: {name}={what}', (r.status, r.error), (200, {}))
    whole = {'max_tokens': 2, 'n': 2, 'top_k': 5, 'seed': 7, 'logprobs': 1, 'best_of': 1, 'prompt': [5, 6]}
    real = {k: float(v) if k != 'prompt' else [5.0, 6.0] for k, v in whole.items()}
    a, b = (ask(s, 'POST', text, x) for x in (whole, real))
    check('5.0 is 5', a.status == b.status == 200 and a.body['choices'] == b.body['choices'], (a.data[:200], b.data[:200]))
    for one, other in (('', 'AB'), ('AB', ''), ('', '')):
        for names in (('content', 'text'), ('text', 'content'), ('prompt', 'content')):
            r = ask(s, 'POST', '/tokenize', dict(zip(names, (one, other), strict=True)))
            check(f'/tokenize: {names} {one!r} {other!r}', r.status == 400 and re.search('the text is given twice', r.error['message']), r.data)
    for name in ('template_vars', 'chat_template_kwargs'):
        r = ask(s, 'POST', chat, {'messages': [USER], name: {'a': 'x' * 3000000}})
        check(f'{name}: too large', r.status == 400 and (r.error['param'], r.error['code']) == (name, limit) and r.error['message'].startswith(name), r.data[:300])
    answer = {'role': 'assistant', 'content': 'a', 'refusal': None}
    plain, empty = (ask(s, 'POST', chat, {'messages': [USER, {**answer, **more}, USER], 'max_tokens': 1}) for more in ({}, {'annotations': [], 'audio': None, 'function_call': []}))
    check('what an answer has empty is taken', empty.status == 200 and empty.body['usage'] == plain.body['usage'], empty.data)
    r = ask(s, 'POST', chat, {'messages': [USER, {**answer, 'annotations': [{}]}, USER], 'max_tokens': 1})
    check('and what it has is refused', (r.status, r.error.get('param'), r.error.get('code')) == (400, 'messages[1].annotations', odd), r.data)
    labels = {'store': False, 'metadata': {'a': 'b'}, 'user': 'u', 'service_tier': 'auto', 'safety_identifier': 'x', 'prompt_cache_key': 'x', 'prompt_cache_retention': '24h', 'stop': [], 'logit_bias': {}, 'stream_options': {}}
    fine = {**labels, 'parallel_tool_calls': True, 'tools': [], 'tool_choice': 'auto',
            'functions': [], 'modalities': ['text'], 'response_format': {'type': 'text'}, 'template_vars': {}}
    same('what changes nothing is taken', ask(s, 'POST', chat, {'messages': [USER, {'role': 'assistant', 'content': '', 'tool_calls': []}, {'role': 'tool', 'content': 'x', 'tool_call_id': 'c'}], 'max_tokens': 1, **fine}).status, 200)
    same('so in completions', ask(s, 'POST', text, {'prompt': 'x', 'max_tokens': 1, 'echo': False, 'suffix': '', 'best_of': 1, **labels}).status, 200)


@test
def too_large(s):
    with socket.create_connection(('127.0.0.1', s.port), 30) as k:
        k.sendall(b'POST /v1/completions HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 17825792\r\n\r\n')
        check('413 before the body', k.recv(65536).startswith(b'HTTP/1.1 413 '))
    try:
        client(s).completions.create(model=s.model_id, prompt='x' * (17 << 20))
        check('413 through the client', False, 'there was no error')
    except openai.APIStatusError as e:
        check('413 through the client', e.status_code == 413 and e.code == 'body_too_large', e)
    r = ask(s, 'POST', '/tokenize', {'content': 'word ' * 400000})
    check('2 MB are fine', r.status == 200 and r.body['count'] >= 400000, r.data[:200])


@test
def answer_too_large(s):
    """More than is kept for a whole answer: refused, its generation ended; as a stream it is given whole."""
    with Served(ARGS.hearth, ARGS.model, '--max-body', '1', '--parallel', '4', slack=ARGS.slack) as k:
        for path, more, much in (('/v1/chat/completions', {'messages': HELLO, 'logprobs': True, 'top_logprobs': 20}, 150), ('/v1/completions', {'prompt': 'The sea', 'logprobs': 20}, 400)):
            more = {'n': 4, 'ignore_eos': True, **more}
            r = ask(k, 'POST', path, {'max_tokens': much, **more})
            check(f'{path}: an answer beyond what is kept', r.status == 500 and r.error['code'] == 'answer_too_large' and '1048576 bytes' in r.error['message'] and 'stream' in r.error['message'], (r.status, len(r.data), r.data[:300]))
            check(f'{path}: its generation ends', wait_metric(k, 'hearth_requests_running', 0, 10 * k.slack) is not None)
            r = ask(k, 'POST', path, {'max_tokens': 20, **more})
            check(f'{path}: the next is given whole', r.status == 200 and r.body['usage']['completion_tokens'] == 80, r.data[:300])
            c, r = open_stream(k, {'max_tokens': much, 'stream_options': {'include_usage': True}, **more}, path, pieces=0)
            got = events(r)
            check(f'{path}: as a stream it is given', got[-1] == '[DONE]' and json.loads(got[-2])['usage']['completion_tokens'] == 4 * much, (len(got), got[-2:]))
            c.close()
        same('exit code', k.end(), 0)


@test
def asked_from_here(s):
    own = f'127.0.0.1:{s.port}'
    rows = [({'Host': own}, 200), ({'Host': f'localhost:{s.port}'}, 200), ({'Host': 'LOCALHOST'}, 200), ({'Host': '[::1]:80'}, 200), ({'Host': '127.0.0.2'}, 200),
            ({'Host': 'evil.example'}, 403), ({'Host': f'127.0.0.1.evil.example:{s.port}'}, 403), ({'Host': 'localhost.evil.example'}, 403), ({'Host': '10.0.0.1'}, 403),
            ({'Host': '[::2]'}, 403), ({'Host': own, 'Origin': f'http://{own}'}, 200), ({'Host': own, 'Origin': 'http://evil.example'}, 403), ({'Host': own, 'Origin': 'null'}, 403),
            ({'Host': own, 'Origin': 'http://127.0.0.1:1'}, 403), ({'Host': own, 'Origin': f'http://localhost:{s.port}'}, 403)]
    for headers, status in rows:
        r = ask(s, 'GET', '/v1/models', headers=headers)
        check(f'{status} for {headers}', r.status == status and (status == 200 or r.error['code'] == 'forbidden' and r.error['type'] == 'permission_error'), r.data)
    r = ask(s, 'POST', '/v1/chat/completions', {'messages': HELLO, 'max_tokens': 1}, headers={'Origin': 'https://evil.example', 'Content-Type': 'text/plain'})
    same('no page of another site may ask', r.status, 403)


@test
def context(s):
    with Served(ARGS.hearth, ARGS.model, '--ctx', '256', '--parallel', '2', slack=ARGS.slack) as small:
        c = client(small)
        p = {'model': small.model_id, 'temperature': 0, 'extra_body': {'ignore_eos': True}}
        before = metrics(small)
        for name, call in (('chat', lambda: c.chat.completions.create(messages=[{'role': 'user', 'content': 'sea ' * 400}], **p)),
                           ('text', lambda: c.completions.create(prompt='sea ' * 400, **p)), ('ids', lambda: c.completions.create(prompt=[5] * 400, **p)),
                           ('one too many', lambda: c.completions.create(prompt=[5] * 256, **p))):
            e = fails(f'too long: {name}', openai.BadRequestError, call, code='context_length_exceeded', param='messages' if name == 'chat' else 'prompt', text=r'\b256\b')
            numbers = [int(x) for x in re.findall(r'\d+', e.message)] if e else []
            check(f'too long: {name}: both numbers', any(x >= 256 for x in numbers[:1]) and 256 in numbers, e)
        after = metrics(small)
        check('too long: nothing was computed', all(after[k] == before[k] for k in ('hearth_prompt_tokens_total', 'hearth_generation_tokens_total', 'hearth_requests_total')), after)
        last = c.completions.create(prompt=[5] * 255, **p)
        check('255 of 256: one token', last.usage.completion_tokens == 1 and last.choices[0].finish_reason == 'length', last)
        full = c.completions.create(prompt=[5] * 200, max_tokens=1000, **p)
        check('an answer ends with the context', full.usage.total_tokens in (256, 257) and full.choices[0].finish_reason == 'length', full.usage)
        same('exit code', small.end(), 0)


@test
def queue(s):
    with Served(ARGS.hearth, ARGS.model, '--parallel', '1', '--queue', '1', slack=ARGS.slack) as small:
        held = [open_stream(small, LONG_RAW)]
        second = http.client.HTTPConnection('127.0.0.1', small.port)
        second.request('POST', '/v1/chat/completions', json.dumps(LONG_RAW), {'Content-Type': 'application/json'})
        check('one runs, one waits', wait_metric(small, 'hearth_requests_queued', 1, 5 * small.slack) is not None, metrics(small))
        r = ask(small, 'POST', '/v1/chat/completions', LONG_RAW)
        check('the third gets 503', r.status == 503 and r.error['code'] == 'queue_full' and r.error['type'] == 'overloaded_error' and int(r.headers['Retry-After']) >= 1 and int(r.headers['retry-after-ms']) > 0, (r.data, r.headers))
        check('and says what is taken', '1 requests run and 1 wait or are prepared: no more than 2 are taken together (--parallel 1 and --queue 1)' in r.error['message'], r.data)
        c = client(small)
        fails('503 through the client', openai.InternalServerError, lambda: c.chat.completions.create(model=small.model_id, messages=HELLO), code='queue_full')
        same('/healthz meanwhile', ask(small, 'GET', '/healthz').status, 200)
        same('/readyz meanwhile', ask(small, 'GET', '/readyz').status, 200)
        threading.Timer(0.5, lambda: (cut(*held[0]), second.close())).start()
        ok = client(small, retries=4).chat.completions.create(model=small.model_id, messages=HELLO, max_tokens=2)
        same('the client tries again and is served', ok.usage.completion_tokens, 2)
        same('exit code', small.end(), 0)


@test
def keys(s):
    with tempfile.TemporaryDirectory() as folder:
        path = folder + '/keys'
        with open(path, 'w') as f:
            f.write('# two keys\r\n\n \topen-sesame-1 \r\nSHA256:' + hashlib.sha256(b'open-sesame-2').hexdigest().upper())
        with Served(ARGS.hearth, ARGS.model, '--host', '0.0.0.0', '--api-key-file', path, slack=ARGS.slack) as k:
            for key in ('open-sesame-1', 'open-sesame-2'):
                same(f'key {key}', client(k, key=key).chat.completions.create(model=k.model_id, messages=HELLO, max_tokens=2).usage.completion_tokens, 2)
            for key in ('open-sesame-3', 'open-sesame-1x', 'sha256:' + hashlib.sha256(b'open-sesame-2').hexdigest()):
                fails(f'key {key[:20]}', openai.AuthenticationError, lambda x=key: client(k, key=x).models.list(), code='invalid_api_key')
            basic = 'Basic ' + base64.b64encode(b'a:open-sesame-1').decode()
            for name, headers, status in (('none', {}, 401), ('empty', {'Authorization': ''}, 401), ('Bearer alone', {'Authorization': 'Bearer '}, 401), ('Basic', {'Authorization': basic}, 401),
                                          ('small letters', {'Authorization': 'bearer open-sesame-1'}, 200), ('another host', {'Authorization': 'Bearer open-sesame-1', 'Host': 'box.example'}, 200)):
                for path in ('/metrics', '/v1/models'):
                    r = ask(k, 'GET', path, headers=headers)
                    check(f'{path}, {name}', r.status == status and (status == 200 or (r.error['type'] == 'authentication_error' and r.headers['WWW-Authenticate'] == 'Bearer')), r.data)
            for path in ('/healthz', '/readyz', '/'):
                same(f'{path} is open', ask(k, 'GET', path).status, 200)
            r = ask(k, 'POST', '/v1/chat/completions', b'x' * (2 << 20))
            same('refused before the body is looked at', (r.status, r.error['code']), (401, 'invalid_api_key'))
            same('exit code', k.end(), 0)


def start_fails(what, code, text, *options):
    r = subprocess.run([ARGS.hearth, 'serve', '--port', '0', *options], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=60 * ARGS.slack)
    check(what, r.returncode == code and re.search(text, r.stdout) and not BAD.search(r.stdout), f'exit code {r.returncode}, want {code}: {r.stdout}')


@test
def starts_that_fail(s):
    with tempfile.TemporaryDirectory() as folder:
        def file(name, text):
            with open(f'{folder}/{name}', 'w') as f:
                f.write(text)
            return f'{folder}/{name}'
        m = ['--model', ARGS.model]
        start_fails('another address without keys', 8, 'api-key-file', *m, '--host', '0.0.0.0')
        start_fails('port in use', 9, rf'port {s.port}.*in use', *m, '--port', str(s.port))
        start_fails('no such key file', 3, 'no-such', *m, '--api-key-file', folder + '/no-such')
        start_fails('key file is a folder', 9, re.escape(folder), *m, '--api-key-file', folder)
        start_fails('key file is empty', 2, 'empty', *m, '--api-key-file', file('empty', '# nothing\n'))
        start_fails('key too short', 2, 'line 2', *m, '--api-key-file', file('short', '# a\nabc\n'))
        start_fails('bad digest', 2, 'line 1', *m, '--api-key-file', file('digest', 'sha256:123\n'))
        start_fails('a digest is never a key', 2, 'line 1', *m, '--api-key-file', file('large', 'SHA256:' + 'x' * 64))
        start_fails('key with a blank', 2, 'line 1', *m, '--api-key-file', file('blank', 'open sesame\n'))
        start_fails('key with a zero byte', 2, 'line 1', *m, '--api-key-file', file('zero', 'open\0sesame\n'))
        start_fails('key with a byte order mark', 2, 'line 1', *m, '--api-key-file', file('mark', '\ufeffopen-sesame-1\n'))
        start_fails('key too long', 2, 'line 1', *m, '--api-key-file', file('long', 'k' * 100000))
        start_fails('too many keys', 11, 'line 1025', *m, '--api-key-file', file('many', ''.join(f'key-number-{i}\n' for i in range(2000))))
        start_fails('key file without an end', 11, 'larger', *m, '--api-key-file', '/dev/zero')
        os.mkfifo(folder + '/fifo')
        start_fails('key file is a FIFO that nobody writes', 2, 'no key', *m, '--api-key-file', folder + '/fifo')
        start_fails('no such model', 3, 'no-such', '--model', folder + '/no-such.gguf')
        start_fails('no model file', 5, 'notes', '--model', file('notes.gguf', 'not a model\n' * 100))
        start_fails('no such host', 9, 'no-such.invalid', *m, '--host', 'no-such.invalid')


@test
def context_that_fits(s):
    """Where the default context does not fit, half or a quarter of it is taken, and said; a number that was given stands."""
    def need_mib(ctx):
        r = subprocess.run([ARGS.hearth, 'plan', ARGS.model, '--ctx', str(ctx), '--json'], stdout=subprocess.PIPE, check=True)
        return json.loads(r.stdout)['total_bytes'] / (1 << 20)

    def refused_mib(*options):
        r = subprocess.run([ARGS.hearth, 'serve', '--port', '0', '--model', ARGS.model, '--memory', '64', *options], stdin=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
        m = re.search(r'needs ([0-9.]+) MiB .*with a context of (\d+) tokens for 1 at once', r.stderr)
        check(f'64 MiB {options}: refused', r.returncode == 4 and m, (r.returncode, r.stderr))
        return float(m[1]), int(m[2])
    least_mib, ctx = refused_mib()
    same('the least that is tried', ctx, 512)
    memory = ['--memory', str(int(least_mib + need_mib(1500) - need_mib(512)))]
    with Served(ARGS.hearth, ARGS.model, *memory, slack=ARGS.slack) as k:
        meta = ask(k, 'GET', '/v1/models').body['data'][0]['meta']
        check('a quarter is taken', meta['n_ctx'] == 1024, (memory, meta))
        check('and said', re.search(r'^hearth: 1024 tokens of context, 1 at once: more does not fit the [0-9.]+ MiB available', k.said(), re.M), k.said())
        same('exit code', k.end(), 0)
    start_fails('a number that was given stands', 4, 'context of 4096 tokens', '--model', ARGS.model, *memory, '--ctx', '4096')
    check('all fits: nothing is said', not re.search('does not fit', s.said()), s.said())


@test
def names_on_the_terminal(s):
    with tempfile.TemporaryDirectory() as d:
        path = d + '/a\x1b[2Jb.gguf'
        os.symlink(os.path.dirname(os.path.dirname(ARGS.model)) + '/zoo/llama.gguf', path)
        with Served(ARGS.hearth, path, slack=ARGS.slack) as k:
            same('the name is its own', ask(k, 'GET', '/v1/models').body['data'][0]['id'], 'a\x1b[2Jb')
            same('exit code', k.end(), 0)
            check('no control character of a name is printed', k.said().count('a\\x1b[2Jb') == 2 and '\x1b' not in k.said(), k.said())


@test
def counters(s):
    def families():
        return {f.name: f for f in text_string_to_metric_families(ask(s, 'GET', '/metrics').body)}

    def values():
        return {(x.name, *sorted(x.labels.items())): x.value for f in families().values() for x in f.samples}
    f = families()
    check('names', len(f) > 20 and all(n.startswith('hearth_') and x.documentation for n, x in f.items()), list(f))
    check('types', f['hearth_requests'].type == 'counter' and f['hearth_ready'].type == 'gauge' and f['hearth_request_duration_seconds'].type == 'histogram' and not [n for n, x in f.items() if x.type == 'unknown'])
    for x in f.values():
        if x.type == 'histogram':
            counts = [y.value for y in x.samples if y.name.endswith('_bucket')]
            total = next(y.value for y in x.samples if y.name.endswith('_count'))
            check(f'{x.name} rises to its count', counts == sorted(counts) and counts[-1] == total, counts)
    before = values()
    r = client(s).chat.completions.create(model=s.model_id, messages=HELLO, max_tokens=9, extra_body={'ignore_eos': True})
    ask(s, 'POST', '/v1/completions', b'{')
    ask(s, 'GET', '/no/such/thing')
    chat, text = ('path', '/v1/chat/completions'), ('path', '/v1/completions')
    want = {('hearth_requests_total',): 1, ('hearth_requests_done_total',): 1, ('hearth_prompt_tokens_total',): r.usage.prompt_tokens, ('hearth_generation_tokens_total',): 9,
            ('hearth_answers_total', ('reason', 'length')): 1, ('hearth_time_to_first_token_seconds_count',): 1, ('hearth_inter_token_latency_seconds_count',): 8,
            ('hearth_request_duration_seconds_count',): 1, ('hearth_queue_time_seconds_count',): 1, ('hearth_http_requests_total', ('code', '200'), chat): 1,
            ('hearth_http_requests_total', ('code', '400'), text): 1, ('hearth_http_requests_total', ('code', '404'), ('path', 'other')): 1, ('hearth_requests_cancelled_total',): 0}
    until = time.monotonic() + 2 * s.slack
    while True:
        after = values()
        moved = {k: after.get(k, 0) - before.get(k, 0) for k in want}
        if moved == want or time.monotonic() > until:
            break
    same('counters move', moved, want)
    steps = {k: after[k] - before[k] for k in after if k[0] == 'hearth_decode_steps_total'}
    check('decode steps of one', steps.get(('hearth_decode_steps_total', ('batch', '1'))) in (8, 9), steps)
    same('decode steps by ranges that do not overlap', [k[1][1] for k in steps], ['1', '2', '3-4', '5-8', '9-16', '17-32', '33-64', '65-128', '129+'])
    check('gauges', after[('hearth_requests_running',)] == after[('hearth_requests_queued',)] == after[('hearth_kv_cache_usage_ratio',)] == 0 and after[('hearth_ready',)] == 1, after)
    check('memory within the plan', 0 < after[('hearth_memory_resident_bytes',)] <= after[('hearth_memory_peak_bytes',)], after)


def main():
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument('--hearth', required=True)
    ap.add_argument('--model', required=True)
    ap.add_argument('--load', help='a larger model, for what happens while one is loaded')
    ap.add_argument('--slack', type=float, default=1.0)
    ap.add_argument('--only', default='')
    ap.parse_args(namespace=ARGS)
    with Served(ARGS.hearth, ARGS.model, slack=ARGS.slack) as s:
        run_tests(s, ARGS.only)
    finish()


main()
