"""Algorithms of deepinv on our measurements: units, known answers, draws, refusals."""

import copy
import sys
from functools import partial

import pytest
import torch
from torch import nn

from rtil.data import lineage
from rtil.inversion.pretrained import weights_found
from rtil.inverters import denoiser
from rtil.inverters.adjoint import Adjoint
from rtil.inverters.data_term import MeasurementLoss
from rtil.inverters.denoiser import Denoiser, Sizes
from rtil.inverters.diffpir import DiffPIR
from rtil.inverters.dip import DIP
from rtil.inverters.dps import DPS
from rtil.inverters.inverter import Weights
from rtil.inverters.lmmse import LMMSE, GaussianPrior, conjugate_gradient
from rtil.inverters.pnp import PnP
from rtil.operators import (
    Blur,
    Downsample,
    Identity,
    PhaseRetrieval,
    inpainting,
    partial_circulant,
)
from rtil.operators.linear_physics import linear_physics, unit_measurement
from rtil.process.rng import seeded

GREY, COLOUR = (1, 8, 8), (3, 8, 8)
SOLVE = partial(conjugate_gradient, tolerance=1e-10, max_steps=1000)
DENOISED = {"dps": DPS, "diffpir": DiffPIR, "pnp": PnP}
FEW = {
    "dps": DPS("denoiser.pt", steps=4),
    "diffpir": DiffPIR("denoiser.pt", steps=4),
    "pnp": PnP("denoiser.pt", steps=4),
    "dip": DIP(steps=4, width=4, layers=3),
}


def needs_deepinv():
    return pytest.importorskip("deepinv", reason='pip install "rtil[deepinv]"')


def rngs(count, name=""):
    return [seeded("cpu", 0, number, name) for number in range(count)]


def smooth(count, shape=GREY, seed=0):
    """Images of a Gaussian whose covariance falls with frequency, in about [-1, 1]."""
    rng = torch.Generator().manual_seed(seed)
    noise = torch.randn(count, *shape, generator=rng, dtype=torch.float64)
    return Blur(shape, 1.0).double()(noise) + 0.3 * noise[:, :1]


class Exact(nn.Module):
    """The estimate of least squared error of u from u + s e, of images x = 2 u - 1 ~ a prior."""

    def __init__(self, prior):
        super().__init__()
        eye = torch.eye(prior.mean.numel(), dtype=torch.float64)
        self.prior, self.covariance, self.eye = prior, prior.covariance(eye), eye
        self.shape = prior.shape

    def forward(self, v, sigma=None, *args, **options):
        variance = (2 * torch.as_tensor(sigma).double().flatten()[0]) ** 2
        gain = torch.linalg.solve(self.covariance + variance * self.eye, self.covariance)
        x = (2 * v.double() - 1).flatten(1)
        found = self.prior.mean + (x - self.prior.mean) @ gain
        return ((found.view(v.shape) + 1) / 2).to(v)


@pytest.fixture(scope="module")
def prior():
    return GaussianPrior(smooth(200))


@pytest.fixture
def exact(prior, monkeypatch):
    """Every file holds the exact denoiser of the prior."""
    network = Exact(prior)
    weights = Weights("denoiser.pt", "", {})
    monkeypatch.setattr(denoiser, "load", lambda path: denoiser.Trained(network, weights))
    return network


OPERATORS = {
    "cs": partial(partial_circulant, ratio=0.4),
    "inpainting": partial(inpainting, ratio=0.4),
    "sr": partial(Downsample, factor=2),
    "deblur": partial(Blur, blur_std=0.6),
}


@pytest.mark.parametrize("shape", [GREY, COLOUR])
@pytest.mark.parametrize("name", OPERATORS)
def test_a_physics_measures_what_the_operator_does(name, shape):
    """Of x = 2 u - 1; its adjoint is one, and its proximal map minimises what it says."""
    needs_deepinv()
    A = OPERATORS[name](shape).double()
    x, z = smooth(2, shape), smooth(2, shape, 1)
    y = A(x)
    physics = linear_physics(A, y, 0.1, SOLVE, 1.5)
    unit = unit_measurement(A, y) / 1.5
    assert torch.allclose(physics.A((x + 1) / 2), unit)
    assert torch.allclose((physics.A(z) * unit).sum(), (z * physics.A_adjoint(unit)).sum())
    assert float(physics.noise_model.sigma) == pytest.approx(0.1 / 1.5)
    gamma = 3.0
    found = physics.prox_l2(z, unit, gamma)
    slope = gamma * physics.A_adjoint(physics.A(found) - unit) + found - z
    assert slope.abs().max() < 1e-8


