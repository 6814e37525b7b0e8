"""Columns that version 0.1 had not: shown where rows have them, nothing of them elsewhere."""

import json

import pytest
from helpers.reports import lines_of, make_run, rows_below, table_of

from rtil.reporting.extracts import Selection, changes, protocol_of
from rtil.reporting.statistics import LATER
from rtil.reporting.tables import MIRRORED, overview, remarks

PSNR = {"a": 20.0, "b": 21.0, "c": 25.0}


def add_columns(run_dir, **columns):
    """Writes {column: a function of the PSNR} into every row of a run."""
    path = run_dir / "results.jsonl"
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    for row in rows:
        row |= {name: value(row["psnr_db"]) for name, value in columns.items()}
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


def lines(root):
    return lines_of(overview("x", rows_below(root), "vanilla"))


def test_rows_of_0_1_show_their_ssim_by_its_own_name_and_no_later_column(tmp_path):
    make_run(tmp_path, "vanilla", PSNR)
    make_run(tmp_path, "ilo", PSNR)
    for line in lines(tmp_path):
        assert line[MIRRORED].startswith("0.220") and line[f"LMMSE {MIRRORED}"] != "–"
        assert "SSIM" not in line and "ST-LPIPS" not in line and "LMMSE SSIM" not in line
    for row in table_of(tmp_path):
        assert not [key for key in row if any(name in key for name in LATER)]


def test_rows_that_have_it_show_the_ssim_of_the_valid_region_and_its_gain_alone(tmp_path):
    for arm, more in (("vanilla", 0.0), ("ilo", 0.01)):
        run_dir = make_run(tmp_path, arm, PSNR)
        add_columns(
            run_dir,
            ssim_valid=lambda psnr, more=more: psnr / 50 + more,
            st_lpips=lambda psnr, more=more: 1 / psnr - more,
            lmmse_ssim_valid=lambda psnr: 0.25,
        )
    vanilla, ilo = lines(tmp_path)
    assert vanilla["SSIM"].startswith("0.440") and ilo["SSIM"].startswith("0.450")
    assert ilo["Δ SSIM to vanilla"].startswith("+0.010")
    assert ilo["Δ ST-LPIPS to vanilla"].startswith("-0.010")
    assert ilo["LMMSE SSIM"].startswith("0.250")
    assert not [heading for heading in ilo if MIRRORED in heading]
    _, row = table_of(tmp_path)
    assert row["gain_ssim_valid"]["mean"] == pytest.approx(0.01)
    assert row["gain_st_lpips_by_seed"] == pytest.approx({0: -0.01})
    assert row["ssim"]["mean"] == pytest.approx(0.22)  # table.json keeps both


def test_rows_of_both_kinds_are_not_compared_in_one_column(tmp_path):
    make_run(tmp_path, "vanilla", PSNR)
    add_columns(make_run(tmp_path, "ilo", PSNR), ssim_valid=lambda psnr: psnr / 50)
    old, new = lines(tmp_path)
    assert (old["SSIM"], new[MIRRORED]) == ("–", "–")
    assert old[MIRRORED].startswith("0.220") and new["SSIM"].startswith("0.440")
    assert new.get("Δ SSIM to vanilla", "–") == "–"


def test_rows_of_the_squared_error_alone_are_told_in_the_table_and_below_it(tmp_path):
    make_run(tmp_path, "vanilla", PSNR, factor=4)
    make_run(tmp_path, "ilo", PSNR, factor=4)
    assert {line["data term"] for line in lines(tmp_path)} == {"paper's step sizes, MSE alone"}
    (remark,) = [
        text.paragraph for text in remarks(rows_below(tmp_path)) if "MSE" in text.paragraph
    ]
    assert remark.startswith("paper's step sizes, MSE alone, at sr, factor 4: beside the squared")
    make_run(tmp_path / "other", "vanilla", PSNR, ratio=0.1)
    assert all("data term" not in line for line in lines(tmp_path / "other"))


def selected(root, **options):
    return Selection("x", rows_below(root), "vanilla", options)


def test_a_document_shows_what_a_choice_changes_in_every_metric_that_rows_have(tmp_path):
    """With the decimals of CHANGED; sharpness, which no row has, takes no column."""
    for name, steps, more in (("a", [4, 2], 0.0), ("b", [8, 4], 0.02)):
        run_dir = make_run(tmp_path, "ilo", PSNR, settings={"steps": steps}, name=name)
        add_columns(
            run_dir,
            psnr_db=lambda psnr, more=more: psnr + more,
            ssim_valid=lambda psnr, more=more: psnr / 50 + more,
            st_lpips=lambda psnr, more=more: 0.5 - more / 10,
        )
    header, _, line = changes(selected(tmp_path), None).splitlines()
    arms = [f"ilo: {name} (n)" for name in ("Δ PSNR [dB]", "Δ SSIM", "Δ ST-LPIPS")]
    assert header.strip("| ").split(" | ") == ["choice", *arms]
    numbers = line.strip("| ").split(" | ")[1:]
    signs = {number[0] for number in numbers}
    assert (
        len(signs) == 2
    )  # a distance falls where the others rise, whichever row is the usual one
    assert [number[1:].split(" ")[0] for number in numbers] == ["0.02", "0.020", "0.002"]


def test_a_document_names_rows_of_the_squared_error_alone_by_it(tmp_path):
    for arm, more in (("vanilla", 0.0), ("ilo", 1.0)):
        make_run(tmp_path, arm, {name: psnr + more for name, psnr in PSNR.items()}, factor=4)
        make_run(tmp_path, arm, {name: psnr + more for name, psnr in PSNR.items()}, ratio=0.1)
    labels = {row.measurement.task: protocol_of(row) for row in rows_below(tmp_path)}
    assert labels == {"sr": "paper's step sizes, MSE alone", "cs": "`paper`"}
