"""Run directories: where a run lives, whose it is, and its rows on disk."""

from __future__ import annotations

import hashlib
import json
import os
import shlex
from collections.abc import Iterable, Mapping
from pathlib import Path

import yaml
from hydra.core.hydra_config import HydraConfig

from rtil.operators import KNOBS

# Keys that may differ between a run and its continuation without changing what it computes.
FREE_TRAIN = ("run_dir", "root", "total_nimg", "hardware", "log_every", "checkpoint_every",
              "samples_every", "keep_checkpoints", "data.path", "data.val_path", "data.test_path",
              "data.cache_gb", "scale", "protocol", "experiment")
# Training may go on in another precision, as on another machine; rows of one table may not.
FREE_INVERT = ("run_dir", "root", "generator", "num_images", "inversion_batch",
               "hardware.device", "hardware.threads", "hardware.tf32", "hardware.channels_last",
               "hardware.ops", "hardware.cuda_graphs", "pictures", "save_measurements", "protocol",
               "experiment", "data.path", "data.val_path", "data.test_path", "data.cache_gb",
               "scale")
# What a run finds out and no override sets: the digest of its split's files, which may move, and
# how many images its generator was trained with. Runs of earlier versions do not say it.
FILES, NIMG = "split_files", "nimg"
ARM = "rtil.arm"  # of a family, which its name implies where an earlier version does not say it
FOUND = (FILES, NIMG, ARM)
# What a configuration without the key means.
UNSAID = {"hardware.precision": "fp32", "model.generator.normalise": False}
GROUPS = ("model", "rtil", "task", "inverter", "data", "scale", "hardware", "experiment",
          "protocol")
# Overrides that a run's directory is named after, and those among them that it is not.
IN_NAME = {
    "train": ("model", "rtil", "data", "scale", "resolution", "image_channels"),
    "invert": ("task", "inverter", "loss", "metrics", "selection", "target_range", "split",
               "mask", "heldout", "discrepancy", "restarts", "average", "back_projection",
               "scale.ilo", "scale.csgm", "scale.mgan", "scale.lpips", "tuned",
               "hardware.precision", "protocol.at"),
}
NOT_IN_NAME = ("data.path", "data.val_path", "data.test_path", "data.cache_gb", "data.trained_on",
               "scale.num_images", "scale.inversion_batch", "scale.sweep")
# Overrides that training takes from an inversion's.
FOR_TRAINING = ("model", "rtil", "data", "scale", "protocol", "hardware", "seed", "root", "batch")


def flatten(tree: Mapping, prefix: str = "") -> dict[str, object]:
    """{"a": {"b": 1}} to {"a.b": 1}; lists stay values."""
    flat = {}
    for key, value in tree.items():
        name = f"{prefix}{key}"
        flat.update(flatten(value, f"{name}.") if isinstance(value, Mapping) else {name: value})
    return flat


def nested(flat: Mapping[str, object]) -> dict:
    """{"a.b": 1} to {"a": {"b": 1}}, which undoes `flatten`."""
    tree: dict = {}
    for key, value in flat.items():
        *parents, last = key.split(".")
        node = tree
        for name in parents:
            node = node.setdefault(name, {})
        node[last] = value
    return tree


def is_under(key: str, names: Iterable[str]) -> bool:
    """Whether a key is one of the names or below one: "loss.mse" is under "loss"."""
    return any(key == name or key.startswith(f"{name}.") for name in names)


def differing_keys(old: Mapping, new: Mapping, free: Iterable[str]) -> list[str]:
    """Lines "key: old there, new here" for every key outside `free` that differs.

    What only one of them says of FOUND counts as equal.
    """
    a, b = UNSAID | flatten(old), UNSAID | flatten(new)
    unknown = {key for key in FOUND if a.get(key) is None or b.get(key) is None}
    return [
        f"{key}: {a.get(key)!r} there, {b.get(key)!r} here"
        for key in sorted((a.keys() | b.keys()) - unknown)
        if a.get(key) != b.get(key) and not is_under(key, free)
    ]


