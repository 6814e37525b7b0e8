"""Files of safetensors: what comes back is what went in, and whatever is damaged is refused."""

import json
import random
import re
import struct
import time

import pytest
import torch
from helpers import mutations
from safetensors.torch import save

from rtil import checkpoint
from rtil.process import tensor_file
from rtil.process.digest import digest
from rtil.process.weights import DamagedFile, read

GENERATOR = {
    "_target_": "rtil.models.stylegan2.StyleGAN2Generator",
    "resolution": 16,
    "channels": {4: 3, 8: 3, 16: 2},
    "image_channels": 3,
    "z_dim": 4,
    "num_mapping": 2,
}
CONTENT = {
    "format": checkpoint.EXPORT,
    "config": {"model": {"name": "x", "generator": GENERATOR}, "seed": 3, "lr": 1e-8, "at": None},
    "nimg": 25,
    "step": 1,
    "words": ["1e-3", "no", "é\n", "", "- x"],
}


def content():
    torch.manual_seed(0)
    G = checkpoint.instantiate(GENERATOR)
    return {**CONTENT, "G_ema": G.state_dict(), "D": {"a.b": torch.arange(3), "c": torch.ones(())}}


@pytest.fixture
def path(tmp_path):
    path = tmp_path / "generator.safetensors"
    checkpoint.save(content(), path)
    return path


def test_what_is_read_is_what_was_written_and_has_its_digest(path):
    found, written = checkpoint.load(path), content()
    assert digest(found) == digest(written)
    assert list(found["config"]["model"]["generator"]["channels"]) == [4, 8, 16]
    assert found["config"] == written["config"] and found["words"] == written["words"]


def test_tensors_that_share_memory_or_are_strided_are_written_each(tmp_path):
    path, x = tmp_path / "a.safetensors", torch.arange(6.0)
    tables = {"G_ema": {"x": x, "y": x, "part": x[:2], "turned": x.view(2, 3).T}}
    checkpoint.save(tables, path)
    found = read(path)
    assert all(torch.equal(found["G_ema"][name], y) for name, y in tables["G_ema"].items())


def test_a_file_is_one_that_the_library_reads(path):
    from safetensors.torch import load_file

    found = load_file(path)
    assert torch.equal(found["G_ema.const"], content()["G_ema"]["const"])


@pytest.mark.timeout(60)
def test_whatever_is_mutated_the_file_is_named_in_a_line(path):
    whole, rng = content(), random.Random(0)
    written = path.read_bytes()
    header = 8 + struct.unpack("<Q", written[:8])[0]
    started = time.perf_counter()
    for number in range(200):
        if number % 2:
            changed = mutations.of_bytes(rng, written)
        else:  # in the header, where bytes mean most
            changed = mutations.of_bytes(rng, written[:header]) + written[header:]
        path.write_bytes(changed)
        try:
            loaded = checkpoint.load(path)
        except ValueError as error:
            assert str(path) in str(error) and "\n" not in str(error)
            assert len(str(error)) < 500
        else:
            assert digest(loaded) == digest(whole)
    assert time.perf_counter() - started < 30


@pytest.mark.parametrize("share", [0.0, 0.001, 0.5, 0.99])
def test_a_truncated_file_is_named(path, share):
    whole = path.read_bytes()
    path.write_bytes(whole[: int(share * len(whole))])
    with pytest.raises(
        DamagedFile, match=r"generator\.safetensors cannot be read .* Copy it again"
    ):
        checkpoint.load(path)


@pytest.mark.parametrize("claimed", [10**12, 2**63, 2**64 - 1, 2**25])
def test_a_header_that_claims_more_than_the_file_is_refused_before_memory_is_taken(path, claimed):
    path.write_bytes(struct.pack("<Q", claimed) + path.read_bytes()[8:])
    started = time.perf_counter()
    with pytest.raises(DamagedFile, match=f"header claims {claimed} bytes"):
        checkpoint.load(path)
    assert time.perf_counter() - started < 1


