"""Where a generator lies that is named: a file, one that comes with rtil, or one on a hub.

Files in this folder come with rtil: NAME.safetensors, and its card NAME.md. They are known by
their names alone, so to add one, write both here (scripts/import_checkpoint.py --export
safetensors). What a file holds is said in `rtil.checkpoint`.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import NamedTuple

from rtil.generators import hub

FOLDER = Path(__file__).parent
NAME = re.compile(r"[\w-]+")  # no path: neither a folder nor an ending


class Located(NamedTuple):
    """A file, and what a run records of where it is from: the same words find it again."""

    path: Path
    name: str


def shipped() -> dict[str, Path]:
    """{name: file} of the generators that come with rtil."""
    return {path.stem: path for path in sorted(FOLDER.glob("*.safetensors"))}


def locate(text: str | Path, key: str = "generator") -> Located:
    """The file that is meant, fetched where it lies on a hub.

    Args:
        text: a path, a name of `shipped`, or hf://user/repo[/file][@revision]. A file of that
            name comes before what is shipped.
        key: that names it, for messages.

    Raises:
        FileNotFoundError: there is no such file, nor a generator of that name.
        ValueError: huggingface_hub is not installed, or an address that is none.
    """
    name = str(text)
    if name.startswith(hub.SCHEME):
        return Located(*hub.fetch(name))
    known = shipped()
    if _is_name(name) and name in known:
        return Located(known[name], name)
    path = Path(name)
    if not path.exists():
        listed = ", ".join(known) or "none"
        raise FileNotFoundError(
            f"{key}={name}: no checkpoint at {path}, and none of that name comes with rtil "
            f"({listed}). Name a file, hf://user/repo, or one of these."
        )
    return Located(path, str(path))


def local(text: str) -> Path:
    """The file that a run recorded, as it lies here; nothing is fetched, and it may be gone."""
    if text.startswith(hub.SCHEME):
        return hub.cached(text) or Path(text)
    return shipped().get(text, Path(text)) if _is_name(text) else Path(text)


def _is_name(text: str) -> bool:
    return NAME.fullmatch(text) is not None and not Path(text).exists()
