"""The programs that bench/table.py compares: how each is started and what it prints. A program measures a cell (table.py) and
returns figures: prefill_tok_s, decode_tok_s, first_s, rss_mb, those that it can; {} when it cannot measure this cell. A note among
them tells which of its settings failed while another worked."""
import ctypes
import hashlib
import json
import math
import os
import signal
import subprocess
import sys
import tempfile
import time

HERE = os.path.dirname(os.path.abspath(__file__))
LIMIT_S = 300


LIBC = ctypes.CDLL(None)


class Failed(Exception):
    pass


def die_with_parent():
    """Between fork and exec: a table that is stopped leaves nothing running, which would slow what is measured next."""
    LIBC.prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG


def digest(path):
    with open(path, 'rb') as f:
        return hashlib.sha256(f.read()).hexdigest()[:12]


def start(args, limit_s=LIMIT_S, is_all=False, more_env=()):
    """(standard output, with is_all errors too, seconds, peak resident MB) of a program."""
    env = {**os.environ, **dict(more_env), 'GLIBC_TUNABLES': 'glibc.malloc.hugetlb=1'}  # memory that it takes lies in huge pages
    with tempfile.TemporaryFile('w+') as out, tempfile.TemporaryFile('w+') as err:
        begin = time.monotonic()
        try:
            p = subprocess.Popen(args, stdin=subprocess.DEVNULL, stdout=out, stderr=out if is_all else err, env=env, cwd=tempfile.gettempdir(),  # some leave a log
                                 preexec_fn=die_with_parent)
        except OSError as e:
            raise Failed(f'{args[0]}: {e.strerror}') from e
        end = begin + limit_s
        while True:
            pid, status, used = os.wait4(p.pid, os.WNOHANG)
            if pid:
                break
            if time.monotonic() > end:
                p.kill()
                os.wait4(p.pid, 0)
                p.returncode = -9
                raise Failed(f'{os.path.basename(args[0])} took over {limit_s} s')
            time.sleep(0.002)
        seconds = time.monotonic() - begin
        p.returncode = os.waitstatus_to_exitcode(status)
        out.seek(0)
        err.seek(0)
        if p.returncode != 0:
            how = f'exit code {p.returncode}' if p.returncode > 0 else f'ended by {signal.Signals(-p.returncode).name}'
            raise Failed(f'{" ".join(args)}: {how}: {err.read()[-300:].strip()}'.rstrip(': '))
        return out.read(), seconds, used.ru_maxrss / 1024


LIMITS = ('read_gb_s', 'int8_gop_s')


def limits(hearth, threads):
    """What the machine can do at this moment."""
    try:
        found = json.loads(start([hearth, 'bench', '--limits', '--json', '--threads', str(threads)])[0])
        return {k: float(found[k]) for k in LIMITS}
    except (Failed, ValueError, KeyError, TypeError) as e:
        sys.exit(f'table: {hearth} bench --limits does not tell the limits of this machine: {e}')


def sizes(cell):
    return [x for name in ('prefill', 'decode', 'depth', 'batch', 'threads') for x in ('--' + name, str(cell[name]))] + ['--kv', cell['kv']]


class Hearth:
    name = 'hearth'

    def __init__(self, path):
        self.path = path
        self.version = digest(path)

    def measure(self, cell, model, best):
        if cell['start']:
            return self.first(model, cell['start'] == 'image')
        out, _, _ = start([self.path, 'bench', model, '--json', *sizes(cell)])
        b = json.loads(out)
        keep = ('prefill_tok_s', 'decode_tok_s', 'read_gb_s', 'int8_gop_s', 'decode_read_percent')
        share = {'prefill_int8_percent': b['prefill_peak_percent']} if b['peak'] == 'int8' else {}
        return {k: b[k] for k in keep} | share

    def first(self, model, is_image):
        """From the start of the process to its end after one token; an image is packed into a store beside the models, unless there is one that
        this build uses."""
        env = {'XDG_DATA_HOME': os.path.join(os.path.dirname(model), 'store')} if is_image else {}
        name = os.path.basename(model).removesuffix('.gguf')
        if is_image and not any(m['name'] == name and 'image' in m and 'image_fault' not in m
                                for m in json.loads(start([self.path, 'list', '--json'], more_env=env)[0])['models']):
            start([self.path, 'pull', model, '--pack', '--name', name], more_env=env)
        args = [self.path, 'run', name if is_image else model, 'a', '--raw', '-n', '1', '--ctx', '1024', '--temp', '0']
        _, s, mb = start(args, more_env=env)
        return {'first_s': s, 'rss_mb': mb}


class LlamaCpp:
    """llama.cpp through llama-cpp-python of the interpreter `python`."""
    name = 'llama.cpp'

    def __init__(self, python):
        self.args = [python, os.path.join(HERE, 'peer_llamacpp.py')]
        self.version = start([python, '-c', 'import llama_cpp; print(llama_cpp.__version__)'])[0].strip()

    def measure(self, cell, model, best):
        if cell['start']:
            out, _, mb = start([*self.args, model, '--first'])
            return {**json.loads(out), 'rss_mb': mb}
        if cell['kv'] == 'bf16':  # depth is reached by moving pieces of the cache, which it cannot do with these
            return {}
        again = ['--fa', best, '--repeat', '1'] if best else []  # settings that won the first round
        out, _, _ = start([*self.args, model, *sizes(cell), *again])
        return json.loads(out)


def parse_bench(text):
    """Figures of llama-bench -o json: the best of each kind."""
    r = {}
    for t in json.loads(text):
        what = 'decode_tok_s' if t['n_prompt'] == 0 else 'prefill_tok_s' if t['n_gen'] == 0 else None
        if what:
            r[what] = max(r.get(what, 0.0), float(t['avg_ts']))
    return r


