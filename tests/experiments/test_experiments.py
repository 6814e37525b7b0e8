"""Experiments: every one composes at every scale, lists its jobs, and its commands lead on."""

import json
import shlex
from math import prod

import pytest
import torch
import yaml
from helpers.experiments import NAMES, QUICK, command, composed, plan_of, resolved
from hydra.errors import ConfigCompositionException
from omegaconf import OmegaConf

from rtil import report
from rtil import train as trainer
from rtil.experiments import check
from rtil.experiments import plan as experiment
from rtil.inverters import build_inverter
from rtil.metrics.perceptual import distance_of
from rtil.operators import build_operator
from rtil.process.instantiate import instantiate
from rtil.runs import identity
from rtil.runs import keys as key_table
from rtil.runs import record as run_record

SCALES = ("paper", "faces64", "demo")
# Inversions (points of the figure times arms) at each of these scales, and training runs.
COUNTS = {
    "differences": (68, 68, 68, 6),
    "estimators_ilo": (30, 30, 18, 3),
    "estimators_mgan": (33, 30, 18, 3),
    "evidence_ilo": (297, 297, 243, 9),
    "evidence_mgan": (297, 297, 243, 18),
    "faces_pair": (34, 34, 34, 2),
    "finetuning": (0, 0, 0, 2),
    "fig13_layer": (12, 8, 6, 1),
    "fig14_inpainting": (2, 2, 2, 2),
    "fig15_inpainting": (2, 2, 2, 2),
    "fig16_sr": (2, 2, 2, 2),
    "fig17_sr": (2, 2, 2, 2),
    "fig18_depth": (50, 40, 18, 2),
    "fig19_codes": (66, 60, 36, 2),
    "fig2_cs": (2, 2, 2, 2),
    "fig3_cs": (2, 2, 2, 2),
    "fig6_ilo": (28, 26, 16, 2),
    "fig7_mgan": (30, 26, 16, 2),
    "fig8_depth": (50, 40, 18, 2),
    "fig9_samples": (0, 0, 0, 2),
    "objectives": (0, 0, 0, 6),
    "pair": (44, 44, 44, 2),
    "perceptual": (24, 24, 16, 2),
    "reconstruction": (12, 12, 12, 12),
    "sigma": (25, 25, 9, 5),
    "training_differences": (30, 30, 30, 30),
    "variants_families": (20, 20, 20, 10),
    "variants_ilo": (40, 40, 40, 2),
    "yardsticks": (180, 180, 120, 2),
    "yardsticks_deepinv": (90, 90, 54, 2),
}


def test_every_experiment_is_counted():
    assert sorted(COUNTS) == NAMES


@pytest.mark.parametrize(
    "scale", [*(pytest.param(scale, marks=pytest.mark.slow) for scale in SCALES[:-1]), SCALES[-1]]
)
@pytest.mark.parametrize("name", COUNTS)
def test_every_experiment_lists_its_jobs_at_every_scale(name, scale):
    plan = plan_of(name, scale)
    assert plan["name"] == name and plan["title"]
    trained = experiment.jobs(plan, "train")
    assert len(trained) == COUNTS[name][3] - 2 * (name == "sigma" and scale == "demo")
    number = COUNTS[name][SCALES.index(scale)]
    if not number:
        return
    found = experiment.jobs(plan, "invert", {"scale": [scale]})
    assert len(found) == number == len({yaml.safe_dump(job) for job in found})
    arms = {(job["model"], job["rtil"], job.get("rtil.family.sigma")) for job in found}
    assert arms == {(job["model"], job["rtil"], job.get("rtil.family.sigma")) for job in trained}


@pytest.mark.parametrize(
    "name",
    [pytest.param(n, marks=() if n in NAMES[::5] else pytest.mark.slow) for n in NAMES],
)
def test_every_experiment_composes(name):
    cfg = composed("invert", f"experiment={name}", "scale=demo")
    assert OmegaConf.to_container(cfg.experiment, resolve=True) == plan_of(name, "demo")


@pytest.mark.slow
@pytest.mark.parametrize("scale", SCALES)
@pytest.mark.parametrize("name", NAMES)
def test_every_experiment_composes_for_every_entry_point(name, scale):
    for entry in ("train", "invert", "report"):
        cfg = composed(entry, f"experiment={name}", f"scale={scale}")
        assert OmegaConf.to_container(cfg.experiment, resolve=True) == plan_of(name, scale)


