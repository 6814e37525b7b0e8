"""Weights of torchvision's classifiers, which perceptual distances are made of.

They are read from torch hub's folder, where torchvision looks, and never fetched.
"""

from __future__ import annotations

import pickle
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor


def load_backbone(url: str, name: str, layers: Mapping[str, str]) -> dict[str, Tensor]:
    """Weights of a classifier.

    Args:
        url: where torchvision fetches them from.
        name: of the distance, in messages.
        layers: {what a tensor is called here: what in the file}.

    Raises:
        FileNotFoundError: they are not on disk.
        RuntimeError: they cannot be read, or are of another network.
    """
    path = backbone_file(url, name)
    advice = f"fetch {url} again"
    weights = read_weights(path, name, advice)
    missing = [key for key in layers.values() if key not in weights]
    if missing:
        raise RuntimeError(
            f"{name}: {path} has no {missing[0]}, so it is of another network. "
            f"Delete it and {advice}."
        )
    return {own: weights[key] for own, key in layers.items()}


def backbone_file(url: str, name: str) -> Path:
    """Where the weights of a classifier lie. Raises FileNotFoundError where they do not."""
    path = Path(torch.hub.get_dir()) / "checkpoints" / url.rsplit("/", 1)[1]
    if not path.is_file():
        raise FileNotFoundError(
            f"{name}: the backbone's weights {path.name} are not in {path.parent} and are never "
            f"downloaded for you. Fetch {url} into that folder (TORCH_HOME moves it), or go on "
            "without it: invert with loss.lpips=0 and score with PSNR and SSIM only. "
            "loss.perceptual=st_lpips needs no download beside that of the extra rtil[stlpips]."
        )
    return path


def read_weights(path: Path, name: str, advice: str) -> dict[str, Tensor]:
    """The tensors of a file. Raises RuntimeError where it holds none."""
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except (RuntimeError, EOFError, pickle.UnpicklingError) as error:
        raise RuntimeError(
            f"{name}: {path} cannot be read as PyTorch weights; it may be truncated. "
            f"Delete it and {advice}."
        ) from error
