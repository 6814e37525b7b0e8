"""What one report is about: its runs, cells, rows and generators, and the commands behind them.

Runs come from disk or from packed rows (`rtil.runs`); `rtil.reporting.page` shows a study.
"""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from rtil.experiments import plan as experiments
from rtil.experiments.check import trained
from rtil.experiments.members import belonging, besides, commands_for
from rtil.reporting.arrange import Row, rows_of
from rtil.reporting.collect import Cell, cells_of, measurement_of
from rtil.reporting.gaps import (
    Plan,
    by_switch,
    job_of,
    named_settings,
    on_the_same_images,
    planned_rows,
)
from rtil.reporting.statistics import Scores
from rtil.runs import archive
from rtil.runs.identity import EXPORTED
from rtil.runs.run import Run, collect, generator_file, inversions, trainings

Commands = list[list[str]]


@dataclass(frozen=True)
class Source:
    """Where runs come from: below root, or where there are packed files, from those."""

    root: Path
    packed: tuple[Path, ...] = ()

    @property
    def files(self) -> Path | list[Path]:
        """The packed files, as `rtil.runs.archive.read` takes them."""
        return self.packed[0] if len(self.packed) == 1 else [*self.packed]

    @property
    def override(self) -> str:
        return f"results={archive.told(self.files)}" if self.packed else f"root={self.root}"

    def __str__(self) -> str:
        return f"in {archive.told(self.files)}" if self.packed else f"below {self.root}"


@dataclass(frozen=True)
class Trained:
    """A generator to draw samples of, in a group of one data set, scale and model.

    Attributes:
        digest: of the file that was inverted; None is any.
        of: the run that it was inverted in.
    """

    group: tuple[str, str, str]
    arm: str
    path: Path
    digest: str | None = None
    of: Path | None = None


@dataclass(frozen=True)
class Study:
    """What a report is about; plan is that of an experiment, recorded the commands of its runs."""

    title: str
    source: Source
    runs: Sequence[Run] = ()
    cells: Sequence[Cell] = ()
    rows: Sequence[Row] = ()
    scores: Scores = field(default_factory=lambda: Scores(()))
    generators: Sequence[Trained] = ()
    notes: Sequence[str] = ()
    commands: Sequence[str] = ()
    recorded: Commands = field(default_factory=list)
    plan: Plan | None = None

    @property
    def experiment(self) -> Mapping:
        """The experiment, or nothing."""
        return self.plan.experiment if self.plan else {}

    @property
    def kind(self) -> str:
        """What an experiment's figure is: curves, pictures, samples or differences."""
        return self.experiment["figure"]["kind"] if self.plan else ""

    @property
    def lead(self) -> str:
        """How much of what the page is about is there."""
        if not self.rows:
            return " ".join([f"{len(self.generators)} generators.", *self.notes])
        gone = sum(row.missing for row in self.rows)
        fewer = sum(bool(row.planned and row.planned.commands) for row in self.rows)
        gaps = [f"{gone} missing"] * bool(gone)
        gaps += [f"{fewer} with fewer images than planned"] * bool(fewer)
        state = f"{', '.join(gaps)}; the tables name the commands." if gaps else "all there."
        return f"{len(self.rows)} entries, each an arm at a measurement: {state}"


def of_everything(source: Source, baseline: str) -> Study:
    """All inversions of a source; raises as `rtil.runs` does in reading them."""
    runs, notes = archive.read(source.files) if source.packed else collect(source.root)
    arms = sorted({str(run.config["rtil.name"]) for run in runs})
    if baseline not in arms:
        notes.append(f"No run has rtil={baseline}: choose baseline= among {', '.join(arms)}.")
    cells, scores = cells_of(runs, baseline), Scores(runs)
    return Study(
        f"Inversions {source}",
        source,
        runs,
        cells,
        rows_of(cells, scores, baseline),
        scores,
        [] if source.packed else inverted(cells, source.root),
        notes,
        [f"python -m rtil.report {shlex.quote(source.override)}"],
        recorded_commands(runs),
    )


