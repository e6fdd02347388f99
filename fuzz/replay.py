#!/usr/bin/env python3
"""replay.py BUILD [COMMAND...]: runs the stored inputs (fuzz/seeds/NAME) through the fuzzers of a build folder, which are linked with
driver.c; the fuzzers themselves through COMMAND if given.

Prints 'N passed, N failed'; a fuzzer that ends early counts as one failure and shows its input and its last lines."""
import glob
import os
import re
import subprocess
import sys

home = os.path.dirname(os.path.abspath(__file__))
passed = failed = 0
for name in sorted(os.path.basename(p)[:-2] for p in glob.glob(home + '/fuzz_*.c')):
    r = subprocess.run([*sys.argv[2:], f'{sys.argv[1]}/fuzz/{name}', f'{home}/seeds/{name[5:]}'], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
                       errors='replace', timeout=900)
    m = re.findall(r'^(\d+) passed, 0 failed$', r.stdout, re.M)
    is_good = bool(m) and r.returncode == 0
    passed, failed = passed + (int(m[-1]) if is_good else 0), failed + (not is_good)
    if not is_good:
        print(f'{name}: exit {r.returncode}\n{r.stdout[-3000:]}')
print(f'{passed} passed, {failed} failed')
sys.exit(1 if failed else 0)
