"""Files that hold weights: atomic writing, safe loading, and generators from either kind.

A training checkpoint (checkpoint-*.pt) holds every part of a training and resumes it; an exported
generator (generator.pt) holds G_ema with its configuration, and generator.safetensors the same in
a layout that others read too. All are plain dicts once they are read: a file cannot run code, and
only classes of rtil are built from its configuration, once its weights have the shapes that these
classes have. How a file is read is said in `rtil.process.weights`, where one lies that is named
otherwise than by its path in `rtil.generators`, what the parts are in `rtil.training.loop`; files
of other projects are read in `rtil.importers`.
"""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from rtil import generators
from rtil.models.generator import Generator
from rtil.process import tensor_file
from rtil.process.brief import brief, reason
from rtil.process.digest import digest
from rtil.process.files import FREE_SPACE, replacing
from rtil.process.instantiate import allow, instantiate
from rtil.process.weights import ADVICE, DIGEST, DamagedFile, read
from rtil.runs import keys, schema
from rtil.runs.identity import EXPORTED
from rtil.runs.kinds import COUNT_OR_NONE, SEED, Fault, Kind, ListOf, MapOf, Record, check

log = logging.getLogger("rtil.checkpoint")

CHECKPOINT, EXPORT = "rtil-checkpoint-1", "rtil-generator-1"
NUMBERED = re.compile(r"checkpoint-(\d{10})\.pt")  # the names that rtil writes
Parts = Mapping[str, nn.Module | Optimizer]
FOREIGN = "Files of other projects go through scripts/import_checkpoint.py first."
SHOWN = 4  # entries that a message names


@dataclass(frozen=True)
class Weight(Kind):
    """A tensor."""

    def fault(self, value: object, place: str = "") -> Fault | None:
        return None if isinstance(value, Tensor) else Fault(place, value, str(self))

    def __str__(self) -> str:
        return "a tensor"


MODULE = MapOf(Weight())
OPTIMISER = Record(
    {"state": MapOf(MapOf(Weight())), "param_groups": ListOf(Record({"params": ListOf(SEED)}))}
)
GENERATOR = Record(
    {
        "config": Record({"model": Record({"generator": schema.CLASS})}),
        "nimg": COUNT_OR_NONE,
        "G_ema": MODULE,
    },
    {"step": COUNT_OR_NONE},
)


class Progress(NamedTuple):
    """How far a training has come: in images, and in steps."""

    nimg: int
    step: int


def save(content: dict, path: Path) -> None:
    """Writes content with its digest; on any failure the file that was there before survives.

    A path that ends in .safetensors is written so, any other by torch.save.

    Raises:
        RuntimeError: the disk is full or not writable.
    """
    content = {**content, DIGEST: digest(content)}
    try:
        with replacing(path) as temporary, open(temporary, "wb") as file:
            if path.suffix == tensor_file.SUFFIX:
                file.write(tensor_file.pack(content))
            else:
                torch.save(content, file)
            file.flush()
            os.fsync(file.fileno())
    except (OSError, RuntimeError) as error:
        raise RuntimeError(f"could not write {path} ({error}). {FREE_SPACE}") from error


def load(path: str | Path, formats: tuple[str, ...] = (CHECKPOINT, EXPORT)) -> dict:
    """Reads a file that `save` wrote, onto the CPU.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: unreadable, damaged or of an unknown format.
    """
    content = read(path, FOREIGN)
    found = content.get("format") if isinstance(content, dict) else type(content).__name__
    if not isinstance(content, dict) or not isinstance(found, str) or found not in formats:
        raise ValueError(
            f"{path} has format {brief(found)}; expected {' or '.join(formats)}. {FOREIGN}"
        )
    check(content, GENERATOR, str(path), ADVICE)
    schema.check_settings(keys.flatten(content["config"]), str(path), ADVICE)
    return content


def _check_keys(content: Mapping, needed: Iterable[str], path: str | Path) -> None:
    """Raises ValueError where a file lacks some of these."""
    missing = [key for key in needed if key not in content]
    if missing:
        raise ValueError(f"{path} lacks {', '.join(missing)}. {ADVICE}")


