"""Files that hold weights: nothing is lost, nothing runs, and what comes back is what went in."""

import errno
import math
import os
import pickle
import random
import time
from collections import OrderedDict

import pytest
import torch

from rtil import checkpoint
from rtil.latents.additive import Additive
from rtil.latents.mixture import Mixture
from rtil.models.pggan import PGGANGenerator
from rtil.process.digest import digest
from rtil.process.instantiate import instantiate

PGGAN = {
    "_target_": "rtil.models.pggan.PGGANGenerator",
    "resolution": 16,
    "channels": {4: 3, 8: 3, 16: 2},
    "image_channels": 1,
    "z_dim": 4,
    "phase_nimg": [10, 20, 40],
}
STYLEGAN2 = {
    "_target_": "rtil.models.stylegan2.StyleGAN2Generator",
    "resolution": 16,
    "channels": {4: 3, 8: 3, 16: 2},
    "image_channels": 3,
    "z_dim": 4,
    "num_mapping": 2,
}


def content(generator, nimg=25, **changes):
    """What training exports: a random generator with its configuration."""
    torch.manual_seed(0)
    G = instantiate(generator)
    G.progress(nimg)
    config = {"model": {"name": "x", "generator": generator}, "seed": 3}
    return G, {
        "format": checkpoint.EXPORT,
        "config": config,
        "nimg": nimg,
        "step": 1,
        "G_ema": G.state_dict(),
        **changes,
    }


# Writing


def test_save_and_load_give_back_the_same(tmp_path):
    path = tmp_path / "a.pt"
    _, written = content(STYLEGAN2)
    checkpoint.save(written, path)
    read = checkpoint.load(path)
    assert read["config"] == written["config"] and read["config"]["model"]["generator"]["channels"]
    assert read["G_ema"].keys() == written["G_ema"].keys()
    assert all(torch.equal(read["G_ema"][k], v) for k, v in written["G_ema"].items())
    assert os.listdir(tmp_path) == ["a.pt"]


def half_then(error):
    """A torch.save that writes half of the bytes and then fails."""

    def save(content, file):
        file.write(b"half of a checkpoint")
        raise error

    return save


@pytest.mark.parametrize(
    "error",
    [
        OSError(errno.ENOSPC, "No space left on device"),
        RuntimeError("unexpected pos 64 vs 0"),  # what torch makes of a short write
    ],
)
def test_failing_write_keeps_the_old_file_and_leaves_no_part(tmp_path, monkeypatch, error):
    path = tmp_path / "a.pt"
    checkpoint.save({"format": checkpoint.EXPORT, "nimg": 1}, path)
    before = path.read_bytes()
    monkeypatch.setattr(torch, "save", half_then(error))
    with pytest.raises(RuntimeError, match=r"could not write .*a\.pt .* is untouched"):
        checkpoint.save({"format": checkpoint.EXPORT, "nimg": 2}, path)
    assert path.read_bytes() == before
    assert os.listdir(tmp_path) == ["a.pt"]


def test_interrupted_write_keeps_the_old_file_and_leaves_no_part(tmp_path, monkeypatch):
    path = tmp_path / "a.pt"
    path.write_bytes(b"old")
    monkeypatch.setattr(torch, "save", half_then(KeyboardInterrupt()))
    with pytest.raises(KeyboardInterrupt):
        checkpoint.save({}, path)
    assert path.read_bytes() == b"old" and os.listdir(tmp_path) == ["a.pt"]


def test_failing_rename_keeps_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "a.pt"
    path.write_bytes(b"old")

    def fail(*names):
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(os, "replace", fail)
    with pytest.raises(RuntimeError, match="Permission denied"):
        checkpoint.save({}, path)
    assert path.read_bytes() == b"old" and os.listdir(tmp_path) == ["a.pt"]


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs /dev/full")
def test_full_device_is_reported_as_such(tmp_path, monkeypatch):
    """The real error of a full disk, through torch.save itself."""
    path = tmp_path / "a.pt"
    path.write_bytes(b"old")
    real = open
    monkeypatch.setattr("builtins.open", lambda name, *rest: real("/dev/full", *rest))
    with pytest.raises(RuntimeError, match="could not write"):
        checkpoint.save({"x": torch.zeros(100_000)}, path)
    monkeypatch.undo()
    assert path.read_bytes() == b"old"


