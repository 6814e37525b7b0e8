"""Weights of torchvision's classifiers, which perceptual distances are made of.

They are read from torch hub's folder, where torchvision looks, and never fetched.
"""

from __future__ import annotations

import pickle
from pathlib import Path

import torch
from torch import Tensor


def load_backbone(url: str, name: str) -> dict[str, Tensor]:
    """The weights of a classifier.

    Args:
        url: where torchvision fetches them from.
        name: of the distance, in messages.

    Raises:
        FileNotFoundError: they are not on disk.
        RuntimeError: they cannot be read.
    """
    path = Path(torch.hub.get_dir()) / "checkpoints" / url.rsplit("/", 1)[1]
    if not path.is_file():
        raise FileNotFoundError(
            f"{name}: the backbone's weights {path.name} are not in {path.parent} and are never "
            f"downloaded for you. Fetch {url} into that folder (TORCH_HOME moves it), or go on "
            "without it: invert with loss.lpips=0 and score with PSNR and SSIM only. "
            "loss.perceptual=st_lpips needs no download beside that of the extra rtil[stlpips]."
        )
    return read_weights(path, name, f"fetch {url} again")


def read_weights(path: Path, name: str, advice: str) -> dict[str, Tensor]:
    """The tensors of a file. Raises RuntimeError where it holds none."""
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except (RuntimeError, EOFError, pickle.UnpicklingError) as error:
        raise RuntimeError(
            f"{name}: {path} cannot be read as PyTorch weights; it may be truncated. "
            f"Delete it and {advice}."
        ) from error
