"""What the test programs share: checks that are counted, and the last line that run.py reads."""
import sys
import time
import traceback

STATE = {'passed': 0, 'failed': 0, 'skipped': 0}
TESTS = []


def test(fn):
    """Decorates what run_tests calls."""
    TESTS.append(fn)
    return fn


def check(what, good, detail=''):
    STATE['passed' if good else 'failed'] += 1
    if not good:
        print(f'FAILED: {what}: {str(detail)[-1500:]}', flush=True)
    return good


def same(what, got, want):
    return check(what, got == want, f'got {got!r}, want {want!r}')


def is_running(pid):
    """A zombie is not: whoever inherited it has not looked yet."""
    try:
        with open(f'/proc/{pid}/stat') as f:
            return f.read().rsplit(') ', 1)[1][0] != 'Z'
    except OSError:
        return False


def run_tests(server, only=''):
    """All tests (or those of the comma-separated names) on one server, which must survive them and end well."""
    for fn in TESTS:
        if only and fn.__name__ not in only.split(','):
            continue
        begin, failed = time.monotonic(), STATE['failed']
        try:
            fn(server)
        except Exception:
            check(fn.__name__, False, traceback.format_exc())
        print(f'{fn.__name__:24s} {"ok" if STATE["failed"] == failed else "FAILED"}  {time.monotonic() - begin:5.1f} s', flush=True)
        if server.process.poll() is not None:
            check(f'the server survives {fn.__name__}', False, server.said()[-3000:])
            break
    code = server.end()
    check('exit code of the server', code == 0, (code, server.said()[-3000:]))


def finish():
    print(f'{STATE["passed"]} passed, {STATE["failed"]} failed, {STATE["skipped"]} skipped')
    sys.exit(1 if STATE['failed'] else 0)
