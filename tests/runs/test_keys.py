"""The table of keys: it says something of every setting, and of nothing else."""

import math
from itertools import zip_longest
from pathlib import Path

import pytest
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf

from rtil.process.command import CONFIGS
from rtil.runs import keys

COMMANDS = ("train", "invert", "tune")
ALL = (*COMMANDS, "app", "diagnose", "report", "theory")
NAMES = (*COMMANDS, "path", "needs", "cell", "found", "default", "kind", "optional")
# What a run finds out, and what configs may say of a part.
FOUND = (
    *(
        "split_files",
        "nimg",
        "init_sha256",
        "init_images",
        "images_found",
        "generator_sha256",
        "mask_sha256",
        "denoiser_sha256",
    ),
    *("protocol.tuned.file", "protocol.tuned.space", "tuned", "task._target_", "task.knob"),
    *("task.range", "task.linear", "task.measures", "inverter.family", "rtil.arm"),
    "experiment.name",
    *(f"protocol.tuned.{name}" for name in ("keys", "trial", "trials")),
    *(f"protocol.tuned.validation.{name}" for name in ("n", "mean", "ci95", "first_round.n")),
)


REPORTED = ("pack", "results", "docs", "check", "allow_uncommitted", "baseline")
DIAGNOSED = ("num_samples", "dims", "neighbours", "bootstrap", "fid", "stage_steps", "out")
SEARCHED = [path.stem for path in (Path(CONFIGS) / "search").glob("*.yaml")]


@pytest.fixture(scope="module")
def composed():
    """(command, key, value) of every setting, over the choices of each group."""
    found = []
    with initialize_config_dir(CONFIGS, version_base="1.3"):
        for command in ALL:
            for words in choices_of(command):
                tree = OmegaConf.to_container(compose(command, words), resolve=True)
                found += [(command, *item) for item in keys.flatten(tree).items()]
    return found


@pytest.fixture(scope="module")
def leaves(composed):
    """{command: every key that it composes}."""
    return {name: {key for command, key, _ in composed if command == name} for name in COMMANDS}


def choices_of(command):
    if command not in COMMANDS:
        return [[]]
    groups = ("model", "objective", "rtil", "data", "scale", "hardware", "protocol")
    groups += ("augment",) if command == "train" else ("task", "inverter")
    choices = []
    for group in groups:
        names = sorted(path.stem for path in (Path(CONFIGS) / group).glob("*.yaml"))
        if group == "inverter" and command == "tune":
            names = SEARCHED
        choices.append([f"{group}={name}" for name in names])
    # Each choice stands in some composition, those of several groups side by side.
    return [[], *([word for word in words if word] for words in zip_longest(*choices))]


@pytest.mark.parametrize("command", COMMANDS)
def test_every_setting_has_a_row_and_is_one_of_its_command(leaves, command):
    for key in sorted(leaves[command]):
        assert keys.row(key) is not keys.OTHER, f"{key} has no row in rtil/runs/keys.py"
        assert keys.role(key, command) != "none" or command == "tune", key


def test_every_number_and_switch_has_a_kind_that_its_default_is_of(composed):
    for command, key, value in composed:
        kind = keys.kind(key, command)
        first = value[0] if isinstance(value, list) and value else value
        assert kind or not isinstance(first, (bool, int, float)), f"{key} has no kind"
        assert value == "???" or not kind or not kind.fault(value, key), kind.fault(value, key)


def test_a_kind_knows_what_a_number_is(composed):
    """Of every setting that is a number: text, infinity, an empty list and a switch are none."""
    numbers = {
        key
        for command, key, value in composed
        if type(value) in (int, float) and command != "theory" and "sweep" not in key
    }
    for key in sorted(numbers):
        for junk in ("abc", math.inf, math.nan, [], {}, 10**400):
            assert keys.kind(key).fault(junk), f"{key}={junk}"


def test_every_row_is_about_a_setting(leaves):
    every = set().union(*leaves.values(), FOUND, DIAGNOSED, REPORTED)
    for row in keys.KEYS:
        assert any(keys.row(key) is row or keys.is_under(key, [row.name]) for key in every), (
            row.name
        )


def test_a_row_says_more_than_the_one_above_it():
    for row in keys.KEYS:
        above = keys.row(row.name.rpartition(".")[0]) if "." in row.name else keys.OTHER
        same = all(getattr(row, name) == getattr(above, name) for name in NAMES)
        assert not same or row.group or above is keys.OTHER, row.name
    assert len({row.name for row in keys.KEYS}) == len(keys.KEYS)


def test_the_longest_prefix_counts_and_what_is_unknown_matters():
    assert keys.row("hardware.threads").name == "hardware"
    assert keys.row("hardware.precision").name == "hardware.precision"
    assert keys.row("data.paths").name == "data"
    assert all(keys.role("no_such_key", command) == "identity" for command in COMMANDS)


def test_what_version_01_left_unsaid_is_filled_in_and_what_it_said_stays():
    found = keys.complete({"task.name": "phase_retrieval", "inverter.name": "csgm"})
    assert (found["task.knob"], found["task.linear"]) == ("ratio", False)
    assert found["task.measures"] == "vector" and found["inverter.family"] == "ilo"
    assert found["protocol.name"] == "paper" and found["hardware.precision"] == "fp32"
    assert keys.complete({"task.name": "sr", "task.knob": "mine"})["task.knob"] == "mine"
    assert keys.complete({"inverter.name": "tv"})["inverter.family"] is None
    noise = {"inverter.name": "lmmse", "noise_std": 0.1}
    assert keys.complete(noise)["inverter.noise_std"] == 0.1
    weight = keys.complete({"scale.stylegan2.r1_weight": 0.3})
    assert weight["scale.pggan_r1.r1_weight"] == 0.3
    names = [keys.complete({"rtil.name": name})["rtil.arm"] for name in ("vanilla", "mgan")]
    assert names == ["vanilla", "mgan"]


def test_values_are_compared_and_not_how_they_are_written():
    same = ({"a": {"b": 1.0, "c": [0.2, 1]}}, {"a": {"b": 1, "c": (0.20, 1.0)}})
    assert keys.differing_keys(*same) == []
    assert keys.differing_keys({"a": 1}, {"a": True}) == []  # as Python has it
    assert keys.differing_keys({"a": 1}, {}) == ["a: 1 there, None here"]


def test_flatten_names_every_leaf_and_nesting_undoes_it():
    tree = {"a": {"b": 1, "c": {4: [1, 2]}}, "d": None}
    assert keys.flatten(tree) == {"a.b": 1, "a.c.4": [1, 2], "d": None}
    assert keys.nested({"a.b": 1, "a.c": [1]}) == {"a": {"b": 1, "c": [1]}}


def test_what_reports_and_messages_treat_alike_is_read_from_the_rows():
    assert keys.TRAINING == ("model", "objective", "rtil", "data", "scale")
    assert keys.SPLITS == ("data.path", "data.val_path", "data.test_path")
    assert not any(map(keys.tells_apart, ("seed", "ratio", "noise_std", "yardstick.use")))
    assert all(map(keys.tells_apart, ("inverter.steps", "nimg", "split", "back_projection")))
    assert not keys.for_tuning("num_images") and keys.for_tuning("ratio")
    assert keys.for_training("batch") and not keys.for_training("task")
    assert [key for key in ("total_nimg", "batch", "seed") if keys.of_training(key)] == [
        "total_nimg",
        "batch",
    ]
