"""Section 5 of the paper: closed forms, samples and the inverter say the same."""

import json

import numpy as np
import pytest
import torch
from hydra import compose, initialize_config_dir

from rtil.inverters.data_term import MeasurementLoss
from rtil.inverters.ilo import ILO
from rtil.linear_theory.closed_form import average_error, closed_form
from rtil.linear_theory.setup import settings_of
from rtil.linear_theory.simulation import invert, learn, two_stages
from rtil.linear_theory.truth import draw_operator, draw_truth
from rtil.models.linear import (
    LinearGenerator,
    expected_error,
    invert_exactly,
    lower_bound,
    train_rtil,
    train_vanilla,
)
from rtil.process.command import CONFIGS
from rtil.process.rng import seeded
from rtil.theory import theory

SIZES = [(1, 2, 3), (2, 5, 12), (3, 4, 30), (5, 20, 100)]
PARAMS = [pytest.param(*sizes, seed) for sizes in SIZES for seed in (0, 1)]


def config(*overrides):
    with initialize_config_dir(CONFIGS, version_base="1.3"):
        return compose("theory", overrides=list(overrides))


@pytest.mark.parametrize(("n0", "n1", "nd", "seed"), PARAMS)
def test_vanilla_weights_solve_problem_2_with_least_norm(n0, n1, nd, seed):
    """Lemmas 5.1 and B.1: the normal equations hold, and the rows lie in the range of W0."""
    w0, w1 = draw_truth(n0, n1, nd, seed)
    solution = train_vanilla(w0, w1)
    torch.testing.assert_close(solution @ w0, w1 @ w0, rtol=1e-10, atol=1e-12)
    null = torch.linalg.qr(w0, mode="complete").Q[:, n0:]
    assert (solution @ null).abs().max() < 1e-12
    assert (w1 @ null).abs().max() > 1e-2  # the true weights solve (2) too, with larger norm
    assert solution.norm() < w1.norm()


@pytest.mark.parametrize(("n0", "n1", "nd", "seed"), PARAMS[:4])
def test_objective_of_problem_3_has_its_only_minimum_at_the_true_weights(n0, n1, nd, seed):
    """The quadratic of appendix B: zero gradient at W1*, Hessian W0 W0^T + I positive definite."""
    w0, w1 = draw_truth(n0, n1, nd, seed)
    w = train_rtil(w0, w1).requires_grad_()
    loss = ((w1 - w) @ w0).square().sum() + (w1 - w).square().sum()
    (grad,) = torch.autograd.grad(loss, w)
    assert loss == 0 and grad.abs().max() == 0
    hessian = w0 @ w0.T + torch.eye(n1, dtype=w0.dtype)
    assert torch.linalg.eigvalsh(hessian).min() >= 1 - 1e-12


def test_learnt_weights_converge_to_the_closed_forms():
    truth = draw_truth(3, 8, 20, 0)
    errors = {"vanilla": [], "rtil": []}
    for count in (100, 10_000, 100_000):
        learnt = learn(truth, count, seeded("cpu", count))
        for name, closed in (("vanilla", train_vanilla), ("rtil", train_rtil)):
            exact = closed(*truth)
            errors[name].append(float((learnt[name] - exact).norm() / exact.norm()))
    # x = W1 h has no residual for RTIL; that of vanilla averages out as N^(-1/2).
    assert max(errors["rtil"]) < 1e-12
    np.testing.assert_allclose(
        np.log(np.array(errors["vanilla"][1:]) / errors["vanilla"][0]),
        -0.5 * np.log([100, 1000]),
        atol=0.5,
    )


@pytest.mark.parametrize(("n0", "n1", "nd", "seed"), PARAMS)
def test_expected_error_is_the_mean_over_signals(n0, n1, nd, seed):
    """Against the images of a basis: the estimate is linear, so they give the expectation."""
    truth = draw_truth(n0, n1, nd, seed)
    A = draw_operator(nd, 0.8, seed).matrix
    w1 = train_vanilla(*truth)
    x = torch.cat([truth.w1 @ truth.w0, truth.w1], 1).T
    total = (invert_exactly(truth.w0, w1, A, x @ A.T) - x).square().sum()
    noise = torch.eye(len(A), dtype=A.dtype)
    total += 0.3**2 * invert_exactly(truth.w0, w1, A, noise).square().sum()
    assert expected_error(*truth, w1, A, 0.3) == pytest.approx(float(total), rel=1e-10)


