"""Any model is trained by any objective of configs/objective, and inverted; a new yaml needs no
edit here."""

import json
from pathlib import Path

import pytest
import torch
from helpers.commands import composed, start
from helpers.trainings import config
from omegaconf import OmegaConf

from rtil import checkpoint, diagnose, report, train
from rtil.latents.family import additive
from rtil.models.generator import UNMIXED
from rtil.objectives.relativistic import Relativistic
from rtil.process import replay
from rtil.process.command import CONFIGS
from rtil.process.rng import Draws, seed_of, seeded
from rtil.runs import identity
from rtil.runs.setup import checked
from rtil.training import loop
from rtil.training.step import Fakes, Nets, Step

OBJECTIVES = sorted(path.stem for path in (Path(CONFIGS) / "objective").glob("*.yaml"))
UNJUDGED = "+model.discriminator._target_=rtil.objectives.objective.Unjudged"
QUICK = ("ilo_mixture", "relativistic")
MODELS = ("stylegan2", "pggan", "pggan_r1")


def trained(root, *words):
    train.train(config(f"root={root}", *words))
    (run_dir,) = (root / "train").iterdir()
    return run_dir


def run_config(*words):
    settings = checked(config("image_channels=1", *words), "train", words)
    return OmegaConf.to_container(settings, resolve=True)


@pytest.mark.parametrize(
    ("objective", "rtil"),
    [
        pytest.param(objective, rtil, marks=() if (rtil, objective) == QUICK else pytest.mark.slow)
        for objective in OBJECTIVES
        for rtil in ("vanilla", "ilo_mixture")
    ],
)
def test_an_inversion_finds_the_generator_of_its_objective(tmp_path, objective, rtil):
    words = (f"objective={objective}", f"rtil={rtil}", "data.num_train=64")
    run_dir = trained(tmp_path, *words, "total_nimg=16")
    start("invert", tmp_path, *words, "num_images=1")
    (rows,) = (tmp_path / "invert" / run_dir.name).glob("*/results.jsonl")
    (row,) = map(json.loads, rows.read_text().splitlines())
    assert row["psnr_db"] > 0
    other = next(name for name in OBJECTIVES if name != objective)
    with pytest.raises(FileNotFoundError, match=r"rtil\.train") as error:
        start("invert", tmp_path, *words, f"objective={other}", "num_images=1")
    assert (f"objective={other}" in str(error.value)) == (other != "own")


@pytest.mark.parametrize("model", MODELS)
def test_a_models_own_objective_is_the_default_and_adds_nothing_to_identity(model):
    plain, own = (
        identity.values(run_config(f"model={model}", *words), "train")
        for words in ((), ("objective=own",))
    )
    assert plain == own and "objective.name" not in plain


@pytest.mark.parametrize("objective", OBJECTIVES)
def test_a_training_is_named_after_its_objective(objective):
    settings = run_config(f"objective={objective}")
    name = identity.named_train_dir(settings).name
    assert name.startswith("stylegan2-ilo-") == (objective == "own")
    assert (objective in name) == (objective != "own")
    assert f"objective={objective}" in identity.training_command(settings) or objective == "own"


def test_settings_of_the_models_own_objective_are_refused_beside_another():
    words = ["objective=relativistic", "model.objective.r1_weight=3"]
    with pytest.raises(ValueError, match=r"model\.objective\.r1_weight .* objective\.KEY"):
        checked(config(*words), "train", words)
    settings = checked(config("objective=relativistic"), "train", words[:1])
    assert "objective" not in settings.model and settings.objective.r1_weight == 10.0


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("objective=glo", "data.mirror=true"), r"data\.mirror=false"),
        (("objective=glo", "crop_scale=1.2"), "crop_scale=1"),
        (("objective=vae", "augment=ada"), "augment=ada .* has none"),
        (("objective=vae", UNJUDGED), r"model\.discriminator=null"),
        (("objective=relativistic", "model.discriminator=null"), "with a discriminator"),
        (("objective=glo", "init_d_nimg=8"), "init_d_nimg=8"),
    ],
)
def test_settings_that_an_objective_has_no_use_for_are_refused(tmp_path, words, said):
    with pytest.raises(ValueError, match=said):
        train.train(config(f"root={tmp_path}", *words))
    assert not any(tmp_path.iterdir())


