"""Laws of the image data: splits, order, decoding, damaged files, packing, error messages."""

import io
import os
import pickle
import subprocess
import sys
import threading
import time
import warnings
import zipfile
from concurrent.futures import ThreadPoolExecutor
from itertools import chain
from pathlib import Path

import numpy as np
import pytest
import torch
from omegaconf import OmegaConf
from PIL import Image

import rtil.data
from rtil.data import lineage
from rtil.data.base import ImageData, to_float, to_uint8
from rtil.data.cut import Cut
from rtil.data.files import ImageFiles
from rtil.data.folder import ImageFolder
from rtil.data.load import load_data
from rtil.data.pack import Packing, pack
from rtil.data.picture import decode
from rtil.data.stream import Prefetch, epoch_indices

# Pillow's own, beside ours, for some damaged files.
pytestmark = pytest.mark.filterwarnings("ignore:Truncated File Read")

ROOT = Path(__file__).parents[2]
CONFIGS = sorted((ROOT / "configs" / "data").glob("*.yaml"))


def picture(seed: int, width: int = 40, height: int = 32, mode: str = "RGB") -> Image.Image:
    """A smooth random picture, so that lossy formats keep it."""
    noise = np.random.RandomState(seed).randint(0, 256, (4, 5, 3), np.uint8)
    return Image.fromarray(noise).resize((width, height), Image.Resampling.BICUBIC).convert(mode)


