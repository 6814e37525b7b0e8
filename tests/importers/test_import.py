"""Other projects' files: what fits draws the same images, and what does not is named."""

import importlib.util
import math
import sys
import time
from functools import partial
from pathlib import Path

import foreign as foreign_files
import pytest
import torch
from foreign import Karras, Net, genforce, genforce_pggan, nvlabs, pggan, rosinality
from hydra import compose, initialize_config_dir

from rtil import checkpoint, invert
from rtil.importers import conversion, layout
from rtil.importers.setup import Choices, configuration
from rtil.models.pggan import PGGANGenerator
from rtil.models.stylegan2 import StyleGAN2Generator
from rtil.process.command import CONFIGS
from rtil.process.instantiate import instantiate
from rtil.runs import rows as jsonl

STYLEGAN2 = ["authors", "rosinality", "nvlabs", "genforce", "genforce_training", "mganprior"]
PGGAN = ["authors_pggan", "genforce_pggan", "mganprior_pggan"]
KINDS = [*STYLEGAN2, *PGGAN]


@pytest.fixture
def write(tmp_path):
    """Writes a net in a layout (tests/foreign.py) into the test's folder."""
    return partial(foreign_files.write, tmp_path)


def imported(path, **choices):
    out = path.with_name("generator.pt")
    lines = conversion.import_file(path, out, choices=Choices(**choices), force=True)
    return checkpoint.load_generator(out), lines


@pytest.mark.parametrize("kind", STYLEGAN2)
def test_one_network_in_every_layout_becomes_the_same_generator(write, kind):
    net = Net()
    (G, config), _ = imported(write(kind, net))
    assert isinstance(G, StyleGAN2Generator) and config["resolution"] == 16
    first = G.blocks[1].up
    assert torch.equal(first.conv.weight, net.convs[1][0]["weight"])
    reference = conversion.recognise(write("rosinality", net)).weights()
    for name, value in G.state_dict().items():
        torch.testing.assert_close(value, reference[name], rtol=0, atol=1e-6)


@pytest.mark.parametrize("kind", KINDS)
def test_imported_weights_draw_the_images_of_the_file(write, kind):
    foreign = conversion.recognise(write(kind))
    config = configuration(foreign.spec, Choices("vanilla", "tiny", "unknown"))
    worst, _ = conversion.difference(foreign, conversion.build(foreign.weights(), config))
    assert worst < 1e-6
    if "authors" in kind or kind == "rosinality":  # the others round, or add 1e-8 elsewhere
        assert worst < 1e-12


@pytest.mark.parametrize("kind", ["authors", "nvlabs", "genforce", *PGGAN])
def test_check_sees_a_wrong_value_in_any_weight(write, kind):
    small = {4: 3, 8: 2}
    net = Karras(small) if kind in PGGAN else Net(small)
    path = write(kind, state=pggan(small)) if kind == "authors_pggan" else write(kind, net)
    foreign = conversion.recognise(path)
    config = configuration(foreign.spec, Choices("vanilla", "tiny", "unknown"))
    weights = conversion.build(foreign.weights(), config).state_dict()
    for name, value in weights.items():
        G = instantiate(config["model"]["generator"])
        changed = value.flip(-1) if value.ndim and value.shape[-1] > 1 else value + 0.1
        G.load_state_dict({**weights, name: changed})
        with pytest.raises(ValueError, match="self check failed: images of the imported"):
            conversion.verify(foreign, G.requires_grad_(False))


def test_a_wrong_table_writes_nothing(write, monkeypatch, tmp_path):
    path, out = write("genforce"), tmp_path / "generator.pt"
    out.write_bytes(b"old")
    monkeypatch.setattr(conversion.genforce, "FLIP", layout.SAME)
    with pytest.raises(ValueError, match=r"self check failed.*Nothing was written"):
        conversion.import_file(path, out, force=True)
    assert out.read_bytes() == b"old"


