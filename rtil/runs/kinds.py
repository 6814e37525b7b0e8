"""What a value may be: numbers in a range, switches, words, lists and records of such.

Settings (`rtil.runs.keys`) and files (`rtil.runs.schema`) are described by kinds, and `check` is
the one function that compares a value with one. A kind of values is a frozen dataclass here.
"""

from __future__ import annotations

import math
import re
import sys
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from itertools import chain
from typing import NamedTuple

from rtil.process.brief import brief

BIG = 10**9  # most of whatever is counted
LARGEST = sys.float_info.max


ABSENT = object()  # what is got of a key that is not there


class Fault(NamedTuple):
    """Where a value is not of its kind: the place within it ("" for all of it), got, allowed."""

    place: str
    got: object
    allowed: str

    def __str__(self) -> str:
        if self.got is ABSENT:
            return f"{self.place} is missing; it must be {self.allowed}"
        return f"{self.place}={brief(self.got)} must be {self.allowed}"


class Kind(ABC):
    """What a value may be; its text says so after "must be"."""

    @abstractmethod
    def fault(self, value: object, place: str = "") -> Fault | None:
        """Where a value at this place differs first, or None where it is of this kind."""

    @abstractmethod
    def __str__(self) -> str: ...

    def __or__(self, other: Kind) -> Kind:
        kinds = (kind.kinds if isinstance(kind, Either) else (kind,) for kind in (self, other))
        return Either(tuple(chain.from_iterable(kinds)))


@dataclass(frozen=True)
class Number(Kind):
    """A number from low to high.

    Args:
        whole: 1, 2, ... alone.
        above: low itself is not allowed.
        finite: infinity is not allowed, whatever the limits.
    """

    low: float = -math.inf
    high: float = math.inf
    whole: bool = False
    above: bool = False
    finite: bool = True

    def fault(self, value: object, place: str = "") -> Fault | None:
        allowed = int if self.whole else (int, float)
        # true and false, which Python counts as 1 and 0, are none.
        if isinstance(value, bool) or not isinstance(value, allowed):
            return Fault(place, value, str(self))
        # Written so that what is no number (nan) is out of range too.
        inside = self.low <= value <= self.high and not (self.above and value == self.low)
        # A whole number of 400 digits is finite, and no number that can be computed with.
        finite = not self.finite or -LARGEST <= value <= LARGEST
        return None if inside and finite else Fault(place, value, str(self))

    def __str__(self) -> str:
        kind = "a whole number" if self.whole else "a number"
        low, high = math.isfinite(self.low), math.isfinite(self.high)
        start = f" {'above' if self.above else 'from'} {self.low:g}" if low else ""
        if high:
            return f"{kind}{start} {'up ' if self.above or not low else ''}to {_limit(self.high)}"
        return f"{kind}{start}{' up' if low and not self.above else ''}"


@dataclass(frozen=True)
class OneOf(Kind):
    """One of these words, switches and null."""

    values: tuple[str | bool | int | None, ...]

    def fault(self, value: object, place: str = "") -> Fault | None:
        same = any(type(value) is type(known) and value == known for known in self.values)
        return None if same else Fault(place, value, str(self))

    def __str__(self) -> str:
        return _listed(map(brief, self.values))


@dataclass(frozen=True)
class Text(Kind):
    """A text, which may be empty where it is said so."""

    empty: bool = False

    def fault(self, value: object, place: str = "") -> Fault | None:
        good = isinstance(value, str) and (self.empty or value != "")
        return None if good else Fault(place, value, str(self))

    def __str__(self) -> str:
        return "a text"


@dataclass(frozen=True)
class ListOf(Kind):
    """From `fewest` to `most` values of one kind."""

    each: Kind
    fewest: int = 0
    most: int = BIG

    def fault(self, value: object, place: str = "") -> Fault | None:
        if not isinstance(value, (list, tuple)) or not self.fewest <= len(value) <= self.most:
            return Fault(place, value, str(self))
        for i, entry in enumerate(value):
            # A place is written for the entry that is wrong alone: lists hold thousands.
            if self.each.fault(entry) is not None:
                return self.each.fault(entry, f"{place}[{i}]")
        return None

    def __str__(self) -> str:
        count = "" if self.most == BIG else f" of {self.most}"
        if not count and self.fewest:
            count = f" of {self.fewest} or more"
        return f"a list{count}, each {self.each}"


