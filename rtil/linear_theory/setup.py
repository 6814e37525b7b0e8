"""The settings of theory.yaml, checked and frozen."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from omegaconf import DictConfig

from rtil.runs import overrides
from rtil.runs.setup import checked


@dataclass(frozen=True)
class Settings:
    """What both problems of section 5 are set by.

    Attributes:
        n0, n1, nd: lengths of z0, z1 and x.
        ratios: m/nd of each simulation. noises: standard deviations of e.
        num_train: numbers of training samples; the last is inverted with.
        num_signals: of each simulation.
        steps, lr: of each of the two stages of ILO.
    """

    n0: int
    n1: int
    nd: int
    ratios: tuple[float, ...]
    noises: tuple[float, ...]
    num_train: tuple[int, ...]
    num_signals: int
    steps: int
    lr: float
    seed: int
    out: Path


def settings_of(cfg: DictConfig) -> Settings:
    """Checks the settings before any work.

    Raises:
        ValueError: ratios outside section 5, or counts that are too small.
    """
    cfg = checked(cfg, "theory", overrides.running())
    n1, nd = cfg.n1, cfg.nd
    for ratio in cfg.ratios:
        if not n1 <= round(ratio * nd) < nd:
            raise ValueError(
                f"theory: ratios has {ratio}, which asks for m={round(ratio * nd)} measurements; "
                f"section 5.2 needs n1 <= m < nd, here {n1} <= m < {nd}."
            )
    noises = [cfg.noise_std] if isinstance(cfg.noise_std, int | float) else [*cfg.noise_std]
    if min(cfg.num_train) < n1:
        raise ValueError(f"theory: num_train={list(cfg.num_train)} must be n1={n1} or more.")
    return Settings(
        n0=cfg.n0,
        n1=n1,
        nd=nd,
        ratios=tuple(cfg.ratios),
        noises=tuple(float(noise) for noise in noises),
        num_train=tuple(cfg.num_train),
        num_signals=cfg.num_signals,
        steps=cfg.steps,
        lr=cfg.lr,
        seed=cfg.seed,
        out=Path(cfg.out or Path(cfg.root) / "theory"),
    )