# Reading


@pytest.mark.parametrize("share", [0.0, 0.01, 0.5, 0.99])
def test_truncated_file_is_an_error_that_names_it(tmp_path, share):
    path = tmp_path / "a.pt"
    checkpoint.save(content(STYLEGAN2)[1], path)
    whole = path.read_bytes()
    path.write_bytes(whole[: int(share * len(whole))])
    for read in (checkpoint.load, checkpoint.load_generator):
        with pytest.raises(ValueError, match=r"a\.pt cannot be read as a checkpoint .* truncated"):
            read(path)


@pytest.mark.parametrize(
    "garbage", [b"hello\n", b"\x80\x02}q\x00.", b"PK\x03\x04 zip?", bytes(99)]
)
def test_other_files_are_an_error(tmp_path, garbage):
    path = tmp_path / "a.pt"
    path.write_bytes(garbage)
    with pytest.raises(ValueError, match=r"a\.pt (cannot be read|has format)"):
        checkpoint.load(path)


@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
@pytest.mark.parametrize(
    ("place", "value"),
    [(6, 99), (8, 255), (10, 77), (46, 255), (42, 255)],
    ids=["version", "flags", "method", "name", "offset"],
)
def test_a_damaged_zip_directory_is_an_error_that_names_the_file(tmp_path, place, value):
    """Places in the entry of the first record: Python's reader raises several kinds of errors."""
    path = tmp_path / "generator.pt"
    checkpoint.save(content(STYLEGAN2)[1], path)
    damaged = bytearray(path.read_bytes())
    damaged[damaged.index(b"PK\1\2") + place] = value
    path.write_bytes(damaged)
    with pytest.raises(checkpoint.DamagedFile, match=str(path)):
        checkpoint.load(path)


@pytest.mark.filterwarnings("ignore:Detected pickle protocol", "ignore:Duplicate name")
def test_whatever_byte_of_a_zip_directory_is_damaged_the_file_is_named(tmp_path):
    path, rng = tmp_path / "generator.pt", random.Random(0)
    whole = content(STYLEGAN2)[1]
    checkpoint.save(whole, path)
    written = path.read_bytes()
    start = written.index(b"PK\1\2")
    for _ in range(300):
        damaged = bytearray(written)
        damaged[rng.randrange(start, len(written))] ^= 1 << rng.randrange(8)
        path.write_bytes(damaged)
        try:
            loaded = checkpoint.load(path)
        except ValueError as error:
            assert str(path) in str(error) and "\n" not in str(error)
        else:
            # What the digest does not cover is how the zip was written.
            assert digest(loaded) == digest(whole)


def test_random_bytes_are_an_error(tmp_path):
    path, rng = tmp_path / "a.pt", random.Random(0)
    for _ in range(300):
        path.write_bytes(rng.randbytes(rng.randrange(1, 60)))
        with pytest.raises(ValueError, match=r"a\.pt (cannot be read|has format)"):
            checkpoint.load(path)


class Payload:
    def __init__(self, target):
        self.target = target

    def __reduce__(self):
        return os.mkdir, (str(self.target),)


@pytest.mark.parametrize(
    "write", [torch.save, lambda x, path: path.write_bytes(pickle.dumps(x, 2))]
)
def test_code_in_a_file_does_not_run(tmp_path, write):
    path, sentinel = tmp_path / "a.pt", tmp_path / "ran"
    write({"format": checkpoint.EXPORT, "config": Payload(sentinel)}, path)
    with pytest.raises(ValueError, match="would run code"):
        checkpoint.load(path)
    assert not sentinel.exists()


def test_missing_file_is_an_error(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"no checkpoint at .*a\.pt"):
        checkpoint.load(tmp_path / "a.pt")
    with pytest.raises(FileNotFoundError):
        checkpoint.load(tmp_path)


