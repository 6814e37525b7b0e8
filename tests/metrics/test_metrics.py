"""PSNR, SSIM and LPIPS per image, and confidence intervals."""

import copy

import lpips
import numpy as np
import pytest
import torch
from helpers.backbones import FILES, drawn_weights
from scipy import stats
from torchmetrics.functional.image import structural_similarity_index_measure

from rtil.metrics.backbone import load_backbone
from rtil.metrics.image import gradient_energy, psnr, ssim, to_unit
from rtil.metrics.intervals import mean_ci
from rtil.metrics.lpips import LPIPS


def images(shape, seed=0):
    """Images in [0, 1]."""
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed))


def signed(shape, seed=0):
    """Images in [-1, 1]."""
    return 2 * images(shape, seed) - 1


def test_to_unit_maps_and_clips():
    x = torch.tensor([-3.0, -1.0, -0.5, 0.0, 1.0, 1.2])
    assert to_unit(x).tolist() == [0.0, 0.0, 0.25, 0.5, 1.0, 1.0]


def test_psnr_is_the_formula_per_image():
    x_hat, x = images((3, 3, 8, 9), 0), images((3, 3, 8, 9), 1)
    mse = ((x_hat.numpy().astype(float) - x.numpy()) ** 2).reshape(3, -1).mean(1)
    np.testing.assert_allclose(psnr(x_hat, x).numpy(), 10 * np.log10(1 / mse), rtol=1e-6)


def test_psnr_of_equal_images_is_infinite_and_of_a_tenth_is_20_db():
    x = torch.full((1, 1, 4, 4), 0.3, dtype=torch.float64)
    assert psnr(x, x).item() == float("inf")
    assert psnr(x + 0.1, x).item() == pytest.approx(20)


@pytest.mark.parametrize("shape", [(3, 3, 32, 24), (2, 1, 6, 6), (2, 1, 11, 8)])
def test_ssim_is_that_of_torchmetrics_one_at_a_time(shape):
    x_hat, x = images(shape, 0), images(shape, 1)
    values = ssim(x_hat, x)
    for i in range(shape[0]):
        pair = x_hat[i : i + 1], x[i : i + 1]
        expected = structural_similarity_index_measure(*pair, data_range=1.0)
        torch.testing.assert_close(values[i], expected, rtol=1e-5, atol=1e-6)


def test_gradient_energy_is_that_of_the_differences_and_falls_in_an_average():
    x = torch.rand(2, 3, 9, 7, generator=torch.Generator().manual_seed(0))
    expected = sum(
        float((x[0, c, i, j] - x[0, c, k, m]) ** 2)
        for c in range(3)
        for i in range(9)
        for j in range(7)
        for k, m in ((i + 1, j), (i, j + 1))
        if k < 9 and m < 7
    )
    ramp = torch.arange(7.0).expand(2, 3, 9, 7)  # 3 * 9 * 6 differences of 1
    found = gradient_energy(x, ramp)
    torch.testing.assert_close(found[0], torch.tensor(expected / 162))
    torch.testing.assert_close(gradient_energy(-2 * x + 1, x), torch.full((2,), 4.0))
    assert (gradient_energy((x + x.flip(3)) / 2, x) < 0.9).all()


@pytest.mark.parametrize("side", [2, 3, 4, 5, 6, 7, 10, 16])
def test_ssim_is_one_for_equal_images_and_less_for_others_at_every_size(side):
    x = images((2, 3, side, side + 1))
    torch.testing.assert_close(ssim(x, x), torch.ones(2))
    assert (ssim(1 - x, x) < 0.5).all()


def test_ssim_window_shrinks_with_the_smaller_side():
    """4 pixels leave a window of 7 and sigma 0.9: the reflected neighbourhood ends at the edge."""
    x_hat, x = images((1, 1, 4, 20), 0).double(), images((1, 1, 4, 20), 1).double()
    t = torch.arange(-3, 4, dtype=torch.float64)
    window = torch.exp(-((t / 0.9) ** 2) / 2)
    window = torch.outer(window, window) / window.sum() ** 2

    def local_mean(image):
        padded = torch.nn.functional.pad(image, (3, 3, 3, 3), mode="reflect")
        return torch.nn.functional.conv2d(padded, window[None, None])

    mean_hat, mean = local_mean(x_hat), local_mean(x)
    variance_hat = local_mean(x_hat**2) - mean_hat**2
    variance = local_mean(x**2) - mean**2
    covariance = local_mean(x_hat * x) - mean_hat * mean
    c1, c2 = 0.01**2, 0.03**2
    index = (2 * mean_hat * mean + c1) * (2 * covariance + c2)
    index /= (mean_hat**2 + mean**2 + c1) * (variance_hat + variance + c2)
    torch.testing.assert_close(ssim(x_hat, x), index.mean()[None])


