"""Every comparison of several tables in one figure, a band for each table."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from rtil.reporting.claims import MATTERS_DB, Comparison, Families
from rtil.reporting.figures.style import COLOURS, DPI, GREY, GRID, MARKERS, plain

WIDTH = 8.4  # inches
EDGES = (-3.5, 7.0)  # dB; an interval beyond is cut
LINE = 0.085  # inches of a comparison


def draw_overview(
    bands: Mapping[str, Sequence[Comparison]],
    protocols: Mapping[str, str],
    all_shown: Families,
    path: Path,
) -> None:
    """Draws the gain of each comparison with its 95 % interval, filled where it survives.

    Args:
        bands: {name: comparisons} from top to bottom.
        protocols: {name: text of the legend}; other protocols are left out.
    """
    kept = {
        name: [one for one in own if one.row.protocol in protocols] for name, own in bands.items()
    }
    lines = sum(map(len, kept.values())) + 2 * len(kept)
    fig = Figure(figsize=(WIDTH, 1.2 + LINE * lines), dpi=DPI, layout="constrained")
    ax = fig.subplots()
    ax.axvspan(-MATTERS_DB, MATTERS_DB, color=GRID, alpha=0.5, linewidth=0)
    ax.axvline(0, color=GREY, linewidth=1)
    y, middles = 0, []
    for own in kept.values():
        middles.append(y + (len(own) - 1) / 2)
        for number, protocol in enumerate(protocols):
            for one in (one for one in own if one.row.protocol == protocol):
                _draw(ax, one, y, number, all_shown.survives(one))
                y += 1
        ax.axhline(y + 0.5, color=GRID, linewidth=0.8)
        y += 2
    for number, text in enumerate(protocols.values()):
        color, marker = COLOURS[number], MARKERS[number]
        ax.plot([], [], color=color, marker=marker, markersize=5, label=plain(text))
    ax.set_yticks(middles, [plain(name).replace(": ", "\n") for name in kept])
    ax.set_ylim(y - 1, -1)
    ax.set_xlim(*EDGES)
    ax.tick_params(axis="y", labelsize=9, length=0)
    ax.set_xlabel("Δ PSNR [dB]; filled: survives Holm's correction", fontsize=10)
    fig.legend(fontsize=10, loc="outside lower center", ncols=len(protocols))
    fig.savefig(path)


def _draw(ax: Axes, comparison: Comparison, y: float, number: int, filled: bool) -> None:
    """A point and its interval; dotted where it is over the images of one training."""
    color, gain = COLOURS[number], comparison.gain
    style = "-" if comparison.family == "trainings" else ":"
    low, high = gain.mean - gain.ci95, gain.mean + gain.ci95
    ax.plot([low, high], [y, y], color=color, linewidth=1.1, linestyle=style)
    face = color if filled else "white"
    ax.plot(gain.mean, y, color=face, markeredgecolor=color, marker=MARKERS[number], markersize=4)
