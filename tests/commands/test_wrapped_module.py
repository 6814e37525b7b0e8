"""Modules of the user's in the commands, as docs/wrapped.md says."""

import importlib.util
import json
import re
import shlex
import shutil
import sys
from pathlib import Path

import pytest
import torch
from helpers.commands import composed
from omegaconf import OmegaConf

import rtil
from rtil import checkpoint, diagnose, invert, report, train
from rtil.importers.module import import_module
from rtil.importers.setup import Choices
from rtil.inverters.csgm import CSGM
from rtil.inverters.data_term import MeasurementLoss
from rtil.inverters.ilo import ILO
from rtil.models.dcgan import DCGAN
from rtil.operators.identity import Identity
from rtil.process import instantiate
from rtil.process.rng import seeded
from rtil.runs.commands import commands
from rtil.runs.run import collect

PAGE = (Path(__file__).parents[2] / "docs" / "wrapped.md").read_text().replace("\\\n", " ")
SMALL = ["hardware=cpu", "hardware.threads=1", "total_nimg=16", "batch=8", "checkpoint_every=8"]
FEW = ["hardware=cpu", "hardware.threads=1", "num_images=2", "yardstick.use=false"]
STEPS = {
    "ilo": ["inverter.steps=[2,2,2]", "inverter.fit_samples=100"],
    "csgm": ["inverter.steps=3"],
    "mgan": ["inverter.steps=3", "inverter.num_codes=3"],
}


def blocks(language):
    return re.findall(rf"```{language}\n(.*?)```", PAGE, re.DOTALL)


def words_of(command):
    """The overrides of the first line of the page that runs a command on the decoder."""
    lines = [line for block in blocks("sh") for line in block.splitlines()]
    line = next(line for line in lines if line.startswith(f"python {command}"))
    return [word for word in shlex.split(line) if "=" in word]


@pytest.fixture
def decoder(tmp_path, monkeypatch):
    """The page's module where Python finds it, as it lies beside who runs a command."""
    (text,) = [block for block in blocks("python") if "class Decoder" in block]
    (tmp_path / "decoder.py").write_text(text)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setattr(instantiate, "_named", set())
    yield
    sys.modules.pop("decoder", None)


def trained(root, *words):
    own = [*words_of("-m rtil.train"), *SMALL, f"root={root}", *words]
    train.train(composed("train", *own).copy())
    (run_dir,) = (root / "train").iterdir()
    return run_dir


def inverted(root, *words):
    overrides = [*FEW, f"root={root}", *words]
    run_dir = invert.invert(composed("invert", *overrides).copy(), overrides)
    return [json.loads(line) for line in (run_dir / "results.jsonl").read_text().splitlines()]


# Training and inversion


@pytest.mark.parametrize(
    ("family", "inverter"), [("ilo", "ilo"), ("mgan", "mgan"), ("vanilla", "csgm")]
)
@pytest.mark.slow
def test_the_pages_module_is_trained_and_inverted_with_every_family(
    tmp_path, decoder, family, inverter
):
    run_dir = trained(tmp_path, f"rtil={family}")
    content = checkpoint.load(checkpoint.latest(run_dir))
    name = "module.up1.2.running_var"
    assert torch.equal(content["G_ema"][name], content["G"][name])
    assert (content["G_ema"][name] != 1).all()  # what they begin with
    moved = content["G_ema"]["module.first.weight"] != content["G"]["module.first.weight"]
    assert moved.any()
    own = words_of("-m rtil.invert")
    rows = inverted(tmp_path, *own, f"rtil={family}", f"inverter={inverter}", *STEPS[inverter])
    assert len(rows) == 2 and all(row["psnr_db"] > 0 for row in rows)


def test_a_training_with_running_statistics_goes_on_as_if_it_had_not_stopped(tmp_path, decoder):
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    run_dir = trained(whole)
    trained(parts, "total_nimg=8")
    resumed = trained(parts)
    at_once, stopped = (
        checkpoint.load(folder / "generator.pt")["G_ema"] for folder in (run_dir, resumed)
    )
    assert all(torch.equal(value, stopped[name]) for name, value in at_once.items())


def test_what_may_be_typed_after_a_training_names_its_class(tmp_path, decoder, capsys):
    """A file that names one is refused where the command does not."""
    trained(tmp_path, "total_nimg=8", "rtil=vanilla")
    *_, inversion, diagnosis = capsys.readouterr().out.splitlines()
    for line in (inversion, diagnosis):
        assert 'modules=["decoder.Decoder"]' in shlex.split(line)
    _, _, _, *words = shlex.split(inversion)
    assert inverted(tmp_path, *words, "inverter=csgm", *STEPS["csgm"])


