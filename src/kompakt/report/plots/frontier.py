"""Trials in the plane of two figures, each with its interval in both directions, and the front as a line."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

from markupsafe import Markup

from kompakt.report.plots.axis import Scale, bottom_axis, covering, tick_label, ticks
from kompakt.report.plots.svg import dots, element, line, picture, polygon, text

WIDTH, HEIGHT = 380.0, 300.0
_LEFT, _RIGHT, _TOP, _BOTTOM = 44.0, 368.0, 26.0, 252.0
_OFF = 1.6
"""Figures this many times as far off as the marked ones reach would press these into a corner."""


_ROOM = 0.7
"""How far bars may reach beyond the figures, as a share of the room that these take."""
_LEAST = 1e-6


@dataclass(frozen=True, kw_only=True)
class Spot:
    """One trial.

    ``standing`` is ``front``, ``not told apart`` or ``dominated``; ``mark`` its number, shown unless it is empty.
    """

    x: float
    y: float
    x_bar: tuple[float, float] | None = None
    y_bar: tuple[float, float] | None = None
    standing: str = "front"
    mark: str = ""
    is_float: bool = False


@dataclass(frozen=True, kw_only=True)
class Drawn:
    """A picture of a front.

    Attributes:
        picture: The picture.
        off: Trials that are left out of it because they lie too far to the right.
        is_cut: Whether a bar leaves it.
    """

    picture: Markup
    off: list[Spot]
    is_cut: bool


def frontier(
    spots: Sequence[Spot], *, x_label: str, y_label: str, ident: str, title: str, desc: str
) -> Drawn:
    """Draw trials; further up is better, further left as well. What is told as a ratio goes up by doublings."""
    shown, off = _shown([_doublings(spot) for spot in spots])
    x = covering(_ends(shown, "x"), start=_LEFT, end=_RIGHT, margin=0.06)
    y = covering(_ends(shown, "y"), start=_BOTTOM, end=_TOP, margin=0.1)
    is_cut = any(
        _bar(spot, axis)[0] < scale.low or _bar(spot, axis)[1] > scale.high
        for spot in shown
        for axis, scale in (("x", x), ("y", y))
    )
    drawing = [*_left_axis(y), *bottom_axis(x, _BOTTOM)]
    drawing += _staircase(shown, x, y)
    order = {"dominated": 0, "not told apart": 1, "front": 2}
    behind = sorted(shown, key=lambda spot: order.get(spot.standing, 0))
    for spot in behind:
        drawing += _bars(spot, x, y)
    for spot in behind:
        drawing += _mark(spot, x(spot.x), y(spot.y))
    drawing += _numbers([s for s in shown if s.mark and s.standing == "front"], x, y)
    drawing.append(text(0, 11, y_label, "t m"))
    drawing.append(text(_RIGHT, _BOTTOM + 36, x_label, "t m", "end"))
    return Drawn(
        picture=picture(WIDTH, HEIGHT, ident, title, desc, *drawing), off=off, is_cut=is_cut
    )


def _doublings(spot: Spot) -> Spot:
    """A trial whose ratio is told in doublings."""
    bar = spot.y_bar
    if bar is not None:
        bar = (math.log2(max(bar[0], _LEAST)), math.log2(max(bar[1], _LEAST)))
    return replace(spot, y=math.log2(max(spot.y, _LEAST)), y_bar=bar)


def _shown(spots: Sequence[Spot]) -> tuple[list[Spot], list[Spot]]:
    """The trials near those that matter, and the others."""
    matter = [spot for spot in spots if spot.standing != "dominated"] or list(spots)
    reach = max(max(_bar(s, "x")) for s in matter)
    low = min(min(_bar(s, "x")) for s in matter)
    limit = reach + (_OFF - 1) * max(reach - low, 1e-12)
    shown = [s for s in spots if s.standing != "dominated" or s.x <= limit]
    return shown, [s for s in spots if s not in shown]


def _bar(spot: Spot, axis: str) -> tuple[float, float]:
    value = getattr(spot, axis)
    bar = getattr(spot, f"{axis}_bar")
    return bar if bar is not None and all(map(math.isfinite, bar)) else (value, value)


def _ends(spots: Sequence[Spot], axis: str) -> list[float]:
    """What an axis must reach: all figures, and their bars unless these are much longer than the figures lie apart."""
    values = [getattr(spot, axis) for spot in spots]
    low, high = min(values), max(values)
    bars = [_bar(spot, axis) for spot in spots if spot.standing == "front"]
    typical = sorted(end - start for start, end in bars)[len(bars) // 2] if bars else 0.0
    room = max(high - low, typical) * _ROOM
    ends = [end for spot in spots for end in _bar(spot, axis)]
    return [*values, *(min(max(end, low - room), high + room) for end in ends)]


def _left_axis(y: Scale) -> list[Markup]:
    first, last = math.ceil(y.low), math.floor(y.high)
    if last - first >= 2:
        step = max(1, (last - first + 1) // 6)
        powers = range(first, last + 1, step)
        values = [(float(n), f"{2**n}" if n >= 0 else f"1/{2**-n}") for n in powers]
    else:
        plain = ticks(2**y.low, 2**y.high, 5)
        step_size = plain[1] - plain[0] if len(plain) > 1 else 1.0
        values = [(math.log2(v), tick_label(v, step_size)) for v in plain if v > 0]
    marks: list[Markup] = []
    for value, label in values:
        marks.append(line(_LEFT, y(value), _RIGHT, y(value), "grid"))
        marks.append(text(_LEFT - 6, y(value) + 4, label, "t m", "end"))
    return marks


def _staircase(spots: Sequence[Spot], x: Scale, y: Scale) -> list[Markup]:
    """The border of what the front reaches: to the right of and below it, something is as good or better."""
    front = sorted((s.x, s.y) for s in spots if s.standing == "front")
    corners: list[tuple[float, float]] = []
    best = -math.inf
    for left, top in front:
        if top <= best:
            continue
        if corners:
            corners.append((x(left), corners[-1][1]))
        corners.append((x(left), y(top)))
        best = top
    if not corners:
        return []
    corners = [(corners[0][0], _BOTTOM), *corners, (_RIGHT, corners[-1][1])]
    path = "M" + "L".join(f"{a:.1f} {b:.1f}" for a, b in corners)
    return [element("path", d=path, class_="front")]


def _bars(spot: Spot, x: Scale, y: Scale) -> list[Markup]:
    class_ = "whisker faint" if spot.standing != "front" else "whisker"
    if spot.standing == "dominated":
        class_ = "whisker grey"
    marks = []
    if spot.x_bar is not None:
        low, high = _bar(spot, "x")
        marks.append(line(x(low), y(spot.y), x(high), y(spot.y), class_))
    if spot.y_bar is not None:
        low, high = _bar(spot, "y")
        marks.append(line(x(spot.x), y(low), x(spot.x), y(high), class_))
    return marks


def _mark(spot: Spot, left: float, top: float) -> list[Markup]:
    if spot.is_float:
        size = 5.0 if spot.standing != "dominated" else 3.5
        corners = [(left - size, top - size), (left + size, top - size)]
        corners += [(left + size, top + size), (left - size, top + size)]
        return [polygon(corners, "new" if spot.standing == "front" else "old")]
    if spot.standing == "front":
        return [dots([(left, top)], "dot big")]
    if spot.standing == "not told apart":
        return [dots([(left, top)], "ring open"), dots([(left, top)], "ring-hole")]
    return [
        line(left - 3, top - 3, left + 3, top + 3, "stroke"),
        line(left - 3, top + 3, left + 3, top - 3, "stroke"),
    ]


def _numbers(spots: Sequence[Spot], x: Scale, y: Scale) -> list[Markup]:
    """Numbers beside the marks of the front, where there is room for them."""
    taken = [(x(spot.x), y(spot.y)) for spot in spots]
    marks = []
    for spot in spots:
        left, top = x(spot.x), y(spot.y)
        corners = [
            (left + 12, top - 7),
            (left + 12, top + 14),
            (left - 12, top - 7),
            (left - 12, top + 14),
        ]
        free = [
            c for c in corners if all(abs(c[0] - a) > 12 or abs(c[1] - 4 - b) > 9 for a, b in taken)
        ]
        place = (free or corners)[0]
        taken.append((place[0], place[1] - 4))
        marks.append(text(*place, spot.mark, "t b halo", "middle"))
    return marks
