"""What every setting means, in one table; each rule about settings is derived from it.

A row names a key or a prefix ("loss" stands for "loss.mse"); the longest that fits counts, and a
key without a row changes what is computed. To add a setting that does not, or that reports or
messages treat otherwise, add a row. What values it takes its name says (`rtil.runs.units`), or
else the `kind` of its row. What version 0.1 left unsaid is in `rtil.runs.version_0_1`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Literal

from rtil.runs import version_0_1
from rtil.runs.kinds import (
    ANYTHING,
    COUNT,
    COUNT_OR_NONE,
    NULL,
    POSITIVE,
    SHARE,
    SWITCH,
    TEXT,
    WEIGHT,
    WIDTH,
    Fault,
    Kind,
    ListOf,
    MapOf,
    Number,
    OneOf,
    Record,
)
from rtil.runs.units import OF_COMMAND, SCORED, kind_of_name

# identity: another value is another computation.
# implied:  as identity, but other keys say it already, so that no name is made from it.
# grows:    how long or how exactly; a run goes on with another value.
# free:     no effect on results.
# none:     no setting of this command.
Role = Literal["identity", "implied", "grows", "free", "none"]
Command = Literal["train", "invert", "tune"]
ID: Role = "identity"
MORE: Role = "grows"
FREE: Role = "free"
NONE: Role = "none"


@dataclass(frozen=True)
class Key:
    """One setting, or all below it.

    Args:
        train, invert, tune: what it means to each command.
        group: set for a group of configs; "training" are those that a generator is named after,
            "inversion" those that an inversion is.
        path: whether it names a file, or a directory of this machine.
        needs: what it has an effect on.
        cell: whether the cell, arm or seed of a report stands for it, or scores do not depend on
            it, so that runs that differ in it are still compared.
        found: whether a run finds it out and no override sets it; unsaid, it is equal.
        default: what a configuration without it means, and no run is named after.
        kind: what values it and all below it take, where their names do not say it.
        optional: whether null may stand for all of a group.
    """

    name: str
    train: Role
    invert: Role
    tune: Role
    group: Literal["", "training", "inversion", "process"] = ""
    path: Literal["", "file", "directory"] = ""
    needs: Literal["", "held-out images", "input"] = ""
    cell: bool = False
    found: bool = False
    default: object = None
    kind: Kind | None = None
    optional: bool = False


SIZE = re.compile(r"\.\d+$")
FILES, NIMG = "split_files", "nimg"
INIT = "init_sha256"  # of the weights that a training starts from
PATH = TEXT | NULL  # what a key with `path` takes; a folder may be named 2024
BUDGET = "inverter.steps"  # a tuning divides these steps; typed or planned, they bound it
AT = "protocol.at"  # its keys: what a tuning has otherwise than the inversion that takes it
TUNED = "protocol.tuned"  # what a run records of the tuning that it took
TRAINED_ON = Record({"data": Record({"name": TEXT})})  # images of a training, as it records them
COPIED = (AT, f"{TUNED}.at", f"{TUNED}.asked")  # below these stand keys with their own kinds
KEYS = (
    # What is trained. A tuning knows it by the generator's digest.
    Key("model", ID, ID, FREE, group="training"),
    Key("model.generator.normalise", ID, ID, FREE, default=False),
    Key("model.objective.path_mean_detached", ID, ID, FREE, default=True),
    Key("model.module", ID, ID, FREE, kind=ANYTHING),
    Key("model.generator.module", ID, ID, FREE, kind=ANYTHING),
    Key("model.reuse_fakes", ID, ID, FREE, default=False),
    Key("model.style_mixing_per", ID, ID, FREE, default="sample"),
    Key("objective", ID, ID, FREE, group="training"),
    Key("objective.name", ID, ID, FREE, default="own"),
    Key("rtil", ID, ID, FREE, group="training"),
    Key("rtil.family.fade_in", ID, ID, FREE, default="mixed"),
    Key("rtil.name", ID, ID, FREE, cell=True),
    Key("rtil.arm", FREE, FREE, FREE),
    Key("appendix", NONE, FREE, NONE),
    Key("data", ID, ID, ID, group="training"),
    Key("data.path", FREE, FREE, FREE, path="file"),
    Key("data.val_path", FREE, FREE, ID, path="file"),
    Key("data.test_path", FREE, FREE, ID, path="file"),
    Key("data.cache_gb", FREE, FREE, FREE),
    Key("data.channels", ID, ID, ID, kind=OneOf(("auto", 1, 3))),
    Key("data.max_megapixels", FREE, FREE, FREE),
    Key("data.max_file_mb", FREE, FREE, FREE),
    Key("data.origin", FREE, FREE, FREE, cell=True),
    Key("data.trained_on", FREE, ID, FREE, kind=TEXT | NULL),
    Key("scale", FREE, FREE, FREE, group="training"),
    Key("scale.name", ID, ID, FREE, cell=True),
    Key("scale.lpips", FREE, FREE, FREE, kind=WEIGHT),
    Key("scale.sweep", FREE, FREE, FREE, kind=ANYTHING),
    Key("seed", ID, ID, ID, cell=True),
    Key("resolution", ID, ID, ID),
    Key("image_channels", ID, ID, FREE, found=True),
    Key(FILES, ID, ID, ID, found=True),
    Key("total_nimg", MORE, NONE, NONE),
    Key("batch", ID, NONE, NONE),
    Key("crop_scale", ID, NONE, NONE),
    Key("images_found", FREE, NONE, NONE, found=True),
    Key("init", FREE, NONE, NONE, path="file"),
    Key(INIT, ID, NONE, NONE, kind=TEXT | NULL),
    Key("init_d_nimg", ID, NONE, NONE),
    Key("init_images", FREE, NONE, NONE, kind=ListOf(TRAINED_ON) | NULL),
    Key("freeze", ID, NONE, NONE, default=(), kind=ListOf(TEXT)),
    Key("augment", ID, NONE, NONE, group="process"),
    Key("augment._target_", FREE, NONE, NONE),
    Key("augment.name", ID, NONE, NONE, default="none"),
    Key("augment.kinds", ID, NONE, NONE, kind=ListOf(TEXT, fewest=1)),
    Key("augment.p", ID, NONE, NONE, kind=SHARE),
    Key("augment.target", ID, NONE, NONE, kind=Number(-1, 1)),
    Key("augment.speed", ID, NONE, NONE, kind=COUNT_OR_NONE | NULL),
    Key("augment.every", ID, NONE, NONE, kind=COUNT),
    # What is inverted, and how.
    Key("task", NONE, ID, ID, group="inversion"),
    Key("task._target_", NONE, FREE, FREE),
    Key("task.knob", NONE, FREE, FREE),
    Key("task.range", NONE, FREE, FREE, kind=ListOf(Number() | NULL, fewest=2, most=2)),
    Key("task.linear", NONE, FREE, FREE, kind=SWITCH | NULL),
    Key("task.measures", NONE, FREE, FREE, kind=TEXT | NULL),
    Key("task.physics", NONE, ID, ID, kind=ANYTHING),
    Key("ratio", NONE, ID, ID, cell=True),
    Key("factor", NONE, ID, ID, cell=True),
    Key("blur_std", NONE, ID, ID, cell=True),
    Key("noise_std", NONE, ID, ID, cell=True),
    Key("mask", NONE, FREE, ID, path="file"),
    Key("mask_sha256", NONE, ID, FREE, cell=True, kind=TEXT | NULL),
    Key("operator.per_image", NONE, ID, ID, default=False),
    Key("inverter", NONE, ID, ID, group="inversion"),
    Key("inverter.candidates", NONE, ID, ID, default=1),
    Key("inverter.family", NONE, FREE, FREE, kind=TEXT | NULL),
    Key("inverter.denoiser", NONE, FREE, FREE, path="file"),
    Key("denoiser_sha256", NONE, ID, FREE, kind=TEXT | NULL),
    Key("loss", NONE, ID, ID),
    Key("loss.perceptual", NONE, ID, ID, default="lpips", kind=TEXT),
    Key("selection", NONE, ID, ID),
    Key("heldout.share", NONE, ID, ID, default=0.1),
    Key("discrepancy.tau", NONE, ID, ID, default=1.0),
    Key("discrepancy.noise_std", NONE, ID, ID, kind=NULL | POSITIVE),
    Key("restarts", NONE, ID, ID, default=1),
    Key("average", NONE, ID, ID, default=False),
    Key("back_projection", NONE, ID, ID, default=False),
    Key("target_range", NONE, ID, ID),
    Key("generator", NONE, FREE, FREE, path="file"),
    Key("generator_sha256", NONE, ID, ID, cell=True, kind=TEXT | NULL),
    Key("modules", NONE, FREE, FREE, kind=ListOf(TEXT)),
    Key(NIMG, NONE, "implied", FREE, found=True),
    Key("split", NONE, ID, NONE, needs="held-out images"),
    Key("num_images", NONE, MORE, MORE, needs="held-out images"),
    Key("image_seed", NONE, ID, ID, needs="held-out images"),
    Key("inversion_batch", NONE, FREE, FREE),
    Key("input", NONE, FREE, NONE, path="file"),
    Key("fit", NONE, FREE, NONE, needs="input", kind=TEXT | NULL),
    Key("keep_observed", NONE, ID, NONE, needs="input"),
    Key("output", NONE, FREE, NONE, path="file", needs="input"),
    Key("pictures", NONE, FREE, NONE, needs="held-out images"),
    Key("save_measurements", NONE, FREE, NONE, needs="held-out images"),
    Key("save_draws", NONE, FREE, NONE, needs="held-out images"),
    Key("metrics", NONE, ID, NONE, needs="held-out images"),
    Key("metrics.lpips", NONE, ID, NONE, needs="held-out images", cell=True, kind=SCORED),
    Key("metrics.st_lpips", NONE, ID, NONE, needs="held-out images", cell=True, default="auto"),
    Key("yardstick", NONE, ID, NONE, cell=True),
    Key("yardstick.use", NONE, ID, NONE, needs="held-out images", cell=True),
    # What a diagnosis looks at; it is named as an inversion is.
    Key("num_samples", NONE, ID, NONE),
    Key("dims", NONE, ID, NONE),
    Key("neighbours", NONE, ID, NONE),
    Key("bootstrap", NONE, ID, NONE),
    Key("fid", NONE, ID, NONE, default=False),
    Key("stage_steps", NONE, "implied", NONE),
    Key("out", NONE, FREE, NONE, path="directory"),
    # How settings were chosen: the protocol's name is what rows are evidence of.
    Key("protocol", FREE, FREE, NONE, group="process"),
    Key("protocol.name", FREE, ID, NONE, cell=True, default="paper"),
    Key("protocol.train", FREE, FREE, NONE, kind=ListOf(TEXT)),
    Key("protocol.inverters", FREE, FREE, NONE, kind=ListOf(TEXT)),
    Key("protocol.tuned", FREE, FREE, NONE, optional=True),
    Key("protocol.tuned.file", FREE, FREE, NONE, path="file"),
    Key("protocol.tuned.keys", FREE, FREE, NONE, kind=ListOf(TEXT)),
    Key("protocol.tuned.trial", FREE, FREE, NONE, kind=COUNT_OR_NONE),
    Key("protocol.tuned.trials", FREE, FREE, NONE, kind=COUNT),
    Key("protocol.tuned.space", FREE, FREE, NONE, kind=TEXT),
    Key("protocol.tuned.validation", FREE, FREE, NONE, kind=TEXT),
    Key("protocol.tuned.validation.n", FREE, FREE, NONE, kind=COUNT),
    Key("protocol.tuned.validation.mean", FREE, FREE, NONE, kind=Number()),
    Key("protocol.tuned.validation.ci95", FREE, FREE, NONE, kind=NULL | WEIGHT),
    Key("protocol.tuned.validation.first_round", FREE, FREE, NONE, kind=COUNT),
    Key("tuned", NONE, FREE, NONE, path="file"),
    Key("search", NONE, NONE, ID),
    Key("search.anchors", NONE, NONE, ID, kind=ListOf(MapOf(ANYTHING))),
    Key("search.variants", NONE, NONE, ID, kind=ListOf(MapOf(ANYTHING), fewest=1)),
    Key("search.stages", NONE, NONE, ID, optional=True),
    Key("search.stages.first", NONE, NONE, ID, kind=ListOf(SHARE, fewest=2, most=2)),
    Key("search.stages.ratio", NONE, NONE, ID, kind=ListOf(POSITIVE, fewest=2, most=2)),
    Key("search_seed", NONE, NONE, ID),
    Key("trials", NONE, NONE, MORE),
    Key("final_images", NONE, NONE, MORE),
    Key("finalists", NONE, NONE, MORE),
    # Where and on what it runs.
    Key("hardware", FREE, FREE, FREE, group="process"),
    Key("hardware.precision", MORE, ID, ID, default="fp32"),
    Key("experiment", FREE, FREE, NONE, group="process", kind=ANYTHING, optional=True),
    Key("root", FREE, FREE, FREE, path="directory", kind=TEXT),
    Key("run_dir", FREE, FREE, NONE, path="directory", needs="held-out images"),
    Key("log_every", FREE, NONE, NONE),
    Key("wandb", FREE, NONE, NONE, kind=TEXT | NULL),
    Key("checkpoint_every", FREE, NONE, NONE),
    Key("samples_every", FREE, NONE, NONE),
    Key("keep_checkpoints", FREE, NONE, NONE),
    # Of reports alone.
    Key("pack", NONE, NONE, NONE, path="file"),
    Key("results", NONE, NONE, NONE, path="file", kind=PATH | ListOf(TEXT)),
    Key("docs", NONE, NONE, NONE, path="directory"),
    Key("check", NONE, NONE, NONE),
    Key("allow_uncommitted", NONE, NONE, NONE),
    Key("baseline", NONE, NONE, NONE),
)
OTHER = Key("", ID, ID, ID)
GROUPS = tuple(row.name for row in KEYS if row.group)
TRAINING = tuple(row.name for row in KEYS if row.group == "training")
SPLITS = tuple(row.name for row in KEYS if row.path and row.name.startswith("data."))
_ROWS = {row.name: row for row in KEYS}


def row(key: str) -> Key:
    """The row of a key: its own, or that of the longest prefix."""
    while key and key not in _ROWS:
        key = key.rpartition(".")[0]
    return _ROWS.get(key, OTHER)


def kind(key: str, command: str = "") -> Kind | None:
    """What values a key takes: by its command, or else its row, or else its name.

    None where nothing is known of it, as with settings of a user's own parts.
    """
    if key in OF_COMMAND.get(command, ()):
        return OF_COMMAND[command][key]
    own = row(key)
    if own.kind or own.path:
        return own.kind or PATH
    for copied in COPIED:
        if key.startswith(f"{copied}."):
            there = kind(key.removeprefix(f"{copied}."))
            return NULL | there if there else None
    if SIZE.search(key):
        return WIDTH  # of a table {size: width}, such as "channels.64"
    return kind_of_name(key.rpartition(".")[2])


def faults(settings: Mapping[str, object]) -> Iterator[Fault]:
    """Each recorded setting that is not of its kind, {"a.b": value}."""
    for key, value in settings.items():
        # A folder that is named 2024 was recorded as a number in version 0.1.
        number = isinstance(value, int) and row(key).path == "directory"
        own = None if number else kind(key)
        if own and (fault := own.fault(value, key)):
            yield fault


def role(key: str, command: Command) -> Role:
    """What a key means to a command."""
    return getattr(row(key), command)


def matters(command: Command) -> Callable[[str], bool]:
    """Whether a run of this command is another one where a key differs."""
    return lambda key: role(key, command) in ("identity", "implied")


def tells_apart(key: str) -> bool:
    """Whether a report names this setting where inversions of one cell differ in it."""
    return matters("invert")(key) and not row(key).cell


def matters_to_files(key: str) -> bool:
    """Whether a reconstruction of a user's file is another one where a key differs."""
    own = row(key)
    scored = own.needs == "held-out images" or is_under(key, ("data", "split_files"))
    return own.invert == "identity" and not scored


