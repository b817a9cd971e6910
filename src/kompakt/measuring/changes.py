"""Which samples changed sides: right before and wrong now, or the reverse, over all and by class."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kompakt.measuring.accuracy import batch_total
from kompakt.measuring.data import Batch
from kompakt.measuring.scores import Scores

MOST_CLASSES = 20
"""Classes listed at most, those that changed most first."""


class Noted:
    """Batches on their way through, whose labels are kept.

    Args:
        batches: The data.
    """

    def __init__(self, batches: Iterable[Batch]) -> None:
        self.batches = batches
        self.labels: list[Any] = []

    def __iter__(self) -> Iterator[Batch]:
        self.labels = []
        for batch in self.batches:
            self.labels.append(batch.label_arrays())
            yield batch

    def __length_hint__(self) -> int:
        return batch_total(self.batches) or 0


def changes(baseline: Scores, candidate: Scores, labels: Sequence[Any]) -> dict[str, Any] | None:
    """Samples that were right with the float model and are wrong now, and the reverse.

    Args:
        baseline: Right or wrong (1 or 0) for each sample, by the float model.
        candidate: The same by the compressed file.
        labels: The labels of each batch, arrays of shape (n,) or ``None``.

    Returns:
        The record's ``changes``: ``lost`` and ``gained`` samples, and ``classes``, the rows of
        classes with a change (``class``, ``n``, ``lost``, ``gained``), most changes first and
        :data:`MOST_CLASSES` at most; without one class number a sample, no rows. ``None`` for
        scores other than 0 and 1.
    """
    if baseline.metric.kind != "binary":
        return None
    before, after = np.asarray(baseline.values), np.asarray(candidate.values)
    lost, gained = (before > after), (after > before)
    classes = _classes(labels, before.size)
    rows = [] if classes is None else list(_rows(classes, lost, gained))
    rows.sort(key=lambda row: (-row["lost"] - row["gained"], row["class"]))
    return {
        "lost": int(lost.sum()),
        "gained": int(gained.sum()),
        "classes": rows[:MOST_CLASSES],
    }


def _rows(
    classes: NDArray[Any], lost: NDArray[np.bool_], gained: NDArray[np.bool_]
) -> Iterator[dict[str, int]]:
    for number in np.unique(classes[lost | gained]):
        here = classes == number
        yield {
            "class": int(number),
            "n": int(here.sum()),
            "lost": int(lost[here].sum()),
            "gained": int(gained[here].sum()),
        }


def _classes(labels: Sequence[Any], count: int) -> NDArray[Any] | None:
    """One class number for each counted sample; None where there is no such thing."""
    if not labels or any(label is None for label in labels):
        return None
    arrays = [np.asarray(label) for label in labels]
    if any(array.ndim != 1 or array.dtype.kind not in "iu" for array in arrays):
        return None
    joined = np.concatenate(arrays)
    if joined.size != count:  # negative labels are those of samples that do not count
        joined = joined[joined >= 0]
    return joined if joined.size == count else None
