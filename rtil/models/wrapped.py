"""Any module as a Generator: cut at submodules, with shapes and laws found by a dry run.

Lives here: `wrap` and the class that it makes. How forward becomes blocks is in
`rtil.models.stages`. Shapes are found whenever it is built, on the device meta too, so that what a
file declares is refused before it takes memory; laws where it is wrapped, imported or trained.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import cast, final

import torch
from torch import Tensor, nn

from rtil.models.generator import Generator, State, StylePrior
from rtil.models.stages import Stage, of_functions, of_names
from rtil.process.brief import brief, reason
from rtil.process.rng import seeded

log = logging.getLogger("rtil.models.wrapped")

RANGES = ("signed", "unit")
CHUNK = 10_000  # latents at a time that the prior is fitted to
# Values of one sample's map, a GB: what a file declares is run once when it is read.
LARGEST = 2**28
MIXED = 1e-3  # of the largest pixel: an image alone and in a batch differ less by rounding


def wrap(
    module: nn.Module,
    cuts: Sequence[str] | Sequence[Stage],
    *,
    latent: Sequence[int] | None = None,
    latent_map: str | None = None,
    image_range: str = "signed",
) -> Generator:
    """Makes a module that draws images from a latent a Generator.

    Blocks end at the cuts. What crosses a cut is the submodule's output and nothing else: what
    later blocks read beside it is a part or function of the latent, or the cut is refused.

    Args:
        module: image = module(z), z (B, *latent) ~ N(0, I). It is used as it is, not copied.
        cuts: names of submodules in the order in which forward runs them, where "*" stands for
            one part of a name; or, where forward cannot be followed, K + 1 functions of
            (module, x), the first of z, the last to the image.
        latent: shape of one sample's latent; None: that which the first layer takes.
        latent_map: name of the submodule whose output are the styles, as of a mapping network;
            None: the latent itself.
        image_range: what the module draws in: "signed", [-1, 1], or "unit", [0, 1].

    Returns:
        The generator, which families, inverters and training take as any other.

    Raises:
        ValueError: a cut that there is not, or where something else crosses; a module that draws
            no square image, draws random numbers, or mixes the samples of a batch.
    """
    G = Wrapped(module, cuts, latent, latent_map, image_range)
    G.verify()
    return G


@final
class Wrapped(Generator):
    """A module cut into blocks; see `wrap`.

    Styles are vectors. Where blocks after the first read w, each reads its own row of it, as the
    layers of StyleGAN2 do: w_shape = (rows, length).

    Attributes:
        module: the module; its weights are named "module." and their own name.
    """

    noise_shapes = ()

    def __init__(
        self,
        module: nn.Module,
        cuts: Sequence[str] | Sequence[Stage],
        latent: Sequence[int] | None = None,
        latent_map: str | None = None,
        image_range: str = "signed",
    ) -> None:
        super().__init__()
        _check_arguments(module, cuts, latent_map, image_range)
        self.module, self.image_range = module, image_range
        self.latent = tuple(latent) if latent is not None else _latent_of(module)
        self.z_dim = torch.Size(self.latent).numel()
        if self.z_dim > LARGEST:
            raise ValueError(
                f"rtil.wrap: latent={brief([*self.latent])} has more than {LARGEST} values a "
                "sample; give a smaller latent."
            )
        who = type(module).__name__
        with _evaluated(module), torch.no_grad():
            z = self._latents("latents")
            self._image_shape = _image_shape(self._drawn(z), len(z), who)
            names = [cut for cut in cuts if isinstance(cut, str)]
            if names:
                self.stages = of_names(self, names, latent_map)
            else:
                self.stages = of_functions(cast("Sequence[Stage]", cuts))
            self.max_blocks = self.num_blocks = len(self.stages.names)
            readers = self.stages.readers
            self.per_block_styles = any(k > 1 for k in readers)
            self._rows = {k: row for row, k in enumerate(readers)}
            self._find_shapes(z)

    @property
    def shapes(self) -> dict[int, tuple[int, int, int]]:
        return {k: _as_map(shape) for k, shape in self._shapes.items()}

    @property
    def image_shape(self) -> tuple[int, int, int]:
        return self._image_shape

    @property
    def stage(self) -> tuple[float, ...]:
        return (self.num_blocks,)

    def map(self, z0: Tensor) -> Tensor:
        """Maps z0 (B, z_dim) to styles (B, *w_shape), equal for all blocks that read them."""
        w = z0
        if self.stages.map is not None:
            z = z0.view(-1, *self.latent)
            with self._typed(z):
                w = self.stages.map(self, z, z).to(z0.dtype).flatten(1)
        return w[:, None].expand(-1, *self.w_shape) if self.per_block_styles else w

    def step(
        self, k: int, state: State, w: Tensor, noise: tuple[Tensor, ...] | None = None
    ) -> State:
        x = self._block(k, state, w)
        return State(x.reshape(-1, *_as_map(tuple(x.shape[1:]))))

    def image(self, state: State, w: Tensor) -> Tensor:
        return self._signed(self._block(self.num_blocks + 1, state, w).to(w.dtype))

    def _block(self, k: int, state: State, w: Tensor) -> Tensor:
        """What block k computes, as the module has it: x_k, or the image where k is past all."""
        if self.per_block_styles:
            w = w[:, self._rows.get(k, 0)]
        w = w.reshape(-1, *self._w_shape)
        # A block that computes in place would change the state that others restart from.
        x = state.x
        if k > 1:
            x = x.to(w.dtype).reshape(-1, *self._shapes[k - 1])
        if k in self._in_place:
            x, w = x.clone(), w.clone()
        with self._typed(w):
            return self.stages.blocks[k - 1](self, x, w)

    def _typed(self, like: Tensor) -> AbstractContextManager[object]:
        """Within, convolutions compute in `map_dtype`."""
        if self.map_dtype is None:
            return nullcontext()
        return torch.autocast(like.device.type, self.map_dtype)

    @torch.no_grad()
    def style_prior(self, num_samples: int, rng: torch.Generator) -> StylePrior:
        """z0 itself is standard normal; styles of a map have their mean and deviation."""
        weight = next(self.parameters())
        if self.stages.map is None:
            zeros = torch.zeros(self.z_dim, device=weight.device, dtype=weight.dtype)
            return StylePrior(zeros, zeros + 1.0, 1.0)
        total = square = torch.zeros((), dtype=torch.float64)
        done = 0
        while done < num_samples:
            count = min(CHUNK, num_samples - done)
            w = self.map(self.randn((count, self.z_dim), rng)).double()
            v = w[:, 0] if self.per_block_styles else w
            total, square = total + v.sum(0), square + v.square().sum(0)
            done += count
        mean = total / done
        std = (square / done - mean.square()).clamp_min(0).sqrt()
        return StylePrior(mean.to(weight), std.to(weight), 1.0)

    def progress(self, nimg: int) -> None:
        """Nothing grows."""

    @torch.no_grad()
    def verify(self) -> None:
        """Compares blocks with the module on two latents, with the weights as they are now.

        Raises:
            ValueError: they differ, so that forward keeps or draws something that is no function
                of its argument, or mixes the samples of a batch.
        """
        who = type(self.module).__name__
        with _evaluated(self.module):
            z, other = self._latents("latents"), self._latents("others")
            want = self._drawn(z)
            if not torch.equal(self._drawn(z), want):
                raise ValueError(
                    f"rtil.wrap: {who} draws two images from one latent: its forward draws random "
                    "numbers or keeps something. Make it a function of the latent."
                )
            if (self._drawn(z[:1]) - want[:1]).abs().max() > MIXED * want.abs().max():
                raise ValueError(
                    f"rtil.wrap: an image of {who} depends on the others of its batch, as with "
                    "normalisation over the batch that keeps no running statistics."
                )
            w = self.map(z.flatten(1))
            states = {k: self.run(w, stop=k) for k in range(1, self.num_blocks + 1)}
            self._drawn(other)  # what forward keeps in attributes is of other latents now
            want = self._signed(want)
            for k, state in sorted(states.items(), reverse=True):
                if not torch.equal(self.image(self.run(w, start=k, state=state), w), want):
                    raise ValueError(
                        f"rtil.wrap: a restart of {who} from {self.stages.names[k - 1]} draws "
                        "another image than forward: something beside the cut's tensor crosses "
                        "there, as an attribute that forward sets or a map that it changes in "
                        "place. Cut elsewhere."
                    )
        if self.image_range == "signed" and bool((want >= 0).all()):
            log.warning(
                "%s draws no pixel below 0, as if in [0, 1]: image_range=unit reads it so.", who
            )

    def _find_shapes(self, z: Tensor) -> None:
        """Runs every block once, for its shape and whether it changes what it is given."""
        raw = z if self.stages.map is None else self.stages.map(self, z, z)
        x, in_place = z.new_empty(0), set()
        self._shapes: dict[int, tuple[int, ...]] = {}
        for k, block in enumerate(self.stages.blocks, start=1):
            given, w = x.clone(), raw.clone()
            result = block(self, given, w)
            # Without values, on the device meta, a copy too many is safe.
            unknown = z.device.type == "meta"
            if unknown or not (torch.equal(given, x) and torch.equal(w, raw)):
                in_place.add(k)
            if k <= self.num_blocks:
                self._shapes[k] = _crossing(result, len(z), self.stages.names[k - 1])
            x = result.clone()
        self._in_place = frozenset(in_place)
        self._w_shape = tuple(raw.shape[1:])
        length = torch.Size(self._w_shape).numel()
        rows = len(self.stages.readers)
        self.w_shape = (rows, length) if self.per_block_styles else (length,)

    def _signed(self, image: Tensor) -> Tensor:
        """An image in [-1, 1]."""
        return 2 * image - 1 if self.image_range == "unit" else image

    def _latents(self, purpose: str) -> Tensor:
        """Two latents (2, *latent) of the weights' type, where these are."""
        weight = next(self.module.parameters())
        if weight.is_meta:
            return torch.empty((2, *self.latent), device="meta", dtype=weight.dtype)
        rng = seeded("cpu", "wrapped", purpose)
        return torch.randn((2, *self.latent), generator=rng, device="cpu").to(weight)

    def _drawn(self, z: Tensor) -> Tensor:
        """What the module itself draws.

        Raises:
            ValueError: it does not take such a latent.
        """
        try:
            return self.module(z.clone())
        except (TypeError, ValueError, RuntimeError, LookupError, AttributeError) as error:
            raise ValueError(
                f"rtil.wrap: {type(self.module).__name__} draws nothing from a latent of shape "
                f"{brief([*self.latent])} ({reason(error)}). Give latent=[...], the shape of "
                "one sample's latent."
            ) from error


