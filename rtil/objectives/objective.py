"""The contract of an objective: losses per image; the training loop averages once.

Losses are functions of scores, which a discriminator gives images. Where there is none (`fake` is
None) an image stands for its own score, and the loss compares images. An objective that is
`paired` judges generated images beside real ones: it is given the scores of both, and has no loss
of real images alone. One whose scores mean nothing by themselves says in `lead` what tells a real
image from a generated one, which `augment=ada` goes by. One that says itself what latents an image
has, by an encoder or a code for each training image, gives them in `assign`. A penalty, or any
other part, is an attribute that is None where an objective has none, so a loop asks
`if objective.d_lazy is not None`:

    real_penalty(D, real)               (B,), in every discriminator step
    pair_penalty(D, real, fake, draws)  (B,), likewise, for each space's images
    d_lazy: RealPenalty                 an extra update of D every `d_lazy.every` steps
    g_lazy: GeneratorPenalty            an extra update of G every `g_lazy.every` steps

A step with the last draws latents itself, as all others do, `g_lazy.batch` samples over all
processes, and hands them to `g_lazy.penalty(G, space, index, latents, draws)`. What a penalty
draws comes from `draws`, which gives this process its share.

To add an objective, write a file with a final subclass that sets the penalties it has in its
constructor, and a yaml of configs/objective that names it. Its parameters are trained with the
generator's. Optimisers, steps and logs live in `rtil.training`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import NamedTuple, Protocol, final

from torch import Tensor, nn

from rtil.latents.family import Family
from rtil.latents.space import Latents, LatentSpace
from rtil.models.generator import Generator
from rtil.process.rng import Draws

Critic = Callable[[Tensor], Tensor]  # a discriminator, of images as it is shown them
ScoreLoss = Callable[[Tensor], Tensor]
ScoreLead = Callable[[Tensor, Tensor], Tensor]
PairLoss = Callable[[Tensor, Tensor | None], Tensor]
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


class Shown(Protocol):
    """What a step shows an objective."""

    @property
    def real(self) -> Tensor:
        """Real images (B, C, H, W)."""

    @property
    def index(self) -> Tensor | None:
        """Which of the training images these are (B,), for an objective that is `by_image`."""

    @property
    def draws(self) -> Draws:
        """Every random number."""


class Assigned(NamedTuple):
    """Latents of some images, and what they cost (B,) beside what the images do; None: nothing."""

    latents: Latents
    cost: Tensor | None = None


@final
class Unjudged(nn.Module):
    """The place of a discriminator where there is none: an image is its own score."""

    def forward(self, x: Tensor) -> Tensor:
        return x

    def progress(self, nimg: int) -> None:
        """Nothing grows."""


class Objective(nn.Module, ABC):
    """Losses that the loop minimises; parameters and buffers are saved in checkpoints.

    Attributes:
        real: discriminator loss (B,) on scores (B,) of real images; None where it is `paired`.
        fake: discriminator loss (B,) on scores (B,) of generated images and, where it is `paired`,
            of the real images at the same places; None where no discriminator is trained.
        paired: whether `fake` and `generator` need the scores of real images.
        lead: (scores (B,) of real images, scores (B,) of generated ones at the same places) to
            (B,), above 0 where D takes the real image for the real one; None where that is the
            sign of its score alone.
        by_image: whether it keeps something for each training image, which has to come unchanged.
        real_penalty: (D, real) to (B,), of every discriminator step; None for none.
        pair_penalty: (D, real, fake, draws) to (B,), of every discriminator step; None for none.
        d_lazy: penalty on real images; None for none.
        g_lazy: penalty on the generator; None for none.
        begin: (family, G, number of training images) makes what it keeps beside the networks,
            before it is moved to the device; None for nothing.
        assign: (G, space, latents drawn by it, what the step shows) to the latents of the images
            that G's update is about, with gradients; None where they are those drawn.
        settle: (what the step shows), after G's update: moves what no optimiser does; None for
            nothing.
    """

    real: ScoreLoss | None = None
    fake: PairLoss | None = None
    paired: bool = False
    lead: ScoreLead | None = None
    by_image: bool = False
    real_penalty: ScorePenalty | None = None
    pair_penalty: PairPenalty | None = None
    d_lazy: RealPenalty | None = None
    g_lazy: GeneratorPenalty | None = None
    begin: Callable[[Family, Generator, int], None] | None = None
    assign: Callable[[Generator, LatentSpace, Latents, Shown], Assigned] | None = None
    settle: Callable[[Shown], None] | None = None

    @abstractmethod
    def generator(self, scores: Tensor, real: Tensor | None = None) -> Tensor:
        """Generator loss (B,) on scores (B,) of its images.

        Args:
            real: scores (B,) of the real images at the same places, where it is `paired`.
        """
