"""Images in files: a folder or zip as a numbered list, decoding to squares, packing into a zip.

Splits are cut in `rtil.data.cut`, the order of reading is in `rtil.data.stream`.

One more file type that Pillow reads: add its ending to `SUFFIXES`.
"""

import hashlib
import io
import os
import stat
import struct
import warnings
import zipfile
import zlib
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import lru_cache, partial
from pathlib import Path, PurePosixPath
from typing import TypeVar

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError
from tqdm import tqdm

from rtil.process.files import replacing
from rtil.process.lock import held

T = TypeVar("T")

SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".ppm", ".pgm", ".tif", ".tiff")
GREY_MODES = ("1", "L", "LA", "I", "I;16", "I;16B", "I;16L")
WORKERS = min(8, os.cpu_count() or 1)
MAX_NAMED = 5  # unreadable files named in warnings
DIGESTED = 256  # files whose contents a digest reads

# What Pillow and zlib raise for damaged files; Pillow's SyntaxError is a broken PNG chunk.
UNREADABLE = (
    OSError, SyntaxError, ValueError, LookupError, ArithmeticError, EOFError,
    struct.error, zlib.error, Image.DecompressionBombError,
)  # fmt: skip


@dataclass(frozen=True)
class Limits:
    """What a file of images may ask for; more is refused before any of it is allocated.

    Args:
        megapixels: of one picture, 10^6 pixels.
        file_mb: of one file, and of an entry of a zip once it is unpacked, 10^6 bytes.
    """

    megapixels: float = 64.0
    file_mb: float = 256.0

    def check_pixels(self, width: int, height: int) -> None:
        """Raises ValueError for a picture with more pixels."""
        if width * height > self.megapixels * 1e6:
            raise ValueError(
                f"{width}x{height} pixels; at most {self.megapixels:g} million are read "
                "(data.max_megapixels)"
            )

    def check_bytes(self, size: int) -> None:
        """Raises ValueError for a larger file."""
        if size > self.file_mb * 1e6:
            raise ValueError(
                f"{size / 1e6:.0f} MB; at most {self.file_mb:g} are read (data.max_file_mb)"
            )


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

    Raises:
        FileNotFoundError: nothing at `path`.
        ValueError: `path` is a file but no zip, or holds no images.
    """

    def __init__(self, path: str | Path, limits: Limits | None = None):
        self.path = Path(path).expanduser()
        self.limits = limits or Limits()
        if not self.path.exists():
            raise FileNotFoundError(
                f"ImageFiles: nothing at {self.path.absolute()}; "
                "give an existing folder or .zip with images (data.path)"
            )
        self._entries: dict[str, zipfile.ZipInfo] | None = None
        if self.path.is_dir():
            found = [
                Path(folder, file).relative_to(self.path).as_posix()
                for folder, _, files in os.walk(self.path)
                for file in files
            ]
        else:
            about = self.path.stat()
            try:
                self._entries = _entries(self.path, about.st_mtime_ns, about.st_size)
            except zipfile.BadZipFile as error:
                raise ValueError(
                    f"ImageFiles: {self.path} is not a zip archive, or a truncated one ({error}); "
                    "give a folder or a .zip with images (data.path)"
                ) from error
            found = list(self._entries)
        self.names = sorted(n for n in found if n.lower().endswith(SUFFIXES) and not _hidden(n))
        if not self.names:
            raise ValueError(
                f"ImageFiles: no images among the {len(found)} files of {self.path}; "
                f"file names must end in {' '.join(SUFFIXES)}"
            )

    def __len__(self) -> int:
        return len(self.names)

    def read(self, index: int) -> bytes:
        """Contents of a file. Raises one of `UNREADABLE` if it is damaged or too large."""
        name = self.names[index]
        if self._entries is not None:
            return self._read_entry(self._entries[name])
        about = (self.path / name).stat()
        if not stat.S_ISREG(about.st_mode):  # a pipe would be waited for, a device has no end
            raise ValueError("no regular file")
        self.limits.check_bytes(about.st_size)
        return (self.path / name).read_bytes()

    def _read_entry(self, entry: zipfile.ZipInfo) -> bytes:
        if entry.flag_bits & 1 or entry.compress_type not in (0, zipfile.ZIP_DEFLATED):
            raise ValueError("encrypted, or compressed by another method than deflate")
        self.limits.check_bytes(max(entry.file_size, entry.compress_size))
        # ZipFile.read would share a file position among threads and forks. A local header is 30
        # bytes, the last four the lengths of the name and the extra field before the contents.
        with open(self.path, "rb") as file:
            file.seek(entry.header_offset + 26)
            file.seek(sum(struct.unpack("<HH", file.read(4))), os.SEEK_CUR)
            data = file.read(entry.compress_size)
        if entry.compress_type == zipfile.ZIP_DEFLATED:
            # Entries may unpack to more than their directory says: never more than that.
            data = zlib.decompressobj(wbits=-15).decompress(data, entry.file_size + 1)
        if len(data) != entry.file_size or zlib.crc32(data) != entry.CRC:
            raise ValueError("its checksum in the zip differs")
        return data

    def size(self, index: int) -> int:
        """Bytes of a file, uncompressed; -1 where it cannot be read."""
        name = self.names[index]
        if self._entries is not None:
            return self._entries[name].file_size
        try:
            return os.path.getsize(f"{self.path}/{name}")  # a Path takes three times as long
        except OSError:
            return -1

    def crc(self, index: int) -> int:
        """CRC-32 of a file's contents, which a zip holds ready; -1 where it cannot be read."""
        if self._entries is not None:
            return self._entries[self.names[index]].CRC
        try:
            return zlib.crc32(self.read(index))
        except OSError:
            return -1

    def digest(self, indices: Sequence[int]) -> str:
        """Tells lists of files apart: how many, and a hash of their order, names, sizes and CRCs.

        A folder and a zip of it agree. Only the first DIGESTED contents are read, since a folder
        has no CRCs and training images may be large; the others are told by their names and sizes.
        """
        marks = [(self.names[i], self.size(i)) for i in indices]
        text = repr((marks, [self.crc(i) for i in indices[:DIGESTED]]))
        found = hashlib.sha256(text.encode("utf-8", "surrogateescape")).hexdigest()
        return f"{len(marks)} files, {found[:16]}"

    def channels(self) -> int:
        """1 if the first eight readable images are all grey, else 3."""
        modes: list[str] = []
        for index in range(len(self)):
            try:
                with Image.open(io.BytesIO(self.read(index))) as image:
                    modes.append(image.mode)
            except UNREADABLE:
                continue
            if len(modes) == 8:
                break
        if not modes:
            raise ValueError(f"ImageFiles: all {len(self)} images of {self.path} are unreadable")
        return 1 if all(mode in GREY_MODES for mode in modes) else 3

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
            bar = tqdm(results, label, total, leave=False, disable=None, unit="img", delay=2)
            for index, (value, error) in bar:
                if error is None:
                    yield index, value
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


