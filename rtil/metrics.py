"""How good a reconstruction is: PSNR, SSIM and LPIPS per image, and means with their intervals.

PSNR and SSIM take images in [0, 1], LPIPS in [-1, 1]. What inversion minimises lives in
`rtil.losses`. To add a metric, write a function (x_hat, x) -> (B,) here and call it where
`rtil.invert` scores. torchmetrics, torchvision, lpips and scipy take longer to import than torch
itself, so the functions that use them import them.
"""

import pickle
import warnings
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

SSIM_PAD = 5  # half of the 11-pixel window (Wang et al. 2004)
LPIPS_BACKBONES = {"alex": "AlexNet_Weights", "vgg": "VGG16_Weights"}  # of torchvision.models
# Smallest side for which every pooling before the last feature has an output.
LPIPS_MIN_SIZES = {"alex": 31, "vgg": 16}


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
    """Structural similarity with data range 1, mean over pixels (Wang et al. 2004, eq. 13).

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
    return structural_similarity_index_measure(
        x_hat, x, sigma=0.3 * pad, data_range=1.0, reduction="none"
    )


def gradient_energy(x_hat: Tensor, x: Tensor) -> Tensor:
    """How sharp x_hat is: |D x_hat|^2 / |D x|^2 with D the differences to the right and below.

    1 is the sharpness of the true image; an average of several plausible images has less.

    Args:
        x_hat, x: (B, C, H, W) of one range.

    Returns:
        (B,); not finite where x is constant.
    """
    check_pair("gradient_energy", x_hat, x)
    energy = [sum(image.diff(dim=side).square().sum((1, 2, 3)) for side in (2, 3))
              for image in (x_hat, x)]
    return energy[0] / energy[1]


def check_pair(where: str, x_hat: Tensor, x: Tensor) -> None:
    """Raises ValueError unless both are (B, C, H, W) of one shape."""
    if x.ndim != 4 or x_hat.shape != x.shape:
        raise ValueError(
            f"{where}: got images of shapes {tuple(x_hat.shape)} and {tuple(x.shape)}; "
            "both must be the same (B, C, H, W)."
        )


class LPIPS(nn.Module):
    """Learned perceptual distance, version 0.1 (Zhang et al. 2018, eq. 1).

    sum over layers l of mean over pixels of w_l . (f_l(x_hat) - f_l(x))^2, with f_l the backbone's
    features normalised over channels. The weights w_l ship with the lpips package; the backbone's
    are read from torch hub's folder and never fetched. Everything is frozen; gradients reach x_hat
    only. `train()` changes nothing.

    Differs from lpips.LPIPS in the gradient where all channels of a feature are 0: lpips divides 0
    by 0 there and returns NaN, here it is 0. The values agree.

    Args:
        net: backbone, "alex" or "vgg".

    Raises:
        ValueError: unknown net.
        FileNotFoundError: the backbone's weights are not on disk.
        RuntimeError: they cannot be read.
    """

    def __init__(self, net: str = "alex") -> None:
        super().__init__()
        if net not in LPIPS_BACKBONES:
            allowed = ", ".join(LPIPS_BACKBONES)
            raise ValueError(f"LPIPS: net={net!r}; it must be one of {allowed}.")
        self.net = net
        self.min_size = LPIPS_MIN_SIZES[net]
        import lpips
        import torchvision

        known = getattr(torchvision.models, LPIPS_BACKBONES[net])
        weights = load_backbone(known.IMAGENET1K_V1.url)
        with warnings.catch_warnings():
            # lpips calls torchvision with an argument that torchvision calls deprecated.
            warnings.filterwarnings("ignore", category=UserWarning, module="torchvision")
            self.model = lpips.LPIPS(net=net, pnet_rand=True, verbose=False)
        # lpips names layer 3 of the backbone slice2.3 where torchvision has features.3.
        trunk = self.model.net
        trunk.load_state_dict(
            {key: weights["features." + key.split(".", 1)[1]] for key in trunk.state_dict()}
        )
        self.model.requires_grad_(False)
        for module in self.model.modules():
            if isinstance(module, nn.Dropout):
                module.p = 0.0

    def forward(self, x_hat: Tensor, x: Tensor) -> Tensor:
        """Distance of each pair of images.

        Args:
            x_hat: (B, C, H, W) in [-1, 1], C = 1 (repeated to 3) or 3, sides at least `min_size`.
            x: like x_hat; no gradient.

        Returns:
            (B,), 0 for equal images.
        """
        check_pair("LPIPS", x_hat, x)
        _, channels, height, width = x.shape
        if channels not in (1, 3):
            raise ValueError(
                f"LPIPS: got images with {channels} channels; "
                "it compares grey (1) or colour (3) images."
            )
        if min(height, width) < self.min_size:
            raise ValueError(
                f"LPIPS: got images of {height}x{width} pixels; net={self.net} needs at least "
                f"{self.min_size}x{self.min_size}."
            )
        with torch.no_grad():
            references = self.features(x)
        terms = []
        for feature, reference, layer in zip(self.features(x_hat), references, self.model.lins):
            terms.append(layer((feature - reference).square()).mean(dim=(1, 2, 3)))
        return torch.stack(terms).sum(dim=0)

    def features(self, x: Tensor) -> list[Tensor]:
        """Backbone features of x, each (B, C_l, H_l, W_l) and of unit length over channels."""
        layers = self.model.net(self.model.scaling_layer(x.expand(-1, 3, -1, -1)))
        # 1e-20 under the root keeps its gradient finite at 0; 1e-10 is lpips' own.
        return [f / ((f.square().sum(dim=1, keepdim=True) + 1e-20).sqrt() + 1e-10) for f in layers]


def load_backbone(url: str) -> dict[str, Tensor]:
    """Weights of a torchvision classifier in torch hub's folder, where torchvision looks."""
    path = Path(torch.hub.get_dir()) / "checkpoints" / url.rsplit("/", 1)[1]
    if not path.is_file():
        raise FileNotFoundError(
            f"LPIPS: the backbone's weights {path.name} are not in {path.parent} and are never "
            f"downloaded for you. Fetch {url} into that folder (TORCH_HOME moves it), or go on "
            "without LPIPS: invert with loss.lpips=0 and score with PSNR and SSIM only."
        )
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except (RuntimeError, EOFError, pickle.UnpicklingError) as error:
        raise RuntimeError(
            f"LPIPS: {path} cannot be read as PyTorch weights; it may be truncated. "
            f"Delete it and fetch {url} again."
        ) from error


