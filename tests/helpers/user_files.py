"""Settings of inversions of a user's own files."""

import copy
from functools import lru_cache

import yaml
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf

from rtil.process.command import CONFIGS
from rtil.runs import keys as key_table


@lru_cache
def chosen(entry, *choices):
    with initialize_config_dir(CONFIGS, version_base="1.3"):
        return compose(entry, list(choices))


def composed(entry, *overrides):
    """Hydra's configuration; a choice of groups is composed once for all tests."""
    keys = [word.partition("=")[0] for word in overrides]
    choices = [w for w, key in zip(overrides, keys) if key in key_table.GROUPS]
    cfg = copy.deepcopy(chosen(entry, *choices))
    for word, key in zip(overrides, keys):
        if word not in choices:
            value = word.partition("=")[2]
            OmegaConf.update(cfg, key, yaml.safe_load(value) if value else value)
    return cfg
