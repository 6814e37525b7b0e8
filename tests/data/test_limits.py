"""No file makes rtil allocate more than its limits: sizes are known before memory is taken."""

import io
import os
import resource
import subprocess
import sys
import zipfile
import zlib
from pathlib import Path

import numpy as np
import pytest
import yaml
from PIL import Image

from rtil.data import picture
from rtil.data.files import ImageFiles
from rtil.data.folder import ImageFolder
from rtil.data.limits import Limits
from rtil.data.load import load_data
from rtil.data.picture import UNREADABLE, decode, open_picture, stored_mode
from rtil.process.command import CONFIGS
from rtil.runs import keys


def png(width, height, mode="L", **options):
    buffer = io.BytesIO()
    Image.new(mode, (width, height)).save(buffer, "png", **options)
    return buffer.getvalue()


@pytest.mark.parametrize("sides", [(1, 20_000), (20_000, 1), (2, 200_000), (3, 50_000)])
def test_a_thin_picture_is_cropped_before_it_is_scaled(sides):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    assert decode(png(*sides), 256, 1).shape == (1, 256, 256)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 100_000  # KiB


def test_the_middle_of_a_thin_picture_is_that_of_the_whole_one(monkeypatch):
    rows, columns = np.mgrid[:900, :9]
    thin = (128 + 60 * np.sin(rows / 7) + 40 * np.cos(columns / 2)).astype(np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(thin).save(buffer, "png")
    whole = decode(buffer.getvalue(), 32, 1)
    assert np.array_equal(whole, decode(buffer.getvalue(), 32, 1, Limits(megapixels=0.01)))
    monkeypatch.setattr(picture, "MOST_SCALED", 1e4)
    part = decode(buffer.getvalue(), 32, 1)
    assert np.abs(whole.astype(int) - part).max() <= 2  # rounded between other passes


@pytest.mark.parametrize("mode", ["1", "L", "RGB"])
def test_a_picture_of_too_many_pixels_is_refused_by_its_header(mode):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(ValueError, match="13000x13000 pixels; at most 64 million"):
        open_picture(png(13_000, 13_000, "1") if mode == "1" else header(13_000, 13_000))
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    assert grown < 100_000 or mode == "1"  # making the picture took memory itself


def header(width, height):
    """A PNG whose header promises so many pixels, and nothing behind it."""
    data = bytearray(png(1, 1))
    data[16:24] = width.to_bytes(4, "big") + height.to_bytes(4, "big")
    data[29:33] = zlib.crc32(bytes(data[12:29])).to_bytes(4, "big")
    return bytes(data)


def test_an_entry_of_a_zip_is_not_unpacked_beyond_its_limit(tmp_path):
    path = tmp_path / "bomb.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a.png", bytes(30_000_000))
    files = ImageFiles(path, Limits(file_mb=10))
    with pytest.raises(ValueError, match=r"30 MB; at most 10 are read \(data.max_file_mb\)"):
        files.read(0)


def test_an_entry_that_unpacks_to_more_than_it_says_is_damaged(tmp_path):
    path = tmp_path / "liar.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a.png", bytes(5_000_000))
    data = bytearray(path.read_bytes())
    central = data.rindex(b"PK\x01\x02")
    data[central + 24 : central + 28] = (1000).to_bytes(4, "little")  # uncompressed size
    path.write_bytes(data)
    with pytest.raises(ValueError, match="checksum"):
        ImageFiles(path).read(0)


def test_what_is_no_regular_file_is_unreadable_and_not_waited_for(tmp_path):
    (tmp_path / "good.png").write_bytes(png(8, 8))
    os.mkfifo(tmp_path / "pipe.png")
    (tmp_path / "zero.png").symlink_to("/dev/zero")
    code = (
        "import sys\nfrom rtil.data.files import ImageFiles\n"
        "files = ImageFiles(sys.argv[1])\n"
        "readable = [i for i, _ in files.each(range(len(files)), len, 'reading')]\n"
        "print(*[files.names[i] for i in readable])\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, tmp_path], capture_output=True, text=True, timeout=60
    )
    assert done.stdout == "good.png\n", done.stderr
    assert "no regular file" in done.stderr


def test_a_file_above_the_limit_is_named_as_unreadable(tmp_path):
    (tmp_path / "a.png").write_bytes(bytes(2_000_000))
    with pytest.raises(UNREADABLE, match=r"2 MB; at most 1 are read"):
        ImageFiles(tmp_path, Limits(file_mb=1)).read(0)


@pytest.mark.parametrize("folder", ["a" * 60, "写真" * 15])
def test_ids_of_deep_and_foreign_folders_fit_into_file_names_and_stay_apart(tmp_path, folder):
    leaf = tmp_path.joinpath(*[folder] * 4)
    leaf.mkdir(parents=True)
    for i in range(3):
        (leaf / f"photo{i}.png").write_bytes(png(8, 8))
    data = ImageFolder(tmp_path, 8)
    ids = [data.name(i) for i in range(3)]
    assert len({*ids}) == 3 and all(i.endswith(f"photo{n}") for n, i in enumerate(ids))
    for name in ids:
        path = tmp_path / f".{name}-measurement.png.tmp-1234567"
        path.write_bytes(b"")


