"""The search behind a run with tuned settings, as small as packed rows and reports need it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from rtil.runs import tuning
from rtil.runs.keys import TUNED
from rtil.runs.run import Run


@dataclass(frozen=True)
class Search:
    """The search that a run's settings come from, small enough to be packed.

    Args:
        seed, knob, value, noise_std, space, generator_sha256: what it was a search of.
        n: validation images.
        drawn: number of the first drawn trial; those before it are anchors.
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


def search_of(run: Run) -> Search | None:
    """The search behind a run's settings: as packed, or read from the file of `rtil.tune`.

    None without one, or where its file is gone or was searched anew since.

    Raises:
        ValueError: the file is none of `rtil.tune`.
    """
    if run.tuning is not None:
        return Search(**run.tuning)
    path = tuned_file(run)
    if path is None or not path.exists():
        return None
    content = tuning.read(path)
    settings, trials = content["settings"], content["trials"]
    known = [run.config.get(f"{TUNED}.{key}") for key in ("trials", "trial")]
    if [len(trials), content["trial"]] != known:
        return None
    knob = str(run.config["task.knob"])
    space = run.config.get(f"{TUNED}.space")
    return Search(
        seed=settings["seed"],
        knob=knob,
        value=settings.get(knob),
        noise_std=settings.get("noise_std"),
        space=None if space is None else str(space),
        generator_sha256=settings.get("generator_sha256"),
        n=max(trial["n"] for trial in trials),
        drawn=len(content["space"]["anchors"]),
        means=[trial["mean"] for trial in trials],
    )


def tuned_file(run: Run) -> Path | None:
    """The file of `rtil.tune` that a run took its settings from, also where its root was moved."""
    name = run.config.get(f"{TUNED}.file")
    if not name:
        return None
    path, parents = Path(str(name)), run.path.parents
    if path.exists() or "tuned" not in path.parts or len(parents) < 3:
        return path
    return parents[2].joinpath(*path.parts[path.parts.index("tuned") :])


def budget(config: Mapping) -> tuple | None:
    """Trials, validation images and space (a digest with seed and total steps) behind a run, then,
    of a tuning in two rounds, the images of the first and how many went on.

    None where nothing was tuned. Runs to be compared have the same.
    """
    known = [config.get(f"{TUNED}.{key}") for key in ("trials", "validation.n", "space")]
    first = [config.get(f"{TUNED}.validation.first_round.{key}") for key in ("n", "finalists")]
    return None if None in known else (*known, *(value for value in first if value is not None))
