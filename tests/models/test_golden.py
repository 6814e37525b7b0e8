"""The published modules' outputs, parameter names and parameter counts.

golden/layouts.json holds the names and shapes of the released checkpoints' entries, and
golden/models.npz what the authors' modules return when the entry called `name` is filled by
default_rng([seed, crc32(name)]). Pictures of 64x64 keep every third pixel, feature maps every
eighth channel. Generators get their weights through the importer, as those of a released file.
"""

import json
import zlib
from pathlib import Path

import authors_layout
import numpy as np
import pytest
import torch

from rtil.importers import authors
from rtil.importers.layout import Spec
from rtil.latents.additive import Additive
from rtil.latents.multicode import MultiCode
from rtil.latents.space import Latents
from rtil.models.generator import State
from rtil.models.pggan import PGGANDiscriminator, PGGANGenerator
from rtil.models.stylegan2 import StyleGAN2Discriminator, StyleGAN2Generator

FOLDER = Path(__file__).parents[1] / "golden"
GOLDEN = np.load(FOLDER / "models.npz")
LAYOUTS = json.loads((FOLDER / "layouts.json").read_text())
STYLEGAN2 = {4: 256, 8: 256, 16: 256, 32: 256, 64: 256, 128: 128, 256: 64}
PGGAN = {4: 256, 8: 256, 16: 256, 32: 256, 64: 128, 128: 64, 256: 64}
NETWORKS = {
    "stylegan2_64_generator": lambda: StyleGAN2Generator(64, STYLEGAN2),
    "stylegan2_256_generator": lambda: StyleGAN2Generator(256, STYLEGAN2),
    "stylegan2_64_discriminator": lambda: StyleGAN2Discriminator(64, STYLEGAN2),
    "stylegan2_256_discriminator": lambda: StyleGAN2Discriminator(256, STYLEGAN2),
    "pggan_256_generator": lambda: PGGANGenerator(256, PGGAN),
    "pggan_256_discriminator": lambda: PGGANDiscriminator(256, PGGAN, stddev_group=None),
}


def released(name, state):
    """What a released file holds: StyleGAN2 was saved from DataParallel."""
    prefix = "module." if name.startswith("stylegan2") else ""
    return {"g": {}, "g_ema": {f"{prefix}{entry}": value for entry, value in state.items()}}


def ours(name, state):
    """Our state dict from the published entries."""
    model, _, kind = name.split("_")
    if kind == "generator":
        return authors.find(released(name, state)).weights()
    return getattr(authors_layout, f"{model}_{kind}")(state)


def entries(name, fill):
    """The published layout: every entry fill(entry, shape), filters as they are."""
    taps = torch.tensor([1.0, 3.0, 3.0, 1.0]) / 4
    return {
        entry: taps[:, None] * taps if entry.endswith(".kernel") else fill(entry, shape)
        for entry, shape in LAYOUTS[name].items()
    }


def drawn(name, seed):
    """Every entry of the published layout drawn from (seed, crc32(entry))."""

    def fill(entry, shape):
        rng = np.random.default_rng([seed, zlib.crc32(entry.encode())])
        return torch.from_numpy(rng.standard_normal(shape).astype("float32"))

    return entries(name, fill)


def filled(name, seed):
    """A network with the entries of `drawn`."""
    network = NETWORKS[name]()
    network.load_state_dict(ours(name, drawn(name, seed)))
    return network.requires_grad_(False)


def normal(seed, *shape):
    return torch.from_numpy(np.random.default_rng(seed).standard_normal(shape).astype("float32"))


def assert_golden(name, value):
    """Largest error below 1e-5 of the largest entry."""
    expected = GOLDEN[name]
    value = value.reshape(expected.shape).numpy()
    assert np.abs(value - expected).max() < 1e-5 * np.abs(expected).max()


@pytest.fixture(scope="module")
def stylegan2_64():
    G = filled("stylegan2_64_generator", seed=1)
    return G, G.map(normal(3, 3, 512))


@pytest.fixture(scope="module")
def pggan_256():
    return filled("pggan_256_generator", seed=6)


@pytest.fixture(scope="module")
def pggan_256_discriminator():
    return filled("pggan_256_discriminator", seed=7)


def test_stylegan2_styles_and_image(stylegan2_64):
    G, w = stylegan2_64
    assert_golden("stylegan2_64_w", w[:, 0])
    assert torch.equal(w, w[:, :1].expand_as(w))
    assert_golden("stylegan2_64_image", G(normal(3, 3, 512))[:, :, ::3, ::3])


def test_stylegan2_style_mixing(stylegan2_64):
    G, w = stylegan2_64
    mixed = torch.cat([w[:, :4], G.map(normal(5, 3, 512))[:, 4:]], 1)
    assert_golden("stylegan2_64_mix4", G.image(G.run(mixed), mixed)[:, :, ::3, ::3])


@pytest.mark.parametrize("block", [1, 2, 3])
def test_stylegan2_stopped_after_a_block(stylegan2_64, monkeypatch, block):
    G, w = stylegan2_64
    state = G.run(w, stop=block)
    assert_golden(f"stylegan2_64_features_end{block - 1}", state.x[:, ::8])
    monkeypatch.setattr(G, "num_blocks", block)
    assert_golden(f"stylegan2_64_rgb_end{block - 1}", G.image(state, w))


