#!/usr/bin/env python3
"""test_run.py HEARTH MODEL.gguf: `hearth run` as a person and as a script use it.

A terminal is played through a pseudo-terminal: prompts, Ctrl-C, history over sessions, several lines, pasted text,
commands. Then pipes, --json, exit codes. Everything it keeps goes to a temporary folder. Prints 'N passed, N failed'."""
import fcntl
import json
import os
import pty
import re
import resource
import select
import signal
import struct
import subprocess
import sys
import tempfile
import termios
import time

from checks import check, finish

hearth, model = map(os.path.abspath, sys.argv[1:3])


def environment(home):
    keep = {k: v for k, v in os.environ.items() if not k.startswith(('XDG_', 'LC_', 'LANG'))}
    return {**keep, 'HOME': home, 'XDG_STATE_HOME': home + '/state', 'TERM': 'xterm', 'LANG': 'C'}


class Terminal:
    """hearth run in a terminal of its own."""

    def __init__(self, home, *args, env=None, stdout=None, path=model, file_max=None, shell=()):
        self.master, slave = pty.openpty()
        fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack('HHHH', 24, 100, 0, 0))
        self.before = termios.tcgetattr(slave)
        self.slave = slave

        def claim():
            os.setsid()
            fcntl.ioctl(slave, termios.TIOCSCTTY, 0)
            if file_max is not None:
                signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
                resource.setrlimit(resource.RLIMIT_FSIZE, (file_max, file_max))

        self.p = subprocess.Popen([*shell, hearth, 'run', path, *args], stdin=slave, stdout=stdout or slave, stderr=slave, preexec_fn=claim,
                                  env={**environment(home), **(env or {})}, cwd=home)
        self.end = os.pidfd_open(self.p.pid)
        self.text = b''

    def read(self, seconds):
        """Waits for output or the end of the program; whether more may come."""
        ready = select.select([self.master, self.end], [], [], max(0, seconds))[0]
        if self.master in ready:
            self.text += os.read(self.master, 65536)
        return ready != [self.end]

    def until(self, pattern, seconds=20):
        """What came up to the end of the pattern; None when it did not come."""
        end = time.time() + seconds
        more = True
        while True:
            m = re.search(pattern, self.text, re.S)
            if m:
                got, self.text = self.text[:m.end()], self.text[m.end():]
                return got.decode('utf-8', 'replace')
            if not more or time.time() > end:
                return None
            more = self.read(end - time.time())

    def send(self, text):
        os.write(self.master, text.encode())

    def wait(self, seconds=20):
        """The exit code; None when the program does not end."""
        end = time.time() + seconds
        while self.read(end - time.time()) and time.time() < end:
            pass
        return self.p.wait() if select.select([self.end], [], [], 0)[0] else None

    def is_restored(self):
        return termios.tcgetattr(self.slave)[:4] == self.before[:4]

    def close(self):
        if self.p.poll() is None:
            self.p.kill()
            self.p.wait()
        os.close(self.end)
        os.close(self.master)
        os.close(self.slave)


GREEDY = ['--temp', '0', '--ctx', '1024', '--threads', '2']
QUESTION = 'What is the capital of France?'
ESCAPE = r'(?:\x1b\[[?0-9;]*[a-zA-Z])'
PROMPT = rb'\n(\x1b\[[?0-9;]*[a-zA-Z])*> '


def plain(text):
    """What stands on the screen: without escapes, with plain newlines."""
    return re.sub(ESCAPE, '', text or '').replace('\r', '')


def answer_of(home, *args):
    """What the model answers when asked once; what it knows does not matter."""
    code, text, err = run(home, model, QUESTION, *args)
    check('an answer to compare with', code == 0 and len(text) > 10 and err == '', (code, text, err))
    return text


def saved(home, name):
    return json.load(open(f'{home}/{name}'))['messages']


