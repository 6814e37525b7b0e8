"""The tables of both problems, as text for a terminal."""

from __future__ import annotations

from collections.abc import Sequence

from rtil.linear_theory.simulation import Inverted, Learnt


def training_table(rows: Sequence[Learnt]) -> str:
    """How far learnt weights are from their closed forms."""
    lines = [
        "Training: |W1 - closed form| / |closed form| (Frobenius) of least squares on N samples",
        f"{'N':>10} {'vanilla (2)':>14} {'RTIL (3)':>14}",
    ]
    for row in rows:
        lines.append(f"{row.samples:>10} {row.vanilla:>14.2e} {row.rtil:>14.2e}")
    return "\n".join(lines)


def inversion_table(rows: Sequence[Inverted]) -> str:
    """Errors in closed form and simulated, a table for each noise level."""
    lines = []
    for noise_std in dict.fromkeys(row.noise_std for row in rows):
        level = [row for row in rows if row.noise_std == noise_std]
        bound, n = level[0].bound, level[0].n
        lines += [
            f"\nInversion: E|x* - x_hat|^2, noise_std={noise_std:g}, bound (4) {bound:.3f};",
            f"simulated: ILO on learnt W1, mean and 95 % interval of {n} signals",
            f"{'m/nd':>6} {'vanilla':>10} {'simulated':>20} {'RTIL':>10} {'simulated':>22}",
        ]
        for row in level:
            lines.append(
                f"{row.ratio:>6} {row.vanilla:>10.3f} {row.vanilla_simulated:>11.3f} +- "
                f"{row.vanilla_ci95:<5.2f} {row.rtil:>10.2e} "
                f"{row.rtil_simulated:>9.2e} +- {row.rtil_ci95:.2e}"
            )
    return "\n".join(lines)
