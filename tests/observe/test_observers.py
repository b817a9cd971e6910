"""One contract over every observer, then each against brute force on the data."""

from __future__ import annotations

import importlib
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from kompakt.errors import DataError, UsageError
from kompakt.numerics.formats import Format, get_format
from kompakt.observe import (
    OBSERVERS,
    EdgeStatistics,
    Entropy,
    MinMax,
    Mse,
    Percentile,
    clipped_share,
    mean_squared_error,
)
from kompakt.observe.entropy import divergence

from .test_quality import DATA, measured, observed

FORMATS = [("uint8", False), ("int8", True), ("int8", False), ("uint4", False), ("int4", True)]
EDGE_CASES = {
    "zeros": np.zeros(50),
    "one value": np.array([2.5]),
    "constant": np.full(50, -3.0),
    "tiny": np.array([1e-40, -1e-40, 0.0]),
    "huge": np.array([-3.4e38, 3.4e38, 1.0, -5.0]),
    "mask": np.concatenate((np.full(500, -3.4e38), np.random.default_rng(0).normal(size=500))),
    "never negative, never zero": np.linspace(0.5, 4.0, 1000),
    "two values": np.array([-1.0, 7.0] * 20),
}


@pytest.fixture(scope="module")
def data() -> dict[str, EdgeStatistics]:
    values = {name: make(np.random.default_rng(11)) for name, make in DATA.items()}
    return {name: observed(v) for name, v in {**values, **EDGE_CASES}.items()}


@pytest.mark.parametrize("observer", OBSERVERS)
@pytest.mark.parametrize(("fmt", "symmetric"), FORMATS)
def test_contract(
    observer: str, fmt: str, symmetric: bool, data: dict[str, EdgeStatistics]
) -> None:
    for name, statistics in data.items():
        low, high = OBSERVERS[observer].range(statistics, get_format(fmt), symmetric)
        assert isinstance(low, float), name
        assert statistics.low <= low <= high <= statistics.high, name
        if statistics.low >= 0.0:
            assert low == (statistics.low if not symmetric else low), name
        if statistics.low == 0.0:
            assert low == 0.0, name
        again = OBSERVERS[observer].range(statistics, get_format(fmt), symmetric)
        assert again == (low, high), f"{name}: not deterministic"


@pytest.mark.parametrize("observer", OBSERVERS)
@pytest.mark.parametrize("fmt", ["fp8_e4m3", "bf16", "int16", "uint1", "int2"])
def test_every_format_is_answered(observer: str, fmt: str, data: dict[str, EdgeStatistics]) -> None:
    for statistics in data.values():
        low, high = OBSERVERS[observer].range(statistics, get_format(fmt), True)
        assert statistics.low <= low <= high <= statistics.high


@pytest.mark.parametrize("observer", OBSERVERS)
def test_degenerate_edges_keep_their_value(observer: str, data: dict[str, EdgeStatistics]) -> None:
    fmt = get_format("uint8")
    for name, value in (("zeros", 0.0), ("one value", 2.5), ("constant", -3.0)):
        assert OBSERVERS[observer].range(data[name], fmt, False) == (value, value)


@pytest.mark.parametrize("observer", OBSERVERS)
def test_nothing_observed_is_refused(observer: str) -> None:
    with pytest.raises(DataError) as caught:
        OBSERVERS[observer].range(EdgeStatistics(site="x"), get_format("int8"), False)
    assert caught.value.code == "K339"


@pytest.mark.parametrize("observer", OBSERVERS)
def test_merged_halves_give_the_same_range(observer: str) -> None:
    values = np.random.default_rng(2).laplace(size=40000)
    whole, halves = observed(values), observed(values[:20000]).merge(observed(values[20000:]))
    for fmt, symmetric in FORMATS:
        assert OBSERVERS[observer].range(halves, get_format(fmt), symmetric) == OBSERVERS[
            observer
        ].range(whole, get_format(fmt), symmetric)


@pytest.mark.parametrize("observer", OBSERVERS)
def test_the_documentation_has_its_headings(observer: str) -> None:
    text = importlib.import_module(f"kompakt.observe.{observer}").__doc__ or ""
    lines = text.splitlines()
    headings = ["What it does", "When to use", "Cost", "Formula", "Limits", "Reference"]
    assert [line for line in lines if line in headings] == headings


