"""What the tests need from npm, pinned with hashes in tests/api_node, installed into the user's cache folder."""
import os
import shutil
import subprocess

HERE = os.path.dirname(os.path.abspath(__file__))
CACHE = os.path.join(os.environ.get('XDG_CACHE_HOME') or os.path.expanduser('~/.cache'), 'hearth', 'test', 'node')


def install():
    """The folder with node_modules and test.mjs, or None; asks the registry only when the pins have changed."""
    lock, stamp = open(HERE + '/api_node/package-lock.json').read(), CACHE + '/installed'
    os.makedirs(CACHE, exist_ok=True)
    for name in ('package.json', 'package-lock.json', 'test.mjs'):
        shutil.copy(f'{HERE}/api_node/{name}', CACHE)
    if os.path.exists(stamp) and open(stamp).read() == lock:
        return CACHE
    if not shutil.which('npm') or subprocess.run(['npm', 'ci', '--no-audit', '--no-fund', '--ignore-scripts'], cwd=CACHE, stdin=subprocess.DEVNULL).returncode:
        return None
    with open(stamp, 'w') as f:
        f.write(lock)
    return CACHE
