"""How a command begins and ends, whatever its streams can hold."""

import io
import sys

import pytest

from rtil.process.command import entry


@pytest.mark.parametrize("stream", ["stdout", "stderr"])
def test_what_a_stream_cannot_hold_is_shown_by_its_code(monkeypatch, stream):
    """As under LC_ALL=C, where Python is told to keep to ASCII."""
    ascii_stream = io.TextIOWrapper(io.BytesIO(), encoding="ascii", write_through=True)
    monkeypatch.setattr(sys, stream, ascii_stream)
    entry(lambda: print("Δ = 1 ± 2", file=ascii_stream))
    assert ascii_stream.buffer.getvalue() == b"\\u0394 = 1 \\xb1 2\n"


def test_an_error_in_other_letters_is_told_and_ends_with_code_1(monkeypatch):
    ascii_stream = io.TextIOWrapper(io.BytesIO(), encoding="ascii", write_through=True)
    monkeypatch.setattr(sys, "stderr", ascii_stream)

    def work():
        raise ValueError("nothing at 字")

    with pytest.raises(SystemExit) as error:
        entry(work)
    assert error.value.code == 1 and b"nothing at \\u5b57" in ascii_stream.buffer.getvalue()
