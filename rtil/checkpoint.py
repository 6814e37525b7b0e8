"""Files that hold weights: atomic writing, safe loading, and generators from either kind.

A training checkpoint (checkpoint-*.pt) holds every part of a training and resumes it; an exported
generator (generator.pt) holds G_ema with its configuration. Both are plain dicts, loaded with
weights_only=True: a file cannot run code, and only classes of rtil are built from its
configuration. What the parts are is said in `rtil.training.loop`; files of other projects are read
in `rtil.importers`.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import torch
from torch import nn
from torch.optim import Optimizer

from rtil.models.generator import Generator
from rtil.process.files import replacing
from rtil.process.instantiate import instantiate

CHECKPOINT, EXPORT = "rtil-checkpoint-1", "rtil-generator-1"
Parts = Mapping[str, nn.Module | Optimizer]


class Progress(NamedTuple):
    """How far a training has come: in images, and in steps."""

    nimg: int
    step: int


def save(content: dict, path: Path) -> None:
    """Writes content to path; on any failure the file that was there before survives.

    Raises:
        RuntimeError: the disk is full or not writable.
    """
    try:
        with replacing(path) as temporary, open(temporary, "wb") as file:
            torch.save(content, file)
            file.flush()
            os.fsync(file.fileno())
    except (OSError, RuntimeError) as error:
        raise RuntimeError(
            f"could not write {path} ({error}); what was saved before is untouched. "
            "Free some space and run the same command again."
        ) from error


def read(path: str | Path) -> object:
    """Reads what torch.save wrote, onto the CPU, without running code from the file.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: unreadable, truncated, or naming code; the message holds what it names.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"no checkpoint at {path}.")
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # the unpickler raises whatever the bytes lead it to
        # torch's own text is left out: it advises to load the file without protection.
        named = re.search(r"GLOBAL (\S+)", str(error))
        why = "it is truncated, no checkpoint, or would run code. Copy it again or choose another."
        if named:
            why = f"it asks for {named[1]}, which would run code; nothing of it was loaded."
        raise ValueError(
            f"{path} cannot be read as a checkpoint ({type(error).__name__}): {why} "
            "Files of other projects go through scripts/import_checkpoint.py first."
        ) from error


def load(path: str | Path, formats: tuple[str, ...] = (CHECKPOINT, EXPORT)) -> dict:
    """Reads a file that `save` wrote, onto the CPU.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: unreadable, truncated or of an unknown format.
    """
    content = read(path)
    found = content.get("format") if isinstance(content, dict) else type(content).__name__
    if not isinstance(content, dict) or found not in formats:
        raise ValueError(
            f"{path} has format {found!r}; expected {' or '.join(formats)}. "
            "Files of other projects go through scripts/import_checkpoint.py first."
        )
    return content


def load_weights(module: nn.Module, state: Mapping, path: str | Path) -> None:
    """Loads a state dict, naming what does not fit.

    Raises:
        ValueError: missing, unexpected or misshapen entries.
    """
    try:
        module.load_state_dict(state)
    except RuntimeError as error:
        raise ValueError(f"{path} does not fit the configured network: {error}") from error


def save_training(run_dir: Path, parts: Parts, config: Mapping, at: Progress) -> None:
    """Writes checkpoint-NIMG.pt, then the exported generator of the same weights.

    Args:
        parts: networks and optimisers by name; "G_ema" is exported.
        config: resolved configuration of the training.

    Raises:
        RuntimeError: the disk is full or not writable; older files stay.
    """
    states = {name: part.state_dict() for name, part in parts.items()}
    counters = {"config": config, **at._asdict()}
    path = run_dir / f"checkpoint-{at.nimg:010d}.pt"
    save({"format": CHECKPOINT, **counters, **states}, path)
    save({"format": EXPORT, "G_ema": states["G_ema"], **counters}, run_dir / "generator.pt")


def restore_training(run_dir: Path, parts: Parts) -> Progress:
    """Loads the newest checkpoint of run_dir into the parts; (0, 0) where there is none.

    Raises:
        ValueError: the newest checkpoint cannot be read or does not fit.
    """
    path = latest(run_dir)
    if path is None:
        return Progress(0, 0)
    content = load(path, (CHECKPOINT,))
    for name, part in parts.items():
        if isinstance(part, nn.Module):
            load_weights(part, content[name], path)
            continue
        part.load_state_dict(content[name])
        for group in part.param_groups:  # it may come from another device
            group["capturable"] = group["params"][0].is_cuda
    return Progress(content["nimg"], content["step"])


def drop_old(run_dir: Path, keep: int) -> None:
    """Deletes all but the newest `keep` checkpoints of run_dir."""
    for path in sorted(run_dir.glob("checkpoint-*.pt"))[:-keep]:
        path.unlink()


def latest(run_dir: Path) -> Path | None:
    """The checkpoint of run_dir with the most images, or None."""
    paths = sorted(run_dir.glob("checkpoint-*.pt"))
    return paths[-1] if paths else None


def load_generator(path: str | Path) -> tuple[Generator, dict]:
    """Loads the averaged generator of an exported file or a training checkpoint.

    Args:
        path: generator.pt or checkpoint-*.pt.

    Returns:
        The generator in evaluation mode with frozen weights, on the CPU, at the growing stage it
        was saved in, and the resolved configuration it was trained with.

    Raises:
        FileNotFoundError: no such file. ValueError: unreadable or of an unknown format.
    """
    return load_trained(path)[:2]


def load_trained(path: str | Path) -> tuple[Generator, dict, int]:
    """`load_generator`, and nimg: the images that it was trained with, 0 where it was imported."""
    content = load(path)
    config, nimg = content["config"], content["nimg"]
    G: Generator = instantiate(config["model"]["generator"])
    load_weights(G, content["G_ema"], path)
    G.progress(nimg)
    return G.eval().requires_grad_(False), config, nimg