def shared(config):
    """What a training and its inversions say of the generator, but for the images."""
    flat = {key: value for key, value in key_table.flatten(config).items() if value is not None}
    return json.dumps({
        key: value
        for key, value in sorted(flat.items())
        if key_table.role(key, "train") == key_table.role(key, "invert") == "identity"
        and not key.startswith("data.")
    })  # fmt: skip


def check_jobs(name, scale, chosen):
    """Jobs compose, build and fit their generators, and ask for those that are trained."""
    plan, labels = plan_of(name, scale), set()
    for job in experiment.jobs(plan, "train", {"scale": [scale]}):
        words = experiment.overrides(plan, job)
        labels.add(shared(resolved("train", words)))
    for job in chosen(experiment.jobs(plan, "invert", {"scale": [scale]})):
        words = experiment.overrides(plan, job)
        config = resolved("invert", words)
        side, loss = config["resolution"], config["loss"]
        knob = config["task"]["knob"]
        A = build_operator(config["task"], (3, side, side), 0, **{knob: config[knob]})
        if loss["lpips"] and A.num_measurements >= loss["lpips_min_ratio"] * prod(A.out_shape):
            kind = distance_of(loss["perceptual"])
            assert kind.fits(loss["lpips_net"], A.out_shape[1:]), job
        network = config["model"]["generator"]
        if network.get("phase_nimg") == "grow":  # it grows as its training is long
            network = {**network, "phase_nimg": None}
        with torch.device("meta"):
            G = instantiate(network)
        build_inverter(config["inverter"], instantiate(config["rtil"]["family"])).check(G)
        assert shared(config) in labels
        assert run_record.experiment_of(config) == {"name": name, "job": job}


def test_jobs_compose_and_fit_their_generators():
    """The down-sampled images of the paper's largest factor, and a family with another sigma."""
    check_jobs("fig6_ilo", "paper", lambda jobs: [j for j in jobs if j.get("factor") == "16"])
    check_jobs("sigma", "demo", lambda jobs: jobs[-1:])


@pytest.mark.slow
@pytest.mark.parametrize("scale", SCALES)
@pytest.mark.parametrize("name", [name for name, counts in COUNTS.items() if counts[0]])
def test_all_jobs_compose_and_fit_their_generators(name, scale):
    check_jobs(name, scale, lambda jobs: jobs)


def test_the_papers_points_are_those_of_the_published_curves():
    for name, family in (("fig6_ilo", "ilo"), ("fig7_mgan", "mgan")):
        plan = plan_of(name)
        for cell in plan["cells"]:
            there = plan["published"][cell["task"]]
            assert cell.get("ratio", cell.get("factor")) == there["value"]
            assert len(there["value"]) == len(there["vanilla"]) == len(there[family])
        assert plan["common"]["num_images"] == 12 * plan["sets"]
    steps = plan_of("fig8_depth")["cells"][0]["inverter.steps"]
    assert [(len(s), sum(s)) for s in steps] == [
        (1, 2000),
        (2, 4000),
        (3, 5000),
        (4, 6000),
        (5, 7000),
    ]


def counts(plan, **given):
    return len(experiment.jobs(plan, "invert", {k: v.split(",") for k, v in given.items()}))


def test_the_command_line_narrows_replaces_and_multiplies():
    plan = plan_of("fig6_ilo")
    assert counts(plan, task="cs") == 10 and counts(plan, task="cs", rtil="ilo") == 5
    assert counts(plan, ratio="0.05") == 4  # cs and inpainting, two arms
    assert counts(plan, factor="4,2") == 4
    assert counts(plan, seed="0,1,2") == 3 * 28
    assert counts(plan, rtil="ilo_mixture") == 14 and counts(plan, rtil="vanilla,mgan") == 28
    assert {job["num_images"] for job in experiment.jobs(plan, "invert")} == {"36"}
    few = experiment.jobs(plan, "invert", {"num_images": ["2"], "experiment.sets": ["1"]})
    assert {job["num_images"] for job in few} == {"2"} and "experiment.sets" not in few[0]
    given = {"rtil.family.sigma": ["0.3"]}
    assert [job["rtil"] for job in experiment.jobs(plan_of("sigma"), "train", given)] == ["ilo"]
    data = experiment.jobs(plan, "train")[0]["data"], experiment.jobs(plan, "invert")[0]["data"]
    assert data == ("ffhq", "celebahq")


