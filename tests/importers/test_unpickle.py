"""Code in files does not run: it is refused by name, and nothing that was there is lost."""

import os
import pickle
from functools import partial

import foreign
import pytest
import torch

from rtil import checkpoint
from rtil.importers import conversion, unpickle


@pytest.fixture
def write(tmp_path):
    """Writes a net in a layout (tests/foreign.py) into the test's folder."""
    return partial(foreign.write, tmp_path)


class Payload:
    def __init__(self, target):
        self.target = target

    def __reduce__(self):
        return os.mkdir, (str(self.target),)


def zipped(content, path):
    torch.save(content, path)


def legacy(content, path):
    torch.save(content, path, _use_new_zipfile_serialization=False)


def bare(content, path):
    path.write_bytes(pickle.dumps(content, 4))


@pytest.mark.parametrize("save", [zipped, legacy, bare])
def test_a_file_with_code_is_refused_by_name_and_nothing_is_lost(write, tmp_path, save):
    path, out, sentinel = tmp_path / "evil.pt", tmp_path / "generator.pt", tmp_path / "ran"
    conversion.import_file(write("rosinality"), out)
    before = out.read_bytes()
    save({"g_ema": foreign.rosinality(foreign.Net()), "G_ema": Payload(sentinel)}, path)
    with pytest.raises(ValueError, match=r"evil\.pt .*(posix|nt)\.mkdir.* would run code"):
        conversion.import_file(path, out, force=True)
    assert not sentinel.exists() and out.read_bytes() == before
    if save is not bare:
        with pytest.raises(ValueError, match=r"evil\.pt .*(posix|nt)\.mkdir.* would run code"):
            checkpoint.load_generator(path)


@pytest.mark.parametrize("protocol", [2, 4])
def test_source_code_in_nvlabs_pickles_does_not_run(write, tmp_path, protocol):
    sentinel = tmp_path / "ran"
    source = f"import os; os.mkdir({str(sentinel)!r})"
    if protocol == 2:  # bytes are then text for a codec, which is not on the list
        with pytest.raises(ValueError, match=r"_codecs\.encode"):
            conversion.recognise(write("nvlabs", source=source, protocol=protocol))
    else:
        conversion.recognise(write("nvlabs", source=source, protocol=protocol)).weights()
    assert not sentinel.exists()


class Bytes:
    """Asks torch to load a storage from bytes that are a file with code."""

    def __init__(self, content):
        self.content = content

    def __reduce__(self):
        return torch.storage._load_from_bytes, (self.content,)


@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
@pytest.mark.parametrize("save", [zipped, legacy])
def test_code_inside_a_storage_does_not_run(tmp_path, save):
    sentinel, inner, path = tmp_path / "ran", tmp_path / "inner", tmp_path / "a.pkl"
    save(Payload(sentinel), inner)
    bare({"G_ema": Bytes(inner.read_bytes())}, path)
    with pytest.raises(ValueError, match=r"a\.pkl cannot be read"):
        unpickle.read(path)
    assert not sentinel.exists()


@pytest.mark.parametrize(
    ("module", "name"),
    [
        ("builtins", "eval"),
        ("builtins", "getattr"),
        ("torch", "load"),
        ("torch.storage", "os"),
        ("collections", "OrderedDict.fromkeys"),
        ("dnnlib.tflib.network", "Network"),
    ],
)
def test_every_other_name_is_refused(tmp_path, module, name):
    path = tmp_path / "a.pkl"
    text = [b"\x8c" + bytes([len(part)]) + part.encode() for part in (module, name)]
    path.write_bytes(b"\x80\x04" + b"".join(text) + b"\x93.")
    with pytest.raises(ValueError, match=rf"asks for {module}.{name}, .* would run code"):
        unpickle.read(path)


def test_tensors_stay_within_their_storage(tmp_path):
    class Wide:
        def __reduce__(self):
            _, arguments = torch.zeros(4).__reduce_ex__(2)
            return torch._utils._rebuild_tensor_v2, (arguments[0], 2, (3,), *arguments[3:])

    bare({"G_ema": Wide()}, tmp_path / "a.pkl")
    with pytest.raises(ValueError, match=r"cannot be read as a checkpoint \(RuntimeError\)"):
        unpickle.read(tmp_path / "a.pkl")


@pytest.mark.parametrize("kind", ["rosinality", "nvlabs", "legacy"])
@pytest.mark.parametrize("share", [0.0, 0.01, 0.5, 0.99])
def test_truncated_files_are_an_error_that_names_them(write, kind, share):
    path = (
        write("rosinality", _use_new_zipfile_serialization=False)
        if kind == "legacy"
        else write(kind)
    )
    whole = path.read_bytes()
    path.write_bytes(whole[: int(share * len(whole))])
    with pytest.raises(ValueError, match=rf"{path.name} cannot be read .* truncated"):
        conversion.recognise(path)
