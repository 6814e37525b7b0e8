"""The data term of inversion."""

import copy

import pytest
import torch
from helpers.backbones import DISTANCES, drawn_weights

from rtil.inverters.data_term import MeasurementLoss
from rtil.metrics.lpips import LPIPS
from rtil.operators import (
    Blur,
    Downsample,
    LinearOperator,
    PhaseRetrieval,
    inpainting,
    partial_circulant,
)

OPERATORS = {
    "circulant": partial_circulant((3, 32, 32), 0.1),
    "inpainting": inpainting((3, 32, 32), 0.4),
    "downsample": Downsample((3, 64, 64), 2),
    "blur": Blur((3, 32, 32), 1.5),
    "phase": PhaseRetrieval((3, 32, 32), 1.5),
}
IMAGES = ["inpainting", "downsample"]


@pytest.fixture(scope="module")
def perceptual(tmp_path_factory):
    """LPIPS with a random backbone."""
    with pytest.MonkeyPatch.context() as patch:
        drawn_weights(tmp_path_factory.mktemp("torch_home"), patch)
        return LPIPS("alex")


def measured(operator, batch=3):
    rng = torch.Generator().manual_seed(0)
    x_hat, x = 2 * torch.rand(2, batch, *operator.in_shape, generator=rng) - 1
    return operator(x_hat), operator(x)


@pytest.mark.parametrize("name", IMAGES)
def test_kept_measurements_are_all_that_the_loss_sees(perceptual, name):
    """Both terms: the error per kept entry, and LPIPS of two pictures that lack the others."""
    operator = OPERATORS[name]
    y_hat, y = measured(operator)
    kept = torch.rand(operator.out_shape[1:], generator=torch.Generator().manual_seed(1)) < 0.7
    loss = MeasurementLoss(operator, 2.0, 0.5, distance=perceptual, kept=kept)
    error = [(a - b)[:, kept].square() for a, b in zip(y_hat, y)]
    expected = torch.stack([2 * e[e > 0].mean() for e in error])
    expected = expected + 0.5 * perceptual(y_hat * kept, y * kept)
    torch.testing.assert_close(loss(y_hat, y), expected)
    other = torch.where(kept, y_hat, -y_hat)
    assert torch.equal(loss(other, y), loss(y_hat, y)) and "kept" not in loss.state_dict()


@pytest.mark.parametrize("operator", OPERATORS.values(), ids=OPERATORS)
@pytest.mark.parametrize("weight", [1.0, 0.25])
def test_loss_is_the_mean_squared_error_over_measurements(operator, weight):
    y_hat, y = measured(operator)
    values = MeasurementLoss(operator, mse=weight)(y_hat, y)
    for i in range(3):
        squared = (y_hat[i] - y[i]).square()
        expected = squared[squared > 0].mean() * weight
        torch.testing.assert_close(values[i], expected, rtol=1e-5, atol=0)


@pytest.mark.parametrize("name", IMAGES)
def test_lpips_term_is_added_at_measurement_size(name, perceptual):
    y_hat, y = measured(OPERATORS[name])
    loss = MeasurementLoss(OPERATORS[name], mse=2.0, lpips=0.5, distance=perceptual)
    mse = MeasurementLoss(OPERATORS[name])(y_hat, y)
    torch.testing.assert_close(loss(y_hat, y), 2 * mse + 0.5 * perceptual(y_hat, y))


@pytest.mark.parametrize("name", DISTANCES)
def test_the_term_is_the_distance_that_is_named(name, tmp_path, monkeypatch):
    drawn_weights(tmp_path, monkeypatch)
    operator = OPERATORS["downsample"]
    y_hat, y = measured(operator)
    loss = MeasurementLoss(operator, lpips=0.5, lpips_net="alex", perceptual=name)
    expected = MeasurementLoss(operator)(y_hat, y) + 0.5 * DISTANCES[name]("alex")(y_hat, y)
    torch.testing.assert_close(loss(y_hat, y), expected)


def test_an_unknown_distance_is_an_error_also_where_its_weight_is_0():
    with pytest.raises(ValueError, match=r"loss\.perceptual='l7' is no distance; .*vgg_l1"):
        MeasurementLoss(OPERATORS["inpainting"], perceptual="l7")


@pytest.mark.parametrize("name", IMAGES)
def test_batch_equals_one_at_a_time(name, perceptual):
    y_hat, y = measured(OPERATORS[name])
    loss = MeasurementLoss(OPERATORS[name], lpips=1.0, distance=perceptual)
    singles = torch.cat([loss(y_hat[i : i + 1], y[i : i + 1]) for i in range(3)])
    torch.testing.assert_close(loss(y_hat, y), singles, rtol=1e-4, atol=1e-7)


