"""Images of a folder or zip, or of one for each split: what `source: folder` reads.

Reading a file lives in `rtil.data.files`, decoding in `rtil.data.picture`, cutting splits in
`rtil.data.cut`.
"""

from __future__ import annotations

import hashlib
import logging
import re
import warnings
from collections import Counter
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from itertools import combinations
from pathlib import Path, PurePosixPath
from typing import Any, final

import numpy as np
import torch
from torch import Tensor

from rtil.data.base import ImageData
from rtil.data.cut import Cut
from rtil.data.files import DIGESTED, MAX_NAMED, WORKERS, ImageFiles
from rtil.data.limits import DEFAULT, Limits
from rtil.data.listing import in_words
from rtil.data.picture import UNREADABLE, decode
from rtil.data.source import Source, SplitFiles

log = logging.getLogger("rtil.data.folder")
WHOLE = Cut()  # all of the files are training images
HELD_OUT = ("val", "test")  # splits whose images are scored: no other may stand in for one
ID_BYTES = 180


@final
class ImageFolder(ImageData):
    """Images of a folder or .zip, resized and centre-cropped to squares.

    Splits are cut from the sorted file names (`Cut`). An unreadable file leaves its split shorter
    and moves no other file.

    Args:
        path: folder, read with its subfolders, or .zip.
        size: side S of the returned images in pixels.
        split: "train", "val", "test", or "all": every file, in sorted order.
        channels: 1, 3, or "auto": 1 if all of the split are stored grey.
        cut: which files the splits are.
        cache_gb: the split is decoded here, once, if its pixels fit in so many GB (10^9 bytes).
            Otherwise images are decoded at each use. In training the next readable one then stands
            in for one that turns out unreadable, and the first five such are named; held-out
            images are all tried here, so that none does.
        limits: larger files are unreadable.

    Raises:
        FileNotFoundError, ValueError: see `ImageFiles`; or the splits do not fit the files.
    """

    def __init__(
        self,
        path: str | Path,
        size: int,
        split: str = "all",
        channels: int | str = "auto",
        cut: Cut = WHOLE,
        cache_gb: float = 4.0,
        limits: Limits = DEFAULT,
    ):
        if size < 1:
            raise ValueError(f"ImageFolder: size={size} pixels; must be 1 or more")
        if channels not in ("auto", 1, 3):
            raise ValueError(f"ImageFolder: channels={channels!r}; allowed are auto, 1, 3")
        self.files = ImageFiles(path, limits)
        self.split = split
        self._order = cut.indices(len(self.files), split)
        self._split = self._order  # also with those that turn out unreadable
        self._skipped: list[str] = []
        self._ids = _unique_ids(self.files.names)
        self.size = size
        auto = channels == "auto"
        self.channels = self.files.channels(self._order) if auto else int(channels)
        self._bad: dict[str, Exception] = {}
        self._num_warned = 0
        self._images: Tensor | None = None
        if len(self._order) * self.channels * size**2 <= cache_gb * 1e9:
            self._images = self._decode_all(f"decoding {split} images")
        elif split in HELD_OUT:
            readable = self.files.each(self._order, self._decode, f"trying {split} images")
            self._skip_all_but([file for file, _ in readable])
        else:
            self._load(0)  # raises if nothing is readable
            self._warn()
        left_out = self.files.left_out + Counter(unreadable=len(self.unreadable()))
        if left_out.total():
            log.info("%s: %d %s images; left out: %s.", path, len(self), split, in_words(left_out))

    def __len__(self) -> int:
        return len(self._order)

    def name(self, index: int) -> str:
        """The file's path without its ending, "_" between folders, "~2" if that is taken."""
        return self._ids[self._order[index]]

    def digest(self) -> str:
        """That of all its files, also of unreadable ones: what is cached does not change it."""
        return self.files.digest(self._split)

    def unreadable(self) -> list[str]:
        return [*self._skipped, *self._bad]

    def provenance(self) -> dict[str, object]:
        bad = self.unreadable()
        images = {
            "files": len(self._split),
            "contents_in_digest": min(len(self._split), DIGESTED),
            "unreadable": len(bad),
            "unreadable_files": bad[:MAX_NAMED],
        }
        return {"images": images}

    def batch(self, indices: Sequence[int] | Tensor) -> Tensor:
        indices = torch.as_tensor(indices, dtype=torch.long, device="cpu")
        if self._images is not None:
            return self._images[indices]
        # A pool for each batch costs 0.2 ms and leaves no threads that a fork would lose.
        with ThreadPoolExecutor(WORKERS) as pool:
            images = list(pool.map(self._load, indices.tolist()))
        self._warn()
        shape = (len(images), self.channels, self.size, self.size)
        return torch.from_numpy(np.array(images, np.uint8).reshape(shape))

    def _decode(self, data: bytes) -> np.ndarray:
        return decode(data, self.size, self.channels, self.files.limits)

    def _decode_all(self, label: str) -> Tensor:
        images = torch.empty(len(self), self.channels, self.size, self.size, dtype=torch.uint8)
        readable: list[int] = []
        for file, pixels in self.files.each(self._order, self._decode, label):
            images[len(readable)] = torch.tensor(pixels)
            readable.append(file)
        self._skip_all_but(readable)
        return images[: len(readable)]

    def _skip_all_but(self, readable: list[int]) -> None:
        """Makes the split of these files alone."""
        lost = sorted(set(self._order) - set(readable))
        self._skipped = [self.files.names[file] for file in lost]
        self._order = readable

    def _load(self, index: int) -> np.ndarray:
        for step in range(len(self)):
            file = self._order[(index + step) % len(self)]
            try:
                return self._decode(self.files.read(file))
            except UNREADABLE as error:
                self._bad.setdefault(self.files.names[file], error)
                if self.split in HELD_OUT:
                    raise ValueError(
                        f"ImageFolder: {self.files.names[file]} of {self.files.path} can no longer"
                        f" be read ({error}); the same command goes on without it."
                    ) from error
        raise ValueError(
            f"ImageFolder: all {len(self)} images of {self.files.path} are unreadable, "
            f"the first because: {next(iter(self._bad.values()))}"
        )

    def _warn(self) -> None:
        for name, error in list(self._bad.items())[self._num_warned : MAX_NAMED]:
            warnings.warn(
                f"ImageFolder: cannot read {name} of {self.files.path} ({error}); "
                "the next readable image stands in for it",
                stacklevel=3,
            )
        self._num_warned = len(self._bad)


