#!/usr/bin/env python3
"""vm.py [OPTIONS] COMMAND...: runs a command in a small virtual machine: another kernel of Debian's, with control groups of version 2 alone.

The machine's root is this system's, read only, so programs, libraries and Python are those of this box. /tmp and the folders of
--copy lie on a disk of its own (ext4), /run in memory; nothing that the command writes there stays. Boots in some 5 s; the first
lines name the kernel and its packages, the exit code is the command's.

--kernel NAME   a release of Debian whose kernel it is (bookworm, trixie-backports, ...); default: the one in this box's sources.
                "uml": User Mode Linux, a kernel that is a program, of one core. Programs in it are as fast as on the box, but it
                has no memory pressure (PSI), huge pages, CMA
--mib N         memory of the machine (2048)        --cpus N    its cores (2)
--copy FOLDER   is copied to the disk, and found where it was; may be repeated
--swap MIB      a second disk as swap               --append A  for the kernel's command line: "hugepages=64 cma=64M"
--group A/B     the command runs in this cgroup, memory and cpu are given on to it; default: the root
--limit S       seconds after which it is ended (600)

Needs to be root, apt and dpkg, e2fsprogs and (but for uml) qemu-system-x86, virtiofsd (until Debian 12 in
qemu-system-common), busybox-static. Kernels, 30 to 50 MB, are downloaded once into ~/.cache/hearth/test/vm and not installed: the newest that the release has then,
until that folder is removed. Exit code 1 and a line: its packages hold no kernel, or one that would not boot here.
With KVM it is about as fast as the box; without, or with kvm_pvm, which runs only kernels made for it, qemu computes what the
processor would: 10 to 50 times slower. Exit code 3: something is missing, said in one line."""
import argparse
import glob
import gzip
import lzma
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import time

CACHE = os.environ.get('XDG_CACHE_HOME') or os.path.expanduser('~/.cache')
HOME = CACHE + '/hearth/test/vm'
MODULES = ['virtio', 'virtio_ring', 'virtio_pci_modern_dev', 'virtio_pci_legacy_dev', 'virtio_pci', 'virtio_blk', 'fuse', 'virtiofs', 'crc32c-intel']
NEEDED = {'virtio_pci', 'virtio_blk', 'virtiofs'}  # of these; others were parts of something else in some version
BEGIN, END = 'vm.py: Linux ', 'vm.py: exit code '
BOOT = """#!/bin/busybox sh
mkdir -p /proc /dev /r
mount -t proc proc /proc
mount -t devtmpfs dev /dev
for m in /m/* /m/*; do insmod $m 2>/dev/null; done
mount -t virtiofs -o ro root /r || poweroff -f
umount /proc /dev
exec switch_root /r /bin/sh {inside}
"""
INSIDE = """
export PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin HOME=/tmp PYTHONDONTWRITEBYTECODE=1 XDG_CACHE_HOME={cache}
mount -t proc proc /proc
mount -t sysfs sys /sys
mountpoint -q /dev || mount -t devtmpfs dev /dev
stty -onlcr </dev/console >/dev/console
mkdir -p /dev/shm
mount -t tmpfs shm /dev/shm
mount -t tmpfs run /run
mount -t cgroup2 cgroup /sys/fs/cgroup
ip link set lo up
disk=$(ls /dev/vda /dev/ubda 2>/dev/null)
swap=$(ls /dev/vdb /dev/ubdb 2>/dev/null)
mkfs.ext4 -q -E nodiscard $disk
mount -t ext4 $disk /mnt
i=0
for d in {copies}; do
    i=$((i + 1))
    cp -a "$d" /mnt/$i
    mount --bind /mnt/$i "$d"
done
mkdir -m 1777 /mnt/tmp
mount --bind /mnt/tmp /tmp
if [ "$swap" ]; then mkswap -q $swap; swapon $swap; fi
at=/sys/fs/cgroup
for g in {groups}; do
    echo "+memory +cpu" > $at/cgroup.subtree_control
    at=$at/$g
    mkdir $at
done
sync
echo 3 > /proc/sys/vm/drop_caches
echo "{begin}$(uname -r)"
(echo 0 > $at/cgroup.procs; cd {folder} && exec {command})
echo "{end}$?"
echo o > /proc/sysrq-trigger
sleep 60
"""


