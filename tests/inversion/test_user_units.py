"""Units and limits of what a user gives: converted by type, or refused with what is missing."""

import json
import os
import zipfile

import numpy as np
import pytest
import torch
from PIL import Image

from rtil.data.limits import Limits
from rtil.inversion import measurement_file as measurement
from rtil.inversion import survey
from rtil.inversion.asked import Asked
from rtil.inversion.item import examine
from rtil.inversion.units import check_noise, check_range, reach
from rtil.operators import build_operator
from rtil.operators.task import NOISE

SHAPE = (3, 16, 16)
TASKS = {
    "cs": ("rtil.operators.circulant.partial_circulant", "ratio", 0.1, "vector"),
    "inpainting": ("rtil.operators.mask.inpainting", "ratio", 0.3, "image"),
    "sr": ("rtil.operators.downsample.Downsample", "factor", 4, "image"),
    "deblur": ("rtil.operators.blur.Blur", "blur_std", 1.5, "image"),
    "denoise": ("rtil.operators.identity.Identity", NOISE, 0.1, "image"),
    "phase_retrieval": ("rtil.operators.phase.PhaseRetrieval", "ratio", 0.5, "vector"),
}
LIMITS = Limits()


def operator(name):
    target, knob, value, measures = TASKS[name]
    linear = name != "phase_retrieval"
    task = {"name": name, "_target_": target, "knob": knob, "range": [0, None]}
    task |= {"linear": linear, "measures": measures}
    return build_operator(task, SHAPE, 0, **{knob: value})


def asked(task="denoise", measures="image", limits=LIMITS):
    target = TASKS[task][0]
    described = {"name": task, "_target_": target, "knob": "ratio", "measures": measures}
    settings = {"task.name": task}
    return Asked("x", None, None, None, None, described, "best", settings, frozenset(), limits)


def saved(path, **arrays):
    np.savez(path, **arrays)
    return path


def picture(path, array):
    Image.fromarray(array).save(path)
    return path


# y


@pytest.mark.parametrize("task", TASKS)
@pytest.mark.parametrize("kind", ["noise", "bright", "smooth", "half"])
def test_what_an_image_measures_is_in_reach_and_as_pixels_it_is_not(task, kind):
    A, rng = operator(task), torch.Generator().manual_seed(1)
    x = {
        "noise": torch.rand(SHAPE, generator=rng) * 2 - 1,
        "bright": torch.ones(SHAPE),
        "smooth": torch.linspace(-1, 1, 16).expand(SHAPE),
        "half": torch.ones(SHAPE).index_fill(2, torch.arange(8), -1.0),
    }[kind]
    largest = reach(A)
    check_range(A(x[None])[0], largest, 0.0)
    noisy = A.noisy(A(x[None]), 0.2, [rng])
    check_range(noisy[0], largest, 0.2)
    with pytest.raises(ValueError, match=r"y reaches .* no image in \[-1, 1\].*127\.5 - 1"):
        check_range(A((x[None] + 1) * 127.5)[0], largest, 0.0)


@pytest.mark.parametrize(("kind", "white"), [(np.uint8, 255), (np.uint16, 65535)])
def test_pixels_are_converted_by_their_type(tmp_path, kind, white):
    x = np.linspace(0, white, 48).reshape(3, 4, 4).astype(kind)
    found = measurement.load(saved(tmp_path / "y.npz", y=x), LIMITS)
    assert found.as_pixels and found.y.dtype == torch.float32
    assert torch.allclose(found.y, torch.from_numpy(x / (white / 2) - 1).float())
    assert (float(found.y.min()), float(found.y.max())) == (-1, 1)


@pytest.mark.parametrize("kind", [np.int8, np.int32, np.int64, np.uint32])
def test_whole_numbers_of_another_type_have_no_unit(tmp_path, kind):
    path = saved(tmp_path / "y.npz", y=np.ones((1, 4, 4), kind))
    with pytest.raises(ValueError, match=rf"y\.npz: y is of {kind.__name__}; .*astype"):
        measurement.load(path, LIMITS)


def test_pixels_are_no_vector_of_measurements(tmp_path):
    path = saved(tmp_path / "y.npz", y=np.ones(51, np.uint8))
    with pytest.raises(ValueError, match=r"stored as whole numbers, and task=cs measures vectors"):
        examine(asked("cs", "vector"), path, None)


def test_an_image_that_looks_as_one_of_0_to_1_is_warned_of(tmp_path, caplog):
    x = np.random.default_rng(0).random((1, 4, 4), np.float32)
    examine(asked(), saved(tmp_path / "signed.npz", y=2 * x - 1), None)
    assert not caplog.records
    examine(asked(), saved(tmp_path / "unit.npz", y=x), None)
    assert "unit.npz: no number of y is below 0" in caplog.text and "2 y - 1" in caplog.text


def test_noise_is_of_images_in_0_to_1():
    check_noise(NOISE, 1.0)
    check_noise("discrepancy.noise_std", None)
    with pytest.raises(ValueError, match=r"noise_std=25 .*\[0, 1\].* noise_std=0\.098"):
        check_noise(NOISE, 25)


# Folders


def test_what_is_left_out_of_a_folder_is_counted_by_kind(tmp_path, caplog):
    caplog.set_level("INFO")
    for name in ("a.png", "b.gif", "c.gif"):
        picture(tmp_path / name, np.zeros((4, 4), np.uint8))
    (tmp_path / "more").mkdir()
    assert survey.pictures(tmp_path, None) == [tmp_path / "a.png"]
    assert caplog.messages == [f"input={tmp_path}: 1 files; left out: .gif 2, subfolders 1."]


# Masks


