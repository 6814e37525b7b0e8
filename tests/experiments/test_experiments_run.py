"""Experiments as typed at scale=demo: every cell, stop and continue, what is missing, the page.

Only lengths are cut: every generator, measurement, depth and number of codes of the plan is there,
on as many images as planned. All run in one folder and share generators and inversions.
"""

import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import time
from functools import lru_cache
from html.parser import HTMLParser
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
import torch
from helpers.experiments import NAMES, QUICK, command, composed, plan_of
from PIL import Image

from rtil import checkpoint
from rtil.experiments import plan as experiment
from rtil.runs import rows as jsonl

pytestmark = pytest.mark.slow
STEPS = (
    *("scale.ilo.steps=[2,1,1]", "scale.csgm.steps=2", "scale.mgan.steps=2"),
    "scale.iagan.joint_steps=2",
)
DEPTHS = "scale.sweep.depths=[[2],[2,1],[2,1,1]]"
INVERT = (*QUICK, "yardstick.num_train=64")
CASE = ("task", "inverter", "value", "noise_std")
VOID = ("img", "br", "meta")
OWN = ("differences", "evidence_ilo", "evidence_mgan")  # have a test of their own
EXTRA = ("yardsticks_deepinv",)  # needs rtil[deepinv], and a denoiser that was trained before
# A row is of several trainings, as in those with a test of their own.
SEEDS = ("reconstruction", "training_differences")
FIGURES = [name for name in NAMES if name not in (*OWN, *EXTRA, *SEEDS)]


class Ran(NamedTuple):
    """An experiment that was trained, inverted and reported."""

    plan: dict
    folder: Path  # of the report
    records: list[dict]


def choices(name):
    return [f"experiment={name}", "scale=demo", *([DEPTHS] if name.endswith("_depth") else [])]


def lengths(name):
    return [*INVERT, *([] if name.endswith("_depth") else STEPS)]


def parts_of(plan):
    """The commands of an experiment, in their order."""
    jobs = experiment.jobs(plan, "invert") if plan["cells"] else []
    fair = any(job.get("protocol") == "fair" for job in jobs)
    return ["train", *(["tune"] if fair else []), *(["invert"] if jobs else []), "report"]


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """Runs an experiment by its commands, once."""
    place = tmp_path_factory.mktemp("experiments")

    @lru_cache
    def of(name):
        plan, words = (
            plan_of(name, "demo"),
            {
                "train": [*QUICK, "total_nimg=64"],
                "tune": [*QUICK, *STEPS, "trials=2", "num_images=2"],
                "invert": lengths(name),
                "report": [],
            },
        )
        for part in parts_of(plan):
            code, _, error = command(place, f"rtil.{part}", *choices(name), *words[part])
            assert code == 0, error
        folder = place / "runs" / "report" / f"{name}-demo"
        return Ran(plan, folder, json.loads((folder / "table.json").read_text()))

    return of


class Page(HTMLParser):
    """A report's page: what its addresses and commands are, and what each section holds."""

    def __init__(self, folder):
        super().__init__()
        self.open, self.addresses, self.codes, self.section = [], [], [], None
        self.texts, self.tags = {}, {}
        source = (folder / "report.html").read_text()
        self.feed(source)
        assert not self.open
        self.source = re.sub('base64,[^"]*', "", source)  # any word may be in a picture

    def handle_starttag(self, tag, attrs):
        attrs = dict(attrs)
        self.addresses += [attrs[key] for key in ("src", "href") if key in attrs]
        if tag == "section" and "id" in attrs:  # not the first screen
            self.section = attrs["id"]
            self.texts[self.section], self.tags[self.section] = "", []
        elif self.section:
            self.tags[self.section].append(tag)
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag
        if tag == "section":
            self.section = None

    def handle_data(self, data):
        if self.section:
            self.texts[self.section] += data
        if self.open[-1:] == ["code"]:
            self.codes.append(data.partition("    #")[0])


