"""Chooses an arm's inversion settings on validation images: `python -m rtil.tune trials=24 ...`.

Every trial is an inversion of the same validation images (`rtil.invert`) with a directory of its
own below <root>/tuned, so a tuning that was stopped goes on, image by image. The best mean PSNR
wins and is written for `python -m rtil.invert protocol=fair`. With final_images=N the best trials
(finalists) go on to N images, and the best of these wins: near the top trials differ by less than
a few images tell. What is tried is the same for every arm: `rtil.tuning.space`, configs/search.
One command for several arms: -m rtil=vanilla,ilo.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import hydra
import yaml
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf, open_dict

from rtil import invert
from rtil.inversion import tuned_settings
from rtil.inverters.minimise import NotFinite
from rtil.metrics.intervals import mean_ci
from rtil.process.command import CONFIGS, check_numbers, entry
from rtil.runs import results
from rtil.tuning import space as search

METRIC = "psnr_db"
NOTE = "not-finite.json"  # in the folder of a trial whose loss was not finite


class Trial(NamedTuple):
    """settings: {key: value}. scores: METRIC by image id, empty where its loss was not finite."""

    number: int
    settings: dict[str, object]
    scores: dict[str, float]


def tune(cfg: DictConfig, overrides: Sequence[str] | None = None) -> Path:
    """Runs the trials that are not on disk and writes what is best.

    Args:
        cfg: composed from tune.yaml.
        overrides: "key=value" texts given by the user; None reads those of the Hydra job.

    Returns:
        The file of the chosen settings.

    Raises:
        ValueError, FileNotFoundError: bad settings or files, before any inversion.
        RuntimeError: no trial had a finite loss, or several processes.
    """
    if overrides is None:
        overrides = HydraConfig.get().overrides.task if HydraConfig.initialized() else ()
    check(cfg)
    _, digest, _, _ = invert.load(cfg, overrides)
    config = OmegaConf.to_container(cfg, resolve=True)
    space, steps = config["search"], stages(config["inverter"])
    keys = search.keys(space, steps)
    tuned_settings.refuse_typed(overrides, keys)
    proposals = search.trials(space, steps, cfg.trials, cfg.search_seed)
    place = tuned_settings.folder(config, overrides, digest)
    check_place(cfg, place, proposals, digest)
    trials = [run(cfg, overrides, place, digest, i, chosen) for i, chosen in enumerate(proposals)]
    order, ids = rank(trials)
    validation = {"split": "val", "data": config["data"]["name"], "metric": METRIC}
    finals: dict[int, dict] = {}
    if cfg.final_images:
        validation["first_round"] = {"n": len(ids), "finalists": min(cfg.finalists, len(order))}
        again = OmegaConf.merge(cfg, {"num_images": cfg.final_images})
        rounds = [
            run(again, overrides, place, digest, t.number, t.settings)
            for t in sorted(order[: cfg.finalists])
        ]
        order, last = rank(rounds, "finalists")
        finals = {t.number: {"final": score(t, last)} for t in rounds}
        validation |= score(order[0], last)
    else:
        validation |= score(order[0], ids)
    best = order[0]
    found = {
        "chosen": dict(best.settings),
        "trial": best.number,
        "validation": validation,
        "total_steps": sum(steps) if steps else config["inverter"]["steps"],
        "search_seed": config["search_seed"],
        "space": space,
        "settings": tuned_settings.settings(config, digest, keys),
        "trials": [
            {"trial": t.number, **score(t, ids), **finals.get(t.number, {}), **t.settings}
            for t in trials
        ],
    }
    path = place / tuned_settings.NAME
    results.write_text(path, text(found))
    print(table(found))
    print(f"{path}: trial {best.number}; use it with python -m rtil.invert protocol=fair")
    return path


def check(cfg: DictConfig) -> None:
    """Raises ValueError or RuntimeError for settings that no tuning could have."""
    if cfg.split != "val":
        raise ValueError(
            f"tune: split={cfg.split}; settings are chosen on validation images, "
            "split=val, so that test images are seen once, with what was chosen."
        )
    if cfg.input:
        raise ValueError(
            "tune: input has no true image to score against; leave it out. "
            "Validation images come from data=..."
        )
    if cfg.protocol.name != "fair":
        raise ValueError(f"tune: protocol={cfg.protocol.name} has nothing to tune; leave it out.")
    if cfg.run_dir:
        raise ValueError(
            f"tune: run_dir={cfg.run_dir}; a tuning lies where protocol=fair looks "
            "for it, below <root>/tuned. Leave it out."
        )
    if any(value is not None for value in cfg.protocol.at.values()):
        raise ValueError(
            f"tune: {tuned_settings.AT} says where an inversion's settings were tuned. Give "
            "this tuning's own seed, ratio or factor."
        )
    check_numbers("tune", cfg, {"trials": 1, "search_seed": 0, "finalists": 1})
    final = cfg.final_images
    if final is not None and not (isinstance(final, int) and final > cfg.num_images):
        raise ValueError(
            f"tune: final_images={final} must be an integer above num_images="
            f"{cfg.num_images}, or null for one round."
        )
    invert.check_settings(cfg)
    if int(os.environ.get("WORLD_SIZE", 1)) > 1:
        raise RuntimeError(
            "tune: runs in one process. Tune arms side by side with -m "
            "rtil=... hydra/launcher=joblib, and invert with torchrun."
        )


def stages(inverter: dict) -> list[int] | None:
    """Steps of each stage of an inverter's configuration; None where it has no stages."""
    if "depth" not in inverter:
        return None
    steps = inverter["steps"]
    return [steps] * (inverter["depth"] + 1) if isinstance(steps, int) else list(steps)


