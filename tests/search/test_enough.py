"""What is said about the amount of calibration data."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from kompakt.measuring.data import Batch
from kompakt.observe.statistics import EdgeStatistics
from kompakt.search.enough import enough_data, expected_growth
from kompakt.search.workbench import Workbench

from ..nets import grid, network
from .benches import workbench

SHAPE = (3, 10, 10)


def bench_on(count: int, folder: Path, spread: float = 0.0) -> Workbench:
    """A bench with so many samples, each of another size where ``spread`` says so."""
    bench = workbench("plain", folder)
    key = network("plain").input_specs[0].name
    sizes = torch.exp(spread * torch.randn(count, generator=torch.Generator().manual_seed(0)))
    x = grid(count, *SHAPE) * sizes.reshape(-1, 1, 1, 1)
    batches = [Batch({key: part}, None, len(part)) for part in x.split(8)]
    return Workbench(
        bench.network, bench.target, bench.isa, folder, batches, batches[:4], bench.threads
    )


def test_the_expected_growth_is_that_of_random_halves() -> None:
    values = np.exp(np.random.default_rng(0).standard_normal(12)).astype(np.float32)
    seen = EdgeStatistics(sample_absmax=values)
    rng = np.random.default_rng(1)
    halves = [rng.choice(values, 6, replace=False).max() for _ in range(20_000)]
    assert expected_growth(seen) == pytest.approx(values.max() / np.mean(halves) - 1, rel=0.06)
    assert expected_growth(EdgeStatistics(sample_absmax=np.ones(9, np.float32))) == pytest.approx(
        0.0, abs=1e-12
    )


def test_samples_that_are_alike_are_enough(tmp_path: Path) -> None:
    ranges, biases = enough_data(bench_on(48, tmp_path))
    assert "48 calibration samples are enough for the ranges" in ranges
    assert "biases corrected on 16 samples" in biases
    assert "bring little" in biases


def test_samples_that_differ_are_not(tmp_path: Path) -> None:
    ranges, *_ = enough_data(bench_on(8, tmp_path, spread=1.5))
    assert "8 calibration samples" in ranges
    assert "still grow" in ranges


def test_one_sample_is_said_to_be_a_guess(tmp_path: Path) -> None:
    (said,) = enough_data(bench_on(1, tmp_path))
    assert "one calibration sample" in said


def test_without_data_nothing_is_said(tmp_path: Path) -> None:
    bench = workbench("plain", tmp_path)
    empty = Workbench(bench.network, bench.target, bench.isa, tmp_path, None, [], 1)
    assert enough_data(empty) == []
