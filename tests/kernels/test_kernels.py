"""The CUDA kernels' own code, built for the host, against independent definitions."""

import ctypes
import subprocess
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.signal import upfirdn

from rtil.kernels import build, upfirdn2d
from rtil.kernels.bias_act import reference as bias_act
from rtil.kernels.build import SOURCES

HERE = Path(__file__).parents[1]
CODES = {torch.float32: 0, torch.float64: 1, torch.bfloat16: 3}
TOLERANCE = {torch.float32: 3e-6, torch.float64: 1e-12, torch.bfloat16: 1e-2}


@pytest.fixture(scope="module")
def host(tmp_path_factory):
    """The kernels' headers compiled by the C++ compiler."""
    if build.find_compiler() is None:
        pytest.skip("no C++ compiler here, so the kernels' code is not built for the host")
    library = tmp_path_factory.mktemp("host") / "host.so"
    command = [
        build.find_compiler(),
        "-O1",
        "-std=c++17",
        "-Wall",
        "-Wextra",
        "-Werror",
        "-shared",
        "-fPIC",
        f"-I{SOURCES}",
        str(HERE / "host_ops.cpp"),
        "-o",
        str(library),
    ]
    subprocess.run(command, check=True)
    lib = ctypes.CDLL(str(library))
    pointer, size, number = ctypes.c_void_p, ctypes.c_int64, ctypes.c_double
    lib.host_bias_act.argtypes = [ctypes.c_int, *[pointer] * 4, *[size] * 3, *[number] * 3, size]
    lib.host_upfirdn2d.argtypes = [ctypes.c_int, *[pointer] * 4, number]
    lib.host_upfirdn2d_tile.argtypes = [ctypes.c_int, *[pointer] * 4, number, ctypes.c_int]
    lib.host_accesses.restype = lib.host_misaligned.restype = size
    return lib


@pytest.fixture(autouse=True)
def only_aligned_accesses(request):
    """The host forgives a 16-byte access at an odd address; a GPU does not."""
    yield
    if "host" in request.fixturenames:
        assert request.getfixturevalue("host").host_misaligned() == 0


def one_axis(x, w, up, down, before, after, axis):
    """scipy's upfirdn of the padded or cropped, zero-inserted axis, where the filter covers it."""
    x = np.moveaxis(x, axis, -1)
    spread = np.zeros((*x.shape[:-1], x.shape[-1] * up))
    spread[..., ::up] = x
    spread = np.pad(spread, [(0, 0)] * (x.ndim - 1) + [(max(before, 0), max(after, 0))])
    spread = spread[..., max(-before, 0) : spread.shape[-1] - max(-after, 0)]
    full = upfirdn(w, spread, axis=-1)[..., len(w) - 1 : spread.shape[-1]]
    return np.moveaxis(full[..., ::down], -1, axis)


def oracle(x, fy, fx, axes, gain):
    y = one_axis(x, fy, axes.up[0], axes.down[0], *axes.padding[:2], 2)
    return gain * one_axis(y, fx, axes.up[1], axes.down[1], *axes.padding[2:], 3)


def strided(x, kind):
    """The same numbers in another memory order."""
    if kind == "last":
        return x.contiguous(memory_format=torch.channels_last)
    if kind == "view":  # neither dense nor aligned
        B, C, H, W = x.shape
        big = torch.zeros(B, C + 1, H + 2, W + 3, dtype=x.dtype)
        big[:, 1:, 1:-1, 1:-2] = x
        return big[:, 1:, 1:-1, 1:-2]
    if kind in ("shifted", "apart"):  # rows of whole accesses; only the start, or planes, are odd
        B, C, H, W = x.shape
        row, start = W + -W % 8, int(kind == "shifted")
        plane = H * row + int(kind == "apart")
        big = torch.zeros(B * C * plane + start, dtype=x.dtype)
        return big.as_strided(x.shape, (C * plane, plane, row, 1), start).copy_(x)
    return x


