"""Runs of version 0.1 get the names that today's commands look for, or stay where they are."""

import json
import shutil
import sys
from pathlib import Path

import pytest
import rename_runs
import yaml
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf

from rtil.process.command import CONFIGS
from rtil.runs import identity
from rtil.runs.run import inversions

pytestmark = pytest.mark.slow  # some seconds together


def resolved(command, *words):
    with initialize_config_dir(CONFIGS, version_base="1.3"):
        cfg = compose(command, list(words))
    cfg.image_channels = 1
    return OmegaConf.to_container(cfg, resolve=True)


def write(run_dir, config):
    run_dir.mkdir(parents=True)
    (run_dir / "config.yaml").write_text(yaml.safe_dump({**config, "run_dir": str(run_dir)}))
    (run_dir / "provenance.json").write_text(json.dumps({"command": ["invert.py", "task=cs"]}))


@pytest.fixture
def root(tmp_path):
    """A training and two inversions as version 0.1 named and wrote them."""
    root = tmp_path / "runs"
    training = root / "train" / "stylegan2-ilo-glyphs-demo-seed0,rtil.family.sigma=2"
    words = (f"root={root}", "rtil.family.sigma=2")
    write(training, {**resolved("train", *words), "images_found": 50000})
    (training / "generator.pt").write_bytes(b"weights")
    for name, more in (("cs-ratio0.1-ilo", ()), ("cs-ratio0.1-ilo,split=val", ("split=val",))):
        config = resolved("invert", *words, *more)
        config |= {"generator": str(training / "generator.pt"), "generator_sha256": "a" * 64}
        run_dir = root / "invert" / training.name / name
        write(run_dir, config)
        (run_dir / "results.jsonl").write_text('{"id": "a", "psnr_db": 20.0}\n')
    write(root / "invert" / "x" / "y", {"task": {"name": "cs"}})
    return root


def rename(monkeypatch, *words):
    monkeypatch.setattr(sys, "argv", ["rename_runs.py", *map(str, words)])
    rename_runs.main()


def files(root):
    return sorted(str(path.relative_to(root)) for path in root.rglob("*"))


def test_nothing_moves_without_write_and_what_stays_is_said(root, monkeypatch, capsys):
    before = files(root)
    rename(monkeypatch, root)
    text = capsys.readouterr().out
    assert files(root) == before and text.count("  -> ") == 3
    assert "stays: " in text and "no generator and no generator_sha256" in text


def test_renamed_runs_are_those_that_todays_commands_find(root, monkeypatch):
    old = {run.path.name: run for run in inversions(root)[0]}
    rename(monkeypatch, root, "--write")
    words = (f"root={root}", "rtil.family.sigma=2.0")
    generator = identity.find_generator(resolved("invert", *words))
    assert identity.train_dir(resolved("train", *words)) == generator.parent
    assert generator.parent.name.startswith("stylegan2-ilo-glyphs-demo-seed0,rtil.family.sigma=2-")
    found = {run.config["split"]: run for run in inversions(root)[0]}
    for name, more in (("cs-ratio0.1-ilo", ()), ("cs-ratio0.1-ilo,split=val", ("split=val",))):
        config = resolved("invert", *words, *more)
        config |= {"generator": str(generator), "generator_sha256": "a" * 64}
        run = found["val" if more else "test"]
        assert run.path == identity.invert_dir("invert", config, resolved("train"))
        assert run.config["run_dir"] == str(run.path) and run.config["generator"] == str(generator)
        assert run.rows == old[name].rows and run.experiments == []
        changed = {k for k in old[name].config if old[name].config[k] != run.config[k]}
        assert changed == {"run_dir", "generator"}
    before = files(root)
    rename(monkeypatch, root, "--write")
    assert files(root) == before


def test_two_runs_of_one_computation_stay_and_the_others_move(root, monkeypatch, capsys):
    (training,) = (root / "train").iterdir()
    config = resolved("invert", f"root={root}", "rtil.family.sigma=2", "inverter.lr_style=0.20")
    config |= {"generator": str(training / "generator.pt"), "generator_sha256": "a" * 64}
    twin = root / "invert" / training.name / "cs-ratio0.1-ilo,inverter.lr_style=0.20"
    write(twin, config)
    rename(monkeypatch, root, "--write")
    text = capsys.readouterr().out
    assert text.count("would be of 2 runs") == 2 and "Moved 1 runs." in text
    names = {path.name for path in twin.parent.iterdir()}
    assert names > {"cs-ratio0.1-ilo", twin.name} and len(names) == 3 and training.exists()
    shutil.rmtree(twin)
    rename(monkeypatch, root, "--write")
    assert not twin.parent.exists()
    runs = inversions(root)[0]
    assert len({run.path.parent for run in runs}) == 1 and len(runs) == 2
    for run in runs:
        assert Path(str(run.config["generator"])).exists()
