"""Rankings on a few samples: of calibrators, and of the layers whose inputs have outliers."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

from kompakt.errors import SchemeError
from kompakt.measuring.data import Batch
from kompakt.observe import OBSERVERS
from kompakt.search.candidates import static, with_bias_correction
from kompakt.search.ranking import (
    NOTICEABLE_ERROR,
    RANKING_SAMPLES,
    float_outputs,
    hybrids,
    layers_by_input_quality,
    output_error,
    rank_calibrators,
)
from kompakt.search.split import spread_rows
from kompakt.search.workbench import Workbench

from ..nets import batches_for, grid, network
from .benches import workbench, workbench_for


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


class Outliers(nn.Module):
    """Three linear layers, the middle one reading a few values hundreds of times larger than the rest."""

    def __init__(self, tamed: float) -> None:
        super().__init__()
        self.a, self.b, self.c = nn.Linear(40, 64), nn.Linear(64, 64), nn.Linear(64, 8)
        with torch.no_grad():
            self.b.weight[:, :2] *= tamed

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        gain = torch.ones(64)
        gain[:2] = 300.0
        return self.c(torch.tanh(self.b(torch.tanh(self.a(x)) * gain * (1 + x[:, :1].abs()) ** 3)))


def outliers(folder: Path, tamed: float = 1.0) -> Workbench:
    data = [Batch({"x": grid(16, 40, seed=s)}, None, 16) for s in range(2)]
    with torch.random.fork_rng():
        torch.manual_seed(4)
        source = Outliers(tamed).eval()
    return workbench_for(source, data, folder, isa="x86")


def test_layers_with_outliers_are_found_and_made_dynamic(tmp_path: Path) -> None:
    bench = outliers(tmp_path)
    assert layers_by_input_quality(bench, static("minmax"))[0] == "b"
    plain, error = rank_calibrators(bench, ())[0]
    assert error > NOTICEABLE_ERROR
    found = hybrids(bench, plain, error)
    assert 1 <= len(found) <= 2
    for candidate, improved in found:
        assert improved < error
        assert candidate.scheme.overrides[0].select == "b"
        assert candidate.scheme.overrides[0].treatment.mode == "dynamic"
        assert candidate.calibrator == plain.calibrator
        assert candidate.name.startswith(f"{plain.name}, ")
        # The claim is that of the same network with corrected biases, on the first samples.
        placed = bench.place(with_bias_correction(candidate))
        first = spread_rows(bench.samples, RANKING_SAMPLES, bench.prepared.input_specs)
        reference = float_outputs(bench.prepared, first)
        assert output_error(placed, reference, first) == pytest.approx(improved, rel=0.1)
        bench.build(candidate)


def test_what_is_no_better_is_not_tried(tmp_path: Path) -> None:
    """Where a scale for each batch serves no better than one for all, nothing is said to improve."""
    bench = outliers(tmp_path, tamed=0.01)
    plain, error = rank_calibrators(bench, ())[0]
    assert error > NOTICEABLE_ERROR
    assert layers_by_input_quality(bench, plain)[0] == "b"
    assert hybrids(bench, plain, error) == []


def test_what_is_good_enough_is_not_made_slower(tmp_path: Path) -> None:
    assert hybrids(outliers(tmp_path), static("minmax"), NOTICEABLE_ERROR * 0.99) == []


def test_layers_that_stay_float_are_not_ranked(tmp_path: Path) -> None:
    assert "b" not in layers_by_input_quality(outliers(tmp_path), static("minmax", ("b",)))
    (tmp_path / "cnn").mkdir()
    convolutional = workbench("plain", tmp_path / "cnn")
    assert layers_by_input_quality(convolutional, static("minmax", ("head",))) == []
