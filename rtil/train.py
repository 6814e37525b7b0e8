"""Trains a generator and its latent family: `python -m rtil.train model=stylegan2 rtil=ilo`.

The GAN loop, top to bottom; what one step does is in rtil.training.steps. It counts in images
(nimg), draws every random number of a step from (seed, rank, nimg), and continues from its last
checkpoint when the same command runs again.
"""

from __future__ import annotations

import copy
import json
import logging
import os
import time
from contextlib import closing
from itertools import pairwise
from pathlib import Path

import hydra
import torch
import torch.nn.functional as F
from omegaconf import DictConfig, OmegaConf
from torch import Tensor, nn

from rtil import checkpoint
from rtil.data.base import ImageData, to_float
from rtil.data.load import load_data
from rtil.data.stream import Prefetch, epoch_indices
from rtil.latents.family import Family
from rtil.models.generator import Generator
from rtil.objectives.objective import GeneratorPenalty, RealPenalty
from rtil.process import replay
from rtil.process.command import CONFIGS, check_numbers, entry
from rtil.process.device import Hardware, Runtime, start
from rtil.process.distributed import stop
from rtil.process.instantiate import instantiate
from rtil.process.provenance import provenance
from rtil.process.replay import Recorder
from rtil.process.rng import seed_of, seeded
from rtil.process.signals import StopRequest
from rtil.runs import identity, keys, record
from rtil.training.monitor import Board, Terms, grid, peak_memory_mb
from rtil.training.steps import State, d_step, follow, g_step

log = logging.getLogger("rtil.train")


def train(cfg: DictConfig) -> int | None:
    """Trains to cfg.total_nimg images, or to a stop signal.

    Args:
        cfg: composed from train.yaml.

    Returns:
        The signal that stopped it, or None at the end of training.

    Raises:
        ValueError, FileNotFoundError, RuntimeError: bad settings, data or directory, before any
            training; a loss that is not finite, after which the last checkpoint stays.
    """
    validate(cfg)
    rt = start(Hardware(**cfg.hardware))
    data = load_data(
        OmegaConf.to_container(cfg.data, resolve=True),
        round(cfg.resolution * cfg.crop_scale),
        "train",
        cfg.image_channels,
        min_images=max(_as_list(cfg.batch)),
    )
    cfg.image_channels = data.channels
    config = {**OmegaConf.to_container(cfg, resolve=True), "images_found": len(data)}
    config |= {keys.FILES: digest} if (digest := data.digest()) else {}
    run_dir = Path(cfg.run_dir or identity.train_dir(config))
    config["run_dir"] = str(run_dir)

    torch.manual_seed(cfg.seed)
    family = instantiate(config["rtil"]["family"])
    state = build_state(config, family, rt)
    if rt.rank == 0:
        record.claim(run_dir, config, "train")
        facts = provenance(rt)
        warn_of_change(run_dir, facts["precision"])
        record.write_provenance(run_dir, facts, config)
    nimg, step = restore(run_dir, state)
    if nimg >= cfg.total_nimg:
        log.info("%s is trained already: %d of %d images.", run_dir, nimg, cfg.total_nimg)
        if rt.rank == 0 and not (run_dir / "generator.pt").exists():
            save(run_dir, config, state, nimg, step)
        stop()
        return None
    if rt.rank == 0:
        log.info("Training %s from image %d to %d.", run_dir, nimg, cfg.total_nimg)
    try:
        return loop(config, rt, data, family, state, run_dir, nimg, step)
    finally:
        stop()


