"""Tables and texts as Markdown; figures and galleries are left to the page."""

from __future__ import annotations

from collections.abc import Iterable

from rtil.reporting.sections import Section, Table, Text


def markdown(sections: Iterable[Section]) -> str:
    """Sections one below the other."""
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
    """A table under its heading, its columns padded."""
    widths = [max(map(len, column)) for column in zip(table.headings, *table.lines)]
    rule = ["-" * width for width in widths]
    text = f"\n## {table.title}\n\n"
    for line in (table.headings, rule, *table.lines):
        cells = (cell.ljust(width) for cell, width in zip(line, widths))
        text += f"| {' | '.join(cells)} |\n"
    return text
