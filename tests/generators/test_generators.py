"""Generators that are named: by a file, as one that comes with rtil, or by an address of a hub."""

import shutil
import socket
import time
from pathlib import Path

import pytest
import yaml
from helpers.commands import COMMON, composed, export, start
from helpers.trainings import config as training

import rtil
from rtil import checkpoint, diagnose, generators, train
from rtil.diagnosis.render import Trained, loaded
from rtil.generators import hub
from rtil.importers.sharing import share_file
from rtil.process.digest import digest
from rtil.runs.run import Run, generator_file
from rtil.training import initial

COMMIT, OTHER = "a" * 40, "b" * 40
NOT_CACHED = r"^hf://.*out of reach.* cache .* does not hold it.*HF_HUB_OFFLINE"
SHORT = ("task=cs", "ratio=0.5", "inverter=csgm", "inverter.steps=2", "num_images=1")


@pytest.fixture(scope="module")
def shared(tmp_path_factory):
    """A generator as safetensors."""
    root = tmp_path_factory.mktemp("shared")
    export(root, rtil="ilo")
    (source,) = root.glob("train/*/generator.pt")
    share_file(source, root / "generator.safetensors")
    return root / "generator.safetensors"


@pytest.mark.slow
def test_a_shared_file_is_read_wherever_a_generator_is(shared, tmp_path, monkeypatch):
    run_dir = start("invert", tmp_path, f"generator={shared}", *SHORT)
    recorded = yaml.safe_load((run_dir / "config.yaml").read_text())
    assert recorded["generator"] == str(shared) and recorded["rtil"]["name"] == "ilo"
    words = [*COMMON, f"root={tmp_path}", f"generator={shared}", "num_samples=20", "dims=4"]
    words += ["bootstrap=2", "stage_steps=1", "num_images=1"]
    place = diagnose.diagnose(composed("diagnose", *words).copy(), words)
    assert (place / "diagnose.json").exists()
    G, _ = loaded(Trained(("glyphs", "tiny", "stylegan2"), "ilo", shared))
    assert G.z_dim == rtil.load_generator(shared)[0].z_dim


def test_what_a_training_starts_from_is_the_same_in_both_files(shared):
    (source,) = shared.parent.glob("train/*/generator.pt")
    ours, theirs = (initial.read(file) for file in (source, shared))
    assert ours.sha256 == theirs.sha256 and theirs.name == str(shared)


@pytest.mark.slow
def test_a_training_starts_from_a_shared_file_as_from_what_it_was_made_of(shared, tmp_path):
    (source,) = shared.parent.glob("train/*/generator.pt")
    found = []
    for file in (source, shared):
        words = (f"init={file}", "total_nimg=8", "init_d_nimg=0", "rtil=ilo")
        train.train(training(f"run_dir={tmp_path / file.suffix}", *words))
        content = checkpoint.load(tmp_path / file.suffix / "generator.pt")
        assert content["config"]["init"] == str(file)
        found.append((digest(content["G_ema"]), content["config"]["init_sha256"]))
    assert found[0] == found[1]


# Generators that come with rtil.


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.setattr(generators, "FOLDER", tmp_path)
    return tmp_path


def test_a_name_is_that_of_a_file_of_the_folder_and_is_recorded(folder, shared, tmp_path):
    shutil.copy(shared, folder / "letters-rtil.safetensors")
    assert generators.locate("letters-rtil") == (
        folder / "letters-rtil.safetensors",
        "letters-rtil",
    )
    run_dir = start("invert", tmp_path / "runs", "generator=letters-rtil", *SHORT)
    recorded = yaml.safe_load((run_dir / "config.yaml").read_text())
    assert recorded["generator"] == "letters-rtil"
    run = Run(run_dir, recorded, {}, [])
    assert generator_file(run, tmp_path) == folder / "letters-rtil.safetensors"
    assert rtil.load_generator("letters-rtil")[1]["rtil"]["name"] == "ilo"


@pytest.mark.parametrize("present", [(), ("faces", "letters")])
def test_an_unknown_name_lists_those_that_there_are(folder, present):
    for name in present:
        (folder / f"{name}.safetensors").touch()
    listed = ", ".join(present) or "none"
    with pytest.raises(FileNotFoundError, match=rf"generator=digits: .*\({listed}\)"):
        rtil.load_generator("digits")


def test_a_file_of_the_same_name_comes_first(folder, monkeypatch):
    (folder / "letters.safetensors").touch()
    monkeypatch.chdir(folder)
    Path("letters").touch()
    assert generators.locate("letters").path == Path("letters")
    with pytest.raises(FileNotFoundError, match=r"init=letters\.pt: no checkpoint at letters\.pt"):
        generators.locate("letters.pt", "init")


def test_what_comes_with_rtil_is_read_and_has_a_card():
    shipped = generators.shipped()
    assert {"letters", "letters-rtil"} <= shipped.keys()
    for name, file in shipped.items():
        card = file.with_suffix(".md").read_text()
        assert f"generator={name} " in card and "fill in" not in card, name
        assert file.stat().st_size < 3e6, f"{name}: every wheel carries it"
        G, config = rtil.load_generator(name)
        assert G.image_shape[1] == config["resolution"]


