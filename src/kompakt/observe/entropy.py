"""The range that keeps the distribution: least Kullback–Leibler divergence.

What it does
    Compares the distribution of the clipped values with what is left of it after quantization and
    takes the range where the two differ least.

When to use
    Classification networks with long-tailed activations; as an alternative to ``mse`` to be judged
    by the measured error.

Cost
    2 to 8 milliseconds per site, from the histogram.

Formula
    minimise KL(P ‖ Q) over the range. P: the histogram inside the range, with everything outside
    added to its outermost bins. Q: the histogram inside the range without what lies outside, its
    bins grouped into as many equal levels as the format has codes, the mass of each level spread
    evenly over the level's occupied bins. A bin of Q that is empty where P is not counts half a
    value. Magnitudes (2048 bins) are used for symmetric ranges and for data on one side of 0;
    otherwise the signed histogram (4096 bins) and both ends are searched. Values of exactly 0 are
    left out: 0 always has a code of its own, so the many zeros of a ReLU must not decide.

Limits
    Sees the shape of a distribution, not what its values are worth. It needs clearly more bins than
    levels to see anything: with a 16-bit or a float format every range looks alike and the exact
    extremes are answered.

Reference
    Migacz 2017, "8-bit inference with TensorRT", GTC talk S7310. Deviations: thresholds are
    searched on a geometric grid; both ends where the data has two signs; Q is smoothed as said
    above.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from kompakt.numerics.formats import Format
from kompakt.observe.histogram import HALF as ZERO_BIN
from kompakt.observe.histogram import Floats, Histogram
from kompakt.observe.range_search import Cost, Grid, best_range
from kompakt.observe.statistics import EdgeStatistics

_LINE = Grid(points=48, ratio=0.9)
_PLANE = Grid(points=12, ratio=0.75, refined_points=5)
_BINS_PER_LEVEL = 2


@dataclass(frozen=True, kw_only=True)
class Entropy:
    """The range of least Kullback–Leibler divergence; see the module's text."""

    def range(
        self, statistics: EdgeStatistics, fmt: Format, symmetric: bool
    ) -> tuple[float, float]:
        """See :meth:`kompakt.observe.observer.Observer.range`."""
        statistics.require_data()
        low, high = statistics.low, statistics.high
        one_sided = symmetric or low >= 0.0 or high <= 0.0
        levels = fmt.levels if not symmetric else _levels_per_side(fmt)
        bins = _occupied(statistics, one_sided)
        if low == high or fmt.kind == "float" or bins < _BINS_PER_LEVEL * levels:
            return low, high
        cost = (
            _magnitude_cost(statistics, levels) if one_sided else _signed_cost(statistics, levels)
        )
        return best_range(statistics, cost, symmetric=symmetric, line=_LINE, plane=_PLANE)


def divergence(counts: Floats, first: int, last: int, levels: int) -> float:
    """KL(P ‖ Q) of the range made of the bins ``first`` … ``last − 1``.

    Args:
        counts: float64 ``(bins,)``, the whole histogram.
        first: First bin of the range.
        last: One past its last bin.
        levels: Codes the range is divided into.
    """
    inside = counts[first:last]
    if not inside.any():
        return float("inf")
    p = inside.copy()
    p[0] += counts[:first].sum()
    p[-1] += counts[last:].sum()
    level = np.arange(len(inside)) * levels // len(inside)
    mass = np.bincount(level, weights=inside, minlength=levels)
    occupied = np.bincount(level, weights=inside > 0.0, minlength=levels)
    q = np.where(inside > 0.0, (mass / np.maximum(occupied, 1.0))[level], 0.0)
    q = np.where((q == 0.0) & (p > 0.0), 0.5, q)
    used = p > 0.0
    p, q = p[used], q[used]
    return float((p / p.sum()) @ np.log((p / p.sum()) / (q / q.sum())))


def _occupied(statistics: EdgeStatistics, one_sided: bool) -> int:
    density = statistics.magnitudes() if one_sided else statistics.density()
    return len(density.counts)


def _levels_per_side(fmt: Format) -> int:
    """Codes from 0 to the threshold of a symmetric range."""
    return fmt.qmax + 1 if fmt.signed else fmt.qmax - (fmt.qmax + 1) // 2 + 1


def _magnitude_cost(statistics: EdgeStatistics, levels: int) -> Cost:
    counts = statistics.magnitudes().nonzero_counts()
    width = statistics.histogram.width

    def cost(lows: Floats, highs: Floats) -> Floats:
        ends = np.maximum(np.abs(lows), np.abs(highs)) / width
        last = np.clip(np.ceil(ends).astype(int), 1, len(counts))
        return np.array([divergence(counts, 0, int(n), levels) for n in last])

    return cost


def _signed_cost(statistics: EdgeStatistics, levels: int) -> Cost:
    histogram: Histogram = statistics.histogram
    start = int(np.flatnonzero(histogram.counts)[0])
    counts = statistics.density().nonzero_counts()
    zero = ZERO_BIN - start

    def cost(lows: Floats, highs: Floats) -> Floats:
        first = np.clip(np.floor(lows / histogram.width).astype(int) + zero, 0, len(counts) - 1)
        last = np.clip(np.ceil(highs / histogram.width).astype(int) + zero, 1, len(counts))
        last = np.maximum(last, first + 1)
        pairs = zip(first.tolist(), last.tolist(), strict=True)
        return np.array([divergence(counts, i, j, levels) for i, j in pairs])

    return cost
