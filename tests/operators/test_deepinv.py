"""Physics of deepinv as operators: laws, the same measurements as ours, and what is refused."""

import pytest
import torch

from rtil.operators import Blur, Downsample, LinearOperator, Mask
from rtil.operators.physics import named
from rtil.process import instantiate

deepinv = pytest.importorskip("deepinv", reason='pip install "rtil[deepinv]"')
GREY, COLOUR = (1, 16, 16), (3, 16, 16)


def physics(name, **settings):
    return {"_target_": f"deepinv.physics.{name}", **settings}


GAUSS = {"_target_": "deepinv.physics.functional.blur.gaussian_blur", "sigma": [1.0, 1.0]}
COMPLEX = {"_target_": "hydra.utils.get_object", "path": "torch.complex64"}
LINEAR = {
    "inpainting": (GREY, physics("Inpainting", mask=0.3)),
    "blur": (GREY, physics("Blur", filter=GAUSS)),
    "blur reflect": (COLOUR, physics("Blur", filter=GAUSS, padding="reflect")),
    "blur fft": (GREY, physics("BlurFFT", filter=GAUSS)),
    "downsampling": (GREY, physics("Downsampling", filter="bicubic", factor=2)),
    "matlab": (COLOUR, physics("DownsamplingMatlab", factor=4)),
    "compressed sensing": (COLOUR, physics("CompressedSensing", m=40)),
    "complex sensing": (GREY, physics("CompressedSensing", m=40, dtype=COMPLEX)),
    "single pixel": (GREY, physics("SinglePixelCamera", m=40)),
    "tomography": (GREY, physics("Tomography", angles=10)),
    "mri": (GREY, physics("MRI")),
    "spectral imaging": (COLOUR, physics("CompressiveSpectralImaging")),
    "demosaicing": (COLOUR, physics("Demosaicing")),
    "decolorize": (COLOUR, physics("Decolorize")),
}
NONLINEAR = {
    "phase retrieval": (GREY, physics("RandomPhaseRetrieval", m=40)),
    "structured": (
        GREY,
        physics("StructuredRandomPhaseRetrieval", output_size=[1, 16, 16], n_layers=1),
    ),
    "unwrapping": (GREY, physics("SpatialUnwrapping", threshold=0.5)),
    "ptychography": (GREY, physics("Ptychography")),
}
EVERY = LINEAR | NONLINEAR


@pytest.fixture(autouse=True)
def named_by_the_user(monkeypatch):
    monkeypatch.setattr(instantiate, "_named", set())


def built(shape, node, noise_std=0.0, seed=3):
    instantiate.allow(instantiate._targets(node))
    return named(shape, node, noise_std, seed)


def images(shape, count=2):
    rng = torch.Generator().manual_seed(0)
    return 2 * torch.rand(count, *shape, generator=rng, dtype=torch.float64) - 1


# Laws


@pytest.mark.parametrize("name", EVERY)
def test_a_physics_measures_in_signed_range_what_it_measures_in_its_own(name):
    A = built(*EVERY[name])
    instrument, x = A.instrument, images(A.in_shape).float()
    y = instrument.physics.A(instrument.present((x + 1) / 2))
    torch.testing.assert_close(A(x), instrument.signed(y), rtol=1e-4, atol=1e-4)
    assert isinstance(A, LinearOperator) == (name in LINEAR)


@pytest.mark.parametrize("name", LINEAR)
def test_the_adjoint_is_exact_whatever_the_physics_own_is(name):
    A = built(*LINEAR[name]).double()
    x = images(A.in_shape)
    y = torch.randn(2, *A.out_shape, generator=torch.Generator().manual_seed(1)).double()
    gap = (A(x) * y).sum() - (x * A.adjoint(y)).sum()
    exact = 1e-12 if A.instrument.carries_double else 1e-6
    assert gap.abs() <= exact * A(x).norm() * y.norm()
    assert A.instrument.carries_double or name == "complex sensing"


@pytest.mark.parametrize("name", EVERY)
def test_the_seed_draws_a_physics(name):
    x = images(EVERY[name][0]).float()
    first = built(*EVERY[name])(x)
    torch.manual_seed(9)
    assert torch.equal(first, built(*EVERY[name])(x))
    drawn = ("inpainting", "compressed sensing", "phase retrieval", "structured")
    if name in drawn:
        assert not torch.equal(first, built(*EVERY[name], seed=4)(x))


def test_noise_of_a_physics_is_ours():
    sigma = physics("GaussianNoise", sigma=0.05)
    A = built(GREY, physics("Denoising", noise_model=sigma), 0.05)
    x = images(GREY, 64).float()
    torch.manual_seed(0)
    theirs = A.instrument.signed(
        deepinv.physics.Denoising(deepinv.physics.GaussianNoise(0.05))((x + 1) / 2)
    ) - A(x)
    rngs = [torch.Generator().manual_seed(n) for n in range(64)]
    ours = A.noisy(A(x), 0.05, rngs) - A(x)
    assert theirs.std().item() == pytest.approx(ours.std().item(), rel=0.03)


