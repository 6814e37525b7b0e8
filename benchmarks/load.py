"""Rows of sharing cores: a command beside other work, against the same command alone.

A command that shares its cores fairly takes its own time times the load: with one busy process a
core, twice its own with a thread on each core, and less with one thread. Where threads wait for
each other awake it takes many times that.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from functools import partial

from benchmarks.probe import ROOT, environment
from benchmarks.record import Row
from benchmarks.setting import Setting
from benchmarks.timing import alternate, ratio_of
from rtil.process.device import cores

# It ends with who began it: nothing else would, where that is killed.
BUSY = """
import os, rtil, torch
parent = os.getppid()
while os.getppid() == parent:
    torch.ones(8).sum()
"""


def begun(command: Sequence[str], folder: str) -> subprocess.Popen:
    """A command of rtil that writes below a folder."""
    return subprocess.Popen(
        [sys.executable, "-m", *command, f"root={folder}", f"hydra.run.dir={folder}/hydra"],
        env=environment(),
        cwd=ROOT,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )


def seconds(command: Sequence[str], at_once: int, r: int) -> float:
    """Seconds until so many of the same command, begun at once, have ended.

    Raises:
        RuntimeError: one failed.
    """
    with tempfile.TemporaryDirectory() as folder:
        begin = time.perf_counter()
        processes = [begun(command, f"{folder}/{i}") for i in range(at_once)]
        codes = [process.wait() for process in processes]
        if any(codes):
            raise RuntimeError(f"{' '.join(command)}: exit {codes}")
        return time.perf_counter() - begin


def beside_busy(command: Sequence[str], r: int) -> float:
    """`seconds` of a command beside a busy process on each core."""
    busy = [
        subprocess.Popen(
            [sys.executable, "-c", BUSY], env={**environment(), "OMP_NUM_THREADS": "1"}
        )
        for _ in range(cores())
    ]
    try:
        return seconds(command, 1, r)
    finally:
        for process in busy:
            process.kill()
            process.wait()


def units(setting: Setting) -> list[tuple[str, Callable[[], list[Row]]]]:
    """The theory beside busy processes, and two trainings at once."""
    theory = ("rtil.theory", f"steps={10 if setting.quick else 100}")
    scale = "tiny" if setting.quick else "demo"
    training = ("rtil.train", f"scale={scale}", "hardware=cpu", "total_nimg=320")
    alone, busy = partial(seconds, theory, 1), partial(beside_busy, theory)
    one, two = (partial(seconds, training, count) for count in (1, 2))
    title = "rtil.theory beside a busy process a core"
    return [
        ("theory beside work", partial(row, setting, title, alone, busy, "<= 2.5")),
        ("two trainings", partial(row, setting, "two trainings at once", one, two, "<= 2.5")),
    ]


def row(setting: Setting, title: str, alone: Callable, beside: Callable, goal: str) -> list[Row]:
    """A command beside other work against itself alone."""
    found = alternate({"alone": alone, "beside": beside}, setting.repeats, setting.say)
    ratio = ratio_of(found["beside"], found["alone"])
    return [Row("load", title, "alone", ratio, goal, details=found)]
