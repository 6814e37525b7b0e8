"""CUDA graphs: a step recorded once and launched as one, instead of kernel by kernel.

A step on small images takes a GPU less time than Python takes to start its kernels. Replayed, the
kernels, their order and their inputs are those of the step run by Python: `repeated` does it for
the steps of an inversion, `Recorder` for the parts of a training step.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Hashable, Iterator, Sequence
from typing import TYPE_CHECKING, TypeVar

import torch
from torch import Tensor

if TYPE_CHECKING:
    from torch.cuda import _POOL_HANDLE

log = logging.getLogger("rtil.process.replay")

WARM = 3  # runs before recording: libraries choose algorithms and take workspace in them
FEWEST = 20  # steps of an inversion below which recording costs more than it saves
MOST = 64  # recorded parts; a training that asks for more has too many members to record

T = TypeVar("T")
_enabled = True
Noted = list[tuple[str, Tensor, tuple[str, ...]]]


def set_graphs(enabled: bool) -> None:
    """Whether steps on a GPU are replayed (config key hardware.cuda_graphs)."""
    global _enabled
    _enabled = enabled


def wanted(device: torch.device, steps: int = FEWEST) -> bool:
    """Whether so many steps on this device are to be replayed."""
    return _enabled and device.type == "cuda" and steps >= FEWEST


def aside(work: Callable[[], T], side: torch.cuda.Stream) -> T:
    """Runs work on another stream, between what comes before and after it on this one."""
    here = torch.cuda.current_stream()
    side.wait_stream(here)
    with torch.cuda.stream(side):
        result = work()
    here.wait_stream(side)
    return result


def recorded(
    work: Callable[[], T],
    side: torch.cuda.Stream,
    pool: _POOL_HANDLE | None = None,
    rngs: Sequence[torch.Generator] = (),
) -> tuple[torch.cuda.CUDAGraph, T]:
    """The graph of what `work` starts, and its result; nothing of it has been computed then.

    Args:
        side: stream that the runs before this one used.
        pool: memory shared with other graphs of which one runs at a time.
        rngs: on the GPU, read by `work`; each replay draws from their states at that time.

    Raises:
        RuntimeError: it cannot be recorded because it waits for the device, copies from the host
            or finds no memory. `rngs` cannot be used any more then.
    """
    graph = torch.cuda.CUDAGraph()
    for rng in rngs:
        graph.register_generator_state(rng)
    with torch.cuda.graph(graph, pool=pool, stream=side):
        result = work()
    return graph, result


def repeated(step: Callable[[], Tensor], times: int, replay: bool) -> Iterator[Tensor]:
    """Runs a step so many times and yields what it returns each time.

    To replay, the first WARM are run as they are, then one is recorded on the current GPU; one
    that cannot be recorded is run as it is.

    Args:
        step: works on tensors that stay in place, so that running it again goes on from them;
            depends on nothing else that changes. Its result may be overwritten by the next run.
    """
    if not replay:
        for _ in range(times):
            yield step()
        return
    side = torch.cuda.Stream()
    for _ in range(min(WARM, times)):
        yield aside(step, side)
    if times <= WARM:
        return
    recording, reason = None, ""
    try:
        recording = recorded(step, side)
    except RuntimeError as error:
        reason = first_line(error)
    # Past the except, where the error would hold memory.
    if reason:
        set_graphs(False)
        torch.cuda.synchronize()
        torch.cuda.empty_cache()
        log.warning(
            "A step cannot be recorded as a CUDA graph and is started kernel by kernel, which is "
            "slower: %s (hardware.cuda_graphs=false silences this)",
            reason,
        )
    for _ in range(times - WARM):
        if recording is None:
            yield step()
        else:
            graph, result = recording
            graph.replay()
            yield result


def first_line(error: Exception) -> str:
    """The first line of its message."""
    return str(error).split("\n")[0] or type(error).__name__


class Recorder:
    """Runs parts of a training step, replaying those that have come WARM times before.

    A part is a function without arguments that works on tensors which stay in place, draws from
    `rngs` alone, and returns what it notes: (name, values, members) of losses.

    Args:
        rngs: generators on the device. enabled: False runs every part as it is.
    """

    def __init__(self, rngs: Sequence[torch.Generator], enabled: bool) -> None:
        self.rngs, self.enabled = tuple(rngs), enabled
        self.stage: Hashable = None
        self.parts: dict[Hashable, tuple[torch.cuda.CUDAGraph, Noted]] = {}
        self.runs: Counter = Counter()
        self.held: dict[tuple[int, ...], Tensor] = {}
        self.side = torch.cuda.Stream() if enabled else None
        self.pool = torch.cuda.graph_pool_handle() if enabled else None

    def __call__(self, stage: Hashable, key: Hashable, part: Callable[[], Noted]) -> Noted:
        """Runs a part; what it noted stays valid.

        Args:
            stage: of growing; graphs of another one are dropped.
            key: all else that decides which kernels the part starts, and on what.

        Raises:
            RuntimeError: a part cannot be recorded; says how to train without.
        """
        if not self.enabled:
            return part()
        if stage != self.stage:
            self.stage = stage
            self.parts.clear()
            self.runs.clear()
        if key not in self.parts and self.runs[key] >= WARM and len(self.parts) < MOST:
            try:
                self.parts[key] = self.record(part)
            except RuntimeError as error:
                raise RuntimeError(
                    f"train: the part {key} of a step cannot be recorded as a CUDA graph: "
                    f"{first_line(error)}. The same command with hardware.cuda_graphs=false "
                    "trains without, from the last checkpoint on."
                ) from error
        if key in self.parts:
            graph, noted = self.parts[key]
            graph.replay()
            return [(name, values.clone(), members) for name, values, members in noted]
        self.runs[key] += 1
        return self.run(part)

    def hold(self, x: Tensor) -> Tensor:
        """x where parts may read it: with recording always at one place for each shape."""
        return self.held.setdefault(tuple(x.shape), x).copy_(x) if self.enabled else x

    def record(self, part: Callable[[], Noted]) -> tuple[torch.cuda.CUDAGraph, Noted]:
        """The graph of a part and where it notes."""
        assert self.side is not None, "only a Recorder that is enabled records"
        return recorded(part, self.side, self.pool, self.rngs)

    def run(self, part: Callable[[], Noted]) -> Noted:
        """Runs a part as it is, beside the stream of the others."""
        assert self.side is not None, "only a Recorder that is enabled has a stream"
        return aside(part, self.side)
