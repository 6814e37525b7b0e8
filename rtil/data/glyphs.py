"""Letters and digits of matplotlib's bundled typefaces: image data with nothing to download.

Image i of a split is a pure function of (seed, split, i): a counter-based hash gives its random
numbers, and the drawing uses only arithmetic that IEEE 754 rounds exactly, each image on its own.
So pixels do not depend on the batch, the number of threads or the order of reading. They do depend
on matplotlib's font files and on Pillow's FreeType, which draw the outlines.

No typeface is in two splits. Computer Modern's sans serif is in test only and its typewriter in
val only, so both hold a whole family that training never shows, besides unseen styles of other
families. matplotlib's symbol, display and mathematical faces are left out: most lack text glyphs.

One more typeface: name its file in `TYPEFACES`. Images in files live in `rtil.data.folder`.
"""

from __future__ import annotations

import string
from collections.abc import Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple, final

import matplotlib
import numpy as np
import torch
from PIL import Image, ImageFont
from torch import Tensor

from rtil.data.base import ImageData
from rtil.data.source import Source, SplitFiles

CHARACTERS = string.ascii_letters + string.digits
TYPEFACES = {
    "train": (
        "DejaVuSans", "DejaVuSans-Bold", "DejaVuSans-Oblique",
        "DejaVuSansMono", "DejaVuSansMono-Bold", "DejaVuSansMono-BoldOblique",
        "DejaVuSerif", "DejaVuSerif-Italic", "DejaVuSerif-BoldItalic",
        "STIXGeneral", "STIXGeneralBolIta", "cmr10", "cmb10", "cmti10",
    ),
    "val": ("DejaVuSans-BoldOblique", "STIXGeneralBol", "cmtt10"),
    "test": ("DejaVuSansMono-Oblique", "DejaVuSerif-Bold", "STIXGeneralItalic", "cmss10"),
}  # fmt: skip

EXTENT = (0.60, 0.95)  # longer side of the upright box around the rotated glyph, over the image's
MAX_SHIFT = 0.15  # of the box's centre, over the image side; less where it would leave the image
MAX_TAN_HALF_ANGLE = 0.13165  # tan(15 degrees / 2)
MIN_CONTRAST = 96.0  # between glyph and background, of 255

SIZES = (8, 1024)  # smallest and largest image side in pixels
MAX_TILE = 512  # texels; bounds the atlas at 175 MB, images above 256 pixels are interpolated
CHUNK_PIXELS = 1 << 16  # drawn at once: the temporaries then stay in a core's cache
NUM_GEOMETRY = 7  # random numbers per image before those of the colours


class Atlas(NamedTuple):
    """Coverage bitmaps of the glyphs of some typefaces, end to end in one array.

    Glyph g begins at texels[start[g]], row after row of stride[g] texels. Its height[g] x width[g]
    ink has a border of one empty texel before it and two behind, so that bilinear sampling of a
    coordinate clipped to [0, width + 1] x [0, height + 1] reads inside its tile.
    """

    texels: np.ndarray  # uint8
    start: np.ndarray  # (glyphs,) int64, as the next
    stride: np.ndarray
    width: np.ndarray  # (glyphs,) float64, as the next
    height: np.ndarray


@lru_cache(maxsize=4)
def atlas(typefaces: tuple[str, ...], tile: int) -> Atlas:
    """Rasterise `CHARACTERS` in each typeface, the longer side of the ink scaled to `tile` texels.

    Raises:
        FileNotFoundError: matplotlib's font folder lacks a typeface.

    Note: once per process, 0.2 s for 14 typefaces at tile=64, 4 s at tile=512.
    """
    folder = Path(matplotlib.get_data_path(), "fonts", "ttf")
    tiles = []
    for face in typefaces:
        path = folder / f"{face}.ttf"
        if not path.is_file():
            raise FileNotFoundError(
                f"Glyphs: matplotlib's font folder {folder} has no {path.name}; reinstall "
                "matplotlib, or choose another data set, data=folder data.path=DIR"
            )
        # Larger than needed, then reduced: FreeType moves outlines by up to half a pixel to fit
        # its grid. Basic layout: the optional Raqm library must not change the pictures.
        pixels = min(max(2 * tile, 128), 640)
        font = ImageFont.truetype(str(path), pixels, layout_engine=ImageFont.Layout.BASIC)
        for character in CHARACTERS:
            mask = font.getmask(character)
            ink = Image.frombytes("L", mask.size, bytes(mask))
            ink = ink.crop(ink.getbbox())
            size = [max(1, round(tile * side / max(ink.size))) for side in ink.size]
            ink = ink.resize(size, Image.Resampling.HAMMING)
            tiles.append(np.pad(np.asarray(ink), (1, 2)))
    rows, columns = np.array([t.shape for t in tiles]).T
    texels = np.concatenate([t.ravel() for t in tiles])
    start = np.cumsum(rows * columns) - rows * columns
    return Atlas(texels, start, stride=columns, width=columns - 3.0, height=rows - 3.0)


