"""What is measured: a held-out image or a photo, and what of it is painted as missing.

A canvas is {"background": picture, "layers": [painting, ..]}, PIL images of one size.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from rtil.data.base import to_float
from rtil.inversion.measurement_file import fitted
from rtil.window.setup import Bench

CANVAS = 384  # pixels a side that a held-out image is painted at
SAME = 2.0  # mean difference of grey values up to which a background is the held-out image's
UNPAINTED = "No mask is painted: paint over what is missing, or take pixels at random."


@dataclass(frozen=True)
class Subject:
    """What is measured.

    image: (1, C, H, W) in [-1, 1]. name: seeds the noise and the start. known: whether it is the
    truth; what lies below the mask of a damaged photo is not. mask: (H, W) bool, where painted.
    """

    image: Tensor
    name: str
    known: bool = True
    mask: Tensor | None = None


def subject(bench: Bench, number: float, canvas: Mapping[str, Any], paints: bool) -> Subject:
    """The photo on the canvas, or the held-out image where it shows that, or nothing.

    Args:
        number: of a held-out image, from 0. paints: whether what is painted is missing.

    Raises:
        ValueError: there is no such image, or nothing is painted.
    """
    background = canvas.get("background")
    mask = painted(canvas) if paints else None
    own = shown(bench, number)
    if background is not None and (own is None or not _alike(background, own)):
        return _photo(bench, background, mask)
    if bench.data is None:
        raise ValueError(f"Drop a photo on the canvas: {bench.no_data}")
    if own is None:
        last = len(bench.order) - 1
        raise ValueError(f"There is no image {number:g}: held-out images are 0 to {last}.")
    if mask is not None:
        plain = Image.new("L", (mask.shape[1], mask.shape[0]))
        mask = _scaled(plain, mask, bench.shape[1], "resize")[1]
    item = bench.order[int(number)]
    image = to_float(bench.data.batch([item]))
    return Subject(image, bench.data.name(item), mask=mask)


def shown(bench: Bench, number: float) -> Image.Image | None:
    """A held-out image as it is painted on; None where there is none of this number."""
    if bench.data is None or not 0 <= number < len(bench.order):
        return None
    array = bench.data.batch([bench.order[int(number)]])[0].permute(1, 2, 0).numpy()
    picture = Image.fromarray(array[:, :, 0] if array.shape[2] == 1 else array).convert("RGB")
    return picture.resize((CANVAS, CANVAS), Image.Resampling.NEAREST)


def painted(canvas: Mapping[str, Any]) -> Tensor:
    """(H, W) bool of the background: False where a layer is painted.

    Raises:
        ValueError: nothing is.
    """
    background, missing = canvas.get("background"), None
    for layer in canvas.get("layers") or ():
        if layer is None:
            continue
        size = layer.size if background is None else background.size
        alpha = np.asarray(layer.convert("RGBA").getchannel("A").resize(size)) > 127
        missing = alpha if missing is None else missing | alpha
    if missing is None or not missing.any():
        raise ValueError(UNPAINTED)
    return _checked(torch.from_numpy(~missing))


def _photo(bench: Bench, photo: Image.Image, mask: Tensor | None) -> Subject:
    """Its middle square in the generator's size and channels, transparency on white."""
    bench.limits.check_pixels(photo.width, photo.height)
    white = Image.new("RGBA", photo.size, "white")
    whole = Image.alpha_composite(white, photo.convert("RGBA"))
    picture = whole.convert("L" if bench.shape[0] == 1 else "RGB")
    array, mask = _scaled(picture, mask, bench.shape[1], "crop")
    image = to_float(torch.from_numpy(array))[None]
    return Subject(image, "photo", known=mask is None, mask=mask)


def _scaled(
    picture: Image.Image, mask: Tensor | None, size: int, fit: str
) -> tuple[np.ndarray, Tensor | None]:
    array, scaled = fitted(picture, mask, size, fit)
    return array, None if scaled is None else _checked(scaled)


def _alike(background: Image.Image, own: Image.Image) -> bool:
    """Whether a background is a held-out image, as a browser gives it back."""
    if background.size != own.size:
        return False
    there, here = (np.asarray(image.convert("RGB"), float) for image in (background, own))
    return bool(np.abs(there - here).mean() < SAME)


def _checked(mask: Tensor) -> Tensor:
    """A mask that hides something and not all. Raises ValueError for another."""
    if mask.all() or not mask.any():
        what = "it is too thin" if mask.any() else "nothing of the image is left"
        raise ValueError(f"The painted mask cannot be used: at {len(mask)} pixels {what}.")
    return mask
