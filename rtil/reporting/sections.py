"""What a page is made of. Each is made once; `markdown` and `html` write it.

A further kind is a dataclass here and a branch in each of the two.
"""

from __future__ import annotations

import base64
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Table:
    """A table of texts. looks are "better", "worse", "missing" or "" of each row."""

    title: str
    headings: Sequence[str]
    lines: Sequence[Sequence[str]]
    looks: Sequence[str] = ()

    @classmethod
    def of(cls, title: str, lines: Sequence[Mapping[str, str]]) -> Table:
        """From {heading: text} of each line."""
        return cls(title, [*lines[0]], [[*line.values()] for line in lines])

    def column(self, heading: str) -> list[str]:
        """The texts under a heading."""
        place = [*self.headings].index(heading)
        return [line[place] for line in self.lines]


@dataclass(frozen=True)
class Text:
    """A paragraph and, as they are typed, the commands that it speaks of.

    With a fold it is shown once its fold is opened.
    """

    paragraph: str = ""
    commands: Sequence[str] = ()
    fold: str = ""


@dataclass(frozen=True)
class Figure:
    """A drawn PNG file."""

    title: str
    path: Path

    @property
    def address(self) -> str:
        """The file as the address of itself."""
        return address(self.path.read_bytes())


@dataclass(frozen=True)
class Picture:
    """An image of a gallery, its file as the address of itself; "" where there is none."""

    address: str
    caption: str = ""
    small: bool = False


@dataclass(frozen=True)
class Shot:
    """One test image in a gallery; keys are what its buttons sort by."""

    name: str
    pictures: Sequence[Picture]
    keys: Sequence[float]


@dataclass(frozen=True)
class Gallery:
    """Images side by side, sortable by the gain of an arm: its best or its worst first.

    orders are the arms that have a gain; a folded gallery costs the browser nothing.
    """

    title: str
    headings: Sequence[str]
    shots: Sequence[Shot]
    orders: Sequence[str]
    unfold: bool


Section = Table | Figure | Gallery | Text


def address(content: bytes, kind: str = "png") -> str:
    """A picture's file as the address of itself."""
    return f"data:image/{kind};base64,{base64.b64encode(content).decode()}"


def texts(lines: Iterable[str]) -> list[Text]:
    """A section for each paragraph."""
    return [Text(line) for line in lines]
