"""What is compared: runs sorted into cells and arms, and a row of estimates for each arm.

A cell is a measurement, and has an arm for each rtil=... and each choice of settings, whose runs
differ in their seed only. Numbers come from `rtil.reporting.statistics`, what an experiment
planned from `rtil.reporting.study`.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import chain
from pathlib import Path
from typing import Any

from rtil.reporting.statistics import Gain, Scores, estimates_of
from rtil.runs.commands import commands
from rtil.runs.keys import FILES, differing_keys, is_under, tells_apart
from rtil.runs.overrides import as_text
from rtil.runs.run import Run


@dataclass(frozen=True, order=True)
class Measurement:
    """What the runs of a cell share; value is that of the task's knob."""

    task: str
    inverter: str
    data: str
    scale: str
    model: str
    knob: str
    noise_std: float
    value: float

    @property
    def series(self) -> dict[str, str]:
        """What the measurements of one figure share, as it is typed."""
        keys = ("task", "inverter", "data", "scale", "model")
        return {key: getattr(self, key) for key in keys}

    @property
    def heading(self) -> str:
        """As "task=cs, inverter=ilo"."""
        return ", ".join(map("=".join, self.series.items()))

    @property
    def noise(self) -> str:
        """As ", noise 0.01"; "" without, or where it is the knob."""
        shown = self.noise_std and self.knob != "noise_std"
        return f", noise {self.noise_std:g}" if shown else ""

    @property
    def text(self) -> str:
        """As "ratio 0.05, noise 0.01"."""
        return f"{self.knob} {self.value:g}{self.noise}"


@dataclass(frozen=True)
class Arm:
    """One rtil=... under one choice of settings (those that tell it apart): a run a seed.

    An arm without runs is missing.
    """

    name: str
    settings: Mapping[str, str] = field(default_factory=dict)
    runs: tuple[Run, ...] = ()

    @property
    def label(self) -> str:
        return ", ".join([self.name, *(f"{k}={v}" for k, v in self.settings.items())])

    @property
    def oracle(self) -> bool:
        """Whether its iterates were chosen by the true image."""
        return self.settings.get("selection") == "oracle"

    @property
    def protocol(self) -> str:
        said = self.settings.get("protocol", "paper")
        return self.runs[0].protocol if self.runs else said


@dataclass(frozen=True)
class Cell:
    """A measurement, its arms (the baseline's first) and the names of those not run."""

    measurement: Measurement
    arms: tuple[Arm, ...] = ()
    missing: tuple[str, ...] = ()


def measurement_of(run: Run) -> Measurement:
    """The cell that a run belongs to."""
    config: Mapping[str, Any] = run.config
    data = str(config["data.name"])
    # Every folder of images has the same name, and other images.
    if data == "folder" and config.get("data.path"):
        data = f"folder-{Path(str(config['data.path'])).stem}"
    knob = str(config["task.knob"])
    return Measurement(
        str(config["task.name"]),
        str(config["inverter.name"]),
        data,
        str(config["scale.name"]),
        str(config["model.name"]),
        knob,
        float(config.get("noise_std") or 0.0),
        float(config.get(knob) or 0.0),
    )


def cells_of(runs: Iterable[Run], baseline: str, named: Iterable[str] = ()) -> list[Cell]:
    """Sorts runs into cells and arms, and names the arms that a cell lacks.

    It lacks the baseline, every arm run elsewhere in its series, and where a series has the
    baseline alone, the family that the inverter was proposed with. Arms are told apart by the
    settings in which they differ under one protocol, by the protocol where there is another than
    the paper's, by where they were tuned if a training was inverted with two tunings, and by those
    in `named`; selection=oracle always.
    """
    series: dict[str, list[Run]] = defaultdict(list)
    for run in runs:
        series[measurement_of(run).heading].append(run)
    cells = (cells_of_series(group, baseline, {*named}) for group in series.values())
    return sorted(chain.from_iterable(cells), key=lambda cell: cell.measurement)


