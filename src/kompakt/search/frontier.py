"""The Pareto front of measured trials, where every figure has an interval.

What was measured is uncertain, so there are three standings, not two. A trial is on the *front* when no other is at
least as good in every figure and better in one. One that is not, by the figures alone, is called *dominated* only when
some other trial is at least as good in every figure whatever values within their intervals are the true ones; until
then the two are *not told apart*, and it is kept.

A figure that was not measured, or not on the same machine, tells nothing apart.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

Standing = Literal["front", "not told apart", "dominated"]
OBJECTIVES = ("drop", "time", "size")
"""What is compared; smaller is better in all of them."""


@dataclass(frozen=True, kw_only=True)
class Span:
    """A figure with its interval; smaller is better.

    Attributes:
        value: The estimate.
        low: Lower end.
        high: Upper end.
        scale: Figures of different scales (times on different machines) cannot be compared.
    """

    value: float
    low: float
    high: float
    scale: str = ""


Point = Mapping[str, Span | None]
"""A trial's figures, by objective; None where one was not measured."""


def point_of(row: Mapping[str, Any]) -> Point:
    """The figures of a trial's row.

    The time is that of a call beside the same float file, timed in turn with it: the reciprocal of the speed-up. Where
    no metric was measured, the error of the outputs takes its place.

    Args:
        row: ``drop`` with ``drop_interval`` or ``output_error``, ``size_bytes``, and a ``timing`` with ``speedup``,
            ``speedup_interval`` and ``machine``.
    """
    return {"drop": _drop(row), "time": _time(row.get("timing") or {}), "size": _size(row)}


def standings(points: Sequence[Point]) -> list[tuple[Standing, int | None]]:
    """The standing of each trial, and the number of one that is better where there is one.

    Args:
        points: The trials' figures.
    """
    found: list[tuple[Standing, int | None]] = []
    for here in range(len(points)):
        certain = _better(points, here, certainly_dominates)
        likely = _better(points, here, dominates)
        if certain is not None:
            found.append(("dominated", certain))
        else:
            found.append(("front" if likely is None else "not told apart", likely))
    return found


def dominates(first: Point, second: Point) -> bool:
    """Whether, by the estimates, one trial is at least as good in every figure and better in one."""
    pairs = _comparable(first, second)
    return (
        pairs is not None
        and all(a.value <= b.value for a, b in pairs)
        and any(a.value < b.value for a, b in pairs)
    )


def certainly_dominates(first: Point, second: Point) -> bool:
    """The same, whatever values within the intervals are the true ones."""
    pairs = _comparable(first, second)
    return (
        pairs is not None
        and all(a.high <= b.low for a, b in pairs)
        and any(a.high < b.low for a, b in pairs)
    )


def _comparable(first: Point, second: Point) -> list[tuple[Span, Span]] | None:
    """The figures of two trials side by side; None when one of them cannot be compared."""
    pairs = []
    for name in OBJECTIVES:
        a, b = first.get(name), second.get(name)
        if a is None and b is None:
            continue
        if a is None or b is None or a.scale != b.scale:
            return None
        pairs.append((a, b))
    return pairs


def _better(
    points: Sequence[Point], here: int, beats: Callable[[Point, Point], bool]
) -> int | None:
    """Of the trials that beat one, that with the least drop."""
    found = [i for i, other in enumerate(points) if i != here and beats(other, points[here])]

    def rank(index: int) -> tuple[float, float, int]:
        return _value(points[index], "drop"), _value(points[index], "time"), index

    return min(found, key=rank, default=None)


def _value(point: Point, name: str) -> float:
    span = point.get(name)
    return math.inf if span is None else span.value


def _drop(row: Mapping[str, Any]) -> Span | None:
    drop, interval = row.get("drop"), row.get("drop_interval")
    if drop is None:
        error = row.get("output_error")
        return None if error is None else Span(value=error, low=error, high=error, scale="error")
    low, high = interval or (drop, drop)
    return Span(value=drop, low=min(low, drop), high=max(high, drop))


def _time(timing: Mapping[str, Any]) -> Span | None:
    ratio, interval = timing.get("speedup"), timing.get("speedup_interval")
    if not ratio:
        return None
    low, high = interval or (ratio, ratio)
    return Span(
        value=1 / ratio,
        low=1 / max(high, ratio),
        high=1 / min(low, ratio) if min(low, ratio) > 0 else math.inf,
        scale=str(timing.get("machine") or ""),
    )


def _size(row: Mapping[str, Any]) -> Span | None:
    size = row.get("size_bytes")
    return None if size is None else Span(value=size, low=size, high=size)
