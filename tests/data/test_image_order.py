"""Which images of a split an inversion takes."""

import pytest

from rtil.data.load import image_order


def test_few_images_are_drawn_from_all_of_the_split():
    """As they would be by chance: a tenth of them has a tenth of each half of the names."""
    firsts = [image_order(1000, seed)[:100] for seed in range(20)]
    shares = [sum(number < 500 for number in first) / 100 for first in firsts]
    # Of 2,000 draws without replacement the share has a standard deviation of 0.011.
    assert sum(shares) / len(shares) == pytest.approx(0.5, abs=0.05)
    assert all(0.3 < share < 0.7 for share in shares)


@pytest.mark.parametrize("seed", [0, 7, None])
def test_the_order_has_every_image_once_and_is_the_same_again(seed):
    order = image_order(97, seed)
    assert sorted(order) == [*range(97)] and order == image_order(97, seed)


def test_seeds_give_orders_of_their_own_and_none_is_by_number():
    assert image_order(30, 0) != image_order(30, 1)
    assert image_order(30, None) == [*range(30)] != image_order(30, 0)