def give_up(text):
    print(f'vm.py: {text}')
    sys.exit(3)


def need(name, is_there):
    if not is_there:
        give_up(f'needs {name}, which is missing')


def fail(text):
    print(f'vm.py: {text}')
    sys.exit(1)


# --- the kernel -----------------------------------------------------------------------------------


def apt(folder, release):
    """Options that give apt one release alone; none for the sources of this box."""
    if release in ('', 'uml'):
        return []
    for d in ('lists', 'archives'):
        os.makedirs(f'{folder}/{d}/partial')
    with open(folder + '/sources', 'w') as f:
        f.write(f'deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] http://deb.debian.org/debian {release} main\n')
    options = {'Dir::Etc::sourcelist': folder + '/sources', 'Dir::Etc::sourceparts': '-', 'Dir::State::lists': folder + '/lists', 'Dir::Cache': folder,
               'APT::Sandbox::User': '', 'Acquire::IndexTargets::deb::DEP-11::DefaultEnabled': 'false'}
    return [x for k, v in options.items() for x in ('-o', f'{k}={v}')]


def kernel(release):
    """A folder with a kernel and its modules: downloaded once, unpacked, not installed."""
    folder = f'{HOME}/{release or "kernel"}'
    if os.path.exists(folder + '/unpacked'):
        return folder
    need('apt-get', shutil.which('apt-get'))
    shutil.rmtree(folder, ignore_errors=True)
    os.makedirs(folder + '/debs')
    options = apt(folder + '/apt', release)

    def sh(*args):
        return subprocess.run(args, capture_output=True, text=True, errors='replace', cwd=folder + '/debs', env={**os.environ, 'LC_ALL': 'C'})

    r = sh('apt-get', *options, 'update') if options else None
    if r and r.returncode:
        give_up(f'cannot read the packages of {release}: {r.stderr.strip()[-300:]}')
    names, todo = set(), ['user-mode-linux' if release == 'uml' else 'linux-image-cloud-amd64']
    while todo:  # newer kernels lie in several packages
        names.add(todo[0])
        depends = sh('apt-cache', *options, 'depends', todo.pop(0)).stdout
        todo += [n for n in re.findall(r'^ *Depends: (linux-(?:image|binary|modules)-\S+)', depends, re.M) if n not in names]
    r = sh('apt-get', *options, 'download', *sorted(names))
    if r.returncode:
        give_up(f'cannot download the packages {", ".join(sorted(names))}: {r.stderr.strip()[-300:]}')
    debs = sorted(glob.glob(folder + '/debs/*.deb'))
    for deb in debs:
        r = sh('dpkg-deb', '-x', deb, folder)
        if r.returncode:
            give_up(f'cannot unpack {os.path.basename(deb)} into {folder}: {r.stderr.strip()[-300:]}')
    packages = ', '.join(os.path.basename(d)[:-4] for d in debs)
    shutil.rmtree(folder + '/debs')
    shutil.rmtree(folder + '/apt', ignore_errors=True)
    if not images(folder):
        fail(f'no kernel is in the packages {packages}: only {", ".join(sorted(os.listdir(folder))) or "nothing"}')
    with open(folder + '/unpacked', 'w') as f:
        f.write(packages + '\n')
    return folder


def images(folder):
    """Kernels in a folder, by their versions."""
    found = {p.split('/vmlinuz-')[1]: p for p in glob.glob(folder + '/boot/vmlinuz-*')}
    found |= {p.split('/')[-2]: p for p in glob.glob(folder + '/usr/lib/modules/*/vmlinuz')}
    return found | {'uml': p for p in glob.glob(folder + '/usr/bin/linux.uml')}