def test_minmax_is_exact() -> None:
    values = np.float32([-0.3, 0.1, 7.7])
    low, high = MinMax().range(observed(values), get_format("int8"), False)
    assert (low, high) == (float(values[0]), float(values[2]))


def test_moving_average_is_over_samples_not_batches() -> None:
    tensors = [torch.randn(4, 100) for _ in range(6)]
    by_four, by_one = EdgeStatistics(), EdgeStatistics()
    for x in tensors:
        by_four.update(x)
        for row in x:
            by_one.update(row[None])
    fmt = get_format("uint8")
    observer = OBSERVERS["moving_average"]
    low, high = observer.range(by_four, fmt, False)
    assert (low, high) == observer.range(by_one, fmt, False)
    rows = torch.cat(tensors)
    weights = 0.99 ** np.arange(len(rows) - 1, -1, -1)
    assert high == pytest.approx(np.average(rows.amax(1).numpy(), weights=weights), rel=1e-6)
    assert low == pytest.approx(np.average(rows.amin(1).numpy(), weights=weights), rel=1e-6)


@pytest.mark.parametrize("name", ["normal", "relu", "laplace", "skewed", "negative"])
@pytest.mark.parametrize("percentile", [99.0, 99.9, 99.99])
def test_percentile_equals_numpy_within_a_bin(name: str, percentile: float) -> None:
    values = DATA[name](np.random.default_rng(1)).astype(np.float32).astype(np.float64)
    statistics = observed(values)
    width = statistics.histogram.width
    observer, fmt = Percentile(percentile=percentile), get_format("uint8")
    cut = (100 - percentile) / (1 if min(values) >= 0 or max(values) <= 0 else 2)
    low, high = observer.range(statistics, fmt, False)
    if min(values) < 0:
        expected = np.percentile(values, cut, method="inverted_cdf")
        assert expected - width <= low <= expected + width
    if max(values) > 0:
        expected = np.percentile(values, 100 - cut, method="inverted_cdf")
        assert expected - 1e-9 <= high <= expected + width
    low, high = observer.range(statistics, fmt, True)
    expected = np.percentile(np.abs(values), percentile, method="inverted_cdf")
    assert expected - 1e-9 <= max(-low, high) <= expected + width


def test_percentile_keeps_a_saturated_end() -> None:
    statistics = observed(np.clip(np.random.default_rng(0).normal(size=40000) * 5, 0, 6))
    assert Percentile().range(statistics, get_format("uint8"), False) == (0.0, 6.0)


def test_percentile_100_is_minmax() -> None:
    statistics = observed(np.random.default_rng(0).normal(size=4000))
    fmt = get_format("uint8")
    assert Percentile(percentile=100.0).range(statistics, fmt, False) == MinMax().range(
        statistics, fmt, False
    )


@pytest.mark.parametrize("value", [0.0, 50.0, 100.1, -1.0, math.nan])
def test_impossible_percentiles_are_refused(value: float) -> None:
    with pytest.raises(UsageError) as caught:
        Percentile(percentile=value)
    assert caught.value.code == "K337"


def grid_search(values: np.ndarray, fmt: Format, symmetric: bool) -> float:
    """Least error over an even grid of ranges, measured on the data."""
    low, high = float(values.min()), float(values.max())
    steps = np.linspace(0.05, 1.0, 24)
    if symmetric:
        limit = max(-low, high)
        pairs = [(-limit * f, limit * f) for f in np.linspace(0.02, 1.0, 99)]
    elif low >= 0 or high <= 0:
        pairs = [(low * f, high * f) for f in np.linspace(0.02, 1.0, 99)]
    else:
        pairs = [(low * f, high * g) for f in steps for g in steps]
    return min(measured(values, a, b, fmt, symmetric) for a, b in pairs)


@pytest.mark.parametrize("name", ["normal", "relu", "laplace", "skewed", "negative", "outliers"])
@pytest.mark.parametrize(("fmt", "symmetric"), FORMATS)
def test_mse_is_as_good_as_brute_force_on_the_data(name: str, fmt: str, symmetric: bool) -> None:
    values = DATA[name](np.random.default_rng(4))[:8000].astype(np.float32)
    low, high = Mse().range(observed(values), get_format(fmt), symmetric)
    found = measured(values, low, high, get_format(fmt), symmetric)
    assert found <= 1.03 * grid_search(values, get_format(fmt), symmetric)


