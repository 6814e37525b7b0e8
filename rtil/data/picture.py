"""Decoding pictures: from the bytes of a file to grey or colour pixels of 8 bits, within limits.

Where the bytes come from is in `rtil.data.files`, what a mask means in
`rtil.inversion.measurement_file`.
"""

from __future__ import annotations

import io

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from rtil.data.limits import DEFAULT, Limits

# By contents, whatever a file is called. Others are left out: Pillow hands EPS to a program.
FORMATS = ("PNG", "JPEG", "BMP", "DIB", "PPM", "GIF", "WEBP", "TIFF")
GREY_MODES = ("1", "L", "LA", "I", "I;16", "I;16B", "I;16L")
UNREADABLE = (OSError, ValueError)  # what reading and decoding a file raise where it is damaged
MOST_SCALED = 64e6  # pixels of a scaled picture that is made whole; no limit changes what is read
BAND = 256  # rows that are laid on white at a time
# 16 bits to 8, rounded: 65535 = 257 * 255.
EIGHT_BITS = ((np.arange(65536) + 128) // 257).astype(np.uint8)

Image.MAX_IMAGE_PIXELS = None  # `Limits` refuses large pictures, and may be told to take them


def decode(data: bytes, size: int, channels: int, limits: Limits = DEFAULT) -> np.ndarray:
    """Decode an image, scale its short side to `size` (Lanczos, anti-aliased), crop the centre.

    Returns:
        (channels, size, size) uint8.

    Raises:
        One of `UNREADABLE`.
    """
    image = open_picture(data, "L" if channels == 1 else "RGB", limits)
    scaled = covering(image.size, size)
    if scaled[0] * scaled[1] > MOST_SCALED:
        return pixels(_middle(image, scaled, size))
    if image.size != scaled:
        image = image.resize(scaled, Image.Resampling.LANCZOS)
    return pixels(crop_centre(image, size))


def open_picture(data: bytes, mode: str | None = None, limits: Limits = DEFAULT) -> Image.Image:
    """Decode an image to `mode`, "L" or "RGB"; None: "L" where it is stored grey, else "RGB".

    Orientation tags are applied, transparency is laid on white, 16-bit grey becomes 8-bit.

    Raises:
        One of `UNREADABLE`.
    """
    with _opened(data, limits) as image:
        mode = mode or ("L" if image.mode in GREY_MODES else "RGB")
        try:
            image.load()
            ImageOps.exif_transpose(image, in_place=True)
            deep = image.mode.startswith("I")
            eight = _of_eight_bits(image) if deep else image
            return _on_white(eight, mode) if eight.has_transparency_data else _as(eight, mode)
        except (*UNREADABLE, MemoryError):
            raise
        except Exception as error:  # a decoder raises whatever the bytes lead it to
            raise ValueError(f"damaged ({error})") from error


def stored_mode(data: bytes, limits: Limits = DEFAULT) -> str:
    """Pillow's mode of a picture, by its header; raises one of `UNREADABLE`."""
    with _opened(data, limits) as image:
        return image.mode


def has_transparency(data: bytes, limits: Limits = DEFAULT) -> bool:
    """Whether a picture has pixels that may be transparent; raises one of `UNREADABLE`."""
    with _opened(data, limits) as image:
        return image.has_transparency_data


def covering(sides: tuple[int, int], size: int) -> tuple[int, int]:
    """(width, height) of a picture of these sides once its short side is scaled to `size`."""
    scale = size / min(sides)
    width, height = (max(size, round(scale * side)) for side in sides)
    return width, height


def crop_centre(image: Image.Image, size: int) -> Image.Image:
    """The square of that side in the middle."""
    left, top = (image.width - size) // 2, (image.height - size) // 2
    return image.crop((left, top, left + size, top + size))


def pixels(image: Image.Image) -> np.ndarray:
    """(channels, height, width) of an image of mode "L", "RGB" or "F"."""
    return np.asarray(image).reshape(image.height, image.width, -1).transpose(2, 0, 1)


def _opened(data: bytes, limits: Limits) -> Image.Image:
    """A picture of which no more than the header is read, within limits, of units that are known.

    Raises:
        ValueError: no picture, too many pixels, or pixels without a fixed range.
    """
    try:
        image = Image.open(io.BytesIO(data), formats=FORMATS)
    except UnidentifiedImageError:  # its message is a memory address
        raise ValueError("not an image of a known format") from None
    except Exception as error:  # a decoder raises whatever the bytes lead it to
        raise ValueError(f"damaged ({error})") from error
    limits.check_pixels(*image.size)
    if image.mode == "F":
        raise ValueError("floating-point pixels have no fixed range; convert them to 8 or 16 bits")
    # Of PNG and PGM this mode is 16 bits, or scaled to them.
    if image.mode == "I" and image.format == "TIFF":
        raise ValueError("32-bit pixels have no fixed range; convert them to 8 or 16 bits")
    return image


def _of_eight_bits(image: Image.Image) -> Image.Image:
    """A picture of 16-bit grey, which Pillow would clip at 255 where it should scale."""
    deep = np.asarray(image)
    if 0 < deep.max() <= 255:
        raise ValueError(
            f"16-bit pixels of at most {deep.max()} of 65535 are black; store 0 to 255 as 8 bits"
        )
    return Image.fromarray(EIGHT_BITS[deep])


def _on_white(image: Image.Image, mode: str) -> Image.Image:
    """A picture with its transparency laid on white, in bands: whole it is held four times."""
    whole = Image.new(mode, image.size)
    for top in range(0, image.height, BAND):
        box = (0, top, image.width, min(top + BAND, image.height))
        band = image.crop(box).convert("RGBA")
        white = Image.new("RGBA", band.size, "white")
        whole.paste(_as(Image.alpha_composite(white, band), mode), box)
    return whole


def _as(image: Image.Image, mode: str) -> Image.Image:
    """A picture in a mode; Pillow would copy one that has it already."""
    return image if image.mode == mode else image.convert(mode)


def _middle(image: Image.Image, scaled: tuple[int, int], size: int) -> Image.Image:
    """The middle square of a picture scaled to `scaled`, without making the rest of it.

    For thin pictures, which become very long ones. Others are scaled whole: Pillow rounds between
    its two passes, whose order may be another for a part.
    """
    left, top = (scaled[0] - size) // 2, (scaled[1] - size) // 2
    across, down = image.width / scaled[0], image.height / scaled[1]
    box = (left * across, top * down, (left + size) * across, (top + size) * down)
    return image.resize((size, size), Image.Resampling.LANCZOS, box)
