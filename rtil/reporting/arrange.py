"""Rows of a report: each arm at a measurement with its estimates, or what is missing of it.

What is compared comes from `rtil.reporting.collect`, the numbers from
`rtil.reporting.statistics`; `rtil.reporting.tables` writes rows as text and as table.json.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from rtil.reporting.collect import Arm, Cell, Measurement
from rtil.reporting.statistics import Gain, Scores, estimates_of
from rtil.runs.commands import commands
from rtil.runs.keys import FILES, differing_keys, is_under, tells_apart


@dataclass(frozen=True)
class Place:
    """Where a row stands in a figure of curves."""

    panel: str
    line: str
    x: Any


@dataclass(frozen=True)
class Row:
    """One arm at one measurement; where it was not run, `missing` and without estimates.

    Attributes:
        place: in the experiment's figure, or in that of its series over the knob.
        estimates: by metric; "gain_" is a paired difference to the baseline over images, with
            "_seeds" over seeds, and "sets" PSNR over sets of images.
        by_seed: means of the paired differences.
        commands: give what is missing, the arm or its linear estimate.
        differs: settings that the baseline has otherwise.
        unpaired: seeds or images that the gains leave out.
        job: what an experiment planned it as, and planned how many images.
        more: commands that fill the images that are missing.
    """

    measurement: Measurement
    arm: Arm
    place: Place
    estimates: Mapping[str, Gain | None] = field(default_factory=dict)
    by_seed: Mapping[str, Mapping[int | str, float]] = field(default_factory=dict)
    baseline: Arm | None = None
    commands: tuple[str, ...] = ()
    differs: tuple[str, ...] = ()
    unpaired: str = ""
    job: Mapping[str, str] | None = None
    planned: int = 0
    more: tuple[str, ...] = ()

    @property
    def missing(self) -> bool:
        return not self.arm.runs

    @property
    def gap(self) -> str:
        """What is missing of what an experiment planned, "" where all is there."""
        if self.more:
            return "Fewer images than planned"
        return "Missing" if self.planned and self.missing else ""

    @property
    def psnr(self) -> Gain | None:
        return self.estimates.get("psnr_db")

    @property
    def gain(self) -> Gain | None:
        """Of PSNR over the baseline's."""
        return self.estimates.get("gain_psnr_db")

    @property
    def n(self) -> int:
        """Images, averaged over the seeds."""
        return self.psnr.n if self.psnr else 0

    @property
    def fewest(self) -> int:
        """Images of the seed that has the fewest."""
        return min((len(run.rows) for run in self.arm.runs), default=0)


def rows_of(cells: Iterable[Cell], scores: Scores, baseline: str, size: int = 0) -> list[Row]:
    """Every arm of the cells, those that are missing after the others of their measurement.

    Args:
        size: of the sets of images that PSNR is averaged over besides; 0: of none.
    """
    rows = []
    for cell in cells:
        rows += [row_of(cell, arm, scores, baseline, size) for arm in cell.arms]
        for name in cell.missing:
            lines: list[str] = []
            # The missing arm is run as each of the others was.
            for arm in cell.arms:
                for run in arm.runs:
                    lines += commands(run, name, arm.settings)
            at, arm = cell.measurement, Arm(name)
            rows.append(Row(at, arm, place_of(at, arm), commands=tuple(dict.fromkeys(lines))))
    return rows


def place_of(at: Measurement, arm: Arm) -> Place:
    """In the figure of its series."""
    return Place(", ".join(at.series.values()), arm.label + at.noise, at.value)


def row_of(cell: Cell, arm: Arm, scores: Scores, baseline: str, size: int) -> Row:
    """An arm that was run."""
    base = reference(cell, arm, baseline)
    estimates, by_seed = estimates_of(scores, arm.runs, base.runs if base else (), size)
    fill: list[str] = []
    # A linear estimate is there for every linear task, or a command makes it.
    if estimates["lmmse_psnr_db"] is None and arm.runs[0].config["task.linear"]:
        lines = [commands(run, arm.name, arm.settings)[-1] for run in arm.runs]
        fill = [f"{line} yardstick.use=true" for line in lines]
    return Row(
        cell.measurement,
        arm,
        place_of(cell.measurement, arm),
        estimates,
        by_seed,
        base,
        tuple(fill),
        differing(arm, base) if base else (),
        unpaired(arm, base) if base else "",
    )


def reference(cell: Cell, arm: Arm, baseline: str) -> Arm | None:
    """The baseline's arm that `arm` is paired with: with its settings, or the only one.

    It is of the same images, protocol and network (settings under `model`), and what an oracle
    selected is compared with nothing but what an oracle selected.
    """
    if arm.name == baseline:
        return None
    alike = [other for other in cell.arms if other.name == baseline and comparable(other, arm)]
    # A family's own settings are not the baseline's.
    keys = {key for other in alike for key in other.settings if not key.startswith("rtil.")}
    exact = [
        other
        for other in alike
        if all(other.settings.get(key) == arm.settings.get(key) for key in keys)
    ]
    # One with the same settings, or the only one; among several none is the right one.
    for arms in (exact, alike):
        if len(arms) == 1:
            return arms[0]
    return None


def comparable(arm: Arm, other: Arm) -> bool:
    """Whether they share what is no effect of an arm; earlier runs do not say their files."""

    def common(arm: Arm) -> tuple:
        run = arm.runs[0]
        network = {key: text for key, text in arm.settings.items() if key.startswith("model.")}
        return arm.oracle, run.protocol, run.config.get("split", "test"), network

    files, others = ({FILES: one.runs[0].config.get(FILES)} for one in (arm, other))
    return common(arm) == common(other) and not differing_keys(files, others)


def differing(arm: Arm, base: Arm) -> tuple[str, ...]:
    """Settings in which runs of an arm differ from the baseline's of their seeds."""

    def is_setting(key: str) -> bool:
        # A family is the arm's own.
        return tells_apart(key) and not is_under(key, ["rtil"])

    # Runs of other seeds are not compared, so what they have otherwise does not matter.
    theirs = {run.seed: run.config for run in base.runs}
    lines: list[str] = []
    for run in arm.runs:
        if run.seed in theirs:
            lines += differing_keys(theirs[run.seed], run.config, is_setting)
    return tuple(dict.fromkeys(lines))


def unpaired(arm: Arm, base: Arm) -> str:
    """Which seeds or images a difference to the baseline leaves out, or ""."""
    mine, theirs = ({run.seed: run.rows.keys() for run in one.runs} for one in (arm, base))
    texts = []
    if mine.keys() - theirs.keys():
        texts.append(f"its seeds {listed(mine.keys() - theirs.keys())}")
    if theirs.keys() - mine.keys():
        texts.append(f"the baseline's seeds {listed(theirs.keys() - mine.keys())}")
    seeds = [seed for seed in mine if seed in theirs]
    shared = [mine[seed] & theirs[seed] for seed in seeds]
    if any(images != shared[0] for images in shared):
        counts = ", ".join(str(len(images)) for images in shared)
        texts.append(f"some images in some seeds (seeds {listed(seeds)} have {counts} in common)")
    return " and ".join(texts)


def listed(values: Iterable) -> str:
    """Sorted, with commas."""
    return ", ".join(map(str, sorted(values, key=lambda value: (isinstance(value, str), value))))
