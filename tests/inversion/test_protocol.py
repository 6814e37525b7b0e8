"""Protocols: each published choice is one key that does what it says and nothing else."""

import math
import re
from functools import lru_cache
from pathlib import Path

import pytest
import torch
import yaml
from helpers.inverters import SHAPE, pggan, problem, rngs, stylegan2
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf

from rtil.inversion import estimate
from rtil.inversion.batch import Measured, Part
from rtil.inversion.estimate import Recovery
from rtil.inversion.selection import (
    Authors,
    Best,
    ByOracle,
    Last,
    Oracle,
    Watched,
    Watcher,
    check_choices,
    rules,
)
from rtil.inverters import ilo
from rtil.inverters.data_term import MeasurementLoss
from rtil.inverters.ilo import ILO
from rtil.inverters.multicode import MGANPrior
from rtil.metrics.image import psnr, to_unit
from rtil.models.generator import EMPTY
from rtil.models.unit_range import UnitRange
from rtil.operators import inpainting, partial_circulant
from rtil.process.command import CONFIGS
from rtil.runs import identity
from rtil.runs import keys as key_table
from rtil.runs.truth import looks_at_truth

PAGE = (Path(__file__).parents[2] / "docs" / "differences.md").read_text(encoding="utf-8")
BY_PROTOCOL, BY_HAND, OF_TRAINING = PAGE.split("\n## ")[1:4]
ARMS = [("stylegan2", "ilo", rtil) for rtil in ("vanilla", "ilo", "ilo_mixture")] + [
    ("pggan", "mgan", rtil) for rtil in ("vanilla", "mgan", "mgan_mixture")
]
CHOICES = [*((arm, "cs") for arm in ARMS[1:]), (ARMS[0], "inpainting"), (ARMS[4], "sr")]


@lru_cache
def composed(entry, *overrides):
    with initialize_config_dir(CONFIGS, version_base="1.3"):
        cfg = compose(entry, list(overrides))
    cfg.image_channels = cfg.image_channels or 3
    if "phase_nimg" in cfg.model:
        cfg.model.phase_nimg = None
    return OmegaConf.to_container(cfg, resolve=True)


def words(arm, task, *more):
    model, inverter, rtil = arm
    return (f"model={model}", f"inverter={inverter}", f"rtil={rtil}", f"task={task}", *more)


def keys_of(section):
    """{key: text} of the `key=value` words in the second column of a section's first table."""
    table = section.partition("\n| choice ")[2].partition("\n\n")[0]
    rows = [line.split("|")[2] for line in table.splitlines()]
    pairs = dict(pair for row in rows for pair in re.findall(r"`([\w.]+)=([^`]+)`", row))
    return {key: text for key, text in pairs.items() if key != "protocol"}


def changed(before, after):
    """Keys in which two configurations differ, but for the node that names the protocol."""
    a, b = key_table.flatten(before), key_table.flatten(after)
    return {
        key: b.get(key)
        for key in a.keys() | b.keys()
        if a.get(key) != b.get(key)
        and not key.startswith(("protocol.", "rtil.family.group", "model.discriminator"))
    }


def test_the_default_protocol_is_the_papers_bit_for_bit():
    for arm, task in (CHOICES[0], CHOICES[-1]):
        assert composed("invert", *words(arm, task)) == composed(
            "invert", *words(arm, task, "protocol=paper")
        )
    assert composed("train", "model=pggan") == composed("train", "model=pggan", "protocol=paper")
    folder = Path(CONFIGS) / "protocol"
    assert set(OmegaConf.load(folder / "paper.yaml")) == {"protocol"}
    assert not [*folder.glob("*/paper_*")]


@pytest.mark.slow
def test_the_authors_protocol_sets_exactly_the_keys_that_the_page_lists():
    listed = {key: yaml.safe_load(text) for key, text in keys_of(BY_PROTOCOL).items()}
    found = {}
    for arm, task in CHOICES:
        found |= changed(
            *(
                composed("invert", *words(arm, task, f"protocol={name}"))
                for name in ("paper", "authors")
            )
        )
    assert found == listed
    training = changed(
        composed("train", "model=pggan"), composed("train", "model=pggan", "protocol=authors")
    )
    assert training == {"model.stddev_group": None}
    assert not changed(composed("train"), composed("train", "protocol=authors"))


