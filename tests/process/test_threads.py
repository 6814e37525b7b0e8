"""Threads that wait for others of their process sleep soon, so that cores can be shared."""

import os
import subprocess
import sys

import pytest

SAID = "import os, rtil; print(os.environ.get('GOMP_SPINCOUNT'))"


@pytest.mark.parametrize(("said", "spins"), [
    ({}, "1000"),
    ({"GOMP_SPINCOUNT": "7"}, "7"),
    ({"OMP_WAIT_POLICY": "active"}, "None"),
])  # fmt: skip
def test_threads_wait_briefly_unless_the_user_says_how(said, spins):
    names = ("GOMP_SPINCOUNT", "OMP_WAIT_POLICY")
    env = {key: value for key, value in os.environ.items() if key not in names}
    done = subprocess.run(
        [sys.executable, "-c", SAID], env={**env, **said}, capture_output=True, text=True
    )
    assert done.stdout.split() == [spins]


def test_rtil_is_imported_before_torch_by_its_commands():
    code = "import sys, rtil; assert 'torch' not in sys.modules"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
