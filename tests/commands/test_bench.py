"""The arithmetic of the benchmarks; its figures are checked by running it."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from conftest import KARRAS

from benchmarks import bench, flops, memory, setting, stopwatch, timing, training
from benchmarks.baseline.pggan import PGGANDiscriminator
from benchmarks.record import Record, Row
from benchmarks.timing import Ratio, alternate, ratio_of
from rtil.process.device import Runtime
from rtil.process.instantiate import instantiate

ROOT = Path(__file__).parents[2]
CPU = Runtime(torch.device("cpu"), 0, 1, torch.channels_last)


def test_ratio_is_of_medians_and_its_spread_of_pairs():
    assert ratio_of([2.0, 9.0, 4.0], [1.0, 2.0, 4.0]) == Ratio(2.0, 1.0, 4.5, 3)
    with pytest.raises(ValueError, match="each round"):
        ratio_of([1.0], [1.0, 2.0])


def test_cases_take_turns_in_every_round():
    seen = []
    found = alternate({n: lambda r, n=n: seen.append((n, r)) or r for n in "ab"}, 2)
    assert seen == [("a", 0), ("b", 0), ("a", 1), ("b", 1)] and found == {"a": [0, 1], "b": [0, 1]}


def test_operations_of_one_convolution_by_hand_and_by_counting():
    layer = flops.conv(3, 8, 3, size=4)
    assert layer == (2 * 3 * 8 * 9 * 16, 3 * 16 + 8 * 16, 3 * 8 * 9)
    # Three passes on two images: read and write 4-byte numbers of either, the weights once a pass.
    assert flops.cost([layer], 2, 3) == (3 * 2 * 6912, 3 * 4 * (2 * 176 + 216))
    x, weight = torch.randn(1, 3, 4, 4), torch.randn(8, 3, 3, 3)
    assert flops.counted(lambda: F.conv2d(x, weight, padding=1)) == layer.flops
    half = flops.conv(3, 8, 3, size=2, stride=2)
    assert half.activations == 3 * 16 + 8 * 4
    assert flops.counted(lambda: F.conv2d(x, weight, stride=2, padding=1)) == half.flops
    up = flops.conv(3, 8, 3, size=4, stride=-2)
    assert up.activations == 3 * 16 + 8 * 64
    transposed = weight.transpose(0, 1)
    assert flops.counted(lambda: F.conv_transpose2d(x, transposed, stride=2)) == up.flops
    assert flops.counted(lambda: torch.randn(5, 7) @ torch.randn(7, 6)) == 5 * 7 * 6 * 2


@pytest.mark.parametrize("model", ["stylegan2", "pggan"])
def test_layers_are_those_that_a_forward_pass_runs(model):
    """Exactly for PGGAN; StyleGAN2 runs filters besides, which no count of the needed holds."""
    cfg = setting.config(model, "vanilla", 64)
    G = setting.twin(setting.generator(cfg, CPU), cfg, "generator")
    D = setting.twin(instantiate(cfg["model"]["discriminator"]), cfg, "discriminator")
    z, image = torch.randn(1, G.z_dim), torch.randn(1, 3, 64, 64)
    if model == "stylegan2":
        layers = flops.stylegan2(cfg["model"])
        generator, most = layers.mapping + layers.generator(), 1.08
        noise = [torch.randn(1, 1, size, size) for size in G.noise_sizes]
        ran = flops.counted(lambda: G(G.map(z), noise))
    else:
        layers = flops.pggan(cfg["model"])
        generator, most = layers.head(2) + layers.tail(2), 1.0
        ran = flops.counted(lambda: G([z], [torch.ones(1, 1)], 2))
    assert 1.0 <= ran / flops.cost(generator, 1, 1).flops <= most
    ran = flops.counted(lambda: D(image))
    assert 1.0 <= ran / flops.cost(layers.discriminator, 1, 1).flops <= most


@pytest.mark.parametrize("choices", [{}, KARRAS, {"first_convs": 3}])
def test_layers_of_every_pggan_are_those_that_a_forward_pass_runs(choices):
    cfg = setting.config("pggan", "vanilla", 16)
    cfg["model"]["generator"] |= choices
    G, layers = setting.generator(cfg, CPU), flops.pggan(cfg["model"])
    ran = flops.counted(lambda: G(torch.randn(1, G.z_dim)))
    assert ran == flops.cost(layers.head(2) + layers.tail(2), 1, 1).flops


def test_gradient_penalty_costs_six_forward_passes():
    D = PGGANDiscriminator(32, {4: 64, 8: 64, 16: 32, 32: 32}, 3)
    x = torch.randn(4, 3, 32, 32, requires_grad=True)

    def penalty():
        (grad,) = torch.autograd.grad(D(x).sum(), x, create_graph=True)
        grad.square().sum().backward()

    forward = flops.counted(lambda: D(x))
    assert flops.counted(penalty) == pytest.approx(flops.PENALTY * forward, rel=0.03)


def test_an_ilo_stage_needs_no_block_before_its_start():
    layers = flops.stylegan2(setting.config("stylegan2", "vanilla", 64)["model"])
    costs = [flops.ilo_step(layers, 1, k).flops for k in range(4)]
    assert costs == sorted(costs, reverse=True) and len(set(costs)) == 4
    skipped = sum(layer.flops for layer in layers.blocks[1])
    assert costs[0] - costs[1] == pytest.approx(2 * skipped)


def test_a_mixture_of_one_member_costs_what_its_family_costs():
    layers = flops.pggan(setting.config("pggan", "mgan", 64)["model"])
    one = flops.pggan_mixture_step(layers, 4, [10], 2)
    assert one == pytest.approx(flops.pggan_step(layers, 4, [10], 2))
    mean = flops.pggan_mixture_step(layers, 4, [1, 10, 20], 2)
    assert mean.flops < 0.4 * flops.pggan_step(layers, 4, [1, 10, 20], 2).flops


def test_stopwatch_tells_the_stages_apart(monkeypatch):
    # Iterates of a stage of 3 steps and one of 2, 1 s a step, then 10 s a step.
    moments = iter([0.0, 5.0, 6.0, 7.0, 100.0, 150.0, 160.0])
    monkeypatch.setattr(stopwatch.time, "perf_counter", lambda: next(moments))
    watch = stopwatch.Stopwatch([3, 2], torch.device("cpu"))
    for _ in range(7):
        watch(None)
    assert watch.seconds() == [1.0, 10.0]
    monkeypatch.undo()
    watch(None)
    with pytest.raises(RuntimeError, match="8 iterates"):
        watch.seconds()


def test_penalties_enter_a_mean_step_with_their_share():
    class Steps:
        every, turns = {"r1": 16, "path": 4}, 2

        def prepare(self, raw):
            return raw

        def d_step(self, real, step, turn):
            return 17.0 + turn if step == 0 else 1.0 + turn  # R1 costs 16

        def g_step(self, real, step, turn):
            return 10.0 if step == 0 else 2.0  # the path penalty costs 8

        def follow(self):
            return 0.5

    def clock(work):
        value = work()
        return value if isinstance(value, float) else 0.0

    parts = training.mean_step(Steps(), torch.zeros(1), clock, 0)
    assert parts["d"] == 1.5 and parts["g"] == 2.0 and parts["average"] == 0.5
    assert parts["r1"] == (17.0 - 1.5) / 16 and parts["path"] == 2.0
    known = training.mean_step(Steps(), torch.zeros(1), clock, 0, {"r1": 9.0})
    assert known == {"prepare": 0.0, "d": 1.5, "g": 2.0, "r1": 9.0, "average": 0.5}


def test_line_gives_the_slope_and_the_largest_departure():
    assert memory.line([1, 2, 4], [12.0, 14.0, 18.0]) == pytest.approx((2.0, 10.0, 0.0))
    slope, _, away = memory.line([0, 1, 2], [0.0, 4.0, 2.0])
    assert slope == 1.0 and away == pytest.approx(1.0)


def row(value=3.0, reach=">= 2.5", **settings):
    ratio = Ratio(value, 2.0, 4.0, 5)
    return Row("train", "images/s", "straightforward", ratio, reach, **settings)


def test_a_row_is_met_on_the_right_side_of_its_reach():
    assert row(2.5).met and not row(2.4).met
    assert row(1.15, "<= 1.15").met and not row(1.16, "<= 1.15").met
    assert row(reach=None).met is None
    assert Row("g", "r", "a", None, ">= 1", error="boom").met is None
    with pytest.raises(ValueError, match="must begin"):
        assert row(reach="about 3").met


def test_every_row_is_on_disk_before_the_next_is_measured(tmp_path):
    path = tmp_path / "bench.json"

    def measure(count):
        def unit():
            assert len(json.loads(path.read_text())["rows"]) == count
            if count == 1:
                raise RuntimeError("no memory")
            return [row()]

        return unit

    def units(chosen):
        return [(f"unit {i}", measure(i)) for i in range(3)]

    record = Record(path, {"device": "a CPU"})
    assert bench.run(bench.chosen({"train": units}, None, None), None, record) == 1
    written = json.loads(path.read_text())
    assert written["device"] == "a CPU"
    assert [r["error"] for r in written["rows"]] == [None, "RuntimeError: no memory", None]
    assert written["rows"][0]["ratio"] == {"median": 3.0, "low": 2.0, "high": 4.0, "pairs": 5}
    assert [r["met"] for r in written["rows"]] == [True, None, True]
    assert not list(tmp_path.glob(".*"))
    table = record.table().splitlines()
    assert table[0].split("|")[0].strip() == "row" and len(table) == 5
    assert "3 x (2-4, n = 5)" in table[2] and table[2].endswith("yes")
    assert "failed: RuntimeError: no memory" in table[3]


def test_straightforward_network_of_a_configuration_draws_rtils_image():
    cfg = setting.config("pggan", "vanilla", 16)
    G = setting.generator(cfg, CPU)
    g, z = setting.twin(G, cfg, "generator"), torch.randn(2, G.z_dim)
    assert all(p.is_contiguous() for p in g.parameters())
    one = torch.ones(2, 1)
    torch.testing.assert_close(g([z], [one], 1), G(z), rtol=1e-4, atol=1e-4)


def test_straightforward_network_of_another_pggan_is_refused():
    cfg = setting.config("pggan", "vanilla", 16)
    cfg["model"]["generator"] |= KARRAS
    with pytest.raises(ValueError, match=r"PGGANGenerator is the published one .* upsample;"):
        setting.twin(setting.generator(cfg, CPU), cfg, "generator")


def test_other_processes_share_is_unknown_without_proc(monkeypatch, tmp_path):
    monkeypatch.setattr(timing.Others, "PROC", tmp_path)
    with timing.Others() as others:
        pass
    assert others.share is None


@pytest.mark.skipif(not Path("/proc/stat").exists(), reason="no /proc")
def test_a_child_that_still_runs_is_not_another_process():
    code = (
        "import sys, time\n"
        "while time.process_time() < 0.3: pass\n"
        "print(flush=True)\n"
        "sys.stdin.read()"
    )
    before = timing.Others().used()
    with subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as child:
        child.stdout.readline()
        assert timing.Others().used()[2] - before[2] > 0.25
        child.stdin.close()


@pytest.mark.slow
def test_rehearsal_measures_every_row(tmp_path):
    out = tmp_path / "bench.json"
    command = [sys.executable, "-m", "benchmarks", "--quick", "--out", str(out)]
    # One thread: two that wait for each other on a busy machine take four times as long.
    done = subprocess.run(
        [*command, "--device", "cpu", "--threads", "1"], capture_output=True, text=True, cwd=ROOT
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    record = json.loads(out.read_text())
    assert record["quick"] and record["threads"] == 1
    assert record["commit"] or not (ROOT / ".git").exists()
    groups = {r["group"] for r in record["rows"]}
    assert groups == {"peak", "train", "ilo", "mgan", "memory", "start", "load"}
    for r in record["rows"]:
        # Memory of the rehearsal's batches is less than what a process's memory varies by.
        assert r["error"] is None and (r["group"] == "memory" or r["ratio"]["median"] > 0)
        assert r["ratio"]["low"] <= r["ratio"]["median"] <= r["ratio"]["high"] or (
            r["ratio"]["pairs"] == 2  # a ratio of medians may leave the range of two pairs
        )
    reaches = {r["reach"] for r in record["rows"]}
    assert reaches >= {"<= 1.15", "<= 0.4", ">= 2.5", ">= 10", ">= 4", ">= 2", ">= 0.6", "<= 1"}


def test_a_record_names_no_folder_of_the_machine(monkeypatch, tmp_path):
    """Its figures are kept beside the code."""
    out = str(tmp_path / "bench.json")
    monkeypatch.setattr(sys, "argv", ["/home/me/benchmarks/__main__.py", "--out", out])
    made = bench.environment(setting.Setting(CPU, (16,), 2, True, {}))
    assert made["command"] == ["__main__.py", "--out", "bench.json"]
