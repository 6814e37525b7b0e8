"""What a command composes from its choices alone, and what was typed beside it.

A run's directory need not say what its choices compose to, and a setting is of the type that it
has there.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from functools import lru_cache

from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from rtil.process.command import CONFIGS
from rtil.runs import overrides
from rtil.runs.keys import GROUPS, flatten, row

SWITCH = {"yes": True, "on": True, "no": False, "off": False}
Composed = tuple[Mapping[str, object], Mapping[str, object]]


@lru_cache(maxsize=256)  # a quarter of a second each
def composed(command: str, words: tuple[str, ...]) -> Composed:
    """A command's flattened configuration under these overrides, resolved and as it is written.

    Both are empty where there is no such configuration, as with a model of the user's own.
    """
    running = GlobalHydra.instance()
    hydra, running.hydra = running.hydra, None  # of the command that asks, which goes on with it
    try:
        with initialize_config_dir(CONFIGS, version_base="1.3"):
            config = compose(command, [*words])
        resolved = OmegaConf.to_container(config, resolve=True)
        written = OmegaConf.to_container(config, resolve=False)
    except (HydraException, OmegaConfBaseException):
        return {}, {}
    finally:
        GlobalHydra.instance().hydra = hydra
    assert isinstance(resolved, Mapping) and isinstance(written, Mapping)
    return flatten(resolved), flatten(written)


def checked(cfg: DictConfig, command: str, words: Iterable[str] | None) -> DictConfig:
    """cfg with typed settings of the types that they have where nothing is typed.

    A switch takes true or false, and yes, no, on, off for the same; a number is finite.

    Args:
        cfg: composed from <command>.yaml; it stays as it is.
        words: "key=value" texts given by the user; None where they are not known.

    Raises:
        ValueError: something else was typed; names the key.
    """
    for key in overrides.typed(words or ()):
        if key in GROUPS or row(key).path or not _is_leaf(cfg, key):
            continue
        value = OmegaConf.select(cfg, key)
        if isinstance(value, float) and not math.isfinite(value):
            raise ValueError(f"{command}: {key}={value} must be a finite number.")
        if isinstance(value, str):
            cfg = _with_type(cfg, command, key, value)
    return cfg


def _is_leaf(cfg: DictConfig, key: str) -> bool:
    """Whether a key is a setting of cfg and not a group of settings."""
    parent, _, name = key.rpartition(".")
    node = OmegaConf.select(cfg, parent) if parent else cfg
    return OmegaConf.is_dict(node) and name in node and not OmegaConf.is_dict(node[name])


def _with_type(cfg: DictConfig, command: str, key: str, value: str) -> DictConfig:
    """cfg with a switch of this text; a text where a number belongs is refused."""
    choices = tuple(
        f"{group}={cfg[group].name}"
        for group in GROUPS
        if OmegaConf.is_dict(cfg.get(group)) and group != "experiment" and "name" in cfg[group]
    )
    default = composed(command, choices)[0].get(key)
    if isinstance(default, bool):
        if value.lower() not in SWITCH:
            raise ValueError(f"{command}: {key}={value} must be true or false.")
        cfg = cfg.copy()
        OmegaConf.update(cfg, key, SWITCH[value.lower()])
    elif isinstance(default, (int, float)) and not row(key).mixed:
        raise ValueError(f"{command}: {key}={value} must be a number; its default is {default}.")
    return cfg
