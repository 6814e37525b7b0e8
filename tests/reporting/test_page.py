"""The page: names from files stay names, one table for both renderings, no torch if packed."""

import json
import re
import subprocess
import sys
from html import unescape
from pathlib import Path

import pytest
from helpers.reports import make_run, run_report
from PIL import Image

from rtil.reporting import pictures
from rtil.reporting.sections import Table, Text, markdown, page
from rtil.reporting.statistics import scores
from rtil.runs.run import Run, collect

ROOT = Path(__file__).parents[2]
HOSTILE = '"><script>alert("x")</script>'


def test_a_report_of_packed_rows_imports_no_torch(tmp_path):
    program = (
        "import sys; from rtil import report; report.main(); "
        "print([name for name in ('torch', 'rtil.diagnosis') if name in sys.modules])"
    )
    words = ["results=results/shift32.jsonl", f"out={tmp_path}"]
    line = [sys.executable, "-c", program, *words]
    done = subprocess.run(line, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == "[]"


def test_names_from_files_are_texts_of_the_page_and_stay_in_its_folder(tmp_path):
    """Ids, data sets and arms are what somebody's files say."""
    for arm in ("vanilla", "il<b>o"):
        run_dir = make_run(tmp_path, arm, {"a": 20.0})
        config = run_dir / "config.yaml"
        config.write_text(config.read_text().replace("name: glyphs", "name: ../../<i>away"))
        row = json.loads((run_dir / "results.jsonl").read_text()) | {"id": HOSTILE}
        with open(run_dir / "results.jsonl", "a") as file:
            file.write(json.dumps(row) + "\n")
    out = run_report(tmp_path)
    html = (out / "report.html").read_text()
    for text in (HOSTILE, "il<b>o", "<i>away"):
        assert text not in html and text in unescape(html)
    assert html.count("<script>") == 1
    drawn = {path.parent for path in tmp_path.rglob("*.png")} - {*tmp_path.glob("invert/*/*/*")}
    assert drawn == {out}
    assert not [*tmp_path.parent.glob("*away*")]


@pytest.mark.parametrize("name", ["../secret", "/secret", "a/../../secret"])
def test_an_id_that_leads_out_of_its_folder_names_no_picture(tmp_path, name):
    folder = tmp_path / "images"
    folder.mkdir()
    for path in (tmp_path / "secret.png", folder / "a.png"):
        Image.new("L", (4, 4)).save(path)
    part = pictures.Part("x", [Run(tmp_path, {}, {})], "")
    assert part.image("a") is not None
    assert part.image(name) is None


def test_both_renderings_of_a_table_hold_its_cells_and_its_remarks():
    rows = [{"a": "1", "b": "2 | 3"}, {"a": "–", "b": "x < y"}]
    table = Table("T", rows, ["better", "missing"])
    remark = Text("Run:", ["python -m rtil.invert 'x=[1,2]'"])
    html, text = page("x", "", {"Tables": [table, remark]}), markdown([table, remark])
    cells = [unescape(cell) for cell in re.findall("<td>(.*?)</td>", html)]
    assert cells == ["1", "2 | 3", "–", "x < y"]
    assert re.findall(r'<tr class="(\w+)">', html) == ["better", "missing"]
    for line in ("## T", "| a | b     |", "| – | x < y |", "Run:", *remark.commands):
        assert line in text.splitlines()
    assert remark.commands[0] in unescape(html)


def test_a_run_that_several_jobs_share_has_its_numbers_once(tmp_path):
    make_run(tmp_path, "ilo", {"a": 20.0, "b": 22.0}, pictures=False)
    runs, _ = collect(tmp_path)
    values = scores([*runs, *runs], "psnr_db")
    assert values[0].to_dict() == {"a": 20.0, "b": 22.0}
