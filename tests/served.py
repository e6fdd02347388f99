"""served - `hearth serve` for tests: started on a free port, watched, ended; and small HTTP helpers that need no package.

Used by test_api.py, test_api_node.py and test_load.py."""
import http.client
import json
import os
import re
import signal
import subprocess
import threading
import time

ADDRESS = re.compile(r'http://(.*?):(\d+)/')
BAD = re.compile(r'Sanitizer|runtime error')


class Served:
    """A server on a free port. `lines` is what it said on standard error. slack: how much slower than usual all may be."""

    def __init__(self, hearth, model, *options, ready=True, slack=1.0, preexec_fn=None):
        self.slack, self.lines = slack, []
        self.model_id = os.path.basename(model).removesuffix('.gguf')
        self.process = subprocess.Popen([hearth, 'serve', '--model', model, '--port', '0', *options], stdin=subprocess.DEVNULL,
                                        stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, errors='replace', preexec_fn=preexec_fn)
        self.pid, self.port = self.process.pid, None
        self.has_address = threading.Event()
        self.reader = threading.Thread(target=self.read, daemon=True)
        self.reader.start()
        if not self.has_address.wait(60) or self.port is None:
            self.process.kill()
            raise RuntimeError('no address on standard error: ' + self.said())
        self.url = f'http://127.0.0.1:{self.port}'
        if ready:
            self.wait_ready()

    def read(self):
        for line in self.process.stderr:
            self.lines.append(line)
            m = ADDRESS.search(line)
            if m and self.port is None:
                self.port = int(m[2])
                self.has_address.set()
        self.has_address.set()

    def said(self):
        return ''.join(self.lines)

    def wait_ready(self):
        until = time.monotonic() + 120 * self.slack
        while ask(self, 'GET', '/readyz')[0] != 200:
            if self.process.poll() is not None or time.monotonic() > until:
                raise RuntimeError('the server is not ready: ' + self.said())
            time.sleep(0.02)

    def wait(self, limit_s=90):
        """The exit code; -9 when it had to be killed; -100 when a sanitizer complained."""
        try:
            self.process.wait(limit_s * self.slack)
        except subprocess.TimeoutExpired:
            self.process.kill()
        self.process.wait()
        self.reader.join()
        return -100 if BAD.search(self.said()) else self.process.returncode

    def end(self, limit_s=90):
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        return self.wait(limit_s)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        if self.process.poll() is None:
            self.process.kill()
            self.wait()


class Reply:
    """Status, headers and body of an answer; unpacks to (status, body as JSON or text)."""

    def __init__(self, r, data):
        self.status, self.headers, self.data = r.status, r.headers, data

    @property
    def body(self):
        kind = self.headers.get('Content-Type', '')
        return json.loads(self.data) if kind.startswith('application/json') and self.data else self.data.decode()

    @property
    def error(self):
        return self.body['error'] if isinstance(self.body, dict) and 'error' in self.body else {}

    def __getitem__(self, i):
        return (self.status, self.body)[i]


def ask(server, method, path, body=None, headers=None, connection=None):
    """One request. body: an object (sent as JSON), bytes, or None. connection: one to use, else a fresh one."""
    c = connection or http.client.HTTPConnection('127.0.0.1', server.port, timeout=120 * server.slack)
    data = body if body is None or isinstance(body, bytes) else json.dumps(body).encode()
    c.request(method, path, data, {**({'Content-Type': 'application/json'} if data is not None else {}), **(headers or {})})
    r = c.getresponse()
    reply = Reply(r, r.read())
    if connection is None:
        c.close()
    return reply


def metrics(server, connection=None, headers=None):
    """The plain numbers of /metrics by name (labels included in the name)."""
    text = ask(server, 'GET', '/metrics', headers=headers, connection=connection).body
    return {name: float(value) for name, value in re.findall(r'^(hearth_\w+(?:\{.*\})?) (\S+)$', text, re.M)}


def wait_metric(server, name, value, limit_s, headers=None):
    """Seconds until a number of /metrics has this value; None if it takes longer than limit_s. Asks all the time."""
    c = http.client.HTTPConnection('127.0.0.1', server.port, timeout=60)
    begin = time.monotonic()
    try:
        while time.monotonic() < begin + limit_s:
            if metrics(server, c, headers).get(name) == value:
                return time.monotonic() - begin
        return None
    finally:
        c.close()
