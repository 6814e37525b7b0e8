"""Tuning: what is tried is the same for every arm, the best is taken, nothing is repeated."""

import hashlib
import json
import re
import shlex
from pathlib import Path

import pytest
import yaml
from helpers.commands import export, resolved, start
from helpers.reports import make_run, run_report
from omegaconf import OmegaConf

from rtil import tune
from rtil.experiments import plan as experiment
from rtil.inverters.ilo import ILO
from rtil.inverters.minimise import NotFinite
from rtil.reporting.tables import choice as told
from rtil.runs import keys, tuning
from rtil.runs.record import claim
from rtil.runs.rows import append, result_rows
from rtil.runs.search import budget
from rtil.tuning import space as search
from rtil.tuning import trials

ARMS = [("stylegan2", "ilo", rtil) for rtil in ("vanilla", "ilo", "ilo_mixture")] + [
    ("pggan", "mgan", rtil) for rtil in ("vanilla", "mgan", "mgan_mixture")
]


def words(arm, *more):
    return (f"model={arm[0]}", f"inverter={arm[1]}", f"rtil={arm[2]}", *more)


@pytest.fixture
def root(tmp_path):
    export(tmp_path)
    return tmp_path


def proposals(arm, count=30, scale="paper", seed=0):
    config = resolved("tune", *words(arm, f"scale={scale}"))
    steps = search.stages(config["inverter"])
    return search.trials(config["search"], steps, count, seed), steps, config["search"]


@pytest.mark.parametrize("arms", [ARMS[:3], ARMS[3:]])
def test_every_arm_gets_the_same_trials_and_total_steps(arms):
    first, steps, _ = proposals(arms[0])
    for arm in arms[1:]:
        assert proposals(arm)[:2] == (first, steps)
    assert len({json.dumps(trial) for trial in first}) == len(first) == 30
    for trial in first:
        if steps:
            division = trial["inverter.steps"]
            assert sum(division) == sum(steps) and len(division) == len(steps)
            assert min(division) >= 1
        else:
            assert "inverter.steps" not in trial
    assert not steps or len({tuple(t["inverter.steps"]) for t in first}) > 20


@pytest.mark.parametrize("arm", [ARMS[0], ARMS[3]])
def test_more_trials_go_on_from_fewer_and_stay_within_the_space(arm):
    many, _, space = proposals(arm, 40)
    assert proposals(arm, 7)[0] == many[:7]
    assert proposals(arm, 40, seed=1)[0] != many
    drawn, variants = many[len(space["anchors"]) :], space["variants"]
    for number, trial in enumerate(drawn):
        for key, node in variants[number % len(variants)].items():
            if isinstance(node, dict) and "low" in node:
                assert node["low"] <= trial[key] <= node["high"]
            else:
                assert trial[key] in (node["choices"] if isinstance(node, dict) else [node])
    for key in ("inverter.lr_style", "inverter.lr_code"):
        values = sorted(trial[key] for trial in drawn if key in trial)
        assert not values or values[-1] > 10 * values[0]


@pytest.mark.parametrize(
    ("arms", "task"),
    [
        (ARMS[:2], "sr"),
        (ARMS[1:3], "inpainting"),
        (ARMS[3:5], "inpainting"),
        (ARMS[4:], "sr"),
    ],
)
@pytest.mark.slow
def test_what_is_not_tuned_is_the_same_for_every_arm(arms, task):
    configs = [resolved("tune", *words(arm, f"task={task}", "scale=paper")) for arm in arms]
    assert configs[0]["loss"]["lpips"] > 0
    free = {*search.keys(configs[0]["search"], search.stages(configs[0]["inverter"])), "rtil"}
    for config in configs[1:]:
        assert not keys.differing_keys(
            configs[0], config, lambda key: not keys.is_under(key, free)
        )


