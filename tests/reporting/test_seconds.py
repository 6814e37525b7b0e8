"""The figure of quality against seconds: a point for each arm with each inverter."""

import pytest
from helpers.reports import make_run, rows_below
from matplotlib.figure import Figure

from rtil.reporting.figures.seconds import draw_seconds


@pytest.fixture
def drawn(monkeypatch):
    """Every figure that is saved."""
    figures = []
    monkeypatch.setattr(Figure, "savefig", lambda fig, path: figures.append(fig))
    return figures


def points(ax):
    """(seconds, score) of the panel."""
    middles = [bar.lines[0] for bar in ax.containers]
    return sorted((line.get_xdata()[0], line.get_ydata()[0]) for line in middles)


def test_a_point_is_the_mean_time_and_score_of_an_arm_with_an_inverter(tmp_path, drawn):
    for arm in ("vanilla", "ilo"):
        make_run(tmp_path, arm, {"a": 20.0, "b": 22.0 + len(arm)}, pictures=False)
    make_run(tmp_path, "vanilla", {"a": 30.0}, settings={"name": "dps"}, pictures=False)
    assert "seconds" in draw_seconds(rows_below(tmp_path), tmp_path / "x.png")
    (ax,) = drawn[0].axes  # rows hold no perceptual distance
    assert points(ax) == [(1.0, 22.5), (1.0, 24.5), (1.0, 30.0)]
    assert ax.get_title() == "compressed sensing, ratio 0.1"
    names = [text.get_text() for text in drawn[0].legends[0].get_texts()]
    assert sorted(names) == ["ilo", "inverter=dps", "inverter=ilo", "vanilla"]


def test_one_inverter_alone_has_no_such_figure(tmp_path, drawn):
    for ratio in (0.1, 0.5):
        make_run(tmp_path, "vanilla", {"a": 20.0}, pictures=False, ratio=ratio)
    assert draw_seconds(rows_below(tmp_path), tmp_path / "x.png") is None and not drawn


def test_a_choice_by_the_true_image_is_left_out(tmp_path, drawn):
    make_run(tmp_path, "vanilla", {"a": 20.0}, pictures=False)
    make_run(tmp_path, "vanilla", {"a": 21.0}, settings={"name": "dps"}, pictures=False)
    run_dir = make_run(tmp_path, "vanilla", {"a": 40.0}, pictures=False, name="oracle")
    config = run_dir / "config.yaml"
    config.write_text(config.read_text() + "selection: oracle\n")
    draw_seconds(rows_below(tmp_path), tmp_path / "x.png")
    assert points(drawn[0].axes[0]) == [(1.0, 20.0), (1.0, 21.0)]
