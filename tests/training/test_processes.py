"""Any number of processes gives the same training, up to the rounding of a sum; in float64."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from rtil.process.rng import Draws

TESTS = Path(__file__).parents[1]
# R1 and path lengths come at step 0, path lengths again at step 4.
LENGTH = ("total_nimg=72", "batch=12", "log_every=1", "checkpoint_every=24")
SHORT = (*LENGTH, "total_nimg=24")
TRAININGS = {
    "mixture": ("model=stylegan2", "rtil=ilo_mixture"),
    "ilo": ("model=stylegan2", "rtil=ilo", "model.style_mixing=0.5"),
    # Whole batches are groups of its minibatch standard deviation, and it grows.
    "pggan": ("model=pggan", "rtil=mgan_mixture", "data.mirror=true", "crop_scale=1.25"),
    "relativistic": ("model=stylegan2", "rtil=ilo", "objective=relativistic"),
    # Codes of images, which any process may meet, and an encoder.
    "glo": ("model=stylegan2", "rtil=ilo_mixture", "objective=glo"),
    "vae": ("model=pggan", "rtil=mgan", "objective=vae"),
    # What the published code does otherwise. A penalty's two samples are in two processes.
    "published": (
        *("model=stylegan2", "rtil=ilo_mixture", "model.style_mixing_per=batch"),
        *("model.objective.path_mean_detached=false", "model.reuse_fakes=true"),
    ),
    "ada": ("model=stylegan2", "rtil=ilo_mixture", "augment=ada", "augment.p=0.4"),
    # p is of differences there, and moves by them.
    "relativistic_ada": (
        *("model=stylegan2", "rtil=ilo", "objective=relativistic", "augment=ada"),
        *("augment.p=0.4", "augment.speed=100", "augment.every=2"),
    ),
    "published_pggan": (
        *("model=pggan", "rtil=mgan", "protocol=authors", "model.reuse_fakes=true"),
        "rtil.family.fade_in=last",
    ),
}


def train(*commands):
    """Each is (number of processes, overrides)."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    environment["PYTHONPATH"] = os.pathsep.join([str(TESTS), str(TESTS.parent)])
    script = [sys.executable, str(TESTS / "helpers" / "processes.py"), json.dumps(commands)]
    done = subprocess.run(
        script, env=environment, capture_output=True, text=True, timeout=300, check=False
    )
    assert done.returncode == 0, done.stderr


def weights(run_dir, rank=0):
    return torch.load(run_dir / f"rank{rank}.pt", weights_only=True)


def losses(run_dir):
    rows = map(json.loads, (run_dir / "log.jsonl").read_text().splitlines())
    return [{k: v for k, v in row.items() if k.startswith(("D/", "G/"))} for row in rows]


def assert_close(a, b):
    """Weights, averages, moments of Adam and the running means agree to 1e-10."""
    if isinstance(a, dict):
        assert a.keys() == b.keys()
        for key in a:
            assert_close(a[key], b[key])
    elif isinstance(a, list):
        assert len(a) == len(b)
        for x, y in zip(a, b):
            assert_close(x, y)
    elif isinstance(a, torch.Tensor) and a.is_floating_point():
        torch.testing.assert_close(a, b, rtol=1e-10, atol=1e-10)
    elif isinstance(a, torch.Tensor):
        assert torch.equal(a, b)
    else:
        assert a == b


def assert_same_training(one, other):
    assert_close(weights(one), weights(other))
    first, second = losses(one), losses(other)
    assert len(first) == len(second) > 0
    for a, b in zip(first, second):
        assert a == pytest.approx(b, rel=1e-9, abs=1e-10)


@pytest.mark.parametrize(
    ("name", "worlds", "length"),
    [
        ("mixture", (2,), SHORT),
        pytest.param("mixture", (3, 4, 6), LENGTH, marks=pytest.mark.slow),
        pytest.param("published", (2, 3), LENGTH, marks=pytest.mark.slow),
        pytest.param("published_pggan", (2, 3), LENGTH, marks=pytest.mark.slow),
        pytest.param("ada", (2, 3), LENGTH, marks=pytest.mark.slow),
        pytest.param("relativistic_ada", (2, 3), LENGTH, marks=pytest.mark.slow),
        pytest.param("relativistic", (2, 3), SHORT, marks=pytest.mark.slow),
        pytest.param("glo", (2, 3), LENGTH, marks=pytest.mark.slow),
        pytest.param("vae", (2, 3), LENGTH, marks=pytest.mark.slow),
        pytest.param("pggan", (2, 3, 4), LENGTH, marks=pytest.mark.slow),
        pytest.param("ilo", (2, 4), LENGTH, marks=pytest.mark.slow),
    ],
)
def test_any_number_of_processes_gives_the_same_training(tmp_path, name, worlds, length):
    """Shares that split groups of the standard deviation or the path penalty's samples, too."""
    train(
        *((w, [*TRAININGS[name], *length, f"run_dir={tmp_path / str(w)}"]) for w in (1, *worlds))
    )
    for world in worlds:
        assert_same_training(tmp_path / "1", tmp_path / str(world))
        for rank in range(1, world):
            first, own = weights(tmp_path / str(world)), weights(tmp_path / str(world), rank)
            assert_close(first["G"], own["G"])
            assert_close(first["objective"], own["objective"])
            assert_close(first.get("augmentation", {}), own.get("augmentation", {}))


@pytest.mark.slow
def test_any_number_of_processes_starts_from_a_trained_generator_alike(tmp_path):
    """With a new discriminator, which learns alone first, and a layer that is not trained."""
    base = tmp_path / "base"
    words = [*TRAININGS["mixture"], *SHORT, f"init={base / 'generator.pt'}", "init_d_nimg=12"]
    words += ["freeze=[mapping.0]"]
    train(
        (1, ["rtil=vanilla", *LENGTH, "total_nimg=12", f"run_dir={base}"]),
        *((world, [*words, f"run_dir={tmp_path / str(world)}"]) for world in (1, 2)),
    )
    assert_same_training(tmp_path / "1", tmp_path / "2")
    first, own = (weights(tmp_path / "2", rank) for rank in (0, 1))
    assert_close(first["objective"], own["objective"])
    assert any(value.any() for value in first["objective"].values())


@pytest.mark.slow
@pytest.mark.parametrize("name", ["mixture", "pggan"])
def test_a_training_goes_on_the_same_with_another_number_of_processes(tmp_path, name):
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    common = TRAININGS[name] + LENGTH
    # The last total is said from the start: a growing network's phases go by it.
    phases = ["model.phase_nimg=[24,24,24]"] if name == "pggan" else []
    lengths = [(2, 24), (1, 48), (3, 72)]
    train(
        (1, [*common, *phases, f"run_dir={whole}"]),
        *((w, [*common, *phases, f"run_dir={parts}", f"total_nimg={n}"]) for w, n in lengths),
    )
    assert_same_training(whole, parts)


@pytest.mark.parametrize("total", [1, 2, 3, 6])
@pytest.mark.parametrize("world", [1, 2, 3, 4])
def test_processes_share_samples_equally_and_draw_the_same(total, world):
    """Every sample stands equally often; processes together hold the draws of one alone."""
    shares = [Draws(torch.Generator().manual_seed(0), total, rank, world) for rank in range(world)]
    places = [place for share in shares for place in share.own]
    assert sorted(places) == places and set(places) == set(range(total))
    assert len({places.count(place) for place in range(total)}) == 1
    whole = Draws(torch.Generator().manual_seed(0), total).normal(2)
    assert torch.equal(torch.cat([share.normal(2) for share in shares]), whole[places])
