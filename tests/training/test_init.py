"""Laws of trainings that start from a generator that is trained already."""

import gzip
import json
import shlex
import shutil
from pathlib import Path

import foreign
import pytest
import torch
import yaml
from helpers.pins import GOLDEN
from helpers.trainings import config

from rtil import checkpoint, train
from rtil.importers import conversion
from rtil.objectives.logistic import path_lengths
from rtil.process.rng import Draws, seeded
from rtil.training import loop, setup

FILES = {"both": "checkpoint-0000000016.pt", "generator": "generator.pt"}
ARMS = {
    "stylegan2": ("model=stylegan2", "rtil=ilo_mixture"),
    "pggan": ("model=pggan", "rtil=mgan"),
    "pggan_r1": ("model=pggan_r1", "rtil=ilo"),
    "wrapped": (
        *("model=wrapped", "model.module._target_=helpers.modules.Chain"),
        *("model.cuts=[first,ups.0]", "rtil=ilo", "rtil.family.depths=[0,1]"),
    ),
}
ALONE = "init_d_nimg=16"  # two steps


def ended(run_dir, *words):
    """What a training ends with."""
    train.train(config(f"run_dir={run_dir}", *words))
    return checkpoint.load(checkpoint.latest(Path(run_dir)))


class Begun(dict):
    """{model: directory} of vanilla trainings of 16 images, after which all has grown.

    Each is trained where it is first asked for.
    """

    def __init__(self, root):
        super().__init__()
        self.root = root

    def __missing__(self, model):
        grown = ["model.phase_nimg=[4,4,8]"] if model == "pggan" else []
        module = [word for word in ARMS[model] if word.startswith("model.")]
        vanilla = [f"model={model}", "rtil=vanilla", *module, *grown]
        ended(self.root / model, *vanilla, "total_nimg=16")
        self[model] = self.root / model
        return self[model]


@pytest.fixture(scope="module")
def begun(tmp_path_factory):
    return Begun(tmp_path_factory.mktemp("begun"))


def start(begun, model, holds="both"):
    return f"init={begun[model] / FILES[holds]}"


def equal(a, b):
    """Whether nested dicts, lists and tensors are equal bit for bit."""
    if isinstance(a, torch.Tensor):
        return torch.equal(a, b)
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(equal(a[key], b[key]) for key in a)
    if isinstance(a, (list, tuple)):
        return len(a) == len(b) and all(map(equal, a, b))
    return a == b


def parts(content):
    return {name: content[name] for name in loop.Nets._fields if name in content}


def composed(*words):
    training = setup.compose(config(*words))
    training.owner.release()
    return training


# pggan_r1 has the networks of pggan.
MODELS = [
    pytest.param(model, marks=pytest.mark.slow if model == "pggan_r1" else ()) for model in ARMS
]


@pytest.mark.parametrize("holds", FILES)
@pytest.mark.parametrize("model", MODELS)
def test_it_starts_with_the_averaged_weights_and_nothing_else_of_what_was(
    tmp_path, begun, model, holds
):
    first = start(begun, model, holds)
    nets = composed(*ARMS[model], first, f"run_dir={tmp_path / 'run'}").nets
    file = checkpoint.load(begun[model] / FILES[holds])
    assert equal(dict(nets.G.state_dict()), dict(file["G_ema"]))
    assert equal(dict(nets.G_ema.state_dict()), dict(file["G_ema"]))
    new = composed(*ARMS[model], "model.phase_nimg=null", f"run_dir={tmp_path / 'new'}").nets
    kept = dict(file["D"] if holds == "both" else new.D.state_dict())
    assert equal(dict(nets.D.state_dict()), kept)
    assert not nets.G_optim.state and not nets.D_optim.state
    for ours, theirs in ((nets.G_optim, new.G_optim), (nets.D_optim, new.D_optim)):
        same = [
            {key: value for key, value in optim.param_groups[0].items() if key != "params"}
            for optim in (ours, theirs)
        ]
        assert same[0] == same[1]


