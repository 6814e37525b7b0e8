"""How good a reconstruction is: PSNR, SSIM and gradient energy per image, of images in [0, 1].

To add a metric, write a function (x_hat, x) -> (B,) here and call it in `rtil.inversion.score`.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import conv2d

SSIM_PAD = 5  # half of the 11-pixel window (Wang et al. 2004)
SSIM_C1, SSIM_C2 = 0.01**2, 0.03**2


def to_unit(x: Tensor) -> Tensor:
    """Maps an image from [-1, 1] to [0, 1], clipped."""
    return ((x + 1) / 2).clamp(0, 1)


def psnr(x_hat: Tensor, x: Tensor) -> Tensor:
    """Peak signal-to-noise ratio with data range 1: -10 log10(mean((x_hat - x)^2)).

    Args:
        x_hat, x: (B, C, H, W) in [0, 1].

    Returns:
        (B,) in dB; infinite for equal images.
    """
    check_pair("psnr", x_hat, x)
    return -10 * (x_hat - x).square().mean(dim=(1, 2, 3)).log10()


def ssim(x_hat: Tensor, x: Tensor) -> Tensor:
    """Structural similarity with data range 1, mean over pixels, as version 0.1 had it.

    Differs from Wang et al. 2004, eq. 13, in that borders are mirrored, so that pixels near them
    count twice: up to 0.02 more at 32x32. `ssim_valid` is theirs.

    The Gaussian window has 11 pixels, sigma = 1.5 and reflection padding of 5. Padding needs a
    side longer than itself, so for a smaller side under 6 pixels the window has 2 side - 1
    pixels, and sigma shrinks with it.

    Args:
        x_hat, x: (B, C, H, W) in [0, 1], sides at least 2.

    Returns:
        (B,) in [-1, 1].
    """
    check_pair("ssim", x_hat, x)
    height, width = x.shape[2:]
    pad = min(SSIM_PAD, height - 1, width - 1)
    if pad < 1:
        raise ValueError(
            f"ssim: images of {height}x{width} pixels have no neighbourhood; "
            "sides must be at least 2 pixels."
        )
    from torchmetrics.functional.image import structural_similarity_index_measure

    # torchmetrics derives the padding from sigma as int(3.5 sigma + 0.5); 0.3 pad gives pad.
    similarity = structural_similarity_index_measure(
        x_hat, x, sigma=0.3 * pad, data_range=1.0, reduction="none"
    )
    assert isinstance(similarity, Tensor), "torchmetrics returns a pair only where asked for more"
    return similarity


def ssim_valid(x_hat: Tensor, x: Tensor) -> Tensor:
    """Structural similarity with data range 1 where the whole window lies in the image.

        (2 m m' + c1) (2 cov + c2) / ((m^2 + m'^2 + c1) (v + v' + c2)), c1 = 0.01^2, c2 = 0.03^2

    with means m, variances v and the covariance under a Gaussian window of 11 pixels, sigma = 1.5,
    and the mean over its positions (Wang et al. 2004, eq. 13): what scikit-image computes with
    gaussian_weights, sigma=1.5 and use_sample_covariance=False. Where a side is below 11 pixels
    the window has the most odd pixels that fit, and sigma shrinks with it.

    Args:
        x_hat, x: (B, C, H, W) in [0, 1], sides at least 3.

    Returns:
        (B,) in [-1, 1].
    """
    check_pair("ssim_valid", x_hat, x)
    channels, height, width = x.shape[1:]
    half = min(SSIM_PAD, (min(height, width) - 1) // 2)
    if half < 1:
        raise ValueError(
            f"ssim_valid: a window of 3 pixels does not fit images of {height}x{width}; "
            "sides must be at least 3 pixels."
        )
    offsets = torch.arange(-half, half + 1, dtype=torch.float64, device=x.device)
    line = (-((offsets / (0.3 * half)) ** 2) / 2).exp()
    line = (line / line.sum()).expand(channels, 1, -1)

    def local_mean(image: Tensor) -> Tensor:
        across = conv2d(image, line.unsqueeze(2), groups=channels)
        return conv2d(across, line.unsqueeze(3), groups=channels)

    # In float64: a variance is a small difference of means.
    a, b = x_hat.double(), x.double()
    mean_a, mean_b = local_mean(a), local_mean(b)
    covariance = local_mean(a * b) - mean_a * mean_b
    variances = local_mean(a * a + b * b) - mean_a**2 - mean_b**2
    index = (2 * mean_a * mean_b + SSIM_C1) * (2 * covariance + SSIM_C2)
    index = index / ((mean_a**2 + mean_b**2 + SSIM_C1) * (variances + SSIM_C2))
    return index.mean(dim=(1, 2, 3)).to(x.dtype)


def gradient_energy(x_hat: Tensor, x: Tensor) -> Tensor:
    """How sharp x_hat is: |D x_hat|^2 / |D x|^2 with D the differences to the right and below.

    1 is the sharpness of the true image; an average of several plausible images has less.

    Args:
        x_hat, x: (B, C, H, W) of one range.

    Returns:
        (B,); not finite where x is constant.
    """
    check_pair("gradient_energy", x_hat, x)
    return _energy(x_hat) / _energy(x)


def _energy(image: Tensor) -> Tensor:
    """|D x|^2 of each image, (B,)."""
    down, right = (image.diff(dim=side).square().sum((1, 2, 3)) for side in (2, 3))
    return down + right


def check_pair(where: str, x_hat: Tensor, x: Tensor) -> None:
    """Raises ValueError unless both are (B, C, H, W) of one shape."""
    if x.ndim != 4 or x_hat.shape != x.shape:
        raise ValueError(
            f"{where}: got images of shapes {tuple(x_hat.shape)} and {tuple(x.shape)}; "
            "both must be the same (B, C, H, W)."
        )
