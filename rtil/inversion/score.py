"""What held-out images tell of an inversion: rows of scores, pictures, and their summary.

Everything here sees the true image; nothing of it reaches an inverter.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor

from rtil.inversion.problem import Batch
from rtil.metrics.image import gradient_energy, psnr, ssim, to_unit
from rtil.metrics.intervals import mean_ci
from rtil.metrics.perceptual import LPIPS, LPIPS_MIN_SIZES
from rtil.operators import ForwardOperator
from rtil.runs.truth import looks_at_truth

QUALITY = ("psnr_db", "ssim", "lpips", "gradient_energy")


def score(names: Sequence[str], batch: Batch, selection: str, lpips: LPIPS | None) -> list[dict]:
    """One row per image: the selected iterate, the last one, the oracle and the yardstick.

    What `Recovered` holds besides has columns of its own. Averages and back-projections trade
    sharpness for PSNR, so every image has its gradient energy beside its PSNR.

    Args:
        names: ids of the images.
        batch: with the true images.
        selection: name of the rule, for the rows.
    """
    x, found, oracle = batch.measured.x, batch.found, batch.measured.oracle
    assert x is not None and oracle is not None
    linear = None if batch.linear is None else batch.linear.image
    columns: dict[str, list] = {
        **quality("", found.image, x, lpips),
        "loss": found.loss.tolist(),
        **quality("last_", found.last, x, None),
        "last_loss": found.last_loss.tolist(),
        "oracle_psnr_db": oracle.best.tolist(),
        **quality("lmmse_", linear, x, lpips),
        **found.facts,
    }
    for prefix, image in found.others.items():
        columns |= quality(prefix, image, x, lpips)
    if found.singles is not None:
        singles = [quality("single_", image, x, lpips) for image in found.singles]
        for key in singles[0]:
            columns[key] = [mean(values) for values in zip(*(one[key] for one in singles))]
    rows = []
    for b, name in enumerate(names):
        scores = {key: values[b] for key, values in columns.items()}
        rows.append({"id": name, **scores, "seconds": batch.seconds, "selection": selection})
    return rows


def mean(values: Sequence[float | None]) -> float | None:
    """Mean over the starts of an image; None for a metric that is not measured."""
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if len(known) == len(values) else None


@torch.no_grad()
def quality(prefix: str, image: Tensor | None, x: Tensor, lpips: LPIPS | None) -> dict[str, list]:
    """PSNR, SSIM, gradient energy and, with a network, LPIPS of images (B, C, H, W) against x.

    A list of one value per image each; None where there is none, as the gradient energy of a
    constant x.
    """
    nothing = [None] * len(x)
    if image is None:
        return {f"{prefix}{key}": nothing for key in QUALITY}
    a, b = to_unit(image), to_unit(x)
    sharpness = gradient_energy(a, b).tolist()
    return {
        f"{prefix}gradient_energy": [v if math.isfinite(v) else None for v in sharpness],
        f"{prefix}psnr_db": psnr(a, b).tolist(),
        f"{prefix}ssim": ssim(a, b).tolist(),
        f"{prefix}lpips": lpips(image.clamp(-1, 1), x).tolist() if lpips else nothing,
    }


def draw(
    folder: Path, names: Sequence[str], A: ForwardOperator, batch: Batch, selection: str
) -> None:
    """Writes <id>.png, or <id>-oracle.png, and its original, measurement and yardstick."""
    from torchvision.utils import save_image  # slow to import

    folder.mkdir(exist_ok=True)
    # The picture of a choice by the true image says so in its name: it is no result.
    suffix = "-oracle" if looks_at_truth(selection) else ""
    pictures = {
        suffix: batch.found.image,
        "-original": batch.measured.x,
        "-measurement": A.measurement_image(batch.measured.y),
        "-lmmse": None if batch.linear is None else batch.linear.image,
    }
    for end, images in pictures.items():
        if images is None:
            continue
        for name, image in zip(names, to_unit(images)):
            save_image(image, folder / f"{name}{end}.png")


def summary(place: Path, rows: Sequence[Mapping]) -> str:
    """The means of all rows with their intervals, a line each."""
    chosen = "oracle " if any(looks_at_truth(row.get("selection")) for row in rows) else ""
    names = {
        "psnr_db": f"{chosen}PSNR",
        "last_psnr_db": "PSNR of the last iterate",
        "best_psnr_db": "PSNR of the lowest loss on what the inverter saw",
        "single_psnr_db": "mean PSNR of single starts",
        "generated_psnr_db": "PSNR before back-projection",
        "oracle_psnr_db": "oracle PSNR (picked by the true image)",
        "lmmse_psnr_db": "PSNR of the LMMSE yardstick",
        "ssim": f"{chosen}SSIM",
        "lpips": f"{chosen}LPIPS",
        "gradient_energy": f"{chosen}gradient energy",
    }
    lines = [f"{place}: {len(rows)} images"]
    for key, name in names.items():
        values = [row[key] for row in rows if row.get(key) is not None]
        if values:
            value, half = mean_ci(values)
            unit = " dB" if key.endswith("_db") else ""
            n = f"n = {len(values)}"
            # One image has no interval.
            known = not math.isnan(half)
            interval = f" +- {half:.3f}{unit}  (95 % CI, {n})" if known else f"{unit}  ({n})"
            lines.append(f"{name}: {value:.3f}{interval}")
    return "\n  ".join(lines)


def load_lpips(wanted: bool | str, net: str, shape: Sequence[int]) -> LPIPS | None:
    """The network for the scores, or None.

    Args:
        wanted: true, false, or "auto": where its backbone is on disk and the images suffice.
        net: backbone.
        shape: (C, H, W) of the images.

    Raises:
        FileNotFoundError: wanted, and its backbone is not on disk.
    """
    if wanted is False or (wanted == "auto" and min(shape[1:]) < LPIPS_MIN_SIZES[net]):
        return None
    try:
        return LPIPS(net)
    except FileNotFoundError:
        if wanted == "auto":
            return None
        raise
