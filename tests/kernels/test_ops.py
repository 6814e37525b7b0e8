"""The operators that every network computes through, against their definitions."""

import numpy as np
import pytest
import torch
from scipy.signal import upfirdn
from torch.autograd import gradcheck, gradgradcheck

from rtil.kernels.bias_act import SQRT2, bias_act
from rtil.kernels.upfirdn2d import BINOMIAL, fir, upfirdn2d


def one_axis(x, f, up, down, padding, axis):
    """Zero insertion, padding or cropping, convolution and decimation, each by itself."""
    x = np.moveaxis(x, axis, -1)
    spread = np.zeros((*x.shape[:-1], x.shape[-1] * up))
    spread[..., ::up] = x
    before, after = padding
    spread = np.pad(spread, [(0, 0)] * 3 + [(max(before, 0), max(after, 0))])
    spread = spread[..., max(-before, 0) : spread.shape[-1] - max(-after, 0)]
    full = upfirdn(f, spread, axis=-1)
    valid = full[..., len(f) - 1 : spread.shape[-1]]
    return np.moveaxis(valid[..., ::down], -1, axis)


def cases(count):
    """Random settings that leave at least one row and column."""
    rng = np.random.default_rng(0)
    found = []
    while len(found) < count:
        up, down, taps = (int(rng.integers(1, high)) for high in (5, 5, 8))
        padding = tuple(int(p) for p in rng.integers(-3, 6, 2))
        shape = tuple(int(n) for n in rng.integers(1, (3, 4, 10, 10)))
        if min(shape[2:]) * up + sum(padding) >= taps:
            found.append((shape, up, down, taps, padding))
    return found


@pytest.mark.parametrize(("shape", "up", "down", "taps", "padding"), cases(200))
def test_upfirdn2d_is_scipy_upfirdn_along_each_axis(shape, up, down, taps, padding):
    rng = np.random.default_rng(1)
    x, f = rng.standard_normal(shape), rng.standard_normal(taps)
    expected = one_axis(one_axis(x, f, up, down, padding, 2), f, up, down, padding, 3)
    y = upfirdn2d(torch.from_numpy(x), torch.from_numpy(f), up, down, padding, gain=1.7)
    assert y.shape == expected.shape
    np.testing.assert_allclose(y.numpy(), 1.7 * expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize(
    ("up", "down", "padding", "taps"),
    [
        (1, 1, (2, 1), 4),
        (2, 1, (2, 1), 4),
        (1, 2, (1, 1), 4),
        (3, 2, (-1, 4), 5),
        (2, 3, (4, 4), 3),
    ],
)
def test_upfirdn2d_gradients(up, down, padding, taps):
    rng = torch.Generator().manual_seed(0)
    x = torch.randn(2, 2, 4, 5, generator=rng, dtype=torch.float64, requires_grad=True)
    f = torch.randn(taps, generator=rng, dtype=torch.float64, requires_grad=True)

    def call(x, f):
        return upfirdn2d(x, f, up, down, padding, 1.3)

    assert gradcheck(call, (x, f))
    assert gradgradcheck(call, (x, f))


def test_fir_has_sum_one_and_the_given_proportions():
    torch.testing.assert_close(fir(), torch.tensor([1.0, 3.0, 3.0, 1.0]) / 8, rtol=0, atol=0)
    torch.testing.assert_close(fir((1.0, 3.0)), torch.tensor([0.25, 0.75]), rtol=0, atol=0)
    assert BINOMIAL == (1.0, 3.0, 3.0, 1.0)


def test_upsampling_keeps_a_constant_inside():
    y = upfirdn2d(torch.full((1, 1, 6, 6), 0.7), fir(), up=2, padding=(2, 1), gain=4.0)
    assert y.shape[2:] == (12, 12)
    torch.testing.assert_close(y[:, :, 2:-2, 2:-2], torch.full((1, 1, 8, 8), 0.7))


def test_upfirdn2d_refuses_what_leaves_no_pixels():
    x, f = torch.zeros(1, 1, 4, 4), torch.ones(4)
    with pytest.raises(ValueError, match=r"up=1, padding=\(-1, 0\).* 4 taps .* leaves 0 x 0"):
        upfirdn2d(x, f, padding=(-1, 0))
    with pytest.raises(ValueError, match=r"x must be \(B, C, H, W\) and f \(K,\)"):
        upfirdn2d(x[0], f)
    with pytest.raises(ValueError, match=r"f of shape \(1, 4, 4\).* f \(K,\) or \(K_y, K_x\)"):
        upfirdn2d(x, f.outer(f)[None])


@pytest.mark.parametrize("dim", [1, 0, -1, 3])
@pytest.mark.parametrize("slope", [0.2, 1.0, 0.0])
@pytest.mark.parametrize("gain", [SQRT2, 1.0])
@pytest.mark.parametrize("bias", [True, False])
def test_bias_act_is_its_formula(dim, slope, gain, bias):
    rng = np.random.default_rng(0)
    x = rng.standard_normal((4, 3, 2, 5))
    b = rng.standard_normal(x.shape[dim]) if bias else None
    shifted = x if b is None else np.moveaxis(np.moveaxis(x, dim, -1) + b, -1, dim)
    expected = gain * np.where(shifted > 0, shifted, slope * shifted)
    y = bias_act(torch.from_numpy(x), None if b is None else torch.from_numpy(b), slope, gain, dim)
    np.testing.assert_allclose(y.numpy(), expected, rtol=1e-14)


@pytest.mark.parametrize("shape", [(3, 4), (2, 4, 3, 2)])
def test_bias_act_gradients(shape):
    rng = torch.Generator().manual_seed(0)
    x = torch.randn(shape, generator=rng, dtype=torch.float64, requires_grad=True)
    b = torch.randn(4, generator=rng, dtype=torch.float64, requires_grad=True)
    assert gradcheck(bias_act, (x, b))
    assert gradgradcheck(bias_act, (x, b))


def test_gain_keeps_the_second_moment_of_a_normal_input_up_to_the_slope():
    """E y^2 = gain^2 (1 + slope^2) / 2; sqrt(2) makes that 1 + slope^2."""
    x = torch.randn(200_000, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    second = bias_act(x, slope=0.2, dim=0).square().mean()
    # E x^4 = 3, so the standard error over 2e5 draws is 0.0032; 4 of them.
    assert abs(second - 1.04) < 0.013


@pytest.mark.parametrize("b", [torch.zeros(3), torch.zeros(1, 4), torch.zeros(())])
def test_bias_that_does_not_fit_is_an_error(b):
    with pytest.raises(ValueError, match=r"does not fit dimension 1 .* must have shape \(4,\)"):
        bias_act(torch.zeros(2, 4), b)
