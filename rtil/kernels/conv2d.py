"""2-D convolution whose second gradient is as quick as its first.

PyTorch differentiates a convolution's gradient by a convolution with whole feature maps as its
kernel. Gradient penalties (R1, WGAN-GP, path length) are second gradients, so here the three maps
that a convolution y = conv(x, w) is made of

    conv(x, w),   to_input(g, w) = its adjoint in x,   to_weight(g, x) = its adjoint in w

are differentiated into each other: all three are bilinear, and each one's gradients are the other
two. A transposed convolution is to_input.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd import Function

from rtil.kernels import cpu_library


class Geometry(NamedTuple):
    """Stride, padding, and the shapes of x and w."""

    stride: int
    padding: int
    x: tuple[int, ...]
    w: tuple[int, ...]


def conv2d(
    x: Tensor, w: Tensor, b: Tensor | None = None, stride: int = 1, padding: int = 0
) -> Tensor:
    """As torch.nn.functional.conv2d.

    Args:
        x: (B, C, H, W). w: (O, C, K, K). b: (O,) or None.
    """
    if not _plain(x, w):
        return F.conv2d(x, w, b, stride, padding)
    return _Conv.apply(x, w, b, Geometry(stride, padding, tuple(x.shape), tuple(w.shape)))


def conv_transpose2d(x: Tensor, w: Tensor, stride: int) -> Tensor:
    """As torch.nn.functional.conv_transpose2d without padding.

    Args:
        x: (B, C, H, W). w: (C, O, K, K).
    """
    if not _plain(x, w):
        return F.conv_transpose2d(x, w, stride=stride)
    sides = [stride * (n - 1) + k for n, k in zip(x.shape[2:], w.shape[2:])]
    shape = (len(x), w.shape[1], *sides)
    return _ToInput.apply(x, w, Geometry(stride, 0, shape, tuple(w.shape)))


def _plain(x: Tensor, w: Tensor) -> bool:
    """Whether the functions below serve: gradients are recorded, and by nothing but autograd."""
    if not cpu_library.plain_autograd(x.device.type):
        return False
    return torch.is_grad_enabled() and (x.requires_grad or w.requires_grad)


def _backward(g: Tensor, x: Tensor, w: Tensor, at: Geometry, mask: tuple[bool, bool]) -> tuple:
    """(to_input, to_weight) as the mask asks; what is not read may be a tensor of shape alone."""
    s, p = [at.stride] * 2, [at.padding] * 2
    return torch.ops.aten.convolution_backward(
        g, x, w, None, s, p, [1, 1], False, [0, 0], 1, [*mask, False]
    )[:2]


def to_input(g: Tensor, w: Tensor, x: Tensor, padding: int) -> Tensor:
    """The gradient of x in conv2d(x, w, padding=padding), without one of its own.

    Args:
        g: gradient of the result. w: (O, C, K, K).
        x: of the input's shape; its values are not read.
    """
    at = Geometry(1, padding, tuple(x.shape), tuple(w.shape))
    return _backward(g, x, w, at, (True, False))[0]


def _of_shape(shape: tuple[int, ...], like: Tensor) -> Tensor:
    """A tensor of a shape and layout, without contents worth memory."""
    layout = torch.contiguous_format
    if like.ndim == 4 and like.is_contiguous(memory_format=torch.channels_last):
        layout = torch.channels_last
    return torch.empty(shape, dtype=like.dtype, device=like.device, memory_format=layout)


class _Conv(Function):
    @staticmethod
    def forward(ctx, x, w, b, at):
        ctx.save_for_backward(x, w)
        ctx.at = at
        return F.conv2d(x, w, b, at.stride, at.padding)

    @staticmethod
    def backward(ctx, g):
        x, w = ctx.saved_tensors
        to_x, to_w, to_b, _ = ctx.needs_input_grad
        db = g.sum((0, 2, 3)) if to_b else None
        if torch.is_grad_enabled():
            dx = _ToInput.apply(g, w, ctx.at) if to_x else None
            return dx, _ToWeight.apply(g, x, ctx.at) if to_w else None, db, None
        return *_backward(g, x, w, ctx.at, (to_x, to_w)), db, None


class _ToInput(Function):
    @staticmethod
    def forward(ctx, g, w, at):
        ctx.save_for_backward(g, w)
        ctx.at = at
        # Rows that no window reaches lie at the end of x.
        extra = [n + 2 * at.padding - k for n, k in zip(at.x[2:], at.w[2:])]
        extra = [e - at.stride * (n - 1) for e, n in zip(extra, g.shape[2:])]
        return F.conv_transpose2d(g, w, None, at.stride, at.padding, extra)

    @staticmethod
    def backward(ctx, v):
        g, w = ctx.saved_tensors
        to_g, to_w, _ = ctx.needs_input_grad
        if torch.is_grad_enabled():
            dg = _Conv.apply(v, w, None, ctx.at) if to_g else None
            return dg, _ToWeight.apply(g, v, ctx.at) if to_w else None, None
        dg = F.conv2d(v, w, None, ctx.at.stride, ctx.at.padding) if to_g else None
        dw = _backward(g, v, w, ctx.at, (False, True))[1] if to_w else None
        return dg, dw, None


class _ToWeight(Function):
    @staticmethod
    def forward(ctx, g, x, at):
        ctx.save_for_backward(g, x)
        ctx.at = at
        return _backward(g, x, _of_shape(at.w, x), at, (False, True))[1]

    @staticmethod
    def backward(ctx, u):
        g, x = ctx.saved_tensors
        to_g, to_x, _ = ctx.needs_input_grad
        if torch.is_grad_enabled():
            dg = _Conv.apply(x, u, None, ctx.at) if to_g else None
            return dg, _ToInput.apply(g, u, ctx.at) if to_x else None, None
        dg = F.conv2d(x, u, None, ctx.at.stride, ctx.at.padding) if to_g else None
        dx = _backward(g, x, u, ctx.at, (True, False))[0] if to_x else None
        return dg, dx, None
