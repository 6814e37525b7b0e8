"""Units of the numbers that a user gives: images are in [-1, 1], noise is of [0, 1] images.

What is stored as pixels is converted by its type. What no image could have measured is refused,
with the conversion that is likely missing.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from rtil.operators import ForwardOperator
from rtil.process.rng import seeded

PIXELS = {"uint8": 255, "uint16": 65535}  # integer types of pictures, and their white
MARGIN = 2.0  # how far y may lie beyond the largest of the test images' measurements
DEVIATIONS = 8  # of the noise, beyond that


def signed(y: np.ndarray) -> np.ndarray:
    """Pixels to [-1, 1] by their type, float32; floats as they are.

    Raises:
        ValueError: integers of another type, whose white is not known.
    """
    if y.dtype.kind == "f":
        return y.astype(np.float32)
    if y.dtype.name not in PIXELS:
        raise ValueError(
            f"y is of {y.dtype}; integers are pixels of uint8 (0 to 255) or uint16 (0 to 65535). "
            "Save pixels by y.astype(numpy.uint8), other measurements by y.astype(numpy.float32)."
        )
    return (y / (PIXELS[y.dtype.name] / 2) - 1).astype(np.float32)


def check_noise(key: str, noise_std: float | None) -> None:
    """Raises ValueError for noise that is stronger than an image is bright; None is none.

    Args:
        key: of the setting, for the message.
    """
    if noise_std is not None and noise_std > 1:
        raise ValueError(
            f"{key}={noise_std} must be from 0 to 1: it is in units of the [0, 1] image. "
            f"Of pixels from 0 to 255 it is {key}={noise_std / 255:.3g}."
        )


def reach(A: ForwardOperator) -> float:
    """The largest measurement, in absolute value, of test images with all pixels at -1 or 1.

    They are of random signs in squares of every size, the whole image included, since operators
    may pass coarse or fine structure alone.
    """
    channels, height, width = A.in_shape
    rng = seeded("cpu", "reach of an operator")
    largest, side = 0.0, 1
    while side < 2 * max(height, width):
        rows, columns = -(-height // side), -(-width // side)
        signs = torch.randint(2, (1, channels, rows, columns), generator=rng) * 2.0 - 1
        squares = signs.repeat_interleave(side, 2).repeat_interleave(side, 3)
        y = A(squares[:, :, :height, :width])
        largest = max(largest, float(y.abs().max()))
        side *= 2
    return largest


def check_range(y: Tensor, largest: float, noise_std: float) -> None:
    """Checks that an image in [-1, 1] could have measured y.

    Args:
        y: one measurement, of any shape.
        largest: `reach` of its operator.
        noise_std: in units of the [0, 1] image.

    Raises:
        ValueError: it could not; says the range.
    """
    limit = MARGIN * largest + DEVIATIONS * 2 * noise_std
    most = float(y.abs().max())
    if most > limit:
        raise ValueError(
            f"y reaches {most:.4g}, and no image in [-1, 1] measures more than about {limit:.3g}. "
            "Of pixels from 0 to 255 take y / 127.5 - 1 before it is measured, or save them as "
            "numpy.uint8; of an image in [0, 1] take 2 y - 1. Noise is said by noise_std."
        )