@pytest.mark.parametrize("first", [0.2, 0.45, 0.7])
@pytest.mark.parametrize("ratio", [0.5, 1.0, 2.0])
def test_a_division_keeps_the_sum_and_follows_its_shares(first, ratio):
    for steps in ([3, 2, 2], [2000, 1000, 1000, 1000, 2000], [5], [1, 1]):
        found = search.divide(steps, first, ratio)
        assert sum(found) == sum(steps) and len(found) == len(steps) and min(found) >= 1
    found = search.divide([2000, 1000, 1000, 1000, 2000], first, ratio)
    assert found[0] / 7000 == pytest.approx(first, abs=2e-3)
    assert found[3] / found[2] == pytest.approx(ratio, rel=0.02)
    with pytest.raises(ValueError, match="1 steps for 2 stages"):
        search.divide([1, 0], 0.5, 1.0)


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"variants": [{"a": {"low": 2.0, "high": 1.0}}], "anchors": []}, "0 < low < high"),
        ({"variants": [{"a": 1}, {"b": 1}], "anchors": []}, "the same keys"),
        ({"stages": {"first": [0.0, 0.5], "ratio": [1, 1]}}, "shares in"),
    ],
)
def test_a_space_that_cannot_be_searched_is_refused(change, named):
    space = {"anchors": [], "variants": [{"a": {"low": 1.0, "high": 2.0}}], "stages": None}
    with pytest.raises(ValueError, match=named):
        search.trials({**space, **change}, [2, 1], 4, 0)


def test_the_best_planted_trial_is_chosen_over_the_images_that_all_have():
    planted = [
        {"a": 20.0, "b": 22.0},
        {"a": 25.0, "b": 18.0, "c": 99.0},
        {},
        {"a": 21.6, "b": 21.5},
    ]
    tried = [trials.Trial(i, {"number": i}, scores) for i, scores in enumerate(planted)]
    best = trials.ranked(tried)
    assert ([t.number for t in best.ranked], best.ids) == ([3, 1, 0], ["a", "b"])
    assert [t.number for t in trials.ranked([tried[0], tried[2]]).ranked] == [0]
    equal = trials.Trial(4, {}, {"a": 21.0, "b": 21.0})
    assert [t.number for t in trials.ranked([equal, tried[0]]).ranked] == [0, 4]
    assert tried[0].score(best.ids)["mean"] == 21.0 and tried[2].score(best.ids)["n"] == 0
    with pytest.raises(RuntimeError, match="none of 1 trials"):
        trials.ranked([tried[2]])


def test_a_tuning_finds_the_settings_that_score_best(root, monkeypatch):
    """Scores planted by the step of the styles: its best is nearest to 0.05, whatever the arm."""
    tried = []

    def planted(cfg, overrides):
        place = Path(cfg.run_dir)
        place.mkdir(parents=True)
        assert cfg.split == "val" and "search" not in cfg
        tried.append(cfg.inverter.lr_style)
        if len(tried) == 3:
            raise NotFinite("planted")
        score = -abs(cfg.inverter.lr_style - 0.05)
        append(place / "results.jsonl", [{"id": i, "psnr_db": score} for i in "ab"])

    monkeypatch.setattr(tune, "inverted", planted)
    path = start("tune", root, "trials=12")
    found = yaml.safe_load(path.read_text())
    best = min((x for n, x in enumerate(tried) if n != 2), key=lambda x: abs(x - 0.05))
    assert len(tried) == len(found["trials"]) == 12
    assert found["chosen"]["inverter.lr_style"] == best == tried[found["trial"]]
    assert found["trials"][2]["mean"] is None and found["trials"][2]["n"] == 0
    assert found["validation"] == {
        "split": "val",
        "data": "glyphs",
        "metric": "psnr_db",
        "mean": round(-abs(best - 0.05), 4),
        "ci95": 0.0,
        "n": 2,
    }


