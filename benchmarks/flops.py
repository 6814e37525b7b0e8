"""Operations and bytes that a result needs, written out layer by layer.

Counted are convolutions and matrix products, 2 operations per multiply-add: forward, gradient
with respect to activations, gradient with respect to weights, each as many as the forward. A
transposed convolution counts its input's pixels, not the zeros between them. Not counted: filters
of 4 taps, transforms of the operator, element-wise work, optimisers; so a fraction of the matrix
peak is never flattered by them.

Bytes: every counted layer reads its input and its weights and writes its output once per pass,
float32, nothing fused and nothing kept in a cache.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import pairwise
from typing import NamedTuple

from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry


class Counter(TorchDispatchMode):
    """Sums PyTorch's own counts of the convolutions and matrix products that run inside it.

    FlopCounterMode does so by module and cannot follow torch.autograd.grad to a leaf. What runs
    in operators that PyTorch has no count for, such as compiled kernels, is not seen.
    """

    def __init__(self) -> None:
        super().__init__()
        self.flops = 0.0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        count = flop_registry.get(func._overloadpacket)
        if count is not None:
            self.flops += count(*args, **(kwargs or {}), out_val=out)
        return out


def counted(work: Callable[[], object]) -> float:
    """Operations that a call executes, as Counter sees them."""
    with Counter() as counter:
        work()
    return counter.flops


class Layer(NamedTuple):
    """flops: of one image, forward. activations: numbers read and written per image. weights."""

    flops: float
    activations: float
    weights: float


class Cost(NamedTuple):
    """flops and bytes of some work."""

    flops: float
    bytes: float

    def __add__(self, other: Cost) -> Cost:
        return Cost(self.flops + other.flops, self.bytes + other.bytes)

    def __mul__(self, factor: float) -> Cost:
        return Cost(self.flops * factor, self.bytes * factor)

    __rmul__ = __mul__


ZERO = Cost(0.0, 0.0)


def conv(inputs: int, outputs: int, kernel: int, size: int, stride: int = 1) -> Layer:
    """Convolution of square maps.

    Args:
        inputs, outputs: channels.
        kernel: side of the kernel.
        size: side of the output; of the input for a transposed convolution (stride = -2).
        stride: 2 reads a map of twice the side; -2 transposed, writes one.
    """
    read, written = size * max(stride, 1), size * max(-stride, 1)
    weights = inputs * outputs * kernel**2
    flops = 2.0 * weights * size**2
    return Layer(flops, inputs * read**2 + outputs * written**2, weights)


def linear(inputs: int, outputs: int) -> Layer:
    """Matrix product with one row per image."""
    return Layer(2.0 * inputs * outputs, inputs + outputs, inputs * outputs)


def cost(layers: Iterable[Layer], batch: float, passes: float) -> Cost:
    """Cost of `passes` times the forward pass of some layers on a batch."""
    layers = list(layers)
    flops = sum(layer.flops for layer in layers) * batch
    numbers = sum(layer.activations * batch + layer.weights for layer in layers)
    return Cost(passes * flops, passes * 4.0 * numbers)


class StyleGAN2(NamedTuple):
    """Layers of the StyleGAN2 pair: mapping, blocks[k], rgb[k] (k from 1), discriminator."""

    mapping: list[Layer]
    blocks: dict[int, list[Layer]]
    rgb: dict[int, list[Layer]]
    discriminator: list[Layer]

    def generator(self, start: int = 0) -> list[Layer]:
        """Layers that run from block `start`'s output on, its toRGB included."""
        found = [layer for k, part in self.blocks.items() if k > start for layer in part]
        return found + [layer for k, part in self.rgb.items() if k >= start for layer in part]


