"""Rows of images, such as samples and reconstructions, in one figure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from rtil.reporting.figures.style import DPI, GREY

SIDE = 1.05  # inches of an image


@dataclass(frozen=True)
class ImageRow:
    """One row of a mosaic: images (H, W, 3) in [0, 1], None where there is none."""

    label: str
    images: Sequence[np.ndarray | None]
    captions: Sequence[str]


def draw_mosaic(rows: Sequence[ImageRow], path: Path) -> None:
    """Draws rows of equal length."""
    heads = [0.2 if any(row.captions) else 0.04 for row in rows]  # above a row, in sides
    width, height = len(rows[0].images), sum(heads) + len(rows)
    left = 0.3 + 0.088 * max(len(row.label.replace("$", "")) for row in rows)  # inches
    size = (left + SIDE * width + 0.1, SIDE * height + 0.2)
    fig = Figure(figsize=size, dpi=DPI)
    w, h = SIDE * width / size[0], SIDE * height / size[1]
    ax = fig.add_axes((left / size[0], 0.1 / size[1], w, h))
    y = 0.0
    for row, head in zip(rows, heads):
        y += head
        ax.text(-0.08, y + 0.48, row.label, ha="right", va="center", fontsize=11)
        for column, (image, caption) in enumerate(zip(row.images, row.captions)):
            middle = column + 0.49
            ax.text(middle, y - 0.02, caption, ha="center", va="bottom", fontsize=9.5)
            if image is None:
                ax.text(middle, y + 0.48, "none", ha="center", va="center", color=GREY)
                continue
            # The longer side fills the place, whatever the image's shape.
            h, w = (0.98 * n / max(image.shape[:2]) for n in image.shape[:2])
            x0, y0 = column + (0.98 - w) / 2, y + (0.98 - h) / 2
            ax.imshow(image, interpolation="nearest", extent=(x0, x0 + w, y0 + h, y0))
        y += 1
    ax.set(xlim=(0, width), ylim=(height, 0))
    ax.set_axis_off()
    fig.savefig(path)
