"""Looking for the best range: a coarse geometric grid, then finer ones around the best point.

A range inside the exact extremes is written as factors in (0, 1] on its free ends. Data on one side
of 0 and symmetric ranges have one free end; otherwise both ends move.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from kompakt.observe.histogram import Floats
from kompakt.observe.statistics import EdgeStatistics

Cost = Callable[[Floats, Floats], Floats]
"""Cost of each of many ranges from their lows and highs, all float64 ``(ranges,)``."""


@dataclass(frozen=True, kw_only=True)
class Grid:
    """How finely to look.

    Attributes:
        points: Factors per free end in the coarse grid; the first is 1 (the exact extreme).
        ratio: Quotient of neighbouring coarse factors.
        refinements: Finer grids tried around the best point so far.
        refined_points: Factors per free end in each finer grid.
    """

    points: int
    ratio: float
    refinements: int = 2
    refined_points: int = 9


def best_range(
    statistics: EdgeStatistics,
    cost: Cost,
    *,
    symmetric: bool,
    line: Grid,
    plane: Grid,
    coarse_cost: Cost | None = None,
) -> tuple[float, float]:
    """The range of least cost; among equals the widest.

    Args:
        statistics: What was observed; ranges stay inside its exact extremes.
        cost: What to minimise.
        symmetric: Look at symmetric ranges only.
        line: The grid where one end is free.
        plane: The grid where both are.
        coarse_cost: A cheaper stand-in for ``cost`` on the coarse grid.
    """
    free = _free_ends(statistics, symmetric)
    grid = line if sum(free) == 1 else plane

    def ranges(factors: Floats) -> tuple[Floats, Floats]:
        return _ranges(statistics, factors, symmetric)

    factors = _product(grid.ratio ** np.arange(grid.points, dtype=np.float64), free)
    best = factors[int(np.argmin((coarse_cost or cost)(*ranges(factors))))]
    reach = grid.ratio
    for _ in range(grid.refinements):
        spread = reach ** np.linspace(-1.0, 1.0, grid.refined_points)
        nearby = _product(spread, free) * best
        candidates = np.concatenate((np.ones((1, 2)), np.minimum(nearby, 1.0)))
        best = candidates[int(np.argmin(cost(*ranges(candidates))))]
        reach **= 2.0 / (grid.refined_points - 1)
    lows, highs = ranges(best[None, :])
    return statistics.within(float(lows[0]), float(highs[0]))


def _free_ends(statistics: EdgeStatistics, symmetric: bool) -> tuple[bool, bool]:
    if symmetric or statistics.low >= 0.0:
        return False, True
    return True, statistics.high > 0.0


def _product(factors: Floats, free: tuple[bool, bool]) -> Floats:
    """All pairs (factor of low, factor of high); a fixed end keeps factor 1."""
    one = np.ones(1)
    low, high = (factors if is_free else one for is_free in free)
    return np.stack(np.meshgrid(low, high, indexing="ij"), axis=-1).reshape(-1, 2)


def _ranges(statistics: EdgeStatistics, factors: Floats, symmetric: bool) -> tuple[Floats, Floats]:
    if symmetric:
        threshold = statistics.absmax * factors[:, 1]
        return -threshold, threshold
    lows = np.clip(statistics.low * factors[:, 0], statistics.low, statistics.high)
    return lows, np.maximum(np.minimum(statistics.high * factors[:, 1], statistics.high), lows)
