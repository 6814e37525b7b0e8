"""What a page is made of, and how it is written: as HTML and as Markdown.

Texts, and the page itself, are files of templates/. A further kind of section is a dataclass here
and a branch in page.html and in sections.md.
"""

from __future__ import annotations

import base64
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from jinja2 import Environment, PackageLoader, StrictUndefined

NONE = "–"  # the text of a cell that has none


@dataclass(frozen=True)
class Table:
    """A table of texts; of a sparse one, columns without any are left out.

    cells are {heading: text} of each row, looks its "better", "worse", "missing" or "".
    """

    title: str
    cells: Sequence[Mapping[str, str]]
    looks: Sequence[str] = ()
    sparse: bool = False

    @cached_property
    def headings(self) -> list[str]:
        filled = {key for row in self.cells for key, text in row.items() if text != NONE}
        return [key for key in self.cells[0] if key in filled or not self.sparse]

    @property
    def lines(self) -> list[list[str]]:
        return [[row[key] for key in self.headings] for row in self.cells]

    @property
    def padded(self) -> list[list[str]]:
        """Headings, a rule and lines, the cells of a column as wide as its longest."""
        lines = [self.headings, *self.lines]
        widths = [max(map(len, column)) for column in zip(*lines)]
        lines.insert(1, ["-" * width for width in widths])
        return [[text.ljust(width) for text, width in zip(line, widths)] for line in lines]


@dataclass(frozen=True)
class Text:
    """A paragraph and the commands that it speaks of; with a fold, shown once that is opened."""

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
        """The file as its own address."""
        return address(self.path.read_bytes())


@dataclass(frozen=True)
class Picture:
    """An image, or none (no address)."""

    address: str
    caption: str = ""
    small: bool = False


@dataclass(frozen=True)
class Gallery:
    """Images side by side, sortable by the gain of an arm: its best or its worst first.

    shots are (name, pictures, values of the orders) of each test image. A folded gallery costs
    the browser nothing.
    """

    title: str
    headings: Sequence[str]
    shots: Sequence[tuple[str, Sequence[Picture], Sequence[float]]]
    orders: Sequence[str]
    unfold: bool


@dataclass(frozen=True)
class First:
    """What a page begins with: a sentence, what it rests on, pictures, and a short table."""

    words: Sequence[Text]
    gallery: Gallery | None
    summary: Table


Section = Table | Figure | Gallery | Text

# The one place where names from files, such as an id or a label, become safe in HTML: all that
# page.html is given is escaped. Markdown texts are not HTML, and are escaped inside the page.
TEMPLATES = Environment(
    loader=PackageLoader("rtil.reporting"),
    autoescape=lambda name: name is not None and name.endswith(".html"),
    undefined=StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
)
TEMPLATES.tests["kind"] = lambda section, name: type(section).__name__ == name


def address(content: bytes, kind: str = "png") -> str:
    """A picture's file as its own address."""
    return f"data:image/{kind};base64,{base64.b64encode(content).decode()}"


def texts(name: str, **values: object) -> list[Text]:
    """The paragraphs of templates/<name>.md; indented lines are commands of the one before."""
    made: list[Text] = []
    for part in TEMPLATES.get_template(f"{name}.md").render(values).split("\n\n"):
        lines = part.strip("\n").split("\n")
        if part.startswith("    ") and made:
            commands = [line.strip() for line in lines]
            made[-1] = Text(made[-1].paragraph, commands)
        elif part.strip():
            made.append(Text(" ".join(part.split())))
    return made


def paragraph(name: str, **values: object) -> str:
    """A template as one paragraph."""
    return " ".join(text.paragraph for text in texts(name, **values))


def page(
    title: str,
    lead: str,
    sections: Mapping[str, Sequence[Section]],
    first: First | None = None,
) -> str:
    """One file: its script sorts and enlarges."""
    captions = {name: paragraph(f"captions/{name}") for name in sections}
    values = {"title": title, "lead": lead, "sections": sections, "captions": captions}
    return TEMPLATES.get_template("page.html").render(values, first=first)


def markdown(sections: Iterable[Section]) -> str:
    """Tables and texts; the page has more."""
    return TEMPLATES.get_template("sections.md").render(sections=sections)