def where(jobs):
    """(task, measurement, where tuned) of the jobs of one arm and training, in order."""
    return [
        (
            job["task"],
            job.get("ratio", job.get("factor")),
            job.get("protocol.at.ratio", job.get("protocol.at.factor")),
        )
        for job in jobs
        if (job["rtil"], job["seed"]) == ("vanilla", "0")
    ]


def typed(words):
    """{key: texts} of a command line, whose lists of steps are single values."""
    pairs = [word.partition("=")[::2] for word in words.split()]
    return {key: [text] if text.startswith("[") else text.split(",") for key, text in pairs}


CS = [
    ("cs", ratio, at)
    for ratio, at in zip(("0.05", "0.1", "0.25", "0.5"), ("0.1", "0.1", "0.25", "0.25"))
]
HOLES = [("inpainting", ratio, "0.25") for ratio in ("0.1", "0.25", "0.5")]


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("task=cs", CS),
        ("task=cs ratio=0.1,0.5", [CS[1], CS[3]]),
        ("task=cs,inpainting ratio=0.05,0.1", [*CS[:2], HOLES[0]]),  # as planned for each task
        ("task=inpainting ratio=0.05", [("inpainting", "0.05", "0.25")]),
        ("task=cs ratio=0.1,0.3", [CS[1], ("cs", "0.3", "0.1"), ("cs", "0.3", "0.25")]),
        ("task=cs ratio=0.3 protocol.at.ratio=0.1", [("cs", "0.3", "0.1")]),
        ("task=cs ratio=0.5 protocol.at.ratio=0.1", [("cs", "0.5", "0.1")]),
        ("task=inpainting ratio=0.1 protocol.at.ratio=0.1", [("inpainting", "0.1", "0.1")]),
        ("task=inpainting protocol.at.ratio=0.1", [(*hole[:2], "0.1") for hole in HOLES]),
        ("ratio=0.1 protocol.at.ratio=0.25", [HOLES[0]]),
    ],
)
def test_what_is_planned_is_judged_for_what_the_other_keys_leave(words, expected):
    """Whatever the order of typing."""
    plan, given = plan_of("evidence_ilo", "faces32"), typed(f"protocol=fair {words}")
    for keys in (list(given), list(given)[::-1]):
        found = experiment.jobs(plan, "invert", {key: given[key] for key in keys})
        assert where(found) == expected


@pytest.mark.parametrize(
    ("name", "words", "expected"),
    [
        ("evidence_ilo", "task=cs", ["0.1", "0.25"]),
        ("evidence_ilo", "task=cs seed=0,1", ["0.1", "0.25"]),  # one tuning serves both
        ("evidence_ilo", "task=cs ratio=0.25", ["0.25"]),
        ("evidence_ilo", "factor=4", ["4"]),
        ("evidence_ilo", "task=cs ratio=0.05", ["0.05"]),
        ("evidence_ilo", "task=inpainting ratio=0.1", ["0.1"]),
        ("evidence_ilo", "task=cs,inpainting ratio=0.1", ["0.1", "0.1"]),
        ("evidence_ilo", "task=inpainting ratio=0.1,0.3", ["0.1", "0.3"]),
        ("evidence_ilo", "task=inpainting protocol.at.ratio=0.1", ["0.1"]),
        ("evidence_ilo", "task=inpainting ratio=0.5 protocol.at.ratio=0.3", ["0.3"]),
        ("fig6_ilo", "task=cs protocol.at.ratio=0.3", ["0.3"]),
    ],
)
def test_a_tuning_is_made_where_it_is_asked_for(name, words, expected):
    found = experiment.jobs(plan_of(name, "faces32"), "tune", {"seed": ["0"], **typed(words)})
    assert [value for _, value, at in where(found)] == expected
    assert not any(key.startswith("protocol") for job in found for key in job)


@pytest.mark.parametrize(
    "words",
    [
        "task=cs",
        "ratio=0.05",
        "ratio=0.1",
        "task=cs ratio=0.05,0.5",
        "ratio=0.3",
        "factor=2 seed=1",
        "task=inpainting ratio=0.1 protocol.at.ratio=0.1",
        "ratio=0.1 protocol.at.ratio=0.25",
        "seed=0,1,2 protocol.at.seed=1",
        "protocol.at.ratio=0.1",
    ],
)
def test_the_command_for_lacking_tunings_makes_them_and_no_other(words):
    plan, words = plan_of("evidence_ilo", "faces32"), f"protocol=fair num_images=2 {words}"
    jobs = experiment.jobs(plan, "invert", typed(words))
    places = [
        {
            key.removeprefix("protocol.at."): yaml.safe_load(job[key])
            for key in job
            if key.startswith("protocol.at.")
        }
        for job in jobs
    ]
    line = experiment.command(plan, "tune", experiment.for_tuning(places, words.split()))
    found = experiment.jobs(plan, "tune", typed(" ".join(shlex.split(line)[4:])))
    keys = ("rtil", "task", "seed", "ratio", "factor")
    wanted = {
        json.dumps([yaml.safe_load(str((job | place).get(key))) for key in keys])
        for job, place in zip(jobs, places)
    }
    assert {
        json.dumps([yaml.safe_load(str(job.get(key))) for key in keys]) for job in found
    } == wanted and len(found) == len(wanted)


