"""How a generator and its latent family are trained: the loop, one step, its parts.

It reads from top to bottom. `run` is the loop; `d_step` and `g_step` are a step's two halves, each
an update and, now and then, a second one for a lazy penalty; `average` ends the step. Progress is
counted in images (nimg), and the same command goes on from its last checkpoint. Every random
number belongs to (seed, nimg, place in the batch), so any number of processes gives the same
training up to the rounding of sums.

What is trained is composed in `rtil.training.setup`, what one step draws is in
`rtil.training.step`, what is shown of it is in `rtil.training.monitor`. A new loss is an
objective (`rtil.objectives`), a new member of the family a latent space (`rtil.latents`): neither
touches this file.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.optim import Optimizer

from rtil import checkpoint
from rtil.checkpoint import Progress
from rtil.data.base import ImageData, to_float
from rtil.data.stream import Prefetch, epoch_indices
from rtil.latents.family import Family
from rtil.latents.space import LatentSpace
from rtil.models.generator import Generator
from rtil.objectives.objective import GeneratorPenalty, RealPenalty
from rtil.process import replay
from rtil.process.device import Runtime
from rtil.process.distributed import average_gradients, barrier
from rtil.process.lock import Owner
from rtil.process.replay import Noted, Recorder
from rtil.process.rng import Draws, seed_of
from rtil.process.signals import StopRequest
from rtil.training.monitor import Board, Terms, save_grid
from rtil.training.settings import Settings
from rtil.training.step import Fakes, Nets, Step

log = logging.getLogger("rtil.train")


@dataclass(frozen=True)
class Training:
    """A training as `rtil.training.setup` composes it: all that the loop reads and changes.

    Attributes:
        config: what was asked for, resolved; written into checkpoints, not read here.
        owner: holds the run directory; None in all processes but the first.
    """

    settings: Settings
    config: dict
    rt: Runtime
    data: ImageData
    family: Family
    nets: Nets
    owner: Owner | None


def run(training: Training) -> int | None:
    """Trains to total_nimg images, or to a stop signal.

    Returns:
        The signal that stopped it, or None at the end of training.

    Raises:
        ValueError: the newest checkpoint cannot be read or does not fit.
        RuntimeError: a loss or a weight is not finite, after which the last checkpoint stays.
    """
    settings, nets, rt = training.settings, training.nets, training.rt
    run_dir, total = settings.run_dir, settings.total_nimg

    # Resume. What an earlier command left half done is made whole first.
    nimg, number = checkpoint.restore_training(run_dir, nets.parts())
    barrier(rt.device)  # nobody reads any more what the first process renames
    if rt.rank == 0 and nimg:
        checkpoint.set_damaged_aside(run_dir, Progress(nimg, number))
        checkpoint.export(run_dir, nets.parts(), training.config, Progress(nimg, number))
        checkpoint.drop_old(run_dir, settings.keep_checkpoints)
    if nimg >= total:
        log.info("%s is trained already: %d of %d images.", run_dir, nimg, total)
        return None

    # Status. The first process alone writes; every one counts terms, so all stop at a bad one.
    signum, terms = None, Terms()
    board = Board(run_dir, nimg, total, rt.device, training.data) if rt.rank == 0 else None

    # Generators are seeded anew each step: a recorded step reads their state when it is replayed.
    rngs = [torch.Generator(rt.device) for _ in range(1 + settings.reuse_fakes)]
    record = Recorder(rngs, rt.world == 1 and replay.wanted(rt.device))
    with StopRequest() as request, closing(reader(training)) as reals:
        while nimg < total:
            # Step: discriminator, generator, each with its penalty when that is due, average.
            batch = settings.batch_at(nimg)
            step = next_step(training, Progress(nimg, number), reals, record)
            if nets.D_optim is not None:
                terms.note(number, d_step(nets, training.family, step, record))
            # A discriminator that is new learns what images are before a trained G follows it.
            if nimg >= settings.d_alone_nimg:
                terms.note(number, g_step(nets, training.family, step, record))
                average(nets, settings.ema_decay)
            nimg, number = nimg + batch, number + 1

            # Log. A bad loss ends training here, before it is in a checkpoint.
            signum, is_last = request.seen(), nimg >= total
            is_due = is_last or signum or crossed(nimg, batch, settings.checkpoint_every)
            means = terms.report() if is_due or number % settings.log_every == 0 else None
            if board:
                if means:
                    board.write(nimg, number, means)
                board.advance(nimg)

            # Samples.
            if board and (is_last or crossed(nimg, batch, settings.samples_every)):
                save_grid(training.family, nets.G_ema, settings.seed, nimg, run_dir)

            # Checkpoint.
            if board and is_due:
                save(training, Progress(nimg, number))
            if signum:
                break

    if board:
        board.close(nimg)
    return signum if nimg < total else None


def reader(training: Training) -> Prefetch[Tensor]:
    """This process's share of the batch that starts at an image: uint8 (B, C, S, S)."""
    return Prefetch(lambda nimg: training.data.batch(indices(training, nimg)))


