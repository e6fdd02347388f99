#!/usr/bin/env python3
"""test_install.py BUILD MODEL.gguf: what `make install` puts into a folder works from there.

Files, pkg-config, examples/chat.c against the installed header and both libraries, exported symbols, the fetching program.
Prints 'N passed, N failed'."""
import glob
import os
import re
import subprocess
import sys
import tempfile

from checks import check, finish

build, model = map(os.path.abspath, sys.argv[1:3])
ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))


def sh(*args, **env):
    r = subprocess.run(args, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, env={**os.environ, **env}, timeout=120)
    return r.returncode, r.stdout.decode('utf-8', 'replace')


def main():
    with tempfile.TemporaryDirectory() as dest:
        code, text = sh('meson', 'install', '-C', build, '--no-rebuild', DESTDIR=dest)
        check('installs', code == 0, text)
        have = [p[len(dest):] for p in glob.glob(dest + '/**/*', recursive=True) if os.path.isfile(p)]
        for end in ('/bin/hearth', '/bin/hearth-fetch', '/include/hearth.h', '/libhearth.so', '/libhearth.a', '/pkgconfig/hearth.pc', '/man/man1/hearth.1',
                    '/bash-completion/completions/hearth.bash', '/zsh/site-functions/_hearth', '/fish/vendor_completions.d/hearth.fish'):
            check('installed ' + end, any(p.endswith(end) and os.path.getsize(dest + p) > 100 for p in have), have)
        find = lambda end: next(dest + p for p in have if p.endswith(end))
        hearth, libs = find('/bin/hearth'), os.path.dirname(find('/libhearth.so'))
        check('the manual page is that of the program', open(find('/hearth.1')).read() == sh(hearth, 'man')[1])
        code, text = sh(hearth, 'pull', 'https://127.0.0.1:1/x.gguf', HOME=dest, XDG_DATA_HOME=dest + '/data')
        check('hearth-fetch is found', code == 7 and 'Failed to connect' in text, (code, text))
        pc = {'PKG_CONFIG_PATH': libs + '/pkgconfig', 'PKG_CONFIG_SYSROOT_DIR': dest}
        check('pkg-config: version', sh('pkg-config', '--modversion', 'hearth', **pc)[1].strip() == sh(hearth, '--version')[1].split()[1])
        shared = sh('pkg-config', '--cflags', '--libs', 'hearth', **pc)[1].split()
        static = [f if f != '-lhearth' else '-l:libhearth.a' for f in sh('pkg-config', '--static', '--cflags', '--libs', 'hearth', **pc)[1].split()]
        answers = []
        for name, flags in (('shared', shared), ('static', static)):
            code, text = sh('cc', '-Wall', '-Wextra', '-Werror', ROOT + '/examples/chat.c', *flags, '-o', f'{dest}/{name}')
            check(f'chat.c, {name}', code == 0 and text == '', text)
            answers.append(sh(f'{dest}/{name}', model, 'Hello', LD_LIBRARY_PATH=libs))
        check('chat answers', all(code == 0 and len(text) > 1 for code, text in answers), answers)
        code, text = sh(dest + '/shared', dest + '/no.gguf', 'Hello', LD_LIBRARY_PATH=libs)
        check('chat tells what failed', code == 1 and 'no.gguf' in text, (code, text))
        exported = set(re.findall(r' [TD] (\S+)', sh('nm', '-D', '--defined-only', find('/libhearth.so'))[1]))
        declared = {f + '@@HEARTH_0.1' for f in re.findall(r'^HEARTH_API [^(]*?(hearth_\w+)\(', open(find('/hearth.h')).read(), re.M)}
        check('the library exports what the header declares, with a version', exported == declared and len(declared) > 20, exported ^ declared)
    finish()


main()
