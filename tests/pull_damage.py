"""pull_damage - test_pull.py's tests of damaged files and packed images: what is refused, passed over, told, and made whole again."""
import contextlib
import json
import os
import re
import resource
import signal
import sqlite3
import subprocess

from pull_site import INTEGRITY, IO, NET, NOT_FOUND, model, sha, test

ASK = ['--raw', '-n', '2', '--temp', '0', '-v', 'Once upon a time']


def blob(b, digest):
    return f'{b.models}/blobs/sha256-{digest}'


def overwrite(path, at, content):
    """Other bytes in the same place: the size stays."""
    os.chmod(path, 0o600)
    with open(path, 'r+b') as f:
        f.seek(at)
        f.write(content)


def images(b):
    return {m['name']: m.get('image') for m in b.json('list')['models']}


@test
def damaged_source(b):
    """No image is made of a damaged file; what the refusal advises makes it whole."""
    if not b.a.model:
        return 'needs --model'
    plain, _ = b.run('run', b.a.model, *ASK)
    digest = b.json('pull', b.a.model, '--name', 'sm')['digest']
    overwrite(blob(b, digest), 40 << 20, bytes(400000))
    _, err = b.run('pull', '--pack', 'sm', want=INTEGRITY)
    assert digest in err and 'hearth pull sm' in err and images(b) == {'sm': None} and b.partial() == [], err
    b.run('pull', 'sm')
    assert b.blobs() == [digest]
    image = b.json('pull', '--pack', 'sm')['image']
    overwrite(blob(b, digest), 40 << 20, bytes(400000))
    _, err = b.run('pull', '--pack', 'sm', want=INTEGRITY)
    assert images(b) == {'sm': image}  # it is sound
    out, err = b.run('run', 'sm', *ASK)
    assert out == plain and 'packed=1' in err, err


@test
def image_of_a_damaged_file(b):
    """An image may have been made of the damage that a pull replaces: it goes, whatever the names."""
    if not b.a.model:
        return 'needs --model'
    for name in ('one', 'two'):
        j = b.json('pull', '--pack', b.a.model, '--name', name)
    _, err = b.run('pull', b.a.model, '--name', 'one')
    assert 'damaged' not in err and images(b) == {'one': j['image'], 'two': j['image']}, err
    overwrite(blob(b, j['digest']), 40 << 20, bytes(400000))
    _, err = b.run('pull', b.a.model, '--name', 'one')
    assert all(f'hearth pull --pack {name}' in err for name in ('one', 'two')) and 'damaged' in err, err
    assert images(b) == {'one': None, 'two': None} and b.blobs() == [j['digest']] and b.partial() == []
    overwrite(blob(b, j['digest']), 40 << 20, bytes(400000))
    assert b.json('pull', '--pack', b.a.model, '--name', 'one')['image'] == j['image']
    assert b.blobs() == sorted([j['digest'], j['image']])


def usable_without_image(b, plain, digest):
    """The model is whole, listed and answers; nothing of an image is left."""
    assert images(b) == {'sm': None} and b.blobs() == [digest]
    out, err = b.run('run', 'sm', *ASK)
    assert out == plain and 'packed=0' in err, err
    assert b.json('verify')['damaged'] == 0


@test
def packing_without_room(b):
    """Room for the model and none for its image: the pull fails, the model is there, and the image comes when there is room."""
    if not b.a.model:
        return 'needs --model'
    if subprocess.run(['unshare', '-rm', 'true'], capture_output=True, check=False).returncode:
        return 'needs unshare -rm'
    os.makedirs(b.data)
    size = os.stat(b.a.model).st_size >> 20
    script = f"""mount -t tmpfs -o size={size * 3 // 2}m none {b.data} && {{ $H pull --pack $M --name sm --json; echo $?; }} &&
        ls {b.models}/blobs | wc -l && ls {b.models}/partial | wc -l && $H run sm --raw -n 1 x >&2 && $H verify >&2 &&
        mount -o remount,size={size * 4}m {b.data} && $H pull --pack sm --json"""
    p = subprocess.run(['unshare', '-rm', 'sh', '-c', script], env=b.env(H=b.a.hearth, M=b.a.model), capture_output=True, text=True, timeout=60)
    lines = p.stdout.splitlines()
    assert p.returncode == 0 and lines[1:4] == [str(IO), '1', '0'] and '"image"' not in lines[0] and '"name":"sm"' in lines[0] and '"image"' in lines[4], p
    assert re.search(r'^hearth: packing sm: .*bytes are needed, the disk has \d+ left$', p.stderr, re.M) and p.stderr.count('hearth: ') == 1, p.stderr


