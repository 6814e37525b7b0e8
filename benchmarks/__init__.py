"""What `python -m benchmarks` measures: one module per group of rows.

A group is a function `units(setting)` that gives (name, function) pairs; each function measures
and returns its rows, and one that fails becomes a failed row. To add a group, write such a module
and name it in bench.py. Every ratio compares cases that run alternately in one process
(timing.alternate).
"""
