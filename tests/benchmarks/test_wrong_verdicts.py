"""The judge of candidates is wrong no more often than its confidence admits, at and around the limit."""

from __future__ import annotations

import importlib
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]


@pytest.fixture
def simulation(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(ROOT)
    return importlib.import_module("benchmarks.wrong_verdicts")


def test_verdicts_are_told_right_from_wrong(simulation: Any) -> None:
    def wrong(true_drop: float, drop: float, verdict: str) -> bool:
        found = simulation.Judged(true_drop=true_drop, drop=drop, verdict=verdict, samples=9)
        return bool(found.wrong)

    assert wrong(0.0, 0.004, "dropped early")
    assert not wrong(0.0, 0.006, "dropped early"), "so it is on these samples"
    assert wrong(0.006, 0.0, "proven")
    assert wrong(0.005, 0.02, "violated")
    assert not wrong(0.02, 0.02, "violated")
    assert not wrong(0.02, 0.0, "undecided")


@pytest.mark.slow
def test_of_two_hundred_planted_candidates_hardly_one_is_misjudged(simulation: Any) -> None:
    trials = simulation.simulate(200)
    assert {t.true_drop for t in trials} == set(simulation.DROPS)
    # 95 % admits 10 of 200, were all of them at the limit.
    assert sum(t.wrong for t in trials) <= 3
    assert not [t for t in trials if t.wrong and t.verdict == "dropped early"]
    far = [t for t in trials if t.true_drop > 0.01]
    assert not [t for t in far if t.wrong]
    assert all(t.verdict in ("dropped early", "violated", "undecided") for t in far)


def test_hopeless_candidates_cost_little(simulation: Any) -> None:
    trials = simulation.simulate(10, drops=(0.2,), seed=1)
    assert Counter(t.verdict for t in trials) == {"dropped early": 10}
    assert sum(t.samples for t in trials) / len(trials) < simulation.SAMPLES / 10