@pytest.mark.parametrize(
    ("name", "given", "words"),
    [
        ("fig9_samples", {}, "no inversions: train its generators"),
        (
            "fig6_ilo",
            {"task": ["sr"], "ratio": ["0.05"]},
            "no inversions with task=sr, ratio=0.05",
        ),
        ("fig6_ilo", {"scale": ["demo", "paper"]}, "one scale"),
    ],
)
def test_a_plan_without_jobs_is_refused(name, given, words):
    with pytest.raises(ValueError, match=words):
        experiment.jobs(plan_of(name), "invert", given)


@pytest.mark.parametrize("name", ["fig6_ilo", "fig13_layer", "fig19_codes", "sigma"])
def test_the_command_for_a_job_singles_it_out_and_is_one_that_hydra_takes(name):
    plan = plan_of(name, "demo")
    for job in experiment.jobs(plan, "invert")[::5]:
        line = experiment.command(plan, "invert", ["scale=demo", "num_images=1", "seed=3"], job)
        words = shlex.split(line)[3:]
        given = {k: [v] for k, _, v in (word.partition("=") for word in words)}
        found = experiment.jobs(plan, "invert", given)
        assert {**job, "scale": "demo", "seed": "3"} in found and "num_images=1" not in words
        assert len({tuple(sorted(set(f) - {"rtil.family.sigma"})) for f in found}) == 1
        assert len(found) == 1 or name == "sigma"
    composed("invert", *words)


def test_missing_generators_are_named_with_the_commands_that_train_them(tmp_path):
    plan = plan_of("fig2_cs", "paper")
    given = {"scale": ["paper"], "root": [str(tmp_path)]}
    jobs = [experiment.overrides(plan, job) for job in experiment.jobs(plan, "invert", given)]
    configs = [resolved("invert", words) for words in jobs]
    words = ["scale=paper", "data=ffhq", "rtil=vanilla", f"root={tmp_path}"]
    trained = resolved("train", words)
    run_dir = identity.train_dir(trained)
    run_dir.mkdir(parents=True)
    (run_dir / "generator.pt").touch()
    (run_dir / "config.yaml").write_text(yaml.safe_dump({**trained, "total_nimg": 100}))
    with pytest.raises(FileNotFoundError, match="2 of 2"):  # stopped before its end
        check.check_trained(plan, configs, ["scale=paper"])
    (run_dir / "log.jsonl").write_text('{"nimg": 100}\n')
    with pytest.raises(FileNotFoundError, match="1 of 2") as error:
        check.check_trained(plan, configs, ["scale=paper", f"root={tmp_path}", "task=cs"])
    lines = [line.strip() for line in str(error.value).splitlines() if "rtil.train" in line]
    single, every = (shlex.split(line)[3:] for line in lines)
    place = identity.train_dir(resolved("train", single))
    assert place.name.startswith("stylegan2-ilo-ffhq-paper-seed0-")
    assert place.parent == tmp_path / "train"
    assert every == ["experiment=fig2_cs", "scale=paper", f"root={tmp_path}"]


def test_a_typing_error_is_refused_with_the_experiments_that_exist():
    with pytest.raises(Exception, match="fig6_ilo"):
        composed("invert", "experiment=fig6")
    with pytest.raises(ConfigCompositionException):
        composed("invert", "experiment=fig6_ilo", "inverter.stps=3")