def loop(
    config: dict,
    rt: Runtime,
    data: ImageData,
    family: Family,
    state: State,
    run_dir: Path,
    nimg: int,
    step: int,
) -> int | None:
    """The training loop: discriminator, generator, average, log, checkpoint, until the end."""
    first, begin, seed, total = nimg, time.perf_counter(), config["seed"], config["total_nimg"]
    since_nimg, since = nimg, begin
    terms, decay = Terms(), config["model"]["ema_decay"]
    # One generator, seeded anew each step: a recorded step reads its state when it is replayed.
    rng = seeded(rt.device, seed, "train")
    run = Recorder(rng, rt.world == 1 and replay.wanted(rt.device))
    board = Board(run_dir, nimg, total) if rt.rank == 0 else None

    def fetch(at: int) -> Tensor:
        indices = epoch_indices(len(data), seed, at, batch_at(config, at))
        return data.batch(indices[rt.rank :: rt.world])

    with StopRequest() as request, closing(Prefetch(fetch)) as reals:
        while nimg < total:
            for network in (state.G, state.D, state.G_ema):
                network.progress(nimg)
            batch = batch_at(config, nimg)
            rng.manual_seed(seed_of(seed, "train", rt.rank, nimg))
            real = reals.get(nimg)
            reals.schedule(nimg + batch)
            mirror = config["data"]["mirror"]
            real = prepare(real.to(rt.device), config["resolution"], state.G, mirror, rng)
            real = run.hold(real)

            turn = step * rt.world + rt.rank  # rotates the members of a mixture
            d_step(config, family, state, real, rng, step, turn, terms, run)
            g_step(config, family, state, len(real), rng, step, turn, rt.world, terms, run)
            follow(state.G_ema, state.G, decay)
            nimg, step = nimg + batch, step + 1

            signum, last = request.seen(), nimg >= total
            due = crossed(nimg, batch, config["checkpoint_every"]) or last or signum
            if due or step % config["log_every"] == 0:
                row = terms.report()
                now = time.perf_counter()
                row |= {
                    "images_per_second": (nimg - since_nimg) / (now - since),
                    "peak_memory_mb": peak_memory_mb(rt.device),
                    "seconds": now - begin,
                }
                if board:
                    board.write(nimg, step, row)
                since_nimg, since = nimg, now
            if board:
                board.advance(nimg)
            if board and (crossed(nimg, batch, config["samples_every"]) or last):
                grid(family, state.G_ema, seed, nimg, run_dir / f"samples-{nimg:010d}.png")
            if due and rt.rank == 0:
                save(run_dir, config, state, nimg, step)
            if signum:
                break
    if board:
        board.close()
        rate = (nimg - first) / (time.perf_counter() - begin)
        done = "stopped; the same command goes on" if signum and not last else "done"
        log.info("%s: %d images at %.1f images/s, %s.", run_dir, nimg, rate, done)
    return signum if nimg < total else None


def validate(cfg: DictConfig) -> None:
    """Checks the settings without data or memory, and fills in the growing schedule.

    Raises:
        ValueError: settings that cannot be trained, before anything is read or written.
    """
    if "generator" not in cfg.model:
        raise ValueError(
            f"train: model={cfg.model.name} has no GAN training; the linear model of section 5 "
            "is solved by python -m rtil.theory. Use model=stylegan2 or model=pggan."
        )
    counts = (
        "total_nimg",
        "batch",
        "log_every",
        "checkpoint_every",
        "samples_every",
        "keep_checkpoints",
        "resolution",
    )
    check_numbers("train", cfg, {"seed": 0, "crop_scale": 1.0, **dict.fromkeys(counts, 1)})
    probe = copy.deepcopy(cfg)
    probe.image_channels, probe.model.phase_nimg = cfg.image_channels or 1, None
    if probe.image_channels not in (1, 3):
        raise ValueError(f"train: image_channels={cfg.image_channels} must be 1, 3 or null.")
    config = OmegaConf.to_container(probe, resolve=True)
    with torch.device("meta"):
        G = instantiate(config["model"]["generator"])
        instantiate(config["model"]["discriminator"])
    for space in instantiate(config["rtil"]["family"]).spaces:
        space.check(G)
    batches, world = _as_list(cfg.batch), int(os.environ.get("WORLD_SIZE", 1))
    if any(b % world for b in batches):
        raise ValueError(f"train: batch={cfg.batch} must be divisible by the {world} processes.")
    if len(batches) not in (1, G.max_blocks):
        raise ValueError(
            f"train: batch={batches} must be one number, or one for each of {G.max_blocks} "
            "growing phases."
        )
    if cfg.model.phase_nimg == "grow":
        full = batches if len(batches) > 1 else batches * G.max_blocks
        edges = [round(cfg.total_nimg * sum(full[:i]) / sum(full)) for i in range(len(full) + 1)]
        cfg.model.phase_nimg = [max(1, b - a) for a, b in pairwise(edges)]


def build_state(config: dict, family: Family, rt: Runtime) -> State:
    """Networks, objective and optimisers at the start of training."""
    model = config["model"]
    G = rt.place(instantiate(model["generator"]))
    D = rt.place(instantiate(model["discriminator"]))
    objective = instantiate(
        model["objective"], members=[len(space.names) for space in family.spaces]
    ).to(rt.device)

    def adam(
        network: nn.Module, lazy: RealPenalty | GeneratorPenalty | None
    ) -> torch.optim.Optimizer:
        # A lazy penalty adds a step every `every` steps (Karras et al. 2020, App. B).
        share = lazy.every / (lazy.every + 1) if lazy is not None else 1.0
        betas = tuple(beta**share for beta in model["betas"])
        return torch.optim.Adam(
            network.parameters(),
            model["lr"] * share,
            betas,
            fused=True,
            capturable=rt.device.type == "cuda",
        )

    G_ema = copy.deepcopy(G).eval().requires_grad_(False)
    return State(G, D, G_ema, objective, adam(G, objective.g_lazy), adam(D, objective.d_lazy))


