"""Styles and noise maps as ILO optimises them: a Gaussian chart, spheres, the angle penalty."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache

import torch
from torch import Tensor

from rtil.inverters.minimise import norm, randn
from rtil.models.generator import Generator, StylePrior
from rtil.process.rng import seeded


@dataclass(frozen=True)
class Styles:
    """What every stage optimises: styles w = chart(v) and noise maps.

    v: (B, *w_shape), noise: (B, 1, H, W) each; leaves, changed in place by every stage.
    v_radius, noise_radii: norms that they are projected back to; None: they are free.
    """

    chart: StylePrior
    v: Tensor
    noise: tuple[Tensor, ...]
    v_radius: Tensor | None
    noise_radii: tuple[Tensor | None, ...]

    def w(self) -> Tensor:
        """The styles (B, *w_shape)."""
        return self.chart(self.v)

    def begun_at(self, w: Tensor) -> Styles:
        """The same from styles (B, *w_shape) on; where v has a sphere, on that of theirs."""
        v = self.chart.inverse(w)
        return replace(self, v=v, v_radius=None if self.v_radius is None else norm(v, 1))


def draw_styles(
    G: Generator, y: Tensor, rngs: Sequence[torch.Generator], fit_samples: int, sphere: bool
) -> Styles:
    """Where an inversion starts from: each image's own draws, and the spheres that they lie on.

    Args:
        y: (B, ..), gives type and device.
        rngs: one CPU generator per image.
        fit_samples: draws of the Gaussian fit of the mapping network.
        sphere: whether styles and noise maps keep the norms of these draws.
    """
    chart = fit_styles(G, fit_samples, weights_key(G))
    # In this order from each image's own generator: a start does not depend on the batch.
    v = randn(G.w_shape, rngs, y)
    noise = tuple(randn(shape, rngs, y) for shape in G.noise_shapes)
    if not sphere:
        return Styles(chart, v, noise, None, (None,) * len(noise))
    return Styles(chart, v, noise, norm(v, 1), tuple(norm(n, 3) for n in noise))


def weights_key(G: Generator) -> tuple:
    """Type, device and version of the weights: another where what is fitted to them is stale."""
    weights = next(G.parameters())
    return weights.dtype, weights.device, sum(p._version for p in G.parameters())


@lru_cache(maxsize=1)
def fit_styles(G: Generator, num_samples: int, key: tuple) -> StylePrior:
    """G.style_prior on its own fixed draws, fitted once for all batches of a run.

    Args:
        key: see `weights_key`; a change fits anew.
    """
    return G.style_prior(num_samples, seeded("cpu", "style prior"))


def geodesic_cross(v: Tensor) -> Tensor:
    """Mean over pairs of layers of the squared angle between styles (published code).

    Args:
        v: (B, layers, w_dim).

    Returns:
        (B,): w_dim / 8 times the mean of angle^2.
    """
    a, b = v[:, :, None], v[:, None]
    # From both chords: acos of a scalar product has no gradient where styles are parallel. Each
    # layer is paired with itself as well, at angle 0.
    minus = ((a - b).square().sum(-1) + 1e-9).sqrt()
    plus = ((a + b).square().sum(-1) + 1e-9).sqrt()
    angle = 2 * torch.atan2(minus, plus)
    return angle.square().mean((1, 2)) * v.shape[-1] / 8
