"""The page of every setting: what stands at the marker `settings` of a document.

It has a section for each command and each group, made of `rtil.runs.reference`. Nothing of it is
written by hand, so that a new key or choice needs no edit but `python -m rtil.report docs=.`.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from rtil.process.command import PACKAGE
from rtil.reporting.extracts import table
from rtil.reporting.sections import NONE
from rtil.runs import keys, reference
from rtil.runs.kinds import ANYTHING
from rtil.runs.reference import SHARED, Setting


def pages() -> str:
    """Sections of all commands, and after them of all groups."""
    commands = reference.commands()
    groups = dict.fromkeys(group for command in commands for group in reference.groups(command))
    shared = ["## Every command", settings(reference.of_file(SHARED))]
    sections = [*shared, *map(of_command, commands), *map(of_group, groups)]
    return "\n\n".join(sections)


def of_command(command: str) -> str:
    """A command's own settings, and the groups that it reads."""
    said = reference.docstring_line(PACKAGE / f"{command}.py")
    chosen = [f"`{group}={name}`" for group, name in reference.offered(command).items()]
    before = [file for file in reference.lineage(command) if file not in (command, SHARED)]
    added = [f"It has the settings of {', '.join(before)} too." if before else ""]
    groups = [f"Groups and their defaults: {', '.join(chosen)}." if chosen else ""]
    parts = [f"## rtil.{command}", said, *added, *groups, settings(reference.of_file(command))]
    return "\n\n".join(filter(None, parts))


def of_group(group: str) -> str:
    """A group's choices, a line each, and the settings of all of them."""
    lines = [
        f"- `{group}={choice}`: {plain(reference.line_of(group, choice))}"
        for choice in reference.choices(group)
    ]
    readers = [name for name in reference.commands() if group in reference.offered(name)]
    parts = [f"## {group}=", f"Read by {', '.join(readers)}.", "\n".join(lines)]
    if keys.kind(group) is not ANYTHING:  # a plan, which has no settings of its own
        parts.append(settings(reference.of_group(group)))
    return "\n\n".join(parts)


def settings(listed: Sequence[Setting]) -> str:
    """A table with a line for each setting."""
    lines = [
        {
            "key": f"`{one.key}`",
            "takes": plain(one.takes),
            "default": f"`{one.default}`",
            "what it is": plain(one.note) or NONE,
            "file": f"`{one.source}`",
        }
        for one in listed
    ]
    return table(lines)


def plain(text: str) -> str:
    """A text in which Markdown marks nothing."""
    return re.sub(r"([<*])", r"\\\1", text)
