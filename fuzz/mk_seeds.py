#!/usr/bin/env python3
"""mk_seeds.py: writes the first inputs of the fuzzers into fuzz/seeds/NAME (what each means: see the fuzzer).

Files named found-* and min-* are not made here: inputs that once broke something, and those that libFuzzer's -merge=1 -use_counters=0 kept. Seeds of gguf: tests/tools/mutate_gguf.py --tiny."""
import io
import json
import os
import re
import zipfile

HOME = os.path.dirname(os.path.abspath(__file__)) + '/seeds'


def put(fuzzer, name, data):
    os.makedirs(f'{HOME}/{fuzzer}', exist_ok=True)
    open(f'{HOME}/{fuzzer}/{name}', 'wb').write(data.encode() if isinstance(data, str) else data)


def tok():
    texts = ['the aaaa in  the é é日本 12345 <u> <|end|> </s>\n\n\n x', "I'll don't WE'RE   \n \t x", '\u2581the \u2581 <unk> <0x41>', '\u0915\u094d\u0937 \U0001f600 \u200b', '日本語の 한국어 ไทย',
             'foo(bar, baz);\n\tif (x != 0) {}\r\n', '   ', '中文123abc']
    for i in range(19):
        put('tok', f'text-{i:02d}', bytes([i, ord('0') & 0]) + ''.join(texts[i % 4:i % 4 + 5]).encode())
        put('tok', f'special-{i:02d}', bytes([i, 16 | 32]) + b'<|end|>a</s> b[SEP]<u><|<s>')
    for i, unit in enumerate([' ', 'a', '\n', ' \n', '日', '<', "'s", 'aB', '1', '\u0301', '<|e', '\u2581', 'e\u0301', ' a', '\x00', '!"']):
        for v in (i % 19, (i + 7) % 19, (i * 5 + 3) % 19):
            put('tok', f'long-{i:02d}-{v:02d}', bytes([v, 192 | 15]) + unit.encode() * 8 + b'x')
    for v in range(19):
        put('tok', f'bytes-{v:02d}', bytes([v, 0]) + b'a\xff\xc3\xe2\x96\x80\xed\xa0\x80 \xf0\x9f\x98 \xc0\xaf')
    put('tok', 'own-t5', b'#t5\nb\x01\n3\x00</s>\n2\x00<unk>\n1\x10a\n1\x20ab\n4\x01<x>\n1\x11\xe2\x96\x81a\nr\x08\x00\x00\x00\x01\x04\x00\x00\x61\x05\x00\x00b\x00\n=\nab <x>aba  b')
    put('tok', 'own-llama', b'#llama\nb\x05\n3\x00<s>\n2\x00<unk>\n1\x10a\n1\x20ab\n6\x01<0x0A>\n6\x00<0x41>\n=\nab aba  b\nA')
    put('tok', 'own-bert', b'#bert\nb\x00\n2\x00[UNK]\n1\x10\xe2\x96\x81a\n1\x20b\n3\x01[SEP]\n=\nab aba  b\nA')
    put('tok', 'own-gpt2', b'#gpt2\npllama-bpe\n1\x00a\n1\x00b\n1\x00ab\n3\x00<e>\nma b\nmab ab\nm \n=\nababab <e>')
    put('tok', 'own-gemma4', b'#gemma4\n1\x00a\n1\x00b\n1\x00ab\n3\x00<e>\nma b\n=\nababab <e>\n\n')


