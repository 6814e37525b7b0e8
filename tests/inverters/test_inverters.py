"""Laws of every inverter: one at a time equals a batch, the loss falls, the best is no worse."""

import math
from itertools import pairwise

import pytest
import torch
from helpers.inverters import METHODS, SLOW, pggan, problem, rngs, stylegan2

from rtil.inverters.csgm import CSGM
from rtil.inverters.data_term import MeasurementLoss
from rtil.inverters.ilo import ILO
from rtil.inverters.lmmse import LMMSE, GaussianPrior, conjugate_gradient
from rtil.inverters.minimise import (
    CONSTANT,
    Descent,
    Observation,
    Schedule,
    Variable,
    minimise,
    norm,
    project_l1,
)
from rtil.inverters.multicode import MGANPrior
from rtil.inverters.styles import geodesic_cross
from rtil.latents.additive import Additive
from rtil.latents.family import additive, multicode
from rtil.latents.multicode import MultiCode, flat_dirichlet
from rtil.latents.space import Latents
from rtil.models.generator import EMPTY
from rtil.operators import Downsample, PhaseRetrieval, inpainting, partial_circulant
from rtil.process import replay
from rtil.process.rng import seeded


@pytest.fixture(
    params=[pytest.param(name, marks=pytest.mark.slow if name in SLOW else ()) for name in METHODS]
)
def method(request):
    make, inverter = METHODS[request.param]
    return make(), inverter


def test_a_batch_equals_one_image_at_a_time(method):
    G, inverter = method
    A, y, loss, _ = problem()
    together = inverter.invert(G, A, y, loss, rngs("abc"))
    for b, name in enumerate("abc"):
        alone = inverter.invert(G, A, y[b : b + 1], loss, rngs(name))
        torch.testing.assert_close(together.image[b], alone.image[0], rtol=0, atol=1e-7)
        torch.testing.assert_close(together.last[b], alone.last[0], rtol=0, atol=1e-7)
        torch.testing.assert_close(together.loss[b], alone.loss[0], rtol=1e-7, atol=1e-15)
        torch.testing.assert_close(together.history[:, b], alone.history[:, 0])


def test_the_loss_falls_and_best_is_no_worse_than_last(method):
    G, inverter = method
    A, y, loss, _ = problem()
    found = inverter.invert(G, A, y, loss, rngs("abc"))
    assert (found.loss < found.history[0]).all()
    assert (found.loss <= found.last_loss).all()
    torch.testing.assert_close(found.loss.cpu(), found.history.amin(0))
    for image, value in ((found.image, found.loss), (found.last, found.last_loss)):
        torch.testing.assert_close(loss(A(image), y), value)


def test_the_same_seed_gives_the_same_result_and_another_seed_another(method):
    G, inverter = method
    A, y, loss, _ = problem(2)
    a, b = (inverter.invert(G, A, y, loss, rngs("ab")) for _ in range(2))
    assert torch.equal(a.image, b.image)
    assert not torch.equal(a.image, inverter.invert(G, A, y, loss, rngs("xy")).image)


def test_watching_sees_every_iterate_and_changes_nothing(method):
    G, inverter = method
    A, y, loss, _ = problem(2)
    seen = []
    watched = inverter.invert(G, A, y, loss, rngs("ab"), watch=lambda x: seen.append(x.clone()))
    assert len(seen) == len(watched.history)
    torch.testing.assert_close(torch.stack([loss(A(x), y) for x in seen]).cpu(), watched.history)
    assert torch.equal(watched.image, inverter.invert(G, A, y, loss, rngs("ab")).image)


