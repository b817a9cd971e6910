"""Paired bootstraps: for bounded scores, and for metrics of a whole corpus.

Resampling draws whole *groups* (a video, a document, a patient) wherever samples come in groups,
because samples of one group are not independent of each other. Without groups every sample is its
own.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import ndtr, ndtri, stdtrit

from kompakt.errors import MetricError
from kompakt.measuring.sequential import betting_interval
from kompakt.measuring.statistics import Bounds, check_alpha

Floats = NDArray[np.float64]
Indices = NDArray[np.int64]
_CHUNK = 200_000
"""Elements of one chunk of resampling counts: small enough to stay in a processor's cache."""
_FEW_GROUPS = 30
FEW_DIFFERENT = 50
_MOST_JACKKNIFE = 400
LEAST_EFFECTIVE = 12.0
"""With fewer samples than this carrying a corpus metric's error, nothing is called proven."""


UNBOUNDED = "no number of samples bounds the mean of a score without bounds"


def group_index(groups: ArrayLike | None, n: int) -> Indices:
    """Number the groups from 0; every sample is its own group without ``groups``.

    Raises:
        MetricError: K231 when there is not one group label for each sample.
    """
    if groups is None:
        return np.arange(n)
    labels = np.asarray(groups)
    if labels.shape != (n,):
        raise MetricError("K231", f"groups of shape {labels.shape} for {n} samples")
    return np.asarray(np.unique(labels, return_inverse=True)[1], dtype=np.int64)


def group_sums(index: Indices, values: Floats) -> Floats:
    """Sum of the values of each group."""
    return np.asarray(np.bincount(index, values), dtype=np.float64)


