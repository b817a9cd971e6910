"""How often intervals hold: exact sums where outcomes can be counted, else simulation."""

from __future__ import annotations

import math
import time
from collections.abc import Callable

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.special import gammaln, xlogy

from kompakt.measuring.bootstrap import grouped_bootstrap_corpus, paired_bootstrap_bounded
from kompakt.measuring.metrics import METRICS
from kompakt.measuring.sequential import betting_interval, capital_paths, stakes
from kompakt.measuring.statistics import tango_upper

Floats = NDArray[np.float64]


def tango_coverage(n: int, discordance: float, drop: float, alpha: float = 0.05) -> float:
    """Probability that Tango's upper bound is not below the true drop: a sum over all outcomes."""
    share_b, share_c = (discordance + drop) / 2, (discordance - drop) / 2

    def likely(share: float) -> NDArray[np.int64]:
        spread = 8 * math.sqrt(n * share) + 12
        return np.arange(max(0, int(n * share - spread)), min(n, int(n * share + spread)) + 1)

    b, c = np.meshgrid(likely(share_b), likely(share_c), indexing="ij")
    inside = b + c <= n
    b, c = b[inside], c[inside]
    rest = n - b - c
    log_p = gammaln(n + 1) - gammaln(b + 1) - gammaln(c + 1) - gammaln(rest + 1)
    log_p += xlogy(b, share_b) + xlogy(c, share_c) + xlogy(rest, 1 - discordance)
    holds = tango_upper(b, c, n, alpha) >= drop - 1e-12
    return float((np.exp(log_p) * holds).sum())


def wald_coverage(n: int, discordance: float, drop: float, runs: int = 20_000) -> float:
    """The same for the textbook interval, by simulation."""
    share_b, share_c = (discordance + drop) / 2, (discordance - drop) / 2
    rng = np.random.default_rng(0)
    b, c, _ = rng.multinomial(n, [share_b, share_c, 1 - discordance], size=runs).T
    observed = (b - c) / n
    error = np.sqrt(((b + c) / n - observed**2) / n)
    return float((observed + 1.645 * error >= drop).mean())


def false_drops(n: int, discordance: float, drop: float, alpha: float, runs: int) -> float:
    """How often a bettor who looks after every sample wrongly rules out the true drop."""
    wins, losses = round((discordance - drop) / 2 * n), round((discordance + drop) / 2 * n)
    d = np.concatenate([np.ones(losses), -np.ones(wins), np.zeros(n - wins - losses)])
    rng = np.random.default_rng(0)
    x = (rng.permuted(np.tile(d, (runs, 1)), axis=1) + 1) / 2
    paths = capital_paths(x, stakes(x, alpha), x.mean(axis=1), n)
    return float((paths.max(axis=1) >= math.log(1 / alpha)).mean())


def simulated(
    runs: int, bounds: Callable[[np.random.Generator], tuple[float, float]], truth: float
) -> tuple[float, float]:
    """Share of runs in which the lower bound and the upper bound hold."""
    rng = np.random.default_rng(0)
    found = np.array([bounds(rng) for _ in range(runs)])
    return float((found[:, 0] <= truth).mean()), float((found[:, 1] >= truth).mean())


TANGO_CASES = [
    (800, 0.10, 0.005),
    (2000, 0.03, 0.002),
    (5000, 0.02, 0.002),
    (1000, 0.004, 0.004),
    (1000, 0.002, 0.0),
    (300, 0.20, 0.05),
    (100, 0.05, 0.0),
    (50, 0.10, 0.05),
]


@pytest.mark.parametrize(("n", "discordance", "drop"), TANGO_CASES)
def test_tango_covers(n: int, discordance: float, drop: float) -> None:
    assert 0.94 <= tango_coverage(n, discordance, drop) <= 0.9995


def test_where_the_textbook_interval_fails_tango_does_not() -> None:
    assert wald_coverage(1000, 0.004, 0.004) < 0.93
    assert tango_coverage(1000, 0.004, 0.004) > 0.95


def test_tango_with_identical_models_never_claims_less_than_it_knows() -> None:
    # With no pair that differs, a true drop of u is missed with probability (1 − u)ⁿ.
    for n in (50, 1000, 20_000):
        upper = float(tango_upper(0, 0, n, 0.05))
        assert (1 - upper) ** n < 0.09


def mixed_differences(rng: np.random.Generator, n: int, share: float) -> Floats:
    """Skewed differences in [−1, 1] on some samples, none on the others; mean 0.6 · share / 7."""
    sign = np.where(rng.random(n) < 0.8, 1.0, -1.0)
    return (rng.random(n) < share) * rng.beta(0.5, 3.0, n) * sign


BOUNDED_CASES = [(60, 1.0), (300, 0.3), (500, 0.2)]
FEW_CASES = [(20, 1.0), (100, 0.05), (300, 0.1)]


def bounded_coverage(n: int, share: float, runs: int) -> tuple[float, float]:
    """Coverage of the lower and upper bound of a bounded score."""

    def bounds(rng: np.random.Generator) -> tuple[float, float]:
        found = paired_bootstrap_bounded(
            mixed_differences(rng, n, share), 0.05, rng, resamples=1000
        )
        return found.lower, found.upper

    return simulated(runs, bounds, 0.6 * share / 7)


@pytest.mark.parametrize(("n", "share"), BOUNDED_CASES)
def test_the_bounded_bootstrap_covers(n: int, share: float) -> None:
    assert min(bounded_coverage(n, share, 300)) >= 0.91


