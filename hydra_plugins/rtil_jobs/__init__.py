"""Hydra's way to run many jobs: those of an experiment's plan, or each choice of `-m a=1,2 b=3,4`.

A job that fails does not end the others. They are named at the end, each with the command that
runs it, and the sweep exits with 1; the same sweep again runs them alone, for what is finished
says so. Any launcher runs the jobs. configs/hydra/sweeper/jobs.yaml names both classes.
"""

from __future__ import annotations

import itertools
import shlex
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.plugins import Plugins
from hydra.core.utils import JobReturn, JobStatus
from hydra.errors import HydraException
from hydra.experimental.callback import Callback
from hydra.plugins.sweeper import Sweeper
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig, OmegaConf, open_dict

from hydra_plugins.rtil_jobs.lost import launched
from rtil.experiments import check, plan
from rtil.process.command import entry
from rtil.runs.overrides import key_of
from rtil.runs.setup import refused, with_one_objective


class Register(Callback):
    """Makes the sweeper known to Hydra, which accepts classes of the package hydra_plugins alone.

    Hydra finds it by itself where rtil is installed as a copy, but not where the installation is
    a link to its sources.
    """

    def on_multirun_start(self, config: DictConfig, **_: object) -> None:
        Plugins.instance().register(JobSweeper)


class Job(NamedTuple):
    """One job of a sweep: its overrides, and the command that runs it alone."""

    words: list[str]
    command: str


class JobSweeper(Sweeper):
    """Runs the jobs of config.experiment (`rtil.experiments.plan.jobs`), or all that is typed."""

    def setup(
        self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig
    ) -> None:
        self.config, self.hydra_context = config, hydra_context
        self.launcher = Plugins.instance().instantiate_launcher(
            config=config, hydra_context=hydra_context, task_function=task_function
        )

    def sweep(self, arguments: list[str]) -> None:
        entry(lambda: self._sweep(arguments))

    def _sweep(self, arguments: Sequence[str]) -> None:
        """Runs all jobs.

        Raises:
            ValueError: a mistake in any job, before the first.
            RuntimeError: some failed.
        """
        node = self.config.get("experiment")
        if node is None:
            jobs = self._typed_jobs(self._given(arguments))
            self._composed(jobs)
        else:
            experiment = OmegaConf.to_container(node, resolve=True)
            assert isinstance(experiment, dict)
            words = [word for word in arguments if word.partition("=")[0] != "experiment"]
            jobs = self._planned_jobs(experiment, words)
            composed = self._composed(jobs)
            if self._part != "train":
                check.check_trained(experiment, composed, words)
            if self._part == "invert":
                check.check_tuned(experiment, composed, words)
        results = launched(self.launcher, [job.words for job in jobs])
        failures = failures_of(jobs, results)
        if failures:
            raise RuntimeError(
                f"{len(failures)} of {len(jobs)} jobs failed; the others are finished, and the "
                "same command runs these alone:\n" + "\n".join(failures)
            )

    @property
    def _part(self) -> str:
        """Name of the command whose jobs these are."""
        return self.config.hydra.job.config_name

    def _given(self, arguments: Sequence[str]) -> dict[str, list[str]]:
        """{key: texts of its values} of a command line."""
        given = {}
        parser = OverridesParser.create(self.hydra_context.config_loader)
        for word in parser.parse_overrides(list(arguments)):
            sweep = word.is_sweep_override()
            values = word.sweep_string_iterator() if sweep else [word.get_value_element_as_str()]
            given[word.get_key_element()] = list(values)
        return given

    def _typed_jobs(self, given: Mapping[str, Sequence[str]]) -> list[Job]:
        """Every combination of the typed values."""
        jobs = []
        for texts in itertools.product(*given.values()):
            words = [f"{key}={text}" for key, text in zip(given, texts)]
            jobs.append(Job(words, shlex.join(["python", "-m", f"rtil.{self._part}", *words])))
        return jobs

    def _planned_jobs(self, experiment: Mapping, words: Sequence[str]) -> list[Job]:
        """What an experiment plans of this command, under what is typed."""
        given = {key_of(word): word for word in words}
        jobs = []
        for job in plan.jobs(experiment, self._part, self._given(words)):
            # Of what is typed with several values a job has one.
            own = [f"{key}={job[key]}" if key in job else word for key, word in given.items()]
            command = plan.command(experiment, self._part, own, job)
            jobs.append(Job(plan.overrides(experiment, job), command))
        return jobs

    def _composed(self, jobs: Sequence[Job]) -> list[dict]:
        """The resolved configuration of each job; a mistake in any ends the sweep here."""
        return [self._compose(job.words) for job in jobs]

    def _compose(self, words: list[str]) -> dict:
        try:
            config = self.hydra_context.config_loader.load_sweep_config(self.config, words)
        except HydraException as error:
            raise refused(self._part, words, error) from error
        with open_dict(config):
            del config["hydra"]
        return OmegaConf.to_container(with_one_objective(config), resolve=True)


def failures_of(jobs: Sequence[Job], results: Sequence[JobReturn]) -> list[str]:
    """What each failed job said, and below it the command that runs it."""
    failures = []
    for job, result in zip(jobs, results):
        if result.status is not JobStatus.COMPLETED:
            # Hydra's own property raises what the job raised.
            first_line = str(result._return_value).partition("\n")[0]
            failures.append(f"  {first_line}\n    {job.command}")
    return failures