@pytest.mark.parametrize("name", ["cs", "deblur"])
def test_plug_and_play_with_the_exact_denoiser_is_the_linear_estimate(name, prior, exact):
    needs_deepinv()
    A = OPERATORS[name](GREY).double()
    y = A(smooth(2, seed=5)) + 0.1 * smooth(2, seed=6).flatten(1)[:, : A.num_measurements].view(
        2, *A.out_shape
    )
    method = PnP("denoiser.pt", steps=300, sigma_start=0.2, sigma_end=0.2, noise_std=0.05)
    found = method.invert(None, A, y, MeasurementLoss(A), rngs(2)).image
    linear = LMMSE(0.05, tolerance=1e-12, prior=prior).estimate(A, y)
    assert (found - linear).abs().max() < 1e-4  # the library's noise levels are of float32


@pytest.mark.parametrize(
    "method",
    [DPS("denoiser.pt", 60, 100.0), DiffPIR("denoiser.pt", 60, zeta=1.0, noise_std=0.05)],
    ids=["dps", "diffpir"],
)
def test_the_mean_of_draws_is_near_the_posterior_mean(method, prior, exact):
    """Less than half as far as the prior's mean: both approximate the posterior."""
    needs_deepinv()
    A = partial_circulant(GREY, 0.4).double()
    x = smooth(1, seed=7)
    y = A(x).expand(48, *A.out_shape)
    found = method.invert(None, A, y, MeasurementLoss(A), rngs(48)).image.mean(0).flatten()
    mean = LMMSE(0.05, prior=prior).estimate(A, y[:1]).flatten()
    assert (found - mean).norm() < 0.5 * (prior.mean - mean).norm()


@pytest.mark.parametrize("name", FEW)
def test_a_batch_equals_one_image_at_a_time(name, exact):
    needs_deepinv()
    A = partial_circulant(GREY, 0.4).double()
    y, method, loss = A(smooth(3)), FEW[name], MeasurementLoss(A)
    together = method.invert(None, A, y, loss, rngs(3)).image
    alone = [
        method.invert(None, A, y[b : b + 1], loss, [rng]).image for b, rng in enumerate(rngs(3))
    ]
    assert torch.allclose(together, torch.cat(alone), atol=1e-5)
    again = method.invert(None, A, y, loss, rngs(3, "other")).image
    assert name == "pnp" or not torch.allclose(together, again, atol=1e-3)


@pytest.mark.parametrize("name", DENOISED)
def test_what_is_measured_whole_is_returned(name, exact):
    needs_deepinv()
    A, x = Identity(GREY).double(), smooth(2, seed=3).clamp(-0.9, 0.9)
    method = DENOISED[name]("denoiser.pt", least_noise=1e-3)
    found = method.invert(None, A, A(x), MeasurementLoss(A), rngs(2)).image
    assert (found - x).square().mean().sqrt() < 0.06


def test_a_deep_image_prior_explains_the_measurements():
    """More and more of them, as it is trained on."""
    needs_deepinv()
    A = inpainting(GREY, 0.5)
    y = A(smooth(1).float().clamp(-1, 1))
    loss = MeasurementLoss(A)
    methods = (DIP(steps=steps, width=16, layers=4) for steps in (2, 20, 200))
    errors = [float(method.invert(None, A, y, loss, rngs(1)).loss) for method in methods]
    assert errors[0] > errors[1] > 10 * errors[2]


@pytest.mark.parametrize("name", FEW)
def test_what_has_no_adjoint_is_refused(name):
    with pytest.raises(ValueError, match=r"PhaseRetrieval is not linear.*inverter=ilo"):
        FEW[name].check_operator(PhaseRetrieval(GREY, 0.5))


@pytest.mark.parametrize("name", FEW)
def test_without_the_library_the_extra_is_named(name, monkeypatch):
    monkeypatch.setitem(sys.modules, "deepinv", None)
    for module in [key for key in sys.modules if key.startswith("deepinv.")]:
        monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(ValueError, match=r'pip install "rtil\[deepinv\]"'):
        FEW[name].check_operator(Identity(GREY))


@pytest.mark.parametrize("kind", DENOISED.values())
def test_a_denoiser_that_is_not_there_is_named_with_its_command(kind, tmp_path):
    path = tmp_path / "letters-32.pt"
    with pytest.raises(FileNotFoundError, match=r"letters-32\.pt.*scripts/train_denoiser\.py"):
        kind(str(path)).weights()


