"""The table of protocols side by side: whose numbers stand where, and what is never the best."""

import json

import pytest
import yaml
from helpers.protocols import of_protocol, write
from helpers.reports import lines_of, make_run, rows_below, run_report, table_of
from matplotlib.figure import Figure

from rtil.reporting import compare, tables
from rtil.reporting.figures import forest

ORACLE = "authors (oracle)"


@pytest.fixture
def rows(tmp_path):
    """Two arms under three protocols, two trainings of paper's; authors' select by an oracle."""
    for seed in (0, 1):
        write(tmp_path, "paper", 20.0 + seed, 0.5 + seed, seed=seed)
    write(tmp_path, "authors", 30.0, 9.0, selection="oracle")
    write(tmp_path, "fair", 22.0, 2.0)
    return tmp_path


def gains_of(root):
    """Lines of the table of protocols."""
    tables = compare.by_protocol("x", rows_below(root), "vanilla")
    return [line for table in tables for line in lines_of(table)]


def test_each_number_is_that_of_its_arm_and_protocol(rows):
    (line,) = gains_of(rows)
    assert [*line] == [
        "measurement",
        "arm",
        "paper: Δ PSNR [dB]",
        "paper: Δ over seeds [dB]",
        "paper: PSNR of vanilla [dB]",
        f"{ORACLE}: Δ PSNR [dB]",
        f"{ORACLE}: PSNR of vanilla [dB]",
        "fair: Δ PSNR [dB]",
        "fair: PSNR of vanilla [dB]",
        "LMMSE PSNR [dB]",
        "LMMSE - best arm [dB]",
    ]
    assert (line["measurement"], line["arm"]) == ("ratio 0.1", "ilo")
    assert line["paper: Δ PSNR [dB]"] == "+1.00 ± 0.00 (n=2)"
    assert line["paper: Δ over seeds [dB]"] == "+1.00 ± 6.35 (2 seeds)"
    assert line["paper: PSNR of vanilla [dB]"] == "21.50 ± 12.71 (n=2)"
    assert line[f"{ORACLE}: Δ PSNR [dB]"] == "+9.00 ± 0.00 (n=2)"
    assert line["fair: PSNR of vanilla [dB]"] == "23.00 ± 12.71 (n=2)"
    # The oracle's 40 dB is no result: fair's 25 dB is the best; LMMSE has 15 and 16 dB.
    assert line["LMMSE - best arm [dB]"] == "-9.50 ± 6.35 (n=2) ilo, fair"


def test_other_settings_make_lines_of_their_own(rows):
    for steps, arm in ((5, "vanilla"), (5, "ilo")):
        run_dir = make_run(
            rows, arm, {"a": 5.0, "b": 6.0}, settings={"steps": steps}, pictures=False
        )
        of_protocol(run_dir, "fair")
    found = {line["arm"]: line for line in gains_of(rows)}
    assert {*found} == {"ilo, inverter.steps=[4,2]", "ilo, inverter.steps=5"}
    assert found["ilo, inverter.steps=5"]["fair: Δ PSNR [dB]"] == "+0.00 ± 0.00 (n=2)"
    assert found["ilo, inverter.steps=5"]["paper: Δ PSNR [dB]"] == "–"
    assert found["ilo, inverter.steps=5"]["LMMSE - best arm [dB]"].startswith("+10.00")


def test_the_best_arm_is_that_of_the_images_it_has(rows):
    """An arm whose only image is an easy one has the highest mean and is not the best."""
    run_dir = make_run(rows, "ilo", {"b": 25.5}, pictures=False, ratio=0.1, name="few")
    of_protocol(run_dir, "other")
    image = json.loads((run_dir / "results.jsonl").read_text())
    (run_dir / "results.jsonl").write_text(json.dumps({**image, "lmmse_psnr_db": 16.5}) + "\n")
    row = next(row for row in rows_below(rows) if row.protocol == "other")
    everyone = [other for other in rows_below(rows) if other.protocol == "fair"]
    assert compare.to_best([row, *everyone]).endswith("ilo, fair")


def test_one_protocol_alone_has_no_such_table(tmp_path):
    write(tmp_path, "fair", 20.0, 1.0)
    assert gains_of(tmp_path) == []


def test_an_arm_is_not_paired_with_a_baseline_of_another_protocol(tmp_path):
    write(tmp_path, "paper", 20.0, 1.0)
    run_dir = make_run(tmp_path, "ilo", {"a": 30.0}, pictures=False, name="fair-0.1")
    of_protocol(run_dir, "fair")
    (line,) = gains_of(tmp_path)
    assert "fair: Δ PSNR [dB]" not in line and line["paper: Δ PSNR [dB]"] != "–"


def test_the_report_shows_it(rows):
    out = run_report(rows)
    for text in ((out / "table.md").read_text(), (out / "report.html").read_text()):
        for part in (
            "Gains by protocol, task=cs",
            f"{ORACLE}: Δ PSNR",
            "they are no result",
            "+1.00 ± 6.35 (2 seeds)",
        ):
            assert part in text
    assert (out / "gains-cs-ilo-glyphs-demo-stylegan2.png").exists()


