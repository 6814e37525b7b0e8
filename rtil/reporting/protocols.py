"""What the settings of a run rest on: its protocol, and the tuning where there was one.

Configurations are flattened.
"""

from __future__ import annotations

from collections.abc import Mapping

from rtil.reporting.texts import paragraph
from rtil.runs.search import budget

Config = Mapping[str, object]
START = "protocol.tuned."


def tuned_at(config: Config) -> str:
    """The measurement that the settings of a run were tuned at, "" where nothing was tuned.

    Runs to be compared have the same.
    """
    knob = str(config["task.knob"])
    # What is not said otherwise was tuned at the inversion's own measurement.
    value = config.get(f"{START}at.{knob}", config.get(knob))
    if budget(config) is None or not isinstance(value, (int, float)):
        return ""
    return f"{knob} {float(value):g}"


def is_tuned(config: Config) -> bool:
    """Whether a search chose the settings of this run."""
    return any(key.startswith(START) for key in config)


def choice(config: Config) -> str:
    """On what the settings of a run rest, in a sentence."""
    tuned = {
        key.removeprefix(START): value for key, value in config.items() if key.startswith(START)
    }
    keys = tuned.get("keys") or ()
    assert isinstance(keys, (list, tuple))
    return paragraph(
        "choice",
        protocol=config.get("protocol.name", "paper"),
        tuned=tuned,
        at={key[3:]: value for key, value in tuned.items() if key.startswith("at.")},
        chosen={key: config.get(key) for key in keys},
    )