def run_upfirdn(host, x, f, axes, gain, flip, tile, last=None, force=1):
    """Calls the host build; outputs start as NaN, with a guard on both sides."""
    last = upfirdn2d._layout(x) == torch.channels_last if last is None else last
    shape = (*x.shape[:2], *axes.out(x.shape[2:], (f.shape[0], f.shape[-1])))
    n = int(np.prod(shape))
    memory = torch.full((n + 32,), torch.nan, dtype=x.dtype)
    place = memory[16 : 16 + n]
    out = place.view(shape)
    if last:
        out = place.view(shape[0], *shape[2:], shape[1]).permute(0, 3, 1, 2)
    sizes = upfirdn2d.launch_sizes(x, f, out, axes, flip, last)
    packed = (ctypes.c_int64 * len(sizes))(*sizes)
    f = f.to(torch.float64 if x.dtype == torch.float64 else torch.float32).contiguous()
    call = (CODES[x.dtype], x.data_ptr(), f.data_ptr(), place.data_ptr(), packed, gain)
    done = host.host_upfirdn2d_tile(*call, force) if tile else host.host_upfirdn2d(*call)
    assert memory[:16].isnan().all() and memory[16 + n :].isnan().all()
    return out if done or not tile else None


def general_cases(count):
    rng = np.random.default_rng(0)
    found = []
    while len(found) < count:
        up, down = (tuple(int(v) for v in rng.integers(1, 5, 2)) for _ in range(2))
        taps = tuple(int(v) for v in rng.integers(1, 8, 2))
        padding = tuple(int(p) for p in rng.integers(-4, 8, 4))
        shape = tuple(int(n) for n in rng.integers(1, (3, 4, 11, 11)))
        axes = upfirdn2d.Axes(up, down, padding)
        # A crop beyond the whole axis is no case: there the oracle has nothing to slice.
        kept = [shape[2 + i] * up[i] + min(padding[2 * i : 2 * i + 2]) for i in (0, 1)]
        if min(axes.out(shape[2:], taps)) >= 1 and min(kept) > 0:
            found.append((shape, taps, axes))
    return found


@pytest.mark.parametrize("kind", ["dense", "last", "view"])
@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_general_kernel_is_scipy_upfirdn_along_each_axis(host, kind, dtype):
    rng = np.random.default_rng(1)
    for i, (shape, taps, axes) in enumerate(general_cases(300)):
        flip, separable = bool(i % 2), i % 3 == 0
        fy, fx = rng.standard_normal(taps[0]), rng.standard_normal(taps[1])
        f = np.outer(fy, fx)
        if separable:
            f = fx = fy
            if min(axes.out(shape[2:], (len(fy), len(fy)))) < 1:
                continue
        x = torch.from_numpy(rng.standard_normal(shape)).to(dtype)
        expected = oracle(
            x.double().numpy(), *((w[::-1] if flip else w) for w in (fy, fx)), axes, 1.3
        )
        y = run_upfirdn(host, strided(x, kind), torch.from_numpy(f), axes, 1.3, flip, False)
        scale = 1 + np.abs(expected).max()
        np.testing.assert_allclose(
            y.double().numpy(),
            expected,
            rtol=0,
            atol=TOLERANCE[dtype] * scale,
            err_msg=f"{shape} {taps} {axes} {flip} {separable}",
        )


