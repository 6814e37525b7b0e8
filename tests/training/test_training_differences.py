"""What the published training does otherwise is measured as it is said, and said as measured."""

import json
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path

import pytest
import torch
from torch import nn

from rtil.latents.family import additive, multicode
from rtil.objectives.logistic import Logistic
from rtil.training.step import Nets

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def script():
    spec = spec_from_file_location("measure", ROOT / "scripts" / "training_differences.py")
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def state(script, G, family, nimg=0, D=None, D_lr=0.0, **settings):
    members = [1] * len(family.spaces)
    objective = Logistic(members, **settings).double()
    D_optim = torch.optim.SGD(D.parameters(), D_lr) if D else None
    nets = Nets(G, D, None, objective, None, D_optim)
    real = torch.zeros(script.BATCHES * script.BATCH, *G.image_shape, dtype=torch.uint8)
    return script.State(nimg, nets, family, "commit", real)


def test_the_page_shows_the_rows_as_they_are(script):
    rows = [json.loads(line) for line in script.RESULTS.read_text().splitlines()]
    page = (ROOT / "docs" / "differences.md").read_text(encoding="utf-8")
    assert rows and script.table(rows) in page
    assert {row["difference"] for row in rows} == script.MEASURES.keys()
    assert not any(str(row["commit"]).endswith("-dirty") for row in rows)


@pytest.mark.parametrize("decay", [0.01, 0.2])
def test_of_one_sample_the_share_of_the_gradient_follows_from_the_decay(
    script, stylegan2, decay, monkeypatch
):
    """|d - (1 - decay) d| / |(1 - decay) d|, whatever the weights and the running mean."""
    monkeypatch.setattr(script, "DRAWS", 2)
    measured = state(script, stylegan2(8), additive([0, 1]), path_batch=1, path_decay=decay)
    measured.nets.objective.path_mean_1.fill_(0.4)
    rows = [*script.path_mean(measured)]
    assert [row["member"] for row in rows] == ["G^0", "G^1"]
    for row in rows:
        assert row["share"] == pytest.approx(decay / (1 - decay), rel=1e-6)
    assert float(measured.nets.objective.path_mean_1) == pytest.approx(0.4)


def test_the_share_of_the_image_is_of_the_block_that_fades_in(script, pggan):
    """That of the old images where the new one is grey; none where all codes' are alike."""
    G = pggan(16, phase_nimg=[10, 100, 100])
    family = multicode([1, 3], block=3)
    places = {
        nimg: [(row["member"], row["size"], row["alpha"]) for row in script.fade_in(each)]
        for nimg, each in ((n, state(script, G, family, n)) for n in (0, 9, 20, 59, 60, 135, 210))
    }
    assert places == {
        0: [("N=3", 8, 0.5), ("N=3", 16, 0.5)],
        9: [],
        20: [("N=3", 8, 0.2)],
        59: [("N=3", 8, 0.98)],
        60: [],
        135: [("N=3", 16, 0.5)],
        210: [],
    }
    with torch.no_grad():
        G.to_rgb[1].weight.zero_()
        G.to_rgb[1].bias.zero_()
    shares = [next(script.fade_in(state(script, G, family, n)))["share"] for n in (20, 35)]
    assert shares[0] == pytest.approx(shares[1], rel=1e-6) and shares[0] > 0.01
    with torch.no_grad():
        G.to_rgb[0].weight.zero_()
    assert next(script.fade_in(state(script, G, family, 20)))["share"] < 1e-6


def test_of_one_sample_the_noise_of_the_gradient_is_the_same(script, stylegan2, discriminator):
    """A batch of one decides for one sample."""
    family, D = additive([0, 1]), discriminator("stylegan2", 16)
    measured = state(script, stylegan2(16), family, D=D)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(script, "BATCHES", 24)
        larger = [row["share"] for row in script.style_mixing(measured)]
        patch.setattr(script, "BATCH", 1)
        of_one = [row["share"] for row in script.style_mixing(measured)]
    assert of_one == pytest.approx([0, 0], abs=1e-9)
    assert all(abs(share) > 1e-3 for share in larger)


class Memory(nn.Module):
    """D(x) = <w, cos(R x)>: features of two images are orthogonal, so it learns each."""

    def __init__(self, size):
        super().__init__()
        rng = torch.Generator().manual_seed(0)
        R = 5 * torch.randn(size, size, generator=rng, dtype=torch.float64)
        self.register_buffer("R", R)
        self.w = nn.Parameter(torch.zeros(size, dtype=torch.float64))

    def forward(self, x):
        return (x.flatten(1).to(self.w) @ self.R).cos() @ self.w

    def progress(self, nimg):
        """It does not grow."""


def test_scores_of_images_that_d_has_learned_from_are_lower(script, pggan, monkeypatch):
    """In standard deviations of other scores, and so alike for any step size."""
    monkeypatch.setattr(script, "BATCHES", 24)
    family, G = multicode([1, 2], block=1), pggan(16)
    D = Memory(256)
    rows = {lr: [*script.reuse_fakes(state(script, G, family, 0, D, lr))] for lr in (0.01, 0.02)}
    for slow, fast in zip(*rows.values()):
        assert slow["share"] > slow["ci95"]
        assert fast["share"] == pytest.approx(slow["share"], rel=1e-9)
    assert not D.w.any()
