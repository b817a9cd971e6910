"""The range of least squared error.

What it does
    Weighs rounding inside the range against clipping outside and takes the range where their sum is
    smallest.

When to use
    The default for 8 bits and below. It finds by itself whether outliers are worth their range.

Cost
    1 to 5 milliseconds per site, from the histogram.

Formula
    minimise E[(x − x̂)²] over low and high, where x̂ is x rounded to the nearest code of the range
    and clipped to the codes that exist. The expectation is an exact integral over each bin (see
    ``observe/quality.py``), for the scale and zero point the range really gets. Both ends are
    searched unless one is fixed at 0 or the range is symmetric; a coarse geometric grid, then two
    finer ones.

Limits
    Every value counts the same: an edge whose rare large values decide the result is better served
    by min-max. A bin is at most 1/1024 of the largest magnitude, so with outliers beyond a thousand
    times the typical value the histogram no longer resolves what lies between.

Reference
    Banner et al. 2018, "Post-training 4-bit quantization of convolution networks for
    rapid-deployment", arXiv 1810.05723, section 3 (there for Gaussian and Laplace; here for the
    observed distribution).
"""

from __future__ import annotations

from dataclasses import dataclass

from kompakt.numerics.formats import Format
from kompakt.observe.histogram import Floats, coarsen
from kompakt.observe.quality import squared_errors
from kompakt.observe.range_search import Grid, best_range
from kompakt.observe.statistics import EdgeStatistics

_LINE = Grid(points=64, ratio=0.9)
_PLANE = Grid(points=20, ratio=0.75)
_COARSENING = 8


@dataclass(frozen=True, kw_only=True)
class Mse:
    """The range of least squared error; see the module's text."""

    def range(
        self, statistics: EdgeStatistics, fmt: Format, symmetric: bool
    ) -> tuple[float, float]:
        """See :meth:`kompakt.observe.observer.Observer.range`."""
        density = statistics.density()
        if statistics.low == statistics.high:
            return statistics.low, statistics.high
        rough = coarsen(density, _COARSENING)

        def cost(lows: Floats, highs: Floats) -> Floats:
            return squared_errors(density, lows, highs, fmt, symmetric=symmetric)

        def coarse_cost(lows: Floats, highs: Floats) -> Floats:
            return squared_errors(rough, lows, highs, fmt, symmetric=symmetric)

        return best_range(
            statistics, cost, symmetric=symmetric, line=_LINE, plane=_PLANE, coarse_cost=coarse_cost
        )
