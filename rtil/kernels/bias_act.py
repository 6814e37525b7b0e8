"""Bias, activation, gain and clamp in one call (Karras et al. 2020, the epilogue of StyleGAN2).

Lives here: the public function, its plain PyTorch definition, and the custom operators around the
CUDA kernels. Every generator and discriminator goes through it.

    y = clamp(gain * act(x + b), -clamp, clamp),   act(v) = v for v > 0, slope * v otherwise
    dy/dx = g(y) = 0 where |y| >= clamp, else gain for y > 0 and gain * slope otherwise

The derivative needs y alone, is constant between its jumps, and so the operators form a closed
set: `bias_act` has the gradient `bias_act_grad`, (dx, db) = (g dy, sum dx), whose gradient is
`bias_act_grad_grad`, ddy = g (ddx + ddb), whose gradient is `bias_act_grad` again.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from rtil.kernels import cpu_library, dispatch

SQRT2 = math.sqrt(2.0)
NARROW = (torch.bfloat16, torch.float16)


def bias_act(
    x: Tensor,
    b: Tensor | None = None,
    slope: float = 0.2,
    gain: float = SQRT2,
    dim: int = 1,
    clamp: float | None = None,
    impl: str | None = None,
) -> Tensor:
    """Computes y = clamp(gain * lrelu(x + b)), differentiable twice.

    Args:
        x: any shape, floating point.
        b: (x.shape[dim],) or None for no bias; x's dtype, float32 for a narrower x, or any inside
            autocast.
        slope: slope of the leaky ReLU for negative inputs, >= 0; 1 is the identity.
        gain: factor on the output, > 0; sqrt(2) keeps the second moment of a normal input.
        dim: dimension of x along which the bias runs.
        clamp: bound on |y|, > 0; None for none. The gradient is 0 where |y| reaches it.
        impl: auto, cuda or reference (rtil.kernels.dispatch); None for the default of set_impl.

    Returns:
        Tensor of x's shape and type.

    Raises:
        ValueError: the bias does not fit dimension `dim` of x; slope, gain or clamp out of range;
            impl=cuda for a CPU tensor.
        TypeError: x is not floating point, or the bias has another dtype.
    """
    if b is not None:
        b = _fitting(x, b, dim)
    if not x.is_floating_point():
        raise TypeError(
            f"bias_act: x of shape {tuple(x.shape)} is {x.dtype}; it must be floating point."
        )
    if not (slope >= 0 and gain > 0 and (clamp is None or clamp > 0)):
        raise ValueError(
            f"bias_act: slope={slope}, gain={gain}, clamp={clamp}; the gradient is recovered from "
            "the output's sign, which needs slope >= 0, gain > 0 and clamp > 0 or None."
        )
    if dispatch.kernels_serve(impl, x.device.type, x.device.index or 0, "bias_act"):
        b = None if b is None else b.to(x.dtype)
        return bias_act_op(x, b, slope, gain, dim, -1.0 if clamp is None else clamp)
    if dim % x.ndim == 1 and clamp is None and cpu_library.serves(x, impl, (b,)):
        return _on_cpu((slope, gain), x, b)
    return reference(x, b, slope, gain, dim, clamp).to(x.dtype)


def _fitting(x: Tensor, b: Tensor, dim: int) -> Tensor:
    """The bias in a dtype that may join x's, or an error that names both shapes."""
    if b.ndim != 1 or not -x.ndim <= dim < x.ndim or b.shape[0] != x.shape[dim]:
        allowed = (x.shape[dim],) if -x.ndim <= dim < x.ndim else "none"
        raise ValueError(
            f"bias_act: bias of shape {tuple(b.shape)} does not fit dimension {dim} of x "
            f"with shape {tuple(x.shape)}; it must have shape {allowed}."
        )
    if b.dtype == x.dtype or (b.dtype == torch.float32 and x.dtype in NARROW):
        return b
    if torch.is_autocast_enabled(x.device.type):
        return b.to(x.dtype)
    raise TypeError(
        f"bias_act: bias of shape {tuple(b.shape)} is {b.dtype}, x of shape {tuple(x.shape)} is "
        f"{x.dtype}; convert one, or run inside torch.autocast. A narrower x may have a float32 "
        "bias."
    )


