"""A trial: one candidate and all that was found out about it, and which of several is best."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from kompakt.measuring.certificate import Certificate
from kompakt.measuring.comparison import Comparison
from kompakt.measuring.latency import LatencyComparison
from kompakt.measuring.verdict import amount
from kompakt.report.wording import NBSP, size
from kompakt.search.candidates import Candidate
from kompakt.search.workbench import Build

ALIKE = 0.07
"""Speeds and sizes this close (a share) count as equal: quick timings tell no more apart."""


@dataclass(kw_only=True)
class Trial:
    """One candidate and what was found out about it; ``outcome`` says how it ended.

    Attributes:
        least_drop: What the drop is at least, where the candidate was dropped early.
        certificate: Whether its file computes what was simulated; made for those that may be chosen.
    """

    candidate: Candidate
    build: Build | None = None
    comparison: Comparison | None = None
    metric: float | None = None
    latency: LatencyComparison | None = None
    output_error: float | None = None
    least_drop: float | None = None
    certificate: Certificate | None = None
    samples: int = 0
    seconds: float = 0.0
    outcome: str = "kept"
    why: str = ""
    over: list[str] = field(default_factory=list)

    def to_json(self) -> dict[str, Any]:
        """A row of the record's ``trials``."""
        comparison, build = self.comparison, self.build
        return {
            "name": self.candidate.name,
            "level": self.candidate.level,
            "scheme": self.candidate.scheme.name,
            "calibrator": self.candidate.calibrator_name,
            "methods": list(self.candidate.methods),
            "improves": self.candidate.improves,
            "metric": self.metric,
            "drop": comparison.drop if comparison else None,
            "drop_interval": list(comparison.interval) if comparison else None,
            "speedup": self.latency.ratio if self.latency else None,
            "output_error": self.output_error,
            "size_bytes": build.written.size_bytes if build else None,
            "samples": self.samples,
            "seconds": self.seconds,
            "outcome": self.outcome,
            "why": self.why,
        }


def prefer(trials: Sequence[Trial]) -> Trial:
    """The fastest; of those as fast (within :data:`ALIKE`) the smallest; of those as small the most faithful."""
    alike = list(trials)
    if all(t.latency for t in alike):
        fastest = max(t.latency.ratio for t in alike if t.latency)
        alike = [t for t in alike if t.latency and t.latency.ratio >= fastest * (1 - ALIKE)]
    smallest = min(t.build.written.size_bytes for t in alike if t.build)
    alike = [t for t in alike if t.build and t.build.written.size_bytes <= smallest * (1 + ALIKE)]
    return min(alike, key=_unfaithfulness)


def _unfaithfulness(trial: Trial) -> float:
    error = trial.output_error
    return error if error is not None and math.isfinite(error) else math.inf


def unsound(found: Certificate) -> str:
    """That a file does not compute what was simulated, as a reason."""
    return f"its file does not compute what was simulated, first at {found.first_difference}"


def summary(trial: Trial, *, in_points: bool = False) -> str:
    """What a trial found, in a line for the console."""
    if trial.outcome in ("failed", "not tried", "dropped early"):
        return f"{trial.outcome}: {trial.why}"
    parts = []
    if trial.comparison:
        parts.append(f"drop {amount(trial.comparison.drop, in_points)}")
    if trial.latency:
        parts.append(f"{trial.latency.ratio:.2f}x")
    if trial.output_error is not None:
        parts.append(f"output error {trial.output_error:.3g}")
    if trial.build:
        parts.append(size(trial.build.written.size_bytes).replace(NBSP, " "))
    return ", ".join([*parts, *trial.over])


__all__ = ["ALIKE", "Trial", "prefer", "summary", "unsound"]
