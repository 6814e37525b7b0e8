"""The custom operators: derivatives, compilation, autocast, layouts and messages, on the CPU."""

import pytest
import torch
from torch.autograd import gradcheck, gradgradcheck
from torch.library import opcheck

from rtil import kernels
from rtil.kernels import bias_act as ba
from rtil.kernels import dispatch
from rtil.kernels import upfirdn2d as ufd
from rtil.kernels.bias_act import bias_act
from rtil.kernels.upfirdn2d import fir, upfirdn2d
from rtil.models.stylegan2 import StyleGAN2Discriminator, StyleGAN2Generator

ACTS = [(0.2, 1.4, -1.0), (0.2, 1.4, 0.9), (1.0, 1.0, -1.0), (1.0, 0.7, 0.5), (0.0, 1.0, -1.0)]
FILTERS = [  # shape of f, up, down, padding, flip
    ((4,), (1, 1), (1, 1), (2, 1, 2, 1), False),
    ((4,), (2, 2), (1, 1), (2, 1, 2, 1), False),
    ((4,), (1, 1), (2, 2), (1, 1, 1, 1), True),
    ((3, 5), (2, 3), (3, 2), (-1, 4, 5, 2), False),
    ((5, 2), (1, 2), (2, 1), (4, -1, -2, 3), True),
]


@pytest.fixture
def through_ops(monkeypatch):
    """Sends CPU tensors through the custom operators, as CUDA tensors go."""
    monkeypatch.setattr(dispatch, "kernels_serve", lambda *a: True)


@pytest.fixture(autouse=True)
def default_impl(monkeypatch):
    monkeypatch.setattr(dispatch, "_default", "auto")


def draw(*shape, seed=0, dtype=torch.float64, grad=True):
    rng = torch.Generator().manual_seed(seed)
    return torch.randn(shape, generator=rng, dtype=dtype).requires_grad_(grad)


def last(x):
    return x.detach().contiguous(memory_format=torch.channels_last).requires_grad_(x.requires_grad)


@pytest.mark.parametrize(
    ("shape", "dim", "act"),
    [
        *(((2, 3, 4), -1, act) for act in ACTS),
        *(((4,), 0, act) for act in ACTS),
        ((3, 4, 2, 3), 1, ACTS[1]),
        *(
            pytest.param((3, 4, 2, 3), 1, act, marks=pytest.mark.slow)
            for act in (ACTS[0], *ACTS[2:])
        ),
    ],
)
def test_bias_act_op_differentiates_twice_and_is_its_reference(shape, dim, act):
    x, b = draw(*shape), draw(shape[dim], seed=1)
    slope, gain, clamp = act

    def call(x, b):
        return torch.ops.rtil.bias_act(x, b, slope, gain, dim, clamp)

    def plain(x, b):
        return ba.reference(x, b, slope, gain, dim, None if clamp < 0 else clamp)

    assert gradcheck(call, (x, b)) and gradgradcheck(call, (x, b))
    assert gradcheck(plain, (x, b)) and gradgradcheck(plain, (x, b))
    assert torch.equal(call(x, b), plain(x, b))
    assert gradgradcheck(lambda x: torch.ops.rtil.bias_act(x, None, slope, gain, dim, clamp), (x,))


@pytest.mark.parametrize(("taps", "up", "down", "padding", "flip"), FILTERS)
@pytest.mark.parametrize("channels_last", [False, True])
def test_upfirdn2d_op_differentiates_twice(taps, up, down, padding, flip, channels_last):
    x = draw(1, 2, 3, 4)
    x, f = last(x) if channels_last else x, draw(*taps, seed=1, grad=False)

    def call(x):
        return torch.ops.rtil.upfirdn2d(x, f, up, down, padding, 1.3, flip)

    # Linear in x: random directions say as much as all of them.
    assert gradcheck(call, (x,), fast_mode=True) and gradgradcheck(call, (x,), fast_mode=True)
    y = call(x)
    assert y.is_contiguous(memory_format=torch.channels_last) == channels_last
    # <A x, y> = <x, A^T y>
    dy = torch.randn(y.shape, dtype=y.dtype)
    (dx,) = torch.autograd.grad(y, x, dy)
    torch.testing.assert_close((y * dy).sum(), (x * dx).sum())


