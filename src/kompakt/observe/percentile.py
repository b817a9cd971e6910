"""A range that holds a fixed share of the values.

What it does
    Leaves out the outermost values: by default one in ten thousand.

When to use
    Edges with rare, large outliers that carry little meaning, such as many transformer activations;
    large calibration sets, where the extremes keep growing.

Cost
    Microseconds per site, from the histogram.

Formula
    With percentile p, (100 − p)/2 percent are cut at each end. Where the data lies on one side of 0
    all of 100 − p percent are cut at the far end, for the range must reach 0 anyway. A symmetric
    range holds p percent of the magnitudes. Quantiles are rounded outwards to the edge of their
    bin.

Limits
    Blind to what the outliers are worth: in some networks they are the signal. The quantile is
    exact to one bin (at most 1/1024 of the largest magnitude) of a sample of the values.

Reference
    Wu et al. 2020, "Integer quantization for deep learning inference: principles and empirical
    evaluation", arXiv 2004.09602, section 3.3.
"""

from __future__ import annotations

from dataclasses import dataclass

from kompakt.errors import UsageError
from kompakt.numerics.formats import Format
from kompakt.observe.histogram import quantile_bin
from kompakt.observe.statistics import EdgeStatistics


@dataclass(frozen=True, kw_only=True)
class Percentile:
    """A range that holds a fixed share of the values; see the module's text.

    Attributes:
        percentile: Share of the values to hold, in percent, above 50 and at most 100.
    """

    percentile: float = 99.99

    def __post_init__(self) -> None:
        if not 50.0 < self.percentile <= 100.0:
            raise UsageError(
                "K337",
                f"the percentile {self.percentile}",
                why="it must lie above 50 and at most at 100: the share of values to hold",
                help="leave it at 99.99, or use 99.9 to 99.999",
            )

    def range(
        self, statistics: EdgeStatistics, fmt: Format, symmetric: bool
    ) -> tuple[float, float]:
        """See :meth:`kompakt.observe.observer.Observer.range`."""
        statistics.require_data()
        share = self.percentile / 100.0
        if share == 1.0:
            return statistics.low, statistics.high
        if symmetric:
            return statistics.symmetric(quantile_bin(statistics.magnitudes(), share)[1])
        density = statistics.density()
        cut = 1.0 - share
        if statistics.low >= 0.0:
            return statistics.within(statistics.low, quantile_bin(density, share)[1])
        if statistics.high <= 0.0:
            return statistics.within(quantile_bin(density, cut)[0], statistics.high)
        low, high = quantile_bin(density, cut / 2)[0], quantile_bin(density, 1.0 - cut / 2)[1]
        return statistics.within(low, high)
