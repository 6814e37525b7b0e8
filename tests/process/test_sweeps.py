"""A job of a sweep that fails ends no other, and is named at the end with its command."""

import shlex
import shutil
import subprocess
import sys

import pytest
from helpers.experiments import QUICK, command

# A command as those of rtil are, which imports no torch.
APP = """
import os
import signal
from pathlib import Path

import hydra

from rtil.process.command import CONFIGS, entry


def work(cfg):
    done = Path(cfg.root) / f"done-{cfg.seed}"
    if done.exists():
        print(f"{cfg.seed} is done already")
        return None
    if cfg.seed == 1 and not (done.parent / "mended").exists():
        raise ValueError("seed=1 is refused.\\nA second line.")
    if cfg.seed == 2:
        raise KeyError("a mistake of the code")
    if cfg.seed == 5 and not (done.parent / "mended").exists():
        os.kill(os.getpid(), signal.SIGKILL)
    done.touch()
    return 15 if cfg.seed == 4 else None


@hydra.main(version_base="1.3", config_path=CONFIGS, config_name="train")
def main(cfg):
    entry(lambda: work(cfg))


main()
"""


def sweep(folder, *words):
    (folder / "app.py").write_text(APP)
    return subprocess.run(
        [sys.executable, "app.py", *words, f"root={folder}"],
        cwd=folder,
        capture_output=True,
        text=True,
    )


def done_of(folder):
    return sorted(path.name for path in folder.glob("done-*"))


def test_the_others_run_and_the_failures_are_listed_at_the_end(tmp_path):
    ended = sweep(tmp_path, "-m", "seed=0,1,2,3")
    assert ended.returncode == 1
    assert done_of(tmp_path) == ["done-0", "done-3"]
    listed = ended.stderr.partition("error: 2 of 4 jobs failed")[2].splitlines()
    assert listed[1:5] == [
        "  seed=1 is refused.",
        f"    python -m rtil.train seed=1 root={tmp_path}",
        "  KeyError: 'a mistake of the code'",
        f"    python -m rtil.train seed=2 root={tmp_path}",
    ]


def test_the_same_command_runs_what_failed_alone(tmp_path):
    assert sweep(tmp_path, "-m", "seed=0,1").returncode == 1
    (tmp_path / "mended").touch()
    again = sweep(tmp_path, "-m", "seed=0,1")
    assert again.returncode == 0
    assert again.stdout.count("is done already") == 1
    assert done_of(tmp_path) == ["done-0", "done-1"]


def test_a_job_of_an_experiment_does_alike(tmp_path):
    ended = sweep(tmp_path, "experiment=fig2_cs", "rtil=vanilla", "seed=0,1,3")
    assert ended.returncode == 1
    assert done_of(tmp_path) == ["done-0", "done-3"]
    command = "python -m rtil.train experiment=fig2_cs seed=1 root="
    assert command in ended.stderr.partition("error: 1 of 3 jobs failed")[2]


def test_a_stop_signal_ends_the_sweep(tmp_path):
    ended = sweep(tmp_path, "-m", "seed=0,4,3")
    assert ended.returncode == 128 + 15
    assert done_of(tmp_path) == ["done-0", "done-4"]


@pytest.mark.slow
@pytest.mark.parametrize("launcher", ["joblib", "submitit_local"])
def test_other_launchers_do_alike(tmp_path, launcher):
    pytest.importorskip(f"hydra_plugins.hydra_{launcher.partition('_')[0]}_launcher")
    ended = sweep(tmp_path, "-m", "seed=0,1,3", f"hydra/launcher={launcher}")
    assert ended.returncode == 1, ended.stderr
    assert "error: 1 of 3 jobs failed" in ended.stderr and "seed=1 is refused." in ended.stderr
    assert done_of(tmp_path) == ["done-0", "done-3"]


@pytest.mark.slow
@pytest.mark.parametrize("launcher", ["joblib", "submitit_local"])
def test_a_job_whose_process_is_killed_fails_like_any_other(tmp_path, launcher):
    pytest.importorskip(f"hydra_plugins.hydra_{launcher.partition('_')[0]}_launcher")
    words = ("-m", "seed=0,5,1,3", f"hydra/launcher={launcher}")
    ended = sweep(tmp_path, *words)
    assert ended.returncode == 1 and "Traceback" not in ended.stderr, ended.stderr
    assert done_of(tmp_path) == ["done-0", "done-3"]
    listed = ended.stderr.partition("error: 2 of 4 jobs failed")[2].splitlines()
    assert listed[1].startswith("  its process was killed, most likely because memory ran out")
    assert listed[2] == f"    python -m rtil.train seed=5 root={tmp_path}"
    assert listed[3:5] == [
        "  seed=1 is refused.",
        f"    python -m rtil.train seed=1 root={tmp_path}",
    ]
    (tmp_path / "mended").touch()
    assert sweep(tmp_path, *words).returncode == 0
    assert done_of(tmp_path) == ["done-0", "done-1", "done-3", "done-5"]


@pytest.mark.slow
def test_an_experiment_runs_on_submitit_and_lacks_the_failed_job_alone(tmp_path):
    pytest.importorskip("hydra_plugins.hydra_submitit_launcher")
    chosen = ["experiment=fig2_cs", "scale=demo", "hydra/launcher=submitit_local", *QUICK]
    lengths = ["scale.ilo.steps=[2,1,1]", "yardstick.num_train=64", "num_images=1"]
    assert command(tmp_path, "rtil.train", *chosen, "total_nimg=64")[0] == 0
    assert command(tmp_path, "rtil.invert", *chosen, *lengths)[0] == 0
    results = sorted(tmp_path.glob("runs/invert/**/results.jsonl"))
    assert len(results) == 2

    # One run is lost, and something else lies in its place.
    lost = results[0].parent
    shutil.rmtree(lost)
    lost.write_text("no directory")
    code, _, error = command(tmp_path, "rtil.invert", *chosen, *lengths)
    _, _, failures = error.partition("error: 1 of 2 jobs failed")
    assert code == 1 and str(lost.relative_to(tmp_path)) in failures, error
    (line,) = [line.strip() for line in failures.splitlines() if line.startswith("    python")]

    lost.unlink()
    _, _, module, *words = shlex.split(line)
    assert command(tmp_path, module, *words)[0] == 0
    assert sorted(tmp_path.glob("runs/invert/**/results.jsonl")) == results
