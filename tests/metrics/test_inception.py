"""FID and KID: torch-fidelity's own numbers, on weights that are drawn where none are on disk."""

import json

import pytest
import torch
from helpers.commands import COMMON, composed, export

from rtil import diagnose
from rtil.metrics import inception

WORDS = ["num_samples=8", "dims=4", "bootstrap=2", "stage_steps=1", "num_images=1", "fid=true"]


@pytest.fixture(scope="module")
def drawn(tmp_path_factory):
    """A home of torch hub with weights in the layout of the file."""
    fidelity = pytest.importorskip("torch_fidelity", reason='pip install "rtil[fidelity]"')
    home = tmp_path_factory.mktemp("home")
    folder = home / "hub" / "checkpoints"
    folder.mkdir(parents=True)
    with pytest.MonkeyPatch.context() as patch:
        module = "torch_fidelity.feature_extractor_inceptionv3"
        # What it would load is what it drew.
        patch.setattr(f"{module}.torch.load", lambda path, **more: None)
        extractor = fidelity.FeatureExtractorInceptionV3
        patch.setattr(extractor, "load_state_dict", lambda self, state: None)
        torch.manual_seed(0)
        network = extractor("inception", ["2048"], "nothing")
    torch.save(network.state_dict(), folder / inception.FILE)
    return home


@pytest.fixture
def at_home(drawn, monkeypatch):
    monkeypatch.setenv("TORCH_HOME", str(drawn))
    return drawn


def images(n, seed):
    return torch.rand((n, 1, 16, 16), generator=torch.Generator().manual_seed(seed)) * 2 - 1


class Levels(torch.utils.data.Dataset):
    """Images as torch-fidelity takes them."""

    def __init__(self, x):
        self.x = ((x + 1) * 127.5).round().to(torch.uint8).expand(-1, 3, -1, -1)

    def __len__(self):
        return len(self.x)

    def __getitem__(self, index):
        return self.x[index]


@pytest.mark.slow
def test_both_are_what_torch_fidelity_computes_of_the_same_images(at_home):
    from torch_fidelity import calculate_metrics

    a, b = images(12, 0), images(12, 1) * 0.5
    network = inception.Inception()
    found = inception.inception_distance(network.features(a), network.features(b), seed=3)
    theirs = calculate_metrics(
        input1=Levels(a), input2=Levels(b), fid=True, kid=True, cuda=False, verbose=False,
        feature_extractor_weights_path=str(inception.weights_file()), kid_subset_size=6,
        rng_seed=3, batch_size=4, cache=False,
    )  # fmt: skip
    assert found.fid == pytest.approx(theirs["frechet_inception_distance"], rel=1e-3, abs=1e-4)
    assert found.kid == pytest.approx(theirs["kernel_inception_distance_mean"], rel=1e-3)


@pytest.mark.slow
def test_a_diagnosis_has_both_where_they_are_asked_for(at_home, tmp_path):
    export(tmp_path, rtil="vanilla")
    words = [*COMMON, f"root={tmp_path}", "rtil=vanilla", *WORDS]
    place = diagnose.diagnose(composed("diagnose", *words).copy(), words)
    rows = json.loads((place / "diagnose.json").read_text())["members"]
    assert all(row["inception"]["fid"] > 0 for row in rows)
    text = (place / "diagnose.md").read_text()
    assert "FID" in text and "KID" in text


def test_without_the_file_its_name_and_place_are_told_before_anything_is_drawn(
    tmp_path, monkeypatch
):
    pytest.importorskip("torch_fidelity", reason='pip install "rtil[fidelity]"')
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "home"))
    export(tmp_path, rtil="vanilla")
    words = [*COMMON, f"root={tmp_path}", "rtil=vanilla", *WORDS]
    with pytest.raises(FileNotFoundError) as error:
        diagnose.diagnose(composed("diagnose", *words).copy(), words)
    text = str(error.value)
    assert inception.FILE in text and str(tmp_path / "home" / "hub" / "checkpoints") in text
    assert inception.URL in text and "\n" not in text


@pytest.mark.parametrize(
    ("content", "named"),
    [
        (b"no weights", "cannot be read as PyTorch weights"),
        ({"fc.weight": torch.ones(2)}, "no weights of torch-fidelity's Inception"),
        ([1, 2], "no weights of torch-fidelity's Inception"),
    ],
)
def test_a_file_of_something_else_is_named(tmp_path, monkeypatch, content, named):
    pytest.importorskip("torch_fidelity", reason='pip install "rtil[fidelity]"')
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    path = tmp_path / "hub" / "checkpoints" / inception.FILE
    path.parent.mkdir(parents=True)
    if isinstance(content, bytes):
        path.write_bytes(content)
    else:
        torch.save(content, path)
    with pytest.raises(RuntimeError, match=named) as error:
        inception.Inception()
    assert str(path) in str(error.value) and "\n" not in str(error.value)


def test_code_in_the_file_does_not_run(tmp_path, monkeypatch):
    """torch-fidelity itself reads pickles with their code."""
    pytest.importorskip("torch_fidelity", reason='pip install "rtil[fidelity]"')

    class Payload:
        def __reduce__(self):
            return (tmp_path / "ran").mkdir, ()

    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    path = tmp_path / "hub" / "checkpoints" / inception.FILE
    path.parent.mkdir(parents=True)
    torch.save({"fc.weight": Payload()}, path)
    with pytest.raises(RuntimeError, match="cannot be read"):
        inception.Inception()
    assert not (tmp_path / "ran").exists()


def test_without_the_library_the_extra_is_named(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "torch_fidelity", None)
    with pytest.raises(ValueError, match=r'pip install "rtil\[fidelity\]"'):
        inception.Inception()
