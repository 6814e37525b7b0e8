"""A run on disk, as reports and experiments read it: its configuration, rows and commands.

Training and inverting write runs (`rtil.runs.results`); packed rows are read as runs too
(`rtil.runs.archive`). Which runs are compared is decided in `rtil.reporting`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import yaml

from rtil.runs import results
from rtil.runs.keys import complete

NEEDED = (*(f"{g}.name" for g in ("model", "rtil", "data", "scale", "task", "inverter")), "seed")


class Run(NamedTuple):
    """An inversion's directory: config flattened to {"a.b": value}, rows by image id.

    recorded are the commands that worked on it, trained those on its generator, the last first;
    tuning is the search behind its settings where it was packed
    (`rtil.reporting.robustness.of_run`). study names the file that it was read from where an
    earlier one has other trainings of its seeds.
    """

    path: Path
    config: dict[str, object]
    rows: dict[str, dict]
    recorded: Sequence[list[str]] = ()
    trained: Sequence[list[str]] = ()
    tuning: Mapping[str, object] | None = None
    study: str = ""

    @property
    def seed(self) -> int | str:
        """What tells it from runs of other trainings, and pairs it with those of other arms."""
        return self.of_study(self.config["seed"])

    def of_study(self, seed: int) -> int | str:
        """A seed of the same study, with its name where it has one."""
        return f"{self.study}:{seed}" if self.study else seed

    @property
    def protocol(self) -> str:
        """Its name; runs of earlier versions have none and are of the paper's."""
        return str(self.config.get("protocol.name", "paper"))

    @property
    def asked(self) -> dict[str, object]:
        """The settings that were asked for: without those that a tuning chose for them."""
        chosen = self.config.get("protocol.tuned.keys", ())
        kept = {key: value for key, value in self.config.items() if key not in chosen}
        start = "protocol.tuned.asked."
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
    folders = {run.path: generator_file(run, root).parent for run in runs}
    trained = {folder: results.recorded_commands(folder) for folder in {*folders.values()}}
    return [run._replace(trained=trained[folders[run.path]]) for run in runs if run.rows], notes


def generator_file(run: Run, root: Path) -> Path:
    """The generator that an inversion was run with."""
    own = run.config.get("generator")
    return Path(own) if own else root / "train" / run.path.parent.name / "generator.pt"


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
    """Reads one run; raises ValueError as `collect` says."""
    try:
        tree = yaml.safe_load((directory / "config.yaml").read_text()) or {}
        config = complete(results.flatten(tree))
        rows = {str(row["id"]): row for row in results.result_rows(directory)}
        recorded = results.recorded_commands(directory)
        check(config, rows)
    except (AttributeError, KeyError, TypeError, ValueError, OSError, yaml.YAMLError) as error:
        raise ValueError(
            f"report: {directory} cannot be read as an inversion ({type(error).__name__}: "
            f"{error}). Delete it and run its command again, or move it out of the way."
        ) from error
    return Run(directory, config, rows, recorded)


def check(config: Mapping[str, object], rows: Mapping[str, Mapping]) -> None:
    """Raises ValueError where a run lacks what a report needs, KeyError without a PSNR."""
    bad = [key for key in NEEDED if key not in config]
    bad += [f"psnr_db of image {i}" for i, r in rows.items() if not is_number(r["psnr_db"])]
    if bad:
        raise ValueError(f"no {', '.join(bad)}")


def is_number(value: object) -> bool:
    """Whether a column holds a value that can be averaged."""
    return isinstance(value, (int, float)) and not math.isnan(value)
