"""Report: which runs are compared, the statistics behind the table, and what the page holds."""

import json
import re
import shlex
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from helpers.reports import (
    MODEL,
    column_of,
    make_generator,
    make_run,
    rows_below,
    rows_of_runs,
    run_report,
    table_of,
)
from hydra import compose, initialize_config_dir
from PIL import Image
from scipy import stats

from rtil.diagnosis import render
from rtil.latents.family import additive
from rtil.process.command import CONFIGS
from rtil.process.instantiate import instantiate
from rtil.reporting import page, pictures, sections, statistics, tables
from rtil.runs import run as run_files
from rtil.runs.commands import commands
from rtil.runs.keys import complete


def html_of(*parts):
    return sections.page("x", "", {"Tables": parts})


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    """A report over two arms, two ratios (one lacks an arm), two factors and real generators."""
    root = tmp_path_factory.mktemp("runs")
    make_generator(root, "vanilla", [0])
    make_generator(root, "ilo", [0, 2])
    for ratio in (0.05, 0.1):
        make_run(root, "vanilla", {"a": 20.0, "b": 22.0, "c": 21.0}, ratio=ratio)
    make_run(root, "ilo", {"a": 21.0, "b": 22.5, "d": 30.0}, ratio=0.1)
    for factor in (2, 4):
        make_run(root, "vanilla", {"a": 20.0, "b": 22.0}, factor=factor)
        make_run(root, "ilo", {"a": 19.0, "b": 25.0}, factor=factor, lmmse=factor == 2)
    return run_report(root)


@pytest.mark.parametrize(
    ("task", "knobs", "measurement"),
    [
        ("phase_retrieval", {"ratio": 2.0}, "ratio 2"),
        ("deblur", {"blur_std": 1.5, "noise_std": 0.01}, "blur_std 1.5, noise 0.01"),
        ("denoise", {"noise_std": 0.1}, "noise_std 0.1"),
    ],
)
def test_every_knob_is_a_cell_and_an_axis_and_goes_into_commands(
    tmp_path, task, knobs, measurement
):
    """Two values of the knob, a third arm missing; the commands that fill it compose."""
    make_generator(tmp_path, "vanilla", [0])
    knob = next(iter(knobs))
    values = [knobs[knob], 2 * knobs[knob]]
    for value in values:
        settings = {"root": tmp_path, "task": task, "lmmse": False, **knobs, knob: value}
        make_run(arm="vanilla", psnr={"a": 20.0}, **settings)
    make_run(tmp_path, "ilo", {"a": 21.0}, task=task, lmmse=False, **knobs)
    rows = table_of(tmp_path)
    assert [(row["measurement"], row["arm"], "n" in row) for row in rows][:2] == [
        (measurement, "vanilla", True),
        (measurement, "ilo", True),
    ]
    assert rows[3]["arm"] == "ilo" and "n" not in rows[3]
    overrides = shlex.split(rows[3]["commands"][1])[3:]
    with initialize_config_dir(CONFIGS, version_base="1.3"):
        cfg = compose("invert", overrides)
    assert cfg.task.name == task and cfg[knob] == values[1]
    # Nothing fills in a linear yardstick where there is none.
    assert bool(rows[0]["commands"]) == (task != "phase_retrieval")
    out = run_report(tmp_path)
    assert (out / f"psnr-{task}-ilo-glyphs-demo-stylegan2.png").stat().st_size > 10_000
    assert measurement in (out / "table.md").read_text()


