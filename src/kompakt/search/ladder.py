"""The ladder: candidates are tried cheapest first until the budget holds, the best so far always at hand.

Hopeless candidates are dropped by an anytime-valid bound after a few samples. The winner is not certified here: that is
done once, on data the ladder never saw.
"""

from __future__ import annotations

import time
from collections.abc import Iterable
from dataclasses import dataclass, field

import numpy as np

from kompakt.errors import DataError, KompaktError
from kompakt.measuring.accuracy import PairedEvaluation
from kompakt.measuring.certificate import Certificate
from kompakt.measuring.comparison import compare
from kompakt.measuring.data import Batch
from kompakt.measuring.latency import LatencyComparison, compare_latency
from kompakt.measuring.verdict import is_share
from kompakt.network.match import select
from kompakt.progress import note
from kompakt.search.budget import Budget
from kompakt.search.candidates import Candidate
from kompakt.search.diagnosis import diagnose_static
from kompakt.search.distance import distance
from kompakt.search.memory import Memory
from kompakt.search.rungs import Rungs
from kompakt.search.trial import Trial, prefer, summary, unsound
from kompakt.search.workbench import Build, Workbench

QUICK_SECONDS = 4.0
CLOSER = 0.8
"""Share of another candidate's output error below which one is clearly closer to the float model."""
NOT_THEIRS = ("K230", "K301")
"""Errors no other candidate would be spared: too few samples, weights that are no numbers."""


