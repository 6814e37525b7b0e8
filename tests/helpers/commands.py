"""Entry points at tiny size, from composed settings: no process is started."""

from functools import lru_cache

import torch
import yaml
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf

from rtil import checkpoint, invert, tune
from rtil.process.command import CONFIGS
from rtil.process.instantiate import instantiate
from rtil.runs import identity

COMMON = (
    "scale=tiny",
    "hardware=cpu",
    "hardware.threads=1",
    "yardstick.use=false",
    "inversion_batch=1",
    "image_seed=null",
)


@lru_cache
def composed(entry, *overrides):
    with initialize_config_dir(CONFIGS, version_base="1.3"):
        return compose(entry, list(overrides))


def resolved(entry, *overrides):
    cfg = composed(entry, *overrides).copy()
    cfg.image_channels = cfg.image_channels or 1
    cfg.model.phase_nimg = None
    return OmegaConf.to_container(cfg, resolve=True)


def export(root, seed=0, rtil="ilo", *more):
    """An untrained generator where an inversion with the same choices looks for it."""
    overrides = ("scale=tiny", f"rtil={rtil}", *more)
    config = resolved("train", *overrides)
    torch.manual_seed(seed)
    G = instantiate(config["model"]["generator"])
    path = identity.train_dir({**config, "root": str(root)}) / "generator.pt"
    path.parent.mkdir(parents=True, exist_ok=True)
    (path.parent / "config.yaml").write_text(yaml.safe_dump(config))
    checkpoint.save(
        {
            "format": checkpoint.EXPORT,
            "config": config,
            "nimg": 0,
            "step": 0,
            "G_ema": G.state_dict(),
        },
        path,
    )


def start(entry, root, *overrides):
    overrides = [*COMMON, f"root={root}", "num_images=2", *overrides]
    run = {"tune": tune.tune, "invert": invert.invert}[entry]
    return run(composed(entry, *overrides).copy(), overrides)
