"""protocol=fair: the file of settings that a tuning chose, and what an inversion takes from it.

`rtil.tune` writes the file, `rtil.invert` applies it to images that the tuning has not seen. One
file belongs to one arm, task and budget of steps, and to one generator and measurement unless
`protocol.at` says which of them it was tuned at; anything else is refused.
"""

from __future__ import annotations

import hashlib
import json
import shlex
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import yaml
from omegaconf import DictConfig, OmegaConf, open_dict

from rtil.data.load import split_files
from rtil.experiments import plan as experiment
from rtil.operators import KNOBS
from rtil.process.command import CONFIGS
from rtil.runs import results

NAME = "tuned.yaml"
BUDGET = "inverter.steps"  # typed or planned, its stages and sum bound the trials
# What the choice depends on, and what of it leaves the choice valid.
SETTINGS = (
    "task",
    *KNOBS,
    "noise_std",
    "mask",
    "seed",
    "inverter",
    "loss",
    "selection",
    "target_range",
    "data",
    "resolution",
)
FREE = ("data.path", "data.cache_gb", "data.origin", "data.trained_on")
MOVABLE = ("data.val_path", "data.test_path")  # where the images tuned on are known by their files
# Overrides of an inversion that its tuning does not take.
NOT_TUNED = (
    "protocol",
    "experiment",
    "num_images",
    "split",
    "run_dir",
    "pictures",
    "input",
    "output",
    "fit",
    "keep_observed",
    "save_measurements",
    "yardstick",
    "metrics",
)


AT = "protocol.at"  # its keys: what a tuning has otherwise than the inversion that takes it


def is_fair(cfg: Mapping) -> bool:
    """Whether an inversion still has to take its settings from a tuning."""
    return "tuned" in cfg["protocol"] and cfg["protocol"]["tuned"] is None


def tuned_at(config: Mapping) -> dict[str, object]:
    """Choices of the tuning that an inversion takes, where they are not its own: protocol.at.

    Raises:
        ValueError: a seed beside generator=FILE, or a knob that the task does not have.
    """
    at = {
        key: value
        for key, value in (config["protocol"].get("at") or {}).items()
        if value is not None
    }
    if "seed" in at and config["generator"]:
        raise ValueError(
            f"protocol=fair: {AT}.seed={at['seed']} is the seed of a generator found "
            "by its choices. Leave it or generator=FILE out."
        )
    unknown = [key for key in at if key not in config]
    if unknown:
        raise ValueError(
            f"protocol=fair: {AT}.{unknown[0]} is no choice of task={config['task']['name']}."
        )
    return at


def at_tuning(config: Mapping, overrides: Iterable[str]) -> tuple[dict, list[str]]:
    """An inversion's resolved configuration and words as those of the tuning that it takes."""
    at = tuned_at(config)
    words = [
        f"{key}={at[key]}" if key in at else word
        for word in overrides
        for key in [_key(word)]
        if not results.is_under(key, (AT,))
    ]
    words += [f"{key}={value}" for key, value in at.items() if key not in map(_key, words)]
    return {**config, **at}, words


def _key(word: str) -> str:
    return word.lstrip("+~").partition("=")[0]


def folder(config: Mapping, overrides: Iterable[str], digest: str) -> Path:
    """Where the tuning of an inversion lives; what a tuning does not take does not name it.

    A tuning that an earlier version named after its metrics stays the one of these words.

    Args:
        config: resolved; digest: SHA-256 of the generator's file.
    """
    config, words = at_tuning(config, overrides)
    explicit = digest[:8] if config["generator"] else ""
    kept = [word for word in words if not _is_not_tuned(word)]
    metrics = [word for word in words if results.is_under(_key(word), ("metrics",))]
    place, earlier = (
        results.inversion_place("tuned", config, given, explicit)
        for given in (kept, kept + metrics)
    )
    return earlier if earlier.exists() else place


def _is_not_tuned(word: str) -> bool:
    return _key(word).partition(".")[0] in NOT_TUNED


def command(overrides: Iterable[str]) -> str:
    """The tuning that an inversion under these overrides needs."""
    words = [word for word in overrides if not _is_not_tuned(word)]
    return " ".join(["python -m rtil.tune", *map(shlex.quote, words)])