@pytest.mark.parametrize("model", MODELS)
def test_it_draws_the_images_of_the_file_at_step_0(tmp_path, begun, model):
    loaded, _ = checkpoint.load_generator(begun[model] / "generator.pt")
    nets = composed(*ARMS[model], start(begun, model), f"run_dir={tmp_path / 'run'}").nets
    nets.progress(0)
    z = torch.randn((4, loaded.z_dim), generator=seeded("cpu", "z"), dtype=torch.float64)
    images = loaded.double()(z)
    assert images.std() > 0 and images.shape[2] == 16
    # What normalises over the batch in training draws as in inversion in evaluation mode.
    for G in (nets.G.eval(), nets.G_ema):
        torch.testing.assert_close(G.double()(z), images, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize(
    "model",
    [pytest.param(m, marks=() if m in ("stylegan2", "pggan") else pytest.mark.slow) for m in ARMS],
)
def test_a_discriminator_that_is_trained_alone_changes_no_weight_of_the_generator(
    tmp_path, begun, model
):
    words = (*ARMS[model], start(begun, model, "generator"), ALONE)
    content = ended(tmp_path / "run", *words, "total_nimg=16")
    loaded = checkpoint.load(begun[model] / "generator.pt")
    names = dict(setup.drafts(config(*words))[0].named_parameters())
    assert all(torch.equal(content["G"][name], loaded["G_ema"][name]) for name in names)
    exported = checkpoint.load(tmp_path / "run" / "generator.pt")
    assert equal(dict(exported["G_ema"]), dict(loaded["G_ema"]))
    assert content["nimg"] == 16 and not content["G_optim"]["state"]
    new = composed(*words, f"run_dir={tmp_path / 'new'}").nets.D.state_dict()
    moved = [name for name, value in content["D"].items() if not torch.equal(value, new[name])]
    assert len(moved) > len(new) / 2
    # The generator's turn comes with the next step.
    content = ended(tmp_path / "run", *words, "total_nimg=24")
    counts = {float(state["step"]) for state in content["G_optim"]["state"].values()}
    assert max(counts) <= 2 and counts  # with the lazy penalty's, which is due at step 0 alone
    assert not all(torch.equal(content["G"][name], loaded["G_ema"][name]) for name in names)


@pytest.mark.parametrize(
    ("model", "holds"),
    [
        ("stylegan2", "generator"),
        pytest.param("pggan", "both", marks=pytest.mark.slow),
        pytest.param("wrapped", "generator", marks=pytest.mark.slow),
        pytest.param("stylegan2", "both", marks=pytest.mark.slow),
        pytest.param("pggan", "generator", marks=pytest.mark.slow),
        pytest.param("pggan_r1", "both", marks=pytest.mark.slow),
        pytest.param("pggan_r1", "generator", marks=pytest.mark.slow),
    ],
)
def test_killed_and_resumed_is_undisturbed_wherever_it_is_killed(tmp_path, begun, model, holds):
    words = (*ARMS[model], start(begun, model, holds), ALONE, "total_nimg=40")
    whole = ended(tmp_path / "whole", *words)
    assert whole["config"]["init_d_nimg"] == 16
    for nimg in (8, 16, 24):  # within the discriminator's own images, at their end, beyond
        run_dir = tmp_path / f"killed{nimg}"
        ended(run_dir, *words, f"total_nimg={nimg}")
        resumed = ended(run_dir, *words)
        assert equal(parts(whole), parts(resumed)), nimg


def test_no_length_is_said_of_a_discriminator_that_comes_along(tmp_path, begun):
    """A new one is trained alone for a number of steps of this training's batch."""
    alone = [
        composed(start(begun, "stylegan2", holds), f"run_dir={tmp_path / holds}", "batch=4")
        for holds in FILES
    ]
    assert [training.settings.d_alone_nimg for training in alone] == [0, 4000]
    assert [training.config["init_d_nimg"] for training in alone] == [0, 4000]


@pytest.mark.parametrize("rtil", ["vanilla", "ilo", "ilo_mixture"])
@pytest.mark.slow
def test_path_lengths_are_compared_with_those_of_the_generator_from_the_start(
    tmp_path, begun, rtil
):
    words = (f"rtil={rtil}", start(begun, "stylegan2"), f"run_dir={tmp_path / 'run'}")
    training = composed(*words)
    nets, rng = training.nets, seeded("cpu", "another")
    lazy, draws = nets.objective.g_lazy, Draws(rng, 12)
    assert lazy is not None
    for i, space in enumerate(training.family.spaces):
        mean = getattr(nets.objective, f"path_mean_{i}")
        lengths = [[] for _ in mean]
        for turn in range(12):
            latents = space.sample(nets.G, 12, rng, training.settings.style_mixing, turn)
            y = draws.normal(*nets.G.image_shape)
            values = path_lengths(nets.G, space, latents, y).tolist()
            for member, value in zip(latents.member, values, strict=True):
                lengths[member].append(value)
        for known, seen in zip(mean.tolist(), lengths, strict=True):
            drawn = torch.tensor(seen, dtype=torch.float64)
            # The start draws 64 samples of a space, 21 of each of three members.
            error = 5 * float(drawn.std()) / (64 / len(mean)) ** 0.5
            assert known == pytest.approx(float(drawn.mean()), abs=error) and known > error


def test_training_from_nothing_starts_with_no_path_length(tmp_path):
    objective = composed("rtil=ilo", f"run_dir={tmp_path / 'run'}").nets.objective
    assert all(not value.any() for value in objective.state_dict().values())


@pytest.mark.parametrize(("model", "rtil"), [("stylegan2", "ilo"), ("pggan", "mgan")])
def test_a_checkpoint_of_version_0_1_is_a_start(tmp_path, model, rtil):
    path = tmp_path / "checkpoint-0000000024.pt"
    path.write_bytes(gzip.decompress((GOLDEN / f"training_0.1_{model}-{rtil}.pt.gz").read_bytes()))
    words = (f"model={model}", f"rtil={rtil}_mixture", f"init={path}", "total_nimg=8")
    if model == "pggan":
        with pytest.raises(ValueError, match=r"is still growing after 24 images: it draws 8 pix"):
            ended(tmp_path / "run", *words)
        return
    content = ended(tmp_path / "run", *words)
    assert content["config"]["init_d_nimg"] == 0
    old = checkpoint.load(path)
    for name, value in old["G_ema"].items():
        step = (content["G"][name] - value).abs().max()
        # Adam's first steps are as long as the learning rate; it takes two, with the penalty's.
        assert step <= 2.1 * 0.002 * (100 if name.startswith("mapping") else 1), name


def test_provenance_says_what_it_started_from(tmp_path, begun):
    path = begun["stylegan2"] / FILES["both"]
    content = ended(tmp_path / "run", "rtil=ilo", f"init={path}", "total_nimg=8")
    said = json.loads((tmp_path / "run" / "provenance.json").read_text())["init"]
    assert (said["file"], said["nimg"]) == (path.name, 16)
    assert said["holds"] == ["generator", "discriminator"]
    assert said["sha256"] == content["config"]["init_sha256"] and len(said["sha256"]) == 64
    recorded = yaml.safe_load((tmp_path / "run" / "config.yaml").read_text())
    assert recorded == content["config"]
    (images,) = recorded["init_images"]
    assert images["data"] == yaml.safe_load((path.parent / "config.yaml").read_text())["data"]


@pytest.mark.slow
def test_a_run_knows_the_images_of_all_that_it_started_from(tmp_path, begun):
    first = tmp_path / "first"
    ended(first, start(begun, "stylegan2"), "total_nimg=8", "data.num_train=32")
    words = (f"init={first / 'generator.pt'}", "total_nimg=8", "data.num_train=48", ALONE)
    images = ended(tmp_path / "second", *words)["config"]["init_images"]
    assert [record["data"]["num_train"] for record in images] == [32, 64]


@pytest.mark.slow
def test_the_same_file_elsewhere_is_the_same_run_and_another_file_another(tmp_path, begun):
    file = begun["stylegan2"] / "generator.pt"
    copied = shutil.copy(file, tmp_path / "renamed.pt")
    ended_other = ended(tmp_path / "other", "rtil=vanilla", "total_nimg=8", "seed=1")
    assert ended_other["nimg"] == 8

    def place(path, *words):
        first = [f"init={path}"] if path else []
        return composed(*first, f"root={tmp_path / 'runs'}", *words).settings.run_dir

    own = place(file, ALONE)
    assert place(copied, ALONE) == own
    content = checkpoint.load(file)
    checkpoint.save({**content, "config": {**content["config"], "run_dir": "moved"}}, copied)
    assert place(copied, ALONE) == own
    others = [
        place(tmp_path / "other" / "generator.pt", ALONE),
        place(begun["stylegan2"] / FILES["both"], ALONE),  # with its discriminator
        place(file, "init_d_nimg=8"),
        place(None),
    ]
    assert len({own, *others}) == 5
    digest = yaml.safe_load((own / "config.yaml").read_text())["init_sha256"]
    assert f",init={digest[:8]}" in own.name and ",init=" not in others[-1].name


def test_a_directory_that_began_from_another_file_is_refused_by_key(tmp_path, begun):
    words = ("rtil=ilo", ALONE, "total_nimg=8")
    ended(tmp_path / "run", *words, start(begun, "stylegan2", "generator"))
    with pytest.raises(ValueError, match=r"init_sha256: '[0-9a-f]{64}' there"):
        ended(tmp_path / "run", *words, start(begun, "stylegan2"))
    with pytest.raises(ValueError, match=r"init_sha256: '[0-9a-f]{64}' there, None here"):
        ended(tmp_path / "run", "rtil=ilo", "total_nimg=8")


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (["resolution=32", "+scale.stylegan2.channels={32: 8}"], "resolution: 16 there, 32 here"),
        (
            ["scale.stylegan2.channels={4: 8, 8: 4, 16: 8}"],
            r"generator\.channels\.8: 8 there, 4 h",
        ),
        (["image_channels=3"], r"image_channels: 1 there, 3 here"),
        (
            ["scale.stylegan2.z_dim=8"],
            r"z_dim: 16 there, 8 here; mapping\.0\.weight is \[16, 16\]",
        ),
        (["model.generator.normalise=true"], r"generator\.normalise: False there, True here"),
        (["model=pggan_r1"], r"model\.generator\._target_: 'rtil\.models\.stylegan2"),
        (
            ["+model.discriminator.channels={4: 8, 8: 4, 16: 8}"],
            r"D\.\S+ is \[8, 8, 3, 3\] and not \[",
        ),
        (["model.phase_nimg=[8,8,8]", "model=pggan"], "has grown"),
    ],
)
def test_what_does_not_fit_is_refused_in_one_line_before_an_image_is_read(
    tmp_path, monkeypatch, begun, words, line
):
    def unread(*args, **options):
        raise AssertionError("images were read")

    first = start(begun, "stylegan2")
    monkeypatch.setattr(setup, "load_data", unread)
    with pytest.raises(ValueError, match=line) as error:
        ended(tmp_path / "run", first, *words)
    assert "\n" not in str(error.value) and "init=" in str(error.value)
    assert not (tmp_path / "run").exists()


