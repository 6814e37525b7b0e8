"""One owner at a time: a directory, or a file to be written, belongs to one process.

The lock is one of the operating system's on an open file (`flock`). It ends with the process that
holds it however that ends, so none can be left behind; a file that a killed process leaves is no
lock, and the next owner takes it. On NFS Linux passes the lock on to the server; a file system
that has no locks is said so in a warning, and the work goes on without.
"""

from __future__ import annotations

import errno
import fcntl
import json
import logging
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TextIO

from rtil.process.files import SUFFIX, is_at, writing

log = logging.getLogger("rtil.lock")

NAME = ".owner"
TEMPORARY = (f".*{SUFFIX}", ".*.tmp-[0-9]*")  # of `replacing`, and of version 0.1
UNSUPPORTED = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP)


class Owner:
    """Holds a directory, which is made where there is none, until `release`.

    Temporary files that a killed owner left there, or in its folders, are deleted.

    Args:
        directory: whose files this process writes.
        work: what is done to it, for the message to others, e.g. "train".

    Raises:
        RuntimeError: another process holds it; names its host, process and work.
    """

    def __init__(self, directory: Path, work: str) -> None:
        directory.mkdir(parents=True, exist_ok=True)
        self._path = directory / NAME
        self._file: TextIO | None = _acquired(self._path, work, str(directory))
        for pattern in TEMPORARY:
            for path in directory.rglob(pattern):
                path.unlink(missing_ok=True)

    def release(self) -> None:
        """Lets others own the directory; once is enough."""
        if self._file is not None:
            _let_go(self._path, self._file)
            self._file = None


@contextmanager
def held(path: Path, work: str) -> Iterator[None]:
    """Holds a file that is to be written, until the block ends; raises as `Owner`."""
    lock = path.with_name(f".{path.name}{NAME}")
    file = _acquired(lock, work, str(path))
    try:
        yield
    finally:
        _let_go(lock, file)


def _acquired(path: Path, work: str, what: str) -> TextIO:
    """The open file of a lock, held."""
    while True:
        file = open(path, "a+", encoding="utf-8")  # noqa: SIM115  # it stays open: it is the lock
        try:
            _lock(file, what)
        except BaseException:
            file.close()
            raise
        # Whoever held it may have deleted it between open and lock: then it locks nothing.
        if is_at(file, path):
            break
        file.close()
    # Read by whoever is refused; the lock itself is the system's.
    owner = {"host": socket.gethostname(), "process": os.getpid(), "work": work}
    with writing(path):
        file.truncate(0)
        json.dump(owner, file)
        file.flush()
    return file


def _lock(file: TextIO, what: str) -> None:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise RuntimeError(
            f"{what} is in use by {_holder(file)}. Wait until it has ended, or choose another "
            "place."
        ) from None
    except OSError as error:
        if error.errno not in UNSUPPORTED:
            raise
        log.warning(
            "%s lies on a file system without locks (%s): make sure yourself that no other "
            "process writes there.",
            what,
            error.strerror,
        )


def _holder(file: TextIO) -> str:
    """What the holder of a lock wrote about itself."""
    file.seek(0)
    try:
        owner = json.load(file)
        return f"process {owner['process']} on {owner['host']} ({owner['work']})"
    except (ValueError, KeyError, TypeError):  # it has the lock and has not written yet
        return "another process"


def _let_go(path: Path, file: TextIO) -> None:
    path.unlink(missing_ok=True)  # before the lock ends: afterwards it may be another's
    file.close()