def settings_of(cfg: DictConfig, place: Path, number: int, chosen: dict) -> DictConfig:
    """The inversion that is a trial: the tuning's configuration with what the trial sets."""
    trial = cfg.copy()
    with open_dict(trial):
        for key in ("search", "trials", "search_seed", "finalists", "final_images"):
            trial.pop(key, None)
        for key, value in chosen.items():
            OmegaConf.update(trial, key, value)
        trial.protocol.tuned = {"trial": number}
        trial.run_dir = str(place / f"trial-{number:03d}")
        trial.pictures, trial.yardstick.use, trial.metrics.lpips = False, False, False
    return trial


def check_place(cfg: DictConfig, place: Path, proposals: Sequence[dict], digest: str) -> None:
    """Checks before the first trial that those on disk are of this tuning.

    Keys that one side lacks are left to the inversions, which know what they mean.

    Raises:
        ValueError: some are of another search, generator or settings; the message says what to
            do about all of them at once.
    """
    others = []
    for number, chosen in enumerate(proposals):
        path = place / f"trial-{number:03d}" / "config.yaml"
        if not path.exists():
            continue
        asked = OmegaConf.to_container(settings_of(cfg, place, number, chosen), resolve=True)
        there = results.flatten(yaml.safe_load(path.read_text()) or {})
        here = results.flatten(asked) | {"generator_sha256": digest}
        both = there.keys() & here.keys()
        differs = results.differing_keys(
            *({key: tree[key] for key in both} for tree in (there, here)), results.FREE_INVERT
        )
        if differs:
            others.append((path.parent.name, differs))
    if others:
        names = ", ".join(name for name, _ in others)
        raise ValueError(
            f"tune: {place} holds trials that are not of this tuning: {names}. The first has\n  "
            + "\n  ".join(others[0][1])
            + f"\nTrials follow from the generator, {tuned_settings.BUDGET}, "
            f"search and search_seed={cfg.search_seed}. Ask for those that made them"
            + (
                f", as in {tuned_settings.NAME} there"
                if (place / tuned_settings.NAME).exists()
                else ""
            )
            + ", or move or delete that folder and run this command again."
        )


def run(
    cfg: DictConfig,
    overrides: Sequence[str],
    place: Path,
    digest: str,
    number: int,
    chosen: dict,
) -> Trial:
    """One trial: an inversion of the validation images, or what is on disk of it."""
    trial = settings_of(cfg, place, number, chosen)
    where = Path(trial.run_dir)
    of = tuned_settings.settings(OmegaConf.to_container(trial, resolve=True), digest, ())
    if cfg.num_images >= fails_at(where, of):
        return Trial(number, chosen, {})
    try:
        invert.invert(trial, overrides)
    except NotFinite as error:
        note = {"of": of, "num_images": cfg.num_images, "error": str(error)}
        results.write_text(where / NOTE, json.dumps(note))
        return Trial(number, chosen, {})
    rows = results.result_rows(where)[: cfg.num_images]  # a longer tuning may have left more
    return Trial(number, chosen, {row["id"]: row[METRIC] for row in rows})