@pytest.mark.slow
def test_one_job_of_an_experiment_runs_and_the_report_names_the_rest(tmp_path):
    words = ["scale=tiny", *QUICK, "rtil=vanilla", "total_nimg=8", f"root={tmp_path / 'runs'}"]
    trainer.train(composed("train", *words))
    choices = ["experiment=fig2_cs", "scale=tiny", *QUICK, "num_images=1", "rtil=vanilla"]
    code, _, error = command(tmp_path, "rtil.invert", *choices, "yardstick.num_train=50")
    assert code == 0, error
    report.report(composed("report", "experiment=fig2_cs", "scale=tiny", f"root={tmp_path}/runs"))
    out = tmp_path / "runs" / "report" / "fig2_cs-tiny"
    vanilla, ilo = json.loads((out / "table.json").read_text())
    assert (vanilla["n"], vanilla["planned"], vanilla["arm"]) == (1, 12, "vanilla")
    assert "n" not in ilo and ilo["arm"] == "ilo"
    page = (out / "report.html").read_text()
    assert "1 of 12" in page and "Missing, 1 of 2 planned" in page
    root = f"root={tmp_path / 'runs'}"
    kept = " ".join(["experiment=fig2_cs scale=tiny", root, *QUICK])
    assert ilo["commands"] == [
        f"python -m rtil.train {kept} rtil=ilo",
        f"python -m rtil.invert {kept} yardstick.num_train=50 rtil=ilo",
    ]
    assert vanilla["more"] == [ilo["commands"][1].replace("ilo", "vanilla")]


@pytest.mark.slow
def test_differences_run_from_end_to_end(tmp_path):
    plan, choices = plan_of("differences", "demo"), ["experiment=differences", "scale=demo"]
    code, _, error = command(tmp_path, "rtil.report", *choices)
    assert code == 1 and "python -m rtil.train experiment=differences scale=demo" in error
    code, _, error = command(tmp_path, "rtil.train", *choices, *QUICK, "total_nimg=8")
    assert code == 0, error
    extra = [*QUICK, "inverter.steps=2", "yardstick.num_train=50", "num_images=2"]
    code, _, error = command(tmp_path, "rtil.invert", *choices, *extra)
    assert code == 0, error
    code, _, error = command(tmp_path, "rtil.report", *choices)
    assert code == 0, error
    folder = tmp_path / "runs" / "report" / "differences-demo"
    table = json.loads((folder / "table.json").read_text())
    assert len(table) == len(experiment.jobs(plan, "invert"))
    assert {row["n"] for row in table} == {2} and [*folder.glob("grid-*.png")]
    page = (folder / "report.html").read_text()
    assert plan["title"] in page and "http" not in page.replace("http-equiv", "")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "twin"), [("evidence_ilo", "ilo_mixture"), ("evidence_mgan", "mgan_mixture")]
)
def test_evidence_is_trained_tuned_inverted_and_reported_under_three_protocols(
    name, twin, tmp_path
):
    plan = plan_of(name, "tiny")
    choices = [f"experiment={name}", "scale=tiny", *QUICK, f"rtil=vanilla,{twin}", "seed=0,1"]
    code, _, error = command(tmp_path, "rtil.train", *choices, "total_nimg=8")
    assert code == 0, error
    few = ["yardstick.num_train=50", "num_images=2"]
    code, _, error = command(tmp_path, "rtil.invert", *choices, *few)
    assert code == 1 and f"python -m rtil.tune experiment={name}" in error
    assert not [*tmp_path.rglob("results.jsonl")]
    code, _, error = command(tmp_path, "rtil.tune", *choices, "trials=2", "num_images=2")
    assert code == 0, error
    assert len([*tmp_path.rglob("tuned.yaml")]) == 2 * len(plan["cells"])
    code, _, error = command(tmp_path, "rtil.invert", *choices, *few)
    assert code == 0, error
    code, _, error = command(tmp_path, "rtil.report", f"experiment={name}", "scale=tiny")
    assert code == 0, error
    folder = tmp_path / "runs" / "report" / f"{name}-tiny"
    table = json.loads((folder / "table.json").read_text())
    missing = [row for row in table if "n" not in row]
    assert {row["arm"] for row in missing} == {*plan["generators"][0]["rtil"]}
    names = {(row["measurement"], row["task"], row["label"]) for row in missing}
    assert len(names) == len(missing)  # trainings of one arm share a row
    assert all(any("seed=2" in line for line in row["commands"]) for row in missing)
    table = [row for row in table if "n" in row]
    assert len(table) == len(experiment.jobs(plan, "invert")) // 9 * 2  # arms of two seeds each
    assert {row["protocol"] for row in table} == {"paper", "fair", "authors"}
    assert all(row["seeds"] == [0, 1] for row in table)
    assert "tuned at seed=0" in (folder / "report.html").read_text()
