"""Rows of a run in JSON-lines files, which survive a crash at any byte."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from pathlib import Path

from rtil.process.files import write_text, writing
from rtil.runs import schema
from rtil.runs.kinds import Kind, Record

ANY = Record({})
ADVICE = "It is damaged: delete that line, and run the same command again."


def append(path: Path, rows: Iterable[Mapping]) -> None:
    """Appends rows to a JSON-lines file and forces them to disk."""
    with writing(path), open(path, "a", encoding="utf-8") as file:
        file.writelines(json.dumps(row) + "\n" for row in rows)
        file.flush()
        os.fsync(file.fileno())


def read(path: Path, kind: Kind = ANY) -> list[dict]:
    """Rows of a JSON-lines file; a last line that was cut off while writing is left out.

    Args:
        kind: of every row.

    Raises:
        ValueError: a line before the last is not JSON, or one is no row of this kind.
    """
    if not path.exists():
        return []
    rows, text = [], schema.read_text(path)
    lines = text.splitlines()
    if lines and not text.endswith("\n") and not _is_json(lines[-1]):
        lines.pop()
    for number, line in enumerate(lines, start=1):
        rows.append(schema.parsed(line, kind, f"{path}, line {number}", ADVICE))
    return rows


def _is_json(line: str) -> bool:
    """Whether a last line without its end is complete all the same."""
    with suppress(ValueError, RecursionError):
        json.loads(line)
        return True
    return False


def mend(
    path: Path, keep: Callable[[dict], bool] = lambda row: True, kind: Kind = ANY
) -> list[dict]:
    """Rewrites a JSON-lines file with the complete rows that `keep` accepts; returns them.

    Raises as `read` does.
    """
    rows = [row for row in read(path, kind) if keep(row)]
    if path.exists():
        write_text(path, "".join(json.dumps(row) + "\n" for row in rows))
    return rows


def result_rows(run_dir: Path, kind: Kind = schema.NAMED) -> list[dict]:
    """Rows of every process that wrote to an inversion's directory, one per image id.

    Raises:
        ValueError: a row is of another kind; names the file and the line.
    """
    rows: dict[object, dict] = {}
    for path in sorted(run_dir.glob("results*.jsonl")):
        rows.update({row["id"]: row for row in read(path, kind)})
    return list(rows.values())
