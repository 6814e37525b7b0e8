"""PSNR curves: of a series over its knob, and an experiment's panels in the paper's order."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from math import log, nan
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import NullLocator

from rtil.metrics.intervals import Mean
from rtil.reporting.arrange import Row, grouped
from rtil.reporting.figures import style
from rtil.reporting.figures.style import DPI, GREY, GRID, Axis, Look

PER_CHARACTER = 0.024  # width of a tick label's character, of the axis
LINEAR, LINEAR_LOOK = "LMMSE, no generator", Look(GREY, ".", "-.")
# What is drawn of a line beside its estimates, and how, in the order of the legend.
ORACLE, PAPER, MISSING = "oracle (no result)", "paper", "missing"
KINDS: dict[str, dict[str, Any]] = {
    ORACLE: {"linestyle": ":"},
    PAPER: {"linestyle": "--", "marker": "."},
    MISSING: {"linestyle": "", "marker": "x", "markersize": 9},
}


@dataclass(frozen=True)
class Pen:
    """Draws one line of a panel."""

    ax: Axes
    places: Mapping[str, float]
    log: bool
    line: str = ""
    look: Look = LINEAR_LOOK
    shift: float = 0.0

    def at(self, x: object, wide: bool = False) -> float:
        """Place of the line's bar, beside those of others, or of its cross, which is wider."""
        place = self.places[str(x)]
        if self.log:
            return place * (1.03 if wide else 1.02) ** self.shift
        return place + (0.1 if wide else 0.04) * self.shift

    def bars(self, x: Sequence[float], gains: Sequence[Mean]) -> None:
        """Draws means with intervals."""
        means = [gain.mean for gain in gains]
        half = [gain.ci95 for gain in gains]
        bars: dict[str, Any] = {"capsize": 4, "linewidth": 1.8, **asdict(self.look)}
        if gains:
            self.ax.errorbar(x, means, half, label=style.plain(self.line), **bars)

    def band(self, gain: Mean) -> None:
        """Draws what holds for every x."""
        low, high = gain.mean - gain.ci95, gain.mean + gain.ci95
        self.ax.axhspan(low, high, color=self.look.color, alpha=0.12, linewidth=0)
        label = style.plain(self.line)
        self.ax.axhline(gain.mean, color=self.look.color, linewidth=1.8, label=label)

    def plot(self, kind: str, x: Sequence[float], y: Sequence[float]) -> None:
        """Draws what has no interval."""
        looks: dict[str, Any] = {"linewidth": 1.3, "markersize": 5} | KINDS[kind]
        if kind == MISSING:  # at the foot of the panel
            looks["transform"] = self.ax.get_xaxis_transform()
        if y:
            self.ax.plot(
                x, y, color=self.look.color, label=f"{style.plain(self.line)}, {kind}", **looks
            )


