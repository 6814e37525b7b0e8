"""What a long command shows while it runs, and what it says at its end.

A terminal has a bar; a log has a line now and then, with what is done and the time left. Every
loop that may take minutes goes through `Progress` or `tracked`, every command ends in `finished`.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import TypeVar

from tqdm import tqdm

from rtil.process.command import in_sweep

T = TypeVar("T")
TICK = 30.0  # seconds between lines of a log
DELAY = 2.0  # seconds before the bar of a part of a command appears


class Progress:
    """How much of a command is done.

    Args:
        total: how much there is, in `unit`. first: how much an earlier command did.
        label: of what. shown: whether this process shows it.
        stays: whether the bar stays at the end.
        clock: seconds.
    """

    def __init__(
        self,
        total: int,
        unit: str,
        first: int = 0,
        label: str = "",
        *,
        shown: bool = True,
        stays: bool = True,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.total, self.unit, self.label, self.clock = total, unit, label, clock
        self.first = self.done = first
        self.begin = self.told = clock()
        self.note = ""
        self.in_log = shown and not sys.stderr.isatty()
        self.bar = tqdm(
            desc=label or None,
            total=total,
            initial=first,
            unit=unit,
            dynamic_ncols=True,
            mininterval=0.5,
            leave=stays,
            delay=0 if stays else DELAY,
            disable=self.in_log or not shown,
        )

    def to(self, done: int, note: str = "") -> None:
        """Moves to what is done by now; the note stands beside it."""
        self.done, self.note = min(done, self.total), note or self.note
        self.bar.set_postfix_str(self.note, refresh=False)
        self.bar.update(self.done - self.bar.n)
        now = self.clock()
        if self.in_log and now - self.told >= TICK:
            self.told = now
            print(self.line(now - self.begin), file=sys.stderr, flush=True)

    def step(self, count: int = 1) -> None:
        """Moves on by as much."""
        self.to(self.done + count)

    def line(self, seconds: float) -> str:
        """A line of a log, so many seconds after the begin."""
        start = f"{self.label}: " if self.label else ""
        line = f"{start}{self.done} of {self.total} {self.unit}"
        moved = self.done - self.first
        if moved and seconds > 0:
            left = seconds / moved * (self.total - self.done)
            line += f", {moved / seconds:.3g} {self.unit}/s, {tqdm.format_interval(left)} left"
        return f"{line}, {self.note}" if self.note else line

    def close(self) -> None:
        """Ends the bar."""
        self.bar.close()


def tracked(items: Iterable[T], total: int, unit: str, label: str = "") -> Iterator[T]:
    """The items of a part of a command, with its progress."""
    progress = Progress(total, unit, label=label, stays=False)
    try:
        for item in items:
            yield item
            progress.step()
    finally:
        progress.close()


def finished(wrote: str | Path, *following: str) -> None:
    """Says what a command wrote and, outside of a sweep, what may be typed next."""
    print("Wrote into this folder" if str(wrote) == "." else f"Wrote {wrote}")
    if following and not in_sweep():
        print("\n".join(["Next:", *(f"  {line}" for line in following)]), flush=True)
