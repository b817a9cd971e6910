"""Speed, measured so that it can be believed on a machine that does other things too.

Both models run in one process, in random order within each pair, each timing lasting at least a
millisecond. The figure is the median of the pairs' ratios with its distribution-free interval:
whatever slows the machine slows both halves of a pair. First the float model runs against itself;
if that interval is wider than the margin, the machine is too noisy and the result says so.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from kompakt.errors import MetricError
from kompakt.measuring.statistics import order_statistic_interval
from kompakt.progress import track

Floats = NDArray[np.float64]
LEAST_PAIRS = 60
LEAST_ROUNDS = 20
DEFAULT_MARGIN = 0.05
_SETTLE_S = 0.03
_WARM_CALLS = 3
_MOST_REPEATS = 1_000_000
_PROBES = 5
SpeedVerdict = Literal["proven", "violated", "undecided"]


@dataclass(frozen=True, kw_only=True)
class Clock:
    """Where time comes from; tests bring their own.

    Attributes:
        now_ns: Monotonic time in nanoseconds.
        sleep: Wait for so many seconds.
    """

    now_ns: Callable[[], int] = time.perf_counter_ns
    sleep: Callable[[float], None] = time.sleep


@dataclass(frozen=True, kw_only=True)
class LatencySummary:
    """Times of one call.

    Attributes:
        median_ms: Median.
        p90_ms: 90th percentile.
        interval_ms: Order-statistic interval of the median.
        timings: How many timings; each is the mean of ``repeats`` calls.
        repeats: Calls in one timing.
    """

    median_ms: float
    p90_ms: float
    interval_ms: tuple[float, float]
    timings: int
    repeats: int

    def throughput(self, batch: int) -> float:
        """Samples a second with so many samples in a call."""
        return 1000.0 * batch / self.median_ms


@dataclass(frozen=True, kw_only=True)
class LatencyComparison:
    """Speed of a candidate against the float model.

    Attributes:
        ratio: Speedup: median of float time / candidate time over the pairs; above 1 is faster.
        interval: Order-statistic interval of that median.
        baseline: Times of the float model.
        candidate: Times of the candidate.
        noise_interval: The same interval for the float model against itself; ``None`` if not run.
        noisy: Whether that interval is wider than the margin: then small differences mean nothing.
        margin: Relative difference that has to be told from noise.
        pairs: How many pairs.
        confidence: Of the intervals.
        seconds: How long measuring took.
    """

    ratio: float
    interval: tuple[float, float]
    baseline: LatencySummary
    candidate: LatencySummary
    noise_interval: tuple[float, float] | None
    noisy: bool
    margin: float
    pairs: int
    confidence: float
    seconds: float

    @property
    def float_ms(self) -> float:
        """Median time of the float model."""
        return self.baseline.median_ms

    @property
    def candidate_ms(self) -> float:
        """Median time of the candidate."""
        return self.candidate.median_ms

    def verdict(self, minimum: float) -> SpeedVerdict:
        """Whether the speedup is at least ``minimum``; on a noisy machine by more than the noise."""
        slack = self._slack
        if self.interval[0] / slack >= minimum:
            return "proven"
        return "violated" if self.interval[1] * slack < minimum else "undecided"

    def within(self, limit_ms: float) -> SpeedVerdict:
        """Whether the candidate's median time is at most ``limit_ms``."""
        (low, high), slack = self.candidate.interval_ms, self._slack
        if high * slack <= limit_ms:
            return "proven"
        return "violated" if low / slack > limit_ms else "undecided"

    @property
    def _slack(self) -> float:
        """How far apart a noisy machine's times for one and the same model lie; 1 on a quiet one."""
        if self.noise_interval is None or not self.noisy:
            return 1.0
        return max(self.noise_interval[1], 1 / max(self.noise_interval[0], 1e-9), 1.0)