def reference(
    x: Tensor, b: Tensor | None, slope: float, gain: float, dim: int, clamp: float | None
) -> Tensor:
    """The definition in plain PyTorch; autograd differentiates it."""
    if b is not None:
        x = x + _along(b, x.ndim, dim)
    if slope != 1.0:
        x = F.leaky_relu(x, slope)
    if gain != 1.0:
        x = x * gain
    return x if clamp is None else x.clamp(-clamp, clamp)


def _along(b: Tensor, ndim: int, dim: int) -> Tensor:
    return b.view([-1 if d == dim % ndim else 1 for d in range(ndim)])


def _layout(x: Tensor) -> torch.memory_format:
    """The dense memory order the kernels write: channels innermost if x has it so."""
    if x.is_contiguous() or x.ndim != 4:
        return torch.contiguous_format
    last = x.is_contiguous(memory_format=torch.channels_last)
    return torch.channels_last if last else torch.contiguous_format


def _launch(x: Tensor, b: Tensor | None, y: Tensor | None, dim: int, act: tuple) -> Tensor:
    """Runs the kernel: the value for y None, else (x + b) g(y)."""
    layout = _layout(x if y is None else y)
    x, out = x.contiguous(memory_format=layout), torch.empty_like(x, memory_format=layout)
    y = None if y is None else y.contiguous(memory_format=layout)
    inner, count = (1, 1) if b is None else (max(1, out.stride(dim)), max(1, out.shape[dim]))
    b = None if b is None else b.contiguous()
    dispatch.launch("bias_act", x, b, y, out, out.numel(), inner, count, *act)
    return out


def _slope_at(y: Tensor, slope: float, gain: float, clamp: float) -> Tensor:
    """g(y) in plain PyTorch."""
    # Plain numbers would make it float32, whatever y is.
    up, down = (torch.tensor(v, dtype=y.dtype, device=y.device) for v in (gain, gain * slope))
    g = torch.where(y > 0, up, down)
    # The bound in y's precision, or what was clamped in a half would seem to lie below it.
    return g if clamp < 0 else g * (y.abs() < torch.tensor(clamp, dtype=y.dtype)).to(y.dtype)


@torch.library.custom_op("rtil::bias_act", mutates_args=())
def bias_act_op(
    x: Tensor, b: Tensor | None, slope: float, gain: float, dim: int, clamp: float
) -> Tensor:
    """y of (x, b); clamp < 0 for none."""
    if x.is_cuda:
        return _launch(x, b, None, dim, (slope, gain, clamp))
    out = torch.empty_like(x, memory_format=_layout(x))
    return out.copy_(reference(x, b, slope, gain, dim, None if clamp < 0 else clamp))


@torch.library.custom_op("rtil::bias_act_grad", mutates_args=())
def bias_act_grad_op(
    dy: Tensor, y: Tensor, slope: float, gain: float, dim: int, clamp: float, bias: bool
) -> tuple[Tensor, Tensor]:
    """(dx, db) of dy; db is empty unless `bias`."""
    if dy.is_cuda:
        dx = _launch(dy, None, y, dim, (slope, gain, clamp))
    else:
        dx = torch.empty_like(dy, memory_format=_layout(y))
        dx.copy_(dy * _slope_at(y, slope, gain, clamp))
    if not bias:
        return dx, dx.new_empty(0)
    others = [d for d in range(dx.ndim) if d != dim % dx.ndim]
    return dx, dx.sum(others) if others else dx.clone()


