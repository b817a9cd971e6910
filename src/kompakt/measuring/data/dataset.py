"""Data that can be read again, knows its size and has a fingerprint."""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from kompakt.errors import DataError
from kompakt.measuring.data.batch import Batch

SHUFFLE_SEED = 0
DEFAULT_BATCH = 20


class Dataset(ABC):
    """Batches that can be iterated any number of times, in the same order each time.

    Attributes:
        shuffled: Whether the order is random: bounds that may be looked at early are only true
            then.
    """

    shuffled: bool = False

    @abstractmethod
    def __iter__(self) -> Iterator[Any]:
        """Yield batches."""

    @abstractmethod
    def describe(self) -> str:
        """The data in one line."""

    @abstractmethod
    def count(self) -> int | None:
        """Number of samples, where known without reading all."""

    @abstractmethod
    def sha256(self) -> str:
        """Fingerprint of content and order, 64 hexadecimal digits."""


class ArrayDataset(Dataset):
    """Arrays of one length, cut into batches; the arrays may be memory-mapped.

    Args:
        inputs: Arrays by input name; the first dimension is the samples.
        labels: One row for each sample, or one for every few.
        groups: A group label for each label.
        name: What to call it.
        batch: Samples in a batch.
        shuffle: Seed of the order, or ``None`` for the order of the arrays.
        file: The file the arrays are from, for messages; empty when there is none.

    Raises:
        DataError: K203 for no samples, K211 when lengths differ.
    """

    def __init__(
        self,
        inputs: Mapping[str, NDArray[Any]],
        labels: NDArray[Any] | None = None,
        groups: NDArray[Any] | None = None,
        *,
        name: str,
        batch: int = DEFAULT_BATCH,
        shuffle: int | None = SHUFFLE_SEED,
        file: str = "",
    ) -> None:
        lengths = {key: len(values) for key, values in inputs.items()}
        if not lengths or min(lengths.values()) == 0:
            raise DataError("K203", name, why="it holds no samples")
        self._rows = min(lengths.values())
        if len(set(lengths.values())) > 1:
            raise DataError("K211", name, why=f"arrays differ in length: {lengths}")
        units = self._rows if labels is None else len(labels)
        if units == 0 or self._rows % units:
            raise DataError("K211", f"{name}: {units} labels for {self._rows} samples")
        if groups is not None and len(groups) != units:
            raise DataError("K211", f"{name}: {len(groups)} groups for {units} samples")
        self.inputs, self.labels, self.groups, self.name = dict(inputs), labels, groups, name
        self.file = file
        self._each = self._rows // units
        self._batch = max(1, batch // self._each)
        self.shuffled = shuffle is not None
        self._order = np.arange(units)
        if shuffle is not None:
            self._order = np.random.default_rng(shuffle).permutation(units)

    def __len__(self) -> int:
        return -(-len(self._order) // self._batch)

    def __iter__(self) -> Iterator[Batch]:
        for start in range(0, len(self._order), self._batch):
            units = self._order[start : start + self._batch]
            rows = (units[:, None] * self._each + np.arange(self._each)).ravel()
            inputs = {name: _rows(values, rows) for name, values in self.inputs.items()}
            labels = None if self.labels is None else _rows(self.labels, units)
            groups = None if self.groups is None else np.asarray(self.groups)[units]
            yield Batch(inputs, labels, len(rows), groups, rows)

    def describe(self) -> str:
        """The data in one line."""
        shapes = ", ".join(
            f"{name} {'×'.join(map(str, values.shape[1:])) or 'scalar'} {values.dtype}"
            for name, values in self.inputs.items()
        )
        labelled = "labelled" if self.labels is not None else "no labels"
        return f"{self.name}: {self._rows} samples of {shapes}; {labelled}"

    def count(self) -> int:
        """Number of samples."""
        return self._rows

    def sha256(self) -> str:
        """Fingerprint of all arrays and their order."""
        digest = hashlib.sha256(np.ascontiguousarray(self._order, dtype="<i8").tobytes())
        arrays = dict(self.inputs, labels=self.labels, groups=self.groups)
        for name, values in arrays.items():
            if values is None:
                continue
            digest.update(f"{name}:{values.dtype.str}:{values.shape}".encode())
            step = max(1, (1 << 24) // max(1, values.nbytes // max(1, len(values))))
            for start in range(0, len(values), step):
                digest.update(np.ascontiguousarray(values[start : start + step]).tobytes())
        return digest.hexdigest()


def _rows(values: NDArray[Any], index: NDArray[np.int64]) -> torch.Tensor:
    picked = np.asarray(values[index])
    return torch.from_numpy(np.ascontiguousarray(picked, dtype=picked.dtype.newbyteorder("=")))