def refusal(run_dir, *words):
    with pytest.raises(ValueError, match="does not fit what is trained") as error:
        composed(f"run_dir={run_dir}", *words)
    return str(error.value)


@pytest.mark.parametrize("kind", ["rosinality", "genforce_pggan"])
@pytest.mark.parametrize("more", [[], ["resolution=8"], ["image_channels=1"], ["model=pggan_r1"]])
@pytest.mark.slow
def test_words_of_a_refusal_ask_for_what_the_file_holds(tmp_path, kind, more):
    """Imported generators, whose networks are of other sizes and forms than any scale's."""
    file = tmp_path / "generator.pt"
    conversion.import_file(foreign.write(tmp_path, kind), file)
    asked = [f"init={file}", *more]
    for _ in range(2):  # the first may be about the model alone
        line = refusal(tmp_path / "run", *asked)
        words = shlex.split(line.partition("Ask for it as it is: ")[2])
        assert words and "\n" not in line
        asked += words
        if "_target_" not in line:
            break
    training = composed(*asked, f"run_dir={tmp_path / 'run'}")
    weights = checkpoint.load(file)["G_ema"]
    assert equal(dict(training.nets.G.state_dict()), dict(weights))
    assert training.config["image_channels"] == 3


def test_a_discriminator_that_does_not_fit_may_be_left_out(tmp_path, begun):
    words = ("+model.discriminator.channels={4: 8, 8: 4, 16: 8}",)
    assert "Name a generator.pt" in refusal(tmp_path / "a", start(begun, "stylegan2"), *words)
    first = start(begun, "stylegan2", "generator")
    assert composed(first, *words, f"run_dir={tmp_path / 'b'}").settings.d_alone_nimg == 8000


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (["init=nowhere.pt"], "init=nowhere.pt: no checkpoint at nowhere.pt"),
        (["init_d_nimg=8"], "init_d_nimg=8 is for init=FILE"),
        (["init=7"], "init=7 must be a text"),
    ],
)
def test_a_start_that_is_none_is_refused(tmp_path, words, line):
    with pytest.raises((ValueError, FileNotFoundError), match=line):
        ended(tmp_path / "run", *words)


def test_growing_has_ended_and_the_last_phases_batch_is_taken(tmp_path, begun):
    words = ("model=pggan", "rtil=mgan", start(begun, "pggan"), "batch=[32,16,8]")
    content = ended(tmp_path / "run", *words, "total_nimg=24")
    assert content["config"]["model"]["phase_nimg"] is None and content["config"]["batch"] == 8
    assert (content["nimg"], content["step"]) == (24, 3)
