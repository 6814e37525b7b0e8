"""A run on disk, as reports and experiments read it: its configuration, rows and commands.

Training and inverting write runs (`rtil.runs.record`, `rtil.runs.rows`); packed rows are read as
runs too (`rtil.runs.archive`). Which runs are compared is decided in `rtil.reporting`.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any

import yaml

from rtil import generators
from rtil.runs import keys, record
from rtil.runs.identity import EXPORTED, read_config
from rtil.runs.keys import TUNED
from rtil.runs.rows import read as read_rows
from rtil.runs.rows import result_rows
from rtil.runs.schema import LOGGED

NEEDED = (*(f"{g}.name" for g in ("model", "rtil", "data", "scale", "task", "inverter")), "seed")
# How the columns end that reports show.
SCORES = ("psnr_db", "ssim", "ssim_valid", "lpips", "gradient_energy")
CONTROL = re.compile(r"[\x00-\x1f\x7f\ud800-\udfff]")  # in no name that can be shown


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
        uncommitted: which of "training" and "inversion" ran on sources that no commit holds.
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
    uncommitted: Sequence[str] = ()
    study: str = ""

    @property
    def seed(self) -> int | str:
        """What tells it from runs of other trainings, and pairs it with those of other arms."""
        return self.of_study(self.config["seed"])

    def of_study(self, seed: object) -> int | str:
        """A seed of the same study, with its name where it has one."""
        return f"{self.study}:{seed}" if self.study or not isinstance(seed, int) else seed

    @cached_property
    def columns(self) -> dict[str, dict[str, Any]]:
        """{name of a column: {image: value}}, of the values that there are."""
        columns: dict[str, dict[str, Any]] = {}
        for image, row in self.rows.items():
            for key, value in row.items():
                if value is not None:
                    columns.setdefault(key, {})[image] = value
        return columns

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
    """Reads every inversion below <root>/invert; the notes say what is left out, and why."""
    history = lru_cache(maxsize=None)(record.history)  # many runs share a generator

    def read(run_dir: Path) -> tuple[Run, list[str]]:
        rows = {str(row["id"]): row for row in result_rows(run_dir)}
        run, notes = sound(_read(run_dir, rows))
        trained = history(generator_file(run, root).parent)
        commands = [entry["command"] for entry in trained]
        uncommitted = parts_uncommitted(trained, record.history(run_dir))
        return replace(run, trained=commands, uncommitted=uncommitted), notes

    paths = sorted((root / "invert").rglob("config.yaml"))
    started = [path.parent for path in paths if any(path.parent.glob("results*.jsonl"))]
    runs, notes = _each(started, read)
    notes += [f"{run.path} has no rows yet." for run in runs if not run.rows]
    return [run for run in runs if run.rows], notes


def parts_uncommitted(trained: Sequence[Mapping], inverted: Sequence[Mapping]) -> tuple[str, ...]:
    """`Run.uncommitted` of the histories of a generator's training and of an inversion."""
    histories = {"training": trained, "inversion": inverted}
    return tuple(part for part, own in histories.items() if record.is_uncommitted(own))


def trainings(root: Path) -> tuple[list[Run], list[str]]:
    """The trainings below root that have a generator, as runs without rows; notes likewise."""
    files = sorted((root / "train").glob(f"*/{EXPORTED}"))
    started = [file.parent for file in files if (file.parent / "config.yaml").exists()]
    return _each(started, lambda run_dir: (_read(run_dir, {}), []))


def _each(
    directories: Iterable[Path], read: Callable[[Path], tuple[Run, list[str]]]
) -> tuple[list[Run], list[str]]:
    """The runs that can be read, and their notes; one that cannot is a note."""
    runs, notes = [], []
    for run_dir in directories:
        try:
            run, more = read(run_dir)
            runs.append(run)
        except (AttributeError, KeyError, TypeError, ValueError, OSError, yaml.YAMLError) as error:
            why = " ".join(f"{type(error).__name__}: {error}".split())
            advice = "Delete it and run its command again, or move it out of the way."
            more = [f"Left out: {run_dir} cannot be read as a run ({why}). {advice}"]
        notes += more
    return runs, notes


def generator_file(run: Run, root: Path) -> Path:
    """The generator that an inversion was run with, where it lies here; nothing is fetched."""
    own = run.config.get("generator")
    return generators.local(str(own)) if own else root / "train" / run.path.parent.name / EXPORTED


def collect(root: Path) -> tuple[list[Run], list[str]]:
    """`inversions`; raises FileNotFoundError where none has rows."""
    runs, notes = inversions(root)
    if not runs:
        words = [
            f"{part} rtil={arm}" for part in ("train", "invert") for arm in ("vanilla", "ilo")
        ]
        lines = [f"    python -m rtil.{word} root={root}" for word in words]
        raise FileNotFoundError(
            f"report: no inversion with results below {root / 'invert'}. Make some:\n"
            + "\n".join([*lines, *notes, *progress(root)])
        )
    return runs, notes


def progress(root: Path) -> list[str]:
    """How far each training below root is, done or not, and what there is to look at."""
    lines = []
    for path in sorted((root / "train").glob("*/log.jsonl")):
        with suppress(ValueError, OSError, LookupError):
            nimg = read_rows(path, LOGGED)[-1]["nimg"]
            total = read_config(path.parent)["total_nimg"]
            lines.append(f"{path.parent}: {nimg} of {total} images; see samples-*.png there")
    return lines


def _read(directory: Path, rows: Mapping[str, Mapping]) -> Run:
    config = keys.complete(keys.flatten(read_config(directory)))
    commands, experiments = record.commands(directory), record.experiments(directory)
    return Run(directory, config, rows, commands, experiments=experiments)


def sound(run: Run) -> tuple[Run, list[str]]:
    """A run without the rows that a report cannot show, and a note on each.

    Raises:
        ValueError: its settings are not what a report needs.
    """
    config, knob = run.config, str(run.config.get("task.knob"))
    faults = [f"{key} is missing" for key in (*NEEDED, knob) if config.get(key) is None]
    hidden = [key for key in NEEDED if CONTROL.search(str(config.get(key)))]
    faults += [f"{key} has characters that cannot be shown" for key in hidden]
    faults += map(str, keys.faults(config))
    if faults:
        raise ValueError("; ".join(faults))
    rows, notes = {}, []
    scores = [key for key in run.columns if key.endswith(SCORES) and key != "psnr_db"]
    for name, row in run.rows.items():
        wrong = [] if is_number(row.get("psnr_db")) else ["psnr_db"]
        wrong += [key for key in scores if row.get(key) is not None and not is_number(row[key])]
        wrong += ["id"] if CONTROL.search(name) else []
        if wrong:
            what = ", ".join(sorted(wrong))
            notes.append(f"Left out: image {name[:40]!a} of {run.path}: no {what} to show.")
        else:
            rows[name] = row
    return replace(run, rows=rows), notes


def is_number(value: object) -> bool:
    """Whether a column holds a value that can be averaged."""
    if type(value) is int:  # true and false are none
        return abs(value) < 2**63
    return isinstance(value, float) and not math.isnan(value)
