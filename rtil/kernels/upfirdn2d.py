"""Up-sampling, FIR filtering and down-sampling of images.

Per axis, y = decimate(pad(zero_insert(x)) * f): the definition of scipy.signal.upfirdn with
explicit padding. Lives here: the public function, its plain PyTorch definition, which inserts no
zeros (zero insertion followed by a filter is a transposed convolution), and the custom operator
around the CUDA kernels. Its gradient is upfirdn2d with up and down exchanged and f flipped.
"""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from rtil.kernels import cpu_library, dispatch

BINOMIAL = (1.0, 3.0, 3.0, 1.0)  # the filter of StyleGAN2 (Karras et al. 2020, App. B)
LARGEST = 2**31 - 1  # of an axis, before and after up-sampling: kernels count those in 32 bits


class Axes(NamedTuple):
    """up, down per axis and padding (before, after) of y, then of x."""

    up: tuple[int, int]
    down: tuple[int, int]
    padding: tuple[int, int, int, int]

    @classmethod
    def of(cls, up: Sequence[int], down: Sequence[int], padding: Sequence[int]) -> Axes:
        """From lists, as torch.library hands them over."""
        (up_y, up_x), (down_y, down_x), (top, bottom, left, right) = up, down, padding
        return cls((up_y, up_x), (down_y, down_x), (top, bottom, left, right))

    def out(self, shape: Sequence[int], taps: tuple[int, int]) -> list[int]:
        """Rows and columns that come of an image of `shape`."""
        return [
            (self.up[i] * shape[i] + sum(self.padding[2 * i : 2 * i + 2]) - taps[i])
            // self.down[i]
            + 1
            for i in (0, 1)
        ]


def fir(taps: tuple[float, ...] = BINOMIAL) -> Tensor:
    """Returns the 1-D filter with the given taps, scaled to sum 1, shape (len(taps),)."""
    f = torch.tensor(taps, dtype=torch.float32)
    return f / f.sum()


def upfirdn2d(
    x: Tensor,
    f: Tensor,
    up: int | tuple[int, int] = 1,
    down: int | tuple[int, int] = 1,
    padding: tuple[int, int] | tuple[tuple[int, int], tuple[int, int]] = (0, 0),
    gain: float = 1.0,
    flip: bool = False,
    impl: str | None = None,
) -> Tensor:
    """Inserts zeros, pads, filters with f and decimates, differentiable twice.

    Args:
        x: (B, C, H, W), floating point.
        f: (K,) taps of a separable filter, or (K_y, K_x). Each axis is convolved with f (in the
            sense of scipy.signal.upfirdn, so f is flipped against a correlation). The kernels
            hold it constant: where f needs a gradient, impl=auto takes the reference.
        up: zero-insertion factor; row i goes to row up * i of up * H rows. A pair is (y, x).
        down: keeps every down-th row and column. A pair is (y, x).
        padding: zeros (before, after) on each axis once the zeros are inserted; negative crops.
            A pair of pairs is (y, x).
        gain: factor on the output; up * up keeps the mean when up-sampling.
        flip: correlates with f instead of convolving.
        impl: auto, cuda or reference (rtil.kernels.dispatch); None for the default of set_impl.

    Returns:
        (B, C, H', W') with H' = (up * H + sum(padding) - K) // down + 1, in x's dtype and layout.

    Raises:
        ValueError: wrong rank or factors, an output without rows or columns, impl=cuda for a CPU
            tensor or for f that needs a gradient, an axis beyond 2^31 - 1.
        TypeError: x or f is not floating point.
    """
    if x.ndim != 4 or f.ndim not in (1, 2) or f.numel() == 0:
        raise ValueError(
            f"upfirdn2d: got x of shape {tuple(x.shape)} and f of shape {tuple(f.shape)}; "
            "x must be (B, C, H, W) and f (K,) or (K_y, K_x), not empty."
        )
    if not (x.is_floating_point() and f.is_floating_point()) or x.device != f.device:
        raise TypeError(
            f"upfirdn2d: x of shape {tuple(x.shape)} is {x.dtype} on {x.device}, f of shape "
            f"{tuple(f.shape)} is {f.dtype} on {f.device}; both must be floats on one device."
        )
    axes = Axes(_pair("up", up), _pair("down", down), _four(padding))
    out = axes.out(x.shape[2:], (f.shape[0], f.shape[-1]))
    if min(out) < 1:
        raise ValueError(
            f"upfirdn2d: x of shape {tuple(x.shape)} with up={up}, padding={padding}, a filter "
            f"of {' x '.join(map(str, f.shape))} taps and down={down} leaves {out[0]} x {out[1]} "
            "pixels."
        )
    if dispatch.kernels_serve(impl, x.device.type, x.device.index or 0, "upfirdn2d"):
        if not (f.requires_grad and torch.is_grad_enabled()):
            return upfirdn2d_op(x, f, *axes, gain, flip)
        if dispatch.chosen(impl) == "cuda":
            raise ValueError(
                f"upfirdn2d: f of shape {tuple(f.shape)} needs a gradient, which impl='cuda' does "
                "not compute; use impl='auto' or 'reference'."
            )
    square = f.ndim == 1 and axes.up[0] == axes.up[1] and axes.down[0] == axes.down[1]
    constant = not (f.requires_grad and torch.is_grad_enabled())
    if square and constant and cpu_library.serves(x, impl):
        return OnCPU.apply(x, f, *axes, gain, flip)
    return reference(x, f, axes, gain, flip)


