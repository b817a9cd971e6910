"""Telling inputs from labels in whatever a loader yields."""

from __future__ import annotations

from collections import UserDict
from typing import Any

import numpy as np
import pytest
import torch

from kompakt.errors import DataError
from kompakt.measuring.data import split_batch
from kompakt.network.interface import TensorSpec

A, B, Y = torch.zeros(3, 2), torch.ones(3, 2), torch.tensor([0, 1, 2])


def specs(*names: str) -> tuple[TensorSpec, ...]:
    return tuple(TensorSpec(name, ("batch", 2), torch.float32) for name in names)


@pytest.mark.parametrize(
    ("batch", "names", "labelled", "inputs", "labels"),
    [
        (A, "a", None, (A,), None),
        ((A,), "a", None, (A,), None),
        ([A, Y], "a", None, (A,), Y),
        (((A,), Y), "a", None, (A,), Y),
        (({"a": A}, Y), "a", None, (A,), Y),
        ({"a": A}, "a", None, (A,), None),
        ({"a": A, "labels": Y}, "a", None, (A,), Y),
        ([{"a": A, "label": Y}], "a", None, (A,), Y),
        (UserDict({"b": B, "a": A, "labels": Y}), "ab", None, (A, B), Y),
        ((A, B), "ab", None, (A, B), None),
        ((A, Y), "a", True, (A,), Y),
        ((A, B, Y), "ab", None, (A, B), Y),
        (((A, B), Y), "ab", None, (A, B), Y),
        (({"a": A, "b": B}, Y), "ab", None, (A, B), Y),
        (((A, B), Y), "ab", True, (A, B), Y),
        ((A, B, B), "abc", None, (A, B, B), None),
        ({"a": A, "labels": Y}, ("a", "labels"), None, (A, Y), None),
        ({"a": A, "b": None}, "a", None, (A,), None),
    ],
)
def test_every_form_of_a_batch(
    batch: Any, names: Any, labelled: bool | None, inputs: tuple, labels: Any
) -> None:
    found, found_labels = split_batch(batch, specs(*names), labelled)
    assert list(found) == list(names)
    assert all(x is y for x, y in zip(found.values(), inputs, strict=True))
    assert found_labels is labels


@pytest.mark.parametrize(
    ("batch", "names", "said"),
    [
        ((A, B, Y), "a", "3 parts"),
        (A, "ab", "1 parts"),
        ({"b": B}, "a", "'a' is missing"),
        ({"a": A, "token_type_ids": B}, "a", "'token_type_ids' is no input"),
        (({"x": A}, Y), "a", "'a' is missing"),
        ((A, B), "abc", "2 parts"),
        ([], "a", "0 parts"),
    ],
)
def test_parts_that_are_no_inputs_are_named(batch: Any, names: str, said: str) -> None:
    with pytest.raises(DataError, match="K209") as caught:
        split_batch(batch, specs(*names))
    assert said in str(caught.value)


def test_labels_may_be_a_list_of_rows() -> None:
    inputs, labels = split_batch((A, [1, 2, 3]), specs("a"))
    assert labels == [1, 2, 3]
    assert inputs["a"] is A
    array = np.zeros((3, 2), np.float32)
    assert split_batch((array, np.arange(3)), specs("a"))[0]["a"] is array
