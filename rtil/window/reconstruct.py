"""A click on "reconstruct": the measurement, the linear estimate, and an inversion as it forms.

The inversion is that of `rtil.inversion`; it runs in a thread whose iterates are shown.
"""

from __future__ import annotations

import queue
import time
from collections.abc import Callable, Iterator, Sequence
from threading import Event, Thread
from typing import NamedTuple

import torch
from torch import Tensor

from rtil.inversion.batch import Measured
from rtil.inversion.estimate import Recovered
from rtil.inverters.adjoint import Adjoint
from rtil.inverters.inverter import Watch
from rtil.operators import LinearOperator
from rtil.window.picture import Picture, row, scored
from rtil.window.setup import Bench, Controls, Ready
from rtil.window.subject import Subject

PERIOD = 0.4  # seconds between iterates that are shown
FILM = 8  # iterates that stay on the page


class Stopped(RuntimeError):
    """The user has stopped an inversion."""


class Iterate(NamedTuple):
    """Iterate `number`, from 1, of an inversion that goes on."""

    number: int
    image: Tensor


class View(NamedTuple):
    """What the page shows: HTML of pictures and of iterates, and a line."""

    pictures: str
    film: str
    status: str


class Film:
    """Iterates of a run, thinned out where they become many."""

    def __init__(self) -> None:
        self.pictures: list[Picture] = []
        self.count, self.stride = 0, 1

    def add(self, picture: Picture) -> None:
        """The next iterate that is shown."""
        if self.count % self.stride == 0:
            self.pictures.append(picture)
        self.count += 1
        if len(self.pictures) > FILM:
            del self.pictures[1::2]
            self.stride *= 2


def reconstructed(
    bench: Bench, controls: Controls, subject: Subject, stop: Event
) -> Iterator[View]:
    """What the page shows from the click to the last arm's reconstruction.

    Raises:
        ValueError, FileNotFoundError: settings that do not fit; names them.
        RuntimeError: stopped, or a loss that is not finite.
    """
    image = subject.image.to(bench.rt.device)
    truth = image if subject.known else None
    pictures, films = [scored("original", image, None)], ""
    notes: list[str] = []
    for arm in bench.arms:
        ready = bench.ready(arm, controls, subject.mask)
        y = ready.measuring.measured(ready.part.A, image, [subject.name])
        if arm is bench.arms[0]:
            shown, notes = before(bench, ready, y, truth)
            pictures += shown
        yield View(row(pictures), films, " ".join([f"{arm.label}: it begins.", *notes]))
        film, begin = Film(), time.perf_counter()
        name = f"reconstruction, {arm.label}"
        for found in watched(ready, y, subject.name, stop):
            seconds = time.perf_counter() - begin
            if isinstance(found, Iterate):
                where = step_of(found.number, ready.steps)
                now = scored(name, found.image, truth)
                film.add(scored(where, found.image, truth))
                status = f"{arm.label}: {where}, {seconds:.0f} s."
                strip = row(film.pictures, small=True, name=arm.label)
                yield View(row([*pictures, now]), films + strip, " ".join([status, *notes]))
                continue
            pictures += after(name, found, ready, y, truth)
            films += row(film.pictures, small=True, name=arm.label)
            notes.append(f"{arm.label}: {seconds:.1f} s.")
    yield View(row(pictures), films, " ".join(["Done.", *notes]))


def before(
    bench: Bench, ready: Ready, y: Tensor, truth: Tensor | None
) -> tuple[list[Picture], list[str]]:
    """The measurement and the linear estimate, and notes on what there is none of."""
    A, noise_std = ready.part.A, ready.measuring.noise_std
    pictures: list[Picture] = []
    notes: list[str] = []
    shown = A.measurement_image(y)
    count = f"{A.num_measurements} numbers"
    if shown is None:
        notes.append(f"The measurement is {count}, no picture.")
    else:
        pictures.append(Picture("measurement", shown[0], count))
    if not isinstance(A, LinearOperator):
        return pictures, [*notes, "No linear estimate: the operator is not linear."]
    try:
        fitted = bench.linear
    except (FileNotFoundError, ValueError) as error:
        line = str(error).splitlines()[0]
        notes.append(f"No training images, so the pseudo-inverse is shown ({line}).")
        estimate = Adjoint(noise_std).estimate(A, y)
        return [*pictures, scored("pseudo-inverse", estimate, truth)], notes
    # The covariance is that of the images; only the noise is another at each click.
    estimate = type(fitted)(noise_std, prior=fitted.prior).estimate(A, y)
    return [*pictures, scored("linear estimate", estimate, truth)], notes


def after(
    name: str, found: Recovered, ready: Ready, y: Tensor, truth: Tensor | None
) -> list[Picture]:
    """The reconstruction, with given pixels kept where they are exact, and its uncertainty."""
    A, spread = ready.part.A, found.spread
    pictures = [scored(name, found.image, truth)]
    if A.observed is not None and not ready.measuring.noise_std:
        whole = torch.where(A.observed, y, found.image)
        pictures.append(scored("with the given pixels", whole, truth))
    if spread is not None:
        # Half, as units are those of the [0, 1] image; the largest is white.
        std = spread.std[0] / 2
        largest = std.max().clamp_min(1e-12)
        note = f"white: ±{float(largest):.2f} of 1"
        pictures.append(Picture("uncertainty (std)", 2 * std / largest - 1, note))
    return pictures


def step_of(number: int, steps: Sequence[int]) -> str:
    """Which stage an iterate is of, and its number there; a stage of n steps has n + 1."""
    for stage, count in enumerate(steps):
        if number <= count + 1:
            return f"stage {stage}, step {number}"
        number -= count + 1
    return f"step {number}"


def watched(ready: Ready, y: Tensor, name: str, stop: Event) -> Iterator[Iterate | Recovered]:
    """Iterates as they come, `PERIOD` apart, then what is `Recovered`.

    Raises what the inversion raises, and `Stopped` within a step of `stop`.
    """
    waiting: queue.Queue[Iterate | Recovered | Exception] = queue.Queue()
    gone = Event()  # of this inversion: the page was closed
    watch = _watch(waiting.put, lambda: stop.is_set() or gone.is_set())

    def work() -> None:
        method = ready.method
        measured = Measured(y, watch=watch)
        try:
            starts = method.starts([name])
            waiting.put(method.recovery(method.inverter, method.G, ready.part, measured, starts))
        except Exception as error:
            waiting.put(error)

    Thread(target=work, daemon=True).start()
    try:
        while True:
            found = waiting.get()
            if isinstance(found, Exception):
                raise found
            yield found
            if not isinstance(found, Iterate):
                return
    finally:
        gone.set()


def _watch(show: Callable[[Iterate], None], ends: Callable[[], bool]) -> Watch:
    count, last = 0, 0.0

    def watch(image: Tensor) -> None:
        nonlocal count, last
        count += 1
        if ends():
            raise Stopped(f"Stopped at iterate {count}.")
        now = time.monotonic()
        if now - last >= PERIOD:
            last = now
            show(Iterate(count, image[:1].detach().clone()))

    return watch