@torch.library.custom_op("rtil::bias_act_grad_grad", mutates_args=())
def bias_act_grad_grad_op(
    ddx: Tensor, ddb: Tensor | None, y: Tensor, slope: float, gain: float, dim: int, clamp: float
) -> Tensor:
    """ddy = (ddx + ddb) g(y), the adjoint of bias_act_grad."""
    if ddx.is_cuda:
        return _launch(ddx, ddb, y, dim, (slope, gain, clamp))
    out = torch.empty_like(ddx, memory_format=_layout(y))
    total = ddx if ddb is None else ddx + _along(ddb, ddx.ndim, dim)
    return out.copy_(total * _slope_at(y, slope, gain, clamp))


@bias_act_op.register_fake
def _(x, b, slope, gain, dim, clamp):
    return torch.empty_like(x, memory_format=_layout(x))


@bias_act_grad_op.register_fake
def _(dy, y, slope, gain, dim, clamp, bias):
    dx = torch.empty_like(dy, memory_format=_layout(y))
    return dx, dx.new_empty(dx.shape[dim] if bias else 0)


@bias_act_grad_grad_op.register_fake
def _(ddx, ddb, y, slope, gain, dim, clamp):
    return torch.empty_like(ddx, memory_format=_layout(y))


def _cpu_value(settings: tuple, x: Tensor, b: Tensor | None) -> Tensor:
    y = cpu_library.empty(x)
    cpu_library.call("styled", x, None, None, 1, 0.0, b, *settings, y, *cpu_library.sizes(x))
    return y


def _cpu_gradient(settings: tuple, wanted, dy: Tensor, y: Tensor, x: None, b) -> list:
    dx, db = cpu_library.empty(y), torch.empty_like(b) if wanted[1] else None
    cpu_library.call(
        "styled_grad", dy, y, None, None, *settings, dx, None, None, db, *cpu_library.sizes(y)
    )
    return [dx, db]


def _cpu_formula(settings: tuple[float, float], wanted, dy: Tensor, y: Tensor, x: None, b) -> list:
    dx = dy * _slope_at(y, *settings, -1.0)
    others = [d for d in range(dx.ndim) if d != 1]
    return [dx, dx.sum(others) if wanted[1] else None]


_on_cpu = cpu_library.differentiable(_cpu_value, _cpu_gradient, _cpu_formula, kept=(False, True))


def _keep_output(ctx, inputs, output):
    _, b, *ctx.act = inputs
    ctx.bias = b is not None
    ctx.save_for_backward(output)


def _value_backward(ctx, dy):
    (y,) = ctx.saved_tensors
    dx, db = bias_act_grad_op(dy, y, *ctx.act, ctx.bias and ctx.needs_input_grad[1])
    return dx, db if ctx.bias and ctx.needs_input_grad[1] else None, None, None, None, None


def _keep_y_of_grad(ctx, inputs, output):
    _, y, *ctx.act, ctx.bias = inputs
    ctx.set_materialize_grads(False)
    ctx.save_for_backward(y)


def _grad_backward(ctx, ddx, ddb):
    (y,) = ctx.saved_tensors
    if not ctx.bias:
        ddb = None
    none = [None] * (len(ctx.act) + 2)
    if ddx is None and ddb is None:
        return None, *none
    ddx = torch.zeros_like(y) if ddx is None else ddx
    return bias_act_grad_grad_op(ddx, ddb, y, *ctx.act), *none


def _keep_y_of_grad_grad(ctx, inputs, output):
    _, ddb, y, *ctx.act = inputs
    ctx.bias = ddb is not None
    ctx.save_for_backward(y)


def _grad_grad_backward(ctx, grad):
    (y,) = ctx.saved_tensors
    d_ddx, d_ddb = bias_act_grad_op(grad, y, *ctx.act, ctx.bias)
    return d_ddx, d_ddb if ctx.bias else None, *[None] * (len(ctx.act) + 1)


bias_act_op.register_autograd(_value_backward, setup_context=_keep_output)
bias_act_grad_op.register_autograd(_grad_backward, setup_context=_keep_y_of_grad)
bias_act_grad_grad_op.register_autograd(_grad_grad_backward, setup_context=_keep_y_of_grad_grad)
