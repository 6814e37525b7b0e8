"""Systems of the related work, on cases whose answer is known."""

import copy
from dataclasses import replace

import pytest
import torch
from helpers.inverters import GENERATORS, RELATED, linear, pggan, problem, rngs, stylegan2

from rtil.inverters.adjoint import Adjoint
from rtil.inverters.csgm import CSGM
from rtil.inverters.data_term import MeasurementLoss
from rtil.inverters.iagan import IAGAN
from rtil.inverters.minimise import norm
from rtil.inverters.pulse import PULSE, on_sphere
from rtil.inverters.sparse import SparseDeviations
from rtil.inverters.surgery import Surgery, moments
from rtil.inverters.wavelet import haar, haar_inverse
from rtil.models.linear import LinearGenerator
from rtil.operators import Blur, Dense, Identity, PhaseRetrieval, inpainting, partial_circulant
from rtil.process.rng import seeded


def dense(G, m, seed=5):
    n = torch.Size(G.image_shape).numel()
    rng = torch.Generator().manual_seed(seed)
    return Dense(G.image_shape, torch.randn(m, n, generator=rng, dtype=torch.float64) / n**0.5)


def images(G, count=3, seed=2):
    rng = torch.Generator().manual_seed(seed)
    return torch.rand((count, *G.image_shape), generator=rng, dtype=torch.float64) * 2 - 1


# Generator surgery


@pytest.mark.parametrize("fitted", [False, True])
def test_surgery_of_the_linear_generator_is_least_squares_in_its_second_layer(fitted):
    """W1 (A W1)^+ y, whatever W0 is and wherever the map starts from."""
    G = linear()
    A = dense(G, 12)
    y = A(images(G))
    surgery = Surgery(300, block=1, lr_feature=0.3, fitted=fitted)
    found = surgery.invert(G, A, y, MeasurementLoss(A), rngs("abc"))
    want = y @ torch.linalg.pinv(A.matrix @ G.w1).T @ G.w1.T
    torch.testing.assert_close(found.last.flatten(1), want, rtol=0, atol=2e-3)


def test_surgery_starts_as_published_or_from_maps_like_those_of_the_generator():
    G = linear()
    A, y = Identity(G.image_shape).double(), images(G, 1)
    start = []
    loss = MeasurementLoss(A)
    Surgery(1, block=1, clamp=0.5).invert(G, A, y, loss, rngs("a"), start.append)
    (rng,) = rngs("a")
    u = torch.randn((1, 6), generator=rng).double()
    torch.testing.assert_close(start[0].flatten(1), u.clamp(-0.5, 0.5) @ G.w1.T)
    Surgery(1, block=1, fitted=True, clamp=None, fit_samples=20_000).invert(
        G, A, y, loss, rngs("a"), start.append
    )
    # Maps W0 z with z ~ N(0, I): mean 0, variance of channel i |row i of W0|^2.
    want = (u * G.w0.norm(dim=1)) @ G.w1.T
    torch.testing.assert_close(start[2].flatten(1), want, rtol=0, atol=0.1)


def test_moments_are_those_of_the_maps_of_one_draw():
    G = stylegan2()
    rng = seeded("cpu", "surgery")
    w = G.sample_w(50, rng)
    x = G.run(w, G.sample_noise(50, rng), stop=2).x
    found = moments(G, 2, 50, ())
    torch.testing.assert_close(found.mean[:, 0, 0], x.mean((0, 2, 3)))
    torch.testing.assert_close(found.std[:, 0, 0], x.var((0, 2, 3), correction=0).sqrt())


def test_surgery_never_runs_the_blocks_that_are_cut_off(monkeypatch):
    G, (A, y, loss, _) = stylegan2(), problem(1)
    calls, step = [], G.step
    monkeypatch.setattr(G, "step", lambda k, *args: calls.append(k) or step(k, *args))
    Surgery(3, block=2).invert(G, A, y, loss, rngs("a"))
    assert calls == [3] * 4


# IAGAN


