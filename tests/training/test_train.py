"""Laws of training: resuming, several processes, what is refused and what survives."""

import copy
import dataclasses
import json
import os
import signal
import subprocess
import sys
import time
import types
from pathlib import Path
from typing import ClassVar

import pytest
import torch
import yaml
from conftest import KARRAS
from helpers.trainings import TINY, config
from omegaconf import OmegaConf
from PIL import Image

from rtil import checkpoint, train
from rtil.latents.additive import Additive
from rtil.latents.family import multicode
from rtil.models.generator import UNMIXED
from rtil.objectives.wgan_gp import WGANGP
from rtil.process import replay
from rtil.process.device import Hardware, start
from rtil.process.instantiate import instantiate
from rtil.process.rng import Draws, seed_of, seeded
from rtil.training import loop, networks, setup
from rtil.training.monitor import Terms
from rtil.training.settings import Settings
from rtil.training.step import Fakes, Nets, Step

ARMS = [
    ("stylegan2", "vanilla"),
    ("stylegan2", "ilo"),
    ("stylegan2", "ilo_mixture"),
    ("pggan", "vanilla"),
    ("pggan", "mgan"),
    ("pggan", "mgan_mixture"),
    ("pggan", "ilo"),
]
# p moves after every third step, and a checkpoint is not always there.
ADA = ("augment=ada", "augment.p=0.4", "augment.speed=100", "augment.every=3")
CHOICES = [f"+model.generator.{key}={value}" for key, value in KARRAS.items()]


def run(run_dir, *overrides):
    train.train(config(f"run_dir={run_dir}", *overrides))
    return run_dir


def command(*args, **options):
    return subprocess.Popen(
        [sys.executable, "-m", *args],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        **options,
    )


def weights(run_dir):
    content = checkpoint.load(checkpoint.latest(Path(run_dir)))
    return {k: content[k] for k in Nets._fields if k in content}


def assert_equal_trees(a, b):
    if isinstance(a, torch.Tensor):
        assert torch.equal(a, b)
    elif isinstance(a, dict):
        assert a.keys() == b.keys()
        for key in a:
            assert_equal_trees(a[key], b[key])
    elif isinstance(a, (list, tuple)):
        assert len(a) == len(b)
        for x, y in zip(a, b):
            assert_equal_trees(x, y)
    else:
        assert a == b


@pytest.mark.parametrize(
    ("model", "rtil", "more"),
    [
        ("stylegan2", "ilo_mixture", ()),
        pytest.param("pggan", "mgan_mixture", (), marks=pytest.mark.slow),
        *(pytest.param(*arm, (), marks=pytest.mark.slow) for arm in ARMS if "mix" not in arm[1]),
        ("pggan", "mgan_mixture", CHOICES),
        pytest.param("pggan_r1", "mgan_mixture", (), marks=pytest.mark.slow),
        ("stylegan2", "ilo_mixture", ADA),
        pytest.param(
            *("stylegan2", "ilo", ("objective=relativistic", *ADA)), marks=pytest.mark.slow
        ),
        pytest.param("pggan", "mgan_mixture", ADA, marks=pytest.mark.slow),
    ],
)
def test_stopped_and_resumed_equals_uninterrupted_bit_for_bit(tmp_path, model, rtil, more):
    choice = (f"model={model}", f"rtil={rtil}", "total_nimg=64", *more)
    if model == "pggan":  # growing is a function of the length, so it is given
        choice += ("model.phase_nimg=[16,16,32]",)
    whole = run(tmp_path / "whole", *choice)
    run(tmp_path / "parts", *choice, "total_nimg=24")
    parts = run(tmp_path / "parts", *choice)
    assert_equal_trees(weights(whole), weights(parts))
    logs = [
        [
            {k: v for k, v in json.loads(line).items() if "/" in k or k == "nimg"}
            for line in (d / "log.jsonl").read_text().splitlines()
        ]
        for d in (whole, parts)
    ]
    assert logs[0][-1]["nimg"] == logs[1][-1]["nimg"] == 64


