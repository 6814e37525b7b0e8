"""CUDA graphs of an optimisation step: one launch a step instead of one for each of its kernels.

A step of inversion on small images takes a GPU less time than Python takes to start its kernels.
Recorded once, it is replayed as a whole; the kernels, their order and their inputs are those of
the step run by Python.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator

import torch
from torch import Tensor

log = logging.getLogger("rtil.inverters")

WARM = 3  # steps run before recording: libraries choose algorithms and take workspace in them
FEWEST = 20  # steps below which recording costs more than it saves

_enabled = True
_failed = False


def set_graphs(enabled: bool) -> None:
    """Whether steps on a GPU are replayed (config key hardware.cuda_graphs)."""
    global _enabled, _failed
    _enabled, _failed = enabled, False


def wanted(device: torch.device, steps: int) -> bool:
    """Whether an optimisation of so many steps on this device is to be replayed."""
    return _enabled and not _failed and device.type == "cuda" and steps >= FEWEST


def repeated(step: Callable[[], Tensor], times: int) -> Iterator[Tensor]:
    """Runs a step so many times on the current GPU and yields what it returns each time.

    The first WARM are run as they are, then one is recorded and replayed. A step that cannot be
    recorded, because it waits for the device or copies from the host, is run as it is, with one
    warning.

    Args:
        step: works on tensors that stay in place, so that running it again goes on from them;
            depends on nothing else that changes. Its result may be overwritten by the next run.

    Raises:
        torch.OutOfMemoryError: recording holds a step's memory beside what is cached already.
    """
    global _failed
    here = torch.cuda.current_stream()
    side = torch.cuda.Stream()
    warm = min(WARM, times)
    side.wait_stream(here)
    for _ in range(warm):
        with torch.cuda.stream(side):
            result = step()
        here.wait_stream(side)
        yield result
        side.wait_stream(here)
    if times == warm:
        return
    graph = torch.cuda.CUDAGraph()
    try:
        with torch.cuda.graph(graph, stream=side):
            result = step()
    except torch.OutOfMemoryError:
        raise
    except RuntimeError as error:
        _failed = True
        torch.cuda.synchronize()
        log.warning(
            "A step of this inversion cannot be recorded as a CUDA graph and is run kernel by "
            "kernel, which is slower: %s (hardware.cuda_graphs=false silences this)",
            str(error).split("\n")[0],
        )
        for _ in range(times - warm):
            yield step()
        return
    for _ in range(times - warm):
        graph.replay()
        yield result