@dataclass(kw_only=True)
class Ladder:
    """Tries candidates for one network under a budget.

    Attributes:
        bench: Builds candidates.
        budget: What must hold.
        judge: Scores candidates against the float model on the selection data; None without data.
        example: One input batch for timing.
        rng: Source of randomness.
        time_it: Whether to measure latency.
        level: The highest level to climb to.
        keep_float: Layers left in float.
        fixed: Candidates given by the user instead of the ladder's own.
        memory: Trials finished by a run that was killed.
    """

    bench: Workbench
    budget: Budget
    judge: PairedEvaluation | None
    example: Batch
    rng: np.random.Generator
    time_it: bool = True
    level: int = 2
    keep_float: tuple[str, ...] = ()
    fixed: tuple[Candidate, ...] = ()
    memory: Memory | None = None
    trials: list[Trial] = field(default_factory=list)
    findings: list[str] = field(default_factory=list)

    def climb(self) -> Trial | None:
        """Try candidates until the budget holds; returns the best one, or None when nothing could be built.

        Raises:
            SchemeError: K320 when a layer to be left in float does not exist.
            DataError: Something is wrong with the data.
            MetricError: The metric cannot judge the float model.
        """
        # What is wrong with the call is no candidate's fault: it is found before the first is tried.
        for pattern in self.keep_float:
            select(self.bench.prepared, pattern)
        if self.judge is not None:
            _ = self.judge.baseline
        for candidate in self._candidates():
            trial = self._try(candidate)
            self.trials.append(trial)
            self._reconsider()
            note(f"{candidate.name}: {summary(trial, in_points=self._in_points)}")
            best = self.best()
            if best is not None:
                note(
                    f"{best.candidate.name}: {summary(best, in_points=self._in_points)}",
                    task="best so far",
                )
            if self._settles(trial) and self._sound(trial):
                break
        best = self._chosen()
        if best is not None and best.candidate.level == 1 and not self.fixed:
            self._explain_static()
        return best

    @property
    def _in_points(self) -> bool:
        return self.judge is not None and is_share(self.judge.metric.name)

    def certificate(self, trial: Trial) -> Certificate:
        """Whether a trial's file computes what was simulated, on the samples at hand; found once."""
        assert trial.build is not None
        samples = list(self.bench.samples) or [self.example]
        count = sum(batch.size for batch in samples)
        if trial.certificate is None or trial.certificate.samples != count:
            trial.certificate = self.bench.certificate(trial.build, samples)
        return trial.certificate

    def _sound(self, trial: Trial) -> bool:
        """Whether the file computes what was simulated; a trial whose file does not is over budget."""
        found = self.certificate(trial)
        if found.verdict == "failed" and trial.outcome != "parity failed":
            trial.outcome, trial.why = "parity failed", unsound(found)
            trial.over = [*trial.over, trial.why]
            note(f"{trial.candidate.name}: {trial.why}")
        return found.verdict != "failed"

    def _chosen(self) -> Trial | None:
        """The best trial whose file computes what was simulated; without one, the best of those that do not."""
        best = self.best()
        while best is not None and best.outcome != "parity failed" and not self._sound(best):
            best = self.best()
        return best

    def _explain_static(self) -> None:
        """Say what plain static INT8 costs and why, where it was possible and something else was chosen."""
        if self.level < 2 or not self.bench.has_data:
            return
        found = diagnose_static(self.bench, self.keep_float)
        if found is None:
            return
        if not any(trial.candidate.level == 2 for trial in self.trials):
            why = f"the budget held before; {found.summary}"
            self.trials.append(Trial(candidate=found.candidate, outcome="not tried", why=why))
        self.findings.extend(found.sentences)

    def best(self) -> Trial | None:
        """The best trial so far: within the budget the fastest, else the one that comes closest."""
        built = [t for t in self.trials if t.build is not None and t.outcome != "failed"]
        within = [t for t in built if not t.over and t.outcome != "dropped early"]
        if within:
            return prefer(within)
        return min(built, key=lambda t: distance(t, self.budget), default=None)

    def _candidates(self) -> Iterable[Candidate]:
        return self.fixed or Rungs(self)

    def _try(self, candidate: Candidate) -> Trial:
        known = None if self.memory is None else self.memory.recall(candidate)
        if known is not None:
            return known
        began = time.perf_counter()
        trial = Trial(candidate=candidate)
        try:
            trial.build = self.bench.build(candidate)
            if self.time_it:
                trial.latency = self._quick_latency(trial.build)
            trial.output_error = self._output_error(trial.build)
            self._judge(trial)
        except KompaktError as error:
            if self.fixed or isinstance(error, DataError) or error.code in NOT_THEIRS:
                raise
            trial.outcome, trial.why = "failed", f"{error.what}: {error.why}"
        trial.seconds = time.perf_counter() - began
        if self.memory is not None:
            self.memory.keep(trial)
        return trial

    def _quick_latency(self, build: Build) -> LatencyComparison:
        inputs = self.example.arrays()
        baseline = self.bench.float_build().runnable
        return compare_latency(
            lambda: baseline(inputs),
            lambda: build.runnable(inputs),
            rng=self.rng,
            guard=False,
            threads=self.bench.threads,
            max_seconds=QUICK_SECONDS,
            confidence=self.budget.confidence,
            task=f"timing {build.candidate.name}",
        )

    def _output_error(self, build: Build) -> float | None:
        """Relative error of the file's outputs on a few calibration samples, ‖file − float‖ / ‖float‖."""
        error = norm = 0.0
        baseline = self.bench.float_build().runnable
        for batch in self.bench.samples:
            inputs = batch.arrays()
            theirs, ours = baseline(inputs), build.runnable(inputs)
            for name, exact in theirs.items():
                error += float(np.square(ours[name].astype(np.float64) - exact).sum())
                norm += float(np.square(exact.astype(np.float64)).sum())
        return (error / norm) ** 0.5 if norm > 0 else None

    def _judge(self, trial: Trial) -> None:
        build, budget = trial.build, self.budget
        assert build is not None
        if self.judge is not None:
            # A good candidate dropped early is lost for good: that is made rarer than a wrong verdict.
            alpha = (1 - budget.confidence) / 5
            evaluation = self.judge.run(
                build.runnable, name=build.candidate.name, margin=budget.max_drop, alpha=alpha
            )
            trial.samples = evaluation.scores.n
            if not evaluation.complete:
                trial.outcome, trial.least_drop = "dropped early", evaluation.lower
                trial.why = f"after {trial.samples} samples its drop was proven to exceed {budget.max_drop:g}"
                return
            trial.metric = evaluation.scores.value()
            trial.comparison = compare(
                self.judge.metric,
                self.judge.baseline,
                evaluation.scores,
                budget.max_drop,
                budget.confidence,
            )
        trial.over = self._violations(trial, trial.comparison.drop if trial.comparison else None)
        if trial.over:
            trial.outcome, trial.why = "over budget", "; ".join(trial.over)

    def _violations(self, trial: Trial, drop: float | None) -> list[str]:
        assert trial.build is not None
        return self.budget.violations(
            drop=drop,
            size_bytes=trial.build.written.size_bytes,
            speedup=trial.latency.ratio if trial.latency else None,
            latency_ms=trial.latency.candidate_ms if trial.latency else None,
        )

    def _reconsider(self) -> None:
        """Let in what is closer to the float model than something whose drop holds.

        On few samples the drop of a candidate may hold by luck, and that of a better one may not. How far outputs are
        from the float model's is told far more sharply. A drop that is proven to be too large is never let in.
        """
        held = [t for t in self.trials if t.outcome == "kept" and t.comparison and t.build]
        for trial in self.trials:
            found, error = trial.comparison, trial.output_error
            if trial.outcome != "over budget" or found is None or error is None:
                continue
            worse = [t for t in held if t.output_error and error < CLOSER * t.output_error]
            drop_alone = not self._violations(trial, self.budget.max_drop)
            if worse and drop_alone and found.verdict != "violated":
                trial.over, trial.outcome = [], "kept"
                trial.why = (
                    f"its drop is not told apart from the limit on {trial.samples} samples, and its "
                    f"outputs are closer to the float model's than those of {worse[0].candidate.name}"
                )

    def _settles(self, trial: Trial) -> bool:
        """Whether there is no reason to climb further: all that was asked for is there."""
        return (
            self.budget.demands_speed_or_size
            and trial.build is not None
            and trial.outcome == "kept"
            and not trial.over
            and not self.budget.undecided(trial.latency)
        )
