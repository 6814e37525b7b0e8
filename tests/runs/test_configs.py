"""Every configuration composes, resolves and builds; a new yaml needs no edit here."""

import importlib
from itertools import product
from pathlib import Path

import pytest
import torch
from hydra import compose, initialize_config_dir
from hydra.errors import ConfigCompositionException
from omegaconf import OmegaConf

from rtil.inverters import build_inverter
from rtil.operators import build_operator
from rtil.process.command import CONFIGS
from rtil.process.instantiate import instantiate, target_of

ROOT = Path(CONFIGS)


def names(group):
    return sorted(p.stem for p in (ROOT / group).glob("*.yaml"))


def composed(entry, *overrides):
    with initialize_config_dir(CONFIGS, version_base="1.3"):
        cfg = compose(entry, list(overrides))
    if "image_channels" in cfg:
        cfg.image_channels = cfg.image_channels or 3
    return cfg


def resolved(entry, *overrides):
    cfg = composed(entry, *overrides)
    if "model" in cfg and cfg.model.get("phase_nimg") == "grow":
        cfg.model.phase_nimg = None
    return OmegaConf.to_container(cfg, resolve=True)


def model_of(rtil):
    return "pggan" if rtil.startswith("mgan") else "stylegan2"


def spread(every, *groups, thin=1):
    """All choices of three groups; by default one in `every` of them, in which all pairs occur.

    Of these one in `thin` is left, in which each choice meets several of each other group.
    """
    assert min(map(len, groups)) >= every

    def is_quick(places):
        return sum(places) % every == 0 and sum(places[:2]) % thin == 0

    return [
        pytest.param(
            *(group[i] for group, i in zip(groups, places)),
            marks=() if is_quick(places) else pytest.mark.slow,
        )
        for places in product(*(range(len(group)) for group in groups))
    ]


MODELS = names("model")


@pytest.mark.parametrize(
    ("model", "rtil", "scale"), spread(len(MODELS), MODELS, names("rtil"), names("scale"))
)
def test_training_choices_compose_and_their_networks_build(model, rtil, scale):
    config = resolved("train", f"model={model}", f"rtil={rtil}", f"scale={scale}")
    with torch.device("meta"):
        G = instantiate(config["model"]["generator"])
        D = instantiate(config["model"]["discriminator"])
    family = instantiate(config["rtil"]["family"])
    assert sum(family.weights) == pytest.approx(1.0)
    objective = instantiate(
        config["model"]["objective"], members=[len(s.names) for s in family.spaces]
    )
    assert objective is not None and D is not None
    for space in family.spaces:
        space.check(G)
    steps = config["total_nimg"] / max(
        config["batch"] if isinstance(config["batch"], list) else [config["batch"]]
    )
    assert steps >= 1 and config["checkpoint_every"] <= config["total_nimg"]


@pytest.mark.parametrize(
    ("task", "inverter", "scale"),
    spread(len(names("scale")), names("task"), names("inverter"), names("scale"), thin=3),
)
def test_inversion_choices_compose_and_build(task, inverter, scale):
    rtil = "mgan" if inverter == "mgan" else "ilo"
    config = resolved(
        "invert",
        f"task={task}",
        f"inverter={inverter}",
        f"scale={scale}",
        f"rtil={rtil}",
        f"model={model_of(rtil)}",
    )
    side = config["resolution"]
    knob = config["task"]["knob"]
    A = build_operator(config["task"], (3, side, side), 0, **{knob: config[knob]})
    assert A.num_measurements > 0
    with torch.device("meta"):
        G = instantiate(config["model"]["generator"])
    method = build_inverter(config["inverter"], instantiate(config["rtil"]["family"]))
    method.check(G)
    assert (config["inverter"]["family"] is None) == (not method.needs_generator)


@pytest.mark.parametrize("name", names("inverter"))
def test_a_list_where_an_inverter_takes_a_number_is_named(name):
    """`steps` may be a list of stages to one inverter and is a number to another."""
    rtil = "mgan" if name == "mgan" else "ilo"
    config = resolved("invert", f"inverter={name}", f"rtil={rtil}", "scale=tiny")
    own, family = config["inverter"], instantiate(config["rtil"]["family"])
    fields = target_of(own).__annotations__
    single = [key for key in fields if key in own and "Sequence" not in fields[key]]
    assert single
    for key in single:
        with pytest.raises(ValueError, match=rf"inverter\.{key}=\[1, 1\] must be one value"):
            build_inverter({**own, key: [1, 1]}, family)


