"""Packing a folder or zip of images into a zip of resized, centre-cropped PNGs.

Each entry says in its comment what it was made from, so that a picture is known again.
"""

from __future__ import annotations

import io
import logging
import zipfile
from collections import Counter
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from PIL import Image

from rtil.data.files import WORKERS, ImageFiles, Original
from rtil.data.limits import DEFAULT, Limits
from rtil.data.listing import in_words
from rtil.data.picture import decode
from rtil.process.files import replacing
from rtil.process.lock import held

log = logging.getLogger("rtil.data.pack")


@dataclass(frozen=True)
class Packing:
    """What becomes of the images.

    Args:
        resolution: image side in pixels.
        channels: 1, 3 or "auto" (see `ImageFiles.channels`).
        limit: take the first so many files in sorted order.
        workers: number of threads.
        limits: larger files are unreadable.

    Raises:
        ValueError: a number is out of range.
    """

    resolution: int
    channels: int | str = "auto"
    limit: int | None = None
    workers: int = WORKERS
    limits: Limits = DEFAULT

    def __post_init__(self) -> None:
        for name in ("resolution", "limit", "workers"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ValueError(f"pack: {name}={value}; it must be 1 or more")


def pack(source: str | Path, out: str | Path, packing: Packing, force: bool = False) -> int:
    """Write a folder or zip of images as resized, centre-cropped PNGs into a new zip.

    The zip appears under its name once it is complete. Its entries keep their folders and order,
    and are stored, since PNG is compressed already. Unreadable files are named and left out.

    Args:
        source: folder or .zip.
        out: the .zip to write.
        force: replace an existing `out`.

    Returns:
        Number of images written.

    Raises:
        FileExistsError: `out` exists.
        FileNotFoundError, ValueError: see `ImageFiles`.
    """
    out = Path(out).expanduser()
    if out.suffix.lower() != ".zip":
        raise ValueError(f"pack: got the output {out}; its name must end in .zip")
    if out.exists() and not force:
        raise FileExistsError(f"pack: {out} exists; choose another name or give --force")
    files = ImageFiles(source, packing.limits)
    order = range(len(files))[: packing.limit]
    channels = files.channels(order) if packing.channels == "auto" else int(packing.channels)

    def shrink(data: bytes) -> tuple[Original, bytes]:
        image = decode(data, packing.resolution, channels, packing.limits).transpose(1, 2, 0)
        png = io.BytesIO()
        Image.fromarray(image[:, :, 0] if channels == 1 else image).save(png, "png")
        return Original.of(data), png.getvalue()

    out.parent.mkdir(parents=True, exist_ok=True)
    written: set[str] = set()
    with (
        held(out, "pack"),
        replacing(out) as part,
        zipfile.ZipFile(part, "w", zipfile.ZIP_STORED) as archive,
    ):
        for index, (own, png) in files.each(order, shrink, "packing", packing.workers):
            entry = zipfile.ZipInfo(_free_name(files.names[index], written))
            entry.external_attr = 0o644 << 16  # what an unpacked file may be used for
            originals = [own, *files.originals(index)]
            entry.comment = b" ".join(original.note() for original in originals)
            archive.writestr(entry, png)
            written.add(entry.filename)
    left_out = files.left_out + Counter(unreadable=len(order) - len(written))
    if left_out.total():
        log.info("%s: left out %s", files.path, in_words(left_out))
    return len(written)


def _free_name(name: str, taken: set[str]) -> str:
    """The name of an image's PNG: with another ending, or one more, as of a.jpg beside a.png."""
    plain = str(PurePosixPath(name).with_suffix(".png"))
    return f"{name}.png" if plain in taken else plain