def png(image: Image.Image) -> bytes:
    stream = io.BytesIO()
    image.save(stream, "png")
    return stream.getvalue()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Thirty pictures of several formats, sizes and subfolders, and files that are no images."""
    root = tmp_path / "pictures"
    endings = ["png", "jpg", "webp", "bmp", "ppm", "tif"]
    for i in range(30):
        path = root / f"part{i % 3}" / f"{i:03d}.{endings[i % 6]}"
        path.parent.mkdir(parents=True, exist_ok=True)
        picture(i, 30 + i, 60 - i).save(path)
    (root / "notes.txt").write_text("no image")
    (root / ".hidden.png").write_bytes(png(picture(99)))
    return root


@pytest.fixture
def archive(folder: Path) -> Path:
    path = folder.parent / "pictures.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file:
        for i, member in enumerate(sorted(folder.rglob("*"), reverse=True)):
            # Both ways of storing, and members out of order.
            kind = zipfile.ZIP_STORED if i % 2 else zipfile.ZIP_DEFLATED
            file.write(member, member.relative_to(folder), kind)
    return path


def corrupt(folder: Path, *names: str) -> None:
    for name in names:
        path = folder / name
        path.write_bytes(path.read_bytes()[:70])


# Pixels


def test_to_uint8_undoes_to_float_and_the_range_is_exact():
    values = torch.arange(256, dtype=torch.uint8)
    x = to_float(values)
    assert torch.equal(to_uint8(x), values)
    assert x[0] == -1 and x[255] == 1
    assert torch.equal(to_uint8(torch.tensor([-9.0, 9.0])), torch.tensor([0, 255]).byte())


@pytest.mark.parametrize("width,height", [(60, 32), (32, 60), (17, 23), (32, 32), (16, 16)])
@pytest.mark.parametrize("channels,mode", [(1, "L"), (3, "RGB")])
def test_decode_is_pil_resize_of_the_short_side_and_centre_crop(width, height, channels, mode):
    image = picture(0, width, height)
    if width < height:
        size = (16, round(height * 16 / width))
    else:
        size = (round(width * 16 / height), 16)
    expected = image.convert(mode).resize(size, Image.Resampling.LANCZOS)
    left, top = (size[0] - 16) // 2, (size[1] - 16) // 2
    expected = np.asarray(expected.crop((left, top, left + 16, top + 16))).reshape(16, 16, -1)
    assert np.array_equal(decode(png(image), 16, channels), expected.transpose(2, 0, 1))


def test_decode_scales_sixteen_bit_grey():
    values = np.arange(256, dtype=np.uint16).reshape(16, 16)
    assert np.array_equal(decode(png(Image.fromarray(values * 257)), 16, 1)[0], values)


def test_decode_lays_transparency_on_white():
    image = picture(0, 16, 16).convert("RGBA")
    image.putalpha(Image.new("L", image.size, 0))
    assert (decode(png(image), 16, 3) == 255).all()


def test_decode_applies_the_orientation_tag():
    image, stream, exif = picture(0, 16, 16), io.BytesIO(), Image.Exif()
    exif[0x0112] = 3  # stored upside down
    image.save(stream, "png", exif=exif)
    upright = decode(png(image.transpose(Image.Transpose.ROTATE_180)), 16, 3)
    assert np.array_equal(decode(stream.getvalue(), 16, 3), upright)


@pytest.mark.parametrize(
    "modes,channels", [("L", 1), ("1", 1), ("I;16", 1), ("RGB", 3), ("P", 3), ("L L RGB", 3)]
)
def test_channels_are_grey_only_if_all_images_are(tmp_path, modes, channels):
    for i, mode in enumerate(modes.split()):
        if mode == "I;16":
            image = Image.fromarray(np.full((9, 9), 700, np.uint16))
        else:
            image = picture(i, mode=mode)
        image.save(tmp_path / f"{i}.png")
    (tmp_path / "00.png").write_bytes(b"damaged")
    with pytest.warns(UserWarning, match=r"00\.png"):
        data = ImageFolder(tmp_path, 8)
    assert data.channels == data.batch([0]).shape[1] == channels


def test_channels_convert_on_request(folder):
    grey, colour = ImageFolder(folder, 8, channels=1), ImageFolder(folder, 8, channels=3)
    assert grey.batch([0]).shape == (1, 1, 8, 8) and colour.batch([0]).shape == (1, 3, 8, 8)
    luma = (colour.batch(range(30)) * torch.tensor([0.299, 0.587, 0.114]).view(3, 1, 1)).sum(1)
    error = (grey.batch(range(30))[:, 0] - luma).abs()
    # Lanczos overshoots, and colours are clipped one by one.
    assert error.mean() < 0.5 and error.max() < 8


# Folders, zips, memory


@pytest.mark.parametrize("cache_gb", [0, 1])
def test_zip_and_folder_give_equal_images_and_names(folder, archive, cache_gb):
    a, b = ImageFolder(folder, 16), ImageFolder(archive, 16, cache_gb=cache_gb)
    assert len(a) == len(b) == 30
    assert torch.equal(a.batch(range(30)), b.batch(torch.arange(30)))
    assert [a.name(i) for i in range(30)] == [b.name(i) for i in range(30)]
    assert torch.equal(a.batch([7, 7, 2])[2], b.batch([2])[0])
    assert b.batch([]).shape == (0, 3, 16, 16)


def test_zip_reads_alike_in_threads_after_pickling_and_after_fork(archive):
    data = ImageFolder(archive, 16, cache_gb=0)
    expected = data.batch(range(30))
    with ThreadPoolExecutor(4) as pool:
        for result in pool.map(lambda _: data.batch(range(30)), range(4)):
            assert torch.equal(result, expected)
    assert torch.equal(pickle.loads(pickle.dumps(data)).batch(range(30)), expected)
    if hasattr(os, "fork"):
        child = os.fork()
        if child == 0:
            os._exit(0 if torch.equal(data.batch(range(30)), expected) else 1)
        assert torch.equal(data.batch(range(30)), expected)
        assert os.waitpid(child, 0)[1] == 0


def test_names_are_unique_file_names(tmp_path):
    for name in ("a/b.png", "a_b.png", "a b.png", "a_b.bmp", "A_B.ppm", "c.d.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        picture(0).save(tmp_path / name)
    data = ImageFolder(tmp_path, 8)
    names = [data.name(i) for i in range(len(data))]
    assert len({name.casefold() for name in names}) == 6
    assert "c.d" in names and not any(set(name) & set("/\\ :") for name in names)


def test_damage_inside_a_zip_counts_as_unreadable(tmp_path, archive):
    raw = bytearray(archive.read_bytes())
    with zipfile.ZipFile(archive) as file:
        entry = next(i for i in file.infolist() if i.filename.endswith("003.bmp"))
    raw[entry.header_offset + 30 + len(entry.filename) + entry.compress_size // 2] ^= 0xFF
    archive.write_bytes(raw)
    with pytest.warns(UserWarning, match=r"1 of 30 .*part0/003\.bmp"):
        assert len(ImageFolder(archive, 8)) == 29


# Splits and order


def split(path: Path, name: str, cache_gb: float = 4.0, **counts) -> ImageFolder:
    return ImageFolder(
        path, 8, name, cut=Cut(**{"val": 5, "test": 7, **counts}), cache_gb=cache_gb
    )


def names(data: ImageData) -> list[str]:
    return [data.name(i) for i in range(len(data))]


def test_splits_are_disjoint_cover_the_files_and_depend_on_the_seed_only(folder, archive):
    parts = {name: names(split(folder, name)) for name in ("train", "val", "test")}
    assert [len(part) for part in parts.values()] == [18, 5, 7]
    assert sorted(chain(*parts.values())) == names(split(folder, "all"))
    assert names(split(archive, "test", cache_gb=0)) == parts["test"]
    assert names(split(folder, "test", val=9)) == parts["test"]
    assert names(split(folder, "train", train=4)) == parts["train"][:4]
    assert names(split(folder, "test", seed=1)) != parts["test"]


def test_damaged_file_moves_no_other_file(folder):
    before = {name: names(split(folder, name)) for name in ("train", "val", "test")}
    for name in before["test"][2:4]:
        corrupt(folder, next(p.relative_to(folder) for p in folder.rglob(f"{name[-3:]}.*")))
    with pytest.warns(UserWarning, match="2 of 7"):
        after = names(split(folder, "test"))
    assert after == before["test"][:2] + before["test"][4:]
    assert names(split(folder, "train")) == before["train"]


def test_a_digest_is_of_the_splits_files_wherever_they_are(folder, archive, tmp_path):
    found = split(folder, "test").digest()
    assert found.startswith("7 files, ")
    assert found == split(archive, "test").digest() == split(folder, "test", cache_gb=0).digest()
    moved = folder.rename(tmp_path / "moved")
    assert found == split(moved, "test").digest() == split(moved, "test", val=9).digest()
    others = {
        split(moved, "val").digest(),
        split(moved, "test", test=8).digest(),
        split(moved, "test", seed=1).digest(),
        split(moved, "all").digest(),
        found,
    }
    assert len(others) == 5
    files = ImageFiles(moved)
    name = next(n for n in files.names if n[-7:-4] == split(moved, "test").name(3)[-3:])
    raw = (moved / name).read_bytes()
    (moved / name).write_bytes(raw[:-1] + bytes([raw[-1] ^ 1]))  # as many bytes as before
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        assert split(moved, "test").digest() != found
        corrupt(moved, name)
        short = split(moved, "test")
    assert len(short) == 6 and short.digest().startswith("7 files, ")
    (moved / name).write_bytes(raw)
    assert split(moved, "test").digest() == found
    Image.new("L", (8, 8)).save(moved / "added.png")
    assert split(moved, "test").digest() != found


@pytest.mark.parametrize("n", [1, 7, 100])
def test_each_epoch_is_a_permutation_of_its_own(n):
    epochs = epoch_indices(n, 3, 0, 5 * n).view(5, n)
    assert torch.equal(epochs.sort(dim=1).values, torch.arange(n).expand(5, n))
    if n == 100:
        assert len(epochs.unique(dim=0)) == 5
        assert not torch.equal(epochs, epoch_indices(n, 4, 0, 5 * n).view(5, n))


@pytest.mark.parametrize("chunk", [1, 3, 32, 250])
def test_sample_stream_does_not_depend_on_the_batch_size(chunk):
    whole = epoch_indices(100, 2**40 + 1, 0, 1000)
    parts = [epoch_indices(100, 2**40 + 1, i, chunk) for i in range(0, 1000, chunk)]
    assert torch.equal(torch.cat(parts)[:1000], whole)
    assert torch.equal(epoch_indices(100, 2**40 + 1, 777, 10), whole[777:787])
    assert epoch_indices(100, 0, 5, 0).tolist() == []


def test_sample_stream_is_frozen():
    # Resuming an old run with newer libraries must go on with the same images.
    assert epoch_indices(10, 0, 8, 4).tolist() == [5, 7, 6, 7]


# Damaged files


def test_damaged_files_are_skipped_counted_and_named(folder):
    bad = [f"part{i % 3}/{i:03d}.png" for i in (0, 6, 12, 18, 24)] + ["part1/001.jpg"]
    corrupt(folder, *bad)
    with pytest.warns(UserWarning) as caught:
        data = ImageFolder(folder, 8)
    message = str(caught[0].message)
    assert len(caught) == 1 and "6 of 30" in message and "skipped" in message
    assert sum(name in message for name in bad) == 5
    assert len(data) == 24
    assert not {"part0_000", "part1_001"} & set(names(data))


def test_damage_found_later_is_replaced_by_the_next_image_and_named_once(folder):
    whole = ImageFolder(folder, 8).batch(range(30))
    data = ImageFolder(folder, 8, cache_gb=0)
    corrupt(folder, data.files.names[4], data.files.names[5], data.files.names[29])
    with pytest.warns(UserWarning) as caught:
        first = data.batch(range(30))
    expected = torch.arange(30)
    expected[[4, 5, 29]] = torch.tensor([6, 6, 0])
    assert torch.equal(first, whole[expected])
    ours = sorted(str(w.message) for w in caught if "stands in" in str(w.message))
    assert len(ours) == 3
    for message, index in zip(ours, (4, 5, 29)):
        assert data.files.names[index] in message
    with warnings.catch_warnings():
        warnings.filterwarnings("error", message="ImageFolder")
        assert torch.equal(data.batch(range(30)), first)


@pytest.mark.filterwarnings("error")
def test_intact_files_cause_no_warning(folder):
    assert len(ImageFolder(folder, 8)) == 30


# Errors


@pytest.mark.parametrize("cache_gb", [0, 1])
def test_all_files_damaged_is_an_error(folder, cache_gb):
    corrupt(folder, *ImageFiles(folder).names)
    with pytest.raises(ValueError, match=r"all 30 images .*unreadable"):
        ImageFolder(folder, 8, cache_gb=cache_gb)
    with pytest.raises(ValueError, match=r"all 30 images .*unreadable"):
        ImageFolder(folder, 8, channels=1, cache_gb=cache_gb)


def test_paths_without_images_are_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"nothing at .*nowhere; give"):
        ImageFolder(tmp_path / "nowhere", 8)
    with pytest.raises(ValueError, match=r"no images among the 0 files .*\.png"):
        ImageFolder(tmp_path, 8)
    (tmp_path / "a.txt").write_text("text")
    with pytest.raises(ValueError, match="no images among the 1 files"):
        ImageFolder(tmp_path, 8)
    with pytest.raises(ValueError, match=r"a\.txt is not a zip archive"):
        ImageFolder(tmp_path / "a.txt", 8)


def test_truncated_zip_is_named(archive):
    archive.write_bytes(archive.read_bytes()[:-200])
    with pytest.raises(ValueError, match=r"pictures\.zip is not a zip archive, or a truncated"):
        ImageFolder(archive, 8)


@pytest.mark.parametrize(
    "options,words",
    [
        ({"split": "dev"}, r"split='dev'.*train, val, test, all"),
        ({"split": "train", "cut": Cut(val=20, test=11)}, "num_test=11.*more than the 30"),
        ({"split": "train", "cut": Cut(train=29, test=2)}, "num_train=29.*more than the 30"),
        ({"split": "train", "cut": Cut(test=30)}, "train split is empty.*30 images"),
        ({"split": "test"}, "test split is empty.*num_test=0"),
        ({"split": "test", "cut": Cut(test=-3)}, "num_test=-3.*0 or more"),
        ({"channels": 4}, "channels=4.*auto, 1, 3"),
        ({"size": 0}, "size=0"),
    ],
)
def test_bad_arguments_are_named(folder, options, words):
    with pytest.raises(ValueError, match=words):
        ImageFolder(**{"path": folder, "size": 8, **options})


# Configs


def config(name: str, **overrides) -> dict:
    data = OmegaConf.merge(OmegaConf.load(ROOT / "configs" / "data" / f"{name}.yaml"), overrides)
    return OmegaConf.to_container(
        OmegaConf.create({"data": data}), resolve=True, throw_on_missing=True
    )["data"]


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_every_config_builds_its_splits(path, folder):
    here = {} if path.stem == "glyphs" else {"path": str(folder), "num_val": 5, "num_test": 7}
    data = config(path.stem, **here)
    assert data["name"] == path.stem
    assert isinstance(data["mirror"], bool)
    for split_name, count in (("train", None), ("val", data["num_val"])):
        images = load_data(data, 16, split_name, channels=3)
        assert images.batch([0, 1]).shape == (2, 3, 16, 16)
        assert count is None or len(images) == count


def test_generator_of_celebahq_is_trained_on_ffhq():
    assert config("celebahq")["trained_on"] == "ffhq"
    assert config("ffhq")["trained_on"] == "ffhq"
    assert config("folder", path="x")["trained_on"] == "folder"


@pytest.mark.parametrize("name", ["ffhq", "celebahq"])
def test_missing_data_set_names_file_place_and_command(name, tmp_path, monkeypatch):
    monkeypatch.setenv("RTIL_DATA", str(tmp_path))
    words = rf"{name}256\.zip in {tmp_path}.*scripts/prepare_data\.py FOLDER {tmp_path}/{name}256"
    with pytest.raises(FileNotFoundError, match="(?s)" + words):
        load_data(config(name), 256, "train")


@pytest.mark.parametrize(
    "overrides,error,words",
    [
        ({"source": "web"}, ValueError, "source='web'; allowed are folder, glyphs"),
        ({"path": ""}, ValueError, r"path is not set.*data\.path="),
        ({"path": None}, ValueError, r"path is not set.*data\.path="),
        ({"path": "nowhere.zip"}, FileNotFoundError, "nothing at .*nowhere.zip"),
        ({"path": 2024}, FileNotFoundError, "nothing at .*2024"),
    ],
)
def test_bad_configs_are_named(overrides, error, words):
    with pytest.raises(error, match=words):
        load_data(config("folder", **{"path": "x", **overrides}), 8, "train")


STRIPES = """
from rtil.data.base import ImageData
from rtil.data.source import Source
import torch

