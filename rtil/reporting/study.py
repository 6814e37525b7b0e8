"""What one report is about: its runs, cells and rows, and the commands behind them.

Runs come from disk or from packed rows (`rtil.runs`); `rtil.reporting.page` shows a study.
"""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from rtil.experiments import plan as experiments
from rtil.experiments.check import trained
from rtil.experiments.members import belonging, besides, commands_for
from rtil.reporting.arrange import Row, rows_of
from rtil.reporting.collect import Cell, cells_of
from rtil.reporting.gaps import Plan, by_switch, named_settings, on_the_same_images, planned_rows
from rtil.reporting.sections import paragraph
from rtil.reporting.statistics import Scores
from rtil.runs import archive
from rtil.runs.run import Run, collect, inversions, trainings

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
class Study:
    """What a report is about; plan is that of an experiment, recorded the commands of its runs.

    An experiment without inversions has its trainings in the plan, and no runs, cells or rows.
    """

    title: str
    source: Source
    runs: Sequence[Run] = ()
    cells: Sequence[Cell] = ()
    rows: Sequence[Row] = ()
    scores: Scores = field(default_factory=lambda: Scores(()))
    notes: Sequence[str] = ()
    commands: Sequence[str] = ()
    recorded: Commands = field(default_factory=list)
    plan: Plan | None = None

    @property
    def kind(self) -> str:
        """What an experiment's figure is: curves, pictures, samples or differences."""
        return self.plan.experiment["figure"]["kind"] if self.plan else ""

    @property
    def lead(self) -> str:
        """How much of what the page is about is there."""
        return paragraph("lead", rows=self.rows, notes=self.notes, plan=self.plan)


def of_everything(source: Source, baseline: str) -> Study:
    """All inversions of a source; raises as `rtil.runs` does in reading them."""
    runs, notes = archive.read(source.files) if source.packed else collect(source.root)
    arms = sorted({str(run.config["rtil.name"]) for run in runs})
    if baseline not in arms:
        notes.append(f"No run has rtil={baseline}: choose baseline= among {', '.join(arms)}.")
    cells, scores = cells_of(runs, baseline), Scores(runs)
    rows = rows_of(cells, scores, baseline)
    lines = [f"python -m rtil.report {shlex.quote(source.override)}"]
    title, recorded = f"Inversions {source}", recorded_commands(runs)
    return Study(title, source, runs, cells, rows, scores, notes, lines, recorded)


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
    more: list[str] = []
    if source.packed:
        runs, more = archive.read(source.files)
    else:
        runs = inversions(source.root)[0] if part == "invert" else trainings(source.root)
    own = [f"scale={scale}", *([f"root={source.root}"] if str(source.root) != "runs" else [])]
    # Commands repeat what most of the runs were given, such as the files of images.
    given = [*own, *next(iter(besides(runs, experiment, scale, part)), ())]
    if part == "train":
        lines = [experiments.command(experiment, "train", given)]
    else:
        lines = experiments.commands(experiment, given)
    members = [run for run, _ in belonging(runs, experiment, scale, part)]
    if not members:
        raise FileNotFoundError(
            f"report: nothing of experiment={name} at scale={scale} {source}. Run it:"
            + "".join(f"\n    {line}" for line in lines)
        )
    own += [word for word in given if word.startswith("scale.")]
    own += [source.override] if source.packed else []
    lines.append(experiments.command(experiment, "report", own))
    notes = [*([experiment["note"]] if experiment.get("note") else []), *more]
    study = Study(
        experiment["title"],
        source,
        notes=notes,
        commands=lines,
        recorded=recorded_commands(members, name),
        plan=Plan(experiment, given, members),
    )
    return with_generators(study) if part == "train" else with_inversions(study, baseline)


def with_inversions(study: Study, baseline: str) -> Study:
    """A study of an experiment with its inversions, and those that are missing."""
    assert study.plan
    experiment, members = study.plan.experiment, study.plan.runs
    runs = on_the_same_images(members)
    plan, scores, notes = replace(study.plan, runs=runs), Scores(runs), [*study.notes]
    cut = sum(len(before.rows) > len(after.rows) for before, after in zip(members, runs))
    if cut:
        notes.append(
            f"{cut} of {len(runs)} inversions have more images than this plan asks for; "
            "those that the others have are shown."
        )
    cells = by_switch(cells_of(runs, baseline, named_settings(experiment)), plan)
    sets = experiment.get("sets")
    size = int(experiment["common"]["num_images"]) // sets if sets else 0
    # What is missing is what the plan says, not what other cells have.
    ran = [replace(cell, missing=()) for cell in cells]
    rows = planned_rows(rows_of(ran, scores, baseline, size), plan)
    return replace(study, runs=runs, cells=cells, rows=rows, scores=scores, notes=notes, plan=plan)


def with_generators(study: Study) -> Study:
    """A study of generators in the order of the plan, those to be trained in the notes."""
    plan = study.plan
    assert plan
    runs = sorted(plan.runs, key=lambda run: plan.order(run.job))
    notes = [f"{run.path} was stopped before its end." for run in runs if not trained(run.path)]
    for job in plan.jobs:
        if job not in [run.job for run in runs]:
            line = experiments.command(plan.experiment, "train", plan.given, job)
            notes.append(f"Missing: {job['model']}, {job['rtil']}. It is trained by: {line}")
    return replace(study, notes=[*study.notes, *notes], plan=replace(plan, runs=runs))


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
