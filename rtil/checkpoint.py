"""Files that hold weights: atomic writing, safe loading, and generators from either kind.

A training checkpoint (checkpoint-*.pt) holds every part of a training and resumes it; an exported
generator (generator.pt) holds G_ema with its configuration. Both are plain dicts, loaded with
weights_only=True: a file cannot run code, and only classes of rtil are built from its
configuration. Each holds a digest of its contents (`rtil.process.digest`), which is checked when
it is read; a file without one, of version 0.1 or of another project, is checked by the CRCs of
the zip that it is. What the parts are is said in `rtil.training.loop`; files of other projects are
read in `rtil.importers`.
"""

from __future__ import annotations

import logging
import os
import re
import zipfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import NamedTuple

import torch
from torch import nn
from torch.optim import Optimizer

from rtil.models.generator import Generator
from rtil.process.digest import brief, digest
from rtil.process.files import replacing
from rtil.process.instantiate import instantiate
from rtil.runs.identity import EXPORTED

log = logging.getLogger("rtil.checkpoint")

CHECKPOINT, EXPORT = "rtil-checkpoint-1", "rtil-generator-1"
DIGEST = "sha256"  # key of the digest in a file
NUMBERED = re.compile(r"checkpoint-(\d{10})\.pt")  # the names that rtil writes
ADVICE = "Copy it again, or choose another."
Parts = Mapping[str, nn.Module | Optimizer]


class Progress(NamedTuple):
    """How far a training has come: in images, and in steps."""

    nimg: int
    step: int


class DamagedFile(ValueError):
    """A file whose contents are not what was written; an older one may serve instead."""


def save(content: dict, path: Path) -> None:
    """Writes content with its digest; on any failure the file that was there before survives.

    Raises:
        RuntimeError: the disk is full or not writable.
    """
    content = {**content, DIGEST: digest(content)}
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
        ValueError: unreadable, truncated, changed since it was written, larger once unpacked than
            it is, or naming code; the message holds what it names.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"no checkpoint at {path}.")
    _check_zip(path)
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # the unpickler raises whatever the bytes lead it to
        # torch's own text is left out: it advises to load the file without protection.
        named = re.search(r"GLOBAL (\S+)", str(error))
        why = f"it is truncated, no checkpoint, or would run code. {ADVICE}"
        if named:
            why = f"it asks for {named[1]}, which would run code; nothing of it was loaded."
        raise DamagedFile(
            f"{path} cannot be read as a checkpoint ({type(error).__name__}): {why} "
            "Files of other projects go through scripts/import_checkpoint.py first."
        ) from error
    _check_digest(content, path)
    return content


def _check_zip(path: Path) -> None:
    """Checks sizes before anything is allocated; torch writes its records uncompressed.

    Raises:
        ValueError: a record that unpacks to more than the file holds.
    """
    if not zipfile.is_zipfile(path):
        return  # of torch before 1.6, whose reader allocates what the file holds
    with zipfile.ZipFile(path) as archive:
        for entry in archive.infolist():
            if entry.compress_type != zipfile.ZIP_STORED or entry.file_size > entry.compress_size:
                raise ValueError(
                    f"{path}: record {brief(entry.filename)} unpacks to {entry.file_size} bytes "
                    f"from {entry.compress_size}; no weights are stored so. {ADVICE}"
                )


def _check_digest(content: object, path: Path) -> None:
    """Raises ValueError where the contents are not those that were written."""
    if isinstance(content, dict) and DIGEST in content:
        rest = {key: value for key, value in content.items() if key != DIGEST}
        damaged = digest(rest) != content.pop(DIGEST)
    elif zipfile.is_zipfile(path):  # torch itself does not look at them
        with zipfile.ZipFile(path) as archive:
            damaged = archive.testzip() is not None
    else:
        damaged = False
    if damaged:
        raise DamagedFile(
            f"{path} is damaged: its contents are not those that were written. {ADVICE}"
        )


def load(path: str | Path, formats: tuple[str, ...] = (CHECKPOINT, EXPORT)) -> dict:
    """Reads a file that `save` wrote, onto the CPU.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: unreadable, damaged or of an unknown format.
    """
    content = read(path)
    found = content.get("format") if isinstance(content, dict) else type(content).__name__
    if not isinstance(content, dict) or not isinstance(found, str) or found not in formats:
        raise ValueError(
            f"{path} has format {brief(found)}; expected {' or '.join(formats)}. "
            "Files of other projects go through scripts/import_checkpoint.py first."
        )
    _check_keys(content, ("config", "nimg", "G_ema"), path)
    return content