@test
def packing_fails(b):
    """A file that cannot be written to its end, a folder that takes none: the line says which, the model is used, with the image it had."""
    if not b.a.model:
        return 'needs --model'
    plain, _ = b.run('run', b.a.model, *ASK)
    digest = b.json('pull', b.a.model, '--name', 'sm')['digest']
    most = 64 << 20  # bytes of a file
    full = {'want': IO, 'preexec_fn': lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (most, most))}
    _, err = b.run('pull', '--pack', 'sm', **full)
    assert re.search(f'hearth: packing sm: .*partial/new-.*: cannot write after {most} bytes: File too large', err) and b.partial() == [], err
    usable_without_image(b, plain, digest)
    script = 'mount --bind $D $D && mount -o remount,ro,bind $D && exec $H pull --pack sm'
    if subprocess.run(['unshare', '-rm', 'true'], capture_output=True, check=False).returncode == 0:
        env = b.env(H=b.a.hearth, D=b.models + '/partial')
        p = subprocess.run(['unshare', '-rm', 'sh', '-c', script], env=env, capture_output=True, text=True, timeout=60)
        assert p.returncode == IO and re.search('^hearth: packing sm: .*/partial: cannot write: Read-only file system; pull writes there: .*export XDG_DATA_HOME=', p.stderr, re.M), p
        usable_without_image(b, plain, digest)
    image = b.json('pull', '--pack', 'sm')['image']
    os.rename(blob(b, image), b.top + '/image')
    b.file(f'data/hearth/models/blobs/sha256-{image}/in-the-way', b'')  # its final name cannot be had
    _, err = b.run('pull', '--pack', 'sm', want=IO)
    assert re.search(f'hearth: packing sm: .*cannot rename to .*{image}: Is a directory', err) and b.partial() == [], err
    os.unlink(blob(b, image) + '/in-the-way')
    os.rmdir(blob(b, image))
    os.rename(b.top + '/image', blob(b, image))
    assert 'packed image' not in b.run('pull', '--pack', 'sm', **full)[0]  # the older one is not what became of it
    assert images(b) == {'sm': image} and b.blobs() == sorted([digest, image]) and b.partial() == []
    out, err = b.run('run', 'sm', *ASK)
    assert out == plain and 'packed=1' in err, err


@test
def packing_interrupted(b):
    """Ended while it writes an image: the model is used, what was written is told, and goes with the next change."""
    if not b.a.model:
        return 'needs --model'
    plain, _ = b.run('run', b.a.model, *ASK)
    digest = b.json('pull', b.a.model, '--name', 'sm')['digest']
    for how in (signal.SIGINT, signal.SIGTERM, signal.SIGKILL):
        p = b.start('pull', '--pack', 'sm')
        while p.poll() is None and not b.partial():
            pass
        p.send_signal(how)
        p.communicate(timeout=60)
        assert p.returncode == -how and b.partial() == [f'new-{p.pid}'], (p.returncode, b.partial())
        usable_without_image(b, plain, digest)
        assert b.json('list')['unfinished']['files'] == 1
        b.run('rm', 'no-such-model', want=NOT_FOUND)
        assert b.partial() == [] and b.blobs() == [digest]
    assert 'image' in b.json('pull', '--pack', 'sm')


@test
def bad_image(b):
    """An image whose header is not one that this program takes is passed over and told; --pack makes it again, whatever it is."""
    if not b.a.model:
        return 'needs --model'
    plain, _ = b.run('run', b.a.model, *ASK)
    j = b.json('pull', '--pack', b.a.model, '--name', 'sm')
    path = blob(b, j['image'])
    whole = open(path, 'rb').read()
    layout = whole.index(b'hearth.image.layout') + 19 + 4 + 8
    for at, content in ((0, b'GGUF'), (0, b'XXXX'), (4, b'\1'), (layout + 9, bytes([whole[layout + 9] ^ 1])), (15, b'\x80'),
                        (whole.index(b'general.architecture'), b'x'), (whole.index(b'llama.rope.freq_base') + 25, b'\1'), (0, os.urandom(len(whole)))):
        overwrite(path, 0, whole)
        overwrite(path, at, content)
        out, err = b.run('run', 'sm', *ASK)
        assert out == plain and 'packed=0' in err and err.count('hearth pull --pack sm') == 1, (at, content[:4], err)
        row, = b.json('list')['models']
        assert 'header' in row['image_fault'] == b.json('show', 'sm')['image_fault'], row
    b.run('pull', '--pack', 'sm')
    assert open(path, 'rb').read() == whole and b.blobs() == sorted([j['digest'], j['image']])
    overwrite(path, len(whole) - 70000, bytes(4096))  # its header is sound
    _, err = b.run('pull', 'sm')
    assert 'the packed image of sm is damaged' in err and open(path, 'rb').read() == whole and b.run('pull', 'sm')[1].count('damaged') == 0, err
    if os.geteuid() != 0:
        os.chmod(path, 0)
        out, err = b.run('run', 'sm', *ASK)
        assert out == plain and 'hearth pull --pack sm' in err, err
        b.run('pull', '--pack', 'sm')
        assert b.blobs() == sorted([j['digest'], j['image']])


