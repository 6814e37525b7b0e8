"""Junk in, one line out: what a command cannot take is named before anything is read."""

import sys
from functools import lru_cache
from pathlib import Path

import pytest
from hydra import compose, initialize_config_dir
from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import OmegaConf

from rtil import app, diagnose, invert, report, theory, train, tune
from rtil.process.command import CONFIGS, entry
from rtil.window.setup import prepare

WORK = {
    "train": lambda cfg, words: train.train(cfg),
    "invert": invert.invert,
    "tune": tune.tune,
    "app": prepare,
    "diagnose": diagnose.diagnose,
    "report": lambda cfg, words: report.run(cfg),
    "theory": lambda cfg, words: theory.theory(cfg),
}
MAIN = {"train": train, "invert": invert, "tune": tune, "diagnose": diagnose, "report": report,
        "theory": theory, "app": app}  # fmt: skip
SETTINGS = {
    "train": (
        ("model.betas=[]", "must be a list of 2"),
        ("model.betas=[0.5,2]", "model.betas[1]=2 must be a number from 0 to 1"),
        ("crop_scale=1e400", "crop_scale=inf must be a number from 1 to 8"),
        ("data.num_train=1e26", "must be a whole number from 0 to 10^9"),
        ("data.num_train=None", "data.num_train=None must be a whole number"),
        ("data.mirror=abc", "data.mirror=abc must be true or false"),
        ("data.channels=2", "data.channels=2 must be auto, 1 or 3"),
        ("run_dir=[]", "run_dir=[] must be a text"),
        ("data.path={a:1}", "data.path"),
        ("root=null", "root=null must be a text"),
        ("hardware.threads=abc", "hardware.threads=abc must be a whole number"),
        ("hardware.threads=0", "hardware.threads=0 must be a whole number from 1"),
        ("model.generator.num_mapping=100000000", "must be a whole number from 1 to 64"),
        ("model.generator.channels={4:0}", "channels.4=0 must be a whole number from 1"),
        ("scale.depths=[]", "depths=[] must be a list"),
        ("batch=[]", "batch=[] must be a whole number from 1 to 10^9 or a list of such"),
        ("batch=[8,x]", "batch[1]=x must be a whole number"),
        ("seed=-1", "seed=-1 must be a whole number from 0"),
        ("seed=1.5", "seed=1.5 must be a whole number"),
        ("seed=null", "seed=null must be a whole number"),
        ("seed={a:1}", "seed={...} must be a whole number"),
        ("hardware.ops=fast", "hardware.ops='fast' must be one of auto"),
        ("model.style_mixing=nan", "model.style_mixing=nan must be a number from 0 to 1"),
        ("model.lr=0", "model.lr=0 must be a number above 0"),
    ),
    "invert": (
        ("inverter.fit_samples=inf", "must be a whole number from 2"),
        ("inverter.steps=abc", "inverter.steps=abc must be a whole number"),
        ("inverter.steps=null", "inverter.steps=null must be a whole number"),
        ("scale.ilo.steps=[null]", "scale.ilo.steps[0]=null must be a whole number"),
        ("inverter.map_sigma=inf", "inverter.map_sigma=inf must be"),
        ("inverter.lr_style=[0.1,x]", "inverter.lr_style[1]=x must be a number"),
        ("metrics.lpips=maybe", "metrics.lpips=maybe must be auto, true or false"),
        ("pictures=x", "pictures=x must be true or false"),
        ("ratio=null", "ratio=null must be a number from 0"),
        ("noise_std=[0.1]", "noise_std=[0.1] must be a number"),
        ("noise_std={a:1}", "noise_std={...} must be a number"),
        ("loss.mse=-1", "loss.mse=-1 must be a number from 0"),
        ("split=3", "split=3 must be a text"),
        ("split=none", "invert: split=none must be test or val"),
        ("input=[]", "input=[] must be a text or null"),
        ("num_images=1e9", "must be a whole number"),
        ("heldout=3", "heldout=3 must be a table"),
    ),
    "tune": (
        ("search.anchors=3", "search.anchors=3 must be a list"),
        ("search.variants=[]", "search.variants=[] must be a list"),
        ("search.stages.first=[0.5]", "must be a list of 2"),
        ("trials=null", "trials=null must be a whole number"),
        ("final_images=many", "final_images=many must be a whole number"),
        ("inverter.name=lmmse", "tune: protocol=fair has no inverter=lmmse"),
    ),
    "app": (
        ("port=0", "port=0 must be a whole number from 1 to 65535 or null"),
        ("port=http", "port=http must be a whole number from 1"),
        ("host=null", "host=null must be a text"),
        ("baseline=[]", "baseline=[] must be a text or null"),
        ("selection=oracle", "selection=oracle picks by the true image"),
        ("input=photo.png", "app: input has no effect on a window"),
        ("generator=nothing.pt", "nothing.pt"),
    ),
    "diagnose": (
        ("num_samples=few", "num_samples=few must be a whole number from 8"),
        ("bootstrap=1", "bootstrap=1 must be a whole number from 2"),
        ("stage_steps=0", "must be a whole number from 1"),
        ("out=[]", "out=[] must be a text or null"),
    ),
    "report": (
        ("columns=0", "columns=0 must be a whole number"),
        ("gallery=x", "gallery=x must be a whole number"),
        ("baseline=null", "baseline=null must be a text"),
        ("root=[]", "root=[] must be a text"),
        ("results=5", "results=5 must be a text, null or a list of such"),
        ("out=/proc/nothing", "out=/proc/nothing: nothing can be written to"),
        ("pack=/proc/nothing/x.jsonl", "pack=/proc/nothing/x.jsonl: nothing can be written to"),
    ),
    "theory": (
        ("n1={}", "n1={} must be a whole number"),
        ("ratios=abc", "ratios=abc must be a list"),
        ("ratios=[]", "ratios=[] must be a list"),
        ("noise_std=nan", "noise_std=nan must be"),
        ("num_train=null", "num_train=null must be a list"),
        ("lr=inf", "lr=inf must be a number above 0"),
        ("steps=1e30", "steps=1e+30 must be a whole number"),
        ("out=/proc/nothing", "out=/proc/nothing: nothing can be written to"),
    ),
}
LINES = (
    ("model=null", "model=null must be a text, the name of one of configs/model"),
    ("protocol=[]", "protocol=[] must be a text"),
    ("hardware=5", "hardware=5 must be a text"),
    ("search=null", "search=null must be a text"),
    ("scale={a: 1}", "scale={...} must be a text"),
    ("data.path=a&b", """'data.path="a&b"'"""),
    ("data.path=~/faces", """'data.path="~/faces"'"""),
    ("data.path=Käse/#1", """'data.path="Käse/#1"'"""),
    ("run_dir=a'b", "run_dir"),
    ("seed=[1", "seed=[1 cannot be read"),
)


