"""What only a CUDA device can show: `bash scripts/test.sh -m gpu` on a machine that has one."""

import json

import pytest
import torch
from hydra import compose, initialize_config_dir

from rtil import checkpoint, invert, train
from rtil.inverters.data_term import MeasurementLoss
from rtil.inverters.ilo import ILO
from rtil.inverters.multicode import MGANPrior
from rtil.operators.circulant import partial_circulant
from rtil.operators.downsample import Downsample
from rtil.operators.mask import inpainting
from rtil.process import replay
from rtil.process.command import CONFIGS
from rtil.process.rng import seeded
from rtil.runs import rows as jsonl

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device"),
]
ARMS = [("stylegan2", "ilo_mixture", "ilo"), ("pggan", "mgan_mixture", "mgan")]


def run(entry, *overrides):
    overrides = ["scale=tiny", "hardware=gpu", *overrides]
    with initialize_config_dir(CONFIGS, version_base="1.3"):
        cfg = compose(entry, overrides)
    return train.train(cfg) if entry == "train" else invert.invert(cfg, overrides)


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize(("model", "rtil", "inverter"), ARMS)
def test_training_resumes_and_inversion_scores_on_the_gpu(
    tmp_path, model, rtil, inverter, precision
):
    if precision == "bf16" and torch.cuda.get_device_capability()[0] < 8:
        pytest.skip("this GPU has no bfloat16 arithmetic")
    choice = [
        f"model={model}",
        f"rtil={rtil}",
        f"root={tmp_path}",
        "data.num_train=64",
        f"hardware.precision={precision}",
    ]
    if model == "pggan":
        choice.append("model.phase_nimg=[16,16,32]")
    for total in (24, 64):
        run("train", *choice, f"total_nimg={total}")
    (run_dir,) = (tmp_path / "train").iterdir()
    assert checkpoint.load(checkpoint.latest(run_dir))["nimg"] == 64
    done = run("invert", *choice, f"inverter={inverter}", "num_images=2")
    rows = jsonl.result_rows(done)
    assert len(rows) == 2 and all(row["oracle_psnr_db"] >= row["psnr_db"] - 1e-4 for row in rows)