@settings(max_examples=40, deadline=None)
@given(
    st.lists(st.floats(-1000, 1000, width=32), min_size=1, max_size=40),
    st.sampled_from(FORMATS),
)
def test_mse_is_never_worse_than_minmax(
    values: list[float], fmt_symmetric: tuple[str, bool]
) -> None:
    fmt, symmetric = get_format(fmt_symmetric[0]), fmt_symmetric[1]
    statistics = observed(np.array(values))
    best = Mse().range(statistics, fmt, symmetric)
    errors = [
        mean_squared_error(statistics, low, high, fmt, symmetric=symmetric)
        for low, high in (best, (statistics.low, statistics.high))
    ]
    assert errors[0] <= errors[1] * (1 + 1e-9) + 1e-30


def reference_divergence(counts: list[float], levels: int, first: int, last: int) -> float:
    """The definition, written with loops."""
    p, q = counts[first:last].copy(), [0.0] * (last - first)
    p[0] += sum(counts[:first])
    p[-1] += sum(counts[last:])
    for level in range(levels):
        members = [i for i in range(len(q)) if i * levels // len(q) == level]
        occupied = [i for i in members if counts[first + i] > 0]
        for i in occupied:
            q[i] = sum(counts[first + j] for j in occupied) / len(occupied)
    q = [0.5 if b == 0 and a > 0 else b for a, b in zip(p, q, strict=True)]
    total_p = sum(p)
    total_q = sum(b for a, b in zip(p, q, strict=True) if a > 0)
    return sum(
        a / total_p * math.log((a / total_p) / (b / total_q))
        for a, b in zip(p, q, strict=True)
        if a > 0
    )


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(0, 30), min_size=4, max_size=60), st.integers(1, 20), st.data())
def test_divergence_equals_its_definition(
    counts: list[int], levels: int, data: st.DataObject
) -> None:
    first = data.draw(st.integers(0, len(counts) - 1))
    last = data.draw(st.integers(first + 1, len(counts)))
    floats = [float(c) for c in counts]
    found = divergence(np.array(floats), first, last, levels)
    if not any(counts[first:last]):
        assert found == math.inf
    else:
        assert found == pytest.approx(
            reference_divergence(floats, levels, first, last), rel=1e-9, abs=1e-9
        )
        assert found >= -1e-12


@pytest.mark.parametrize("symmetric", [False, True])
@pytest.mark.parametrize("name", ["normal", "laplace", "relu", "skewed", "outliers"])
def test_entropy_cuts_tails(name: str, symmetric: bool, data: dict[str, EdgeStatistics]) -> None:
    statistics = data[name]
    fmt = get_format("int8" if symmetric else "uint8")
    low, high = Entropy().range(statistics, fmt, symmetric)
    full = max(-statistics.low, statistics.high) if symmetric else statistics.high - statistics.low
    found = max(-low, high) if symmetric else high - low
    assert found < 0.98 * full, "entropy must not be a no-op on long tails"
    assert clipped_share(statistics, low, high) < 0.05


def test_entropy_is_the_best_threshold_of_all() -> None:
    statistics = observed(np.random.default_rng(0).laplace(size=40000))
    fmt = get_format("int8")
    counts = statistics.magnitudes().nonzero_counts()
    every = [divergence(counts, 0, n, 128) for n in range(100, len(counts) + 1)]
    low, high = Entropy().range(statistics, fmt, True)
    bins = math.ceil(max(-low, high) / statistics.histogram.width)
    assert divergence(counts, 0, min(bins, len(counts)), 128) <= 1.1 * min(every)


def test_entropy_ignores_how_many_zeros_there_are() -> None:
    values = np.abs(np.random.default_rng(0).normal(size=20000))
    fmt = get_format("uint8")
    bare = Entropy().range(observed(values), fmt, False)
    diluted = Entropy().range(observed(np.concatenate((values, np.zeros(60000)))), fmt, False)
    assert diluted[1] == bare[1]
    assert diluted[0] == 0.0


def test_entropy_answers_the_extremes_where_it_is_blind(data: dict[str, EdgeStatistics]) -> None:
    statistics = data["normal"]
    for fmt in ("int16", "fp8_e4m3"):
        assert Entropy().range(statistics, get_format(fmt), True) == (
            statistics.low,
            statistics.high,
        )
