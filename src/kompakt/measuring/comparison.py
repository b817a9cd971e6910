"""The verdict on a drop: proven, observed, violated or undecided."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike

from kompakt.errors import MetricError
from kompakt.measuring.bootstrap import (
    FEW_DIFFERENT,
    UNBOUNDED,
    Floats,
    group_index,
    grouped_bootstrap_corpus,
    paired_bootstrap_bounded,
)
from kompakt.measuring.metric import Metric
from kompakt.measuring.scores import Scores
from kompakt.measuring.statistics import (
    Bounds,
    samples_needed,
    score_upper,
    tango_bounds,
)

Verdict = Literal["proven", "observed", "violated", "undecided"]
_BOOTSTRAP_SEED = 0
_MOST_SAMPLES = 10**9


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """The paired drop of a candidate against the float model.

    Attributes:
        drop: In the metric's unit (a fraction for top1), positive when the candidate is worse.
        interval: Two-sided interval of the drop.
        lower: One-sided lower bound.
        upper: One-sided upper bound.
        unproven: Why no drop is called proven whatever the bound; empty where it may be.
        higher_is_better: Direction of the metric: whether a drop is a fall or a rise of it.
        margin: The largest drop accepted, or ``None``.
        confidence: Of the interval and of each bound.
        verdict: ``proven`` (the upper bound is below the margin, and can be relied on),
            ``violated`` (the lower bound is above it), ``observed`` (the drop itself is not above it)
            or ``undecided``.
        samples_needed: About how many samples in all a decision would take with 80 % probability,
            were the drop as observed; ``None`` when decided, or when no number would do.
        method: How the interval was computed.
        n: Samples compared.
        discordant: Samples on which the two models' scores differ.
    """

    drop: float
    interval: tuple[float, float]
    lower: float
    upper: float
    margin: float | None
    confidence: float
    verdict: Verdict
    samples_needed: int | None
    method: str
    n: int
    discordant: int
    unproven: str = ""
    higher_is_better: bool = True


def compare(
    metric: Metric,
    float_scores: Scores | ArrayLike,
    candidate_scores: Scores | ArrayLike,
    margin: float | None = None,
    confidence: float = 0.95,
    groups: ArrayLike | None = None,
    rng: np.random.Generator | None = None,
) -> Comparison:
    """Compare paired scores and say what they prove.

    0/1 scores get Tango's score interval, bounded scores a studentised paired bootstrap, corpus
    metrics a BCa bootstrap widened by a jackknife. Unbounded scores get the studentised
    bootstrap too, but nothing is called proven of their mean. Scores in groups are resampled by
    group.

    Args:
        metric: The metric.
        float_scores: Of the float model.
        candidate_scores: Of the candidate, for the same samples in the same order.
        margin: The largest drop accepted, at least 0; ``None`` gives the interval and the verdict
            ``observed``.
        confidence: Of the interval and of each one-sided bound, in (0.5, 1).
        groups: A group label for each sample; by default those of the scores.
        rng: Source of bootstrap resamples; by default one with a fixed seed.

    Raises:
        MetricError: K227 where the metric has no value, K230 for impossible settings, K231 for
            scores that are not paired.
    """
    if margin is not None and not 0 <= margin < math.inf:
        raise MetricError("K230", f"margin {margin:g}", why="it is negative or infinite")
    mine, theirs = _as_scores(metric, float_scores), _as_scores(metric, candidate_scores)
    _check_paired(mine, theirs)
    groups = mine.groups if groups is None else np.asarray(groups)
    rng = np.random.default_rng(_BOOTSTRAP_SEED) if rng is None else rng
    alpha = 1 - confidence
    different = mine.differs(theirs)
    bounds, drop = _bounds(mine, theirs, different, alpha, groups, rng)
    verdict = _verdict(drop, bounds, margin)
    needed = None
    hopeless = bounds.unproven == UNBOUNDED and drop <= (margin or 0.0)
    if margin is not None and verdict in ("observed", "undecided") and not hopeless:
        needed = _needed(bounds.deviation, drop, margin, alpha, mine.n)
    return Comparison(
        drop=drop,
        interval=bounds.interval,
        lower=bounds.lower,
        upper=bounds.upper,
        margin=margin,
        confidence=confidence,
        verdict=verdict,
        samples_needed=needed,
        method=bounds.method,
        n=mine.n,
        discordant=int(different.sum()),
        unproven=bounds.unproven,
        higher_is_better=metric.higher_is_better,
    )


def _as_scores(metric: Metric, scores: Scores | ArrayLike) -> Scores:
    if isinstance(scores, Scores):
        return scores
    rows = scores if metric.kind == "corpus" else np.asarray(scores, dtype=np.float64)
    return Scores(metric=metric, rows=rows, order=())


def _check_paired(mine: Scores, theirs: Scores) -> None:
    alike = type(mine.rows) is type(theirs.rows) and mine.metric.kind == theirs.metric.kind
    if mine.n != theirs.n or not alike:
        raise MetricError(
            "K231",
            f"{mine.n} {mine.metric.kind} scores against {theirs.n} {theirs.metric.kind} ones",
        )
    if mine.order and theirs.order and mine.order != theirs.order:
        raise MetricError("K231", "two sets of scores", why="the samples came in another order")
    if mine.n < 2:
        raise MetricError("K230", f"a comparison on {mine.n} samples", why="two are the least")


def _bounds(
    mine: Scores,
    theirs: Scores,
    different: np.ndarray[tuple[int], np.dtype[np.bool_]],
    alpha: float,
    groups: ArrayLike | None,
    rng: np.random.Generator,
) -> tuple[Bounds, float]:
    metric = mine.metric
    if metric.kind == "corpus":
        return _corpus_bounds(mine, theirs, different, alpha, groups, rng)
    d = metric.worse_by(mine.values, theirs.values)
    drop = float(d.mean())
    low, high = metric.bounds or (-math.inf, math.inf)
    # Only where the metric says so: another sample may hold more than the 0 and 1 of this one.
    yes_no = (low, high) == (0.0, 1.0) and all(
        np.isin(scores.values, (0.0, 1.0)).all() for scores in (mine, theirs)
    )
    if yes_no and groups is None:
        return tango_bounds(int((d > 0).sum()), int((d < 0).sum()), d.size, alpha), drop
    width = high - low
    return paired_bootstrap_bounded(d, alpha, rng, groups=groups, low=-width, high=width), drop


def _corpus_bounds(
    mine: Scores,
    theirs: Scores,
    different: np.ndarray[tuple[int], np.dtype[np.bool_]],
    alpha: float,
    groups: ArrayLike | None,
    rng: np.random.Generator,
) -> tuple[Bounds, float]:
    metric = mine.metric

    def paired(counts: Floats) -> Floats:
        return metric.worse_by(mine.resampled(counts), theirs.resampled(counts))

    drop = float(metric.worse_by(np.asarray(mine.value()), np.asarray(theirs.value())))
    bounds = grouped_bootstrap_corpus(paired, mine.n, groups, alpha, rng)
    index = group_index(groups, mine.n)
    total, changed = int(index.max()) + 1, np.unique(index[different]).size
    if changed >= FEW_DIFFERENT:
        return bounds, drop
    # Resampling cannot show what was not seen: allow for as many more differing groups as the
    # share of those seen leaves possible, each at its worst.
    low, high = metric.bounds or (-math.inf, math.inf)
    one, two = ((high - low) * score_upper(changed, total, a) for a in (alpha, alpha / 2))
    return Bounds(
        lower=min(bounds.lower, -one),
        upper=max(bounds.upper, one),
        interval=(min(bounds.interval[0], -two), max(bounds.interval[1], two)),
        method=f"score bound of the share that differs ({changed} of {total})",
        deviation=max(bounds.deviation, 0.0),
        unproven="" if changed == 0 else bounds.unproven,
    ), drop


def _verdict(drop: float, bounds: Bounds, margin: float | None) -> Verdict:
    if margin is None:
        return "observed"
    if bounds.upper < margin and not bounds.unproven:
        return "proven"
    if bounds.lower > margin:
        return "violated"
    return "observed" if drop <= margin else "undecided"


def _needed(deviation: float, drop: float, margin: float, alpha: float, n: int) -> int | None:
    """Samples in all; never fewer than one more than there were."""
    discordance = deviation**2 + drop**2
    needed = samples_needed(discordance, drop, margin, alpha=alpha)
    if needed is None or needed > _MOST_SAMPLES:
        return None
    return max(needed, n + max(1, math.ceil(n * 0.1)))
