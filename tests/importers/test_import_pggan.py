"""genforce's PGGAN: the network of Karras et al. 2018, in the spelling of two projects."""

import os
from functools import partial

import foreign as foreign_files
import pytest
import torch
from foreign import CHANNELS, Karras, genforce_pggan, mganprior_pggan

from rtil import checkpoint
from rtil.importers import conversion
from rtil.models.pggan import PGGANGenerator

SPELLINGS = {"genforce_pggan": genforce_pggan, "mganprior_pggan": mganprior_pggan}
BOTH = pytest.mark.parametrize("kind", SPELLINGS)


@pytest.fixture
def write(tmp_path):
    """Writes a net in a layout (tests/foreign.py) into the test's folder."""
    return partial(foreign_files.write, tmp_path)


@pytest.fixture
def found(write):
    """What the importer finds in such a file."""
    return lambda *arguments, **settings: conversion.recognise(write(*arguments, **settings))


def ours(net):
    """A net's tensors under rtil's names."""
    expected = {"input": net.first, "input_bias": net.first_bias}
    for k, (convs, rgb) in enumerate(zip(net.convs, net.rgbs)):
        layers = {f"blocks.{k}.conv{i}": conv for i, conv in enumerate(convs)}
        for name, (weight, bias) in {**layers, f"to_rgb.{k}": rgb}.items():
            expected |= {f"{name}.weight": weight, f"{name}.bias": bias}
    return expected


@BOTH
@pytest.mark.parametrize("fused", [False, True])
@pytest.mark.parametrize("colours", [1, 3])
@pytest.mark.parametrize(
    "channels",
    [
        pytest.param({4: 6, 8: 5}, marks=pytest.mark.slow),
        CHANNELS,
        pytest.param({4: 3, 8: 8, 16: 8, 32: 2}, marks=pytest.mark.slow),
        pytest.param({4: 2, 8: 9, 16: 1, 32: 3, 64: 2}, marks=pytest.mark.slow),
    ],
)
def test_one_network_in_either_spelling_becomes_the_same_generator(
    found, kind, fused, colours, channels
):
    """Bit for bit, and its images are those of the file's own layers, fused or not."""
    net = Karras(channels, z_dim=7, colours=colours)
    foreign = found(kind, state=SPELLINGS[kind](net, fused))
    weights, expected = foreign.weights(), ours(net)
    assert weights.keys() == expected.keys()
    assert all(torch.equal(weights[name], value) for name, value in expected.items())
    G = PGGANGenerator(max(channels), channels, colours, 7, **foreign.spec.form)
    G.load_state_dict(weights)
    assert conversion.difference(foreign, G)[0] < 1e-6


def test_the_imported_file_holds_the_form_and_the_report_names_it(write, tmp_path):
    lines = conversion.import_file(write("genforce_pggan"), tmp_path / "generator.pt")
    form = "form: upsample=nearest pixel_norm=input rgb_gain=1.0 input_fan=in first_convs=1"
    assert form in lines
    G, config = checkpoint.load_generator(tmp_path / "generator.pt")
    assert config["model"]["generator"]["pixel_norm"] == "input"
    assert all(torch.equal(G.state_dict()[k], v) for k, v in ours(Karras()).items())


@BOTH
def test_a_file_that_is_fused_in_part_is_refused(found, kind):
    plain, fused = (SPELLINGS[kind](Karras(), fused) for fused in (False, True))
    mixed = {name: value for name, value in plain.items() if not name.startswith("layer2.")}
    mixed |= {name: value for name, value in fused.items() if name.startswith("layer2.")}
    with pytest.raises(ValueError, match=r"layer4\.weight"):
        found(kind, state=mixed).weights()


def test_what_the_tensors_do_not_say_is_said(found):
    assert "no fused_scale" not in found("genforce_pggan").guesses
    square = Karras({4: 5, 8: 5, 16: 5})
    assert "no fused_scale" in found("genforce_pggan", square).guesses
    assert found("mganprior_pggan", square).guesses == ()


def test_weights_that_look_scaled_are_warned_of(found):
    state = genforce_pggan(Karras())
    assert "WARNING" not in str(found("genforce_pggan", state=state).notes)
    state["layer1.weight"] = state["layer1.weight"] / 50
    assert "WARNING: weights of layer1 have rms 0.0" in str(
        found("genforce_pggan", state=state).notes
    )


def test_the_discriminator_is_left_out_and_that_is_said(found):
    assert found("genforce_pggan").notes[-1].startswith("the discriminator in the file is left")


@BOTH
def test_a_file_without_lod_is_at_full_size_and_another_lod_is_refused(found, kind):
    state = SPELLINGS[kind](Karras())
    del state["lod"]
    found(kind, state=state).weights()
    for lod in (0.25, 1.0, float("nan")):
        with pytest.raises(ValueError, match=r"lod is \S+: saved while growing"):
            found(kind, state={**state, "lod": torch.tensor(lod)})


@BOTH
@pytest.mark.parametrize("colours", [2, 4])
def test_other_numbers_of_colours_are_refused(found, kind, colours):
    with pytest.raises(ValueError, match=f"output0 has {colours} colour channels; rtil has 1 or"):
        found(kind, Karras(colours=colours))


class Payload:
    def __init__(self, target):
        self.target = target

    def __reduce__(self):
        return os.mkdir, (str(self.target),)


def test_code_in_such_a_file_is_refused_by_name_and_does_not_run(tmp_path):
    path, sentinel = tmp_path / "evil.pth", tmp_path / "ran"
    torch.save({"generator_smooth": genforce_pggan(Karras()), "hook": Payload(sentinel)}, path)
    with pytest.raises(ValueError, match=r"evil\.pth .*(posix|nt)\.mkdir.* would run code"):
        conversion.import_file(path, tmp_path / "generator.pt")
    assert not sentinel.exists() and not (tmp_path / "generator.pt").exists()
