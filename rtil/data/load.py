"""One split of the images of a yaml in configs/data, and the files that make it.

What makes the images is up to the yaml's source (`rtil.data.source`).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from rtil.data.base import ImageData
from rtil.data.source import SplitFiles, source_of
from rtil.process.rng import seeded


def load_data(
    data: Mapping[str, Any],
    resolution: int,
    split: str,
    channels: int | None = None,
    min_images: int = 1,
) -> ImageData:
    """Build one split of the data set that a yaml of `configs/data/` describes.

    Args:
        data: the yaml, resolved, as a plain mapping.
        resolution: image side in pixels.
        split: "train", "val", "test", or for images in files "all".
        channels: 1 or 3 overrides the yaml's.
        min_images: how many the caller needs.

    Raises:
        FileNotFoundError, ValueError: see `Source.load`; an unknown source, too few images.
    """
    wanted = data["channels"] if channels is None else channels
    images = source_of(data).load(data, resolution, split, wanted)
    if len(images) < min_images:
        unreadable = len(images.unreadable())
        others = f", {unreadable} more that are unreadable," if unreadable else ""
        raise ValueError(
            f"data={data['name']}: the {split} split has {len(images)} images{others} and "
            f"{min_images} are needed; add images, or change data.num_train, data.num_val, "
            "data.num_test"
        )
    return images


def image_order(count: int, seed: int | None) -> list[int]:
    """The order in which the first of a split's images are taken, as their numbers.

    Files are numbered by name, and neighbours by name may be alike: of one person, or one video.
    A longer beginning of the order holds the shorter ones.

    Args:
        count: images of the split.
        seed: of the permutation; None: by number, as in version 0.1.
    """
    if seed is None:
        return [*range(count)]
    return torch.randperm(count, generator=seeded("cpu", seed, "held-out images")).tolist()


def split_files(data: Mapping[str, Any], split: str) -> SplitFiles | None:
    """The files of a split, without reading them; None where no files make the images.

    Raises what `load_data` raises for its files.
    """
    return source_of(data).split_files(data, split)
