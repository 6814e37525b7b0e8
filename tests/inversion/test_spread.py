"""What is written of an inverter that knows its error: columns, pictures and draws."""

import math

import numpy as np
import pytest
import torch
from hydra import compose, initialize_config_dir
from PIL import Image

from rtil import invert, train
from rtil.inversion.score import coverage
from rtil.process.command import CONFIGS
from rtil.runs import rows as jsonl

COMMON = ("scale=tiny", "hardware=cpu", "hardware.threads=1", "data.num_train=64")
SHORT = ("yardstick.num_train=40",)
CHAINS = ("inverter=posterior", "inverter.chains=2", "inverter.steps=20", "inverter.candidates=9")


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    root = tmp_path_factory.mktemp("runs")
    with initialize_config_dir(CONFIGS, version_base="1.3"):
        words = [*COMMON, f"run_dir={root / 'trained'}", "rtil=ilo", "total_nimg=16"]
        train.train(compose("train", words))
    return root


@pytest.fixture
def run(root):
    generator = root / "trained" / "generator.pt"

    def invert_with(*words, chains=True):
        words = [
            *COMMON,
            *SHORT,
            *CHAINS * chains,
            f"generator={generator}",
            f"root={root}",
            *words,
        ]
        with initialize_config_dir(CONFIGS, version_base="1.3"):
            return invert.invert(compose("invert", words), words)

    return invert_with


@pytest.mark.parametrize("task", [
    ("task=cs", "ratio=0.2"),
    ("task=inpainting", "ratio=0.3", "selection=heldout"),
    ("task=sr", "factor=4", "noise_std=0.1"),
])  # fmt: skip
def test_rows_have_a_draw_and_coverage_and_files_the_spread(run, tmp_path, task):
    place = run(*task, "num_images=2", f"run_dir={tmp_path / 'run'}", "save_draws=true")
    rows = jsonl.read(place / "results.jsonl")
    assert len(rows) == 2
    for row in rows:
        assert 0 <= row["coverage_50"] <= row["coverage_90"] <= 1
        assert math.isfinite(row["sample_psnr_db"]) and row["lmmse_psnr_db"] > 0
        assert row["oracle_psnr_db"] >= row["psnr_db"] - 1e-5
        saved = np.load(place / "draws" / f"{row['id']}.npz")
        assert saved["draws"].shape == (2, 1, 16, 16) and (saved["std"] > 0).any()
        picture = Image.open(place / "images" / f"{row['id']}-std.png")
        shades = np.asarray(picture.convert("L")) / 255
        np.testing.assert_allclose(shades, saved["std"][0].clip(0, 1), atol=0.01)
        assert (place / "images" / f"{row['id']}-sample.png").exists()


@pytest.mark.parametrize(("inverter", "written"), [("posterior", True), ("csgm", False)])
def test_draws_that_are_asked_for_are_written_or_said_to_be_none(
    run, tmp_path, capsys, inverter, written
):
    words = (f"run_dir={tmp_path}", "num_images=1", "task=cs", "save_draws=true")
    place = run(*words, f"inverter={inverter}", "inverter.steps=2", chains=written)
    assert (place / "draws").exists() == written
    assert ("save_draws=true wrote nothing" in capsys.readouterr().out) != written


@pytest.mark.parametrize("average", ["true", "false"])
def test_several_starts_of_chains_are_refused_before_any_work(run, tmp_path, average):
    """They would drop the spread."""
    place = tmp_path / "run"
    words = (f"run_dir={place}", "num_images=1", "task=cs", f"average={average}")
    with pytest.raises(ValueError, match=r"restarts=2 .* inverter\.chains"):
        run(*words, "restarts=2")
    assert not place.exists()


def test_a_file_of_ones_own_has_its_spread_beside_it_and_none_is_overwritten(run, tmp_path):
    photo = np.random.default_rng(0).integers(0, 256, (4, 4), dtype=np.uint8)
    Image.fromarray(photo).save(tmp_path / "photo.png")
    words = ("task=sr", "factor=4", f"input={tmp_path / 'photo.png'}")
    run(*words)
    std = tmp_path / "photo-std.png"
    assert Image.open(std).size == (16, 16)
    for name in ("photo-reconstruction.json", "photo-reconstruction.png"):
        (tmp_path / name).unlink()
    with pytest.raises(ValueError, match="exists without a record"):
        run(*words)


def test_what_is_not_linear_is_refused_by_name(run):
    with pytest.raises(ValueError, match="PhaseRetrieval is not linear"):
        run("task=phase_retrieval", "ratio=1")


def test_coverage_of_normal_errors_is_what_its_interval_says():
    rng = torch.Generator().manual_seed(0)
    std = 0.1 + torch.rand(3, 1, 64, 64, generator=rng)
    image = torch.rand(3, 1, 64, 64, generator=rng)
    found = coverage(image, std, image + std * torch.randn(std.shape, generator=rng))
    for percent, bound in ((50, 0.5), (90, 0.9)):
        for share in found[f"coverage_{percent}"]:
            assert share == pytest.approx(bound, abs=5 * (bound * (1 - bound)) ** 0.5 / 64)
