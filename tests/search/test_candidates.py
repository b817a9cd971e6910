"""What the ladder tries, in which order, and what stays float in all of it."""

from __future__ import annotations

import pytest

from kompakt.quantize import METHODS
from kompakt.schemes import w8a8
from kompakt.search.candidates import (
    LEVELS,
    Candidate,
    static,
    with_bias_correction,
    without_data,
)


def test_candidates_are_named_and_keep_what_must_stay_float() -> None:
    found = [*without_data(("head",)), static("mse", ("head",))]
    assert len({c.name for c in found}) == len(found)
    assert [c.level for c in found] == [1, 1, 1, 2]
    for candidate in found:
        assert candidate.level in LEVELS
        assert [o.select for o in candidate.scheme.overrides] == ["head"]
        assert [o.treatment.mode for o in candidate.scheme.overrides] == ["float"]
        assert candidate.why


def test_what_is_tried_without_data_needs_none() -> None:
    assert [c.scheme.default.mode for c in without_data()] == [
        "dynamic", "weight_only", "weight_only",
    ]  # fmt: skip
    assert not any(c.scheme.needs_calibration or c.calibrator for c in without_data())
    assert static("mse").scheme.needs_calibration


def test_a_correction_is_added_to_a_candidate_that_stays_as_it_was() -> None:
    plain = static("mse", ("head",))
    corrected = with_bias_correction(plain)
    assert corrected.methods == ("bias_correction",)
    assert set(corrected.methods) <= set(METHODS)
    assert corrected.name == "static (mse) + bias correction"
    assert corrected.scheme == plain.scheme
    assert corrected.calibrator == "mse"
    assert plain.methods == ()


@pytest.mark.parametrize(
    ("calibrator", "shown"),
    [(None, None), ("mse", "mse"), ({"a": "mse", "b": "minmax"}, "per site")],
)
def test_the_calibrator_in_tables(calibrator: object, shown: str | None) -> None:
    candidate = Candidate(name="x", level=2, scheme=w8a8(), calibrator=calibrator)  # type: ignore[arg-type]
    assert candidate.calibrator_name == shown