def mean_ci(
    values: Sequence[float] | np.ndarray | Tensor, confidence: float = 0.95
) -> tuple[float, float]:
    """Mean and half-width of its Student t confidence interval, t_{n-1} s / sqrt(n).

    Args:
        values: (n,) one number per image, n at least 1, none of them NaN.
        confidence: coverage in (0, 1).

    Returns:
        (mean, half_width); half_width is nan for n = 1 and for infinite values.
    """
    values = np.asarray(values, dtype=np.float64)
    if values.ndim != 1 or values.size == 0:
        raise ValueError(
            f"mean_ci: got values of shape {values.shape}; it needs a list of one or more numbers."
        )
    if np.isnan(values).any():
        raise ValueError(
            f"mean_ci: {np.isnan(values).sum()} of {values.size} values are NaN, the first at "
            f"{np.isnan(values).argmax()}; leave those images out by name before averaging."
        )
    if not 0 < confidence < 1:
        raise ValueError(f"mean_ci: confidence={confidence}; it must be in (0, 1).")
    mean = float(values.mean())
    if values.size < 2 or not np.isfinite(values).all():
        return mean, float("nan")
    from scipy import stats

    half_width = stats.t.ppf((1 + confidence) / 2, values.size - 1) * stats.sem(values)
    return mean, float(half_width)


def paired_ci(
    a: Sequence[float] | np.ndarray | Tensor,
    b: Sequence[float] | np.ndarray | Tensor,
    confidence: float = 0.95,
) -> tuple[float, float]:
    """`mean_ci` of a - b, entry by entry over the same images.

    Args:
        a, b: (n,) in the same order of images.
        confidence: coverage in (0, 1).

    Returns:
        (mean, half_width) of the difference.
    """
    a, b = np.asarray(a, dtype=np.float64), np.asarray(b, dtype=np.float64)
    if a.shape != b.shape:
        raise ValueError(
            f"paired_ci: got values of shapes {a.shape} and {b.shape}; "
            "both must list the same images in the same order."
        )
    return mean_ci(a - b, confidence)
