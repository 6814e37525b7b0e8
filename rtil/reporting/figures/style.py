"""How every figure of rtil looks: colours, markers, and how settings are named on an axis."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass

from matplotlib.colors import to_hex, to_rgb

# Distinguishable with every common colour blindness (Okabe and Ito 2008), yellow left out.
COLOURS = ("#D55E00", "#0072B2", "#009E73", "#CC79A7", "#56B4E9", "#E69F00", "#000000")
MARKERS, GREY, GRID, DPI = "osD^vPX", "#666666", "#dddddd", 144
# How tasks and settings are named in a figure, where not as in configs.
TASKS = {"cs": "compressed sensing", "sr": "super-resolution"}
LINES = {"inverter.num_codes": "N"}


@dataclass(frozen=True)
class Axis:
    """How the values of a setting stand on an x axis.

    On a logarithmic one they stand by their value, or by 1 over it, so that more measurements are
    to the right; else at equal distances.
    """

    label: str
    log: bool = False
    percent: bool = False
    inverse: bool = False

    def tick(self, value: float) -> str:
        if self.inverse:
            return f"1/{value:g}"
        return f"{100 * value:g}" if self.percent else f"{value:g}"


# Any other setting stands under its own key.
AXES = {
    "ratio": Axis("measurements m/n [%]", log=True, percent=True),
    "factor": Axis("down-sampling per side", log=True, inverse=True),
    "blur_std": Axis("std of the blur [pixels]", log=True),
    "noise_std": Axis("std of the noise [of [0, 1] images]"),
    "inverter.steps": Axis("last layer optimised"),
    "inverter.block": Axis("block after which codes are mixed"),
    "rtil.family.sigma": Axis("σ of the maps injected in training"),
}


@dataclass(frozen=True)
class Look:
    """A line, in matplotlib's words."""

    color: str
    marker: str
    linestyle: str = "-"


def plain(text: str) -> str:
    """A name, no part of it a formula."""
    return text.replace("$", r"\$")


def looks_of(lines: Iterable[tuple[str, str]]) -> dict[str, Look]:
    """Looks of (arm, line): a colour an arm, light to dark over its lines.

    Arms with several lines (numbers of codes) share their markers.
    """
    arms: dict[str, dict[str, None]] = {}
    for arm, line in lines:
        arms.setdefault(arm, {})[line] = None
    looks = {}
    for number, own in enumerate(arms.values()):
        for i, line in enumerate(own):
            white = 0.75 * (1 - (i + 1) / len(own))
            base = to_rgb(COLOURS[number % len(COLOURS)])
            red, green, blue = (white + (1 - white) * channel for channel in base)
            color = to_hex((red, green, blue))
            marker = MARKERS[(i if len(own) > 1 else number) % len(MARKERS)]
            looks[line] = Look(color, marker)
    return looks


def legend_columns(inches: float, labels: Collection[str]) -> int:
    """Columns of a legend so wide."""
    fit = int(10.7 * inches) // (8 + max(map(len, labels)))
    return min(max(1, fit), len(labels))
