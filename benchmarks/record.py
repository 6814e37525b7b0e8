"""Rows of the table, written to JSON as they come."""

from __future__ import annotations

import json
import os
from dataclasses import asdict, dataclass, field
from pathlib import Path

from benchmarks.timing import Ratio


@dataclass
class Row:
    """One line of the table.

    group: part of the benchmark it belongs to.
    row: what is measured. against: what it is compared with.
    ratio: with its spread; None where the row failed.
    reach: "<= 1.15", ">= 2.5", or None for a figure that is only reported.
    unit: of the ratio's value where it is no plain ratio, e.g. "s".
    details: times, operations, bytes and settings behind it.
    error: why there is no ratio.
    """

    group: str
    row: str
    against: str
    ratio: Ratio | None
    reach: str | None = None
    unit: str = "x"
    details: dict = field(default_factory=dict)
    error: str | None = None

    @property
    def met(self) -> bool | None:
        """Whether the ratio reaches what was asked; None where nothing was, or nothing is known.

        Raises:
            ValueError: a reach that is not "<= number" or ">= number".
        """
        if self.reach is None:
            return None
        sign, number = self.reach.split()
        if sign not in ("<=", ">="):
            raise ValueError(f"Row: reach={self.reach!r} must begin with <= or >=.")
        if self.ratio is None:
            return None
        value = self.ratio.median
        return value <= float(number) if sign == "<=" else value >= float(number)

    def line(self) -> list[str]:
        """Cells of the table."""
        if self.error:
            value = f"failed: {self.error.splitlines()[0][:60]}"
        else:
            value = f"{self.ratio.median:.3g} {self.unit} ({self.ratio.low:.3g}-"
            value += f"{self.ratio.high:.3g}, n = {self.ratio.pairs})"
        met = {None: "", True: "yes", False: "no"}[self.met]
        return [self.row, self.against, value, self.reach or "", met]


class Record:
    """All rows so far, and the machine they were measured on.

    Args:
        path: JSON file, replaced after every row.
        environment: device, threads, versions, commit.
    """

    def __init__(self, path: Path, environment: dict) -> None:
        self.path, self.environment, self.rows = path, environment, []
        self.write()

    def add(self, row: Row) -> None:
        """Keeps a row and writes the file."""
        self.rows.append(row)
        self.write()

    def write(self) -> None:
        rows = []
        for row in self.rows:
            ratio = row.ratio._asdict() if row.ratio else None
            rows.append({**asdict(row), "ratio": ratio, "met": row.met})
        text = json.dumps({**self.environment, "rows": rows}, indent=1)
        temporary = self.path.with_name(f".{self.path.name}.tmp-{os.getpid()}")
        temporary.write_text(text + "\n")
        os.replace(temporary, self.path)

    def table(self) -> str:
        """Text table: row, against, ratio, reach, met."""
        head = ["row", "against", "median (low-high)", "reach", "met"]
        lines = [head, *(row.line() for row in self.rows)]
        widths = [max(len(line[i]) for line in lines) for i in range(len(head))]
        cells = [" | ".join(c.ljust(w) for c, w in zip(line, widths)) for line in lines]
        cells.insert(1, "-|-".join("-" * w for w in widths))
        return "\n".join(cell.rstrip() for cell in cells)
