"""What a training is made of, composed once out of its configuration.

`compose` checks the settings, reads the data set, builds networks, objective and optimisers, and
claims the run directory. Below it (`rtil.training.loop`) nobody reads a configuration. A new
setting of the loop is a line in configs/train.yaml and a field of `loop.Settings`, filled in here.
"""

from __future__ import annotations

import copy
import logging
from collections.abc import Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any, cast

import torch
from omegaconf import DictConfig, OmegaConf
from torch import nn

from rtil import checkpoint
from rtil.data.base import ImageData
from rtil.data.load import load_data
from rtil.latents.family import Family
from rtil.models.generator import Generator, StyleMixing
from rtil.objectives.objective import GeneratorPenalty, Objective, RealPenalty
from rtil.process.device import Hardware, Runtime, ranks, start
from rtil.process.instantiate import instantiate
from rtil.process.lock import Owner
from rtil.process.provenance import provenance
from rtil.runs import identity, keys, overrides, record
from rtil.runs.setup import checked
from rtil.training.loop import Nets, Settings, Training

log = logging.getLogger("rtil.train")


def compose(cfg: DictConfig) -> Training:
    """A training that is ready to begin or to go on.

    Args:
        cfg: composed from train.yaml; it stays as it is.

    Raises:
        ValueError, FileNotFoundError, RuntimeError: bad settings, data or directory.
    """
    # Cheap things first: nothing is read or written for settings that cannot be trained.
    cfg = checked(cfg, "train", overrides.running())
    phase_nimg = check(cfg)
    rt = start(Hardware(**cfg.hardware))
    data = load_data(
        resolved(cfg, {})["data"],
        round(cfg.resolution * cfg.crop_scale),
        "train",
        cfg.image_channels,
        min_images=max(as_list(cfg.batch)),
    )
    config = record_of(cfg, phase_nimg, data)
    run_dir = Path(config["run_dir"] or identity.train_dir(config))
    config["run_dir"] = str(run_dir)

    # Weights are drawn in this order from the seed: generator, discriminator, objective.
    torch.manual_seed(config["seed"])
    family: Family = instantiate(config["rtil"]["family"])
    nets = build_nets(config["model"], family, rt)
    facts = {**provenance(rt), **data.provenance()}
    owner = claim(run_dir, config, facts) if rt.rank == 0 else None
    return Training(settings_of(config), config, rt, data, family, nets, owner)


def check(cfg: DictConfig) -> list[int] | None:
    """Checks the settings without data or memory.

    Returns:
        Images of each growing phase; None where nothing grows.

    Raises:
        ValueError: settings that cannot be trained, before anything is read or written.
    """
    if "generator" not in cfg.model:
        raise ValueError(
            f"train: model={cfg.model.name} has no GAN training; the linear model of section 5 "
            "is solved by python -m rtil.theory. Use model=stylegan2 or model=pggan."
        )
    config = resolved(cfg, {"image_channels": cfg.image_channels or 1, "model.phase_nimg": None})
    # On the meta device networks have shapes and no memory, and draw nothing.
    with torch.device("meta"):
        G: Generator = instantiate(config["model"]["generator"])
        instantiate(config["model"]["discriminator"])
    family: Family = instantiate(config["rtil"]["family"])
    for space in family.spaces:
        space.check(G)

    batches, world = as_list(cfg.batch), ranks().world
    if any(batch % world for batch in batches):
        raise ValueError(f"train: batch={cfg.batch} must be divisible by the {world} processes.")
    if len(batches) not in (1, G.max_blocks):
        raise ValueError(
            f"train: batch={batches} must be one number, or one for each of {G.max_blocks} "
            "growing phases."
        )
    phase_nimg = cfg.model.phase_nimg
    if phase_nimg == "grow":
        return equal_phases(batches, cfg.total_nimg, G.max_blocks)
    if phase_nimg is None and len(batches) > 1:
        raise ValueError(
            f"train: batch={batches} has one number for each growing phase, and with "
            "model.phase_nimg=null nothing grows; give one number."
        )
    return None if phase_nimg is None else list(phase_nimg)


def equal_phases(batches: Sequence[int], total_nimg: int, phases: int) -> list[int]:
    """Images of each growing phase, so that each takes an equal number of steps."""
    sizes = batches if len(batches) > 1 else [*batches] * phases
    edges = [round(total_nimg * sum(sizes[:i]) / sum(sizes)) for i in range(phases + 1)]
    return [max(1, end - begin) for begin, end in pairwise(edges)]


