"""What a generator was trained on: where its images are here, and that held-out images are others.

The checkpoint holds the `data` group of the training and a digest of the files that it took. Files
may have moved since: a file of the same name, or with the same files in it, is the same source.
How splits are cut is in `rtil.data.cut`.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

from rtil.data.load import split_files
from rtil.data.source import SplitFiles, source_of

log = logging.getLogger("rtil.data.lineage")
CUT = ("path", "val_path", "test_path", "num_train", "num_val", "num_test", "split_seed")


class Training(NamedTuple):
    """Where a generator's training images are on this machine.

    data: the `data` group that gives them. files: those of the training split, None where
    settings make the images, or where reading the files says what is missing. same: whether they
    may be those of the training.
    """

    data: dict
    files: SplitFiles | None
    same: bool


def training_data(trained: Mapping, data: Mapping) -> dict:
    """The `data` group that gives a generator's training images on this machine.

    That of its training, with the place recorded there, or else with the command's where this is
    the same source.

    Args:
        trained: configuration of the training.
        data: the command's `data` group.

    Raises:
        FileNotFoundError: its file is not here, or not recorded.
    """
    return _find(trained, data).data


def _find(trained: Mapping, data: Mapping) -> Training:
    """Looks for the training images; raises as `training_data` does."""
    own = dict(trained["data"])
    if not source_of(own).from_files:
        return Training(own, None, True)
    digest = trained.get("split_files")
    namesakes = []
    for path in dict.fromkeys(str(group["path"]) for group in (own, data) if group.get("path")):
        candidate = {**own, "path": path}
        try:
            files = split_files(candidate, "train")
        except (FileNotFoundError, ValueError):
            continue
        if files is not None and digest and files.digest() == digest:
            return Training(candidate, files, True)
        if Path(path).name == Path(str(own["path"])).name:
            namesakes.append(Training(candidate, files, not digest))
    if namesakes:
        return namesakes[0]
    if own.get("origin"):
        return Training(own, None, True)  # reading it says where to get it
    if not own.get("path"):
        raise FileNotFoundError("what the generator was trained on is not recorded.")
    raise FileNotFoundError(
        f"the generator's training images are not here: it was trained on data.path={own['path']}"
        f", and data.path={data.get('path')} is another source. Put that file at its place, or "
        "name it in data.path under its own file name."
    )


def check_held_out(trained: Mapping, data: Mapping, split: str, generator: Path) -> None:
    """Checks that no image of a split is one that the generator was trained on.

    Nothing is said where that cannot be known: drawn images, whose splits have typefaces of their
    own, and training files that are not here.

    Args:
        trained: configuration of the training.
        data: the command's `data` group.

    Raises:
        ValueError: images of the split are training images; names the keys to set.
    """
    origin = {key: trained.get(key) for key in ("data", "split_files")}
    _check(json.dumps(origin), json.dumps(dict(data)), split, str(generator))


@lru_cache(maxsize=64)  # a tuning asks at every trial
def _check(trained_text: str, data_text: str, split: str, generator: str) -> None:
    """`check_held_out`, of arguments that a cache can compare."""
    trained, data = json.loads(trained_text), json.loads(data_text)
    try:
        held_out = split_files(data, split)
        training = _find(trained, data) if held_out else None
    except (FileNotFoundError, ValueError):
        return  # what the command needs of it is read, and refused, where it is used
    if held_out is None or training is None or training.files is None:
        return
    same = _shared(held_out, training.files)
    if same:
        raise ValueError(
            f"{len(same)} of the {len(held_out.order)} images of split={split} are among those "
            f"that {generator} was trained on ({same[0]}, ...).\n"
            + "".join(f"  {line}\n" for line in _differing(training.data, data))
            + "Set these keys as they were there, leave data=... out, which takes them from "
            "generator=FILE, or give held-out images of their own in data.val_path and "
            "data.test_path."
        )
    files = held_out.files
    if not training.same and files.path.samefile(training.files.files.path):
        log.warning(
            "%s has other files than when %s was trained, and splits are cut from all files anew: "
            "images of split=%s may be among its training images. Give it the files it had, or "
            "held-out images of their own (data.val_path, data.test_path).",
            files.path,
            generator,
            split,
        )


def _shared(one: SplitFiles, other: SplitFiles) -> list[str]:
    """Names of the files that are in both splits: of one name, size and checksum."""
    numbers = {other.files.names[i]: i for i in other.order}
    shared = []
    for i in one.order:
        name = one.files.names[i]
        if name not in numbers:
            continue
        j = numbers[name]
        # Sizes first: a checksum may have to read the file.
        if one.files.size(i) == other.files.size(j) and one.files.crc(i) == other.files.crc(j):
            shared.append(name)
    return shared


def _differing(old: Mapping, new: Mapping) -> list[str]:
    """A line for each key of CUT in which two `data` groups differ."""
    lines = []
    for key in sorted(CUT):
        if old.get(key) != new.get(key):
            lines.append(f"data.{key}: {old.get(key)!r} there, {new.get(key)!r} here")
    return lines
