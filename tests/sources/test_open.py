from __future__ import annotations

import pickle
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from torch import nn

from kompakt.errors import CaptureError, KompaktError, UsageError
from kompakt.sources import open_source

MODULE = """
import torch

def alone():
    return torch.nn.Linear(3, 2)

def pair():
    return torch.nn.Linear(3, 2), torch.ones(4, 3)

def raises():
    raise ValueError("the weights are gone")

def nothing():
    pass

def three():
    return torch.nn.Linear(3, 2), torch.ones(4, 3), 7
"""


@pytest.fixture(autouse=True)
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    (tmp_path / "opened.py").write_text(MODULE)
    (tmp_path / "half_written.py").write_text("def model(:\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    yield
    sys.modules.pop("opened", None)


def refusal(source: str, *, trust: bool = False) -> KompaktError:
    with pytest.raises(KompaktError) as caught:
        open_source(source, trust=trust)
    return caught.value


def test_a_function_may_return_a_model_alone_or_with_its_inputs() -> None:
    alone, pair = open_source("opened:alone"), open_source("opened:pair")
    assert isinstance(alone.model, nn.Linear)
    assert alone.example_inputs is None
    assert pair.example_inputs.shape == (4, 3)
    assert pair.name == "Linear"


@pytest.mark.parametrize(
    ("source", "code", "told"),
    [
        ("opened:raises", "K012", "ValueError: the weights are gone"),
        ("opened:nothing", "K012", "nothing (None)"),
        ("opened:three", "K012", "a tuple of 3 (Linear, Tensor, int)"),
        ("opened:missing", "K011", "missing"),
        ("not_there:model", "K011", "not_there"),
        ("half_written:model", "K011", "SyntaxError"),
        ("nowhere", "K010", "package.module:function"),
        ("model.onnx", "K010", "no such file"),
    ],
)
def test_what_names_no_model_is_an_error_that_says_why(source: str, code: str, told: str) -> None:
    error = refusal(source)
    assert error.code == code
    assert told in error.why
    assert error.help


def test_an_error_of_the_function_names_its_line() -> None:
    assert "opened.py, line 11" in refusal("opened:raises").where


def test_a_file_of_python_code_gets_the_right_form_as_advice() -> None:
    assert "models.vision.resnet:small" in refusal("models/vision/resnet.py:small").help


class Bomb:
    """Touches a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> object:
        return (Path.touch, (self.path,))


@pytest.mark.parametrize("suffix", [".pt", ".pth", ".bin", ".pkl", ".PT", ".ckpt"])
def test_a_pickle_is_refused_unopened(tmp_path: Path, suffix: str) -> None:
    sentinel = tmp_path / "executed"
    path = tmp_path / f"model{suffix}"
    path.write_bytes(pickle.dumps(Bomb(sentinel)))
    for trust in (False, True):
        error = refusal(str(path), trust=trust)
        assert isinstance(error, UsageError)
        assert error.code == "K013"
        assert "package.module:function" in error.help
    assert not sentinel.exists()


def test_a_pt2_file_is_loaded_only_when_it_is_trusted(tmp_path: Path) -> None:
    model = nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2)).eval()
    example = torch.randn(5, 3)
    batch = torch.export.Dim("batch")
    program = torch.export.export(model, (example,), dynamic_shapes=({0: batch},))
    path = tmp_path / "net.pt2"
    torch.export.save(program, path)
    error = refusal(str(path))
    assert error.code == "K014"
    assert "--trust-source" in error.help
    source = open_source(str(path), trust=True)
    assert source.name == "net"
    assert torch.equal(source.example_inputs[0], example)
    assert torch.equal(source.model(example[:2]), model(example[:2]))


def test_a_damaged_or_missing_pt2_file_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "broken.pt2").write_bytes(b"PK\x03\x04 not a program")
    error = refusal(str(tmp_path / "broken.pt2"), trust=True)
    assert isinstance(error, CaptureError)
    assert error.code == "K015"
    assert refusal(str(tmp_path / "gone.pt2"), trust=True).code == "K010"


def test_an_artifact_is_recognised_as_no_source(tmp_path: Path) -> None:
    (tmp_path / "manifest.json").write_text("{}")
    error = refusal(str(tmp_path))
    assert isinstance(error, UsageError)
    assert error.code == "K010"
    assert "kompakt artifact" in error.why
    assert "original model" in error.help
