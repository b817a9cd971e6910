"""The rungs of the ladder: what to try next, cheapest first, given what was found so far."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from kompakt.errors import SchemeError
from kompakt.network.layers import layers
from kompakt.quantize.layers import Treated
from kompakt.schemes import float32, w4, w4a8
from kompakt.search.allocate import Allocator, Objective, accurate
from kompakt.search.candidates import (
    Candidate,
    improved,
    static,
    with_bias_correction,
    without_data,
)
from kompakt.search.distance import distance
from kompakt.search.enough import enough_data
from kompakt.search.hybrids import dynamic_where_harmless, hybrids
from kompakt.search.ranking import RANKING_SAMPLES, rank_calibrators
from kompakt.search.slowdown import sentence, slower_layers
from kompakt.search.trial import ALIKE, Trial

if TYPE_CHECKING:
    from kompakt.search.ladder import Ladder

LEAST_COVERED = 0.05
"""Share of the multiply-adds a dynamic scheme must treat to be worth trying."""
FEW_SAMPLES = 32
"""Up to so many calibration samples are few: what more would bring is said."""
UNJUDGED_BITS = 8
"""Fewest bits of weights a scheme may have to be chosen where no validation data can judge it."""


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """Methods that belong together.

    Attributes:
        methods: Their names, in order.
        kinds: Of these layers, one kind at least must do a good part of the work.
        why: Why they may help.
        calibrator: The calibrator they were found to go with, where it is not the best one without them.
        then_dynamic: Whether layers that do not suffer from dynamic ranges are tried with them, for speed.
    """

    methods: tuple[str, ...]
    kinds: frozenset[str]
    why: str
    calibrator: str | None = None
    then_dynamic: bool = False


CNN = frozenset(("conv",))
TRANSFORMER = frozenset(("linear",))
RECIPES = (
    Recipe(
        methods=("refine_ranges", "bias_correction"),
        kinds=CNN,
        why="each range by what the layers that read it make of it",
    ),
    Recipe(
        methods=("gptq", "bias_correction"),
        kinds=CNN,
        why="the weights still to be rounded make up for each rounding",
    ),
    Recipe(
        methods=("equalize", "gptq", "bias_correction"),
        kinds=CNN,
        why="channels of very different size share no scale any more",
        calibrator="minmax",
    ),
    Recipe(
        methods=("split_outliers",),
        kinds=TRANSFORMER,
        why="the few channels that no range serves are split",
        calibrator="minmax",
    ),
    Recipe(
        methods=("split_outliers", "smooth"),
        kinds=TRANSFORMER,
        why="and the other outliers move from the activations into the weights",
        calibrator="minmax",
        then_dynamic=True,
    ),
    Recipe(
        methods=("adaround", "bias_correction"),
        kinds=CNN | TRANSFORMER,
        why="each weight is rounded the way that costs its layer least",
    ),
    Recipe(
        methods=("adaround", "reconstruction"),
        kinds=CNN | TRANSFORMER,
        why="weights, scales and biases of all blocks are trained together",
    ),
)
"""What is tried where the drop does not hold, cheapest first; none of it costs speed."""


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
        yield self._corrected(plain)
        yield from self._without_slow_layers(plain)
        if self._dynamic_share() >= LEAST_COVERED:
            yield from self._hybrids(plain, error)
        yield from self._recovered(plain)
        yield from self._smaller(plain)
        yield from self._mixed()

    def _corrected(self, plain: Candidate) -> Candidate:
        """Corrected biases: with few samples, first by what batch norms knew of far more of them."""
        bench = self.ladder.bench
        seen = 0 if bench.calibration is None else bench.calibration.samples
        if 0 < seen <= FEW_SAMPLES:
            self.ladder.findings.extend(enough_data(bench))
        if seen == 1:
            return improved(plain, "analytic_bias_correction", why="one sample corrects no mean")
        if 1 < seen < FEW_SAMPLES:
            methods = ("analytic_bias_correction", "bias_correction")
            return improved(plain, *methods, why="batch norms knew more samples than there are")
        return with_bias_correction(plain)

    def _hybrids(self, plain: Candidate, error: float) -> Iterator[Candidate]:
        """Where fixed ranges serve some linear layers badly: dynamic ranges for those."""
        for candidate, now in hybrids(self.ladder.bench, plain, error):
            self.ladder.findings.append(
                f"{candidate.name}: the simulated output error falls from {error:.3g} to {now:.3g}"
            )
            yield candidate
            yield with_bias_correction(candidate)

    def _recovered(self, plain: Candidate) -> Iterator[Candidate]:
        """Methods that cost no speed, cheapest first, until the drop holds."""
        bench, kinds = self.ladder.bench, self._working_kinds()
        for recipe in RECIPES:
            if not self._lacks_accuracy():
                return
            if not recipe.kinds & kinds:
                continue
            own = recipe.calibrator
            base = plain if own is None else static(own, self.ladder.keep_float)
            candidate = improved(base, *recipe.methods, why=recipe.why)
            candidate = replace(candidate, improves=plain.name)
            yield candidate
            faster = dynamic_where_harmless(bench, candidate) if recipe.then_dynamic else None
            if faster is not None:
                yield faster

    def _smaller(self, plain: Candidate) -> Iterator[Candidate]:
        """Weights in 4 bits, rounded with data, where all that is accurate is larger than the budget allows."""
        if not self._too_large():
            return
        left = self.ladder.keep_float
        groups = Candidate(
            name="weights in 4 bits with zero points",
            level=2,
            scheme=w4(symmetric=False, keep_float=left),
        )
        if self._dynamic_share() >= LEAST_COVERED:
            yield improved(
                groups, "gptq", why="the columns still to come make up for each rounding"
            )
        narrow = replace(plain, name="static, weights in 4 bits", scheme=w4a8(keep_float=left))
        for methods in (("gptq", "bias_correction"), ("adaround", "bias_correction")):
            if self._too_large():
                yield improved(narrow, *methods, why="half the size, in integer kernels")

    def _mixed(self) -> Iterator[Candidate]:
        """Other formats for some layers: for accuracy, or for size where everything else is too large."""
        ladder = self.ladder
        objective = self._wanted()
        built = [t for t in ladder.trials if t.candidate.level == 2 and t.build is not None]
        if objective is None or not built:
            return
        base = min(built, key=lambda t: distance(t, ladder.budget))
        allocator = Allocator(
            bench=ladder.bench,
            base=base,
            budget=ladder.budget,
            example=ladder.example,
            metric=None if ladder.judge is None else ladder.judge.metric.name,
            objective=objective,
            known=tuple(t for t in built if t is not base),
        )
        while (candidate := allocator.propose()) is not None:
            yield candidate
            allocator.observe(next(t for t in ladder.trials if t.candidate is candidate))
        ladder.findings.extend(allocator.findings)

    def _wanted(self) -> Objective | None:
        """What mixed precision would be for; None where nothing is missing."""
        if self._lacks_accuracy():
            return "latency" if self.ladder.time_it else "size"
        return "size" if self._too_large() else None

    def _too_large(self) -> bool:
        """Whether some file's drop holds, but none of those is small enough."""
        limit = self.ladder.budget.max_size
        sizes = [t.build.written.size_bytes for t in self._accurate() if t.build is not None]
        return limit is not None and bool(sizes) and min(sizes) > limit

    def _accurate(self) -> list[Trial]:
        return [t for t in self.ladder.trials if accurate(t, self.ladder.budget)]

    def _lacks_accuracy(self) -> bool:
        """Whether some static file is faster (or, untimed, smaller) than all those whose drop holds."""
        held = [t for t in self._accurate() if t.candidate.level]
        static_ones = [t for t in self.ladder.trials if t.candidate.level == 2 and t.build]
        if not self.ladder.time_it:
            return not any(t.candidate.level == 2 for t in held)
        fastest = max((t.latency.ratio for t in static_ones if t.latency), default=0.0)
        best = max((t.latency.ratio for t in held if t.latency), default=1.0)
        return fastest > best * (1 + ALIKE)

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

    def _working_kinds(self) -> set[str]:
        """Kinds of layers that do a good part of the multiply-adds."""
        rows = layers(self.ladder.bench.prepared)
        total = max(sum(row.macs or 0 for row in rows), 1)
        kinds = {row.kind for row in rows}
        work = {kind: sum(row.macs or 0 for row in rows if row.kind == kind) for kind in kinds}
        return {kind for kind, macs in work.items() if macs >= LEAST_COVERED * total}

    def _dynamic_share(self) -> float:
        rows = layers(self.ladder.bench.prepared)
        total = sum(row.macs or 0 for row in rows)
        treated = sum(
            row.macs or 0 for row in rows if row.kind in self.ladder.bench.rules.dynamic_layers
        )
        return treated / max(total, 1)
