"""Laws of every perceptual distance: they hold for any weights, so these are drawn."""

import copy

import pytest
import torch
from helpers.backbones import DISTANCES, drawn_weights

from rtil.metrics.perceptual import distance_of

# test_metrics.py has laws of LPIPS for both of its networks.
CHOICES = [
    pytest.param((name, net), marks=pytest.mark.slow if (name, net) == ("lpips", "vgg") else ())
    for name, kind in DISTANCES.items()
    for net in kind.sizes
]


def signed(shape, seed=0):
    """Images in [-1, 1]."""
    return 2 * torch.rand(shape, generator=torch.Generator().manual_seed(seed)) - 1


@pytest.fixture(scope="module", params=CHOICES, ids="-".join)
def distance(request, tmp_path_factory):
    name, net = request.param
    with pytest.MonkeyPatch.context() as patch:
        drawn_weights(tmp_path_factory.mktemp("weights"), patch)
        return DISTANCES[name](net)


def test_equal_images_are_at_0_and_others_are_not(distance):
    x, other = signed((2, 3, 33, 40), 0), signed((2, 3, 33, 40), 1)
    assert distance(x, x).tolist() == [0.0, 0.0]
    assert (distance(x, other) > 0).all()


def test_two_images_are_as_far_from_each_other_in_both_orders(distance):
    x_hat, x = signed((3, 1, 32, 36), 0), signed((3, 1, 32, 36), 1)
    torch.testing.assert_close(distance(x, x_hat), distance(x_hat, x), rtol=1e-5, atol=1e-9)


def test_an_image_does_not_depend_on_its_batch(distance):
    x_hat, x = signed((3, 3, 32, 36), 0), signed((3, 3, 32, 36), 1)
    singles = torch.cat([distance(x_hat[i : i + 1], x[i : i + 1]) for i in range(3)])
    torch.testing.assert_close(distance(x_hat, x), singles, rtol=1e-4, atol=1e-9)


def test_grey_images_are_those_of_three_equal_colours(distance):
    x_hat, x = signed((2, 1, 32, 32), 0), signed((2, 1, 32, 32), 1)
    colour = distance(x_hat.expand(-1, 3, -1, -1), x.expand(-1, 3, -1, -1))
    assert torch.equal(distance(x_hat, x), colour)


def test_the_gradient_is_that_of_the_first_image_and_matches_finite_differences(distance):
    double = copy.deepcopy(distance).double()
    x_hat, x = (signed((1, 3, 32, 32), seed).double().requires_grad_() for seed in (0, 1))
    direction = signed((1, 3, 32, 32), 2).double()
    double(x_hat, x).sum().backward()
    assert x.grad is None and all(p.grad is None for p in double.parameters())
    with torch.no_grad():
        step = 1e-6
        ahead, behind = double(x_hat + step * direction, x), double(x_hat - step * direction, x)
    slope = ((ahead - behind) / (2 * step)).item()
    assert (x_hat.grad * direction).sum().item() == pytest.approx(slope, rel=1e-3)


def test_what_an_inversion_compares_with_goes_through_the_network_once(distance, monkeypatch):
    """The same bits as anew, and anew as soon as it, its contents or the weights change."""
    own, seen = copy.deepcopy(distance), []
    features = own.features
    monkeypatch.setattr(own, "features", lambda x: seen.append(x) or features(x))
    x, other = signed((2, 3, 33, 36), 0), signed((2, 3, 33, 36), 1)
    iterates = [signed((2, 3, 33, 36), seed) for seed in (2, 3, 4)]

    def fresh(x_hat, y):
        return copy.deepcopy(distance)(x_hat, y.clone())

    for x_hat in iterates:
        assert torch.equal(own(x_hat, x), fresh(x_hat, x))
    assert len(seen) == len(iterates) + 1
    assert torch.equal(own(iterates[0], other), fresh(iterates[0], other))
    assert torch.equal(own(iterates[0], x), fresh(iterates[0], x))
    x.mul_(0.5)
    assert torch.equal(own(iterates[0], x), fresh(iterates[0], x))
    with torch.inference_mode():
        assert torch.equal(own(iterates[0], x), fresh(iterates[0], x))
    before = own(iterates[0], x)
    with torch.no_grad():
        next(own.parameters()).mul_(2)
    assert not torch.equal(own(iterates[0], x), before)


def test_training_mode_changes_nothing(distance):
    x_hat, x = signed((1, 3, 32, 32), 0), signed((1, 3, 32, 32), 1)
    expected = distance(x_hat, x)
    distance.train()
    assert torch.equal(distance(x_hat, x), expected)
    distance.eval()


def test_the_smallest_side_is_the_smallest_that_the_network_takes(distance):
    side = distance.min_size
    x_hat, x = signed((1, 3, side, side), 0), signed((1, 3, side, side), 1)
    assert torch.isfinite(distance(x_hat, x)).all()
    small = x[..., 1:]
    with pytest.raises(ValueError, match=f"{side}x{side - 1} pixels; .*at least {side}x{side}"):
        distance(small, small)
    with pytest.raises(RuntimeError):
        distance.features(small)


def test_unknown_distances_and_backbones_are_named_with_those_that_are():
    with pytest.raises(
        ValueError, match="'l7' is no distance; allowed are lpips, st_lpips, vgg_l1"
    ):
        distance_of("l7")
    with pytest.raises(ValueError, match="'image' is no distance"):
        distance_of("image")  # a module of the folder that holds none
    with pytest.raises(ValueError, match="ST-LPIPS: net='squeeze'; it must be one of alex, vgg"):
        DISTANCES["st_lpips"]("squeeze")


def test_missing_weights_are_named_with_where_they_belong(tmp_path, monkeypatch):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    folder = tmp_path / "hub" / "checkpoints"
    with pytest.raises(FileNotFoundError, match=rf"VGG L1: .*vgg16-397923af\.pth .*{folder}"):
        DISTANCES["vgg_l1"]("vgg")


def test_weights_of_another_network_are_named_with_what_they_lack(tmp_path, monkeypatch):
    drawn_weights(tmp_path, monkeypatch)
    folder = tmp_path / "hub" / "checkpoints"
    (folder / "vgg16-397923af.pth").write_bytes((folder / "alexnet-owt-7be5be79.pth").read_bytes())
    with pytest.raises(RuntimeError, match=r"vgg16-397923af\.pth has no features\.2\.weight"):
        DISTANCES["vgg_l1"]("vgg")


def test_vgg_l1_is_the_mean_absolute_difference_of_relu3_3_of_normalised_colours(
    tmp_path, monkeypatch
):
    """By the first 16 layers of the network that torchvision itself makes."""
    import torchvision

    drawn_weights(tmp_path, monkeypatch)
    distance = DISTANCES["vgg_l1"]("vgg")
    layers = torchvision.models.vgg.make_layers(torchvision.models.vgg.cfgs["D"])[:16]
    path = tmp_path / "hub" / "checkpoints" / "vgg16-397923af.pth"
    weights = torch.load(path, weights_only=True)
    layers.load_state_dict({key: weights[f"features.{key}"] for key in layers.state_dict()})
    normalise = torchvision.transforms.Normalize((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
    x_hat, x = signed((2, 3, 16, 20), 0), signed((2, 3, 16, 20), 1)
    with torch.no_grad():
        a, b = (layers(normalise((image + 1) / 2)) for image in (x_hat, x))
    assert a.shape == (2, 256, 4, 5)
    expected = 1e-3 * torch.stack([(p - q).abs().mean() for p, q in zip(a, b)])
    torch.testing.assert_close(distance(x_hat, x), expected, rtol=1e-5, atol=0)