@pytest.mark.parametrize("name", names("data"))
def test_data_choices_compose(name):
    path = ("data.path=faces.zip",) if name == "folder" else ()
    config = resolved("train", f"data={name}", *path)
    assert config["data"]["name"] == name and config["data"]["source"] in ("glyphs", "folder")


@pytest.mark.parametrize("name", names("hardware"))
def test_hardware_choices_compose(name):
    if name == "slurm":
        pytest.importorskip("hydra_plugins.hydra_submitit_launcher")
    config = resolved("train", f"hardware={name}")
    assert config["hardware"].keys() == {
        "device",
        "threads",
        "tf32",
        "precision",
        "channels_last",
        "ops",
        "cuda_graphs",
    }


@pytest.mark.parametrize("name", names("tuned"))
def test_tuned_settings_apply_to_the_choices_that_they_are_named_after(name):
    inverter, rest = name.split("_", 1)
    rtil, task = rest.rsplit("_", 1)
    choices = [f"inverter={inverter}", f"rtil={rtil}", f"task={task}", "scale=paper"]
    tuned = composed("invert", *choices)
    plain = OmegaConf.load(ROOT / "inverter" / f"{inverter}.yaml")
    overlay = OmegaConf.load(ROOT / "tuned" / f"{name}.yaml")
    changed = 0
    for key, value in overlay.get("inverter", {}).items():
        assert tuned.inverter[key] == value != plain[key]
        changed += 1
    if "loss" in overlay:
        assert tuned.loss.lpips > 0
        changed += 1
    assert changed


@pytest.mark.parametrize("entry", [p.stem for p in ROOT.glob("*.yaml") if p.stem != "base"])
def test_every_entry_point_composes_and_its_module_has_a_main(entry):
    assert resolved(entry)["root"] == "runs"
    assert callable(importlib.import_module(f"rtil.{entry}").main)


@pytest.mark.parametrize(
    ("entry", "override", "word"),
    [
        ("invert", ["task=sr", "ratio=0.5"], "ratio"),
        ("invert", ["task=cs", "factor=4"], "factor"),
        ("invert", ["task=denoise", "ratio=0.5"], "ratio"),
        ("invert", ["task=phase_retrieval", "blur_std=1"], "blur_std"),
        ("invert", ["task=deblur", "task.scale=unit"], "scale"),
        ("train", ["model.learning_rate=1"], "learning_rate"),
        ("train", ["rtil=ganilo"], "ganilo"),
    ],
)
def test_a_key_of_another_task_or_a_typing_error_is_refused_by_hydra(entry, override, word):
    with pytest.raises(ConfigCompositionException) as error:
        composed(entry, *override)
    assert word in str(error.value) + str(error.value.__cause__)


def test_the_papers_configuration_is_one_override_away():
    stylegan2 = resolved("train", "scale=paper")
    assert stylegan2["total_nimg"] == 700_000 * stylegan2["batch"]
    assert stylegan2["rtil"]["family"]["depths"] == [0, 1, 2, 3, 4]
    pggan = resolved("train", "scale=paper", "model=pggan", "rtil=mgan")
    assert pggan["total_nimg"] == 700_000 * sum(pggan["batch"]) / len(pggan["batch"])
    assert pggan["rtil"]["family"]["codes"] == [1, 10, 20]
    ilo = resolved("invert", "scale=paper")
    assert ilo["inverter"]["steps"] == [2000, 1000, 1000, 1000, 2000]
    assert ilo["inverter"]["lr_feature"] == 0.2
    assert resolved("invert", "scale=paper", "rtil=vanilla")["inverter"]["lr_feature"] == 0.1
    code = resolved("invert", "scale=paper", "rtil=vanilla", "protocol=authors")
    assert (code["inverter"]["lr_style"], code["inverter"]["keep_rgb"]) == (0.1, False)
    assert code["task"]["scale"] == "published"
    mgan = resolved("invert", "scale=paper", "model=pggan", "rtil=mgan", "inverter=mgan")
    assert (mgan["inverter"]["num_codes"], mgan["inverter"]["steps"]) == (20, 2500)