def test_commands_train_and_tune_as_the_run_beside_them_was():
    """Files, length and precision of its generator; the tuning where and with what it was."""
    config = {
        "model.name": "stylegan2",
        "rtil.name": "vanilla",
        "data.name": "folder",
        "data.path": "a.zip",
        "data.val_path": "b.zip",
        "data.test_path": "c.zip",
        "data.num_val": None,
        "scale.name": "demo",
        "seed": 2,
        "noise_std": 0.0,
        "task.name": "cs",
        "inverter.name": "ilo",
        "ratio": 0.5,
        "num_images": 30,
        "root": "here",
        "hardware.precision": "bf16",
        "protocol.name": "fair",
        "protocol.train": [],
        "protocol.at.seed": 0,
        "protocol.at.ratio": 0.25,
        "protocol.tuned.trials": 16,
        "protocol.tuned.space": "abc",
        "protocol.tuned.validation.n": 40,
        "protocol.tuned.validation.first_round.n": 20,
        "protocol.tuned.validation.first_round.finalists": 3,
    }
    typed = [
        "invert.py",
        "data.num_val=null",
        "hardware.precision=bf16",
        "num_images=30",
        "protocol.at.seed=0",
        "protocol.at.ratio=0.25",
    ]
    config = complete(config)
    run = run_files.Run(
        Path("x"),
        config,
        {},
        [typed],
        [["train.py", "total_nimg=48000", "rtil=vanilla,ilo", "hardware.precision=bf16"]],
    )
    lines = [shlex.split(text) for text in commands(run, "ilo", {})]
    assert [words[2] for words in lines] == [
        "rtil.train",
        "rtil.tune",
        "rtil.train",
        "rtil.invert",
    ]
    with initialize_config_dir(CONFIGS, version_base="1.3"):
        first, tuning, training, inversion = [
            compose(words[2].removeprefix("rtil."), words[3:]) for words in lines
        ]
    for cfg in (first, tuning, training, inversion):
        assert [cfg.data[key] for key in ("path", "val_path", "test_path", "num_val")] == [
            "a.zip",
            "b.zip",
            "c.zip",
            None,
        ]
        assert cfg.rtil.name == "ilo" and cfg.root == "here"
        assert cfg.hardware.precision == "bf16"
    assert (first.seed, training.seed) == (0, 2)
    assert first.total_nimg == training.total_nimg == 48000
    assert (tuning.seed, tuning.ratio) == (0, 0.25)
    assert "protocol" not in " ".join(lines[1])
    assert [tuning[key] for key in ("trials", "num_images", "final_images", "finalists")] == [
        16,
        20,
        40,
        3,
    ]
    assert (inversion.seed, inversion.ratio, inversion.num_images) == (2, 0.5, 30)
    assert inversion.protocol.name == "fair"
    assert (inversion.protocol.at.seed, inversion.protocol.at.ratio) == (0, 0.25)
    once = {key: value for key, value in config.items() if "first_round" not in key}
    run = replace(run, config=once | {"protocol.at.seed": None})
    lines = commands(run, "ilo", {})
    assert [text.split()[2] for text in lines] == ["rtil.train", "rtil.tune", "rtil.invert"]
    assert "num_images=40 trials=16" in lines[1] and "final_images" not in lines[1]
    run = replace(run, config=config | {"protocol.name": "paper"})
    lines = commands(run, "ilo", {})
    assert [text.split()[2] for text in lines] == ["rtil.train", "rtil.invert"]
    assert "protocol" not in lines[0] + lines[1]


def test_statistics_are_those_of_scipy():
    x = [20.0, 22.5, 25.0, 21.0]
    found = statistics.estimate(x)
    low, high = stats.t.interval(0.95, 3, np.mean(x), stats.sem(x))
    assert found.n == 4
    assert found.mean - found.ci95 == pytest.approx(low, abs=1e-12)
    assert found.mean + found.ci95 == pytest.approx(high, abs=1e-12)


def scores(values):
    """{image: value} of one seed."""
    return pd.DataFrame({0: pd.Series(values, dtype=float)}).sort_index()


def test_pairing_uses_common_images_only():
    a = {"a": 21.0, "b": 22.5, "d": 99.0, "e": 23.0}
    b = {"e": 20.0, "b": 22.0, "c": 0.0, "a": 20.0}
    found = statistics.over_images(statistics.differences(scores(a), scores(b)))
    test = stats.ttest_rel([21.0, 22.5, 23.0], [20.0, 22.0, 20.0])
    interval = test.confidence_interval(0.95)
    assert found.n == 3
    assert found.mean == pytest.approx(1.5)
    assert found.ci95 == pytest.approx((interval.high - interval.low) / 2, abs=1e-12)
    assert statistics.differences(scores({"a": 1.0}), scores({"b": 1.0})).empty