@pytest.mark.parametrize(("n", "share"), FEW_CASES)
def test_few_samples_or_few_that_differ_are_covered_too(n: int, share: float) -> None:
    assert min(bounded_coverage(n, share, 150)) >= 0.95


def test_grouped_samples_are_covered_where_independence_would_fail() -> None:
    groups = np.repeat(np.arange(60), 10)

    def grouped(rng: np.random.Generator) -> Floats:
        return np.clip(np.repeat(rng.normal(0.02, 0.1, 60), 10) + rng.normal(0, 0.01, 600), -1, 1)

    def bounds(rng: np.random.Generator) -> tuple[float, float]:
        found = paired_bootstrap_bounded(grouped(rng), 0.05, rng, groups=groups, resamples=1000)
        return found.lower, found.upper

    def ignoring(rng: np.random.Generator) -> tuple[float, float]:
        found = paired_bootstrap_bounded(grouped(rng), 0.05, rng, resamples=1000)
        return found.lower, found.upper

    assert min(simulated(200, bounds, 0.02)) >= 0.90
    assert min(simulated(200, ignoring, 0.02)) < 0.80


@pytest.mark.parametrize("bound", [1.0, math.inf])
def test_the_mean_of_skewed_differences_is_covered_not_a_trimmed_one(bound: float) -> None:
    # A tenth of the samples lose much, the others almost nothing: most of the mean lies in those.
    def bounds(rng: np.random.Generator) -> tuple[float, float]:
        lost = np.where(rng.random(300) < 0.1, rng.uniform(0.2, 0.8, 300), 0.0)
        d = lost + rng.normal(0.01, 0.005, 300)
        found = paired_bootstrap_bounded(d, 0.05, rng, low=-bound, high=bound, resamples=500)
        return found.lower, found.upper

    assert min(simulated(200, bounds, 0.1 * 0.5 + 0.01)) >= 0.91


SPEARMAN_DROP = 0.0202
"""Of the population of :func:`correlated`, from two million samples."""


def correlated(rng: np.random.Generator, n: int) -> tuple[Floats, Floats]:
    """Statistics of a float model and a candidate: score and label of each sample."""
    label = rng.normal(size=n)
    score = label + rng.normal(0, 0.6, n)
    worse = score + rng.normal(0, 0.25, n)
    return np.stack([score, label], axis=1), np.stack([worse, label], axis=1)


def spearman_coverage(n: int, runs: int, resamples: int) -> tuple[float, float]:
    """Coverage of the lower and upper bound of a corpus metric."""
    corpus = METRICS["spearman"].corpus
    assert corpus is not None

    def bounds(rng: np.random.Generator) -> tuple[float, float]:
        mine, theirs = correlated(rng, n)
        found = grouped_bootstrap_corpus(
            lambda counts: corpus(mine, counts) - corpus(theirs, counts),
            n, None, 0.05, rng, resamples=resamples,
        )  # fmt: skip
        return found.lower, found.upper

    return simulated(runs, bounds, SPEARMAN_DROP)


def test_the_corpus_bootstrap_covers() -> None:
    assert min(spearman_coverage(120, 200, 600)) >= 0.90


BETTING_CASES = [
    (800, 0.10, 0.005),
    (2000, 0.03, 0.002),
    (1000, 0.004, 0.004),
    (1000, 0.20, 0.05),
    (300, 0.10, 0.10),
]


@pytest.mark.parametrize(("n", "discordance", "drop"), BETTING_CASES)
@pytest.mark.parametrize("alpha", [0.05, 0.2])
def test_a_good_candidate_is_dropped_no_more_often_than_promised(
    n: int, discordance: float, drop: float, alpha: float
) -> None:
    runs = 400
    allowed = alpha + 3 * math.sqrt(alpha * (1 - alpha) / runs)
    assert false_drops(n, discordance, drop, alpha, runs) <= allowed


def test_the_fixed_sample_betting_interval_covers() -> None:
    def bounds(rng: np.random.Generator) -> tuple[float, float]:
        return betting_interval(mixed_differences(rng, 80, 0.2), 0.05)

    assert min(simulated(200, bounds, 0.6 * 0.2 / 7)) >= 0.95


@pytest.mark.slow
@pytest.mark.parametrize(("n", "discordance", "drop"), BETTING_CASES)
def test_false_drops_in_many_runs(n: int, discordance: float, drop: float) -> None:
    assert false_drops(n, discordance, drop, 0.05, 2000) <= 0.06


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize(("n", "share"), [*BOUNDED_CASES, *FEW_CASES, (1000, 0.06)])
def test_the_bounded_bootstrap_covers_in_many_runs(n: int, share: float) -> None:
    assert min(bounded_coverage(n, share, 2000)) >= 0.93


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("n", [120, 400])
def test_the_corpus_bootstrap_covers_in_many_runs(n: int) -> None:
    assert min(spearman_coverage(n, 2000, 2000)) >= 0.93


def test_a_corpus_interval_of_1500_pairs_takes_seconds() -> None:
    mine, theirs = correlated(np.random.default_rng(0), 1500)
    corpus = METRICS["spearman"].corpus
    assert corpus is not None
    started = time.process_time()
    grouped_bootstrap_corpus(
        lambda counts: corpus(mine, counts) - corpus(theirs, counts),
        1500, None, 0.05, np.random.default_rng(0),
    )  # fmt: skip
    assert time.process_time() - started < 3.0
