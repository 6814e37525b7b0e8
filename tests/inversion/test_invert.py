"""The inversion entry point: rows, resuming, what is refused, and that no truth leaks in."""

import json
import math
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from hydra import compose, initialize_config_dir
from PIL import Image

from rtil import checkpoint, invert, report, train
from rtil.data.base import to_float
from rtil.data.load import load_data
from rtil.inversion import setup
from rtil.inverters import lmmse
from rtil.inverters.ilo import ILO
from rtil.inverters.lmmse import GaussianPrior
from rtil.metrics.intervals import mean_ci
from rtil.process.command import CONFIGS
from rtil.runs import rows as jsonl

COMMON = ("scale=tiny", "hardware=cpu", "hardware.threads=1")


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """Tiny generators of every arm, trained once."""
    root = tmp_path_factory.mktemp("runs")
    arms = [
        ("stylegan2", "vanilla"),
        ("stylegan2", "ilo"),
        ("pggan", "vanilla"),
        ("pggan", "mgan"),
    ]
    for model, rtil in arms:
        with initialize_config_dir(CONFIGS, version_base="1.3"):
            cfg = compose(
                "train",
                [
                    *COMMON,
                    f"model={model}",
                    f"rtil={rtil}",
                    f"root={root}",
                    "total_nimg=16",
                    "data.num_train=64",
                ],
            )
        train.train(cfg)
    for path in (root / "train").iterdir():  # same name as without the short data set
        path.rename(path.with_name(path.name.split(",")[0]))
    return root


def run(root, *overrides, add=("yardstick.num_train=40",)):
    common = [*COMMON, "data.num_train=64", "image_seed=null", f"root={root}"]
    overrides = [*common, *overrides, *add]
    with initialize_config_dir(CONFIGS, version_base="1.3"):
        cfg = compose("invert", overrides)
    return invert.invert(cfg, overrides)


METHODS = [
    ("stylegan2", "ilo", "ilo"),
    ("stylegan2", "vanilla", "ilo"),
    ("stylegan2", "ilo", "csgm"),
    ("pggan", "mgan", "mgan"),
    ("pggan", "vanilla", "mgan"),
    ("pggan", "mgan", "ilo"),
    ("stylegan2", "vanilla", "lmmse"),
]
PAPER = [("cs", "ratio=0.2"), ("inpainting", "ratio=0.3"), ("sr", "factor=4")]
NOISY = [("deblur", "blur_std=1"), ("denoise", "noise_std=0.2")]


@pytest.mark.parametrize(
    ("model", "rtil", "inverter", "task"),
    [
        *((*method, PAPER[0]) for method in METHODS),
        *((*method, task) for task in PAPER[1:] for method in METHODS[::3]),
        *(
            pytest.param(*method, task, marks=pytest.mark.slow)
            for task in PAPER[1:]
            for method in METHODS
            if method not in METHODS[::3]
        ),
        *(
            pytest.param(*method, task, marks=pytest.mark.slow)
            for task in NOISY
            for method in METHODS[::3]
        ),
        *(("stylegan2", "vanilla", name, PAPER[0]) for name in ("tv", "adjoint")),
        *(
            pytest.param("stylegan2", "vanilla", name, NOISY[0], marks=pytest.mark.slow)
            for name in ("tv", "adjoint")
        ),
    ],
)
def test_every_method_and_task_writes_a_row_per_image(root, tmp_path, model, rtil, inverter, task):
    run_dir = run(
        root,
        f"model={model}",
        f"rtil={rtil}",
        f"inverter={inverter}",
        f"task={task[0]}",
        task[1],
        f"run_dir={tmp_path / 'run'}",
        "num_images=2",
    )
    rows = jsonl.read(run_dir / "results.jsonl")
    assert [row["id"] for row in rows] == ["000000", "000001"]
    for row in rows:
        assert row["oracle_psnr_db"] >= max(row["psnr_db"], row["last_psnr_db"]) - 1e-5
        assert row["loss"] <= row["last_loss"] + 1e-12 and row["seconds"] > 0
        assert -1 <= row["ssim"] <= 1 and row["lpips"] is None
        assert math.isfinite(row["lmmse_psnr_db"])
        if inverter == "lmmse":
            assert row["psnr_db"] == row["lmmse_psnr_db"]
    saved = {p.name for p in (run_dir / "images").iterdir()}
    for suffix in ("", "-original", "-measurement", "-lmmse"):
        assert f"000001{suffix}.png" in saved


