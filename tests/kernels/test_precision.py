"""Laws of hardware.precision: what is bfloat16, what stays float32, and how far results move."""

import json
import logging

import pytest
import torch
from hydra import compose, initialize_config_dir
from torch.utils._python_dispatch import TorchDispatchMode

from rtil import invert, train
from rtil.inverters.data_term import MeasurementLoss
from rtil.inverters.ilo import ILO
from rtil.inverters.multicode import MGANPrior
from rtil.latents.additive import Additive
from rtil.models.generator import EMPTY
from rtil.objectives.logistic import Logistic
from rtil.objectives.wgan_gp import WGANGP
from rtil.operators import partial_circulant
from rtil.process.command import CONFIGS
from rtil.process.device import PRECISIONS, Hardware, check_bf16, start
from rtil.process.provenance import provenance
from rtil.process.rng import Draws, seeded
from rtil.runs import identity
from rtil.runs import keys as key_table

KINDS = ["stylegan2", "pggan"]
CHANNELS = {4: 32, 8: 32, 16: 16}
BRIEF = torch.bfloat16


def rand(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


@pytest.fixture(params=KINDS)
def G(request):
    """A float32 generator of either kind, 1x16x16, as inversion gets it."""
    made = request.getfixturevalue(request.param)(16, channels=CHANNELS)
    for name, p in made.named_parameters():
        if name.endswith("bias") and "style" not in name:
            p.data *= 0.1  # else biases outweigh what z says
    return made.float().requires_grad_(False).to(memory_format=torch.channels_last)


def in_brief(network):
    network.map_dtype = BRIEF
    return network


def relative(a, b):
    """|a - b| / |b| over lists of tensors."""
    a, b = (torch.cat([t.flatten().double() for t in ts]) for ts in (a, b))
    return float((a - b).norm() / b.norm())


class Products(TorchDispatchMode):
    """Notes the type of every convolution: its kernel's side and the types of its inputs."""

    def __init__(self):
        super().__init__()
        self.seen = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        name = func.overloadpacket.__name__
        if name in ("convolution", "convolution_backward"):
            tensors = args[:2] if name == "convolution" else args[:3]
            self.seen.append((tensors[-1].shape[-1], {t.dtype for t in tensors}))
        return func(*args, **(kwargs or {}))


def test_images_latents_and_gradients_are_float32_around_bfloat16_convolutions(G):
    z = rand(2, G.z_dim).requires_grad_()
    in_brief(G)
    w = G.map(z)
    assert w.dtype == torch.float32
    states = [G.run(w, stop=k) for k in range(1, G.num_blocks + 1)]
    assert {s.x.dtype for s in states} == {BRIEF}
    with Products() as products:
        image = G.image(G.run(w), w)
        grad = torch.autograd.grad(image.square().sum(), z)[0]
    assert image.dtype == grad.dtype == torch.float32
    assert {kinds == {BRIEF} for side, kinds in products.seen if side == 3} == {True}
    assert {kinds == {torch.float32} for side, kinds in products.seen if side == 1} == {True}
    assert len({side for side, _ in products.seen}) == 2


def test_maps_asked_for_in_the_weights_type_change_no_bit(G):
    def run():
        z = rand(2, G.z_dim).requires_grad_()
        image = G(z)
        return image, torch.autograd.grad(image.square().sum(), z)[0]

    plain = run()
    G.map_dtype = torch.float32
    assert all(torch.equal(a, b) for a, b in zip(plain, run()))


def test_bfloat16_draws_the_same_image_to_its_rounding(G):
    plain = G(rand(4, G.z_dim))
    error = relative([in_brief(G)(rand(4, G.z_dim))], [plain])
    assert 1e-5 < error < 0.02


def test_restart_at_any_block_equals_the_full_run_bit_for_bit(G):
    in_brief(G)
    space = Additive(2)
    rng = torch.Generator().manual_seed(3)
    latents = space.sample(G, 2, rng)
    whole = space.synthesize(G, latents)
    state = EMPTY
    for k in (1, 2):
        state = G.step(k, state, latents.w, latents.noise or None)
        for held in (state, state._replace(x=state.x.float())):
            assert torch.equal(space.synthesize(G, latents, k, held), whole)
        state = state._replace(x=state.x + latents.add[k])


def test_an_image_of_a_batch_is_the_image_drawn_alone(G):
    z = rand(3, G.z_dim)
    batch = in_brief(G)(z)
    for b in range(3):
        assert relative([G(z[b : b + 1])], [batch[b : b + 1]]) < 0.02


@pytest.mark.parametrize("kind", KINDS)
def test_gradients_of_a_training_step_agree_with_float32(request, discriminator, kind):
    G = request.getfixturevalue(kind)(16).float().to(memory_format=torch.channels_last)
    D = discriminator(kind).float().to(memory_format=torch.channels_last)
    objective = {"stylegan2": Logistic, "pggan": WGANGP}[kind]([1])
    real = rand(4, 1, 16, 16, seed=1)

    def gradients():
        fake = G(rand(4, G.z_dim))
        if objective.d_lazy is not None:
            penalty = objective.d_lazy.penalty(D, real)
        else:
            rng = torch.Generator().manual_seed(0)
            penalty = objective.pair_penalty(D, real, fake.detach(), Draws(rng, len(real)))
        # Networks of random weights have scores of any size: a smooth loss compares them fairly.
        losses = ((D(real) + penalty.sqrt()).mean(), D(fake).mean())
        return [
            torch.autograd.grad(x, list(net.parameters()), allow_unused=True)
            for x, net in zip(losses, (D, G))
        ]

    exact = gradients()
    brief = (in_brief(D), in_brief(G)) and gradients()
    for got, want in zip(brief, exact):
        got, want = ([g for g in part if g is not None] for part in (got, want))
        assert {g.dtype for g in got} == {torch.float32}
        assert 1e-5 < relative(got, want) < 0.05


def test_a_short_inversion_reaches_the_loss_of_float32(G):
    A = partial_circulant((1, 16, 16), 0.5, seed=0)
    loss, truth = MeasurementLoss(A), G(rand(2, G.z_dim, seed=5)).detach()
    multi = MGANPrior(steps=40, num_codes=3, block=2, lr_code=0.05)
    method = ILO([25, 15, 15], 2, 0.05, 0.05, 0.05, fit_samples=500)
    method = multi if not G.per_block_styles else method

    def run():
        rngs = [seeded("cpu", b) for b in range(2)]
        return method.invert(G, A, A(truth), loss, rngs)

    exact, brief = run(), in_brief(G) and run()
    assert brief.image.dtype == brief.latents.w.dtype == torch.float32
    assert all(z.dtype == torch.float32 for z in (brief.latents.add or {}).values())
    assert bool((exact.loss < 0.7 * exact.history[0]).all())
    gained = (exact.history[0] - brief.loss) / (exact.history[0] - exact.loss)
    assert bool(((gained > 0.95) & (gained < 1.05)).all())


def test_a_gpu_without_bfloat16_is_refused_and_a_cpu_without_it_warned_of(monkeypatch, tmp_path):
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda gpu: (7, 5))
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda gpu: "GeForce RTX 2080 Ti")
    with pytest.raises(RuntimeError, match=r"2080 Ti \(compute capability 7.5\) has no bfloat16"):
        check_bf16(0)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda gpu: (8, 0))
    check_bf16(0)
    monkeypatch.setattr("rtil.process.device.CPUINFO", tmp_path / "cpuinfo")
    (tmp_path / "cpuinfo").write_text("flags : avx2 avx512f avx512_bf16\n")
    start(Hardware("cpu", threads=1, precision="bf16"))
    (tmp_path / "cpuinfo").write_text("flags : avx2 avx512f\n")
    start(Hardware("cpu", threads=1))
    with pytest.warns(UserWarning, match="no bfloat16 instructions"):
        rt = start(Hardware("cpu", threads=1, precision="bf16"))
    assert provenance(rt)["precision"] == "bf16" and rt.map_dtype == PRECISIONS["bf16"] == BRIEF
    assert provenance(start(Hardware("cpu", threads=1)))["precision"] == "fp32"


