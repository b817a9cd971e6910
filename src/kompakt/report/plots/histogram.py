"""The distribution of one tensor with the range that was chosen for it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from markupsafe import Markup

from kompakt.report.plots.axis import Scale, bottom_axis
from kompakt.report.plots.svg import compact, element, line, picture, polygon, text

WIDTH, HEIGHT = 320.0, 178.0
_LEFT, _RIGHT, _TOP, _BOTTOM = 30.0, 312.0, 16.0, 150.0
_SUPERSCRIPT = str.maketrans("0123456789", "⁰¹²³⁴⁵⁶⁷⁸⁹")


@dataclass(frozen=True, kw_only=True)
class Distribution:
    """What a histogram shows.

    Attributes:
        edges: Bin borders, one more than there are counts, increasing.
        counts: Values per bin.
        low: Lower end of the chosen range, or ``None``.
        high: Upper end of the chosen range, or ``None``.
        seen: Smallest and largest value observed, where known.
    """

    edges: Sequence[float]
    counts: Sequence[float]
    low: float | None
    high: float | None
    seen: tuple[float, ...] = ()


def histogram(data: Distribution, *, ident: str, title: str, desc: str) -> Markup:
    """Bars per bin on a logarithmic count axis; the chosen range as two marks and a bracket."""
    chosen = [value for value in (data.low, data.high) if value is not None]
    span = [data.edges[0], data.edges[-1], *chosen, *data.seen]
    room = (max(span) - min(span)) * 0.02 or 1.0
    x = Scale(low=min(span) - room, high=max(span) + room, start=_LEFT, end=_RIGHT)
    top = max(math.log10(1 + max(data.counts, default=0)), 1.0)
    y = Scale(low=0, high=top, start=_BOTTOM, end=_TOP + 10)
    inside, outside = _bars(data, x, y)
    drawing = [
        *_count_grid(top, y),
        element("path", d=inside, class_="new") if inside else Markup(""),
        element("path", d=outside, class_="clip") if outside else Markup(""),
        *bottom_axis(x, _BOTTOM, gap=21),
        *(_seen(x(value)) for value in data.seen),
        *_range(data, x),
    ]
    return picture(WIDTH, HEIGHT, ident, title, desc, *drawing)


def _bars(data: Distribution, x: Scale, y: Scale) -> tuple[str, str]:
    paths = {True: "", False: ""}
    low = -math.inf if data.low is None else data.low
    high = math.inf if data.high is None else data.high
    for left, right, count in zip(data.edges, data.edges[1:], data.counts, strict=False):
        if count > 0:
            width = max(x(right) - x(left) - 0.4, 0.6)
            path = f"M{compact(x(left))} {compact(_BOTTOM)}V{compact(y(math.log10(1 + count)))}"
            path += f"h{compact(width)}V{compact(_BOTTOM)}Z"
            paths[low <= (left + right) / 2 <= high] += path
    return paths[True], paths[False]


def _count_grid(top: float, y: Scale) -> list[Markup]:
    step = 1 if top <= 3 else 2
    marks: list[Markup] = []
    for power in range(0, int(top) + 1, step):
        height = y(math.log10(1 + 10**power))
        label = {0: "1", 1: "10"}.get(power, "10" + str(power).translate(_SUPERSCRIPT))
        marks.append(line(_LEFT, height, _RIGHT, height, "grid"))
        marks.append(text(_LEFT - 5, height + 4, label, "t m", "end"))
    return marks


def _range(data: Distribution, x: Scale) -> list[Markup]:
    marks = [
        line(x(value), _TOP - 8, x(value), _BOTTOM, "range")
        for value in (data.low, data.high)
        if value is not None
    ]
    if data.low is not None and data.high is not None:
        marks.append(line(x(data.low), _TOP - 8, x(data.high), _TOP - 8, "bracket"))
    return marks


def _seen(x: float) -> Markup:
    return polygon([(x, _BOTTOM + 1), (x - 3.5, _BOTTOM + 7), (x + 3.5, _BOTTOM + 7)], "seen")
