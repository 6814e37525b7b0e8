"""Peak memory of one setting, in a process of its own.

    python -m benchmarks.probe '{"kind": "train", "model": "stylegan2", "family": "ilo", ...}'

prints the peak in MiB: resident memory above what the imported libraries hold on a CPU, allocated
memory on a GPU.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import torch

from benchmarks import inversion
from benchmarks.setting import Setting, config, images
from benchmarks.training import Ours
from rtil.process import replay
from rtil.process.device import Hardware, start
from rtil.training.monitor import peak_memory_mb

ROOT = Path(__file__).resolve().parents[1]


def environment() -> dict[str, str]:
    """Variables of a process that imports this rtil and these benchmarks."""
    paths = [str(ROOT), os.environ.get("PYTHONPATH", "")]
    return {**os.environ, "PYTHONPATH": os.pathsep.join(p for p in paths if p)}


def peak_mib(device: torch.device, threads: int, **job: object) -> float:
    """Peak of a fresh process that does the job.

    Args:
        device, threads: of that process.
        job: arguments of `train` or `invert` below, and its name as `kind`.

    Raises:
        RuntimeError: the process failed; its last lines are quoted.
    """
    text = json.dumps({"device": device.type, "threads": threads, **job})
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.probe", text],
        capture_output=True,
        text=True,
        env=environment(),
        check=False,
    )
    if done.returncode:
        tail = " / ".join(done.stderr.strip().splitlines()[-3:])
        raise RuntimeError(f"probe {text}: exit {done.returncode}: {tail}")
    return float(done.stdout.split()[-1])


def peak_so_far(device: torch.device) -> float:
    """MiB of this process: the peak of its resident memory, or of its allocations on the GPU."""
    status = Path("/proc/self/status")
    if device.type == "cuda" or not status.exists():
        return peak_memory_mb(device)
    # ru_maxrss would begin at the peak of the process that started this one.
    (line,) = [line for line in status.read_text().splitlines() if line.startswith("VmHWM")]
    return int(line.split()[1]) / 2**10


def train(
    setting: Setting, model: str, family: str, size: int, batch: int, overrides: list[str]
) -> None:
    """Two training steps with every penalty; on a GPU one until it is replayed."""
    steps = Ours(config(model, family, size, *overrides), setting)
    real = steps.prepare(images(batch, size, setting.rt.device))
    for turn in (0, 1) if setting.rt.device.type == "cpu" else [0] * (replay.WARM + 2):
        steps.d_step(real, 0, turn)
        steps.g_step(real, 0, turn)
        steps.follow()


def invert(setting: Setting, inverter: str, size: int, batch: int, codes: int) -> None:
    """A short inversion: two stages of ILO, or mGANprior with `codes` codes."""
    inversion.short(setting, inverter, size, batch, codes)


def main() -> None:
    """Does the job that the command line describes and prints the peak."""
    job = json.loads(sys.argv[1])
    rt = start(Hardware(job.pop("device"), job.pop("threads")))
    work = {"train": train, "invert": invert}[job.pop("kind")]
    before = 0.0 if rt.device.type == "cuda" else peak_so_far(rt.device)
    work(Setting(rt, (job["size"],), 1), **job)
    print(peak_so_far(rt.device) - before)


if __name__ == "__main__":
    main()
