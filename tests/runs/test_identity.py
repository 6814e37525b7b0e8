"""Runs are known by value: one computation, one directory; two computations, two."""

import json
from functools import lru_cache

import pytest
import yaml
from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from omegaconf import OmegaConf

from rtil.process.command import CONFIGS
from rtil.runs import identity, keys
from rtil.runs.setup import composed

LATER = {"loss.perceptual", "metrics.st_lpips"}
DIGESTS = {"generator": "x/generator.pt", "generator_sha256": "a" * 64}


@lru_cache
def _resolved(command, *words):
    with initialize_config_dir(CONFIGS, version_base="1.3"):
        cfg = compose(command, list(words))
    cfg.image_channels = cfg.image_channels or 1
    return json.dumps(OmegaConf.to_container(cfg, resolve=True))


def resolved(command, *words):
    config = json.loads(_resolved(command, *words))
    return config if command == "train" else {**config, **DIGESTS}


def place(command, *words):
    """The directory that a command leads to."""
    config = resolved(command, *words)
    if command == "train":
        return identity.train_dir(config)
    return identity.invert_dir(command, config, resolved("train"))


@pytest.mark.parametrize(
    ("command", "words"),
    [
        ("train", ["model.lr=0.002"]),
        ("train", ["model.lr=2.0e-3", "rtil.family.sigma=1"]),
        ("train", ["batch=8"]),
        ("train", ["scale.stylegan2.batch=8", "resolution=32"]),
        ("train", ["total_nimg=5", "log_every=1", "hardware=cpu", "root=runs", "data.cache_gb=1"]),
        ("train", ["hardware.precision=bf16"]),
        ("train", ["scale.ilo.steps=[1]", "scale.num_images=3"]),
        ("invert", ["inverter.lr_style=0.2"]),
        ("invert", ["inverter.lr_style=0.20", "loss.mse=0.250", "ratio=0.1"]),
        ("invert", ["inverter.steps=[200,100,100]"]),
        ("invert", ["scale.ilo.steps=[200,100,100]"]),
        ("invert", ["protocol=paper", "restarts=1", "average=false", "target_range=signed"]),
        ("invert", ["num_images=3", "pictures=false", "hardware=cpu", "inversion_batch=1"]),
        ("invert", ["loss.perceptual=lpips", "metrics.st_lpips=auto"]),
    ],
)
def test_a_default_that_is_typed_leads_to_the_same_directory(command, words):
    assert place(command, *words) == place(command, *words[::-1]) == place(command)


def test_one_value_leads_to_one_directory_however_it_is_said():
    ways = (["inverter.steps=[3,2,2]"], ["scale.ilo.steps=[3,2,2]"])
    assert len({place("invert", *words) for words in ways}) == 1
    ways = (["batch=4", "model.lr=0.1"], ["model.lr=1e-1", "scale.stylegan2.batch=4"])
    assert len({place("train", *words) for words in ways}) == 1
    a, b = ({"inverter": {"lr": lr, "steps": [1, lr]}, "seed": 0} for lr in (1, 1.0))
    assert identity.digest(identity.values(a, "invert")) == identity.digest(
        identity.values(b, "invert")
    )


def another(value):
    """A value that is not this one."""
    if isinstance(value, bool):
        return not value
    if isinstance(value, (int, float)):
        return value + 1
    return [*value, 7] if isinstance(value, list) else f"{value}x"


@pytest.mark.parametrize("command", ["train", "invert", "tune"])
def test_every_key_is_part_of_the_identity_or_not_as_its_row_says(command):
    flat = keys.flatten(resolved(command)) | {keys.FILES: "f", "mask_sha256": "m"}
    before = identity.digest(identity.values(keys.nested(flat), command))
    for key, value in flat.items():
        changed = keys.nested(flat | {key: another(value)})
        differs = identity.digest(identity.values(changed, command)) != before
        assert differs == (keys.role(key, command) == "identity"), key


@pytest.mark.parametrize("command", ["train", "invert"])
def test_a_key_at_its_default_leaves_no_trace(command):
    """So that a run of a version that did not have it keeps its name."""
    flat = keys.flatten(resolved(command))
    known = {row.name for row in keys.KEYS if row.default is not None} & flat.keys()
    assert known
    for key in known:
        less = {name: value for name, value in flat.items() if name != key}
        one, other = (identity.values(keys.nested(each), command) for each in (flat, less))
        assert one == other, key
    more = keys.nested(flat | {"loss.new": None})
    assert identity.values(more, command) == identity.values(keys.nested(flat), command)


