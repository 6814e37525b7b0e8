"""The weight of a latent's prior beside the data term: maximum a posteriori inversion.

The best iterate of an inverter is still that with the lowest data term, which fits the noise most
closely; what the sum converges to is its last.
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from rtil.inverters.data_term import MeasurementLoss
from rtil.inverters.inverter import Loss
from rtil.latents.space import MapScale

POSTERIOR = "posterior"


def check_map(who: str, weight: str | float | None, noise_std: float) -> None:
    """Checks `map`, before any work.

    Raises:
        ValueError: neither null, "posterior" with known noise, nor a positive number.
    """
    number = isinstance(weight, int | float) and not isinstance(weight, bool) and weight > 0
    if not (weight in (None, POSTERIOR) or number):
        raise ValueError(f"{who}: map={weight!r} must be null, posterior or a number above 0.")
    if weight == POSTERIOR and not noise_std > 0:
        raise ValueError(
            f"{who}: map=posterior weighs the prior against Gaussian noise of known size, and "
            f"noise_std={noise_std}. Set noise_std above 0, or map to a number."
        )


def prior_weight(weight: str | float | None, loss: Loss, noise_std: float) -> float:
    """Factor of -log p(z) beside the data term; 0 for none.

    "posterior" is `MeasurementLoss.nat`, so that data term + factor (-log p(z)) is the negative
    log-posterior of z in units of the data term, up to a constant:

        mse ||A x - y||^2 / m + (2 mse s^2 / m) ||z||^2 / (2 sigma^2)
            = (2 mse s^2 / m) (||A x - y||^2 / (2 s^2) + ||z||^2 / (2 sigma^2)),

    with s = 2 noise_std, m the measurements that the loss sees, and z ~ N(0, sigma^2 I).

    Args:
        weight: None, "posterior" or the factor itself.
        loss: the data term.
        noise_std: of the measurements, in units of the [0, 1] image.

    Raises:
        TypeError: "posterior" with a data term that does not know its weights.
        ValueError: as MeasurementLoss.nat.
    """
    if weight is None:
        return 0.0
    if weight != POSTERIOR:  # a number stands for itself, whatever the noise
        return float(weight)
    if not isinstance(loss, MeasurementLoss):
        raise TypeError(
            f"map=posterior needs a MeasurementLoss, which knows its weight and m; got "
            f"{type(loss).__name__}. Give map as a number instead."
        )
    return loss.nat(noise_std)


def half_square(z: Tensor) -> Tensor:
    """||z||^2 / 2 of each of a batch (B, ...): -log N(z; 0, I) up to a constant, (B,)."""
    return z.square().flatten(1).sum(1) / 2


def per_stage(value: float | Sequence[float], stages: int) -> list[float]:
    """A setting that is one number for all stages, or one for each."""
    if isinstance(value, int | float):
        return [float(value)] * stages
    return [float(x) for x in value]


def common_scale(who: str, scales: list[MapScale]) -> tuple[float | list[float], bool]:
    """The sigma of each z_k, one number where they are equal, and whether they are relative.

    Raises:
        ValueError: some are relative and some are not.
    """
    sigmas = [scale.sigma for scale in scales]
    if len({scale.relative for scale in scales}) > 1:
        raise ValueError(
            f"{who}: training drew z_k with {scales}, some relative to the features and some not; "
            "give inverter.map_sigma and inverter.map_relative."
        )
    return sigmas[0] if len(set(sigmas)) == 1 else sigmas, scales[0].relative
