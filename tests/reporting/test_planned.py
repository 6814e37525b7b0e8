"""Reports of experiments: which runs belong, what is missing, and what the figure shows."""

import json
import shutil
from itertools import product

import numpy as np
import pandas as pd
import pytest
from helpers.experiments import composed, plan_of
from helpers.plans import study_of, write_run
from helpers.reports import column_of
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from scipy import stats

from rtil import report
from rtil.experiments import plan as experiment
from rtil.reporting import page, statistics, tables
from rtil.reporting.figures import curves
from rtil.reporting.figures.style import AXES, looks_of
from rtil.reporting.tables import record
from rtil.runs import record as run_record

RELATED = ("surgery", "iagan", "sparse", "pulse")


def content(root, name, scale="demo"):
    return study_of(root, plan_of(name, scale), scale)


def rows_of(root, name, scale="demo"):
    return [record(row) for row in content(root, name, scale).rows]


@pytest.fixture
def fig6(tmp_path):
    """Both arms at the first ratio, the baseline at the second, the rest missing."""
    plan = plan_of("fig6_ilo", "demo")
    jobs = experiment.jobs(plan, "invert")
    everyone = {f"{i:02d}": 20.0 + i % 5 for i in range(36)}
    write_run(tmp_path, plan, jobs[0], everyone)
    write_run(tmp_path, plan, jobs[1], {i: v + 1 for i, v in everyone.items()})
    write_run(tmp_path, plan, jobs[2], {"00": 25.0, "01": 26.0})
    return tmp_path, plan, jobs


def test_an_inversion_with_tuned_settings_that_is_missing_is_told_with_its_tuning(tmp_path):
    plan = plan_of("evidence_ilo", "demo")
    jobs = experiment.jobs(plan, "invert")
    write_run(tmp_path, plan, jobs[0], {"a": 1.0})
    found = content(tmp_path, "evidence_ilo")
    assert [line.split()[2] for line in found.commands] == [
        f"rtil.{part}" for part in ("train", "tune", "invert", "report")
    ]
    rows = [record(row) for row in found.rows if row.missing]
    for row in rows:
        fair = row["job"]["protocol"] == "fair"
        tunings = [line for line in row["commands"] if "rtil.tune" in line]
        assert bool(tunings) == fair
        # One tuning for the arm, at protocol.at, of all seeds that the row names.
        assert not fair or len(tunings) == 1
        if fair and row["job"]["task"] == "cs":
            assert f"ratio={row['job']['protocol.at.ratio']}" in tunings[0]
            words = tunings[0].split()[3:]
            given = {w.partition("=")[0]: [w.partition("=")[2]] for w in words[1:]}
            (planned_job,) = experiment.jobs(plan, "tune", given)
            assert planned_job["rtil"] == row["arm"] and planned_job["seed"] == "0"


def test_generators_of_a_plan_with_switches_keep_their_names_and_baselines(tmp_path):
    """variants_families varies the training and switches the protocol."""
    plan = plan_of("variants_families", "demo")
    jobs = experiment.jobs(plan, "invert")
    normal = {"model.generator.normalise": "true"}
    for job in jobs:
        psnr = 20.0 + (job["rtil"] != "vanilla") + 5 * (normal.items() <= job.items())
        if job["rtil"] == "ilo":
            continue
        run_dir = write_run(tmp_path, plan, job, {"a": psnr, "b": psnr + 1})
        if job["protocol"] == "fair":
            with open(run_dir / "config.yaml", "a") as file:
                file.write("protocol.tuned.validation.mean: 20.0\n")
    rows = {row["label"]: row for row in rows_of(tmp_path, "variants_families")}
    assert len(rows) == len(jobs)
    gain = {
        label: row["gain_psnr_db"]["mean"]
        for label, row in rows.items()
        if "n" in row and row["gain_psnr_db"]
    }
    name = "ilo_mixture, model.generator.normalise=true, protocol=fair"
    assert rows[name]["baseline"] == name.replace("ilo_mixture", "vanilla")
    assert gain[name] == gain["ilo_mixture"] == gain["ilo_mixture, protocol=fair"] == 1.0
    weighted = next(label for label in gain if "rtil.family.weights" in label)
    assert rows[weighted]["baseline"].startswith("vanilla") and gain[weighted] == 1.0
    assert "normalise" not in rows[weighted]["baseline"]
    missing = [line for row in rows.values() if "n" not in row for line in row["commands"]]
    train = [line for line in missing if "rtil.train" in line]
    assert train and all("rtil=ilo" in line for line in missing)
    for run_dir in (tmp_path / "invert").glob("stylegan2-vanilla-*"):  # the plain one goes
        if "normalise" not in run_dir.name:
            shutil.rmtree(run_dir)
    rows = {row["label"]: row for row in rows_of(tmp_path, "variants_families")}
    assert rows[weighted]["baseline"] is None and rows[name]["baseline"]
    assert not any(word in line for line in train for word in ("task=", "inverter=", "protocol="))