def test_averaged_generators_have_what_modules_keep_beside_weights(tmp_path, decoder):
    """Spectral normalisation divides by what its vectors say of the weights that they are of."""
    text = (tmp_path / "decoder.py").read_text()
    layer = "nn.Conv2d(width, 1, 3, padding=1)"
    spectral = f"nn.utils.parametrizations.spectral_norm({layer})"
    (tmp_path / "decoder.py").write_text(text.replace(layer, spectral))
    content = checkpoint.load(checkpoint.latest(trained(tmp_path)))
    name = "module.draw.parametrizations.weight.0._u"
    assert torch.equal(content["G_ema"][name], content["G"][name])


def test_other_objectives_train_it(tmp_path, decoder):
    words = ["model.objective._target_=rtil.objectives.wgan_gp.WGANGP"]
    words += [f"~model.objective.{name}" for name in ("r1_weight", "r1_every", "path_weight")]
    run_dir = trained(tmp_path, *words)
    log = [json.loads(line) for line in (run_dir / "log.jsonl").read_text().splitlines()]
    assert any("gradient penalty" in key or "D/" in key for key in log[-1])


@pytest.mark.slow
def test_reports_and_diagnoses_show_it_where_it_is_named(tmp_path, decoder, monkeypatch):
    file = tmp_path / "file.pt"
    shutil.copy(trained(tmp_path) / "generator.pt", file)
    inverted(tmp_path, f"generator={file}", "modules=[decoder.Decoder]", *STEPS["ilo"])
    monkeypatch.setattr(instantiate, "_named", set())
    for modules, noted in (([], True), (["decoder.Decoder"], False)):
        cfg = OmegaConf.merge(composed("report", f"root={tmp_path}"), {"modules": modules})
        page = report.report(cfg).read_text()
        assert ("No samples of" in page and "modules=[" in page) == noted
    words = [*words_of("-m rtil.invert"), f"root={tmp_path}", "hardware=cpu", "num_images=2"]
    words += ["num_samples=16", "dims=4", "bootstrap=2", "stage_steps=2"]
    folder = diagnose.diagnose(composed("diagnose", *words).copy(), words)
    assert any(folder.iterdir())
    # What fills the table names the module and its arguments, as a run of a file did not.
    (run,) = collect(tmp_path)[0]
    line, *_ = commands(run, "vanilla", [])
    train.train(composed("train", *shlex.split(line)[3:], *SMALL).copy())


# What files may name


def test_a_file_names_no_class_that_the_command_does_not(tmp_path, decoder):
    file = tmp_path / "file.pt"
    shutil.copy(trained(tmp_path) / "generator.pt", file)
    instantiate._named.clear()
    sys.modules.pop("decoder")
    with pytest.raises(ValueError, match=r"'decoder.Decoder' is not a class.*modules=\["):
        inverted(tmp_path / "a", f"generator={file}", *STEPS["ilo"])
    with pytest.raises(ValueError, match=r"'decoder.Decoder' is not a class"):
        inverted(tmp_path / "a", f"generator={file}", "modules=[decoder.Other]", *STEPS["ilo"])
    with pytest.raises(ValueError, match=r"'decoder.Decoder' is not a class"):
        rtil.load_generator(file)
    assert "decoder" not in sys.modules  # not even imported
    rows = inverted(tmp_path, f"generator={file}", "modules=[decoder.Decoder]", *STEPS["ilo"])
    assert len(rows) == 2
    instantiate._named.clear()
    G, _ = rtil.load_generator(file, modules=["decoder.Decoder"])
    assert type(G.module).__name__ == "Decoder"


@pytest.mark.parametrize(
    ("word", "why"),
    [
        ("model.module._target_=no_such_package.Class", "No module named 'no_such_package'"),
        ("model.module._target_=decoder.Encoder", "_target_=decoder.Encoder cannot be imported"),
        ("model.module._target_=decoder.torch.pi", "and no class or function"),
        ("~model.module.width", "missing 1 required positional argument: 'width'"),
        ("model.cuts=[up1,up9]", "Decoder has no submodule up9; it has first, up1"),
        ("resolution=16", "draws 32 pixels a side and resolution=16"),
        ("data.channels=3", "draws 1 colour channels and the images have 3"),
        ("model.latent=[8]", r"draws nothing from a latent of shape \[8\]"),
    ],
)
def test_a_module_that_cannot_be_used_is_refused_before_anything_is_written(
    tmp_path, decoder, word, why
):
    own = [*words_of("-m rtil.train"), *SMALL, f"root={tmp_path / 'runs'}", word]
    with pytest.raises(ValueError, match=why):
        train.train(composed("train", *own).copy())
    assert not (tmp_path / "runs").exists()


