#!/usr/bin/env python3
"""test_chat.py HEARTH: the templates of chat_golden.jsonl through `HEARTH render`, compared with what Jinja2 made of them.

A template with a text must give that text; one that raised a message must give an error with that message; one that Jinja2 refuses
must give an error. The last line reads 'N passed, N failed'. Recipe of the golden file: tests/tools/mk_chat_golden.py."""
import json
import os
import subprocess
import sys

HERE = os.path.dirname(os.path.abspath(__file__))
rows = [json.loads(line) for line in open(HERE + '/chat_golden.jsonl', 'rb').read().split(b'\n') if line]
case, rows = rows[0], rows[1:]
lines = ''.join(json.dumps({**case, 'id': i, 'template': r['template']}) + '\n' for i, r in enumerate(rows))
out = subprocess.run([sys.argv[1], 'render', '--template', '/dev/null'], input=lines.encode(), stdout=subprocess.PIPE, timeout=300).stdout
got = {o['id']: o for o in map(json.loads, out.split(b'\n')[:-1])}
failed = 0
for i, r in enumerate(rows):
    g = got.get(i, {})
    if 'text' in r:
        good = g.get('text') == r['text']
    else:
        error = g.get('error', '')
        good = 'text' not in g and error != '' and '\n' not in error and r.get('raised', '') in error
    if not good:
        failed += 1
        print(f'{r["template"]!r}\n    want {r.get("text", r)!r}\n    got  {g!r}')
print(f'{len(rows) - failed} passed, {failed} failed')
sys.exit(bool(failed or len(rows) < 1000))
