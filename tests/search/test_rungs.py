"""The rungs of the ladder: what is tried, in which order, and when it is enough."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from kompakt.quantize import METHODS
from kompakt.search import rungs
from kompakt.search.budget import Budget
from kompakt.search.candidates import Candidate
from kompakt.search.ladder import Ladder
from kompakt.search.rungs import RECIPES
from kompakt.search.trial import Trial

from ..nets import batches_for
from .benches import workbench

Drop = Callable[[Candidate], float]


def climbed(
    monkeypatch: pytest.MonkeyPatch, folder: Path, drop: Drop, budget: Budget, **fields: Any
) -> list[Candidate]:
    """The candidates that are tried where each one's drop is planted; the sizes are, too."""
    bench = workbench("plain", folder)
    monkeypatch.setattr(rungs, "FEW_SAMPLES", fields.pop("few", 0))
    sizes = fields.pop("size", lambda candidate: 1000)
    ladder = Ladder(
        bench=bench,
        budget=budget,
        judge=None,
        example=batches_for("plain")[0],
        rng=np.random.default_rng(0),
        **{"time_it": False, **fields},
    )

    def planted(self: Ladder, candidate: Candidate) -> Trial:
        written = SimpleNamespace(size_bytes=sizes(candidate))
        trial = Trial(candidate=candidate, build=SimpleNamespace(written=written))  # type: ignore[arg-type]
        trial.comparison = SimpleNamespace(drop=drop(candidate))  # type: ignore[assignment]
        trial.over = budget.violations(drop=drop(candidate), size_bytes=sizes(candidate))
        return trial

    monkeypatch.setattr(Ladder, "_try", planted)
    monkeypatch.setattr(Ladder, "_sound", lambda self, trial: True)
    monkeypatch.setattr(Ladder, "_explain_static", lambda self: None)
    ladder.climb()
    return [t.candidate for t in ladder.trials if t.outcome != "not tried"]


class Proposals:
    """An allocator that proposes three candidates and remembers what it was told."""

    made: list[Proposals]

    def __init__(self, **fields: Any) -> None:
        self.fields, self.findings, self.seen = fields, ["found"], []  # type: ignore[var-annotated]
        base = fields["base"].candidate
        self.left = [
            Candidate(name=f"mixed {n}", level=2, scheme=base.scheme, improves=base.name)
            for n in range(3)
        ]
        type(self).made.append(self)

    def propose(self) -> Candidate | None:
        return self.left.pop(0) if self.left else None

    def observe(self, trial: Trial) -> None:
        self.seen.append(trial.candidate.name)


@pytest.fixture
def proposals(monkeypatch: pytest.MonkeyPatch) -> list[Proposals]:
    Proposals.made = []
    monkeypatch.setattr(rungs, "Allocator", Proposals)
    return Proposals.made


def level_two(found: list[Candidate]) -> list[Candidate]:
    return [c for c in found if c.level == 2]


def test_where_plain_static_holds_nothing_dearer_is_tried(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, proposals: list[Proposals]
) -> None:
    found = level_two(climbed(monkeypatch, tmp_path, lambda c: 0.001, Budget(max_drop=0.01)))
    assert [c.methods for c in found] == [(), ("bias_correction",)]
    assert not proposals


def test_methods_are_tried_in_order_until_the_drop_holds(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, proposals: list[Proposals]
) -> None:
    def drop(candidate: Candidate) -> float:
        return 0.0 if "adaround" in candidate.methods or candidate.level == 1 else 0.5

    found = level_two(climbed(monkeypatch, tmp_path, drop, Budget(max_drop=0.01)))
    wanted = [r.methods for r in RECIPES if "conv" in r.kinds]
    upto = next(i for i, methods in enumerate(wanted) if "adaround" in methods)
    assert [c.methods for c in found] == [(), ("bias_correction",), *wanted[: upto + 1]]
    assert all(c.improves == found[0].name for c in found[2:])
    assert not proposals


def test_mixed_precision_is_the_last_rung(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, proposals: list[Proposals]
) -> None:
    def drop(candidate: Candidate) -> float:
        return 0.0 if candidate.level == 1 else 0.3 if "adaround" in candidate.methods else 0.5

    found = level_two(climbed(monkeypatch, tmp_path, drop, Budget(max_drop=0.01)))
    assert [c.name for c in found[-3:]] == ["mixed 0", "mixed 1", "mixed 2"]
    (allocator,) = proposals
    assert allocator.seen == ["mixed 0", "mixed 1", "mixed 2"]
    assert "adaround" in allocator.fields["base"].candidate.methods, "the trial that came closest"
    assert allocator.fields["objective"] == "size", "nothing is timed"
    assert allocator.fields["base"] not in allocator.fields["known"]


def test_a_file_that_is_accurate_but_too_large_gets_fewer_bits(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, proposals: list[Proposals]
) -> None:
    found = climbed(monkeypatch, tmp_path, lambda c: 0.001, Budget(max_drop=0.01, max_size=500))
    assert [c.name for c in found[-3:]] == ["mixed 0", "mixed 1", "mixed 2"]
    assert proposals[0].fields["objective"] == "size"


def test_without_a_limit_on_the_drop_nothing_is_recovered(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, proposals: list[Proposals]
) -> None:
    found = level_two(climbed(monkeypatch, tmp_path, lambda c: 0.5, Budget()))
    assert [c.methods for c in found] == [(), ("bias_correction",)]
    assert not proposals


def test_with_few_samples_biases_are_first_corrected_from_batch_norms(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    found = level_two(climbed(monkeypatch, tmp_path, lambda c: 0.5, Budget(), few=32))
    assert found[1].methods == ("analytic_bias_correction", "bias_correction")


def test_every_method_of_a_recipe_exists() -> None:
    for recipe in RECIPES:
        assert set(recipe.methods) <= set(METHODS)
        order = [METHODS[name].works_on for name in recipe.methods]
        assert order == sorted(order), "what works on the float network comes first"