def test_two_perfect_reconstructions_differ_by_zero():
    inf = float("inf")
    pairs = statistics.differences(scores({"a": inf, "b": 21.0}), scores({"a": inf, "b": 20.0}))
    assert pairs[0].to_dict() == {"a": 0.0, "b": 1.0}


def test_seeds_are_averaged_image_by_image(tmp_path):
    make_run(tmp_path, "ilo", {"a": 20.0, "b": 24.0}, seed=0)
    make_run(tmp_path, "ilo", {"a": 22.0, "c": 10.0}, seed=1)
    make_run(tmp_path, "vanilla", {"a": 19.0, "b": 22.0}, seed=0)
    vanilla, ilo = table_of(tmp_path)
    mean, half = 55 / 3, stats.t.ppf(0.975, 2) * stats.sem([21.0, 24.0, 10.0])
    assert (ilo["seeds"], ilo["n"], vanilla["seeds"]) == ([0, 1], 3, [0])
    assert ilo["psnr_db"] == pytest.approx({"mean": mean, "ci95": half, "n": 3})
    assert ilo["gain_psnr_db"]["mean"] == pytest.approx((1.0 + 2.0) / 2)  # of seed 0
    assert ilo["gain_psnr_db"]["n"] == 2
    assert ilo["oracle_psnr_db"]["mean"] == pytest.approx(mean + 3)
    assert ilo["last_psnr_db"]["mean"] == pytest.approx(mean - 1)
    assert ilo["lpips"] is None and ilo["baseline"] == "vanilla"


def test_the_interval_over_seeds_is_that_of_the_paired_means_of_each_seed(tmp_path):
    """Every seed has other images, one seed is the arm's alone; one seed has no interval."""
    vanilla = {0: {"a": 20.0, "b": 22.0}, 1: {"a": 21.0, "b": 20.0, "c": 9.0}, 2: {"b": 25.0}}
    ilo = {0: {"a": 21.0, "b": 25.0}, 1: {"b": 20.5, "d": 40.0}, 2: {"b": 24.0}, 7: {"a": 50.0}}
    for arm, runs in (("vanilla", vanilla), ("ilo", ilo)):
        for seed, psnr in runs.items():
            make_run(tmp_path, arm, psnr, seed=seed)
    row = table_of(tmp_path)[1]
    gains = [2.0, 0.5, -1.0]
    assert row["gain_psnr_db_by_seed"] == pytest.approx(dict(enumerate(gains)))
    half = stats.t.ppf(0.975, 2) * stats.sem(gains)
    assert row["gain_psnr_db_seeds"] == pytest.approx({"mean": 0.5, "ci95": half, "n": 3})
    assert row["gain_ssim_seeds"] == pytest.approx({"mean": 0.005, "ci95": half / 100, "n": 3})
    table = tables.overview("x", rows_below(tmp_path)[1:2], "vanilla")
    assert column_of(table, "Δ PSNR over seeds [dB]") == [f"+0.50 ± {half:.2f} (3 seeds)"]
    assert f"<td>+0.50 ± {half:.2f} (3 seeds)</td>" in html_of(table)
    make_run(tmp_path, "vanilla", vanilla[0], ratio=0.2)
    make_run(tmp_path, "ilo", ilo[0], ratio=0.2)
    single = table_of(tmp_path)[3]
    assert single["gain_psnr_db_by_seed"] == {0: 2.0} and single["gain_psnr_db_seeds"] is None
    table = tables.overview("x", rows_below(tmp_path)[3:4], "vanilla")
    assert "Δ PSNR over seeds [dB]" not in table.headings


def test_seeds_that_share_a_generator_are_no_trainings(tmp_path):
    for seed in (0, 1):
        make_generator(tmp_path, "vanilla", [0], seed)  # equal files: the baseline is one
        make_run(tmp_path, "vanilla", {"a": 20.0}, seed=seed, pictures=False)
        make_run(tmp_path, "ilo", {"a": 21.0 + seed}, seed=seed, pictures=False)
    row = table_of(tmp_path)[1]
    assert row["gain_psnr_db_by_seed"] == {0: 1.0, 1: 2.0} and row["gain_psnr_db_seeds"] is None


