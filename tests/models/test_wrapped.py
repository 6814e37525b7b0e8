"""Laws of wrapped modules beside those of every generator: what may cross a cut, what not."""

import copy

import pytest
import torch
from helpers.modules import WIDTHS, Chain, Modulated, chain, modulated
from torch import nn

import rtil
from rtil.inverters.csgm import CSGM
from rtil.inverters.data_term import MeasurementLoss
from rtil.inverters.ilo import ILO
from rtil.inverters.multicode import MGANPrior
from rtil.latents.additive import Additive
from rtil.latents.multicode import MultiCode
from rtil.models.dcgan import DCGAN
from rtil.models.generator import EMPTY
from rtil.models.wrapped import Wrapped
from rtil.operators.identity import Identity
from rtil.process.rng import seeded


def latents(*shape, seed=0):
    rng = torch.Generator().manual_seed(seed)
    return torch.randn(shape, generator=rng, dtype=torch.float64)


class Plain(nn.Module):
    """Three stages in a row; tests change how forward joins them."""

    def __init__(self):
        super().__init__()
        self.a = nn.ConvTranspose2d(8, 4, 4)
        self.b = nn.Conv2d(4, 4, 3, padding=1)
        self.draw = nn.Conv2d(4, 1, 1)

    def forward(self, z):
        return torch.tanh(self.draw(self.b(self.a(z))))


def plain(forward):
    """A Plain module, float64, whose forward is this function of it and a latent."""
    torch.manual_seed(0)
    kind = type("Own", (Plain,), {"forward": forward})
    return kind().double().eval()


# Blocks are the module


@pytest.mark.parametrize("resolution", [8, 32])
@pytest.mark.parametrize("image_channels", [1, 3])
def test_a_wrapped_generator_draws_what_its_module_draws(resolution, image_channels):
    G = chain(resolution, image_channels)
    z = latents(3, 8)
    assert torch.equal(G(z), G.module(z.view(3, 8, 1, 1)))
    assert G.image_shape == (image_channels, resolution, resolution)
    assert G.shapes == {
        k: (width, side, side)
        for k, (side, width) in enumerate(WIDTHS.items(), start=1)
        if side <= resolution
    }
    G = modulated(resolution, image_channels)
    assert torch.equal(G(z), 2 * G.module(z) - 1)  # the module draws in [0, 1]


def test_blocks_after_the_first_read_rows_of_their_own():
    G = modulated(16)
    assert G.per_block_styles and G.w_shape == (3, 7) and not chain(16).per_block_styles
    w = G.map(latents(2, 8))
    state = G.step(1, EMPTY, w)
    other = w.clone()
    other[:, 1] += 1.0
    assert torch.equal(G.step(1, EMPTY, other).x, state.x)
    assert not torch.equal(G.step(2, state, other).x, G.step(2, state, w).x)
    MultiCode(3, 2).check(G)


COUNTS = {
    "len": lambda z: len(z),
    "size": lambda z: z.size(0),
    "shape": lambda z: z.shape[0],
    "sizes": lambda z: z.size()[0],
}


@pytest.mark.parametrize("count", COUNTS.values(), ids=COUNTS)
@pytest.mark.parametrize("late", [False, True])
def test_the_number_of_samples_may_pass_a_cut_in_any_spelling(count, late):
    def forward(self, z):
        x = self.a(z)
        number = count(x if late else z)
        return torch.tanh(self.draw(self.b(x).view(number, 4, 4, 4)))

    module = plain(forward)
    G = rtil.wrap(module, ["a", "b"])
    z = latents(5, 8)
    assert torch.equal(G(z), module(z.view(5, 8, 1, 1))) and not G.per_block_styles


def test_parts_and_functions_of_the_latent_are_read_by_later_blocks():
    def forward(self, z):
        first, second = z.chunk(2, dim=1)
        x = self.b(self.a(torch.cat([first, first], 1)))
        return torch.tanh(self.draw(x * second))

    module = plain(forward)
    G = rtil.wrap(module, ["a", "b"])
    z = latents(2, 8)
    assert torch.equal(G(z), module(z.view(2, 8, 1, 1)))
    assert G.per_block_styles and G.w_shape == (2, 8)


def test_a_block_that_computes_in_place_leaves_the_state_that_it_restarts_from():
    torch.manual_seed(0)
    module = DCGAN(1, z_dim=6, width=2, sizes=2).double().eval()
    G = rtil.wrap(module, ["main.1", "main.4"])  # before each ReLU, which works in place
    w = G.map(latents(2, 6))
    state = G.run(w, stop=1)
    before = state.x.clone()
    assert (before < 0).any()
    first = G.image(G.run(w, start=1, state=state), w)
    assert torch.equal(state.x, before)
    assert torch.equal(G.image(G.run(w, start=1, state=state), w), first)