@pytest.mark.parametrize(("up", "down"), [(1, 1), (2, 1), (1, 2)])
@pytest.mark.parametrize("kind", ["dense", "last", "view", "shifted", "apart"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_tiled_kernels_are_scipy_upfirdn_along_each_axis(host, up, down, kind, dtype):
    rng = np.random.default_rng(2)
    for i in range(30):
        # Every third has rows and channels of whole accesses, so that vectors are used.
        high = (3, 5, 70, 140) if kind != "last" else (3, 40, 40, 40)
        shape = [int(n) for n in rng.integers(1, high)]
        if i % 3 == 0:
            shape = [shape[0], *(8 * (n // 8 + 1) for n in shape[1:])]
        padding = tuple(int(p) for p in rng.integers(-3, 7, 4))
        axes = upfirdn2d.Axes((up, up), (down, down), padding)
        kept = [shape[2 + i] * up + min(padding[2 * i : 2 * i + 2]) for i in (0, 1)]
        if min(axes.out(shape[2:], (4, 4))) < 1 or min(kept) <= 0:
            continue
        f = rng.standard_normal(4)
        x = torch.from_numpy(rng.standard_normal(shape)).to(dtype)
        w = f[::-1] if i % 2 else f
        expected = oracle(x.double().numpy(), w, w, axes, 0.7)
        # One row, one channel: both orders are dense, so the layout is said.
        y = run_upfirdn(
            host,
            strided(x, kind),
            torch.from_numpy(f),
            axes,
            0.7,
            bool(i % 2),
            True,
            last=kind == "last",
        )
        scale = 1 + np.abs(expected).max()
        np.testing.assert_allclose(
            y.double().numpy(),
            expected,
            rtol=0,
            atol=TOLERANCE[dtype] * scale,
            err_msg=f"{shape} {axes}",
        )


@pytest.mark.parametrize(
    ("up", "down", "taps", "shape", "last", "chosen"),
    [
        (2, 1, 4, (1, 2, 16, 16), False, True),
        (1, 2, 4, (1, 2, 64, 64), False, True),
        (1, 1, 4, (1, 64, 32, 32), True, True),
        (1, 1, 4, (1, 3, 32, 32), True, False),
        (2, 1, 3, (1, 2, 32, 32), False, False),
        (3, 1, 4, (1, 2, 32, 32), False, False),
        (1, 1, 4, (1, 2, 8, 8), False, False),
    ],
)
def test_launcher_tiles_the_cases_of_stylegan2(host, up, down, taps, shape, last, chosen):
    x = torch.ones(shape)
    x = x.contiguous(memory_format=torch.channels_last) if last else x
    axes = upfirdn2d.Axes((up, up), (down, down), (2, 1, 2, 1))
    y = run_upfirdn(host, x, torch.ones(taps), axes, 1.0, False, True, last, force=0)
    assert (y is not None) == chosen


def run_bias_act(host, x, b, y, dim_inner, act, threads, offset=0):
    """Calls the host build on x, y and an output, each so far behind an aligned address."""
    n = x.numel()

    offsets = (offset, offset // 2, offset // 3)

    def placed(t, offset):
        # Finite around the inputs: what is computed from it must not land in the output's guard.
        outside = 1.0 if t is x or t is y else torch.nan
        memory = torch.full((n + 32,), outside, dtype=x.dtype)
        memory[16 + offset : 16 + offset + n] = t.flatten()
        return memory

    given = (x, x if y is None else y, torch.full_like(x, torch.nan))
    memory = [placed(*pair) for pair in zip(given, offsets)]
    at = [m[16 + o :].data_ptr() for m, o in zip(memory, offsets)]
    offset = offsets[2]
    inner, count = dim_inner
    host.host_bias_act(
        CODES[x.dtype],
        at[0],
        None if b is None else b.data_ptr(),
        None if y is None else at[1],
        at[2],
        n,
        inner,
        count,
        *act,
        threads,
    )
    end = 16 + offset + n
    assert memory[2][: 16 + offset].isnan().all() and memory[2][end:].isnan().all()
    return memory[2][16 + offset : end].view(x.shape)


def bias_cases(count):
    rng = np.random.default_rng(3)
    for i in range(count):
        shape = tuple(int(n) for n in rng.integers(1, 9, rng.integers(1, 5)))
        clamp = None if i % 3 == 0 else float(rng.uniform(0.2, 2))
        slope, gain = float(rng.choice([0.0, 0.2, 1.0])), float(rng.uniform(0.5, 2))
        dim, threads = int(rng.integers(len(shape))), int(rng.integers(1, 9))
        yield shape, dim, i % 4 != 1, slope, gain, clamp, threads, i % 5


def test_bias_act_kernel_is_autograd_in_value_gradient_and_second_gradient(host):
    rng = torch.Generator().manual_seed(0)
    for shape, dim, bias, slope, gain, clamp, threads, offset in bias_cases(400):
        x, dy, ddx = (torch.randn(shape, generator=rng, dtype=torch.float64) for _ in range(3))
        b = torch.randn(shape[dim], generator=rng, dtype=torch.float64) if bias else None
        ddb = None if b is None else torch.randn(b.shape, generator=rng, dtype=b.dtype)
        act = slope, gain, -1.0 if clamp is None else clamp
        inner = int(np.prod(shape[dim + 1 :])), shape[dim]
        x.requires_grad_(), dy.requires_grad_()
        leaves = [x] if b is None else [x, b.requires_grad_()]
        y = bias_act(x, b, slope, gain, dim, clamp)
        first = torch.autograd.grad(y, leaves, dy, create_graph=True)
        (ddy,) = torch.autograd.grad(first, dy, [ddx] if b is None else [ddx, ddb])
        x, y, dy = x.detach(), y.detach(), dy.detach()
        value = run_bias_act(host, x, b, None, inner, act, threads, offset)
        dx = run_bias_act(host, dy, None, y, inner, act, threads, offset)
        second = run_bias_act(host, ddx, ddb, y, inner, act, threads, offset)
        for ours, theirs in ((value, y), (dx, first[0]), (second, ddy)):
            torch.testing.assert_close(ours, theirs.detach(), rtol=1e-13, atol=1e-13)


def test_bias_act_kernel_in_half_knows_what_was_clamped(host):
    """A bound that a half cannot hold: y is the rounded bound, and must still count as clamped."""
    x = torch.linspace(-1, 1, 101).bfloat16()
    act, before = (0.2, 1.0, 0.1), host.host_accesses()
    y = run_bias_act(host, x, None, None, (1, 1), act, 3)
    g = run_bias_act(host, torch.ones_like(x), None, y, (1, 1), act, 3)
    assert host.host_accesses() - before == 2 * 12 + 3 * 12  # whole accesses of 8 in 101
    inside = (x < 0.099) & (x > -0.49)
    torch.testing.assert_close(g[~inside & (x.abs() > 0.51)].float().sum(), torch.tensor(0.0))
    assert (g[x > 0.11] == 0).all() and (g[inside] != 0).all()
    torch.testing.assert_close(
        y.float(), bias_act(x.float(), None, 0.2, 1.0, 0, 0.1), rtol=8e-3, atol=0
    )


def test_bias_act_kernel_propagates_nan_and_infinity(host):
    x = torch.tensor([torch.nan, torch.inf, -torch.inf, 0.0])
    y = run_bias_act(host, x, None, None, (1, 1), (0.2, 1.0, 3.0), 1)
    torch.testing.assert_close(y, torch.tensor([torch.nan, 3.0, -3.0, 0.0]), equal_nan=True)


@pytest.mark.slow
@pytest.mark.parametrize("arch", ["sm_75", "sm_90"])
def test_kernels_compile(arch, tmp_path, monkeypatch):
    if build.find_nvcc() is None:
        pytest.skip("nvcc is not here, so the .cu files are not compiled")
    monkeypatch.setenv("RTIL_CACHE", str(tmp_path))
    library = ctypes.CDLL(str(build.build(arch)))
    assert library.rtil_bias_act and library.rtil_upfirdn2d and library.rtil_error


@pytest.mark.slow
def test_threads_of_a_tile_meet_only_across_barriers(tmp_path):
    """ThreadSanitizer on the block that the kernel runs; without its barriers it must object."""
    if build.find_compiler() is None:
        pytest.skip("no C++ compiler here, so the kernels are not checked for races")
    program = str(tmp_path / "race")
    command = [
        build.find_compiler(),
        "-O1",
        "-std=c++17",
        "-fsanitize=thread",
        f"-I{SOURCES}",
        str(HERE / "race_ops.cpp"),
        "-o",
        program,
        "-lpthread",
    ]
    if subprocess.run(command, capture_output=True).returncode:
        pytest.skip("the C++ compiler has no ThreadSanitizer, so races are not looked for")
    without = subprocess.run([program, "nobarrier"], capture_output=True, text=True)
    if "FATAL: ThreadSanitizer" in without.stderr:
        pytest.skip("ThreadSanitizer does not run on this system, so races are not looked for")
    assert "WARNING: ThreadSanitizer: data race" in without.stderr
    done = subprocess.run([program], capture_output=True, text=True)
    assert done.returncode == 0 and "WARNING" not in done.stderr, done.stderr[-3000:]