def test_chat(home):
    want = answer_of(home, *GREEDY, '--max-tokens', '24')
    t = Terminal(home, *GREEDY, '--max-tokens', '24')
    check('banner', t.until(rb'/help lists commands.*?> ') is not None, t.text)
    t.send(QUESTION + '\r')
    first = t.until(PROMPT)
    check('answer', '\n' + want in plain(first), first or t.text)
    t.send('/help\r')
    text = t.until(PROMPT) or ''
    check('help lists the commands', all(c in text for c in ['/clear', '/system', '/save', '/exit', 'Ctrl-C']), text)
    t.send('/nonsense\r')
    check('unknown command', 'no command' in (t.until(PROMPT) or ''))
    t.send('/save talk.json\r')
    check('saved', '[saved to talk.json]' in (t.until(PROMPT) or ''))
    t.send('/save talk.json\r')
    check('a file is not written over', 'exists' in (t.until(PROMPT) or ''))
    t.send('/save talk.md\r')
    t.until(PROMPT)
    t.send('/system Answer in one word.\r')
    t.until(PROMPT)
    t.send('/system\r')
    check('system message is shown', '\nAnswer in one word.\n' in plain(t.until(PROMPT)))
    t.send('/clear\r')
    check('clear', 'new conversation' in (t.until(PROMPT) or ''))
    t.send('/save clear.json\r')
    t.until(PROMPT)
    t.send('/save\r')
    check('save needs a name', 'needs a file name' in (t.until(PROMPT) or ''))
    t.send('/exit\r')
    check('exit', t.wait() == 0)
    check('terminal as before', t.is_restored())
    t.close()
    m = saved(home, 'talk.json')
    check('saved messages', [x['role'] for x in m] == ['user', 'assistant'] and m[1]['content'].strip() == want.strip(), m)
    page = open(home + '/talk.md').read()
    check('saved page', page.startswith('## User\n\nWhat is') and '\n## Assistant\n' in page, page)
    check('clear keeps the system message', saved(home, 'clear.json') == [{'role': 'system', 'content': 'Answer in one word.'}])


def test_interrupt(home):
    t = Terminal(home, *GREEDY, '--ignore-eos')
    t.until(rb'> ')
    t.send('Write a very long story about the sea.\r')
    t.until(rb'\n[^\n]{80}', 30)
    began = time.time()
    t.send('\x03')
    check('Ctrl-C stops the answer', t.until(rb'\[stopped\]', 5) is not None and time.time() - began < 2, t.text)
    t.until(PROMPT)
    t.send('/save stopped.json\r')
    t.until(PROMPT)
    m = saved(home, 'stopped.json')
    check('what was said is kept', len(m) == 2 and len(m[1]['content']) >= 40, m)
    t.send('And now?\r')
    t.until(rb'\n[^\n]{20}', 30)
    t.send('\x03')
    check('the next question is answered', t.until(rb'\[stopped\]', 5) is not None)
    t.until(PROMPT)
    t.send('And then?\r')
    t.until(rb'\n[^\n]{20}', 30)
    t.send('\x13')  # Ctrl-S: the terminal takes nothing
    n = -1
    while len(t.text) != n:
        n = len(t.text)
        t.read(0.2)
    t.send('\x03')  # the system ends what Ctrl-S began, too
    check('Ctrl-C while the terminal waits: stopped', t.until(rb'\[stopped\]', 5) is not None, t.text)
    t.until(PROMPT)
    t.send('half a line')
    t.until(rb'half a line')
    t.send('\x03')
    check('Ctrl-C drops a line', t.until(PROMPT, 5) is not None)
    t.send('\x03')
    check('Ctrl-C at an empty prompt: a hint', t.until(rb'Ctrl-C again', 5) is not None)
    t.until(PROMPT)
    t.send('/system\r')
    t.until(PROMPT)
    t.send('\x03')
    check('the count begins anew', t.until(rb'Ctrl-C again', 5) is not None and t.p.poll() is None)
    t.until(PROMPT)
    t.send('\x03')
    check('the second one leaves', t.wait() == 0)
    check('terminal as before, after Ctrl-C', t.is_restored())
    t.close()


