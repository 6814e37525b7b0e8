"""Forward operators y = A(x): what an inverse problem measures of an image."""

from collections.abc import Mapping, Sequence

from rtil.operators.circulant import Circulant, PartialCirculant
from rtil.operators.dense import Dense
from rtil.operators.downsample import Downsample
from rtil.operators.mask import Mask, RandomInpainting
from rtil.operators.operator import ForwardOperator

__all__ = [
    "Circulant",
    "Dense",
    "Downsample",
    "ForwardOperator",
    "Mask",
    "PartialCirculant",
    "RandomInpainting",
    "build_operator",
]


def build_operator(
    task: Mapping,
    in_shape: Sequence[int],
    seed: int,
    ratio: float | None = None,
    factor: int | None = None,
) -> ForwardOperator:
    """The operator of a task (configs/task) for images of one shape.

    Args:
        task: `name` is cs, inpainting or sr; cs also reads `scale`.
        in_shape: (C, H, W) of the image.
        seed: draws the operator.
        ratio: m/n, the knob of cs and inpainting.
        factor: down-sampling per side, the knob of sr.

    Raises:
        ValueError: unknown task, its knob missing or not a number, or another task's knob given.
    """
    knobs = {"cs": "ratio", "inpainting": "ratio", "sr": "factor"}
    name = task["name"]
    if name not in knobs:
        raise ValueError(f"task.name={name!r} is unknown; it must be one of {', '.join(knobs)}.")
    given = {"ratio": ratio, "factor": factor}
    value = given.pop(knobs[name])
    if not isinstance(value, int | float):
        raise ValueError(f"task={name} needs a number for {knobs[name]}; got {value!r}.")
    for other, unwanted in given.items():
        if unwanted is not None:
            raise ValueError(
                f"task={name} is set by {knobs[name]} and has no {other}; "
                f"got {other}={unwanted!r}, remove it."
            )

    if name == "cs":
        return PartialCirculant(in_shape, ratio, seed, scale=task.get("scale", "unit"))
    elif name == "inpainting":
        return RandomInpainting(in_shape, ratio, seed)
    else:
        return Downsample(in_shape, factor)