def test_a_line_can_be_a_group_of_the_configuration(tmp_path):
    """yardsticks draws a line for each inverter, those that have run and those that have not."""
    plan = plan_of("yardsticks", "demo")
    jobs = [job for job in experiment.jobs(plan, "invert") if job.get("ratio") == "0.1"]
    everyone = {f"{i:02d}": 20.0 + i for i in range(32)}
    for job in jobs:
        if job["task"] == "cs" and job["inverter"] != "csgm":
            write_run(tmp_path, plan, job, everyone)
    rows = [
        row
        for row in rows_of(tmp_path, "yardsticks")
        if (row["task"], row["value"]) == ("cs", 0.1)
    ]
    assert {row["line"]: "n" in row for row in rows} == {
        f"{arm}, inverter = {name}": name != "csgm"
        for arm, name in (
            *product(("vanilla", "ilo_mixture"), ("ilo", "csgm", *RELATED)),
            *(("vanilla", free) for free in ("adjoint", "tv", "lmmse")),
        )
    }


def test_a_run_stays_with_the_experiments_that_it_was_run_for(tmp_path):
    """Where commands of another experiment worked on it later."""
    plan, words = plan_of("fig6_ilo", "demo"), ["data.num_train=64"]
    jobs = experiment.jobs(plan, "invert")
    for job in (*jobs[:2], {**jobs[1], "rtil": "ilo_mixture"}):
        run_dir = write_run(tmp_path, plan, job, {"a": 1.0}, words)
        config = (run_dir / "config.yaml").read_text()
        (run_dir / "config.yaml").write_text(config.replace("fig6_ilo", "fig2_cs"))
        old = json.loads((run_dir / "provenance.json").read_text())
        later = {"command": ["invert.py", "experiment=fig2_cs", "scale=demo"]}
        run_record.write_provenance(run_dir, later)
        assert run_record.commands(run_dir) == [later["command"], old["command"]]
    content_of = content(tmp_path, "fig6_ilo")
    rows = [record(row) for row in content_of.rows]
    assert [row["job"] for row in rows if "n" in row] == [
        *jobs[:2],
        {**jobs[1], "rtil": "ilo_mixture"},
    ]
    assert all("data.num_train=64" in line for line in content_of.commands[:2])
    _, recorded = page.commands(content_of)
    assert recorded.commands
    assert all("experiment=fig6_ilo" in command for command in recorded.commands)


def test_a_seed_that_was_stopped_early_has_its_command(tmp_path):
    plan = plan_of("evidence_ilo", "demo")
    jobs = experiment.jobs(
        plan,
        "invert",
        {"task": ["cs"], "ratio": ["0.1"], "protocol": ["paper"], "rtil": ["vanilla"]},
    )
    everyone = {f"{i:02d}": 20.0 + i for i in range(int(jobs[0]["num_images"]))}
    for job in jobs:
        stopped = job["seed"] == "1"
        write_run(tmp_path, plan, job, dict([*everyone.items()][:4]) if stopped else everyone)
    (row,) = [row for row in content(tmp_path, "evidence_ilo").rows if not row.missing]
    (line,) = row.fill
    assert "seed=1" in line and row.n == len(everyone)
    assert any("Fewer images" in one.paragraph for one in tables.remarks([row]))
    assert column_of(tables.overview("x", [row], "vanilla"), "n") == [f"4 to {row.n} of {row.n}"]


