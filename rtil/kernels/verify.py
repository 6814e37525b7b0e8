"""Compares the CUDA kernels with their definition in float64, on the GPU that will run them.

A build is used only once it has passed here (rtil.kernels.acceptance). Value, gradient and
gradient of the gradient; random shapes, strides, layouts and dtypes. scripts/check_ops.py makes
many more of the same comparisons.
"""

from __future__ import annotations

import argparse
import sys

import torch
from torch import Tensor

from rtil.kernels import bias_act as ba
from rtil.kernels import dispatch
from rtil.kernels import upfirdn2d as ufd
from rtil.kernels.upfirdn2d import Axes

CASES_AT_FIRST_USE = 96

# Roundings to the dtype, relative to the largest value: its unit roundoff with room for the sum.
TOLERANCE = {
    torch.float64: 1e-12,
    torch.float32: 2e-6,
    torch.float16: 2e-3,
    torch.bfloat16: 1.6e-2,
}
DTYPES = list(TOLERANCE)
CASES = {"blur": (1, 1, (2, 1)), "up2": (2, 1, (2, 1)), "down2": (1, 2, (1, 1))}


class Checks:
    """Counts comparisons and keeps those that failed."""

    def __init__(self) -> None:
        self.done = 0
        self.failed: list[str] = []
        self.worst: dict[str, float] = {}

    def close(self, what: str, got: Tensor, want: Tensor, dtype: torch.dtype) -> None:
        """got equals the float64 want to the precision of dtype."""
        self.done += 1
        key = f"{' '.join(what.split(' ')[:2])} {str(dtype)[6:]}"
        error = torch.tensor(0.0)
        if want.numel():
            error = (got.double() - want).abs().max() / (1e-30 + want.abs().max().clamp_min(1e-2))
        self.worst[key] = max(self.worst.get(key, 0.0), float(error.nan_to_num(torch.inf)))
        if got.shape != want.shape or not float(error) <= TOLERANCE[dtype]:
            self.failed.append(f"{what}: relative error {float(error):.3g}")


def integer(low: int, high: int, rng: torch.Generator) -> int:
    return int(torch.randint(low, high, (), generator=rng))


def arrange(x: Tensor, kind: str) -> Tensor:
    """The same numbers dense, with channels innermost, misaligned, or strided."""
    if kind == "last" and x.ndim == 4:
        return x.contiguous(memory_format=torch.channels_last)
    if kind == "odd":
        return torch.cat([x.new_zeros(1), x.flatten()])[1:].view(x.shape)
    if kind == "strided" and x.ndim > 1:
        return x.transpose(0, -1).contiguous().transpose(0, -1)
    return x