def _pair(name: str, value: int | tuple[int, int]) -> tuple[int, int]:
    pair = (value, value) if isinstance(value, int) else tuple(value)
    if len(pair) != 2 or min(pair) < 1:
        raise ValueError(f"upfirdn2d: {name}={value} must be a positive integer or a (y, x) pair.")
    return pair


def _four(padding: tuple) -> tuple[int, int, int, int]:
    nested = (padding, padding) if all(isinstance(p, int) for p in padding) else padding
    if len(nested) != 2 or any(len(p) != 2 for p in nested):
        raise ValueError(
            f"upfirdn2d: padding={padding} must be (before, after) or a (y, x) pair of those."
        )
    return (*nested[0], *nested[1])


def reference(x: Tensor, f: Tensor, axes: Axes, gain: float, flip: bool) -> Tensor:
    """The definition in plain PyTorch, without inserted zeros; autograd differentiates it."""
    if torch.is_autocast_enabled(x.device.type):
        # Autocast would take convolutions, and so the result, to another dtype than x's.
        with torch.autocast(x.device.type, enabled=False):
            return reference(x, f, axes, gain, flip)
    f = f.to(x.dtype)
    f = f.flip(list(range(f.ndim))) if flip else f
    (uy, ux), (dy, dx), padding = axes
    if f.ndim == 2:
        return _filter(x, f * gain, *axes)
    blur = (uy, ux, dy, dx) == (1, 1, 1, 1) and f.shape[0] <= 4
    if blur and x.device.type == "cpu" and _layout(x) == torch.contiguous_format:
        # 16 products in one pass take 0.7 to 0.9 of the time of 4 in each of two; with channels
        # innermost it is two passes that take 0.4 to 0.7 (scripts/check_ops.py --cpu).
        return _filter(x, gain * f.outer(f), *axes)
    x = _filter(x, (f * gain)[:, None], (uy, 1), (dy, 1), (*padding[:2], 0, 0))
    return _filter(x, f[None], (1, ux), (1, dx), (0, 0, *padding[2:]))


