"""What a paired comparison allows to be said of an arm, and which of many survive correction.

A comparison is the gain of a row (`rtil.reporting.arrange`) over its baseline. It speaks of
trainings where there are several, else of the images of the one training. These are two families:
the p values of one are of t tests over trainings, those of the other over images.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from math import isnan

from rtil.metrics.intervals import Mean
from rtil.reporting.arrange import Row
from rtil.reporting.statistics import by_seed, estimate, gains

MATTERS_DB = 0.5  # a difference below it is said not to matter
LEVEL = 0.05  # of Holm's correction: chance of one false claim in a family
AHEAD, BEHIND, SAME, UNKNOWN = "ahead", "behind", "level", "not known"
VERDICTS = (AHEAD, BEHIND, SAME, UNKNOWN)


@dataclass(frozen=True)
class Comparison:
    """A row's gain over its baseline, as told in one place of one set of files.

    Args:
        place: files and baseline, which tell equal rows of several reports apart.
    """

    place: str
    row: Row

    @property
    def key(self) -> tuple:
        """What tells it from others: the same comparison in two tables is one."""
        return self.place, self.row.measurement, self.row.label

    @property
    def over_trainings(self) -> Mean | None:
        return self.row.estimates.get("gain_psnr_db_seeds")

    @property
    def trainings(self) -> int:
        """How many it is over."""
        return self.over_trainings.n if self.over_trainings else 1

    @property
    def family(self) -> str:
        """What its verdict is over: "trainings" or "images"."""
        return "trainings" if self.over_trainings else "images"

    @property
    def gain(self) -> Mean:
        """In dB, over trainings where there are several, else over images."""
        gain = self.over_trainings or self.row.gain
        assert gain is not None  # `comparisons` leaves out what has none
        return gain

    @property
    def over_others(self) -> Mean | None:
        """Over the trainings whose own validation images did not choose the settings, in dB."""
        means = by_seed(gains(self.row.runs, self.row.base, "psnr_db"))
        chose = {run.seed for run in self.row.runs if chose_settings(run.config)}
        others = [mean for seed, mean in means.items() if seed not in chose]
        # Without any that chose there is nothing to leave out.
        return estimate(others) if len(others) < len(means) else None

    @property
    def verdict(self) -> str:
        """What its gain allows to be said."""
        return verdict_of(self.gain)


def verdict_of(gain: Mean) -> str:
    """One of VERDICTS on a difference in dB.

    A difference is excluded only where the whole interval is within +- MATTERS_DB.
    """
    if isnan(gain.ci95):
        return UNKNOWN
    if abs(gain.mean) > gain.ci95:
        return AHEAD if gain.mean > 0 else BEHIND
    return SAME if abs(gain.mean) + gain.ci95 <= MATTERS_DB else UNKNOWN


def chose_settings(config: Mapping[str, object]) -> bool:
    """Whether a run's settings were chosen on validation images with its own training."""
    tuned_seed = config.get("protocol.tuned.at.seed", config["seed"])
    return "protocol.tuned.trial" in config and tuned_seed == config["seed"]


def comparisons(place: str, rows: Iterable[Row]) -> list[Comparison]:
    """Those of the rows that have a gain; what an oracle selected is no result, and left out."""
    return [Comparison(place, row) for row in rows if row.gain and not row.oracle]


def p_value(gain: Mean) -> float:
    """Two-sided p of the paired t test that the mean is 0; 1 where there is no interval.

    t = mean / s.e., and the half-width is t_{0.975, n-1} s.e.
    """
    if isnan(gain.ci95):
        return 1.0
    if gain.ci95 == 0:
        return float(gain.mean == 0)
    from scipy import stats

    freedom = gain.n - 1
    t = abs(gain.mean) / gain.ci95 * stats.t.ppf(0.975, freedom)
    return float(2 * stats.t.sf(t, freedom))


def holm(p_values: Sequence[float], level: float = LEVEL) -> list[bool]:
    """Which hypotheses Holm's step-down procedure rejects.

    The i-th smallest of m p values is compared with level / (m - i), i from 0, until one is above
    it: the chance of any false rejection is at most level, whatever their dependence (Holm 1979).
    """
    rejected = [False] * len(p_values)
    order = sorted(range(len(p_values)), key=lambda number: p_values[number])
    for rank, number in enumerate(order):
        if p_values[number] > level / (len(order) - rank):
            break
        rejected[number] = True
    return rejected


@dataclass(frozen=True)
class Families:
    """All comparisons that are shown, each once, and those that survive."""

    members: Mapping[tuple, Comparison]
    survivors: frozenset[tuple]

    def survives(self, comparison: Comparison) -> bool:
        return comparison.key in self.survivors

    def of(self, family: str) -> list[Comparison]:
        return [one for one in self.members.values() if one.family == family]


def families(shown: Iterable[Comparison]) -> Families:
    """Corrects each family by itself."""
    members = {comparison.key: comparison for comparison in shown}
    survivors: set[tuple] = set()
    for family in ("trainings", "images"):
        keys = [key for key, one in members.items() if one.family == family]
        rejected = holm([p_value(members[key].gain) for key in keys])
        survivors |= {key for key, yes in zip(keys, rejected) if yes}
    return Families(members, frozenset(survivors))