@pytest.mark.parametrize(
    ("model", "rtil", "inverter"),
    [
        ("stylegan2", "ilo", "ilo"),
        ("stylegan2", "ilo", "csgm"),
        ("pggan", "mgan", "mgan"),
    ],
)
def test_phase_retrieval_is_inverted_without_a_linear_yardstick(
    root, tmp_path, caplog, model, rtil, inverter
):
    run_dir = run(
        root,
        f"model={model}",
        f"rtil={rtil}",
        f"inverter={inverter}",
        "task=phase_retrieval",
        "ratio=1.5",
        f"run_dir={tmp_path / 'run'}",
        "num_images=2",
        "inversion_batch=1",
    )
    for row in jsonl.read(run_dir / "results.jsonl"):
        assert row["lmmse_psnr_db"] is row["lmmse_ssim"] is None
        assert row["loss"] > 0 and math.isfinite(row["psnr_db"])
    said = [r.message for r in caplog.records if "No LMMSE yardstick" in r.message]
    assert len(said) == 1 and "PhaseRetrieval is not linear" in said[0]
    saved = {p.name for p in (run_dir / "images").iterdir()}
    assert "000001-measurement.png" in saved and "000001-lmmse.png" not in saved


def test_scores_are_those_of_the_saved_pictures(root, tmp_path):
    run_dir = run(root, f"run_dir={tmp_path / 'run'}", "num_images=1", "ratio=0.5")
    row = jsonl.read(run_dir / "results.jsonl")[0]
    a, b = (
        np.asarray(Image.open(run_dir / "images" / f"000000{s}.png").convert("L")) / 255
        for s in ("", "-original")
    )
    assert -10 * np.log10(np.mean((a - b) ** 2)) == pytest.approx(row["psnr_db"], abs=0.05)


def test_memory_that_runs_out_halves_the_batch_and_changes_no_row(
    root, tmp_path, monkeypatch, caplog
):
    settings = ("num_images=5", "inversion_batch=4")
    plenty = run(root, *settings, f"run_dir={tmp_path / 'plenty'}")
    right, sizes = ILO.invert, []

    def short(self, G, A, y, *rest, **more):
        sizes.append(len(y))
        if len(y) > 2:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return right(self, G, A, y, *rest, **more)

    monkeypatch.setattr(ILO, "invert", short)
    scarce = run(root, *settings, f"run_dir={tmp_path / 'scarce'}")
    assert sizes == [4, 2, 2, 1] and "trying 2" in caplog.text
    for a, b in zip(*(jsonl.read(d / "results.jsonl") for d in (plenty, scarce))):
        assert a["id"] == b["id"]
        for key in ("psnr_db", "oracle_psnr_db", "ssim", "loss", "last_loss", "lmmse_psnr_db"):
            assert a[key] == pytest.approx(b[key], rel=1e-4)
    monkeypatch.setattr(ILO, "invert", lambda *given, **more: torch.empty(2**60))
    with pytest.raises(RuntimeError, match="DefaultCPUAllocator"):
        run(root, *settings, f"run_dir={tmp_path / 'none'}")


def test_stopped_and_resumed_gives_the_rows_of_an_uninterrupted_run(root, tmp_path):
    settings = ("num_images=5", "inversion_batch=2", "noise_std=0.05")
    whole = run(root, *settings, f"run_dir={tmp_path / 'whole'}")
    parts = run(root, "num_images=2", *settings[1:], f"run_dir={tmp_path / 'parts'}")
    with open(parts / "results.jsonl", "a") as file:
        file.write('{"id": "000002", "psnr')  # cut off while writing
    run(root, *settings, f"run_dir={tmp_path / 'parts'}")
    a, b = (jsonl.read(d / "results.jsonl") for d in (whole, parts))
    assert [r["id"] for r in a] == [r["id"] for r in b] == [f"{i:06d}" for i in range(5)]
    for x, y in zip(a, b):
        assert x["psnr_db"] == pytest.approx(y["psnr_db"], abs=1e-3)


