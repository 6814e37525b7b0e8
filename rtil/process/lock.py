"""One owner at a time: a directory, or a file to be written, belongs to one process.

The lock is one of the operating system's on an open file (`flock`), which ends with the process
that holds it however that ends: none can be left behind, and there is none to delete by hand. On
NFS Linux passes it on to the server; a file system that has no locks is said so in a warning, and
the work goes on without.
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

log = logging.getLogger("rtil.lock")

NAME = ".owner"
UNSUPPORTED = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP)


@contextmanager
def owned(directory: Path, work: str) -> Iterator[None]:
    """Holds a directory, which is made where there is none, until the block ends.

    Args:
        directory: whose files the block writes.
        work: what is done to it, for the message to others, e.g. "train".

    Raises:
        RuntimeError: another process holds it; names its host, process and work.
    """
    directory.mkdir(parents=True, exist_ok=True)
    with held(directory / NAME, work, str(directory)):
        yield


@contextmanager
def held(path: Path, work: str, what: str) -> Iterator[None]:
    """Holds the lock of a file beside what is written; see `owned`.

    Args:
        path: of the lock; made where there is none, and left.
        what: is held, for the message.
    """
    with open(path, "a+", encoding="utf-8") as file:
        _acquire(file, what)
        # Read by whoever is refused; not by the lock, which is the system's.
        owner = {"host": socket.gethostname(), "process": os.getpid(), "work": work}
        file.seek(0)
        file.truncate()
        json.dump(owner, file)
        file.flush()
        yield


def _acquire(file: TextIO, what: str) -> None:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise RuntimeError(
            f"{what} is in use by {_owner(file)}. Wait until it has ended, or choose another "
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


def _owner(file: TextIO) -> str:
    """What the holder of a lock wrote about itself."""
    file.seek(0)
    try:
        owner = json.load(file)
        return f"process {owner['process']} on {owner['host']} ({owner['work']})"
    except (ValueError, KeyError, TypeError):  # it has the lock and has not written yet
        return "another process"
