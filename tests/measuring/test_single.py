"""The interval of one figure: it holds the truth as often as it says, whatever the metric."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import binomtest

from kompakt.measuring.metrics import METRICS
from kompakt.measuring.scores import Scores
from kompakt.measuring.single import figure_interval


def scores(name: str, rows: object, groups: np.ndarray | None = None) -> Scores:
    return Scores(metric=METRICS[name], rows=rows, order=(), groups=groups)


@pytest.mark.parametrize(("right", "n"), [(0, 10), (7, 10), (10, 10), (380, 400)])
def test_shares_get_the_wilson_interval(right: int, n: int) -> None:
    found = figure_interval(scores("top1", np.repeat([1.0, 0.0], [right, n - right])))
    wanted = binomtest(right, n).proportion_ci(0.95, method="wilson")
    assert found is not None
    assert (found.low, found.high) == pytest.approx((wanted.low, wanted.high), abs=1e-12)
    assert found.method == "Wilson score interval"


def test_a_corpus_metric_holds_the_truth_about_as_often_as_it_says() -> None:
    rng, truth, held = np.random.default_rng(0), 0.6, 0
    for _ in range(60):
        x = rng.normal(size=200)
        y = truth * x + np.sqrt(1 - truth**2) * rng.normal(size=200)
        found = figure_interval(scores("pearson", np.stack([x, y], axis=1)))
        assert found is not None
        held += found.low <= truth <= found.high
    assert held >= 52


def test_groups_widen_the_interval() -> None:
    rng = np.random.default_rng(0)
    values = np.repeat(rng.random(60), 10).round(3)
    alone = figure_interval(scores("top1", values))
    grouped = figure_interval(scores("top1", values, np.repeat(np.arange(60), 10)))
    assert alone is not None
    assert grouped is not None
    assert grouped.high - grouped.low > 2 * (alone.high - alone.low)
    assert "paired" not in grouped.method


def test_a_perfect_figure_is_not_said_to_be_certain() -> None:
    x = np.arange(20.0)
    found = figure_interval(scores("spearman", np.stack([x, x], axis=1)))
    assert found is not None
    assert found.low < 0.9
    assert found.high == 1.0


def test_one_sample_has_no_interval() -> None:
    assert figure_interval(scores("top1", np.ones(1))) is None
    assert figure_interval(scores("top1", np.ones(4), np.zeros(4))) is None
