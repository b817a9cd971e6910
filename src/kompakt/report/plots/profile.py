"""One value per site along the network: where on the way the error arises."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from markupsafe import Markup

from kompakt.report.plots.axis import Scale, tick_label, ticks
from kompakt.report.plots.svg import dots, line, picture, text

WIDTH, HEIGHT = 720.0, 220.0
_LEFT, _RIGHT, _TOP, _BOTTOM = 34.0, 712.0, 22.0, 196.0


@dataclass(frozen=True, kw_only=True)
class Point:
    """A site's value, ``at`` 0 (input) to 1 (output); ``mark`` names it in the figure.

    ``square`` tells weights from activations.
    """

    at: float
    value: float
    square: bool
    mark: str = ""


def profile(
    points: Sequence[Point], *, x_label: str, y_label: str, ident: str, title: str, desc: str
) -> Markup:
    """Draw the points from input to output; infinite values stand at the upper border."""
    finite = [point.value for point in points if math.isfinite(point.value)] or [0.0]
    x = Scale(low=0, high=1, start=_LEFT + 6, end=_RIGHT - 6)
    y = Scale(low=min(0.0, *finite), high=max(finite) * 1.05 or 1.0, start=_BOTTOM, end=_TOP)
    drawing: list[Markup] = []
    values = ticks(y.low, y.high, 5)
    step = values[1] - values[0] if len(values) > 1 else 1.0
    for value in values:
        drawing.append(line(_LEFT, y(value), _RIGHT, y(value), "axis" if value == 0 else "grid"))
        drawing.append(text(_LEFT - 6, y(value) + 4, tick_label(value, step), "t m", "end"))
    placed = [(x(point.at), y(point.value), point) for point in points]
    squares = [(left, top) for left, top, point in placed if point.square]
    drawing += [dots(squares, "square"), dots(squares, "square-hole")]
    drawing.append(dots([(left, top) for left, top, point in placed if not point.square], "dot"))
    drawing += [
        text(left, top + 15, p.mark, "t b halo", "middle") for left, top, p in placed if p.mark
    ]
    drawing.append(text(_LEFT - 6, 10, y_label, "t m"))
    drawing.append(text(_RIGHT, _BOTTOM + 16, x_label, "t m", "end"))
    return picture(WIDTH, HEIGHT, ident, title, desc, *drawing)