def written(header, data=b""):
    text = json.dumps(header).encode() if isinstance(header, (dict, list)) else header
    return struct.pack("<Q", len(text)) + text + data


TENSOR = {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}


@pytest.mark.parametrize(
    ("header", "named"),
    [
        ([], "is \\[\\] and no table"),
        (b"{" * 5000, "is no JSON"),
        (b"[" * 100_000, "is no JSON"),
        (b"\xff\xfe", "is no JSON"),
        ({"__metadata__": {"rtil": 5}, "x": TENSOR}, "cannot be read"),
        ({"__metadata__": {"rtil": None}, "x": TENSOR}, "cannot be read"),
        ({"__metadata__": ["rtil"], "x": TENSOR}, "cannot be read"),
        ({"__metadata__": {"rtil": "[1]"}, "x": TENSOR}, "record is \\[1\\] and no table"),
        ({"__metadata__": {"rtil": ""}, "x": TENSOR}, "record is null and no table"),
        ({"__metadata__": {"rtil": "a: [1"}, "x": TENSOR}, "record is no yaml"),
        ({"__metadata__": {"rtil": "!!python/name:os.system"}, "x": TENSOR}, "record is no yaml"),
        ({"__metadata__": {"rtil": "a: &a [*a]"}, "x": TENSOR}, "record is no yaml"),
        ({"__metadata__": {"rtil": "x" * 2**21}, "x": TENSOR}, "2097152 characters"),
        ({"x": {**TENSOR, "shape": [10**12], "data_offsets": [0, 4 * 10**12]}}, "cannot be read"),
        ({"x": {**TENSOR, "shape": [2**62, 4]}}, "cannot be read"),
        ({"x": {**TENSOR, "dtype": "F8_E4M3", "shape": [4]}}, "x has numbers of type F8_E4M3"),
        ({"x": {**TENSOR, "dtype": "CODE"}}, "cannot be read"),
        ({"x": "tensor"}, "cannot be read"),
        ({"x": {**TENSOR, "shape": []}, "y": TENSOR}, "cannot be read"),
    ],
)
def test_what_no_generator_has_is_refused_in_a_line(path, header, named):
    path.write_bytes(written(header, bytes(4)))
    with pytest.raises(DamagedFile, match=named) as error:
        checkpoint.load(path)
    assert str(path) in str(error.value) and "\n" not in str(error.value)


def test_a_file_of_another_project_is_sent_to_the_importers(path):
    path.write_bytes(save({"decoder.conv_in.weight": torch.ones(3)}, metadata={"format": "pt"}))
    with pytest.raises(ValueError, match=r"generator\.safetensors has format null.*import_check"):
        checkpoint.load(path)


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"nimg": "many"}, "nimg=many must be a whole number"),
        ({"config": {"model": 1}}, "config.model=1 must be a table"),
        ({"format": "rtil-generator-9"}, "has format rtil-generator-9"),
        ({"format": ["a"]}, r"has format \[a\]"),
    ],
)
def test_a_record_of_another_kind_is_named(path, change, named):
    checkpoint.save({**content(), **change}, path)
    with pytest.raises(ValueError, match=rf"generator\.safetensors:? .*{named}"):
        checkpoint.load(path)


def test_contents_that_are_not_those_of_the_digest_are_damaged(path):
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(bytes(data))
    with pytest.raises(DamagedFile, match="contents are not those that were written"):
        checkpoint.load(path)
    text = path.read_bytes()
    checkpoint.save(content(), path)
    text = re.sub(rb"seed: 3", b"seed: 4", path.read_bytes())
    path.write_bytes(text)
    with pytest.raises(DamagedFile, match="contents are not those that were written"):
        checkpoint.load(path)


def test_numbers_that_float16_rounds_are_floats_alone():
    kinds = (torch.float32, torch.float64, torch.float16, torch.bfloat16, torch.int64, torch.bool)
    rounded = [tensor_file.as_float16(torch.ones(2, dtype=kind)).dtype for kind in kinds]
    assert rounded == [torch.float16, torch.float16, *kinds[2:]]
