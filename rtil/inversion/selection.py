"""Which iterate of an inversion is reported: the only code that sees iterates and the true image.

No inverter knows of it: what watches cannot steer, and the iterate that it kept replaces the
inverter's choice after the inversion has ended. `heldout` and `discrepancy` look at measurements
alone. `oracle` and `authors` look at the true image (`rtil.runs.truth`): wherever a number or
picture of their choice goes, "oracle" goes with it. To add a rule, write a final subclass of
`Rule` here: `selection=NAME` finds it.
"""

from __future__ import annotations

import inspect
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import ClassVar, final

import torch
from torch import Tensor

from rtil.inverters.data_term import MeasurementLoss
from rtil.inverters.inverter import Reconstruction
from rtil.metrics.image import psnr, to_unit
from rtil.operators import ForwardOperator

TARGET_RANGES = ("signed", "unit")


class Oracle:
    """PSNR of the best iterate, judged by the true image: no user has it, so never a result.

    Args:
        x: true images (B, C, H, W) in [0, 1].
        keep: keeps those iterates too, in `image` (B, C, H, W), about [-1, 1].
    """

    def __init__(self, x: Tensor, keep: bool = False) -> None:
        self.x, self.keep = x, keep
        self.image: Tensor | None = None
        self.best = torch.full((len(x),), -torch.inf, device=x.device)

    def __call__(self, image: Tensor) -> None:
        score = psnr(to_unit(image), self.x)
        if self.keep:
            # Strictly better: the first of equal iterates stays.
            before = image if self.image is None else self.image
            self.image = torch.where((score > self.best).view(-1, 1, 1, 1), image, before)
        self.best = torch.maximum(self.best, score)


@dataclass(frozen=True)
class Watched:
    """What a rule may look at while a batch is inverted from one start.

    A, y, loss: operator, all measurements (B, *A.out_shape) and their data term, where the
        inverter sees a part of them too.
    withheld: bool, broadcastable to y, what it does not see; None where it sees all.
    bound: the largest ||A x - y||^2 that the noise explains; 0 where no rule asks.
    oracle: knows the true images, and is shown every iterate as well; None where there are none,
        or the rule is not among those that may look at them.
    """

    A: ForwardOperator
    y: Tensor
    loss: MeasurementLoss
    withheld: Tensor | None = None
    bound: float = 0.0
    oracle: Oracle | None = None

    @torch.no_grad()
    def measured(self, image: Tensor) -> Tensor:
        """Loss of images (B, C, H, W) over all measurements, (B,)."""
        return self.loss(self.A(image), self.y)


class Rule(ABC):
    """Selects one iterate of each image, after the inversion of a batch from one start.

    Attributes:
        name: its value of `selection`.
        withholds: needs measurements that the inverter does not see.
        needs_noise: needs noise in the measurements.
        watches: is shown every iterate; such a rule is a subclass of `Watcher`.
    """

    name: ClassVar[str]
    withholds: ClassVar[bool] = False
    needs_noise: ClassVar[bool] = False
    watches: ClassVar[bool] = False

    def __init__(self, batch: Watched) -> None:
        self.batch = batch

    @abstractmethod
    def select(self, found: Reconstruction) -> Reconstruction:
        """What the inverter found, with the selected iterate and its loss as its image.

        Both losses are over all measurements.
        """

    @abstractmethod
    def misfit(self, selected: Reconstruction) -> Tensor:
        """What several starts of an image are compared by, lowest first, (B,)."""

    @abstractmethod
    def facts(self, found: Reconstruction) -> dict[str, list]:
        """Which iterate was selected, and why: columns of B entries; {} where rows say it.

        chosen_step: its row in `found.history`, from 0. chosen_stage: its stage or start, from 0.
        """


@final
class Best(Rule):
    """The iterate with the lowest measurement loss, which the inverter itself returns."""

    name = "best"

    def select(self, found: Reconstruction) -> Reconstruction:
        return found

    def misfit(self, selected: Reconstruction) -> Tensor:
        return selected.loss

    def facts(self, found: Reconstruction) -> dict[str, list]:
        return {}


@final
class Last(Rule):
    """The last iterate."""

    name = "last"

    def select(self, found: Reconstruction) -> Reconstruction:
        return found._replace(image=found.last, loss=found.last_loss)

    def misfit(self, selected: Reconstruction) -> Tensor:
        return selected.loss

    def facts(self, found: Reconstruction) -> dict[str, list]:
        return {}


