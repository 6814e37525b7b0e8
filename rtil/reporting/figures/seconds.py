"""Quality against seconds an image, where several inverters are compared."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import LogLocator, NullFormatter

from rtil.metrics.intervals import Mean
from rtil.reporting.arrange import Row
from rtil.reporting.figures.style import (
    COLOURS,
    DPI,
    GREY,
    GRID,
    MARKERS,
    TASKS,
    legend_columns,
    plain,
)
from rtil.reporting.statistics import over_images, scores

LEAST = 1e-3  # seconds; rows hold no shorter time
METRICS = {"psnr_db": "PSNR [dB]", "lpips": "LPIPS", "st_lpips": "ST-LPIPS"}
SIDE = 4.3  # inches of a panel


class Point(NamedTuple):
    """An arm with one inverter at one measurement."""

    inverter: str
    arm: str
    panel: str
    seconds: float
    scores: dict[str, Mean]


def draw_seconds(rows: Sequence[Row], path: Path) -> str | None:
    """Draws a panel for each measurement and metric, with 95 % intervals over images.

    A colour is an inverter, a marker an arm. Choices by the true image are left out.

    Returns:
        The title, or None where there is one inverter alone.
    """
    points = [point for point in map(_point, rows) if point]
    inverters = [*dict.fromkeys(point.inverter for point in points)]
    if len(inverters) < 2:
        return None
    arms = [*dict.fromkeys(point.arm for point in points)]
    panels = [*dict.fromkeys(point.panel for point in points)]
    metrics = [key for key in METRICS if any(key in point.scores for point in points)]
    colours = dict(zip(inverters, COLOURS * len(inverters)))
    markers = dict(zip(arms, MARKERS * len(arms)))
    fig = Figure(dpi=DPI, layout="constrained")
    axes = fig.subplots(len(metrics), len(panels), squeeze=False)
    for line, metric in zip(axes, metrics):
        for ax, panel in zip(line, panels):
            own = [point for point in points if point.panel == panel and metric in point.scores]
            for point in own:
                look: dict[str, Any] = {"color": colours[point.inverter], "capsize": 3}
                score = point.scores[metric]
                # One image has no interval.
                half = score.ci95 if score.n > 1 else None
                ax.errorbar(point.seconds, score.mean, half, fmt=markers[point.arm], **look)
            _label(ax, panel, METRICS[metric])
    entries: dict[str, Line2D] = {}
    for name in inverters:
        entries[plain(f"inverter={name}")] = Line2D([], [], color=colours[name], linewidth=4)
    for arm in arms:
        entries[plain(arm)] = Line2D([], [], color=GREY, marker=markers[arm], linestyle="")
    width = max(8.4, SIDE * len(panels))
    columns = legend_columns(width, entries)
    lines = -(-len(entries) // columns)
    fig.set_size_inches(width, SIDE * len(metrics) + 0.25 * lines)
    fig.legend([*entries.values()], [*entries], loc="outside lower center", ncols=columns)
    fig.savefig(path)
    return "Quality against seconds an image, on the machines of the runs"


def _point(row: Row) -> Point | None:
    """The point of a row; None of one without times, or chosen by the true image."""
    times = over_images(scores(row.runs, "seconds"))
    if times is None or row.oracle:
        return None
    known = {key: over_images(scores(row.runs, key)) for key in METRICS}
    found = {key: score for key, score in known.items() if score is not None}
    at = row.measurement
    panel = f"{TASKS.get(at.task, at.task)}, {at.text}"
    return Point(at.inverter, row.label, panel, max(times.mean, LEAST), found)


def _label(ax: Axes, panel: str, metric: str) -> None:
    ax.set(xscale="log", title=plain(panel), xlabel="seconds an image", ylabel=metric)
    ax.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    ax.xaxis.set_major_formatter("{x:g}")
    ax.xaxis.set_minor_formatter(NullFormatter())
    ax.grid(True, color=GRID, linewidth=0.8)


FIGURE = draw_seconds
