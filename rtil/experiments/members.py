"""Which runs on disk are those of an experiment, and the commands that tune for its jobs."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache
from pathlib import Path

import yaml

from rtil.experiments.plan import AT, NOT_TOLD, command, jobs, overrides, parsed, products, tunings
from rtil.process.command import CONFIGS
from rtil.runs import results
from rtil.runs.run import Run

Job = Mapping[str, str]
FREE = (*NOT_TOLD, "data")  # planned choices that a run of the experiment may have otherwise


def belonging(
    runs: Iterable[Run], experiment: Mapping, scale: str, part: str = "invert"
) -> list[tuple[Run, Job]]:
    """The runs of an experiment at a scale, each with the planned job that it is.

    A run belongs to it when it has a job's choices, and was run for the experiment or is named as
    a job's command names it, with or without what those runs set besides. Arms that were run for
    it without being planned belong.
    """
    if not experiment["cells"] and part == "invert":
        return []
    found, plan, runs = [], jobs(experiment, part), list(runs)
    ways = [(), *besides(runs, experiment, scale, part)]
    for run in runs:
        named = run.config.get("experiment.name") == experiment["name"]
        named = named or bool(commands_for(run.recorded, experiment["name"]))
        if run.config.get("scale.name") != scale:
            continue
        fits = [job for job in plan if _agrees(run, job, FREE)]
        # A switch to what an arm has anyway fits runs of other switches too; their names tell.
        exact = [
            job
            for job in fits
            if any(
                _is_named_as(run, [*overrides(experiment, job), *words], part) for words in ways
            )
        ]
        fits = exact or fits if named else exact
        if named and not fits:
            arm = run.config["rtil.name"]
            fits = [{**job, "rtil": arm} for job in plan if _agrees(run, job, (*FREE, "rtil"))]
        if fits:
            found.append((run, max(fits, key=len)))
    return found


def _agrees(run: Run, job: Job, free: Sequence[str]) -> bool:
    """Whether a run has the choices of a job, but for those in `free`."""
    asked = run.asked
    return all(
        asked.get(f"{key}.name" if key in results.GROUPS else key) == parsed(value)
        for key, value in job.items()
        if key not in free
    )


def _is_named_as(run: Run, words: Sequence[str], part: str) -> bool:
    """Whether a run lies where these overrides put it: it named no setting besides."""
    config = results.nested(run.config)
    typed = {word.partition("=")[0] for word in words}
    # Both name a run by their value, whether typed or not.
    if part == "invert" and "noise_std" not in typed:
        config["noise_std"] = _own_noise(config["task"]["name"])
    if "protocol" not in typed:
        config["protocol"] = {"name": "paper"}
    trained = run.path if part == "train" else run.path.parent
    return trained.name == results.run_label("train", config, words) and (
        part == "train" or run.path.name == results.run_label("invert", config, words)
    )


@lru_cache
def _own_noise(task: str) -> float:
    """The noise of a task where none is asked for."""
    path = Path(CONFIGS) / "task" / f"{task}.yaml"
    return yaml.safe_load(path.read_text())["noise_std"] if path.exists() else 0.0


def besides(
    runs: Iterable[Run], experiment: Mapping, scale: str, part: str = "invert"
) -> list[tuple[str, ...]]:
    """What the commands of an experiment's runs set beside the plan, the most frequent first.

    Words that single out some of its jobs are left out.
    """
    planned = {key for entry in products(experiment, part) for key in entry} - {"data"}
    counts: Counter[tuple[str, ...]] = Counter()
    for run in runs:
        if run.config.get("scale.name") != scale:
            continue
        for _, *words in commands_for(run.recorded, experiment["name"])[:1]:
            keys = [word.lstrip("+").partition("=")[0] for word in words]
            counts[
                tuple(
                    word
                    for word, key in zip(words, keys)
                    if "=" in word and key not in {*planned, *NOT_TOLD, "scale", "root"}
                )
            ] += 1
    return [words for words, _ in counts.most_common()]


def commands_for(recorded: Iterable[list[str]], name: str) -> list[list[str]]:
    """Those of the recorded commands of a run that ran an experiment."""
    return [
        command
        for command in recorded
        if f"experiment={name}" in (word.lstrip("+") for word in command)
    ]


# Choices of an inversion that its tuning does not take.
NOT_TUNED = (
    "protocol",
    "experiment",
    "num_images",
    "split",
    "run_dir",
    "pictures",
    "input",
    "output",
    "fit",
    "keep_observed",
    "save_measurements",
    "yardstick",
    "metrics",
)


def tuning_commands(
    experiment: Mapping, words: Sequence[str], job: Job | None = None
) -> list[str]:
    """The tuning that a planned inversion takes, or without a job all that the plan takes."""
    takes = [job] if job else jobs(experiment, "invert")
    if not any(each.get("protocol") == "fair" for each in takes):
        return []
    (own,) = tunings([{key: [text] for key, text in job.items()}]) if job else [{}]
    given = []
    for word in words:
        key = word.lstrip("+~").partition("=")[0]
        if key.partition(".")[0] not in NOT_TUNED or results.is_under(key, (AT,)):
            given.append(word)
    chosen = {key: texts[0] for key, texts in own.items()} or None
    return [command(experiment, "tune", given, chosen)]
