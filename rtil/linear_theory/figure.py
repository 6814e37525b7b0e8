"""The figure of section 5 with measurement noise: error over m/nd, a panel for each noise level.

Lines are closed forms for the drawn A, dots their mean over A, points the simulation.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from rtil.linear_theory.closed_form import average_error, closed_form
from rtil.linear_theory.setup import Settings
from rtil.linear_theory.simulation import Inverted
from rtil.linear_theory.truth import Truth, draw_operator

LINEAR = 0.01  # errors below are drawn on a linear scale, which has a place for zero


@dataclass(frozen=True)
class Look:
    """How a model's errors are drawn."""

    label: str
    colour: str
    marker: str


LOOKS = {"vanilla": Look("vanilla", "#D55E00", "o"), "rtil": Look("RTIL", "#0072B2", "s")}


def draw(rows: Sequence[Inverted], truth: Truth, settings: Settings) -> None:
    """Writes theory.png and theory.pdf."""
    top = 10 * max(row.vanilla for row in rows)
    figure = Figure(figsize=(1.2 + 4.2 * len(settings.noises), 4.6), layout="constrained")
    panels = figure.subplots(1, len(settings.noises), sharey=True, squeeze=False)[0]
    for axes, noise_std in zip(panels, settings.noises):
        _draw_closed_forms(axes, truth, settings, noise_std)
        _draw_simulation(axes, [row for row in rows if row.noise_std == noise_std])
        axes.axhline(
            rows[0].bound,
            color="black",
            linestyle="--",
            linewidth=1,
            label="vanilla, lower bound (4)",
        )
        outside = "$m < n_1$: outside section 5.2"
        axes.axvspan(0, settings.n1 / settings.nd, color="0.93", zorder=0, label=outside)
        axes.set_yscale("symlog", linthresh=LINEAR, linscale=0.5)
        axes.set(xlim=(0, 1), ylim=(-0.1 * LINEAR, top), xlabel="measurements $m / n_d$")
        axes.set_title(f"measurement noise, std {noise_std:g}" if noise_std else "noise-free")
        axes.grid(True, color="0.88", linewidth=0.6)
    panels[0].set_ylabel(r"reconstruction error  $\mathrm{E}\,|x^* - \hat{x}|^2$")
    figure.legend(
        *panels[0].get_legend_handles_labels(),
        loc="outside lower center",
        ncols=2,
        fontsize="small",
        frameon=False,
    )
    sizes = f"$n_0 = {settings.n0}$, $n_1 = {settings.n1}$, $n_d = {settings.nd}$"
    figure.suptitle(sizes, fontsize="medium")
    for suffix in ("png", "pdf"):
        figure.savefig(settings.out / f"theory.{suffix}", dpi=200)


def _draw_closed_forms(axes: Axes, truth: Truth, settings: Settings, noise_std: float) -> None:
    nd = settings.nd
    counts = sorted({round(i * nd / 100) for i in range(1, 100)} - {0, nd})
    exact = []
    for m in counts:
        A = draw_operator(nd, m / nd, settings.seed)
        exact.append(closed_form(truth, A, noise_std))
    # Where the mean over A is finite.
    finite = range(settings.n1 + 2, nd)
    means = [average_error(truth, m, noise_std) for m in finite]
    for name, look in LOOKS.items():
        axes.plot(
            [m / nd for m in counts],
            [errors[name] for errors in exact],
            color=look.colour,
            zorder=3,
            label=f"{look.label}, closed form for the A drawn",
        )
        axes.plot(
            [m / nd for m in finite],
            [errors[name] for errors in means],
            color=look.colour,
            linestyle=":",
            label=f"{look.label}, closed form, mean over A",
        )


def _draw_simulation(axes: Axes, rows: Sequence[Inverted]) -> None:
    simulated = {
        "vanilla": [(row.vanilla_simulated, row.vanilla_ci95) for row in rows],
        "rtil": [(row.rtil_simulated, row.rtil_ci95) for row in rows],
    }
    for name, look in LOOKS.items():
        axes.errorbar(
            [row.ratio for row in rows],
            [mean for mean, _ in simulated[name]],
            [half for _, half in simulated[name]],
            fmt=look.marker,
            color=look.colour,
            capsize=3,
            markersize=4.5,
            markerfacecolor="white",
            elinewidth=1.2,
            zorder=4,
            label=f"{look.label}, ILO on learnt weights (95 % CI, n = {rows[0].n})",
        )
