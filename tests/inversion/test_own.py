"""Inverting files of the user's own: what is kept exactly, what is refused, and when."""

import json
import shutil

import numpy as np
import pytest
import torch
from helpers.user_files import composed
from omegaconf import OmegaConf
from PIL import Image

from rtil import checkpoint, invert
from rtil.data.base import to_float
from rtil.data.load import load_data
from rtil.data.picture import decode
from rtil.inversion import measurement_file as measurement
from rtil.inversion import setup
from rtil.inverters.ilo import ILO
from rtil.operators import inpainting
from rtil.process.instantiate import instantiate
from rtil.runs import rows as jsonl

SIDE = 16  # of scale=tiny
MASK = inpainting((1, SIDE, SIDE), 0.4, seed=5).observed


@pytest.fixture(scope="module")
def generators(tmp_path_factory):
    """Untrained generators by their number of channels."""
    found = {}
    for channels in (1, 3):
        cfg = composed("train", "scale=tiny", f"image_channels={channels}")
        cfg.model.phase_nimg = None
        config = OmegaConf.to_container(cfg, resolve=True)
        torch.manual_seed(0)
        G = instantiate(config["model"]["generator"])
        found[channels] = tmp_path_factory.mktemp("generators") / f"{channels}.pt"
        content = {"format": checkpoint.EXPORT, "config": config, "nimg": 0}
        checkpoint.save({**content, "G_ema": G.state_dict()}, found[channels])
    return found


@pytest.fixture
def run(generators, tmp_path):
    """Inverts with the grey generator, or that of `channels`; returns the place of the results."""

    def run(*overrides, channels=1):
        overrides = [
            "hardware=cpu",
            "hardware.threads=1",
            "inversion_batch=1",
            f"generator={generators[channels]}",
            f"root={tmp_path}",
            *overrides,
        ]
        return invert.invert(composed("invert", *overrides), overrides)

    return run


@pytest.fixture
def seen(monkeypatch):
    """(y, reconstruction) of every image that the inverter was given."""
    pairs, right = [], ILO.invert

    def spy(self, G, A, y, *rest, **more):
        found = right(self, G, A, y, *rest, **more)
        pairs.extend(zip(y, found.image))
        return found

    monkeypatch.setattr(ILO, "invert", spy)
    return pairs


def pixels(seed, height=SIDE, width=SIDE, channels=1):
    shape = (height, width, channels) if channels > 1 else (height, width)
    return np.random.default_rng(seed).integers(0, 256, shape, np.uint8)


def write(path, array):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(array).save(path)
    return path


def write_mask(path, observed=MASK):
    return write(path, np.where(np.asarray(observed), 255, 0).astype(np.uint8))


def read(path):
    return np.asarray(Image.open(path))


def record(place, name="photo"):
    return json.loads((place / f"{name}-reconstruction.json").read_text())


@pytest.mark.parametrize(
    "task",
    [
        ("phase_retrieval", "ratio=1.5"),
        ("inpainting", "mask"),
        *(
            pytest.param(task, marks=pytest.mark.slow)
            for task in (
                ("cs", "ratio=0.2"),
                ("inpainting", "ratio=0.3"),
                ("sr", "factor=4"),
                ("denoise", "noise_std=0.2"),
                ("deblur", "blur_std=1"),
            )
        ),
    ],
)
def test_a_saved_measurement_inverts_as_its_test_image_bit_for_bit(run, seen, tmp_path, task):
    name, knob = task
    words = [f"task={name}", knob]
    if name != "denoise":
        words.append("noise_std=0.05")
    mask = []
    if knob == "mask":
        words.pop(1)
        mask = [f"mask={write_mask(tmp_path / 'mask.png')}"]
    place = run(
        *words,
        *mask,
        "seed=3",
        "num_images=2",
        "image_seed=null",
        "save_measurements=true",
        "yardstick.use=false",
    )
    row = jsonl.read(place / "results.jsonl")[1]
    saved = (place / "measurements" / "000001.npz").rename(tmp_path / "renamed.npz")
    place = run(*words, "seed=3", f"input={saved}")
    assert place == tmp_path and len(seen) == 3
    assert torch.equal(seen[1][0], seen[2][0]) and torch.equal(seen[1][1], seen[2][1])
    found = record(tmp_path, "renamed")
    assert (found["loss"], found["last_loss"]) == (row["loss"], row["last_loss"])
    assert not any("psnr" in key or "ssim" in key for key in found)
    other = "(?s)was measured under other settings.*"
    if "ratio" in knob:
        with pytest.raises(ValueError, match=f"{other}seed: 3 there, 4 here"):
            run(*words, "seed=4", f"input={saved}")
    with pytest.raises(ValueError, match=f"{other}noise_std: .* there, 0.3 here"):
        run(*words, "seed=3", f"input={saved}", "noise_std=0.3")


