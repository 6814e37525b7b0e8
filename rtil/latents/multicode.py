"""Several codes per image, mixed at an intermediate block: mGANprior-RTIL (paper, section 3.2)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import groupby
from typing import final

import torch
from torch import Tensor

from rtil.latents.space import Latents, MapScale, Member
from rtil.models.generator import EMPTY, Generator, State

FADES = ("mixed", "last")
TINY = 1e-30  # nothing divides by less


@final
@dataclass(frozen=True)
class MultiCode(Member):
    """g_1(sum_n g_0(z_n) * alpha^n), alpha' ~ Dir_N(1), equal over channels (section 3.2).

    Where an image crosses the cut too (skip connections), it is mixed by the mean of alpha^n over
    channels. Where blocks after the mix read styles, they read the codes' weighted mean

        w = sum_n s_n w_n,    s_n = sum_c |alpha^n_c| / sum_{n', c} |alpha^n'_c|,

    1 / N each where all weights are 0. The shares s are alpha' in training; in inversion, where a
    weight may leave the simplex, they still make a mean of the styles. Noise maps belong to the
    image: its codes share them. The paper has no codes for such a generator.

    Differs from the published code while a growing generator fades in the block that codes are
    mixed after: the image that fades out is the codes' mixture, where the published code has that
    of one code alone (fade_in: last).

    Args:
        num_codes: N; 1 is the plain generator.
        block: the codes' maps are mixed after this block; a generator that has not grown so far
            mixes after its last one (published code).
        fade_in: the image of the block before, while `block` fades in: "mixed", the codes' images
            by their weights, as their maps, or "last", that of the last code (published code).

    Raises:
        ValueError: num_codes or block below 1, or another fade_in.
    """

    num_codes: int
    block: int = 4
    fade_in: str = "mixed"

    def __post_init__(self) -> None:
        if self.fade_in not in FADES:
            raise ValueError(f"MultiCode: fade_in={self.fade_in!r} must be {' or '.join(FADES)}.")
        if self.num_codes < 1 or self.block < 1:
            raise ValueError(
                f"MultiCode: num_codes={self.num_codes}, block={self.block}; both must be 1 or "
                "more."
            )

    @property
    def name(self) -> str:
        return f"N={self.num_codes}"

    @property
    def is_plain(self) -> bool:
        return self.num_codes == 1

    @property
    def nested(self) -> tuple[Member, ...]:
        return (self,)

    @property
    def order(self) -> tuple[float, ...]:
        return float(self.block), float(self.num_codes)

    def map_scale(self, k: int) -> MapScale | None:
        return None

    def shares_pass(self, other: Member) -> bool:
        """Where both mix their codes after the same block, and fade it in alike."""
        if not isinstance(other, MultiCode):
            return False
        return (other.block, other.fade_in) == (self.block, self.fade_in)

    def check(self, G: Generator) -> None:
        if G.per_block_styles and self.fade_in == "last":
            raise ValueError(
                f"MultiCode: fade_in=last is of a generator that grows; {type(G).__name__} reads "
                "styles in every block and does not. Use fade_in=mixed."
            )
        if self.block > G.max_blocks:
            raise ValueError(
                f"MultiCode: block={self.block} is past the last of {G.max_blocks} blocks; lower "
                "rtil.block or raise resolution."
            )

    def extend(self, G: Generator, w: Tensor, rng: torch.Generator) -> Latents:
        """Draws the weights of codes w (B N, *w_shape), N consecutive ones a sample, and noise."""
        n = self.num_codes
        batch = len(w) // n
        alpha = flat_dirichlet((batch, n), rng).to(w).reshape(-1, 1)
        noise = G.sample_noise(batch, rng)
        return Latents(w, noise, alpha=alpha, counts=(n,) * batch, member=(0,) * batch)

    def synthesize(
        self, G: Generator, latents: Latents, start: int = 0, state: State = EMPTY
    ) -> Tensor:
        """As LatentSpace.synthesize; a restart lies at or after the mix, so start is its block."""
        # Latents without weights are of another family; the caller mixed them up.
        assert latents.alpha is not None and latents.counts is not None
        noise, w = latents.noise, latents.w
        if start == 0:
            block = min(self.block, G.num_blocks)
            shared = tuple(_spread(maps, latents.counts) for maps in noise)
            state = G.run(w, shared or None, stop=block)
            x = state.x * latents.alpha[:, :, None, None]
            rgb = None if state.rgb is None else self._crossing_image(state.rgb, latents)
            start, state = block, state._replace(x=_mix(x, latents.counts), rgb=rgb)
        # Elsewhere no block after the first reads w.
        w = _mean_styles(latents) if G.per_block_styles else w
        return G.image(G.run(w, noise or None, start=start, state=state), w)

    def _crossing_image(self, rgb: Tensor, latents: Latents) -> Tensor:
        """The image (B, C, H, W) beside the mix, of those of all codes (sum_b N_b, C, H, W)."""
        assert latents.alpha is not None and latents.counts is not None
        if self.fade_in == "last":
            return torch.cat([part[:, -1] for part in _runs(rgb, latents.counts)])
        # A code has one weight in training; an inversion moves it channel by channel.
        return _mix(rgb * latents.alpha.mean(1)[:, None, None, None], latents.counts)


def flat_dirichlet(shape: tuple[int, ...], rng: torch.Generator) -> Tensor:
    """Draws alpha' ~ Dir_N(1) along the last dimension, of size N (paper, section 3.2).

    A flat Dirichlet draw is a normalised vector of exponentials. A uniform float32 is 0 once in
    2^24 draws, where N = 1 would divide 0 by 0, so it is kept away from 0.
    """
    uniform = torch.rand(shape, generator=rng, device=rng.device)
    gamma = -torch.log1p(-uniform.clamp_min(2.0**-25))
    return gamma / gamma.sum(-1, keepdim=True)


def _runs(x: Tensor, counts: tuple[int, ...]) -> Iterator[Tensor]:
    """x (sum_b N_b, ...) in parts (B', N, ...), each of consecutive samples with N codes."""
    row = 0
    for n, run in groupby(counts):
        batch = len(tuple(run))
        yield x[row : row + n * batch].view(batch, n, *x.shape[1:])
        row += n * batch


def _spread(x: Tensor, counts: tuple[int, ...]) -> Tensor:
    """Repeats sample b's row counts[b] times: (B, ...) to (sum_b N_b, ...)."""
    parts, row = [], 0
    for n, run in groupby(counts):
        batch = len(tuple(run))
        parts.append(x[row : row + batch].repeat_interleave(n, 0))
        row += batch
    return parts[0] if len(parts) == 1 else torch.cat(parts)


def _mean_styles(latents: Latents) -> Tensor:
    """The styles (B, *w_shape) of blocks after the mix: sum_n s_n w_n, see `MultiCode`."""
    assert latents.alpha is not None and latents.counts is not None
    means = []
    sizes = _runs(latents.alpha.abs().sum(1), latents.counts)
    for w, size in zip(_runs(latents.w, latents.counts), sizes):
        if w.shape[1] == 1:  # one style is its own mean, bit for bit
            means.append(w[:, 0])
            continue
        total = size.sum(1, keepdim=True)
        # Not divided where nothing is: also the gradient of the branch not taken is finite.
        share = torch.where(total > 0, size / total.clamp_min(TINY), 1 / size.shape[1])
        means.append((share.view(*share.shape, *[1] * (w.ndim - 2)) * w).sum(1))
    return means[0] if len(means) == 1 else torch.cat(means)


def _mix(x: Tensor, counts: tuple[int, ...]) -> Tensor:
    """Sums runs of counts[b] consecutive rows: (sum_b N_b, ...) to (B, ...)."""
    parts = _runs(x, counts)
    mixed = [part[:, 0] if part.shape[1] == 1 else part.sum(1) for part in parts]
    return mixed[0] if len(mixed) == 1 else torch.cat(mixed)