@pytest.mark.slow
@pytest.mark.parametrize("second", ["own", "vae"])
def test_a_training_starts_from_a_generator_of_another_objective(tmp_path, second):
    """A new discriminator learns alone first where the file has none."""
    first = tmp_path / "first"
    words = ("rtil=vanilla", "objective=glo", "total_nimg=16", f"run_dir={first}")
    train.train(config(*words))
    file = checkpoint.latest(first)
    words = ("rtil=ilo", f"objective={second}", f"init={file}", "total_nimg=24")
    words += ("init_d_nimg=8",) if second == "own" else ()
    run_dir = trained(tmp_path / "second", *words)
    facts = json.loads((run_dir / "provenance.json").read_text())
    assert facts["init"]["holds"] == ["generator"]
    rows = [json.loads(line) for line in (run_dir / "log.jsonl").read_text().splitlines()]
    assert any(key.startswith("D/") for key in rows[-1]) == (second == "own")


@pytest.mark.slow
@pytest.mark.parametrize("objective", OBJECTIVES)
def test_a_generator_of_any_objective_is_diagnosed_and_reported(tmp_path, objective):
    words = (f"objective={objective}", "rtil=ilo_mixture", "data.num_train=64")
    trained(tmp_path, *words, "total_nimg=16")
    start("invert", tmp_path, *words, "num_images=1")
    more = ("num_samples=8", "dims=2", "bootstrap=2", "stage_steps=1", "num_images=1")
    words = ("scale=tiny", "hardware=cpu", f"root={tmp_path}", *words, *more)
    place = diagnose.diagnose(composed("diagnose", *words).copy(), words)
    assert json.loads((place / "diagnose.json").read_text())["members"]
    page = report.report(composed("report", f"root={tmp_path}").copy())
    assert page.exists()


@pytest.mark.slow
@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("objective", OBJECTIVES)
def test_stopped_and_resumed_equals_uninterrupted_bit_for_bit(tmp_path, objective, model):
    words = (f"model={model}", "rtil=ilo", f"objective={objective}", "model.phase_nimg=null")
    whole = trained(tmp_path / "whole", *words, "total_nimg=32")
    trained(tmp_path / "parts", *words, "total_nimg=16")
    parts = trained(tmp_path / "parts", *words, "total_nimg=32")
    first, second = (checkpoint.load(checkpoint.latest(path)) for path in (whole, parts))
    for part in ("G", "G_ema", "objective"):
        for name, value in first[part].items():
            assert torch.equal(value, second[part][name]), f"{part}.{name}"


# A step of pairs, by its definition


def paired(D, reals, fakes, objective):
    """The discriminator's loss of all spaces, with equal weights."""
    loss = objective.r1(D, reals).mean()
    for fake in fakes:
        pairs = torch.nn.functional.softplus(D(fake) - D(reals))
        loss = loss + (pairs + objective.r2(D, reals, fake, None)).mean() / len(fakes)
    return loss


def descended(network, loss, lr):
    grads = torch.autograd.grad(loss, list(network.parameters()), allow_unused=True)
    with torch.no_grad():
        for p, grad in zip(network.parameters(), grads):
            p -= 0 if grad is None else lr * grad


def test_each_spaces_images_are_paired_with_the_same_real_ones(pggan, discriminator):
    """One step of both networks by plain gradient descent, written out; images are reused."""
    lr, family, objective = 0.01, additive([0, 2]), Relativistic([1, 1], 0.3, 0.7)
    real = torch.randn((4, 1, 16, 16), generator=seeded("cpu", "real")).double()

    G, D = pggan(16), discriminator("pggan", 16)
    optims = [torch.optim.SGD(network.parameters(), lr) for network in (G, D)]
    fakes = Fakes(Draws(seeded("cpu", "unseeded"), 4), seed_of("fakes"))
    step = Step(0, real, Draws(seeded("cpu", "step"), 4), UNMIXED, fakes)
    record = replay.Recorder([step.draws.rng], False)
    nets = Nets(G, D, None, objective, *optims)
    loop.d_step(nets, family, step, record)
    loop.g_step(nets, family, step, record)

    by_hand = pggan(16), discriminator("pggan", 16)
    rng = torch.Generator().manual_seed(seed_of("fakes"))
    images = [
        space.synthesize(by_hand[0], space.sample(by_hand[0], 4, rng)) for space in family.spaces
    ]
    descended(by_hand[1], paired(by_hand[1], real, [x.detach() for x in images], objective), lr)
    score = by_hand[1]
    losses = [torch.nn.functional.softplus(score(real) - score(x)).mean() / 2 for x in images]
    descended(by_hand[0], sum(losses), lr)
    for a, b in zip((G, D), by_hand):
        for (name, p), q in zip(a.named_parameters(), b.parameters()):
            torch.testing.assert_close(p, q, rtol=1e-10, atol=1e-10, msg=name)
