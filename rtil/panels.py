"""The figure of an experiment: panels of PSNR curves in the paper's arrangement."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import NullLocator

from rtil.figures import COLOURS, DPI, GREY, MARKERS

TASKS = {"cs": "compressed sensing", "sr": "super-resolution"}
AXES = {
    "inverter.steps": "last layer optimised",
    "inverter.block": "block after which codes are mixed",
    "rtil.family.sigma": "σ of the maps injected in training",
}


def panels(rows: Sequence[Mapping], figure: Mapping, published: Mapping, path: Path) -> None:
    """Draws records of `rtil.planned.complete`, a panel for each task or measurement.

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
    order = [*dict.fromkeys(row["line"] for row in rows)]
    looks = {line: {"color": COLOURS[i % len(COLOURS)], "marker": MARKERS[i % len(MARKERS)]}
             for i, line in enumerate(order)}
    for ax in axes[len(names):]:
        ax.set_axis_off()
    for ax, name in zip(axes, names):
        mine = [row for row in rows if row["panel"] == name]
        there = published.get(name, {}) if figure["x"] == "value" else {}
        places = scale_x(ax, [*(row["x"] for row in mine), *there.get("value", ())],
                         mine[0]["knob"] if figure["x"] == "value" else figure["x"])
        draw(ax, mine, looks, places)
        for arm, values in there.items():
            if arm in looks:
                points = [(places[str(x)], v) for x, v in zip(there["value"], values) if v]
                ax.plot(*zip(*points), color=looks[arm]["color"], linestyle="--", linewidth=1.3,
                        label=f"{arm}, paper ({published['what']})")
        ax.set_title(f"{TASKS.get(name, name)}; {counts(mine)}", fontsize=12)
        ax.set_ylabel("PSNR [dB]", fontsize=12)
        ax.tick_params(labelsize=11)
        ax.grid(True, color="#dddddd", linewidth=0.8)
    handles = {text: h for ax in axes for h, text in zip(*ax.get_legend_handles_labels())}
    legend = {text: handles[text] for text in sorted(handles, key=lambda t: t not in looks)}
    fig.legend(legend.values(), legend.keys(), loc="outside lower center", fontsize=10.5,
               ncols=min(wide, 3))
    fig.savefig(path)


def scale_x(ax: Axes, values: Iterable, key: str) -> dict[str, float]:
    """Sets up the x axis for these values; returns where each, as text, is drawn.

    Ratios and factors stand on a logarithmic axis with more measurements to the right, anything
    else at equal distances: numbers in order, lists of stages by the layer they reach, z_k.
    """
    known = {str(v): v for v in values if v is not None}
    if key in ("ratio", "factor"):
        places = {t: float(v) if key == "ratio" else 1 / float(v) for t, v in known.items()}
        ticks = {p: f"{100 * p:g}" if key == "ratio" else f"1/{1 / p:g}" for p in places.values()}
        low, high = min(places.values()), max(places.values())
        ax.set(xscale="log", xlim=(low / 1.3, high * 1.3))
        ax.set_xlabel("measurements m/n [%]" if key == "ratio" else "down-sampling per side",
                      fontsize=12)
    else:
        order = sorted(known, key=lambda t: len(known[t]) if isinstance(known[t], list)
                       else known[t])
        places = {t: float(i) for i, t in enumerate(order)}
        ticks = {places[t]: f"$z_{len(known[t]) - 1}$" if isinstance(known[t], list) else t
                 for t in order}
        ax.set_xlim(-0.5, max(len(order) - 0.5, 0.5))
        ax.set_xlabel(AXES.get(key, key), fontsize=12)
    ax.xaxis.set_minor_locator(NullLocator())
    ax.set_xticks([*ticks], [*ticks.values()])
    return places


def draw(ax: Axes, rows: Sequence[Mapping], looks: Mapping, places: Mapping[str, float]) -> None:
    """The lines of one panel."""
    for number, (line, look) in enumerate(looks.items()):
        shift = number - (len(looks) - 1) / 2  # sideways, to keep error bars at one x apart
        mine = [row for row in rows if row["line"] == line]
        across = [row for row in mine if row["x"] is None and "n" in row]
        there = sorted((places[str(row["x"])], i, row) for i, row in enumerate(mine)
                       if row["x"] is not None and "n" in row)
        if there:
            x, _, found = zip(*there)
            means, halves = zip(*((r["psnr_db"]["mean"], r["psnr_db"]["ci95"]) for r in found))
            x = [p * 1.012**shift if ax.get_xscale() == "log" else p + 0.02 * shift for p in x]
            ax.errorbar(x, means, halves, label=line, capsize=4, linewidth=1.8, **look)
            oracle = [r["oracle_psnr_db"]["mean"] if r["oracle_psnr_db"] else None for r in found]
            ax.plot(x, oracle, color=look["color"], linestyle=":", linewidth=1.3,
                    label=f"{line}, oracle (no result)")
        for row in across:
            mean, half = row["psnr_db"]["mean"], row["psnr_db"]["ci95"]
            ax.axhspan(mean - half, mean + half, color=look["color"], alpha=0.12, linewidth=0)
            ax.axhline(mean, color=look["color"], linewidth=1.8, label=line)
        gaps = [places[str(row["x"])] for row in mine if "n" not in row and row["x"] is not None]
        gaps = [p * 1.03**shift if ax.get_xscale() == "log" else p + 0.1 * shift for p in gaps]
        if gaps:
            ax.plot(gaps, [0.03] * len(gaps), color=look["color"], marker="x", linestyle="",
                    markersize=9, transform=ax.get_xaxis_transform(), label=f"{line}, missing")
    linear = {places[str(row["x"])]: row["lmmse_psnr_db"]["mean"] for row in rows[::-1]
              if row.get("lmmse_psnr_db") and row["x"] is not None}
    if linear:
        ax.plot([*sorted(linear)], [linear[x] for x in sorted(linear)], color=GREY, marker=".",
                linestyle="-.", label="LMMSE, no generator")


def counts(rows: Sequence[Mapping]) -> str:
    """For example "n = 36" or "n = 2 to 36 of 36 planned"."""
    found = sorted({row.get("n", 0) for row in rows})
    text = "n = " + (f"{found[0]} to {found[-1]}" if found[1:] else f"{found[0]}")
    planned = max((row.get("planned", 0) for row in rows), default=0)
    return text + (f" of {planned} planned" if found != [planned] and planned else "")