def test_training_moves_every_weight_and_the_average_follows(tmp_path):
    run_dir = run(tmp_path / "run", "rtil=ilo", "total_nimg=32")
    torch.manual_seed(0)
    content = checkpoint.load(checkpoint.latest(run_dir))
    start = instantiate(content["config"]["model"]["generator"]).state_dict()
    for name, value in content["G"].items():
        if not name.startswith("noise_"):
            assert not torch.equal(value, start[name]), name
    gap = sum((content["G"][n] - v).square().sum() for n, v in start.items())
    lag = sum((content["G_ema"][n] - v).square().sum() for n, v in start.items())
    assert 0 < lag < gap


def test_first_ema_step_is_the_weighted_mean(tmp_path):
    cfg = config(f"run_dir={tmp_path / 'r'}", "total_nimg=8", "model.ema_decay=0.75")
    train.train(cfg)
    content = checkpoint.load(checkpoint.latest(tmp_path / "r"))
    torch.manual_seed(0)
    start = instantiate(content["config"]["model"]["generator"]).state_dict()
    for name, value in content["G_ema"].items():
        want = 0.75 * start[name] + 0.25 * content["G"][name]
        torch.testing.assert_close(value, want, rtol=1e-5, atol=1e-6)


def test_adam_has_the_lazy_regularisation_correction():
    whole = OmegaConf.to_container(config("rtil=ilo", "image_channels=1"), resolve=True)
    family = instantiate(whole["rtil"]["family"])
    nets = networks.build_nets(whole, family, start(Hardware("cpu", 1)))
    for optim, every in ((nets.G_optim, 4), (nets.D_optim, 16)):
        share = every / (every + 1)
        group = optim.param_groups[0]
        assert group["lr"] == pytest.approx(0.002 * share)
        assert group["betas"] == pytest.approx((0.0, 0.99**share))
    assert len(nets.objective.path_mean_0) == 1  # one running mean a member


def test_growing_trains_each_resolution_for_an_equal_number_of_steps(tmp_path):
    cfg = config("model=pggan", "rtil=vanilla", "batch=[32,16,8]", "total_nimg=5600")
    phases = setup.check(cfg)
    assert phases == [3200, 1600, 800]
    settings = settings_with(tmp_path, batches=(32, 16, 8), phase_nimg=tuple(phases))
    edges = [0, 3199, 3200, 4799, 4800, 5599, 9999]
    assert [settings.batch_at(n) for n in edges] == [32, 32, 16, 16, 8, 8, 8]


def settings_with(run_dir, **values):
    """Settings of a training that nobody runs."""
    numbers = {field.name: 1 for field in dataclasses.fields(Settings)}
    return Settings(**{**numbers, "run_dir": run_dir, **values})


def test_a_configuration_stays_as_it_was_given(tmp_path):
    cfg = config("model=pggan", "rtil=vanilla", f"run_dir={tmp_path / 'run'}", "total_nimg=24")
    before = OmegaConf.to_container(cfg, resolve=False)
    train.train(cfg)
    assert OmegaConf.to_container(cfg, resolve=False) == before
    content = checkpoint.load(checkpoint.latest(tmp_path / "run"))
    saved = yaml.safe_load((tmp_path / "run" / "config.yaml").read_text())
    assert saved == content["config"]
    assert saved["model"]["phase_nimg"] == saved["model"]["generator"]["phase_nimg"] == [8, 8, 8]
    assert saved["image_channels"] == saved["model"]["discriminator"]["image_channels"] == 1
    assert saved["run_dir"] == str(tmp_path / "run") and saved["images_found"] == 64