@pytest.mark.parametrize("kind", GENERATORS)
def test_iagan_explains_the_measurements_and_leaves_the_generator_as_it_was(kind):
    """A x = y, and what A does not see is that of the adapted generator: x + A^+ (y - A x)."""
    G, (A, y, loss, _) = GENERATORS[kind](), problem(2)
    before = copy.deepcopy(G.state_dict())
    iagan = IAGAN(4, 4, restarts=1)
    plain = replace(iagan, back_projection=False).invert(G, A, y, loss, rngs("ab"))
    found = iagan.invert(G, A, y, loss, rngs("ab"))
    torch.testing.assert_close(A(found.image), y, rtol=0, atol=1e-5)
    want = plain.image + Adjoint().estimate(A, y - A(plain.image))
    torch.testing.assert_close(found.image, want, rtol=0, atol=1e-12)
    assert not torch.allclose(found.image, plain.image, atol=1e-3)
    assert all(torch.equal(value, before[key]) for key, value in G.state_dict().items())


def test_weights_that_adapt_reach_what_no_latent_does():
    """Joint steps from where CSGM ended; without steps of the weights nothing is gained."""
    G = linear()
    A, y = Identity(G.image_shape).double(), images(G)
    loss = MeasurementLoss(A)
    first = CSGM(100, lr=0.3).invert(G, A, y, loss, rngs("abc"))
    settings = {"lr": 0.3, "lr_code": 0.0, "back_projection": False}
    still = IAGAN(100, 50, lr_weights=0.0, **settings).invert(G, A, y, loss, rngs("abc"))
    moved = IAGAN(100, 200, lr_weights=0.05, **settings).invert(G, A, y, loss, rngs("abc"))
    torch.testing.assert_close(still.last, first.last)
    assert (moved.loss < 1e-3 * first.loss).all()
    torch.testing.assert_close(moved.history[: len(first.history)], first.history)


def test_back_projection_stops_at_the_noise():
    G = linear()
    A, x = Blur(G.image_shape, 1.2, 7).double(), images(G)
    y = A.noisy(A(x), 0.05, rngs("xyz"))
    level = 2 * 0.05 * A.num_measurements**0.5
    found = IAGAN(4, 4, noise_std=0.05).invert(G, A, y, MeasurementLoss(A), rngs("abc"))
    rest = (A(found.image) - y).flatten(1).norm(dim=1)
    assert (rest <= level).all() and (rest > 0.2 * level).all()


def test_back_projection_of_the_identity_takes_one_step_and_the_noise_with_it():
    G = linear()
    A = Identity(G.image_shape).double()
    y = A.noisy(images(G), 0.05, rngs("xyz"))
    found = IAGAN(4, 4, noise_std=0.05).invert(G, A, y, MeasurementLoss(A), rngs("abc"))
    torch.testing.assert_close(found.image, y)


def test_back_projection_never_looks_at_withheld_measurements():
    """Two measurements that differ where the loss does not look give one image."""
    G = linear()
    A, kept = dense(G, 60), torch.arange(60) < 40
    loss, y = MeasurementLoss(A, kept=kept), A(images(G))
    other = torch.where(kept, y, 9.0)
    one, two = (IAGAN(4, 4).invert(G, A, each, loss, rngs("abc")).image for each in (y, other))
    assert torch.equal(one, two)
    torch.testing.assert_close(A(one)[:, kept], y[:, kept], rtol=0, atol=1e-5)


def test_back_projection_asks_for_an_adjoint_and_the_rest_of_iagan_for_none():
    G = linear()
    A = PhaseRetrieval(G.image_shape, 0.5).double()
    y, loss = A(images(G, 1)), MeasurementLoss(A)
    words = r"IAGAN: PhaseRetrieval is not linear.*inverter\.back_projection=false"
    with pytest.raises(ValueError, match=words):
        IAGAN(4, 4).check_operator(A)
    with pytest.raises(ValueError, match=words):
        IAGAN(4, 4).invert(G, A, y, loss, rngs("a"))
    IAGAN(4, 4, back_projection=False).check_operator(A)
    found = IAGAN(4, 4, back_projection=False).invert(G, A, y, loss, rngs("a"))
    assert found.loss < found.history[0]


# Sparse deviations


