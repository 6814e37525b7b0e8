"""What a run writes about itself: config.yaml, whose it is, and provenance.json, what made it."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path

import yaml

from rtil.process.files import write_text
from rtil.runs import keys, schema
from rtil.runs.identity import read_config
from rtil.runs.keys import Command
from rtil.runs.kinds import MapOf, Text

FILE = "provenance.json"
CHANGED = "-dirty"  # how a commit ends that the sources differed from (`rtil.process.provenance`)


def claim(run_dir: Path, config: Mapping, command: Command) -> bool:
    """Makes run_dir for this configuration, or checks that it belongs to it.

    Returns:
        Whether the directory holds an earlier part of the same run.

    Raises:
        ValueError: it holds a run with other settings; the message names the keys.
    """
    path = run_dir / "config.yaml"
    exists = path.exists()
    if exists:
        old, new = (keys.complete(keys.flatten(tree)) for tree in (read_config(run_dir), config))
        differs = keys.differing_keys(old, new, keys.matters(command))
        if differs:
            raise ValueError(
                f"{run_dir} holds a run with other settings:\n  "
                + "\n  ".join(differs)
                + about_files(differs)
                + "\nChoose another run_dir=..., or delete that directory."
            )
    run_dir.mkdir(parents=True, exist_ok=True)
    write_text(path, yaml.safe_dump(dict(config), sort_keys=False))
    return exists


def about_files(lines: Iterable[str]) -> str:
    """What to do where lines of `differing_keys` say that images are others; "" where not."""
    if not any(line.startswith(f"{keys.FILES}:") for line in lines):
        return ""
    return (
        f"\nThe images are others: files were added, removed or exchanged in {keys.SPLITS[0]}, "
        f"{keys.SPLITS[1]} or {keys.SPLITS[2]}. They may move, but have to stay the same: give "
        "them as they were."
    )


def write_provenance(run_dir: Path, record: Mapping, config: Mapping | None = None) -> None:
    """Writes what a command that works on run_dir runs with: its own line, versions, device.

    Those of earlier commands stay under "before", oldest first, where they differ: rows and steps
    may be theirs. The experiment that a configuration was composed for is added to "experiments",
    with the job that it is, also where nothing was left to do.
    """
    path = run_dir / FILE
    old = read(run_dir)
    before = old.pop("before", [])
    # Runs of version 0.1 do not say whose they are; they go on not to, until a job works on them.
    experiments = old.pop("experiments", None if old else [])
    job = experiment_of(config or {})
    if job and job not in (experiments or []):
        experiments = [*(experiments or []), job]
    before = [other for other in (*before, *([old] if old else [])) if other != record]
    content = dict(record)
    if experiments is not None:
        content["experiments"] = experiments
    if before:
        content["before"] = before
    write_text(path, json.dumps(content, indent=1))


def amend_provenance(run_dir: Path, facts: Mapping) -> None:
    """Adds what a command has found out while it ran to its record."""
    path = run_dir / FILE
    write_text(path, json.dumps({**json.loads(path.read_text()), **facts}, indent=1))


def experiment_of(config: Mapping) -> dict | None:
    """{"name", "job": {key: text}} of the experiment that a configuration was composed for."""
    node = config.get("experiment") or {}
    if "job" not in node:
        return None
    job = node["job"]
    if isinstance(job, str):
        advice = "The sweep of an experiment sets it: leave it out."
        job = schema.parsed(job, MapOf(Text(empty=True)), "experiment.job", advice)
    return {"name": node["name"], "job": dict(job)}


def experiments(run_dir: Path) -> list[dict] | None:
    """What `write_provenance` recorded of experiments; None for a run of version 0.1."""
    return read(run_dir).get("experiments")


def read(run_dir: Path) -> dict:
    """The content of provenance.json; empty where there is none.

    Raises:
        ValueError: it is damaged.
    """
    path = run_dir / FILE
    if not path.exists():
        return {}
    advice = "It is damaged: delete it, and the run goes on without what it said."
    return schema.read_json(path, schema.PROVENANCE, advice)


def history(run_dir: Path) -> list[dict]:
    """A record for each command that worked on a run, the last one first."""
    last = read(run_dir)
    if not last:
        return []
    before = last.pop("before", [])
    last.pop("experiments", None)
    return [last, *reversed(before)]


def is_uncommitted(entries: Iterable[Mapping]) -> bool:
    """Whether a command of a history ran on sources that no commit holds.

    Sources in no repository, as those of an installed package, have no commit to differ from.
    """
    return any(str(entry.get("commit")).endswith(CHANGED) for entry in entries)


def commands(run_dir: Path) -> list[list[str]]:
    """The commands of `history`, each as program and its arguments."""
    return [entry["command"] for entry in history(run_dir)]
