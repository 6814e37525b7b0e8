"""Comparisons side by side: of protocols, of switches, and of settings drawn at random.

Each grouping makes lines, of which `tables_of` makes tables. A further comparison is a function
that makes lines here, and a line in `rtil.reporting.page`.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import median, stdev

import pandas as pd

from rtil.experiments.plan import switch_of
from rtil.reporting.arrange import Arm, Cell, Measurement, Row, reference
from rtil.reporting.sections import Table
from rtil.reporting.statistics import NONE, Scores, differences, estimate, over_images, written
from rtil.reporting.study import Plan
from rtil.runs.run import Run
from rtil.runs.search import Search, search_of

# Known protocols stand in this order, others after them.
PROTOCOLS = ("paper", "authors", "fair")
# What a switch changes; sharpness is shown where runs have it.
SWITCHED = {"psnr_db": "PSNR", "gradient_energy": "Sharpness"}

Shared = tuple


@dataclass(frozen=True)
class Line:
    """Texts of a row of a table by their columns; `of` tells equally named rows apart."""

    table: str
    row: tuple[str, ...]
    cells: Mapping[str, str]
    of: object = None


def tables_of(
    lines: Iterable[Line], headings: Sequence[str], columns: Sequence[str] = ()
) -> list[Table]:
    """Tables whose rows and columns stand in the order in which they come.

    Args:
        headings: of columns that name a row.
        columns: the order of the others, where those without any text are left out.
    """
    tables: dict[str, dict[tuple, dict[str, str]]] = defaultdict(lambda: defaultdict(dict))
    for line in lines:
        tables[line.table][line.row, line.of].update(line.cells)
    made = []
    for title, rows in tables.items():
        frame = pd.DataFrame([*rows.values()]).fillna(NONE)
        if columns:
            frame = frame.reindex(columns=columns, fill_value=NONE)
            frame = frame.loc[:, (frame != NONE).any()]
        names = [row for row, _ in rows]
        texts = [[*name, *cells] for name, cells in zip(names, frame.to_numpy())]
        made.append(Table(title, [*headings, *frame.columns], texts))
    return made


def by_protocol(heading: str, rows: Sequence[Row], baseline: str) -> list[Table]:
    """What the arms gain under each protocol; no table where there is one protocol alone.

    A group of columns is a protocol, or a protocol whose iterates an oracle selected. A row is a
    measurement, an arm and a choice of other settings.
    """
    rows = [row for row in rows if row.arm.runs]
    protocols = {row.arm.protocol for row in rows}
    if len(protocols) < 2:
        return []
    psnr = {(row.measurement, row.arm.label): written(row.psnr, unit="n=") for row in rows}
    lines, columns = [], dict[str, None]()
    for row in ranked(rows):
        columns |= dict.fromkeys(gained(row, NONE, baseline))
    columns |= dict.fromkeys(linear((), ()))
    for row in rows:
        if row.arm.name == baseline:
            continue
        name, settings = row.arm.name, settings_of(row.arm)
        at = [other for other in rows if other.measurement == row.measurement]
        alike = [one for one in at if settings_of(one.arm).items() <= settings.items()]
        named = [one for one in alike if one.arm.name == name]
        own = [one for one in named if settings_of(one.arm) == settings]
        base = row.baseline.label if row.baseline else ""
        cells = gained(row, psnr.get((row.measurement, base), NONE), baseline)
        names = row.measurement.text, Arm(name, settings).label
        lines.append(Line(f"Gains by protocol, {heading}", names, cells | linear(own, alike)))
    return tables_of(lines, ("measurement", "arm"), [*columns])


def gained(row: Row, base: str, baseline: str) -> dict[str, str]:
    """The columns of a row's protocol; base is the baseline's PSNR."""
    group = group_of(row.arm)
    seeds = row.estimates["gain_psnr_db_seeds"]
    return {
        f"{group}: Δ PSNR [dB]": written(row.gain, 2, "+", "n="),
        f"{group}: Δ over seeds [dB]": written(seeds, 2, "+", " seeds"),
        f"{group}: PSNR of {baseline} [dB]": base,
    }


def linear(own: Iterable[Row], alike: Iterable[Row]) -> dict[str, str]:
    """LMMSE beside the rows of an arm, and beside the best of all arms with its settings."""
    known = [row.estimates["lmmse_psnr_db"] for row in own]
    # Every arm's is the same estimate; that of the most images is shown.
    most = max((gain for gain in known if gain), key=lambda gain: gain.n, default=None)
    return {
        "LMMSE PSNR [dB]": written(most, unit="n="),
        "LMMSE - best arm [dB]": to_best(alike),
    }


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


def drawable(rows: Iterable[Row]) -> list[Row]:
    """Rows whose gain can be drawn, by protocol: not those that an oracle selected."""
    return ranked(row for row in rows if row.gain and not row.arm.oracle)


def ranked(rows: Iterable[Row]) -> list[Row]:
    """Rows in the order of their protocols, those of an oracle after the others of theirs."""

    def rank(row: Row) -> tuple[int, str]:
        protocol = row.arm.protocol
        known = PROTOCOLS.index(protocol) if protocol in PROTOCOLS else len(PROTOCOLS)
        return known, group_of(row.arm)

    return sorted(rows, key=rank)


def group_of(arm: Arm) -> str:
    """The columns of an arm, for example "authors (oracle)"."""
    return arm.protocol + (" (oracle)" if arm.oracle else "")


def settings_of(arm: Arm) -> dict[str, str]:
    """The settings of an arm beside what its columns say."""
    columns = {"protocol", "selection"} if arm.oracle else {"protocol"}
    return {key: text for key, text in arm.settings.items() if key not in columns}


def by_switch(cells: Iterable[Cell], plan: Plan) -> list[Table]:
    """What each switch of an experiment changes alone, a table for each inverter and metric.

    Every number is a paired difference to the same images inverted with nothing switched.
    """
    scores, lines = Scores(plan.runs), list[tuple[int, Line]]()
    for cell in cells:
        bases = {arm.name: arm for arm in cell.arms if not arm.settings}
        for arm in cell.arms:
            if arm.settings and arm.name in bases:  # else there is nothing to compare
                base = bases[arm.name]
                own = switched(cell.measurement, arm, base, scores)
                lines += [(place_of(arm, plan), line) for line in own]
    # Tables stand in the order of their cells, rows in that of the plan.
    titles = [one.table for _, one in lines]
    lines.sort(key=lambda one: (titles.index(one[1].table), one[0]))
    return tables_of((line for _, line in lines), ["switched"])


def switched(at: Measurement, arm: Arm, base: Arm, scores: Scores) -> list[Line]:
    """What a switch changes."""
    where = ", ".join([at.inverter, at.data, at.scale, at.model])
    column = f"{at.task}, {at.text}, {arm.name}"
    lines = []
    for metric, title in SWITCHED.items():
        mine = scores.of(arm.runs, metric)
        theirs = scores.of(base.runs, metric)
        gain = over_images(differences(mine, theirs))
        if gain or metric == "psnr_db":
            cells = {column: written(gain, 2, "+", "n=")}
            table = f"{title}, each switched alone, {where}"
            lines.append(Line(table, (typed(arm.settings),), cells))
    return lines


def typed(settings: Mapping[str, str]) -> str:
    """A switch as it is typed."""
    return " ".join(f"{key}={text}" for key, text in settings.items())


def place_of(arm: Arm, plan: Plan) -> int:
    """Place of a switch among the plan's of its inverter, which may share it with others."""
    inverter = arm.runs[0].config["inverter.name"]
    jobs = [job for job in plan.jobs if job["inverter"] == inverter]
    names = [typed(switch_of(plan.experiment, job)) for job in jobs]
    name = typed(arm.settings)
    # A protocol that selects by an oracle names that besides.
    return names.index(name if name in names else name.removesuffix(" selection=oracle"))