@final
class ByOracle(Rule):
    """The iterate closest to the true image: never a result.

    Differs from the published code, which weighs measurements too: see `Authors`.
    """

    name = "oracle"

    def select(self, found: Reconstruction) -> Reconstruction:
        oracle = self.batch.oracle
        assert oracle is not None and oracle.image is not None
        return found._replace(image=oracle.image, loss=self.batch.measured(oracle.image))

    def misfit(self, selected: Reconstruction) -> Tensor:
        return selected.loss

    def facts(self, found: Reconstruction) -> dict[str, list]:
        return {}


class Watcher(Rule):
    """Watches an inversion and keeps one iterate of each image.

    Attributes:
        image: (B, C, H, W) the kept iterates, None before the first is shown.
        step: (B,) their numbers among the iterates shown, from 0; -1 where none was accepted.
        shown: number of iterates shown.

    Note: applies A once more to every iterate; no sync with the device.
    """

    watches = True

    def __init__(self, batch: Watched) -> None:
        super().__init__(batch)
        y = batch.y
        self.image: Tensor | None = None
        self.shown = 0
        self.step = torch.full((len(y),), -1, device=y.device)

    @abstractmethod
    def accepts(self, image: Tensor) -> Tensor:
        """Whether the iterate of each image takes the place of the one kept, (B,) bool."""

    def __call__(self, image: Tensor) -> None:
        accepted = self.accepts(image)
        # torch.where and no branch: asking a GPU which images accepted would wait for it.
        before = image if self.image is None else self.image
        self.image = torch.where(accepted.view(-1, 1, 1, 1), image, before)
        self.step = torch.where(accepted, self.shown, self.step)
        self.shown += 1

    def place(self, found: Reconstruction, step: Tensor) -> dict[str, list]:
        """chosen_step and chosen_stage of the iterates with these numbers among those shown."""
        step = step + len(found.history) - self.shown  # stages that are not shown come first
        stage = torch.bucketize(step, torch.tensor(found.starts), right=True) - 1
        return {"chosen_step": step.tolist(), "chosen_stage": stage.tolist()}


@final
class Heldout(Watcher):
    """The iterate with the lowest mean squared error on the withheld measurements.

    withheld_rms: the root of that error, in units of the [0, 1] image.
    """

    name = "heldout"
    withholds = True

    def __init__(self, batch: Watched) -> None:
        super().__init__(batch)
        assert batch.withheld is not None
        y = batch.y
        self.withheld = batch.withheld
        self.error = torch.full((len(y),), torch.inf, device=y.device, dtype=y.dtype)
        self.count = int(self.withheld.expand(batch.A.out_shape).sum())

    def accepts(self, image: Tensor) -> Tensor:
        rest = (self.batch.A(image) - self.batch.y) * self.withheld
        error = rest.square().flatten(1).sum(1) / self.count
        accepted = error < self.error
        self.error = torch.where(accepted, error, self.error)
        return accepted

    def select(self, found: Reconstruction) -> Reconstruction:
        assert self.image is not None
        # The inverter knows its last iterate's loss on what it saw, not on all measurements.
        last_loss = self.batch.measured(found.last)
        loss = self.batch.measured(self.image)
        return found._replace(image=self.image, loss=loss, last_loss=last_loss)

    def misfit(self, selected: Reconstruction) -> Tensor:
        return self.error.sqrt() / 2

    def facts(self, found: Reconstruction) -> dict[str, list]:
        rms = (self.error.sqrt() / 2).tolist()
        return {**self.place(found, self.step.cpu()), "withheld_rms": rms}


