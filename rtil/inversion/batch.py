"""What is inverted together: images of one operator, their measurements, what is withheld of them.

Where they come from is in `rtil.inversion.problem`, what becomes of them in
`rtil.inversion.estimate`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from rtil.inversion.selection import Oracle
from rtil.inverters.data_term import MeasurementLoss
from rtil.inverters.inverter import Watch
from rtil.operators import ForwardOperator


@dataclass(frozen=True)
class Split:
    """Measurements that the inverter does not see, and the data term on the others.

    withheld: bool, broadcastable to y.
    """

    withheld: Tensor
    loss: MeasurementLoss

    def to(self, device: torch.device) -> Split:
        """The split on a device."""
        return Split(self.withheld.to(device), self.loss.to(device))


@dataclass(frozen=True)
class Part:
    """Images that one operator measures, so that they can be inverted together.

    loss: over all measurements.
    items: what is left of them for this process, in the numbering of its problem.
    split: None where the inverter sees all measurements.
    """

    A: ForwardOperator
    loss: MeasurementLoss
    items: Sequence[int] = ()
    split: Split | None = None

    def to(self, device: torch.device) -> Part:
        """The part with its operator and data terms on a device."""
        split = None if self.split is None else self.split.to(device)
        return replace(self, A=self.A.to(device), loss=self.loss.to(device), split=split)


@dataclass(frozen=True)
class Measured:
    """A batch: y (B, *A.out_shape); the true images (B, C, H, W) and their oracle, if known.

    watch: is shown every iterate of every start too, by a window.
    """

    y: Tensor
    x: Tensor | None = None
    oracle: Oracle | None = None
    watch: Watch | None = None
