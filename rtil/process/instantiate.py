"""Objects from a configuration that names their class, of rtil's own packages alone."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress

from hydra.utils import get_object

TRUSTED = ("rtil.models.", "rtil.latents.", "rtil.objectives.", "rtil.inverters.")


def instantiate(node: Mapping, **extra: object) -> object:
    """Builds the rtil class that node["_target_"] names from the node's other keys.

    Nested mappings with a `_target_` are built first. Only what lives in the packages of TRUSTED
    is built, so a configuration read from a file cannot call anything else.

    Raises:
        ValueError: no `_target_`, or one outside rtil.
    """
    target = str(node.get("_target_"))
    found = None
    if target.startswith(TRUSTED):
        with suppress(ImportError, ValueError):
            found = get_object(target)
    # A module also reaches what it imports, so the object must be at home where it was found.
    home = f"{getattr(found, '__module__', '')}.{getattr(found, '__qualname__', '')}"
    if home != target:
        raise ValueError(
            f"configuration: _target_={target!r} is not a class or function of "
            f"{', '.join(TRUSTED)}; files may only name those."
        )

    def value(v: object) -> object:
        if isinstance(v, Mapping) and "_target_" in v:
            return instantiate(v)
        return [value(x) for x in v] if isinstance(v, (list, tuple)) else v

    return found(**{k: value(v) for k, v in node.items() if k != "_target_"}, **extra)
