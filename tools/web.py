#!/usr/bin/env python3
"""web.py: what the web page is built from.

fetch [--into DIR] [--offline] [--test]
    Sees to it that the two libraries of the page (marked, DOMPurify; with --test also axe-core) lie in the user's cache
    (~/.cache/hearth/web), in the pinned version and with the right sha512, copies the files that are used into DIR, and
    prints their names in one line. The build calls it when it is configured. Without a network it prints what is there,
    says the rest on standard error and succeeds: the page then shows answers as plain text.
pack --into DIR --libs NAME[,NAME] FILE...
    Writes DIR/page_data.h, which src/serve/page.c embeds: the page's files and the libraries in DIR, plain and gzipped.

The packages come from the npm registry: through npm where it is installed (it knows the user's registry and proxy), else
by one plain HTTPS request each."""
import argparse
import base64
import gzip
import hashlib
import io
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
import urllib.request

CACHE = os.path.join(os.environ.get('XDG_CACHE_HOME') or os.path.expanduser('~/.cache'), 'hearth', 'web')
REGISTRY = 'https://registry.npmjs.org'
WAIT_S = 8                      # for one package, when no npm is there or it hangs
SIZE_MAX = 16 << 20
PACKAGES = [                    # name, version, sha512 of the package as the registry states it, the file that is used
    ('marked', '18.2.1', 'ii4bxCTCqqwpT86XZWgJNs+ZnAIZksmLGYMViWA7PDIXYIeNo1x6cDdX3JOip9NM/cI6p8z57FxliACboTruMA==', 'lib/marked.esm.js'),
    ('dompurify', '3.4.18', 'ofe3wI/uNm68HInABYFJYqQxRw1EaKAjNdrFVKqjUY+UZurvNd2L/HuQe097s/4RivWiZyP6tT7aoT8atjfhwg==', 'dist/purify.min.js'),
]
TEST_PACKAGES = [
    ('axe-core', '4.14.1', 'FHfa+lmNjQZfJz1q8wKqIDwC6DExcHt/pkjNQb09a3NPjCKg2rhu5qb2S4r76ASyFNNtuFooJpZe37OgudVGtQ==', 'axe.min.js'),
]
TYPES = {'html': 'text/html; charset=utf-8', 'css': 'text/css; charset=utf-8', 'js': 'text/javascript; charset=utf-8', 'svg': 'image/svg+xml'}
# The module that the page takes its libraries from: both, or neither.
WITH_LIBS = "import './{purify}';\nexport {{ marked }} from './{marked}';\nexport const DOMPurify = globalThis.DOMPurify;\n"
WITHOUT_LIBS = 'export const marked = null;\nexport const DOMPurify = null;\n'


def is_right(data, sha512):
    return base64.b64encode(hashlib.sha512(data).digest()).decode() == sha512


def read(path):
    with open(path, 'rb') as f:
        return f.read()


def write(path, data):
    """Whole or not at all; an unchanged file keeps its time."""
    if os.path.exists(path) and read(path) == data:
        return
    os.makedirs(os.path.dirname(path), exist_ok=True)
    fd, part = tempfile.mkstemp(dir=os.path.dirname(path), prefix='.part-')
    try:
        with os.fdopen(fd, 'wb') as f:
            f.write(data)
        os.chmod(part, 0o644)
        os.replace(part, path)
    except BaseException:
        os.unlink(part)
        raise


def by_npm(name, version):
    with tempfile.TemporaryDirectory() as folder:
        subprocess.run(['npm', 'pack', '--silent', '--ignore-scripts', '--fetch-retries=0', f'--fetch-timeout={WAIT_S * 1000}', f'{name}@{version}'],
                       cwd=folder, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, timeout=WAIT_S + 4, check=True)
        return read(os.path.join(folder, f'{name}-{version}.tgz'))


def by_https(name, version, registry):
    with urllib.request.urlopen(f'{registry}/{name}/-/{name}-{version}.tgz', timeout=WAIT_S) as r:
        return r.read(SIZE_MAX)


def package(name, version, sha512, is_offline, registry):
    """The bytes of a package, from the cache or the registry; None and a line on standard error when neither has them."""
    path = os.path.join(CACHE, f'{name}-{version}.tgz')
    try:
        data = read(path)
        if is_right(data, sha512):
            return data
    except OSError:
        pass
    if is_offline:
        return None
    try:
        data = by_npm(name, version) if shutil.which('npm') and registry == REGISTRY else by_https(name, version, registry)
    except (OSError, subprocess.SubprocessError) as e:
        print(f'web.py: {name} {version} cannot be fetched ({type(e).__name__})', file=sys.stderr)
        return None
    if not is_right(data, sha512):
        print(f'web.py: {name} {version} from the registry has another sha512 than the pinned one; not used', file=sys.stderr)
        return None
    try:
        write(path, data)
    except OSError as e:
        print(f'web.py: cannot be kept for the next time: {e}', file=sys.stderr)
    return data


def fetch(a):
    names = []
    for name, version, sha512, member in PACKAGES + (TEST_PACKAGES if a.test else []):
        data = package(name, version, sha512, a.offline, a.registry)
        if data is None:
            if not a.test:
                break                       # one library alone is of no use
            continue
        file = f'{name}-{version}.js'
        if a.into:
            with tarfile.open(fileobj=io.BytesIO(data)) as t:
                write(os.path.join(a.into, file), t.extractfile('package/' + member).read())
        names.append(file)
    print(' '.join(names))


def pack(a):
    libs = [n for n in a.libs.split(',') if n]
    find = {n.split('-')[0]: n for n in libs}
    files = [(os.path.basename(p), read(p), False) for p in a.files]
    if 'marked' in find and 'dompurify' in find:
        files += [(n, read(os.path.join(a.into, n)), True) for n in (find['marked'], find['dompurify'])]
        libs_js = WITH_LIBS.format(marked=find['marked'], purify=find['dompurify'])
    else:
        libs_js = WITHOUT_LIBS
    files.append(('libs.js', libs_js.encode(), False))
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
    text = '/* Made by tools/web.py from web/ and the libraries of the page. */\n'
    text += '#define PAGE_ROWS(ROW) \\\n' + ' \\\n'.join(rows) + '\n#define PAGE_PARTS(PART) \\\n' + ' \\\n'.join(parts) + '\n'
    write(os.path.join(a.into, 'page_data.h'), text.encode())


def main():
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    sub = ap.add_subparsers(required=True)
    f = sub.add_parser('fetch')
    f.add_argument('--into')
    f.add_argument('--offline', action='store_true')
    f.add_argument('--test', action='store_true')
    f.add_argument('--registry', default=REGISTRY)
    f.set_defaults(run=fetch)
    p = sub.add_parser('pack')
    p.add_argument('--into', required=True)
    p.add_argument('--libs', default='')
    p.add_argument('files', nargs='+')
    p.set_defaults(run=pack)
    a = ap.parse_args()
    a.run(a)


main()
