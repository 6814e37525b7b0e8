"""What a page begins with: one comparison, which its outcome does not choose."""

import json
from html import unescape

import pytest
from helpers.protocols import write
from helpers.reports import make_run, run_report

from rtil.reporting import headline
from rtil.reporting.study import Source, of_everything

IMAGES = "abcdef"


def first_of(root, *packed):
    return headline.first_of(of_everything(Source(root, packed), "vanilla"))


def sentence_of(root):
    return first_of(root).words[0].paragraph


def pair(root, gains, lmmse=False, **knobs):
    """Both arms at a measurement, the RTIL one ahead by these."""
    images = IMAGES[: len(gains)]
    words = {"pictures": False, "lmmse": lmmse, **knobs}
    make_run(root, "vanilla", dict.fromkeys(images, 20.0), **words)
    make_run(root, "ilo", {i: 20.0 + gain for i, gain in zip(images, gains)}, **words)


@pytest.mark.parametrize(
    ("gains", "said"),
    [
        (
            (1.0, 1.5, 2.0),
            "are 1.50 dB closer to the originals than the vanilla generator's (95 %",
        ),
        (
            (-1.0, -1.5, -2.0),
            "are 1.50 dB further from the originals than the vanilla generator's",
        ),
        ((-1.0, 1.5, 2.0), "is not known (difference 0.83 dB, 95 % interval −3.16 to 4.83)"),
        ((-0.1, 0.1, 0.05), "as close to the originals, within half a dB, as the vanilla"),
        ((1.5,), "is not known (difference 1.50 dB, one value, no interval)"),
    ],
)
def test_the_sentence_says_what_the_interval_allows(tmp_path, gains, said):
    pair(tmp_path, gains)
    text = sentence_of(tmp_path)
    assert text.startswith("From 10 % as many measurements as pixels, ") and said in text
    assert ("not known" in text) == ("not known" in said)


def test_of_what_is_further_the_interval_says_by_how_much(tmp_path):
    pair(tmp_path, (-1.0, -1.5, -2.0))
    assert "(95 % interval 0.26 to 2.74)" in sentence_of(tmp_path)


@pytest.mark.parametrize("lmmse", [True, False])
def test_the_linear_estimate_is_beside_it_where_there_is_one(tmp_path, lmmse):
    pair(tmp_path, (1.0, 1.5, 2.0), lmmse)
    text = sentence_of(tmp_path)
    # 15, 16 and 17 dB, against 21, 21.5 and 22.
    said = "; a linear estimate, which needs no generator, is 5.50 dB further from the originals"
    assert (said in text) == lmmse and text.endswith(").")


@pytest.mark.parametrize(
    ("knobs", "said"),
    [
        ({"ratio": 0.25}, "From 25 % as many measurements as pixels,"),
        ({"factor": 4}, "From pictures 4 times smaller per side,"),
        ({"task": "deblur", "blur_std": 1.5}, "From pictures blurred by 1.5 pixels,"),
        ({"task": "denoise", "noise_std": 0.1}, "From measurements with noise of 10 % of white,"),
        ({"ratio": 0.1, "noise_std": 0.02}, "as many measurements as pixels, noise 0.02,"),
    ],
)
def test_the_measurement_is_said_in_words(tmp_path, knobs, said):
    pair(tmp_path, (1.0, 1.5), **knobs)
    assert said in sentence_of(tmp_path)


def test_the_most_images_choose_the_comparison_and_not_how_it_came_out(tmp_path):
    pair(tmp_path, (5.0, 5.5), ratio=0.05)
    pair(tmp_path, (-1.0, -1.5, -2.0), ratio=0.2)
    pair(tmp_path, (1.0, 1.5, 2.0), ratio=0.4)
    first = first_of(tmp_path)
    assert "From 20 %" in first.words[0].paragraph and "further" in first.words[0].paragraph
    assert "of 3 comparisons below" in first.words[1].paragraph
    assert "2 are ahead, 1 is behind." in first.words[1].paragraph
    lines = [line[0] for line in first.summary.lines]
    assert lines == ["cs, ratio 0.05", "cs, ratio 0.2", "cs, ratio 0.4"]
    assert first.summary.headings == ["measurement", "vanilla", "ilo"]
    assert first.summary.looks == ["better", "worse", "better"]


def test_a_line_has_the_colour_of_what_its_sentence_would_say(tmp_path):
    """Over images the interval excludes 0, over the two trainings it does not."""
    for seed, gain in ((0, 1.0), (1, 3.0)):
        pair(tmp_path, (gain, gain + 0.1, gain - 0.1), seed=seed)
    first = first_of(tmp_path)
    assert (
        "not known" in first.words[0].paragraph and "over 2 trainings" in first.words[0].paragraph
    )
    assert first.summary.looks == [""]


def test_an_oracle_is_in_no_sentence_and_in_no_count(tmp_path):
    write(tmp_path, "paper", 20.0, 0.5)
    for seed in (0, 1):
        write(tmp_path, "authors", 30.0, 9.0, seed=seed, selection="oracle")
    first = first_of(tmp_path)
    texts = " ".join(text.paragraph for text in first.words)
    assert "of 1 comparison below" in texts and "oracle" not in texts
    assert len(first.summary.lines) == 1 and "oracle" not in " ".join(first.summary.headings)


def test_oracles_alone_begin_no_page(tmp_path):
    write(tmp_path, "authors", 30.0, 9.0, selection="oracle")
    assert first_of(tmp_path) is None
    assert 'class="sentence"' not in (run_report(tmp_path) / "report.html").read_text()


def test_an_arm_alone_has_its_psnr_said(tmp_path):
    make_run(tmp_path, "ilo", {"a": 20.0, "b": 22.0}, lmmse=False)
    text = sentence_of(tmp_path)
    assert "the reconstructions of 2 images have a PSNR of 21.00 dB (95 %" in text
    assert "generator's" not in text


def test_pictures_are_the_first_ones_with_what_any_run_wrote_and_no_errors(tmp_path):
    for arm, value in (("vanilla", 20.0), ("ilo", 21.0)):
        run_dir = make_run(tmp_path, arm, dict.fromkeys(IMAGES, value))
        for path in (run_dir / "images").glob("*-measurement.png"):
            path.unlink()
    gallery = first_of(tmp_path).gallery
    assert gallery.headings == ["image", "original", "linear estimate", "vanilla", "ilo"]
    assert [name for name, _, _ in gallery.shots] == ["a", "b", "c"]
    assert all(picture.address for _, shown, _ in gallery.shots for picture in shown)


def test_the_page_begins_with_it_and_how_much_is_there_comes_after(tmp_path):
    pair(tmp_path, (1.0, 1.5, 2.0))
    out = run_report(tmp_path)
    html = unescape((out / "report.html").read_text())
    text = sentence_of(tmp_path)
    order = [html.index(part) for part in ("<h1>", text, "2 entries, each an arm", "<nav", "<h2>")]
    assert order == sorted(order)
    # The tables on disk are as they were.
    assert text not in (out / "table.md").read_text()
    assert len(json.loads((out / "table.json").read_text())) == 2
