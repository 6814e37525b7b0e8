"""A typed setting is of the type that it has where nothing is typed."""

import pytest
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf

from rtil.process.command import CONFIGS
from rtil.runs import keys
from rtil.runs.overrides import as_text
from rtil.runs.setup import checked


def after(command, *words):
    with initialize_config_dir(CONFIGS, version_base="1.3"):
        cfg = compose(command, list(words))
    return checked(cfg, command, words)


@pytest.mark.parametrize(("text", "value"), [
    ("no", False), ("off", False), ("yes", True), ("on", True), ("No", False), ("true", True),
])  # fmt: skip
def test_a_switch_means_what_it_says(text, value):
    assert after("train", f"data.mirror={text}").data.mirror is value
    assert after("invert", f"inverter.sphere={text}").inverter.sphere is value


@pytest.mark.parametrize(("command", "word"), [
    ("train", "data.mirror=maybe"),
    ("train", "model.lr=abc"),
    ("train", "model.style_mixing=nan"),
    ("train", "rtil.family.sigma=abc"),
    ("train", "data.num_train=many"),
    ("invert", "pictures=x"),
    ("invert", "loss.mse=abc"),
    ("invert", "inverter.lr_style=abc"),
    ("invert", "inverter.map_sigma=inf"),
    ("invert", "inverter.fit_samples=inf"),
    ("invert", "+inverter.alpha_init=1/M"),
    ("invert", "noise_std=.nan"),
    ("tune", "trials=several"),
    ("diagnose", "num_samples=few"),
])  # fmt: skip
def test_what_is_no_switch_or_number_is_refused_by_key(command, word):
    with pytest.raises(ValueError, match=rf"{command}: {word.partition('=')[0]}=.* must be"):
        after(command, word)


@pytest.mark.parametrize("words", [
    ["inverter=mgan", "model=pggan", "rtil=vanilla", "inverter.alpha_init=dirichlet"],
    *(["inverter=mgan", f"inverter.alpha_init={first}"] for first in ("1/N", "1/C", 0.1)),
    ["metrics.lpips=true"],
    ["selection=heldout"],
    ["inverter.steps=[3,2,2]"],
    ["data=folder", "data.path=a/b", "run_dir=x"],
    ["+experiment.name=mine"],
    ["protocol=fair", "protocol.tuned=null"],
])  # fmt: skip
def test_what_may_be_a_word_or_a_list_stays(words):
    assert after("invert", *words) is not None


@pytest.mark.parametrize(
    "command", ["train", "invert", "tune", "app", "diagnose", "report", "theory"]
)
def test_every_default_may_be_typed(command):
    with initialize_config_dir(CONFIGS, version_base="1.3"):
        cfg = compose(command)
    tree = OmegaConf.to_container(cfg, resolve=True, throw_on_missing=False)
    words = [f"{key}={as_text(value)}" for key, value in keys.flatten(tree).items()]
    assert len(words) > 5 and checked(cfg, command, words) == cfg


def test_a_word_that_is_not_the_default_may_be_typed():
    assert after("invert", "task.scale=published").task.scale == "published"
