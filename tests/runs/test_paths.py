"""A path means the same wherever it is set, and a command that names one can be typed."""

import os
import random
import shlex
from pathlib import Path

import pytest
from hydra import compose, initialize_config_dir
from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import OmegaConf

from rtil.process.command import CONFIGS, check_writable
from rtil.runs import keys, overrides
from rtil.runs.setup import checked

PATHS = [row.name for row in keys.KEYS if row.path]
ODD = ["a b", "#1", "a&b", "Käse", "~x", "a=b", "a,b:c", "it's", 'say "x"', "a\\", "(1)", "é\\'"]


@pytest.fixture(scope="module")
def cfg():
    with initialize_config_dir(CONFIGS, version_base="1.3"):
        return compose("invert")


@pytest.mark.parametrize("key", PATHS)
def test_the_home_directory_is_meant_by_every_key_that_is_a_path(cfg, key, monkeypatch):
    monkeypatch.setenv("HOME", "/home/someone")
    cfg = cfg.copy()
    OmegaConf.update(cfg, key, "~/a", force_add=True, merge=False)
    found = checked(cfg, "invert", [f"{key}='~/a'"])
    assert OmegaConf.select(found, key) == "/home/someone/a"
    assert OmegaConf.select(cfg, key) == "~/a"


def test_hydras_own_folder_of_a_sweep_is_below_the_same_home(monkeypatch):
    monkeypatch.setenv("HOME", "/home/someone")
    with initialize_config_dir(CONFIGS, version_base="1.3"):
        cfg = compose("train", ["root='~/runs'"], return_hydra_config=True)
    assert cfg.hydra.sweep.dir == "/home/someone/runs"


@pytest.mark.parametrize("key", PATHS)
def test_a_folder_may_be_named_as_a_number_is_written(cfg, key):
    cfg = cfg.copy()
    OmegaConf.update(cfg, key, 2024, force_add=True, merge=False)
    assert OmegaConf.select(checked(cfg, "invert", [f"{key}=2024"]), key) == "2024"
    OmegaConf.update(cfg, key, 1e5, merge=False)
    with pytest.raises(ValueError, match=rf"{key}=100000.0 must be a text"):
        checked(cfg, "invert", [f"{key}=1e5"])


@pytest.mark.parametrize("text", ODD)
def test_a_printed_command_reads_back_as_what_it_names(text):
    (*_, word) = shlex.split(overrides.line("train", {"data.path": text}))
    override = OverridesParser.create().parse_override(word)
    if not override.is_sweep_override():  # as a list of a sweep is written
        assert override.value() == text


def test_a_quoted_text_is_read_as_it_was():
    rng = random.Random(0)
    for _ in range(200):
        text = "".join(rng.choices("ab'\"\\ $#&=,:äß()[]{}~\t", k=rng.randrange(1, 9)))
        override = OverridesParser.create().parse_override(f"key={overrides.quoted(text)}")
        assert override.value() == text


@pytest.mark.parametrize("text", ["[3,2,2]", "0.1", "glyphs", "runs/a-b", "null", "a,b", "{a:1}"])
def test_what_can_be_read_is_written_as_it_stands(text):
    assert overrides.readable(text) == text


def test_a_folder_that_cannot_be_written_to_is_named_and_a_good_one_is_left_as_it_was(tmp_path):
    check_writable(tmp_path / "a" / "b", "theory: out=a/b")
    assert not list(tmp_path.iterdir())
    (tmp_path / "file").write_text("")
    for folder in (tmp_path / "file", tmp_path / "file" / "below", Path("/proc/nothing")):
        with pytest.raises(ValueError, match=f"theory: out=x: nothing can be written to {folder}"):
            check_writable(folder, "theory: out=x")
    assert os.listdir(tmp_path) == ["file"]