def parse_rows(text):
    """Rows of the tables that llama-batched-bench and llama-sweep-bench print: the numbers of each."""
    rows = []
    for line in text.splitlines():
        words = [w.strip() for w in line.strip().strip('|').split('|')]
        try:
            numbers = [float(w) for w in words]
        except ValueError:
            continue
        if len(numbers) >= 7:
            rows.append(numbers)
    return rows


def parse_batched(text, batch):
    """PP, TG, B, N_KV, T_PP, S_PP, T_TG, S_TG, T, S"""
    found = [r[7] for r in parse_rows(text) if len(r) == 10 and r[2] == batch]
    return {'decode_tok_s': max(found)} if found else {}


def parse_sweep(text, depth):
    """PP, TG, N_KV, T_PP, S_PP, T_TG, S_TG"""
    found = [r for r in parse_rows(text) if len(r) == 7 and r[2] == depth]
    return {'prefill_tok_s': found[0][4], 'decode_tok_s': found[0][6]} if found else {}


class LlamaBench:
    """A program with llama-bench's command line; llama-batched-bench and llama-sweep-bench beside it are used when they are
    there. Tried settings: weights repacked at load or not, where it knows the option (beyond a depth of 4096, which takes
    minutes, only as they are); huge pages and flash attention on."""

    def __init__(self, path, name):
        self.path, self.name = path, name
        self.version = digest(path)
        self.help = {p: self.read_help(os.path.join(os.path.dirname(path), p)) for p in ('llama-batched-bench', 'llama-sweep-bench')}
        self.help['llama-bench'] = self.read_help(path)
        self.settings = ['rtr', 'plain'] if '-rtr' in self.help['llama-bench'] else ['plain']

    @staticmethod
    def read_help(path):
        if not os.path.exists(path):
            return ''
        try:
            r = subprocess.run([path, '--help'], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors='replace',
                               cwd=tempfile.gettempdir(), timeout=20, check=False)
        except (OSError, subprocess.TimeoutExpired):
            return ''
        return r.stdout

    def beside(self, program, model, cell, setting, more):
        has = self.help[program]
        args = [os.path.join(os.path.dirname(self.path), program), '-m', model, '-t', str(cell['threads']), '-ctk', cell['kv'], '-ctv', cell['kv']]
        args += ['-rtr'] * (setting == 'rtr' and '-rtr' in has) + ['-thp'] * ('-thp' in has)
        return start(args + more, is_all=True)[0]  # where their table goes differs

    def sweep(self, cell, model, setting):
        """At a depth that llama-bench does not know: all context before it is computed, answers only where they are wanted, if
        it can be told so."""
        has, depth = self.help['llama-sweep-bench'], cell['depth']
        step = math.gcd(depth, 512)
        if not has or depth > 4096 and '--sweep-stride' not in has:
            return {}
        more = ['-c', str(depth + step), '-ub', str(step), '-n', str(cell['decode'])]
        more += ['--sweep-stride', str(depth // step)] * ('--sweep-stride' in has)
        return parse_sweep(self.beside('llama-sweep-bench', model, cell, setting, more), depth)

    def once(self, cell, model, setting):
        depth, batch = cell['depth'], cell['batch']
        if batch > 1:
            if not self.help['llama-batched-bench'] or depth > 0:
                return {}
            more = ['-c', str(64 * batch + 512), '-npp', '8', '-ntg', str(cell['decode']), '-npl', str(batch)]
            return parse_batched(self.beside('llama-batched-bench', model, cell, setting, more), batch)
        has = self.help['llama-bench']
        if depth > 0 and '--n-depth' not in has:
            return self.sweep(cell, model, setting)
        args = [self.path, '-m', model, '-o', 'json', '-t', str(cell['threads']), '-fa', '1', '-r', '1', '-p', str(cell['prefill']), '-n', str(cell['decode'])]
        args += ['-ctk', cell['kv'], '-ctv', cell['kv']] + (['-d', str(depth)] if depth > 0 else [])
        args += ['-rtr', str(int(setting == 'rtr'))] * ('-rtr' in has) + ['-thp', '1'] * ('-thp' in has)
        return parse_bench(start(args)[0])

    def measure(self, cell, model, best):
        if cell['start']:
            has = self.help['llama-bench']
            _, s, mb = start([self.path, '-m', model, '-o', 'json', '-t', str(cell['threads']), '-p', '1', '-n', '0', '-r', '1'] + ['-w', '0'] * ('--warmup' in has))
            return {'first_s': s, 'rss_mb': mb}
        r, won, faults = {}, {}, []
        for setting in best.split(',') if best else self.settings[-1:] if cell['depth'] > 4096 else self.settings:
            try:
                found = self.once(cell, model, setting)
            except Failed as e:
                faults.append(f'setting {setting}: {e}')
                continue
            for k, v in found.items():
                if v > r.get(k, 0.0):
                    r[k], won[k] = v, setting
        if faults and not r:
            raise Failed('; '.join(faults))
        return {**r, 'setting': ','.join(sorted(set(won.values()))), 'note': '; '.join(faults)} if r else {}


def has_llamacpp(python):
    return subprocess.run([python, '-c', 'import llama_cpp, numpy'], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL).returncode == 0


class Loop:
    """Something that keeps one core busy while a figure is taken."""

    def __init__(self, is_wanted):
        self.is_wanted = is_wanted

    def __enter__(self):
        self.p = subprocess.Popen([sys.executable, '-c', 'while True: pass'], preexec_fn=die_with_parent) if self.is_wanted else None

    def __exit__(self, *error):
        if self.p is not None:
            self.p.kill()
            self.p.wait()