@pytest.mark.parametrize("name", FIGURES)
def test_every_cell_is_filled_and_on_the_page(run, name):
    plan, folder, records = run(name)
    page, kind = Page(folder), plan["figure"]["kind"]
    jobs = experiment.jobs(plan, "invert") if plan["cells"] else []
    keys = {key for job in jobs for key in job} - {"inverter.steps"}
    assert len(records) == len(jobs)
    for record, job in zip(sorted_by(records, keys), sorted_by(jobs, keys)):
        assert told(record["job"], keys) == told(job, keys)
        assert record["n"] >= record["planned"] == int(job["num_images"]), job
        (run_dir,) = record["runs"]
        assert len(jsonl.result_rows(folder.parents[2] / run_dir)) >= record["n"]
        assert record["baseline"] or record["arm"] == "vanilla"
        assert not record["more"] and not record["commands"]
    assert len({record["n"] for record in records}) <= 1  # the same images
    assert not any(word in page.source for word in ("Missing", "Fewer", 'class="missing"'))
    drawn = {"curves": "figure-*.png", "samples": "samples-*.png"}.get(kind, "grid-*.png")
    for path in (pictures := [*folder.glob(drawn)]):
        with Image.open(path) as image:
            assert min(image.size) > 300 and np.asarray(image.convert("L")).std() > 10
    cells = {tuple(r[key] for key in CASE) for r in records}
    assert len(pictures) == (1 if kind in ("curves", "samples") else len(cells))

    what = {
        "curves": "Figures",
        "pictures": "Reconstructions",
        "samples": "Samples",
        "differences": "Tables",
    }[kind]
    inversions = {"Tables", "Reconstructions", "Gallery", "Settings"} if jobs else set()
    trainings = {"Settings"} if any("objective" in row for row in plan["generators"]) else set()
    assert next(iter(page.texts)) == what
    assert page.texts.keys() == {what, "Commands", "Samples", *inversions, *trainings}
    if jobs:
        assert f"{len(jobs)} entries, each an arm at a measurement: all there." in page.source
        lines = page.tags["Tables"].count("tr")
        wanted = len(jobs) + page.tags["Tables"].count("h3")
        more = kind == "differences" or "tune" in parts_of(plan)  # tables besides, of the same
        assert lines > wanted if more else lines == wanted
        shown = [
            min(48, max(r["n"] for r in records if tuple(r[key] for key in CASE) == c))
            for c in cells
        ]
        assert page.tags["Gallery"].count("tr") == sum(shown) + len(cells)
    assert page.addresses and all(a.startswith(("data:image/", "#")) for a in page.addresses)
    assert len({record["n"] for record in records}) <= 1  # the same images
    assert not any(word in page.source for word in ("http", "@import", "url(", "fetch("))


def sorted_by(rows, keys):
    return sorted(rows, key=lambda row: told(row.get("job", row), keys))


def told(job, keys):
    return json.dumps({key: job[key] for key in sorted(keys & job.keys())})


@pytest.mark.parametrize("name", FIGURES)
def test_the_commands_on_the_page_are_ones_that_hydra_takes(run, name):
    codes = Page(run(name).folder).codes
    parts = [shlex.split(line)[2].removeprefix("rtil.") for line in codes]
    planned = parts_of(run(name).plan)
    assert parts[: len(planned)] == planned
    assert any("total_nimg=64" in line for line in codes)  # of the training, as recorded
    for part, line in zip(parts, codes):
        assert composed(part, *shlex.split(line)[3:]).experiment.name


def test_experiments_share_what_is_the_same(run):
    """One generator a family, one inversion a choice: the second experiment adds neither."""
    for name in ("fig6_ilo", "estimators_ilo", "sigma", "fig14_inpainting"):
        run(name)
    of = {
        name: {
            (r["arm"], r["task"], r["value"]): r["runs"]
            for r in run(name).records
            if r["settings"].get("rtil.family.sigma") in (None, "1.0")
        }
        for name in ("fig6_ilo", "estimators_ilo", "sigma", "fig14_inpainting")
    }
    for name in ("estimators_ilo", "sigma", "fig14_inpainting"):
        common = of["fig6_ilo"].keys() & of[name].keys()
        assert len(common) >= 2
        assert all(of["fig6_ilo"][key] == of[name][key] for key in common)
    trained = run("fig6_ilo").folder.parents[1] / "train"
    used = {Path(path).parent.name for name in of for r in run(name).records for path in r["runs"]}
    assert len(used) == 4 and all((trained / name).is_dir() for name in used)
    assert len(of["sigma"]) >= 6
    # Later runs for other experiments take nothing from the page of an earlier one.
    place = trained.parents[1]
    for name in ("fig6_ilo", "fig14_inpainting"):
        code, _, error = command(place, "rtil.report", *choices(name), f"out={name}")
        assert code == 0, error
        later = json.loads((place / name / "table.json").read_text())
        assert len(later) == len(run(name).records)
        for now, then in zip(later, run(name).records):  # more images of a shared run may be there
            assert now["label"] == then["label"] and now["runs"] == then["runs"]
            assert now == then if now["n"] == then["n"] else now["n"] > then["n"]


