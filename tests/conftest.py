"""Small seeded networks that many tests share; no weight, bias or noise strength is zero."""

import signal
from functools import partial

import helpers.quick_compose  # noqa: F401  # before modules that take `compose` from hydra
import pytest
import torch
from helpers.modules import chain, modulated

from rtil.models.linear import LinearGenerator
from rtil.models.pggan import PGGANDiscriminator, PGGANGenerator
from rtil.models.stylegan2 import StyleGAN2Discriminator, StyleGAN2Generator

CHANNELS = {4: 6, 8: 5, 16: 4, 32: 3, 64: 2}
# The generator of Karras et al. 2018, in rtil's choices.
KARRAS = {
    "upsample": "nearest",
    "pixel_norm": "input",
    "rgb_gain": 1.0,
    "input_fan": "in",
    "first_convs": 1,
}

# A shell that starts tests in the background has them ignore Ctrl-C, and so all that they start.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config, log):
    """Each worker begins with neighbours, which share fixtures; dealt out, they would not."""
    from xdist.scheduler import WorkStealingScheduling

    return WorkStealingScheduling(config, log) if config.getvalue("dist") == "load" else None


def randomise(network, seed):
    """Draws every parameter anew: those that start at zero would hide what they multiply."""
    rng = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, p in network.named_parameters():
            scale = 100.0 if name.startswith("mapping") else 1.0
            p.copy_(scale * torch.randn(p.shape, generator=rng))
        for name, buffer in network.named_buffers():
            if name.startswith("noise_"):
                buffer.copy_(torch.randn(buffer.shape, generator=rng))
    return network.double().requires_grad_(True)


@pytest.fixture(scope="session")
def stylegan2():
    """Factory of StyleGAN2 generators, float64."""

    def make(resolution=16, image_channels=1, seed=0, channels=None):
        channels = CHANNELS if channels is None else channels
        G = StyleGAN2Generator(resolution, channels, image_channels, z_dim=8, num_mapping=2)
        return randomise(G, seed)

    return make


@pytest.fixture(scope="session")
def pggan():
    """Factory of PGGAN generators, float64."""

    def make(resolution=16, image_channels=1, seed=0, channels=None, phase_nimg=None, **choices):
        channels = CHANNELS if channels is None else channels
        G = PGGANGenerator(resolution, channels, image_channels, 8, phase_nimg, **choices)
        return randomise(G, seed)

    return make


@pytest.fixture(scope="session")
def karras(pggan):
    """Factory of PGGAN generators as Karras et al. 2018 define them, float64."""
    return partial(pggan, **KARRAS)


@pytest.fixture(scope="session")
def wrapped():
    """Factory of wrapped chains of stages with batch normalisation, float64."""
    return chain


@pytest.fixture(scope="session")
def wrapped_styles():
    """Factory of wrapped modules whose blocks read styles of a latent map, float64."""
    return modulated


@pytest.fixture(scope="session")
def linear():
    """Factory of linear generators (section 5) with n0 = 3, n1 = 6 and 1x4x5 images, float64."""

    def make(seed=0):
        rng = torch.Generator().manual_seed(seed)
        w0 = torch.randn(6, 3, generator=rng, dtype=torch.float64)
        return LinearGenerator(w0, torch.randn(20, 6, generator=rng, dtype=w0.dtype), (1, 4, 5))

    return make


@pytest.fixture(scope="session")
def discriminator():
    """Factory of discriminators of either kind, float64."""

    def make(kind, resolution=16, image_channels=1, seed=0, **settings):
        network = {"stylegan2": StyleGAN2Discriminator, "pggan": PGGANDiscriminator}[kind]
        return randomise(network(resolution, CHANNELS, image_channels, **settings), seed)

    return make


@pytest.fixture(params=["stylegan2", "pggan", "karras", "wrapped", "wrapped_styles"])
def generator(request):
    """Each generator in turn, four blocks, 3x32x32."""
    return request.getfixturevalue(request.param)(32, image_channels=3)


@pytest.fixture
def rng():
    return torch.Generator().manual_seed(7)
