"""The rungs of the ladder: what to try next, cheapest first, given what was found so far."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from kompakt.errors import SchemeError
from kompakt.network.layers import layers
from kompakt.quantize.layers import Treated
from kompakt.schemes import float32
from kompakt.search.candidates import Candidate, static, with_bias_correction, without_data
from kompakt.search.hybrids import hybrids
from kompakt.search.ranking import RANKING_SAMPLES, rank_calibrators
from kompakt.search.slowdown import sentence, slower_layers
from kompakt.search.trial import Trial

if TYPE_CHECKING:
    from kompakt.search.ladder import Ladder

LEAST_COVERED = 0.05
"""Share of the multiply-adds a dynamic scheme must treat to be worth trying."""
UNJUDGED_BITS = 8
"""Fewest bits of weights a scheme may have to be chosen where no validation data can judge it."""


@dataclass(frozen=True)
class Rungs:
    """The candidates of a ladder; each is asked for once the ones before have been tried.

    Attributes:
        ladder: Holds what was found so far, and takes what is not worth trying.
    """

    ladder: Ladder

    def __iter__(self) -> Iterator[Candidate]:
        if self.ladder.level == 0:
            yield Candidate(name="float", level=0, scheme=float32(), why="nothing is compressed")
        if self.ladder.level >= 1:
            yield from self._level_one()
        if self.ladder.level >= 2 and self.ladder.bench.has_data:
            yield from self._level_two()

    def _level_one(self) -> Iterator[Candidate]:
        for candidate in without_data(self.ladder.keep_float):
            covered = self._dynamic_share() if candidate.name == "dynamic" else 1.0
            why = ""
            if covered < LEAST_COVERED:
                why = f"it would treat only {covered:.1%} of the multiply-adds"
            elif self.ladder.judge is None and candidate.scheme.fewest_bits < UNJUDGED_BITS:
                why = (
                    "without validation data nothing tells what it costs; give validation data, or "
                    "ask for its scheme by name"
                )
            if why:
                self.ladder.trials.append(Trial(candidate=candidate, outcome="not tried", why=why))
            else:
                yield candidate

    def _level_two(self) -> Iterator[Candidate]:
        try:
            ranked = rank_calibrators(self.ladder.bench, self.ladder.keep_float)
        except SchemeError as refused:
            if refused.code != "K345":
                raise
            # No layer has a static kernel: what needs no data may still help.
            nothing = Trial(candidate=static("minmax", self.ladder.keep_float), outcome="not tried")
            nothing.why = refused.why
            self.ladder.trials.append(nothing)
            return
        errors = ", ".join(f"{c.calibrator} {found:.3g}" for c, found in ranked)
        self.ladder.findings.append(
            "simulated output error of static INT8 with corrected biases, by calibrator, on "
            f"{RANKING_SAMPLES} calibration samples: {errors}"
        )
        plain, error = ranked[0]
        yield plain
        yield with_bias_correction(plain)
        yield from self._without_slow_layers(plain)
        if self._dynamic_share() < LEAST_COVERED:
            return
        for candidate, improved in hybrids(self.ladder.bench, plain, error):
            self.ladder.findings.append(
                f"{candidate.name}: the simulated output error falls from {error:.3g} to {improved:.3g}"
            )
            yield candidate
            yield with_bias_correction(candidate)

    def _without_slow_layers(self, plain: Candidate) -> Iterator[Candidate]:
        """Where static INT8 buys no speed: the same, with the layers that lost it left in float."""
        trial = next((t for t in self.ladder.trials if t.candidate is plain), None)
        if trial is None or trial.build is None or trial.latency is None or trial.latency.ratio > 1:
            return
        rows = slower_layers(self.ladder.bench, trial.build, self.ladder.example)
        if not rows:
            return
        self.ladder.findings.append(f"{plain.name}, {sentence(rows)}")
        treated = [m for m in trial.build.placed.modules() if isinstance(m, Treated)]
        if len(rows) == len(treated):
            return  # every layer is faster in float
        left = (*self.ladder.keep_float, *(row.site for row in rows))
        candidate = static(str(plain.calibrator), left)
        yield replace(
            candidate,
            name=f"{plain.name} without slow layers",
            why=f"{len(rows)} layers are faster in float",
            improves=plain.name,
        )

    def _dynamic_share(self) -> float:
        rows = layers(self.ladder.bench.prepared)
        total = sum(row.macs or 0 for row in rows)
        treated = sum(
            row.macs or 0 for row in rows if row.kind in self.ladder.bench.rules.dynamic_layers
        )
        return treated / max(total, 1)
