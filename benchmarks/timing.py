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
    cases: Mapping[str, Callable[[int], object]],
    repeats: int,
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
    """Share of the machine that other processes took while a block ran (Linux; else None).

    This process and all that descend from it count as one, also those that still run.
    """

    PROC = Path("/proc")

    def __enter__(self) -> Others:
        self.share = None
        self.before = self.used()
        return self

    def __exit__(self, *error: object) -> None:
        if self.before is not None:
            busy, total, mine = (b - a for a, b in zip(self.before, self.used()))
            self.share = max(0.0, busy - mine) / total if total else 0.0

    def used(self) -> tuple[float, float, float] | None:
        """Seconds of all processors busy, of all processors, and of this family's processes."""
        if not (self.PROC / "stat").exists():
            return None
        hertz = os.sysconf("SC_CLK_TCK")
        ticks = [int(n) for n in (self.PROC / "stat").read_text().split("\n", 1)[0].split()[1:9]]
        total, idle = sum(ticks), ticks[3] + ticks[4]
        return (total - idle) / hertz, total / hertz, self._family() / hertz

    def _family(self) -> int:
        """Ticks of this process and its descendants, those that ended and were waited for too."""
        parent, used = {}, {}
        for path in self.PROC.glob("[0-9]*/stat"):
            try:
                fields = path.read_text().rsplit(")", 1)[1].split()
            except OSError:  # it ended meanwhile
                continue
            pid = int(path.parent.name)
            parent[pid], used[pid] = int(fields[1]), sum(int(n) for n in fields[11:15])
        family, size = {os.getpid()}, 0
        while len(family) > size:
            size = len(family)
            family |= {pid for pid, above in parent.items() if above in family}
        return sum(used.get(pid, 0) for pid in family)
