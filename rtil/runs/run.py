"""A run on disk, as reports and experiments read it: its configuration, rows and commands.

Training and inverting write runs (`rtil.runs.record`, `rtil.runs.rows`); packed rows are read as
runs too (`rtil.runs.archive`). Which runs are compared is decided in `rtil.reporting`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache
from pathlib import Path

import yaml

from rtil.runs import keys, record
from rtil.runs.identity import EXPORTED, read_config
from rtil.runs.rows import result_rows

NEEDED = (*(f"{g}.name" for g in ("model", "rtil", "data", "scale", "task", "inverter")), "seed")
TUNED = "protocol.tuned"


@dataclass(frozen=True)
class Run:
    """An inversion's or training's directory.

    Args:
        config: flattened to {"a.b": value}, complete (`rtil.runs.keys.complete`).
        rows: by image id.
        recorded: the commands that worked on it, trained those on its generator, last first.
        experiments: [{"name", "job": {key: text}}] that it was run for; None where version 0.1,
            which did not record them, ran it.
        tuning: the search behind its settings where it was packed (`rtil.runs.search`).
        job: the planned job that it is read as (`rtil.experiments.plan`).
        study: the file that it was read from where an earlier one has other trainings of its
            seeds.
    """

    path: Path
    config: Mapping[str, object]
    rows: Mapping[str, Mapping] = field(default_factory=dict)
    recorded: Sequence[list[str]] = ()
    trained: Sequence[list[str]] = ()
    experiments: Sequence[Mapping] | None = None
    tuning: Mapping | None = None
    job: Mapping[str, str] = field(default_factory=dict)
    study: str = ""

    @property
    def seed(self) -> int | str:
        """What tells it from runs of other trainings, and pairs it with those of other arms."""
        return self.of_study(self.config["seed"])

    def of_study(self, seed: object) -> int | str:
        """A seed of the same study, with its name where it has one."""
        return f"{self.study}:{seed}" if self.study or not isinstance(seed, int) else seed

    @property
    def protocol(self) -> str:
        """Its name; runs of earlier versions have none and are of the paper's."""
        return str(self.config.get("protocol.name", "paper"))

    @property
    def asked(self) -> dict[str, object]:
        """The settings that were asked for: without those that a tuning chose for them."""
        chosen = self.config.get(f"{TUNED}.keys") or ()
        assert isinstance(chosen, Sequence)
        kept = {key: value for key, value in self.config.items() if key not in chosen}
        start = f"{TUNED}.asked."
        return kept | {
            key.removeprefix(start): value
            for key, value in self.config.items()
            if key.startswith(start)
        }


def inversions(root: Path) -> tuple[list[Run], list[str]]:
    """Reads every inversion below <root>/invert; the notes name those without rows.

    Raises:
        ValueError: one cannot be read.
    """
    paths = sorted((root / "invert").rglob("config.yaml"))
    runs = [read_run(p.parent) for p in paths if any(p.parent.glob("results*.jsonl"))]
    notes = [f"{run.path} has no rows yet." for run in runs if not run.rows]
    commands = lru_cache(maxsize=None)(record.commands)  # many runs share a generator
    trained = [
        replace(run, trained=commands(generator_file(run, root).parent))
        for run in runs
        if run.rows
    ]
    return trained, notes


def trainings(root: Path) -> list[Run]:
    """The trainings below root that have a generator, as runs without rows."""
    files = sorted((root / "train").glob(f"*/{EXPORTED}"))
    return [_read(file.parent, {}) for file in files if (file.parent / "config.yaml").exists()]


def generator_file(run: Run, root: Path) -> Path:
    """The generator that an inversion was run with."""
    own = run.config.get("generator")
    return Path(str(own)) if own else root / "train" / run.path.parent.name / EXPORTED


def collect(root: Path) -> tuple[list[Run], list[str]]:
    """`inversions`, of which there must be some.

    Raises:
        FileNotFoundError: none has rows. ValueError: one cannot be read.
    """
    runs, notes = inversions(root)
    if not runs:
        make = "".join(
            f"\n    python -m rtil.{part} rtil={arm} root={root}"
            for part in ("train", "invert")
            for arm in ("vanilla", "ilo")
        )
        raise FileNotFoundError(
            f"report: no inversion with results below {root / 'invert'}. Make some:{make}"
        )
    return runs, notes


def read_run(directory: Path) -> Run:
    """Reads one inversion; raises ValueError as `collect` says."""
    try:
        run = _read(directory, {str(row["id"]): row for row in result_rows(directory)})
        check(run.config, run.rows)
    except (AttributeError, KeyError, TypeError, ValueError, OSError, yaml.YAMLError) as error:
        raise ValueError(
            f"report: {directory} cannot be read as an inversion ({type(error).__name__}: "
            f"{error}). Delete it and run its command again, or move it out of the way."
        ) from error
    return run


def _read(directory: Path, rows: Mapping[str, Mapping]) -> Run:
    config = keys.complete(keys.flatten(read_config(directory)))
    commands, experiments = record.commands(directory), record.experiments(directory)
    return Run(directory, config, rows, commands, experiments=experiments)


def check(config: Mapping[str, object], rows: Mapping[str, Mapping]) -> None:
    """Raises ValueError where a run lacks what a report needs, KeyError without a PSNR."""
    bad = [key for key in NEEDED if key not in config]
    bad += [f"psnr_db of image {i}" for i, r in rows.items() if not is_number(r["psnr_db"])]
    if bad:
        raise ValueError(f"no {', '.join(bad)}")


def is_number(value: object) -> bool:
    """Whether a column holds a value that can be averaged."""
    return isinstance(value, (int, float)) and not math.isnan(value)
