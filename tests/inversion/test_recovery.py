"""Selection without a true image, several starts, averages and back-projection."""

import copy
import errno
import json
from itertools import pairwise

import pytest
import torch
from helpers.inverters import METHODS, SHAPE, pggan, problem, rngs, stylegan2
from helpers.user_files import composed
from omegaconf import OmegaConf

from rtil import checkpoint, invert
from rtil.inversion.batch import Measured, Part
from rtil.inversion.estimate import Recovered, Recovery
from rtil.inversion.withheld import withhold
from rtil.inversion.yardstick import TrainingImages
from rtil.inverters.adjoint import Adjoint
from rtil.inverters.csgm import CSGM
from rtil.inverters.data_term import MeasurementLoss
from rtil.inverters.ilo import ILO
from rtil.operators import (
    Blur,
    Downsample,
    Identity,
    PhaseRetrieval,
    inpainting,
    partial_circulant,
)
from rtil.process.instantiate import instantiate
from rtil.runs import identity
from rtil.runs import keys as key_table
from rtil.runs import rows as jsonl

LINEAR = {
    "circulant": partial_circulant(SHAPE, 0.4),
    "inpainting": inpainting((3, 16, 16), 0.4),
    "downsample": Downsample((3, 16, 16), 4),
    "blur": Blur(SHAPE, 0.6),
    "identity": Identity(SHAPE),
}
JUMPS = ILO(steps=[15, 5], keep_rgb=False, fit_samples=200)  # the second stage starts worse


def noisy(A, x, noise_std=0.2):
    return A.noisy(A(x), noise_std, rngs("abcdef"[: len(x)]))


def recover(recovery, inverter, G, A, y, loss, names="abc", watch=None):
    starts = [rngs([f"{n}{r or ''}" for n in names]) for r in range(recovery.restarts)]
    part = recovery.split(Part(A, loss), {"mse": loss.mse_weight})
    return recovery(inverter, G, part, Measured(y, oracle=watch), starts)


@pytest.mark.parametrize("name", ["csgm", "ilo", "mgan"])
def test_withheld_measurements_change_nothing_but_the_selection(name):
    (make, inverter), (A, _, loss, x) = METHODS[name], problem()
    G, y = make(), noisy(A, x)
    withheld = withhold(A, 0.3, 0)
    other = torch.where(withheld, 3 * y.flip(1), y)
    recovery = Recovery("heldout", share=0.3)
    one, two = (recover(recovery, inverter, G, A, given, loss) for given in (y, other))
    assert torch.equal(one.last, two.last)
    assert torch.equal(one.others["best_"], two.others["best_"])
    assert one.facts["withheld_rms"] != two.facts["withheld_rms"]
    assert one.facts["chosen_step"] != two.facts["chosen_step"]
    changed = torch.where(withheld, y, 1.1 * y)  # what is kept does steer
    assert not torch.equal(recover(recovery, inverter, G, A, changed, loss).last, one.last)


def test_heldout_takes_the_iterate_of_any_stage_with_the_lowest_withheld_error():
    G, (A, _, loss, x) = stylegan2(), problem()
    y, seen = noisy(A, x), []
    found = recover(Recovery("heldout", share=0.3), JUMPS, G, A, y, loss, watch=seen.append)
    rest = withhold(A, 0.3, 0)
    errors = torch.stack([((A(image) - y)[:, rest]).square().mean(1) for image in seen])
    best = errors.argmin(0)
    assert len(seen) == 16 + 6 and found.facts["chosen_step"] == best.tolist()
    assert found.facts["chosen_stage"] == (best >= 16).long().tolist()
    assert found.facts["withheld_rms"] == pytest.approx((errors.amin(0).sqrt() / 2).tolist())
    for b, step in enumerate(best):
        assert torch.equal(found.image[b], seen[step][b])
    torch.testing.assert_close(found.loss, loss(A(found.image), y))  # over all measurements
    torch.testing.assert_close(found.last_loss, loss(A(found.last), y))
    kept = torch.stack([((A(image) - y)[:, ~rest]).square().mean(1) for image in seen])
    for b, step in enumerate(kept.argmin(0)):
        assert torch.equal(found.others["best_"][b], seen[step][b])


