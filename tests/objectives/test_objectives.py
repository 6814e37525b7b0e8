"""Losses and penalties against their formulas, finite differences and closed forms, in float64."""

import copy
import math

import pytest
import torch
from torch import nn

from rtil.latents.additive import Additive
from rtil.latents.mixture import Mixture
from rtil.latents.multicode import MultiCode
from rtil.models.generator import StyleMixing
from rtil.objectives.logistic import Logistic, gradient_norm2, path_lengths
from rtil.objectives.relativistic import Relativistic
from rtil.objectives.wgan_gp import WGANGP
from rtil.process.rng import Draws, seeded

STEP = 1e-5


def normal(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


class LinearDiscriminator(nn.Module):
    """D(x) = <a, x>, whose gradient is a for every image."""

    def __init__(self, shape, seed=0):
        super().__init__()
        self.a = nn.Parameter(normal(*shape, seed=seed))

    def forward(self, x):
        return (x * self.a).flatten(1).sum(1)


def difference(value, x, index):
    """Central difference of the float value() in one entry of x, changed in place."""
    flat = x.detach().view(-1)
    old = float(flat[index])
    values = []
    for sign in (1, -1):
        flat[index] = old + sign * STEP
        values.append(value())
    flat[index] = old
    return (values[0] - values[1]) / (2 * STEP)


def assert_weight_gradient(value, network, entries=3):
    """autograd of value() in entries of each parameter of the network equals differences."""
    with torch.enable_grad():
        parameters = dict(network.named_parameters())
        grads = torch.autograd.grad(value(), list(parameters.values()), allow_unused=True)
    used = 0
    for (name, p), grad in zip(parameters.items(), grads):
        if grad is None:
            continue
        used += 1
        rng = torch.Generator().manual_seed(len(name))
        for index in torch.randint(p.numel(), (entries,), generator=rng).tolist():
            expected = difference(lambda: float(value().detach()), p, index)
            scale = max(1e-3, float(grad.abs().max()))
            assert abs(float(grad.flatten()[index]) - expected) < 1e-5 * scale, name
    assert used


# Logistic


def test_logistic_losses_are_the_log_likelihoods_of_a_sigmoid():
    objective, scores = Logistic([1]), torch.linspace(-5, 5, 11).double()
    probability = 1 / (1 + (-scores).exp())
    torch.testing.assert_close(objective.real(scores), -probability.log())
    torch.testing.assert_close(objective.fake(scores), -(1 - probability).log())
    torch.testing.assert_close(objective.generator(scores), -probability.log())
    assert objective.pair_penalty is None


@pytest.mark.parametrize("kind", ["stylegan2", "pggan"])
def test_r1_is_the_squared_norm_of_the_gradient_by_differences(discriminator, kind):
    D, x = discriminator(kind, 8), normal(3, 1, 8, 8)
    norms = gradient_norm2(D, x).detach()
    for b in range(3):

        def score():
            with torch.no_grad():
                return float(D(x).sum())

        grad = [difference(score, x, b * 64 + i) for i in range(64)]
        assert float(norms[b]) == pytest.approx(sum(g**2 for g in grad), rel=1e-6)


@pytest.mark.parametrize("kind", ["stylegan2", "pggan"])
def test_gradient_of_r1_in_the_weights_equals_differences(discriminator, kind):
    D, x = discriminator(kind, 8), normal(3, 1, 8, 8)
    objective = Logistic([1], r1_weight=0.3, r1_every=16)
    assert_weight_gradient(lambda: objective.d_lazy.penalty(D, x).mean(), D)


def test_r1_of_a_linear_discriminator_is_the_norm_of_its_weights():
    """Scaled by the interval: lazy regularisation (gamma / 2) |grad|^2 every `every` steps."""
    D, x = LinearDiscriminator((3, 4, 4)), normal(5, 3, 4, 4, seed=1)
    norm2 = D.a.detach().square().sum()
    torch.testing.assert_close(gradient_norm2(D, x), norm2.expand(5))
    penalty = Logistic([1], r1_weight=10.0, r1_every=16).d_lazy.penalty(D, x)
    torch.testing.assert_close(penalty, (16 * 10 / 2 * norm2).expand(5))
    (grad,) = torch.autograd.grad(penalty.mean(), D.a)
    torch.testing.assert_close(grad, 16 * 10 * D.a)
    assert not x.requires_grad


# Path length


@pytest.mark.parametrize("depth", [0, 2])
def test_path_length_is_the_norm_of_the_jacobian_product_by_differences(stylegan2, rng, depth):
    G, space = stylegan2(8), Additive(depth)
    latents, y = space.sample(G, 2, rng), normal(2, 1, 8, 8)
    latents = latents._replace(w=latents.w.clone().contiguous())
    latents.w.retain_grad()
    lengths = path_lengths(G, space, latents, y).detach()
    w = latents.w.detach().clone()
    layers = w.shape[1]

    def projection():
        with torch.no_grad():
            return float((space.synthesize(G, latents._replace(w=w)) * y).sum()) / 8

    for b in range(2):
        grad = torch.tensor(
            [difference(projection, w, b * w[0].numel() + i) for i in range(w[0].numel())]
        ).view(layers, -1)
        expected = grad.square().sum(1).mean().sqrt()
        assert float(lengths[b]) == pytest.approx(float(expected), rel=1e-6)


def test_gradient_of_the_path_penalty_in_the_weights_equals_differences(stylegan2):
    """With the running mean held: the penalty updates it at every call."""
    G, objective = stylegan2(8), Logistic([1], path_weight=2.0, path_decay=0.0).double()
    objective.path_mean_0.fill_(0.3)

    def value():
        rng, space = seeded("cpu", 0), Additive(1)
        latents = space.sample(G, objective.g_lazy.batch, rng, StyleMixing(0.5))
        draws = Draws(rng, objective.g_lazy.batch)
        return objective.g_lazy.penalty(G, space, 0, latents, draws).mean()

    assert_weight_gradient(value, G)


def test_gradient_through_the_path_mean_equals_differences_of_a_penalty_that_moves_it(stylegan2):
    """As published, also where a batch holds two members, each with a mean of its own."""
    G, space = stylegan2(8), Mixture((Additive(0), Additive(2)), group=2)
    objective = Logistic([2], path_batch=4, path_decay=0.4, path_mean_detached=False).double()

    def value():
        objective.path_mean_0.copy_(torch.tensor([0.3, 0.2]))
        return penalty(objective, G, space)[0].mean()

    assert_weight_gradient(value, G)


def path_gradients(G, batch, mean, **settings):
    """Gradients of the penalty in the weights that it depends on, one after the other."""
    objective = Logistic([1], path_batch=batch, **settings).double()
    objective.path_mean_0.fill_(mean)
    value = penalty(objective, G, Additive(1))[0].mean()
    grads = torch.autograd.grad(value, list(G.parameters()), allow_unused=True)
    return torch.cat([grad.flatten() for grad in grads if grad is not None])


def test_gradient_through_the_path_mean_is_the_published_one(stylegan2):
    """By the formula: 2 w mean_i e_i (grad l_i - decay grad <l>), e_i = l_i - a."""
    G, decay, mean = stylegan2(8), 0.01, 0.3
    rng = seeded("cpu", "penalty", 0)
    latents = Additive(1).sample(G, 3, rng)
    y = torch.randn((3, 1, 8, 8), generator=rng).double()
    lengths = path_lengths(G, Additive(1), latents, y)
    moved = mean + decay * (lengths.mean() - mean)
    published = 4 * 2.0 * (lengths - moved).square().mean()
    grads = torch.autograd.grad(published, list(G.parameters()), allow_unused=True)
    expected = torch.cat([grad.flatten() for grad in grads if grad is not None])
    found = path_gradients(G, 3, mean, path_decay=decay, path_mean_detached=False)
    torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-12)
    assert not torch.allclose(path_gradients(G, 3, mean, path_decay=decay), expected, rtol=1e-4)


