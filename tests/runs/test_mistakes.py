"""A word that does not compose is answered in a line that names what it may have meant."""

import pytest
from hydra.errors import ConfigCompositionException

from hydra_plugins.rtil_jobs import JobSweeper
from rtil.runs import overrides
from rtil.runs.setup import check


@pytest.mark.parametrize(
    ("command", "words", "line"),
    [
        ("invert", ["model=stylegan"], "configs/model has no stylegan; nearest is stylegan2"),
        ("invert", ["-m", "model=pggan,stylgan2"], "no stylgan2; nearest is stylegan2"),
        ("report", ["experiment=fig6"], "configs/experiment has no fig6; nearest is fig6_ilo"),
        ("invert", ["modl=pggan"], "it has no key modl; nearest is model or"),
        ("invert", ["inverter.step=3"], "no key inverter.step; nearest is inverter.steps or"),
        ("invert", ["-m", "rtil=ilo,mgan", "inverter.step=3,4"], "nearest is inverter.steps"),
        ("train", ["sigma=2"], "it has no key sigma; nearest is rtil.family.sigma"),
        ("train", ["total_nimgs=3", "--cfg", "job"], "no key total_nimgs; nearest is total_nimg"),
        ("train", ["zzz=3"], r"it has no key zzz\. rtil train --help all lists its keys"),
        ("invert", ["factor=4"], "factor is a setting of task=sr, and not of task=cs"),
        ("invert", ["inverter.num_codes=4"], "of inverter=mgan, and not of inverter=ilo"),
        ("train", ["task=cs"], r"it reads no group task\. Its groups are model, "),
        ("theory", ["rtil=ilo"], r"it reads no group rtil\. It has none"),
        ("train", ["rtil"], r"rtil is no KEY=VALUE"),
    ],
)
def test_a_mistyped_word_names_what_is_near(command, words, line):
    with pytest.raises(ValueError, match=rf"^{command}: .*{line}") as error:
        check(command, words)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    "words",
    [
        ["-m", "model=stylegan2,pggan", "seed=range(3)"],
        ["+mine.key=1", "~model.betas"],
        ["model='stylegan2'", "--cfg", "job"],
        ["--config-dir", "elsewhere", "model=mine"],
        ["hydra.searchpath=[file:///elsewhere]", "model=mine"],
        ["--shell-completion", "query=bash"],
        ["hydra/launcher=basic", "hydra.job.chdir=false"],
        ["-m", "model=glob(*)"],
    ],
)
def test_what_hydra_takes_or_alone_can_know_is_let_through(words):
    check("train", words)


def test_a_job_of_a_sweep_that_does_not_compose_is_told_so_too():
    class Loader:
        def load_sweep_config(self, config, words):
            raise ConfigCompositionException("many\nlines")

    sweeper = JobSweeper()
    sweeper.config = type("", (), {"hydra": type("", (), {"job": type("", (), {})})})
    sweeper.config.hydra.job.config_name = "train"
    sweeper.hydra_context = type("", (), {"config_loader": Loader()})
    with pytest.raises(ValueError, match="of model=pggan, and not of model=stylegan2"):
        sweeper._compose(["model=stylegan2", "model.objective.gp_weight=1"])


def test_values_of_an_override_are_those_that_hydra_sweeps_over():
    assert overrides.values("a=1,x") == ["1", "x"] and overrides.values("a='x y'") == ["'x y'"]
    assert overrides.values("a=range(1,3)") == ["1", "2"]
    assert overrides.values("a=glob(*)") == []
    assert overrides.singles(["a=1,2", "--flag", "~b", "c='x y'"]) == ["a=1", "~b", "c='x y'"]
