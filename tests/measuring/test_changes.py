"""Which samples changed sides, and in which classes."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from kompakt.measuring.changes import MOST_CLASSES, Noted, changes
from kompakt.measuring.data import Batch
from kompakt.measuring.metrics import METRICS
from kompakt.measuring.scores import Scores


def scores(*rows: float, metric: str = "top1") -> Scores:
    return Scores(metric=METRICS[metric], rows=np.array(rows, dtype=np.float64), order=())


def test_lost_and_gained_samples_are_counted_by_class() -> None:
    labels = [np.array([0, 1, 1]), np.array([2, 2, 0])]
    found = changes(scores(1, 1, 1, 0, 1, 1), scores(1, 0, 0, 1, 1, 1), labels)
    assert found == {
        "lost": 2,
        "gained": 1,
        "classes": [
            {"class": 1, "n": 2, "lost": 2, "gained": 0},
            {"class": 2, "n": 2, "lost": 0, "gained": 1},
        ],
    }


def test_labels_of_samples_that_do_not_count_are_left_out() -> None:
    found = changes(scores(1, 1), scores(0, 1), [np.array([-1, 4, -100, 5])])
    assert found is not None
    assert found["classes"] == [{"class": 4, "n": 1, "lost": 1, "gained": 0}]


def test_without_one_class_a_sample_only_the_totals_are_told() -> None:
    for labels in ([None], [np.zeros((2, 3), dtype=int)], [np.zeros(2)], [np.zeros(7, dtype=int)]):
        found = changes(scores(1, 0), scores(0, 1), labels)
        assert found == {"lost": 1, "gained": 1, "classes": []}


def test_the_list_is_bounded_and_starts_with_the_most_changes() -> None:
    n = MOST_CLASSES + 5
    labels = np.append(np.arange(n), n - 1)
    found = changes(scores(*[1] * (n + 1)), scores(*[0] * (n + 1)), [labels])
    assert found is not None
    assert len(found["classes"]) == MOST_CLASSES
    assert found["classes"][0] == {"class": n - 1, "n": 2, "lost": 2, "gained": 0}


def test_other_scores_have_no_sides() -> None:
    assert changes(scores(0.2, metric="psnr"), scores(0.1, metric="psnr"), []) is None


def test_labels_are_kept_while_batches_pass() -> None:
    given: list[Any] = [Batch({"x": torch.zeros(2, 1)}, torch.tensor([3, 4]), 2)]
    noted = Noted(given)
    assert list(noted) == given
    assert list(noted) == given, "a second reading starts anew"
    assert [label.tolist() for label in noted.labels] == [[3, 4]]
