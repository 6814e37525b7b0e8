"""Checks the CUDA kernels against their float64 definition and times them; exits 1 on a failure.

    python scripts/check_ops.py --out ops.json      # on a machine with a GPU; also builds
    python scripts/check_ops.py --large             # with tensors beyond 2^31 numbers
    compute-sanitizer python scripts/check_ops.py --quick --no-times
    python scripts/check_ops.py --cpu               # rehearsal: the same checks of the CPU path

Value, gradient and gradient of the gradient; random shapes, strides, layouts and dtypes; every
fresh output is filled with NaN before the kernels write it. Times are medians, given as a
fraction of the bandwidth of a device copy and as ratios against the PyTorch form run beside it.
"""

from __future__ import annotations

import argparse
import json
import platform
import sys
import time
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from rtil.ops import bias_act as ba
from rtil.ops import build
from rtil.ops import upfirdn2d as ufd
from rtil.ops.upfirdn2d import Axes, fir

# Roundings to the dtype, relative to the largest value: its unit roundoff with room for the sum.
TOLERANCE = {
    torch.float64: 1e-12, torch.float32: 2e-6, torch.float16: 2e-3, torch.bfloat16: 1.6e-2
}
DTYPES = list(TOLERANCE)
CASES = {"blur": (1, 1, (2, 1)), "up2": (2, 1, (2, 1)), "down2": (1, 2, (1, 1))}


class Checks:
    """Counts comparisons and keeps those that failed."""

    def __init__(self) -> None:
        self.done, self.failed, self.worst = 0, [], {}

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


def check_bias_act(checks: Checks, device: str, rng: torch.Generator, count: int) -> None:
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
        padding = tuple(integer(-3, 8, rng) for _ in range(4))
        if i % 3:
            up, down, _ = list(CASES.values())[integer(0, 3, rng)]
            axes, taps = Axes((up, up), (down, down), padding), (4,)
        else:
            up, down = (tuple(integer(1, 5, rng) for _ in range(2)) for _ in range(2))
            taps = tuple(integer(1, 9, rng) for _ in range(integer(1, 3, rng)))
            axes = Axes(up, down, padding)
        if min(axes.out(shape[2:], (taps[0], taps[-1]))) >= 1:
            return axes, taps, shape


def check_upfirdn2d(checks: Checks, device: str, rng: torch.Generator, count: int) -> None:
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
        if device != "cpu":
            out = ufd._empty(x, f, axes)
            ufd.launch(x.detach(), f, out, axes, 1.3, bool(i % 2), general=True)
            checks.close(f"general {name}", out, want.detach(), dtype)


def check_large(checks: Checks, device: str) -> None:
    """Tensors beyond 2^31 numbers, compared at both ends (needs about 14 GB)."""
    for layout in (torch.contiguous_format, torch.channels_last):
        x = torch.empty((2080, 64, 128, 130), dtype=torch.bfloat16, device=device)
        x = x.contiguous(memory_format=layout).normal_()
        y = ba.bias_act_op(x, None, 0.2, 1.4, 1, -1.0)
        z = ufd.upfirdn2d_op(x, fir().to(device), (1, 1), (1, 1), (2, 1, 2, 1), 1.0, False)
        for part in (slice(0, 2), slice(2078, 2080)):
            some = x[part].double()
            want = ba.reference(some, None, 0.2, 1.4, 1, None)
            checks.close(f"large bias_act {layout}", y[part], want, x.dtype)
            axes = Axes((1, 1), (1, 1), (2, 1, 2, 1))
            want = ufd.reference(some, fir().to(device).double(), axes, 1.0, False)
            checks.close(f"large upfirdn2d {layout}", z[part], want, x.dtype)
        del x, y, z


