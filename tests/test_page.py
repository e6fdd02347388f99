#!/usr/bin/env python3
"""test_page.py (--url URL | --hearth BIN --model FILE): the web page in a real browser, Debian's chromium.

Answers come from the running server where the server is what matters (streaming, stop, a lost connection), and are made up
by the browser's request interception where the page is: hostile text, errors, keys. In every check any message on the
browser's console that was not asked for, any breach of the page's policy and any request to another host counts as a failure.
Accessibility rules are axe-core's, pinned in tests/api_node; left out with a note when it cannot be had. Pictures of the page are left in --out. The last line reads 'N passed, N failed, N skipped'."""
import argparse
import gzip
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.parse
import urllib.request

import node_packages

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
CHAT = '**/v1/chat/completions'
STEADY = {'temperature': 0}     # the answers to what follows are then the same every time, and long enough
LONG = 'Tell me a very long story about a lighthouse, in many chapters.'
TWO_LINES = LONG.replace(', ', ',\n')
NARROW = {'width': 360, 'height': 640}
MARKDOWN = """# Title

Some *slanted*, **bold** and `code`, a [link](https://example.org/a) and H<sub>2</sub>O.

3. one
4. two

| a | b |
|---|--:|
| 1 | 2 |

```python
def f(x):
    return x < 1
```

> quoted
"""
HOSTILE = """<script>window.hit = 1</script>
<img src="x" onerror="window.hit = 2"> inline <img src=https://evil.example/a.png> <svg onload="window.hit = 3"></svg>

![picture](https://evil.example/b.png "t")
[script](javascript:window.hit=4) [data](data:text/html,<script>window.hit=5</script>) <a href="javascript:window.hit=6">raw</a>
<iframe src="https://evil.example/"></iframe><style>body{display:none}</style><form action="/x"><input name=q></form>
<b style="position:fixed" onclick="window.hit=7">bold</b> <base href="https://evil.example/">

```html"onmouseover="window.hit=8
<script>window.hit = 9</script>
```
"""


def sse(text, usage=True, done=True, step=7, finish='stop'):
    """An answer as the server streams it."""
    def chunk(**more):
        return 'data: ' + json.dumps({'id': 'x', 'object': 'chat.completion.chunk', 'choices': [], **more}) + '\n\n'
    out = ''.join(chunk(choices=[{'index': 0, 'delta': {'content': text[i:i + step]}}]) for i in range(0, len(text), step))
    if not done:
        return out
    out += chunk(choices=[{'index': 0, 'delta': {}, 'finish_reason': finish}])
    if usage:
        out += chunk(usage={'prompt_tokens': 20, 'completion_tokens': 50, 'total_tokens': 70},
                     timings={'queue_ms': 0.1, 'prompt_ms': 10, 'prompt_n': 20, 'predicted_ms': 500, 'predicted_n': 50})
    return out + 'data: [DONE]\n\n'


def error(status, message, code, **headers):
    body = {'error': {'message': message, 'type': 'some_error', 'param': None, 'code': code}}
    return {'status': status, 'content_type': 'application/json', 'body': json.dumps(body), 'headers': headers}


def free_port():
    with socket.socket() as s:
        s.bind(('127.0.0.1', 0))
        return s.getsockname()[1]


class Server:
    """`hearth serve` on a free port, ready."""

    def __init__(self, hearth, model):
        self.url = f'http://127.0.0.1:{free_port()}'
        self.log = tempfile.TemporaryFile('w+')
        self.process = subprocess.Popen([hearth, 'serve', '--model', model, '--port', self.url.rsplit(':', 1)[1]],
                                        stdin=subprocess.DEVNULL, stdout=self.log, stderr=self.log)
        until = time.monotonic() + 120
        while True:
            try:
                urllib.request.urlopen(self.url + '/readyz', timeout=5)
                return
            except (urllib.error.URLError, OSError):
                if self.process.poll() is not None or time.monotonic() > until:
                    self.process.kill()
                    self.log.seek(0)
                    raise RuntimeError('the server is not ready:\n' + self.log.read()) from None
                time.sleep(0.05)

    def end(self, sig=signal.SIGTERM):
        self.process.send_signal(sig)
        self.process.wait(60)


