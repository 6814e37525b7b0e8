"""Rows of sources that no commit holds are known as such, and packed only where that is told."""

import json

import pytest
from helpers.reports import make_run
from hydra import compose, initialize_config_dir

from rtil import report
from rtil.process.command import CONFIGS
from rtil.runs import archive
from rtil.runs import run as run_files

CLEAN, CHANGED = "0123456789ab", "0123456789ab-dirty"


def composed(**changes):
    with initialize_config_dir(CONFIGS, version_base="1.3"):
        return compose("report", [f"{key}={value}" for key, value in changes.items()])


def recorded(folder, *commits):
    """Writes a history with these commits, the first one last."""
    records = [{"command": [f"{number}.py"], "commit": one} for number, one in enumerate(commits)]
    folder.mkdir(parents=True, exist_ok=True)
    content = {**records[0], "before": records[1:]}
    (folder / "provenance.json").write_text(json.dumps(content))


def written(root, trained=(CLEAN,), inverted=(CLEAN,)):
    """A run below root whose two histories have these commits."""
    run_dir = make_run(root, "vanilla", {"a": 20.0}, pictures=False)
    recorded(root / "train" / run_dir.parent.name, *trained)
    recorded(run_dir, *inverted)
    return run_dir


@pytest.mark.parametrize(
    "trained, inverted, parts",
    [
        ((CLEAN,), (CLEAN,), ()),
        ((None,), (None,), ()),
        ((CHANGED,), (CLEAN,), ("training",)),
        ((CLEAN,), (CLEAN, CHANGED), ("inversion",)),
        ((CLEAN, CHANGED), (CHANGED,), ("training", "inversion")),
    ],
)
def test_a_run_says_which_of_its_parts_no_commit_holds_packed_or_not(
    tmp_path, trained, inverted, parts
):
    root, file = tmp_path / "runs", tmp_path / "rows.jsonl"
    written(root, trained, inverted)
    (run,), _ = run_files.collect(root)
    archive.write([run], root, file)
    (packed,), _ = archive.read(file)
    assert (run.uncommitted, packed.uncommitted) == (parts, parts)


@pytest.mark.parametrize(
    "part, commits",
    [("training", {"trained": (CHANGED,)}), ("inversion", {"inverted": (CHANGED,)})],
)
def test_packing_names_the_runs_that_no_commit_holds_and_writes_nothing(tmp_path, part, commits):
    root, file = tmp_path / "runs", tmp_path / "rows.jsonl"
    run_dir = written(root, **commits)
    with pytest.raises(ValueError) as error:
        report.pack(composed(root=root, pack=file))
    assert f"{run_dir} ({part})" in str(error.value)
    assert "allow_uncommitted=true" in str(error.value)
    assert not file.exists()
    report.pack(composed(root=root, pack=file, allow_uncommitted=True))
    assert len(file.read_text().splitlines()) == 1


def test_packing_takes_runs_of_committed_sources_untold(tmp_path):
    root, file = tmp_path / "runs", tmp_path / "rows.jsonl"
    written(root)
    report.pack(composed(root=root, pack=file))
    assert len(file.read_text().splitlines()) == 1
