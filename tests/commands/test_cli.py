"""The commands of the README as a user types them, at tiny size, from another directory."""

import json
import os
import subprocess
import sys

import pytest

TINY = ["scale=tiny", "hardware=cpu", "hardware.threads=1"]


def command(cwd, *arguments):
    return subprocess.run(
        [sys.executable, "-m", *arguments],
        cwd=cwd,
        capture_output=True,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        timeout=300,
    )


@pytest.mark.slow
def test_train_then_invert_then_report(tmp_path):
    for rtil in ("vanilla", "ilo"):
        done = command(tmp_path, "rtil.train", "model=stylegan2", f"rtil={rtil}", *TINY)
        assert done.returncode == 0, done.stderr
    done = command(
        tmp_path,
        "rtil.invert",
        "-m",
        "task=cs",
        "ratio=0.05,0.5",
        *TINY,
        "rtil=vanilla,ilo",
        "yardstick.num_train=50",
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("oracle PSNR (picked by the true image)") == 4
    done = command(tmp_path, "rtil.report")
    assert done.returncode == 0, done.stderr
    assert "ratio 0.05" in done.stdout and "ratio 0.5" in done.stdout
    page = (tmp_path / "runs" / "report" / "report.html").read_text()
    assert "vanilla" in page and "ilo" in page and "No samples" not in page
    assert {p.name for p in tmp_path.iterdir()} == {"runs"}  # no stray files


@pytest.mark.slow
def test_theory_prints_both_lemmas_and_draws_the_figure(tmp_path):
    done = command(
        tmp_path,
        "rtil.theory",
        "n0=2",
        "n1=4",
        "nd=12",
        "ratios=[0.5]",
        "num_train=[100]",
        "steps=50",
        "num_signals=4",
    )
    assert done.returncode == 0, done.stderr
    assert "bound (4)" in done.stdout
    assert (tmp_path / "runs" / "theory" / "theory.png").stat().st_size > 1000


def test_an_error_is_one_message_and_not_a_traceback(tmp_path):
    done = command(tmp_path, "rtil.invert", "ratio=1.4", *TINY)
    assert done.returncode == 1
    assert done.stderr.startswith("error: task=cs: ratio=1.4 must be in (0, 1]")
    assert "Traceback" not in done.stderr
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
def test_a_key_that_does_not_exist_is_named(tmp_path):
    done = command(tmp_path, "rtil.train", "learning_rate=1", *TINY)
    assert done.returncode == 1 and "learning_rate" in done.stderr


def test_rtil_alone_lists_every_command_with_a_line_and_without_torch(tmp_path):
    done = command(tmp_path, "rtil")
    lines = [line.split(maxsplit=1) for line in done.stdout.splitlines() if line.startswith("  ")]
    assert done.returncode == 0
    names = {name for name, _ in lines}
    assert {"train", "invert", "tune", "report", "app", "diagnose", "theory"} <= names
    assert all(text.endswith(".") for _, text in lines)
    code = "import sys, rtil.__main__ as m; m.main(); print('torch' in sys.modules)"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert found.stdout.splitlines()[-1] == "False"


def test_an_unknown_command_names_the_nearest(tmp_path):
    done = command(tmp_path, "rtil", "trian")
    assert done.returncode == 1
    assert "rtil has no command 'trian'; did you mean `rtil train`?" in done.stderr


@pytest.mark.slow
def test_rtil_train_is_python_m_rtil_train(tmp_path):
    given = ["scale=tiny", "hardware=cpu", "hardware.threads=1", "total_nimg=8"]
    records = []
    for name, words in (("a", ["rtil", "train"]), ("b", ["rtil.train"])):
        done = command(tmp_path, *words, *given, f"root={name}")
        assert done.returncode == 0, done.stderr
        (path,) = tmp_path.glob(f"{name}/train/*/provenance.json")
        record = json.loads(path.read_text())
        records.append((path.parent.name, record["command"][:-1]))
    assert records[0] == records[1] and records[0][1] == ["train.py", *given]


def completed(typed, *words):
    """What bash offers where a line is typed up to its end."""
    code = (
        'eval "$("$1" -m rtil --shell-completion)"; COMP_LINE=$2; COMP_POINT=${#2}; shift 2\n'
        'COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1)); _rtil; printf "%s\\n" "${COMPREPLY[@]}"'
    )
    arguments = ["bash", "-c", code, "bash", sys.executable, typed, *words]
    done = subprocess.run(arguments, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    return done.stdout.split()


def test_bash_completes_choices_and_keys_of_a_command():
    python = sys.executable
    for word, offered in (
        ("model=sty", ["model=stylegan2"]),
        ("inverter.lr_s", ["inverter.lr_style="]),
    ):
        words = [python, "-m", "rtil.invert", "task=cs", word]
        assert completed(" ".join(words), *words) == offered
    words = [python, "-m", "rtil.invert", "inverter="]
    assert "inverter=mgan" in completed(" ".join(words), *words)
    assert completed("rtil t", "rtil", "t") == ["theory", "train", "tune"]
    assert completed("python -m json.tool x", "python", "-m", "json.tool", "x") == []