def test_the_batch_size_has_no_effect_on_results(root, tmp_path):
    one, many = (
        jsonl.read(
            run(root, f"inversion_batch={n}", f"run_dir={tmp_path / str(n)}", "num_images=3")
            / "results.jsonl"
        )
        for n in (1, 3)
    )
    for x, y in zip(one, many):
        for key in ("psnr_db", "ssim", "loss", "lmmse_psnr_db"):
            assert x[key] == pytest.approx(y[key], rel=1e-3), key


def test_the_true_image_reaches_no_inverter(root, tmp_path, monkeypatch):
    """Two images with equal measurements give equal reconstructions."""
    from rtil.operators import inpainting

    seen = []
    method = setup.build_inverter

    class Spy:
        def __init__(self, inner):
            self.inner = inner

        needs_generator = True

        def check(self, G):
            self.inner.check(G)

        def check_operator(self, A):
            self.inner.check_operator(A)

        def invert(self, G, A, y, loss, rngs, watch=None):
            found = self.inner.invert(G, A, y, loss, rngs, watch)
            seen.append((y, found.image))
            return found

    monkeypatch.setattr(setup, "build_inverter", lambda *args: Spy(method(*args)))
    batch = load_data
    hidden = inpainting((1, 16, 16), 0.3, 0).observed.logical_not()

    class Painted:
        def __init__(self, data, value):
            self.data, self.value = data, value

        def __getattr__(self, name):
            return getattr(self.data, name)

        def __len__(self):
            return len(self.data)

        def batch(self, indices):
            images = self.data.batch(indices)
            return torch.where(hidden, torch.tensor(self.value, dtype=torch.uint8), images)

    for value in (0, 255):
        monkeypatch.setattr(setup, "load_data", lambda *a, v=value: Painted(batch(*a), v))
        run(
            root,
            "task=inpainting",
            "ratio=0.3",
            f"run_dir={tmp_path / str(value)}",
            "yardstick.use=false",
            "num_images=2",
            add=(),
        )
    (y0, x0), (y1, x1) = seen
    assert torch.equal(y0, y1) and torch.equal(x0, x1)


def test_the_yardstick_learns_from_training_images_only(root, tmp_path, monkeypatch):
    kept = []
    monkeypatch.setattr(lmmse, "GaussianPrior", lambda x: kept.append(x) or GaussianPrior(x))
    run_dir = run(root, f"run_dir={tmp_path / 'run'}", "num_images=1")
    with initialize_config_dir(CONFIGS, version_base="1.3"):
        data = compose("invert", list(COMMON)).data
    train_images = to_float(load_data(data, 16, "train").batch(range(40)))
    assert torch.equal(kept[0], train_images)
    assert jsonl.read(run_dir / "results.jsonl")[0]["lmmse_psnr_db"] > 5


def test_an_explicit_generator_brings_its_model_family_scale_and_data_along(root, tmp_path):
    path = root / "train" / "pggan-mgan-glyphs-tiny-seed0" / "generator.pt"
    overrides = [
        "hardware=cpu",
        f"generator={path}",
        "inverter=mgan",
        "num_images=1",
        f"run_dir={tmp_path / 'run'}",
        "yardstick.use=false",
    ]
    with initialize_config_dir(CONFIGS, version_base="1.3"):
        cfg = compose("invert", overrides)
    run_dir = invert.invert(cfg, overrides)
    saved = yaml.safe_load((run_dir / "config.yaml").read_text())
    assert saved["model"]["name"] == "pggan" and saved["rtil"]["name"] == "mgan"
    assert saved["scale"]["name"] == "tiny" and saved["inverter"]["steps"] == 4
    newest = checkpoint.latest(path.parent)
    G, config = checkpoint.load_generator(newest)
    H, _ = checkpoint.load_generator(path)
    z = torch.randn(2, 16)
    assert torch.equal(G(z), H(z)) and config["rtil"]["name"] == "mgan"


