"""What a sweep tries: one plan a trial, and the space that plans are taken from."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from glob import escape
from itertools import product
from typing import Any

from kompakt.schemes import Scheme, Treatment, float32
from kompakt.search.candidates import Candidate
from kompakt.search.journal import digest

MOST_ENUMERATED = 100
"""A grid of up to so many plans is tried as a whole."""


@dataclass(frozen=True, kw_only=True)
class Plan:
    """One trial to be made.

    Attributes:
        target: The runtime.
        scheme: What to do to which sites; exceptions for single layers are overrides in it.
        calibrator: Observer of the activation ranges; None where no range comes from data.
        methods: Methods, in order.
        layers: Layers treated otherwise, each with the name of its treatment; what the name is made of.
    """

    target: str
    scheme: Scheme
    calibrator: str | None = None
    methods: tuple[str, ...] = ()
    layers: tuple[tuple[str, str], ...] = ()

    @property
    def name(self) -> str:
        """A short name, the runtime left out."""
        counts = Counter(what for _, what in self.layers)
        scheme = self.scheme.name if self.scheme.name != "float32" else "float"
        parts = [scheme, *(f"{count} layers {what}" for what, count in sorted(counts.items()))]
        calibrator = f" ({self.calibrator})" if self.calibrator else ""
        return " + ".join([", ".join(parts) + calibrator, *self.methods])

    @property
    def candidate(self) -> Candidate:
        """The plan as a workbench takes it."""
        level = 2 if self.scheme.needs_calibration else int(self.scheme.default.mode != "float")
        return Candidate(
            name=self.name,
            level=level,
            scheme=self.scheme,
            calibrator=self.calibrator,
            methods=self.methods,
        )

    def to_json(self) -> dict[str, Any]:
        """What tells this plan from others."""
        return {
            "target": self.target,
            "scheme": self.scheme.to_json(),
            "calibrator": self.calibrator,
            "methods": list(self.methods),
        }


@dataclass(frozen=True, kw_only=True)
class Space:
    """All plans that may be tried.

    Attributes:
        schemes: Schemes.
        methods: Combinations of methods; the empty one is none.
        targets: Runtimes; the float file of the first is what all times are told beside.
        calibrators: Observers, for schemes that need one.
        layers: Layers that may be treated otherwise, one by one.
        treatments: How, by name.
        typed: How a scheme is named in a call, by its own name.
    """

    schemes: tuple[Scheme, ...]
    methods: tuple[tuple[str, ...], ...]
    targets: tuple[str, ...]
    calibrators: tuple[str, ...]
    layers: tuple[str, ...] = ()
    treatments: Mapping[str, Treatment] = field(default_factory=dict)
    typed: Mapping[str, str] = field(default_factory=dict)

    @property
    def has_layers(self) -> bool:
        """Whether single layers may be treated otherwise: such a space is never small."""
        return bool(self.layers and self.treatments)

    def plan(
        self,
        target: str,
        scheme: Scheme,
        calibrator: str | None,
        methods: tuple[str, ...],
        layers: Sequence[tuple[str, str]] = (),
    ) -> Plan:
        """A plan of this space; what makes no difference to its scheme is left out.

        Args:
            target: The runtime.
            scheme: The scheme.
            calibrator: Its calibrator.
            methods: Its methods.
            layers: Layers to treat otherwise, with the name of a treatment.
        """
        if scheme.default.mode == "float" and not layers:
            return Plan(target=target, scheme=float32())
        for layer, name in layers:
            scheme = scheme.with_override(escape(layer), self.treatments[name])
        return Plan(
            target=target,
            scheme=scheme,
            calibrator=calibrator if scheme.needs_calibration else None,
            methods=methods,
            layers=tuple(layers),
        )

    def grid(self) -> list[Plan]:
        """Every combination of schemes, calibrators, methods and targets once; each runtime's float file first."""
        found: dict[str, Plan] = {}
        for target in self.targets:
            plans = [Plan(target=target, scheme=float32())]
            for scheme, calibrator, methods in product(
                self.schemes, self.calibrators, self.methods
            ):
                plans.append(self.plan(target, scheme, calibrator, methods))
            for plan in plans:
                found.setdefault(digest(plan.to_json()), plan)
        return list(found.values())
