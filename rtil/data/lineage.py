"""What a generator was trained on: where its images are here, and that held-out images are others.

The checkpoint holds the `data` group of the training and a digest of the files that it took. Files
may have moved since: a file of the same name, or with the same files in it, is the same source. A
picture is known by its contents, or by those that it was packed from, whatever it is called. How
splits are cut is in `rtil.data.cut`.
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
UNKNOWN = (
    "Whether images that %s was trained on are among those of split=%s is not known: %s "
    "Scores of images that it has seen are no result."
)
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


def check_namesake(trained: Mapping, data: Mapping, generator: Path) -> None:
    """Checks that a generator that was found by its choices was trained on images that these name.

    A warning says where only their names are known: files that are gone, or have moved since a
    version that noted no digest.

    Args:
        trained: configuration of the training.
        data: the command's `data` group.

    Raises:
        ValueError: they are others; names both.
    """
    own, foreign = dict(trained["data"]), data.get("trained_on") not in (None, data.get("name"))
    if foreign or not source_of(own).from_files or _same_place(own, data):
        return
    there = trained.get("split_files") or _digest(own)
    here = _digest(data)
    if there and here and there != here:
        raise ValueError(
            f"{generator} was trained on data.path={own['path']}, and data.path={data['path']} "
            "holds other images under the same name. Train on these, or name that generator with "
            "generator=FILE."
        )
    if not (there and here):
        log.warning(
            "%s was trained on data.path=%s; whether data.path=%s holds the same images is not "
            "known, since one of them is not here.",
            generator,
            own.get("path"),
            data.get("path"),
        )


def _same_place(one: Mapping, other: Mapping) -> bool:
    """Whether two `data` groups name one folder or zip."""
    paths = [Path(str(group.get("path"))).expanduser().resolve() for group in (one, other)]
    return paths[0] == paths[1]


def _digest(data: Mapping) -> str | None:
    """Of the training images of a `data` group; None where they are not here."""
    try:
        files = split_files(data, "train")
    except (FileNotFoundError, ValueError):
        return None
    return files.digest() if files else None


def check_held_out(trained: Mapping, data: Mapping, split: str, generator: Path) -> None:
    """Checks that no image of a split is one that the generator was trained on.

    Where that cannot be known a warning says so: training files that are not here, and zips that
    do not say what their images were made from. Drawn images have splits that differ anyway.

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
    except (FileNotFoundError, ValueError):
        return  # refused where they are read
    if held_out is None:
        return
    try:
        training = _find(trained, data)
    except (FileNotFoundError, ValueError) as error:
        log.warning(UNKNOWN, generator, split, error)
        return
    if training.files is None:
        if source_of(training.data).from_files:
            log.warning(UNKNOWN, generator, split, f"{training.data.get('path')} is not here.")
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
    alike = _namesakes(held_out, training.files)
    if alike:
        log.warning(
            "%d of the %d images of split=%s are named as images that %s was trained on, and a zip"
            " among %s, %s does not say what it was packed from: whether they are the same is not "
            "known. Pack it again with scripts/prepare_data.py.",
            alike,
            len(held_out.order),
            split,
            generator,
            files.path,
            training.files.files.path,
        )
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
    """Names of the files of a split whose contents, or those they were made from, are another's.

    Sizes go first: the checksum of a file in a folder has to read it.
    """
    sizes = _sizes(one) & _sizes(other)
    known = {content for i in other.order for content in other.files.contents(i, sizes)}
    names = one.files.names
    return [names[i] for i in one.order if known & {*one.files.contents(i, sizes)}]


def _sizes(split: SplitFiles) -> set[int]:
    """Of all files of a split, and of what they were made from."""
    files = split.files
    own = {files.size(i) for i in split.order}
    return own | {source.size for i in split.order for source in files.sources(i)}


def _namesakes(one: SplitFiles, other: SplitFiles) -> int:
    """How many files of a split are named as another's, apart from the ending, and may be the same
    though their contents differ: 0 unless one is a zip of unknown sources.

    Names as 0001 are everywhere: fewer than half of them mean nothing.
    """
    if not any(split.files.is_unmarked_zip() for split in (one, other)):
        return 0
    if one.files.path.samefile(other.files.path):
        return 0
    stems = {_stem(other.files.names[i]) for i in other.order}
    alike = sum(_stem(one.files.names[i]) in stems for i in one.order)
    return alike if 2 * alike >= len(one.order) else 0


def _stem(name: str) -> str:
    return name.rpartition(".")[0]


def _differing(old: Mapping, new: Mapping) -> list[str]:
    """A line for each key of CUT in which two `data` groups differ."""
    lines = []
    for key in sorted(CUT):
        if old.get(key) != new.get(key):
            lines.append(f"data.{key}: {old.get(key)!r} there, {new.get(key)!r} here")
    return lines
