"""Whose a directory is, what made it, and which jobs of experiments it was run for."""

import json
import os

import pytest
import yaml

from rtil.runs import keys, record

CONFIG = {
    "model": {"name": "stylegan2", "lr": 0.002, "betas": [0.0, 0.99], "channels": {4: 8, 8: 8}},
    "rtil": {"name": "ilo", "family": {"sigma": 1.0}},
    "data": {"name": "glyphs", "path": None, "trained_on": "glyphs"},
    "scale": {"name": "demo"},
    "seed": 0,
    "total_nimg": 32000,
    "run_dir": "runs/x",
}


def changed(**dotted):
    """CONFIG with some entries replaced, model__lr=1 for model.lr."""
    return keys.nested(
        {**keys.flatten(CONFIG), **{key.replace("__", "."): v for key, v in dotted.items()}}
    )


def test_claim_makes_the_directory_and_knows_its_own_run(tmp_path):
    run_dir = tmp_path / "a" / "b"
    assert record.claim(run_dir, CONFIG, "invert") is False
    assert yaml.safe_load((run_dir / "config.yaml").read_text()) == CONFIG
    assert record.claim(run_dir, CONFIG, "invert") is True
    assert os.listdir(run_dir) == ["config.yaml"]


def test_an_lmmse_run_of_version_01_goes_on_with_the_noise_it_was_measured_with(tmp_path):
    """It had no inverter.noise_std: the estimate took the measurement's."""
    old = {"noise_std": 0.05, "task": {"name": "cs"}, "inverter": {"name": "lmmse"}}
    new = {**old, "inverter": {"name": "lmmse", "family": None, "noise_std": 0.05}}
    assert record.claim(tmp_path, old, "invert") is False
    assert record.claim(tmp_path, new, "invert") is True
    new["inverter"]["noise_std"] = 0.1
    with pytest.raises(ValueError, match=r"inverter\.noise_std: 0\.05 there, 0\.1 here"):
        record.claim(tmp_path, new, "invert")


def test_provenance_keeps_the_commands_before_the_last_one_once_each(tmp_path):
    """Rows may be theirs, and a command that found nothing left to do must not hide them."""
    first, second = ({"command": ["invert.py", word], "commit": word} for word in "ab")
    for facts in (first, first, second, first, second, second):
        record.write_provenance(tmp_path, facts)
    content = json.loads((tmp_path / "provenance.json").read_text())
    assert content == {**second, "experiments": [], "before": [first]}
    assert record.commands(tmp_path) == [second["command"], first["command"]]
    assert record.commands(tmp_path / "nothing") == []


def test_claim_of_another_run_names_every_differing_key_and_changes_nothing(tmp_path):
    record.claim(tmp_path, CONFIG, "invert")
    before = (tmp_path / "config.yaml").read_bytes()
    other = changed(model__lr=0.1, seed=1, rtil__family={"sigma": 1.0, "relative": True})
    with pytest.raises(ValueError) as error:
        record.claim(tmp_path, other, "train")
    lines = str(error.value).splitlines()
    assert [line.strip() for line in lines[1:-1]] == [
        "model.lr: 0.002 there, 0.1 here",
        "rtil.family.relative: None there, True here",
        "seed: 0 there, 1 here",
    ]
    assert str(tmp_path) in lines[0] and "run_dir=" in lines[-1]
    assert (tmp_path / "config.yaml").read_bytes() == before


@pytest.mark.parametrize("command", ["train", "invert"])
def test_free_keys_may_differ_and_are_updated(tmp_path, command):
    record.claim(tmp_path, CONFIG, command)
    other = changed(run_dir="elsewhere", data__path="there", scale__more=1)
    assert record.claim(tmp_path, other, command) is True
    assert yaml.safe_load((tmp_path / "config.yaml").read_text())["run_dir"] == "elsewhere"


def test_a_longer_training_goes_on_and_a_key_that_begins_alike_is_another(tmp_path):
    record.claim(tmp_path, CONFIG, "train")
    assert record.claim(tmp_path, changed(total_nimg=64000), "train")
    with pytest.raises(ValueError, match="total_nimg_other: None there, 1 here"):
        record.claim(tmp_path, {**CONFIG, "total_nimg_other": 1}, "train")


@pytest.mark.parametrize("key", ["split_files", "nimg", "image_channels"])
def test_what_an_earlier_version_did_not_record_is_equal_and_is_added(tmp_path, key):
    record.claim(tmp_path, CONFIG, "invert")
    assert record.claim(tmp_path, CONFIG | {key: 1}, "invert")
    assert yaml.safe_load((tmp_path / "config.yaml").read_text())[key] == 1
    with pytest.raises(ValueError, match=f"{key}: 1 there, 3 here") as error:
        record.claim(tmp_path, CONFIG | {key: 3}, "invert")
    assert ("data.test_path" in str(error.value)) == (key == keys.FILES)


def job(name, **choices):
    return {"experiment": {"name": name, "job": json.dumps(choices)}}


def test_a_run_records_every_job_it_was_run_for_once(tmp_path):
    facts = {"command": ["invert.py"]}
    for config in (job("one", ratio="0.1"), CONFIG, job("two"), job("one", ratio="0.1")):
        record.write_provenance(tmp_path, facts, config)
    assert record.experiments(tmp_path) == [
        {"name": "one", "job": {"ratio": "0.1"}},
        {"name": "two", "job": {}},
    ]
    assert record.commands(tmp_path) == [["invert.py"]]


def test_a_run_of_version_01_does_not_say_its_experiments_until_a_job_works_on_it(tmp_path):
    (tmp_path / "provenance.json").write_text(json.dumps({"command": ["invert.py", "old"]}))
    record.write_provenance(tmp_path, {"command": ["invert.py", "new"]}, CONFIG)
    assert record.experiments(tmp_path) is None
    record.write_provenance(tmp_path, {"command": ["invert.py", "job"]}, job("one"))
    assert [each["name"] for each in record.experiments(tmp_path)] == ["one"]
    assert len(record.commands(tmp_path)) == 3