def test_discrepancy_takes_the_first_iterate_under_the_noise_or_the_lowest_loss():
    G, (A, _, loss, x) = stylegan2(), problem()
    y, seen = noisy(A, x), []
    recover(Recovery(), JUMPS, G, A, y, loss, watch=seen.append)
    rms = torch.stack([(A(image) - y).square().mean(1).sqrt() / 2 for image in seen])
    level = float(rms.amin(0).sort().values[1]) * 1.0001  # two images reach it, one does not
    for recovery in (
        Recovery("discrepancy", level=level),
        Recovery("discrepancy", tau=2.0, noise_std=level / 2),
    ):
        found = recover(recovery, JUMPS, G, A, y, loss)
        reached = (rms <= level).any(0)
        assert sorted(reached.tolist()) == [False, True, True]
        assert found.facts["discrepancy_reached"] == reached.tolist()
        step = torch.where(reached, (rms <= level).long().argmax(0), rms.argmin(0))
        assert found.facts["chosen_step"] == step.tolist()
        for b, s in enumerate(step):
            assert torch.equal(found.image[b], seen[s][b])
        assert torch.equal(found.last, seen[-1])


def test_stages_that_are_not_shown_are_counted():
    G, (A, _, loss, x) = stylegan2(), problem(1)
    ilo = ILO(steps=[15, 5], keep_rgb=False, best_per_stage=True, fit_samples=200)
    found = recover(Recovery("heldout"), ilo, G, A, noisy(A, x), loss, "a")
    assert found.facts["chosen_stage"] == [1] and found.facts["chosen_step"][0] >= 16


@pytest.mark.parametrize(
    "settings",
    [
        {"selection": "heldout", "restarts": 2},
        {"selection": "discrepancy", "level": 0.3},
        {"selection": "heldout", "restarts": 2, "average": True, "back_projection": True},
    ],
)
def test_a_batch_recovers_what_one_image_at_a_time_does(settings):
    G, (A, _, loss, x) = stylegan2(), problem()
    y, recovery = noisy(A, x), Recovery(**settings)
    together = recover(recovery, CSGM(10, restarts=1), G, A, y, loss)
    for b, name in enumerate("abc"):
        alone = recover(recovery, CSGM(10, restarts=1), G, A, y[b : b + 1], loss, name)
        torch.testing.assert_close(alone.image[0], together.image[b], rtol=0, atol=1e-7)
        for key, values in together.facts.items():
            assert alone.facts[key][0] == pytest.approx(values[b])


@pytest.mark.parametrize("A", LINEAR.values(), ids=LINEAR)
def test_what_is_withheld_is_observed_nested_and_counted(A):
    observed = torch.ones(A.out_shape, dtype=torch.bool)
    observed = observed if A.observed is None else A.observed.expand(A.out_shape)
    sets = [withhold(A, share, 3).expand(A.out_shape) for share in (0.1, 0.5, 0.999)]
    m = A.num_measurements
    for small, large in pairwise(sets):
        assert not (small & ~large).any() and small.sum() < large.sum()
    assert not (sets[2] & ~observed).any() and 0 < (observed & ~sets[2]).sum() <= 3
    assert int(sets[1].sum()) == pytest.approx(m / 2, abs=3)
    if A.measures_images:
        assert torch.equal(sets[1][:1].expand_as(sets[1]), sets[1])
    assert not torch.equal(withhold(A, 0.5, 4).expand(A.out_shape), sets[1])
    y_hat, y = torch.rand(2, 2, *A.out_shape, generator=torch.Generator().manual_seed(0))
    loss = MeasurementLoss(A, mse=0.25, kept=~sets[1])
    kept = observed & ~sets[1]
    expected = 0.25 * (y_hat - y)[:, kept].square().mean(1)
    torch.testing.assert_close(loss(y_hat * observed, y * observed), expected)


