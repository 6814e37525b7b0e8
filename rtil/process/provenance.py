"""What produced a result: command, versions, device, commit.

Lives here: reading them. Where they are written, and what is kept of earlier commands, is up to
rtil.runs.
"""

from __future__ import annotations

import platform
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import numpy
import torch

from rtil import kernels
from rtil.process.device import Runtime

PACKAGE = Path(__file__).resolve().parents[1]


def provenance(runtime: Runtime) -> dict[str, object]:
    """Versions, device and commit that produced a result, as JSON takes them."""
    if runtime.device.type == "cuda":
        device_name = torch.cuda.get_device_name(runtime.device)
    else:
        device_name = platform.processor() or platform.machine()
    return {
        "command": [Path(sys.argv[0]).name, *sys.argv[1:]],
        "rtil": import_module("rtil").__version__,
        "commit": _commit(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "numpy": numpy.__version__,
        "device": device_name,
        "device_type": runtime.device.type,
        "threads": torch.get_num_threads(),
        "processes": runtime.world,
        "ops": kernels.used(runtime.device),
        "precision": "fp32" if runtime.map_dtype is None else "bf16",
    }


def _commit() -> str | None:
    """Of the sources, "-dirty" where they differ from it; None where they are in no repository."""
    command = ["git", "-C", str(PACKAGE), "describe", "--always", "--dirty", "--abbrev=12"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=10, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()
