"""What a tuning is on disk, and which one an inversion takes: the file tuned.yaml of `rtil.tune`.

The file records the settings that its choice is valid for. An inversion finds it by their value,
among all files below <root>/tuned, or is given it: tuned=FILE.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from functools import lru_cache
from pathlib import Path

from rtil.runs import keys, overrides, schema
from rtil.runs.identity import read_config
from rtil.runs.keys import AT, BUDGET

NAME = "tuned.yaml"
Config = Mapping[str, object]


def at(config: Config) -> dict[str, object]:
    """Choices of the tuning that an inversion takes, where they are not its own: protocol.at.

    Raises:
        ValueError: a seed beside generator=FILE, or a knob that the task does not have.
    """
    flat = keys.flatten(config)
    there = {
        key.removeprefix(f"{AT}."): value
        for key, value in flat.items()
        if key.startswith(f"{AT}.") and value is not None
    }
    if "seed" in there and config.get("generator"):
        raise ValueError(
            f"protocol=fair: {AT}.seed={there['seed']} is the seed of a generator found "
            "by its choices. Leave it or generator=FILE out."
        )
    for key in there:
        if key not in config:
            raise ValueError(
                f"protocol=fair: {AT}.{key} is no choice of task={flat['task.name']}."
            )
    return there


def settings(config: Config, chosen: Iterable[str]) -> dict[str, object]:
    """Flat settings that a choice is valid for: all but those chosen, with the budget as asked."""
    left_out = {*chosen} - {BUDGET}
    flat = {
        key: value
        for key, value in keys.flatten(config).items()
        if keys.role(key, "tune") == "identity" and keys.role(key, "invert") != "none"
    }
    return {key: flat[key] for key in sorted(flat.keys() - left_out)}


def differing(file: Mapping, asked: Config) -> list[str]:
    """In what a tuning is for other settings, as `rtil.runs.keys.differing_keys` says it.

    Validation and test images may move where they are known by their digest. What is unknown yet
    (digests) is left out.
    """
    known = keys.FILES in file["settings"]
    mine = settings(asked, file["chosen"])

    def counts(key: str) -> bool:
        unknown = key in ("generator_sha256", keys.FILES) and key not in mine
        return not unknown and not (known and key in keys.SPLITS)

    return keys.differing_keys(file["settings"], mine, counts)


def search(config: Config) -> tuple[list[tuple[Path, dict]], list[tuple[Path, list[str]]]]:
    """Tunings below <root>/tuned that are for an inversion, and in what each other one differs.

    Args:
        config: resolved; with its generator's and validation images' digests where they are known.
    """
    asked = {**config, **at(config)}
    fitting, others = [], []
    for path in sorted((Path(str(config["root"])) / "tuned").rglob(NAME)):
        file = read(path)
        lines = differing(file, asked)
        fitting += [] if lines else [(path, file)]
        others += [(path, lines)] if lines else []
    return fitting, sorted(others, key=lambda other: len(other[1]))


def command(config: Config, words: Iterable[str]) -> str:
    """The tuning that an inversion under these settings needs, of what was typed for it."""
    typed = overrides.typed(words)
    taken = {key: text for key, text in typed.items() if keys.for_tuning(key)}
    return overrides.line("tune", taken | at(config))


@lru_cache(maxsize=256)
def _text(path: Path, changed: int) -> str:
    """The file as JSON, parsed once for as long as it does not change."""
    advice = "So it is no file of python -m rtil.tune: delete it, or name another."
    content = schema.read_yaml(path, schema.TUNED, advice)
    for part in ("chosen", "settings"):
        schema.check_settings(content[part], f"{path}: {part}", advice)
    own = path.parent / "trial-000"
    if "restarts" not in content["settings"] and (own / "config.yaml").exists():
        # Version 0.1 left some settings to the folder's name; its first trial has them.
        more = settings(read_config(own), content["chosen"])
        content["settings"] = {**more, **content["settings"]}
    return json.dumps(content)


def read(path: Path) -> dict:
    """A file of `rtil.tune`. Raises ValueError where it is none, OSError where it is gone."""
    return json.loads(_text(path, path.stat().st_mtime_ns))