def test_other_settings_make_other_entries_paired_with_their_own_baseline(tmp_path):
    for steps, shift in ((10, 0.0), (20, 5.0)):
        make_run(tmp_path, "vanilla", {"a": 20.0 + shift, "b": 22.0}, settings={"steps": steps})
        make_run(tmp_path, "ilo", {"a": 21.0 + shift, "b": 23.0}, settings={"steps": steps})
    rows = table_of(tmp_path)
    assert [row["label"] for row in rows] == [
        f"{arm}, inverter.steps={steps}" for arm in ("vanilla", "ilo") for steps in (10, 20)
    ]
    assert [row["baseline"] for row in rows[2:]] == [
        "vanilla, inverter.steps=10",
        "vanilla, inverter.steps=20",
    ]
    assert [row["gain_psnr_db"]["mean"] for row in rows[2:]] == [1.0, 1.0]


def test_arms_with_settings_of_their_own_are_paired_and_the_difference_is_told(tmp_path):
    make_run(tmp_path, "vanilla", {"a": 20.0, "b": 22.0}, settings={"lr_style": 0.1})
    make_run(tmp_path, "ilo", {"a": 21.0, "b": 23.5}, settings={"lr_style": 0.2})
    row = table_of(tmp_path)[1]
    assert row["label"] == "ilo" and row["gain_psnr_db"]["mean"] == 1.25
    assert row["differs"] == ["inverter.lr_style: 0.1 there, 0.2 here"]
    (remark,) = tables.remarks(rows_below(tmp_path)[1:2])
    assert "inverter.lr_style: 0.1 in the baseline, 0.2 here" in remark.paragraph
    assert not remark.commands


def test_runs_of_other_seeds_are_no_pairs(tmp_path):
    """A seed has its own operator: what it changes for every arm alike is no gain of one arm."""
    for seed, shift in ((0, 0.0), (1, 2.0), (2, 5.0)):
        make_run(tmp_path, "ilo", {"a": 20.0 + shift, "b": 22.0 + shift}, seed, pictures=False)
    make_run(tmp_path, "vanilla", {"a": 20.0, "b": 21.0}, 0, pictures=False)
    row = table_of(tmp_path)[1]
    assert row["gain_psnr_db"]["mean"] == 0.5 and row["gain_psnr_db_by_seed"] == {0: 0.5}
    remarks = tables.remarks(rows_below(tmp_path)[1:2])
    assert [one for one in remarks if "leaves out its seeds 1, 2:" in one.paragraph]


def test_seeds_with_unequal_images_are_paired_image_by_image(tmp_path):
    few, all_images = {"a": 20.0}, {"a": 20.0, "b": 30.0}
    for seed in (0, 1):
        shift = 4.0 * seed
        make_run(
            tmp_path,
            "ilo",
            {k: v + shift for k, v in (few if seed else all_images).items()},
            seed,
            pictures=False,
        )
        make_run(
            tmp_path,
            "vanilla",
            {k: v + shift for k, v in all_images.items()},
            seed,
            pictures=False,
        )
    row = table_of(tmp_path)[1]
    assert row["gain_psnr_db"] == {"mean": 0.0, "ci95": 0.0, "n": 2}
    assert row["lmmse_gain_psnr_db"]["mean"] == pytest.approx((15 - 22 + 16 - 30) / 2)
    rows = rows_below(tmp_path)[1:2]
    assert "seeds 0, 1 have 2, 1 in common" in tables.remarks(rows)[0].paragraph
    assert column_of(tables.overview("x", rows, "vanilla"), "n") == ["1 to 2"]


def test_images_of_another_split_are_no_pairs(tmp_path):
    """Their ids can be the same: those of drawn letters are numbers."""
    for arm, split in (("vanilla", "test"), ("ilo", "val"), ("ilo", "test")):
        run_dir = make_run(tmp_path, arm, {"000000": 20.0}, pictures=False, name=split)
        with open(run_dir / "config.yaml", "a") as file:
            file.write(f"split: {split}\n")
    rows = {row["label"]: row for row in table_of(tmp_path)}
    assert rows["ilo, split=test"]["gain_psnr_db"]["mean"] == 0.0
    assert rows["ilo, split=val"]["gain_psnr_db"] is None


