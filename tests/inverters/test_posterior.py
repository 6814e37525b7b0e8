"""The posterior: exact on the linear model, where it is Gaussian in closed form."""

import pytest
import torch
from helpers.inverters import pggan, problem, rngs, stylegan2

from rtil.inverters.data_term import MeasurementLoss
from rtil.inverters.lmmse import LMMSE, GaussianPrior
from rtil.inverters.minimise import CONSTANT, Descent, Observation, Variable, laid_out, minimise
from rtil.inverters.posterior import Posterior
from rtil.inverters.residual import Residual, Solver, View
from rtil.inverters.start import draw_pool
from rtil.inverters.styles import weights_key
from rtil.latents.additive import Additive
from rtil.latents.family import additive
from rtil.operators import Dense, PhaseRetrieval, inpainting

SIGMA, SCALE = 0.7, 0.5


@pytest.fixture(scope="module")
def model(linear):
    """G, A with 8 rows, and 40 training images."""
    G, rng = linear().requires_grad_(False), torch.Generator().manual_seed(5)
    A = Dense(G.image_shape, torch.randn(8, 20, generator=rng, dtype=torch.float64) / 20**0.5)
    images = torch.randn(40, *G.image_shape, generator=rng, dtype=torch.float64)
    return G, A, images


def measured(model, noise, count=4):
    G, A, _ = model
    rng = torch.Generator().manual_seed(6)
    x = Additive(1).synthesize(G, Additive(1).sample(G, count, rng))
    return A.noisy(A(x), noise, rngs(range(count)))


def matrix(prior):
    return prior.covariance(torch.eye(len(prior.mean), dtype=torch.float64))


def closed_form(model, y, noise, share=1.0):
    """Mean (B, n) and covariance of x | y: x is Gaussian, and so is y."""
    G, A, images = model
    W = share * G.w1 @ torch.cat([G.w0, SIGMA * torch.eye(6).double()], 1)
    prior = GaussianPrior(images)
    cov = W @ W.T + (SCALE if share == 1 else 1 - share**2) * matrix(prior)
    M = A.matrix @ cov @ A.matrix.T + (2 * noise) ** 2 * torch.eye(8).double()
    gain = torch.linalg.solve(M, A.matrix @ cov).T
    mean = (1 - share) * prior.mean
    return mean + (y - mean @ A.matrix.T) @ gain.T, cov - gain @ A.matrix @ cov


def inverter(images, **settings):
    given = {"steps": 500, "lr": 1.0, "maps": 1, "map_sigma": SIGMA, "share": 1.0}
    return Posterior(**{**given, "residual": SCALE, **settings}).fit(images)


@pytest.mark.parametrize("noise", [0.0, 0.3])
@pytest.mark.parametrize("settings", [
    {"sampler": "modes", "chains": 1},
    {"sampler": "rto", "chains": 2},
])  # fmt: skip
def test_the_mode_and_the_mean_of_a_pair_are_the_posterior_mean(model, noise, settings):
    G, A, images = model
    y = measured(model, noise)
    estimate = inverter(images, noise_std=noise, **settings)
    found = estimate.invert(G, A, y, MeasurementLoss(A), rngs("abcd"))
    mean, _ = closed_form(model, y, noise)
    torch.testing.assert_close(found.image.flatten(1), mean, rtol=0, atol=1e-6)


@pytest.mark.parametrize("noise", [0.0, 0.3])
@pytest.mark.parametrize("share", [0.05, 0.6])
def test_of_a_share_the_mean_and_the_deviation_are_those_of_the_model(model, noise, share):
    G, A, images = model
    y, seen = measured(model, noise), []
    given = {"share": share, "residual": None, "noise_std": noise}
    estimate = inverter(images, sampler="rto", chains=2, **given)
    found = estimate.invert(G, A, y, MeasurementLoss(A), rngs("abcd"), seen.append)
    mean, _ = closed_form(model, y, noise, share)
    torch.testing.assert_close(found.image.flatten(1), mean, rtol=0, atol=1e-6)
    halves = torch.stack(seen[:2])
    between = (halves - found.image).square().mean(0)
    prior = matrix(GaussianPrior(images)) * (1 - share**2)
    M = A.matrix @ prior @ A.matrix.T + (2 * noise) ** 2 * torch.eye(8).double()
    within = prior - prior @ A.matrix.T @ torch.linalg.solve(M, A.matrix @ prior)
    std = (between.flatten(1) + within.diagonal()).sqrt()
    torch.testing.assert_close(found.spread.std.flatten(1), std)
    torch.testing.assert_close(found.last, seen[1])
    torch.testing.assert_close(found.spread.draws.mean(0).flatten(1), mean, rtol=0, atol=1e-6)