def test_round_trip_through_rosinalitys_layout_is_bit_equal(write, tmp_path):
    state = rosinality(Net())
    (_, config), _ = imported(write("rosinality", state=state))
    first = tmp_path / "generator.pt"
    back = tmp_path / "back.pt"
    lines = conversion.export_file(first, back)
    assert "another channel table" in lines[-1]
    exported = torch.load(back, weights_only=True)
    assert exported["g_ema"].keys() == state.keys() and exported["latent_avg"].shape == (8,)
    for name, value in state.items():
        assert torch.equal(exported["g_ema"][name], value), name
    again = tmp_path / "again.pt"
    conversion.import_file(back, again)
    a, b = checkpoint.load(first), checkpoint.load(again)
    assert a["config"] == b["config"] == config
    assert all(torch.equal(a["G_ema"][k], b["G_ema"][k]) for k in a["G_ema"])


def test_table_of_512_channels(write, tmp_path):
    """Config F: its own class loads the export with channel_multiplier=2."""
    net = Net({4: 512, 8: 512}, z_dim=16)
    (G, _), lines = imported(write("rosinality", net))
    assert G.table == {4: 512, 8: 512} and "channels: 4:512 8:512" in lines
    assert sum(p.numel() for p in G.parameters()) > 7e6
    assert (
        "channel_multiplier="
        in conversion.export_file(tmp_path / "generator.pt", tmp_path / "back.pt")[-1]
    )


def test_report_says_what_was_found_and_writes_nothing(write, tmp_path):
    path = write("authors_pggan")
    before = set(tmp_path.iterdir())
    text = "\n".join(conversion.import_file(path, None))
    assert "PGGANGenerator in the layout of authors (g_ema)" in text
    assert "16x16 pixels, 3 colour channels, z0 of 8" in text
    assert "channels: 4:6 8:5 16:4" in text and "colour range: [-1, 1]" in text
    assert "limit 0.0001" in text and set(tmp_path.iterdir()) == before


def test_published_names_say_how_a_generator_was_trained(write, tmp_path):
    path = write("authors").rename(tmp_path / "rtil_ilo.pt")
    (_, config), lines = imported(path)
    assert config["rtil"]["name"] == "ilo" and config["data"]["name"] == "ffhq"
    assert "taken as: rtil=ilo scale=tiny data=ffhq" in lines
    config = imported(path, rtil="vanilla", data="glyphs")[0][1]
    assert config["rtil"]["name"] == "vanilla" and config["data"]["name"] == "glyphs"
    with pytest.raises(ValueError, match=r"rtil=none must be one of ilo, ilo_mixture"):
        imported(path, rtil="none")
    assert imported(path, rtil="mgan")[0][1]["rtil"]["name"] == "mgan"


def test_missing_noise_maps_are_drawn_and_said(write):
    state = {k: v for k, v in rosinality(Net()).items() if not k.startswith("noises")}
    (G, _), lines = imported(write("rosinality", state=state))
    assert "guessed: noise maps, drawn with seed 0 (the file does not say)" in lines
    assert G.noise_2.std() > 0.5


def test_unlikely_mapping_multiplier_is_warned_of(write):
    net = Net()
    assert not any("WARNING" in line for line in imported(write("rosinality", net))[1])
    net.mapping = [(weight / 100, bias) for weight, bias in net.mapping]
    assert any("multiplier" in x for x in imported(write("rosinality", net))[1] if "WARN" in x)


# What the file does not say


MULTIPLIER = "mapping multiplier 0.01"
TANH = "no tanh after the last layer"
GUESSES = {
    "authors": {MULTIPLIER},
    "rosinality": {MULTIPLIER},
    "nvlabs": set(),  # its modules say all of it
    "genforce": {MULTIPLIER, TANH},
    "genforce_training": {MULTIPLIER, TANH},
    "mganprior": {MULTIPLIER, TANH},
    "authors_pggan": {"bilinear up-sampling", TANH, "grown to its full size"},
    "genforce_pggan": {"no classes", TANH, "weights scaled when used"},
    "mganprior_pggan": set(),  # its class has no choice
}


@pytest.mark.parametrize("kind", KINDS)
def test_every_guess_is_in_the_report_and_in_the_file(write, tmp_path, kind):
    _, lines = imported(write(kind))
    guessed = checkpoint.load(tmp_path / "generator.pt")["origin"]["guessed"]
    assert {*guessed} >= GUESSES[kind] | {"rtil=vanilla", "data=unknown"}
    assert GUESSES[kind] or {*guessed} == {"rtil=vanilla", "data=unknown"}
    told = [line for line in lines if line.startswith("guessed: ")]
    assert told == [f"guessed: {guess} (the file does not say)" for guess in guessed]