@pytest.mark.parametrize(("taps", "up", "down", "padding", "flip"), FILTERS)
def test_reference_differentiates_twice_by_image_and_filter(taps, up, down, padding, flip):
    x, f = draw(1, 1, 3, 4), draw(*taps, seed=1)
    axes = ufd.Axes(up, down, padding)

    def call(x, f):
        return ufd.reference(x, f, axes, 1.3, flip)

    assert gradcheck(call, (x, f), fast_mode=True)
    assert gradgradcheck(call, (x, f), fast_mode=True)


@pytest.mark.parametrize("layout", [pytest.param("first", marks=pytest.mark.slow), "last"])
@pytest.mark.parametrize(
    "dtype", [pytest.param(torch.float32, marks=pytest.mark.slow), torch.float64]
)
def test_operators_pass_opcheck(dtype, layout):
    x, b, y = draw(2, 3, 4, 4, dtype=dtype), draw(3, seed=1, dtype=dtype), draw(2, 3, 4, 4, seed=2)
    y = y.detach().to(dtype)
    if layout == "last":
        x = last(x)
    opcheck(torch.ops.rtil.bias_act.default, (x, b, 0.2, 1.4, 1, 0.8))
    opcheck(torch.ops.rtil.bias_act.default, (x, None, 1.0, 1.0, 1, -1.0))
    opcheck(torch.ops.rtil.bias_act_grad.default, (x, y, 0.2, 1.4, 1, 0.8, True))
    opcheck(torch.ops.rtil.bias_act_grad.default, (x, y, 0.2, 1.4, 1, -1.0, False))
    opcheck(torch.ops.rtil.bias_act_grad_grad.default, (x, b, y, 0.2, 1.4, 1, 0.8))
    for taps, up, down, padding, flip in FILTERS[:4]:
        f = draw(*taps, grad=False, dtype=dtype)
        opcheck(torch.ops.rtil.upfirdn2d.default, (x, f, up, down, padding, 1.3, flip))


def test_second_gradient_reaches_every_input_alone():
    """R1 asks for the image's alone, a bias penalty for the bias's alone."""
    x, b = draw(2, 3, 4), draw(3, seed=1)
    for call in (
        lambda x, b: torch.ops.rtil.bias_act(x, b, 0.2, 1.4, 1, -1.0),
        lambda x, b: ba.reference(x, b, 0.2, 1.4, 1, None),
    ):
        grads = []
        for leaf in (x, b):
            (g,) = torch.autograd.grad(call(x, b).pow(3).sum(), leaf, create_graph=True)
            grads += torch.autograd.grad(g.square().sum(), (x, b))
        if call.__code__.co_names[0] == "torch":
            first = grads
    for ours, theirs in zip(first, grads):
        torch.testing.assert_close(ours, theirs)


@pytest.mark.parametrize("backend", ["eager", "aot_eager"])
@pytest.mark.parametrize("path", ["reference", "ops"])
def test_torch_compile_has_no_graph_break(backend, path, request):
    if path == "ops":
        request.getfixturevalue("through_ops")

    def block(x, b, f):
        y = upfirdn2d(x, f, up=2, padding=((2, 1), (2, 1)), gain=4.0)
        y = bias_act(y, b, clamp=1.5)
        return upfirdn2d(y, f, down=2, padding=(1, 1))

    torch._dynamo.reset()
    x, b, f = draw(2, 3, 6, 6), draw(3, seed=1), fir().double()
    compiled = torch.compile(block, fullgraph=True, backend=backend)
    expected, y = block(x, b, f), compiled(x, b, f)
    torch.testing.assert_close(y, expected)
    ours = torch.autograd.grad(y.square().sum(), (x, b))
    for a, e in zip(ours, torch.autograd.grad(expected.square().sum(), (x, b))):
        torch.testing.assert_close(a, e)


