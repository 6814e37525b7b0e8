"""What a page is made of, and how it is written: as HTML and as Markdown.

Texts, and the page itself, are files of templates/. A further kind of section is a dataclass here
and a branch in `markdown` and in page.html.
"""

from __future__ import annotations

import base64
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from jinja2 import Environment, PackageLoader, StrictUndefined

NONE = "–"  # the text of a cell that has none


@dataclass(frozen=True)
class Table:
    """A table of texts. looks are "better", "worse", "missing" or "" of each row."""

    title: str
    headings: Sequence[str]
    lines: Sequence[Sequence[str]]
    looks: Sequence[str] = ()

    @classmethod
    def of(cls, title: str, lines: Sequence[Mapping[str, str]]) -> Table:
        """From {heading: text} of lines."""
        return cls(title, [*lines[0]], [[*line.values()] for line in lines])

    @classmethod
    def shown(
        cls, title: str, lines: Sequence[Mapping[str, str]], looks: Sequence[str] = ()
    ) -> Table:
        """Without columns of no text."""
        shown = [key for key in lines[0] if any(line[key] != NONE for line in lines)]
        return cls(title, shown, [[line[key] for key in shown] for line in lines], looks)


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


def page(title: str, lead: str, sections: Mapping[str, Sequence[Section]]) -> str:
    """One file: its script only sorts."""
    captions = {name: paragraph(f"captions/{name}") for name in sections}
    values = {"title": title, "lead": lead, "sections": sections, "captions": captions}
    return TEMPLATES.get_template("page.html").render(values)


def markdown(sections: Iterable[Section]) -> str:
    """Tables and texts; the page has more."""
    text = ""
    for section in sections:
        if isinstance(section, Table):
            text += table_text(section)
        elif isinstance(section, Text):
            text += f"\n{section.paragraph}\n"
            if section.commands:
                lines = "\n".join(section.commands)
                text += f"\n```\n{lines}\n```\n"
    return text


def table_text(table: Table) -> str:
    """A table under its heading, padded."""
    widths = [max(map(len, column)) for column in zip(table.headings, *table.lines)]
    rule = ["-" * width for width in widths]
    text = f"\n## {table.title}\n\n"
    for line in (table.headings, rule, *table.lines):
        cells = (cell.ljust(width) for cell, width in zip(line, widths))
        text += f"| {' | '.join(cells)} |\n"
    return text