# The same measurements as ours


def test_inpainting_is_our_mask():
    A = built(GREY, physics("Inpainting", mask=0.4))
    mask = A.instrument.physics.mask[0, 0] > 0
    ours, x = Mask(GREY, mask), images(GREY).float()
    assert torch.equal(A(x), ours(x)) and A.num_measurements == ours.num_measurements
    assert torch.equal(A.adjoint(A(x)), ours.adjoint(ours(x)))


def test_blurring_with_mirrored_borders_is_ours():
    ours, x = Blur((1, 32, 32), 1.0).double(), images((1, 32, 32))
    line = ours.rows[16, 13:20]
    kernel = torch.outer(line, line).view(1, 1, 7, 7)
    theirs = deepinv.physics.Blur(filter=kernel, padding="reflect").double()
    # Our kernel is kept in float32.
    torch.testing.assert_close(theirs.A(x), ours(x), rtol=0, atol=1e-7)
    ring = deepinv.physics.Blur(filter=kernel, padding="circular").double()
    inside = (..., slice(3, -3), slice(3, -3))
    torch.testing.assert_close(ring.A(x)[inside], ours(x)[inside], rtol=0, atol=1e-7)


def test_downsampling_by_two_with_mirrored_borders_is_ours():
    x = images((1, 32, 32))
    size = {"img_size": (1, 32, 32), "filter": "bicubic", "factor": 2}
    theirs = deepinv.physics.Downsampling(**size, padding="reflect").double()
    ours = Downsample((1, 32, 32), 2).double()
    torch.testing.assert_close(theirs.A(x), ours(x), rtol=0, atol=1e-12)
    ring = deepinv.physics.Downsampling(**size).double()
    inside = (..., slice(2, -2), slice(2, -2))
    torch.testing.assert_close(ring.A(x)[inside], ours(x)[inside], rtol=0, atol=1e-12)


@pytest.mark.parametrize("factor", [2, 4, 8])
def test_the_inside_of_downsampling_as_matlab_does_it_is_ours(factor):
    x = images((1, 64, 64))
    theirs = deepinv.physics.DownsamplingMatlab(factor=factor).double()
    inside = (..., slice(2, -2), slice(2, -2))
    ours = Downsample((1, 64, 64), factor).double()
    torch.testing.assert_close(theirs.A(x)[inside], ours(x)[inside], rtol=0, atol=1e-12)


@pytest.mark.parametrize(("factor", "displaced"), [(4, 1), (8, 3)])
def test_downsampling_by_more_is_ours_of_a_displaced_image(factor, displaced):
    x = images((1, 64, 64))
    size = {"img_size": (1, 64, 64), "filter": "bicubic", "factor": factor}
    theirs = deepinv.physics.Downsampling(**size, padding="reflect").double().A(x)
    ours = Downsample((1, 64, 64), factor).double()
    inside = (..., slice(2, -2), slice(2, -2))
    moved = ours(x.roll((displaced, displaced), (2, 3)))
    torch.testing.assert_close(theirs[inside], moved[inside], rtol=0, atol=1e-8)
    assert (theirs - ours(x))[inside].abs().max() > 0.01


# What is refused


@pytest.mark.parametrize(
    ("shape", "of", "noise_std", "why"),
    [
        (GREY, physics("Denoising"), 0.0, "Gaussian noise of sigma=0.1.*say noise_std=0.1"),
        (GREY, physics("SinglePhotonLidar"), 0.0, "SinglePhotonLidar has the noise model"),
        (COLOUR, physics("Pansharpen"), 0.0, "measures a TensorList; rtil inverts one tensor"),
        (GREY, physics("Haze"), 0.0, "Haze does not measure images"),
        (COLOUR, physics("MRI"), 0.0, "MRI does not measure images of shape .3, 16, 16"),
        (GREY, physics("Inpainting", maks=0.3), 0.0, "'maks'.*are ignored"),
        (GREY, physics("Tomography", angles=4, img_width=20), 0.0, r"img_width is for .*\[20\]"),
        (
            GREY,
            physics("Tomography", angles=10, circle=True, adjoint_via_backprop=False),
            0.0,
            "Tomography has a gradient that is not that of what it measures",
        ),
        (
            GREY,
            physics("Inpainting", mask={"_target_": "torch.ones", "size": [2, 1, 16, 16]}),
            0.0,
            "Inpainting measures .2, 1, 16, 16. of one image",
        ),
        (
            GREY,
            physics("Inpainting", mask={"_target_": "torch.ones", "size": [1, 20, 20]}),
            0.0,
            "Inpainting does not measure images of shape .1, 16, 16",
        ),
        (
            GREY,
            physics("CompressedSensing", m=9, dtype=COMPLEX, noise_model=physics("GaussianNoise")),
            0.1,
            "has a noise model and complex measurements",
        ),
    ],
)
def test_a_physics_that_cannot_be_inverted_is_refused(shape, of, noise_std, why):
    with pytest.raises(ValueError, match=why):
        built(shape, of, noise_std)
