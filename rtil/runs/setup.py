"""What a command composes from its choices alone, and what was typed beside it.

A run's directory need not say what its choices compose to, and a setting is of the type that it
has there.
"""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from contextlib import suppress
from functools import lru_cache, wraps

import hydra
from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf, open_dict
from omegaconf.errors import OmegaConfBaseException

from rtil.process.command import CONFIGS, entry
from rtil.runs import help, keys, mistakes, overrides, reference
from rtil.runs.keys import GROUPS, flatten, is_under, row
from rtil.runs.kinds import ANYTHING, FINITE, NULL, SWITCH, Kind, MapOf

WORDS = {"true": True, "yes": True, "on": True, "false": False, "no": False, "off": False}
COMPLETION = ("--shell-completion", "-sc")
ELSEWHERE = (
    *("--config-", "-cd", "-cn", "-cp", "--experimental-rerun", "hydra.searchpath="),
    *("--info", "-i", "--hydra-help", "--version", *COMPLETION),
)
MISSING = "???"  # of a setting that has no default
Composed = tuple[Mapping[str, object], Mapping[str, object]]


@lru_cache(maxsize=256)  # a quarter of a second each
def composed(command: str, words: tuple[str, ...]) -> Composed:
    """A command's flattened configuration under these overrides, resolved and as it is written.

    Both are empty where there is no such configuration, as with a model of the user's own.
    """
    try:
        config = configuration(command, words)
        resolved = OmegaConf.to_container(config, resolve=True)
        written = OmegaConf.to_container(config, resolve=False)
    except (HydraException, OmegaConfBaseException):
        return {}, {}
    assert isinstance(resolved, Mapping) and isinstance(written, Mapping)
    return flatten(resolved), flatten(written)


def configuration(command: str, words: Sequence[str]) -> DictConfig:
    """What a command composes of these overrides, also while another one runs.

    Raises:
        HydraException, OmegaConfBaseException: there is no such configuration.
    """
    running = GlobalHydra.instance()
    own, running.hydra = running.hydra, None  # of the command that asks, which goes on with it
    try:
        with initialize_config_dir(CONFIGS, version_base="1.3"):
            return compose(command, [*words])
    finally:
        GlobalHydra.instance().hydra = own


def command(name: str) -> Callable[[Callable[[DictConfig], None]], Callable[[], None]]:
    """Makes the `main` of a command of a function of its configuration, <name>.yaml.

    What Hydra would answer with its own traceback is refused before it composes.
    """

    def decorate(work: Callable[[DictConfig], None]) -> Callable[[], None]:
        composing = hydra.main(version_base="1.3", config_path=CONFIGS, config_name=name)(work)

        @wraps(work)
        def main() -> None:
            words = sys.argv[1:]
            if help.asked(words):
                choices = tuple(word for word in words if "=" in word)
                try:
                    print(help.text(name, words, composed(name, choices)[0]), flush=True)
                except BrokenPipeError:
                    # Its first lines were read, as by `head`; Python writes the rest at exit.
                    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
                return
            if any(word in COMPLETION for word in words):
                line = os.environ.get("COMP_LINE", "")
                # Hydra knows an executable's name before the words, and not "python -m rtil.x".
                os.environ["COMP_LINE"] = re.sub(rf"^.*?\brtil[. ]\s*{name}\b", "rtil", line)
            entry(lambda: check(name, words))
            composing()

        return main

    return decorate


def check(command: str, words: Sequence[str]) -> None:
    """Checks a command line: that its words can be read, and that they compose.

    Of several values of a key the first is composed; the sweep composes all before its first job.

    Raises:
        ValueError: a line that names the word and what it may have meant.
    """
    # Of configurations that lie elsewhere only Hydra knows, and of what a shell asks it.
    if any(word.startswith(ELSEWHERE) for word in words):
        return
    overrides.check(command, words)
    for word in words:
        group, text = overrides.split(word)
        if text is None or group not in reference.groups(command):
            continue
        for name in overrides.values(word):
            name = name.strip("\"'")
            if name != "null" and name not in reference.choices(group):
                raise ValueError(mistakes.choice(command, group, name))
    single = overrides.singles(words)
    try:
        configuration(command, single)
    except (HydraException, OmegaConfBaseException) as error:
        raise refused(command, single, error) from error


def refused(command: str, words: Sequence[str], error: Exception) -> ValueError:
    """What Hydra refuses, in a line of ours; words have one value each."""

    def keys_of(tried: Sequence[str]) -> Collection[str] | None:
        try:
            tree = OmegaConf.to_container(configuration(command, tried))
        except (HydraException, OmegaConfBaseException):
            return None
        assert isinstance(tree, Mapping)
        return flatten(tree).keys()

    return ValueError(mistakes.line(command, words, keys_of, error))


