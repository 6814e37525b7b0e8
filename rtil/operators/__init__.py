"""Forward operators y = A(x): what an inverse problem measures of an image."""

from collections.abc import Mapping, Sequence
from math import inf
from typing import NamedTuple

from torch import Tensor

from rtil.operators.blur import Blur
from rtil.operators.circulant import Circulant, PartialCirculant
from rtil.operators.dense import Dense
from rtil.operators.downsample import Downsample
from rtil.operators.identity import Identity
from rtil.operators.mask import Mask, RandomInpainting
from rtil.operators.operator import ForwardOperator, LinearOperator
from rtil.operators.phase import MAX_RATIO, PhaseRetrieval

__all__ = [
    "KNOBS",
    "NONLINEAR",
    "TASKS",
    "VECTORS",
    "Blur",
    "Circulant",
    "Dense",
    "Downsample",
    "ForwardOperator",
    "Identity",
    "LinearOperator",
    "Mask",
    "PartialCirculant",
    "PhaseRetrieval",
    "RandomInpainting",
    "build_operator",
    "check_task",
]


class Knob(NamedTuple):
    """The setting that a task is swept over, and the largest value that it takes."""

    name: str
    highest: float = inf


TASKS = {
    "cs": Knob("ratio", 1),
    "inpainting": Knob("ratio", 1),
    "sr": Knob("factor"),
    "deblur": Knob("blur_std"),
    "denoise": Knob("noise_std"),
    "phase_retrieval": Knob("ratio", MAX_RATIO),
}
KNOBS = ("ratio", "factor", "blur_std")  # of one task or another; every task has noise_std
NONLINEAR = ("phase_retrieval",)
VECTORS = ("cs", "phase_retrieval")  # what these measure is no image


def check_task(
    task: Mapping,
    ratio: float | None = None,
    factor: int | None = None,
    blur_std: float | None = None,
    noise_std: float | None = None,
) -> None:
    """Raises ValueError as `build_operator` does, where no image is needed to see it."""
    name = task["name"]
    if name not in TASKS:
        raise ValueError(f"task.name={name!r} is unknown; it must be one of {', '.join(TASKS)}.")
    knob, highest = TASKS[name]
    given = {"ratio": ratio, "factor": factor, "blur_std": blur_std, "noise_std": noise_std}
    value = given[knob]
    if not isinstance(value, int | float):
        raise ValueError(f"task={name} needs a number for {knob}; got {value!r}.")
    for other in KNOBS:
        if other != knob and given[other] is not None:
            raise ValueError(
                f"task={name} is set by {knob} and has no {other}; "
                f"got {other}={given[other]!r}, remove it."
            )
    if not 0 < value <= highest:
        allowed = "above 0" if highest == inf else f"in (0, {highest}]"
        raise ValueError(f"task={name}: {knob}={value} must be {allowed}.")


def build_operator(
    task: Mapping,
    in_shape: Sequence[int],
    seed: int,
    ratio: float | None = None,
    factor: int | None = None,
    blur_std: float | None = None,
    noise_std: float | None = None,
    mask: Tensor | None = None,
) -> ForwardOperator:
    """The operator of a task (configs/task) for images of one shape.

    Args:
        task: `name` is a key of TASKS; cs also reads `scale`, deblur `kernel_size`.
        in_shape: (C, H, W) of the image.
        seed: draws the operator.
        ratio: m/n, the knob of cs, inpainting and phase_retrieval.
        factor: down-sampling per side, the knob of sr.
        blur_std: standard deviation of the kernel in pixels, the knob of deblur.
        noise_std: the knob of denoise, where it must not be 0. The operator does not keep it:
            see `ForwardOperator.noisy`.
        mask: (H, W) bool for inpainting, instead of the one that `ratio` and `seed` draw.

    Raises:
        ValueError: unknown task, its knob missing, not a number or out of range, or another
            task's knob or a mask given.
    """
    check_task(task, ratio, factor, blur_std, noise_std)
    name = task["name"]
    if mask is not None and name != "inpainting":
        raise ValueError(f"task={name} has no mask; it belongs to task=inpainting.")
    if name == "cs":
        return PartialCirculant(in_shape, ratio, seed, scale=task.get("scale", "unit"))
    elif name == "inpainting":
        return RandomInpainting(in_shape, ratio, seed) if mask is None else Mask(in_shape, mask)
    elif name == "sr":
        return Downsample(in_shape, factor)
    elif name == "deblur":
        return Blur(in_shape, blur_std, task.get("kernel_size"))
    elif name == "denoise":
        return Identity(in_shape)
    else:
        return PhaseRetrieval(in_shape, ratio, seed)
