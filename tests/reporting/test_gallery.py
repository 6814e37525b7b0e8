"""The page of experiments names every plan, and what packed rows belong to it."""

import re
import shutil
from pathlib import Path

import pytest

from rtil.reporting.documents import regenerate
from rtil.reporting.gallery import plan
from rtil.runs import reference

ROOT = Path(__file__).parents[2]
NAMES = reference.choices("experiment")
FOREST = "forest results=letters_mgan file=gains.png"


@pytest.fixture
def page(tmp_path):
    """A gallery of the rows of letters_mgan, one document drawing a figure of them."""
    (tmp_path / "results").mkdir()
    (tmp_path / "docs/evidence").mkdir(parents=True)
    shutil.copy(ROOT / "results/letters_mgan.jsonl", tmp_path / "results")
    (tmp_path / "README.md").write_text("# Title\n")
    (tmp_path / "docs/evidence/own.md").write_text(
        f"# Letters\n\n<!-- rtil: {FOREST} --><!-- end -->\n"
    )
    path = tmp_path / "docs/all.md"
    path.write_text("# All\n\n<!-- rtil: gallery --><!-- end -->\n")
    regenerate(tmp_path, check=False)
    return path.read_text()


def test_an_experiment_with_rows_has_a_section_with_its_figure_command_and_page(page):
    title = plan("evidence_mgan")["title"]
    (section,) = re.findall(rf"^## {re.escape(title)}\n(.*?)^## ", page, re.DOTALL | re.MULTILINE)
    assert "![Letters](evidence/gains.png)" in section
    assert "`python -m rtil.invert experiment=evidence_mgan`" in section
    assert "Rows: 36 runs in letters_mgan. Read in [Letters](evidence/own.md)." in section


def test_an_experiment_without_rows_is_in_the_list_and_in_no_section(page):
    sections, rest = page.split("## No rows")
    listed = re.findall(r"^\| `(\w+)` \|", rest, re.MULTILINE)
    assert listed == [name for name in NAMES if name != "evidence_mgan"]
    assert sections.count("\n## ") == 1


def test_every_plan_and_every_figure_of_gains_is_once_in_the_committed_gallery():
    text = (ROOT / "docs/experiments.md").read_text()
    for name in NAMES:
        assert text.count(f"experiment={name}`") + text.count(f"| `{name}` |") == 1, name
    figures = re.findall(r"\((figures/gains_\w+\.png)\)", text)
    assert sorted(figures) == sorted(
        path.relative_to(ROOT / "docs").as_posix() for path in ROOT.glob("docs/figures/gains_*")
    )
