"""Kinds: what is of a kind passes, and what is not is told in one short line."""

import math
import time

import pytest

from rtil.process.brief import brief
from rtil.runs import kinds
from rtil.runs.kinds import COUNT, NULL, SHARE, SWITCH, TEXT, ListOf, MapOf, Number, OneOf, Record

FAMILY = Record({"name": TEXT}, {"depths": ListOf(COUNT, fewest=1)})


@pytest.mark.parametrize(("kind", "good", "bad"), [
    (COUNT, (1, 10**9), (0, -1, 1.0, True, "1", None, math.nan, 10**10, 10**400)),
    (SHARE, (0, 1, 0.5), (-0.1, 1.1, math.nan, math.inf, True, "0.5")),
    (Number(0, above=True), (1e-300, 5), (0, 0.0, -1, math.inf, 10**400)),
    (Number(finite=False), (math.inf, -1), (math.nan, True)),
    (SWITCH, (True, False), (1, 0, "true", None)),
    (OneOf(("auto", 1)), ("auto", 1), (True, 1.0, "1", None)),
    (TEXT | NULL, ("a", None), ("", 3, [])),
    (COUNT | ListOf(COUNT, fewest=1), (1, [1, 2]), ([], [0], "12", {})),
    (ListOf(SHARE, fewest=2, most=2), ([0, 1], (0, 1)), ([0], [0, 1, 1], [0, 2], 0)),
    (MapOf(COUNT), ({}, {"a": 1, 4: 2}), ({"a": 0}, {None: 1}, [], "a")),
    (FAMILY, ({"name": "a", "more": 1}, {"name": "a", "depths": [1]}),
     ({}, {"name": 1}, {"name": "a", "depths": []}, [], None, 12)),
])  # fmt: skip
def test_values_are_of_a_kind_or_not(kind, good, bad):
    assert [value for value in good if kind.fault(value)] == []
    assert [value for value in bad if not kind.fault(value)] == []


@pytest.mark.parametrize(("value", "line"), [
    ([], "F: [] must be a table with name. Do."),
    ({"depths": [1]}, "F: name is missing; it must be a text. Do."),
    ({"name": None}, "F: name=null must be a text. Do."),
    ({"name": "a", "depths": [1, "x"]},
     "F: depths[1]=x must be a whole number from 1 to 10^9. Do."),
])  # fmt: skip
def test_an_error_says_where_got_allowed_and_what_to_do(value, line):
    with pytest.raises(ValueError) as error:
        kinds.check(value, FAMILY, "F", "Do.")
    assert str(error.value) == line


def test_what_is_allowed_is_said_as_people_say_it():
    assert str(COUNT | NULL) == "a whole number from 1 to 10^9 or null"
    assert str(COUNT | ListOf(COUNT) | NULL) == (
        "a whole number from 1 to 10^9, a list of such or null"
    )
    assert str(ListOf(COUNT, fewest=1)) == (
        "a list of 1 or more, each a whole number from 1 to 10^9"
    )
    assert str(Number(0, 8, above=True)) == "a number above 0 up to 8"
    assert str(OneOf(("auto", True, False))) == "auto, true or false"


def shared():
    tree = []
    for _ in range(60):
        tree = [tree, tree]
    return tree


@pytest.mark.parametrize(("value", "text"), [
    (None, "null"), (True, "true"), (0.1, "0.1"), ("a b", "a b"), ("5", "'5'"), ("", "''"),
    ("null", "'null'"), ("a\nb", r"'a\nb'"), ([1, [2], {"a": 1}], "[1, [...], {...}]"),
    ([1] * 9, "[1, 1, 1, 1, ...]"), (10**4000, "a number of 13288 bits"),
    (shared(), "[[...], [...]]"), ({1, 2}, "a set"), ("\x00\u202e", r"'\x00\u202e'"),
])  # fmt: skip
def test_a_value_in_a_message_is_short_and_on_one_line(value, text):
    begin = time.perf_counter()
    assert brief(value) == text
    assert time.perf_counter() - begin < 0.5
    assert len(brief("x" * 10**6)) < 50
