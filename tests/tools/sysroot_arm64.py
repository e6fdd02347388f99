#!/usr/bin/env python3
"""sysroot_arm64.py FOLDER: the arm64 libraries and headers that hearth and its tests are linked with, from this distribution.

For cross builds (tests/qemu.py). The system's own package state is not touched and no architecture is added to it: an apt with
lists, cache and status of its own reads the system's sources for arm64, resolves what WANTED depends on against an empty
machine, and downloads that; dpkg-deb unpacks it. Nothing is run or configured from it. About 22 MB of packages and 10 MB of
lists; interrupted downloads continue, and a folder that holds the wanted packages is left as it is.

Prints what it did. Exit code 0: the folder is ready; 3: a tool or the distribution's arm64 packages are missing, said in one
line; 1: something else went wrong."""
import glob
import os
import shutil
import subprocess
import sys

WANTED = ['libc6-dev', 'libjansson-dev', 'libutf8proc-dev', 'libgnutls28-dev', 'libsqlite3-dev', 'zlib1g-dev', 'libmicrohttpd-dev', 'libcmocka-dev']
CONF = """#clear APT::Update::Post-Invoke-Success;
#clear APT::Update::Post-Invoke;
APT::Architecture "arm64";
APT::Architectures { "arm64"; };
APT::Install-Recommends "false";
APT::Sandbox::User "";
Acquire::Languages "none";
Acquire::IndexTargets::deb::DEP-11::DefaultEnabled "false";
Acquire::IndexTargets::deb::CNF::DefaultEnabled "false";
Debug::NoLocking "true";
Dir::State "{apt}/state";
Dir::State::status "{apt}/state/status";
Dir::Cache "{apt}/cache";
"""


def give_up(text, code):
    print(text)
    sys.exit(code)


def main():
    folder = os.path.abspath(sys.argv[1])
    apt, stamp = folder + '.apt', folder + '/packages'
    if os.path.exists(stamp) and open(stamp).readline().split() == WANTED:
        give_up('already there', 0)
    for tool in ('apt-get', 'dpkg-deb'):
        if shutil.which(tool) is None:
            give_up(f'{tool} is missing: the arm64 libraries come from Debian packages', 3)
    for d in ('state/lists/partial', 'cache/archives/partial'):
        os.makedirs(f'{apt}/{d}', exist_ok=True)
    open(apt + '/state/status', 'w').close()
    open(apt + '/apt.conf', 'w').write(CONF.replace('{apt}', apt))
    env = {**os.environ, 'APT_CONFIG': apt + '/apt.conf', 'LC_ALL': 'C'}

    def sh(*args):
        return subprocess.run(args, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors='replace', env=env)

    r = sh('apt-get', 'update')  # sources that serve other architectures only may fail here; what counts comes next
    known = sh('apt-cache', 'pkgnames', 'libjansson-dev').stdout.split()
    if 'libjansson-dev' not in known:
        errors = [line for line in r.stdout.splitlines() if line.startswith(('E:', 'Err:'))]
        give_up('this distribution\'s package sources have no arm64 packages' + (f' ({errors[0]})' if errors else ''), 3)
    sh('apt-get', 'autoclean')  # packages of an interrupted run that are out of date by now
    r = sh('apt-get', 'install', '--download-only', '-y', *WANTED)
    if r.returncode:
        give_up('cannot download the arm64 packages:\n' + r.stdout[-1500:], 1)
    debs = sorted(glob.glob(apt + '/cache/archives/*.deb'))
    shutil.rmtree(folder, ignore_errors=True)
    for d in ('lib', 'bin', 'sbin'):  # packages that only know usr/ are found under the old names too
        os.makedirs(f'{folder}/usr/{d}')
        os.symlink('usr/' + d, f'{folder}/{d}')
    for deb in debs:
        r = sh('dpkg-deb', '-x', deb, folder)
        if r.returncode:
            give_up(f'cannot unpack {deb}:\n' + r.stdout[-1500:], 1)
    open(stamp, 'w').write(' '.join(WANTED) + '\n' + ''.join(os.path.basename(d) + '\n' for d in debs))
    shutil.rmtree(apt)
    print(f'{len(debs)} packages unpacked into {folder}')


main()
