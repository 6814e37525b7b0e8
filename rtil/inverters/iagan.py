"""IAGAN: the generator's weights adapt to each image (Abu Hussein, Tirer and Giryes 2020)."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from typing import final

import torch
from torch import Tensor

from rtil.inverters.adjoint import Adjoint
from rtil.inverters.csgm import CSGM, Search
from rtil.inverters.data_term import MeasurementLoss
from rtil.inverters.inverter import Inverter, Loss, Reconstruction, Watch, with_adjoint
from rtil.inverters.minimise import (
    Descent,
    Observation,
    Schedule,
    Variable,
    joined,
    minimise,
    reconstruction,
)
from rtil.latents.additive import Additive
from rtil.latents.space import Latents
from rtil.models.generator import Generator
from rtil.models.layers import frozen
from rtil.operators.operator import ForwardOperator

LINEAR = "so there is no pseudo-inverse to back-project with. Set inverter.back_projection=false."


@final
@dataclass(frozen=True)
class IAGAN(Inverter):
    """CSGM, then z and the weights of a copy of G together, then back-projection.

        z0          = argmin over z of loss(A G_theta(z), y)
        z, theta    = argmin over z, theta of loss(A G_theta(z), y), from z0 and the weights of G
        x_hat       = A^+ y + (I - A^+ A) G_theta(z) = x + A^+ (y - A x),  x = G_theta(z)

    (Abu Hussein et al. 2020, the image-adaptive and the back-projection step of their method.)
    Every image has a copy of its own, whose weights move by its own loss alone; G stays as it is.
    Few steps and small ones keep theta near G: they are the only regularisation.

    A^+ is that of `Adjoint`, which stops at the noise instead of fitting it. What is projected is
    the iterate with the lowest loss.

    Note: takes the memory of a generator and of Adam's two moments of it for every image of a
        batch; `inversion_batch` bounds it.

    Args:
        steps: Adam updates of each start of CSGM.
        joint_steps: of z and the weights together (published code: 300).
        lr: step size of z in CSGM. lr_code, lr_weights: of z and of the weights, together
            (published code: 0.0001 and 0.001).
        restarts: starts of CSGM (published code: 5).
        back_projection: whether the last step is taken; it needs an adjoint.
        noise_std: of the measurements, in units of the [0, 1] image; where back-projection stops.
        rampup, rampdown: shares of each stage, see Schedule; published code: constant steps.

    Raises:
        ValueError: settings out of range.
    """

    needs_generator = True

    steps: int
    joint_steps: int
    lr: float = 0.1
    lr_code: float = 1e-4
    lr_weights: float = 1e-3
    restarts: int = 2
    back_projection: bool = True
    noise_std: float = 0.0
    rampup: float = 0.05
    rampdown: float = 0.75

    def __post_init__(self) -> None:
        if self.joint_steps < 1 or min(self.lr_code, self.lr_weights) < 0:
            raise ValueError(
                f"IAGAN: joint_steps={self.joint_steps} must be 1 or more, lr_code={self.lr_code} "
                f"and lr_weights={self.lr_weights} 0 or more."
            )
        # They check their own settings.
        _ = self.first, Adjoint(self.noise_std)

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
        """Any generator has weights."""

    def check_operator(self, A: ForwardOperator) -> None:
        """Raises ValueError where back-projection has no adjoint to go along."""
        if self.back_projection:
            with_adjoint(A, self, LINEAR)

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
        """As Inverter.invert.

        Raises:
            ValueError: as `check_operator`.
        """
        self.check_operator(A)
        observation = Observation(A, y, loss, watch)
        search = self.first.search(G, observation, rngs)
        found = joined(search.found, self._adapted(G, observation, search))
        return (
            joined(found, self._projected(found, observation)) if self.back_projection else found
        )

    def _adapted(self, G: Generator, observation: Observation, search: Search) -> Reconstruction:
        """z and the weights of a copy for each image, from where CSGM ended."""
        assert search.found.latents is not None
        z0, noise = search.z0, search.found.latents.noise
        # One optimisation of all copies and not one after the other: who watches is shown batches.
        copies = [copy.deepcopy(G) for _ in z0]

        def drawn(b: int, own: Generator) -> Tensor:
            maps = tuple(each[b : b + 1] for each in noise)
            latents = Latents(own.map(z0[b : b + 1]), maps, {}, member=(0,))
            return Additive(0).synthesize(own, latents)

        def render() -> tuple[Tensor, Tensor | None]:
            return torch.cat([drawn(b, own) for b, own in enumerate(copies)]), None

        weights = [Variable(p, self.lr_weights) for own in copies for p in own.parameters()]
        descent = Descent(self.joint_steps, Schedule(self.rampup, self.rampdown))
        variables = [Variable(z0, self.lr_code), *weights]
        return reconstruction(minimise(render, variables, observation, descent))

    @torch.no_grad()
    def _projected(self, found: Reconstruction, observation: Observation) -> Reconstruction:
        """x + A^+ (y - A x) of the best iterate x, as a stage of one iterate."""
        A, y, loss = with_adjoint(observation.A, self, LINEAR), observation.y, observation.loss
        seen = loss if isinstance(loss, MeasurementLoss) else None
        rest = Adjoint(self.noise_std).estimate(A, y - A(found.image), seen)
        image = found.image + rest
        observation.show(image)
        value = loss(A(image), y)
        return Reconstruction(image, image, value, value, value[None].cpu())