def stylegan2(model: Mapping) -> StyleGAN2:
    """Layers for the `model` group of a configuration."""
    generator = model["generator"]
    resolution, image = generator["resolution"], generator["image_channels"]
    widths = {int(s): int(c) for s, c in generator["channels"].items() if int(s) <= resolution}
    widths, w_dim = dict(sorted(widths.items())), generator["z_dim"]

    def styled(inputs: int, outputs: int, layer: Layer) -> list[Layer]:
        return [layer, linear(w_dim, inputs), linear(inputs, outputs)]

    blocks, rgb, before = {}, {}, None
    for k, (size, width) in enumerate(widths.items(), start=1):
        part = []
        if before:
            part += styled(before, width, conv(before, width, 3, size // 2, stride=-2))
        blocks[k] = part + styled(width, width, conv(width, width, 3, size))
        rgb[k] = [conv(width, image, 1, size), linear(w_dim, width)]
        before = width
    top = list(widths.items())[::-1]
    D = [conv(image, top[0][1], 1, resolution)]
    for (size, a), (_, b) in pairwise(top):
        half = size // 2
        D += [conv(a, a, 3, size), conv(a, b, 3, half, stride=2), conv(a, b, 1, half, stride=2)]
    last = top[-1][1]
    D += [conv(last + 1, last, 3, 4), linear(16 * last, last), linear(last, 1)]
    mapping = [linear(w_dim, w_dim)] * generator["num_mapping"]
    return StyleGAN2(mapping, blocks, rgb, D)


class PGGAN(NamedTuple):
    """Layers of the PGGAN pair at full size: blocks[k] (k from 1), rgb, discriminator."""

    blocks: dict[int, list[Layer]]
    rgb: list[Layer]
    discriminator: list[Layer]

    def head(self, block: int) -> list[Layer]:
        """g_0: layers up to `block`."""
        return [layer for k, part in self.blocks.items() if k <= block for layer in part]

    def tail(self, block: int) -> list[Layer]:
        """g_1: layers after `block`."""
        after = [layer for k, part in self.blocks.items() if k > block for layer in part]
        return after + self.rgb


def pggan(model: Mapping) -> PGGAN:
    """Layers for the `model` group of a configuration.

    Of the generator's choices only first_convs changes a count: the others stand between what is
    counted.
    """
    generator = model["generator"]
    resolution, image = generator["resolution"], generator["image_channels"]
    widths = {int(s): int(c) for s, c in generator["channels"].items() if int(s) <= resolution}
    table = sorted(widths.items())
    blocks = {1: [linear(generator["z_dim"], 16 * table[0][1])]}
    D = []
    before = table[0][1]
    for k, (size, width) in enumerate(table, start=1):
        if k == 1:
            blocks[k] += [conv(width, width, 3, size)] * generator.get("first_convs", 2)
            last = conv(width, width, 4, 1, stride=4)  # 4x4 to one pixel
            D += [conv(width + 1, width, 3, 4), last, linear(width, 1)]
        else:
            blocks[k] = [conv(before, width, 3, size), conv(width, width, 3, size)]
            D += [conv(width, before, 3, size), conv(before, before, 3, size)]
        before = width
    D.append(conv(image, before, 1, resolution))
    return PGGAN(blocks, [conv(before, image, 1, resolution)], D)


# Passes, in units of the forward. A penalty on a gradient runs forward and gradient, then the
# backward of both, twice the forward each: curvature (minibatch deviation, pixel norm, styles)
# carries the second into the forward's layers.
PENALTY = 6.0


def stylegan2_step(layers: StyleGAN2, batch: int, members: int, objective: Mapping) -> Cost:
    """One training step, lazy penalties averaged over their intervals.

    Args:
        layers: of the pair.
        batch: images per member.
        members: passes: 1 for vanilla and mixture, all members as published.
        objective: r1_every, path_every, path_batch.
    """
    G, D, mapping = layers.generator(), layers.discriminator, layers.mapping
    styles = 2 * batch  # style mixing maps two latents
    d = cost(D, batch, 3)
    d += members * (cost(G, batch, 1) + cost(mapping, styles, 1) + cost(D, batch, 3))
    d += cost(D, batch, PENALTY) * (1 / objective["r1_every"])
    g = members * (cost(G, batch, 3) + cost(mapping, styles, 3) + cost(D, batch, 2))
    few = objective["path_batch"]
    path = cost(G, few, PENALTY) + cost(mapping, 2 * few, 3)
    return d + g + members * path * (1 / objective["path_every"])


def pggan_step(layers: PGGAN, batch: int, codes: Sequence[int], block: int) -> Cost:
    """One training step of the published family with these numbers of codes.

    A mixture's mean step is this divided by len(codes), but for the real images' share: see
    `pggan_mixture_step`.
    """
    D = layers.discriminator
    step = cost(D, batch, 3)
    for n in codes:
        G = cost(layers.head(block), n * batch, 1) + cost(layers.tail(block), batch, 1)
        step += 4 * G + cost(D, batch, 3 + PENALTY + 2)
    return step


def pggan_mixture_step(layers: PGGAN, batch: int, codes: Sequence[int], block: int) -> Cost:
    """Mean step where each group of samples draws its number of codes."""
    real = cost(layers.discriminator, batch, 3)
    family = pggan_step(layers, batch, codes, block) + real * -1
    return real + family * (1 / len(codes))


def ilo_step(layers: StyleGAN2, batch: int, stage: int) -> Cost:
    """One step of a stage: forward and gradient with respect to activations, from its block on."""
    return cost(layers.generator(stage), batch, 2)


def mgan_step(layers: PGGAN, batch: int, codes: int, block: int) -> Cost:
    """One step of mGANprior: forward and gradient with respect to activations."""
    return cost(layers.head(block), codes * batch, 2) + cost(layers.tail(block), batch, 2)
