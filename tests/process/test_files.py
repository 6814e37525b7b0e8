"""A file is replaced as a whole, by one process at a time, and nothing half written stays."""

import subprocess
import sys
import threading

import pytest

from rtil.process.command import entry
from rtil.process.files import replacing, write_text
from rtil.runs import rows

WRITER = (
    "import sys\nfrom pathlib import Path\nfrom rtil.process.files import write_text\n"
    "for _ in range(300):\n    write_text(Path(sys.argv[1]), sys.argv[2] * 5000)\n"
)


def test_a_failure_leaves_the_old_content_alone(tmp_path):
    path = tmp_path / "file"
    write_text(path, "old")
    with pytest.raises(ValueError), replacing(path) as temporary:
        temporary.write_text("half")
        raise ValueError
    assert path.read_text() == "old" and [*tmp_path.iterdir()] == [path]


def test_what_a_killed_process_left_is_taken_over(tmp_path):
    path = tmp_path / "file"
    code = (
        "import os, sys\nfrom pathlib import Path\nfrom rtil.process.files import replacing\n"
        "with replacing(Path(sys.argv[1])) as temporary:\n"
        "    temporary.write_text('half' * 100)\n    os.kill(os.getpid(), 9)\n"
    )
    assert subprocess.run([sys.executable, "-c", code, str(path)]).returncode == -9
    assert len([*tmp_path.iterdir()]) == 1
    write_text(path, "whole")
    assert path.read_text() == "whole" and [*tmp_path.iterdir()] == [path]


def test_writers_of_one_file_take_turns(tmp_path):
    path = tmp_path / "file"
    writers = [
        subprocess.Popen([sys.executable, "-c", WRITER, str(path), letter]) for letter in "abc"
    ]
    contents = set()
    while any(writer.poll() is None for writer in writers):
        if path.exists():
            contents.add(path.read_text())
    assert [writer.returncode for writer in writers] == [0, 0, 0]
    assert contents <= {letter * 5000 for letter in "abc"} and [*tmp_path.iterdir()] == [path]


@pytest.fixture
def full(tmp_path):
    """A file on a disk that is full."""
    path = tmp_path / "rows.jsonl"
    path.symlink_to("/dev/full")
    return path


def test_a_full_disk_ends_a_command_with_the_file_and_what_to_do(full, capsys):
    with pytest.raises(SystemExit):
        entry(lambda: rows.append(full, [{"id": "a"}]))
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: ") and str(full) in line and "free some space" in line


def test_a_full_disk_found_by_a_thread_is_one_line(full, capsys, monkeypatch):
    monkeypatch.setattr(threading, "excepthook", threading.excepthook)
    entry(lambda: None)
    thread = threading.Thread(target=rows.append, args=(full, [{"id": "a"}]))
    thread.start()
    thread.join()
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: ") and str(full) in line
