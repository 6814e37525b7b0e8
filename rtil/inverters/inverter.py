"""The contract of an inverter, and how one is built from its yaml (configs/inverter).

An inverter says itself what it needs: a generator (`GeneratorInverter`), what that generator was
trained with (`FamilyInverter`), training images (`FittedInverter`), a network of its own
(`PretrainedInverter`), or an operator with an adjoint (`rtil.inverters.linear.LinearEstimate`).
To add one, write a file with a final frozen dataclass of one of these kinds and a yaml under
configs/inverter:

    name: NAME
    family: ilo            that it was proposed with (configs/rtil); null: needs no generator
    _target_: rtil.inverters.FILE.CLASS
    ...                    its settings

Which iterate is reported, and what the true image says of it, is decided in `rtil.inversion`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import ClassVar, NamedTuple, final

import torch
from torch import Tensor

from rtil.latents.family import Family
from rtil.latents.space import Latents
from rtil.models.generator import Generator
from rtil.operators.operator import ForwardOperator, LinearOperator
from rtil.process.brief import brief
from rtil.process.instantiate import instantiate, target_of

Loss = Callable[[Tensor, Tensor], Tensor]
Watch = Callable[[Tensor], None]
DESCRIPTION = ("name", "family")  # of a yaml; all its other keys are settings
SINGLE = {"int", "float", "bool", "str", "None"}  # annotations of settings that take no list


class Spread(NamedTuple):
    """What is known of the error of an estimate of B images.

    std: (B, C, H, W) pixelwise standard deviation. draws: (R, B, C, H, W) from the posterior.
    """

    std: Tensor
    draws: Tensor


class Reconstruction(NamedTuple):
    """What an inverter returns for a batch of B images.

    image: (B, C, H, W) in about [-1, 1], the iterate with the lowest measurement loss, or the mean
        of several.
    last: (B, C, H, W), the last iterate.
    loss, last_loss: (B,) measurement losses of the two.
    history: (T, B) data term of every iterate, on the CPU; empty for direct estimates.
    latents: of the last iterate; None where it is no image of the generator's family.
    starts: row of `history` that each stage, or start from a new draw, begins with.
    spread: None for estimates that do not know their error.
    """

    image: Tensor
    last: Tensor
    loss: Tensor
    last_loss: Tensor
    history: Tensor
    latents: Latents | None = None
    starts: tuple[int, ...] = (0,)
    spread: Spread | None = None


class Inverter(ABC):
    """Estimates images from measurements.

    Attributes:
        needs_generator: whether `invert` uses G. One that does not has one estimate for every
            generator, without iterates to choose from or random draws.
        has_chains: whether its estimate is made of several starts already, with their spread.
    """

    needs_generator: ClassVar[bool]
    has_chains: ClassVar[bool] = False

    @abstractmethod
    def check(self, G: Generator) -> None:
        """Raises ValueError where the settings do not fit the generator."""

    @abstractmethod
    def check_operator(self, A: ForwardOperator) -> None:
        """Raises ValueError where A cannot be inverted this way."""

    @abstractmethod
    def invert(
        self,
        G: Generator,
        A: ForwardOperator,
        y: Tensor,
        loss: Loss,
        rngs: Sequence[torch.Generator],
        watch: Watch | None = None,
    ) -> Reconstruction:
        """Estimates a batch; each image is treated as if it were alone.

        Args:
            G: generator with frozen weights.
            A: forward operator.
            y: measurements (B, *A.out_shape).
            loss: (A x_hat, y) to a loss per image (B,).
            rngs: one CPU generator per image, the source of all its random draws.
            watch: shown every iterate (B, C, H, W) that may be returned; it can record but not
                steer.

        Raises:
            RuntimeError: a loss that is not finite.
        """


class GeneratorInverter(Inverter):
    """Searches the range of a generator, along gradients of A."""

    needs_generator = True

    @final
    def check_operator(self, A: ForwardOperator) -> None:
        """Any A will do: it is differentiable."""


class FamilyInverter(Inverter):
    """Takes settings that were not given from what its generator was trained with."""

    @abstractmethod
    def trained_with(self, family: Family) -> Inverter:
        """The inverter for generators that were trained with a family.

        Raises:
            ValueError: the family does not hold what the settings ask of it.
        """


class FittedInverter(Inverter):
    """Is fitted to training images before it inverts."""

    @abstractmethod
    def fit(self, images: Tensor) -> Inverter:
        """The inverter fitted to images (N, C, H, W) in [-1, 1].

        Raises:
            ValueError: too few images.
        """


class Weights(NamedTuple):
    """A file of weights that an inverter has beside the generator's.

    sha256: of the file. trained: what it was trained on, `data` and `split_files` as a
    generator's file has them.
    """

    path: Path
    sha256: str
    trained: Mapping


class PretrainedInverter(Inverter):
    """Has a network of its own, which was trained on images."""

    @abstractmethod
    def weights(self) -> Weights:
        """Its file.

        Raises:
            FileNotFoundError: there is none. ValueError: it cannot be read.
        """


def with_adjoint(A: ForwardOperator, inverter: object, why: str) -> LinearOperator:
    """A, which has an adjoint.

    Args:
        inverter: that needs one.
        why: what it cannot do without, and what to use instead; ends the message.

    Raises:
        ValueError: it has none.
    """
    if not isinstance(A, LinearOperator):
        raise ValueError(f"{type(inverter).__name__}: {A.name} is not linear, {why}")
    return A


def build_inverter(config: Mapping, family: Family) -> Inverter:
    """The inverter that a yaml describes (configs/inverter), for generators of a family.

    Args:
        config: the resolved `inverter` of a configuration.
        family: that the generator was trained with; read by a `FamilyInverter` alone.

    Returns:
        The inverter; a `FittedInverter` has still to be fitted.

    Raises:
        ValueError: no inverter of rtil, settings out of range, a list where it takes one value, or
            as `trained_with`.
    """
    settings = {key: value for key, value in config.items() if key not in DESCRIPTION}
    # What `steps` or `lr_code` takes depends on the inverter, so its name alone does not say it.
    annotations = getattr(target_of(settings), "__annotations__", {})
    for key, value in settings.items():
        single = {*str(annotations.get(key, "")).split(" | ")} <= SINGLE
        if single and isinstance(value, list | tuple):
            raise ValueError(
                f"invert: inverter.{key}={brief(value)} must be one value, and no list, for "
                f"inverter={config.get('name')}."
            )
    inverter = instantiate(settings)
    if isinstance(inverter, FamilyInverter):
        return inverter.trained_with(family)
    return inverter
