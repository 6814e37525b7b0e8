"""A picture is known by its contents: what a generator was trained on is no held-out image."""

import shutil
import zipfile

import numpy as np
import pytest
from PIL import Image

from rtil.data import lineage
from rtil.data.files import ImageFiles, Original
from rtil.data.load import split_files
from rtil.data.pack import Packing, pack


def pictures(folder, seeds, side=16):
    folder.mkdir(parents=True)
    for seed in seeds:
        rng = np.random.default_rng(seed)
        Image.fromarray(rng.integers(0, 256, (side, side), np.uint8)).save(folder / f"{seed}.png")
    return folder


def group(path, **more):
    counts = {"num_train": None, "num_val": 0, "num_test": 0, "split_seed": 0}
    return {"name": "folder", "source": "folder", "path": str(path), **counts, **more}


def check(trained_on, tested_on, **trained):
    """Asks whether images of one folder or zip are among those of another."""
    data = group(trained_on)
    digest = split_files(data, "train").digest()
    here = group("elsewhere", test_path=str(tested_on), num_test=None)
    trained = {"data": data, "split_files": digest, **trained}
    lineage._check.cache_clear()  # files of these tests change, those of a command do not
    lineage.check_held_out(trained, here, "test", "generator.pt")


def packed(source, name="pack", **options):
    out = source.parent / f"{name}.zip"
    pack(source, out, Packing(8, **options))
    return out


def anonymous(path):
    """The zip as another program, or version 0.1, would have written it."""
    out = path.with_name("anonymous.zip")
    with zipfile.ZipFile(path) as old, zipfile.ZipFile(out, "w") as new:
        for name in old.namelist():
            new.writestr(name, old.read(name))
    return out


def test_a_pack_says_what_each_image_was_made_from(tmp_path):
    source = pictures(tmp_path / "set", range(3))
    files, originals = ImageFiles(packed(packed(source), "again")), ImageFiles(source)
    for i in range(3):
        assert Original.of(originals.read(i)) in files.originals(i)
        assert len(files.originals(i)) == 2


@pytest.mark.parametrize("trained", ["set", "pack", "again"])
@pytest.mark.parametrize("tested", ["renamed", "set", "pack", "again", "other"])
def test_training_images_are_refused_under_any_name_and_size(tmp_path, trained, tested):
    source = pictures(tmp_path / "set", range(4))
    places = {"set": source, "pack": packed(source)}
    places["again"] = packed(places["pack"], "again")
    places["renamed"] = shutil.copytree(source, tmp_path / "renamed")
    places["other"] = packed(source, "other", channels=3)  # other pixels of the same pictures
    for i, path in enumerate(sorted(places["renamed"].iterdir())):
        path.rename(path.with_name(f"photo{i}.png"))
    with pytest.raises(ValueError, match="4 of the 4 images of split=test are among those"):
        check(places[trained], places[tested])


def test_a_file_that_was_unreadable_when_it_was_packed_hides_no_other(tmp_path):
    source = pictures(tmp_path / "set", range(6))
    (source / "0.png").write_bytes(b"damaged")
    with pytest.warns(UserWarning, match=r"0\.png"):
        out = packed(source)
    with pytest.raises(ValueError, match="5 of the 6 images of split=test"):
        check(out, source)


def test_duplicates_in_one_data_set_are_said_and_do_not_stop(tmp_path, caplog):
    source = pictures(tmp_path / "set", range(8))
    data = group(source, num_test=4)
    trained = {"data": data, "split_files": split_files(data, "train").digest()}
    lineage.check_held_out(trained, data, "test", "generator.pt")
    assert not caplog.records
    files, order = split_files(data, "test")
    shutil.copy(source / files.names[order[0]], tmp_path / "copy")
    (_, others) = split_files(data, "train")
    shutil.copy(tmp_path / "copy", source / files.names[others[0]])
    trained["split_files"] = split_files(data, "train").digest()
    lineage._check.cache_clear()
    lineage.check_held_out(trained, data, "test", "generator.pt")
    assert "1 of the 4 images of split=test are among" in caplog.text
    with pytest.raises(ValueError, match=r"(?s)images of split=test .*num_test"):
        lineage.check_held_out(trained, {**data, "num_test": 6}, "test", "generator.pt")


