"""What constant weights give is computed once inside `frozen`, and never outlives it."""

import pytest
import torch

from rtil.models import layers
from rtil.models.layers import EqualLinear, derived, frozen


@pytest.mark.parametrize("kind", ["stylegan2", "pggan", "karras", "wrapped", "wrapped_styles"])
def test_frozen_changes_no_image_and_no_gradient(request, kind):
    G = request.getfixturevalue(kind)(16).requires_grad_(False)
    z = torch.randn(2, G.z_dim, generator=torch.Generator().manual_seed(0), dtype=torch.float64)

    def run():
        leaf = z.clone().requires_grad_()
        image = G(leaf)
        return image, torch.autograd.grad(image.square().sum(), leaf)[0]

    plain = run()
    with frozen():
        for _ in range(2):
            assert all(torch.equal(a, b) for a, b in zip(run(), plain))


def test_derived_is_computed_once_inside_and_anew_after():
    weight, calls = torch.ones(3), []

    def compute():
        calls.append(1)
        return weight * 2

    with frozen():
        assert derived(weight, "a", compute) is derived(weight, "a", compute)
        with frozen():
            derived(weight, "a", compute)
        derived(weight, "b", compute)
        assert len(calls) == 2
    weight.mul_(3)
    with frozen():
        assert torch.equal(derived(weight, "a", compute), torch.full((3,), 6.0))
    assert layers._kept is None


def test_weights_that_learn_are_never_kept():
    layer = EqualLinear(3, 2)
    x = torch.ones(1, 3)
    with frozen():
        before = layer(x)
        with torch.no_grad():
            layer.weight.add_(1.0)
        assert not torch.equal(layer(x), before)
