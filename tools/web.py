#!/usr/bin/env python3
"""web.py --into DIR [--marked FILE] FILE...: what src/serve/page.c embeds.

Writes DIR/page_data.h and, beside it, the page's files plain and gzipped. marked, which reads markdown, is the distribution's
(Debian's node-marked); its name in the page carries a digest of its content. Without it the page shows answers as plain
text."""
import argparse
import gzip
import hashlib
import os

TYPES = {'html': 'text/html; charset=utf-8', 'css': 'text/css; charset=utf-8', 'js': 'text/javascript; charset=utf-8', 'svg': 'image/svg+xml'}


def read(path):
    with open(path, 'rb') as f:
        return f.read()


def write(path, data):
    """An unchanged file keeps its time."""
    if os.path.exists(path) and read(path) == data:
        return
    os.makedirs(os.path.dirname(path), exist_ok=True)
    with open(path, 'wb') as f:
        f.write(data)


def main():
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument('--into', required=True)
    ap.add_argument('--marked')
    ap.add_argument('files', nargs='+')
    a = ap.parse_args()
    files = [(os.path.basename(p), read(p), False) for p in a.files]
    libs = 'export const marked = null;\n'
    if a.marked:
        data = read(a.marked)
        name = f'marked-{hashlib.sha256(data).hexdigest()[:12]}.js'
        files.append((name, data, True))
        libs = f"export {{ marked }} from './{name}';\n"
    files.append(('libs.js', libs.encode(), False))
    rows, parts = [], []
    for i, (name, data, is_immutable) in enumerate(files):
        packed = gzip.compress(data, 9, mtime=0)
        for suffix, content in (('', data), ('.gz', packed)):
            write(os.path.join(a.into, 'page', name + suffix), content)
        digest = hashlib.sha256(data).hexdigest()[:32]
        path = '/' if name == 'index.html' else '/' + name
        kind = TYPES[name.rsplit('.', 1)[1]]
        rows.append(f'    ROW({i}, "{path}", "{kind}", "W/\\"{digest}\\"", {len(data)}, {len(packed)}, {"true" if is_immutable else "false"})')
        parts.append(f'    PART({i}, "{os.path.abspath(os.path.join(a.into, "page", name))}")')
    text = '/* Made by tools/web.py from web/ and marked. */\n'
    text += '#define PAGE_ROWS(ROW) \\\n' + ' \\\n'.join(rows) + '\n#define PAGE_PARTS(PART) \\\n' + ' \\\n'.join(parts) + '\n'
    write(os.path.join(a.into, 'page_data.h'), text.encode())


main()
