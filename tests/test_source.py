"""Whose images: rows and tunings of one split, wherever its files are."""

import shutil
from pathlib import Path

import numpy as np
import pytest
import yaml
from PIL import Image
from test_tune import export, start

from rtil import fair, results


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


def trained(root, *overrides):
    """An export where an inversion with these choices looks for it; a copy."""
    export(root, 0, "ilo", *overrides)
    path = next(root.rglob("generator.pt"))
    return Path(shutil.copy(path, root / "copy.pt"))  # whose name Hydra reads without quotes


def saved(place):
    return yaml.safe_load((place / "config.yaml").read_text())


# Rows of one split


def test_rows_of_other_images_are_not_mixed_in_and_files_may_move(tmp_path):
    sets = {name: pictures(tmp_path / name, 6, seed)
            for seed, name in enumerate(("faces", "val", "here", "other"))}
    common = (*of(sets["faces"]), "data.num_val=null", "data.num_test=null",
              f"data.val_path={sets['val']}")
    trained(tmp_path, *common)
    common += ("ratio=0.5",)
    place = start("invert", tmp_path, *common, f"data.test_path={sets['here']}")
    with pytest.raises(ValueError, match="split_files: '6 files") as error:
        start("invert", tmp_path, *common, f"data.test_path={sets['other']}", "num_images=4")
    assert "data.test_path" in str(error.value) and len(results.result_rows(place)) == 2
    assert saved(place)["data"]["test_path"] == str(sets["here"])
    moved = shutil.make_archive(str(tmp_path / "moved"), "zip", sets["here"])
    start("invert", tmp_path, *common, f"data.test_path={moved}", "num_images=3")
    assert len(results.result_rows(place)) == 3

    older = saved(place)  # of a version that did not say whose rows they are
    digest = older.pop("split_files")
    (place / "config.yaml").write_text(yaml.safe_dump(older))
    start("invert", tmp_path, *common, f"data.test_path={moved}", "num_images=4")
    assert saved(place)["split_files"] == digest


def test_a_tuning_belongs_to_its_validation_images_wherever_they_are(tmp_path):
    sets = {name: pictures(tmp_path / name, 4, seed)
            for seed, name in enumerate(("faces", "val", "other", "test"))}
    cut = ("data.num_val=null", "data.num_test=null")

    def words(val, faces=sets["faces"], test=sets["test"]):
        return ("ratio=0.5", *of(faces, *cut), f"data.val_path={val}", f"data.test_path={test}")

    trained(tmp_path, *words(sets["val"])[1:])
    path = start("tune", tmp_path, *words(sets["val"]), "trials=1")
    with pytest.raises(ValueError, match=r"trial-000 holds (?s:.*)split_files: '4 files"):
        start("tune", tmp_path, *words(sets["other"]), "trials=1")
    with pytest.raises(ValueError, match=r"tuned for other(?s:.*)split_files(?s:.*)val_path"):
        start("invert", tmp_path, *words(sets["other"]), "protocol=fair")
    moved = {name: shutil.copytree(folder, tmp_path / "moved" / name)
             for name, folder in sets.items()}
    start("invert", tmp_path, *words(moved["val"], moved["faces"], moved["test"]), "protocol=fair")
    found = fair.read(path)  # as an earlier version wrote it: its paths are all that is known
    del found["settings"]["split_files"]
    path.write_text(yaml.safe_dump(found))
    start("invert", tmp_path, *words(sets["val"]), "protocol=fair")
    with pytest.raises(ValueError, match=r"data\.val_path"):
        start("invert", tmp_path, *words(moved["val"]), "protocol=fair")