@pytest.mark.parametrize("metric", [psnr, ssim])
def test_metrics_refuse_unequal_shapes(metric):
    with pytest.raises(ValueError, match=r"\(1, 3, 8, 8\) and \(1, 1, 8, 8\)"):
        metric(images((1, 3, 8, 8)), images((1, 1, 8, 8)))
    with pytest.raises(ValueError, match=r"\(3, 8, 8\) and \(3, 8, 8\)"):
        metric(images((3, 8, 8)), images((3, 8, 8)))


def test_ssim_refuses_lines():
    with pytest.raises(ValueError, match=r"1x8 pixels .* at least 2 pixels"):
        ssim(images((1, 1, 1, 8)), images((1, 1, 1, 8)))


@pytest.mark.parametrize("n", [2, 5, 60])
@pytest.mark.parametrize("confidence", [0.9, 0.95])
def test_mean_ci_is_that_of_scipy(n, confidence):
    values = np.random.default_rng(n).normal(20, 3, n)
    mean, half_width = mean_ci(values, confidence)
    low, high = stats.t.interval(confidence, n - 1, values.mean(), stats.sem(values))
    assert (mean - half_width, mean + half_width) == pytest.approx((low, high), rel=1e-12)


def test_mean_ci_covers_the_mean_as_often_as_it_says():
    draws = np.random.default_rng(0).normal(size=(2000, 5))
    covered = sum(abs(mean) <= half for mean, half in map(mean_ci, draws))
    # Binomial(2000, 0.95): standard deviation 9.7; 4 of them.
    assert abs(covered - 1900) < 39


def test_mean_ci_takes_lists_and_tensors():
    assert mean_ci([1.0, 2.0, 4.0]) == mean_ci(torch.tensor([1.0, 2.0, 4.0]))


def test_mean_ci_of_one_value_or_an_infinite_one_has_no_width():
    mean, half_width = mean_ci([3.0])
    assert mean == 3.0 and np.isnan(half_width)
    mean, half_width = mean_ci([3.0, float("inf")])
    assert mean == float("inf") and np.isnan(half_width)


def test_mean_ci_refuses_what_has_no_mean():
    with pytest.raises(ValueError, match="1 of 3 values are NaN, the first at 1"):
        mean_ci([1.0, float("nan"), 2.0])
    with pytest.raises(ValueError, match="one or more numbers"):
        mean_ci([])
    with pytest.raises(ValueError, match=r"values of shape \(1, 2\)"):
        mean_ci([[1.0, 2.0]])
    with pytest.raises(ValueError, match=r"confidence=95; it must be in \(0, 1\)"):
        mean_ci([1.0, 2.0], confidence=95)


@pytest.fixture(scope="module")
def torch_home(tmp_path_factory):
    """Where random backbones lie: their classifiers are left out, LPIPS has none."""
    home = tmp_path_factory.mktemp("torch_home")
    with pytest.MonkeyPatch.context() as patch:
        drawn_weights(home, patch)
        yield home


@pytest.fixture(scope="module", params=FILES)
def model(request, torch_home):
    return LPIPS(request.param)


@pytest.mark.parametrize("channels", [1, 3])
def test_lpips_of_equal_images_is_zero_and_of_others_positive(model, channels):
    x, other = signed((2, channels, 33, 40), 0), signed((2, channels, 33, 40), 1)
    assert model(x, x).tolist() == [0.0, 0.0]
    assert model(x.requires_grad_(), x).tolist() == [0.0, 0.0]
    assert (model(x, other) > 1e-6).all()


def test_lpips_uses_the_backbone_on_disk_and_agrees_with_the_package(model, torch_home):
    saved = torch.load(torch_home / "hub" / "checkpoints" / FILES[model.net], weights_only=True)
    loaded = {key.split(".", 1)[1]: value for key, value in model.model.net.state_dict().items()}
    assert loaded.keys() == {key.removeprefix("features.") for key in saved}
    for key, value in loaded.items():
        assert torch.equal(value, saved[f"features.{key}"])
    x_hat, x = signed((3, 3, 33, 40), 0), signed((3, 3, 33, 40), 1)
    expected = model.model(x_hat, x).flatten()
    torch.testing.assert_close(model(x_hat, x), expected, rtol=1e-5, atol=1e-9)


def test_lpips_carries_the_published_layer_weights(model):
    path = f"{lpips.__path__[0]}/weights/v0.1/{model.net}.pth"
    for key, value in torch.load(path, map_location="cpu").items():
        assert torch.equal(model.model.state_dict()[key], value)


