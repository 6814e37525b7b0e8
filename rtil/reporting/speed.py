"""Ratios of time and memory, as `python -m benchmarks` measured them, and on what.

Its rows are files of results/ that the benchmarks wrote with --out. How they are measured is
`benchmarks`, which is no part of the package.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rtil.runs.schema import MEASURED, read_json

ADVICE = "Copy it anew from where python -m benchmarks --out wrote it."
MET = {True: "yes", False: "**no**", None: ""}


def read(path: Path) -> Mapping[str, Any]:
    """What the benchmarks wrote.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is none of the benchmarks', or a rehearsal, whose figures mean nothing.
    """
    content = read_json(path, MEASURED, ADVICE)
    if content["quick"]:
        raise ValueError(f"{path} is a rehearsal (--quick): its figures mean nothing")
    return content


def lines(content: Mapping[str, Any], groups: Sequence[str]) -> list[dict[str, str]]:
    """{heading: text} of each row of some groups, or of all where none is named.

    A row that failed has none: it has measured nothing.

    Raises:
        ValueError: a group has no row.
    """
    rows = [row for row in content["rows"] if row["ratio"] is not None]
    there = dict.fromkeys(row["group"] for row in rows)
    if unknown := [group for group in groups if group not in there]:
        raise ValueError(f"no row is of {', '.join(unknown)}; there are {', '.join(there)}")
    return [
        {
            "row": row["row"],
            "against": row["against"],
            "measured": measured(row["ratio"], row["unit"]),
            "reach": row["reach"] or "",
            "met": MET[row["met"]],
        }
        for row in rows
        if not groups or row["group"] in groups
    ]


def measured(ratio: Mapping[str, Any], unit: str) -> str:
    """As "3.62 x (3.52 to 3.72, n = 3)": the median, and the extremes of n rounds."""
    spread = f"{ratio['low']:.3g} to {ratio['high']:.3g}, n = {ratio['pairs']}"
    return f"{ratio['median']:.3g} {unit} ({spread})"


def machine(content: Mapping[str, Any]) -> str:
    """What it was measured on."""
    return (
        f"{content['device']}, {content['threads']} threads, torch "
        f"{content['torch'].partition('+')[0]}, commit {content['commit']}"
    )
