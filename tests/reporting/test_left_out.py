"""What is damaged or oddly named ends no report: it is named as left out, the others are shown."""

import json
import math

import pytest
import yaml
from helpers.experiments import plan_of
from helpers.plans import study_of, write_run
from helpers.reports import make_generator, make_run, run_report
from PIL import Image

from rtil.experiments import plan as experiment
from rtil.inversion.score import summary
from rtil.reporting.figures import curves
from rtil.reporting.figures.style import AXES
from rtil.reporting.page import Look
from rtil.runs import archive, keys
from rtil.runs import run as run_files


def change_row(run_dir, **changes):
    """Changes the first row of a run."""
    path = run_dir / "results.jsonl"
    first, *others = path.read_text().splitlines(keepends=True)
    path.write_text(json.dumps(json.loads(first) | changes) + "\n" + "".join(others))


def change_config(run_dir, key, value):
    """Changes a setting "a.b" of a run."""
    path = run_dir / "config.yaml"
    config = yaml.safe_load(path.read_text())
    *parents, last = key.split(".")
    node = config
    for name in parents:
        node = node[name]
    node[last] = value
    path.write_text(yaml.safe_dump(config))


@pytest.fixture
def pair(tmp_path):
    """A sound run of the baseline, and one of an arm to be damaged; without pictures."""
    for arm in ("vanilla", "ilo"):
        run_dir = make_run(tmp_path, arm, {"a": 20.0, "b": 21.0}, pictures=False)
    return tmp_path, run_dir


@pytest.mark.parametrize(
    ("file", "text"),
    [
        ("results.jsonl", "{broken\n{}\n"),
        ("results.jsonl", '{"psnr_db": 1.0}\n'),
        ("results.jsonl", "[]\n"),
        ("results.jsonl", "12\n"),
        ("results.jsonl", '{"id": [1], "psnr_db": 1.0}\n'),
        ("results.jsonl", "\x00\x00\n{}\n"),
        ("config.yaml", "model: {name: x\n"),
        ("config.yaml", "[]\n"),
        ("config.yaml", "seed: 0\n"),
        ("provenance.json", "[]"),
    ],
)
def test_a_run_that_cannot_be_read_is_named_and_the_others_are_there(pair, file, text):
    root, run_dir = pair
    (run_dir / file).write_text(text)
    (run,), (note,) = run_files.collect(root)
    assert run.config["rtil.name"] == "vanilla"
    assert note.startswith("Left out: ") and str(run_dir) in note and "\n" not in note


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("ratio", None),
        ("ratio", "much"),
        ("ratio", [1]),
        ("noise_std", "loud"),
        ("seed", [1]),
        ("num_images", "many"),
        ("data.name", "a\x00b"),
        ("data.name", None),
        ("rtil.name", "a\nb"),
        ("generator_sha256", [1]),
    ],
)
def test_a_run_whose_settings_cannot_be_shown_is_named_with_the_key(pair, key, value):
    root, run_dir = pair
    change_config(run_dir, key, value)
    (run,), (note,) = run_files.collect(root)
    assert run.config["rtil.name"] == "vanilla"
    assert note.startswith("Left out: ") and str(run_dir) in note and key in note


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"id": "a\x00"}, "id"),
        ({"id": "a\ud800"}, "id"),
        ({"psnr_db": "high"}, "psnr_db"),
        ({"psnr_db": None}, "psnr_db"),
        ({"psnr_db": math.nan}, "psnr_db"),
        ({"psnr_db": True}, "psnr_db"),
        ({"psnr_db": 10**400}, "psnr_db"),
        ({"ssim": "high"}, "ssim"),
        ({"lmmse_psnr_db": [1]}, "lmmse_psnr_db"),
    ],
)
def test_a_row_that_cannot_be_shown_is_named_with_its_run(pair, changes, named):
    root, run_dir = pair
    change_row(run_dir, **changes)
    _, notes = run_files.collect(root)
    (note,) = notes
    assert note.startswith("Left out: ") and str(run_dir) in note and named in note