def chat():
    rows = [json.loads(x) for x in open(os.path.dirname(HOME) + '/../tests/chat_golden.jsonl', 'rb').read().split(b'\n') if x]
    for i, r in enumerate(rows[1:]):
        if i % 15 == 0 or len(r['template']) > 150:
            put('chat', f'golden-{i:04d}', '\n' + r['template'])
    case = {'messages': [{'role': 'user', 'content': 'hi'}, {'role': 'assistant', 'content': None, 'tool_calls': [{'function': {'name': 'f', 'arguments': '{"a": 1}'}}]}],
            'tools': [{'type': 'function', 'function': {'name': 'f', 'parameters': {'type': 'object', 'properties': {'a': {'type': 'integer'}}}}}], 'vars': {'enable_thinking': False}}
    put('chat', 'tools', json.dumps(case) + '\n{{ bos_token }}{% for m in messages %}<|{{ m.role }}|>{% if m.content is string %}{{ m.content|trim }}{% else %}{% for c in m.tool_calls %}{{ c.function|tojson }}'
        '{% endfor %}{% endif %}{% endfor %}{% if tools %}{{ tools|tojson(indent=2) }}{% endif %}{% if add_generation_prompt %}<|assistant|>{% endif %}')
    put('chat', 'deep', '\n' + '{{ ' + '(' * 300 + '1' + ')' * 300 + ' }}')
    put('chat', 'wide', '\n{% for i in range(99999) %}{% for j in range(99999) %}{{ i }}{% endfor %}{% endfor %}')
    put('chat', 'grow', '\n{% set ns = namespace(a="x") %}{% for i in range(99) %}{% set ns.a = ns.a ~ ns.a %}{% endfor %}{{ ns.a|length }}')
    put('chat', 'macro', '\n{% macro f(n) %}{{ f(n + 1) }}{% endmacro %}{{ f(0) }}')
    put('chat', 'data', '{"messages": [{"role": "\\ud83d\\ude00\\u0000", "content": [1.5, 1e400, -0.0, [[[[{}]]]], null]}], "vars": {"messages": 3}}\n{{ messages }}{{ messages[0] }}')


def rx():
    patterns = ["'s|'t|'re|'ve|'m|'ll|'d| ?\\p{L}+| ?\\p{N}+| ?[^\\s\\p{L}\\p{N}]+|\\s+(?!\\S)|\\s+", "(?i:'s|'t)|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|\\p{N}{1,3}| ?[^\\s\\p{L}\\p{N}]+[\\r\\n]*|\\s*[\\r\\n]+",
                '[a-z]+|[^a-z]', '\\s+$', '(?:ab)?c', '(?=a)a+', '[一-龥]+', '.', 'a{2,3}b?', '\\p{Lu}*\\p{Ll}+(?i:x|y)?', '[\\p{P}\\$\\+<=>\\^~\\|]+', '((((a))))', '[', 'a{', '\\', '(?:a|b|', '[z-a]', '(?i:é)', '*']
    for i, p in enumerate(patterns):
        put('rx', f'pattern-{i:02d}', p + "\nI'll say: Été  12345 \r\n\t aab ccc 日本 x  ")


def zips():
    for i, method in enumerate((zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)):
        for n in (0, 1, 3):
            o = io.BytesIO()
            with zipfile.ZipFile(o, 'w', method) as z:
                for k in range(n):
                    z.writestr(zipfile.ZipInfo(f'dir/m{k}'), (b'hello ' * 50)[:k * 100], method)
                z.comment = b'c' * (i * 5)
            put('zip', f'{"stored" if i == 0 else "deflated"}-{n}', o.getvalue())


def js():
    for i, t in enumerate(['{"a": [1, 2.5, -0, 1e-7, 123456789012345678, true, null], "b": {"c": "\\u00e9\\ud83d\\ude00\\n"}}', '[' * 70 + ']' * 70, '"\\ud800"', '1e400', '-', '[1,]', '{"a":1,"a":2}',
                           '"\x7f\u2028é"', '18446744073709551616', '9223372036854775808', '-9223372036854775808', '0.1', '5e-324', '1.7976931348623157e308', ' [ ] ', '{"": {"": []}}', '"\\u0000"', 'nul']):
        put('js', f'text-{i:02d}', t)
    put('js', 'bytes', b'"\xff\xc3"')



