"""What an experiment planned beside what is on disk: its rows, and those that are missing.

Which runs are an experiment's is said in `rtil.experiments`.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache
from pathlib import Path

import yaml

from rtil.experiments.members import FREE
from rtil.experiments.plan import Job, command, commands, jobs, products, switch_of
from rtil.process.command import CONFIGS
from rtil.reporting.arrange import Place, Planned, Row
from rtil.reporting.collect import Arm, Cell, Measurement, measurement_of
from rtil.reporting.figures.style import LINES
from rtil.runs.keys import GROUPS, complete, flatten
from rtil.runs.overrides import parsed
from rtil.runs.run import Run


@dataclass(frozen=True)
class Plan:
    """An experiment, what its runs were given beside it, and its runs, each with its job."""

    experiment: Mapping
    given: Sequence[str]
    runs: Sequence[Run]

    @cached_property
    def jobs(self) -> list[Job]:
        return [*jobs(self.experiment, "invert" if self.experiment["cells"] else "train")]

    @cached_property
    def _order(self) -> dict[str, int]:
        return {json.dumps(job): number for number, job in enumerate(self.jobs)}

    def place(self, row: Row) -> int:
        """`order` of a row's job."""
        return self.order(row.planned.job if row.planned else None)

    def order(self, job: Job | None) -> int:
        """Place of a job in the plan; what was run without being planned comes last."""
        return self._order.get(json.dumps(job), len(self._order))


def job_of(run: Run) -> Job:
    """The planned job that a run of an experiment was."""
    assert run.job is not None
    return run.job


def on_the_same_images(runs: Iterable[Run]) -> list[Run]:
    """The runs of an experiment without rows of images that the others do not have.

    Another experiment may have asked for more images of a run that both share. Where a run has
    those that were planned and no others, and was asked for no more, they are the ones that count.
    """
    ids: dict[str, set[str]] = defaultdict(set)
    for run in runs:
        planned, asked = int(job_of(run)["num_images"]), run.config.get("num_images")
        if len(run.rows) <= planned and int(str(asked or 0)) <= planned:
            ids[measurement_of(run).data].update(run.rows)
    # Of runs with more images, those rows are kept that all have; a stopped run cuts nothing.
    cut = []
    for run in runs:
        known = ids[measurement_of(run).data]
        if len(known) == int(job_of(run)["num_images"]) < len(run.rows):
            run = replace(run, rows={i: row for i, row in run.rows.items() if i in known})
        cut.append(run)
    return cut


@lru_cache
def knob_of(task: str) -> str:
    """The setting that a task is swept over, as configs/task says it."""
    tree = yaml.safe_load((Path(CONFIGS) / "task" / f"{task}.yaml").read_text())
    return str(complete(flatten(tree))["task.knob"])


def named_settings(experiment: Mapping) -> set[str]:
    """Settings that the plan varies beside what tells measurements, arms and trainings apart."""
    texts: dict[str, set[str]] = defaultdict(set)
    for entry in products(experiment, "invert"):
        for key, values in entry.items():
            texts[key].update(values)
    varied = {key for key, values in texts.items() if len(values) > 1}
    # A choice of the training makes another generator, even where it does not vary.
    varied |= {key for key in texts if key.startswith(("rtil.", "model."))}
    knobs = {knob_of(task) for task in texts["task"]}
    return varied - {*GROUPS, *FREE, *knobs, "noise_std", "seed"}


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
    named = []
    for cell in cells:
        names = [arm.name for arm in cell.arms]
        arms = []
        for arm in cell.arms:
            job = job_of(arm.runs[0])
            oracle = {"selection": "oracle"} if arm.oracle else {}
            own = replace(arm, settings=switched(plan.experiment, job) | oracle)
            arms.append((names.index(arm.name), plan.order(job), own))
        arms.sort(key=lambda one: one[:2])
        named.append(replace(cell, arms=tuple(arm for _, _, arm in arms)))
    return named


def planned_rows(rows: Iterable[Row], plan: Plan) -> list[Row]:
    """Rows with what was planned of them, and one for each planned job that nobody ran."""
    cells: dict[Measurement, list[Row]] = defaultdict(list)
    for row in rows:
        cells[row.measurement].append(with_plan(row, plan))
    for row in missing_rows(plan):
        others = cells[row.measurement]
        same = [other for other in others if other.missing and other.arm.label == row.arm.label]
        if same:  # another training of the same: one row names both
            fill = tuple(dict.fromkeys(same[0].commands + row.commands))
            others[others.index(same[0])] = replace(same[0], commands=fill)
        else:
            others.append(row)
    ordered: list[Row] = []
    for at in sorted(cells):
        ordered += sorted(cells[at], key=plan.place)
    return ordered


def with_plan(row: Row, plan: Plan) -> Row:
    """A row of runs; those with fewer images than planned have the commands that go on."""
    # A gap is filled under the protocol of its own row.
    given = [word for word in plan.given if not word.startswith("protocol=")]
    if row.arm.protocol != "paper":
        given.append(f"protocol={row.arm.protocol}")
    fill = []
    for run in row.arm.runs:
        if len(run.rows) < int(job_of(run)["num_images"]):
            fill.append(command(plan.experiment, "invert", given, job_of(run)))
    # Seeds share what the figure shows, so the first one's job places them all.
    first = row.arm.runs[0]
    return placed(row, job_of(first), first.asked, plan.experiment, fill)


def missing_rows(plan: Plan) -> list[Row]:
    """A row for each planned job that no run is of, on each data set that runs are of."""
    places = dict.fromkeys(
        (measurement_of(run).data, measurement_of(run).scale) for run in plan.runs
    )
    ran = {(measurement_of(run).data, json.dumps(run.job)) for run in plan.runs}
    varied = sorted(named_settings(plan.experiment))
    rows = []
    for data, scale in places:
        for job in plan.jobs:
            if (data, json.dumps(job)) in ran:
                continue
            knob = knob_of(job["task"])
            noise, value = (float(job.get(key, 0.0)) for key in ("noise_std", knob))
            task, inverter, model = (job[key] for key in ("task", "inverter", "model"))
            settings = {key: job[key] for key in varied if key in job}
            # Where something is switched, that alone tells the job apart.
            if switch_of(plan.experiment, job):
                settings = switched(plan.experiment, job)
            row = Row(
                Measurement(task, inverter, data, scale, model, knob, noise, value),
                Arm(job["rtil"], settings),
                commands=tuple(commands(plan.experiment, plan.given, job)),
            )
            asked = {key: parsed(text) for key, text in job.items()}
            rows.append(placed(row, job, asked, plan.experiment))
    return rows


def placed(
    row: Row, job: Job, asked: Mapping, experiment: Mapping, fill: Iterable[str] = ()
) -> Row:
    """A row with its job and its place in the experiment's figure."""
    figure = experiment["figure"]
    panel, x, key = (figure.get(name) for name in ("panel", "x", "line"))
    # A line is an arm under one protocol and selection; other settings share it.
    line = row.arm.name
    if row.arm.settings.get("protocol", "paper") != "paper":
        line += f", protocol={row.arm.settings['protocol']}"
    if row.arm.oracle:
        line += ", oracle"
    if key in job or key in asked:
        line += f", {LINES.get(key, key)} = {job.get(key, asked.get(key))}"
    at = row.measurement
    place = Place(
        at.text if panel == "value" else at.task,
        line,
        at.value if x == "value" else asked.get(x),
    )
    images = int(job["num_images"])
    return replace(row, planned=Planned(job, images, place, tuple(dict.fromkeys(fill))))
