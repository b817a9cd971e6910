"""Bad data is found before anything is computed from it, and named."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader, TensorDataset

from kompakt.errors import DataError
from kompakt.measuring.data import hold_in_memory, prepare, require_reiterable
from kompakt.network.interface import TensorSpec

X, Y = torch.rand(20, 3, 4), torch.arange(20) % 5
IMAGE = (TensorSpec("image", ("batch", 3, 4), torch.float32),)
TEXT = (
    TensorSpec("ids", ("batch", "sequence"), torch.int64),
    TensorSpec("mask", ("batch", "sequence"), torch.int64),
)


def listed(*batches: Any) -> list[Any]:
    return list(batches)


def test_a_data_loader_works_and_can_be_read_again() -> None:
    data = prepare(DataLoader(TensorDataset(X, Y), batch_size=8), IMAGE)
    for _ in range(2):
        batches = list(data)
        assert [batch.size for batch in batches] == [8, 8, 4]
        assert torch.equal(torch.cat([batch.inputs["image"] for batch in batches]), X)
        assert torch.equal(torch.cat([batch.labels for batch in batches]), Y)
    assert data.batches == 3
    assert not data.shuffled


def test_numpy_arrays_and_other_byte_orders_work() -> None:
    (batch,) = prepare([(X.numpy().astype(">f4"), Y.numpy())], IMAGE)
    assert torch.equal(batch.inputs["image"], X)
    assert batch.arrays()["image"].dtype == np.float32
    assert batch.label_arrays().tolist() == Y.tolist()


def test_lists_of_labels_become_tensors_or_stay_lists() -> None:
    numbers, words, boxes = prepare(
        [(X[:2], [1, 2]), (X[:2], ["a", "b"]), (X[:2], [torch.zeros(1, 4), torch.zeros(3, 4)])],
        IMAGE,
    )
    assert numbers.labels.tolist() == [1, 2]
    assert words.labels == ["a", "b"]
    assert [len(label) for label in boxes.labels] == [1, 3]


def test_one_label_for_two_rows_makes_pairs() -> None:
    (batch,) = prepare([(X, Y[:10])], IMAGE)
    assert (batch.size, batch.samples) == (20, 10)


BAD: list[tuple[str, Callable[[], Any], str, tuple[str, ...]]] = [
    ("empty list", lambda: listed(), "K203", ("no batch",)),
    ("batch of nothing", lambda: listed(X, X[:0]), "K203", ("batch 1", "image")),
    ("a tensor", lambda: X, "K203", ("list",)),
    ("a string", lambda: "digits", "K203", ("str",)),
    ("a number", lambda: 3, "K203", ("int",)),
    ("float64", lambda: listed(X.double()), "K204", ("batch 0", "image", "float64", "float32")),
    ("uint8", lambda: listed((X * 255).byte()), "K204", ("uint8",)),
    ("rank", lambda: listed(X[0]), "K205", ("(3, 4)", "(batch, 3, 4)")),
    ("shape", lambda: listed(X, X.mT), "K205", ("batch 1", "(20, 4, 3)")),
    ("NaN", lambda: listed(X, X.clone().fill_(torch.nan)), "K207", ("batch 1", "'image'", "240")),
    ("infinity", lambda: listed(X.clone().index_fill_(0, Y[:1], torch.inf)), "K207", ("12 of",)),
    ("words", lambda: listed(["a", "b"]), "K209", ("batch with a str",)),
    ("objects", lambda: listed(np.array([None, 1])), "K209", ("ndarray",)),
    ("few labels", lambda: listed((X, Y[:19])), "K211", ("19 labels for 20",)),
    ("no labels", lambda: listed((X, Y[:0])), "K211", ("0 labels",)),
    ("one label", lambda: listed((X, torch.tensor(3))), "K211", ("0 labels",)),
    ("a label word", lambda: listed((X, "cat")), "K211", ("str",)),
]


@pytest.mark.parametrize(("make", "code", "said"), [b[1:] for b in BAD], ids=[b[0] for b in BAD])
def test_bad_data_is_named(make: Callable[[], Any], code: str, said: tuple[str, ...]) -> None:
    with pytest.raises(DataError) as caught:
        list(prepare(make(), IMAGE))
    assert caught.value.code == code
    assert all(word in str(caught.value) for word in said), str(caught.value)


def test_huge_but_finite_values_are_no_infinity() -> None:
    assert len(list(prepare([torch.full((20, 3, 4), 3e38)], IMAGE))) == 1


def test_dimensions_of_one_name_have_one_size() -> None:
    ids = torch.zeros(2, 7, dtype=torch.long)
    assert len(list(prepare([{"ids": ids, "mask": ids}], TEXT))) == 1
    with pytest.raises(DataError, match="K205") as caught:
        list(prepare([{"ids": ids, "mask": ids[:, :6]}], TEXT))
    assert "'sequence'" in caught.value.what
    assert "batch 0, input 'mask'" in caught.value.where


def test_missing_labels_are_an_error_where_they_are_needed() -> None:
    with pytest.raises(DataError, match="K210"):
        list(prepare([X], IMAGE, needs_labels=True))


PAIR = (X, Y)
NO_BATCHES: list[tuple[Any, str]] = [
    (X, "calibration=[x]"),
    (X.numpy(), "calibration=[x]"),
    (PAIR, "calibration=[(inputs, labels)]"),
    ((X.numpy(), Y.numpy()), "calibration=[(inputs, labels)]"),
    ({"image": X}, "calibration=[batch]"),
    ("cal.npz", "kompakt.open_data('cal.npz')"),
]


@pytest.mark.parametrize(("data", "form"), NO_BATCHES)
def test_what_is_no_list_of_batches_gets_the_right_form_as_help(data: Any, form: str) -> None:
    with pytest.raises(DataError, match="K203") as caught:
        prepare(data, IMAGE, role="calibration")
    assert form in caught.value.help


def test_a_tuple_of_batches_is_a_list_of_batches() -> None:
    assert len(list(prepare((X, X[:5]), IMAGE))) == 2
    assert len(list(prepare((PAIR, PAIR), IMAGE))) == 2


def test_errors_of_a_batch_say_which() -> None:
    with pytest.raises(DataError) as caught:
        list(prepare([X, (X, X, X)], IMAGE))
    assert caught.value.where == "batch 1"


def generator() -> Iterator[Any]:
    yield X, Y
    yield X[:5], Y[:5]


def test_a_generator_can_be_read_once_and_says_so() -> None:
    data = prepare(generator(), IMAGE)
    assert [batch.size for batch in data] == [20, 5]
    with pytest.raises(DataError, match="K206") as caught:
        list(data)
    assert "generator" in caught.value.what
    with pytest.raises(DataError, match="K206"):
        require_reiterable(generator())
    require_reiterable([X])


def test_holding_a_generator_makes_it_readable_again_in_random_order() -> None:
    data = hold_in_memory(prepare(generator(), IMAGE))
    first, second = list(prepare(data, IMAGE)), list(prepare(data, IMAGE))
    assert data.count() == 25
    assert data.shuffled
    assert torch.equal(first[0].inputs["image"], second[0].inputs["image"])
    labels = torch.cat([batch.labels for batch in first])
    assert labels.tolist() != Y.tolist() + Y[:5].tolist()
    assert sorted(labels.tolist()) == sorted(Y.tolist() + Y[:5].tolist())
    for batch in first:  # every image still has its own label
        for image, label in zip(batch.inputs["image"], batch.labels, strict=True):
            assert label in [Y[i] for i in range(20) if torch.equal(X[i], image)]


def test_sentences_of_different_lengths_are_held_as_they_came() -> None:
    batches = [{"ids": torch.ones(2, n).long(), "mask": torch.ones(2, n).long()} for n in (3, 5)]
    data = hold_in_memory(prepare(iter(batches), TEXT))
    assert not data.shuffled
    assert [batch.inputs["ids"].shape[1] for batch in data] == [3, 5]
    assert data.count() == 4
    assert len(data.sha256()) == 64


def test_too_much_to_hold_is_an_error() -> None:
    with pytest.raises(DataError, match="K214"):
        hold_in_memory(prepare([X, X, X], IMAGE), limit_bytes=2000)


def test_errors_tell_what_the_data_is_for() -> None:
    with pytest.raises(DataError, match="K204") as caught:
        list(prepare([X, X.double()], IMAGE, role="validation"))
    assert caught.value.where == "validation, batch 1, input 'image'"
    with pytest.raises(DataError, match="K203") as empty:
        list(prepare([], IMAGE, role="validation"))
    assert empty.value.where == "validation"


def test_the_sample_with_the_first_nan_is_told() -> None:
    bad = X.clone()
    bad[[7, 9], 1, 2] = torch.nan
    with pytest.raises(DataError, match="K207") as caught:
        list(prepare([X, bad], IMAGE, role="calibration"))
    told = "calibration, batch 1, input 'image', sample 7 of the batch, counted from 0"
    assert caught.value.where == told
