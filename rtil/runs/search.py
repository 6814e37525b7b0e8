"""The search behind a run with tuned settings, as small as packed rows and reports need it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from rtil.runs.keys import KNOBS
from rtil.runs.run import Run


@dataclass(frozen=True)
class Search:
    """Scores of the trials of one search, and what it was a search of.

    Attributes:
        seed, knob, value, noise_std, space, generator_sha256: what was tuned, and in which space.
        n: validation images.
        drawn: number of the first drawn trial; those before it are settings of the paper.
        means: PSNR in dB of each trial, None where its loss was not finite.
    """

    seed: int
    knob: str
    value: float | None
    noise_std: float | None
    space: str | None
    generator_sha256: str | None
    n: int
    drawn: int
    means: Sequence[float | None]

    @property
    def scores(self) -> dict[int, float]:
        """{trial: mean PSNR in dB} of the drawn settings that had a finite loss."""
        trials = [*enumerate(self.means)][self.drawn :]
        return {number: mean for number, mean in trials if mean is not None}


def read(path: Path) -> dict[str, Any]:
    """A file of `rtil.tune`. Raises ValueError where it is none."""
    try:
        tuned = yaml.safe_load(path.read_text(encoding="utf-8"))
        for key in ("trial", "trials", "settings", "space"):
            tuned[key]
    except (OSError, yaml.YAMLError, KeyError, TypeError) as error:
        raise ValueError(
            f"protocol=fair: {path} is no file of python -m rtil.tune "
            f"({type(error).__name__}: {error})."
        ) from error
    return tuned


def search_of(run: Run, read: Callable[[Path], Mapping[str, Any]] = read) -> Search | None:
    """The search that a run's settings come from.

    None without one, or where its file is gone or was searched anew since; `read` reads it.
    """
    if run.tuning is not None:
        return Search(**run.tuning)  # type: ignore[arg-type]  # a packed line, checked when read
    path = file_of(run)
    if path is None or not path.exists():
        return None
    tuned = read(path)
    settings, trials = tuned["settings"], tuned["trials"]
    recorded = [run.config.get(f"protocol.tuned.{key}") for key in ("trials", "trial")]
    if [len(trials), tuned["trial"]] != recorded:
        return None
    knob = next((key for key in KNOBS.values() if key in settings), "noise_std")
    return Search(
        settings.get("seed"),
        knob,
        settings.get(knob),
        settings.get("noise_std"),
        run.config.get("protocol.tuned.space"),
        settings.get("generator_sha256"),
        max(trial["n"] for trial in trials),
        len(tuned["space"]["anchors"]),
        [trial["mean"] for trial in trials],
    )


def file_of(run: Run) -> Path | None:
    """The file of `rtil.tune` that a run took its settings from, also where its root was moved."""
    name = run.config.get("protocol.tuned.file")
    if not name:
        return None
    path, parents = Path(str(name)), run.path.parents
    if path.exists() or "tuned" not in path.parts or len(parents) < 3:
        return path
    return parents[2].joinpath(*path.parts[path.parts.index("tuned") :])


def budget(config: Mapping[str, object]) -> tuple | None:
    """Trials, validation images and space (a digest with seed and total steps) behind a run.

    Then, of a tuning in two rounds, the images of the first and how many went on. None where
    nothing was tuned. Runs to be compared have the same.
    """
    tuned = "protocol.tuned"
    first_round = f"{tuned}.validation.first_round"
    spent = [config.get(f"{tuned}.{key}") for key in ("trials", "validation.n", "space")]
    first = [config.get(f"{first_round}.{key}") for key in ("n", "finalists")]
    return None if None in spent else (*spent, *(value for value in first if value is not None))