def test_by_default_the_inverters_own_result_is_reported_bit_for_bit():
    G, (A, y, loss, _) = stylegan2(), problem()
    plain = JUMPS.invert(G, A, y, loss, rngs("abc"))
    for recovery in (Recovery(), Recovery(average=True)):
        found = recover(recovery, JUMPS, G, A, y, loss)
        for key in ("image", "last", "loss", "last_loss"):
            assert torch.equal(getattr(found, key), getattr(plain, key))
        assert not found.facts and not found.others


def test_several_starts_are_averaged_or_the_one_that_fits_best_is_taken():
    G, (A, _, loss, x) = pggan(), problem()
    y, csgm = noisy(A, x), CSGM(15, restarts=1)
    single = [
        recover(Recovery("heldout"), csgm, G, A, y, loss, names)
        for names in (["a", "b", "c"], ["a1", "b1", "c1"], ["a2", "b2", "c2"])
    ]
    images = torch.stack([run.image for run in single])
    mean = recover(Recovery("heldout", restarts=3, average=True), csgm, G, A, y, loss)
    torch.testing.assert_close(mean.image, images.mean(0))
    assert torch.equal(mean.singles, images)
    torch.testing.assert_close(mean.loss, loss(A(images.mean(0)), y))
    assert mean.facts["chosen_step"][1] == [run.facts["chosen_step"][1] for run in single]
    for rule, value in (
        ("heldout", lambda run, b: run.facts["withheld_rms"][b]),
        ("last", lambda run, b: float(run.last_loss[b])),
    ):
        runs = (
            single
            if rule == "heldout"
            else [
                recover(Recovery(rule), csgm, G, A, y, loss, [f"{n}{r or ''}" for n in "abc"])
                for r in range(3)
            ]
        )
        found = recover(Recovery(rule, restarts=3), csgm, G, A, y, loss)
        for b in range(3):
            start = min(range(3), key=lambda r, b=b, runs=runs, value=value: value(runs[r], b))
            assert found.facts["chosen_start"][b] == start
            assert torch.equal(found.image[b], runs[start].image[b])
            assert float(found.loss[b]) == float(runs[start].loss[b])


@pytest.mark.parametrize("name", LINEAR)
@pytest.mark.parametrize("noise_std", [0.0, 0.1])
def test_back_projection_explains_the_measurements_up_to_the_noise(monkeypatch, name, noise_std):
    A = copy.deepcopy(LINEAR[name]).double()
    rng = torch.Generator().manual_seed(0)
    x, x_hat = 2 * torch.rand(2, 2, *A.in_shape, generator=rng).double() - 1
    y, found = noisy(A, x, noise_std), {}
    loss = MeasurementLoss(A)
    recovery = Recovery(back_projection=True, noise_std=noise_std)
    monkeypatch.setattr(recovery.__class__, "_run", lambda self, *args: found["run"])
    found["run"] = recovered(x_hat, A, y, loss)
    part, measured = Part(A, loss), Measured(y)
    after = recovery(None, None, part, measured, [None])
    residual = [(A(image) - y).flatten(1).norm(dim=1) for image in (x_hat, after.image)]
    noise = 2 * noise_std * A.num_measurements**0.5
    assert (residual[1] <= residual[0]).all()
    assert (residual[1] <= torch.clamp(1e-5 * residual[0], min=noise) * (1 + 1e-9)).all()
    assert torch.equal(after.others["generated_"], x_hat)
    # A sees nothing of what is left as it was: the change lies in the range of A^T.
    null = torch.rand(x.shape, generator=rng).double()
    null = null - Adjoint(tolerance=1e-9).estimate(A, A(null))
    change = (after.image - x_hat).flatten(1)
    assert ((change * null.flatten(1)).sum(1).abs() < 1e-5 * change.norm(dim=1)).all()
    found["run"] = recovered(x, A, y, loss)  # already within the noise: nothing changes
    if noise_std:
        settled = (A(x) - y).flatten(1).norm(dim=1) <= noise
        assert torch.equal(recovery(None, None, part, measured, [None]).image[settled], x[settled])


