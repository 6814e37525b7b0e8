"""Requests to stop: a signal becomes a flag that a loop reads between steps."""

from __future__ import annotations

import signal
from collections.abc import Callable
from types import FrameType

import torch
import torch.distributed as dist

Handler = Callable[[int, FrameType | None], object] | int | signal.Handlers | None


class StopRequest:
    """Turns a request to stop (Ctrl-C, SIGTERM, SIGHUP) into a flag.

    A second Ctrl-C ends the process at once. Repeats of SIGTERM and SIGHUP are one request:
    schedulers send them to the launcher, which passes them on to processes that had them already.

    Use as a context manager around a loop that polls `seen()`.
    """

    def __init__(self) -> None:
        self.signum: int | None = None
        self._old: dict[int, Handler] = {}
        self._group: dist.ProcessGroup | None = None

    def __enter__(self) -> StopRequest:
        for signum in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            if signal.getsignal(signum) is not signal.SIG_IGN:  # nohup asked for that
                self._old[signum] = signal.signal(signum, self._note)
        if dist.is_initialized():
            # Of all ranks, so this process is in it, and new_group returns no marker of absence.
            self._group = dist.new_group(backend="gloo")  # type: ignore[assignment]
        return self

    def __exit__(self, *error: object) -> None:
        for signum, old in self._old.items():
            signal.signal(signum, old)

    def _note(self, signum: int, frame: object) -> None:
        self.signum = self.signum or signum
        if signum == signal.SIGINT:
            signal.signal(signal.SIGINT, self._old[signal.SIGINT])

    def seen(self) -> int | None:
        """The signal that any process was sent, or None; the same answer on every process."""
        if self._group is None:
            return self.signum
        flag = torch.tensor([self.signum or 0])
        dist.all_reduce(flag, op=dist.ReduceOp.MAX, group=self._group)
        return int(flag) or None
