"""How sure the figure of one model is: its interval, were other samples of the same kind drawn."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from kompakt.errors import MetricError
from kompakt.measuring.bootstrap import (
    Floats,
    group_index,
    grouped_bootstrap_corpus,
    paired_bootstrap_bounded,
)
from kompakt.measuring.scores import Scores
from kompakt.measuring.statistics import score_upper

_SEED = 0


@dataclass(frozen=True, kw_only=True)
class FigureInterval:
    """The two-sided interval of a figure.

    Attributes:
        low: Its lower end.
        high: Its upper end.
        method: How it was computed, in words.
    """

    low: float
    high: float
    method: str


def figure_interval(scores: Scores, confidence: float = 0.95) -> FigureInterval | None:
    """The interval of one model's figure; says nothing about a difference of two models.

    Shares of right answers get Wilson's score interval, other scores a studentised bootstrap of
    their mean, corpus metrics a BCa bootstrap. Scores in groups are resampled by group.

    Args:
        scores: Of one model.
        confidence: In (0.5, 1).

    Returns:
        ``None`` where there are too few samples for any.

    Reference:
        Wilson (1927), Probable inference, the law of succession, and statistical inference, JASA
        22:209–212.
    """
    alpha, n, groups = 1 - confidence, scores.n, scores.groups
    if n < 2 or int(group_index(groups, n).max()) < 1:
        return None
    low, high = scores.metric.bounds or (-math.inf, math.inf)
    rng = np.random.default_rng(_SEED)
    if scores.metric.kind == "corpus":
        return _corpus(scores, alpha, rng, low, high)
    values = scores.values
    if groups is None and (low, high) == (0.0, 1.0) and np.isin(values, (0.0, 1.0)).all():
        right = int(values.sum())
        return FigureInterval(
            low=1 - score_upper(n - right, n, alpha / 2),
            high=score_upper(right, n, alpha / 2),
            method="Wilson score interval",
        )
    found = paired_bootstrap_bounded(values, alpha, rng, groups=groups, low=low, high=high)
    return FigureInterval(
        low=found.interval[0], high=found.interval[1], method=_unpaired(found.method)
    )


def _corpus(
    scores: Scores, alpha: float, rng: np.random.Generator, low: float, high: float
) -> FigureInterval | None:
    def figure(counts: Floats) -> Floats:
        return scores.resampled(counts)

    try:
        found = grouped_bootstrap_corpus(figure, scores.n, scores.groups, alpha, rng)
    except MetricError as error:
        if error.code != "K227":
            raise
        return None  # it has a value on these samples, and none on most resamples of them
    lowest, highest = found.interval
    if lowest == highest:
        # Resampling shows no other value: allow for the share of samples that may yet differ.
        unseen = (high - low) * score_upper(0, scores.n, alpha / 2)
        lowest, highest = lowest - unseen, highest + unseen
    return FigureInterval(
        low=max(lowest, low), high=min(highest, high), method=_unpaired(found.method)
    )


def _unpaired(method: str) -> str:
    return method.replace("paired ", "")