def test_what_is_said_of_a_training_is_no_guess(write):
    _, lines = imported(write("nvlabs"), rtil="vanilla", data="glyphs")
    assert not any("guessed" in line for line in lines)


def test_nvlabs_tensors_without_their_modules_leave_more_to_guess(write, tmp_path):
    """Both sides of the check share the guess, so that it passes whatever the multiplier was."""
    net, path = Net(), tmp_path / "bare.pt"
    net.mapping = [(weight / 100, bias) for weight, bias in net.mapping]  # of a multiplier of 1
    torch.save({"g_ema": nvlabs(net)}, path)
    _, lines = imported(path)
    assert f"guessed: {MULTIPLIER} (the file does not say)" in lines
    assert "guessed: no clamp (the file does not say)" in lines
    assert any("WARNING: weights of the mapping have rms 1" in line for line in lines)


@pytest.mark.parametrize(("ending", "guess"), [
    (".kernel", "resampling filter [1, 3, 3, 1]"), ("noises", "noise maps, drawn with seed 0"),
])  # fmt: skip
def test_entries_that_may_be_left_out_are_guessed(write, ending, guess):
    state = {k: v for k, v in rosinality(Net()).items() if ending not in k}
    assert guess in conversion.recognise(write("rosinality", state=state)).guesses


# What does not fit


@pytest.mark.parametrize(("kind", "name", "value"), [
    ("rosinality", "style.1.weight", torch.zeros(10**12, 0)),
    ("rosinality", "style.99999999.weight", torch.zeros(8, 8)),
    ("nvlabs", "mapping.fc99999999.weight", torch.zeros(8, 8)),
    ("genforce", "synthesis.output9999999.weight", torch.zeros(3)),
    ("rosinality", "convs.0.conv.blur.kernel", torch.zeros(1000, 1000)),
    ("rosinality", "x" * 10**6, torch.zeros(1)),
])  # fmt: skip
def test_sizes_that_no_network_has_are_refused_in_a_short_message(write, kind, name, value):
    state = {"rosinality": rosinality, "nvlabs": nvlabs, "genforce": genforce}[kind](Net())
    start = time.perf_counter()
    with pytest.raises(ValueError) as error:
        imported(write(kind, state={**state, name: value}))
    assert len(str(error.value)) < 1500 and time.perf_counter() - start < 2


def broken(kind, name, value):
    state = {
        "authors": lambda: rosinality(Net()),
        "nvlabs": lambda: nvlabs(Net()),
        "genforce": lambda: genforce(Net()),
        "authors_pggan": pggan,
        "genforce_pggan": lambda: genforce_pggan(Karras()),
    }[kind]()
    if value is None:
        del state[name]
    else:
        state[name] = value
    return state


BIAS = {
    "authors": "convs.1.activate.bias",
    "nvlabs": "synthesis.b8.conv1.bias",
    "genforce": "synthesis.layer2.bias",
    "authors_pggan": "progression_8.conv.3.conv.bias",
    "genforce_pggan": "layer2.bias",
}


@pytest.mark.parametrize("kind", BIAS)
@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, r"{name} \(5,\) is missing"),
        (torch.zeros(7), r"{name} has shape \(7,\); \(5,\) fits"),
        (torch.full((5,), math.nan), "{name} holds values that are not finite"),
    ],
)
def test_entries_that_do_not_fit_are_named_with_shapes(write, kind, value, text):
    name = BIAS[kind].replace(".", r"\.")
    path = write(kind, state=broken(kind, BIAS[kind], value))
    with pytest.raises(ValueError, match=text.format(name=name)):
        imported(path)
    path = write(kind, state=broken(kind, "extra.gain", torch.zeros(2, 3)))
    with pytest.raises(ValueError, match=r"extra\.gain \(2, 3\) has no counterpart in rtil"):
        imported(path)


