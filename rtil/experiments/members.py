"""Which runs are those of an experiment, and what they were given beside its plan.

A run says so itself (`rtil.runs.record`). Version 0.1 did not: its runs belong to none until
scripts/upgrade_rows.py has written it into their rows.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from rtil.experiments.plan import BY_PLAN, Job, jobs, products
from rtil.runs.overrides import parsed
from rtil.runs.run import Run

FREE = (*BY_PLAN, "data")  # planned choices that a run of the experiment may have otherwise


def belonging(
    runs: Iterable[Run], experiment: Mapping, scale: str, part: str = "invert"
) -> list[tuple[Run, Job]]:
    """The runs of an experiment at a scale, each with the planned job that it was run for.

    A run that serves several jobs, as where a switch is what an arm has anyway, is there once for
    each, with that in `Run.job`. Arms that were run for the experiment without being planned
    belong to it.

    Args:
        part: "invert", or "train" for trainings (`rtil.runs.run.trainings`).
    """
    if not experiment["cells"] and part == "invert":
        return []
    planned = jobs(experiment, part)
    members: dict[tuple[Path, str], tuple[Run, Job]] = {}
    for run in at_scale(runs, scale):
        for recorded in jobs_of(run, experiment):
            job = _planned(recorded, planned)
            if job:
                members[run.path, json.dumps(job)] = replace(run, job=job), job
    return [*members.values()]


def at_scale(runs: Iterable[Run], scale: str) -> list[Run]:
    """The runs at a scale."""
    return [run for run in runs if run.config.get("scale.name") == scale]


def jobs_of(run: Run, experiment: Mapping) -> list[Job]:
    """What a run recorded of an experiment."""
    entries = run.experiments or ()
    return [entry["job"] for entry in entries if entry["name"] == experiment["name"]]


def _planned(recorded: Job, planned: Sequence[Job]) -> Job | None:
    """The planned job that a recorded one is: the longest whose choices it has."""

    def has(job: Job, free: tuple[str, ...]) -> bool:
        return all(
            key in recorded and parsed(recorded[key]) == parsed(each)
            for key, each in job.items()
            if key not in free
        )

    fitting = [job for job in planned if has(job, FREE)]
    if not fitting and "rtil" in recorded:
        arm = recorded["rtil"]
        fitting = [{**job, "rtil": arm} for job in planned if has(job, (*FREE, "rtil"))]
    return max(fitting, key=len, default=None)


def besides(
    runs: Iterable[Run], experiment: Mapping, scale: str, part: str = "invert"
) -> list[tuple[str, ...]]:
    """What runs of an experiment were given beside the plan, such as data.path, as words; the most
    frequent first."""
    entries = products(experiment, part)
    planned = {key for entry in entries for key in entry} - {"data"}
    images = {text for entry in entries for text in entry.get("data", ())}
    left_out = {*planned, *BY_PLAN, "scale", "root"}
    counts: Counter[tuple[str, ...]] = Counter()
    for run in at_scale(runs, scale):
        for job in jobs_of(run, experiment)[:1]:
            more = {key: text for key, text in job.items() if key not in left_out}
            if more.get("data") in images:
                del more["data"]  # as planned, and not typed
            counts[tuple(f"{key}={text}" for key, text in more.items())] += 1
    return [words for words, _ in counts.most_common()]


def commands_for(recorded: Iterable[list[str]], name: str) -> list[list[str]]:
    """Those of the recorded commands of a run that ran an experiment."""
    return [
        command
        for command in recorded
        if f"experiment={name}" in (word.lstrip("+") for word in command)
    ]
