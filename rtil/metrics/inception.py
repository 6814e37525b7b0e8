"""FID and KID: distances of samples to real images in features of Inception (rtil[fidelity]).

Network and formulas are torch-fidelity's, whose numbers are those of the published FID. Its
weights are read from torch hub's folder and never fetched. What needs no weights is in
`rtil.metrics.samples`.
"""

from __future__ import annotations

import io
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from rtil.metrics.backbone import read_weights
from rtil.process.brief import reason

FILE = "weights-inception-2015-12-05-6726825d.pth"
URL = f"https://github.com/toshas/torch-fidelity/releases/download/v0.2.0/{FILE}"
LAYER = "2048"  # pooled features, of which both distances are
CHUNK = 32  # images at a time: they are enlarged to 299x299
SUBSETS, LARGEST_SUBSET = 100, 1000  # of KID, torch-fidelity's own


@dataclass(frozen=True)
class InceptionDistance:
    """FID and KID of two sets; `kid_std` is over subsets of half of them, and no interval."""

    fid: float
    kid: float
    kid_std: float


class Inception:
    """Features of images in [-1, 1], grey or in colour, by Inception's 2015 weights.

    Images are rounded to 8 bits, as those of files are, and enlarged as the published FID does.

    Args:
        device: where it computes.

    Raises:
        ValueError: torch-fidelity is not installed.
        FileNotFoundError: the weights are not on disk. RuntimeError: they cannot be read.
    """

    def __init__(self, device: torch.device | str = "cpu") -> None:
        try:
            from torch_fidelity import FeatureExtractorInceptionV3
        except ImportError as error:
            raise ValueError(
                'fid=true: torch-fidelity cannot be imported. pip install "rtil[fidelity]"'
            ) from error
        path = weights_file()
        advice = f"fetch {URL} again"
        # torch-fidelity reads pickles with their code, so it is given what was read without.
        checked = io.BytesIO()
        torch.save(read_weights(path, "FID", advice), checked)
        checked.seek(0)
        try:
            network = FeatureExtractorInceptionV3("inception", [LAYER], checked)
        except (RuntimeError, TypeError, AttributeError) as error:
            raise RuntimeError(
                f"FID: {path} holds no weights of torch-fidelity's Inception ({reason(error)}). "
                f"Delete it and {advice}."
            ) from error
        self.network = network.to(device)
        self.device = device

    @torch.no_grad()
    def features(self, images: Tensor) -> Tensor:
        """(n, 2048) on the CPU of images (n, C, S, S) in [-1, 1]."""
        parts = []
        for part in images.split(CHUNK):
            levels = (part.to(self.device).float() + 1).mul(127.5).round().clamp(0, 255)
            (found,) = self.network(levels.to(torch.uint8).expand(-1, 3, -1, -1))
            parts.append(found.cpu())
        return torch.cat(parts)


def weights_file() -> Path:
    """Where the weights lie. Raises FileNotFoundError where they do not."""
    path = Path(torch.hub.get_dir()) / "checkpoints" / FILE
    if not path.is_file():
        raise FileNotFoundError(
            f"fid=true: Inception's weights {FILE} are not in {path.parent} and are never "
            f"downloaded for you. Fetch {URL} into that folder (TORCH_HOME moves it), or leave "
            "fid out: the Frechet distance of random features needs no download."
        )
    return path


def inception_distance(samples: Tensor, real: Tensor, seed: int = 0) -> InceptionDistance:
    """FID (Heusel et al. 2017, eq. 6) and KID (Binkowski et al. 2018, section 4) of features.

    FID of finite sets is biased upwards: compare at equal n. KID is not.

    Args:
        samples, real: (n, 2048), (m, 2048).
        seed: of KID's subsets.
    """
    from torch_fidelity.metric_fid import (
        KEY_METRIC_FID,
        fid_features_to_statistics,
        fid_statistics_to_metric,
    )
    from torch_fidelity.metric_kid import (
        KEY_METRIC_KID_MEAN,
        KEY_METRIC_KID_STD,
        kid_features_to_metric,
    )

    statistics = [fid_features_to_statistics(x) for x in (samples, real)]
    fid = fid_statistics_to_metric(*statistics, verbose=False)
    kid = kid_features_to_metric(
        samples,
        real,
        kid_subsets=SUBSETS,
        kid_subset_size=min(LARGEST_SUBSET, min(len(samples), len(real)) // 2),
        rng_seed=seed,
        verbose=False,
    )
    return InceptionDistance(
        fid[KEY_METRIC_FID], kid[KEY_METRIC_KID_MEAN], kid[KEY_METRIC_KID_STD]
    )