class Tab:
    """A fresh browser profile with the page open, and everything it complained of."""

    def __init__(self, browser, url, stubs=None, init='', focus='#input', **context):
        self.url = url
        self.context = browser.new_context(**context)
        self.page = self.context.new_page()
        self.page.set_default_timeout(30000)
        self.complaints, self.allowed, self.sent = [], [], []
        self.page.on('console', lambda m: m.type in ('error', 'warning') and self.complaints.append(m.text))
        self.page.on('pageerror', lambda e: self.complaints.append(str(e)))
        self.page.on('request', self.on_request)
        self.page.add_init_script("document.addEventListener('securitypolicyviolation', (e) => console.error('policy: ' + e.violatedDirective + ' ' + e.blockedURI));" + init)
        for pattern, answer in (stubs or {}).items():
            self.stub(pattern, answer)
        self.page.goto(url)
        self.page.wait_for_selector(focus + ':focus')

    def on_request(self, r):
        if not r.url.startswith((self.url + '/', 'blob:' + self.url, 'data:')):
            self.complaints.append('request to ' + r.url)
        if r.url.endswith('/chat/completions'):
            self.sent.append(json.loads(r.post_data))

    def stub(self, pattern, answer):
        def fulfill(route):
            a = answer(route.request) if callable(answer) else answer
            a = {'status': 200, 'content_type': 'text/event-stream', 'body': a} if isinstance(a, str) else a
            route.fulfill(**a)
        self.page.unroute(pattern)
        self.page.route(pattern, fulfill)

    def set(self, **settings):
        self.page.evaluate("(s) => localStorage.setItem('hearth.settings', JSON.stringify(s))", settings)

    def send(self, text):
        self.page.fill('#input', text)
        self.page.press('#input', 'Enter')

    def wait_done(self):
        self.page.wait_for_selector('#send:visible', timeout=120000)

    def ask(self, text):
        self.send(text)
        self.page.wait_for_selector('article.user')
        self.wait_done()

    def until(self, expression, timeout_s=30):
        """Waits for an expression to be true. Playwright's own way needs eval in the page, which its policy forbids."""
        within(timeout_s, expression, lambda: self.page.evaluate(expression))

    def answer(self):
        return self.page.locator('article.assistant').last

    def text(self, selector):
        return self.page.inner_text(selector)

    def close(self):
        self.context.close()
        left = [c for c in self.complaints if not any(a in c for a in self.allowed)]
        assert not left, f'the browser complains: {left}'


def same(found, wanted):
    assert found == wanted, f'found {found!r}, wanted {wanted!r}'


def metric(url, name):
    text = urllib.request.urlopen(url + '/metrics').read().decode()
    return sum(float(line.rsplit(' ', 1)[1]) for line in text.splitlines() if line.startswith(name))


def within(seconds, what, test):
    until = time.monotonic() + seconds
    while not test():
        assert time.monotonic() < until, f'not within {seconds} s: {what}'
        time.sleep(0.02)


# --- checks: each gets an environment and opens its own tabs --------------------------------------

def check_loads(t):
    tab = t.tab()
    tab.until("document.querySelector('#model').textContent.includes('tokens of context')")
    listed = json.load(urllib.request.urlopen(t.url + '/v1/models'))['data'][0]['id']
    assert tab.text('#model').startswith(listed), tab.text('#model')
    assert tab.page.locator('#plain').is_hidden() == t.has_markdown()
    sizes = [len(urllib.request.urlopen(urllib.request.Request(t.url + p, headers={'Accept-Encoding': 'gzip'})).read())
             for p in ('/', *sorted(tab.page.evaluate("performance.getEntriesByType('resource').map((e) => new URL(e.name).pathname).filter((p) => p.includes('.'))")))]
    assert sum(sizes) < 100_000, f'{sum(sizes)} bytes in all'
    tab.close()


def check_policy_and_caching(t):
    with urllib.request.urlopen(t.url + '/') as r:
        policy, etag = r.headers['Content-Security-Policy'], r.headers['ETag']
        same(r.headers['X-Content-Type-Options'], 'nosniff')
        plain = r.read()
    for part in ("default-src 'none'", "script-src 'self'", "connect-src 'self'", "frame-ancestors 'none'", "base-uri 'none'", "form-action 'none'"):
        assert part in policy.split('; '), f'{part} is missing in {policy}'
    try:
        urllib.request.urlopen(urllib.request.Request(t.url + '/', headers={'If-None-Match': etag}))
        raise AssertionError('no 304 for the same ETag')
    except urllib.error.HTTPError as e:
        same(e.code, 304)
    with urllib.request.urlopen(urllib.request.Request(t.url + '/', headers={'Accept-Encoding': 'gzip'})) as r:
        same(r.headers['Content-Encoding'], 'gzip')
        same(gzip.decompress(r.read()), plain)


