"""The loop of an inversion: measure a batch, invert it, write what is known of it.

Everything that it works with is built by `rtil.inversion.setup` before it begins; what is on disk
already is left out, so that the same command goes on where it was stopped.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from rtil.inversion.batch import Part
from rtil.inversion.estimate import Recovery
from rtil.inversion.problem import Batch, Problem
from rtil.inverters.inverter import Inverter
from rtil.models.generator import Generator
from rtil.models.unit_range import UnitRange
from rtil.process.device import Runtime
from rtil.process.distributed import barrier, stop
from rtil.process.progress import Progress
from rtil.process.provenance import provenance
from rtil.process.rng import seeded

log = logging.getLogger("rtil.inversion.loop")


@dataclass(frozen=True)
class Method:
    """How measurements become images.

    G: with frozen weights, on the CPU. unit_range: whether what it draws is read as [0, 1].
    inverter: fitted, where it needs that. yardstick: another estimate of the same measurements.
    recovery: what is made of the inverter's iterates and starts.
    seed: of the starts. size: images inverted together, a process.
    """

    G: Generator
    unit_range: bool
    inverter: Inverter
    yardstick: Inverter | None
    recovery: Recovery
    seed: int
    size: int

    def starts(self, names: Sequence[str]) -> list[list[torch.Generator]]:
        """For each start a CPU generator per image, whatever batch the image is in."""
        starts = []
        for number in range(self.recovery.restarts):
            # The first start has no number: it is the one of a run without others.
            suffix = [number] if number else []
            starts.append([seeded("cpu", self.seed, name, "inversion", *suffix) for name in names])
        return starts


@dataclass(frozen=True)
class Inversion:
    """A problem, its parts with what is withheld of each, and the method for all of them."""

    problem: Problem
    parts: Sequence[Part]
    method: Method
    rt: Runtime


def run(inversion: Inversion) -> Path:
    """Inverts what is left for this process.

    Returns:
        The directory of the results.

    Raises:
        ValueError: the directory holds another run.
        RuntimeError: a loss that is not finite; rows already written stay.
    """
    problem, rt = inversion.problem, inversion.rt
    try:
        problem.claim(provenance(rt))
        barrier(rt.device)  # every process waits for the directory
        parts = [replace(part, items=problem.not_done(part.items)) for part in inversion.parts]
        # On the device before its range is changed: `place` sets how this network keeps its maps.
        G = rt.place(inversion.method.G)
        G = UnitRange(G) if inversion.method.unit_range else G
        total = sum(len(part.items) for part in parts)
        progress = Progress(total, "img", shown=rt.rank == 0)
        size = inversion.method.size
        for part in parts:
            size = invert_part(inversion, G, part.to(rt.device), size, progress)
        progress.close()
        barrier(rt.device)  # before the rows of all processes are read
    finally:
        problem.release()
        stop()
    if rt.rank == 0:
        problem.summarise()
    return problem.place


def invert_part(
    inversion: Inversion, G: Generator, part: Part, size: int, progress: Progress
) -> int:
    """Inverts the images of one operator, in batches that halve where memory runs out.

    Args:
        size: images in a batch.

    Returns:
        The size that fitted.
    """
    first = 0
    while first < len(part.items):
        items = part.items[first : first + size]
        try:
            invert_batch(inversion, G, part, items)
        except RuntimeError as error:
            if not out_of_memory(error) or len(items) == 1:
                raise
            halved = True
        else:
            halved = False
        # Past the except: there the error, with its frames, would hold the memory.
        if halved:
            size = len(items) // 2
            log.warning("Out of memory with %d images at a time: trying %d.", len(items), size)
            if inversion.rt.device.type == "cuda":
                torch.cuda.empty_cache()
            continue
        progress.step(len(items))
        first += len(items)
    return size


def invert_batch(inversion: Inversion, G: Generator, part: Part, items: Sequence[int]) -> None:
    """Measures, inverts and writes a batch; the yardstick's time is not counted."""
    problem, method = inversion.problem, inversion.method
    measured = problem.measure(part.A, items)
    starts = method.starts([problem.name(i) for i in items])
    begin = time.perf_counter()
    found = method.recovery(method.inverter, G, part, measured, starts)
    seconds = (time.perf_counter() - begin) / len(items)
    linear = None
    if method.yardstick is not None:
        linear = method.yardstick.invert(G, part.A, measured.y, part.loss, ())
    problem.keep(part.A, Batch(items, measured, found, linear, seconds))


def out_of_memory(error: RuntimeError) -> bool:
    """Whether a device or the host had no memory left for a tensor."""
    return isinstance(error, torch.OutOfMemoryError) or "DefaultCPUAllocator" in str(error)
