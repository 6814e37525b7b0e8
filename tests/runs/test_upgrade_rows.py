"""Rows of version 0.1 get the jobs of experiments that they were run for, told by their names."""

import json
import sys

import pytest
import upgrade_rows
import yaml
from helpers.experiments import plan_of
from helpers.plans import forget_experiments, study_of, write_run

from rtil.experiments import plan as experiment
from rtil.runs import archive
from rtil.runs import run as run_files

pytestmark = pytest.mark.slow  # some seconds together


def write_old(root, *arguments, **options):
    """A run as version 0.1 wrote it."""
    run_dir = write_run(root, *arguments, **options)
    forget_experiments(run_dir)
    return run_dir


def upgraded(root):
    """The runs below a root, with the experiments that their names tell."""
    runs = run_files.inversions(root)[0]
    assert all(run.experiments is None for run in runs)
    recorded = upgrade_rows.experiments_of(runs)
    return [run_files.replace(run, experiments=recorded[run.path]) for run in runs]


def belonging(root, plan, scale):
    return experiment.members(upgraded(root), plan, scale)


def test_runs_belong_by_what_they_were_run_for_or_by_their_name(tmp_path):
    plan, other = plan_of("fig6_ilo", "demo"), plan_of("fig8_depth", "demo")
    jobs = experiment.jobs(plan, "invert")
    kept = [
        write_old(tmp_path, plan, jobs[0], {"a": 1.0}, ["selection=last"]),
        write_old(tmp_path, plan, jobs[1], {"a": 1.0}, name="estimators_ilo"),
        write_old(tmp_path, plan, {**jobs[1], "rtil": "ilo_mixture"}, {"a": 1.0}),
        # As the first one, and its provenance gives the setting that it has besides.
        write_old(tmp_path, plan, jobs[1], {"a": 1.0}, ["selection=last"], "estimators_ilo"),
    ]
    job = next(j for j in experiment.jobs(other, "invert") if j["ratio"] == jobs[0]["ratio"])
    write_old(tmp_path, other, job, {"a": 1.0})
    write_old(tmp_path, plan, jobs[2], {"a": 1.0}, ["split=val"], "elsewhere")
    write_old(tmp_path, plan, jobs[0], {"a": 1.0}, scale="tiny")
    found = belonging(tmp_path, plan, "demo")
    assert {run.path for run in found} == set(kept)
    assert [run.path for run in belonging(tmp_path, other, "demo")] != []


def test_a_run_goes_to_its_own_switch_and_not_to_one_that_repeats_the_arms_settings(tmp_path):
    """variants_ilo switches step sizes to 0.1, which a vanilla arm has in every other run too."""
    plan = plan_of("variants_ilo", "demo")
    jobs = [job for job in experiment.jobs(plan, "invert") if job["rtil"] == "vanilla"]
    held, same = ({"selection": "heldout"}, {"inverter.lr_style": "0.1"})
    first = [next(job for job in jobs if part.items() <= job.items()) for part in (held, same)]
    paths = [write_old(tmp_path, plan, job, {"a": 1.0}, ["num_images=1"]) for job in first]
    config = yaml.safe_load((paths[0] / "config.yaml").read_text())
    config["inverter"] |= {f"lr_{key}": 0.1 for key in ("style", "noise", "feature")}
    (paths[0] / "config.yaml").write_text(yaml.safe_dump(config))
    found = belonging(tmp_path, plan, "demo")
    assert {run.path: experiment.switch_of(plan, run.job) for run in found} == {
        path: experiment.switch_of(plan, job) for path, job in zip(paths, first)
    }


def test_every_switch_finds_its_runs_and_other_plans_only_theirs(tmp_path):
    """inverter.map=1e-06 is a number, also on a command line; noise and protocol are part of a
    run's name, and a plan that asks for neither has runs with neither."""
    plan = plan_of("variants_ilo", "demo")
    jobs = experiment.jobs(plan, "invert")
    paths = [write_old(tmp_path, plan, job, {"a": 1.0}) for job in jobs]
    assert any(job.get("inverter.map") == "1e-06" for job in jobs)
    runs = upgraded(tmp_path)
    of = {run.path: run.job for run in experiment.members(runs, plan, "demo")}
    assert [of[path] for path in paths] == jobs
    other = plan_of("fig6_ilo", "demo")
    shared = experiment.members(runs, other, "demo")
    assert shared and not any(run.config["noise_std"] for run in shared)
    fair = plan_of("evidence_ilo", "demo")
    tuned = [
        write_old(tmp_path, fair, job, {"a": 1.0})
        for job in experiment.jobs(fair, "invert")
        if job["seed"] == "0" and job["protocol"] == "authors" and job["rtil"] == "ilo"
    ]
    found = belonging(tmp_path, other, "demo")
    assert tuned and not {run.path for run in found} & {*tuned}
    # A noise that its own command asks for leaves a run in its plan.
    noisy = write_old(
        tmp_path, other, experiment.jobs(other, "invert")[0], {"a": 1.0}, ["noise_std=0.01"]
    )
    assert noisy in {run.path for run in belonging(tmp_path, other, "demo")}


def test_a_file_is_upgraded_once_and_keeps_its_numbers(tmp_path, monkeypatch, capsys):
    plan, file = plan_of("fig6_ilo", "demo"), tmp_path / "rows.jsonl"
    jobs, words = experiment.jobs(plan, "invert"), ["data.path=faces.zip"]
    write_old(tmp_path, plan, jobs[0], {"a": 1.0}, words)
    # Known by its folder alone, which is named after words of the others' commands.
    write_old(tmp_path, plan, jobs[1], {"a": 1.0}, words, name="estimators_ilo")
    archive.write(run_files.inversions(tmp_path)[0], tmp_path, file)
    before, notes = archive.read(file)
    assert f"python scripts/upgrade_rows.py {file}" in notes[-1]
    with pytest.raises(FileNotFoundError, match="nothing of experiment=fig6_ilo"):
        study_of(tmp_path, plan, rows=[file])
    monkeypatch.setattr(sys, "argv", ["upgrade_rows.py", str(file)])
    upgrade_rows.main()
    assert "2 rows upgraded" in capsys.readouterr().out
    runs, notes = archive.read(file)
    assert len(notes) == 1
    assert [run_files.replace(run, experiments=None) for run in runs] == before
    for run, job in zip(runs, (jobs[1], jobs[0])):
        own = [entry["job"] for entry in run.experiments if entry["name"] == "fig6_ilo"]
        assert own == [{**job, "data.path": "faces.zip"}]
    text = file.read_bytes()
    upgrade_rows.main()
    assert file.read_bytes() == text and json.loads(text.splitlines()[0])["packed"] == 3


def test_a_run_is_known_by_its_folder_without_its_config(tmp_path):
    plan = plan_of("fig6_ilo", "demo")
    job = experiment.jobs(plan, "invert")[0]
    write_old(tmp_path, plan, job, {"a": 1.0}, name="estimators_ilo")
    (run,) = run_files.inversions(tmp_path)[0]
    (run.path / "config.yaml").unlink()
    (recorded,) = upgrade_rows.experiments_of([run]).values()
    assert {"name": "fig6_ilo", "job": job} in recorded
