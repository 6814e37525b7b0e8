"""A run that is going can be looked at: a report takes what is on disk by then."""

import json

import pytest
import yaml
from helpers.reports import make_run, run_report

from rtil.process.lock import Owner


def test_a_report_shows_the_rows_that_a_running_inversion_has_written(tmp_path):
    run_dir = make_run(tmp_path, "ilo", {"a": 20.0, "b": 22.0, "c": 24.0}, pictures=False)
    make_run(tmp_path, "vanilla", {"a": 19.0, "b": 21.0, "c": 22.0, "d": 9.0}, pictures=False)
    owner = Owner(run_dir, "rtil.invert")
    try:
        with open(run_dir / "results.jsonl", "a", encoding="utf-8") as file:
            file.write('{"id": "d", "psnr_db": 2')  # is being written
        before = {path: path.read_bytes() for path in run_dir.rglob("*") if path.is_file()}
        lines = json.loads((run_report(tmp_path) / "table.json").read_text())
        after = {path: path.read_bytes() for path in run_dir.rglob("*") if path.is_file()}
    finally:
        owner.release()
    (shown,) = [line["psnr_db"] for line in lines if line["arm"] == "ilo"]
    assert (shown["mean"], shown["n"]) == (22.0, 3)
    assert before == after


def test_a_training_that_runs_is_named_with_how_far_it_is(tmp_path):
    run_dir = tmp_path / "train" / "ilo-0"
    run_dir.mkdir(parents=True)
    (run_dir / "config.yaml").write_text(yaml.safe_dump({"total_nimg": 4000}))
    rows = [{"nimg": nimg, "step": nimg // 8} for nimg in (400, 800)]
    text = "".join(json.dumps(row) + "\n" for row in rows) + '{"nimg": 12'
    (run_dir / "log.jsonl").write_text(text)
    with pytest.raises(FileNotFoundError, match=r"ilo-0: 800 of 4000 images; see samples"):
        run_report(tmp_path)
