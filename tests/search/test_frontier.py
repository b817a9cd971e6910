"""The front: nothing is dropped that its interval might save."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kompakt.search.frontier import (
    Point,
    Span,
    certainly_dominates,
    dominates,
    point_of,
    standings,
)


def point(drop: float, time: float, size: float, bar: float = 0.0, scale: str = "") -> Point:
    return {
        "drop": Span(value=drop, low=drop - bar, high=drop + bar),
        "time": Span(value=time, low=time - bar, high=time + bar, scale=scale),
        "size": Span(value=size, low=size, high=size),
    }


def words(*points: Point) -> list[str]:
    return [standing for standing, _ in standings(points)]


def test_without_bars_it_is_the_ordinary_front() -> None:
    found = standings([point(1, 1, 1), point(2, 2, 2), point(0, 3, 3), point(3, 0, 3)])
    assert found == [("front", None), ("dominated", 0), ("front", None), ("front", None)]


def test_worse_within_the_bars_is_not_told_apart() -> None:
    assert words(point(1, 1, 1, 0.4), point(1.5, 1.5, 1, 0.4)) == ["front", "not told apart"]
    assert words(point(1, 1, 1, 0.2), point(1.5, 1.5, 1, 0.2)) == ["front", "dominated"]


def test_one_overlap_is_enough_to_stay() -> None:
    better, worse = point(1, 1, 1, 0.1), point(1.05, 9, 9, 0.1)
    assert words(better, worse) == ["front", "not told apart"]


def test_equal_figures_leave_both_on_the_front() -> None:
    assert words(point(1, 1, 1), point(1, 1, 1)) == ["front", "front"]


def test_a_figure_that_was_not_measured_tells_nothing_apart() -> None:
    unknown = {**point(9, 9, 9), "time": None}
    assert words(point(1, 1, 1), unknown) == ["front", "front"]
    assert words({**point(1, 1, 1), "time": None}, unknown) == ["front", "dominated"]


def test_times_of_different_machines_are_not_compared() -> None:
    here, there = point(1, 1, 1, scale="a"), point(9, 9, 9, scale="b")
    assert words(here, there) == ["front", "front"]


def test_a_row_becomes_a_point() -> None:
    row: dict[str, Any] = {
        "drop": 0.01,
        "drop_interval": [0.0, 0.03],
        "size_bytes": 1000,
        "timing": {"speedup": 2.0, "speedup_interval": [1.6, 2.5], "machine": "m"},
    }
    found = point_of(row)
    assert found["drop"] == Span(value=0.01, low=0.0, high=0.03)
    assert found["time"] == Span(value=0.5, low=0.4, high=0.625, scale="m")
    assert found["size"] == Span(value=1000, low=1000, high=1000)
    assert point_of({"output_error": 0.2})["drop"] == Span(
        value=0.2, low=0.2, high=0.2, scale="error"
    )
    assert point_of({}) == {"drop": None, "time": None, "size": None}


spans = st.tuples(st.integers(0, 4), st.integers(0, 2), st.integers(0, 2))


@given(st.lists(st.tuples(spans, spans, st.integers(0, 3)), min_size=1, max_size=7))
def test_what_is_said_holds_for_any_true_values_within_the_bars(rows: list[Any]) -> None:
    points: list[Point] = [
        {
            "drop": Span(value=d[0], low=d[0] - d[1], high=d[0] + d[2]),
            "time": Span(value=t[0], low=t[0] - t[1], high=t[0] + t[2]),
            "size": Span(value=s, low=s, high=s),
        }
        for d, t, s in rows
    ]
    rng = np.random.default_rng(0)
    found = standings(points)
    assert any(standing == "front" for standing, _ in found)
    for here, (standing, better) in enumerate(found):
        if standing == "front":
            assert better is None
            assert not any(dominates(other, points[here]) for other in points)
            continue
        assert better is not None
        assert dominates(points[better], points[here])
        if standing == "dominated":
            for _ in range(5):
                theirs, ours = (
                    {n: _drawn(s, rng) for n, s in points[i].items()} for i in (better, here)
                )
                assert all(theirs[n] <= ours[n] for n in ours)
        else:
            assert not any(certainly_dominates(other, points[here]) for other in points)


def _drawn(span: Span | None, rng: np.random.Generator) -> float:
    assert span is not None
    return float(rng.uniform(span.low, span.high))


@pytest.mark.parametrize("beats", [dominates, certainly_dominates])
def test_nothing_beats_itself(beats: Any) -> None:
    assert not beats(point(1, 1, 1, 0.5), point(1, 1, 1, 0.5))
