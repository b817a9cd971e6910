"""The record: what one measurement found. Plain JSON, never edited afterwards.

Every figure in it was measured on the written file in its runtime; a figure that was not measured is ``None``, never
a guess. The same object is printed by ``--json``, stored in the manifest and drawn by the report.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

SCHEMA = 1


@dataclass(frozen=True, kw_only=True)
class Figures:
    """What was measured of one model.

    Attributes:
        runtime: Where it ran: ``torch`` or a target's name.
        metric: Value of the metric, in its own unit.
        latency_ms: Median time of one call, batch and threads as in the record's ``latency``.
        latency_p90_ms: 90th percentile of the same.
        throughput: Samples a second at the throughput batch size.
        size_bytes: Size of all its files.
        peak_memory_bytes: Peak memory of a fresh process that loads it and runs it, above an empty one.
    """

    runtime: str
    metric: float | None = None
    latency_ms: float | None = None
    latency_p90_ms: float | None = None
    throughput: float | None = None
    size_bytes: int | None = None
    peak_memory_bytes: int | None = None


@dataclass(frozen=True, kw_only=True)
class Record:
    """One compression and everything measured about it. See the field names for units.

    Ratios are baseline over candidate: above 1 is better. ``drop`` is in the metric's unit and positive when the
    candidate is worse.
    """

    kompakt: str
    model: Mapping[str, Any]
    target: Mapping[str, Any]
    scheme: Mapping[str, Any]
    scheme_name: str
    level: int
    calibrator: str | None
    seed: int
    confidence: float
    baseline: Figures
    source: Figures
    candidate: Figures
    verdict: str
    verdict_text: str
    metric: Mapping[str, Any] | None = None
    drop: float | None = None
    drop_interval: Sequence[float] | None = None
    drop_upper: float | None = None
    agreement: float | None = None
    changes: Mapping[str, Any] | None = None
    speedup: float | None = None
    speedup_interval: Sequence[float] | None = None
    size_ratio: float | None = None
    memory_ratio: float | None = None
    methods: Sequence[str] = ()
    latency: Mapping[str, Any] | None = None
    parity: Mapping[str, Any] | None = None
    validation_split: Mapping[str, int] | None = None
    warnings: Sequence[str] = ()
    budget: Mapping[str, Any] = field(default_factory=dict)
    budget_met: bool | None = None
    budget_reasons: Sequence[str] = ()
    trials: Sequence[Mapping[str, Any]] = ()
    runtimes: Sequence[Mapping[str, Any]] = ()
    sites: Sequence[Mapping[str, Any]] = ()
    distributions: Sequence[Mapping[str, Any]] = ()
    diagnosis: Sequence[str] = ()
    error_split: Mapping[str, Any] | None = None
    environment: Mapping[str, Any] = field(default_factory=dict)
    timings: Mapping[str, float] = field(default_factory=dict)
    commands: Sequence[str] = ()
    artifact: str | None = None
    schema: int = SCHEMA

    def __repr__(self) -> str:
        drop = "" if self.drop is None else f", drop={self.drop:.4g}"
        speed = "" if self.speedup is None else f", speedup={self.speedup:.2f}"
        size = "" if self.size_ratio is None else f", size_ratio={self.size_ratio:.2f}"
        return (
            f"Record({self.model.get('name')!r}, scheme={self.scheme_name!r}, verdict={self.verdict!r}"
            f"{drop}{speed}{size}, budget_met={self.budget_met}, artifact={self.artifact!r})"
        )

    def to_json(self) -> dict[str, Any]:
        """Plain data with the fields in reading order; NaN and infinity become ``None``."""
        data: dict[str, Any] = _plain(asdict(self))
        return {"schema": data.pop("schema"), **data}

    def dumps(self) -> str:
        """One JSON object as text."""
        return json.dumps(self.to_json(), ensure_ascii=False, allow_nan=False)


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(k): _plain(v) for k, v in value.items()}
    if isinstance(value, str | bool | int) or value is None:
        return value
    if isinstance(value, Path):
        return str(value)
    if isinstance(value, Sequence):
        return [_plain(v) for v in value]
    if isinstance(value, np.generic | np.ndarray):
        return _plain(value.tolist())
    number = float(value)
    return number if number == number and abs(number) != float("inf") else None
