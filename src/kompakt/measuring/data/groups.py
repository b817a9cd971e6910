"""Groups given beside the data: which video, document or patient each sample belongs to."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from kompakt.errors import DataError, UsageError
from kompakt.measuring.data.batch import Batch
from kompakt.measuring.data.prepare import Prepared, prepare


class Grouped:
    """Prepared batches with the group of each sample; see :func:`with_groups`."""

    def __init__(self, data: Prepared, groups: Sequence[Any]) -> None:
        self.data, self.groups = data, np.asarray(groups)

    def __iter__(self) -> Iterator[Batch]:
        start = 0
        for batch in self.data:
            end = start + batch.samples
            if end > len(self.groups):
                raise _mismatch(len(self.groups), f"at least {end}")
            yield replace(batch, groups=self.groups[start:end])
            start = end
        if start != len(self.groups):
            raise _mismatch(len(self.groups), str(start))

    def __length_hint__(self) -> int:
        return self.data.batches or 0


def with_groups(data: Prepared, groups: Sequence[Any] | None) -> Prepared:
    """The same data with the group of each sample.

    Args:
        data: Prepared data that can be read again, in the same order each time.
        groups: One label a sample, in the order of the data; None leaves the data as it is.

    Raises:
        UsageError: K001 when the data comes in random order.
        DataError: K211, while reading, when there is not one label a sample.
    """
    if groups is None:
        return data
    if data.shuffled:
        raise UsageError(
            "K001",
            "groups= for data in random order",
            why="one group a sample means nothing where the order is not that of the groups",
            help="store the groups in the data: an array named 'groups' in an .npz file",
        )
    grouped = Grouped(data, groups)
    return prepare(grouped, data.input_specs, needs_labels=data.needs_labels)


def _mismatch(given: int, samples: str) -> DataError:
    return DataError(
        "K211", f"{given} groups for {samples} samples", why="each sample needs one label"
    )
