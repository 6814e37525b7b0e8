"""What is scored of a reconstruction, by column."""

from types import SimpleNamespace

import pytest
import torch
from helpers.backbones import DISTANCES, drawn_weights

from rtil.inversion.batch import Part
from rtil.inversion.held_out import HeldOut, HeldOutRun
from rtil.inversion.score import PIXELWISE, load_distances, quality
from rtil.metrics.image import to_unit

SHAPE = (1, 32, 32)
AUTO = {**dict.fromkeys(DISTANCES, "auto"), "lpips_net": "alex"}


def pair(shape=(2, *SHAPE)):
    rng = torch.Generator().manual_seed(0)
    return tuple(2.4 * torch.rand(2, *shape, generator=rng) - 1.2)


def test_every_distance_and_metric_has_its_column_and_clipped_images(tmp_path, monkeypatch):
    drawn_weights(tmp_path, monkeypatch)
    distances = load_distances(AUTO, SHAPE)
    image, x = pair()
    columns = quality("last_", image, x.clamp(-1, 1), distances)
    assert columns.keys() == {f"last_{name}" for name in (*PIXELWISE, *DISTANCES)}
    for name, metric in PIXELWISE.items():
        assert columns[f"last_{name}"] == metric(to_unit(image), to_unit(x)).tolist()
    for name, kind in DISTANCES.items():
        expected = kind(AUTO["lpips_net"])(image.clamp(-1, 1), x.clamp(-1, 1))
        assert columns[f"last_{name}"] == pytest.approx(expected.tolist())


def test_a_distance_without_its_weights_or_of_too_small_images_is_an_empty_column(
    tmp_path, monkeypatch
):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "empty"))
    monkeypatch.setattr("rtil.metrics.st_lpips.PACKAGE", "no-such-package-of-weights")
    nothing = dict.fromkeys(DISTANCES)
    assert load_distances(AUTO, SHAPE) == nothing
    image, x = pair()
    assert all(quality("", image, x, nothing)[name] == [None, None] for name in DISTANCES)
    drawn_weights(tmp_path, monkeypatch)
    small = load_distances(AUTO, (1, 16, 16))
    assert {name for name, distance in small.items() if distance} == {"vgg_l1"}


@pytest.mark.parametrize("name", DISTANCES)
def test_a_distance_that_is_wanted_names_the_weights_that_are_missing(name, tmp_path, monkeypatch):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setattr("rtil.metrics.st_lpips.PACKAGE", "no-such-package-of-weights")
    with pytest.raises(FileNotFoundError, match=DISTANCES[name].name):
        load_distances({name: True, "lpips_net": "vgg"}, SHAPE)
    assert load_distances({name: False, "lpips_net": "vgg"}, SHAPE) == {name: None}


def test_no_image_has_no_score():
    columns = quality("lmmse_", None, pair()[1], {"lpips": None})
    assert all(values == [None, None] for values in columns.values())
    assert {"lmmse_psnr_db", "lmmse_ssim", "lmmse_ssim_valid", "lmmse_lpips"} <= columns.keys()


def test_networks_of_scores_are_on_the_device_of_the_images(tmp_path, monkeypatch):
    """The meta device stands for a GPU."""
    drawn_weights(tmp_path, monkeypatch)
    distances = load_distances({**AUTO, "lpips": False}, SHAPE)
    run = HeldOutRun(tmp_path / "run", {}, range(2), "best", distances, False, False, False)
    rt = SimpleNamespace(rank=0, world=1, device=torch.device("meta"))
    one = SimpleNamespace(per_image=False)
    problem = HeldOut(SimpleNamespace(name=str), Part(None, None), one, run, rt)
    assert problem.distances["lpips"] is None
    for name in DISTANCES.keys() - {"lpips"}:
        own = problem.distances[name]
        assert {tensor.device.type for tensor in (*own.parameters(), *own.buffers())} == {"meta"}