def check_tuned(
    plan: Mapping, composed: Iterable[tuple[Mapping, list[str]]], given: Sequence[str]
) -> None:
    """Checks that the tunings of all jobs of an experiment are there before the first one runs.

    Args:
        plan: the experiment.
        composed: (resolved configuration, overrides) of each inversion.
        given: overrides of the command line beside the experiment.

    Raises:
        FileNotFoundError: some are not; holds the command that makes them.
    """
    wanted = {
        folder(config, words, ""): config
        for config, words in composed
        if is_fair(config) and not config["generator"]
    }
    missing = {place: config for place, config in wanted.items() if not (place / NAME).exists()}
    if missing:
        words = for_tuning(map(tuned_at, missing.values()), given)
        line = experiment.command(plan, "tune", words)
        raise FileNotFoundError(
            f"experiment={plan['name']}: protocol=fair lacks {len(missing)} of "
            f"{len(wanted)} tunings:"
            + "".join(f"\n    {p}" for p in missing)
            + f"\nThis command chooses them on validation images:\n    {line}\n"
            "protocol=paper or protocol=authors runs what needs none, where it is planned."
        )


def for_tuning(places: Iterable[Mapping], given: Iterable[str]) -> list[str]:
    """Words of an experiment's inversions as those of the tunings that they lack.

    A ratio typed to `rtil.tune` is where it tunes; of these inversions that is protocol.at.

    Args:
        places: protocol.at of each tuning that is not there.
    """
    words = [w for w in given if not _is_not_tuned(w) or results.is_under(_key(w), (AT,))]
    typed, places = {*map(_key, words)}, list(places)
    for knob in (knob for knob in KNOBS if knob in typed):
        values = {experiment.as_text(at[knob]): None for at in places if knob in at}
        if values and f"{AT}.{knob}" not in typed:
            words.append(f"{AT}.{knob}={','.join(values)}")
    return words


def settings(config: Mapping, digest: str, chosen: Iterable[str]) -> dict[str, object]:
    """Flat settings that a choice is valid for: all but those chosen, with the budget as asked.

    Among them is a digest of the validation images, unless they are drawn or not here.
    """
    flat = results.flatten({key: config[key] for key in SETTINGS if key in config})
    left_out = {*FREE, *chosen} - {BUDGET}
    try:
        found = split_files(config["data"], "val")
    except (FileNotFoundError, ValueError):
        found = None
    known = {results.FILES: found[0].digest(found[1])} if found else {}
    return {key: flat[key] for key in sorted(flat.keys() - left_out)} | {
        "generator_sha256": digest,
        **known,
    }


def space_keys(inverter: str) -> set[str]:
    """What the space of an inverter sets (configs/search)."""
    space = OmegaConf.load(Path(CONFIGS) / "search" / f"{inverter}.yaml")
    return {str(key) for node in (*space.anchors, *space.variants) for key in node}


def refuse_typed(overrides: Iterable[str], chosen: Iterable[str]) -> None:
    """Raises ValueError for a setting of the command line that a tuning chooses."""
    chosen = {*chosen} - {BUDGET}
    for word in overrides:
        if _key(word) in chosen:
            raise ValueError(
                f"protocol=fair: {word} is what a tuning chooses. Leave it out, or "
                "change the space (search=..., configs/search)."
            )


def apply(cfg: DictConfig, overrides: Sequence[str], digest: str) -> None:
    """Takes the chosen settings into cfg, and into cfg.protocol.tuned what they rest on.

    Args:
        cfg: of an inversion, complete with what its generator brings along.
        overrides: "key=value" texts of the command line.
        digest: SHA-256 of the generator's file.

    Raises:
        FileNotFoundError: not tuned yet; the message holds the command that does it.
        ValueError: tuned for something else, on test images, or to be applied to the images that
            it was tuned on.
    """
    config = OmegaConf.to_container(cfg, resolve=True)
    at, (there, words) = tuned_at(config), at_tuning(config, overrides)
    path, line = folder(config, overrides, digest) / NAME, command(words)
    if config["split"] == "val" and not config["input"]:
        raise ValueError(
            "invert: protocol=fair was tuned on the images of split=val, so its "
            "scores there are no result. Use split=test."
        )
    refuse_typed(overrides, space_keys(config["inverter"]["name"]))
    if not path.exists():
        raise FileNotFoundError(
            f"invert: protocol=fair has no settings at {path}. They are "
            f"chosen on validation images by\n    {line}"
        )
    found = read(path)
    if found["validation"]["split"] != "val":
        raise ValueError(
            f"invert: {path} was tuned on split={found['validation']['split']}; "
            f"only validation images may be. Delete it and run\n    {line}"
        )
    chosen = found["chosen"]
    if "seed" in at:
        digest = _digest(results.trained_generator(there, words), found)
    here = settings(there, digest, chosen)
    free = MOVABLE if results.FILES in found["settings"] else ()
    differs = results.differing_keys(found["settings"], here, free)
    if differs:
        raise ValueError(
            f"invert: {path} was tuned for other settings:\n  "
            + "\n  ".join(differs)
            + results.told_files(differs)
            + f"\nAsk for those, or delete {path.parent} and run\n    {line}"
        )
    asked = {key: results.flatten(config).get(key) for key in chosen if key == BUDGET}
    with open_dict(cfg):
        for key, value in chosen.items():
            OmegaConf.update(cfg, key, value)
        cfg.protocol.tuned = {
            "file": str(path),
            "keys": sorted(chosen),
            "asked": asked,
            "trial": found["trial"],
            "at": at,
            "trials": len(found["trials"]),
            "validation": found["validation"],
            "space": hashlib.sha256(
                json.dumps([found["space"], found["search_seed"], found["total_steps"]]).encode()
            ).hexdigest()[:8],
        }


