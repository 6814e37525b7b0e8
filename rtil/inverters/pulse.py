"""PULSE: styles on the sphere that a Gaussian of many dimensions lies on (Menon et al. 2020)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import final

import torch
from torch import Tensor

from rtil.inverters.inverter import GeneratorInverter, Loss, Reconstruction, Watch
from rtil.inverters.minimise import (
    Descent,
    Observation,
    Schedule,
    Variable,
    minimise,
    norm,
    reconstruction,
)
from rtil.inverters.styles import draw_styles, geodesic_cross
from rtil.latents.additive import Additive
from rtil.latents.space import Latents
from rtil.models.generator import Generator
from rtil.models.layers import frozen
from rtil.operators.operator import ForwardOperator


@final
@dataclass(frozen=True)
class PULSE(GeneratorInverter):
    """min over v_1 .. v_L on sqrt(d) S^(d-1) of the measurement loss + geodesic GEOCROSS(v).

    (Menon et al. 2020: down-scaling loss, search on the sphere, cross loss.) Every layer has a
    latent of its own, w_l = lrelu(std v_l + mean), fitted to the mapping network; a generator
    with one latent has that on the sphere. After each step v goes back to the sphere,
    v <- sqrt(d) v / |v|, and so do the noise maps that move. GEOCROSS is the mean over pairs of
    layers of their squared angle times d / 8, as in the published code; in the text it is the sum.

    Differs from the paper: A is any operator and not down-sampling alone; it takes all steps and
    reports the best iterate, where the text stops at a residual eps (selection=discrepancy does).
    From the published code: radii are sqrt(d) and not those of the first draws, angles are those
    of v and not of w, noise maps beyond the first ones stay as drawn, and steps fall along a
    cosine.

    Args:
        steps: Adam updates (published code: 100).
        lr_style, lr_noise: step sizes of v and of the noise maps (published code: 0.4).
        geodesic: weight of GEOCROSS beside a squared error of [0, 1] images, which loss.mse=0.25
            is (published code: 0.05 / 100).
        noise_maps: the first so many noise maps move (published code: 5).
        fit_samples: draws of the Gaussian fit of the mapping network.
        rampup, rampdown: shares of the steps, see Schedule (published code: about a half each).

    Raises:
        ValueError: settings out of range.
    """

    steps: int
    lr_style: float = 0.4
    lr_noise: float = 0.4
    geodesic: float = 5e-4
    noise_maps: int = 5
    fit_samples: int = 100_000
    rampup: float = 0.5
    rampdown: float = 0.5

    def __post_init__(self) -> None:
        others = min(self.lr_style, self.lr_noise, self.geodesic, self.noise_maps)
        if self.steps < 1 or self.fit_samples < 2 or others < 0:
            raise ValueError(
                f"PULSE: steps={self.steps} must be 1 or more, fit_samples={self.fit_samples} 2 "
                f"or more, lr_style={self.lr_style}, lr_noise={self.lr_noise}, "
                f"geodesic={self.geodesic} and noise_maps={self.noise_maps} 0 or more."
            )

    def check(self, G: Generator) -> None:
        """Any generator has styles, or a latent in their place."""

    @frozen()
    def invert(
        self,
        G: Generator,
        A: ForwardOperator,
        y: Tensor,
        loss: Loss,
        rngs: Sequence[torch.Generator],
        watch: Watch | None = None,
    ) -> Reconstruction:
        styles = draw_styles(G, y, rngs, self.fit_samples, sphere=True)
        v = on_sphere(styles.v, 1)
        moving = tuple(on_sphere(maps, 3) for maps in styles.noise[: self.noise_maps])
        noise = (*moving, *styles.noise[self.noise_maps :])

        def latents() -> Latents:
            return Latents(styles.chart(v), noise, {}, member=(0,) * len(y))

        def render() -> tuple[Tensor, Tensor | None]:
            # A latent of one layer has no angles.
            bends = self.geodesic and v.ndim == 3
            penalty = self.geodesic * geodesic_cross(v) if bends else None
            return Additive(0).synthesize(G, latents()), penalty

        variables = [Variable(v, self.lr_style, norm(v, 1), 1)]
        variables += [Variable(maps, self.lr_noise, norm(maps, 3), 3) for maps in moving]
        descent = Descent(self.steps, Schedule(self.rampup, self.rampdown))
        minimum = minimise(render, variables, Observation(A, y, loss, watch), descent)
        return reconstruction(minimum, latents())


def on_sphere(x: Tensor, dims: int) -> Tensor:
    """sqrt(d) x / |x| over the last `dims` dimensions, which have d entries."""
    size = x.shape[-dims:].numel()
    return x * (size**0.5 / norm(x, dims).clamp_min(1e-12))