def test_choice_of_implementation_is_a_constant_of_a_compiled_graph(monkeypatch):
    """The question may read files and run compilers; tracing must not enter it."""
    monkeypatch.setattr(dispatch, "_libraries", {0: RuntimeError("no compiler here")})
    monkeypatch.setattr(dispatch, "_warned", True)
    torch._dynamo.reset()

    def choose(x):
        return x + 1 if dispatch.kernels_serve(None, "cuda", 0, "bias_act") else x - 1

    compiled = torch.compile(choose, fullgraph=True, backend="eager")
    assert torch.equal(compiled(torch.zeros(2)), -torch.ones(2))


@pytest.mark.parametrize("path", ["reference", "ops"])
def test_empty_batches_go_through(path, request):
    if path == "ops":
        request.getfixturevalue("through_ops")
    x, b = draw(0, 3, 4, 4), draw(3, seed=1)
    y = bias_act(upfirdn2d(x, fir().double(), up=2, padding=(2, 1)), b, clamp=1.0)
    assert y.shape == (0, 3, 8, 8)
    dx, db = torch.autograd.grad(y.sum(), (x, b))
    assert dx.shape == x.shape and torch.equal(db, torch.zeros(3, dtype=db.dtype))


@pytest.mark.parametrize("path", ["reference", "ops"])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
def test_autocast_keeps_the_images_dtype_and_casts_the_bias(path, dtype, request):
    if path == "ops":
        request.getfixturevalue("through_ops")
    x, b = draw(2, 3, 4, 4, dtype=dtype), draw(3, seed=1, dtype=torch.float32)
    with torch.autocast("cpu", torch.bfloat16):
        y = bias_act(upfirdn2d(x, fir(), padding=(2, 1)), b)
    assert y.dtype == dtype
    y.float().sum().backward()
    assert x.grad.dtype == dtype and b.grad.dtype == torch.float32


@pytest.mark.parametrize("kind", ["generator", "discriminator"])
def test_stylegan2_is_the_same_function_through_the_operators(kind, monkeypatch):
    """Value, gradient and gradient of the gradient's norm, as the penalties of training take."""
    torch.manual_seed(0)
    channels, calls = {4: 4, 8: 3, 16: 2}, []
    if kind == "generator":
        network = StyleGAN2Generator(16, channels, z_dim=6, num_mapping=2).double()
        given = draw(2, 6)
        run = lambda z: network.image(network.run(network.map(z)), network.map(z))  # noqa: E731
    else:
        network, given = StyleGAN2Discriminator(16, channels).double(), draw(4, 3, 16, 16)
        run = network

    def all_of():
        y = run(given)
        (g,) = torch.autograd.grad(y.square().sum(), given, create_graph=True)
        second = torch.autograd.grad(
            g.square().sum(), list(network.parameters()), allow_unused=True
        )
        return [y, g, *(s for s in second if s is not None)]

    plain = all_of()
    monkeypatch.setattr(dispatch, "kernels_serve", lambda impl, *a: calls.append(a[-1]) or True)
    for ours, theirs in zip(all_of(), plain):
        torch.testing.assert_close(ours, theirs)
    assert set(calls) == {"bias_act", "upfirdn2d"}


