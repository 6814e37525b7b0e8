"""A command that is killed anywhere, and run again, leaves what an undisturbed one leaves.

Every operation that changes a file is a place to be killed at: open for writing, rename, remove,
mkdir, fsync. `pytest -m slow -s tests/reliability/test_kills.py` prints how many there were.
"""

import json
import random
import shutil
import zipfile

import numpy as np
import pytest
import torch
import yaml
from helpers.children import Command, Nursery
from PIL import Image

from rtil.process.digest import digest

pytestmark = [pytest.mark.slow, pytest.mark.timeout(3600)]
TINY = ("hardware=cpu", "hardware.threads=1", "scale=tiny", "data.num_train=64")
FEW = ("task=cs", "ratio=0.5", "yardstick.num_train=64", "inversion_batch=2")
TRAIN = Command(
    "rtil.train",
    (*TINY, "rtil=ilo_mixture", "batch=8", "total_nimg=24", "checkpoint_every=8", "log_every=1")
    + ("samples_every=16", "run_dir=run", "keep_checkpoints=1"),
)
INVERT = Command(
    "rtil.invert",
    (*TINY, *FEW, "generator=../given/generator.pt", "num_images=4", "save_measurements=true")
    + ("run_dir=run",),
)
OWN = Command(
    "rtil.invert",
    (*TINY, "task=inpainting", "generator=../given/generator.pt", "input=../given/pictures")
    + ("mask=../given/mask.png", "fit=resize", "inversion_batch=1", "output=out"),
)
TUNE = Command(
    "rtil.tune",
    (*TINY, *FEW, "generator=../given/generator.pt", "trials=2", "num_images=1")
    + ("final_images=2", "finalists=1"),
)
REPORT = Command("rtil.report", ("root=../given/runs", "out=report", "gallery=2"))
ARCHIVE = Command(
    "rtil.report", ("root=../given/runs", "pack=packed.jsonl", "allow_uncommitted=true")
)
PACK = Command(
    "prepare_data", ("../given/pictures", "out.zip", "--resolution", "16", "--workers", "1")
)
IMPORT = Command("import_checkpoint", ("../given/foreign.pt", "--out", "imported.pt"))
# As typed again after a kill: what is to be written may be there.
AGAIN = {"prepare_data": ("--force",), "import_checkpoint": ("--force",)}
COMMANDS = {
    "train": TRAIN,
    "invert": INVERT,
    "invert input": OWN,
    "tune": TUNE,
    "report": REPORT,
    "report pack": ARCHIVE,
    "prepare_data": PACK,
    "import_checkpoint": IMPORT,
}
RANDOM_KILLS = 50
CLOCKED = ("seconds", "images_per_second", "peak_memory_mb")
COMMIT = ("commit", "before")  # which differ where the sources are changed meanwhile


@pytest.fixture(scope="module")
def nursery(tmp_path_factory):
    """Where commands run, beside what they are given: a generator, runs, pictures."""
    folder = tmp_path_factory.mktemp("kills")
    given = folder / "given"
    given.mkdir()
    nursery = Nursery(folder)
    make_pictures(given)

    def made(command, *words):
        ended = nursery.run(command._replace(words=(*command.words, *words)))
        assert ended.code == 0, ended.text

    made(TRAIN, "image_channels=3", "keep_checkpoints=1", "run_dir=../given/colour")
    made(TRAIN, "run_dir=../given/trained")
    shutil.copy(given / "trained" / "generator.pt", given)
    for ratio in ("0.25", "0.5"):
        made(INVERT, f"ratio={ratio}", "run_dir=null", "root=../given/runs")
    colour = str(given / "colour" / "generator.pt")
    made(Command("import_checkpoint", ("--export", "rosinality", colour, "--out", "foreign.pt")))
    shutil.move(nursery.work / "foreign.pt", given)
    return nursery


def make_pictures(folder):
    rng = np.random.default_rng(0)
    (folder / "pictures").mkdir()
    for i in range(3):
        picture = rng.integers(0, 255, (18, 20), dtype=np.uint8)
        Image.fromarray(picture).save(folder / "pictures" / f"{i}.png")
    mask = np.where(rng.random((18, 20)) < 0.5, 0, 255).astype(np.uint8)
    Image.fromarray(mask).save(folder / "mask.png")


def state_of(folder):
    """What lies below a folder, by contents, without what a clock says."""
    return {
        str(path.relative_to(folder)): content_of(path)
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.parent.name != "tensorboard"
    }


def content_of(path):
    if path.suffix == ".pt":
        return digest(torch.load(path, weights_only=True))
    if path.suffix == ".jsonl":
        return [untimed(json.loads(line)) for line in path.read_text().splitlines()]
    if path.suffix == ".json":
        return untimed(json.loads(path.read_text()))
    if path.suffix == ".yaml":
        return untimed(yaml.safe_load(path.read_text()))
    if path.suffix in (".zip", ".npz"):
        with zipfile.ZipFile(path) as archive:
            return {name: archive.read(name) for name in archive.namelist()}
    return path.read_bytes()


def untimed(value):
    """JSON without durations, and without the state of the sources."""
    if isinstance(value, dict):
        return {key: untimed(each) for key, each in value.items() if key not in CLOCKED + COMMIT}
    return [untimed(each) for each in value] if isinstance(value, list) else value


def differences(wanted, found):
    """Names of files that are not as they should be."""
    return sorted(name for name in {*wanted, *found} if wanted.get(name) != found.get(name))


def undisturbed(nursery, command):
    """What a command leaves, its file operations, and its seconds."""
    nursery.clear()
    ended = nursery.run(command)
    assert ended.code == 0, ended.text
    return state_of(nursery.work), ended


def repeat(nursery, command, wanted):
    """Runs a killed command again; what is wrong then, or ""."""
    more = AGAIN.get(command.module, ())
    ended = nursery.run(command._replace(words=(*command.words, *more)))
    if ended.code != 0:
        return f"exit {ended.code}: {ended.text[-500:]}"
    differing = differences(wanted, state_of(nursery.work))
    return f"differs: {', '.join(differing)}" if differing else ""


@pytest.mark.parametrize("name", COMMANDS)
def test_a_kill_at_any_file_operation_is_made_good_by_the_same_command(nursery, name):
    command = COMMANDS[name]
    wanted, first = undisturbed(nursery, command)
    assert first.operations > 2
    wrong = {}
    for number in range(first.operations):
        nursery.clear()
        assert nursery.run(command, kill_at=number).code == -9
        problem = repeat(nursery, command, wanted)
        if problem:
            wrong[number] = problem
    print(f"\n{name}: {first.operations} kills, {first.operations - len(wrong)} made good")
    assert not wrong, "\n".join(f"operation {n}: {text}" for n, text in wrong.items())


def test_a_kill_at_any_time_is_made_good_by_the_same_command(nursery):
    rng = random.Random(0)
    undisturbed_ones = {name: undisturbed(nursery, command) for name, command in COMMANDS.items()}
    kills, wrong = 0, []
    while kills < RANDOM_KILLS:
        name = rng.choice([*COMMANDS])
        wanted, first = undisturbed_ones[name]
        seconds = rng.uniform(0.0, first.seconds)
        nursery.clear()
        if nursery.run(COMMANDS[name], kill_after=seconds).code != -9:
            continue  # it had ended
        kills += 1
        problem = repeat(nursery, COMMANDS[name], wanted)
        if problem:
            wrong.append(f"{name} after {seconds:.2f} s: {problem}")
    print(f"\n{kills} kills at random times, {kills - len(wrong)} made good")
    assert not wrong, "\n".join(wrong)
