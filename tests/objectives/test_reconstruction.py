"""Objectives without a discriminator against closed forms, in float64: GLO and the VAE."""

import math
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from rtil.latents.family import additive, multicode
from rtil.models.linear import LinearGenerator
from rtil.objectives.glo import GLO, expanded, into_ball, laplacian_l1, pyramid
from rtil.objectives.vae import VAE
from rtil.process.rng import Draws, seeded

SHAPE = (1, 4, 5)


def normal(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def linear(n0, n1, seed=0):
    """A small linear generator of 20 pixels."""
    return LinearGenerator(0.3 * normal(n1, n0, seed=seed), normal(20, n1, seed=seed + 1), SHAPE)


def shown(real, index=None, turn=0):
    return SimpleNamespace(real=real, index=index, draws=Draws(seeded("cpu", turn), len(real)))


def update(objective, G, family, optim, step, turn=0):
    """One update of G over all spaces; the mean loss."""
    optim.zero_grad()
    total = 0.0
    for space, weight in zip(family.spaces, family.weights):
        drawn = space.sample(G, len(step.real), seeded("cpu", "draw", turn), turn=turn)
        latents, cost = objective.assign(G, space, drawn, step)
        loss = objective.generator(space.synthesize(G, latents), step.real)
        loss = loss if cost is None else loss + cost
        (weight * loss.mean()).backward()
        total += weight * float(loss.detach().mean())
    optim.step()
    if objective.settle is not None:
        objective.settle(step)
    return total


def factors(count, noise=0.1):
    """Centred images of two strong factors in noise, and their covariance's eigenvalues."""
    x = 2 * normal(count, 2, seed=5) @ normal(2, 20, seed=6) / math.sqrt(20)
    x = x + noise * normal(count, 20, seed=7)
    x = x - x.mean(0)
    spectrum = torch.linalg.eigvalsh(x.T @ x / count).flip(0)
    return x.view(count, *SHAPE), spectrum


# GLO


def test_a_pyramid_adds_up_to_its_image():
    x = normal(2, 3, 32, 16)
    levels = pyramid(x)
    assert [level.shape[2:] for level in levels] == [(32, 16), (16, 8), (8, 4)]
    taps = torch.tensor([1.0, 4, 6, 4, 1], dtype=torch.float64) / 16
    whole = levels[-1]
    for level in reversed(levels[:-1]):
        whole = level + expanded(whole, taps)
    torch.testing.assert_close(whole, x)


def test_only_the_last_level_of_a_pyramid_sees_what_is_smooth():
    """Inside: beyond its edge an image is black."""
    levels = pyramid(torch.ones(1, 1, 64, 64, dtype=torch.float64))
    for level in levels[:2]:
        inside = level[:, :, 8:-8, 8:-8]
        torch.testing.assert_close(inside, torch.zeros_like(inside), atol=1e-12, rtol=0)


def test_the_laplacian_loss_is_the_weighted_l1_of_levels_of_both_images():
    x, y = normal(3, 1, 16, 16), normal(3, 1, 16, 16, seed=1)
    expected = sum(
        4**j * (a - b).abs().flatten(1).sum(1) / 256
        for j, (a, b) in enumerate(zip(pyramid(x), pyramid(y)))
    )
    torch.testing.assert_close(GLO([1]).generator(x, y), expected)
    torch.testing.assert_close(laplacian_l1(-2 * (x - y)), 2 * expected)


def test_a_ball_keeps_what_is_inside_and_shortens_what_is_not():
    codes = normal(50, 8)
    shortened = into_ball(codes, 2.5)
    inside = codes.norm(dim=1) <= 2.5
    assert 0 < inside.sum() < 50
    assert torch.equal(shortened[inside], codes[inside])
    torch.testing.assert_close(shortened[~inside], 2.5 * nn.functional.normalize(codes[~inside]))


def begun(objective, family, G, images):
    torch.manual_seed(0)
    objective.begin(family, G, images)
    return objective.double()


@pytest.mark.parametrize("family", [additive([0, 2]), additive([0, 2], mixture=True)])
def test_codes_of_all_depths_stay_in_the_balls_of_the_familys_draws(stylegan2, family):
    G = stylegan2(16)
    objective = begun(GLO([2], code_lr=50.0), family, G, 12)
    optim, index = torch.optim.SGD(G.parameters(), 1e-3), torch.arange(8)
    before = {name: table.clone() for name, table in objective.named_buffers()}
    update(objective, G, family, optim, shown(normal(8, 1, 16, 16), index))
    radii = {"z0": math.sqrt(8), **{f"z{k}": math.prod(G.shapes[k]) ** 0.5 for k in (1, 2)}}
    assert {name for name in before if "seen" not in name} == radii.keys()
    for name, radius in radii.items():
        table = objective.get_buffer(name)
        assert float(table.norm(dim=2).max()) <= radius * (1 + 1e-6)  # begun in float32
        # Those of other images stay as they are.
        assert torch.equal(table[8:], before[name][8:])
        moved = ((table - before[name])[:8].abs() > 1e-6).flatten(1).any(1)
        own = torch.arange(8) >= 4 if family.spaces[0].title == "family" and name != "z0" else True
        assert bool((moved == own).all()), name


def test_a_code_moves_against_the_gradient_of_its_own_images_loss():
    G, x = linear(2, 3), normal(5, *SHAPE)
    family = additive([0])
    objective = begun(GLO([1], "mse", code_lr=0.1), family, G, 9)
    index = torch.tensor([7, 1, 4, 0, 3])
    z = objective.z0[index, 0].clone().requires_grad_()
    loss = (G.image(G.run(z), z) - x).square().flatten(1).mean(1).sum()
    (grad,) = torch.autograd.grad(loss, z)
    update(objective, G, family, torch.optim.SGD(G.parameters(), 1e-12), shown(x, index))
    step = 0.1 * math.sqrt(2) * nn.functional.normalize(grad)
    torch.testing.assert_close(
        objective.z0[index, 0], into_ball(z.detach() - step, math.sqrt(2)), rtol=1e-6, atol=1e-9
    )


def test_glo_of_a_linear_generator_comes_to_the_error_of_principal_components():
    x, spectrum = factors(60)
    G, family = linear(2, 2), additive([0])
    objective = begun(GLO([1], "mse"), family, G, 60)
    optim = torch.optim.Adam(G.parameters(), 0.02)
    step = shown(x, torch.arange(60))
    losses = [update(objective, G, family, optim, step) for _ in range(600)]
    best = float(spectrum[2:].sum()) / 20
    assert best < min(losses) * (1 + 1e-9) and losses[-1] < 1.02 * best


def test_maps_that_are_codes_of_their_own_lift_a_generator_beyond_its_latent():
    """z1 of the whole feature space: G^1 draws each image exactly, G^0 at best its components."""
    x, spectrum = factors(30, noise=0.3)
    G, family = linear(2, 20), additive([1], sigma=1.0)
    objective = begun(GLO([1], "mse"), family, G, 30)
    optim = torch.optim.Adam(G.parameters(), 0.02)
    step = shown(x, torch.arange(30))
    losses = [update(objective, G, family, optim, step) for _ in range(400)]
    assert losses[-1] < 0.2 * float(spectrum[2:].sum()) / 20


def test_each_of_an_images_codes_is_learned(pggan):
    G, family = pggan(16), multicode([1, 3], block=2)
    objective = begun(GLO([1, 1]), family, G, 4)
    before = objective.z0.clone()
    assert before.shape == (4, 3, 8)
    optim = torch.optim.SGD(G.parameters(), 1e-3)
    update(objective, G, family, optim, shown(normal(4, 1, 16, 16), torch.arange(4)))
    assert bool((objective.z0 != before).any(2).all())


@pytest.mark.parametrize("settings", [{"distance": "l2"}, {"code_lr": 0.0}])
def test_bad_glo_settings_are_an_error(settings):
    ((key, value),) = settings.items()
    with pytest.raises(ValueError, match=f"{key}={value!r}"):
        GLO([1], **settings)


# VAE


class Affine(nn.Module):
    """The encoder of a linear model: a linear mean, one variance for all images."""

    def __init__(self, size, z_dim):
        super().__init__()
        self.mean = nn.Parameter(0.1 * normal(z_dim, size, seed=9))
        self.log_std = nn.Parameter(torch.zeros(z_dim, dtype=torch.float64))

    def forward(self, x):
        mean = x.flatten(1) @ self.mean.T
        return torch.cat([mean, self.log_std.expand_as(mean)], 1)


def test_the_cost_of_latents_is_the_divergence_from_the_prior():
    G, x, family = linear(3, 4), normal(6, *SHAPE), additive([0])
    objective = begun(VAE([1]), family, G, 0)
    objective.encoder = Affine(20, 3)
    (space,) = family.spaces
    drawn = space.sample(G, 6, seeded("cpu", 0))
    mean, log_std = objective.encoder(x).chunk(2, 1)
    posterior = torch.distributions.Normal(mean, log_std.exp())
    prior = torch.distributions.Normal(0.0, 1.0)
    expected = torch.distributions.kl_divergence(posterior, prior).sum(1)
    torch.testing.assert_close(objective.assign(G, space, drawn, shown(x)).cost, expected)


@pytest.mark.parametrize("std", [None, 0.3])
def test_the_loss_of_images_is_the_gaussian_likelihood(std):
    x, y = normal(4, *SHAPE), normal(4, *SHAPE, seed=1)
    objective = VAE([1], image_std=std).double()
    expected = -torch.distributions.Normal(y, std or 1.0).log_prob(x).flatten(1).sum(1)
    torch.testing.assert_close(objective.generator(y, x), expected, rtol=1e-6, atol=1e-6)
    assert len(list(objective.parameters())) == (std is None)


@pytest.mark.slow
def test_a_linear_vae_comes_to_the_likelihood_of_probabilistic_pca():
    """With a linear encoder the bound is tight, and its maximum known (Tipping and Bishop 1999):
    the noise is the mean of the eigenvalues left out."""
    x, spectrum = factors(100, noise=0.3)
    G, family = linear(2, 2), additive([0])
    objective = begun(VAE([1]), family, G, 0)
    objective.encoder = Affine(20, 2)
    parameters = [*G.parameters(), *objective.parameters()]
    optim = torch.optim.Adam(parameters, 0.02)
    for turn in range(1200):
        optim.param_groups[0]["lr"] = 0.02 * (1 - turn / 1200)
        update(objective, G, family, optim, shown(x, turn=turn), turn)
    noise = spectrum[2:].mean()
    assert float(objective.log_std.detach().exp() ** 2) == pytest.approx(float(noise), rel=0.02)
    logs = spectrum[:2].log().sum() + 18 * noise.log()
    best = float((20 * math.log(2 * math.pi) + logs + 20) / 2)
    frozen = torch.optim.SGD(parameters, 0.0)
    bound = [update(objective, G, family, frozen, shown(x, turn=-t), t) for t in range(1, 200)]
    bound = sum(bound) / len(bound)
    assert best * (1 - 1e-3) < bound < best + 0.02


def test_codes_of_an_image_pay_their_divergence_each(pggan):
    G, family = pggan(16), multicode([3], block=2)
    objective = begun(VAE([1]), family, G, 0)
    x, (space,) = normal(2, 1, 16, 16), family.spaces
    latents, cost = objective.assign(G, space, space.sample(G, 2, seeded("cpu", 0)), shown(x))
    single = additive([0]).spaces[0]
    _, once = objective.assign(G, single, single.sample(G, 2, seeded("cpu", 0)), shown(x))
    torch.testing.assert_close(cost, 3 * once)
    codes = latents.w.view(2, 3, -1)
    assert not torch.equal(codes[:, 0], codes[:, 1])


def test_gradients_reach_encoder_decoder_and_noise(stylegan2):
    G, family = stylegan2(16), additive([0, 2])
    objective = begun(VAE([1, 1]), family, G, 0)
    optim = torch.optim.SGD([*G.parameters(), *objective.parameters()], 0.0)
    update(objective, G, family, optim, shown(normal(3, 1, 16, 16)))
    for name, p in objective.named_parameters():
        assert bool(p.grad.any()), name


@pytest.mark.parametrize("settings", [{"image_std": 0.0}, {"image_std": -1.0}, {"width": 0}])
def test_bad_vae_settings_are_an_error(settings):
    ((key, value),) = settings.items()
    with pytest.raises(ValueError, match=f"{key}={value}"):
        VAE([1], **settings)
