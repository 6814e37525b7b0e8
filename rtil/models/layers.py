"""Layers that more than one network uses: equalised linear maps and convolutions, normalisation.

Weights are drawn from N(0, 1) and scaled when used, so that Adam's step is the same relative
step for every layer (Karras et al. 2018, section 4.1).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from rtil.kernels.conv2d import conv2d
from rtil.process.distributed import gathered, own, world

T = TypeVar("T")

_kept: dict[tuple[int, str], tuple[Tensor, Any]] | None = None


@contextmanager
def frozen() -> Iterator[None]:
    """Within, what layers derive from weights that need no gradient is computed once.

    For loops that run a generator many times with the same weights, as inversion does. A weight
    must not change within, and must not be replaced.
    """
    global _kept
    before, _kept = _kept, {} if _kept is None else _kept
    try:
        yield
    finally:
        _kept = before


def derived(weight: Tensor, what: str, compute: Callable[[], T]) -> T:
    """compute(), which depends on `weight` alone; kept within `frozen` for a constant weight.

    Args:
        what: name of the derived quantity.
    """
    if _kept is None or weight.requires_grad:
        return compute()
    key = (id(weight), what)
    if key not in _kept:
        # The weight is held as well, so that its id stays its own.
        _kept[key] = (weight, compute())
    return _kept[key][1]


def is_frozen() -> bool:
    """Whether `frozen` is in force."""
    return _kept is not None


def entering(x: Tensor, dtype: torch.dtype | None) -> Tensor:
    """A feature map in the type that a network keeps its maps in; None: as it is."""
    return x if dtype is None else x.to(dtype)


class EqualLinear(nn.Module):
    """y = W x gain lr / sqrt(in) + lr b (Karras et al. 2018, section 4.1).

    Args:
        in_features, out_features: sizes.
        bias_init: value every bias starts from, after scaling.
        lr: learning-rate multiplier of weight and bias.
        gain: 1 in StyleGAN2, sqrt(2) in PGGAN.
    """

    def __init__(
        self,
        in_features: int,
        out_features: int,
        bias_init: float = 0.0,
        lr: float = 1.0,
        gain: float = 1.0,
    ) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(out_features, in_features) / lr)
        self.bias = nn.Parameter(torch.full((out_features,), bias_init / lr))
        self.scale, self.lr = gain * lr / math.sqrt(in_features), lr

    def forward(self, x: Tensor) -> Tensor:
        """Maps (..., in) to (..., out)."""
        weight = derived(self.weight, "scaled", lambda: self.weight * self.scale)
        bias = derived(self.bias, "scaled", lambda: self.bias * self.lr)
        return F.linear(x, weight, bias)


class EqualConv2d(nn.Module):
    """Convolution with weights scaled by gain / sqrt(fan_in) (Karras et al. 2018, section 4.1).

    Args:
        in_channels, out_channels, kernel: sizes.
        gain: 1 in StyleGAN2, sqrt(2) in PGGAN.
        stride, padding: as in torch.
        bias: whether it has one.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel: int,
        gain: float = 1.0,
        stride: int = 1,
        padding: int = 0,
        bias: bool = True,
    ) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(out_channels, in_channels, kernel, kernel))
        self.bias = nn.Parameter(torch.zeros(out_channels)) if bias else None
        self.scale = gain / math.sqrt(in_channels * kernel**2)
        self.stride, self.padding = stride, padding

    def forward(self, x: Tensor) -> Tensor:
        """Maps (B, in, H, W) to (B, out, H', W') in x's dtype."""
        bias = None if self.bias is None else self.bias.to(x.dtype)
        weight = derived(
            self.weight, f"scaled {x.dtype}", lambda: (self.weight * self.scale).to(x.dtype)
        )
        return conv2d(x, weight, bias, self.stride, self.padding)


def pixel_norm(x: Tensor) -> Tensor:
    """x / rms over dimension 1 (Karras et al. 2018, section 4.2)."""
    return x * torch.rsqrt(x.square().mean(1, keepdim=True) + 1e-8)


def map_norm(x: Tensor) -> Tensor:
    """x (B, C, H, W) / rms of each sample's map, which is computed in float32 or wider."""
    wide = torch.promote_types(x.dtype, torch.float32)
    rms = x.to(wide).square().mean((1, 2, 3), keepdim=True)
    return x * torch.rsqrt(rms + 1e-8).to(x.dtype)


def group_size(batch: int, limit: int | None) -> int:
    """Largest divisor of `batch` up to `limit` (None: the batch itself)."""
    if limit is None:
        return batch
    return next(g for g in range(min(batch, limit), 0, -1) if batch % g == 0)


def minibatch_stddev(x: Tensor, limit: int | None) -> Tensor:
    """Appends the mean standard deviation within groups of samples (Karras et al. 2018, sec. 3).

    Groups are runs of consecutive samples, so that a batch laid out by family member keeps
    each member's statistics to itself. They are those of the whole batch: where processes share
    it, a group that lies in several of them is gathered.

    Args:
        x: (B, C, H, W), this process's samples.
        limit: group size; the largest divisor of the whole batch up to it is used. None: that.

    Returns:
        (B, C + 1, H, W); the last channel is constant within a group.
    """
    batch, _, height, width = x.shape
    group = group_size(batch * world(), limit)
    is_apart = batch % group != 0
    every = gathered(x) if is_apart else x
    groups = every.view(len(every) // group, group, *x.shape[1:])
    std = (groups.var(1, unbiased=False) + 1e-8).sqrt().mean((1, 2, 3)).repeat_interleave(group)
    std = (own(std) if is_apart else std).view(batch, 1, 1, 1)
    return torch.cat([x, std.expand(batch, 1, height, width)], 1)


def check_resolution(who: str, resolution: int, channels: dict[int, int]) -> dict[int, int]:
    """Validates a power-of-two resolution and its channel table, and returns it as {size: width}.

    Raises:
        ValueError: the resolution is not a power of two from 8 up, or the table is none or lacks a
            size.
    """
    if resolution < 8 or resolution & (resolution - 1):
        raise ValueError(
            f"{who}: resolution={resolution} is not a power of two from 8 up; "
            "use 8, 16, 32, 64, 128, 256, ..."
        )
    try:
        table = {int(size): int(width) for size, width in channels.items()}
    except (AttributeError, TypeError, ValueError) as error:
        raise ValueError(
            f"{who}: channels={channels!r} is no table of whole numbers {{size: width}}, such as "
            "'{4: 64, 8: 32}'; in a shell it needs the quotes."
        ) from error
    sizes = [2**i for i in range(2, resolution.bit_length())]
    missing = [size for size in sizes if table.get(size, 0) < 1]
    if missing:
        raise ValueError(
            f"{who}: the channel table {table} has no positive width for sizes {missing}; "
            f"resolution={resolution} needs one for each of {sizes}."
        )
    return {size: table[size] for size in sizes}