def _check_keys(content: Mapping, needed: Iterable[str], path: str | Path) -> None:
    """Raises ValueError where a file lacks some of these."""
    missing = [key for key in needed if key not in content]
    if missing:
        raise ValueError(f"{path} lacks {', '.join(missing)}. {ADVICE}")


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

    A training that ends between the two has an older generator; `export` makes up for it when
    the training is started again.

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
    _save_export(run_dir, states["G_ema"], counters)


def _save_export(run_dir: Path, weights: Mapping, counters: Mapping) -> None:
    save({"format": EXPORT, "G_ema": weights, **counters}, run_dir / EXPORTED)


def export(run_dir: Path, parts: Parts, config: Mapping, at: Progress) -> None:
    """Writes generator.pt where it is not of the checkpoint that training goes on from.

    Raises as `save_training` does.
    """
    path = run_dir / EXPORTED
    try:
        nimg = load(path, (EXPORT,))["nimg"]
    except (FileNotFoundError, ValueError):
        nimg = None
    if nimg != at.nimg:
        log.info("%s is written anew: it held %s images, not %d.", path, nimg, at.nimg)
        _save_export(run_dir, parts["G_ema"].state_dict(), {"config": config, **at._asdict()})


def restore_training(run_dir: Path, parts: Parts) -> Progress:
    """Loads the newest good checkpoint of run_dir into the parts; (0, 0) where there is none.

    Damaged ones are named; `set_damaged_aside` renames them.

    Raises:
        ValueError: all are damaged, or the newest good one does not fit.
    """
    paths, damaged = checkpoints(run_dir)[::-1], ""
    for path in paths:
        try:
            content = load(path, (CHECKPOINT,))
        except DamagedFile as error:
            log.warning("%s", error)
            damaged = str(error)
            continue
        number = int(path.stem.rpartition("-")[2])
        if content["nimg"] != number:
            raise ValueError(
                f"{path} holds a training at {brief(content['nimg'])} images, not at {number}: it "
                "was renamed. Give it back its own name, or delete it."
            )
        _check_keys(content, ("step", *parts), path)
        _restore(parts, content, path)
        if damaged:
            log.warning("Training goes on from %s, the newest good checkpoint.", path)
        return Progress(content["nimg"], content["step"])
    if damaged:
        raise ValueError(
            f"none of the {len(paths)} checkpoints of {run_dir} is good. The newest good one was "
            f"not kept; delete them to begin anew. {damaged}"
        )
    return Progress(0, 0)


def _restore(parts: Parts, content: Mapping, path: Path) -> None:
    for name, part in parts.items():
        if isinstance(part, nn.Module):
            load_weights(part, content[name], path)
            continue
        part.load_state_dict(content[name])
        for group in part.param_groups:  # it may come from another device
            group["capturable"] = group["params"][0].is_cuda


def set_damaged_aside(run_dir: Path, at: Progress) -> None:
    """Renames checkpoints beyond the one that training goes on from: they are damaged.

    Training would write files of their names anew; what is in them may still be wanted.
    """
    for path in checkpoints(run_dir):
        if int(path.stem.rpartition("-")[2]) > at.nimg:
            path.rename(path.with_name(f"{path.name}.damaged"))


def drop_old(run_dir: Path, keep: int) -> None:
    """Deletes all but the newest `keep` checkpoints of run_dir; other files stay."""
    for path in checkpoints(run_dir)[:-keep]:
        path.unlink()


def checkpoints(run_dir: Path) -> list[Path]:
    """The checkpoints that rtil wrote into run_dir, by their images."""
    return sorted(p for p in run_dir.glob("checkpoint-*.pt") if NUMBERED.fullmatch(p.name))


def latest(run_dir: Path) -> Path | None:
    """The checkpoint of run_dir with the most images, or None."""
    paths = checkpoints(run_dir)
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
    # A file may be older than the training that it lies beside: what is read is said.
    log.info("%s: %s.", path, f"trained on {nimg:,} images" if nimg else "imported")
    return G.eval().requires_grad_(False), config, nimg
