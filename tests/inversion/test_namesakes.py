"""A generator that is found by the name of its images was trained on these, or is refused."""

import shutil

import numpy as np
import pytest
import yaml
from helpers.commands import resolved
from PIL import Image

from rtil.data.load import split_files
from rtil.inversion.setup import trained_generator
from rtil.runs import identity, keys


def pictures(folder, seed):
    folder.mkdir(parents=True)
    rng = np.random.default_rng(seed)
    for i in range(4):
        Image.fromarray(rng.integers(0, 256, (16, 16), np.uint8)).save(folder / f"{i}.bmp")
    return folder


def configured(command, root, path):
    config = resolved(command, "scale=tiny", "data=folder", "data.path=photos")
    config["data"] |= {"num_val": 0, "num_test": 1, "path": str(path)}
    return {**config, "root": str(root)}


def train(root, path, version="now"):
    """A file where the command would leave its generator; version 0.1 noted no digest."""
    config = configured("train", root, path)
    if version == "now":
        config[keys.FILES] = split_files(config["data"], "train").digest()
    file = identity.train_dir(config) / "generator.pt"
    file.parent.mkdir(parents=True, exist_ok=True)
    (file.parent / "config.yaml").write_text(yaml.safe_dump(config))
    file.write_bytes(b"found, not read")
    return file


def found(root, path):
    return trained_generator(configured("invert", root, path))


@pytest.fixture(params=["folders", "zips"])
def places(request, tmp_path):
    """Two data sets of one name."""
    sets = [pictures(tmp_path / parent / "photos", seed) for seed, parent in enumerate("ab")]
    if request.param == "zips":
        sets = [shutil.make_archive(str(path), "zip", path) for path in sets]
    return [str(path) for path in sets]


@pytest.mark.parametrize("version", ["now", "0.1"])
@pytest.mark.parametrize("first", [0, 1])
def test_images_of_one_name_do_not_lend_each_other_their_generator(
    tmp_path, places, first, version
):
    own, other = places[first], places[1 - first]
    generator = train(tmp_path, own, version)
    assert found(tmp_path, own) == generator
    with pytest.raises((FileNotFoundError, ValueError)) as error:
        found(tmp_path, other)
    assert own in str(error.value) and other in str(error.value)


@pytest.mark.parametrize("first", [0, 1])
def test_each_of_two_data_sets_of_one_name_has_its_generator(tmp_path, places, first):
    files = {path: train(tmp_path, path) for path in (places[first], places[1 - first])}
    assert len({*files.values()}) == 2
    for path, file in files.items():
        assert found(tmp_path, path) == file


@pytest.mark.parametrize("version", ["now", "0.1"])
def test_images_may_move(tmp_path, places, version, caplog):
    generator = train(tmp_path, places[0], version)
    (tmp_path / "moved").mkdir()
    moved = shutil.move(places[0], tmp_path / "moved")
    assert found(tmp_path, moved) == generator
    assert ("not known" in caplog.text) == (version == "0.1")


def test_a_generator_of_images_that_are_gone_is_found_by_their_name_and_said_so(
    tmp_path, places, caplog
):
    generator = train(tmp_path, places[0])
    assert found(tmp_path, tmp_path / "gone" / places[0].rpartition("/")[2]) == generator
    assert f"trained on data.path={places[0]}" in caplog.text and "gone" in caplog.text
