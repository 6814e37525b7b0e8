"""Packed rows: reports from them say what the runs say, and nothing of the machine is in them."""

import json
import re

import pytest
import yaml
from helpers.experiments import plan_of
from helpers.plans import study_of, write_run
from helpers.protocols import write
from helpers.reports import make_generator, make_run, rows_of_runs
from hydra import compose, initialize_config_dir

from rtil import report
from rtil.experiments import plan as experiment
from rtil.process.command import CONFIGS
from rtil.reporting import page
from rtil.reporting.tables import record
from rtil.runs import archive
from rtil.runs import keys as key_table
from rtil.runs import rows as jsonl
from rtil.runs import run as run_files

PLACE_FREE = ("runs", "commands", "more")  # of a record: they name folders or files


def composed(**changes):
    with initialize_config_dir(CONFIGS, version_base="1.3"):
        return compose("report", [f"{key}={value}" for key, value in changes.items()])


def compared(mine, other):
    """Records that have to agree, each PSNR to its rounding and each SSIM to its own."""
    assert len(mine) == len(other) > 0
    for a, b in zip(mine, other):
        assert a.keys() == b.keys()
        for key in a.keys() - {*PLACE_FREE}:
            near = 5e-5 if "ssim" in key else 2e-3 if "psnr" in key or key == "sets" else None
            if isinstance(a[key], dict) and near:
                assert a[key] == pytest.approx(b[key], abs=near, nan_ok=True), key
            else:
                assert a[key] == b[key], key


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """Two seeds of two arms under three protocols and settings, a missing arm, odd numbers."""
    root = tmp_path_factory.mktemp("runs")
    for arm in ("vanilla", "ilo"):
        make_generator(root, arm, [0] if arm == "vanilla" else [0, 2])
        record = {
            "command": ["train.py", f"rtil={arm}", f"data.path={root}/faces.zip"],
            "commit": "abc",
        }
        (root / "train" / f"{arm}-0" / "provenance.json").write_text(json.dumps(record))
    for seed in (0, 1):
        write(root, "paper", 20.12345 + seed, 0.98765 + seed, seed=seed)
    write(root, "authors", 30.0004, 1 / 3, selection="oracle")
    write(root, "fair", 21.00049, 2 / 3, ratio=0.2)
    make_run(root, "vanilla", {"a": 20.0, "b": float("inf")}, factor=2, pictures=False)
    return root


def rows_of(content):
    return [record(row) for row in content.rows]


def test_packed_rows_give_the_tables_of_the_runs(root, tmp_path):
    file = tmp_path / "new" / "rows.jsonl"
    report.pack(composed(root=root, pack=file))
    one, other = (study_of(root, rows=rows) for rows in ((), [file]))
    compared(rows_of(one), rows_of(other))
    # A line for each command, with the number of its runs.
    lines = [page.commands(study)[1].commands for study in (one, other)]
    assert lines[1] and len(lines[0]) == len(lines[1]) == 2
    out = report.report(composed(results=file, out=tmp_path / "page")).parent
    made = report.report(composed(root=root, out=tmp_path / "runs")).parent
    texts = [(folder / "table.md").read_text() for folder in (out, made)]
    numbers = [re.findall(r"^\| (?:ratio|factor).*", text, re.M) for text in texts]
    assert numbers[0] == numbers[1] and len(numbers[0]) == 10
    names = [sorted(path.name for path in folder.glob("psnr-*.png")) for folder in (out, made)]
    assert names[0] == names[1] and len(names[0]) == 2
    html = (out / "report.html").read_text()
    assert html.count("which hold no picture") == 3 and "without pictures" in texts[0]
    assert "train.py" not in html and "python -m rtil.train rtil=ilo data.path=faces.zip" in html
    assert not list(out.glob("samples*")) and not list(out.glob("grid*"))


