"""Runtimes side by side, and layers that are slower than in float."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

import kompakt
from kompakt.errors import TargetError, UsageError
from kompakt.measuring.latency import Clock, time_in_turn
from kompakt.search import runtimes
from kompakt.search.candidates import static
from kompakt.search.slowdown import Slower, sentence, slower_layers
from kompakt.targets import TARGETS
from kompakt.targets.onnxruntime_profile import profile
from kompakt.targets.target import Spent, Target

from ..nets import batches_for, deployed, network, w8a8
from .benches import workbench


class Ticks:
    """A clock by which each model takes its own time."""

    def __init__(self) -> None:
        self.now = 0

    def clock(self) -> Clock:
        return Clock(now_ns=lambda: self.now, sleep=lambda seconds: None)

    def model(self, milliseconds: float) -> Any:
        def call() -> None:
            self.now += int(milliseconds * 1e6)

        return call


def test_models_are_timed_in_turn_and_in_random_order() -> None:
    ticks, order = Ticks(), []

    def noted(name: str, milliseconds: float) -> Any:
        call = ticks.model(milliseconds)
        return lambda: (order.append(name), call())

    calls = {"a": noted("a", 2), "b": noted("b", 5), "c": noted("c", 3)}
    found = time_in_turn(calls, rng=np.random.default_rng(0), clock=ticks.clock())
    assert {n: round(s.median_ms) for n, s in found.items()} == {"a": 2, "b": 5, "c": 3}
    rounds = [tuple(order[-3 * k - 3 : len(order) - 3 * k]) for k in range(20)]
    assert all(sorted(r) == ["a", "b", "c"] for r in rounds)
    assert len(set(rounds)) > 1


def slowed(target: Target, name: str) -> Target:
    return replace(target, name=name)


def compressed(tmp_path: Any, monkeypatch: pytest.MonkeyPatch, others: dict[str, Target]) -> Any:
    monkeypatch.setattr(runtimes, "candidates_for_auto", lambda: ["onnxruntime", *others])
    monkeypatch.setattr("kompakt.compression.candidates_for_auto", lambda: ["onnxruntime", *others])
    for name, target in others.items():
        monkeypatch.setitem(TARGETS, name, target)
    batches = [batch.inputs["x"] for batch in batches_for("plain")]
    return kompakt.compress(
        network("plain"), calibration=batches, target="auto", isa="x86-vnni",
        out=tmp_path / "out", measure_memory=False,
    )  # fmt: skip


def test_every_runtime_is_tried_and_the_fastest_wins(
    tmp_path: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = TARGETS["onnxruntime"]
    found = compressed(tmp_path, monkeypatch, {"twin": slowed(target, "twin")})
    rows = {row["target"]: row for row in found.record.runtimes}
    assert set(rows) == {"onnxruntime", "twin"}
    assert sorted(row["outcome"] for row in rows.values()) == ["chosen", "slower"]
    winner = min(rows.values(), key=lambda row: row["latency_ms"])
    assert winner["outcome"] == "chosen"
    assert found.record.target["name"] == winner["target"]
    assert all(row["float_ms"] > 0 and row["size_bytes"] > 0 for row in rows.values())
    (loser,) = (row for row in rows.values() if row["outcome"] == "slower")
    assert "times as long as" in loser["why"]


def test_a_runtime_that_cannot_take_part_says_why(
    tmp_path: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuses(network: Any) -> Any:
        raise TargetError("K401", "writing this network", why="it knows no convolutions")

    target = replace(TARGETS["onnxruntime"], name="poor", write=refuses)
    found = compressed(tmp_path, monkeypatch, {"poor": target})
    rows = {row["target"]: row for row in found.record.runtimes}
    assert rows["onnxruntime"]["outcome"] == "chosen"
    assert rows["poor"]["outcome"] == "failed"
    assert "no convolutions" in rows["poor"]["why"]
    assert rows["poor"]["latency_ms"] is None


def test_the_fastest_needs_timing(tmp_path: Any) -> None:
    with pytest.raises(UsageError, match="K603"):
        kompakt.compress(network("plain"), target="auto", out=tmp_path / "o", measure_latency=False)


def test_what_cannot_run_here_is_not_tried() -> None:
    names = runtimes.candidates_for_auto()
    assert names[0] == "onnxruntime"
    assert all(TARGETS[name].automatic for name in names)


def test_the_time_of_every_operator(tmp_path: Any) -> None:
    made = deployed("plain", w8a8())
    path = made.written.save(tmp_path)
    rows = profile(path, made.written.options, made.batches[0].arrays())
    executed = TARGETS["onnxruntime"].operators(path, made.written.options)
    counted: dict[str, int] = {}
    for row in rows:
        assert row.milliseconds >= 0
        counted[row.operator] = counted.get(row.operator, 0) + 1
    assert counted == executed


def test_layers_slower_than_in_float_are_named(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Any
) -> None:
    bench = workbench("plain", tmp_path)
    build = bench.build(static("minmax"))
    names = [n for n, m in build.placed.named_modules() if hasattr(m, "treatment")]
    slow, fast = names[0], names[1]

    def times(path: Any, options: Any, inputs: Any, threads: int) -> list[Spent]:
        ours = path == build.path
        return [
            Spent(name=f"{slow}/Conv_token_3" if ours else f"{slow}_nchwc",
                  operator="QLinearConv" if ours else "Conv", milliseconds=0.9 if ours else 0.2),
            Spent(name=f"{fast}/Conv", operator="Conv", milliseconds=0.1 if ours else 0.8),
            Spent(name="ReorderOutput", operator="ReorderOutput", milliseconds=5.0),
        ]  # fmt: skip

    bench.target = replace(bench.target, profile=times)
    (row,) = slower_layers(bench, build, batches_for("plain")[0])
    assert (row.site, row.operator) == (slow, "QLinearConv")
    assert row.loss == pytest.approx(0.7)
    assert f"{slow} (QLinearConv) 0.9 ms against 0.2 ms in float" in sentence([row])
    bench.target = replace(bench.target, profile=None)
    assert slower_layers(bench, build, batches_for("plain")[0]) == []


def test_many_slow_layers_are_counted() -> None:
    rows = [
        Slower(site=f"l{i}", operator="C", milliseconds=2, float_milliseconds=1) for i in range(5)
    ]
    assert sentence(rows).endswith("and 2 more")
    assert sentence([]) == ""
