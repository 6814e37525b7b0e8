"""The demo refuses what it does not know before it installs anything."""

import subprocess
from pathlib import Path

import pytest

DEMO = Path(__file__).parents[2] / "scripts" / "demo.sh"


@pytest.mark.parametrize(
    ("words", "faces", "said"),
    [
        (["--fast"], "", "got --fast; allowed is --quick"),
        (["--quick", "--quick"], "", "got --quick --quick; allowed"),
        ([], "nowhere", "nowhere: No such file"),
    ],
)
def test_what_is_not_known_is_named_before_anything_is_installed(tmp_path, words, faces, said):
    # Without a path nothing could be installed or run.
    environment = {"PATH": "", "FACES": faces}
    line = ["/bin/bash", str(DEMO), *words]
    done = subprocess.run(line, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert done.returncode and said in done.stderr
