"""Operators as linear physics of deepinv: `linear_physics`, for its samplers and optimisers.

The other way, physics as operators, is in `rtil.operators.deepinv`, which also has the units.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from importlib import import_module
from typing import Any

import torch
from torch import Tensor

from rtil.operators.deepinv import INSTALL
from rtil.operators.operator import LinearOperator

Solve = Callable[[Callable[[Tensor], Tensor], Tensor], Tensor]


def library(module: str) -> Any:
    """A module of deepinv.

    Raises:
        ValueError: it is not installed; says how.
    """
    try:
        return import_module(f"deepinv.{module}")
    except ModuleNotFoundError as error:
        if not str(error.name).startswith("deepinv"):
            raise
        raise ValueError(f"this needs deepinv: {INSTALL}.") from error


def unit_measurement(A: LinearOperator, y: Tensor) -> Tensor:
    """y' = A u + e' of y = A x + e, where x = 2 u - 1; its noise is half of that of y."""
    white = A(torch.ones(1, *A.in_shape, dtype=y.dtype, device=y.device))
    return (y + white) / 2


def linear_physics(
    A: LinearOperator, like: Tensor, noise_std: float, solve: Solve, scale: float = 1.0
) -> Any:
    """y' = A u / scale for images u in [0, 1], with Gaussian noise of noise_std / scale.

    Its `prox_l2` is exact up to the tolerance of `solve`, image by image: with g = gamma,

        argmin over u of g |A u - y|^2 / 2 + |u - z|^2 / 2 = z + A^T (A A^T + I / g)^-1 (y - A z),

    in float64, since deepinv's own stops a batch as a whole.

    Args:
        like: a measurement, of the type and on the device of the computation.
        noise_std: 0 or more, in units of the [0, 1] image.
        solve: (M, b) to M^-1 b for rows b (B, m), M symmetric.
        scale: above 0; kept as an attribute.

    Raises:
        ValueError: deepinv is not installed.
    """
    physics = library("physics")
    exact = copy.deepcopy(A).double()

    def forward(u: Tensor, **options: object) -> Tensor:
        return A(u.to(like.dtype)) / scale

    def adjoint(v: Tensor, **options: object) -> Tensor:
        return A.adjoint(v.to(like.dtype)) / scale

    def prox(z: Tensor, y: Tensor, gamma: Any, **options: object) -> Tensor:
        ridge = 1 / float(gamma)

        def normal(v: Tensor) -> Tensor:
            back = exact.adjoint(v.view(-1, *A.out_shape))
            return exact(back).flatten(1) / scale**2 + ridge * v

        start = z.double()
        rest = (y.double() - exact(start) / scale).flatten(1)
        dual = solve(normal, rest).view(-1, *A.out_shape)
        return (start + exact.adjoint(dual) / scale).to(z)

    noise = physics.GaussianNoise(noise_std / scale) if noise_std else physics.ZeroNoise()
    found = physics.LinearPhysics(forward, adjoint, img_size=A.in_shape, noise_model=noise)
    found.prox_l2, found.scale = prox, scale
    return found.to(like.device)
