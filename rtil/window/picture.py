"""Pictures of a page as HTML: they are in the page itself, so no file is left of them."""

from __future__ import annotations

import base64
import io
from collections.abc import Iterable
from dataclasses import dataclass
from html import escape

from PIL import Image
from torch import Tensor

from rtil.data.base import to_uint8
from rtil.metrics.image import psnr, to_unit

STYLE = """
.rtil-row {display: flex; gap: 10px; margin: 4px 0 10px}
.rtil-row .figures {display: flex; flex-wrap: wrap; gap: 10px}
.rtil-row figure {margin: 0; width: 150px}
.rtil-row.small figure {width: 96px}
.rtil-row.small figcaption {font-size: 11px}
.rtil-row img {width: 100%; image-rendering: pixelated; border-radius: 4px}
.rtil-row figcaption {font-size: 12px; line-height: 1.35; color: var(--body-text-color)}
.rtil-row .name {align-self: center; flex: 0 0 84px; font-size: 13px}
.rtil-row .name {color: var(--body-text-color)}
"""


@dataclass(frozen=True)
class Picture:
    """An image (C, H, W) in [-1, 1], what it is, and what is said below it."""

    label: str
    image: Tensor
    note: str = ""


def scored(label: str, image: Tensor, truth: Tensor | None) -> Picture:
    """A picture of an image (1, C, H, W) with its PSNR, where the truth is known."""
    note = ""
    if truth is not None:
        decibels = float(psnr(to_unit(image), to_unit(truth)))
        note = f"PSNR {decibels:.2f} dB"
    return Picture(label, image[0], note)


def row(pictures: Iterable[Picture], small: bool = False, name: str = "") -> str:
    """HTML of pictures side by side, after their name where they have one in common."""
    head = f'<div class="name">{escape(name)}</div>' if name else ""
    figures = f'<div class="figures">{"".join(map(_figure, pictures))}</div>'
    return f'<div class="rtil-row{" small" if small else ""}">{head}{figures}</div>'


def _figure(picture: Picture) -> str:
    lines = [escape(line) for line in (picture.label, picture.note) if line]
    source = f"data:image/png;base64,{base64.b64encode(_png(picture.image)).decode()}"
    image = f'<img src="{source}" alt="{lines[0] if lines else ""}">'
    return f"<figure>{image}<figcaption>{'<br>'.join(lines)}</figcaption></figure>"


def _png(image: Tensor) -> bytes:
    array, stream = to_uint8(image.detach()).cpu().permute(1, 2, 0).numpy(), io.BytesIO()
    Image.fromarray(array[:, :, 0] if array.shape[2] == 1 else array).save(stream, "png")
    return stream.getvalue()
