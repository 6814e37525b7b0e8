"""Which run a configuration asks for, and the directory that it lives in.

A run's identity is the value of the keys that change what it computes (`rtil.runs.keys`), however
they were written. Its directory is named after its choices, then what differs from what these
choices compose to, as far as there is room, and a digest of the identity:

    <root>/train/stylegan2-ilo-glyphs-demo-seed0,batch=4-1c0ffee1
    <root>/invert/<directory of the training>/cs-ratio0.1-ilo,restarts=4-5eedbed5

The name is for people; config.yaml in the directory says what the run is.
"""

from __future__ import annotations

import glob
import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from rtil.runs import keys, overrides, schema
from rtil.runs.kinds import ANYTHING, MapOf
from rtil.runs.setup import composed

ROOM = 100  # bytes of a directory's name, digest included
EXPORTED = "generator.pt"
DIGESTED = re.compile(r"-[0-9a-f]{8}$")  # how a name ends
Config = Mapping[str, object]


def values(config: Config, command: keys.Command) -> dict[str, object]:
    """{key: canonical value} of a run: what changes the result and is not at its default."""
    found = {}
    for key, value in keys.complete(keys.flatten(config)).items():
        default = keys.canonical(keys.row(key).default)
        if keys.role(key, command) == "identity" and keys.canonical(value) not in (None, default):
            found[key] = keys.canonical(value)
    return found


def digest(identity: Mapping[str, object]) -> str:
    """Eight hexadecimal digits of what `values` returns."""
    text = json.dumps(identity, sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:8]


def train_dir(config: Config) -> Path:
    """The directory of a training: that which holds it already, under whatever name, or a new one.

    Args:
        config: resolved, with what the data decided (image_channels, phase_nimg, split_files).
    """
    parent, stem = _root(config) / "train", _stem(config, _own_source(config))
    # Files may have been renamed since: they are known by their digest, where both say it.
    anywhere = config.get(keys.FILES) is not None
    start = _any_folder(stem) if anywhere else stem
    for run_dir, other in trainings(parent, start):
        known = run_dir.name.startswith(stem) or other.get(keys.FILES)
        if known and not keys.differing_keys(other, config, keys.matters("train")):
            return run_dir
    return named_train_dir(config)


def named_train_dir(config: Config) -> Path:
    """The directory of a training as it is named, whatever is on disk."""
    stem = _stem(config, _own_source(config))
    flat = keys.complete(keys.flatten(config))
    groups = {name: flat[f"{name}.name"] for name in keys.TRAINING}
    shown = {"augment": flat.get("augment.name", "none")}
    told = differences(config, "train", groups | shown)
    told |= {} if shown["augment"] == "none" else shown
    start = config.get(keys.INIT)
    if start is not None:
        # What starts from a trained generator does not grow, whatever its model does.
        told = {key: value for key, value in told.items() if not key.endswith("phase_nimg")}
        told["init"] = str(start)[:8]
    return _root(config) / "train" / name_of(stem, told, digest(values(config, "train")))


def invert_dir(kind: str, config: Config, trained: Config) -> Path:
    """The directory of an inversion: that which holds it, under whatever name, or a new one.

        <root>/kind/<directory of the training>/<name of the inversion>

    The training is that of the generator's file where it lies in <root>/train; another generator
    is named after its own training and its digest.

    Args:
        kind: "invert", "diagnose", or "tuned" for what chooses settings.
        config: resolved, with `generator` and `generator_sha256`.
        trained: configuration of the generator's training.
    """
    command: keys.Command = "tune" if kind == "tuned" else "invert"
    parent = _below_training(kind, config, trained)
    held = _held(parent, config, command)
    return held or named_invert_dir(kind, config, trained)


def _below_training(kind: str, config: Config, trained: Config) -> Path:
    """Where the inversions of a generator lie."""
    root, file = _root(config), Path(str(config["generator"]))
    if file.name == EXPORTED and file.parent.parent.resolve() == (root / "train").resolve():
        return root / kind / file.parent.name
    stem = _stem({**config, **trained}, _own_source(trained))
    return root / kind / f"{stem},{str(config['generator_sha256'])[:8]}"


