"""Tables of diagnoses: means over trainings, of what is measured alike, by any setting."""

import json

import pytest

from rtil.metrics.intervals import Mean
from rtil.reporting.coverage import coverage, read
from rtil.reporting.documents import regenerate

RECALLS = {"own": [0.2, 0.3, 0.4], "relativistic": [0.0, 0.0, 0.0]}
MARKER = "# Page\n\n<!-- rtil: coverage {} --><!-- end -->\n"


def diagnosis(objective, seed, recall, **settings):
    """diagnose.json of one generator, as far as tables read it."""
    scores = {"frechet": 4.0 + seed, "precision": 0.5, "recall": recall}
    real = {"frechet": 1.0, "precision": 0.8, "recall": 0.9}
    members = [
        {"member": name} | {key: {"value": value} for key, value in numbers.items()}
        for name, numbers in (("training images", real), ("G^0", scores))
    ]
    more = {"objective": {"name": objective}, "num_samples": 1000, "data": {"name": "glyphs"}}
    digest = f"{objective}{seed}"
    return {"generator_sha256": digest, "settings": more | settings, "members": members}


@pytest.fixture
def folder(tmp_path):
    made = tmp_path / "results/diagnose/study"
    made.mkdir(parents=True)
    for objective, recalls in RECALLS.items():
        for seed, recall in enumerate(recalls):
            text = json.dumps(diagnosis(objective, seed, recall))
            (made / f"{objective}_seed{seed}.json").write_text(text)
    return made


def test_means_and_intervals_are_over_the_trainings_of_each_value(folder):
    """What three trainings have in common is still of three; real images are no training's."""
    real, own, relativistic = coverage(read(folder), ["objective.name"])
    assert real == {
        "objective": "–",
        "samples": "training images",
        "recall (n)": "0.900 (1)",
        "precision (n)": "0.800 (1)",
        "Fréchet (n)": "1.00 (1)",
    }
    assert own["objective"] == "own" and own["samples"] == "G^0"
    assert own["recall (n)"] == f"{Mean.of(RECALLS['own']).text('.3f')} (3)"
    assert own["Fréchet (n)"] == f"{Mean.of([4.0, 5.0, 6.0]).text('.2f')} (3)"
    assert relativistic["recall (n)"] == "0.000 ± 0.000 (3)"


def test_a_document_says_what_the_diagnoses_say(folder):
    root = folder.parents[2]
    page = root / "README.md"
    page.write_text(MARKER.format("diagnoses=study by=objective.name"), encoding="utf-8")
    assert regenerate(root, check=False) == [page]
    text = page.read_text(encoding="utf-8")
    assert "| own | G^0 | 0.300 ± 0.248 (3) |" in text and "(results/diagnose/study)" in text
    assert regenerate(root, check=True) == []
    (folder / "own_seed0.json").write_text(json.dumps(diagnosis("own", 0, 0.9)))
    with pytest.raises(ValueError, match=r"README\.md are not those of the rows"):
        regenerate(root, check=True)


@pytest.mark.parametrize(
    ("file", "content", "said"),
    [
        ("z", diagnosis("glo", 0, 0.1, num_samples=500), r"z\.json has num_samples=500, .*"),
        ("z", diagnosis("glo", 0, 0.1, data={"name": "cars"}), r"data\.name=cars, .* glyphs"),
        (
            "own_seed3",
            diagnosis("own", 0, 0.1),
            r"of the generator of .*own_seed0\.json: keep one",
        ),
        ("own_seed3", {"generator_sha256": "a"}, r"own_seed3\.json.* Copy it anew"),
        ("own_seed3", [], r"own_seed3\.json.* Copy it anew"),
    ],
)
def test_what_cannot_be_compared_is_refused_by_its_file(folder, file, content, said):
    (folder / f"{file}.json").write_text(json.dumps(content))
    with pytest.raises(ValueError, match=said):
        read(folder)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ("diagnoses=study", "diagnoses= has to name a folder"),
        ("diagnoses=other by=objective.name", r"line 3, .*other has no diagnose\.json"),
        ("diagnoses=study by=objective", "by=objective is no setting"),
    ],
)
def test_a_marker_that_cannot_be_filled_is_named(folder, options, said):
    root = folder.parents[2]
    (root / "README.md").write_text(MARKER.format(options), encoding="utf-8")
    with pytest.raises(ValueError, match=said):
        regenerate(root, check=False)
