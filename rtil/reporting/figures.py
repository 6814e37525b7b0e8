"""Curves, mosaics of images and samples of the report: no sorting of runs, no statistics, no HTML.

To add a picture, write a function that writes a PNG and call it in `rtil.report.report`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import matplotlib
import numpy as np
import torch
from matplotlib.figure import Figure
from matplotlib.ticker import NullLocator
from PIL import Image

from rtil.latents.family import Family, shown_members
from rtil.metrics.image import to_unit
from rtil.models.generator import Generator
from rtil.process.rng import seeded

# Distinguishable with every common colour blindness (Okabe and Ito 2008), yellow left out.
COLOURS = ("#D55E00", "#0072B2", "#009E73", "#CC79A7", "#56B4E9", "#E69F00", "#000000")
MARKERS, GREY, DPI = "osD^vPX", "#666666", 144
AXES = {
    "ratio": "measurements m/n [%]",
    "factor": "down-sampling factor per side",
    "blur_std": "std of the blur [pixels]",
    "noise_std": "std of the noise [of [0, 1] images]",
}
ERROR_RANGE = 0.5  # of |x_hat - x| on [0, 1] images; larger errors are drawn alike


class Shown(NamedTuple):
    """An entry's pictures: label, folder, rows by image id, and those of its baseline if any."""

    label: str
    folder: Path
    rows: Mapping[str, Mapping]
    base: Mapping[str, Mapping] | None
    suffix: str = ""  # of its reconstructions' files: "-oracle" where an oracle selected them


class ImageRow(NamedTuple):
    """One row of a mosaic: images (H, W, 3) in [0, 1], None where there is none."""

    label: str
    images: Sequence[np.ndarray | None]
    captions: Sequence[str]


def curves(name: str, rows: Sequence[Mapping], path: Path) -> None:
    """Draws PSNR against the knob, a line for each entry and noise level of a series' records."""
    rows = [row for row in rows if "n" in row]
    knob, unit = rows[0]["knob"], 100 if rows[0]["knob"] == "ratio" else 1
    ticks = sorted({row["value"] * unit for row in rows})
    fig = Figure(figsize=(8.4, 5.2), dpi=DPI, layout="constrained")
    ax = fig.subplots()
    span = 1.35**2 * ticks[-1] / ticks[0] if knob != "noise_std" else 1.0
    if span > 1:
        ax.set(xscale="log", xlim=(ticks[0] / 1.35, ticks[-1] * 1.35))
    lines: dict[str, dict[float, tuple]] = {}
    for key, other in (("psnr_db", None), ("lmmse_psnr_db", "LMMSE, no generator")):
        for row in rows:
            if row[key]:  # the estimate without generator is every arm's: the first one's is drawn
                noise = "".join(row["measurement"].partition(",")[1:])
                line = lines.setdefault((other or row["label"]) + noise, {})
                line.setdefault(row["value"] * unit, (row[key]["mean"], row[key]["ci95"]))
    for i, (label, line) in enumerate(lines.items()):
        look = {"color": COLOURS[i % len(COLOURS)], "marker": MARKERS[i % len(MARKERS)]}
        shift = 0.008 * (i - len(lines) / 2 + 1)  # sideways, to keep error bars at one x apart
        if label.startswith("LMMSE"):
            look, shift = {"color": GREY, "marker": ".", "linestyle": "-."}, 0.0
        x, (means, halves) = np.array([*line]), np.array([*line.values()]).T
        ax.errorbar(x * span**shift, means, halves, label=label, capsize=4, linewidth=1.8, **look)
    ax.xaxis.set_minor_locator(NullLocator())
    ax.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
    ax.tick_params(labelsize=12)
    ax.set_xlabel(AXES[knob], fontsize=13)
    ax.set_ylabel("PSNR [dB], mean and 95 % interval", fontsize=13)
    ax.grid(True, color="#dddddd", linewidth=0.8)
    ax.legend(fontsize=11)
    counts = sorted({extreme(row["n"] for row in rows) for extreme in (min, max)})
    ax.set_title(f"{name}; n = {' to '.join(map(str, counts))} images", fontsize=13)
    fig.savefig(path)


