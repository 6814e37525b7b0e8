"""Families: the members that training averages over (paper, Fig. 4), built from a yaml."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from rtil.latents.additive import Additive
from rtil.latents.mixture import Mixture
from rtil.latents.multicode import MultiCode
from rtil.latents.space import LatentSpace


class Family(NamedTuple):
    """spaces: one pass each per step. weights: of their losses, summing to 1."""

    spaces: tuple[LatentSpace, ...]
    weights: tuple[float, ...]


def additive(
    depths: Sequence[int],
    sigma: float = 1.0,
    relative: bool = False,
    weights: Sequence[float] | None = None,
    mixture: bool = False,
    group: int | None = 4,
) -> Family:
    """The family G^depth for each depth (paper, section 3.1); depths [0] is vanilla training.

    Args:
        depths: members, by their number of injected maps.
        sigma, relative: of the injected maps, see Additive.
        weights: of the members; None for equal ones.
        mixture: draws the member of each group of samples instead of one pass per member.
        group: samples per group of a mixture, see Mixture.

    Raises:
        ValueError: no or repeated depths, or weights that do not fit.
    """
    _check("depths", depths, weights)
    return _family([Additive(int(d), sigma, relative) for d in depths], weights, mixture, group)


def multicode(
    codes: Sequence[int],
    block: int,
    weights: Sequence[float] | None = None,
    mixture: bool = False,
    group: int | None = 4,
) -> Family:
    """The family of N = codes mixed after `block` (paper, section 3.2); other arguments as above.

    Raises:
        ValueError: no or repeated codes, or weights that do not fit.
    """
    _check("codes", codes, weights)
    return _family([MultiCode(int(n), block) for n in codes], weights, mixture, group)


def _check(key: str, members: Sequence[int], weights: Sequence[float] | None) -> None:
    if not members or len(set(members)) != len(members):
        raise ValueError(f"rtil.family.{key}={list(members)} must name members, each once.")
    if weights is not None and len(weights) != len(members):
        raise ValueError(
            f"rtil.family.weights={list(weights)} must hold one number for each of "
            f"{key}={list(members)}."
        )
    if weights is not None and (min(weights) < 0 or sum(weights) <= 0):
        raise ValueError(f"rtil.family.weights={list(weights)}: none negative, not all zero.")


def _family(
    spaces: list[LatentSpace],
    weights: Sequence[float] | None,
    mixture: bool,
    group: int | None,
) -> Family:
    shares = [float(w) for w in weights or [1.0] * len(spaces)]
    if mixture:
        return Family((Mixture(tuple(spaces), tuple(shares), group),), (1.0,))
    return Family(tuple(spaces), tuple(w / sum(shares) for w in shares))
