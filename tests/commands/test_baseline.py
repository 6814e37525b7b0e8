"""The baseline that is timed computes what rtil computes, on its weights, in float64."""

from dataclasses import dataclass

import pytest
import torch
from conftest import CHANNELS

from benchmarks.baseline import inversion, pggan, stylegan2, training
from rtil.inverters.data_term import MeasurementLoss
from rtil.inverters.ilo import ILO
from rtil.inverters.styles import geodesic_cross
from rtil.latents.additive import Additive
from rtil.latents.family import Family
from rtil.latents.multicode import MultiCode
from rtil.latents.space import Latents, LatentSpace
from rtil.models.generator import EMPTY, UNMIXED, StyleMixing
from rtil.objectives.logistic import Logistic
from rtil.objectives.wgan_gp import WGANGP
from rtil.operators.circulant import partial_circulant
from rtil.process.replay import Recorder
from rtil.process.rng import Draws, seeded
from rtil.training import loop
from rtil.training.step import Step

SETTINGS = {
    "stylegan2": {
        "lr": 0.002,
        "betas": [0.0, 0.99],
        "ema_decay": 0.9,
        "style_mixing": 0.0,
        "objective": {
            "r1_weight": 10.0,
            "r1_every": 16,
            "path_weight": 2.0,
            "path_every": 4,
            "path_batch": 2,
            "path_decay": 0.01,
        },
    },
    "pggan": {
        "lr": 0.001,
        "betas": [0.0, 0.99],
        "ema_decay": 0.9,
        "style_mixing": 0.0,
        "objective": {"gp_weight": 10.0, "drift": 0.001},
    },
}
BLOCK = 2


@dataclass(frozen=True)
class Fixed(LatentSpace):
    """A member whose draws are given: {batch: (z, noise, add)} or {batch: (z, alpha)}."""

    inner: LatentSpace
    draws: dict

    @property
    def names(self):
        return self.inner.names

    @property
    def members(self):
        return self.inner.members

    def check(self, G):
        self.inner.check(G)

    def drawn(self, batch, turn):
        return ()

    def sample(self, G, batch, rng, style_mixing=UNMIXED, turn=0):
        drawn, member = self.draws[batch], (0,) * batch
        if isinstance(self.inner, Additive):
            z, noise, add = drawn
            return Latents(G.map(z), tuple(noise), add, member=member)
        z, alpha = drawn
        n = self.inner.num_codes
        return Latents(
            G.map(z.flatten(0, 1)), alpha=alpha.flatten(0, 1), counts=(n,) * batch, member=member
        )

    def synthesize(self, G, latents, start=0, state=EMPTY):
        return self.inner.synthesize(G, latents, start, state)


def randn(*shape, seed):
    rng = torch.Generator().manual_seed(seed)
    return torch.randn(shape, generator=rng, dtype=torch.float64)


def copies(networks, kind):
    """The baseline's generator and discriminator on rtil's weights."""
    G, D = networks
    theirs = {"stylegan2": stylegan2, "pggan": pggan}[kind]
    extra = {"num_mapping": 2} if kind == "stylegan2" else {}
    names = {"stylegan2": "StyleGAN2", "pggan": "PGGAN"}[kind]
    g = getattr(theirs, f"{names}Generator")(16, CHANNELS, 3, z_dim=8, **extra).double()
    d = getattr(theirs, f"{names}Discriminator")(16, CHANNELS, 3).double()
    g.load_state_dict(G.state_dict())
    d.load_state_dict(D.state_dict())
    return g, d


@pytest.fixture(params=["stylegan2", "pggan"])
def pair(request, discriminator):
    """kind, rtil's (G, D), the baseline's (G, D)."""
    kind = request.param
    networks = request.getfixturevalue(kind)(16, 3), discriminator(kind, 16, 3)
    return kind, networks, copies(networks, kind)


def draws(kind, G, member, batch, seed):
    z = randn(batch, member if kind == "pggan" else 1, 8, seed=seed)
    if kind == "pggan":
        alpha = randn(batch, member, 1, seed=seed + 1).softmax(1)
        return z, alpha
    noise = [randn(batch, *shape, seed=seed + 2 + i) for i, shape in enumerate(G.noise_shapes)]
    add = {k: randn(batch, *G.shapes[k], seed=seed + 50 + k) for k in range(1, member + 1)}
    return z[:, 0], noise, add


