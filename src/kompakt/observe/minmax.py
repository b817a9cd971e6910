"""The exact extremes.

What it does
    Answers the smallest and the largest value of the whole calibration set. Nothing seen in
    calibration is clipped.

When to use
    Few samples; edges without outliers, such as those behind ReLU6; 16-bit activations, where range
    is cheap. It is the safe start and what the others are compared with.

Cost
    None beyond the calibration pass.

Formula
    low = min x, high = max x.

Limits
    One outlier stretches the range and coarsens every other value; the range only grows with more
    data.

Reference
    Krishnamoorthi 2018, "Quantizing deep convolutional networks for efficient inference", arXiv
    1806.08342, section 3.
"""

from __future__ import annotations

from dataclasses import dataclass

from kompakt.numerics.formats import Format
from kompakt.observe.statistics import EdgeStatistics


@dataclass(frozen=True, kw_only=True)
class MinMax:
    """The exact extremes; see the module's text."""

    def range(
        self, statistics: EdgeStatistics, fmt: Format, symmetric: bool
    ) -> tuple[float, float]:
        """See :meth:`kompakt.observe.observer.Observer.range`."""
        statistics.require_data()
        return statistics.low, statistics.high