def test_a_mask_from_a_file_that_equals_the_drawn_one_gives_the_same_rows(run, tmp_path):
    path = write_mask(tmp_path / "mask.png")
    words = [
        "task=inpainting",
        "seed=5",
        "num_images=2",
        "yardstick.num_train=20",
        "data.num_train=20",
    ]
    rows, share = [], int(MASK.sum()) / 256
    for extra in (["ratio=0.4"], [f"mask={path}"], [f"mask={path}", f"ratio={share}"]):
        place = run(*words, *extra, f"run_dir={tmp_path / str(len(rows))}")
        rows.append(
            [
                {k: v for k, v in row.items() if k != "seconds"}
                for row in jsonl.read(place / "results.jsonl")
            ]
        )
    assert rows[0] == rows[1] == rows[2] and rows[0][0]["lmmse_psnr_db"] is not None
    config = OmegaConf.load(tmp_path / "1" / "config.yaml")
    assert config.ratio == share
    write_mask(path, ~MASK)
    with pytest.raises(ValueError, match="mask_sha256"):
        run(*words, f"mask={path}", "num_images=3", f"run_dir={tmp_path / '1'}")


@pytest.mark.parametrize("channels", [1, 3])
def test_observed_pixels_stay_exactly_and_missing_ones_are_the_generators(run, tmp_path, channels):
    photo = pixels(1, channels=channels)
    path, mask = write(tmp_path / "photo.png", photo), write_mask(tmp_path / "mask.png")
    words = ["task=inpainting", f"input={path}", f"mask={mask}"]
    assert run(*words, channels=channels) == tmp_path
    whole, drawn = (read(tmp_path / f"photo-{s}.png") for s in ("reconstruction", "generated"))
    assert np.array_equal(whole[MASK], photo[MASK]) and whole.shape == photo.shape
    assert np.array_equal(whole[~MASK], drawn[~MASK])
    assert (drawn[MASK] != photo[MASK]).mean() > 0.9
    found = record(tmp_path)
    assert found["settings"]["keep_observed"] is True and found["settings"]["ratio"] is None
    error = (drawn[MASK].astype(float) - photo[MASK]) / 255
    assert found["residual_rms"] == pytest.approx(np.sqrt((error**2).mean()), rel=0.05)
    assert found["num_measurements"] == int(MASK.sum()) * channels
    for more, kept in (
        (["noise_std=0.1"], False),
        (["keep_observed=false"], False),
        (["noise_std=0.1", "keep_observed=true"], True),
    ):
        folder = tmp_path / more[-1].replace("=", "-")
        place = run(*words, *more, f"output={folder}", channels=channels)
        whole = read(place / "photo-reconstruction.png")
        assert np.array_equal(whole[MASK], photo[MASK]) == kept
        assert (place / "photo-generated.png").exists() == kept


@pytest.mark.parametrize(("side", "fit"), [(SIDE, "null"), (53, "crop"), (53, "resize")])
def test_what_damaged_pixels_hold_has_no_effect(run, seen, tmp_path, side, fit):
    observed = np.ones((side, side + (fit != "null") * 20), bool)
    observed[3:8, 4:9] = observed[-1] = False
    photo, other = pixels(1, *observed.shape), pixels(2, *observed.shape)
    mask = write_mask(tmp_path / "mask.png", observed)
    for i, damage in enumerate((photo, other, np.zeros_like(photo))):
        path = write(tmp_path / str(i) / "photo.png", np.where(observed, photo, damage))
        run("task=inpainting", f"input={path}", f"mask={mask}", f"fit={fit}")
    pictures = [read(tmp_path / str(i) / "photo-reconstruction.png") for i in range(3)]
    for i in (1, 2):
        assert torch.equal(seen[0][0], seen[i][0]) and torch.equal(seen[0][1], seen[i][1])
        assert np.array_equal(pictures[0], pictures[i])
    assert pictures[0].shape == (SIDE, SIDE)


