"""Reconstructs images from measurements: `python -m rtil.invert task=cs ratio=0.05`.

Loads G, builds A, inverts in batches. Held-out images are measured here, scored, and get a row
each (`rtil.inversion.problem`); with `input` the measurements are the user's own
(`rtil.inversion.user_files`). What is on disk already is left out, so the same command goes on
where it was stopped.
"""

from __future__ import annotations

import hashlib
import logging
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import hydra
import torch
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf
from tqdm import tqdm

from rtil import checkpoint
from rtil.data import lineage
from rtil.data.base import to_float
from rtil.data.load import load_data
from rtil.inversion import measurement_file as measurement
from rtil.inversion import survey as inputs
from rtil.inversion import tuned_settings
from rtil.inversion.estimate import Recovery, Split
from rtil.inversion.problem import HeldOut, Problem
from rtil.inversion.selection import check_choices
from rtil.inversion.user_files import Own
from rtil.inverters.data_term import MeasurementLoss
from rtil.inverters.inverter import FittedInverter, Inverter, build_inverter
from rtil.inverters.lmmse import LMMSE
from rtil.metrics.perceptual import LPIPS, LPIPS_MIN_SIZES
from rtil.models.generator import Generator
from rtil.models.unit_range import UnitRange
from rtil.operators import ForwardOperator, build_operator, check_task, knobs_of
from rtil.process.command import CONFIGS, check_numbers, entry
from rtil.process.device import Runtime, start
from rtil.process.distributed import all_sum, stop
from rtil.process.instantiate import instantiate
from rtil.process.provenance import provenance
from rtil.process.rng import seeded
from rtil.runs import results

log = logging.getLogger("rtil.invert")
ADOPTED = ("model", "rtil", "scale", "data")  # groups that an explicit generator brings along