@pytest.mark.parametrize(
    ("kind", "name"),
    [
        ("authors", "convs.2.conv.weight"),
        ("authors", "style.1.weight"),
        ("nvlabs", "synthesis.b8.conv1.weight"),
        ("genforce", "synthesis.layer2.weight"),
        ("authors_pggan", "progression_8.conv.0.conv.weight_orig"),
        ("genforce_pggan", "layer0.weight"),
        ("genforce_pggan", "layer2.weight"),
        ("genforce_pggan", "layer3.weight"),
        ("genforce_pggan", "output0.weight"),
    ],
)
def test_entries_that_sizes_are_read_from_are_named_when_missing(write, kind, name):
    with pytest.raises(ValueError, match=name.replace(".", r"\.")):
        imported(write(kind, state=broken(kind, name, None)))


@pytest.mark.parametrize(
    ("settings", "text"),
    [
        ({"top": {"c_dim": 10}}, "conditional: c_dim=10"),
        ({"top": {"w_dim": 4}}, "z_dim=8 and w_dim=4"),
        ({"layer": {"architecture": "resnet"}}, r"synthesis\.b4: architecture=resnet; rtil has"),
        ({"layer": {"activation": "relu"}}, r"synthesis\.b8\.conv0: activation=relu"),
        ({"layer": {"use_noise": False}}, r"synthesis\.b4\.conv1: use_noise=false"),
        ({"layer": {"conv_clamp": 0.5}}, "self check failed"),
    ],
)
def test_what_nvlabs_networks_do_and_ours_do_not_is_refused(write, settings, text):
    with pytest.raises(ValueError, match=text):
        imported(write("nvlabs", **settings))


def test_a_clamp_that_is_not_reached_is_noted(write):
    _, lines = imported(write("nvlabs", layer={"conv_clamp": 1e4}))
    assert "note: layers clamp to +-10000 there and not here; the check below clamps" in lines


def test_the_mapping_multiplier_is_read_where_it_is_stored(write, tmp_path):
    (G, _), _ = imported(write("nvlabs", lr=0.02))
    assert G.mapping[0].lr == 0.02
    with pytest.raises(ValueError, match=r"mapping multiplier of 0\.02"):
        conversion.export_file(tmp_path / "generator.pt", tmp_path / "back.pt")


@pytest.mark.parametrize(
    ("kind", "name", "gain"),
    [
        ("authors", "convs.0.conv.blur.kernel", 4),
        ("authors", "to_rgbs.1.upsample.kernel", 4),
        ("nvlabs", "synthesis.b8.conv0.resample_filter", 1),
        ("genforce", "synthesis.layer1.filter.kernel", 4),
    ],
)
def test_another_resampling_filter_is_refused(write, kind, name, gain):
    state = broken(kind, name, torch.full((4, 4), gain / 16))
    with pytest.raises(ValueError, match=rf"{name}: resampling filter.*rtil has \[1, 3, 3, 1\]"):
        imported(write(kind, state=state))


@pytest.mark.parametrize("content", [{"epoch": 3}, [1], {"w": torch.zeros(2)}])
def test_a_file_without_a_generator_says_what_it_holds(tmp_path, content):
    torch.save(content, tmp_path / "a.pt")
    with pytest.raises(ValueError, match="holds no generator in the layout of authors, rosinali"):
        conversion.recognise(tmp_path / "a.pt")


def test_a_layout_that_was_asked_for_is_the_only_one_tried(write):
    path = write("nvlabs")
    assert conversion.recognise(path, "nvlabs").layout == "nvlabs"
    with pytest.raises(ValueError, match="no generator in the layout of genforce"):
        conversion.recognise(path, "genforce")
    with pytest.raises(ValueError, match="layout=tf must be auto, authors"):
        conversion.recognise(path, "tf")


def test_existing_files_are_kept_without_force(write, tmp_path):
    path, out = write("rosinality"), tmp_path / "generator.pt"
    out.write_bytes(b"old")
    with pytest.raises(ValueError, match="exists; --force replaces it"):
        conversion.import_file(path, out)
    assert out.read_bytes() == b"old"
    conversion.import_file(path, out, force=True)
    with pytest.raises(ValueError, match="exists; --force replaces it"):
        conversion.export_file(out, path)


