"""The right layer and the right cause come first, and nothing is said of a good model."""

from __future__ import annotations

from functools import cache

import pytest
import torch

from kompakt.search.diagnosing import WORTH_A_WORD, Diagnosis

from ..diagnosis_grounds import (
    Planter,
    diagnosis_of,
    digits_ground,
    faults_for,
    hit,
    judged,
    planted,
)

FAULTS = faults_for(digits_ground())


@cache
def clean() -> Diagnosis:
    ground = digits_ground()
    return diagnosis_of(ground, Planter(ground, 0).case(codes=[]))


def test_a_good_model_is_not_accused() -> None:
    found = clean()
    assert found.faults == []
    assert found.output_error is not None
    assert found.output_error < WORTH_A_WORD
    assert "nothing is wrong" in found.summary
    assert len(found.sites) > 15
    assert all(error.own > 0 for error in found.sites if error.site.kind != "cat")


@pytest.mark.parametrize("fault", FAULTS)
def test_a_planted_fault_comes_first(fault: str) -> None:
    case = planted(digits_ground(), fault, 0)
    found = diagnosis_of(digits_ground(), case)
    assert hit(found, case), (case.what, repr(found))
    first = found.faults[0]
    if first.after is not None and first.cause.code != "denormal_weights":
        assert first.after < 0.8 * first.before, "its remedy was tried and helps"
        assert first.remedy is not None
        assert first.remedy.words in first.sentence
    if case.sites:
        assert first.cause.site in first.cause.sentence


@pytest.mark.slow
@pytest.mark.parametrize("seed", [1, 2])
@pytest.mark.parametrize("fault", FAULTS)
def test_wherever_and_however_strong_it_was_planted(fault: str, seed: int) -> None:
    case, found = judged(digits_ground(), fault, seed, clean().output_error or 0.0)
    assert hit(found, case), (case.what, repr(found))


def test_planting_leaves_the_float_function_as_it_is() -> None:
    """So that what is found is the fault and not another model."""
    ground = digits_ground()
    x = ground.data[0]
    with torch.no_grad():
        exact = ground.model(x)
        for fault in ("outlier_channel", "uneven_channels", "weight_outlier", "shared_range"):
            model = planted(ground, fault, 1).model
            assert torch.allclose(model(x), exact, atol=1e-3), fault


def test_what_was_tried_is_told_with_its_figures() -> None:
    case = planted(digits_ground(), "coarse_weights", 1)
    found = diagnosis_of(digits_ground(), case)
    told = found.to_json()
    first = told["causes"][0]
    assert first["step"] == "eight_bits"
    assert first["tried"][0] == ["give its weights 8 bits", pytest.approx(first["after"])]
    assert first["before"] == pytest.approx(told["output_error"])
    assert {"clipping", "rounding", "saturation", "formula", "propagated", "alone"} <= set(
        told["sites"][0]
    )
