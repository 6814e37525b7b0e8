"""PSNR curves: of a series over its knob, and the panels of an experiment in the paper's order."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from math import log
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import NullLocator

from rtil.reporting.arrange import Row
from rtil.reporting.figures.style import (
    DPI,
    GREY,
    GRID,
    TASKS,
    Axis,
    Look,
    axis_of,
    legend_columns,
    looks_of,
)
from rtil.reporting.statistics import Gain

PER_CHARACTER = 0.024  # width of a tick label's character, of the axis
ORACLE, MISSING, LINEAR = "oracle (no result)", "missing", "LMMSE, no generator"


@dataclass(frozen=True)
class Point:
    """An estimate at the text of an x, None where it is missing, and the oracle's mean.

    x is None where the axis' setting does not exist (a generator without σ): it runs across.
    """

    x: str | None
    gain: Gain | None
    oracle: float | None = None


@dataclass(frozen=True)
class Curve:
    """Points of one line, and {x: PSNR} of the paper's figure for it."""

    points: Sequence[Point]
    published: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Scale:
    """Where the texts of x stand on an axis; a shift keeps the bars of several lines apart."""

    places: Mapping[str, float]
    log: bool
    shift: float = 0.0

    def at(self, x: str, wide: bool = False) -> float:
        """Place of a line's bar, or of its cross, which is wider."""
        if self.log:
            return self.places[x] * (1.03 if wide else 1.02) ** self.shift
        return self.places[x] + (0.1 if wide else 0.04) * self.shift


@dataclass(frozen=True)
class Panel:
    """Curves by their label over values of a setting; linear are those without generator."""

    title: str
    key: str
    values: Sequence[object]
    curves: Mapping[str, Curve]
    linear: Mapping[str, Curve]


def series_panel(name: str, rows: Sequence[Row]) -> tuple[list[Panel], dict[str, Look]]:
    """PSNR against the knob, a line for each arm and noise level of a series' rows."""
    rows = [row for row in rows if not row.missing]
    labels = [row.arm.label + row.measurement.noise for row in rows]
    values = [row.measurement.value for row in rows]
    curves: dict[str, dict[str, Gain]] = {}
    linear: dict[str, dict[str, Gain]] = {}
    for row, label, value in zip(rows, labels, values):
        if row.psnr:
            curves.setdefault(label, {}).setdefault(str(value), row.psnr)
        estimate = row.estimates["lmmse_psnr_db"]
        if estimate:  # every arm has the same: the first one's is drawn
            line = linear.setdefault(LINEAR + row.measurement.noise, {})
            line.setdefault(str(value), estimate)
    panel = Panel(
        f"{name}; {counts(rows)} images",
        rows[0].measurement.knob,
        sorted({*values}),
        {label: through(points) for label, points in curves.items()},
        {label: through(points) for label, points in linear.items()},
    )
    return [panel], looks_of((label, label) for label in labels)


def planned_panels(
    rows: Sequence[Row], figure: Mapping, published: Mapping
) -> tuple[list[Panel], dict[str, Look]]:
    """A panel for each task or measurement of `rtil.reporting.gaps.planned_rows`.

    Args:
        figure: the experiment's `figure`.
        published: {"what", task: {"value": [...], arm: [...]}}, or empty.
    """
    panels: dict[str, list[Row]] = {}
    for row in rows:
        panels.setdefault(row.planned.panel, []).append(row)
    by_value = figure["x"] == "value"
    made = []
    for name, mine in panels.items():
        key = mine[0].measurement.knob if by_value else figure["x"]
        paper = published.get(name, {}) if by_value else {}
        curves = {}
        for line in dict.fromkeys(row.planned.line for row in mine):
            own = [row for row in mine if row.planned.line == line]
            curves[line] = curve_of(own, paper.get("value", ()), paper.get(line, ()))
        linear = {
            str(row.planned.x): row.estimates["lmmse_psnr_db"]
            for row in reversed(mine)
            if row.estimates.get("lmmse_psnr_db") and row.planned.x is not None
        }
        values = [*(row.planned.x for row in mine), *paper.get("value", ())]
        known = {LINEAR: through(linear)} if linear else {}
        made.append(Panel(f"{title(mine[0])}; {counts(mine)}", key, values, curves, known))
    return made, looks_of((row.arm.name, row.planned.line) for row in rows)


