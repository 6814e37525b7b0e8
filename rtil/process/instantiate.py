"""Objects from a configuration that names their class, of rtil's own packages alone."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any

from hydra.utils import get_object

TRUSTED = (
    "rtil.models.",
    "rtil.latents.",
    "rtil.objectives.",
    "rtil.inverters.",
    "rtil.operators.",
)


def target_of(node: Mapping) -> Callable[..., Any]:
    """The class or function of rtil that node["_target_"] names.

    Only what lives in the packages of TRUSTED is found, so a configuration read from a file cannot
    call anything else.

    Raises:
        ValueError: no `_target_`, or one outside rtil.
    """
    target = str(node.get("_target_"))
    named: Any = None
    if target.startswith(TRUSTED):
        with suppress(ImportError, ValueError):
            named = get_object(target)
    # A module also reaches what it imports, so the object must be at home where it was named.
    home = f"{getattr(named, '__module__', '')}.{getattr(named, '__qualname__', '')}"
    if home != target:
        raise ValueError(
            f"configuration: _target_={target!r} is not a class or function of "
            f"{', '.join(TRUSTED)}; files may only name those."
        )
    return named


def instantiate(node: Mapping, **extra: object) -> Any:
    """Builds the rtil class that node["_target_"] names from the node's other keys.

    Nested mappings with a `_target_` are built first.

    Args:
        extra: arguments that no configuration holds.

    Raises:
        ValueError: as `target_of`.
    """
    build = target_of(node)  # before anything within is built
    settings = {key: _built(value) for key, value in node.items() if key != "_target_"}
    return build(**settings, **extra)


def _built(value: object) -> object:
    """A value of a configuration, with objects for nested mappings that name a class."""
    if isinstance(value, Mapping) and "_target_" in value:
        return instantiate(value)
    if isinstance(value, list | tuple):
        return [_built(item) for item in value]
    return value
