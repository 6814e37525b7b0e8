"""Operators of a user's own code and of physics, without deepinv: laws, and what is refused."""

import math
import sys
import types

import pytest
import torch
from torch import nn

from rtil.inverters.iagan import IAGAN
from rtil.inverters.lmmse import LMMSE
from rtil.operators import LinearOperator, build_operator
from rtil.operators.physics import named
from rtil.process import instantiate

SHAPE = (1, 6, 8)
own = types.ModuleType("own_physics")


class Rows(nn.Module):
    """A x = M x from the left, for drawn M: linear."""

    def __init__(self, rows, in_shape):
        super().__init__()
        self.register_buffer("matrix", torch.randn(rows, in_shape[1]))

    def forward(self, x):
        return self.matrix @ x


class Left(nn.Module):
    """Linear, with an M that `.double()` does not find; rows beyond the image are empty."""

    def __init__(self, seed):
        super().__init__()
        rng = torch.Generator().manual_seed(seed)
        self.matrix = [torch.cat([torch.randn(4, 6, generator=rng), torch.zeros(2, 6)])]

    def forward(self, x):
        return self.matrix[0] @ x


class Spectrum(nn.Module):
    """Complex measurements."""

    def forward(self, x):
        return torch.fft.rfft2(x)


class Clip(nn.Module):
    """Not linear; an image in [-1, 1]."""

    def forward(self, x):
        return (3 * x).clamp(-1, 1)


class Steps(nn.Module):
    def forward(self, x):
        return torch.where(x > 0, 1.0, 0.0)


class Drawn(nn.Module):
    def forward(self, x):
        return x * torch.rand_like(x)


class Mean(nn.Module):
    def forward(self, x):
        return x - x.mean(0, keepdim=True) / 2


class Masks(nn.Module):
    def forward(self, x):
        return x * (torch.arange(2).view(2, 1, 1, 1) + 1)


class Two(nn.Module):
    def forward(self, x):
        return [x, x]


class Unbounded(nn.Module):
    def forward(self, x):
        return x / 0


class Square(nn.Module):
    def forward(self, x):
        return x.view(len(x), 1, 8, 8)


