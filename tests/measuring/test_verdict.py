"""The verdict in words: bad news first, nothing claimed that was not measured."""

from __future__ import annotations

from typing import Any

import pytest

from kompakt.measuring.comparison import Comparison, Verdict
from kompakt.measuring.latency import LatencyComparison, LatencySummary
from kompakt.measuring.verdict import (
    accuracy_sentence,
    size_sentence,
    speed_sentence,
    verdict_text,
)


def latency(low: float, ratio: float, high: float, *, noisy: bool = False) -> LatencyComparison:
    times = LatencySummary(median_ms=1.0, p90_ms=1.1, interval_ms=(0.9, 1.1), timings=60, repeats=1)
    return LatencyComparison(
        ratio=ratio, interval=(low, high), baseline=times, candidate=times,
        noise_interval=(0.99, 1.01), noisy=noisy, margin=0.05, pairs=60, confidence=0.95, seconds=1.0,
    )  # fmt: skip


def comparison(verdict: Verdict, drop: float = 0.004, **fields: Any) -> Comparison:
    settings: dict[str, Any] = {
        "drop": drop,
        "interval": (drop - 0.01, drop + 0.01),
        "lower": drop - 0.008,
        "upper": drop + 0.008,
        "margin": 0.01,
        "confidence": 0.95,
        "verdict": verdict,
        "samples_needed": 12345 if verdict in ("observed", "undecided") else None,
        "method": "tango",
        "n": 800,
        "discordant": 12,
    }
    return Comparison(**{**settings, **fields})


@pytest.mark.parametrize(
    ("measured", "words"),
    [
        (latency(2.0, 2.1, 2.2), "runs at 2.10 times"),
        (latency(0.5, 0.53, 0.6), "SLOWER"),
        (latency(0.97, 1.0, 1.05), "buys no speed"),
        (latency(1.0, 1.2, 1.4), "buys no speed here that is proven"),
        (latency(1.5, 1.9, 2.4, noisy=True), "too noisy"),
        (None, "not measured"),
    ],
)
def test_speed(measured: LatencyComparison | None, words: str) -> None:
    sentence = speed_sentence(measured)
    assert words in sentence
    if measured is not None:
        assert f"{measured.ratio:.2f}" in sentence
        assert f"interval {measured.interval[0]:.2f} to {measured.interval[1]:.2f}" in sentence


@pytest.mark.parametrize(
    ("found", "words"),
    [
        (comparison("proven"), "a drop of at most 1 point is proven"),
        (comparison("observed"), "observed, not proven; proving it takes about 12,345 samples"),
        (comparison("violated", 0.05), "more than 1 point is proven lost"),
        (comparison("undecided", 0.02), "undecided; proving it takes about 12,345 samples"),
        (comparison("observed", samples_needed=None), "observed, not proven."),
        (
            comparison("proven", -0.002),
            "top1 rises by 0.2 points (interval of the drop -1.2 to 0.8, n",
        ),
        (comparison("observed", margin=None), "top1 falls by 0.4 points (interval -0.6 to 1.4, n"),
        (comparison("proven", 0.0, margin=0.02), "top1 does not change (interval -1 to 1, n"),
        (comparison("proven", 0.0, margin=0.02), "a drop of at most 2 points is proven"),
        (None, "no validation data was given"),
    ],
)
def test_accuracy(found: Comparison | None, words: str) -> None:
    sentence = accuracy_sentence("top1", found)
    assert words in sentence
    assert sentence.endswith(".")
    if found is not None:
        assert "n = 800" in sentence
        if found.margin is None:
            assert "at most" not in sentence


@pytest.mark.parametrize(
    ("metric", "words"),
    [
        ("spearman", "spearman falls by 0.004 (interval -0.006 to 0.014, n"),
        ("perplexity", "perplexity rises by 0.004 (interval"),
        ("my.module:score", "my.module:score falls by 0.004"),
    ],
)
def test_points_are_for_shares_only_and_worse_has_a_direction(metric: str, words: str) -> None:
    found = comparison("proven", higher_is_better=metric != "perplexity")
    sentence = accuracy_sentence(metric, found)
    assert words in sentence
    assert "point" not in sentence


def test_a_metric_of_which_less_is_better_is_told_in_its_own_direction() -> None:
    better = comparison("observed", -0.02, higher_is_better=False)
    worse = comparison("proven", 0.02, higher_is_better=False)
    for name in ("perplexity", "own:error"):
        assert f"{name} falls by 0.02 (interval of the rise" in accuracy_sentence(name, better)
        assert f"{name} rises by 0.02 " in accuracy_sentence(name, worse)
        assert "a rise of at most 0.01 is proven" in accuracy_sentence(name, worse)


def test_it_is_said_why_nothing_can_be_proven() -> None:
    found = comparison("observed", samples_needed=None, unproven="too few samples")
    assert "observed, not proven (too few samples)." in accuracy_sentence("own:score", found)


def test_size() -> None:
    assert size_sentence(3.9) == "The files are 3.90 times smaller."
    assert "LARGER" in size_sentence(0.8)
    assert "1.25 times their size" in size_sentence(0.8)


def test_bad_news_comes_first() -> None:
    text = verdict_text(
        metric="top1",
        comparison=comparison("violated", 0.05),
        latency=latency(0.5, 0.53, 0.6),
        size_ratio=3.9,
        parity="failed",
        unmet=["the drop is 0.05, the limit 0.01", "the speed-up is 0.53, the least accepted 2.00"],
    )
    order = ["do not ship", "SLOWER", "The budget is not met", "proven lost", "3.90 times smaller"]
    places = [text.index(words) for words in order]
    assert places == sorted(places)
    assert "limit 0.01; the speed-up" in text


def test_good_news_alone() -> None:
    text = verdict_text(
        metric="top1", comparison=comparison("proven"), latency=latency(2.0, 2.1, 2.2),
        size_ratio=3.9, parity="exact", unmet=[],
    )  # fmt: skip
    assert "budget" not in text
    assert "ship" not in text
    assert text.startswith("It runs at 2.10 times")


def test_the_chosen_scheme_is_named() -> None:
    text = verdict_text(
        metric=None, comparison=None, latency=None, size_ratio=4.0, parity="exact", unmet=[],
        chosen="w8 (8-bit weights, float arithmetic)",
    )  # fmt: skip
    assert text.endswith("Chosen: w8 (8-bit weights, float arithmetic).")
