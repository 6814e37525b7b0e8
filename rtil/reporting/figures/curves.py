"""PSNR curves: of a series over its knob, and an experiment's panels in the paper's order."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from math import isnan, log, nan
from pathlib import Path
from typing import Any

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
)
from rtil.reporting.statistics import Gain

PER_CHARACTER = 0.024  # width of a tick label's character, of the axis
LINEAR, LINEAR_LOOK = "LMMSE, no generator", Look(GREY, ".", "-.")
# What is drawn of a line beside its estimates, and how, in the order of the legend.
ORACLE, PAPER, MISSING = "oracle (no result)", "paper", "missing"
KINDS: dict[str, dict[str, Any]] = {
    ORACLE: {"linestyle": ":"},
    PAPER: {"linestyle": "--", "marker": "."},
    MISSING: {"linestyle": "", "marker": "x", "markersize": 9},
}


@dataclass
class Curve:
    """One line: (text of x, estimate, the oracle's mean or NaN), and where it has no estimate.

    across are estimates without x, such as those of a generator without the axis' σ; published
    is {text of x: PSNR} of the paper's figure.
    """

    points: list[tuple[str, Gain, float]] = field(default_factory=list)
    published: dict[str, float] = field(default_factory=dict)
    missing: list[str] = field(default_factory=list)
    across: list[Gain] = field(default_factory=list)


@dataclass(frozen=True)
class Panel:
    """Curves by their label over values of a setting; linear are those without generator."""

    title: str
    key: str
    values: Sequence[Any]
    curves: Mapping[str, Curve]
    linear: Mapping[str, Curve]


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


def panels_of(rows: Iterable[Row], x: str = "value", published: Mapping = {}) -> list[Panel]:
    """A panel for each that rows have their place in.

    Args:
        x: the setting of the axis, or "value", the knob.
        published: {"what", panel: {"value": [...], line: [...]}}, or empty.
    """
    groups: dict[str, list[Row]] = defaultdict(list)
    for row in rows:
        # What is missing of a series is in its table; an experiment's figure has crosses for it.
        if row.planned or not row.missing:
            groups[row.place.panel].append(row)
    panels = []
    for name, mine in groups.items():
        paper = published.get(name, {}) if x == "value" else {}
        curves: dict[str, Curve] = defaultdict(Curve)
        linear: dict[str, dict[str, Gain]] = defaultdict(dict)
        for row in mine:
            add(curves[row.place.line], row)
            estimate = row.estimates.get("lmmse_psnr_db")
            if estimate and row.place.x is not None:  # every arm's is the same: the first one's
                linear[LINEAR + row.measurement.noise].setdefault(str(row.place.x), estimate)
        for line, curve in curves.items():
            values = zip(paper.get("value", ()), paper.get(line, ()))
            # The marker of a value that the paper's figure hides is left out.
            curve.published = {str(at): value for at, value in values if value}
        without = {
            label: Curve([(at, gain, nan) for at, gain in estimates.items()])
            for label, estimates in linear.items()
        }
        title = f"{TASKS.get(name, name)}; {counts(mine)}"
        key = mine[0].measurement.knob if x == "value" else x
        places = [*(row.place.x for row in mine), *paper.get("value", ())]
        panels.append(Panel(title, key, places, curves, without))
    return panels


def add(curve: Curve, row: Row) -> None:
    """Adds what a row has, or that it is missing, to the curve of its line."""
    x, oracle = row.place.x, row.estimates.get("oracle_psnr_db")
    if row.psnr and x is None:
        curve.across.append(row.psnr)
    elif row.psnr:
        mean = oracle.mean if oracle and row.planned else nan
        curve.points.append((str(x), row.psnr, mean))
    elif x is not None:
        curve.missing.append(str(x))


def draw_panels(
    panels: Sequence[Panel], looks: Mapping[str, Look], path: Path, what: str = ""
) -> None:
    """Draws panels of curves over one legend; `what` says what the published curves are of."""
    columns = min(len(panels), 3)
    lines = -(-len(panels) // columns)
    width = max(8.4, 4.9 * columns)  # inches
    fig = Figure(dpi=DPI, layout="constrained")
    axes = fig.subplots(lines, columns, squeeze=False).flatten()
    for ax in axes[len(panels) :]:
        ax.set_axis_off()
    for ax, panel in zip(axes, panels):
        draw_panel(ax, panel, looks)
    entries = legend(axes, looks, what)
    ncols = legend_columns(width, entries)
    fig.set_size_inches(width, 4.3 * lines + 0.5 + 0.25 * -(-len(entries) // ncols))
    place: dict[str, Any] = {"loc": "outside lower center", "fontsize": 10.5}
    fig.legend([*entries.values()], [*entries], ncols=ncols, **place)
    fig.savefig(path)


def draw_panel(ax: Axes, panel: Panel, looks: Mapping[str, Look]) -> None:
    """Draws the curves of a panel, those without a generator in grey."""
    scale = scale_x(ax, panel.values, axis_of(panel.key))
    for number, (line, look) in enumerate(looks.items()):
        if line in panel.curves:
            # Sideways, to keep the bars of several lines at one x apart.
            shift = number - (len(looks) - 1) / 2
            draw(ax, line, panel.curves[line], look, replace(scale, shift=shift))
    for line, curve in panel.linear.items():
        draw(ax, line, curve, LINEAR_LOOK, scale)
    ax.set_title(panel.title, fontsize=12)
    ax.set_ylabel("PSNR [dB], mean and 95 % interval", fontsize=12)
    ax.tick_params(labelsize=11)
    ax.grid(True, color=GRID, linewidth=0.8)


def draw(ax: Axes, line: str, curve: Curve, look: Look, scale: Scale) -> None:
    """Draws a curve: its intervals, its oracle dotted, the paper's dashed, crosses for gaps."""

    def plot(kind: str, x: Sequence[float], y: Sequence[float], **more: Any) -> None:
        style = KINDS[kind] | more
        ax.plot(x, y, color=look.color, label=f"{line}, {kind}", **style)

    points = sorted(curve.points, key=lambda point: scale.places[point[0]])
    if points:
        x = [scale.at(text) for text, _, _ in points]
        means, halves = zip(*((gain.mean, gain.half) for _, gain, _ in points))
        ax.errorbar(x, means, halves, label=line, capsize=4, linewidth=1.8, **asdict(look))
        oracle = [mean for _, _, mean in points]
        if not all(map(isnan, oracle)):
            plot(ORACLE, x, oracle, linewidth=1.3)
    # No value of the axis' setting: the estimate holds for all of them.
    for gain in curve.across:
        low, high = gain.mean - gain.half, gain.mean + gain.half
        ax.axhspan(low, high, color=look.color, alpha=0.12, linewidth=0)
        ax.axhline(gain.mean, color=look.color, linewidth=1.8, label=line)
    if curve.missing:
        x = [scale.at(text, wide=True) for text in curve.missing]
        plot(MISSING, x, [0.03] * len(x), transform=ax.get_xaxis_transform())
    if curve.published:
        x = [scale.places[text] for text in curve.published]
        plot(PAPER, x, [*curve.published.values()], linewidth=1.3, markersize=5)


def legend(axes: Iterable[Axes], looks: Mapping[str, Look], what: str) -> dict[str, Any]:
    """{text: handle}: every line of `looks`, then once each what is drawn in their colours."""
    handles = {text: h for ax in axes for h, text in zip(*ax.get_legend_handles_labels())}
    entries: dict[str, Any] = {
        line: handles.pop(line, None) or Line2D([], [], **asdict(look))
        for line, look in looks.items()
    }
    for kind, style in KINDS.items():
        drawn = [handles.pop(f"{line}, {kind}", None) for line in looks]
        if any(drawn):
            text = f"{PAPER} ({what})" if kind == PAPER else kind
            entries[text] = Line2D([], [], color="black", **style)
    return entries | handles


def counts(rows: Sequence[Row]) -> str:
    """For example "n = 36 images" or "n = 2 to 36 of 36 planned"."""
    known = sorted({row.n for row in rows})
    text = f"n = {known[0]}" + (f" to {known[-1]}" if known[1:] else "")
    planned = max(row.planned for row in rows)
    return text + (f" of {planned} planned" if known[0] < planned else " images")


def scale_x(ax: Axes, values: Iterable[Any], axis: Axis) -> Scale:
    """Sets up the x axis for these values; says where each, as text, is drawn.

    Numbers stand in order, lists of stages by the layer they reach, z_k. Of values too close
    together to be written, the ends of the axis are, or the first ones.
    """
    known = {str(value): value for value in values if value is not None}
    if axis.log:
        places = {x: 1 / float(v) if axis.inverse else float(v) for x, v in known.items()}
        ticks = {places[x]: axis.tick(float(value)) for x, value in known.items()}
        low, high = min(ticks), max(ticks)
        ax.set(xscale="log", xlim=(low / 1.3, high * 1.3))
        shown = legible(ticks, log(1.69 * high / low))
        # A tick without its text still shows where a value stands.
        ticks = {place: text if place in shown else "" for place, text in ticks.items()}
    else:
        stages = {x: len(value) for x, value in known.items() if isinstance(value, list)}
        order = sorted(known, key=lambda x: stages.get(x, known[x]))
        places = {x: float(number) for number, x in enumerate(order)}
        ticks = {places[x]: f"$z_{stages[x] - 1}$" if x in stages else x for x in order}
        ax.set_xlim(-0.5, max(len(order) - 0.5, 0.5))
    ax.set_xlabel(axis.label, fontsize=12)
    ax.xaxis.set_minor_locator(NullLocator())
    ax.set_xticks([*ticks], [*ticks.values()])
    return Scale(places, axis.log)


def legible(ticks: Mapping[float, str], span: float) -> set[float]:
    """Places of a logarithmic axis, e^span long, whose texts do not run into each other."""
    shown: set[float] = set()
    # The ends first, which a reader needs to read the others.
    for place in dict.fromkeys((max(ticks), min(ticks), *ticks)):
        letters = {other: (len(ticks[place]) + len(ticks[other])) / 2 + 1 for other in shown}
        gaps = {other: abs(log(place / other)) / (span * PER_CHARACTER) for other in shown}
        if all(gaps[other] > letters[other] for other in shown):
            shown.add(place)
    return shown
