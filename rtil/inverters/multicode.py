"""mGANprior: several codes mixed with channel weights (Gu et al. 2020; paper, Algorithm 2)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import final

import torch
from torch import Tensor

from rtil.inverters.inverter import (
    FamilyInverter,
    GeneratorInverter,
    Loss,
    Reconstruction,
    Watch,
)
from rtil.inverters.minimise import (
    Descent,
    Observation,
    Schedule,
    Variable,
    minimise,
    randn,
    reconstruction,
)
from rtil.inverters.prior import check_map, half_square, prior_weight
from rtil.latents.family import Family
from rtil.latents.multicode import MultiCode, flat_dirichlet
from rtil.latents.space import Latents
from rtil.models.generator import Generator
from rtil.models.layers import frozen
from rtil.operators.operator import ForwardOperator

ALPHA_INITS = ("dirichlet", "1/N", "1/C")


@final
@dataclass(frozen=True)
class MGANPrior(GeneratorInverter, FamilyInverter):
    """min over codes z_n and channel weights alpha^n of the measurement loss (Algorithm 2).

    Noise maps, where the generator has any, stay as they were drawn. How codes are mixed, and
    what blocks after the mix read, is `MultiCode`.

    Args:
        steps: updates.
        num_codes: N.
        block: codes are mixed after this block.
        optimiser: adam (App. A.4 for RTIL) or sgd (App. A.4 for vanilla).
        lr_code, lr_alpha: step sizes (App. A.4: 0.1 with Adam, 1 with SGD).
        alpha_init: "dirichlet", one draw repeated over channels (as in training), or what every
            weight starts from: "1/N", the mean of the codes (Gu et al. 2020), "1/C" of the C
            channels that are mixed, or a number. The published code starts vanilla models from
            1/256, which is 1/C of the paper's network and 1/C of no smaller one.
        map: None, or the factor of -log p(z_1, .., z_N) = sum_n |z_n|^2 / 2 beside the measurement
            loss: a number, or "posterior", see `prior_weight`. The prior of alpha' in training,
            Dir_N(1), is flat on its simplex and adds nothing.
        noise_std: of the measurements, in units of the [0, 1] image; read by "posterior".
        fade_in: of a generator that has not grown to its full size, see MultiCode; None: as it
            was trained.
        rampup, rampdown: shares of the steps, see Schedule.

    Raises:
        ValueError: settings out of range.
    """

    steps: int
    num_codes: int = 20
    block: int = 4
    optimiser: str = "adam"
    lr_code: float = 0.1
    lr_alpha: float = 0.1
    alpha_init: str | float = "dirichlet"
    map: str | float | None = None
    noise_std: float = 0.0
    fade_in: str | None = None
    rampup: float = 0.05
    rampdown: float = 0.75

    def __post_init__(self) -> None:
        if self.steps < 1 or min(self.lr_code, self.lr_alpha) < 0:
            raise ValueError(
                f"MGANPrior: steps={self.steps} must be 1 or more, lr_code={self.lr_code} and "
                f"lr_alpha={self.lr_alpha} 0 or more."
            )
        if self.optimiser not in ("adam", "sgd"):
            raise ValueError(f"MGANPrior: optimiser={self.optimiser!r} must be adam or sgd.")
        if isinstance(self.alpha_init, str) and self.alpha_init not in ALPHA_INITS:
            raise ValueError(
                f"MGANPrior: alpha_init={self.alpha_init!r} must be {', '.join(ALPHA_INITS)} or a "
                "number."
            )
        check_map("MGANPrior", self.map, self.noise_std)
        # It checks its own settings.
        _ = self.space

    @property
    def space(self) -> MultiCode:
        """The member that is inverted."""
        return MultiCode(self.num_codes, self.block, self.fade_in or "mixed")

    def check(self, G: Generator) -> None:
        self.space.check(G)

    def trained_with(self, family: Family) -> MGANPrior:
        """With the fade-in of the codes that training drew, unless another is given."""
        trained = [member for member in family.members if isinstance(member, MultiCode)]
        if self.fade_in is not None or not trained:
            return self
        return replace(self, fade_in=trained[0].fade_in)

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
        space, batch = self.space, len(y)
        # A generator that has not grown to `block` mixes after its last one, as in training.
        channels = G.shapes[min(self.block, G.num_blocks)][0]
        codes = randn((self.num_codes, G.z_dim), rngs, y)
        alpha = self._first_weights(channels, codes, rngs)
        noise = tuple(randn(shape, rngs, y) for shape in G.noise_shapes)

        def latents() -> Latents:
            return Latents(
                G.map(codes.flatten(0, 1)),
                noise,
                alpha=alpha.flatten(0, 1),
                counts=(self.num_codes,) * batch,
                member=(0,) * batch,
            )

        # alpha has no term of its own: Dir_N(1) is flat on its simplex.
        weight = prior_weight(self.map, loss, self.noise_std)

        def render() -> tuple[Tensor, Tensor | None]:
            penalty = weight * half_square(codes) if weight else None
            return space.synthesize(G, latents()), penalty

        variables = [Variable(codes, self.lr_code), Variable(alpha, self.lr_alpha)]
        schedule = Schedule(self.rampup, self.rampdown)
        descent = Descent(self.steps, schedule, self.optimiser)
        minimum = minimise(render, variables, Observation(A, y, loss, watch), descent)
        return reconstruction(minimum, latents())

    def _first_weights(
        self, channels: int, codes: Tensor, rngs: Sequence[torch.Generator]
    ) -> Tensor:
        """Weights (B, N, channels) to start from, for codes (B, N, z_dim)."""
        if self.alpha_init == "dirichlet":
            draws = [flat_dirichlet((self.num_codes,), rng) for rng in rngs]
            # Equal over channels as in training; the updates then move each channel by itself.
            return torch.stack(draws).to(codes)[:, :, None].repeat(1, 1, channels)
        shares = {"1/N": 1 / self.num_codes, "1/C": 1 / channels}
        share = shares.get(str(self.alpha_init))
        value = float(self.alpha_init) if share is None else share
        return torch.full_like(codes[:, :, :1], value).repeat(1, 1, channels)
