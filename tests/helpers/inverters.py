"""Small inverse problems: generators, measurements, and every inverter with few steps."""

import torch

from rtil.inverters.csgm import CSGM
from rtil.inverters.data_term import MeasurementLoss
from rtil.inverters.ilo import ILO
from rtil.inverters.multicode import MGANPrior
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


def problem(count=3, ratio=0.4):
    A = partial_circulant(SHAPE, ratio, seed=1).double()
    x = torch.rand((count, *SHAPE), generator=torch.Generator().manual_seed(2)).double() * 2 - 1
    return A, A(x), MeasurementLoss(A), x


def rngs(names):
    return [seeded("cpu", 0, name) for name in names]