def test_history(home):
    path = home + '/state/hearth/run-history'
    old = [f'old {i}' for i in range(1200)]
    os.makedirs(os.path.dirname(path), exist_ok=True)
    with open(path, 'w') as f:
        f.write(''.join(json.dumps(x) + '\n' for x in old) + 'no json\n')
    t = Terminal(home, *GREEDY, '--max-tokens', '4')
    t.until(rb'> ')
    t.send('/system first of all\r')
    t.until(PROMPT)
    t.send(' /a secret begins with a blank\r')
    t.until(PROMPT)
    t.send('\x04')
    check('Ctrl-D leaves', t.wait() == 0)
    t.close()
    lines = open(path).read().splitlines()
    check('history is bounded', len(lines) <= 1001 and 'old 1199' in lines[-3] + lines[-2], lines[-3:])
    check('history is private', os.stat(path).st_mode & 0o777 == 0o600, oct(os.stat(path).st_mode))
    check('a turn with a blank is not kept', not any('secret' in x for x in lines) and '"/system first of all"' == lines[-1], lines[-1:])
    t = Terminal(home, *GREEDY, '--max-tokens', '4')
    t.until(rb'> ')
    t.send('\x1b[A')
    check('arrow up recalls the other session', t.until(rb'first of all', 5) is not None, t.text)
    t.send(' again\r')
    t.until(PROMPT)
    t.send('/system\r')
    check('a recalled line can be changed', 'first of all again' in (t.until(PROMPT) or ''))
    t.send('\x12old 119')
    check('Ctrl-R searches', t.until(rb'old 1199', 5) is not None, t.text)
    t.send('\x03')
    t.until(PROMPT)
    t.send('/exit\r')
    t.wait()
    t.close()


def test_shared_history(home):
    """Sessions at once lose nothing; a full disk damages nothing."""
    folder = home + '/state/hearth'
    path = folder + '/run-history'
    os.makedirs(folder)
    with open(path, 'w') as f:
        f.write('"old"\n')
    t = Terminal(home, *GREEDY)
    t.until(rb'> ')
    lock = os.open(folder, os.O_RDONLY)
    fcntl.flock(lock, fcntl.LOCK_EX)  # as a session that cuts the file
    text = open(path).read()
    t.send('/system mine\r')
    check('a session waits for the other', t.until(PROMPT, 1) is None, t.text)
    with open(path + '.new', 'w') as f:
        f.write(text + '"theirs"\n')
    os.rename(path + '.new', path)
    os.close(lock)
    t.until(PROMPT)
    t.send('\x04')
    t.wait()
    t.close()
    check('nothing is lost', open(path).read() == '"old"\n"theirs"\n"/system mine"\n', open(path).read())
    before = open(path).read()
    t = Terminal(home, *GREEDY, file_max=len(before) + 7)
    t.until(rb'> ')
    t.send('/system on a full disk\r')
    text = t.until(PROMPT) or ''
    check('a full disk is told', 'no history is kept' in text and '7 of 25 bytes' in text and 'full' in text and 'Success' not in text, text)
    t.send('\x04')
    check('and the chat goes on', t.wait() == 0 and 'counts from the next turn' in text, text)
    t.close()
    check('a full disk: no half line', open(path).read() == before, open(path).read())


