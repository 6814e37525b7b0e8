"""Rows of starting: what importing rtil adds to importing torch, and the first training step."""

from __future__ import annotations

import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from statistics import median

from benchmarks.probe import ROOT, environment
from benchmarks.record import Row
from benchmarks.setting import Setting
from benchmarks.timing import Ratio, alternate

PATIENCE = 120.0  # seconds until a command that logs nothing is given up


def run(code: str, r: int) -> float:
    """Wall time of a fresh interpreter that runs some code."""
    begin = time.perf_counter()
    subprocess.run([sys.executable, "-c", code], env=environment(), cwd=ROOT, check=True)
    return time.perf_counter() - begin


def first_step(device: str, r: int) -> float:
    """Seconds from starting `rtil.train scale=demo` to the first row of its log.

    Raises:
        RuntimeError: the command ended or stayed silent.
    """
    with tempfile.TemporaryDirectory() as folder:
        log, errors = Path(folder) / "run" / "log.jsonl", Path(folder) / "stderr"
        command = [
            sys.executable,
            "-m",
            "rtil.train",
            "scale=demo",
            "log_every=1",
            f"run_dir={log.parent}",
            f"hardware={device}",
        ]
        begin = time.perf_counter()
        with open(errors, "w") as sink:
            process = subprocess.Popen(
                command, env=environment(), cwd=folder, stdout=sink, stderr=sink
            )
        try:
            while not (log.exists() and log.stat().st_size):
                seconds = time.perf_counter() - begin
                if process.poll() is not None or seconds > PATIENCE:
                    raise RuntimeError(
                        f"{' '.join(command[1:4])}: no step was logged in {seconds:.0f} s: "
                        + " / ".join(errors.read_text().strip().splitlines()[-3:])
                    )
                time.sleep(0.01)
            return time.perf_counter() - begin
        finally:
            process.send_signal(signal.SIGTERM)
            try:
                process.wait(30)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def units(setting: Setting) -> list[tuple[str, Callable[[], list[Row]]]]:
    """Imports and the first step."""
    return [("imports", partial(imports, setting)), ("first step", partial(first, setting))]


def imports(setting: Setting) -> list[Row]:
    """import rtil.train and rtil.invert against import torch."""
    cases = {
        "torch": partial(run, "import torch"),
        "rtil": partial(run, "import torch, rtil.train, rtil.invert"),
    }
    for case in cases.values():
        case(0)  # files are read into the cache
    found = alternate(cases, setting.repeats, setting.say)
    extra = [b - a for a, b in zip(found["torch"], found["rtil"])]
    value = Ratio(
        median(found["rtil"]) - median(found["torch"]), min(extra), max(extra), len(extra)
    )
    return [
        Row(
            "start",
            "importing rtil.train and rtil.invert adds",
            "importing torch alone",
            value,
            "<= 1",
            unit="s",
            details=found,
        )
    ]


def first(setting: Setting) -> list[Row]:
    """From the command to the first training step of scale=demo."""
    device = {"cpu": "cpu", "cuda": "gpu"}[setting.rt.device.type]
    seconds = [first_step(device, r) for r in range(1 if setting.quick else setting.repeats)]
    value = Ratio(median(seconds), min(seconds), max(seconds), len(seconds))
    return [
        Row(
            "start",
            f"first training step, scale=demo, hardware={device}",
            "the command",
            value,
            "<= 10",
            unit="s",
            details={"seconds": seconds},
        )
    ]
