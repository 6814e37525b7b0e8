"""What one report is about: its runs, cells, rows and generators, and the commands behind them.

Runs come from disk or from packed rows (`rtil.runs`); `rtil.reporting.page` shows a study.
"""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from rtil.experiments import plan as experiments
from rtil.experiments.check import trained
from rtil.experiments.members import belonging, besides, commands_for
from rtil.reporting.arrange import Row, rows_of
from rtil.reporting.collect import Cell, cells_of, measurement_of
from rtil.reporting.gaps import (
    Plan,
    by_switch,
    named_settings,
    on_the_same_images,
    planned_rows,
)
from rtil.reporting.statistics import Scores
from rtil.runs import archive
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
        other: its name where its group has its arm already.
        digest: of the file that was inverted; None is any.
        of: the run that it was inverted in.
    """

    group: tuple[str, str, str]
    arm: str
    other: str
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
        last_commands(histories(runs)),
    )


def of_experiment(experiment: Mapping, scale: str, source: Source, baseline: str) -> Study:
    """What an experiment has at a scale, and what it lacks.

    Raises:
        FileNotFoundError: it has nothing yet; the message holds the commands that run it.
        ValueError: it is made of generators alone, which packed rows do not hold.
    """
    part = "invert" if experiment["cells"] else "train"
    if source.packed and part == "train":
        raise ValueError(
            f"report: experiment={experiment['name']} shows generators, and "
            f"{archive.told(source.files)} holds inversions alone. Make it from the runs: "
            "leave out results=."
        )
    notes = [experiment["note"]] if experiment.get("note") else []
    if source.packed:
        runs, more = archive.read(source.files)
        notes += more
    else:
        runs = inversions(source.root)[0] if part == "invert" else trainings(source.root)
    words = [f"scale={scale}", *([f"root={source.root}"] if str(source.root) != "runs" else [])]
    words += next(iter(besides(runs, experiment, scale, part)), ())
    members = belonging(runs, experiment, scale, part)
    if part == "train":
        lines = [experiments.command(experiment, "train", words)]
    else:
        lines = experiments.commands(experiment, words)
    if not members:
        raise FileNotFoundError(
            f"report: nothing of experiment={experiment['name']} at scale={scale} {source}. "
            "Run it:" + "".join(f"\n    {line}" for line in lines)
        )
    given = [word for word in words if word.startswith(("scale=", "scale.", "root="))]
    given += [source.override] if source.packed else []
    lines.append(experiments.command(experiment, "report", given))
    if part == "train":
        return of_generators(Plan(experiment, words, members), source, notes, lines)
    shared = on_the_same_images(members)
    cut = sum(len(a.rows) > len(b.rows) for (a, _), (b, _) in zip(members, shared))
    if cut:
        notes.append(
            f"{cut} of {len(shared)} inversions have more images than this plan asks for; "
            "those that the others have are shown."
        )
    plan, runs = Plan(experiment, words, shared), [run for run, _ in shared]
    cells = by_switch(cells_of(runs, baseline, named_settings(experiment)), plan)
    scores = Scores(runs)
    size = (
        int(experiment["common"]["num_images"]) // experiment.get("sets", 0)
        if (experiment.get("sets"))
        else 0
    )
    found = rows_of((Cell(cell.measurement, cell.arms) for cell in cells), scores, baseline, size)
    return Study(
        experiment["title"],
        source,
        runs,
        cells,
        planned_rows(found, plan),
        scores,
        [] if source.packed else inverted(cells, source.root),
        notes,
        lines,
        last_commands(histories(runs), experiment["name"]),
        plan,
    )


def of_generators(
    plan: Plan, source: Source, notes: Sequence[str], commands: Sequence[str]
) -> Study:
    """The generators of an experiment without inversions, those to be trained in the notes."""
    experiment, notes = plan.experiment, [*notes]
    jobs = experiments.jobs(experiment, "train")
    order = {json.dumps(job): number for number, job in enumerate(jobs)}
    found = sorted(plan.members, key=lambda one: order.get(json.dumps(one[1]), len(order)))
    generators = []
    for run, job in found:
        config, path = run.config, run.path
        trained_on = str(config.get("data.trained_on") or config["data.name"])
        group = trained_on, str(config["scale.name"]), job["model"]
        arm = str(config["rtil.name"])
        generators.append(Trained(group, arm, f"{arm} {path.name}", path / "generator.pt"))
        if not trained(path):
            notes.append(f"{path} was stopped before its end.")
    for job in jobs:
        if job not in [job for _, job in found]:
            line = experiments.command(experiment, "train", plan.words, job)
            notes.append(f"Missing: {job['model']}, {job['rtil']}. It is trained by: {line}")
    recorded = last_commands([run.recorded for run, _ in plan.members], experiment["name"])
    return Study(
        experiment["title"],
        source,
        generators=generators,
        notes=notes,
        commands=commands,
        recorded=recorded,
        plan=plan,
    )


def histories(runs: Sequence[Run]) -> list[Sequence[list[str]]]:
    """Commands behind each generator that was inverted, then those behind each inversion."""
    trained = {
        (run.path.parent.name, run.config.get("generator_sha256")): run.trained
        for run in runs
        if run.config["inverter.family"] is not None
    }
    return [*trained.values(), *(run.recorded for run in runs)]


def last_commands(histories: Iterable[Sequence[list[str]]], name: str = "") -> Commands:
    """The last command of each history, of those for an experiment where there are any."""
    found: Commands = []
    for recorded in histories:
        found += (commands_for(recorded, name) or recorded)[:1]
    return found


def inverted(cells: Iterable[Cell], root: Path) -> list[Trained]:
    """The generators that were inverted, of several seeds the first one's."""
    generators: dict[tuple[str, str], Trained] = {}
    for run in (arm.runs[0] for cell in cells for arm in cell.arms):
        config, at, arm = run.config, measurement_of(run), str(run.config["rtil.name"])
        digest = str(config.get("generator_sha256"))
        if (arm, digest) in generators or config["inverter.family"] is None:
            continue
        trained_on = str(config.get("data.trained_on", config["data.name"]))
        source = at.data if trained_on == config["data.name"] else trained_on
        generators[arm, digest] = Trained(
            (source, at.scale, at.model),
            arm,
            f"{arm} {digest[:8]}",
            generator_file(run, root),
            digest,
            run.path,
        )
    return [*generators.values()]