def test_lpips_is_symmetric_and_batch_equals_one_at_a_time(model):
    x_hat, x = signed((3, 1, 32, 36), 0), signed((3, 1, 32, 36), 1)
    values = model(x_hat, x)
    torch.testing.assert_close(model(x, x_hat), values, rtol=1e-5, atol=1e-9)
    singles = torch.cat([model(x_hat[i : i + 1], x[i : i + 1]) for i in range(3)])
    torch.testing.assert_close(values, singles, rtol=1e-4, atol=1e-9)


def test_lpips_repeats_grey_images(model):
    x_hat, x = signed((2, 1, 32, 32), 0), signed((2, 1, 32, 32), 1)
    colour = model(x_hat.expand(-1, 3, -1, -1), x.expand(-1, 3, -1, -1))
    assert torch.equal(model(x_hat, x), colour)


def test_lpips_gradient_reaches_the_first_image_only(model):
    x_hat, x = (signed((2, 3, 32, 32), seed).requires_grad_() for seed in (0, 1))
    value = model(x_hat, x)
    value.sum().backward()
    assert x.grad is None
    assert all(parameter.grad is None for parameter in model.parameters())
    with torch.no_grad():
        downhill = x_hat - x_hat.grad * 0.01 / x_hat.grad.norm()
        assert (model(downhill, x) < value).all()


def test_lpips_gradient_matches_finite_differences(model):
    """At the weights' float64 copy, along a random direction."""
    double = copy.deepcopy(model).double()
    x_hat, x = (signed((1, 1, 32, 32), seed).double() for seed in (0, 1))
    direction = signed((1, 1, 32, 32), 2).double()
    x_hat.requires_grad_()
    (gradient,) = torch.autograd.grad(double(x_hat, x).sum(), x_hat)
    with torch.no_grad():
        step = 1e-6
        ahead, behind = double(x_hat + step * direction, x), double(x_hat - step * direction, x)
    slope = ((ahead - behind) / (2 * step)).item()
    assert (gradient * direction).sum().item() == pytest.approx(slope, rel=1e-3)


def test_lpips_gradient_is_finite_where_all_features_are_zero(model):
    """The package's own is NaN there: it differentiates a square root at 0."""
    dead = copy.deepcopy(model)
    with torch.no_grad():
        dead.model.net.slice1[0].bias.fill_(-100.0)
    x_hat, x = signed((1, 3, 32, 32), 0).requires_grad_(), signed((1, 3, 32, 32), 1)
    dead(x_hat, x).sum().backward()
    assert torch.equal(x_hat.grad, torch.zeros_like(x_hat))


def test_lpips_train_mode_changes_nothing(model):
    x_hat, x = signed((1, 3, 32, 32), 0), signed((1, 3, 32, 32), 1)
    expected = model(x_hat, x)
    model.train()
    values = model(x_hat, x), model(x_hat, x)
    model.eval()
    assert torch.equal(values[0], expected) and torch.equal(values[1], expected)


def test_lpips_minimum_size_is_the_smallest_the_backbone_takes(model):
    side = model.min_size
    x_hat, x = signed((1, 3, side, side), 0), signed((1, 3, side, side), 1)
    assert torch.isfinite(model(x_hat, x)).all()
    small = x[..., 1:]
    with pytest.raises(ValueError, match=f"{side}x{side - 1} pixels; .*at least {side}x{side}"):
        model(small, small)
    with pytest.raises(RuntimeError, match="too small"):
        model.features(small)


def test_lpips_refuses_other_channels(model):
    x = signed((1, 2, 32, 32))
    with pytest.raises(ValueError, match="got images with 2 channels"):
        model(x, x)


def test_lpips_refuses_an_unknown_net():
    with pytest.raises(ValueError, match="net='squeeze'; it must be one of alex, vgg"):
        LPIPS("squeeze")


@pytest.mark.parametrize("net", FILES)
def test_missing_backbone_names_file_folder_address_and_way_out(net, tmp_path, monkeypatch):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    with pytest.raises(FileNotFoundError) as error:
        LPIPS(net)
    message = str(error.value)
    assert FILES[net] in message
    assert str(tmp_path / "hub" / "checkpoints") in message
    assert f"https://download.pytorch.org/models/{FILES[net]}" in message
    assert "loss.lpips=0" in message


@pytest.mark.parametrize("kept", [0, 10, 0.5])
def test_truncated_backbone_is_named(kept, torch_home, tmp_path, monkeypatch):
    """An empty file, a few bytes, half a file."""
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    whole = (torch_home / "hub" / "checkpoints" / FILES["alex"]).read_bytes()
    broken = tmp_path / "hub" / "checkpoints" / FILES["alex"]
    broken.parent.mkdir(parents=True)
    broken.write_bytes(whole[: int(len(whole) * kept) if kept == 0.5 else kept])
    with pytest.raises(RuntimeError, match=f"{FILES['alex']} cannot be read"):
        load_backbone(f"https://download.pytorch.org/models/{FILES['alex']}", "LPIPS", {})
