"""The CPU's kernels against their definitions in float64: value, gradient, second gradient."""

import warnings

import pytest
import torch

from rtil.kernels import build, cpu_library
from rtil.kernels.bias_act import bias_act
from rtil.kernels.norm_act import norm_act
from rtil.kernels.styled_act import modulate, styled_act
from rtil.kernels.upfirdn2d import fir, upfirdn2d


@pytest.fixture(autouse=True)
def _needs_kernels():
    if build.find_compiler() is None or build.find_ninja() is None:
        pytest.skip("no C++ compiler or ninja here, so the CPU's kernels are not built")


def rand(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed + sum(shape)))


def last(x):
    return x.contiguous(memory_format=torch.channels_last) if x.ndim == 4 else x


def thrice(function, inputs, dtypes, given=torch.float32):
    """Value, gradients and second gradients of a function; cotangents are rounded to `given`."""
    leaves = [
        None if t is None else last(t.to(d)).requires_grad_() for t, d in zip(inputs, dtypes)
    ]
    y = function(*leaves)
    up = last(rand(*y.shape, seed=1).to(given).to(y.dtype)).requires_grad_()
    given, kind = [t for t in leaves if t is not None], given
    first = torch.autograd.grad(y, given, up, create_graph=True)
    total = sum((g * rand(*g.shape, seed=2).to(kind).to(g.dtype)).sum().double() for g in first)
    second = torch.autograd.grad(total, [up, *given], allow_unused=True)
    leaves = [up, *given]
    return y, first, [torch.zeros_like(t) if s is None else s for s, t in zip(second, leaves)]


def agrees(function, *inputs, tolerance=2e-5):
    """The kernels equal PyTorch's float64, where no kernel serves; the first input is a map.

    In bfloat16 that holds but for one rounding, 2^-8 of each number, of the same inputs' float64.
    """
    brief = [inputs[0].bfloat16().float(), *inputs[1:]]
    for kind, given in ((torch.float32, inputs), (torch.bfloat16, brief)):
        small = thrice(function, given, [kind] + [torch.float32] * (len(given) - 1), kind)
        exact = thrice(function, given, [torch.float64] * len(given), kind)
        for got, want in zip((small[0], *small[1], *small[2]), (exact[0], *exact[1], *exact[2])):
            assert got.shape == want.shape
            got, want = got.detach(), want.detach()
            scale = want.abs().max().clamp_min(1e-2)
            rounding = 2.0**-8 * want.abs() if got.dtype == torch.bfloat16 else 0.0
            assert float(((got.double() - want).abs() - rounding).max() / scale) < tolerance
        assert small[0].dtype == small[1][0].dtype == small[2][0].dtype == kind


SHAPES = [(1, 1, 1, 1), (2, 3, 5, 7), (3, 16, 9, 4), (1, 33, 40, 41), (2, 64, 16, 17)]


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("demod", [True, False])
@pytest.mark.parametrize("maps", ["one", "each"])
def test_styled_act_differentiates_twice(shape, demod, maps):
    B, C, H, W = shape
    noise = rand(1 if maps == "one" else B, 1, H, W, seed=3)
    d = rand(B, C, seed=4) if demod else None
    agrees(styled_act, rand(*shape), d, noise, torch.tensor(0.7), rand(C, seed=5))


@pytest.mark.parametrize("shape", SHAPES)
def test_modulation_and_norm_act_differentiate_twice(shape):
    agrees(modulate, rand(*shape), rand(*shape[:2], seed=3))
    agrees(norm_act, rand(*shape), tolerance=1e-4)
    agrees(lambda x: norm_act(x, slope=1.0), rand(*shape), tolerance=1e-4)


@pytest.mark.parametrize("shape", [*SHAPES, (4, 6), (300, 17)])
@pytest.mark.parametrize("bias", [True, False])
def test_bias_act_differentiates_twice(shape, bias):
    agrees(bias_act, rand(*shape), rand(shape[1], seed=3) if bias else None)
    agrees(
        lambda x, b: bias_act(x, b, slope=1.0, gain=1.0),
        rand(*shape),
        rand(shape[1], seed=3) if bias else None,
    )


def settings(count):
    rng = torch.Generator().manual_seed(0)

    def draw(low, high):
        return int(torch.randint(low, high, (), generator=rng))

    found = []
    while len(found) < count:
        up, down, taps = draw(1, 4), draw(1, 4), draw(1, 7)
        padding = tuple((draw(-3, 8), draw(-3, 8)) for _ in (0, 1))
        shape = (draw(1, 4), draw(1, 20), draw(1, 12), draw(1, 12))
        sides = [shape[2 + i] * up + sum(padding[i]) - taps for i in (0, 1)]
        if min(sides) >= 0:
            found.append((shape, up, down, taps, padding, bool(draw(0, 2))))
    return found


