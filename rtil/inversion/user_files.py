"""Inverting measurements of the user's own: `python -m rtil.invert input=photo.png ...`.

There is no true image, so nothing is scored: a record beside each reconstruction says how well it
explains its measurement. What may be given is checked in `rtil.inversion.survey`.
"""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from rtil.data.base import to_float, to_uint8
from rtil.data.files import pixels
from rtil.inversion import measurement_file as measurement
from rtil.inversion.estimate import Recovered
from rtil.inversion.problem import Measured, Part, Problem
from rtil.inversion.survey import DRAWN, RESULT, Item
from rtil.inverters.data_term import MeasurementLoss
from rtil.inverters.inverter import Reconstruction
from rtil.operators import KNOBS, ForwardOperator, build_operator, knobs_of
from rtil.process.device import Runtime
from rtil.runs import results

log = logging.getLogger("rtil.inversion.user_files")
# Keys in which a reconstruction on disk may differ from the one asked for.
FREE = (
    *results.FREE_INVERT,
    "input",
    "mask",
    "output",
    "data",
    "split",
    "metrics",
    "yardstick.use",
)


class Own(Problem):
    """Measurements in files; a picture and a record of each reconstruction beside its file.

    Args:
        config: resolved configuration.
        items: from `survey`.
        shape: (C, H, W) of the generator's images.

    Raises:
        ValueError: a measurement that does not fit the generator, or results that are in the way.
    """

    def __init__(
        self, config: dict, items: Sequence[Item], shape: tuple[int, int, int], rt: Runtime
    ) -> None:
        self.items, self.shape, self.rt = list(items), shape, rt
        self.config = config | {"fit": config["fit"] or "error"}
        if config["task"]["name"] == "inpainting" and config["keep_observed"] is None:
            self.config["keep_observed"] = config["noise_std"] == 0
        self.place = self._place()
        groups: dict[bytes, Part] = {}
        left = []
        for number, item in enumerate(self.items):
            if item.masked:
                self._check(item, shape)
            mask = self._mask(item) if item.masked else None
            key = b"" if mask is None else mask.numpy().tobytes()
            if key not in groups:
                groups[key] = self._part(mask, next(iter(groups.values()), None))
            self._check(item, groups[key].A.out_shape)
            self._check_drawn(item, groups[key].A)
            if not self._is_done(item):
                left.append((number, groups[key]))
        self.parts, self.left = [*groups.values()], bool(left)
        self.done = {*range(len(self.items))} - {number for number, _ in left}
        for number, part in left[rt.rank :: rt.world]:
            part.items.append(number)
        lost = [item.path.name for item in self.items if item.colour and shape[0] == 1]
        if lost and rt.rank == 0:
            more = f" and {len(lost) - 1} more" if lost[1:] else ""
            log.warning(
                "The generator draws grey images; no colour is left of %s%s.", lost[0], more
            )

    def _place(self) -> Path:
        """Where results go: beside the file, or in a folder beside the folder.

        Raises:
            ValueError: it is not writable.
        """
        source = Path(self.config["input"]).expanduser()
        if source.name in ("", ".."):
            source = source.resolve()
        place = source.with_name(f"{source.name}{RESULT}") if source.is_dir() else source.parent
        if self.config["output"]:
            place = Path(self.config["output"]).expanduser()
        there = next(p for p in (place.absolute(), *place.absolute().parents) if p.exists())
        if not there.is_dir() or not os.access(there, os.W_OK):
            raise ValueError(f"invert: results cannot be written to {place}; choose output=DIR.")
        return place

    def _part(self, mask: Tensor | None, other: Part | None) -> Part:
        """Operator and loss of a mask; `other` is a part that has LPIPS loaded, if it is used."""
        config = self.config
        A = build_operator(config["task"], self.shape, config["seed"], mask, **knobs_of(config))
        module = other.loss.lpips if other else None
        return Part(A, MeasurementLoss(A, **config["loss"], lpips_module=module), [])

    def _mask(self, item: Item) -> Tensor:
        """Which pixels a file says are observed, (H, W) bool of the generator's size."""
        size = f"{self.shape[2]}x{self.shape[1]}"
        if self._scales(item):
            found = self._picture(item)[1]
        elif item.mask:
            found = measurement.read_mask(item.mask)
        else:
            found = measurement.load(item.path).mask
        if tuple(found.shape) != self.shape[1:]:
            height, width = found.shape
            raise ValueError(
                f"invert: {item.path} has a mask of {width}x{height} pixels and the "
                f"generator draws {size}; both must have the same size."
            )
        if not found.any():
            raise ValueError(
                f"invert: {item.path} has no observed pixel left at {size} pixels "
                f"with fit={self.config['fit']}."
            )
        return found

    def _check(self, item: Item, out_shape: tuple[int, ...]) -> None:
        """Raises ValueError where a measurement is not of the shape that A measures."""
        knob = next((f" {k}={v}" for k, v in self._settings(item).items() if k in KNOBS and v), "")
        measures = f"task={self.config['task']['name']}{knob} of {self.shape} images measures"
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
            if self.config["task"]["name"] == "inpainting":
                hint = (
                    " Scale it and its mask with fit=crop, which takes the middle square, or "
                    "fit=resize, which stretches."
                )
            raise ValueError(
                f"invert: {item.path} has {width}x{height} pixels; {measures} "
                f"{out_shape[2]}x{out_shape[1]}.{hint}"
            )

    def _check_drawn(self, item: Item, A: ForwardOperator) -> None:
        """Raises ValueError where y cannot come from the mask that `ratio` and `seed` draw."""
        if not item.saved or item.masked or A.observed is None:
            return
        elsewhere = int(measurement.load(item.path).y[..., ~A.observed].count_nonzero())
        if elsewhere:
            raise ValueError(
                f"invert: {item.path}: {elsewhere} numbers of y are not 0 where the mask of "
                f"ratio={self.config['ratio']} seed={self.config['seed']} observes nothing. Give "
                "the ratio and seed of the measurement, or mask=FILE."
            )

    def _scales(self, item: Item) -> bool:
        """Whether a picture has to be brought to the generator's size, and may be."""
        return not item.saved and self.config["fit"] != "error" and item.shape != self.shape[1:]

    def _picture(self, item: Item) -> tuple[Tensor, Tensor | None]:
        """A picture (c, h, w), uint8, in the generator's channels, and its mask."""
        image = measurement.read_picture(item.path).convert("L" if self.shape[0] == 1 else "RGB")
        observed = measurement.read_mask(item.mask) if item.mask else None
        array = np.array(pixels(image))
        if self._scales(item):
            array, observed = measurement.fitted(
                image, observed, self.shape[1], self.config["fit"]
            )
        return torch.from_numpy(array), observed

    def _files(self, item: Item) -> tuple[Path, Path, Path]:
        """Record, the generator's own image, reconstruction: in the order of writing."""
        at = self.place / f"{item.name}{RESULT}"
        return (
            at.with_name(f"{at.name}.json"),
            self.place / f"{item.name}{DRAWN}.png",
            at.with_name(f"{at.name}.png"),
        )

    def _is_done(self, item: Item) -> bool:
        """Whether the reconstruction asked for is on disk.

        Raises:
            ValueError: something else is there under its name.
        """
        record, drawn, picture = self._files(item)
        advice = "Move it out of the way, or choose output=DIR."
        if not record.exists():
            for path in (drawn, picture):
                if path.exists():
                    raise ValueError(f"invert: {path} exists without a record of it. {advice}")
            return False
        try:
            old = json.loads(record.read_text(encoding="utf-8"))["settings"]
        except (ValueError, KeyError, TypeError) as error:
            raise ValueError(
                f"invert: {record} is no record of a reconstruction. {advice}"
            ) from error
        differs = results.differing_keys(old, self._settings(item), FREE)
        if differs:
            raise ValueError(
                f"invert: {picture} was made under other settings:\n  "
                + "\n  ".join(differs)
                + f"\n{advice}"
            )
        return picture.exists() and (drawn.exists() or not self.config["keep_observed"])

    def _settings(self, item: Item) -> dict:
        given = {"ratio": None} if item.masked else {}
        return {**self.config, **given, **item.sha256}

    def claim(self, provenance: Mapping) -> None:
        self.place.mkdir(parents=True, exist_ok=True)
        self.provenance = dict(provenance)

    def name(self, item: int) -> str:
        return self.items[item].stream

    def measure(self, A: ForwardOperator, items: Sequence[int]) -> Measured:
        """y as given; 0 where a mask observes nothing, as in A x."""
        values = []
        for item in (self.items[i] for i in items):
            values.append(
                measurement.load(item.path).y if item.saved else to_float(self._picture(item)[0])
            )
        y = torch.stack(values).to(self.rt.device)
        return Measured(y if A.observed is None else y * A.observed)

    @torch.no_grad()
    def keep(
        self,
        A: ForwardOperator,
        items: Sequence[int],
        measured: Measured,
        found: Recovered,
        linear: Reconstruction | None,
        seconds: float,
    ) -> None:
        image, y, m = found.image, measured.y, A.num_measurements
        generated = found.others.get("generated_", image)
        residual = ((A(image) - y).square().flatten(1).sum(1) / m).sqrt() / 2
        whole = torch.where(A.observed, y, image) if self.config["keep_observed"] else image
        for b, item in enumerate(self.items[i] for i in items):
            record, drawn, picture = self._files(item)
            row = {
                "id": item.name,
                "input": str(item.path),
                "mask": str(item.mask) if item.mask else None,
                "num_measurements": m,
                "loss": float(found.loss[b]),
                "last_loss": float(found.last_loss[b]),
                "residual_rms": float(residual[b]),
                "seconds": seconds,
                **{key: values[b] for key, values in found.facts.items()},
                "settings": self._settings(item),
                "provenance": self.provenance,
            }
            results.write_text(record, json.dumps(row, indent=1))
            if self.config["keep_observed"]:
                measurement.write_picture(drawn, to_uint8(generated[b]))
            measurement.write_picture(picture, to_uint8(whole[b]))

    def summarise(self) -> None:
        """Prints where each reconstruction is and how well it explains its measurement."""
        config = self.config
        told = f" (noise_std={config['noise_std']})" if config["noise_std"] else ""
        for number, item in enumerate(self.items):
            record, _, picture = self._files(item)
            row = json.loads(record.read_text(encoding="utf-8"))
            before = "; made before with the same settings" if number in self.done else ""
            print(
                f"{picture}: residual {row['residual_rms']:.4f} rms on [0, 1]{told}, "
                f"measurement loss {row['loss']:.3g}, {row['seconds']:.1f} s{before}"
            )