def draw_panels(rows: Sequence[Row], path: Path, x: str, published: Mapping) -> None:
    """Draws a panel for each that rows have their place in, over one legend.

    Args:
        x: the setting of the axis, or "value", the knob.
        published: {"what", panel: {"value": [...], line: [...]}}, or empty.
    """
    # A colour for each line of a series: there may be many of one arm.
    looks = style.looks_of((row.arm if row.planned else row.line, row.line) for row in rows)
    panels = grouped(rows, lambda row: row.panel)
    columns = min(len(panels), 3)
    lines = -(-len(panels) // columns)
    width = max(8.4, 4.9 * columns)  # inches
    fig = Figure(dpi=DPI, layout="constrained")
    axes = fig.subplots(lines, columns, squeeze=False).flatten()
    for ax in axes[len(panels) :]:
        ax.set_axis_off()
    for ax, (name, own) in zip(axes, panels.items()):
        paper = published.get(name, {}) if x == "value" else {}
        key = own[0].measurement.knob if x == "value" else x
        draw_panel(ax, own, looks, key, paper)
        task = style.TASKS.get(name, style.plain(name))
        ax.set_title(f"{task}; {counts(own)}", fontsize=12)
    entries = legend(axes, looks, str(published.get("what")))
    ncols = style.legend_columns(width, entries)
    fig.set_size_inches(width, 4.3 * lines + 0.5 + 0.25 * -(-len(entries) // ncols))
    place: dict[str, Any] = {"loc": "outside lower center", "fontsize": 10.5}
    fig.legend([*entries.values()], [*entries], ncols=ncols, **place)
    fig.savefig(path)


def draw_panel(
    ax: Axes, rows: Sequence[Row], looks: Mapping[str, Look], key: str, paper: Mapping
) -> None:
    """Draws every line, and LMMSE in grey."""
    values = [*(row.x for row in rows), *paper.get("value", ())]
    pen = scale_x(ax, values, style.AXES.get(key, Axis(key)))
    for number, (line, look) in enumerate(looks.items()):
        own = [row for row in rows if row.line == line]
        shift = number - (len(looks) - 1) / 2
        if own:
            draw_line(replace(pen, line=line, look=look, shift=shift), own, paper)
    linear: dict[str, dict[float, Mean]] = defaultdict(dict)
    for row in rows:
        estimate = row.estimates.get("lmmse_psnr_db")
        if estimate and row.x is not None:  # every arm's is the same: the first one's
            linear[LINEAR + row.measurement.noise].setdefault(pen.at(row.x), estimate)
    for line, estimates in linear.items():
        x = sorted(estimates)
        replace(pen, line=line).bars(x, [estimates[at] for at in x])
    ax.set_ylabel("PSNR [dB], mean and 95 % interval", fontsize=12)
    ax.tick_params(labelsize=11)
    ax.grid(True, color=GRID, linewidth=0.8)


def draw_line(pen: Pen, rows: Sequence[Row], paper: Mapping) -> None:
    """Draws a line: its intervals, its oracle dotted, the paper's dashed, crosses for gaps."""
    with_x = [row for row in rows if row.x is not None]
    points = sorted((row for row in with_x if row.psnr), key=lambda row: pen.at(row.x))
    x = [pen.at(row.x) for row in points]
    pen.bars(x, [row.psnr for row in points if row.psnr])
    oracle = [row.estimates["oracle_psnr_db"] for row in points if row.planned]
    if any(oracle):
        pen.plot(ORACLE, x, [gain.mean if gain else nan for gain in oracle])
    # No value of the axis' setting: the estimate holds for all of them.
    for row in rows:
        if row.psnr and row.x is None:
            pen.band(row.psnr)
    crosses = [pen.at(row.x, wide=True) for row in with_x if not row.psnr]
    pen.plot(MISSING, crosses, [0.03] * len(crosses))
    values = zip(paper.get("value", ()), paper.get(pen.line, ()))
    # The marker of a value that the paper's figure hides is left out.
    shown = {pen.places[str(at)]: value for at, value in values if value}
    pen.plot(PAPER, [*shown], [*shown.values()])


def legend(axes: Iterable[Axes], looks: Mapping[str, Look], what: str) -> dict[str, Any]:
    """{text: handle}: every line of `looks`, then once each what is drawn in their colours."""
    looks = {style.plain(line): look for line, look in looks.items()}
    handles = {text: h for ax in axes for h, text in zip(*ax.get_legend_handles_labels())}
    entries: dict[str, Any] = {
        line: handles.pop(line, None) or Line2D([], [], **asdict(look))
        for line, look in looks.items()
    }
    for kind, looks_as in KINDS.items():
        drawn = [handles.pop(f"{line}, {kind}", None) for line in looks]
        if any(drawn):
            text = f"{PAPER} ({what})" if kind == PAPER else kind
            entries[text] = Line2D([], [], color="black", **looks_as)
    return entries | handles


def counts(rows: Sequence[Row]) -> str:
    """For example "n = 36 images" or "n = 2 to 36 of 36 planned"."""
    known = sorted({row.n for row in rows})
    text = f"n = {known[0]}" + (f" to {known[-1]}" if known[1:] else "")
    planned = max(row.planned for row in rows)
    return text + (f" of {planned} planned" if known[0] < planned else " images")


def scale_x(ax: Axes, values: Iterable[Any], axis: Axis) -> Pen:
    """Sets up the x axis for these values; the pen knows where each, as text, is drawn.

    Numbers stand in order, lists of stages by the layer they reach, z_k. Of values too close
    together to be written, the ends of the axis are, or the first ones.
    """
    known = {str(value): value for value in values if value is not None}
    log_scale = axis.log and all(float(value) > 0 for value in known.values())
    if log_scale:
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
    return Pen(ax, places, log_scale)


def legible(ticks: Mapping[float, str], span: float) -> set[float]:
    """Places of a logarithmic axis, e^span long, whose texts do not run into each other."""

    def apart(one: float, other: float) -> bool:
        letters = (len(ticks[one]) + len(ticks[other])) / 2 + 1
        gap = abs(log(one / other)) / span
        return gap > letters * PER_CHARACTER

    shown: set[float] = set()
    # The ends first, which a reader needs to read the others.
    for place in dict.fromkeys((max(ticks), min(ticks), *ticks)):
        if all(apart(place, other) for other in shown):
            shown.add(place)
    return shown