@pytest.mark.parametrize("words", [[], ["model=pggan_r1"]])
def test_a_pggan_r1_file_of_version_01_is_adopted(root, tmp_path, words):
    """Its scale lacks pggan_r1.r1_weight, which that model read from stylegan2's."""
    overrides = [*COMMON, "model=pggan_r1", "data.num_train=64", f"root={tmp_path}"]
    with initialize_config_dir(CONFIGS, version_base="1.3"):
        train.train(compose("train", [*overrides, "total_nimg=16"]))
    (path,) = tmp_path.glob("train/*/generator.pt")
    content = torch.load(path, weights_only=True)
    assert content["config"]["scale"].pop("pggan_r1")
    assert content["config"]["rtil"].pop("arm")
    del content["sha256"]
    torch.save(content, path := tmp_path / "old.pt")
    more = [f"generator={path}", "num_images=1", "yardstick.use=false", "inverter=csgm", *words]
    overrides = [*COMMON[1:], f"root={tmp_path}", "inverter.steps=2", *more]
    with initialize_config_dir(CONFIGS, version_base="1.3"):
        run_dir = invert.invert(compose("invert", overrides), overrides)
    saved = yaml.safe_load((run_dir / "config.yaml").read_text())
    assert saved["rtil"]["arm"] == "ilo"
    assert saved["scale"]["pggan_r1"]["r1_weight"] == saved["scale"]["stylegan2"]["r1_weight"]


def test_an_explicit_generator_brings_the_tuned_settings_of_its_family(root, tmp_path):
    path = root / "train" / "stylegan2-vanilla-glyphs-tiny-seed0" / "generator.pt"
    for given, rates in (([], (0.1, 0.1)), (["inverter.lr_style=0.3"], (0.3, 0.1))):
        overrides = [
            "hardware=cpu",
            f"generator={path}",
            "num_images=1",
            "task=sr",
            "factor=2",
            f"run_dir={tmp_path / str(len(given))}",
            "yardstick.use=false",
            *given,
        ]
        with initialize_config_dir(CONFIGS, version_base="1.3"):
            cfg = compose("invert", overrides)
        saved = yaml.safe_load((invert.invert(cfg, overrides) / "config.yaml").read_text())
        assert (saved["inverter"]["lr_style"], saved["inverter"]["lr_feature"]) == rates
        assert saved["loss"]["lpips"] == saved["scale"]["lpips"]["ilo_vanilla"]


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        (("ratio=0",), r"ratio=0 must be in \(0, 1\]"),
        (("ratio=1.4",), r"\(0, 1\]"),
        (("task=sr", "factor=3"), "factor=3"),
        (("task=sr", "factor=64"), "factor=64"),
        (("noise_std=-1",), "noise_std"),
        (("task=denoise", "noise_std=0"), "noise_std=0 must be above 0"),
        (("task=phase_retrieval", "ratio=9"), r"ratio=9 must be in \(0, 8\]"),
        *(
            (("task=phase_retrieval", f"inverter={name}"), f"{kind}: PhaseRetrieval is not linear")
            for name, kind in (("lmmse", "LMMSE"), ("tv", "TV"), ("adjoint", "Adjoint"))
        ),
        (("inverter=tv", "inverter.weight=0"), "TV: weight=0"),
        (("task=deblur", "blur_std=3"), "kernel_size=19 .* 16x16"),
        (("task=deblur", "task.kernel_size=4"), "kernel_size=4 .* odd"),
        (("task=deblur", "blur_std=wide"), "blur_std=wide must be a number"),
        (("ratio=half",), "ratio=half must be a number"),
        (("num_images=2.5",), "num_images=2.5 must be a whole number"),
        (("num_images=0",), "num_images=0"),
        (("num_images=1001",), "1001"),
        (("split=train",), "held-out"),
        (("loss.lpips=1.0",), "LPIPS compares images"),
        (("inverter.steps=[1,1,1,1,1]",), "block 4"),
        (("inverter=mgan", "inverter.block=7"), "block=7 is past the last of 3 blocks"),
        (("selection=truth",), "selection"),
        (("target_range=byte",), "target_range"),
        (("protocol=authors", "inverter=csgm"), "no inverter=csgm"),
    ],
)
def test_bad_settings_are_refused_before_a_directory_is_made(root, tmp_path, overrides, words):
    with pytest.raises(ValueError, match=words):
        run(root, f"run_dir={tmp_path / 'run'}", *overrides)
    assert not (tmp_path / "run").exists()


