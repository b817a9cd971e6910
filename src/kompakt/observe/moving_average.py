"""The average of each sample's extremes.

What it does
    Averages the smallest and the largest value of every sample, later samples weighing a little
    more.

When to use
    When single samples hold outliers that the others do not have: a mean of extremes follows the
    typical sample where the extremes themselves follow the worst one.

Cost
    None beyond the calibration pass.

Formula
    low = Σ dⁿ⁻ⁱ·min xᵢ / Σ dⁿ⁻ⁱ over the samples xᵢ, high likewise, with d = 0.99. The average is
    over samples, not batches, so it does not depend on the batch size, and it is debiased: it does
    not start from an arbitrary value.

Limits
    Depends on the order of the samples. Where every sample has its own outliers it keeps them all.

Reference
    Jacob et al. 2017, "Quantization and training of neural networks for efficient
    integer-arithmetic-only inference", arXiv 1712.05877, section 3.1 (there per batch and without
    debiasing).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from kompakt.numerics.formats import Format
from kompakt.observe.statistics import EdgeStatistics


@dataclass(frozen=True, kw_only=True)
class MovingAverage:
    """The average of each sample's extremes; see the module's text."""

    def range(
        self, statistics: EdgeStatistics, fmt: Format, symmetric: bool
    ) -> tuple[float, float]:
        """See :meth:`kompakt.observe.observer.Observer.range`."""
        statistics.require_data()
        low, high = statistics.average.value()
        if statistics.low >= 0.0:
            low = statistics.low
        if statistics.high <= 0.0:
            high = statistics.high
        # Averages of equal float32 numbers must not come out an ulp of float64 beside them.
        return statistics.within(float(np.float32(low)), float(np.float32(high)))
