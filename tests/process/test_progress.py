"""What a long command shows: lines with the time left in a log, and what comes next at its end."""

import io
import sys

import pytest

from rtil.process import progress
from rtil.process.progress import TICK, Progress, finished, tracked


class Terminal(io.StringIO):
    def isatty(self):
        return True


def test_a_log_has_a_line_a_tick_with_what_is_left(capsys):
    now = [0.0]
    shown = Progress(40, "img", 10, "training", clock=lambda: now[0])
    for seconds in range(1, 91):
        now[0] = float(seconds)
        shown.to(10 + seconds // 6, "loss=1")
    shown.close()
    lines = capsys.readouterr().err.splitlines(keepends=True)
    # A third of an image a second, in lines that end and take nothing back.
    assert lines == [
        "training: 15 of 40 img, 0.167 img/s, 02:30 left, loss=1\n",
        "training: 20 of 40 img, 0.167 img/s, 02:00 left, loss=1\n",
        "training: 25 of 40 img, 0.167 img/s, 01:30 left, loss=1\n",
    ]


def test_a_command_that_ends_within_a_tick_writes_no_line(capsys):
    now = [0.0]
    shown = Progress(4, "img", clock=lambda: now[0])
    for _ in range(4):
        now[0] += TICK / 5
        shown.step()
    shown.close()
    assert capsys.readouterr().err == "" and shown.done == 4


def test_other_processes_show_nothing(capsys):
    now = [0.0]
    shown = Progress(4, "img", shown=False, clock=lambda: now[0])
    now[0] = 2 * TICK
    shown.to(9)
    assert capsys.readouterr().err == "" and shown.done == 4


def test_a_terminal_has_a_bar(monkeypatch):
    monkeypatch.setattr(sys, "stderr", Terminal())
    shown = Progress(4, "img", label="inverting")
    shown.to(2)
    shown.close()
    assert "\r" in sys.stderr.getvalue() and "2/4" in sys.stderr.getvalue()


def test_what_is_tracked_is_what_is_given(capsys):
    assert [*tracked("abc", 3, "letter")] == ["a", "b", "c"]


@pytest.mark.parametrize("sweep", [False, True])
def test_an_end_says_what_was_written_and_outside_of_a_sweep_what_is_next(
    capsys, monkeypatch, sweep
):
    monkeypatch.setattr(progress, "in_sweep", lambda: sweep)
    finished("runs/a", "python -m rtil.report root=runs")
    following = "" if sweep else "Next:\n  python -m rtil.report root=runs\n"
    assert capsys.readouterr().out == f"Wrote runs/a\n{following}"


def test_a_folder_without_a_name_is_this_one(capsys):
    """A reconstruction lies beside its picture, which may be named without a folder."""
    finished(".")
    assert capsys.readouterr().out == "Wrote into this folder\n"
