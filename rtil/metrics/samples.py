"""How close samples are to real images as sets: Frechet distance, precision and recall.

They are computed in features that need no download: a convolutional network with fixed random
weights, then the principal components of its outputs over training images, each of unit variance
there. Random filters respond to edges, strokes and their arrangement in any kind of picture,
where a network trained on photographs has learnt nothing about letters, and pixels themselves
would count a shift of two pixels as another image; few decorrelated components let covariances be
estimated from a thousand images. The distance is none of the numbers called FID: it compares
generators of the same data at the same n, and nothing else.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from rtil.process.rng import seeded

WIDTH, LAST = 64, 4  # channels of every layer; side of the map that is read out
CHUNK = 256  # images at a time, and rows of a distance matrix


class RandomFeatures(nn.Module):
    """Features of images in [-1, 1], fixed by `seed` and the images they are fitted to.

    Layers of 3x3 convolution with orthonormal filters, absolute value and 2x2 mean pooling down to
    4x4 positions, centred and projected on the leading principal components of `images`, where
    each has unit variance.

    Args:
        images: (n, C, S, S) in [-1, 1], training images; S a power of two from 8 up.
        dims: components kept.
        seed: of the weights.

    Raises:
        ValueError: fewer images than components allow.
    """

    def __init__(self, images: Tensor, dims: int = 32, seed: int = 0) -> None:
        super().__init__()
        if not 1 <= dims < min(len(images), WIDTH * LAST**2):
            raise ValueError(
                f"RandomFeatures: dims={dims} components of {len(images)} images; "
                "it must be less than their number."
            )
        channels, size = images.shape[1], images.shape[2]
        rng, self.filters = seeded("cpu", "random features", seed), []
        while size > LAST:
            filters = torch.randn((WIDTH, channels * 9), generator=rng)
            long = filters.shape[0] > filters.shape[1]
            basis, _ = torch.linalg.qr(filters if long else filters.T)
            filters = (basis if long else basis.T).reshape(WIDTH, channels, 3, 3)
            self.filters.append(filters.to(images.device))
            channels, size = WIDTH, size // 2
        maps = torch.cat([self.maps(part) for part in images.split(CHUNK)]).double()
        self.mean = maps.mean(0)
        _, values, directions = torch.linalg.svd(maps - self.mean, full_matrices=False)
        scale = values[:dims] / math.sqrt(len(maps) - 1)
        self.projection = directions[:dims].T / scale.clamp_min(1e-6 * scale[0])
        self.explained = float(values[:dims].square().sum() / values.square().sum())

    def maps(self, images: Tensor) -> Tensor:
        """The last maps (B, 64 * 16) of images (B, C, S, S)."""
        x = images
        for filters in self.filters:
            x = F.avg_pool2d(F.conv2d(F.pad(x, (1, 1, 1, 1), "reflect"), filters).abs(), 2)
        return x.flatten(1)

    @torch.no_grad()
    def forward(self, images: Tensor) -> Tensor:
        """Features (B, dims), float64, of images (B, C, S, S) in [-1, 1]."""
        parts = [self.maps(part).double() for part in images.split(CHUNK)]
        return (torch.cat(parts) - self.mean) @ self.projection


@dataclass(frozen=True)
class Estimate:
    """A number and its 95 % interval, over n samples."""

    value: float
    low: float
    high: float
    n: int


def frechet(a: Tensor, b: Tensor) -> float:
    """Frechet distance between Gaussians fitted to features (Heusel et al. 2017, eq. 6).

    |m_a - m_b|^2 + tr(C_a) + tr(C_b) - 2 tr((C_a^(1/2) C_b C_a^(1/2))^(1/2)).

    Args:
        a, b: (n_a, d), (n_b, d).
    """
    means, covariances = zip(*((x.double().mean(0), x.double().T.cov()) for x in (a, b)))
    values, vectors = torch.linalg.eigh(covariances[0])
    root = vectors * values.clamp_min(0).sqrt() @ vectors.T
    mixed = torch.linalg.eigvalsh(root @ covariances[1] @ root).clamp_min(0).sqrt().sum()
    traces = sum(c.trace() for c in covariances)
    return float((means[0] - means[1]).square().sum() + traces - 2 * mixed)


def frechet_estimate(a: Tensor, b: Tensor, draws: int, seed: int) -> Estimate:
    """`frechet` ± 1.96 standard deviations of its bootstrap over both sets.

    The distance of finite sets is biased upwards, and that of resampled ones more so: the spread
    of the bootstrap is used and its mean is not. Compare at equal n.
    """
    value, rng = frechet(a, b), seeded("cpu", "bootstrap", seed)
    found = [
        frechet(*(x[torch.randint(len(x), (len(x),), generator=rng).to(x.device)] for x in (a, b)))
        for _ in range(draws)
    ]
    half = 1.96 * float(np.std(found, ddof=1)) if draws > 1 else math.nan
    return Estimate(value, value - half, value + half, min(len(a), len(b)))


def precision_recall(
    samples: Tensor, real: Tensor, neighbours: int = 3
) -> tuple[Estimate, Estimate]:
    """Precision and recall of samples (Kynkaanniemi et al. 2019, eq. 1 and 2).

    A set's manifold is the union of balls around its points, each as wide as the distance to the
    point's k-th nearest neighbour. Precision is the share of samples in the manifold of the real
    images, recall the share of real images in that of the samples; a collapsed generator keeps
    its precision and loses recall.

    Args:
        samples, real: features (n, d).
        neighbours: k.

    Raises:
        ValueError: k is not below the size of both sets.
    """
    if not 1 <= neighbours < min(len(samples), len(real)):
        raise ValueError(
            f"precision_recall: neighbours={neighbours} of {len(samples)} samples "
            f"and {len(real)} images; it must be 1 or more and less than both."
        )
    return (share(inside(samples, real, neighbours)), share(inside(real, samples, neighbours)))


def inside(points: Tensor, manifold: Tensor, neighbours: int) -> Tensor:
    """Whether each point lies in the manifold of a set, (n,) bool."""

    def distances(part: Tensor) -> Tensor:  # exact: a point is at 0 from itself
        return torch.cdist(part, manifold, compute_mode="donot_use_mm_for_euclid_dist")

    radii = torch.cat(
        [
            distances(part).kthvalue(neighbours + 1).values  # the first is the point
            for part in manifold.split(CHUNK)
        ]
    )
    return torch.cat([(distances(part) <= radii).any(1) for part in points.split(CHUNK)])


def share(found: Tensor) -> Estimate:
    """Share of True with its Wilson interval, which at 0 and 1 is not empty.

    It covers other points tested against the same manifold, not another manifold.
    """
    n, p, z = len(found), float(found.double().mean()), 1.96
    centre, scale = (p + z**2 / (2 * n)) / (1 + z**2 / n), z / (1 + z**2 / n)
    half = scale * math.sqrt(p * (1 - p) / n + z**2 / (4 * n**2))
    return Estimate(p, min(p, max(0.0, centre - half)), max(p, min(1.0, centre + half)), n)
