"""Code in files does not run: it is refused by name, and nothing that was there is lost."""

import io
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


class Repeated:
    """One element shown as many, by a stride of 0."""

    def __reduce__(self):
        _, arguments = torch.zeros(4).__reduce_ex__(2)
        return torch._utils._rebuild_tensor_v2, (arguments[0], 0, (10**10,), (0,), *arguments[4:])


class Copied:
    """One storage that is built many times over."""

    def __init__(self, content):
        self.content = content

    def __reduce__(self):
        return torch.storage._load_from_bytes, (self.content,)


@pytest.mark.parametrize("save", [zipped, legacy, bare])
def test_elements_that_a_tensor_repeats_take_no_memory(tmp_path, save):
    save({"G_ema": Repeated()}, tmp_path / "a.pkl")
    with pytest.raises(ValueError, match=r"a\.pkl.* more elements than it stores"):
        unpickle.read(tmp_path / "a.pkl")


def test_a_storage_that_is_built_many_times_is_refused(tmp_path):
    inner = io.BytesIO()
    torch.save(torch.zeros(10**5).untyped_storage(), inner, _use_new_zipfile_serialization=False)
    content = inner.getvalue()
    bare([Copied(content) for _ in range(50)], tmp_path / "a.pkl")
    assert (tmp_path / "a.pkl").stat().st_size < 2 * len(content)
    with pytest.raises(ValueError, match="cannot be read"):
        unpickle.read(tmp_path / "a.pkl")


class Called:
    """Asks torch's reader to call something with a number."""

    def __init__(self, function):
        self.function = function

    def __reduce__(self):
        return self.function, (10**13,)


@pytest.mark.parametrize("save", [zipped, legacy])
@pytest.mark.parametrize("function", [bytearray, torch.FloatTensor, torch.FloatStorage])
def test_what_takes_memory_by_a_number_is_not_called(tmp_path, save, function):
    save({"w": torch.zeros(2), "G_ema": Called(function)}, tmp_path / "a.pt")
    with pytest.raises(ValueError, match=r"a\.pt .* asks for .*, which would run code"):
        unpickle.read(tmp_path / "a.pt")
    inner = io.BytesIO()
    torch.save(Called(function), inner, _use_new_zipfile_serialization=False)
    bare({"G_ema": Copied(inner.getvalue())}, tmp_path / "a.pkl")
    with pytest.raises(ValueError, match=r"a\.pkl cannot be read"):
        unpickle.read(tmp_path / "a.pkl")


def nested():
    """A few bytes that are 2^40 entries when they are walked through."""
    tree = ()
    for _ in range(40):
        tree = (tree, tree)
    return tree


@pytest.mark.parametrize("save", [zipped, bare])
def test_contents_that_name_themselves_many_times_are_never_walked_through(tmp_path, save):
    path = tmp_path / "a.pt"
    save({"format": checkpoint.EXPORT, "config": nested(), "sha256": "0"}, path)
    with pytest.raises(ValueError, match=r"a\.pt holds more than 1000000 entries"):
        conversion.recognise(path)


@pytest.mark.parametrize("read", [unpickle.read, checkpoint.load])
@pytest.mark.parametrize("kind", ["pipe", "device"])
def test_only_regular_files_are_read(tmp_path, read, kind):
    path = tmp_path / "a.pt"
    if kind == "pipe":
        os.mkfifo(path)
    else:
        path.symlink_to("/dev/zero")
    with pytest.raises(ValueError, match=r"a\.pt is no regular file"):
        read(path)


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
