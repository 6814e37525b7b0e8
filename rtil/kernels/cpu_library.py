"""The CPU's kernels: loading them, and giving a kernel its first and second gradient.

Lives here: what rtil.kernels.dispatch is for GPUs. The kernels (cuda_ops/cpu_ops.cpp) take float32
or bfloat16 feature maps with channels innermost, and everything else (factors, biases, noise and
their gradients) in float32; what does not fit takes the PyTorch form. They compute in float32 and
round once, to the maps' type. Results differ from that form by rounding only, and depend neither
on the number of threads nor on the batch.
"""

from __future__ import annotations

import ctypes
import math
import warnings
from collections.abc import Callable, Iterator, Sequence
from ctypes import CFUNCTYPE, c_float, c_int64, c_void_p
from functools import cache

import torch
from torch import Tensor
from torch.autograd import Function, forward_ad

from rtil.kernels import dispatch

SIGNATURES = {
    "styled": "pppnfpffpnnn",
    "styled_grad": "ppppffppppnnn",
    "style": "pnpppfppnnnn",
    "style_grad": "pppppppnnnn",
    "to_rgb": "ppppppnnnn",
    "to_rgb_grad": "ppppppnnnn",
    "norm_act": "pffpnn",
    "norm_act_grad": "ppffpnn",
    "norm_act_second": "pppffppnn",
    "upfirdn2d": "ppnnnnnnfpnnnnnn",
}
TYPES = {"p": c_void_p, "n": c_int64, "f": c_float}
Kernels = dict[tuple[str, torch.dtype], Callable[..., None]]
MAPS = (torch.float32, torch.bfloat16)  # in the order of RTIL_EXPORT


@cache
def library() -> Kernels | RuntimeError:
    """The kernel of each name and type of maps, or why there are none; then with one warning."""
    # Imported late: nothing of the build is needed where only GPUs compute.
    from rtil.kernels.build import BuildError, build_cpu

    try:
        binary = ctypes.CDLL(str(build_cpu()))
        functions: Kernels = {}
        for name, letters in SIGNATURES.items():
            kind = CFUNCTYPE(None, *(TYPES[letter] for letter in letters))
            addresses = (c_void_p * len(MAPS)).in_dll(binary, f"rtil_cpu_{name}")
            for dtype, address in zip(MAPS, addresses):
                functions[name, dtype] = kind(address)
        return functions
    except (BuildError, OSError) as error:
        warnings.warn(
            f"rtil.kernels: using the slower PyTorch form between convolutions: {error}\n"
            "`python -m rtil.kernels.build` prints a diagnosis; "
            "hardware.ops=reference silences this.",
            stacklevel=2,
        )
        return RuntimeError(str(error))


def serves(x: Tensor, impl: str | None = None, others: Sequence[Tensor | None] = ()) -> bool:
    """Whether the kernels compute on x: float32 or bfloat16, (B, C) or channels innermost.

    Args:
        others: what comes with x and is no feature map: float32, or None.
    """
    if x.dtype not in MAPS or x.device.type != "cpu" or dispatch.chosen(impl) != "auto":
        return False
    if any(t is not None and t.dtype != torch.float32 for t in others):
        return False
    order = torch.channels_last if x.ndim == 4 else torch.contiguous_format
    if x.ndim not in (2, 4) or not x.is_contiguous(memory_format=order) or x.numel() == 0:
        return False
    return plain_autograd("cpu") and not isinstance(library(), RuntimeError)


def plain_autograd(device_type: str) -> bool:
    """Whether nothing but autograd looks on: transforms see through PyTorch's own operators only.

    That is: no torch.func, no forward-mode differentiation, no torch.compile, no autocast.
    """
    return not (
        torch._C._functorch.peek_interpreter_stack() is not None
        or forward_ad._current_level >= 0
        or torch.compiler.is_compiling()
        or torch.is_autocast_enabled(device_type)
    )


def call(name: str, x: Tensor, *arguments: object) -> None:
    """Calls a kernel for the type of its first argument, a map.

    Tensors go by address, None as a null pointer.
    """
    functions = library()
    assert not isinstance(functions, RuntimeError), "`serves` says whether there are kernels"
    raw = [a.data_ptr() if isinstance(a, Tensor) else a for a in arguments]
    functions[name, x.dtype](x.data_ptr(), *raw)