@pytest.mark.parametrize("fit", ["crop", "resize"])
@pytest.mark.parametrize(("height", "width", "mode"), [(40, 61, "L"), (9, 9, "RGB")])
def test_a_picture_without_damage_is_scaled_as_training_images_are(
    tmp_path, height, width, mode, fit
):
    array = pixels(3, height, width, 3 if mode == "RGB" else 1)
    image = Image.fromarray(array)
    found, observed = measurement.fitted(image, torch.ones(height, width).bool(), 12, fit)
    if fit == "resize" and height != width:
        assert np.array_equal(found[0], np.asarray(image.resize((12, 12), Image.LANCZOS)))
    else:
        data = write(tmp_path / "image.png", array).read_bytes()
        assert np.array_equal(found, decode(data, 12, len(found)))
    assert observed.all()


def test_scaling_drops_what_is_mostly_damaged_and_keeps_the_rest():
    """A scratch of a quarter of a scaled pixel costs none of them, a hole those inside it."""
    observed = torch.ones(96, 96, dtype=torch.bool)
    observed[10, :] = False
    observed[40:64, 24:48] = False
    constant = np.where(observed, 77, pixels(0, 96, 96)).astype(np.uint8)
    found, kept = measurement.fitted(Image.fromarray(constant), observed, 24, "crop")
    assert (found == 77).all()
    hole = torch.zeros(24, 24, dtype=torch.bool)
    hole[10:16, 6:12] = True
    assert not kept[hole].any()
    outside = torch.nn.functional.max_pool2d(hole[None].float(), 3, 1, 1)[0] == 0
    assert kept[outside].all()


@pytest.mark.parametrize("fit", ["crop", "resize"])
def test_a_mask_that_observes_nothing_is_refused_in_a_line_and_one_pixel_fills_all(fit):
    nothing = torch.zeros(40, 61, dtype=torch.bool)
    image = Image.fromarray(pixels(3, 40, 61))
    with pytest.raises(ValueError, match=r"^the mask observes no pixel, .*left\.$"):
        measurement.fitted(image, nothing, 12, fit)
    nothing[20, 30] = True
    assert (measurement.fitted(image, nothing, 12, fit)[0] == pixels(3, 40, 61)[20, 30]).all()


@pytest.mark.parametrize(
    ("task", "side"),
    [
        ("task=sr factor=4", 4),
        ("task=denoise noise_std=0.1", SIDE),
        ("task=deblur blur_std=1", SIDE),
    ],
)
@pytest.mark.parametrize(("given", "drawn"), [(1, 3), (3, 1), (3, 3)])
def test_a_picture_is_the_measurement_itself(
    run, seen, tmp_path, caplog, task, side, given, drawn
):
    array = pixels(4, side, side, given)
    path = write(tmp_path / "photo.png", array)
    run(*task.split(), f"input={path}", channels=drawn)
    if given > drawn:
        array = np.asarray(Image.fromarray(array).convert("L"))
    assert ("draws grey images" in caplog.text) == (given > drawn)
    expected = np.broadcast_to(array.reshape(side, side, -1), (side, side, drawn))
    assert torch.equal(seen[0][0], to_float(torch.tensor(expected).permute(2, 0, 1)))
    assert read(tmp_path / "photo-reconstruction.png").shape[:2] == (SIDE, SIDE)
    assert not (tmp_path / "photo-generated.png").exists()


