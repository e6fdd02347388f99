"""pull_damage - test_pull.py's tests of damaged files and packed images: what is refused, passed over, told, and made whole again."""
import contextlib
import os
import re
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


@test
def killed_copies_told(b):
    """What was being written when its process was killed is told until the next change clears it away."""
    b.run('list')
    b.file('data/hearth/models/partial/new-12345', b'half')
    b.file('data/hearth/models/partial/temp/pip/half.whl', b'half a wheel')
    b.file('data/hearth/models/partial/orphan-' + 64 * 'a', b'')
    for command in ('list', 'verify'):
        assert b.json(command)['unfinished'] == {'files': 2, 'bytes': 16}
        assert re.search('^unfinished: 2 files, 16 B, in .*next pull or rm', b.run(command)[0], re.M)
    b.run('rm', 'no-such-model', want=NOT_FOUND)
    assert b.json('list')['unfinished'] == {'files': 0, 'bytes': 0} and b.partial() == []