def test_a_stopped_run_does_not_shorten_the_others(tmp_path):
    """One that was asked for more images than planned does not tell which are compared."""
    plan = plan_of("fig6_ilo", "demo")
    jobs = experiment.jobs(plan, "invert")
    everyone = {f"{i:02d}": 20.0 + i for i in range(60)}
    for number, job in enumerate(jobs[:2]):
        run_dir = write_run(tmp_path, plan, job, dict([*everyone.items()][: 60 - 24 * number]))
        with open(run_dir / "config.yaml", "a") as file:
            file.write("num_images: 60\n")
    found = content(tmp_path, "fig6_ilo")
    assert [row.n for row in found.rows if not row.missing] == [60, 36]
    (run_dir / "config.yaml").write_text(
        (run_dir / "config.yaml").read_text().replace("num_images: 60", "num_images: 36")
    )
    found = content(tmp_path, "fig6_ilo")
    assert [row.n for row in found.rows if not row.missing] == [36, 36]
    assert any("1 of 2 inversions have more images" in note for note in found.notes)


def test_a_figure_compares_the_same_images(tmp_path):
    """Another experiment asked for more images of the first run; then all have more."""
    plan, more = plan_of("sigma", "demo"), {f"{i:02d}": 20.0 + i for i in range(36)}
    jobs = experiment.jobs(plan, "invert")
    planned_ids = [*more][20:32]
    write_run(tmp_path, plan, jobs[0], more)
    write_run(tmp_path, plan, jobs[1], {i: more[i] for i in planned_ids[:3]})
    rows = [row for row in content(tmp_path, "sigma").rows if not row.missing]
    assert column_of(tables.overview("x", rows, "vanilla"), "n") == ["36", "3 of 12"]
    run_dir = write_run(tmp_path, plan, jobs[2], {i: more[i] for i in planned_ids})
    rows = [row for row in rows_of(tmp_path, "sigma") if "n" in row]
    found = {row["job"]["ratio"] + row["arm"]: (row["n"], row["psnr_db"]["mean"]) for row in rows}
    first, _, last = jobs[:3]
    assert found[first["ratio"] + first["rtil"]] == found[last["ratio"] + last["rtil"]]
    assert found[first["ratio"] + first["rtil"]][0] == 12
    lines = (json.dumps({"id": i, "psnr_db": v, "ssim": 0.5}) for i, v in more.items())
    (run_dir / "results.jsonl").write_text("\n".join(lines))
    assert sorted(row["n"] for row in rows_of(tmp_path, "sigma") if "n" in row) == [3, 36, 36]


def test_what_is_planned_and_not_there_is_told_with_commands_that_single_it_out(fig6):
    root, plan, jobs = fig6
    rows = rows_of(root, "fig6_ilo")
    assert len(rows) == len(jobs) == 16
    assert [row["job"] for row in rows if row["task"] == "cs"] == [
        job for job in jobs if job["task"] == "cs"
    ]
    missing = [row for row in rows if "n" not in row]
    assert len(missing) == 13
    for row in missing:
        train, invert = (line.split()[3:] for line in row["commands"])
        given = {k: [v] for k, _, v in (word.partition("=") for word in invert)}
        (job,) = experiment.jobs(plan, "invert", given)
        assert row["job"].items() <= job.items() and f"root={root}" in invert
        assert f"rtil={row['arm']}" in train and "num_images=2" not in invert
    short = [row for row in rows if row.get("more")]
    assert [(row["n"], row["planned"]) for row in short] == [(2, 36)]
    rows = [row for row in content(root, "fig6_ilo").rows if row.measurement.task == "cs"]
    texts = [one.paragraph for one in tables.remarks(rows)]
    assert texts[0].startswith("Fewer images than planned, 1 of 6 planned: vanilla at cs, ratio")
    assert texts[1].startswith("Missing, 3 of 6 planned: ilo at cs, ratio 0.1; vanilla at")


