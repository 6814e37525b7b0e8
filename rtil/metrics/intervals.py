"""Means with their confidence intervals. No torch: reports use them too."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from math import isnan

import numpy as np


@dataclass(frozen=True)
class Mean:
    """Mean of n values and half-width of its 95 % interval (`mean_ci`), nan for n = 1."""

    mean: float
    ci95: float
    n: int

    @classmethod
    def of(cls, values: Sequence[float] | np.ndarray) -> Mean:
        return cls(*mean_ci(values), len(values))

    def text(self, form: str, sign: str = "") -> str:
        """As "+1.20 ± 0.30", both in a form such as ".2f"; one value has no interval."""
        half = "" if isnan(self.ci95) else f" ± {self.ci95:{form}}"
        return f"{self.mean:{sign}{form}}{half}"


def mean_ci(values: Sequence[float] | np.ndarray, confidence: float = 0.95) -> tuple[float, float]:
    """Mean and half-width of its Student t confidence interval, t_{n-1} s / sqrt(n).

    Args:
        values: (n,) one number per image, n at least 1, none of them NaN.
        confidence: coverage in (0, 1).

    Returns:
        (mean, half_width); half_width is nan for n = 1 and for infinite values.
    """
    values = np.asarray(values, dtype=np.float64)
    if values.ndim != 1 or values.size == 0:
        raise ValueError(
            f"mean_ci: got values of shape {values.shape}; it needs a list of one or more numbers."
        )
    if np.isnan(values).any():
        raise ValueError(
            f"mean_ci: {np.isnan(values).sum()} of {values.size} values are NaN, the first at "
            f"{np.isnan(values).argmax()}; leave those images out by name before averaging."
        )
    if not 0 < confidence < 1:
        raise ValueError(f"mean_ci: confidence={confidence}; it must be in (0, 1).")
    mean = float(values.mean())
    if values.size < 2 or not np.isfinite(values).all():
        return mean, float("nan")
    error = values.std(ddof=1) / np.sqrt(values.size)
    return mean, float(quantile((1 + confidence) / 2, values.size - 1) * error)


@lru_cache
def quantile(share: float, freedom: int) -> float:
    """Of Student's t with so many degrees of freedom: it is below this with probability share."""
    from scipy.special import stdtrit

    return float(stdtrit(freedom, share))
