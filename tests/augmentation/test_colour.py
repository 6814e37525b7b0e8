"""Laws of transforms of colours with given parameters."""

import math

import pytest
import torch

from rtil.augmentation import colour
from rtil.process.rng import seeded


def recolour(x, contrast=1.0, luma=1.0, hue=0.0, saturation=1.0, brightness=0.0):
    numbers = (contrast, luma, hue, saturation, brightness)
    *given, added = (torch.tensor([number], dtype=x.dtype) for number in numbers)
    return colour.recolour(x, colour.matrices(*given), added)


@pytest.fixture
def x():
    shape = (1, 3, 4, 4)
    return torch.randn(shape, generator=seeded("cpu", "colours"), dtype=torch.float64)


def test_brightness_is_added_and_contrast_multiplies(x):
    torch.testing.assert_close(recolour(x), x)
    torch.testing.assert_close(recolour(x, brightness=0.3), x + 0.3)
    torch.testing.assert_close(recolour(x, contrast=1.5), 1.5 * x)


def test_a_luma_flip_turns_greys_over_and_keeps_hues(x):
    grey = x.mean(1, keepdim=True)
    torch.testing.assert_close(recolour(x, luma=-1.0), x - 2 * grey)


def test_saturation_scales_what_is_beside_grey(x):
    grey = x.mean(1, keepdim=True)
    torch.testing.assert_close(recolour(x, saturation=0.5), grey + 0.5 * (x - grey))


def test_a_third_of_a_turn_of_hue_permutes_the_channels(x):
    torch.testing.assert_close(recolour(x, hue=2 * math.pi / 3), x.roll(1, 1))
    torch.testing.assert_close(recolour(x, hue=2 * math.pi), x)
    # No colour is further from grey than before.
    turned = recolour(x, hue=0.7)
    torch.testing.assert_close(turned.square().sum(1), x.square().sum(1))


def test_a_grey_image_is_transformed_as_the_same_grey_in_colour(x):
    grey = x[:, :1]
    settings = {"contrast": 1.3, "luma": -1.0, "hue": 1.0, "saturation": 0.2, "brightness": 0.1}
    found = recolour(grey, **settings)
    torch.testing.assert_close(found.expand_as(x), recolour(grey.expand_as(x), **settings))
    torch.testing.assert_close(found, -1.3 * grey + 0.1)
