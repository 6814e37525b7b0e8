"""Laws of geometric transforms with given parameters."""

import math

import numpy
import pytest
import torch

from rtil.augmentation import geometry
from rtil.kernels.upfirdn2d import fir
from rtil.process.rng import seeded


def images(batch, size=8, channels=3):
    shape = (batch, channels, size, size)
    return torch.randn(shape, generator=seeded("cpu", "images"), dtype=torch.float64)


def blit(x, flip=False, turns=0, shift=(0, 0)):
    n = len(x)
    shift = torch.tensor(shift).expand(n, 2)
    return geometry.blit(x, torch.tensor([flip] * n), torch.tensor([turns] * n), shift)


def warp(x, angle=0.0, scale=1.0, shift=(0.0, 0.0)):
    inverse = geometry.rotation(torch.tensor([angle] * len(x), dtype=x.dtype)) / scale
    shift = torch.tensor(shift, dtype=x.dtype).expand(len(x), 2)
    return geometry.warp(x, fir(geometry.SYM6).double(), inverse, shift)


def test_flips_and_quarter_turns_are_exact():
    x = images(2)
    assert torch.equal(blit(x), x)
    assert torch.equal(blit(x, flip=True), torch.flip(x, [3]))
    transposed = x.transpose(2, 3)
    assert torch.equal(blit(x, turns=1), torch.flip(transposed, [2]))
    assert torch.equal(blit(x, turns=2), torch.flip(x, [2, 3]))
    assert torch.equal(blit(x, turns=3), torch.flip(transposed, [3]))


@pytest.mark.parametrize("shift", [(2, 0), (0, -3), (-1, 2), (7, 9)])
def test_whole_pixels_move_exactly_and_mirror_at_the_edge(shift):
    x = images(2)
    padded = numpy.pad(x.numpy(), [(0, 0), (0, 0), (9, 9), (9, 9)], mode="reflect")
    down, right = shift
    moved = padded[:, :, 9 - down : 17 - down, 9 - right : 17 - right]
    assert numpy.array_equal(blit(x, shift=shift).numpy(), moved)


def test_each_image_of_a_batch_has_its_own_transform():
    x = images(4)
    flips, turns = torch.tensor([True, False, True, False]), torch.tensor([0, 1, 2, 3])
    shifts = torch.tensor([[0, 1], [2, 0], [-1, 1], [0, 0]])
    together = geometry.blit(x, flips, turns, shifts)
    for i in range(4):
        own = blit(x[i : i + 1], bool(flips[i]), int(turns[i]), shifts[i].tolist())
        assert torch.equal(together[i : i + 1], own)


def test_the_filter_is_orthogonal_to_its_shifts_and_has_six_vanishing_moments():
    h = torch.tensor(geometry.SYM6, dtype=torch.float64)
    for shift in range(6):
        product = (h[2 * shift :] * h[: len(h) - 2 * shift]).sum()
        torch.testing.assert_close(product.item(), float(shift == 0), rtol=0, atol=1e-12)
    n = torch.arange(len(h), dtype=torch.float64)
    for power in range(6):
        moment = ((-1) ** n * n**power * h).sum()
        assert abs(moment) < 1e-9 * 11**power


def test_resampling_by_whole_pixels_moves_them_within_the_image():
    x = images(2, 16)
    torch.testing.assert_close(warp(x)[..., 3:-3, 3:-3], x[..., 3:-3, 3:-3], rtol=0, atol=1e-6)
    moved = warp(x, shift=(2.0, -1.0))[..., 6:-6, 6:-6]
    expected = x.roll((2, -1), (2, 3))[..., 6:-6, 6:-6]
    torch.testing.assert_close(moved, expected, rtol=0, atol=1e-6)


@pytest.mark.parametrize("angle", [0.0, 0.4, math.pi / 2, -2.0])
@pytest.mark.parametrize(
    ("scale", "shift"), [(1.0, (0.5, 0.25)), (1.25, (1.3, -0.7)), (0.8, (0, 0))]
)
def test_a_smooth_image_is_resampled_where_the_transform_leads(angle, scale, shift):
    def wave(u, v):
        return torch.cos(0.3 * u + 0.2 * v) + torch.sin(0.3 * v - 0.1 * u)

    line = torch.arange(32, dtype=torch.float64) - 15.5
    u, v = torch.meshgrid(line, line, indexing="ij")
    found = warp(wave(u, v)[None, None], angle, scale, shift)[0, 0]
    u, v = u - shift[0], v - shift[1]
    cos, sin = math.cos(angle), math.sin(angle)
    u, v = (cos * u - sin * v) / scale, (sin * u + cos * v) / scale
    inside = (u.abs() < 11) & (v.abs() < 11)
    error = (found - wave(u, v))[inside].abs().max()
    assert inside.sum() > 300 and error < 0.01


def test_a_line_is_read_forth_and_back_beyond_its_ends():
    places = torch.arange(-5, 9)
    found = geometry.mirrored(places, 4).tolist()
    assert found == [1, 2, 3, 2, 1, 0, 1, 2, 3, 2, 1, 0, 1, 2]
    assert geometry.mirrored(torch.tensor([-0.25, 3.5]), 4).tolist() == [0.25, 2.5]
    assert geometry.mirrored(places, 1).tolist() == [0] * 14