def test_phase_retrieval_of_images_in_range_finds_them_up_to_their_sign(linear):
    """m = 14 amplitudes of 20 pixels determine 3 latents (Hand et al. 2018)."""
    G = linear().requires_grad_(False)
    A = PhaseRetrieval(G.image_shape, 0.7, seed=0).double()
    z0 = torch.randn((6, 3), generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    x = G(z0)
    found = CSGM(steps=200, restarts=4).invert(G, A, A(x), MeasurementLoss(A), rngs("abcdef"))
    assert (found.loss < 1e-6).all()
    sign = (found.image * x).sum((1, 2, 3), keepdim=True).sign()
    torch.testing.assert_close(sign * found.image, x, rtol=0, atol=1e-2)
    assert sign.unique().numel() == 2  # nothing in y or in this prior settles it


def test_latents_redraw_the_last_image_of_csgm_and_mgan():
    A, y, loss, _ = problem(2)
    G = stylegan2()
    found = CSGM(steps=5, restarts=2).invert(G, A, y, loss, rngs("ab"))
    again = Additive(0).synthesize(G, found.latents)
    torch.testing.assert_close(again, found.last)


def test_weights_of_the_generator_get_no_gradient(method):
    G, inverter = method
    A, y, loss, _ = problem(1)
    inverter.invert(G, A, y, loss, rngs("a"))
    assert all(p.grad is None and not p.requires_grad for p in G.parameters())


def test_each_ilo_stage_starts_where_the_last_one_ended():
    G = stylegan2()
    A, y, loss, _ = problem(2)
    found = ILO(steps=[8, 5, 5, 5], fit_samples=200).invert(G, A, y, loss, rngs("ab"))
    stages = found.history.split([9, 6, 6, 6])
    for before, after in pairwise(stages):
        torch.testing.assert_close(after[0], before[-1], rtol=1e-9, atol=0)


def test_dropping_the_rgb_makes_a_jump_at_the_hand_over():
    G = stylegan2()
    A, y, loss, _ = problem(2)
    found = ILO(steps=[8, 5], keep_rgb=False, fit_samples=200).invert(G, A, y, loss, rngs("ab"))
    before, after = found.history[8], found.history[9]
    assert ((before - after).abs() > 1e-3 * before).all()


def test_ilo_stages_never_run_the_blocks_before_them(monkeypatch):
    G = stylegan2()
    A, y, loss, _ = problem(1)
    calls, step = [], G.step
    monkeypatch.setattr(G, "step", lambda k, *args: calls.append(k) or step(k, *args))
    ILO(steps=[2, 3, 4], fit_samples=200).invert(G, A, y, loss, rngs("a"))
    # 3 + 4 + 5 evaluations; each later stage also runs one block once to move the cut.
    assert calls.count(1) == 3 + 1
    assert calls.count(2) == 3 + 4 + 1
    assert calls.count(3) == 3 + 4 + 5


def test_ilo_keeps_styles_and_noise_on_their_spheres():
    G = stylegan2()
    A, y, loss, _ = problem(2)
    start = rngs("ab")
    v = torch.stack([torch.randn(G.w_shape, generator=r) for r in start]).double()
    noise = [
        torch.stack([torch.randn(s, generator=r) for r in start]).double() for s in G.noise_shapes
    ]
    found = ILO(steps=[20, 10], fit_samples=200).invert(G, A, y, loss, rngs("ab"))
    for a, b in zip(found.latents.noise, noise):
        torch.testing.assert_close(norm(a, 3), norm(b, 3))
    prior = G.style_prior(200, seeded("cpu", "style prior"))
    w = found.latents.w
    back = (torch.where(w < 0, w / prior.slope, w) - prior.mean) / prior.std
    torch.testing.assert_close(norm(back, 1), norm(v, 1), rtol=1e-6, atol=0)


def test_ilo_l1_ball_bounds_every_z():
    G = stylegan2()
    A, y, loss, _ = problem(2)
    settings = {"steps": [5, 30], "fit_samples": 200, "feature_relative": True}
    free = ILO(**settings).invert(G, A, y, loss, rngs("ab")).latents.add[1]
    ball = ILO(**settings, l1_radius=[0.02]).invert(G, A, y, loss, rngs("ab")).latents.add[1]
    x = ILO(**settings).invert(G, A, y, loss, rngs("ab"))
    state = G.step(1, EMPTY, x.latents.w, x.latents.noise)
    assert ball.abs().sum() < 0.03 * state.x.abs().sum() < free.abs().sum()


def test_relative_feature_steps_do_not_depend_on_the_features_scale():
    """Scaling block 1's features by c and undoing it after leaves relative ILO unchanged."""
    A, y, loss, _ = problem(2)
    images = []
    for c in (1.0, 7.0):
        G = pggan()
        image, step = G.image, G.step
        G.image = lambda s, w, c=c, image=image: image(_unscaled(s, c), w)
        G.step = lambda k, s, w, n=None, c=c, step=step: _scaled(step(k, _unscaled(s, c), w, n), c)
        found = ILO(steps=[4, 6], feature_relative=True).invert(G, A, y, loss, rngs("ab"))
        images.append(found.image)
    torch.testing.assert_close(*images, rtol=0, atol=1e-5)


def _scaled(state, c):
    return state._replace(x=state.x * c)


def _unscaled(state, c):
    return state._replace(x=state.x / c)


def test_geodesic_cross_of_orthogonal_and_equal_styles():
    """Two orthogonal styles are 90 degrees apart: angles (0, pi/2; pi/2, 0)."""
    v = torch.tensor([[[1.0, 0.0], [0.0, 1.0]]], dtype=torch.float64)
    expected = (math.pi / 2) ** 2 / 2 * 2 / 8
    torch.testing.assert_close(
        geodesic_cross(v), torch.tensor([expected]).double(), rtol=1e-6, atol=0
    )
    same = v[:, :1].repeat(1, 3, 1)
    assert float(geodesic_cross(same)) < 1e-8


def test_schedule_rises_and_falls_as_published():
    ramp = Schedule(0.05, 0.75)
    assert ramp(0.0) == 0.0 and ramp(0.05) == pytest.approx(1.0) and ramp(0.25) == 1.0
    assert ramp(0.025) == pytest.approx(0.5)
    assert ramp(0.625) == pytest.approx(0.5) and ramp(1.0) == pytest.approx(0.0)
    assert CONSTANT(0.0) == CONSTANT(1.0) == 1.0


def test_project_l1_solves_its_definition():
    """Against bisection on the threshold of the soft-thresholding form of the projection."""
    rng = torch.Generator().manual_seed(0)
    x = torch.randn((20, 5, 7), generator=rng, dtype=torch.float64)
    radius = torch.rand(20, generator=rng, dtype=torch.float64) * 60
    found = project_l1(x, radius)
    for a, b, r in zip(x, found, radius):
        if a.abs().sum() <= r:
            assert torch.equal(a, b)
            continue
        low, high = 0.0, float(a.abs().max())
        for _ in range(200):
            middle = (low + high) / 2
            over = (a.abs() - middle).clamp_min(0).sum() > r
            low, high = (middle, high) if over else (low, middle)
        torch.testing.assert_close(b, a.sign() * (a.abs() - low).clamp_min(0), atol=1e-9, rtol=0)


def test_steps_that_a_gpu_replays_are_those_of_the_loop(method, monkeypatch):
    G, inverter = method
    A, y, loss, _ = problem()
    found, seen = [], []
    for on in (False, True):
        shown = []
        monkeypatch.setattr(replay, "wanted", lambda device, steps, on=on: on)
        monkeypatch.setattr(replay, "repeated", lambda step, n, _: (step() for _ in range(n)))
        found.append(
            inverter.invert(
                G, A, y, loss, rngs("abc"), watch=lambda x, shown=shown: shown.append(x.clone())
            )
        )
        seen.append(torch.stack(shown))
    close = {"rtol": 1e-4, "atol": 1e-5}  # step sizes are float32 where they lie on the device
    torch.testing.assert_close(seen[1], seen[0], **close)
    for key in ("image", "last", "loss", "last_loss", "history"):
        torch.testing.assert_close(getattr(found[1], key), getattr(found[0], key), **close)


def test_sgd_of_minimise_is_gradient_descent():
    A = inpainting((1, 2, 2), 1.0).double()
    y = torch.zeros(2, 1, 2, 2).double()
    x = torch.ones(2, 1, 2, 2).double()
    found = minimise(
        lambda: (x, None),
        [Variable(x, 0.1)],
        Observation(A, y, lambda a, b: (a - b).square().sum((1, 2, 3))),
        Descent(3, CONSTANT, "sgd"),
    )
    torch.testing.assert_close(found.last, torch.full_like(found.last, 0.8**3))
    torch.testing.assert_close(found.history[:, 0], 4 * 0.8 ** (2 * torch.arange(4.0).double()))


def test_a_loss_that_is_not_finite_names_step_and_image():
    A, y, loss, _ = problem(3)
    y[1] = float("nan")
    with pytest.raises(RuntimeError, match=r"step 0 on, images \[1\]"):
        CSGM(steps=2).invert(stylegan2(), A, y, loss, rngs("abc"))


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: ILO(steps=[]), "steps"),
        (lambda: ILO(steps=0), "steps"),
        (lambda: ILO(steps=[5, 5], lr_style=[0.1]), "lr_style"),
        (lambda: ILO(steps=[5, 5], l1_radius=[1.0, 2.0]), "l1_radius"),
        (lambda: ILO(steps=5, depth=9).check(stylegan2()), "block 9"),
        (lambda: CSGM(steps=0), "steps"),
        (lambda: CSGM(steps=5, restarts=0), "restarts"),
        (lambda: MGANPrior(steps=5, optimiser="lbfgs"), "lbfgs"),
        (lambda: MGANPrior(steps=5, alpha_init="uniform"), "uniform"),
        (lambda: MGANPrior(steps=5, fade_in="first"), "fade_in='first' must be mixed or last"),
        (lambda: MGANPrior(5, block=2, fade_in="last").check(stylegan2()), "fade_in=last is of"),
        (lambda: MGANPrior(steps=5, block=7).check(pggan()), "block=7"),
        (lambda: GaussianPrior(torch.zeros(1, 1, 4, 4)), "2 or more"),
    ],
)
def test_bad_settings_are_named(make, words):
    with pytest.raises(ValueError, match=words):
        make()