def check_keyboard_and_streaming(t):
    tab = t.tab()
    tab.page.evaluate("""() => { window.lengths = new Set();
        new MutationObserver(() => lengths.add(document.querySelector('article.assistant .body')?.textContent.length ?? 0))
            .observe(document.querySelector('#messages'), { childList: true, subtree: true, characterData: true }); }""")
    tab.set(maxTokens=2000, **STEADY)
    k = tab.page.keyboard
    first, second = TWO_LINES.split('\n')
    k.type(first)
    k.press('Shift+Enter')
    k.type(second)
    same(tab.page.input_value('#input'), TWO_LINES)
    k.press('Enter')
    tab.page.wait_for_selector('#stop:visible')
    same(tab.page.input_value('#input'), '')
    tab.until('window.lengths.size >= 5')
    if tab.page.locator('#stop').is_visible():
        k.press('Escape')
    tab.wait_done()
    same(tab.text('article.user .body'), TWO_LINES)
    tab.page.wait_for_selector('#input:focus')
    tab.close()


def check_speed_shown(t):
    tab = t.tab()
    tab.set(maxTokens=12, **STEADY)
    tab.ask('Say hello.')
    for word in ('tokens/s', 'prompt', ' of ', 'tokens of context used'):
        assert word in tab.text('#speed'), tab.text('#speed')
    assert 'tokens/s' in tab.answer().locator('.stats').inner_text()
    same((tab.sent[0]['temperature'], tab.sent[0]['max_completion_tokens'], tab.sent[0]['stream_options']), (0, 12, {'include_usage': True}))
    assert 'limit of tokens' in tab.answer().locator('.note').inner_text()
    tab.close()


def check_stop(t):
    for how in ('escape', 'button'):
        before = metric(t.url, 'hearth_requests_cancelled_total')
        tab = t.tab()
        tab.set(**STEADY)
        tab.send(LONG)
        tab.until("document.querySelector('article.assistant .body')?.textContent.length > 40")
        tab.page.keyboard.press('Escape') if how == 'escape' else tab.page.click('#stop')
        tab.wait_done()
        kept = tab.answer().locator('.body').inner_text()
        assert len(kept) > 20
        same(tab.answer().locator('.note').inner_text(), 'Stopped here.')
        within(10, 'the server sees the stop', lambda: metric(t.url, 'hearth_requests_cancelled_total') == before + 1)
        within(10, 'nothing runs any more', lambda: metric(t.url, 'hearth_requests_running') == 0)
        same(tab.answer().locator('.body').inner_text(), kept)
        tab.page.wait_for_selector('#input:focus')
        tab.close()


def check_history(t):
    tab = t.tab({CHAT: sse('First answer.')})
    tab.ask('First question')
    tab.page.reload()
    tab.page.wait_for_selector('article.assistant')
    same(tab.answer().locator('.body').inner_text(), 'First answer.')
    tab.page.click('#new')
    same(tab.page.locator('article').count(), 0)
    tab.stub(CHAT, sse('Second answer.'))
    tab.ask('Second question')
    tab.ask('And another')
    same([m['content'] for m in tab.sent[-1]['messages']], ['Second question', 'Second answer.', 'And another'])
    same(tab.page.locator('#chat-list .open').all_inner_texts(), ['Second question', 'First question'])
    tab.page.click('#chat-list .open >> nth=1')
    same(tab.answer().locator('.body').inner_text(), 'First answer.')
    with tab.page.expect_download() as got:
        tab.page.click('#export')
    kept = json.load(open(got.value.path()))
    same([c['title'] for c in kept['chats']], ['Second question', 'First question'])
    tab.page.click('#chat-list .delete >> nth=0')
    tab.page.keyboard.press('Escape')
    same(tab.page.locator('#chat-list li').count(), 2)
    tab.page.click('#chat-list .delete >> nth=0')
    tab.page.click('#confirm .danger')
    tab.until("document.querySelectorAll('#chat-list li').length === 1")
    tab.page.click('#delete-all')
    tab.page.click('#confirm .danger')
    tab.page.wait_for_selector('#chat-none:visible')
    same(tab.page.evaluate("Object.keys(localStorage).filter((k) => k.startsWith('hearth.chat.')).length"), 0)
    same(tab.page.locator('article').count(), 0)
    tab.close()


