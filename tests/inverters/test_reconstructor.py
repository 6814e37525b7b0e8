"""rtil.deepinv.Reconstructor: what deepinv may do to a model, and what it gives."""

import pytest
import torch
from helpers.modules import Chain
from torch import nn

from rtil.deepinv import Reconstructor
from rtil.inverters.adjoint import Adjoint
from rtil.inverters.csgm import CSGM
from rtil.inverters.data_term import MeasurementLoss
from rtil.inverters.ilo import ILO
from rtil.models.wrapped import wrap
from rtil.operators import Mask
from rtil.process.rng import seeded

SHAPE = (1, 16, 16)


class ZeroNoise:
    pass


class Physics(nn.Module):
    """What deepinv's have that the bridge reads."""

    __module__ = "deepinv.physics.forward"

    def __init__(self, images=1, square=False):
        super().__init__()
        rng = torch.Generator().manual_seed(1)
        mask = torch.rand(images, *SHAPE, generator=rng) < 0.5
        self.register_buffer("mask", mask.float())
        self.square, self.noise_model = square, ZeroNoise()
        self.sensor_model = lambda y: y

    def A(self, u):
        return self.mask.to(u) * (u.square() if self.square else u)


@pytest.fixture(scope="module")
def G():
    torch.manual_seed(0)
    return wrap(Chain().eval(), ["first", "ups.0"])


def images(count=4):
    return torch.rand(count, *SHAPE, generator=torch.Generator().manual_seed(2))


def model_of(G, seed=0):
    return Reconstructor(G, CSGM(steps=4, restarts=2), seed)


def test_it_gives_in_unit_range_what_the_inverter_gives(G):
    physics, x = Physics(), images(2)
    A = Mask(SHAPE, physics.mask[0, 0] > 0)
    rngs = [seeded("cpu", 3, number, "inversion") for number in range(2)]
    loss = MeasurementLoss(A, mse=0.25)
    want = CSGM(steps=4, restarts=2).invert(G, A, A(2 * x - 1), loss, rngs).image
    got = model_of(G, 3)(physics.A(x), physics)
    torch.testing.assert_close(got, (want + 1) / 2, rtol=0, atol=1e-5)


@pytest.mark.parametrize("square", [False, True])
def test_an_image_has_the_draws_of_its_number_whatever_the_batch(G, square):
    physics = Physics(square=square)
    y = physics.A(images())
    whole = model_of(G)(y, physics)
    parts = model_of(G)
    for size in (1, 2):
        parts.restart()
        found = torch.cat([parts(batch, physics) for batch in y.split(size)])
        torch.testing.assert_close(found, whole, rtol=0, atol=1e-4)
    twice = model_of(G)(y[:1].expand(2, -1, -1, -1), physics)
    assert not torch.equal(twice[0], twice[1])  # another number, other draws


def test_gradients_are_followed_where_nobody_asks_for_any_and_types_are_those_of_y(G):
    physics = Physics()
    y = physics.A(images())
    want = model_of(G)(y, physics)
    with torch.no_grad():
        assert torch.equal(model_of(G)(y, physics), want)
    with torch.inference_mode():
        inside = Physics()
        found = model_of(G)(inside.A(images()).double(), inside)
    assert found.dtype == torch.float64
    torch.testing.assert_close(found.float(), want, rtol=0, atol=1e-4)
    assert not want.requires_grad


def test_nothing_that_is_done_to_a_model_trains_the_generator(G):
    model, physics = model_of(G), Physics()
    before = {name: value.clone() for name, value in G.state_dict().items()}
    model.train().requires_grad_(True)
    model(physics.A(images()), physics)
    assert model.training and not any(part.training for part in G.modules())
    assert not any(value.requires_grad for value in G.parameters())
    assert all(torch.equal(value, before[name]) for name, value in G.state_dict().items())


def test_what_does_not_fit_is_refused(G):
    physics = Physics()
    with pytest.raises(ValueError, match=r"Physics: got y of shape \(4, 1, 8, 16\)"):
        model_of(G)(physics.A(images())[:, :, :8], physics)
    several = Physics(images=4)
    with pytest.raises(ValueError, match=r"Physics measures \(4, 1, 16, 16\) of one image"):
        model_of(G)(several.A(images()), several)
    square = Physics(square=True)
    with pytest.raises(ValueError, match="Adjoint: Physics is not linear"):
        Reconstructor(G, Adjoint())(square.A(images()), square)
    with pytest.raises(ValueError, match="9 stages reach block 8"):
        Reconstructor(G, ILO((2,) * 9, depth=8))


def test_deepinv_tests_it(G):
    deepinv = pytest.importorskip("deepinv", reason='pip install "rtil[deepinv]"')
    noise = deepinv.physics.GaussianNoise(0.05)
    physics = deepinv.physics.Inpainting(img_size=SHAPE, mask=0.5, noise_model=noise)
    x = images()
    pairs = torch.utils.data.TensorDataset(x, physics(x))
    means = []
    for size in (1, 3):
        loader = torch.utils.data.DataLoader(pairs, size)
        quiet = {"verbose": False, "show_progress_bar": False}
        means.append(deepinv.test(model_of(G), loader, physics, **quiet)["PSNR"])
    # Means of PSNR: an inversion amplifies the rounding of another batch.
    assert means[0] == pytest.approx(means[1], abs=0.01)