def test_lines(home):
    t = Terminal(home, *GREEDY, '--max-tokens', '4')
    t.until(rb'> ')
    cases = [('one\\\rtwo\r', 'one\ntwo'),
             ('"""alpha\r\rbeta\r"""\r', 'alpha\n\nbeta'),
             ('"""alpha"""\r', 'alpha'),
             ('\x1b[200~p1\rp2\r  p3\r\x1b[201~\r', 'p1\np2\n  p3'),
             ('\x1b[200~tab\there\x1b[31m\x1b[201~ end\r', 'tab\there[31m end'),
             ('a\x1b\rb\r', 'a\nb'),
             ('gr\u00fc\u00dfe \u4f60\u597d \U0001f600\r', 'gr\u00fc\u00dfe \u4f60\u597d \U0001f600'),
             ('abc\x1b[D\x1b[DX\r', 'aXbc'),
             ('/etc/hosts is a path\r', '/etc/hosts is a path')]
    for i, (keys, want) in enumerate(cases):
        t.send('/clear\r')
        t.until(rb'new conversation')
        t.until(PROMPT)
        t.send(keys)
        t.until(rb'max-tokens\]')
        t.until(PROMPT)
        t.send(f'/save l{i}.json\r')
        if t.until(rb'saved to') is None:
            check(f'lines {keys!r}', False, t.text)
            break
        t.until(PROMPT)
        got = [m['content'] for m in saved(home, f'l{i}.json') if m['role'] == 'user']
        check(f'lines {keys!r}', got == [want], got)
    t.send('/system ')
    os.write(t.master, b'\xc3abc\xe4\xbd\r')
    check('a character that is cut short takes nothing of the next', t.until(rb'counts from the next turn on', 5) is not None, t.text)
    t.until(PROMPT)
    t.send('/system\r')
    text = plain(t.until(PROMPT))
    check('and is shown as one that is none', '\n\ufffdabc\ufffd\n' in text, text)
    t.send('"""begun\r')
    t.until(rb'\n(\x1b\[[?0-9;]*[a-zA-Z])*  ')
    t.send('\x03')
    check('Ctrl-C leaves a block', t.until(PROMPT, 5) is not None, t.text)
    t.send('\x1b[A')
    t.send('\x03')
    t.until(PROMPT, 5)
    t.send('/exit\r')
    check('exit after blocks', t.wait() == 0, t.text)
    t.close()


def test_long_paste(home):
    """A paste that does not fit is not taken, and the keys after it count again."""
    t = Terminal(home, *GREEDY, '--max-tokens', '4')
    t.until(rb'> ')
    t.send('/system ')
    t.until(rb'/system ')
    piece = '\x1b[20' + 'x' * 4091
    t.send('\x1b[200~')
    for _ in range(257):
        t.send(piece)
    t.send('\x1b[201~')
    check('a paste that is too long is told', t.until(rb'not taken.*1048576', 20) is not None, t.text[-300:])
    t.send('\x1b[200~in \x1b[20\x1b[201~\x1b[200~two\x1b[201~ parts\r')
    t.until(rb'counts from the next turn on')
    t.until(PROMPT)
    t.send('/system\r')
    text = plain(t.until(PROMPT))
    check('the next pastes and keys count', '\nin [20two parts\n' in text, text)
    t.send('/exit\r')
    check('exit after a long paste', t.wait() == 0, t.text[-300:])
    t.close()


def test_name(home):
    """A model's name is not to be trusted with a terminal, nor is anything else that its file says."""
    name, bad = b'Smollm2 135M 8k Lc100K Mix1 Ep2', b'Sm\x1b]0;title\x07\x1b[31m\xc2\x9b5m\r\xff etc'
    with open(model, 'rb') as f:
        data = f.read()
    check('the name to change is there once', len(bad) <= len(name) and data[:1 << 20].count(name) == 1)
    with open(home + '/bad.gguf', 'wb') as f:
        f.write(data.replace(name, bad.ljust(len(name)), 1))
    t = Terminal(home, *GREEDY, path=home + '/bad.gguf')
    text = re.split('[\r\n]', t.until(rb'/help lists commands') or '')[-1].removeprefix('\x1b[K')  # behind the bar of loading
    check('the banner', 'Sm\\x1b]0;title' in text and not re.search('[\x00-\x1f\x7f-\x9f]', text), repr(text))
    t.close()
    for c in ('show', 'plan', 'bench', 'verify'):
        more = ['--prefill', '4', '--decode', '2', '--ctx', '64'] if c == 'bench' else []
        r = subprocess.run([hearth, c, home + '/bad.gguf', *more], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, env=environment(home))
        text = r.stdout.decode()
        check(f'{c}: nothing but text', r.returncode == 0 and not re.search('[\x00-\x08\x0b-\x1f\x7f-\x9f]', text) and (c != 'show' or '\\x1b]0;title' in text), repr(text))