def named_invert_dir(kind: str, config: Config, trained: Config) -> Path:
    """The directory of an inversion as it is named, whatever is on disk; see `invert_dir`."""
    command: keys.Command = "tune" if kind == "tuned" else "invert"
    flat = keys.complete(keys.flatten(config))
    groups = {name: flat[f"{name}.name"] for name in (*keys.TRAINING, "task", "inverter")}
    groups["protocol"] = flat["protocol.name"]
    told = differences(config, command, groups, "diagnose" if kind == "diagnose" else command)
    chosen = flat.get("protocol.tuned.keys") or ()
    assert isinstance(chosen, Sequence)
    hidden = (*keys.TRAINING, "protocol", "seed", "noise_std", str(flat.get("task.knob")), *chosen)
    told = {key: value for key, value in told.items() if not keys.is_under(key, hidden)}
    if command == "invert" and flat["protocol.name"] != "paper":
        told["protocol"] = flat["protocol.name"]
    name = name_of(inversion_stem(config), told, digest(values(config, command)))
    return _below_training(kind, config, trained) / name


def is_named(run_dir: Path) -> bool:
    """Whether a directory's name ends in a digest, as those of version 0.1 do not."""
    return DIGESTED.search(run_dir.name) is not None


def _held(parent: Path, config: Config, command: keys.Command) -> Path | None:
    """The directory below parent that holds a computation already, under whatever name.

    Names end in the digest of what they hold, but for those of version 0.1, which were made of
    what was typed: these are read.
    """
    for run_dir in sorted(parent.glob(f"*-{digest(values(config, command))}")):
        return run_dir
    for path in sorted(parent.glob("*/config.yaml")):
        if is_named(path.parent):
            continue
        other = keys.complete(keys.flatten(read_config(path.parent)))
        if not keys.differing_keys(other, config, keys.matters(command)):
            return path.parent
    return None


def find_generator(config: Config, files: str | None = None) -> Path:
    """The generator that an inversion's choices ask for, found by value below <root>/train.

    Args:
        files: digest of the training images as they are here; None where it is not known. A
            training with another digest is of other images, whatever they are called.

    Raises:
        FileNotFoundError: there is none; holds the command that trains it.
        ValueError: there are several, which differ in what an inversion does not say.
    """
    parent = _root(config) / "train"
    stem = training_stem(config)
    near, namesakes = [], []
    for run_dir, other in trainings(parent, _any_folder(stem) if files else stem):
        known, named = other.get(keys.FILES), run_dir.name.startswith(stem)
        same = known == files if files and known else named
        if same and (run_dir / EXPORTED).exists():
            near.append((run_dir, other))
        elif named and not same:
            namesakes.append((run_dir, other))
    asked = _asked_of_training(config)
    fitting = [(run_dir, other) for run_dir, other in near if not _lacks(other, asked)]
    if not fitting:
        lines = "".join(
            f"\n    {run_dir} has {'; '.join(_lacks(other, asked)[:3])}" for run_dir, other in near
        )
        raise FileNotFoundError(
            f"no generator at {parent / stem}*. Train it first:\n    {training_command(config)}\n"
            "or name another with generator=FILE."
            + (f" Others were trained with the same choices:{lines}" if near else "")
            + _other_images(config, namesakes)
        )
    if len(fitting) > 1:
        first = fitting[0]
        lines = f"\n    {first[0] / EXPORTED}"
        for run_dir, other in fitting[1:]:
            told = keys.differing_keys(first[1], other, keys.matters("train"))
            lines += f"\n    {run_dir / EXPORTED}, which differs in {'; '.join(told)}"
        raise ValueError(
            f"{len(fitting)} generators were trained with these choices; the first is the one "
            f"'there':{lines}\nName one with generator=FILE."
        )
    return fitting[0][0] / EXPORTED


def _other_images(config: Config, namesakes: Sequence[tuple[Path, Config]]) -> str:
    """Says where both are of trainings whose images are only called as those asked for."""
    asked = keys.flatten(config).get("data.path")
    lines = ""
    for run_dir, other in namesakes:
        own = keys.flatten(other).get("data.path")
        lines += f"\n    {run_dir} was trained on data.path={own}, and data.path={asked} differs"
    return f"\nImages of the same name are others:{lines}" if lines else ""


