#!/usr/bin/env python
"""Train the denoiser of inverter=dps, diffpir and pnp on the training images of generators.

For example: python scripts/train_denoiser.py --minutes 8 data=glyphs scale=demo

The words are those of rtil.train; of them the images (data, resolution, image_channels), seed,
root and hardware count. The network is a DRUNet of deepinv, the loss that of Karras et al. (2022):

    E |D(u + s e, s) - u|^2 (t^2 + d^2) / (t d)^2,    t = 2 s,  log t ~ N(-1, 1.5^2),

with d the root mean square of images in [-1, 1]. What is kept is the running mean of its weights.
The same command goes on where it was stopped, and with more minutes where it ended.
"""

from __future__ import annotations

import argparse
import json
import logging
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from omegaconf import OmegaConf
from torch import Tensor

from rtil.checkpoint import load_weights, save
from rtil.data.base import ImageData, to_float
from rtil.data.load import load_data
from rtil.data.stream import Prefetch, epoch_indices
from rtil.inverters.denoiser import FORMAT, Denoiser, Sizes, contents
from rtil.process.command import check_writable, entry
from rtil.process.device import Hardware, Runtime, start
from rtil.process.lock import held
from rtil.process.progress import Progress, finished
from rtil.process.provenance import provenance
from rtil.process.rng import seeded
from rtil.process.signals import StopRequest
from rtil.runs import keys
from rtil.runs.setup import check, checked, configuration

log = logging.getLogger("train_denoiser")
BATCH = 8
LR, WARM_UP = 1e-3, 100  # of Adam, and the steps until it is reached
EMA = 0.999  # of each step, once the first are forgotten
LEVELS = (-1.0, 1.5)  # mean and standard deviation of log t
SAVE_EVERY = 60.0  # seconds of training
SAMPLE = 1024  # images that the root mean square is taken of


@dataclass
class Training:
    """A training as it is now.

    config: resolved settings, with the digest of the files. seconds: that steps took in all.
    """

    data: ImageData
    config: Mapping
    rt: Runtime
    sizes: Sizes
    net: Denoiser
    ema: Denoiser
    optim: torch.optim.Optimizer
    nimg: int = 0
    seconds: float = 0.0


def begin(words: Sequence[str]) -> tuple[Training, str]:
    """A training at its start, and the folder of the runs.

    Raises:
        ValueError, FileNotFoundError, RuntimeError: bad settings, data or hardware.
    """
    check("train", words)
    cfg = checked(configuration("train", words), "train", words)
    rt = start(Hardware(**cfg.hardware))
    if rt.world > 1:
        raise ValueError("train_denoiser: it runs in one process; start it without torchrun.")
    config = {
        key: OmegaConf.to_container(cfg, resolve=True)[key]
        for key in ("data", "seed", "resolution", "image_channels")
    }
    channels = config["image_channels"]
    data = load_data(config["data"], config["resolution"], "train", channels, min_images=BATCH)
    config["image_channels"] = data.channels
    if data.digest():
        config[keys.FILES] = data.digest()
    images = to_float(data.batch(range(min(SAMPLE, len(data)))))
    std = round(float(images.square().mean().sqrt()), 3)
    sizes = Sizes(data.channels, config["resolution"], image_std=std)
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(config["seed"])
        net = Denoiser(sizes)
    ema = Denoiser(sizes)
    ema.load_state_dict(net.state_dict())
    net, ema = net.to(rt.device), ema.to(rt.device).eval().requires_grad_(False)
    return Training(
        data, config, rt, sizes, net, ema, torch.optim.Adam(net.parameters())
    ), cfg.root


def restore(training: Training, path: Path) -> None:
    """Goes on from a file, if there is one.

    Raises:
        ValueError: it holds another training, or is damaged.
    """
    if not path.exists():
        return
    content = contents(path)

    # Where files lie may change; which they are is in their digest.
    def counts(key: str) -> bool:
        return keys.matters("train")(key)

    differs = keys.differing_keys(content["config"], training.config, counts)
    if differs:
        raise ValueError(
            f"{path} holds the denoiser of other images or another seed:\n  "
            + "\n  ".join(differs)
            + "\nChoose another --out, or delete it."
        )
    load_weights(training.net, content["net"], path)
    load_weights(training.ema, content["ema"], path)
    training.optim.load_state_dict(content["optim"])
    training.nimg, training.seconds = content["nimg"], content["seconds"]


