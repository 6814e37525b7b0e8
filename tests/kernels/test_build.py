"""Building the kernels: keys, locks, killed builders and messages, with programs that only act."""

import multiprocessing
import os
import re
import signal
import stat
import sys
import time
import warnings
from pathlib import Path

import pytest
import torch

from rtil import kernels
from rtil.kernels import acceptance, bias_act, build, dispatch, verify
from rtil.kernels.build import LIBRARY, BuildError

# Counts its compilations in a file, waits as long as SLOW says, writes its output in two halves.
NVCC = """#!{python}
import os, sys, time
arguments = sys.argv[1:]
if "--version" in arguments:
    print("Cuda compilation tools, release {release}, V{release}.1")
elif "--list-gpu-code" in arguments:
    print("sm_75\\nsm_90")
else:
    open(os.environ["COUNT"], "a").write("x")
    if os.environ.get("BROKEN"):
        sys.exit("error: identifier is undefined")
    with open(arguments[arguments.index("-o") + 1], "w") as out:
        out.write("half ")
        out.flush()
        time.sleep(float(os.environ.get("SLOW", "0")))
        out.write("whole")
"""
UNIT = len(build.UNITS) + 1  # programs a build runs: one per .cu file and the link


@pytest.fixture
def fake(tmp_path, monkeypatch):
    """A toolkit whose compiler only writes files, and an empty cache."""
    (tmp_path / "home" / "bin").mkdir(parents=True)
    nvcc = tmp_path / "home" / "bin" / "nvcc"
    nvcc.write_text(NVCC.format(python=sys.executable, release="12.8"))
    nvcc.chmod(0o755)
    monkeypatch.setattr(torch.version, "cuda", "13.0")
    monkeypatch.setenv("CUDA_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("RTIL_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("COUNT", str(tmp_path / "count"))
    monkeypatch.setattr(dispatch, "_libraries", {})
    monkeypatch.setattr(dispatch, "_warned", False)
    monkeypatch.setattr(dispatch, "_default", "auto")
    if torch.version.cuda is None or build.find_ninja() is None or build.find_compiler() is None:
        pytest.skip("needs ninja and a C++ compiler")
    return tmp_path


def count(fake):
    path = fake / "count"
    return len(path.read_text()) if path.exists() else 0


def start(fake, slow):
    """A process, in a group of its own, that builds and notes what it got."""

    def work():
        os.setsid()
        os.environ["SLOW"] = slow
        (fake / f"got-{os.getpid()}").write_text(str(build.build("sm_90")))

    # A fork needs no second import of torch.
    process = multiprocessing.get_context("fork").Process(target=work)
    process.start()
    return process


def test_second_build_takes_the_first(fake):
    first = build.build("sm_90")
    assert first.read_text() == "half whole" and count(fake) == UNIT
    assert build.build("sm_90") == first and count(fake) == UNIT


def test_cache_may_lie_under_a_path_with_spaces_and_dollars(fake, monkeypatch):
    monkeypatch.setenv("RTIL_CACHE", str(fake / "my $cache: x"))
    assert build.build("sm_90").read_text() == "half whole"


def test_sources_torch_arch_and_nvcc_each_change_the_key(fake, monkeypatch):
    paths = {build.build("sm_90"), build.build("sm_75")}
    monkeypatch.setattr(torch, "__version__", "2.99")
    paths.add(build.build("sm_90"))
    nvcc = fake / "home" / "bin" / "nvcc"
    nvcc.write_text(NVCC.format(python=sys.executable, release="12.9"))
    paths.add(build.build("sm_90"))
    monkeypatch.setattr(build, "digest", lambda: "0" * 16)
    paths.add(build.build("sm_90"))
    assert len(paths) == 5


def test_digest_follows_the_contents_of_the_sources(tmp_path, monkeypatch):
    (tmp_path / "a.cu").write_text("one")
    monkeypatch.setattr(build, "SOURCES", tmp_path)
    before = build.digest()
    (tmp_path / "README.md").write_text("no source")
    assert build.digest() == before
    (tmp_path / "a.cu").write_text("two")
    assert build.digest() != before


def test_without_nvcc_an_earlier_build_serves(fake, monkeypatch):
    done = build.build("sm_90")
    monkeypatch.setattr(build, "find_nvcc", lambda: None)
    assert build.build("sm_90") == done
    with pytest.raises(BuildError, match="nvcc is neither"):
        build.build("sm_75")


def test_processes_that_start_together_build_once(fake):
    workers = [start(fake, slow="0.2") for _ in range(4)]
    for worker in workers:
        worker.join(60)
    assert [worker.exitcode for worker in workers] == [0] * 4
    (path,) = {got.read_text() for got in fake.glob("got-*")}
    assert count(fake) == UNIT and Path(path).read_text() == "half whole"


@pytest.mark.parametrize("whole_group", [True, False])
def test_killed_builder_leaves_neither_lock_nor_half_a_library(fake, whole_group):
    """whole_group: the compiler dies too, as when a job is cancelled; else it goes on alone."""
    victim = start(fake, slow="30" if whole_group else "3")
    deadline = time.monotonic() + 60
    while count(fake) == 0 and time.monotonic() < deadline:
        time.sleep(0.02)
    assert count(fake) > 0
    os.killpg(victim.pid, signal.SIGKILL) if whole_group else victim.kill()
    victim.join(60)
    assert not list((fake / "cache").glob(f"*/{LIBRARY}"))
    began = time.monotonic()
    assert build.build("sm_90").read_text() == "half whole"
    assert time.monotonic() - began < 20
    assert not list((fake / "cache").glob("*.tmp*"))


def test_compilers_words_are_in_the_message_and_nothing_is_left(fake, monkeypatch):
    monkeypatch.setenv("BROKEN", "1")
    with pytest.raises(BuildError, match="identifier is undefined"):
        build.build("sm_90")
    left = [p.name for p in (fake / "cache").iterdir()]
    assert all(name.endswith(".lock") for name in left)
    monkeypatch.delenv("BROKEN")
    assert build.build("sm_90").exists()


@pytest.mark.parametrize(
    ("missing", "says"),
    [
        ("find_nvcc", "install the CUDA toolkit 13.x"),
        ("find_compiler", "apt install g\\+\\+"),
        ("find_ninja", "pip install ninja"),
    ],
)
def test_message_names_the_missing_program_and_what_to_install(fake, monkeypatch, missing, says):
    monkeypatch.setattr(build, missing, lambda: None)
    with pytest.raises(BuildError, match=says):
        build.build("sm_90")


def test_nvcc_newer_than_torch_is_refused(fake, monkeypatch):
    monkeypatch.setattr(torch.version, "cuda", "11.8")
    with pytest.raises(BuildError, match=r"is CUDA 12\.8 but torch .* built for CUDA 11\.8"):
        build.build("sm_90")


def test_torch_without_cuda_and_unknown_architecture_are_refused(fake, monkeypatch):
    with pytest.raises(BuildError, match="does not compile for sm_60, only for sm_75, sm_90"):
        build.build("sm_60")
    monkeypatch.setattr(torch.version, "cuda", None)
    with pytest.raises(BuildError, match="built without CUDA"):
        build.build("sm_90")


def test_cache_that_cannot_be_written_is_named(fake, monkeypatch):
    (fake / "file").write_text("")
    monkeypatch.setenv("RTIL_CACHE", str(fake / "file" / "cache"))
    with pytest.raises(BuildError, match="set RTIL_CACHE to a directory"):
        build.build("sm_90")


def test_cache_directory_follows_the_environment(monkeypatch, tmp_path):
    monkeypatch.delenv("RTIL_CACHE", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert build.cache() == tmp_path / "rtil"
    monkeypatch.setenv("RTIL_CACHE", str(tmp_path / "own"))
    assert build.cache() == tmp_path / "own"


def test_finished_build_can_be_read_by_others(fake):
    mode = build.build("sm_90").parent.stat().st_mode
    assert mode & stat.S_IROTH and mode & stat.S_IXOTH


@pytest.mark.slow
def test_diagnosis_names_every_part(fake, capsys):
    assert build.main(["--arch", "sm_90"]) == 0
    text = capsys.readouterr().out
    for part in ("torch", "nvcc: ", "12.8", "C++ compiler: ", "ninja: ", "GPU", "cache: "):
        assert part in text
    assert re.search(rf"^sm_90: .*{LIBRARY}$", text, re.MULTILINE)
    assert build.main(["--arch", "sm_60"]) == 1
    assert "sm_60: FAILED: " in capsys.readouterr().out


def test_auto_warns_once_and_falls_back_and_cuda_raises(fake, monkeypatch):
    monkeypatch.setattr(build, "arch_of", lambda index: "sm_90")
    monkeypatch.setattr(build, "find_nvcc", lambda: None)
    with pytest.warns(UserWarning, match=r"slower PyTorch form.*nvcc is neither"):
        assert not dispatch.kernels_serve(None, "cuda", 0, "bias_act")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert not dispatch.kernels_serve("auto", "cuda", 0, "upfirdn2d")
        assert not dispatch.kernels_serve("reference", "cuda", 0, "bias_act")
    with pytest.raises(RuntimeError, match="bias_act: impl='cuda', but nvcc is neither"):
        dispatch.kernels_serve("cuda", "cuda", 0, "bias_act")
    assert kernels.used(torch.device("cuda", 0)).startswith("reference (nvcc is neither")
    kernels.set_impl("reference")
    assert kernels.used(torch.device("cuda", 0)) == "reference"


def test_library_that_does_not_load_is_a_reason_too(fake, monkeypatch):
    monkeypatch.setattr(build, "arch_of", lambda index: "sm_90")
    with pytest.raises(RuntimeError, match=r"impl='cuda', but .*(ELF|too short)"):
        dispatch.kernels_serve("cuda", "cuda", 0, "bias_act")


@pytest.fixture
def checked(fake, monkeypatch):
    """A GPU that is none, and a check that runs the given program; counts its runs."""
    runs = []

    def answer(program):
        def command(library, index):
            runs.append(library)
            return [sys.executable, "-c", program]

        monkeypatch.setattr(acceptance, "command", command)

    monkeypatch.setattr(build, "arch_of", lambda index: "sm_90")
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda index: "GPU/one 1")
    monkeypatch.setattr(dispatch, "_declare", lambda library: library)
    monkeypatch.setattr(dispatch.ctypes, "CDLL", lambda path: path)
    return answer, runs


def test_kernels_serve_once_their_check_has_passed_and_it_runs_once(checked, monkeypatch):
    answer, runs = checked
    answer("print('all well')")
    assert dispatch.kernels_serve("cuda", "cuda", 0, "bias_act")
    monkeypatch.setattr(dispatch, "_libraries", {})  # another process
    assert dispatch.kernels_serve("auto", "cuda", 0, "bias_act") and len(runs) == 1
    assert kernels.used(torch.device("cuda", 0)) == "cuda"
    monkeypatch.setattr(dispatch, "_libraries", {})
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda index: "another GPU")
    assert dispatch.kernels_serve("auto", "cuda", 0, "bias_act") and len(runs) == 2