def indices(training: Training, nimg: int) -> Tensor:
    """Which of the images this process's share of the batch is that starts at one: (B,)."""
    settings, rt = training.settings, training.rt
    batch = settings.batch_at(nimg)
    return epoch_indices(len(training.data), settings.seed, nimg, batch).chunk(rt.world)[rt.rank]


def next_step(training: Training, at: Progress, reals: Prefetch[Tensor], record: Recorder) -> Step:
    """Sets networks and draws to where training is, and reads and prepares real images."""
    settings, nets, rt = training.settings, training.nets, training.rt
    nets.progress(at.nimg)
    batch = settings.batch_at(at.nimg)
    rng, *of_fakes = record.rngs
    # The 0 is what version 0.1 says for one process, whose draws go on.
    rng.manual_seed(seed_of(settings.seed, "train", 0, at.nimg))
    draws, fakes = Draws(rng, batch, rt.rank, rt.world), None
    if of_fakes:
        seed = seed_of(settings.seed, "fakes", at.nimg)
        fakes = Fakes(replace(draws, rng=of_fakes[0]), seed)
    images = reals.get(at.nimg)
    # The next ones are read while this step is taken.
    reals.schedule(at.nimg + batch)
    real = prepare(images.to(rt.device), settings.resolution, nets.G, settings.mirror, draws)
    index = None
    if nets.objective.by_image:
        index = record.hold(indices(training, at.nimg).to(rt.device))
    return Step(at.step, record.hold(real), draws, settings.style_mixing, fakes, index)


def prepare(images: Tensor, resolution: int, G: Generator, mirror: bool, draws: Draws) -> Tensor:
    """uint8 images (B, C, S, S) to [-1, 1]: random crop, flip, size of the growing stage."""
    x = to_float(images)
    slack = x.shape[2] - resolution
    if slack:
        size, rng = (2, draws.total), draws.rng
        corners = torch.randint(slack + 1, size, generator=rng, device=rng.device)
        crops = [
            image[:, top : top + resolution, left : left + resolution]
            for image, (top, left) in zip(x, draws.keep(corners.T).tolist())
        ]
        x = torch.stack(crops)
    if mirror:
        flip = draws.uniform(1, 1, 1) < 0.5
        x = torch.where(flip.to(x.device), x.flip(3), x)
    factor = x.shape[2] // G.image_shape[1]
    return F.avg_pool2d(x, factor) if factor > 1 else x


def d_step(nets: Nets, family: Family, step: Step, record: Recorder) -> Noted:
    """The discriminator's half of a step, and its lazy penalty when that is due."""
    # A GPU replays what it recorded under the same key, so a key holds all that decides which
    # kernels run: besides the stage the number of images, and the members where they are drawn.
    batch, stage = step.draws.total, nets.G.stage
    key = ("D", batch, *drawn(family, batch, step.number))
    step.begin()
    noted = record(stage, key, lambda: d_update(nets, family, step))
    lazy = nets.objective.d_lazy
    if lazy is not None and step.number % lazy.every == 0:
        noted += record(stage, ("D penalty", batch), lambda: d_penalty(nets, lazy, step))
    if nets.augmentation is not None:
        noted += nets.augmentation.adjust(step.number)
    return noted


def d_update(nets: Nets, family: Family, step: Step) -> Noted:
    """An update of the discriminator: real images once, then each space's images in turn."""
    G, D, objective, real = nets.G, nets.shown(step.draws), nets.objective, step.real
    assert objective.fake is not None, "there is a discriminator"
    noted: Noted = []
    # What the other network would get is neither computed nor kept.
    G.requires_grad_(False)
    with update(nets.D_optim):
        scores, pairs = D(real), None
        if objective.paired:
            # All spaces' pairs add up the gradient of these scores, which goes through D once.
            pairs = scores.detach().requires_grad_()
        if objective.real is not None:
            loss = objective.real(scores)
            noted.append(("D/real", loss.detach(), ()))
            loss.mean().backward()
            del loss
        if objective.real_penalty is not None:
            own = objective.real_penalty(D, real)
            noted.append(("D/real penalty", own.detach(), ()))
            own.mean().backward()
            del own
        for space, weight in zip(family.spaces, family.weights):
            with torch.no_grad():
                latents = step.latents(space, G)
                fake = space.synthesize(G, latents)
            members = member_names(space, latents.member)
            fake_scores = D(fake)
            if nets.augmentation is not None:
                lead = scores if objective.lead is None else objective.lead(scores, fake_scores)
                nets.augmentation.observe(lead.detach(), weight)
            loss = objective.fake(fake_scores, pairs)
            noted.append((f"D/fake {space.title}", loss.detach(), members))
            penalty = None
            if objective.pair_penalty is not None:
                penalty = objective.pair_penalty(D, real, fake, step.draws)
                noted.append((f"D/penalty {space.title}", penalty.detach(), members))
                loss = loss + penalty
            (weight * loss.mean()).backward()
            # Free before the next member's are made: the peak is that of one member.
            del latents, fake, fake_scores, loss, penalty
        if pairs is not None:
            scores.backward(pairs.grad)
    return noted