@pytest.mark.parametrize("operator", OPERATORS.values(), ids=OPERATORS)
def test_gradient_is_that_of_the_normal_equations(operator):
    """d/dx ||A x - y||^2 / m = 2 A^T (A x - y) / m, per image."""
    operator = copy.deepcopy(operator).double()
    rng = torch.Generator().manual_seed(0)
    x = torch.rand(2, *operator.in_shape, generator=rng, dtype=torch.float64).requires_grad_()
    y = operator(torch.zeros_like(x) + 0.5)
    MeasurementLoss(operator)(operator(x), y).sum().backward()
    rest = (operator(x) - y).detach()
    if isinstance(operator, LinearOperator):
        back = operator.adjoint(rest)
    else:  # d|t| = sign(t)
        parts = zip(operator.circulants, rest.split(operator.sizes, 1))
        back = sum(A.adjoint(A(x).detach().sign() * part) for A, part in parts)
    expected = 2 * back.detach() / operator.num_measurements
    torch.testing.assert_close(x.grad, expected, rtol=1e-10, atol=1e-14)


@pytest.mark.parametrize("ratio, used", [(0.3, False), (0.5, True), (0.8, True)])
def test_lpips_joins_when_enough_pixels_are_observed(ratio, used, perceptual):
    operator = inpainting((1, 32, 32), ratio)
    y_hat, y = measured(operator)
    loss = MeasurementLoss(operator, lpips=1.0, lpips_min_ratio=0.5, distance=perceptual)
    mse = MeasurementLoss(operator)(y_hat, y)
    expected = mse + perceptual(y_hat, y) if used else mse
    torch.testing.assert_close(loss(y_hat, y), expected)


def test_lpips_always_joins_on_downsampled_images(perceptual):
    loss = MeasurementLoss(
        Downsample((3, 256, 256), 8), lpips=1.0, lpips_min_ratio=1.0, distance=perceptual
    )
    assert loss.distance is perceptual


def test_no_backbone_is_asked_for_when_lpips_is_not_used(tmp_path, monkeypatch):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    assert MeasurementLoss(OPERATORS["inpainting"], lpips=0.0).distance is None
    operator = inpainting((3, 32, 32), 0.1)
    assert MeasurementLoss(operator, lpips=1.0, lpips_min_ratio=0.5).distance is None
    with pytest.raises(FileNotFoundError, match=r"alexnet-owt-7be5be79\.pth"):
        MeasurementLoss(OPERATORS["inpainting"], lpips=1.0)


def test_lpips_on_vectors_is_an_error():
    with pytest.raises(ValueError) as error:
        MeasurementLoss(OPERATORS["circulant"], lpips=1.0)
    assert str(error.value) == (
        "MeasurementLoss: LPIPS compares images; Circulant measures a vector of m=307 "
        "numbers; set loss.lpips=0."
    )


def test_measurements_too_small_for_lpips_are_an_error_before_the_backbone_is_asked_for(
    tmp_path, monkeypatch
):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    operator = Downsample((3, 64, 64), 4)
    with pytest.raises(ValueError, match=r"images of 16x16 pixels.* 31 for alex, 16 for vgg"):
        MeasurementLoss(operator, lpips=1.0)
    with pytest.raises(FileNotFoundError, match="vgg16"):
        MeasurementLoss(operator, lpips=1.0, lpips_net="vgg")
    with pytest.raises(ValueError, match="net='other'; it must be one of alex, vgg"):
        MeasurementLoss(operator, lpips=1.0, lpips_net="other")


@pytest.mark.parametrize("weights", [{"mse": -1.0}, {"lpips": -0.1}, {"mse": float("nan")}])
def test_bad_weights_are_an_error(weights):
    with pytest.raises(ValueError, match="weights must be at least 0"):
        MeasurementLoss(OPERATORS["inpainting"], **weights)


def test_bad_min_ratio_is_an_error():
    with pytest.raises(ValueError, match=r"lpips_min_ratio=50; it must be in \[0, 1\]"):
        MeasurementLoss(OPERATORS["inpainting"], lpips_min_ratio=50)


def test_nothing_to_minimise_is_an_error():
    with pytest.raises(ValueError, match="nothing is left to minimise"):
        MeasurementLoss(OPERATORS["circulant"], mse=0.0)
    with pytest.raises(ValueError, match=r"0\.398 of the pixels observed.*nothing is left"):
        MeasurementLoss(inpainting((1, 8, 11), 0.4), mse=0.0, lpips=1.0, lpips_min_ratio=0.5)
