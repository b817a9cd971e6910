"""SVG elements as safe markup, and the small set of marks that all figures are drawn with.

Coordinates are in user units of a picture whose width is chosen so that text of 11 units is
readable on a phone without zooming. Colours come from the page's style sheet by class.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from markupsafe import Markup, escape

from kompakt.escaping import html


def compact(value: float) -> str:
    """A coordinate with at most one decimal: nobody sees a hundredth of a unit."""
    text = f"{value:.1f}"
    return text[:-2] if text.endswith(".0") else text


def element(name: str, *children: Markup, **attributes: str | float | None) -> Markup:
    """One SVG element.

    Args:
        name: Tag name.
        children: What stands inside; text goes through :func:`text`.
        attributes: ``class_`` and ``stroke_width`` become ``class`` and ``stroke-width``; ``None``
            leaves one out.
    """
    parts = [name]
    for key, value in attributes.items():
        if value is not None:
            shown = value if isinstance(value, str) else compact(value)
            parts.append(f'{key.rstrip("_").replace("_", "-")}="{escape(shown)}"')
    opening = " ".join(parts)
    if not children:
        return Markup(f"<{opening}/>")
    return Markup(f"<{opening}>") + Markup("").join(children) + Markup(f"</{name}>")


def content(value: str, limit: int = 80) -> Markup:
    """Text content: plain, shortened, escaped."""
    return Markup(html(value, limit))


def text(x: float, y: float, value: str, class_: str = "t", anchor: str | None = None) -> Markup:
    """A line of text with its baseline at ``y``."""
    return element("text", content(value), x=x, y=y, class_=class_, text_anchor=anchor)


def line(x1: float, y1: float, x2: float, y2: float, class_: str) -> Markup:
    """A straight stroke."""
    path = f"M{compact(x1)} {compact(y1)}L{compact(x2)} {compact(y2)}"
    return element("path", d=path, class_=class_)


def rectangle(x: float, y: float, width: float, height: float, class_: str) -> Markup:
    """A filled box, at least a hair wide, so that a small value is still seen."""
    return element("rect", x=x, y=y, width=max(width, 0.5), height=max(height, 0.5), class_=class_)


def dots(points: Iterable[tuple[float, float]], class_: str) -> Markup:
    """Many equal marks as one path of tiny strokes; the line cap gives them their shape.

    Not of zero length: printed, those vanish.
    """
    path = "".join(f"M{compact(x)} {compact(y)}h.01" for x, y in points)
    return element("path", d=path, class_=class_) if path else Markup("")


def polygon(points: Sequence[tuple[float, float]], class_: str) -> Markup:
    """A closed shape."""
    path = "M" + "L".join(f"{compact(x)} {compact(y)}" for x, y in points) + "Z"
    return element("path", d=path, class_=class_)


def picture(
    width: float, height: float, ident: str, title: str, desc: str, *children: Markup
) -> Markup:
    """A whole figure that says in words what it shows.

    Args:
        width: Width in user units.
        height: Height in user units.
        ident: Unique in the page; ties title and description to the figure for screen readers.
        title: What it is, in one line.
        desc: What can be seen in it.
        children: The drawing.
    """
    return element(
        "svg",
        element("title", content(title, 200), id=f"{ident}-t"),
        element("desc", content(desc, 400), id=f"{ident}-d"),
        *children,
        viewBox=f"0 0 {compact(width)} {compact(height)}",
        role="img",
        aria_labelledby=f"{ident}-t {ident}-d",
    )
