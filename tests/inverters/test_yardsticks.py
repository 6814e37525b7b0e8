"""Estimates without a generator: the pseudo-inverse and total variation."""

import pytest
import torch

from rtil.inverters.adjoint import Adjoint
from rtil.inverters.data_term import MeasurementLoss
from rtil.inverters.lmmse import LMMSE, GaussianPrior
from rtil.inverters.tv import TV, gradient, gradient_adjoint, pixel_norm, spectral_norm
from rtil.operators import (
    Blur,
    Downsample,
    Identity,
    PhaseRetrieval,
    inpainting,
    partial_circulant,
)

SHAPE = (2, 8, 8)
OPERATORS = {
    "cs": partial_circulant(SHAPE, 0.4).double(),
    "inpainting": inpainting(SHAPE, 0.4).double(),
    "sr": Downsample(SHAPE, 2).double(),
    "deblur": Blur(SHAPE, 0.6).double(),
    "denoise": Identity(SHAPE).double(),
}
METHODS = {"adjoint": Adjoint(), "tv": TV(0.01), "tv noise": TV(noise_std=0.1)}


@pytest.fixture(params=OPERATORS)
def A(request):
    return OPERATORS[request.param]


def images(count=3, shape=SHAPE, seed=0):
    """Rectangles of random grey on random grey, in [-0.9, 0.9]."""
    rng = torch.Generator().manual_seed(seed)
    x = torch.empty(count, *shape, dtype=torch.float64)
    for image in x:
        ground, figure = torch.rand(2, shape[0], 1, 1, generator=rng) * 1.8 - 0.9
        top, left = torch.randint(0, 5, (2,), generator=rng).tolist()
        image[:] = ground
        image[:, top : top + 4, left : left + 4] = figure
    return x


def matrix_of(A):
    eye = torch.eye(128, dtype=torch.float64).view(128, *SHAPE)
    return A(eye).flatten(1).T


def objective(A, scale, weight, x, y):
    rest = (A(x) - y).square().flatten(1).sum(1) / (2 * scale**2)
    return rest + weight * gradient(x).square().sum((1, 2)).sqrt().sum((1, 2))


@pytest.mark.parametrize("name", METHODS)
def test_a_batch_equals_one_image_at_a_time(A, name):
    y = A(images())
    loss, method = MeasurementLoss(A), METHODS[name]
    seen = []
    together = method.invert(None, A, y, loss, watch=seen.append)
    alone = torch.cat([method.invert(None, A, y[b : b + 1], loss).image for b in range(3)])
    torch.testing.assert_close(together.image, alone, rtol=0, atol=1e-9)
    assert len(seen) == 1 and torch.equal(seen[0], together.image)
    assert together.image is together.last and together.history.shape == (0, 3)
    torch.testing.assert_close(together.loss, loss(A(together.image), y))


def test_operators_that_are_not_linear_are_refused():
    A = PhaseRetrieval(SHAPE, 0.5)
    y, prior = A(torch.zeros(1, *SHAPE)), GaussianPrior(torch.rand(3, *SHAPE))
    for method in (Adjoint(), TV(), LMMSE(prior=prior)):
        words = rf"{type(method).__name__}: PhaseRetrieval is not linear, .* inverter=ilo"
        with pytest.raises(ValueError, match=words):
            method.invert(None, A, y, MeasurementLoss(A))


def test_adjoint_is_the_pseudo_inverse(A):
    y = A(images())
    found = Adjoint(tolerance=1e-12).invert(None, A, y, MeasurementLoss(A)).image
    want = y.flatten(1) @ torch.linalg.pinv(matrix_of(A)).T
    torch.testing.assert_close(found.flatten(1), want, rtol=0, atol=1e-7)


def test_adjoint_fits_noise_no_closer_than_its_level():
    """Of a blur it would make more than the image; without the noise level it does."""
    A, x = Blur(SHAPE, 1.2, 7).double(), images()
    y = A.noisy(A(x), 0.05, [torch.Generator().manual_seed(b) for b in range(3)])
    level = 2 * 0.05 * 128**0.5
    aware, naive = (Adjoint(s).invert(None, A, y, MeasurementLoss(A)).image for s in (0.05, 0.0))
    rest = (A(aware) - y).flatten(1).norm(dim=1)
    assert (rest <= level).all() and (rest > 0.2 * level).all()
    assert (aware - x).norm() < 0.5 * x.norm() < 30 * x.norm() < (naive - x).norm()


def test_measurements_that_could_be_noise_alone_give_grey():
    A, method = OPERATORS["cs"], Adjoint(noise_std=1.0)
    y = A(images()) * torch.tensor([0.0, 0.1, 1e4], dtype=torch.float64)[:, None]
    found = method.invert(None, A, y, MeasurementLoss(A)).image
    assert not found[:2].any() and found[2].any()


def test_tv_of_a_step_is_the_step_with_less_contrast():
    """Rudin, Osher and Fatemi: each half moves by w times its border over its area."""
    A, weight = Identity((1, 6, 10)).double(), 0.25
    x = torch.full((1, 1, 6, 10), -0.5, dtype=torch.float64)
    x[..., 4:] = 0.7
    found = TV(weight, tolerance=0.0).invert(None, A, x, MeasurementLoss(A)).image
    want = x.clone()
    want[..., :4] += weight / 4
    want[..., 4:] -= weight / 6
    torch.testing.assert_close(found, want, rtol=0, atol=1e-6)


