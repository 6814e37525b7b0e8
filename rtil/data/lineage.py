"""What a generator was trained on: where its images are here, and that held-out images are others.

The checkpoint holds the `data` group of the training and a digest of the files that it took. Files
may have moved since: a file of the same name, or with the same files in it, is the same source.
How splits are cut is in `rtil.data`.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path

from rtil.data.load import split_files
from rtil.runs import keys as settings

log = logging.getLogger("rtil.data.lineage")
CUT = ("path", "val_path", "test_path", "num_train", "num_val", "num_test", "split_seed")


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
    return _find(trained, data)[0]


def _find(trained: Mapping, data: Mapping) -> tuple[dict, tuple | None, bool]:
    """`training_data`, its files with their order, and whether they may be those of the training.

    Raises as `training_data` does.
    """
    own = dict(trained["data"])
    if own.get("source") != "folder":
        return own, None, True
    known, here = trained.get(settings.FILES), []
    for path in dict.fromkeys(str(d["path"]) for d in (own, data) if d.get("path")):
        found = {**own, "path": path}
        try:
            files, order = split_files(found, "train")
        except (FileNotFoundError, ValueError):
            continue
        if known and files.digest(order) == known:
            return found, (files, order), True
        if Path(path).name == Path(str(own["path"])).name:
            here.append((found, (files, order), not known))
    if here or own.get("origin"):
        return here[0] if here else (own, None, True)  # reading it says where to get it
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
    texts = [
        json.dumps(part)
        for part in ({key: trained.get(key) for key in ("data", settings.FILES)}, dict(data))
    ]
    _check(*texts, split, str(generator))


@lru_cache(maxsize=64)  # a tuning asks at every trial
def _check(trained_text: str, data_text: str, split: str, generator: str) -> None:
    trained, data = json.loads(trained_text), json.loads(data_text)
    try:
        held_out = split_files(data, split)
        source, training, fits = _find(trained, data) if held_out else ({}, None, True)
    except (FileNotFoundError, ValueError):
        return  # what the command needs of it is read, and refused, where it is used
    if not held_out or not training:
        return
    (files, order), (theirs, their_order) = held_out, training
    names = {theirs.names[i]: i for i in their_order}
    pairs = [(i, names[files.names[i]]) for i in order if files.names[i] in names]
    same = [
        files.names[i]
        for i, j in pairs
        if files.size(i) == theirs.size(j) and files.crc(i) == theirs.crc(j)
    ]
    if same:
        old, new = ({f"data.{key}": group.get(key) for key in CUT} for group in (source, data))
        keys = [f"  {line}" for line in settings.differing_keys(old, new)]
        raise ValueError(
            "\n".join(
                [
                    f"{len(same)} of the {len(order)} images of split={split} are among those "
                    f"that {generator} was trained on ({same[0]}, ...).",
                    *keys,
                    "Set these keys as they were there, leave data=... out, which takes them from "
                    "generator=FILE, or give held-out images of their own in data.val_path and "
                    "data.test_path.",
                ]
            )
        )
    if not fits and files.path.samefile(theirs.path):
        log.warning(
            "%s has other files than when %s was trained, and splits are cut from all files anew: "
            "images of split=%s may be among its training images. Give it the files it had, or "
            "held-out images of their own (data.val_path, data.test_path).",
            files.path,
            generator,
            split,
        )