def check_history_of_cut_answer(t):
    """A reload in the middle of an answer keeps what had come, and says so."""
    tab = t.tab()
    tab.set(**STEADY)
    tab.send(LONG)
    tab.until("document.querySelector('article.assistant .body')?.textContent.length > 40")
    tab.page.reload()
    tab.page.wait_for_selector('article.assistant')
    assert len(tab.answer().locator('.body').inner_text()) > 20
    same(tab.answer().locator('.note').inner_text(), 'Stopped here.')
    tab.close()


def check_answer_in_other_chat(t):
    """An answer goes on while another chat is shown, and ends up in its own chat."""
    tab = t.tab()
    tab.set(maxTokens=150, **STEADY)
    tab.send(LONG)
    tab.until("document.querySelector('article.assistant .body')?.textContent.length > 5")
    tab.page.click('#new')
    same(tab.page.locator('article').count(), 0)
    tab.wait_done()
    same(tab.page.locator('article').count(), 0)
    tab.page.click('#chat-list .open')
    assert len(tab.answer().locator('.body').inner_text()) > 100
    tab.close()


def check_two_tabs(t):
    """A chat begun in one tab appears in the list of another."""
    tab = t.tab({CHAT: sse('Answer.')})
    other = tab.context.new_page()
    other.goto(t.url)
    tab.ask('From the first tab')
    other.wait_for_selector('#chat-list .open')
    same(other.inner_text('#chat-list .open'), 'From the first tab')
    tab.close()


def check_storage_full(t):
    full = "Storage.prototype.setItem = () => { throw new DOMException('full', 'QuotaExceededError'); };"
    tab = t.tab({CHAT: sse('Answer.')}, init=full)
    tab.ask('Question')
    assert 'no room' in tab.text('#alert'), tab.text('#alert')
    same(tab.answer().locator('.body').inner_text(), 'Answer.')
    same(tab.page.locator('#chat-list li').count(), 1)
    tab.close()


def check_markdown(t):
    t.needs_markdown()
    tab = t.tab({CHAT: sse(MARKDOWN)}, permissions=['clipboard-read', 'clipboard-write'])
    tab.ask('Show me markdown')
    body = tab.answer().locator('.body')
    for selector, wanted in (('h3', 'Title'), ('em', 'slanted'), ('strong', 'bold'), ('li >> nth=1', 'two'), ('td >> nth=1', '2'), ('sub', '2'),
                             ('blockquote', 'quoted'), ('pre', 'def f(x):\n    return x < 1'), ('.code-head span', 'python')):
        same(body.locator(selector).inner_text().strip(), wanted)
    same(body.locator('ol').get_attribute('start'), '3')
    same(body.locator('td >> nth=1').get_attribute('align'), 'right')
    same([body.locator('a').get_attribute(a) for a in ('href', 'target', 'rel')], ['https://example.org/a', '_blank', 'noopener noreferrer'])
    body.locator('.copy').click()
    same(tab.page.evaluate('navigator.clipboard.readText()'), 'def f(x):\n    return x < 1')
    tab.answer().locator('.tools .copy').click()
    same(tab.page.evaluate('navigator.clipboard.readText()'), MARKDOWN)
    t.picture(tab, 'markdown')
    tab.close()


def check_streamed_equals_whole(t):
    """Drawing block by block while text arrives ends in the same page as drawing it once."""
    t.needs_markdown()
    tab = t.tab()
    same(*tab.page.evaluate("""async (text) => {
        const { renderer } = await import('/markdown.js');
        const [a, b] = [document.createElement('div'), document.createElement('div')];
        const [grow, once] = [renderer(a), renderer(b)];
        for (let i = 1; i <= text.length; i++) { grow(text.slice(0, i)); }
        once(text);
        return [a.innerHTML, b.innerHTML];
    }""", MARKDOWN + HOSTILE + '1. a\n2. b\n\n   c\n\nend'))
    tab.close()


