"""Laws of ownership: one at a time, named to the second, ended with its process."""

import errno
import fcntl
import logging
import os
import signal
import socket
import subprocess
import sys
import time

import pytest

from rtil.process.lock import NAME, Owner, held

HOLD = (
    "import sys, time\nfrom pathlib import Path\nfrom rtil.process.lock import Owner\n"
    "owner = Owner(Path(sys.argv[1]), 'train')\nprint('held', flush=True)\ntime.sleep(60)\n"
)


def holder(directory):
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(directory)], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout.readline() == "held\n"
    return process


def test_the_second_is_refused_at_once_and_told_who_is_first(tmp_path):
    first = holder(tmp_path / "run")
    try:
        begin = time.perf_counter()
        with pytest.raises(RuntimeError) as error:
            Owner(tmp_path / "run", "invert")
        assert time.perf_counter() - begin < 1
        for part in (str(tmp_path / "run"), str(first.pid), socket.gethostname(), "train"):
            assert part in str(error.value)
    finally:
        first.kill()
        first.wait()


def test_a_lock_ends_with_its_process_however_that_ends(tmp_path):
    first = holder(tmp_path)
    os.kill(first.pid, signal.SIGKILL)
    first.wait()
    assert (tmp_path / NAME).exists()  # a file, and no lock
    owner = Owner(tmp_path, "train")
    owner.release()
    owner.release()
    assert not (tmp_path / NAME).exists()
    Owner(tmp_path, "invert").release()


def test_a_process_may_own_several_directories_and_files(tmp_path):
    owners = [Owner(tmp_path / name, "train") for name in "ab"]
    refused = pytest.raises(RuntimeError, match=r"x\.zip is in use")
    with held(tmp_path / "x.zip", "pack"), refused, held(tmp_path / "x.zip", "pack"):
        pytest.fail("both hold it")
    for owner in owners:
        owner.release()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a", "b"]


def test_of_many_that_want_it_at_once_one_has_it(tmp_path):
    code = (
        "import sys, time\nfrom pathlib import Path\nfrom rtil.process.lock import Owner\n"
        "log = open(sys.argv[2], 'a')\n"
        "for _ in range(200):\n"
        "    try:\n        owner = Owner(Path(sys.argv[1]), 'train')\n"
        "    except RuntimeError:\n        continue\n"
        "    for word in ('in\\n', 'out\\n'):\n"
        "        log.write(word)\n        log.flush()\n        time.sleep(0.001)\n"
        "    owner.release()\n"
    )
    command = [sys.executable, "-c", code, str(tmp_path / "run"), str(tmp_path / "log")]
    processes = [subprocess.Popen(command) for _ in range(4)]
    assert [process.wait() for process in processes] == [0] * 4
    lines = (tmp_path / "log").read_text().split()
    assert len(lines) > 20 and lines == ["in", "out"] * (len(lines) // 2)


def test_what_a_killed_owner_left_half_written_is_swept(tmp_path):
    (tmp_path / ".checkpoint-0000000008.pt.tmp-1234").write_bytes(b"half")
    (tmp_path / "kept.pt").write_bytes(b"whole")
    Owner(tmp_path, "train").release()
    assert [path.name for path in tmp_path.iterdir()] == ["kept.pt"]


def test_a_file_system_without_locks_is_said_so(tmp_path, monkeypatch, caplog):
    def refuse(file, how):
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", refuse)
    with caplog.at_level(logging.WARNING):
        Owner(tmp_path, "train").release()
    assert "without locks" in caplog.text and str(tmp_path) in caplog.text
