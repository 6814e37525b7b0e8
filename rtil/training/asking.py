"""The overrides with which a command asks for a generator that it does not ask for."""

from __future__ import annotations

import re
from collections.abc import Mapping
from itertools import chain

from rtil.runs import keys, overrides
from rtil.runs.kinds import ABSENT

GENERATOR = "model.generator"
UNSAID = {"phase_nimg", "_target_"}  # a schedule that is over; what code runs is for users to say
SOURCE = re.compile(r"\$\{([\w.]+)\}")


def asking_for(here: Mapping, there: Mapping, written: Mapping) -> list[str]:
    """Overrides that turn what a command asks for into another generator.

    Args:
        here, there: the groups `model` of the command and of the other's training.
        written: the command's settings of the generator before they are resolved.
    """
    own, other = here["generator"], there["generator"]
    if own["_target_"] != other["_target_"]:
        return _setting("model", here["name"], there.get("name", here["name"]))
    words = []
    for name in sorted({*own, *other} - UNSAID):
        # What is read from another setting, such as the resolution, is set there.
        source = SOURCE.fullmatch(str(written.get(name)))
        key = source[1] if source else f"{GENERATOR}.{name}"
        words += _changing(key, own.get(name, ABSENT), other.get(name, ABSENT))
    return words


def _changing(key: str, here: object, there: object) -> list[str]:
    """Overrides that turn a value of a setting into another; of tables, key by key.

    A table of sizes is added to as a whole: on a command line its keys would be texts.
    """
    if isinstance(there, Mapping) and all(isinstance(size, int) for size in there):
        table = ", ".join(f"{size}: {width}" for size, width in there.items())
        return [] if here == there else [f"+{key}={{{table}}}"]
    if isinstance(here, Mapping) and isinstance(there, Mapping):
        names = sorted({*here, *there} - UNSAID)
        return [
            *chain.from_iterable(
                _changing(f"{key}.{name}", here.get(name, ABSENT), there.get(name, ABSENT))
                for name in names
            )
        ]
    return _setting(key, here, there)


def _setting(key: str, here: object, there: object) -> list[str]:
    """The override that turns a value into another; none where they are equal."""
    default = keys.row(key).default
    given, wanted = (default if value is ABSENT else value for value in (here, there))
    if keys.canonical(given) == keys.canonical(wanted):
        return []
    if there is ABSENT:
        return [f"~{key}"]
    text = overrides.as_text(wanted)
    # A text of a file is repeated where it is a plain word.
    if isinstance(wanted, (str, Mapping)) and not overrides.PLAIN.fullmatch(text):
        return []
    return [f"{'+' if here is ABSENT else ''}{key}={text}"]
