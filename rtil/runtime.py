"""The process a command runs in: device, threads, ranks, seeds, signals, provenance."""

from __future__ import annotations

import ctypes
import hashlib
import os
import platform
import signal
import subprocess
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import timedelta
from pathlib import Path
from typing import NamedTuple

import numpy
import torch
import torch.distributed as dist
from omegaconf.errors import OmegaConfBaseException
from torch import Tensor

from rtil import ops as operators

PACKAGE = Path(__file__).resolve().parent
CONFIGS = next(
    (str(d) for d in (PACKAGE / "configs", PACKAGE.parent / "configs") if d.is_dir()), None
)


class Runtime(NamedTuple):
    """Device, rank of this process, number of processes, and layout of feature maps."""

    device: torch.device
    rank: int
    world: int
    layout: torch.memory_format


def start(
    device: str = "auto",
    threads: int | None = None,
    tf32: bool = True,
    channels_last: bool = True,
    ops: str = "auto",
) -> Runtime:
    """Chooses the device, sets the thread count and joins the ranks that torchrun started.

    Args:
        device: auto, cpu or cuda.
        threads: CPU threads per process; None divides the cores among the processes.
        tf32: lets GPUs that have it multiply float32 matrices in TF32.
        channels_last: networks keep feature maps with channels innermost.
        ops: implementation of bias_act and upfirdn2d: auto, cuda or reference.

    Raises:
        ValueError: an unknown device or implementation.
        RuntimeError: cuda asked for where there is none, or kernels where they cannot be built.
    """
    if device not in ("auto", "cpu", "cuda"):
        raise ValueError(f"hardware.device={device!r} must be auto, cpu or cuda.")
    if device == "cuda" and not torch.cuda.is_available():
        raise RuntimeError(
            "hardware.device=cuda, but torch sees no CUDA device "
            f"(torch {torch.__version__}, CUDA build {torch.version.cuda}). "
            "Install a driver, or use hardware=cpu."
        )
    cuda = device != "cpu" and torch.cuda.is_available()
    rank, world = int(os.environ.get("RANK", 0)), int(os.environ.get("WORLD_SIZE", 1))
    local = int(os.environ.get("LOCAL_RANK", 0))
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    torch.set_num_threads(threads or max(1, cores // world))
    _keep_large_blocks()
    if cuda:
        torch.cuda.set_device(local)
        torch.backends.cuda.matmul.allow_tf32 = tf32
        torch.backends.cudnn.allow_tf32 = tf32
    operators.set_impl(ops)
    if ops == "cuda":
        found = operators.used(torch.device("cuda", local) if cuda else torch.device("cpu"))
        if found != "cuda":
            where = "on a GPU" if cuda else "on the CPU"
            raise RuntimeError(f"hardware.ops=cuda, but {where} rtil has: {found}; use auto.")
    if world > 1 and not dist.is_initialized():
        dist.init_process_group("nccl" if cuda else "gloo", timeout=timedelta(minutes=30))
    place = torch.device("cuda", local) if cuda else torch.device("cpu")
    layout = torch.channels_last if channels_last else torch.contiguous_format
    return Runtime(place, rank, world, layout)


def stop() -> None:
    """Leaves the process group, if there is one."""
    if dist.is_initialized():
        dist.destroy_process_group()


def _keep_large_blocks() -> None:
    """Tells glibc to reuse large blocks instead of returning them to the system.

    Feature maps pass its threshold for mapping memory afresh, so every step would fault its
    pages in anew. No effect on results; not available on other C libraries.
    """
    if sys.platform == "linux" and platform.libc_ver()[0] == "glibc":
        libc = ctypes.CDLL(None)
        m_trim_threshold, m_mmap_max = -1, -4  # names of malloc.h
        libc.mallopt(m_mmap_max, 0)
        libc.mallopt(m_trim_threshold, -1)


def entry(work: Callable[[], int | None]) -> None:
    """Runs an entry point: a bad setting ends it with its message and code 1, not a traceback.

    Args:
        work: returns the number of the signal that stopped it, or None.
    """
    try:
        signum = work()
    except KeyboardInterrupt:
        signum = signal.SIGINT
    except (ValueError, TypeError, RuntimeError, OSError, OmegaConfBaseException) as error:
        if os.environ.get("HYDRA_FULL_ERROR") == "1":
            raise
        text = f"error: {error}\n(set HYDRA_FULL_ERROR=1 for the traceback)"
        print(text, file=sys.stderr, flush=True)
        sys.exit(1)
    if signum:
        sys.exit(128 + signum)


def check_numbers(who: str, settings: Mapping, lowest: Mapping[str, float]) -> None:
    """Checks settings that are numbers, before anything is read or computed.

    Args:
        who: entry point, for the message.
        settings: key to value; keys that it lacks are passed over.
        lowest: smallest value allowed of each key; a whole number asks for whole numbers.

    Raises:
        ValueError: not a number, or too small.
    """
    for key, low in lowest.items():
        found = settings.get(key, low)
        many = isinstance(found, Sequence) and not isinstance(found, str)
        kinds = int if isinstance(low, int) else (int, float)
        for value in found if many else [found]:
            if not isinstance(value, kinds) or isinstance(value, bool) or not value >= low:
                kind = "a whole number" if isinstance(low, int) else "a number"
                raise ValueError(f"{who}: {key}={value} must be {kind} from {low} up.")


def seeded(device: torch.device | str, *parts: object) -> torch.Generator:
    """A generator whose stream depends on the parts alone, e.g. (seed, image id, "noise")."""
    digest = hashlib.sha256(repr(parts).encode()).digest()
    return torch.Generator(device=device).manual_seed(int.from_bytes(digest[:8], "little") >> 1)


def all_sum(x: Tensor) -> Tensor:
    """Sum of x over all processes."""
    if dist.is_initialized():
        x = x.clone()
        dist.all_reduce(x)
    return x


def average_gradients(parameters: Iterable[Tensor]) -> None:
    """Replaces gradients by their mean over processes, in one all-reduce of a flat vector."""
    if not dist.is_initialized():
        return
    grads = [p.grad for p in parameters if p.grad is not None]
    flat = torch.cat([g.flatten() for g in grads])
    dist.all_reduce(flat)
    flat /= dist.get_world_size()
    for grad, part in zip(grads, flat.split([g.numel() for g in grads])):
        grad.copy_(part.view_as(grad))


class StopRequest:
    """Turns the first Ctrl-C or SIGTERM into a flag; a second one ends the process at once.

    Use as a context manager around a loop that polls `seen()`.
    """

    def __init__(self) -> None:
        self.signum: int | None = None
        self._old: dict[int, object] = {}
        self._group = None

    def __enter__(self) -> StopRequest:
        for signum in (signal.SIGINT, signal.SIGTERM):
            self._old[signum] = signal.signal(signum, self._note)
        if dist.is_initialized():
            self._group = dist.new_group(backend="gloo")
        return self

    def __exit__(self, *error: object) -> None:
        for signum, old in self._old.items():
            signal.signal(signum, old)

    def _note(self, signum: int, frame: object) -> None:
        self.signum = signum
        for number, old in self._old.items():
            signal.signal(number, old)

    def seen(self) -> int | None:
        """The signal that any process was sent, or None; the same answer on every process."""
        if self._group is None:
            return self.signum
        flag = torch.tensor([self.signum or 0])
        dist.all_reduce(flag, op=dist.ReduceOp.MAX, group=self._group)
        return int(flag) or None


def provenance(runtime: Runtime) -> dict[str, object]:
    """Versions, device and commit that produced a result."""
    try:
        commit = subprocess.run(
            ["git", "-C", str(PACKAGE), "describe", "--always", "--dirty", "--abbrev=12"],
            capture_output=True, text=True, timeout=10, check=True,
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
        "device": torch.cuda.get_device_name(runtime.device) if cuda else platform.processor()
        or platform.machine(),
        "device_type": runtime.device.type,
        "threads": torch.get_num_threads(),
        "processes": runtime.world,
        "ops": operators.used(runtime.device),
    }
