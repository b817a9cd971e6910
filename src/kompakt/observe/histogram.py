"""A histogram whose bins are powers of two wide, so that merging loses nothing.

Bin ``i`` (from −2048 to 2047) holds the values ``x`` with ``floor(x · 2⁻ᵏ) = i``. The exponent
``k`` is the smallest for which every value seen so far fits; it depends on nothing but the largest
magnitude. When a larger value arrives ``k`` grows and neighbouring bins are added up in pairs,
which is exact because ``floor(floor(y) / 2) = floor(y / 2)``. So the counts are the same whatever
the order of the data and however it was split over passes or processes.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

Floats = npt.NDArray[np.float64]
Counts = npt.NDArray[np.int64]

HALF = 2048
"""Bins on each side of 0."""

BINS = 2 * HALF
SMALLEST_EXPONENT = -120
"""Keeps ``2⁻ᵏ`` a finite float32; magnitudes below 2⁻¹⁰⁹ share the bins next to 0."""

_DOUBLINGS = HALF.bit_length()


class Density(NamedTuple):
    """The histogram as a piecewise constant density over the observed range.

    Attributes:
        edges: float64 ``(bins + 1,)``, ascending and never outside the exact extremes, so the first
            and last bin may be narrower than the others, or of width 0.
        counts: float64 ``(bins,)``, zeros included.
        zeros: How many of the counted values are exactly 0.
    """

    edges: Floats
    counts: Floats
    zeros: float

    def nonzero_counts(self) -> Floats:
        """The counts without the values that are exactly 0."""
        counts = self.counts.copy()
        if self.zeros:
            at = int(np.searchsorted(self.edges, 0.0, side="right")) - 1
            counts[min(at, len(counts) - 1)] -= self.zeros
        return counts


class Histogram:
    """Counts of streamed values.

    Attributes:
        exponent: Bins are ``2 ** exponent`` wide; ``None`` while no value was added.
        counts: int64 ``(4096,)``; bin ``i`` stands at index ``i + 2048``.
        zeros: How many of the values counted are exactly 0: they are always represented exactly.
    """

    def __init__(
        self, exponent: int | None = None, counts: Counts | None = None, zeros: int = 0
    ) -> None:
        self.exponent, self.zeros = exponent, zeros
        self.counts: Counts = np.zeros(BINS, dtype=np.int64) if counts is None else counts

    @property
    def total(self) -> int:
        """Number of values counted."""
        return int(self.counts.sum())

    @property
    def width(self) -> float:
        """Width of a bin."""
        return math.ldexp(1.0, self.exponent) if self.exponent is not None else math.nan

    def add(self, values: Tensor, largest: float) -> None:
        """Count ``values``.

        Args:
            values: float32 or float64, any shape and device, finite.
            largest: Upper bound of every magnitude counted so far and now; exact extremes are
                streamed beside the histogram, and the exponent follows them.
        """
        self.grow(exponent_for(largest))
        self.counts += _bin_counts(values, self._required_exponent())
        self.zeros += _count_zeros(values)

    def grow(self, exponent: int) -> None:
        """Widen the bins to ``2 ** exponent`` if they are narrower."""
        if self.exponent is None:
            self.exponent = exponent
        elif exponent > self.exponent:
            self.counts = fold(self.counts, exponent - self.exponent)
            self.exponent = exponent

    def merge(self, other: Histogram) -> Histogram:
        """A new histogram of the values of both."""
        merged = Histogram(self.exponent, self.counts.copy(), self.zeros + other.zeros)
        if other.exponent is None:
            return merged
        merged.grow(other.exponent)
        shift = merged._required_exponent() - other.exponent
        merged.counts = merged.counts + (fold(other.counts, shift) if shift else other.counts)
        return merged

    def density(self, low: float, high: float) -> Density:
        """The density between the exact extremes ``low`` and ``high`` of the data."""
        used = np.flatnonzero(self.counts)
        first, last = int(used[0]), int(used[-1])
        edges = np.arange(first - HALF, last - HALF + 2, dtype=np.float64) * self.width
        edges = np.clip(edges, low, high)
        return Density(edges, self.counts[first : last + 1].astype(np.float64), float(self.zeros))

    def magnitudes(self, largest: float) -> Density:
        """The density of ``|x|``, from 0 to the exact largest magnitude."""
        counts = self.counts[HALF:] + self.counts[HALF - 1 :: -1]
        last = int(np.flatnonzero(counts)[-1])
        edges = np.clip(np.arange(last + 2, dtype=np.float64) * self.width, 0.0, largest)
        return Density(edges, counts[: last + 1].astype(np.float64), float(self.zeros))

    def _required_exponent(self) -> int:
        if self.exponent is None:
            raise ValueError("an empty histogram has no bins")
        return self.exponent

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Histogram):
            return NotImplemented
        return (self.exponent, self.zeros) == (other.exponent, other.zeros) and bool(
            np.array_equal(self.counts, other.counts)
        )

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        return f"Histogram(width={self.width}, total={self.total})"


def exponent_for(largest: float) -> int:
    """The smallest exponent whose 4096 bins hold magnitudes up to ``largest``."""
    if largest == 0.0:
        return SMALLEST_EXPONENT
    return max(SMALLEST_EXPONENT, math.frexp(largest)[1] - (HALF.bit_length() - 1))


def fold(counts: Counts, times: int) -> Counts:
    """Counts after the bins were widened by ``2 ** times``; exact."""
    for _ in range(min(times, _DOUBLINGS)):
        pairs = counts.reshape(-1, 2).sum(axis=1)
        counts = np.zeros(BINS, dtype=np.int64)
        counts[HALF // 2 : HALF // 2 + HALF] = pairs
    return counts


def coarsen(density: Density, factor: int) -> Density:
    """The same density in bins ``factor`` times as wide (the last may be narrower)."""
    starts = np.arange(0, len(density.counts), factor)
    counts = np.add.reduceat(density.counts, starts)
    return Density(np.append(density.edges[starts], density.edges[-1]), counts, density.zeros)


def quantile(density: Density, share: float) -> float:
    """The value below which ``share`` (0 to 1) of the counted values lie, linear within a bin."""
    at, inside = _quantile_position(density, share)
    left, right = density.edges[at], density.edges[at + 1]
    return float(left + inside * (right - left))


def quantile_bin(density: Density, share: float) -> tuple[float, float]:
    """The edges of the occupied bin in which the quantile ``share`` (0 to 1) lies."""
    at, _ = _quantile_position(density, share)
    return float(density.edges[at]), float(density.edges[at + 1])


def _quantile_position(density: Density, share: float) -> tuple[int, float]:
    """Index of an occupied bin, and the share of it below the quantile."""
    cumulative = np.cumsum(density.counts)
    target = min(max(share, 0.0), 1.0) * cumulative[-1]
    occupied = np.flatnonzero(density.counts)
    at = int(occupied[np.searchsorted(cumulative[occupied], target, side="left")])
    before = cumulative[at] - density.counts[at]
    return at, float((target - before) / density.counts[at])


def share_below(density: Density, value: float) -> float:
    """Share (0 to 1) of the counted values that lie below ``value``, linear within a bin."""
    left, right = density.edges[:-1], density.edges[1:]
    width = right - left
    inside = np.divide(value - left, width, out=np.zeros_like(width), where=width > 0)
    inside = np.where(width > 0, np.clip(inside, 0.0, 1.0), (left < value).astype(np.float64))
    return float((density.counts * inside).sum() / density.counts.sum())


def _bin_counts(values: Tensor, exponent: int) -> Counts:
    # Scaling by a power of two is exact unless it underflows: −1e-40 would end in the bin of 0.
    wide = values.double() if exponent > 0 else values
    index = wide.mul(math.ldexp(1.0, -exponent)).floor_().add_(HALF).to(torch.int32)
    counts: Any = torch.bincount(index.flatten(), minlength=BINS).cpu().numpy()
    return np.asarray(counts, dtype=np.int64)


def _count_zeros(values: Tensor) -> int:
    if values.device.type == "cpu":
        # Several times faster than torch's sum of booleans.
        return int(np.count_nonzero(values.detach().numpy() == 0.0))
    return int((values == 0.0).sum())
