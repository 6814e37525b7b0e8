"""What one report is about: its runs, cells and rows, and the commands behind them.

Runs come from disk or from packed rows (`rtil.runs`); which are an experiment's is said in
`rtil.experiments`, and what it planned beside them here. `rtil.reporting.page` shows a study.
"""

from __future__ import annotations

import json
import shlex
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache
from pathlib import Path

import yaml

from rtil.experiments import plan as experiments
from rtil.experiments.check import trained
from rtil.experiments.members import FREE, belonging, besides
from rtil.experiments.plan import Job, products, switch_of
from rtil.process.command import CONFIGS
from rtil.reporting.arrange import (
    Arm,
    Cell,
    Measurement,
    Place,
    Row,
    cells_of,
    measurement_of,
    row_at,
    rows_of,
)
from rtil.reporting.figures.style import LINES
from rtil.reporting.sections import paragraph
from rtil.reporting.statistics import Scores
from rtil.runs import archive
from rtil.runs.keys import GROUPS, complete, flatten
from rtil.runs.overrides import parsed
from rtil.runs.run import Run, collect, inversions, trainings


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
class Plan:
    """An experiment, what its runs were given beside it, and its runs, each with its job."""

    experiment: Mapping
    given: Sequence[str]
    runs: Sequence[Run]

    @cached_property
    def jobs(self) -> list[Job]:
        return [*experiments.jobs(self.experiment, part_of(self.experiment))]

    @cached_property
    def _order(self) -> dict[str, int]:
        return {json.dumps(job): number for number, job in enumerate(self.jobs)}

    def order(self, job: Job | None) -> int:
        """Place of a job in the plan; what was run without being planned comes last."""
        return self._order.get(json.dumps(job), len(self._order))


def part_of(experiment: Mapping) -> str:
    """The command that makes what an experiment shows."""
    return "invert" if experiment["cells"] else "train"


@dataclass(frozen=True)
class Study:
    """What a report is about; plan is that of an experiment.

    One without inversions has its trainings in the plan, and no runs, cells or rows.
    """

    title: str
    source: Source
    commands: Sequence[str]
    notes: Sequence[str] = ()
    runs: Sequence[Run] = ()
    cells: Sequence[Cell] = ()
    rows: Sequence[Row] = ()
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
    cells, title = cells_of(runs, baseline), f"Inversions {source}"
    lines = [f"python -m rtil.report {shlex.quote(source.override)}"]
    scores = Scores(runs)
    rows = rows_of(cells, scores, baseline)
    return Study(title, source, lines, notes, runs, cells, rows)


def of_experiment(experiment: Mapping, scale: str, source: Source, baseline: str) -> Study:
    """What an experiment has at a scale, and what it lacks.

    Raises:
        FileNotFoundError: it has nothing yet; the message holds the commands that run it.
        ValueError: it is made of generators alone, which packed rows do not hold.
    """
    name, part = experiment["name"], part_of(experiment)
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
    plan = Plan(experiment, given, members)
    study = Study(experiment["title"], source, lines, notes, plan=plan)
    if part == "train":
        return replace(study, notes=[*notes, *untrained(plan)])
    return with_inversions(study, plan, baseline)


def untrained(plan: Plan) -> list[str]:
    """What is missing of the generators of an experiment."""
    runs = sorted(plan.runs, key=lambda run: plan.order(run.job))
    notes = [f"{run.path} was stopped before its end." for run in runs if not trained(run.path)]
    for job in plan.jobs:
        if job not in [run.job for run in runs]:
            line = experiments.command(plan.experiment, "train", plan.given, job)
            notes.append(f"Missing: {job['model']}, {job['rtil']}. It is trained by: {line}")
    return notes


