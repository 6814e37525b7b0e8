"""Section 5 of the paper, closed form against simulation: `python -m rtil.theory`.

The true signal is x = W1* (W0* z0 + z1). The closed forms are Lemmas 5.1, 5.2 and B.1
(rtil.models.linear). The simulation knows none of them: it learns W1 from samples, and inverts
with the ILO that inverts a GAN. It writes <out>/theory.jsonl and <out>/theory.png and prints a
table. (5) needs n1 <= m; (4) holds for any m, as vanilla estimates lie in the range of W1* W0*.
"""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import NamedTuple

import hydra
import torch
from omegaconf import DictConfig
from torch import Tensor

from rtil import results
from rtil.inverters.ilo import ILO
from rtil.losses import MeasurementLoss
from rtil.models.linear import (
    LinearGenerator,
    expected_error,
    lower_bound,
    train_rtil,
    train_vanilla,
)
from rtil.operators import Dense
from rtil.runtime import CONFIGS, entry, seeded

log = logging.getLogger("rtil.theory")
CHUNK = 10_000  # training samples held in memory at a time
TRAIN = {"vanilla": train_vanilla, "rtil": train_rtil}


class Truth(NamedTuple):
    """W0* (n1, n0) and W1* (nd, n1) of the true model, float64."""

    w0: Tensor
    w1: Tensor

    def sample(self, count: int, rng: torch.Generator) -> tuple[Tensor, Tensor, Tensor]:
        """Draws z0 (count, n0), z1 (count, n1) and x = W1* (W0* z0 + z1) (count, nd)."""
        z0 = torch.randn(count, self.w0.shape[1], generator=rng, dtype=torch.float64)
        z1 = torch.randn(count, self.w0.shape[0], generator=rng, dtype=torch.float64)
        return z0, z1, (z0 @ self.w0.T + z1) @ self.w1.T


def draw_truth(n0: int, n1: int, nd: int, seed: int) -> Truth:
    """Draws W0* ~ N(0, 1/n0) and W1* ~ N(0, 1/n1), full rank with probability 1.

    Raises:
        ValueError: sizes outside n0 < n1 < nd.
    """
    if not 0 < n0 < n1 < nd:
        raise ValueError(
            f"theory: model.n0={n0}, model.n1={n1}, model.nd={nd}; section 5 needs "
            "0 < n0 < n1 < nd."
        )
    rng = seeded("cpu", seed, "truth")
    w0 = torch.randn(n1, n0, generator=rng, dtype=torch.float64) / n0**0.5
    return Truth(w0, torch.randn(nd, n1, generator=rng, dtype=torch.float64) / n1**0.5)


def draw_operator(nd: int, ratio: float, seed: int) -> Dense:
    """Draws A (m, nd) with m = round(ratio nd) and entries N(0, 1/nd).

    Differs from the paper, whose entries are N(0, 1): E|A x|^2 = |x|^2 m/nd as for the other
    operators. Noise-free results do not depend on it; multiplying noise_std by 1/sqrt(nd)
    restores the paper's ratio of signal to noise.
    """
    rng = seeded("cpu", seed, "operator", ratio)
    matrix = torch.randn(round(ratio * nd), nd, generator=rng, dtype=torch.float64) / nd**0.5
    return Dense((1, 1, nd), matrix)


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


def invert(
    truth: Truth, w1: Tensor, A: Dense, y: Tensor, steps: int, lr: float, seed: int
) -> Tensor:
    """Algorithm 1 by gradient descent: ILO with two stages on G(z0, z1) = w1 (W0* z0 + z1).

    Args:
        w1: of a trained model (nd, n1).
        A: measures (1, 1, nd). y: (B, m).
        steps, lr: of each stage.
        seed: of the starting points.

    Returns:
        x_hat (B, nd), the last iterate.
    """
    G = LinearGenerator(truth.w0.clone(), w1.clone(), A.in_shape).requires_grad_(False)
    # z0 is not confined to a sphere in section 5.
    ilo = ILO(steps, depth=1, lr_style=lr, lr_feature=lr, geodesic=0.0, sphere=False)
    ilo.check(G)
    rngs = [seeded("cpu", seed, i, "start") for i in range(len(y))]
    return ilo.invert(G, A, y, MeasurementLoss(A), rngs).last.flatten(1)


def simulate(truth: Truth, w1: Tensor, A: Dense, cfg: DictConfig) -> tuple[float, float]:
    """Mean of |x* - x_hat|^2 over cfg.num_signals signals, and its standard error."""
    rng = seeded("cpu", cfg.seed, "signals")
    x = truth.sample(cfg.num_signals, rng)[2]
    y = A(x.view(-1, *A.in_shape))
    y = y + cfg.noise_std * torch.randn(y.shape, generator=rng, dtype=y.dtype)
    error = (invert(truth, w1, A, y, cfg.steps, cfg.lr, cfg.seed) - x).square().sum(1)
    return float(error.mean()), float(error.std() / cfg.num_signals**0.5)


