"""Layers with constant weights as one node: the same numbers as operation after operation."""

import copy

import pytest
import torch

from rtil.kernels import build, dispatch, styled_conv
from rtil.models import stylegan2 as network
from rtil.models.layers import frozen
from rtil.models.stylegan2 import StyledConv, ToRGB

BATCHES = [1, 3]


@pytest.fixture(autouse=True)
def _needs_kernels():
    if build.find_compiler() is None or build.find_ninja() is None:
        pytest.skip("no C++ compiler or ninja here, so the CPU's kernels are not built")


def rand(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed + sum(shape)))


def layer_of(kind, dtype=torch.float32):
    torch.manual_seed(0)
    layer = ToRGB(12, 3, 8) if kind == "rgb" else StyledConv(12, 10, 8, up=kind == "up")
    for parameter in layer.parameters():
        torch.nn.init.normal_(parameter, std=0.5)
    return layer.requires_grad_(False).to(dtype)


def inputs_of(kind, batch, noise_batch, dtype=torch.float32):
    """Maps, a style out of several, and noise or the image so far."""
    x = rand(batch, 12, 6, 6).to(dtype).contiguous(memory_format=torch.channels_last)
    w = rand(batch, 5, 8, seed=1).to(dtype)
    side = 12 if kind == "up" else 6
    last = (
        rand(batch, 3, 6, 6, seed=2) if kind == "rgb" else rand(noise_batch, 1, side, side, seed=2)
    )
    return [x.requires_grad_(), w.requires_grad_(), last.to(dtype).requires_grad_()]


def results(layer, inputs, twice=False):
    x, w, last = inputs
    y = layer(x, w[:, 2], last)
    up = rand(*y.shape, seed=3).to(y.dtype)
    found = torch.autograd.grad(y, inputs, up, create_graph=twice)
    if twice:
        total = sum((g * rand(*g.shape, seed=4).to(g.dtype)).sum() for g in found)
        found = torch.autograd.grad(total, inputs, allow_unused=True)
        return [torch.zeros(()) if g is None else g.detach() for g in found]
    return [y.detach(), *(g.detach() for g in found)]


def near(mine, exact, bound):
    for a, b in zip(mine, exact):
        assert a.shape == b.shape
        scale = b.double().norm().clamp_min(1e-6)
        assert (a.double() - b.double()).norm() <= bound * scale


@pytest.fixture
def calls(monkeypatch):
    """How often the fused functions were taken."""
    taken = []
    for name in ("styled_conv", "to_rgb"):
        real = getattr(styled_conv, name)
        monkeypatch.setattr(
            network.styled_conv,
            name,
            lambda *a, real=real, name=name: taken.append(name) or real(*a),
        )
    return taken


@pytest.mark.parametrize("twice", [False, True])
@pytest.mark.parametrize("shared", [False, True])
@pytest.mark.parametrize("batch", BATCHES)
@pytest.mark.parametrize("kind", ["plain", "up", "rgb"])
def test_values_and_gradients_are_those_of_float64(calls, kind, batch, shared, twice):
    noise_batch = 1 if shared else batch
    exact = results(
        layer_of(kind, torch.float64), inputs_of(kind, batch, noise_batch, torch.float64), twice
    )
    assert not calls
    with frozen():
        mine = results(layer_of(kind), inputs_of(kind, batch, noise_batch), twice)
    assert calls
    near(mine, exact, 2e-5)


@pytest.mark.parametrize("kind", ["plain", "up"])
def test_bfloat16_maps_agree_to_their_rounding(calls, kind):
    x, w, last = inputs_of(kind, 2, 2)
    inputs = [x.detach().bfloat16().requires_grad_(), w, last]
    layer = layer_of(kind)
    plain = results(layer, inputs)
    with frozen():
        mine = results(layer, inputs)
    assert calls and mine[0].dtype == torch.bfloat16
    near(mine, plain, 2e-2)


