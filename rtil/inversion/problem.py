"""What `rtil.inversion.loop` works on: the contract of measurements that are to be inverted.

Held-out images that are measured here are in `rtil.inversion.held_out`, measurements that the user
gives in files, without a true image, in `rtil.inversion.user_files`. To add another, subclass
`Problem` and let `rtil.inversion.setup` build it.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from rtil.inversion.batch import Measured, Part
from rtil.inversion.estimate import Recovered
from rtil.inverters.data_term import MeasurementLoss
from rtil.inverters.inverter import Reconstruction
from rtil.metrics.perceptual import Perceptual
from rtil.operators import ForwardOperator, build_operator
from rtil.operators.task import NOISE
from rtil.process.rng import seed_of, seeded


@dataclass(frozen=True)
class Measuring:
    """How images are measured and how well an estimate explains it.

    task: of configs/task. knobs: by name, the task's own and noise_std; None for all others.
    seed: draws the operator and the noise. loss: settings of `MeasurementLoss`.
    per_image: whether every image has an operator of its own, drawn from the seed and its name.
    """

    task: Mapping
    knobs: Mapping[str, float | None]
    seed: int
    loss: Mapping
    per_image: bool = False

    @property
    def noise_std(self) -> float:
        """Of the measurements, in units of the [0, 1] image."""
        return self.knobs[NOISE] or 0.0

    @property
    def knob(self) -> str:
        """The setting that the task is swept over."""
        return str(self.task["knob"])

    def part(
        self,
        shape: Sequence[int],
        mask: Tensor | None = None,
        distance: Perceptual | None = None,
        image: str | None = None,
    ) -> Part:
        """Operator and data term for images of a shape, without items.

        Args:
            shape: (C, H, W).
            mask: (H, W) bool, what is observed, where the seed does not draw it.
            distance: for the data term, instead of loading one.
            image: name of the one that the operator is for, where each has its own.

        Raises:
            ValueError: settings that do not fit the shape. FileNotFoundError: no weights.
        """
        seed = self.seed if image is None else seed_of(self.seed, image, "operator")
        A = build_operator(self.task, shape, seed, mask, **self.knobs)
        return Part(A, MeasurementLoss(A, **self.loss, distance=distance))

    def measured(self, A: ForwardOperator, x: Tensor, names: Sequence[str]) -> Tensor:
        """y = A x + noise; the noise of an image does not depend on its batch or the device.

        Args:
            x: (B, C, H, W) in [-1, 1]. names: of the images, which seed the noise.
        """
        rngs = [seeded("cpu", self.seed, name, "measurement noise") for name in names]
        return A.noisy(A(x), self.noise_std, rngs)


@dataclass(frozen=True)
class Batch:
    """A batch after its inversion.

    items: in the numbering of its problem.
    found: what is reported of the inverter's run. linear: by the yardstick, where there is one.
    seconds: that the inversion took for each image.
    """

    items: Sequence[int]
    measured: Measured
    found: Recovered
    linear: Reconstruction | None
    seconds: float


class Problem(ABC):
    """Measurements to invert, and what becomes of their reconstructions.

    Attributes:
        place: directory of the results.
        parts: one for each operator, with what is left to do for this process.
        left: whether any process has something left.
    """

    place: Path
    parts: Sequence[Part]
    left: bool

    @abstractmethod
    def claim(self, provenance: Mapping) -> None:
        """Prepares `place`; every process calls it.

        Raises:
            ValueError: it holds another run.
            RuntimeError: another process works there.
        """

    @abstractmethod
    def not_done(self, items: Iterable[int]) -> list[int]:
        """The items without a result, also of a process that ended after this one began."""

    @abstractmethod
    def release(self) -> None:
        """Lets others work on `place`; called however the work ended."""

    @abstractmethod
    def name(self, item: int) -> str:
        """What the random draws of an item's inversion are seeded with."""

    @abstractmethod
    def measure(self, A: ForwardOperator, items: Sequence[int]) -> Measured:
        """The measurements of a batch."""

    @abstractmethod
    def keep(self, A: ForwardOperator, batch: Batch) -> None:
        """Writes what is known of a batch."""

    @abstractmethod
    def summarise(self) -> None:
        """Prints what all processes wrote."""
