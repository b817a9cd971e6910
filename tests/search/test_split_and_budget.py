"""Choosing on one half and certifying on the other; what a budget calls broken."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from kompakt.errors import UsageError
from kompakt.measuring.data import Batch, prepare
from kompakt.measuring.latency import LatencyComparison, LatencySummary
from kompakt.network.interface import TensorSpec
from kompakt.search.budget import Budget
from kompakt.search.split import Half, example_batch, half_sizes, some_samples, spread_rows

from ..nets import IMAGE, batches_for, network

SPECS = (TensorSpec("x", ("batch", 1), torch.float32),)


def numbered(sizes: list[int], rows_per_label: int = 1) -> list[tuple[torch.Tensor, torch.Tensor]]:
    batches, start = [], 0
    for size in sizes:
        rows = torch.arange(start, start + size * rows_per_label, dtype=torch.float32)
        labels = torch.arange(size) + start
        batches.append((rows[:, None], labels))
        start += size * rows_per_label
    return batches


@pytest.mark.parametrize("sizes", [[4, 4], [3, 5, 1], [1, 1, 1], [7]])
@pytest.mark.parametrize("span", [1, 2])
def test_halves_cover_every_sample_once_and_keep_pairs(sizes: list[int], span: int) -> None:
    data = prepare(numbered(sizes, span), SPECS, labelled=True)
    halves = [[row for b in Half(data, w) for row in b.inputs["x"][:, 0].tolist()] for w in (0, 1)]
    assert sorted(halves[0] + halves[1]) == list(range(sum(sizes) * span))
    assert abs(len(halves[0]) - len(halves[1])) <= span
    for half in halves:
        firsts, seconds = half[::span], half[span - 1 :: span]
        assert [b - a for a, b in zip(firsts, seconds, strict=True)] == [span - 1] * len(firsts)


@pytest.mark.parametrize("sizes", [[4, 4], [3, 5, 1], [1] * 9, [700], [50] * 13, [20, 1, 20]])
@pytest.mark.parametrize("count", [1, 2, 6, 16])
def test_samples_are_drawn_across_all_of_the_data(sizes: list[int], count: int) -> None:
    total = sum(sizes)
    kept = spread_rows(prepare(numbered(sizes), SPECS, labelled=True), count, SPECS)
    rows = [row for batch in kept for row in batch.inputs["x"][:, 0].tolist()]
    assert rows == sorted(set(rows))
    assert len(rows) == min(count, total)
    assert all(1 <= batch.size <= max(sizes) for batch in kept)
    widest = max(b - a for a, b in zip([-1.0, *rows], [*rows, total], strict=True))
    assert widest <= 2.5 * (total / len(rows)) + 1


def test_data_sorted_by_class_gives_samples_of_every_class() -> None:
    """The first 32 of 320 samples in the order of their classes are all of class 0."""
    data = [(torch.full((32, 1), float(label)), torch.full((32,), label)) for label in range(10)]
    kept = spread_rows(prepare(data, SPECS, labelled=True), 32, SPECS)
    drawn = torch.cat([batch.inputs["x"] for batch in kept])[:, 0]
    assert set(drawn.tolist()) == set(range(10))
    assert drawn.long().bincount().max() <= 5
    again = spread_rows(prepare(data, SPECS, labelled=True), 32, SPECS)
    assert torch.equal(torch.cat([batch.inputs["x"] for batch in again])[:, 0], drawn)


def test_rows_of_different_shapes_stay_in_batches_of_their_own() -> None:
    specs = (
        TensorSpec("ids", ("batch", "length"), torch.int64),
        TensorSpec("k", (3,), torch.float32),
    )
    batches = [
        Batch({"ids": torch.full((4, n), n), "k": torch.ones(3)}, None, 4) for n in (5, 7, 7)
    ]
    kept = spread_rows(batches, 100, specs)
    assert [tuple(batch.inputs["ids"].shape) for batch in kept] == [(4, 5), (4, 7), (4, 7)]
    assert all(batch.inputs["k"].shape == (3,) for batch in kept)


def test_a_model_of_a_fixed_batch_size_gets_whole_batches() -> None:
    specs = (TensorSpec("x", (4, 1), torch.float32),)
    batches = [Batch({"x": torch.full((4, 1), float(n))}, None, 4) for n in range(20)]
    kept = spread_rows(batches, 16, specs)
    assert [batch.size for batch in kept] == [4, 4, 4, 4]
    assert kept[-1].inputs["x"][0] >= 12


def test_no_group_is_in_both_halves() -> None:
    """Four photos of each of 50 patients, in any order."""
    groups = np.random.default_rng(0).permutation(np.repeat([f"patient {i}" for i in range(50)], 4))
    rows = torch.arange(200.0)[:, None]
    batches = [
        Batch({"x": rows[i : i + 15]}, torch.arange(len(groups[i : i + 15])), len(groups[i : i + 15]),
              groups[i : i + 15])
        for i in range(0, 200, 15)
    ]  # fmt: skip
    data = prepare(batches, SPECS)
    first, second = (list(Half(data, which)) for which in (0, 1))
    seen = [
        {g for batch in half if batch.groups is not None for g in batch.groups}
        for half in (first, second)
    ]
    assert all(seen)
    assert not seen[0] & seen[1]
    sizes = half_sizes(data)
    assert sizes == tuple(sum(b.samples for b in half) for half in (first, second))
    assert sum(sizes) == 200
    assert abs(sizes[0] - sizes[1]) <= 20
    numbers = [n for half in (first, second) for b in half for n in b.inputs["x"][:, 0].tolist()]
    assert sorted(numbers) == list(range(200))


def test_a_budget_names_what_is_broken_and_what_was_not_measured() -> None:
    budget = Budget(max_drop=0.01, max_size=100, min_speedup=2.0, max_latency_ms=5.0)
    assert budget.violations(drop=0.01, size_bytes=100, speedup=2.0, latency_ms=5.0) == []
    broken = budget.violations(drop=0.02, size_bytes=101, speedup=1.9)
    assert len(broken) == 4
    assert any("not measured" in line for line in broken)


@pytest.mark.parametrize(
    "wrong", [{"max_drop": -0.1}, {"max_size": 0}, {"min_speedup": -1}, {"confidence": 0.4}]
)
def test_an_impossible_budget_is_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(UsageError) as caught:
        Budget(**wrong)  # type: ignore[arg-type]
    assert caught.value.code == "K600"


def test_labels_of_any_kind_and_groups_stay_with_their_samples() -> None:
    batch = Batch(
        {"x": torch.arange(5.0)[:, None], "all": torch.ones(3)},
        [f"text {i}" for i in range(5)],
        5,
        np.array(list("aabbc")),
    )
    odd = some_samples(batch, np.array([1, 3]))
    assert odd is not None
    assert odd.inputs["x"][:, 0].tolist() == [1.0, 3.0]
    assert odd.inputs["all"].shape == (3,), "an input without samples belongs to every sample"
    assert odd.labels == ["text 1", "text 3"]
    assert odd.groups is not None
    assert odd.groups.tolist() == ["a", "b"]
    assert some_samples(Batch({"x": torch.ones(1, 1)}, None, 1), np.array([], np.int64)) is None


@pytest.mark.parametrize("size", [1, 3, 10])
def test_a_batch_for_timing_has_the_size_asked_for(size: int) -> None:
    captured = network("plain")
    made = example_batch(captured, batches_for("plain"), size)
    assert made.inputs["x"].shape == (size, *IMAGE)
    assert torch.equal(made.inputs["x"][0], batches_for("plain")[0].inputs["x"][0])
    without_data = example_batch(captured, [], size)
    assert without_data.inputs["x"].shape == (size, *IMAGE)


@pytest.mark.parametrize(
    "wrong", [{"max_drop": float("nan")}, {"confidence": 1.0}, {"min_speedup": float("nan")}]
)
def test_numbers_that_are_none_are_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(UsageError):
        Budget(**wrong)  # type: ignore[arg-type]


def test_a_figure_that_is_no_number_breaks_its_limit() -> None:
    assert Budget(max_drop=0.01).violations(drop=float("nan"))
    assert Budget(min_speedup=1.0).violations(speedup=float("nan"))
    assert not Budget().violations(drop=float("nan"))


def test_a_budget_in_a_record() -> None:
    data = Budget(max_drop=0.01, max_size=100).to_json()
    assert data == {
        "max_drop": 0.01, "max_size_bytes": 100, "min_speedup": None, "max_latency_ms": None,
        "confidence": 0.95,
    }  # fmt: skip
    assert not Budget(max_drop=0.01).demands_speed_or_size
    assert Budget(max_latency_ms=1.0).demands_speed_or_size


def timed(ratio: float, spread: float, ms: float, noise: float = 1.0) -> LatencyComparison:
    times = LatencySummary(
        median_ms=ms, p90_ms=ms, interval_ms=(ms / spread, ms * spread), timings=60, repeats=1
    )
    return LatencyComparison(
        ratio=ratio, interval=(ratio / spread, ratio * spread), baseline=times, candidate=times,
        noise_interval=(1 / noise, noise), noisy=noise > 1.05, margin=0.05, pairs=60,
        confidence=0.95, seconds=1.0,
    )  # fmt: skip


def test_a_limit_on_speed_is_held_by_the_whole_interval_or_said_to_be_open() -> None:
    budget = Budget(min_speedup=2.0, max_latency_ms=10.0)
    assert budget.undecided(None) == []
    assert budget.undecided(timed(2.5, 1.05, 9.0)) == []
    speed, latency = budget.undecided(timed(2.05, 1.05, 9.8))
    assert "a speed-up of at least 2 is observed, not proven: 2.05, interval 1.95 to 2.15" in speed
    assert "a latency of at most 10 ms is observed, not proven" in latency
    noisy = budget.undecided(timed(2.5, 1.05, 9.0, noise=1.3))
    assert len(noisy) == 2
    assert all(text.endswith("on a noisy machine") for text in noisy)
    assert Budget().undecided(timed(2.05, 1.05, 9.8, noise=1.3)) == []
