"""How a command begins and ends: where its configurations are, its errors, its exit code.

No torch: reports start without it. What an entry point makes
of its configuration lives in the `setup` module of its room.
"""

from __future__ import annotations

import io
import os
import signal
import sys
import tempfile
import threading
import traceback
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode

from rtil.process.files import FREE_SPACE, FULL

PACKAGE = Path(__file__).resolve().parents[1]


def _configs() -> str:
    """The folder of the yamls: in the package of a wheel, beside it in the sources."""
    for folder in (PACKAGE / "configs", PACKAGE.parent / "configs"):
        if folder.is_dir():
            return str(folder)
    raise FileNotFoundError(f"configs: neither in {PACKAGE} nor beside it; reinstall rtil.")


CONFIGS = _configs()


class FailedJob(RuntimeError):
    """A job of a sweep has failed and said so; the others run."""


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

    Raises:
        FailedJob: in a job of a sweep, in place of the exit that would end the whole sweep.
    """
    for stream in (sys.stdout, sys.stderr):
        # What a terminal or a file cannot hold is shown by its code, and ends nothing.
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    threading.excepthook = _thread_ended
    signum, failure = None, None
    try:
        signum = work()
    except KeyboardInterrupt:
        signum = signal.SIGINT
    # OmegaConf's errors of a configuration that does not resolve are ValueErrors.
    except (ValueError, TypeError, RuntimeError, OSError) as error:
        if os.environ.get("HYDRA_FULL_ERROR") == "1":
            raise
        full = isinstance(error, OSError) and error.errno in FULL
        failure = f"{error}. {FREE_SPACE}" if full else str(error)
        # What rtil refuses names what to do; an error from elsewhere may not.
        expected = full or isinstance(error, (ValueError, FileNotFoundError))
        hint = "" if expected else "\n(set HYDRA_FULL_ERROR=1 for the traceback)"
        print(f"error: {failure}{hint}", file=sys.stderr, flush=True)
    except Exception as error:
        if not in_sweep():
            raise
        failure = f"{type(error).__name__}: {error}"
        traceback.print_exc()
    if failure is not None:
        # Past the except: there the failure would hold the networks of the job's frames.
        if in_sweep():
            raise FailedJob(failure)
        sys.exit(1)
    if signum:
        sys.exit(128 + signum)


def _thread_ended(args: threading.ExceptHookArgs) -> None:
    """Says in a line that a writer of curves found a full disk; the command meets it next."""
    if isinstance(args.exc_value, OSError) and args.exc_value.errno in FULL:
        # TensorBoard's writer does not say which file it is; all other writers do.
        file = "" if args.exc_value.filename else ": a file of tensorboard/"
        print(f"error: {args.exc_value}{file}", file=sys.stderr, flush=True)
    else:
        threading.__excepthook__(args)


def in_sweep() -> bool:
    """Whether a job of a sweep runs; the sweeper itself runs outside of its jobs."""
    # Hydra sets the mode of a single run; that of a job is MULTIRUN, or unset in an experiment.
    return HydraConfig.initialized() and HydraConfig.get().mode is not RunMode.RUN
