"""How much an arm depends on its settings: the tables of the searches behind protocol=fair.

A search tries the same settings for every arm (`rtil.tuning.space`), so the scores of its drawn
trials, the settings of somebody who knows nothing, can be paired by trial. All are means over
validation images; which trial won is in the tables of `rtil.reporting.table`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict
from statistics import median, stdev

from rtil.metrics.intervals import mean_ci
from rtil.reporting.cells import Case, Cell
from rtil.reporting.table import reference, written
from rtil.runs.run import Run
from rtil.runs.search import search_of

READING = (
    "Searches: what the settings tried for protocol=fair reach, each the mean PSNR of the same n "
    "validation images. Spread is the standard deviation over the drawn settings, with the lowest "
    "and the highest; anchors (settings of the paper) are left out of it. Δ at a drawn setting is "
    "the difference to the baseline at the same setting, its interval over settings: it says what "
    "an arm gains for whoever takes settings at random from this space, with one training of each "
    "arm. The best is the highest mean, chosen on these very images and therefore no result."
)


def of_run(run: Run) -> dict | None:
    """The search that a run's settings come from, as it is packed."""
    search = search_of(run)
    return asdict(search) if search else None


def tables(cells: Iterable[Cell], baseline: str) -> dict[str, list[dict[str, str]]]:
    """Rows of {heading: text}, one for each search, under a title for each series of cells.

    Args:
        cells: of a report; a search that several runs share counts once. baseline: arm that
        differences are paired against, as `rtil.reporting.table.reference` pairs it.
    """
    found: dict[str, dict[tuple, dict[tuple, tuple]]] = {}
    for cell in cells:
        for entry in cell.entries:
            base = reference(cell, entry, baseline)
            theirs = {run.seed: of_run(run) for run in base.runs} if base else {}
            for run in entry.runs:
                search = of_run(run)
                if search is None or len(drawn(search)) < 2:
                    continue
                place, other = place_of(cell.case, search, run), theirs.get(run.seed)
                if other is not None and place_of(cell.case, other, run) != place:
                    other = None
                settings = [
                    f"{key}={text}"
                    for key, text in entry.settings.items()
                    if not key.startswith("protocol")
                ]
                told = ", ".join([entry.arm, *settings])
                rows = found.setdefault(cell.case.heading, {}).setdefault(place, {})
                label = told, str(search["generator_sha256"])
                if rows.get(label, (None, None))[1] is None:  # a cell may lack the baseline
                    rows[label] = search, other
    return {
        f"Searches, {heading}": [
            line(place[1], place[2], named(label, rows), *rows[label])
            for place, rows in sorted(places.items(), key=lambda x: x[0][0])
            for label in rows
        ]
        for heading, places in found.items()
    }


def place_of(case: Case, search: Mapping, run: Run) -> tuple:
    """What searches to be compared share: value of the knob, measurement, seed, space, images."""
    case = case._replace(
        knob=search["knob"],
        value=float(search["value"] or 0.0),
        noise_std=float(search["noise_std"] or 0.0),
    )
    return case.value, case.measurement, run.of_study(search["seed"]), search["space"], search["n"]


def named(label: tuple[str, str], rows: Mapping[tuple[str, str], object]) -> str:
    """An arm, with the digest of its generator where another one has the same name."""
    several = sum(name == label[0] for name, _ in rows) > 1
    return f"{label[0]} {label[1][:8]}" if several else label[0]


def drawn(search: Mapping) -> dict[int, float]:
    """{trial: mean PSNR in dB} of the drawn settings that had a finite loss."""
    return {
        number: mean
        for number, mean in enumerate(search["means"])
        if number >= search["drawn"] and mean is not None
    }


def line(
    measurement: str, seed: object, arm: str, search: Mapping, base: Mapping | None
) -> dict[str, str]:
    """A row of the table."""
    mine, theirs = drawn(search), drawn(base) if base else {}
    both = [number for number in mine if number in theirs]
    delta = ahead = "–"
    if len(both) > 1:
        gains = [mine[number] - theirs[number] for number in both]
        mean, half = mean_ci(gains)
        delta = written({"mean": mean, "ci95": half}, 2, "+", f"{len(both)} settings")
        ahead = (
            f"{sum(gain > 0 for gain in gains)} of {len(both)}, median {median(gains):+.2f}, "
            f"{min(gains):+.2f} to {max(gains):+.2f}"
        )
    scored = [mean for mean in search["means"] if mean is not None]
    return {
        "tuned at": measurement,
        "seed": str(seed),
        "arm": arm,
        "n": str(search["n"]),
        "drawn settings": str(len(mine)),
        "spread [dB]": f"{stdev(mine.values()):.2f}, {min(mine.values()):.2f} to "
        f"{max(mine.values()):.2f}",
        "best [dB]": f"{max(scored):.2f}",
        "Δ at a drawn setting [dB]": delta,
        "ahead at": ahead,
    }
