"""Estimates with their intervals, one row each, against reference lines."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from markupsafe import Markup

from kompakt.report.plots.axis import Scale, bottom_axis, covering
from kompakt.report.plots.svg import dots, line, picture, rectangle, text

WIDTH = 340.0
_LEFT, _RIGHT, _TOP, _ROW, _GUTTER = 8.0, 332.0, 34.0, 24.0, 104.0


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """A point with its interval; ``bound`` is a one-sided upper bound where there is one."""

    value: float
    low: float | None = None
    high: float | None = None
    bound: float | None = None
    label: str = ""


@dataclass(frozen=True, kw_only=True)
class Reference:
    """A vertical line that gives the estimates their meaning: no change, the margin allowed."""

    value: float
    label: str
    strong: bool = False


@dataclass(frozen=True, kw_only=True)
class Band:
    """A shaded stretch, for instance what noise alone produces."""

    low: float
    high: float


def intervals(
    estimates: Sequence[Estimate],
    references: Sequence[Reference],
    *,
    axis: str,
    ident: str,
    title: str,
    desc: str,
    band: Band | None = None,
) -> Markup:
    """Draw the estimates below each other on one axis."""
    left = _GUTTER if any(one.label for one in estimates) else _LEFT
    x = _scale(estimates, references, band, left)
    bottom = _TOP + _ROW * len(estimates) + 6
    drawing: list[Markup] = []
    if band is not None:
        width = x(band.high) - x(band.low)
        drawing.append(rectangle(x(band.low), _TOP - 4, width, bottom - _TOP + 4, "band"))
    drawing += _references(references, x, bottom)
    for row, estimate in enumerate(estimates):
        drawing += _estimate(estimate, x, _TOP + _ROW * row)
    drawing += bottom_axis(x, bottom)
    drawing.append(text(_RIGHT, bottom + 34, axis, "t m", "end"))
    return picture(WIDTH, bottom + 40, ident, title, desc, *drawing)


def _scale(
    estimates: Sequence[Estimate],
    references: Sequence[Reference],
    band: Band | None,
    left: float,
) -> Scale:
    shown = [reference.value for reference in references]
    shown += [band.low, band.high] if band is not None else []
    for one in estimates:
        shown += [v for v in (one.value, one.low, one.high, one.bound) if v is not None]
    return covering(shown, start=left, end=_RIGHT)


def _references(references: Sequence[Reference], x: Scale, bottom: float) -> list[Markup]:
    marks: list[Markup] = []
    height = 12.0
    previous = None
    for reference in sorted(references, key=lambda one: one.value):
        at = x(reference.value)
        # Two labels on one line need about 90 units; closer ones take turns above each other.
        height = 26.0 if previous is not None and at - previous < 90 and height == 12.0 else 12.0
        previous = at
        marks.append(line(at, height + 4, at, bottom, "margin" if reference.strong else "zero"))
        anchor = "start" if at < 60 else "end" if at > WIDTH - 60 else "middle"
        shift = -4 if anchor == "start" else 4 if anchor == "end" else 0
        class_ = "t warn" if reference.strong else "t m"
        marks.append(text(at + shift, height, reference.label, class_, anchor))
    return marks


def _estimate(estimate: Estimate, x: Scale, top: float) -> list[Markup]:
    y = top + _ROW / 2
    marks: list[Markup] = []
    if estimate.label:
        marks.append(text(0, y + 4, estimate.label))
    if estimate.low is not None and estimate.high is not None:
        low, high = x(estimate.low), x(estimate.high)
        marks.append(line(low, y, high, y, "whisker"))
        marks += [line(end, y - 4, end, y + 4, "whisker") for end in (low, high)]
    if estimate.bound is not None:
        at = x(estimate.bound)
        marks.append(line(at, y - 8, at, y + 8, "bound"))
        marks.append(line(at, y - 8, at - 4, y - 8, "bound"))
        marks.append(line(at, y + 8, at - 4, y + 8, "bound"))
    marks.append(dots([(x(estimate.value), y)], "dot" if estimate.label else "dot big"))
    return marks