def checked(cfg: DictConfig, command: str, words: Iterable[str] | None) -> DictConfig:
    """cfg with every setting of its kind (`rtil.runs.keys.kind`), whoever set it.

    A switch takes true or false, and yes, no, on, off for the same. A path is a text, with the
    home directory in place of "~".

    Args:
        cfg: composed from <command>.yaml; it stays as it is.
        words: "key=value" texts given by the user; None where they are not known.

    Raises:
        ValueError: a setting is of another kind, or has no effect; names the key.
    """
    typed = overrides.typed(words or ())
    cfg = with_one_objective(cfg, typed)
    changed = {}
    leaves = _leaves(cfg)
    # What is typed comes first: a setting that takes its value from it has the same fault.
    for key in sorted(leaves, key=lambda key: not is_under(key, typed)):
        value = leaves[key]
        kind = keys.kind(key, command)
        if kind is None and key in typed:
            kind = _kind_of_default(cfg, command, key)
        if kind is None:
            continue
        read = _read(key, value, kind, typed.get(key))
        fault = kind.fault(read, key)
        if fault is not None:
            raise ValueError(f"{command}: {fault}.")
        if read is not value:
            changed[key] = read
    if changed:
        cfg = cfg.copy()
        for key, value in changed.items():
            OmegaConf.update(cfg, key, value, merge=False)
    return cfg


def with_one_objective(cfg: DictConfig, typed: Iterable[str] = ()) -> DictConfig:
    """cfg without the model's own objective where another is chosen; cfg itself stays as it is.

    Args:
        typed: keys that the user set.

    Raises:
        ValueError: one of them is of the objective that is not used.
    """
    if "_target_" not in (cfg.get("objective") or {}):
        return cfg
    for key in typed:
        if is_under(key, ["model.objective"]):
            raise ValueError(
                f"{key} is of the model's own objective, and objective={cfg.objective.name} is "
                "another, whose settings are objective.KEY. Leave one of them out."
            )
    cfg = cfg.copy()
    with open_dict(cfg):
        cfg.model.pop("objective", None)
    return cfg


def _leaves(cfg: DictConfig) -> dict[str, object]:
    """{key: value} of the settings, resolved; without those that cannot be: who reads them says
    so."""
    with suppress(OmegaConfBaseException):
        tree = OmegaConf.to_container(cfg, resolve=True)
        assert isinstance(tree, Mapping)
        return {key: value for key, value in _values(tree).items() if value != MISSING}
    tree = OmegaConf.to_container(cfg)
    assert isinstance(tree, Mapping)
    leaves = {}
    for key, value in _values(tree).items():
        with suppress(OmegaConfBaseException):
            # Sizes are keys that are numbers, which `select` does not find.
            written = not isinstance(value, str) or "${" not in value
            found = value if written else OmegaConf.select(cfg, key)
            leaves[key] = OmegaConf.to_container(found) if OmegaConf.is_config(found) else found
    return {key: value for key, value in leaves.items() if value != MISSING}


def _values(tree: Mapping) -> dict[str, object]:
    """`flatten`, with tables that hold nothing or stand where a value belongs."""
    tables: dict[str, object] = {}
    groups = [("", tree)]
    while groups:
        name, group = groups.pop()
        # A row of keys speaks of all below it, a name of itself.
        named = keys.kind(name) is not None and keys.row(name).kind is None
        if name and (not group or named):
            tables[name] = group
        inner = {f"{name}.{key}" if name else str(key): value for key, value in group.items()}
        groups += [(key, value) for key, value in inner.items() if isinstance(value, Mapping)]
    return flatten(tree) | tables


def _read(key: str, value: object, kind: Kind, text: str | None) -> object:
    """A setting as its kind takes it where it was written otherwise: a switch, a path."""
    if isinstance(value, str) and kind.fault(value) and not kind.fault(True):
        return WORDS.get(value.lower(), value)
    if row(key).path:
        # A folder may be named 2024, which is a number where it is typed without quotes.
        number = isinstance(value, (int, float)) and not isinstance(value, bool)
        if number and str(value) == text:
            return text
        return expanded(value)
    return value


def expanded(value: object) -> object:
    """A path, or each of a list of them, with the home directory in place of "~"."""
    if isinstance(value, str) and value.startswith("~"):
        return os.path.expanduser(value)
    if isinstance(value, list) and any(isinstance(x, str) and x.startswith("~") for x in value):
        return [expanded(entry) for entry in value]
    return value


# For what Hydra itself makes of a path, before a command begins: the folder of a sweep.
OmegaConf.register_new_resolver("path", expanded, replace=True)


def _kind_of_default(cfg: DictConfig, command: str, key: str) -> Kind | None:
    """What a typed setting of a user's own part is, by what it is where nothing is typed."""
    choices = tuple(
        f"{group}={cfg[group].name}"
        for group in GROUPS
        if OmegaConf.is_dict(cfg.get(group)) and group != "experiment" and "name" in cfg[group]
    )
    plain = composed(command, choices)[0]
    default = plain.get(key)
    if isinstance(default, bool):
        return SWITCH
    if isinstance(default, (int, float)):
        return FINITE
    if key in plain or not any(is_under(other, [key]) for other in plain):
        return None
    return MapOf(ANYTHING) | NULL if row(key).optional else MapOf(ANYTHING)