def told_files(differs: Iterable[str]) -> str:
    """What to do where lines of `differing_keys` say that images are others; "" where not."""
    if not any(line.startswith(f"{FILES}:") for line in differs):
        return ""
    return ("\nThe images are others: files were added, removed or exchanged in data.path, "
            "data.val_path or data.test_path. They may move, but have to stay the same: give "
            "them as they were.")


def claim(run_dir: Path, config: Mapping, free: Iterable[str]) -> bool:
    """Makes run_dir for this configuration, or checks that it belongs to it.

    Returns:
        Whether the directory holds an earlier part of the same run.

    Raises:
        ValueError: it holds a run with other settings; the message names the keys.
    """
    path = run_dir / "config.yaml"
    if path.exists():
        old = yaml.safe_load(path.read_text())
        differs = differing_keys(old or {}, config, free)
        if differs:
            raise ValueError(
                f"{run_dir} holds a run with other settings:\n  " + "\n  ".join(differs)
                + told_files(differs) + "\nChoose another run_dir=..., or delete that directory."
            )
        write_text(path, yaml.safe_dump(dict(config), sort_keys=False))
        return True
    run_dir.mkdir(parents=True, exist_ok=True)
    write_text(path, yaml.safe_dump(dict(config), sort_keys=False))
    return False


def run_label(kind: str, cfg: Mapping, overrides: Iterable[str] | None = None) -> str:
    """Directory name of a run: its choices, then the overrides that matter to it.

    Training and inversion share every key that a training run is named after, so an inversion
    finds the generator trained with the same choices. Other keys (batch, ...) are compared by
    `claim`. A protocol names an inversion; a training run is named after the keys that it sets,
    as if they had been typed.

    Args:
        kind: "train" or "invert"; an inversion's overrides include those of its training.
        cfg: resolved configuration.
        overrides: "key=value" texts; None reads those of the running Hydra job.
    """
    if overrides is None:
        overrides = HydraConfig.get().overrides.task if HydraConfig.initialized() else ()
    data, protocol = cfg["data"], cfg.get("protocol") or {"name": "paper"}
    if kind == "train":
        overrides = [*overrides, *protocol.get("train", ())]
        source = data.get("trained_on") or data["name"]
        if source == data["name"] == "folder" and data.get("path"):
            source = f"folder-{Path(str(data['path'])).stem}"
        parts = [cfg["model"]["name"], cfg["rtil"]["name"], source, cfg["scale"]["name"],
                 f"seed{cfg['seed']}"]
    else:
        knob = [f"{k}{cfg[k]}" for k in KNOBS if k in cfg]
        noise = [f"noise{cfg['noise_std']}"] if cfg.get("noise_std") else []
        parts = [cfg["task"]["name"], *knob, *noise, cfg["inverter"]["name"]]
        if data.get("trained_on") not in (None, data["name"]):
            parts.append(data["name"])
    kept = set()
    for text in overrides:
        key, _, value = text.lstrip("+~").partition("=")
        own = is_under(key, IN_NAME[kind]) and not is_under(key, NOT_IN_NAME)
        other = kind == "train" and is_under(key, IN_NAME["invert"])
        if own and not other and key not in GROUPS:
            kept.add(f"{key}={value}".replace("/", "_").replace(" ", ""))
    if kind == "invert" and protocol["name"] != "paper":
        kept.add(f"protocol={protocol['name']}")
    suffix = ",".join(sorted(kept))
    if len(suffix) > 100:
        suffix = hashlib.sha256(suffix.encode()).hexdigest()[:12]
    return "-".join(parts) + (f",{suffix}" if suffix else "")


