"""Curves go to Weights & Biases where a project is named, and the run stays the same."""

import shlex
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace

import pytest
from helpers.trainings import config

from rtil.runs import identity
from rtil.runs.setup import check
from rtil.train import train
from rtil.training import setup


def fake(calls):
    """A module that notes what is called, and whether curves were begun by then."""

    def init(**settings):
        begun = any((settings["dir"] / "tensorboard").glob("*"))
        calls.append(("init", settings, begun))
        return SimpleNamespace(finish=lambda: calls.append(("finish", None, None)))

    module = ModuleType("wandb")
    module.init = lambda **settings: init(**{**settings, "dir": Path(settings["dir"])})
    return module


@pytest.fixture
def calls(monkeypatch):
    found = []
    monkeypatch.setitem(sys.modules, "wandb", fake(found))
    return found


def test_a_project_gets_what_tensorboard_gets_and_the_end_says_what_is_next(
    calls, tmp_path, capsys
):
    train(config(f"root={tmp_path}", "total_nimg=8", "wandb=faces"))
    (run_dir,) = (tmp_path / "train").iterdir()
    (name, settings, begun), (last, *_) = calls
    assert (name, last, begun) == ("init", "finish", False)
    assert settings["project"] == "faces" and settings["sync_tensorboard"] is True
    assert settings["resume"] == "allow" and settings["name"] == run_dir.name
    assert settings["dir"] == run_dir and any((run_dir / "tensorboard").iterdir())
    lines = capsys.readouterr().out.splitlines()
    assert lines[:2] == [f"Wrote {run_dir / 'generator.pt'}", "Next:"]
    for line in lines[2:]:
        _, _, module, *words = shlex.split(line)
        check(module.removeprefix("rtil."), words)


def test_a_run_is_the_same_whether_its_curves_are_shared(tmp_path):
    configs = [config(f"root={tmp_path}", *words) for words in (["wandb=faces"], [])]
    plain = [setup.resolved(cfg, {"image_channels": 1}) for cfg in configs]
    assert identity.train_dir(plain[0]) == identity.train_dir(plain[1])


def test_without_the_package_the_error_says_how_to_install_it(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "wandb", None)
    with pytest.raises(ValueError, match=r'wandb=faces needs .* pip install "rtil\[wandb\]"'):
        train(config(f"root={tmp_path}", "wandb=faces"))
    assert not [*tmp_path.iterdir()]