@pytest.mark.parametrize("kind", ["plain", "up", "rgb"])
def test_an_image_alone_gets_what_it_gets_in_a_batch(kind):
    layer, (x, w, last) = layer_of(kind), inputs_of(kind, 3, 3)
    with frozen():
        y = layer(x, w[:, 2], last)
        for i in range(3):
            one = layer(x[i : i + 1], w[i : i + 1, 2], last[i : i + 1])
            torch.testing.assert_close(one, y[i : i + 1], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("kind", ["plain", "up", "rgb"])
@pytest.mark.parametrize("wanted", [0, 1, 2])
def test_one_gradient_alone_is_the_same(kind, wanted):
    layer, inputs = layer_of(kind), inputs_of(kind, 2, 2)
    with frozen():
        everything = results(layer, inputs)[1 + wanted]
        alone = [t.detach().requires_grad_(i == wanted) for i, t in enumerate(inputs)]
        y = layer(alone[0], alone[1][:, 2], alone[2])
        (g,) = torch.autograd.grad(y, alone[wanted], rand(*y.shape, seed=3))
    assert torch.equal(g, everything)


def test_the_first_map_of_a_batch_may_be_expanded(calls):
    layer, (_, w, last) = layer_of("plain"), inputs_of("plain", 3, 3)
    x = rand(1, 12, 6, 6).contiguous(memory_format=torch.channels_last)
    with frozen():
        y = layer(x.expand(3, -1, -1, -1), w[:, 2], last)
    assert calls
    torch.testing.assert_close(y, layer(x.repeat(3, 1, 1, 1), w[:, 2], last), rtol=1e-4, atol=1e-4)


def test_nothing_is_fused_where_weights_learn_or_kernels_are_off(calls, monkeypatch):
    layer, (x, w, last) = layer_of("plain"), inputs_of("plain", 1, 1)
    layer(x, w[:, 2], last)
    layer.bias.requires_grad_()
    with frozen():
        y = layer(x, w[:, 2], last)
        assert torch.autograd.grad(y.sum(), layer.bias)[0].abs().sum() > 0
    layer.requires_grad_(False)
    monkeypatch.setattr(dispatch, "_default", "reference")
    with frozen():
        layer(x, w[:, 2], last)
    assert not calls


@pytest.mark.parametrize("kind", ["plain", "rgb"])
def test_shapes_that_do_not_fit_are_refused_as_without_kernels(kind):
    layer, (x, w, last) = layer_of(kind), inputs_of(kind, 2, 2)
    with frozen():
        for wrong in (
            (x, w[:, 2, :4], last),
            (x[:, :5], w[:, 2], last),
            (x, w[:, 2], last[..., :3]),
            (x, w[:1, 2].expand(3, -1), last),
        ):
            with pytest.raises(RuntimeError):
                layer(*wrong)


def test_weights_that_change_between_two_inversions_are_seen():
    layer, (x, w, last) = layer_of("plain"), inputs_of("plain", 1, 1)
    with frozen():
        before = layer(x, w[:, 2], last)
    for parameter in layer.parameters():
        parameter.mul_(1.5)
    with frozen():
        after = layer(x, w[:, 2], last)
    near([after], [layer(x, w[:, 2], last)], 1e-5)
    assert not torch.allclose(before, after)


def test_a_whole_network_in_bfloat16_is_as_near_to_float64_as_operation_after_operation(calls):
    widths = {4: 16, 8: 16, 16: 12, 32: 8}
    torch.manual_seed(0)
    brief = network.StyleGAN2Generator(32, widths, 1, z_dim=16, num_mapping=2)
    for name, parameter in brief.named_parameters():
        if "noise_strength" in name or (name.startswith("blocks") and name.endswith("bias")):
            torch.nn.init.normal_(parameter, std=0.3)
    brief.requires_grad_(False)
    exact = copy.deepcopy(brief).double()
    brief.to(memory_format=torch.channels_last).map_dtype = torch.bfloat16
    drawn = [rand(4, *brief.w_shape), *(rand(4, *shape) for shape in brief.noise_shapes)]
    up = rand(4, 1, 32, 32, seed=5)

    def image_and_gradients(G, dtype=torch.float32):
        w, *noise = leaves = [t.to(dtype).requires_grad_() for t in drawn]
        image = G.image(G.run(w, tuple(noise)), w)
        return [image.detach(), *torch.autograd.grad((image * up.to(dtype)).sum(), leaves)]

    wanted = image_and_gradients(exact, torch.float64)

    def away():
        found = image_and_gradients(brief)
        return [float((a.double() - b).norm() / b.norm()) for a, b in zip(found, wanted)]

    plain = away()
    assert not calls
    with frozen():
        fused = away()
    assert len(calls) > 8 and max(fused) > 1e-4
    assert all(a <= 1.25 * b for a, b in zip(fused, plain)), (fused, plain)
