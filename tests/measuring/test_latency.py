"""Latency with a clock that only moves when told to, and once with the real one."""

from __future__ import annotations

import time

import numpy as np
import pytest

from kompakt.errors import MetricError
from kompakt.measuring.latency import Clock, compare_latency, measure_latency


class Machine:
    """A fake machine on which every call takes a known time, times noise, plus slow drift."""

    def __init__(self, noise: float = 0.0, drift: float = 0.0, seed: int = 0) -> None:
        self.now, self.noise, self.drift = 0.0, noise, drift
        self.rng = np.random.default_rng(seed)
        self.slept = 0
        self.calls: list[str] = []

    @property
    def clock(self) -> Clock:
        return Clock(now_ns=lambda: round(self.now * 1e9), sleep=self.sleep)

    def sleep(self, seconds: float) -> None:
        self.slept += 1
        self.now += seconds

    def call(self, milliseconds: float, name: str = "") -> object:
        def run() -> None:
            factor = np.exp(self.noise * self.rng.normal()) * (1 + self.drift * self.now)
            self.now += milliseconds * factor / 1000
            self.calls.append(name)

        return run


def test_a_planted_speedup_is_found_exactly_on_a_quiet_machine() -> None:
    machine = Machine()
    found = compare_latency(
        machine.call(3.0), machine.call(2.0), rng=np.random.default_rng(0), clock=machine.clock
    )
    assert found.ratio == pytest.approx(1.5)
    assert found.interval == pytest.approx((1.5, 1.5))
    assert (found.float_ms, found.candidate_ms) == pytest.approx((3.0, 2.0))
    assert found.noise_interval == pytest.approx((1.0, 1.0))
    assert not found.noisy
    assert found.pairs == 60
    assert found.baseline.throughput(8) == pytest.approx(8 / 0.003)


def test_noise_and_drift_do_not_move_the_figure() -> None:
    machine = Machine(noise=0.1, drift=2.0)
    found = compare_latency(
        machine.call(3.0), machine.call(2.0), rng=np.random.default_rng(0), clock=machine.clock
    )
    assert found.float_ms > 3.5
    assert found.interval[0] < 1.5 < found.interval[1]
    assert found.ratio == pytest.approx(1.5, rel=0.06)


def test_intervals_of_equal_models_hold_one_as_often_as_promised() -> None:
    missed = 0
    for seed in range(200):
        machine = Machine(noise=0.05, seed=seed)
        found = compare_latency(
            machine.call(1.0), machine.call(1.0), rng=np.random.default_rng(seed),
            clock=machine.clock, guard=False,
        )  # fmt: skip
        missed += not found.interval[0] <= 1 <= found.interval[1]
    assert missed / 200 <= 0.05 + 3 * np.sqrt(0.05 * 0.95 / 200)


def test_a_noisy_machine_is_said_to_be_noisy() -> None:
    results = []
    for margin in (0.01, 0.5):
        machine = Machine(noise=0.2)
        results.append(
            compare_latency(
                machine.call(2.0), machine.call(2.0), rng=np.random.default_rng(0),
                margin=margin, clock=machine.clock,
            )
        )  # fmt: skip
    assert results[0].noisy
    assert not results[1].noisy


def test_without_the_guard_nothing_is_said_about_noise() -> None:
    machine = Machine(noise=0.5)
    found = compare_latency(
        machine.call(2.0), machine.call(2.0), rng=np.random.default_rng(0), guard=False,
        margin=0.01, clock=machine.clock,
    )  # fmt: skip
    assert found.noise_interval is None
    assert not found.noisy


def test_short_calls_are_repeated_until_a_timing_is_long_enough() -> None:
    machine = Machine()
    found = compare_latency(
        machine.call(0.004), machine.call(20.0), rng=np.random.default_rng(0), clock=machine.clock
    )
    assert found.baseline.repeats * 0.004 >= 1.0
    assert found.baseline.repeats < 2000
    assert found.candidate.repeats == 1
    assert found.float_ms == pytest.approx(0.004, rel=1e-3)


def test_the_order_within_pairs_is_random_and_repeats_with_the_seed() -> None:
    def order(seed: int) -> list[str]:
        machine = Machine()
        compare_latency(
            machine.call(2.0, "f"), machine.call(2.0, "c"), rng=np.random.default_rng(seed),
            guard=False, clock=machine.clock,
        )  # fmt: skip
        return machine.calls[-120:]

    first = order(0)
    assert first == order(0) != order(1)
    firsts = first[::2]
    assert 15 < firsts.count("f") < 45
    assert all({a, b} == {"f", "c"} for a, b in zip(first[::2], first[1::2], strict=True))