def _filter(
    x: Tensor, f: Tensor, up: tuple[int, int], down: tuple[int, int], padding: tuple[int, ...]
) -> Tensor:
    """Both axes at once, f (K_y, K_x); an axis with one tap and unit factors is left alone."""
    kernel = f.expand(x.shape[1], 1, *f.shape)
    before, after = padding[::2], padding[1::2]
    if up == (1, 1):
        if min(padding) < 0 or before != after:
            x, before = _pad(x, padding), (0, 0)
        return F.conv2d(x, kernel.flip((2, 3)), stride=down, padding=before, groups=x.shape[1])
    # The full transposed convolution has up * (n - 1) + K rows and starts K - 1 rows before
    # the first fully covered one; what the padding asks for is cropped from or added to it.
    start = [f.shape[i] - 1 - before[i] for i in (0, 1)]
    end = [f.shape[i] - up[i] - after[i] for i in (0, 1)]
    if start == end and min(start) >= 0:
        x = F.conv_transpose2d(x, kernel, stride=up, padding=start, groups=x.shape[1])
    else:
        x = F.conv_transpose2d(x, kernel, stride=up, groups=x.shape[1])
        x = _pad(x, (-start[0], -end[0], -start[1], -end[1]))
    return x if down == (1, 1) else x[:, :, :: down[0], :: down[1]]


def _pad(x: Tensor, padding: tuple[int, ...]) -> Tensor:
    """Adds zeros at the ends of both axes, (y, y, x, x); negative numbers crop."""
    ends = (*padding[2:], *padding[:2])
    # Zeros first: one side may crop more than x has, as far as the other side's zeros reach.
    for part in ([max(0, n) for n in ends], [min(0, n) for n in ends]):
        if any(part):
            x = F.pad(x, part)
    return x


def _layout(x: Tensor) -> torch.memory_format:
    """Memory order of the output: channels innermost if x has it so."""
    if x.is_contiguous():
        return torch.contiguous_format
    last = x.is_contiguous(memory_format=torch.channels_last)
    return torch.channels_last if last else torch.contiguous_format


def _empty(x: Tensor, f: Tensor, axes: Axes) -> Tensor:
    shape = (*x.shape[:2], *axes.out(x.shape[2:], (f.shape[0], f.shape[-1])))
    return torch.empty(shape, dtype=x.dtype, device=x.device, memory_format=_layout(x))


@torch.library.custom_op("rtil::upfirdn2d", mutates_args=())
def upfirdn2d_op(
    x: Tensor,
    f: Tensor,
    up: Sequence[int],
    down: Sequence[int],
    padding: Sequence[int],
    gain: float,
    flip: bool,
) -> Tensor:
    """upfirdn2d with the settings of both axes spelt out; f is constant."""
    axes = Axes.of(up, down, padding)
    out = _empty(x, f, axes)
    if not x.is_cuda:
        return out.copy_(reference(x, f, axes, gain, flip))
    launch(x, f, out, axes, gain, flip)
    return out


def launch(
    x: Tensor, f: Tensor, out: Tensor, axes: Axes, gain: float, flip: bool, general: bool = False
) -> None:
    """Runs the kernel that fits, or the general one; fills `out`."""
    last = _layout(x) == torch.channels_last
    sizes = launch_sizes(x, f, out, axes, flip, last)
    f = f.to(torch.float64 if x.dtype == torch.float64 else torch.float32).contiguous()
    packed = (ctypes.c_int64 * len(sizes))(*sizes)
    dispatch.launch("upfirdn2d", x, f, out, packed, gain, int(general))


def launch_sizes(
    x: Tensor, f: Tensor, out: Tensor, axes: Axes, flip: bool, last: bool
) -> list[int]:
    """The sizes the launcher reads, in the order of `unpack` in cuda_ops/upfirdn2d.h."""
    sizes = [*x.shape[:2], f.ndim == 1, last, flip]
    for i, taps in enumerate((f.shape[0], f.shape[-1])):
        reach = max(axes.up[i] * x.shape[2 + i], axes.down[i] * out.shape[2 + i]) + taps
        if max(reach + abs(axes.padding[2 * i]), *x.shape) > LARGEST:
            raise ValueError(
                f"upfirdn2d: x of shape {tuple(x.shape)} with up={axes.up}, padding="
                f"{axes.padding} has an axis beyond {LARGEST}, which the kernels do not count."
            )
        sizes += [x.shape[2 + i], out.shape[2 + i], taps, axes.up[i], axes.down[i]]
        sizes.append(axes.padding[2 * i])
    return [*map(int, sizes), *x.stride()]


