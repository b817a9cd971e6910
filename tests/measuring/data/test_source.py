"""What a string on the command line may name."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from kompakt.errors import DataError
from kompakt.measuring.data import open_data, prepare
from kompakt.measuring.data.digits import SIZES
from kompakt.network.interface import TensorSpec

MODULE = """
import torch

CALLS = []

def listed():
    return [(torch.ones(4, 2), torch.zeros(4)), (torch.ones(3, 2), torch.zeros(3))]

def generated(split):
    CALLS.append(split)
    for size in (4, 3):
        yield torch.full((size, 2), float(len(split))), torch.zeros(size)

def fails():
    raise RuntimeError("no such disk")

def fails_later():
    yield torch.ones(4, 2)
    raise RuntimeError("disk gone")

def number():
    return 3

def tensor():
    return torch.ones(3, 2)
"""
SPEC = (TensorSpec("x", ("batch", 2), torch.float32),)


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    (tmp_path / "own_data.py").write_text(MODULE)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.chdir(tmp_path)
    yield "own_data"
    sys.modules.pop("own_data", None)


def test_digits_are_split_without_overlap() -> None:
    seen: set[bytes] = set()
    for split, size in SIZES.items():
        data = open_data("builtin:digits", ["image"], split)
        images = torch.cat([batch.inputs["image"] for batch in data])
        labels = torch.cat([batch.labels for batch in data])
        assert images.shape == (size, 1, 8, 8)
        assert images.dtype == torch.float32
        assert (images.min(), images.max()) == (0, 1)
        assert set(labels.tolist()) == set(range(10))
        new = {image.numpy().tobytes() for image in images}
        assert not seen & new
        seen |= new
    assert sum(SIZES.values()) == 1797


def test_digits_take_options() -> None:
    data = open_data("builtin:digits?split=test&batch=150&shuffle=3", [], "calibration")
    assert [batch.size for batch in data] == [150, 150, 100]
    assert "digits, test: 400 samples" in data.describe()
    assert data.sha256() != open_data("builtin:digits?split=test").sha256()


def test_a_function_that_returns_a_list(module: str) -> None:
    data = open_data(f"{module}:listed", ["x"])
    for _ in range(2):
        assert [batch.size for batch in prepare(data, SPEC)] == [4, 3]
    assert prepare(data, SPEC).batches == 2
    assert data.count() is None
    assert len(data.sha256()) == 64


def test_a_generator_function_is_called_for_each_pass(module: str) -> None:
    data = open_data(f"{module}:generated", ["x"], "test")
    prepared = prepare(data, SPEC)
    for _ in range(2):
        assert [batch.inputs["x"][0, 0].item() for batch in prepared] == [4.0, 4.0]
    assert sys.modules[module].CALLS == ["test", "test"]
    assert data.sha256() != open_data(f"{module}:generated", ["x"], "calibration").sha256()
    chosen = open_data(f"{module}:generated?split=train", ["x"], "test")
    assert next(iter(chosen))[0][0, 0] == 5.0


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("fails", "no such disk"),
        ("fails_later", "disk gone"),
        ("number", "int"),
        ("tensor", "Tensor"),
        ("absent", "has no 'absent'"),
    ],
)
def test_a_function_that_fails_is_named_with_its_line(module: str, name: str, said: str) -> None:
    with pytest.raises(DataError, match="K212") as caught:
        list(open_data(f"{module}:{name}"))
    assert said in caught.value.why
    if name.startswith("fails"):
        assert "own_data.py, line" in caught.value.where


@pytest.mark.parametrize(
    ("spec", "code"),
    [
        ("missing.npz", "K200"),
        ("missing/", "K200"),
        ("nonsense", "K200"),
        ("builtin:mnist", "K200"),
        ("", "K200"),
        ("no_such_module:f", "K212"),
        ("builtin:digits?split=holdout", "K201"),
        ("builtin:digits?batch=0", "K201"),
        ("builtin:digits?batch=many", "K201"),
        ("builtin:digits?btch=5", "K201"),
        ("builtin:digits?batch=5&batch=6", "K201"),
        ("builtin:digits?batch", "K201"),
        ("builtin:digits?shuffle=-1", "K201"),
    ],
)
def test_what_cannot_be_data_is_an_error(module: str, spec: str, code: str) -> None:
    with pytest.raises(DataError) as caught:
        list(open_data(spec, ["x"]))
    assert caught.value.code == code


def test_a_misspelt_option_is_recognised() -> None:
    with pytest.raises(DataError) as caught:
        open_data("builtin:digits?btch=5")
    assert "did you mean batch?" in caught.value.why


def test_other_files_are_not_guessed_at(tmp_path: Path) -> None:
    (tmp_path / "data.csv").write_text("1,2")
    with pytest.raises(DataError, match="K200") as caught:
        open_data(str(tmp_path / "data.csv"))
    assert "'.csv'" in caught.value.why


def test_a_question_mark_in_a_folder_name_is_no_option(tmp_path: Path) -> None:
    (tmp_path / "what?a=b").mkdir()
    with pytest.raises(DataError, match="K203"):
        open_data(str(tmp_path / "what?a=b"))


def test_one_input_cannot_feed_two() -> None:
    with pytest.raises(DataError, match="K209"):
        open_data("builtin:digits", ["ids", "mask"])
