#!/usr/bin/env python3
"""test_mkgguf.py: the made-up vocabulary of tests/tools/mkgguf.py is the one that a plain loop makes. Needs numpy and gguf.
Prints 'N passed, N failed'."""
import hashlib
import os
import random
import sys

import checks

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), 'tools'))
import mkgguf  # noqa: E402

# sha256 of 'left right\n' of every word, by the plain loop: a minute for 127998 words
GOLDEN = {(127998, 1): '095bd94d6a8449d2da1e4c595587228925f6d9301d7a4788ad2cabb266dc8060', (40000, 9): '6869f1d940fdb55ab8e5b6cf4c6baacf630f9c724df6a1db7c7a1f673db6fc00'}


def plain(n, seed):
    rnd = random.Random(seed)
    inner = [chr(c) for c in range(ord('a'), ord('z') + 1)]
    starts, known, found = inner + [chr(288)], set(), []
    while len(found) < n:
        left, right = rnd.choice(starts), rnd.choice(inner)
        whole = left + right
        if whole in known or len(whole) > 12:
            continue
        known.add(whole)
        found.append((left, right))
        starts.append(whole)
        if left[0] != chr(288):
            inner.append(whole)
    return found


def digest(words):
    return hashlib.sha256(''.join(f'{left} {right}\n' for left, right in words).encode()).hexdigest()


def main():
    for seed in range(8):
        n = (0, 1, 5, 100, 500, 1000, 2000, 4000)[seed]
        checks.check(f'{n} words of seed {seed} are those of the plain loop', mkgguf.made_words(n, seed) == plain(n, seed))
    for (n, seed), want in GOLDEN.items():
        checks.same(f'{n} words of seed {seed}', digest(mkgguf.made_words(n, seed)), want)
    checks.finish()


main()