@upfirdn2d_op.register_fake
def _(x, f, up, down, padding, gain, flip):
    return _empty(x, f, Axes.of(up, down, padding))


def _setup(ctx, inputs, output):
    x, f, *ctx.settings = inputs
    ctx.sizes = x.shape[2:], output.shape[2:]
    ctx.save_for_backward(f)


def _backward(ctx, dy):
    (f,) = ctx.saved_tensors
    if ctx.needs_input_grad[1]:
        raise RuntimeError(
            "rtil::upfirdn2d holds its filter constant; call rtil.kernels.upfirdn2d."
        )
    up, down, padding, gain, flip = ctx.settings
    adjoint = _adjoint(up, down, padding, (f.shape[0], f.shape[-1]), *ctx.sizes)
    dx = upfirdn2d_op(dy, f, down, up, adjoint, gain, not flip)
    return dx, None, None, None, None, None, None


upfirdn2d_op.register_autograd(_backward, setup_context=_setup)


def _adjoint(up, down, padding, taps, size, size_out) -> list[int]:
    """The padding that makes upfirdn2d with up and down exchanged the adjoint."""
    adjoint = []
    for i in (0, 1):
        before = taps[i] - 1 - padding[2 * i]
        # What makes the adjoint's output exactly as long as the input.
        after = up[i] * (size[i] - 1) + taps[i] - down[i] * size_out[i] - before
        adjoint += [before, after]
    return adjoint


def by_kernel(
    x: Tensor, f: Tensor, up: int, down: int, padding: Sequence[int], gain: float, flip: bool
) -> Tensor:
    """upfirdn2d by the CPU's kernel, without a gradient.

    Args:
        x: (B, C, H, W) float32 or bfloat16 on the CPU. f: (K,). padding: of both axes, or of
            rows, then columns.
    """
    x, taps = cpu_library.dense(x), f.float().contiguous()
    above, below, left, right = padding if len(padding) == 4 else (*padding, *padding)
    rows = (up * x.shape[2] + above + below - len(f)) // down + 1
    columns = (up * x.shape[3] + left + right - len(f)) // down + 1
    shape = (*x.shape[:2], rows, columns)
    out = torch.empty(shape, dtype=x.dtype, memory_format=torch.channels_last)
    cpu_library.call(
        "upfirdn2d",
        x,
        taps,
        len(f),
        flip,
        up,
        down,
        above,
        left,
        gain,
        out,
        len(x),
        *x.shape[2:],
        rows,
        columns,
        x.shape[1],
    )
    return out


def adjoint_padding(
    up: int,
    down: int,
    padding: tuple[int, int],
    taps: int,
    size: Sequence[int],
    size_out: Sequence[int],
) -> list[int]:
    """Padding (rows, then columns) of the adjoint, which exchanges up and down and flips f.

    Args:
        padding: of both axes. size, size_out: rows and columns of x and of y.
    """
    both = (*padding, *padding)
    return _adjoint((up, up), (down, down), both, (taps, taps), size, size_out)


class OnCPU(torch.autograd.Function):
    """upfirdn2d by the CPU's kernel: f separable and constant, both axes alike."""

    @staticmethod
    def forward(ctx, x, f, up, down, padding, gain, flip):
        ctx.settings = f, up, down, padding, gain, flip
        out = by_kernel(x, f, up[0], down[0], padding, gain, flip)
        ctx.sizes = x.shape[2:], out.shape[2:]
        return out

    @staticmethod
    def backward(ctx, dy):
        f, up, down, padding, gain, flip = ctx.settings
        adjoint = _adjoint(up, down, padding, (len(f), len(f)), *ctx.sizes)
        dx = OnCPU.apply(dy, f, down, up, tuple(adjoint), gain, not flip)
        return dx, None, None, None, None, None, None