@pytest.mark.parametrize("noise", [0.0, 0.5])
def test_closed_form_is_the_mean_of_least_squares_over_signals_and_noise(noise):
    """Monte Carlo: both stages of Algorithm 1 solved by LAPACK's minimum-norm least squares."""
    truth, A = draw_truth(2, 5, 12, 0), draw_operator(12, 7 / 12, 0)
    rng, count = torch.Generator().manual_seed(1), 20_000
    x = truth.sample(count, rng)[2]
    e = torch.randn(count, 7, generator=rng, dtype=x.dtype)
    y = (x @ A.matrix.T + noise * e).T
    found = closed_form(truth, A, noise)
    for name, train in (("vanilla", train_vanilla), ("rtil", train_rtil)):
        w1 = train(*truth)
        stage0, stage1 = A.matrix @ w1 @ truth.w0, A.matrix @ w1
        z0 = np.linalg.lstsq(stage0.numpy(), y.numpy())[0]
        z1 = np.linalg.lstsq(stage1.numpy(), y.numpy() - stage0.numpy() @ z0, rcond=1e-10)[0]
        x_hat = w1.numpy() @ (truth.w0.numpy() @ z0 + z1)
        errors = ((x_hat - x.T.numpy()) ** 2).sum(0)
        off = abs(errors.mean() - found[name])
        assert off < 5 * errors.std() / count**0.5 + 1e-12
        assert errors.std() / count**0.5 < 0.02 * found[name] + 1e-12


