"""Which iterate of an inversion is reported: the only code that sees iterates and the true image.

No inverter knows of it: what watches cannot steer, and the iterate that it kept replaces the
inverter's choice after the inversion has ended. `heldout` and `discrepancy` look at measurements
alone. An oracle looks at the true image: wherever a number or picture of its choice goes, "oracle"
goes with it. To add a rule, write a `Chooser` and name it in CHOICES, `Recovery` and `select`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping

import torch
from torch import Tensor

from rtil.inverters.inverter import Loss, Reconstruction
from rtil.metrics.image import psnr, to_unit
from rtil.operators import ForwardOperator
from rtil.process.rng import seeded

CHOICES = {
    "selection": ("best", "last", "oracle", "heldout", "discrepancy"),
    "target_range": ("signed", "unit"),
}


def check_choices(selection: str, target_range: str, inverter: str, protocol: Mapping) -> None:
    """Checks what a protocol may set, before anything is read.

    Args:
        inverter: its name.
        protocol: `name`, and in `inverters` those that it is defined for, where not for all.

    Raises:
        ValueError: an unknown choice, or an inverter that the protocol does not have.
    """
    for key, value in {"selection": selection, "target_range": target_range}.items():
        if value not in CHOICES[key]:
            raise ValueError(f"invert: {key}={value} must be one of {', '.join(CHOICES[key])}.")
    known = protocol.get("inverters", [inverter])
    if inverter not in known:
        raise ValueError(
            f"invert: protocol={protocol['name']} has no inverter={inverter}, only "
            f"{' and '.join(known)}. Leave the protocol out, or choose one of them."
        )


class Oracle:
    """PSNR of the best iterate, judged by the true image: no user has it, so never a result.

    Args:
        x: true images (B, C, H, W) in [0, 1].
        keep: keeps those iterates too, in `image` (B, C, H, W), about [-1, 1].
    """

    def __init__(self, x: Tensor, keep: bool = False) -> None:
        self.x, self.keep, self.image = x, keep, None
        self.best = torch.full((len(x),), -torch.inf, device=x.device)

    def __call__(self, image: Tensor) -> None:
        found = psnr(to_unit(image), self.x)
        if self.keep:
            kept = image if self.image is None else self.image
            self.image = torch.where((found > self.best).view(-1, 1, 1, 1), image, kept)
        self.best = torch.maximum(self.best, found)


class Chooser(ABC):
    """Watches an inversion and keeps one iterate of each image, chosen by its measurements.

    Attributes:
        image: (B, C, H, W) the kept iterates, None before the first is shown.
        step: (B,) their numbers among the iterates shown, from 0; -1 where none was accepted.
        shown: number of iterates shown.

    Note: applies A once more to every iterate; no sync with the device.
    """

    def __init__(self, A: ForwardOperator, y: Tensor) -> None:
        self.A, self.y, self.image, self.shown = A, y, None, 0
        self.step = torch.full((len(y),), -1, device=y.device)

    @abstractmethod
    def accepts(self, image: Tensor) -> Tensor:
        """Whether the iterate of each image takes the place of the one kept, (B,) bool."""

    def __call__(self, image: Tensor) -> None:
        accepted = self.accepts(image)
        kept = image if self.image is None else self.image
        self.image = torch.where(accepted.view(-1, 1, 1, 1), image, kept)
        self.step = torch.where(accepted, self.shown, self.step)
        self.shown += 1


class Withheld(Chooser):
    """Keeps the iterate with the lowest mean squared error on the withheld measurements.

    Attributes:
        error: (B,) of the kept iterates, on [-1, 1].

    Args:
        withheld: from `withhold`.
    """

    def __init__(self, A: ForwardOperator, y: Tensor, withheld: Tensor) -> None:
        super().__init__(A, y)
        self.withheld = withheld
        self.count = int(withheld.expand(A.out_shape).sum())
        self.error = torch.full((len(y),), torch.inf, device=y.device, dtype=y.dtype)

    def accepts(self, image: Tensor) -> Tensor:
        rest = (self.A(image) - self.y) * self.withheld
        error = rest.square().flatten(1).sum(1) / self.count
        accepted = error < self.error
        self.error = torch.where(accepted, error, self.error)
        return accepted


class Discrepancy(Chooser):
    """Keeps the first iterate whose residual is that of the noise (Morozov 1966).

    ||A x - y||^2 <= tau^2 m s^2,    s = 2 noise_std.

    Attributes:
        reached: (B,) whether one did.

    Args:
        noise_std: of the measurements, in units of the [0, 1] image.
        tau: 1 is the expected residual of the true image.
    """

    def __init__(self, A: ForwardOperator, y: Tensor, noise_std: float, tau: float) -> None:
        super().__init__(A, y)
        self.bound = (2 * tau * noise_std) ** 2 * A.num_measurements

    @property
    def reached(self) -> Tensor:
        return self.step >= 0

    def accepts(self, image: Tensor) -> Tensor:
        residual = (self.A(image) - self.y).square().flatten(1).sum(1)
        return (residual <= self.bound) & ~self.reached


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
    places = (observed.any(0) if A.measures_images else observed).flatten().nonzero()[:, 0]
    if len(places) < 2:
        raise ValueError(
            f"selection=heldout: {type(A).__name__} has {len(places)} measurement, and one must "
            "be kept and one withheld. Use selection=best, or measure more."
        )
    count = min(max(1, round(share * len(places))), len(places) - 1)
    order = torch.randperm(len(places), generator=seeded("cpu", seed, "withheld measurements"))
    withheld = torch.zeros(shape, dtype=torch.bool).flatten()
    withheld[places[order[:count]]] = True
    return withheld.view(shape)


@torch.no_grad()
def select(
    selection: str,
    found: Reconstruction,
    watcher: Oracle | Chooser | None,
    A: ForwardOperator,
    y: Tensor,
    loss: Loss,
) -> Reconstruction:
    """What the inverter found, with the selected iterate and its measurement loss as its image.

    Args:
        selection: best (lowest measurement loss), last, or one that `watcher` has kept iterates
            for: oracle (published code), heldout, discrepancy (lowest loss where none reaches it).
        watcher: has seen the iterates.
        y, loss: all measurements, where the inverter has seen a part of them too.
    """
    if selection == "last":
        return found._replace(image=found.last, loss=found.last_loss)
    if selection == "best":
        return found
    image = watcher.image
    if selection == "discrepancy":
        image = torch.where(watcher.reached.view(-1, 1, 1, 1), image, found.image)
    if selection == "heldout":
        found = found._replace(last_loss=loss(A(found.last), y))
    return found._replace(image=image, loss=loss(A(image), y))


def facts(found: Reconstruction, chooser: Chooser) -> dict[str, list]:
    """Which iterate a chooser selected, and why: columns of B entries.

    chosen_step: its row in `found.history`, from 0. chosen_stage: its stage or start, from 0.
    withheld_rms: its error on withheld measurements, in units of the [0, 1] image.
    discrepancy_reached: false where no iterate did and the lowest loss was taken.
    """
    before = len(found.history) - chooser.shown  # of stages that are not shown
    step, columns = chooser.step.cpu(), {}
    if isinstance(chooser, Withheld):
        columns["withheld_rms"] = (chooser.error.sqrt() / 2).tolist()
    if isinstance(chooser, Discrepancy):
        columns["discrepancy_reached"] = chooser.reached.tolist()
        step = torch.where(chooser.reached.cpu(), step, found.history[before:].argmin(0))
    step = step + before
    stage = torch.bucketize(step, torch.tensor(found.starts), right=True) - 1
    return {"chosen_step": step.tolist(), "chosen_stage": stage.tolist(), **columns}
