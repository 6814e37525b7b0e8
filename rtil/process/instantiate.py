"""Objects from a configuration that names their class: one of rtil, or one that the user named.

A file that a configuration is read from cannot name any other, so reading it runs no code but
that which rtil or the user chose.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from typing import Any

from hydra.utils import get_object

from rtil.process.brief import brief, reason

TRUSTED = (
    "rtil.models.",
    "rtil.latents.",
    "rtil.objectives.",
    "rtil.augmentation.",
    "rtil.inverters.",
    "rtil.operators.",
)

ADVICE = (
    "A class of yours is built where you name it yourself: model.module._target_=package.Class, "
    "task.physics._target_=package.Class, or modules=[package.Class] beside generator=FILE."
)
_named: set[str] = set()


def allow(targets: Iterable[str]) -> None:
    """Lets configurations of this process name these classes or functions.

    Args:
        targets: "package.Class", as the user named them; never what a file says.
    """
    _named.update(targets)


def named_by(settings: Mapping) -> list[str]:
    """Classes outside rtil, "package.Class", that a command's own settings name.

    Args:
        settings: composed for the command, before anything of a file is merged into them.
    """
    module = settings["model"].get("module") or {}
    physics = settings.get("task", {}).get("physics") or {}
    named = (*settings.get("modules", ()), module.get("_target_"), *_targets(physics))
    return [str(name) for name in named if name]


def naming(settings: Mapping) -> dict[str, list[str]]:
    """What a command line says of classes outside rtil, if a command's own settings name any."""
    names = [name for name in named_by(settings) if not name.startswith(TRUSTED)]
    return {"modules": names} if names else {}


def _targets(node: object) -> list[str]:
    """Every `_target_` at or below a node."""
    if isinstance(node, Mapping):
        own = [str(node["_target_"])] if node.get("_target_") else []
        return own + [name for value in node.values() for name in _targets(value)]
    if isinstance(node, Sequence) and not isinstance(node, str):
        return [name for value in node for name in _targets(value)]
    return []


def target_of(node: Mapping) -> Callable[..., Any]:
    """The class or function that node["_target_"] names.

    Only what lives in the packages of TRUSTED or was allowed is found, so a configuration read
    from a file cannot call anything else.

    Raises:
        ValueError: no `_target_`, another one, or one that cannot be imported.
    """
    target = str(node.get("_target_"))
    if target in _named and not target.startswith(TRUSTED):
        return _own(target)
    named: Any = None
    if target.startswith(TRUSTED):
        with suppress(ImportError, ValueError):
            named = get_object(target)
    # A module also reaches what it imports, so the object must be at home where it was named.
    home = f"{getattr(named, '__module__', '')}.{getattr(named, '__qualname__', '')}"
    if home != target:
        raise ValueError(
            f"configuration: _target_={target!r} is not a class or function of "
            f"{', '.join(TRUSTED)}; files may only name those. {ADVICE}"
        )
    return named


def _own(target: str) -> Callable[..., Any]:
    """A class or function of the user's.

    Raises:
        ValueError: it cannot be imported, or is nothing to call.
    """
    try:
        named = get_object(target)
    # Code that is imported raises whatever it likes; which line of it is for its own traceback.
    except Exception as error:
        raise ValueError(
            f"_target_={target} cannot be imported ({reason(error.__cause__ or error)}). Name it "
            "package.Class, where Python finds it: PYTHONPATH=FOLDER adds a folder."
        ) from error
    if not callable(named):
        raise ValueError(f"_target_={target} is {brief(named)} and no class or function.")
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
    if str(node["_target_"]).startswith(TRUSTED):
        return build(**settings, **extra)
    try:
        return build(**settings, **extra)
    except (TypeError, ValueError) as error:
        raise ValueError(
            f"_target_={node['_target_']} cannot be built with {brief([*settings])} "
            f"({reason(error)}). Its arguments stand beside _target_, with a +."
        ) from error


def _built(value: object) -> object:
    """A value of a configuration, with objects for nested mappings that name a class."""
    if isinstance(value, Mapping) and "_target_" in value:
        return instantiate(value)
    if isinstance(value, list | tuple):
        return [_built(item) for item in value]
    return value