@pytest.mark.parametrize("key", [*keys_of(BY_PROTOCOL), *keys_of(BY_HAND), *keys_of(OF_TRAINING)])
def test_every_key_of_the_page_exists(key):
    trees = [composed("invert", *words(arm, "cs")) for arm in (ARMS[1], ARMS[4])]
    trees += [composed("train", f"model={m}", f"rtil={r}") for m, _, r in (ARMS[1], ARMS[4])]
    assert any(key in key_table.flatten(tree) for tree in trees)


@pytest.mark.parametrize("pair", keys_of(BY_PROTOCOL).items())
def test_a_key_typed_alone_changes_itself_alone(pair):
    key, text = pair
    of_mgan = key.startswith(("inverter.lr", "inverter.alpha", "model"))
    arm = ARMS[4] if of_mgan else ARMS[1]
    before = composed("invert", *words(arm, "cs"))
    assert set(changed(before, composed("invert", *words(arm, "cs", f"{key}={text}")))) == {key}


@pytest.mark.parametrize("pair", keys_of(OF_TRAINING).items())
def test_a_key_of_the_training_is_set_alone_and_by_no_protocol(pair):
    key, text = pair
    assert keys_of(OF_TRAINING).keys() == {
        *("rtil.family.fade_in", "model.objective.path_mean_detached"),
        *("model.style_mixing_per", "model.reuse_fakes"),
    }
    model, _, rtil = ARMS[5] if key in ("rtil.family.fade_in", "model.reuse_fakes") else ARMS[1]
    arm = (f"model={model}", f"rtil={rtil}")
    before = composed("train", *arm)
    assert key_table.flatten(before)[key] == key_table.row(key).default
    assert set(changed(before, composed("train", *arm, f"{key}={text}"))) == {key}
    assert key not in changed(before, composed("train", *arm, "protocol=authors"))


def test_only_the_authors_protocol_selects_by_the_true_image():
    selections = {}
    for path in Path(CONFIGS).rglob("*.yaml"):
        if "experiment" not in path.parts:
            tree = OmegaConf.to_container(OmegaConf.load(path))
            selections[path.name] = key_table.flatten(tree).get("selection")
    chosen = {name: value for name, value in selections.items() if looks_at_truth(value)}
    assert chosen == {"authors_ilo.yaml": "authors", "authors_mgan.yaml": "authors"}
    assert selections["invert.yaml"] == "best"


def test_a_protocol_is_part_of_what_identifies_a_run():
    given = words(ARMS[4], "cs")
    paper, authors = (composed("invert", *given, f"protocol={n}") for n in ("paper", "authors"))
    names = {}
    for name, cfg in (("paper", paper), ("authors", authors), ("unsaid", {**paper})):
        if name == "unsaid":  # as an earlier version wrote it
            cfg.pop("protocol")
        used = {**cfg, "generator": "x.pt", "generator_sha256": "a" * 64}
        names[name] = identity.invert_dir("invert", used, paper).name
    assert names["paper"] == names["unsaid"] != names["authors"]
    assert ",protocol=authors-" in names["authors"]
    differs = key_table.differing_keys(paper, authors, key_table.matters("invert"))
    assert {line.partition(":")[0] for line in differs} >= {
        "selection",
        "task.scale",
        "inverter.lr_code",
    }


def test_a_training_run_is_known_by_the_keys_that_its_protocol_sets():
    typed = ["model=pggan", "model.stddev_group=null"]
    ways = (typed, ["model=pggan", "protocol=authors"], [*typed, "protocol=authors"])
    names = {identity.train_dir(composed("train", *given)).name for given in ways}
    assert len(names) == 1 and ",model.stddev_group=null-" in names.pop()
    same = {identity.train_dir(composed("train", *given)) for given in ([], ["protocol=authors"])}
    assert len(same) == 1
    with initialize_config_dir(CONFIGS, version_base="1.3"):  # as typed: `composed` sets keys too
        asked = compose("invert", ["protocol=authors", "model=pggan"])
    line = identity.training_command(OmegaConf.to_container(asked, resolve=True))
    assert line == "python -m rtil.train model=pggan model.stddev_group=null"