def check_bias_act(checks: Checks, device: torch.device, rng: torch.Generator, count: int) -> None:
    """y against the definition in float64; both gradients against g(y) of the y that came out."""
    for i in range(count):
        dtype, kind = DTYPES[i % 4], ("dense", "last", "odd", "strided")[i // 4 % 4]
        shape = [integer(1, (9, 40, 33, 33)[d], rng) for d in range(integer(1, 5, rng))]
        if i % 19 == 0:
            shape[0] = 0
        dim = integer(0, len(shape), rng)
        slope, clamp = (0.2, 1.0, 0.0)[i % 3], (-1.0, 0.9, 0.1)[i % 5 % 3]
        x, dy, ddx = (
            arrange(torch.randn(shape, generator=rng).to(device, dtype), kind) for _ in range(3)
        )
        b, ddb = (torch.randn(shape[dim], generator=rng).to(device, dtype) for _ in range(2))
        act = slope, 1.4, dim, clamp
        name = f"bias_act {shape} dim={dim} {dtype} {kind} slope={slope} clamp={clamp}"
        leaves = [t.requires_grad_() for t in (x, b, dy)]
        y = ba.bias_act_op(x, b, *act)
        limit = None if clamp < 0 else clamp
        want = ba.reference(x.detach().double(), b.detach().double(), slope, 1.4, dim, limit)
        checks.close(f"value {name}", y.detach(), want, dtype)
        dx, db = torch.autograd.grad(y, leaves[:2], dy, create_graph=True)
        (ddy,) = torch.autograd.grad([dx, db], dy, [ddx, ddb])
        bound = limit and float(torch.tensor(limit, dtype=dtype))
        up, low = (torch.tensor(v, dtype=torch.float64, device=device) for v in (1.4, 1.4 * slope))
        g = torch.where(y > 0, up, low)
        g = g if bound is None else g * (y.abs() < bound)
        exact = dy.detach().double() * g
        others = [d for d in range(len(shape)) if d != dim]
        checks.close(f"gradient {name}", dx.detach(), exact, dtype)
        # A sum of rounded numbers: its error scales with what is summed, not with the sum.
        scale = exact.abs().sum(others).max().clamp_min(1e-2) if exact.numel() else 1.0
        summed = exact.sum(others) if others else exact
        checks.close(f"bias-gradient {name}", db.detach().double() / scale, summed / scale, dtype)
        total = ddx.detach().double() + ba._along(ddb.double(), len(shape), dim)
        checks.close(f"second-gradient {name}", ddy, total * g, dtype)


def random_axes(i: int, rng: torch.Generator) -> tuple[Axes, tuple[int, ...], list[int]]:
    """Settings, shape of the filter, shape of x; two of three are cases of the tiled kernels."""
    while True:
        high = (3, 40, 150, 150) if i % 2 else (3, 20, 70, 70)
        shape = [integer(1, h, rng) for h in high]
        if i % 4 == 0:
            shape = [shape[0], *(8 * (n // 8 + 1) for n in shape[1:])]
        padding = [integer(-3, 8, rng) for _ in range(4)]
        taps: tuple[int, ...] = (4,)
        if i % 3:
            up, down, _ = list(CASES.values())[integer(0, 3, rng)]
            axes = Axes.of((up, up), (down, down), padding)
        else:
            ups, downs = ([integer(1, 5, rng) for _ in range(2)] for _ in range(2))
            taps = tuple(integer(1, 9, rng) for _ in range(integer(1, 3, rng)))
            axes = Axes.of(ups, downs, padding)
        if min(axes.out(shape[2:], (taps[0], taps[-1]))) >= 1:
            return axes, taps, shape


def check_upfirdn2d(
    checks: Checks, device: torch.device, rng: torch.Generator, count: int
) -> None:
    """Against the reference in float64, and the general kernel against it beside the tiled one."""
    for i in range(count):
        axes, taps, shape = random_axes(i, rng)
        shape[0] = 0 if i % 23 == 0 else shape[0]
        dtype, kind = DTYPES[i % 4], ("dense", "last", "odd", "strided")[i // 4 % 4]
        f = torch.randn(taps, generator=rng).to(device)
        x = arrange(torch.randn(shape, generator=rng).to(device, dtype), kind).requires_grad_()
        settings = (f, *axes, 1.3, bool(i % 2))
        name = f"upfirdn2d {shape} taps={taps} {axes} {dtype} {kind}"
        y = ufd.upfirdn2d_op(x, *settings)
        dy = torch.randn(y.shape, generator=rng).to(device, dtype).requires_grad_()
        (dx,) = torch.autograd.grad(y, x, dy, create_graph=True)
        ddx = torch.randn(shape, generator=rng).to(device, dtype)
        (ddy,) = torch.autograd.grad(dx, dy, ddx)
        exact = x.detach().double().requires_grad_()
        want = ufd.reference(exact, f.double(), axes, 1.3, bool(i % 2))
        (want_dx,) = torch.autograd.grad(want, exact, dy.detach().double())
        want_ddy = ufd.reference(ddx.double(), f.double(), axes, 1.3, bool(i % 2))
        checks.close(f"value {name}", y.detach(), want.detach(), dtype)
        checks.close(f"gradient {name}", dx.detach(), want_dx, dtype)
        checks.close(f"second-gradient {name}", ddy, want_ddy, dtype)
        if device.type != "cpu":
            out = ufd._empty(x, f, axes)
            ufd.launch(x.detach(), f, out, axes, 1.3, bool(i % 2), general=True)
            checks.close(f"general {name}", out, want.detach(), dtype)


def poison_outputs(on: bool) -> None:
    """Fills fresh tensors with NaN, so that what a kernel leaves unwritten shows."""
    torch.use_deterministic_algorithms(on, warn_only=True)
    # A property of that module's own class, which its stubs do not know.
    torch.utils.deterministic.fill_uninitialized_memory = True  # type: ignore[attr-defined]


def main(argv: list[str] | None = None) -> int:
    """Checks a library on a device; prints the comparisons that failed, and exits 1 if any did."""
    parser = argparse.ArgumentParser(description="Check built kernels on one GPU.")
    parser.add_argument("library", help="shared library; - for the CPU path of the operators")
    parser.add_argument("index", type=int, help="CUDA device")
    args = parser.parse_args(argv)
    device = torch.device("cpu")
    if args.library != "-":
        device = torch.device("cuda", args.index)
        torch.cuda.set_device(device)
        dispatch.use_library(args.index, args.library)
    torch.backends.cudnn.allow_tf32 = False
    poison_outputs(True)
    checks, rng = Checks(), torch.Generator().manual_seed(0)
    check_bias_act(checks, device, rng, CASES_AT_FIRST_USE)
    check_upfirdn2d(checks, device, rng, CASES_AT_FIRST_USE)
    poison_outputs(False)
    print(f"{checks.done} comparisons, {len(checks.failed)} failed", *checks.failed[:5], sep="\n")
    return 1 if checks.failed else 0


if __name__ == "__main__":
    sys.exit(main())
