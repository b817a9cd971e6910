"""A candidate that is closer to the float model than one whose drop holds is let in."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from kompakt.search.budget import Budget
from kompakt.search.trial import Trial

from .test_ladder import Bench, candidates, ladder


@pytest.mark.parametrize(
    ("error", "verdict", "size", "outcome"),
    [
        (0.06, "undecided", 1000, "kept"),
        (0.06, "violated", 1000, "over budget"),
        (0.16, "undecided", 1000, "over budget"),
        (0.06, "undecided", 3000, "over budget"),
    ],
)
def test_what_is_closer_to_the_float_model_is_let_in_unless_its_drop_is_proven(
    error: float, verdict: str, size: int, outcome: str
) -> None:
    climbed = ladder(Bench({}), Budget(max_drop=0.005, max_size=2000))
    lucky, better = (Trial(candidate=c) for c in candidates("lucky", "better"))
    for trial, drop, found, bytes_ in ((lucky, 0.0, 0.17, 1000), (better, 0.01, error, size)):
        trial.build = SimpleNamespace(written=SimpleNamespace(size_bytes=bytes_))  # type: ignore[assignment]
        trial.comparison = SimpleNamespace(drop=drop, verdict=verdict)  # type: ignore[assignment]
        trial.output_error, trial.samples = found, 300
        trial.over = climbed._violations(trial, drop)
        trial.outcome = "over budget" if trial.over else "kept"
    climbed.trials = [lucky, better]
    climbed._reconsider()
    assert better.outcome == outcome
    assert climbed.best() is (better if outcome == "kept" else lucky)
    assert ("not told apart" in better.why) == (outcome == "kept")
