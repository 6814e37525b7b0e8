"""Run directories: whose they are, what they are called, and rows that survive a crash."""

import json
import os

import pytest
import yaml

from rtil.process import files
from rtil.runs import keys as key_table
from rtil.runs import record as run_record
from rtil.runs import rows as jsonl

CONFIG = {
    "model": {"name": "stylegan2", "lr": 0.002, "betas": [0.0, 0.99], "channels": {4: 8, 8: 8}},
    "rtil": {"name": "ilo", "family": {"sigma": 1.0}},
    "data": {"name": "glyphs", "path": None, "trained_on": "glyphs"},
    "scale": {"name": "demo"},
    "task": {"name": "cs"},
    "inverter": {"name": "ilo"},
    "seed": 0,
    "total_nimg": 32000,
    "run_dir": "runs/x",
    "ratio": 0.05,
    "noise_std": 0.0,
}


def changed(**dotted):
    """CONFIG with some entries replaced, model__lr=1 for model.lr."""
    config = json.loads(json.dumps(CONFIG))
    config["model"]["channels"] = {4: 8, 8: 8}
    for key, value in dotted.items():
        *parents, last = key.split("__")
        node = config
        for parent in parents:
            node = node[parent]
        node[last] = value
    return config


# Claims


def test_claim_makes_the_directory_and_knows_its_own_run(tmp_path):
    run_dir = tmp_path / "a" / "b"
    assert run_record.claim(run_dir, CONFIG, ()) is False
    assert yaml.safe_load((run_dir / "config.yaml").read_text()) == CONFIG
    assert run_record.claim(run_dir, CONFIG, ()) is True
    assert os.listdir(run_dir) == ["config.yaml"]


def test_provenance_keeps_the_commands_before_the_last_one_once_each(tmp_path):
    """Rows may be theirs, and a command that found nothing left to do must not hide them."""
    first, second = ({"command": ["invert.py", word], "commit": word} for word in "ab")
    for record in (first, first, second, first, second, second):
        run_record.write_provenance(tmp_path, record)
    record = json.loads((tmp_path / "provenance.json").read_text())
    assert record == {**second, "before": [first]}
    assert run_record.commands(tmp_path) == [second["command"], first["command"]]
    assert run_record.commands(tmp_path / "nothing") == []


def test_claim_of_another_run_names_every_differing_key_and_changes_nothing(tmp_path):
    run_record.claim(tmp_path, CONFIG, ())
    before = (tmp_path / "config.yaml").read_bytes()
    other = changed(model__lr=0.1, seed=1, rtil__family={"sigma": 1.0, "relative": True})
    with pytest.raises(ValueError) as error:
        run_record.claim(tmp_path, other, ("total_nimg",))
    lines = str(error.value).splitlines()
    assert [line.strip() for line in lines[1:-1]] == [
        "model.lr: 0.002 there, 0.1 here",
        "rtil.family.relative: None there, True here",
        "seed: 0 there, 1 here",
    ]
    assert str(tmp_path) in lines[0] and "run_dir=" in lines[-1]
    assert (tmp_path / "config.yaml").read_bytes() == before


@pytest.mark.parametrize("free", [results.FREE_TRAIN, results.FREE_INVERT])
def test_free_keys_may_differ_and_are_updated(tmp_path, free):
    run_record.claim(tmp_path, CONFIG, free)
    other = changed(run_dir="elsewhere", data__path="there", scale={"name": "demo", "more": 1})
    assert run_record.claim(tmp_path, other, free) is True
    assert yaml.safe_load((tmp_path / "config.yaml").read_text())["run_dir"] == "elsewhere"


def test_a_longer_training_continues_but_a_longer_key_of_the_same_start_does_not():
    free = ("total_nimg", "data.path")
    new = {**changed(total_nimg=64000), "total_nimg_other": 1}
    assert key_table.differing_keys(CONFIG, new, free) == ["total_nimg_other: None there, 1 here"]
    moved = changed(data__path="x")
    assert key_table.differing_keys(CONFIG, moved, free) == []
    assert key_table.differing_keys(CONFIG, moved) == ["data.path: None there, 'x' here"]


