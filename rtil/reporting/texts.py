"""Texts that a page shows, which are templates: how to read a table, a caption, a choice."""

from __future__ import annotations

from jinja2 import Environment, PackageLoader, StrictUndefined

# The one place where names from files, such as an id or a label, become safe in HTML: all that
# a page.html is given is escaped. Markdown texts are not HTML, and are escaped inside the page.
TEMPLATES = Environment(
    loader=PackageLoader("rtil.reporting"),
    autoescape=lambda name: name is not None and name.endswith(".html"),
    undefined=StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
)
TEMPLATES.tests["kind"] = lambda section, name: type(section).__name__ == name


def paragraphs(name: str, **values: object) -> list[str]:
    """The paragraphs of templates/<name>.md, each in one line."""
    text = TEMPLATES.get_template(f"{name}.md").render(values)
    return [" ".join(part.split()) for part in text.split("\n\n") if part.strip()]


def paragraph(name: str, **values: object) -> str:
    """A template as one paragraph."""
    return " ".join(paragraphs(name, **values))


def source(name: str) -> str:
    """A file of templates/ as it stands."""
    text, *_ = TEMPLATES.loader.get_source(TEMPLATES, name)  # type: ignore[union-attr]
    return text
