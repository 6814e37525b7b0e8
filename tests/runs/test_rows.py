"""Rows that survive a crash, and files that are replaced as a whole."""

import os

import pytest

from rtil.process.files import write_text
from rtil.runs import rows as jsonl

ROWS = [{"id": i, "psnr_db": 20.0 + i, "note": "line\u2028break\n"} for i in range(3)]


def test_appended_rows_come_back(tmp_path):
    path = tmp_path / "results.jsonl"
    assert jsonl.read(path) == []
    jsonl.append(path, ROWS[:2])
    jsonl.append(path, ROWS[2:])
    assert jsonl.read(path) == ROWS


def test_rows_survive_a_cut_at_any_byte_of_the_last_line(tmp_path):
    """Read without the cut row, and mended: rows appended after the crash stay readable."""
    path = tmp_path / "results.jsonl"
    jsonl.append(path, ROWS)
    whole = path.read_bytes()
    start = whole[:-1].rindex(b"\n") + 1
    for end in range(start, len(whole) + 1):
        path.write_bytes(whole[:end])
        complete = ROWS if end >= len(whole) - 1 else ROWS[:2]
        assert jsonl.read(path) == complete
        assert jsonl.mend(path) == complete
        jsonl.append(path, [{"id": 9}])
        assert jsonl.read(path) == [*complete, {"id": 9}]


def test_broken_line_before_the_last_is_an_error_that_names_it(tmp_path):
    path = tmp_path / "results.jsonl"
    jsonl.append(path, ROWS)
    lines = path.read_text().splitlines()
    path.write_text("\n".join([lines[0], lines[1][:-4], lines[2]]) + "\n")
    with pytest.raises(ValueError, match=r"results\.jsonl, line 2: not JSON"):
        jsonl.read(path)
    with pytest.raises(ValueError, match="line 2"):
        jsonl.mend(path)


def test_mend_keeps_the_rows_asked_for(tmp_path):
    path = tmp_path / "log.jsonl"
    assert jsonl.mend(path) == [] and not path.exists()
    jsonl.append(path, ROWS)
    assert jsonl.mend(path, keep=lambda row: row["id"] <= 1) == ROWS[:2]
    assert jsonl.read(path) == ROWS[:2]


def test_rows_of_all_processes_are_one_per_image(tmp_path):
    rows = {name: {"id": name, "psnr_db": 20.0} for name in "abc"}
    jsonl.append(tmp_path / "results.jsonl", [rows["a"], rows["b"]])
    jsonl.append(tmp_path / "results-1.jsonl", [rows["c"], rows["a"]])
    jsonl.append(tmp_path / "log.jsonl", [{"id": 9}])
    found = sorted(jsonl.result_rows(tmp_path), key=lambda row: row["id"])
    assert found == [*rows.values()]


def test_failing_text_write_keeps_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "config.yaml"
    write_text(path, "old")

    def fail(*names):
        raise OSError("No space left on device")

    monkeypatch.setattr(os, "replace", fail)
    with pytest.raises(OSError, match="No space"):
        write_text(path, "new")
    assert path.read_text() == "old" and os.listdir(tmp_path) == ["config.yaml"]
