"""Compressed sensing by a partial circulant matrix with random signs (paper, section 4).

`Circulant` is the operator of given arrays, `partial_circulant` (task=cs) the one of drawn arrays.
"""

from collections.abc import Sequence
from math import prod
from typing import final

import numpy as np
import torch
from torch import Tensor
from torch.fft import irfft, rfft

from rtil.operators.operator import LinearOperator


@final
class Circulant(LinearOperator):
    """y = R (h * (s . x)): signs s, circular convolution with h, restriction R to some entries.

    The spectrum of h is computed once and again after `.double()`, a move or `load_state_dict`.

    Args:
        in_shape: (C, H, W) of the image; n = C H W.
        filter: (n,) the filter h.
        signs: (n,) the signs s, of the filter's dtype.
        indices: (m,) int64, distinct positions in [0, n) that are kept, in the order of y.

    Raises:
        ValueError: arrays that do not fit the image or each other.
    """

    filter: Tensor
    signs: Tensor
    indices: Tensor

    def __init__(
        self, in_shape: Sequence[int], filter: Tensor, signs: Tensor, indices: Tensor
    ) -> None:
        super().__init__(in_shape, (len(indices),), measures_images=False)
        n = prod(in_shape)
        if filter.shape != (n,) or signs.shape != (n,):
            raise ValueError(
                f"Circulant: got filter of shape {tuple(filter.shape)} and signs of shape "
                f"{tuple(signs.shape)}; images of shape {self.in_shape} need ({n},) for both."
            )
        kept = indices.unique()
        distinct = indices.ndim == 1 and len(kept) == len(indices) > 0
        if not distinct or kept[0] < 0 or kept[-1] >= n:
            raise ValueError(
                f"Circulant: indices of shape {tuple(indices.shape)} hold {len(kept)} distinct "
                f"values; they must be one or more distinct positions in [0, {n})."
            )
        self.register_buffer("filter", filter)
        self.register_buffer("signs", signs)
        self.register_buffer("indices", indices)
        self._spectrum: tuple[Tensor, int, Tensor] | None = None

    def spectrum(self) -> Tensor:
        """rfft of the filter, kept until the filter is moved, converted or loaded anew."""
        h, kept = self.filter, self._spectrum
        # A buffer that is moved or converted is another tensor; one that is loaded into has
        # another version.
        if kept is None or kept[0] is not h or kept[1] != h._version:
            kept = (h, h._version, rfft(h))
            self._spectrum = kept
        return kept[2]

    def forward(self, x: Tensor) -> Tensor:
        """y = (h * (s . x))[indices], shape (B, m)."""
        self.check_input(x)
        product = rfft(x.flatten(1) * self.signs) * self.spectrum()
        convolved = irfft(product, n=len(self.signs))
        return convolved.index_select(1, self.indices)

    def adjoint(self, y: Tensor) -> Tensor:
        """A^T y = s . correlation of h with R^T y, shape (B, C, H, W)."""
        self.check_measurement(y)
        scattered = y.new_zeros(len(y), len(self.signs)).index_copy(1, self.indices, y)
        correlated = irfft(rfft(scattered) * self.spectrum().conj(), n=len(self.signs))
        return (correlated * self.signs).unflatten(1, self.in_shape)


def partial_circulant(
    in_shape: Sequence[int],
    ratio: float,
    seed: int | Sequence[int] = 0,
    scale: str = "unit",
) -> Circulant:
    """`Circulant` with h, s and R drawn from a seed (paper, section 4).

    h_i ~ N(0, 1/n), s_i = +-1, m = round(ratio n) positions without replacement, so that for every
    x, E||A x||^2 = ||x||^2 m/n. One seed gives nested operators: the positions of a smaller ratio
    are among those of a larger one.

    Differs from the published code, whose filter has h_i ~ N(0, 1): measurements would grow with
    the image size, and with them the loss and every step size. `task.scale=published` restores it.

    Args:
        in_shape: (C, H, W) of the image; n = C H W.
        ratio: m/n in (0, 1]; at least one measurement is taken.
        seed: of the numpy generator that draws h, s and the positions, in this order.
        scale: "unit", or "published" for h_i ~ N(0, 1).

    Raises:
        ValueError: ratio outside (0, 1], or an unknown scale.
    """
    n = prod(in_shape)
    if not 0 < ratio <= 1:
        raise ValueError(
            f"partial_circulant: ratio={ratio} asks for m={ratio * n:.0f} of n={n} "
            "measurements; ratio must be in (0, 1]."
        )
    if scale not in ("unit", "published"):
        raise ValueError(f"partial_circulant: scale={scale!r}; it must be 'unit' or 'published'.")
    rng = np.random.default_rng(seed)
    filter = rng.standard_normal(n) / (n**0.5 if scale == "unit" else 1.0)
    signs = rng.choice([-1.0, 1.0], n)
    indices = np.sort(rng.permutation(n)[: max(1, round(ratio * n))])
    return Circulant(
        in_shape,
        torch.from_numpy(filter).float(),
        torch.from_numpy(signs).float(),
        torch.from_numpy(indices),
    )
