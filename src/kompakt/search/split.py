"""Choosing on one half of the validation data, certifying on the other.

A candidate that was chosen because it scored well on some samples scores too well on them. So the samples are dealt
out alternately: the ladder sees one half, the winner is certified once on the other.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from kompakt.measuring.data import Batch, Prepared
from kompakt.network.interface import TensorSpec
from kompakt.network.network import Network


class Half:
    """Every other sample of prepared data; where samples belong to groups, whole groups are dealt out.

    Args:
        data: The data; it must be readable more than once, in the same order.
        which: 0 or 1.
    """

    def __init__(self, data: Prepared, which: int) -> None:
        self.data, self.which = data, which
        self.shuffled = data.shuffled

    def __iter__(self) -> Iterator[Batch]:
        for batch, halves in dealt(self.data):
            part = some_samples(batch, np.flatnonzero(halves == self.which))
            if part is not None:
                yield part

    def __length_hint__(self) -> int:
        return self.data.batches or 0


def dealt(data: Iterable[Batch]) -> Iterator[tuple[Batch, NDArray[np.int64]]]:
    """Each batch with the half, 0 or 1, that each of its samples is in."""
    seen, half, counts = 0, dict[Any, int](), [0, 0]
    for batch in data:
        if batch.groups is None:
            halves = (seen + np.arange(batch.samples)) % 2
            seen += batch.samples
        else:
            halves = np.zeros(batch.samples, np.int64)
            for at, group in enumerate(batch.groups.tolist()):
                # A group goes, as it appears, to the half that has fewer samples so far.
                halves[at] = half.setdefault(group, int(counts[1] < counts[0]))
                counts[halves[at]] += 1
        yield batch, halves


def half_sizes(data: Iterable[Batch]) -> tuple[int, int]:
    """How many samples each half has."""
    sizes = np.zeros(2, np.int64)
    for _, halves in dealt(data):
        sizes += np.bincount(halves, minlength=2)
    return int(sizes[0]), int(sizes[1])


def some_samples(batch: Batch, chosen: NDArray[np.int64]) -> Batch | None:
    """The samples of a batch with these numbers; None when there are none.

    A sample may span several rows (pairs of sentences); its rows stay together.
    """
    if chosen.size == 0:
        return None
    span = batch.size // batch.samples
    rows = (chosen[:, None] * span + np.arange(span)).reshape(-1)
    labels = batch.labels
    if isinstance(labels, Tensor):
        labels = labels[chosen]
    elif labels is not None:
        labels = [labels[i] for i in chosen]
    return Batch(
        {name: _rows(tensor, rows, batch.size) for name, tensor in batch.inputs.items()},
        labels,
        rows.size,
        None if batch.groups is None else batch.groups[chosen],
    )


def _rows(tensor: Tensor, rows: np.ndarray, size: int) -> Tensor:
    # An input without a batch dimension belongs to every sample.
    return tensor[rows] if tensor.dim() and tensor.shape[0] == size else tensor


def spread_rows(batches: Iterable[Batch], count: int, specs: Sequence[TensorSpec]) -> list[Batch]:
    """About ``count`` rows spread evenly over all of some data, inputs only; all where there are no more.

    Data is often sorted, by class for instance, so its first rows are no sample of it. Every k-th row is kept, and
    k doubles whenever twice as many as wanted are there: one pass, in little memory, without knowing the length.

    Args:
        batches: The data.
        count: How many rows are wanted.
        specs: The model's inputs. One that takes batches of a fixed size only gets whole batches.
    """
    symbol = specs[0].shape[0] if specs and specs[0].shape else None
    batched = {s.name for s in specs if s.shape and s.shape[0] == symbol}
    cut = isinstance(symbol, str)
    kept: list[Batch] = []
    step, place, size = 1, 0, 1
    for batch in batches:
        size = max(size, batch.size)
        wanted = count if cut else max(1, count // size)
        for part in _rows_of(batch, batched) if cut else [batch]:
            if place % step == 0:
                # A copy: a row that is a view keeps its whole batch in memory.
                copied = {name: tensor.clone() for name, tensor in part.inputs.items()}
                kept.append(Batch(copied, None, part.size))
                if len(kept) >= 2 * wanted:
                    kept, step = kept[::2], 2 * step
            place += 1
    wanted = count if cut else max(1, count // size)
    if len(kept) > wanted:
        kept = [kept[i * len(kept) // wanted] for i in range(wanted)]
    return list(_joined(kept, size, batched)) if cut else kept


def _rows_of(batch: Batch, batched: Collection[str]) -> Iterator[Batch]:
    for row in range(batch.size):
        inputs = {n: t[row : row + 1] if n in batched else t for n, t in batch.inputs.items()}
        yield Batch(inputs, None, 1)


def _joined(rows: Sequence[Batch], size: int, batched: Collection[str]) -> Iterator[Batch]:
    """Neighbouring rows of equal shape in batches of at most ``size``."""
    run: list[Batch] = []
    for row in rows:
        if run and (len(run) == size or not _alike(run[0], row, batched)):
            yield _together(run, batched)
            run = []
        run.append(row)
    if run:
        yield _together(run, batched)


def _alike(a: Batch, b: Batch, batched: Collection[str]) -> bool:
    return all(
        t.shape == b.inputs[name].shape and (name in batched or torch.equal(t, b.inputs[name]))
        for name, t in a.inputs.items()
    )


def _together(rows: Sequence[Batch], batched: Collection[str]) -> Batch:
    inputs = {
        name: torch.cat([row.inputs[name] for row in rows]) if name in batched else t
        for name, t in rows[0].inputs.items()
    }
    return Batch(inputs, None, len(rows))


def example_batch(network: Network, quick: Sequence[Batch], size: int) -> Batch:
    """One batch of ``size`` samples for timing: real ones where there are any."""
    source = (
        quick[0].inputs
        if quick
        else dict(zip((s.name for s in network.input_specs), network.example_inputs(), strict=True))
    )
    rows = quick[0].size if quick else 0
    symbol = network.input_specs[0].shape[0] if network.input_specs[0].shape else None
    inputs = {}
    for spec in network.input_specs:
        tensor = source[spec.name]
        batched = bool(spec.shape) and isinstance(symbol, str) and spec.shape[0] == symbol
        rows = tensor.shape[0] if batched else rows
        inputs[spec.name] = tensor[torch.arange(size) % rows] if batched else tensor
    return Batch(inputs, None, size)