def newest(folder):
    """Version and path of the kernel that is booted."""
    found = images(folder)
    if not found:
        fail(f'no kernel is in {folder}; when it is removed, it is downloaded again')
    version = max(found, key=lambda v: [int(n) for n in re.findall(r'\d+', v)])
    with open(folder + '/unpacked') as f:
        print(f'vm.py: boots {version}, of the packages {f.read().strip() or "in " + folder}', flush=True)
    return version, found[version]


def unpacked(path):
    if path.endswith('.zst'):
        need('zstd', shutil.which('zstd'))
        return subprocess.run(['zstd', '-dcq', path], stdout=subprocess.PIPE, check=True).stdout
    with {'.xz': lzma.open, '.gz': gzip.open}.get(os.path.splitext(path)[1], open)(path, 'rb') as f:
        return f.read()


def modules(folder, version):
    """What the kernel needs to find its root and disks. What is no file is a part of the kernel, as its own list says if there is one."""
    base = f'{folder}/**/modules/{version}'
    lists = glob.glob(base + '/modules.builtin', recursive=True)
    parts = open(lists[0]).read() if lists else ''
    found = {n: glob.glob(f'{base}/**/{n}.ko*', recursive=True) for n in MODULES}
    missing = [n for n in MODULES if n in NEEDED and parts and not found[n] and f'/{n}.ko' not in parts]
    if missing:
        fail(f'Linux {version} has no {", ".join(missing)}, without which it does not boot here')
    return [unpacked(paths[0]) for paths in found.values() if paths]


# --- the machine ----------------------------------------------------------------------------------


def cpio(files):
    """The archive that the kernel unpacks as its first root."""
    out = b''
    for i, (name, mode, data) in enumerate([*files, ('TRAILER!!!', 0, b'')]):
        fields = [i + 1, mode, 0, 0, 1, 0, len(data), 0, 0, 0, 0, len(name) + 1, 0]
        out += b'070701' + b''.join(b'%08X' % f for f in fields) + name.encode() + bytes(1)
        out += bytes(-len(out) % 4) + data
        out += bytes(-len(out) % 4)
    return out


def first_root(mods, inside):
    files = [(d, 0o040755, b'') for d in ('bin', 'm')]
    files += [('bin/busybox', 0o100755, open(shutil.which('busybox'), 'rb').read()), ('init', 0o100755, BOOT.replace('{inside}', inside).encode())]
    files += [('bin/' + n, 0o120777, b'busybox') for n in ('mkdir', 'mount', 'umount', 'insmod', 'poweroff', 'switch_root')]
    return cpio(files + [(f'm/{i:02}', 0o100644, data) for i, data in enumerate(mods)])


def has_kvm():
    return any(os.path.isdir('/sys/module/' + m) for m in ('kvm_amd', 'kvm_intel')) and os.access('/dev/kvm', os.R_OK | os.W_OK)


