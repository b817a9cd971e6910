"""Colours are readable: WCAG 2 contrast of the style sheet's own variables, light and dark."""

from __future__ import annotations

import re
from importlib.resources import files

import pytest

STYLE = files("kompakt.report").joinpath("templates/style.css").read_text(encoding="utf-8")
TEXT = [("ink", "paper"), ("muted", "paper"), ("mark", "paper"), ("ink", "wash"), ("mark", "wash")]
SHAPES = [("new", "paper"), ("old", "paper"), ("mark", "paper"), ("muted", "paper")]


def palette(scheme: str) -> dict[str, str]:
    light, dark = re.findall(r":root \{(.*?)\}", STYLE, re.DOTALL)[:2]
    colours = dict(re.findall(r"--(\w+): (#[0-9a-f]{6})", light))
    if scheme == "dark":
        changed = dict(re.findall(r"--(\w+): (#[0-9a-f]{6})", dark))
        assert changed.keys() == colours.keys()
        colours |= changed
    return colours


def luminance(colour: str) -> float:
    channels = [int(colour[start : start + 2], 16) / 255 for start in (1, 3, 5)]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrast(first: str, second: str) -> float:
    lighter, darker = sorted((luminance(first), luminance(second)), reverse=True)
    return (lighter + 0.05) / (darker + 0.05)


def test_the_formula_is_right() -> None:
    assert contrast("#000000", "#ffffff") == pytest.approx(21)
    assert contrast("#767676", "#ffffff") == pytest.approx(4.54, abs=0.01)


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize(("text", "ground"), TEXT)
def test_text_is_readable(scheme: str, text: str, ground: str) -> None:
    colours = palette(scheme)
    assert contrast(colours[text], colours[ground]) >= 4.5


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize(("shape", "ground"), SHAPES)
def test_shapes_stand_out(scheme: str, shape: str, ground: str) -> None:
    colours = palette(scheme)
    assert contrast(colours[shape], colours[ground]) >= 3


def test_text_uses_only_colours_that_were_checked() -> None:
    for used in re.findall(r"(?<![-\w])color: var\(--(\w+)\)", STYLE):
        assert used in {text for text, _ in TEXT}


def test_the_page_asks_for_nothing() -> None:
    assert not re.search(r"@import|@font-face|url\((?!#)", STYLE)
