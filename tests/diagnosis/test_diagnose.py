"""Diagnostics: distances obey their laws, and what is probed is the network that was trained."""

import json
import math
from dataclasses import replace

import pytest
import torch
from helpers.commands import COMMON, composed, export
from scipy.stats import binomtest
from torch import nn

from rtil import diagnose
from rtil.data.base import to_float
from rtil.data.load import load_data
from rtil.diagnosis import reach
from rtil.inverters.data_term import MeasurementLoss
from rtil.inverters.ilo import ILO
from rtil.latents.additive import Additive
from rtil.metrics.image import psnr, to_unit
from rtil.metrics.samples import RandomFeatures, frechet, frechet_estimate, precision_recall, share
from rtil.operators import Identity, partial_circulant
from rtil.process.rng import seeded
from rtil.reporting import coverage

GLYPHS = {
    "name": "glyphs",
    "source": "glyphs",
    "channels": 1,
    "seed": 0,
    "num_train": 400,
    "num_val": 400,
}


def normal(n, d=4, seed=0):
    draw = torch.randn((n, d), generator=torch.Generator().manual_seed(seed)).double()
    return draw * torch.arange(1, d + 1)


def test_the_frechet_distance_is_zero_to_itself_and_grows_with_a_shift_and_a_scale():
    a, shift = normal(500), torch.tensor([0.3, -1.0, 0.0, 2.0]).double()
    assert abs(frechet(a, a)) < 1e-9
    values = [frechet(a, a + s * shift) for s in (0.5, 1.0, 2.0)]
    expected = [float((s * shift).square().sum()) for s in (0.5, 1.0, 2.0)]
    assert values == pytest.approx(expected)
    centred = a - a.mean(0)
    assert frechet(centred, 3 * centred) == pytest.approx(4 * float(a.T.cov().trace()))
    b = normal(300, seed=1) + shift
    assert frechet(a, b) == pytest.approx(frechet(b, a))


def test_the_frechet_distance_is_torchmetrics_fid_of_the_same_features():
    class Flat(nn.Module):
        num_features = 4

        def forward(self, x):
            return x.flatten(1).double()

    from torchmetrics.image.fid import FrechetInceptionDistance

    a, b = normal(300), 0.5 * normal(200, seed=1) + 1
    fid = FrechetInceptionDistance(Flat(), normalize=True).set_dtype(torch.float64)
    fid.inception.num_features = 4
    for x, real in ((a, True), (b, False)):
        fid.update(x.view(-1, 1, 2, 2), real=real)
    assert frechet(a, b) == pytest.approx(float(fid.compute()), rel=1e-6)


def test_the_bootstraps_interval_covers_what_other_draws_give():
    """Draws of one distribution differ about as much as the interval says."""
    found = [
        frechet_estimate(normal(200, seed=s), normal(200, seed=s + 50) + 1, 40, s)
        for s in range(20)
    ]
    values = torch.tensor([e.value for e in found])
    halves = torch.tensor([e.high - e.value for e in found])
    assert 0.6 < float(halves.mean()) / (1.96 * float(values.std())) < 1.6
    assert found[0] == frechet_estimate(normal(200), normal(200, seed=50) + 1, 40, 0)


def clusters(n, kinds, seed, width=0.05):
    rng = torch.Generator().manual_seed(seed)
    places = torch.tensor([[0, 0], [0, 9], [9, 0], [9, 9]]).double()
    which = torch.arange(n) % kinds
    return places[which] + width * torch.randn((n, 2), generator=rng).double()


def test_precision_and_recall_of_identical_disjoint_collapsed_and_scattered_samples():
    real = clusters(400, 4, 0)

    def of(samples):
        return [e.value for e in precision_recall(samples, real)]

    assert of(real) == [1.0, 1.0]
    assert of(real + 100) == [0.0, 0.0]
    precision, recall = of(clusters(400, 4, 1))
    assert precision > 0.9 and recall > 0.9
    precision, recall = of(clusters(400, 1, 1))
    assert precision > 0.9 and recall < 0.26
    precision, recall = of(real[:1].repeat(400, 1))
    assert precision == 1.0 and recall < 0.01
    precision, recall = of(clusters(400, 4, 1, width=4.0))
    assert precision < 0.1 and recall > 0.9
    with pytest.raises(ValueError, match="neighbours=3 of 3 samples"):
        precision_recall(real[:3], real)


@pytest.mark.parametrize("true", [0, 1, 37, 200])
def test_shares_have_wilsons_interval(true):
    e = share(torch.arange(200) < true)
    known = binomtest(true, 200).proportion_ci(0.95, method="wilson")
    assert (e.value, e.n) == (true / 200, 200)
    assert (e.low, e.high) == pytest.approx((known.low, known.high), abs=1e-4)


@pytest.fixture(scope="module")
def letters():
    return [
        to_float(load_data(GLYPHS, 16, split, 1).batch(range(400))) for split in ("train", "val")
    ]


