"""Choosing on one half of the validation data, certifying on the other.

A candidate that was chosen because it scored well on some samples scores too well on them. So the samples are dealt
out alternately: the ladder sees one half, the winner is certified once on the other.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

import numpy as np
import torch
from torch import Tensor

from kompakt.measuring.data import Batch, Prepared
from kompakt.network.network import Network


class Half:
    """Every other sample of prepared data.

    Args:
        data: The data; it must be readable more than once.
        which: 0 or 1.
    """

    def __init__(self, data: Prepared, which: int) -> None:
        self.data, self.which = data, which
        self.shuffled = data.shuffled

    def __iter__(self) -> Iterator[Batch]:
        offset = self.which
        for batch in self.data:
            part = every_other(batch, offset)
            # An odd number of samples shifts whose turn it is in the next batch.
            offset = (offset + batch.samples) % 2
            if part is not None:
                yield part

    def __length_hint__(self) -> int:
        return self.data.batches or 0


def every_other(batch: Batch, offset: int) -> Batch | None:
    """The samples ``offset``, ``offset + 2``, … of a batch; None when there are none.

    A sample may span several rows (pairs of sentences); its rows stay together.
    """
    chosen = np.arange(offset, batch.samples, 2)
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


def first_rows(batches: Iterable[Batch], count: int) -> list[Batch]:
    """The first ``count`` rows of some batches, inputs only."""
    kept: list[Batch] = []
    for batch in batches:
        rows = min(count, batch.size)
        inputs = {n: _rows(t, np.arange(rows), batch.size) for n, t in batch.inputs.items()}
        kept.append(Batch(inputs, None, rows))
        count -= rows
        if count <= 0:
            break
    return kept


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
