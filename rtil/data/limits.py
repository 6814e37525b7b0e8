"""What a file given by the user may ask for: its size is known, and limited, before it is read.

Every reader of such files goes through here: pictures, zips, masks, measurements. What is read of
them lives beside this file, weights are read in `rtil.checkpoint`.
"""

from __future__ import annotations

import zlib
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from rtil.process.bounds import regular_size

CHUNK = 2**20  # bytes at a time, where a file need not be held


@dataclass(frozen=True)
class Limits:
    """What a file may ask for; more is refused before any of it is allocated.

    Args:
        megapixels: of one picture, 10^6 pixels.
        file_mb: of one file, and of an entry of a zip once it is unpacked, 10^6 bytes.
    """

    megapixels: float = 64.0
    file_mb: float = 256.0

    @classmethod
    def of(cls, data: Mapping[str, Any]) -> Limits:
        """Those of a yaml of configs/data; the defaults where it says none.

        What a limit may be is said of its key (`rtil.runs.units`), and checked with all keys.
        """
        names = [field.name for field in fields(cls) if f"max_{field.name}" in data]
        return cls(**{name: float(data[f"max_{name}"]) for name in names})

    def check_pixels(self, width: int, height: int) -> None:
        """Raises ValueError for a picture with more pixels."""
        if width * height > self.megapixels * 1e6:
            raise ValueError(
                f"{width}x{height} pixels; at most {self.megapixels:g} million are read "
                "(data.max_megapixels)"
            )

    def check_bytes(self, size: int) -> None:
        """Raises ValueError for a larger file."""
        if size > self.file_mb * 1e6:
            raise ValueError(
                f"{size / 1e6:.0f} MB; at most {self.file_mb:g} are read (data.max_file_mb)"
            )

    def read(self, path: str | Path) -> bytes:
        """Contents of a file.

        Raises:
            OSError: it cannot be read. ValueError: too large, or no regular file.
        """
        size = regular_size(path)
        self.check_bytes(size)
        with open(path, "rb") as file:
            data = file.read(size + 1)
        if len(data) != size:  # as of files of the system, which say 0
            raise ValueError(f"it is said to hold {size} bytes and does not")
        return data


DEFAULT = Limits()


def crc_of(path: str | Path) -> int:
    """CRC-32 of a file of any size, as a zip of it would hold; raises as `regular_size`."""
    regular_size(path)
    crc = 0
    with open(path, "rb") as file:
        while chunk := file.read(CHUNK):
            crc = zlib.crc32(chunk, crc)
    return crc
