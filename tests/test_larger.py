#!/usr/bin/env python3
"""test_larger.py HEARTH MODEL.gguf: a model that does not fit into the memory it is given. Needs numpy and gguf.

The model is packed into a store of its own, then used with less and less memory: layers are read from the disk for each step, answers
stay the same bit for bit, memory stays within the plan. A file that changes or shrinks meanwhile ends requests, not the service.
Prints 'N passed, N failed, N skipped'."""
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import threading
import time

from checks import check, finish, same
from served import Served, ask, wait_metric

hearth, model = map(os.path.abspath, sys.argv[1:3])
PROMPT = 'The quick brown fox jumps over the lazy dog. ' * 20


def run(home, *args, data=None):
    """(exit code, standard output, standard error, peak of resident memory in MiB)"""
    env = {k: v for k, v in os.environ.items() if not k.startswith('XDG_')}
    with subprocess.Popen([hearth, *args], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=home,
                          env={**env, 'HOME': home}) as p:
        said = []
        reader = threading.Thread(target=lambda: said.append(p.stderr.read()))
        reader.start()
        out = p.stdout.read()
        reader.join()
        _, status, used = os.wait4(p.pid, 0)
        p.returncode = os.waitstatus_to_exitcode(status)
    return p.returncode, out, said[0], used.ru_maxrss / 1024


def plan(home, name, *args):
    return json.loads(run(home, 'plan', name, '--json', *args)[1])


def part(p, name):
    return sum(x['bytes'] for x in p['parts'] if x['name'] == name)


def images_of(home):
    found = []
    for folder, _, names in os.walk(home):
        for name in names:
            path = os.path.join(folder, name)
            with open(path, 'rb') as f:
                found += [path] * (f.read(4) == b'HPAK')
    return found


