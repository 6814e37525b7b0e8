"""operator.per_image: one drawn operator for all images, or another for each."""

import json

import pytest
import torch
from helpers.user_files import composed
from omegaconf import OmegaConf

from rtil import checkpoint, invert
from rtil.data.base import to_float
from rtil.inversion import held_out, setup
from rtil.inversion.estimate import Recovery
from rtil.inversion.held_out import HeldOut
from rtil.inverters.lmmse import LMMSE
from rtil.metrics.image import psnr, to_unit
from rtil.operators import build_operator
from rtil.process.instantiate import instantiate
from rtil.process.rng import seed_of
from rtil.runs import identity
from rtil.runs import keys as key_table
from rtil.runs import rows as jsonl

COMMON = ("scale=tiny", "hardware=cpu", "hardware.threads=1", "data.num_train=40")
SHORT = ("inverter.steps=[3,2]", "inverter.fit_samples=100", "num_images=3", "pictures=false")
DRAWN = {"cs": "ratio=0.2", "inpainting": "ratio=0.3", "phase_retrieval": "ratio=1.5"}
EACH = "operator.per_image=true"


def invert_config(*words):
    return composed("invert", *COMMON, "image_seed=null", *words)


@pytest.fixture(scope="module")
def generator(tmp_path_factory):
    """An untrained one."""
    cfg = composed("train", *COMMON, "image_channels=1")
    cfg.model.phase_nimg = None
    config = OmegaConf.to_container(cfg, resolve=True)
    torch.manual_seed(0)
    G = instantiate(config["model"]["generator"])
    file = tmp_path_factory.mktemp("generator") / "generator.pt"
    content = {"format": checkpoint.EXPORT, "config": config, "nimg": 0}
    checkpoint.save({**content, "G_ema": G.state_dict()}, file)
    return file


@pytest.fixture
def run(generator, tmp_path):
    """Inverts three images, or an input; returns the directory of the results."""

    def inverted(*words):
        words = (f"generator={generator}", f"root={tmp_path}", *words)
        return invert.invert(invert_config(*words), [*COMMON, *words])

    return inverted


@pytest.fixture
def measured(monkeypatch):
    """(operator, y, true image) by name of every image that was measured."""
    seen, right = {}, HeldOut.measure

    def spy(self, A, items):
        found = right(self, A, items)
        for i, y, x in zip(items, found.y, found.x):
            seen[self.name(i)] = A, y, x
        return found

    monkeypatch.setattr(held_out.HeldOut, "measure", spy)
    return seen


def drawn(task, seed):
    """The operator of a seed, by hand."""
    cfg = OmegaConf.to_container(invert_config(f"task={task}", DRAWN[task]), resolve=True)
    side = cfg["resolution"]
    return build_operator(cfg["task"], (1, side, side), seed, ratio=cfg["ratio"])


@pytest.mark.parametrize("task", DRAWN)
def test_every_image_is_measured_by_the_operator_that_its_name_draws(run, measured, task):
    run(f"task={task}", DRAWN[task], "seed=3", EACH, *SHORT)
    assert len(measured) == 3
    for name, (_, y, x) in measured.items():
        A = drawn(task, seed_of(3, name, "operator"))
        torch.testing.assert_close(y, A(x[None])[0])
    first, second = list(measured.values())[:2]
    assert not torch.allclose(first[1], second[0](first[2][None])[0])


def test_without_it_one_operator_of_the_seed_measures_all(run, measured):
    run("task=cs", DRAWN["cs"], "seed=3", *SHORT)
    A = drawn("cs", 3)
    assert len({id(operator) for operator, _, _ in measured.values()}) == 1
    for _, y, x in measured.values():
        torch.testing.assert_close(y, A(x[None])[0])


def test_the_linear_estimate_beside_a_row_is_of_that_images_operator(run, measured):
    """One prior for all; each image by hand with its own operator."""
    place = run("task=cs", DRAWN["cs"], EACH, *SHORT)
    rows = {row["id"]: row for row in jsonl.result_rows(place)}
    data = setup.load_data(setup.resolved(invert_config())["data"], 16, "train", 1)
    estimate = LMMSE().fit(to_float(data.batch(range(40))))
    for name, (_, y, x) in measured.items():
        found = estimate.estimate(drawn("cs", seed_of(0, name, "operator")), y[None])
        expected = float(psnr(to_unit(found), to_unit(x[None])))
        assert rows[name]["lmmse_psnr_db"] == pytest.approx(expected, abs=1e-3)


