"""Plans proposed by a multi-objective search, for spaces too large to be tried as a whole.

Each runtime has a search of its own (optuna's NSGA-II, or its tree-structured estimator), which sees three figures of
every trial: the drop, the size, and the *work*: the multiply-adds of the network, those on 8-bit integers counted a
quarter. Measured times are not among them, for they differ from run to run: with the same seed the same plans are
proposed, however many workers there are and wherever they run. The times of all trials are measured, and the front is
drawn with them.

Plans are proposed in generations of a fixed size, so that it does not matter which trial of one is finished first.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from kompakt.errors import UsageError
from kompakt.network.layers import layers
from kompakt.network.match import select
from kompakt.network.network import Network
from kompakt.schemes import Scheme, Treatment, float32
from kompakt.search.journal import digest
from kompakt.sweeping.plan import Plan, Space

SAMPLERS = ("nsga2", "tpe")
GENERATION = 8
"""Plans that are proposed at once."""
AS_SCHEME = "as the scheme"
_SHARE = {"float": 1.0, "weight_only": 1.0, "dynamic": 0.5, "static": 0.25}
"""What a multiply-add counts by the mode of its layer."""


class Proposals:
    """A search in the part of a space that belongs to one runtime.

    Args:
        space: All plans.
        target: The runtime.
        network: Its layers are what the work is counted from.
        sampler: ``nsga2`` or ``tpe``.
        seed: The same seed proposes the same plans.

    Raises:
        UsageError: K635 when optuna is not installed.
    """

    def __init__(
        self, space: Space, target: str, network: Network, *, sampler: str, seed: int
    ) -> None:
        self._space, self._target = space, target
        self._network = network
        self._macs = {row.name: row.macs for row in layers(network) if row.macs}
        self._schemes = {scheme.name: scheme for scheme in space.schemes}
        self._methods = {" + ".join(methods) or "none": methods for methods in space.methods}
        self._study = _study(sampler, seed)
        self._asked: dict[str, list[Any]] = {}
        self._seen: dict[str, Mapping[str, Any]] = {}
        for scheme in self._schemes:
            for methods in self._methods:
                self._study.enqueue_trial(self._plain(scheme, methods))

    @property
    def untouched(self) -> Plan:
        """The runtime's float file, which no search has to propose."""
        return Plan(target=self._target, scheme=float32())

    def next_plans(self, most: int) -> list[Plan]:
        """At most so many new plans, none of them twice; empty when the search finds nothing new."""
        found: dict[str, Plan] = {}
        for _ in range(4 * GENERATION):
            if len(found) == min(most, GENERATION):
                break
            trial = self._study.ask()
            plan = self._plan(trial)
            key = digest(plan.to_json())
            if key in self._seen:
                self._study.tell(trial, self._figures(plan, self._seen[key]))
                continue
            self._asked.setdefault(key, []).append(trial)
            found.setdefault(key, plan)
        return list(found.values())

    def learn(self, plan: Plan, row: Mapping[str, Any]) -> None:
        """Take in what a proposed plan came to; in the order of the proposals."""
        key = digest(plan.to_json())
        self._seen[key] = row
        for trial in self._asked.pop(key, []):
            self._study.tell(trial, self._figures(plan, row))

    def _plain(self, scheme: str, methods: str) -> dict[str, Any]:
        """A combination without exceptions for single layers."""
        known = {"scheme": scheme, "methods": methods, "calibrator": self._space.calibrators[0]}
        if not self._space.has_layers:
            return known
        return known | {f"layer {name}": AS_SCHEME for name in self._space.layers}

    def _plan(self, trial: Any) -> Plan:
        space = self._space
        scheme = trial.suggest_categorical("scheme", list(self._schemes))
        methods = trial.suggest_categorical("methods", list(self._methods))
        calibrator = trial.suggest_categorical("calibrator", list(space.calibrators))
        choices = [AS_SCHEME, *space.treatments]
        picked = []
        for layer in space.layers if space.has_layers else ():
            choice = trial.suggest_categorical(f"layer {layer}", choices)
            if choice != AS_SCHEME:
                picked.append((layer, choice))
        chosen, how = self._schemes[scheme], self._methods[methods]
        return space.plan(self._target, chosen, calibrator, how, picked)

    def _figures(self, plan: Plan, row: Mapping[str, Any]) -> list[float]:
        """What the search makes small: the drop, the work, the size."""
        drop = row.get("drop")
        drop = row.get("output_error") if drop is None else drop
        size = row.get("size_bytes")
        if row.get("outcome") != "done" or drop is None or size is None:
            return [1e9, 1e9, 1e18]
        return [float(drop), self.work(plan.scheme), float(size)]

    def work(self, scheme: Scheme) -> float:
        """Multiply-adds of the network, those on integers counted by what they cost: a share in [0, 1]."""
        treated = dict.fromkeys(self._macs, scheme.default)
        for override in scheme.overrides:
            for name in select(self._network, override.select):
                treated[name] = override.treatment
        spent = sum(count * _share(treated[name]) for name, count in self._macs.items())
        return spent / max(sum(self._macs.values()), 1)


def _share(treatment: Treatment) -> float:
    share = _SHARE[treatment.mode]
    return math.sqrt(share) if "16" in (treatment.activation or "") else share


def _study(sampler: str, seed: int) -> Any:
    try:
        import optuna
    except ImportError as error:
        raise UsageError(
            "K635", "a sweep of a space too large to be tried as a whole",
            why="optuna, which searches in it, is not installed",
        ) from error  # fmt: skip
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    samplers: dict[str, Any] = {
        "nsga2": lambda: optuna.samplers.NSGAIISampler(population_size=GENERATION, seed=seed),
        "tpe": lambda: optuna.samplers.TPESampler(
            n_startup_trials=GENERATION, seed=seed, constant_liar=True
        ),
    }
    return optuna.create_study(directions=["minimize"] * 3, sampler=samplers[sampler]())


def in_turn(searches: int, total: int) -> list[int]:
    """``total`` dealt out evenly: how many plans each of several searches may propose."""
    each, rest = divmod(total, searches)
    return [each + (index < rest) for index in range(searches)]
