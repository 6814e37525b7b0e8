"""Which job of an experiment a run of version 0.1 was: read from its folder and its commands.

That version recorded the experiment's name and the command line, which may sweep over many jobs,
and named folders after what was typed. The rules of those names live here and nowhere else.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache
from pathlib import Path

import yaml

from rtil.process.command import CONFIGS
from rtil.runs import keys, overrides
from rtil.runs.identity import inversion_stem, training_stem
from rtil.runs.keys import is_under
from rtil.runs.run import Run

Job = Mapping[str, str]
FREE = ("experiment", "num_images", "data")  # planned choices that a run may have otherwise
# Settings that folders were named after where they were typed, and those among them that not.
TRAINED = ("model", "rtil", "data", "scale", "resolution", "image_channels")
INVERTED = (
    *("task", "inverter", "loss", "metrics", "selection", "target_range", "split", "mask"),
    *("heldout", "discrepancy", "restarts", "average", "back_projection", "tuned"),
    *("scale.ilo", "scale.csgm", "scale.mgan", "scale.lpips", "hardware.precision", "protocol.at"),
)
UNNAMED = (
    *("data.path", "data.val_path", "data.test_path", "data.cache_gb", "data.trained_on"),
    *("scale.num_images", "scale.inversion_batch", "scale.sweep"),
)


def jobs_of(runs: Sequence[Run], name: str, planned: Sequence[Job], part: str) -> dict[Path, Job]:
    """{path of a run: the planned job that it was} for those that belong to an experiment.

    One belongs when it has a job's choices, and was run for the experiment or is named as a job's
    command names it, with or without what the experiment's commands set besides.
    """
    ways = [{}, *_besides(runs, name, planned)]
    found = {}
    for run in runs:
        asked_for = run.config.get("experiment.name") == name or bool(typed_for(run, name))
        fitting = [job for job in planned if _agrees(run, job, FREE)]
        # A switch to what an arm has anyway fits runs of other switches too; names tell.
        exact = [
            job for job in fitting if any(_is_named_as(run, {**job, **way}, part) for way in ways)
        ]
        if exact or not asked_for:
            fitting = exact
        elif not fitting:
            arm = str(run.config["rtil.name"])
            free = (*FREE, "rtil")
            fitting = [{**job, "rtil": arm} for job in planned if _agrees(run, job, free)]
        if fitting:
            found[run.path] = max(fitting, key=len)
    return found


def typed_for(run: Run, name: str) -> list[dict[str, str]]:
    """What the recorded commands that ran an experiment set, the last one first."""
    lines = []
    for _, *words in run.recorded:
        if f"experiment={name}" in (word.lstrip("+") for word in words):
            lines.append(overrides.typed(word for word in words if "=" in word))
    return lines


def _besides(runs: Sequence[Run], name: str, planned: Sequence[Job]) -> list[dict[str, str]]:
    """What commands of the experiment set beside the plan, the most frequent first."""
    left_out = {*(key for job in planned for key in job), "scale", "root", *FREE} - {"data"}
    counts: Counter[tuple] = Counter()
    for run in runs:
        for typed in typed_for(run, name)[:1]:
            counts[tuple((k, each) for k, each in typed.items() if k not in left_out)] += 1
    return [dict(way) for way, _ in counts.most_common()]


def _agrees(run: Run, job: Job, free: Sequence[str]) -> bool:
    """Whether a run has the choices of a job, but for those in `free`."""
    asked = run.asked
    return all(
        asked.get(f"{key}.name" if key in keys.GROUPS else key) == overrides.parsed(each)
        for key, each in job.items()
        if key not in free
    )


def _is_named_as(run: Run, typed: Job, part: str) -> bool:
    """Whether a run lies where these overrides put it: it named no setting besides."""
    training, _, inversion = run.named.rpartition("/")
    if part == "train":
        training = inversion
    words = [f"{key}={each}" for key, each in typed.items()]
    if typed.get("protocol", "paper") != "paper":
        more = run.config.get("protocol.train")
        words += more if isinstance(more, list) else []
    trained, inverted = suffixes(words)
    names = [f"{training_stem(run.config)},{trained}".rstrip(",")]
    if part == "invert":
        names.append(f"{inversion_stem(run.config)},{inverted}".rstrip(","))
        if "noise_std" not in typed and run.config["noise_std"] != _noise(run.config["task.name"]):
            return False
    return names == [training, inversion][: len(names)]


def suffixes(words: Iterable[str]) -> tuple[str, str]:
    """What stood after the choices in the folders of a training and of an inversion, given these
    overrides."""
    trained, inverted = set(), set()
    for word in words:
        key, text = overrides.key_of(word), word.replace("/", "_").replace(" ", "")
        if key == "protocol" and word != "protocol=paper":
            inverted.add(text)
        elif key in keys.GROUPS or is_under(key, UNNAMED):
            continue
        elif is_under(key, INVERTED):
            inverted.add(text)
        elif is_under(key, TRAINED):
            trained.add(text)
    return _shortened(trained), _shortened(inverted)


def _shortened(words: Iterable[str]) -> str:
    text = ",".join(sorted(words))
    return hashlib.sha256(text.encode()).hexdigest()[:12] if len(text) > 100 else text


@lru_cache
def _noise(task: object) -> float:
    """The noise of a task where none is asked for."""
    path = Path(CONFIGS) / "task" / f"{task}.yaml"
    return yaml.safe_load(path.read_text())["noise_std"] if path.exists() else 0.0