@pytest.mark.parametrize(
    ("command", "words", "name"),
    [
        ("train", [], "stylegan2-ilo-glyphs-demo-seed0-"),
        ("train", ["seed=1", "rtil=vanilla"], "stylegan2-vanilla-glyphs-demo-seed1-"),
        ("train", ["resolution=64"], "stylegan2-ilo-glyphs-demo-seed0,resolution=64-"),
        (
            "train",
            ["data=folder", "data.path=/a/my faces.zip", "data.num_val=null"],
            "stylegan2-ilo-folder-my faces-demo-seed0,data.num_val=null-",
        ),
        ("train", ["model=pggan", "protocol=authors"], "pggan-ilo-glyphs-demo-seed0,"),
        (
            "train",
            ["freeze=[const,mapping.0]"],
            "stylegan2-ilo-glyphs-demo-seed0,freeze=const,mapping.0-",
        ),
        ("invert", [], "cs-ratio0.1-ilo-"),
        ("invert", ["task=sr", "noise_std=0.05"], "sr-factor4-noise0.05-ilo-"),
        ("invert", ["task=denoise", "inverter=tv"], "denoise-noise0.1-tv-"),
        ("invert", ["restarts=4", "protocol=fair"], "cs-ratio0.1-ilo,protocol=fair,restarts=4-"),
        ("invert", ["scale.ilo.steps=[3,4]"], "cs-ratio0.1-ilo,inverter.steps=3,4-"),
        ("invert", ["model.lr=1", "data=celebahq"], "cs-ratio0.1-ilo-celebahq-"),
    ],
)
def test_a_name_says_the_choices_and_what_differs_from_them(command, words, name):
    found = place(command, *words).name
    assert found.startswith(name) and len(found.encode()) <= identity.ROOM
    assert len(found.rpartition("-")[2]) == 8


def test_a_name_is_short_and_one_directory_whatever_is_in_it():
    words = {f"data.key{i}": "a/b [c]*" for i in range(20)}
    name = identity.name_of("stem", words, "0" * 8)
    assert len(name.encode()) <= identity.ROOM and not {*"/ []*"} & {*name}
    assert name.startswith("stem,data.key0=a_b_c_")


def export(root, *words, rows=True):
    """A trained generator of these choices, without its weights."""
    config = resolved("train", f"root={root}", *words)
    run_dir = identity.train_dir(config)
    run_dir.mkdir(parents=True)
    (run_dir / "config.yaml").write_text(yaml.safe_dump(config))
    (run_dir / identity.EXPORTED).write_text(str(words))
    return run_dir / identity.EXPORTED


def test_an_inversion_finds_the_generator_of_its_choices_by_value(tmp_path):
    root = f"root={tmp_path}"
    with pytest.raises(FileNotFoundError, match=r"python -m rtil\.train"):
        identity.find_generator(resolved("invert", root))
    plain = export(tmp_path)
    export(tmp_path, "seed=10")
    sigma = export(tmp_path, "rtil.family.sigma=2")
    grown = export(tmp_path, "model=pggan")
    find = lambda *words: identity.find_generator(resolved("invert", root, *words))  # noqa: E731
    assert find() == find("inverter=csgm", "model.lr=0.002") == plain
    assert find("rtil.family.sigma=2.0", "task=sr") == sigma
    assert find("model=pggan", "inverter=mgan") == grown
    for words in (["seed=1"], ["rtil.family.sigma=3"], ["model.phase_nimg=null", "model=pggan"]):
        with pytest.raises(FileNotFoundError) as error:
            find(*words)
        assert words[0] in str(error.value).splitlines()[1]
    with pytest.raises(FileNotFoundError, match=r"rtil\.family\.sigma: 1\.0 there, 3 here"):
        find("rtil.family.sigma=3")


def test_a_generator_of_other_data_is_found_by_what_it_was_trained_on(tmp_path):
    other = export(tmp_path, "data=ffhq")
    config = resolved("invert", f"root={tmp_path}", "data=celebahq", "data.num_test=3")
    assert identity.find_generator(config) == other
    line = identity.training_command({**config, "root": "elsewhere"})
    assert line == "python -m rtil.train data=ffhq root=elsewhere"


def test_the_command_that_trains_a_generator_says_how_long_it_was_planned_to_train():
    words = ("model=pggan_r1", "scale.pggan_r1.total_nimg=99", "root=elsewhere")
    config = resolved("invert", *words)
    line = identity.training_command(config)
    assert line == f"python -m rtil.train {' '.join((words[0], words[2], words[1]))}"
    del config["scale"]["pggan_r1"]  # a scale need not know every network
    assert words[1] not in identity.training_command(config)