def _check_arguments(
    module: nn.Module,
    cuts: Sequence[str] | Sequence[Stage],
    latent_map: str | None,
    image_range: str,
) -> None:
    """Raises ValueError for what is no module with weights, no cuts, or no range."""
    if not isinstance(module, nn.Module) or next(module.parameters(), None) is None:
        raise ValueError(
            f"rtil.wrap: {brief(type(module).__name__)} is no torch.nn.Module with weights."
        )
    texts = [isinstance(cut, str) for cut in cuts]
    if not texts or any(texts) != all(texts) or not (all(texts) or all(map(callable, cuts))):
        raise ValueError(
            f"rtil.wrap: cuts={brief([*map(str, cuts)])} must be names of submodules alone, or "
            "functions of (module, x) alone."
        )
    if latent_map is not None and not all(texts):
        raise ValueError(
            f"rtil.wrap: latent_map={brief(latent_map)} goes with cuts by name; of functions the "
            "first takes the latent."
        )
    if image_range not in RANGES:
        raise ValueError(
            f"rtil.wrap: image_range={brief(image_range)} must be {' or '.join(RANGES)}."
        )


def _latent_of(module: nn.Module) -> tuple[int, ...]:
    """The latent that the first layer takes.

    Raises:
        ValueError: no layer says it.
    """
    for layer in module.modules():
        if isinstance(layer, nn.Linear):
            return (layer.in_features,)
        if isinstance(layer, nn.Conv2d | nn.ConvTranspose2d):
            return (layer.in_channels, 1, 1)
    raise ValueError(
        f"rtil.wrap: no layer of {type(module).__name__} says what latent it takes. Give "
        "latent=[...], the shape of one sample's latent."
    )


