"""Convolution and its two adjoints against torch's, in value and gradients up to the third."""

import pytest
import torch
import torch.nn.functional as F
from torch.autograd import gradcheck, gradgradcheck

from rtil.kernels.conv2d import conv2d, conv_transpose2d


def rand(*shape, seed=0):
    rng = torch.Generator().manual_seed(seed)
    return torch.randn(shape, generator=rng, dtype=torch.float64).requires_grad_()


CASES = [
    (1, 1, 3, 5, 6),
    (2, 0, 3, 7, 8),
    (2, 0, 1, 6, 5),
    (2, 1, 4, 9, 8),
    (1, 0, 4, 4, 4),
    (3, 2, 2, 8, 7),
]


@pytest.mark.parametrize(("stride", "padding", "kernel", "height", "width"), CASES)
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_conv2d_is_torchs_in_value_and_gradients_up_to_the_third(
    stride, padding, kernel, height, width, layout
):
    inputs = [rand(2, 3, height, width), rand(4, 3, kernel, kernel, seed=1), rand(4, seed=2)]

    def deep(function):
        """A value that holds second gradients, and its gradients: the third."""
        x, w, b = (
            t.detach()
            .contiguous(memory_format=layout if t.ndim == 4 else torch.contiguous_format)
            .requires_grad_()
            for t in inputs
        )
        y = function(x, w, b, stride, padding)
        first = torch.autograd.grad(y.pow(3).sum(), (x, w, b), create_graph=True)
        second = torch.autograd.grad(
            sum(g.pow(2).sum() for g in first), (x, w, b), create_graph=True
        )
        third = torch.autograd.grad(sum(g.pow(2).sum() for g in second), (x, w, b))
        return [y, *first, *second, *third]

    for ours, theirs in zip(deep(conv2d), deep(F.conv2d)):
        torch.testing.assert_close(ours, theirs, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("stride", [1, 2])
def test_conv_transpose2d_is_torchs_and_differentiates_twice(stride):
    x, w = rand(2, 3, 4, 5), rand(3, 2, 3, 3, seed=1)
    torch.testing.assert_close(
        conv_transpose2d(x, w, stride), F.conv_transpose2d(x, w, stride=stride)
    )
    assert gradcheck(lambda x, w: conv_transpose2d(x, w, stride), (x, w))
    assert gradgradcheck(lambda x, w: conv_transpose2d(x, w, stride), (x, w))


def test_gradients_are_computed_only_where_asked():
    x, w = rand(1, 2, 4, 4), rand(3, 2, 3, 3, seed=1)
    y = conv2d(x, w.detach(), padding=1)
    (dx,) = torch.autograd.grad(y.sum(), x, create_graph=True)
    assert not dx.requires_grad  # linear in x, and w is constant
    with torch.no_grad():
        torch.testing.assert_close(conv2d(x, w, padding=1), F.conv2d(x, w, padding=1))
