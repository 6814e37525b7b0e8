"""Generators to give away: the file draws the same images, and says nothing of the machine."""

import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from helpers.trainings import config

import rtil
from rtil import checkpoint, train
from rtil.importers.conversion import import_file
from rtil.importers.sharing import Form, portable, share_file

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def run_dir(tmp_path_factory):
    place = tmp_path_factory.mktemp("runs") / "secret" / "letters"
    train.train(config(f"run_dir={place}", "total_nimg=16", "rtil=ilo"))
    return place


@pytest.mark.parametrize("name", ["generator.pt", "checkpoint-0000000016.pt"])
def test_a_shared_generator_draws_the_same_images(run_dir, tmp_path, name):
    out = tmp_path / "generator.safetensors"
    lines = share_file(run_dir / name, out)
    (G, before), (H, after) = (rtil.load_generator(file) for file in (run_dir / name, out))
    z0 = torch.randn(3, G.z_dim)
    assert torch.equal(G(z0), H(z0)) and any("bit for bit" in line for line in lines)
    assert after["model"] == before["model"] and after["rtil"] == before["rtil"]
    assert "D" not in checkpoint.load(out)


def test_nothing_says_where_it_lay(run_dir, tmp_path):
    out = tmp_path / "letters.safetensors"
    share_file(run_dir / "generator.pt", out)
    card = (tmp_path / "letters.md").read_text()
    for text in (card.encode(), out.read_bytes()):
        assert b"secret" not in text
    assert checkpoint.load(out)["config"]["run_dir"] == "letters"


@pytest.mark.parametrize(
    ("written", "kept"),
    [
        ("/home/me/my photos/faces.zip", "faces.zip"),
        ("data.path=/home/me/my photos/", "data.path=my photos"),
        ("init=~/old/generator.pt", "init=generator.pt"),
        ("results=[/a/b.jsonl,/c/d.jsonl]", "results=[b.jsonl,d.jsonl]"),
        ("runs/train/x", "runs/train/x"),
        ("hf://someone/letters", "hf://someone/letters"),
        ("https://example.org/faces/a.zip", "https://example.org/faces/a.zip"),
        ("inverter.alpha_init=1/N", "inverter.alpha_init=1/N"),
    ],
)
def test_absolute_paths_are_cut_to_their_names(written, kept):
    assert portable({"a": [written, 1, None, 0.5]}) == {"a": [kept, 1, None, 0.5]}


def test_a_card_holds_what_the_file_records(run_dir, tmp_path):
    out = tmp_path / "generator.safetensors"
    share_file(run_dir / "generator.pt", out)
    card = (tmp_path / "README.md").read_text()
    assert "16 images shown" in card and "| images | glyphs, " in card
    assert "Licence: fill in" in card and "StyleGAN2Generator" in card
    assert "rtil.load_generator" in card and not re.search(r"{{|{%", card)
    assert "rtil=ilo" in card
    # Made of the shared file again, it says the same.
    again = tmp_path / "again"
    again.mkdir()
    share_file(out, again / "generator.safetensors")
    assert (again / "README.md").read_text() == card
    assert (again / "generator.safetensors").read_bytes() == out.read_bytes()


def test_commands_are_those_of_the_training_that_a_file_lies_with(run_dir, tmp_path):
    out = tmp_path / "generator.safetensors"
    share_file(run_dir / "generator.pt", out)
    assert len(checkpoint.load(out)["commands"]) == 1
    moved = tmp_path / "generator.pt"
    moved.write_bytes((run_dir / "generator.pt").read_bytes())
    share_file(moved, out, force=True)
    assert checkpoint.load(out)["commands"] == []
    assert "How was it trained" not in (tmp_path / "README.md").read_text()


