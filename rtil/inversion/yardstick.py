"""Estimates that are fitted to training images: inverters that ask for it, and the yardstick.

Every row of held-out images has the linear minimum-mean-square-error estimate of the same
measurements beside it (columns lmmse_*): what a Gaussian prior of the generator's own training
images gives without a generator.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from rtil.data import lineage
from rtil.data.base import to_float
from rtil.data.load import load_data
from rtil.inverters.inverter import FittedInverter, Inverter
from rtil.inverters.lmmse import LMMSE
from rtil.operators import ForwardOperator
from rtil.process.brief import brief

log = logging.getLogger("rtil.inversion.yardstick")
CHUNK = 256  # images converted at a time


@dataclass(frozen=True)
class TrainingImages:
    """The images that a generator was trained on.

    trained: configuration of its training. data: the command's `data` group, which says where
    they are if they moved. shape: (C, H, W). count: so many of them at most.
    """

    trained: Mapping
    data: Mapping
    shape: Sequence[int]
    count: int | None

    def load(self) -> Tensor:
        """(N, C, H, W) in [-1, 1].

        Raises:
            FileNotFoundError, ValueError: they are not here, or fewer than two.
        """
        if self.count is None or self.count < 2:
            raise ValueError(
                f"yardstick.num_train={brief(self.count)} must be 2 or more: a mean and a "
                "covariance are taken from so many training images."
            )
        group = lineage.training_data(self.trained, self.data)
        data = load_data(group, self.shape[1], "train", self.shape[0], min_images=2)
        count = min(self.count, len(data))
        chunks = []
        for first in range(0, count, CHUNK):
            chunks.append(to_float(data.batch(range(first, min(first + CHUNK, count)))))
        return torch.cat(chunks)


def fitted(inverter: Inverter, images: TrainingImages) -> Inverter:
    """The inverter that inverts: itself, or what it makes of the training images."""
    return inverter.fit(images.load()) if isinstance(inverter, FittedInverter) else inverter


def load_yardstick(
    inverter: Inverter,
    A: ForwardOperator,
    noise_std: float,
    images: TrainingImages,
    wanted: bool,
) -> Inverter | None:
    """The yardstick of an inversion; with a warning None where A is not linear or images miss.

    Args:
        inverter: is its own yardstick where it is such an estimate, wanted or not.
    """
    if isinstance(inverter, LMMSE):  # with its own solver's settings
        return inverter
    if not wanted:
        return None
    estimate = LMMSE(noise_std)
    try:
        estimate.check_operator(A)
        return estimate.fit(images.load())
    except (FileNotFoundError, ValueError) as error:
        log.warning("No LMMSE yardstick: %s", error)
        return None