def test_raw(home):
    t = Terminal(home, *GREEDY, '--max-tokens', '4', '--raw')
    t.until(rb'> ')
    for keys in ('/system You are a pirate.\r', '/system\r'):
        t.send(keys)
        check(f'raw chat: {keys!r} is refused', '--raw has no system message' in (t.until(PROMPT) or ''), t.text)
    t.send('/save raw.json\r')
    t.until(PROMPT)
    check('raw chat: no system message is kept', saved(home, 'raw.json') == [])
    t.send('/exit\r')
    t.wait()
    t.close()


def test_gone(home):
    """Half a turn is not sent when the program is to end."""
    path = home + '/state/hearth/run-history'
    for what, end in (('SIGTERM', lambda t: t.p.terminate()), ('SIGHUP', lambda t: t.p.send_signal(signal.SIGHUP)), ('Ctrl-D', lambda t: t.send('\x04'))):
        for keys, more in (('"""begun\r', rb'\n' + ESCAPE.encode() + rb'*  '), ('one\\\r', rb'\n' + ESCAPE.encode() + rb'*  '), ('half', rb'half')):
            if (what, keys) == ('Ctrl-D', 'half'):
                continue  # there it deletes
            t = Terminal(home, *GREEDY, '--max-tokens', '4')
            t.until(rb'> ')
            t.send(keys)
            t.until(more, 5)
            end(t)
            code = t.wait()
            check(f'{what} after {keys!r}: it ends, nothing is sent', code == 0 and b'max-tokens' not in t.text and t.is_restored(), (code, t.text))
            check(f'{what} after {keys!r}: nothing is kept', not os.path.exists(path))
            t.close()


def test_stop_and_go(home):
    """Ctrl-Z gives the terminal back to the shell in order and takes it again."""
    t = Terminal(home, *GREEDY, '--max-tokens', '4', shell=('sh', '-m', '-c', '"$@"; echo back in the shell; read x; fg', 'sh'))
    t.until(rb'> ')
    t.send('/system half')
    t.until(rb'half')
    t.send('\x1a')
    check('Ctrl-Z stops', t.until(rb'back in the shell', 5) is not None, t.text)
    check('terminal as before, while stopped', t.is_restored())
    t.send('\r')
    check('the line comes back', t.until(rb'> ' + ESCAPE.encode() + rb'*/system half', 5) is not None, t.text)
    t.send(' done\r')
    check('and goes on', t.until(rb'counts from the next turn', 5) is not None, t.text)
    t.until(PROMPT, 5)
    t.send('/system\r')
    text = plain(t.until(PROMPT, 5))
    check('what was typed before and after is one line', '\nhalf done\n' in text, text)
    t.send('/exit\r')
    check('exit after fg', t.wait() == 0, t.text)
    t.close()


def test_stop_without_shell(home):
    """Where nothing could let it go on, Ctrl-Z does not stop it."""
    t = Terminal(home, *GREEDY, '--max-tokens', '4')
    t.until(rb'> ')
    t.send('half')
    t.until(rb'half')
    t.send('\x1a')
    check('Ctrl-Z without a shell: the line is there', t.until(rb'half', 5) is not None, t.text)
    t.send('\x03')
    t.until(PROMPT, 5)
    t.p.terminate()
    check('SIGTERM at the prompt leaves', t.wait() == 0)
    check('terminal as before, after SIGTERM', t.is_restored())
    t.close()


def test_resize(home):
    """A window of another size shows prompt and line in their place, not once more."""
    t = Terminal(home, *GREEDY, '--max-tokens', '4')
    t.until(rb'> ')
    t.send('/system ' + 'word ' * 16)
    t.until(rb'(word ){16}')
    for columns, above in ((40, rb'\x1b\[2A'), (60, rb'\x1b\[1A'), (100, b'')):
        t.text = b''
        fcntl.ioctl(t.master, termios.TIOCSWINSZ, struct.pack('HHHH', 24, columns, 0, 0))
        check(f'{columns} columns: the old line goes', t.until(b'^' + above + rb'\r\x1b\[J> /system', 5) is not None, t.text)
        t.until(rb'(word\s+){16}')
    t.send('\x03')
    t.until(PROMPT, 5)
    t.send('/exit\r')
    check('exit after another size', t.wait() == 0)
    t.close()