def test_a_later_file_with_other_trainings_of_the_same_seeds_is_a_study_of_its_own(tmp_path):
    """Its seeds count besides and pair among themselves; without such, arms pair over files."""
    gains, files = {"one": (1.0, 2.0), "two": (4.0, 3.0, 2.5)}, []
    for number, (study, values) in enumerate(gains.items()):
        root, file = tmp_path / study, tmp_path / f"{study}.jsonl"
        for seed, gain in enumerate(values):
            for arm in ("vanilla", "ilo"):
                content = f"{study} {arm} {seed}".encode()
                (root / "train" / f"{arm}-{seed}").mkdir(parents=True)
                (root / "train" / f"{arm}-{seed}" / "generator.pt").write_bytes(content)
                base = 20.0 + number + seed
                images = {"a": base, "b": base + 1}
                images = {i: x + gain * (arm == "ilo") for i, x in images.items()}
                make_run(root, arm, images, seed=seed, pictures=False)
        archive.write(run_files.inversions(root)[0], root, file)
        files.append(file)
    runs, notes = archive.read(files)
    assert [note for note in notes if "two:SEED" in note and str(files[1]) in note]
    assert sorted({run.seed for run in runs}, key=str) == [0, 1, "two:0", "two:1", "two:2"]
    vanilla, ilo = map(record, rows_of_runs(runs))
    assert vanilla["seeds"] == ilo["seeds"] == [0, 1, "two:0", "two:1", "two:2"]
    assert ilo["gain_psnr_db_by_seed"] == pytest.approx(
        {0: 1.0, 1: 2.0, "two:0": 4.0, "two:1": 3.0, "two:2": 2.5}
    )
    found = ilo["gain_psnr_db_seeds"]
    assert found["n"] == 5 and found["mean"] == pytest.approx(2.5)
    assert ilo["unpaired"] == ""
    # The same file twice, or files that share no training, are one study.
    assert {run.study for run in archive.read([files[0], files[0]])[0]} == {""}
    arms = [tmp_path / f"{arm}.jsonl" for arm in ("vanilla", "ilo")]
    for arm, file in zip(("vanilla", "ilo"), arms):
        archive.write(
            [
                run
                for run in run_files.inversions(tmp_path / "one")[0]
                if run.config["rtil.name"] == arm
            ],
            tmp_path / "one",
            file,
        )
    row = record(rows_of_runs(archive.read(arms)[0])[1])
    assert row["gain_psnr_db_by_seed"] == pytest.approx({0: 1.0, 1: 2.0})
    # Further trainings of one arm alone have nothing to be paired with.
    archive.write(
        [
            run
            for run in run_files.inversions(tmp_path / "two")[0]
            if run.config["rtil.name"] == "ilo"
        ],
        tmp_path / "two",
        alone := tmp_path / "alone.jsonl",
    )
    row = record(rows_of_runs(archive.read([files[0], alone])[0])[1])
    assert row["gain_psnr_db_by_seed"] == pytest.approx({0: 1.0, 1: 2.0})
    assert row["unpaired"] == "its seeds alone:0, alone:1, alone:2"


def test_an_experiment_is_made_of_packed_rows_and_its_own_are_packed(tmp_path):
    root, file, plan = tmp_path / "runs", tmp_path / "rows.jsonl", plan_of("fig6_ilo", "demo")
    jobs = experiment.jobs(plan, "invert")
    everyone = {f"{i:02d}": 20.0 + i % 5 / 7 for i in range(36)}
    words = [f"data.path={tmp_path}/faces.zip"]
    write_run(root, plan, jobs[0], everyone, words)
    write_run(root, plan, jobs[1], {i: v + 1 for i, v in everyone.items()}, words)
    write_run(root, plan, jobs[2], everyone, words)
    make_run(root, "vanilla", {"a": 1.0}, pictures=False)
    report.pack(composed(root=root, pack=file, experiment="fig6_ilo", scale="demo"))
    assert len(file.read_text().splitlines()) == 3
    one, other = (study_of(root, plan, rows=rows) for rows in ((), [file]))
    compared(rows_of(one), rows_of(other))
    assert f"results={file}" in other.commands[-1]
    # Split over files, as where one would grow too large.
    lines = file.read_text().splitlines(keepends=True)
    parts = [tmp_path / "a.jsonl", tmp_path / "b.jsonl"]
    parts[0].write_text(lines[0])
    report.pack(composed(root=root, pack=parts[1], experiment="fig6_ilo", scale="demo"))
    several = study_of(root, plan, rows=parts)
    compared(rows_of(one), rows_of(several))
    assert f"'results=[{parts[0]},{parts[1]}]'" in several.commands[-1]
    page = report.report(composed(results=[str(part) for part in parts], root=tmp_path / "out"))
    assert page.parent.name == "a+b" and f"results=[{parts[0]}" in page.read_text()
    with pytest.raises(FileNotFoundError, match=r"nothing at .*gone\.jsonl, one of"):
        archive.read([*parts, tmp_path / "gone.jsonl"])
    assert all("data.path=faces.zip" in line for line in other.commands[:2])
    fig9 = plan_of("fig9_samples", "demo")
    with pytest.raises(ValueError, match="fig9_samples shows generators"):
        study_of(root, fig9, rows=[file])
    with pytest.raises(FileNotFoundError, match=f"in {file}"):
        study_of(root, plan_of("fig7_mgan", "demo"), rows=[file])
    with pytest.raises(FileNotFoundError, match="fig7_mgan"):
        report.pack(composed(root=root, pack=file, experiment="fig7_mgan"))


