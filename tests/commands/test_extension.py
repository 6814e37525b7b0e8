"""The recipes of CONTRIBUTING.md: each part is one file and one yaml, with no edit elsewhere.

Files stand in a folder of their own that the packages are told of, yamls in one on Hydra's search
path; nothing else knows of them. The commands of the page run as they stand there.
"""

import json
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

import rtil

pytestmark = pytest.mark.slow  # commands in processes of their own

PAGE = (Path(__file__).parents[2] / "CONTRIBUTING.md").read_text()
RECIPES = PAGE.partition("\n## Recipes\n")[2].partition("\n## ")[0]
FILES = dict(re.findall(r"^`([\w/.]+)`:\n\n```\w+\n(.*?)^```", RECIPES, re.DOTALL | re.MULTILINE))
COMMANDS = [
    shlex.split(line)
    for block in re.findall(r"^```bash\n(.*?)^```", RECIPES, re.DOTALL | re.MULTILINE)
    for line in block.splitlines()
]
PACE = ["hardware=cpu", "hardware.threads=1"]

# Only tells the packages of the folder, as an installed package would, and runs the command.
LAUNCHER = """
import importlib
import runpy
import sys
from pathlib import Path

folder = Path(sys.argv[1])
for room in {path.parent.relative_to(folder) for path in folder.glob("rtil/**/*.py")}:
    package = importlib.import_module(".".join(room.parts))
    package.__path__.append(str(folder / room))
command = sys.argv[2]
sys.argv = [command, *sys.argv[3:]]
runpy.run_module(command, run_name="__main__", alter_sys=True)
"""


SOURCES = Path(rtil.__file__).parents[1]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """What is left in a folder after the recipes, their commands run one after the other."""
    folder = tmp_path_factory.mktemp("recipes")
    for name, text in {**FILES, "launch.py": LAUNCHER.lstrip()}.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    # A path that is not there would be ignored, and the choices unknown.
    search = f"hydra.searchpath=[file://{folder / 'configs'}]"
    for _, _, module, *words in COMMANDS:
        pace = [] if module == "rtil.report" else PACE
        done = subprocess.run(
            [sys.executable, "launch.py", str(folder), module, *words, search, *pace],
            capture_output=True,
            text=True,
            cwd=folder,
            # Found before the folder's own rtil, which is no package, however rtil is installed.
            env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(SOURCES)},
            timeout=300,
        )
        assert done.returncode == 0, done.stdout + done.stderr
    return folder


@pytest.fixture(scope="module")
def table(folder):
    """The rows of the last report, by (arm, inverter, value of the knob)."""
    rows = json.loads((folder / "runs" / "sharpness" / "table.json").read_text())
    return {(row["arm"], row["inverter"], row["value"]): row for row in rows}


def test_every_recipe_has_a_file_and_a_command():
    kinds = re.split(r"^### ", RECIPES, flags=re.MULTILINE)[1:]
    assert len(kinds) >= 7
    for recipe in kinds:
        assert ".py`:" in recipe and "```bash\npython -m rtil." in recipe, recipe[:40]


def test_each_new_part_is_trained_measured_and_inverted(folder):
    models = {path.name.split("-")[1] for path in folder.glob("runs/train/*")}
    assert {"vanilla", "shrunk", "hinge", "ilo"} == models
    assert {path.name for path in folder.glob("runs/train/wrapped-*")}


def test_a_new_knob_is_swept(table):
    swept = {value for arm, _, value in table if arm == "vanilla"}
    assert {0.1, 0.25, 0.5} <= swept


def test_a_new_inverter_is_reported(table):
    row = table["shrunk", "search", 0.5]
    assert row["task"] == "dim" and row["psnr_db"]["n"] == 2
    assert row["lmmse_psnr_db"]["mean"] > row["psnr_db"]["mean"]


def test_a_new_distance_scores_results(folder):
    lines = [
        json.loads(line)
        for path in folder.glob("runs/invert/**/results.jsonl")
        for line in path.read_text().splitlines()
    ]
    scored = [line["coarse"] for line in lines if "coarse" in line]
    assert len(scored) == 2 and min(scored) > 0


def test_a_new_figure_is_on_every_later_page(folder):
    page = (folder / "runs" / "sharpness" / "report.html").read_text()
    assert "PSNR over sharpness" in page
    assert (folder / "runs" / "sharpness" / "sharpness.png").stat().st_size > 1000