@pytest.mark.parametrize("decay", [0.01, 0.25])
def test_of_one_sample_the_published_path_gradient_is_smaller_by_the_decay(stylegan2, decay):
    G = stylegan2(8)
    detached, published = (
        path_gradients(G, 1, 0.3, path_decay=decay, path_mean_detached=detached)
        for detached in (True, False)
    )
    assert float(detached.abs().max()) > 0.1
    torch.testing.assert_close(published, (1 - decay) * detached)


def test_path_length_of_a_linear_generator_has_a_closed_form(linear, rng):
    """J = W1 W0 for every latent, so the length is |W0^T W1^T y| / sqrt(H W)."""
    G, space = linear(), Additive(1)
    latents, y = space.sample(G, 5, rng), normal(5, 1, 4, 5)
    lengths = path_lengths(G, space, latents, y).detach()
    expected = (y.flatten(1) @ (G.w1 @ G.w0)).norm(dim=1) / math.sqrt(20)
    torch.testing.assert_close(lengths, expected)


def test_path_length_of_several_codes_is_the_norm_over_all_of_them(linear, pggan, rng):
    G, space = pggan(8), MultiCode(3, 1)
    latents, y = space.sample(G, 2, rng), normal(2, 1, 8, 8)
    lengths = path_lengths(G, space, latents, y).detach()
    w = latents.w.detach().clone()

    def projection():
        with torch.no_grad():
            return float((space.synthesize(G, latents._replace(w=w)) * y).sum()) / 8

    grad = torch.tensor([difference(projection, w, i) for i in range(w.numel())]).view(2, -1)
    torch.testing.assert_close(lengths, grad.norm(dim=1).double(), rtol=1e-6, atol=0)