def qemu(a, folder, t, disks):
    """Command line of the machine, and the service that shows it our root."""
    server = next((p for p in ('/usr/lib/qemu/virtiofsd', '/usr/libexec/virtiofsd') if os.path.exists(p)), '')
    need('qemu-system-x86_64 (package qemu-system-x86)', shutil.which('qemu-system-x86_64'))
    need('virtiofsd', server)
    need('busybox (package busybox-static)', shutil.which('busybox'))
    version, image = newest(folder)
    with open(t + '/first', 'wb') as f:
        f.write(first_root(modules(folder, version), t + '/inside'))
    files = subprocess.Popen([server, f'--socket-path={t}/files', '-o', 'source=/,cache=auto,sandbox=chroot'], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    while not os.path.exists(t + '/files') and files.poll() is None:
        time.sleep(0.01)
    args = ['qemu-system-x86_64', '-M', 'q35', '-display', 'none', '-monitor', 'none', '-serial', 'stdio', '-no-reboot', '-m', str(a.mib), '-smp', str(a.cpus)]
    args += ['-accel', 'kvm', '-cpu', 'host'] if has_kvm() else ['-accel', 'tcg,thread=multi', '-cpu', 'max,cx16=off']  # which qemu 7.2 gets wrong: 6.12 panics
    args += ['-object', f'memory-backend-memfd,id=m,size={a.mib}M,share=on', '-numa', 'node,memdev=m', '-chardev', f'socket,id=c,path={t}/files', '-device', 'vhost-user-fs-pci,chardev=c,tag=root']
    for d in disks:
        args += ['-drive', f'file={d},if=virtio,format=raw,cache=unsafe']
    return args + ['-kernel', image, '-initrd', t + '/first', '-append', f'console=ttyS0 quiet panic=-1 rdinit=/init {a.append}'], files


def uml(a, folder, t, disks):
    args = [newest(folder)[1], f'mem={a.mib}M', 'rootfstype=hostfs', 'hostfs=/', 'root=/dev/root', 'ro', 'quiet', f'init={t}/inside', 'con=null', 'con0=fd:0,fd:1', *a.append.split()]
    return args + [f'ubd{"ab"[i]}={d}' for i, d in enumerate(disks)], None


def show(args, limit_s):
    """Runs the machine, prints what the command says, gives back its exit code."""
    is_shown, code = False, None
    vm = subprocess.Popen(['timeout', str(limit_s), *args], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors='replace', start_new_session=True)
    try:
        said = []
        for line in vm.stdout:
            is_shown |= line.startswith(BEGIN)
            end = re.search(END + r'(\d+)$', line)
            if is_shown:
                print(line[:end.start()] if end else line, end='', flush=True)
            else:
                said.append(line)
            if end:
                code, is_shown = int(end[1]), False
        vm.wait()
    finally:
        if vm.poll() is None:
            os.killpg(vm.pid, signal.SIGTERM)
    if code is None:
        print(''.join(said[-20:]) + ('vm.py: the machine was ended' + f' after {limit_s} s' * (vm.returncode == 124)))
    return 1 if code is None else code


def main():
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument('--kernel', default='')
    ap.add_argument('--mib', type=int, default=2048)
    ap.add_argument('--cpus', type=int, default=2)
    ap.add_argument('--copy', action='append', default=[])
    ap.add_argument('--swap', type=int, default=0)
    ap.add_argument('--append', default='')
    ap.add_argument('--group', default='')
    ap.add_argument('--limit', type=int, default=600)
    ap.add_argument('command', nargs=argparse.REMAINDER)
    a = ap.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # what lies in /tmp goes, too
    need('the rights of root', os.geteuid() == 0)
    need('mkfs.ext4 (package e2fsprogs)', shutil.which('mkfs.ext4'))
    folder = kernel(a.kernel)
    copies = ' '.join(shlex.quote(os.path.abspath(c)) for c in a.copy)
    inside = '#!/bin/sh' + INSIDE.format(copies=copies, groups=a.group.replace('/', ' '), begin=BEGIN, end=END, cache=shlex.quote(CACHE), folder=shlex.quote(os.getcwd()), command=shlex.join(a.command))
    with tempfile.TemporaryDirectory(prefix='hearth-vm-') as t:
        os.chmod(t, 0o755)
        with open(t + '/inside', 'w', opener=lambda p, f: os.open(p, f, 0o755)) as f:
            f.write(inside)
        disks = [f'{t}/{name}' for name, mib in (('disk', 8192), ('swap', a.swap)) if mib]
        for path, mib in zip(disks, (8192, a.swap)):
            with open(path, 'wb') as f:
                f.truncate(mib << 20)
        args, files = (uml if a.kernel == 'uml' else qemu)(a, folder, t, disks)
        try:
            code = show(args, a.limit)
        finally:
            if files:
                files.kill()
    sys.exit(code)


main()
