"""A training that version 0.1 began goes on to the weights that version 0.1 reached.

tests/golden/training_0.1_*.pt.gz are its checkpoints after 24 images, config.yaml beside them held
the configuration that is in them; `helpers.pins` has its weights after 48.
"""

import gzip
import hashlib

import pytest
import yaml
from helpers.pins import GOLDEN, pinned_runs
from hydra import compose, initialize_config_dir

from rtil import checkpoint, train
from rtil.process.command import CONFIGS

PINNED, SAME_MACHINE = pinned_runs()
TINY = ("scale=tiny", "hardware=cpu", "hardware.threads=1", "data.num_train=64", "total_nimg=48")


@pytest.mark.parametrize(("model", "family"), [("stylegan2", "ilo"), ("pggan", "mgan")])
def test_a_training_of_version_0_1_goes_on_bit_for_bit(tmp_path, model, family):
    path = tmp_path / "checkpoint-0000000024.pt"
    path.write_bytes(
        gzip.decompress((GOLDEN / f"training_0.1_{model}-{family}.pt.gz").read_bytes())
    )
    began = checkpoint.load(path, (checkpoint.CHECKPOINT,))
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(began["config"], sort_keys=False))
    with initialize_config_dir(CONFIGS, version_base="1.3"):
        words = [*TINY, f"model={model}", f"rtil={family}", f"run_dir={tmp_path}"]
        train.train(compose("train", words))

    ended = checkpoint.load(checkpoint.latest(tmp_path))
    assert list(ended) == list(began)
    assert (began["nimg"], began["step"], ended["nimg"], ended["step"]) == (24, 3, 48, 6)
    # A training that began on another processor is not the one that this one makes as a whole.
    whole = PINNED["trainings"][f"{model} {family}"]["weights"]
    pinned = PINNED["resumed"][f"{model} {family}"] if "resumed" in PINNED else whole
    assert ended["G_ema"].keys() == pinned.keys()
    for name, (sha, norm) in pinned.items():
        weight = ended["G_ema"][name].contiguous()
        assert float(weight.double().norm()) == pytest.approx(norm, rel=1e-2, abs=1e-3), name
        if SAME_MACHINE:
            assert hashlib.sha256(weight.numpy().tobytes()).hexdigest()[:16] == sha, name
