"""The operator of a task, as its yaml describes it (configs/task).

    task:
      name: sr
      _target_: rtil.operators.downsample.Downsample    a class or function of rtil.operators
      knob: factor           the key beside `task` that the task is swept over
      range: [0, null]       of the knob: above the first, up to the second; null: no limit
      linear: true           whether the operator has an adjoint; null: found by measuring
      measures: image        image or vector; null: found by measuring
      ...                    any other key: an option, passed to the target by its name

The target takes `in_shape` first, then by name the knob, its options, and `seed` and `mask` where
it has them. No name of a task is known here: a new one is a file with an operator and a yaml.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import lru_cache
from inspect import signature
from math import inf
from pathlib import Path
from typing import NamedTuple

import yaml
from torch import Tensor

from rtil.operators.operator import ForwardOperator, LinearOperator
from rtil.process.command import CONFIGS
from rtil.process.instantiate import target_of

NOISE = "noise_std"  # of every task; the knob of one that has no other
PER_IMAGE = "operator.per_image"  # whether images have a drawn operator each
DESCRIPTION = ("name", "_target_", "knob", "range", "linear", "measures")


class Described(NamedTuple):
    """What a task's yaml says of it, but for its target.

    `high` is None where nothing limits, `linear` and `measures` where they are found by measuring.
    """

    name: str
    knob: str
    low: float
    high: float | None
    linear: bool | None
    measures: str | None
    options: dict[str, object]


def knobs_of(config: Mapping) -> dict[str, float | None]:
    """What a configuration holds of the knobs of all tasks of configs/task, for `build_operator`.

    Those of other tasks are there to be refused.
    """
    names = dict.fromkeys((config["task"].get("knob", NOISE), *_shipped_knobs(), NOISE))
    return {name: config.get(name) for name in names}


@lru_cache(maxsize=1)
def _shipped_knobs() -> tuple[str, ...]:
    files = sorted(Path(CONFIGS or ".").glob("task/*.yaml"))
    return tuple(yaml.safe_load(path.read_text())["task"]["knob"] for path in files)


def check_task(task: Mapping, **knobs: float | None) -> None:
    """Raises ValueError as `build_operator` does, where no image is needed to see it."""
    described = describe(task)
    name, knob = described.name, described.knob
    value = knobs.get(knob)
    if not isinstance(value, int | float):
        raise ValueError(f"task={name} needs a number for {knob}; got {value!r}.")
    for other, given in knobs.items():
        if other not in (knob, NOISE) and given is not None:
            raise ValueError(
                f"task={name} is set by {knob} and has no {other}; "
                f"got {other}={given!r}, remove it."
            )
    low, high = described.low, described.high
    # Written so that a value that is not a number (nan) is out of range too.
    inside = value > low and (high is None or value <= high)
    if not inside:
        allowed = f"above {low:g}" if high is None else f"in ({low:g}, {high:g}]"
        raise ValueError(f"task={name}: {knob}={value} must be {allowed}.")


def describe(task: Mapping) -> Described:
    """What a task's yaml says of it.

    Raises:
        ValueError: no operator is named, or something of the description is missing.
    """
    name = task.get("name")
    if "_target_" not in task:
        known = sorted(path.stem for path in Path(CONFIGS or ".").glob("task/*.yaml"))
        raise ValueError(
            f"task.name={name!r} is unknown: it names no operator (task._target_); it must be one "
            f"of {', '.join(known)}."
        )
    missing = [key for key in DESCRIPTION if key not in task]
    if missing:
        raise ValueError(f"task={name} does not say its {', '.join(missing)}; see configs/task.")
    low, high = task["range"]
    return Described(
        name=str(name),
        knob=str(task["knob"]),
        low=-inf if low is None else float(low),
        high=None if high is None else float(high),
        linear=task["linear"],
        measures=task["measures"],
        options={key: value for key, value in task.items() if key not in DESCRIPTION},
    )


def takes(task: Mapping, argument: str) -> bool:
    """Whether a task's target takes an argument: `seed` where it is random, `mask`."""
    return argument in signature(target_of(task)).parameters


def build_operator(
    task: Mapping,
    in_shape: Sequence[int],
    seed: int,
    mask: Tensor | None = None,
    **knobs: float | None,
) -> ForwardOperator:
    """The operator of a task (configs/task) for images of one shape.

    Args:
        task: what the task's yaml holds under `task`, see above.
        in_shape: (C, H, W) of the image.
        seed: draws the operator, where it is random.
        mask: (H, W) bool for a task that takes one, instead of the one that its knob and the seed
            draw.
        knobs: values by name; that of the task's own is needed, `noise_std` may be there and all
            others are None. The operator does not keep noise_std: see `ForwardOperator.noisy`.

    Raises:
        ValueError: unknown task, its knob missing, not a number or out of range, another task's
            knob, an option or a mask that it does not take, or a yaml that says of the operator
            what it is not.
    """
    check_task(task, **knobs)
    described = describe(task)
    name, knob = described.name, described.knob
    build = target_of(task)
    takes = signature(build).parameters
    settings = dict(described.options)
    unknown = [key for key in settings if key not in takes]
    if unknown:
        raise ValueError(f"task={name} has no option {', '.join(unknown)}.")
    if mask is not None:
        if "mask" not in takes:
            raise ValueError(f"task={name} has no mask; it belongs to a task that takes one.")
        settings["mask"] = mask
    if "seed" in takes:
        settings["seed"] = seed
    # Noise is added to what an operator measures, so none needs to know of it.
    if knob != NOISE or knob in takes:
        settings[knob] = knobs[knob]
    operator = build(in_shape, **settings)
    _check_description(described, operator)
    return operator


def _check_description(described: Described, operator: ForwardOperator) -> None:
    """Raises ValueError where a task's yaml says what its operator is not."""
    linear = isinstance(operator, LinearOperator)
    measures = "image" if operator.measures_images else "vector"
    if described.linear not in (None, linear) or described.measures not in (None, measures):
        raise ValueError(
            f"task={described.name}: its yaml says linear={described.linear}, "
            f"measures={described.measures}, and {operator.name} has linear={linear}, "
            f"measures={measures}."
        )