def test_a_small_share_is_the_linear_estimate(model):
    G, A, images = model
    y = measured(model, 0.1)
    estimate = inverter(images, share=1e-4, residual=None, noise_std=0.1, steps=20)
    found = estimate.invert(G, A, y, MeasurementLoss(A), rngs("abcd"))
    linear = LMMSE(noise_std=0.1).fit(images)
    expected = linear.invert(None, A, y, MeasurementLoss(A), rngs("abcd"))
    torch.testing.assert_close(found.image, expected.image, rtol=0, atol=1e-3)


@pytest.mark.parametrize("noise", [0.0, 0.3])
def test_draws_have_the_mean_and_the_covariance_of_the_posterior(model, noise):
    """400 images of one y and 2 draws each: entries within 5 of their standard errors."""
    G, A, images = model
    y = measured(model, noise, 1).expand(400, -1)
    estimate = inverter(images, noise_std=noise, sampler="rto", chains=2, steps=250)
    found = estimate.invert(G, A, y, MeasurementLoss(A), rngs(range(400)))
    mean, cov = closed_form(model, y, noise)
    for draws in found.spread.draws:  # the two of a pair are not independent
        rest = draws.flatten(1) - mean
        size = cov.diagonal().clamp_min(1e-12).sqrt()
        assert (rest.mean(0).abs() < 5 * size / 400**0.5).all()
        error = (rest.T @ rest / 400 - cov) / torch.outer(size, size)
        assert error.abs().max() < 5 * 2**0.5 / 400**0.5
    # Unbiased: between chains and within.
    torch.testing.assert_close(
        found.spread.std.square().mean(0).flatten(), cov.diagonal(), rtol=0.1, atol=0.02
    )


def test_what_a_chain_reports_explains_measurements_without_noise(model):
    G, A, images = model
    y = measured(model, 0.0)
    found = inverter(images, steps=5).invert(G, A, y, MeasurementLoss(A), rngs("abcd"))
    for image in (found.image, found.last, *found.spread.draws):
        torch.testing.assert_close(A(image), y, rtol=0, atol=1e-9)


@pytest.mark.parametrize("dense", [True, False])
def test_draws_of_a_residual_have_its_covariance(model, dense):
    images = model[2] if dense else model[2][:12]
    prior = GaussianPrior(images)
    assert prior.is_dense == dense
    cov = matrix(prior)
    torch.testing.assert_close(prior.variance, cov.diagonal())
    size = cov.diagonal().sqrt()
    x = prior.draw(rngs(range(3000)))
    error = (x.T @ x / 3000 - cov) / torch.outer(size, size)
    assert error.abs().max() < 5 * 2**0.5 / 3000**0.5


@pytest.mark.parametrize("noise", [0.0, 0.2])
def test_conjugate_gradients_agree_with_the_factor(model, noise):
    _, A, images = model
    view, prior = View(A, noise, None, torch.device("cpu")), GaussianPrior(images)
    factored = Residual(view, prior, SCALE)
    iterated = Residual(view, prior, SCALE, Solver(1e-12), largest=0)
    assert type(factored.marginal) is not type(iterated.marginal)
    y = measured(model, noise)
    y_hat = torch.zeros_like(y, requires_grad=True)
    parts = []
    for residual in (factored, iterated):
        value = residual.misfit(y_hat, y)
        (gradient,) = torch.autograd.grad(value.sum(), y_hat)
        parts.append((value.detach(), gradient, residual.expected(y)))
    for a, b in zip(*parts):
        torch.testing.assert_close(a, b)
    torch.testing.assert_close(iterated.variance(), factored.variance(), rtol=0.8, atol=1e-9)


