"""Image data: the contract, images in a folder or zip, the order in which training reads them.

`ImageData` is what entry points see: one split of a data set, uint8 images by number. Flips,
random crops and devices belong to the training loop. Files are read by `rtil/imagefile.py`; the
embedded letters and digits are drawn by `rtil/glyphs.py`.

One more source: a subclass of `ImageData` in its own file, a branch in `load_data`, a yaml in
`configs/data/`.
"""

import re
import warnings
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from functools import lru_cache
from itertools import combinations
from pathlib import Path, PurePosixPath
from typing import Any, Generic, TypeVar

import numpy as np
import torch
from torch import Tensor

from rtil.imagefile import MAX_NAMED, UNREADABLE, WORKERS, ImageFiles, decode

T = TypeVar("T")

SPLITS = ("train", "val", "test", "all")


class ImageData(ABC):
    """One split of a data set of square images.

    Attributes:
        size: image side S in pixels.
        channels: 1 (grey) or 3 (RGB).
    """

    size: int
    channels: int

    @abstractmethod
    def __len__(self) -> int:
        """Number of images in the split."""

    @abstractmethod
    def batch(self, indices: Sequence[int] | Tensor) -> Tensor:
        """Images (B, channels, S, S), uint8 on the CPU, of B indices in [0, len)."""

    @abstractmethod
    def name(self, index: int) -> str:
        """Stable id of an image, usable as a file name, unique within the split."""

    def digest(self) -> str | None:
        """Tells the split's files from others; None where settings alone make the images."""
        return None


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


def to_float(u8: Tensor) -> Tensor:
    """x = u8 / 127.5 - 1: float32 in [-1, 1]."""
    return u8.to(torch.float32) / 127.5 - 1


def to_uint8(x: Tensor) -> Tensor:
    """u8 = round(127.5 (x + 1)), clamped to [0, 255]: undoes `to_float`."""
    return ((x + 1) * 127.5).round().clamp(0, 255).to(torch.uint8)


def epoch_indices(n: int, seed: int, start: int, count: int) -> Tensor:
    """Which of n images the training samples number start, ..., start + count - 1 are.

    The samples are one infinite stream: sample i is at place i mod n of the permutation of epoch
    e = i // n, a function of (n, seed, e). So it reads the same in batches of any size, and the
    number of samples seen is all that resuming needs.

    Returns:
        (count,) int64 in [0, n).
    """
    parts, i = [torch.empty(0, dtype=torch.long)], start
    while i < start + count:
        epoch, place = divmod(i, n)
        parts.append(torch.tensor(_permutation(n, seed, epoch)[place : place + start + count - i]))
        i += len(parts[-1])
    return torch.cat(parts)


@lru_cache(maxsize=4)
def _permutation(n: int, seed: int, epoch: int) -> np.ndarray:
    # NumPy promises never to change RandomState's stream; the newer generators may change.
    words = [seed % 2**32, (seed >> 32) % 2**32, epoch]
    return np.random.RandomState(words).permutation(n).astype(np.int64)


def load_data(
    data: Mapping[str, Any],
    resolution: int,
    split: str,
    channels: int | None = None,
    min_images: int = 1,
) -> ImageData:
    """Build one split of the data set that a yaml of `configs/data/` describes.

    Args:
        data: the yaml, resolved, as a plain mapping.
        resolution: image side in pixels.
        split: "train", "val", "test", or for images in files "all".
        channels: 1 or 3 overrides the yaml's.
        min_images: how many the caller needs.

    Raises:
        FileNotFoundError, ValueError: see `files_of`, `ImageFolder` and `Glyphs`; an unknown
            source, too few images.
    """
    where = f"data={data['name']}"
    channels = data["channels"] if channels is None else channels
    if data["source"] == "glyphs":
        from rtil.glyphs import Glyphs  # it imports the contract from here

        length = data.get(f"num_{split}") or 0
        grey_or_given = 1 if channels == "auto" else channels
        images: ImageData = Glyphs(resolution, split, length, data["seed"], grey_or_given)
    elif data["source"] == "folder":
        path, counts = files_of(data, split)
        options = {key: data[key] for key in ("split_seed", "cache_gb")}
        images = ImageFolder(path, resolution, split, channels, **counts, **options)
    else:
        raise ValueError(f"{where}: source={data['source']!r}; allowed are glyphs, folder")
    if len(images) < min_images:
        raise ValueError(
            f"{where}: the {split} split has {len(images)} images and {min_images} are needed; "
            "add images, or change data.num_train, data.num_val, data.num_test"
        )
    return images