def record_of(cfg: DictConfig, phase_nimg: list[int] | None, data: ImageData) -> dict:
    """The configuration that is recorded: resolved, with what data and schedule turned out to be.

    Files of every version hold these keys; a run goes on where they are the same.
    """
    found = {"image_channels": data.channels, "model.phase_nimg": phase_nimg}
    config = {**resolved(cfg, found), "images_found": len(data)}
    digest = data.digest()
    return {**config, keys.FILES: digest} if digest else config


def resolved(cfg: DictConfig, values: Mapping[str, object]) -> dict[str, Any]:
    """Plain values of cfg once these keys have these values; cfg itself stays as it is."""
    changed = copy.deepcopy(cfg)
    for key, value in values.items():
        OmegaConf.update(changed, key, value, merge=False)
    return cast(dict[str, Any], OmegaConf.to_container(changed, resolve=True))


def settings_of(config: dict) -> Settings:
    """What the loop goes by, from the recorded configuration."""
    model = config["model"]
    return Settings(
        run_dir=Path(config["run_dir"]),
        seed=config["seed"],
        total_nimg=config["total_nimg"],
        batches=tuple(as_list(config["batch"])),
        phase_nimg=tuple(model["phase_nimg"] or ()),
        resolution=config["resolution"],
        mirror=config["data"]["mirror"],
        style_mixing=StyleMixing(model["style_mixing"], said(model, "style_mixing_per")),
        reuse_fakes=said(model, "reuse_fakes"),
        ema_decay=model["ema_decay"],
        log_every=config["log_every"],
        checkpoint_every=config["checkpoint_every"],
        samples_every=config["samples_every"],
        keep_checkpoints=config["keep_checkpoints"],
    )


def said(model: dict, name: str) -> Any:
    """A setting of the group `model`, or its default where a user's own yaml lacks it."""
    return model.get(name, keys.row(f"model.{name}").default)


def build_nets(model: dict, family: Family, rt: Runtime) -> Nets:
    """Networks, objective and optimisers at the start of training, on the device.

    Args:
        model: the group `model` of a resolved configuration.
    """
    G: Generator = rt.place(instantiate(model["generator"]))
    D: nn.Module = rt.place(instantiate(model["discriminator"]))
    members = [len(space.names) for space in family.spaces]
    objective: Objective = instantiate(model["objective"], members=members).to(rt.device)
    G_ema = copy.deepcopy(G).eval().requires_grad_(False)
    G_optim = adam(G, model, objective.g_lazy)
    D_optim = adam(D, model, objective.d_lazy)
    return Nets(G, D, G_ema, objective, G_optim, D_optim)


def adam(
    network: nn.Module, model: dict, lazy: RealPenalty | GeneratorPenalty | None
) -> torch.optim.Adam:
    """The optimiser of a network that has this lazy penalty."""
    # A lazy penalty adds a step every `every` steps (Karras et al. 2020, App. B).
    share = lazy.every / (lazy.every + 1) if lazy is not None else 1.0
    beta1, beta2 = model["betas"]
    return torch.optim.Adam(
        network.parameters(),
        lr=model["lr"] * share,
        betas=(beta1**share, beta2**share),
        fused=True,
        capturable=next(network.parameters()).is_cuda,
    )


def claim(run_dir: Path, config: dict, facts: dict[str, object]) -> Owner:
    """Makes the run directory, or checks that this run goes on there, and records the command.

    Args:
        facts: what the command runs with.

    Raises:
        ValueError: it holds a run with other settings.
        RuntimeError: another process works there.
    """
    owner = Owner(run_dir, "train")
    try:
        record.claim(run_dir, config, "train")
    except ValueError:
        owner.release()
        raise
    commands = record.history(run_dir)
    before = commands[0].get("precision", "fp32") if commands else facts["precision"]
    if before != facts["precision"] and checkpoint.latest(run_dir):
        log.warning("%s: in %s so far, goes on in %s.", run_dir, before, facts["precision"])
    record.write_provenance(run_dir, facts, config)
    return owner


def as_list(value: int | Sequence[int]) -> list[int]:
    """A number, or several, as a list."""
    return [int(v) for v in value] if isinstance(value, Sequence) else [int(value)]