def test_the_page_and_the_printed_text_name_what_is_left_out(tmp_path, capsys):
    for arm in ("vanilla", "ilo"):
        run_dir = make_run(tmp_path, arm, {"a": 20.0, "b": 21.0})
        change_config(run_dir, "data.name", "$a_{$/../" + "字" * 120)
        change_row(run_dir, id="x\x00")
    gone = make_run(tmp_path, "mgan", {"a": 20.0})
    (gone / "results.jsonl").write_text("[]\n")
    change_config(run_dir, "inverter.text", "half \x00 and $x_{$")
    out = run_report(tmp_path)
    page, printed = (out / "report.html").read_text(encoding="utf-8"), capsys.readouterr().out
    for text in (page, printed, (out / "table.md").read_text(encoding="utf-8")):
        assert text.count("Left out: ") >= 3 and str(gone) in text and "x\\x00" in text
    rows = json.loads((out / "table.json").read_text())
    assert [(row["arm"], row["n"]) for row in rows] == [("vanilla", 1), ("ilo", 1)]
    drawn = [*out.glob("psnr-*.png"), *out.glob("grid-*.png")]
    assert len(drawn) == 2
    for path in drawn:
        assert len(path.name.encode()) < 255
        with Image.open(path) as image:
            assert image.width > 300


def test_packed_rows_that_cannot_be_shown_are_left_out_too(pair):
    root, _ = pair
    file = root / "rows.jsonl"
    archive.write(run_files.collect(root)[0], root, file)
    one, other = archive.lines_of(file)
    one[1]["ids"][0], other[1]["config"] = "a\x00", other[1]["config"] | {"ratio": None}
    lines = archive.shortened([one[1], other[1]])
    file.write_text("".join(json.dumps(line) + "\n" for line in lines))
    (run,), notes = archive.read(file)
    assert [*run.rows] == ["b"]
    first, second = (note for note in notes if note.startswith("Left out: "))
    assert "a\\x00" in first and "ratio" in second


def test_what_an_experiment_cannot_read_is_named_on_its_page_or_with_its_commands(tmp_path):
    plan = plan_of("fig2_cs", "demo")
    run_dirs = [
        write_run(tmp_path, plan, job, {"a": 20.0}) for job in experiment.jobs(plan, "invert")
    ]
    (run_dirs[0] / "config.yaml").write_text("[]")
    study = study_of(tmp_path, plan)
    assert len(study.runs) == 1 and len(study.rows) == 2
    assert any(str(run_dirs[0]) in note for note in study.notes)
    (run_dirs[1] / "config.yaml").write_text("[]")
    with pytest.raises(FileNotFoundError) as error:
        study_of(tmp_path, plan)
    assert all(f"Left out: {run_dir}" in str(error.value) for run_dir in run_dirs)


def test_a_training_that_cannot_be_read_is_named_and_the_others_are_there(tmp_path):
    for arm in ("vanilla", "ilo"):
        make_generator(tmp_path, arm, [0])
        text = "rtil: {name: vanilla" + ("}" if arm == "vanilla" else "")
        (tmp_path / "train" / f"{arm}-0" / "config.yaml").write_text(text)
    (run,), (note,) = run_files.trainings(tmp_path)
    assert run.path.name == "vanilla-0" and "ilo-0" in note


def test_names_make_files_of_bounded_length_that_stay_apart(tmp_path):
    look = Look(tmp_path, "vanilla", 8, 8)
    one, other = (look.file("grid", "字" * 200, end) for end in "ab")
    assert one != other and one.parent == tmp_path and len(one.name.encode()) < 255


def test_a_knob_at_zero_stands_on_an_axis_without_logarithms():
    from matplotlib.figure import Figure

    places = curves.scale_x(Figure().subplots(), [0.0, 0.5], AXES["ratio"]).places
    assert places["0.0"] < places["0.5"]


def test_one_image_has_a_mean_and_no_interval(tmp_path):
    text = summary(tmp_path, [{"id": "a", "psnr_db": 20.0}])
    assert "PSNR: 20.000 dB  (n = 1)" in text and "nan" not in text


ODD = (None, "x", [1], [["x"]], math.nan, -1, True)


@pytest.mark.parametrize("key", ["keys", "trials", "space", "validation.mean", "asked.loss.mse"])
@pytest.mark.slow
def test_no_odd_record_of_a_tuning_ends_a_report(pair, key, capsys):
    root, run_dir = pair
    change_config(run_dir, "protocol", {"name": "fair", "train": [], "tuned": {}})
    tuned = {"trial": 1, "trials": 4, "space": "9f575475", "keys": [], "asked": {"loss.mse": 1.0}}
    sound_record = tuned | {"validation": {"mean": 20.0, "n": 4, "ci95": None}}
    for value in ODD:
        record = keys.nested(keys.flatten(sound_record) | {key: value})
        change_config(run_dir, "protocol.tuned", record)
        run_report(root)
        printed = capsys.readouterr().out
        left_out = f"Left out: {run_dir}" in printed and f"protocol.tuned.{key}" in printed
        fitting = keys.kind(f"protocol.tuned.{key}").fault(value) is None
        assert left_out != fitting, value