def test_equal_names_and_sizes_of_other_contents_are_other_images(tmp_path, caplog):
    check(pictures(tmp_path / "a" / "set", range(4)), pictures(tmp_path / "b", range(4, 8)))
    shades = tmp_path / "shades"
    shades.mkdir()
    for shade in range(4):
        Image.new("L", (16, 16), shade).save(shades / f"{shade}.bmp")
    others = shutil.copytree(shades, tmp_path / "others")
    for shade in range(4):
        Image.new("L", (16, 16), 100 + shade).save(others / f"{shade}.bmp")
    check(shades, others)
    assert not caplog.records


def test_checksums_that_agree_by_chance_are_no_evidence(tmp_path, monkeypatch, caplog):
    """Those of PNGs of one size agree for one pair in 65536."""
    one, other = pictures(tmp_path / "a", range(4)), pictures(tmp_path / "b", range(4, 8))
    monkeypatch.setattr(ImageFiles, "crc", lambda self, index: 1)
    monkeypatch.setattr(ImageFiles, "size", lambda self, index: 2)
    check(one, other)
    assert not caplog.records
    shutil.copy(one / "0.png", other / "9.png")
    with pytest.raises(ValueError, match=r"1 of the 5 images .*9\.png"):
        check(one, other)


@pytest.mark.parametrize("names", ["same", "others"])
def test_a_zip_of_unknown_sources_is_warned_of_where_names_agree(tmp_path, caplog, names):
    source = pictures(tmp_path / "set", range(4))
    unknown = anonymous(packed(source))
    if names == "others":
        source = pictures(tmp_path / "b", range(10, 14))
    check(unknown, source)
    told = "4 of the 4 images of split=test are named as images that generator.pt was trained on"
    assert (told in caplog.text) == (names == "same")


def test_training_images_that_are_not_here_are_warned_of(tmp_path, caplog):
    source, other = pictures(tmp_path / "a", range(4)), pictures(tmp_path / "b", range(4, 8))
    gone = {"data": group(tmp_path / "gone"), "split_files": "4 files, 0123456789abcdef"}
    check(source, other)
    assert not caplog.records
    check(source, other, **gone)
    assert "Whether images that generator.pt was trained on are among" in caplog.text


def test_images_of_the_same_name_elsewhere_are_no_training_images(tmp_path):
    own = pictures(tmp_path / "a" / "photos", range(4))
    other = group(pictures(tmp_path / "b" / "photos", range(4, 8)))
    trained = {"data": group(own), "split_files": split_files(group(own), "train").digest()}
    assert lineage.training_data(trained, other)["path"] == str(own)
    moved = group(shutil.move(own, tmp_path / "moved"))
    assert lineage.training_data(trained, moved)["path"] == moved["path"]
    with pytest.raises(FileNotFoundError, match="b/photos is another source"):
        lineage.training_data(trained, other)
    # Version 0.1 noted nothing else than the name.
    found = lineage.training_data({**trained, "split_files": None}, other)
    assert found["path"] == other["path"]


def test_images_of_what_a_generator_started_from_are_no_held_out_images(tmp_path):
    """Whatever it was trained on afterwards, and however long ago."""
    source, later = pictures(tmp_path / "set", range(4)), pictures(tmp_path / "later", range(4, 8))
    own = group(source)
    record = {"data": own, "split_files": split_files(own, "train").digest()}
    unrelated = {"data": group(pictures(tmp_path / "more", range(8, 12)))}
    with pytest.raises(ValueError, match="4 of the 4 images of split=test are among those"):
        check(later, source, init_images=[unrelated, record])
    check(later, source, init_images=[unrelated])
