"""Trials in the plane of what they cost and what they bring."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from markupsafe import Markup

from kompakt.report.plots.axis import Scale, bottom_axis, covering, tick_label, ticks
from kompakt.report.plots.svg import dots, line, picture, polygon, text

WIDTH, HEIGHT = 380.0, 280.0
_LEFT, _RIGHT, _TOP, _BOTTOM = 40.0, 368.0, 26.0, 236.0


@dataclass(frozen=True, kw_only=True)
class Spot:
    """One trial.

    ``shape`` tells its outcome: ``diamond`` (chosen), ``ring`` (kept), ``cross`` (dropped early)
    or ``triangle`` (over budget).
    """

    x: float
    y: float
    mark: str
    shape: str


def scatter(
    spots: Sequence[Spot],
    *,
    x_label: str,
    y_label: str,
    ident: str,
    title: str,
    desc: str,
    x_limit: float | None = None,
    y_limit: float | None = None,
) -> Markup:
    """Draw the trials and, where there are some, the limits the user set."""
    limits_x = [x_limit] if x_limit is not None else []
    limits_y = [y_limit] if y_limit is not None else []
    x = covering([0.0, *(s.x for s in spots), *limits_x], start=_LEFT, end=_RIGHT, margin=0.12)
    y = covering([*(s.y for s in spots), *limits_y], start=_BOTTOM, end=_TOP, margin=0.15)
    drawing = [*_left_axis(y), *bottom_axis(x, _BOTTOM)]
    drawing += [line(x(value), _TOP, x(value), _BOTTOM, "margin") for value in limits_x]
    drawing += [line(_LEFT, y(value), _RIGHT, y(value), "margin") for value in limits_y]
    for spot in spots:
        drawing += _spot(spot, x(spot.x), y(spot.y))
    drawing += _labels([(x(spot.x), y(spot.y), spot) for spot in spots])
    drawing.append(text(0, 11, y_label, "t m"))
    drawing.append(text(_RIGHT, _BOTTOM + 36, x_label, "t m", "end"))
    return picture(WIDTH, HEIGHT, ident, title, desc, *drawing)


def _left_axis(y: Scale) -> list[Markup]:
    values = ticks(y.low, y.high, 5)
    step = values[1] - values[0] if len(values) > 1 else 1.0
    marks: list[Markup] = []
    for value in values:
        marks.append(line(_LEFT, y(value), _RIGHT, y(value), "grid"))
        marks.append(text(_LEFT - 6, y(value) + 4, tick_label(value, step), "t m", "end"))
    return marks


def _spot(spot: Spot, left: float, top: float) -> list[Markup]:
    if spot.shape == "diamond":
        corners = [(left - 7, top), (left, top - 7), (left + 7, top), (left, top + 7)]
        return [polygon(corners, "new")]
    if spot.shape == "cross":
        return [
            line(left - 4, top - 4, left + 4, top + 4, "stroke"),
            line(left - 4, top + 4, left + 4, top - 4, "stroke"),
        ]
    if spot.shape == "triangle":
        return [polygon([(left, top - 5), (left + 5, top + 4), (left - 5, top + 4)], "hollow")]
    return [dots([(left, top)], "ring"), dots([(left, top)], "ring-hole")]


def _labels(placed: Sequence[tuple[float, float, Spot]]) -> list[Markup]:
    """Numbers beside the marks: upper right, or where that is taken another corner."""
    taken: list[tuple[float, float]] = []
    marks: list[Markup] = []
    for left, top, spot in placed:
        corners = [(left + 13, top - 6), (left + 13, top + 14), (left - 13, top - 6)]
        if spot.shape == "diamond":
            corners.insert(0, corners.pop())
        free = [
            c for c in corners if all(abs(c[0] - x) > 13 or abs(c[1] - y) > 11 for x, y in taken)
        ]
        x, y = (free or [(left - 13, top + 14)])[0]
        taken.append((x, y))
        class_ = "t b halo" if spot.shape == "diamond" else "t m halo"
        marks.append(text(x, y, spot.mark, class_, "middle"))
    return marks
