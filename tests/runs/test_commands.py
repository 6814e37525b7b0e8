"""Commands that fill what a report lacks train as the generator beside them was trained."""

import shlex
from pathlib import Path

import pytest

from rtil.runs import keys, overrides
from rtil.runs.commands import commands
from rtil.runs.run import Run

CONFIG = {
    "model.name": "stylegan2",
    "rtil.name": "vanilla",
    "data.name": "glyphs",
    "scale.name": "demo",
    "seed": 0,
    "noise_std": 0.0,
    "task.name": "cs",
    "inverter.name": "ilo",
    "ratio": 0.5,
}


def trained(*words):
    """{key: text} of the training that is printed beside a run whose generator was trained so."""
    run = Run(Path("x"), keys.complete(CONFIG), {}, [["invert.py"]], [["train.py", *words]])
    line = commands(run, "ilo", {})[0]
    return overrides.typed(shlex.split(line)[3:])


@pytest.mark.parametrize(
    "word",
    [
        "init=runs/train/faces/generator.pt",
        "init='my models/generator (1).pt'",
        "init_d_nimg=400",
        "freeze=[mapping,D.from_rgb]",
        "batch=[32,16,8]",
        "total_nimg=4000",
    ],
)
def test_a_training_is_repeated_with_what_it_started_from_and_how_long_it_took(word):
    key, text = overrides.split(word)
    assert trained(word, "rtil=vanilla")[key] == text
    assert key not in trained("rtil=vanilla")


@pytest.mark.parametrize("word", ["init=a.pt,b.pt", "total_nimg=8,16", "freeze=[const],[mapping]"])
def test_a_sweep_does_not_say_which_of_its_trainings_it_was(word):
    assert overrides.key_of(word) not in trained(word)


def test_what_trains_as_ever_is_not_repeated():
    assert (
        trained("log_every=3", "data.cache_gb=1").keys() & {"log_every", "data.cache_gb"} == set()
    )