def recovered(image, A, y, loss):
    value = loss(A(image), y)
    return Recovered(image, image, value, value, {}, None, {})


@pytest.fixture(scope="module")
def generator(tmp_path_factory):
    """An untrained generator of rtil=ilo, 16 pixels, grey."""
    cfg = composed("train", "scale=tiny", "image_channels=1")
    cfg.model.phase_nimg = None
    config = OmegaConf.to_container(cfg, resolve=True)
    torch.manual_seed(0)
    G = instantiate(config["model"]["generator"])
    path = tmp_path_factory.mktemp("generator") / "generator.pt"
    checkpoint.save(
        {"format": checkpoint.EXPORT, "config": config, "nimg": 0, "G_ema": G.state_dict()}, path
    )
    return path


@pytest.fixture
def run(generator, tmp_path):
    """Inverts two images, or an input; returns the directory of the results."""

    def run(*words):
        words = [
            "hardware=cpu",
            "hardware.threads=1",
            "inversion_batch=1",
            f"generator={generator}",
            f"root={tmp_path}",
            "ratio=0.3",
            "noise_std=0.1",
            *words,
        ]
        if not any(word.startswith("input=") for word in words):
            words += ["num_images=2", "image_seed=null", "yardstick.use=false"]
        return invert.invert(composed("invert", *words), words)

    return run


def rows(place):
    return [
        {k: v for k, v in row.items() if k != "seconds"}
        for row in jsonl.read(place / "results.jsonl")
    ]


def test_a_disk_that_fills_while_a_picture_is_written_names_the_picture(run, monkeypatch):
    def full(image, path):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("torchvision.utils.save_image", full)
    with pytest.raises(OSError, match=r"No space left on device: '.*images.*\.png'"):
        run()


def test_one_run_says_what_other_rules_would_have_reported(run):
    best, last, found = (
        rows(run(f"selection={rule}")) for rule in ("best", "last", "discrepancy")
    )
    withheld = rows(run("selection=heldout", "heldout.share=0.2"))
    for b in range(2):
        assert found[b]["best_psnr_db"] == best[b]["psnr_db"]
        assert found[b]["last_psnr_db"] == last[b]["psnr_db"] == best[b]["last_psnr_db"]
        assert found[b]["oracle_psnr_db"] == best[b]["oracle_psnr_db"]
        assert isinstance(found[b]["discrepancy_reached"], bool)
        row = withheld[b]
        assert row["selection"] == "heldout" and row["withheld_rms"] > 0
        assert (row["chosen_step"] >= 4) == (row["chosen_stage"] > 0)
        assert row["oracle_psnr_db"] + 1e-4 >= max(
            row[f"{key}psnr_db"] for key in ("", "best_", "last_")
        )
        assert row["last_psnr_db"] != best[b]["last_psnr_db"]  # of fewer measurements


def test_an_average_of_one_is_the_run_itself_and_of_more_is_scored_beside_its_parts(run):
    plain, one, more = (
        rows(run()),
        rows(run("average=true")),
        rows(run("average=true", "restarts=2", "back_projection=true")),
    )
    for a, b, c in zip(plain, one, more):
        assert {key: b[key] for key in a} == a
        assert b["single_psnr_db"] == a["psnr_db"]
        assert b["single_gradient_energy"] == b["gradient_energy"] > 0
        # The mean square of an average is at most the mean of the mean squares.
        assert c["generated_psnr_db"] >= c["single_psnr_db"] - 1e-6
        assert c["loss"] < a["loss"] and c["gradient_energy"] != c["generated_gradient_energy"]


