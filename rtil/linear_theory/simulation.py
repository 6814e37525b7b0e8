"""Both problems of section 5 without their closed forms: samples, least squares, gradient descent.

W1 is learnt from samples of the true model, and signals are inverted by the ILO that inverts GANs.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from rtil.inverters.data_term import MeasurementLoss
from rtil.inverters.ilo import ILO
from rtil.linear_theory.closed_form import TRAIN, closed_form
from rtil.linear_theory.setup import Settings
from rtil.linear_theory.truth import Truth, draw_operator
from rtil.metrics.intervals import mean_ci
from rtil.models.linear import LinearGenerator, lower_bound
from rtil.operators import Dense
from rtil.process.progress import tracked
from rtil.process.rng import seeded

CHUNK = 10_000  # training samples held in memory at a time


@dataclass(frozen=True)
class Learnt:
    """|W1 - closed form| / |closed form| of W1 learnt from so many samples, in Frobenius norms."""

    problem: ClassVar[str] = "training"
    samples: int
    vanilla: float
    rtil: float


@dataclass(frozen=True)
class Inverted:
    """E|x* - x_hat|^2 of both models, in closed form and simulated with n signals.

    Attributes:
        ratio: m/nd. bound: of (4), below which no vanilla error lies.
        vanilla_ci95, rtil_ci95: half-widths of the 95 % intervals.
    """

    problem: ClassVar[str] = "inversion"
    ratio: float
    noise_std: float
    bound: float
    n: int
    vanilla: float
    rtil: float
    vanilla_simulated: float
    vanilla_ci95: float
    rtil_simulated: float
    rtil_ci95: float


def training(truth: Truth, settings: Settings) -> tuple[dict[str, Tensor], list[Learnt]]:
    """Lemmas 5.1 and B.1: W1 learnt from samples against its closed form.

    Returns:
        {"vanilla": W1, "rtil": W1} learnt from the last of num_train, and a row for each.
    """
    exact = {name: train(*truth) for name, train in TRAIN.items()}
    learnt: dict[str, Tensor] = {}
    rows = []
    for count in settings.num_train:
        learnt = learn(truth, count, seeded("cpu", settings.seed, "train", count))
        off = {name: float((learnt[name] - w1).norm() / w1.norm()) for name, w1 in exact.items()}
        rows.append(Learnt(count, **off))
    return learnt, rows


def inversion(truth: Truth, learnt: Mapping[str, Tensor], settings: Settings) -> list[Inverted]:
    """Lemma 5.2 and its form with noise: ILO on learnt weights against the closed form.

    Returns:
        A row for each noise level and, within it, each ratio.
    """
    operators = [draw_operator(settings.nd, ratio, settings.seed) for ratio in settings.ratios]
    simulated = {}
    for name, w1 in learnt.items():
        tracked_operators = tracked(operators, len(operators), "ratio", name)
        simulated[name] = [simulate(truth, w1, A, settings) for A in tracked_operators]
    bound = lower_bound(*truth)
    rows = []
    for i, noise_std in enumerate(settings.noises):
        for j, (ratio, A) in enumerate(zip(settings.ratios, operators)):
            vanilla, rtil = simulated["vanilla"][j][i], simulated["rtil"][j][i]
            rows.append(
                Inverted(
                    ratio,
                    noise_std,
                    bound,
                    settings.num_signals,
                    **closed_form(truth, A, noise_std),
                    vanilla_simulated=vanilla[0],
                    vanilla_ci95=vanilla[1],
                    rtil_simulated=rtil[0],
                    rtil_ci95=rtil[1],
                )
            )
    return rows


def learn(truth: Truth, count: int, rng: torch.Generator) -> dict[str, Tensor]:
    """Minimum-norm least squares for W1 over `count` samples in place of (2) and (3).

    W1 = (sum x h^T) (sum h h^T)^+ with h = W0* z0 for vanilla (2) and h = W0* z0 + z1 for
    RTIL (3), of which the latter has no residual: n1 samples determine it.

    Returns:
        {"vanilla": W1 (nd, n1), "rtil": W1 (nd, n1)}.
    """
    n1, nd = truth.w0.shape[0], truth.w1.shape[0]
    gram = {name: truth.w0.new_zeros(n1, n1) for name in TRAIN}
    cross = {name: truth.w0.new_zeros(nd, n1) for name in TRAIN}
    for done in range(0, count, CHUNK):
        z0, z1, x = truth.sample(min(CHUNK, count - done), rng)
        base = z0 @ truth.w0.T
        for name, h in (("vanilla", base), ("rtil", base + z1)):
            gram[name] += h.T @ h
            cross[name] += x.T @ h
    # A Gram matrix squares the singular values, and with them the rounding error of rank n0.
    return {
        name: cross[name] @ torch.linalg.pinv(gram[name], rtol=1e-10, hermitian=True)
        for name in TRAIN
    }


def two_stages(steps: int, lr: float) -> ILO:
    """ILO of z0, then z1, by so many steps of that size each; z0 is on no sphere in section 5."""
    return ILO(steps, depth=1, lr_style=lr, lr_feature=lr, geodesic=0.0, sphere=False)


def invert(G: LinearGenerator, A: Dense, y: Tensor, ilo: ILO, seed: int) -> Tensor:
    """Algorithm 1 by gradient descent, on G(z0, z1) = W1 (W0* z0 + z1).

    Args:
        A: measures (1, 1, nd). y: (B, m).
        ilo: of `two_stages`.
        seed: of the starting points.

    Returns:
        x_hat (B, nd), the last iterate.
    """
    ilo.check(G)
    rngs = [seeded("cpu", seed, i, "start") for i in range(len(y))]
    return ilo.invert(G, A, y, MeasurementLoss(A), rngs).last.flatten(1)


def simulate(
    truth: Truth, w1: Tensor, A: Dense, settings: Settings
) -> Sequence[tuple[float, float]]:
    """Mean of |x* - x_hat|^2 over num_signals signals and half-width of its 95 % interval.

    Both models and every noise level get the same signals and the same noise, scaled; every A
    gets others.

    Returns:
        A pair for each noise level.
    """
    rng = seeded("cpu", settings.seed, "signals", A.num_measurements)
    x = truth.sample(settings.num_signals, rng)[2]
    y = A(x.view(-1, *A.in_shape))
    e = torch.randn(y.shape, generator=rng, dtype=y.dtype)
    # In one batch: ILO treats each signal as if it were alone.
    noisy = torch.cat([y + s * e for s in settings.noises])
    G = LinearGenerator(truth.w0.clone(), w1.clone(), A.in_shape).requires_grad_(False)
    x_hat = invert(G, A, noisy, two_stages(settings.steps, settings.lr), settings.seed)
    errors = (x_hat.unflatten(0, (-1, len(x))) - x).square().sum(2)
    return [mean_ci(error.tolist()) for error in errors]