def cells_of_series(runs: Sequence[Run], baseline: str, named: set[str]) -> list[Cell]:
    """`cells_of` for runs of one task, inverter, data, scale and model."""
    groups: dict[tuple[Measurement, str], list[Run]] = defaultdict(list)
    for run in runs:
        groups[measurement_of(run), str(run.config["rtil.name"])].append(run)
    keys = defaultdict[str, set[str]](set)
    for (_, name), group in groups.items():
        keys[name] |= distinguishing(group)
    # A choice of its own family tells an arm apart, any other choice tells all arms apart.
    shared = {*named}
    for own in keys.values():
        shared |= {key for key in own if not key.startswith("rtil.")}
    # The paper's protocol is the default, which is told only beside another.
    if any(run.protocol != "paper" for run in runs):
        shared.add("protocol")
    names, family = {*keys}, runs[0].config["inverter.family"]
    if family is not None:  # without a generator every arm's result is the same
        names |= {baseline} if names != {baseline} else {str(family)}
    order = sorted(names, key=lambda name: (name != baseline, name))
    cells = []
    for at in dict.fromkeys(at for at, _ in groups):
        arms: list[Arm] = []
        for name in order:
            arms += arms_of(name, groups.get((at, name), ()), keys[name] | shared)
        missing = tuple(name for name in order if (at, name) not in groups)
        cells.append(Cell(at, tuple(arms), missing))
    return cells


def distinguishing(runs: Iterable[Run]) -> set[str]:
    """Settings in which runs of one arm and cell differ under one protocol.

    Where they were tuned is one, if they share their seed.
    """
    keys: set[str] = set()
    # A protocol chooses many settings at once, and is told by its name.
    first: dict[str, Run] = {}
    tunings: dict[tuple, set] = {}
    for run in runs:
        other = first.setdefault(run.protocol, run)
        lines = differing_keys(other.asked, run.asked, tells_apart)
        keys |= {line.partition(": ")[0] for line in lines}
        at = {item for item in run.config.items() if item[0].startswith("protocol.tuned.at.")}
        keys |= {key for key, _ in at ^ tunings.setdefault((run.protocol, run.seed), at)}
    return keys


def arms_of(name: str, runs: Sequence[Run], keys: set[str]) -> list[Arm]:
    """Groups runs by those settings; runs that share even their seed are told apart.

    Of runs of one generator and seed that with the most images stands for them all, the others
    are arms of their own. Where a seed has several generators, each of its arm's runs is one.
    """
    groups: dict[tuple, list[Run]] = defaultdict(list)
    for run in runs:
        asked = {**run.asked, "protocol": run.protocol}
        oracle = {"selection"} if asked.get("selection") == "oracle" else set()
        telling = sorted((keys | oracle) & asked.keys())
        groups[tuple((key, as_text(asked[key])) for key in telling)].append(run)
    arms = []
    for settings, group in sorted(groups.items()):
        # That with the most images comes first, and stands for the others of its training.
        group.sort(key=lambda r: (r.study, r.config["seed"], -len(r.rows), str(r.path)))
        first: dict[tuple, Run] = {}
        again = []
        for run in group:
            if first.setdefault((run.seed, digest_of(run)), run) is not run:
                again.append(run)
        # One generator a seed: the seeds are trainings of one arm.
        if len({run.seed for run in first.values()}) == len(first):
            arms.append(Arm(name, dict(settings), tuple(first.values())))
        else:
            again = group
        counts = Counter(digest_of(run) for run in group)
        for run in again:
            told_apart = {**dict(settings), "generator_sha256": digest_of(run)}
            if counts[digest_of(run)] > 1:
                told_apart["run_dir"] = str(run.path)
            arms.append(Arm(name, told_apart, (run,)))
    return arms


