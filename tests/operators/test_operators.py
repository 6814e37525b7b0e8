"""Laws of every forward operator, the authors' outputs, and the messages for bad input."""

from pathlib import Path

import numpy as np
import pytest
import torch
from omegaconf import OmegaConf

from rtil.operators import (
    Blur,
    Circulant,
    Dense,
    Downsample,
    Identity,
    LinearOperator,
    Mask,
    PhaseRetrieval,
    build_operator,
    inpainting,
    partial_circulant,
)

CONFIGS = Path(__file__).parents[2] / "configs" / "task"
GOLDEN = Path(__file__).parents[1] / "golden" / "operators.npz"

# Shapes and settings beside those of configs/task, of which each inherits every law below. All
# take the seed.
FACTORIES = {
    "circulant 3x16x24": lambda seed: partial_circulant((3, 16, 24), 0.3, seed),
    "circulant 1x7x9": lambda seed: partial_circulant((1, 7, 9), 0.5, seed),
    "circulant 3x8x8 full": lambda seed: partial_circulant((3, 8, 8), 1.0, seed),
    "circulant published": lambda seed: partial_circulant((3, 8, 8), 0.2, seed, scale="published"),
    "circulant one": lambda seed: partial_circulant((1, 8, 8), 1e-6, seed),
    "inpainting 3x16x24": lambda seed: inpainting((3, 16, 24), 0.3, seed),
    "inpainting 1x7x9": lambda seed: inpainting((1, 7, 9), 0.9, seed),
    "downsample 3x16x24 by 2": lambda seed: Downsample((3, 16, 24), 2),
    "downsample 1x12x9 by 3": lambda seed: Downsample((1, 12, 9), 3),
    "downsample 3x32x64 by 16": lambda seed: Downsample((3, 32, 64), 16),
    "downsample 1x8x16 by 8": lambda seed: Downsample((1, 8, 16), 8),
    "downsample 2x5x5 by 5": lambda seed: Downsample((2, 5, 5), 5),
    "dense 3x4x5": lambda seed: Dense((3, 4, 5), random_tensor((7, 60), seed).float()),
    "identity 3x7x4": lambda seed: Identity((3, 7, 4)),
    "blur 3x16x24": lambda seed: Blur((3, 16, 24), 1.5),
    "blur 1x7x9 whole": lambda seed: Blur((1, 7, 9), 0.8, 7),
}
NONLINEAR_FACTORIES = {
    "phase 3x8x8": lambda seed: PhaseRetrieval((3, 8, 8), 0.3, seed),
    "phase 1x7x9 once": lambda seed: PhaseRetrieval((1, 7, 9), 1.0, seed),
    "phase 1x6x7 oversampled": lambda seed: PhaseRetrieval((1, 6, 7), 2.6, seed),
}


def task_config(name):
    return OmegaConf.to_container(OmegaConf.load(CONFIGS / f"{name}.yaml"), resolve=True)


def of_task(name):
    config = task_config(name)
    task, knob = config["task"], config["task"]["knob"]
    return lambda seed: build_operator(task, (3, 16, 32), seed, **{knob: config[knob]})


TASKS = sorted(path.stem for path in CONFIGS.glob("*.yaml"))
for task in TASKS:
    linear = task_config(task)["task"]["linear"] is not False
    (FACTORIES if linear else NONLINEAR_FACTORIES)[f"task={task}"] = of_task(task)
EVERY = FACTORIES | NONLINEAR_FACTORIES


@pytest.fixture(params=EVERY)
def factory(request):
    return EVERY[request.param]


@pytest.fixture(params=FACTORIES)
def linear_factory(request):
    return FACTORIES[request.param]