def test_a_pggan_cannot_be_exported(write, tmp_path):
    (G, _), _ = imported(write("authors_pggan"))
    assert isinstance(G, PGGANGenerator)
    with pytest.raises(ValueError, match="holds a PGGANGenerator"):
        conversion.export_file(tmp_path / "generator.pt", tmp_path / "back.pt")


def test_a_generator_with_normalised_maps_cannot_be_exported(write, tmp_path):
    out = tmp_path / "generator.pt"
    conversion.import_file(write("rosinality"), out)
    content = checkpoint.load(out)
    content["config"]["model"]["generator"]["normalise"] = True
    checkpoint.save(content, out)
    with pytest.raises(ValueError, match=r"model\.generator\.normalise=true"):
        conversion.export_file(out, tmp_path / "back.pt")


# Use


@pytest.mark.parametrize(
    ("kind", "method"),
    [
        ("authors", "ilo"),
        ("nvlabs", "csgm"),
        ("authors_pggan", "mgan"),
        ("genforce_pggan", "mgan"),
        ("mganprior_pggan", "ilo"),
    ],
)
def test_inversion_runs_on_an_imported_generator(write, tmp_path, kind, method):
    out = tmp_path / "generator.pt"
    conversion.import_file(write(kind), out)
    overrides = [
        f"generator={out}",
        "data=glyphs",
        "scale=tiny",
        "hardware=cpu",
        "hardware.threads=1",
        "task=cs",
        "ratio=0.1",
        f"inverter={method}",
        "num_images=2",
        f"run_dir={tmp_path / 'run'}",
    ]
    with initialize_config_dir(CONFIGS, version_base="1.3"):
        cfg = compose("invert", overrides)
    rows = jsonl.read(invert.invert(cfg, overrides) / "results.jsonl")
    assert len(rows) == 2
    assert all(math.isfinite(row["psnr_db"]) and row["loss"] <= row["last_loss"] for row in rows)


def test_an_imported_generator_of_unknown_data_asks_for_data(write, tmp_path):
    out = tmp_path / "generator.pt"
    conversion.import_file(write("rosinality"), out)
    overrides = [f"generator={out}", "hardware=cpu", "task=cs", "ratio=0.1"]
    with initialize_config_dir(CONFIGS, version_base="1.3"):
        cfg = compose("invert", overrides)
    with pytest.raises(ValueError, match=r"data=unknown: path is not set"):
        invert.invert(cfg, overrides)


def test_script_imports_reports_exports_and_fails_with_a_message(
    write, tmp_path, monkeypatch, capsys
):
    source = Path(__file__).parents[2] / "scripts" / "import_checkpoint.py"
    spec = importlib.util.spec_from_file_location("import_checkpoint", source)
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)

    def run(*arguments):
        monkeypatch.setattr(sys, "argv", ["import_checkpoint", *map(str, arguments)])
        script.main()
        return capsys.readouterr().out

    path, out, back = write("genforce"), tmp_path / "generator.pt", tmp_path / "back.pt"
    assert "layout of genforce" in run(path, "--report") and not out.exists()
    assert f"wrote {out}" in run(path, "--out", out, "--scale", "demo")
    assert "latent_avg" in run("--export", "rosinality", out, "--out", back)
    assert "layout of rosinality" in run(back, "--report")
    with pytest.raises(SystemExit, match=r"import_checkpoint: .*exists; --force"):
        run(path, "--out", out)
    with pytest.raises(SystemExit, match="import_checkpoint: no checkpoint at"):
        run(tmp_path / "none.pt", "--report")
    with pytest.raises(SystemExit, match=r"generator\.pt: there is no folder /proc/nothing"):
        run(path, "--out", "/proc/nothing/generator.pt")
    back.write_bytes(back.read_bytes()[:5000])
    with pytest.raises(SystemExit, match=r"import_checkpoint: .* cannot be read") as error:
        run(back, "--report")
    assert "import_checkpoint.py" not in str(error.value)  # the user is there already
    for wrong in ([path], [path, "--out", out, "--report"]):
        with pytest.raises(SystemExit) as error:
            run(*wrong)
        assert error.value.code == 2