def test_haar_is_an_orthonormal_basis_of_sums_and_differences():
    rng = torch.Generator().manual_seed(0)
    for shape in ((2, 3, 8, 8), (1, 1, 4, 12), (1, 2, 6, 10)):
        x, c = torch.randn((2, *shape), generator=rng, dtype=torch.float64)
        torch.testing.assert_close(haar_inverse(haar(x)), x)
        torch.testing.assert_close((haar(x) * c).sum(), (x * haar_inverse(c)).sum())
        torch.testing.assert_close(haar(x).norm(), x.norm())
    one = haar(torch.full((1, 1, 8, 8), 3.0))
    assert one[0, 0, 0, 0] == 3.0 * 8 and int(one.count_nonzero()) == 1
    edge = torch.ones(1, 1, 4, 4)
    edge[..., 2:] = -1.0  # left against right, coarsest level
    assert haar(edge)[0, 0, 0, 1] == 4.0 and int(haar(edge).count_nonzero()) == 1


@pytest.mark.parametrize(("basis", "maps"), [("pixels", None), ("haar", (haar, haar_inverse))])
def test_a_planted_sparse_deviation_is_found_from_half_of_the_measurements(basis, maps):
    """12 of 256 coefficients beside an image of the generator: x = G(z) + B^T c."""
    analyse, synthesise = maps or (lambda x: x, lambda c: c)
    G, rng = linear(), torch.Generator().manual_seed(3)
    c = torch.zeros(256, dtype=torch.float64)
    c[torch.randperm(256, generator=rng)[:12]] = 1.0
    c = c.view(1, *G.image_shape)
    z = torch.randn(1, 3, generator=rng, dtype=torch.float64)
    x = G(z) + synthesise(c)
    A = partial_circulant(G.image_shape, 0.5, seed=1).double()
    sparse = SparseDeviations(80, 250, 0.3, 0.1, 0.1, restarts=1, l1=0.03, basis=basis)
    found = sparse.invert(G, A, A(x), MeasurementLoss(A), rngs("a"))
    torch.testing.assert_close(found.last, x, rtol=0, atol=0.05)
    csgm = CSGM(80, restarts=1).invert(G, A, A(x), MeasurementLoss(A), rngs("a"))
    assert (csgm.last - x).abs().max() > 0.5
    deviation = analyse(found.last - x) + c
    assert ((deviation.abs() > 0.3) == (c != 0)).all()


def test_without_a_generator_the_deviation_is_soft_thresholded():
    """G = 0 and A = I: argmin |v - y|^2 / n + l1 |v|_1 / n = sign(y) max(|y| - l1 / 2, 0)."""
    zeros = torch.zeros(3, 2, dtype=torch.float64), torch.zeros(64, 3, dtype=torch.float64)
    G = LinearGenerator(*zeros, (1, 8, 8)).requires_grad_(False)
    A, y = Identity(G.image_shape).double(), images(G)
    sparse = SparseDeviations(2, 300, lr_deviation=0.05, restarts=1, l1=0.4)
    found = sparse.invert(G, A, y, MeasurementLoss(A), rngs("abc"))
    torch.testing.assert_close(
        found.last, y.sign() * (y.abs() - 0.2).clamp_min(0), atol=0.02, rtol=0
    )


# PULSE


@pytest.mark.parametrize("kind", ["pggan", "linear"])
def test_every_iterate_of_pulse_has_the_norm_of_the_root_of_its_dimension(kind, monkeypatch):
    G = GENERATORS[kind]()
    A, y = inpainting(G.image_shape, 0.5).double(), images(G)
    seen, step = [], G.step
    monkeypatch.setattr(
        G, "step", lambda k, s, w, n=None: seen.append(w.clone()) or step(k, s, w, n)
    )
    PULSE(12).invert(G, A, y, MeasurementLoss(A), rngs("abc"))
    for w in seen:  # of these generators w is v
        torch.testing.assert_close(w.norm(dim=1), torch.full((3,), G.z_dim**0.5).double())
    assert not torch.allclose(seen[0], seen[-1], atol=0.1)


