"""The plan: for every site of a network, its format or why it stays float. Plain data."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Literal

from kompakt.schemes import Treatment

Role = Literal["weight", "activation"]


@dataclass(frozen=True, kw_only=True)
class Site:
    """One place a tensor can be treated.

    Attributes:
        name: Dotted name: the layer for weights, the edge for activations.
        kind: What computes there (see ``network.kinds``).
        role: ``weight`` or ``activation``.
        format: Format of its codes, or None when it stays float.
        why_float: The reason, when it stays float.
        why_format: The reason for its format, where that is not what the scheme asks for.
        quantizer: Module path of its quantizer in the placed network (activations only).
        node: Name of the graph node concerned.
        treatment: The layer's treatment (weights only).
    """

    name: str
    kind: str
    role: Role
    format: str | None = None
    why_float: str | None = None
    why_format: str | None = None
    quantizer: str | None = None
    node: str = ""
    treatment: Treatment | None = None

    def to_json(self) -> dict[str, Any]:
        """Plain data for reports."""
        granularity = self.treatment.granularity if self.treatment and self.format else None
        return {
            "name": self.name,
            "kind": self.kind,
            "role": self.role,
            "format": self.format,
            "why_float": self.why_float,
            "why_format": self.why_format,
            "granularity": str(granularity) if granularity else None,
        }


@dataclass(frozen=True, kw_only=True)
class Plan:
    """Where a scheme puts quantizers in a network, for one runtime.

    Attributes:
        sites: Every site, in graph order.
        taps: For each calibrated site, the node whose output must be observed.
        shared: For sites that share another site's quantizer, that other site.
    """

    sites: tuple[Site, ...]
    taps: dict[str, str] = field(default_factory=dict)
    shared: dict[str, str] = field(default_factory=dict)

    def quantized(self, role: Role | None = None) -> Iterator[Site]:
        """The sites that are not float."""
        return (s for s in self.sites if s.format and (role is None or s.role == role))
