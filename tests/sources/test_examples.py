from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from kompakt.errors import CaptureError, DataError
from kompakt.measuring.data import Batch
from kompakt.sources import Source, input_names, with_example
from kompakt.sources.examples import first_inputs


class Two(nn.Module):
    def forward(self, ids: Tensor, mask: Tensor, scale: float = 1.0) -> Tensor:
        return ids * mask * scale


class One(nn.Module):
    def forward(self, image: Tensor) -> Tensor:
        return image


X, Y, LABELS = torch.zeros(4, 3), torch.ones(4, 3), torch.arange(4)


def source(model: nn.Module, example: object = None, kind: str = "function") -> Source:
    return Source(model=model, example_inputs=example, name="net", kind=kind)


@pytest.mark.parametrize(
    "batch",
    [X, (X, LABELS), [X, LABELS], (X,), {"image": X, "labels": LABELS}, Batch({"x": X}, LABELS, 4)],
    ids=["tensor", "pair", "list", "single", "mapping", "batch"],
)
def test_the_one_input_of_a_batch_is_found(batch: object) -> None:
    found = first_inputs(One(), batch)
    assert found is X or found == {"image": X}


@pytest.mark.parametrize(
    "batch",
    [(X, Y), (X, Y, LABELS), ((X, Y), LABELS)],
    ids=["inputs", "with labels", "nested"],
)
def test_two_inputs_of_a_batch_are_found(batch: object) -> None:
    found = first_inputs(Two(), batch)
    assert isinstance(found, tuple)
    assert found[0] is X
    assert found[1] is Y


def test_inputs_by_name_keep_the_order_of_forward_and_drop_the_rest() -> None:
    found = first_inputs(Two(), ({"mask": Y, "ids": X}, LABELS))
    assert list(found) == ["ids", "mask"]
    assert list(first_inputs(Two(), {"mask": Y, "ids": X, "label": LABELS, "text_id": X})) == [
        "ids",
        "mask",
    ]


def test_names_are_those_the_captured_model_will_have() -> None:
    assert input_names(Two(), (X, Y)) == ["ids", "mask"]
    assert input_names(Two(), {"mask": Y, "ids": X, "scale": 2.0}) == ["ids", "mask"]
    assert input_names(One(), X) == ["image"]


def test_the_data_gives_the_example_where_the_source_does_not(tmp_path: Path) -> None:
    path = tmp_path / "data.npz"
    zeros = np.zeros((6, 3), np.float32)
    np.savez(path, ids=zeros, mask=zeros, labels=np.zeros(6))
    found = with_example(source(Two()), {"calibration": str(path)})
    assert list(found.example_inputs) == ["ids", "mask"]
    assert found.dynamic == {}
    kept = with_example(source(Two(), (X, Y)), {"calibration": str(path)})
    assert kept.example_inputs == (X, Y)


def test_no_example_and_no_data_is_an_error() -> None:
    with pytest.raises(CaptureError) as caught:
        with_example(source(One()), {})
    assert caught.value.code == "K018"
    with pytest.raises(DataError):
        with_example(source(One()), {"validation": "not/there.npz"})


def test_the_data_says_which_inputs_of_a_hugging_face_model_are_used(tmp_path: Path) -> None:
    path = tmp_path / "data.npz"
    np.savez(path, input_ids=np.zeros((6, 9), np.int64), attention_mask=np.ones((6, 9), np.int64))

    class Text(nn.Module):
        def forward(self, input_ids: Tensor, attention_mask: Tensor | None = None) -> Tensor:
            return input_ids

    given = Source(
        model=Text(),
        example_inputs={"input_ids": X},
        name="text",
        kind="Hugging Face directory",
        dynamic={"input_ids": {1: "sequence"}},
    )
    found = with_example(given, {"validation": str(path)})
    assert list(found.example_inputs) == ["input_ids", "attention_mask"]
    assert found.dynamic == {"input_ids": {1: "sequence"}, "attention_mask": {1: "sequence"}}
    assert with_example(given, {}) is given