def test_the_commands_of_a_missing_arm_fill_it_under_a_tuning_of_another_seed(tmp_path):
    """As the report of single inversions prints them: training, tuning, inversion."""
    quick = [*QUICK, *STEPS, "scale=tiny"]
    for seed in (0, 1):
        code, _, error = command(
            tmp_path,
            "rtil.train",
            *QUICK,
            "scale=tiny",
            "rtil=vanilla",
            f"seed={seed}",
            "total_nimg=32",
        )
        assert code == 0, error
    code, _, error = command(
        tmp_path,
        "rtil.tune",
        *quick,
        "rtil=vanilla",
        "task=cs",
        "ratio=0.1",
        "trials=2",
        "num_images=2",
        "final_images=3",
    )
    assert code == 0, error
    code, _, error = command(
        tmp_path,
        "rtil.invert",
        "-m",
        *quick,
        "rtil=vanilla",
        "seed=0,1",
        "task=cs",
        "ratio=0.25",
        "protocol=fair",
        "protocol.at.seed=0",
        "protocol.at.ratio=0.1",
        "num_images=3",
    )
    assert code == 0, error
    assert command(tmp_path, "rtil.report")[0] == 0
    rows = json.loads((tmp_path / "runs" / "report" / "table.json").read_text())
    (missing,) = [row for row in rows if "n" not in row]
    lines = [shlex.split(line) for line in missing["commands"]]
    assert [words[2] for words in lines] == [
        "rtil.train",
        "rtil.tune",
        "rtil.invert",
        "rtil.train",
        "rtil.invert",
    ]
    for _, _, *words in lines:
        code, _, error = command(tmp_path, *words)
        assert code == 0, error
    assert command(tmp_path, "rtil.report")[0] == 0
    vanilla, ilo = json.loads((tmp_path / "runs" / "report" / "table.json").read_text())
    assert (ilo["arm"], ilo["protocol"], ilo["n"], ilo["seeds"]) == ("ilo", "fair", 3, [0, 1])
    assert ilo["budgets"] == vanilla["budgets"] and ilo["tuned_at"] == vanilla["tuned_at"]
    assert ilo["gain_psnr_db_seeds"]["n"] == 2 and not ilo["unpaired"]


def start(cwd, *arguments):
    """A command in its own process, with Ctrl-C as in a terminal also where tests ignore it."""
    return subprocess.Popen(
        [sys.executable, "-m", *arguments],
        cwd=cwd,
        stderr=subprocess.PIPE,
        text=True,
        stdout=subprocess.DEVNULL,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )


def stop(process, signum, when):
    """Sends a signal as soon as `when` holds; returns the exit code and standard error."""
    end = time.monotonic() + 240
    while process.poll() is None and not when():
        assert time.monotonic() < end
        time.sleep(0.002)
    assert process.poll() is None, process.communicate()[1]
    process.send_signal(signum)
    _, error = process.communicate(timeout=60)
    return process.returncode, error


def lines_on_disk(root):
    """{run: its complete rows, as written}."""
    return {
        path.parent: [
            line for line in path.read_text().splitlines(keepends=True) if line.endswith("\n")
        ]
        for path in (root / "invert").rglob("results.jsonl")
    }


@pytest.mark.parametrize("signum", [signal.SIGKILL, signal.SIGINT])
def test_a_stopped_sweep_goes_on_and_what_it_lacks_is_on_the_page(run, tmp_path, signum):
    whole, root = run("fig6_ilo"), tmp_path / "runs"
    shutil.copytree(whole.folder.parents[1] / "train", root / "train")
    sweep = [
        "rtil.invert",
        *choices("fig6_ilo"),
        *lengths("fig6_ilo"),
        "num_images=3",
        "inversion_batch=1",
    ]
    process = start(tmp_path, *sweep)
    code, _ = stop(process, signum, lambda: sum(map(len, lines_on_disk(root).values())) >= 19)
    assert code == (-signum if signum == signal.SIGKILL else 128 + signum)
    before = lines_on_disk(root)
    assert 19 <= sum(map(len, before.values())) < 40

    code, _, error = command(tmp_path, "rtil.report", *choices("fig6_ilo"))
    assert code == 0, error
    folder = root / "report" / "fig6_ilo-demo"
    records = json.loads((folder / "table.json").read_text())
    lacking = [record for record in records if "n" not in record]
    done = {path: rows for path, rows in before.items() if rows}
    assert len(records) == 16 and len(lacking) == 16 - len(done)
    page = Page(folder)
    for task in {record["task"] for record in lacking}:
        mine = [[r for r in rows if r["task"] == task] for rows in (lacking, records)]
        assert f"Missing, {len(mine[0])} of {len(mine[1])} planned" in page.texts["Tables"]
    line = lacking[-1]["commands"][-1]
    assert line in page.codes
    code, _, error = command(tmp_path, *shlex.split(line)[2:])
    assert code == 0, error
    added = lines_on_disk(root).keys() - before.keys()
    assert len(added) == 1 and len(lines_on_disk(root)[added.pop()]) == 36  # as planned

    for _ in range(2):  # goes on, and then has nothing to do
        code, _, error = command(tmp_path, *sweep)
        assert code == 0, error
        after = lines_on_disk(root)
        assert len(after) == 16 and sorted(map(len, after.values())) == [3] * 15 + [36]
        for path, rows in before.items():
            assert after[path][: len(rows)] == rows
        before = after
    for path, rows in before.items():
        there = whole.folder.parents[1] / path.relative_to(root)
        psnr = {row["id"]: row["psnr_db"] for row in jsonl.result_rows(there)}
        for row in map(json.loads, rows):
            assert row["psnr_db"] == pytest.approx(psnr[row["id"]], abs=0.02)