def gaussian_images(count, size=8, channels=1, seed=0):
    rng = torch.Generator().manual_seed(seed)
    n = channels * size * size
    mixing = torch.randn((n, n), generator=rng, dtype=torch.float64) / n**0.5
    decay = torch.linspace(1, 0.02, n, dtype=torch.float64)
    draws = torch.randn((count, n), generator=rng, dtype=torch.float64) * decay
    return (draws @ mixing + 0.3).view(count, channels, size, size)


@pytest.mark.parametrize("count", [40, 400])  # fewer and more images than pixels
@pytest.mark.parametrize("noise_std", [0.0, 0.1])
@pytest.mark.parametrize(
    "make",
    [
        lambda: partial_circulant((1, 8, 8), 0.4),
        lambda: inpainting((1, 8, 8), 0.4),
        lambda: Downsample((1, 8, 8), 2),
    ],
)
def test_lmmse_equals_the_dense_wiener_estimate(make, noise_std, count):
    A, prior = make().double(), GaussianPrior(gaussian_images(count))
    eye = torch.eye(64, dtype=torch.float64)
    matrix = A(eye.view(64, 1, 8, 8)).flatten(1).T
    rows = matrix.abs().sum(1) > 0
    matrix = matrix[rows]
    covariance = prior.covariance(eye)
    x = gaussian_images(3, seed=1)
    y = A(x)
    inner = matrix @ covariance @ matrix.T + (2 * noise_std) ** 2 * torch.eye(len(matrix))
    rest = y.flatten(1)[:, rows] - prior.mean @ matrix.T
    want = prior.mean + torch.linalg.solve(inner, rest.T).T @ matrix @ covariance
    found = LMMSE(noise_std, tolerance=1e-10, prior=prior).invert(None, A, y, MeasurementLoss(A))
    torch.testing.assert_close(found.image.flatten(1), want, rtol=0, atol=1e-6)


