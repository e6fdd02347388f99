"""pull_site - what test_pull.py tests with: small model files, a server on loopback that misbehaves on demand, a store of its own."""
import hashlib
import http.server
import json
import os
import re
import shutil
import ssl
import subprocess
import tempfile
import threading
import time

import gguf_file as gf

OK, USAGE, NOT_FOUND, INTEGRITY, AUTH, NET, IO, LIMIT, BUSY = 0, 2, 3, 5, 6, 7, 9, 11, 75


def model(n_bytes=4096, fill=1, split=None, licence=None):
    """A small model file with about n_bytes of weights."""
    m = gf.Model()
    m.keys = [gf.Key(b'general.architecture', gf.STRING, b'llama'), gf.Key(b'general.name', gf.STRING, b'tiny \xe2\x98\x95 \x1b[31m'),
              gf.Key(b'tokenizer.ggml.tokens', gf.ARRAY, [b'a', b'b "c"', b'\xff'], gf.STRING), gf.Key(b'llama.eps', gf.F32, 0.5)]
    if licence:
        m.keys.append(gf.Key(b'general.license', gf.STRING, licence))
    if split:
        no, count = split
        m.keys += [gf.Key(b'split.no', gf.U16, no), gf.Key(b'split.count', gf.U16, count), gf.Key(b'split.tensors.count', gf.I32, count)]
    name = b't%d.weight' % (split[0] if split else 0)
    data = bytes((i * 7 + fill) & 255 for i in range(256)) * (n_bytes // 256)
    m.tensors = [gf.Tensor(name, [len(data) // 4], 0, data)]
    return bytes(m.pack())


def sha(b):
    return hashlib.sha256(b).hexdigest()


# --- the server

class Site:
    """What the server has and how it behaves; tests change it."""

    def __init__(self):
        self.files = {}       # path -> bytes
        self.etag = {}        # path -> text, '' for none
        self.cut_after = []   # bytes after which a response is cut, used up one by one
        self.status = {}      # path -> status instead of the file
        self.redirect = {}    # path -> address
        self.length = {}      # path -> bytes that are announced instead of those that come
        self.is_slow = False
        self.ignores_range = False
        self.ignores_condition = False  # sends a range of what is there now, whatever If-Range says
        self.requests = []    # (path, Range, If-Range, status)
        self.sent = 0         # body bytes


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = 'HTTP/1.1'

    def log_message(self, *args):
        pass

    def answer(self, status, length, headers):
        self.send_response(status)
        for k, v in headers:
            self.send_header(k, v)
        self.send_header('Content-Length', str(length))
        self.send_header('Connection', 'close')
        self.end_headers()

    def do_GET(self):
        s = self.server.site
        self.close_connection = True
        asked, condition = self.headers.get('Range'), self.headers.get('If-Range')
        status = s.status.get(self.path)
        if self.path in s.redirect:
            s.requests.append((self.path, asked, condition, 302))
            return self.answer(302, 0, [('Location', s.redirect[self.path])])
        if status or self.path not in s.files:
            s.requests.append((self.path, asked, condition, status or 404))
            return self.answer(status or 404, 0, [])
        body, tag = s.files[self.path], s.etag.get(self.path, '"%s"' % sha(s.files[self.path])[:16])
        headers = [('ETag', tag)] if tag else []
        m = re.match(r'bytes=(\d+)-$', asked or '')
        if m and not s.ignores_range and (condition in (None, tag) or s.ignores_condition):
            at = int(m.group(1))
            if at >= len(body):
                s.requests.append((self.path, asked, condition, 416))
                return self.answer(416, 0, [('Content-Range', 'bytes */%d' % len(body))])
            s.requests.append((self.path, asked, condition, 206))
            self.answer(206, len(body) - at, headers + [('Content-Range', 'bytes %d-%d/%d' % (at, len(body) - 1, len(body)))])
            body = body[at:]
        else:
            s.requests.append((self.path, asked, condition, 200))
            self.answer(200, s.length.get(self.path, len(body)), headers)
        if s.cut_after:
            body = body[:s.cut_after.pop(0)]
        for i in range(0, len(body), 65536):
            try:
                self.wfile.write(body[i:i + 65536])
                s.sent += len(body[i:i + 65536])
            except OSError:
                return
            if s.is_slow:
                time.sleep(0.05)


def serve(tls=None):
    server = http.server.ThreadingHTTPServer(('127.0.0.1', 0), Handler)
    server.daemon_threads = True
    server.site = Site()
    if tls:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(*tls)
        server.socket = context.wrap_socket(server.socket, server_side=True)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return server


# --- one test's surroundings

class Box:
    """An empty data folder, and the program run in it."""

    def __init__(self, a):
        self.a, self.top = a, tempfile.mkdtemp(prefix='hearth-pull-')
        self.data = self.top + '/data'
        self.models = self.data + '/hearth/models'
        self.server = serve()
        self.site = self.server.site
        self.url = 'http://127.0.0.1:%d' % self.server.server_address[1]

    def close(self):
        self.server.shutdown()
        self.server.server_close()
        subprocess.run(['chmod', '-R', 'u+rw', self.top], check=False)
        shutil.rmtree(self.top)

    def env(self, **more):
        return dict(os.environ, XDG_DATA_HOME=self.data, no_proxy='*', **more)

    def start(self, *args, **kw):
        return subprocess.Popen([self.a.hearth, *args], env=kw.pop('env', None) or self.env(), stdin=subprocess.DEVNULL,
                                stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **kw)

    def run(self, *args, want=OK, **kw):
        """Runs a command; returns (stdout, stderr). A failure must be one line that begins 'hearth: '."""
        p = self.start(*args, **kw)
        out, err = p.communicate(timeout=120)
        assert p.returncode == want, f'{args}: exit code {p.returncode}, wanted {want}\n{out}{err}'
        if want != OK:
            lines = [line for line in err.splitlines() if line.startswith('hearth: ')]
            assert len(lines) == 1, f'{args}: {len(lines)} error lines: {err}'
        return out, err

    def json(self, *args, **kw):
        return json.loads(self.run(*args, '--json', **kw)[0])

    def file(self, name, content):
        path = f'{self.top}/{name}'
        os.makedirs(os.path.dirname(path), exist_ok=True)
        with open(path, 'wb') as f:
            f.write(content)
        return path

    def blobs(self):
        """Digests in the store; each must be that of its bytes, and read-only."""
        names = sorted(os.listdir(self.models + '/blobs')) if os.path.isdir(self.models + '/blobs') else []
        for n in names:
            path = f'{self.models}/blobs/{n}'
            assert n == 'sha256-' + sha(open(path, 'rb').read()), n
            assert os.stat(path).st_mode & 0o222 == 0, n
        return [n[7:] for n in names]

    def partial(self):
        return sorted(os.listdir(self.models + '/partial'))

    def names(self):
        return [m['name'] for m in self.json('list')['models']]


TESTS, SLOW = [], []


def test(f):
    TESTS.append(f)
    return f


def waiting(f):
    """A test that mostly waits for hearth-fetch's patience to end: runs beside the others."""
    SLOW.append(f)
    return test(f)
