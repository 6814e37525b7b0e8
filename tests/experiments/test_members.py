"""Which runs are whose: as they recorded it, and for version 0.1 by names and commands."""

import gzip
import json
import subprocess
import sys
from pathlib import Path

import pytest
from helpers.experiments import composed, plan_of
from hydra.core.override_parser.overrides_parser import OverridesParser

from rtil import report
from rtil.experiments import plan
from rtil.runs import record
from rtil.runs.run import Run

ROOT = Path(__file__).parents[2]
PINNED = json.loads(gzip.decompress((ROOT / "tests/golden/experiments.json.gz").read_bytes()))


def run_of(name, *jobs, number=0):
    """A run at scale=demo that recorded these jobs of an experiment."""
    experiments = [{"name": name, "job": dict(job)} for job in jobs]
    config = {"scale.name": "demo", "num_images": 32}
    return Run(Path(f"invert/x/{number}"), config, {}, experiments=experiments)


def test_a_run_belongs_to_the_job_it_recorded_and_to_no_other():
    experiment = plan_of("variants_ilo", "demo")
    jobs = plan.jobs(experiment, "invert")
    runs = [run_of("variants_ilo", job, number=i) for i, job in enumerate(jobs)]
    assert [run.job for run in plan.members(runs, experiment, "demo")] == jobs
    assert plan.members(runs, plan_of("fig6_ilo", "demo"), "demo") == []
    assert plan.members(runs, experiment, "tiny") == []
    assert [run.job for run in plan.members(runs[1:], experiment, "demo")] == jobs[1:]


def test_a_run_that_serves_two_jobs_is_there_for_each():
    """A switch to what an arm has anyway is the same computation as its cell without it."""
    experiment = plan_of("variants_ilo", "demo")
    plain = plan.jobs(experiment, "invert", {"rtil": ["ilo_mixture"], "task": ["cs"]})[0]
    switched = {**plain, **{f"inverter.lr_{x}": "0.2" for x in ("style", "noise", "feature")}}
    runs = [run_of("variants_ilo", plain, switched)]
    found, other = plan.members(runs, experiment, "demo")
    assert (found.job, other.job) == (plain, switched) and found.path == other.path


def test_values_and_what_was_given_besides_do_not_hide_a_job():
    experiment = plan_of("fig6_ilo", "demo")
    job = plan.jobs(experiment, "invert")[0]
    typed = {**job, "ratio": "5e-2", "num_images": "2", "data": "folder", "data.path": "x.zip"}
    (found,) = plan.members([run_of("fig6_ilo", typed)], experiment, "demo")
    assert found.job == job
    assert plan.besides([found], experiment, "demo") == ["data=folder", "data.path=x.zip"]
    unplanned = {**job, "rtil": "ilo_mixture"}
    (found,) = plan.members([run_of("fig6_ilo", unplanned)], experiment, "demo")
    assert found.job == unplanned
    assert not plan.members([run_of("fig6_ilo", {**job, "ratio": "0.3"})], experiment, "demo")


@pytest.mark.parametrize("name", ["variants_ilo", "fig8_depth", "differences"])
def test_a_job_comes_back_from_the_words_that_run_it(name):
    experiment = plan_of(name, "demo")
    for job in plan.jobs(experiment, "invert"):
        words = OverridesParser.create().parse_overrides(plan.overrides(experiment, job))
        node = {
            word.key_or_group.removeprefix("experiment."): word.value()
            for word in words
            if word.key_or_group.startswith("experiment.")
        }
        node = {key: getattr(value, "text", value) for key, value in node.items()}
        assert record.experiment_of({"experiment": node}) == {"name": name, "job": job}


@pytest.mark.parametrize("name", sorted(PINNED))
def test_a_report_of_an_experiment_from_rows_of_version_01_shows_what_it_showed(
    name, tmp_path, monkeypatch
):
    monkeypatch.chdir(ROOT)  # rows name the file as it was typed
    stem, experiment = name.split()
    words = [f"results=results/{stem}.jsonl", f"experiment={experiment}", "scale=faces32"]
    report.report(composed("report", *words, f"out={tmp_path}"))
    assert json.loads((tmp_path / "table.json").read_text()) == PINNED[name]


def test_plans_and_members_need_no_torch():
    code = "import sys, rtil.experiments.plan, rtil.experiments.check\n"
    code += "print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