def random_tensor(shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def golden_input():
    return np.random.default_rng(12).uniform(size=(2, 3, 32, 32)).astype("float32")


def test_adjoint_satisfies_the_dot_identity(linear_factory):
    operator = linear_factory(1).double()
    x = random_tensor((4, *operator.in_shape), 1)
    y = random_tensor((4, *operator.out_shape), 2)
    left = (operator(x) * y).flatten(1).sum(1)
    right = (x * operator.adjoint(y)).flatten(1).sum(1)
    scale = operator(x).flatten(1).norm(dim=1) * y.flatten(1).norm(dim=1)
    assert ((left - right).abs() <= 1e-13 * scale).all()


def test_adjoint_is_the_transposed_jacobian(linear_factory):
    operator = linear_factory(1).double()
    x = random_tensor((1, *operator.in_shape), 1).requires_grad_()
    y = random_tensor((1, *operator.out_shape), 2)
    (gradient,) = torch.autograd.grad(operator(x), x, y)
    torch.testing.assert_close(gradient, operator.adjoint(y), rtol=1e-11, atol=1e-12)


def test_forward_is_linear_where_it_is_said_to_be(factory):
    operator = factory(1).double()
    u, v = random_tensor((2, 3, *operator.in_shape), 1)
    off = operator(2.5 * u - v) - (2.5 * operator(u) - operator(v))
    assert (off.abs().max() < 1e-11) == isinstance(operator, LinearOperator)


@pytest.mark.parametrize("name", NONLINEAR_FACTORIES)
def test_an_operator_that_is_not_linear_has_no_adjoint(name):
    assert not hasattr(NONLINEAR_FACTORIES[name](1), "adjoint")


def test_batch_equals_one_at_a_time(factory):
    operator = factory(1).double()
    x = random_tensor((5, *operator.in_shape), 1)
    y = random_tensor((5, *operator.out_shape), 2)
    singles = torch.cat([operator(image[None]) for image in x])
    torch.testing.assert_close(operator(x), singles, rtol=1e-12, atol=1e-12)
    methods = [operator.measurement_image]
    if isinstance(operator, LinearOperator):
        methods.append(operator.adjoint)
    for method in methods:
        singles = torch.cat([method(measured[None]) for measured in y])
        torch.testing.assert_close(method(y), singles, rtol=1e-12, atol=1e-12)


def test_declared_shapes_hold_and_num_measurements_counts_information(factory):
    operator = factory(1)
    y = operator(torch.ones(2, *operator.in_shape))
    assert y.shape == (2, *operator.out_shape)
    if isinstance(operator, LinearOperator):
        assert operator.adjoint(y).shape == (2, *operator.in_shape)
    # An entry carries information where some image makes it non-zero.
    images = random_tensor((8, *operator.in_shape), 3)
    assert operator.num_measurements == int((operator.double()(images) != 0).any(0).sum())


def test_state_dict_restores_the_operator(factory):
    original, other = factory(1), factory(2)
    x = torch.randn(2, *original.in_shape, generator=torch.Generator().manual_seed(0))
    other.load_state_dict(original.state_dict())
    assert torch.equal(original(x), other(x))
    assert original.num_measurements == other.num_measurements


def test_the_whole_operator_moves_to_another_device(factory):
    """The meta device computes shapes only, and refuses tensors left behind on the CPU."""
    operator = factory(1).to("meta")
    y = operator(torch.zeros(2, *operator.in_shape, device="meta"))
    assert y.is_meta and operator.measurement_image(y).is_meta
    if isinstance(operator, LinearOperator):
        assert operator.adjoint(y).is_meta


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_gpu_equals_cpu(factory):
    operator = factory(1).double()
    x = random_tensor((2, *operator.in_shape), 1)
    y = operator.noisy(operator(x), 0.1, rngs(1, 2))
    back = operator.measurement_image(y)
    operator.cuda()
    y_gpu = operator.noisy(operator(x.cuda()), 0.1, rngs(1, 2))
    torch.testing.assert_close(y_gpu.cpu(), y, rtol=1e-10, atol=1e-10)
    back_gpu = operator.measurement_image(y_gpu)
    torch.testing.assert_close(back_gpu.cpu(), back, rtol=1e-10, atol=1e-10)


def test_same_seed_same_operator(factory):
    x = torch.randn(2, *factory(1).in_shape, generator=torch.Generator().manual_seed(0))
    first = factory(7)(x)
    torch.manual_seed(1)
    assert torch.equal(first, factory(7)(x))


@pytest.mark.parametrize("name", [name for name in FACTORIES if name.startswith("circulant")])
def test_double_circulant_is_the_dense_matrix_of_its_buffers(name):
    """Exact to float64 rounding, so no float32 spectrum survives `.double()`."""
    operator = FACTORIES[name](1).double()
    x = random_tensor((1, *operator.in_shape), 1)
    n = x.numel()
    shifts = (operator.indices[:, None] - torch.arange(n)) % n
    expected = (operator.filter[shifts] * operator.signs) @ x.flatten()
    scale = expected.abs().max().item()
    torch.testing.assert_close(operator(x)[0], expected, rtol=0, atol=1e-13 * scale)


@pytest.mark.parametrize("ratio", [0.1, 0.5])
def test_unit_circulant_keeps_m_over_n_of_the_energy(ratio):
    x = random_tensor((1, 3, 8, 8), 1)
    operators = [partial_circulant((3, 8, 8), ratio, seed).double() for seed in range(400)]
    energies = torch.stack([operator(x).square().sum() for operator in operators])
    energies = energies / x.square().sum()
    expected = operators[0].num_measurements / x.numel()
    # Standard error of the mean over 400 draws; 4 of them.
    assert abs(energies.mean() - expected) < 4 * energies.std() / 20
    assert energies.std() / 20 < 0.03 * expected


def test_published_circulant_is_the_unit_one_times_root_n():
    x = random_tensor((2, 3, 8, 8)).float()
    unit = partial_circulant((3, 8, 8), 0.4, 3)
    published = partial_circulant((3, 8, 8), 0.4, 3, scale="published")
    torch.testing.assert_close(published(x), unit(x) * 192**0.5, rtol=1e-5, atol=1e-4)


@pytest.mark.parametrize("kind", [partial_circulant, inpainting])
def test_smaller_ratio_measures_a_subset(kind):
    x = random_tensor((1, 3, 16, 16)).float()
    small, large = kind((3, 16, 16), 0.2, 5), kind((3, 16, 16), 0.6, 5)
    if kind is partial_circulant:
        assert set(small.indices.tolist()) < set(large.indices.tolist())
        assert torch.equal(small(x), large(x)[:, torch.isin(large.indices, small.indices)])
    else:
        assert torch.equal(small(x), small(large(x)))


def test_partial_circulant_matches_the_authors():
    golden = np.load(GOLDEN)
    filter = np.random.default_rng(13).standard_normal((1, 3072)).astype("float32")
    signs = np.random.default_rng(14).choice([-1.0, 1.0], 3072).astype("float32")
    operator = Circulant(
        (3, 32, 32),
        torch.from_numpy(filter[0]),
        torch.from_numpy(signs),
        torch.from_numpy(golden["partial_circulant_indices"]),
    )
    expected = golden["partial_circulant_y"]
    x = torch.from_numpy(golden_input())
    scale = np.abs(expected).max()
    assert np.abs(operator(x).numpy() - expected).max() < 1e-6 * scale
    assert np.abs(operator.double()(x.double()).numpy() - expected).max() < 1e-7 * scale


@pytest.mark.parametrize("factor", [2, 4, 8])
def test_bicubic_matches_the_authors(factor):
    y = Downsample((3, 32, 32), factor)(torch.from_numpy(golden_input()))
    assert np.abs(y.numpy() - np.load(GOLDEN)[f"bicubic_down{factor}"]).max() < 1e-6


def test_downsample_is_the_padded_convolution_it_stands_for():
    """Kernel on 4 factor samples, reflection padding and stride, where a pad fits the image."""
    x = random_tensor((1, 1, 24, 24))
    t = (torch.arange(16, dtype=torch.float64) - 7.5).abs() / 4
    kernel = torch.where(t < 1, 1.5 * t**3 - 2.5 * t**2 + 1, -0.5 * t**3 + 2.5 * t**2 - 4 * t + 2)
    kernel = torch.outer(kernel, kernel) / kernel.sum() ** 2
    padded = torch.nn.functional.pad(x, (6, 6, 6, 6), mode="reflect")
    expected = torch.nn.functional.conv2d(padded, kernel[None, None], stride=4)
    y = Downsample((1, 24, 24), 4).double()(x)
    torch.testing.assert_close(y, expected, rtol=0, atol=1e-14)


@pytest.mark.parametrize("factor", range(2, 17))
@pytest.mark.parametrize("multiple", [1, 2, 5])
def test_downsample_keeps_constants(factor, multiple):
    """Also where the padding is longer than the image and reflects again and again."""
    operator = Downsample((1, factor * multiple, factor), factor)
    y = operator(torch.full((1, *operator.in_shape), 0.7))
    torch.testing.assert_close(y, torch.full_like(y, 0.7), rtol=0, atol=1e-6)


@pytest.mark.parametrize("factor", [2, 4, 8, 16])
def test_power_of_two_weights_are_exact_in_float32(factor):
    rows = Downsample((1, 2 * factor, factor), factor).rows.double()
    assert torch.equal(rows.sum(1), torch.ones(2, dtype=torch.float64))


@pytest.mark.parametrize("ratio", [1e-9, 0.01, 0.37, 0.5, 1.0])
@pytest.mark.parametrize("channels", [1, 3])
def test_inpainting_observes_exactly_the_asked_pixels_in_every_channel(ratio, channels):
    operator = inpainting((channels, 20, 15), ratio, seed=4)
    y = operator(torch.ones(1, channels, 20, 15))
    pixels = max(1, round(ratio * 300))
    assert set(y.unique().tolist()) <= {0.0, 1.0}
    assert y.sum(dim=(0, 2, 3)).tolist() == [pixels] * channels
    assert torch.equal(y.amin(1), y.amax(1))
    assert operator.num_measurements == pixels * channels


@pytest.mark.parametrize("ratio", [0.4, 1.0, 1.5, 3.0])
def test_phase_retrieval_is_the_modulus_of_stacked_compressed_sensing(ratio):
    shape, n = (1, 4, 5), 20
    operator = PhaseRetrieval(shape, ratio, 3).double()
    matrix = torch.cat(
        [
            partial_circulant(shape, min(1.0, ratio - l), (3, l) if l else 3)
            .double()(torch.eye(n, dtype=torch.float64).view(n, *shape))
            .T
            for l in range(3)
            if ratio > l
        ]
    )
    assert matrix.shape == (round(ratio * n), n) == (operator.num_measurements, n)
    x = random_tensor((3, *shape), 1)
    torch.testing.assert_close(operator(x), (x.flatten(1) @ matrix.T).abs())
    assert torch.linalg.matrix_rank(matrix) == min(matrix.shape)
    # The blocks are not copies of each other.
    assert len(matrix.unique(dim=0)) == len(matrix)


def test_phase_retrieval_cannot_tell_x_from_its_negative_and_little_else():
    operator = PhaseRetrieval((1, 4, 5), 3.0, 0).double()
    x, other = random_tensor((2, 1, 1, 4, 5), 1)
    assert torch.equal(operator(x), operator(-x))
    assert (operator(x) - operator(other)).norm() > 0.1 * operator(x).norm()


def test_smaller_ratio_of_phase_retrieval_measures_a_subset():
    x = random_tensor((1, 1, 4, 5))
    small, large = (PhaseRetrieval((1, 4, 5), r, 0).double()(x)[0] for r in (1.3, 2.6))
    assert all((large - value).abs().min() < 1e-12 for value in small)


def test_gradients_of_phase_retrieval_are_finite_where_the_modulus_has_a_kink():
    operator = PhaseRetrieval((1, 4, 5), 1.5, 0)
    for start in (torch.zeros(1, 1, 4, 5), torch.ones(1, 1, 4, 5)):
        x = start.requires_grad_()
        ((operator(x) - 1).square().sum()).backward()
        assert x.grad.isfinite().all()
    y = operator(torch.zeros(1, 1, 4, 5))
    assert torch.equal(y, torch.zeros_like(y))


@pytest.mark.parametrize("std", [0.4, 1.5, 4.0])
def test_blur_is_a_normalised_gaussian_convolution_of_the_mirrored_image(std):
    """On 15 pixels, against reflection padding and a two-dimensional kernel."""
    x = random_tensor((2, 1, 15, 24))
    t = torch.arange(-7, 8, dtype=torch.float64)
    kernel = torch.exp(-(t[:, None] ** 2 + t**2) / (2 * std**2))
    padded = torch.nn.functional.pad(x, (7, 7, 7, 7), mode="reflect")
    want = torch.nn.functional.conv2d(padded, (kernel / kernel.sum())[None, None])
    found = Blur((1, 15, 24), std, 15).double()(x)
    torch.testing.assert_close(found, want, rtol=0, atol=1e-6)  # weights are kept in float32


def test_blur_without_a_size_reaches_three_standard_deviations():
    x = torch.zeros(1, 1, 31, 31)
    x[..., 15, 15] = 1
    seen = Blur((1, 31, 31), 1.5)(x)[0, 0, 15] > 0
    assert seen.nonzero().flatten().tolist() == list(range(10, 21))
    row = Blur((1, 31, 31), 1.5)(x)[0, 0, 15]
    mass, t = row.sum(), torch.arange(31) - 15.0
    assert float((row * t**2).sum() / mass) ** 0.5 == pytest.approx(1.5, rel=0.03)


def test_inpainting_masks_are_uniform():
    counts = sum(inpainting((1, 4, 4), 0.25, seed).observed.double() for seed in range(2000))
    # Binomial(2000, 1/4): standard deviation 19.4; 5 of them.
    assert ((counts - 500).abs() < 97).all()


def rngs(*seeds):
    return [torch.Generator().manual_seed(seed) for seed in seeds]


def test_noise_has_twice_the_asked_std_on_observed_entries_only(factory):
    operator = factory(1)
    y = operator(torch.zeros(40, *operator.in_shape))
    noise = operator.noisy(y, 0.1, rngs(*range(40)))
    carries = operator(torch.ones(1, *operator.in_shape)) != 0
    if not operator.measures_images:
        carries = torch.ones(1, *operator.out_shape, dtype=torch.bool)
    values = noise[carries.expand_as(noise)]
    assert (noise[~carries.expand_as(noise)] == 0).all()
    # Relative standard error of a std over k normals is 1 / sqrt(2 k); 5 of them.
    assert abs(values.std(correction=0) / 0.2 - 1) < 5 / (2 * len(values)) ** 0.5
    assert abs(values.mean()) < 5 * 0.2 / len(values) ** 0.5


def test_noise_of_an_image_does_not_depend_on_its_batch(factory):
    operator = factory(1)
    y = operator(torch.ones(3, *operator.in_shape))
    together = operator.noisy(y, 0.3, rngs(5, 6, 7))
    alone = operator.noisy(y[1:2], 0.3, rngs(6))
    assert torch.equal(together[1:2], alone)
    assert not torch.equal(together[0], together[2])
    assert torch.equal(operator.noisy(y, 0.0, rngs(5, 6, 7)), y)


def test_noise_is_the_same_in_float64(factory):
    operator = factory(1)
    zeros = torch.zeros(2, *operator.out_shape)
    single = operator.noisy(zeros, 0.5, rngs(1, 2))
    assert torch.equal(single.double(), operator.double().noisy(zeros.double(), 0.5, rngs(1, 2)))


def test_measurement_image_is_y_or_a_picture_with_peak_one(factory):
    operator = factory(1).double()
    y = operator(random_tensor((2, *operator.in_shape)))
    image = operator.measurement_image(y)
    assert image.ndim == 4
    if operator.measures_images:
        assert torch.equal(image, y)
        return
    peak = image.abs().amax(dim=(1, 2, 3))
    torch.testing.assert_close(peak, torch.ones_like(peak))
    assert torch.equal(operator.measurement_image(y * 0), image * 0)
    if isinstance(operator, LinearOperator):
        back = operator.adjoint(y)
        torch.testing.assert_close(image * back.abs().amax(dim=(1, 2, 3), keepdim=True), back)


def test_wrong_shapes_are_named(factory):
    operator = factory(1)
    channels, height, width = operator.in_shape
    for shape in [(1, channels, height + 1, width), (channels, height, width)]:
        with pytest.raises(ValueError) as error:
            operator(torch.zeros(shape))
        assert str(shape) in str(error.value)
        assert str(operator.in_shape) in str(error.value)
    y = torch.zeros(2, *operator.out_shape)
    methods = [operator.measurement_image]
    if isinstance(operator, LinearOperator):
        methods.append(operator.adjoint)
    for method in methods:
        with pytest.raises(ValueError, match="returns a batch of measurements of shape"):
            method(y[0])
    with pytest.raises(ValueError, match="returns a batch of measurements of shape"):
        operator.noisy(y[0], 0.1, rngs(1, 2))


def test_bad_noise_arguments_are_an_error(factory):
    operator = factory(1)
    y = torch.zeros(2, *operator.out_shape)
    for noise_std in (-0.1, float("nan")):
        with pytest.raises(ValueError, match=r"noise_std=.* at least 0"):
            operator.noisy(y, noise_std, rngs(1, 2))
    with pytest.raises(ValueError, match="1 generators for a batch of 2"):
        operator.noisy(y, 0.1, rngs(1))


def test_bad_circulant_ratio_is_an_error():
    with pytest.raises(ValueError) as error:
        partial_circulant((3, 256, 256), 1.4)
    assert str(error.value) == (
        "partial_circulant: ratio=1.4 asks for m=275251 of n=196608 measurements; "
        "ratio must be in (0, 1]."
    )


@pytest.mark.parametrize("kind", [partial_circulant, inpainting])
@pytest.mark.parametrize("ratio", [0.0, -0.5, 1.0001, float("nan"), float("inf")])
def test_ratio_outside_the_unit_interval_is_an_error(kind, ratio):
    with pytest.raises(ValueError, match=r"ratio must be in \(0, 1\]"):
        kind((3, 8, 8), ratio)


def test_unknown_circulant_scale_is_an_error():
    with pytest.raises(ValueError, match="scale='other'; it must be 'unit' or 'published'"):
        partial_circulant((3, 8, 8), 0.5, scale="other")


def test_circulant_arrays_of_wrong_length_are_an_error():
    ones, kept = torch.ones(192), torch.arange(5)
    with pytest.raises(ValueError, match=r"filter of shape \(191,\).* need \(192,\)"):
        Circulant((3, 8, 8), ones[1:], ones, kept)
    for indices in (kept + 190, torch.tensor([1, 1]), kept[:0], torch.tensor([-1])):
        with pytest.raises(ValueError, match=r"distinct positions in \[0, 192\)"):
            Circulant((3, 8, 8), ones, ones, indices)


@pytest.mark.parametrize("shape", [(7, 59), (60,), (0, 60)])
def test_bad_dense_matrix_is_an_error(shape):
    with pytest.raises(ValueError, match=r"images of shape \(3, 4, 5\) need \(m, 60\)"):
        Dense((3, 4, 5), torch.zeros(shape))


def test_bad_masks_are_an_error():
    for mask in (torch.ones(5, 4, dtype=torch.bool), torch.ones(4, 5)):
        with pytest.raises(ValueError, match=r"need \(4, 5\) and torch.bool"):
            Mask((3, 4, 5), mask)
    with pytest.raises(ValueError, match="observes no pixel"):
        Mask((3, 4, 5), torch.zeros(4, 5, dtype=torch.bool))


@pytest.mark.parametrize("factor", [1, 5, 17, 32, 0, -2, 2.5])
def test_bad_factor_names_the_sides_and_the_allowed_ones(factor):
    with pytest.raises(ValueError, match=rf"factor={factor} .*64x48 .*one of 2, 4, 8, 16\."):
        Downsample((3, 64, 48), factor)
    with pytest.raises(ValueError, match=r"7x11 pixels.* none exists"):
        Downsample((3, 7, 11), factor)


@pytest.mark.parametrize("shape", [(8, 8), (3, 0, 8)])
def test_bad_image_shape_is_an_error(shape):
    with pytest.raises(ValueError, match=r"must be \(channels, height, width\)"):
        partial_circulant(shape, 0.5)


@pytest.mark.parametrize("ratio", [0, -1, 8.01, float("nan")])
def test_phase_retrieval_takes_ratios_up_to_8(ratio):
    with pytest.raises(ValueError, match=r"PhaseRetrieval: ratio=.* of n=192 .* in \(0, 8\]"):
        PhaseRetrieval((3, 8, 8), ratio)


@pytest.mark.parametrize(
    ("std", "size", "words"),
    [
        (0.0, None, r"blur_std=0.0; .* above 0"),
        (float("inf"), None, r"blur_std=inf; .* above 0"),
        (1.0, 4, r"kernel_size=4 .* image 9x12; it must be odd, from 3 to 9"),
        (1.0, 11, "kernel_size=11 .* from 3 to 9"),
        (1.0, 1, "kernel_size=1 .* from 3 to 9"),
        (2.0, None, r"kernel_size=13 pixels a side \(3 blur_std=2.0 .* smaller blur_std"),
    ],
)
def test_bad_blurs_are_an_error(std, size, words):
    with pytest.raises(ValueError, match=words):
        Blur((1, 9, 12), std, size)


@pytest.mark.parametrize("name", TASKS)
def test_every_task_config_describes_its_operator(name):
    text = (CONFIGS / f"{name}.yaml").read_text()
    config = task_config(name)
    task = config["task"]
    assert text.startswith("# @package _global_\n")
    assert task["name"] == name
    assert config.keys() - {"task"} == {task["knob"], "noise_std"}
    knobs = {key: config[key] for key in config if key != "task"}
    operator = build_operator(task, (3, 16, 32), seed=3, **knobs)
    assert operator.in_shape == (3, 16, 32)
    assert task["linear"] in (None, isinstance(operator, LinearOperator))
    assert task["measures"] in (None, "image" if operator.measures_images else "vector")


@pytest.mark.parametrize(
    ("key", "value"), [("linear", False), ("measures", "vector"), ("linear", True)]
)
def test_a_config_that_describes_another_operator_is_an_error(key, value):
    name = "phase_retrieval" if value is True else "inpainting"
    task = task_config(name)["task"] | {key: value}
    with pytest.raises(ValueError, match=f"task={name}: its yaml says .*{key}={value}"):
        build_operator(task, (1, 8, 8), 0, ratio=0.5)


def build(name, shape=(1, 8, 8), seed=3, mask=None, options=None, **knobs):
    task = task_config(name)["task"] | (options or {})
    return build_operator(task, shape, seed, mask, **knobs)


def test_build_operator_passes_its_choices_on():
    cs = build("cs", options={"scale": "published"}, ratio=0.5)
    assert torch.equal(cs.filter, partial_circulant((1, 8, 8), 0.5, 3, "published").filter)
    mask = build("inpainting", ratio=0.5)
    assert torch.equal(mask.observed, inpainting((1, 8, 8), 0.5, 3).observed)
    given = build("inpainting", ratio=0.5, mask=~mask.observed)
    assert torch.equal(given.observed, ~mask.observed)
    assert build("sr", factor=4).out_shape == (1, 2, 2)
    blur = build("deblur", options={"kernel_size": 5}, blur_std=1.0)
    assert torch.equal(blur.rows, Blur((1, 8, 8), 1.0, 5).rows)
    phase, x = build("phase_retrieval", ratio=2), torch.ones(1, 1, 8, 8)
    assert torch.equal(phase(x), PhaseRetrieval((1, 8, 8), 2, 3)(x))


def test_build_operator_refuses_what_it_cannot_use():
    with pytest.raises(ValueError, match=r"'blur' is unknown.* one of cs, .*deblur"):
        build_operator({"name": "blur"}, (1, 8, 8), 0, ratio=0.5)
    with pytest.raises(ValueError, match="task=cs does not say its knob, range"):
        described = {"name": "cs", "_target_": "rtil.operators.circulant.partial_circulant"}
        build_operator(described, (1, 8, 8), 0, ratio=0.5)
    with pytest.raises(ValueError, match=r"_target_='os\.system' is not a class or function of"):
        build("cs", options={"_target_": "os.system"}, ratio=0.5)
    with pytest.raises(ValueError, match="task=cs needs a number for ratio; got None"):
        build("cs")
    with pytest.raises(ValueError, match="task=sr needs a number for factor; got 'four'"):
        build("sr", factor="four")
    with pytest.raises(ValueError, match=r"task=sr .* has no ratio; got ratio=0.5, remove it"):
        build("sr", ratio=0.5, factor=2)
    with pytest.raises(ValueError, match=r"task=denoise .* has no blur_std; got blur_std=1.0"):
        build("denoise", blur_std=1.0, noise_std=0.1)
    with pytest.raises(ValueError, match=r"task=denoise: noise_std=0.0 must be above 0"):
        build("denoise", noise_std=0.0)
    with pytest.raises(ValueError, match=r"task=cs: ratio=2 must be in \(0, 1\]"):
        build("cs", ratio=2)
    with pytest.raises(ValueError, match=r"task=cs: ratio=nan must be in \(0, 1\]"):
        build("cs", ratio=float("nan"))
    with pytest.raises(ValueError, match="task=cs has no option filter"):
        build("cs", options={"filter": "mine"}, ratio=0.5)
    with pytest.raises(ValueError, match=r"task=sr has no mask"):
        build("sr", factor=2, mask=torch.ones(8, 8).bool())


def test_circulant_follows_a_filter_that_is_loaded_replaced_or_changed_in_place():
    """The kept spectrum must not outlive the filter it was computed from."""
    a, b = (partial_circulant((1, 4, 4), 0.5, seed).double() for seed in (1, 2))
    x = torch.rand((1, 1, 4, 4), generator=torch.Generator().manual_seed(0)).double()
    before = a(x)
    a.load_state_dict(b.state_dict())
    assert torch.equal(a(x), b(x)) and not torch.equal(a(x), before)
    a.filter.mul_(2)
    torch.testing.assert_close(a(x), 2 * b(x))
    a.filter = 3 * b.filter
    torch.testing.assert_close(a(x), 3 * b(x))
