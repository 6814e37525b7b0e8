"""The page in one file: no network, and sorting is the only script in it (templates/page.html)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from rtil.reporting.sections import Section
from rtil.reporting.texts import TEMPLATES, paragraph, source


def page(title: str, lead: str, sections: Mapping[str, Sequence[Section]]) -> str:
    """The whole page: what is there, its contents, and each heading with its sections."""
    return TEMPLATES.get_template("page.html").render(
        title=title,
        lead=lead,
        sections=sections,
        captions={name: paragraph(f"captions/{name}") for name in sections},
        css=source("page.css"),
        js=source("page.js"),
    )
