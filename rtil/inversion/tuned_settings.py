"""protocol=fair: what an inversion takes from the tuning of its arm, and what that rests on.

`rtil.tune` writes the file (`rtil.runs.tuning`), `rtil.invert` takes it for images that the tuning
has not seen. One file belongs to one arm, task and budget of steps, and to one generator and
measurement unless `protocol.at` says which of them it was tuned at; anything else is refused.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import yaml

from rtil.data.load import split_files
from rtil.process.command import CONFIGS
from rtil.runs import keys, overrides, record, tuning
from rtil.runs.identity import find_generator
from rtil.runs.keys import BUDGET


@dataclass(frozen=True)
class Tuned:
    """What a tuning chose.

    Args:
        chosen: {key: value} to replace in the inversion's configuration.
        record: what it rests on, for `protocol.tuned`.
    """

    chosen: Mapping[str, object]
    record: Mapping[str, object]


def is_open(config: Mapping) -> bool:
    """Whether an inversion still has to take its settings from a tuning."""
    return "tuned" in config["protocol"] and config["protocol"]["tuned"] is None


def find(config: Mapping, digest: str, typed: Iterable[str] = ()) -> Tuned:
    """What the tuning of an inversion chose: that of tuned=FILE, else the one that fits by value.

    Args:
        config: of an inversion, resolved, complete with what its generator brings along.
        digest: SHA-256 of the generator's file.
        typed: overrides of the command line.

    Raises:
        FileNotFoundError: not tuned yet; the message holds the command that does it.
        ValueError: tuned for something else, on test images, or to be applied to the images that
            it was tuned on; or several fit.
    """
    if config["split"] == "val" and not config["input"]:
        raise ValueError(
            "invert: protocol=fair was tuned on the images of split=val, so its "
            "scores there are no result. Use split=test."
        )
    refuse_typed(typed, space_keys(config["inverter"]["name"]))
    asked = with_digests(config, digest)
    line = tuning.command(config, typed)
    if config.get("tuned"):
        path = Path(config["tuned"])
        if not path.exists():
            raise FileNotFoundError(f"invert: nothing at tuned={path}.")
        content = tuning.read(path)
        differs = tuning.differing(content, {**asked, **tuning.at(config)})
        if differs:
            raise ValueError(
                f"invert: {path} {_for_others(differs)}\nAsk for those, or run\n    {line}"
            )
    else:
        path, content = _fitting(config, asked, line)
    if content["validation"]["split"] != "val":
        raise ValueError(
            f"invert: {path} was tuned on split={content['validation']['split']}; "
            f"only validation images may be. Delete it and run\n    {line}"
        )
    return Tuned(dict(content["chosen"]), _record(config, path, content))


def _fitting(config: Mapping, asked: Mapping, line: str) -> tuple[Path, dict]:
    """The tuning below <root>/tuned that fits; raises as `find` does."""
    fitting, others = tuning.search(asked)
    if len(fitting) > 1:
        lines = "".join(f"\n    {path}" for path, _ in fitting)
        raise ValueError(
            f"invert: protocol=fair: {len(fitting)} tunings are for these settings:{lines}\n"
            "Name one with tuned=FILE."
        )
    if not fitting:
        closest = f" The closest, {others[0][0]}, {_for_others(others[0][1])}\n" if others else " "
        raise FileNotFoundError(
            f"invert: protocol=fair has no settings below {Path(config['root']) / 'tuned'}."
            f"{closest}They are chosen on validation images by\n    {line}"
        )
    return fitting[0]


def _for_others(differs: Iterable[str]) -> str:
    lines = "\n  ".join(differs)
    return f"was tuned for other settings:\n  {lines}{record.about_files(differs)}"


def _record(config: Mapping, path: Path, content: Mapping) -> dict[str, object]:
    """What the choice rests on."""
    flat = keys.flatten(config)
    space = json.dumps([content["space"], content["search_seed"], content["total_steps"]])
    return {
        "file": str(path),
        "keys": sorted(content["chosen"]),
        "asked": {key: flat.get(key) for key in content["chosen"] if key == BUDGET},
        "trial": content["trial"],
        "at": tuning.at(config),
        "trials": len(content["trials"]),
        "validation": content["validation"],
        "space": hashlib.sha256(space.encode()).hexdigest()[:8],
    }


def with_digests(config: Mapping, digest: str) -> dict:
    """A configuration with the digests that a tuning knows its generator and images by.

    The generator is that of protocol.at.seed; where its file is gone, any is taken. Images have
    none where they are drawn or not here.
    """
    asked = {**config, "generator_sha256": digest}
    seed = tuning.at(config).get("seed")
    if seed is not None:
        asked.pop("generator_sha256")
        try:
            file = find_generator({**config, "seed": seed})
            asked["generator_sha256"] = hashlib.sha256(file.read_bytes()).hexdigest()
        except FileNotFoundError:
            pass
    try:
        files = split_files(config["data"], "val")
    except (FileNotFoundError, ValueError):
        files = None
    asked.pop(keys.FILES, None)
    return asked | ({keys.FILES: files.digest()} if files else {})


def space_keys(inverter: str) -> set[str]:
    """What the space of an inverter sets (configs/search)."""
    text = (Path(CONFIGS) / "search" / f"{inverter}.yaml").read_text(encoding="utf-8")
    space = yaml.safe_load(text)
    return {str(key) for node in (*space["anchors"], *space["variants"]) for key in node}


def refuse_typed(words: Iterable[str], chosen: Iterable[str]) -> None:
    """Raises ValueError for a setting of the command line that a tuning chooses."""
    for word in words:
        if overrides.key_of(word) in {*chosen} - {BUDGET}:
            raise ValueError(
                f"protocol=fair: {word} is what a tuning chooses. Leave it out, or "
                "change the space (search=..., configs/search)."
            )
