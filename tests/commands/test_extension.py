"""A new family, operator and inverter are one file and one yaml each, with no edit elsewhere.

Three files stand in a folder of their own that the packages are told of, three yamls in a folder
on Hydra's search path; nothing else knows of them. The real commands train a generator with the
family, invert with the operator and the inverter, and make a report.
"""

import json
import os
import subprocess
import sys

import pytest

pytestmark = pytest.mark.slow  # three commands in processes of their own

FAMILY = '''
"""Styles drawn from shrunk Gaussians."""

from dataclasses import dataclass

from rtil.latents.family import check_members, family_of
from rtil.latents.space import Latents, Member
from rtil.models.generator import EMPTY


@dataclass(frozen=True)
class Shrunk(Member):
    share: float
    num_codes = 1

    @property
    def name(self):
        return f"S={self.share:g}"

    @property
    def is_plain(self):
        return self.share == 1.0

    @property
    def nested(self):
        return (self,)

    @property
    def order(self):
        return (self.share,)

    def map_scale(self, k):
        return None

    def shares_pass(self, other):
        return isinstance(other, Shrunk)

    def check(self, G):
        if not 0 < self.share <= 1:
            raise ValueError(f"Shrunk: share={self.share} must be in (0, 1].")

    def extend(self, G, w, rng):
        noise = G.sample_noise(len(w), rng)
        return Latents(self.share * w, noise, member=(0,) * len(w))

    def synthesize(self, G, latents, start=0, state=EMPTY):
        noise = latents.noise or None
        return G.image(G.run(latents.w, noise, start=start, state=state), latents.w)


def shrunk(shares, weights=None, mixture=False, group=4):
    check_members("shares", shares, weights)
    return family_of([Shrunk(float(share)) for share in shares], weights, mixture, group)
'''

OPERATOR = '''
"""Dimming: every pixel is scaled."""

from rtil.operators.operator import LinearOperator


class Dim(LinearOperator):
    def __init__(self, in_shape, strength, flip=False):
        super().__init__(in_shape, in_shape, measures_images=True)
        self.gain = -strength if flip else strength

    def forward(self, x):
        self.check_input(x)
        return self.gain * x

    def adjoint(self, y):
        self.check_measurement(y)
        return self.gain * y
'''

INVERTER = '''
"""Random search: the best of some draws."""

from dataclasses import dataclass

import torch

from rtil.inverters.inverter import GeneratorInverter, Reconstruction
from rtil.inverters.minimise import randn


@dataclass(frozen=True)
class Search(GeneratorInverter):
    tries: int

    def check(self, G):
        if self.tries < 1:
            raise ValueError(f"Search: tries={self.tries} must be 1 or more.")

    @torch.no_grad()
    def invert(self, G, A, y, loss, rngs, watch=None):
        losses = []
        best = best_loss = None
        for _ in range(self.tries):
            image = G(randn((G.z_dim,), rngs, y))
            value = loss(A(image), y)
            losses.append(value.cpu())
            if watch is not None:
                watch(image)
            if best is None:
                best, best_loss = image, value
            better = value < best_loss
            best = torch.where(better.view(-1, 1, 1, 1), image, best)
            best_loss = torch.where(better, value, best_loss)
        return Reconstruction(best, image, best_loss, value, torch.stack(losses))
'''

FAMILY_YAML = """
name: shrunk
arm: rtil
family:
  _target_: rtil.latents.shrunk.shrunk
  shares: [1.0, 0.5]
  mixture: true
  group: ${model.stddev_group}
"""

OPERATOR_YAML = """
# @package _global_
task:
  name: dim
  _target_: rtil.operators.dim.Dim
  knob: strength
  range: [0, 1]
  linear: true
  measures: image
  flip: false

strength: 0.5
noise_std: 0.0
"""

INVERTER_YAML = """
name: search
family: shrunk
_target_: rtil.inverters.search.Search
tries: 5
"""

# Only tells the packages of the folder, as an installed package would, and runs the command.
LAUNCHER = """
import importlib
import runpy
import sys

for room in ("latents", "operators", "inverters"):
    importlib.import_module(f"rtil.{room}").__path__.append(f"{sys.argv[1]}/{room}")
command = sys.argv[2]
sys.argv = [command, *sys.argv[3:]]
runpy.run_module(command, run_name="__main__", alter_sys=True)
"""

FILES = {
    "latents/shrunk.py": FAMILY,
    "operators/dim.py": OPERATOR,
    "inverters/search.py": INVERTER,
    "configs/rtil/shrunk.yaml": FAMILY_YAML,
    "configs/task/dim.yaml": OPERATOR_YAML,
    "configs/inverter/search.yaml": INVERTER_YAML,
    "launch.py": LAUNCHER,
}
COMMON = ["scale=tiny", "hardware=cpu", "hardware.threads=1"]
CHOICES = ["task=dim", "inverter=search"]


@pytest.fixture(scope="module")
def extended(tmp_path_factory):
    """run(module, words): a command of rtil that knows the three files; returns what it said."""
    folder = tmp_path_factory.mktemp("extension")
    for name, text in FILES.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text.lstrip())

    def run(module, *words):
        # A path that is not there would be ignored, and the choices unknown.
        search = f"hydra.searchpath=[file://{folder / 'configs'}]"
        command = [sys.executable, str(folder / "launch.py"), str(folder), module, search, *words]
        done = subprocess.run(
            command,
            capture_output=True,
            text=True,
            cwd=folder,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
            timeout=300,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout + done.stderr

    return run


@pytest.fixture(scope="module")
def root(extended, tmp_path_factory):
    """A run of the new family, inverted with the new operator and inverter."""
    root = tmp_path_factory.mktemp("runs")
    arm = [*COMMON, f"root={root}", "rtil=shrunk"]
    extended("rtil.train", *arm, "total_nimg=16")
    extended("rtil.invert", *arm, *CHOICES, "num_images=2")
    return root


@pytest.fixture(scope="module")
def table(root, extended, tmp_path_factory):
    """The rows of the report on it."""
    page = tmp_path_factory.mktemp("report") / "page"
    extended("rtil.report", f"root={root}", "baseline=shrunk", f"out={page}")
    return json.loads((page / "table.json").read_text())


def rows(root):
    """The rows of each inversion."""
    files = sorted((root / "invert").rglob("results.jsonl"))
    return [[json.loads(line) for line in file.read_text().splitlines()] for file in files]


def test_commands_train_and_invert_with_new_parts(root):
    (measured,) = rows(root)
    assert len(measured) == 2
    assert all(row["lmmse_psnr_db"] > row["psnr_db"] for row in measured)


def test_a_report_shows_new_parts(table):
    (row,) = (row for row in table if "psnr_db" in row)
    assert (row["task"], row["inverter"], row["arm"]) == ("dim", "search", "shrunk")
    assert row["psnr_db"]["n"] == 2


def test_a_report_sorts_by_a_new_knob(table):
    assert {row["knob"] for row in table} == {"strength"}


def test_another_value_of_a_new_knob_is_another_run(root, extended):
    before = rows(root)
    arm = [*COMMON, f"root={root}", "rtil=shrunk"]
    extended("rtil.invert", *arm, *CHOICES, "num_images=1", "strength=0.25")
    assert sorted(map(len, rows(root))) == [1, 2] and len(before) == 1
