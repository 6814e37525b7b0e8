"""Inverting measurements of the user's own: `python -m rtil.invert input=photo.png ...`.

There is no true image, so nothing is scored: a record beside each reconstruction says how well it
explains its measurement. What may be given is checked in `rtil.inversion.survey`.
"""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from rtil.data.base import to_float, to_uint8
from rtil.data.picture import pixels
from rtil.inversion import measurement_file as measurement
from rtil.inversion.batch import Measured, Part
from rtil.inversion.item import Item
from rtil.inversion.problem import Batch, Measuring, Problem
from rtil.inversion.survey import DRAWN, RESULT, STD
from rtil.inversion.units import check_range, reach
from rtil.operators import ForwardOperator
from rtil.operators.task import NOISE, takes
from rtil.process.device import Runtime
from rtil.process.files import write_text
from rtil.runs import keys, schema

log = logging.getLogger("rtil.inversion.user_files")


@dataclass(frozen=True)
class UserRun:
    """What is asked of the user's files, and where it goes.

    input: the file or folder. output: directory of the results; None: beside the input.
    fit: how pictures of another size are scaled, one of `measurement_file.FITS`.
    keep_observed: whether observed pixels stay as given.
    config: resolved, with the two above as they are here, for the records.
    """

    input: Path
    output: Path | None
    fit: str
    keep_observed: bool
    config: Mapping


