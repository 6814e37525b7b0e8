"""The trials of a tuning: an inversion of the same validation images under each proposal.

Every trial has a directory of its own below that of the tuning and is claimed like any run, so a
tuning that was stopped goes on, image by image. The best may go on to more images in a final
round. What is tried is in `rtil.tuning.space`, what a tuning writes in `rtil.tuning.chosen`.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from rtil.inverters.minimise import NotFinite
from rtil.metrics.intervals import mean_ci
from rtil.process.files import write_text
from rtil.runs.rows import result_rows

METRIC = "psnr_db"
NOTE = "not-finite.json"  # in the folder of a trial whose loss was not finite
Invert = Callable[[Mapping[str, object], int], object]


@dataclass(frozen=True, order=True)
class Trial:
    """One proposal and its scores.

    Args:
        settings: {key: value} that it sets.
        scores: METRIC by image id, empty where its loss was not finite.
    """

    number: int
    settings: Mapping[str, object]
    scores: Mapping[str, float]


@dataclass(frozen=True)
class Round:
    """Trials on the same images.

    Args:
        trials: in the order that they were proposed in.
        ranked: those with scores, best first.
        ids: the images that all of these have.
    """

    trials: Sequence[Trial]
    ranked: Sequence[Trial]
    ids: Sequence[str]


def rounds(
    run_trial: Callable[[Trial, int], Trial],
    proposals: Sequence[Mapping[str, object]],
    images: int,
    finalists: int,
    final_images: int | None,
) -> list[Round]:
    """All proposals on `images`; with `final_images` the best of them, `finalists`, on so many.

    Raises:
        RuntimeError: no trial of a round has scores.
    """
    trials = [Trial(number, settings, {}) for number, settings in enumerate(proposals)]
    trials = [run_trial(trial, images) for trial in trials]
    done = [Round(trials, *rank(trials))]
    if final_images:
        best = sorted(done[0].ranked[:finalists], key=lambda trial: trial.number)
        trials = [run_trial(trial, final_images) for trial in best]
        done.append(Round(trials, *rank(trials, "finalists")))
    return done


def run(place: Path, invert: Invert, trial: Trial, images: int) -> Trial:
    """A trial with its scores: an inversion of the validation images, or what is on disk of it.

    Args:
        place: directory of the tuning.
        invert: inverts so many images under these settings, with `run_dir` among them.
    """
    number, settings = trial.number, trial.settings
    where = place / f"trial-{number:03d}"
    if images >= fails_at(where):
        return Trial(number, settings, {})
    try:
        invert({**settings, "run_dir": str(where)}, images)
    except NotFinite as error:
        write_text(where / NOTE, json.dumps({"num_images": images, "error": str(error)}))
        return Trial(number, settings, {})
    rows = result_rows(where)[:images]  # a longer tuning may have left more
    return Trial(number, settings, {row["id"]: row[METRIC] for row in rows})


def fails_at(where: Path) -> float:
    """Of how many images on a trial is known to have no score; inf where none is known.

    Fewer images have a score all the same: a finalist that fails keeps that of the first round. A
    note of version 0.1 may not say the number: it is about the first image without a row.
    """
    if not (where / NOTE).exists():
        return math.inf
    note = json.loads((where / NOTE).read_text())
    return note.get("num_images", len(result_rows(where)) + 1)


def rank(trials: Sequence[Trial], what: str = "trials") -> tuple[list[Trial], list[str]]:
    """Trials with scores by their mean over the images that all have, best first, the first of
    equals before the others.

    Returns:
        The trials, and the ids of those images.

    Raises:
        RuntimeError: no trial has scores.
    """
    scored = [trial for trial in trials if trial.scores]
    if not scored:
        more = ", or let more go on: finalists=..." if what == "finalists" else ""
        raise RuntimeError(
            f"tune: none of {len(trials)} {what} had a finite loss; lower the "
            f"ranges in configs/search{more}."
        )
    ids = sorted(set.intersection(*({*trial.scores} for trial in scored)))

    def place(trial: Trial) -> tuple[float, int]:
        return -sum(trial.scores[i] for i in ids), trial.number

    return sorted(scored, key=place), ids


def score(trial: Trial, ids: Sequence[str]) -> dict[str, float | int | None]:
    """Mean over the images with its 95 % interval and n; None where there is none."""
    if not trial.scores:
        return {"mean": None, "ci95": None, "n": 0}
    mean, half = mean_ci([trial.scores[i] for i in ids])
    interval = None if math.isnan(half) else round(half, 4)
    return {"mean": round(mean, 4), "ci95": interval, "n": len(ids)}