def fails_at(where: Path, of: dict) -> float:
    """Of how many images on a trial is known to have no score; inf where none is known.

    Fewer images have a score all the same: a finalist that fails keeps that of the first round.
    A note of an earlier version says neither what it is of, which is what its folder is of
    (`check_place`), nor the number: it is about the first image without a row.

    Args:
        of: settings of the trial and digest of its generator, as in the note.
    """
    if not (where / NOTE).exists():
        return math.inf
    note = json.loads((where / NOTE).read_text())
    known = note["of"] == of if "of" in note else (where / "config.yaml").exists()
    return note.get("num_images", len(results.result_rows(where)) + 1) if known else math.inf


def rank(trials: Sequence[Trial], what: str = "trials") -> tuple[list[Trial], list[str]]:
    """Trials with scores by their mean over the images that all have, best first, the first of
    equals before the others.

    Returns:
        The trials, and the ids of those images.

    Raises:
        RuntimeError: no trial has scores.
    """
    scored = [t for t in trials if t.scores]
    if not scored:
        raise RuntimeError(
            f"tune: none of {len(trials)} {what} had a finite loss; lower the "
            "ranges in configs/search"
            + (", or let more go on: finalists=..." if what == "finalists" else "")
            + "."
        )
    ids = sorted(set.intersection(*({*t.scores} for t in scored)))
    return sorted(scored, key=lambda t: (-sum(t.scores[i] for i in ids), t.number)), ids


def score(trial: Trial, ids: Sequence[str]) -> dict[str, float | int | None]:
    """Mean over the images with its 95 % interval and n; None where there is none."""
    if not trial.scores:
        return {"mean": None, "ci95": None, "n": 0}
    mean, half = mean_ci([trial.scores[i] for i in ids])
    half = None if math.isnan(half) else round(half, 4)
    return {"mean": round(mean, 4), "ci95": half, "n": len(ids)}


def text(found: dict) -> str:
    """The file as YAML, a line for each trial."""
    head = {key: value for key, value in found.items() if key != "trials"}
    lines = [
        yaml.safe_dump(row, sort_keys=False, default_flow_style=True, width=math.inf)
        for row in found["trials"]
    ]
    return (
        yaml.safe_dump(head, sort_keys=False, default_flow_style=None, width=120)
        + "trials:\n"
        + "".join(f"- {line}" for line in lines)
    )


def table(found: dict) -> str:
    """The trials, best first."""
    told = found["validation"].get("first_round", found["validation"])
    rows = sorted(
        found["trials"],
        key=lambda row: [
            -math.inf if mean is None else mean
            for mean in (row.get("final", {}).get("mean"), row["mean"])
        ],
        reverse=True,
    )
    lines = [
        f"Mean {METRIC} of {told['n']} validation images, total steps "
        f"{found['total_steps']}"
        + (
            f"; the best {told['finalists']}, above, went on to {found['validation']['n']} images:"
            if "finalists" in told
            else ":"
        )
    ]
    for row in rows:
        settings = ", ".join(
            f"{key.removeprefix('inverter.')}={row[key]}" for key in found["chosen"]
        )
        half = "" if row["ci95"] is None else f" ± {row['ci95']:.3f}"
        final = f"  final {decibels(row['final'], '')}" if "final" in row else ""
        lines.append(f"  {row['trial']:3d}  {decibels(row, '7')}{half}{final}  {settings}")
    return "\n".join(lines)


def decibels(row: dict, width: str) -> str:
    """The mean of a row of `score`."""
    return "not finite" if row["mean"] is None else f"{row['mean']:{width}.3f}"


@hydra.main(version_base="1.3", config_path=CONFIGS, config_name="tune")
def main(cfg: DictConfig) -> None:
    """Entry point; finished trials, and finished batches of others, stay when it is stopped."""
    entry(lambda: (tune(cfg), None)[1])


if __name__ == "__main__":
    main()