def write(training: Training, path: Path) -> None:
    """Writes the file, which holds all that the training goes on from."""
    # As JSON has it: a file of weights holds no classes, such as that of torch's version.
    facts = json.loads(json.dumps(provenance(training.rt)))
    content = {
        "format": FORMAT,
        "network": {**training.sizes._asdict(), "widths": [*training.sizes.widths]},
        "config": dict(training.config),
        "nimg": training.nimg,
        "seconds": training.seconds,
        "provenance": facts,
        "ema": training.ema.state_dict(),
        "net": training.net.state_dict(),
        "optim": training.optim.state_dict(),
    }
    save(content, path)


def step(training: Training, images: Tensor) -> Tensor:
    """One step of Adam on uint8 images (B, C, S, S); its loss."""
    net, d = training.net, training.sizes.image_std
    # Numbers of a step depend on its place alone, and are the same on every device.
    rng = seeded("cpu", training.config["seed"], "denoiser", training.nimg)
    u = (to_float(images) + 1) / 2
    if training.config["data"]["mirror"]:
        flip = torch.rand(len(u), 1, 1, 1, generator=rng) < 0.5
        u = torch.where(flip, u.flip(3), u)
    mean, spread = LEVELS
    t = (mean + spread * torch.randn(len(u), generator=rng)).exp()
    noise = torch.randn(u.shape, generator=rng)
    u, t, noise = (x.to(training.rt.device) for x in (u, t, noise))

    found = net(u + t.view(-1, 1, 1, 1) / 2 * noise, t / 2)
    error = (2 * (found - u)).square().mean((1, 2, 3))
    loss = (error * (t**2 + d**2) / (t * d) ** 2).mean()
    count = training.nimg // BATCH
    for group in training.optim.param_groups:
        group["lr"] = LR * min(1.0, (count + 1) / WARM_UP)
    training.optim.zero_grad()
    loss.backward()
    training.optim.step()

    decay = min(EMA, (1 + count) / (10 + count))
    with torch.no_grad():
        for kept, new in zip(training.ema.parameters(), net.parameters(), strict=True):
            kept.lerp_(new, 1 - decay)
    training.nimg += len(images)
    return loss.detach()


def train(training: Training, path: Path, budget: float) -> int | None:
    """Trains until its steps took `budget` seconds in all.

    Returns:
        The number of the signal that stopped it, or None.

    Raises:
        RuntimeError: a loss that is not finite; what was written stays.
    """
    seed, data = training.config["seed"], training.data
    reals = Prefetch(lambda nimg: data.batch(epoch_indices(len(data), seed, nimg, BATCH)))
    progress = Progress(round(budget), "s", first=round(training.seconds))
    saved = training.seconds
    with StopRequest() as stop:
        try:
            while training.seconds < budget and not stop.seen():
                begun = time.perf_counter()
                images = reals.get(training.nimg)
                reals.schedule(training.nimg + BATCH)
                loss = float(step(training, images))
                if not loss < float("inf"):
                    raise RuntimeError(f"train_denoiser: the loss is {loss} at {training.nimg}.")
                training.seconds += time.perf_counter() - begun
                progress.to(round(training.seconds), f"{training.nimg} images, loss {loss:.3f}")
                if training.seconds - saved > SAVE_EVERY:
                    write(training, path)
                    saved = training.seconds
        finally:
            reals.close()
            progress.close()
        write(training, path)
    return stop.signum


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("words", nargs="*", help="as rtil.train takes them: data=... scale=...")
    parser.add_argument("--minutes", type=float, default=8.0, help="of training, in all")
    parser.add_argument("--out", help="file; default: <root>/denoisers/<data>-<resolution>.pt")
    return parser.parse_args()


def run(a: argparse.Namespace) -> int | None:
    """Trains, and says what may be typed next."""
    if not 0 < a.minutes < 1e6:
        raise ValueError(f"train_denoiser: --minutes {a.minutes} must be above 0.")
    training, root = begin(a.words)
    name = f"{training.config['data']['name']}-{training.config['resolution']}.pt"
    path = Path(a.out).expanduser() if a.out else Path(root, "denoisers", name)
    check_writable(path.parent, f"train_denoiser: --out={path}")
    path.parent.mkdir(parents=True, exist_ok=True)
    with held(path, "train a denoiser"):
        restore(training, path)
        stopped = train(training, path, 60 * a.minutes)
    print(f"{training.nimg} images in {training.seconds:.0f} s")
    finished(path, f"python -m rtil.invert inverter=diffpir inverter.denoiser={path}")
    return stopped


def main() -> None:
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)
    a = parse_arguments()
    entry(lambda: run(a))


if __name__ == "__main__":
    main()