@test
def stale_image_told(b):
    """Text and JSON forms alike tell an image that is not used; looking at a model reads none and says nothing of it."""
    if not b.a.model:
        return 'needs --model'
    b.run('pull', '--pack', b.a.model, '--name', 'sm')
    fresh = b.json('list')['models'][0], b.json('show', 'sm')
    assert all('image' in x and 'image_fault' not in x for x in fresh) and 'not used' not in b.run('list')[0] + b.run('show', 'sm')[0]
    with contextlib.closing(sqlite3.connect(b.data + '/hearth/hearth.db')) as db, db:
        db.execute("UPDATE file SET title = 'of another version' WHERE i > 0")
    assert all('another version' in x['image_fault'] for x in (b.json('list')['models'][0], b.json('show', 'sm')))
    for args in (['list'], ['show', 'sm'], ['show', 'sm', '--json']):
        out, err = b.run(*args)
        assert 'another version' in out and err == '', (args, err)
    assert 'packed image' not in b.run('pull', b.a.model, '--name', 'sm')[0]  # it is kept and told by list


@test
def damage_under_two_names(b):
    """A pull does not take a damaged file for the model because a name has it: it is fetched again."""
    m = model(1 << 16)
    b.site.files['/m.gguf'] = m
    for name in ('one', 'two'):
        b.run('pull', b.url + '/m.gguf', '--name', name)
    overwrite(blob(b, sha(m)), 40000, bytes(999))
    out, _ = b.run('verify', want=INTEGRITY)
    assert 'hearth pull one' in out and 'hearth pull two' in out and 'remove it' not in out, out
    b.run('pull', b.url + '/m.gguf', '--name', 'one')
    assert len(b.site.requests) == 3 and b.blobs() == [sha(m)]
    overwrite(blob(b, sha(m)), 40000, bytes(999))
    b.run('rm', 'two')
    b.run('pull', 'one')
    assert len(b.site.requests) == 4 and b.blobs() == [sha(m)]
    b.run('verify')
    b.run('pull', 'one')
    assert len(b.site.requests) == 4  # sound: nothing is fetched


@test
def damaged_known_model(b):
    """A known model's file that another name has, too, is read before it counts as there."""
    if not b.a.model:
        return 'needs --model'
    pip = b.file('bin/python3', b'#!/bin/sh\necho no index >&2\nexit 1\n')
    os.chmod(pip, 0o755)
    env = b.env(PATH=os.path.dirname(pip) + ':/usr/bin:/bin')
    digest = b.json('pull', b.a.model, '--name', 'sm')['digest']
    b.run('pull', 'smollm2:135m', env=env)
    overwrite(blob(b, digest), 40 << 20, bytes(400000))
    b.run('rm', 'smollm2:135m')
    _, err = b.run('pull', 'smollm2:135m', want=NET, env=env)
    assert 'no index' in err and b.names() == ['sm']
    b.run('pull', 'sm', env=env)
    b.run('pull', 'smollm2:135m', env=env)
    assert b.blobs() == [digest]


