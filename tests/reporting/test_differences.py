"""The table of experiment=differences: what each switch changes, paired with nothing switched."""

import json

import pytest
from helpers.experiments import composed, plan_of, resolved
from helpers.plans import study_of, write_run
from helpers.reports import lines_of

from rtil import report
from rtil.experiments import plan as experiment
from rtil.reporting import compare
from rtil.reporting.arrange import reference
from rtil.reporting.sections import paragraph
from rtil.reporting.tables import record
from rtil.runs import identity

BASE = {"a": 20.0, "b": 21.0, "c": 25.0}


def switches(study):
    return compare.by_switch(study.rows, study.plan)


def job_of(plan, rtil="vanilla", task="cs", inverter="ilo", **switch):
    """The planned job of a cell with these settings switched."""
    switch = {key.replace("__", "."): text for key, text in switch.items()}
    (job,) = [
        job
        for job in experiment.jobs(plan, "invert")
        if (job["rtil"], job["task"], job["inverter"]) == (rtil, task, inverter)
        and experiment.switch_of(plan, job) == switch
    ]
    return job


@pytest.fixture
def written(tmp_path):
    """Two arms with nothing switched, one with three switches, one image fewer in one of them."""
    plan = plan_of("differences", "demo")
    for rtil, gain in (("vanilla", 0.0), ("ilo_mixture", 2.0)):
        write_run(tmp_path, plan, job_of(plan, rtil), {i: v + gain for i, v in BASE.items()})
    keep = job_of(plan, inverter__keep_rgb="false")
    write_run(tmp_path, plan, keep, {"a": 19.0, "b": 20.5, "c": 24.0})
    best = job_of(plan, protocol="authors", selection="best")
    write_run(tmp_path, plan, best, {"a": 18.0, "b": 19.0})
    authors = job_of(plan, protocol="authors")
    write_run(tmp_path, plan, authors, {i: v + 1 for i, v in BASE.items()}, ["selection=authors"])
    return tmp_path, plan


def test_each_switch_is_paired_with_the_same_images_of_its_own_arm(written):
    root, plan = written
    study = study_of(root, plan)
    (table,) = switches(study)
    lines = lines_of(table)
    assert table.title == "PSNR, each switched alone, ilo, glyphs, demo, stylegan2"
    column = "cs, ratio 0.1, vanilla"
    found = {line["switched"]: line[column] for line in lines}
    mean, half = -2.5 / 3, 4.302653 * 0.288675 / 3**0.5  # Student t with two degrees of freedom
    assert found == {
        "inverter.keep_rgb=false": f"{mean:+.2f} ± {half:.2f} (n=3)",
        "protocol=authors selection=best": "-2.00 ± 0.00 (n=2)",
        "protocol=authors selection=authors (oracle)": "+1.00 ± 0.00 (n=3)",
    }
    assert next(iter(found)) == "inverter.keep_rgb=false"  # in the order of the plan


def test_sharpness_has_a_table_beside_that_of_the_psnr(written):
    root, plan = written
    for path in root.rglob("results.jsonl"):
        value = 0.75 if "keep_rgb" in str(path) else 1.0
        path.write_text(
            "".join(
                json.dumps({**json.loads(line), "gradient_energy": value}) + "\n"
                for line in path.read_text().splitlines()
            )
        )
    study = study_of(root, plan)
    psnr, sharpness = switches(study)
    assert sharpness.title == psnr.title.replace("PSNR", "Sharpness")
    lines = lines_of(sharpness)
    found = {line["switched"]: line["cs, ratio 0.1, vanilla"] for line in lines}
    assert found["inverter.keep_rgb=false"] == "-0.25 ± 0.00 (n=3)"


def test_rows_are_labelled_by_what_they_switch_and_oracles_meet_no_other(written):
    root, plan = written
    study = study_of(root, plan)
    records = [record(row) for row in study.rows]
    rows = {row["label"]: row for row in records if "n" in row}
    assert set(rows) == {
        "vanilla",
        "ilo_mixture",
        "vanilla, inverter.keep_rgb=false",
        "vanilla, protocol=authors, selection=best",
        "vanilla, protocol=authors, selection=authors (oracle)",
    }
    assert rows["ilo_mixture"]["gain_psnr_db"]["mean"] == pytest.approx(2.0)
    missing = [row["label"] for row in records if "n" not in row]
    assert "ilo_mixture, inverter.keep_rgb=false" in missing and len(missing) == 68 - 5
    ran = [row for row in study.rows if not row.missing]
    (ours,) = [row for row in ran if row.arm == "ilo_mixture"]
    oracles = [row for row in ran if row.oracle]
    assert oracles and reference(ours, oracles, "vanilla") is None


@pytest.mark.parametrize(
    ("selection", "label", "line"),
    [
        ("oracle", "selection=oracle", "oracle"),
        ("authors", "selection=authors (oracle)", "published oracle"),
    ],
)
def test_a_choice_by_the_true_image_is_labelled_where_nothing_else_was_run(
    selection, label, line, tmp_path
):
    plan = plan_of("fig2_cs", "demo")
    for job in experiment.jobs(plan, "invert"):
        write_run(tmp_path, plan, job, BASE, [f"selection={selection}"])
    study = study_of(tmp_path)
    labels = [row.label for row in study.rows]
    assert labels == [f"vanilla, {label}", f"ilo, {label}"]
    study = study_of(tmp_path, plan)
    rows = [record(row) for row in study.rows]
    assert [row["line"] for row in rows] == [f"vanilla, {line}", f"ilo, {line}"]
    assert all(label in row["label"] for row in rows)


def test_two_choices_by_the_true_image_meet_each_other_no_more_than_a_result(tmp_path):
    """Under protocol=authors rows of version 0.1 have the true oracle, later ones another."""
    plan = plan_of("differences", "demo")
    for rtil, selection in (("vanilla", "oracle"), ("ilo_mixture", "authors")):
        job = job_of(plan, rtil, protocol="authors")
        write_run(tmp_path, plan, job, BASE, [f"selection={selection}"])
    ran = [row for row in study_of(tmp_path, plan).rows if not row.missing]
    (ours,) = [row for row in ran if row.arm == "ilo_mixture"]
    assert len(ran) == 2 and reference(ours, ran, "vanilla") is None


def test_the_report_prints_the_table_and_says_how_to_read_it(written):
    root, _ = written
    words = ["experiment=differences", "scale=demo", f"root={root}"]
    page = report.report(composed("report", *words))
    text = (page.parent / "table.md").read_text()
    switch = "protocol=authors selection=authors (oracle)"
    assert f"| {switch} |" in text and paragraph("switches") in text
    assert f"<td>{switch}</td>" in page.read_text()


def test_a_protocol_asks_for_the_generator_that_its_own_training_makes():
    plan = plan_of("differences", "demo")
    for switch in ({"protocol": "authors"}, {"model__stddev_group": "null"}):
        words = experiment.overrides(plan, job_of(plan, "mgan_mixture", "cs", "mgan", **switch))
        line = identity.training_command(resolved("invert", words))
        assert line == "python -m rtil.train model=pggan rtil=mgan_mixture model.stddev_group=null"