def penalty(objective, G, space, turn=0, index=0):
    rng, batch = seeded("cpu", "penalty", turn), objective.g_lazy.batch
    latents = space.sample(G, batch, rng, turn=turn)
    value = objective.g_lazy.penalty(G, space, index, latents, Draws(rng, batch))
    return value, latents.member


def test_running_path_mean_is_the_exponential_average_of_the_lengths(stylegan2):
    """Updated before the error is taken, scaled by weight and interval (Karras et al., App. B)."""
    G = stylegan2(8)
    objective = Logistic([1, 1], path_weight=2.0, path_every=4, path_batch=6, path_decay=0.1)
    objective = objective.double()
    mean = 0.0
    for turn in range(3):
        rng = seeded("cpu", "penalty", turn)
        latents = Additive(1).sample(G, 6, rng)
        y = torch.randn((6, 1, 8, 8), generator=rng).double()
        lengths = path_lengths(G, Additive(1), latents, y).detach()
        mean += 0.1 * (float(lengths.mean()) - mean)
        value, member = penalty(objective, G, Additive(1), turn, index=1)
        assert member == (0,) * 6
        assert float(objective.path_mean_1) == pytest.approx(mean, rel=1e-12)
        torch.testing.assert_close(value, 4 * 2.0 * (lengths - mean).square())
        assert float(objective.path_mean_0) == 0.0
    assert not objective.path_mean_1.requires_grad
    assert "path_mean_1" in objective.state_dict()


def test_each_member_of_a_mixture_has_its_own_running_mean(stylegan2):
    G, space = stylegan2(8), Mixture((Additive(0), Additive(2, sigma=20.0)), group=2)
    objective = Logistic([2], path_batch=4, path_decay=1.0).double()
    value, member = penalty(objective, G, space)
    assert member == (0, 0, 1, 1)
    rng = seeded("cpu", "penalty", 0)
    latents = space.sample(G, 4, rng)
    y = torch.randn((4, 1, 8, 8), generator=rng).double()
    lengths = path_lengths(G, space, latents, y).detach().view(2, 2)
    torch.testing.assert_close(objective.path_mean_0, lengths.mean(1))
    expected = 8 * (lengths - lengths.mean(1, keepdim=True)).square().flatten()
    torch.testing.assert_close(value.detach(), expected)
    # A draw without the second member leaves its mean alone.
    before = objective.path_mean_0.clone()
    _, member = penalty(objective, G, Mixture(space.members, (1, 0), 2), turn=1)
    assert set(member) == {0}
    assert objective.path_mean_0[1] == before[1] and objective.path_mean_0[0] != before[0]