@test
def pulled_again_by_name(b):
    """The name of a model in the store stands for its source: files, parts; where that is gone the line says what to give."""
    m, parts = model(1 << 14), [model(fill=10 + i, split=(i, 2)) for i in range(2)]
    path = b.file('m.gguf', m)
    for i, p in enumerate(parts):
        b.file(f'in/big-0000{i + 1}-of-00002.gguf', p)
    b.run('pull', path, '--name', 'x:1')
    b.run('pull', b.top + '/in')
    for name, content in (('x', m), ('x:1', m), ('big', parts[1])):
        overwrite(blob(b, sha(content)), len(content) - 99, bytes(99))
        assert 'hearth pull ' in b.run('verify', want=INTEGRITY)[0]
        _, err = b.run('pull', name)
        assert 'damaged' in err and sha(content) in b.blobs() and b.names() == ['big', 'x:1'], err
        os.unlink(blob(b, sha(content)))
        assert 'hearth pull ' in b.run('verify', want=INTEGRITY)[0]
        assert 'hearth pull ' in b.run('show', name, want=INTEGRITY)[1]
        b.run('pull', name)
        b.run('verify')
    b.run('pull', 'x', '--name', 'y')
    assert b.names() == ['big', 'x:1', 'y']
    os.unlink(path)
    _, err = b.run('pull', 'x', want=NOT_FOUND)
    assert path in err and '--name x:1' in err, err
    for source in ('', 'file://', 'pypi:none==1', 'no address'):
        with contextlib.closing(sqlite3.connect(b.data + '/hearth/hearth.db')) as db, db:
            db.execute('UPDATE model SET source = ?', (source,))
        assert '--name x:1' in b.run('pull', 'x', want=NOT_FOUND)[1], source


@test
def impossible_index(b):
    """What an index cannot hold is told by every command alike, a pull too, which does not take the name for unknown; what they advise helps."""
    path = b.file('m.gguf', model())
    b.run('pull', path)
    for change, said in (("UPDATE file SET digest = 'zz'", '"zz" is no digest'), ('DELETE FROM file', '"m" is no model with files')):
        with contextlib.closing(sqlite3.connect(b.data + '/hearth/hearth.db')) as db, db:
            db.execute(change)
        for args in (['pull', 'm'], ['pull', '--pack', 'm'], ['pull', path], ['show', 'm'], ['plan', 'm'], ['rm', 'm'], ['list'], ['verify']):
            _, err = b.run(*args, want=INTEGRITY)
            assert said in err and 'remove hearth.db' in err, (args, err)
    for end in ('', '-wal', '-shm'):
        if os.path.exists(b.data + '/hearth/hearth.db' + end):
            os.unlink(b.data + '/hearth/hearth.db' + end)
    b.run('pull', path)
    assert b.names() == ['m'] and b.blobs() == [sha(model())]


@test
def not_removed(b):
    """Where a file cannot be removed its model stays, and rm says so."""
    if subprocess.run(['unshare', '-rm', 'true'], capture_output=True, check=False).returncode:
        return 'needs unshare -rm'
    b.run('pull', b.file('m.gguf', model()))
    b.run('pull', b.file('n.gguf', model(fill=9)))
    before = b.json('list')
    script = f'mount --bind {b.models}/blobs {b.models}/blobs && mount -o remount,ro,bind {b.models}/blobs && $H rm m'
    p = subprocess.run(['unshare', '-rm', 'sh', '-c', script], env=b.env(H=b.a.hearth), capture_output=True, text=True, timeout=60)
    assert p.returncode == IO and sha(model()) in p.stderr and 'Read-only' in p.stderr and p.stderr.count('hearth: ') == 1 and p.stdout == '', p
    assert b.json('list') == before and b.partial() == []
    b.run('verify')
    b.run('rm', 'm')
    assert b.names() == ['n'] and b.blobs() == [sha(model(fill=9))]


def store_row(b, **more):
    """What hearth doctor says of the store; other things may be wrong here, too."""
    text, _ = b.start('doctor', '--json', **more).communicate(timeout=120)
    return next(r for r in json.loads(text)['checks'] if r['name'] == 'model store')