def mix64(x: np.ndarray) -> np.ndarray:
    """Scramble 64-bit words (the output function of SplitMix64, Steele, Lea and Flood 2014)."""
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))


def uniforms(seed: int, split: int, indices: np.ndarray, count: int) -> np.ndarray:
    """Random numbers of images, a hash of (seed, split, index, place in the row).

    Args:
        seed, split: any integers.
        indices: (B,) int64.
        count: how many per image.

    Returns:
        (B, count) float64 in [0, 1) with 53 random bits; a larger count appends columns.
    """
    golden = np.uint64(0x9E3779B97F4A7C15)  # SplitMix64's increment
    key = mix64(np.array([seed % 2**64], np.uint64) + golden)
    key = mix64(key + np.array([split + 1], np.uint64) * golden)
    key = mix64(key + (indices.astype(np.uint64) + np.uint64(1)) * golden)
    places = np.arange(1, count + 1, dtype=np.uint64) * golden
    return (mix64(key[:, None] + places) >> np.uint64(11)) * 2.0**-53


@final
class Glyphs(ImageData):
    """Letters and digits, anti-aliased, of random typeface, size, place, rotation and contrast.

    Args:
        size: image side S in pixels, 8 to 1024. All sizes show the same pictures.
        split: "train", "val" or "test"; their typefaces are disjoint.
        length: number of images; image i does not depend on it.
        seed: of all random choices.
        channels: 1 draws grey on grey, 3 colour on colour, both with the same geometry.

    Raises:
        ValueError: an argument is outside its range.
    """

    def __init__(self, size: int, split: str, length: int, seed: int = 0, channels: int = 1):
        if split not in TYPEFACES:
            raise ValueError(f"Glyphs: split={split!r}; allowed are {', '.join(TYPEFACES)}")
        if not SIZES[0] <= size <= SIZES[1]:
            raise ValueError(f"Glyphs: size={size} pixels; must be from {SIZES[0]} to {SIZES[1]}")
        if channels not in (1, 3):
            raise ValueError(f"Glyphs: channels={channels}; must be 1 (grey) or 3 (colour)")
        if length < 1:
            raise ValueError(f"Glyphs: length={length} for the {split} split; must be 1 or more")
        self.size, self.channels, self.seed = size, channels, seed
        self.split, self.length = split, length

    def __len__(self) -> int:
        return self.length

    def name(self, index: int) -> str:
        """The index with six digits."""
        return f"{index:06d}"

    def digest(self) -> None:
        """None: settings alone make the images."""

    def unreadable(self) -> list[str]:
        return []

    def provenance(self) -> dict[str, object]:
        return {}

    def batch(self, indices: Sequence[int] | Tensor) -> Tensor:
        """Draw images.

        Returns:
            (B, channels, S, S) uint8 on the CPU.

        Note: one core draws about 12,000 grey images/s at 32x32 and 4,000 at 64x64.
        """
        numbers = np.asarray(indices, dtype=np.int64)
        if ((numbers < 0) | (numbers >= self.length)).any():
            raise IndexError(f"Glyphs: the {self.split} split has indices 0 to {self.length - 1}")
        images = np.empty((len(numbers), self.channels, self.size, self.size), np.uint8)
        step = max(1, CHUNK_PIXELS // self.size**2)
        for i in range(0, len(numbers), step):
            images[i : i + step] = self._draw(numbers[i : i + step])
        return torch.from_numpy(images)

    def _draw(self, indices: np.ndarray) -> np.ndarray:
        """background + coverage * (ink - background), rounded: (B, channels, S, S)."""
        split = list(TYPEFACES).index(self.split)
        u = uniforms(self.seed, split, indices, NUM_GEOMETRY + 2 * self.channels)
        contrast = MIN_CONTRAST + (255 - MIN_CONTRAST) * u[:, NUM_GEOMETRY::2]
        dark = (255 - contrast) * u[:, NUM_GEOMETRY + 1 :: 2]
        # All channels have one polarity, so that their contrasts do not cancel in brightness.
        ink_is_bright = u[:, 6:7] >= 0.5
        background = np.where(ink_is_bright, dark, dark + contrast).astype(np.float32)
        change = np.where(ink_is_bright, contrast, -contrast).astype(np.float32)
        image = self._coverage(u)[:, None] * change[:, :, None, None]
        image += background[:, :, None, None] + np.float32(0.5)
        return image.astype(np.uint8)

    def _coverage(self, u: np.ndarray) -> np.ndarray:
        """Share of each pixel that the glyph covers, (B, S, S) float32 in [0, 1].

        The mean of 2x2 bilinear samples of the atlas. A tile has 2S texels, so a texel is 0.24 to
        0.48 pixels wide: samples half a pixel apart skip none, and thin strokes do not alias.
        """
        S, faces = self.size, TYPEFACES[self.split]
        sheet = atlas(faces, min(2 * S, MAX_TILE))
        face, character = (u[:, :2] * (len(faces), len(CHARACTERS))).astype(np.int64).T
        glyph = face * len(CHARACTERS) + character
        start, stride = sheet.start[glyph][:, None, None], sheet.stride[glyph][:, None, None]
        width, height = sheet.width[glyph][:, None], sheet.height[glyph][:, None]

        u = u[:, :, None]
        # Rational in t = tan(angle / 2), because libraries differ in the last bit of a sine.
        t = MAX_TAN_HALF_ANGLE * (2 * u[:, 2] - 1)
        cos, sin = (1 - t * t) / (1 + t * t), 2 * t / (1 + t * t)
        box_x, box_y = width * cos + height * abs(sin), height * cos + width * abs(sin)
        extent = EXTENT[0] + (EXTENT[1] - EXTENT[0]) * u[:, 3]
        scale = extent * S / np.maximum(box_x, box_y)  # pixels per texel
        shift_x = (2 * u[:, 4] - 1) * np.minimum((S - scale * box_x) / 2, MAX_SHIFT * S)
        shift_y = (2 * u[:, 5] - 1) * np.minimum((S - scale * box_y) / 2, MAX_SHIFT * S)

        total = np.zeros((len(u), S, S), np.float32)
        for dx, dy in ((0.25, 0.25), (0.75, 0.25), (0.25, 0.75), (0.75, 0.75)):
            x = (np.arange(S) + dx - S / 2 - shift_x) / scale  # texels from the tile's centre
            y = (np.arange(S) + dy - S / 2 - shift_y) / scale
            # The border adds 1 to a tile's coordinates, and a texel's centre lies at 1/2.
            column = _outer_sum(cos * x, sin * y + width / 2 + 0.5, width + 1)
            row = _outer_sum(-sin * x, cos * y + height / 2 + 0.5, height + 1)
            i, j = row.astype(np.int64), column.astype(np.int64)
            row -= i
            column -= j
            at = start + stride * i + j
            upper = _lerp(sheet.texels[at], sheet.texels[at + 1], column)
            at += stride
            lower = _lerp(sheet.texels[at], sheet.texels[at + 1], column)
            total += _lerp(upper, lower, row)
        return total * np.float32(1 / (4 * 255))


def _outer_sum(x: np.ndarray, y: np.ndarray, top: np.ndarray) -> np.ndarray:
    """x[b, j] + y[b, i] clipped to [0, top[b]], (B, S, S) float32."""
    x, y, top = x.astype(np.float32), y.astype(np.float32), top.astype(np.float32)
    total = x[:, None, :] + y[:, :, None]
    np.maximum(total, np.float32(0), out=total)
    return np.minimum(total, top[:, :, None], out=total)


def _lerp(a: np.ndarray, b: np.ndarray, weight: np.ndarray) -> np.ndarray:
    """a + weight * (b - a) in float32."""
    a = a.astype(np.float32, copy=False)
    difference = b.astype(np.float32)
    difference -= a
    difference *= weight
    difference += a
    return difference


@final
class GlyphSource(Source):
    """Typefaces of matplotlib; each split has its own, and as many images as asked for."""

    from_files = False

    def load(
        self, data: Mapping[str, Any], resolution: int, split: str, channels: int | str
    ) -> Glyphs:
        length = data.get(f"num_{split}") or 0
        grey_or_given = 1 if channels == "auto" else int(channels)
        return Glyphs(resolution, split, length, data["seed"], grey_or_given)

    def split_files(self, data: Mapping[str, Any], split: str) -> SplitFiles | None:
        return None


SOURCE = GlyphSource()