def test_real_images_are_cropped_flipped_and_shrunk_as_asked():
    G = instantiate(
        {
            "_target_": "rtil.models.pggan.PGGANGenerator",
            "resolution": 8,
            "channels": {4: 2, 8: 2},
            "image_channels": 1,
            "z_dim": 4,
            "phase_nimg": [8, 8],
        }
    )
    images = torch.arange(4 * 10 * 10).reshape(4, 1, 10, 10).remainder(251).byte()
    rng = torch.Generator().manual_seed(0)
    x = loop.prepare(images, 8, G, False, Draws(rng, 4))
    G.progress(0)
    small = loop.prepare(images, 8, G, False, Draws(torch.Generator().manual_seed(0), 4))
    torch.testing.assert_close(small, torch.nn.functional.avg_pool2d(x, 2))
    full = images.float() / 127.5 - 1
    places = [
        [
            (full[b, 0, i : i + 8, j : j + 8] - x[b, 0]).abs().max() < 1e-6
            for i in range(3)
            for j in range(3)
        ]
        for b in range(4)
    ]
    assert all(sum(p) == 1 for p in places)
    G.progress(99)
    same = images[:, :, :8, :8]
    mirrored = loop.prepare(same, 8, G, True, Draws(rng, 4))
    straight = same.float() / 127.5 - 1
    flipped = [torch.equal(m, s.flip(2)) for m, s in zip(mirrored, straight)]
    kept = [torch.equal(m, s) for m, s in zip(mirrored, straight)]
    assert all(a != b for a, b in zip(flipped, kept))


def stepped(nets, family, step):
    """Weights of G and D after one step."""
    record = replay.Recorder([step.draws.rng], False)
    loop.d_step(nets, family, step, record)
    loop.g_step(nets, family, step, record)
    return [p.detach() for network in nets[:2] for p in network.parameters()]


def test_g_learns_from_the_images_of_d_where_they_are_reused(pggan, discriminator):
    """As published, by plain gradient descent and in a few lines: images of all members first,
    then D's step, then G's on the same images."""
    real = torch.randn((4, 1, 16, 16), generator=seeded("cpu", "real")).double()
    family, objective, lr = multicode([1, 3], block=2), WGANGP([1, 1]), 0.01

    def networks():
        G, D = pggan(16), discriminator("pggan", 16)
        optims = [torch.optim.SGD(network.parameters(), lr) for network in (G, D)]
        return loop.Nets(G, D, None, objective, *optims)

    def draws(name):
        return Draws(seeded("cpu", name), 4)

    fakes = Fakes(draws("unseeded"), seed_of("fakes"))
    reused = stepped(networks(), family, Step(0, real, draws("step"), UNMIXED, fakes))
    anew = stepped(networks(), family, Step(0, real, draws("step"), UNMIXED))

    G, D = networks()[:2]
    of_fakes, of_step = seeded("cpu", "nothing"), draws("step")
    of_fakes.manual_seed(seed_of("fakes"))
    images = [space.synthesize(G, space.sample(G, 4, of_fakes)) for space in family.spaces]
    loss = objective.real(D(real)).mean()
    for image in images:
        fake = image.detach()
        loss = loss + D(fake).mean() / 2
        loss = loss + objective.gradient_penalty(D, real, fake, of_step).mean() / 2
    parameters = list(D.parameters())
    grads = torch.autograd.grad(loss, parameters, allow_unused=True)
    with torch.no_grad():
        for p, grad in zip(parameters, grads):
            p -= 0 if grad is None else lr * grad
    loss = -sum(D(image).mean() for image in images) / 2
    grads = torch.autograd.grad(loss, list(G.parameters()), allow_unused=True)
    expected = [p if g is None else p - lr * g for p, g in zip(G.parameters(), grads)]
    expected = [p.detach() for p in (*expected, *D.parameters())]
    for a, b in zip(reused, expected, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-10, atol=1e-10)
    assert not all(torch.allclose(a, b) for a, b in zip(anew, expected))


@pytest.mark.parametrize(
    ("model", "rtil"),
    [("pggan", "mgan"), ("stylegan2", "mgan_mixture"), ("stylegan2", "ilo_mixture")],
)
@pytest.mark.parametrize("reuse", [True, False])
def test_d_and_g_share_latents_where_fakes_are_reused(tmp_path, monkeypatch, model, rtil, reuse):
    drawn, latents = [], Step.latents

    def watched(*args):
        drawn.append(latents(*args))
        return drawn[-1]

    monkeypatch.setattr(Step, "latents", watched)
    choice = [f"model={model}", f"rtil={rtil}", "total_nimg=24"]
    run(tmp_path / "run", *choice, f"model.reuse_fakes={reuse}")
    spaces = 2 if rtil == "mgan" else 1
    of_d = [drawn[i + k] for i in range(0, len(drawn), 2 * spaces) for k in range(spaces)]
    of_g = [one for one in drawn if not any(one is other for other in of_d)]
    assert len(of_d) == len(of_g) == 3 * spaces
    for a, b in zip(of_d, of_g):
        assert torch.equal(a.w, b.w) == reuse
        for x, y in ((a.noise, b.noise), (a.add, b.add), (a.alpha, b.alpha)):
            if reuse:
                assert_equal_trees(x, y)
    firsts = [one.w.flatten()[0].item() for one in of_d]
    assert len({*firsts}) == len(firsts)