@pytest.mark.parametrize("temperature", [0.1, 3.0, 1e6, None])
def test_modes_are_weighed_by_their_density(model, temperature, monkeypatch):
    """Chains that have not ended, so that they differ; energies from their latents alone."""
    G, A, images = model
    y = measured(model, 0.0)
    chains, run = [], Posterior._chain
    monkeypatch.setattr(
        Posterior, "_chain", lambda self, *given: chains.append(run(self, *given)) or chains[-1]
    )
    share, mu = 0.6, GaussianPrior(images).mean.view(G.image_shape)
    estimate = inverter(images, steps=3, chains=5, temperature=temperature, share=share)
    found = estimate.invert(G, A, y, MeasurementLoss(A), rngs("abcd"))
    C = SCALE * matrix(GaussianPrior(images))
    M = A.matrix @ C @ A.matrix.T
    energies = []
    for chain in chains:
        z0, z1 = chain.latents.w.flatten(1), chain.latents.add[1].flatten(1) / SIGMA
        rest = y - A((1 - share) * mu + share * Additive(1).synthesize(G, chain.latents))
        misfit = (rest * torch.linalg.solve(M, rest.T).T).sum(1)
        energies.append((misfit + z0.square().sum(1) + z1.square().sum(1)) / 2)
    energy = torch.stack(energies)
    torch.testing.assert_close(torch.stack([chain.energy for chain in chains]), energy)
    weights = torch.softmax(-energy / (temperature or 1e12), 0)[..., None]
    drawn = torch.stack([chain.image.flatten(1) for chain in chains])
    mean = (weights * drawn).sum(0)
    torch.testing.assert_close(found.image.flatten(1), mean)
    # Equal weights are a sample of five, others the mixture itself.
    between = (weights * (drawn - mean).square()).sum(0) * (1.25 if temperature is None else 1)
    within = (C - C @ A.matrix.T @ torch.linalg.solve(M, A.matrix @ C)).diagonal()
    torch.testing.assert_close(found.spread.std.flatten(1).square(), between + within)


@pytest.mark.parametrize("share", [0.6, 1.0])
@pytest.mark.parametrize("largest", [0, 2**25])
def test_each_chain_starts_at_the_best_of_its_own_draws(model, share, largest, monkeypatch):
    """By the misfit where M is factored, by the squared error where not."""
    G, A, images = model
    y, starts, run = measured(model, 0.0), [], Posterior._chain

    def noted(self, *given):
        starts.append(given[-1])
        return run(self, *given)

    monkeypatch.setattr(Posterior, "_chain", noted)
    monkeypatch.setattr(Residual.__init__, "__defaults__", (Solver(), largest))
    estimate = inverter(images, steps=1, chains=3, candidates=20, share=share)
    estimate.invert(G, A, y, MeasurementLoss(A), rngs("abcd"))
    pool = draw_pool(G, 60, weights_key(G))
    prior = GaussianPrior(images)
    residual = Residual(View(A, 0.0, None, y.device), prior, SCALE)
    shrunk = (1 - share) * prior.mean.view(G.image_shape) + share * pool.images
    for b, name in enumerate("abcd"):
        order = torch.randperm(60, generator=rngs(name)[0])
        for start, part in zip(starts, order.view(3, 20)):
            seen, own = A(shrunk[part]), y[b].expand(20, -1)
            misfits = residual.misfit(seen, own) if largest else (seen - own).square().sum(1)
            assert torch.equal(start[b], pool.z0[part[misfits.argmin()]])


@pytest.mark.parametrize("more", [{}, {"candidates": 10, "temperature": 2.0}])
@pytest.mark.parametrize("make", [stylegan2, pggan])
def test_a_batch_equals_one_image_at_a_time(make, more):
    G, (A, y, loss, x) = make(), problem()
    estimate = Posterior(6, 3, maps=2, map_sigma=[0.5, 1.0], **more).fit(x)
    seen = []
    together = estimate.invert(G, A, y, loss, rngs("abc"), seen.append)
    assert len(seen) == 4 and seen[-1] is together.image
    for b, name in enumerate("abc"):
        alone = estimate.invert(G, A, y[b : b + 1], loss, rngs(name))
        torch.testing.assert_close(together.image[b], alone.image[0], rtol=0, atol=1e-7)
        torch.testing.assert_close(together.spread.std[b], alone.spread.std[0], rtol=0, atol=1e-7)
        draws = together.spread.draws[:, b], alone.spread.draws[:, 0]
        torch.testing.assert_close(*draws, rtol=0, atol=1e-7)
    torch.testing.assert_close(loss(A(together.last), y), together.last_loss)


@pytest.mark.parametrize("operator", ["inpainting", "dense"])
def test_entries_that_are_not_seen_change_nothing(model, operator):
    G, A, images = model
    if operator == "inpainting":
        A = inpainting(G.image_shape, 0.5, seed=0)
    kept = torch.arange(A.out_shape[-1]) != 2
    loss = MeasurementLoss(A, kept=kept)
    y = A(images[:2])
    other = y + 7.0 * ~(kept if A.observed is None else kept & A.observed)
    estimate = inverter(images, steps=5)
    a, b = (estimate.invert(G, A, v, loss, rngs("ab")).image for v in (y, other))
    assert torch.equal(a, b)


