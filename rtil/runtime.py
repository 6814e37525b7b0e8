"""The process a command runs in: device, threads, ranks, seeds, signals, provenance."""

from __future__ import annotations

import ctypes
import hashlib
import os
import platform
import signal
import subprocess
import sys
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import timedelta
from pathlib import Path
from typing import NamedTuple

import numpy
import torch
import torch.distributed as dist
from omegaconf.errors import OmegaConfBaseException
from torch import Tensor, nn

from rtil import graphs
from rtil import ops as operators

PRECISIONS = {"fp32": None, "bf16": torch.bfloat16}  # type of feature maps; None: the weights'
CPUINFO = Path("/proc/cpuinfo")
PACKAGE = Path(__file__).resolve().parent
CONFIGS = next(
    (str(d) for d in (PACKAGE / "configs", PACKAGE.parent / "configs") if d.is_dir()), None
)


class Runtime(NamedTuple):
    """Device, rank of this process, number of processes, and how networks keep feature maps.

    layout: memory order. map_dtype: torch.bfloat16, or None for the weights' own type.
    """

    device: torch.device
    rank: int
    world: int
    layout: torch.memory_format
    map_dtype: torch.dtype | None = None

    def place(self, network: nn.Module) -> nn.Module:
        """Moves a generator or discriminator to the device, and sets how it keeps its maps."""
        network.map_dtype = self.map_dtype
        return network.to(self.device, memory_format=self.layout)


def start(
    device: str = "auto",
    threads: int | None = None,
    tf32: bool = True,
    channels_last: bool = True,
    ops: str = "auto",
    precision: str = "fp32",
    cuda_graphs: bool = True,
) -> Runtime:
    """Chooses the device, sets the thread count and joins the ranks that torchrun started.

    Args:
        device: auto, cpu or cuda.
        threads: CPU threads per process; None divides the cores among the processes.
        tf32: lets GPUs that have it multiply float32 matrices in TF32.
        channels_last: networks keep feature maps with channels innermost.
        ops: implementation of bias_act and upfirdn2d: auto, cuda or reference.
        precision: of feature maps and of what convolutions multiply: fp32 or bf16.
        cuda_graphs: replays the steps of an inversion on a GPU instead of starting every kernel.

    Raises:
        ValueError: an unknown device, implementation or precision.
        RuntimeError: cuda asked for where there is none, kernels where they cannot be built, or
            bf16 of a GPU without it.
    """
    if precision not in PRECISIONS:
        raise ValueError(
            f"hardware.precision={precision!r} must be {' or '.join(PRECISIONS)}; fp16 is not "
            "offered, its range is too small for the gradients."
        )
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
    if precision == "bf16":
        _check_bf16(local if cuda else None)
    torch.set_num_threads(threads or max(1, cores // world))
    _keep_large_blocks()
    if cuda:
        torch.cuda.set_device(local)
        torch.backends.cuda.matmul.allow_tf32 = tf32
        torch.backends.cudnn.allow_tf32 = tf32
    operators.set_impl(ops)
    graphs.set_graphs(cuda_graphs)
    if ops == "cuda":
        found = operators.used(torch.device("cuda", local) if cuda else torch.device("cpu"))
        if found != "cuda":
            where = "on a GPU" if cuda else "on the CPU"
            raise RuntimeError(f"hardware.ops=cuda, but {where} rtil has: {found}; use auto.")
    if world > 1 and not dist.is_initialized():
        dist.init_process_group("nccl" if cuda else "gloo", timeout=timedelta(minutes=30))
    place = torch.device("cuda", local) if cuda else torch.device("cpu")
    layout = torch.channels_last if channels_last else torch.contiguous_format
    return Runtime(place, rank, world, layout, PRECISIONS[precision])


def stop() -> None:
    """Leaves the process group, if there is one."""
    if dist.is_initialized():
        dist.destroy_process_group()


def _check_bf16(gpu: int | None) -> None:
    """Refuses bf16 on a GPU that has none; warns where a CPU does it in software.

    Args:
        gpu: index; None for the CPU.

    Raises:
        RuntimeError: a GPU older than compute capability 8.0.
    """
    if gpu is not None:
        major, minor = torch.cuda.get_device_capability(gpu)
        if major < 8:
            raise RuntimeError(
                f"hardware.precision=bf16, but {torch.cuda.get_device_name(gpu)} (compute "
                f"capability {major}.{minor}) has no bfloat16 arithmetic, which begins with 8.0; "
                "use hardware.precision=fp32."
            )
        return
    known = CPUINFO.read_text() if CPUINFO.exists() else ""
    if known and not any("bf16" in word for word in known.split()):
        warnings.warn(
            "hardware.precision=bf16: this CPU has no bfloat16 instructions (avx512_bf16, "
            "amx_bf16 or Arm's bf16), so convolutions convert to float32 and are slower than "
            "with hardware.precision=fp32.",
            stacklevel=3,
        )


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
    return torch.Generator(device=device).manual_seed(seed_of(*parts))


def seed_of(*parts: object) -> int:
    """What `seeded` seeds its generator with."""
    return int.from_bytes(hashlib.sha256(repr(parts).encode()).digest()[:8], "little") >> 1


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
        "precision": "fp32" if runtime.map_dtype is None else "bf16",
    }
