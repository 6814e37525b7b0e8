"""How a command begins and ends: where its configurations are, its errors, its exit code.

No torch: reports start without it. What an entry point makes
of its configuration lives in the `setup` module of its room.
"""

from __future__ import annotations

import os
import signal
import sys
import traceback
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode

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


def entry(work: Callable[[], int | None]) -> None:
    """Runs an entry point: a bad setting ends it with its message and code 1, not a traceback.

    Args:
        work: returns the number of the signal that stopped it, or None.

    Raises:
        FailedJob: in a job of a sweep, in place of the exit that would end the whole sweep.
    """
    signum, failure = None, None
    try:
        signum = work()
    except KeyboardInterrupt:
        signum = signal.SIGINT
    # OmegaConf's errors of a configuration that does not resolve are ValueErrors.
    except (ValueError, TypeError, RuntimeError, OSError) as error:
        if os.environ.get("HYDRA_FULL_ERROR") == "1":
            raise
        failure = str(error)
        text = f"error: {failure}\n(set HYDRA_FULL_ERROR=1 for the traceback)"
        print(text, file=sys.stderr, flush=True)
    except Exception as error:
        if not _in_sweep():
            raise
        failure = f"{type(error).__name__}: {error}"
        traceback.print_exc()
    if failure is not None:
        # Past the except: there the failure would hold the networks of the job's frames.
        if _in_sweep():
            raise FailedJob(failure)
        sys.exit(1)
    if signum:
        sys.exit(128 + signum)


def _in_sweep() -> bool:
    """Whether a job of a sweep runs; the sweeper itself runs outside of its jobs."""
    # Hydra sets the mode of a single run; that of a job is MULTIRUN, or unset in an experiment.
    return HydraConfig.initialized() and HydraConfig.get().mode is not RunMode.RUN


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
