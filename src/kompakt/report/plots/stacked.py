"""Bars of several parts, each under its name, with a key above."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from markupsafe import Markup

from kompakt.escaping import shorten
from kompakt.report.plots.svg import picture, rectangle, text

WIDTH, _ROW, _LINE = 320.0, 34.0, 18.0
_ENTRY = 106.0


@dataclass(frozen=True, kw_only=True)
class Stack:
    """One bar.

    Attributes:
        name: What it belongs to.
        label: The whole in words.
        parts: Lengths by part, in the unit of the others, at least 0.
    """

    name: str
    label: str
    parts: Mapping[str, float]


def stacked(
    bars: Sequence[Stack],
    longest: float,
    *,
    looks: Mapping[str, str],
    names: Mapping[str, str],
    ident: str,
    title: str,
    desc: str,
) -> Markup:
    """Bars below each other on a scale from 0 to ``longest``.

    Args:
        bars: The bars.
        longest: The length that fills the width.
        looks: Class of each part, in the order they are stacked.
        names: Each part in words, for the key.
    """
    drawing: list[Markup] = []
    per_line = int(WIDTH // _ENTRY)
    for place, part in enumerate(looks):
        row, column = divmod(place, per_line)
        x, y = column * _ENTRY, row * _LINE
        drawing.append(rectangle(x, y + 3, 10, 8, looks[part]))
        drawing.append(text(x + 15, y + 11, names[part], "t m"))
    top = (-(-len(looks) // per_line)) * _LINE + 4
    for row, bar in enumerate(bars):
        y, x = top + row * _ROW, 0.0
        drawing.append(text(0, y + 12, shorten(bar.name, 38), "t code"))
        drawing.append(text(WIDTH, y + 12, bar.label, "t", "end"))
        for part, look in looks.items():
            width = WIDTH * bar.parts.get(part, 0.0) / (longest or 1.0)
            if width > 0:
                drawing.append(rectangle(x, y + 18, width, 9, look))
                x += max(width, 0.5)
    return picture(WIDTH, top + len(bars) * _ROW, ident, title, desc, *drawing)