def test_upfirdn2d_differentiates_twice_for_every_setting():
    for shape, up, down, taps, padding, flip in settings(150):
        f = rand(taps, seed=9)

        def call(x, f=f, up=up, down=down, padding=padding, flip=flip):
            return upfirdn2d(x, f, up, down, padding, 1.3, flip)

        agrees(call, rand(*shape))


@pytest.mark.parametrize("kind", [torch.float32, torch.bfloat16])
def test_results_depend_neither_on_threads_nor_on_the_batch(kind):
    x = last(rand(3, 32, 40, 40)).to(kind).requires_grad_()
    d = rand(3, 32, seed=1).requires_grad_()
    noise, b = rand(3, 1, 40, 40, seed=2), rand(32, seed=3)

    def run(part):
        y = upfirdn2d(
            styled_act(x[part], d[part], noise[part], torch.tensor(0.3), b),
            fir(),
            up=2,
            padding=(2, 1),
        )
        return y, *torch.autograd.grad(y.square().sum(), (x, d))

    threads = torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        whole = run(slice(None))
        torch.set_num_threads(3)
        again = run(slice(None))
        one = run(slice(1, 2))
    finally:
        torch.set_num_threads(threads)
    assert all(torch.equal(a, b) for a, b in zip(whole, again))
    assert torch.equal(whole[0][1:2], one[0])
    assert all(torch.equal(a[1], b[1]) for a, b in zip(whole[1:], one[1:]))


def test_only_channels_innermost_are_served_and_beside_the_map_float32(monkeypatch):
    x = last(rand(2, 3, 4, 5))
    assert (
        cpu_library.serves(x)
        and cpu_library.serves(rand(4, 5))
        and cpu_library.serves(x.bfloat16())
    )
    assert cpu_library.serves(x.bfloat16(), others=(rand(3), None)) and not cpu_library.serves(
        x.half()
    )
    assert not cpu_library.serves(x.bfloat16(), others=(rand(3).bfloat16(),))
    assert not cpu_library.serves(x.contiguous()) and not cpu_library.serves(x.double())
    assert (
        not cpu_library.serves(x, "reference")
        and not cpu_library.serves(x[:0])
        and not cpu_library.serves(x[:, :2])
    )
    with torch.autocast("cpu"):
        assert not cpu_library.serves(x)
    monkeypatch.setattr(cpu_library.dispatch, "_default", "reference")
    assert not cpu_library.serves(x)


def test_bfloat16_is_rounded_to_nearest_even_and_keeps_what_is_not_finite():
    bits = torch.arange(-(2**15), 2**15, dtype=torch.int32) << 16
    near = torch.tensor([0, 1, 0x7FFF, 0x8000, 0x8001, 0xFFFF], dtype=torch.int32)
    x = (bits[:, None] | near).flatten().view(torch.float32)
    big = x.abs() > 1e38  # a bias that is added to 0 passes every float32 through
    x = x[~big | ~x.isfinite()]
    got = bias_act(torch.zeros(1, len(x), dtype=torch.bfloat16), x, slope=1.0, gain=1.0)[0]
    assert torch.equal(got.isnan(), x.isnan())
    assert torch.equal(got[~x.isnan()], x.bfloat16()[~x.isnan()])


def test_without_kernels_a_narrow_map_is_rounded_once():
    x, d, noise, b = last(rand(2, 8, 5, 5)).bfloat16(), rand(2, 8), rand(2, 1, 5, 5), rand(8)
    fused = styled_act(x, d, noise, torch.tensor(0.7), b)
    plain = styled_act(x.contiguous(), d, noise, torch.tensor(0.7), b)
    assert plain.dtype == torch.bfloat16 and not cpu_library.serves(x.contiguous())
    torch.testing.assert_close(plain, fused, rtol=2.0**-7, atol=0)  # float32 may differ by a bit
    assert float((plain != fused).float().mean()) < 0.01


def test_transforms_of_torch_func_go_through_pytorch():
    x, b = last(rand(2, 3, 4, 5)), rand(3)
    _, tangent = torch.func.jvp(lambda x: norm_act(bias_act(x, b)), (x,), (torch.ones_like(x),))
    exact = (x.double(), b.double())
    _, want = torch.func.jvp(
        lambda x: norm_act(bias_act(x, exact[1])), exact[:1], (torch.ones_like(exact[0]),)
    )
    torch.testing.assert_close(tangent, want.float(), rtol=1e-4, atol=1e-5)


def test_without_a_compiler_pytorch_serves_after_one_warning(monkeypatch):
    x, b = last(rand(2, 3, 4, 5)), rand(3)
    fused = bias_act(x, b)
    cpu_library.library.cache_clear()
    monkeypatch.setattr(build, "find_compiler", lambda: None)
    try:
        with pytest.warns(UserWarning, match="slower PyTorch form.*no C\\+\\+ compiler"):
            plain = bias_act(x, b)
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            bias_act(x, b)
    finally:
        cpu_library.library.cache_clear()
    torch.testing.assert_close(plain, fused, rtol=1e-6, atol=1e-6)