def through(estimates: Mapping[str, Gain]) -> Curve:
    """A line through estimates."""
    return Curve([Point(x, gain) for x, gain in estimates.items()])


def curve_of(rows: Sequence[Row], values: Sequence, published: Sequence) -> Curve:
    """One line of an experiment's panel, and what the paper's figure has at these values."""
    points = []
    for row in rows:
        oracle = row.estimates.get("oracle_psnr_db")
        x = None if row.planned.x is None else str(row.planned.x)
        points.append(Point(x, row.psnr, oracle.mean if oracle else None))
    # The marker of a value that the paper's figure hides is left out.
    return Curve(points, {str(x): value for x, value in zip(values, published) if value})


def draw_panels(
    panels: Sequence[Panel], looks: Mapping[str, Look], path: Path, what: str = ""
) -> None:
    """Draws panels of curves over one legend; `what` says what the published curves are of."""
    wide = min(len(panels), 3)
    high = -(-len(panels) // wide)
    width = max(8.4, 4.9 * wide)  # inches
    fig = Figure(dpi=DPI, layout="constrained")
    axes = fig.subplots(high, wide, squeeze=False).flatten()
    paper = f"paper ({what})"
    for ax in axes[len(panels) :]:
        ax.set_axis_off()
    for ax, panel in zip(axes, panels):
        draw_panel(ax, panel, looks, paper)
    entries = legend(axes, looks, paper)
    columns = legend_columns(width, entries)
    rows = -(-len(entries) // columns)
    fig.set_size_inches(width, 4.3 * high + 0.5 + 0.25 * rows)
    place = {"loc": "outside lower center", "fontsize": 10.5, "ncols": columns}
    fig.legend(entries.values(), entries.keys(), **place)
    fig.savefig(path)


def draw_panel(ax: Axes, panel: Panel, looks: Mapping[str, Look], paper: str) -> None:
    """Draws the curves of a panel, that without a generator in grey."""
    scale = scale_x(ax, panel.values, axis_of(panel.key))
    for number, (line, look) in enumerate(looks.items()):
        if line in panel.curves:
            shifted = replace(scale, shift=number - (len(looks) - 1) / 2)
            draw(ax, line, panel.curves[line], look, shifted, paper)
    for line, curve in panel.linear.items():
        draw(ax, line, curve, Look(GREY, "."), scale)
    ax.set_title(panel.title, fontsize=12)
    ax.set_ylabel("PSNR [dB], mean and 95 % interval", fontsize=12)
    ax.tick_params(labelsize=11)
    ax.grid(True, color=GRID, linewidth=0.8)


def draw(ax: Axes, line: str, curve: Curve, look: Look, scale: Scale, paper: str = "") -> None:
    """Draws a curve: its intervals, its oracle dotted, crosses at the foot for what is missing.

    What the paper's figure shows is dashed. A point without x runs across.
    """
    colour = look.color
    there = [point for point in curve.points if point.gain and point.x is not None]
    there.sort(key=lambda point: scale.places[point.x])
    if there:
        x = [scale.at(point.x) for point in there]
        means = [point.gain.mean for point in there]
        halves = [point.gain.half for point in there]
        style = "-." if look.color == GREY else "-"
        ax.errorbar(
            x, means, halves, label=line, capsize=4, linewidth=1.8, linestyle=style, **asdict(look)
        )
        if any(point.oracle is not None for point in there):
            best = [point.oracle for point in there]
            label = f"{line}, {ORACLE}"
            ax.plot(x, best, color=colour, linestyle=":", linewidth=1.3, label=label)
    for point in curve.points:
        if point.gain and point.x is None:
            low, high = point.gain.mean - point.gain.half, point.gain.mean + point.gain.half
            ax.axhspan(low, high, color=colour, alpha=0.12, linewidth=0)
            ax.axhline(point.gain.mean, color=colour, linewidth=1.8, label=line)
    gaps = [
        scale.at(point.x, wide=True)
        for point in curve.points
        if point.gain is None and point.x is not None
    ]
    if gaps:
        ax.plot(
            gaps,
            [0.03] * len(gaps),
            color=colour,
            marker="x",
            linestyle="",
            markersize=9,
            transform=ax.get_xaxis_transform(),
            label=f"{line}, {MISSING}",
        )
    if curve.published:
        ax.plot(
            [scale.places[x] for x in curve.published],
            [*curve.published.values()],
            color=colour,
            linestyle="--",
            linewidth=1.3,
            marker=".",
            markersize=5,
            label=f"{line}, {paper}",
        )


def legend(axes: Iterable[Axes], looks: Mapping[str, Look], paper: str) -> dict[str, object]:
    """{text: handle}: every line of `looks`, then once each what is drawn in their colours."""
    handles = {text: h for ax in axes for h, text in zip(*ax.get_legend_handles_labels())}
    entries = {
        line: handles.get(line) or Line2D([], [], **asdict(look)) for line, look in looks.items()
    }
    kinds = {
        ORACLE: {"linestyle": ":"},
        paper: {"linestyle": "--", "marker": "."},
        MISSING: {"linestyle": "", "marker": "x", "markersize": 9},
    }
    of_lines = set()
    for kind, look in kinds.items():
        labels = {f"{line}, {kind}" for line in looks}
        of_lines |= labels
        if labels & handles.keys():
            entries[kind] = Line2D([], [], color="black", **look)
    rest = {text: h for text, h in handles.items() if text not in entries.keys() | of_lines}
    return entries | rest


def title(row: Row) -> str:
    """What a panel shows: its task, or its measurement."""
    at = row.measurement
    if row.planned.panel == at.task:
        return TASKS.get(at.task, at.task)
    axis = axis_of(at.knob)
    return f"m/n = {axis.tick(at.value)} %" if axis.percent else row.planned.panel


def counts(rows: Sequence[Row]) -> str:
    """For example "n = 36" or "n = 2 to 36 of 36 planned"."""
    known = sorted({row.n for row in rows})
    text = f"n = {known[0]}" + (f" to {known[-1]}" if known[1:] else "")
    planned = max((row.planned.images for row in rows if row.planned), default=0)
    return text + (f" of {planned} planned" if known[0] < planned else "")


def scale_x(ax: Axes, values: Iterable, axis: Axis) -> Scale:
    """Sets up the x axis for these values; says where each, as text, is drawn.

    Numbers stand in order, lists of stages by the layer they reach, z_k. Of values too close
    together to be written, the ends of the axis are, or the first ones.
    """
    known = {str(value): value for value in values if value is not None}
    if axis.log:
        places = {x: (1 / float(v) if axis.inverse else float(v)) for x, v in known.items()}
        ticks = {places[x]: axis.tick(float(value)) for x, value in known.items()}
        low, high = min(ticks), max(ticks)
        ax.set(xscale="log", xlim=(low / 1.3, high * 1.3))
        shown = legible(ticks, log(1.69 * high / low))
        ticks = {place: text if place in shown else "" for place, text in ticks.items()}
    else:
        order = sorted(known, key=lambda x: depth(known[x]))
        places = {x: float(number) for number, x in enumerate(order)}
        ticks = {
            places[x]: f"$z_{len(known[x]) - 1}$" if isinstance(known[x], list) else x
            for x in order
        }
        ax.set_xlim(-0.5, max(len(order) - 0.5, 0.5))
    ax.set_xlabel(axis.label, fontsize=12)
    ax.xaxis.set_minor_locator(NullLocator())
    ax.set_xticks([*ticks], [*ticks.values()])
    return Scale(places, axis.log)


def depth(value: object) -> object:
    """What values of a setting are sorted by."""
    return len(value) if isinstance(value, list) else value


def legible(ticks: Mapping[float, str], span: float) -> set[float]:
    """Places of a logarithmic axis, e^span long, whose texts do not run into each other."""
    width = span * PER_CHARACTER
    shown: dict[float, str] = {}
    for place in dict.fromkeys((max(ticks), min(ticks), *ticks)):
        text = ticks[place]
        if all(
            abs(log(place / other)) > width * ((len(text) + len(near)) / 2 + 1)
            for other, near in shown.items()
        ):
            shown[place] = text
    return set(shown)
