"""Power-of-two histograms: exact counts, exact merging, quantiles."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst

from kompakt.observe.histogram import (
    BINS,
    HALF,
    SMALLEST_EXPONENT,
    Histogram,
    coarsen,
    exponent_for,
    fold,
    quantile,
    quantile_bin,
    share_below,
)

FLOATS = npst.arrays(
    np.float32,
    st.integers(1, 60),
    elements=st.floats(width=32, allow_nan=False, allow_infinity=False),
)


def filled(*parts: np.ndarray) -> Histogram:
    histogram, largest = Histogram(), 0.0
    for part in parts:
        largest = max(largest, float(np.abs(part).max()))
        histogram.add(torch.from_numpy(part), largest)
    return histogram


def brute_force(values: np.ndarray, exponent: int) -> np.ndarray:
    index = np.floor(np.ldexp(values.astype(np.longdouble), -exponent)).astype(np.int64)
    return np.bincount(index + HALF, minlength=BINS)


@given(FLOATS)
def test_counts_equal_brute_force_for_every_float32(values: np.ndarray) -> None:
    histogram = filled(values)
    assert histogram.exponent == exponent_for(float(np.abs(values).max()))
    np.testing.assert_array_equal(histogram.counts, brute_force(values, histogram.exponent))
    assert histogram.zeros == np.count_nonzero(values == 0)


@given(st.lists(FLOATS, min_size=1, max_size=5), st.randoms(use_true_random=False))
def test_order_and_splitting_do_not_matter(parts: list[np.ndarray], random: object) -> None:
    whole = filled(np.concatenate(parts))
    assert filled(*parts) == whole
    shuffled = list(parts)
    random.shuffle(shuffled)  # type: ignore[attr-defined]
    merged = Histogram()
    for part in shuffled:
        merged = merged.merge(filled(part))
    assert merged == whole


@given(FLOATS, FLOATS, FLOATS)
def test_merging_is_associative(a: np.ndarray, b: np.ndarray, c: np.ndarray) -> None:
    x, y, z = filled(a), filled(b), filled(c)
    assert x.merge(y).merge(z) == x.merge(y.merge(z))


def test_merging_leaves_both_unchanged_and_accepts_empty() -> None:
    small, large = filled(np.float32([1.0, -0.5])), filled(np.float32([1000.0]))
    before = small.counts.copy()
    merged = small.merge(large)
    np.testing.assert_array_equal(small.counts, before)
    assert merged.total == 3
    assert small.merge(Histogram()) == small
    assert Histogram().merge(small) == small


def test_the_tiny_negative_beside_the_mask_constant_keeps_its_side() -> None:
    values = np.float32([-3.4e38, -1e-40, 1e-40, 0.0])
    histogram = filled(values)
    assert histogram.counts[HALF - 1] == 1
    assert histogram.counts[HALF] == 2


def test_exponents() -> None:
    assert exponent_for(0.0) == SMALLEST_EXPONENT
    assert exponent_for(1.0) == -10
    assert exponent_for(np.nextafter(1.0, 0.0)) == -11
    assert exponent_for(5e-324) == SMALLEST_EXPONENT


@given(st.integers(0, 40))
def test_folding_keeps_the_total(times: int) -> None:
    counts = np.random.default_rng(times).integers(0, 9, BINS)
    folded = fold(counts, times)
    assert folded.sum() == counts.sum()
    assert folded[HALF:].sum() == counts[HALF:].sum()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_double_precision_values_count_the_same(dtype: torch.dtype) -> None:
    values = torch.linspace(-3, 7, 1001, dtype=torch.float32).to(dtype)
    histogram = Histogram()
    histogram.add(values, 7.0)
    np.testing.assert_array_equal(histogram.counts, brute_force(values.numpy(), -8))


@given(FLOATS, st.floats(0, 1))
def test_quantile_lies_within_a_bin_of_the_true_one(values: np.ndarray, share: float) -> None:
    values = np.clip(values, -1e30, 1e30)
    histogram = filled(values)
    density = histogram.density(float(values.min()), float(values.max()))
    ordered = np.sort(values.astype(np.float64))
    rank = min(len(ordered) - 1, max(0, int(np.ceil(share * len(ordered) - 1e-9)) - 1))
    left, right = quantile_bin(density, share)
    assert left <= quantile(density, share) <= right
    assert ordered[max(0, rank - 1)] - histogram.width <= right
    assert left <= ordered[min(len(ordered) - 1, rank + 1)] + histogram.width


@settings(max_examples=50)
@given(st.floats(-4, 4))
def test_share_below_follows_the_data(value: float) -> None:
    values = np.random.default_rng(0).normal(size=20000).astype(np.float32)
    density = filled(values).density(float(values.min()), float(values.max()))
    assert share_below(density, value) == pytest.approx((values < value).mean(), abs=2e-3)


def test_share_below_counts_a_point_mass_at_the_end_exactly() -> None:
    values = np.float32([0.0, 1.0, 2.0, 6.0, 6.0, 6.0])
    density = filled(values).density(0.0, 6.0)
    assert share_below(density, 6.0) == pytest.approx(0.5)
    assert share_below(density, 7.0) == 1.0


def test_densities_end_at_the_exact_extremes() -> None:
    values = np.float32([-0.3, 0.1, 0.7])
    histogram = filled(values)
    low, high = float(values.min()), float(values.max())
    density = histogram.density(low, high)
    assert density.edges[0] == low
    assert density.edges[-1] == high
    assert histogram.magnitudes(high).edges[-1] == high
    assert histogram.magnitudes(high).counts.sum() == 3


def test_zeros_leave_the_bin_of_zero() -> None:
    values = np.float32([0.0, 0.0, 1e-9, 1.0])
    density = filled(values).density(0.0, 1.0)
    assert density.counts[0] == 3
    assert density.nonzero_counts()[0] == 1
    never_positive = filled(-values).density(-1.0, 0.0)
    assert never_positive.nonzero_counts().sum() == 2


def test_coarser_bins_hold_the_same_values() -> None:
    values = np.random.default_rng(1).normal(size=5000).astype(np.float32)
    density = filled(values).density(float(values.min()), float(values.max()))
    coarse = coarsen(density, 8)
    assert coarse.counts.sum() == density.counts.sum()
    assert (coarse.edges[0], coarse.edges[-1]) == (density.edges[0], density.edges[-1])
    for edge in coarse.edges[1:-1]:
        assert share_below(coarse, edge) == pytest.approx(share_below(density, edge))


def test_an_empty_histogram_says_so() -> None:
    with pytest.raises(ValueError, match="empty"):
        Histogram()._required_exponent()
    assert np.isnan(Histogram().width)
    assert "total=0" in repr(Histogram())
