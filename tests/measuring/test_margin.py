"""A drop is read as it is meant, and points are not taken for shares."""

from __future__ import annotations

import pytest

from kompakt.errors import UsageError
from kompakt.measuring.margin import check_drop, read_drop
from kompakt.measuring.metrics import METRICS
from kompakt.search.budget import Budget


@pytest.mark.parametrize(
    ("given", "drop"),
    [("2%", 0.02), ("0.5 %", 0.005), ("0.02", 0.02), (0.02, 0.02), (0, 0.0), (None, None)],
)
def test_drops_as_people_write_them(given: object, drop: float | None) -> None:
    assert read_drop(given) == drop


@pytest.mark.parametrize(
    "given", ["", "two", "-1%", "2 points", "nan", -0.1, float("nan"), float("inf"), True, [0.1]]
)
def test_what_is_no_drop_is_refused_and_told_how_to_write_one(given: object) -> None:
    with pytest.raises(UsageError, match="K004") as caught:
        read_drop(given, "--max-drop", "K004")
    assert "--max-drop" in caught.value.what
    assert "2%" in caught.value.help


@pytest.mark.parametrize("name", ["top1", "f1", "agreement", "spearman", "cosine"])
def test_a_drop_no_model_can_have_is_taken_for_a_mistake(name: str) -> None:
    with pytest.raises(UsageError, match="K600") as caught:
        check_drop(METRICS[name], 2.0)
    assert "0.02 is two points" in caught.value.help
    check_drop(METRICS[name], 0.99)
    check_drop(METRICS[name], None)


@pytest.mark.parametrize("name", ["perplexity", "psnr"])
def test_metrics_with_other_units_may_lose_more_than_one(name: str) -> None:
    check_drop(METRICS[name], 2.0)


def test_a_budget_takes_a_percentage_and_refuses_other_text() -> None:
    assert Budget(max_drop="1%").max_drop == 0.01  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="K600") as caught:
        Budget(max_size="10MB")  # type: ignore[arg-type]
    assert "10_000_000" in caught.value.help
