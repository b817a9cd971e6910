"""Numbers in words: few digits, units, true minus signs, and never a false zero or hundred."""

from __future__ import annotations

import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kompakt.report.messages import sentences
from kompakt.report.wording import (
    Wording,
    fixed,
    milliseconds,
    number,
    pair,
    percent,
    real,
    seconds,
    size,
    two_decimals,
    whole,
)


def words(metric: str, baseline: float, lang: str = "en") -> Wording:
    record = {"metric": {"name": metric}, "baseline": {"metric": baseline}}
    return Wording.of(record, sentences(lang))


@pytest.mark.parametrize(
    ("shown", "expected"),
    [
        (number(0.0), "0"), (number(-1.2345), "−1.23"), (number(12345.6), "12,346"),
        (number(0.00012345), "0.000123"), (number(1e-5), "1 × 10⁻⁵"),
        (number(-2.5e12), "−2.5 × 10¹²"),
        (number(math.inf), "∞"), (number(math.nan), "–"), (number(None), "–"), (number("7"), "–"),
        (fixed(-0.001, 2), "0.00"), (fixed(-1.005, 1), "−1.0"), (whole(4_843_388), "4,843,388"),
        (percent(0.0), "0%"), (percent(1.0), "100%"), (percent(0.99987), "99.98%"),
        (percent(3e-6), "<0.001%"), (percent(0.271), "27%"), (percent(1.25), "125%"),
        (percent(0.00012), "0.012%"), (two_decimals(0.9312), "93.12%"),
        (two_decimals(1.0), "100%"), (two_decimals(0.99999), "99.99%"),
        (milliseconds(0.0274), "27.4 µs"),
        (milliseconds(1.637), "1.64 ms"), (seconds(0.1), "0.10 s"), (seconds(73.06), "73.1 s"),
        (size(999), "999 B"), (size(2_829_344), "2.83 MB"), (size(None), "–"),
    ],
)  # fmt: skip
def test_numbers(shown: str, expected: str) -> None:
    assert shown.replace("\N{NO-BREAK SPACE}", " ") == expected


@given(st.floats())
def test_three_digits_are_right_to_half_a_percent(x: float) -> None:
    shown = number(x)
    if math.isfinite(x) and x != 0 and "×" not in shown:
        value = float(shown.replace("−", "-").replace(",", ""))
        assert value == pytest.approx(x, rel=0.0051)


@given(st.floats(0, 1))
def test_a_share_is_called_none_or_all_only_when_it_is(x: float) -> None:
    assert (percent(x) == "0%") == (x == 0)
    assert (percent(x) == "100%") == (x == 1)


@pytest.mark.parametrize("value", [True, None, "1", math.nan, [1]])
def test_what_is_no_number_is_none(value: Any) -> None:
    assert real(value) is None


def test_intervals_need_both_ends() -> None:
    assert pair([0, 1]) == (0.0, 1.0)
    assert pair([0, None]) is pair([1]) is pair(None) is None


def test_shares_are_shown_in_percent_and_their_drop_in_points() -> None:
    top1 = words("top1", 0.7412)
    assert (top1.metric(0.7397), top1.drop(0.0015)) == ("73.97%", "0.15 points")
    assert top1.interval([-0.0017, 0.0047], top1.drop_number) == "−0.17 to 0.47"
    assert words("top1", 0.7412, "zh-CN").drop(0.0015) == "0.15 个百分点"


@pytest.mark.parametrize(
    ("metric", "value", "shown"),
    [("spearman", 0.82031, "0.8203"), ("psnr", 31.234, "31.234"), ("perplexity", 253.71, "253.71")],
)
def test_other_metrics_keep_the_decimals_that_tell_them_apart(
    metric: str, value: float, shown: str
) -> None:
    assert words(metric, value).metric(value) == shown


def test_ratios_are_said_as_the_language_says_them() -> None:
    assert words("top1", 0.7).ratio(2.309) == "2.31×"
    assert words("top1", 0.7, "zh-CN").ratio(2.309) == "2.31 倍"
    assert words("top1", 0.7).ratio(None) == "–"