def as_baseline(kind, g, drawn):
    """Arguments of the baseline's generator for the same draws."""
    if kind == "stylegan2":
        z, noise, add = drawn
        return g.map(z), noise, add
    z, alpha = drawn
    return list(z.unbind(1)), list(alpha.unbind(1)), BLOCK


def space_of(kind, member):
    return Additive(member) if kind == "stylegan2" else MultiCode(member, BLOCK)


def assert_same(ours, theirs):
    atol = 1e-10 * ours.detach().abs().max().item()
    torch.testing.assert_close(theirs, ours, rtol=1e-9, atol=atol)


@pytest.mark.parametrize("member", [1, 3])
def test_images_scores_and_their_gradients_are_those_of_rtil(pair, member):
    kind, (G, D), (g, d) = pair
    drawn = draws(kind, G, member, 4, seed=0)
    fixed = Fixed(space_of(kind, member), {4: drawn})
    ours = fixed.synthesize(G, fixed.sample(G, 4, None))
    theirs = g(*as_baseline(kind, g, drawn))
    assert_same(ours, theirs)
    assert_same(D(ours), d(theirs))
    D(ours).sum().backward()
    d(theirs).sum().backward()
    for a, b in ((G, g), (D, d)):
        found = dict(b.named_parameters())
        for name, p in a.named_parameters():
            if p.grad is None:
                assert found[name].grad is None, name
            else:
                assert_same(p.grad, found[name].grad)


def test_two_training_steps_with_every_penalty_leave_the_same_weights(pair):
    kind, (G, D), (g, d) = pair
    members, settings = [1, 2], SETTINGS[kind]
    objective = {"stylegan2": Logistic, "pggan": WGANGP}[kind]([1, 1], **settings["objective"])
    drawn = {m: {b: draws(kind, G, m, b, 100 * m + b) for b in (4, 2)} for m in members}
    family = Family(tuple(Fixed(space_of(kind, m), drawn[m]) for m in members), (0.5, 0.5))

    def adam(network, lazy):
        share = lazy.every / (lazy.every + 1) if lazy else 1.0
        betas = tuple(beta**share for beta in settings["betas"])
        return torch.optim.Adam(network.parameters(), settings["lr"] * share, betas)

    start = {name: p.detach().clone() for name, p in G.named_parameters()}
    optims = adam(G, objective.g_lazy), adam(D, objective.d_lazy)
    nets = loop.Nets(G, D, None, objective, *optims)
    kinds = {"stylegan2": training.StyleGAN2Training, "pggan": training.PGGANTraining}
    theirs = kinds[kind](g, d, settings, members, BLOCK)
    theirs.draw = lambda member, batch, rng: as_baseline(kind, theirs.G, drawn[member][batch])

    real = randn(4, 3, 16, 16, seed=5).tanh()
    rngs = [torch.Generator().manual_seed(3) for _ in range(2)]
    record = Recorder([rngs[0]], False)
    for number in range(2):
        step = Step(number, real, Draws(rngs[0], 4), StyleMixing(settings["style_mixing"]))
        loop.d_step(nets, family, step, record)
        loop.g_step(nets, family, step, record)
        theirs.d_step(real, rngs[1], number)
        theirs.g_step(4, rngs[1], number)
    for a, b in ((G, g), (D, d)):
        found = dict(b.named_parameters())
        for name, p in a.named_parameters():
            torch.testing.assert_close(found[name], p, rtol=1e-7, atol=1e-9)
    assert all(
        not torch.equal(p, start[name]) for name, p in G.named_parameters() if p.grad is not None
    )


def operator_and_copy(ratio=0.3):
    A = partial_circulant((3, 16, 16), ratio, seed=1).double()
    return A, inversion.Circulant(A.filter, A.signs, A.indices)


