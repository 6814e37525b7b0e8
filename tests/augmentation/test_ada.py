"""Laws of adaptive augmentation: how often, what passes through it, how p moves."""

import itertools

import pytest
import torch

from rtil.augmentation.ada import KINDS, Ada
from rtil.latents.additive import Additive
from rtil.latents.family import Family
from rtil.models.generator import UNMIXED
from rtil.objectives.logistic import Logistic
from rtil.objectives.relativistic import Relativistic
from rtil.objectives.wgan_gp import WGANGP
from rtil.process import replay
from rtil.process.rng import Draws, seed_of, seeded
from rtil.training import loop
from rtil.training.step import Fakes, Nets, Step


def images(batch, channels=3, size=8, dtype=torch.float32):
    shape = (batch, channels, size, size)
    return torch.randn(shape, generator=seeded("cpu", "images"), dtype=dtype)


def draws(batch, rank=0, world=1):
    return Draws(seeded("cpu", "draws"), batch, rank, world)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("kind", KINDS)
def test_p_0_changes_no_bit_and_p_1_every_image(kind, channels):
    x = images(64, channels)
    ada = Ada([kind], p=0.0)
    assert torch.equal(ada(x, draws(64)), x)
    ada.p.fill_(1.0)
    same = (ada(x, draws(64)) == x).flatten(1).all(1)
    # A flip, a turn and a shift may each be drawn as none.
    assert same.sum() <= (4 if kind == "blit" else 0)


@pytest.mark.parametrize(
    ("kind", "p"),
    [
        *(("colour", p) for p in (0.1, 0.4, 0.8)),
        ("geometry", 0.4),
        *(pytest.param("geometry", p, marks=pytest.mark.slow) for p in (0.1, 0.8)),
    ],
)
def test_an_image_escapes_each_transform_with_1_minus_p(kind, p):
    """Rotations are two with p together; a luma flip is half of its transform."""
    x = images(4000, 3, 4)
    same = (Ada([kind], p)(x, draws(4000)) == x).flatten(1).all(1).float().mean().item()
    escapes = {"geometry": (1 - p) ** 4, "colour": (1 - p) ** 4 * (1 - p / 2)}[kind]
    deviation = (escapes * (1 - escapes) / 4000) ** 0.5
    assert abs(same - escapes) < 4 * deviation + 1e-4


@pytest.mark.parametrize("p", [0.3, 0.8, 0.95])
def test_no_flip_or_turn_is_as_likely_as_none(p):
    """Or else G might learn it (section 2.2)."""
    n, x = 8000, images(1, 1, 3)  # of 3 pixels, where no shift reaches a whole one
    drawn = Ada(["blit"], p)(x.expand(n, -1, -1, -1), draws(n))
    shares = []
    for flip, turns in itertools.product((False, True), range(4)):
        one = (x.flip(3) if flip else x).rot90(turns, (2, 3))
        shares.append((drawn == one).flatten(1).all(1).float().mean().item())
    odds = [1 - 3 * p / 4, *[p / 4] * 3]
    expected = [q * odd for q in (1 - p / 2, p / 2) for odd in odds]
    assert sum(shares) == pytest.approx(1)
    assert shares == pytest.approx(expected, abs=0.02)
    assert shares[0] == max(shares)


@pytest.mark.parametrize("channels", [1, 3])
def test_gradients_of_both_orders_pass_through_every_transform(channels):
    x = images(3, channels, 4, torch.float64).requires_grad_(True)
    ada = Ada(p=0.9)

    def seen(x):
        return ada(x, draws(3))

    torch.autograd.gradcheck(seen, x, fast_mode=True)
    torch.autograd.gradgradcheck(seen, x, fast_mode=True)
    assert not (seen(x) == x).flatten(1).all(1).any()


def test_processes_transform_their_images_as_one_does():
    x, ada = images(12), Ada(p=0.5)
    whole = ada(x, draws(12))
    shares = [ada(x.chunk(3)[rank], draws(12, rank, 3)) for rank in range(3)]
    assert torch.equal(torch.cat(shares), whole)


def test_draws_are_equally_many_whatever_p_is():
    following = []
    for p in (0.0, 0.5, 1.0):
        of_batch = draws(4)
        Ada(p=p)(images(4), of_batch)
        following.append(of_batch.uniform())
    assert torch.equal(following[0], following[1]) and torch.equal(following[0], following[2])


@pytest.mark.parametrize(
    ("signs", "start", "end"),
    [
        ([1] * 16, 0.5, 0.516),  # r = 1 > 0.6
        ([1] * 12 + [-1] * 4, 0.5, 0.484),  # r = 0.5
        ([1] * 13 + [-1] * 3, 0.5, 0.516),  # r = 0.625
        ([-1] * 16, 0.01, 0.0),
        ([1] * 16, 0.99, 1.0),
    ],
)
def test_p_moves_by_the_share_of_speed_that_was_seen(signs, start, end):
    ada = Ada(p=start, target=0.6, speed=1000, every=4)
    for step, part in enumerate(torch.tensor(signs).chunk(4)):
        assert ada.p.item() == pytest.approx(start)
        ada.observe(3.0 * part)
        noted = {name: values for name, values, _ in ada.adjust(step)}
    assert ada.p.item() == pytest.approx(end)
    assert noted["augment/p"].item() == pytest.approx(end)
    assert noted["augment/r"].item() == pytest.approx(sum(signs) / 16)
    assert not ada.signs.any()


