"""Which files of a folder or zip are images and of what colour, and what is said of the others."""

import io
import logging
import warnings
import zipfile

import numpy as np
import pytest
import torch
from PIL import Image

from rtil.data.cut import Cut
from rtil.data.files import ImageFiles
from rtil.data.folder import ImageFolder
from rtil.data.pack import Packing, pack

HELD = Cut(val=0, test=None)


def image(path, seed=0, channels=1):
    path.parent.mkdir(parents=True, exist_ok=True)
    shape = (16, 16, 3) if channels == 3 else (16, 16)
    Image.fromarray(np.random.default_rng(seed).integers(0, 256, shape, np.uint8)).save(path)
    return path


def zipped(folder):
    path = folder.with_suffix(".zip")
    with zipfile.ZipFile(path, "w") as archive:
        for file in sorted(folder.rglob("*.*")):
            archive.write(file, file.relative_to(folder))
    return path


# Links


def test_a_linked_folder_is_read_once_and_moves_no_name_of_the_files_that_lie_there(tmp_path):
    root, away = tmp_path / "root", tmp_path / "away"
    image(root / "z" / "0.png")
    before = ImageFiles(root).names
    image(away / "1.png")
    image(away / "deep" / "2.png")
    (root / "a").symlink_to(root / "z")  # sorts before the folder itself
    (root / "b").symlink_to(away)
    (root / "c").symlink_to(away)
    (root / "d").symlink_to(away / "deep")
    assert before == ["z/0.png"]
    assert ImageFiles(root).names == ["b/1.png", "b/deep/2.png", "z/0.png"]


def test_links_in_a_circle_or_to_where_they_come_from_end(tmp_path):
    root = tmp_path / "root"
    image(root / "x" / "0.png")
    image(root / "y" / "1.png")
    image(tmp_path / "beside.png")
    (root / "x" / "y").symlink_to(root / "y")
    (root / "y" / "x").symlink_to(root / "x")
    (root / "x" / "self").symlink_to(root / "x")
    (root / "x" / "root").symlink_to(root)
    (root / "x" / "above").symlink_to(tmp_path)
    assert ImageFiles(root).names == ["x/0.png", "y/1.png"]


# What is left out


@pytest.mark.parametrize("as_zip", [False, True])
@pytest.mark.parametrize("cache_gb", [0, 1])
def test_one_line_counts_what_is_left_out_by_kind(tmp_path, caplog, as_zip, cache_gb):
    caplog.set_level(logging.INFO)
    folder = tmp_path / "set"
    for seed in range(3):
        image(folder / f"{seed}.png", seed)
        image(folder / "deep" / f"{seed}.gif", seed)
    (folder / "damaged.png").write_bytes(b"no picture")
    (folder / "LIST.TXT").write_text("text")
    (folder / ".hidden.gif").write_bytes(b"")
    path = zipped(folder) if as_zip else folder
    with pytest.warns(UserWarning, match=r"damaged\.png \(not an image"):
        ImageFolder(path, 8, "test", cut=HELD, cache_gb=cache_gb)
    assert [record.message for record in caplog.records] == [
        f"{path}: 3 test images; left out: .gif 3, .txt 1, unreadable 1."
    ]


def test_nothing_is_said_of_a_folder_of_images_alone(tmp_path, caplog):
    caplog.set_level(logging.INFO)
    ImageFolder(image(tmp_path / "a.png").parent, 8)
    assert not caplog.records


def test_a_pack_says_what_it_left_out(tmp_path, caplog):
    caplog.set_level(logging.INFO)
    image(tmp_path / "set" / "a.png")
    image(tmp_path / "set" / "b.gif")
    pack(tmp_path / "set", tmp_path / "out.zip", Packing(8))
    assert "set: left out .gif 1" in caplog.text


# Colour


