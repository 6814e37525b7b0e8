"""Device, precision and threads of this process, and how it joins the others.

Lives here: what configs/hardware says (`Hardware`) and what comes of it on this machine
(`Runtime`). Sums over processes live in rtil.process.distributed.
"""

from __future__ import annotations

import ctypes
import logging
import os
import platform
import sys
import warnings
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import NamedTuple, TypeVar

import torch
import torch.distributed as dist
from torch import nn

from rtil import kernels
from rtil.process import replay

log = logging.getLogger("rtil.device")

PRECISIONS = {"fp32": None, "bf16": torch.bfloat16}  # type of feature maps; None: the weights'
CPUINFO = Path("/proc/cpuinfo")
Network = TypeVar("Network", bound=nn.Module)


@dataclass(frozen=True)
class Hardware:
    """The settings of configs/hardware.

    device: auto, cpu or cuda.
    threads: CPU threads per process; None divides the cores among the processes.
    tf32: lets GPUs that have it multiply float32 matrices in TF32.
    channels_last: networks keep feature maps with channels innermost.
    ops: implementation of bias_act and upfirdn2d: auto, cuda or reference.
    precision: of feature maps and of what convolutions multiply: fp32 or bf16.
    cuda_graphs: replays the steps of an inversion on a GPU instead of starting every kernel.
    """

    device: str = "auto"
    threads: int | None = None
    tf32: bool = True
    channels_last: bool = True
    ops: str = "auto"
    precision: str = "fp32"
    cuda_graphs: bool = True

    def __post_init__(self) -> None:
        if self.precision not in PRECISIONS:
            raise ValueError(
                f"hardware.precision={self.precision!r} must be {' or '.join(PRECISIONS)}; fp16 "
                "is not offered, its range is too small for the gradients."
            )
        if self.device not in ("auto", "cpu", "cuda"):
            raise ValueError(f"hardware.device={self.device!r} must be auto, cpu or cuda.")


class Runtime(NamedTuple):
    """Device, rank of this process, number of processes, and how networks keep feature maps.

    layout: memory order. map_dtype: torch.bfloat16, or None for the weights' own type.
    """

    device: torch.device
    rank: int
    world: int
    layout: torch.memory_format
    map_dtype: torch.dtype | None = None

    def place(self, network: Network) -> Network:
        """Moves a generator or discriminator to the device, and sets how it keeps its maps."""
        # A plain attribute of these networks, where nn.Module declares tensors and modules alone.
        network.map_dtype = self.map_dtype  # type: ignore[assignment]
        return network.to(self.device).to(memory_format=self.layout)


def start(hardware: Hardware) -> Runtime:
    """Chooses the device, sets the thread count and joins the ranks that torchrun started.

    Raises:
        RuntimeError: cuda asked for where there is none, kernels where they cannot be built, or
            bf16 of a GPU without it.
    """
    if hardware.device == "cuda" and not torch.cuda.is_available():
        raise RuntimeError(
            "hardware.device=cuda, but torch sees no CUDA device "
            f"(torch {torch.__version__}, CUDA build {torch.version.cuda}). "
            "Install a driver, or use hardware=cpu."
        )
    cuda = hardware.device != "cpu" and torch.cuda.is_available()
    rank, world, local = ranks()
    device = torch.device("cuda", local) if cuda else torch.device("cpu")
    if hardware.precision == "bf16":
        check_bf16(local if cuda else None)
    torch.set_num_threads(hardware.threads or max(1, cores() // world))
    _keep_large_blocks()
    if cuda:
        torch.cuda.set_device(local)
        torch.backends.cuda.matmul.allow_tf32 = hardware.tf32
        torch.backends.cudnn.allow_tf32 = hardware.tf32
    kernels.set_impl(hardware.ops)
    replay.set_graphs(hardware.cuda_graphs)
    if hardware.ops == "cuda":
        _check_kernels(device)
    if world > 1 and not dist.is_initialized():
        check_restarts()
        log.info("Waiting for %d processes.", world)
        dist.init_process_group("nccl" if cuda else "gloo", timeout=timedelta(minutes=30))
    layout = torch.channels_last if hardware.channels_last else torch.contiguous_format
    return Runtime(device, rank, world, layout, PRECISIONS[hardware.precision])


class Ranks(NamedTuple):
    """This process among all, how many these are, and its place on its machine."""

    rank: int
    world: int
    local: int


def ranks() -> Ranks:
    """What torchrun, or whoever started the processes, says in the environment.

    RANK counts with a WORLD_SIZE above 1 alone: batch systems set it for other reasons too.

    Raises:
        ValueError: no whole numbers, or a rank that is not below the number of processes.
    """
    values = {}
    for name, unsaid in (("RANK", "0"), ("WORLD_SIZE", "1"), ("LOCAL_RANK", "0")):
        text = os.environ.get(name, unsaid)
        if not text.strip().isdigit():
            raise ValueError(f"{name}={text} in the environment is no whole number; unset it.")
        values[name] = int(text)
    rank, world, local = values.values()
    if world <= 1:
        return Ranks(0, 1, 0)
    if rank >= world:
        raise ValueError(
            f"RANK={rank} in the environment is not below WORLD_SIZE={world}: ranks count from 0. "
            "torchrun sets both."
        )
    return Ranks(rank, world, local)


def check_restarts() -> None:
    """Refuses restarts over several machines that would meet what the last start left.

    torchrun's agents count restarts apart from each other, and lend the processes a store that
    lasts: one that restarts then finds addresses of processes that are gone, fails or waits.

    Raises:
        ValueError: names the variable with which each start has a store of its own.
    """
    said = {
        name: os.environ.get(f"TORCHELASTIC_{name}", "")
        for name in ("MAX_RESTARTS", "USE_AGENT_STORE")
    }
    several = os.environ.get("GROUP_WORLD_SIZE", "1") != "1"
    if several and said["USE_AGENT_STORE"] == "True" and said["MAX_RESTARTS"] not in ("", "0"):
        raise ValueError(
            f"torchrun --max-restarts={said['MAX_RESTARTS']} over several machines needs "
            "TORCH_DISABLE_SHARE_RDZV_TCP_STORE=1 in the environment of torchrun on each: without "
            "it processes that restart look for those of the last start."
        )


def cores() -> int:
    """CPU cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _check_kernels(device: torch.device) -> None:
    """Raises RuntimeError unless the CUDA kernels compute on the device."""
    impl = kernels.used(device)
    if impl != "cuda":
        where = "on a GPU" if device.type == "cuda" else "on the CPU"
        raise RuntimeError(f"hardware.ops=cuda, but {where} rtil has: {impl}; use auto.")


def check_bf16(gpu: int | None) -> None:
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
    features = CPUINFO.read_text().split() if CPUINFO.exists() else []
    if features and not any("bf16" in feature for feature in features):
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
