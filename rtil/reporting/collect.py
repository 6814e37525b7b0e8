"""What is compared: runs sorted into cells, each a measurement with its arms.

A measurement is one task, knob, inverter, data, scale and model; it has an arm for each rtil=...
and each choice of settings, whose runs differ in their seed only. `rtil.reporting.statistics`
averages and pairs them, `rtil.reporting.gaps` adds what an experiment planned.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rtil.runs.keys import differing_keys, tells_apart
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
        """For example "task=cs, inverter=ilo, data=glyphs, scale=demo, model=stylegan2"."""
        return ", ".join(f"{key}={value}" for key, value in self.series.items())

    @property
    def noise(self) -> str:
        """For example ", noise 0.01"; "" without, or where it is the knob."""
        shown = self.noise_std and self.knob != "noise_std"
        return f", noise {self.noise_std:g}" if shown else ""

    @property
    def text(self) -> str:
        """For example "ratio 0.05, noise 0.01"."""
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
        """Whether its iterates were chosen by the true image; its settings always say so."""
        return self.settings.get("selection") == "oracle"

    @property
    def protocol(self) -> str:
        if self.runs:
            return self.runs[0].protocol
        return self.settings.get("protocol", "paper")


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
    in `named`; selection=oracle is told always.
    """
    series: dict[tuple, list[Run]] = defaultdict(list)
    for run in runs:
        series[tuple(measurement_of(run).series.values())].append(run)
    cells: list[Cell] = []
    for group in series.values():
        cells += cells_of_series(group, baseline, {*named})
    return sorted(cells, key=lambda cell: cell.measurement)


def cells_of_series(runs: Sequence[Run], baseline: str, named: set[str]) -> list[Cell]:
    """`cells_of` for runs of one task, inverter, data, scale and model."""
    groups: dict[tuple[Measurement, str], list[Run]] = defaultdict(list)
    for run in runs:
        groups[measurement_of(run), str(run.config["rtil.name"])].append(run)
    keys: dict[str, set[str]] = defaultdict(set)
    for (_, name), group in groups.items():
        keys[name] |= distinguishing(group)
    # A choice of its own family tells an arm apart, any other choice tells all arms apart.
    every = set().union(named, *keys.values())
    shared = {key for key in every if key in named or not key.startswith("rtil.")}
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
    """Groups runs by those settings; runs that share even their seed are told apart as well.

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
        again = [run for run in group if first.setdefault(training_of(run), run) is not run]
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


def training_of(run: Run) -> tuple[int | str, str]:
    """What tells trainings of an arm apart: seed, and digest of the generator."""
    return run.seed, str(run.config.get("generator_sha256"))


def digest_of(run: Run) -> str:
    return training_of(run)[1][:8]