def decode(data: bytes, size: int, channels: int, limits: Limits | None = None) -> np.ndarray:
    """Decode an image, scale its short side to `size` (Lanczos, anti-aliased), crop the centre.

    Returns:
        (channels, size, size) uint8.

    Raises:
        One of `UNREADABLE`.
    """
    limits = limits or Limits()
    image = open_picture(data, "L" if channels == 1 else "RGB", limits)
    scaled = covering(image.size, size)
    if scaled[0] * scaled[1] > limits.megapixels * 1e6:
        return pixels(_middle(image, scaled, size))
    if image.size != scaled:
        image = image.resize(scaled, Image.Resampling.LANCZOS)
    return pixels(crop_centre(image, size))


def _middle(image: Image.Image, scaled: tuple[int, int], size: int) -> Image.Image:
    """The middle square of a picture scaled to `scaled`, without making the rest of it.

    For thin pictures, which become very long ones. Others are scaled whole: Pillow rounds between
    its two passes, whose order may be another for a part.
    """
    left, top = (scaled[0] - size) // 2, (scaled[1] - size) // 2
    across, down = image.width / scaled[0], image.height / scaled[1]
    box = (left * across, top * down, (left + size) * across, (top + size) * down)
    return image.resize((size, size), Image.Resampling.LANCZOS, box)


