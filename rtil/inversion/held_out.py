"""Held-out images of a data set, measured here and scored against themselves: a row for each.

Rows and pictures are made in `rtil.inversion.score`, written here. Measurements of the user's own
are in `rtil.inversion.user_files`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from torch import Tensor

from rtil.data.base import ImageData, to_float
from rtil.inversion import measurement_file as measurement
from rtil.inversion.batch import Measured, Part
from rtil.inversion.problem import Batch, Measuring, Problem
from rtil.inversion.score import draw, score, summary
from rtil.inversion.selection import Oracle
from rtil.inverters.inverter import Spread
from rtil.metrics.image import to_unit
from rtil.metrics.perceptual import Perceptual
from rtil.operators import ForwardOperator
from rtil.operators.task import NOISE, PER_IMAGE, describe, takes
from rtil.process.device import Runtime
from rtil.process.files import replacing
from rtil.process.lock import Owner
from rtil.runs import record, rows
from rtil.runs.keys import nested
from rtil.runs.schema import ROW
from rtil.runs.truth import looks_at_truth


@dataclass(frozen=True)
class HeldOutRun:
    """What is asked of held-out images, and where it goes.

    run_dir: images that have a row there are left out. config: resolved, for the record.
    items: numbers of the images in their split.
    selection: name of the rule that selects iterates.
    distances: perceptual ones for the scores, by the name of their column; None where not taken.
    pictures, save_measurements: whether they are written. masked: by a mask from a file.
    save_draws: whether draws of an inverter that knows its spread are written.
    """

    run_dir: Path
    config: Mapping
    items: Sequence[int]
    selection: str
    distances: Mapping[str, Perceptual | None]
    pictures: bool
    save_measurements: bool
    masked: bool
    save_draws: bool = False


class HeldOut(Problem):
    """Images of a data set with one operator, or one for each, and their rows.

    Args:
        data: the split.
        part: operator and data term.
        measuring: that it was built from, and those of single images are.
    """

    def __init__(
        self,
        data: ImageData,
        part: Part,
        measuring: Measuring,
        run: HeldOutRun,
        rt: Runtime,
    ) -> None:
        self.data, self.measuring, self.run, self.rt = data, measuring, run, rt
        self.place = run.run_dir
        self.distances = {
            name: distance and distance.to(rt.device) for name, distance in run.distances.items()
        }
        todo = self.not_done(run.items)
        self.left = bool(todo)
        self.parts = self._parts(part, todo[rt.rank :: rt.world])
        self._owner: Owner | None = None

    def _parts(self, part: Part, items: Sequence[int]) -> list[Part]:
        """The images with their operator: of one part, or a part for each."""
        if not (self.measuring.per_image and items):
            return [replace(part, items=items)]
        shape, distance = part.A.in_shape, part.loss.distance
        parts = []
        for i in items:
            own = self.measuring.part(shape, None, distance, self.data.name(i))
            parts.append(replace(own, items=[i]))
        return parts

    def not_done(self, items: Iterable[int]) -> list[int]:
        done = {row["id"] for row in rows.result_rows(self.place, ROW)}
        return [i for i in items if self.data.name(i) not in done]

    def claim(self, provenance: Mapping) -> None:
        if self.rt.rank:
            return
        self._owner = Owner(self.place, "invert")
        record.claim(self.place, self.run.config, "invert")
        facts = {**provenance, **self.data.provenance()}
        record.write_provenance(self.place, facts, self.run.config)
        for path in self.place.glob("results*.jsonl"):
            rows.mend(path, kind=ROW)  # a line that was cut off while writing

    def release(self) -> None:
        if self._owner is not None:
            self._owner.release()

    def name(self, item: int) -> str:
        return self.data.name(item)

    def measure(self, A: ForwardOperator, items: Sequence[int]) -> Measured:
        x = to_float(self.data.batch(items)).to(self.rt.device)
        y = self.measuring.measured(A, x, [self.name(i) for i in items])
        return Measured(y, x, Oracle(to_unit(x), keep=looks_at_truth(self.run.selection)))

    def keep(self, A: ForwardOperator, batch: Batch) -> None:
        names = [self.name(i) for i in batch.items]
        scores = score(names, batch, self.run.selection, self.distances)
        if self.run.pictures:
            draw(self.place / "images", names, A, batch, self.run.selection)
        if self.run.save_measurements:
            self._save(A, names, batch.measured.y)
        if self.run.save_draws and batch.found.spread is not None:
            self._save_draws(names, batch.found.spread)
        # One file a process; rows of an image come last, so they stand for all of it.
        rank = self.rt.rank
        rows.append(self.place / f"results{f'-{rank}' if rank else ''}.jsonl", scores)

    def _save(self, A: ForwardOperator, names: list[str], y: Tensor) -> None:
        """Writes measurements/<id>.npz, which `input` takes."""
        folder = self.place / "measurements"
        folder.mkdir(exist_ok=True)
        measuring = self.measuring
        described = describe(measuring.task)
        settings: dict[str, object] = {
            "image_shape": A.in_shape,
            "task": {"name": described.name, **described.options},
            NOISE: measuring.noise_std,
        }
        # A mask in the file takes the place of the knob and the seed that would draw one.
        mask = A.observed if self.run.masked else None
        if mask is None:
            settings[described.knob] = measuring.knobs[described.knob]
            if takes(measuring.task, "seed"):
                settings["seed"] = measuring.seed
            if measuring.per_image:
                settings |= nested({PER_IMAGE: True})
        for name, value in zip(names, y):
            path = folder / f"{name}.npz"
            measurement.save(path, value, {"id": name, **settings}, mask)

    def _save_draws(self, names: list[str], spread: Spread) -> None:
        """Writes draws/<id>.npz: `std` (C, H, W) and `draws` (R, C, H, W) in [-1, 1] units."""
        folder = self.place / "draws"
        folder.mkdir(exist_ok=True)
        stds, draws = spread.std.cpu().numpy(), spread.draws.cpu().numpy()
        for b, name in enumerate(names):
            with replacing(folder / f"{name}.npz") as temporary, temporary.open("wb") as file:
                np.savez(file, std=stds[b], draws=draws[:, b])

    def summarise(self) -> None:
        """Prints the means with their intervals over every row of the directory."""
        print(summary(self.place, rows.result_rows(self.place)))
        if self.run.save_draws and not (self.place / "draws").exists():
            print(
                "  save_draws=true wrote nothing: new rows of inverter=posterior have draws, and "
                "no others."
            )
        unreadable = self.data.unreadable()
        if unreadable:
            print(f"  no row: {len(unreadable)} unreadable images ({unreadable[0]}, ...)")