def test_features_are_fixed_uncorrelated_and_know_a_shift_from_another_image(letters):
    train, val = letters
    features = RandomFeatures(train, 16)
    here = features(train)
    torch.testing.assert_close(here.T.cov(), torch.eye(16).double(), rtol=0, atol=1e-6)
    assert torch.equal(features(val[:7]), RandomFeatures(train, 16)(val[:7]))
    assert not torch.allclose(features(val), RandomFeatures(train, 16, seed=1)(val))
    shifted = (features(val.roll(1, 3)) - features(val)).norm(dim=1)
    other = (features(val.roll(1, 0)) - features(val)).norm(dim=1)
    assert float((shifted < other).double().mean()) > 0.95
    base, noisy = features(train[:200]), train[200:] + 0.3 * torch.randn(200, 1, 16, 16)
    collapsed = train[200:210].repeat(20, 1, 1, 1)
    real = frechet(base, features(train[200:]))
    assert frechet(base, features(noisy)) > 2 * real < frechet(base, features(collapsed))
    assert precision_recall(features(collapsed), base)[1].value < 0.3
    with pytest.raises(ValueError, match="dims=400"):
        RandomFeatures(train, 400)


def test_feature_scales_are_those_of_the_plain_generators_blocks(stylegan2):
    G = stylegan2().requires_grad_(False)
    found = reach.feature_scales(G, 70, seed=3)
    latents = Additive(0).sample(G, 64, seeded("cpu", "samples", "feature scales", 3))
    for k in range(1, G.num_blocks + 1):
        x = G.run(latents.w, latents.noise, stop=k).x
        assert len(found[k].std) == 70
        assert found[k].rms[5] == pytest.approx(float(x[5].square().mean().sqrt()))
        assert found[k].std[5] == pytest.approx(float(x[5].std()))


@pytest.mark.parametrize("full", [True, False])
def test_depths_are_the_stages_of_one_run_and_a_dropped_image_is_a_jump(stylegan2, full):
    G = stylegan2().requires_grad_(False)
    A = Identity(G.image_shape) if full else partial_circulant(G.image_shape, 0.3, 0).double()
    latents = Additive(0).sample(G, 3, seeded("cpu", 1))
    x = Additive(0).synthesize(G, latents).clamp(-1, 1)
    loss, found = MeasurementLoss(A), {}
    for keep in (True, False):
        inverter = ILO(steps=[5, 3, 4], keep_rgb=keep, fit_samples=50)
        found[keep] = reach.stages(
            G, inverter, A, x, loss, lambda: [seeded("cpu", i) for i in range(3)]
        )
        done = inverter.invert(G, A, A(x), loss, [seeded("cpu", i) for i in range(3)])
        z = done.latents.add[2].square().mean((1, 2, 3)).sqrt()
        assert found[keep][2].z_rms == pytest.approx(z.tolist())
        assert found[keep][0].z_rms is None and found[keep][0].jump is None
        scores = psnr(to_unit(done.image), to_unit(x))
        assert found[keep][2].psnr_db == pytest.approx(scores.tolist())
        first = replace(inverter, steps=[5]).invert(
            G, A, A(x), loss, [seeded("cpu", i) for i in range(3)]
        )
        assert torch.equal(first.history, done.history[:6])
    assert all(jump < 1e-9 for depth in found[True][1:] for jump in depth.jump)
    assert all(jump > 1e-4 for jump in found[False][2].jump)


@pytest.mark.parametrize("rtil", ["ilo", pytest.param("vanilla", marks=pytest.mark.slow)])
def test_a_diagnosis_is_written_with_n_and_intervals(tmp_path, rtil):
    export(tmp_path, rtil=rtil)
    overrides = [
        *COMMON,
        f"root={tmp_path}",
        f"rtil={rtil}",
        "num_samples=60",
        "dims=8",
        "bootstrap=3",
        "stage_steps=2",
        "num_images=2",
    ]
    place = diagnose.diagnose(composed("diagnose", *overrides).copy(), overrides)
    found = json.loads((place / "diagnose.json").read_text())
    names = ["training images", "G^0"] + (["G^1", "G^2"] if rtil == "ilo" else [])
    assert [row["member"] for row in found["members"]] == names
    assert all(row["recall"]["n"] == 60 for row in found["members"])
    assert [row["k"] for row in found["depths"]] == [0, 1, 2]
    last, block = found["depths"][2], found["blocks"][1]
    if rtil == "ilo":
        assert block["sigma_over_rms"] == pytest.approx(1 / block["rms"]["mean"])
        assert last["all"]["z_over_sigma"]["mean"] == pytest.approx(last["all"]["z_rms"]["mean"])
    else:
        assert block["sigma"] is last["all"]["z_over_sigma"] is None
    assert last["task"]["z_over_rms"]["n"] == 2 and math.isfinite(last["all"]["psnr_db"]["ci95"])
    (read,) = coverage.read(place)
    assert [*read.members] == names and read.config["rtil.name"] == rtil
    assert {p.name for p in place.iterdir()} == {f"diagnose.{e}" for e in ("json", "md", "png")}
    with pytest.raises(ValueError, match="inverter=csgm"):
        diagnose.diagnose(composed("diagnose", *overrides, "inverter=csgm").copy(), overrides)