def test_a_signal_within_a_step_ends_with_a_checkpoint_that_training_goes_on_from(
    tmp_path, monkeypatch
):
    average, steps = loop.average, []

    def signalled(*given):
        steps.append(average(*given))
        if len(steps) == 2:
            os.kill(os.getpid(), signal.SIGTERM)

    monkeypatch.setattr(loop, "average", signalled)
    parts, whole = tmp_path / "parts", tmp_path / "whole"
    assert train.train(config(f"run_dir={parts}", "total_nimg=32")) == signal.SIGTERM
    assert checkpoint.load(checkpoint.latest(parts))["step"] == len(steps) == 2
    run(parts, "total_nimg=32")
    run(whole, "total_nimg=32")
    assert_equal_trees(weights(whole), weights(parts))


@pytest.mark.slow  # starts a process; sweeps have a law of the exit code
@pytest.mark.parametrize("kind", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_writes_a_checkpoint_and_the_same_command_goes_on(tmp_path, kind):
    args = [
        "rtil.train",
        *TINY,
        f"run_dir={tmp_path / 'run'}",
        "total_nimg=4000",
        "checkpoint_every=100000",
        "log_every=1",
    ]
    process = command(*args)
    log = tmp_path / "run" / "log.jsonl"
    while process.poll() is None and not (log.exists() and log.stat().st_size):
        time.sleep(0.1)
    process.send_signal(kind)
    output = process.communicate(timeout=300)[0]
    assert process.returncode == 128 + kind, output
    stopped = checkpoint.load(checkpoint.latest(tmp_path / "run"))["nimg"]
    assert 0 < stopped < 4000
    run(tmp_path / "run", f"total_nimg={stopped + 8}", "checkpoint_every=100000", "log_every=1")
    run(tmp_path / "whole", f"total_nimg={stopped + 8}", "checkpoint_every=100000")
    assert_equal_trees(weights(tmp_path / "whole"), weights(tmp_path / "run"))


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        (("resolution=24",), "24 is not a power of two"),
        (("scale.stylegan2.channels=4:8",), "no table of whole numbers"),
        (("batch=0",), "batch=0"),
        (("batch=many",), "batch=many must be a whole number"),
        (("total_nimg=0",), "total_nimg=0"),
        (("scale.depths=[0,9]",), "depth=9"),
        (("rtil.family.weights=[1]",), "weights"),
        (("rtil.family.sigma=-1",), "sigma=-1"),
        (("rtil=mgan", "rtil.family.fade_in=last"), "fade_in=last is of a generator that grows"),
        (("model=pggan", "rtil=vanilla", "model.phase_nimg=[1,2]"), "phase_nimg"),
        (("model=pggan", "rtil=vanilla", "batch=[8,8]"), "growing phases"),
        (("batch=[8,8,8]",), "nothing grows"),
        (("model=pggan", "rtil=vanilla", "model.phase_nimg=slow"), "phase_nimg=slow must be grow"),
        (("image_channels=2",), "image_channels=2"),
        (("data=folder",), "data.path"),
        (("data=folder", "data.path=nowhere"), "nowhere"),
        (("data.num_train=4",), "4 images"),
        (("hardware.device=tpu",), "tpu"),
        (("hardware.precision=fp16",), "hardware.precision='fp16' must be fp32 or bf16"),
        (("hardware.ops=fast",), "ops='fast' must be one of auto, cuda, reference"),
        (("hardware.ops=cuda",), "hardware.ops=cuda, but on the CPU"),
    ],
)
def test_bad_settings_are_refused_before_a_directory_is_made(tmp_path, overrides, words):
    with pytest.raises((ValueError, FileNotFoundError, RuntimeError), match=words):
        train.train(config("root=" + str(tmp_path), *overrides))
    assert not list(tmp_path.iterdir())


