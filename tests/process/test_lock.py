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

from rtil.process.lock import NAME, owned

HOLD = (
    "import sys, time\nfrom pathlib import Path\nfrom rtil.process.lock import owned\n"
    "with owned(Path(sys.argv[1]), 'train'):\n    print('held', flush=True)\n    time.sleep(60)\n"
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
        with pytest.raises(RuntimeError) as error, owned(tmp_path / "run", "invert"):
            pytest.fail("both hold it")
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
    assert (tmp_path / NAME).exists()
    with owned(tmp_path, "train"):
        pass
    with owned(tmp_path, "train"):  # and with its block
        pass


def test_a_process_may_own_several_directories(tmp_path):
    with owned(tmp_path / "a", "train"), owned(tmp_path / "b", "train"):
        assert (tmp_path / "a" / NAME).exists() and (tmp_path / "b" / NAME).exists()


def test_a_file_system_without_locks_is_said_so(tmp_path, monkeypatch, caplog):
    def refuse(file, how):
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", refuse)
    with caplog.at_level(logging.WARNING), owned(tmp_path, "train"):
        pass
    assert "without locks" in caplog.text and str(tmp_path) in caplog.text
