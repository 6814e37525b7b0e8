"""What an experiment planned beside what is on disk: its runs, and the cells that are missing."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

from rtil.experiments.members import FREE
from rtil.experiments.plan import (
    command,
    for_training,
    jobs,
    products,
    switch_of,
    tuning_commands,
)
from rtil.operators import KNOBS
from rtil.reporting.cells import Case, Cell, Entry, case_of
from rtil.runs.keys import GROUPS
from rtil.runs.overrides import parsed
from rtil.runs.run import Run

Job = Mapping[str, str]
LINES = {"inverter.num_codes": "N"}


def on_the_same_images(found: Sequence[tuple[Run, Job]]) -> list[tuple[Run, Job]]:
    """The runs of an experiment without rows of images that the others do not have.

    Another experiment may have asked for more images of a run that both share. Where a run has
    those that were planned and no others, and was asked for no more, they are the ones that count.
    """
    ids: dict[str, set[str]] = {}
    for run, job in found:
        if max(len(run.rows), run.config.get("num_images") or 0) <= int(job["num_images"]):
            ids.setdefault(case_of(run).data, set()).update(run.rows)
    kept = []
    for run, job in found:
        known = ids.get(case_of(run).data, set())
        if len(known) == int(job["num_images"]) < len(run.rows):
            run = replace(run, rows={i: row for i, row in run.rows.items() if i in known})
        kept.append((run, job))
    return kept


def told(experiment: Mapping) -> set[str]:
    """Settings that the plan varies beside what tells cells, arms and trainings apart."""
    values: dict[str, set] = {}
    for entry in products(experiment, "invert"):
        for key, texts in entry.items():
            values.setdefault(key, set()).update(texts)
    varied = {key for key, texts in values.items() if len(texts) > 1}
    varied |= {key for key in values if key.startswith(("rtil.", "model."))}
    return varied - {*GROUPS, *FREE, *KNOBS, "noise_std", "seed"}


def settings_of(experiment: Mapping, job: Job) -> dict[str, str]:
    """What tells a job apart in its cell where the plan has switches: choices of its generator's
    training beside arm, seed and data, then what it switches."""
    training = {key for entry in products(experiment, "train") for key in entry}
    training -= {*GROUPS, *FREE, "seed"}
    return {key: job[key] for key in sorted(training) if key in job} | switch_of(experiment, job)


def by_switch(
    cells: Iterable[Cell], found: Iterable[tuple[Run, Job]], experiment: Mapping
) -> list[Cell]:
    """Cells whose entries are told apart by `settings_of`, where the plan has switches.

    Entries of an arm stand in the order of the plan, that without a switch first. A choice that a
    protocol makes besides is not named, except for the selection by an oracle.
    """
    if not any("switches" in cell for cell in experiment["cells"]):
        return list(cells)
    order = {json.dumps(job): number for number, job in enumerate(jobs(experiment, "invert"))}
    def renamed(entry: Entry) -> Entry:
        oracle = {"selection": "oracle"} if entry.oracle else {}
        return entry._replace(settings=settings_of(experiment, entry.runs[0].job) | oracle)

    def place(cell: Cell, entry: Entry) -> tuple[int, int]:
        job = json.dumps(entry.runs[0].job)
        return [e.arm for e in cell.entries].index(entry.arm), order.get(job, len(order))

    return [
        cell._replace(
            entries=[
                renamed(e) for e in sorted(cell.entries, key=lambda e, cell=cell: place(cell, e))
            ]
        )
        for cell in cells
    ]


def complete(
    cells: Sequence[Cell],
    tables: Sequence[list[dict]],
    found: Sequence[tuple[Run, Job]],
    experiment: Mapping,
    words: Sequence[str],
) -> tuple[list[Cell], list[list[dict]]]:
    """Records with what was planned of them, and one for each planned job that nobody ran.

    Records gain "job", "planned" (images), and for the figure "panel", "x" and "line"; those with
    a run of fewer images than planned, and those of missing jobs, the commands that fill them.
    """
    plan = jobs(experiment, "invert")
    rows: dict[Case, list[dict]] = {cell.case: [] for cell in cells}
    for cell, table in zip(cells, tables):
        for entry, row in zip(cell.entries, table):
            (run, job), *_ = pairs = [(run, run.job) for run in entry.runs]
            own = [word for word in words if not word.startswith("protocol=")]
            own += [f"protocol={row['protocol']}"] if row["protocol"] != "paper" else []
            more = dict.fromkeys(
                command(experiment, "invert", own, planned)
                for stopped, planned in pairs
                if len(stopped.rows) < int(planned["num_images"])
            )
            rows[cell.case].append(
                _placed(row, job, run.asked, experiment)
                | {"planned": int(job["num_images"]), "more": [*more]}
            )
    places = dict.fromkeys((case_of(run).data, case_of(run).scale) for run, _ in found)
    ran = {(case_of(run).data, json.dumps(job)) for run, job in found}
    for data, scale in places:
        for job in plan:
            if (data, json.dumps(job)) in ran:
                continue
            case = _case(job, data, scale)
            settings = (
                settings_of(experiment, job)
                if switch_of(experiment, job)
                else {key: job[key] for key in sorted(told(experiment)) if key in job}
            )
            label = ", ".join([job["rtil"], *(f"{k}={v}" for k, v in settings.items())])
            row = {
                **case._asdict(),
                "measurement": case.measurement,
                "arm": job["rtil"],
                "label": label,
                "settings": settings,
                "planned": int(job["num_images"]),
                "commands": [
                    command(experiment, "train", for_training(words), job),
                    *tuning_commands(experiment, words, job),
                    command(experiment, "invert", words, job),
                ],
            }
            value = {key: parsed(text) for key, text in job.items()}
            other = next(
                (r for r in rows.setdefault(case, []) if "n" not in r and r["label"] == label),
                None,
            )
            if other:  # another training of the same: one row names both
                other["commands"] = [*dict.fromkeys(other["commands"] + row["commands"])]
                continue
            rows[case].append(_placed(row, job, value, experiment))
    order = {json.dumps(job): number for number, job in enumerate(plan)}
    existing = {cell.case: cell for cell in cells}
    cases = sorted(rows)
    for case in cases:
        rows[case].sort(key=lambda row: order.get(json.dumps(row["job"]), len(order)))
    return [existing.get(case, Cell(case, [], [])) for case in cases], [rows[c] for c in cases]


def _case(job: Job, data: str, scale: str) -> Case:
    """The cell of a job that nobody ran."""
    knob = next((key for key in KNOBS if key in job), "noise_std")
    noise, value = (float(job.get(key, 0.0)) for key in ("noise_std", knob))
    return Case(job["task"], job["inverter"], data, scale, job["model"], knob, noise, value)


def _placed(row: dict, job: Job, config: Mapping, experiment: Mapping) -> dict:
    """A record with its place in the experiment's figure."""
    figure = experiment["figure"]
    panel, x, line = (figure.get(key) for key in ("panel", "x", "line"))
    label = row["arm"]
    if row["settings"].get("protocol", "paper") != "paper":
        label += f", protocol={row['settings']['protocol']}"
    if row["settings"].get("selection") == "oracle":
        label += ", oracle"
    if line and (line in job or line in config):
        label += f", {LINES.get(line, line)} = {job.get(line, config.get(line))}"
    return row | {
        "job": dict(job),
        "line": label,
        "panel": row["measurement"] if panel == "value" else row["task"],
        "x": row["value"] if x == "value" else config.get(x),
    }