def test_a_directory_of_another_run_is_refused_by_key(tmp_path):
    run(tmp_path / "run", "total_nimg=8")
    before = (tmp_path / "run" / "config.yaml").read_bytes()
    with pytest.raises(ValueError, match=r"model\.lr: 0\.002 there, 0\.01 here"):
        run(tmp_path / "run", "model.lr=0.01")
    assert (tmp_path / "run" / "config.yaml").read_bytes() == before


def test_training_images_may_move_and_do_not_change(tmp_path):
    faces, choice = (
        tmp_path / "faces",
        ("data=folder", "data.num_train=8", "data.num_val=2", "data.num_test=2"),
    )
    faces.mkdir()
    for i in range(12):
        Image.new("L", (16, 16), 20 * i).save(faces / f"{i:02d}.bmp")
    run(tmp_path / "run", *choice, f"data.path={faces}", "total_nimg=8")
    moved = faces.rename(tmp_path / "moved")
    run(tmp_path / "run", *choice, f"data.path={moved}", "total_nimg=16")
    for path in moved.iterdir():  # of equal sizes
        Image.new("L", (16, 16), 5).save(path)
    with pytest.raises(ValueError, match=r"split_files: '8 files(?s:.*)data\.path"):
        run(tmp_path / "run", *choice, f"data.path={moved}", "total_nimg=24")


def test_a_loss_that_is_not_finite_stops_and_the_last_checkpoint_stays(tmp_path, monkeypatch):
    choice = ("rtil=ilo", "checkpoint_every=8", "log_every=1")
    run(tmp_path / "run", *choice, "total_nimg=16")
    path = checkpoint.latest(tmp_path / "run")
    sample = Additive.sample

    def poisoned(self, *args):
        latents = sample(self, *args)
        if self.depth == 2:
            latents.add[2][0] = float("nan")
        return latents

    monkeypatch.setattr(Additive, "sample", poisoned)
    words = r"D/fake G\^2 of member G\^2 is nan at step 2"
    with pytest.raises(RuntimeError, match=words):
        run(tmp_path / "run", *choice, "total_nimg=64")
    assert checkpoint.latest(tmp_path / "run") == path


def test_terms_name_what_is_not_finite():
    terms = Terms()
    terms.add(7, "D/fake family", torch.tensor([1.0, 2.0]), ("G^0", "G^1"))
    terms.add(8, "D/fake family", torch.tensor([3.0, float("nan")]), ("G^0", "G^1"))
    with pytest.raises(RuntimeError, match=r"D/fake family of member G\^1 is nan at step 8"):
        terms.report()
    terms = Terms()
    terms.add(7, "D/real", torch.tensor([1.0, 2.0]))
    terms.add(8, "D/real", torch.tensor([3.0, 6.0]))
    assert terms.report() == {"D/real": 3.0}
    assert terms.report() == {}


def test_a_disk_that_fills_while_samples_are_written_names_their_picture(tmp_path, monkeypatch):
    def full(images, path, nrow):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("torchvision.utils.save_image", full)
    with pytest.raises(OSError, match=r"No space left on device: '.*samples-.*\.png'"):
        run(tmp_path / "run", "total_nimg=16")