@pytest.mark.parametrize("as_zip", [False, True])
def test_a_set_is_grey_only_if_every_image_of_it_is(tmp_path, as_zip):
    folder = tmp_path / "set"
    for seed in range(48):
        image(folder / f"{seed:02d}.png", seed, channels=1 if seed < 47 else 3)
    path = zipped(folder) if as_zip else folder
    assert ImageFolder(path, 8).channels == 3
    pack(path, tmp_path / "out.zip", Packing(8))
    assert ImageFolder(tmp_path / "out.zip", 8).channels == 3
    (folder / "47.png").unlink()
    assert ImageFolder(folder, 8).channels == 1


def test_colour_is_found_behind_a_long_text_and_at_the_end_of_a_file(tmp_path):
    """Where the first bytes do not tell: a PNG with a profile before its pixels, a TIFF."""
    exif = Image.Exif()
    exif[0x010E] = "x" * 60_000
    for seed, name in enumerate(("a.jpg", "b.tif")):
        rng = np.random.default_rng(seed)
        noise = Image.fromarray(rng.integers(0, 256, (300, 300, 3), np.uint8))
        noise.save(tmp_path / name, exif=exif, icc_profile=bytes(70_000))
        files = ImageFiles(tmp_path)
        assert files.channels([seed]) == 3, name


# Held-out images


@pytest.mark.parametrize("split", ["val", "test"])
def test_an_unreadable_held_out_image_has_no_place_whatever_the_cache(tmp_path, split):
    for seed in range(6):
        image(tmp_path / f"{seed}.png", seed)
    cut = Cut(**{"train": None, "val": 0, "test": 0, split: 5})
    whole = ImageFolder(tmp_path, 8, split, cut=cut)
    lost = whole.name(2)
    (tmp_path / f"{lost}.png").write_bytes(b"damaged")
    sets = []
    for cache_gb in (0, 1):
        with pytest.warns(UserWarning, match="skipped 1 of 5 images"):
            sets.append(ImageFolder(tmp_path, 8, split, cut=cut, cache_gb=cache_gb))
    for data in sets:
        assert [data.name(i) for i in range(len(data))] == [
            whole.name(i) for i in range(5) if i != 2
        ]
        assert torch.equal(data.batch(range(4)), whole.batch([0, 1, 3, 4]))
        assert data.unreadable() == [f"{lost}.png"]
        assert data.provenance()["images"]["unreadable"] == 1


def test_a_held_out_image_that_is_damaged_later_is_refused_and_not_replaced(tmp_path):
    for seed in range(4):
        image(tmp_path / f"{seed}.png", seed)
    data = ImageFolder(tmp_path, 8, "test", cut=HELD, cache_gb=0)
    (tmp_path / f"{data.name(1)}.png").write_bytes(b"damaged")
    with pytest.raises(ValueError, match=rf"{data.name(1)}\.png of .* can no longer be read"):
        data.batch([0, 1])


def test_training_images_damaged_later_are_counted_and_named(tmp_path):
    for seed in range(12):
        image(tmp_path / f"{seed:02d}.png", seed)
    data = ImageFolder(tmp_path, 8, "train", cache_gb=0)
    assert data.unreadable() == []
    names = [f"{data.name(i)}.png" for i in range(8)]
    for name in names:
        (tmp_path / name).write_bytes(b"damaged")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        data.batch(range(12))
    assert sorted(data.unreadable()) == sorted(names)
    found = data.provenance()["images"]
    assert (found["files"], found["contents_in_digest"], found["unreadable"]) == (12, 12, 8)
    assert len(found["unreadable_files"]) == 5


def test_an_unreadable_header_says_why(tmp_path):
    stream = io.BytesIO()
    Image.fromarray(np.full((8, 8), 0.5, np.float32)).save(stream, "tiff")
    (tmp_path / "a.tif").write_bytes(stream.getvalue())
    with pytest.raises(ValueError, match=r"all 1 images .*a\.tif, because: floating-point pixels"):
        ImageFolder(tmp_path, 8)
