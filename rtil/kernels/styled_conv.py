"""A whole styled convolution, and a whole toRGB, with constant weights: one node of autograd each.

    s = A w + b,  d = (sum s^2 |W|^2 + 1e-8)^(-1/2)         (Karras et al. 2020, eq. 1-3)
    y = gain lrelu(d up(conv(s x, W)) + strength noise + bias)
    rgb = conv(s x, W) + bias + skip

Small images spend their time on starting operations, not on arithmetic; here the style is one call
into the CPU's kernels, and the gradients are written out. Serves float32 and bfloat16 maps on the
CPU while gradients reach activations alone; a caller gives the plain form of the same function,
which gradients of gradients are taken of.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd import Function

from rtil.kernels import cpu_library
from rtil.kernels.conv2d import to_input
from rtil.kernels.styled_act import EPS
from rtil.kernels.upfirdn2d import adjoint_padding, by_kernel

PADDING, GAIN = (1, 1), 4.0  # of the filter behind a transposed convolution


class Layer(NamedTuple):
    """What the constant weights of a layer give; float32 but for `weight`.

    affine: (in, w_dim), shift: (in,): A and b of the style.
    weight: (out, in, K, K), with `fir` (in, out, K, K), in the maps' type.
    bias: (out,). squares: (out, in), |W_oi|^2 summed over taps; None without demodulation.
    fir: taps of the filter that follows a transposed convolution; None for a plain one.
    strength: of the noise. slope, gain: of the activation.
    sources: the weights.
    """

    affine: Tensor
    shift: Tensor
    weight: Tensor
    bias: Tensor
    squares: Tensor | None
    fir: Tensor | None
    strength: float
    slope: float
    gain: float
    sources: tuple[Tensor, ...]


def serves(layer: Layer, x: Tensor, w: Tensor, last: Tensor | None) -> bool:
    """Whether the functions below compute the layer for these, with weights that learn nothing.

    Args:
        x: (B, C, H, W); the batch may be expanded.
        w: (B, w_dim). last: noise or the image so far. The kernels get addresses alone, so other
            shapes are left to the plain form, which refuses them.
    """
    channels, width = layer.affine.shape
    if x.ndim != 4 or x.shape[1] != channels or w.shape != (len(x), width):
        return False
    size = [n * (1 if layer.fir is None else 2) for n in x.shape[2:]]
    if last is not None and [*last.shape[2:]] != size:
        return False
    if last is not None and len(last) != len(x) and (len(last) != 1 or layer.squares is None):
        return False
    one = x[:1] if x.stride(0) == 0 else x
    constant = not any(weight.requires_grad for weight in layer.sources)
    return constant and cpu_library.serves(one, others=(w, last, layer.affine, layer.bias))


def styled_conv(
    x: Tensor, w: Tensor, noise: Tensor, layer: Layer, plain: Callable[..., Tensor]
) -> Tensor:
    """The styled convolution, differentiable in x, w and noise.

    Args:
        x: (B, in, H, W). w: (B, w_dim). noise: (B or 1, 1, H', W').
        plain: (x, w, noise) -> the same by operations that differentiate any number of times.

    Returns:
        (B, out, H', W') in x's dtype.
    """
    return _StyledConv.apply(cpu_library.dense(x), w, noise.contiguous(), layer, plain)


def to_rgb(
    x: Tensor, w: Tensor, skip: Tensor | None, layer: Layer, plain: Callable[..., Tensor]
) -> Tensor:
    """The 1x1 modulated convolution to an image plus the image so far, differentiable in all.

    Args:
        x: (B, in, H, W) float32. w: (B, w_dim). skip: (B, out, H, W) or None.
        plain: (x, w, skip) -> the same, as for styled_conv.

    Returns:
        (B, out, H, W).
    """
    skip = skip if skip is None else cpu_library.dense(skip)
    return _ToRGB.apply(cpu_library.dense(x), w, skip, layer, plain)


def _style(w: Tensor, layer: Layer) -> tuple[Tensor, Tensor | None]:
    """s (B, in), and d (B, out) or None."""
    affine, squares = layer.affine, layer.squares
    w = w if w.stride(1) == 1 else w.contiguous()
    s, d, count = w.new_empty(len(w), len(affine)), None, 0
    if squares is not None:
        count = len(squares)
        d = w.new_empty(len(w), count)
    cpu_library.call(
        "style",
        w,
        w.stride(0),
        affine,
        layer.shift,
        squares,
        EPS,
        s,
        d,
        len(w),
        affine.shape[1],
        len(affine),
        count,
    )
    return s, d


def _style_gradient(
    ds: Tensor, dd: Tensor | None, s: Tensor, d: Tensor | None, layer: Layer
) -> Tensor:
    """The gradient of w (B, w_dim)."""
    affine, squares = layer.affine, layer.squares
    dw = s.new_empty(len(s), affine.shape[1])
    cpu_library.call(
        "style_grad",
        ds,
        dd,
        s,
        d,
        affine,
        squares,
        dw,
        len(s),
        affine.shape[1],
        len(affine),
        0 if squares is None else len(squares),
    )
    return dw


def _differentiated(plain: Callable[..., Tensor], inputs: Sequence, wanted, dy: Tensor) -> list:
    """Gradients of the inputs by the plain form, with a graph of their own."""
    with torch.enable_grad():
        asked = [t for t, want in zip(inputs, wanted) if want]
        found = iter(torch.autograd.grad(plain(*inputs), asked, dy, create_graph=True))
    return [next(found) if want else None for want in wanted]


class _StyledConv(Function):
    @staticmethod
    def forward(ctx, x, w, noise, layer, plain):
        s, d = _style(w, layer)
        scaled = cpu_library.empty(x)
        cpu_library.call(
            "styled", x, s, None, 1, 0.0, None, 1.0, 1.0, scaled, *cpu_library.sizes(x)
        )
        if layer.fir is None:
            v = F.conv2d(scaled, layer.weight, padding=layer.weight.shape[2] // 2)
        else:
            v = F.conv_transpose2d(scaled, layer.weight, stride=2)
            v = by_kernel(v, layer.fir, 1, 1, PADDING, GAIN, False)
        v = cpu_library.dense(v)
        y = cpu_library.empty(v)
        cpu_library.call(
            "styled",
            v,
            d,
            noise,
            len(noise),
            layer.strength,
            layer.bias,
            layer.slope,
            layer.gain,
            y,
            *cpu_library.sizes(v),
        )
        ctx.save_for_backward(x, w, noise, s, d, v, y)
        ctx.given = layer, plain
        return y

    @staticmethod
    def backward(ctx, dy):
        x, w, noise, s, d, v, y = ctx.saved_tensors
        layer, plain = ctx.given
        wanted = to_x, to_w, to_noise = ctx.needs_input_grad[:3]
        if torch.is_grad_enabled():
            return *_differentiated(plain, (x, w, noise), wanted, dy), None, None
        dv, total = cpu_library.empty(v), None
        dd = torch.empty_like(d) if to_w and d is not None else None
        if to_noise:
            total = noise.new_empty(len(v), 1, *v.shape[2:])
        cpu_library.call(
            "styled_grad",
            cpu_library.dense(dy),
            y,
            v,
            d,
            layer.slope,
            layer.gain,
            dv,
            dd,
            total,
            None,
            *cpu_library.sizes(v),
        )
        if total is not None:
            total = total.mul_(layer.strength)
            total = total if len(noise) == len(v) else total.sum(0, keepdim=True)
        if not (to_x or to_w):
            return None, None, total, None, None
        if layer.fir is None:
            dm = to_input(dv, layer.weight, x, layer.weight.shape[2] // 2)
        else:
            sizes = [2 * n + 1 for n in x.shape[2:]]
            before = adjoint_padding(1, 1, PADDING, len(layer.fir), sizes, v.shape[2:])
            dm = by_kernel(dv, layer.fir, 1, 1, before, GAIN, True)
            dm = F.conv2d(dm, layer.weight, stride=2)
        dx = cpu_library.empty(x) if to_x else None
        ds = torch.empty_like(s) if to_w else None  # needed for dw alone
        cpu_library.call(
            "styled_grad",
            cpu_library.dense(dm),
            None,
            x,
            s,
            1.0,
            1.0,
            dx,
            ds,
            None,
            None,
            *cpu_library.sizes(x),
        )
        dw = None if ds is None else _style_gradient(ds, dd, s, d, layer)
        return dx, dw, total, None, None


class _ToRGB(Function):
    @staticmethod
    def forward(ctx, x, w, skip, layer, plain):
        s, _ = _style(w, layer)
        count = len(layer.bias)
        y = torch.empty((len(x), count, *x.shape[2:]), memory_format=torch.channels_last)
        cpu_library.call(
            "to_rgb", x, s, layer.weight, layer.bias, skip, y, *cpu_library.sizes(x), count
        )
        ctx.save_for_backward(x, w, skip, s)
        ctx.given = layer, plain
        return y

    @staticmethod
    def backward(ctx, dy):
        x, w, skip, s = ctx.saved_tensors
        layer, plain = ctx.given
        wanted = to_x, to_w, to_skip = ctx.needs_input_grad[:3]
        if torch.is_grad_enabled():
            return *_differentiated(plain, (x, w, skip), wanted, dy), None, None
        if not (to_x or to_w):
            return None, None, dy, None, None
        dy, dx, ds = cpu_library.dense(dy), cpu_library.empty(x), torch.empty_like(s)
        cpu_library.call(
            "to_rgb_grad", x, dy, s, layer.weight, dx, ds, *cpu_library.sizes(x), len(layer.bias)
        )
        dw = _style_gradient(ds, None, s, None, layer) if to_w else None
        return dx if to_x else None, dw, dy if to_skip else None, None, None
