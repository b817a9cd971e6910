"""What is taken from one tensor while it is still in the cache: exact extremes and a sample.

The extremes read every value, once. The histogram only needs a sample, and a good one is cheap:
short contiguous blocks, in memory order, evenly spread over each sample of the batch with a jitter.
Where the blocks lie depends on the sample's own input only (see :func:`fingerprints`), so a sample
contributes the same values whatever batch, order or process it comes in.
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

BLOCK = 512
"""Contiguous values taken at once."""

PER_SAMPLE = 4096
"""At most this many values of an edge are taken from each sample for the histogram."""

PER_TENSOR = 65536
"""The same for a tensor that has no batch dimension."""

_GOLDEN = 0.6180339887498949
_FINGERPRINT_VALUES = 256
_VECTOR = 32
_NARROWEST = 384


class EdgeSummary(NamedTuple):
    """One edge in one batch.

    Attributes:
        lows: Smallest values, float32 or float64 ``(rows, channels)``, one row a sample (or one for
            all); ``(rows, 1)`` where they were not needed per channel.
        highs: Largest values, ``(rows, channels)``.
        sampled: Values for the histogram, same dtype, 1-D.
        values: Number of values the tensor has.
    """

    lows: Tensor
    highs: Tensor
    sampled: Tensor
    values: int


class BlockSampler:
    """Where the blocks of the samples of one batch lie.

    Args:
        fractions: One number in [0, 1) for each sample of the batch, see :func:`fingerprints`.
    """

    def __init__(self, fractions: npt.NDArray[np.float64]) -> None:
        self.fractions = fractions
        self._starts: dict[tuple[int, int, torch.device], Tensor] = {}

    @property
    def samples(self) -> int:
        """Samples in the batch."""
        return len(self.fractions)

    def take(self, rows: Tensor) -> Tensor:
        """A copy of at most ``PER_SAMPLE`` values of each row, ``(rows, taken)``.

        Args:
            rows: ``(rows, values)``, contiguous; one row a sample, or one row for the whole batch.
        """
        count, length = rows.shape
        budget = PER_SAMPLE if count == self.samples else PER_TENSOR
        if length <= budget:
            return rows.clone()
        key = (count, length, rows.device)
        if key not in self._starts:
            self._starts[key] = self._block_starts(count, length, budget).to(rows.device)
        # unfold is a view of all overlapping windows, so this copies whole blocks and nothing else.
        blocks = rows.flatten().unfold(0, BLOCK, 1).index_select(0, self._starts[key])
        return blocks.view(count, -1)

    def _block_starts(self, count: int, length: int, budget: int) -> Tensor:
        blocks = budget // BLOCK
        stratum = np.arange(blocks, dtype=np.float64)
        jitter = (self.fractions[:count, None] + stratum * _GOLDEN) % 1.0
        inside = ((stratum + jitter) * ((length - BLOCK + 1) / blocks)).astype(np.int64)
        starts = np.minimum(inside, length - BLOCK) + np.arange(count)[:, None] * length
        return torch.from_numpy(starts.ravel())


def summarize(
    x: Tensor,
    sampler: BlockSampler,
    *,
    batch_dim: int | None = 0,
    channel_dim: int | None = None,
    never_negative: bool = False,
) -> EdgeSummary | None:
    """Exact extremes and a block sample of ``x``; ``None`` when it is empty.

    Args:
        x: Any floating tensor in any memory layout.
        sampler: The block positions of this batch.
        batch_dim: Dimension of ``x`` that runs over samples (it may be a multiple of the batch
            size, as where attention folds heads into it), or ``None``.
        channel_dim: Dimension that runs over channels, or ``None``.
        never_negative: The network guarantees that ``x`` is not negative, as behind a ReLU. Where
            the sample already holds a 0, the smallest value is then known without reading the rest.
    """
    if x.numel() == 0:
        return None
    x = x.detach()
    if x.dtype in (torch.float16, torch.bfloat16):
        x = x.float()
    grouped = group(x, sampler.samples, batch_dim, channel_dim)
    rows = grouped.reshape(grouped.shape[0], -1)
    sampled = sampler.take(rows)
    highs = _reduce(grouped, torch.amax)
    # Looking at the values would make an accelerator wait.
    if never_negative and not x.is_cuda:
        lows = sampled.amin(1, keepdim=True)
        if not bool(lows.any()):
            return EdgeSummary(lows, highs, sampled.flatten(), x.numel())
    return EdgeSummary(_reduce(grouped, torch.amin), highs, sampled.flatten(), x.numel())


def group(x: Tensor, samples: int, batch_dim: int | None, channel_dim: int | None) -> Tensor:
    """``x`` as ``(samples, before, channels, after)``, contiguous, in the order it lies in memory.

    The order of the other dimensions does not matter to extremes and histograms; following memory
    makes this a view for every dense layout (a channels-last tensor taken in logical order would be
    copied). Where the batch dimension does not divide into samples there is a single row.

    Args:
        x: Non-empty tensor.
        samples: Batch size.
        batch_dim: Dimension that runs over samples, or ``None``.
        channel_dim: Dimension that runs over channels; without one, or when it is the batch
            dimension, there is one channel.
    """
    by_sample = batch_dim is not None and x.dim() > 0 and x.shape[batch_dim] % samples == 0
    first = [batch_dim % x.dim()] if by_sample and batch_dim is not None else []
    rest = [d for d in range(x.dim()) if d not in first]
    if not x.is_contiguous():
        rest.sort(key=x.stride, reverse=True)
    channel = None if channel_dim is None or x.dim() < 2 else channel_dim % x.dim()
    at = rest.index(channel) if channel in rest else len(rest)
    channels = x.shape[channel] if channel is not None and channel in rest else 1
    after = math.prod(x.shape[d] for d in rest[at + 1 :])
    count = samples if by_sample else 1
    before = x.numel() // (count * channels * after)
    return x.permute(first + rest).reshape(count, before, channels, after).contiguous()


def _reduce(grouped: Tensor, extreme: Callable[[Tensor, int], Tensor]) -> Tensor:
    """Extreme over ``before`` and ``after``: ``(samples, channels)``."""
    count, before, channels, after = grouped.shape
    inner = extreme(grouped, 3) if after > 1 else grouped.view(count, before, channels)
    if before == 1:
        return inner.view(count, channels).clone()
    # Narrow inner dimensions are not vectorized: several rows side by side make one wide row.
    wide = _VECTOR // math.gcd(channels, _VECTOR)
    while wide * channels < _NARROWEST:
        wide *= 2
    whole = before // wide * wide
    if wide == 1 or whole == 0:
        return extreme(inner, 1)
    folded = extreme(inner[:, :whole].reshape(count, -1, wide * channels), 1)
    both = torch.cat((folded.view(count, wide, channels), inner[:, whole:]), 1)
    return extreme(both, 1)


def fingerprints(inputs: Sequence[Tensor], samples: int) -> npt.NDArray[np.float64]:
    """For each sample a number in [0, 1) that depends on its content only.

    Args:
        inputs: The batch's input tensors; those without one entry a sample are left out.
        samples: Batch size.
    """
    codes = [0] * samples
    for x in inputs:
        if x.dim() == 0 or x.shape[0] != samples or x.numel() == 0:
            continue
        rows = x.detach().reshape(samples, -1)
        thinned = rows[:, :: max(1, rows.shape[1] // _FINGERPRINT_VALUES)]
        wide = thinned.to("cpu", torch.float64 if x.is_floating_point() else torch.int64)
        for i, row in enumerate(wide.contiguous().numpy()):
            codes[i] = zlib.crc32(row.tobytes(), codes[i])
    return np.array(codes, dtype=np.float64) / 2.0**32
