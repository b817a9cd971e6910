"""Closed-form intervals against independent computations."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.optimize import minimize_scalar
from scipy.stats import binom, norm

from kompakt.errors import MetricError
from kompakt.measuring.statistics import (
    order_statistic_interval,
    samples_needed,
    score_upper,
    tango_bounds,
    tango_interval,
    tango_upper,
    tango_z,
)


def profiled_z(b: int, c: int, n: int, drop: float) -> float:
    """The score statistic with the nuisance parameter found by a numerical search."""

    def minus_log_likelihood(q: float) -> float:
        cells = ((b, q + drop), (c, q), (n - b - c, 1 - 2 * q - drop))
        return -sum(k * math.log(max(p, 1e-300)) for k, p in cells)

    low, high = max(0.0, -drop), (1 - drop) / 2
    found = minimize_scalar(
        minus_log_likelihood, bounds=(low, high), method="bounded", options={"xatol": 1e-12}
    ).x
    return (b - c - n * drop) / math.sqrt(n * (2 * found + drop * (1 - drop)))


@pytest.mark.parametrize(("b", "c", "n"), [(5, 1, 100), (12, 9, 400), (1, 7, 60), (40, 10, 100)])
@pytest.mark.parametrize("drop", [-0.2, -0.01, 0.003, 0.05, 0.3])
def test_tango_statistic_equals_a_numerical_profile_likelihood(
    b: int, c: int, n: int, drop: float
) -> None:
    assert float(tango_z(b, c, n, drop)) == pytest.approx(profiled_z(b, c, n, drop), rel=1e-4)


def test_tango_without_gains_is_wilsons_interval() -> None:
    n, b, z = 500, 20, norm.ppf(0.95)
    share = b / n
    spread = z * math.sqrt(share * (1 - share) / n + z * z / (4 * n * n))
    wilson = (share + z * z / (2 * n) + spread) / (1 + z * z / n)
    assert float(tango_upper(b, 0, n, 0.05)) == pytest.approx(wilson, rel=1e-9)
    assert score_upper(b, n, 0.05) == pytest.approx(wilson, rel=1e-9)


def test_tango_says_what_may_have_been_missed() -> None:
    z = norm.ppf(0.95)
    bounds = tango_bounds(0, 0, 1000, 0.05)
    assert bounds.upper == pytest.approx(z * z / (1000 + z * z))
    assert bounds.lower == pytest.approx(-bounds.upper)
    assert bounds.deviation == 0


@given(
    n=st.integers(1, 3000),
    shares=st.tuples(st.floats(0, 0.5), st.floats(0, 0.5)),
    alpha=st.sampled_from([0.01, 0.05, 0.2]),
)
def test_tango_interval_contains_the_drop_and_mirrors(
    n: int, shares: tuple[float, float], alpha: float
) -> None:
    b, c = int(shares[0] * n), int(shares[1] * n)
    low, high = tango_interval(b, c, n, alpha)
    assert -1 <= low <= (b - c) / n <= high <= 1
    mirrored = tango_interval(c, b, n, alpha)
    assert mirrored == pytest.approx((-high, -low), abs=1e-12)


@pytest.mark.parametrize(("b", "c", "n"), [(1, 1, 1), (-1, 0, 5), (0, 0, 0)])
def test_impossible_counts_are_refused(b: int, c: int, n: int) -> None:
    with pytest.raises(MetricError, match="K230"):
        tango_interval(b, c, n)


def test_order_statistics_have_the_binomial_coverage() -> None:
    n = 60
    low, high = order_statistic_interval(np.arange(n, dtype=float))
    # Coverage of (x_(r), x_(s)) for the median: P(r <= values below <= s - 1).
    r, s = int(low) + 1, int(high) + 1
    coverage = binom.cdf(s - 1, n, 0.5) - binom.cdf(r - 1, n, 0.5)
    narrower = binom.cdf(s - 2, n, 0.5) - binom.cdf(r, n, 0.5)
    assert coverage >= 0.95 > narrower


def test_too_few_values_give_an_endless_interval() -> None:
    assert order_statistic_interval([1.0, 2.0, 3.0]) == (-math.inf, math.inf)
    with pytest.raises(MetricError, match="K230"):
        order_statistic_interval([])


@pytest.mark.parametrize(
    ("discordance", "drop", "margin", "known"),
    [(0.02, 0, 0.01, 1237), (0.02, 0, 0.005, 4946), (0.02, 0.002, 0.005, 13736),
     (0.02, 0.001, 0.003, 30911)],
)  # fmt: skip
def test_samples_needed_agrees_with_the_known_table(
    discordance: float, drop: float, margin: float, known: int
) -> None:
    assert samples_needed(discordance, drop, margin) == pytest.approx(known, abs=1.5)


def test_samples_needed_reach_the_promised_power() -> None:
    rng = np.random.default_rng(0)
    discordance, drop, margin = 0.04, 0.002, 0.012
    n = samples_needed(discordance, drop, margin)
    assert n is not None
    cells = [(discordance + drop) / 2, (discordance - drop) / 2, 1 - discordance]
    drawn = rng.multinomial(n, cells, size=2000)
    power = (tango_upper(drawn[:, 0], drawn[:, 1], n, 0.05) < margin).mean()
    assert 0.76 < power < 0.86


def test_samples_needed_without_any_difference_is_what_tango_needs() -> None:
    n = samples_needed(0.0, 0.0, 0.01)
    assert n is not None
    assert float(tango_upper(0, 0, n, 0.05)) <= 0.01 < float(tango_upper(0, 0, n - 2, 0.05))
    assert samples_needed(0.02, 0.01, 0.01) is None
