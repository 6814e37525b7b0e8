"""The page in one file: no network, and sorting is the only script in it (templates/page.html)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from rtil.reporting.pictures import address
from rtil.reporting.sections import Figure, Section
from rtil.reporting.texts import TEMPLATES, paragraphs, source


def page(title: str, lead: str, sections: Mapping[str, Sequence[Section]]) -> str:
    """The whole page: what is there, its contents, and each heading with its sections."""
    return TEMPLATES.get_template("page.html").render(
        title=title,
        lead=lead,
        sections={name: [view(one) for one in found] for name, found in sections.items()},
        captions={name: " ".join(paragraphs(f"captions/{name}")) for name in sections},
        css=source("page.css"),
        js=source("page.js"),
    )


def view(section: Section) -> dict[str, object]:
    """A section with its kind, and a figure with its file."""
    known: dict[str, object] = {"kind": type(section).__name__, "section": section}
    if isinstance(section, Figure):
        known["address"] = address(section.path.read_bytes())
    return known
