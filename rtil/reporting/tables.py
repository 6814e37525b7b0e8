"""Rows as text: the table of a series with its remarks, and table.json.

A further column is a line in `overview`; what a remark says is templates/remarks.md.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict

from rtil.reporting.arrange import Row, listed
from rtil.reporting.data_term import name_of
from rtil.reporting.sections import NONE, Table, Text, paragraph, texts
from rtil.reporting.statistics import PAIRED, by_seed, gains, known, written
from rtil.runs.search import budget

Config = Mapping[str, object]
TUNED = "protocol.tuned."
MIRRORED = "SSIM, mirrored borders"  # that of version 0.1


def overview(title: str, rows: Sequence[Row], baseline: str) -> Table:
    """A line for each row."""
    cells = [cells_of(row, baseline) for row in rows]
    looks = [look(row) for row in rows]
    # Metrics that no run has, such as LPIPS, take no column.
    return Table(title, cells, looks, sparse=True)


def cells_of(row: Row, baseline: str) -> dict[str, str]:
    """{heading: text} of a row."""

    def text(metric: str, digits: int = 2, sign: str = "") -> str:
        estimate = row.estimates.get(metric)
        # The count is said where it is not that of the row.
        return written(estimate, digits, sign, "n=" if estimate and estimate.n != row.n else "")

    seeds = row.estimates.get("gain_psnr_db_seeds")
    # One SSIM a row: that of version 0.1 where there is no other.
    valid = row.estimates.get("ssim_valid")
    return {
        "measurement": row.measurement.text,
        "arm": row.label,
        "seeds": ", ".join(str(run.seed) for run in row.runs) or NONE,
        "n": count(row),
        "PSNR [dB]": "missing" if row.missing else text("psnr_db"),
        f"Δ PSNR to {baseline} [dB]": text("gain_psnr_db", 2, "+"),
        "Δ PSNR over seeds [dB]": written(seeds, 2, "+", " seeds"),
        "SSIM": text("ssim_valid", 3),
        f"Δ SSIM to {baseline}": text("gain_ssim_valid", 3, "+"),
        MIRRORED: NONE if valid else text("ssim", 3),
        f"Δ {MIRRORED} to {baseline}": NONE if valid else text("gain_ssim", 3, "+"),
        "LPIPS": text("lpips", 3),
        "ST-LPIPS": text("st_lpips", 3),
        f"Δ ST-LPIPS to {baseline}": text("gain_st_lpips", 3, "+"),
        "sharpness": text("gradient_energy"),
        "LMMSE PSNR [dB]": text("lmmse_psnr_db"),
        "LMMSE SSIM": text("lmmse_ssim_valid", 3),
        f"LMMSE {MIRRORED}": NONE if valid else text("lmmse_ssim", 3),
        "LMMSE ST-LPIPS": text("lmmse_st_lpips", 3),
        "LMMSE sharpness": text("lmmse_gradient_energy"),
        "last PSNR [dB]": text("last_psnr_db"),
        "oracle PSNR [dB]": text("oracle_psnr_db"),
        "PSNR over sets [dB]": text("sets"),
        "data term": term(row) or NONE,
    }


def term(row: Row) -> str:
    """What a row is called by its data term, see `rtil.reporting.data_term`."""
    return "; ".join(dict.fromkeys(filter(None, (name_of(run.config) for run in row.runs))))


def terms(rows: Iterable[Row]) -> dict[str, str]:
    """{what rows are called by their data term: the measurements of these}."""
    known = defaultdict[str, dict[str, None]](dict)
    for row in rows:
        known[term(row)][f"{row.measurement.task}, {row.measurement.text}"] = None
    return {name: "; ".join(where) for name, where in known.items() if name}


def count(row: Row) -> str:
    """As "4 to 36 of 36" images."""
    if row.missing:
        return NONE
    text = f"{row.fewest} to {row.n}" if row.fewest < row.n else str(row.n)
    return f"{text} of {row.planned}" if row.fewest < row.planned else text


def look(row: Row) -> str:
    """The side of 0 that a gain is on."""
    if row.gain and abs(row.gain.mean) > row.gain.ci95:
        return "better" if row.gain.mean > 0 else "worse"
    return "missing" if row.missing else ""


def remarks(rows: Sequence[Row]) -> list[Text]:
    """What the table must be read with."""
    lines = texts("remarks", rows=rows, choice=choice, budgets=budgets, places=places, terms=terms)
    return [*{line.paragraph: line for line in lines}.values()]


def choice(config: Config) -> str:
    """What a run's settings rest on."""
    tuned = {
        key.removeprefix(TUNED): value for key, value in config.items() if key.startswith(TUNED)
    }
    protocol = config.get("protocol.name", "paper")
    return paragraph("choice", protocol=protocol, tuned=tuned, config=config)


def budgets(rows: Iterable[Row]) -> list[tuple]:
    """Different budgets of the tunings."""
    known = {budget(run.config) for row in rows for run in row.runs}
    return sorted(one for one in known if one is not None)


def places(rows: Iterable[Row]) -> dict[str, str]:
    """{arm: where it was tuned}."""
    known = defaultdict[str, set[str]](set)
    for row in rows:
        for run in row.runs:
            known[row.arm].add(tuned_at(run.config))
    return {arm: listed(at - {""}) for arm, at in known.items() if at - {""}}


def tuned_at(config: Config) -> str:
    """The measurement that the settings of a run were tuned at, "" where nothing was tuned."""
    knob = str(config["task.knob"])
    # What is not said otherwise was tuned at the inversion's own measurement.
    value = config.get(f"{TUNED}at.{knob}", config.get(knob))
    if budget(config) is None or not isinstance(value, (int, float)):
        return ""
    return f"{knob} {float(value):g}"


def record(row: Row) -> dict[str, object]:
    """As table.json has it; its keys stay."""
    told: dict[str, object] = {
        **asdict(row.measurement),
        "measurement": row.measurement.text,
        "arm": row.arm,
        "label": row.label,
        "commands": [*row.commands],
    }
    if row.planned:
        told |= {"panel": row.panel, "line": row.line, "x": row.x}
        told |= {"settings": row.settings, "planned": row.planned, "job": row.job}
    if row.missing:
        return told
    if row.planned:
        told["more"] = [*row.fill]
    runs = row.runs
    configs = [run.config for run in runs]
    told |= {key: mean and asdict(mean) for key, mean in row.estimates.items()}
    for metric in known(runs, PAIRED):
        told[f"gain_{metric}_by_seed"] = by_seed(gains(runs, row.base, metric))
    return told | {
        "settings": row.settings,
        "seeds": [run.seed for run in runs],
        "n": row.n,
        "fewest": row.fewest,
        "baseline": row.baseline and row.baseline.label,
        "runs": [str(run.path) for run in runs],
        "differs": [*row.differs],
        "unpaired": row.unpaired,
        "protocol": row.protocol,
        "choices": [choice(config) for config in configs],
        "budgets": [budget(config) for config in configs],
        "tuned_at": [tuned_at(config) for config in configs],
    }