@pytest.mark.parametrize("written", [{"format": "other-7"}, {"g_ema": {}}, [1, 2], torch.zeros(2)])
def test_unknown_format_is_named(tmp_path, written):
    path = tmp_path / "a.pt"
    torch.save(written, path)
    found = written.get("format", "null") if isinstance(written, dict) else type(written).__name__
    with pytest.raises(ValueError, match=f"has format {found}; expected rtil-checkpoint-1 or"):
        checkpoint.load(path)


def test_exported_generator_is_no_training_checkpoint(tmp_path):
    path = tmp_path / "generator.pt"
    checkpoint.save(content(STYLEGAN2)[1], path)
    with pytest.raises(ValueError, match="expected rtil-checkpoint-1"):
        checkpoint.load(path, (checkpoint.CHECKPOINT,))


def test_latest_is_the_checkpoint_with_the_most_images(tmp_path):
    assert checkpoint.latest(tmp_path) is None
    for nimg in (16, 4000, 120000):
        (tmp_path / f"checkpoint-{nimg:010d}.pt").touch()
    (tmp_path / ".checkpoint-0000999999.pt.tmp-1").touch()
    (tmp_path / "generator.pt").touch()
    assert checkpoint.latest(tmp_path).name == "checkpoint-0000120000.pt"


# Generators


@pytest.mark.parametrize("generator", [STYLEGAN2, PGGAN])
@pytest.mark.parametrize("nimg", [5, 15, 35, 70])
def test_load_generator_draws_the_same_images_at_the_same_stage(tmp_path, generator, nimg):
    G, written = content(generator, nimg)
    checkpoint.save(written, tmp_path / "generator.pt")
    loaded, config = checkpoint.load_generator(tmp_path / "generator.pt")
    z0 = torch.randn(2, 4)
    assert torch.equal(loaded(z0), G(z0))
    assert loaded.num_blocks == G.num_blocks
    if isinstance(G, PGGANGenerator):
        assert loaded.alpha == G.alpha
    assert config == written["config"]
    assert not loaded.training and not any(p.requires_grad for p in loaded.parameters())


def test_load_generator_reads_the_average_of_a_training_checkpoint(tmp_path):
    G, written = content(STYLEGAN2, format=checkpoint.CHECKPOINT)
    other = {k: v + 1 for k, v in written["G_ema"].items()}
    checkpoint.save({**written, "G": other}, tmp_path / "checkpoint-0000000025.pt")
    loaded, _ = checkpoint.load_generator(tmp_path / "checkpoint-0000000025.pt")
    assert all(torch.equal(v, G.state_dict()[k]) for k, v in loaded.state_dict().items())


@pytest.mark.parametrize(("nimg", "words"), [(24000, "24,000 images"), (0, "imported")])
def test_whoever_reads_a_generator_is_told_how_long_it_was_trained(tmp_path, caplog, nimg, words):
    checkpoint.save(content(STYLEGAN2, nimg)[1], tmp_path / "generator.pt")
    with caplog.at_level("INFO"):
        checkpoint.load_generator(tmp_path / "generator.pt")
    assert f"{tmp_path / 'generator.pt'}: " in caplog.text and words in caplog.text


@pytest.mark.parametrize("change", ["missing", "unexpected", "misshapen"])
def test_weights_that_do_not_fit_are_named(tmp_path, change):
    _, written = content(STYLEGAN2)
    state = OrderedDict(written["G_ema"])
    name = "blocks.1.up.bias"
    if change == "missing":
        del state[name]
    elif change == "unexpected":
        name = "blocks.9.bias"
        state[name] = torch.zeros(1)
    else:
        state[name] = torch.zeros(99)
    checkpoint.save({**written, "G_ema": state}, tmp_path / "generator.pt")
    with pytest.raises(ValueError, match=rf"(?s)generator\.pt does not fit.*{name}"):
        checkpoint.load_generator(tmp_path / "generator.pt")


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_weights_that_are_not_finite_are_refused_by_name(tmp_path, bad):
    _, written = content(STYLEGAN2)
    written["G_ema"]["blocks.1.up.bias"][0] = bad
    checkpoint.save(written, tmp_path / "generator.pt")
    with pytest.raises(ValueError, match=r"blocks\.1\.up\.bias holds values that are not finite"):
        checkpoint.load_generator(tmp_path / "generator.pt")


