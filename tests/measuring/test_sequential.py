"""Bounds that may be looked at at any time."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kompakt.errors import MetricError
from kompakt.measuring.sequential import BettingSequence, betting_interval


def drops(n: int, losses: int, gains: int, seed: int = 0) -> np.ndarray:
    d = np.concatenate([np.ones(losses), -np.ones(gains), np.zeros(n - losses - gains)])
    return np.random.default_rng(seed).permutation(d)


def test_it_closes_when_all_samples_are_seen() -> None:
    sequence = BettingSequence(500)
    sequence.update(drops(500, 30, 10))
    assert sequence.lower == pytest.approx(0.04, abs=1e-6)
    assert sequence.upper == pytest.approx(0.04, abs=1e-6)


def test_bounds_only_tighten_around_the_truth() -> None:
    sequence, d = BettingSequence(2000), drops(2000, 160, 60)
    lowers, uppers = [-1.0], [1.0]
    for start in range(0, 2000, 200):
        sequence.update(d[start : start + 200])
        lowers.append(sequence.lower)
        uppers.append(sequence.upper)
        assert lowers[-1] <= 0.05 + 1e-9 <= uppers[-1] + 2e-9
    assert (np.diff(lowers) >= -1e-9).all()
    assert (np.diff(uppers) <= 1e-9).all()


def test_exceeds_agrees_with_the_lower_bound() -> None:
    sequence = BettingSequence(1000)
    sequence.update(drops(1000, 200, 20)[:400])
    lower = sequence.lower
    assert sequence.exceeds(lower - 1e-6)
    assert not sequence.exceeds(lower + 1e-6)


def test_a_hopeless_candidate_is_found_early() -> None:
    sequence, d = BettingSequence(2000), drops(2000, 500, 60)
    seen = next(n for n in range(1, 2001) if sequence.update(d[n - 1]) or sequence.exceeds(0.01))
    assert seen < 200


def test_one_by_one_and_all_at_once_are_the_same() -> None:
    d = drops(300, 40, 10)[:150]
    one, many = BettingSequence(300), BettingSequence(300)
    for value in d:
        one.update(value)
    many.update(d)
    assert one.n == many.n == 150
    assert (one.lower, one.upper) == (many.lower, many.upper)


def test_an_endless_supply_is_wider_than_a_finite_one() -> None:
    d = drops(400, 60, 10)
    finite, endless = BettingSequence(450), BettingSequence(None)
    finite.update(d)
    endless.update(d)
    assert endless.lower < finite.lower <= finite.upper < endless.upper


def test_nothing_seen_nothing_claimed() -> None:
    sequence = BettingSequence(10, low=-0.5, high=0.25)
    assert (sequence.lower, sequence.upper) == (-0.5, 0.25)
    assert not sequence.exceeds(-0.4)


@settings(max_examples=30, deadline=None)
@given(
    scores=st.lists(st.floats(-1, 1), min_size=1, max_size=40),
    seen=st.integers(1, 40),
    alpha=st.sampled_from([0.01, 0.05, 0.3]),
)
def test_bounds_are_in_order(scores: list[float], seen: int, alpha: float) -> None:
    sequence = BettingSequence(len(scores), alpha)
    sequence.update(scores[:seen])
    assert -1 <= sequence.lower <= sequence.upper + 1e-9 <= 1 + 2e-9


def test_impossible_use_is_refused() -> None:
    with pytest.raises(MetricError, match="K230"):
        BettingSequence(0)
    with pytest.raises(MetricError, match="K230"):
        BettingSequence(10, alpha=0.7)
    sequence = BettingSequence(2)
    with pytest.raises(MetricError, match="K230"):
        sequence.update([1.5])
    with pytest.raises(MetricError, match="K230"):
        sequence.update([0.0, 0.0, 0.0])


def test_the_interval_of_identical_scores_is_honest() -> None:
    low, high = betting_interval(np.zeros(200))
    assert low == pytest.approx(-high)
    assert 0.01 < high < 0.05