@pytest.mark.parametrize(
    ("program", "says"),
    [
        ("print('value off'); raise SystemExit(1)", r"\(exit 1\), so.*value off"),
        ("import os, signal; os.kill(os.getpid(), signal.SIGSEGV)", r"\(exit -11\)"),
        ("import time; time.sleep(60)", "no answer in 0.1 s"),
    ],
)
def test_kernels_that_fail_their_check_are_never_used(checked, monkeypatch, program, says):
    answer, runs = checked
    answer(program)
    monkeypatch.setattr(acceptance, "TIME_LIMIT_SECONDS", 0.1 if "time" in program else 60)
    with pytest.warns(UserWarning, match=f"(?s)their check on GPU/one 1.*{says}"):
        assert not dispatch.kernels_serve("auto", "cuda", 0, "bias_act")
    with pytest.raises(RuntimeError, match="impl='cuda', but the kernels were built but did not"):
        dispatch.kernels_serve("cuda", "cuda", 0, "bias_act")
    assert len(runs) == 1 and not list(runs[0].parent.glob("passed-*"))
    monkeypatch.setattr(dispatch, "_libraries", {})
    with pytest.raises(RuntimeError, match="did not pass"):
        dispatch.kernels_serve("cuda", "cuda", 0, "bias_act")
    assert len(runs) == 2


def test_check_passes_on_right_operators_and_names_what_differs(capsys, monkeypatch):
    monkeypatch.setattr(verify, "CASES_AT_FIRST_USE", 8)
    assert verify.main(["-", "0"]) == 0
    assert "0 failed" in capsys.readouterr().out
    right = bias_act._slope_at
    monkeypatch.setattr(bias_act, "_slope_at", lambda *given: right(*given) * 1.001)
    assert verify.main(["-", "0"]) == 1
    assert re.search(r"gradient bias_act \[.*relative error", capsys.readouterr().out)


def test_set_impl_refuses_an_unknown_name():
    with pytest.raises(ValueError, match="ops='fast' must be one of auto, cuda, reference"):
        kernels.set_impl("fast")