def digest_of(run: Run) -> str:
    """The generator's, as in labels."""
    return str(run.config.get("generator_sha256"))[:8]


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
        by_seed: means of those differences.
        commands: give what is missing, the arm or its linear estimate.
        differs: settings that the baseline has otherwise.
        unpaired: seeds or images that the gains leave out.
        job, planned, more: its job in an experiment, the images that are planned, and commands
            that fill those that are missing.
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
        """What is missing of what an experiment planned."""
        fewer = "Fewer images than planned" if self.more else ""
        return "Missing" if self.planned and self.missing else fewer

    @property
    def psnr(self) -> Gain | None:
        return self.estimates.get("psnr_db")

    @property
    def gain(self) -> Gain | None:
        return self.estimates.get("gain_psnr_db")

    @property
    def n(self) -> int:
        """Images of all seeds."""
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
            row = row_at(cell.measurement, Arm(name))
            fill = tuple(dict.fromkeys(lines))
            rows.append(replace(row, commands=fill))
    return rows


def row_at(at: Measurement, arm: Arm) -> Row:
    """A row with its place in the figure of its series."""
    panel = ", ".join(at.series.values())
    line = arm.label + at.noise
    return Row(at, arm, Place(panel, line, at.value))


def row_of(cell: Cell, arm: Arm, scores: Scores, baseline: str, size: int) -> Row:
    """An arm that was run."""
    base = reference(cell, arm, baseline)
    estimates, by_seed = estimates_of(scores, arm.runs, base.runs if base else (), size)
    fill: list[str] = []
    # A linear estimate is there for every linear task, or a command makes it.
    if estimates["lmmse_psnr_db"] is None and arm.runs[0].config["task.linear"]:
        lines = [commands(run, arm.name, arm.settings)[-1] for run in arm.runs]
        fill = [f"{line} yardstick.use=true" for line in lines]
    return replace(
        row_at(cell.measurement, arm),
        estimates=estimates,
        by_seed=by_seed,
        baseline=base,
        commands=tuple(fill),
        differs=differing(arm, base) if base else (),
        unpaired=unpaired(arm, base) if base else "",
    )


def reference(cell: Cell, arm: Arm, baseline: str) -> Arm | None:
    """The baseline's arm that `arm` is paired with: with its settings, or the only one.

    It is of the same images, protocol and network (settings under `model`), and what an oracle
    selected is compared with nothing but what an oracle selected.
    """
    if arm.name == baseline:
        return None

    def common(one: Arm) -> tuple:
        # What differs in these is no effect of the arm.
        run, settings = one.runs[0], one.settings.items()
        network = {key: text for key, text in settings if key.startswith("model.")}
        return one.oracle, run.protocol, run.config.get("split", "test"), network

    alike = []
    for other in cell.arms:
        # Earlier runs do not say their files: these are no others.
        files = {one.runs[0].config.get(FILES) for one in (arm, other)} - {None}
        if other.name == baseline and common(other) == common(arm) and len(files) < 2:
            alike.append(other)
    # A family's own settings are not the baseline's.
    keys = {key for other in alike for key in other.settings if not key.startswith("rtil.")}

    def chosen(one: Arm) -> dict[str, str | None]:
        return {key: one.settings.get(key) for key in keys}

    exact = [other for other in alike if chosen(other) == chosen(arm)]
    # One with the same settings, or the only one; among several none is the right one.
    only = exact if len(exact) == 1 else alike
    return only[0] if len(only) == 1 else None


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
    alone = {
        "its": mine.keys() - theirs.keys(),
        "the baseline's": theirs.keys() - mine.keys(),
    }
    texts = [f"{whose} seeds {listed(own)}" for whose, own in alone.items() if own]
    seeds = [seed for seed in mine if seed in theirs]
    shared = [mine[seed] & theirs[seed] for seed in seeds]
    if any(images != shared[0] for images in shared):
        counts = ", ".join(str(len(images)) for images in shared)
        texts.append(f"some images in some seeds (seeds {listed(seeds)} have {counts} in common)")
    return " and ".join(texts)


def listed(values: Iterable) -> str:
    """Sorted, with commas."""
    return ", ".join(map(str, sorted(values, key=lambda value: (isinstance(value, str), value))))