@pytest.mark.parametrize("key", results.FOUND)
def test_what_an_earlier_version_did_not_record_is_equal_and_is_added(tmp_path, key):
    run_record.claim(tmp_path, CONFIG, ())
    assert run_record.claim(tmp_path, CONFIG | {key: "a"}, ())
    assert yaml.safe_load((tmp_path / "config.yaml").read_text())[key] == "a"
    with pytest.raises(ValueError, match=f"{key}: 'a' there, 'b' here") as error:
        run_record.claim(tmp_path, CONFIG | {key: "b"}, ())
    assert ("data.test_path" in str(error.value)) == (key == key_table.FILES)
    assert key_table.differing_keys({"other": 1}, {}) == ["other: 1 there, None here"]


def test_flatten_names_every_leaf():
    tree = {"a": {"b": 1, "c": {4: [1, 2]}}, "d": None}
    assert key_table.flatten(tree) == {"a.b": 1, "a.c.4": [1, 2], "d": None}


# Names


def label(kind, *overrides, **dotted):
    return results.run_label(kind, changed(**dotted), list(overrides))


def test_label_is_a_function_of_the_choices_alone():
    assert label("train") == "stylegan2-ilo-glyphs-demo-seed0"
    assert label("invert") == "cs-ratio0.05-ilo"
    forth = label("train", "model.lr=1", "rtil.family.sigma=2")
    back = label("train", "rtil.family.sigma=2", "model.lr=1")
    assert forth == back == "stylegan2-ilo-glyphs-demo-seed0,model.lr=1,rtil.family.sigma=2"
    long = [f"rtil.family.key{i}={i}" for i in range(20)]
    assert label("train", *long) == label("train", *long[::-1])
    assert len(label("train", *long)) < 100
    assert label("train", *long) != label("train", *long[1:])


@pytest.mark.parametrize(
    "overrides",
    [["rtil=ilo"], ["data=glyphs", "scale=demo"], ["hardware=cpu"], ["hardware.threads=2"],
     ["total_nimg=5"], ["batch=4"], ["run_dir=x"],
     ["+experiment=sigma"], ["seed=0"], ["data.path=/a/b"]],
)
def test_choices_that_are_in_the_name_or_change_no_result_add_nothing(overrides):
    assert label("train", *overrides) == label("train")


@pytest.mark.parametrize(
    "dotted",
    [{"seed": 1}, {"rtil__name": "vanilla"}, {"model__name": "pggan"}, {"scale__name": "paper"},
     {"data": {"name": "folder", "path": "x/faces.zip"}}],
)
def test_choices_distinguish_trainings(dotted):
    assert label("train", **dotted) != label("train")


@pytest.mark.parametrize(
    "dotted",
    [{"ratio": 0.1}, {"noise_std": 0.1}, {"inverter__name": "csgm"}, {"task__name": "inpainting"},
     {"data": {"name": "celebahq", "trained_on": "ffhq"}}],
)
def test_choices_distinguish_inversions(dotted):
    assert label("invert", **dotted) != label("invert")


@pytest.mark.parametrize(
    "override",
    ["inverter.steps=3", "inverter.lr_style=0.1", "loss.mse=1", "split=val", "selection=last",
     "task.scale=published", "metrics.lpips=false", "scale.ilo.steps=[3,4]", "scale.mgan.steps=3"],
)
def test_overrides_of_an_inversion_name_it_and_not_its_training(override):
    """So that it finds the generator that the same command without them trained."""
    assert label("invert", override) == f"{label('invert')},{override}"
    assert label("train", override) == label("train")