@test
def home_of_another(b):
    """A HOME that belongs to somebody else: what is wanted, where, why, and what to set; that helps."""
    path, home = b.file('m.gguf', model()), b.top + '/home'
    os.mkdir(home)
    os.chmod(home, 0 if os.geteuid() else 0o700)
    as_other = {} if os.geteuid() else {'user': 65534, 'group': 65534, 'extra_groups': []}
    os.chmod(b.top, 0o755)
    env = {k: v for k, v in b.env(HOME=home).items() if k != 'XDG_DATA_HOME'}
    try:
        subprocess.run([b.a.hearth, '--version'], capture_output=True, check=True, **as_other)
    except (PermissionError, subprocess.CalledProcessError):
        return 'the program lies where another user may not run it'
    for args in (['list'], ['pull', path], ['show', 'm'], ['rm', 'm']):
        _, err = b.run(*args, want=IO, env=env, **as_other)
        assert err == f'hearth: {home}/.local: cannot make folder: Permission denied; models are kept there: mend that, or use another store: export XDG_DATA_HOME=/A/FOLDER\n', err
    row = store_row(b, env=env, **as_other)
    assert row['state'] == 'wrong' and f' {home}/' in row['costs'] and 'export XDG_DATA_HOME=' in row['type'][-1], row
    os.mkdir(b.top + '/own')
    os.chmod(b.top + '/own', 0o777)
    env['XDG_DATA_HOME'] = b.top + '/own'
    assert store_row(b, env=env, **as_other)['found'].startswith('not there yet') and os.listdir(b.top + '/own') == []
    b.run('pull', path, '--name', 'm', env=env, **as_other)
    root = b.top + '/own/hearth/models'
    for part in ('/blobs', '/partial', '/lock', '/../hearth.db'):
        was = os.stat(root + part)
        os.chown(root + part, *((-1, -1) if os.geteuid() else (0, 0)))
        os.chmod(root + part, 0o555)
        names = sorted(os.listdir(root + '/partial'))
        row = store_row(b, env=env, **as_other)
        assert (row['state'] == 'note') and 'cannot be written' in row['found'] and os.path.realpath(root + part) in os.path.realpath(row['costs'].split(': ')[1]), (part, row)
        out, err = b.run('pull', b.file('n.gguf', model(fill=5)), '--name', 'n', want=IO, env=env, **as_other)
        assert 'export XDG_DATA_HOME=' in err and sorted(os.listdir(root + '/partial')) == names, (part, err)
        os.chown(root + part, was.st_uid, was.st_gid)
        os.chmod(root + part, was.st_mode & 0o777)
    row = store_row(b, env=env, **as_other)
    assert row['state'] == 'ok' and row['found'].startswith('1 model, '), row
    os.rmdir(root + '/partial')
    os.chown(root, *((-1, -1) if os.geteuid() else (0, 0)))
    os.chmod(root, 0o555)
    row = store_row(b, env=env, **as_other)
    assert row['state'] == 'note' and row['found'].startswith('1 model at ') and 'cannot be written' in row['found'], row


@test
def killed_copies_told(b):
    """What was being written when its process was killed is told until the next change clears it away."""
    b.run('list')
    b.file('data/hearth/models/partial/new-12345', b'half')
    b.file('data/hearth/models/partial/half.part.validator.new-12345', b'half')
    b.file('data/hearth/models/partial/temp/pip/half.whl', b'half a wheel')
    b.file('data/hearth/models/partial/orphan-' + 64 * 'a', b'')
    for command in ('list', 'verify'):
        assert b.json(command)['unfinished'] == {'files': 3, 'bytes': 20}
        assert re.search('^unfinished: 3 files, 20 B, in .*next pull or rm', b.run(command)[0], re.M)
    b.run('rm', 'no-such-model', want=NOT_FOUND)
    assert b.json('list')['unfinished'] == {'files': 0, 'bytes': 0} and b.partial() == []


@test
def told_by_their_names(b):
    """What is wrong with a model of the store is said with its name, the draft model's too, and of a file with its path."""
    if not b.a.model:
        return 'needs --model'
    path = b.file('tiny.gguf', model())
    b.run('pull', path)
    b.run('pull', b.a.model, '--name', 'sm')
    for args, said in ((['plan', 'tiny'], 'tiny'), (['run', 'tiny', 'hi'], 'tiny'), (['logits', '-m', 'tiny'], 'tiny'),
                       (['run', 'sm', '--draft', 'tiny', 'hi'], 'tiny'), (['plan', path], path)):
        _, err = b.run(*args, want=INTEGRITY)
        assert f'hearth: {said}: llama.block_count' in err and 'sha256' not in err, (args, err)
    overwrite(blob(b, sha(model())), 0, b'XXXX')
    for args in (['run', 'tiny', 'hi'], ['render', '-m', 'tiny'], ['show', 'tiny'], ['show', 'tiny', '--json'], ['logits', '-m', 'tiny'],
                 ['tokenize', '-m', 'tiny'], ['detokenize', '-m', 'tiny']):
        _, err = b.run(*args, want=INTEGRITY)
        assert err.startswith('hearth: tiny: byte 0: '), (args, err)