@pytest.mark.parametrize(("key", "value", "named"), [
    ("num_mapping", 10**8, "model.generator.num_mapping=100000000 must be a whole number from 1"),
    ("num_mapping", 60, "does not fit the configured network: mapping.2.weight"),
    ("z_dim", 60_000, r"does not fit the configured network: mapping.0.weight"),
    ("channels", {4: 60_000, 8: 60_000, 16: 2}, "does not fit the configured network: const"),
    ("resolution", 2**14, "model.generator cannot be built"),
    ("colour", 3, "model.generator cannot be built"),
    ("image_channels", {}, "model.generator cannot be built: TypeError"),
    ("z_dim", "many", "model.generator.z_dim=many must be a whole number"),
    ("_target_", 5, "model.generator._target_=5 must be a text"),
])  # fmt: skip
def test_declared_sizes_are_compared_with_the_weights_before_memory_is_taken(
    tmp_path, key, value, named
):
    _, written = content({**STYLEGAN2})
    written["config"]["model"]["generator"][key] = value
    checkpoint.save(written, tmp_path / "generator.pt")
    begin = time.perf_counter()
    with pytest.raises(ValueError, match=named) as error:
        checkpoint.load_generator(tmp_path / "generator.pt")
    assert time.perf_counter() - begin < 2  # 29 GB of weights would not even be drawn
    assert "\n" not in str(error.value) and "generator.pt" in str(error.value)


@pytest.mark.parametrize("change", [
    {"config": {"model": []}}, {"nimg": "many"}, {"nimg": -1}, {"G_ema": [1]}, {"step": None},
    {"G_ema": {"w": 1.0}}, {"config": {"model": {"generator": {}}}}, {"config": None},
])  # fmt: skip
def test_entries_of_another_kind_are_named(tmp_path, change):
    checkpoint.save({**content(STYLEGAN2)[1], **change}, tmp_path / "generator.pt")
    key = next(iter(change))
    with pytest.raises(ValueError, match=rf"generator\.pt: {key}.* must be .*Copy it again"):
        checkpoint.load_generator(tmp_path / "generator.pt")


# Building


def test_build_makes_nested_objects():
    members = [{"_target_": "rtil.latents.additive.Additive", "depth": d} for d in (0, 2)]
    space = instantiate({"_target_": "rtil.latents.mixture.Mixture", "members": members}, group=2)
    assert space == Mixture((Additive(0), Additive(2)), group=2)


@pytest.mark.parametrize(
    "target",
    [
        "os.system",
        "torch.load",
        "rtil.train.train",
        "rtil.modelsX.y",
        None,
        # Reached through what a trusted module imports.
        "rtil.models.generator.torch.os.system",
        "rtil.models.generator.torch.load",
        "rtil.models.stylegan2.nn.Linear",
        "rtil.models.pggan.StylePrior",
        "rtil.models.nothing.X",
        "rtil.models.pggan.Nothing",
        "rtil.models.pggan",
        "rtil.models.",
    ],
)
def test_build_refuses_all_but_what_lives_in_rtil(target, tmp_path):
    sentinel = tmp_path / "ran"
    node = {"_target_": target, "command": f"touch {sentinel}"}
    with pytest.raises(ValueError, match="is not a class or function of rtil"):
        instantiate(node)
    with pytest.raises(ValueError, match="is not a class or function of rtil"):
        instantiate({**PGGAN, "channels": node})
    assert not sentinel.exists()


def test_configuration_in_a_file_cannot_call_anything_else(tmp_path):
    _, written = content(STYLEGAN2)
    sentinel = tmp_path / "ran"
    written["config"]["model"]["generator"] = {
        "_target_": "rtil.models.generator.torch.os.system",
        "command": f"touch {sentinel}",
    }
    checkpoint.save(written, tmp_path / "generator.pt")
    with pytest.raises(ValueError, match=r"torch\.os\.system"):
        checkpoint.load_generator(tmp_path / "generator.pt")
    assert not sentinel.exists()