def test_several_generators_of_the_same_choices_are_told_apart_by_what_differs(tmp_path):
    files = [export(tmp_path), export(tmp_path, "batch=4")]
    with pytest.raises(ValueError, match="generator=FILE") as error:
        identity.find_generator(resolved("invert", f"root={tmp_path}"))
    assert all(str(file) in str(error.value) for file in files)
    assert "batch: 8 there, 4 here" in str(error.value) or "batch: 4 there" in str(error.value)


def started(root, digest, *words):
    """A generator whose training started from weights of this digest."""
    config = resolved("train", f"root={root}", *words, "model.phase_nimg=null")
    config |= {keys.INIT: digest, "init_d_nimg": 8}
    run_dir = identity.named_train_dir(config)
    write_config(run_dir, config)
    (run_dir / identity.EXPORTED).write_text(digest)
    return run_dir / identity.EXPORTED


@pytest.mark.parametrize("model", ["stylegan2", "pggan"])  # which grows, where nothing is trained
def test_a_generator_that_started_from_another_is_found_or_told_apart_by_its_digest(
    tmp_path, model
):
    words = (f"model={model}", "inverter=csgm")
    first = started(tmp_path, "a" * 64, f"model={model}")
    stem, _, rest = first.parent.name.partition(",")
    assert stem == f"{model}-ilo-glyphs-demo-seed0" and rest.startswith(f"init={'a' * 8},")
    assert "phase" not in rest
    config = resolved("invert", f"root={tmp_path}", *words)
    assert identity.find_generator(config) == first
    new = export(tmp_path, f"model={model}")
    with pytest.raises(ValueError, match="2 generators were trained with these") as error:
        identity.find_generator(config)
    assert all(str(file) in str(error.value) for file in (first, new))
    assert f"init_sha256: '{'a' * 64}'" in str(error.value) or "init_sha256: None" in str(
        error.value
    )
    second = started(tmp_path, "b" * 64, f"model={model}")
    assert second.parent != first.parent
    with pytest.raises(ValueError, match="3 generators were trained with these"):
        identity.find_generator(config)


def test_a_training_goes_on_where_its_directory_is_whatever_it_is_called(tmp_path):
    run_dir = export(tmp_path).parent
    old = run_dir.rename(run_dir.with_name("stylegan2-ilo-glyphs-demo-seed0"))
    config = resolved("train", f"root={tmp_path}")
    assert identity.train_dir({**config, "total_nimg": 10**6, keys.FILES: "new"}) == old
    assert identity.train_dir({**config, "batch": 4}) != old


def test_training_images_are_known_by_their_digest_and_not_by_their_path(tmp_path):
    def config(name, digest):
        words = ("data=folder", f"data.path=/a/{name}.zip", f"root={tmp_path}")
        return resolved("train", *words) | {keys.FILES: digest}

    own = config("faces", "1")
    run_dir = identity.train_dir(own)
    run_dir.mkdir(parents=True)
    (run_dir / "config.yaml").write_text(yaml.safe_dump(own))
    assert identity.train_dir(config("renamed", "1")) == run_dir
    assert identity.train_dir(config("renamed", "2")) != run_dir
    assert identity.train_dir(config("faces", "2")) != run_dir


def test_inversions_lie_below_their_training_or_below_a_name_with_the_generators_digest(tmp_path):
    own = export(tmp_path)
    config = resolved("invert", f"root={tmp_path}") | {"generator": str(own)}
    trained = resolved("train", "rtil=vanilla")
    assert identity.invert_dir("invert", config, trained).parent.name == own.parent.name
    for file in ("elsewhere/generator.pt", str(own.with_name("checkpoint-1.pt"))):
        found = identity.invert_dir("invert", {**config, "generator": file}, trained)
        assert found.parent.name == "stylegan2-vanilla-glyphs-demo-seed0,aaaaaaaa"
    names = [
        identity.invert_dir("invert", config | {"generator_sha256": letter * 64}, trained)
        for letter in "ab"
    ]
    assert names[0] != names[1]


@pytest.mark.parametrize(
    ("task", "one", "other"),
    [
        ("sr", "factor=2", "factor=2.0"),
        ("cs", "ratio=1", "ratio=1.0"),
        ("denoise", "noise_std=1", "noise_std=1.0"),
        ("cs", "noise_std=1", "noise_std=1.0"),
    ],
)
@pytest.mark.parametrize("command", ["invert", "tune"])
def test_a_number_is_one_value_with_and_without_a_point(command, task, one, other):
    config = resolved(command, f"task={task}", one)
    again = resolved(command, f"task={task}", other)
    kind = {"invert": "invert", "tune": "tuned"}[command]
    trained = resolved("train")
    found = [identity.invert_dir(kind, each, trained) for each in (config, again)]
    assert found[0] == found[1]