def weights(root, arm):
    (path,) = root.glob(f"train/stylegan2-{arm}-*/generator.pt")
    return checkpoint.load(path, (checkpoint.EXPORT,))["G_ema"]


def test_a_stopped_training_sweep_ends_in_the_same_weights(tmp_path):
    """Ctrl-C in the first generator, kill in the second one, then to the end."""
    words = [*choices("fig2_cs"), *QUICK, "total_nimg=192", "checkpoint_every=32"]
    code, _, error = command(tmp_path, "rtil.train", *words, "root=whole")
    assert code == 0, error
    root = tmp_path / "runs"
    # A run is named when it begins: its digest is of what it computes.
    first, second = (f"train/stylegan2-{arm}-*" for arm in ("vanilla", "ilo"))
    code, error = stop(
        start(tmp_path, "rtil.train", *words),
        signal.SIGINT,
        lambda: any(root.glob(f"{first}/checkpoint-*.pt")),
    )
    assert code == 128 + signal.SIGINT and not any(root.glob(second)), error
    (log,) = root.glob(f"{first}/log.jsonl")
    reached = jsonl.read(log)[-1]["nimg"]
    assert 32 <= reached < 192

    code, _, error = command(tmp_path, "rtil.invert", *choices("fig2_cs"), *QUICK)
    assert code == 1 and "2 of 2 generators are not trained to their end" in error
    code, _ = stop(
        start(tmp_path, "rtil.train", *words),
        signal.SIGKILL,
        lambda: any(root.glob(f"{second}/checkpoint-*.pt")),
    )
    assert code == -signal.SIGKILL
    (trained,) = root.glob(f"{first}/generator.pt")
    begun = trained.stat().st_mtime_ns

    code, _, error = command(tmp_path, "rtil.train", *words)
    assert code == 0 and "is trained already: 192 of 192 images" in error
    assert trained.stat().st_mtime_ns == begun
    for arm in ("vanilla", "ilo"):
        there, here = weights(tmp_path / "whole", arm), weights(root, arm)
        assert there.keys() == here.keys()
        assert all(torch.equal(there[key], here[key]) for key in there), arm


BROWSER = shutil.which("chromium") or shutil.which("google-chrome")
PROBE = """
<script>
  const gallery = document.querySelectorAll(".gallery")[0];
  const order = () => [...gallery.querySelectorAll("tbody tr")].map(row => row.dataset.keys);
  const found = [order()];
  gallery.querySelectorAll("button").forEach(button => { button.click(); found.push(order()); });
  const wide = document.documentElement.scrollWidth - document.documentElement.clientWidth;
  document.body.innerHTML = "<pre>" + JSON.stringify({found, wide}) + "</pre>";
</script>
"""


@pytest.mark.skipif(not BROWSER, reason="no Chromium here, so the page's script is not run")
@pytest.mark.parametrize("width", [1400, 500])
def test_the_gallery_sorts_by_gain_and_the_page_fits_its_window(run, tmp_path, width):
    """Also where an image has no gain: it comes last."""
    page = (run("fig6_ilo").folder / "report.html").read_text()
    page = re.sub(r'data-keys="5 [^"]*"', 'data-keys="5 nan"', page)
    (tmp_path / "page.html").write_text(page.replace("</body>", PROBE + "</body>"))
    done = subprocess.run(
        [
            BROWSER,
            "--headless",
            "--no-sandbox",
            "--disable-gpu",
            f"--window-size={width},900",
            f"--user-data-dir={tmp_path / 'profile'}",
            "--dump-dom",
            str(tmp_path / "page.html"),
        ],
        capture_output=True,
        text=True,
        timeout=120,
    )
    text = done.stdout.partition("<pre>")[2].partition("</pre>")[0]
    assert text, done.stderr[-2000:]
    found = json.loads(text)
    assert found["found"][0] == found["found"][1]  # as listed
    as_listed, _, best, worst = (
        [[float(key) for key in keys.split()] for keys in order] for order in found["found"]
    )
    assert len(as_listed) == 36
    assert [keys[0] for keys in best[-1:] + worst[-1:]] == [5, 5]
    there = [keys for keys in as_listed if keys[0] != 5]
    assert best[:-1] == sorted(there, key=lambda keys: -keys[1]) != there
    assert worst[:-1] == sorted(there, key=lambda keys: keys[1])
    assert found["wide"] <= 0
