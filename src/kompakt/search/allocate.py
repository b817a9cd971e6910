"""Mixed precision: a format for every layer, so that the model is as fast (or small) as the accuracy budget allows.

An :class:`Allocator` proposes a candidate, is told what came of its file, and proposes the next:

1. The loss of every layer in every choice is foretold by one pass (:mod:`kompakt.search.sensitivity`), what each costs
   is measured on the target (:mod:`kompakt.search.costs`), and an integer program picks the cheapest plan whose
   predicted loss stays under a limit (:mod:`kompakt.search.program`).
2. The file's own loss, on a few calibration samples without labels, corrects the prediction, for each choice by the
   share it has in it; its latency corrects what conversions cost.
3. The ladder's verdict on the file moves the limit: up where the budget holds, down where it does not, halving in
   logarithms what lies between the two.

What was found so far is always at hand, for every proposal is tried like any other candidate.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from glob import escape
from typing import Literal

import torch

from kompakt.errors import KompaktError
from kompakt.measuring.data import Batch
from kompakt.quantize.decide import decide
from kompakt.schemes import FLOAT, Scheme, Treatment
from kompakt.search.budget import Budget
from kompakt.search.candidates import Candidate
from kompakt.search.costs import Costs, latency_costs, size_costs
from kompakt.search.divergence import divergence
from kompakt.search.program import Plan, cheapest
from kompakt.search.sensitivity import (
    SENSITIVITY_SAMPLES,
    Sensitivity,
    Terms,
    find_sensitivity,
)
from kompakt.search.trial import ALIKE, Trial
from kompakt.search.workbench import Build, Workbench

Objective = Literal["latency", "size"]
FOR: dict[Objective, tuple[str, ...]] = {
    "latency": ("int8", "dynamic", "int16"),
    "size": ("int4", "int8"),
}
"""The choices that can serve each end. Weights stored in few bits that compute in float are as small as integer
kernels and slower, so they are no choice unless asked for."""
PROPOSALS = 6
CLOSE = 1.1
"""A limit that holds and one that fails need not be brought closer together than this ratio."""
DOWN, UP = 0.4, 2.5
"""How far the limit moves while only one side is known."""
MOST_REPEATS = 12
SATURATED = 0.5
"""A loss from which on it no longer grows as predicted: such a file corrects nothing."""


@dataclass
class Bracket:
    """The losses between which the largest lies that the budget allows.

    Attributes:
        low: The budget holds here, or there is nothing better below.
        high: The budget does not hold here.
        guess: Where to look first, as a share of ``high``.
    """

    low: float | None = None
    high: float | None = None
    guess: float = DOWN

    def limit(self) -> float | None:
        """Where to look next; None when it is known well enough."""
        if self.low is None:
            return None if self.high is None else self.high * self.guess
        if self.high is None:
            return self.low * UP
        return math.sqrt(self.low * self.high) if self.high > self.low * CLOSE else None

    def holds(self, loss: float) -> None:
        """Nothing is to be found below this loss."""
        self.low = max(self.low or 0.0, loss)
        if self.high is not None and self.high <= loss:
            self.high = None  # more is allowed than was thought

    def fails(self, loss: float) -> None:
        """A plan of this loss does not hold the budget."""
        self.high, self.guess = min(self.high or math.inf, loss), DOWN
        if self.low is not None and self.low >= self.high:
            self.low = self.high * DOWN


@dataclass(kw_only=True)
class Allocator:
    """Proposes candidates of mixed precision.

    Attributes:
        bench: Builds candidates and has the calibration data.
        base: A trial of a static candidate, whose scheme, calibrator and methods the proposals share.
        budget: What must hold.
        example: What files are timed on.
        metric: What the network is judged by.
        objective: What is minimised: ``latency``, or ``size`` where nothing is timed.
        choices: Names of :data:`kompakt.search.sensitivity.CHOICES`; by default those that serve the objective.
        proposals: At most so many.
        known: Other trials, such as that of plain 8-bit weights: what they lost, and whether they held, is known.
        findings: What was found out, in sentences.
    """

    bench: Workbench
    base: Trial
    budget: Budget
    example: Batch
    metric: str | None = None
    objective: Objective = "latency"
    choices: tuple[str, ...] = ()
    proposals: int = PROPOSALS
    known: tuple[Trial, ...] = ()
    findings: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._ready = False
        self._bracket = Bracket()
        self._tried: dict[tuple[str, ...], bool] = {}
        self._best, self._repeats = math.inf, MOST_REPEATS

    def propose(self) -> Candidate | None:
        """The next candidate; None when there is none that is likely to be better than what is known."""
        if not self._ready:
            try:
                self._prepare()
            except KompaktError as error:
                self.findings.append(f"no mixed precision: {error.what}: {error.why}")
                self.proposals = 0
            self._ready = True
        while self.proposals > 0:
            limit = self._bracket.limit()
            plan = None if limit is None else self._cheapest(limit)
            if plan is None or limit is None or self._repeats == 0:
                break
            known = self._tried.get(tuple(plan.values()))
            if known is None and not self._hopeless(plan):
                self.proposals -= 1
                self._plan = plan
                return self._candidate(plan)
            self._repeats -= 1
            if known is False:
                self._bracket.fails(limit)
            elif plan == self._cheapest(math.inf):
                break
            else:
                # Known to hold, or no better than what holds: only at a higher loss there may be something.
                self._bracket.holds(limit)
        return None

    def observe(self, trial: Trial) -> None:
        """Learn from the trial of what was proposed last."""
        plan, held = self._plan, accurate(trial, self.budget)
        self._tried[tuple(plan.values())] = held
        if trial.build is None:
            self._bracket.fails(self._predicted(plan))
            return
        found = self._measured(trial.build)
        self._refit(plan, found)
        self._judged(found, held=held)
        cost = self._cost(trial)
        if cost is not None:
            if self.objective == "latency":
                self._costs.observe(plan, self._on_codes, cost)
            if held:
                self._best = min(self._best, cost)
        counts = ", ".join(f"{n} {name}" for name, n in Counter(plan.values()).most_common())
        verdict = "holds the budget" if held else "does not hold the budget"
        self.findings.append(
            f"{trial.candidate.name} ({counts}): loss {found:.3g} on the calibration samples; {verdict}"
        )

    # --- what is known --------------------------------------------------------------------------

    def _prepare(self) -> None:
        bench, base = self.bench, self.base
        assert base.build is not None
        names = self.choices or FOR[self.objective]
        calibrator = base.candidate.calibrator or "mse"
        found = find_sensitivity(bench, names, calibrator=calibrator, metric=self.metric)
        self._sensitivity = _of_layers(found, _treatments(bench, base.candidate.scheme))
        self._terms = self._sensitivity.terms()
        self._on_codes = frozenset(n for n, t in found.choices.items() if t.mode == "static")
        plan = self._plan_of(base.candidate.scheme)
        self._costs = self._find_costs(plan)
        self._scale = dict.fromkeys(found.choices, 1.0)
        self._plan = plan
        self._first(base, plan)
        for trial in self.known:
            if trial.build is not None and trial is not base:
                self._remember(trial)

    def _remember(self, trial: Trial) -> None:
        """What another trial tells."""
        assert trial.build is not None
        held, plan = accurate(trial, self.budget), self._plan_of(trial.candidate.scheme)
        if trial.candidate.scheme.default.mode == "static":
            if trial.candidate.methods == self.base.candidate.methods:
                self._tried[tuple(plan.values())] = held
            self._judged(self._measured(trial.build), held=held)
        cost = self._cost(trial)
        if held and cost is not None:
            self._best = min(self._best, cost)

    def _judged(self, loss: float, *, held: bool) -> None:
        """A file of this loss holds the budget, or does not."""
        if held:
            self._bracket.holds(loss)
        else:
            self._bracket.fails(min(loss, SATURATED))

    def _first(self, base: Trial, plan: Plan) -> None:
        """What the base tells."""
        assert base.build is not None
        held, found = accurate(base, self.budget), self._measured(base.build)
        self._tried[tuple(plan.values())] = held
        expected = self._predicted(plan)
        if expected > 0 and 0 < found < SATURATED:
            # What the base's methods win back, they are likely to win back everywhere.
            self._scale = dict.fromkeys(self._scale, found / expected)
        if held:
            # At the same loss something cheaper is looked for first.
            self._bracket.holds(found / UP)
        else:
            self._judged(found, held=False)
        cost = self._cost(base)
        if cost is not None and held:
            self._best = cost
        drop = base.comparison.drop if base.comparison else base.least_drop
        if not held and drop and self.budget.max_drop:
            # Where the loss is small the metric falls about as it grows.
            self._bracket.guess = min(0.7, max(0.02, self.budget.max_drop / drop))

    def _find_costs(self, plan: Plan) -> Costs:
        sensitivity, build = self._sensitivity, self.base.build
        assert build is not None
        if self.objective == "size":
            costs = size_costs(self.bench.prepared, sensitivity.layers, sensitivity.choices)
            costs.constant = build.written.size_bytes - costs.of(plan, self._on_codes)
            return costs
        choice = Counter(name for name in plan.values() if name != "float").most_common(1)[0][0]
        with self.bench.clock.stage("costs"):
            return latency_costs(
                self.bench, self.example, sensitivity.layers, sensitivity.choices, build, choice
            )

    def _measured(self, build: Build) -> float:
        """The loss of a file on the samples the prediction came from."""
        baseline, rows = self.bench.float_build().runnable, []
        for batch in self.bench.drawn(SENSITIVITY_SAMPLES):
            inputs = batch.arrays()
            theirs, ours = baseline(inputs), build.runnable(inputs)
            pairs = [(torch.from_numpy(theirs[n]), torch.from_numpy(ours[n])) for n in theirs]
            rows.append(
                divergence([a for a, _ in pairs], [b for _, b in pairs], self._sensitivity.loss)
            )
        return float(torch.cat(rows).mean())

    def _cost(self, trial: Trial) -> float | None:
        if self.objective == "size":
            return float(trial.build.written.size_bytes) if trial.build else None
        return trial.latency.candidate_ms if trial.latency else None

    # --- the prediction -------------------------------------------------------------------------

    def _scaled(self) -> Terms:
        """The terms as measured files have corrected them."""
        terms = self._terms
        scales = self._scale
        edges = {
            edge: value * max((scales[name] for _, name in terms.switched_by[edge]), default=1.0)
            for edge, value in terms.edges.items()
        }
        own = {(layer, name): v * scales[name] for (layer, name), v in terms.layers.items()}
        return Terms(layers=own, edges=edges, switched_by=terms.switched_by)

    def _shares(self, plan: Plan) -> dict[str, float]:
        """What each choice adds to the predicted loss of a plan."""
        terms, found = self._scaled(), dict.fromkeys(self._scale, 0.0)
        for pair in plan.items():
            if pair in terms.layers:
                found[pair[1]] += terms.layers[pair]
        chosen = set(plan.items())
        for edge, value in terms.edges.items():
            switches = terms.switched_by[edge] & chosen
            for _, name in switches:
                found[name] += value / len(switches)
        return found

    def _predicted(self, plan: Plan) -> float:
        return sum(self._shares(plan).values())

    def _refit(self, plan: Plan, found: float) -> None:
        """Correct each choice by its share in a prediction that missed."""
        shares = self._shares(plan)
        total = sum(shares.values())
        if total > 0 and 0 < found < SATURATED:
            for name, share in shares.items():
                self._scale[name] *= (found / total) ** (share / total)

    def _cheapest(self, limit: float) -> Plan | None:
        return cheapest(
            self._sensitivity.layers, self._costs, self._scaled(), limit, self._on_codes
        )

    def _hopeless(self, plan: Plan) -> bool:
        """Whether a plan changes nothing, or would not be noticeably better than the best that holds."""
        if all(name == "float" for name in plan.values()):
            return True
        expected = self._costs.of(plan, self._on_codes)
        return expected > self._best * (1 - ALIKE / 2)

    # --- plans and schemes ----------------------------------------------------------------------

    def _plan_of(self, scheme: Scheme) -> Plan:
        decision = decide(self.bench.prepared, scheme, self.bench.rules)
        return self._sensitivity.plan_of(decision)

    def _candidate(self, plan: Plan) -> Candidate:
        base, scheme = self.base.candidate, self.base.candidate.scheme
        treated = _treatments(self.bench, scheme)
        for layer, name in plan.items():
            given = self._sensitivity.layers[layer]
            if treated.get(layer, FLOAT) != given.get(name, FLOAT):
                wanted = self._sensitivity.choices.get(name, FLOAT)
                scheme = scheme.with_override(escape(layer), wanted)
        number = sum(1 for _ in self._tried)
        counts = ", ".join(f"{n} {name}" for name, n in Counter(plan.values()).most_common())
        end = "fastest" if self.objective == "latency" else "smallest"
        return replace(
            base,
            name=f"{base.name}, mixed {number}",
            scheme=replace(scheme, name=f"{base.scheme.name}-mixed"),
            why=f"the {end} plan of so little predicted loss: {counts}",
            improves=base.name,
        )


def accurate(trial: Trial, budget: Budget) -> bool:
    """Whether a trial's file is there and its drop within the budget; its speed and size do not matter here."""
    if trial.build is None or trial.outcome in ("failed", "dropped early", "parity failed"):
        return False
    if budget.max_drop is None or trial.comparison is None:
        return True
    return trial.comparison.drop <= budget.max_drop


def _treatments(bench: Workbench, scheme: Scheme) -> dict[str, Treatment]:
    """What a scheme really does to each layer."""
    decision = decide(bench.prepared, scheme, bench.rules)
    return {str(node.target): treatment for node, treatment in decision.treatments.items()}


def _of_layers(found: Sensitivity, treated: Mapping[str, Treatment]) -> Sensitivity:
    """Only the layers that the base treats: the others were left in float for a reason."""
    layers = {layer: names for layer, names in found.layers.items() if layer in treated}
    return replace(found, layers=layers)
