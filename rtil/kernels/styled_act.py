"""What follows a modulated convolution, in one call, and the modulation itself.

    y = gain lrelu(d x + strength noise + b)        (Karras et al. 2020, Fig. 2c)
    x' = s x                                        (their eq. 1, on activations)

d and s scale the channels of each image. On the CPU both are one pass over memory, as are their
gradients (rtil.kernels.cpu_library); elsewhere the last step is bias_act.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from rtil.kernels import cpu_library
from rtil.kernels.bias_act import SQRT2, bias_act

EPS = 1e-8  # of the demodulation (the published code)


def styled_act(
    x: Tensor,
    d: Tensor | None,
    noise: Tensor,
    strength: Tensor,
    b: Tensor,
    slope: float = 0.2,
    gain: float = SQRT2,
) -> Tensor:
    """Computes gain lrelu(d x + strength noise + b), differentiable twice.

    Args:
        x: (B, C, H, W); may be narrower than the rest, which then is float32.
        d: (B, C) factor on every channel (demodulation), or None for 1.
        noise: (B or 1, 1, H, W).
        strength: () factor on the noise.
        b: (C,).
        slope: of the leaky ReLU, >= 0.
        gain: factor on the output, > 0.

    Returns:
        (B, C, H, W) in x's dtype, rounded to it once.
    """
    # Kernels get addresses alone: other shapes go through PyTorch, which broadcasts or refuses.
    fits = noise.shape in ((1, 1, *x.shape[2:]), (len(x), 1, *x.shape[2:]))
    fits = fits and b.shape == (x.shape[1],) and (d is None or d.shape == x.shape[:2])
    if fits and cpu_library.serves(x, others=(d, noise, strength, b)):
        return _styled((slope, gain), x, d, noise, strength, b)
    y = x if d is None else x * d[:, :, None, None]
    return bias_act(y + noise * strength, b, slope, gain).to(x.dtype)


def modulate(x: Tensor, s: Tensor) -> Tensor:
    """Scales every channel of x (B or 1, C, H, W) by s (B, C), differentiable twice.

    The result has x's dtype; s may be wider.
    """
    if x.shape[:2] == s.shape and cpu_library.serves(x, others=(s,)):
        return _modulate((), x, s)
    return (x * s[:, :, None, None]).to(x.dtype)


def demodulation(s: Tensor, squares: Tensor) -> Tensor:
    """d_o = (sum_i s_i^2 |W_oi|^2 + 1e-8)^(-1/2) (Karras et al. 2020, eq. 3).

    Args:
        s: (B, in).
        squares: (out, in), |W_oi|^2 summed over the taps of the kernel.

    Returns:
        (B, out).
    """
    return torch.rsqrt(F.linear(s * s, squares) + EPS)


def _styled_value(settings: tuple, x: Tensor, d, noise, strength, b) -> Tensor:
    y, noise = cpu_library.empty(x), noise.contiguous()
    d = None if d is None else d.contiguous()
    cpu_library.call(
        "styled", x, d, noise, len(noise), float(strength), b, *settings, y, *cpu_library.sizes(x)
    )
    return y


def _styled_gradient(settings: tuple, wanted, dy, y, x, d, noise, strength, b) -> list:
    to_x, to_d, to_noise, to_strength, to_b = wanted
    dx = cpu_library.empty(x) if to_x else None
    dd = torch.empty_like(d) if to_d else None
    d = None if d is None else d.contiguous()
    total = noise.new_empty(len(x), 1, *x.shape[2:]) if to_noise or to_strength else None
    db = torch.empty_like(b) if to_b else None
    cpu_library.call(
        "styled_grad", dy, y, x, d, *settings, dx, dd, total, db, *cpu_library.sizes(x)
    )
    return [dx, dd, *_noise(total, noise, strength, to_noise, to_strength), db]


def _styled_formula(settings: tuple, wanted, dy, y, x, d, noise, strength, b) -> list:
    to_x, to_d, to_noise, to_strength, to_b = wanted
    slope, gain = settings
    g = dy * torch.where(y > 0, gain, gain * slope).to(dy)
    dx = g if d is None else g * d[:, :, None, None]
    dd = (g * x).sum((2, 3)) if to_d else None
    total = g.sum(1, keepdim=True)
    db = g.sum((0, 2, 3)) if to_b else None
    return [dx if to_x else None, dd, *_noise(total, noise, strength, to_noise, to_strength), db]


def _noise(total: Tensor | None, noise: Tensor, strength: Tensor, to_noise, to_strength) -> list:
    """Gradients of noise and strength; total (B, 1, H, W) is the gradient of their product."""
    each = whole = None
    if total is not None and to_noise:
        each = total * strength
        # One map of noise for the batch collects the gradients of all images.
        each = each.sum(0, keepdim=True) if len(noise) == 1 else each
    if total is not None and to_strength:
        whole = (total * noise).sum()
    return [each, whole]


def _modulate_value(settings: tuple, x: Tensor, s: Tensor) -> Tensor:
    if x.dtype == s.dtype:
        return x * s[:, :, None, None]
    y = cpu_library.empty(x)
    cpu_library.call(
        "styled", x, s.contiguous(), None, 1, 0.0, None, 1.0, 1.0, y, *cpu_library.sizes(x)
    )
    return y


def _modulate_gradient(settings: tuple, wanted, dy, y, x, s) -> list:
    to_x, to_s = wanted
    dx = cpu_library.empty(x) if to_x else None
    ds = s.new_empty(s.shape) if to_s else None
    cpu_library.call(
        "styled_grad",
        dy,
        None,
        x,
        s.contiguous(),
        1.0,
        1.0,
        dx,
        ds,
        None,
        None,
        *cpu_library.sizes(x),
    )
    return [dx, ds]


def _modulate_formula(settings: tuple, wanted, dy, y, x, s) -> list:
    return [dy * s[:, :, None, None], (dy * x).sum((2, 3))]


_styled = cpu_library.differentiable(_styled_value, _styled_gradient, _styled_formula)
_modulate = cpu_library.differentiable(_modulate_value, _modulate_gradient, _modulate_formula)
