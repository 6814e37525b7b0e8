"""The trials of a tuning: an inversion of the same validation images under each proposal.

Every trial has a directory of its own below that of the tuning and is claimed like any run, so a
tuning that was stopped goes on, image by image. The best may go on to more images in a final
round. What is tried is in `rtil.tuning.space`; what a tuning writes is made here, and read in
`rtil.runs.tuning`.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import yaml

from rtil.inverters.minimise import NotFinite
from rtil.metrics.intervals import mean_ci
from rtil.process.files import write_text
from rtil.process.progress import tracked
from rtil.runs import tuning
from rtil.runs.rows import result_rows
from rtil.tuning import space

METRIC = "psnr_db"
NOTE = "not-finite.json"  # in the folder of a trial whose loss was not finite
Invert = Callable[[Mapping[str, object], int], object]  # settings with run_dir, images


@dataclass(frozen=True, order=True)
class Trial:
    """One proposal and METRIC by image id, of none where its loss was not finite."""

    number: int
    settings: Mapping[str, object]
    scores: Mapping[str, float]

    def score(self, ids: Sequence[str]) -> dict[str, float | int | None]:
        """Mean over the images with its 95 % interval and n; None where there is none."""
        if not self.scores:
            return {"mean": None, "ci95": None, "n": 0}
        mean, half = mean_ci([self.scores[i] for i in ids])
        interval = None if math.isnan(half) else round(half, 4)
        return {"mean": round(mean, 4), "ci95": interval, "n": len(ids)}


@dataclass(frozen=True)
class Round:
    """Trials on the same images; those with scores, best first; the images that these all have."""

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
    """All proposals on `images`; with `final_images` the best, `finalists`, on so many of them."""
    trials = [Trial(number, settings, {}) for number, settings in enumerate(proposals)]
    shown = tracked(trials, len(trials), "trial", "tuning")
    done = [ranked([run_trial(trial, images) for trial in shown])]
    if final_images:
        best = sorted(done[0].ranked[:finalists], key=lambda trial: trial.number)
        shown = tracked(best, len(best), "finalist", "tuning")
        done.append(ranked([run_trial(trial, final_images) for trial in shown], "finalists"))
    return done


def ranked(trials: Sequence[Trial], what: str = "trials") -> Round:
    """Trials by their mean over the images that all have, the first of equals before the others.

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

    return Round(trials, sorted(scored, key=place), ids)


def run(tuning_dir: Path, invert: Invert, trial: Trial, images: int) -> Trial:
    """A trial with its scores: an inversion of the validation images, or what is on disk of it."""
    run_dir = tuning_dir / f"trial-{trial.number:03d}"
    scores = {}
    if images < fails_at(run_dir):
        try:
            invert({**trial.settings, "run_dir": str(run_dir)}, images)
            rows = result_rows(run_dir)[:images]  # a longer tuning may have left more
            scores = {row["id"]: row[METRIC] for row in rows}
        except NotFinite as error:
            write_text(run_dir / NOTE, json.dumps({"num_images": images, "error": str(error)}))
    return replace(trial, scores=scores)


def fails_at(run_dir: Path) -> float:
    """Of how many images on a trial is known to have no score; inf where none is known.

    Fewer images have a score all the same: a finalist that fails keeps that of the first round. A
    note of version 0.1 may not say the number: it is about the first image without a row.
    """
    if not (run_dir / NOTE).exists():
        return math.inf
    note = json.loads((run_dir / NOTE).read_text())
    return note.get("num_images", len(result_rows(run_dir)) + 1)


def content(config: Mapping, varied: Iterable[str], rounds: Sequence[Round]) -> dict:
    """The file of a tuning: what it chose, for what that is valid, and how each trial did.

    Args:
        config: of the tuning, resolved, with the digests of its generator and images.
        varied: the settings that trials set.
    """
    first, last = rounds[0], rounds[-1]
    best = last.ranked[0]
    validation = {"split": "val", "data": config["data"]["name"], "metric": METRIC}
    finals = {}
    if len(rounds) > 1:
        validation["first_round"] = {"n": len(first.ids), "finalists": len(last.trials)}
        finals = {trial.number: {"final": trial.score(last.ids)} for trial in last.trials}
    rows = [
        {"trial": t.number, **t.score(first.ids), **finals.get(t.number, {}), **t.settings}
        for t in first.trials
    ]
    return {
        "chosen": dict(best.settings),
        "trial": best.number,
        "validation": validation | best.score(last.ids),
        "total_steps": sum(space.stages(config["inverter"]) or [config["inverter"]["steps"]]),
        "search_seed": config["search_seed"],
        "space": config["search"],
        "settings": tuning.settings(config, varied),
        "trials": rows,
    }


def text(content: Mapping) -> str:
    """The file as YAML, a line for each trial."""
    head = {key: value for key, value in content.items() if key != "trials"}
    text = yaml.safe_dump(head, sort_keys=False, default_flow_style=None, width=120) + "trials:\n"
    for row in content["trials"]:
        line = yaml.safe_dump(row, sort_keys=False, default_flow_style=True, width=math.inf)
        text += f"- {line}"
    return text


def table(content: Mapping) -> str:
    """The trials, best first: by their score in the final round, then by that in the first."""

    def rank(row: Mapping) -> tuple[float, ...]:
        means = row.get("final", {}).get("mean"), row["mean"]
        return tuple(-math.inf if mean is None else mean for mean in means)

    validation, names = content["validation"], [*content["chosen"]]
    first = validation.get("first_round", validation)
    text = f"Mean {METRIC} of {first['n']} validation images, total steps {content['total_steps']}"
    if "finalists" in first:
        text += f"; the best {first['finalists']}, above, went on to {validation['n']} images"
    text += ":"
    for row in sorted(content["trials"], key=rank, reverse=True):
        settings = ", ".join(f"{key.removeprefix('inverter.')}={row[key]}" for key in names)
        half = "" if row["ci95"] is None else f" ± {row['ci95']:.3f}"
        final = f"  final {decibels(row['final'], '')}" if "final" in row else ""
        text += f"\n  {row['trial']:3d}  {decibels(row, '7')}{half}{final}  {settings}"
    return text


def decibels(score: Mapping, width: str) -> str:
    """The mean of a score."""
    return "not finite" if score["mean"] is None else f"{score['mean']:{width}.3f}"