@pytest.mark.parametrize(
    ("settings", "named"),
    [
        (("oracel", "signed", "ilo", {"name": "paper"}), "selection=oracel .* best, last, oracle"),
        (("best", "bytes", "ilo", {"name": "paper"}), "target_range=bytes .* signed, unit"),
        (
            ("best", "signed", "csgm", {"name": "authors", "inverters": ["ilo", "mgan"]}),
            "protocol=authors has no inverter=csgm, only ilo and mgan",
        ),
    ],
)
def test_choices_that_a_protocol_cannot_make_are_refused(settings, named):
    with pytest.raises(ValueError, match=named):
        check_choices(*settings)


def test_without_keep_rgb_a_stage_starts_from_what_the_blocks_before_did_not_draw():
    """By hand: the image of block 1 is left out where block 2 is entered, and nothing else is."""
    G = stylegan2()
    A, y, loss, _ = problem(2)
    first = ILO(steps=[6], fit_samples=200).invert(G, A, y, loss, rngs("ab")).latents
    state = G.step(2, G.step(1, EMPTY, first.w, first.noise), first.w, first.noise)
    image = G.image(G.run(first.w, first.noise, 2, state=state._replace(rgb=None)), first.w)
    whole = G.image(G.run(first.w, first.noise, 2, state=state), first.w)
    for keep, begun in ((False, image), (True, whole)):
        found = ILO(steps=[6, 1], keep_rgb=keep, fit_samples=200).invert(G, A, y, loss, rngs("ab"))
        torch.testing.assert_close(found.history[7], loss(A(begun), y))
    assert not torch.allclose(image, whole)


@pytest.mark.parametrize("stages", [1, 2])
def test_the_geodesic_term_acts_in_the_leading_stages_alone(monkeypatch, stages):
    G = stylegan2()
    A, y, loss, _ = problem(1)
    kept, minimise = [], ilo.minimise
    monkeypatch.setattr(
        ilo,
        "minimise",
        lambda render, *args, **more: kept.append(render()[1]) or minimise(render, *args, **more),
    )
    ILO(steps=[1, 1, 1], geodesic_stages=stages, fit_samples=200).invert(G, A, y, loss, rngs("a"))
    assert [penalty is not None for penalty in kept] == [k < stages for k in range(3)]
    assert all(float(penalty) > 0 for penalty in kept[:stages])


def test_the_best_of_a_stage_forgets_the_stages_before_and_changes_no_iterate():
    """Dropping the image at the cut makes a later stage worse than the best of the first."""
    G = stylegan2()
    A, y, loss, _ = problem(2)
    settings = {"steps": [20, 2], "keep_rgb": False, "fit_samples": 200}
    runs, shown = [], []
    for per_stage in (False, True):
        seen = []
        runs.append(
            ILO(**settings, best_per_stage=per_stage).invert(
                G, A, y, loss, rngs("ab"), watch=lambda x, seen=seen: seen.append(x)
            )
        )
        shown.append(torch.stack(seen))
    whole, last = runs
    assert torch.equal(whole.history, last.history) and torch.equal(whole.last, last.last)
    torch.testing.assert_close(whole.loss, whole.history.amin(0))
    torch.testing.assert_close(last.loss, last.history[21:].amin(0))
    assert (last.loss > whole.loss).all()
    torch.testing.assert_close(loss(A(last.image), y), last.loss)
    assert len(shown[0]) == 24 and torch.equal(shown[0][21:], shown[1])


