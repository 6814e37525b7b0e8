"""Images that cannot be read while training goes on are counted, where one looks afterwards."""

import json
import warnings

import numpy as np
import pytest
from helpers.trainings import config
from PIL import Image

from rtil import train
from rtil.runs import rows


@pytest.mark.parametrize("cache_gb", [0, 1])
def test_unreadable_images_are_in_log_summary_and_provenance(tmp_path, caplog, cache_gb):
    folder, run_dir = tmp_path / "set", tmp_path / "run"
    folder.mkdir()
    rng = np.random.default_rng(0)
    for i in range(16):
        Image.fromarray(rng.integers(0, 256, (16, 16), np.uint8)).save(folder / f"{i:02d}.png")
    for i in range(3, 10):
        (folder / f"{i:02d}.png").write_bytes(b"damaged")
    # None of these is the first, which is tried before training begins.
    words = [f"data.cache_gb={cache_gb}", "data.num_val=0", "data.num_test=0"]
    words += ["data=folder", f"data.path={folder}", "data.num_train=null", "rtil=vanilla"]
    words += ["total_nimg=16", "log_every=1", "batch=4", f"run_dir={run_dir}"]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        train.train(config(*words))
    log = rows.read(run_dir / "log.jsonl")
    assert log[-1]["unreadable_images"] == 7
    images = json.loads((run_dir / "provenance.json").read_text())["images"]
    assert (images["files"], images["contents_in_digest"], images["unreadable"]) == (16, 16, 7)
    assert len(images["unreadable_files"]) == 5
    assert "7 training images could not be read" in caplog.text