def files_of(data: Mapping[str, Any], split: str) -> tuple[Path, dict[str, int | None]]:
    """Where the files of a split are, and how many are cut from them.

    Returns:
        The folder or zip; num_train, num_val and num_test.

    Raises:
        FileNotFoundError: nothing at data["path"]; says how to make it if the yaml has an origin.
        ValueError: no path, or one that two of the splits are taken from.
    """
    where = f"data={data['name']}"
    if data["path"] in (None, "", "???"):  # the last is OmegaConf's mandatory value
        raise ValueError(f"{where}: path is not set; give data.path=DIR or data.path=FILE.zip")
    path = Path(data["path"]).expanduser()
    if data.get("origin") and not path.exists():
        raise FileNotFoundError(
            f"{where}: no {path.name} in {path.parent.absolute()}. Get {data['origin']}, then "
            f"run\n    python scripts/prepare_data.py FOLDER {path} --resolution 256\n"
            "or name the folder that holds it in the environment variable RTIL_DATA, "
            "or the file in data.path"
        )
    check_apart(data)
    counts = {f"num_{key}": data[f"num_{key}"] for key in ("train", "val", "test")}
    apart = {key: data.get(f"{key}_path") for key in ("val", "test")}
    if apart.get(split):
        only = f"num_{split}"
        return Path(apart[split]).expanduser(), {**dict.fromkeys(counts, 0), only: counts[only]}
    # `path` keeps nothing back for splits that have their own.
    return path, counts | {f"num_{key}": 0 for key, other in apart.items() if other}


def check_apart(data: Mapping[str, Any]) -> None:
    """Raises ValueError where splits with files of their own share them with another split."""
    named = {key: Path(data[key]).expanduser().resolve()
             for key in ("path", "val_path", "test_path") if data.get(key)}
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


def split_files(data: Mapping[str, Any], split: str) -> tuple[ImageFiles, list[int]] | None:
    """The files of a split, by their numbers in its order, without reading them.

    None where no files make the images. Raises what `load_data` does for its files.
    """
    if data.get("source") != "folder":
        return None
    path, counts = files_of(data, split)
    files = ImageFiles(path)
    order = {key: counts[f"num_{key}"] for key in ("test", "val", "train")}
    return files, split_indices(len(files), split, order, data["split_seed"])


class Prefetch(Generic[T]):
    """Compute the next batch in one background thread while the current one is in use.

    Args:
        fetch: makes the batch of a key. It runs in that thread only, one call at a time.
    """

    def __init__(self, fetch: Callable[[int], T]):
        self._fetch = fetch
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="prefetch")
        self._key: int | None = None
        self._result: Future[T] | None = None

    def schedule(self, key: int) -> None:
        """Begin fetch(key); drops what was scheduled before under another key."""
        if self._result is None or self._key != key:
            if self._result is not None:
                self._result.cancel()
            self._key, self._result = key, self._pool.submit(self._fetch, key)

    def get(self, key: int) -> T:
        """fetch(key), begun by `schedule` or else now. Raises what fetch raises."""
        self.schedule(key)
        result, self._result = self._result, None
        return result.result()

    def close(self) -> None:
        """Stop the thread, after the fetch it is in."""
        self._pool.shutdown(cancel_futures=True)


def _unique_ids(names: Sequence[str]) -> list[str]:
    """A name for each file that is safe as a file name and unique without regard to case."""
    taken: set[str] = set()
    ids = []
    for name in names:
        stem = re.sub(r"[^\w.\-]+", "_", str(PurePosixPath(name).with_suffix("")))
        key, count = stem, 1
        while key.casefold() in taken:
            count += 1
            key = f"{stem}~{count}"
        taken.add(key.casefold())
        ids.append(key)
    return ids
