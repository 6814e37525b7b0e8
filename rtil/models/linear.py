"""The two-layer linear model of the paper's section 5, and its closed forms.

G(z0, z1) = W1 (W0 z0 + z1): block 1 is W0, the image is W1 times its output, so the additive
family of depth 1 draws z1 and ILO inverts it with the very code that inverts a GAN.
"""

from __future__ import annotations

from typing import final

import torch
from torch import Tensor, nn

from rtil.models.generator import Generator, State, StylePrior


@final
class LinearGenerator(Generator):
    """x = W1 (W0 z0 + z1) as a generator of one block (paper, section 5).

    Args:
        w0: (n1, n0), full rank, n0 < n1.
        w1: (nd, n1).
        image_shape: (C, H, W) with C H W = nd.

    Raises:
        ValueError: sizes that do not fit.
    """

    per_block_styles = False
    noise_shapes = ()
    num_blocks = max_blocks = 1

    def __init__(self, w0: Tensor, w1: Tensor, image_shape: tuple[int, int, int]) -> None:
        super().__init__()
        if w0.ndim != 2 or w1.ndim != 2 or w0.shape[0] != w1.shape[1]:
            raise ValueError(
                f"LinearGenerator: w0 {tuple(w0.shape)} and w1 {tuple(w1.shape)} do not chain; "
                "they must be (n1, n0) and (nd, n1)."
            )
        if torch.Size(image_shape).numel() != w1.shape[0]:
            raise ValueError(
                f"LinearGenerator: image_shape={tuple(image_shape)} has "
                f"{torch.Size(image_shape).numel()} pixels, w1 draws nd={w1.shape[0]}."
            )
        self.w0, self.w1 = nn.Parameter(w0), nn.Parameter(w1)
        self.z_dim, self.w_shape, self._image_shape = w0.shape[1], (w0.shape[1],), image_shape

    @property
    def shapes(self) -> dict[int, tuple[int, int, int]]:
        return {1: (self.w0.shape[0], 1, 1)}

    @property
    def image_shape(self) -> tuple[int, int, int]:
        return self._image_shape

    @property
    def stage(self) -> tuple[float, ...]:
        return (self.num_blocks,)

    def map(self, z0: Tensor) -> Tensor:
        """The identity on z0 (B, n0)."""
        return z0

    def step(
        self, k: int, state: State, w: Tensor, noise: tuple[Tensor, ...] | None = None
    ) -> State:
        return State((w @ self.w0.T)[:, :, None, None])

    def image(self, state: State, w: Tensor) -> Tensor:
        return (state.x[:, :, 0, 0] @ self.w1.T).view(-1, *self._image_shape)

    def style_prior(self, num_samples: int, rng: torch.Generator) -> StylePrior:
        """z0 itself is standard normal."""
        zeros = torch.zeros(self.z_dim, device=self.w0.device, dtype=self.w0.dtype)
        return StylePrior(zeros, zeros + 1.0, 1.0)

    def verify(self) -> None:
        """Its blocks are the network."""

    def progress(self, nimg: int) -> None:
        """Nothing grows."""


def train_vanilla(w0: Tensor, w1: Tensor) -> Tensor:
    """W1^Van = W1* W0 W0^+, the minimum-norm minimiser of (2) (paper, Lemma B.1).

    Args:
        w0: W0* (n1, n0). w1: W1* (nd, n1).
    """
    return w1 @ w0 @ torch.linalg.pinv(w0)


def train_rtil(w0: Tensor, w1: Tensor) -> Tensor:
    """W1^RTIL = W1*, the unique minimiser of (3) (paper, Lemma 5.1)."""
    return w1.clone()


def invert_exactly(w0: Tensor, w1: Tensor, a: Tensor, y: Tensor) -> Tensor:
    """Algorithm 1 of the paper solved in closed form, minimum-norm z1 (paper, section 5.2).

    Args:
        w0: (n1, n0). w1: (nd, n1). a: A (m, nd). y: measurements (B, m).

    Returns:
        x_hat = W1 (W0 z0 + z1), (B, nd).
    """
    z0 = y @ torch.linalg.pinv(a @ w1 @ w0).T
    rest = y - z0 @ (a @ w1 @ w0).T
    z1 = rest @ torch.linalg.pinv(a @ w1).T
    return (z0 @ w0.T + z1) @ w1.T


def posterior_mean(b: Tensor, y: Tensor, noise: float, sigma: float = 1.0) -> Tensor:
    """E[z | y] for y = b z + e, z ~ N(0, sigma^2 I), e ~ N(0, noise^2 I): also the mode.

        (b^T b / noise^2 + I / sigma^2)^-1 b^T y / noise^2

    Args:
        b: (m, n). y: (B, m). noise, sigma: standard deviations above 0.

    Returns:
        (B, n).
    """
    precision = b.T @ b / noise**2 + torch.eye(b.shape[1], dtype=b.dtype) / sigma**2
    return torch.linalg.solve(precision, (y @ b / noise**2).T).T


def invert_map(
    w0: Tensor, w1: Tensor, a: Tensor, y: Tensor, noise: float, sigma: float = 1.0
) -> Tensor:
    """Algorithm 1 with each stage a maximum a posteriori estimate, in closed form.

    z0 = E[z0 | y] as if z1 were 0, then z1 = E[z1 | y, z0], as ILO(map="posterior") finds them.
    As noise goes to 0 it becomes `invert_exactly` where A W1 has full column rank.

    Args:
        w0: (n1, n0). w1: (nd, n1). a: A (m, nd). y: measurements (B, m).
        noise: standard deviation of the measurement noise. sigma: of z1.

    Returns:
        x_hat = W1 (W0 z0 + z1), (B, nd).
    """
    x1 = posterior_mean(a @ w1 @ w0, y, noise) @ w0.T
    z1 = posterior_mean(a @ w1, y - x1 @ (a @ w1).T, noise, sigma)
    return (x1 + z1) @ w1.T


def expected_error(
    w0: Tensor, w1_true: Tensor, w1: Tensor, a: Tensor, noise: float = 0.0
) -> float:
    """E ||x* - x_hat||^2 over z0, z1 (and noise) of Algorithm 1 on y = A x* + noise.

    The estimate is linear in y, so the expectation is a sum of squared Frobenius norms.

    Args:
        w0, w1_true: of the true model. w1: of the trained one. a: A (m, nd).
        noise: standard deviation of the measurement noise.
    """
    recover = invert_exactly(w0, w1, a, torch.eye(a.shape[0], dtype=a.dtype)).T
    rest = torch.eye(a.shape[1], dtype=a.dtype) - recover @ a
    error = (rest @ w1_true @ w0).square().sum() + (rest @ w1_true).square().sum()
    return float(error + noise**2 * recover.square().sum())


def lower_bound(w0: Tensor, w1: Tensor) -> float:
    """Right-hand side of (4): max over unit h orthogonal to range(W0) of |(I - P) W1 h|^2.

    P projects onto the range of W1 W0 (paper, Lemma 5.2).
    """
    q = torch.linalg.qr(w1 @ w0).Q
    null = torch.linalg.qr(w0, mode="complete").Q[:, w0.shape[1] :]
    image = w1 @ null
    return float(torch.linalg.matrix_norm(image - q @ (q.T @ image), 2) ** 2)