def forest(name: str, rows: Sequence[Mapping], baseline: str, path: Path) -> None:
    """Draws the gain over the baseline at each measurement, a point for each arm and protocol.

    Thick bars are the 95 % interval over images, thin ones that over trainings.

    Args:
        rows: records with a gain, at least one (`rtil.reporting.gains.shown`).
    """
    labels = [*dict.fromkeys(row["label"] for row in rows)]
    order = sorted(rows, key=lambda row: (row["noise_std"], row["value"]))
    places = [*dict.fromkeys(row["measurement"] for row in order)]
    columns = max(1, 90 // (8 + max(map(len, labels))))  # of the legend, by letters that fit
    height = 1.2 + (0.2 + 0.26 * len(labels)) * len(places) + 0.25 * -(-len(labels) // columns)
    fig = Figure(figsize=(8.4, height), dpi=DPI, layout="constrained")
    ax = fig.subplots()
    ax.axvline(0, color=GREY, linewidth=1)
    known: set[str] = set()
    for row in rows:
        number = labels.index(row["label"])
        y = places.index(row["measurement"]) + 0.8 * ((number + 0.5) / len(labels) - 0.5)
        color, seeds = COLOURS[number % len(COLOURS)], row["gain_psnr_db_seeds"]
        for found, width, alpha in ((row["gain_psnr_db"], 6.0, 0.4), (seeds, 1.4, 1.0)):
            if found:
                ax.errorbar(
                    found["mean"],
                    y,
                    xerr=found["ci95"],
                    color=color,
                    linewidth=width,
                    alpha=alpha,
                    capsize=4 if found is seeds else 0,
                )
        ax.plot(
            row["gain_psnr_db"]["mean"],
            y,
            color="white",
            markeredgecolor=color,
            marker=MARKERS[number % len(MARKERS)],
            markersize=6.5,
            linestyle="",
            label=None if row["label"] in known else row["label"],
        )
        known.add(row["label"])
    ax.set_yticks(range(len(places)), places)
    ax.set_ylim(len(places) - 0.5, -0.5)
    for edge in range(1, len(places)):
        ax.axhline(edge - 0.5, color="#dddddd", linewidth=0.8)
    ax.tick_params(labelsize=11)
    ax.set_xlabel(f"Δ PSNR to {baseline} [dB]", fontsize=12)
    ax.grid(True, axis="x", color="#eeeeee", linewidth=0.8)
    fig.legend(fontsize=10, loc="outside lower center", ncols=columns)
    counts = sorted({extreme(row["gain_psnr_db"]["n"] for row in rows) for extreme in (min, max)})
    ax.set_title(f"{name}; n = {' to '.join(map(str, counts))} images", fontsize=12)
    fig.savefig(path)


def mosaic(rows: Sequence[ImageRow], path: Path, side: float = 1.05) -> None:
    """Draws equally long rows of images, side inches each, with labels and captions."""
    heads = [0.2 if any(row.captions) else 0.04 for row in rows]  # above a row, in sides
    width, height = len(rows[0].images), sum(heads) + len(rows)
    left = 0.3 + 0.088 * max(len(row.label.replace("$", "")) for row in rows)  # inches
    size = (left + side * width + 0.1, side * height + 0.2)
    fig = Figure(figsize=size, dpi=DPI)
    w, h = side * width / size[0], side * height / size[1]
    ax = fig.add_axes((left / size[0], 0.1 / size[1], w, h))
    y = 0.0
    for row, head in zip(rows, heads):
        y += head
        ax.text(-0.08, y + 0.48, row.label, ha="right", va="center", fontsize=11)
        for column, (image, caption) in enumerate(zip(row.images, row.captions)):
            ax.text(column + 0.49, y - 0.02, caption, ha="center", va="bottom", fontsize=9.5)
            if image is None:
                ax.text(column + 0.49, y + 0.48, "none", ha="center", va="center", color=GREY)
                continue
            h, w = (0.98 * n / max(image.shape[:2]) for n in image.shape[:2])
            x0, y0 = column + (0.98 - w) / 2, y + (0.98 - h) / 2
            ax.imshow(image, interpolation="nearest", extent=(x0, x0 + w, y0 + h, y0))
        y += 1
    ax.set(xlim=(0, width), ylim=(height, 0))
    ax.set_axis_off()
    fig.savefig(path)


@torch.no_grad()
def sample_rows(
    generators: Mapping[str, tuple[Generator, Family]],
    num_images: int,
    notes: list[str],
    own: bool = False,
) -> list[ImageRow]:
    """Samples of every generator from every member, on the same seeds.

    generators is {label: (G, its family)}; a member that cannot drive one is noted, not drawn.
    With `own`, each generator draws the members of its own family alone (paper, Fig. 9).
    """
    rows = []
    for label, (G, family) in generators.items():
        families = [family] if own else [f for _, f in generators.values()]
        for space in shown_members(families):
            try:
                space.check(G)
            except ValueError as error:
                notes.append(f"No samples of {label} from {space.name}: {error}")
                continue
            latents = space.sample(G, num_images, seeded("cpu", 0, "report samples"))
            images = to_unit(space.synthesize(G, latents)).expand(-1, 3, -1, -1)
            scale = space.map_scale(1)
            sigma = "" if scale is None else f", σ = {scale.sigma:g}"
            name = f"{label}  ${space.name}${sigma}"
            rows.append(ImageRow(name, [*images.permute(0, 2, 3, 1).numpy()], [""] * num_images))
    return rows


def image_rows(shown: Sequence[Shown], names: Sequence[str]) -> list[ImageRow]:
    """Original, measurement, LMMSE and each entry's reconstruction, with the PSNR of each."""
    parts = [
        ("original", shown, "-original", ""),
        ("measurement", shown, "-measurement", ""),
        ("LMMSE", shown, "-lmmse", "lmmse_psnr_db"),
        *((s.label, [s], s.suffix, "psnr_db") for s in shown),
    ]
    rows = []
    for label, where, suffix, key in parts:
        images = [picture(where, name, suffix) for name in names]
        if any(image is not None for image in images):
            rows.append(ImageRow(label, images, [decibel(where, name, key) for name in names]))
    return rows


def picture(shown: Sequence[Shown], name: str, suffix: str) -> np.ndarray | None:
    """The first of the files <name><suffix>.png that can be read, (H, W, 3) in [0, 1]."""
    for s in shown:
        try:
            with Image.open(s.folder / f"{name}{suffix}.png") as file:
                return np.asarray(file.convert("RGB"), dtype=np.float32) / 255
        except OSError:  # not written, or cut off while writing
            continue
    return None


def decibel(shown: Sequence[Shown], name: str, key: str) -> str:
    """The first value that an entry has for an image, as text."""
    values = (s.rows.get(name, {}).get(key) for s in shown)
    return next((f"{value:.2f} dB" for value in values if value is not None), "")


def error_map(x_hat: np.ndarray | None, x: np.ndarray | None) -> np.ndarray | None:
    """|x_hat - x|, mean over channels, as a heat map from 0 to ERROR_RANGE (H, W, 3)."""
    if x is None or x_hat is None or x_hat.shape != x.shape:
        return None
    error = np.abs(x_hat - x).mean(2)
    return matplotlib.colormaps["inferno"](np.minimum(error / ERROR_RANGE, 1))[..., :3]
