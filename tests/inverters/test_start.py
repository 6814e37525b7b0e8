"""Starts that are chosen by the measurements, among draws that all images of a run share."""

from dataclasses import replace

import pytest
import torch

from rtil.inverters.chains import Model
from rtil.inverters.csgm import CSGM
from rtil.inverters.data_term import MeasurementLoss
from rtil.inverters.ilo import ILO
from rtil.inverters.minimise import Observation, norm
from rtil.inverters.start import best_start, best_starts, draw_pool
from rtil.inverters.styles import draw_styles, weights_key
from rtil.operators import partial_circulant
from rtil.process.rng import seeded

CANDIDATES = 20


def rngs(count, start=0):
    return [seeded("cpu", "test", start, i) for i in range(count)]


@pytest.fixture
def observed(generator):
    """Measurements of three of the generator's own images."""
    A = partial_circulant(generator.image_shape, ratio=0.2, seed=0).double()
    with torch.no_grad():
        images = draw_pool(generator, 7, weights_key(generator)).images[:3] + 0.05
    return Observation(A, A(images), MeasurementLoss(A))


def test_each_image_begins_at_the_draw_that_fits_it_best(generator, observed):
    """Of the half that it looks at, which is said by its own generator of random numbers."""
    z0 = best_start(generator, observed, rngs(3), CANDIDATES)
    pool = draw_pool(generator, 2 * CANDIDATES, weights_key(generator))
    for y, rng, chosen in zip(observed.y, rngs(3), z0):
        half = torch.randperm(2 * CANDIDATES, generator=rng)[:CANDIDATES]
        losses = observed.loss(observed.A(pool.images[half]), y.expand(CANDIDATES, *y.shape))
        assert torch.equal(chosen, pool.z0[half[losses.argmin()]])
        assert losses.min() < losses.max()


def test_a_start_does_not_depend_on_the_batch(generator, observed):
    together = best_start(generator, observed, rngs(3), CANDIDATES)
    for i in range(3):
        alone = Observation(observed.A, observed.y[i : i + 1], observed.loss)
        assert torch.equal(best_start(generator, alone, [rngs(3)[i]], CANDIDATES)[0], together[i])


def test_starts_of_one_image_look_at_other_halves(generator, observed):
    starts = [best_start(generator, observed, rngs(3, start), 2) for start in range(6)]
    assert any(not torch.equal(starts[0], other) for other in starts[1:])


def test_styles_of_a_draw_are_met_exactly_and_have_their_own_sphere(generator, observed):
    styles = draw_styles(generator, observed.y, rngs(3), 1000, sphere=True)
    w = generator.map(best_start(generator, observed, rngs(3), CANDIDATES)).detach()
    begun = styles.begun_at(w)
    torch.testing.assert_close(begun.w(), w)
    torch.testing.assert_close(begun.v_radius, norm(begun.v, 1))
    free = draw_styles(generator, observed.y, rngs(3), 1000, sphere=False).begun_at(w)
    assert free.v_radius is None


@pytest.mark.parametrize("inverter", [CSGM, ILO], ids=lambda inverter: inverter.__name__)
def test_a_search_goes_on_from_there(pggan, inverter):
    """PGGAN has no noise maps, so its first iterate is the image of the draw."""
    G = pggan(16)
    A = partial_circulant(G.image_shape, ratio=0.3, seed=0).double()
    y = A(draw_pool(G, 3, weights_key(G)).images + 0.05)
    loss, steps = MeasurementLoss(A), {"steps": 2 if inverter is CSGM else [2, 1]}
    found = inverter(**steps, candidates=CANDIDATES).invert(G, A, y, loss, rngs(3))
    own = rngs(3)
    if inverter is ILO:  # which has drawn styles and noise maps before
        draw_styles(G, y, own, 1000, sphere=True)
    z0 = best_start(G, Observation(A, y, loss), own, CANDIDATES)
    with torch.no_grad():
        first = loss(A(G(G.map(z0))), y)
    torch.testing.assert_close(found.history[0], first)
    plain = inverter(**steps).invert(G, A, y, loss, rngs(3))
    assert (found.history[0] < plain.history[0]).all()


@pytest.mark.parametrize("inverter", [CSGM, ILO], ids=lambda inverter: inverter.__name__)
def test_no_candidate_is_refused(inverter):
    with pytest.raises(ValueError, match=r"candidates=0.* 1 or more"):
        inverter(steps=3, candidates=0)


@pytest.fixture
def none_kept(monkeypatch):
    draw_pool.cache_clear()
    monkeypatch.setattr("rtil.inverters.start.LARGEST", 100)
    yield
    draw_pool.cache_clear()


def starts_of(generator, observed):
    model = Model(generator, torch.zeros(generator.image_shape).double(), 0.7, (), False)
    one = best_start(generator, observed, rngs(3), CANDIDATES)
    return [one, *best_starts(model, observed, rngs(3), CANDIDATES, 3)]


@pytest.fixture
def kept(generator, observed):
    return starts_of(generator, observed)


def test_images_that_are_too_many_to_keep_are_drawn_again(generator, observed, kept, none_kept):
    again = starts_of(generator, observed)
    assert draw_pool(generator, 3 * CANDIDATES, weights_key(generator)).images is None
    for a, b in zip(again, kept):
        assert torch.equal(a, b)


def test_a_search_compares_no_more_draws_than_it_was_asked_for(generator, observed):
    compared = []

    def loss(seen, y):
        compared.append(len(seen))
        return observed.loss(seen, y)

    best_start(generator, replace(observed, loss=loss), rngs(3), CANDIDATES)
    assert sum(compared) == 3 * CANDIDATES
