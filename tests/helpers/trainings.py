"""Settings of tiny trainings."""

from hydra import compose, initialize_config_dir

from rtil.process.command import CONFIGS

TINY = ("scale=tiny", "hardware=cpu", "hardware.threads=1", "data.num_train=64")


def config(*overrides):
    with initialize_config_dir(CONFIGS, version_base="1.3"):
        return compose("train", [*TINY, *overrides])
