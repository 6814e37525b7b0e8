"""Operators that a command names, as docs/deepinv.md says."""

import json
import re
import shlex
import shutil
import sys
from pathlib import Path

import pytest
import torch
import yaml
from helpers.commands import COMMON, composed, export, start
from hydra.errors import HydraException

from rtil import invert, report
from rtil.process import instantiate

PAGE = (Path(__file__).parents[2] / "docs" / "deepinv.md").read_text().replace("\\\n", " ")
SHORT = ["inverter.steps=[2,2,2]", "inverter.fit_samples=100"]
OWN = ["task=physics", "task.physics._target_=halved.Halved", "+task.physics.step=2"]
CODE = """
import torch

class Halved(torch.nn.Module):
    def __init__(self, step, in_shape):
        super().__init__()
        self.step, self.side = step, in_shape[1]

    def forward(self, x):
        return x.reshape(len(x), 1, self.side, self.side)[..., :: self.step]
"""


@pytest.fixture
def halved(tmp_path, monkeypatch):
    """A user's module where Python finds it, and a generator to invert with it."""
    (tmp_path / "halved.py").write_text(CODE)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setattr(instantiate, "_named", set())
    export(tmp_path)
    yield tmp_path
    sys.modules.pop("halved", None)


def rows_of(run_dir):
    return [json.loads(line) for line in (run_dir / "results.jsonl").read_text().splitlines()]


def test_a_module_of_ones_own_is_inverted_recorded_by_value(halved):
    run_dir = start("invert", halved, *OWN, *SHORT)
    rows = rows_of(run_dir)
    assert len(rows) == 2 and all(row["psnr_db"] > 0 for row in rows)
    recorded = yaml.safe_load((run_dir / "config.yaml").read_text())
    assert recorded["task"]["physics"] == {"_target_": "halved.Halved", "step": 2}
    assert start("invert", halved, *OWN, *SHORT) == run_dir and rows_of(run_dir) == rows
    other = start("invert", halved, *OWN[:2], "+task.physics.step=4", *SHORT)
    assert other != run_dir


@pytest.mark.slow
def test_a_report_shows_a_module_of_ones_own_without_it(halved):
    start("invert", halved, *OWN, *SHORT)
    (halved / "halved.py").unlink()
    sys.modules.pop("halved")
    instantiate._named.clear()
    page = report.report(composed("report", f"root={halved}").copy()).read_text()
    assert "task=physics-Halved" in page
    assert "halved" not in sys.modules


def test_saved_measurements_are_inverted_where_the_command_names_the_module_again(halved):
    run_dir = start("invert", halved, *OWN, *SHORT, "save_measurements=true")
    file = halved / "y.npz"
    shutil.copy(min((run_dir / "measurements").iterdir()), file)
    words = [f"input={file}", f"output={halved / 'out'}", *SHORT]
    held_out = {"num_images", "image_seed", "yardstick.use"}
    words += [word for word in COMMON if word.partition("=")[0] not in held_out]
    words += [f"root={halved}"]

    def invert_file(*task):
        overrides = [*task, *words]
        invert.invert(composed("invert", *overrides).copy(), overrides)

    invert_file(*OWN)
    assert list((halved / "out").glob("*.json"))
    instantiate._named.clear()
    sys.modules.pop("halved")
    with pytest.raises(ValueError, match=r"task\.physics\._target_: halved\.Halved there"):
        invert_file("task=physics")
    assert "halved" not in sys.modules  # not even imported


@pytest.mark.parametrize(
    ("words", "why"),
    [
        (["task.physics._target_=no_such.Class"], "No module named 'no_such'"),
        (["task.physics._target_=halved.Other"], "halved.Other cannot be imported"),
        (["~task.physics.step"], "missing 1 required positional argument: 'step'"),
        (["+task.physics.in_shape=[1,64,64]"], r"\[1, 64, 64\] and the generator draws \[1, 16"),
        (["+task.physics.steps=3"], "unexpected keyword argument 'steps'"),
        (["task.physics.step=0"], "Halved does not measure images"),
        (
            ["task.physics._target_=torch.nn.Dropout", "~task.physics.step", "+task.physics.q=1"],
            "'q'",
        ),
        (["noise_std=-1"], "noise_std=-1 must be"),
        (["~task.physics.step", "task.physics=3"], "task.physics=3 names no class"),
        (["ratio=0.5"], "ratio"),
    ],
)
def test_what_cannot_be_measured_is_refused_before_anything_is_written(halved, words, why):
    with pytest.raises((ValueError, HydraException), match=why):
        start("invert", halved, *OWN, *SHORT, *words)
    assert not (halved / "invert").exists()


def test_the_noise_of_a_physics_is_that_of_the_run():
    noise = ["+task.physics.noise_model.sigma=0.05"]
    assert composed("invert", "task=physics").noise_std == 0
    assert composed("invert", "task=physics", *noise).noise_std == 0.05
    assert composed("invert", "task=physics", *noise, "noise_std=0.1").noise_std == 0.1


COMMANDS = [line for line in PAGE.splitlines() if line.startswith("python -m rtil.invert")]


@pytest.mark.parametrize("line", COMMANDS)
def test_the_pages_commands_run(tmp_path, monkeypatch, line):
    pytest.importorskip("deepinv", reason='pip install "rtil[deepinv]"')
    monkeypatch.setattr(instantiate, "_named", set())
    export(tmp_path)
    words = shlex.split(line)[3:]
    assert len(rows_of(start("invert", tmp_path, *words, *SHORT))) == 2


def test_the_pages_model_is_tested_by_deepinv(tmp_path, monkeypatch):
    deepinv = pytest.importorskip("deepinv", reason='pip install "rtil[deepinv]"')
    export(tmp_path)
    (file,) = tmp_path.rglob("generator.pt")
    monkeypatch.chdir(file.parent)
    (text,) = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
    x = torch.rand(2, 1, 16, 16, generator=torch.Generator().manual_seed(0))
    pairs = torch.utils.data.TensorDataset(x, deepinv.physics.Inpainting(x.shape[1:], 1.0)(x))
    names = {"loader": torch.utils.data.DataLoader(pairs, 2)}
    exec(text.replace("(100, 50, 50)", "(2, 2, 2)"), names)
    assert names["model"].count == 2


def test_the_page_says_how_deepinv_is_installed():
    extras = Path(__file__).parents[2] / "pyproject.toml"
    assert re.search(r"^deepinv = ", extras.read_text(), re.M)
    assert 'pip install "rtil[deepinv]"' in PAGE
