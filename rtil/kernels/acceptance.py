"""A build of the CUDA kernels is used only once it has passed its check on the GPU at hand.

Lives here: running the check, in a process that a broken kernel may take down with it, and the
note beside the library that it has passed. What is compared lives in rtil.kernels.verify, which
imports every operator, while rtil.kernels.dispatch, which every operator imports, needs this one.
"""

from __future__ import annotations

import contextlib
import os
import re
import subprocess
import sys
from pathlib import Path

import torch

from rtil.kernels.build import PACKAGE, BuildError

TIME_LIMIT_SECONDS = 300


def accepted(library: Path, index: int) -> None:
    """Returns once the kernels of a library have passed on a GPU, now or in an earlier process.

    Args:
        library: what rtil.kernels.build.build returned.
        index: of the CUDA device.

    Raises:
        BuildError: they did not pass; the message says what failed.
    """
    gpu = torch.cuda.get_device_name(index)
    name = re.sub(r"[^A-Za-z0-9.]+", "-", f"{gpu}-torch{torch.__version__}")
    passed = library.parent / f"passed-{name}"
    if passed.exists():
        return
    paths = [str(PACKAGE.parent), os.environ.get("PYTHONPATH", "")]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, paths))}
    try:
        done = subprocess.run(
            command(library, index),
            capture_output=True,
            text=True,
            env=environment,
            timeout=TIME_LIMIT_SECONDS,
        )
        output, code = (done.stdout + done.stderr).strip(), done.returncode
    except subprocess.TimeoutExpired:
        output, code = f"no answer in {TIME_LIMIT_SECONDS} s", 1
    if code:
        raise BuildError(
            f"the kernels were built but did not pass their check on {gpu} (exit {code}), so they "
            f"are not used; please report this:\n{output[-2000:]}"
        )
    # A cache that others own may refuse it; then the next process checks again.
    with contextlib.suppress(OSError):
        passed.write_text(output)


def command(library: Path, index: int) -> list[str]:
    """The checking process."""
    return [sys.executable, "-m", "rtil.kernels.verify", str(library), str(index)]
