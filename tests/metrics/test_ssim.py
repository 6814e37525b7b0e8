"""Structural similarity over the valid region."""

import json
import math
from pathlib import Path

import pytest
import torch
from torch.nn.functional import pad

from rtil.metrics.image import ssim_valid

# What scikit-image 0.26.0 gives for the pictures of `waves` in float64, with gaussian_weights,
# sigma=1.5, use_sample_covariance=False and data_range=1.
GOLDEN = json.loads((Path(__file__).parents[1] / "golden" / "ssim.json").read_text())


def waves(height, width, phase, stretch):
    """(1, 3, H, W) in [0, 1]."""
    y = torch.linspace(0, 1, height, dtype=torch.float64).view(-1, 1)
    x = torch.linspace(0, 1, width, dtype=torch.float64).view(1, -1)
    colours = []
    for k in range(3):
        along = torch.sin(2 * math.pi * (k + 1) * (y + 0.5 * x) + phase)
        colours.append(0.5 + 0.5 * along * torch.cos(math.pi * (k + 2) * x * stretch))
    return torch.stack(colours)[None]


def noise(shape, seed):
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.mark.parametrize("choice", GOLDEN)
def test_values_are_those_of_scikit_image(choice):
    size, colour = choice.split()
    height, width = map(int, size.split("x"))
    channels = 3 if colour == "colour" else 1
    x_hat, x = waves(height, width, 0.3, 1.1), waves(height, width, 0.0, 1.0)
    value = ssim_valid(x_hat[:, :channels], x[:, :channels]).item()
    assert value == pytest.approx(GOLDEN[choice], abs=1e-10)


def test_a_picture_counts_by_the_windows_that_lie_in_it_alone():
    """The mean over an image is that over its single windows, so no border is made up."""
    x_hat, x = noise((1, 1, 14, 13), 0), noise((1, 1, 14, 13), 1)
    windows = [
        ssim_valid(x_hat[..., i : i + 11, j : j + 11], x[..., i : i + 11, j : j + 11])
        for i in range(4)
        for j in range(3)
    ]
    torch.testing.assert_close(ssim_valid(x_hat, x), torch.stack(windows).mean(dim=0))


def test_an_equal_border_adds_windows_and_changes_none_of_those_inside():
    x_hat, x = noise((1, 1, 20, 20), 0), noise((1, 1, 20, 20), 1)
    border = [pad(image, (10, 10, 10, 10), value=0.5) for image in (x_hat, x)]
    inside = [image[..., 10:-10, 10:-10] for image in border]
    assert torch.equal(ssim_valid(*inside), ssim_valid(x_hat, x))
    # Of the 30 x 30 windows the 10 x 10 within are those of the picture; others are more alike.
    assert ssim_valid(*border) > ssim_valid(x_hat, x)


@pytest.mark.parametrize("side", [3, 4, 5, 6, 7, 10, 11, 16])
def test_equal_images_are_at_1_and_others_below_at_every_size(side):
    x = noise((2, 3, side, side + 1), 0)
    torch.testing.assert_close(ssim_valid(x, x), torch.ones(2, dtype=x.dtype))
    assert (ssim_valid(1 - x, x) < 0.5).all()


def test_the_window_of_a_small_image_is_the_largest_that_fits():
    """8 pixels leave a window of 7 and sigma 0.9; 9 leave one of 9."""
    x_hat, x = noise((1, 1, 8, 20), 0), noise((1, 1, 8, 20), 1)
    t = torch.arange(-3, 4, dtype=torch.float64)
    window = torch.exp(-((t / 0.9) ** 2) / 2)
    window = torch.outer(window, window) / window.sum() ** 2

    def local_mean(image):
        return torch.nn.functional.conv2d(image, window[None, None])

    mean_hat, mean = local_mean(x_hat), local_mean(x)
    variance_hat = local_mean(x_hat**2) - mean_hat**2
    variance = local_mean(x**2) - mean**2
    covariance = local_mean(x_hat * x) - mean_hat * mean
    index = (2 * mean_hat * mean + 1e-4) * (2 * covariance + 9e-4)
    index /= (mean_hat**2 + mean**2 + 1e-4) * (variance_hat + variance + 9e-4)
    torch.testing.assert_close(ssim_valid(x_hat, x), index.mean()[None])


def test_float32_images_of_little_contrast_are_scored_as_in_float64():
    """Variances of 1e-6 are differences of means near 0.8."""
    x_hat, x = (0.9 + 2e-3 * noise((1, 1, 32, 32), seed) for seed in (0, 1))
    value = ssim_valid(x_hat.float(), x.float())
    assert value.dtype == torch.float32
    assert value.item() == pytest.approx(ssim_valid(x_hat, x).item(), abs=1e-5)


def test_lines_are_refused():
    with pytest.raises(ValueError, match="window of 3 pixels does not fit images of 2x8"):
        ssim_valid(noise((1, 1, 2, 8), 0), noise((1, 1, 2, 8), 1))
