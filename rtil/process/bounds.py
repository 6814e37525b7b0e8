"""How much a file may hold, looked at before anything walks through it, formats or copies it."""

from __future__ import annotations

import os
import stat
import struct
import zipfile
import zlib
from collections.abc import Mapping
from pathlib import Path

MOST = 10**6  # entries; those that are named several times count each time
DEEPEST = 64  # levels
# What the zipfile module raises where an archive is damaged: its own error, those of what it
# calls, RuntimeError where damage reads as a password, OSError where it leads before the start.
ZIP_DAMAGE = (
    *(zipfile.BadZipFile, zlib.error, struct.error),
    *(RuntimeError, LookupError, ValueError, EOFError, OSError),
)


def regular_size(path: str | Path) -> int:
    """Bytes of a regular file.

    Raises:
        OSError: there is none.
        ValueError: a folder, a pipe, which would be waited for, or a device, which has no end.
    """
    about = os.stat(path)
    if not stat.S_ISREG(about.st_mode):
        raise ValueError("no regular file")
    return about.st_size


def check_regular(path: Path) -> int:
    """The size of a regular file in bytes.

    Raises:
        FileNotFoundError: there is none.
        ValueError: a folder, a pipe or a device, which may have no end, also behind a link.
    """
    try:
        return regular_size(path)
    except ValueError as error:
        text = f"{path} is {error}. Move it out of the way, or name another."
        raise ValueError(text) from error


def check_size(content: object, where: str, advice: str) -> None:
    """Raises ValueError where a walk through content would take too long, or not end.

    A few bytes of yaml, or of a pickle, can name one list many times over.
    """
    level: list[object] = [content]
    count = 0
    for _ in range(DEEPEST):
        below: list[object] = []
        for node in level:
            if isinstance(node, (Mapping, list, tuple)):
                count += len(node)
                if count > MOST:
                    raise ValueError(f"{where} holds more than {MOST} entries. {advice}")
                below += node.values() if isinstance(node, Mapping) else node
        if not below:
            return
        level = below
    raise ValueError(f"{where} is nested more than {DEEPEST} levels deep. {advice}")