def test_full(home):
    t = Terminal(home, '--temp', '0', '--ctx', '96', '--threads', '2', '--max-tokens', '8')
    t.until(rb'> ')
    t.send('Hello\r')
    t.until(PROMPT)
    t.send('word ' * 120 + '\r')
    text = (t.until(PROMPT) or '').replace('\r\n', ' ')
    check('context full: both numbers', re.search(r'has \d{3} tokens; the context holds 96', text), text)
    for text, want in (('x' * 65500, r'has 65\d{3} bytes, 65536 are in the plan'), ('x' * 65600, 'larger than the 65536 bytes')):
        t.send(f'\x1b[200~{text}\x1b[201~\r')
        check('more than the plan has: both numbers', t.until(want.encode(), 20) is not None, t.text[-300:])
        t.until(PROMPT, 5)
    t.send('/save full.json\r')
    t.until(PROMPT)
    check('the conversation is kept', [m['role'] for m in saved(home, 'full.json')] == ['user', 'assistant'])
    t.send('Hi\r')
    text = t.until(PROMPT) or ''
    check('and goes on', 'tokens; the context' not in text, text)
    t.send('\x04')
    t.wait()
    t.close()


def test_plain(home):
    """No terminal at one end, or one that can do nothing."""
    out = tempfile.TemporaryFile()
    want = answer_of(home, *GREEDY, '--max-tokens', '24')
    t = Terminal(home, *GREEDY, '--max-tokens', '24', stdout=out)
    check('prompt goes to the other stream', t.until(rb'> ') is not None, t.text)
    t.send(QUESTION + '\n')
    t.until(rb'max-tokens\].*?> ')
    t.send('\x03')
    check('plain lines: Ctrl-C hint', t.until(rb'Ctrl-C again', 5) is not None, t.text)
    t.send('\x04')
    check('plain lines: Ctrl-D leaves', t.wait() == 0)
    out.seek(0)
    text = out.read().decode()
    check('only the answer in the file', text == want, text)
    t.close()
    t = Terminal(home, *GREEDY, '--max-tokens', '24', env={'TERM': 'dumb'})
    t.until(rb'> ')
    t.send(QUESTION + '\r')
    text = (t.until(rb'\n> ') or '').replace('\r', '')
    check('dumb terminal', '\n' + want in text and '\x1b' not in text, text)
    t.send('/exit\r')
    check('dumb terminal: exit', t.wait() == 0)
    t.close()


def run(home, *args, data=None, file=None):
    stdin = {'input': data} if data is not None else {'stdin': file or subprocess.DEVNULL}
    r = subprocess.run([hearth, 'run', *args], stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment(home), timeout=120, **stdin)
    return r.returncode, r.stdout.decode('utf-8', 'replace'), r.stderr.decode('utf-8', 'replace')


