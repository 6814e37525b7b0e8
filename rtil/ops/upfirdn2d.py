"""Up-sampling, FIR filtering and down-sampling of images with separable filters.

Per axis, y = decimate(pad(zero_insert(x)) * f): the definition of scipy.signal.upfirdn with
explicit padding. Lives here: the public function and its plain PyTorch definition, which
inserts no zeros: zero insertion followed by a filter is a transposed convolution.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

BINOMIAL = (1.0, 3.0, 3.0, 1.0)  # the filter of StyleGAN2 (Karras et al. 2020, App. B)


def fir(taps: tuple[float, ...] = BINOMIAL) -> Tensor:
    """Returns the 1-D filter with the given taps, scaled to sum 1, shape (len(taps),)."""
    f = torch.tensor(taps, dtype=torch.float32)
    return f / f.sum()


def upfirdn2d(
    x: Tensor,
    f: Tensor,
    up: int = 1,
    down: int = 1,
    padding: tuple[int, int] = (0, 0),
    gain: float = 1.0,
) -> Tensor:
    """Inserts zeros, pads, filters with f along both axes and decimates, differentiable twice.

    Args:
        x: (B, C, H, W).
        f: (K,) taps of a separable filter; each axis is convolved with f (in the sense of
            scipy.signal.upfirdn, so f is flipped against a correlation).
        up: zero-insertion factor; row i goes to row up * i of up * H rows.
        down: keeps every down-th row and column.
        padding: zeros (before, after) on each axis once the zeros are inserted; negative crops.
        gain: factor on the output; up * up keeps the mean when up-sampling.

    Returns:
        (B, C, H', W') with H' = (up * H + sum(padding) - K) // down + 1.

    Raises:
        ValueError: wrong rank, or an output without rows or columns.
    """
    if x.ndim != 4 or f.ndim != 1:
        raise ValueError(
            f"upfirdn2d: got x of shape {tuple(x.shape)} and f of shape {tuple(f.shape)}; "
            "x must be (B, C, H, W) and f (K,)."
        )
    out = [(up * n + sum(padding) - len(f)) // down + 1 for n in x.shape[2:]]
    if min(out) < 1:
        raise ValueError(
            f"upfirdn2d: x of shape {tuple(x.shape)} with up={up}, padding={padding}, a filter "
            f"of {len(f)} taps and down={down} leaves {out[0]} x {out[1]} pixels."
        )
    f = f.to(x.dtype)
    x = _one_axis(x, f * gain, up, down, padding, axis=2)
    return _one_axis(x, f, up, down, padding, axis=3)


def _one_axis(
    x: Tensor, f: Tensor, up: int, down: int, padding: tuple[int, int], axis: int
) -> Tensor:
    channels, taps = x.shape[1], f.shape[0]
    column = axis == 2
    kernel = f.view(1, 1, -1, 1) if column else f.view(1, 1, 1, -1)
    kernel = kernel.expand(channels, 1, *kernel.shape[2:])
    before, after = padding
    if up == 1:
        if before < 0 or after < 0 or before != after:
            x, before = _pad(x, before, after, axis), 0
        stride, pad = ((down, 1), (before, 0)) if column else ((1, down), (0, before))
        return F.conv2d(x, kernel.flip(axis), stride=stride, padding=pad, groups=channels)
    # The full transposed convolution has up * (n - 1) + K rows and starts K - 1 rows before
    # the first fully covered one; what the padding asks for is cropped from or added to it.
    length = up * (x.shape[axis] - 1) + taps
    want = up * x.shape[axis] + before + after - taps + 1
    start = taps - 1 - before
    if start >= 0 and start == length - want - start:
        stride, pad = ((up, 1), (start, 0)) if column else ((1, up), (0, start))
        x = F.conv_transpose2d(x, kernel, stride=stride, padding=pad, groups=channels)
    else:
        stride = (up, 1) if column else (1, up)
        x = F.conv_transpose2d(x, kernel, stride=stride, groups=channels)
        x = _pad(x, -start, want - length + start, axis)
    if down == 1:
        return x
    return x[:, :, ::down] if column else x[:, :, :, ::down]


def _pad(x: Tensor, before: int, after: int, axis: int) -> Tensor:
    """Adds zeros at both ends of an axis; negative numbers crop."""
    # Zeros first: one side may crop more than x has, as far as the other side's zeros reach.
    for ends in ((max(0, before), max(0, after)), (min(0, before), min(0, after))):
        if ends != (0, 0):
            x = F.pad(x, (0, 0, *ends) if axis == 2 else (*ends, 0, 0))
    return x
