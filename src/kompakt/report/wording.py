"""Numbers as people read them: with units, few digits, true minus signs, and a dash for nothing."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from kompakt.report.messages import Say

NBSP = "\N{NO-BREAK SPACE}"
_MINUS = "\N{MINUS SIGN}"
_SUPERSCRIPT = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")
_PERCENT_METRICS = frozenset(("top1", "top5", "f1", "miou", "ap", "agreement"))
_SIZES = ((1e12, "TB"), (1e9, "GB"), (1e6, "MB"), (1e3, "kB"))


def real(value: object) -> float | None:
    """The value as a float, or ``None`` when it is no number (missing, NaN, a text)."""
    if isinstance(value, bool) or not isinstance(value, int | float) or math.isnan(value):
        return None
    return float(value)


def pair(value: object) -> tuple[float, float] | None:
    """Both ends of an interval, or ``None`` when it is missing or incomplete."""
    if not isinstance(value, list | tuple) or len(value) != 2:
        return None
    low, high = real(value[0]), real(value[1])
    return None if low is None or high is None else (low, high)


def number(value: object, digits: int = 3) -> str:
    """``digits`` significant digits, thousands grouped: ``−0.0123``, ``12,300``, ``∞``."""
    x = real(value)
    if x is None:
        return "–"
    if math.isinf(x):
        return "∞" if x > 0 else _MINUS + "∞"
    if x == 0:
        return "0"
    magnitude = math.floor(math.log10(abs(x)))
    if not -4 <= magnitude < 9:
        return _scientific(x, digits)
    return f"{x:,.{max(0, digits - 1 - magnitude)}f}".replace("-", _MINUS)


def _scientific(x: float, digits: int) -> str:
    mantissa, exponent = f"{x:.{digits - 1}e}".split("e")
    if "." in mantissa:
        mantissa = mantissa.rstrip("0").rstrip(".")
    power = str(int(exponent)).translate(_SUPERSCRIPT)
    return f"{mantissa} × 10{power}".replace("-", _MINUS).replace(" ", NBSP)


def fixed(value: object, decimals: int) -> str:
    """A fixed number of decimals; never a negative zero."""
    x = real(value)
    if x is None:
        return "–"
    if math.isinf(x):
        return number(x)
    text = f"{x:,.{decimals}f}"
    return text.lstrip("-") if float(text.replace(",", "")) == 0 else text.replace("-", _MINUS)


def whole(value: object) -> str:
    """An integer with grouped thousands."""
    return fixed(value, 0)


def percent(value: object) -> str:
    """A share in [0, 1] as a percentage with two significant digits, ``0`` and ``100%`` exact."""
    x = real(value)
    if x is None:
        return "–"
    if x in (0.0, 1.0):
        return f"{x * 100:.0f}%"
    if 0 < abs(x) < 1e-5:
        return "<0.001%"
    if 0.995 <= x < 1:  # 99.98 % must not become 100 %
        return f"{math.floor(x * 10000) / 100:.2f}%"
    return number(x * 100, 2 if abs(x) < 1 else 3) + "%"


def two_decimals(value: object) -> str:
    """A share in [0, 1] as a percentage with two decimals: ``93.12%``, ``100%`` only if all."""
    x = real(value)
    if x is None or x == 1:
        return percent(x)
    return fixed(min(x, 0.9999) * 100 if x < 1 else x * 100, 2) + "%"


def milliseconds(value: object) -> str:
    """``1.67 ms``, or ``27.4 µs`` where that is easier to read."""
    x = real(value)
    if x is None:
        return "–"
    return number(x * 1000) + NBSP + "µs" if 0 < abs(x) < 0.1 else number(x) + NBSP + "ms"


def seconds(value: object) -> str:
    """``12.3 s``."""
    x = real(value)
    if x is None:
        return "–"
    return fixed(x, 2 if abs(x) < 10 else 1 if abs(x) < 100 else 0) + NBSP + "s"


def size(value: object) -> str:
    """Bytes in decimal units: ``2.83 MB``."""
    x = real(value)
    if x is None:
        return "–"
    for unit, name in _SIZES:
        if abs(x) >= unit:
            return number(x / unit) + NBSP + name
    return whole(x) + NBSP + "B"


@dataclass(frozen=True, kw_only=True)
class Wording:
    """Formats what depends on the metric and on the language.

    Attributes:
        say: The sentences.
        as_percent: Whether the metric is a share, shown in percent and its drop in points.
        decimals: Decimals of a metric that is not a share.
        confidence: Level of all intervals, in [0, 1].
        higher_is_better: Direction of the metric: whether a drop is a fall or a rise.
    """

    say: Say
    as_percent: bool
    decimals: int
    confidence: float
    higher_is_better: bool = True

    @classmethod
    def of(cls, record: Mapping[str, Any], say: Say) -> Wording:
        """Fit to a record's metric: its kind, and how many decimals tell its values apart."""
        metric = record.get("metric") or {}
        value = real((record.get("baseline") or {}).get("metric")) or 0.0
        return cls(
            say=say,
            as_percent=metric.get("name") in _PERCENT_METRICS,
            decimals=4 if abs(value) < 10 else 3 if abs(value) < 100 else 2,
            confidence=real(record.get("confidence")) or 0.95,
            higher_is_better=metric.get("higher_is_better") is not False,
        )

    def metric(self, value: object) -> str:
        """A value of the metric."""
        x = real(value)
        if x is None:
            return "–"
        return fixed(x * 100, 2) + "%" if self.as_percent else fixed(x, self.decimals)

    def drop_number(self, value: object) -> str:
        """A drop without its unit."""
        x = real(value)
        if x is None:
            return "–"
        return fixed(x * 100, 2) if self.as_percent else fixed(x, self.decimals)

    def ratio(self, value: object) -> str:
        """``2.31×``."""
        x = real(value)
        if x is None:
            return "–"
        decimals = 2 if abs(x) < 10 else 1 if abs(x) < 100 else 0
        return self.say("times", number=fixed(x, decimals))

    def told_drop(self, value: object) -> str:
        """A drop within a sentence, where a negative one is explained."""
        x = real(value)
        return self.say("gain", drop=self.drop(x)) if x is not None and x < 0 else self.drop(x)

    def drop(self, value: object) -> str:
        """A drop with its unit: ``0.12 points``."""
        shown = self.drop_number(value)
        return self.say("points", number=shown) if self.as_percent and shown != "–" else shown

    def change(self, drop: object) -> str:
        """The change that a drop is, compressed minus float: ``+0.12 points``."""
        return self._signed(drop, self.drop)

    def change_number(self, drop: object) -> str:
        """The same without its unit."""
        return self._signed(drop, self.drop_number)

    def change_interval(self, interval: object, show: Callable[[object], str]) -> str:
        """The interval of the change, from that of the drop; ``show`` takes drops."""
        ends = pair(interval)
        if ends is None:
            return "–"
        low, high = reversed(ends) if self.higher_is_better else ends
        return self.say("to", low=show(low), high=show(high))

    def _signed(self, drop: object, show: Callable[[object], str]) -> str:
        x = real(drop)
        if x is None:
            return "–"
        change = -x if self.higher_is_better else x
        shown = show(change)
        return f"+{shown}" if change > 0 and shown != show(0.0) else shown

    def level(self) -> str:
        """The confidence level: ``95%``."""
        return percent(self.confidence)

    def interval(self, value: object, show: Callable[[object], str]) -> str:
        """``low to high``, or a dash."""
        ends = pair(value)
        return "–" if ends is None else self.say("to", low=show(ends[0]), high=show(ends[1]))
