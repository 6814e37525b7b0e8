"""Files of a run are read with a schema: whatever is in them is one line that names the file."""

import json
import os
import time

import pytest
import yaml

from rtil.runs import archive, record, rows, schema, tuning
from rtil.runs.identity import read_config
from rtil.runs.kinds import ANYTHING, Record

READERS = {
    "config.yaml": lambda path: read_config(path.parent),
    "provenance.json": lambda path: record.history(path.parent),
    "results.jsonl": lambda path: rows.result_rows(path.parent, schema.ROW),
    "tuned.yaml": tuning.read,
    "packed.jsonl": archive.lines_of,
}
BOMB = "a: &a [x, x]\n" + "".join(f"{b}: &{b} [*{a}, *{a}]\n" for a, b in zip("abcdefghijklmno"
       "pqrstuvwxyz", "bcdefghijklmnopqrstuvwxyz"))  # fmt: skip
JUNK = {
    "a list": b"[]",
    "a number": b"12",
    "a text": b'"x"',
    "nothing": b"null",
    "cut off": b'{"id": "a", "psnr\n',
    "bytes": b"\xff\xfe\x00{}",
    "zeros": bytes(4096),
    "deep": b"[" * 100_000,
    "digits": b'{"id": ' + b"9" * 5000 + b"}",
}


@pytest.mark.parametrize("junk", JUNK)
@pytest.mark.parametrize("name", READERS)
def test_junk_in_a_file_is_one_line_that_names_it(tmp_path, name, junk):
    path = tmp_path / name
    path.write_bytes(JUNK[junk] + b"\n")
    begin = time.perf_counter()
    with pytest.raises(ValueError) as error:
        READERS[name](path)
    line = str(error.value)
    assert str(path) in line and "\n" not in line and len(line) < len(str(path)) + 400
    assert time.perf_counter() - begin < 2


@pytest.mark.parametrize("kind", ["folder", "pipe", "device"])
@pytest.mark.parametrize("name", READERS)
def test_only_regular_files_are_read(tmp_path, name, kind):
    path = tmp_path / name
    if kind == "folder":
        path.mkdir()
    elif kind == "pipe":
        os.mkfifo(path)
    else:
        path.symlink_to("/dev/zero")
    with pytest.raises(ValueError, match=rf"{name} is no regular file"):
        READERS[name](path)


def test_a_file_that_names_its_lists_many_times_is_never_walked_through(tmp_path):
    (tmp_path / "config.yaml").write_text(BOMB)
    with pytest.raises(ValueError, match="holds more than 1000000 entries"):
        read_config(tmp_path)


def test_a_large_file_is_refused_before_it_is_read(tmp_path):
    path = tmp_path / "config.yaml"
    with open(path, "wb") as file:
        file.truncate(schema.LARGEST + 1)
    with pytest.raises(ValueError, match="bytes; rtil writes 268435456 at most"):
        read_config(tmp_path)


@pytest.mark.parametrize(("setting", "named"), [
    ({"ratio": None}, "ratio=null must be a number from 0"),
    ({"seed": "0"}, "seed='0' must be a whole number"),
    ({"model": {"betas": [0.0]}}, "model.betas=[0.0] must be a list of 2"),
    ({"data": {"mirror": "yes"}}, "data.mirror=yes must be true or false"),
    ({"total_nimg": 1e26}, "total_nimg=1e+26 must be a whole number"),
    ({"data": {"path": 5}}, "data.path=5 must be a text or null"),
])  # fmt: skip
def test_a_recorded_setting_of_another_kind_is_named(tmp_path, setting, named):
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(setting))
    with pytest.raises(ValueError) as error:
        read_config(tmp_path)
    assert f"{tmp_path / 'config.yaml'}: {named}" in str(error.value)


def test_a_root_that_is_named_as_a_number_is_found_again(tmp_path):
    (tmp_path / "config.yaml").write_text(yaml.safe_dump({"root": 2024, "run_dir": 7}))
    assert read_config(tmp_path) == {"root": 2024, "run_dir": 7}


@pytest.mark.parametrize(("row", "named"), [
    ({"id": 5}, "id=5 must be a text"),
    ({"psnr_db": 20.0}, "id is missing"),
    ({"id": "a"}, "psnr_db is missing"),
    ({"id": "a", "psnr_db": "20"}, "psnr_db='20' must be a number"),
    ({"id": "a", "psnr_db": None}, "psnr_db=null must be a number"),
    ({"id": "a", "psnr_db": float("nan")}, "psnr_db=nan must be a number"),
    ({"id": "", "psnr_db": 1.0}, "id='' must be a text"),
])  # fmt: skip
def test_a_row_without_an_id_or_a_score_counts_as_no_image(tmp_path, row, named):
    path = tmp_path / "results.jsonl"
    rows.append(path, [{"id": "b", "psnr_db": 1.0}, row])
    with pytest.raises(ValueError) as error:
        rows.result_rows(tmp_path, schema.ROW)
    assert f"{path}, line 2: {named}" in str(error.value) and "delete that line" in str(
        error.value
    )


@pytest.mark.parametrize(("content", "named"), [
    ({}, "command is missing"),
    ({"command": "invert.py"}, "command=invert.py must be a list"),
    ({"command": []}, "command=[] must be a list"),
    ({"command": ["a", 5]}, "command[1]=5 must be a text"),
    ({"command": ["a"], "before": [{}]}, "before[0].command is missing"),
    ({"command": ["a"], "experiments": [{"name": "x"}]}, "experiments[0].job is missing"),
    ({"command": ["a"], "experiments": [{"name": "x", "job": {"a": 1}}]}, "a=1 must be a text"),
])  # fmt: skip
def test_a_record_of_commands_is_of_its_kind(tmp_path, content, named):
    (tmp_path / "provenance.json").write_text(json.dumps(content))
    for read in (record.history, record.experiments, record.commands):
        with pytest.raises(ValueError) as error:
            read(tmp_path)
        assert named in str(error.value) and "provenance.json: " in str(error.value)


def test_what_is_parsed_is_what_was_written():
    kind = Record({"a": ANYTHING})
    assert schema.parsed('{"a": [1, {"b": null}]}', kind, "F", "") == {"a": [1, {"b": None}]}
