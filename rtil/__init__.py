"""rtil: train GANs whose intermediate layers are regularised for inversion, and invert them.

Lives here: the names that a program of yours needs first. Each is imported when it is first used,
so `import rtil` imports no torch. To add one, name its module in `HOMES`, and in __init__.pyi for
type checkers.
"""

from __future__ import annotations

import os
from importlib import import_module

__version__ = "0.2.0"

# Turns that a thread of libgomp waits awake, before it sleeps, for the others of its process. By
# itself libgomp takes 300,000, some milliseconds: beside other work on the same cores the awake
# hold the cores that those they wait for need, and every operator takes a slice of the scheduler's
# time. 1000 is what it takes where a process has more threads than cores. It is read when torch is
# imported: a program that imports torch before rtil sets it itself.
if "OMP_WAIT_POLICY" not in os.environ:
    os.environ.setdefault("GOMP_SPINCOUNT", "1000")

HOMES = {
    "Additive": "rtil.latents.additive",
    "Mixture": "rtil.latents.mixture",
    "MultiCode": "rtil.latents.multicode",
    "build_operator": "rtil.operators",
    "load_generator": "rtil.checkpoint",
    "wrap": "rtil.models.wrapped",
}


def __getattr__(name: str) -> object:
    if name not in HOMES:
        names = ", ".join(HOMES)
        raise AttributeError(f"module 'rtil' has no attribute {name!r}; it has {names}.")
    return getattr(import_module(HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *HOMES])
