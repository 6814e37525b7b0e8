"""The straightforward form in a process of its own.

rtil tells the system's allocator to keep large blocks (`rtil.process.device.start`). That holds
for a whole process, and a straightforward program does not do it, so on a CPU such a program runs
apart; the two still take turns. On a GPU memory is torch's own affair and it runs in the same
process.
"""

from __future__ import annotations

import multiprocessing
import traceback
from collections.abc import Callable
from multiprocessing.connection import Connection
from typing import Protocol

import torch

from benchmarks import flops
from benchmarks.setting import Setting


class Case(Protocol):
    """What can be timed, and have its operations counted."""

    def __call__(self, *arguments: object) -> object: ...

    def counted(self, *arguments: object) -> float: ...


class Here:
    """A case in this process."""

    def __init__(self, case: Callable) -> None:
        self.case = case

    def __call__(self, *arguments: object) -> object:
        return self.case(*arguments)

    def counted(self, *arguments: object) -> float:
        """Operations that the call executes."""
        return flops.counted(lambda: self.case(*arguments))

    def facts(self, name: str) -> object:
        """An attribute of the case."""
        return getattr(self.case, name)


class There(Here):
    """A case in a process of its own, which ends with this object's last use."""

    def __init__(self, factory: Callable[..., Callable], arguments: tuple) -> None:
        context = multiprocessing.get_context("spawn")
        self.pipe, end = context.Pipe()
        self.process = context.Process(
            target=_serve, args=(end, factory, arguments, torch.get_num_threads()), daemon=True
        )
        self.process.start()
        end.close()
        self._answer()

    def __call__(self, *arguments: object) -> object:
        return self._ask("call", arguments)

    def counted(self, *arguments: object) -> float:
        return self._ask("count", arguments)

    def facts(self, name: str) -> object:
        return self._ask("facts", (name,))

    def _ask(self, what: str, arguments: tuple) -> object:
        self.pipe.send((what, arguments))
        return self._answer()

    def _answer(self) -> object:
        failed, content = self.pipe.recv()
        if failed:
            raise RuntimeError(f"the straightforward form failed:\n{content}")
        return content

    def __del__(self) -> None:
        if hasattr(self, "process"):
            self.process.terminate()


def straightforward(
    setting: Setting, factory: Callable[..., Callable], *arguments: object
) -> Here:
    """The case that factory(*arguments) makes, where a user's own program would run it."""
    if setting.rt.device.type == "cpu":
        return There(factory, arguments)
    return Here(factory(*arguments))


def _serve(pipe: Connection, factory: Callable, arguments: tuple, threads: int) -> None:
    """The process: makes the case, then calls it as it is told, one call at a time."""
    torch.set_num_threads(threads)
    case = None
    while True:
        try:
            if case is None:
                case = Here(factory(*arguments))
                answer: object = None
            else:
                what, given = pipe.recv()
                work = {"call": case, "count": case.counted, "facts": case.facts}[what]
                answer = work(*given)
            pipe.send((False, answer))
        except EOFError:
            return
        except Exception:
            pipe.send((True, traceback.format_exc()))
            if case is None:
                return
