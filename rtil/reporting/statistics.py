"""Means, paired differences and their intervals, from frames of images by seeds.

What is averaged over what is said in templates/reading.md. Which runs are compared is decided in
`rtil.reporting.arrange`. A further metric is a name in METRICS and a column in
`rtil.reporting.tables`.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
import pandas as pd

from rtil.metrics.intervals import Mean
from rtil.reporting.sections import NONE
from rtil.runs.run import Run, is_number

METRICS = (
    "psnr_db",
    "ssim",
    "lpips",
    "gradient_energy",
    "oracle_psnr_db",
    "last_psnr_db",
    "last_ssim",
    "lmmse_psnr_db",
    "lmmse_ssim",
    "lmmse_gradient_energy",
)
# Runs of version 0.1 have none of these, and nothing is said of them there.
LATER = ("ssim_valid", "st_lpips", "last_ssim_valid", "lmmse_ssim_valid", "lmmse_st_lpips")
PAIRED = ("psnr_db", "ssim", "ssim_valid", "st_lpips")


def estimate(values: Sequence[float] | np.ndarray) -> Mean | None:
    """Mean and interval, if any."""
    return Mean.of(values) if len(values) else None


def written(mean: Mean | None, digits: int = 2, sign: str = "", unit: str = "") -> str:
    """An estimate as text; with a unit, "n=" or " seeds", its count follows."""
    if mean is None:
        return NONE
    count = f"n={mean.n}" if unit == "n=" else f"{mean.n}{unit}"
    return mean.text(f".{digits}f", sign) + (f" ({count})" if unit else "")


def scores(runs: Iterable[Run], metric: str) -> pd.DataFrame:
    """A row for each image, a column for the seed of each run that has the metric."""
    columns: dict[int | str, dict[str, float]] = {}
    for run in runs:
        values = run.columns.get(metric, {})
        numbers = {image: float(value) for image, value in values.items() if is_number(value)}
        if numbers:
            columns[run.seed] = numbers
    images = sorted({image for numbers in columns.values() for image in numbers})
    table = [[numbers.get(image, np.nan) for numbers in columns.values()] for image in images]
    return pd.DataFrame(np.array(table).reshape(len(images), len(columns)), images, [*columns])


def known(runs: Sequence[Run], metrics: Iterable[str]) -> list[str]:
    """The metrics that are told of runs: those of 0.1 always, later ones where runs have them."""
    columns = {key for run in runs for key in run.columns}
    return [metric for metric in metrics if metric not in LATER or metric in columns]


Means = dict[int | str, float]  # by seed


def estimates_of(mine: Sequence[Run], base: Sequence[Run], sets: int) -> dict[str, Mean | None]:
    """Estimates of the runs of an arm by metric.

    "gain_" is a paired difference to the baseline over images, with "_seeds" over seeds, and
    "sets" PSNR over sets of images.

    Args:
        base: the baseline's runs, if any.
        sets: size of the sets; 0: none.
    """
    values = {metric: scores(mine, metric) for metric in known(mine, (*METRICS, *LATER))}
    estimates = {metric: over_images(own) for metric, own in values.items()}
    linear = differences(values["lmmse_psnr_db"], values["psnr_db"])
    estimates["lmmse_gain_psnr_db"] = over_images(linear)
    if sets:
        estimates["sets"] = over_images(values["psnr_db"], sets)
    for metric in known(mine, PAIRED):
        pairs = gains(mine, base, metric)
        estimates[f"gain_{metric}"] = over_images(pairs)
        estimates[f"gain_{metric}_seeds"] = over_seeds(by_seed(pairs), mine, base)
    return estimates


def gains(mine: Iterable[Run], base: Iterable[Run], metric: str) -> pd.DataFrame:
    """Paired differences of an arm to the baseline."""
    return differences(scores(mine, metric), scores(base, metric))


def by_seed(pairs: pd.DataFrame) -> Means:
    """The mean of each seed over the images that it pairs."""
    return {seed: float(np.mean(pairs[seed].dropna().to_numpy())) for seed in pairs.columns}


def over_images(values: pd.DataFrame, size: int = 1) -> Mean | None:
    """Estimate over images in the order of their ids, each averaged over the seeds that hold it.

    Args:
        size: of the sets of images that are averaged first; n counts sets, and images beyond the
            last full one are left out.
    """
    if values.empty:
        return None
    table = values.to_numpy()
    held, means = ~np.isnan(table), np.empty(len(table))
    # By the seeds that hold an image. pandas' mean rounds otherwise.
    for seeds in np.unique(held, axis=0):
        rows = (held == seeds).all(axis=1)
        means[rows] = np.ascontiguousarray(table[rows][:, seeds]).mean(axis=1)
    if size > 1:
        full = len(means) - len(means) % size
        means = np.array([np.mean(one) for one in means[:full].reshape(-1, size)])
    return estimate(means)


def differences(mine: pd.DataFrame, theirs: pd.DataFrame) -> pd.DataFrame:
    """mine - theirs of the seeds and images that both have.

    Runs of other seeds have another operator, other noise and another training, so that nothing
    pairs them.
    """
    # In the order of mine: numpy's sums round by it.
    seeds = [seed for seed in mine.columns if seed in theirs.columns]
    images = mine.index.intersection(theirs.index)
    a, b = (_entries(frame, images, seeds) for frame in (mine, theirs))
    with np.errstate(invalid="ignore"):
        # Two infinite PSNRs are equal, though their difference is not a number.
        pairs = np.where(a == b, 0.0, a - b)
    there = ~np.isnan(pairs)
    rows, columns = np.flatnonzero(there.any(axis=1)), np.flatnonzero(there.any(axis=0))
    kept = [seeds[column] for column in columns]
    return pd.DataFrame(pairs[rows][:, columns], images[rows], kept)


def _entries(frame: pd.DataFrame, images: pd.Index, seeds: Sequence[int | str]) -> np.ndarray:
    """Of a frame, the rows of images and the columns of seeds that it has."""
    rows = frame.index.get_indexer(images)
    columns = np.array([[*frame.columns].index(seed) for seed in seeds], dtype=int)
    return frame.to_numpy().take(rows, axis=0).take(columns, axis=1)


def over_seeds(means: Means, *arms: Sequence[Run]) -> Mean | None:
    """Estimate of the means of the seeds of an arm and its baseline.

    None below two seeds, which have no interval, and where seeds share a generator: other random
    numbers are no other training.
    """
    for runs in arms:
        digests = [run.config.get("generator_sha256") for run in runs if run.seed in means]
        known = [digest for digest in digests if digest]  # earlier runs do not say theirs
        if len({*known}) < len(known):
            return None
    return estimate([*means.values()]) if len(means) > 1 else None
