"""Figures: what is drawn where, and that texts in them are escaped."""

from __future__ import annotations

import re
from xml.etree import ElementTree

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kompakt.report.plots.axis import Scale, covering, tick_label, ticks
from kompakt.report.plots.bars import Bar, pair, ranked
from kompakt.report.plots.histogram import Distribution, histogram
from kompakt.report.plots.intervals import Band, Estimate, Reference, intervals
from kompakt.report.plots.profile import Point, profile
from kompakt.report.plots.scatter import Spot, scatter
from kompakt.report.plots.svg import dots, element, picture, text

SAYS = {"ident": "p", "title": "a title", "desc": "a description"}
finite = st.floats(-1e12, 1e12)


def elements(svg: str, class_: str) -> list[ElementTree.Element]:
    return [e for e in ElementTree.fromstring(svg).iter() if e.get("class") == class_]


@given(finite, finite)
def test_ticks_are_round_and_inside(a: float, b: float) -> None:
    low, high = min(a, b), max(a, b)
    values = ticks(low, high)
    assert 1 <= len(values) <= 12 or low == high or high - low < 1e-300
    slack = (high - low) * 1e-6
    assert all(low - slack <= value <= high + slack for value in values)


def test_ticks_and_labels_as_people_write_them() -> None:
    assert ticks(-0.2, 0.53) == pytest.approx([-0.2, 0, 0.2, 0.4])
    assert [tick_label(v, 0.2) for v in (-0.2, 0.0, 1e-17, 0.4)] == ["−0.2", "0", "0", "0.4"]
    assert tick_label(250_000, 50_000) == "2.5e+05"


@given(st.lists(finite, min_size=1, max_size=5))
def test_a_covering_scale_shows_every_value(values: list[float]) -> None:
    scale = covering(values, start=10, end=90)
    assert all(10 <= scale(value) <= 90 for value in values)


def test_values_outside_a_scale_stay_at_its_border() -> None:
    scale = Scale(low=0, high=1, start=0, end=10)
    assert (scale(-5), scale(0.5), scale(7)) == (0, 5, 10)
    assert Scale(low=1, high=1, start=0, end=10)(1) == 5


def test_a_picture_says_what_it_is_and_escapes_what_it_is_told() -> None:
    svg = picture(10, 10, "p", "<b>\x00", "a&b", text(0, 0, "</text><script>"))
    root = ElementTree.fromstring(svg)
    assert root.get("role") == "img"
    assert [child.text for child in root] == ["<b>�", "a&b", "</text><script>"]
    assert root.get("aria-labelledby") == "p-t p-d"
    assert element("a", href='"><x') == '<a href="&#34;&gt;&lt;x"/>'


def test_marks_have_length_or_they_vanish_in_print() -> None:
    assert 'd="M1 2h.01M3 4.5h.01"' in dots([(1, 2), (3, 4.5)], "dot")
    assert dots([], "dot") == ""


def test_a_histogram_tells_clipped_values_from_kept_ones() -> None:
    data = Distribution(edges=[0, 1, 2, 3, 4], counts=[100, 0, 10, 1], low=0, high=2.2, seen=(0, 4))
    svg = histogram(data, **SAYS)
    inside, outside = elements(svg, "new"), elements(svg, "clip")
    assert [len(re.findall("Z", e.get("d", ""))) for e in (*inside, *outside)] == [1, 2]
    assert len(elements(svg, "range")) == 2
    assert len(elements(svg, "bracket")) == 1
    assert len(elements(svg, "seen")) == 2
    open_ended = histogram(
        Distribution(edges=[0, 1, 2], counts=[1, 1], low=None, high=None), **SAYS
    )
    assert not elements(open_ended, "clip")
    assert not elements(open_ended, "range")


def test_a_chosen_range_outside_the_data_is_still_in_the_picture() -> None:
    data = Distribution(edges=[0, 1], counts=[5], low=-10, high=10)
    low, high = (
        float(e.get("d", "")[1:].split()[0]) for e in elements(histogram(data, **SAYS), "range")
    )
    assert 30 <= low < high <= 312
    assert high - low > 250


