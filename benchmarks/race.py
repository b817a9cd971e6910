"""Several model files timed in turn in one process, in random order, each against the first.

Whatever slows the machine for a while slows all files of a round alike: a file's speed is the
median over the rounds of the first file's time divided by its own.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from kompakt.measuring.statistics import order_statistic_interval

ROUNDS = 60
LEAST_MS = 1.0
WARM_CALLS = 3


@dataclass(frozen=True, kw_only=True)
class Time:
    """One file's times.

    Attributes:
        median_ms: Median of one call.
        speed: Median over the rounds of the first file's time over this one's.
        interval: Order-statistic interval of that median, 95 %.
    """

    median_ms: float
    speed: float
    interval: tuple[float, float]


def race(
    runs: Mapping[str, Callable[[], Any]], rng: np.random.Generator, rounds: int = ROUNDS
) -> dict[str, Time]:
    """Time all of ``runs``; the first of them is what the others are compared with."""
    repeats = {name: _repeats(run) for name, run in runs.items()}
    times = {name: np.empty(rounds) for name in runs}
    names = list(runs)
    for turn in range(rounds):
        for position in rng.permutation(len(names)):
            name = names[position]
            times[name][turn] = _milliseconds(runs[name], repeats[name]) / repeats[name]
    first = times[names[0]]
    return {
        name: Time(
            median_ms=float(np.median(own)),
            speed=float(np.median(first / own)),
            interval=order_statistic_interval(first / own, 0.5, 0.05),
        )
        for name, own in times.items()
    }


def _repeats(run: Callable[[], Any]) -> int:
    for _ in range(WARM_CALLS):
        run()
    repeats = 1
    while _milliseconds(run, repeats) < LEAST_MS:
        repeats *= 2
    return repeats


def _milliseconds(run: Callable[[], Any], repeats: int) -> float:
    start = time.perf_counter_ns()
    for _ in range(repeats):
        run()
    return (time.perf_counter_ns() - start) / 1e6