def test_pipes(home):
    short = [*GREEDY, '--max-tokens', '12']
    want = answer_of(home, *short)
    check('one prompt', want.endswith('\n') and '\x1b' not in want, want)
    code, text, _ = run(home, model, *short, data=QUESTION.encode())
    check('text on standard input', code == 0 and text == want, text)
    code, text, _ = run(home, model, 'What is the', *short, '--json', data=b'capital of France?')
    parts = json.loads(text)
    code, text, _ = run(home, model, 'What is the\n\ncapital of France?', *short, '--json')
    check('prompt and standard input', parts['text'] == json.loads(text)['text'] and parts['prompt_tokens'] == json.loads(text)['prompt_tokens'], parts)
    with open(home + '/in', 'w') as f:
        f.write('nobody reads this\n' + QUESTION)
    with open(home + '/in') as f:
        os.lseek(f.fileno(), len('nobody reads this\n'), os.SEEK_SET)
        code, text, _ = run(home, model, *short, file=f)
    check('a file from where it stands', text == want, text)
    code, text, err = run(home, model, QUESTION, *short, '-v')
    check('--verbose goes to standard error', text == want and 'tok/s' in err, (text, err))
    told = re.findall(r'^\[memory: ([0-9.]+) MiB planned, ([0-9.]+) of them for text; ([0-9.]+) MiB available \(', err, re.M)
    check('--verbose: its memory', len(told) == 1 and 24 < float(told[0][1]) < float(told[0][0]) < float(told[0][2]), err)
    err = run(home, model, QUESTION, *short, '-v', '--json')[2]
    check('--verbose --json: nothing of it', '[memory' not in err, err)
    code, text, _ = run(home, model, QUESTION, *short, '--system', 'You are a pirate.', '--json')
    check('--system', code == 0 and json.loads(text)['prompt_tokens'] > 0)
    code, text, _ = run(home, model, QUESTION, *short, '--json')
    answer = json.loads(text)
    shape = {'version': int, 'text': str, 'finish': str, 'prompt_tokens': int, 'generated_tokens': int, 'prefill_tok_s': float, 'decode_tok_s': float,
             'first_token_ms': float, 'planned_bytes': int, 'rss_peak_bytes': int}
    check('--json: its fields', {k: type(v) for k, v in answer.items()} == shape, answer)
    check('--json: its values', answer['text'].strip() == want.strip() and answer['finish'] in ('stop', 'length') and text.count('\n') == 1, answer)
    warm = ['--temp', '1.2', '--max-tokens', '16', '--ctx', '1024']
    one, two, three = (run(home, model, QUESTION, *warm, '--seed', s)[1] for s in ('7', '7', '8'))
    check('--seed', one == two and one != three, (one, two, three))
    code, text, err = run(home, model, 'word ' * 200, '--ctx', '96', '--temp', '0')
    check('prompt too long: 11 and both numbers', code == 11 and text == '' and re.search(r'has \d{3} tokens; the context holds 96', err), (code, err))
    code, text, err = run(home, model, 'Tell me a story.', '--ctx', '64', '--temp', '0', '--ignore-eos')
    check('an answer that fills the context is told', code == 0 and 'fill the context of 64' in err, (code, err))


def test_codes(home):
    for args, want, word in [((model, ''), 2, 'empty'), ((home + '/no.gguf', 'x'), 3, 'no such file'), ((model, 'x', '--temp', 'hot'), 2, '--temp'),
                             ((model, 'x', '--sed', '1'), 2, '--seed'), ((model, 'x', '--ctx', '99999999'), 2, '--ctx'),
                             ((model, 'x', '--ctx', '100000'), 11, 'made for'), ((model, 'x', '--memory', '20'), 4, 'MiB'), ((), 2, 'MODEL')]:
        code, text, err = run(home, *args)
        check(f'exit code {args}', code == want and word in err and text == '' and err.count('\n') == 1 and err.startswith('hearth: '), (code, text, err))
    p = subprocess.Popen([hearth, 'run', model, 'Write a long story.', '--ignore-eos', '--ctx', '2048'], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                         stderr=subprocess.PIPE, env=environment(home))
    p.stdout.read(40)
    p.send_signal(signal.SIGINT)
    out, err = p.communicate(timeout=20)
    check('Ctrl-C without a terminal: 12', p.returncode == 12 and b'[stopped]' in err, (p.returncode, err))
    p = subprocess.Popen([hearth, 'run', model, 'Write a long story.', '--ignore-eos', '--ctx', '2048'], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                         stderr=subprocess.PIPE, env=environment(home))
    p.stdout.read(40)
    p.stdout.close()
    check('a reader that leaves ends it', p.wait(20) == -signal.SIGPIPE, p.returncode)
    p.stderr.close()


def main():
    signal.alarm(240)  # nothing here waits for ever
    for test in [test_chat, test_interrupt, test_history, test_shared_history, test_lines, test_long_paste, test_gone, test_name, test_raw, test_stop_and_go, test_stop_without_shell, test_resize, test_full, test_plain, test_pipes, test_codes]:
        with tempfile.TemporaryDirectory() as home:
            began = time.time()
            test(home)
            if '-v' in sys.argv:
                print(f'{test.__name__}: {time.time() - began:.1f} s', flush=True)
    finish()


main()