def with_inversions(study: Study, plan: Plan, baseline: str) -> Study:
    """A study of an experiment with its inversions, and those that are missing."""
    experiment, runs = plan.experiment, on_the_same_images(plan.runs)
    notes = [*study.notes]
    cut = sum(len(before.rows) > len(after.rows) for before, after in zip(plan.runs, runs))
    if cut:
        notes.append(
            f"{cut} of {len(runs)} inversions have more images than this plan asks for; "
            "those that the others have are shown."
        )
    plan = replace(plan, runs=runs)
    cells = by_switch(cells_of(runs, baseline, named_settings(experiment)), plan)
    sets = experiment.get("sets")
    size = int(experiment["common"]["num_images"]) // sets if sets else 0
    # What is missing is what the plan says, not what other cells have.
    ran = [replace(cell, missing=()) for cell in cells]
    rows = planned_rows(rows_of(ran, Scores(runs), baseline, size), plan)
    return replace(study, notes=notes, runs=runs, cells=cells, rows=rows, plan=plan)


def job_of(run: Run) -> Job:
    """The planned job that a run of an experiment was."""
    assert run.job is not None
    return run.job


def on_the_same_images(runs: Iterable[Run]) -> list[Run]:
    """The runs of an experiment without rows of images that the others do not have.

    Another experiment may have asked for more images of a run that both share. Where a run has
    those that were planned and no others, and was asked for no more, they are the ones that count.
    """
    ids = defaultdict[str, set[str]](set)
    for run in runs:
        planned = int(job_of(run)["num_images"])
        asked = int(str(run.config.get("num_images") or 0))
        if max(len(run.rows), asked) <= planned:
            ids[measurement_of(run).data].update(run.rows)
    # Of runs with more images, those rows are kept that all have; a stopped run cuts nothing.
    cut = []
    for run in runs:
        known = ids[measurement_of(run).data]
        if len(known) == int(job_of(run)["num_images"]) < len(run.rows):
            rows = {i: run.rows[i] for i in run.rows if i in known}
            run = replace(run, rows=rows)
        cut.append(run)
    return cut


@lru_cache
def knob_of(task: str) -> str:
    """The setting that a task is swept over, as configs/task says it."""
    tree = yaml.safe_load((Path(CONFIGS) / "task" / f"{task}.yaml").read_text())
    return str(complete(flatten(tree))["task.knob"])


def named_settings(experiment: Mapping) -> set[str]:
    """Settings that the plan varies beside what tells measurements, arms and trainings apart."""
    texts = defaultdict[str, set[str]](set)
    for entry in products(experiment, "invert"):
        for key, values in entry.items():
            texts[key].update(values)
    # A choice of the training makes another generator, even where it does not vary.
    varied = {
        key
        for key, values in texts.items()
        if len(values) > 1 or key.startswith(("rtil.", "model."))
    }
    return varied - {*GROUPS, *FREE, *map(knob_of, texts["task"]), "noise_std", "seed"}


def switched(experiment: Mapping, job: Job) -> dict[str, str]:
    """What tells a job apart in its cell where the plan has switches.

    Choices of its generator's training beside arm, seed and data, then what it switches.
    """
    training = {key for entry in products(experiment, "train") for key in entry}
    # Groups are named by the measurement and the arm already.
    training -= {*GROUPS, *FREE, "seed"}
    return {key: job[key] for key in sorted(training) if key in job} | switch_of(experiment, job)


def by_switch(cells: Iterable[Cell], plan: Plan) -> list[Cell]:
    """Cells whose arms are told apart by `switched`, where the plan has switches.

    Choices of an arm stand in the order of the plan, that without a switch first. What a protocol
    chooses besides is not named, except for the selection by an oracle.
    """
    if not any("switches" in cell for cell in plan.experiment["cells"]):
        return [*cells]
    made = []
    for cell in cells:
        names = [arm.name for arm in cell.arms]
        arms = []
        for arm in sorted(cell.arms, key=lambda arm: plan.order(arm.runs[0].job)):
            oracle = {"selection": "oracle"} if arm.oracle else {}
            settings = switched(plan.experiment, job_of(arm.runs[0])) | oracle
            arms.append(replace(arm, settings=settings))
        arms.sort(key=lambda arm: names.index(arm.name))
        made.append(replace(cell, arms=tuple(arms)))
    return made