@pytest.mark.parametrize("block", [1, 2])
def test_stylegan2_restarted_without_the_image_so_far(stylegan2_64, block):
    G, w = stylegan2_64
    state = State(G.run(w, stop=block).x, keep_rgb=False)
    image = Additive(block).synthesize(G, Latents(w), start=block, state=state)
    assert_golden(f"stylegan2_64_restart{block}_rgb_dropped", image[:, :, ::3, ::3])


def test_stylegan2_discriminator():
    D = filled("stylegan2_64_discriminator", seed=2)
    assert_golden("stylegan2_64_logits", D(normal(4, 4, 3, 64, 64)))


STEPS = [(0, 1.0), (2, 0.3), (3, 1.0), (6, 1.0)]


@pytest.mark.parametrize(("step", "alpha"), STEPS)
def test_pggan_at_each_growing_step(pggan_256, monkeypatch, step, alpha):
    monkeypatch.setattr(pggan_256, "num_blocks", step + 1)
    monkeypatch.setattr(pggan_256, "alpha", alpha)
    image = pggan_256(normal(8, 2, 512))
    assert image.shape[2] == 4 * 2**step
    kept = image[:, :, ::12, ::12] if step == 6 else image
    assert_golden(f"pggan_step{step}_alpha{alpha}", kept)


@pytest.mark.parametrize(("step", "alpha"), STEPS)
def test_pggan_discriminator_at_each_growing_step(
    pggan_256_discriminator, monkeypatch, step, alpha
):
    D, side = pggan_256_discriminator, 4 * 2**step
    monkeypatch.setattr(D, "num_blocks", step + 1)
    monkeypatch.setattr(D, "alpha", alpha)
    assert_golden(f"pggan_d_step{step}_alpha{alpha}", D(normal(9, 4, 3, side, side)))


@pytest.mark.parametrize("block", [2, 3, 4])
def test_pggan_codes_mixed_after_a_block(pggan_256, block):
    codes = normal(10, 3, 2, 512)[:, 0]
    alpha = np.random.default_rng(11).uniform(size=(2, 3, 256))[0].astype("float32")
    latents = Latents(codes, alpha=torch.from_numpy(alpha), counts=(3,), member=(0,))
    image = MultiCode(3, block).synthesize(pggan_256, latents)
    assert_golden(f"pggan_multicode_layer{block}", (image[:, :, ::12, ::12] + 1) / 2)


@pytest.mark.parametrize("name", LAYOUTS)
def test_published_layout_covers_every_entry_of_ours(name):
    """Strictly: no entry of ours is missing, none of theirs but the FIR kernels is dropped."""
    with torch.device("meta"):
        network = NETWORKS[name]()
    renamed = ours(name, entries(name, lambda _, shape: torch.zeros(shape)))
    network.load_state_dict(renamed, strict=True, assign=True)
    kernels = sum(entry.endswith(".kernel") for entry in LAYOUTS[name])
    assert len(renamed) == len(LAYOUTS[name]) - kernels


@pytest.mark.parametrize("name", LAYOUTS)
def test_unknown_entry_is_named(name):
    state = entries(name, lambda _, shape: torch.zeros(shape))
    with pytest.raises(ValueError, match=r"extra\.weight.* has no counterpart in rtil"):
        ours(name, {**state, "extra.weight": torch.zeros(1)})


def test_the_importers_own_arithmetic_draws_the_published_stylegan2_images():
    """What imports are checked against is itself checked against the authors' modules."""
    name = "stylegan2_64_generator"
    foreign = authors.find(released(name, drawn(name, seed=1)))
    (image,) = foreign.images(normal(3, 3, 512)[0].double())
    expected = GOLDEN["stylegan2_64_image"][:1]
    assert np.abs(image[:, :, ::3, ::3].numpy() - expected).max() < 1e-5 * np.abs(expected).max()


def test_the_importers_own_arithmetic_draws_the_published_pggan_images():
    name, z = "pggan_256_generator", normal(8, 2, 512)[0].double()
    size = Spec("pggan", {side: width for side, width in PGGAN.items() if side <= 32}, 3, 512)
    images = authors.draw(drawn(name, seed=6), size, z)
    for step in (0, 3):
        expected = GOLDEN[f"pggan_step{step}_alpha1.0"][:1]
        error = np.abs(images[step].numpy() - expected).max()
        assert error < 1e-5 * np.abs(expected).max()


def count(network):
    return sum(p.numel() for p in network.parameters())


def test_parameter_counts_of_the_paper():
    with torch.device("meta"):
        networks = {name: make() for name, make in NETWORKS.items()}
    assert count(networks["stylegan2_256_generator"]) == 10_206_434
    assert count(networks["stylegan2_256_generator"].mapping) == 2_101_248
    assert count(networks["stylegan2_256_discriminator"]) == 7_219_009
    G = networks["pggan_256_generator"]
    assert count(G) == 7_449_109
    assert count(G) - count(G.to_rgb) + count(G.to_rgb[-1]) == 7_445_443
    assert count(networks["pggan_256_discriminator"]) == 6_367_617
