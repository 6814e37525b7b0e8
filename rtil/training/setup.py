"""What a training is made of, composed once out of its configuration.

`compose` checks the settings, reads the data set, has networks, objective and optimisers built
(`rtil.training.networks`), and claims the run directory. Below it (`rtil.training.loop`) nobody
reads a configuration. A new setting of the loop is a line in configs/train.yaml and a field of
`rtil.training.settings`, filled in here.
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
from rtil.process.device import Hardware, ranks, start
from rtil.process.instantiate import allow, instantiate, named_by
from rtil.process.lock import Owner
from rtil.process.provenance import provenance
from rtil.process.rng import seeded
from rtil.runs import identity, keys, overrides, record
from rtil.runs.setup import checked
from rtil.training import freeze
from rtil.training.asking import asking_for
from rtil.training.initial import Initial, read, start_penalty
from rtil.training.loop import Training
from rtil.training.networks import (
    build_augmentation,
    build_nets,
    check_objective,
    discriminator,
)
from rtil.training.settings import Settings

log = logging.getLogger("rtil.train")

ALONE_STEPS = 1000  # of a new discriminator, where init_d_nimg does not say


def compose(cfg: DictConfig) -> Training:
    """A training that is ready to begin or to go on.

    Args:
        cfg: composed from train.yaml; it stays as it is.

    Raises:
        ValueError, FileNotFoundError, RuntimeError: bad settings, data or directory.
    """
    # Cheap things first: nothing is read or written for settings that cannot be trained.
    cfg = checked(cfg, "train", overrides.running())
    allow(named_by(cfg))
    initial = read(cfg.init, cfg.model.get("discriminator") is not None) if cfg.init else None
    cfg = started(cfg, initial)
    phase_nimg = check(cfg, initial)
    check_curves(cfg.wandb)
    augmentation = build_augmentation(resolved(cfg, {})["augment"])
    rt = start(Hardware(**cfg.hardware))
    data = load_data(
        resolved(cfg, {})["data"],
        round(cfg.resolution * cfg.crop_scale),
        "train",
        cfg.image_channels,
        min_images=max(as_list(cfg.batch)),
    )
    config = record_of(cfg, phase_nimg, data, initial)
    run_dir = Path(config["run_dir"] or identity.train_dir(config))
    config["run_dir"] = str(run_dir)

    # Weights are drawn in this order from the seed: generator, discriminator, objective.
    torch.manual_seed(config["seed"])
    family: Family = instantiate(config["rtil"]["family"])
    nets = build_nets(config, family, rt, initial)
    if augmentation is not None:
        nets = nets._replace(augmentation=augmentation.to(rt.device))
    check_channels(nets.G, data.channels)
    settings = settings_of(config)
    facts = {**provenance(rt), **data.provenance()}
    if initial is not None:
        facts["init"] = initial.facts()
        if checkpoint.latest(run_dir) is None:
            if rt.rank == 0:
                say_start(settings, initial)
            rng = seeded(rt.device, settings.seed, "start")
            start_penalty(nets.objective, family, nets.G, settings.style_mixing, rng)
    owner = claim(run_dir, config, facts) if rt.rank == 0 else None
    return Training(settings, config, rt, data, family, nets, owner)


def check_curves(project: str | None) -> None:
    """Raises ValueError where curves are to go to Weights & Biases, and it is not installed."""
    if project is None:
        return
    try:
        import wandb  # noqa: F401
    except ImportError as error:
        raise ValueError(
            f"train: wandb={project} needs a package that is not here: "
            'pip install "rtil[wandb]", or leave it out.'
        ) from error


def say_start(settings: Settings, initial: Initial) -> None:
    """Logs what training starts from, and what it does first."""
    log.info("Starts from %s, trained on %d images.", initial.path, initial.nimg)
    alone_nimg, total = settings.d_alone_nimg, settings.total_nimg
    if alone_nimg:
        log.info("The discriminator is trained alone to image %d.", alone_nimg)
    if alone_nimg >= total:
        log.warning(
            "The generator stays as it is to total_nimg=%d: init_d_nimg=%d lasts as long.",
            total,
            alone_nimg,
        )


def started(cfg: DictConfig, initial: Initial | None) -> DictConfig:
    """cfg with what starting from a trained generator decides, and names of layers as they are
    recorded.

    Raises:
        ValueError: settings of a start without one, a growing schedule, or layers that are none.
    """
    found: dict[str, object] = {}
    if initial is None:
        if cfg.init_d_nimg is not None:
            raise ValueError(
                f"train: init_d_nimg={cfg.init_d_nimg} is for init=FILE, whose generator waits for"
                " a discriminator. Leave it out."
            )
    elif "generator" in cfg.model:
        if cfg.model.phase_nimg not in (None, "grow"):
            raise ValueError(
                f"train: model.phase_nimg={cfg.model.phase_nimg} grows a generator, and that of "
                f"init={initial.path} has grown. Leave it out."
            )
        # What starts is in its last phase.
        batch = as_list(cfg.batch)[-1]
        waits = initial.D is None and cfg.model.discriminator is not None
        alone_nimg = ALONE_STEPS * batch if waits else 0
        found = {
            "image_channels": cfg.image_channels or initial.image_channels,
            "model.phase_nimg": None,
            "batch": batch,
            "init_d_nimg": alone_nimg if cfg.init_d_nimg is None else cfg.init_d_nimg,
        }
    cfg = changed(cfg, found)
    if cfg.freeze and "generator" in cfg.model:
        names = freeze.canonical(list(cfg.freeze), *drafts(cfg))
        cfg = changed(cfg, {"freeze": names})
    return cfg


def drafts(cfg: DictConfig) -> tuple[Generator, nn.Module]:
    """Generator and discriminator of a configuration, which do not grow, with shapes alone."""
    found = {"image_channels": cfg.image_channels or 1, "model.phase_nimg": None}
    model = resolved(cfg, found)["model"]
    # On the meta device networks have no memory, and draw nothing.
    with torch.device("meta"):
        return instantiate(model["generator"]), discriminator(model)


def check(cfg: DictConfig, initial: Initial | None = None) -> list[int] | None:
    """Checks the settings without data or memory.

    Args:
        initial: what the networks have to fit, where training starts from it.

    Returns:
        Images of each growing phase; None where nothing grows.

    Raises:
        ValueError: settings that cannot be trained, before anything is read or written.
    """
    G, D = drafts(cfg)
    if initial is not None:
        model = resolved(cfg, {})["model"]
        written = OmegaConf.to_container(cfg.model.generator, resolve=False)
        words = asking_for(model, initial.config["model"], cast(dict[str, Any], written))
        initial.check(model, words, G, D)
    family: Family = instantiate(resolved(cfg, {})["rtil"]["family"])
    for space in family.spaces:
        space.check(G)
    check_objective(resolved(cfg, {}), family)
    if G.image_shape[1] != cfg.resolution:
        raise ValueError(
            f"train: model={cfg.model.name} draws {G.image_shape[1]} pixels a side and "
            f"resolution={cfg.resolution}; set resolution={G.image_shape[1]}, or choose a scale "
            "of that size."
        )

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


def check_channels(G: Generator, channels: int) -> None:
    """Raises ValueError where a generator draws in grey and images are in colour, or reversed."""
    own = G.image_shape[0]
    if own != channels:
        raise ValueError(
            f"train: the generator draws {own} colour channels and the images have {channels}; "
            f"image_channels={own} reads them so."
        )


def equal_phases(batches: Sequence[int], total_nimg: int, phases: int) -> list[int]:
    """Images of each growing phase, so that each takes an equal number of steps."""
    sizes = batches if len(batches) > 1 else [*batches] * phases
    edges = [round(total_nimg * sum(sizes[:i]) / sum(sizes)) for i in range(phases + 1)]
    return [max(1, end - begin) for begin, end in pairwise(edges)]


def record_of(
    cfg: DictConfig, phase_nimg: list[int] | None, data: ImageData, initial: Initial | None = None
) -> dict:
    """The configuration that is recorded: resolved, with what data and schedule turned out to be.

    Files of every version hold these keys; a run goes on where they are the same.
    """
    found = {"image_channels": data.channels, "model.phase_nimg": phase_nimg}
    config = {**resolved(cfg, found), "images_found": len(data)}
    digest = data.digest()
    if digest:
        config[keys.FILES] = digest
    if initial is not None:
        found_init = {"init": initial.name, keys.INIT: initial.sha256}
        config |= found_init | {"init_images": initial.images()}
    return config


def resolved(cfg: DictConfig, values: Mapping[str, object]) -> dict[str, Any]:
    """Plain values of cfg once these keys have these values; cfg itself stays as it is."""
    return cast(dict[str, Any], OmegaConf.to_container(changed(cfg, values), resolve=True))


def changed(cfg: DictConfig, values: Mapping[str, object]) -> DictConfig:
    """A copy of cfg in which these keys have these values."""
    cfg = copy.deepcopy(cfg)
    for key, value in values.items():
        OmegaConf.update(cfg, key, value, merge=False)
    return cfg


def settings_of(config: dict) -> Settings:
    """What the loop goes by, from the recorded configuration."""
    model = config["model"]
    return Settings(
        run_dir=Path(config["run_dir"]),
        seed=config["seed"],
        total_nimg=config["total_nimg"],
        d_alone_nimg=config["init_d_nimg"] or 0,
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
