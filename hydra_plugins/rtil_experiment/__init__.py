"""Hydra's way to run an experiment: a sweeper whose jobs are those of `rtil.experiments.plan`.

Any launcher runs the jobs. configs/hydra/sweeper/experiment.yaml chooses both classes.
"""

from __future__ import annotations

from collections.abc import Sequence

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.plugins import Plugins
from hydra.experimental.callback import Callback
from hydra.plugins.sweeper import Sweeper
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig, OmegaConf, open_dict

from rtil.experiments import check, plan
from rtil.process.command import entry


class Register(Callback):
    """Makes the sweeper known to Hydra, which accepts classes of the package hydra_plugins alone.

    Hydra finds it by itself where rtil is installed as a copy, but not where the installation is
    a link to its sources.
    """

    def on_multirun_start(self, config: DictConfig, **_: object) -> None:
        Plugins.instance().register(ExperimentSweeper)


class ExperimentSweeper(Sweeper):
    """Runs the jobs of config.experiment (`rtil.experiments.plan.jobs`)."""

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
        loader, given = self.hydra_context.config_loader, {}
        for word in OverridesParser.create(loader).parse_overrides(list(arguments)):
            sweep = word.is_sweep_override()
            values = word.sweep_string_iterator() if sweep else [word.get_value_element_as_str()]
            given[word.get_key_element()] = list(values)
        experiment = OmegaConf.to_container(self.config.experiment, resolve=True)
        part = self.config.hydra.job.config_name
        jobs = [plan.overrides(experiment, job) for job in plan.jobs(experiment, part, given)]
        # A mistake in any job ends the sweep before the first.
        composed = [self._compose(words) for words in jobs]
        words = [word for word in arguments if word.partition("=")[0] != "experiment"]
        if part != "train":
            check.check_trained(experiment, composed, words)
        if part == "invert":
            check.check_tuned(experiment, composed, words)
        for result in self.launcher.launch(jobs, initial_job_idx=0):
            _ = result.return_value  # raises what the job raised

    def _compose(self, words: list[str]) -> dict:
        """The resolved configuration of a job."""
        config = self.hydra_context.config_loader.load_sweep_config(self.config, words)
        with open_dict(config):
            del config["hydra"]
        return OmegaConf.to_container(config, resolve=True)