def test_a_generator_that_is_not_trained_yet_prints_the_command(root, tmp_path):
    words = r"python -m rtil\.train rtil=ilo_mixture .*seed=3"
    with pytest.raises(FileNotFoundError, match=words):
        run(root, "rtil=ilo_mixture", "seed=3")


def test_a_generator_of_another_model_or_family_is_refused_by_key(root):
    path = root / "train" / "stylegan2-vanilla-glyphs-tiny-seed0" / "generator.pt"
    with pytest.raises(ValueError, match=r"rtil\.name: 'vanilla' there, 'ilo' here"):
        run(root, f"generator={path}", "rtil=ilo")
    with pytest.raises(ValueError, match=r"model\.name: 'stylegan2' there, 'pggan' here"):
        run(root, f"generator={path}", "model=pggan", "rtil=vanilla")


def test_a_truncated_generator_is_named(root, tmp_path):
    whole = root / "train" / "stylegan2-ilo-glyphs-tiny-seed0" / "generator.pt"
    path = tmp_path / "cut.pt"
    path.write_bytes(whole.read_bytes()[:500])
    with pytest.raises(ValueError, match=r"cut\.pt"):
        run(root, f"generator={path}")


def test_rows_of_another_generator_are_not_mixed_in(root, tmp_path):
    other = tmp_path / "other"
    name = "stylegan2-ilo-glyphs-tiny-seed0"
    run(root, f"run_dir={tmp_path / 'run'}", "num_images=1")
    shutil.copytree(root / "train" / name, other)
    content = checkpoint.load(other / "generator.pt")
    content["G_ema"]["const"] += 1
    checkpoint.save(content, other / "generator.pt")
    with pytest.raises(ValueError, match="generator_sha256"):
        run(
            root,
            f"run_dir={tmp_path / 'run'}",
            "num_images=2",
            f"generator={other / 'generator.pt'}",
        )


def test_missing_lpips_backbone_is_named_where_asked_for(root, tmp_path, monkeypatch):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    for overrides in (
        ("metrics.lpips=true", "metrics.lpips_net=vgg"),
        ("task=inpainting", "ratio=0.6", "loss.lpips=1.0", "loss.lpips_net=vgg"),
    ):
        with pytest.raises(FileNotFoundError, match=r"vgg16-397923af\.pth"):
            run(root, *overrides)


@pytest.mark.slow  # the smallest backbone that takes 16 pixels has 138 million weights
def test_lpips_is_reported_and_used_where_its_backbone_is(root, tmp_path, monkeypatch):
    import torchvision

    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    folder = tmp_path / "hub" / "checkpoints"
    folder.mkdir(parents=True)
    torch.manual_seed(0)
    torch.save(torchvision.models.vgg16(weights=None).state_dict(), folder / "vgg16-397923af.pth")
    run_dir = run(
        root,
        "task=inpainting",
        "ratio=0.6",
        "loss.lpips=1.0",
        "loss.lpips_net=vgg",
        "metrics.lpips_net=vgg",
        f"run_dir={tmp_path / 'run'}",
        "num_images=1",
    )
    row = jsonl.read(run_dir / "results.jsonl")[0]
    assert row["lpips"] > 0 and row["lmmse_lpips"] > 0 and row["loss"] > 0


def test_summary_is_mean_and_interval_over_images(root, tmp_path, capsys):
    run_dir = run(root, f"run_dir={tmp_path / 'run'}", "num_images=3")
    values = [row["psnr_db"] for row in jsonl.result_rows(run_dir)]
    mean, half = mean_ci(values)
    printed = capsys.readouterr().out
    assert f"PSNR: {mean:.3f} +- {half:.3f} dB  (95 % CI, n = 3)" in printed
    assert "oracle" in printed and "LMMSE" in printed


