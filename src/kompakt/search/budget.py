"""The budget: what the user will accept."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from kompakt.errors import UsageError
from kompakt.measuring.latency import LatencyComparison
from kompakt.measuring.margin import read_drop

EXAMPLES = {
    "max_size": "bytes, such as max_size=10_000_000",
    "min_speedup": "a ratio, such as min_speedup=2.0",
    "max_latency_ms": "milliseconds, such as max_latency_ms=5.0",
}


@dataclass(frozen=True, kw_only=True)
class Budget:
    """Limits a compressed model must hold; ``None`` means no limit.

    Attributes:
        max_drop: Largest accepted loss of the metric, in the metric's unit: 0.01, or the text "1%", is one
            point of accuracy.
        max_size: Largest size of all model files, bytes.
        min_speedup: Smallest accepted ratio of float latency to compressed latency, same runtime.
        max_latency_ms: Largest accepted median latency, milliseconds.
        confidence: Confidence of every interval and verdict, in (0.5, 1).
    """

    max_drop: float | None = None
    max_size: int | None = None
    min_speedup: float | None = None
    max_latency_ms: float | None = None
    confidence: float = 0.95

    def __post_init__(self) -> None:
        for name in ("max_size", "min_speedup", "max_latency_ms"):
            value = getattr(self, name)
            if value is not None and not (isinstance(value, int | float) and value > 0):
                raise UsageError(
                    "K600",
                    f"{name}={value!r}",
                    why="a limit must be a positive number",
                    help=f"write {EXAMPLES[name]}",
                )
        object.__setattr__(self, "max_drop", read_drop(self.max_drop))
        if not 0.5 < self.confidence < 1:
            raise UsageError(
                "K600",
                f"confidence={self.confidence!r}",
                why="it must lie between 0.5 and 1",
                help="0.95 is customary",
            )

    @property
    def demands_speed_or_size(self) -> bool:
        """Whether it says when a model is fast or small enough."""
        return any(v is not None for v in (self.max_size, self.min_speedup, self.max_latency_ms))

    def violations(
        self,
        *,
        drop: float | None = None,
        size_bytes: int | None = None,
        speedup: float | None = None,
        latency_ms: float | None = None,
    ) -> list[str]:
        """What a candidate with these figures exceeds, one sentence each.

        A limit whose figure was not measured counts as exceeded: nothing is promised unmeasured.
        """
        return [
            *_over("drop", drop, self.max_drop, "{:.4g}"),
            *_over("size in bytes", size_bytes, self.max_size, "{:,.0f}"),
            *_over("latency in ms", latency_ms, self.max_latency_ms, "{:.3g}"),
            *_under("speed-up", speedup, self.min_speedup, "{:.2f}"),
        ]

    @property
    def limits_anything(self) -> bool:
        """Whether any limit is set."""
        return self.max_drop is not None or self.demands_speed_or_size

    def undecided(self, latency: LatencyComparison | None) -> list[str]:
        """Limits on speed that the figure holds, but not its whole interval (nor what noise adds)."""
        if latency is None:
            return []
        open_limits = []
        if self.min_speedup is not None and latency.verdict(self.min_speedup) == "undecided":
            low, high = latency.interval
            open_limits.append(
                f"a speed-up of at least {self.min_speedup:g} is observed, not proven: "
                f"{latency.ratio:.3g}, interval {low:.3g} to {high:.3g}"
            )
        if self.max_latency_ms is not None and latency.within(self.max_latency_ms) == "undecided":
            low, high = latency.candidate.interval_ms
            open_limits.append(
                f"a latency of at most {self.max_latency_ms:g} ms is observed, not proven: "
                f"{latency.candidate_ms:.3g} ms, interval {low:.3g} to {high:.3g}"
            )
        noisy = ", on a noisy machine" if latency.noisy else ""
        return [f"{text}{noisy}" for text in open_limits]

    def to_json(self) -> Mapping[str, Any]:
        """The ``budget`` object of a record."""
        data = asdict(self)
        data["max_size_bytes"] = data.pop("max_size")
        return data


def _over(what: str, value: float | None, limit: float | None, form: str) -> list[str]:
    if limit is None or (value is not None and value <= limit):
        return []
    found = "was not measured" if value is None else f"is {form.format(value)}"
    return [f"the {what} {found}, the limit {form.format(limit)}"]


def _under(what: str, value: float | None, limit: float | None, form: str) -> list[str]:
    if limit is None or (value is not None and value >= limit):
        return []
    found = "was not measured" if value is None else f"is {form.format(value)}"
    return [f"the {what} {found}, the least accepted {form.format(limit)}"]
