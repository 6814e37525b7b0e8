"""What a killed, copied or damaged training leaves behind is known as that, and made good."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
import zipfile

import pytest
import torch
from helpers.trainings import config

from rtil import checkpoint, train
from rtil.process.digest import digest

CHOICE = ("rtil=ilo_mixture", "checkpoint_every=16", "keep_checkpoints=3")


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A run of 48 images with the checkpoints of 16, 32 and 48."""
    run_dir = tmp_path_factory.mktemp("trained") / "run"
    train.train(config(f"run_dir={run_dir}", *CHOICE, "total_nimg=48"))
    return run_dir


@pytest.fixture
def copied(trained, tmp_path):
    return shutil.copytree(trained, tmp_path / "run")


def go_on(run_dir, nimg=64):
    train.train(config(f"run_dir={run_dir}", *CHOICE, f"total_nimg={nimg}"))
    return checkpoint.load(run_dir / "generator.pt")


def damage(path, where=0.5):
    """Zeroes 40 bytes of a tensor's record, which torch would load without a word."""
    data = bytearray(path.read_bytes())
    with zipfile.ZipFile(path) as archive:
        records = [entry for entry in archive.infolist() if "/data/" in entry.filename]
        largest = max(records, key=lambda entry: entry.file_size)
    start = largest.header_offset + 200 + int(where * (largest.file_size - 240))
    assert any(data[start : start + 40])
    data[start : start + 40] = bytes(40)
    path.write_bytes(data)


def test_a_generator_older_than_its_checkpoint_is_brought_to_it(copied, tmp_path):
    newest = checkpoint.load(copied / "generator.pt")
    older = checkpoint.load(copied / "checkpoint-0000000016.pt")
    counters = {key: older[key] for key in ("config", "nimg", "step", "G_ema")}
    checkpoint.save({"format": checkpoint.EXPORT, **counters}, copied / "generator.pt")
    content = go_on(copied, 48)  # trained already
    assert content["nimg"] == 48 and digest(content["G_ema"]) == digest(newest["G_ema"])
    (copied / "generator.pt").unlink()
    assert digest(go_on(copied, 48)) == digest(content)


def test_a_checkpoint_that_a_killed_training_had_yet_to_drop_is_dropped(copied):
    train.train(config(f"run_dir={copied}", *CHOICE, "total_nimg=48", "keep_checkpoints=2"))
    names = [path.name for path in checkpoint.checkpoints(copied)]
    assert names == ["checkpoint-0000000032.pt", "checkpoint-0000000048.pt"]


@pytest.mark.parametrize("name", ["generator.pt", "checkpoint-0000000048.pt"])
@pytest.mark.parametrize("where", [0.1, 0.9])
def test_a_changed_weight_is_refused_by_name(copied, name, where):
    damage(copied / name, where)
    with pytest.raises(ValueError, match=rf"{name} is damaged"):
        checkpoint.load_generator(copied / name)


def test_a_changed_weight_in_a_file_without_digest_is_refused_too(copied):
    content = checkpoint.load(copied / "generator.pt")
    assert checkpoint.DIGEST not in content  # as version 0.1 wrote it
    torch.save(content, copied / "old.pt")
    assert checkpoint.load_generator(copied / "old.pt")[0].num_blocks
    damage(copied / "old.pt")
    with pytest.raises(ValueError, match=r"old\.pt is damaged"):
        checkpoint.load_generator(copied / "old.pt")


@pytest.mark.parametrize("how", ["zeroed", "truncated", "empty"])
def test_training_goes_on_from_the_newest_good_checkpoint_and_keeps_the_bad_one(
    copied, trained, caplog, how
):
    bad = copied / "checkpoint-0000000048.pt"
    if how == "zeroed":
        damage(bad)
    else:
        bad.write_bytes(bad.read_bytes()[: 5000 if how == "truncated" else 0])
    before = bad.read_bytes()
    content = go_on(copied, 48)
    assert "checkpoint-0000000048.pt" in caplog.text
    assert "goes on from" in caplog.text and "checkpoint-0000000032.pt" in caplog.text
    assert (copied / "checkpoint-0000000048.pt.damaged").read_bytes() == before
    whole = checkpoint.load(trained / "generator.pt")
    assert digest(content["G_ema"]) == digest(whole["G_ema"])
    rows = [json.loads(line) for line in (copied / "log.jsonl").open()]
    assert [row["nimg"] for row in rows] == sorted({row["nimg"] for row in rows})