@dataclass(frozen=True)
class MapOf(Kind):
    """Values of one kind under texts."""

    each: Kind

    def fault(self, value: object, place: str = "") -> Fault | None:
        if not isinstance(value, Mapping):
            return Fault(place, value, str(self))
        for key, entry in value.items():
            if not isinstance(key, (str, int)):
                return Fault(place, key, "a table whose keys are texts")
            fault = self.each.fault(entry, _below(place, key))
            if fault is not None:
                return fault
        return None

    def __str__(self) -> str:
        return "a table {key: value}"


@dataclass(frozen=True)
class Record(Kind):
    """A mapping that has some keys, and may have others.

    Args:
        needed: kinds of the keys that it has.
        optional: kinds of keys where it has them. Any other key may have any value.
    """

    needed: Mapping[str, Kind]
    optional: Mapping[str, Kind] = field(default_factory=dict)

    def fault(self, value: object, place: str = "") -> Fault | None:
        if not isinstance(value, Mapping):
            return Fault(place, value, str(self))
        for key, kind in {**self.needed, **self.optional}.items():
            if key not in value:
                if key in self.needed:
                    return Fault(_below(place, key), ABSENT, str(kind))
                continue
            fault = kind.fault(value[key], _below(place, key))
            if fault is not None:
                return fault
        return None

    def __str__(self) -> str:
        return f"a table with {', '.join(self.needed)}" if self.needed else "a table {key: value}"


@dataclass(frozen=True)
class Either(Kind):
    """Any of several kinds."""

    kinds: tuple[Kind, ...]

    def fault(self, value: object, place: str = "") -> Fault | None:
        faults = []
        for kind in self.kinds:
            fault = kind.fault(value, place)
            if fault is None:
                return None
            faults.append(fault)
        # A list with a wrong entry is told of that entry.
        inner = [fault for fault in faults if fault.place != place]
        return inner[0] if inner else Fault(place, value, str(self))

    def __str__(self) -> str:
        return _listed(
            "a list of such" if isinstance(kind, ListOf) and kind.each in self.kinds else str(kind)
            for kind in self.kinds
        )


@dataclass(frozen=True)
class Anything(Kind):
    """Whatever it is."""

    def fault(self, value: object, place: str = "") -> Fault | None:
        return None

    def __str__(self) -> str:
        return "anything"


COUNT = Number(1, BIG, whole=True)
COUNT_OR_NONE = Number(0, BIG, whole=True)  # 0 is a number of things too
SEED = Number(0, 2**31 - 1, whole=True)
INDEX = Number(0, 64, whole=True)  # of a block
WIDTH = Number(1, 2**16, whole=True)
SIDE = Number(1, 2**14, whole=True)  # of an image, in pixels
SHARE = Number(0, 1)
WEIGHT = Number(0, BIG)
POSITIVE = Number(0, BIG, above=True)
FINITE = Number()
SWITCH = OneOf((True, False))
NULL = OneOf((None,))
TEXT = Text()
ANYTHING = Anything()


def check(value: object, kind: Kind, where: str, advice: str) -> None:
    """Compares a value with what it may be.

    Args:
        where: the file, with the number of the line, or the command.
        advice: what to do where it differs, a sentence.

    Raises:
        ValueError: it is something else; a line of where, got, allowed and advice.
    """
    fault = kind.fault(value)
    if fault is not None:
        got = fault if fault.place else f"{brief(fault.got)} must be {fault.allowed}"
        raise ValueError(f"{where}: {got}. {advice}")


def _limit(number: float) -> str:
    """A limit as it is read at a glance: 10^9 for a power of ten that large."""
    digits = str(number)
    return f"10^{len(digits) - 1}" if re.fullmatch("10{6,}", digits) else f"{number:.10g}"


def _listed(texts: Iterable[str]) -> str:
    *first, last = dict.fromkeys(texts)
    return f"{', '.join(first)} or {last}" if first else last


def _below(place: str, key: object) -> str:
    return f"{place}.{brief(key)}" if place else brief(key)
