"""What a page begins with: a comparison in a sentence, its pictures, a table of four columns.

Of several comparisons it is the one over the most trainings, then the most images, then the first
in the tables: what came out does not choose it. No oracle's row is one. The words are
templates/headline.md.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from rtil.reporting import pictures
from rtil.reporting.arrange import Row
from rtil.reporting.claims import AHEAD, BEHIND, VERDICTS, Comparison, comparisons, verdict_of
from rtil.reporting.sections import NONE, First, Gallery, Table, Text, texts
from rtil.reporting.statistics import written
from rtil.reporting.study import Study

SHOTS = 3  # images on the first screen
LOOKS = {AHEAD: "better", BEHIND: "worse"}  # of a line


def first_of(study: Study) -> First | None:
    """What the page of a study begins with; None where no row is a result."""
    results = [row for row in study.rows if row.n and not row.oracle]
    if not results:
        return None
    compared = comparisons("", results)
    row = max(compared, key=size).row if compared else max(results, key=lambda row: row.n)
    shown = [one for one in results if line_of(one) == line_of(row)]
    gallery = None if study.source.packed else shots_of(row)
    return First(words_of(row, compared, gallery), gallery, summary_of(shown))


def size(comparison: Comparison) -> tuple[int, int]:
    """Of trainings, and images."""
    return comparison.trainings, comparison.row.n


def line_of(row: Row) -> tuple:
    """What rows of the summary share: all but how they were measured."""
    at = row.measurement
    return row.label, at.inverter, at.data, at.scale, at.model


def words_of(row: Row, compared: Sequence[Comparison], gallery: Gallery | None) -> list[Text]:
    """How a row came out in one sentence, then what that rests on."""
    counts = Counter(one.verdict for one in compared)
    linear = row.estimates["lmmse_gain_psnr_db"]
    return texts(
        "headline",
        row=row,
        at=row.measurement,
        own=next((one for one in compared if one.row is row), None),
        linear=linear,
        linearly=verdict_of(linear) if linear else "",
        gallery=gallery,
        tally=[(counts[word], word) for word in VERDICTS if counts[word]],
    )


def shots_of(row: Row) -> Gallery | None:
    """The first images beside what was made of them; None where inversions wrote no pictures."""
    rows = [one for one in (row.baseline, row) if one]
    names = pictures.image_ids(rows)[:SHOTS]
    shots = pictures.gallery("", pictures.parts_of(rows), names, True, errors=False)
    return shots if len(shots.headings) > 1 else None


def look(row: Row) -> str:
    """Of its line: on which side the sentence would have it."""
    return LOOKS.get(Comparison("", row).verdict, "") if row.gain else ""


def summary_of(rows: Sequence[Row]) -> Table:
    """PSNR of an arm, its baseline and the linear estimate, a line for each measurement."""
    base = next((row.baseline.label for row in rows if row.baseline), "")
    title = "PSNR in dB ± 95 % interval of the mean"
    title += f", in brackets less that of {base}" if base else ""
    cells = []
    for row in rows:
        own = written(row.psnr)
        if row.gain:
            own += f" ({row.gain.mean:+.2f})"
        cells.append(
            {
                "measurement": f"{row.measurement.task}, {row.measurement.text}",
                base: written(row.baseline.psnr) if row.baseline else NONE,
                row.label: own,
                "linear estimate": written(row.estimates["lmmse_psnr_db"]),
            }
        )
    return Table(title, cells, [*map(look, rows)], sparse=True)