def by_setting(cells: Iterable[Cell], baseline: str) -> list[Table]:
    """How much an arm depends on its settings, a table for each series of searches.

    A search tries the same settings for every arm, so the scores of its drawn trials, the
    settings of somebody who knows nothing, are paired by trial. A search that several runs share
    counts once.
    """
    # {what searches to be compared share: {arm, generator: scores of it and of the baseline}}
    groups: dict[Shared, dict[tuple[str, str], tuple[Search, Search | None]]] = {}
    for cell in cells:
        for arm in cell.arms:
            base = reference(cell, arm, baseline)
            theirs = {run.seed: shared_by(cell, run) for run in (base.runs if base else ())}
            settings = {
                key: text for key, text in arm.settings.items() if not key.startswith("protocol")
            }
            for run in arm.runs:
                shared, mine = shared_by(cell, run)
                if mine is None or len(mine.scores) < 2:
                    continue
                known = groups.setdefault(shared, {})
                label = Arm(arm.name, settings).label
                name = label, str(mine.generator_sha256)
                # Several cells take one search; the first may lack the baseline.
                if name not in known or known[name][1] is None:
                    at, other = theirs.get(run.seed, ((), None))
                    known[name] = mine, other if at == shared else None
    lines = []
    for shared in sorted(groups, key=lambda shared: shared[:2]):
        heading, _, at, seed, *_ = shared
        labels = [label for label, _ in groups[shared]]
        for (label, digest), pair in groups[shared].items():
            # Another generator of the same name is told by its digest.
            if labels.count(label) > 1:
                label += f" {digest[:8]}"
            row = at, str(seed), label
            title = f"Searches, {heading}"
            lines.append(Line(title, row, spread(*pair), shared))
    return tables_of(lines, ("tuned at", "seed", "arm"))


def shared_by(cell: Cell, run: Run) -> tuple[Shared, Search | None]:
    """The search behind a run, and what those to be compared share.

    That is series, value, measurement, seed, space and images.
    """
    tuned = search_of(run)
    if tuned is None:
        return (), None
    value, noise = float(tuned.value or 0.0), float(tuned.noise_std or 0.0)
    at = Measurement("", "", "", "", "", tuned.knob, noise, value)
    seed = run.of_study(tuned.seed)
    return (cell.measurement.heading, value, at.text, seed, tuned.space, tuned.n), tuned


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
