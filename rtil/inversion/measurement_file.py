"""Measurements in files: vectors and images with how they were measured, pictures, masks.

A saved measurement is a .npz that `numpy.load` reads without running code from it: `y`, float32,
in the units of the operator's output, or pixels of uint8 or uint16; optionally `settings`, a JSON
text; optionally `mask`, bool. What an inversion makes of such files is in
`rtil.inversion.user_files`.
"""

from __future__ import annotations

import io
import json
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from rtil.data.limits import Limits
from rtil.data.picture import (
    UNREADABLE,
    covering,
    crop_centre,
    has_transparency,
    open_picture,
    pixels,
)
from rtil.inversion.array_file import read_arrays
from rtil.inversion.units import signed
from rtil.process.bounds import check_size
from rtil.process.brief import brief
from rtil.process.files import replacing
from rtil.runs import keys
from rtil.runs.schema import check_settings

BRIGHT = 128  # grey value from which on a mask's pixel says "observed"
KEPT_SHARE = 0.7  # of a scaled pixel's weight that observed pixels must have
MAX_NAMED = 5  # arrays named in a message
FITS = ("error", "crop", "resize")


class Saved(NamedTuple):
    """A saved measurement: y of any shape, how it was measured, and the mask of inpainting.

    as_pixels: whether y was stored as pixels, 0 black, and is in [-1, 1] by their type.
    """

    y: Tensor
    settings: dict
    mask: Tensor | None
    as_pixels: bool


def save(
    path: str | Path, y: Tensor, settings: Mapping | None = None, mask: Tensor | None = None
) -> None:
    """Writes one measurement; what was at path before survives a failure.

    Args:
        path: ends in .npz.
        y: (*A.out_shape), without a batch.
        settings: what must hold where y is inverted, under the keys of configs/invert.yaml:
            task (its name and options), seed, the task's knob, noise_std. Besides `image_shape`,
            and `id`, which seeds the inversion's random draws; without it the file's name does.
        mask: (H, W) bool, of inpainting with a mask that no seed draws.
    """
    path = Path(path)
    values, text = y.detach().cpu().float().numpy(), json.dumps(dict(settings or {}))
    with replacing(path) as temporary, open(temporary, "wb") as file:
        if mask is None:
            np.savez(file, y=values, settings=text)
        else:
            np.savez(file, y=values, settings=text, mask=mask.cpu().numpy())


def load(path: Path, limits: Limits) -> Saved:
    """Reads what `save` wrote, or a .npz with an array y alone.

    Raises:
        ValueError: damaged, too large, no .npz, no y, or a y that is not of finite real numbers.
    """
    try:
        found, names = read_arrays(path, ("y", "settings", "mask"), limits)
        settings = json.loads(str(found.get("settings", "{}")))
    except (*UNREADABLE, RecursionError) as error:
        raise ValueError(
            f"{path} cannot be read as a saved measurement ({type(error).__name__}: {error}); "
            "make one with save_measurements=true, or numpy.savez(FILE, y=y)."
        ) from error
    if "y" not in found or not isinstance(settings, dict):
        held = ", ".join(brief(name) for name in names[:MAX_NAMED]) or "nothing"
        raise ValueError(
            f"{path} holds {held}; a measurement is an array named y, "
            "with settings, if there are any, as the JSON text of a mapping."
        )
    advice = (
        "Settings in a file are those of configs/invert.yaml: correct them, or leave them out."
    )
    check_size(settings, str(path), advice)
    check_settings(keys.flatten(settings), str(path), advice)
    y, mask = found["y"], found.get("mask")
    if y.dtype.kind not in "fiu" or y.size == 0:
        raise ValueError(
            f"{path}: y is an array {y.shape} of {y.dtype}; it must hold real numbers."
        )
    bad = int((~np.isfinite(y)).sum())
    if bad:
        raise ValueError(f"{path}: {bad} of the {y.size} numbers of y are not finite.")
    if mask is not None and (mask.dtype != bool or mask.ndim != 2):
        raise ValueError(
            f"{path}: mask is an array {mask.shape} of {mask.dtype}; it must be (height, width) "
            f"of bool, True where observed: of grey values, mask >= {BRIGHT}."
        )
    try:
        values = torch.from_numpy(signed(y))
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error
    if mask is not None and (not mask.any() or mask.all()):
        raise ValueError(
            f"{path}: mask observes {mask.sum()} of {mask.size} pixels; some must be True, "
            "observed, and some False, missing."
        )
    observed = None if mask is None else torch.from_numpy(mask)
    return Saved(values, settings, observed, y.dtype.kind != "f")


