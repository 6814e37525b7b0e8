"""Tiny trainings and inversions of every arm give what version 0.1 gave.

Bit for bit where torch and the processor's instructions are those of the pinned run, elsewhere up
to rounding, which adversarial training magnifies over its steps.
"""

import hashlib
from functools import cache

import pytest
import torch
from helpers.pins import pinned_runs, stated
from hydra import compose, initialize_config_dir

from rtil import invert, train
from rtil.process.command import CONFIGS
from rtil.runs import rows as jsonl

COMMON = ("scale=tiny", "hardware=cpu", "hardware.threads=1", "data.num_train=64")
MEASURED = ("seconds", "images_per_second", "peak_memory_mb")
PINNED, SAME_MACHINE = pinned_runs()


def composed(command, words):
    with initialize_config_dir(CONFIGS, version_base="1.3"):
        return compose(command, words)


def digest(x):
    return hashlib.sha256(x.contiguous().numpy().tobytes()).hexdigest()[:16]


PREFIXES = ("", "last_", "best_", "single_", "generated_", "lmmse_")
LATER = {f"{prefix}{name}" for prefix in PREFIXES for name in ("ssim_valid", "st_lpips")}


def assert_pinned(found, pinned, loose):
    """Two rows: equal on the pinned machine, else numbers within `loose`."""
    assert found.keys() - LATER == pinned.keys()
    for key, value in pinned.items():
        number = isinstance(value, float) and not SAME_MACHINE
        expected = pytest.approx(value, rel=loose, abs=loose) if number else value
        if SAME_MACHINE or number:
            assert found[key] == expected, key


@pytest.fixture(scope="module")
def generator_of(tmp_path_factory):
    """(model, family) to its generator.pt, trained once where one is asked for."""
    root = tmp_path_factory.mktemp("pinned")

    @cache
    def trained(model, family):
        run_dir = root / f"{model}-{family}"
        words = [*COMMON, f"model={model}", f"rtil={family}", "total_nimg=48"]
        train.train(composed("train", [*words, f"run_dir={run_dir}"]))
        return run_dir / "generator.pt"

    return trained


def every_second(names):
    """All of them, every second one in the default suite."""
    names = [*names]
    return [
        pytest.param(name, marks=pytest.mark.slow if name in names[1::2] else ()) for name in names
    ]


@pytest.mark.parametrize("arm", every_second(PINNED["trainings"]))
def test_a_training_is_the_pinned_one(generator_of, arm):
    pinned, file = PINNED["trainings"][arm], generator_of(*arm.split())
    weights = torch.load(file, weights_only=True)["G_ema"]
    assert weights.keys() == pinned["weights"].keys()
    for name, (sha, norm) in pinned["weights"].items():
        if SAME_MACHINE:
            assert digest(weights[name]) == sha, name
        assert float(weights[name].double().norm()) == pytest.approx(norm, rel=1e-2, abs=1e-3)
    log = jsonl.read(file.parent / "log.jsonl")
    for row, before in zip(log, pinned["log"], strict=True):
        assert_pinned({k: v for k, v in row.items() if k not in MEASURED}, before, 0.1)


@pytest.mark.parametrize("number", every_second(range(len(PINNED["inversions"]))))
def test_an_inversion_is_the_pinned_one(generator_of, tmp_path, number):
    pinned = PINNED["inversions"][number]
    model, family = pinned["model"], pinned["rtil"]
    given = dict(word.split("=", 1) for word in pinned["overrides"])
    old = stated(given["inverter"], family, given["task"], given.get("protocol", "paper"))
    earlier = [f"{key}={value}" for key, value in old.items()]
    words = [*COMMON, *earlier, f"model={model}", f"rtil={family}", *pinned["overrides"],
             f"generator={generator_of(model, family)}", "num_images=3", "yardstick.num_train=40",
             "pictures=false", f"run_dir={tmp_path}"]  # fmt: skip
    rows = jsonl.result_rows(invert.invert(composed("invert", words), words))
    for row, before in zip(rows, pinned["rows"], strict=True):
        assert_pinned({k: v for k, v in row.items() if k not in MEASURED}, before, 0.5)
