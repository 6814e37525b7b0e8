"""How a command begins and ends: where its configurations are, its errors, its exit code.

No torch and no OmegaConf: `rtil` alone and reports start without them. What an entry point makes
of its configuration lives in the `setup` module of its room.
"""

from __future__ import annotations

import io
import os
import signal
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

PACKAGE = Path(__file__).resolve().parents[1]


def _configs() -> str:
    """The folder of the yamls: in the package of a wheel, beside it in the sources."""
    for folder in (PACKAGE / "configs", PACKAGE.parent / "configs"):
        if folder.is_dir():
            return str(folder)
    raise FileNotFoundError(f"configs: neither in {PACKAGE} nor beside it; reinstall rtil.")


CONFIGS = _configs()


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
        text = f"error: {error}\n(set HYDRA_FULL_ERROR=1 for the traceback)"
        print(text, file=sys.stderr, flush=True)
        sys.exit(1)
    if signum:
        sys.exit(128 + signum)


def check_numbers(who: str, settings: Mapping, lowest: Mapping[str, float]) -> None:
    """Checks settings that are numbers, before anything is read or computed.

    Args:
        who: entry point, for the message.
        settings: key to a number or a list of them; keys that it lacks are passed over.
        lowest: smallest value allowed of each key; a whole number asks for whole numbers.

    Raises:
        ValueError: not a number, or too small.
    """
    for key, low in lowest.items():
        setting = settings.get(key, low)
        several = isinstance(setting, Sequence) and not isinstance(setting, str)
        for value in setting if several else [setting]:
            if not _is_number(value, isinstance(low, int)) or not value >= low:
                kind = "a whole number" if isinstance(low, int) else "a number"
                raise ValueError(f"{who}: {key}={value} must be {kind} from {low} up.")


def _is_number(value: object, whole: bool) -> bool:
    """Whether a setting is a number; true and false, which Python counts as 1 and 0, are none."""
    if isinstance(value, bool):
        return False
    return isinstance(value, int if whole else (int, float))
