"""rtil: train GANs whose intermediate layers are regularised for inversion, and invert them.

Lives here: the names that a program of yours needs first. Each is imported when it is first used,
so `import rtil` imports no torch. To add one, name its module in `_HOMES` and, for type checkers,
import it below.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rtil.checkpoint import load_generator
    from rtil.latents.additive import Additive
    from rtil.latents.mixture import Mixture
    from rtil.latents.multicode import MultiCode
    from rtil.operators import build_operator

__all__ = ["Additive", "Mixture", "MultiCode", "__version__", "build_operator", "load_generator"]

__version__ = "0.1.0"

_HOMES = {
    "Additive": "rtil.latents.additive",
    "Mixture": "rtil.latents.mixture",
    "MultiCode": "rtil.latents.multicode",
    "build_operator": "rtil.operators",
    "load_generator": "rtil.checkpoint",
}


def __getattr__(name: str) -> object:
    if name not in _HOMES:
        raise AttributeError(f"module 'rtil' has no attribute {name!r}; it has {__all__}.")
    return getattr(import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *_HOMES])
