"""Rows of memory: growth of the peak with images and with family members.

Every point is the peak of a fresh process above what its imports hold (benchmarks.probe). Along
the batch the peaks should lie on a line, whose slope is stated; along the members they should stay
where one member has them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from itertools import pairwise

import torch

from benchmarks.probe import peak_mib
from benchmarks.record import Row
from benchmarks.setting import FAMILIES, TITLES, Setting, config
from benchmarks.timing import Ratio

LARGE = 128  # sides from which a CPU is given few images


def line(x: Sequence[float], y: Sequence[float]) -> tuple[float, float, float]:
    """Least squares: slope, intercept, and largest departure as a share of the line's rise."""
    n = len(x)
    mean_x, mean_y = sum(x) / n, sum(y) / n
    slope = sum((a - mean_x) * (b - mean_y) for a, b in zip(x, y))
    slope /= sum((a - mean_x) ** 2 for a in x)
    intercept = mean_y - slope * mean_x
    away = max(abs(b - slope * a - intercept) for a, b in zip(x, y))
    rise = abs(slope) * (max(x) - min(x))
    return slope, intercept, away / rise if rise else 0.0


def batches(setting: Setting, size: int) -> tuple[int, ...]:
    """Batches of a sweep."""
    if setting.quick:
        return 4, 8
    return (1, 2, 3) if size >= LARGE and setting.rt.device.type == "cpu" else (4, 8, 16, 32)


def along(
    title: str, unit: str, counts: Sequence[int], peaks: list[float], reach: str | None = "<= 0.1"
) -> list[Row]:
    """The slope and the departure from a line."""
    slope, intercept, away = line(counts, peaks)
    steps = [(q - p) / (b - a) for (a, p), (b, q) in pairwise(zip(counts, peaks))]
    details = {"counts": list(counts), "peak_mib": peaks, "intercept_mib": intercept}
    return [
        Row(
            "memory",
            f"peak memory, {title}",
            "one more",
            Ratio(slope, min(steps), max(steps), len(steps)),
            unit=unit,
            details=details,
        ),
        Row(
            "memory",
            f"departure from a line, {title}",
            "rise of the line",
            Ratio(away, away, away, len(peaks)),
            reach,
            details=details,
        ),
    ]


def flat(title: str, members: Sequence[list[int]], peaks: list[float]) -> Row:
    """Peak with every member over the peak with one."""
    ratios = [peak / peaks[0] for peak in peaks]
    return Row(
        "memory",
        f"peak memory, all members, {title}",
        "one member",
        Ratio(ratios[-1], min(ratios), max(ratios), len(peaks)),
        "<= 1.05",
        details={"members": list(members), "peak_mib": peaks},
    )


def units(setting: Setting) -> list[tuple[str, Callable[[], list[Row]]]]:
    """Training and inversion at every size; a rehearsal takes a part of them."""
    found = []
    for size in setting.sizes:
        for model in ("stylegan2",) if setting.quick else ("stylegan2", "pggan"):
            found.append(
                (
                    f"memory of training {TITLES[model]} {size}",
                    partial(training, setting, model, size),
                )
            )
        found.append((f"memory of inversion {size}", partial(inverting, setting, size)))
    return found


def training(setting: Setting, model: str, size: int) -> list[Row]:
    """Batch sweep of the mixture, member sweeps of both forms of the family."""
    place, threads = setting.rt.device, torch.get_num_threads()

    def peak(family: str, batch: int, overrides: Sequence[str] = ()) -> float:
        found = peak_mib(
            place,
            threads,
            kind="train",
            model=model,
            family=family,
            size=size,
            batch=batch,
            overrides=list(overrides),
        )
        setting.say(f"{family} batch {batch} {' '.join(overrides)}: {found:.0f} MiB")
        return found

    published, mixture = FAMILIES[model]
    counts = batches(setting, size)
    where = f"training {TITLES[model]} {size}"
    peaks = [peak(mixture, batch) for batch in counts]
    rows = along(f"{where}, mixture", "MiB/image", counts, peaks)
    key = "depths" if model == "stylegan2" else "codes"
    members = config(model, published, size)["rtil"]["family"][key]
    forms = {"mixture": mixture, "as published": published}
    numbers = range(1, len(members) + 1)
    if setting.quick:
        forms, numbers = {"as published": published}, (1, len(members))
    for name, family in forms.items():
        peaks = []
        for m in numbers:
            first = ",".join(map(str, members[:m]))
            peaks.append(peak(family, counts[0], [f"rtil.family.{key}=[{first}]"]))
        rows.append(flat(f"{where}, {name}", [members[:m] for m in numbers], peaks))
    return rows


def inverting(setting: Setting, size: int) -> list[Row]:
    """Batch sweeps of ILO and mGANprior, and mGANprior's codes."""
    place, threads = setting.rt.device, torch.get_num_threads()

    def peak(inverter: str, batch: int, codes: int = 20) -> float:
        found = peak_mib(
            place, threads, kind="invert", inverter=inverter, size=size, batch=batch, codes=codes
        )
        setting.say(f"{inverter} batch {batch}, {codes} codes: {found:.0f} MiB")
        return found

    counts, rows = batches(setting, size), []
    inverters = {"ilo": "ILO", "mgan": "mGANprior N = 20"}
    if setting.quick:
        inverters.pop("mgan")
    for inverter, title in inverters.items():
        peaks = [peak(inverter, batch) for batch in counts]
        rows += along(f"{title} {size}", "MiB/image", counts, peaks)
    if setting.quick:
        return rows
    codes = (1, 10, 20)
    peaks = [peak("mgan", 1, n) for n in codes]
    # Twenty codes of a small image add less than two runs of the same thing differ by.
    return rows + along(f"mGANprior {size}, batch 1", "MiB/code", codes, peaks, reach=None)