@pytest.mark.parametrize("make", [stylegan2, pggan])
def test_a_unit_range_is_the_published_loss_of_the_generators_own_values(make):
    """|A (2 G - 1) - A x|^2 / 4 m is |A G - A (x + 1) / 2|^2 / m, the same network drawn."""
    G = make()
    unit = UnitRange(G)
    A, y, loss, x = problem(3)
    loss.mse_weight = 0.25
    z0 = torch.randn((3, G.z_dim), generator=torch.Generator().manual_seed(1)).double()
    published = (A(G(z0)) - A((x + 1) / 2)).square().flatten(1).mean(1)
    torch.testing.assert_close(loss(A(unit(z0)), y), published)
    torch.testing.assert_close((unit(z0) + 1) / 2, G(z0))
    assert [p.data_ptr() for p in unit.parameters()] == [p.data_ptr() for p in G.parameters()]
    w = G.map(z0)
    cut = unit.step(1, EMPTY, w, None)
    assert torch.equal(cut.x, G.step(1, EMPTY, w, None).x) and unit.shapes == G.shapes
    torch.testing.assert_close(unit.image(unit.run(w, start=1, state=cut), w), unit(z0))


@pytest.mark.parametrize("first", [1 / 256, "1/N", "1/C"])
def test_alpha_starts_at_the_same_number_everywhere(first):
    """The codes' sum, weighted alike: by hand, that of the first iterate."""
    G, (A, y, loss, _) = pggan(), problem(1)
    shares = {"1/N": 1 / 4, "1/C": 1 / G.shapes[2][0], 1 / 256: 1 / 256}
    assert len({*shares.values()}) == 3
    seen = []
    MGANPrior(1, 4, 2, alpha_init=first).invert(G, A, y, loss, rngs("a"), watch=seen.append)
    codes = torch.randn((4, G.z_dim), generator=rngs("a")[0]).double()
    mixed = sum(G.run(codes[n : n + 1], stop=2).x for n in range(4)) * shares[first]
    image = G.image(G.run(codes[:1], start=2, state=EMPTY._replace(x=mixed)), None)
    torch.testing.assert_close(seen[0], image, rtol=1e-6, atol=1e-7)


def test_an_oracle_keeps_each_images_closest_iterate_and_selection_takes_it():
    G = stylegan2()
    A, y, loss, x = problem(3)
    seen, oracle = [], Oracle(to_unit(x), keep=True)

    def watch(image):
        seen.append(image)
        oracle(image)

    found = ILO(steps=[15, 5], keep_rgb=False, fit_samples=200).invert(
        G, A, y, loss, rngs("abc"), watch
    )
    scores = torch.stack([psnr(to_unit(image), to_unit(x)) for image in seen])
    best = scores.argmax(0)
    batch = Watched(A, y, loss, oracle=oracle)
    chosen = ByOracle(batch).select(found)
    for b in range(3):
        assert torch.equal(chosen.image[b], seen[best[b]][b])
    torch.testing.assert_close(oracle.best, scores.amax(0).float(), check_dtype=False)
    torch.testing.assert_close(chosen.loss, loss(A(chosen.image), y))
    assert torch.equal(chosen.last, found.last)
    assert Best(batch).select(found) is found
    last = Last(batch).select(found)
    assert torch.equal(last.image, found.last) and torch.equal(last.loss, found.last_loss)
    assert Oracle(to_unit(x)).image is None


def published_choice(errors, losses):
    """Which iterate of one image the published loop holds at its end (save_on_ref)."""
    smallest, held = math.inf, None
    for step, (image_error, measured_loss) in enumerate(zip(errors, losses)):
        if image_error < smallest:
            smallest, held = image_error, step
        elif measured_loss < smallest:
            smallest, held = measured_loss, step
    return held


