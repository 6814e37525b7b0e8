"""From an inverter to a reconstruction: several starts, selection, average, back-projection.

Everything here is off by default and needs no true image; the rules themselves are in
`rtil.inversion.selection`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from rtil.inversion.selection import (
    Chooser,
    Discrepancy,
    Oracle,
    Withheld,
    facts,
    select,
    withhold,
)
from rtil.inverters.adjoint import Adjoint
from rtil.inverters.data_term import MeasurementLoss
from rtil.inverters.inverter import Inverter, Watch
from rtil.models.generator import Generator
from rtil.operators import ForwardOperator, LinearOperator


class Split(NamedTuple):
    """withheld: bool, broadcastable to y. loss: the data term on the other measurements."""

    withheld: Tensor
    loss: MeasurementLoss


class Recovered(NamedTuple):
    """What is reported of a batch of B images.

    image: (B, C, H, W), selected, averaged and back-projected as asked. last: last iterate.
    loss, last_loss: (B,) of the two, over all measurements.
    others: images of the same run by the prefix of their columns. best_: with the lowest loss on
        what the inverter saw. generated_: `image` before back-projection.
    singles: (R, B, C, H, W), what `image` is the average of; None without average. facts: columns
    of B entries, see `rtil.inversion.selection.facts`; with average each entry is a list of
        the R starts. chosen_start: the start whose reconstruction was taken, from 0.
    """

    image: Tensor
    last: Tensor
    loss: Tensor
    last_loss: Tensor
    others: dict[str, Tensor]
    singles: Tensor | None
    facts: dict[str, list]


@dataclass(frozen=True)
class Recovery:
    """What is made of an inversion.

    Args:
        selection: of CHOICES in `rtil.inversion.selection`.
        share: of the measurements that `heldout` withholds.
        tau, level: of `discrepancy`; level is in units of the [0, 1] image.
        restarts: R inversions from different starts. `image` is then that with the lowest
            withheld error (heldout) or measurement loss (any other selection).
        average: their average instead. If each is a draw from the posterior, it approaches the
            posterior mean, which has the lowest expected squared error and is smooth.
        back_projection: adds A^+ (y - A x_hat): the measurements then explain y, and what A does
            not see stays the generator's. Stops at the noise as `Adjoint` does.
        noise_std: of the measurements, in units of the [0, 1] image.
        seed: draws what is withheld.

    Raises:
        ValueError: settings out of range or that contradict each other.
    """

    selection: str = "best"
    share: float = 0.1
    tau: float = 1.0
    level: float | None = None
    restarts: int = 1
    average: bool = False
    back_projection: bool = False
    noise_std: float = 0.0
    seed: int = 0

    def __post_init__(self) -> None:
        numbers = {
            "heldout.share": self.share,
            "discrepancy.tau": self.tau,
            "discrepancy.noise_std": self.level or 0.0,
            "restarts": self.restarts,
        }
        for key, value in numbers.items():
            if not isinstance(value, int | float) or isinstance(value, bool):
                raise ValueError(f"invert: {key}={value} must be a number.")
        for key, value in {
            "average": self.average,
            "back_projection": self.back_projection,
        }.items():
            if not isinstance(value, bool):
                raise ValueError(f"invert: {key}={value} must be true or false.")
        if not 0 < self.share < 1:
            raise ValueError(f"invert: heldout.share={self.share} must be above 0 and below 1.")
        if self.tau <= 0 or (self.level is not None and self.level <= 0):
            raise ValueError(
                f"invert: discrepancy.tau={self.tau} and discrepancy.noise_std="
                f"{self.level} must be above 0."
            )
        if self.selection == "discrepancy" and not (self.level or self.noise_std):
            raise ValueError(
                "invert: selection=discrepancy stops at the noise, and noise_std=0. "
                "Set noise_std, or the level to stop at with discrepancy.noise_std."
            )
        if not isinstance(self.restarts, int) or self.restarts < 1:
            raise ValueError(f"invert: restarts={self.restarts} must be a whole number from 1 up.")
        if self.restarts > 1 and self.selection == "oracle":
            raise ValueError(
                "invert: selection=oracle and restarts above 1 would choose by the "
                "true image twice; add selection=best or restarts=1."
            )

    def check(self, inverter: Inverter, A: ForwardOperator) -> None:
        """Raises ValueError where the inverter or the operator has nothing to choose from."""
        chooses = self.selection in ("heldout", "discrepancy")
        if (chooses or self.restarts > 1) and not inverter.needs_generator:
            what = f"selection={self.selection}" if chooses else f"restarts={self.restarts}"
            raise ValueError(
                f"invert: {what} chooses among iterates or starts, and an inverter "
                "without a generator has one estimate. Leave it out, or use "
                "inverter=ilo, csgm or mgan."
            )
        if self.back_projection and not isinstance(A, LinearOperator):
            raise ValueError(
                f"invert: back_projection=true needs the pseudo-inverse of A, and "
                f"{type(A).__name__} is not linear. Leave it out."
            )

    def split(self, A: ForwardOperator, loss: MeasurementLoss, settings: Mapping) -> Split | None:
        """What is withheld and the data term of the rest; None where all of y is shown.

        Args:
            settings: that `loss` was built from; its LPIPS network is shared.
        """
        if self.selection != "heldout":
            return None
        withheld = withhold(A, self.share, self.seed)
        kept = MeasurementLoss(A, **settings, lpips_module=loss.lpips, kept=~withheld)
        return Split(withheld, kept)

    def __call__(
        self,
        inverter: Inverter,
        G: Generator,
        A: ForwardOperator,
        y: Tensor,
        loss: MeasurementLoss,
        split: Split | None,
        starts: Sequence[Sequence[torch.Generator]],
        oracle: Oracle | None = None,
    ) -> Recovered:
        """Inverts a batch from every start and reports one reconstruction of each image.

        Args:
            y, loss: all measurements and their data term. split: from `split`, for these.
            starts: for each of the R starts a CPU generator per image.
            oracle: shown every iterate of every start.
        """
        runs = [self._run(inverter, G, A, y, loss, split, rngs, oracle) for rngs in starts]
        found = runs[0] if len(runs) == 1 and not self.average else self._join(runs, A, y, loss)
        if not self.back_projection:
            return found
        with torch.no_grad():
            rest = Adjoint(self.noise_std).estimate(A, y - A(found.image))
            image = found.image + rest
            return found._replace(
                image=image,
                loss=loss(A(image), y),
                others={**found.others, "generated_": found.image},
            )

    def _run(self, inverter, G, A, y, loss, split, rngs, oracle) -> Recovered:
        """One start: the inverter sees y without what is withheld, the chooser all of it."""
        chooser = self._chooser(A, y, split)
        term, shown = (split.loss, y * split.loss.kept) if split else (loss, y)
        found = inverter.invert(G, A, shown, term, rngs, watch=both(oracle, chooser))
        chosen = select(self.selection, found, chooser or oracle, A, y, loss)
        return Recovered(
            chosen.image,
            chosen.last,
            chosen.loss,
            chosen.last_loss,
            {"best_": found.image} if chooser else {},
            None,
            facts(found, chooser) if chooser else {},
        )

    def _chooser(self, A: ForwardOperator, y: Tensor, split: Split | None) -> Chooser | None:
        if self.selection == "heldout":
            return Withheld(A, y, split.withheld)
        if self.selection == "discrepancy":
            return Discrepancy(A, y, self.level or self.noise_std, self.tau)
        return None

    @torch.no_grad()
    def _join(
        self, runs: list[Recovered], A: ForwardOperator, y: Tensor, loss: MeasurementLoss
    ) -> Recovered:
        """One reconstruction of R: their average, or for each image the start that fits best."""
        images = torch.stack([run.image for run in runs])
        if not self.average:
            score = torch.stack([run.loss for run in runs])
            if self.selection == "heldout":
                score = torch.tensor([run.facts["withheld_rms"] for run in runs])
            start, rows = score.argmin(0).to(y.device), torch.arange(len(y), device=y.device)
            chosen = start.tolist()
            columns = {
                key: [runs[s].facts[key][b] for b, s in enumerate(chosen)] for key in runs[0].facts
            }
            parts = (
                torch.stack([getattr(run, key) for run in runs])[start, rows]
                for key in ("image", "last", "loss", "last_loss")
            )
            others = {
                key: torch.stack([run.others[key] for run in runs])[start, rows]
                for key in runs[0].others
            }
            return Recovered(*parts, others, None, {**columns, "chosen_start": chosen})
        columns = {
            key: [list(values) for values in zip(*(run.facts[key] for run in runs))]
            for key in runs[0].facts
        }
        if len(runs) == 1:
            return runs[0]._replace(singles=images, facts=columns)
        image, last = images.mean(0), torch.stack([run.last for run in runs]).mean(0)
        others = {
            key: torch.stack([run.others[key] for run in runs]).mean(0) for key in runs[0].others
        }
        return Recovered(image, last, loss(A(image), y), loss(A(last), y), others, images, columns)


def both(oracle: Oracle | None, chooser: Chooser | None) -> Watch | None:
    """A watch that shows every iterate to those of the two that there are."""
    watchers: list[Callable[[Tensor], None]] = [w for w in (oracle, chooser) if w is not None]
    if not watchers:
        return None

    def watch(image: Tensor) -> None:
        for watcher in watchers:
            watcher(image)

    return watch
