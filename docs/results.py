"""Tables of measurements, from benchmarks/results/*.json."""

from __future__ import annotations


def table(name: str, language: str) -> str:
    """PLACEHOLDER."""
    return ""