def test_pairs_and_sets_are_those_of_the_images(fig6):
    _, ilo = rows_of(fig6[0], "fig6_ilo")[:2]
    assert ilo["gain_psnr_db"] == pytest.approx({"mean": 1.0, "ci95": 0.0, "n": 36}, abs=1e-9)
    values = [21.0 + i % 5 for i in range(36)]
    means = np.reshape(values, (3, 12)).mean(1)
    half = stats.t.ppf(0.975, 2) * stats.sem(means)
    assert ilo["sets"] == pytest.approx({"mean": np.mean(values), "ci95": half, "n": 3})
    three = pd.DataFrame({0: {"c": 9.0, "a": 1.0, "b": 2.0}}).sort_index()
    assert statistics.over_images(three, 4) is None
    assert statistics.over_images(three, 2).mean == 1.5
    table = tables.overview("x", content(fig6[0], "fig6_ilo").rows, "vanilla")
    assert column_of(table, "n")[2] == "2 of 36"
    assert column_of(table, "PSNR over sets [dB]")[2] == "–"


def test_settings_that_the_plan_varies_are_told_even_where_one_was_run(tmp_path):
    plan = plan_of("fig8_depth", "demo")
    job = experiment.jobs(plan, "invert")[0]
    write_run(tmp_path, plan, job, {"a": 20.0})
    first, *rest = rows_of(tmp_path, "fig8_depth")
    assert first["label"] == "vanilla, inverter.steps=[200]" and first["x"] == [200]
    assert len(rest) == 17 and all("n" not in row for row in rest)
    assert rest[0]["label"] == "ilo, inverter.steps=[200]"


def drawn(monkeypatch, tmp_path, rows, plan):
    kept = []

    class Kept(Figure):
        def savefig(self, path):
            kept.append(self)

    monkeypatch.setattr(curves, "Figure", Kept)
    published = plan.get("published", {})
    curves.draw_panels(rows, tmp_path / "x.png", plan["figure"]["x"], published)
    return kept[0].axes


def test_the_figure_has_the_papers_panels_its_curves_and_crosses_for_gaps(fig6, monkeypatch):
    root, plan, _ = fig6
    axes = drawn(monkeypatch, root, content(root, "fig6_ilo").rows, plan)
    titles = [ax.get_title() for ax in axes]
    assert titles == [
        f"{task}; n = {n} of 36 planned"
        for task, n in (
            ("compressed sensing", "0 to 36"),
            ("inpainting", "0"),
            ("super-resolution", "0"),
        )
    ]
    lines = {line.get_label(): line for line in axes[2].get_lines()}
    paper = lines["ilo, paper"]
    assert paper.get_linestyle() == "--" and [*paper.get_ydata()] == [21.5, 29.29, 33.82]
    np.testing.assert_allclose(paper.get_xdata(), [1 / 16, 1 / 4, 1 / 2])
    assert len(lines["ilo, missing"].get_xdata()) == 2
    cs = {line.get_label(): line for line in axes[0].get_lines()}
    assert len(cs["vanilla, missing"].get_xdata()) == 1
    oracle = cs["vanilla, oracle (no result)"].get_ydata()
    assert [*oracle] == pytest.approx([22.94, 26.5], abs=0.1)


