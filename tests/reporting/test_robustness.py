"""The tables of searches: which trials count, what is paired with what, what packing keeps."""

import statistics

import pytest
import yaml
from helpers.reports import lines_of as lines_of_table
from helpers.reports import make_run, rows_of_runs, run_report
from scipy import stats

from rtil.reporting import compare
from rtil.reporting.sections import paragraph
from rtil.runs import archive
from rtil.runs import run as run_files

ANCHORS = [20.0, 19.0]
SCORES = {"vanilla": [*ANCHORS, 15.0, 18.0, None, 16.0], "ilo": [*ANCHORS, 17.0, 17.5, 18.0, 18.5]}


def tuned_run(root, arm, ratio=0.1, seed=0, tuned=0.2, scores=None, where="tuned"):
    """A run of protocol=fair whose search, made at ratio `tuned`, has these scores."""
    scores = scores or SCORES[arm]
    file = root / where / f"{arm}-0" / f"ratio{tuned}" / "tuned.yaml"
    file.parent.mkdir(parents=True, exist_ok=True)
    best = max(range(len(scores)), key=lambda i: scores[i] or 0.0)
    file.write_text(
        yaml.safe_dump(
            {
                "chosen": {"inverter.steps": [3, 3]},
                "trial": best,
                "validation": {"split": "val"},
                "total_steps": 6,
                "search_seed": 0,
                "space": {"anchors": [{}, {}], "variants": [{}]},
                "settings": {"ratio": tuned, "noise_std": 0.0, "seed": 0, "generator_sha256": arm},
                "trials": [
                    {"trial": i, "mean": mean, "ci95": 0.5, "n": 0 if mean is None else 12}
                    for i, mean in enumerate(scores)
                ],
            }
        )
    )
    run_dir = make_run(
        root, arm, {"a": 20.0, "b": 21.0}, seed, ratio=ratio, pictures=False, name=f"fair-{ratio}"
    )
    config = yaml.safe_load((run_dir / "config.yaml").read_text())
    config["protocol"] = {
        "name": "fair",
        "tuned": {
            "file": str(file),
            "trial": best,
            "trials": len(scores),
            "space": "00ff00ff",
            "validation": {"n": 12, "metric": "psnr_db", "mean": 19.5, "ci95": 0.5},
        },
    }
    (run_dir / "config.yaml").write_text(yaml.safe_dump(config))
    return file


@pytest.fixture
def root(tmp_path):
    """Two arms tuned at ratio 0.2, taken at three ratios and two seeds."""
    for arm in SCORES:
        for ratio, seed in ((0.2, 0), (0.4, 0), (0.2, 1)):
            tuned_run(tmp_path / "runs", arm, ratio, seed)
    return tmp_path / "runs"


def lines_of(root):
    return tables_of(run_files.collect(root)[0])


def tables_of(runs):
    tables = compare.by_setting(rows_of_runs(runs), "vanilla")
    return {table.title: lines_of_table(table) for table in tables}


def test_a_search_counts_once_without_anchors_and_is_paired_by_setting(root):
    ((heading, (vanilla, ilo)),) = lines_of(root).items()
    assert heading == "Searches, task=cs, inverter=ilo, data=glyphs, scale=demo, model=stylegan2"
    assert [line["arm"] for line in (vanilla, ilo)] == ["vanilla", "ilo"]
    assert {line["tuned at"] for line in (vanilla, ilo)} == {"ratio 0.2"}
    assert {(line["n"], line["seed"]) for line in (vanilla, ilo)} == {("12", "0")}
    assert (vanilla["drawn settings"], ilo["drawn settings"]) == ("3", "4")
    spread = statistics.stdev([17.0, 17.5, 18.0, 18.5])
    assert ilo["spread [dB]"] == f"{spread:.2f}, 17.00 to 18.50"
    assert vanilla["best [dB]"] == "20.00" and vanilla["Δ at a drawn setting [dB]"] == "–"
    gains = [2.0, -0.5, 2.5]  # the setting that failed for vanilla has no pair
    half = stats.t.ppf(0.975, 2) * statistics.stdev(gains) / 3**0.5
    assert ilo["Δ at a drawn setting [dB]"] == f"+{4 / 3:.2f} ± {half:.2f} (3 settings)"
    assert ilo["ahead at"] == "2 of 3, median +2.00, -0.50 to +2.50"


