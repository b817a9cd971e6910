"""Bars from zero: two for a comparison, or a ranked list of named ones."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from markupsafe import Markup

from kompakt.escaping import shorten
from kompakt.report.plots.svg import line, picture, rectangle, text

PAIR_WIDTH, PAIR_HEIGHT = 200.0, 34.0
RANKED_WIDTH, _ROW = 320.0, 34.0


@dataclass(frozen=True, kw_only=True)
class Bar:
    """One named bar.

    Attributes:
        mark: Short number in front of the name.
        name: What it belongs to.
        value: Its length, in the unit of the others, at least 0.
        label: The value in words.
        hatched: Whether it is drawn hatched instead of solid.
    """

    mark: str
    name: str
    value: float
    label: str
    hatched: bool


def pair(
    baseline: float | None, candidate: float | None, *, ident: str, title: str, desc: str
) -> Markup:
    """Float above, compressed below, on one scale that starts at zero."""
    longest = max(baseline or 0.0, candidate or 0.0) or 1.0
    bars = [line(0.5, 0, 0.5, PAIR_HEIGHT, "axis")]
    for y, value, class_ in ((3.0, baseline, "old hatch"), (19.0, candidate, "new")):
        if value is not None:
            bars.append(rectangle(1, y, (PAIR_WIDTH - 2) * max(value, 0.0) / longest, 12, class_))
    return picture(PAIR_WIDTH, PAIR_HEIGHT, ident, title, desc, *bars)


def ranked(bars: Sequence[Bar], longest: float, *, ident: str, title: str, desc: str) -> Markup:
    """Bars below each other, each under its own name, on a scale from 0 to ``longest``."""
    drawing: list[Markup] = []
    for row, bar in enumerate(bars):
        y = row * _ROW
        drawing.append(text(0, y + 12, bar.mark, "t b"))
        drawing.append(text(18, y + 12, shorten(bar.name, 30), "t code"))
        drawing.append(text(RANKED_WIDTH, y + 12, bar.label, "t", "end"))
        width = (RANKED_WIDTH - 18) * bar.value / (longest or 1.0)
        drawing.append(rectangle(18, y + 18, width, 8, "old hatch" if bar.hatched else "new"))
    return picture(RANKED_WIDTH, len(bars) * _ROW, ident, title, desc, *drawing)