@pytest.mark.slow
def test_a_folder_gives_what_its_files_give_alone_and_goes_on_where_it_stopped(
    run, seen, tmp_path
):
    masks = {"a": MASK, "b": ~MASK, "c": MASK}
    for i, (name, mask) in enumerate(masks.items()):
        write(tmp_path / "photos" / f"{name}.png", pixels(i))
        write_mask(tmp_path / "masks" / f"{name}.bmp", mask)
    (tmp_path / "photos" / "notes.txt").write_text("no picture")
    words = ["task=inpainting", f"input={tmp_path / 'photos'}", f"mask={tmp_path / 'masks'}"]
    place = run(*words)
    assert place == tmp_path / "photos-reconstruction" and len(seen) == 3
    for name in masks:
        run(
            "task=inpainting",
            f"input={tmp_path / 'photos' / name}.png",
            f"mask={tmp_path / 'masks' / name}.bmp",
            f"output={tmp_path / 'alone'}",
        )
        for end in ("reconstruction", "generated"):
            files = [folder / f"{name}-{end}.png" for folder in (place, tmp_path / "alone")]
            assert files[0].read_bytes() == files[1].read_bytes()
        assert record(place, name)["loss"] == record(tmp_path / "alone", name)["loss"]
    del seen[:]
    (place / "b-reconstruction.png").unlink()
    run(*words)
    assert len(seen) == 1 and (place / "b-reconstruction.png").exists()
    run(*words, "inversion_batch=3", "fit=error")
    assert len(seen) == 1
    with pytest.raises(ValueError, match=r"a-reconstruction.png was made .*\n.*selection: 'best'"):
        run(*words, "selection=last")
    write(tmp_path / "photos" / "c.png", pixels(9))
    with pytest.raises(ValueError, match=r"c-reconstruction.png was made .*\n.*input_sha256"):
        run(*words)
    run(*words, f"output={tmp_path / 'photos'}")
    before = len(seen)
    run(*words, f"output={tmp_path / 'photos'}")  # its results are no inputs
    assert len(seen) == before == 4


def test_one_mask_serves_a_folder_that_holds_it_and_batches_change_nothing(run, seen, tmp_path):
    for i in range(3):
        write(tmp_path / "photos" / f"{i}.png", pixels(i))
    mask = write_mask(tmp_path / "photos" / "mask.png")
    words = ["task=inpainting", f"input={tmp_path / 'photos'}", f"mask={mask}"]
    one, many = (
        run(*words, f"inversion_batch={n}", f"output={tmp_path / str(n)}") for n in (1, 3)
    )
    assert len(seen) == 6 and len({tuple(y.flatten().tolist()) for y, _ in seen}) == 3
    for i in range(3):
        assert record(one, str(i))["loss"] == pytest.approx(record(many, str(i))["loss"], rel=1e-3)


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """What the refusals are about: a photo, its mask, and everything that can be wrong."""
    tmp_path = tmp_path_factory.mktemp("files")
    write(tmp_path / "photo.png", pixels(0))
    write_mask(tmp_path / "mask.png")
    write_mask(tmp_path / "small.png", MASK[:4, :4])
    write(tmp_path / "dark.png", MASK.numpy().astype(np.uint8))
    whole = (tmp_path / "photo.png").read_bytes()
    (tmp_path / "cut.png").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "y.pt").write_bytes(b"")
    (tmp_path / "empty").mkdir()
    write(tmp_path / "twins" / "a.png", pixels(0))
    write(tmp_path / "twins" / "a.bmp", pixels(0))
    write(tmp_path / "photos" / "a.png", pixels(0))
    write(tmp_path / "photos" / "b.png", pixels(1))
    write_mask(tmp_path / "masks" / "a.png")
    y = np.ones(51, np.float32)  # round(0.2 256)
    np.savez(tmp_path / "y.npz", y=y)
    np.savez(tmp_path / "short.npz", y=y[1:])
    np.savez(tmp_path / "image.npz", y=np.ones((1, SIDE, SIDE)))
    np.savez(tmp_path / "nan.npz", y=np.where(np.arange(51) == 7, np.inf, y))
    np.savez(tmp_path / "x.npz", x=y)
    np.savez(tmp_path / "complex.npz", y=y * 1j)
    np.savez(tmp_path / "code.npz", y=np.array([print], dtype=object))
    np.savez(tmp_path / "text.npz", y=y, settings="{ratio: 1}")
    (tmp_path / "cut.npz").write_bytes((tmp_path / "y.npz").read_bytes()[:100])
    settings = {"id": "1", "task": {"name": "cs", "scale": "unit"}, "seed": 4, "ratio": 0.2}
    for name, shape in (("seed4", (1, 16, 16)), ("wide", (3, 16, 16))):
        vector = torch.ones(51 if name == "seed4" else 154)
        measurement.save(tmp_path / f"{name}.npz", vector, {**settings, "image_shape": shape})
    return tmp_path


