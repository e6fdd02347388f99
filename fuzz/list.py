#!/usr/bin/env python3
"""The fuzzers of this folder, one file a line."""
import glob
import os

os.chdir(os.path.dirname(os.path.abspath(__file__)))
print('\n'.join(sorted(glob.glob('fuzz_*.c'))))