def test_no_path_of_the_machine_is_in_a_line(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    root = tmp_path / "far" / "runs"
    mask = f"{root}/my masks/m.png"
    run_dir = make_run(root, "ilo", {"a": 20.0}, pictures=False, name="cs")
    config = yaml.safe_load((run_dir / "config.yaml").read_text())
    config |= {"mask": mask, "run_dir": str(run_dir), "generator": f"{root}/x/generator.pt"}
    config["data"] |= {"path": f"{root}/my data/faces.zip", "val_path": "data/val.zip"}
    config["inverter"] |= {"lists": [f"{root}/a", 2], "text": f"a/b of {root}/c, https://x.y/z"}
    (run_dir / "config.yaml").write_text(yaml.safe_dump(config))
    command = [
        "/opt/bin/invert.py",
        f"root={root}",
        f"mask={mask}",
        "ratio=0.1",
        f"+data.path={root}/a.zip,{root}/b.zip",
        f"inverter.lists=[{root}/a,2]",
    ]
    (run_dir / "provenance.json").write_text(
        json.dumps(
            {
                "command": command,
                "commit": "abc",
                "device": "cpu",
                "before": [{"command": ["invert.py", f"run_dir={run_dir}"], "commit": "old"}],
            }
        )
    )
    archive.write(
        run_files.collect(root)[0],
        packed_root := tmp_path / "far" / "runs",
        file := tmp_path / "rows.jsonl",
    )
    text = file.read_text()
    assert str(tmp_path) not in text and tmp_path.name not in text and "/opt" not in text
    line = json.loads(text)
    assert line["run"] == "invert/ilo-0/cs"
    found = line["config"]
    assert (found["root"], found["run_dir"]) == ("runs", "runs/invert/ilo-0/cs")
    assert [found[key] for key in ("mask", "generator", "data.path", "data.val_path")] == [
        "m.png",
        "generator.pt",
        "faces.zip",
        "val.zip",
    ]
    assert found["inverter.lists"] == ["a", 2]
    assert found["inverter.text"] == "a/b of c, https://x.y/z"
    assert [record["commit"] for record in line["provenance"]] == ["abc", "old"]
    assert line["provenance"][0]["command"] == [
        "invert.py",
        "root=runs",
        "mask=m.png",
        "ratio=0.1",
        "+data.path=a.zip,b.zip",
        "inverter.lists=[a,2]",
    ]
    near = run_files.collect(packed_root.relative_to(tmp_path))[0]
    archive.write(near, packed_root.relative_to(tmp_path), file)
    assert json.loads(file.read_text())["config"]["root"] == "far/runs"  # as it was typed


def test_columns_are_numbers_rounded_and_ids_are_there_once(tmp_path):
    run_dir = make_run(tmp_path, "ilo", {}, pictures=False)
    rows = [
        {
            "id": "b",
            "psnr_db": 20.123456,
            "last_ssim": 0.123456,
            "lpips": None,
            "loss": 1.23456e-7,
            "chosen_step": 12345678,
            "selection": "best",
            "flag": True,
            "steps": [1, 2],
        },
        {"id": "a", "psnr_db": 21.0, "loss": float("nan")},
    ]
    (run_dir / "results.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    archive.write(run_files.collect(tmp_path)[0], tmp_path, tmp_path / "rows.jsonl")
    line = json.loads((tmp_path / "rows.jsonl").read_text())
    assert line["ids"] == ["a", "b"] and line["columns"] == {
        "psnr_db": [21.0, 20.123],
        "last_ssim": [None, 0.1235],
        "loss": [None, 1.235e-7],
        "chosen_step": [None, 12345678],
    }


def test_packing_again_replaces_its_runs_and_keeps_those_of_others(tmp_path):
    file, here, there = tmp_path / "rows.jsonl", tmp_path / "here", tmp_path / "there"
    for root, arm in ((here, "ilo"), (there, "vanilla")):
        run_dir = make_run(root, arm, {"a": 20.0}, pictures=False)
        archive.write(run_files.collect(root)[0], root, file)
    first = file.read_bytes()
    assert "1 lines of other runs stay." in archive.write(run_files.collect(here)[0], here, file)
    assert file.read_bytes() == first
    row = json.loads((run_dir / "results.jsonl").read_text()) | {"id": "b"}
    jsonl.append(run_dir / "results.jsonl", [row])
    archive.write(run_files.collect(there)[0], there, file)
    runs, _ = archive.read(file)
    assert [(str(run.path), [*run.rows]) for run in runs] == [
        ("invert/ilo-0/ratio0.1", ["a"]),
        ("invert/vanilla-0/ratio0.1", ["a", "b"]),
    ]
    # Another generator of the same name is another run.
    make_generator(here, "ilo", [0])
    other = make_run(here, "ilo", {"a": 25.0}, pictures=False, name="x")
    (here / "invert" / "ilo-0" / "ratio0.1").rename(tmp_path / "gone")
    other.rename(other.parent / "ratio0.1")
    text = archive.write(run_files.collect(here)[0], here, file)
    assert "2 lines of other runs stay. 1 of them are of the same folder" in text
    runs, _ = archive.read(file)
    assert len({run.path for run in runs}) == 3
    # In a folder of files each run counts once, with its most images.
    (tmp_path / "second.jsonl").write_bytes(first)
    runs, notes = archive.read(tmp_path)
    assert [len(run.rows) for run in runs] == [1, 1, 2]
    assert "second.jsonl, line 2: invert/vanilla-0/ratio0.1" in notes[1]
    assert len(notes) == 3 and "upgrade_rows.py" in notes[2]


def test_a_configuration_is_whole_once_and_then_what_changed(tmp_path):
    for name, config in (
        ("a", {"x": 1, "y": [1], "z": None}),
        ("b", {"x": True, "y": [1]}),
        ("c", {"x": 1, "y": [1.0], "z": None, "w": "new"}),
    ):
        run_dir = make_run(tmp_path, "ilo", {"a": 20.0}, pictures=False, name=name)
        path = run_dir / "config.yaml"
        whole = yaml.safe_load(path.read_text())
        path.write_text(yaml.safe_dump(whole | {"inverter": whole["inverter"] | config}))
    file, runs = tmp_path / "rows.jsonl", run_files.collect(tmp_path)[0]
    archive.write(runs, tmp_path, file)
    first, *others = map(json.loads, file.read_text().splitlines())
    assert first["config"]["inverter.z"] is None and "changes" not in first
    assert [line["lacks"] for line in others] == [["inverter.z"], []]
    assert ["config" in line for line in others] == [False, False]
    assert {
        key: value
        for line in others
        for key, value in line["changes"].items()
        if key.startswith("inverter.")
    } == {"inverter.x": True, "inverter.y": [1.0], "inverter.w": "new"}
    found = {run.path.name: run.config for run in archive.read(file)[0]}
    for run in runs:
        assert json.dumps(found[run.path.name], sort_keys=True) == json.dumps(
            run.config | {"root": tmp_path.name}, sort_keys=True
        )
    before = file.read_bytes()
    archive.write(runs[1:2], tmp_path, file)
    assert file.read_bytes() == before
    # Without the line that the others differ from, none of them can be read.
    file.write_text("".join(json.dumps(line) + "\n" for line in others))
    with pytest.raises(ValueError, match="there is none"):
        archive.read(file)
    # Before this format every line was whole.
    old = [
        json.dumps(archive.whole(line, first["config"]) | {"packed": archive.WHOLE})
        for line in others
    ]
    file.write_text("\n".join(old))
    assert {run.path.name: run.config for run in archive.read(file)[0]} == {
        name: found[name] for name in "bc"
    }


@pytest.mark.parametrize(
    ("change", "named"),
    [
        (lambda line: "{broken", "not JSON"),
        (lambda line: "[]", "[] must be a table with packed, run, ids"),
        (lambda line: json.dumps({"id": "a", "psnr_db": 1.0}), "packed is missing"),
        (lambda line: json.dumps(line | {"packed": 9}), "format 9"),
        (lambda line: json.dumps(line | {"ids": ["a", "b"]}), "1 values of"),
    ],
)
def test_what_is_no_packed_line_is_named(tmp_path, change, named):
    make_run(tmp_path, "ilo", {"a": 20.0}, pictures=False)
    file, runs = tmp_path / "rows.jsonl", run_files.collect(tmp_path)[0]
    archive.write(runs, tmp_path, file)
    good = file.read_text()
    file.write_text(good + change(json.loads(good)) + "\n")
    for act in (archive.read, lambda file: archive.write(runs, tmp_path, file)):
        with pytest.raises(ValueError, match=re.escape(f"{file}, line 2")) as error:
            act(file)
        assert named in str(error.value)


def test_nothing_packed_names_the_command(tmp_path):
    for place, file in ((tmp_path, "rows.jsonl"), (tmp_path / "x.jsonl", "")):
        with pytest.raises(FileNotFoundError, match=re.escape(f"pack={place / file}")):
            report.report(composed(results=place))
    make_run(tmp_path, "ilo", {"a": 20.0}, pictures=False)
    with pytest.raises(ValueError, match=r"no \.jsonl file"):
        report.pack(composed(root=tmp_path, pack=tmp_path))
    with pytest.raises(ValueError, match="give one of them"):
        report.pack(composed(root=tmp_path, pack="x.jsonl", results="x.jsonl"))


def test_nesting_undoes_flattening():
    tree = {"a": 1, "b": {"c": [1, {"d": 2}], "e": {"f": None}}}
    assert key_table.nested(key_table.flatten(tree)) == tree
