"""Images of a folder or zip as one split of a data set, and how splits are cut from its files."""

from __future__ import annotations

import hashlib
import re
import warnings
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path, PurePosixPath

import numpy as np
import torch
from torch import Tensor

from rtil.data.base import ImageData
from rtil.data.files import MAX_NAMED, UNREADABLE, WORKERS, ImageFiles, decode
from rtil.data.stream import _permutation

SPLITS = ("train", "val", "test", "all")
ID_BYTES = 180


class ImageFolder(ImageData):
    """Images of a folder or .zip, resized and centre-cropped to squares.

    Splits are cut from a permutation of the sorted file names: `num_test` files for test, the next
    `num_val` for val, then train. They are disjoint and the same on every machine. An unreadable
    file leaves its split shorter and moves no other file.

    Args:
        path: folder, read with its subfolders, or .zip.
        size: side S of the returned images in pixels.
        split: "train", "val", "test", or "all": every file, in sorted order.
        channels: 1, 3, or "auto": 1 if the first images are all grey.
        num_train: how many training images; None takes all that are left.
        num_val, num_test: how many images are held out.
        split_seed: of the permutation.
        cache_gb: the split is decoded here, once, if its pixels fit in so many GB (10^9 bytes).
            Otherwise images are decoded at each use, and the next readable one stands in for one
            that turns out unreadable; the first five such are named.

    Raises:
        FileNotFoundError, ValueError: see `ImageFiles`; or the splits do not fit the files.
    """

    def __init__(
        self,
        path: str | Path,
        size: int,
        split: str = "all",
        channels: int | str = "auto",
        num_train: int | None = None,
        num_val: int = 0,
        num_test: int = 0,
        split_seed: int = 0,
        cache_gb: float = 4.0,
    ):
        if size < 1:
            raise ValueError(f"ImageFolder: size={size} pixels; must be 1 or more")
        if channels not in ("auto", 1, 3):
            raise ValueError(f"ImageFolder: channels={channels!r}; allowed are auto, 1, 3")
        counts = {"test": num_test, "val": num_val, "train": num_train}
        self.files = ImageFiles(path)
        self._order = split_indices(len(self.files), split, counts, split_seed)
        self._split = self._order  # also with those that turn out unreadable
        self._ids = _unique_ids(self.files.names)
        self.size = size
        self.channels = self.files.channels() if channels == "auto" else channels
        self._bad: dict[str, Exception] = {}
        self._num_warned = 0
        self._images: Tensor | None = None
        if len(self._order) * self.channels * size**2 <= cache_gb * 1e9:
            self._decode_all(f"decoding {split} images")
        else:
            self._load(0)  # raises if nothing is readable
            self._warn()

    def __len__(self) -> int:
        return len(self._order)

    def name(self, index: int) -> str:
        """The file's path without its ending, "_" between folders, "~2" if that is taken."""
        return self._ids[self._order[index]]

    def digest(self) -> str:
        """That of all its files, also of unreadable ones: what is cached does not change it."""
        return self.files.digest(self._split)

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
        return decode(data, self.size, self.channels)

    def _decode_all(self, label: str) -> None:
        images = torch.empty(len(self), self.channels, self.size, self.size, dtype=torch.uint8)
        readable = []
        for file, pixels in self.files.each(self._order, self._decode, label):
            images[len(readable)] = torch.tensor(pixels)
            readable.append(file)
        self._images, self._order = images[: len(readable)], readable

    def _load(self, index: int) -> np.ndarray:
        for step in range(len(self)):
            file = self._order[(index + step) % len(self)]
            try:
                return self._decode(self.files.read(file))
            except UNREADABLE as error:
                self._bad.setdefault(self.files.names[file], error)
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


def split_indices(n: int, split: str, counts: Mapping[str, int | None], seed: int) -> list[int]:
    """Which of n files are in a split.

    Args:
        n: number of files.
        split: one of `SPLITS`.
        counts: images of each split in the order in which they are cut; None takes the rest.
        seed: of the permutation.

    Raises:
        ValueError: unknown or empty split, a negative count, more images asked for than n.
    """
    if split not in SPLITS:
        raise ValueError(f"ImageFolder: split={split!r}; allowed are {', '.join(SPLITS)}")
    if split == "all":
        return list(range(n))
    asked = ", ".join(f"num_{key}={count}" for key, count in counts.items())
    if min(count or 0 for count in counts.values()) < 0:
        raise ValueError(f"ImageFolder: {asked}; each must be 0 or more")
    rest = n - sum(count or 0 for count in counts.values())
    if rest < 0:
        raise ValueError(f"ImageFolder: {asked} ask for more than the {n} images there are")
    order, start = _permutation(n, seed, 0), 0
    for key, count in counts.items():
        stop = start + (rest if count is None else count)
        if key == split and stop > start:
            return order[start:stop].tolist()
        start = stop
    raise ValueError(
        f"ImageFolder: the {split} split is empty, {asked} of {n} images; "
        "change data.num_train, data.num_val, data.num_test"
    )


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
