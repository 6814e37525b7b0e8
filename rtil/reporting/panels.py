"""The figure of an experiment: panels of PSNR curves in the paper's arrangement."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from math import log
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.colors import to_hex, to_rgb
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import NullLocator

from rtil.reporting.figures import COLOURS, DPI, GREY, MARKERS

TASKS = {"cs": "compressed sensing", "sr": "super-resolution"}
AXES = {
    "inverter.steps": "last layer optimised",
    "inverter.block": "block after which codes are mixed",
    "rtil.family.sigma": "σ of the maps injected in training",
}
PER_CHARACTER = 0.024  # width of a tick label's character, of the axis
ORACLE, MISSING = "oracle (no result)", "missing"


def panels(rows: Sequence[Mapping], figure: Mapping, published: Mapping, path: Path) -> None:
    """Draws records of `rtil.reporting.planned.complete`, a panel for each task or measurement.

    Each line has its 95 % intervals, its oracle dotted, a cross on the axis for what is missing,
    and dashed what the paper's figure shows for that arm. A line without the x axis's setting (a
    generator that has no σ) runs across.

    Args:
        rows: the records, in order.
        figure: the experiment's `figure`.
        published: {"what", task: {"value": [...], arm: [...]}}, or empty.
        path: of the PNG.
    """
    names = [*dict.fromkeys(row["panel"] for row in rows)]
    wide = min(len(names), 3)
    high = -(-len(names) // wide)
    fig = Figure(figsize=(max(6.8, 4.9 * wide), 4.3 * high + 1.1), dpi=DPI, layout="constrained")
    axes = fig.subplots(high, wide, squeeze=False).flatten()
    looks, paper = looks_of(rows), f"paper ({published.get('what')})"
    for ax in axes[len(names) :]:
        ax.set_axis_off()
    for ax, name in zip(axes, names):
        mine = [row for row in rows if row["panel"] == name]
        there = published.get(name, {}) if figure["x"] == "value" else {}
        key = mine[0]["knob"] if figure["x"] == "value" else figure["x"]
        places = scale_x(ax, [*(row["x"] for row in mine), *there.get("value", ())], key)
        draw(ax, mine, looks, places)
        for arm, values in there.items():
            if arm in looks:  # the marker of a value that the paper's figure hides is left out
                points = [(places[str(x)], v) for x, v in zip(there["value"], values) if v]
                ax.plot(
                    *zip(*points),
                    color=looks[arm]["color"],
                    linestyle="--",
                    linewidth=1.3,
                    marker=".",
                    markersize=5,
                    label=f"{arm}, {paper}",
                )
        ax.set_title(f"{title(mine[0], name)}; {counts(mine)}", fontsize=12)
        ax.set_ylabel("PSNR [dB], mean and 95 % interval", fontsize=12)
        ax.tick_params(labelsize=11)
        ax.grid(True, color="#dddddd", linewidth=0.8)
    entries = legend(axes, looks, paper)
    of_an_arm = len(looks) // len({row["arm"] for row in rows})
    column = of_an_arm if of_an_arm > 1 else len(looks)  # an arm's lines, or all of them
    fig.legend(
        entries.values(),
        entries.keys(),
        loc="outside lower center",
        fontsize=10.5,
        ncols=-(-len(entries) // column),
    )
    fig.savefig(path)


def looks_of(rows: Iterable[Mapping]) -> dict[str, dict]:
    """Colour and marker of each line: a colour an arm, light to dark over its lines.

    Arms with several lines (numbers of codes) share their markers.
    """
    arms: dict[str, dict[str, None]] = {}
    for row in rows:
        arms.setdefault(row["arm"], {})[row["line"]] = None
    looks = {}
    for a, lines in enumerate(arms.values()):
        for i, line in enumerate(lines):
            white = 0.75 * (1 - (i + 1) / len(lines))
            colour = [white + (1 - white) * c for c in to_rgb(COLOURS[a % len(COLOURS)])]
            marker = MARKERS[(i if len(lines) > 1 else a) % len(MARKERS)]
            looks[line] = {"color": to_hex(colour), "marker": marker}
    return looks


def legend(axes: Iterable[Axes], looks: Mapping[str, Mapping], paper: str) -> dict[str, object]:
    """{text: handle}: every line of `looks`, then once each what is drawn in their colours."""
    handles = {text: h for ax in axes for h, text in zip(*ax.get_legend_handles_labels())}
    found = {line: handles.get(line) or Line2D([], [], **look) for line, look in looks.items()}
    kinds = {
        ORACLE: {"linestyle": ":"},
        paper: {"linestyle": "--", "marker": "."},
        MISSING: {"linestyle": "", "marker": "x", "markersize": 9},
    }
    for kind, look in kinds.items():
        if any(f"{line}, {kind}" in handles for line in looks):
            found[kind] = Line2D([], [], color="black", **look)
    of_lines = {f"{line}, {kind}" for line in looks for kind in kinds}
    return found | {text: h for text, h in handles.items() if text not in {*found, *of_lines}}


def title(row: Mapping, panel: str) -> str:
    """What a panel shows: its task, or its measurement."""
    if panel == row["task"]:
        return TASKS.get(panel, panel)
    knob, value = row["knob"], row["value"]
    return f"m/n = {100 * value:g} %" if knob == "ratio" else panel


def scale_x(ax: Axes, values: Iterable, key: str) -> dict[str, float]:
    """Sets up the x axis for these values; returns where each, as text, is drawn.

    Ratios and factors stand on a logarithmic axis with more measurements to the right, anything
    else at equal distances: numbers in order, lists of stages by the layer they reach, z_k. Of
    values too close together to be written, the ends of the axis are, or the first ones.
    """
    known = {str(v): v for v in values if v is not None}
    if key in ("ratio", "factor"):
        places = {t: float(v) if key == "ratio" else 1 / float(v) for t, v in known.items()}
        ticks = {p: f"{100 * p:g}" if key == "ratio" else f"1/{1 / p:g}" for p in places.values()}
        low, high = min(places.values()), max(places.values())
        ax.set(xscale="log", xlim=(low / 1.3, high * 1.3))
        ticks = {
            p: text if p in legible(ticks, log(1.69 * high / low)) else ""
            for p, text in ticks.items()
        }
        ax.set_xlabel(
            "measurements m/n [%]" if key == "ratio" else "down-sampling per side", fontsize=12
        )
    else:
        order = sorted(
            known, key=lambda t: len(known[t]) if isinstance(known[t], list) else known[t]
        )
        places = {t: float(i) for i, t in enumerate(order)}
        ticks = {
            places[t]: f"$z_{len(known[t]) - 1}$" if isinstance(known[t], list) else t
            for t in order
        }
        ax.set_xlim(-0.5, max(len(order) - 0.5, 0.5))
        ax.set_xlabel(AXES.get(key, key), fontsize=12)
    ax.xaxis.set_minor_locator(NullLocator())
    ax.set_xticks([*ticks], [*ticks.values()])
    return places


def legible(ticks: Mapping[float, str], span: float) -> set[float]:
    """Places of a logarithmic axis, e^span long, whose texts do not run into each other."""
    width = span * PER_CHARACTER
    kept: dict[float, str] = {}
    for place in dict.fromkeys((max(ticks), min(ticks), *ticks)):
        text = ticks[place]
        if all(
            abs(log(place / p)) > width * ((len(text) + len(t)) / 2 + 1) for p, t in kept.items()
        ):
            kept[place] = text
    return set(kept)


def draw(ax: Axes, rows: Sequence[Mapping], looks: Mapping, places: Mapping[str, float]) -> None:
    """The lines of one panel."""
    for number, (line, look) in enumerate(looks.items()):
        shift = number - (len(looks) - 1) / 2  # sideways, to keep error bars at one x apart
        mine = [row for row in rows if row["line"] == line]
        across = [row for row in mine if row["x"] is None and "n" in row]
        there = sorted(
            (places[str(row["x"])], i, row)
            for i, row in enumerate(mine)
            if row["x"] is not None and "n" in row
        )
        if there:
            x, _, found = zip(*there)
            means, halves = zip(*((r["psnr_db"]["mean"], r["psnr_db"]["ci95"]) for r in found))
            x = [p * 1.02**shift if ax.get_xscale() == "log" else p + 0.04 * shift for p in x]
            ax.errorbar(x, means, halves, label=line, capsize=4, linewidth=1.8, **look)
            oracle = [r["oracle_psnr_db"]["mean"] if r["oracle_psnr_db"] else None for r in found]
            ax.plot(
                x,
                oracle,
                color=look["color"],
                linestyle=":",
                linewidth=1.3,
                label=f"{line}, {ORACLE}",
            )
        for row in across:
            mean, half = row["psnr_db"]["mean"], row["psnr_db"]["ci95"]
            ax.axhspan(mean - half, mean + half, color=look["color"], alpha=0.12, linewidth=0)
            ax.axhline(mean, color=look["color"], linewidth=1.8, label=line)
        gaps = [places[str(row["x"])] for row in mine if "n" not in row and row["x"] is not None]
        gaps = [p * 1.03**shift if ax.get_xscale() == "log" else p + 0.1 * shift for p in gaps]
        if gaps:
            ax.plot(
                gaps,
                [0.03] * len(gaps),
                color=look["color"],
                marker="x",
                linestyle="",
                markersize=9,
                transform=ax.get_xaxis_transform(),
                label=f"{line}, {MISSING}",
            )
    linear = {
        places[str(row["x"])]: row["lmmse_psnr_db"]["mean"]
        for row in rows[::-1]
        if row.get("lmmse_psnr_db") and row["x"] is not None
    }
    if linear:
        ax.plot(
            [*sorted(linear)],
            [linear[x] for x in sorted(linear)],
            color=GREY,
            marker=".",
            linestyle="-.",
            label="LMMSE, no generator",
        )


def counts(rows: Sequence[Mapping]) -> str:
    """For example "n = 36" or "n = 2 to 36 of 36 planned"."""
    found = sorted({row.get("n", 0) for row in rows})
    text = "n = " + (f"{found[0]} to {found[-1]}" if found[1:] else f"{found[0]}")
    planned = max((row.get("planned", 0) for row in rows), default=0)
    return text + (f" of {planned} planned" if found[0] < planned else "")