def limits(home, planned, *args):
    """Some limits in MiB, from that in which all fits down to one in which few layers stay."""
    weights = part(plan(home, 'small', *args), 'weights')
    most = (planned >> 20) + 4
    return [most] + [most - int(weights * share) // 2**20 for share in (0.1, 0.3, 0.5)]


def refusal(err):
    """Without the nearest commands behind it."""
    return err.partition('hearth: nearest commands that fit:')[0]


def test_answers(home):
    ask_for = ['--raw', '--temp', '0', '-n', '24', '--ctx', '1024', '--json']
    usual = json.loads(run(home, 'run', 'small', PROMPT, *ask_for)[1])
    reads = []
    for mib in limits(home, usual['planned_bytes'], '--ctx', '1024'):
        code, out, err, _ = run(home, 'run', 'small', PROMPT, *ask_for, '--memory', str(mib))
        got = json.loads(out or '{}')
        m = re.search(r'(\d+) of \d+ MiB of weights do not fit', err)
        reads.append(int(m[1]) if m else 0)
        check(f'{mib} MiB: the answer is the same', code == 0 and got.get('text') == usual['text'], (code, out, err))
        check(f'{mib} MiB: memory stays within the plan', got.get('rss_peak_bytes', 1 << 60) <= got.get('planned_bytes', 0) <= mib << 20, got)
    least = mib
    check('less memory, more is read', reads[0] == 0 < reads[1] < reads[2] < reads[3], reads)
    mib = mib - (usual['planned_bytes'] - plan(home, 'small', '--ctx', '1024')['total_bytes']) // 2**20
    p = plan(home, 'small', '--ctx', '1024', '--memory', str(mib))
    check('plan says so', p['fits'] and p['step_disk_bytes'] > 40 << 20 and part(p, 'weights') == 0 < part(p, 'weights that stay'), p)
    text = run(home, 'plan', 'small', '--ctx', '1024', '--memory', str(mib))[1]
    check('and its text', re.search(r'reads \d+\.\d MiB from the disk\.', text), text)
    speed = p['speed']
    most = 1.001 * speed['disk_gb_s'] * 1e9 / p['step_disk_bytes']
    check('answers are predicted no faster than the disk', 0 < speed['empty']['decode_tok_s'] <= most and 0 < speed['full']['decode_tok_s'] <= most, speed)
    check('in words too', re.search(r'^Predicted: .*\.\nMade of: memory read at [\d.]+ GB/s, the file at [\d.]+ GB/s and ', text, re.M), text)
    one = json.loads(run(home, 'run', 'small', PROMPT, *ask_for, '--memory', str(least), '--threads', '1')[1])
    same('so they are with one thread', one['text'], usual['text'])
    code, _, err, _ = run(home, 'run', 'small', 'a', '--memory', '60')
    check('too little is refused', code == 4 and re.search(r'needs [0-9.]+ MiB .* 60\.0 MiB are available', err), (code, err))
    code, _, err, _ = run(home, 'run', model, PROMPT, *ask_for, '--memory', str(least))
    check('a file that is not packed is refused with what to type', code == 4 and f': hearth pull --pack {model}\n' in err, (code, err))
    link = home + "/it's here.gguf"
    os.symlink(model, link)
    code, _, err, _ = run(home, 'run', link, PROMPT, *ask_for, '--memory', str(least))
    check('in quotes where a shell needs them', code == 4 and refusal(err).endswith(": hearth pull --pack '" + link.replace("'", "'\\''") + "'\n"), (code, err))
    os.unlink(link)
    link = f'{home}/{"long" * 60}.gguf'
    os.symlink(model, link)
    code, _, err, _ = run(home, 'run', link, PROMPT, *ask_for, '--memory', str(least))
    check('in general words where the path is too long for a line', code == 4 and refusal(err).endswith(': hearth pull --pack MODEL\n'), (code, err))
    os.unlink(link)
    run(home, 'pull', model, '--name', 'plain')
    code, _, err, _ = run(home, 'run', 'plain', PROMPT, *ask_for, '--memory', str(least))
    check('a model of the store by its name', code == 4 and refusal(err).endswith(': hearth pull --pack plain\n'), (code, err))
    run(home, 'rm', 'plain')
    other = home + "/it's another"
    os.mkdir(other)
    run(other, 'pull', model, '--name', 'plain')
    code, _, err, _ = run(other, 'run', 'plain', PROMPT, *ask_for, '--memory', str(least))
    check('whatever the folder of the store is called', code == 4 and refusal(err).endswith(': hearth pull --pack plain\n'), (code, err))
    p = plan(home, model, '--ctx', '1024', '--memory', str(least))
    check('of which nothing is read from the disk', (p['step_disk_bytes'], p['piece_disk_bytes']) == (0, 0), p)
    near = {n['command']: n for n in p['nearest']}
    n = near.get(f'hearth pull --pack {model} --name {os.path.basename(model)[:-5]}', {})
    check('packing it is among the nearest plans', n.get('step_disk_bytes', 0) > 10 << 20 and n['total_bytes'] <= least << 20 and n['decode_all_tok_s'] > 0 and
          n['store_bytes'] == 2 * os.path.getsize(model) and n['store_free_bytes'] > 0, near)


def complete(s, text, n=24):
    return ask(s, 'POST', '/v1/completions', {'prompt': text, 'max_tokens': n, 'temperature': 0, 'model': s.model_id})


def all_at_once(s, texts):
    got = [None] * len(texts)

    def fill(i):
        got[i] = complete(s, texts[i])[1]
    clients = [threading.Thread(target=fill, args=(i,)) for i in range(len(texts))]
    for t in clients:
        t.start()
    for t in clients:
        t.join()
    return [g['choices'][0]['text'] for g in got]


def test_nearest(home):
    """Below what keeps all of a packed model in memory with whatever context: one that fits with layers from the disk, as plan and run say."""
    whole = plan(home, 'small', '--ctx', '64')
    little, much = (plan(home, 'small', '--ctx', n, '--memory', '16')['total_bytes'] for n in ('64', '2048'))  # as few layers as can be
    mib = (much >> 20) - 8
    asked = plan(home, 'small', '--ctx', '2048', '--memory', str(mib))
    near = asked.get('nearest', [])
    check('a smaller context, with layers from the disk, is the nearest plan', not asked['fits'] and len(near) == 1 and near[0]['step_disk_bytes'] > 0 and
          near[0]['total_bytes'] <= mib << 20, asked)
    check('what it lacks counts layers that are read', asked['least_bytes'] < whole['total_bytes'] and mib << 20 < asked['total_bytes'], asked)
    code, _, err, peak = run(home, 'run', 'small', 'x', '--max-tokens', '2', '--ctx', str(near[0]['ctx']), '--memory', str(mib))
    check('which runs', code == 0 and little < mib << 20 and peak <= mib, (code, err, peak))
    code, _, err, _ = run(home, 'run', 'small', 'x', '--max-tokens', '2', '--ctx', '2048', '--memory', str(mib))
    told = re.search(r'nearest commands that fit:\n  hearth (run small .*)\n', err)
    check('run tells it as well', code == 4 and told and f'--memory {mib}' in told[1], (code, err))
    code, _, err, _ = run(home, *(told[1].split() if told else ()), 'x')
    same('and that runs', (code, err if code else ''), (0, ''))


class Changed:
    """A file that is changed from outside, and put back with its time."""

    def __init__(self, path, change):
        self.path, self.stat = path, os.stat(path)
        with open(path, 'r+b') as f:
            f.seek(self.stat.st_size - 4096)
            self.tail = f.read()
            f.seek(self.stat.st_size - 4096)
            change(f)

    def put_back(self):
        with open(self.path, 'r+b') as f:
            f.seek(self.stat.st_size - 4096)
            f.write(self.tail)
        os.utime(self.path, ns=(self.stat.st_atime_ns, self.stat.st_mtime_ns))


def check_changed(name, s, changed, usual):
    """Not ready and why, refused; all as before when the file is."""
    ready, r = ask(s, 'GET', '/readyz'), ask(s, 'POST', '/v1/completions', {'prompt': usual[0], 'max_tokens': 24, 'temperature': 0})
    check(f'{name}: not ready, with what to do', ready.status == 503 and re.search('changed.* hearth pull --pack', ready.body['reason']) and ready.headers['Retry-After'] == '10', ready.data)
    check(f'{name}: new requests are refused', r.status == 503 and (r.error['code'], r.error['type']) == ('model_changed', 'server_error') and r.headers['Retry-After'] == '10', r.data)
    same(f'{name}: alive', ask(s, 'GET', '/healthz')[0], 200)
    told = r'level=error.*module=serve.*' + re.escape(changed.path) + '.*changed'
    until = time.monotonic() + 30  # it looks once a second
    while not re.search(told, s.said()) and time.monotonic() < until:
        time.sleep(0.02)
    check(f'{name}: the log names the file', re.search(told, s.said()), s.said())
    changed.put_back()
    same(f'{name}: ready again when it is as it was', ask(s, 'GET', '/readyz').body, {'status': 'ready', 'reason': None})
    same(f'{name}: and answers', complete(s, usual[0])[1]['choices'][0]['text'], usual[1])


def change_under(name, s, image, change, text, usual):
    """What becomes of a request under which the file changes."""
    got = []
    client = threading.Thread(target=lambda: got.append(complete(s, text + 'And another text. ' * 10, 600)))
    client.start()
    wait_metric(s, 'hearth_requests_running', 1, 30)
    changed = Changed(image, change)
    client.join()
    check_changed(name, s, changed, (text, usual))
    return got[0].status, got[0].body


def shortened(s, image, text):
    """What becomes of a request while whose answer the file is cut; it is put back then."""
    got = []
    client = threading.Thread(target=lambda: got.append(complete(s, text, 600)))
    client.start()
    wait_metric(s, 'hearth_requests_running', 1, 30)
    with open(image, 'rb') as f:
        whole, stat = f.read(), os.stat(image)
    os.chmod(image, 0o644)
    with open(image, 'r+b') as f:
        f.truncate(1 << 20)
        client.join()
        f.seek(0)
        f.write(whole)
    os.utime(image, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    return got[0].status, got[0].body


def run_under(home, path, change, *args):
    """What becomes of `hearth run` when a file changes that it uses: (exit code, standard error)."""
    env = {**os.environ, 'HOME': home}
    with subprocess.Popen([hearth, 'run', *args], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=env) as p:
        p.stdout.read(1)
        changed = Changed(path, change)
        p.stdout.read()
        err = p.stderr.read().decode()
        code = p.wait()
    changed.put_back()
    return code, err


def test_draft(home):
    """A draft model's image is watched like the model's; so is the latter beside it."""
    image, draft = images_of(home)[0], home + '/draft.hpak'
    shutil.copyfile(image, draft)
    options = ['--ctx', '1024', '--draft', draft]
    text = 'One is a number. ' * 10
    with Served(hearth, 'small', *options) as s:
        usual = complete(s, text)[1]['choices'][0]['text']
        for name, path in (('draft', draft), ('beside a draft', image)):
            status, body = change_under(name, s, path, lambda f: f.write(b'x'), text, usual)
            check(f'{name}: the answer ends', status == 500 and 'file was changed' in body['error']['message'], body)
        same('draft: exit code', s.end(), 0)
    for name, path in (('draft', draft), ('beside a draft', image)):
        code, err = run_under(home, path, lambda f: f.write(b'x'), 'small', text, '--raw', '-n', '800', *options)
        check(f'{name}: run ends', code not in (0, -7) and 'file was changed' in err, (code, err))
    os.unlink(draft)


def test_service(home):
    """Several at once, then a file that is changed, and one that shrinks."""
    image = images_of(home)[0]
    options = ['--ctx', '1024', '--parallel', '4']
    texts = [f'{i} is a number. ' * 10 for i in range(4)]
    os.environ['HOME'] = home
    with Served(hearth, 'small', *options) as s:
        usual = [complete(s, t)[1]['choices'][0]['text'] for t in texts]
        status, body = change_under('mapped', s, image, lambda f: f.write(b'x'), texts[0], usual[0])
        check('mapped: an answer of before and after is none', status == 500 and 'file was changed' in body['error']['message'], body)
    with Served(hearth, 'small', *options) as s:
        status, body = shortened(s, image, texts[0])
        check('mapped and cut: its request ends with an error', status == 500 and 'could not be read' in json.dumps(body) and re.search('level=error.*was shortened', s.said()), (body, s.said()))
        check('mapped and cut: the service does not', ask(s, 'GET', '/healthz').status == 200 and ask(s, 'GET', '/readyz').status == 503)
        r = ask(s, 'POST', '/v1/completions', {'prompt': texts[0], 'max_tokens': 4})
        check('mapped and cut: no more of them, though the file is whole again', r.status == 503, r.data)
        same('mapped and cut: exit code', s.end(), 0)
    whole = plan(home, 'small', *options)
    two, four = (plan(home, 'small', '--ctx', '1024', '--parallel', n)['serve_total_bytes'] for n in '24')
    with Served(hearth, 'small', '--ctx', '1024', '--memory', str((two + four) // 2 >> 20)) as s:
        check('fewer at once, when that keeps all in memory', 'do not fit' not in s.said(), s.said())
    mib = (whole['serve_total_bytes'] >> 20) - 35
    with Served(hearth, 'small', *options, '--memory', str(mib)) as s:
        check('layers are read', 'weights do not fit' in s.said(), s.said())
        planned = plan(home, 'small', *options, '--memory', str(mib))
        check('as planned', planned['serve_fits'] and planned['step_disk_bytes'] < planned['serve_step_disk_bytes'] and
              f'step_disk_bytes={planned["serve_step_disk_bytes"]}' in s.said(), (planned, s.said()))
        same('several at once get what each gets alone', all_at_once(s, texts), usual)
        status, body = change_under('shrunk', s, image, lambda f: f.truncate(), texts[0], usual[0])
        check('a file that shrinks ends the request', status >= 500 and 'could not be read' in json.dumps(body), (status, body))
        check('the log says why', re.search(r'level=error.*module=engine.*(shorter|changed)', s.said()), s.said())
        same('exit code', s.end(), 0)


def make_experts(home, name, *shape):
    path = f'{home}/{name}.gguf'
    mk = os.path.dirname(os.path.abspath(__file__)) + '/tools/mkgguf.py'
    r = subprocess.run([sys.executable, mk, 'tiny-moe', path, '--type', 'q4_k_m', '--embd', '512', *shape], capture_output=True, text=True)
    check(f'{name}: a made model', r.returncode == 0, r.stderr[-500:])
    code, _, err, _ = run(home, 'pull', path, '--pack', '--name', name)
    check(f'{name}: packed', code == 0, err)
    os.unlink(path)


def test_pieces(home):
    """A piece of a prompt reads nearly all experts, of which a token uses few: it takes many tokens until computing takes as long as reading."""
    make_experts(home, 'wide', '--layers', '4', '--ff-expert', '1024', '--experts', '128', '--experts-used', '2', '--ctx', '4096')
    options = ['--ctx', '4096', '--threads', '2']
    whole = plan(home, 'wide', *options)
    less = [plan(home, 'wide', *options, '--memory', str((whole['total_bytes'] >> 20) - mib)) for mib in (50, 150, 350)]
    check('larger pieces where more is read', whole['batch'] == less[0]['batch'] == 512 < less[1]['batch'] <= less[2]['batch'], [p['batch'] for p in less])
    check('as long as they fit', all(p['fits'] for p in less), less)


def test_experts(home):
    """Less and less room for experts: the same answers, memory within the plan; several at once; a file that shrinks."""
    make_experts(home, 'experts', '--layers', '8', '--ff-expert', '512', '--experts', '32', '--vocab', model)
    options = ['--ctx', '1024']
    ask_for = ['--raw', '--temp', '0', '-n', '24', *options, '--json']
    usual = json.loads(run(home, 'run', 'experts', PROMPT, *ask_for)[1])
    kept = []
    for less in (20, 50, 85):
        mib = str((usual['planned_bytes'] >> 20) - less)
        for more in ([], ['--threads', '1']) if less == 50 else ([],):
            code, out, err, _ = run(home, 'run', 'experts', PROMPT, *ask_for, '--memory', mib, *more)
            got = json.loads(out or '{}')
            m = re.search(r'(\d+) of 256 experts have room', err)
            check(f'experts, {less} MiB less {more}: the answer is the same', code == 0 and m and got.get('text') == usual['text'], (code, out, err))
            check(f'experts, {less} MiB less: memory stays within the plan', got.get('rss_peak_bytes', 1 << 60) <= got.get('planned_bytes', 0) <= int(mib) << 20, got)
        kept.append(int(m[1]) if m else 0)
    check('experts: less memory, fewer have room', 256 > kept[0] > kept[1] > kept[2] >= 16, kept)
    mib = (plan(home, 'experts', *options)['total_bytes'] >> 20) - 50
    p = plan(home, 'experts', *options, '--memory', str(mib))
    check('experts: plan says so', p['fits'] and p['experts'] == 256 > p['experts_kept'] and 0 < p['step_disk_bytes'] < p['piece_disk_bytes'] and
          p['speed']['empty']['decode_tok_s'] > 0 and part(p, 'experts with room') > 0, p)
    check('experts: a prompt reads what no token wants twice, and what took turns', p['piece_disk_bytes'] > 8.1 * p['step_disk_bytes'], p)
    check('experts: one answer is one at once', abs(p['parallel_disk_bytes'] - p['step_disk_bytes']) < 2, p)
    four = [*options, '--parallel', '4', '--memory', str(mib + 20)]
    p4 = plan(home, 'experts', *four)
    check('experts: four answers share some', 3 < p4['parallel_disk_bytes'] / p4['step_disk_bytes'] < 3.7, p4)
    text = run(home, 'plan', 'experts', *four)[1]
    check('experts: which its text says', f'one of each of 4 at once {p4["parallel_disk_bytes"] / (1 << 20):.1f} MiB, a piece of a prompt ' in text, text)
    b = json.loads(run(home, 'bench', 'experts', '--memory', str(mib), '--prefill', '16', '--decode', '8', '--json')[1])
    check('experts: bench says what was read', b['decode_disk_gb_s'] > 0 and 0 < b['decode_disk_used_percent'] <= 100.1, b)
    text = run(home, 'plan', 'experts', *options, '--memory', str(mib))[1]
    check('experts: and its text', f'{p["experts_kept"]} of 256 experts have room in memory; a token of an answer reads some ' in text, text)
    code, _, err, _ = run(home, 'run', 'experts', 'a', *options, '--memory', '60')
    check('experts: too little is refused', code == 4 and re.search(r'needs [0-9.]+ MiB .* 60\.0 MiB are available', err), (code, err))
    serve_experts(home)


def serve_experts(home):
    image = [i for i in images_of(home) if os.path.getsize(i) > 100 << 20][0]
    options = ['--ctx', '1024', '--parallel', '4']
    texts = [f'{i} is a number. ' * 10 for i in range(4)]
    with Served(hearth, 'experts', *options) as s:
        usual = [complete(s, t)[1]['choices'][0]['text'] for t in texts]
    mib = (plan(home, 'experts', *options)['serve_total_bytes'] >> 20) - 60
    with Served(hearth, 'experts', *options, '--memory', str(mib)) as s:
        check('experts: some are read', 'of 256 experts have room' in s.said(), s.said())
        same('experts: several at once get what each gets alone', all_at_once(s, texts), usual)
        status, body = change_under('shrunk', s, image, lambda f: f.truncate(), texts[0], usual[0])
        check('experts: a file that shrinks ends the request', status >= 500 and 'could not be read' in json.dumps(body), (status, body))
        same('experts: exit code', s.end(), 0)


def main():
    with tempfile.TemporaryDirectory() as home:
        code, _, err, _ = run(home, 'pull', model, '--pack', '--name', 'small')
        check('packed', code == 0, err)
        test_answers(home)
        test_nearest(home)
        test_service(home)
        test_draft(home)
        test_experts(home)
        test_pieces(home)
    finish()


main()
