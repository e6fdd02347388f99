#!/usr/bin/env python3
"""unit.py BUILD [COMMAND...]: runs every test program of the build folder (TAP), through COMMAND if given, and adds up their tests.
What cmocka skips it prints as "not ok N # SKIP NAME", which in TAP is no failure."""
import glob
import os
import re
import subprocess
import sys

EMULATED_TOO_SLOW = ('test_slow',)  # minutes each; what it tests does not depend on the processor

build = sys.argv[1]
passed = failed = skipped = 0
for exe in sorted(p for p in glob.glob(build + '/tests/test_*') if os.access(p, os.X_OK) and os.path.isfile(p)):
    if sys.argv[2:] and os.path.basename(exe) in EMULATED_TOO_SLOW:
        continue
    root = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
    r = subprocess.run([*sys.argv[2:], exe], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors='replace', cwd=root,
                       env={**os.environ, 'CMOCKA_MESSAGE_OUTPUT': 'TAP'}, timeout=900)
    bad, ok, skip = (len(re.findall(p, r.stdout, re.M)) for p in (r'^not ok (?!\d+ # SKIP)', r'^ok (?!.*# SKIP)', r'^(?:not ok \d+ |ok .*)# SKIP'))
    m = re.findall(r'^(\d+) passed, (\d+) failed(?:, (\d+) skipped)?$', r.stdout, re.M)
    if m:
        ok, bad, skip = (int(x or 0) for x in m[-1])
    if r.returncode and not bad:
        bad = 1
    if bad or ok + skip == 0:
        bad = max(bad, 1)
        print(os.path.basename(exe), 'exit', r.returncode)
        print(r.stdout[-3000:])
    print(f'{os.path.basename(exe)}: {ok} ok, {bad} not ok, {skip} skipped')
    passed, failed, skipped = passed + ok, failed + bad, skipped + skip
print(f'{passed} passed, {failed} failed, {skipped} skipped')
sys.exit(1 if failed else 0)