def test_lines_of_an_arm_share_its_colour_and_those_of_a_setting_their_marker(tmp_path):
    """And the legend tells every line, drawn or missing, and each kind of line once."""
    plan = plan_of("fig19_codes", "demo")
    write_run(tmp_path, plan, experiment.jobs(plan, "invert")[0], {"a": 20.0, "b": 22.0})
    rows = content(tmp_path, "fig19_codes").rows
    looks = looks_of((row.arm, row.line) for row in rows)
    assert [*looks] == [f"{arm}, N = {n}" for arm in ("vanilla", "mgan") for n in (1, 5, 10)]
    red, green, blue = np.transpose([to_rgb(look.color) for look in looks.values()])
    assert (red[:3] > blue[:3]).all() and (red[3:] < blue[3:]).all()
    assert np.diff(green[:3]).max() < -0.1 and np.diff(green[3:]).max() < -0.1  # light to dark
    markers = [look.marker for look in looks.values()]
    assert markers[:3] == markers[3:] and len({*markers}) == 3
    fig = Figure()
    axes = fig.subplots(1, 2)
    for ax, panel in zip(axes, dict.fromkeys(row.panel for row in rows)):
        mine = [row for row in rows if row.panel == panel]
        curves.draw_panel(ax, mine, looks, "ratio", {})
    assert [*curves.legend(axes, looks, "paper")] == [
        *looks,
        "oracle (no result)",
        "missing",
        "LMMSE, no generator",
    ]


def test_axes_put_more_measurements_and_later_layers_to_the_right():
    one, other, ax = Figure().subplots(1, 3)
    ratio = curves.scale_x(one, [0.25, 0.05], AXES["ratio"]).places
    factor = curves.scale_x(other, [2, 16], AXES["factor"]).places
    steps = curves.scale_x(ax, [[9, 1, 9], [9], [9, 9]], AXES["inverter.steps"]).places
    assert ratio["0.05"] < ratio["0.25"] and factor["16"] < factor["2"]
    assert [steps[str(s)] for s in ([9], [9, 9], [9, 1, 9])] == [0, 1, 2]
    assert [label.get_text() for label in ax.get_xticklabels()] == ["$z_0$", "$z_1$", "$z_2$"]


def test_texts_of_an_axis_do_not_run_into_each_other_and_its_ends_are_written():
    ax = Figure(figsize=(4.9, 5.4)).subplots()
    curves.scale_x(ax, [0.01, 0.1, 0.25, 0.5, 0.75, 1.0], AXES["ratio"])
    texts = [label.get_text() for label in ax.get_xticklabels()]
    assert texts == ["1", "10", "25", "50", "", "100"]
    # The paper's after one's own.
    curves.scale_x(ax, [0.1, 0.25, 0.5, 0.01, 0.2, 0.3], AXES["ratio"])
    places = dict(zip(ax.get_xticks(), (t.get_text() for t in ax.get_xticklabels())))
    assert places == {0.1: "10", 0.25: "25", 0.5: "50", 0.01: "1", 0.2: "", 0.3: ""}


def test_a_line_without_the_axis_setting_runs_across(tmp_path, monkeypatch):
    plan = plan_of("sigma", "demo")
    found = [job for job in experiment.jobs(plan, "invert") if job["ratio"] == "0.05"]
    for job, sigma in zip(found, (None, 1.0, 0.5)):
        words = [f"rtil.family.sigma={sigma}"] if job["rtil"] == "ilo" else []
        run_dir = write_run(tmp_path, plan, job, {"a": 20.0, "b": 21.0}, words)
        assert run_dir.exists()
    rows = content(tmp_path, "sigma").rows
    ax = drawn(monkeypatch, tmp_path, rows, plan)[0]
    lines = {line.get_label(): line for line in ax.get_lines()}
    assert [*lines["vanilla"].get_ydata()] == [20.5, 20.5]
    assert [t.get_text() for t in ax.get_xticklabels()] == ["0.5", "1.0"]


@pytest.mark.parametrize(
    ("name", "parts"), [("fig7_mgan", ("train", "invert")), ("fig9_samples", ("train",))]
)
def test_nothing_yet_is_an_error_with_the_commands_and_writes_nothing(tmp_path, name, parts):
    cfg = composed("report", f"experiment={name}", "scale=demo", f"root={tmp_path}")
    with pytest.raises(FileNotFoundError) as error:
        report.report(cfg)
    for part in parts:
        line = f"python -m rtil.{part} experiment={name} scale=demo root={tmp_path}"
        assert line in str(error.value)
    assert not [*tmp_path.iterdir()]