def _unique_ids(names: Sequence[str]) -> list[str]:
    """A name for each file that is safe as a file name and unique without regard to case.

    At most ID_BYTES long: file names made of it add endings, and systems allow 255 bytes. Of a
    longer one its end is kept, which tells images of one folder apart, and a digest of the whole.
    """
    taken: set[str] = set()
    ids = []
    for name in names:
        stem = _bounded(re.sub(r"[^\w.\-]+", "_", str(PurePosixPath(name).with_suffix(""))))
        key, count = stem, 1
        while key.casefold() in taken:
            count += 1
            key = f"{stem}~{count}"
        taken.add(key.casefold())
        ids.append(key)
    return ids


def _bounded(stem: str) -> str:
    data = stem.encode()
    if len(data) <= ID_BYTES:
        return stem
    digest = hashlib.sha256(data).hexdigest()[:12]
    return f"{digest}_{data[len(digest) + 1 - ID_BYTES :].decode(errors='ignore')}"


def files_of(data: Mapping[str, Any], split: str) -> tuple[Path, Cut]:
    """Where the files of a split are, and how it is cut from them.

    Raises:
        FileNotFoundError: nothing at data["path"]; says how to make it if the yaml has an origin.
        ValueError: no path, or one that two of the splits are taken from.
    """
    where = f"data={data['name']}"
    if data["path"] in (None, "", "???"):  # the last is OmegaConf's mandatory value
        raise ValueError(f"{where}: path is not set; give data.path=DIR or data.path=FILE.zip")
    path = Path(str(data["path"])).expanduser()
    if data.get("origin") and not path.exists():
        raise FileNotFoundError(
            f"{where}: no {path.name} in {path.parent.absolute()}. Get {data['origin']}, then "
            f"run\n    python scripts/prepare_data.py FOLDER {path} --resolution 256\n"
            "or name the folder that holds it in the environment variable RTIL_DATA, "
            "or the file in data.path"
        )
    check_apart(data)
    cut = Cut(data["num_train"], data["num_val"], data["num_test"], data["split_seed"])
    apart = [key for key in ("val", "test") if data.get(f"{key}_path")]
    if split in apart:
        nothing = dict.fromkeys(("train", "val", "test"), 0)
        own = replace(cut, **{**nothing, split: data[f"num_{split}"]})
        return Path(str(data[f"{split}_path"])).expanduser(), own
    # `path` keeps nothing back for splits that have their own.
    return path, replace(cut, **dict.fromkeys(apart, 0))


def check_apart(data: Mapping[str, Any]) -> None:
    """Raises ValueError where splits with files of their own share them with another split."""
    keys = [key for key in ("path", "val_path", "test_path") if data.get(key)]
    named = {key: Path(str(data[key])).expanduser().resolve() for key in keys}
    for (key, one), (other, two) in combinations(named.items(), 2):
        inner, outer = (one, two) if one.is_relative_to(two) else (two, one)
        # A zip in a folder of images is none of them, a folder in it is read with it.
        if one == two or (inner.is_relative_to(outer) and inner.is_dir()):
            raise ValueError(
                f"data={data['name']}: {key}={data[key]} and {other}={data[other]} hold the same "
                f"images ({inner}), and training, validation and test images have to be others. "
                f"Give each files of its own, or leave data.{other} out: validation and test "
                "images are then cut from data.path and kept from training."
            )


@final
class FolderSource(Source):
    """Splits cut from the files of data.path, or with files of their own."""

    from_files = True

    def load(
        self, data: Mapping[str, Any], resolution: int, split: str, channels: int | str
    ) -> ImageFolder:
        path, cut = files_of(data, split)
        limits = Limits.of(data)
        return ImageFolder(path, resolution, split, channels, cut, data["cache_gb"], limits)

    def split_files(self, data: Mapping[str, Any], split: str) -> SplitFiles:
        path, cut = files_of(data, split)
        files = ImageFiles(path, Limits.of(data))
        return SplitFiles(files, cut.indices(len(files), split))


SOURCE = FolderSource()