def test_tv_of_a_colour_step_couples_the_channels():
    """The border's length is that of the jump's vector: (0.3, 0.4) shares the weight as 3 to 4."""
    A, weight = Identity((2, 4, 8)).double(), 0.1
    x = torch.zeros(1, 2, 4, 8, dtype=torch.float64)
    x[:, 0, :, 4:], x[:, 1, :, 4:] = 0.3, 0.4
    found = TV(weight, tolerance=0.0).invert(None, A, x, MeasurementLoss(A)).image
    jump = found[0, :, 0, 7] - found[0, :, 0, 0]
    want = torch.tensor([0.3, 0.4], dtype=torch.float64) * (1 - 2 * (weight / 4) / 0.5)
    torch.testing.assert_close(jump, want, rtol=0, atol=1e-6)


def test_tv_minimises_its_objective_over_the_box(A):
    """No step in the box lowers it; the objective is convex, so none does further away."""
    x, weight = images(), 0.03
    y = A.noisy(A(x), 0.1, [torch.Generator().manual_seed(b) for b in range(3)])
    found = TV(weight, tolerance=0.0, max_steps=1500).invert(None, A, y, MeasurementLoss(A)).image
    assert found.abs().max() <= 1
    scale = spectral_norm(A, y)
    least = objective(A, scale, weight, found, y)
    rng = torch.Generator().manual_seed(7)
    others = [x, images(seed=1), torch.zeros_like(x), A.adjoint(y)]
    others += [torch.randn(x.shape, generator=rng, dtype=x.dtype) for _ in range(10)]
    for other in others:
        for share in (1.0, 0.1, 1e-3):
            trial = (found + share * (other - found)).clamp(-1, 1)
            assert (objective(A, scale, weight, trial, y) >= least * (1 - 1e-5)).all()


def test_tv_finds_piecewise_constant_images_from_a_third_of_the_measurements():
    A, x = partial_circulant((1, 16, 16), 0.35).double(), images(4, (1, 16, 16))
    tv, least = (m.invert(None, A, A(x), MeasurementLoss(A)).image for m in (TV(), Adjoint()))
    assert (tv - x).norm() < 0.03 * x.norm() and (least - x).norm() > 0.5 * x.norm()


@pytest.mark.parametrize("noise_std", [0.0, 0.05])
def test_tv_does_not_depend_on_the_scale_of_the_operator(noise_std):
    """If the noise is scaled with it."""
    scales, found = {"unit": 1.0, "published": 128**0.5}, []
    for name, scale in scales.items():
        A = partial_circulant(SHAPE, 0.4, 0, name).double()
        method = TV(noise_std=noise_std * scale, max_steps=500)
        found.append(method.invert(None, A, A(images()), MeasurementLoss(A)).image)
    torch.testing.assert_close(*found, rtol=0, atol=1e-4)


def test_more_noise_is_smoothed_more():
    A = OPERATORS["denoise"]
    y = A.noisy(images(), 0.1, [torch.Generator().manual_seed(b) for b in range(3)])
    rough = [
        gradient(TV(noise_std=s).invert(None, A, y, MeasurementLoss(A)).image).norm()
        for s in (0.0, 0.05, 0.2)
    ]
    assert rough[0] > 1.2 * rough[1] > 1.44 * rough[2]
    aware = TV(noise_std=0.1).invert(None, A, y, MeasurementLoss(A)).image
    assert (aware - images()).norm() < 0.5 * (y - images()).norm()


def test_gradient_adjoint_is_the_transpose_of_the_gradient():
    rng = torch.Generator().manual_seed(0)
    x = torch.randn(2, 3, 5, 7, generator=rng, dtype=torch.float64)
    field = torch.randn(2, 2, 3, 5, 7, generator=rng, dtype=torch.float64)
    left, right = (gradient(x) * field).sum(), (x * gradient_adjoint(field)).sum()
    torch.testing.assert_close(left, right, rtol=1e-12, atol=0)
    ramp = torch.arange(4.0)[:, None] + 10 * torch.arange(3.0)
    down, right = gradient(ramp.expand(1, 1, 4, 3))[0, :, 0]
    assert down.tolist() == [[1.0] * 3] * 3 + [[0.0] * 3]
    assert right.tolist() == [[10.0, 10.0, 0.0]] * 4


def test_norms_are_those_of_the_matrix(A):
    y, matrix = torch.zeros(1, dtype=torch.float64), matrix_of(A)
    want = float(torch.linalg.matrix_norm(matrix, 2))
    assert 0.95 * want < spectral_norm(A, y) < want * (1 + 1e-9)
    assert pixel_norm(A, y) == pytest.approx(float(matrix.norm()) / 128**0.5, rel=0.1)


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: TV(weight=0.0), r"weight=0.0 must be above 0"),
        (lambda: TV(noise_weight=-1.0), "noise_weight=-1.0"),
        (lambda: TV(max_steps=0), "max_steps=0"),
        (lambda: Adjoint(noise_std=-0.1), "noise_std=-0.1"),
        (lambda: Adjoint(tolerance=0.0), "tolerance=0.0 above 0"),
    ],
)
def test_bad_settings_are_named(make, words):
    with pytest.raises(ValueError, match=words):
        make()
