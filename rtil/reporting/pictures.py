"""Pictures that inversions wrote beside their rows: mosaics and galleries of a measurement."""

from __future__ import annotations

import io
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import matplotlib
import numpy as np
from PIL import Image

from rtil.reporting.arrange import Row
from rtil.reporting.figures.mosaic import ImageRow
from rtil.reporting.figures.style import plain
from rtil.reporting.sections import Gallery, Picture, address
from rtil.runs.run import Run

SMALL = 128  # pixels; the page enlarges smaller images without smoothing
ERROR_RANGE = 0.5  # of |x_hat - x| on [0, 1] images; larger errors are drawn alike


@dataclass(frozen=True)
class Part:
    """One kind of picture of a measurement, a row of its mosaic and a column of its gallery.

    Attributes:
        runs: where it is looked for, the first that has it.
        suffix: of its files, <image id><suffix>.png.
        key: of its PSNR in the rows, "" without one.
        base: the baseline's rows, of the reconstructions of an arm that has one.
    """

    label: str
    runs: Sequence[Run]
    suffix: str
    key: str = ""
    base: Mapping[str, Mapping] | None = None

    def image(self, name: str) -> np.ndarray | None:
        """The first one, (H, W, 3) in [0, 1]."""
        if Path(name).name != name:  # an id, which anybody may have written, leads nowhere else
            return None
        for run in self.runs:
            try:
                with Image.open(run.path / "images" / f"{name}{self.suffix}.png") as file:
                    return np.asarray(file.convert("RGB"), dtype=np.float32) / 255
            except (OSError, ValueError):  # not written, cut off while writing, or no file's name
                continue
        return None

    def has(self, names: Sequence[str]) -> bool:
        """Whether any run wrote one of these."""
        return any(self.image(name) is not None for name in names)

    def caption(self, name: str) -> str:
        """The first value, as text."""
        values = (run.rows.get(name, {}).get(self.key) for run in self.runs)
        return next((f"{value:.2f} dB" for value in values if value is not None), "")

    def gain(self, name: str) -> float:
        """PSNR over the baseline's; NaN, which comes last, where one has not this image."""
        mine = self.runs[0].rows
        if self.base is None or name not in mine or name not in self.base:
            return math.nan
        return mine[name]["psnr_db"] - self.base[name]["psnr_db"]

    def pictures(self, name: str, original: np.ndarray | None) -> list[Picture]:
        """The picture, then its error."""
        image = self.image(name)
        text = self.caption(name)
        gain = self.gain(name)
        if not math.isnan(gain):
            text += f" ({gain:+.2f})"
        if self.key != "psnr_db":
            return [packed(image, text)]
        return [packed(image, text), packed(error_map(image, original))]


def parts_of(rows: Sequence[Row]) -> list[Part]:
    """What the arms of a measurement have alike, then the reconstructions of each.

    An arm's first seed stands for the others, as for the samples.
    """
    runs = [row.runs[0] for row in rows]
    parts = [
        Part("original", runs, "-original"),
        Part("measurement", runs, "-measurement"),
        Part("linear estimate", runs, "-lmmse", "lmmse_psnr_db"),
    ]
    for row in rows:
        suffix = "-oracle" if row.oracle else ""
        base = row.baseline.runs[0].rows if row.baseline else None
        parts.append(Part(row.label, row.runs[:1], suffix, "psnr_db", base))
    return parts


def image_ids(rows: Sequence[Row]) -> list[str]:
    """Ids, those that every arm has first."""
    known = [row.runs[0].rows for row in rows]
    ids = sorted({name for own in known for name in own})
    return sorted(ids, key=lambda name: sum(name not in own for own in known))


def image_rows(parts: Sequence[Part], names: Sequence[str]) -> list[ImageRow]:
    """Each part that any run wrote."""
    return [
        ImageRow(
            plain(part.label),
            [part.image(name) for name in names],
            [part.caption(name) for name in names],
        )
        for part in parts
        if part.has(names)
    ]


def gallery(
    title: str, parts: Sequence[Part], names: Sequence[str], unfold: bool, errors: bool = True
) -> Gallery:
    """Images of each part that any run wrote, with the reconstructions' errors unless left out."""
    headings = ["image"]
    shown = [part for part in parts if part.has(names)]
    for part in shown:
        own = [part.label, f"|error| of {part.label}"]
        headings += own if part.key == "psnr_db" and errors else own[:1]
    gained = [part for part in shown if part.base]
    shots = []
    for number, name in enumerate(names):
        original = parts[0].image(name)
        pictures: list[Picture] = []
        for part in shown:
            own_pictures = part.pictures(name, original)
            pictures += own_pictures if errors else own_pictures[:1]
        gains = [part.gain(name) for part in gained]
        shots.append((name, pictures, [float(number), *gains]))
    orders = [part.label for part in gained]
    return Gallery(f"{title}; {len(names)} images", headings, shots, orders, unfold)


def error_map(x_hat: np.ndarray | None, x: np.ndarray | None) -> np.ndarray | None:
    """|x_hat - x|, mean over channels, as a heat map from 0 to ERROR_RANGE (H, W, 3)."""
    if x is None or x_hat is None or x_hat.shape != x.shape:
        return None
    error = np.abs(x_hat - x).mean(2)
    return matplotlib.colormaps["inferno"](np.minimum(error / ERROR_RANGE, 1))[..., :3]


def packed(image: np.ndarray | None, caption: str = "") -> Picture:
    """An image as a file in the page."""
    if image is None:
        return Picture("", caption)
    small = image.shape[1] < SMALL
    # JPEG has a fifth of the size; the run's folder has every bit.
    kind = "png" if small else "jpeg"
    buffer = io.BytesIO()
    Image.fromarray((image * 255).round().astype(np.uint8)).save(buffer, kind, quality=90)
    return Picture(address(buffer.getvalue(), kind), caption, small)
