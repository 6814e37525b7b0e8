"""Sparse-Gen: an image of the generator and a sparse deviation from it (Dhar et al. 2018)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import final

import torch
from torch import Tensor

from rtil.inverters.csgm import CSGM, Search
from rtil.inverters.inverter import GeneratorInverter, Loss, Reconstruction, Watch
from rtil.inverters.minimise import (
    Descent,
    Observation,
    Schedule,
    Variable,
    joined,
    minimise,
    reconstruction,
)
from rtil.inverters.wavelet import BASES
from rtil.latents.additive import Additive
from rtil.latents.space import Latents
from rtil.models.generator import Generator
from rtil.models.layers import frozen
from rtil.operators.operator import ForwardOperator


@final
@dataclass(frozen=True)
class SparseDeviations(GeneratorInverter):
    """min over z, v of loss(A (G(z) + v), y) + l1 ||B v||_1 / n (Dhar et al. 2018, Sparse-Gen).

    B is the identity or an orthonormal wavelet basis, n the number of pixels and channels. First
    z alone is optimised, as CSGM does, then z and v together from v = 0. What moves is c = B v:
    steps are then taken entry by entry of what is penalised, and v = B^T c.

    Differs from the published code: the penalty is a mean, so that l1 means the same at any size,
    and G(z) + v is not clipped to [-1, 1] between steps. Steps of Adam end near 0 and not at it.

    Args:
        steps: Adam updates of each start of CSGM.
        joint_steps: of z and v together.
        lr: step size of z in CSGM. lr_code, lr_deviation: of z and of c, together.
        restarts: starts of CSGM.
        l1: weight of the mean |c|.
        basis: name in `wavelet.BASES`.
        rampup, rampdown: shares of each stage, see Schedule.

    Raises:
        ValueError: settings out of range.
    """

    steps: int
    joint_steps: int
    lr: float = 0.1
    lr_code: float = 0.01
    lr_deviation: float = 0.01
    restarts: int = 2
    l1: float = 0.01
    basis: str = "pixels"
    rampup: float = 0.05
    rampdown: float = 0.75

    def __post_init__(self) -> None:
        if self.joint_steps < 1 or min(self.lr_code, self.lr_deviation, self.l1) < 0:
            raise ValueError(
                f"SparseDeviations: joint_steps={self.joint_steps} must be 1 or more, "
                f"lr_code={self.lr_code}, lr_deviation={self.lr_deviation} and l1={self.l1} "
                "0 or more."
            )
        if self.basis not in BASES:
            raise ValueError(
                f"SparseDeviations: basis={self.basis!r} must be {' or '.join(BASES)}."
            )
        # It checks its own settings.
        _ = self.first

    @property
    def first(self) -> CSGM:
        """What finds the z that both start from."""
        return CSGM(
            self.steps,
            self.lr,
            self.restarts,
            rampup=self.rampup,
            rampdown=self.rampdown,
        )

    def check(self, G: Generator) -> None:
        height, width = G.image_shape[1:]
        if BASES[self.basis].divides and (height % 2 or width % 2):
            raise ValueError(
                f"SparseDeviations: basis={self.basis} halves the sides of an image, and "
                f"{height}x{width} pixels have an odd one; use basis=pixels."
            )

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
        observation = Observation(A, y, loss, watch)
        search = self.first.search(G, observation, rngs)
        return joined(search.found, self._together(G, observation, search))

    def _together(self, G: Generator, observation: Observation, search: Search) -> Reconstruction:
        """z and v from where CSGM ended."""
        assert search.found.latents is not None
        z0, latents = search.z0, search.found.latents
        # From v = 0 the second stage starts at the image that the first one ended with.
        coefficients = torch.zeros_like(search.found.image)
        synthesise = BASES[self.basis].synthesise

        def render() -> tuple[Tensor, Tensor | None]:
            own = Latents(G.map(z0), latents.noise, {}, member=latents.member)
            image = Additive(0).synthesize(G, own) + synthesise(coefficients)
            return image, self.l1 * coefficients.abs().mean((1, 2, 3))

        variables = [Variable(z0, self.lr_code), Variable(coefficients, self.lr_deviation)]
        descent = Descent(self.joint_steps, Schedule(self.rampup, self.rampdown))
        return reconstruction(minimise(render, variables, observation, descent))
