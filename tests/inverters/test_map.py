"""Maximum a posteriori inversion: the sum is the negative log-posterior, and finds its mode."""

import pytest
import torch
from helpers.inverters import pggan, problem, rngs, stylegan2

from rtil.inverters.csgm import CSGM
from rtil.inverters.data_term import MeasurementLoss
from rtil.inverters.ilo import ILO, Stage
from rtil.inverters.multicode import MGANPrior
from rtil.inverters.styles import Styles
from rtil.latents.additive import Additive
from rtil.latents.family import additive, multicode
from rtil.latents.space import Latents
from rtil.models.linear import invert_exactly, invert_map, posterior_mean
from rtil.operators import Dense, inpainting

NOISE = 0.3  # in units of the [0, 1] image
FREE = {"geodesic": 0.0, "sphere": False}  # section 5 confines nothing to a sphere


@pytest.fixture(scope="module")
def measured(linear):
    """G, A with 8 rows, and 4 noisy measurements of G^1."""
    G, rng = linear().requires_grad_(False), torch.Generator().manual_seed(5)
    A = Dense(G.image_shape, torch.randn(8, 20, generator=rng, dtype=torch.float64) / 20**0.5)
    x = Additive(1).synthesize(G, Additive(1).sample(G, 4, rng))
    return G, A, A.noisy(A(x), NOISE, rngs("abcd"))


@pytest.mark.parametrize("mse", [1.0, 0.25])
@pytest.mark.parametrize("kept", [None, torch.arange(8) < 6])
def test_data_term_and_prior_sum_to_the_log_posterior_in_units_of_the_data_term(
    measured, mse, kept
):
    G, A, y = measured
    loss = MeasurementLoss(A, mse=mse, kept=kept)
    z = torch.randn(4, 6, generator=torch.Generator().manual_seed(1)).double()
    y_hat = A(G.image(G.run(z[:, :3])._replace(x=z[:, :, None, None]), None))
    seen = slice(None) if kept is None else kept
    likelihood = torch.distributions.Normal(y_hat, 2 * NOISE).log_prob(y)[:, seen].sum(1)
    prior = torch.distributions.Normal(0.0, 1.7).log_prob(z).sum(1)
    mine = loss(y_hat, y) / loss.nat(NOISE) + z.square().sum(1) / (2 * 1.7**2)
    offset = mine + likelihood + prior  # a constant
    torch.testing.assert_close(offset, offset[:1].expand(4))


def test_map_of_csgm_on_the_linear_model_is_its_posterior_mean(measured):
    G, A, y = measured
    found = CSGM(300, lr=0.3, restarts=1, map="posterior", noise_std=NOISE).invert(
        G, A, y, MeasurementLoss(A, mse=0.25), rngs("abcd")
    )
    z0 = posterior_mean(A.matrix @ G.w1 @ G.w0, y, 2 * NOISE)
    torch.testing.assert_close(found.latents.w, z0, rtol=0, atol=1e-5)


def test_map_of_ilo_on_the_linear_model_is_its_closed_form(measured):
    G, A, y = measured
    ilo = ILO(
        [300, 300],
        lr_style=0.3,
        lr_feature=0.3,
        **FREE,
        map="posterior",
        map_sigma=0.7,
        noise_std=NOISE,
    )
    x = ilo.invert(G, A, y, MeasurementLoss(A), rngs("abcd")).last.flatten(1)
    exact = invert_map(G.w0, G.w1, A.matrix, y, 2 * NOISE, 0.7)
    torch.testing.assert_close(x, exact, rtol=0, atol=1e-4)
    assert (x - invert_exactly(G.w0, G.w1, A.matrix, y)).abs().max() > 0.1


def test_posterior_mean_is_that_of_the_joint_gaussian_and_without_noise_nothing_but_the_fit(
    measured,
):
    G, A, y = measured
    b = A.matrix @ G.w1
    gain = 0.49 * b.T @ torch.linalg.inv(0.49 * b @ b.T + 0.36 * torch.eye(8).double())
    torch.testing.assert_close(posterior_mean(b, y, 0.6, 0.7), y @ gain.T)
    clean = invert_map(G.w0, G.w1, A.matrix, y, 1e-5)
    torch.testing.assert_close(clean, invert_exactly(G.w0, G.w1, A.matrix, y), rtol=0, atol=1e-6)


