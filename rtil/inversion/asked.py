"""What a command says of a user's files: its keys, and which of them go together.

Nothing is read here; what the files hold is in `rtil.inversion.item`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from rtil.data.limits import Limits
from rtil.inversion import measurement_file as measurement
from rtil.operators.task import takes
from rtil.runs.keys import KEYS, is_under
from rtil.runs.truth import looks_at_truth

NEEDS_INPUT = tuple(row.name for row in KEYS if row.needs == "input")
NOT_WITH_INPUT = tuple(row.name for row in KEYS if row.needs == "held-out images")


@dataclass(frozen=True)
class Asked:
    """What a command says of files: keys of configs/invert.yaml of the same names.

    task: of configs/task. selection: name of a rule.
    settings: all of them, resolved and flat, which a saved measurement is compared with.
    typed: keys that the user gave. limits: of files, from the `data` group.
    """

    input: str | None
    mask: str | None
    output: str | None
    fit: str | None
    keep_observed: bool | None
    task: Mapping
    selection: str
    settings: Mapping[str, object]
    typed: frozenset[str]
    limits: Limits

    @property
    def knob(self) -> str:
        """The setting that the task is swept over: of a mask that is drawn, its share."""
        return str(self.task["knob"])

    @property
    def drawn(self) -> str:
        """The knob and its value, where they draw a mask."""
        return f"{self.knob}={self.settings[self.knob]}"

    @property
    def takes_mask(self) -> bool:
        """Whether a mask can say what the task observes, instead of its knob and seed."""
        return takes(self.task, "mask")


def check_without_input(asked: Asked) -> None:
    """Raises ValueError for settings that say what becomes of a file."""
    for key in NEEDS_INPUT:
        value = asked.settings.get(key)
        if value is not None:
            raise ValueError(
                f"invert: {key}={value} says what becomes of a file of yours; it needs input=FILE."
            )


def check_with_input(asked: Asked) -> None:
    """Raises ValueError for settings that do not go with `input`."""
    for key in NOT_WITH_INPUT:
        if any(is_under(name, (key,)) for name in asked.typed):
            raise ValueError(
                f"invert: {key} is for held-out images and has no effect on input={asked.input}; "
                "remove it. output=DIR says where results go."
            )
    if looks_at_truth(asked.selection):
        raise ValueError(
            f"invert: selection={asked.selection} picks iterates by the true image, and "
            f"input={asked.input} has none; add selection=best."
        )
    if asked.fit not in (None, *measurement.FITS):
        allowed = ", ".join(measurement.FITS)
        raise ValueError(f"invert: fit={asked.fit} must be one of {allowed}.")
    if not asked.takes_mask:
        check_whole(asked)
    if asked.keep_observed not in (None, True, False):
        raise ValueError(f"invert: keep_observed={asked.keep_observed} must be true or false.")
    if asked.mask and asked.knob in asked.typed:
        raise ValueError(
            f"invert: {asked.drawn} asks for a mask that is drawn, and "
            f"mask={asked.mask} is given. Leave one of them out."
        )
    if asked.output and Path(asked.output).exists() and not Path(asked.output).is_dir():
        raise ValueError(f"invert: output={asked.output} is a file; it must be a directory.")


def check_whole(asked: Asked) -> None:
    """Raises ValueError for settings of a task with masks, where the task has none."""
    if asked.fit not in (None, "error"):
        raise ValueError(
            f"invert: fit={asked.fit} would scale what task={asked.task['name']} measured, and "
            "with it change the measurement; only task=inpainting takes pictures of other sizes."
        )
    if asked.keep_observed is not None:
        raise ValueError(
            "invert: keep_observed belongs to task=inpainting: no other task "
            "observes pixels of the image."
        )