@pytest.mark.parametrize("k", [0, 2])
def test_loss_and_gradient_of_an_ilo_stage_are_those_of_rtil(stylegan2, discriminator, k):
    G = stylegan2(16, 3)
    g, _ = copies((G, discriminator("stylegan2", 16, 3)), "stylegan2")
    A, a = operator_and_copy()
    prior = G.style_prior(50, torch.Generator().manual_seed(0))
    x_true = randn(1, 3, 16, 16, seed=9).tanh()
    v = randn(1, *G.w_shape, seed=1).requires_grad_()
    noise = [randn(1, *s, seed=20 + i).requires_grad_() for i, s in enumerate(G.noise_shapes)]
    state, z, restart = EMPTY, None, {}
    w = prior(v)
    if k:
        z = randn(1, *G.shapes[k], seed=2).requires_grad_()
        with torch.no_grad():
            state = G.run(w, tuple(noise), stop=k)
        restart = {"x": state.x, "rgb": state.rgb}
    leaves = [v, *noise] + ([z] if k else [])

    latents = Latents(w, tuple(noise), {k: z} if k else {}, member=(0,))
    image = Additive(k).synthesize(G, latents, k, state)
    ours = MeasurementLoss(A, mse=0.25)(A(image), A(x_true)).sum()
    if not k:
        ours = ours + 0.01 * geodesic_cross(v).sum()
    theirs, picture = inversion.ilo_loss(
        g, a, x_true, (prior.mean, prior.std), v, noise, k, z, **restart
    )
    assert_same(image.detach(), picture.detach())
    assert_same(ours.detach(), theirs.detach())
    for mine, other in zip(
        torch.autograd.grad(ours, leaves, allow_unused=True),
        torch.autograd.grad(theirs, leaves, allow_unused=True),
    ):
        assert (mine is None) == (other is None)
        if mine is not None:
            assert_same(mine, other)


def test_ilo_of_several_stages_shows_the_images_of_rtil(stylegan2, discriminator):
    """Schedule, projections, optimiser and restarts, over the steps that the benchmarks time."""
    G = stylegan2(16, 3).requires_grad_(False)
    g, _ = copies((G, discriminator("stylegan2", 16, 3)), "stylegan2")
    A, a = operator_and_copy()
    x_true = randn(1, 3, 16, 16, seed=9).tanh()
    stages, seen, found = (3, 2, 2), [], []
    rng = torch.Generator().manual_seed(4)
    v = torch.randn((1, *G.w_shape), generator=rng).double()
    noise = [torch.randn((1, *s), generator=rng).double() for s in G.noise_shapes]
    ILO(stages, noise_maps=2, fit_samples=100).invert(
        G,
        A,
        A(x_true),
        MeasurementLoss(A, mse=0.25),
        [torch.Generator().manual_seed(4)],
        watch=lambda image: seen.append(image.clone()),
    )
    prior = G.style_prior(100, seeded("cpu", "style prior"))
    inversion.ilo(
        g, a, x_true, (prior.mean, prior.std), v, noise, stages, found.append, noise_maps=2
    )
    assert len(seen) == len(found) == sum(stages) + len(stages)
    torch.testing.assert_close(torch.stack(found), torch.stack(seen), rtol=1e-6, atol=1e-6)
    assert not torch.equal(seen[0], seen[-1])


def test_multi_code_loss_and_gradient_are_those_of_rtil(pggan, discriminator):
    G = pggan(16, 3).requires_grad_(False)
    g, _ = copies((G, discriminator("pggan", 16, 3)), "pggan")
    A, _ = operator_and_copy()
    y = A(randn(1, 3, 16, 16, seed=9))
    codes = randn(5, 8, seed=1).requires_grad_()
    alpha = randn(5, CHANNELS[8], seed=2).requires_grad_()
    latents = Latents(G.map(codes), alpha=alpha, counts=(5,), member=(0,))
    ours = MeasurementLoss(A, mse=0.25)(A(MultiCode(5, BLOCK).synthesize(G, latents)), y).sum()
    theirs, _ = inversion.mgan_loss(g, A, y, codes, alpha, BLOCK)
    assert_same(ours.detach(), theirs.detach())
    for mine, other in zip(
        torch.autograd.grad(ours, [codes, alpha]), torch.autograd.grad(theirs, [codes, alpha])
    ):
        assert_same(mine, other)
