"""ST-LPIPS with the published weights, where the extra rtil[stlpips] is installed."""

import json
import math
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

import pytest
import torch

from rtil.metrics.st_lpips import PACKAGE, STLPIPS, weights_file

# What the package's own code (version 0.0.2) gives for the pictures of `pair`.
GOLDEN = json.loads((Path(__file__).parents[1] / "golden" / "st_lpips.json").read_text())


def installed():
    try:
        distribution(PACKAGE)
    except PackageNotFoundError:
        return False
    return True


needs_package = pytest.mark.skipif(not installed(), reason="rtil[stlpips] is not installed")


def waves(height, width, phase, stretch):
    """(1, 3, H, W) in [-1, 1]."""
    y, x = torch.linspace(0, 1, height).view(-1, 1), torch.linspace(0, 1, width).view(1, -1)
    colours = []
    for k in range(3):
        along = torch.sin(2 * math.pi * (k + 1) * (y + 0.5 * x) + phase)
        colours.append(along * torch.cos(math.pi * (k + 2) * x * stretch))
    return torch.stack(colours)[None]


@needs_package
@pytest.mark.parametrize("choice", GOLDEN)
def test_values_are_those_of_the_package(choice):
    net, size = choice.split()
    height, width = map(int, size.split("x"))
    x, other = waves(height, width, 0.0, 1.0), waves(height, width, 0.3, 1.1)
    assert STLPIPS(net)(x, other).item() == pytest.approx(GOLDEN[choice], rel=1e-5)


@needs_package
@pytest.mark.parametrize("net", STLPIPS.sizes)
def test_a_shift_by_a_pixel_moves_a_picture_less_than_noise_of_a_tenth(net):
    rng = torch.Generator().manual_seed(0)
    x = waves(64, 65, 0.0, 1.0)
    noisy = x + 0.2 * torch.randn(x.shape, generator=rng)
    distance = STLPIPS(net)
    shifted = distance(x[..., 1:], x[..., :-1])
    assert 0 < shifted < 0.2 * distance(noisy[..., 1:], x[..., 1:])


def test_a_missing_package_is_named_with_the_extra_that_installs_it(monkeypatch):
    monkeypatch.setattr("rtil.metrics.st_lpips.PACKAGE", "no-such-package-of-weights")
    with pytest.raises(FileNotFoundError, match=r"ST-LPIPS: .*rtil\[stlpips\].*loss\.lpips=0"):
        STLPIPS("alex")


def test_another_file_than_the_published_one_is_refused(tmp_path, monkeypatch):
    file = tmp_path / "alex_shift_tolerant.pth"
    torch.save({"lin0.model.1.weight": torch.zeros(1)}, file)
    monkeypatch.setattr("rtil.metrics.st_lpips.weights_file", lambda net: file)
    with pytest.raises(RuntimeError, match=r"alex_shift_tolerant\.pth has SHA-256 .*install"):
        STLPIPS("alex")


@needs_package
def test_weights_lie_where_the_package_was_installed():
    for net in STLPIPS.sizes:
        assert (
            weights_file(net).name == f"{net}_shift_tolerant.pth" and weights_file(net).is_file()
        )
