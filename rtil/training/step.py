"""What one step of training works with: networks, real images, latents of those that G draws.

How networks are updated with it is in `rtil.training.loop`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

from torch import Tensor, nn
from torch.optim import Optimizer

from rtil.augmentation.augmentation import Augmentation
from rtil.latents.space import Latents, LatentSpace, take
from rtil.models.generator import Generator, StyleMixing
from rtil.objectives.objective import Critic, Objective
from rtil.process.rng import Draws


class Nets(NamedTuple):
    """What training changes; a checkpoint holds each part under its name here."""

    G: Generator
    D: nn.Module
    G_ema: Generator
    objective: Objective
    G_optim: Optimizer
    D_optim: Optimizer | None
    augmentation: Augmentation | None = None

    def parts(self) -> dict[str, nn.Module | Optimizer]:
        """What there is of these, by name."""
        return {name: part for name, part in self._asdict().items() if part is not None}

    def shown(self, draws: Draws) -> Critic:
        """D of images as training shows them to it, transformed anew at every call."""
        D, T = self.D, self.augmentation
        return D if T is None else lambda x: D(T(x, draws))

    def progress(self, nimg: int) -> None:
        """Sets the stage of growing that training has reached after nimg images."""
        for network in (self.G, self.D, self.G_ema):
            network.progress(nimg)  # type: ignore[operator]  # D has it too, beside nn.Module


@dataclass(frozen=True)
class Fakes:
    """Latents of a step that are the same for D and for G (published code of PGGAN).

    G has not moved since D saw its images, so latents that are drawn anew from the same numbers
    give the same images, and no member's images have to stay in memory until G's turn.

    Attributes:
        draws: of these latents alone. seed: what both halves of a step begin from.
    """

    draws: Draws
    seed: int

    def begin(self) -> None:
        """Before D's images, and before G's."""
        self.draws.rng.manual_seed(self.seed)


@dataclass(frozen=True)
class Step:
    """What one step works with.

    Attributes:
        number: steps before it.
        real: this process's share of the batch (B, C, H, W), in [-1, 1].
        draws: every random number but those of `fakes`, from a generator seeded for this step.
        style_mixing: see Generator.sample_w.
        fakes: None where G has images of its own, whose latents come from `draws`.
        index: which of the training images `real` are (B,), where the objective is `by_image`.
    """

    number: int
    real: Tensor
    draws: Draws
    style_mixing: StyleMixing
    fakes: Fakes | None = None
    index: Tensor | None = None

    def begin(self) -> None:
        """Before either network's update."""
        if self.fakes is not None:
            self.fakes.begin()

    def latents(self, space: LatentSpace, G: Generator) -> Latents:
        """Latents of the images that an update is about."""
        draws = self.draws if self.fakes is None else self.fakes.draws
        return self.sample(space, G, draws, self.number)

    def sample(self, space: LatentSpace, G: Generator, draws: Draws, turn: int) -> Latents:
        """Latents of this process's samples; `turn` rotates the members of a mixture."""
        latents = space.sample(G, draws.total, draws.rng, self.style_mixing, turn)
        return latents if draws.world == 1 else take(latents, draws.own)
