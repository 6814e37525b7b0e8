"""Section 5 of the paper, closed form against simulation: `python -m rtil.theory`.

The true signal is x* = W1* (W0* z0 + z1), measured as y = A x* + e. The closed forms are Lemmas
5.1, 5.2 and B.1 (rtil.models.linear), with measurement noise (`closed_form`, `average_error`). The
simulation knows none of them: it learns W1 from samples, and inverts by gradient descent with the
ILO that inverts a GAN. It writes <out>/theory.jsonl, theory.png and theory.pdf and prints tables.
(5) needs n1 <= m; (4) holds for any m, as vanilla estimates lie in the range of W1* W0*.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import hydra
import torch
from omegaconf import DictConfig
from torch import Tensor

from rtil.inverters.data_term import MeasurementLoss
from rtil.inverters.ilo import ILO
from rtil.metrics.intervals import mean_ci
from rtil.models.linear import (
    LinearGenerator,
    expected_error,
    lower_bound,
    train_rtil,
    train_vanilla,
)
from rtil.operators import Dense
from rtil.process.command import CONFIGS, check_numbers, entry
from rtil.process.files import write_text
from rtil.process.rng import seeded

log = logging.getLogger("rtil.theory")
CHUNK = 10_000  # training samples held in memory at a time
TRAIN = {"vanilla": train_vanilla, "rtil": train_rtil}
LOOKS = {"vanilla": ("vanilla", "#D55E00", "o"), "rtil": ("RTIL", "#0072B2", "s")}
LINEAR = 0.01  # errors below are drawn on a linear scale, which has a place for zero


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
        raise ValueError(f"theory: n0={n0}, n1={n1}, nd={nd}; section 5 needs 0 < n0 < n1 < nd.")
    rng = seeded("cpu", seed, "truth")
    w0 = torch.randn(n1, n0, generator=rng, dtype=torch.float64) / n0**0.5
    return Truth(w0, torch.randn(nd, n1, generator=rng, dtype=torch.float64) / n1**0.5)


def draw_operator(nd: int, ratio: float, seed: int) -> Dense:
    """Draws A (m, nd) with m = round(ratio nd) and entries N(0, 1/nd).

    One seed gives nested operators: the rows of a smaller ratio are the first of a larger one.

    Differs from the paper, whose entries are N(0, 1): E|A x|^2 = |x|^2 m/nd as for the other
    operators. Noise-free results do not depend on it; multiplying noise_std by 1/sqrt(nd)
    restores the paper's ratio of signal to noise.
    """
    matrix = torch.randn(nd, nd, generator=seeded("cpu", seed, "operator"), dtype=torch.float64)
    return Dense((1, 1, nd), matrix[: round(ratio * nd)] / nd**0.5)


def closed_form(truth: Truth, A: Dense, noise_std: float) -> dict[str, float]:
    """E|x* - x_hat|^2 over z0, z1 and e ~ N(0, s^2 I) of both models, for a given A and any m.

    Write M^+ for the pseudo-inverse and V = W1 W0*. Both stages are linear in y,

        z0 = (A V)^+ y,    z1 = (A W1)^+ (y - A V z0),    x_hat = W1 (W0* z0 + z1) = R y,

    with R = V (A V)^+ + W1 (A W1)^+ (I - A V (A V)^+). As x* = W1* (W0* z0* + z1*),

        x* - x_hat = (I - R A) W1* W0* z0* + (I - R A) W1* z1* - R e,

    and as z0*, z1* and e are independent and E|M z|^2 = |M|_F^2 for z ~ N(0, I),

        E|x* - x_hat|^2 = |(I - R A) W1* W0*|_F^2 + |(I - R A) W1*|_F^2 + s^2 |R|_F^2,

    which is what rtil.models.linear.expected_error computes.

    RTIL has W1 = W1*. Where A W1* has full column rank, so n1 <= m, range(A V) lies in
    range(A W1*), so R = W1* (A W1*)^+ and R A W1* = W1*, and what is left is

        s^2 |W1* (A W1*)^+|_F^2,    which is (5) for s = 0.

    Vanilla has W1 = W1* W0* W0*^+, so V = W1* W0*, and A W1 has the range of A V: the second stage
    adds nothing, R = V (A V)^+ and, where n0 <= m, R A V = V. With the projector P onto range(V),
    (I - R A) W1* = (I - R A) (I - P) W1*, of which (I - P) W1* is orthogonal to the rest:

        |(I - P) W1*|_F^2 + |V (A V)^+ A (I - P) W1*|_F^2 + s^2 |V (A V)^+|_F^2.

    The first term does not depend on A or m and is at least |(I - P) W1*|_2^2, which is (4).

    Args:
        A: measures (1, 1, nd).
        noise_std: s.

    Returns:
        {"vanilla": error, "rtil": error}.
    """
    return {
        name: expected_error(*truth, train(*truth), A.matrix, noise_std)
        for name, train in TRAIN.items()
    }


def average_error(truth: Truth, m: int, noise_std: float) -> dict[str, float]:
    """Mean of `closed_form` over A (m, nd) with entries N(0, 1/nd), where it is finite.

    In the notation of `closed_form`, let Q be an orthonormal basis of range(V), H = (I - P) W1*
    and G = A Q, so that V (A V)^+ = Q G^+. The columns of Q are orthogonal to those of H, so G and
    A H are independent, and G has entries N(0, 1/nd): nd G^T G is a Wishart matrix whose inverse
    has the mean I / (m - n0 - 1). Hence E|G^+|_F^2 = nd n0 / (m - n0 - 1) and
    E|G^+ A H|_F^2 = |H|_F^2 E|G^+|_F^2 / nd, so that for vanilla

        |H|_F^2 (1 + n0 / (m - n0 - 1)) + s^2 nd n0 / (m - n0 - 1).

    For RTIL only the noise is left, with range(W1*) in place of range(V):

        s^2 nd n1 / (m - n1 - 1).

    RTIL trades the bias |H|_F^2 for the noise of n1 instead of n0 unknowns.

    Args:
        m: measurements, n1 + 2 or more.
        noise_std: s.

    Returns:
        {"vanilla": error, "rtil": error}.

    Raises:
        ValueError: m below n1 + 2, where the mean is not finite.
    """
    (n1, n0), nd = truth.w0.shape, len(truth.w1)
    if m < n1 + 2:
        raise ValueError(
            f"average_error: m={m} has no finite mean over A; it needs n1 + 2 = {n1 + 2} or more."
        )
    q = torch.linalg.qr(truth.w1 @ truth.w0).Q
    bias = float((truth.w1 - q @ (q.T @ truth.w1)).square().sum())
    vanilla, rtil = n0 / (m - n0 - 1), n1 / (m - n1 - 1)
    noise = noise_std**2 * nd
    return {"vanilla": bias * (1 + vanilla) + noise * vanilla, "rtil": noise * rtil}


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


def simulate(
    truth: Truth, w1: Tensor, A: Dense, noise_std: Sequence[float], cfg: DictConfig
) -> list[tuple[float, float]]:
    """Mean of |x* - x_hat|^2 over cfg.num_signals signals and half-width of its 95 % interval.

    Both models and every noise level get the same signals and the same noise, scaled; every A
    gets others.

    Returns:
        A pair for each entry of noise_std.
    """
    rng = seeded("cpu", cfg.seed, "signals", A.num_measurements)
    x = truth.sample(cfg.num_signals, rng)[2]
    y = A(x.view(-1, *A.in_shape))
    e = torch.randn(y.shape, generator=rng, dtype=y.dtype)
    # In one batch: ILO treats each signal as if it were alone.
    x_hat = invert(
        truth, w1, A, torch.cat([y + s * e for s in noise_std]), cfg.steps, cfg.lr, cfg.seed
    )
    errors = (x_hat.unflatten(0, (-1, len(x))) - x).square().sum(2)
    return [mean_ci(error.tolist()) for error in errors]


def check(cfg: DictConfig) -> None:
    """Validates the settings before any work.

    Raises:
        ValueError: another model, ratios outside section 5, or counts that are too small.
    """
    if cfg.model.name != "linear":
        raise ValueError(
            f"theory: model={cfg.model.name} has no closed form; section 5 is about model=linear."
        )
    check_numbers(
        "theory",
        cfg,
        {
            "n0": 1,
            "n1": 1,
            "nd": 1,
            "seed": 0,
            "num_signals": 2,
            "num_train": 1,
            "steps": 1,
            "ratios": 0.0,
            "noise_std": 0.0,
            "lr": 0.0,
        },
    )
    n1, nd = cfg.n1, cfg.nd
    for ratio in cfg.ratios:
        if not n1 <= round(ratio * nd) < nd:
            raise ValueError(
                f"theory: ratios has {ratio}, which asks for m={round(ratio * nd)} measurements; "
                f"section 5.2 needs n1 <= m < nd, here {n1} <= m < {nd}."
            )
    if not cfg.ratios or not cfg.num_train or min(cfg.num_train) < n1 or not levels(cfg):
        raise ValueError(
            f"theory: ratios={list(cfg.ratios)}, noise_std={cfg.noise_std} and "
            f"num_train={list(cfg.num_train)} must not be empty, num_train be n1={n1} or more."
        )


def levels(cfg: DictConfig) -> list[float]:
    """The noise levels: noise_std is one number or several."""
    one = isinstance(cfg.noise_std, int | float)
    return [float(cfg.noise_std)] if one else [float(s) for s in cfg.noise_std]


def theory(cfg: DictConfig) -> None:
    """Runs both problems, prints the tables, and writes rows and figure."""
    check(cfg)
    truth = draw_truth(cfg.n0, cfg.n1, cfg.nd, cfg.seed)
    learnt, rows = training(truth, cfg)
    rows += inversion(truth, learnt, cfg)
    out = Path(cfg.out or Path(cfg.root) / "theory")
    out.mkdir(parents=True, exist_ok=True)
    write_text(out / "theory.jsonl", "".join(json.dumps(row) + "\n" for row in rows))
    figure([row for row in rows if row["problem"] == "inversion"], truth, cfg, out)
    log.info("%s, theory.png and theory.pdf written.", out / "theory.jsonl")


def training(truth: Truth, cfg: DictConfig) -> tuple[dict[str, Tensor], list[dict]]:
    """Lemmas 5.1 and B.1: W1 learnt from samples against its closed form.

    Returns:
        {"vanilla": W1, "rtil": W1} learnt from the last of cfg.num_train, and a row for each.
    """
    exact, rows = {name: train(*truth) for name, train in TRAIN.items()}, []
    print("Training: |W1 - closed form| / |closed form| (Frobenius) of least squares on N samples")
    print(f"{'N':>10} {'vanilla (2)':>14} {'RTIL (3)':>14}")
    for count in cfg.num_train:
        learnt = learn(truth, count, seeded("cpu", cfg.seed, "train", count))
        off = {n: float((learnt[n] - exact[n]).norm() / exact[n].norm()) for n in TRAIN}
        rows.append({"problem": "training", "samples": count, **off})
        print(f"{count:>10} {off['vanilla']:>14.2e} {off['rtil']:>14.2e}")
    return learnt, rows


def inversion(truth: Truth, learnt: dict[str, Tensor], cfg: DictConfig) -> list[dict]:
    """Lemma 5.2 and its form with noise: ILO on learnt weights against the closed form.

    Returns:
        A row for each noise level and ratio.
    """
    operators = [draw_operator(cfg.nd, ratio, cfg.seed) for ratio in cfg.ratios]
    simulated = {
        name: [simulate(truth, learnt[name], A, levels(cfg), cfg) for A in operators]
        for name in TRAIN
    }
    bound, rows = lower_bound(*truth), []
    for i, noise_std in enumerate(levels(cfg)):
        print(f"\nInversion: E|x* - x_hat|^2, noise_std={noise_std:g}, bound (4) {bound:.3f};")
        print(f"simulated: ILO on learnt W1, mean and 95 % interval of {cfg.num_signals} signals")
        print(f"{'m/nd':>6} {'vanilla':>10} {'simulated':>20} {'RTIL':>10} {'simulated':>22}")
        for j, (ratio, A) in enumerate(zip(cfg.ratios, operators)):
            row = {
                "problem": "inversion",
                "ratio": ratio,
                "noise_std": noise_std,
                "bound": bound,
                "n": cfg.num_signals,
                **closed_form(truth, A, noise_std),
            }
            for name in TRAIN:
                mean, half = simulated[name][j][i]
                row |= {f"{name}_simulated": mean, f"{name}_ci95": half}
            rows.append(row)
            print(
                f"{ratio:>6} {row['vanilla']:>10.3f} {row['vanilla_simulated']:>11.3f} +- "
                f"{row['vanilla_ci95']:<5.2f} {row['rtil']:>10.2e} "
                f"{row['rtil_simulated']:>9.2e} +- {row['rtil_ci95']:.2e}"
            )
    return rows


def figure(rows: list[dict], truth: Truth, cfg: DictConfig, out: Path) -> None:
    """Draws error over m/nd, a panel for each noise level, as theory.png and theory.pdf.

    Lines are closed forms for the drawn A, dots their mean over A, points the simulation.
    """
    from matplotlib.figure import Figure  # slow to import

    nd, n1 = cfg.nd, cfg.n1
    noises = levels(cfg)
    counts = sorted({round(i * nd / 100) for i in range(1, 100)} - {0, nd})
    operators = [draw_operator(nd, m / nd, cfg.seed) for m in counts]
    finite = range(n1 + 2, nd)  # where the mean over A exists
    top = 10 * max(row["vanilla"] for row in rows)
    fig = Figure(figsize=(1.2 + 4.2 * len(noises), 4.6), layout="constrained")
    for ax, noise_std in zip(fig.subplots(1, len(noises), sharey=True, squeeze=False)[0], noises):
        exact = [closed_form(truth, A, noise_std) for A in operators]
        means = [average_error(truth, m, noise_std) for m in finite]
        here = [row for row in rows if row["noise_std"] == noise_std]
        for name, (label, colour, marker) in LOOKS.items():
            ax.plot(
                [m / nd for m in counts],
                [e[name] for e in exact],
                color=colour,
                zorder=3,
                label=f"{label}, closed form for the A drawn",
            )
            ax.plot(
                [m / nd for m in finite],
                [e[name] for e in means],
                color=colour,
                linestyle=":",
                label=f"{label}, closed form, mean over A",
            )
            ax.errorbar(
                [row["ratio"] for row in here],
                [row[f"{name}_simulated"] for row in here],
                [row[f"{name}_ci95"] for row in here],
                fmt=marker,
                color=colour,
                capsize=3,
                markersize=4.5,
                markerfacecolor="white",
                elinewidth=1.2,
                zorder=4,
                label=f"{label}, ILO on learnt weights (95 % CI, n = {cfg.num_signals})",
            )
        ax.axhline(
            rows[0]["bound"],
            color="black",
            linestyle="--",
            linewidth=1,
            label="vanilla, lower bound (4)",
        )
        ax.axvspan(0, n1 / nd, color="0.93", zorder=0, label="$m < n_1$: outside section 5.2")
        ax.set_yscale("symlog", linthresh=LINEAR, linscale=0.5)
        ax.set(xlim=(0, 1), ylim=(-0.1 * LINEAR, top), xlabel="measurements $m / n_d$")
        ax.set_title(f"measurement noise, std {noise_std:g}" if noise_std else "noise-free")
        ax.grid(True, color="0.88", linewidth=0.6)
    fig.axes[0].set_ylabel(r"reconstruction error  $\mathrm{E}\,|x^* - \hat{x}|^2$")
    fig.legend(
        *fig.axes[0].get_legend_handles_labels(),
        loc="outside lower center",
        ncols=2,
        fontsize="small",
        frameon=False,
    )
    fig.suptitle(f"$n_0 = {cfg.n0}$, $n_1 = {n1}$, $n_d = {nd}$", fontsize="medium")
    for suffix in ("png", "pdf"):
        fig.savefig(out / f"theory.{suffix}", dpi=200)


@hydra.main(version_base="1.3", config_path=CONFIGS, config_name="theory")
def main(cfg: DictConfig) -> None:
    """Entry point."""
    entry(lambda: theory(cfg))


if __name__ == "__main__":
    main()
