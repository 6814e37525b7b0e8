"""Overrides: which keys words set, to which text, and what a text stands for."""

import pytest
from omegaconf import OmegaConf

from rtil.runs import overrides


def test_words_set_add_and_delete_keys():
    words = ["a.b=1", "+c=x=y", "++d=[1,2]", "~e", "a.b=2"]
    assert overrides.typed(words) == {"a.b": "2", "c": "x=y", "d": "[1,2]", "e": ""}
    assert overrides.groups(words) == {"a", "c", "d", "e"}


@pytest.mark.parametrize(
    "text",
    ["1", "1.0", "0.20", "1e-05", "1e-6", "1.0e-06", "-3e+2", ".5", "true", "null", "cs",
     "fig6_ilo", "[1,2]", "[0.5, 1e-3]", "a b", "", "12abc", "1-2", "0.1,0.2", "2024"],
)  # fmt: skip
def test_a_text_stands_for_what_hydra_makes_of_it(text):
    expected = OmegaConf.to_container(OmegaConf.from_dotlist([f"value={text}"]))["value"]
    found = overrides.parsed(text)
    assert found == expected and type(found) is type(expected)


@pytest.mark.parametrize("value", [1, 0.1, 1e-6, True, None, "cs", [1, 0.5], [[1, 2]]])
def test_a_value_comes_back_from_its_text(value):
    assert overrides.parsed(overrides.as_text(value)) == value


def test_a_line_is_one_that_a_shell_takes_apart():
    assert overrides.line("train", {"a": "x y", "b": [1, 2]}) == (
        "python -m rtil.train 'a=x y' 'b=[1,2]'"
    )
