"""Tables of benchmarks: what was measured, on what, and no rehearsal."""

import json

import pytest

from rtil.reporting.documents import regenerate

MARKER = "# Page\n\n<!-- rtil: speed {} --><!-- end -->\n"


def row(group, name, median, **entries):
    """A row as python -m benchmarks writes it; median None where it failed."""
    ratio = {"median": median, "low": median, "high": 2 * median, "pairs": 3} if median else None
    return {
        "group": group,
        "row": name,
        "against": "before",
        "ratio": ratio,
        "unit": "x",
        "reach": None,
        "met": None,
        **entries,
    }


def record(**entries):
    """A file of the benchmarks."""
    rows = [
        row("ilo", "quick row", 4.5678, reach=">= 4", met=True),
        row("ilo", "slow row", 0.25, unit="of peak", reach=">= 0.6", met=False),
        row("train", "other row", 1.0),
        row("train", "failed row", None),
    ]
    machine = {"device": "A CPU", "threads": 2, "torch": "2.11.0+cu130", "commit": "abc"}
    return machine | {"quick": False, "rows": rows} | entries


@pytest.fixture
def page(tmp_path):
    """A document with a marker, below a results/ with one record."""
    (tmp_path / "results").mkdir()
    (tmp_path / "results/mine.json").write_text(json.dumps(record()))

    def written(options):
        path = tmp_path / "README.md"
        path.write_text(MARKER.format(options), encoding="utf-8")
        return path

    return written


def test_a_table_is_of_the_groups_asked_for_and_names_the_machine(page):
    path = page("benchmarks=mine group=ilo")
    regenerate(path.parent, check=False)
    text = path.read_text(encoding="utf-8")
    assert "| quick row | before | 4.57 x (4.57 to 9.14, n = 3) | >= 4 | yes |" in text
    assert "| slow row | before | 0.25 of peak (0.25 to 0.5, n = 3) | >= 0.6 | **no** |" in text
    assert "other row" not in text
    assert "[mine](results/mine.json): A CPU, 2 threads, torch 2.11.0, commit abc." in text


def test_all_groups_are_shown_where_none_is_named_and_what_failed_is_not(page):
    path = page("benchmarks=mine")
    regenerate(path.parent, check=False)
    text = path.read_text(encoding="utf-8")
    assert "other row" in text and "quick row" in text and "failed row" not in text


@pytest.mark.parametrize(
    ("options", "content", "said"),
    [
        ("group=ilo", record(), "benchmarks= has to name a file"),
        ("benchmarks=other", record(), r"line 3, .*other\.json"),
        ("benchmarks=mine group=mgan", record(), "no row is of mgan; there are ilo, train"),
        ("benchmarks=mine", record(quick=True), r"mine\.json is a rehearsal"),
        ("benchmarks=mine", record(rows=[]), r"mine\.json.* Copy it anew"),
        ("benchmarks=mine", record(threads="two"), r"mine\.json.*threads.* Copy it anew"),
    ],
)
def test_what_cannot_be_shown_is_named_with_its_line_or_file(page, options, content, said):
    path = page(options)
    (path.parent / "results/mine.json").write_text(json.dumps(content))
    with pytest.raises(ValueError, match=said):
        regenerate(path.parent, check=False)