def read_picture(path: Path, limits: Limits, key: str = "input") -> Image.Image:
    """A picture of mode "L" or "RGB", see `rtil.data.picture.open_picture`.

    Raises:
        ValueError: it cannot be read; names the file and the key that named it.
    """
    try:
        return open_picture(limits.read(path), None, limits)
    except UNREADABLE as error:
        raise ValueError(f"{key}: {path} cannot be read as a picture ({error}).") from error


def read_mask(path: Path, limits: Limits) -> Tensor:
    """A mask from a picture: (H, W) bool, True where its grey value is 128 or more.

    Raises:
        ValueError: it cannot be read, or observes nothing or all of a picture.
    """
    grey = np.array(read_picture(path, limits, "mask").convert("L"))
    if grey.max() < BRIGHT:
        raise ValueError(
            f"mask: {path} observes no pixel: its brightest grey value is {grey.max()}. Observed "
            f"pixels are bright ({BRIGHT} to 255), missing ones dark."
        )
    if grey.min() >= BRIGHT:
        alpha = ". Transparency is read as white; paint missing pixels black"
        raise ValueError(
            f"mask: {path} hides no pixel: its darkest grey value is {grey.min()}. Missing pixels "
            f"are dark (0 to {BRIGHT - 1}), observed ones bright"
            f"{alpha if is_transparent(path, limits) else ''}."
        )
    return torch.from_numpy(grey >= BRIGHT)


def is_transparent(path: Path, limits: Limits) -> bool:
    """Whether a picture that can be read has transparency, which is laid on white."""
    return has_transparency(limits.read(path), limits)


def is_colour(image: Image.Image) -> bool:
    """Whether a picture loses something when it becomes grey."""
    return image.mode == "RGB" and bool((np.ptp(np.asarray(image), axis=2) > 0).any())


def fitted(
    image: Image.Image, observed: Tensor | None, size: int, fit: str
) -> tuple[np.ndarray, Tensor | None]:
    """Scales a picture and its mask to a square, the picture as training images are scaled.

    Missing pixels are filled from those around them first, so what they hold has no effect. A
    scaled pixel is observed where observed pixels have at least 70 % of its weight, so a scratch a
    quarter as wide costs none.

    Args:
        image: of mode "L" or "RGB".
        observed: (H, W) bool, or None: all of them.
        size: side of the square in pixels.
        fit: "crop" scales the short side and takes the middle, "resize" both sides.

    Returns:
        (channels, size, size) uint8 and (size, size) bool or None.

    Raises:
        ValueError: nothing is observed.
    """
    if observed is not None and not observed.any():
        raise ValueError("the mask observes no pixel, so nothing of the image is left.")
    scaled = covering(image.size, size) if fit == "crop" else (size, size)
    if observed is not None:
        m = observed.numpy().astype(np.float32)
        planes = [filled(x, m) for x in pixels(image).astype(np.float32)]
        whole = np.stack(planes, axis=2).round().clip(0, 255).astype(np.uint8)
        image = Image.fromarray(whole[:, :, 0] if len(planes) == 1 else whole)
        share = crop_centre(Image.fromarray(resized(m, scaled)), size)
        observed = torch.from_numpy(np.asarray(share) >= KEPT_SHARE)
    if image.size != scaled:
        image = image.resize(scaled, Image.Resampling.LANCZOS)
    return np.array(pixels(crop_centre(image, size))), observed


def filled(x: np.ndarray, m: np.ndarray) -> np.ndarray:
    """x where m > 0, elsewhere a mean of such pixels, from as near as there are any.

    The mean is that at half the resolution, weighted by m, where its kernel meets any; pixels that
    it leaves open are filled there in the same way.

    Args:
        x, m: (H, W) float32; m in [0, 1], somewhere above 0.
    """
    if (m > 0).all() or x.size == 1:  # a single pixel has none around it
        return x
    half = max(1, x.shape[1] // 2), max(1, x.shape[0] // 2)
    weight = resized(m, half)
    mean = resized(x * m, half) / np.where(weight > 0, weight, 1)
    around = resized(filled(mean, weight), x.shape[::-1], Image.Resampling.BILINEAR)
    return np.where(m > 0, x, around)


def resized(
    x: np.ndarray, sides: tuple[int, int], kernel: Image.Resampling = Image.Resampling.HAMMING
) -> np.ndarray:
    """An array (H, W) of floats, scaled to (width, height) `sides`; weights are not negative."""
    return np.asarray(Image.fromarray(x).resize(sides, kernel))


def write_picture(path: Path, image: Tensor) -> None:
    """Writes (C, H, W) uint8 as PNG, so that a reader sees all of it or what was there before."""
    array, stream = image.cpu().permute(1, 2, 0).numpy(), io.BytesIO()
    Image.fromarray(array[:, :, 0] if array.shape[2] == 1 else array).save(stream, "png")
    with replacing(path) as temporary:
        temporary.write_bytes(stream.getvalue())
