"""What an installation holds, and that importing it stays cheap."""

import importlib
import inspect
import os
import pkgutil
import re
import shutil
import subprocess
import sys
import sysconfig
import zipfile
from pathlib import Path

import pytest
import yaml

import rtil

ROOT = Path(__file__).parents[2]


def test_every_package_is_listed_for_the_wheel():
    text = (ROOT / "pyproject.toml").read_text()
    for init in (ROOT / "rtil").rglob("__init__.py"):
        name = ".".join(init.parent.relative_to(ROOT).parts)
        assert f'"{name}"' in text, name


def test_no_module_is_longer_than_400_lines():
    for folder in ("rtil", "benchmarks"):
        for path in (ROOT / folder).rglob("*.py"):
            assert len(path.read_text().splitlines()) <= 400, path


def test_classes_are_abstract_or_final_and_concrete_methods_are_not_overridden():
    classes = set()
    for module in pkgutil.walk_packages(rtil.__path__, "rtil."):
        if module.name != "rtil.__main__":
            found = vars(importlib.import_module(module.name)).values()
            classes |= {c for c in found if inspect.isclass(c) and c.__module__ == module.name}
    assert len(classes) > 100
    for cls in classes:
        for base in classes & {*cls.__mro__[1:]}:
            assert inspect.isabstract(base) or base not in cls.__bases__, (cls, base)
            own = {name for name in vars(cls) if not name.startswith(("__", "_abc"))}
            for name in own & vars(base).keys() - base.__abstractmethods__:
                value = vars(base)[name]
                method = callable(value) or isinstance(value, (property, classmethod))
                assert not method, f"{cls.__name__}.{name} overrides that of {base.__name__}"


def test_importing_rtil_does_not_import_libraries_that_take_longer_than_torch():
    """Reading a checkpoint or starting a command must not pay for figures and metrics."""
    code = (
        "import sys, rtil.checkpoint, rtil.train, rtil.invert, rtil.models.stylegan2; "
        "bad = {'tensorboard', 'torchvision', 'lpips', 'torchmetrics',"
        "'scipy', 'pandas', 'jinja2', 'matplotlib'}; "
        "print(sorted(bad & sys.modules.keys()))"
    )
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT
    )
    assert result.stdout.strip() == "[]"


@pytest.fixture(scope="module")
def imported():
    """What a process prints that imports rtil, then its operators, then what rtil names."""
    code = (
        "import sys, rtil; print('torch' in sys.modules); "
        "import rtil.kernels.upfirdn2d; print('rtil.kernels.build' in sys.modules); "
        "print([getattr(rtil, name).__name__ for name in rtil.HOMES])"
    )
    arguments = [sys.executable, "-c", code]
    done = subprocess.run(arguments, capture_output=True, text=True, check=True, cwd=ROOT)
    return done.stdout.splitlines()


def test_public_names_are_imported_when_first_used(imported):
    assert imported[0] == "False" and imported[2] == str(list(rtil.HOMES))


def test_importing_the_operators_builds_nothing_and_imports_no_builder(imported):
    assert imported[1] == "False"


def test_the_version_is_said_once():
    """In rtil/__init__.py; what cannot read it there says the same."""
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    newest = re.search(r"^## (.*)$", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)
    assert citation["version"] == newest[1] == rtil.__version__
    assert rtil.__version__ not in (ROOT / "pyproject.toml").read_text()


@pytest.mark.slow
def test_the_wheel_holds_what_it_needs_and_works_in_an_empty_folder(tmp_path):
    packages = sysconfig.get_path("purelib")
    environment = {**os.environ, "PYTHON": sys.executable, "SITE": packages}
    script = ROOT / "scripts" / "wheel.sh"
    subprocess.run(["bash", script, tmp_path], check=True, env=environment)
    (wheel,) = tmp_path.glob("rtil-*.whl")
    names = zipfile.ZipFile(wheel).namelist()
    for path in [*(ROOT / "configs").rglob("*.yaml"), *(ROOT / "cuda_ops").glob("*.*")]:
        assert f"rtil/{path.relative_to(ROOT)}" in names
    for path in (ROOT / "rtil").rglob("*.*"):
        if "__pycache__" not in path.parts:
            assert str(path.relative_to(ROOT)) in names
    assert "hydra_plugins/rtil_jobs/__init__.py" in names


@pytest.mark.slow
def test_a_generator_that_lies_in_its_folder_is_in_the_wheel_with_its_card(tmp_path):
    source = tmp_path / "source"
    for name in ("rtil", "configs", "cuda_ops", "hydra_plugins"):
        shutil.copytree(ROOT / name, source / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source / name)
    files = [f"rtil/generators/letters.{ending}" for ending in ("safetensors", "md")]
    for name in files:
        (source / name).touch()
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check"]
    words = ["wheel", "--no-deps", "--no-build-isolation", "--wheel-dir", tmp_path, source]
    subprocess.run([*pip, *words], check=True)
    (wheel,) = tmp_path.glob("rtil-*.whl")
    assert {*files} <= {*zipfile.ZipFile(wheel).namelist()}
