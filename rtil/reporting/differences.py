"""What each choice of the published code changes alone: the table of experiment=differences.

Every number is a paired difference to the same images inverted with nothing switched. The runs,
and what each switches, come from `rtil.reporting.planned`, the intervals from
`rtil.reporting.table`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from rtil.experiments.plan import jobs, switch_of
from rtil.reporting.cells import Cell
from rtil.reporting.table import averaged, by_seed, estimate, written

METRICS = {"psnr_db": "PSNR", "gradient_energy": "Sharpness"}  # metric to title of its tables
READING = (
    "Mean difference of the PSNR (in dB) or sharpness of the reported iterate to that of the same "
    "images with nothing switched, ± half-width of its 95 % confidence interval (Student t) over "
    "n images. Sharpness is the image's gradient energy over that of the true image. "
    "Rows that say selection=oracle compare the iterate closest to the true image, which no user "
    "has, with a default that does not know it. – : not run, or not a choice of that column."
)


def tables(cells: Iterable[Cell], plan: Mapping) -> dict[str, list[dict[str, str]]]:
    """Rows of {heading: text}, a row for each switch, under a title for each inverter.

    Args:
        cells: of `rtil.reporting.planned.by_switch`. plan: the experiment, resolved.
    """
    found: dict[tuple[str, str], dict[str, dict[str, str]]] = {}
    for cell in cells:
        case = cell.case
        bases = {e.arm: e for e in cell.entries if not e.settings}
        for entry in cell.entries:
            base = bases.get(entry.arm)
            if base is None or not entry.settings:
                continue
            column = f"{case.task}, {case.measurement}, {entry.arm}"
            for metric, title in METRICS.items():
                values = estimate(averaged(by_seed(entry, base, metric).values()))
                if not values and metric != "psnr_db":
                    continue
                heading = f"{title}, each switched alone, {', '.join(case.series[1:])}"
                rows = found.setdefault((case.inverter, heading), {})
                rows.setdefault(named(entry.settings), {})[column] = written(
                    values, 2, "+", f"n={values['n']}" if values else ""
                )
    order: dict[str, list[str]] = {}
    for job in jobs(plan, "invert"):
        order.setdefault(job["inverter"], []).append(named(switch_of(plan, job)))
    return {
        title: [
            {"switched": row, **{column: rows[row].get(column, "–") for column in columns}}
            for row in sorted(rows, key=lambda row: place(row, names))
        ]
        for (inverter, title), rows in found.items()
        for names in [order[inverter]]
        for columns in [dict.fromkeys(column for row in rows.values() for column in row)]
    }


def named(settings: Mapping[str, str]) -> str:
    """A switch as it is typed."""
    return " ".join(f"{key}={text}" for key, text in settings.items())


def place(row: str, names: Sequence[str]) -> int:
    """Place of a row among the plan's; a protocol that selects by an oracle names it besides."""
    bare = row.removesuffix(" selection=oracle")
    return names.index(row if row in names else bare)