def refused(run, files, text, words):
    """Checks that a command is refused with these words, and leaves no file behind."""
    before = sorted(files.rglob("*"))
    with pytest.raises((ValueError, FileNotFoundError), match=words):
        run(*text.replace("@", f"{files}/").split())
    assert sorted(files.rglob("*")) == before


CS, FILL, PHOTO = "task=cs ratio=0.2", "task=inpainting", "task=inpainting input=@photo.png"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (f"{CS} input=@none.npz", r"input=.*none\.npz: nothing at"),
        (f"{CS} input=", "input='' must be a text"),
        (f"{CS} input=2024", r"input=2024: nothing at"),
        (f"{FILL} input=@none.png mask=@mask.png", r"input=.*none\.png: nothing at"),
        (f"{PHOTO} mask=@none.png", r"mask=.*none\.png: nothing at"),
        (f"{FILL} mask=@none.png", r"mask=.*none\.png: nothing at"),
        (
            f"{FILL} input=@cut.png mask=@mask.png",
            r"input: .*cut\.png cannot be read as a picture",
        ),
        (f"{PHOTO} mask=@cut.png", r"mask: .*cut\.png cannot be read as a picture"),
        (f"{CS} input=@y.pt", r"y\.pt ends in none of .*numpy.savez"),
        (f"{CS} input=@photo.png", "is a picture, and task=cs measures vectors"),
        ("task=phase_retrieval input=@photo.png", "task=phase_retrieval measures vectors"),
        (PHOTO, "needs to know which pixels are damaged: mask=FILE"),
        (f"{PHOTO} mask=@small.png", r"photo\.png has 16x16 pixels and its mask .* 4x4"),
        (f"{PHOTO} mask=@dark.png", r"observes no pixel: its brightest grey value is 1\b"),
        (f"{FILL} mask=@dark.png", "observes no pixel"),
        (f"{PHOTO} mask=@mask.png ratio=0.3", "ratio=0.3 asks for a mask that is drawn"),
        (f"{FILL} mask=@mask.png ratio=0.3", "ratio=0.3 asks for a mask that is drawn"),
        (f"{CS} input=@y.npz mask=@mask.png", "belongs to task=inpainting, not task=cs"),
        (f"{CS} mask=@mask.png", "belongs to task=inpainting, not task=cs"),
        (f"{PHOTO} mask=@masks", "is a folder and input=.* a file"),
        (f"{FILL} input=@photos mask=@masks", r"no mask for 1 of 2 pictures: b\.png"),
        (f"{FILL} input=@empty mask=@mask.png", "holds no file that ends in .png .*subfolders"),
        (f"{FILL} input=@twins mask=@mask.png", r"a\.bmp and a\.png .* share one result"),
        (f"{PHOTO} mask=@mask.png fit=pad", "fit=pad must be one of error, crop, resize"),
        (
            "task=sr factor=4 input=@photo.png fit=crop",
            "fit=crop would scale what task=sr measured",
        ),
        ("task=sr factor=4 input=@small.png keep_observed=true", "keep_observed belongs to"),
        (
            f"{PHOTO} mask=@mask.png keep_observed=maybe",
            "keep_observed=maybe must be true or false",
        ),
        (f"{PHOTO} mask=@mask.png output=@mask.png", "output=.* is a file"),
        (f"{PHOTO} mask=@mask.png num_images=3", "num_images is for held-out images"),
        *(
            (
                f"{PHOTO} mask=@mask.png selection={selection}",
                "picks iterates by the true image, .* has none",
            )
            for selection in ("oracle", "authors")
        ),
        (f"{PHOTO} mask=@mask.png metrics.lpips=true", "metrics is for held-out images"),
        (f"{CS} output=@out", "output=.* needs input=FILE"),
        (f"{FILL} mask=@mask.png keep_observed=true", "keep_observed=True .* needs input=FILE"),
        (f"{CS} input=@nan.npz", r"nan\.npz: 1 of the 51 numbers of y are not finite"),
        (f"{CS} input=@x.npz", r"x\.npz holds x; a measurement is an array named y"),
        (f"{CS} input=@complex.npz", r"of complex64; it must hold real numbers"),
        (
            f"{CS} input=@code.npz",
            r"code\.npz cannot be read as a saved measurement .*allow_pickle",
        ),
        (f"{CS} input=@text.npz", r"text\.npz cannot be read as a saved measurement \(JSONDecode"),
        (f"{CS} input=@cut.npz", r"cut\.npz cannot be read as a saved measurement"),
        (f"{CS} input=@seed4.npz", r"(?s)seed: 4 there, 0 here\nAdd seed=4"),
        ("task=cs seed=4 input=@seed4.npz", r"(?s)ratio: 0.2 there, 0.1 here\nAdd ratio=0.2"),
        (
            "task=phase_retrieval ratio=0.2 seed=4 input=@seed4.npz",
            r"task.name: cs there, phase_retrieval here",
        ),
    ],
)
def test_what_is_wrong_with_files_and_keys_is_said_before_a_generator_is_loaded(
    run, files, monkeypatch, text, words
):
    monkeypatch.setattr(setup, "load_generator", lambda *given: pytest.fail("loaded"))
    refused(run, files, text, words)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (
            "task=sr factor=4 input=@photo.png",
            r"photo\.png has 16x16 pixels; task=sr factor=4 of \(1, 16, 16\) images measures 4x4",
        ),
        (
            f"{FILL} input=@small.png mask=@small.png",
            r"has 4x4 pixels; task=inpainting of .* measures 16x16\. Scale it .*fit=crop",
        ),
        (
            "task=denoise noise_std=0.1 input=@small.png",
            r"has 4x4 pixels; task=denoise .* 16x16\.$",
        ),
        (f"{CS} input=@short.npz", r"holds y of shape \(50,\); task=cs ratio=0.2 .* \(51,\)"),
        (f"{CS} seed=4 input=@wide.npz", r"measures images \(3, 16, 16\) and the generator draws"),
        (f"{FILL} mask=@small.png", r"small\.png has 4x4 pixels and the generator draws 16x16"),
        (
            f"{FILL} input=@image.npz ratio=0.3",
            r"numbers of y are not 0 where the mask of ratio=0.3 ",
        ),
        (
            f"{FILL} input=@image.npz mask=@small.png",
            r"has a mask of 4x4 pixels and the generator",
        ),
    ],
)
def test_what_does_not_fit_the_generator_is_said_before_anything_is_inverted(
    run, files, seen, text, words
):
    refused(run, files, text, words)
    assert not seen