def test_training_without_a_good_checkpoint_says_so_and_touches_nothing(copied):
    for path in checkpoint.checkpoints(copied):
        path.write_bytes(b"")
    names = sorted(path.name for path in copied.iterdir())
    with pytest.raises(ValueError, match=r"none of the 3 checkpoints of .* is good"):
        go_on(copied)
    assert sorted(path.name for path in copied.iterdir()) == names


def test_files_that_rtil_did_not_name_are_neither_chosen_nor_removed(copied):
    own = copied / "checkpoint-best.pt"
    shutil.copy(copied / "checkpoint-0000000016.pt", own)
    assert go_on(copied)["nimg"] == 64
    assert own.exists()
    assert [path.name for path in checkpoint.checkpoints(copied)] == [
        f"checkpoint-{nimg:010d}.pt" for nimg in (32, 48, 64)
    ]


def test_a_renamed_checkpoint_is_refused(copied):
    shutil.copy(copied / "checkpoint-0000000016.pt", copied / "checkpoint-0000000064.pt")
    with pytest.raises(ValueError, match="at 16 images, not at 64: it was renamed"):
        go_on(copied, 80)


@pytest.mark.parametrize("content", [
    {"format": ((("nested",) * 50,) * 50,) * 50},
    {"format": checkpoint.EXPORT},
    {"format": checkpoint.EXPORT, "config": {}, "nimg": 1},
    [1, 2],
    {"format": "x" * 100_000},
])  # fmt: skip
def test_contents_that_are_no_generator_are_refused_in_a_short_line(tmp_path, content):
    path = tmp_path / "generator.pt"
    torch.save(content, path)
    begin = time.perf_counter()
    with pytest.raises(ValueError, match=r"generator\.pt") as error:
        checkpoint.load_generator(path)
    assert time.perf_counter() - begin < 2 and len(str(error.value)) < 600


def test_a_tensor_that_shows_more_than_it_stores_is_refused_before_it_is_made(tmp_path):
    path = tmp_path / "generator.pt"
    weights = {"w": torch.zeros(1).expand(400_000_000)}
    counters = {"config": {}, "nimg": 1, checkpoint.DIGEST: "0" * 64}
    torch.save({"format": checkpoint.EXPORT, "G_ema": weights, **counters}, path)
    with pytest.raises(ValueError, match="more elements than it stores"):
        checkpoint.load_generator(path)


def test_a_record_that_unpacks_to_more_than_the_file_is_refused(tmp_path):
    whole, path = tmp_path / "whole.pt", tmp_path / "packed.pt"
    torch.save({"w": torch.zeros(10_000_000)}, whole)
    with zipfile.ZipFile(whole) as old, zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as new:
        for entry in old.infolist():
            new.writestr(entry.filename, old.read(entry))
    assert path.stat().st_size < 100_000
    with pytest.raises(ValueError, match=r"record .* unpacks to \d+ bytes from"):
        checkpoint.read(path)


@pytest.mark.slow
def test_a_second_training_of_a_run_is_refused_and_told_of_the_first(copied):
    arguments = ["scale=tiny", "hardware=cpu", "hardware.threads=1", "data.num_train=64", *CHOICE]
    command = [sys.executable, "-m", "rtil.train", *arguments, f"run_dir={copied}"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    first = subprocess.Popen([*command, "total_nimg=100000"], env=environment)
    try:
        owner = copied / ".owner"
        while not (owner.exists() and owner.read_text()) and first.poll() is None:
            time.sleep(0.05)
        with pytest.raises(RuntimeError, match=f"in use by process {first.pid} on"):
            go_on(copied)
    finally:
        os.kill(first.pid, signal.SIGKILL)
        first.wait()
    assert go_on(copied)["nimg"] >= 64  # nothing holds it any more


def test_curves_have_every_point_once_after_a_resume(copied):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    go_on(copied)
    events = EventAccumulator(str(copied / "tensorboard"))
    events.Reload()
    logged = [json.loads(line)["nimg"] for line in (copied / "log.jsonl").open()]
    assert [event.step for event in events.Scalars("D/real")] == logged and len(logged) > 3