def compare_latency(
    float_fn: Callable[[], Any],
    candidate_fn: Callable[[], Any],
    *,
    rng: np.random.Generator,
    pairs: int = LEAST_PAIRS,
    min_ms: float = 1.0,
    margin: float | None = None,
    guard: bool = True,
    threads: int = 1,
    max_seconds: float = 60.0,
    confidence: float = 0.95,
    clock: Clock | None = None,
    task: str = "measuring latency",
) -> LatencyComparison:
    """Measure how much faster a candidate is.

    Args:
        float_fn: One call of the float model; no arguments.
        candidate_fn: One call of the candidate.
        rng: Decides the order within each pair.
        pairs: Pairs to time, at least 60. When time is up, no more than 60 are timed.
        min_ms: Least duration of one timing; short calls are repeated within it.
        margin: Relative difference that has to be told from noise; 0.05 unless given.
        guard: Whether to run the float model against itself first.
        threads: Threads the runtimes use. Above 1, their idle threads keep spinning for a while
            after each call and slow the next runtime several times; so each timing is then
            preceded by 30 ms of rest and three warm-up calls.
        max_seconds: After this long, measuring ends with 60 pairs.
        confidence: Of the intervals.
        clock: Another source of time.
        task: What to call it while it runs.

    Raises:
        MetricError: K240 for fewer than 60 pairs or a clock that does not advance.
    """
    if pairs < LEAST_PAIRS or not min_ms > 0 or threads < 1:
        raise MetricError(
            "K240",
            f"{pairs} pairs of at least {min_ms:g} ms on {threads} threads",
            why=f"at least {LEAST_PAIRS} pairs, a positive time and one thread are needed",
        )
    stopwatch = _Stopwatch(clock or Clock(), min_ms, threads)
    began = stopwatch.clock.now_ns()
    deadline = began + int(max_seconds * 1e9)
    first, second = stopwatch.prepared(float_fn), stopwatch.prepared(candidate_fn)
    noise = None
    if guard:
        runs = stopwatch.pairs(first, first, LEAST_PAIRS, rng, deadline, f"{task}: noise")
        noise = _ratio_interval(runs, confidence)
    runs = stopwatch.pairs(first, second, pairs, rng, deadline, task)
    limit = DEFAULT_MARGIN if margin is None else margin
    return LatencyComparison(
        ratio=float(np.median(runs[:, 0] / runs[:, 1])),
        interval=_ratio_interval(runs, confidence),
        baseline=_summary(runs[:, 0], first.repeats, confidence),
        candidate=_summary(runs[:, 1], second.repeats, confidence),
        noise_interval=noise,
        noisy=noise is not None and max(noise[1] - 1, 1 - noise[0]) > limit,
        margin=limit,
        pairs=len(runs),
        confidence=confidence,
        seconds=(stopwatch.clock.now_ns() - began) / 1e9,
    )


def measure_latency(
    fn: Callable[[], Any],
    *,
    timings: int = LEAST_PAIRS,
    min_ms: float = 1.0,
    threads: int = 1,
    confidence: float = 0.95,
    clock: Clock | None = None,
) -> LatencySummary:
    """Time one model alone; for comparing two, use :func:`compare_latency`.

    Args:
        fn: One call of the model; no arguments.
        timings: How many timings.
        min_ms: Least duration of one timing.
        threads: Threads the runtime uses.
        confidence: Of the interval.
        clock: Another source of time.

    Raises:
        MetricError: K240 for a clock that does not advance.
    """
    stopwatch = _Stopwatch(clock or Clock(), min_ms, threads)
    timed = stopwatch.prepared(fn)
    return _summary(
        np.array([stopwatch.time_ms(timed) for _ in range(timings)]), timed.repeats, confidence
    )