def test_float16_halves_the_file_and_says_what_it_changed(run_dir, tmp_path):
    whole, half = tmp_path / "whole.safetensors", tmp_path / "half.safetensors"
    share_file(run_dir / "generator.pt", whole)
    lines = share_file(run_dir / "generator.pt", half, Form("float16"))
    found = re.search(r"have ([\d.]+) ± [\d.]+ dB PSNR", lines[-1])
    assert found and float(found[1]) > 40
    G, H = rtil.load_generator(run_dir / "generator.pt")[0], rtil.load_generator(half)[0]
    for name, x in G.state_dict().items():
        assert torch.equal(H.state_dict()[name], x.half().to(x.dtype))
    stored = [sum(x.nbytes for x in checkpoint.load(f)["G_ema"].values()) for f in (whole, half)]
    assert stored[1] == stored[0] / 2
    assert found[1] in (tmp_path / "half.md").read_text()


def test_a_discriminator_is_written_where_it_is_asked_for(run_dir, tmp_path):
    out = tmp_path / "a.safetensors"
    with pytest.raises(ValueError, match="holds no discriminator"):
        share_file(run_dir / "generator.pt", out, Form(discriminator=True))
    assert not out.exists()
    source = run_dir / "checkpoint-0000000016.pt"
    share_file(source, out, Form(discriminator=True))
    written, read = checkpoint.load(source)["D"], checkpoint.load(out)["D"]
    assert all(torch.equal(read[name], x) for name, x in written.items())


@pytest.mark.parametrize(
    ("form", "name", "named"),
    [
        (Form(), "a.pt", "must end in .safetensors"),
        (Form("float16"), "a.safetensors", "beyond 65504, which float16 has not"),
        (Form(), "none/a.safetensors", "there is no folder"),
    ],
)
def test_what_cannot_be_written_is_refused_and_nothing_is(run_dir, tmp_path, form, name, named):
    content = checkpoint.load(run_dir / "generator.pt")
    content["G_ema"]["const"][0] = 1e6
    checkpoint.save(content, source := tmp_path / "generator.pt")
    with pytest.raises(ValueError, match=named):
        share_file(source, tmp_path / name, form)
    assert [path.name for path in tmp_path.iterdir()] == ["generator.pt"]


def test_what_is_there_stays_but_by_force(run_dir, tmp_path):
    (tmp_path / "a.md").write_text("mine")
    with pytest.raises(ValueError, match=r"a\.md exists; --force"):
        share_file(run_dir / "generator.pt", tmp_path / "a.safetensors")
    # A README.md of something else is no card to replace.
    with pytest.raises(ValueError, match=r"a\.md is no card of rtil"):
        share_file(run_dir / "generator.pt", tmp_path / "a.safetensors", force=True)
    assert (tmp_path / "a.md").read_text() == "mine"
    share_file(run_dir / "generator.pt", tmp_path / "b.safetensors")
    (tmp_path / "b.md").write_text((tmp_path / "b.md").read_text().replace("fill in", "MIT"))
    share_file(run_dir / "generator.pt", tmp_path / "b.safetensors", force=True)
    assert "MIT" not in (tmp_path / "b.md").read_text()


def test_a_generator_of_rtil_needs_no_import(run_dir, tmp_path):
    share_file(run_dir / "generator.pt", tmp_path / "a.safetensors")
    with pytest.raises(ValueError, match="a generator of rtil already"):
        import_file(tmp_path / "a.safetensors", None)


def test_safetensors_of_another_project_are_named_by_what_they_hold(tmp_path):
    from safetensors.torch import save_file

    path = tmp_path / "vae.safetensors"
    save_file({"decoder.conv_in.weight": torch.ones(2)}, path, metadata={"format": "pt"})
    with pytest.raises(ValueError, match=r"vae\.safetensors holds no generator.*decoder\.conv_in"):
        import_file(path, None)


@pytest.mark.slow
def test_the_command_writes_both(run_dir, tmp_path):
    words = ["--export", "safetensors", run_dir / "generator.pt", "--dtype", "float16"]
    script = [sys.executable, ROOT / "scripts" / "import_checkpoint.py"]
    command = [*script, *words, "--out", tmp_path / "generator.safetensors"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0 and "PSNR" in done.stdout, done.stderr
    assert {path.name for path in tmp_path.iterdir()} == {"generator.safetensors", "README.md"}
