"""What may be said of a gain: p values, Holm's correction, verdicts."""

import math
from dataclasses import replace
from itertools import chain, combinations

import numpy as np
import pytest
from helpers.reports import make_run, rows_below
from scipy import stats

from rtil.metrics.intervals import Mean
from rtil.reporting import claims
from rtil.reporting.statistics import estimate


@pytest.mark.parametrize("n", [2, 3, 10, 60])
def test_the_p_value_of_an_interval_is_that_of_the_paired_t_test(n):
    rng = np.random.default_rng(n)
    mine, theirs = rng.normal(0.4, 1, n), rng.normal(0, 1, n)
    expected = stats.ttest_rel(mine, theirs).pvalue
    assert claims.p_value(estimate(mine - theirs)) == pytest.approx(expected, rel=1e-9)


def test_without_an_interval_nothing_is_rejected_and_without_spread_all_but_zero_is():
    assert claims.p_value(Mean(3.0, math.nan, 1)) == 1
    assert claims.p_value(Mean(3.0, 0.0, 5)) == 0
    assert claims.p_value(Mean(0.0, 0.0, 5)) == 1


@pytest.mark.parametrize("seed", range(40))
def test_holm_is_the_closure_of_bonferroni(seed):
    """A hypothesis falls where Bonferroni rejects every set of hypotheses that it is in."""
    p_values = np.random.default_rng(seed).uniform(0, 0.08, 6).tolist()
    numbers = range(len(p_values))
    sets = list(chain.from_iterable(combinations(numbers, size + 1) for size in numbers))
    expected = [
        all(min(p_values[i] for i in own) <= 0.05 / len(own) for own in sets if number in own)
        for number in numbers
    ]
    assert claims.holm(p_values) == expected


def comparison(root, gains, ratio=0.1):
    """Of runs below root with these gains over vanilla: {seed: gain of each image}."""
    for seed, own in gains.items():
        for arm in ("vanilla", "ilo"):
            (root / "train" / f"{arm}-{seed}").mkdir(parents=True, exist_ok=True)
            content = f"{arm} {seed}".encode()
            (root / "train" / f"{arm}-{seed}" / "generator.pt").write_bytes(content)
        base = {f"{i}": 20.0 + i for i in range(len(own))}
        mine = {i: psnr + gain for (i, psnr), gain in zip(base.items(), own)}
        make_run(root, "vanilla", base, seed=seed, pictures=False, ratio=ratio)
        make_run(root, "ilo", mine, seed=seed, pictures=False, ratio=ratio)
    rows = [row for row in rows_below(root) if row.measurement.value == ratio]
    (found,) = claims.comparisons("here", rows)
    return found


@pytest.mark.parametrize(
    "means, verdict",
    [
        ((1.0, 1.1, 0.9), "ahead"),
        ((-1.0, -1.1, -0.9), "behind"),
        ((0.05, -0.1, 0.1), "level"),
        ((1.0, -1.0, 0.5), "not known"),
        ((0.6, 0.1, 0.4), "not known"),  # 0.37 +- 0.62
    ],
)
def test_a_difference_is_excluded_only_where_none_that_matters_is_in_the_interval(
    tmp_path, means, verdict
):
    found = comparison(tmp_path, {seed: (mean, mean) for seed, mean in enumerate(means)})
    assert (found.family, found.verdict, found.gain.n) == ("trainings", verdict, 3)


def test_one_training_speaks_of_its_images_alone(tmp_path):
    found = comparison(tmp_path, {0: (1.0, 1.2, 0.8, 1.1)})
    assert (found.family, found.verdict, found.gain.n) == ("images", "ahead", 4)


def test_trainings_and_images_are_corrected_as_two_families_each_comparison_once(tmp_path):
    strong = comparison(tmp_path / "a", {seed: (1 + seed / 1e3,) * 2 for seed in range(3)}, 0.6)
    weak = [
        comparison(tmp_path / f"b{i}", {seed: (1.0 + seed / 2,) * 2 for seed in range(3)}, i / 10)
        for i in range(1, 3)
    ]
    images = comparison(tmp_path / "c", {0: (1.0, 1.8, 0.6, 1.1)}, 0.7)
    # p = 0.035 is below 5 %, and twice that is not.
    assert [one.verdict for one in (*weak, images)] == ["ahead"] * 3
    alone = claims.families([weak[0], weak[0], images])
    assert alone.survives(weak[0]) and alone.survives(images)
    both = claims.families([strong, *weak, images])
    assert [both.survives(one) for one in (strong, *weak, images)] == [True, False, False, True]
    assert len(both.of("trainings")) == 3 and len(both.of("images")) == 1


def test_trainings_whose_validation_images_chose_the_settings_can_be_left_out(tmp_path):
    gains = {0: 3.0, 1: 1.0, 2: 2.0}
    found = comparison(tmp_path, {seed: (gain, gain) for seed, gain in gains.items()})
    assert found.over_others is None  # nothing was tuned

    def tuned(run, at):
        chosen = {"protocol.tuned.trial": 3} | ({"protocol.tuned.at.seed": at} if at else {})
        return replace(run, config={**run.config, **chosen})

    runs = [tuned(run, at) for run, at in zip(found.row.runs, (None, 1, None))]
    # Seed 0 was tuned at its own place, 1 with seed 1, and 2 at its own place too.
    none_left = replace(found, row=replace(found.row, runs=runs))
    assert none_left.over_others is None
    runs = [tuned(run, "elsewhere") for run in found.row.runs[1:]]
    rest = replace(found, row=replace(found.row, runs=[tuned(found.row.runs[0], None), *runs]))
    assert (rest.over_others.mean, rest.over_others.n) == (pytest.approx(1.5), 2)
