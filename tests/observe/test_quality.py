"""Error, clipping and outliers predicted from the histogram, against the data itself."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from kompakt.errors import DataError
from kompakt.numerics.affine import choose_qparams, dequantize, quantize
from kompakt.numerics.formats import Format, get_format
from kompakt.observe import (
    EdgeStatistics,
    clipped_share,
    expected_sqnr_db,
    mean_squared_error,
    outlier_ratio,
)
from kompakt.observe.quality import mean_square


def observed(values: np.ndarray) -> EdgeStatistics:
    statistics = EdgeStatistics(site="edge")
    for chunk in np.array_split(values.astype(np.float32), max(1, len(values) // 4000)):
        statistics.update(torch.from_numpy(chunk[None]))
    assert statistics.histogram.total == len(values)
    return statistics


def measured(values: np.ndarray, low: float, high: float, fmt: Format, symmetric: bool) -> float:
    x = torch.from_numpy(values.astype(np.float32))
    scale, zero = choose_qparams(torch.tensor(low), torch.tensor(high), fmt, symmetric=symmetric)
    error = (dequantize(quantize(x, scale, zero, fmt), scale, zero) - x).double()
    return float((error**2).mean())


DATA = {
    "normal": lambda r: r.normal(size=40000),
    "relu": lambda r: np.maximum(r.normal(size=40000), 0),
    "relu6": lambda r: np.clip(r.normal(size=40000) * 5, 0, 6),
    "laplace": lambda r: r.laplace(size=40000),
    "skewed": lambda r: r.gamma(2, size=40000) - 1,
    "negative": lambda r: -r.gamma(2, size=40000),
    "two points": lambda r: r.choice([0.0, 3.0], size=40000),
    "outliers": lambda r: np.where(r.random(40000) < 1e-3, 40, 1) * r.normal(size=40000),
}


@pytest.mark.parametrize("name", DATA)
@pytest.mark.parametrize(
    ("fmt", "symmetric"), [("uint8", False), ("int8", True), ("int4", True), ("uint4", False)]
)
@pytest.mark.parametrize("shrink", [1.0, 0.6])
def test_predicted_error_equals_the_measured(
    name: str, fmt: str, symmetric: bool, shrink: float
) -> None:
    values = DATA[name](np.random.default_rng(3))
    statistics = observed(values)
    low, high = statistics.low * shrink, statistics.high * shrink
    expected = measured(values, low, high, get_format(fmt), symmetric)
    found = mean_squared_error(statistics, low, high, get_format(fmt), symmetric=symmetric)
    floor = (statistics.histogram.width / 2) ** 2 / 12
    assert found == pytest.approx(expected, rel=0.06, abs=floor)


@pytest.mark.parametrize("fmt", ["int16", "uint16"])
def test_steps_finer_than_the_bins(fmt: str) -> None:
    values = np.random.default_rng(0).normal(size=40000)
    statistics = observed(values)
    expected = measured(values, statistics.low, statistics.high, get_format(fmt), False)
    found = mean_squared_error(statistics, statistics.low, statistics.high, get_format(fmt))
    assert found == pytest.approx(expected, rel=0.05)


@pytest.mark.parametrize("fmt", ["fp8_e4m3", "fp8_e5m2", "fp16", "bf16"])
def test_small_floats(fmt: str) -> None:
    values = np.random.default_rng(0).normal(size=40000)
    statistics = observed(values)
    expected = measured(values, statistics.low, statistics.high, get_format(fmt), True)
    found = mean_squared_error(
        statistics, statistics.low, statistics.high, get_format(fmt), symmetric=True
    )
    assert found == pytest.approx(expected, rel=0.5)


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.floats(-100, 100, width=32), min_size=1, max_size=30),
    st.floats(0.1, 1.0),
    st.sampled_from(["uint8", "int8", "uint4", "int8_narrow"]),
)
def test_error_is_never_negative_nor_nan(values: list[float], shrink: float, fmt: str) -> None:
    statistics = observed(np.array(values))
    low, high = statistics.low * shrink, statistics.high * shrink
    error = mean_squared_error(statistics, min(low, high), max(low, high), get_format(fmt))
    assert 0.0 <= error < math.inf


def test_sqnr_of_uniform_data_is_the_textbook_value() -> None:
    values = np.random.default_rng(0).uniform(-1, 1, size=200_000)
    statistics = observed(values)
    found = expected_sqnr_db(statistics, -1.0, 1.0, get_format("int8"), symmetric=True)
    assert found == pytest.approx(20 * math.log10(254), abs=0.2)


def test_sqnr_where_nothing_is_lost() -> None:
    zeros = observed(np.zeros(10))
    assert expected_sqnr_db(zeros, 0.0, 0.0, get_format("int8")) == math.inf
    exact = observed(np.full(10, 127.0))
    assert expected_sqnr_db(exact, 0.0, 127.0, get_format("int8"), symmetric=True) == math.inf


@pytest.mark.parametrize("name", DATA)
@pytest.mark.parametrize("shrink", [1.0, 0.9, 0.3])
def test_clipped_share(name: str, shrink: float) -> None:
    values = DATA[name](np.random.default_rng(5)).astype(np.float32)
    statistics = observed(values)
    low, high = statistics.low * shrink, statistics.high * shrink
    low, high = min(low, high), max(low, high)
    expected = float(((values < low) | (values > high)).mean())
    if shrink == 1.0:
        assert clipped_share(statistics, low, high) == expected == 0.0
    else:
        assert clipped_share(statistics, low, high) == pytest.approx(expected, abs=2e-3)


def test_outlier_ratio() -> None:
    rng = np.random.default_rng(0)
    even = observed(rng.uniform(-1, 1, size=40000))
    assert outlier_ratio(even) == pytest.approx(1.0, abs=0.01)
    values = rng.normal(size=40000)
    values[7] = 300.0
    typical = np.quantile(np.abs(values), 0.999)
    assert outlier_ratio(observed(values)) == pytest.approx(300 / typical, rel=0.1)
    assert outlier_ratio(observed(np.zeros(5))) == 1.0


def test_mean_square() -> None:
    values = np.maximum(np.random.default_rng(0).normal(size=40000), 0)
    assert mean_square(observed(values).density()) == pytest.approx((values**2).mean(), rel=1e-3)


def test_nothing_observed() -> None:
    fmt = get_format("int8")
    for ask in (
        lambda s: mean_squared_error(s, 0, 1, fmt),
        lambda s: expected_sqnr_db(s, 0, 1, fmt),
        lambda s: clipped_share(s, 0, 1),
        outlier_ratio,
    ):
        with pytest.raises(DataError) as caught:
            ask(EdgeStatistics())
        assert caught.value.code == "K339"