def test_time_is_bounded_but_never_at_the_cost_of_pairs() -> None:
    slow, quick = Machine(), Machine()
    found = compare_latency(
        slow.call(1000.0), slow.call(900.0), rng=np.random.default_rng(0), pairs=500,
        max_seconds=5.0, clock=slow.clock,
    )  # fmt: skip
    assert found.pairs == 60
    found = compare_latency(
        quick.call(1.0), quick.call(1.0), rng=np.random.default_rng(0), pairs=500,
        clock=quick.clock,
    )  # fmt: skip
    assert found.pairs == 500


def test_several_threads_rest_and_warm_up_before_each_timing() -> None:
    one, two = Machine(), Machine()
    for machine, threads in ((one, 1), (two, 2)):
        compare_latency(
            machine.call(2.0), machine.call(2.0), rng=np.random.default_rng(0), guard=False,
            threads=threads, clock=machine.clock,
        )  # fmt: skip
    assert one.slept == 0
    assert two.slept == 120
    assert len(two.calls) == len(one.calls) + 3 * 120


def test_verdicts_on_a_speedup() -> None:
    machine = Machine(noise=0.05)
    found = compare_latency(
        machine.call(3.0), machine.call(2.0), rng=np.random.default_rng(0), clock=machine.clock
    )
    assert found.verdict(1.3) == "proven"
    assert found.verdict(1.5) == "undecided"
    assert found.verdict(1.8) == "violated"


def test_an_interrupted_probe_does_not_leave_timings_too_short() -> None:
    machine, runs = Machine(), 0

    def interrupted() -> None:
        nonlocal runs
        runs += 1
        machine.now += (5.0 if runs == 4 else 0.01) / 1000  # the first probe after warming up

    found = measure_latency(interrupted, clock=machine.clock)
    assert found.repeats * 0.01 >= 1.0


def test_a_model_that_becomes_quicker_is_timed_for_longer() -> None:
    machine, runs = Machine(), 0

    def warming() -> None:
        nonlocal runs
        runs += 1
        machine.now += (2.0 if runs < 20 else 0.02) / 1000

    found = measure_latency(warming, clock=machine.clock)
    assert found.repeats * 0.02 >= 1.0
    assert found.median_ms == pytest.approx(0.02, rel=0.01)


def test_on_a_noisy_machine_a_speedup_is_proven_by_more_than_the_noise() -> None:
    machine = Machine(noise=0.2)
    found = compare_latency(
        machine.call(3.0), machine.call(2.0), rng=np.random.default_rng(0), clock=machine.clock
    )
    assert found.noisy
    low, high = found.interval
    assert found.verdict(low) == "undecided"
    assert found.verdict(low / 2) == "proven"
    assert found.verdict(high * 2) == "violated"
    fastest, slowest = found.candidate.interval_ms
    assert found.within(slowest) == "undecided"
    assert (found.within(slowest * 2), found.within(fastest / 2)) == ("proven", "violated")


def test_one_model_alone() -> None:
    machine = Machine(noise=0.1)
    found = measure_latency(machine.call(2.0), clock=machine.clock)
    assert found.median_ms == pytest.approx(2.0, rel=0.05)
    assert found.interval_ms[0] < found.median_ms < found.interval_ms[1] < found.p90_ms * 1.05


@pytest.mark.parametrize("settings", [{"pairs": 59}, {"min_ms": 0.0}, {"threads": 0}])
def test_unusable_settings_are_refused(settings: dict[str, float]) -> None:
    with pytest.raises(MetricError, match="K240"):
        compare_latency(
            lambda: None, lambda: None, rng=np.random.default_rng(0), **settings
        )  # fmt: skip


def test_a_clock_that_stands_still_is_an_error() -> None:
    with pytest.raises(MetricError, match="K240"):
        measure_latency(lambda: None, clock=Clock(now_ns=lambda: 0))


def test_the_real_clock_sees_a_planted_difference() -> None:
    found = compare_latency(
        lambda: time.sleep(0.0015), lambda: time.sleep(0.0005), rng=np.random.default_rng(0),
        guard=False,
    )  # fmt: skip
    assert found.interval[0] > 1.2
