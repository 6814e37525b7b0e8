"""What held-out images tell of an inversion: rows of scores, pictures, and their summary.

Everything here sees the true image; nothing of it reaches an inverter.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor

from rtil.inversion.problem import Batch
from rtil.metrics.image import gradient_energy, psnr, ssim, ssim_valid, to_unit
from rtil.metrics.intervals import mean_ci
from rtil.metrics.perceptual import Perceptual, distance_of
from rtil.operators import ForwardOperator
from rtil.process.files import writing
from rtil.runs.truth import looks_at_truth

# Columns of images in [0, 1]. `ssim` is the one of version 0.1, with mirrored borders.
PIXELWISE: Mapping[str, Callable[[Tensor, Tensor], Tensor]] = {
    "gradient_energy": gradient_energy,
    "psnr_db": psnr,
    "ssim": ssim,
    "ssim_valid": ssim_valid,
}
Distances = Mapping[str, Perceptual | None]  # by column
# Of a normal distribution: the interval of so many per cent is so many standard deviations wide.
INTERVALS: Mapping[int, float] = {50: 0.6745, 90: 1.6449}


def score(names: Sequence[str], batch: Batch, selection: str, distances: Distances) -> list[dict]:
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
        **quality("", found.image, x, distances),
        "loss": found.loss.tolist(),
        **quality("last_", found.last, x, dict.fromkeys(distances)),
        "last_loss": found.last_loss.tolist(),
        "oracle_psnr_db": oracle.best.tolist(),
        **quality("lmmse_", linear, x, distances),
        **found.facts,
    }
    for prefix, image in found.others.items():
        columns |= quality(prefix, image, x, distances)
    if found.spread is not None:
        columns |= quality("sample_", found.spread.draws[0], x, distances)
        columns |= coverage(found.image, found.spread.std, x)
    if found.singles is not None:
        singles = [quality("single_", image, x, distances) for image in found.singles]
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
def quality(prefix: str, image: Tensor | None, x: Tensor, distances: Distances) -> dict[str, list]:
    """Gradient energy, PSNR, SSIM and perceptual distances of images (B, C, H, W) against x.

    A list of one value per image each; None where there is none, as the gradient energy of a
    constant x, or a distance without its network.
    """
    names = (*PIXELWISE, *distances)
    columns: dict[str, list] = {f"{prefix}{name}": [None] * len(x) for name in names}
    if image is None:
        return columns
    a, b = to_unit(image), to_unit(x)
    for name, metric in PIXELWISE.items():
        values = metric(a, b).tolist()
        # An infinite PSNR is one of equal images, infinite gradient energy is of a constant x.
        finite = metric is not gradient_energy
        columns[f"{prefix}{name}"] = [v if finite or math.isfinite(v) else None for v in values]
    for name, distance in distances.items():
        if distance is not None:
            columns[f"{prefix}{name}"] = distance(image.clamp(-1, 1), x).tolist()
    return columns


@torch.no_grad()
def coverage(image: Tensor, std: Tensor, x: Tensor) -> dict[str, list]:
    """Share of the pixels of x (B, C, H, W) inside each interval around the estimate.

    coverage_50 is 0.5 in the mean over images where the standard deviation is right.
    """
    error = (x - image).abs().flatten(1)
    columns = {}
    for percent, width in INTERVALS.items():
        inside = error <= width * std.flatten(1)
        columns[f"coverage_{percent}"] = inside.double().mean(1).tolist()
    return columns


def draw(
    folder: Path, names: Sequence[str], A: ForwardOperator, batch: Batch, selection: str
) -> None:
    """Writes <id>.png, or <id>-oracle.png, and its original, measurement and yardstick.

    Where the inverter knows its spread, also <id>-sample.png, a draw from the posterior, and
    <id>-std.png, whose white is a standard deviation of 0.5 of the [0, 1] image.
    """
    from torchvision.utils import save_image  # slow to import

    folder.mkdir(exist_ok=True)
    # The picture of a choice by the true image says so in its name: it is no result.
    suffix, spread = "-oracle" if looks_at_truth(selection) else "", batch.found.spread
    pictures = {
        suffix: batch.found.image,
        "-original": batch.measured.x,
        "-measurement": A.measurement_image(batch.measured.y),
        "-lmmse": None if batch.linear is None else batch.linear.image,
        "-sample": None if spread is None else spread.draws[0],
        "-std": None if spread is None else 2 * spread.std - 1,
    }
    for end, images in pictures.items():
        if images is None:
            continue
        for name, image in zip(names, to_unit(images)):
            path = folder / f"{name}{end}.png"
            with writing(path):
                save_image(image, path)


def summary(place: Path, rows: Sequence[Mapping]) -> str:
    """The means of all rows with their intervals, a line each."""
    chosen = "oracle " if any(looks_at_truth(row.get("selection")) for row in rows) else ""
    names = {
        "psnr_db": f"{chosen}PSNR",
        "last_psnr_db": "PSNR of the last iterate",
        "best_psnr_db": "PSNR of the lowest loss on what the inverter saw",
        "single_psnr_db": "mean PSNR of single starts",
        "generated_psnr_db": "PSNR before back-projection",
        "sample_psnr_db": "PSNR of a draw from the posterior",
        "oracle_psnr_db": "oracle PSNR (picked by the true image)",
        "lmmse_psnr_db": "PSNR of the LMMSE yardstick",
        "ssim_valid": f"{chosen}SSIM",
        "ssim": f"{chosen}SSIM with mirrored borders",
        "lpips": f"{chosen}LPIPS",
        "st_lpips": f"{chosen}ST-LPIPS",
        "gradient_energy": f"{chosen}gradient energy",
        "sample_gradient_energy": "gradient energy of a draw from the posterior",
        **{
            f"coverage_{percent}": f"share of pixels inside the {percent} % interval"
            for percent in INTERVALS
        },
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


def load_distances(
    settings: Mapping[str, bool | str], shape: Sequence[int]
) -> dict[str, Perceptual | None]:
    """The perceptual distances that scores are taken of, by the name of their column.

    Args:
        settings: `lpips_net`, the backbone, and for each distance true, false, or "auto": where
            its weights are on disk and the images suffice. None stands for one that is not taken.
        shape: (C, H, W) of the images.

    Raises:
        FileNotFoundError: wanted, and its weights are not on disk.
        ValueError: no such distance or backbone.
    """
    net = str(settings["lpips_net"])
    distances: dict[str, Perceptual | None] = {}
    for name, wanted in settings.items():
        if name == "lpips_net":
            continue
        kind = distance_of(name)
        distances[name] = None
        if wanted is False or (wanted == "auto" and not kind.fits(net, shape[1:])):
            continue
        try:
            distances[name] = kind(net)
        except FileNotFoundError:
            if wanted != "auto":
                raise
    return distances