def test_styles_of_each_layer_and_noise_maps_end_on_their_spheres():
    G, (A, y, loss, _) = stylegan2(), problem(2)
    found = PULSE(10, noise_maps=3, fit_samples=200).invert(G, A, y, loss, rngs("ab"))
    prior = G.style_prior(200, seeded("cpu", "style prior"))
    w = found.latents.w
    v = (torch.where(w < 0, w / prior.slope, w) - prior.mean) / prior.std
    torch.testing.assert_close(v.norm(dim=2), torch.full(v.shape[:2], 8**0.5).double())
    assert (v[:, 0] - v[:, -1]).abs().max() > 0.1  # each layer has its own
    for maps in found.latents.noise[:3]:
        side = torch.full((2, 1, 1, 1), float(maps.shape[-1])).double()
        torch.testing.assert_close(norm(maps, 3), side)


def test_pulse_finds_an_image_whose_latent_lies_on_the_sphere():
    """40 measurements determine z; its norm is that of the sphere, so the residual can be 0."""
    G = linear()
    A = dense(G, 40)
    rng = torch.Generator().manual_seed(4)
    z = on_sphere(torch.randn(3, G.z_dim, generator=rng, dtype=torch.float64), 1)
    found = PULSE(150, 0.3).invert(G, A, A(G(z)), MeasurementLoss(A), rngs("abc"))
    torch.testing.assert_close(found.latents.w, z, rtol=0, atol=0.01)
    near = PULSE(150, 0.3).invert(G, A, 2 * A(G(z)), MeasurementLoss(A), rngs("abc"))
    torch.testing.assert_close(near.latents.w.norm(dim=1), z.norm(dim=1))


def test_angles_between_layers_cost_what_their_weight_says():
    """A large weight makes all layers one style."""
    G, (A, y, loss, _) = stylegan2(), problem(1)
    spread = []
    for weight in (0.0, 100.0):
        pulse = PULSE(25, 0.2, geodesic=weight, fit_samples=200)
        w = pulse.invert(G, A, y, loss, rngs("a")).latents.w
        spread.append(float((w - w.mean(1, keepdim=True)).norm()))
    assert spread[1] < 0.2 * spread[0]


# All of them


@pytest.mark.parametrize("name", RELATED)
def test_stages_of_the_related_work_are_told_apart(name):
    """`starts` names the row that each begins with; every stage goes on from the one before."""
    G, (A, y, loss, _) = pggan(), problem(2)
    found = RELATED[name].invert(G, A, y, loss, rngs("ab"))
    first, *later = found.starts
    assert first == 0 and later == sorted({*later}) and max(found.starts) < len(found.history)


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: Surgery(0), "steps=0 must be 1 or more"),
        (lambda: Surgery(5, block=0), r"block=0 must be 1 or more.*inverter=csgm"),
        (lambda: Surgery(5, clamp=-1.0), r"clamp=-1.0 must be above 0 or null"),
        (lambda: Surgery(5, block=4).check(stylegan2()), "block=4 is past the last of 3 blocks"),
        (lambda: IAGAN(5, 0), "joint_steps=0"),
        (lambda: IAGAN(0, 5), "CSGM: steps=0"),
        (lambda: IAGAN(5, 5, lr_weights=-1.0), "lr_weights=-1.0 0 or more"),
        (lambda: IAGAN(5, 5, noise_std=-1.0), "noise_std=-1.0"),
        (lambda: SparseDeviations(5, 5, basis="dct"), "basis='dct' must be pixels or haar"),
        (lambda: SparseDeviations(5, 5, l1=-1.0), "l1=-1.0 0 or more"),
        (lambda: PULSE(5, geodesic=-1.0), "geodesic=-1.0"),
        (lambda: PULSE(0), "steps=0 must be 1 or more"),
    ],
)
def test_bad_settings_are_named(make, words):
    with pytest.raises(ValueError, match=words):
        make()


def test_haar_refuses_images_that_it_cannot_halve():
    zeros = torch.zeros(3, 2), torch.zeros(20, 3)
    G = LinearGenerator(*zeros, (1, 4, 5))
    with pytest.raises(ValueError, match="4x5 pixels have an odd one; use basis=pixels"):
        SparseDeviations(5, 5, basis="haar").check(G)
    SparseDeviations(5, 5).check(G)