def test_the_best_trials_go_on_to_more_images_and_the_best_of_these_wins(root, monkeypatch):
    """Planted: trial 1 is best on the first two images, trial 3 second there and best on six,
    trial 0 best on six but too bad on the first two to be looked at again."""
    level = {0: (1.0, 90.0), 1: (9.0, 1.0), 2: (5.0, 9.0), 3: (8.0, 8.0), 4: (2.0, 2.0)}
    asked = []

    def planted(cfg, overrides):
        place, number = Path(cfg.run_dir), cfg.protocol.tuned.trial
        place.mkdir(parents=True, exist_ok=True)
        have = len(result_rows(place))
        asked.append((number, cfg.num_images - have))
        append(
            place / "results.jsonl",
            [
                {"id": str(i), "psnr_db": level[number][i >= 2]}
                for i in range(have, cfg.num_images)
            ],
        )

    monkeypatch.setattr(tune, "inverted", planted)
    path = start("tune", root, "trials=5", "finalists=2", "final_images=6")
    found = yaml.safe_load(path.read_text())
    assert asked == [(i, 2) for i in range(5)] + [(1, 4), (3, 4)]
    assert found["trial"] == 3
    validation = found["validation"]
    assert validation.pop("first_round") == {"n": 2, "finalists": 2}
    assert (validation["mean"], validation["n"]) == (8.0, 6)
    assert [t.get("final", {}).get("mean") for t in found["trials"]] == [
        None,
        round((18 + 4) / 6, 4),
        None,
        8.0,
        None,
    ]
    assert [t["mean"] for t in found["trials"]] == [1.0, 9.0, 5.0, 8.0, 2.0]
    assert [line.split()[0] for line in trials.table(found).splitlines()[1:]] == [*"31240"]

    once = yaml.safe_load(start("tune", root, "trials=5").read_text())  # of the first two alone
    assert once["trial"] == 1 and once["validation"]["n"] == 2
    more = dict(found, validation={**validation, "first_round": {"n": 2, "finalists": 2}})
    budgets = [
        budget(keys.flatten({"protocol": {"tuned": {"trials": 5, "space": "s", "validation": v}}}))
        for v in (more["validation"], once["validation"])
    ]
    assert budgets == [(5, 6, "s", 2, 2), (5, 2, "s")]


@pytest.mark.slow
def test_a_finalist_that_is_not_finite_keeps_its_first_score_and_ends_no_search(
    root, monkeypatch, capsys
):
    """Planted: trial 3 is best on two images and has no finite loss on the third; trial 1, which
    would be the third finalist, is best on four."""
    level, asked = {0: 5.0, 1: 4.0, 2: 6.0, 3: 9.0}, []

    def planted(cfg, overrides):
        place, number = Path(cfg.run_dir), cfg.protocol.tuned.trial
        claim(place, OmegaConf.to_container(cfg, resolve=True), "invert")
        have = len(result_rows(place))
        asked.append((number, cfg.num_images, have))
        for i in range(have, cfg.num_images):
            if number == 3 and i == 2:
                raise NotFinite("planted")
            append(
                place / "results.jsonl",
                [{"id": str(i), "psnr_db": level[number] if i < 2 or number != 1 else 50.0}],
            )

    monkeypatch.setattr(tune, "inverted", planted)
    more = ("trials=4", "finalists=2", "final_images=4")
    path = start("tune", root, *more)
    found, note = yaml.safe_load(path.read_text()), path.parent / "trial-003" / trials.NOTE
    assert found["trial"] == 2 and found["validation"]["first_round"]["finalists"] == 2
    last = found["trials"][3]
    assert (last["mean"], last["final"]) == (9.0, {"mean": None, "ci95": None, "n": 0})
    assert json.loads(note.read_text())["num_images"] == 4
    assert "9.000 ± 0.000  final not finite" in capsys.readouterr().out

    def again(text):
        note.write_text(json.dumps(text))
        asked.clear()
        assert yaml.safe_load(start("tune", root, *more).read_text()) == found
        assert (3, 2, 2) in asked and (3, 4, 2) not in asked

    text = json.loads(note.read_text())
    again(text)
    again({"settings": last, "error": text["error"]})  # as earlier versions write it
    assert yaml.safe_load(start("tune", root, "trials=4").read_text())["trial"] == 3
    with pytest.raises(RuntimeError, match="none of 1 finalists had a finite loss"):
        start("tune", root, "trials=4", "finalists=1", "final_images=3")


def plant(root, monkeypatch):
    """Inversions that claim their folders and score 9 in trial 0; returns the trials they ran."""
    ran = []

    def planted(cfg, overrides):
        place = Path(cfg.run_dir)
        digest = hashlib.sha256(next(root.rglob("generator.pt")).read_bytes()).hexdigest()
        config = {**OmegaConf.to_container(cfg, resolve=True), "generator_sha256": digest}
        claim(place, config, "invert")
        ran.append(cfg.protocol.tuned.trial)
        append(
            place / "results.jsonl",
            [{"id": i, "psnr_db": 9.0 - cfg.protocol.tuned.trial} for i in "ab"],
        )

    monkeypatch.setattr(tune, "inverted", planted)
    return ran


