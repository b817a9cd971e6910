"""From data to picture: linear scales, and ticks at round numbers."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

from markupsafe import Markup

from kompakt.report.plots.svg import line, text

SMALLEST = 1e-300
"""Steps below this are no numbers one can count with."""


@dataclass(frozen=True, kw_only=True)
class Scale:
    """A linear map from the interval ``low..high`` of the data to ``start..end`` of the picture."""

    low: float
    high: float
    start: float
    end: float

    def __call__(self, value: float) -> float:
        """The coordinate of a value; values outside are held at the border."""
        span = self.high - self.low
        share = (value - self.low) / span if span > 0 else 0.5
        return self.start + min(max(share, 0.0), 1.0) * (self.end - self.start)


def covering(values: Iterable[float], *, start: float, end: float, margin: float = 0.06) -> Scale:
    """A scale that shows all finite values with some room on both sides."""
    finite = [value for value in values if math.isfinite(value)] or [0.0]
    low, high = min(finite), max(finite)
    room = (high - low) * margin or abs(high) * 0.5 or 1.0
    return Scale(low=low - room, high=high + room, start=start, end=end)


def ticks(low: float, high: float, about: int = 4) -> list[float]:
    """Round numbers (1, 2 or 5 times a power of ten) in ``low..high``, about that many."""
    span = high - low
    if not (math.isfinite(span) and span > 0):
        return [low] if math.isfinite(low) else []
    raw = span / max(about, 1)
    if raw < SMALLEST:
        return [low]
    power = 10.0 ** math.floor(math.log10(raw))
    step = next(power * nice for nice in (1, 2, 5, 10) if power * nice >= raw * 0.999)
    first = math.ceil(low / step - 1e-9)
    last = math.floor(high / step + 1e-9)
    return [index * step for index in range(first, last + 1)]


def tick_label(value: float, step: float) -> str:
    """A tick's number with just the decimals its step needs."""
    if value == 0 or abs(value) < step * 1e-6:
        return "0"
    if abs(value) >= 1e5 or step < 1e-4:
        return f"{value:.3g}".replace("-", "−")
    decimals = max(0, -math.floor(math.log10(step) + 1e-9))
    return f"{value:.{decimals}f}".replace("-", "−")


def bottom_axis(scale: Scale, y: float, *, about: int = 4, gap: float = 16) -> list[Markup]:
    """A horizontal axis at height ``y`` with its ticks and, ``gap`` below, their numbers."""
    values = ticks(scale.low, scale.high, about)
    step = values[1] - values[0] if len(values) > 1 else abs(values[0]) if values else 1.0
    marks = [line(scale.start, y, scale.end, y, "axis")]
    for value in values:
        x = scale(value)
        marks.append(line(x, y, x, y + 4, "axis"))
        marks.append(text(x, y + gap, tick_label(value, step or 1.0), "t m", "middle"))
    return marks