def test_no_map_changes_no_bit_and_a_weight_shrinks_the_feature_map():
    G, (A, y, loss, _) = stylegan2(), problem(2)
    settings = {"steps": [4, 12], "fit_samples": 200}
    plain, off, on, strong = (
        ILO(**settings, **more).invert(G, A, y, loss, rngs("ab")).latents.add[1]
        for more in (
            {},
            {"map": None, "map_sigma": 2.0},
            {"map": 1e-3, "map_sigma": 1.0},
            {"map": 1e3, "map_sigma": 1.0},
        )
    )
    assert torch.equal(plain, off)
    assert strong.square().sum() < on.square().sum() < plain.square().sum()


def test_a_relative_sigma_is_that_of_training():
    """The penalty of a map that Additive(relative) draws as z is |z|^2 / (2 sigma^2)."""
    G, (_, _, loss, _) = stylegan2(), problem(2)
    space = Additive(1, sigma=0.4, relative=True)
    rng = torch.Generator().manual_seed(0)
    latents = Latents(G.sample_w(2, rng), G.sample_noise(2, rng), {}, member=(0, 0))
    state = G.run(latents.w, latents.noise, stop=1)
    z = space.sample(G, 2, rng).add[1]
    drawn = []
    G.step = lambda k, s, w, n=None, step=G.step: drawn.append(s.x) or step(k, s, w, n)
    space.synthesize(G, latents._replace(add={1: z}), 1, state)
    ilo = ILO([1, 1], map=3.0, map_sigma=0.4, map_relative=True)
    styles = Styles(G.style_prior(50, rng), latents.w, (), None, ())
    term = ilo._prior(G, loss, styles, Stage(1, state, z))
    found = term(drawn[0] - state.x)
    torch.testing.assert_close(found, 3 * z.square().sum((1, 2, 3)) / (2 * 0.4**2))


def test_map_of_mgan_pulls_the_codes_to_the_mode_of_their_prior():
    G, (A, y, loss, _) = pggan(), problem(2)
    sizes = [
        MGANPrior(30, 3, 2, map=weight).invert(G, A, y, loss, rngs("ab")).latents.w.square().sum()
        for weight in (None, 1e3)
    ]
    assert sizes[1] < 0.2 * sizes[0]


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: ILO([5, 5], map="posterior", map_sigma=1.0), "noise_std=0.0"),
        (lambda: ILO([5, 5], map="prior", map_sigma=1.0), "map='prior' must be"),
        (lambda: CSGM(5, map=-1.0), "map=-1.0"),
        (lambda: ILO([5, 5], map=1.0).check(stylegan2()), "needs the standard deviation"),
        (lambda: ILO([5, 5], map=1.0, map_sigma=[1.0, 2.0]), "map_sigma"),
        (lambda: CSGM(5, map=1.0, l2=0.1), "l2=0.1 and map=1.0"),
        (lambda: MeasurementLoss(inpainting((1, 4, 4), 0.5)).nat(0.0), "noise_std=0.0"),
        (
            lambda: MeasurementLoss(inpainting((1, 2, 2), 0.25), kept=torch.zeros(2, 2).bool()),
            "no observed entry",
        ),
    ],
)
def test_a_prior_that_has_no_meaning_is_refused(make, words):
    with pytest.raises(ValueError, match=words):
        make()


def test_a_posterior_needs_a_data_term_that_knows_its_weight():
    A, y, loss, _ = problem(1)
    with pytest.raises(TypeError, match="MeasurementLoss"):
        CSGM(2, map="posterior", noise_std=0.1).invert(
            stylegan2(), A, y, lambda a, b: loss(a, b), rngs("a")
        )


def test_ilo_takes_the_sigma_of_the_maps_from_the_family_of_its_generator():
    ilo, family = ILO([3, 2, 2], map=0.1), additive([0, 1, 2], sigma=0.5, relative=True)
    with_it = ilo.trained_with(family)
    assert (with_it.map_sigma, with_it.map_relative) == (0.5, True)
    given = ILO([3, 2, 2], map=0.1, map_sigma=2.0)
    assert given.trained_with(family) is given
    absolute = ILO([3, 2, 2], map=0.1, map_relative=False).trained_with(family)
    assert (absolute.map_sigma, absolute.map_relative) == (0.5, False)
    for nothing in (additive([0]), multicode([1, 3], block=1)):
        assert ilo.trained_with(nothing) is ilo
    with pytest.raises(ValueError, match=r"z_1 .. z_3, and training drew z_1 .. z_2"):
        ILO([1, 1, 1, 1], map=0.1).trained_with(family)
