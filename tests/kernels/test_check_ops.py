"""The script for GPU machines, rehearsed on the CPU path."""

import importlib.util
import json
from pathlib import Path

import pytest

from rtil.kernels import bias_act, upfirdn2d

SCRIPT = Path(__file__).resolve().parents[2] / "scripts" / "check_ops.py"


def run(monkeypatch, *arguments):
    spec = importlib.util.spec_from_file_location("check_ops", SCRIPT)
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    monkeypatch.setattr("sys.argv", ["check_ops.py", *arguments])
    return script.main()


@pytest.mark.slow
def test_rehearsal_passes_and_records(monkeypatch, tmp_path):
    out = tmp_path / "ops.json"
    assert run(monkeypatch, "--cpu", "--quick", "--out", str(out)) == 0
    record = json.loads(out.read_text())
    assert record["comparisons"] > 500 and not record["failed"] and record["device"]
    assert {row["op"] for row in record["times"]} == {"blur", "up2", "down2"}


@pytest.mark.slow
@pytest.mark.parametrize("broken", ["slope", "filter"])
def test_wrong_kernel_fails_the_script(monkeypatch, capsys, broken):
    module, name = {"slope": (bias_act, "_slope_at"), "filter": (upfirdn2d, "reference")}[broken]
    right, calls = getattr(module, name), []

    def wrong(*arguments):
        calls.append(1)
        return right(*arguments) * (1.001 if len(calls) == 50 else 1)

    monkeypatch.setattr(module, name, wrong)
    assert run(monkeypatch, "--cpu", "--quick", "--no-times") == 1
    assert "relative error" in capsys.readouterr().out


def test_without_a_gpu_the_script_says_that_nothing_is_checked(monkeypatch, capsys):
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    assert run(monkeypatch) == 1
    assert "nothing is checked" in capsys.readouterr().out