def test_a_note_that_a_trial_is_not_finite_is_of_its_generator_and_settings(root, monkeypatch):
    ran = plant(root, monkeypatch)
    right = tune.inverted

    def fails(cfg, overrides):
        right(cfg, overrides)
        (Path(cfg.run_dir) / "results.jsonl").unlink()
        raise NotFinite("planted")

    def trials_of():
        ran.clear()
        path = start("tune", root, "trials=2", "ratio=0.5")
        return [row["mean"] for row in yaml.safe_load(path.read_text())["trials"]], path.parent

    monkeypatch.setattr(
        tune, "inverted", lambda cfg, o: (right if cfg.protocol.tuned.trial else fails)(cfg, o)
    )
    means, place = trials_of()
    assert means == [None, 8.0]
    monkeypatch.setattr(tune, "inverted", right)
    assert trials_of()[0] == means and ran == [1]  # known, not tried again

    export(root, seed=5)  # another generator: another tuning
    again, elsewhere = trials_of()
    assert again == [9.0, 8.0] and ran == [0, 1] and elsewhere != place


@pytest.mark.parametrize("word", ["search_seed=1", "search.stages.first=[0.6,0.7]"])
@pytest.mark.slow
def test_another_search_lies_elsewhere_and_an_inversion_is_told_of_both(root, word, monkeypatch):
    inverted = tune.inverted
    ran = plant(root, monkeypatch)
    path = start("tune", root, "trials=4")
    text = path.read_text()
    ran.clear()
    other = start("tune", root, "trials=4", word)
    assert other.parent != path.parent and ran == [0, 1, 2, 3]
    assert path.read_text() == text != other.read_text()
    monkeypatch.setattr(tune, "inverted", inverted)
    with pytest.raises(ValueError, match="2 tunings are for these settings") as error:
        start("invert", root, "protocol=fair")
    assert str(path) in str(error.value) and str(other) in str(error.value)


@pytest.mark.slow
def test_a_stopped_tuning_goes_on_without_repeating_an_image(root, monkeypatch):
    right, calls = ILO.invert, []

    def counted(self, G, A, y, *rest, **more):
        calls.append((self, float(y.sum())))
        if len(calls) == 4:
            raise KeyboardInterrupt
        return right(self, G, A, y, *rest, **more)

    monkeypatch.setattr(ILO, "invert", counted)
    with pytest.raises(KeyboardInterrupt):
        start("tune", root, "trials=3")
    assert not list(root.rglob(tuning.NAME))
    path = start("tune", root, "trials=3")
    assert len(calls) == 7 and len({(c[0].lr_style, c[1]) for c in calls}) == 6
    rows = {p: p.read_text() for p in path.parent.rglob("results.jsonl")}
    start("tune", root, "trials=4")
    assert len(calls) == 9 and all(p.read_text() == text for p, text in rows.items())
    assert len(yaml.safe_load(path.read_text())["trials"]) == 4


