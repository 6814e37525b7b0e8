"""Runs of two arms under a protocol, written by hand."""

import yaml

from helpers.reports import make_run


def of_protocol(run_dir, protocol, selection="best"):
    tuned = {"tuned": {"validation": {"mean": 20.0}}} if protocol == "fair" else {}
    text = yaml.safe_dump({"protocol": {"name": protocol, **tuned}, "selection": selection})
    with open(run_dir / "config.yaml", "a") as file:
        file.write(text)


def write(root, protocol, vanilla, gain, seed=0, selection="best", ratio=0.1):
    for arm, value in (("vanilla", vanilla), ("ilo", vanilla + gain)):
        run_dir = make_run(
            root,
            arm,
            {"a": value, "b": value + 2},
            seed,
            pictures=False,
            ratio=ratio,
            name=f"{protocol}-{ratio}",
        )
        of_protocol(run_dir, protocol, selection)