def check_hostile(t):
    tab = t.tab({CHAT: sse(HOSTILE)})
    tab.ask('Attack me')
    body = tab.answer().locator('.body')
    tab.page.mouse.move(300, 300)
    tab.page.wait_for_timeout(300)
    same(tab.page.evaluate('window.hit'), None)
    same(body.locator('script, img, svg, iframe, style, form, input, base, object, b').count(), 0)
    same(body.evaluate("""(b) => [...b.querySelectorAll('*')].flatMap((e) => [...e.attributes].map((a) => a.name))
        .filter((n) => n.startsWith('on') || n === 'style' || n === 'src')"""), [])
    same([h for h in body.evaluate("(b) => [...b.querySelectorAll('a')].map((a) => a.getAttribute('href'))") if h and not h.startswith('https://')], [])
    assert '<script>window.hit = 1</script>' in body.inner_text(), 'HTML in an answer is shown as text'
    tab.close()


def check_no_html(t):
    """The policy holds even if the page's code did not: text cannot be made HTML."""
    tab = t.tab()
    tab.allowed = ['TrustedHTML', 'policy: require-trusted-types-for']
    same(tab.page.evaluate("""() => {
        try { document.createElement('div').innerHTML = '<b>x</b>'; return 'made'; } catch (e) { return e.name; }
    }"""), 'TypeError')
    tab.close()


def check_deep(t):
    """Nested deeper than a browser's stack: shown as it is."""
    t.needs_markdown()
    tab = t.tab()
    text = '> ' * 30000 + 'x'
    same(tab.page.evaluate("""async (text) => {
        const { renderer } = await import('/markdown.js');
        const box = document.createElement('div');
        renderer(box)(text);
        return box.textContent.endsWith('x');
    }""", text), True)
    tab.close()


def check_plain_text(t):
    """Without the library."""
    tab = t.tab({CHAT: sse('one\n\n*two* <img src=x onerror=hit=1>'),
                 '**/libs.js': {'content_type': 'text/javascript', 'body': 'export const marked = null;\n'}})
    assert tab.page.locator('#plain').is_visible()
    tab.ask('Plain')
    same(tab.answer().locator('.body').inner_text(), 'one\n\n*two* <img src=x onerror=hit=1>')
    tab.close()


def check_thoughts(t):
    tab = t.tab({CHAT: sse('<think>\nhm, let me see\n</think>\n\nForty-two.')})
    tab.ask('Think')
    same(tab.answer().locator('.body').inner_text().strip(), 'Forty-two.')
    assert tab.answer().locator('details').is_visible() and not tab.answer().locator('details div').is_visible()
    tab.answer().locator('summary').click()
    same(tab.answer().locator('details div').inner_text(), 'hm, let me see')
    tab.close()


def check_errors(t):
    tab = t.tab({CHAT: error(503, '64 requests wait already', 'queue_full', **{'Retry-After': '3'})})
    tab.allowed = ['503', '400']
    tab.ask('Hello')
    assert '64 requests wait already' in tab.text('#alert') and '3 s' in tab.text('#alert'), tab.text('#alert')
    same(tab.page.locator('article.assistant').count(), 0)
    tab.stub(CHAT, sse('Now it works.'))
    tab.page.click('#alert button:has-text("Retry")')
    tab.page.wait_for_selector('article.assistant .stats')
    same(tab.text('#alert').strip(), '')
    tab.stub(CHAT, error(400, 'the prompt has 5000 tokens, 4096 fit', 'context_length_exceeded'))
    tab.ask('Too long')
    assert 'Start a new chat' in tab.text('#alert')
    tab.stub(CHAT, {'status': 502, 'content_type': 'text/html', 'body': '<h1>Bad gateway</h1>'})
    tab.allowed.append('502')
    tab.page.click('#alert button:has-text("Retry")')
    tab.until("document.querySelector('#alert').textContent.includes('status 502')")
    tab.close()


def check_error_in_stream(t):
    tab = t.tab({CHAT: sse('Half of it', done=False) + 'data: {"error": {"message": "out of breath", "code": "x"}}\n\n'})
    tab.ask('Hello')
    same(tab.answer().locator('.body').inner_text(), 'Half of it')
    assert 'out of breath' in tab.answer().locator('.note').inner_text() and 'out of breath' in tab.text('#alert')
    tab.close()