@pytest.mark.parametrize(
    ("oracle", "label"),
    [("oracle", "selection=oracle"), ("authors", "selection=authors (oracle)")],
)
def test_what_an_oracle_selected_says_so_in_rows_pictures_summary_and_report(
    oracle, label, root, tmp_path, capsys
):
    rows, pictures, printed = {}, {}, {}
    for name in ("best", oracle):
        run_dir = run(
            root,
            "num_images=2",
            f"selection={name}",
            f"run_dir={tmp_path / 'invert' / 'arm' / name}",
        )
        rows[name], printed[name] = jsonl.result_rows(run_dir), capsys.readouterr().out
        pictures[name] = {p.name for p in (run_dir / "images").iterdir()}
    for a, b in zip(rows["best"], rows[oracle]):
        assert (a["selection"], b["selection"]) == ("best", oracle)
        if oracle == "oracle":
            assert b["psnr_db"] == pytest.approx(b["oracle_psnr_db"], abs=1e-4)
        for key in ("last_psnr_db", "last_loss", "oracle_psnr_db"):  # the inverter knows nothing
            assert a[key] == b[key]
    assert "000000.png" in pictures["best"] and "000000-oracle.png" in pictures[oracle]
    assert "000000.png" not in pictures[oracle]
    assert "oracle PSNR:" in printed[oracle] and "oracle PSNR:" not in printed["best"]
    assert "\n  SSIM:" in printed["best"] and "\n  SSIM:" not in printed[oracle]
    with initialize_config_dir(CONFIGS, version_base="1.3"):
        page = report.report(compose("report", [f"root={tmp_path}"])).read_text()
    table = json.loads((tmp_path / "report" / "table.json").read_text())
    labels = {r["label"]: r["psnr_db"]["mean"] for r in table if "n" in r}
    assert set(labels) == {"ilo, selection=best", f"ilo, {label}"}
    assert f">ilo, {label}</th>" in page and "<td>ilo</td>" not in page


def test_a_directory_of_one_protocol_is_refused_to_another(root, tmp_path):
    where = f"run_dir={tmp_path / 'run'}"
    run(root, "num_images=1", where)
    with pytest.raises(ValueError, match="other settings") as error:
        run(root, "num_images=2", where, "protocol=authors")
    for key in ("inverter.keep_rgb", "selection", "target_range", "task.scale"):
        assert key in str(error.value)


def test_an_explicit_generator_brings_the_protocols_settings_of_its_family(root, tmp_path):
    path = root / "train" / "pggan-mgan-glyphs-tiny-seed0" / "generator.pt"
    overrides = [
        "hardware=cpu",
        f"generator={path}",
        "inverter=mgan",
        "num_images=1",
        "protocol=authors",
        f"run_dir={tmp_path / 'run'}",
        "yardstick.use=false",
    ]
    with initialize_config_dir(CONFIGS, version_base="1.3"):
        cfg = compose("invert", overrides)
    saved = yaml.safe_load((invert.invert(cfg, overrides) / "config.yaml").read_text())
    assert (saved["inverter"]["lr_code"], saved["selection"]) == (0.05, "authors")


def test_processes_share_the_images(root, tmp_path):
    """Rank 1 of 2 takes every other image and writes its own file, which all ranks read back."""
    run_dir = run(root, f"run_dir={tmp_path / 'run'}", "num_images=2")
    rows = (run_dir / "results.jsonl").read_text().splitlines()
    (run_dir / "results.jsonl").write_text(rows[0] + "\n")
    (run_dir / "results-1.jsonl").write_text(rows[1] + "\n")
    run(root, f"run_dir={tmp_path / 'run'}", "num_images=3")
    main = [json.loads(line)["id"] for line in (run_dir / "results.jsonl").open()]
    assert main == ["000000", "000002"]
    assert len(jsonl.result_rows(Path(run_dir))) == 3


def test_more_images_are_those_of_fewer_and_others_and_a_seed_is_another_run(root):
    def ids(count, *words):
        words = ("inverter=adjoint", "yardstick.use=false", "pictures=false", *words)
        run_dir = run(root, f"num_images={count}", *words, add=())
        return run_dir, {row["id"] for row in jsonl.read(run_dir / "results.jsonl")}

    place, few = ids(3, "image_seed=5")
    same, more = ids(6, "image_seed=5")
    assert same == place and few < more and len(more) == 6
    other, others = ids(6, "image_seed=6")
    assert other != place and others != more