def test_a_generator_that_is_not_there_is_asked_for_with_a_command_that_makes_it(
    tmp_path, decoder
):
    with pytest.raises(FileNotFoundError) as error:
        inverted(tmp_path, *words_of("-m rtil.invert"), *STEPS["ilo"])
    line = next(line for line in str(error.value).splitlines() if "rtil.train" in line)
    words = shlex.split(line)[3:]
    train.train(composed("train", *words, *SMALL).copy())
    assert len(inverted(tmp_path, *words_of("-m rtil.invert"), *STEPS["ilo"])) == 2


# Weights of other programs


def weights_file(path, decoder_class, wrap=lambda state: state, seed=0):
    torch.manual_seed(seed)
    module = decoder_class(16).eval()
    module.up1[2].running_mean.normal_()
    torch.save(wrap(module.state_dict()), path)
    return module


@pytest.mark.parametrize(
    ("wrap", "part"),
    [
        (lambda state: state, "the whole file"),
        (lambda state: {"epoch": 3, "G": {"state": state}}, "G.state"),
        (lambda state: {"net": {f"module.{k}": v for k, v in state.items()}}, "net, module.*"),
        (
            lambda state: (
                {"encoder.up1.1.weight": torch.ones(2)}
                | {f"vae.decoder.{k}": v for k, v in state.items()}
            ),
            "the whole file, vae.decoder.*",
        ),
        (
            lambda state: {"G_ema": state, "G": {k: 2 * v for k, v in state.items()}},
            "G_ema",
        ),
    ],
)
@pytest.mark.slow
def test_weights_are_found_wherever_they_lie_and_draw_what_they_drew(
    tmp_path, decoder, wrap, part
):
    from decoder import Decoder

    module = weights_file(tmp_path / "weights.pt", Decoder, wrap)
    words = words_of("scripts/import_checkpoint.py")
    lines = import_module(tmp_path / "weights.pt", tmp_path / "generator.pt", words)
    assert f"({part})" in lines[0]
    G, config = rtil.load_generator(tmp_path / "generator.pt", modules=["decoder.Decoder"])
    z = torch.randn(3, 32, generator=torch.Generator().manual_seed(1))
    assert torch.equal(G(z), 2 * module(z) - 1)
    assert config["resolution"] == 32 and config["scale"]["name"] == "demo"
    file = tmp_path / "generator.pt"
    named = (f"generator={file}", "modules=[decoder.Decoder]", "data=glyphs")
    assert len(inverted(tmp_path, *named, *STEPS["ilo"])) == 2


def test_training_goes_on_from_imported_weights(tmp_path, decoder):
    from decoder import Decoder

    module = weights_file(tmp_path / "weights.pt", Decoder)
    file = tmp_path / "generator.pt"
    import_module(tmp_path / "weights.pt", file, words_of("scripts/import_checkpoint.py"))
    run_dir = trained(tmp_path, f"init={file}", "init_d_nimg=8")
    weights = checkpoint.load(run_dir / "generator.pt")["G_ema"]
    change = (weights["module.first.weight"] - module.first.weight).abs().max()
    assert 0 < change < 0.01
    with pytest.raises(ValueError, match=r"does not fit what is trained: model\.generator\.cuts"):
        trained(tmp_path, f"init={file}", "model.cuts=[up1,up2]")


def test_weights_that_do_not_fit_are_refused_and_nothing_is_written(tmp_path, decoder):
    from decoder import Decoder

    words = words_of("scripts/import_checkpoint.py")
    out = tmp_path / "generator.pt"
    weights_file(tmp_path / "weights.pt", Decoder, lambda s: {"G": s, "H": s})
    with pytest.raises(ValueError, match=r"weights of Decoder 2 times, in \[G, H\]"):
        import_module(tmp_path / "weights.pt", out, words)
    weights_file(tmp_path / "weights.pt", lambda width: Decoder(8))
    with pytest.raises(ValueError, match=r"first.weight is \[512, 32\] and not \[1024, 32\]"):
        import_module(tmp_path / "weights.pt", out, words)
    torch.save([1, 2], tmp_path / "weights.pt")
    with pytest.raises(ValueError, match="holds no weights of Decoder; it holds"):
        import_module(tmp_path / "weights.pt", out, words)
    with pytest.raises(ValueError, match="--rtil, --scale and --data"):
        import_module(tmp_path / "weights.pt", out, [*words, "rtil=ilo"])
    with pytest.raises(ValueError, match="import: rtil=nothing must be one of"):
        import_module(tmp_path / "weights.pt", out, words, Choices(rtil="nothing"))
    assert not out.exists()