def test_the_authors_rule_the_oracle_and_the_lowest_loss_differ_by_hand():
    """One pixel of two is measured, x* = 0; squared distances of [0, 1] images, step by step:

    to x*       0.5   0.3   0.2   0.26  0.385     the oracle keeps step 2
    measured    0.64  0.01  0.04  0.16  0.36      the lowest loss is that of step 1
    threshold   0.5   0.3   0.2   0.16  0.16      the authors' rule keeps step 3
    """
    A = inpainting((1, 1, 2), 1.0, mask=torch.tensor([[True, False]]))
    errors = torch.tensor([0.5, 0.3, 0.2, 0.26, 0.385])
    losses = torch.tensor([0.64, 0.01, 0.04, 0.16, 0.36])
    pixels = torch.stack([losses.sqrt(), (2 * errors - losses).sqrt()], 1)
    iterates = 2 * pixels.view(5, 1, 1, 1, 2) - 1
    truth = -torch.ones(1, 1, 1, 2)
    oracle = Oracle(to_unit(truth), keep=True)
    rule = Authors(Watched(A, A(truth), MeasurementLoss(A), oracle=oracle))
    thresholds = []
    for image in iterates:
        oracle(image)
        rule(image)
        thresholds.append(float(rule.bound))
    assert thresholds == pytest.approx([0.5, 0.3, 0.2, 0.16, 0.16])
    assert torch.equal(rule.image, iterates[3]) and int(rule.step) == 3
    assert torch.equal(oracle.image, iterates[2]) and int(losses.argmin()) == 1
    assert published_choice(errors.tolist(), losses.tolist()) == 3


@pytest.mark.parametrize("scale", ["unit", "published"])
@pytest.mark.parametrize("per_stage", [False, True])
def test_selection_authors_keeps_what_the_published_loop_keeps(scale, per_stage):
    """Of every image of a batch, over all stages or the last; the loss is that of the squared
    error alone, whatever its weight."""
    G = stylegan2()
    A = partial_circulant(SHAPE, 0.1, seed=3, scale=scale).double()
    _, _, _, x = problem(4)
    y, loss, seen = A(x), MeasurementLoss(A, mse=3.0), []
    inverter = ILO([40, 10], keep_rgb=False, best_per_stage=per_stage, fit_samples=200)

    class Seeing(Oracle):
        def __call__(self, image):
            super().__call__(image)
            seen.append(image)

    oracle = Seeing(to_unit(x))
    found = Recovery("authors")(inverter, G, Part(A, loss), Measured(y, x, oracle), [rngs("abcd")])
    errors = torch.stack([((image - x) / 2).square().flatten(1).mean(1) for image in seen])
    losses = torch.stack([((A(image) - y) / 2).square().flatten(1).mean(1) for image in seen])
    first = 41 if per_stage else 0
    assert len(seen) == 41 + 11 - first
    for b in range(4):
        step = published_choice(errors[:, b].tolist(), losses[:, b].tolist())
        assert torch.equal(found.image[b], seen[step][b])
        assert found.facts["chosen_step"][b] == first + step
    torch.testing.assert_close(found.loss, loss(A(found.image), y))


@pytest.mark.parametrize("name", sorted(rules()))
def test_a_rule_that_is_not_known_to_look_at_the_true_image_is_shown_none(name, monkeypatch):
    G, (A, y, loss, x) = stylegan2(), problem(2)
    shown = []

    def watched(*given):
        shown.append(given[-1])
        return Watched(*given)

    monkeypatch.setattr(estimate, "Watched", watched)
    oracle, recovery = Oracle(to_unit(x), keep=True), Recovery(name, noise_std=0.1)
    part = recovery.split(Part(A, loss), {})
    recovery(ILO([2], fit_samples=200), G, part, Measured(y, x, oracle), [rngs("ab")])
    assert shown == [oracle if name in ("oracle", "authors") else None]
    assert looks_at_truth(name) == (shown[0] is not None)


def test_a_rule_is_one_class_and_named_nowhere_else():
    """The iterate that was last shown, found by its name alone."""

    class Newest(Watcher):
        name = "newest"

        def accepts(self, image):
            return torch.ones(len(image), dtype=torch.bool)

        def select(self, found):
            return found._replace(image=self.image, loss=self.batch.measured(self.image))

        def misfit(self, selected):
            return selected.loss

        def facts(self, found):
            return self.place(found, self.step)

    G, (A, y, loss, _) = stylegan2(), problem(2)
    check_choices("newest", "signed", "ilo", {"name": "paper"})
    inverter = ILO(steps=[6, 2], fit_samples=200)
    recovered = Recovery("newest")(inverter, G, Part(A, loss), Measured(y), [rngs("ab")])
    assert torch.equal(recovered.image, recovered.last)
    assert recovered.facts["chosen_stage"] == [1, 1]
