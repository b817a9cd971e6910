"""Mixed precision: proposals follow verdicts, predictions are corrected, and what holds gets faster or smaller."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from kompakt.schemes import w4a8, w8a8
from kompakt.search.allocate import SATURATED, Allocator, Bracket
from kompakt.search.budget import Budget
from kompakt.search.candidates import Candidate
from kompakt.search.split import example_batch
from kompakt.search.trial import Trial
from kompakt.search.workbench import Workbench

from .test_sensitivity import deep


class Judge:
    """Builds what is proposed and judges it by its loss: a planted limit."""

    def __init__(
        self, bench: Workbench, allocator_settings: dict[str, Any], tolerated: float
    ) -> None:
        self.bench, self.tolerated = bench, tolerated
        base = Candidate(name="base", level=2, scheme=w4a8(), calibrator="mse")
        base = allocator_settings.pop("base", base)
        self.sizes: list[int] = []
        self.losses: list[float] = []
        self.trials: list[Trial] = []
        first = self.bench.build(base)
        self.allocator = Allocator(
            bench=bench,
            base=Trial(candidate=base, build=first),
            budget=Budget(max_drop=0.01),
            example=example_batch(bench.prepared, bench.samples, 1),
            metric="top1",
            **{"objective": "size", **allocator_settings},
        )
        found = find(self.allocator, first)
        if found > tolerated:
            self.allocator.base.outcome = "dropped early"
        self.base_loss, self.base_size = found, first.written.size_bytes

    def run(self) -> list[Candidate]:
        proposed = []
        while (candidate := self.allocator.propose()) is not None:
            proposed.append(candidate)
            trial = Trial(candidate=candidate, build=self.bench.build(candidate))
            assert trial.build is not None
            loss = find(self.allocator, trial.build)
            self.losses.append(loss)
            self.sizes.append(trial.build.written.size_bytes)
            if loss > self.tolerated:
                trial.outcome = "dropped early"
            self.trials.append(trial)
            self.allocator.observe(trial)
        return proposed


def folder(path: Path) -> Path:
    (path / "again").mkdir()
    return path / "again"


def find(allocator: Allocator, build: Any) -> float:
    """The loss of a file, as the allocator measures it."""
    if not hasattr(allocator, "_sensitivity"):
        allocator._prepare()
        allocator.__post_init__()
    return allocator._measured(build)


# --- the bracket ------------------------------------------------------------------------------


def test_the_limit_is_halved_in_logarithms_between_what_holds_and_what_fails() -> None:
    bracket = Bracket()
    assert bracket.limit() is None
    bracket.fails(8.0)
    assert bracket.limit() == 8.0 * bracket.guess
    bracket.holds(2.0)
    assert bracket.limit() == pytest.approx(4.0)
    bracket.fails(4.0)
    bracket.holds(3.9)
    assert bracket.limit() is None


def test_what_holds_beyond_what_failed_raises_the_limit() -> None:
    bracket = Bracket(low=1.0, high=2.0)
    bracket.holds(3.0)
    assert bracket.high is None
    assert bracket.limit() > 3.0  # type: ignore[operator]
    bracket.fails(2.5)
    assert bracket.limit() is not None
    assert bracket.low < bracket.high  # type: ignore[operator]


# --- proposals --------------------------------------------------------------------------------


def test_where_the_base_breaks_the_budget_a_mixture_holds_it(tmp_path: Path) -> None:
    judge = Judge(deep(tmp_path), {}, tolerated=float("inf"))
    judge = Judge(deep(folder(tmp_path)), {}, tolerated=judge.base_loss / 5)
    proposed = judge.run()
    assert 1 <= len(proposed) <= 6
    assert all(c.scheme.default == w4a8().default for c in proposed)
    assert all(c.improves == "base" for c in proposed)
    holding = [
        s for s, found in zip(judge.sizes, judge.losses, strict=True) if found <= judge.tolerated
    ]
    assert holding, judge.losses
    assert min(holding) < judge.bench.float_build().written.size_bytes


def test_what_holds_and_cannot_get_smaller_is_left_alone(tmp_path: Path) -> None:
    judge = Judge(deep(tmp_path), {"choices": ("int4", "int8")}, tolerated=float("inf"))
    assert judge.run() == []


def test_what_holds_gets_smaller_as_long_as_the_budget_allows(tmp_path: Path) -> None:
    base = Candidate(name="base", level=2, scheme=w8a8(), calibrator="mse")
    settings = {"base": base, "choices": ("int4", "int8")}
    judge = Judge(deep(tmp_path), settings, tolerated=float("inf"))
    tolerated = judge.base_loss * 50
    settings = {"base": base, "choices": ("int4", "int8")}
    judge = Judge(deep(folder(tmp_path)), settings, tolerated=tolerated)
    proposed = judge.run()
    assert proposed
    held = [s for s, found in zip(judge.sizes, judge.losses, strict=True) if found <= tolerated]
    assert min(held) < judge.base_size
    assert len({c.name for c in proposed}) == len(proposed)
    assert len(judge.allocator.findings) == len(proposed)


def test_predictions_are_corrected_by_what_files_lose(tmp_path: Path) -> None:
    judge = Judge(deep(tmp_path), {}, tolerated=0.0)
    allocator = judge.allocator
    candidate = allocator.propose()
    assert candidate is not None
    plan = dict(allocator._plan)
    for _ in range(4):
        allocator._refit(plan, 0.3)
    assert allocator._predicted(plan) == pytest.approx(0.3, rel=0.3)


def test_a_failed_build_counts_as_not_holding(tmp_path: Path) -> None:
    judge = Judge(deep(tmp_path), {}, tolerated=0.0)
    first = judge.allocator.propose()
    assert first is not None
    judge.allocator.observe(Trial(candidate=first, outcome="failed"))
    second = judge.allocator.propose()
    assert second is None or second.scheme != first.scheme


def test_what_other_trials_found_is_not_asked_again(tmp_path: Path) -> None:
    judge = Judge(deep(tmp_path), {}, tolerated=0.0)
    candidate = Candidate(name="int8", level=2, scheme=w8a8(), calibrator="mse")
    other = Trial(candidate=candidate, build=judge.bench.build(candidate))
    judge.allocator.known = (other, judge.allocator.base)
    judge.allocator._prepare()
    assert other.build is not None
    bracket = judge.allocator._bracket
    assert bracket.low == pytest.approx(judge.allocator._measured(other.build))
    assert bracket.high == pytest.approx(min(judge.base_loss, SATURATED))
    assert len(judge.allocator._tried) == 2


def test_times_are_minimised_where_they_are_measured(tmp_path: Path) -> None:
    base = Candidate(name="base", level=2, scheme=w8a8(), calibrator="mse")
    settings = {"base": base, "objective": "latency", "choices": ("int8",), "proposals": 1}
    judge = Judge(deep(tmp_path), settings, tolerated=0.0)
    costs = judge.allocator._costs
    assert costs.unit == "ms"
    assert {choice for _, choice in costs.layers} == {"float", "int8"}
    assert len(judge.run()) <= 1


def test_without_a_runtime_for_the_choices_it_says_so(tmp_path: Path) -> None:
    bench = deep(tmp_path)
    base = Candidate(name="base", level=2, scheme=w8a8(), calibrator="mse")
    allocator = Allocator(
        bench=bench,
        base=Trial(candidate=base, build=bench.build(base)),
        budget=Budget(max_drop=0.01),
        example=example_batch(bench.prepared, bench.samples, 1),
        choices=("int3",),
    )
    assert allocator.propose() is None
    assert "int3" in allocator.findings[0]