def test_lmmse_recovers_images_of_its_own_subspace_from_few_measurements():
    """Images in a 10-dimensional affine space: 30 of 64 measurements determine them."""
    rng = torch.Generator().manual_seed(0)
    basis = torch.randn((10, 64), generator=rng, dtype=torch.float64)
    draw = torch.randn((2000, 10), generator=rng, dtype=torch.float64) @ basis / 10
    prior = GaussianPrior(draw[:1990].view(-1, 1, 8, 8))
    A = partial_circulant((1, 8, 8), 30 / 64).double()
    x = draw[1990:].view(-1, 1, 8, 8)
    found = LMMSE(tolerance=1e-10, prior=prior).invert(None, A, A(x), MeasurementLoss(A))
    assert (found.image - x).square().mean() < 1e-3 * x.square().mean()


def test_shrunk_covariance_is_the_ledoit_wolf_estimate():
    """rho = min(1, b / d) with b the variance of S and d its distance from a multiple of I."""
    images = gaussian_images(30, size=4)
    prior = GaussianPrior(images)
    x = images.flatten(1) - images.flatten(1).mean(0)
    s = x.T @ x / 30
    mu = s.trace() / 16
    d = (s - mu * torch.eye(16)).square().sum()
    b = sum((torch.outer(r, r) - s).square().sum() for r in x) / 30**2
    assert prior.rho == pytest.approx(float(min(b / d, 1)), rel=1e-9)
    want = (1 - prior.rho) * s + prior.rho * mu * torch.eye(16)
    torch.testing.assert_close(prior.covariance(torch.eye(16).double()), want)
    factored = GaussianPrior(gaussian_images(30, size=8))
    assert not factored.is_dense
    eye = torch.eye(64).double()
    c = factored.covariance(eye)
    assert torch.linalg.eigvalsh(c).min() > 0 and torch.allclose(c, c.T)


