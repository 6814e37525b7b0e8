"""What a row may be called by the paper's name."""

from pathlib import Path

import pytest
from helpers.experiments import resolved

from rtil.reporting.data_term import ALONE, name_of
from rtil.runs import archive, keys

ROOT = Path(__file__).parents[2]
ARMS = {"ilo": ("vanilla", "ilo", "ilo_mixture"), "mgan": ("vanilla", "mgan", "mgan_mixture")}


def config(*words):
    return keys.complete(keys.flatten(resolved("invert", words)))


@pytest.mark.parametrize("inverter", ARMS)
@pytest.mark.slow
def test_a_row_is_of_mse_alone_where_scale_paper_has_a_perceptual_term_and_it_has_none(inverter):
    """As composed: of what the paper's scale minimises, small scales are told what they lack."""
    measurements = {"cs": "ratio=0.5", "inpainting": "ratio=0.5", "sr": "factor=4"}
    for arm in ARMS[inverter]:
        for task, knob in measurements.items():
            words = [f"inverter={inverter}", f"rtil={arm}", f"task={task}", knob]
            small, paper = config(*words, "scale=faces32"), config(*words, "scale=paper")
            lacks = paper["loss.lpips"] > 0 and small["loss.lpips"] == 0
            assert name_of(small) == (ALONE if lacks else "") and name_of(paper) == ""
            assert lacks == (task != "cs")


def test_the_squared_error_alone_is_the_papers_where_it_says_so():
    words = ("task=inpainting", "scale=faces64", "rtil=ilo")
    assert name_of(config(*words, "ratio=0.5")) == ALONE
    assert name_of(config(*words, "ratio=0.25")) == ""  # App. A.3: no term there
    assert name_of(config(*words, "ratio=0.25", "inverter=mgan", "rtil=mgan")) == ALONE


@pytest.mark.parametrize("words", [
    ["loss.perceptual=st_lpips", "loss.lpips=1"],
    ["protocol=authors"],
    ["protocol=fair"],
    ["inverter=csgm"],
    ["inverter=lmmse"],
])  # fmt: skip
def test_nothing_is_said_of_runs_with_a_term_or_of_other_protocols_and_inverters(words):
    assert name_of(config("task=sr", "factor=2", "scale=demo", *words)) == ""


def test_names_of_inverters_in_rows_open_no_other_file():
    own = config("task=sr", "factor=2", "scale=demo")
    assert name_of({**own, "inverter.name": "../scale/demo"}) == ""
    assert name_of({**own, "rtil.arm": 3, "task.name": None}) == ""


def test_committed_rows_of_the_papers_protocol_are_told_apart_by_their_task():
    runs, _ = archive.read(ROOT / "results/faces32_sr.jsonl")
    paper = [
        run for run in runs if run.protocol == "paper" and run.config["inverter.name"] == "ilo"
    ]
    assert paper and all(name_of(run.config) == ALONE for run in paper)
    assert all(name_of(run.config) == "" for run in runs if run not in paper)