@pytest.mark.parametrize("vanilla", [(0.2, 0), (0.4, 0), (0.4, 1)])
def test_a_search_is_paired_wherever_the_baseline_has_it(tmp_path, vanilla):
    """Also where the arm's first cell, or its first seed, lacks the baseline."""
    for ratio, seed in ((0.1, 0), (0.2, 0), (0.4, 0), (0.4, 1)):
        tuned_run(tmp_path, "ilo", ratio, seed)
    tuned_run(tmp_path, "vanilla", *vanilla)
    ((_, lines),) = lines_of(tmp_path).items()
    assert [
        line["Δ at a drawn setting [dB]"].count("3 settings")
        for line in lines
        if line["arm"] == "ilo"
    ] == [1]


def test_packed_rows_and_a_moved_root_give_the_same_table(root, tmp_path):
    expected = lines_of(root)
    file = tmp_path / "rows.jsonl"
    archive.write(run_files.collect(root)[0], root, file)
    moved = root.rename(tmp_path / "moved")
    assert lines_of(moved) == expected
    assert tables_of(archive.read(file)[0]) == expected
    text = (run_report(moved) / "table.md").read_text()
    assert "## Searches, task=cs" in text and paragraph("searches") in text
    assert "2 of 3, median +2.00" in (moved / "report" / "report.html").read_text()


def test_a_search_that_was_made_anew_or_is_gone_is_left_out(root):
    tuned_run(root / "other", "ilo", scores=[*ANCHORS, 21.0, 17.0, 16.0])
    (root / "tuned" / "ilo-0" / "ratio0.2" / "tuned.yaml").write_bytes(
        (root / "other" / "tuned" / "ilo-0" / "ratio0.2" / "tuned.yaml").read_bytes()
    )
    ((line,),) = lines_of(root).values()
    assert line["arm"] == "vanilla"
    (root / "tuned" / "vanilla-0" / "ratio0.2" / "tuned.yaml").unlink()
    assert lines_of(root) == {}


def test_packing_says_which_searches_are_gone_and_keeps_those_it_had(root, tmp_path):
    first, later = tmp_path / "first.jsonl", tmp_path / "later.jsonl"
    said = archive.write(run_files.collect(root)[0], root, first)
    assert "no search" not in said
    expected = tables_of(archive.read(first)[0])
    for file in root.rglob("tuned.yaml"):
        file.unlink()
    runs = run_files.collect(root)[0]
    assert "no search" not in archive.write(runs, root, first)
    assert tables_of(archive.read(first)[0]) == expected
    said = archive.write(runs, root, later)
    assert f"{len(runs)} have tuned settings and no search" in said
    assert tables_of(archive.read(later)[0]) == {}


def test_generators_tuned_at_the_same_place_are_told_apart(root):
    scores = [*ANCHORS, 18.0, 18.0, 18.0, 18.0]
    file = tuned_run(root, "ilo", 0.8, where="again/tuned", scores=scores)
    found = yaml.safe_load(file.read_text())
    found["settings"]["generator_sha256"] = "another generator"
    file.write_text(yaml.safe_dump(found))
    (lines,) = lines_of(root).values()
    assert [line["arm"] for line in lines] == ["vanilla", "ilo ilo", "ilo another "]  # digests


def test_a_report_without_a_search_has_no_such_table(tmp_path):
    make_run(tmp_path, "vanilla", {"a": 20.0}, pictures=False)
    assert "Searches" not in (run_report(tmp_path) / "table.md").read_text()
