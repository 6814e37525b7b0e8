"""What a generator was trained on: where its images are here, and that held-out images are others.

The checkpoint holds the `data` group of the training and a digest of the files that it took. Files
may have moved since: a folder or zip with the same files in it is the same source, and where
version 0.1 noted no digest one of the same name. A picture is known by its contents, or by those
that it was packed from (`rtil.data.overlap`). How splits are cut is in `rtil.data.cut`.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

from rtil.data.load import split_files
from rtil.data.overlap import are_cut_apart, namesakes, shared
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
        # Elsewhere other files are another data set of that name; at its place files were added.
        if digest and path != str(own["path"]):
            continue
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
    there = trained.get("split_files") or training_digest(own)
    here = training_digest(data)
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


def training_digest(data: Mapping) -> str | None:
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
    own = {key: trained.get(key) for key in ("data", "split_files")}
    # A generator has seen the images of those that it was trained from, too.
    for origin in (own, *(trained.get("init_images") or ())):
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
    _refuse_shared(held_out, training, data, f"split={split}", generator)
    _warn_of_unknown(held_out, training, f"split={split}", generator)


def _refuse_shared(
    held_out: SplitFiles, training: Training, data: Mapping, split: str, generator: str
) -> None:
    """Raises ValueError where held-out images are training images; warns of mere duplicates."""
    assert training.files is not None
    same = shared(held_out, training.files)
    if not same:
        return
    found = (
        f"{len(same)} of the {len(held_out.order)} images of {split} are among those "
        f"that {generator} was trained on ({same[0]}, ...)"
    )
    # No key sets this right: the data set holds pictures twice.
    if are_cut_apart(held_out, training.files):
        log.warning("%s, though under other names in %s.", found, held_out.files.path)
        return
    raise ValueError(
        f"{found}.\n"
        + "".join(f"  {line}\n" for line in _differing(training.data, data))
        + "Set these keys as they were there, leave data=... out, which takes them from "
        "generator=FILE, or give held-out images of their own in data.val_path and "
        "data.test_path."
    )


def _warn_of_unknown(held_out: SplitFiles, training: Training, split: str, generator: str) -> None:
    """Says where held-out images may be training images, and the files do not tell."""
    assert training.files is not None
    here, there = held_out.files.path, training.files.files.path
    alike = namesakes(held_out, training.files)
    if alike:
        log.warning(
            "%d of the %d images of %s are named as images that %s was trained on, and a zip among"
            " %s, %s does not say what it was packed from: whether they are the same is not known."
            " Pack it again with scripts/prepare_data.py.",
            alike,
            len(held_out.order),
            split,
            generator,
            here,
            there,
        )
    if not training.same and here.samefile(there):
        log.warning(
            "%s has other files than when %s was trained, and splits are cut from all files anew: "
            "images of %s may be among its training images. Give it the files it had, or "
            "held-out images of their own (data.val_path, data.test_path).",
            here,
            generator,
            split,
        )


def _differing(old: Mapping, new: Mapping) -> list[str]:
    """A line for each key of CUT in which two `data` groups differ."""
    lines = []
    for key in sorted(CUT):
        if old.get(key) != new.get(key):
            lines.append(f"data.{key}: {old.get(key)!r} there, {new.get(key)!r} here")
    return lines
