"""Benchmarks: imagefs and its peers side by side, in one run.

Each module `row_*` measures one piece of work under the number it has in the table of targets.
Contenders take turns, so that a machine that gets slower during the run does so for all.
"""
