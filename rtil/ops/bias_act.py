"""Bias, activation and gain in one call (Karras et al. 2020, the layer epilogue of StyleGAN2).

Lives here: the public function and its plain PyTorch definition. Every generator and
discriminator goes through it, so a faster implementation reaches all of them.
"""

from __future__ import annotations

import math

import torch.nn.functional as F
from torch import Tensor

SQRT2 = math.sqrt(2.0)


def bias_act(
    x: Tensor, b: Tensor | None = None, slope: float = 0.2, gain: float = SQRT2, dim: int = 1
) -> Tensor:
    """Computes y = gain * lrelu(x + b), differentiable twice.

    Args:
        x: any shape.
        b: (x.shape[dim],) or None for no bias.
        slope: slope of the leaky ReLU for negative inputs; 1 is the identity.
        gain: factor on the output; sqrt(2) keeps the second moment of a normal input.
        dim: dimension of x along which the bias runs.

    Returns:
        Tensor of x's shape and type.

    Raises:
        ValueError: the bias does not fit dimension `dim` of x.
    """
    if b is not None:
        if b.ndim != 1 or b.shape[0] != x.shape[dim]:
            raise ValueError(
                f"bias_act: bias of shape {tuple(b.shape)} does not fit dimension {dim} of x "
                f"with shape {tuple(x.shape)}; it must have shape ({x.shape[dim]},)."
            )
        x = x + b.view([-1 if d == dim % x.ndim else 1 for d in range(x.ndim)])
    if slope != 1.0:
        x = F.leaky_relu(x, slope)
    return x * gain if gain != 1.0 else x
