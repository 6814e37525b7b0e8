"""Writing files so that a reader sees the old or the new content, never a part of it."""

from __future__ import annotations

import errno
import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO

FULL = (errno.ENOSPC, errno.EDQUOT, errno.EROFS)  # no fault of what is written
FREE_SPACE = (
    "What was saved before is untouched: free some space, or make the folder writable, and run "
    "the same command again."
)
SUFFIX = ".rtil-tmp"  # of what is written before it takes the place of a file
TURNS = 1000  # of others that are waited for; a file system that tells no file again has no turns


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Has the error of a full disk name the file: a write that fails does not."""
    try:
        yield
    except OSError as error:
        if error.errno in FULL and not error.filename:
            raise OSError(error.errno, os.strerror(error.errno), str(path)) from error
        raise


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A path beside `path` to write to; it becomes `path` where the block ends without an error.

    On any failure the file that was there before survives, and nothing else stays. What a killed
    process leaves has the same name, so whoever writes the file next takes it over; two that write
    it at a time take turns.
    """
    temporary = path.with_name(f".{path.name}{SUFFIX}")
    with _locked(temporary), writing(path):
        try:
            yield temporary
            os.replace(temporary, path)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise


def _locked(temporary: Path) -> IO:
    """The open file to write to, made and locked when no other process writes to it any more."""
    for turns_left in reversed(range(TURNS)):
        file = open(temporary, "ab")  # noqa: SIM115  # it stays open: it is the lock
        with suppress(OSError):  # of a file system without locks
            fcntl.flock(file, fcntl.LOCK_EX)
        # Whoever held it has put it in its place meanwhile: then it is no longer this file.
        if is_at(file, temporary) or not turns_left:
            break
        file.close()
    return file


def is_at(file: IO, path: Path) -> bool:
    """Whether an open file is still the one at a path."""
    try:
        return os.path.samestat(os.fstat(file.fileno()), path.stat())
    except FileNotFoundError:
        return False


def write_text(path: Path, text: str) -> None:
    """Replaces a small file as a whole."""
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8")
