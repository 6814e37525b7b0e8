"""Images in files: a folder or zip as a numbered list, what is in each, and reading them in order.

Which files count is in `rtil.data.listing`, entries of a zip in `rtil.data.zip_file`, decoding in
`rtil.data.picture`. Splits are cut in `rtil.data.cut`.
"""

from __future__ import annotations

import hashlib
import os
import re
import warnings
import zlib
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple, TypeVar, cast
from zipfile import ZipInfo

from rtil.data.limits import DEFAULT, Limits, crc_of
from rtil.data.listing import SUFFIXES, in_words, listing, names_below
from rtil.data.picture import GREY_MODES, UNREADABLE, stored_mode
from rtil.data.zip_file import entries, head_of_entry, read_entry
from rtil.process.bounds import regular_size
from rtil.process.progress import tracked

T = TypeVar("T")

WORKERS = min(8, os.cpu_count() or 1)
MAX_NAMED = 5  # unreadable files named in warnings
DIGESTED = 256  # files whose contents a digest reads
HEAD = 2**16  # bytes that most formats need to tell what they hold
# In the comment of a zip's entry.
ORIGINAL = re.compile(rb"rtil-original=(\d+):([0-9a-f]{8}):([0-9a-f]{64})")


class Mark(NamedTuple):
    """What tells most contents apart and costs little: bytes and their CRC-32.

    Not all: the CRC of a PNG's chunks is in the file, so of those of one size and shape the CRC-32
    has only 16 bits that differ.
    """

    size: int
    crc: int


class Original(NamedTuple):
    """What an entry of a zip was made from: the mark of that file, and SHA-256 of its contents."""

    mark: Mark
    sha256: str

    @classmethod
    def of(cls, data: bytes) -> Original:
        """A file of these contents."""
        return cls(Mark(len(data), zlib.crc32(data)), hashlib.sha256(data).hexdigest())

    def note(self) -> bytes:
        """As it stands in the comment of the entry."""
        return b"rtil-original=%d:%08x:%s" % (*self.mark, self.sha256.encode())