def test_images_of_other_files_are_no_pairs(tmp_path):
    """Their names can be the same; runs of earlier versions do not say which files they had."""
    for ratio, mine in ((0.1, "6 files, a"), (0.2, "6 files, b"), (0.4, None)):
        for arm, files in (("vanilla", "6 files, a"), ("ilo", mine)):
            run_dir = make_run(tmp_path, arm, {"a": 20.0}, pictures=False, ratio=ratio)
            if files:
                with open(run_dir / "config.yaml", "a") as file:
                    file.write(f"split_files: {files}\n")
    gains = [row["gain_psnr_db"] is not None for row in table_of(tmp_path) if row["arm"] == "ilo"]
    assert gains == [True, False, True]


def test_a_run_repeated_with_its_seed_is_an_entry_beside_the_others(tmp_path):
    for arm, value in (("vanilla", 20.0), ("ilo", 21.0)):
        for seed in (0, 1):
            make_run(tmp_path, arm, {"a": value, "b": value}, seed, pictures=False, name="one")
    make_run(tmp_path, "vanilla", {"a": 10.0}, 0, pictures=False, name="again")
    rows = {row["label"].partition(", run_dir")[0]: row for row in table_of(tmp_path)}
    assert [*rows] == ["vanilla", "vanilla, generator_sha256=None", "ilo"]
    assert rows["vanilla"]["seeds"] == [0, 1] and rows["vanilla"]["psnr_db"]["mean"] == 20.0
    assert rows["ilo"]["gain_psnr_db_seeds"]["mean"] == 1.0
    again = rows["vanilla, generator_sha256=None"]
    assert again["settings"]["run_dir"].endswith("again") and again["psnr_db"]["mean"] == 10.0


def test_several_generators_of_one_seed_are_entries_of_their_own(tmp_path):
    for root in (tmp_path / "one", tmp_path / "other"):
        make_generator(root, "ilo", [0, 2] if root.name == "one" else [0, 1])
        make_run(root, "ilo", {"a": 20.0}, pictures=False)
    runs = [
        run
        for root in (tmp_path / "one", tmp_path / "other")
        for run in run_files.collect(root)[0]
    ]
    rows = [row for row in rows_of_runs(runs) if not row.missing]
    assert sorted(row.settings["generator_sha256"] for row in rows) == sorted(
        run.config["generator_sha256"][:8] for run in runs
    )


def test_a_missing_arm_gives_the_commands_that_run_it(tmp_path):
    for ratio in (0.05, 0.1):
        run_dir = make_run(tmp_path, "vanilla", {"a": 20.0, "b": 22.0}, ratio=ratio)
        argv = ["invert.py", "rtil=vanilla", f"ratio={ratio}", "inverter.steps=[4,2]", "-m"]
        (run_dir / "provenance.json").write_text(json.dumps({"command": argv}))
    make_run(tmp_path, "ilo_mixture", {"a": 21.0, "b": 22.0}, ratio=0.1)
    row = table_of(tmp_path)[1]
    assert (row["arm"], row["value"], "n" in row) == ("ilo_mixture", 0.05, False)
    train, invert = (shlex.split(line) for line in row["commands"])
    choices = [
        "model=stylegan2",
        "rtil=ilo_mixture",
        "data=glyphs",
        "scale=demo",
        "seed=0",
        f"root={tmp_path}",
    ]
    assert train == ["python", "-m", "rtil.train", *choices]
    assert invert == [
        "python",
        "-m",
        "rtil.invert",
        *choices,
        "task=cs",
        "ratio=0.05",
        "noise_std=0.0",
        "inverter=ilo",
        "inverter.steps=[4,2]",
    ]


@pytest.mark.parametrize(
    ("arm", "missing"), [("vanilla", "ilo"), ("ilo_mixture", "vanilla"), ("mgan", "vanilla")]
)
def test_an_arm_alone_lacks_its_counterpart(tmp_path, arm, missing):
    make_run(tmp_path, arm, {"a": 20.0})
    assert [row["arm"] for row in table_of(tmp_path) if "n" not in row] == [missing]


