"""Laws of layers that training leaves as they are."""

import pytest
import torch
from helpers.trainings import config

from rtil.models.stylegan2 import StyleGAN2Discriminator, StyleGAN2Generator
from rtil.runs import identity
from rtil.runs.keys import is_under
from rtil.training import freeze, loop, setup

CHOICES = [
    ("stylegan2", "ilo", ["const", "mapping", "blocks.1.conv.bias", "D.from_rgb"]),
    ("stylegan2", "ilo_mixture", ["blocks.0", "blocks.2", "D.score.bias"]),
    ("pggan_r1", "mgan", ["blocks.0", "to_rgb.2", "D.blocks.1"]),
]
# Layers of smaller images, which nothing reads once all has grown.
IDLE = ["to_rgb.0", "to_rgb.1", "D.from_rgb.0", "D.from_rgb.1"]


def weights(nets, average=False):
    """{name in `freeze`: weight} of G, or its average, and D; copies."""
    parts = freeze.parameters(nets.G_ema if average else nets.G, nets.D)
    return {name: p.detach().clone() for name, p in parts.items()}


def networks():
    channels = {4: 2, 8: 2, 16: 2}
    return (
        StyleGAN2Generator(16, channels, 1, z_dim=4, num_mapping=2),
        StyleGAN2Discriminator(16, channels, 1),
    )


@pytest.mark.parametrize(("model", "rtil", "names"), CHOICES)
def test_frozen_layers_stay_bit_for_bit_without_gradient_and_all_others_move(
    tmp_path, model, rtil, names
):
    words = (f"model={model}", f"rtil={rtil}", f"freeze=[{','.join(names)}]")
    training = setup.compose(config(*words, f"run_dir={tmp_path / 'run'}", "total_nimg=24"))
    try:
        before = weights(training.nets)
        loop.run(training)
    finally:
        training.owner.release()
    after, average = weights(training.nets), weights(training.nets, average=True)
    stayed = [name for name in before if is_under(name, names)]
    assert len(stayed) >= len(names)
    still = [*stayed, *IDLE] if model == "pggan_r1" else stayed
    for name, p in freeze.parameters(training.nets.G, training.nets.D).items():
        is_still = is_under(name, still)
        assert (p.grad is None) == is_still, name
        assert torch.equal(after[name], before[name]) == is_still, name
        if not is_under(name, ["D"]):
            assert torch.equal(average[name], before[name]) == is_still, name
    counts = [len(optim.state) for optim in (training.nets.G_optim, training.nets.D_optim)]
    assert sum(counts) == sum(not is_under(name, still) for name in before)


def test_a_frozen_layer_keeps_its_running_statistics_and_uses_them(tmp_path):
    words = ("model=wrapped", "rtil=vanilla", "model.module._target_=helpers.modules.Chain")
    words += ("model.cuts=[first,ups.0]", "freeze=[module.first]", "total_nimg=24")
    training = setup.compose(config(*words, f"run_dir={tmp_path / 'run'}"))
    try:
        G = training.nets.G
        before = {name: value.clone() for name, value in G.state_dict().items()}
        loop.run(training)
    finally:
        training.owner.release()
    for network in (G, training.nets.G_ema):
        after = network.state_dict()
        for name, value in before.items():
            assert torch.equal(value, after[name]) == name.startswith("module.first."), name


def test_the_shortest_names_of_the_same_layers_are_recorded():
    G, D = networks()
    assert freeze.canonical(["mapping.1", "mapping.0.bias", "mapping.0.weight"], G, D) == [
        "mapping"
    ]
    assert freeze.canonical(["mapping", "mapping.0", "mapping"], G, D) == ["mapping"]
    ways = (["D.blocks", "blocks.1", "const"], ["const", "blocks.1", "D.blocks.0", "D.blocks.1"])
    assert {tuple(freeze.canonical(names, G, D)) for names in ways} == {
        ("const", "blocks.1", "D.blocks")
    }
    assert freeze.canonical([], G, D) == []


def test_one_choice_of_layers_leads_to_one_directory_and_another_to_another(tmp_path):
    def place(names):
        cfg = setup.started(config(f"root={tmp_path}", f"freeze=[{names}]"), None)
        return identity.train_dir(setup.resolved(cfg, {"image_channels": 1}))

    assert place("mapping,const") == place("const,mapping.0,mapping")
    assert len({place(names) for names in ("mapping", "const", "D.blocks", "")}) == 4
    bare = setup.resolved(config(f"root={tmp_path}"), {"image_channels": 1})
    del bare["freeze"]
    assert place("") == identity.train_dir(bare)


@pytest.mark.parametrize(
    ("names", "line"),
    [
        ("maping", r"maping is the name of no layer\. There are const, mapping, blocks, D\."),
        ("blocks.9", r"blocks\.9 is .* There are blocks\.0, blocks\.1, blocks\.2\."),
        ("map", "map is the name of no layer"),  # names are whole
        ("D.blocks.7.conv1", r"There are D\.blocks\.0, D\.blocks\.1\."),
        ("mapping.0.bias.x", r"There are mapping\.0\.bias\."),
        ("const,mapping,blocks", "names all layers of the generator"),
        ("D", "names all layers of the discriminator"),
        ("7", r"freeze\[0\]=7 must be a text"),
    ],
)
def test_names_that_cannot_be_frozen_are_refused_in_one_line(tmp_path, names, line):
    with pytest.raises(ValueError, match=line) as error:
        setup.compose(config(f"root={tmp_path}", f"freeze=[{names}]"))
    assert "\n" not in str(error.value) and not [*tmp_path.iterdir()]