def d_penalty(nets: Nets, lazy: RealPenalty, step: Step) -> Noted:
    """An update of the discriminator for its lazy penalty."""
    with update(nets.D_optim):
        penalty = lazy.penalty(nets.shown(step.draws), step.real)
        penalty.mean().backward()
    return [(f"D/{lazy.name}", penalty.detach(), ())]


def g_step(nets: Nets, family: Family, step: Step, record: Recorder) -> Noted:
    """The generator's half of a step, and its lazy penalty when that is due."""
    batch, stage = step.draws.total, nets.G.stage
    key = ("G", batch, *drawn(family, batch, step.number))
    step.begin()
    noted = record(stage, key, lambda: g_update(nets, family, step))
    lazy = nets.objective.g_lazy
    if lazy is not None and step.number % lazy.every == 0:
        turn = lazy.turn(step.number)
        key = ("G penalty", lazy.batch, *drawn(family, lazy.batch, turn))
        noted += record(stage, key, lambda: g_penalty(nets, family, lazy, step))
    return noted


def g_update(nets: Nets, family: Family, step: Step) -> Noted:
    """An update of the generator, each space's images in turn."""
    G, D, objective = nets.G, nets.shown(step.draws), nets.objective
    noted: Noted = []
    nets.D.requires_grad_(False)
    pairs = D(step.real) if objective.paired else None
    with update(nets.G_optim):
        for space, weight in zip(family.spaces, family.weights):
            latents, cost = step.latents(space, G), None
            if objective.assign is not None:
                latents, cost = objective.assign(G, space, latents, step)
            loss = objective.generator(D(space.synthesize(G, latents)), pairs)
            members = member_names(space, latents.member)
            noted.append((f"G/loss {space.title}", loss.detach(), members))
            if cost is not None:
                noted.append((f"G/latents {space.title}", cost.detach(), members))
                loss = loss + cost
            # Gradients add up over the spaces to those of the family's weighted mean.
            (weight * loss.mean()).backward()
            del latents, loss, cost
    if objective.settle is not None:
        objective.settle(step)
    return noted


def g_penalty(nets: Nets, family: Family, lazy: GeneratorPenalty, step: Step) -> Noted:
    """An update of the generator for its lazy penalty, each space's samples in turn."""
    G = nets.G
    draws, turn = step.draws.over(lazy.batch), lazy.turn(step.number)
    noted: Noted = []
    with update(nets.G_optim):
        for i, (space, weight) in enumerate(zip(family.spaces, family.weights)):
            latents = step.sample(space, G, draws, turn)
            penalty = lazy.penalty(G, space, i, latents, draws)
            members = member_names(space, latents.member)
            noted.append((f"G/{lazy.name} {space.title}", penalty.detach(), members))
            (weight * penalty.mean()).backward()
            del latents, penalty
    return noted


@contextmanager
def update(optim: Optimizer | None) -> Iterator[None]:
    """An update of a network by its optimiser, from the gradients that are taken within."""
    assert optim is not None, "there is something to train"
    # Those of the optimiser: layers that are frozen (rtil.training.freeze) are none of them.
    trained = [p for group in optim.param_groups for p in group["params"]]
    for p in trained:
        p.requires_grad_(True)
    optim.zero_grad(set_to_none=True)
    yield
    average_gradients(trained)
    optim.step()


@torch.no_grad()
def average(nets: Nets, decay: float) -> None:
    """Moves the averaged weights: G_ema <- decay G_ema + (1 - decay) G."""
    torch._foreach_lerp_([*nets.G_ema.parameters()], [*nets.G.parameters()], 1.0 - decay)
    # What a module of the user's keeps beside weights, such as running statistics, is as G has it.
    # Buffers of other generators are alike in both.
    if buffers := [*nets.G_ema.buffers()]:
        torch._foreach_copy_(buffers, [*nets.G.buffers()])


def drawn(family: Family, batch: int, turn: int) -> list[tuple[int, ...]]:
    """Member of each sample, by space; () where every draw of a space is alike."""
    return [space.drawn(batch, turn) for space in family.spaces]


def member_names(space: LatentSpace, member: tuple[int, ...]) -> tuple[str, ...]:
    """Name of each sample's member."""
    return tuple(space.names[m] for m in member)


def save(training: Training, at: Progress) -> None:
    """Writes checkpoint and exported generator, then drops checkpoints beyond keep_checkpoints.

    Raises:
        RuntimeError: a weight is not finite, or the disk is full; older checkpoints stay.
    """
    nets, settings = training.nets, training.settings
    networks = (nets.G, nets.D, nets.objective)
    for name, p in (named for network in networks for named in network.named_parameters()):
        if not bool(p.isfinite().all()):
            raise RuntimeError(
                f"train: weight {name} is not finite after step {at.step}; the last checkpoint is "
                "from before it. Lower model.lr."
            )
    checkpoint.save_training(settings.run_dir, nets.parts(), training.config, at)
    checkpoint.drop_old(settings.run_dir, settings.keep_checkpoints)


def crossed(nimg: int, batch: int, every: int) -> bool:
    """Whether a multiple of `every` lies in (nimg - batch, nimg]."""
    return nimg // every > (nimg - batch) // every
