"""Gains over the baseline with their intervals, a band for each measurement."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from rtil.reporting.arrange import Row
from rtil.reporting.figures.style import COLOURS, DPI, GREY, GRID, MARKERS, legend_columns, plain

WIDTH = 8.4  # inches


def draw_forest(name: str, rows: Sequence[Row], baseline: str, path: Path) -> None:
    """Draws the gain at each measurement, a point for each arm and protocol.

    Thick bars are the 95 % interval over images, thin ones that over trainings. At least one
    row is there, and each has a gain.
    """
    labels = [*dict.fromkeys(row.label for row in rows)]
    order = sorted(rows, key=lambda row: (row.measurement.noise_std, row.measurement.value))
    places = [*dict.fromkeys(row.measurement.text for row in order)]
    columns = legend_columns(WIDTH, labels)
    bands = (0.2 + 0.26 * len(labels)) * len(places)
    height = 1.2 + bands + 0.25 * -(-len(labels) // columns)
    fig = Figure(figsize=(WIDTH, height), dpi=DPI, layout="constrained")
    ax = fig.subplots()
    ax.axvline(0, color=GREY, linewidth=1)
    # A label's first point is in the legend.
    named: set[str] = set()
    for row in rows:
        assert row.gain is not None
        seeds = row.estimates["gain_psnr_db_seeds"]
        number = labels.index(row.label)
        y = places.index(row.measurement.text) + 0.8 * ((number + 0.5) / len(labels) - 0.5)
        color = COLOURS[number % len(COLOURS)]
        for one, width, alpha, cap in ((row.gain, 6.0, 0.4, 0), (seeds, 1.4, 1.0, 4)):
            if one:
                bar: dict[str, Any] = {"linewidth": width, "alpha": alpha, "capsize": cap}
                ax.errorbar(one.mean, y, xerr=one.ci95, color=color, **bar)
        ax.plot(
            row.gain.mean,
            y,
            color="white",
            markeredgecolor=color,
            marker=MARKERS[number % len(MARKERS)],
            markersize=6.5,
            linestyle="",
            label=None if row.label in named else plain(row.label),
        )
        named.add(row.label)
    ax.set_yticks(range(len(places)), places)
    # The first measurement is at the top.
    ax.set_ylim(len(places) - 0.5, -0.5)
    for edge in range(1, len(places)):
        ax.axhline(edge - 0.5, color=GRID, linewidth=0.8)
    ax.tick_params(labelsize=11)
    ax.set_xlabel(f"Δ PSNR to {baseline} [dB]", fontsize=12)
    ax.grid(True, axis="x", color="#eeeeee", linewidth=0.8)
    fig.legend(fontsize=10, loc="outside lower center", ncols=columns)
    counts = sorted({row.gain.n for row in rows if row.gain})
    text = " to ".join(str(n) for n in dict.fromkeys((counts[0], counts[-1])))
    ax.set_title(f"{plain(name)}; n = {text} images", fontsize=12)
    fig.savefig(path)