# The trained faces of gan-face-generate


@pytest.fixture(scope="module")
def faces(tmp_path_factory):
    """The package's own generator and ours of the same file, both trained."""
    pytest.importorskip("gan_face_generate", reason="pip install --no-deps gan-face-generate")
    from gan_face_generate.models import Generator

    folder = Path(importlib.util.find_spec("gan_face_generate").submodule_search_locations[0])
    words = ["model.module._target_=gan_face_generate.models.Generator"]
    words += [f"+model.module.{name}" for name in ("ngpu=0", "nc=3", "nz=100", "ngf=64")]
    out = tmp_path_factory.mktemp("faces") / "faces.pt"
    import_module(folder / "weights.tar", out, words)
    module = Generator(0, 3, 100, 64).eval()
    content = torch.load(folder / "weights.tar", weights_only=True, map_location="cpu")
    module.load_state_dict(content["netG_state_dict"])
    own = DCGAN()
    own.load_state_dict(content["netG_state_dict"])
    return module, own.eval(), rtil.load_generator(out)[0]


def test_the_packaged_faces_are_drawn_as_their_package_draws_them(faces):
    module, own, G = faces
    z = torch.randn(2, 100, generator=torch.Generator().manual_seed(0))
    want = module(z.view(2, 100, 1, 1)).detach()
    assert torch.equal(G(z), want) and torch.equal(own(z.view(2, 100, 1, 1)), want)
    assert want.std() > 0.3  # a trained one: an untrained one draws grey


def test_depth_reaches_faces_that_the_latent_alone_does_not(faces):
    """A drawn face, mirrored and shifted by hand: off the range of G, as real faces are."""
    _, _, G = faces
    z = torch.randn(1, 100, generator=torch.Generator().manual_seed(5))
    y = G(z).roll((3, -2), (2, 3)).flip(3)
    A = Identity(G.image_shape)
    loss = MeasurementLoss(A)
    csgm, ilo = CSGM(steps=100, restarts=1), ILO((40, 20, 20, 20), depth=3)
    errors = [
        inverter.invert(G, A, y, loss, [seeded("cpu", "faces")]).loss.item()
        for inverter in (csgm, ilo)
    ]
    assert errors[1] < 0.3 * errors[0]


# Decoders of diffusers


def test_a_decoder_of_diffusers_draws_what_its_autoencoder_decodes(tmp_path, monkeypatch):
    diffusers = pytest.importorskip("diffusers", reason="pip install 'rtil[diffusers]'")
    torch.manual_seed(0)
    size = {"block_out_channels": (8, 16), "layers_per_block": 1, "norm_num_groups": 4}
    vae = diffusers.AutoencoderKL(
        **size,
        down_block_types=("DownEncoderBlock2D",) * 2,
        up_block_types=("UpDecoderBlock2D",) * 2,
        scaling_factor=0.5,
    ).eval()
    vae.save_pretrained(tmp_path)
    words = ["model.module._target_=rtil.models.kl_decoder.KLDecoder", "model.latent=[4,8,8]"]
    words += ["+model.module.block_out_channels=[8,16]", "+model.module.layers_per_block=1"]
    words += ["+model.module.norm_num_groups=4", "+model.module.scaling_factor=0.5"]
    words += ["model.cuts=[decoder.mid_block,decoder.up_blocks.*]"]
    file, out = tmp_path / "diffusion_pytorch_model.safetensors", tmp_path / "generator.pt"
    lines = import_module(file, out, words)
    assert any("other entries beside them" in line for line in lines)  # the encoder's
    G, _ = rtil.load_generator(out)
    z = torch.randn(2, 4, 8, 8)
    with torch.no_grad():
        assert torch.equal(G(z.flatten(1)), vae.decode(z / 0.5).sample)
    assert G.shapes == {1: (16, 8, 8), 2: (16, 16, 16), 3: (8, 16, 16)}
    file.write_bytes(file.read_bytes()[:-100])
    with pytest.raises(ValueError, match="cannot be read as safetensors"):
        import_module(file, tmp_path / "other.pt", words)
