"""Plans of the experiments, composed settings, and commands in processes of their own."""

import os
import subprocess
import sys
from functools import lru_cache
from pathlib import Path

from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf

from rtil.process.command import CONFIGS

ROOT = Path(CONFIGS)


NAMES = sorted(p.stem for p in (ROOT / "experiment").glob("*.yaml"))


def composed(entry, *overrides):
    with initialize_config_dir(CONFIGS, version_base="1.3"):
        return compose(entry, list(overrides))


@lru_cache
def plan_of(name, scale="paper"):
    """The experiment node as Hydra composes it, which takes ten times as long."""
    tree = OmegaConf.load(ROOT / "experiment" / f"{name}.yaml")
    for default in tree.get("defaults", ()):
        for key, choice in default.items() if OmegaConf.is_dict(default) else ():
            if key.startswith("/published"):
                tree.experiment.published = OmegaConf.load(ROOT / "published" / f"{choice}.yaml")
    tree = {
        "scale": OmegaConf.load(ROOT / "scale" / f"{scale}.yaml"),
        "experiment": tree.experiment,
    }
    return OmegaConf.to_container(OmegaConf.create(tree), resolve=True)["experiment"]


def resolved(entry, words):
    cfg = composed(entry, *words)
    cfg.image_channels = cfg.image_channels or 3
    return OmegaConf.to_container(cfg, resolve=True)


def command(cwd, *arguments):
    done = subprocess.run(
        [sys.executable, "-m", *arguments],
        cwd=cwd,
        capture_output=True,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        timeout=1800,  # ends what hangs; a busy machine is slow and right
    )
    return done.returncode, done.stdout, done.stderr


QUICK = ("hardware=cpu", "hardware.threads=1", "data.num_train=64")