@pytest.mark.parametrize("kind", ["stylegan2", "pggan"])
def test_generators_draw_the_same_image_as_on_the_cpu(request, kind):
    G = request.getfixturevalue(kind)(32)
    z = torch.randn(3, G.z_dim, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    expected = G(z)
    found = G.to("cuda", memory_format=torch.channels_last)(z.cuda())
    torch.testing.assert_close(found.cpu(), expected, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("precision", [None, torch.bfloat16])
@pytest.mark.parametrize("task", ["cs", "sr", "inpainting"])
@pytest.mark.parametrize("kind", ["stylegan2", "pggan"])
def test_replayed_steps_are_those_started_one_by_one(request, kind, task, precision, caplog):
    if precision and torch.cuda.get_device_capability()[0] < 8:
        pytest.skip("this GPU has no bfloat16 arithmetic")
    G = request.getfixturevalue(kind)(32).float().requires_grad_(False)
    G = G.to("cuda", memory_format=torch.channels_last)
    G.map_dtype = precision
    A = {
        "cs": partial_circulant(G.image_shape, 0.2),
        "sr": Downsample(G.image_shape, 2),
        "inpainting": inpainting(G.image_shape, 0.3),
    }[task].to("cuda")
    x = torch.rand(3, *G.image_shape, generator=seeded("cpu", "x")).cuda() * 2 - 1
    inverter = (
        ILO(steps=[25, 25], lr_feature=0.1, fit_samples=1000)
        if kind == "stylegan2"
        else MGANPrior(num_codes=2, block=2, steps=40)
    )
    found, seen = [], []
    for enabled in (False, True):
        replay.set_graphs(enabled)
        shown = []
        rngs = [seeded("cpu", name) for name in "abc"]
        found.append(
            inverter.invert(
                G,
                A,
                A(x),
                MeasurementLoss(A).to("cuda"),
                rngs,
                watch=lambda image, shown=shown: shown.append(image.mean()),
            )
        )
        seen.append(torch.stack(shown).cpu())
    assert "cannot be recorded" not in caplog.text
    tolerance = 1e-3 if precision is None else 0.05  # rounding, amplified by the steps
    a, b = found
    assert a.starts == b.starts and a.history.shape == b.history.shape
    torch.testing.assert_close(b.history[:5], a.history[:5], rtol=tolerance, atol=1e-5)
    torch.testing.assert_close(b.loss.cpu(), b.history.amin(0))
    torch.testing.assert_close(b.history.amin(0), a.history.amin(0), rtol=0.1, atol=1e-4)
    torch.testing.assert_close(seen[1][:5], seen[0][:5], rtol=tolerance, atol=1e-3)


def test_a_step_that_cannot_be_recorded_is_run_as_it_is(caplog):
    replay.set_graphs(True)
    x = torch.zeros(3, device="cuda")

    def step():
        x.add_(1.0)
        assert x.sum().item() > 0  # waits for the device
        return x

    shown = [float(value[0]) for value in replay.repeated(step, 30, True)]
    assert shown == [float(n) for n in range(1, 31)]
    assert "cannot be recorded" in caplog.text and not replay.wanted(x.device, 100)
    replay.set_graphs(True)
    assert float(x[0]) == 30.0 and replay.wanted(x.device, 100)


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize(
    ("model", "rtil", "augment"),
    [
        ("stylegan2", "ilo_mixture", ()),
        ("stylegan2", "ilo", ()),
        ("pggan", "mgan_mixture", ()),
        # p grows, whatever D says, and recorded steps read it.
        ("stylegan2", "ilo_mixture", ("augment=ada", "augment.target=-1", "augment.speed=400")),
    ],
)
def test_replayed_training_is_training_started_kernel_by_kernel(
    tmp_path, caplog, model, rtil, augment, precision
):
    if precision == "bf16" and torch.cuda.get_device_capability()[0] < 8:
        pytest.skip("this GPU has no bfloat16 arithmetic")
    choice = [
        f"model={model}",
        f"rtil={rtil}",
        *augment,
        "data.num_train=64",
        "total_nimg=400",
        "log_every=1",
        f"hardware.precision={precision}",
        "hardware.tf32=false",
    ]
    if model == "stylegan2":
        choice += ["model.objective.r1_every=3", "model.objective.path_every=2"]
    else:  # it grows: what was recorded at a smaller size must go
        choice.append("model.phase_nimg=[120,160,120]")
    rows, weights = [], []
    for on in (False, True):
        root = tmp_path / str(on)
        run("train", *choice, f"root={root}", f"hardware.cuda_graphs={on}")
        (run_dir,) = (root / "train").iterdir()
        rows.append([json.loads(line) for line in (run_dir / "log.jsonl").open()])
        content = checkpoint.load(checkpoint.latest(run_dir))
        weights.append({key: content[key] for key in ("G", "D", "G_ema", "objective")})
    assert "cannot be recorded" not in caplog.text
    assert len(rows[0]) == len(rows[1]) == 50
    for i, (a, b) in enumerate(zip(*rows)):
        assert a.keys() == b.keys()
        loose = 0.05 * 2 ** (i / 8) if precision == "bf16" else 1e-4 * 2 ** (i / 4)  # it grows
        for key in a.keys() - {"images_per_second", "peak_memory_mb", "seconds"}:
            assert b[key] == pytest.approx(a[key], rel=loose, abs=loose), (i, key)
    for part in weights[0]:
        for key, a in weights[0][part].items():
            b = weights[1][part][key]
            assert float((a - b).norm()) <= 0.1 * float(a.norm()) + 0.1, (part, key)


def test_a_part_that_cannot_be_recorded_says_how_to_train_without():
    replay.set_graphs(True)
    run_part = replay.Recorder([seeded("cuda", "draws")], True)
    x = torch.ones(4, device="cuda")

    def part():
        assert x.sum().item() == 4  # waits for the device
        return [("x", x, ())]

    for _ in range(replay.WARM):
        run_part(None, "part", part)
    with pytest.raises(RuntimeError, match=r"part cannot be recorded|hardware.cuda_graphs=false"):
        run_part(None, "part", part)
    torch.cuda.synchronize()


def test_replayed_draws_are_those_of_the_seed_and_place():
    replay.set_graphs(True)
    found = []
    for enabled in (False, True):
        rng = seeded("cuda", "draws")
        run_part = replay.Recorder([rng], enabled)

        def part(rng=rng):
            a = torch.randn(1000, generator=rng, device="cuda")
            return [("a", a * torch.rand(1000, generator=rng, device="cuda"), ())]

        drawn = []
        for step in range(8):
            rng.manual_seed(step // 2)  # the second one goes on where the first one ended
            torch.rand(7, generator=rng, device="cuda")
            drawn += [run_part(None, "part", part)[0][1] for _ in range(2)]
        found.append(torch.stack(drawn))
    assert torch.equal(*found)
