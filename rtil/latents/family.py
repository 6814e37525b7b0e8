"""Families: the members that training averages over (paper, Fig. 4), built from a yaml.

Here live what a family is and the functions that checkpoints name (`additive`, `multicode`); the
members themselves have a file each. A new family needs no edit here: its file has a function
that ends in `family_of`, and its yaml names that.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

from rtil.latents.additive import Additive
from rtil.latents.mixture import Mixture
from rtil.latents.multicode import MultiCode
from rtil.latents.space import LatentSpace, MapScale, Member


class Family(NamedTuple):
    """spaces: one pass each per step. weights: of their losses, summing to 1."""

    spaces: tuple[LatentSpace, ...]
    weights: tuple[float, ...]

    @property
    def members(self) -> tuple[Member, ...]:
        """All members, those of a mixture one by one."""
        return tuple(member for space in self.spaces for member in space.members)

    def map_scale(self, k: int) -> MapScale | None:
        """What training draws z_k with; None where no member draws it."""
        scales = [member.map_scale(k) for member in self.members]
        return next((scale for scale in scales if scale is not None), None)


def family_of(
    members: Sequence[Member],
    weights: Sequence[float] | None = None,
    mixture: bool = False,
    group: int | None = 4,
) -> Family:
    """The family of some members, one pass each per step, or all of them in one pass.

    Args:
        members: one or more.
        weights: of the members; None for equal ones.
        mixture: draws the member of each group of samples instead of one pass per member.
        group: samples per group of a mixture, see Mixture.
    """
    shares = [float(w) for w in weights or [1.0] * len(members)]
    if mixture:
        return Family((Mixture(tuple(members), tuple(shares), group),), (1.0,))
    return Family(tuple(members), tuple(w / sum(shares) for w in shares))


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
    check_members("depths", depths, weights)
    return family_of([Additive(int(d), sigma, relative) for d in depths], weights, mixture, group)


def multicode(
    codes: Sequence[int],
    block: int,
    weights: Sequence[float] | None = None,
    mixture: bool = False,
    group: int | None = 4,
    fade_in: str = "mixed",
) -> Family:
    """The family of N = codes mixed after `block` (paper, section 3.2); other arguments as above.

    Args:
        fade_in: see MultiCode.

    Raises:
        ValueError: no or repeated codes, or weights that do not fit.
    """
    check_members("codes", codes, weights)
    members = [MultiCode(int(n), block, fade_in) for n in codes]
    return family_of(members, weights, mixture, group)


def check_members(key: str, members: Sequence[float], weights: Sequence[float] | None) -> None:
    """Checks a family's list of members, each a number, and their weights.

    Args:
        key: of the list in rtil.family.

    Raises:
        ValueError: no or repeated members, or weights that do not fit.
    """
    if not members or len(set(members)) != len(members):
        raise ValueError(f"rtil.family.{key}={list(members)} must name members, each once.")
    if weights is not None and len(weights) != len(members):
        raise ValueError(
            f"rtil.family.weights={list(weights)} must hold one number for each of "
            f"{key}={list(members)}."
        )
    if weights is not None and (min(weights) < 0 or sum(weights) <= 0):
        raise ValueError(f"rtil.family.weights={list(weights)}: none negative, not all zero.")


def shown_members(families: Iterable[Family]) -> list[Member]:
    """The members that a figure of these families shows, nested ones among them, each once.

    Kind by kind, from the plain generator on, which alone adds nothing beside a plain member of
    another kind (G^0 beside N = 1).
    """
    plain = Additive(0)
    kinds: dict[type[Member], set[Member]] = {type(plain): {plain}}
    for family in families:
        for member in family.members:
            kinds.setdefault(type(member), set()).update(member.nested)
    others = [member for kind, found in kinds.items() for member in found if member != plain]
    if kinds[type(plain)] == {plain} and any(member.is_plain for member in others):
        kinds[type(plain)] = set()
    return [member for found in kinds.values() for member in sorted(found, key=_order)]


def _order(member: Member) -> tuple[float, ...]:
    return member.order