def invert(cfg: DictConfig, overrides: Sequence[str] | None = None) -> Path:
    """Inverts cfg.num_images images of cfg.split that have no row yet, or those of cfg.input.

    Args:
        cfg: composed from invert.yaml.
        overrides: "key=value" texts given by the user; None reads those of the Hydra job.

    Returns:
        The directory of the results.

    Raises:
        ValueError, FileNotFoundError: bad settings, files, generator or data, before any
            inversion.
        RuntimeError: a loss that is not finite; rows already written stay.
    """
    if overrides is None:
        overrides = HydraConfig.get().overrides.task if HydraConfig.initialized() else ()
    check_settings(cfg)
    recovery = Recovery(
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
    items = inputs.survey(cfg, overrides)
    rt = start(**cfg.hardware)
    path, digest, G, trained = load(cfg, overrides)
    if tuned_settings.is_fair(cfg):
        tuned_settings.apply(cfg, overrides, digest)
    config = OmegaConf.to_container(cfg, resolve=True)
    config |= {
        "generator": str(path),
        "generator_sha256": digest,
        results.NIMG: trained[results.NIMG],
    }
    inverter = build_inverter(config["inverter"], instantiate(config["rtil"]["family"]))
    inverter.check(G)
    if items:
        problem: Problem = Own(config, items, G.image_shape, rt)
    else:
        explicit = digest[:8] if cfg.generator else ""
        problem = held_out(config, G, rt, overrides, explicit)
    A = problem.parts[0].A
    inverter.check_operator(A)
    recovery.check(inverter, A)
    splits = [recovery.split(part.A, part.loss, config["loss"]) for part in problem.parts]
    if config["loss"]["lpips"] and any(part.loss.lpips is None for part in problem.parts):
        log.warning("LPIPS is left out of the loss: loss.lpips_min_ratio is not reached.")
    yardstick = None
    if problem.left:
        inverter, yardstick = fit_to_images(config, inverter, A, G, trained)
    problem.claim(provenance(rt))
    all_sum(torch.zeros(1, device=rt.device))  # every process waits for the directory
    try:
        G = rt.place(G)
        G = UnitRange(G) if config["target_range"] == "unit" else G
        loop(config, rt, G, inverter, yardstick, problem, recovery, splits)
        all_sum(torch.zeros(1, device=rt.device))
    finally:
        stop()
    if rt.rank == 0:
        problem.summarise()
    return problem.place


def held_out(
    config: dict, G: Generator, rt: Runtime, overrides: Sequence[str], explicit: str
) -> HeldOut:
    """The held-out images that config asks for, with their operator and run directory.

    Args:
        explicit: digest of a generator that is no other run's, which names the directory; or "".
    """
    mask = None
    if config["mask"]:
        path = Path(config["mask"]).expanduser()
        mask = measurement.read_mask(path)
        if tuple(mask.shape) != G.image_shape[1:]:
            sizes = [f"{shape[1]}x{shape[0]}" for shape in (mask.shape, G.image_shape[1:])]
            raise ValueError(
                f"invert: mask={path} has {sizes[0]} pixels and the generator draws "
                f"{sizes[1]}; both must have the same size."
            )
        config["mask_sha256"] = hashlib.sha256(path.read_bytes()).hexdigest()
    A = build_operator(config["task"], G.image_shape, config["seed"], mask, **knobs_of(config))
    loss = MeasurementLoss(A, **config["loss"])
    lpips = load_lpips(config["metrics"], G.image_shape)
    data = load_data(
        config["data"], G.image_shape[1], config["split"], G.image_shape[0], config["num_images"]
    )
    run_dir = Path(
        config["run_dir"] or results.inversion_place("invert", config, overrides, explicit)
    )
    config["run_dir"] = str(run_dir)
    config |= {results.FILES: files} if (files := data.digest()) else {}
    return HeldOut(config, data, A, loss, lpips, run_dir, rt)


def loop(
    config: dict,
    rt: Runtime,
    G: Generator,
    inverter: Inverter,
    yardstick: LMMSE | None,
    problem: Problem,
    recovery: Recovery,
    splits: Sequence[Split | None],
) -> None:
    """Measures and inverts what is left for this process, in batches of one operator each.

    Args:
        splits: of the problem's parts.
    """
    seed, size = config["seed"], config["inversion_batch"]
    bar = tqdm(
        total=sum(len(part.items) for part in problem.parts),
        unit="img",
        disable=rt.rank > 0,
        mininterval=0.5 if sys.stderr.isatty() else 30,
    )

    def batch(
        A: ForwardOperator, loss: MeasurementLoss, split: Split | None, items: list[int]
    ) -> None:
        measured = problem.measure(A, items)
        # The first start has no number: it is the one of a run without others.
        starts = [
            [seeded("cpu", seed, problem.name(i), "inversion", *([r] if r else [])) for i in items]
            for r in range(recovery.restarts)
        ]
        begin = time.perf_counter()
        found = recovery(inverter, G, A, measured.y, loss, split, starts, measured.oracle)
        seconds = (time.perf_counter() - begin) / len(items)
        linear = yardstick.invert(None, A, measured.y, loss) if yardstick else None
        problem.keep(A, items, measured, found, linear, seconds)

    for (A, loss, todo), split in zip(problem.parts, splits):
        first, A, loss = 0, A.to(rt.device), loss.to(rt.device)
        if split is not None:
            split = Split(split.withheld.to(rt.device), split.loss.to(rt.device))
        while first < len(todo):
            items, short = todo[first : first + size], False
            try:
                batch(A, loss, split, items)
            except RuntimeError as error:
                if not out_of_memory(error) or len(items) == 1:
                    raise
                short = True
            if short:  # past the except, where the error would hold the memory
                size = len(items) // 2
                log.warning("Out of memory with %d images at a time: trying %d.", len(items), size)
                if rt.device.type == "cuda":
                    torch.cuda.empty_cache()
                continue
            bar.update(len(items))
            first += len(items)
    bar.close()


def out_of_memory(error: RuntimeError) -> bool:
    """Whether a device or the host had no memory left for a tensor."""
    return isinstance(error, torch.OutOfMemoryError) or "DefaultCPUAllocator" in str(error)


def check_settings(cfg: DictConfig) -> None:
    """Raises ValueError for settings that no generator or data could fit."""
    lowest = {"num_images": 1, "inversion_batch": 1, "seed": 0, "factor": 1, "noise_std": 0.0}
    check_numbers("invert", cfg, {**lowest, "ratio": 0.0, "blur_std": 0.0})
    check_task(cfg.task, **knobs_of(cfg))
    if cfg.split not in ("val", "test"):
        raise ValueError(f"invert: split={cfg.split} must be test or val: held-out images only.")
    check_choices(cfg.selection, cfg.target_range, cfg.inverter.name, cfg.protocol)
    if "generator" not in cfg.model:
        raise ValueError(
            f"invert: model={cfg.model.name} has no trained generator; see python -m rtil.theory."
        )


def load(cfg: DictConfig, overrides: Sequence[str]) -> tuple[Path, str, Generator, dict]:
    """Loads the generator that cfg asks for, and completes cfg with what it brings along.

    With an explicit `generator`, groups that the user did not name are taken from the file.

    Returns:
        The file, its SHA-256, the generator, and the configuration of its training with `nimg`,
        the images that it was trained with, or None if unknown.

    Raises:
        FileNotFoundError: not trained yet; the message holds the command that trains it.
        ValueError: the file holds another model or family than asked for, or was trained on
            images of cfg.split; names the keys.
    """
    path = Path(cfg.generator or "")
    if not cfg.generator:
        config = OmegaConf.to_container(cfg, resolve=True)
        path = results.trained_generator(config, overrides)
        if not path.exists():
            train = results.training_command(config, overrides)
            raise FileNotFoundError(
                f"invert: no generator at {path}. Train it first:\n    {train}\n"
                "or name another with generator=FILE."
            )
    G, trained, nimg = checkpoint.load_trained(path)
    trained = {**trained, results.NIMG: nimg or None}
    named = {text.lstrip("+~").split("=")[0].split(".")[0] for text in overrides}
    if cfg.generator:
        adopt(cfg, trained, named, overrides)
    cfg.image_channels = trained["image_channels"]
    cfg.model.phase_nimg = trained["model"]["phase_nimg"]
    asked = OmegaConf.to_container(cfg, resolve=True)
    parts = {"model": ("name", "generator"), "rtil": ("name", "family")}
    there, here = (
        {group: {key: tree[group][key] for key in keys} for group, keys in parts.items()}
        for tree in (trained, asked)
    )
    differs = results.differing_keys(there, here, ())
    if differs:
        raise ValueError(
            f"invert: {path} holds another generator than asked for:\n  "
            + "\n  ".join(differs)
            + "\nAsk for that one, or name the right file with generator=FILE."
        )
    if not cfg.input:
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
    return path, hashlib.sha256(path.read_bytes()).hexdigest(), G, trained


def adopt(cfg: DictConfig, trained: dict, named: set[str], overrides: Sequence[str]) -> None:
    """Takes the groups that the user did not name from the generator's own configuration.

    With another family than composed come its tuned settings, where the user gave none.
    """
    composed, given = cfg.rtil.name, {text.lstrip("+~").split("=")[0] for text in overrides}
    OmegaConf.set_struct(cfg, False)
    for group in ADOPTED:
        if group not in named:
            cfg[group] = trained[group]
    arm = f"{cfg.inverter.name}_{cfg.rtil.name}"
    names = {
        "tuned": f"{arm}_{cfg.task.name}.yaml",
        "protocol/arm": f"{cfg.protocol.name}_{arm}.yaml",
        "protocol/task": f"{cfg.protocol.name}_{cfg.task.name}.yaml",
    }
    for group, name in names.items() if cfg.rtil.name != composed else ():
        path = Path(CONFIGS) / group / name
        if group in named or not path.exists():
            continue
        log.info("The generator is of rtil=%s: using %s/%s.", cfg.rtil.name, group, name)
        overlay = OmegaConf.to_container(OmegaConf.load(path))
        for key, value in results.flatten(overlay).items():
            if key not in given:
                OmegaConf.update(cfg, key, value)
    OmegaConf.set_struct(cfg, True)


def fit_to_images(
    config: dict, inverter: Inverter, A: ForwardOperator, G: Generator, trained: dict
) -> tuple[Inverter, LMMSE | None]:
    """The inverter, fitted where it has to be, and the linear yardstick beside it.

    Both read the generator's own training images. The yardstick is None where it is switched off
    or there are no true images to compare with (`input`), and with a warning where A is not linear
    or images are missing.

    Args:
        trained: configuration of the generator's training.
    """
    settings, yardstick = config["yardstick"], LMMSE(config["noise_std"])
    needed = isinstance(inverter, FittedInverter)
    if not needed and (config["input"] or not settings["use"]):
        return inverter, None
    try:
        yardstick.check_operator(A)
        there = lineage.training_data(trained, config["data"])
        data = load_data(there, G.image_shape[1], "train", G.image_shape[0], min_images=2)
    except (FileNotFoundError, ValueError) as error:
        if needed:
            raise
        log.warning("No LMMSE yardstick: %s", error)
        return inverter, None
    count = min(settings["num_train"], len(data))
    chunks = [to_float(data.batch(range(i, min(i + 256, count)))) for i in range(0, count, 256)]
    images = torch.cat(chunks)
    if isinstance(inverter, FittedInverter):
        inverter = inverter.fit(images)
    if isinstance(inverter, LMMSE):  # it is its own yardstick
        return inverter, inverter
    return inverter, yardstick.fit(images)


def load_lpips(settings: dict, shape: tuple[int, int, int]) -> LPIPS | None:
    """The LPIPS network where asked for, or with "auto" where its backbone is on disk."""
    wanted, net = settings["lpips"], settings["lpips_net"]
    if wanted is False or (wanted == "auto" and min(shape[1:]) < LPIPS_MIN_SIZES[net]):
        return None
    try:
        return LPIPS(net)
    except FileNotFoundError:
        if wanted == "auto":
            return None
        raise


@hydra.main(version_base="1.3", config_path=CONFIGS, config_name="invert")
def main(cfg: DictConfig) -> None:
    """Entry point; rows of finished batches stay when it is stopped."""
    entry(lambda: (invert(cfg), None)[1])


if __name__ == "__main__":
    main()