def _any_folder(stem: str) -> str:
    """How names of trainings on folders begin, whatever the folder was called."""
    return stem.partition("-folder-")[0] + "-folder" if "-folder-" in stem else stem


def trainings(parent: Path, stem: str) -> list[tuple[Path, dict]]:
    """(directory, configuration) of the trainings whose name begins with these choices."""
    found = []
    for path in sorted(parent.glob(f"{glob.escape(stem)}*/config.yaml")):
        rest = path.parent.name[len(stem) :]
        if not rest or rest[0] in ",-":  # seed1 is not seed10
            found.append((path.parent, read_config(path.parent)))
    return found


def read_config(run_dir: Path) -> dict:
    """The configuration of a run on disk.

    Raises:
        FileNotFoundError: there is none. ValueError: it is damaged; names file and key.
    """
    path = run_dir / "config.yaml"
    advice = "It is damaged: delete that directory, or move it out of the way."
    config = schema.read_yaml(path, MapOf(ANYTHING), advice)
    schema.check_settings(keys.flatten(config), str(path), advice)
    return config


def training_command(config: Config) -> str:
    """The command that trains what an inversion asks for: what is not composed by default."""
    flat = keys.complete(keys.flatten(config))
    source = flat.get("data.trained_on") or flat["data.name"]
    groups = {name: flat[f"{name}.name"] for name in keys.TRAINING} | {"data": source}
    plain, _ = composed("train", ())
    words = {name: value for name, value in groups.items() if plain.get(f"{name}.name") != value}
    for key in ("seed", "root"):
        words |= {key: flat[key]} if flat.get(key) != plain.get(key) else {}
    told = differences(config, "train", groups)
    if source != flat["data.name"]:
        told = {key: value for key, value in told.items() if not keys.is_under(key, ("data",))}
    else:
        files = {key: flat[key] for key in keys.SPLITS if flat.get(key)}
        words |= {key: value for key, value in files.items() if plain.get(key) != value}
    names = ("model", "rtil", "data", "resolution", "image_channels", "hardware")
    told = {key: value for key, value in told.items() if keys.is_under(key, names)}
    # What its groups do not have is added, such as arguments of a module of the user's.
    known, _ = composed("train", tuple(f"{name}={value}" for name, value in groups.items()))
    # An inversion does not depend on the length of the training, but a plan may say it.
    length = f"scale.{groups['model']}.total_nimg"
    told |= {length: flat[length]} if flat.get(length) not in (None, known.get(length)) else {}
    return overrides.line("train", words | told, told.keys() - known.keys())


def differences(
    config: Config, command: keys.Command, groups: Mapping[str, object], entry: str = ""
) -> dict[str, object]:
    """{key: value} of the settings that are not what a command composes from its groups alone.

    What follows from another of them, or was found out, is left out. Nothing is composed where
    nothing but groups was typed.

    Args:
        entry: the command whose yaml is composed, where it is not `command`.
    """
    words, counts = overrides.running(), keys.matters(command)
    named = {*groups, "seed", "hardware"} - {"protocol" if command == "train" else ""}
    if words is not None and all(
        key in named or not counts(key) for key in overrides.typed(words)
    ):
        return {}
    typed = tuple(f"{name}={value}" for name, value in groups.items())
    plain, written = composed(entry or command, typed)
    flat = keys.complete(keys.flatten(config))
    differing = {}
    for key, value in sorted(flat.items() if plain else ()):
        default = plain.get(key, keys.row(key).default)
        found = keys.row(key).found or key.endswith("sha256")
        # A growing schedule follows from the training's length.
        filled = (default is None and found) or (default == "grow" and value is not None)
        if counts(key) and not filled and keys.canonical(default) != keys.canonical(value):
            differing[key] = value
    # What is read from a setting that differs says nothing more.
    said = {*differing, "image_channels"}
    return {
        key: value
        for key, value in differing.items()
        if key != "seed"
        and not key.endswith(".name")
        and not any(keys.is_under(one, _mentioned(key, written)) for one in said)
    }