def params():
    chat = {'model': 'm', 'messages': [{'role': 'developer', 'content': 'be brief'}, {'role': 'user', 'content': [{'type': 'text', 'text': 'h\u00e9'}, {'type': 'text', 'text': 'llo'}]},
            {'role': 'assistant', 'content': None, 'tool_calls': [{'function': {'name': 'f', 'arguments': '{}'}}]}, {'role': 'tool', 'tool_call_id': '1', 'content': '\u0000'}]}
    more = [{}, {'stream': True, 'stream_options': {'include_usage': True, 'include_obfuscation': False}}, {'max_tokens': 5, 'n': 2, 'temperature': 0.5, 'top_p': 0.9, 'top_k': 40, 'min_p': 0.05, 'typical_p': 1},
            {'repeat_penalty': 1.1, 'repeat_last_n': -1, 'presence_penalty': -2, 'frequency_penalty': 2, 'seed': -1}, {'stop': ['\n', 'END'], 'logit_bias': {'5': -100, '7': 1.5}, 'logprobs': True, 'top_logprobs': 3},
            {'stop': '\u00e9', 'ignore_eos': True, 'seed': 1 << 62}, {'template_vars': {'a': [1, {}]}}, {'chat_template_kwargs': {'enable_thinking': False}, 'user': 'u', 'metadata': {'a': 1}, 'store': False},
            {'response_format': {'type': 'text'}, 'tools': [], 'tool_choice': 'none', 'modalities': ['text'], 'parallel_tool_calls': True}, {'response_format': {'type': 'json_schema'}}, {'max_completion_tokens': None},
            {'n': 9}, {'temperature': 'hot'}, {'top_p': 1e300}, {'stop': [1]}, {'logit_bias': {'x': 1}}, {'max_tokens': 1.5}, {'nobody': 1}, {'reasoning_effort': 'low'}]
    for i, m in enumerate(more):
        put('params', f'chat-{i:02d}', b'0' + json.dumps({**chat, **m}).encode())
    for i, m in enumerate(more[:6]):
        put('params', f'text-{i:02d}', b'1' + json.dumps({'prompt': ['once', [1, 2, 3], 'a\u0000b', [[4, 5]], ['x'], ['x', 'y']][i], **m}).encode())
    for i, t in enumerate([{'content': 'a b', 'add_special': False, 'parse_special': True}, {'text': ''}, {'prompt': 'x', 'content': 'y'}, {}]):
        put('params', f'tokenize-{i}', b'2' + json.dumps(t).encode())
    for i, t in enumerate([{'tokens': [1, 2, 3]}, {'tokens': []}, {'tokens': [-1]}, {'tokens': [1 << 40]}, {'tokens': 'x'}]):
        put('params', f'detokenize-{i}', b'3' + json.dumps(t).encode())
    for i, t in enumerate(['', '[]', '{', '{"messages": []}', '{"messages": [1]}', '{"messages": [{"role": "god", "content": ""}]}', '{"messages": [{"role": "user", "content": [{"type": "image_url"}]}]}', '{"a":1,"a":2}']):
        put('params', f'odd-{i}', b'0' + t.encode())


def keys():
    digest = 'sha256:' + 'aB' * 32
    for i, t in enumerate(['0123456789abcdef\n', '# comment\n\n  spaced-key-1 \r\nother-key-22\n' + digest + '\n', digest, 'short\n', 'sha256:zz\n', 'with blank in it\n', '\u00e9' * 9, '', '#\n', 'k' * 512 + '\n', 'k' * 513, 'zero\0zero\n']):
        put('keys', f'file-{i:02d}', t)


def frames():
    for i, t in enumerate(['Host: a\r\nContent-Length: 5\r\nAccept: */*\r\n', 'Host: a\r\nTransfer-Encoding: chunked\r\n', 'Host: a\r\nHost: b\r\n', 'Content-Length: 5\r\nContent-Length: 5\r\n',
                           'Content-Length: 5\r\nTransfer-Encoding: chunked\r\n', 'Transfer-Encoding: gzip, chunked\r\n', 'Content-Length : 5\r\n', 'Content-Length: +5\r\n', 'Content-Length: 99999999999999999999\r\n',
                           'Content-Length: 1048577\r\n', 'X: a\r\n continued: b\r\nY: c\r\n', 'X: a\r\n hidden\r\nY: c\r\n', 'X: a\0Content-Length\r\n', ': x\r\n', 'X: \x01\r\n', 'X:\r\nY: \t\r\n', 'transfer-encoding: Chunked \r\n', '']):
        for flags in '013':
            put('http_frame', f'lines-{i:02d}-{flags}', flags + t)


