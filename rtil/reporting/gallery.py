"""The page of experiments: what stands at the marker `gallery` of a document.

It has a section for each plan of configs/experiment that packed rows belong to, with the figures
that documents draw of its rows, and a list of the others. Nothing of it is written by
hand: a new plan, file of rows or figure needs no edit but `python -m rtil.report docs=.`.
"""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import yaml

from rtil.reporting.extracts import table
from rtil.runs import archive, reference

WIDTH = 119  # characters of a line
NO_ROWS = "These are plans alone. They run as the others do."


@dataclass(frozen=True)
class Shown:
    """What a document shows of packed rows.

    Args:
        title: its own. address: of the document, from the gallery's.
        files: names of those rows' files, without ".jsonl".
        figure: its address from the gallery; "" without one.
    """

    title: str
    address: str
    files: Sequence[str]
    figure: str = ""


@cache
def experiments_of(file: Path) -> Mapping[str, int]:
    """{experiment: runs} of packed rows; of older ones their commands say it."""
    counts: dict[str, int] = {}
    for _, line in archive.lines_of(file):
        names = {entry["name"] for entry in line.get("experiments") or ()}
        for entry in line["provenance"]:
            words = [word for word in entry["command"] if word.startswith("experiment=")]
            names |= {word.partition("=")[2] for word in words}
        for name in names - {"null"}:
            counts[name] = counts.get(name, 0) + 1
    return counts


def pages(files: Iterable[Path], shown: Sequence[Shown]) -> str:
    """Sections of the experiments that have rows, then a table of those without."""
    runs: dict[str, dict[str, int]] = {}
    for file in files:
        for name, count in experiments_of(file).items():
            runs.setdefault(name, {})[file.stem] = count
    sections, rest = [], []
    for name in reference.choices("experiment"):
        if name in runs:
            figures = [one for one in shown if one.figure and subject(one, runs) == name]
            sections.append(section(name, runs[name], figures, shown))
        else:
            rest.append({"experiment": f"`{name}`", "what": plan(name)["title"]})
    return "\n\n".join([*sections, "## No rows", NO_ROWS, table(rest)])


def plan(name: str) -> Mapping:
    """What a yaml says of its experiment."""
    text = (reference.ROOT / "experiment" / f"{name}.yaml").read_text(encoding="utf-8")
    return yaml.safe_load(text)["experiment"]


def subject(one: Shown, runs: Mapping[str, Mapping[str, int]]) -> str:
    """The experiment with most runs in the files of a figure: rows may belong to several."""
    return max(runs, key=lambda name: sum(runs[name].get(file, 0) for file in one.files))


def section(
    name: str, runs: Mapping[str, int], figures: Sequence[Shown], shown: Sequence[Shown]
) -> str:
    """One experiment: pictures, question, command, rows and the pages that read them."""
    said = plan(name)
    text = (reference.ROOT / "experiment" / f"{name}.yaml").read_text(encoding="utf-8")
    readers = [one for one in shown if runs.keys() & {*one.files}]
    links = dict.fromkeys(f"[{one.title}]({one.address})" for one in readers)
    rows = f"Rows: {sum(runs.values())} runs in {', '.join(sorted(runs))}."
    parts = [
        f"## {said['title']}",
        *(f"![{one.title}]({one.figure})" for one in figures),
        filled(reference.header(text)),
        filled(said.get("note", "")),
        f"`python -m rtil.invert experiment={name}`, trained and reported likewise.",
        filled(rows + (f" Read in {', '.join(links)}." if links else "")),
    ]
    return "\n\n".join(filter(None, parts))


def filled(text: str) -> str:
    """In lines of a document; links stay whole."""
    return textwrap.fill(text, WIDTH, break_long_words=False, break_on_hyphens=False)