class ImageFiles:
    """The images of a folder (with its subfolders) or of a .zip, by number.

    No file stays open between reads: an object works in many threads, pickled and after a fork.

    Args:
        path: of the folder or zip.
        limits: larger files are unreadable.

    Attributes:
        path: of the folder or zip.
        names: of the files, relative to `path` with "/" between folders, sorted. Hidden files and
            endings not in `SUFFIXES` are left out.
        left_out: how many files are no images, by kind.

    Raises:
        FileNotFoundError: nothing at `path`.
        ValueError: `path` is a file but no zip, or holds no images.
    """

    def __init__(self, path: str | Path, limits: Limits = DEFAULT):
        self.path = Path(path).expanduser()
        self.limits = limits
        if not self.path.exists():
            raise FileNotFoundError(
                f"ImageFiles: nothing at {self.path.absolute()}; "
                "give an existing folder or .zip with images (data.path)"
            )
        self._entries: Mapping[str, ZipInfo] | None = None
        if not self.path.is_dir():
            self._entries = self._zip_entries()
        self.names, self.left_out = listing(
            names_below(self.path) if self._entries is None else self._entries
        )
        if not self.names:
            others = in_words(self.left_out)
            raise ValueError(
                f"ImageFiles: no images among the {self.left_out.total()} files of {self.path}"
                f"{f' ({others})' if others else ''}; "
                f"file names must end in {' '.join(SUFFIXES)}"
            )

    def __len__(self) -> int:
        return len(self.names)

    def _zip_entries(self) -> Mapping[str, ZipInfo]:
        try:
            return entries(self.path)
        except ValueError as error:
            raise ValueError(
                f"ImageFiles: {self.path} is {error}; "
                "give a folder or a .zip with images (data.path)"
            ) from error

    def _file(self, index: int) -> str:
        """Where a file of a folder is; a Path takes three times as long to make."""
        return f"{self.path}/{self.names[index]}"

    def read(self, index: int) -> bytes:
        """Contents of a file. Raises one of `UNREADABLE` if it is damaged or too large."""
        if self._entries is not None:
            return read_entry(self.path, self._entries[self.names[index]], self.limits)
        return self.limits.read(self._file(index))

    def head(self, index: int) -> bytes:
        """The first bytes of a file, unchecked; raises one of `UNREADABLE`."""
        if self._entries is not None:
            return head_of_entry(self.path, self._entries[self.names[index]], HEAD)
        regular_size(self._file(index))
        with open(self._file(index), "rb") as file:
            return file.read(HEAD)

    def size(self, index: int) -> int:
        """Bytes of a file, uncompressed; -1 where it cannot be read."""
        if self._entries is not None:
            return self._entries[self.names[index]].file_size
        try:
            return os.path.getsize(self._file(index))
        except OSError:
            return -1

    def crc(self, index: int) -> int:
        """CRC-32 of a file's contents, which a zip holds ready; -1 where it cannot be read.

        A file beyond the limits has one too: a digest does not depend on them.
        """
        if self._entries is not None:
            return self._entries[self.names[index]].CRC
        try:
            return crc_of(self._file(index))
        except UNREADABLE:
            return -1

    def originals(self, index: int) -> list[Original]:
        """What `pack` made an entry of a zip from, a copy of a copy included."""
        if self._entries is None:
            return []
        notes = ORIGINAL.findall(self._entries[self.names[index]].comment)
        return [Original(Mark(int(size), int(crc, 16)), sha.decode()) for size, crc, sha in notes]

    def is_unmarked_zip(self) -> bool:
        """Whether it is a zip that does not say what its entries were made from."""
        return self._entries is not None and not any(
            self.originals(index) for index in range(len(self))
        )

    def marks(self, index: int, sizes: Collection[int]) -> set[Mark]:
        """Those of a file and of what it was made from, as far as they are of these sizes.

        The others need no reading.
        """
        marks = {
            original.mark for original in self.originals(index) if original.mark.size in sizes
        }
        size = self.size(index)
        return marks | {Mark(size, self.crc(index))} if size in sizes else marks

    def hashes(self, index: int, marks: Collection[Mark]) -> set[str]:
        """SHA-256 of the contents with these marks: a file's own, and of what it was made from."""
        found = {original.sha256 for original in self.originals(index) if original.mark in marks}
        if Mark(self.size(index), self.crc(index)) in marks:
            try:
                found.add(hashlib.sha256(self.read(index)).hexdigest())
            except UNREADABLE:
                return found  # no image, whatever its mark
        return found

    def digest(self, indices: Sequence[int]) -> str:
        """Tells lists of files apart: how many, and a hash of their order, names, sizes and CRCs.

        A folder and a zip of it agree. Only the first DIGESTED contents are read, since a folder
        has no CRCs and training images may be large; the others are told by their names and sizes.
        """
        marks = [(self.names[i], self.size(i)) for i in indices]
        text = repr((marks, [self.crc(i) for i in indices[:DIGESTED]]))
        found = hashlib.sha256(text.encode("utf-8", "surrogateescape")).hexdigest()
        return f"{len(marks)} files, {found[:16]}"

    def channels(self, indices: Sequence[int]) -> int:
        """1 if all readable files of these are stored grey, else 3; reads their headers alone.

        Raises:
            ValueError: none of them is readable; says why not.
        """
        grey, reason = False, None
        for index in indices:
            try:
                mode = self._mode(index)
            except UNREADABLE as error:
                reason = reason or f"the first, {self.names[index]}, because: {error}"
                continue
            if mode not in GREY_MODES:
                return 3
            grey = True
        if not grey:
            raise ValueError(
                f"ImageFiles: all {len(indices)} images of {self.path} are unreadable, {reason}"
            )
        return 1

    def _mode(self, index: int) -> str:
        """How a picture is stored; raises one of `UNREADABLE`."""
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # of a file that seems to end too soon
                return stored_mode(self.head(index), self.limits)
        except UNREADABLE:
            # Some formats keep what they hold at the end, some have long texts before it.
            return stored_mode(self.read(index), self.limits)

    def each(
        self,
        indices: Sequence[int],
        work: Callable[[bytes], T],
        label: str,
        workers: int = WORKERS,
    ) -> Iterator[tuple[int, T]]:
        """Yield (index, work(contents)) of the readable files in order, then warn of the others.

        Raises:
            ValueError: all of them are unreadable.

        Note: `work` runs in threads. A progress bar appears after two seconds.
        """

        def attempt(index: int) -> tuple[T | None, Exception | None]:
            try:
                return work(self.read(index)), None
            except UNREADABLE as error:
                return None, error

        bad: list[tuple[str, Exception]] = []
        pool = ThreadPoolExecutor(workers)
        try:
            results = zip(indices, pool.map(attempt, indices))
            total = len(indices)
            for index, (value, error) in tracked(results, total, "img", label):
                if error is None:
                    yield index, cast(T, value)
                else:
                    bad.append((self.names[index], error))
        finally:
            pool.shutdown(cancel_futures=True)
        if not bad:
            return
        if len(bad) == len(indices):
            raise ValueError(
                f"ImageFiles: all {len(bad)} images of {self.path} are unreadable, "
                f"the first, {bad[0][0]}, because: {bad[0][1]}"
            )
        named = [f"{name} ({error})" for name, error in bad[:MAX_NAMED]]
        more = ", ..." if len(bad) > MAX_NAMED else ""
        warnings.warn(
            f"ImageFiles: skipped {len(bad)} of {len(indices)} images of {self.path}, "
            f"unreadable: {', '.join(named)}{more}",
            stacklevel=2,
        )