def check(cfg: DictConfig) -> None:
    """Validates the settings before any work.

    Raises:
        ValueError: another model, ratios outside section 5, or counts that are too small.
    """
    if cfg.model.name != "linear":
        raise ValueError(
            f"theory: model={cfg.model.name} has no closed form; section 5 is about model=linear."
        )
    n1, nd = cfg.model.n1, cfg.model.nd
    for ratio in cfg.ratios:
        if not n1 <= round(ratio * nd) < nd:
            raise ValueError(
                f"theory: ratios has {ratio}, which asks for m={round(ratio * nd)} measurements; "
                f"section 5.2 needs n1 <= m < nd, here {n1} <= m < {nd}."
            )
    if not cfg.ratios or not cfg.num_train or min(cfg.num_train) < n1 or cfg.num_signals < 2:
        raise ValueError(
            f"theory: ratios={list(cfg.ratios)} and num_train={list(cfg.num_train)} must not be "
            f"empty, num_train be n1={n1} or more, and num_signals={cfg.num_signals} 2 or more."
        )
    if cfg.noise_std < 0:
        raise ValueError(f"theory: noise_std={cfg.noise_std} must be 0 or more.")


def theory(cfg: DictConfig) -> None:
    """Runs both problems, prints the tables, and writes rows and figure."""
    check(cfg)
    truth = draw_truth(cfg.model.n0, cfg.model.n1, cfg.model.nd, cfg.seed)
    exact = {name: train(*truth) for name, train in TRAIN.items()}
    bound = lower_bound(*truth)
    rows = []
    print("Training: |W1 - closed form| / |closed form| (Frobenius) of least squares on N samples")
    print(f"{'N':>10} {'vanilla (2)':>14} {'RTIL (3)':>14}")
    for count in cfg.num_train:
        learnt = learn(truth, count, seeded("cpu", cfg.seed, "train", count))
        off = {n: float((learnt[n] - exact[n]).norm() / exact[n].norm()) for n in TRAIN}
        rows.append({"problem": "training", "samples": count, **off})
        print(f"{count:>10} {off['vanilla']:>14.2e} {off['rtil']:>14.2e}")

    print(f"\nInversion: E|x* - x_hat|^2, noise_std={cfg.noise_std}, bound (4) {bound:.3f};")
    print(f"simulation: mean and standard error of {cfg.num_signals} signals, ILO on learnt W1")
    print(f"{'m/nd':>6} {'vanilla':>10} {'simulated':>18} {'RTIL':>10} {'simulated':>22}")
    for ratio in cfg.ratios:
        A = draw_operator(cfg.model.nd, ratio, cfg.seed)
        row = {"problem": "inversion", "ratio": ratio, "bound": bound, "noise_std": cfg.noise_std}
        for name in TRAIN:
            row[name] = expected_error(*truth, exact[name], A.matrix, cfg.noise_std)
            mean, error = simulate(truth, learnt[name], A, cfg)
            row |= {f"{name}_simulated": mean, f"{name}_standard_error": error}
        rows.append(row)
        print(
            f"{ratio:>6} {row['vanilla']:>10.3f} {row['vanilla_simulated']:>9.3f} +- "
            f"{row['vanilla_standard_error']:<5.3f} {row['rtil']:>10.2e} "
            f"{row['rtil_simulated']:>9.2e} +- {row['rtil_standard_error']:.2e}"
        )
    out = Path(cfg.out or Path(cfg.root) / "theory")
    out.mkdir(parents=True, exist_ok=True)
    results.write_text(out / "theory.jsonl", "".join(json.dumps(row) + "\n" for row in rows))
    figure([row for row in rows if row["problem"] == "inversion"], truth, cfg, out / "theory.png")
    log.info("%s and theory.png written.", out / "theory.jsonl")


def figure(rows: list[dict], truth: Truth, cfg: DictConfig, path: Path) -> None:
    """Draws error over m/nd: closed forms as lines, simulations as points, and the bound (4)."""
    import matplotlib  # slow to import

    matplotlib.use("Agg")
    from matplotlib import pyplot

    nd = cfg.model.nd
    steps = sorted({round(i * nd / 60) for i in range(1, 60)} - {0, nd})
    floor = 1e-12  # an error of exactly zero has no logarithm
    fig, axes = pyplot.subplots(figsize=(6, 4), layout="constrained")
    for name, colour in (("vanilla", "tab:red"), ("rtil", "tab:blue")):
        w1 = TRAIN[name](*truth)
        line = [
            expected_error(*truth, w1, draw_operator(nd, m / nd, cfg.seed).matrix, cfg.noise_std)
            for m in steps
        ]
        axes.plot([m / nd for m in steps], [max(floor, v) for v in line], color=colour,
                  label=f"{name}, closed form")
        axes.errorbar(
            [row["ratio"] for row in rows], [max(floor, row[f"{name}_simulated"]) for row in rows],
            [1.96 * row[f"{name}_standard_error"] for row in rows], fmt="o", color=colour,
            capsize=3, label=f"{name}, ILO on learnt weights (95 % CI)",
        )
    axes.axhline(rows[0]["bound"], color="grey", linestyle="--", label="lower bound (4)")
    axes.axvline(cfg.model.n1 / nd, color="grey", linestyle=":", label="m = n1")
    axes.set(xlabel="m / nd", ylabel="E |x* - x_hat|^2", yscale="log")
    axes.legend(fontsize="small")
    fig.savefig(path, dpi=150)
    pyplot.close(fig)


@hydra.main(version_base="1.3", config_path=CONFIGS, config_name="theory")
def main(cfg: DictConfig) -> None:
    """Entry point."""
    entry(lambda: theory(cfg))


if __name__ == "__main__":
    main()
