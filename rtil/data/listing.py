"""Which files of a folder or zip are images, and how many of which kind are none.

Reading them lives in `rtil.data.files`. One more file type that Pillow reads: add its ending to
`SUFFIXES` and its format to those of `rtil.data.picture`.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path, PurePosixPath
from typing import NamedTuple

SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".ppm", ".pgm", ".tif", ".tiff")


class Listing(NamedTuple):
    """Names of the images, sorted, with "/" between folders; how many others there are, by kind.

    Hidden files, and what macOS adds to a zip, are neither.
    """

    images: list[str]
    others: Counter[str]


def listing(names: Iterable[str]) -> Listing:
    """The listing of files by their names."""
    images: list[str] = []
    others: Counter[str] = Counter()
    for name in names:
        if _is_hidden(name):
            continue
        if name.lower().endswith(SUFFIXES):
            images.append(name)
        else:
            others[PurePosixPath(name).suffix.lower() or "no ending"] += 1
    return Listing(sorted(images), others)


def in_words(kinds: Mapping[str, int]) -> str:
    """Counts by kind, as in ".gif 3, unreadable 2"; "" where there are none."""
    return ", ".join(f"{kind} {count}" for kind, count in sorted(kinds.items()) if count)


def names_below(root: Path) -> list[str]:
    """Names of all files in a folder and its subfolders, relative to it.

    Linked folders are read as others are, each folder once however many links lead to it. A link
    to a folder that holds `root` is passed over.
    """
    names: list[str] = []
    seen: set[tuple[int, int]] = set()
    # All that lies here goes before what is linked: its names do not change with a link.
    waiting = [str(root)]
    while waiting:
        links: list[str] = []
        for folder, subfolders, files in os.walk(waiting.pop(0)):
            about = os.stat(folder)
            if (about.st_dev, about.st_ino) in seen:
                subfolders.clear()
                continue
            seen.add((about.st_dev, about.st_ino))
            prefix = "" if folder == str(root) else f"{os.path.relpath(folder, root)}/"
            names += [f"{prefix}{file}" for file in files]
            subfolders[:] = [name for name in subfolders if not _is_hidden(name)]
            links += [os.path.join(folder, name) for name in subfolders]
        waiting += sorted(link for link in links if _leads_elsewhere(link, root))
    return names


def _leads_elsewhere(path: str, root: Path) -> bool:
    """Whether a folder is a link, and none to where it comes from."""
    return os.path.islink(path) and not root.resolve().is_relative_to(os.path.realpath(path))


def _is_hidden(name: str) -> bool:
    return any(part.startswith(".") or part == "__MACOSX" for part in name.split("/"))
