"""Overrides, the words of a command line such as "key=value": the one place that reads them.

Hydra composes a configuration from them; this says which keys they set and to which text. What a
key means is in `rtil.runs.keys`.
"""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Iterable, Mapping
from functools import lru_cache

import yaml
from hydra.core.hydra_config import HydraConfig

# YAML 1.1 takes 1e-05 for a text; Hydra and Python read a number.
FLOAT = re.compile(r"[-+]?(?:[0-9][0-9_]*)(?:\.[0-9_]*)?(?:[eE][-+]?[0-9]+)|[-+]?\.[0-9_]+")


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


def line(command: str, settings: Mapping[str, object]) -> str:
    """A command line of rtil with these settings."""
    words = [shlex.quote(f"{name}={as_text(value)}") for name, value in settings.items()]
    return " ".join([f"python -m rtil.{command}", *words])
