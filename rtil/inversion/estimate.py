"""From an inverter to a reconstruction: several starts, selection, average, back-projection.

Everything here is off by default and needs no true image; the rules themselves are in
`rtil.inversion.selection`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import torch
from torch import Tensor

from rtil.inversion.batch import Measured, Part, Split
from rtil.inversion.selection import Rule, Watched, Watcher, rules, shown_to
from rtil.inversion.withheld import withhold
from rtil.inverters.adjoint import Adjoint
from rtil.inverters.data_term import MeasurementLoss
from rtil.inverters.inverter import Inverter, Spread
from rtil.models.generator import Generator
from rtil.operators import ForwardOperator, LinearOperator
from rtil.runs.truth import looks_at_truth


class Recovered(NamedTuple):
    """What is reported of a batch of B images.

    image: (B, C, H, W), selected, averaged and back-projected as asked. last: last iterate.
    loss, last_loss: (B,) of the two, over all measurements.
    others: images of the same run by the prefix of their columns. best_: with the lowest loss on
        what the inverter saw. generated_: `image` before back-projection.
    singles: (R, B, C, H, W), what `image` is the average of; None without average.
    facts: columns of B entries, see `Rule.facts`; with average each entry is a list of the R
        starts. chosen_start: the start whose reconstruction was taken, from 0.
    misfit: (B,) what the starts of an image are compared by; None for several of them.
    spread: of an inverter that knows it.
    """

    image: Tensor
    last: Tensor
    loss: Tensor
    last_loss: Tensor
    others: dict[str, Tensor]
    singles: Tensor | None
    facts: dict[str, list]
    misfit: Tensor | None = None
    spread: Spread | None = None


@dataclass(frozen=True)
class Recovery:
    """What is made of an inversion.

    Args:
        selection: name of a rule in `rtil.inversion.selection`.
        share: of the measurements that `heldout` withholds.
        tau, level: of `discrepancy`; level is in units of the [0, 1] image.
        restarts: R inversions from different starts. `image` is then that which the rule finds
            to fit best: the lowest withheld error (heldout) or measurement loss (any other).
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
        switches = {"average": self.average, "back_projection": self.back_projection}
        for key, value in switches.items():
            if not isinstance(value, bool):
                raise ValueError(f"invert: {key}={value} must be true or false.")
        if not 0 < self.share < 1:
            raise ValueError(f"invert: heldout.share={self.share} must be above 0 and below 1.")
        if self.tau <= 0 or (self.level is not None and self.level <= 0):
            raise ValueError(
                f"invert: discrepancy.tau={self.tau} and discrepancy.noise_std="
                f"{self.level} must be above 0."
            )
        if self.rule.needs_noise and not (self.level or self.noise_std):
            raise ValueError(
                f"invert: selection={self.selection} stops at the noise, and noise_std=0. "
                "Set noise_std, or the level to stop at with discrepancy.noise_std."
            )
        if not isinstance(self.restarts, int) or self.restarts < 1:
            raise ValueError(f"invert: restarts={self.restarts} must be a whole number from 1 up.")
        if self.restarts > 1 and looks_at_truth(self.selection):
            raise ValueError(
                f"invert: selection={self.selection} and restarts above 1 would choose by the "
                "true image twice; add selection=best or restarts=1."
            )

    @property
    def rule(self) -> type[Rule]:
        """The rule that `selection` names."""
        return rules()[self.selection]

    def check(self, inverter: Inverter, A: ForwardOperator) -> None:
        """Raises ValueError where the inverter or the operator has nothing to choose from.

        Several starts of an inverter with chains are refused too: the spread of one is not that
        of all, and more chains are the same work.
        """
        chooses = self.rule.watches
        if (chooses or self.restarts > 1) and not inverter.needs_generator:
            what = f"selection={self.selection}" if chooses else f"restarts={self.restarts}"
            raise ValueError(
                f"invert: {what} chooses among iterates or starts, and an inverter "
                "without a generator has one estimate. Leave it out, or use an inverter that "
                "optimises the latents of one."
            )
        if self.restarts > 1 and inverter.has_chains:
            raise ValueError(
                f"invert: restarts={self.restarts} would leave out the standard deviation and the "
                "draws of an inverter whose chains are its starts. Leave it out, and set "
                "inverter.chains."
            )
        if self.back_projection and not isinstance(A, LinearOperator):
            raise ValueError(
                f"invert: back_projection=true needs the pseudo-inverse of A, and "
                f"{A.name} is not linear. Leave it out."
            )

    def split(self, part: Part, settings: Mapping) -> Part:
        """The part with what is withheld and the data term of the rest, where the rule asks.

        Args:
            settings: that `part.loss` was built from; its perceptual distance is shared.
        """
        if not self.rule.withholds:
            return part
        withheld = withhold(part.A, self.share, self.seed)
        rest = MeasurementLoss(part.A, **settings, distance=part.loss.distance, kept=~withheld)
        return replace(part, split=Split(withheld, rest))

    def __call__(
        self,
        inverter: Inverter,
        G: Generator,
        part: Part,
        measured: Measured,
        starts: Sequence[Sequence[torch.Generator]],
    ) -> Recovered:
        """Inverts a batch from every start and reports one reconstruction of each image.

        Args:
            part: operator and data terms of the batch.
            measured: its oracle is shown every iterate of every start.
            starts: for each of the R starts a CPU generator per image.
        """
        # Starts one after another: a batch of them would need R times the memory.
        runs = [self._run(inverter, G, part, measured, rngs) for rngs in starts]
        if self.average:
            found = averaged(runs, part, measured.y)
        elif len(runs) > 1:
            found = closest(runs)
        else:
            found = runs[0]
        if not self.back_projection:
            return found
        return self._back_projected(found, part, measured.y)

    def _run(
        self,
        inverter: Inverter,
        G: Generator,
        part: Part,
        measured: Measured,
        rngs: Sequence[torch.Generator],
    ) -> Recovered:
        """One start: the inverter sees y without what is withheld, the rule all of it."""
        y, loss, withheld = measured.y, part.loss, None
        if part.split is not None:
            # Zeroed as well as left out of the loss: the inverter could look at y.
            loss, withheld = part.split.loss, part.split.withheld
            y = y * ~withheld
        bound = self._noise_square(part.A) if self.rule.needs_noise else 0.0
        # A rule that is not known to look at the true image has none to look at.
        truth = measured.oracle if looks_at_truth(self.selection) else None
        rule = self.rule(Watched(part.A, measured.y, part.loss, withheld, bound, truth))
        watcher = rule if isinstance(rule, Watcher) else None
        # The oracle watches whatever the rule: every row says what it would have picked.
        watch = shown_to(measured.oracle, watcher, measured.watch)
        found = inverter.invert(G, part.A, y, loss, rngs, watch=watch)
        selected = rule.select(found)
        return Recovered(
            selected.image,
            selected.last,
            selected.loss,
            selected.last_loss,
            {} if watcher is None else {"best_": found.image},
            None,
            rule.facts(found),
            rule.misfit(selected),
            found.spread,
        )

    def _noise_square(self, A: ForwardOperator) -> float:
        """tau^2 m s^2, what the noise explains of ||A x - y||^2."""
        level = self.level or self.noise_std
        return (2 * self.tau * level) ** 2 * A.num_measurements

    @torch.no_grad()
    def _back_projected(self, found: Recovered, part: Part, y: Tensor) -> Recovered:
        """x_hat + A^+ (y - A x_hat), with x_hat kept beside it."""
        assert isinstance(part.A, LinearOperator), "Recovery.check asks for it"
        rest = Adjoint(self.noise_std).estimate(part.A, y - part.A(found.image))
        image = found.image + rest
        others = {**found.others, "generated_": found.image}
        return found._replace(image=image, loss=part.loss(part.A(image), y), others=others)


