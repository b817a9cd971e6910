"""The first sentence of the page: honest, and the bad news before the good."""

from __future__ import annotations

from typing import Any

import pytest

from kompakt.report.draft import Draft
from kompakt.report.verdict import headline, lede, marks


def told(record: dict[str, Any], lang: str = "en") -> str:
    return " ".join(clause.text for clause in headline(Draft.of(record, lang)))


def test_good_news(record: dict[str, Any]) -> None:
    assert told(record) == (
        "2.31× the speed and 27% of the size of the float model. "
        "The drop in top‑1 accuracy is proven to be at most 0.50 points."
    )
    assert [mark.standing for mark in marks(Draft.of(record, "en"))] == [
        "good",
        "good",
        "good",
        "good",
    ]


@pytest.mark.parametrize(
    ("speedup", "interval", "noisy", "start"),
    [
        (0.53, [0.52, 0.54], False, "Not faster: it runs at 0.53× the speed"),
        (
            1.01,
            [0.98, 1.04],
            False,
            "Not faster: 1.01× the speed of the float model, no difference",
        ),
        (1.2, [1.01, 1.4], False, "Not faster: 1.20×"),
        (1.2, [0.8, 1.9], True, "Speed undecided: this machine was too noisy"),
        (1.2, None, False, "1.20× the speed and"),
        (None, None, False, "Speed was not measured."),
    ],
)
def test_speed_comes_first_and_is_not_oversold(
    record: dict[str, Any], speedup: float | None, interval: Any, noisy: bool, start: str
) -> None:
    record["latency"]["noisy"] = noisy
    assert told(record | {"speedup": speedup, "speedup_interval": interval}).startswith(start)


def test_bad_news_comes_before_good_news(record: dict[str, Any]) -> None:
    record["parity"]["verdict"] = "failed"
    bad = record | {"verdict": "violated", "drop": 0.031, "budget_met": False}
    assert told(bad).startswith(
        "The file does not compute what was simulated. "
        "The drop in top‑1 accuracy is 3.10 points, more than the 0.50 points allowed. 2.31×"
    )
    assert told(bad | {"speedup": 0.5, "speedup_interval": [0.4, 0.6]}).startswith("Not faster")
    assert [mark.standing for mark in marks(Draft.of(bad, "en"))] == ["bad", "good", "bad", "bad"]


@pytest.mark.parametrize(
    ("verdict", "words"),
    [
        ("observed", "is 0.15 points: within 0.50 points, but not proven."),
        ("undecided", "whether it stays within 0.50 points is undecided."),
        ("violated", "more than the 0.50 points allowed."),
        ("something new", "The drop in top‑1 accuracy is 0.15 points."),
    ],
)
def test_every_verdict_has_its_sentence(record: dict[str, Any], verdict: str, words: str) -> None:
    assert words in told(record | {"verdict": verdict})


def test_without_a_margin_nothing_is_called_proven(record: dict[str, Any]) -> None:
    record["metric"]["margin"] = None
    assert "proven" not in told(record)


def test_a_larger_file_is_bad_news(record: dict[str, Any]) -> None:
    assert "Not smaller: 125% of the size" in told(record | {"size_ratio": 0.8})


def test_a_gain_is_called_one(record: dict[str, Any]) -> None:
    assert "−0.20 points (a gain)" in told(record | {"drop": -0.002, "verdict": "observed"})


def test_the_lede_has_the_figures_with_their_intervals(record: dict[str, Any]) -> None:
    text = lede(Draft.of(record, "en")).replace("\N{NO-BREAK SPACE}", " ")
    assert "On 10,000 samples the compressed file reaches 73.97% top‑1 accuracy" in text
    assert "a change of −0.15 points (95% interval −0.47 to +0.17)." in text
    assert "it takes 1.64 ms instead of 3.78 ms: 2.31× the speed (95% interval 2.29× to" in text
    record["metric"]["samples_needed"] = 24_700
    undecided = lede(Draft.of(record | {"verdict": "undecided"}, "en"))
    assert "Settling it would take about 24,700 samples." in undecided


def test_a_correlation_is_no_percentage(record: dict[str, Any]) -> None:
    record["metric"] |= {"name": "spearman", "margin": 0.004}
    record["baseline"]["metric"] = 0.8203
    record["candidate"]["metric"] = 0.8176
    text = told(record | {"drop": 0.0027, "verdict": "proven"})
    assert "The drop in Spearman correlation is proven to be at most 0.0040." in text
    assert "0.8176 Spearman correlation against 0.8203" in lede(Draft.of(record, "en"))
