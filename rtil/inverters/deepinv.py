"""Estimates by deepinv: its samplers and optimisers on rtil's measurements, without a generator.

Lives here: measurements and images on their way there and back, random draws, and the denoiser of
those that have one. To add one, write a file with a final frozen dataclass that extends
`DeepinvEstimate`, or `Denoised`, and a yaml under configs/inverter with `family: null`. Nothing
imports deepinv before it is asked to estimate.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any, final

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

from rtil.inverters import denoiser
from rtil.inverters.inverter import (
    Inverter,
    Loss,
    PretrainedInverter,
    Reconstruction,
    Watch,
    Weights,
    with_adjoint,
)
from rtil.inverters.lmmse import conjugate_gradient
from rtil.inverters.minimise import randn
from rtil.inverters.tv import spectral_norm
from rtil.models.generator import Generator
from rtil.operators.linear_physics import library, linear_physics, unit_measurement
from rtil.operators.operator import ForwardOperator, LinearOperator

TOLERANCE, MAX_STEPS = 1e-6, 3000  # of the conjugate gradients in a proximal map
LINEAR = (
    "and its steps are those of a linear operator. Use an inverter with a generator, "
    "such as inverter=ilo."
)
Rngs = Sequence[torch.Generator]


class DeepinvEstimate(Inverter):
    """What an algorithm of deepinv makes of y' = A u / |A| + e, for images u in [0, 1].

    With the spectral norm |A|, so that no setting depends on the scale of A. Its noise is
    max(noise_std, least_noise) / |A|: most of the algorithms divide by it.

    Attributes:
        noise_std: of the measurements, in units of the [0, 1] image.
        least_noise: what is assumed where there is less.
    """

    needs_generator = False
    noise_std: float
    least_noise: float

    @abstractmethod
    def reconstruct(self, physics: Any, y: Tensor, rngs: Rngs) -> Tensor:
        """Images u (B, C, H, W) of measurements y' (B, ...), each as if it were alone.

        Args:
            physics: `deepinv.physics.LinearPhysics`, with Gaussian noise.
            rngs: one CPU generator per image.
        """

    @abstractmethod
    def check_images(self, shape: tuple[int, ...]) -> None:
        """Raises ValueError where it cannot estimate images (C, H, W)."""

    @final
    def check(self, G: Generator | None) -> None:
        """Uses no generator."""

    @final
    def check_operator(self, A: ForwardOperator) -> None:
        """Raises ValueError where A or its images will not do, or deepinv is not installed."""
        with_adjoint(A, self, LINEAR)
        library("physics")
        self.check_images(tuple(A.in_shape))

    @final
    @torch.no_grad()
    def invert(
        self,
        G: Generator | None,
        A: ForwardOperator,
        y: Tensor,
        loss: Loss,
        rngs: Sequence[torch.Generator],
        watch: Watch | None = None,
    ) -> Reconstruction:
        """As Inverter.invert; G is not used.

        Raises:
            ValueError: A is not linear, or as `check_operator`.
            RuntimeError: an image that is not finite.
        """
        operator = with_adjoint(A, self, LINEAR)
        physics = self.physics(operator, y)
        unit = self.reconstruct(physics, unit_measurement(operator, y) / physics.scale, rngs)
        image = (2 * unit - 1).to(y)
        if not bool(image.isfinite().all()):
            raise RuntimeError(
                f"{type(self).__name__}: an image is not finite. Lower the inverter's step sizes."
            )
        if watch is not None:
            watch(image)
        value = loss(A(image), y)
        return Reconstruction(image, image, value, value, torch.empty(0, len(y)))

    @final
    def physics(self, A: LinearOperator, y: Tensor) -> Any:
        """A / |A| as a physics, with its noise; `scale` is |A|.

        Args:
            y: a measurement, of the type and on the device of the computation.
        """
        solve = partial(conjugate_gradient, tolerance=TOLERANCE, max_steps=MAX_STEPS)
        noise = max(self.noise_std, self.least_noise)
        return linear_physics(A, y, noise, solve, spectral_norm(A, y))


class Denoised(DeepinvEstimate, PretrainedInverter):
    """An estimate that knows of images what a denoiser does.

    Attributes:
        denoiser: its file, of `scripts/train_denoiser.py`.
    """

    denoiser: str

    @abstractmethod
    def estimate(self, D: Any, physics: Any, y: Tensor) -> Tensor:
        """As `reconstruct`, with a denoiser D(v, s) of u + s e; within `Drawn`."""

    @final
    def weights(self) -> Weights:
        """As PretrainedInverter.weights."""
        return denoiser.load(self.denoiser).weights

    @final
    def check_images(self, shape: tuple[int, ...]) -> None:
        """Raises where the denoiser is not there, or is one of other images."""
        own = denoiser.load(self.denoiser).network.shape
        if own != shape:
            raise ValueError(
                f"{type(self).__name__}: {self.denoiser} denoises images of shape {own}, and "
                f"these have {shape}. Train one on such images with "
                f"`{denoiser.COMMAND} data=... scale=...`, and name it with "
                "inverter.denoiser=FILE."
            )

    @final
    def reconstruct(self, physics: Any, y: Tensor, rngs: Rngs) -> Tensor:
        """As DeepinvEstimate.reconstruct."""
        D = denoiser.load(self.denoiser).network.to(y.device)
        with Drawn(rngs):
            return self.estimate(D, physics, y)


@final
class Drawn(TorchFunctionMode):
    """Within it normal numbers of a batch are drawn image by image, on the CPU.

    deepinv draws them for all of a batch at once, so that they would depend on what shares it.

    Args:
        rngs: one CPU generator per image; of one, all that has no batch is drawn too.
    """

    def __init__(self, rngs: Rngs) -> None:
        super().__init__()
        self.rngs = rngs

    def __torch_function__(
        self, func: Any, types: Any, args: Sequence[Any] = (), kwargs: Mapping | None = None
    ) -> Any:
        # What deepinv draws with: these three, of the shape of a batch or, of one image, of any.
        if func is torch.randn_like:
            return self._drawn(args[0])
        if func is torch.Tensor.normal_:
            return args[0].copy_(self._drawn(args[0]))
        if func is torch.randn and len(self.rngs) == 1:
            drawn = torch.randn(args[0], generator=self.rngs[0])
            return drawn.to((kwargs or {}).get("device", "cpu"))
        return func(*args, **(kwargs or {}))

    def _drawn(self, like: Tensor) -> Tensor:
        return randn(like.shape[1:], self.rngs, like)
