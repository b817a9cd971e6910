from __future__ import annotations

import pytest

from kompakt.cli.quantities import check_number, parse_dynamic, parse_latency, parse_size
from kompakt.errors import UsageError


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("10MB", 10_000_000),
        ("500kB", 500_000),
        ("1MiB", 1_048_576),
        ("1.5 gb", 1_500_000_000),
        ("2e3B", 2000),
        ("0.4B", 1),
        (None, None),
    ],
)
def test_sizes(text: str | None, size: int | None) -> None:
    assert parse_size("--max-size", text) == size


@pytest.mark.parametrize(
    ("text", "milliseconds"),
    [("5ms", 5.0), ("200us", 0.2), ("200µs", 0.2), ("0.1s", 100.0), ("3", 3.0), (None, None)],
)
def test_latencies(text: str | None, milliseconds: float | None) -> None:
    assert parse_latency("--max-latency", text) == pytest.approx(milliseconds)


@pytest.mark.parametrize(
    "text",
    ["", "10", "MB", "10XB", "-5MB", "0MB", "1e999MB", "nan", "inf", "10 M B", "١٠MB", "5ms"],
)
def test_unusable_sizes_are_usage_errors(text: str) -> None:
    with pytest.raises(UsageError) as caught:
        parse_size("--max-size", text)
    assert caught.value.code == "K004"
    assert "--max-size" in caught.value.what


@pytest.mark.parametrize("text", ["-5ms", "5MB", "0", "soon"])
def test_unusable_latencies_are_usage_errors(text: str) -> None:
    with pytest.raises(UsageError):
        parse_latency("--max-latency", text)


def test_numbers_have_bounds() -> None:
    check_number("--x", 0.0, at_least=0, why="")
    check_number("--x", None, at_least=0, why="")
    for value in (-0.1, float("nan"), float("inf")):
        with pytest.raises(UsageError):
            check_number("--x", value, at_least=0, why="because")


def test_dynamic_dimensions() -> None:
    assert parse_dynamic("--dynamic", None) is None
    assert parse_dynamic("--dynamic", ["none"]) == {}
    assert parse_dynamic("--dynamic", ["ids:1=sequence", "ids:2=depth", "mask:-1=sequence"]) == {
        "ids": {1: "sequence", 2: "depth"},
        "mask": {-1: "sequence"},
    }


@pytest.mark.parametrize("text", ["ids", "ids:1", "ids:x=sequence", "ids:1=", ":1=s", "ids:1=a b"])
def test_unusable_dynamic_dimensions_are_usage_errors(text: str) -> None:
    with pytest.raises(UsageError) as caught:
        parse_dynamic("--dynamic", [text])
    assert caught.value.code == "K022"