def test_functions_stand_for_stages_that_cannot_be_followed():
    def forward(self, z):
        x = self.a(z)
        if x.mean() > 100:
            x = 2 * x
        return torch.tanh(self.draw(self.b(x)))

    module = plain(forward)
    with pytest.raises(ValueError, match="cannot be followed"):
        rtil.wrap(module, ["a"])
    stages = (
        lambda module, z: module.a(z),
        lambda module, x: module.b(x),
        lambda module, x: torch.tanh(module.draw(x)),
    )
    G = rtil.wrap(module, stages)
    z = latents(2, 8)
    assert torch.equal(G(z), module(z.view(2, 8, 1, 1)))
    wrong = (*stages[:2], lambda module, x: module.draw(x))
    with pytest.raises(ValueError, match="draws another image than forward"):
        rtil.wrap(module, wrong)


@pytest.mark.parametrize("make", [chain, modulated])
def test_a_copy_runs_its_own_weights(make):
    G = make(8)
    z = latents(2, 8)
    before = G(z)
    other = copy.deepcopy(G)
    with torch.no_grad():
        for p in other.parameters():
            p.mul_(1.5)
    assert torch.equal(G(z), before) and not torch.equal(other(z), before)


def test_wrapping_changes_neither_modes_nor_statistics_of_the_module():
    torch.manual_seed(0)
    module = Chain(8).train()
    module.ups.eval()
    state = {name: value.clone() for name, value in module.state_dict().items()}
    rtil.wrap(module, ["first"])
    assert module.training and module.first.training and not module.ups[0].training
    assert all(torch.equal(value, state[name]) for name, value in module.state_dict().items())


@pytest.mark.parametrize("make", [chain, modulated])
def test_maps_of_bfloat16_give_the_same_image_to_its_precision(make):
    G = make(16).float()
    z = latents(2, 8).float()
    exact = G(z)
    G.map_dtype = torch.bfloat16
    image, state = G(z), G.run(G.map(z), stop=2)
    assert image.dtype == torch.float32 and state.x.dtype == torch.bfloat16
    assert 0 < (image - exact).abs().max() < 0.1


def test_the_prior_of_a_map_has_the_moments_of_its_styles():
    G = modulated(8)
    prior = G.style_prior(200_000, seeded("cpu", "test"))
    linear = G.module.mapping[0]
    G.module.mapping[1].negative_slope = 1.0  # w = W z0 + b
    affine = G.style_prior(200_000, seeded("cpu", "test"))
    torch.testing.assert_close(affine.mean, linear.bias, rtol=0, atol=0.02)
    std = linear.weight.square().sum(1).sqrt()
    torch.testing.assert_close(affine.std, std, rtol=0.02, atol=0)
    assert (prior.std < affine.std).all() and prior.slope == 1.0


# Inverters


@pytest.mark.parametrize("make", [chain, modulated])
@pytest.mark.slow
def test_inverters_fit_what_lies_in_their_range(make):
    """CSGM fits an image of G^0, and ILO one of G^2 that CSGM does not reach."""
    G = make(16).requires_grad_(False)
    A, loss = Identity(G.image_shape), MeasurementLoss(Identity(G.image_shape))
    rng = torch.Generator().manual_seed(3)
    plain_image = Additive(0).synthesize(G, Additive(0).sample(G, 2, rng))
    latent = Additive(2, 0.3).sample(G, 2, rng)
    image = Additive(2).synthesize(G, latent)

    def error(inverter, y):
        rngs = [seeded("cpu", "test", i) for i in range(2)]
        return (inverter.invert(G, A, y, loss, rngs).image - y).square().mean()

    csgm = CSGM(steps=300, restarts=2)
    ilo = ILO((100, 100, 100), depth=2, lr_style=0.1, lr_feature=0.1)
    assert error(csgm, plain_image) < 0.1 * plain_image.var(0).mean()
    assert error(ilo, image) < 0.3 * error(csgm, image)


def test_codes_are_mixed_at_a_cut():
    G = chain(16).requires_grad_(False)
    A, loss = Identity(G.image_shape), MeasurementLoss(Identity(G.image_shape))
    y = MultiCode(3, 2).synthesize(G, MultiCode(3, 2).sample(G, 2, seeded("cpu", "test")))
    rngs = [seeded("cpu", "test", i) for i in range(2)]
    found = MGANPrior(num_codes=5, block=2, steps=200).invert(G, A, y, loss, rngs)
    assert found.loss.max() < 0.1 * found.history[0].min()


# What is refused


def skips(self, z):
    x = self.a(z)
    return torch.tanh(self.draw(self.b(x) + x))


def draws(self, z):
    return torch.tanh(self.draw(self.b(self.a(z) + torch.randn_like(self.a.bias)[:, None, None])))


def mixes(self, z):
    x = self.a(z)
    return torch.tanh(self.draw(self.b(x - x.mean(0, keepdim=True))))


def twice(self, z):
    return torch.tanh(self.draw(self.b(self.b(self.a(z)))))