@pytest.mark.slow
def test_a_fair_inversion_says_its_tuning_takes_it_and_is_bound_to_it(root):
    with pytest.raises(FileNotFoundError, match=r"python -m rtil\.tune") as error:
        start("invert", root, "protocol=fair", "ratio=0.2")
    line = shlex.split(str(error.value).splitlines()[-1])
    assert not any(word.startswith(("protocol", "num_images", "yardstick")) for word in line)
    path = start("tune", root, *line[3:], "trials=3")
    found = yaml.safe_load(path.read_text())
    place = start("invert", root, "protocol=fair", "ratio=0.2", "run_dir=null")
    saved = yaml.safe_load((place / "config.yaml").read_text())
    flat = keys.flatten(saved)
    assert {key: flat[key] for key in found["chosen"]} == found["chosen"]
    assert saved["split"] == "test" and place.parents[1] == root / "invert"
    assert flat["protocol.tuned.trials"] == 3 and flat["protocol.tuned.validation.n"] == 2
    assert "tuned" not in place.parts and len(result_rows(place)) == 2

    for word, named in (
        ("split=val", "tuned on the images"),
        ("inverter.lr_style=0.3", "what a tuning chooses"),
        ("noise_std=0.1", r"tune .* noise_std=0\.1"),
    ):
        with pytest.raises((ValueError, FileNotFoundError), match=named):
            start("invert", root, "protocol=fair", "ratio=0.2", word)
    text = path.read_text()
    for old, new, named in (
        ("split: val", "split: test", "only validation images may be"),
        ("loss.mse: 0.25", "loss.mse: 1.0", "loss.mse: 1.0 there, 0.25 here"),
        ("steps: [3, 2, 2]\n  l", "steps: [9]\n  l", r"steps: \[9\] there"),
        ("validation:", "valid:", "no file of python"),
    ):
        assert old in text
        path.write_text(text.replace(old, new))
        with pytest.raises((ValueError, FileNotFoundError), match=named):
            start("invert", root, "protocol=fair", "ratio=0.2")
    path.write_text(text)
    export(root, seed=1)
    with pytest.raises(FileNotFoundError, match="generator_sha256"):
        start("invert", root, "protocol=fair", "ratio=0.2")


@pytest.mark.parametrize(
    "word",
    [
        "metrics.lpips=false",
        "split=test",
        "num_images=1",
        "pictures=false",
        "save_measurements=true",
        "fit=crop",
    ],
)
def test_what_a_tuning_does_not_take_is_not_in_its_command_and_not_in_its_settings(tmp_path, word):
    given = ["protocol=fair", "ratio=0.2", f"root={tmp_path}", word]
    config = resolved("invert", *given)
    line = shlex.split(tuning.command(config, given))[3:]
    assert word not in line and "ratio=0.2" in line
    asked = tuning.settings(config, ())
    assert asked == tuning.settings(resolved("tune", *line), ())


def test_a_tuning_given_as_a_file_is_taken_wherever_it_lies_and_only_where_it_fits(root, tmp_path):
    path = start("tune", root, "trials=2", "ratio=0.2")
    moved = path.rename(tmp_path / "elsewhere.yaml")
    with pytest.raises(FileNotFoundError, match=r"rtil\.tune"):
        start("invert", root, "protocol=fair", "ratio=0.2")
    place = start("invert", root, "protocol=fair", "ratio=0.2", f"tuned={moved}")
    flat = keys.flatten(yaml.safe_load((place / "config.yaml").read_text()))
    assert flat["protocol.tuned.file"] == str(moved) and flat["protocol.tuned.trials"] == 2
    with pytest.raises(ValueError, match=r"ratio: 0\.2 there, 0\.4 here"):
        start("invert", root, "protocol=fair", "ratio=0.4", f"tuned={moved}")
    with pytest.raises(FileNotFoundError, match=r"nothing at tuned="):
        start("invert", root, "protocol=fair", "ratio=0.2", f"tuned={moved}x")
    at = ("protocol=fair", "ratio=0.4", "protocol.at.ratio=0.2", f"tuned={moved}")
    assert len(result_rows(start("invert", root, *at))) == 2


@pytest.mark.slow
def test_one_tuning_serves_other_seeds_and_ratios_where_protocol_at_names_it(root):
    export(root, 1, "ilo", "seed=1")
    other = ("protocol=fair", "seed=1", "ratio=0.4")
    at = ("protocol.at.seed=0", "protocol.at.ratio=0.2")
    with pytest.raises(FileNotFoundError, match=r"rtil\.tune") as error:
        start("invert", root, *other, *at)
    line = shlex.split(str(error.value).splitlines()[-1])
    assert {"ratio=0.2", "seed=0"} < {*line} and not any("protocol" in word for word in line)
    path = start("tune", root, *line[3:], "trials=2")
    found = yaml.safe_load(path.read_text())
    place = start("invert", root, *other, *at)
    flat = keys.flatten(yaml.safe_load((place / "config.yaml").read_text()))
    assert {key: flat[key] for key in found["chosen"]} == found["chosen"]
    assert (flat["seed"], flat["ratio"], flat["protocol.tuned.at.ratio"]) == (1, 0.4, 0.2)
    assert "tuned at seed=0, ratio=0.2" in told(flat)
    with pytest.raises(FileNotFoundError):  # nothing is tuned for what it does not name
        start("invert", root, *other, at[0])
    explicit = f"generator={next(root.rglob('generator.pt'))}"
    for words, named in (
        ((explicit,), "found by its choices"),
        (("task=denoise", "noise_std=0.1"), "no choice of task=denoise"),
    ):
        with pytest.raises((ValueError, FileNotFoundError), match=named):
            start("invert", root, "protocol=fair", *at, *words)
    with pytest.raises(ValueError, match=r"protocol\.at"):
        start("tune", root, at[1])
    export(root, 5)
    with pytest.raises(FileNotFoundError, match="generator_sha256"):
        start("invert", root, *other, *at)