def test_conjugate_gradient_stops_each_row_by_itself():
    rng = torch.Generator().manual_seed(0)
    a = torch.randn((12, 12), generator=rng, dtype=torch.float64)
    a = a @ a.T + torch.eye(12)
    b = torch.randn((4, 12), generator=rng, dtype=torch.float64)
    b[2] = 0
    x = conjugate_gradient(lambda v: v @ a, b, 1e-12, 100)
    torch.testing.assert_close(x @ a, b, rtol=0, atol=1e-9)
    assert not x[2].any()


@pytest.mark.parametrize("fade_in", ["mixed", "last"])
def test_mgan_inverts_a_network_that_fades_in_as_it_was_trained(fade_in):
    """The first iterate is what the family's member draws of its codes and weights."""
    G = pggan()
    G.num_blocks, G.alpha = 2, 0.4
    A = inpainting(G.image_shape, 1.0, seed=1).double()
    inverter = MGANPrior(1, 3, 2).trained_with(multicode([1, 3], block=2, fade_in=fade_in))
    seen, y = [], torch.zeros(1, *A.out_shape).double()
    inverter.invert(G, A, y, MeasurementLoss(A), rngs("a"), seen.append)
    (rng,) = rngs("a")
    codes = torch.randn((3, G.z_dim), generator=rng).double()
    alpha = flat_dirichlet((3,), rng).double()[:, None]
    latents = Latents(G.map(codes), alpha=alpha, counts=(3,), member=(0,))
    expected = MultiCode(3, 2, fade_in).synthesize(G, latents)
    torch.testing.assert_close(seen[0], expected, rtol=1e-6, atol=1e-7)
    given = MGANPrior(1, 3, 2, fade_in="mixed")
    assert given.trained_with(multicode([3], block=2, fade_in="last")) is given
    assert MGANPrior(1, 3, 2).trained_with(additive([0])).space == MultiCode(3, 2, "mixed")


def test_mgan_starts_from_the_dirichlet_draw_repeated_over_channels():
    G, (A, y, loss, _) = pggan(), problem(2)
    start = []

    def watch(image):
        start.append(image)

    found = MGANPrior(steps=1, num_codes=4, block=2, rampup=0.5).invert(
        G, A, y, loss, rngs("ab"), watch
    )
    rng = rngs("ab")
    codes = torch.stack([torch.randn((4, 8), generator=r) for r in rng]).double()
    weights = torch.stack([-torch.log1p(-torch.rand(4, generator=r)) for r in rng]).double()
    alpha = weights / weights.sum(1, keepdim=True)
    by_hand = []
    for b in range(2):
        x = sum(alpha[b, n] * G.run(codes[b, n : n + 1], stop=2).x for n in range(4))
        by_hand.append(G.image(G.run(codes[b, :1], start=2, state=EMPTY._replace(x=x)), None))
    torch.testing.assert_close(start[0], torch.cat(by_hand), rtol=1e-6, atol=1e-7)
    assert isinstance(found.latents, Latents) and found.latents.counts == (4, 4)


def test_styles_are_fitted_once_for_all_batches_and_anew_for_other_weights():
    G, (A, y, loss, _) = stylegan2(), problem(1)
    fits, fit = [], G.style_prior
    G.style_prior = lambda *args: fits.append(1) or fit(*args)
    inverter = ILO(steps=[1], fit_samples=50)
    for _ in range(2):
        inverter.invert(G, A, y, loss, rngs("a"))
    assert len(fits) == 1
    G.mapping[0].weight.mul_(2)
    inverter.invert(G, A, y, loss, rngs("a"))
    assert len(fits) == 2
