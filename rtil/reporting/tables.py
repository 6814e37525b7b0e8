"""The table of a series' rows, and the remarks that it has to be read with.

A further column is a line in `overview`.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from itertools import chain

from rtil.reporting import protocols
from rtil.reporting.arrange import Row, listed
from rtil.reporting.sections import Table, Text
from rtil.reporting.statistics import NONE, Gain, written
from rtil.runs.search import budget


def overview(title: str, rows: Sequence[Row], baseline: str) -> Table:
    """A line for each row; columns that none has are left out."""

    def text(row: Row, gain: Gain | None, digits: int = 2, sign: str = "") -> str:
        # The count is said where it is not that of the row.
        return written(gain, digits, sign, "n=" if gain and gain.n != row.n else "")

    columns: dict[str, list[str]] = defaultdict(list)
    for row in rows:
        known = row.estimates.get
        cells = {
            "measurement": row.measurement.text,
            "arm": row.arm.label,
            "seeds": ", ".join(str(run.seed) for run in row.arm.runs) or NONE,
            "n": count(row),
            "PSNR [dB]": "missing" if row.missing else text(row, row.psnr),
            f"Δ PSNR to {baseline} [dB]": text(row, row.gain, 2, "+"),
            "Δ PSNR over seeds [dB]": written(known("gain_psnr_db_seeds"), 2, "+", " seeds"),
            "SSIM": text(row, known("ssim"), 3),
            f"Δ SSIM to {baseline}": text(row, known("gain_ssim"), 3, "+"),
            "LPIPS": text(row, known("lpips"), 3),
            "sharpness": text(row, known("gradient_energy")),
            "LMMSE PSNR [dB]": text(row, known("lmmse_psnr_db")),
            "LMMSE SSIM": text(row, known("lmmse_ssim"), 3),
            "LMMSE sharpness": text(row, known("lmmse_gradient_energy")),
            "last PSNR [dB]": text(row, known("last_psnr_db")),
            "oracle PSNR [dB]": text(row, known("oracle_psnr_db")),
            "PSNR over sets [dB]": text(row, known("sets")),
        }
        for heading, cell in cells.items():
            columns[heading].append(cell)
    # Metrics that no run has, such as LPIPS, take no column.
    shown = {heading: cells for heading, cells in columns.items() if {*cells} != {NONE}}
    looks = [look(row) for row in rows]
    return Table(title, [*shown], [*zip(*shown.values())], looks)


def count(row: Row) -> str:
    """Images of a row, for example "4 to 36 of 36": of its seeds, of those planned."""
    if row.missing:
        return NONE
    planned = row.planned.images if row.planned else 0
    text = f"{row.fewest} to {row.n}" if row.fewest < row.n else str(row.n)
    return f"{text} of {planned}" if row.fewest < planned else text


def look(row: Row) -> str:
    """On which side of 0 the interval of the gain lies."""
    gain = row.gain
    if gain and gain.excludes_zero:
        return "better" if gain.mean > 0 else "worse"
    return "missing" if row.missing else ""


def remarks(rows: Sequence[Row]) -> list[Text]:
    """What the table of these rows lacks or must be read with."""
    # What an experiment planned and nobody ran is told in one remark, not row by row.
    own = [row for row in rows if not (row.missing and row.planned)]
    return [
        *chain.from_iterable(map(lacking, own)),
        *unfilled(rows),
        *(Text(line) for line in choices(rows)),
        *differing(rows),
    ]


def lacking(row: Row) -> list[Text]:
    """An arm or a linear estimate that is missing, and what a difference leaves out."""
    where, lines = f"{row.arm.label} at {row.measurement.text}", []
    if row.commands and row.missing:
        lines.append(Text(f"Missing: {where}. These commands fill it:", row.commands))
    elif row.commands:
        paths = ", ".join(str(run.path) for run in row.arm.runs)
        # Rows that are there are not computed again.
        line = f"LMMSE of {where} is missing. Delete {paths}, then run:"
        lines.append(Text(line, row.commands))
    if row.unpaired:
        line = (
            f"Δ of {where} leaves out {row.unpaired}: it pairs runs of one seed, image by image."
        )
        lines.append(Text(line))
    return lines


def unfilled(rows: Sequence[Row]) -> list[Text]:
    """Gaps of an experiment, all of a kind in one remark."""
    names: dict[str, list[str]] = defaultdict(list)
    commands: dict[str, list[str]] = defaultdict(list)
    for row in rows:
        if row.planned is None:
            continue
        kind = "Missing" if row.missing else "Fewer images than planned"
        lines = row.commands if row.missing else row.planned.commands
        if lines:  # else as many images as planned
            at = row.measurement
            names[kind].append(f"{row.arm.label} at {at.task}, {at.text}")
            commands[kind] += lines
    return [
        Text(
            f"{kind}, {len(where)} of {len(rows)} planned: {'; '.join(where)}. "
            "These commands fill them:",
            [*dict.fromkeys(commands[kind])],
        )
        for kind, where in names.items()
    ]


def differing(rows: Sequence[Row]) -> list[Text]:
    """Settings that arms have otherwise than the baseline, the same ones in one remark."""
    arms: dict[str, dict[str, list[str]]] = {}
    for row in rows:
        if row.differs:
            text = "; ".join(row.differs).replace(" there,", " in the baseline,")
            places = arms.setdefault(text, {}).setdefault(row.arm.name, [])
            places.append(row.measurement.text)
    return [
        Text(
            f"Settings of {' and '.join(places)} differ from the baseline's at "
            f"{'; '.join(dict.fromkeys(chain(*places.values())))}: {text}."
        )
        for text, places in arms.items()
    ]


def choices(rows: Iterable[Row]) -> list[str]:
    """Which choices were made on what, where a row is of another protocol than the paper's."""
    rows = [row for row in rows if not row.missing]
    # The paper's settings need no word while nothing else stands beside them.
    if all(row.arm.protocol == "paper" for row in rows):
        return []
    lines = []
    for row in rows:
        for run in row.arm.runs:
            # A choice of a tuning is that of one training, others are the same for all.
            text = protocols.choice(run.config)
            if protocols.is_tuned(run.config):
                text = f"{row.arm.name} at {row.measurement.text}, seed {run.seed}, {text}"
            lines.append(text)
    cases: dict[tuple[str, str], list[Row]] = defaultdict(list)
    for row in rows:
        cases[row.measurement.task, row.measurement.text].append(row)
    # Fair is what had the same budget at the same place, for all arms at a measurement.
    for case, mine in cases.items():
        lines += unfair(", ".join(case), mine)
    return [*dict.fromkeys(lines)]


def unfair(case: str, rows: Sequence[Row]) -> list[str]:
    """Where arms at one measurement were tuned with different budgets, or at different places."""
    lines, spent = [], set()
    places: dict[str, set[str]] = defaultdict(set)
    for row in rows:
        for run in row.arm.runs:
            spent.add(budget(run.config))
            places[row.arm.name].add(protocols.tuned_at(run.config))
    budgets = [one for one in spent if one is not None]
    if len(budgets) > 1:
        lines.append(
            f"Not fair at {case}: arms were tuned with different (trials, "
            "validation images, space, and of a first round images, trials kept): "
            f"{', '.join(str(one) for one in sorted(budgets))}."
        )
    tuned = {arm: listed(texts - {""}) for arm, texts in places.items() if texts - {""}}
    if len({*tuned.values()}) > 1:
        lines.append(
            f"Not fair at {case}: arms were tuned at different measurements: "
            + "; ".join(f"{arm} at {text}" for arm, text in tuned.items())
            + "."
        )
    return lines