@final
class Discrepancy(Watcher):
    """The first iterate whose residual is that of the noise (Morozov 1966).

    ||A x - y||^2 <= tau^2 m s^2,    s = 2 noise_std,

    and where none reaches it the one with the lowest loss. discrepancy_reached: whether one did.
    """

    name = "discrepancy"
    needs_noise = True

    @property
    def reached(self) -> Tensor:
        return self.step >= 0

    def accepts(self, image: Tensor) -> Tensor:
        residual = (self.batch.A(image) - self.batch.y).square().flatten(1).sum(1)
        # The first that fits the noise: later iterates begin to fit the noise itself.
        return (residual <= self.batch.bound) & ~self.reached

    def select(self, found: Reconstruction) -> Reconstruction:
        assert self.image is not None
        image = torch.where(self.reached.view(-1, 1, 1, 1), self.image, found.image)
        return found._replace(image=image, loss=self.batch.measured(image))

    def misfit(self, selected: Reconstruction) -> Tensor:
        return selected.loss

    def facts(self, found: Reconstruction) -> dict[str, list]:
        reached = self.reached.cpu()
        lowest = found.history[len(found.history) - self.shown :].argmin(0)
        step = torch.where(reached, self.step.cpu(), lowest)
        return {**self.place(found, step), "discrepancy_reached": reached.tolist()}


@final
class Authors(Watcher):
    """The iterate that the published code keeps (both notebooks, `save_on_ref`): never a result.

    One threshold b serves two distances. With e = mean (x - x*)^2 to the true image x* and
    l = mean (A x - y)^2 over the measurements, an iterate x is kept

        and b = e   where e < b,
        and b = l   else, where l < b,        b = inf before the first.

    So the closest iterate is kept until a measurement loss falls below its distance; from then on
    the lowest measurement loss is, but where an iterate's distance is lower still.

    Differs from the published code: the iterate after the last update is looked at too, and b is
    that of all stages of ILO (inverter.best_per_stage=true: of the last, as published).
    """

    name = "authors"

    def __init__(self, batch: Watched) -> None:
        super().__init__(batch)
        assert batch.oracle is not None
        y = batch.y
        self.x = batch.oracle.x
        self.num_measurements = batch.A.num_measurements
        self.bound = torch.full((len(y),), torch.inf, device=y.device, dtype=y.dtype)

    def accepts(self, image: Tensor) -> Tensor:
        # Both of [0, 1] images, and none of them clipped. Any common unit gives the same choice.
        error = ((image + 1) / 2 - self.x).square().flatten(1).mean(1)
        residual = (self.batch.A(image) - self.batch.y).square().flatten(1).sum(1)
        loss = residual / (4 * self.num_measurements)
        closer, fitting = error < self.bound, loss < self.bound
        self.bound = torch.where(closer, error, torch.where(fitting, loss, self.bound))
        return closer | fitting

    def select(self, found: Reconstruction) -> Reconstruction:
        assert self.image is not None
        return found._replace(image=self.image, loss=self.batch.measured(self.image))

    def misfit(self, selected: Reconstruction) -> Tensor:
        return selected.loss

    def facts(self, found: Reconstruction) -> dict[str, list]:
        return self.place(found, self.step.cpu())


def rules() -> dict[str, type[Rule]]:
    """Every rule by its name."""
    # Found by their class, so that a new rule is named in no list.
    classes = (*Rule.__subclasses__(), *Watcher.__subclasses__())
    return {rule.name: rule for rule in classes if not inspect.isabstract(rule)}


def check_choices(
    selection: str, target_range: str, inverter: str, protocol: Mapping, command: str = "invert"
) -> None:
    """Checks what a protocol may set, before anything is read.

    Args:
        inverter: its name.
        protocol: `name`, and in `inverters` those that it is defined for, where not for all.
        command: that the choices were given to, for the message.

    Raises:
        ValueError: an unknown choice, or an inverter that the protocol does not have.
    """
    allowed = {
        "selection": (selection, tuple(rules())),
        "target_range": (target_range, TARGET_RANGES),
    }
    for key, (value, known) in allowed.items():
        if value not in known:
            raise ValueError(f"{command}: {key}={value} must be one of {', '.join(known)}.")
    inverters = protocol.get("inverters", [inverter])
    if inverter not in inverters:
        raise ValueError(
            f"{command}: protocol={protocol['name']} has no inverter={inverter}, only "
            f"{' and '.join(inverters)}. Leave the protocol out, or choose one of them."
        )


def shown_to(*watchers: Callable[[Tensor], None] | None) -> Callable[[Tensor], None] | None:
    """A watch that shows every iterate to those of the watchers that there are."""
    present = [watcher for watcher in watchers if watcher is not None]
    if not present:
        return None

    def watch(image: Tensor) -> None:
        for watcher in present:
            watcher(image)

    return watch
