"""Calibrators ranked on a few samples."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from kompakt.errors import SchemeError
from kompakt.measuring.data import Batch
from kompakt.observe import OBSERVERS
from kompakt.search.candidates import with_bias_correction
from kompakt.search.ranking import float_outputs, output_error, rank_calibrators
from kompakt.search.workbench import Workbench

from ..nets import batches_for, network
from .benches import workbench


def test_the_error_is_relative_to_the_float_outputs() -> None:
    given = batches_for("plain")
    reference = float_outputs(network("plain"), given)
    assert output_error(network("plain"), reference, given) == 0
    doubled = [[2 * tensor for tensor in outputs] for outputs in reference]
    assert output_error(network("plain"), doubled, given) == pytest.approx(0.5)
    silent = [[torch.zeros_like(tensor) for tensor in outputs] for outputs in reference]
    assert output_error(network("plain"), silent, given) > 1e100


def test_calibrators_are_ranked_by_their_error(tmp_path: Path) -> None:
    bench = workbench("residual", tmp_path)
    ranked = rank_calibrators(bench, ())
    assert {c.calibrator for c, _ in ranked} == set(OBSERVERS)
    errors = [error for _, error in ranked]
    assert errors == sorted(errors)
    assert 0 < errors[0] < 0.2
    best, claimed = ranked[0]
    reference = float_outputs(bench.prepared, bench.samples)
    placed = bench.place(with_bias_correction(best))
    assert output_error(placed, reference, bench.samples) == pytest.approx(claimed, rel=1e-6)


def test_one_wild_value_speaks_against_min_max(tmp_path: Path) -> None:
    data = batches_for("plain", count=4)
    wild = batches_for("plain", seed=9)[0].inputs["x"].clone()
    wild[0, 0, 0, 0] = 3000.0
    bench = workbench("plain", tmp_path)
    given = [*data, Batch({"x": wild}, None, 4)]
    bench = Workbench(bench.network, bench.target, bench.isa, tmp_path, given, data, 1)
    ranked = rank_calibrators(bench, ())
    errors = {str(candidate.calibrator): error for candidate, error in ranked}
    assert errors["minmax"] > 2 * ranked[0][1]


def test_a_ranking_is_the_same_twice_and_keeps_what_stays_float(tmp_path: Path) -> None:
    first, again = (rank_calibrators(workbench("plain", tmp_path), ("head",)) for _ in range(2))
    assert first == again
    assert all(c.scheme.overrides[0].select == "head" for c, _ in first)


def test_without_a_static_kernel_there_is_nothing_to_rank(tmp_path: Path) -> None:
    with pytest.raises(SchemeError) as caught:
        rank_calibrators(workbench("plain", tmp_path), ("*",))
    assert caught.value.code == "K345"
