"""The largest drop somebody accepts: read from what was written, and held against the metric."""

from __future__ import annotations

import math
import re

from kompakt.errors import UsageError
from kompakt.measuring.metric import Metric

_PERCENT = re.compile(r"\s*([0-9]*\.?[0-9]+(?:[eE][+-]?[0-9]+)?)\s*(%?)\s*")


def read_drop(value: object, name: str = "max_drop", code: str = "K600") -> float | None:
    """A drop in the unit of the metric.

    Args:
        value: A number, ``None``, or text: ``"0.02"``, or ``"2%"`` for the same.
        name: What it was given as, for the message.
        code: Of the error.

    Raises:
        UsageError: K600 (or ``code``) when it is no number, negative or infinite.

    >>> read_drop("2%")
    0.02
    """
    if value is None:
        return None
    if isinstance(value, str):
        match = _PERCENT.fullmatch(value)
        number = float(match[1]) / (100 if match[2] else 1) if match else math.nan
    else:
        number = float(value) if isinstance(value, int | float) else math.nan
    if not 0 <= number < math.inf or isinstance(value, bool):
        raise UsageError(
            code,
            f"{name} {value}",
            why="a drop is a loss: a number of 0 or more, in the unit of the metric",
            help="write 0.02 or 2% for two points of accuracy",
        )
    return number


def check_drop(metric: Metric, drop: float | None, name: str = "max_drop") -> None:
    """Refuse a drop that a metric of at most 1 cannot exceed: points were meant.

    Raises:
        UsageError: K600.
    """
    if drop is None or metric.bounds is None or max(map(abs, metric.bounds)) > 1 or drop < 1:
        return
    low, high = metric.bounds
    raise UsageError(
        "K600",
        f"{name} {drop:g} of {metric.name}",
        why=f"{metric.name} lies between {low:g} and {high:g}: any model would be good enough",
        help=f"0.02 is two points; write {drop / 100:g} or {drop:g}% for {drop:g} points"
        if drop < 100
        else "0.02 is two points",
    )
