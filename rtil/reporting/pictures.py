"""Pictures that inversions wrote beside their rows: mosaics and galleries of a cell."""

from __future__ import annotations

import io
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import matplotlib
import numpy as np
from PIL import Image

from rtil.reporting.arrange import reference
from rtil.reporting.collect import Cell
from rtil.reporting.figures.mosaic import ImageRow
from rtil.reporting.sections import Gallery, Picture, Shot, address

SMALL = 128  # pixels; the page enlarges smaller images without smoothing
ERROR_RANGE = 0.5  # of |x_hat - x| on [0, 1] images; larger errors are drawn alike
# What every arm of a cell has alike: label, suffix of its files, and the row's key of its PSNR.
COMMON = (
    ("original", "-original", ""),
    ("measurement", "-measurement", ""),
    ("LMMSE", "-lmmse", "lmmse_psnr_db"),
)


@dataclass(frozen=True)
class Shown:
    """An arm's pictures: label, folder, rows by image id, and its baseline's rows if any.

    suffix is that of its reconstructions' files.
    """

    label: str
    folder: Path
    rows: Mapping[str, Mapping]
    base: Mapping[str, Mapping] | None
    suffix: str = ""


def pictured(cell: Cell, baseline: str) -> list[Shown]:
    """What is shown of each arm: the run of its first seed, beside that of its baseline."""
    shown = []
    for arm in cell.arms:
        # Its first seed stands for the others, as for the samples.
        run, base = arm.runs[0], reference(cell, arm, baseline)
        theirs = base.runs[0].rows if base else None
        suffix = "-oracle" if arm.oracle else ""
        shown.append(Shown(arm.label, run.path / "images", run.rows, theirs, suffix))
    return shown


def image_ids(shown: Sequence[Shown]) -> list[str]:
    """Ids of a cell's images, those that every arm has first."""
    ids = sorted({name for one in shown for name in one.rows})
    return sorted(ids, key=lambda name: sum(name not in one.rows for one in shown))


def image_rows(shown: Sequence[Shown], names: Sequence[str]) -> list[ImageRow]:
    """Original, measurement, LMMSE and each arm's reconstruction, with the PSNR of each."""
    parts = [(label, shown, suffix, key) for label, suffix, key in COMMON]
    parts += [(one.label, [one], one.suffix, "psnr_db") for one in shown]
    rows = []
    # A part that no run wrote, such as LMMSE without a yardstick, is left out.
    for label, where, suffix, key in parts:
        images = [picture(where, name, suffix) for name in names]
        if any(image is not None for image in images):
            captions = [decibel(where, name, key) for name in names]
            rows.append(ImageRow(label, images, captions))
    return rows


def gallery(title: str, shown: Sequence[Shown], names: Sequence[str], unfold: bool) -> Gallery:
    """The images of a cell, with the error of each reconstruction."""
    headings = ["image", "original", "measurement", "LMMSE"]
    for one in shown:
        headings += [one.label, f"|error| of {one.label}"]
    orders = [one.label for one in shown if one.base]
    shots = [shot(shown, name, number) for number, name in enumerate(names)]
    return Gallery(f"{title}; {len(names)} images", headings, shots, orders, unfold)


def shot(shown: Sequence[Shown], name: str, number: int) -> Shot:
    """One image of a gallery, sorted by its number or by the gain of an arm."""
    pictures = [
        packed(picture(shown, name, suffix), decibel(shown, name, key))
        for _, suffix, key in COMMON
    ]
    original, keys = picture(shown, name, "-original"), [float(number)]
    for one in shown:
        image, text = picture([one], name, one.suffix), decibel([one], name, "psnr_db")
        if one.base:
            both = name in one.rows and name in one.base
            gain = one.rows[name]["psnr_db"] - one.base[name]["psnr_db"] if both else math.nan
            text += f" ({gain:+.2f})" if both else ""
            keys.append(gain)  # NaN comes last, whatever is sorted
        pictures += [packed(image, text), packed(error_map(image, original))]
    return Shot(name, pictures, keys)


def picture(shown: Sequence[Shown], name: str, suffix: str) -> np.ndarray | None:
    """The first of the files <name><suffix>.png that can be read, (H, W, 3) in [0, 1].

    An id that would lead out of its folder names no file.
    """
    if Path(name).name != name:  # ids come from files that anybody may have written
        return None
    for one in shown:
        try:
            with Image.open(one.folder / f"{name}{suffix}.png") as file:
                return np.asarray(file.convert("RGB"), dtype=np.float32) / 255
        except OSError:  # not written, or cut off while writing
            continue
    return None


def decibel(shown: Sequence[Shown], name: str, key: str) -> str:
    """The first value that an arm has for an image, as text."""
    values = (one.rows.get(name, {}).get(key) for one in shown)
    return next((f"{value:.2f} dB" for value in values if value is not None), "")


def error_map(x_hat: np.ndarray | None, x: np.ndarray | None) -> np.ndarray | None:
    """|x_hat - x|, mean over channels, as a heat map from 0 to ERROR_RANGE (H, W, 3)."""
    if x is None or x_hat is None or x_hat.shape != x.shape:
        return None
    error = np.abs(x_hat - x).mean(2)
    return matplotlib.colormaps["inferno"](np.minimum(error / ERROR_RANGE, 1))[..., :3]


def packed(image: np.ndarray | None, caption: str = "") -> Picture:
    """An image in [0, 1] as a file in the page."""
    if image is None:
        return Picture("", caption)
    small = image.shape[1] < SMALL
    # JPEG has a fifth of the size; the run's folder has every bit.
    kind = "png" if small else "jpeg"
    buffer = io.BytesIO()
    Image.fromarray((image * 255).round().astype(np.uint8)).save(buffer, kind, quality=90)
    return Picture(address(buffer.getvalue(), kind), caption, small)
