"""Generator surgery: the first blocks are cut off (Smedemark-Margulies et al. 2021)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple, final

import torch
from torch import Tensor

from rtil.inverters.inverter import GeneratorInverter, Loss, Reconstruction, Watch
from rtil.inverters.minimise import (
    Descent,
    Observation,
    Schedule,
    Variable,
    minimise,
    randn,
    reconstruction,
)
from rtil.inverters.styles import weights_key
from rtil.latents.additive import Additive
from rtil.latents.space import Latents
from rtil.models.generator import Generator, State
from rtil.models.layers import frozen
from rtil.operators.operator import ForwardOperator
from rtil.process.rng import seeded

CHUNK = 64  # samples drawn at a time for the moments


class Moments(NamedTuple):
    """Of the maps that cross the cut: mean and standard deviation of each channel (C, 1, 1)."""

    mean: Tensor | float = 0.0
    std: Tensor | float = 1.0


@final
@dataclass(frozen=True)
class Surgery(GeneratorInverter):
    """min over x of loss(A G_c(x), y): G_c is G without its first c blocks, x what they gave.

    (Smedemark-Margulies et al. 2021.) x = mean + std u starts from u ~ N(0, I), clamped as in the
    published code, whose mean and std are 0 and 1; `fitted` takes those of G's own maps, channel
    by channel. Nothing keeps x near them but the number of steps. What else the
    remaining blocks read is optimised too: z0, where they read styles. The image that the lost
    blocks have accumulated is lost with them.

    Differs from the paper: Adam in the one loop of all inverters, where it has 25 to 100 steps of
    L-BFGS, which does slightly better there (supplement, section 1.1 and table 1) and whose steps
    would tie a batch together.

    Args:
        steps: Adam updates; where they end is the only regularisation.
        block: c, the blocks that are cut off (chosen on validation images in the paper,
            supplement, section 1.1 and figure 4).
        lr_feature, lr_code: step sizes of u and of z0.
        fitted: see above.
        clamp: u starts within [-clamp, clamp]; None: anywhere.
        fit_samples: draws of G that the moments are taken from.
        rampup, rampdown: shares of the steps, see Schedule.

    Raises:
        ValueError: settings out of range.
    """

    steps: int
    block: int = 2
    lr_feature: float = 0.1
    lr_code: float = 0.1
    fitted: bool = False
    clamp: float | None = 1.0
    fit_samples: int = 1000
    rampup: float = 0.05
    rampdown: float = 0.75

    def __post_init__(self) -> None:
        if self.steps < 1 or self.fit_samples < 2 or min(self.lr_feature, self.lr_code) < 0:
            raise ValueError(
                f"Surgery: steps={self.steps} must be 1 or more, fit_samples={self.fit_samples} 2 "
                f"or more, lr_feature={self.lr_feature} and lr_code={self.lr_code} 0 or more."
            )
        if self.block < 1 or (self.clamp is not None and self.clamp <= 0):
            raise ValueError(
                f"Surgery: block={self.block} must be 1 or more, with none cut off it is "
                f"inverter=csgm; clamp={self.clamp} must be above 0 or null."
            )

    def check(self, G: Generator) -> None:
        if self.block > G.num_blocks:
            raise ValueError(
                f"Surgery: block={self.block} is past the last of {G.num_blocks} blocks; lower "
                "inverter.block."
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
        u = randn(G.shapes[self.block], rngs, y)
        u = u if self.clamp is None else u.clamp(-self.clamp, self.clamp)
        z0 = randn((G.z_dim,), rngs, y)
        noise = tuple(randn(shape, rngs, y) for shape in G.noise_shapes)
        mean, std = self._moments(G)

        def render() -> tuple[Tensor, Tensor | None]:
            latents = Latents(G.map(z0), noise, {}, member=(0,) * len(y))
            return Additive(0).synthesize(G, latents, self.block, State(mean + std * u)), None

        variables = [Variable(u, self.lr_feature)]
        # Elsewhere z0 acts through the lost blocks alone: nothing depends on it any more.
        if G.per_block_styles:
            variables.append(Variable(z0, self.lr_code))
        descent = Descent(self.steps, Schedule(self.rampup, self.rampdown))
        return reconstruction(minimise(render, variables, Observation(A, y, loss, watch), descent))

    def _moments(self, G: Generator) -> Moments:
        if not self.fitted:
            return Moments()
        return moments(G, self.block, self.fit_samples, weights_key(G))


@lru_cache(maxsize=1)
@torch.no_grad()
def moments(G: Generator, block: int, count: int, key: tuple) -> Moments:
    """Of block's output over `count` fixed draws of G, fitted once for all batches of a run.

    Args:
        key: see `weights_key`; a change fits anew.
    """
    rng, like = seeded("cpu", "surgery"), next(G.parameters())
    # Single precision would lose a variance that is small beside its mean, as after a ReLU.
    sums = squares = torch.zeros(G.shapes[block][0], dtype=torch.float64, device=like.device)
    for first in range(0, count, CHUNK):
        batch = min(CHUNK, count - first)
        w = G.sample_w(batch, rng)
        x = G.run(w, G.sample_noise(batch, rng) or None, stop=block).x.double()
        sums = sums + x.mean((2, 3)).sum(0)
        squares = squares + x.square().mean((2, 3)).sum(0)
    mean = sums / count
    std = (squares / count - mean.square()).clamp_min(0).sqrt()
    return Moments(mean.to(like)[:, None, None], std.to(like)[:, None, None])
