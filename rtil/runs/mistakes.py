"""What is wrong with words that do not compose, in a line that names what they may have meant.

Whether words compose Hydra says (`rtil.runs.setup`); here is how it is told.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Collection, Sequence

from rtil.process.brief import brief, reason
from rtil.runs import overrides, reference

NEAREST = 3  # that are named
FEW = 8  # are all named
ALIKE = 0.7  # share of the letters of both, in order
# The keys that words compose to; None where Hydra refuses them.
KeysOf = Callable[[Sequence[str]], Collection[str] | None]


def choice(command: str, group: str, name: str) -> str:
    """GROUP=NAME where the group has no such name."""
    known = reference.choices(group)
    near = _near(name, known)
    listed = f" It has {', '.join(known)}." if len(known) <= FEW or not near else ""
    return f"{command}: configs/{group} has no {brief(name)}{_meant(near)}.{listed}"


def line(command: str, words: Sequence[str], keys_of: KeysOf, error: Exception) -> str:
    """What the first word says that is to blame, or else what Hydra says.

    Args:
        words: overrides, each with one value.
    """
    groups = [word for word in words if reference.is_group(overrides.key_of(word))]
    for word in groups:
        if keys_of([word]) is None:
            return _group(command, word)
    known = keys_of(groups)
    if known is not None:
        for word in words:
            if word not in groups and keys_of([*groups, word]) is None:
                return _key(command, word, groups, known)
    return f"{command}: {reason(error.__cause__ or error)}"


def _group(command: str, word: str) -> str:
    group, name = overrides.split(word)
    known = reference.groups(command)
    if group in known:
        return f"{command}: {group}={brief(name)} does not compose with its other choices."
    near = _near(group, [*known])
    listed = f"Its groups are {', '.join(known)}" if known else "It has none"
    return f"{command}: it reads no group {group}{_meant(near)}. {listed}."


def _key(command: str, word: str, groups: Sequence[str], known: Collection[str]) -> str:
    key, _ = overrides.split(word)
    chosen = {**reference.groups(command), **overrides.typed(groups)}
    for group, name in chosen.items():
        for one in reference.of_group(group):
            if one.key == key and name not in one.defaults:
                names = ", ".join(f"{group}={other}" for other in one.defaults)
                return f"{command}: {key} is a setting of {names}, and not of {group}={name}."
    all_keys = [*known, *reference.groups(command)]
    last = key.rpartition(".")[2]
    same = [other for other in all_keys if other.rpartition(".")[2] == last]
    near = [*dict.fromkeys([*same, *_near(key, all_keys)])][:NEAREST]
    listed = f"rtil {command} --help all lists its keys"
    return f"{command}: it has no key {brief(key)}{_meant(near)}. {listed}."


def _meant(near: Sequence[str]) -> str:
    return f"; nearest is {' or '.join(near)}" if near else ""


def _near(name: str, known: Sequence[str]) -> list[str]:
    longer = [one for one in known if name and one.startswith(name)]
    close = difflib.get_close_matches(name, known, n=NEAREST, cutoff=ALIKE)
    return [*dict.fromkeys([*close, *longer])][:NEAREST]