def test_maps_are_those_of_training_unless_given():
    trained, plain = additive([0, 1, 2], sigma=0.3, relative=True), additive([0])
    own = Posterior(5).trained_with(trained)
    assert (own.maps, own.map_sigma, own.map_relative) == (2, 0.3, True)
    given = Posterior(5, maps=1, map_relative=False).trained_with(trained)
    assert (given.maps, given.map_sigma, given.map_relative) == (1, 0.3, False)
    assert Posterior(5).trained_with(plain).maps == 0
    forced = Posterior(5, maps=2, map_sigma=0.5).trained_with(plain)
    assert (forced.maps, forced.map_sigma) == (2, 0.5)
    with pytest.raises(ValueError, match="maps=2 needs the standard deviation"):
        Posterior(5, maps=2).trained_with(plain).check(stylegan2())
    with pytest.raises(ValueError, match="and training drew z_1"):
        Posterior(5, maps=3).trained_with(trained)
    with pytest.raises(ValueError, match="generator has"):
        Posterior(5, maps=9, map_sigma=1.0).check(stylegan2())
    with pytest.raises(ValueError, match="noise_maps=1"):
        Posterior(5, noise_maps=1).check(pggan())


@pytest.mark.parametrize("settings", [
    {"steps": 0}, {"chains": 0}, {"lr": 0.0}, {"sampler": "mala"}, {"maps": -1},
    {"noise_maps": -1}, {"residual": 0.0}, {"residual": -1.0, "noise_std": 2.0},
    {"maps": 2, "map_sigma": [1.0]}, {"map_sigma": 0.0, "maps": 1},
    {"chains": 10**4, "candidates": 101},
    {"candidates": 0}, {"temperature": 0.0}, {"share": 0.0}, {"share": 1.1}, {"share": 1.0},
])  # fmt: skip
def test_settings_out_of_range_are_refused(settings):
    with pytest.raises(ValueError, match="must be"):
        Posterior(**{"steps": 5, **settings})


def test_what_is_of_modes_changes_nothing_of_rto(model):
    G, A, images = model
    y, found = measured(model, 0.1), []
    for more in ({"candidates": 1, "temperature": None}, {"candidates": 9, "temperature": 2.0}):
        estimate = inverter(images, sampler="rto", chains=3, steps=3, noise_std=0.1, **more)
        found.append(estimate.invert(G, A, y, MeasurementLoss(A), rngs("abcd")))
    assert torch.equal(found[0].image, found[1].image)
    assert torch.equal(found[0].spread.std, found[1].spread.std)


def test_what_is_not_linear_or_not_fitted_is_refused(model):
    G, A, _ = model
    phase = PhaseRetrieval(G.image_shape, 0.7, seed=0)
    with pytest.raises(ValueError, match="PhaseRetrieval is not linear"):
        Posterior(5).check_operator(phase)
    with pytest.raises(ValueError, match="fit"):
        Posterior(5).invert(G, A, measured(model, 0.0), MeasurementLoss(A), rngs("abcd"))


def test_the_memory_format_of_a_gradient_changes_nothing(model):
    """Fused Adam reads memory in order; a generator in channels-last gives such gradients."""
    _, A, images = model
    start = torch.randn(2, *A.in_shape, generator=torch.Generator().manual_seed(0)).double()
    found = []
    for permuted in (False, True):
        value = start.clone()

        def render(value=value, permuted=permuted):
            x = value.clone()
            if permuted and x.requires_grad:
                x.register_hook(lambda g: g.mT.contiguous().mT)
            return x, None

        loss = MeasurementLoss(A)
        minimise(
            render,
            [Variable(value, 0.1)],
            Observation(A, A(images[:2]), loss),
            Descent(5, CONSTANT),
        )
        found.append(value.detach())
    torch.testing.assert_close(*found)
    last = torch.zeros(2, 3, 4, 4).contiguous(memory_format=torch.channels_last)
    gradient = torch.randn(2, 3, 4, 4)
    same = laid_out(gradient, last)
    assert torch.equal(same, gradient) and same.stride() == last.stride()
    assert laid_out(gradient, gradient) is gradient and laid_out(None, last) is None
