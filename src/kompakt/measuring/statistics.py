"""Intervals and sample sizes: pure functions on numbers and numpy arrays.

Every accuracy figure is a *paired* drop: ``d = score of the float model − score of the candidate``
on the same sample, so that a positive drop is a loss. Legend: ``b`` samples only the float model
gets right, ``c`` only the candidate, ``n`` all samples.

Reference:
    T. Tango (1998), Equivalence test and confidence interval for the difference in proportions for
    the paired-sample design, Statistics in Medicine 17:891–908.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import bdtr, ndtri

from kompakt.errors import MetricError

Floats = NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class Bounds:
    """What the samples say about one unknown number.

    Attributes:
        lower: One-sided lower bound at the confidence asked for.
        upper: One-sided upper bound at the confidence asked for.
        interval: Two-sided interval at the same confidence.
        method: How they were computed, in words.
        deviation: Estimated standard deviation of one sample's contribution; used to plan sample
            sizes.
        unproven: Why nothing may be called proven by them, in words; empty where it may.
    """

    lower: float
    upper: float
    interval: tuple[float, float]
    method: str
    deviation: float
    unproven: str = ""


def check_alpha(alpha: float) -> None:
    """Refuse an error probability outside of (0, 0.5)."""
    if not 0.0 < alpha < 0.5:
        raise MetricError("K230", f"confidence {1 - alpha:g}", why="it lies outside of 0.5 … 1")


def tango_z(b: ArrayLike, c: ArrayLike, n: ArrayLike, drop: ArrayLike) -> Floats:
    """Tango's score statistic for the hypothesis that the true drop is ``drop``.

    Args:
        b: Samples that only the float model gets right.
        c: Samples that only the candidate gets right.
        n: All samples.
        drop: Hypothetical difference of the two shares, in (−1, 1).

    Returns:
        z, falling in ``drop``; all arguments are broadcast.
    """
    b_, c_, n_, d = (np.asarray(value, dtype=np.float64) for value in (b, c, n, drop))
    linear = (2 * n_ + c_ - b_) * d - (b_ + c_)
    constant = -c_ * d * (1 - d)
    root = np.sqrt(np.maximum(linear * linear - 8 * n_ * constant, 0.0))
    # Two forms of the same root: the usual one cancels to rounding noise when c = 0 and drop is
    # large.
    usual = (root - linear) / (4 * n_)
    with np.errstate(divide="ignore", invalid="ignore"):
        stable = np.where(linear > 0, -2 * constant / (linear + root), usual)
    q = np.clip(stable, np.maximum(0.0, -d), (1 - d) / 2)
    variance = np.maximum(n_ * (2 * q + d * (1 - d)), 1e-300)
    return np.asarray((b_ - c_ - n_ * d) / np.sqrt(variance), dtype=np.float64)


def tango_upper(b: ArrayLike, c: ArrayLike, n: ArrayLike, alpha: float) -> Floats:
    """One-sided upper bounds of the drop at confidence ``1 − alpha``, vectorised."""
    check_alpha(alpha)
    b_, c_, n_ = np.broadcast_arrays(*(np.asarray(v, dtype=np.float64) for v in (b, c, n)))
    target = -float(ndtri(1 - alpha))
    low, high = (b_ - c_) / n_, np.ones_like(n_)
    for _ in range(60):  # bisection: z falls from 0 at the observed drop to −∞ at 1
        middle = (low + high) / 2
        inside = tango_z(b_, c_, n_, middle) > target
        low, high = np.where(inside, middle, low), np.where(inside, high, middle)
    return np.asarray(high, dtype=np.float64)


def tango_interval(b: int, c: int, n: int, alpha: float = 0.05) -> tuple[float, float]:
    """Two-sided interval of the drop ``(b − c) / n`` of a 0/1 score.

    Unlike Wald's interval and the bootstrap it keeps its coverage when few pairs differ, and with
    ``b = c = 0`` it says how much could have been missed instead of claiming exactly zero.

    Args:
        b: Samples that only the float model gets right.
        c: Samples that only the candidate gets right.
        n: All samples.
        alpha: Error probability, 0.05 for 95 %.

    Returns:
        Lower and upper end, as fractions.

    Raises:
        MetricError: K230 for impossible counts.

    Reference:
        Tango (1998).

    >>> [round(end, 4) for end in tango_interval(0, 0, 1000)]
    [-0.0038, 0.0038]
    """
    if n < 1 or b < 0 or c < 0 or b + c > n:
        raise MetricError("K230", f"b={b}, c={c} of n={n} samples", why="the counts are impossible")
    upper = float(tango_upper(b, c, n, alpha / 2))
    return -float(tango_upper(c, b, n, alpha / 2)), upper


def tango_bounds(b: int, c: int, n: int, alpha: float) -> Bounds:
    """One- and two-sided bounds of the drop of a 0/1 score (see :func:`tango_interval`)."""
    interval = tango_interval(b, c, n, alpha)
    share = (b + c) / n
    return Bounds(
        lower=-float(tango_upper(c, b, n, alpha)),
        upper=float(tango_upper(b, c, n, alpha)),
        interval=interval,
        method="Tango score interval",
        deviation=math.sqrt(max(share - ((b - c) / n) ** 2, 0.0)),
    )


def score_upper(k: int, n: int, alpha: float) -> float:
    """Upper bound of a share of which ``k`` of ``n`` were seen (Wilson's score bound)."""
    z = float(ndtri(1 - alpha))
    share = k / n
    spread = z * math.sqrt(share * (1 - share) / n + z * z / (4 * n * n))
    return min((share + z * z / (2 * n) + spread) / (1 + z * z / n), 1.0)


def order_statistic_interval(
    values: ArrayLike, q: float = 0.5, alpha: float = 0.05
) -> tuple[float, float]:
    """Distribution-free interval of a quantile, from the binomial distribution of ranks.

    Args:
        values: At least one number.
        q: Which quantile, in (0, 1); 0.5 is the median.
        alpha: Error probability of the two-sided interval.

    Returns:
        Two of the values; −inf or +inf where there are too few values for that confidence.

    Raises:
        MetricError: K230 for no values.
    """
    check_alpha(alpha)
    ordered = np.sort(np.asarray(values, dtype=np.float64))
    n = ordered.size
    if n == 0 or not 0 < q < 1:
        raise MetricError("K230", f"the {q:g} quantile of {n} values", why="it does not exist")
    below = bdtr(np.arange(n), n, q)  # P(at most k values lie below the quantile)
    lower_rank = int(np.searchsorted(below, alpha / 2, side="right"))
    upper_rank = int(np.searchsorted(below, 1 - alpha / 2, side="left"))
    lower = ordered[lower_rank - 1] if lower_rank >= 1 else -math.inf
    upper = ordered[upper_rank] if upper_rank < n else math.inf
    return float(lower), float(upper)


def samples_needed(
    discordance: float, drop: float, margin: float, power: float = 0.8, alpha: float = 0.05
) -> int | None:
    """How many samples it takes to prove a drop smaller (or larger) than a margin.

    Args:
        discordance: Mean of d²; for 0/1 scores the share of samples on which the two models differ.
        drop: The true drop expected.
        margin: The margin to be proven.
        power: Probability of success wanted.
        alpha: Error probability of the one-sided bound.

    Returns:
        The whole number of samples, or ``None`` when drop and margin are too close for any number.

    >>> samples_needed(0.02, 0.0, 0.005), samples_needed(0.02, 0.002, 0.005)
    (4947, 13737)
    """
    variance = max(discordance - drop * drop, 0.0)
    quantiles = float(ndtri(1 - alpha)), float(ndtri(power))
    gap = abs(margin - drop)
    if gap < 1e-9:
        return None
    needed = sum(quantiles) ** 2 * variance / gap**2
    if drop < margin and margin < 1:
        # With no differing pair at all the score bound is z²/(n + z²): it has to pass below the
        # margin too.
        needed = max(needed, quantiles[0] ** 2 * (1 - margin) / margin if margin > 0 else math.inf)
    return math.ceil(needed) if needed < 1e9 else None