def dense(x: Tensor) -> Tensor:
    """x in the memory order of the kernels."""
    return x.contiguous(memory_format=torch.channels_last) if x.ndim == 4 else x.contiguous()


def empty(x: Tensor) -> Tensor:
    """A tensor of x's shape in the memory order of the kernels."""
    layout = torch.channels_last if x.ndim == 4 else torch.contiguous_format
    return torch.empty_like(x, memory_format=layout)


def sizes(x: Tensor) -> tuple[int, int, int]:
    """(batch, pixels, channels)."""
    return x.shape[0], math.prod(x.shape[2:]), x.shape[1]


def differentiable(
    value: Callable[..., Tensor],
    gradient: Callable[..., Sequence[Tensor | None]],
    formula: Callable[..., Sequence[Tensor | None]],
    kept: Sequence[bool] | None = None,
    second: Callable[..., Sequence[Tensor | None]] | None = None,
) -> Callable[..., Tensor]:
    """Makes a kernel a function that can be differentiated twice.

    Args:
        value: (settings, *inputs) -> y; inputs are tensors or None.
        gradient: (settings, wanted, dy, y, *inputs) -> the gradient of each input, None where
            wanted[i] is false: the kernel.
        formula: the same in plain PyTorch, correct as a function of dy and the inputs for y held
            constant; it is what a second gradient differentiates, in float32.
        kept: inputs that gradients need; the others arrive there as None. None: all.
        second: (settings, dy, y, *inputs, *cotangents of the gradients) -> gradients of dy and of
            the inputs, by a kernel; None differentiates the formula.

    Returns:
        (settings, *inputs) -> y.
    """

    class Value(Function):
        @staticmethod
        def forward(ctx, settings, *inputs):
            y = value(settings, *inputs)
            ctx.settings = settings
            if kept is not None:
                inputs = tuple(t if keep else None for t, keep in zip(inputs, kept))
            ctx.save_for_backward(y, *inputs)
            return y

        @staticmethod
        def backward(ctx, dy):
            wanted = ctx.needs_input_grad[1:]
            if torch.is_grad_enabled():
                return None, *Gradient.apply(ctx.settings, wanted, dy, *ctx.saved_tensors)
            return None, *gradient(ctx.settings, wanted, dense(dy), *ctx.saved_tensors)

    class Gradient(Function):
        @staticmethod
        def forward(ctx, settings, wanted, dy, y, *inputs):
            ctx.given = settings, wanted
            ctx.set_materialize_grads(False)
            ctx.save_for_backward(dy, y, *inputs)
            return tuple(gradient(settings, wanted, dense(dy), y, *inputs))

        @staticmethod
        @torch.autograd.function.once_differentiable
        def backward(ctx, *seconds):
            settings, wanted = ctx.given
            dy, y, *inputs = ctx.saved_tensors
            if second is not None:
                cotangents = [v if v is None else dense(v) for v in seconds]
                d_dy, *rest = second(settings, dense(dy), y, *inputs, *cotangents)
                return None, None, d_dy, None, *rest
            # dy and the inputs; y is a constant of the formula.
            asked = (ctx.needs_input_grad[2], *ctx.needs_input_grad[4:])
            with torch.enable_grad():
                leaves = [
                    t if t is None else t.detach().float().requires_grad_(need)
                    for t, need in zip((dy, *inputs), asked)
                ]
                first = formula(settings, wanted, leaves[0], y.float(), *leaves[1:])
                pairs = [
                    (g, dd.float())
                    for g, dd in zip(first, seconds)
                    if dd is not None and g is not None
                ]
                pairs = [(g, dd) for g, dd in pairs if g.requires_grad]
            gradients: Iterator[Tensor | None] = iter(())
            if pairs:
                grads, ups = zip(*pairs)
                leaf = [t for t, need in zip(leaves, asked) if t is not None and need]
                gradients = iter(torch.autograd.grad(grads, leaf, ups, allow_unused=True))
            d_dy, *rest = (next(gradients, None) if need else None for need in asked)
            return None, None, d_dy, None, *rest

    def apply(settings: tuple, *inputs: Tensor | None) -> Tensor:
        if torch.is_grad_enabled() and any(t is not None and t.requires_grad for t in inputs):
            return Value.apply(settings, *inputs)
        return value(settings, *inputs)

    return apply
