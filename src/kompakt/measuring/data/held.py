"""Keeping data in memory: iterators that can be read only once, samples in random order."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator

import numpy as np
from torch import Tensor

from kompakt.errors import DataError
from kompakt.measuring.data.batch import Batch
from kompakt.measuring.data.dataset import SHUFFLE_SEED, ArrayDataset, Dataset
from kompakt.measuring.data.prepare import Prepared

HOLD_LIMIT_BYTES = 1 << 30


class HeldBatches(Dataset):
    """Batches of different shapes, kept as they came."""

    def __init__(self, batches: list[Batch], name: str) -> None:
        self._batches, self.name = batches, name

    def __len__(self) -> int:
        return len(self._batches)

    def __iter__(self) -> Iterator[Batch]:
        return iter(self._batches)

    def describe(self) -> str:
        """The data in one line."""
        return f"{self.name}: {self.count()} samples in {len(self)} batches of different shapes"

    def count(self) -> int:
        """Number of samples."""
        return sum(batch.size for batch in self._batches)

    def sha256(self) -> str:
        """Fingerprint of all batches and their order."""
        digest = hashlib.sha256()
        for batch in self._batches:
            for name, values in batch.arrays().items():
                digest.update(f"{name}:{values.dtype.str}:{values.shape}".encode())
                digest.update(np.ascontiguousarray(values).tobytes())
            digest.update(repr(batch.label_arrays()).encode())
        return digest.hexdigest()


def hold_in_memory(
    data: Prepared,
    *,
    limit_bytes: int = HOLD_LIMIT_BYTES,
    shuffle: int | None = SHUFFLE_SEED,
    name: str = "data",
) -> Dataset:
    """Read data once and keep it.

    Samples of equal shape are put in random order, which early stopping needs; batches of different
    shapes (sentences of different lengths) keep their order.

    Args:
        data: Prepared data; a generator is read to its end.
        limit_bytes: The most to keep.
        shuffle: Seed of the order, or ``None`` to keep it.
        name: What to call it.

    Raises:
        DataError: K214 above the limit, or whatever is wrong with a batch.
    """
    batches: list[Batch] = []
    total = 0
    for batch in data:
        total += sum(tensor.nbytes for tensor in batch.inputs.values())
        if total > limit_bytes:
            raise DataError(
                "K214", f"{name} after {len(batches)} batches",
                why=f"more than {limit_bytes >> 20} MiB",
            )  # fmt: skip
        batches.append(batch)
    if not _stackable(batches):
        return HeldBatches(batches, name)
    inputs = {
        key: np.concatenate([batch.inputs[key].detach().cpu().numpy() for batch in batches])
        for key in batches[0].inputs
    }
    labels = [batch.labels.cpu().numpy() for batch in batches if isinstance(batch.labels, Tensor)]
    groups = [batch.groups for batch in batches if batch.groups is not None]
    return ArrayDataset(
        inputs,
        np.concatenate(labels) if labels else None,
        np.concatenate(groups) if groups else None,
        name=name,
        batch=batches[0].size,
        shuffle=shuffle,
    )


def _stackable(batches: list[Batch]) -> bool:
    """Whether all batches are of one shape, apart from their number of rows."""

    def form(batch: Batch) -> tuple[object, ...]:
        labels = batch.labels
        shape = labels.shape[1:] if isinstance(labels, Tensor) else type(labels)
        rows = batch.size / batch.samples
        return (
            tuple(tensor.shape[1:] if tensor.dim() else None for tensor in batch.inputs.values()),
            tuple(tensor.shape[:1] == (batch.size,) for tensor in batch.inputs.values()),
            shape, rows, batch.groups is None,
        )  # fmt: skip

    first = form(batches[0])
    whole = all(tensor.shape[:1] == (batches[0].size,) for tensor in batches[0].inputs.values())
    return (
        whole and not isinstance(batches[0].labels, list) and all(form(b) == first for b in batches)
    )
