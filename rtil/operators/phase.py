"""Phase retrieval: the signs of the measurements are lost (paper, section 2.1)."""

from collections.abc import Sequence
from math import ceil, prod
from typing import cast, final

import torch
from torch import Tensor, nn

from rtil.operators.circulant import Circulant, partial_circulant
from rtil.operators.operator import ForwardOperator, with_peak_one

MAX_RATIO = 8


@final
class PhaseRetrieval(ForwardOperator):
    """y = |A x|, real amplitudes with the A of compressed sensing (Hand et al. 2018).

    A stacks L = ceil(m/n) independent draws of `partial_circulant`, of which all but the last keep
    their n measurements, so E|A x|^2 = |x|^2 m/n. For m <= n, A is that of task=cs with the same
    ratio and seed. One seed gives nested operators. Without a prior, a real x is determined up to
    its sign from m >= 2 n - 1 generic measurements (Balan et al. 2006); a generator with few
    latents gets by with fewer.

    The derivative of |t| at t = 0 is taken as 0, so gradients are finite everywhere.

    Note: x and its negative -x measure the same. Nothing here tells them apart, and scores are
        those of the image as it was found: the prior has to settle the sign. Noise is added to
        the amplitudes and can make them negative.

    Args:
        in_shape: (C, H, W) of the image; n = C H W.
        ratio: m/n in (0, 8]; at least one measurement is taken.
        seed: of the first circulant; (seed, l) are those of the others, l = 1 .. L - 1.

    Raises:
        ValueError: ratio outside (0, 8].
    """

    def __init__(self, in_shape: Sequence[int], ratio: float, seed: int = 0) -> None:
        n = prod(in_shape)
        if not 0 < ratio <= MAX_RATIO:
            raise ValueError(
                f"PhaseRetrieval: ratio={ratio} asks for m={ratio * n:.0f} measurements of n={n} "
                f"pixels; ratio must be in (0, {MAX_RATIO}]."
            )
        m = max(1, round(ratio * n))
        super().__init__(in_shape, (m,), measures_images=False)
        self.sizes = [min(n, m - l * n) for l in range(ceil(m / n))]
        self.circulants = nn.ModuleList()
        for l, size in enumerate(self.sizes):
            draw = (seed, l) if l else seed
            self.circulants.append(partial_circulant(in_shape, size / n, draw))

    def forward(self, x: Tensor) -> Tensor:
        """y = |A x|, shape (B, m)."""
        return torch.cat([A(x) for A in self.circulants], 1).abs()

    def measurement_image(self, y: Tensor) -> Tensor:
        """A^T y with peak 1: what a linear method would make of amplitudes without signs."""
        self.check_measurement(y)
        images = []
        for A, part in zip(self.circulants, y.split(self.sizes, 1)):
            images.append(cast(Circulant, A).adjoint(part))
        return with_peak_one(sum(images[1:], start=images[0]))