def test_of_an_imported_generator_nothing_is_missing(tmp_path):
    """Nobody knows how its twin would be trained, or its linear estimate."""
    run_dir = make_run(tmp_path, "vanilla", {"a": 20.0}, lmmse=False)
    config = run_dir / "config.yaml"
    text = config.read_text().replace("generator: null", "generator: faces.pt")
    config.write_text(text + "nimg: null\n")
    (row,) = table_of(tmp_path)
    assert row["n"] == 1 and not row["commands"]
    for known in ("nimg: 400\n", ""):  # version 0.1 does not say
        config.write_text(text + known)
        row, missing = table_of(tmp_path)
        assert row["commands"] and missing["arm"] == "ilo"


def test_commands_compose_with_the_shipped_configs(tmp_path):
    make_run(tmp_path, "vanilla", {"a": 20.0}, factor=4)
    for line in table_of(tmp_path)[1]["commands"]:
        words = shlex.split(line)
        with initialize_config_dir(CONFIGS, version_base="1.3"):
            cfg = compose(words[2].removeprefix("rtil."), words[3:])
        assert (cfg.rtil.name, cfg.scale.name, cfg.root) == ("ilo", "demo", str(tmp_path))
    assert cfg.factor == 4 and cfg.task.name == "sr"


def test_samples_share_their_seeds_and_a_member_that_does_not_fit_is_noted():
    torch.manual_seed(0)
    G, notes = instantiate(MODEL), []
    found = dict.fromkeys("xy", (G, additive([0, 3], sigma=0.5)))
    rows = render.sample_rows(found, 3, notes)
    assert [row.label for row in rows[:2]] == ["x  $G^0$", "x  $G^1$, σ = 0.5"]
    assert len(rows) == 6 and len(notes) == 2 and "G^3" in notes[0] and "2 blocks" in notes[0]
    for mine, other in zip(rows[:3], rows[3:]):
        np.testing.assert_array_equal(mine.images, other.images)
    assert np.abs(np.subtract(rows[0].images, rows[1].images)).max() > 0.01


def test_error_map_grows_with_the_error_up_to_its_range():
    x = np.zeros((1, 4, 3), dtype=np.float32)
    x_hat = np.broadcast_to(np.float32([0.0, 0.25, 0.5, 0.9])[None, :, None], x.shape)
    light = pictures.error_map(x_hat, x).sum(2)[0]
    assert light[0] < 0.05 < light[1] < light[2] == light[3]
    assert pictures.error_map(None, x) is None
    assert pictures.error_map(x_hat[:, :2], x) is None


def test_page_is_self_contained_and_has_every_section(written):
    html = (written / "report.html").read_text()
    assert not re.search(r"https?://", html)
    addresses = re.findall(r'(?:src|href)="([^"]*)"', html)
    assert addresses and all(a.startswith(("data:image/png;base64,", "#")) for a in addresses)
    for name in page.HEADINGS:
        section = html.split(f'<section id="{name}">')[1].split("</section>")[0]
        assert not section.endswith("None."), name
    for text in (
        "not a result",
        "lowest measurement loss",
        "95 % confidence",
        "missing",
        "yardstick.use=true",
        "python -m rtil.train",
        "+0.75 ± 3.18 (n=2)",
    ):
        assert text in html, text


def test_gallery_sorts_by_the_gain_of_each_image(written):
    html = (written / "report.html").read_text()
    series = "task=cs, inverter=ilo, data=glyphs, scale=demo, model=stylegan2"
    gallery = html.split(f"<summary>{series}, ratio 0.1; 4 images</summary>")[1]
    keys = re.findall(r'<tr data-keys="([^"]*)"><th>(\w)</th>', gallery)[:4]
    assert keys == [("0 1", "a"), ("1 0.5", "b"), ("2 nan", "c"), ("3 nan", "d")]


