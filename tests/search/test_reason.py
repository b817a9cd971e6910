"""Why a candidate was chosen, in words that fit what the ladder prefers."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from kompakt.schemes import float32
from kompakt.search.candidates import Candidate
from kompakt.search.reason import why_chosen
from kompakt.search.trial import Trial, prefer, summary


def trial(speed: float | None, size: int, error: float = 0.1, **settings: Any) -> Trial:
    latency: Any = None if speed is None else SimpleNamespace(ratio=speed)
    build: Any = SimpleNamespace(written=SimpleNamespace(size_bytes=size))
    candidate = Candidate(name="c", level=1, scheme=float32())
    return Trial(candidate=candidate, build=build, latency=latency, output_error=error, **settings)


@pytest.mark.parametrize(
    ("trials", "reason"),
    [
        ([trial(2, 100), trial(1, 10)], "the fastest"),
        (
            [trial(2, 100), trial(1.99, 50), trial(1, 10)],
            "2 are about as fast as the fastest, this one is the smallest of them",
        ),
        ([trial(None, 100), trial(None, 50)], "this one is the smallest of them"),
        (
            [trial(2, 100, 0.3), trial(2, 100, 0.2), trial(2, 300, 0.1)],
            "2 are about as small as the smallest, "
            "this one's outputs are closest to the float model's",
        ),
    ],
)
def test_the_reason_is_the_one_that_decided(trials: list[Trial], reason: str) -> None:
    chosen = prefer(trials)
    assert why_chosen(chosen, trials) == f"of {len(trials)} that hold the budget {reason}"


def test_a_choice_without_a_choice() -> None:
    only = trial(1, 10)
    assert why_chosen(only, [only]) == ""
    over = trial(1, 10, over=["too big"], outcome="over budget")
    assert why_chosen(only, [only, over]) == "the only one of 2 that holds the budget"
    assert why_chosen(over, [over, trial(1, 10, over=["too big"])]) == (
        "none of 2 holds the budget; this one comes closest"
    )


def test_the_narration_has_points_and_sizes_people_read() -> None:
    told: Any = trial(1.5, 56_500)
    told.comparison = SimpleNamespace(drop=0.004)
    assert summary(told, in_points=True) == "drop 0.4 points, 1.50x, output error 0.1, 56.5 kB"
    assert summary(told).startswith("drop 0.004, ")