def resampling_counts(groups: int, resamples: int, rng: np.random.Generator) -> Iterator[Floats]:
    """How often each group is drawn in each resample, in chunks of shape (some, groups)."""
    rows = max(1, _CHUNK // max(groups, 1))
    for start in range(0, resamples, rows):
        some = min(rows, resamples - start)
        draws = rng.integers(groups, size=(some, groups)) + groups * np.arange(some)[:, None]
        counts = np.bincount(draws.ravel(), minlength=some * groups)
        yield counts.reshape(some, groups).astype(np.float64)


def paired_bootstrap_bounded(
    d: ArrayLike,
    alpha: float,
    rng: np.random.Generator,
    *,
    groups: ArrayLike | None = None,
    low: float = -1.0,
    high: float = 1.0,
    resamples: int = 4000,
) -> Bounds:
    """Studentised (bootstrap-t) bounds of the mean of bounded paired differences.

    With fewer than 30 groups, or fewer than 50 of them with any difference, resampling cannot show
    what was not seen and claims too much; then the betting interval, valid at every sample size,
    takes its place.

    Without bounds (``high`` infinite) there is no such interval: one unseen disaster can move the
    mean anywhere. Then the bounds are only what resampling shows, and prove nothing.

    Args:
        d: Paired differences in [low, high], shape (n,), n ≥ 2.
        alpha: Error probability.
        rng: Source of the resamples.
        groups: A group label for each sample, shape (n,).
        low: Smallest possible difference.
        high: Largest possible difference.
        resamples: How many resamples to draw.

    Raises:
        MetricError: K230 for fewer than two samples.

    Reference:
        Efron and Tibshirani (1993), An Introduction to the Bootstrap, section 12.5.
    """
    check_alpha(alpha)
    values = np.asarray(d, dtype=np.float64)
    if values.size < 2:
        raise MetricError(
            "K230", f"an interval from {values.size} samples", why="two are the least"
        )
    index = group_index(groups, values.size)
    total, size = group_sums(index, values), group_sums(index, np.ones_like(values))
    mean, error = _ratio(total, size, np.ones((1, size.size)))
    centre, spread = float(mean[0]), float(error[0])
    different = int(np.count_nonzero(group_sums(index, np.abs(values))))
    bounded = math.isfinite(high - low)
    if bounded and (size.size < _FEW_GROUPS or different < FEW_DIFFERENT):
        return _betting_bounds(total, size, centre, spread, alpha, low, high)
    drawn = [_ratio(total, size, counts) for counts in resampling_counts(size.size, resamples, rng)]
    means, errors = (np.concatenate(part) for part in zip(*drawn, strict=True))
    t = (means - centre) / np.maximum(errors, 1e-300)
    points = np.quantile(t, [1 - alpha, alpha, 1 - alpha / 2, alpha / 2])
    lower, upper, lowest, highest = (float(centre - point * spread) for point in points)
    return Bounds(
        lower=max(lower, low),
        upper=min(upper, high),
        interval=(max(lowest, low), min(highest, high)),
        method=f"studentised paired bootstrap, {resamples} resamples{_of_groups(groups, size)}",
        deviation=spread * math.sqrt(values.size),
        unproven="" if bounded else UNBOUNDED,
    )


def _ratio(total: Floats, size: Floats, counts: Floats) -> tuple[Floats, Floats]:
    """Mean and its standard error for each row of ``counts``; groups are the units."""
    weight = counts @ size
    mean = (counts @ total) / weight
    squares = (
        counts @ total**2 - 2 * mean * (counts @ (total * size)) + mean**2 * (counts @ size**2)
    )
    correction = size.size / max(size.size - 1, 1)
    return mean, np.sqrt(np.maximum(squares, 0.0) * correction) / weight


def _betting_bounds(
    total: Floats, size: Floats, centre: float, spread: float, alpha: float, low: float, high: float
) -> Bounds:
    largest = float(size.max())
    units = total / largest  # in [low, high] whatever the group's size
    back = largest / float(size.mean())
    limits = (min(low, 0.0), max(high, 0.0))
    one = betting_interval(units, alpha, *limits)
    two = betting_interval(units, alpha / 2, *limits)
    return Bounds(
        lower=max(one[0] * back, low),
        upper=min(one[1] * back, high),
        interval=(max(two[0] * back, low), min(two[1] * back, high)),
        method="betting interval (few samples, or few that differ)",
        deviation=spread * math.sqrt(float(size.sum())),
    )


def _of_groups(groups: ArrayLike | None, size: Floats) -> str:
    return "" if groups is None else f" of {size.size} groups"


def grouped_bootstrap_corpus(
    fn: Callable[[Floats], Floats],
    n: int,
    groups: ArrayLike | None,
    alpha: float,
    rng: np.random.Generator,
    *,
    resamples: int = 2000,
) -> Bounds:
    """Bounds of a figure of the whole corpus: BCa and a jackknife's t, at each end the wider one.

    BCa alone covers too little with few groups, and where few of them carry the error (the
    positives of average precision, the tails of a correlation). So it is taken at the level of
    Student's t instead of the normal distribution's, and each end is at least as far out as t with
    the jackknife's standard error. The degrees of freedom follow from the *effective number* of
    groups, (Σ influence²)² / Σ influence⁴: n with equal influences, 1 where one group decides all.

    Args:
        fn: From how often each sample counts, shape (some, n), to the figure, shape (some,); a
            paired difference of two models' metrics. NaN for a resample on which the metric has no
            value.
        n: Number of samples.
        groups: A group label for each sample, shape (n,); resampling draws groups.
        alpha: Error probability.
        rng: Source of the resamples.
        resamples: At least 2000 for 95 % bounds.

    Returns:
        The bounds; equal to the figure itself where no resample differs from it. They prove nothing
        (:attr:`Bounds.unproven`) with fewer than 30 groups, an effective number below 12, or groups
        without which the metric has no value. The caller judges whether enough samples differ.

    Raises:
        MetricError: K230 for fewer than two groups; K227 when the metric has no value on most
            resamples.

    Reference:
        Efron (1987), Better bootstrap confidence intervals, JASA 82:171–185. Satterthwaite (1946),
        An approximate distribution of estimates of variance components, Biometrics 2:110–114. The
        jackknife leaves out one of at most 400 blocks of groups at a time.
    """
    check_alpha(alpha)
    index = group_index(groups, n)
    count = int(index.max()) + 1 if n else 0
    if count < 2:
        raise MetricError("K230", f"an interval from {count} groups", why="two are the least")
    value = float(fn(np.ones((1, n)))[0])
    drawn = np.concatenate(
        [fn(part) for counts in resampling_counts(count, resamples, rng)
         for part in _chunks(counts, index)]
    )  # fmt: skip
    drawn = np.sort(drawn[np.isfinite(drawn)])
    if drawn.size < resamples // 2:
        raise MetricError(
            "K227", f"a bootstrap of {count} groups", why="most resamples have no value"
        )
    influence = _influence(fn, index, count)
    bias, skew, effective = _bias(drawn, value), _acceleration(influence), _effective(influence)
    error = math.sqrt(float((influence**2).sum()) * (1 - 1 / max(influence.size, 2)))

    def end(level: float) -> float:
        t = float(stdtrit(max(effective - 1, 1.0), level))
        bca, student = _bca(drawn, t, bias, skew), value + t * error
        return min(bca, student) if level < 0.5 else max(bca, student)

    return Bounds(
        lower=end(alpha),
        upper=end(1 - alpha),
        interval=(end(alpha / 2), end(1 - alpha / 2)),
        method=f"paired bootstrap (BCa, {resamples} resamples"
        + (")" if groups is None else f" of {count} groups)")
        + " widened by a jackknife",
        deviation=float(drawn.std()) * math.sqrt(n),
        unproven=_unproven(count, influence, effective),
    )


def _unproven(count: int, influence: Floats, effective: float) -> str:
    if count < _FEW_GROUPS:
        return f"{count} samples or groups are too few for this metric; {_FEW_GROUPS} are the least"
    if influence.size < min(count, _MOST_JACKKNIFE):
        return "without some of the samples the metric has no value"
    # With no influence at all nothing differs; the caller has another bound for that.
    if 0 < effective < LEAST_EFFECTIVE:
        return f"about {effective:.1f} samples decide the figure; {LEAST_EFFECTIVE:g} are the least"
    return ""


def _chunks(counts: Floats, index: Indices) -> Iterator[Floats]:
    """Counts per sample from counts per group, a bounded number of elements at a time."""
    rows = max(1, _CHUNK // index.size)
    for start in range(0, counts.shape[0], rows):
        yield counts[start : start + rows][:, index]


def _bias(drawn: Floats, value: float) -> float:
    """How far the figure lies from the median of its resamples, in standard deviations."""
    tolerance = 1e-12 * max(1.0, abs(value))
    below = np.searchsorted(drawn, value - tolerance) + np.searchsorted(drawn, value + tolerance)
    share = min(max(below / 2, 0.5), drawn.size - 0.5) / drawn.size
    return float(ndtri(share))


def _influence(fn: Callable[[Floats], Floats], index: Indices, count: int) -> Floats:
    """How much each block of groups adds, by leaving out one at a time; only where that has a value."""
    blocks = min(count, _MOST_JACKKNIFE)
    block_of = (np.arange(count) % blocks)[index]
    left_out = []
    rows = max(1, _CHUNK // index.size)
    for start in range(0, blocks, rows):
        numbers = np.arange(start, min(start + rows, blocks))
        left_out.append(fn((block_of[None, :] != numbers[:, None]).astype(np.float64)))
    values = np.concatenate(left_out)
    values = values[np.isfinite(values)]
    return np.asarray(values.mean() - values if values.size else values, dtype=np.float64)


def _effective(influence: Floats) -> float:
    """How many groups of equal influence would have tails as heavy; 0 where none has any."""
    squares = influence**2 / max(float((influence**2).max(initial=0.0)), 1e-300)
    fourth = float((squares**2).sum())
    return float(squares.sum()) ** 2 / fourth if fourth > 0 else 0.0


def _acceleration(influence: Floats) -> float:
    """Skewness of the influence of the groups."""
    scale = float((influence**2).sum()) ** 1.5
    return float((influence**3).sum()) / (6 * scale) if scale > 0 else 0.0


def _bca(drawn: Floats, t: float, bias: float, skew: float) -> float:
    """The quantile that bias and skewness make of the ``t``-th standard deviation."""
    z = bias + t
    corrected = float(ndtr(bias + z / (1 - skew * z) if skew * z < 1 else t))
    return float(np.quantile(drawn, corrected))
