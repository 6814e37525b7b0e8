"""Entries of a zip, each read by itself within limits.

The `zipfile` module reads the directory. It does not read entries: its file position would be
shared among threads and forks, and entries may unpack to more than the directory says.
"""

from __future__ import annotations

import os
import struct
import zipfile
import zlib
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path

from rtil.data.limits import Limits
from rtil.process.bounds import ZIP_DAMAGE, regular_size

ENCRYPTED = 1  # bit of an entry's flags
# A local header is 30 bytes, the last four the lengths of the name and the extra field behind it.
LENGTHS_AT = 26


def entries(path: Path) -> Mapping[str, zipfile.ZipInfo]:
    """The files of a zip by name.

    Raises:
        OSError, ValueError: it cannot be read, is no regular file or no zip.
    """
    size = regular_size(path)
    return _entries(path, path.stat().st_mtime_ns, size)


@lru_cache(maxsize=2)  # of 70,000 files this takes a second, and a command asks several times
def _entries(path: Path, mtime_ns: int, size: int) -> dict[str, zipfile.ZipInfo]:
    """The files of a zip as it was at that time."""
    try:
        with zipfile.ZipFile(path) as archive:
            return {i.filename: i for i in archive.infolist() if not i.is_dir()}
    except PermissionError:
        raise
    except ZIP_DAMAGE as error:
        raise ValueError(f"not a zip archive, or a truncated one ({error})") from error


def read_entry(path: Path, entry: zipfile.ZipInfo, limits: Limits) -> bytes:
    """Contents of an entry.

    Raises:
        OSError: the zip cannot be read.
        ValueError: too large, damaged, encrypted, or packed by another method than deflate.
    """
    limits.check_bytes(max(entry.file_size, entry.compress_size))
    data = _unpacked(path, entry, entry.compress_size, entry.file_size + 1)
    if len(data) != entry.file_size or zlib.crc32(data) != entry.CRC:
        raise ValueError("its checksum in the zip differs")
    return data


def head_of_entry(path: Path, entry: zipfile.ZipInfo, count: int) -> bytes:
    """The first bytes of an entry, at most so many, unchecked; raises as `read_entry`."""
    return _unpacked(path, entry, min(count, entry.compress_size), count)


def _unpacked(path: Path, entry: zipfile.ZipInfo, packed: int, most: int) -> bytes:
    """What the first `packed` bytes of an entry unpack to, cut off at `most` bytes."""
    if entry.flag_bits & ENCRYPTED:
        raise ValueError("encrypted")
    if entry.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        raise ValueError("packed by another method than deflate")
    with open(path, "rb") as file:
        file.seek(entry.header_offset + LENGTHS_AT)
        lengths = file.read(4)
        if len(lengths) < 4:
            raise ValueError("it is said to begin behind the end of the zip")
        file.seek(sum(struct.unpack("<HH", lengths)), os.SEEK_CUR)
        data = file.read(packed)
    if entry.compress_type == zipfile.ZIP_STORED:
        return data[:most]
    try:
        return zlib.decompressobj(wbits=-15).decompress(data, most)
    except zlib.error as error:
        raise ValueError(f"damaged ({error})") from error