def test_tables_on_disk_hold_the_same_numbers(written):
    rows = json.loads((written / "table.json").read_text())
    text = (written / "table.md").read_text()
    assert [(r["task"], r["value"], r["arm"]) for r in rows] == [
        ("cs", 0.05, "vanilla"),
        ("cs", 0.05, "ilo"),
        ("cs", 0.1, "vanilla"),
        ("cs", 0.1, "ilo"),
        ("sr", 2.0, "vanilla"),
        ("sr", 2.0, "ilo"),
        ("sr", 4.0, "vanilla"),
        ("sr", 4.0, "ilo"),
    ]
    lines = [line for line in text.splitlines() if line.startswith(("| ratio", "| factor"))]
    for row, line in zip(rows, lines):
        value = row.get("psnr_db")
        expected = f"| {value['mean']:.2f} ± {value['ci95']:.2f} " if value else "| missing "
        assert row["measurement"] in line and expected in line
    assert "LPIPS" not in text and "oracle PSNR" in text


def test_figures_are_drawn_for_every_series_and_cell(written):
    names = sorted(path.name for path in written.glob("*.png"))
    series = "ilo-glyphs-demo-stylegan2"
    assert names == sorted(
        [
            f"psnr-cs-{series}.png",
            f"psnr-sr-{series}.png",
            "samples-glyphs-demo-stylegan2.png",
            *(f"grid-cs-{series}-ratio{r}.png" for r in (0.05, 0.1)),
            *(f"grid-sr-{series}-factor{f}.png" for f in (2, 4)),
        ]
    )
    for name in names:
        with Image.open(written / name) as image:
            assert 300 < image.width < 2500 and 300 < image.height < 2500
            assert np.asarray(image.convert("L")).std() > 10
    # The samples: three members of two generators, no rows of anything else.
    with Image.open(written / "samples-glyphs-demo-stylegan2.png") as image:
        assert image.height == pytest.approx(144 * (6 * 1.04 * 1.05 + 0.2), abs=2)


def test_a_generator_that_is_gone_or_changed_is_told_instead_of_drawn(tmp_path):
    make_generator(tmp_path, "ilo", [0, 1])
    for arm in ("vanilla", "ilo"):
        make_run(tmp_path, arm, {"a": 20.0}, pictures=False)
    path = tmp_path / "train" / "ilo-0" / "generator.pt"
    path.write_bytes(path.read_bytes() + b"more")
    out = run_report(tmp_path)
    section = (out / "report.html").read_text().split('<section id="Samples">')[1]
    samples = section.split("</section>")[0]
    assert "No samples of vanilla" in samples and "No such file" in samples
    assert "No samples of ilo" in samples and "has changed since the inversion" in samples
    assert not list(out.glob("samples-*")) and not list(out.glob("grid-*"))


def test_a_baseline_that_nobody_ran_is_a_note(tmp_path, capsys):
    make_run(tmp_path, "ilo", {"a": 20.0})
    run_report(tmp_path, baseline="other", out=tmp_path / "elsewhere")
    printed = capsys.readouterr().out
    assert "No run has rtil=other: choose baseline= among ilo." in printed
    assert printed.splitlines()[-1] == f"Page: {tmp_path / 'elsewhere' / 'report.html'}"


def test_no_runs_names_the_place_and_the_commands(tmp_path):
    with pytest.raises(FileNotFoundError, match=re.escape(str(tmp_path))) as error:
        run_report(tmp_path)
    for text in ("rtil.train rtil=vanilla", "rtil.invert rtil=ilo", f"root={tmp_path}"):
        assert text in str(error.value)
    assert not (tmp_path / "report").exists()


def test_a_run_without_rows_is_a_note_and_rows_of_all_processes_count(tmp_path):
    empty = make_run(tmp_path, "vanilla", {})
    run_dir = make_run(tmp_path, "ilo", {"a": 20.0})
    row = json.loads((run_dir / "results.jsonl").read_text()) | {"id": "b", "psnr_db": 30.0}
    (run_dir / "results-1.jsonl").write_text(json.dumps(row) + '\n{"id": "cut o')
    runs, notes = run_files.collect(Path(tmp_path))
    assert [sorted(run.rows) for run in runs] == [["a", "b"]]
    assert notes == [f"{empty} has no rows yet."]