def check_lost_connection_stubbed(t):
    tab = t.tab({CHAT: sse('Half of it', done=False)})
    tab.ask('Hello')
    same(tab.answer().locator('.body').inner_text(), 'Half of it')
    assert 'connection was lost' in tab.answer().locator('.note').inner_text()
    tab.page.reload()
    tab.page.wait_for_selector('article.assistant')
    assert 'connection was lost' in tab.answer().locator('.note').inner_text()
    tab.close()


def check_key(t):
    def guarded(answer):
        return lambda r: answer if r.headers.get('authorization') == 'Bearer open sesame' else error(401, 'a valid API key is needed', 'invalid_api_key')
    models = {'status': 200, 'content_type': 'application/json', 'body': json.dumps({'data': [{'id': 'secret-model', 'meta': {'n_ctx': 100}}]})}
    tab = t.tab({'**/v1/models': guarded(models), CHAT: guarded(sse('Welcome.'))}, focus='#key-text')
    tab.allowed = ['401']
    k = tab.page.keyboard
    k.type('wrong')
    k.press('Enter')
    tab.until("document.querySelector('#key').open && document.querySelector('#key-title').textContent.includes('not accepted')")
    k.type('open sesame')
    k.press('Enter')
    tab.until("document.querySelector('#model').textContent.startsWith('secret-model')")
    tab.ask('Knock knock')
    same(tab.answer().locator('.body').inner_text(), 'Welcome.')
    same(tab.page.evaluate("[JSON.stringify(localStorage).includes('sesame'), sessionStorage.getItem('hearth.key')]"), [False, 'open sesame'])
    tab.page.evaluate("sessionStorage.setItem('hearth.key', 'expired')")
    tab.send('Once more')
    tab.page.wait_for_selector('#key-text:focus')
    k.type('open sesame')
    k.press('Enter')
    tab.until("document.querySelectorAll('article.assistant .stats').length === 2")
    same([m['content'] for m in tab.sent[-1]['messages']], ['Knock knock', 'Welcome.', 'Once more'])
    tab.close()


def check_settings(t):
    tab = t.tab({CHAT: sse('Arr.')})
    tab.page.click('#settings-open')
    tab.page.wait_for_selector('#system:focus')
    k = tab.page.keyboard
    k.type('You are a pirate.')
    k.press('Tab')
    k.type('0.5')
    k.press('Tab')
    k.type('77')
    k.press('Enter')
    tab.page.wait_for_selector('#settings', state='hidden')
    tab.page.reload()
    tab.ask('Hello')
    same(tab.sent[0]['messages'], [{'role': 'system', 'content': 'You are a pirate.'}, {'role': 'user', 'content': 'Hello'}])
    same((tab.sent[0]['temperature'], tab.sent[0]['max_completion_tokens']), (0.5, 77))
    tab.page.click('#settings-open')
    tab.page.fill('#temperature', '')
    k.press('Escape')
    tab.page.wait_for_selector('#settings-open:focus')
    tab.ask('Again')
    same(tab.sent[1]['temperature'], 0.5)
    tab.close()


def check_edit_and_retry(t):
    tab = t.tab({CHAT: sse('Answer one.')})
    tab.ask('Question one')
    tab.stub(CHAT, sse('Answer two.'))
    tab.page.click('text=Retry')
    tab.until("document.querySelector('#messages').textContent.includes('Answer two.')")
    tab.wait_done()
    same(tab.page.locator('article').count(), 2)
    same([m['content'] for m in tab.sent[-1]['messages']], ['Question one'])
    tab.page.click('text=Edit')
    same(tab.page.input_value('#input'), 'Question one')
    tab.page.keyboard.press('Escape')
    same(tab.page.input_value('#input'), '')
    tab.page.click('text=Edit')
    tab.stub(CHAT, sse('Answer three.'))
    tab.ask('Question three')
    same(tab.page.locator('article').count(), 2)
    same([m['content'] for m in tab.sent[-1]['messages']], ['Question three'])
    same(tab.answer().locator('.body').inner_text(), 'Answer three.')
    tab.close()


