"""The contract of a forward operator: y = A(x), its adjoint if linear, and measurement noise.

Operators live beside this file, one per module. Losses, metrics and inverters do not. To add one:
a final subclass of `LinearOperator` in `operators/<noun>.py` (of `ForwardOperator` where A is not
linear), and a `configs/task/<name>.yaml` whose `_target_` names it; see `rtil.operators.task`. The
laws of tests/operators, the dot test first, are those of every task.

Random operators are drawn at construction by `numpy.random.default_rng(seed)`, whose streams do
not depend on the machine or the device, and keep what they drew in real-valued buffers:
`.to(device)`, `.double()` and `state_dict` carry the operator.
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from math import prod

import torch
from torch import Tensor, nn


class ForwardOperator(nn.Module, ABC):
    """Measurement y = A(x) of an image x in [-1, 1] (paper, section 2.1), linear or not.

    Args:
        in_shape: (C, H, W) of the image.
        out_shape: shape of one measurement, without the batch.
        measures_images: True where y is itself an image (c, h, w) in about [-1, 1], so that LPIPS
            and galleries apply.
        observed: bool, broadcastable to `out_shape`: entries of y that carry information; None
            means all of them.
        name: in messages; None: that of the class.

    Raises:
        ValueError: in_shape is no shape of an image.
    """

    in_shape: tuple[int, int, int]
    out_shape: tuple[int, ...]
    observed: Tensor | None

    def __init__(
        self,
        in_shape: Sequence[int],
        out_shape: Sequence[int],
        *,
        measures_images: bool,
        observed: Tensor | None = None,
        name: str | None = None,
    ) -> None:
        super().__init__()
        self.name = name or type(self).__name__
        if len(in_shape) != 3 or min(in_shape) < 1:
            raise ValueError(
                f"{self.name}: in_shape={tuple(in_shape)}; "
                "it must be (channels, height, width), each at least 1."
            )
        channels, height, width = in_shape
        self.in_shape = (channels, height, width)
        self.out_shape = tuple(out_shape)
        self.measures_images = measures_images
        self.register_buffer("observed", observed)

    @abstractmethod
    def forward(self, x: Tensor) -> Tensor:
        """y = A(x).

        Args:
            x: (B, *in_shape).

        Returns:
            (B, *out_shape).
        """

    @abstractmethod
    def measurement_image(self, y: Tensor) -> Tensor:
        """Picture of a measurement for galleries.

        Args:
            y: (B, *out_shape).

        Returns:
            (B, c, h, w) in about [-1, 1]; entries that were not observed are 0, mid-grey.
        """

    @property
    def num_measurements(self) -> int:
        """m: the number of entries of one y that carry information.

        Note: synchronises with the device where only some entries are observed; read it once,
            outside the loop.
        """
        if self.observed is None:
            return prod(self.out_shape)
        return int(self.observed.expand(self.out_shape).sum())

    def check_input(self, x: Tensor) -> None:
        """Raises ValueError unless x is (B, *in_shape)."""
        if x.ndim != 4 or tuple(x.shape[1:]) != self.in_shape:
            raise ValueError(
                f"{self.name}: got x of shape {tuple(x.shape)}; "
                f"it measures a batch of images of shape {self.in_shape}."
            )

    def check_measurement(self, y: Tensor) -> None:
        """Raises ValueError unless y is (B, *out_shape)."""
        if y.ndim != 1 + len(self.out_shape) or tuple(y.shape[1:]) != self.out_shape:
            raise ValueError(
                f"{self.name}: got y of shape {tuple(y.shape)}; "
                f"it returns a batch of measurements of shape {self.out_shape}."
            )

    def noisy(self, y: Tensor, noise_std: float, rngs: Sequence[torch.Generator]) -> Tensor:
        """y + 2 noise_std e with e ~ N(0, I) on the observed entries.

        The factor 2 turns a standard deviation in units of the [0, 1] image into one of the
        [-1, 1] image. It is not adapted to operators that scale their measurements
        (task.scale=published).

        Args:
            y: (B, *out_shape).
            noise_std: in units of the [0, 1] image, at least 0.
            rngs: one CPU generator per image, so an image's noise does not depend on its batch or
                its device.

        Returns:
            (B, *out_shape).
        """
        self.check_measurement(y)
        if not noise_std >= 0:
            raise ValueError(
                f"{self.name}: noise_std={noise_std}; it is a standard deviation in "
                "units of the [0, 1] image and must be at least 0."
            )
        if len(rngs) != len(y):
            raise ValueError(
                f"{self.name}: got {len(rngs)} generators for a batch of {len(y)}; "
                "noise needs one per image."
            )
        if noise_std == 0:
            return y
        # float32 whatever y is: a float64 run sees the same noise.
        draws = [torch.randn(self.out_shape, generator=rng, dtype=torch.float32) for rng in rngs]
        noise = torch.stack(draws).to(y)
        if self.observed is not None:
            noise = noise * self.observed
        return y + 2 * noise_std * noise


class LinearOperator(ForwardOperator):
    """y = A x, which has an adjoint. Linear estimates (`rtil.inverters.linear`) take no other."""

    @abstractmethod
    def adjoint(self, y: Tensor) -> Tensor:
        """A^T y, so that <A x, y> = <x, A^T y>.

        Args:
            y: (B, *out_shape).

        Returns:
            (B, *in_shape).
        """

    def measurement_image(self, y: Tensor) -> Tensor:
        """y if it is an image, else A^T y with peak 1."""
        if self.measures_images:
            self.check_measurement(y)
            return y
        return with_peak_one(self.adjoint(y))


def with_peak_one(x: Tensor) -> Tensor:
    """Scales each image (B, C, H, W) to the largest absolute value 1; zeros stay."""
    peak = x.abs().amax(dim=(1, 2, 3), keepdim=True)
    return x / peak.clamp_min(torch.finfo(x.dtype).tiny)
