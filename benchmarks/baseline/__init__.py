"""The straightforward implementation that `python -m benchmarks` measures rtil against.

The same networks, losses and steps as rtil, written from the papers' definitions without thought
for speed, the way the circulating codes are: per-sample modulated weights in grouped convolutions,
filters over inserted zeros, bias and activation as separate operators, contiguous layout, one pass
per family member and one per code. Parameters have rtil's names, so `load_state_dict` copies its
weights; tests/commands/test_baseline.py shows that both compute the same numbers. It knows
full-size PGGAN only, without growing, in the published form that is the default of
rtil.models.pggan.
"""
