"""Several runtimes side by side: the fastest whose file holds the budget wins.

The first runtime climbs the whole ladder; every other writes what was chosen there (and static INT8, where that was
something else), is checked and judged like any candidate, and all are timed in turn, in one process. The choice of
runtime is often worth more than any algorithm.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from kompakt.errors import DataError, KompaktError
from kompakt.measuring.latency import LatencySummary, time_in_turn
from kompakt.progress import note
from kompakt.search.candidates import Candidate, static
from kompakt.search.distance import Distance, distance
from kompakt.search.ladder import Ladder
from kompakt.search.trial import Trial
from kompakt.targets import TARGETS

AUTO = "auto"
LEAD = "onnxruntime"
"""The runtime that climbs the ladder: its files are written in milliseconds."""

Make = Callable[[str, tuple[Candidate, ...]], Ladder]
"""Makes the ladder of a runtime, with these candidates instead of its own."""


@dataclass(kw_only=True)
class Contender:
    """One runtime and how it did.

    Attributes:
        target: The runtime.
        ladder: What it tried; None when it could not take part.
        trial: The best of it.
        latency: Times of the file, measured in turn with all others.
        baseline: The same for the float file of this runtime.
        outcome: ``chosen``, ``slower``, ``over budget``, ``parity failed`` or ``failed``.
        why: In words.
    """

    target: str
    ladder: Ladder | None = None
    trial: Trial | None = None
    latency: LatencySummary | None = None
    baseline: LatencySummary | None = None
    outcome: str = "failed"
    why: str = ""

    @property
    def holds(self) -> bool:
        """Whether its file may be chosen."""
        trial = self.trial
        return trial is not None and trial.build is not None and not trial.over

    def to_json(self) -> dict[str, Any]:
        """A row of the record's ``runtimes``."""
        trial = self.trial
        build = trial.build if trial else None
        comparison = trial.comparison if trial else None
        return {
            "target": self.target,
            "version": TARGETS[self.target].version(),
            "scheme": trial.candidate.scheme.name if trial and build else None,
            "latency_ms": self.latency.median_ms if self.latency else None,
            "latency_interval_ms": list(self.latency.interval_ms) if self.latency else None,
            "float_ms": self.baseline.median_ms if self.baseline else None,
            "drop": comparison.drop if comparison else None,
            "size_bytes": build.written.size_bytes if build else None,
            "parity": trial.certificate.verdict if trial and trial.certificate else None,
            "outcome": self.outcome,
            "why": self.why,
        }


def candidates_for_auto() -> list[str]:
    """The runtimes that are installed and can run what they write, the leading one first."""
    installed = [
        name
        for name, target in TARGETS.items()
        if target.automatic and target.version() is not None
    ]
    return sorted(installed, key=lambda name: name != LEAD)


def side_by_side(
    names: Sequence[str], make: Make, *, rng: np.random.Generator, threads: int
) -> list[Contender]:
    """Build, judge and time the best of each runtime; the winner's outcome is ``chosen``.

    Args:
        names: Runtimes, the leading one first.
        make: Makes a runtime's ladder.
        rng: Decides the order of timings.
        threads: Threads the runtimes use.

    Raises:
        KompaktError: What is wrong with the call or the data, as the first runtime finds it.
    """
    lead = Contender(target=names[0], ladder=make(names[0], ()))
    assert lead.ladder is not None
    lead.trial = lead.ladder.climb()
    contenders = [lead, *(_follow(name, lead, make) for name in names[1:])]
    _time(contenders, rng, threads)
    _choose(contenders)
    return contenders


def _follow(name: str, lead: Contender, make: Make) -> Contender:
    """Another runtime, with what the leading one found."""
    contender = Contender(target=name)
    for candidate in _candidates(lead):
        try:
            ladder = make(name, (candidate,))
            trial = ladder.climb()
        except DataError:
            raise
        except KompaktError as error:
            contender.why = f"{error.what}: {error.why}"
            continue
        if trial is not None and _rank(trial) < _rank(contender.trial):
            contender.ladder, contender.trial = ladder, trial
    note(f"{name}: {contender.why or 'built'}", task="runtimes")
    return contender


def _rank(trial: Trial | None) -> tuple[int, float]:
    """Smaller is better: trials that hold the budget by their time, then those that do not."""
    if trial is None or trial.build is None:
        return 2, 0.0
    return int(bool(trial.over)), trial.latency.candidate_ms if trial.latency else 0.0


def _candidates(lead: Contender) -> list[Candidate]:
    chosen = lead.trial.candidate if lead.trial is not None else static("mse")
    tried = [chosen]
    ladder = lead.ladder
    assert ladder is not None
    if chosen.level != 2 and ladder.bench.has_data and not ladder.fixed:
        tried.append(static("mse", ladder.keep_float))
    return tried


def _time(contenders: Sequence[Contender], rng: np.random.Generator, threads: int) -> None:
    """Time all files in turn."""
    calls: dict[str, Callable[[], Any]] = {}
    for contender in contenders:
        ladder, trial = contender.ladder, contender.trial
        if ladder is None or trial is None or trial.build is None:
            continue
        inputs = ladder.example.arrays()
        runnable, float_file = trial.build.runnable, ladder.bench.float_build().runnable
        calls[contender.target] = partial(runnable, inputs)
        calls[f"{contender.target} float"] = partial(float_file, inputs)
    times = time_in_turn(calls, rng=rng, threads=threads, task="timing the runtimes")
    for contender in contenders:
        contender.latency = times.get(contender.target)
        contender.baseline = times.get(f"{contender.target} float")


def _choose(contenders: Sequence[Contender]) -> None:
    """Mark the winner and say of every other why it is none."""
    ranked = sorted(
        (c for c in contenders if c.holds and c.latency is not None),
        key=lambda c: c.latency.median_ms if c.latency else np.inf,
    )
    for contender in contenders:
        trial = contender.trial
        if trial is None or trial.build is None:
            contender.outcome = "failed"
            contender.why = contender.why or "nothing could be built"
        elif trial.over:
            failed = trial.outcome == "parity failed"
            contender.outcome = "parity failed" if failed else "over budget"
            contender.why = "; ".join(trial.over)
        elif ranked and contender is not ranked[0]:
            first = ranked[0]
            assert first.latency is not None
            assert contender.latency is not None
            contender.outcome = "slower"
            ratio = contender.latency.median_ms / first.latency.median_ms
            contender.why = f"takes {ratio:.2f} times as long as {first.target}"
    if ranked:
        ranked[0].outcome, ranked[0].why = "chosen", "the fastest that holds the budget"
        return
    built = [
        c for c in contenders if c.ladder is not None and c.trial is not None and c.trial.build
    ]
    if built:
        closest = min(built, key=_distance)
        why = f"none holds the budget; this comes closest: {closest.why}"
        closest.outcome, closest.why = "chosen", why


def _distance(contender: Contender) -> Distance:
    """How far a contender is from the budget."""
    assert contender.trial is not None
    assert contender.ladder is not None
    return distance(contender.trial, contender.ladder.budget)


__all__ = ["AUTO", "Contender", "candidates_for_auto", "side_by_side"]