def test_measurements_of_the_users_own_are_recovered_as_test_images(run, tmp_path):
    words = ["selection=heldout", "restarts=2", "back_projection=true", "inverter.map=posterior"]
    place = run(*words, "save_measurements=true")
    row = rows(place)[1]
    saved = (place / "measurements" / "000001.npz").rename(tmp_path / "mine.npz")
    run(*words, f"input={saved}")
    record = json.loads((tmp_path / "mine-reconstruction.json").read_text())
    for key in (
        "loss",
        "last_loss",
        "withheld_rms",
        "chosen_step",
        "chosen_stage",
        "chosen_start",
    ):
        assert record[key] == row[key]
    with pytest.raises(ValueError, match=r"heldout\.share: 0\.1 there, 0.3 here"):
        run(*words, f"input={saved}", "heldout.share=0.3")


@pytest.mark.parametrize(
    "word",
    [
        "heldout.share=0.2",
        "discrepancy.tau=2",
        "restarts=2",
        "average=true",
        "back_projection=true",
        "inverter.map=0.1",
        "selection=heldout",
    ],
)
def test_every_choice_names_and_identifies_a_run(word):
    with_it, without = (
        OmegaConf.to_container(composed("invert", "model.phase_nimg=0", *more), resolve=True)
        for more in ([word], [])
    )
    digests = {"generator": "x.pt", "generator_sha256": "a" * 64}
    trees = (with_it, without)
    names = [identity.invert_dir("invert", {**tree, **digests}, tree) for tree in trees]
    assert f",{word}-" in names[0].name and names[0].parent == names[1].parent
    assert key_table.differing_keys(without, with_it, key_table.matters("invert"))


def test_the_prior_of_a_generator_is_that_of_its_training(run, monkeypatch):
    built, right = [], ILO.invert
    monkeypatch.setattr(
        ILO, "invert", lambda self, *args, **more: built.append(self) or right(self, *args, **more)
    )
    run("inverter.map=posterior")
    run("inverter.map=0.5", "inverter.map_sigma=0.3")
    assert (built[0].map_sigma, built[0].map_relative, built[0].noise_std) == (1.0, False, 0.1)
    assert (built[-1].map, built[-1].map_sigma) == (0.5, 0.3)


@pytest.mark.parametrize(
    ("words", "named"),
    [
        (("selection=discrepancy", "noise_std=0"), "stops at the noise"),
        (("heldout.share=1.0",), "heldout.share=1.0"),
        (("heldout.share=few",), "must be a number"),
        (("discrepancy.tau=0",), "discrepancy.tau=0"),
        (("restarts=0",), "restarts=0"),
        (("average=yes please",), "average=yes please"),
        (("restarts=2", "selection=oracle"), "true image twice"),
        (("restarts=2", "selection=authors"), "true image twice"),
        (("selection=heldout", "inverter=tv"), "one estimate"),
        (("restarts=2", "inverter=lmmse"), "one estimate"),
        (("inverter.map=posterior", "noise_std=0"), "known size"),
        (("inverter.map=1", "rtil=vanilla"), "rtil.name"),
    ],
)
def test_impossible_choices_are_refused_before_a_directory_is_made(run, tmp_path, words, named):
    with pytest.raises(ValueError, match=named):
        run(*words, f"run_dir={tmp_path / 'run'}")
    assert not (tmp_path / "run").exists()


def test_back_projection_of_what_is_not_linear_and_a_single_measurement_are_refused():
    phase = PhaseRetrieval(SHAPE, 0.5)
    with pytest.raises(ValueError, match="PhaseRetrieval is not linear"):
        Recovery(back_projection=True).check(JUMPS, phase)
    Recovery("heldout", restarts=2).check(JUMPS, phase)
    with pytest.raises(ValueError, match="1 measurement"):
        withhold(inpainting(SHAPE, 0.001), 0.5, 0)


@pytest.mark.parametrize("count", [0, 1, None])
def test_too_few_training_images_are_named_before_any_is_read(count):
    with pytest.raises(ValueError, match=r"yardstick\.num_train=(0|1|null) must be 2 or more"):
        TrainingImages({}, {}, (1, 16, 16), count).load()