def planned_rows(rows: Iterable[Row], plan: Plan) -> list[Row]:
    """Rows with what was planned of them, and one for each planned job that nobody ran."""
    missing: dict[tuple[Measurement, str], Row] = {}
    for row in missing_rows(plan):
        same = missing.get((row.measurement, row.arm.label), row)
        # Another training of the same: one row names both.
        fill = tuple(dict.fromkeys(same.commands + row.commands))
        missing[row.measurement, row.arm.label] = replace(same, commands=fill)
    every = [*(with_plan(row, plan) for row in rows), *missing.values()]
    return sorted(every, key=lambda row: (row.measurement, plan.order(row.job)))


def with_plan(row: Row, plan: Plan) -> Row:
    """A row of runs; those with fewer images than planned have the commands that go on."""
    # A gap is filled under the protocol of its own row.
    given = [word for word in plan.given if not word.startswith("protocol=")]
    if row.arm.protocol != "paper":
        given.append(f"protocol={row.arm.protocol}")
    fill = [
        experiments.command(plan.experiment, "invert", given, job_of(run))
        for run in row.arm.runs
        if len(run.rows) < int(job_of(run)["num_images"])
    ]
    # Seeds share what the figure shows, so the first one's job places them all.
    first = row.arm.runs[0]
    fitted = placed(row, job_of(first), first.asked, plan.experiment["figure"])
    return replace(fitted, more=tuple(dict.fromkeys(fill)))


def missing_rows(plan: Plan) -> list[Row]:
    """A row for each planned job that no run is of, on each data set that runs are of."""
    cells = [measurement_of(run) for run in plan.runs]
    ran = {(at.data, json.dumps(run.job)) for at, run in zip(cells, plan.runs)}
    return [
        missing_row(plan, job, data, scale)
        for data, scale in dict.fromkeys((at.data, at.scale) for at in cells)
        for job in plan.jobs
        if (data, json.dumps(job)) not in ran
    ]


def missing_row(plan: Plan, job: Job, data: str, scale: str) -> Row:
    """The row of a planned job, with the commands that run it."""
    knob = knob_of(job["task"])
    at = Measurement(
        job["task"],
        job["inverter"],
        data,
        scale,
        job["model"],
        knob,
        float(job.get("noise_std", 0.0)),
        float(job.get(knob, 0.0)),
    )
    # Where something is switched, that alone tells the job apart.
    settings = {key: job[key] for key in sorted(named_settings(plan.experiment)) if key in job}
    if switch_of(plan.experiment, job):
        settings = switched(plan.experiment, job)
    arm = Arm(job["rtil"], settings)
    fill = experiments.commands(plan.experiment, plan.given, job)
    row = replace(row_at(at, arm), commands=tuple(fill))
    asked = {key: parsed(text) for key, text in job.items()}
    return placed(row, job, asked, plan.experiment["figure"])


def placed(row: Row, job: Job, asked: Mapping, figure: Mapping) -> Row:
    """A row with its job, and its place in the experiment's figure."""
    at = row.measurement
    key = figure.get("line")
    # A line is an arm under one protocol and selection; other settings share it.
    line = row.arm.name
    if row.arm.settings.get("protocol", "paper") != "paper":
        line += f", protocol={row.arm.settings['protocol']}"
    if row.arm.oracle:
        line += ", oracle"
    if key in job or key in asked:
        line += f", {LINES.get(str(key), key)} = {job.get(str(key), asked.get(key))}"
    x = asked.get(figure.get("x"))
    place = Place(
        at.text if figure.get("panel") == "value" else at.task,
        line,
        at.value if figure.get("x") == "value" else x,
    )
    planned = int(job["num_images"])
    return replace(row, place=place, job=job, planned=planned)
