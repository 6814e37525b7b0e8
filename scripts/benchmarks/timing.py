"""Alternating runs, ratios with their spread, and the machine's matrix peak."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from statistics import median
from typing import NamedTuple

import torch
import torch.nn.functional as F

SGEMM_SIZES = {"cpu": (512, 1024, 2048, 3072), "cuda": (2048, 4096, 8192)}


class Ratio(NamedTuple):
    """median: ratio of the medians. low, high: extremes of the ratios pair by pair. pairs: n."""

    median: float
    low: float
    high: float
    pairs: int


def ratio_of(top: Sequence[float], bottom: Sequence[float]) -> Ratio:
    """Ratio of top to bottom, values of the same rounds in the same order.

    Raises:
        ValueError: lengths that differ, or nothing measured.
    """
    if len(top) != len(bottom) or not top:
        raise ValueError(
            f"ratio_of: {len(top)} and {len(bottom)} values; each round must give one of either."
        )
    pairs = [a / b for a, b in zip(top, bottom)]
    return Ratio(median(top) / median(bottom), min(pairs), max(pairs), len(pairs))


def alternate(
    cases: Mapping[str, Callable[[int], object]], repeats: int,
    say: Callable[[str], None] = lambda text: None,
) -> dict[str, list]:
    """Runs every case once a round (A B C A B C ...) and collects what each returns.

    Args:
        cases: each is called with the number of its round and returns what it measured.
        repeats: rounds.
        say: is told after every case.
    """
    found: dict[str, list] = {name: [] for name in cases}
    for r in range(repeats):
        for name, case in cases.items():
            begin = time.perf_counter()
            found[name].append(case(r))
            say(f"round {r + 1}/{repeats} {name}: {time.perf_counter() - begin:.1f} s")
    return found


def synchronise(device: torch.device) -> None:
    """Waits for the device; the CPU is never behind."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def seconds_of(work: Callable[[], object], device: torch.device) -> float:
    """Wall time of one call."""
    synchronise(device)
    begin = time.perf_counter()
    work()
    synchronise(device)
    return time.perf_counter() - begin


class Peak:
    """The machine's float32 matrix product at its fastest size, as a case to run beside others.

    Attributes:
        size: side of the square matrices.
    """

    def __init__(self, device: torch.device) -> None:
        self.device = device
        best = {size: self.rate(size) for size in SGEMM_SIZES[device.type]}
        self.size = max(best, key=best.get)

    def rate(self, size: int) -> float:
        """Operations per second at one size: the best of several runs of about 0.03 s."""
        a, b = (torch.randn(size, size, device=self.device) for _ in range(2))
        work = {"cpu": 5e9, "cuda": 4e12}[self.device.type]
        calls = max(1, round(work / (2 * size**3)))
        times = [seconds_of(lambda: [a @ b for _ in range(calls)], self.device) for _ in range(8)]
        return calls * 2 * size**3 / min(times[1:])

    def __call__(self, r: int) -> float:
        """Operations per second at the fastest size."""
        return self.rate(self.size)


def bare_convolution(device: torch.device, small: bool) -> Callable[[int], float]:
    """A case: operations per second of a bare 3x3 convolution, channels innermost."""
    channels, side = (32, 32) if small else (256, 64)
    x = torch.randn(4, channels, side, side, device=device)
    weight = torch.randn(channels, channels, 3, 3, device=device)
    x, weight = (t.contiguous(memory_format=torch.channels_last) for t in (x, weight))
    flops = 2.0 * 9 * channels**2 * x.shape[0] * side**2

    def case(r: int) -> float:
        times = [seconds_of(lambda: F.conv2d(x, weight, padding=1), device) for _ in range(8)]
        return flops / min(times[2:])

    return case


class Others:
    """Share of the machine that other processes took while a block ran (Linux; else None)."""

    STAT = Path("/proc/stat")

    def __enter__(self) -> Others:
        self.share = None
        self.before = self._used()
        return self

    def __exit__(self, *error: object) -> None:
        if self.before is not None:
            busy, total, mine = (b - a for a, b in zip(self.before, self._used()))
            self.share = max(0.0, busy - mine) / total if total else 0.0

    def _used(self) -> tuple[float, float, float] | None:
        """Seconds of all processors busy, of all processors, and of this process's family."""
        if not self.STAT.exists():
            return None
        ticks = [int(n) for n in self.STAT.read_text().split("\n", 1)[0].split()[1:9]]
        hertz, mine = os.sysconf("SC_CLK_TCK"), os.times()
        total = sum(ticks) / hertz
        return total - (ticks[3] + ticks[4]) / hertz, total, sum(mine[:4])