@pytest.mark.parametrize(("n0", "n1", "nd", "seed"), PARAMS)
def test_closed_forms_are_the_sums_that_their_derivation_ends_in(n0, n1, nd, seed):
    truth, noise = draw_truth(n0, n1, nd, seed), 0.3
    V = truth.w1 @ truth.w0
    q = torch.linalg.qr(V).Q
    rest = truth.w1 - q @ (q.T @ truth.w1)
    for m in {n1, (n1 + nd) // 2, nd - 1}:
        A = draw_operator(nd, m / nd, seed)
        found = closed_form(truth, A, noise)
        inverse = V @ torch.linalg.pinv(A.matrix @ V)
        vanilla = (
            rest.square().sum()
            + (inverse @ A.matrix @ rest).square().sum()
            + noise**2 * inverse.square().sum()
        )
        inverse = truth.w1 @ torch.linalg.pinv(A.matrix @ truth.w1)
        assert found["vanilla"] == pytest.approx(float(vanilla), rel=1e-8)
        assert found["rtil"] == pytest.approx(noise**2 * float(inverse.square().sum()), rel=1e-6)


@pytest.mark.parametrize("noise", [0.0, 0.4])
def test_average_error_is_the_mean_of_the_closed_form_over_operators(noise):
    truth, m, draws = draw_truth(2, 4, 16, 0), 12, 400
    found = [closed_form(truth, draw_operator(16, m / 16, seed), noise) for seed in range(draws)]
    want = average_error(truth, m, noise)
    for name in ("vanilla", "rtil"):
        values = np.array([f[name] for f in found])
        assert abs(values.mean() - want[name]) < 5 * values.std() / draws**0.5 + 1e-12
        assert values.std() / draws**0.5 < 0.05 * want[name] + 1e-12
    assert want["vanilla"] > lower_bound(*truth)
    with pytest.raises(ValueError, match=r"m=5 has no finite mean .* n1 \+ 2 = 6 or more"):
        average_error(truth, 5, noise)


def test_noise_makes_rtil_worse_than_vanilla_where_measurements_barely_suffice():
    """Near m = n1 the noise of n1 unknowns outweighs the bias of vanilla; far from it not."""
    truth = draw_truth(5, 20, 100, 0)
    near, far = (average_error(truth, m, 1.0) for m in (22, 80))
    assert near["rtil"] > near["vanilla"] and far["rtil"] < far["vanilla"]


def test_operators_of_one_seed_are_nested():
    small, large = (draw_operator(20, ratio, 3).matrix for ratio in (0.3, 0.7))
    assert torch.equal(small, large[: len(small)]) and small.shape == (6, 20)
    assert not torch.equal(small, draw_operator(20, 0.3, 4).matrix)


def test_gradient_descent_from_zero_learns_the_minimum_norm_solution():
    """The solution of (2) that the paper singles out is the one that training from 0 finds."""
    w0, w1 = draw_truth(3, 8, 20, 0)
    gram = {"vanilla": w0 @ w0.T, "rtil": w0 @ w0.T + torch.eye(8, dtype=w0.dtype)}
    for name, train in (("vanilla", train_vanilla), ("rtil", train_rtil)):
        w, step = torch.zeros_like(w1), 1 / torch.linalg.eigvalsh(gram[name]).max()
        for _ in range(2000):
            w = w - step * (w - w1) @ gram[name]
        torch.testing.assert_close(w, train(w0, w1), rtol=0, atol=1e-10)


@pytest.mark.parametrize(("n0", "n1", "nd", "seed"), PARAMS)
def test_lemma_5_2(n0, n1, nd, seed):
    """(5) holds where n1 <= m; (4) at any m, for vanilla estimates lie in the range of W1* W0*."""
    truth = draw_truth(n0, n1, nd, seed)
    vanilla, rtil, bound = train_vanilla(*truth), train_rtil(*truth), lower_bound(*truth)
    assert bound > 0
    energy = float((truth.w1 @ truth.w0).square().sum() + truth.w1.square().sum())
    for m in range(1, nd):
        A = draw_operator(nd, m / nd, seed).matrix
        assert A.shape == (m, nd)
        error = expected_error(*truth, rtil, A)
        assert expected_error(*truth, vanilla, A) >= bound
        if m > n1:
            assert error < 1e-12 * energy
        if m < n1:
            assert error > 1e-6 * energy


def test_lower_bound_is_attained_by_a_direction_and_by_none_exceeded():
    w0, w1 = draw_truth(2, 6, 15, 0)
    basis = w1 @ w0
    rest = w1 - basis @ torch.linalg.lstsq(basis, w1).solution
    null = torch.linalg.qr(w0, mode="complete").Q[:, 2:]
    u = torch.randn(4, 10_000, generator=torch.Generator().manual_seed(0), dtype=w0.dtype)
    values = (rest @ null @ (u / u.norm(dim=0))).square().sum(0)
    bound = lower_bound(w0, w1)
    assert 0.98 * bound < values.max() <= bound * (1 + 1e-12)
    # The norm over all directions is the norm over those orthogonal to W0 (end of the proof).
    assert float(torch.linalg.matrix_norm(rest, 2) ** 2) == pytest.approx(bound, rel=1e-10)


@pytest.mark.parametrize("ratio", [pytest.param(0.4, marks=pytest.mark.slow), 0.8])
@pytest.mark.parametrize("train", [train_vanilla, train_rtil])
@pytest.mark.parametrize("noise", [0.0, 0.1])
def test_ilo_by_gradient_descent_is_algorithm_1_in_closed_form(ratio, train, noise):
    truth = draw_truth(3, 8, 40, 2)
    A = draw_operator(40, ratio, 2)
    w1 = train(*truth)
    x = truth.sample(6, seeded("cpu", 0))[2]
    y = x @ A.matrix.T
    y = y + noise * torch.randn(y.shape, generator=seeded("cpu", 1), dtype=y.dtype)
    exact = invert_exactly(truth.w0, w1, A.matrix, y)
    G = LinearGenerator(truth.w0, w1, A.in_shape).requires_grad_(False)
    found = invert(G, A, y, two_stages(600, 0.3), seed=0)
    assert ((found - exact).norm(dim=1) < 1e-5 * exact.norm(dim=1)).all()


def test_ilo_reaches_z0_off_the_sphere_only_without_it(linear):
    G, A = linear().requires_grad_(False), draw_operator(20, 0.9, 0)
    G._image_shape = A.in_shape
    z0 = 3 * torch.randn(4, 3, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    y = A(G(z0))
    rngs = [seeded("cpu", i) for i in range(4)]
    settings = {"steps": 400, "depth": 0, "geodesic": 0.0}
    free = ILO(sphere=False, **settings).invert(G, A, y, MeasurementLoss(A), rngs)
    rngs = [seeded("cpu", i) for i in range(4)]
    start = torch.stack([torch.randn(3, generator=seeded("cpu", i)) for i in range(4)]).double()
    bound = ILO(sphere=True, **settings).invert(G, A, y, MeasurementLoss(A), rngs)
    assert (free.last_loss < 1e-10).all() and (bound.last_loss > 1e-2).all()
    torch.testing.assert_close(bound.latents.w.norm(dim=1), start.norm(dim=1))
    torch.testing.assert_close(free.latents.w, z0, rtol=1e-4, atol=1e-4)


def test_linear_generator_is_its_formula():
    w0, w1 = draw_truth(2, 4, 12, 0)
    G = LinearGenerator(w0, w1, (3, 2, 2))
    z0 = torch.randn(5, 2, dtype=torch.float64)
    torch.testing.assert_close(G(z0), (z0 @ w0.T @ w1.T).view(5, 3, 2, 2))
    with pytest.raises(ValueError, match="do not chain"):
        LinearGenerator(w0.T, w1, (3, 2, 2))
    with pytest.raises(ValueError, match="13 pixels, w1 draws nd=12"):
        LinearGenerator(w0, w1, (1, 1, 13))


def test_command_writes_what_the_lemmas_say(tmp_path, capsys):
    cfg = config(
        f"out={tmp_path}",
        "n0=2",
        "n1=6",
        "nd=20",
        "ratios=[0.5,0.8]",
        "noise_std=[0,0.2]",
        "num_train=[100,10000]",
        "num_signals=16",
        "steps=200",
    )
    theory(cfg)
    rows = [json.loads(line) for line in (tmp_path / "theory.jsonl").read_text().splitlines()]
    assert [row["problem"] for row in rows] == ["training"] * 2 + ["inversion"] * 4
    for row in rows[2:]:
        assert row["vanilla"] >= row["bound"] > 0 and row["n"] == 16
        # Within 2.5 half-widths of a 95 % interval, about 5 standard errors.
        assert abs(row["vanilla_simulated"] - row["vanilla"]) < 2.5 * row["vanilla_ci95"]
        if row["noise_std"]:
            assert abs(row["rtil_simulated"] - row["rtil"]) < 2.5 * row["rtil_ci95"]
            assert 1e-4 < row["rtil"] < row["vanilla"]
        else:
            assert row["rtil"] < 1e-15 and row["rtil_simulated"] < 1e-3
    # The noise is paid for on top, by either model.
    for clean, noisy in zip(rows[2:4], rows[4:]):
        assert clean["ratio"] == noisy["ratio"]
        assert noisy["vanilla"] > clean["vanilla"] and noisy["rtil"] > clean["rtil"]
    assert (tmp_path / "theory.png").stat().st_size > 10_000
    assert (tmp_path / "theory.pdf").read_bytes().startswith(b"%PDF")
    printed = capsys.readouterr().out
    assert f"noise_std=0.2, bound (4) {rows[2]['bound']:.3f}" in printed


def test_noise_std_is_one_number_or_several():
    assert settings_of(config("noise_std=0.3")).noises == (0.3,)
    assert settings_of(config("noise_std=1")).noises == (1.0,)
    assert settings_of(config("noise_std=[0,0.5]")).noises == (0.0, 0.5)


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("n0=20", "n0=20, n1=20, nd=100; .* 0 < n0 < n1 < nd"),
        ("ratios=[0.5,0.1]", r"ratios has 0\.1, .* m=10 .* n1 <= m < nd, here 20 <= m < 100"),
        ("ratios=[1.0]", "here 20 <= m < 100"),
        ("ratios=[]", r"ratios=\[\] must be a list"),
        ("num_train=[5]", r"num_train=\[5\] must be n1=20 or more"),
        ("noise_std=-1", "noise_std=-1"),
        ("noise_std=[]", r"noise_std=\[\] must be"),
        ("noise_std=[0.1,loud]", r"noise_std\[1\]=loud must be a number"),
        ("num_signals=1", "num_signals=1 must be a whole number from 2 to"),
    ],
)
def test_settings_outside_section_5_are_an_error(override, message, tmp_path):
    cfg = config(override, f"out={tmp_path / 'out'}")
    with pytest.raises(ValueError, match=message):
        theory(cfg)
    assert not (tmp_path / "out").exists()
