"""Overrides, the words of a command line such as "key=value": the one place that reads them.

Hydra composes a configuration from them; this says which keys they set and to which text. What a
key means is in `rtil.runs.keys`.
"""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Collection, Iterable, Mapping
from functools import lru_cache
from itertools import pairwise
from pathlib import Path

import yaml
from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException

from rtil.process.brief import brief
from rtil.process.command import CONFIGS
from rtil.runs import keys
from rtil.runs.kinds import NULL, TEXT

# YAML 1.1 takes 1e-05 for a text; Hydra and Python read a number.
PLAIN = re.compile(r"[\w/.+\-]*", re.ASCII)  # every text of these is read as it stands
FLOAT = re.compile(r"[-+]?(?:[0-9][0-9_]*)(?:\.[0-9_]*)?(?:[eE][-+]?[0-9]+)|[-+]?\.[0-9_]+")
WITH_WORD = ("--cfg", "-c", "--package", "-p")  # flags that take the next word


class _Loader(yaml.SafeLoader):
    """PyYAML's safe loader with Hydra's numbers."""


_Loader.yaml_implicit_resolvers = {
    first: [*resolvers] for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(f"^(?:{FLOAT.pattern})$"), list("-+0123456789.")
)


def split(word: str) -> tuple[str, str | None]:
    """Key and text of an override; without a "=" (a flag, or a deletion "~key") text is None."""
    key, equals, value = word.partition("=")
    return key.lstrip("+~"), value if equals else None


def key_of(word: str) -> str:
    """The key that an override sets, adds ("+key") or deletes ("~key")."""
    return split(word)[0]


def typed(words: Iterable[str]) -> dict[str, str]:
    """{key: text} of overrides; the last of several for one key counts, a deletion is ""."""
    return {name: value or "" for name, value in map(split, words)}


def groups(words: Iterable[str]) -> set[str]:
    """What stands before the first dot of every key: a group that is chosen or changed."""
    return {name.partition(".")[0] for name in typed(words)}


def running() -> list[str] | None:
    """The overrides of the Hydra job that runs; None where none does."""
    return [*HydraConfig.get().overrides.task] if HydraConfig.initialized() else None


def as_text(value: object) -> str:
    """A value as Hydra reads it on a command line."""
    return value if isinstance(value, str) else json.dumps(value, separators=(",", ":"))


@lru_cache(maxsize=4096)  # a report of many missing jobs compares each text with each
def parsed(text: str) -> object:
    """What a text on a command line stands for: a number, a list, true, null or itself."""
    try:
        return yaml.load(text, _Loader)
    except yaml.YAMLError:
        return text


def line(command: str, settings: Mapping[str, object], added: Collection[str] = ()) -> str:
    """A command line of rtil with these settings.

    Args:
        added: keys that configs may lack: Hydra sets or adds them.
    """
    names = {key: f"++{key}" if key in added else key for key in settings}
    words = [shlex.quote(f"{names[key]}={readable(as_text(x))}") for key, x in settings.items()]
    return " ".join([f"python -m rtil.{command}", *words])


def elsewhere(root: str) -> dict[str, str]:
    """What a command line says of where runs are, if they are not where they usually are."""
    return {} if root == "runs" else {"root": root}


@lru_cache(maxsize=4096)
def is_sweep(key: str, text: str) -> bool:
    """Whether a setting's text is several values, each of a job of its own."""
    try:
        return OverridesParser.create().parse_override(f"{key}={text}").is_sweep_override()
    except HydraException:
        return False


@lru_cache(maxsize=4096)
def readable(text: str) -> str:
    """A text as it stands, where Hydra can read it so, or else in quotes."""
    if PLAIN.fullmatch(text):
        return text
    try:
        OverridesParser.create().parse_override(f"key={text}")
    except HydraException:
        return quoted(text)
    return text


def quoted(text: str) -> str:
    """A text in quotes as Hydra reads them: backslashes count before a quote alone."""
    escaped = re.sub(r'(\\*)("|$)', lambda m: 2 * m[1] + m[2].replace('"', '\\"'), text)
    return f'"{escaped}"'


def values(word: str) -> list[str]:
    """Texts of the values of an override: of a sweep over a list or a range, each."""
    override = OverridesParser.create().parse_override(word)
    if not override.is_sweep_override():
        return [override.get_value_element_as_str()]
    try:
        return [*override.sweep_string_iterator()]
    except HydraException:  # of names that are looked up, or numbers that are drawn
        return []


def singles(words: Iterable[str]) -> list[str]:
    """Overrides with the first of several values; flags, and sweeps without a list, left out."""
    single = []
    for word in words:
        if word.startswith("~"):
            single.append(word)
        elif "=" in word and not word.startswith("-"):
            key = word.partition("=")[0]
            single += [f"{key}={text}" for text in values(word)[:1]]
    return single


def check(command: str, words: Iterable[str]) -> None:
    """Checks a command line before anything is composed of it.

    Args:
        words: overrides, and flags, which are passed over with what they take.

    Raises:
        ValueError: Hydra cannot read a word, or a group of configs is chosen by what is no name.
    """
    parser = OverridesParser.create()
    for before, word in pairwise(["", *words]):
        key, text = split(word)
        if word.startswith(("-", "~")) or (text is None and before in WITH_WORD):
            continue
        if text is None:
            raise ValueError(f"{command}: {brief(word)} is no KEY=VALUE.")
        try:
            override = parser.parse_override(word)
        except HydraException as error:
            advice = f"{key}={quoted(text)}"
            raise ValueError(
                f"{command}: {brief(word)} cannot be read. Texts with other characters "
                f"than letters, digits and /-+._ stand in quotes: {shlex.quote(advice)}"
            ) from error
        if not (Path(CONFIGS) / key).is_dir() or override.is_sweep_override():
            continue
        name = TEXT | NULL if keys.row(key).optional else TEXT
        if fault := name.fault(override.value(), key):
            raise ValueError(f"{command}: {fault}, the name of one of configs/{key}.")