def pool():
    names = ['proc/meminfo', 'proc/self/cgroup', 'proc/self/status', 'proc/self/limits', 'sys/fs/cgroup/memory.max', 'sys/fs/cgroup/memory.current', 'sys/fs/cgroup/memory.stat',
             'sys/fs/cgroup/memory/memory.limit_in_bytes', 'sys/fs/cgroup/memory/memory.usage_in_bytes', *('sys/class/drm/card1/device/' + x for x in ('vendor', 'mem_info_vram_total', 'mem_info_vram_used',
             'mem_info_vram_vendor', 'mem_info_gtt_total', 'mem_info_gtt_used')), 'sys/module/ttm/parameters/pages_limit', *('sys/kernel/mm/hugepages/hugepages-2048kB/' + x for x in ('free_hugepages', 'resv_hugepages')),
             'sys/fs/cgroup/memory.high', 'sys/fs/cgroup/memory.pressure', 'proc/pressure/memory', 'proc/7/cgroup']
    trees = os.path.dirname(os.path.dirname(HOME)) + '/tests/trees'
    for tree in sorted(x for x in os.listdir(trees) if os.path.isdir(f'{trees}/{x}')):
        files = [open(p, 'rb').read() if os.path.exists(p := f'{trees}/{tree}/{x}') else b'' for x in names]
        put('pool', tree, b'1' + b'\xff'.join([*files, b'1 0 5000000000\n']))
        put('pool', tree + '-dead', b'0' + b'\xff'.join([*files, b'1 0 5000000000\n']))
    group = [b'MemTotal: 8000000 kB\nMemAvailable: 100000 kB\n', b'0::/\n', b'RssAnon: 4000 kB\nRssFile: 2000 kB\n', b'Max address space 99999999\nMax data size 9999999\n', b'2000000000', b'1900000000',
             b'inactive_file 1000000\nactive_file 500000\n'] + [b''] * 10 + [b'', b'1950000000']
    for i, t in enumerate(['some avg10=12.34 avg60=1.00 avg300=0.50 total=5000\nfull avg10=56.78 avg60=0.10 avg300=0.05 total=123456789\n', 'full avg10=9.99\nsome avg10=100', 'some avg10=1.2.3\nfull avg10=',
                           'some avg10=\nfull avg10=-1', 'full', 'some some avg10=5 total=\nfull full avg10=00000 total=x']):
        put('pool', f'pressure-{i}', b'1' + b'\xff'.join([*group, t.encode(), t.encode(), b'0::/b\n', b'1 0 5000000000 1000 1 2\n']))
    huge = str((1 << 64) - 1).encode()
    for i, v in enumerate([huge, b'9' * 40, b'-1', b'max', b'', b'0', b'4503599627370496', b'18014398509481983']):
        files = [b'MemTotal: %s kB\nMemAvailable: %s kB\nCmaFree: %s kB\n' % (v, v, v), b'0::/a/b/../..\n4:memory:/x\n:\n::\n', b'VmRSS: %s kB\n' % v, b'Max locked memory %s\n' % v] + [v] * 14 + [v] + [b'some avg10=%s avg60=0.00 avg300=0.00 total=%s\nfull avg10=%s avg60=0.00 avg300=0.00 total=%s\n' % (v, v, v, v)] * 2 + [b'0::/a\n']
        files[9] = b'0x1002'
        put('pool', f'number-{i}', b'1' + b'\xff'.join([*files, b'%s %s %s\n' % (v, v, v)]))


def doctor():
    home = os.path.dirname(os.path.dirname(HOME))
    rows = re.findall(r'^    (CPU )?"([^"]+)",$', open(home + '/fuzz/fuzz_doctor.c').read(), re.M)
    names = ['sys/devices/system/cpu/' * bool(cpu) + x for cpu, x in rows]
    trees = home + '/tests/trees'
    for tree in sorted(x for x in os.listdir(trees) if os.path.isdir(f'{trees}/{x}')):
        put('doctor', tree, b'\xff'.join(open(p, 'rb').read() if os.path.exists(p := f'{trees}/{tree}/{x}') else b'' for x in names))
    for i, v in enumerate([b'9' * 40, b'18446744073709551615', b'-1', b'0-', b'0-4095', b'5,3-9,', b'[', b'x[never]y', b'powersave', b'some avg10=99999999999999999999 avg60=', b'0', b'max\n', b'passive', b'rpi_volt']):
        lines = [b'%s %s kB\n' % (k, v) for k in (b'MemTotal:', b'MemFree:', b'MemAvailable:', b'Cached:', b'AnonPages:', b'KReclaimable:', b'SwapTotal:', b'SwapFree:', b'CommitLimit:', b'CmaFree:')]
        files = [b''.join(lines), b'0::/\n', b'Cpus_allowed_list:\t%s\nVmRSS: %s kB\n' % (v, v), b'Max open files %s %s\nMax data size %s\n' % (v, v, v)]
        put('doctor', f'value-{i:02d}', b'\xff'.join(files + [v] * (len(names) - 4)))


tok()
chat()
rx()
zips()
js()
params()
keys()
frames()
pool()
doctor()
