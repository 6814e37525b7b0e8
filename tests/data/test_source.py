"""Whose images: rows of one split, test images that no training saw, the yardstick's own."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import yaml
from helpers.commands import COMMON, composed, export, start
from helpers.reports import rows_of_runs
from PIL import Image

from rtil import checkpoint, diagnose, invert
from rtil.data import lineage
from rtil.inverters import lmmse
from rtil.inverters.lmmse import GaussianPrior
from rtil.runs import archive
from rtil.runs import keys as key_table
from rtil.runs import rows as jsonl
from rtil.runs import run as run_files

CUT = ("data.num_val=5", "data.num_test=5")


@pytest.fixture(autouse=True)
def unasked():
    """Files of these tests change within a process, those of a command do not."""
    lineage._check.cache_clear()


def pictures(folder, count, seed, light=128):
    """Equally named files of equal sizes, whose contents differ with the seed."""
    folder.mkdir(parents=True)
    rng = np.random.default_rng(seed)
    for i in range(count):
        grey = np.clip(light + rng.integers(-60, 60, (16, 16)), 0, 255).astype(np.uint8)
        Image.fromarray(grey).save(folder / f"{i:03d}.bmp")
    return folder


def of(path, *more):
    return ("data=folder", f"data.path={path}", *more)


def trained(root, *overrides, nimg=64):
    """An export where an inversion with these choices looks for it, trained so long; a copy."""
    export(root, 0, "ilo", *overrides)
    path = next(root.rglob("generator.pt"))
    checkpoint.save(checkpoint.load(path) | {"nimg": nimg}, path)
    return Path(shutil.copy(path, root / "copy.pt"))  # whose name Hydra reads without quotes


def saved(place):
    return yaml.safe_load((place / "config.yaml").read_text())


# Rows of one split


@pytest.mark.slow
def test_rows_of_other_images_are_not_mixed_in_and_files_may_move(tmp_path):
    sets = {
        name: pictures(tmp_path / name, 6, seed)
        for seed, name in enumerate(("faces", "val", "here", "other"))
    }
    common = (
        *of(sets["faces"]),
        "data.num_val=null",
        "data.num_test=null",
        f"data.val_path={sets['val']}",
    )
    trained(tmp_path, *common)
    common += ("ratio=0.5",)
    place = start("invert", tmp_path, *common, f"data.test_path={sets['here']}")
    other = start("invert", tmp_path, *common, f"data.test_path={sets['other']}")
    assert other != place and len(jsonl.result_rows(place)) == 2
    there = (f"data.test_path={sets['other']}", f'run_dir="{place}"')
    with pytest.raises(ValueError, match="split_files: '6 files") as error:
        start("invert", tmp_path, *common, *there, "num_images=4")
    assert "data.test_path" in str(error.value) and len(jsonl.result_rows(place)) == 2
    assert saved(place)["data"]["test_path"] == str(sets["here"])
    moved = shutil.make_archive(str(tmp_path / "moved"), "zip", sets["here"])
    start("invert", tmp_path, *common, f"data.test_path={moved}", "num_images=3")
    assert len(jsonl.result_rows(place)) == 3

    older = saved(place)  # of a version that did not say whose rows they are
    digest = older.pop("split_files")
    del older["nimg"]
    (place / "config.yaml").write_text(yaml.safe_dump(older))
    start("invert", tmp_path, *common, f"data.test_path={moved}", "num_images=4")
    assert (saved(place)["split_files"], saved(place)["nimg"]) == (digest, 64)


@pytest.mark.slow
def test_a_tuning_belongs_to_its_validation_images_wherever_they_are(tmp_path):
    sets = {
        name: pictures(tmp_path / name, 4, seed)
        for seed, name in enumerate(("faces", "val", "other", "test"))
    }
    cut = ("data.num_val=null", "data.num_test=null")

    def words(val, faces=sets["faces"], test=sets["test"]):
        return ("ratio=0.5", *of(faces, *cut), f"data.val_path={val}", f"data.test_path={test}")

    trained(tmp_path, *words(sets["val"])[1:])
    path = start("tune", tmp_path, *words(sets["val"]), "trials=1")
    assert start("tune", tmp_path, *words(sets["other"]), "trials=1") != path
    shutil.rmtree(start("tune", tmp_path, *words(sets["other"]), "trials=1").parent)
    with pytest.raises(
        FileNotFoundError, match=r"tuned for other(?s:.*)split_files(?s:.*)val_path"
    ):
        start("invert", tmp_path, *words(sets["other"]), "protocol=fair")
    moved = {
        name: shutil.copytree(folder, tmp_path / "moved" / name) for name, folder in sets.items()
    }
    start("invert", tmp_path, *words(moved["val"], moved["faces"], moved["test"]), "protocol=fair")
    # As an earlier version wrote it: its paths are all that is known.
    found = yaml.safe_load(path.read_text())
    del found["settings"]["split_files"]
    path.write_text(yaml.safe_dump(found))
    start("invert", tmp_path, *words(sets["val"]), "protocol=fair")
    with pytest.raises(FileNotFoundError, match=r"data\.val_path"):
        start("invert", tmp_path, *words(moved["val"]), "protocol=fair")


@pytest.mark.parametrize("cache_gb", [0, 1])
def test_an_unreadable_test_image_has_no_row_and_is_counted(tmp_path, capsys, cache_gb):
    faces, test = pictures(tmp_path / "faces", 6, 0), pictures(tmp_path / "test", 4, 1)
    common = (
        *of(faces),
        "data.num_val=null",
        f"data.test_path={test}",
        f"data.cache_gb={cache_gb}",
    )
    common += ("data.num_test=null",)
    path = trained(tmp_path, *of(faces))
    (test / "001.bmp").write_bytes(b"damaged")
    given = (f"generator={path}", "ratio=0.5", *common)
    with pytest.warns(UserWarning, match=r"001\.bmp"):
        place = start("invert", tmp_path, *given, "num_images=3")
    assert {row["id"] for row in jsonl.result_rows(place)} == {"000", "002", "003"}
    assert "no row: 1 unreadable images (001.bmp" in capsys.readouterr().out
    images = json.loads((place / "provenance.json").read_text())["images"]
    assert (images["files"], images["unreadable"]) == (4, 1)
    with (
        pytest.warns(UserWarning, match=r"001\.bmp"),
        pytest.raises(ValueError, match="3 images, 1 more that are unreadable, and 4 are needed"),
    ):
        start("invert", tmp_path, *given, "num_images=4")


# Images that no training saw


@pytest.mark.parametrize("gone", [False, True])
def test_test_images_that_the_generator_was_trained_on_are_refused(tmp_path, gone):
    """Also where the files of its training have moved since."""
    faces = pictures(tmp_path / "faces", 40, 0)
    path = trained(tmp_path, *of(faces, *CUT))
    if gone:
        faces = shutil.move(faces, tmp_path / "moved" / "faces")
    given = (f"generator={path}", "ratio=0.5")
    for more in (("data.num_val=5", "data.num_test=20"), (*CUT, "data.split_seed=1")):
        key = more[-1].partition("=")[0]
        with pytest.raises(ValueError, match=rf"of split=test are among(?s:.*){key}: "):
            start("invert", tmp_path, *given, *of(faces, *more))
    with pytest.raises(ValueError, match="10 of the 20 images"):
        start("invert", tmp_path, *given, *of(faces, "data.num_val=5", "data.num_test=20"))
    if not gone:  # a copy under another name
        copied = shutil.copytree(faces, tmp_path / "copied")
        with pytest.raises(ValueError, match="30 of the 40 images"):
            start(
                "invert",
                tmp_path,
                *given,
                *of(pictures(tmp_path / "cars", 9, 1)),
                f"data.test_path={copied}",
                "data.num_val=1",
                "data.num_test=null",
            )
    assert not (tmp_path / "invert").exists()
    start("invert", tmp_path, *given, *of(faces, *CUT))


@pytest.mark.slow
def test_tuning_and_diagnosis_refuse_training_images_too(tmp_path):
    faces = pictures(tmp_path / "faces", 40, 0)
    given = (
        f"generator={trained(tmp_path, *of(faces, *CUT))}",
        *of(faces, "data.num_val=20", "data.num_test=5"),
    )
    with pytest.raises(ValueError, match="15 of the 20 images of split=val are among"):
        start("tune", tmp_path, *given, "ratio=0.5", "trials=1")
    words = [*COMMON, f"root={tmp_path}", *given]
    with pytest.raises(ValueError, match="15 of the 20 images of split=val are among"):
        diagnose.diagnose(composed("diagnose", *words).copy(), words)


def test_equal_names_of_another_domain_are_no_training_images(tmp_path):
    path = trained(tmp_path, *of(pictures(tmp_path / "faces", 20, 0), *CUT))
    cars = of(pictures(tmp_path / "cars", 20, 1), "data.num_val=5", "data.num_test=14")
    place = start("invert", tmp_path, f"generator={path}", "ratio=0.5", *cars)
    assert len(jsonl.result_rows(place)) == 2


def test_files_added_since_the_training_are_told(tmp_path, caplog):
    faces = pictures(tmp_path / "faces", 40, 0)
    path = trained(tmp_path, *of(faces, *CUT))
    content, data = checkpoint.load(path), composed("invert", *of(faces, *CUT)).data
    files, order = lineage.split_files(data, "train")
    content["config"][key_table.FILES] = files.digest(order)
    lineage.check_held_out(content["config"], dict(data), "test", path)
    assert not caplog.records
    lineage._check.cache_clear()
    Image.new("L", (16, 16)).save(faces / "new.bmp")
    lineage.check_held_out(content["config"], dict(data), "test", path)
    assert "other files than when" in caplog.text


# The yardstick's images


@pytest.mark.slow
def test_the_yardstick_is_of_the_generators_images_and_not_of_the_commands(
    tmp_path, monkeypatch, caplog
):
    priors = []
    monkeypatch.setattr(
        lmmse, "GaussianPrior", lambda x: priors.append(float(x.mean())) or GaussianPrior(x)
    )
    dark, bright = (
        pictures(tmp_path / name, 20, seed, light)
        for seed, (name, light) in enumerate({"dark": 60, "bright": 200}.items())
    )
    path = trained(tmp_path, *of(dark, *CUT))
    shown = shutil.copytree(bright, tmp_path / "elsewhere" / "dark")

    def run(*more):
        words = [
            *COMMON,
            f"root={tmp_path}",
            "num_images=1",
            f"generator={path}",
            *more,
            *CUT,
            "ratio=0.5",
            "yardstick.use=true",
        ]
        place = invert.invert(composed("invert", *words).copy(), words)
        return jsonl.result_rows(place)[0]["lmmse_psnr_db"]

    assert run(*of(bright)) is not None and priors[-1] < -0.3
    assert run(*of(shown), "run_dir=" + str(tmp_path / "b")) is not None and priors[-1] < -0.3
    moved = shutil.move(dark, tmp_path / "moved" / "dark")
    assert run(*of(moved), "run_dir=" + str(tmp_path / "c")) is not None and priors[-1] < -0.3
    assert run(*of(bright), "run_dir=" + str(tmp_path / "d")) is None and len(priors) == 3
    assert f"it was trained on data.path={dark}" in caplog.text
    with pytest.raises(FileNotFoundError, match="name it in data"):
        run(*of(bright), "inverter=lmmse", "run_dir=" + str(tmp_path / "e"))


# Length of training


@pytest.mark.slow
def test_a_report_tells_arms_trained_for_different_lengths(tmp_path, caplog):
    for arm, nimg in (("vanilla", 8), ("ilo", 64)):
        export(tmp_path, rtil=arm)
        path = next(tmp_path.rglob(f"stylegan2-{arm}-*/generator.pt"))
        checkpoint.save(checkpoint.load(path) | {"nimg": nimg}, path)
        place = start("invert", tmp_path, f"rtil={arm}", "ratio=0.5")
        assert saved(place)["nimg"] == nimg
    assert caplog.text.count("stopped at 8 of 64 images") == caplog.text.count("stopped") == 1
    runs = run_files.collect(tmp_path)[0]
    archive.write(runs, tmp_path, file := tmp_path / "rows.jsonl")

    def differs(runs):
        rows = rows_of_runs(runs)
        return [line for row in rows for line in row.differs]

    for found in (runs, archive.read(file)[0]):
        assert "nimg: 8 there, 64 here" in differs(found)
    config = {key: value for key, value in runs[0].config.items() if key != "nimg"}
    older = [replace(runs[0], config=config)]
    assert not any(line.startswith("nimg") for line in differs([*older, *runs[1:]]))
