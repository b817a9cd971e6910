"""What comes closest when no trial holds the budget, and trials whose file computes something else."""

from __future__ import annotations

import pytest

from kompakt.search.budget import Budget
from kompakt.search.distance import distance, excesses

from .test_ladder import Bench, exact, ladder, trial, wrong_on


@pytest.mark.parametrize(
    ("sizes", "closest"),
    [
        ({"accurate": 900, "small": 110}, "small"),
        ({"accurate": 150, "small": 149}, "accurate"),
        ({"accurate": 90, "small": 90}, "accurate"),
    ],
)
def test_every_limit_counts_by_the_share_it_is_exceeded_by(
    sizes: dict[str, int], closest: str
) -> None:
    """Whatever the number of limits broken: 30 % over one is closer than 800 % over another."""
    runs = {"accurate": wrong_on(0.03), "small": wrong_on(0.04)}
    for order in (list(runs), list(runs)[::-1]):
        bench = Bench({name: runs[name] for name in order}, sizes=sizes)
        climbed = ladder(bench, Budget(max_drop=0.02, max_size=100))
        climbed.judge.random_order = False  # type: ignore[union-attr]
        best = climbed.climb()
        assert best is not None
        assert best.over
        assert best.candidate.name == closest


def test_of_two_that_are_too_large_the_smaller_is_closest() -> None:
    bench = Bench({"8 bits": exact, "4 bits": wrong_on(0.01)}, sizes={"8 bits": 900, "4 bits": 500})
    best = ladder(bench, Budget(max_drop=0.05, max_size=100)).climb()
    assert best is not None
    assert best.candidate.name == "4 bits"


def test_a_file_that_computes_something_else_does_not_settle_it() -> None:
    bench = Bench(
        {"wrong file": exact, "right file": exact, "never": exact}, unsound=("wrong file",)
    )
    climbed = ladder(bench, Budget(max_drop=0.02, max_size=5000))
    best = climbed.climb()
    assert best is not None
    assert best.candidate.name == "right file"
    wrong = climbed.trials[0]
    assert wrong.outcome == "parity failed"
    assert "first at layer 3" in wrong.why
    assert wrong.over, "it holds no budget"
    assert [t.candidate.name for t in climbed.trials] == ["wrong file", "right file"]


def test_only_what_may_be_chosen_is_checked_and_once() -> None:
    bench = Bench({"large": exact, "small": exact}, sizes={"large": 9000, "small": 100})
    climbed = ladder(bench, Budget(max_drop=0.02))
    best = climbed.climb()
    assert best is not None
    climbed.certificate(best)
    assert bench.certified == ["small"]


def test_where_no_file_computes_what_it_should_one_is_still_handed_out() -> None:
    names = ("bad", "near")
    bench = Bench({"bad": wrong_on(0.01), "near": exact}, unsound=names)
    climbed = ladder(bench, Budget(max_drop=0.02))
    best = climbed.climb()
    assert best is climbed.trials[1]
    assert {t.outcome for t in climbed.trials} == {"parity failed"}
    assert sorted(bench.certified) == sorted(names)


def test_each_limit_is_exceeded_by_a_share() -> None:
    made = trial("any", 1.5, 120, 0.0)
    limits = Budget(max_size=100, min_speedup=3.0, max_latency_ms=0.5)
    assert excesses(made, limits) == pytest.approx([0.2, 1.0, 1.0])
    assert excesses(made, Budget(max_size=200, min_speedup=1.2, max_latency_ms=2.0)) == [0, 0, 0]
    assert excesses(made, Budget(max_drop=0.0)) == [0, 0, 0, float("inf")], "it was not measured"


def test_what_was_not_measured_is_further_than_what_was() -> None:
    unknown, slow = trial("unknown", None, 10, 0.0), trial("slow", 0.1, 10, 0.0)
    limits = Budget(min_speedup=2.0)
    assert distance(slow, limits) < distance(unknown, limits)


def test_a_drop_without_an_allowance_still_has_a_distance() -> None:
    """A limit of 0 would make every drop infinitely far."""
    near, far = trial("near", 1.0, 10, 0.0), trial("far", 1.0, 10, 0.0)
    near.least_drop, far.least_drop = 0.01, 0.02
    assert distance(near, Budget(max_drop=0.0)) < distance(far, Budget(max_drop=0.0))