def open_picture(
    data: bytes, mode: str | None = None, limits: Limits | None = None
) -> Image.Image:
    """Decode an image to `mode`, "L" or "RGB"; None: "L" where it is stored grey, else "RGB".

    Orientation tags are applied, transparency is laid on white, 16-bit grey becomes 8-bit.

    Raises:
        One of `UNREADABLE`.
    """
    try:
        with Image.open(io.BytesIO(data)) as file:  # reads the header alone
            (limits or Limits()).check_pixels(*file.size)
            image = ImageOps.exif_transpose(file)
    except UnidentifiedImageError:  # its message is a memory address
        raise ValueError("not an image of a known format") from None
    grey = image.mode in GREY_MODES
    if image.mode == "F":
        raise ValueError("floating-point pixels have no fixed range; convert them to 8 or 16 bits")
    if image.mode.startswith("I"):  # Pillow clips these at 255 where it should scale
        deep = np.asarray(image).astype(np.int64).clip(0, 65535)
        image = Image.fromarray(((deep + 128) // 257).astype(np.uint8))
    if image.has_transparency_data:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    return image.convert(mode or ("L" if grey else "RGB"))


def covering(sides: tuple[int, int], size: int) -> tuple[int, int]:
    """(width, height) of a picture of these sides once its short side is scaled to `size`."""
    scale = size / min(sides)
    width, height = (max(size, round(scale * side)) for side in sides)
    return width, height


def crop_centre(image: Image.Image, size: int) -> Image.Image:
    """The square of that side in the middle."""
    left, top = (image.width - size) // 2, (image.height - size) // 2
    return image.crop((left, top, left + size, top + size))


def pixels(image: Image.Image) -> np.ndarray:
    """(channels, height, width) of an image of mode "L", "RGB" or "F"."""
    return np.asarray(image).reshape(image.height, image.width, -1).transpose(2, 0, 1)


def pack(
    source: str | Path,
    out: str | Path,
    resolution: int,
    channels: int | str = "auto",
    limit: int | None = None,
    workers: int = WORKERS,
    force: bool = False,
) -> int:
    """Write a folder or zip of images as resized, centre-cropped PNGs into a new zip.

    The zip appears under its name once it is complete. Its entries keep their folders and order,
    and are stored, since PNG is compressed already. Unreadable files are named and left out.

    Args:
        source: folder or .zip.
        out: the .zip to write.
        resolution: image side in pixels.
        channels: 1, 3 or "auto" (see `ImageFiles.channels`).
        limit: take the first so many files in sorted order.
        workers: number of threads.
        force: replace an existing `out`.

    Returns:
        Number of images written.

    Raises:
        FileExistsError: `out` exists.
        FileNotFoundError, ValueError: see `ImageFiles`; or an argument is out of range.
    """
    out = Path(out).expanduser()
    if out.suffix.lower() != ".zip":
        raise ValueError(f"pack: got the output {out}; its name must end in .zip")
    if out.exists() and not force:
        raise FileExistsError(f"pack: {out} exists; choose another name or give --force")
    if resolution < 1 or (limit is not None and limit < 1):
        raise ValueError(f"pack: resolution={resolution}, limit={limit}; both must be 1 or more")
    files = ImageFiles(source)
    drawn = files.channels() if channels == "auto" else int(channels)

    def shrink(data: bytes) -> bytes:
        image = decode(data, resolution, drawn).transpose(1, 2, 0)
        png = io.BytesIO()
        Image.fromarray(image[:, :, 0] if drawn == 1 else image).save(png, "png")
        return png.getvalue()

    out.parent.mkdir(parents=True, exist_ok=True)
    written: set[str] = set()
    archive_of = partial(zipfile.ZipFile, mode="w", compression=zipfile.ZIP_STORED)
    with held(out, "pack"), replacing(out) as part, archive_of(part) as archive:
        for index, png in files.each(range(len(files))[:limit], shrink, "packing", workers):
            name = str(PurePosixPath(files.names[index]).with_suffix(".png"))
            if name in written:  # a.jpg beside a.png
                name = f"{files.names[index]}.png"
            archive.writestr(name, png)
            written.add(name)
    return len(written)


@lru_cache(maxsize=2)  # of 70,000 files this takes a second, and a command asks several times
def _entries(path: Path, mtime_ns: int, size: int) -> dict[str, zipfile.ZipInfo]:
    """The files of a zip as it was at that time, by name."""
    with zipfile.ZipFile(path) as archive:
        return {i.filename: i for i in archive.infolist() if not i.is_dir()}


def _hidden(name: str) -> bool:
    return any(part.startswith(".") or part == "__MACOSX" for part in PurePosixPath(name).parts)
