"""Edge statistics: streaming, merging, refusing."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from kompakt.errors import DataError
from kompakt.observe.channels import ChannelMagnitudes
from kompakt.observe.statistics import (
    DECAY,
    SAMPLES_KEPT,
    EdgeStatistics,
    RunningAverage,
    SampleExtremes,
)


def streamed(*tensors: torch.Tensor, **options: int | None) -> EdgeStatistics:
    statistics = EdgeStatistics(site="edge")
    for x in tensors:
        statistics.update(x, **options)  # type: ignore[arg-type]
    return statistics


def assert_same(a: EdgeStatistics, b: EdgeStatistics) -> None:
    assert (a.site, a.samples, a.values, a.low, a.high) == (
        b.site,
        b.samples,
        b.values,
        b.low,
        b.high,
    )
    assert a.histogram == b.histogram
    np.testing.assert_array_equal(a.sample_absmax, b.sample_absmax)
    assert a.channels.varied == b.channels.varied
    np.testing.assert_array_equal(a.channels.absmax, b.channels.absmax)  # type: ignore[arg-type]
    assert a.average.samples == b.average.samples
    assert a.average.low_sum == pytest.approx(b.average.low_sum, rel=1e-13, abs=1e-300)
    assert a.average.high_sum == pytest.approx(b.average.high_sum, rel=1e-13, abs=1e-300)


@settings(max_examples=40, deadline=None)
@given(
    st.lists(st.tuples(st.integers(1, 5), st.floats(1e-6, 1e6)), min_size=2, max_size=6),
    st.data(),
)
def test_halves_merged_equal_one_pass(
    batches: list[tuple[int, float]], data: st.DataObject
) -> None:
    generator = torch.Generator().manual_seed(len(batches))
    tensors = [torch.randn(n, 6, 30, 30, generator=generator) * s for n, s in batches]
    cut = data.draw(st.integers(0, len(tensors)))
    whole = streamed(*tensors, channel_dim=1)
    halves = streamed(*tensors[:cut], channel_dim=1).merge(streamed(*tensors[cut:], channel_dim=1))
    assert_same(halves, whole)


def test_every_partition_of_the_batches_merges_to_the_same() -> None:
    tensors = [torch.randn(2, 3, 40, 40) * 2.0**i for i in range(-3, 4)]
    whole = streamed(*tensors, channel_dim=1)
    for size in (1, 2, 3):
        merged = EdgeStatistics()
        for start in range(0, len(tensors), size):
            merged = merged.merge(streamed(*tensors[start : start + size], channel_dim=1))
        assert_same(merged, whole)


def test_extremes_are_exact_where_the_histogram_is_a_sample() -> None:
    x = torch.randn(2, 8, 128, 128)
    x[1, 3, 77, 5] = 1000.0
    x[0, 2, 1, 1] = -2000.0
    statistics = streamed(x, channel_dim=1)
    assert (statistics.low, statistics.high) == (-2000.0, 1000.0)
    assert statistics.histogram.total < statistics.values == x.numel()
    assert statistics.channels.absmax is not None
    assert statistics.channels.absmax[2] == 2000.0
    np.testing.assert_array_equal(
        statistics.sample_absmax, x.abs().amax((1, 2, 3)).numpy().astype(np.float32)
    )


@given(st.lists(st.tuples(st.floats(-5, 0), st.floats(0, 5)), min_size=1, max_size=50))
def test_moving_average_equals_the_recurrence(extremes: list[tuple[float, float]]) -> None:
    average = RunningAverage()
    low = high = weight = 0.0
    for a, b in extremes:
        average.extend(np.array([a]), np.array([b]))
        low, high, weight = low * DECAY + a, high * DECAY + b, weight * DECAY + 1.0
    at_once = RunningAverage()
    at_once.extend(np.array([a for a, _ in extremes]), np.array([b for _, b in extremes]))
    for found in (average, at_once):
        assert found.value() == (
            pytest.approx(low / weight, rel=1e-12, abs=1e-12),
            pytest.approx(high / weight, rel=1e-12, abs=1e-12),
        )


def test_moving_average_of_a_constant_is_that_constant() -> None:
    average = RunningAverage()
    average.extend(np.full(777, -0.1), np.full(777, 3.3))
    assert average.value() == (pytest.approx(-0.1, rel=1e-14), pytest.approx(3.3, rel=1e-14))


def test_per_sample_scalars_are_capped() -> None:
    tensors = [torch.randn(700, 2) for _ in range(4)]
    whole = streamed(*tensors)
    assert len(whole.sample_absmax) == SAMPLES_KEPT
    assert whole.samples == 2800
    assert_same(streamed(*tensors[:2]).merge(streamed(*tensors[2:])), whole)


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("batch_dim", [0, None])
def test_values_that_are_not_finite_are_refused(bad: float, batch_dim: int | None) -> None:
    x = torch.zeros(3, 4)
    x[1, 2] = bad
    statistics = EdgeStatistics(site="layer1.0.relu")
    with pytest.raises(DataError, match=r"layer1\.0\.relu") as caught:
        statistics.update(x, batch_dim)
    assert caught.value.code == "K331"
    assert statistics.is_empty, "a refused tensor must leave no trace"


def test_the_message_names_the_batch_of_the_first_bad_sample() -> None:
    lows = np.array([[0.0], [0.0], [np.inf], [np.nan]])
    extremes = SampleExtremes.of(lows, lows)
    with pytest.raises(DataError, match="calibration batch 5") as caught:
        extremes.refuse_nonfinite("site", np.array([4, 4, 5, 5]))
    assert "infinity" in caught.value.why


@pytest.mark.parametrize("shape", [(0, 3), (2, 0)])
def test_empty_tensors_change_nothing(shape: tuple[int, ...]) -> None:
    assert streamed(torch.empty(shape)).is_empty


def test_a_range_from_nothing_is_refused() -> None:
    empty = EdgeStatistics(site="never")
    for ask in (empty.density, empty.magnitudes, empty.require_data):
        with pytest.raises(DataError, match="never") as caught:
            ask()
        assert caught.value.code == "K339"


def test_silent_channels() -> None:
    x = torch.randn(2, 5, 6, 6)
    x[:, 1] = 0.0
    x[0, 3] = 0.0
    y = torch.randn(2, 5, 6, 6)
    y[:, 1] = 0.0
    assert streamed(x, channel_dim=1).channels.silent() == [1]
    assert streamed(x, y, channel_dim=1).channels.silent() == [1]
    y[1, 1, 0, 0] = 1e-30
    assert streamed(x, y, channel_dim=1).channels.silent() == []


def test_channels_that_vary_have_no_answer() -> None:
    varied = streamed(torch.randn(2, 3), torch.randn(2, 4), channel_dim=1)
    assert varied.channels.silent() is None
    assert varied.channels.merge(ChannelMagnitudes(absmax=np.zeros(3))).varied


def test_a_tensor_that_does_not_run_over_samples_counts_for_each() -> None:
    extremes = SampleExtremes.of(np.array([[-1.0, -2.0]]), np.array([[3.0, 0.5]]), samples=3)
    assert extremes.lows.tolist() == [-2.0] * 3
    assert extremes.highs.tolist() == [3.0] * 3
    assert extremes.channel_absmax.tolist() == [3.0, 2.0]


def test_ranges_are_cut_to_the_extremes() -> None:
    statistics = streamed(torch.tensor([[1.0, 2.0, 5.0]]))
    assert statistics.within(-3.0, 4.0) == (1.0, 4.0)
    assert statistics.within(6.0, 9.0) == (5.0, 5.0)
    assert statistics.symmetric(4.0) == (1.0, 4.0)
    assert statistics.symmetric(0.5) == (1.0, 1.0)