def time_in_turn(
    calls: Mapping[str, Callable[[], Any]],
    *,
    rng: np.random.Generator,
    rounds: int = LEAST_PAIRS,
    min_ms: float = 1.0,
    threads: int = 1,
    confidence: float = 0.95,
    max_seconds: float = 60.0,
    clock: Clock | None = None,
    task: str = "measuring latency",
) -> dict[str, LatencySummary]:
    """Time several models in turn, in random order within each round, so that all meet the same noise.

    Args:
        calls: One call of each model, by name.
        rng: Decides the order within each round.
        rounds: Timings of each model; at least 20 are taken when time is up.
        min_ms: Least duration of one timing.
        threads: Threads the runtimes use; see :func:`compare_latency`.
        confidence: Of the intervals.
        max_seconds: After this long, 20 rounds are enough.
        clock: Another source of time.
        task: What to call it while it runs.

    Raises:
        MetricError: K240 for a clock that does not advance.
    """
    stopwatch = _Stopwatch(clock or Clock(), min_ms, threads)
    deadline = stopwatch.clock.now_ns() + int(max_seconds * 1e9)
    timed = {name: stopwatch.prepared(call) for name, call in calls.items()}
    names = list(timed)
    times: dict[str, list[float]] = {name: [] for name in names}
    for done in track(range(rounds), task):
        if done >= LEAST_ROUNDS and stopwatch.clock.now_ns() > deadline:
            break
        for place in rng.permutation(len(names)):
            times[names[place]].append(stopwatch.time_ms(timed[names[place]]))
    return {
        name: _summary(np.asarray(found), timed[name].repeats, confidence)
        for name, found in times.items()
    }


@dataclass
class _Timed:
    fn: Callable[[], Any]
    repeats: int


class _Stopwatch:
    def __init__(self, clock: Clock, min_ms: float, threads: int) -> None:
        self.clock, self.min_ms, self.threads = clock, min_ms, threads

    def prepared(self, fn: Callable[[], Any]) -> _Timed:
        """Warm up and find how many calls make one timing long enough."""
        for _ in range(_WARM_CALLS):
            fn()
        repeats = 1
        while True:
            spent = self._run_ms(fn, repeats)
            # One probe may have been interrupted: the quickest of several has to be long enough.
            for _ in range(_PROBES - 1):
                spent = min(spent, self._run_ms(fn, repeats)) if spent >= self.min_ms else spent
            if spent >= self.min_ms:
                return _Timed(fn, repeats)
            if repeats >= _MOST_REPEATS:
                raise MetricError(
                    "K240", f"{repeats} calls", why=f"they take {spent:g} ms by the clock"
                )
            repeats = self._more(repeats, spent)

    def _more(self, repeats: int, spent: float) -> int:
        # 20 % more than the estimate, so that a slightly faster timing is still long enough.
        wanted = math.ceil(1.2 * repeats * self.min_ms / max(spent, 1e-6))
        return min(max(wanted, repeats + 1), repeats * 100, _MOST_REPEATS)

    def _run_ms(self, fn: Callable[[], Any], repeats: int) -> float:
        start = self.clock.now_ns()
        for _ in range(repeats):
            fn()
        return (self.clock.now_ns() - start) / 1e6

    def time_ms(self, timed: _Timed) -> float:
        """One timing: milliseconds for one call. One that ended too soon is taken again, longer."""
        if self.threads > 1:
            self.clock.sleep(_SETTLE_S)
            for _ in range(_WARM_CALLS):
                timed.fn()
        spent = self._run_ms(timed.fn, timed.repeats)
        while spent < self.min_ms and timed.repeats < _MOST_REPEATS:
            timed.repeats = self._more(timed.repeats, spent)
            spent = self._run_ms(timed.fn, timed.repeats)
        return max(spent, 1e-9) / timed.repeats

    def pairs(
        self,
        first: _Timed,
        second: _Timed,
        count: int,
        rng: np.random.Generator,
        deadline: int,
        task: str,
    ) -> Floats:
        """Times in ms, shape (pairs, 2); at least 60 pairs, more only before the deadline."""
        rows: list[tuple[float, float]] = []
        for _ in track(range(count), task):
            if len(rows) >= LEAST_PAIRS and self.clock.now_ns() > deadline:
                break
            if rng.random() < 0.5:
                rows.append((self.time_ms(first), self.time_ms(second)))
            else:
                later = self.time_ms(second)
                rows.append((self.time_ms(first), later))
        return np.asarray(rows)


def _ratio_interval(runs: Floats, confidence: float) -> tuple[float, float]:
    return order_statistic_interval(runs[:, 0] / runs[:, 1], 0.5, 1 - confidence)


def _summary(times: Floats, repeats: int, confidence: float) -> LatencySummary:
    return LatencySummary(
        median_ms=float(np.median(times)),
        p90_ms=float(np.quantile(times, 0.9)),
        interval_ms=order_statistic_interval(times, 0.5, 1 - confidence),
        timings=times.size,
        repeats=repeats,
    )
