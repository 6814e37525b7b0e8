"""Adds their experiments to rows of version 0.1: `python scripts/upgrade_rows.py FILE...`.

That version recorded the experiment's name and the command line, which may sweep over many jobs,
and named folders after what was typed. Which job of which experiment a run was is inferred from
both here, once, and written into the rows, as runs record it themselves today
(`rtil.runs.record`). Rows that say it stay as they are. Runs in directories are upgraded by
scripts/rename_runs.py.
"""

from __future__ import annotations

import argparse
import hashlib
import json
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache
from pathlib import Path

import yaml
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf

from rtil.experiments.plan import Job, jobs
from rtil.process.command import CONFIGS, entry
from rtil.process.files import write_text
from rtil.runs import archive, keys, overrides
from rtil.runs.identity import inversion_stem, training_stem
from rtil.runs.keys import is_under
from rtil.runs.run import Run

Recorded = list[dict]  # [{"name", "job": {key: text}}], as `rtil.runs.record` keeps it
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
    return all(_has(run, key, text) for key, text in job.items() if key not in free)


def _has(run: Run, key: str, text: str) -> bool | None:
    """Whether a run was given a choice; None where its configuration does not say."""
    asked, name = run.asked, f"{key}.name" if key in keys.GROUPS else key
    return asked[name] == overrides.parsed(text) if name in asked else None


def _is_named_as(run: Run, typed: Job, part: str) -> bool:
    """Whether a run lies where these overrides put it: it named no setting besides."""
    training, inversion = run.path.parent.name, run.path.name
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


def experiments_of(runs: Sequence[Run], part: str = "invert") -> dict[Path, Recorded]:
    """{path of a run: what it would have recorded of each experiment that it belongs to}."""
    by_scale: dict[str, list[Run]] = defaultdict(list)
    for run in runs:
        by_scale[str(run.config["scale.name"])].append(run)
    recorded: dict[Path, Recorded] = {run.path: [] for run in runs}
    for scale, own in by_scale.items():
        for file in sorted((Path(CONFIGS) / "experiment").glob("*.yaml")):
            experiment = plan_of(file.stem, scale)
            if part == "invert" and not experiment.get("cells"):
                continue
            planned = jobs(experiment, part)
            name = experiment["name"]
            usual = next(iter(_besides(own, name, planned)), {})
            jobs_by_path = jobs_of(own, name, planned, part)
            for run in own:
                if run.path in jobs_by_path:
                    job = with_typed(run, name, jobs_by_path[run.path], usual)
                    recorded[run.path].append({"name": name, "job": job})
    return recorded


@lru_cache
def plan_of(name: str, scale: str) -> Mapping:
    """An experiment at a scale, as a command composes it."""
    with initialize_config_dir(CONFIGS, version_base="1.3"):
        cfg = compose("report", [f"experiment={name}", f"scale={scale}"])
    plan = OmegaConf.to_container(cfg.experiment, resolve=True)
    assert isinstance(plan, dict)
    return plan


def with_typed(run: Run, name: str, job: Job, usual: Job) -> dict[str, str]:
    """A job with what the last command that ran its experiment set besides.

    Args:
        usual: what most commands of the experiment set, which a run that is known by its name
            was given too, but for what its configuration has otherwise.
    """
    typed = next(iter(typed_for(run, name)), None)
    if typed is None:
        typed = {key: text for key, text in usual.items() if _has(run, key, text) is not False}
    left_out = {*job, "scale", "root", *FREE} - {"data"}
    return {**job, **{key: text for key, text in typed.items() if key not in left_out}}


def upgrade(file: Path) -> int:
    """Rewrites a file in the present format; returns how many of its rows said nothing yet."""
    lines = [line for _, line in archive.lines_of(file)]
    old = {}
    for line in lines:
        folder, digest = archive.identity(line)
        if "experiments" not in line:
            old[Path(digest[:8] or "none") / folder] = line
    runs = [archive.unpacked(line, path) for path, line in old.items()]
    for path, recorded in experiments_of(runs).items():
        old[path]["experiments"] = recorded
    for line in lines:
        line["packed"] = archive.FORMAT
    texts = [json.dumps(line, separators=(",", ":")) for line in archive.shortened(lines)]
    write_text(file, "".join(f"{text}\n" for text in texts))
    return len(old)


def main() -> None:
    """Entry point."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("files", type=Path, nargs="+")
    for file in parser.parse_args().files:
        print(f"{file}: {upgrade(file)} rows upgraded.")


if __name__ == "__main__":
    entry(main)