def name_of(stem: str, told: Mapping[str, object], digits: str) -> str:
    """A directory's name: choices, as many differences as there is room for, digest."""
    name = stem
    for key, value in sorted(told.items()):
        text = re.sub(r'[\["\]]', "", overrides.as_text(keys.canonical(value)))
        more = f",{key}={re.sub(r'[^A-Za-z0-9_.=,+-]', '_', text)}"
        if len(f"{name}{more}-{digits}".encode()) <= ROOM:
            name += more
    return f"{name}-{digits}"


def _mentioned(key: str, written: Mapping[str, object]) -> set[str]:
    """The keys that a composed setting is read from, as "${resolution}" is."""
    while key and key not in written:
        key = key.rpartition(".")[0]
    text = written.get(key)
    return {*re.findall(r"[\w.]+", text)} if isinstance(text, str) and "${" in text else set()


def _asked_of_training(config: Config) -> dict[str, object]:
    """What an inversion says of its generator's training, by key."""
    foreign = _source(config) != _own_source(config)
    asked, flat = {}, keys.flatten(config)
    # A task's knob may have no row of its own, and says nothing of a training.
    knob = flat.get("task.knob")
    for key, value in flat.items():
        both = keys.role(key, "train") == keys.role(key, "invert") == "identity"
        is_open = value is None and key.endswith("image_channels")
        is_open |= key == keys.FILES  # those of the split that is inverted
        if (
            both
            and key != knob
            and not is_open
            and not (foreign and keys.is_under(key, ("data",)))
        ):
            asked[key] = value
    return asked


def _lacks(trained: Config, asked: Mapping[str, object]) -> list[str]:
    """In what a training is not the one that an inversion asks for, as `differing_keys` says it.

    A growing schedule is of the training's own length.
    """
    flat = keys.flatten(trained)
    groups = {key.partition(".")[0] for key in asked}
    there = {key: value for key, value in flat.items() if key.partition(".")[0] in groups}
    open_keys = {key for key in there if key.endswith("image_channels") and key not in asked}
    # One that starts from a trained generator has nothing left to grow.
    starts = flat.get(keys.INIT) is not None
    grows = {key for key, value in asked.items() if value == "grow"}
    open_keys |= {key for key in grows if there.get(key) or starts}

    def counts(key: str) -> bool:
        both = keys.role(key, "train") == keys.role(key, "invert") == "identity"
        return both and key not in open_keys

    return keys.differing_keys(there, asked, counts)


def _stem(config: Config, source: str) -> str:
    """The choices of a training as its directory's name begins."""
    flat = keys.complete(keys.flatten(config))
    own = flat["objective.name"] == keys.row("objective.name").default
    objective = [] if own else [flat["objective.name"]]
    parts = [flat["model.name"], *objective, flat["rtil.name"], source, flat["scale.name"]]
    return "-".join([*map(str, parts), f"seed{flat['seed']}"])


def training_stem(config: Config) -> str:
    """The choices of an inversion's training, as that one's directory begins."""
    return _stem(config, _source(config))


def inversion_stem(config: Config) -> str:
    """The choices of an inversion as its directory's name begins: "cs-ratio0.1-noise0.05-ilo"."""
    flat = keys.complete(keys.flatten(config))
    knob = str(flat.get("task.knob"))
    parts = [flat["task.name"]]
    if knob != "noise_std" and knob in flat:
        parts.append(f"{knob}{keys.canonical(flat[knob])}")
    if flat.get("noise_std"):
        parts.append(f"noise{keys.canonical(flat['noise_std'])}")
    parts += [flat["inverter.name"]]
    if flat.get("data.trained_on") not in (None, flat["data.name"]):
        parts.append(flat["data.name"])
    return "-".join(map(str, parts))


def _own_source(config: Config) -> str:
    """The data of a configuration as a directory is named after them."""
    flat = keys.flatten(config)
    name, path = str(flat["data.name"]), flat.get("data.path")
    return f"folder-{Path(str(path)).stem}" if name == "folder" and path else name


def _root(config: Config) -> Path:
    return Path(str(config["root"]))


def _source(config: Config) -> str:
    """The data that a generator was trained on, as its directory is named after them."""
    flat = keys.flatten(config)
    trained_on = flat.get("data.trained_on") or flat["data.name"]
    return _own_source(config) if trained_on == flat["data.name"] else str(trained_on)