TINY = ("scale=tiny", "hardware=cpu", "hardware.threads=1", "data.num_train=64")


def config(name, *overrides):
    with initialize_config_dir(CONFIGS, version_base="1.3"):
        return compose(name, [*TINY, *overrides])


@pytest.mark.filterwarnings("ignore:hardware.precision=bf16")
def test_training_may_go_on_in_bfloat16_and_says_so_but_rows_of_inversion_do_not_mix(
    tmp_path, caplog
):
    run, bf16 = f"run_dir={tmp_path / 'run'}", "hardware.precision=bf16"
    train.train(config("train", run, "total_nimg=8"))
    with caplog.at_level(logging.WARNING, "rtil.train"):
        train.train(config("train", run, "total_nimg=16", bf16))
    assert "in fp32 so far, goes on in bf16" in caplog.text
    record = json.loads((tmp_path / "run" / "provenance.json").read_text())
    assert record["precision"] == "bf16"

    choice = [
        f"generator={tmp_path / 'run' / 'generator.pt'}",
        f"root={tmp_path}",
        "ratio=0.5",
        "num_images=1",
        "inverter=csgm",
        "inverter.steps=1",
        "pictures=false",
        "yardstick.use=false",
    ]
    invert.invert(config("invert", *choice)).rename(tmp_path / "rows")
    with pytest.raises(ValueError, match=r"hardware\.precision: 'fp32' there, 'bf16' here"):
        invert.invert(config("invert", *choice, bf16, f"run_dir={tmp_path / 'rows'}"))


def test_an_inversion_in_bfloat16_is_another_run_and_a_training_is_not():
    cfg = {"hardware": {"precision": "fp32"}, "seed": 0}
    other = {"hardware": {"precision": "bf16"}, "seed": 0}
    assert identity.values(cfg, "invert") != identity.values(other, "invert")
    assert identity.values(cfg, "train") == identity.values(other, "train")


def test_a_record_without_the_key_is_one_of_float32():
    assert not key_table.differing_keys({"a": 1}, {"a": 1, "hardware": {"precision": "fp32"}})
    assert key_table.differing_keys({"a": 1}, {"a": 1, "hardware": {"precision": "bf16"}})
