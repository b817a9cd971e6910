"""How one call of :func:`kompakt.compress` works, as plain data."""

from __future__ import annotations

from dataclasses import dataclass

from kompakt.schemes import Scheme
from kompakt.search.budget import Budget


@dataclass(frozen=True, kw_only=True)
class Options:
    """How :func:`compress` works; see there."""

    metric: str
    budget: Budget
    target: str
    isa: str
    level: int | None
    scheme: Scheme | None
    calibrator: str | None
    keep_float: tuple[str, ...]
    threads: int
    batch: int
    seed: int
    name: str
    measure_latency: bool
    measure_memory: bool
    commands: tuple[str, ...]