@pytest.mark.parametrize(("members", "every"), [(4, 4), (5, 4), (3, 6), (4, 2)])
def test_lazy_path_penalties_visit_every_member_equally(stylegan2, members, every):
    """Also where the interval and the rotation of the mixture share a divisor."""
    G = stylegan2(8)
    space = Mixture(tuple(Additive(0, sigma=i) for i in range(members)))
    objective = Logistic([members], path_every=every, path_batch=2)
    seen = []
    for step in range(0, every * members * 2, every):
        seen += penalty(objective, G, space, objective.g_lazy.turn(step))[1]
    assert sorted(seen) == sorted(list(range(members)) * (len(seen) // members))


def test_weights_of_zero_switch_the_lazy_penalties_off():
    assert Logistic([1], r1_weight=0.0).d_lazy is None
    assert Logistic([1], path_weight=0.0).g_lazy is None
    assert Logistic([1], r1_every=7).d_lazy.every == 7
    assert Logistic([1], path_every=3).g_lazy.every == 3


def test_a_copied_objective_has_penalties_of_its_own(stylegan2):
    """They move the means of the copy, and those stay where a checkpoint looks for them."""
    first = Logistic([1], path_decay=1.0).double()
    second = copy.deepcopy(first)
    penalty(second, stylegan2(8), Additive(0))
    assert float(first.path_mean_0) == 0.0 and float(second.path_mean_0) > 0.0
    assert list(first.state_dict()) == ["path_mean_0"]


@pytest.mark.parametrize(
    "settings",
    [
        {"r1_weight": -1},
        {"path_weight": -1},
        {"r1_every": 0},
        {"path_every": 0},
        {"path_batch": 0},
    ],
)
def test_bad_logistic_settings_are_an_error(settings):
    ((key, value),) = settings.items()
    with pytest.raises(ValueError, match=f"{key}={value}"):
        Logistic([1], **settings)


# WGAN-GP


def test_wgan_losses_are_score_differences_with_a_drift_on_real_scores():
    objective, scores = WGANGP([1], drift=0.01), torch.linspace(-5, 5, 11).double()
    torch.testing.assert_close(objective.real(scores), -scores + 0.01 * scores**2)
    assert torch.equal(objective.fake(scores), scores)
    assert torch.equal(objective.generator(scores), -scores)
    assert objective.d_lazy is None and objective.g_lazy is None


def test_gradient_penalty_of_a_linear_discriminator_has_a_closed_form(rng):
    D = LinearDiscriminator((1, 4, 4))
    real, fake = normal(2, 3, 1, 4, 4)
    value = WGANGP([1], gp_weight=7.0).pair_penalty(D, real, fake, Draws(rng, 3))
    expected = 7 * (D.a.detach().norm() - 1) ** 2
    torch.testing.assert_close(value, expected.expand(3))
    (grad,) = torch.autograd.grad(value.mean(), D.a)
    torch.testing.assert_close(grad, 14 * (D.a.norm() - 1) * D.a / D.a.norm())


def test_gradient_penalty_by_differences(discriminator):
    """At points between real and fake, one uniform draw per image."""
    D, real, fake = discriminator("pggan", 8), normal(3, 1, 8, 8), normal(3, 1, 8, 8, seed=1)
    draws = Draws(seeded("cpu", 3), 3)
    value = WGANGP([1], gp_weight=7.0).pair_penalty(D, real, fake, draws).detach()
    e = torch.rand((3, 1, 1, 1), generator=seeded("cpu", 3)).double()
    assert e.min() > 0.01 and e.std() > 0.05
    between = e * real + (1 - e) * fake
    for b in range(3):

        def score():
            with torch.no_grad():
                return float(D(between).sum())

        grad = torch.tensor([difference(score, between, b * 64 + i) for i in range(64)])
        expected = 7 * (float(grad.norm()) - 1) ** 2
        assert float(value[b]) == pytest.approx(expected, rel=1e-5)


def test_gradient_of_the_gradient_penalty_in_the_weights_equals_differences(discriminator):
    D, real, fake = discriminator("pggan", 8), normal(3, 1, 8, 8), normal(3, 1, 8, 8, seed=1)
    objective = WGANGP([1])

    def value():
        return objective.pair_penalty(D, real, fake, Draws(seeded("cpu", 3), len(real))).mean()

    assert_weight_gradient(value, D)


def test_gradient_penalty_leaves_the_generator_alone(rng):
    D, real = LinearDiscriminator((1, 4, 4)), normal(3, 1, 4, 4)
    fake = normal(3, 1, 4, 4, seed=1).requires_grad_()
    WGANGP([1]).pair_penalty(D, real, fake, Draws(rng, len(real))).sum().backward()
    assert fake.grad is None and D.a.grad is not None


@pytest.mark.parametrize("settings", [{"gp_weight": -1}, {"drift": -1}])
def test_bad_wgan_settings_are_an_error(settings):
    ((key, value),) = settings.items()
    with pytest.raises(ValueError, match=f"{key}={value}"):
        WGANGP([1], **settings)


# Relativistic


def test_relativistic_losses_are_softplus_of_the_difference_of_a_pair():
    objective, fake, real = Relativistic([1]), 3 * normal(20), 3 * normal(20, seed=1)
    torch.testing.assert_close(objective.fake(fake, real), (1 + (fake - real).exp()).log())
    torch.testing.assert_close(objective.generator(fake, real), (1 + (real - fake).exp()).log())
    # Who wins a pair loses what the other pays: f(t) - f(-t) = t.
    gap = objective.fake(fake, real) - objective.generator(fake, real)
    torch.testing.assert_close(gap, fake - real)


def test_equal_scores_cost_log_two_and_are_pulled_apart_by_a_half():
    fake, real = (normal(5).requires_grad_() for _ in range(2))
    loss = Relativistic([1]).fake(fake, real)
    torch.testing.assert_close(loss, torch.full_like(loss, math.log(2)))
    for scores, slope in ((fake, 0.5), (real, -0.5)):
        (grad,) = torch.autograd.grad(loss.sum(), scores, retain_graph=True)
        torch.testing.assert_close(grad, torch.full_like(grad, slope))


def test_relativistic_losses_do_not_change_where_all_scores_move_alike():
    objective, fake, real = Relativistic([1]), normal(20), normal(20, seed=1)
    for loss in (objective.fake, objective.generator):
        torch.testing.assert_close(loss(fake + 7.0, real + 7.0), loss(fake, real))


def test_r1_and_r2_of_a_linear_discriminator_are_the_norm_of_its_weights(rng):
    D, real, fake = LinearDiscriminator((3, 4, 4)), normal(5, 3, 4, 4), normal(5, 3, 4, 4, seed=1)
    objective = Relativistic([1], r1_weight=3.0, r2_weight=5.0)
    penalties = objective.real_penalty(D, real), objective.pair_penalty(D, real, fake, None)
    for penalty, weight in zip(penalties, (3.0, 5.0)):
        torch.testing.assert_close(penalty, (weight / 2 * D.a.square().sum()).expand(5))
        (grad,) = torch.autograd.grad(penalty.mean(), D.a)
        torch.testing.assert_close(grad, weight * D.a)


@pytest.mark.parametrize("kind", ["stylegan2", "pggan"])
def test_r1_is_taken_at_real_images_and_r2_at_generated_ones(discriminator, kind):
    D, real, fake = discriminator(kind, 8), normal(2, 1, 8, 8), normal(2, 1, 8, 8, seed=1)
    objective = Relativistic([1], r1_weight=2.0, r2_weight=2.0)
    r1, r2 = objective.real_penalty(D, real), objective.pair_penalty(D, real, fake, None)
    torch.testing.assert_close(r1, gradient_norm2(D, real))
    torch.testing.assert_close(r2, gradient_norm2(D, fake))
    assert not torch.allclose(r1, r2)


def test_penalties_of_weight_zero_are_none():
    objective = Relativistic([1], r1_weight=0.0, r2_weight=0.0)
    assert objective.real_penalty is None and objective.pair_penalty is None


@pytest.mark.parametrize("settings", [{"r1_weight": -1}, {"r2_weight": -1}])
def test_bad_relativistic_settings_are_an_error(settings):
    ((key, value),) = settings.items()
    with pytest.raises(ValueError, match=f"{key}={value}"):
        Relativistic([1], **settings)
