"""What one report is about: its runs and rows, what an experiment planned, the commands behind it.

Runs come from disk or from packed rows (`rtil.runs`); which are an experiment's is said in
`rtil.experiments`. `rtil.reporting.page` shows a study.
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
from rtil.experiments.plan import FREE, Job, switch_of
from rtil.process.command import CONFIGS
from rtil.reporting import arrange
from rtil.reporting.arrange import Measurement, Row, Settings, measurement_of
from rtil.reporting.figures.style import LINES
from rtil.reporting.sections import paragraph
from rtil.runs import archive
from rtil.runs.keys import GROUPS
from rtil.runs.overrides import parsed
from rtil.runs.run import Run, collect, inversions, trainings
from rtil.runs.truth import looks_at_truth


@dataclass(frozen=True)
class Source:
    """Where runs come from: below root, or where there are packed files, from those."""

    root: Path
    packed: Sequence[Path] = ()

    @property
    def override(self) -> str:
        return f"results={archive.told(self.packed)}" if self.packed else f"root={self.root}"

    def __str__(self) -> str:
        return f"in {archive.told(self.packed)}" if self.packed else f"below {self.root}"

    def read(self, part: str) -> tuple[list[Run], list[str]]:
        """Its inversions or trainings; the notes say what is left out, and why."""
        if self.packed:
            return archive.read(self.packed)
        return inversions(self.root) if part == "invert" else trainings(self.root)


@dataclass(frozen=True)
class Plan:
    """An experiment, the command whose runs it shows, and what they were given beside it."""

    experiment: Mapping
    part: str
    given: Sequence[str]

    @cached_property
    def _order(self) -> dict[str, int]:
        jobs = experiments.jobs(self.experiment, self.part)
        return {json.dumps(job): number for number, job in enumerate(jobs)}

    def order(self, job: Job) -> int:
        """Place of a job in the plan; what was run without being planned comes last."""
        return self._order.get(json.dumps(job), len(self._order))

    def missing(self, runs: Iterable[Run]) -> list[Job]:
        """Jobs that no run is of."""
        ran = {self.order(run.job) for run in runs}
        return [json.loads(job) for job, number in self._order.items() if number not in ran]

    @cached_property
    def switches(self) -> set[str]:
        """The keys of its switches."""
        cells = self.experiment["cells"]
        return {key for cell in cells for switch in cell.get("switches", ()) for key in switch}

    @cached_property
    def named(self) -> list[str]:
        """What it varies beside measurements, seeds and switches, and what it sets in training."""
        texts = experiments.alternatives(experiments.planned(self.experiment, "invert"))
        # A choice of the training makes another generator, even where it does not vary.
        varied = {
            key
            for key, values in texts.items()
            if len(values) > 1 or key.startswith(("rtil.", "model."))
        }
        measured = {*map(knob_of, texts["task"]), "noise_std", "seed"}
        return sorted(varied - measured - {*GROUPS, *FREE} - self.switches)

    def label(self, job: Job, asked: Mapping) -> Settings:
        """What tells the arm of a job apart from others of its name.

        What a protocol chooses besides is not named, but for a selection by the true image.
        """
        varied = {key: job[key] for key in self.named if key in job}
        selection = asked.get("selection")
        oracle = {"selection": str(selection)} if looks_at_truth(selection) else {}
        return varied | switch_of(self.experiment, job) | oracle

    def told_apart(self, runs: Sequence[Run]) -> Sequence[Settings]:
        """What tells runs of a series apart: their switch, or what was varied and what differs."""
        if self.switches:
            return [self.label(run.job, run.asked) for run in runs]
        return arrange.differences_among(runs, self.named)

    def placed(self, row: Row, job: Job, asked: Mapping) -> Row:
        """A row with its job, and its place in the figure."""
        at, figure = row.measurement, self.experiment["figure"]
        # A line is an arm under one protocol and selection; other settings share it.
        line, key = row.arm, str(figure.get("line"))
        if row.settings.get("protocol", "paper") != "paper":
            line += f", protocol={row.settings['protocol']}"
        if row.oracle:
            line += f", {row.oracle}"
        if key in job or key in asked:
            line += f", {LINES.get(key, key)} = {job.get(key, asked.get(key))}"
        panel = at.text if figure.get("panel") == "value" else at.task
        x = at.value if figure.get("x") == "value" else asked.get(figure.get("x"))
        sets = self.experiment.get("sets")
        size = int(self.experiment["common"]["num_images"]) // sets if sets else 0
        row = replace(row, job=job, planned=int(job["num_images"]), sets=size)
        return replace(row, panel=panel, line=line, x=x)


@dataclass(frozen=True)
class Study:
    """What a report is about: inversions, or of an experiment without any its trainings."""

    title: str
    source: Source
    commands: Sequence[str]
    notes: Sequence[str] = ()
    runs: Sequence[Run] = ()
    rows: Sequence[Row] = ()
    plan: Plan | None = None

    @property
    def kind(self) -> str:
        """As figure.kind says."""
        return self.plan.experiment["figure"]["kind"] if self.plan else ""

    @property
    def lead(self) -> str:
        """How much is there."""
        return paragraph("lead", rows=self.rows, notes=self.notes, runs=self.runs)


def of_everything(source: Source, baseline: str) -> Study:
    """All inversions of a source."""
    runs, notes = archive.read(source.packed) if source.packed else collect(source.root)
    arms = sorted({*map(arrange.arm_of, runs)})
    if baseline not in arms:
        notes.append(f"No run has rtil={baseline}: choose baseline= among {', '.join(arms)}.")
    rows = arrange.rows_of(runs, baseline, arrange.differences_among)
    rows = arrange.with_missing(rows, baseline)
    lines = [f"python -m rtil.report {shlex.quote(source.override)}"]
    return Study(f"Inversions {source}", source, lines, notes, runs, rows)


def of_experiment(experiment: Mapping, scale: str, source: Source, baseline: str) -> Study:
    """What an experiment has at a scale, and what it lacks.

    Raises:
        FileNotFoundError: it has nothing yet; the message holds the commands that run it.
        ValueError: it is made of generators alone, which packed rows do not hold.
    """
    name = experiment["name"]
    part = "invert" if experiment["cells"] else "train"
    if source.packed and part == "train":
        raise ValueError(
            f"report: experiment={name} shows generators, and {archive.told(source.packed)} holds "
            "inversions alone. Make it from the runs: leave out results=."
        )
    notes = [experiment["note"]] if experiment.get("note") else []
    runs, more = source.read(part)
    notes += more
    own = [f"scale={scale}"]
    if str(source.root) != "runs":
        own.append(f"root={source.root}")
    # Commands repeat what most of the runs were given, such as the files of images.
    given = [*own, *experiments.besides(runs, experiment, scale, part)]
    lines = [experiments.command(experiment, "train", given)]
    if part == "invert":
        lines = experiments.commands(experiment, given)
    members = experiments.members(runs, experiment, scale, part)
    if not members:
        left_out = [note for note in more if note.startswith("Left out")]
        raise FileNotFoundError(
            f"report: nothing of experiment={name} at scale={scale} {source}. Run it:\n    "
            + "\n    ".join([*lines, *left_out])
        )
    own += [word for word in given if word.startswith("scale.")]
    own += [source.override] if source.packed else []
    lines.append(experiments.command(experiment, "report", own))
    plan, rows = Plan(experiment, part, given), list[Row]()
    if part == "train":
        members.sort(key=lambda run: plan.order(run.job))
        notes += untrained(members, plan)
    else:
        members, more = on_the_same_images(members)
        notes += more
        rows = planned_rows(members, plan, baseline)
    return Study(experiment["title"], source, lines, notes, members, rows, plan)


def untrained(runs: Sequence[Run], plan: Plan) -> list[str]:
    """Which generators are missing."""
    notes = [f"{run.path} was stopped before its end." for run in runs if not trained(run.path)]
    for job in plan.missing(runs):
        line = experiments.command(plan.experiment, "train", plan.given, job)
        notes.append(f"Missing: {job['model']}, {job['rtil']}. It is trained by: {line}")
    return notes


def on_the_same_images(runs: Sequence[Run]) -> tuple[list[Run], list[str]]:
    """The runs of an experiment without rows of images that the others do not have, and a note.

    Another experiment may have asked for more images of a run that both share. Where a run has
    those that were planned and no others, and was asked for no more, they are the ones that count.
    """
    ids = defaultdict[str, set[str]](set)
    for run in runs:
        asked = int(str(run.config.get("num_images") or 0))
        if max(len(run.rows), asked) <= images_of(run):
            ids[measurement_of(run).data].update(run.rows)
    # Of runs with more images, those rows are kept that all have; a stopped run cuts nothing.
    made = []
    cut = 0
    for run in runs:
        known = ids[measurement_of(run).data]
        if len(known) == images_of(run) < len(run.rows):
            rows = {i: run.rows[i] for i in run.rows if i in known}
            run = replace(run, rows=rows)
            cut += 1
        made.append(run)
    note = (
        f"{cut} of {len(runs)} inversions have more images than this plan asks for; "
        "those that the others have are shown."
    )
    return made, [note] if cut else []


def images_of(run: Run) -> int:
    """How many images were planned."""
    return int(run.job["num_images"])


@lru_cache
def knob_of(task: str) -> str:
    """What a task is swept over."""
    text = (Path(CONFIGS) / "task" / f"{task}.yaml").read_text(encoding="utf-8")
    return yaml.safe_load(text)["task"]["knob"]


def planned_rows(runs: Sequence[Run], plan: Plan, baseline: str) -> list[Row]:
    """What ran, and what nobody ran."""
    # What is missing is what the plan says, not what other measurements have.
    ran = arrange.rows_of(runs, baseline, plan.told_apart)
    rows = [*(with_plan(row, plan) for row in ran), *missing_rows(runs, plan)]
    return sorted(rows, key=lambda row: (row.measurement, plan.order(row.job)))


def with_plan(row: Row, plan: Plan) -> Row:
    """A row of runs; those with fewer images than planned have the commands that go on."""
    # A gap is filled under the protocol of its own row.
    given = [word for word in plan.given if not word.startswith("protocol=")]
    if row.protocol != "paper":
        given.append(f"protocol={row.protocol}")
    fill = [
        experiments.command(plan.experiment, "invert", given, run.job)
        for run in row.runs
        if len(run.rows) < images_of(run)
    ]
    # Seeds share what the figure shows, so the first one's job places them all.
    first = row.runs[0]
    return plan.placed(replace(row, fill=arrange.unique(fill)), first.job, first.asked)


def missing_rows(runs: Sequence[Run], plan: Plan) -> list[Row]:
    """What nobody ran, for each data set."""
    rows: dict[tuple[Measurement, str], Row] = {}
    for data, own in arrange.grouped(runs, lambda run: measurement_of(run).data).items():
        scale = measurement_of(own[0]).scale
        for job in plan.missing(own):
            knob = knob_of(job["task"])
            numbers = (float(job.get(key, 0.0)) for key in ("noise_std", knob))
            names = job["task"], job["inverter"], data, scale, job["model"]
            at = Measurement(*names, knob, *numbers)
            asked = {key: parsed(text) for key, text in job.items()}
            row = Row(at, job["rtil"], plan.label(job, asked))
            # Another training of the same: one row names both.
            row = rows.get((at, row.label), plan.placed(row, job, asked))
            lines = experiments.commands(plan.experiment, plan.given, job)
            fill = arrange.unique([*row.fill, *lines])
            rows[at, row.label] = replace(row, fill=fill)
    return [*rows.values()]