def of_experiment(experiment: Mapping, scale: str, source: Source, baseline: str) -> Study:
    """What an experiment has at a scale, and what it lacks.

    Raises:
        FileNotFoundError: it has nothing yet; the message holds the commands that run it.
        ValueError: it is made of generators alone, which packed rows do not hold.
    """
    name, part = experiment["name"], "invert" if experiment["cells"] else "train"
    if source.packed and part == "train":
        raise ValueError(
            f"report: experiment={name} shows generators, and {archive.told(source.files)} holds "
            "inversions alone. Make it from the runs: leave out results=."
        )
    notes = [experiment["note"]] if experiment.get("note") else []
    if source.packed:
        runs, more = archive.read(source.files)
        notes += more
    else:
        runs = inversions(source.root)[0] if part == "invert" else trainings(source.root)
    own = [f"scale={scale}", *([f"root={source.root}"] if str(source.root) != "runs" else [])]
    # Commands repeat what most of the runs were given, such as the files of images.
    given = [*own, *next(iter(besides(runs, experiment, scale, part)), ())]
    lines = experiments.commands(experiment, given)
    if part == "train":
        lines = [experiments.command(experiment, "train", given)]
    members = [run for run, _ in belonging(runs, experiment, scale, part)]
    if not members:
        raise FileNotFoundError(
            f"report: nothing of experiment={name} at scale={scale} {source}. Run it:"
            + "".join(f"\n    {line}" for line in lines)
        )
    own += [word for word in given if word.startswith("scale.")]
    own += [source.override] if source.packed else []
    lines.append(experiments.command(experiment, "report", own))
    make = of_generators if part == "train" else of_inversions
    return make(Plan(experiment, given, members), source, baseline, notes, lines)


def of_inversions(
    plan: Plan, source: Source, baseline: str, notes: list[str], commands: list[str]
) -> Study:
    """The inversions of an experiment, and those that are missing."""
    experiment, runs = plan.experiment, on_the_same_images(plan.runs)
    cut = sum(len(before.rows) > len(after.rows) for before, after in zip(plan.runs, runs))
    if cut:
        notes = [
            *notes,
            f"{cut} of {len(runs)} inversions have more images than this plan asks for; "
            "those that the others have are shown.",
        ]
    plan, scores = replace(plan, runs=runs), Scores(runs)
    cells = by_switch(cells_of(runs, baseline, named_settings(experiment)), plan)
    sets = experiment.get("sets")
    size = int(experiment["common"]["num_images"]) // sets if sets else 0
    # What is missing is what the plan says, not what other cells have.
    ran = [replace(cell, missing=()) for cell in cells]
    return Study(
        experiment["title"],
        source,
        runs,
        cells,
        planned_rows(rows_of(ran, scores, baseline, size), plan),
        scores,
        [] if source.packed else inverted(cells, source.root),
        notes,
        commands,
        recorded_commands(runs, experiment["name"]),
        plan,
    )


def of_generators(
    plan: Plan, source: Source, baseline: str, notes: list[str], commands: list[str]
) -> Study:
    """The generators of an experiment without inversions, those to be trained in the notes."""
    generators, notes = [], [*notes]
    for run in sorted(plan.runs, key=lambda run: plan.order(run.job)):
        config: Mapping[str, Any] = run.config
        trained_on = config.get("data.trained_on") or config["data.name"]
        group = trained_on, config["scale.name"], job_of(run)["model"]
        generators.append(Trained(group, config["rtil.name"], run.path / EXPORTED))
        if not trained(run.path):
            notes.append(f"{run.path} was stopped before its end.")
    for job in plan.jobs:
        if job not in [run.job for run in plan.runs]:
            line = experiments.command(plan.experiment, "train", plan.given, job)
            notes.append(f"Missing: {job['model']}, {job['rtil']}. It is trained by: {line}")
    return Study(
        plan.experiment["title"],
        source,
        generators=generators,
        notes=notes,
        commands=commands,
        recorded=recorded_commands(plan.runs, plan.experiment["name"]),
        plan=plan,
    )


def recorded_commands(runs: Sequence[Run], name: str = "") -> Commands:
    """The last command behind each generator that was inverted, then behind each run.

    Of commands for an experiment of this name, where there are any.
    """
    # One generator is behind many inversions.
    trained = {
        (run.path.parent.name, run.config.get("generator_sha256")): run.trained
        for run in runs
        if run.config.get("inverter.family") is not None
    }
    lines: Commands = []
    # Only the last command that worked on a run: earlier ones were stopped, or asked for less.
    for history in (*trained.values(), *(run.recorded for run in runs)):
        lines += (commands_for(history, name) or history)[:1]
    return lines


def inverted(cells: Iterable[Cell], root: Path) -> list[Trained]:
    """The generators that were inverted, of several seeds the first one's."""
    generators: dict[tuple[str, str], Trained] = {}
    for run in (arm.runs[0] for cell in cells for arm in cell.arms):
        config, at, arm = run.config, measurement_of(run), str(run.config["rtil.name"])
        digest = str(config.get("generator_sha256"))
        if (arm, digest) in generators or config["inverter.family"] is None:
            continue
        # Samples are of the data set of the training, not of the images inverted.
        trained_on = str(config.get("data.trained_on", config["data.name"]))
        source = at.data if trained_on == config["data.name"] else trained_on
        group = source, at.scale, at.model
        file = generator_file(run, root)
        generators[arm, digest] = Trained(group, arm, file, digest, run.path)
    return [*generators.values()]
