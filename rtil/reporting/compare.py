"""Comparisons side by side: of protocols, of switches, and of settings drawn at random.

A further comparison is a function that makes tables here, and a line in `rtil.reporting.page`.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from statistics import median, stdev

import pandas as pd

from rtil.reporting.arrange import Row, Settings, counterpart, label_of, words_of
from rtil.reporting.sections import NONE, Table
from rtil.reporting.statistics import estimate, gains, over_images, scores, written
from rtil.reporting.study import Plan
from rtil.runs.run import Run
from rtil.runs.search import Search, search_of

# Known protocols stand in this order, others after them.
PROTOCOLS = ("paper", "authors", "fair")
# What a switch changes, with its decimals; shown where runs have it.
SWITCHED = {
    "psnr_db": ("PSNR", 2),
    "ssim_valid": ("SSIM", 3),
    "st_lpips": ("ST-LPIPS", 4),
    "gradient_energy": ("Sharpness", 2),
}

Line = Mapping[str, str]  # {heading: text}, of a row or of a part of one


def table_of(title: str, lines: Sequence[Line], names: Sequence[str]) -> Table:
    """Lines of the same names are one row."""
    texts = pd.DataFrame(lines).groupby([*names], sort=False).first().fillna(NONE)
    return Table(title, texts.reset_index().to_dict("records"), sparse=True)


def by_protocol(heading: str, rows: Iterable[Row], baseline: str) -> list[Table]:
    """What the arms gain under each protocol; no table where there is one protocol alone.

    A group of columns is a protocol, or a protocol whose iterates an oracle selected. A row is a
    measurement, an arm and a choice of other settings.
    """
    ran = [row for row in rows if not row.missing]
    others = [row for row in ran if row.arm != baseline]
    if len({row.protocol for row in ran}) < 2 or not others:
        return []
    # Rows stand in their own order, and columns in that of protocols.
    lines = [names_of(row) for row in others]
    lines += [names_of(row) | gained(row, baseline) for row in ranked(others)]
    lines += [names_of(row) | linear(row, ran) for row in others]
    return [table_of(f"Gains by protocol, {heading}", lines, ["measurement", "arm"])]


def names_of(row: Row) -> dict[str, str]:
    """What names a row of the table."""
    return {"measurement": row.measurement.text, "arm": label_of(row.arm, settings_of(row))}


def gained(row: Row, baseline: str) -> dict[str, str]:
    """The columns of a row's protocol."""
    group = group_of(row)
    seeds = row.estimates["gain_psnr_db_seeds"]
    psnr = over_images(scores(row.base, "psnr_db"))
    return {
        f"{group}: Δ PSNR [dB]": written(row.gain, 2, "+", "n="),
        f"{group}: Δ over seeds [dB]": written(seeds, 2, "+", " seeds"),
        f"{group}: PSNR of {baseline} [dB]": written(psnr, unit="n="),
    }


def linear(row: Row, rows: Iterable[Row]) -> dict[str, str]:
    """LMMSE at a row's measurement, and less the best of all arms with its settings."""
    settings = settings_of(row)
    alike = [
        one
        for one in rows
        if one.measurement == row.measurement and settings_of(one).items() <= settings.items()
    ]
    own = [one for one in alike if (one.arm, settings_of(one)) == (row.arm, settings)]
    # Every arm's is the same estimate; that of the most images is shown.
    known = [gain for gain in (one.estimates["lmmse_psnr_db"] for one in own) if gain]
    most = max(known, key=lambda gain: gain.n, default=None)
    return {
        "LMMSE PSNR [dB]": written(most, unit="n="),
        "LMMSE - best arm [dB]": to_best(alike),
    }


def to_best(rows: Iterable[Row]) -> str:
    """LMMSE less the best of these rows, and which that is, those of oracles left out."""
    # LMMSE has seen the same images as each arm, which arms need not have of each other.
    ahead = [
        (row.estimates["lmmse_gain_psnr_db"], row)
        for row in rows
        if row.estimates["lmmse_gain_psnr_db"] and not row.oracle
    ]
    if not ahead:
        return NONE
    gain, row = min(ahead, key=lambda one: one[0].mean)
    return f"{written(gain, 2, '+', 'n=')} {row.arm}, {group_of(row)}"


def drawable(rows: Iterable[Row]) -> list[Row]:
    """Gains to draw: no oracle's."""
    return ranked(row for row in rows if row.gain and not row.oracle)


