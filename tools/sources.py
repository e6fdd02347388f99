#!/usr/bin/env python3
"""sources.py KIND: the source files of one kind, one a line, in the order of src/LAYERS.

KIND: core (everything that is neither kernel, server nor command), kern-ref, kern-avx2, kern-avxvnni, kern-avx512, kern-neon, kern-neondot, kern-neoni8mm, serve, cmd.
The build reads its lists from here, so a module is added by adding its line to src/LAYERS."""
import os
import re
import sys

ROOT = os.path.join(os.path.dirname(os.path.abspath(__file__)), '..', 'src')


def kind_of(path):
    m = re.match(r'kern/\w+_(avx2|avxvnni|avx512|neon|neondot|neoni8mm)\b', path)
    if m:
        return 'kern-' + m.group(1)
    if path.startswith('kern/'):
        return 'kern-ref'
    return path.split('/')[0] if path.startswith(('cmd/', 'serve/')) else 'core'


def main():
    for line in open(os.path.join(ROOT, 'LAYERS')):
        words = line.split('#')[0].split()
        if words and not words[0].endswith('.h') and kind_of(words[0]) == sys.argv[1] and os.path.exists(f'{ROOT}/{words[0]}.c'):
            print('src/' + words[0] + '.c')


main()