def test_a_mask_hides_some_pixels_and_observes_some(tmp_path):
    mask = np.full((8, 8), 255, np.uint8)
    with pytest.raises(ValueError, match=r"m\.png hides no pixel: its darkest grey value is 255"):
        measurement.read_mask(picture(tmp_path / "m.png", mask), LIMITS)
    mask[0, 0] = 127
    assert int(measurement.read_mask(picture(tmp_path / "m.png", mask), LIMITS).sum()) == 63
    for observed, count in ((np.ones((4, 4), bool), 16), (np.zeros((4, 4), bool), 0)):
        path = saved(tmp_path / "y.npz", y=np.ones((1, 4, 4)), mask=observed)
        with pytest.raises(ValueError, match=f"mask observes {count} of 16 pixels"):
            measurement.load(path, LIMITS)


def test_a_mask_painted_as_transparency_is_refused_and_told_how_it_is_read(tmp_path):
    mask = np.full((8, 8, 4), 255, np.uint8)
    mask[2:5, 2:5] = 0
    path = picture(tmp_path / "m.png", mask)
    with pytest.raises(ValueError, match=r"hides no pixel.*Transparency is read as white; paint"):
        measurement.read_mask(path, LIMITS)


def test_how_transparency_is_read_is_said_for_pictures_and_masks(tmp_path, caplog):
    mask = np.full((8, 8, 4), 255, np.uint8)
    mask[0, 0, 3] = 0
    mask[1, 1, :3] = 0
    path = picture(tmp_path / "m.png", mask)
    opaque = picture(tmp_path / "x.png", mask[..., :3])
    examine(asked("inpainting"), opaque, opaque)
    assert not caplog.records
    examine(asked("inpainting"), path, path)
    assert caplog.messages == [
        f"input: transparent pixels of {path} are read as white.",
        f"mask: transparent pixels of {path} are read as white, observed: only dark pixels are "
        "missing.",
    ]


@pytest.mark.parametrize("kind", [np.int32, np.float32])
def test_a_picture_or_mask_without_a_known_white_is_refused(tmp_path, kind):
    path = picture(tmp_path / "x.tif", np.full((8, 8), 200, kind))
    for read in (measurement.read_picture, measurement.read_mask):
        with pytest.raises(ValueError, match=r"x\.tif .*no fixed range; convert them to 8 or 16"):
            read(path, LIMITS)


# Limits


def header(shape, dtype="<f4"):
    """An array's header that claims a shape, without its numbers."""
    text = f"{{'descr': '{dtype}', 'fortran_order': False, 'shape': {shape}, }}".ljust(117) + "\n"
    return b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text.encode()


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (header((10**9,)), "y claims more than the 0 bytes that it holds"),
        (header((10**30, 10**30)), "y claims more"),
        (header((-1,)), "y claims fewer"),
        (header((2,)) + bytes(12), "y claims fewer than the 12 bytes"),
        (header((2,), "|O"), "allow_pickle"),
        (header((2,))[:20], "y is no array of numpy.savez"),
        (b"\x93NUMPY\x01\x00\x10\x00" + b"(" * 16, "y is no array of numpy.savez"),
        (b"raw bytes", "y is no array of numpy.savez"),
        (b"", "y is no array of numpy.savez"),
    ],
)
def test_an_array_holds_what_it_claims(tmp_path, content, words):
    with zipfile.ZipFile(tmp_path / "y.npz", "w") as archive:
        archive.writestr("y.npy", content)
    with pytest.raises(ValueError, match=rf"y\.npz cannot be read .*{words}"):
        measurement.load(tmp_path / "y.npz", LIMITS)


def test_an_array_is_not_unpacked_beyond_the_limit(tmp_path):
    np.savez_compressed(tmp_path / "y.npz", y=np.zeros(3_000_000, np.float32))
    with pytest.raises(ValueError, match=r"12 MB; at most 1 are read \(data\.max_file_mb\)"):
        measurement.load(tmp_path / "y.npz", Limits(file_mb=1))


@pytest.mark.parametrize("order", ["C", "F"])
def test_arrays_are_read_as_numpy_reads_them(tmp_path, order):
    arrays = {
        "y": np.asarray(np.random.default_rng(0).normal(size=(2, 3, 4)), order=order),
        "settings": np.array(json.dumps({"task": {"name": "é"}})),
        "mask": np.eye(3, 4, dtype=bool, k=1),
    }
    for write in (np.savez, np.savez_compressed):
        write(tmp_path / "y.npz", **arrays)
        found = measurement.load(tmp_path / "y.npz", LIMITS)
        assert np.array_equal(found.y.numpy(), arrays["y"].astype(np.float32))
        assert np.array_equal(found.mask.numpy(), arrays["mask"])
        assert found.settings == {"task": {"name": "é"}} and not found.as_pixels


@pytest.mark.parametrize("name", ["x.png", "x.npz"])
@pytest.mark.parametrize("kind", ["pipe", "device", "folder"])
def test_what_is_no_regular_file_is_refused_and_not_waited_for(tmp_path, name, kind):
    path = tmp_path / name
    if kind == "pipe":
        os.mkfifo(path)
    elif kind == "device":
        path.symlink_to("/dev/zero")
    else:
        path.mkdir()
    with pytest.raises(ValueError, match=rf"input: {path} cannot be read \(no regular file"):
        examine(asked(), path, None)


def test_settings_that_nest_without_end_are_damage(tmp_path):
    path = saved(tmp_path / "y.npz", y=np.ones(3), settings="[" * 100_000)
    with pytest.raises(ValueError, match=r"y\.npz cannot be read as a saved measurement"):
        measurement.load(path, LIMITS)
