"""The true model of section 5, x* = W1* (W0* z0 + z1), and what measures it."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from rtil.operators import Dense
from rtil.process.rng import seeded


class Truth(NamedTuple):
    """W0* (n1, n0) and W1* (nd, n1) of the true model, float64."""

    w0: Tensor
    w1: Tensor

    def sample(self, count: int, rng: torch.Generator) -> tuple[Tensor, Tensor, Tensor]:
        """Draws z0 (count, n0), z1 (count, n1) and x = W1* (W0* z0 + z1) (count, nd)."""
        z0 = torch.randn(count, self.w0.shape[1], generator=rng, dtype=torch.float64)
        z1 = torch.randn(count, self.w0.shape[0], generator=rng, dtype=torch.float64)
        return z0, z1, (z0 @ self.w0.T + z1) @ self.w1.T


def draw_truth(n0: int, n1: int, nd: int, seed: int) -> Truth:
    """Draws W0* ~ N(0, 1/n0) and W1* ~ N(0, 1/n1), full rank with probability 1.

    Raises:
        ValueError: sizes outside n0 < n1 < nd.
    """
    if not 0 < n0 < n1 < nd:
        raise ValueError(f"theory: n0={n0}, n1={n1}, nd={nd}; section 5 needs 0 < n0 < n1 < nd.")
    rng = seeded("cpu", seed, "truth")
    w0 = torch.randn(n1, n0, generator=rng, dtype=torch.float64) / n0**0.5
    return Truth(w0, torch.randn(nd, n1, generator=rng, dtype=torch.float64) / n1**0.5)


def draw_operator(nd: int, ratio: float, seed: int) -> Dense:
    """Draws A (m, nd) with m = round(ratio nd) and entries N(0, 1/nd).

    One seed gives nested operators: the rows of a smaller ratio are the first of a larger one.

    Differs from the paper, whose entries are N(0, 1): E|A x|^2 = |x|^2 m/nd as for the other
    operators. Noise-free results do not depend on it; multiplying noise_std by 1/sqrt(nd)
    restores the paper's ratio of signal to noise.
    """
    matrix = torch.randn(nd, nd, generator=seeded("cpu", seed, "operator"), dtype=torch.float64)
    return Dense((1, 1, nd), matrix[: round(ratio * nd)] / nd**0.5)
