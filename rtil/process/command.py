"""How a command begins and ends: its configurations, its errors, its exit code. No torch."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from omegaconf.errors import OmegaConfBaseException

PACKAGE = Path(__file__).resolve().parents[1]
CONFIGS = next(
    (str(d) for d in (PACKAGE / "configs", PACKAGE.parent / "configs") if d.is_dir()), None
)


def entry(work: Callable[[], int | None]) -> None:
    """Runs an entry point: a bad setting ends it with its message and code 1, not a traceback.

    Args:
        work: returns the number of the signal that stopped it, or None.
    """
    try:
        signum = work()
    except KeyboardInterrupt:
        signum = signal.SIGINT
    except (ValueError, TypeError, RuntimeError, OSError, OmegaConfBaseException) as error:
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
        settings: key to value; keys that it lacks are passed over.
        lowest: smallest value allowed of each key; a whole number asks for whole numbers.

    Raises:
        ValueError: not a number, or too small.
    """
    for key, low in lowest.items():
        found = settings.get(key, low)
        many = isinstance(found, Sequence) and not isinstance(found, str)
        kinds = int if isinstance(low, int) else (int, float)
        for value in found if many else [found]:
            if not isinstance(value, kinds) or isinstance(value, bool) or not value >= low:
                kind = "a whole number" if isinstance(low, int) else "a number"
                raise ValueError(f"{who}: {key}={value} must be {kind} from {low} up.")