def test_an_experiment_tunes_what_its_fair_inversions_take():
    plan = {
        "name": "x",
        "generators": [{"rtil": ["vanilla", "ilo"], "seed": [0, 1]}],
        "common": {"num_images": 4},
        "cells": [
            {
                "task": "cs",
                "ratio": [0.1, 0.3],
                "switches": [
                    {"protocol": "authors"},
                    {"protocol": "fair", "protocol.at.ratio": 0.2, "protocol.at.seed": 0},
                ],
            }
        ],
    }
    assert experiment.jobs(plan, "tune") == [
        {"task": "cs", "ratio": "0.2", "rtil": rtil, "seed": "0"} for rtil in ("vanilla", "ilo")
    ]
    plan["cells"][0]["switches"].pop()
    assert len(experiment.jobs(plan, "tune")) == 8 and "ratio" in experiment.jobs(plan, "tune")[0]


@pytest.mark.parametrize(
    ("override", "named"),
    [
        ("split=test", "must be val"),
        ("protocol=paper", "nothing to tune"),
        ("input=photo.png", "true image"),
        ("trials=0", "trials=0"),
        ("finalists=0", "finalists=0"),
        ("final_images=2", "above num_images=2"),
        ("run_dir=elsewhere", "must be left out"),
        ("inverter.lr_noise=0.3", "what a tuning chooses"),
        ("inverter=csgm", "no inverter=csgm"),
    ],
)
def test_a_tuning_that_would_not_be_fair_is_refused(root, override, named):
    with pytest.raises(ValueError, match=re.escape(named)):
        start("tune", root, override)
    assert not (root / "tuned").exists()


def test_a_report_shows_protocols_side_by_side_and_what_was_chosen_on_what(tmp_path):
    for arm, tried in (("vanilla", 24), ("ilo", 8)):
        for name in ("paper", "authors", "fair"):
            psnr = {"a": 20.0 + len(name), "b": 21.0 + len(name)}
            place = make_run(tmp_path, arm, psnr, name=name, pictures=False)
            config = yaml.safe_load((place / "config.yaml").read_text())
            config["protocol"] = {"name": name}
            config["inverter"]["lr_style"] = {"paper": 0.2, "authors": 0.1, "fair": 0.05}[name]
            config["selection"] = "oracle" if name == "authors" else "best"
            if name == "fair":
                config["inverter"]["lr_style"] += 0.01 * tried
                config["protocol"]["tuned"] = {
                    "keys": ["inverter.lr_style", "inverter.steps"],
                    "trial": 3,
                    "trials": tried,
                    "space": "00ff00ff",
                    "asked": {"inverter.steps": [4, 2]},
                    "validation": {"n": 12, "metric": "psnr_db", "mean": 19.5, "ci95": 0.5},
                }
            (place / "config.yaml").write_text(yaml.safe_dump(config))
    text = (run_report(tmp_path) / "table.md").read_text()
    for arm in ("vanilla", "ilo"):
        for label in ("protocol=paper", "protocol=authors, selection=oracle", "protocol=fair"):
            assert f"| {arm}, {label} " in text
    assert "lr_style=" not in text.split("\n\n## ")[1].split("\n\n")[1]
    for said in ("trial 3 (from 0) of 24", "12 validation images", "19.50 ± 0.50"):
        assert said in text
    assert "inverter.lr_style=0.29" in text and "does not say on which images" in text
    assert "Not fair at cs, ratio 0.1" in text and "(8, 12, '00ff00ff'), (24, 12" in text
