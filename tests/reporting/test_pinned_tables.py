"""The tables of every committed results file stay as they were, number by number."""

import gzip
import json
from pathlib import Path

import pytest
from hydra import compose, initialize_config_dir

from rtil import report
from rtil.process.command import CONFIGS
from rtil.reporting.study import Source, of_everything
from rtil.reporting.tables import record

ROOT = Path(__file__).parents[2]
PINNED = json.loads(gzip.decompress((ROOT / "tests/golden/tables.json.gz").read_bytes()))


def test_every_pinned_results_file_is_there():
    assert {path.stem for path in (ROOT / "results").glob("*.jsonl")} >= PINNED.keys()


@pytest.mark.parametrize("name", sorted(PINNED))
def test_the_rows_of_a_results_file_are_the_pinned_ones(name, monkeypatch):
    monkeypatch.chdir(ROOT)  # rows name the file as it was typed
    study = of_everything(Source(Path("runs"), (Path(f"results/{name}.jsonl"),)), "vanilla")
    rows = json.dumps([record(row) for row in study.rows])
    assert json.loads(rows, parse_constant=lambda _: None) == PINNED[name]


@pytest.mark.parametrize(
    "name", [pytest.param(n, marks=() if n == "cars32" else pytest.mark.slow) for n in PINNED]
)
def test_the_table_of_a_report_is_the_pinned_one(name, tmp_path, monkeypatch):
    monkeypatch.chdir(ROOT)
    with initialize_config_dir(CONFIGS, version_base="1.3"):
        cfg = compose("report", [f"results=results/{name}.jsonl", f"out={tmp_path}"])
    report.report(cfg)
    assert json.loads((tmp_path / "table.json").read_text()) == PINNED[name]