class UserFiles(Problem):
    """Measurements in files; a picture and a record of each reconstruction beside its file.

    Args:
        items: from `survey`.
        measuring: how they were measured.
        run: what is asked of them.
        shape: (C, H, W) of the generator's images.

    Raises:
        ValueError: a measurement that does not fit the generator, or results that are in the way.
    """

    def __init__(
        self,
        items: Sequence[Item],
        measuring: Measuring,
        run: UserRun,
        shape: tuple[int, int, int],
        rt: Runtime,
    ) -> None:
        self.items, self.measuring, self.run = list(items), measuring, run
        self.shape, self.rt = shape, rt
        self.place = self._place()
        parts, members = self._grouped()
        left = [n for n, item in enumerate(self.items) if not self._is_done(item)]
        self.left = bool(left)
        self.done = {*range(len(self.items))} - {*left}
        own = left[rt.rank :: rt.world]
        self.parts = [
            replace(part, items=[n for n in own if members[n] == key])
            for key, part in parts.items()
        ]
        self._warn_of_lost_colour()

    def _grouped(self) -> tuple[dict[bytes, Part], list[bytes]]:
        """A part for each operator by its key, and the key of each item, whose fit is checked.

        A mask of a file is known by its bytes, an operator that one image draws by its name.
        """
        parts: dict[bytes, Part] = {}
        reaches: dict[bytes, float] = {}
        members = []
        for item in self.items:
            if item.masked:
                self._check(item, self.shape)
            mask = self._mask(item) if item.masked else None
            image = item.stream if mask is None and self.measuring.per_image else None
            key = (image or "").encode() if mask is None else mask.numpy().tobytes()
            if key not in parts:
                # A distance is loaded once, for the first part, where the loss has one at all.
                first = next(iter(parts.values()), None)
                distance = None if first is None else first.loss.distance
                parts[key] = self.measuring.part(self.shape, mask, distance, image)
                reaches[key] = reach(parts[key].A)
            members.append(key)
            self._check(item, parts[key].A.out_shape)
            self._check_values(item, parts[key].A, reaches[key])
        return parts, members

    def _warn_of_lost_colour(self) -> None:
        lost = [item.path.name for item in self.items if item.colour and self.shape[0] == 1]
        if lost and self.rt.rank == 0:
            more = f" and {len(lost) - 1} more" if lost[1:] else ""
            log.warning(
                "The generator draws grey images; no colour is left of %s%s.", lost[0], more
            )

    def _place(self) -> Path:
        """Where results go: beside the file, or in a folder beside the folder.

        Raises:
            ValueError: it is not writable.
        """
        source = self.run.input
        if source.name in ("", ".."):
            source = source.resolve()
        place = source.with_name(f"{source.name}{RESULT}") if source.is_dir() else source.parent
        if self.run.output:
            place = self.run.output
        parent = next(p for p in (place.absolute(), *place.absolute().parents) if p.exists())
        if not parent.is_dir() or not os.access(parent, os.W_OK):
            raise ValueError(f"invert: results cannot be written to {place}; choose output=DIR.")
        return place

    def _mask(self, item: Item) -> Tensor:
        """Which pixels a file says are observed, (H, W) bool of the generator's size."""
        size = f"{self.shape[2]}x{self.shape[1]}"
        if self._scales(item):
            observed = self._picture(item)[1]
        elif item.mask:
            observed = measurement.read_mask(item.mask, item.limits)
        else:
            observed = self._saved(item).mask
        assert observed is not None  # of items with a mask alone
        if tuple(observed.shape) != self.shape[1:]:
            height, width = observed.shape
            raise ValueError(
                f"invert: {item.path} has a mask of {width}x{height} pixels and the "
                f"generator draws {size}; both must have the same size."
            )
        if not observed.any():
            raise ValueError(
                f"invert: {item.path} has no observed pixel left at {size} pixels "
                f"with fit={self.run.fit}."
            )
        if observed.all() and self.rt.rank == 0:  # of the scaled mask alone: see `fitted`
            log.warning("%s: at %s pixels nothing is left of what is missing.", item.path, size)
        return observed

    def _check(self, item: Item, out_shape: tuple[int, ...]) -> None:
        """Raises ValueError where a measurement is not of the shape that A measures."""
        name = self.measuring.task["name"]
        knob = self.measuring.knob
        # A mask takes the place of the knob, and noise does not change a shape.
        shown = "" if item.masked or knob == NOISE else f" {knob}={self.measuring.knobs[knob]}"
        measures = f"task={name}{shown} of {self.shape} images measures"
        if item.image_shape not in (None, self.shape):
            raise ValueError(
                f"invert: {item.path} measures images {item.image_shape} and the "
                f"generator draws {self.shape} (channels, height, width)."
            )
        if item.saved and item.shape != out_shape:
            raise ValueError(
                f"invert: {item.path} holds y of shape {item.shape}; {measures} {out_shape}."
            )
        if not item.saved and not self._scales(item) and item.shape != out_shape[1:]:
            height, width = item.shape
            hint = ""
            if takes(self.measuring.task, "mask"):
                hint = (
                    " Scale it and its mask with fit=crop, which takes the middle square, or "
                    "fit=resize, which stretches."
                )
            raise ValueError(
                f"invert: {item.path} has {width}x{height} pixels; {measures} "
                f"{out_shape[2]}x{out_shape[1]}.{hint}"
            )

    def _check_values(self, item: Item, A: ForwardOperator, largest: float) -> None:
        """Raises ValueError where y cannot come from A, or from the mask that is drawn for it.

        Args:
            largest: see `units.reach`.
        """
        if not item.saved:
            return
        saved = self._saved(item)
        if A.observed is not None and not item.masked:
            self._check_drawn(item, saved, A.observed)
        try:
            seen = saved.y if A.observed is None else saved.y * A.observed
            check_range(seen, largest, self.measuring.noise_std)
        except ValueError as error:
            raise ValueError(f"invert: {item.path}: {error}") from error

    def _check_drawn(self, item: Item, saved: measurement.Saved, observed: Tensor) -> None:
        """Raises ValueError where y says something of pixels that are not observed."""
        blank = -1 if saved.as_pixels else 0
        unobserved = int((saved.y[..., ~observed] != blank).sum())
        if unobserved:
            knob = self.measuring.knob
            raise ValueError(
                f"invert: {item.path}: {unobserved} numbers of y are not 0 where the mask of "
                f"{knob}={self.measuring.knobs[knob]} seed={self.measuring.seed} observes "
                f"nothing. Give the {knob} and seed of the measurement, or mask=FILE."
            )

    def _scales(self, item: Item) -> bool:
        """Whether a picture has to be brought to the generator's size, and may be."""
        return not item.saved and self.run.fit != "error" and item.shape != self.shape[1:]

    def _picture(self, item: Item) -> tuple[Tensor, Tensor | None]:
        """A picture (c, h, w), uint8, in the generator's channels, and its mask."""
        mode = "L" if self.shape[0] == 1 else "RGB"
        image = measurement.read_picture(item.path, item.limits).convert(mode)
        observed = measurement.read_mask(item.mask, item.limits) if item.mask else None
        array = np.array(pixels(image))
        if self._scales(item):
            array, observed = measurement.fitted(image, observed, self.shape[1], self.run.fit)
        return torch.from_numpy(array), observed

    def _saved(self, item: Item) -> measurement.Saved:
        return measurement.load(item.path, item.limits)

    def _files(self, item: Item) -> tuple[Path, Path, Path]:
        """Record, the generator's own image, reconstruction: in the order of writing."""
        return (
            self.place / f"{item.name}{RESULT}.json",
            self.place / f"{item.name}{DRAWN}.png",
            self.place / f"{item.name}{RESULT}.png",
        )

    def _std_file(self, item: Item) -> Path:
        """The standard deviation, of inverters that know it."""
        return self.place / f"{item.name}{STD}.png"

    def _is_done(self, item: Item) -> bool:
        """Whether the reconstruction asked for is on disk.

        Raises:
            ValueError: something else is there under its name.
        """
        record, drawn, picture = self._files(item)
        advice = "Move it out of the way, or choose output=DIR."
        if not record.exists():
            for path in (drawn, picture, self._std_file(item)):
                if path.exists():
                    raise ValueError(f"invert: {path} exists without a record of it. {advice}")
            return False
        other = f"So it is no record of a reconstruction. {advice}"
        old = schema.read_json(record, schema.RECONSTRUCTION, other)["settings"]
        differs = keys.differing_keys(old, self._settings(item), keys.matters_to_files)
        if differs:
            raise ValueError(
                f"invert: {picture} was made under other settings:\n  "
                + "\n  ".join(differs)
                + f"\n{advice}"
            )
        return picture.exists() and (drawn.exists() or not self.run.keep_observed)

    def _settings(self, item: Item) -> dict:
        """What its reconstruction depends on; no knob draws a mask where a file holds one."""
        drawn = {self.measuring.knob: None} if item.masked else {}
        return {**self.run.config, **drawn, **item.sha256}

    def claim(self, provenance: Mapping) -> None:
        self.place.mkdir(parents=True, exist_ok=True)
        self.provenance = dict(provenance)

    def not_done(self, items: Iterable[int]) -> list[int]:
        return [*items]

    def release(self) -> None:
        """Nothing is held: results lie beside the user's files, in a folder of their own."""

    def name(self, item: int) -> str:
        return self.items[item].stream

    def measure(self, A: ForwardOperator, items: Sequence[int]) -> Measured:
        """y as given; 0 where a mask observes nothing, as in A x."""
        values = []
        for item in (self.items[i] for i in items):
            if item.saved:
                values.append(self._saved(item).y)
            else:
                values.append(to_float(self._picture(item)[0]))
        y = torch.stack(values).to(self.rt.device)
        return Measured(y if A.observed is None else y * A.observed)

    @torch.no_grad()
    def keep(self, A: ForwardOperator, batch: Batch) -> None:
        found, y, m = batch.found, batch.measured.y, A.num_measurements
        image = found.image
        generated = found.others.get("generated_", image)
        # Root mean square over the measurements, halved: in units of the [0, 1] image.
        residual = ((A(image) - y).square().flatten(1).sum(1) / m).sqrt() / 2
        whole = image
        if self.run.keep_observed and A.observed is not None:
            whole = torch.where(A.observed, y, image)
        for b, item in enumerate(self.items[i] for i in batch.items):
            record, drawn, picture = self._files(item)
            row = {
                "id": item.name,
                "input": str(item.path),
                "mask": str(item.mask) if item.mask else None,
                "num_measurements": m,
                "loss": float(found.loss[b]),
                "last_loss": float(found.last_loss[b]),
                "residual_rms": float(residual[b]),
                "seconds": batch.seconds,
                **{key: values[b] for key, values in found.facts.items()},
                "settings": self._settings(item),
                "provenance": self.provenance,
            }
            # The picture comes last: an item with all three files is done.
            write_text(record, json.dumps(row, indent=1))
            if found.spread is not None:  # white: 0.5 of the [0, 1] image
                shade = to_uint8(2 * found.spread.std[b] - 1)
                measurement.write_picture(self._std_file(item), shade)
            if self.run.keep_observed:
                measurement.write_picture(drawn, to_uint8(generated[b]))
            measurement.write_picture(picture, to_uint8(whole[b]))

    def summarise(self) -> None:
        """Prints where each reconstruction is and how well it explains its measurement."""
        noise_std = self.measuring.noise_std
        noise = f" (noise_std={noise_std})" if noise_std else ""
        for number, item in enumerate(self.items):
            record, _, picture = self._files(item)
            row = json.loads(record.read_text(encoding="utf-8"))
            before = "; made before with the same settings" if number in self.done else ""
            print(
                f"{picture}: residual {row['residual_rms']:.4f} rms on [0, 1]{noise}, "
                f"measurement loss {row['loss']:.3g}, {row['seconds']:.1f} s{before}"
            )
