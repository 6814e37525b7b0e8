"""What produced a result: command, versions, device, commit."""

from __future__ import annotations

import platform
import subprocess
import sys
from pathlib import Path

import numpy
import torch

from rtil import kernels
from rtil.process.device import Runtime

PACKAGE = Path(__file__).resolve().parents[1]


def provenance(runtime: Runtime) -> dict[str, object]:
    """Versions, device and commit that produced a result."""
    try:
        commit = subprocess.run(
            ["git", "-C", str(PACKAGE), "describe", "--always", "--dirty", "--abbrev=12"],
            capture_output=True,
            text=True,
            timeout=10,
            check=True,
        ).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        commit = None
    cuda = runtime.device.type == "cuda"
    return {
        "command": [Path(sys.argv[0]).name, *sys.argv[1:]],
        "rtil": __import__("rtil").__version__,
        "commit": commit,
        "python": platform.python_version(),
        "torch": torch.__version__,
        "numpy": numpy.__version__,
        "device": torch.cuda.get_device_name(runtime.device)
        if cuda
        else platform.processor() or platform.machine(),
        "device_type": runtime.device.type,
        "threads": torch.get_num_threads(),
        "processes": runtime.world,
        "ops": kernels.used(runtime.device),
        "precision": "fp32" if runtime.map_dtype is None else "bf16",
    }