def load_weights(module: nn.Module, state: Mapping, path: str | Path) -> None:
    """Loads a state dict, naming what does not fit.

    Raises:
        ValueError: missing, unexpected or misshapen entries, or such that are no numbers.
    """
    check_fits(module, state, path)
    for name, value in state.items():
        if value.is_floating_point() and not bool(value.isfinite().all()):
            raise ValueError(
                f"{path}: {brief(name)} holds values that are not finite (NaN or infinite), of a "
                "training that diverged. Choose another file, or an earlier checkpoint."
            )
    module.load_state_dict(state)


def check_fits(module: nn.Module, state: Mapping, path: str | Path) -> None:
    """Raises ValueError where a state dict has other entries or shapes than a network."""
    wrong = misfits(module, state)
    if wrong:
        more = f", and {len(wrong) - SHOWN} more" if len(wrong) > SHOWN else ""
        raise ValueError(
            f"{path} does not fit the configured network: {', '.join(wrong[:SHOWN])}{more}. "
            "Ask for what it was trained with."
        )


def misfits(module: nn.Module, state: Mapping) -> list[str]:
    """A text for each entry in which a state dict has another name or shape than a network."""
    shapes = {name: [*value.shape] for name, value in module.state_dict().items()}
    wrong = [f"{name} {brief(shapes[name])} is missing" for name in shapes if name not in state]
    for name, value in state.items():
        if name not in shapes:
            wrong.append(f"{brief(name)} is unknown")
        elif not isinstance(value, Tensor):
            wrong.append(f"{name} is {brief(value)} and no tensor")
        elif shapes[name] != [*value.shape]:
            wrong.append(f"{name} is {brief([*value.shape])} and not {brief(shapes[name])}")
    return wrong


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
        where = f"{path}: {name}"
        check(content[name], MODULE if isinstance(part, nn.Module) else OPTIMISER, where, ADVICE)
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


def load_generator(path: str | Path, modules: Iterable[str] = ()) -> tuple[Generator, dict]:
    """Loads the averaged generator of an exported file or a training checkpoint.

    Args:
        path: generator.pt, generator.safetensors or checkpoint-*.pt; hf://user/repo, or the name
            of a generator that comes with rtil.
        modules: classes outside rtil, "package.Class", that the file may name because you do.

    Returns:
        The generator in evaluation mode with frozen weights, on the CPU, at the growing stage it
        was saved in, and the resolved configuration it was trained with.

    Raises:
        FileNotFoundError: no such file. ValueError: unreadable or of an unknown format.
    """
    allow(modules)
    return load_trained(generators.locate(path).path)[:2]


def load_trained(path: str | Path) -> tuple[Generator, dict, int]:
    """`load_generator`, and nimg: the images that it was trained with, 0 where it was imported."""
    content = load(path)
    config, nimg = content["config"], content["nimg"]
    check_declared(config, content["G_ema"], path)
    G: Generator = instantiate(config["model"]["generator"])
    load_weights(G, content["G_ema"], path)
    G.progress(nimg)
    # A file may be older than the training that it lies beside: what is read is said.
    log.info("%s: %s.", path, f"trained on {nimg:,} images" if nimg else "imported")
    return G.eval().requires_grad_(False), config, nimg


def check_declared(config: Mapping, weights: Mapping, path: str | Path) -> None:
    """Compares the sizes that a configuration declares with the weights, before memory is taken.

    Raises:
        ValueError: they differ, or the configuration is of no generator.
    """
    try:
        with torch.device("meta"):  # shapes without memory
            declared: Generator = instantiate(config["model"]["generator"])
    except (ValueError, TypeError, RuntimeError) as error:
        # rtil's own are one line of advice; torch's list every call that there is.
        why = str(error) if isinstance(error, ValueError) else reason(error)
        raise ValueError(f"{path}: model.generator cannot be built: {why}") from error
    check_fits(declared, weights, path)