class Stripes(ImageData):
    size, channels = 8, 1
    def __len__(self): return 3
    def name(self, index): return str(index)
    def digest(self): return None
    def unreadable(self): return []
    def provenance(self): return {}
    def batch(self, indices): return torch.zeros(len(indices), 1, 8, 8, dtype=torch.uint8)

class Stripe(Source):
    from_files = False
    def load(self, data, resolution, split, channels): return Stripes()
    def split_files(self, data, split): return None

SOURCE = Stripe()
"""


def test_a_new_source_is_one_module_and_one_yaml(tmp_path, monkeypatch):
    (tmp_path / "stripes.py").write_text(STRIPES)
    monkeypatch.setattr(rtil.data, "__path__", [*rtil.data.__path__, str(tmp_path)])
    data = {"name": "stripes", "source": "stripes", "channels": 1}
    assert len(load_data(data, 8, "train")) == 3
    assert lineage.training_data({"data": data}, {}) == data
    with pytest.raises(ValueError, match="allowed are folder, glyphs, stripes"):
        load_data({**data, "source": "stream"}, 8, "train")  # a module, but no source


def test_held_out_sets_of_their_own_leave_path_whole(tmp_path):
    for name, shades in {"a": range(0, 60, 10), "b": range(100, 150, 10)}.items():
        (tmp_path / name).mkdir()
        for shade in shades:
            Image.new("L", (8, 8), shade).save(tmp_path / name / f"{shade}.png")
    data = config(
        "folder", path=str(tmp_path / "a"), test_path=str(tmp_path / "b"), num_val=2, num_test=4
    )
    sets = {s: load_data(data, 8, s) for s in ("train", "val", "test")}
    shades = {s: set(d.batch(range(len(d)))[:, 0, 0, 0].tolist()) for s, d in sets.items()}
    assert shades["train"] | shades["val"] == set(range(0, 60, 10))
    assert len(shades["val"]) == 2 and len(shades["train"]) == 4
    assert len(shades["test"]) == 4 and min(shades["test"]) >= 100
    whole = load_data({**data, "num_test": None}, 8, "test")
    assert len(whole) == 5
    with pytest.raises(ValueError, match=r"num_test=9.* ask for more than the 5 images"):
        load_data({**data, "num_test": 9}, 8, "test")
    with pytest.raises(FileNotFoundError, match=r"nothing at .*nowhere"):
        load_data({**data, "val_path": str(tmp_path / "nowhere")}, 8, "val")


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("val_path", "test_path"),
        ("path", "test_path"),
        ("path", "val_path"),
    ],
)
@pytest.mark.parametrize("split_name", ["train", "val", "test"])
def test_splits_do_not_share_their_files(tmp_path, folder, one, other, split_name):
    apart = {"path": "a", "val_path": "b", "test_path": "c"}
    (tmp_path / "link").symlink_to(folder)
    for same in (folder, tmp_path / "link", folder / "part0"):
        paths = {key: str(tmp_path / name) for key, name in apart.items()}
        data = config("folder", **{**paths, one: str(folder), other: str(same)})
        with pytest.raises(ValueError, match=f"{one}=.* and {other}=.* same images"):
            load_data(data, 8, split_name)


def test_a_zip_in_the_folder_of_images_is_none_of_them(folder, archive):
    inside = archive.rename(folder / "test.zip")
    data = config("folder", path=str(folder), test_path=str(inside), num_val=5, num_test=7)
    assert len(load_data(data, 8, "train")) == 25 and len(load_data(data, 8, "test")) == 7


def test_path_left_mandatory_is_named():
    data = OmegaConf.load(ROOT / "configs" / "data" / "folder.yaml")
    with pytest.raises(ValueError, match=r"path is not set.*data\.path="):
        load_data(OmegaConf.to_container(data), 8, "train")


def test_too_few_images_are_counted(folder):
    data = config("folder", path=str(folder), num_val=5, num_test=7)
    assert len(load_data(data, 8, "test", min_images=7)) == 7
    with pytest.raises(ValueError, match="test split has 7 images and 12 are needed"):
        load_data(data, 8, "test", min_images=12)
    with pytest.raises(ValueError, match="val split has 10 images and 12 are needed"):
        load_data(config("glyphs", num_val=10), 8, "val", min_images=12)


# Packing


def prepare(*arguments: object) -> subprocess.CompletedProcess:
    command = [sys.executable, ROOT / "scripts" / "prepare_data.py", *arguments]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    return subprocess.run(
        [str(word) for word in command], env=environment, capture_output=True, text=True
    )


def test_prepare_data_round_trip_and_refusals(folder, tmp_path):
    (folder / "part0" / "000.jpg").write_bytes((folder / "part1" / "001.jpg").read_bytes())
    corrupt(folder, "part2/002.webp")
    out = tmp_path / "made" / "out.zip"
    result = prepare(folder, out, "--resolution", 16)
    assert result.returncode == 0, result.stderr
    assert "1 of 31" in result.stderr and "part2/002.webp" in result.stderr
    assert "left out .txt 1, unreadable 1" in result.stderr
    assert "30 images of 16x16" in result.stdout
    with pytest.warns(UserWarning, match=r"002\.webp"):
        expected = ImageFolder(folder, 16)
    packed = ImageFolder(out, 16)
    assert torch.equal(packed.batch(range(30)), expected.batch(range(30)))
    with zipfile.ZipFile(out) as file:
        assert {entry.compress_type for entry in file.infolist()} == {zipfile.ZIP_STORED}

    before = out.read_bytes()
    result = prepare(folder, out, "--resolution", 8)
    assert result.returncode == 1 and "--force" in result.stderr and "Trace" not in result.stderr
    assert out.read_bytes() == before

    result = prepare(folder, out, "--resolution", 8, "--force", "--max-megapixels", 0.0001)
    assert result.returncode == 1 and out.read_bytes() == before
    assert "at most 0.0001 million are read" in result.stderr


def test_pack_limits_converts_and_replaces(folder, tmp_path):
    out = tmp_path / "out.zip"
    assert pack(folder, out, Packing(16)) == 30
    assert pack(folder, out, Packing(8, channels=1, limit=4), force=True) == 4
    packed, whole = ImageFolder(out, 8), ImageFolder(folder, 8, channels=1)
    assert packed.channels == 1
    assert torch.equal(packed.batch(range(4)), whole.batch(range(4)))
    assert names(packed) == names(whole)[:4]


def test_failed_pack_leaves_the_old_file_and_no_remains(folder, tmp_path):
    out = tmp_path / "out.zip"
    pack(folder, out, Packing(8))
    before = out.read_bytes()
    corrupt(folder, *ImageFiles(folder).names)
    with pytest.raises(ValueError, match="all 30 images"):
        pack(folder, out, Packing(8, channels=3), force=True)
    assert out.read_bytes() == before
    assert [path.name for path in tmp_path.glob("out*")] == ["out.zip"]
    with pytest.raises(ValueError, match=r"must end in \.zip"):
        pack(folder, tmp_path / "out.tar", Packing(8))
    with pytest.raises(ValueError, match="resolution=0"):
        Packing(0)


# Prefetch


def test_prefetch_computes_each_batch_once_in_one_other_thread():
    calls: list[tuple[int, threading.Thread]] = []

    def fetch(key: int) -> int:
        calls.append((key, threading.current_thread()))
        return key * key

    prefetch = Prefetch(fetch)
    prefetch.schedule(0)
    for key in range(5):
        value = prefetch.get(key)
        prefetch.schedule(key + 1)
        assert value == key * key
    assert prefetch.get(9) == 81  # not the scheduled one
    prefetch.close()
    assert [key for key, _ in calls if key not in (5, 9)] == [0, 1, 2, 3, 4]
    assert calls[-1][0] == 9
    threads = {thread for _, thread in calls}
    assert len(threads) == 1 and threading.current_thread() not in threads
    assert not threads.pop().is_alive()


def test_prefetch_runs_while_the_caller_works():
    prefetch = Prefetch(lambda key: time.sleep(0.2) or key)
    prefetch.schedule(1)
    time.sleep(0.3)
    start = time.perf_counter()
    assert prefetch.get(1) == 1
    assert time.perf_counter() - start < 0.1
    prefetch.close()


def test_prefetch_raises_in_get_and_goes_on():
    def fetch(key: int) -> int:
        if key == 1:
            raise OSError("no file")
        return key

    prefetch = Prefetch(fetch)
    prefetch.schedule(1)
    with pytest.raises(OSError, match="no file"):
        prefetch.get(1)
    assert prefetch.get(2) == 2
    prefetch.close()