def check_themes(t):
    def ground(tab):
        return tab.page.evaluate('getComputedStyle(document.body).backgroundColor')
    dark, light = t.tab(color_scheme='dark'), t.tab(color_scheme='light')
    by_system = ground(light), ground(dark)
    assert by_system[0] != by_system[1]
    light.page.click('#theme')
    light.page.click('#theme')
    same((light.text('#theme'), ground(light)), ('Theme: dark', by_system[1]))
    light.page.reload()
    same((light.text('#theme'), ground(light)), ('Theme: dark', by_system[1]))
    light.page.click('#theme')
    same((light.text('#theme'), ground(light)), ('Theme: auto', by_system[0]))
    light.close()
    dark.close()


def check_screen_reader(t):
    tab = t.tab({CHAT: sse('A *spoken* answer.')})
    tab.page.evaluate("""() => { window.spoken = [];
        new MutationObserver(() => spoken.push(document.querySelector('#spoken').textContent)).observe(document.querySelector('#spoken'), { childList: true }); }""")
    tab.ask('Speak')
    tab.until('window.spoken.length >= 2')
    tab.page.wait_for_timeout(200)
    spoken = tab.page.evaluate('window.spoken')
    same((len(spoken), spoken[0]), (2, 'Answering.'))
    assert 'spoken' in spoken[1] and spoken[1].startswith('Answer: ')
    same(tab.page.locator('#messages').evaluate("(e) => e.closest('[aria-live]')"), None)
    tab.close()


def check_keyboard_reaches_all(t):
    """Tab reaches every control, in order, with a visible mark; the skip link leads to the message field."""
    tab = t.tab({CHAT: sse(MARKDOWN)})
    tab.ask('Question')
    tab.page.evaluate("document.activeElement.blur()")
    seen, k = [], tab.page.keyboard
    for _ in range(40):
        k.press('Tab')
        seen.append(tab.page.evaluate("""() => { const e = document.activeElement;
            return [e.id || e.className || e.tagName, getComputedStyle(e).outlineStyle !== 'none']; }"""))
    names = [n for n, _ in seen]
    for wanted in ('skip', 'chats-toggle', 'theme', 'settings-open', 'new', 'open', 'delete', 'export', 'delete-all', 'log', 'small redo', 'small copy', 'input', 'send'):
        assert wanted in names, f'{wanted} is not reached: {names}'
    same([n for n, is_marked in seen if not is_marked and n != 'BODY'], [])
    tab.page.evaluate("document.querySelector('.skip').focus()")
    k.press('Enter')
    k.press('Tab')
    same(tab.page.evaluate('document.activeElement.id'), 'send')
    tab.close()


def check_narrow(t):
    tab = t.tab({CHAT: sse(MARKDOWN + '\n\n' + 'x' * 300)}, viewport=NARROW)
    assert tab.page.locator('#chats').is_hidden()
    tab.ask('Question')
    wide = tab.page.evaluate('document.documentElement.scrollWidth')
    assert wide <= NARROW['width'], f'{wide} px wide'
    tab.page.click('#chats-toggle')
    assert tab.page.locator('#new').is_visible()
    tab.page.keyboard.press('Escape')
    assert tab.page.locator('#chats').is_hidden()
    same(tab.page.evaluate('document.activeElement.id'), 'chats-toggle')
    t.picture(tab, 'narrow')
    tab.close()


def check_reduced_motion(t):
    tab = t.tab(reduced_motion='reduce')
    tab.page.evaluate("""() => { const a = document.createElement('article'); const b = document.createElement('div');
        a.className = 'waiting'; b.className = 'body'; a.append(b); document.querySelector('#messages').append(a); }""")
    same(tab.page.evaluate("getComputedStyle(document.querySelector('article.waiting .body'), '::after').animationName"), 'none')
    tab.close()


def check_accessibility(t):
    t.needs_axe()
    for scheme in ('light', 'dark'):
        for view in ('empty', 'chat', 'error', 'settings', 'narrow'):
            tab = t.tab({CHAT: error(503, 'busy', 'queue_full') if view == 'error' else sse(MARKDOWN)}, color_scheme=scheme,
                        viewport=NARROW if view == 'narrow' else {'width': 1200, 'height': 800})
            tab.allowed = ['503']
            if view in ('chat', 'error', 'narrow'):
                tab.ask('Question')
            if view == 'settings':
                tab.page.click('#settings-open')
            tab.page.evaluate(t.axe)
            found = tab.page.evaluate("axe.run(document, { resultTypes: ['violations'] })")
            bad = [f"{v['id']} ({v['impact']}): {v['nodes'][0]['html'][:120]}" for v in found['violations'] if v['impact'] in ('serious', 'critical')]
            assert not bad, f'{scheme}, {view}: {bad}'
            assert len(found['passes']) > 10, 'axe ran its rules'
            t.picture(tab, f'{view}-{scheme}')
            tab.close()