@lru_cache
def composed(command):
    with initialize_config_dir(CONFIGS, version_base="1.3"):
        return compose(command)


def line_of(work, capsys):
    """The one line that an entry point ends with."""
    with pytest.raises(SystemExit) as end:
        entry(work)
    text = capsys.readouterr()
    assert end.value.code == 1 and text.out == ""
    assert text.err.startswith("error: ") and text.err.count("\n") == 1, text.err
    return text.err


@pytest.mark.parametrize(
    ("command", "word", "named"), [(name, *case) for name in SETTINGS for case in SETTINGS[name]]
)
def test_a_setting_of_another_kind_is_one_line(
    command, word, named, capsys, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    cfg, override = composed(command).copy(), OverridesParser.create().parse_override(word)
    OmegaConf.update(cfg, override.key_or_group, override.value(), merge=False, force_add=True)
    assert named in line_of(lambda: WORK[command](cfg, [word]), capsys)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(("word", "named"), LINES)
@pytest.mark.parametrize("command", ["train", "report"])
def test_a_word_that_nothing_can_be_composed_of_is_one_line(
    command, word, named, capsys, monkeypatch
):
    monkeypatch.setattr(sys, "argv", [f"{command}.py", "-m", word])
    assert f"error: {command}: " in (line := line_of(MAIN[command].main, capsys))
    assert named in line and len(line) < 300


def test_every_command_has_a_table():
    commands = {path.stem for path in Path(CONFIGS).glob("*.yaml")} - {"base"}
    assert commands == SETTINGS.keys() == MAIN.keys()
