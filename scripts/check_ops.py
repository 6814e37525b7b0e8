"""Checks the CUDA kernels against their float64 definition and times them; exits 1 on a failure.

    python scripts/check_ops.py --out ops.json      # on a machine with a GPU; also builds
    python scripts/check_ops.py --large             # with tensors beyond 2^31 numbers
    compute-sanitizer python scripts/check_ops.py --quick --no-times
    python scripts/check_ops.py --cpu               # rehearsal: the same checks of the CPU path

The comparisons are those of rtil.kernels.verify, in greater number: value, gradient and gradient
of the gradient; random shapes, strides, layouts and dtypes; every fresh output is filled with NaN
before the kernels write it. Times are medians, given as a fraction of the bandwidth of a device
copy and as ratios against the PyTorch form run beside it.
"""

from __future__ import annotations

import argparse
import json
import platform
import sys
import time
from collections.abc import Callable
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor

from rtil.kernels import bias_act as ba
from rtil.kernels import build, dispatch
from rtil.kernels import upfirdn2d as ufd
from rtil.kernels.upfirdn2d import Axes, fir
from rtil.kernels.verify import CASES, Checks, check_bias_act, check_upfirdn2d, poison_outputs
from rtil.process import replay

TOGETHER = 10  # calls of a recording


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
    """Median time of a call; on a GPU of one among TOGETHER that a CUDA graph starts at once.

    Started one by one from Python, small kernels would be timed by how long starting them takes.
    """
    for _ in range(3):
        call()
    times = []
    if device == "cpu":
        for _ in range(repeats):
            began = time.perf_counter()
            call()
            times.append(time.perf_counter() - began)
        return sorted(times)[len(times) // 2]
    torch.cuda.synchronize()
    graph, _ = replay.recorded(lambda: [call() for _ in range(TOGETHER)][:0], torch.cuda.Stream())
    start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    for _ in range(repeats):
        start.record()
        graph.replay()
        end.record()
        end.synchronize()
        times.append(start.elapsed_time(end) / 1e3 / TOGETHER)
    return sorted(times)[len(times) // 2]


def zero_insert(x: Tensor, f: Tensor, up: int, down: int, padding: tuple, gain: float) -> Tensor:
    """The straightforward form: zeros in memory, one 2-D convolution, decimation by stride."""
    B, C, H, W = x.shape
    spread = x.new_zeros(B, C, H, up, W, up)
    spread[:, :, :, 0, :, 0] = x
    spread = F.pad(spread.view(B, C, H * up, W * up), (*padding, *padding))
    kernel = (gain * f.outer(f)).flip((0, 1)).expand(C, 1, -1, -1)
    return F.conv2d(spread, kernel, stride=down, groups=C)


def measured(
    call: Callable, plain: Callable, x: Tensor, device: str, compiles: bool
) -> dict[str, float]:
    """Times of the kernel, of its reference, of that compiled, and the share of copy bandwidth."""
    ours, reference = seconds(call, device, 50), seconds(plain, device, 50)
    compiled = float("nan")
    if compiles:
        torch._dynamo.reset()
        compiled = seconds(torch.compile(plain, dynamic=False), device, 50)
    out = call()
    moved = sum(t.numel() * t.element_size() for t in (x, out))
    both = torch.empty(moved // 2, dtype=torch.uint8, device=device)
    to = torch.empty_like(both)
    copy = seconds(lambda: to.copy_(both), device, 50)
    return {
        "seconds": ours,
        "share_of_copy_bandwidth": copy / ours,
        "reference_over_ours": reference / ours,
        "compiled_over_ours": compiled / ours,
        "goal_met": copy / ours >= 0.85 and not compiled < ours,
    }


def times_cuda(quick: bool) -> list[dict[str, object]]:
    """Every operator at StyleGAN2's sizes for 256 x 256 images, batch 8.

    With `quick` few of them, and torch.compile, which takes seconds each, at the largest alone.
    """
    rows = []
    for channels, side in (
        [(512, 32), (128, 256)]
        if quick
        else [(512, 16), (512, 32), (512, 64), (256, 128), (128, 256), (3, 256)]
    ):
        for dtype in (torch.float32, torch.float16):
            for layout in (torch.contiguous_format, torch.channels_last):
                x = torch.randn(8, channels, side, side, device="cuda").to(dtype)
                x = x.contiguous(memory_format=layout)
                b, f = torch.randn(channels, device="cuda").to(dtype), fir().cuda()
                act = 0.2, ba.SQRT2, 1
                calls = {
                    "bias_act": (
                        lambda: ba.bias_act_op(x, b, *act, -1.0),  # noqa: B023
                        lambda: ba.reference(x, b, *act, None),  # noqa: B023
                    )
                }
                for name, (up, down, padding) in CASES.items():
                    axes = Axes((up, up), (down, down), padding * 2)
                    calls[name] = (
                        lambda a=axes: ufd.upfirdn2d_op(x, f, *a, 1.0, False),  # noqa: B023
                        lambda a=axes: ufd.reference(x, f, a, 1.0, False),  # noqa: B023
                    )
                compiles = not quick or (side == 256 and layout == torch.channels_last)
                for name, pair in calls.items():
                    row = {
                        "op": name,
                        "shape": list(x.shape),
                        "dtype": str(dtype),
                        "layout": str(layout),
                        **measured(*pair, x, "cuda", compiles),
                    }
                    rows.append(row)
                    print(json.dumps(row), flush=True)
    return rows


def times_cpu(quick: bool) -> list[dict[str, object]]:
    """Reference and kernel on a CPU against the zero-inserting form: forward, with backward."""
    rows = []
    for channels, side in [(32, 32)] if quick else [(64, 16), (32, 32), (16, 64), (64, 128)]:
        for layout in (torch.contiguous_format, torch.channels_last):
            x = torch.randn(16, channels, side, side).contiguous(memory_format=layout)
            f, g = fir(), x.clone().requires_grad_()
            for name, (up, down, padding) in CASES.items():
                axes = Axes((up, up), (down, down), padding * 2)

                def ours(x, axes=axes, f=f):
                    return ufd.reference(x, f, axes, 1.0, False)

                def public(x, f=f, up=up, down=down, padding=padding):
                    return ufd.upfirdn2d(x, f, up, down, padding)

                def plain(x, f=f, up=up, down=down, padding=padding):
                    return zero_insert(x, f, up, down, padding, 1.0)

                both = [
                    [
                        seconds(partial(c, x), "cpu", 7),
                        seconds(lambda c=c, g=g: c(g).sum().backward(), "cpu", 7),
                    ]
                    for c in (ours, plain, public)
                ]
                rows.append(
                    {
                        "op": name,
                        "shape": list(x.shape),
                        "layout": str(layout),
                        "seconds": both[0][0],
                        "zero_insert_over_ours": both[1][0] / both[0][0],
                        "with_backward_zero_insert_over_ours": both[1][1] / both[0][1],
                        "zero_insert_over_kernel": both[1][0] / both[2][0],
                        "with_backward_zero_insert_over_kernel": both[1][1] / both[2][1],
                    }
                )
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
    if device == "cuda":
        index = torch.cuda.current_device()
        dispatch.use_library(index, build.build(build.arch_of(index)))
    poison_outputs(True)
    torch.backends.cudnn.allow_tf32 = False
    checks, rng = Checks(), torch.Generator().manual_seed(0)
    count = 120 if args.quick else 600
    check_bias_act(checks, torch.device(device), rng, count)
    check_upfirdn2d(checks, torch.device(device), rng, count)
    check_compile(checks, device)
    if args.large:
        check_large(checks, device)
    poison_outputs(False)
    print(f"{checks.done} comparisons, {len(checks.failed)} failed", *checks.failed[:20], sep="\n")
    rows = []
    if not args.no_times:
        rows = times_cpu(args.quick) if args.cpu else times_cuda(args.quick)
    name = torch.cuda.get_device_name() if device == "cuda" else platform.machine()
    record = {
        "device": name,
        "torch": torch.__version__,
        "threads": torch.get_num_threads(),
        "comparisons": checks.done,
        "failed": checks.failed,
        "worst": checks.worst,
        "times": rows,
    }
    if args.out:
        with open(args.out, "w") as file:
            json.dump(record, file, indent=1)
    return 1 if checks.failed else 0


if __name__ == "__main__":
    sys.exit(main())