SPACES, SHARES = (Additive(0), Additive(1), Additive(2)), (0.2, 0.3, 0.5)
SEED = seed_of("fakes")


class Raised(torch.nn.Module):
    """D + constant."""

    def __init__(self, D, constant):
        super().__init__()
        self.D, self.constant = D, constant

    def forward(self, x):
        return self.D(x) + self.constant


def followed(G, D, objective, real, constant=0.0):
    """(p, r_t) after a step of D + constant, whose weights stay."""
    ada = Ada(["blit"], p=0.0, target=0.0, speed=1000, every=1)
    optim = torch.optim.SGD(D.parameters(), 0.0)
    nets = Nets(G, Raised(D, constant), None, objective, None, optim, ada)
    of_step = Draws(seeded("cpu", "step"), len(real))
    fakes = Fakes(Draws(seeded("cpu", "unseeded"), len(real)), SEED)
    step = Step(0, real, of_step, UNMIXED, fakes)
    noted = loop.d_step(nets, Family(SPACES, SHARES), step, replay.Recorder([of_step.rng], False))
    return ada.p.item(), dict(row[:2] for row in noted)["augment/r"].item()


@pytest.mark.parametrize("objective", [Relativistic, WGANGP, Logistic])
def test_r_is_the_mean_sign_of_what_the_loss_tells_real_images_by(pggan, discriminator, objective):
    """Pair by pair, in the weights of the family; where differences tell, a constant does not."""
    G, D = pggan(16), discriminator("pggan", 16)
    rng, expected = torch.Generator().manual_seed(SEED), 0.0
    with torch.no_grad():
        # Images that D ranks among the generated ones.
        real = SPACES[2].synthesize(G, SPACES[2].sample(G, 8, seeded("cpu", "real")))
        D = Raised(D, -D(real).mean())
        for space, share in zip(SPACES, SHARES):
            leads = D(real)
            if objective is not Logistic:
                leads = leads - D(space.synthesize(G, space.sample(G, 8, rng)))
            expected += share * leads.sign().mean().item()

    p, r = followed(G, D, objective([1, 1, 1]), real)
    assert 0 < abs(r) < 1 and r == pytest.approx(expected)
    assert p == (pytest.approx(8 / 1000) if r > 0 else 0)
    for constant in (-100.0, 100.0):
        raised = followed(G, D, objective([1, 1, 1]), real, constant)
        moved = (0.008, 1.0) if constant > 0 else (0.0, -1.0)
        assert raised == (pytest.approx(moved) if objective is Logistic else (p, r))


@pytest.mark.parametrize("members", range(1, 12))
def test_what_is_alike_in_all_spaces_counts_once(members):
    """To the last bit, for p goes on from it."""
    once, shared = Ada(speed=1000, every=1), Ada(speed=1000, every=1)
    leads = images(7, 1, 1).flatten()
    once.observe(leads)
    for _ in range(members):
        shared.observe(leads, 1 / members)
    (_, p, _), (_, r, _) = once.adjust(0)
    (_, other_p, _), (_, other_r, _) = shared.adjust(0)
    assert torch.equal(p, other_p) and torch.equal(r, other_r)


@pytest.mark.parametrize("speed", [None, 0])
def test_p_without_a_speed_stays(speed):
    ada = Ada(p=0.2, speed=speed, every=1)
    ada.observe(torch.ones(8))
    ada.adjust(0)
    assert ada.p.item() == pytest.approx(0.2)


def test_what_there_is_no_transform_of_is_named():
    with pytest.raises(ValueError, match=r"kinds=\['cutout'\] must be some of blit, geometry"):
        Ada(["cutout"])
    with pytest.raises(ValueError, match=r"kinds=\['blit', 'blit'\] must be .* each once"):
        Ada(["blit", "blit"])


def test_the_discriminator_is_that_of_transformed_images_and_r1_its_gradient_by_the_image():
    """As published: not the gradient by the transformed image."""
    x, ada = images(4, 3, 8, torch.float64), Ada(p=0.9)
    D, of_step = (
        torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(192, 1)).double(),
        draws(4),
    )
    shown = Nets(None, D, None, None, None, None, ada).shown(of_step)
    first = shown(x)
    assert torch.equal(first, D(ada(x, draws(4))))
    assert not torch.equal(first, shown(x))  # transformed anew

    penalty = Logistic([1], r1_weight=2.0, r1_every=1).r1
    norms = penalty(Nets(None, D, None, None, None, None, ada).shown(draws(4)), x)
    image = x.clone().requires_grad_(True)
    (gradient,) = torch.autograd.grad(D(ada(image, draws(4))).sum(), image)
    torch.testing.assert_close(norms, gradient.square().sum((1, 2, 3)))
    assert not torch.allclose(norms, penalty(D, x))
