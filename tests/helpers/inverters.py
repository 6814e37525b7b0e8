"""Small inverse problems: generators, measurements, and every inverter with few steps."""

import torch

from helpers.modules import chain, modulated
from rtil.inverters.csgm import CSGM
from rtil.inverters.data_term import MeasurementLoss
from rtil.inverters.iagan import IAGAN
from rtil.inverters.ilo import ILO
from rtil.inverters.multicode import MGANPrior
from rtil.inverters.pulse import PULSE
from rtil.inverters.sparse import SparseDeviations
from rtil.inverters.surgery import Surgery
from rtil.models.linear import LinearGenerator
from rtil.models.pggan import PGGANGenerator
from rtil.models.stylegan2 import StyleGAN2Generator
from rtil.operators import partial_circulant
from rtil.process.rng import seeded

SHAPE = (1, 16, 16)
TABLE = {4: 8, 8: 8, 16: 8}


def stylegan2():
    torch.manual_seed(0)
    G = StyleGAN2Generator(16, TABLE, 1, z_dim=8, num_mapping=2).double()
    for block in G.blocks:  # a fresh network's noise strengths are zero
        for conv in (block.up, block.conv):
            if conv is not None:
                torch.nn.init.constant_(conv.noise_strength, 0.1)
    return G.requires_grad_(False)


def pggan():
    torch.manual_seed(0)
    return PGGANGenerator(16, TABLE, 1, z_dim=8).double().requires_grad_(False)


def linear():
    rng = torch.Generator().manual_seed(0)
    w0 = torch.randn(6, 3, generator=rng, dtype=torch.float64)
    w1 = torch.randn(256, 6, generator=rng, dtype=torch.float64) / 4
    return LinearGenerator(w0, w1, SHAPE).requires_grad_(False)


def wrapped():
    return chain(16).requires_grad_(False)


def wrapped_styles():
    return modulated(16).requires_grad_(False)


GENERATORS = {
    "stylegan2": stylegan2,
    "pggan": pggan,
    "wrapped": wrapped,
    "wrapped_styles": wrapped_styles,
    "linear": linear,
}
RELATED = {
    "surgery": Surgery(steps=8, block=1, fit_samples=70),
    "surgery fitted": Surgery(steps=8, block=1, fitted=True, clamp=None, fit_samples=70),
    "iagan": IAGAN(steps=4, joint_steps=4, restarts=2),
    "iagan without back-projection": IAGAN(4, 6, restarts=1, back_projection=False),
    "sparse": SparseDeviations(steps=4, joint_steps=6, restarts=2),
    "sparse haar": SparseDeviations(4, 6, restarts=1, basis="haar"),
    "pulse": PULSE(steps=8, lr_style=0.1, lr_noise=0.1, noise_maps=2, fit_samples=200),
}
METHODS = {
    "csgm": (stylegan2, CSGM(steps=12, restarts=2)),
    "csgm pggan": (pggan, CSGM(steps=12, restarts=1, l2=1e-4)),
    "ilo": (stylegan2, ILO(steps=[10, 6, 6], fit_samples=200)),
    "ilo relative": (stylegan2, ILO(steps=6, depth=3, feature_relative=True, fit_samples=200)),
    "ilo l1, rgb dropped": (
        stylegan2,
        ILO(steps=[6, 6], l1_radius=[0.05], keep_rgb=False, fit_samples=200),
    ),
    "ilo pggan": (pggan, ILO(steps=[10, 6], lr_feature=[0.1, 0.05])),
    "mgan": (pggan, MGANPrior(steps=12, num_codes=3, block=2)),
    "mgan stylegan2": (stylegan2, MGANPrior(steps=12, num_codes=3, block=2)),
    "mgan sgd": (pggan, MGANPrior(12, 3, 1, "sgd", 1.0, 1.0, alpha_init=1 / 3)),
}
# Every inverter of the related work on every generator; by default on one in turn.
FIRST = ("stylegan2", "wrapped", "pggan", "linear", "wrapped_styles", "stylegan2", "stylegan2")
SLOW = set()
for (name, inverter), first in zip(RELATED.items(), FIRST, strict=True):
    for kind, make in GENERATORS.items():
        METHODS[f"{name} {kind}"] = make, inverter
        SLOW |= {f"{name} {kind}"} if kind != first else set()


def problem(count=3, ratio=0.4):
    A = partial_circulant(SHAPE, ratio, seed=1).double()
    x = torch.rand((count, *SHAPE), generator=torch.Generator().manual_seed(2)).double() * 2 - 1
    return A, A(x), MeasurementLoss(A), x


def rngs(names):
    return [seeded("cpu", 0, name) for name in names]
