"""What an inversion works with, composed once: settings, generator, problem and method.

Nothing here writes into the configuration that it is given. Settings are merged in one order,
which `compose` shows: what is composed, what the generator's file brings along, what files say,
what a tuning chose, what was found. Below this module nobody sees a configuration of OmegaConf.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from omegaconf import DictConfig, OmegaConf, open_dict

from rtil import checkpoint, generators
from rtil.data import lineage
from rtil.data.limits import Limits
from rtil.data.load import image_order, load_data
from rtil.inversion import measurement_file as measurement
from rtil.inversion import tuned_settings
from rtil.inversion.asked import Asked
from rtil.inversion.estimate import Recovery
from rtil.inversion.held_out import HeldOut, HeldOutRun
from rtil.inversion.item import Item
from rtil.inversion.loop import Inversion, Method
from rtil.inversion.pretrained import weights_found
from rtil.inversion.problem import Measuring, Problem
from rtil.inversion.score import load_distances
from rtil.inversion.selection import check_choices
from rtil.inversion.survey import observed_share, survey
from rtil.inversion.units import check_noise
from rtil.inversion.user_files import UserFiles, UserRun
from rtil.inversion.yardstick import TrainingImages, fitted, load_yardstick
from rtil.inverters import build_inverter
from rtil.inverters.inverter import Inverter
from rtil.models.generator import Generator
from rtil.operators import check_task, knobs_of
from rtil.operators.task import NOISE, PER_IMAGE, takes
from rtil.process.device import Hardware, Runtime, start
from rtil.process.instantiate import allow, instantiate, named_by
from rtil.runs import identity, keys, schema
from rtil.runs.kinds import check
from rtil.runs.overrides import groups, typed
from rtil.runs.setup import checked, with_one_objective

log = logging.getLogger("rtil.inversion.setup")
APPENDIX = "appendix"  # the table that other settings are read from, none itself


@dataclass(frozen=True)
class Trained:
    """A generator, and what is known of it.

    path, digest: its file, and the SHA-256 of that. name: the file as it is recorded.
    config: of its training, with `nimg`, the images that it was trained with, None if unknown.
    """

    path: Path
    name: str
    digest: str
    G: Generator
    config: Mapping

    @property
    def found(self) -> dict[str, object]:
        """What the record of an inversion says of it."""
        return {
            "generator": self.name,
            "generator_sha256": self.digest,
            keys.NIMG: self.config[keys.NIMG],
        }


def compose(cfg: DictConfig, overrides: Sequence[str]) -> Inversion:
    """Builds an inversion from a configuration, and checks all that can be checked before it.

    Args:
        cfg: composed from invert.yaml; left as it is.
        overrides: "key=value" texts given by the user.

    Raises:
        ValueError, FileNotFoundError: bad settings, files, generator or data.
        RuntimeError: a device that is not there.
    """
    cfg = checked(cfg, "invert", overrides)
    check_settings(cfg, "invert")
    recovery = recovery_of(cfg)
    # The user's files come first: no mistake in them waits for a generator.
    asked = asked_of(cfg, overrides)
    items, share = survey(asked), observed_share(asked)
    rt = start(Hardware(**cfg.hardware))

    # Settings, each source over those before it.
    cfg, trained = load_generator(cfg, overrides)
    cfg = with_files(cfg, asked, share)
    cfg = with_tuned(cfg, overrides, trained.digest)
    config = {**resolved(cfg), **trained.found}

    inverter = build_inverter(config["inverter"], instantiate(config["rtil"]["family"]))
    inverter.check(trained.G)
    config |= weights_found(inverter, config)
    measuring = measuring_of(config)
    problem: Problem
    if items:
        problem = user_files(config, items, measuring, trained.G, rt)
    else:
        problem = held_out(config, measuring, trained, rt)
    A = problem.parts[0].A  # parts differ in what was drawn or masked alone
    inverter.check_operator(A)
    recovery.check(inverter, A)
    parts = [recovery.split(part, measuring.loss) for part in problem.parts]
    if config["loss"]["lpips"] and any(part.loss.distance is None for part in parts):
        log.warning(
            "The perceptual distance is left out of the loss: loss.lpips_min_ratio is not reached."
        )

    yardstick: Inverter | None = None
    if problem.left:  # nobody reads training images to find that all rows are there
        count = config["yardstick"]["num_train"]
        images = TrainingImages(trained.config, config["data"], trained.G.image_shape, count)
        inverter = fitted(inverter, images)
        if not items:
            use = config["yardstick"]["use"]
            yardstick = load_yardstick(inverter, A, config["noise_std"], images, use)
    unit_range = config["target_range"] == "unit"
    size, seed = config["inversion_batch"], config["seed"]
    method = Method(trained.G, unit_range, inverter, yardstick, recovery, seed, size)
    return Inversion(problem, parts, method, rt)


def check_settings(cfg: Mapping, command: str) -> None:
    """Raises ValueError for settings that no generator or data could fit."""
    check_task(cfg["task"], **knobs_of(cfg))
    check_drawn(cfg)
    check_noise(NOISE, cfg[NOISE])
    check_noise(f"discrepancy.{NOISE}", cfg["discrepancy"][NOISE])
    if cfg["split"] not in ("val", "test"):
        raise ValueError(
            f"{command}: split={cfg['split']} must be test or val: held-out images only."
        )
    inverter, protocol = cfg["inverter"]["name"], cfg["protocol"]
    check_choices(cfg["selection"], cfg["target_range"], inverter, protocol, command)


def check_drawn(cfg: Mapping) -> None:
    """Raises ValueError where each image is to have an operator of its own and none is drawn."""
    if not cfg["operator"]["per_image"]:
        return
    if not takes(cfg["task"], "seed"):
        raise ValueError(
            f"invert: {PER_IMAGE}=true draws an operator for each image, and that of "
            f"task={cfg['task']['name']} is not drawn. Leave it out."
        )
    if cfg["mask"] and not cfg["input"]:
        raise ValueError(
            f"invert: {PER_IMAGE}=true draws a mask for each image, and mask={cfg['mask']} "
            "is one for all. Leave one of them out."
        )


def recovery_of(cfg: DictConfig) -> Recovery:
    """What is made of the inversions. Raises ValueError as `Recovery` does."""
    return Recovery(
        cfg.selection,
        share=cfg.heldout.share,
        tau=cfg.discrepancy.tau,
        level=cfg.discrepancy.noise_std,
        restarts=cfg.restarts,
        average=cfg.average,
        back_projection=cfg.back_projection,
        noise_std=cfg.noise_std,
        seed=cfg.seed,
    )


def resolved(cfg: DictConfig) -> dict:
    """The configuration as a plain tree, as it is recorded."""
    config = OmegaConf.to_container(cfg, resolve=True)
    assert isinstance(config, dict)
    return {str(key): value for key, value in config.items() if key != APPENDIX}


def asked_of(cfg: DictConfig, overrides: Sequence[str]) -> Asked:
    """What the configuration says of files; a folder may be named 2024."""
    config = resolved(cfg)
    paths = {
        key: None if config[key] is None else str(config[key])
        for key in ("input", "mask", "output")
    }
    return Asked(
        paths["input"],
        paths["mask"],
        paths["output"],
        config["fit"],
        config["keep_observed"],
        config["task"],
        config["selection"],
        keys.flatten(config),
        frozenset(typed(overrides)),
        Limits.of(config["data"]),
    )


def load_generator(cfg: DictConfig, overrides: Sequence[str]) -> tuple[DictConfig, Trained]:
    """Loads the generator that cfg asks for.

    Returns:
        cfg with what it brings along, and the generator. With an explicit `generator` these are
        all groups that the user did not name.

    Raises:
        FileNotFoundError: not trained yet; the message holds the command that trains it.
        ValueError: the file holds another model or family than asked for, or was trained on
            images of cfg.split; names the keys.
    """
    allow(named_by(cfg))  # as the command says it, before any file does
    path, name = generators.locate(cfg.generator or trained_generator(resolved(cfg)))
    G, trained, nimg = checkpoint.load_trained(path)
    check(trained, schema.TRAINING, str(path), "Train or import it again, or name another.")
    trained = {**trained, keys.NIMG: nimg or None}
    cfg = with_trained(cfg, overrides, trained)
    asked = resolved(cfg)
    check_same(path, trained, asked)
    if not asked["input"]:
        lineage.check_held_out(trained, asked["data"], asked["split"], path)
    if 0 < nimg < trained["total_nimg"]:
        log.warning(
            "%s is of a training that was stopped at %d of %d images. Its command goes on "
            "with it; compare arms of one length.",
            path,
            nimg,
            trained["total_nimg"],
        )
    if G.num_blocks < G.max_blocks:
        log.warning("%s is still growing: it draws %d pixels a side.", path, G.image_shape[1])
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    return cfg, Trained(path, name, digest, G, trained)


def with_trained(cfg: DictConfig, overrides: Sequence[str], trained: Mapping) -> DictConfig:
    """cfg with what the generator that it names was trained with, as `load_generator` says."""
    cfg = cfg.copy()
    with open_dict(cfg):
        # A group that the user named stays as asked for: `check_same` compares it with the file.
        if cfg.generator:
            named = groups(overrides)
            for group in keys.TRAINING:
                if group not in named and group in trained:
                    cfg[group] = trained[group]
            # A file of version 0.1 does not say its arm, nor all of its scale.
            said = keys.flatten(trained)
            for key, value in keys.complete(said).items():
                group = key.partition(".")[0]
                if group in ("rtil", "scale") and group not in named and key not in said:
                    OmegaConf.update(cfg, key, value)
        cfg = with_one_objective(cfg)
        cfg.image_channels = trained["image_channels"]
        cfg.model.phase_nimg = trained["model"]["phase_nimg"]
    return cfg


def trained_generator(config: Mapping) -> Path:
    """The generator that was trained with these choices, on these very images where they are here.

    Raises as `rtil.runs.identity.find_generator` and `rtil.data.lineage.check_namesake` do.
    """
    data = config["data"]
    own = data.get("trained_on") in (None, data["name"])
    # Where the images are gone the generator is known by its choices alone.
    files = lineage.training_digest(data) if own else None
    path = identity.find_generator(config, files)
    lineage.check_namesake(identity.read_config(path.parent), data, path)
    return path


def check_same(path: Path, trained: Mapping, asked: Mapping) -> None:
    """Raises ValueError where a file holds another model or family than asked for."""
    parts = {"model": ("name", "generator"), "rtil": ("name", "family")}
    there, here = (
        {group: {key: config[group][key] for key in parts[group]} for group in parts}
        for config in (trained, asked)
    )
    differs = keys.differing_keys(there, here)
    if differs:
        raise ValueError(
            f"invert: {path} holds another generator than asked for:\n  "
            + "\n  ".join(differs)
            + "\nAsk for that one, or name the right file with generator=FILE."
        )


def with_files(cfg: DictConfig, asked: Asked, share: float | None) -> DictConfig:
    """cfg with the paths as texts and, for held-out images with a mask, its share as the knob."""
    cfg = cfg.copy()
    cfg.input, cfg.mask, cfg.output = asked.input, asked.mask, asked.output
    if share is not None:
        cfg[asked.knob] = share
    return cfg


def with_tuned(cfg: DictConfig, overrides: Sequence[str], digest: str) -> DictConfig:
    """cfg with what a tuning chose, where the protocol takes it from one."""
    if not tuned_settings.is_open(cfg):
        if cfg.tuned and "tuned" not in cfg.protocol:
            raise ValueError(
                f"invert: tuned={cfg.tuned} is a choice of protocol=fair; add that, or "
                "leave it out."
            )
        return cfg
    config = resolved(cfg)
    tuned = tuned_settings.find(config, digest, overrides)
    cfg = cfg.copy()
    with open_dict(cfg):
        for key, value in tuned.chosen.items():
            OmegaConf.update(cfg, key, value)
        cfg.protocol.tuned = dict(tuned.record)
    return cfg


def measuring_of(config: Mapping) -> Measuring:
    """How images are measured and judged."""
    per_image = config["operator"]["per_image"]
    return Measuring(config["task"], knobs_of(config), config["seed"], config["loss"], per_image)


def user_files(
    config: Mapping, items: Sequence[Item], measuring: Measuring, G: Generator, rt: Runtime
) -> UserFiles:
    """The user's own measurements, with the choices that are left to the task made.

    Raises:
        ValueError: as `UserFiles` does.
    """
    keep_observed = config["keep_observed"]
    if takes(config["task"], "mask") and keep_observed is None:
        keep_observed = config["noise_std"] == 0  # noisy pixels are no better than drawn ones
    fit = config["fit"] or "error"
    record = {**config, "fit": fit, "keep_observed": keep_observed}
    output = Path(config["output"]).expanduser() if config["output"] else None
    run = UserRun(Path(config["input"]).expanduser(), output, fit, bool(keep_observed), record)
    return UserFiles(items, measuring, run, G.image_shape, rt)


def held_out(config: Mapping, measuring: Measuring, trained: Trained, rt: Runtime) -> HeldOut:
    """The held-out images that config asks for, with their operator and run directory.

    Raises:
        ValueError, FileNotFoundError: an operator, mask or data that do not fit.
    """
    G, found = trained.G, {}
    mask = None
    if config["mask"]:
        path = Path(config["mask"]).expanduser()
        limits = Limits.of(config["data"])
        mask = measurement.read_mask(path, limits)
        if tuple(mask.shape) != G.image_shape[1:]:
            sizes = [f"{width}x{height}" for height, width in (mask.shape, G.image_shape[1:])]
            raise ValueError(
                f"invert: mask={path} has {sizes[0]} pixels and the generator draws "
                f"{sizes[1]}; both must have the same size."
            )
        found["mask_sha256"] = hashlib.sha256(limits.read(path)).hexdigest()
    part = measuring.part(G.image_shape, mask)
    distances = load_distances(config["metrics"], G.image_shape)
    data = load_data(
        config["data"], G.image_shape[1], config["split"], G.image_shape[0], config["num_images"]
    )
    files = data.digest()
    if files:
        found[keys.FILES] = files
    run_dir = config["run_dir"] or identity.invert_dir(
        "invert", {**config, **found}, trained.config
    )
    run = HeldOutRun(
        Path(run_dir),
        {**config, **found, "run_dir": str(run_dir)},
        image_order(len(data), config["image_seed"])[: config["num_images"]],
        config["selection"],
        distances,
        config["pictures"],
        config["save_measurements"],
        mask is not None,
        config["save_draws"],
    )
    return HeldOut(data, part, measuring, run, rt)
