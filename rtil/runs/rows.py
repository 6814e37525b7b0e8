"""Rows of a run in JSON-lines files, which survive a crash at any byte."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

from rtil.process.files import write_text


def append(path: Path, rows: Iterable[Mapping]) -> None:
    """Appends rows to a JSON-lines file and forces them to disk."""
    with open(path, "a", encoding="utf-8") as file:
        file.writelines(json.dumps(row) + "\n" for row in rows)
        file.flush()
        os.fsync(file.fileno())


def read(path: Path) -> list[dict]:
    """Rows of a JSON-lines file; a last line that was cut off while writing is left out.

    Raises:
        ValueError: a line before the last is not JSON.
    """
    if not path.exists():
        return []
    rows, lines = [], path.read_text(encoding="utf-8").splitlines()
    for number, line in enumerate(lines, start=1):
        try:
            rows.append(json.loads(line))
        except json.JSONDecodeError as error:
            if number < len(lines):
                raise ValueError(f"{path}, line {number}: not JSON ({error}).") from error
    return rows


def mend(path: Path, keep: Callable[[dict], bool] = lambda row: True) -> list[dict]:
    """Rewrites a JSON-lines file with the complete rows that `keep` accepts; returns them."""
    rows = [row for row in read(path) if keep(row)]
    if path.exists():
        write_text(path, "".join(json.dumps(row) + "\n" for row in rows))
    return rows


def result_rows(run_dir: Path) -> list[dict]:
    """Rows of every process that wrote to an inversion's directory, one per image id."""
    rows: dict[object, dict] = {}
    for path in sorted(run_dir.glob("results*.jsonl")):
        rows.update({row["id"]: row for row in read(path)})
    return list(rows.values())