def for_training(key: str) -> bool:
    """Whether training takes a setting of an inversion or tuning, apart from where it lies."""
    return role(key, "train") != "none" and not is_under(key, ("run_dir", "experiment"))


def for_tuning(key: str) -> bool:
    """Whether a tuning takes a setting of the inversion that it is for."""
    return role(key, "tune") not in ("none", "grows")


def repeated(key: str, knob: str) -> bool:
    """Whether a command for another arm repeats a setting that was given to a run, beside the
    choices that it always names: groups, seed and measurement."""
    own = row(key)
    always = key in (*GROUPS, "seed", knob, "noise_std", "yardstick.use", "data.trained_on")
    part = own.invert == "grows" or (own.invert == "identity" and not own.found)
    return part and not always and not key.endswith("sha256")


def of_training(key: str) -> bool:
    """Whether a setting decides a training and no inversion says it: length, batch, `init`."""
    own = row(key)
    alone = own.invert == "none" and (own.train == "identity" or own.path == "file")
    return own.train == "grows" or (alone and own.train != "none")


def flatten(tree: Mapping, prefix: str = "") -> dict[str, object]:
    """{"a": {"b": 1}} to {"a.b": 1}; lists stay values."""
    flat: dict[str, object] = {}
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


def canonical(value: object) -> object:
    """A value in the one form that all ways of writing it have: 1 for 1.0, lists by elements."""
    if isinstance(value, (list, tuple)):
        return [canonical(entry) for entry in value]
    if isinstance(value, Mapping):
        return {str(key): canonical(entry) for key, entry in value.items()}
    if isinstance(value, float) and value.is_integer():
        return int(value)
    return value


def differing_keys(
    old: Mapping, new: Mapping, counts: Callable[[str], bool] = lambda key: True
) -> list[str]:
    """Lines "key: old there, new here" for every key that counts and differs.

    What a configuration leaves out is at its default; what one alone has found out is equal.
    """
    a, b = flatten(old), flatten(new)
    lines = []
    for key in sorted(a.keys() | b.keys()):
        own = row(key)
        there, here = a.get(key, own.default), b.get(key, own.default)
        unknown = own.found and (there is None or here is None)
        differs = there != here and canonical(there) != canonical(here)
        if differs and counts(key) and not unknown:
            lines.append(f"{key}: {there!r} there, {here!r} here")
    return lines


def complete(config: Mapping[str, object]) -> dict[str, object]:
    """A flattened configuration with what one of version 0.1 leaves unsaid."""
    unsaid = ("hardware.precision", "protocol.name", "model.generator.normalise", "objective.name")
    said = {key: row(key).default for key in unsaid}
    return {**said, **version_0_1.implied(config), **config}