# Hubs, without a network: a folder that is laid out as the library's cache.


@pytest.fixture
def cache(tmp_path, monkeypatch, shared):
    """A cache with two revisions of a repository; main is the first one."""
    constants = pytest.importorskip("huggingface_hub.constants", reason='pip install "rtil[hub]"')
    repo = tmp_path / "hub" / "models--someone--letters"
    for commit, name in ((COMMIT, "generator.safetensors"), (OTHER, "old/g.safetensors")):
        file = repo / "snapshots" / commit / name
        file.parent.mkdir(parents=True)
        shutil.copy(shared, file)
    (repo / "refs").mkdir()
    (repo / "refs" / "main").write_text(COMMIT)
    (repo / "refs" / "v1").write_text(OTHER)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    return repo / "snapshots"


@pytest.mark.parametrize(
    ("text", "file"),
    [
        ("hf://someone/letters", f"{COMMIT}/generator.safetensors"),
        ("hf://someone/letters@main", f"{COMMIT}/generator.safetensors"),
        (f"hf://someone/letters@{COMMIT}", f"{COMMIT}/generator.safetensors"),
        ("hf://someone/letters/old/g.safetensors@v1", f"{OTHER}/old/g.safetensors"),
    ],
)
def test_an_address_is_a_file_of_the_cache_and_its_record_names_the_commit(cache, text, file):
    path, name = generators.locate(text)
    commit, _, own = file.partition("/")
    assert path == cache / file and name == f"hf://someone/letters/{own}@{commit}"
    assert generators.locate(name) == (path, name)
    assert generators.local(name) == path


def test_a_run_records_the_commit_and_not_the_branch(cache, tmp_path):
    run_dir = start("invert", tmp_path, "generator=hf://someone/letters", *SHORT)
    recorded = yaml.safe_load((run_dir / "config.yaml").read_text())
    assert recorded["generator"] == f"hf://someone/letters/generator.safetensors@{COMMIT}"
    assert generator_file(Run(run_dir, recorded, {}, []), tmp_path).exists()


@pytest.mark.slow
def test_a_training_records_the_commit_that_it_starts_from(cache, tmp_path):
    words = ("init=hf://someone/letters", "total_nimg=8", "init_d_nimg=0", "rtil=ilo")
    train.train(training(f"run_dir={tmp_path / 'train'}", *words))
    recorded = yaml.safe_load((tmp_path / "train" / "config.yaml").read_text())
    assert recorded["init"] == f"hf://someone/letters/generator.safetensors@{COMMIT}"


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("hf://someone/digits", NOT_CACHED),
        ("hf://someone/letters/none.safetensors", NOT_CACHED),
        ("hf://someone/letters@v9", NOT_CACHED),
        (f"hf://someone/letters@{'c' * 40}", NOT_CACHED),
        ("hf://-x-/letters..", "^hf://.*no such file on the hub"),
    ],
)
def test_what_is_not_in_the_cache_is_told_in_a_line(cache, text, why):
    with pytest.raises(FileNotFoundError, match=why) as error:
        rtil.load_generator(text)
    assert "\n" not in str(error.value) and len(str(error.value)) < 700
    assert not generators.local(text).exists()


@pytest.fixture
def unplugged(cache, monkeypatch):
    """A cache and no network."""
    constants = pytest.importorskip("huggingface_hub.constants")

    def unresolved(*_: object, **__: object):
        raise socket.gaierror(socket.EAI_AGAIN, "Temporary failure in name resolution")

    monkeypatch.setattr(socket, "getaddrinfo", unresolved)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    return cache.parents[1]


def test_without_a_network_the_cache_serves_and_what_it_lacks_is_told_soon(unplugged):
    name = f"hf://someone/letters/generator.safetensors@{COMMIT}"
    assert generators.locate("hf://someone/letters").name == name
    begin = time.perf_counter()
    with pytest.raises(FileNotFoundError, match=NOT_CACHED) as error:
        rtil.load_generator("hf://someone/digits")
    assert time.perf_counter() - begin < 5
    assert str(unplugged) in str(error.value) and "name resolution" in str(error.value)


@pytest.mark.parametrize(
    "text",
    [
        "hf://",
        "hf://letters",
        "hf://a/b/",
        "hf://a/b@",
        "hf://a/b/../c",
        "hf://../b",
        "hf://a b/c",
    ],
)
def test_an_address_that_is_none_says_what_one_is(text):
    with pytest.raises(ValueError, match="hf://user/repo/file@revision"):
        generators.locate(text)


def test_without_the_library_the_extra_is_named(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "huggingface_hub", None)
    with pytest.raises(ValueError, match=r'pip install "rtil\[hub\]"'):
        generators.locate("hf://someone/letters")
    assert hub.cached("hf://someone/letters") is None