def _crossing(x: object, batch: int, name: str) -> tuple[int, ...]:
    """The shape of one sample's tensor at a cut.

    Raises:
        ValueError: it is no map of each sample.
    """
    if not isinstance(x, Tensor):
        raise ValueError(
            f"rtil.wrap: {name} returns {brief(type(x).__name__)}, and one tensor crosses a cut."
        )
    if not 2 <= x.ndim <= 4 or len(x) != batch:
        raise ValueError(
            f"rtil.wrap: {name} returns {brief([*x.shape])} for {batch} latents; a map is (B, C), "
            "(B, C, N) or (B, C, H, W)."
        )
    _check_size(x, name)
    return tuple(x.shape[1:])


def _check_size(x: Tensor, name: str) -> None:
    """Raises ValueError where one sample's map has more values than any that is inverted."""
    if x[0].numel() > LARGEST:
        raise ValueError(
            f"rtil.wrap: {name} returns {brief([*x.shape])}, more than {LARGEST} values a sample; "
            "give a smaller latent."
        )


def _as_map(shape: tuple[int, ...]) -> tuple[int, int, int]:
    """(C, H, W) of one sample's tensor: (C,) is (C, 1, 1), (C, N) is (C, N, 1)."""
    channels, height, width = (*shape, 1, 1)[:3]
    return channels, height, width


def _image_shape(image: object, batch: int, who: str) -> tuple[int, int, int]:
    """(C, H, W) of what a module draws.

    Raises:
        ValueError: it is no square image in grey or colour.
    """
    got = brief([*image.shape]) if isinstance(image, Tensor) else brief(type(image).__name__)
    if isinstance(image, Tensor) and image.ndim == 4 and len(image) == batch:
        channels, height, width = image.shape[1:]
        if channels in (1, 3) and height == width:
            _check_size(image, who)
            return channels, height, width
    raise ValueError(
        f"rtil.wrap: {who} returns {got} for {batch} latents, which is no image; images are "
        "(B, 1 or 3, S, S)."
    )


@contextmanager
def _evaluated(module: nn.Module) -> Iterator[None]:
    """Within, the module and all below it are in evaluation mode."""
    modes = {each: each.training for each in module.modules()}
    module.eval()
    try:
        yield
    finally:
        for each, training in modes.items():
            each.training = training