def write_config(run_dir, config):
    run_dir.mkdir(parents=True)
    (run_dir / "config.yaml").write_text(yaml.safe_dump(config))


def test_a_configuration_of_0_1_names_no_distance_and_means_lpips():
    new = keys.flatten(resolved("invert", "task=inpainting", "ratio=0.5", "loss.lpips=1"))
    old = {key: value for key, value in new.items() if key not in LATER}
    assert new.keys() - old.keys() == LATER
    assert identity.values(old, "invert") == identity.values(new, "invert")
    assert not keys.differing_keys(old, new)
    other = {**new, "loss.perceptual": "vgg_l1"}
    assert identity.values(other, "invert") != identity.values(new, "invert")
    assert keys.differing_keys(old, other) == ["loss.perceptual: 'lpips' there, 'vgg_l1' here"]


@pytest.mark.parametrize(
    ("words", "key", "published"),
    [
        (("model=stylegan2", "rtil=ilo"), "model.objective.path_mean_detached", False),
        (("model=stylegan2", "rtil=ilo"), "model.style_mixing_per", "batch"),
        (("model=stylegan2", "rtil=ilo"), "model.reuse_fakes", True),
        (("model=pggan", "rtil=mgan"), "model.reuse_fakes", True),
        (("model=pggan", "rtil=mgan_mixture"), "rtil.family.fade_in", "last"),
    ],
)
def test_a_training_of_0_1_did_not_do_as_the_published_code(tmp_path, words, key, published):
    """It lacks the key, is found and goes on by the default, and is not taken for the other."""
    choices = (*words, f"root={tmp_path}")
    new = keys.flatten(resolved("train", *choices))
    old = {name: value for name, value in new.items() if name != key}
    assert new[key] == keys.row(key).default
    run_dir = identity.train_dir(keys.nested(old))
    write_config(run_dir, keys.nested(old))
    (run_dir / identity.EXPORTED).touch()
    assert identity.train_dir(keys.nested(new)) == run_dir
    assert identity.find_generator(resolved("invert", *choices)).parent == run_dir
    other = (*choices, f"{key}={published}")
    assert identity.train_dir(resolved("train", *other)) != run_dir
    with pytest.raises(FileNotFoundError, match=f"{key}="):
        identity.find_generator(resolved("invert", *other))


def test_an_inversion_of_version_0_1_goes_on_where_it_is(tmp_path):
    config = resolved("invert", f"root={tmp_path}")
    trained, new = resolved("train"), identity.invert_dir("invert", config, resolved("train"))
    old = new.with_name("cs-ratio0.1-ilo,inverter.lr_style=0.2")
    said = {key: value for key, value in keys.flatten(config).items() if key != "rtil.arm"}
    of_old = [key for key in said if key.startswith("task.") and key != "task.scale"]
    said = {key: value for key, value in said.items() if key not in of_old}
    said |= {"task.name": "cs", keys.FILES: None, "num_images": 3}
    write_config(old, keys.nested({key: v for key, v in said.items() if v is not None}))
    assert identity.invert_dir("invert", config, trained) == old
    other = resolved("invert", f"root={tmp_path}", "inverter.lr_style=0.3")
    assert identity.invert_dir("invert", other, trained) not in (old, new)


def test_a_moved_folder_of_training_images_is_known_by_its_files(tmp_path):
    moved = ("data=folder", "data.path=moved", f"root={tmp_path}")
    for name, digest in (("photos", "of these"), ("other", "of others")):
        config = resolved("train", "data=folder", f"data.path={name}", f"root={tmp_path}")
        config[keys.FILES] = digest
        run_dir = identity.named_train_dir(config)
        write_config(run_dir, config)
        (run_dir / "generator.pt").touch()
    asked = {**resolved("invert", *moved), "generator": None}
    assert "folder-photos" in str(identity.find_generator(asked, "of these"))
    with pytest.raises(FileNotFoundError):
        identity.find_generator(asked, "of none of them")
    with pytest.raises(FileNotFoundError):  # by its name, where the digest is not known
        identity.find_generator(asked)


def test_composing_leaves_the_command_that_asks_as_it_was():
    with initialize_config_dir(CONFIGS, version_base="1.3"):
        before = GlobalHydra.instance().hydra
        composed.cache_clear()
        assert composed("invert", ("task=sr",))[0]["factor"] == 4
        assert GlobalHydra.instance().hydra is before
        assert compose("train").seed == 0
    assert composed("train", ("model=no_such_model",)) == ({}, {})
