"""How far a candidate that does not hold the budget is from it: what "came closest" means."""

from __future__ import annotations

import math

from kompakt.search.budget import Budget
from kompakt.search.trial import Trial

LEAST_DROP = 1e-3
"""A limit on the drop below this counts as this, or every drop would be infinitely far from a limit of 0."""
_LAST = {"dropped early": 1, "parity failed": 2}

Distance = tuple[int, int, float, float]


def distance(trial: Trial, budget: Budget) -> Distance:
    """Sorts trials by how far they are from a budget, the closest first.

    Returns:
        Whether the trial is a last resort; how many limited figures were not measured; the sum, over all limits, of
        the share by which the limit is exceeded; the drop.
    """
    found = excesses(trial, budget)
    drop = trial.comparison.drop if trial.comparison else math.inf
    unknown = sum(not math.isfinite(excess) for excess in found)
    total = sum(excess for excess in found if math.isfinite(excess))
    return _LAST.get(trial.outcome, 0), unknown, total, drop


def excesses(trial: Trial, budget: Budget) -> list[float]:
    """By what share each limit is exceeded, 0 where it holds and infinity where the figure is not known."""
    drop = trial.comparison.drop if trial.comparison else trial.least_drop
    latency, size = trial.latency, trial.build.written.size_bytes if trial.build else None
    speed = latency.ratio if latency else None
    # Half the speed asked for is as far off as twice the latency.
    slow = budget.min_speedup / speed if budget.min_speedup and speed else None
    found = [
        _above(size, budget.max_size),
        _above(latency.candidate_ms if latency else None, budget.max_latency_ms),
        _above(slow, None if budget.min_speedup is None else 1.0),
    ]
    if budget.max_drop is not None:
        unit = max(budget.max_drop, LEAST_DROP)
        over = math.nan if drop is None else (drop - budget.max_drop) / unit
        found.append(math.inf if math.isnan(over) else max(0.0, over))
    return found


def _above(value: float | None, limit: float | None) -> float:
    if limit is None:
        return 0.0
    return math.inf if value is None else max(0.0, value / limit - 1)