def inversion_place(
    kind: str, cfg: Mapping, overrides: Iterable[str], explicit: str
) -> Path:
    """<root>/kind/<choices of the training>/<choices of the inversion>.

    Args:
        kind: "invert", or "tuned" for what chose its settings.
        cfg: resolved configuration.
        explicit: digest of a generator that is no other run's, which names the directory; or "".
    """
    overrides = list(overrides)
    trained = ",".join([run_label("train", cfg, overrides), explicit]).rstrip(",")
    return Path(cfg["root"]) / kind / trained / run_label("invert", cfg, overrides)


def trained_generator(cfg: Mapping, overrides: Iterable[str]) -> Path:
    """Where the generator that an inversion's choices ask for is, once it is trained."""
    return Path(cfg["root"]) / "train" / run_label("train", cfg, overrides) / "generator.pt"


def training_command(cfg: Mapping, overrides: Iterable[str]) -> str:
    """The command that trains it: test images of another data set are not its training images."""
    data, words = cfg["data"], []
    source = data.get("trained_on") or data["name"]
    for text in overrides:
        key = text.lstrip("+~").partition("=")[0]
        if key == "data" and source != data["name"]:
            text = f"data={source}"
        if is_under(key, FOR_TRAINING) and key != "data.trained_on":
            words.append(shlex.quote(text))
    if source != data["name"] and not any(word.startswith("data=") for word in words):
        words.append(f"data={source}")
    return " ".join(["python -m rtil.train", *words])


def write_text(path: Path, text: str) -> None:
    """Writes a small file so that a reader sees the old or the new content, never a part."""
    temporary = path.with_name(f".{path.name}.tmp-{os.getpid()}")
    try:
        temporary.write_text(text)
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def write_provenance(run_dir: Path, record: Mapping) -> None:
    """Writes what a command that works on run_dir runs with: its own line, versions, device.

    Those of earlier commands stay under "before", oldest first, where they differ: rows and steps
    may be theirs.
    """
    path, before = run_dir / "provenance.json", []
    if path.exists():
        old = json.loads(path.read_text())
        before = [*old.pop("before", []), old]
    before = [other for other in before if other != record]
    text = json.dumps({**record, **({"before": before} if before else {})}, indent=1)
    write_text(path, text)


def recorded_commands(run_dir: Path) -> list[list[str]]:
    """The commands that worked on a run, the last one first, as program and its arguments."""
    path = run_dir / "provenance.json"
    if not path.exists():
        return []
    record = json.loads(path.read_text())
    return [entry["command"] for entry in (record, *reversed(record.get("before", ())))]


def append_rows(path: Path, rows: Iterable[Mapping]) -> None:
    """Appends rows to a JSON-lines file and forces them to disk."""
    with open(path, "a", encoding="utf-8") as file:
        file.writelines(json.dumps(row) + "\n" for row in rows)
        file.flush()
        os.fsync(file.fileno())


def read_rows(path: Path) -> list[dict]:
    """Rows of a JSON-lines file; a last line that was cut off while writing is left out.

    Raises:
        ValueError: a line before the last is not JSON.
    """
    if not path.exists():
        return []
    rows, lines = [], path.read_text(encoding="utf-8").splitlines()
    for number, line in enumerate(lines, start=1):
        try:
            rows.append(json.loads(line))
        except json.JSONDecodeError as error:
            if number < len(lines):
                raise ValueError(f"{path}, line {number}: not JSON ({error}).") from error
    return rows


def mend(path: Path, keep=lambda row: True) -> list[dict]:
    """Rewrites a JSON-lines file with the complete rows that `keep` accepts; returns them."""
    rows = [row for row in read_rows(path) if keep(row)]
    if path.exists():
        write_text(path, "".join(json.dumps(row) + "\n" for row in rows))
    return rows


def result_rows(run_dir: Path) -> list[dict]:
    """Rows of every process that wrote to an inversion's directory, one per image id."""
    rows = {}
    for path in sorted(run_dir.glob("results*.jsonl")):
        rows.update({row["id"]: row for row in read_rows(path)})
    return list(rows.values())