def prepare(
    images: Tensor, resolution: int, G: Generator, mirror: bool, rng: torch.Generator
) -> Tensor:
    """uint8 images (B, C, S, S) to [-1, 1]: random crop, flip, size of the growing stage."""
    x = to_float(images)
    slack = x.shape[2] - resolution
    if slack:
        corners = torch.randint(slack + 1, (2, len(x)), generator=rng, device=rng.device)
        x = torch.stack(
            [
                image[:, top : top + resolution, left : left + resolution]
                for image, top, left in zip(x, *corners.tolist())
            ]
        )
    if mirror:
        flip = torch.rand((len(x), 1, 1, 1), generator=rng, device=rng.device) < 0.5
        x = torch.where(flip.to(x.device), x.flip(3), x)
    factor = x.shape[2] // G.image_shape[1]
    return F.avg_pool2d(x, factor) if factor > 1 else x


def batch_at(config: dict, nimg: int) -> int:
    """Images of the step that starts at nimg, over all processes."""
    batches = _as_list(config["batch"])
    if len(batches) == 1:
        return batches[0]
    edges = torch.tensor(config["model"]["phase_nimg"]).cumsum(0)
    return batches[min(int((edges <= nimg).sum()), len(batches) - 1)]


def save(run_dir: Path, config: dict, state: State, nimg: int, step: int) -> None:
    """Writes checkpoint and exported generator, then drops checkpoints beyond keep_checkpoints.

    Raises:
        RuntimeError: a weight is not finite, or the disk is full; older checkpoints stay.
    """
    for name, p in (*state.G.named_parameters(), *state.D.named_parameters()):
        if not bool(p.isfinite().all()):
            raise RuntimeError(
                f"train: weight {name} is not finite after step {step}; the last checkpoint is "
                "from before it. Lower model.lr."
            )
    parts = {name: part.state_dict() for name, part in state._asdict().items()}
    counters = {"config": config, "nimg": nimg, "step": step}
    exported = {"format": checkpoint.EXPORT, "G_ema": parts["G_ema"], **counters}
    path = run_dir / f"checkpoint-{nimg:010d}.pt"
    checkpoint.save({"format": checkpoint.CHECKPOINT, **counters, **parts}, path)
    checkpoint.save(exported, run_dir / "generator.pt")
    for old in sorted(run_dir.glob("checkpoint-*.pt"))[: -config["keep_checkpoints"]]:
        old.unlink()


def restore(run_dir: Path, state: State) -> tuple[int, int]:
    """Loads the newest checkpoint of run_dir into state; returns its (nimg, step), or (0, 0).

    Raises:
        ValueError: the newest checkpoint cannot be read or does not fit.
    """
    path = checkpoint.latest(run_dir)
    if path is None:
        return 0, 0
    content = checkpoint.load(path, (checkpoint.CHECKPOINT,))
    for name, part in state._asdict().items():
        if isinstance(part, nn.Module):
            checkpoint.load_weights(part, content[name], path)
        else:
            part.load_state_dict(content[name])
            on_gpu = next(state.G.parameters()).is_cuda
            for group in part.param_groups:  # it may come from another device
                group["capturable"] = on_gpu
    return content["nimg"], content["step"]


def warn_of_change(run_dir: Path, precision: str) -> None:
    """Says when training goes on in another precision than it has had so far."""
    path = run_dir / "provenance.json"
    before = json.loads(path.read_text()).get("precision", "fp32") if path.exists() else precision
    if before != precision and checkpoint.latest(run_dir):
        log.warning("%s: in %s so far, goes on in %s.", run_dir, before, precision)


def crossed(nimg: int, batch: int, every: int) -> bool:
    """Whether a multiple of `every` lies in (nimg - batch, nimg]."""
    return nimg // every > (nimg - batch) // every


def _as_list(value: object) -> list[int]:
    return [int(v) for v in value] if hasattr(value, "__iter__") else [int(value)]


@hydra.main(version_base="1.3", config_path=CONFIGS, config_name="train")
def main(cfg: DictConfig) -> None:
    """Entry point; exits with 128 + the signal's number when stopped by one."""
    entry(lambda: train(cfg))


if __name__ == "__main__":
    main()