@pytest.fixture
def photo(files, tmp_path):
    """The words for the photo and its mask in a folder where results may be written."""
    for name in ("photo.png", "mask.png"):
        shutil.copy(files / name, tmp_path)
    return "task=inpainting input=@photo.png mask=@mask.png"


def test_files_that_rtil_did_not_make_are_never_overwritten(run, photo, tmp_path, seen):
    for name in ("photo-reconstruction.png", "photo-generated.png"):
        (tmp_path / name).write_bytes(b"mine")
        refused(run, tmp_path, photo, f"{name} exists without a record")
        assert (tmp_path / name).read_bytes() == b"mine"
        (tmp_path / name).unlink()
    (tmp_path / "photo-reconstruction.json").write_text("mine")
    refused(run, tmp_path, photo, "is no record of a reconstruction")
    assert not seen


def test_the_summary_says_what_is_known_and_no_score(run, photo, tmp_path, capsys):
    text = f"{photo} inverter=lmmse yardstick.num_train=20 data.num_train=20"
    for again in (False, True):
        run(*text.replace("@", f"{tmp_path}/").split())
        printed = capsys.readouterr().out
        assert f"{tmp_path / 'photo-reconstruction.png'}: residual 0." in printed
        assert "PSNR" not in printed and ("made before" in printed) == again


@pytest.mark.slow
def test_held_out_images_stay_as_they_are_without_a_mask(run, tmp_path):
    """The loop is shared: rows of test data come from test data."""
    place = run("num_images=1", "image_seed=null", "yardstick.use=false", "ratio=0.5")
    cfg = composed("invert", "scale=tiny")
    x = to_float(load_data(cfg.data, SIDE, "test").batch([0]))
    original = read(place / "images" / "000000-original.png")
    assert np.abs(original[..., 0] / 127.5 - 1 - x[0, 0].numpy()).max() < 0.005
    assert not (place / "measurements").exists()