def test_a_full_disk_leaves_the_previous_checkpoint(tmp_path, monkeypatch):
    run(tmp_path / "run", "total_nimg=16")
    path = checkpoint.latest(tmp_path / "run")
    before = path.read_bytes()

    def full(content, file):
        file.write(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(torch, "save", full)
    with pytest.raises(RuntimeError, match="No space left"):
        run(tmp_path / "run", "total_nimg=32")
    monkeypatch.undo()
    assert checkpoint.latest(tmp_path / "run") == path and path.read_bytes() == before
    assert not list((tmp_path / "run").glob(".*tmp*"))
    run(tmp_path / "run", "total_nimg=32")
    assert checkpoint.load(checkpoint.latest(tmp_path / "run"))["nimg"] == 32


def test_a_truncated_checkpoint_is_named(tmp_path):
    run(tmp_path / "run", "total_nimg=16")
    path = checkpoint.latest(tmp_path / "run")
    path.write_bytes(path.read_bytes()[:1000])
    with pytest.raises(ValueError, match=path.name):
        run(tmp_path / "run", "total_nimg=32")


def test_only_the_newest_checkpoints_are_kept_and_records_are_complete(tmp_path):
    run_dir = run(tmp_path / "run", "total_nimg=48", "checkpoint_every=8", "log_every=2")
    names = sorted(p.name for p in run_dir.glob("checkpoint-*.pt"))
    assert names == ["checkpoint-0000000040.pt", "checkpoint-0000000048.pt"]
    rows = [json.loads(line) for line in (run_dir / "log.jsonl").read_text().splitlines()]
    assert [row["nimg"] for row in rows] == [8, 16, 24, 32, 40, 48]
    assert all(row["images_per_second"] > 0 and row["peak_memory_mb"] > 0 for row in rows)
    assert {"D/real", "G/loss G^0", "G/loss G^2", "D/fake G^1"} <= rows[-1].keys()
    saved = yaml.safe_load((run_dir / "config.yaml").read_text())
    assert saved["image_channels"] == 1 and saved["rtil"]["family"]["depths"] == [0, 1, 2]
    record = json.loads((run_dir / "provenance.json").read_text())
    assert record["torch"] == torch.__version__ and record["ops"]
    assert list((run_dir / "tensorboard").iterdir())


def test_sample_grid_has_a_row_for_every_member(tmp_path):
    run_dir = run(tmp_path / "run", "rtil=ilo_mixture", "total_nimg=8")
    image = Image.open(run_dir / "samples-0000000008.png")
    assert image.size == (8 * 66 + 2, 3 * 66 + 2)  # 8 columns, G^0 .. G^2, padding of 2


class ByHand(replay.Recorder):
    """A recorder whose graphs run the recorded part again: what it closed over stays."""

    replays: ClassVar[list[int]] = []

    def __init__(self, rngs, enabled):
        super().__init__(rngs, False)
        self.enabled = True

    def run(self, part):
        return part()

    def record(self, part):
        noted = []

        class Graph:
            def replay(self):
                ByHand.replays.append(1)
                for place, (_, values, _) in zip(noted, part(), strict=True):
                    place[1].copy_(values)

        states = [rng.get_state() for rng in self.rngs]
        # On copies of all but the draws: recording computes nothing.
        memo = {id(rng): rng for rng in self.rngs}
        cells = [
            types.CellType(copy.deepcopy(cell.cell_contents, memo)) for cell in part.__closure__
        ]
        dry = types.FunctionType(part.__code__, part.__globals__, closure=tuple(cells))
        noted += dry()
        for rng, state in zip(self.rngs, states, strict=True):
            rng.set_state(state)
        return Graph(), noted


@pytest.mark.parametrize(
    ("model", "rtil", "more"),
    [
        *(pytest.param(*arm, (), marks=pytest.mark.slow) for arm in ARMS[:-2]),
        (*ARMS[-2], ("model.reuse_fakes=true",)),  # the mixture of codes
        *(pytest.param(*arm, (), marks=pytest.mark.slow) for arm in ARMS[-2:]),
    ],
)
def test_what_a_recorded_part_is_known_by_decides_what_it_computes(
    tmp_path, monkeypatch, model, rtil, more
):
    choice = [f"model={model}", f"rtil={rtil}", "total_nimg=240", "log_every=1", *more]
    if model == "stylegan2":
        choice += ["model.objective.r1_every=3", "model.objective.path_every=2"]
    run(tmp_path / "plain", *choice)
    monkeypatch.setattr(loop, "Recorder", ByHand)
    ByHand.replays.clear()
    run(tmp_path / "recorded", *choice)
    assert len(ByHand.replays) > 20
    assert_equal_trees(weights(tmp_path / "plain"), weights(tmp_path / "recorded"))
    plain, recorded = (
        [json.loads(line) for line in (tmp_path / name / "log.jsonl").open()]
        for name in ("plain", "recorded")
    )
    measured = {"images_per_second", "peak_memory_mb", "seconds"}
    for a, b in zip(plain, recorded, strict=True):
        assert {k: v for k, v in a.items() if k not in measured} == {
            k: v for k, v in b.items() if k not in measured
        }