def test_bars_are_in_proportion_and_start_at_zero() -> None:
    svg = pair(4.0, 1.0, **SAYS)
    (old,), (new,) = elements(svg, "old hatch"), elements(svg, "new")
    assert float(old.get("width", 0)) == pytest.approx(4 * float(new.get("width", 0)), rel=0.01)
    assert old.get("x") == new.get("x") == "1"
    assert not elements(pair(None, 1.0, **SAYS), "old hatch")


def test_ranked_bars_show_names_values_and_kinds() -> None:
    svg = ranked(
        [
            Bar(mark="1", name="a" * 90, value=1.0, label="18 dB", hatched=False),
            Bar(mark="2", name="<b>", value=0.5, label="20 dB", hatched=True),
        ],
        1.0,
        **SAYS,
    )
    names = [e.text or "" for e in elements(svg, "t code")]
    assert (len(names[0]), names[1]) == (30, "<b>")
    (solid,), (hatched,) = elements(svg, "new"), elements(svg, "old hatch")
    assert float(solid.get("width", 0)) == 2 * float(hatched.get("width", 0))


def test_intervals_show_the_estimate_its_ends_its_bound_and_the_references() -> None:
    svg = intervals(
        [Estimate(value=0.15, low=-0.17, high=0.47, bound=0.42)],
        [Reference(value=0, label="no change"), Reference(value=0.5, label="allowed", strong=True)],
        axis="points",
        band=Band(low=-0.1, high=0.1),
        **SAYS,
    )
    assert len(elements(svg, "whisker")) == 3
    assert len(elements(svg, "bound")) == 3
    assert len(elements(svg, "band")) == len(elements(svg, "margin")) == 1
    labels = [e.text for e in ElementTree.fromstring(svg).iter() if e.text]
    assert {"no change", "allowed", "points"} <= set(labels)
    bare = intervals([Estimate(value=1.0)], [], axis="x", **SAYS)
    assert not elements(bare, "whisker")


def test_reference_labels_that_are_close_stand_above_each_other() -> None:
    references = [Reference(value=0, label="no change"), Reference(value=0.01, label="allowed")]
    svg = intervals([Estimate(value=1.0)], references, axis="x", **SAYS)
    first, second = (e for e in elements(svg, "t m") if e.text in ("no change", "allowed"))
    assert first.get("y") != second.get("y")


def test_a_profile_separates_weights_from_activations_by_shape() -> None:
    points = [Point(at=0, value=20, square=True, mark="1"), Point(at=0.5, value=40, square=False)]
    svg = profile(
        [*points, Point(at=1, value=float("inf"), square=False)], x_label="x", y_label="y", **SAYS
    )
    assert [e.get("d", "").count("M") for e in elements(svg, "square")] == [1]
    assert [e.get("d", "").count("M") for e in elements(svg, "dot")] == [2]
    assert [e.text for e in elements(svg, "t b halo")] == ["1"]


@pytest.mark.parametrize(
    ("shape", "class_", "count"),
    [("diamond", "new", 1), ("ring", "ring", 1), ("cross", "stroke", 2), ("triangle", "hollow", 1)],
)
def test_trials_differ_by_shape_not_only_by_colour(shape: str, class_: str, count: int) -> None:
    spots = [Spot(x=0, y=1, mark="1", shape=shape)]
    svg = scatter(spots, x_label="x", y_label="y", x_limit=0.5, y_limit=2.0, **SAYS)
    assert len(elements(svg, class_)) == count
    assert len(elements(svg, "margin")) == 2


def test_numbers_of_trials_close_together_do_not_cover_each_other() -> None:
    spots = [Spot(x=0, y=1 + step / 100, mark=str(step), shape="ring") for step in range(4)]
    svg = scatter(
        [*spots, Spot(x=9, y=9, mark="9", shape="ring")], x_label="x", y_label="y", **SAYS
    )
    places = [
        (e.get("x"), e.get("y")) for e in elements(svg, "t m halo") if (e.text or "") in "0123"
    ]
    assert len(set(places)) == 4
