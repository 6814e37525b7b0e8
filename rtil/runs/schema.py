"""What the files of a run hold, and how they are read: nothing in them is trusted.

A file is a regular file of limited size and of UTF-8, its entries are of these kinds, and its
settings of those of `rtil.runs.keys`. What is not so is a ValueError of one line: the file, where
in it, got, allowed, what to do. To read another kind of file, describe it here.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import yaml

from rtil.process.bounds import check_regular, check_size
from rtil.process.brief import brief
from rtil.runs import keys
from rtil.runs.kinds import (
    ANYTHING,
    COUNT,
    COUNT_OR_NONE,
    NULL,
    SEED,
    SWITCH,
    TEXT,
    Kind,
    ListOf,
    MapOf,
    Number,
    OneOf,
    Record,
    Text,
    check,
)

LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # ten times as fast where it is built
LARGEST = 2**28  # bytes of a file; the rows of 100,000 images take 2**26

# What files hold. A record may hold more than is said of it.
NUMBER = Number(finite=False)  # a score: the PSNR of an exact reconstruction is infinite
NAMED = Record({"id": TEXT})  # a row of results*.jsonl, whatever it lacks besides
ROW = Record({"id": TEXT, "psnr_db": NUMBER})  # one that counts as an image that is done
LOGGED = Record({"nimg": COUNT_OR_NONE})  # of a training's log.jsonl
WORDS = ListOf(Text(empty=True), fewest=1)
COMMAND = Record({"command": WORDS}, {"commit": NULL | TEXT})
JOBS = NULL | ListOf(Record({"name": TEXT, "job": MapOf(Text(empty=True))}))
PROVENANCE = Record(
    {"command": WORDS},
    {
        "commit": NULL | TEXT,
        "before": ListOf(COMMAND),
        "experiments": JOBS,
        "precision": TEXT,
        "init": Record({"file": TEXT, "sha256": TEXT, "nimg": COUNT_OR_NONE}),
    },
)
TRIAL = Record({"mean": NULL | Number(), "n": COUNT_OR_NONE})
TUNED = Record(
    {
        "chosen": MapOf(ANYTHING),
        "trial": COUNT_OR_NONE,
        "trials": ListOf(TRIAL, fewest=1),
        "validation": Record({"split": TEXT}, {"n": COUNT_OR_NONE}),
        "total_steps": COUNT,
        "search_seed": SEED,
        "space": Record({"anchors": ListOf(MapOf(ANYTHING))}),
        "settings": MapOf(ANYTHING),
    }
)
SEARCH = Record(
    {"seed": SEED, "knob": TEXT, "n": COUNT_OR_NONE, "drawn": COUNT_OR_NONE},
    {"means": ListOf(NULL | Number())},
)
PACKED = Record(
    {
        "packed": COUNT,
        "run": TEXT,
        "ids": ListOf(TEXT),
        # Millions of values: the kind that nearly all are of is tried first.
        "columns": MapOf(ListOf(NUMBER | NULL)),
        "provenance": ListOf(COMMAND),
        "training": ListOf(COMMAND),
    },
    {
        "config": MapOf(ANYTHING),
        "changes": MapOf(ANYTHING),
        "lacks": ListOf(TEXT),
        "experiments": JOBS,
        "tuning": SEARCH,
    },
)
# diagnose.json, as tables of several read it.
SCORE = Record({"value": NUMBER})
DIAGNOSED = Record(
    {
        "generator_sha256": TEXT,
        "settings": MapOf(ANYTHING),
        "members": ListOf(
            Record({"member": TEXT, "frechet": SCORE, "precision": SCORE, "recall": SCORE}),
            fewest=1,
        ),
    }
)
# What python -m benchmarks writes; the reach of a row is as "<= 1.15".
RATIO = Record({"median": NUMBER, "low": NUMBER, "high": NUMBER, "pairs": COUNT})
MEASURED = Record(
    {
        "device": TEXT,
        "threads": COUNT,
        "torch": TEXT,
        "commit": TEXT,
        "quick": SWITCH,
        "rows": ListOf(
            Record(
                {
                    "group": TEXT,
                    "row": TEXT,
                    "against": Text(empty=True),
                    "ratio": NULL | RATIO,
                    "unit": TEXT,
                    "reach": NULL | TEXT,
                    "met": NULL | SWITCH,
                }
            ),
            fewest=1,
        ),
    }
)
# Beside the picture of a user's file.
RECONSTRUCTION = Record(
    {"settings": MapOf(ANYTHING), "residual_rms": NUMBER, "loss": NUMBER, "seconds": NUMBER}
)
# What a generator's file says of its training, as inversions need it.
CLASS = Record({"_target_": TEXT})
TRAINING = Record(
    {
        "model": Record({"name": TEXT, "generator": CLASS, "phase_nimg": NULL | ListOf(COUNT)}),
        "rtil": Record({"name": TEXT, "family": CLASS}),
        "data": Record({"name": TEXT}),
        "scale": Record({"name": TEXT}),
        "image_channels": OneOf((1, 3)),
        "total_nimg": COUNT,
    }
)


def read_yaml(path: Path, kind: Kind, advice: str) -> Any:
    """The content of a yaml file of this kind.

    Raises:
        FileNotFoundError: there is none. ValueError: it is something else, see above.
    """
    return parsed(read_text(path), kind, str(path), advice, lambda text: yaml.load(text, LOADER))


def read_json(path: Path, kind: Kind, advice: str) -> Any:
    """The content of a JSON file of this kind. Raises as `read_yaml` does."""
    return parsed(read_text(path), kind, str(path), advice)


def read_text(path: Path) -> str:
    """A text file.

    Raises:
        FileNotFoundError: there is none.
        ValueError: a folder, pipe or device, too large, or not UTF-8.
    """
    size = check_regular(path)
    if size > LARGEST:
        raise ValueError(
            f"{path} has {size} bytes; rtil writes {LARGEST} at most. Move it out of the way."
        )
    try:
        return path.read_bytes().decode("utf-8")
    except UnicodeDecodeError as error:
        raise ValueError(
            f"{path}: byte {error.start} is no UTF-8, so it is damaged or no text. "
            "Copy it again, or move it out of the way."
        ) from error


def parsed(
    text: str, kind: Kind, where: str, advice: str, parse: Callable[[str], Any] = json.loads
) -> Any:
    """What a text holds, which is of this kind.

    Args:
        where: file, and number of the line where it is one of many.

    Raises:
        ValueError: it cannot be parsed, holds too much, or something else.
    """
    try:
        content = parse(text)
    # Python's own limits on nesting and on digits of a number are errors of other kinds.
    except (ValueError, RecursionError, yaml.YAMLError) as error:
        language = "JSON" if parse is json.loads else "yaml"
        why = brief(str(error))
        if isinstance(error, yaml.MarkedYAMLError) and error.problem_mark:
            why = f"line {error.problem_mark.line + 1}: {brief(error.problem)}"
        raise ValueError(f"{where}: not {language} ({why}). {advice}") from error
    check_size(content, where, advice)
    check(content, kind, where, advice)
    return content


def check_settings(flat: Mapping[str, object], where: str, advice: str) -> None:
    """Raises ValueError where a recorded setting is not of its kind (`rtil.runs.keys.kind`)."""
    for fault in keys.faults(flat):
        raise ValueError(f"{where}: {fault}. {advice}")