def ranked(rows: Iterable[Row]) -> list[Row]:
    """By protocol, an oracle's rows last."""

    def place(row: Row) -> tuple[int, str]:
        return [*PROTOCOLS, row.protocol].index(row.protocol), group_of(row)

    return sorted(rows, key=place)


def group_of(row: Row) -> str:
    """As "authors (oracle)"."""
    return row.protocol + (f" ({row.oracle})" if row.oracle else "")


def settings_of(row: Row) -> Settings:
    """Settings that no column says."""
    columns = {"protocol", "selection"} if row.oracle else {"protocol"}
    return {key: text for key, text in row.settings.items() if key not in columns}


def by_switch(rows: Sequence[Row], plan: Plan) -> list[Table]:
    """What each switch of an experiment changes alone, a table for each inverter and metric.

    Every number is a paired difference to the same images inverted with nothing switched.
    """

    def switch(row: Row) -> tuple[str, str]:
        return row.measurement.inverter, " ".join(words_of(row.settings))

    # Switches stand in the order of the plan, also where one was not run at some measurement.
    order = [switch(row) for row in sorted(rows, key=lambda row: plan.order(row.job))]
    ran = [row for row in rows if not row.missing]
    bases = {(row.measurement, row.arm): row for row in ran if not row.settings}
    tables = defaultdict[str, list[Line]](list)
    for row in sorted(ran, key=lambda row: order.index(switch(row))):
        at = row.measurement
        base = bases.get((at, row.arm))
        if row.settings and base:
            where = ", ".join([at.inverter, at.data, at.scale, at.model])
            for metric, (title, digits) in SWITCHED.items():
                gain = over_images(gains(row.runs, base.runs, metric))
                if gain or metric == "psnr_db":
                    column = f"{at.task}, {at.text}, {row.arm}"
                    line = {"switched": switch(row)[1], column: written(gain, digits, "+", "n=")}
                    tables[f"{title}, each switched alone, {where}"].append(line)
    return [table_of(title, lines, ["switched"]) for title, lines in tables.items()]


def by_setting(rows: Iterable[Row], baseline: str) -> list[Table]:
    """How much arms depend on their settings, a table for each series of searches.

    A search tries the same settings for every arm, so its drawn trials, the settings of somebody
    who knows nothing, are paired. A search that several runs share counts once.
    """
    groups: dict[tuple, dict[tuple, Search]] = defaultdict(dict)
    for row in rows:
        kept = {key: text for key, text in row.settings.items() if not key.startswith("protocol")}
        for run in row.runs:
            search = search_of(run)
            if search and len(search.scores) > 1:
                who = row.arm, tuple(kept.items()), search.generator_sha256
                groups[shared_by(row, run, search)].setdefault(who, search)
    tables = defaultdict[str, list[Line]](list)
    for shared in sorted(groups, key=lambda shared: shared[:2]):
        heading, _, at, seed, *_ = shared
        group = groups[shared]
        bases = [
            (dict(settings), search)
            for (arm, settings, _), search in group.items()
            if arm == baseline
        ]
        names = [who[:2] for who in group]
        for (arm, settings, digest), search in group.items():
            label = label_of(arm, dict(settings))
            # Another generator of the same name is told by its digest.
            if names.count((arm, settings)) > 1:
                label += f" {str(digest)[:8]}"
            base = None
            if arm != baseline:
                base = counterpart(dict(settings), bases)
            line = {"tuned at": at, "seed": str(seed), "arm": label}
            tables[f"Searches, {heading}"].append(line | spread(search, base))
    return [Table(title, lines) for title, lines in tables.items()]


def shared_by(row: Row, run: Run, search: Search) -> tuple:
    """What searches must share."""
    value = float(search.value or 0.0)
    noise = float(search.noise_std or 0.0)
    at = replace(row.measurement, knob=search.knob, noise_std=noise, value=value)
    seed = run.of_study(search.seed)
    return row.measurement.heading, value, at.text, seed, search.space, search.n


def spread(mine: Search, theirs: Search | None) -> dict[str, str]:
    """What a search reached and gained."""
    scores = mine.scores
    base = theirs.scores if theirs else {}
    # A setting that failed for one of the two has no pair.
    pairs = [mean - base[number] for number, mean in scores.items() if number in base]
    delta = ahead = NONE
    if len(pairs) > 1:
        delta = written(estimate(pairs), 2, "+", " settings")
        ahead = (
            f"{sum(gain > 0 for gain in pairs)} of {len(pairs)}, median {median(pairs):+.2f}, "
            f"{min(pairs):+.2f} to {max(pairs):+.2f}"
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