def _digest(path: Path, found: Mapping) -> str:
    """SHA-256 of the generator that was tuned; where it is gone, that in the file."""
    if not path.exists():
        return found["settings"]["generator_sha256"]
    return hashlib.sha256(path.read_bytes()).hexdigest()


def read(path: Path) -> dict:
    """A file of `rtil.tune`. Raises ValueError where it is none."""
    try:
        found = yaml.safe_load(path.read_text(encoding="utf-8"))
        for key in (
            "chosen",
            "trial",
            "trials",
            "validation",
            "settings",
            "space",
            "search_seed",
            "total_steps",
        ):
            found[key]
    except (OSError, yaml.YAMLError, KeyError, TypeError) as error:
        raise ValueError(
            f"protocol=fair: {path} is no file of python -m rtil.tune "
            f"({type(error).__name__}: {error})."
        ) from error
    return found


def budget(config: Mapping) -> tuple | None:
    """Trials, validation images and space (a digest with seed and total steps) behind a run, then,
    of a tuning in two rounds, the images of the first and how many went on.

    None where nothing was tuned. Runs to be compared have the same.
    """
    found = [config.get(f"protocol.tuned.{key}") for key in ("trials", "validation.n", "space")]
    first = [
        config.get(f"protocol.tuned.validation.first_round.{key}") for key in ("n", "finalists")
    ]
    return None if None in found else (*found, *(value for value in first if value is not None))


def place(config: Mapping) -> str:
    """The measurement that the settings of a run were tuned at, "" where nothing was tuned; config
    flattened. Runs to be compared have the same."""
    if budget(config) is None:
        return ""
    known = {key: config.get(f"protocol.tuned.at.{key}", config.get(key)) for key in KNOBS}
    return ", ".join(
        f"{key} {float(value):g}" for key, value in known.items() if value is not None
    )


def told(config: Mapping) -> str:
    """On what the settings of a run rest, in a sentence; config flattened."""
    name = config.get("protocol.name", "paper")
    if name != "fair":
        return {
            "paper": "protocol=paper: settings of the paper's appendix and the published code, "
            "each arm with its own; the paper tuned them for compressed sensing and does "
            "not say on which images. None was chosen here.",
            "authors": "protocol=authors: settings of the published code, each arm with its own; "
            "none was chosen here.",
        }.get(name, f"protocol={name}.")
    tuned = {
        key.removeprefix("protocol.tuned."): value
        for key, value in config.items()
        if key.startswith("protocol.tuned.")
    }
    chosen = ", ".join(f"{key}={config.get(key)}" for key in tuned.get("keys", ()))
    half = tuned.get("validation.ci95")
    first = tuned.get("validation.first_round.n")
    at = [
        f"{key.removeprefix('at.')}={value}"
        for key, value in tuned.items()
        if key.startswith("at.")
    ]
    return (
        f"protocol=fair: trial {tuned.get('trial')} (from 0) of {tuned.get('trials')} (space "
        f"{tuned.get('space')}), chosen by the mean {tuned.get('validation.metric')} of "
        f"{tuned.get('validation.n')} validation images: {tuned.get('validation.mean'):.2f}"
        + (f" ± {half:.2f}" if half is not None else "")
        + (
            f", {tuned['validation.first_round.finalists']} of the trials by {first} of them "
            "before"
            if first is not None
            else ""
        )
        + (f", tuned at {', '.join(at)}" if at else "")
        + f", with {chosen}."
    )