@pytest.mark.parametrize(
    ("kind", "settings"),
    [
        (DPS, {"steps": 1}),
        (DPS, {"weight": 0.0}),
        (DPS, {"least_noise": 0.0}),
        (DiffPIR, {"zeta": 1.5}),
        (DiffPIR, {"data_weight": 0.0}),
        (PnP, {"steps": 0}),
        (PnP, {"sigma_start": 0.01}),
        (PnP, {"noise_std": -1.0}),
        (DIP, {"layers": 2}),
        (DIP, {"lr": 0.0}),
    ],
)
def test_settings_out_of_range_are_named(kind, settings):
    (key,) = settings
    first = () if kind is DIP else ("denoiser.pt",)
    with pytest.raises(ValueError, match=rf"{kind.__name__}: .*{key}="):
        kind(*first, **settings)


@pytest.fixture
def training():
    """One at its start; each call gives another of the same."""
    needs_deepinv()
    import train_denoiser

    words = ["data=glyphs", "scale=tiny", "hardware=cpu", "hardware.threads=1"]
    begun = train_denoiser.begin([*words, "data.num_train=64"])[0]
    return lambda: copy.deepcopy(begun)


def stepped(training, count):
    import train_denoiser

    for _ in range(count):
        images = training.data.batch(range(training.nimg, training.nimg + train_denoiser.BATCH))
        train_denoiser.step(training, images)
    return training


def test_a_training_goes_on_as_if_it_had_not_stopped(training, tmp_path):
    """And a file is what an inverter denoises with, known by its digest and its images."""
    import train_denoiser

    path = tmp_path / "denoiser.pt"
    whole = stepped(training(), 3)
    train_denoiser.write(stepped(training(), 1), path)
    rest = training()
    train_denoiser.restore(rest, path)
    stepped(rest, 2)
    for name, value in whole.ema.state_dict().items():
        assert torch.equal(value, rest.ema.state_dict()[name]), name

    train_denoiser.write(rest, path)
    method = PnP(str(path), steps=2)
    weights = method.weights()
    assert weights.trained["data"]["name"] == "glyphs" and len(weights.sha256) == 64
    A = Identity(rest.sizes.shape)
    method.check_operator(A)
    u = torch.rand(2, *rest.sizes.shape)
    network = denoiser.load(str(path)).network
    with torch.no_grad():
        assert torch.equal(network(u, 0.1), rest.ema(u, torch.tensor([0.1, 0.1])))
    with pytest.raises(ValueError, match=r"shape \(1, 16, 16\).*\(3, 16, 16\)"):
        method.check_operator(Identity((3, 16, 16)))
    other = training()
    other.config = {**other.config, "seed": 1}
    with pytest.raises(ValueError, match=r"(?s)other images or another seed.*seed: 0 there"):
        train_denoiser.restore(other, path)


def test_a_file_of_another_kind_is_refused(tmp_path):
    path = tmp_path / "other.pt"
    torch.save({"format": "rtil-generator-1"}, path)
    with pytest.raises(ValueError, match=r"has format rtil-generator-1; expected rtil-denoiser-1"):
        PnP(str(path)).weights()


@pytest.mark.parametrize("channels", [1, 3])
def test_a_denoiser_leaves_images_without_noise(channels):
    """Whatever its weights: the share of the network falls with the level."""
    needs_deepinv()
    D = Denoiser(Sizes(channels, 16))
    u = torch.rand(2, channels, 16, 16)
    with torch.no_grad():
        assert torch.allclose(D(u, 1e-6), u, atol=1e-4)


def test_a_denoiser_that_has_seen_the_split_is_refused(monkeypatch):
    """By what generators are refused by, with the record of its file."""
    asked = []
    monkeypatch.setattr(lineage, "check_held_out", lambda *args: asked.append(args))
    weights = Weights("denoiser.pt", "abc", {"data": {"name": "folder"}})
    monkeypatch.setattr(denoiser, "load", lambda path: denoiser.Trained(None, weights))
    config = {"input": None, "data": {"name": "folder"}, "split": "test"}
    assert weights_found(PnP("denoiser.pt"), config) == {"denoiser_sha256": "abc"}
    assert asked == [(weights.trained, config["data"], "test", "denoiser.pt")]
    assert weights_found(Adjoint(), config) == {}
