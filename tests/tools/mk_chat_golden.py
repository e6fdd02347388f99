#!/usr/bin/env python3
"""mk_chat_golden.py: writes tests/chat_golden.jsonl, what Jinja2 3.1.6 makes of the templates in chat_templates.jsonl.

Both files hold one JSON value a line, in ASCII: every character of a template or of its text is escaped where it could end a line or
be taken for a separator. chat_templates.jsonl has the templates as strings. In the golden file the first line is the conversation,
each other line a template with its text, or the message it raised, or the kind of its error. Needs the packages of tests/requirements.txt."""
import json
import os

from chat_common import CASE, expected

here = os.path.dirname(os.path.abspath(__file__))
rows, n_skip = [CASE], 0
for line in open(here + '/chat_templates.jsonl', 'rb').read().split(b'\n'):
    if not line:
        continue
    template = json.loads(line)
    want = expected(template)
    if ' at 0x' in want.get('text', ''):
        n_skip += 1                                       # addresses of Python's objects
        continue
    rows.append({'template': template, **want})
with open(os.path.dirname(here) + '/chat_golden.jsonl', 'w', encoding='ascii', newline='\n') as o:
    o.write(''.join(json.dumps(r) + '\n' for r in rows))
print(len(rows) - 1, 'templates,', n_skip, 'left out')
