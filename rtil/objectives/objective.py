"""The contract of a GAN objective: losses per image; the training loop averages once.

Losses are functions of scores. One that is `paired` judges generated images beside real ones: it
is given the scores of both, and has no loss of real images alone. A penalty is an attribute that
is None where an objective has none, so a loop asks `if objective.d_lazy is not None`:

    real_penalty(D, real)               (B,), in every discriminator step
    pair_penalty(D, real, fake, draws)  (B,), likewise, for each space's images
    d_lazy: RealPenalty                 an extra update of D every `d_lazy.every` steps
    g_lazy: GeneratorPenalty            an extra update of G every `g_lazy.every` steps

A step with the last draws latents itself, as all others do, `g_lazy.batch` samples over all
processes, and hands them to `g_lazy.penalty(G, space, index, latents, draws)`. What a penalty
draws comes from `draws`, which gives this process its share.

To add an objective, write a file with a final subclass that sets the penalties it has in its
constructor, and point a model yaml's `objective` at it. Optimisers, steps and logs live in
`rtil.training`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from torch import Tensor, nn

from rtil.latents.space import Latents, LatentSpace
from rtil.models.generator import Generator
from rtil.process.rng import Draws

Critic = Callable[[Tensor], Tensor]  # a discriminator, of images as it is shown them
ScoreLoss = Callable[[Tensor], Tensor]
ScorePenalty = Callable[[Critic, Tensor], Tensor]
PairPenalty = Callable[[Critic, Tensor, Tensor, Draws], Tensor]


@dataclass(frozen=True)
class RealPenalty:
    """A lazy penalty on the discriminator at real images (Karras et al. 2020, App. B).

    name: of its term in logs.
    every: steps between penalties, 1 or more.
    penalty: (D, real images) to (B,), scaled to stand for all `every` steps.
    """

    name: str
    every: int
    penalty: Callable[[Critic, Tensor], Tensor]


@dataclass(frozen=True)
class GeneratorPenalty:
    """A lazy penalty on the generator (Karras et al. 2020, App. B).

    name: of its term in logs.
    every: steps between penalties, 1 or more.
    batch: samples of a penalty over all processes.
    penalty: (G, space, position of the space in the family, latents drawn by it with gradients,
        draws) to a value for each sample (B',), scaled to stand for all `every` steps.
    start: (G, space, its position, several such latents, draws) sets what the penalty remembers to
        what it is of a generator that is trained already; None where it remembers nothing.
    """

    name: str
    every: int
    batch: int
    penalty: Callable[[Generator, LatentSpace, int, Latents, Draws], Tensor]
    start: Callable[[Generator, LatentSpace, int, Iterable[Latents], Draws], None] | None = None

    def turn(self, step: int) -> int:
        """Number of the draw for the penalty of a step; rotates the members of a mixture."""
        # Penalties are counted, not steps: where `every` divides a mixture's rotation, every
        # penalty would meet the same member.
        return step // self.every


class Objective(nn.Module, ABC):
    """Losses that the loop minimises; buffers are saved in checkpoints.

    Attributes:
        real: discriminator loss (B,) on scores (B,) of real images; None where it is `paired`.
        paired: whether `fake` and `generator` need the scores of real images.
        real_penalty: (D, real) to (B,), of every discriminator step; None for none.
        pair_penalty: (D, real, fake, draws) to (B,), of every discriminator step; None for none.
        d_lazy: penalty on real images; None for none.
        g_lazy: penalty on the generator; None for none.
    """

    real: ScoreLoss | None = None
    paired: bool = False
    real_penalty: ScorePenalty | None = None
    pair_penalty: PairPenalty | None = None
    d_lazy: RealPenalty | None = None
    g_lazy: GeneratorPenalty | None = None

    @abstractmethod
    def fake(self, scores: Tensor, real: Tensor | None = None) -> Tensor:
        """Discriminator loss (B,) on scores (B,) of generated images.

        Args:
            real: scores (B,) of the real images at the same places, where it is `paired`.
        """

    @abstractmethod
    def generator(self, scores: Tensor, real: Tensor | None = None) -> Tensor:
        """Generator loss (B,) on scores (B,) of its images; `real` as above."""
