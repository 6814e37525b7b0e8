"""How a command begins and ends: where its configurations are, its errors, its exit code.

No torch and no OmegaConf: `rtil` alone and reports start without them. What an entry point makes
of its configuration lives in the `setup` module of its room.
"""

from __future__ import annotations

import io
import os
import signal
import sys
import tempfile
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

PACKAGE = Path(__file__).resolve().parents[1]


def _configs() -> str:
    """The folder of the yamls: in the package of a wheel, beside it in the sources."""
    for folder in (PACKAGE / "configs", PACKAGE.parent / "configs"):
        if folder.is_dir():
            return str(folder)
    raise FileNotFoundError(f"configs: neither in {PACKAGE} nor beside it; reinstall rtil.")


CONFIGS = _configs()


def check_writable(folder: Path, setting: str) -> None:
    """Shows that files can be written to a folder, which need not be there yet; leaves nothing.

    Args:
        setting: "command: key=value" that the folder comes from, for the message.

    Raises:
        ValueError: they cannot, before anything is computed for them.
    """
    made: list[Path] = []
    try:
        for path in (*reversed(folder.parents), folder):
            if not path.exists():
                path.mkdir()
                made.append(path)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise ValueError(
            f"{setting}: nothing can be written to {folder} ({error.strerror}). "
            "Name a folder where files can be written."
        ) from error
    finally:
        for path in reversed(made):
            with suppress(OSError):  # another process may use it by now
                path.rmdir()


def entry(work: Callable[[], int | None]) -> None:
    """Runs an entry point: a bad setting ends it with its message and code 1, not a traceback.

    Args:
        work: returns the number of the signal that stopped it, or None.
    """
    for stream in (sys.stdout, sys.stderr):
        # What a terminal or a file cannot hold is shown by its code, and ends nothing.
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    try:
        signum = work()
    except KeyboardInterrupt:
        signum = signal.SIGINT
    # OmegaConf's errors of a configuration that does not resolve are ValueErrors.
    except (ValueError, TypeError, RuntimeError, OSError) as error:
        if os.environ.get("HYDRA_FULL_ERROR") == "1":
            raise
        # What rtil refuses names what to do; an error from elsewhere may not.
        expected = isinstance(error, (ValueError, FileNotFoundError))
        hint = "" if expected else "\n(set HYDRA_FULL_ERROR=1 for the traceback)"
        print(f"error: {error}{hint}", file=sys.stderr, flush=True)
        sys.exit(1)
    if signum:
        sys.exit(128 + signum)