@torch.no_grad()
def averaged(runs: Sequence[Recovered], part: Part, y: Tensor) -> Recovered:
    """The mean of R reconstructions of each image, with its own losses."""
    images = torch.stack([run.image for run in runs])
    facts = {}
    for key in runs[0].facts:
        facts[key] = [list(values) for values in zip(*(run.facts[key] for run in runs))]
    if len(runs) == 1:  # bit for bit the run itself
        return runs[0]._replace(singles=images, facts=facts)
    others = {}
    for key in runs[0].others:
        others[key] = torch.stack([run.others[key] for run in runs]).mean(0)
    # An average is no iterate: its loss is computed, not one of the runs'.
    image = images.mean(0)
    last = torch.stack([run.last for run in runs]).mean(0)
    loss, last_loss = part.loss(part.A(image), y), part.loss(part.A(last), y)
    return Recovered(image, last, loss, last_loss, others, images, facts)


@torch.no_grad()
def closest(runs: Sequence[Recovered]) -> Recovered:
    """For each image that of the R reconstructions which fits best by the rule."""
    misfit = torch.stack([run.misfit for run in runs if run.misfit is not None])
    start = misfit.argmin(0)
    rows = torch.arange(len(start), device=start.device)
    chosen = start.tolist()

    def taken(values: Sequence[Tensor]) -> Tensor:
        return torch.stack([*values])[start, rows]

    facts: dict[str, list] = {}
    for key in runs[0].facts:
        facts[key] = [runs[s].facts[key][b] for b, s in enumerate(chosen)]
    facts["chosen_start"] = chosen
    others = {}
    for key in runs[0].others:
        others[key] = taken([run.others[key] for run in runs])
    return Recovered(
        taken([run.image for run in runs]),
        taken([run.last for run in runs]),
        taken([run.loss for run in runs]),
        taken([run.last_loss for run in runs]),
        others,
        None,
        facts,
    )
