"""Times the steps of an inversion through its `watch`, which is called with every iterate."""

from __future__ import annotations

import time
from collections.abc import Sequence
from itertools import pairwise
from statistics import median

import torch

from benchmarks.timing import synchronise
from rtil.process import replay

SKIP = 1  # steps of a stage left out
SKIP_GPU = replay.WARM + 2  # likewise: those before the step is recorded, and the first replay


class Stopwatch:
    """A `watch` that times the steps of every stage, but for the first few.

    Args:
        stages: steps of each stage; every stage shows one iterate more.
        device: a GPU is waited for at either end of what is timed, and in between runs ahead.
    """

    def __init__(self, stages: Sequence[int], device: torch.device) -> None:
        self.stages, self.device, self.marks = list(stages), device, []
        ends = [sum(self.stages[: i + 1]) + i for i in range(len(self.stages))]
        skip = [SKIP_GPU if replay.wanted(device, n) else SKIP for n in self.stages]
        self.spans = [(end - n + s, end) for end, n, s in zip(ends, self.stages, skip)]

    def __call__(self, image: torch.Tensor) -> None:
        if any(len(self.marks) in span for span in self.spans):
            synchronise(self.device)
        self.marks.append(time.perf_counter())

    def seconds(self) -> list[float]:
        """Seconds a step of each stage: the median step, on a GPU the mean.

        Raises:
            RuntimeError: another number of iterates was shown than the stages have.
        """
        total = sum(self.stages) + len(self.stages)
        if len(self.marks) != total:
            raise RuntimeError(
                f"Stopwatch: {len(self.marks)} iterates were shown, {self.stages} steps a stage "
                f"have {total}; their times cannot be told apart."
            )
        if self.device.type == "cuda":
            return [(self.marks[b] - self.marks[a]) / (b - a) for a, b in self.spans]
        return [median(y - x for x, y in pairwise(self.marks[a : b + 1])) for a, b in self.spans]