def check_compile(checks: Checks, device: str) -> None:
    """One graph, without a break, of both operators and their gradients."""

    def block(x: Tensor, b: Tensor, f: Tensor) -> Tensor:
        y = ba.bias_act(ufd.upfirdn2d(x, f, up=2, padding=(2, 1), gain=4.0), b, clamp=2.0)
        return ufd.upfirdn2d(y, f, down=2, padding=(1, 1))

    x = torch.randn(2, 16, 32, 32, device=device, requires_grad=True)
    b, f = torch.randn(16, device=device), fir().to(device)
    backend = "aot_eager" if device == "cpu" else "inductor"
    y, want = torch.compile(block, fullgraph=True, backend=backend)(x, b, f), block(x, b, f)
    checks.close("compile value", y.detach(), want.detach().double(), x.dtype)
    (dx,), (want,) = (torch.autograd.grad(v.square().sum(), x) for v in (y, want))
    checks.close("compile gradient", dx, want.double(), x.dtype)


def seconds(call: Callable[[], object], device: str, repeats: int) -> float:
    """Median time of a call."""
    for _ in range(3):
        call()
    times = []
    for _ in range(repeats):
        if device == "cpu":
            began = time.perf_counter()
            call()
            times.append(time.perf_counter() - began)
        else:
            start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
            start.record()
            call()
            end.record()
            end.synchronize()
            times.append(start.elapsed_time(end) / 1e3)
    return sorted(times)[len(times) // 2]


def zero_insert(x: Tensor, f: Tensor, up: int, down: int, padding: tuple, gain: float) -> Tensor:
    """The straightforward form: zeros in memory, one 2-D convolution, decimation by stride."""
    B, C, H, W = x.shape
    spread = x.new_zeros(B, C, H, up, W, up)
    spread[:, :, :, 0, :, 0] = x
    spread = F.pad(spread.view(B, C, H * up, W * up), (*padding, *padding))
    kernel = (gain * f.outer(f)).flip((0, 1)).expand(C, 1, -1, -1)
    return F.conv2d(spread, kernel, stride=down, groups=C)


def measured(call: Callable, plain: Callable, x: Tensor, device: str) -> dict[str, float]:
    """Times of the kernel, of its reference, of that compiled, and the share of copy bandwidth."""
    ours, reference = seconds(call, device, 50), seconds(plain, device, 50)
    torch._dynamo.reset()
    compiled = seconds(torch.compile(plain, dynamic=False), device, 50)
    out = call()
    moved = sum(t.numel() * t.element_size() for t in (x, out))
    both = torch.empty(moved // 2, dtype=torch.uint8, device=device)
    to = torch.empty_like(both)
    copy = seconds(lambda: to.copy_(both), device, 50)
    return {"seconds": ours, "share_of_copy_bandwidth": copy / ours,
            "reference_over_ours": reference / ours, "compiled_over_ours": compiled / ours,
            "goal_met": copy / ours >= 0.85 and compiled >= ours}


def times_cuda(quick: bool) -> list[dict[str, object]]:
    """Every operator at StyleGAN2's sizes for 256 x 256 images, batch 8."""
    rows = []
    for channels, side in [(512, 32), (128, 256)] if quick else [
        (512, 16), (512, 32), (512, 64), (256, 128), (128, 256), (3, 256)
    ]:
        for dtype in (torch.float32, torch.float16):
            for layout in (torch.contiguous_format, torch.channels_last):
                x = torch.randn(8, channels, side, side, device="cuda").to(dtype)
                x = x.contiguous(memory_format=layout)
                b, f = torch.randn(channels, device="cuda").to(dtype), fir().cuda()
                act = 0.2, ba.SQRT2, 1
                calls = {"bias_act": (
                    lambda: ba.bias_act_op(x, b, *act, -1.0),  # noqa: B023
                    lambda: ba.reference(x, b, *act, None),  # noqa: B023
                )}
                for name, (up, down, padding) in CASES.items():
                    axes = Axes((up, up), (down, down), padding * 2)
                    calls[name] = (
                        lambda a=axes: ufd.upfirdn2d_op(x, f, *a, 1.0, False),  # noqa: B023
                        lambda a=axes: ufd.reference(x, f, a, 1.0, False),  # noqa: B023
                    )
                for name, pair in calls.items():
                    row = {"op": name, "shape": list(x.shape), "dtype": str(dtype),
                           "layout": str(layout), **measured(*pair, x, "cuda")}
                    rows.append(row)
                    print(json.dumps(row), flush=True)
    return rows


def times_cpu(quick: bool) -> list[dict[str, object]]:
    """The CPU path against the zero-inserting form, forward and forward with backward."""
    rows = []
    for channels, side in [(32, 32)] if quick else [(64, 16), (32, 32), (16, 64), (64, 128)]:
        for layout in (torch.contiguous_format, torch.channels_last):
            x = torch.randn(16, channels, side, side).contiguous(memory_format=layout)
            f, g = fir(), x.clone().requires_grad_()
            for name, (up, down, padding) in CASES.items():
                axes = Axes((up, up), (down, down), padding * 2)

                def ours(x, axes=axes, f=f):
                    return ufd.reference(x, f, axes, 1.0, False)

                def plain(x, f=f, up=up, down=down, padding=padding):
                    return zero_insert(x, f, up, down, padding, 1.0)

                both = [
                    [seconds(lambda: c(x), "cpu", 7),  # noqa: B023
                     seconds(lambda: c(g).sum().backward(), "cpu", 7)]  # noqa: B023
                    for c in (ours, plain)
                ]
                rows.append({
                    "op": name, "shape": list(x.shape), "layout": str(layout),
                    "seconds": both[0][0], "zero_insert_over_ours": both[1][0] / both[0][0],
                    "with_backward_zero_insert_over_ours": both[1][1] / both[0][1],
                })
                print(json.dumps(rows[-1]), flush=True)
    return rows


def main() -> int:
    """Runs the checks, then the times; writes one JSON file."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--cpu", action="store_true", help="rehearse on the CPU path")
    parser.add_argument("--large", action="store_true", help="tensors beyond 2^31 numbers")
    parser.add_argument("--quick", action="store_true", help="fewer cases and sizes")
    parser.add_argument("--no-times", action="store_true", help="checks only")
    parser.add_argument("--out", help="JSON file to write")
    args = parser.parse_args()
    device = "cpu" if args.cpu else "cuda"
    print("\n".join(build.diagnosis()))
    if device == "cuda" and not torch.cuda.is_available():
        print("no GPU here: nothing is checked; --cpu rehearses on the CPU path")
        return 1
    # Fresh tensors are NaN: what a kernel leaves unwritten shows.
    torch.use_deterministic_algorithms(True, warn_only=True)
    torch.utils.deterministic.fill_uninitialized_memory = True
    torch.backends.cudnn.allow_tf32 = False
    checks, rng = Checks(), torch.Generator().manual_seed(0)
    count = 120 if args.quick else 600
    check_bias_act(checks, device, rng, count)
    check_upfirdn2d(checks, device, rng, count)
    check_compile(checks, device)
    if args.large:
        check_large(checks, device)
    torch.use_deterministic_algorithms(False)
    print(f"{checks.done} comparisons, {len(checks.failed)} failed", *checks.failed[:20], sep="\n")
    rows = []
    if not args.no_times:
        rows = times_cpu(args.quick) if args.cpu else times_cuda(args.quick)
    name = torch.cuda.get_device_name() if device == "cuda" else platform.machine()
    record = {"device": name, "torch": torch.__version__, "threads": torch.get_num_threads(),
              "comparisons": checks.done, "failed": checks.failed, "worst": checks.worst,
              "times": rows}
    if args.out:
        with open(args.out, "w") as file:
            json.dump(record, file, indent=1)
    return 1 if checks.failed else 0


if __name__ == "__main__":
    sys.exit(main())