def test_the_figure_draws_each_gain_with_its_intervals_and_no_oracle(rows, monkeypatch, tmp_path):
    kept = []

    class Kept(Figure):
        def savefig(self, path):
            kept.append(self)

    monkeypatch.setattr(forest, "Figure", Kept)
    write(rows, "paper", 21.0, -0.25, ratio=0.4)
    shown = compare.drawable(rows_below(rows))
    forest.draw_forest("cs", shown, "vanilla", tmp_path / "x.png")
    (ax,) = kept[0].axes
    assert [text.get_text() for text in ax.get_yticklabels()] == ["ratio 0.1", "ratio 0.4"]
    labels = [text.get_text() for text in kept[0].legends[0].get_texts()]
    assert labels == ["ilo, protocol=paper", "ilo, protocol=fair"]
    points = [line for line in ax.lines if line.get_marker() in ("o", "s")]
    assert sorted(float(line.get_xdata()[0]) for line in points) == [-0.25, 1.0, 2.0]
    assert [float(line.get_ydata()[0]) > 0.5 for line in points] == [False, True, False]
    bars = [(bar.get_linewidths()[0], bar.get_segments()[0][:, 0]) for bar in ax.collections]
    (thin,) = [ends for width, ends in bars if width < 2]  # two trainings under one protocol
    assert len(bars) == 4 and (thin[1] - thin[0]) / 2 == pytest.approx(6.353, abs=1e-3)


def test_a_report_of_gains_that_an_oracle_selected_alone_draws_none(tmp_path):
    write(tmp_path, "authors", 20.0, 1.0, selection="oracle")
    of_protocol(make_run(tmp_path, "vanilla", {"a": 20.0}, pictures=False, name="paper"), "paper")
    out = run_report(tmp_path)
    assert "Gains by protocol" in (out / "table.md").read_text()
    assert not list(out.glob("gains-*.png"))


def test_two_tunings_of_one_training_are_entries_of_their_own(tmp_path):
    """Each keeps its two trainings and is paired with the baseline tuned at the same place."""
    for arm, gain in (("vanilla", 0.0), ("ilo", 1.0)):
        for seed in (0, 1):
            for at in (0.1, 0.25):
                run_dir = make_run(
                    tmp_path,
                    arm,
                    {"a": 20.0 + gain * (1 + at), "b": 22.0 + gain},
                    seed,
                    pictures=False,
                    name=f"fair-at{at}",
                )
                tuned = {"tuned": {"at": {"ratio": at}, "validation": {"mean": 20.0}}}
                with open(run_dir / "config.yaml", "a") as file:
                    file.write(yaml.safe_dump({"protocol": {"name": "fair", **tuned}}))
    found = {row["label"]: row for row in table_of(tmp_path)}
    assert len(found) == 4 and all(row["seeds"] == [0, 1] for row in found.values())
    for at, gain in ((0.1, 1.05), (0.25, 1.125)):
        row = found[f"ilo, protocol=fair, protocol.tuned.at.ratio={at}"]
        assert row["baseline"] == row["label"].replace("ilo", "vanilla")
        assert row["gain_psnr_db_seeds"]["mean"] == pytest.approx(gain)


def test_arms_that_were_tuned_at_different_measurements_are_told(tmp_path):
    tuned = {"trials": 16, "space": "00ff", "validation": {"n": 60, "mean": 20.0}}
    for arm, at in (("vanilla", {"ratio": 0.5}), ("ilo", {})):
        for seed in (0, 1):
            run_dir = make_run(tmp_path, arm, {"a": 20.0}, seed, pictures=False)
            with open(run_dir / "config.yaml", "a") as file:
                file.write(
                    yaml.safe_dump({"protocol": {"name": "fair", "tuned": tuned | {"at": at}}})
                )
    remarks = tables.remarks(rows_below(tmp_path))
    texts = [one.paragraph for one in remarks if "Not fair" in one.paragraph]
    assert texts == [
        "Not fair at cs, ratio 0.1: arms were tuned at different measurements: "
        "vanilla at ratio 0.5; ilo at ratio 0.1."
    ]


@pytest.mark.parametrize(("task", "knobs"), [("cs", {"ratio": 0.1}), ("sr", {"factor": 4})])
@pytest.mark.parametrize("selection", ["authors", "oracle", "best"])
def test_rows_that_are_not_the_published_codes_say_so(tmp_path, task, knobs, selection):
    """It inverts compressed sensing alone, by a rule of its own."""
    for arm in ("vanilla", "ilo"):
        of_protocol(make_run(tmp_path, arm, {"a": 1.0, "b": 2.0}, **knobs), "authors", selection)
    remarks = " ".join(one.paragraph for one in tables.remarks(rows_below(tmp_path)))
    assert "settings of the published code" in remarks
    assert ("inverts compressed sensing alone" in remarks) == (task != "cs")
    assert ("the iterate closest to the true image" in remarks) == (selection == "oracle")