class WrongHand(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        return x.flip(-1)

    @staticmethod
    def backward(ctx, gradient):
        return gradient


class ByHand(nn.Module):
    def forward(self, x):
        return WrongHand.apply(x)


class Needs(nn.Module):
    def __init__(self, width):
        super().__init__()


class Breaks(nn.Module):
    def __init__(self):
        raise OSError("no disk")


class Physics(nn.Module):
    """What deepinv's have that the bridge reads, of a module called as theirs are."""

    __module__ = "deepinv.physics.forward"

    def __init__(self, img_size, share=0.5, rng=None, square=False, noise_model=None, sensor=None):
        super().__init__()
        self.register_buffer("mask", (torch.rand(img_size, generator=rng) < share).float())
        self.square = square
        self.noise_model = noise_model or ZeroNoise()
        self.sensor_model = sensor or (lambda y: y)

    def A(self, u):
        return self.mask * (u.square() if self.square else u)


class MRI(Physics):
    """Takes a real and an imaginary part."""

    def A(self, u):
        real, imaginary = u.unbind(1)
        return torch.fft.fft2(torch.complex(real, imaginary)).abs().square()


class ZeroNoise:
    pass


class GaussianNoise:
    def __init__(self, sigma=0.1):
        self.sigma = torch.as_tensor(sigma)


class PoissonNoise:
    pass


def clipped():
    return lambda y: y.clamp(0, 1)


for thing in [*vars().values()]:
    if isinstance(thing, type) and (issubclass(thing, nn.Module) or "Noise" in thing.__name__):
        setattr(own, thing.__name__, thing)
own.clipped, own.number = clipped, lambda: 3


@pytest.fixture(autouse=True)
def named_by_the_user(monkeypatch):
    monkeypatch.setitem(sys.modules, "own_physics", own)
    names = {f"own_physics.{name}" for name in vars(own)}
    monkeypatch.setattr(instantiate, "_named", names)


def node(name, **settings):
    return {"_target_": f"own_physics.{name}", **settings}


def random_images(count=3):
    rng = torch.Generator().manual_seed(1)
    return 2 * torch.rand(count, *SHAPE, generator=rng, dtype=torch.float64) - 1


# What is measured


@pytest.mark.parametrize(
    "of", [node("Rows", rows=3), node("Left", seed=2), node("Spectrum"), node("Physics")]
)
def test_linear_code_has_the_adjoint_of_what_it_measures(of):
    A = named(SHAPE, of, seed=5).double()
    assert isinstance(A, LinearOperator)
    x = random_images()
    y = torch.randn(3, *A.out_shape, generator=torch.Generator().manual_seed(2)).double()
    gap = (A(x) * y).sum() - (x * A.adjoint(y)).sum()
    exact = 1e-12 if A.instrument.carries_double else 1e-6
    assert gap.abs() < exact * A(x).norm() * y.norm()
    assert A(x).dtype == torch.float64


def test_what_double_does_not_reach_stays_float32_and_is_still_solved():
    exact, narrow = named(SHAPE, node("Rows", rows=3)), named(SHAPE, node("Left", seed=2))
    assert exact.instrument.carries_double and not narrow.instrument.carries_double
    assert narrow.double().instrument.unit.dtype == torch.float32
    train = random_images(40).float()
    x = train[:2]
    estimate = (
        LMMSE(max_steps=60).fit(train).invert(None, narrow, narrow(x), lambda a, b: (a - b).sum())
    )
    torch.testing.assert_close(narrow(estimate.image), narrow(x), rtol=1e-4, atol=1e-4)


def test_code_that_is_not_linear_measures_as_it_does_and_has_no_adjoint():
    A = named(SHAPE, node("Clip"))
    x = random_images().float()
    assert torch.equal(A(x), (3 * x).clamp(-1, 1))
    assert A.measures_images and not hasattr(A, "adjoint")


def test_entries_that_no_pixel_enters_carry_no_information():
    A = named(SHAPE, node("Left", seed=2))
    assert A.num_measurements == 4 * 8
    masked = named(SHAPE, node("Physics", share=0.3), seed=1)
    assert masked.num_measurements == int(masked.instrument.physics.mask.sum())
    assert masked.measures_images


def test_the_seed_draws_what_is_random_and_torchs_own_numbers_stay_as_they_were():
    x = random_images().float()
    for of in (node("Rows", rows=3), node("Physics")):
        torch.manual_seed(7)
        state = torch.get_rng_state()
        first = named(SHAPE, of, seed=1)(x)
        assert torch.equal(state, torch.get_rng_state())
        torch.manual_seed(8)
        assert torch.equal(first, named(SHAPE, of, seed=1)(x))
        assert not torch.equal(first, named(SHAPE, of, seed=2)(x))


def test_complex_numbers_are_measured_as_real_and_imaginary_parts():
    A = named(SHAPE, node("Spectrum"))
    x = random_images().float()
    assert A.out_shape == (1, 6, 5, 2)
    assert torch.equal(torch.view_as_complex(A(x)), torch.fft.rfft2(x))


def test_an_operator_of_rtil_is_taken_as_it_is():
    A = named(SHAPE, {"_target_": "rtil.operators.blur.Blur", "blur_std": 0.6})
    assert type(A).__name__ == "Blur" and A.in_shape == SHAPE


# Physics: images in [0, 1]


@pytest.mark.parametrize("square", [False, True])
def test_measurements_of_a_physics_are_those_of_the_same_images_in_signed_range(square):
    A = named(SHAPE, node("Physics", square=square), seed=3)
    physics = A.instrument.physics
    x = random_images().float()
    y = physics.A((x + 1) / 2)
    white = torch.ones_like(y) if square else physics.A(torch.ones_like(y))
    torch.testing.assert_close(A(x), 2 * y - white)
    torch.testing.assert_close(A.instrument.signed(y), A(x))
    assert isinstance(A, LinearOperator) != square


def test_the_noise_of_a_physics_is_twice_as_strong_in_signed_range():
    noise = node("GaussianNoise", sigma=0.05)
    A = named(SHAPE, node("Physics", share=2.0, noise_model=noise), 0.05)
    physics, x = A.instrument.physics, random_images().float()
    disturbed = physics.A((x + 1) / 2) + 0.05
    torch.testing.assert_close(A.instrument.signed(disturbed) - A(x), torch.full_like(x, 0.1))


def test_grey_images_are_the_real_part_where_a_physics_takes_complex_ones():
    A = named(SHAPE, node("MRI"))
    x = random_images().float()
    want = torch.fft.fft2((x[:, 0] + 1) / 2).abs().square()
    torch.testing.assert_close(A(x), 2 * want - 1)
    assert A.measurement_image(A(x)).shape == (3, 1, 7, 7)


def test_a_physics_is_copied(monkeypatch):
    from rtil.operators.deepinv import physics_operator

    physics = Physics(SHAPE)
    physics_operator(physics, SHAPE).double()
    assert physics.mask.dtype == torch.float32


# What is refused


@pytest.mark.parametrize(
    ("of", "why"),
    [
        (node("Steps"), "Steps has no finite gradient"),
        (node("Drawn"), "Drawn draws random numbers each time"),
        (node("Mean"), "Mean measures an image otherwise in a batch than alone"),
        (node("Masks"), r"Masks measures \(2, 1, 6, 8\) of one image.*such as a mask"),
        (node("Two"), "Two does not measure.*measures a list; rtil inverts one tensor"),
        (node("Unbounded"), "Unbounded measures what is not finite"),
        (node("Square"), r"Square does not measure images of shape \(1, 6, 8\) in batches of 1"),
        (node("ByHand"), "ByHand has a gradient that is not that of what it measures"),
        (node("Needs"), r"cannot be built with \[\] .*missing 1 required.*'width'"),
        (node("Breaks"), "own_physics.Breaks cannot be built .OSError: no disk"),
        (node("Rows", rows=3, in_shape=[1, 9, 9]), r"for images of \[1, 9, 9\] and the generator"),
        (node("Physics", img_size=[1, 9, 9]), r"img_size is for images of \[1, 9, 9\]"),
        (node("number"), "builds 3; it must be a physics of deepinv, or a torch.nn.Module"),
        (node("Physics", noise_model=node("PoissonNoise")), "the noise model PoissonNoise"),
        (node("Physics", noise_model=node("GaussianNoise")), "sigma=0.1 and.*say noise_std=0.1"),
        (node("Physics", noise_model=node("GaussianNoise", sigma=[0.1, 0.2])), "one number"),
        (node("Physics", sensor=node("clipped")), "has a sensor_model, which acts after"),
        ({"_target_": "os.system"}, "'os.system' is not a class or function of .*task.physics"),
        ({"_target_": "rtil.operators.blur.Blur"}, "missing 1 required"),
    ],
)
def test_code_that_cannot_be_inverted_is_refused(of, why):
    with pytest.raises((ValueError, TypeError), match=why):
        named(SHAPE, of)


def test_a_physics_that_does_not_measure_the_generators_images_is_refused():
    with pytest.raises(ValueError, match=r"MRI does not measure images of shape \(3, 6, 8\)"):
        named((3, 6, 8), node("MRI"))


def test_without_deepinv_the_line_says_how_to_install_it(monkeypatch):
    monkeypatch.setattr("rtil.operators.physics.find_spec", lambda name: None)
    for of in (
        {"_target_": "deepinv.physics.Denoising"},
        node("Physics", noise_model={"_target_": "deepinv.physics.GaussianNoise"}),
    ):
        with pytest.raises(ValueError, match=r'needs deepinv: pip install "rtil\[deepinv\]"'):
            named(SHAPE, of)


def test_a_command_names_every_class_at_or_below_its_physics():
    inner = {"_target_": "a.B", "list": [{"_target_": "c.D"}, 3], "n": None}
    settings = {"model": {}, "task": {"physics": {"_target_": "e.F", "x": inner}}}
    assert instantiate.named_by(settings) == ["e.F", "a.B", "c.D"]
    assert instantiate.named_by({"model": {}}) == []


def test_noise_may_be_none_and_is_refused_where_it_is_no_number():
    task = {"name": "physics", "_target_": "rtil.operators.physics.named", "knob": "noise_std"}
    task |= {"range": [None, None], "linear": None, "measures": None, "physics": node("Clip")}
    assert build_operator(task, SHAPE, 0, noise_std=0.0).out_shape == SHAPE
    with pytest.raises(ValueError, match="noise_std=nan must be"):
        build_operator(task, SHAPE, 0, noise_std=math.nan)


def test_an_inverter_that_needs_an_adjoint_names_the_class_that_has_none():
    A = named(SHAPE, node("Clip"))
    for inverter in (LMMSE(), IAGAN(1, 1)):
        with pytest.raises(ValueError, match=r"(LMMSE|IAGAN): Clip is not linear"):
            inverter.check_operator(A)
