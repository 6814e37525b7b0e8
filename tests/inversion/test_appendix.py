"""Settings of the paper's appendix: by arm and task, whatever composed or adopted the arm.

tests/golden/appendix_settings.json.gz holds what version 0.1 composed for every combination of
inverter, family, task, protocol and scale.
"""

import gzip
import json
from functools import lru_cache
from itertools import product
from pathlib import Path

import pytest
from helpers.pins import stated
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf

from rtil.process.command import CONFIGS
from rtil.runs.keys import flatten

FILE = Path(__file__).parents[1] / "golden" / "appendix_settings.json.gz"
PINNED = json.loads(gzip.decompress(FILE.read_bytes()))
AXES = PINNED["axes"]
GROUPS = ("inverter", "loss", "selection", "target_range")
# Where 0.1 found no weight of LPIPS, for inverters that fair does not tune, it said none.
CELLS = {
    choice: {
        key: 0.0 if key == "loss.lpips" and value is None else value
        for key, value in PINNED["settings"][number].items()
    }
    for choice, number in zip(product(*AXES.values()), PINNED["cells"], strict=True)
}
SCALES = {path.stem for path in (Path(CONFIGS) / "scale").glob("*.yaml")}
WITH_TABLE = sorted(path.stem for path in (Path(CONFIGS) / "appendix").glob("*.yaml"))


@lru_cache
def composed(*words):
    with initialize_config_dir(CONFIGS, version_base="1.3"):
        return compose("invert", list(words))


# Of lmmse, which has its noise from elsewhere, and of a distance that is no LPIPS.
LATER = {"inverter.family", "inverter.noise_std", "loss.perceptual"}


def settings(cfg, expected):
    """Flat and resolved: what the pin holds of a configuration, but for keys of later versions."""
    found = {}
    for key in GROUPS:
        node = cfg[key]
        found[key] = OmegaConf.to_container(node, resolve=True) if key in GROUPS[:2] else node
    flat = flatten(found)
    assert flat.keys() - expected.keys() <= LATER
    return {key: flat[key] for key in expected}


@pytest.mark.slow
@pytest.mark.parametrize("inverter", WITH_TABLE)
def test_every_arm_and_scale_that_takes_the_place_of_another_has_its_own_settings(inverter):
    """As where generator=FILE brings its family and scale along."""
    arms = {name: composed(f"rtil={name}").rtil for name in AXES["rtil"]}
    scales = {name: composed(f"scale={name}").scale for name in ("demo", "paper")}
    for task, protocol in product(AXES["task"], AXES["protocol"]):
        cfg = composed(f"inverter={inverter}", f"task={task}", f"protocol={protocol}").copy()
        for rtil, scale in product(AXES["rtil"], scales):
            cfg.rtil, cfg.scale = arms[rtil], scales[scale]
            choice = (inverter, rtil, task, protocol, scale)
            asked = cfg.copy()
            for key, value in stated(inverter, rtil, task, protocol).items():
                OmegaConf.update(asked, key, value)
            assert settings(asked, CELLS[choice]) == CELLS[choice], choice


@pytest.mark.slow  # four minutes
def test_every_composition_has_the_settings_of_version_0_1():
    with initialize_config_dir(CONFIGS, version_base="1.3"):
        for choice, expected in CELLS.items():
            given = dict(zip(AXES, choice))
            given |= stated(*(given[key] for key in ("inverter", "rtil", "task", "protocol")))
            words = [f"{key}={value}" for key, value in given.items()]
            assert settings(compose("invert", words), expected) == expected, choice


def test_a_typed_setting_takes_the_place_of_the_appendix():
    cfg = composed("rtil=vanilla", "task=sr", "scale=paper", "inverter.lr_style=0.3")
    assert (cfg.inverter.lr_style, cfg.inverter.lr_noise) == (0.3, 0.1)
    assert composed("rtil=vanilla", "task=sr", "scale=paper", "loss.lpips=0.7").loss.lpips == 0.7


@pytest.mark.parametrize("task", ["cs", "inpainting", "sr"])
def test_the_vanilla_arm_of_mganprior_starts_from_the_mean_of_its_codes(task):
    words = ("inverter=mgan", "model=pggan", "rtil=vanilla", f"task={task}")
    assert composed(*words).inverter.alpha_init == "1/N"
    assert composed(*words, "protocol=authors").inverter.alpha_init == 1 / 256
    for choice in ("1/C", "dirichlet", 0.5):
        assert composed(*words, f"inverter.alpha_init={choice}").inverter.alpha_init == choice


@pytest.mark.parametrize(("inverter", "distance"), [("ilo", "lpips"), ("mgan", "vgg_l1")])
@pytest.mark.slow
def test_scale_paper_has_the_distance_of_the_appendix_and_smaller_ones_that_of_0_1(
    inverter, distance
):
    """A.3 names LPIPS, A.4 the regularisation of mGANprior; where weights are 0 neither counts."""
    for arm, task in product(("vanilla", "ilo", "mgan_mixture"), ("inpainting", "sr")):
        words = (f"inverter={inverter}", f"rtil={arm}", f"task={task}")
        assert composed(*words, "scale=paper").loss.perceptual == distance
        for scale in SCALES - {"paper"}:
            loss = composed(*words, f"scale={scale}").loss
            assert (loss.perceptual, loss.lpips) == ("lpips", 0)


def test_an_arm_is_named_by_every_family_and_known_to_some_table():
    arms = {OmegaConf.load(path).get("arm") for path in (Path(CONFIGS) / "rtil").glob("*.yaml")}
    rows = set()
    for name in WITH_TABLE:
        rows |= OmegaConf.load(Path(CONFIGS) / "appendix" / f"{name}.yaml").keys()
    # The mixtures take theirs from the family that they are of; a protocol may have rows too.
    assert arms - {None} == rows - {"authors", "scales"}
