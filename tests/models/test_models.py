"""Laws of the generators and discriminators, on tiny random networks in float64."""

import copy
import math

import pytest
import torch
import torch.nn.functional as F
from conftest import KARRAS
from scipy import stats

from rtil.models.generator import EMPTY, StyleMixing
from rtil.models.layers import (
    EqualConv2d,
    EqualLinear,
    group_size,
    map_norm,
    minibatch_stddev,
    pixel_norm,
)
from rtil.models.pggan import PGGANDiscriminator, PGGANGenerator, growth
from rtil.models.stylegan2 import StyleGAN2Discriminator, StyleGAN2Generator

NETWORKS = [StyleGAN2Generator, StyleGAN2Discriminator, PGGANGenerator, PGGANDiscriminator]


def normal(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_a_normalised_generator_has_maps_of_rms_1_and_nothing_gained_by_larger_features():
    """A gain of all features of a block (constant, noise and bias alike) changes nothing then."""
    for normalise in (True, False):
        torch.manual_seed(0)
        G = StyleGAN2Generator(
            16, {4: 6, 8: 5, 16: 4}, 1, z_dim=8, num_mapping=2, normalise=normalise
        ).double()
        w, images, conv = G.map(normal(3, 8)), [], G.blocks[0].conv
        conv.noise_strength.data.fill_(0.3)
        conv.bias.data.fill_(0.2)
        for gain in (1.0, 7.0):
            for p in (G.const, conv.noise_strength, conv.bias):
                p.data.mul_(gain)
            state = EMPTY
            for k in range(1, G.num_blocks + 1):
                state = G.step(k, state, w)
                rms = state.x.square().mean((1, 2, 3)).sqrt()
                assert torch.allclose(rms, torch.ones_like(rms), atol=1e-6) == normalise
            images.append(G.image(state, w))
        assert torch.allclose(*images, atol=1e-6) == normalise


def test_map_norm_has_its_gradients_and_counts_in_float32():
    x = normal(2, 3, 4, 4).requires_grad_()
    torch.autograd.gradcheck(map_norm, (x,))
    torch.autograd.gradgradcheck(map_norm, (x,))
    half = (200.0 * x.detach()).to(torch.bfloat16)
    rms = map_norm(half).double().square().mean((1, 2, 3)).sqrt()
    assert map_norm(half).dtype == torch.bfloat16 and (rms - 1).abs().max() < 5e-3
    assert not map_norm(torch.zeros(1, 2, 3, 3)).any()


# Any size


@pytest.mark.parametrize("resolution", [8, 16, 32, 64])
@pytest.mark.parametrize("image_channels", [1, 3])
@pytest.mark.parametrize("kind", ["stylegan2", "pggan", "karras"])
def test_any_size_draws_images_that_every_weight_changes(
    request, discriminator, kind, resolution, image_channels
):
    """Shapes are as declared, and every parameter of G and D has a gradient that is not zero."""
    G = request.getfixturevalue(kind)(resolution, image_channels)
    D = discriminator("stylegan2" if kind == "stylegan2" else "pggan", resolution, image_channels)
    w = G.map(normal(4, G.z_dim))
    state = EMPTY
    for k in range(1, G.num_blocks + 1):
        state = G.step(k, state, w, None)
        assert state.x.shape[1:] == G.shapes[k]
    image = G.image(state, w)
    assert image.shape[1:] == G.image_shape == (image_channels, resolution, resolution)
    assert G.num_blocks == resolution.bit_length() - 2
    scores = D(image)
    assert scores.shape == (4,)
    scores.square().sum().backward()
    smaller = [f"{end}_rgb.{i}." for end in ("to", "from") for i in range(G.num_blocks - 1)]
    for name, p in (*G.named_parameters(), *D.named_parameters()):
        if kind != "stylegan2" and name.startswith(tuple(smaller)):  # read while growing only
            assert p.grad is None, name
        else:
            assert p.grad.abs().max() > 0, name


@pytest.mark.parametrize("network", NETWORKS)
@pytest.mark.parametrize("resolution", [48, 4, 0, -8])
def test_resolution_that_is_no_power_of_two_from_8_is_an_error(network, resolution):
    with pytest.raises(ValueError, match=rf"resolution={resolution} is not a power of two from 8"):
        network(resolution, {2**i: 2 for i in range(2, 9)})


@pytest.mark.parametrize("network", NETWORKS)
@pytest.mark.parametrize("table", [{4: 2, 8: 2, 32: 2}, {4: 2, 8: 2, 16: 0, 32: 2}])
def test_missing_or_empty_width_is_an_error(network, table):
    with pytest.raises(ValueError, match=rf"{network.__name__}: .* no positive width .* \[16\]"):
        network(32, table)


def test_sizes_beyond_the_resolution_change_nothing():
    a, b = (
        StyleGAN2Generator(8, table, 1, z_dim=4, num_mapping=1).state_dict()
        for table in ({4: 3, 8: 2}, {4: 3, 8: 2, 16: 7})
    )
    assert {k: v.shape for k, v in a.items()} == {k: v.shape for k, v in b.items()}


# The cut between blocks


def test_restart_from_every_block_equals_the_full_run(generator, rng):
    G = generator
    w, noise = G.sample_w(3, rng), G.sample_noise(3, rng)
    full = G.image(G.run(w, noise), w)
    for k in range(1, G.num_blocks + 1):
        state = G.run(w, noise, stop=k)
        assert torch.equal(G.image(G.run(w, noise, start=k, state=state), w), full)


def test_dropping_the_image_so_far_leaves_out_the_blocks_up_to_the_cut(stylegan2, rng):
    """The image is a sum over blocks, so the dropped part is the up-sampled image of the stop."""
    G = stylegan2(32)
    w = G.sample_w(2, rng)
    full = G.image(G.run(w), w)
    for k in range(1, G.num_blocks):
        state = G.run(w, stop=k)
        rest = G.image(G.run(w, start=k, state=state._replace(keep_rgb=False)), w)
        grown = copy.copy(G)
        grown.num_blocks = k
        dropped = grown.image(state, w)
        for _ in range(k, G.num_blocks):
            dropped = _upsample_fir(dropped)
        torch.testing.assert_close(rest + dropped, full)
        assert not torch.allclose(rest, full)


def _upsample_fir(x):
    """Zero insertion and a [1, 3, 3, 1] filter: weights 3/4 and 1/4 on the nearest two pixels."""
    for axis in (2, 3):
        x = x.movedim(axis, -1)
        padded = F.pad(x, (1, 1))
        left, right = padded[..., :-2], padded[..., 2:]
        pair = torch.stack([0.75 * x + 0.25 * left, 0.75 * x + 0.25 * right], -1)
        x = pair.flatten(-2).movedim(-1, axis)
    return x


def test_samples_of_a_batch_do_not_see_each_other(generator, rng):
    w, noise = generator.sample_w(3, rng), generator.sample_noise(3, rng)
    together = generator.image(generator.run(w, noise), w)
    for b in range(3):
        one, maps = w[b : b + 1], tuple(n[b : b + 1] for n in noise)
        torch.testing.assert_close(
            generator.image(generator.run(one, maps), one), together[b : b + 1]
        )


@pytest.mark.parametrize("kind", ["stylegan2", "pggan", "karras"])
def test_state_dict_restores_the_generator(request, kind):
    first, second = (request.getfixturevalue(kind)(16, seed=seed) for seed in (1, 2))
    z0 = normal(2, first.z_dim)
    assert not torch.allclose(first(z0), second(z0))
    second.load_state_dict(first.state_dict())
    assert torch.equal(first(z0), second(z0))


# StyleGAN2


def test_modulated_convolution_is_karras_equations_1_to_3(stylegan2):
    """Scaling activations equals a convolution with modulated, demodulated weights per sample."""
    conv = stylegan2().blocks[1].conv.conv
    x, w = normal(3, 5, 8, 8), normal(3, 8, seed=1)
    style = conv.style(w)
    for b in range(3):
        weight = conv.scale * conv.weight * style[b][None, :, None, None]
        weight = weight / (weight.square().sum((1, 2, 3), keepdim=True) + 1e-8).sqrt()
        expected = F.conv2d(x[b : b + 1], weight, padding=1)
        y, d = conv(x, w)
        torch.testing.assert_close((y * d[:, :, None, None])[b : b + 1], expected)


def test_noise_maps_default_to_the_fixed_ones_and_matter(stylegan2):
    G = stylegan2(16)
    w = G.map(normal(2, G.z_dim))
    fixed = tuple(getattr(G, f"noise_{i}") for i in range(len(G.noise_shapes)))
    assert torch.equal(G.image(G.run(w), w), G.image(G.run(w, fixed), w))
    for i in range(len(fixed)):
        other = tuple(n + (j == i) for j, n in enumerate(fixed))
        assert not torch.allclose(G.image(G.run(w, other), w), G.image(G.run(w), w))


def test_style_mixing_joins_a_prefix_of_one_latent_to_a_suffix_of_another(stylegan2):
    """With probability p per sample, and a cut that is uniform on 1 .. layers - 1."""
    G, batch = stylegan2(16), 3000
    rng = torch.Generator().manual_seed(0)
    mixed = G.sample_w(batch, rng, StyleMixing(0.7))
    rng = torch.Generator().manual_seed(0)
    first, second = (G.map(G.randn((batch, G.z_dim), rng)) for _ in range(2))
    from_first = (mixed == first).all(-1)
    assert torch.equal(torch.where(from_first[:, :, None], first, second), mixed)
    cut = from_first.sum(1)
    layers = torch.arange(G.w_shape[0])
    assert torch.equal(from_first, layers < cut[:, None])
    counts = torch.bincount(cut, minlength=G.w_shape[0] + 1)
    assert counts[0] == 0
    assert stats.binomtest(batch - int(counts[-1]), batch, 0.7).pvalue > 1e-4
    assert stats.chisquare(counts[1:-1].numpy()).pvalue > 1e-4


def test_style_mixing_per_batch_is_one_decision_and_one_cut_for_all_samples(stylegan2):
    """As published; per sample, a batch of four without any mixing is one in (1 - p)^-4."""
    G, mixing, cuts = stylegan2(16), StyleMixing(0.6, "batch"), []
    layers = G.w_shape[0]
    for seed in range(400):
        mixed = G.sample_w(4, torch.Generator().manual_seed(seed), mixing)
        rng = torch.Generator().manual_seed(seed)
        first, second = (G.map(G.randn((4, G.z_dim), rng)) for _ in range(2))
        is_mixed = float(torch.rand(1, generator=rng)) < 0.6
        cut = int(torch.randint(1, layers, (1,), generator=rng)) if is_mixed else layers
        assert torch.equal(mixed, torch.cat([first[:, :cut], second[:, cut:]], 1))
        cuts.append(cut)
    counts = torch.bincount(torch.tensor(cuts), minlength=layers + 1)
    assert stats.binomtest(400 - int(counts[-1]), 400, 0.6).pvalue > 1e-4
    assert stats.chisquare(counts[1:-1].numpy()).pvalue > 1e-4
    with pytest.raises(
        ValueError, match=r"model.style_mixing_per='image' must be sample or batch"
    ):
        StyleMixing(0.6, "image")


def test_style_mixing_without_styles_per_block_is_an_error(pggan, rng):
    with pytest.raises(ValueError, match=r"PGGANGenerator: style_mixing=0.5 needs styles per"):
        pggan().sample_w(2, rng, StyleMixing(0.5))


def test_truncation_scales_the_distance_to_the_mean_style(stylegan2, rng):
    G = stylegan2()
    mean = G.mean_w(20_000, rng)
    w = G.sample_w(20_000, rng)
    # Both are means over 2e4 draws: the standard error of their difference, 5 of them.
    error = w[:, 0].std(0) * (2 / 20_000) ** 0.5
    assert ((w[:, 0].mean(0) - mean).abs() < 5 * error).all()
    torch.testing.assert_close(G.truncate(w, 0.3, mean) - mean, 0.3 * (w - mean))
    assert torch.equal(G.truncate(w, 0.0, mean), mean.expand_as(w))
    torch.testing.assert_close(G.truncate(w, 1.0, mean), w)


def test_style_prior_has_the_moments_of_the_mapping_network(stylegan2):
    """The published fit: mean and deviation of each style before its last leaky ReLU."""
    G, rng = stylegan2(), torch.Generator().manual_seed(0)
    prior = G.style_prior(25_000, rng)
    rng = torch.Generator().manual_seed(0)
    draws = [G.randn((n, G.z_dim), rng) for n in (10_000, 10_000, 5_000)]
    before = F.leaky_relu(G.map(torch.cat(draws))[:, 0], 1 / 0.2)
    torch.testing.assert_close(prior.mean, before.mean(0))
    torch.testing.assert_close(prior.std, before.std(0, correction=0))
    # A Gaussian v through the prior has these moments before the last leaky ReLU.
    v = F.leaky_relu(prior(normal(50_000, G.z_dim)), 5.0)
    torch.testing.assert_close(v.mean(0), prior.mean, rtol=0, atol=0.03 * float(prior.std.max()))
    torch.testing.assert_close(v.std(0), prior.std, rtol=0.03, atol=0)


def test_style_prior_of_a_direct_latent_is_the_standard_normal(pggan, linear, rng):
    for G in (pggan(), linear()):
        v = normal(4, G.z_dim)
        assert torch.equal(G.style_prior(10, rng)(v), v)


# Choices of the PGGAN


def test_the_published_pggan_is_the_default(pggan):
    spelled_out = pggan(
        16,
        upsample="bilinear",
        pixel_norm="output",
        rgb_gain=math.sqrt(2.0),
        input_fan="out",
        first_convs=2,
    )
    z0 = normal(2, 8)
    assert torch.equal(pggan(16)(z0), spelled_out(z0))


@pytest.mark.parametrize("choice", KARRAS)
def test_each_choice_alone_draws_other_images_from_the_same_weights(pggan, choice):
    z0, G, other = normal(2, 8), pggan(16), pggan(16, **{choice: KARRAS[choice]})
    other.load_state_dict({name: G.state_dict()[name] for name in other.state_dict()})
    assert (other(z0) - G(z0)).abs().max() > 1e-3 * G(z0).abs().max()


@pytest.mark.parametrize("channels", [{4: 6, 8: 5, 16: 4}, {4: 8, 8: 3, 16: 3}])
def test_these_choices_make_the_network_of_karras_2018(karras, channels):
    """Pixel norm after each activation, by its definition (section 4.2), images at every size."""
    G, z0 = karras(16, 3, channels=channels), normal(3, 8)

    def layer(conv, x, gain):
        scale = gain / math.sqrt(conv.weight[0].numel())
        return F.conv2d(x, scale * conv.weight, conv.bias, padding=conv.weight.shape[-1] // 2)

    def hidden(x):
        x = F.leaky_relu(x, 0.2)
        return x / (x.square().mean(1, keepdim=True) + 1e-8).sqrt()

    width = channels[4]
    x = z0 / (z0.square().mean(1, keepdim=True) + 1e-8).sqrt()
    x = x @ G.input.flatten(1) * math.sqrt(2.0) / 4 / math.sqrt(8)
    x = hidden(x.view(3, width, 4, 4) + G.input_bias[:, None, None])
    for k, block in enumerate(G.blocks, start=1):
        if k > 1:
            x = x.repeat_interleave(2, 2).repeat_interleave(2, 3)
        for conv in [block.conv0] if k == 1 else [block.conv0, block.conv1]:
            x = hidden(layer(conv, x, gain=math.sqrt(2.0)))
        G.num_blocks = k
        torch.testing.assert_close(G(z0), layer(G.to_rgb[k - 1], x, gain=1.0))


def test_a_norm_of_inputs_makes_scales_at_the_cut_of_no_consequence(karras, pggan):
    """The latent's as well, so that codes that are optimised cannot leave the trained sphere."""
    for make, same in ((karras, True), (pggan, False)):
        G, w = make(16), normal(2, 8)
        for k in (1, 2, 3):
            state = G.run(w, stop=k)
            large = state._replace(x=100 * state.x)
            images = [G.image(G.run(w, start=k, state=s), w) for s in (state, large)]
            assert torch.allclose(*images, rtol=1e-5, atol=1e-6) is same
        assert torch.allclose(G(w), G(100 * w), rtol=1e-5, atol=1e-6) is same


@pytest.mark.parametrize(
    ("choice", "text"),
    [
        ({"upsample": "cubic"}, r"upsample='cubic' must be bilinear or nearest"),
        ({"pixel_norm": "none"}, r"pixel_norm='none' must be output or input"),
        ({"input_fan": None}, r"input_fan=None must be out or in"),
        ({"rgb_gain": 0.0}, r"rgb_gain=0\.0 must be positive"),
        ({"first_convs": 0}, r"first_convs=0 at least 1"),
    ],
)
def test_a_choice_that_does_not_exist_is_an_error(pggan, choice, text):
    with pytest.raises(ValueError, match=f"PGGANGenerator: .*{text}"):
        pggan(8, **choice)


# Growing


def test_growth_counts_phases_and_fades_over_their_first_half():
    phases = [10, 20, 40]
    seen = {n: growth(n, phases, 3) for n in (0, 9, 10, 15, 20, 29, 30, 40, 50, 69, 70, 999)}
    assert seen == {
        0: (1, 1.0),
        9: (1, 1.0),
        10: (2, 0.0),
        15: (2, 0.5),
        20: (2, 1.0),
        29: (2, 1.0),
        30: (3, 0.0),
        40: (3, 0.5),
        50: (3, 1.0),
        69: (3, 1.0),
        70: (3, 1.0),
        999: (3, 1.0),
    }
    assert growth(0, None, 5) == (5, 1.0)


@pytest.mark.parametrize("network", [PGGANGenerator, PGGANDiscriminator])
@pytest.mark.parametrize("phases", [[10, 10], [10, 0, 10], [10] * 4])
def test_phases_that_do_not_fit_the_resolutions_are_an_error(network, phases):
    with pytest.raises(ValueError, match=r"one positive number of images for each of the 3"):
        network(16, {4: 2, 8: 2, 16: 2}, phase_nimg=phases)


@pytest.mark.parametrize(
    ("kind", "enlarged"),
    [
        ("pggan", {"mode": "bilinear", "align_corners": False}),
        ("karras", {"mode": "nearest"}),
    ],
)
def test_a_new_block_starts_from_the_image_before_it(request, discriminator, kind, enlarged):
    """alpha = 0: G draws the last stage's image twice as large, D sees it at half the size."""
    phases = [100, 100, 100, 100]
    G = request.getfixturevalue(kind)(32, phase_nimg=phases)
    D = discriminator("pggan", 32, phase_nimg=phases)
    z0 = normal(4, G.z_dim)
    for stage in (1, 2, 3):
        G.progress(100 * stage - 1)
        D.progress(100 * stage - 1)
        small = G(z0)
        assert (G.num_blocks, small.shape[2]) == (stage, 2 ** (stage + 1))
        score = D(small)
        G.progress(100 * stage)
        D.progress(100 * stage)
        assert (G.num_blocks, G.alpha) == (stage + 1, 0.0)
        large = G(z0)
        torch.testing.assert_close(large, F.interpolate(small, scale_factor=2, **enlarged))
        torch.testing.assert_close(D(small.repeat_interleave(2, 2).repeat_interleave(2, 3)), score)


@pytest.mark.parametrize("kind", ["pggan", "karras"])
def test_fade_in_is_linear_in_alpha(request, kind):
    G = request.getfixturevalue(kind)(16, phase_nimg=[10, 10, 100])
    z0, images = normal(2, G.z_dim), []
    for nimg in (20, 35, 70):
        G.progress(nimg)
        images.append(G(z0))
    assert G.alpha == 1.0
    torch.testing.assert_close(images[1], 0.7 * images[0] + 0.3 * images[2])


@pytest.mark.parametrize("kind", ["pggan", "karras"])
def test_restart_while_fading_equals_the_full_run(request, kind):
    G = request.getfixturevalue(kind)(16, phase_nimg=[10, 10, 100])
    G.progress(40)
    w = normal(2, G.z_dim)
    full = G.image(G.run(w), w)
    for k in (1, 2, 3):
        assert torch.equal(G.image(G.run(w, start=k, state=G.run(w, stop=k)), w), full)


# Layers


def test_equalised_layers_start_with_unit_gain():
    """The output of a unit normal input has variance gain^2 before any training."""
    torch.manual_seed(0)
    x = torch.randn(256, 300)
    for gain in (1.0, math.sqrt(2.0)):
        dense = EqualLinear(300, 400, lr=0.01, gain=gain)(x)
        conv = EqualConv2d(25, 400, 2, gain)(x.view(256, 25, 2, 6))
        for y in (dense, conv):
            assert float(y.detach().var()) / gain**2 == pytest.approx(1.0, abs=0.05)


def test_equal_linear_scales_its_bias_by_the_learning_rate_multiplier():
    layer = EqualLinear(3, 2, bias_init=0.5, lr=0.01)
    assert torch.equal(layer.bias, torch.full((2,), 50.0))
    torch.testing.assert_close(layer(torch.zeros(1, 3)), torch.full((1, 2), 0.5))


def test_pixel_norm_makes_the_mean_square_one():
    y = pixel_norm(normal(3, 7, 2, 2))
    torch.testing.assert_close(y.square().mean(1), torch.ones(3, 2, 2).double())


@pytest.mark.parametrize(
    ("batch", "limit", "group"),
    [(16, 4, 4), (6, 4, 3), (7, 4, 1), (2, 4, 2), (5, 5, 5), (8, None, 8), (9, 4, 3)],
)
def test_group_size_is_the_largest_divisor_up_to_the_limit(batch, limit, group):
    assert group_size(batch, limit) == group


@pytest.mark.parametrize(("batch", "limit"), [(8, 4), (6, 4), (5, None)])
def test_minibatch_stddev_is_its_formula_on_runs_of_samples(batch, limit):
    x = normal(batch, 3, 2, 2)
    y = minibatch_stddev(x, limit)
    assert torch.equal(y[:, :3], x)
    group = group_size(batch, limit)
    for first in range(0, batch, group):
        part = x[first : first + group]
        expected = ((part - part.mean(0)).square().mean(0) + 1e-8).sqrt().mean()
        torch.testing.assert_close(
            y[first : first + group, 3], expected.expand(group, 2, 2).clone()
        )


@pytest.mark.parametrize("kind", ["stylegan2", "pggan"])
def test_scores_depend_on_samples_of_the_own_group_only(discriminator, kind):
    D, x = discriminator(kind), normal(8, 1, 16, 16)
    scores = D(x)
    changed = torch.cat([x[:4], 3 * x[4:]])
    torch.testing.assert_close(D(changed)[:4], scores[:4], rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(D(x[4:]), scores[4:], rtol=1e-12, atol=1e-12)
    within = x.clone()
    within[7] *= 3
    assert (D(within)[4:7] - scores[4:7]).abs().min() > 1e-6
    assert torch.equal(within[:7], x[:7])
    # Order within a group is of no consequence to anyone else's score.
    order = torch.tensor([3, 1, 0, 2, 4, 5, 6, 7])
    torch.testing.assert_close(D(x[order]), scores[order], rtol=1e-10, atol=1e-10)