@pytest.mark.parametrize("value", [0, -1, "many", None, True, float("nan")])
@pytest.mark.parametrize("name", ["max_megapixels", "max_file_mb"])
def test_a_limit_is_a_number_above_0(name, value):
    (fault,) = keys.faults({f"data.{name}": value})
    assert str(fault).startswith(f"data.{name}=") and "must be a number above 0" in str(fault)


@pytest.mark.parametrize(
    "file", sorted(Path(CONFIGS, "data").glob("*.yaml")), ids=lambda file: file.stem
)
def test_limits_that_are_not_said_are_those_of_every_yaml(file):
    assert Limits.of(yaml.safe_load(file.read_text())) == Limits.of({}) == Limits()


def test_the_keys_of_a_data_set_are_its_limits(tmp_path):
    (tmp_path / "a.png").write_bytes(png(40, 50))
    data = {"name": "x", "source": "folder", "path": str(tmp_path), "channels": 1, "cache_gb": 1}
    data |= {"num_train": None, "num_val": 0, "num_test": 0, "split_seed": 0}
    assert len(load_data(data, 8, "train")) == 1  # a yaml of version 0.1 says none
    with pytest.raises(ValueError, match=r"40x50 pixels; at most 0\.001 million"):
        load_data({**data, "max_megapixels": 0.001}, 8, "train")
    with pytest.raises(ValueError, match=r"at most 1e-06 are read \(data\.max_file_mb\)"):
        load_data({**data, "max_file_mb": 1e-6}, 8, "train")


def test_a_digest_does_not_depend_on_the_limits(tmp_path):
    (tmp_path / "a.png").write_bytes(bytes(3_000_000))
    assert ImageFiles(tmp_path, Limits(file_mb=1)).digest([0]) == ImageFiles(tmp_path).digest([0])


def test_a_limit_above_pillows_own_is_taken():
    stream = io.BytesIO()
    Image.new("1", (20_000, 10_000)).save(stream, "png")  # Pillow refuses it on its own
    assert stored_mode(stream.getvalue(), Limits(megapixels=250)) == "1"
    with pytest.raises(ValueError, match="20000x10000 pixels; at most 64"):
        stored_mode(stream.getvalue())


def test_a_picture_of_the_largest_size_takes_little_more_than_its_pixels():
    code = (
        "import io, resource\nfrom PIL import Image\nfrom rtil.data.picture import decode\n"
        "stream = io.BytesIO()\nImage.new('RGBA', (4000, 4000)).save(stream, 'png')\n"
        "before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
        "decode(stream.getvalue(), 64, 3)\n"
        "print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    # Of 16 million pixels; laid on white as a whole they took 250 MB.
    assert int(done.stdout) < 100_000, done.stderr  # KiB


def test_no_picture_is_handed_to_another_program():
    with pytest.raises(ValueError, match="not an image of a known format"):
        open_picture(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 8 8\n%%EndComments\n")


@pytest.mark.parametrize("kind", ["pipe", "device"])
def test_a_data_set_that_is_no_regular_file_is_refused(tmp_path, kind):
    path = tmp_path / "set.zip"
    if kind == "pipe":
        os.mkfifo(path)
    else:
        path.symlink_to("/dev/zero")
    with pytest.raises(ValueError, match="no regular file"):
        ImageFiles(path)


@pytest.mark.skipif(not os.path.exists("/proc/self/maps"), reason="needs the files of Linux")
def test_a_file_that_holds_more_than_it_says_is_unreadable():
    with pytest.raises(ValueError, match="it is said to hold 0 bytes and does not"):
        Limits().read("/proc/self/maps")


# Units


def stored(array, kind):
    stream = io.BytesIO()
    Image.fromarray(array).save(stream, kind)
    return stream.getvalue()


@pytest.mark.parametrize("kind", ["png", "tiff"])
def test_sixteen_bits_are_scaled_to_eight_by_their_type(kind):
    values = np.arange(256, dtype=np.uint16).reshape(16, 16) * 257
    assert np.array_equal(decode(stored(values, kind), 16, 1)[0], values // 257)


@pytest.mark.parametrize(
    ("array", "words"),
    [
        (np.full((4, 4), 200, np.int32), "32-bit pixels have no fixed range; convert them to 8"),
        (np.full((4, 4), 0.5, np.float32), "floating-point pixels have no fixed range; convert"),
        (np.full((4, 4), 200, np.uint16), "at most 200 of 65535 are black; store 0 to 255 as 8"),
    ],
)
def test_pixels_of_units_that_are_not_known_are_unreadable(array, words):
    with pytest.raises(ValueError, match=words):
        decode(stored(array, "tiff"), 4, 1)
