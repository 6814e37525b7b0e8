"""Runs of a plan written by hand, and the studies of them."""

import json

import upgrade_rows
import yaml

from rtil.experiments import plan as experiment
from rtil.reporting import study
from rtil.runs import identity, overrides
from rtil.runs import keys as key_table


def write_run(root, plan, job, psnr, words=(), name=None, scale="demo"):
    """An inversion of a job with {image: psnr_db} that says so, under a name of its own.

    Args:
        words: what its command set besides.
        name: of the experiment that it was run for, where it is not the plan.
    """
    own_words = words
    config = {
        "seed": 0,
        "noise_std": 0.0,
        "root": str(root),
        "scale": {"name": scale},
        "data": {"name": "glyphs", "trained_on": "glyphs"},
    }
    words = [*experiment.overrides(plan, job), *words]
    for word in words:
        key, _, value = word.lstrip("+").partition("=")
        tree, value = config, experiment.parsed(value)
        *parts, last = [key, "name"] if key in key_table.GROUPS else key.split(".")
        for part in parts:
            tree = tree.setdefault(part, {})
        tree[last] = value
    config["experiment"]["name"] = name or plan["name"]
    # Named as version 0.1 named it.
    run_dir = root / "invert"
    stems = (identity.training_stem(config), identity.inversion_stem(config))
    for stem, suffix in zip(stems, upgrade_rows.suffixes(words)):
        run_dir /= f"{stem},{suffix}".rstrip(",")
    run_dir.mkdir(parents=True)
    (run_dir / "config.yaml").write_text(yaml.safe_dump(config))
    name = config["experiment"]["name"]
    command = ["invert.py", f"experiment={name}", f"scale={scale}", "num_images=2", *words]
    typed = {**job, **overrides.typed(own_words)}
    record = {"command": command, "experiments": [{"name": name, "job": typed}]}
    (run_dir / "provenance.json").write_text(json.dumps(record))
    rows = [
        {"id": i, "psnr_db": v, "ssim": 0.5, "oracle_psnr_db": v + 1, "lmmse_psnr_db": 10.0}
        for i, v in psnr.items()
    ]
    (run_dir / "results.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return run_dir


def forget_experiments(run_dir):
    """Leaves a run as version 0.1 did, which did not record whose it is."""
    path = run_dir / "provenance.json"
    record = json.loads(path.read_text())
    record.pop("experiments")
    record["command"] = [w for w in record["command"] if not w.startswith("+experiment.")]
    path.write_text(json.dumps(record))
    config = yaml.safe_load((run_dir / "config.yaml").read_text())
    config["experiment"].pop("job")
    (run_dir / "config.yaml").write_text(yaml.safe_dump(config))


def study_of(root, plan=None, scale="demo", rows=()):
    """What a report below root, or of packed rows, is about."""
    source = study.Source(root, tuple(rows))
    if plan is None:
        return study.of_everything(source, "vanilla")
    return study.of_experiment(plan, scale, source, "vanilla")