@pytest.mark.parametrize("words", [(), ("selection=heldout",), ("back_projection=true",)])
def test_rows_depend_on_no_other_image_and_on_no_batch(run, tmp_path, words):
    given = ("task=inpainting", DRAWN["inpainting"], EACH, *SHORT, *words)
    whole = jsonl.result_rows(run(*given, f"run_dir={tmp_path / 'a'}", "inversion_batch=20"))
    run(*given, f"run_dir={tmp_path / 'b'}", "inversion_batch=1", "num_images=2")
    parts = jsonl.result_rows(run(*given, f"run_dir={tmp_path / 'b'}", "inversion_batch=2"))
    timeless = [[{**row, "seconds": 0.0} for row in rows] for rows in (whole, parts)]
    assert timeless[0] == timeless[1] and len(whole) == 3


@pytest.mark.parametrize("task", DRAWN)
def test_a_saved_measurement_says_that_its_operator_was_its_own(run, tmp_path, task):
    words = (f"task={task}", DRAWN[task], "seed=3", *SHORT[:2])
    place = run(*words, EACH, *SHORT[2:], "save_measurements=true", "yardstick.use=false")
    row = jsonl.result_rows(place)[1]
    saved = (place / "measurements" / "000001.npz").rename(tmp_path / "renamed.npz")
    run(*words, EACH, f"input={saved}")
    record = json.loads((tmp_path / "renamed-reconstruction.json").read_text())
    assert (record["loss"], record["last_loss"]) == (row["loss"], row["last_loss"])
    with pytest.raises(ValueError, match=r"(?s)per_image: true there.*per_image=true"):
        run(*words, f"input={saved}")


def test_a_measurement_with_one_operator_for_all_is_inverted_with_no_other(run, tmp_path):
    words = ("task=cs", DRAWN["cs"], *SHORT[:2])
    place = run(*words, *SHORT[2:], "save_measurements=true", "yardstick.use=false")
    saved = place / "measurements" / "000001.npz"
    with pytest.raises(ValueError, match=r"(?s)per_image: false there.*per_image=false"):
        run(*words, EACH, f"input={saved}")


@pytest.mark.parametrize(
    ("words", "named"),
    [
        (("task=sr", "factor=4"), "task=sr is not drawn"),
        (("task=inpainting", "mask=mask.png"), "is one for all"),
    ],
)
def test_an_operator_that_nothing_draws_is_refused(words, named):
    with pytest.raises(ValueError, match=named):
        setup.check_settings(invert_config(*words, EACH), "invert")


def test_it_identifies_a_run_and_runs_that_do_not_say_it_have_one_operator():
    each, one = (
        OmegaConf.to_container(invert_config("model.phase_nimg=0", *more), resolve=True)
        for more in ((EACH,), ())
    )
    unsaid = {key: value for key, value in one.items() if key != "operator"}
    named = [identity.digest(identity.values(config, "invert")) for config in (each, one, unsaid)]
    assert named[0] != named[1] == named[2]
    lines = key_table.differing_keys(unsaid, each, key_table.matters("invert"))
    assert [line.partition(":")[0] for line in lines] == ["operator.per_image"]
    assert not key_table.differing_keys(unsaid, one, key_table.matters("invert"))


def test_a_part_of_one_image_withholds_of_its_own_mask():
    """Heldout: what is withheld was observed, whichever mask was drawn."""
    recovery = Recovery("heldout", share=0.2)
    cfg = setup.resolved(invert_config("task=inpainting", DRAWN["inpainting"], EACH, "seed=3"))
    measuring, withheld = setup.measuring_of(cfg), []
    for name in ("a", "b"):
        part = recovery.split(measuring.part((1, 16, 16), image=name), measuring.loss)
        assert (part.A.observed | ~part.split.withheld).all()
        withheld.append(part.split.withheld)
    assert not torch.equal(*withheld)