@pytest.mark.parametrize("f", [(4,), (3, 5)])
def test_each_axis_takes_its_own_settings(f):
    x, f = draw(1, 2, 5, 6, grad=False), draw(*f, seed=1, grad=False)
    y = upfirdn2d(x, f, up=(2, 3), down=(3, 1), padding=((4, 1), (0, -1)), flip=True)
    turned = upfirdn2d(
        x.mT,
        f.mT if f.ndim == 2 else f,
        up=(3, 2),
        down=(1, 3),
        padding=((0, -1), (4, 1)),
        flip=True,
    )
    torch.testing.assert_close(y, turned.mT)
    flipped = f.flip(0) if f.ndim == 1 else f.flip((0, 1))
    torch.testing.assert_close(y, upfirdn2d(x, flipped, (2, 3), (3, 1), ((4, 1), (0, -1))))


def test_bad_input_is_named_with_its_shapes():
    x, f = torch.zeros(1, 3, 4, 4), fir()
    with pytest.raises(TypeError, match=r"bias of shape \(3,\) is torch.float64, x of shape"):
        bias_act(x, torch.zeros(3, dtype=torch.float64))
    with pytest.raises(TypeError, match=r"x of shape \(2, 3\) is torch.int64"):
        bias_act(torch.zeros(2, 3, dtype=torch.int64))
    with pytest.raises(ValueError, match=r"\(4,\) does not fit dimension 7 of x with shape"):
        bias_act(x, torch.zeros(4), dim=7)
    for bad in ({"slope": -0.1}, {"gain": 0.0}, {"clamp": 0.0}):
        with pytest.raises(ValueError, match=r"slope >= 0, gain > 0 and clamp > 0"):
            bias_act(x, **bad)
    with pytest.raises(TypeError, match=r"f of shape \(4,\) is torch.int64"):
        upfirdn2d(x, f.long())
    with pytest.raises(ValueError, match=r"\(1, 3, 4, 4\).* leaves -?\d+ x -?\d+ pixels"):
        upfirdn2d(x, torch.ones(9, 9))
    with pytest.raises(ValueError, match=r"up=0 must be a positive integer or a \(y, x\) pair"):
        upfirdn2d(x, f, up=0)
    with pytest.raises(ValueError, match=r"padding=\(1, 2, 3, 4\) must be"):
        upfirdn2d(x, f, padding=(1, 2, 3, 4))
    with pytest.raises(ValueError, match="impl='fast' must be one of"):
        upfirdn2d(x, f, impl="fast")


def test_impl_cuda_refuses_a_learnt_filter(through_ops):
    x, f = torch.zeros(1, 3, 4, 4), fir().requires_grad_()
    words = r"f of shape \(4,\) needs a gradient, which impl='cuda'"
    with pytest.raises(ValueError, match=words):
        upfirdn2d(x, f, impl="cuda")
    kernels.set_impl("cuda")  # put back by the fixture
    with pytest.raises(ValueError, match=words):
        upfirdn2d(x, f)


def test_impl_cuda_refuses_cpu_tensors():
    x, f = torch.zeros(1, 3, 4, 4), fir()
    for call in (lambda: bias_act(x, impl="cuda"), lambda: upfirdn2d(x, f, impl="cuda")):
        with pytest.raises(ValueError, match="impl='cuda' needs CUDA tensors"):
            call()
    kernels.set_impl("cuda")  # put back by the fixture
    with pytest.raises(ValueError, match="impl='cuda' needs CUDA tensors"):
        bias_act(x)


def test_kernels_refuse_what_they_cannot_count_and_dtypes_they_lack():
    x = torch.empty(1, 1, 1, 1).expand(1, 1, 2**30, 4)
    out = torch.empty(1).expand(1, 1, 2**31, 4)
    axes = ufd.Axes((2, 1), (1, 1), (2, 1, 0, 0))
    with pytest.raises(ValueError, match=r"\(1, 1, 1073741824, 4\).* beyond 2147483647"):
        ufd.launch_sizes(x, fir(), out, axes, False, False)
    with pytest.raises(TypeError, match=r"bias_act: no kernel for torch.complex64 \(shape \(2,\)"):
        dispatch.launch("bias_act", torch.zeros(2, dtype=torch.complex64))