def lists(self, z):
    return [torch.tanh(self.draw(self.b(self.a(z))))]


def draws_maps(self, z):
    return self.b(self.a(z))


def in_place(self, z):
    x = self.a(z)
    x.relu_()
    return torch.tanh(self.draw(self.b(x)))


def makes_constants(self, z):
    return torch.tanh(self.draw(self.b(self.a(z)) + torch.ones(4, 4)))


REFUSED = [
    (skips, ["b"], "a of Own passes the cut b"),
    (skips, ["a", "b"], "a of Own passes the cut b"),
    (draws, ["b"], "two images from one latent"),
    (mixes, ["b"], "depends on the others of its batch"),
    (twice, ["b"], "runs b 2 times"),
    (lists, ["b"], "returns list for 2 latents, which is no image"),
    (draws_maps, ["a"], r"returns \[2, 4, 4, 4\] for 2 latents, which is no image"),
    (in_place, ["a"], "draws another image than forward"),
    (makes_constants, ["a"], "a tensor that moves to no device"),
    (Plain.forward, ["first"], "no submodule first; it has a, b, draw"),
    (Plain.forward, ["b", "a"], r"as forward runs them: \[a, b\]"),
    (Plain.forward, [], "must be names of submodules"),
    (Plain.forward, ["a", lambda module, x: x], "must be names of submodules"),
]


@pytest.mark.parametrize(("forward", "cuts", "why"), REFUSED)
def test_what_no_block_can_restart_from_is_refused_by_name(forward, cuts, why):
    with pytest.raises(ValueError, match=why) as error:
        rtil.wrap(plain(forward), cuts)
    assert "\n" not in str(error.value)


class Keeping(nn.Module):
    """Leaves its map where another stage finds it."""

    def __init__(self, shelf):
        super().__init__()
        self.shelf = shelf
        self.conv = nn.Conv2d(4, 4, 1)

    def forward(self, x):
        self.shelf.append(x)
        return self.conv(x)


class Fetching(Keeping):
    def forward(self, x):
        return self.conv(x + self.shelf[-1])


def test_state_that_crosses_a_cut_in_an_attribute_is_refused():
    module, shelf = plain(Plain.forward), []
    middle = nn.Sequential(Keeping(shelf), nn.ReLU(), Fetching(shelf)).double()
    module.b = middle
    with pytest.raises(ValueError, match=r"a restart of Own from b\.0 draws another image"):
        rtil.wrap(module, ["b.0"])
    G = rtil.wrap(module, ["b"])
    z = latents(2, 8)
    assert torch.equal(G(z), module(z.view(2, 8, 1, 1)))


def test_a_latent_of_another_shape_is_refused_and_one_that_no_layer_says_is_asked_for():
    with pytest.raises(ValueError, match=r"draws nothing from a latent of shape \[3\]"):
        rtil.wrap(plain(Plain.forward), ["a"], latent=[3])
    G = rtil.wrap(plain(Plain.forward), ["a"], latent=[8, 2, 2])
    assert G.z_dim == 32 and G.image_shape == (1, 5, 5)

    class Bare(nn.Module):
        def __init__(self):
            super().__init__()
            self.weight = nn.Parameter(torch.ones(2, 16))

        def forward(self, z):
            return (z @ self.weight).view(-1, 1, 4, 4)

    with pytest.raises(ValueError, match="no layer of Bare says what latent it takes"):
        rtil.wrap(Bare(), ["x"])


@pytest.mark.parametrize(
    ("device", "side", "named"), [("cpu", 4096, "latent="), ("meta", 1024, "DCGAN returns")]
)
def test_a_latent_that_would_take_all_memory_is_refused_where_nothing_is_allocated(
    device, side, named, monkeypatch
):
    with torch.device(device):
        module = DCGAN()
    monkeypatch.setattr(torch, "randn", None)  # which would allocate
    with pytest.raises(ValueError, match=f"{named}.* values a sample"):
        Wrapped(module, ["main.2"], latent=[100, side, side])


def test_a_mapping_network_that_is_not_named_is_refused_and_how_to_name_it_said():
    torch.manual_seed(0)
    module = Modulated(8).double().eval()
    with pytest.raises(ValueError, match=r"mapping.*passes the cut convs\.0.*name it latent_map"):
        rtil.wrap(module, ["convs.*"])
    with pytest.raises(ValueError, match="image_range=full must be signed or unit"):
        rtil.wrap(module, ["convs.*"], latent_map="mapping", image_range="full")
    with pytest.raises(ValueError, match="goes with cuts by name"):
        rtil.wrap(module, [lambda m, z: z, lambda m, x: x], latent_map="mapping")


def test_a_module_that_draws_no_dark_pixel_is_warned_of(caplog):
    torch.manual_seed(0)
    rtil.wrap(Modulated(8).double(), ["convs.*"], latent_map="mapping")
    assert "image_range=unit" in caplog.text
    caplog.clear()
    modulated(8)
    assert not caplog.text
