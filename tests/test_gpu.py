"""What only a CUDA device can show: `bash scripts/test.sh -m gpu` on a machine that has one."""

import pytest
import torch
from hydra import compose, initialize_config_dir

from rtil import checkpoint, invert, results, train
from rtil.runtime import CONFIGS

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device"),
]
ARMS = [("stylegan2", "ilo_mixture", "ilo"), ("pggan", "mgan_mixture", "mgan")]


def run(entry, *overrides):
    overrides = ["scale=tiny", "hardware=gpu", *overrides]
    with initialize_config_dir(CONFIGS, version_base="1.3"):
        cfg = compose(entry, overrides)
    return {"train": train.train, "invert": invert.invert}[entry](cfg, overrides)


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize(("model", "rtil", "inverter"), ARMS)
def test_training_resumes_and_inversion_scores_on_the_gpu(
    tmp_path, model, rtil, inverter, precision
):
    if precision == "bf16" and torch.cuda.get_device_capability()[0] < 8:
        pytest.skip("this GPU has no bfloat16 arithmetic")
    choice = [f"model={model}", f"rtil={rtil}", f"root={tmp_path}", "data.num_train=64",
              f"hardware.precision={precision}"]
    if model == "pggan":
        choice.append("model.phase_nimg=[16,16,32]")
    for total in (24, 64):
        run("train", *choice, f"total_nimg={total}")
    (run_dir,) = (tmp_path / "train").iterdir()
    assert checkpoint.load(checkpoint.latest(run_dir))["nimg"] == 64
    done = run("invert", *choice, f"inverter={inverter}", "num_images=2")
    rows = results.result_rows(done)
    assert len(rows) == 2 and all(row["oracle_psnr_db"] >= row["psnr_db"] - 1e-4 for row in rows)


@pytest.mark.parametrize("kind", ["stylegan2", "pggan"])
def test_generators_draw_the_same_image_as_on_the_cpu(request, kind):
    G = request.getfixturevalue(kind)(32)
    z = torch.randn(3, G.z_dim, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    expected = G(z)
    found = G.to("cuda", memory_format=torch.channels_last)(z.cuda())
    torch.testing.assert_close(found.cpu(), expected, rtol=1e-9, atol=1e-9)
