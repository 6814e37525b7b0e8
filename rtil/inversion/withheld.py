"""Measurements that an inversion does not see, so that its iterates can be judged by them."""

from __future__ import annotations

import torch
from torch import Tensor

from rtil.operators import ForwardOperator
from rtil.process.rng import seeded


def withhold(A: ForwardOperator, share: float, seed: int) -> Tensor:
    """Draws which measurements an inversion does not see: `share` of the observed ones.

    Pixels are withheld in all their channels, as those of one pixel tell of each other. One seed
    gives nested sets, the same for every image.

    Args:
        share: in (0, 1); at least one measurement is withheld and one kept.

    Returns:
        bool, True where withheld, broadcastable to A.out_shape.

    Raises:
        ValueError: A has a single measurement.
    """
    shape = A.out_shape[1:] if A.measures_images else A.out_shape
    observed = torch.ones(A.out_shape, dtype=torch.bool)
    if A.observed is not None:
        observed = A.observed.cpu().expand(A.out_shape)
    entries = (observed.any(0) if A.measures_images else observed).flatten().nonzero()[:, 0]
    if len(entries) < 2:
        raise ValueError(
            f"selection=heldout: {type(A).__name__} has {len(entries)} measurement, and one must "
            "be kept and one withheld. Use selection=best, or measure more."
        )
    count = min(max(1, round(share * len(entries))), len(entries) - 1)
    # The first `count` of one order, so that a larger share holds the smaller ones.
    order = torch.randperm(len(entries), generator=seeded("cpu", seed, "withheld measurements"))
    withheld = torch.zeros(shape, dtype=torch.bool).flatten()
    withheld[entries[order[:count]]] = True
    return withheld.view(shape)