@pytest.mark.parametrize(
    "override", ["model.lr=1", "rtil.family.sigma=2", "resolution=64", "~data.x"]
)
def test_overrides_of_a_training_name_it_and_not_its_inversions(override):
    assert label("train", override) != label("train")
    assert label("invert", override) == label("invert")


@pytest.mark.parametrize("override", ["scale.num_images=3", "num_images=3", "ratio=0.05"])
def test_how_many_images_are_inverted_is_in_no_name(override):
    for kind in ("train", "invert"):
        assert label(kind, override) == label(kind)


def test_folders_are_named_by_their_data():
    config = {"name": "folder", "path": "some/faces64.zip", "trained_on": "folder"}
    assert label("train", data=config) == "stylegan2-ilo-folder-faces64-demo-seed0"


def test_a_label_is_one_directory_name():
    name = label("train", "data.origin=a/b c", "rtil.family.depths=[0, 1]")
    assert "/" not in name and " " not in name


# Rows

ROWS = [{"id": i, "psnr_db": 20.0 + i, "note": "line\u2028break\n"} for i in range(3)]


def test_appended_rows_come_back(tmp_path):
    path = tmp_path / "results.jsonl"
    assert jsonl.read(path) == []
    jsonl.append(path, ROWS[:2])
    jsonl.append(path, ROWS[2:])
    assert jsonl.read(path) == ROWS


def test_rows_survive_a_cut_at_any_byte_of_the_last_line(tmp_path):
    """Read without the cut row, and mended: rows appended after the crash stay readable."""
    path = tmp_path / "results.jsonl"
    jsonl.append(path, ROWS)
    whole = path.read_bytes()
    start = whole[:-1].rindex(b"\n") + 1
    for end in range(start, len(whole) + 1):
        path.write_bytes(whole[:end])
        complete = ROWS if end >= len(whole) - 1 else ROWS[:2]
        assert jsonl.read(path) == complete
        assert jsonl.mend(path) == complete
        jsonl.append(path, [{"id": 9}])
        assert jsonl.read(path) == [*complete, {"id": 9}]


def test_broken_line_before_the_last_is_an_error_that_names_it(tmp_path):
    path = tmp_path / "results.jsonl"
    jsonl.append(path, ROWS)
    lines = path.read_text().splitlines()
    path.write_text("\n".join([lines[0], lines[1][:-4], lines[2]]) + "\n")
    with pytest.raises(ValueError, match=r"results\.jsonl, line 2: not JSON"):
        jsonl.read(path)
    with pytest.raises(ValueError, match="line 2"):
        jsonl.mend(path)


def test_mend_keeps_the_rows_asked_for(tmp_path):
    path = tmp_path / "log.jsonl"
    assert jsonl.mend(path) == [] and not path.exists()
    jsonl.append(path, ROWS)
    assert jsonl.mend(path, keep=lambda row: row["id"] <= 1) == ROWS[:2]
    assert jsonl.read(path) == ROWS[:2]


def test_rows_of_all_processes_are_one_per_image(tmp_path):
    jsonl.append(tmp_path / "results.jsonl", [{"id": 1, "a": 1}, {"id": 2, "a": 1}])
    jsonl.append(tmp_path / "results-1.jsonl", [{"id": 3, "a": 1}, {"id": 1, "a": 1}])
    jsonl.append(tmp_path / "log.jsonl", [{"id": 9}])
    found = sorted(jsonl.result_rows(tmp_path), key=lambda row: row["id"])
    assert found == [{"id": i, "a": 1} for i in (1, 2, 3)]


def test_failing_text_write_keeps_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "config.yaml"
    files.write_text(path, "old")

    def fail(*names):
        raise OSError("No space left on device")

    monkeypatch.setattr(os, "replace", fail)
    with pytest.raises(OSError, match="No space"):
        files.write_text(path, "new")
    assert path.read_text() == "old" and os.listdir(tmp_path) == ["config.yaml"]
