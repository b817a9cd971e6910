"""Resampling: reproducible, grouped, and modest where it saw little."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats

from kompakt.errors import MetricError
from kompakt.measuring.bootstrap import (
    group_index,
    grouped_bootstrap_corpus,
    paired_bootstrap_bounded,
    resampling_counts,
)
from kompakt.measuring.statistics import Bounds


def test_counts_draw_every_group_as_often_as_there_are_groups() -> None:
    counts = np.concatenate(list(resampling_counts(50, 3000, np.random.default_rng(0))))
    assert counts.shape == (3000, 50)
    assert (counts.sum(axis=1) == 50).all()
    assert counts.mean() == 1.0
    assert counts.var() == pytest.approx(0.98, rel=0.03)


def test_the_same_seed_gives_the_same_bounds() -> None:
    d = np.random.default_rng(0).normal(0, 0.1, 200).clip(-1, 1)
    first, second = (paired_bootstrap_bounded(d, 0.05, np.random.default_rng(7)) for _ in range(2))
    assert first == second


def test_many_small_differences_come_close_to_t() -> None:
    d = np.random.default_rng(0).normal(0.01, 0.1, 2000).clip(-1, 1)
    bounds = paired_bootstrap_bounded(d, 0.05, np.random.default_rng(0))
    error = d.std(ddof=1) / np.sqrt(2000)
    assert bounds.upper == pytest.approx(d.mean() + 1.645 * error, abs=0.1 * error)
    assert bounds.lower == pytest.approx(d.mean() - 1.645 * error, abs=0.1 * error)
    assert bounds.deviation == pytest.approx(0.1, rel=0.05)


@pytest.mark.parametrize("n", [2, 29, 500])
def test_identical_scores_do_not_prove_too_much(n: int) -> None:
    bounds = paired_bootstrap_bounded(np.zeros(n), 0.05, np.random.default_rng(0))
    assert "betting" in bounds.method
    assert bounds.upper > 1 / n


def test_groups_of_different_size_weigh_by_their_samples() -> None:
    rng = np.random.default_rng(0)
    groups = np.repeat(np.arange(200), rng.integers(1, 9, 200))
    d = rng.normal(0.02, 0.1, groups.size).clip(-1, 1)
    bounds = paired_bootstrap_bounded(d, 0.05, rng, groups=groups)
    assert bounds.lower < d.mean() < bounds.upper
    assert "200 groups" in bounds.method


def test_group_labels_may_be_words_and_have_to_fit() -> None:
    assert group_index(["b", "a", "b"], 3).tolist() == [1, 0, 1]
    assert group_index(None, 3).tolist() == [0, 1, 2]
    with pytest.raises(MetricError, match="K231"):
        group_index([1, 2], 3)


def of_a_mean(x: np.ndarray, alpha: float = 0.05, resamples: int = 8000) -> Bounds:
    return grouped_bootstrap_corpus(
        lambda counts: counts @ x / counts.sum(axis=1), x.size, None, alpha,
        np.random.default_rng(0), resamples=resamples,
    )  # fmt: skip


def test_the_corpus_bootstrap_of_a_mean_agrees_with_scipy() -> None:
    x = np.random.default_rng(0).exponential(size=800)
    low, high = of_a_mean(x).interval
    theirs = stats.bootstrap(
        (x,), np.mean, method="BCa", n_resamples=8000, confidence_level=0.95, rng=1
    ).confidence_interval
    # On the side of the long tail BCa reaches further, on the other the jackknife's t.
    assert high - x.mean() == pytest.approx(theirs.high - x.mean(), rel=0.1)
    assert x.mean() - low == pytest.approx(1.98 * x.std() / math.sqrt(800), rel=0.02)
    assert low < theirs.low


def test_few_samples_that_decide_a_figure_prove_nothing() -> None:
    rng = np.random.default_rng(0)
    even, lumpy = rng.normal(size=400), rng.normal(size=400)
    lumpy[:3] += 300
    assert of_a_mean(even, resamples=400).unproven == ""
    assert "decide the figure" in of_a_mean(lumpy, resamples=400).unproven
    assert "too few" in of_a_mean(even[:20], resamples=400).unproven


def test_nothing_is_proven_of_a_mean_without_bounds() -> None:
    d = np.random.default_rng(0).normal(0.1, 1.0, 500)
    found = paired_bootstrap_bounded(
        d, 0.05, np.random.default_rng(0), low=-math.inf, high=math.inf
    )
    assert found.unproven
    assert found.upper == pytest.approx(d.mean() + 1.645 / math.sqrt(500), rel=0.1)


def test_a_metric_that_mostly_has_no_value_is_an_error() -> None:
    with pytest.raises(MetricError, match="K227"):
        grouped_bootstrap_corpus(
            lambda counts: np.where(counts[:, 0] == 1, 1.0, np.nan),
            10, None, 0.05, np.random.default_rng(0),
        )  # fmt: skip


@pytest.mark.parametrize("n", [0, 1])
def test_one_sample_has_no_interval(n: int) -> None:
    rng = np.random.default_rng(0)
    with pytest.raises(MetricError, match="K230"):
        paired_bootstrap_bounded(np.zeros(n), 0.05, rng)
    with pytest.raises(MetricError, match="K230"):
        grouped_bootstrap_corpus(lambda counts: counts[:, 0], n, None, 0.05, rng)
