"""Comparisons side by side: of protocols, of switches, and of settings drawn at random.

Each grouping yields texts with their row and column, of which `tables_of` makes tables. A further
comparison is a generator of such texts here, and a line in `rtil.reporting.page`.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from statistics import median, stdev

from rtil.experiments.plan import switch_of
from rtil.reporting.arrange import Row, reference
from rtil.reporting.collect import Arm, Cell, Measurement
from rtil.reporting.gaps import Plan
from rtil.reporting.sections import Table
from rtil.reporting.statistics import (
    NONE,
    Scores,
    differences,
    estimate,
    over_images,
    written,
)
from rtil.runs.run import Run
from rtil.runs.search import Search, search_of

# Known protocols stand in this order, others after them.
PROTOCOLS = ("paper", "authors", "fair")
# What a switch changes; sharpness is shown where runs have it.
SWITCHED = {"psnr_db": "PSNR", "gradient_energy": "Sharpness"}


@dataclass(frozen=True)
class Compared:
    """A text of a comparison, and where it stands; `of` tells equally named rows apart."""

    table: str
    row: tuple[str, ...]
    column: str
    text: str
    of: object = None


def tables_of(
    texts: Iterable[Compared], headings: Sequence[str], columns: Sequence[str] | None = None
) -> list[Table]:
    """Tables whose rows and columns stand in the order in which they come.

    Args:
        headings: of the columns that name a row.
        columns: the order of the others; those without any text are left out.
    """
    tables: dict[str, dict[tuple, dict[str, str]]] = {}
    for one in texts:
        tables.setdefault(one.table, {}).setdefault((one.row, one.of), {})[one.column] = one.text
    made = []
    for title, rows in tables.items():
        known = dict.fromkeys(column for row in rows.values() for column in row)
        if columns is not None:
            filled = {key for row in rows.values() for key in row if row[key] != NONE}
            known = dict.fromkeys(column for column in columns if column in filled)
        lines = [
            [*row, *(cells.get(column, NONE) for column in known)]
            for (row, _), cells in rows.items()
        ]
        made.append(Table(title, [*headings, *known], lines))
    return made


def by_protocol(heading: str, rows: Sequence[Row], baseline: str) -> list[Table]:
    """What the arms gain under each protocol; no table where there is one protocol alone.

    A group of columns is a protocol, or a protocol whose iterates an oracle selected. A row is a
    measurement, an arm and a choice of other settings.
    """
    rows = [row for row in rows if not row.missing]
    if len({row.arm.protocol for row in rows}) < 2:
        return []
    columns = [
        column
        for group in sorted({group_of(row.arm) for row in rows}, key=rank)
        for column in columns_of(group, baseline)
    ]
    columns += ["LMMSE PSNR [dB]", "LMMSE - best arm [dB]"]
    texts = gains(f"Gains by protocol, {heading}", rows, baseline)
    return tables_of(texts, ("measurement", "arm"), columns)


def columns_of(group: str, baseline: str) -> list[str]:
    return [
        f"{group}: Δ PSNR [dB]",
        f"{group}: Δ over seeds [dB]",
        f"{group}: PSNR of {baseline} [dB]",
    ]


def gains(title: str, rows: Sequence[Row], baseline: str) -> Iterator[Compared]:
    """The texts of `by_protocol`."""
    psnr = {(row.measurement, row.arm.label): row.psnr for row in rows}
    lines: dict[tuple[Measurement, str], dict[str, Row]] = defaultdict(dict)
    for row in rows:
        if row.arm.name != baseline:
            label = Arm(row.arm.name, other_settings(row.arm)).label
            lines[row.measurement, label][group_of(row.arm)] = row
    for (measurement, label), groups in lines.items():
        named = measurement.text, label
        for group, row in groups.items():
            base = psnr.get((measurement, row.baseline.label)) if row.baseline else None
            cells = (
                written(row.gain, 2, "+", "n="),
                written(row.estimates["gain_psnr_db_seeds"], 2, "+", " seeds"),
                written(base, unit="n="),
            )
            for column, text in zip(columns_of(group, baseline), cells):
                yield Compared(title, named, column, text)
        linear = [row.estimates["lmmse_psnr_db"] for row in groups.values()]
        # Every arm's is the same estimate; that of the most images is shown.
        most = max((one for one in linear if one), key=lambda one: one.n, default=None)
        yield Compared(title, named, "LMMSE PSNR [dB]", written(most, unit="n="))
        settings = other_settings(next(iter(groups.values())).arm).items()
        alike = [
            row
            for row in rows
            if row.measurement == measurement and other_settings(row.arm).items() <= settings
        ]
        yield Compared(title, named, "LMMSE - best arm [dB]", to_best(alike))


def drawable(rows: Iterable[Row]) -> list[Row]:
    """Rows whose gain can be drawn, by protocol: not those that an oracle selected."""
    gained = [row for row in rows if row.gain and not row.arm.oracle]
    return sorted(gained, key=lambda row: rank(group_of(row.arm)))


def group_of(arm: Arm) -> str:
    """The columns of an arm, for example "authors (oracle)"."""
    return arm.protocol + (" (oracle)" if arm.oracle else "")


def rank(group: str) -> tuple[int, str]:
    """Place of a group."""
    protocol = group.partition(" ")[0]
    return PROTOCOLS.index(protocol) if protocol in PROTOCOLS else len(PROTOCOLS), group


def other_settings(arm: Arm) -> dict[str, str]:
    """The settings of an arm beside what its columns say."""
    columns = {"protocol", "selection"} if arm.oracle else {"protocol"}
    return {key: text for key, text in arm.settings.items() if key not in columns}


def to_best(rows: Iterable[Row]) -> str:
    """LMMSE less the best of these rows, and which that is, those of oracles left out."""
    # LMMSE has seen the same images as each arm, which arms need not have of each other.
    ahead = [
        (row.estimates["lmmse_gain_psnr_db"], row.arm)
        for row in rows
        if row.estimates["lmmse_gain_psnr_db"] and not row.arm.oracle
    ]
    if not ahead:
        return NONE
    gain, arm = min(ahead, key=lambda one: one[0].mean)
    return f"{written(gain, 2, '+', 'n=')} {arm.name}, {group_of(arm)}"


def by_switch(cells: Iterable[Cell], scores: Scores, plan: Plan) -> list[Table]:
    """What each switch of an experiment changes alone, a table for each inverter and metric.

    Every number is a paired difference to the same images inverted with nothing switched.
    """
    texts = [*switches(cells, scores)]
    in_order = sorted(texts, key=lambda one: place_of(one[0], plan))
    tables = {one.title: one for one in tables_of((one for _, one in in_order), ["switched"])}
    # Tables stand in the order of their cells, not in that of their first switch.
    return [tables[title] for title in dict.fromkeys(one.table for _, one in texts)]


def switches(cells: Iterable[Cell], scores: Scores) -> Iterator[tuple[Arm, Compared]]:
    """The texts of `by_switch`, each with its arm."""
    for cell in cells:
        at = cell.measurement
        bases = {arm.name: arm for arm in cell.arms if not arm.settings}
        for arm in cell.arms:
            base = bases.get(arm.name)
            if base is None or not arm.settings:
                continue  # nothing is switched, or nothing to compare it with
            for metric, title in SWITCHED.items():
                mine, theirs = (scores.of(one.runs, metric) for one in (arm, base))
                gain = over_images(differences(mine, theirs))
                if gain is None and metric != "psnr_db":
                    continue
                where = ", ".join([at.inverter, at.data, at.scale, at.model])
                yield (
                    arm,
                    Compared(
                        f"{title}, each switched alone, {where}",
                        (typed(arm.settings),),
                        f"{at.task}, {at.text}, {arm.name}",
                        written(gain, 2, "+", "n="),
                    ),
                )


def typed(settings: Mapping[str, str]) -> str:
    """A switch as it is typed."""
    return " ".join(f"{key}={text}" for key, text in settings.items())


def place_of(arm: Arm, plan: Plan) -> int:
    """Place of a switch among the plan's of its inverter.

    A protocol that selects by an oracle names that besides.
    """
    # The same switch may stand elsewhere in the plan of another inverter.
    inverter = arm.runs[0].config["inverter.name"]
    jobs = [job for job in plan.jobs if job["inverter"] == inverter]
    names = [typed(switch_of(plan.experiment, job)) for job in jobs]
    name = typed(arm.settings)
    return names.index(name if name in names else name.removesuffix(" selection=oracle"))


def by_setting(cells: Iterable[Cell], baseline: str) -> list[Table]:
    """How much an arm depends on its settings, a table for each series of searches.

    A search tries the same settings for every arm, so the scores of its drawn trials, the
    settings of somebody who knows nothing, are paired by trial. A search that several runs share
    counts once.
    """
    texts: list[Compared] = []
    for title, groups in searches(cells, baseline).items():
        for shared in sorted(groups, key=lambda shared: shared[0]):
            _, measurement, seed, *_ = shared
            names = [name for name, _ in groups[shared]]
            for (name, digest), (mine, theirs) in groups[shared].items():
                # Another generator of the same name is told by its digest.
                label = f"{name} {digest[:8]}" if names.count(name) > 1 else name
                row = measurement, str(seed), label
                for column, text in spread(mine, theirs).items():
                    texts.append(Compared(title, row, column, text, of=shared))
    return tables_of(texts, ("tuned at", "seed", "arm"))


Searches = dict[str, dict[tuple, dict[tuple[str, str], tuple[Search, Search | None]]]]


def searches(cells: Iterable[Cell], baseline: str) -> Searches:
    """Each arm's search and its baseline's, by title and by what they share to be compared."""
    groups: Searches = defaultdict(lambda: defaultdict(dict))
    # What a protocol chose is no setting that tells searches apart: they are what it chose from.
    for cell in cells:
        for arm in cell.arms:
            base = reference(cell, arm, baseline)
            theirs = {run.seed: search_of(run) for run in base.runs} if base else {}
            settings = {
                key: text for key, text in arm.settings.items() if not key.startswith("protocol")
            }
            for run in arm.runs:
                mine, other = search_of(run), theirs.get(run.seed)
                if mine is None or len(mine.scores) < 2:
                    continue
                shared = shared_by(mine, run)
                if other is not None and shared_by(other, run) != shared:
                    other = None
                rows = groups[f"Searches, {cell.measurement.heading}"][shared]
                label = Arm(arm.name, settings).label, str(mine.generator_sha256)
                # Several cells take one search; the first may lack the baseline.
                if label not in rows or rows[label][1] is None:
                    rows[label] = mine, other
    return groups


def shared_by(tuned: Search, run: Run) -> tuple:
    """What searches to be compared share: value, measurement, seed, space, images."""
    value, noise = float(tuned.value or 0.0), float(tuned.noise_std or 0.0)
    at = Measurement("", "", "", "", "", tuned.knob, noise, value)
    return value, at.text, run.of_study(tuned.seed), tuned.space, tuned.n


def spread(mine: Search, theirs: Search | None) -> dict[str, str]:
    """What a search reached, and its difference to the baseline's at the same settings."""
    scores, base = mine.scores, theirs.scores if theirs else {}
    # A setting that failed for one of the two has no pair.
    gains = [mean - base[number] for number, mean in scores.items() if number in base]
    delta = ahead = NONE
    if len(gains) > 1:
        delta = written(estimate(gains), 2, "+", " settings")
        ahead = (
            f"{sum(gain > 0 for gain in gains)} of {len(gains)}, median {median(gains):+.2f}, "
            f"{min(gains):+.2f} to {max(gains):+.2f}"
        )
    low, high = min(scores.values()), max(scores.values())
    return {
        "n": str(mine.n),
        "drawn settings": str(len(scores)),
        "spread [dB]": f"{stdev(scores.values()):.2f}, {low:.2f} to {high:.2f}",
        "best [dB]": f"{max(mean for mean in mine.means if mean is not None):.2f}",
        "Δ at a drawn setting [dB]": delta,
        "ahead at": ahead,
    }
