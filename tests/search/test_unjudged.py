"""Without validation data nothing tells what few bits cost, so they are not chosen by themselves."""

from __future__ import annotations

import pytest

from kompakt.schemes import w4
from kompakt.search.budget import Budget
from kompakt.search.candidates import Candidate, without_data
from kompakt.search.rungs import Rungs

from .test_ladder import Bench, exact, ladder


def test_without_validation_data_few_bits_are_never_chosen(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Rungs, "_dynamic_share", lambda self: 1.0)
    runs = dict.fromkeys((c.name for c in without_data()), exact)
    sizes = {"dynamic": 300, "weights in 8 bits": 300, "weights in 4 bits": 100}
    blind = ladder(Bench(runs, sizes=sizes), Budget(max_size=200), judged=False, fixed=(), level=1)
    best = blind.climb()
    assert best is not None
    assert best.candidate.scheme.fewest_bits == 8
    assert best.over, "it would rather not meet the budget"
    assert blind.trials[-1].candidate.scheme.fewest_bits == 4
    assert blind.trials[-1].outcome == "not tried"
    assert "validation data" in blind.trials[-1].why
    judged = ladder(Bench(runs, sizes=sizes), Budget(max_size=200), fixed=(), level=1).climb()
    assert judged is not None
    assert judged.candidate.scheme.fewest_bits == 4


def test_a_scheme_of_few_bits_that_was_asked_for_is_written() -> None:
    own = Candidate(name="w4", level=1, scheme=w4())
    climbed = ladder(Bench({"w4": exact}), Budget(), judged=False, fixed=(own,))
    assert climbed.climb() is climbed.trials[0]
