"""Measures rtil against the straightforward form of the same work, on the device it finds.

    python -m benchmarks                         # every row; hours on two cores
    python -m benchmarks --rows ilo --sizes 64
    python -m benchmarks --quick                 # rehearsal: tiny networks, figures mean nothing

Every ratio is of two things run alternately in one process: ratio of medians, and the extremes of
the ratios round by round. Prints a line per measurement and a table; writes JSON after every row.
"""

from __future__ import annotations

import argparse
import platform
import sys
import time
import traceback
from pathlib import Path

import torch

from benchmarks import gpu, inversion, load, memory, startup, training
from benchmarks.record import Record, Row
from benchmarks.setting import SCALES, Setting
from benchmarks.timing import Others, Peak, alternate, bare_convolution, ratio_of
from rtil.process.device import Hardware, start
from rtil.process.provenance import provenance


def peak_units(setting: Setting):
    """A bare convolution's fraction of the matrix peak, for scale."""

    def measure() -> list[Row]:
        device = setting.rt.device
        peak = Peak(device)
        cases = {"sgemm": peak, "convolution": bare_convolution(device, setting.quick)}
        found = alternate(cases, setting.repeats, setting.say)
        ratio = ratio_of(found["convolution"], found["sgemm"])
        details = {
            "sgemm_flops_per_second": found["sgemm"],
            "sgemm_size": peak.size,
            "convolution_flops_per_second": found["convolution"],
        }
        return [
            Row(
                "peak",
                "fraction of peak, bare 3x3 convolution",
                "sgemm",
                ratio,
                unit="of peak",
                details=details,
            )
        ]

    return [("bare convolution", measure)]


GROUPS = {
    "peak": peak_units,
    "train": training.units,
    "ilo": inversion.ilo_units,
    "mgan": inversion.mgan_units,
    "memory": memory.units,
    "start": startup.units,
    "load": load.units,
    "gpu": gpu.units,
}
DESCRIPTION = "Measures rtil against the straightforward form of the same work."
BUSY = 0.05  # share of the machine in other hands from which figures are doubtful


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser("python -m benchmarks", description=DESCRIPTION)
    parser.add_argument(
        "--rows",
        nargs="+",
        choices=GROUPS,
        default=None,
        help="groups of rows; all of them, on a CPU all but gpu",
    )
    parser.add_argument("--sizes", nargs="+", type=int, choices=SCALES, default=None)
    parser.add_argument(
        "--batch",
        nargs="+",
        default=[],
        metavar="SIZE=N",
        help="images per training step at a size, e.g. 256=3",
    )
    parser.add_argument("--quick", action="store_true", help="tiny networks, few repeats")
    parser.add_argument("--device", choices=["auto", "cpu", "cuda"], default="auto")
    parser.add_argument("--threads", type=int, default=None, help="CPU threads (all cores)")
    parser.add_argument("--repeats", type=int, default=None, help="rounds (5; 2 with --quick)")
    parser.add_argument(
        "--only",
        nargs="+",
        metavar="NAME",
        default=None,
        help="units in this order, by the names it prints, e.g. 'ILO 64'",
    )
    parser.add_argument(
        "--limit",
        type=float,
        default=None,
        metavar="SECONDS",
        help="starts no unit after so many seconds",
    )
    parser.add_argument("--out", type=Path, default=Path("bench.json"))
    args = parser.parse_args(arguments)
    args.batch = {int(k): int(v) for k, v in (text.split("=") for text in args.batch)}
    args.sizes = tuple(args.sizes or ((16,) if args.quick else (64, 256)))
    args.repeats = args.repeats or (2 if args.quick else 5)
    return args


def environment(setting: Setting) -> dict:
    """Where the figures come from."""
    found = provenance(setting.rt)
    # Figures are kept beside the code, and where they were first written is of one machine.
    found["command"] = [Path(word).name if "/" in word else word for word in found["command"]]
    if setting.rt.device.type == "cpu" and Path("/proc/cpuinfo").exists():
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        names = [line.split(":")[1].strip() for line in lines if line.startswith("model name")]
        found["device"] = names[0] if names else platform.machine()
    return {
        **found,
        "sizes": setting.sizes,
        "repeats": setting.repeats,
        "quick": setting.quick,
        "counts": "2 operations a multiply-add of convolutions and matrix products; see "
        "benchmarks/flops.py",
    }


def chosen(groups: dict, setting: Setting, only: list[str] | None) -> list[tuple]:
    """(group, name, unit) of what is measured, in order.

    Raises:
        ValueError: a name that no unit has.
    """
    units = [
        (group, name, measure)
        for group, found in groups.items()
        for name, measure in found(setting)
    ]
    if only is None:
        return units
    names = {name: (group, name, measure) for group, name, measure in units}
    if unknown := [name for name in only if name not in names]:
        raise ValueError(
            f"--only: no unit is called {', '.join(unknown)}; there are {', '.join(names)}."
        )
    return [names[name] for name in only]


def run(units: list[tuple], setting: Setting, record: Record, limit: float | None = None) -> int:
    """Measures every unit; returns how many failed."""
    failed, begin = 0, time.monotonic()
    for group, name, measure in units:
        if limit is not None and time.monotonic() - begin > limit:
            print(f"{name}: left out, {limit:g} s are over", flush=True)
            continue
        print(f"{name} ...", flush=True)
        with Others() as others:
            rows = attempt(group, name, measure)
        if others.share is not None and others.share > BUSY:
            print(
                f"  other processes took {others.share:.0%} of the machine: the figures "
                "are doubtful",
                flush=True,
            )
        failed += any(row.error is not None for row in rows)
        for row in rows:
            row.details["others_share"] = others.share
            record.add(row)
            print("  " + " | ".join(cell for cell in row.line() if cell), flush=True)
    return failed


def attempt(group: str, name: str, measure) -> list[Row]:
    """The unit's rows, or one failed row: those that remain must not be lost with it."""
    try:
        return measure()
    except Exception as error:
        traceback.print_exc()
        return [Row(group, name, "", None, error=f"{type(error).__name__}: {error}")]


def main(arguments: list[str] | None = None) -> int:
    """Entry point; returns 1 where a row failed."""
    args = parse(arguments)
    rt = start(Hardware(args.device, args.threads))
    setting = Setting(rt, args.sizes, args.repeats, args.quick, args.batch)
    record = Record(args.out, environment(setting))
    rows = args.rows or [g for g in GROUPS if g != "gpu" or rt.device.type == "cuda"]
    groups = {name: units for name, units in GROUPS.items() if name in rows}
    try:
        units = chosen(groups, setting, args.only)
    except ValueError as error:
        print(error, file=sys.stderr)
        return 2
    failed = run(units, setting, record, args.limit)
    print()
    print(
        f"{record.environment['device']}, {torch.get_num_threads()} threads, torch "
        f"{torch.__version__}, commit {record.environment['commit']}"
    )
    print(record.table())
    print(f"Written to {args.out}.")
    return 1 if failed else 0
