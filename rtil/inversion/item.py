"""One measurement of a user's: its file and mask read whole, and compared with what is asked.

Formats are in `rtil.inversion.measurement_file`, which files there are in `rtil.inversion.survey`.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from rtil.data.limits import Limits
from rtil.data.listing import SUFFIXES
from rtil.inversion import measurement_file as measurement
from rtil.inversion.asked import Asked
from rtil.operators.task import PER_IMAGE
from rtil.process.brief import brief
from rtil.runs.keys import flatten
from rtil.runs.overrides import as_text

log = logging.getLogger("rtil.inversion.item")
ENDINGS = (*SUFFIXES, ".npz")


class Item(NamedTuple):
    """One measurement: its file, the mask's, and what was found in them.

    name: of the results. stream: what the inversion's random draws are seeded with.
    shape: (height, width) of a picture, all sides of a saved measurement.
    masked: whether a file says which pixels are observed, instead of `ratio` and `seed`.
    colour: whether a picture would lose something as a grey one.
    image_shape: (C, H, W) of what was measured, where a saved measurement says so.
    sha256: of the files. limits: that they were read within, and are again.
    """

    name: str
    stream: str
    path: Path
    mask: Path | None
    shape: tuple[int, ...]
    masked: bool
    colour: bool
    image_shape: tuple[int, ...] | None
    sha256: dict[str, str | None]
    limits: Limits

    @property
    def saved(self) -> bool:
        """Whether it is a saved measurement and no picture."""
        return self.path.suffix.lower() == ".npz"


def examine(asked: Asked, path: Path, mask: Path | None) -> Item:
    """Reads one measurement and its mask whole.

    Raises:
        ValueError: unreadable, of a kind that the task does not take, or measured otherwise.
    """
    if path.suffix.lower() not in ENDINGS:
        raise ValueError(
            f"invert: {path} ends in none of {' '.join(ENDINGS)}. A vector of measurements "
            "is saved by numpy.savez(FILE, y=y)."
        )
    if path.suffix.lower() == ".npz":
        return examine_saved(asked, path, mask)
    return examine_picture(asked, path, mask)


def digests(path: Path, mask: Path | None, limits: Limits) -> dict[str, str | None]:
    """SHA-256 of a measurement and its mask, under their keys in records.

    Raises:
        ValueError: one cannot be read; names it.
    """
    found: dict[str, str | None] = {}
    for key, file in {"input": path, "mask": mask}.items():
        try:
            digest = hashlib.sha256(limits.read(file)).hexdigest() if file else None
        except (OSError, ValueError) as error:
            raise ValueError(f"invert: {key}: {file} cannot be read ({error}).") from error
        found[f"{key}_sha256"] = digest
    return found


def say_transparency(key: str, path: Path, limits: Limits) -> None:
    """Says how the transparency of a picture is read, where it has any."""
    if measurement.is_transparent(path, limits):
        meaning = "white" if key == "input" else "white, observed: only dark pixels are missing"
        log.warning("%s: transparent pixels of %s are read as %s.", key, path, meaning)


def examine_saved(asked: Asked, path: Path, mask: Path | None) -> Item:
    """A saved measurement. Raises ValueError as `examine` does."""
    sha256 = digests(path, mask, asked.limits)
    saved = measurement.load(path, asked.limits)
    if saved.as_pixels and asked.task["measures"] == "vector":
        raise ValueError(
            f"invert: {path}: y is stored as whole numbers, and task={asked.task['name']} measures"
            " vectors of real ones, in the units of what it measures of an image in [-1, 1]. Save "
            "those by y.astype(numpy.float32)."
        )
    if mask and saved.mask is not None:
        raise ValueError(f"invert: {path} holds its own mask; leave out mask={mask}.")
    check_measured(asked, path, saved.settings)
    say_unit_range(path, saved)
    stream = str(saved.settings.get("id", path.stem))
    image_shape = saved.settings.get("image_shape")
    return Item(
        path.stem,
        stream,
        path,
        mask,
        tuple(saved.y.shape),
        mask is not None or saved.mask is not None,
        False,
        tuple(image_shape) if isinstance(image_shape, list) else None,
        sha256,
        asked.limits,
    )


def say_unit_range(path: Path, saved: measurement.Saved) -> None:
    """Warns of an image of a user's own that looks as one of the [0, 1] range."""
    y = saved.y
    if y.ndim == 3 and not saved.settings and not saved.as_pixels and 0 <= y.min() < y.max() <= 1:
        log.warning(
            "%s: no number of y is below 0. Images are in [-1, 1]; of one in [0, 1] save 2 y - 1.",
            path,
        )


def examine_picture(asked: Asked, path: Path, mask: Path | None) -> Item:
    """A picture. Raises ValueError as `examine` does."""
    where, name = f"invert: {path}", asked.task["name"]
    sha256 = digests(path, mask, asked.limits)
    if asked.task["measures"] == "vector":
        raise ValueError(
            f"{where} is a picture, and task={name} measures vectors: give a .npz, "
            "as save_measurements=true or numpy.savez(FILE, y=y) make it."
        )
    if asked.takes_mask and not mask:
        raise ValueError(
            f"{where}: task={name} needs to know which pixels are damaged: "
            "mask=FILE, a picture of the same size, dark where they are."
        )
    image = measurement.read_picture(path, asked.limits)
    say_transparency("input", path, asked.limits)
    if mask:
        observed = measurement.read_mask(mask, asked.limits)
        say_transparency("mask", mask, asked.limits)
        if observed.shape != (image.height, image.width):
            height, width = observed.shape
            raise ValueError(
                f"{where} has {image.width}x{image.height} pixels and its mask "
                f"{mask} {width}x{height}; both must have the same size."
            )
    return Item(
        path.stem,
        path.stem,
        path,
        mask,
        (image.height, image.width),
        mask is not None,
        measurement.is_colour(image),
        None,
        sha256,
        asked.limits,
    )


def check_measured(asked: Asked, path: Path, settings: Mapping) -> None:
    """Raises ValueError where a saved measurement was not made under the settings given."""
    measured = flatten(
        {key: value for key, value in settings.items() if key not in ("id", "image_shape")}
    )
    # A file that a seed drew the operator of was measured with one for all, unless it says so.
    if "seed" in measured:
        measured.setdefault(PER_IMAGE, False)
    here = asked.settings
    # What the file does not say is not compared: a vector alone has no settings.
    differs = {key: value for key, value in measured.items() if here.get(key) != value}
    if not differs:
        return
    lines = []
    for key, value in differs.items():
        lines.append(f"{brief(key)}: {brief(value)} there, {brief(here.get(key))} here")
    words = [f"{key.removesuffix('.name')}={as_text(value)}" for key, value in differs.items()]
    if "seed" in differs and not here.get("generator"):
        words.append("and generator=FILE (seed also chooses the generator)")
    raise ValueError(
        f"invert: {path} was measured under other settings:\n  "
        + "\n  ".join(lines)
        + f"\nAdd {' '.join(words)}."
    )