def check_server_dies(t):
    """The server is killed in the middle of an answer: what had come is kept and marked, and asking again says what is wrong."""
    t.needs_own_server()
    server = Server(t.a.hearth, t.a.model)
    tab = Tab(t.browser, server.url)
    tab.allowed = ['net::ERR', 'Failed to load resource']
    tab.set(**STEADY)
    tab.send(LONG)
    tab.until("document.querySelector('article.assistant .body')?.textContent.length > 40")
    server.end(signal.SIGKILL)
    tab.wait_done()
    assert len(tab.answer().locator('.body').inner_text()) > 20
    assert 'connection was lost' in tab.answer().locator('.note').inner_text()
    tab.send('Are you there?')
    tab.until("document.querySelector('#alert').textContent.includes('cannot be reached')")
    tab.close()


class Skip(Exception):
    pass


class Environment:
    def __init__(self, a, browser, url):
        self.a, self.browser, self.url = a, browser, url
        self.axe = None
        folder = node_packages.install()
        if folder:
            self.axe = open(folder + '/node_modules/axe-core/axe.min.js', encoding='utf-8').read()

    def tab(self, stubs=None, **more):
        return Tab(self.browser, self.url, stubs, **more)

    def picture(self, tab, name):
        if self.a.out:
            tab.page.screenshot(path=os.path.join(self.a.out, f'page-{name}.png'))

    def has_markdown(self):
        return b'null' not in urllib.request.urlopen(self.url + '/libs.js').read()

    def needs_markdown(self):
        if not self.has_markdown():
            raise Skip('the server was built without marked')

    def needs_axe(self):
        if not self.axe:
            raise Skip('axe-core cannot be fetched')

    def needs_own_server(self):
        if not self.a.hearth:
            raise Skip('needs --hearth and --model')


def find_chromium():
    return shutil.which('chromium') or shutil.which('chromium-browser') or shutil.which('google-chrome')


def run(a, playwright, url):
    count = {'passed': 0, 'failed': 0, 'skipped': 0}
    args = ['--no-sandbox'] if os.geteuid() == 0 else []
    with playwright() as p:
        browser = p.chromium.launch(executable_path=a.browser, args=args)
        t = Environment(a, browser, url)
        for name, check in [(n[6:], f) for n, f in globals().items() if n.startswith('check_')]:
            if a.only not in name:
                continue
            begin, state, why = time.monotonic(), 'passed', ''
            try:
                check(t)
            except Skip as e:
                state, why = 'skipped', str(e)
            except Exception as e:  # a check that breaks in any way has failed; the others go on
                state, why = 'failed', f'{type(e).__name__}: {e}'
            for context in browser.contexts:
                context.close()
            count[state] += 1
            print(f'{state:8s}{name:28s}{time.monotonic() - begin:6.1f} s  {why[:1500]}', flush=True)
        browser.close()
    print('{passed} passed, {failed} failed, {skipped} skipped'.format(**count))
    return 1 if count['failed'] else 0


def main():
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument('--url')
    ap.add_argument('--hearth')
    ap.add_argument('--model')
    ap.add_argument('--out', help='folder for pictures')
    ap.add_argument('--browser', default=find_chromium())
    ap.add_argument('--only', default='', help='checks with this word in their name')
    a = ap.parse_args()
    if not a.url and not (a.hearth and a.model):
        ap.error('--url, or --hearth and --model')
    try:
        from playwright.sync_api import sync_playwright
    except ImportError:
        print('skipped: the Python package playwright is not installed\n0 passed, 0 failed, 1 skipped')
        return 0
    if not a.browser:
        print('skipped: chromium is not installed (tools/setup.sh test)\n0 passed, 0 failed, 1 skipped')
        return 0
    if a.out:
        os.makedirs(a.out, exist_ok=True)
    if a.url:
        return run(a, sync_playwright, a.url.rstrip('/'))
    server = Server(a.hearth, a.model)
    try:
        return run(a, sync_playwright, server.url)
    finally:
        server.end()


sys.exit(main())
