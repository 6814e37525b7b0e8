"""What a command composes from its choices alone: what a run's directory need not say."""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache

from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.errors import HydraException
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from rtil.process.command import CONFIGS
from rtil.runs.keys import flatten

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
